//! `cargo xtask test`: format, lints, every test, and what was skipped.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::setup::{self, Tools};
use crate::shell::{self, build_tgc, cargo, program, root, watch};

/// Runs everything, keeps going after a failure and fails at the end.
///
/// One profile (release) for lints, tests and the binary: models on the reference are too slow otherwise, and a fresh
/// clone compiles every crate once.
pub(crate) fn run(all: bool) -> Result<()> {
    let tools = setup::run();
    let mut failed = Vec::new();
    let mut keep = |what: &str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            failed.push(what.to_owned());
        }
    };
    keep("format", shell::run(cargo().args(["fmt", "--all", "--", "--check", "-l"])));
    keep("lints", shell::run(cargo().args(LINTS)));
    let mut skipped = BTreeSet::new();
    keep("tests", tests(&tools, &mut skipped));
    if all {
        keep("models", models(&tools));
    }
    println!();
    tools.report();
    skipped.iter().for_each(|line| println!("{line}"));
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("all passed");
    Ok(())
}

const LINTS: [&str; 8] =
    ["clippy", "--workspace", "--all-targets", "--release", "--quiet", "--", "-D", "warnings"];

/// Every test of the workspace; prints what the runners print, without the output of tests that passed.
fn tests(tools: &Tools, skipped: &mut BTreeSet<String>) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--workspace", "--release", "--no-fail-fast", "--", "--show-output"]);
    let mut is_hidden = false;
    let passed = watch(tools.apply(&mut command), |line| {
        match line {
            "successes:" => is_hidden = true,
            "failures:" => is_hidden = false,
            _ if line.starts_with("test result:") => is_hidden = false,
            _ => {}
        }
        if let Some(at) = line.find("skipped: ") {
            skipped.insert(line[at..].to_owned());
        }
        if !is_hidden && !line.is_empty() {
            println!("{line}");
        }
    })?;
    if !passed {
        bail!("a test failed");
    }
    Ok(())
}

/// `tgc test` on every case of the corpus beside the repository.
fn models(tools: &Tools) -> Result<()> {
    let corpus = root().join("../shared/data/models");
    if !corpus.is_dir() {
        println!("skipped: the model corpus is not beside the repository");
        return Ok(());
    }
    let tgc = build_tgc()?;
    let mut cases: Vec<PathBuf> =
        std::fs::read_dir(corpus)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
    cases.retain(|case| case.join("model.onnx").is_file());
    cases.sort();
    let total = cases.len();
    let mut failed = Vec::new();
    for case in cases {
        if shell::run(tools.apply(program(&tgc).arg("test").arg(&case).args(["--device", "cpu"])))
            .is_err()
        {
            failed.push(
                case.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned()),
            );
        }
    }
    println!("models on the cpu device: {} of {total} right", total - failed.len());
    if !failed.is_empty() {
        bail!("wrong or not compiled: {}", failed.join(", "));
    }
    Ok(())
}
