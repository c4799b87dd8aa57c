//! `cargo xtask gpu-bundle`: one archive with the release binary, engines and data of chosen cases, and a runner.
//!
//! For a machine with a GPU and no Rust: unpack, `bash run.sh`.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::shell::{build_tgc, program, root, run, shown, target};

/// Largest archive, in bytes.
const BYTES_MAX: u64 = 60_000_000;

/// Targets of every engine.
const TARGETS: &str = "cpu,sm_80,sm_86,sm_89,sm_90a";

/// Packs cases: names in the corpus or in `tests/models`, or folders; without any, the shipped models.
pub(crate) fn run_bundle(cases: &[&str]) -> Result<()> {
    let tools = setup::nvrtc_only();
    if tools.nvrtc.is_none() {
        tools.report();
        bail!("engines for a GPU need NVRTC");
    }
    let tgc = build_tgc()?;
    let folder = target("gpu-bundle");
    if folder.exists() {
        std::fs::remove_dir_all(&folder)?;
    }
    std::fs::create_dir_all(folder.join("cases"))?;
    std::fs::copy(&tgc, folder.join("tgc"))?;
    for (name, text) in
        [("run.sh", include_str!("bundle/run.sh")), ("table.py", include_str!("bundle/table.py"))]
    {
        std::fs::write(folder.join(name), text)?;
    }
    for case in chosen(cases)? {
        let place = folder.join("cases").join(case.file_name().context("a case has a name")?);
        crate::demo::copy_folder(&case, &place)?;
        let mut compile = program(&tgc);
        compile
            .arg("compile")
            .arg(place.join("model.onnx"))
            .arg("--output")
            .arg(place.join("model.tgc"));
        run(tools.apply(compile.args(["--target", TARGETS])))?;
    }
    let archive = target("gpu-bundle.tar");
    run(program("tar").arg("-C").arg(target("")).arg("-cf").arg(&archive).arg("gpu-bundle"))?;
    let bytes = archive.metadata()?.len();
    println!("{}: {:.1} MB", shown(&archive), bytes as f64 / 1e6);
    if bytes > BYTES_MAX {
        bail!("the archive is larger than {} MB; choose fewer cases", BYTES_MAX / 1_000_000);
    }
    Ok(())
}

/// Folders of the cases that were asked for.
fn chosen(cases: &[&str]) -> Result<Vec<PathBuf>> {
    let shipped = root().join("tests/models");
    if cases.is_empty() {
        let mut all: Vec<PathBuf> =
            std::fs::read_dir(shipped)?.map(|e| Ok(e?.path())).collect::<Result<_>>()?;
        all.retain(|case| case.join("model.onnx").is_file());
        all.sort();
        return Ok(all);
    }
    let places = |name: &str| {
        [shipped.join(name), root().join("../shared/data/models").join(name), PathBuf::from(name)]
    };
    let find = |name: &&str| {
        let found = places(name).into_iter().find(|case| case.join("model.onnx").is_file());
        found.with_context(|| format!("there is no case `{name}`"))
    };
    cases.iter().map(find).collect()
}
