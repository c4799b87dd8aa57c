//! The official ONNX node cases on the reference evaluator.
//!
//! `TGC_ONNX_CASES` names a folder written by `dump_node_cases.py`; without it the test says so and passes. The list
//! `onnx-pass.txt` holds the cases that pass: a listed case that fails is an error, and so is an unlisted one that passes.
//! `TGC_ONNX_BLESS=1` writes the list anew.

mod common;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn list() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx-pass.txt")
}

#[test]
fn listed_cases_pass_and_others_do_not() {
    let Ok(folder) = std::env::var("TGC_ONNX_CASES") else {
        println!("skipped: TGC_ONNX_CASES names no folder of node cases");
        return;
    };
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("TGC_ONNX_CASES is a readable folder")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.join("model.onnx").is_file())
        .collect();
    cases.sort();
    let listed: BTreeSet<String> =
        std::fs::read_to_string(list()).unwrap_or_default().lines().map(str::to_owned).collect();
    let mut passed = BTreeSet::new();
    let mut wrong = Vec::new();
    for case in &cases {
        let name = case.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        match (common::run_case(case), listed.contains(&name)) {
            (Ok(()), known) => {
                if !known {
                    wrong.push(format!("{name} passes, but is not listed"));
                }
                passed.insert(name);
            }
            (Err(error), true) => wrong.push(format!("{name}: {error}")),
            (Err(error), false) => assert!(!error.is_empty(), "{name} fails without a word"),
        }
    }
    println!("{} of {} node cases pass", passed.len(), cases.len());
    if std::env::var_os("TGC_ONNX_BLESS").is_some() {
        let text: String = passed.iter().map(|n| format!("{n}\n")).collect();
        std::fs::write(list(), text).expect("the list is writable");
        return;
    }
    let missing = listed.iter().filter(|n| !cases.iter().any(|c| c.ends_with(n))).count();
    assert!(missing == 0, "{missing} listed cases are not in the folder");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
