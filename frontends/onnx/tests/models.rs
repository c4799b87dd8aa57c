//! Real models and exporter output against their recorded results, on the reference evaluator.
//!
//! The models lie outside the crate; where they are absent the test says so and passes.

mod common;

use std::path::{Path, PathBuf};

use common::{Tolerance, check, data_sets, tolerance};
use tgc_onnx::Options;

fn models() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/models");
    if folder.is_dir() {
        return Some(folder);
    }
    println!("skipped: {} is absent", folder.display());
    None
}

fn cases(folder: &Path) -> Vec<PathBuf> {
    let mut cases: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is readable")
        .map(|entry| entry.expect("the folder is readable").path())
        .filter(|path| path.join("model.onnx").is_file())
        .collect();
    cases.sort();
    cases
}

fn name(case: &Path) -> String {
    case.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Cases that do not pass, and why.
const FAILING: &[(&str, &str)] = &[
    (
        "quant-vit-fp16",
        "half precision: the recorded results carry more rounding than their tolerance allows",
    ),
    (
        "quant-whisper-encoder-fp16io",
        "half precision: the recorded results carry more rounding than their tolerance allows",
    ),
];

fn run(case: &Path) -> Result<(), String> {
    let model = tgc_onnx::load(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let imported = tgc_onnx::import(&model).map_err(|e| e.to_string())?;
    tgc_ir::infer::verify(&imported.graph).map_err(|(node, v)| format!("verifier: {node}: {v}"))?;
    let tolerance = tolerance(case, Tolerance { rtol: 1e-3, atol: 1e-5 });
    for set in data_sets(case) {
        check(&imported, &set, tolerance, &Options::default())
            .map_err(|e| format!("{}: {e}", name(&set)))?;
    }
    Ok(())
}

#[test]
fn every_model_imports_and_evaluates_right() {
    let Some(folder) = models() else { return };
    let mut failed = Vec::new();
    let selected = cases(&folder);
    for case in &selected {
        let expected = FAILING.iter().find(|(n, _)| *n == name(case));
        match (run(case), expected) {
            (Ok(()), None) | (Err(_), Some(_)) => {}
            (Ok(()), Some(_)) => {
                failed.push(format!("{}: passes, but is listed as failing", name(case)))
            }
            (Err(error), None) => failed.push(format!("{}: {error}", name(case))),
        }
    }
    println!("{} of {} models pass", selected.len() - failed.len(), selected.len());
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn every_model_decodes() {
    let Some(folder) = models() else { return };
    for case in cases(&folder) {
        let model = tgc_onnx::load(&case.join("model.onnx"))
            .expect("every model of the corpus is well-formed");
        let graph = model.proto.graph.as_ref().expect("load refuses models without a graph");
        assert!(!graph.node.is_empty(), "{}", name(&case));
    }
}
