//! `cargo xtask demo`: the shipped model from ONNX to answers, with everything that lies between shown.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::setup;
use crate::shell::{build_tgc, program, root, run, shown, target};

/// The model, a folder of `tests/models`.
const MODEL: &str = "ppocrv2-cls";

/// Target whose kernel is shown; the engine holds more.
const SHOWN_TARGET: &str = "sm_90a";

/// Lines of the kernel that are shown at most.
const N_LINES: usize = 60;

/// Exit status of `tgc` when a device or its driver is missing.
const DEVICE_MISSING: i32 = 5;

/// Compiles, shows and runs.
pub(crate) fn demo() -> Result<()> {
    let tools = setup::nvrtc_only();
    tools.report();
    let tgc = build_tgc()?;
    let folder = target("demo").join(MODEL);
    copy_folder(&root().join("tests/models").join(MODEL), &folder)?;
    let engine = folder.join("model.tgc");

    heading("compile");
    let mut compile = program(&tgc);
    compile
        .arg("compile")
        .arg(shown(&folder.join("model.onnx")))
        .arg("--output")
        .arg(shown(&engine));
    compile.args(["--target", "cpu,sm_80,sm_90a", "--emit", "ir,kernels,cuda,ptx,plan"]);
    run(tools.apply(&mut compile))?;

    let stages = engine.with_extension("tgc.d");
    heading("where everything lies");
    println!("engine          {}", shown(&engine));
    println!("graphs          {}/*.tgir", shown(&stages));
    println!("kernel programs {}/<target>/*.kernel.ron", shown(&stages));
    println!("CUDA and PTX    {}/<target>/unit_*.cu, .ptx", shown(&stages));
    println!("plans           {}/<target>/plan.ron", shown(&stages));

    heading("one generated kernel");
    show_kernel(&stages.join(SHOWN_TARGET))?;

    heading("run and compare with the expected outputs");
    println!("(reference is the slow evaluation that judges every other device)");
    for device in ["cpu", "reference", "cuda"] {
        run_on(&tgc, &engine, device)?;
    }
    for line in &tools.left_out {
        println!("left out: {line}");
    }
    Ok(())
}

fn heading(text: &str) {
    println!("\n== {text}");
}

/// A copy of a folder, replacing what was there.
pub(crate) fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot read {}", shown(from)))? {
        let path = entry?.path();
        let place = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy_folder(&path, &place)?;
        } else {
            std::fs::copy(&path, &place)?;
        }
    }
    Ok(())
}

/// The first kernel of the target's first unit, with the comment above it.
fn show_kernel(folder: &Path) -> Result<()> {
    let unit = folder.join("unit_0.cu");
    let text =
        std::fs::read_to_string(&unit).with_context(|| format!("cannot read {}", shown(&unit)))?;
    let lines: Vec<&str> = text.lines().collect();
    let kernel = first_kernel(&lines);
    println!("{}, lines {} to {}:\n", shown(&unit), kernel.start + 1, kernel.end);
    lines[kernel].iter().take(N_LINES).for_each(|line| println!("{line}"));
    Ok(())
}

/// Lines of the first kernel: from the comment above it to the brace that closes it.
fn first_kernel(lines: &[&str]) -> Range<usize> {
    let entry = lines.iter().position(|line| line.contains("__global__")).unwrap_or(0);
    let above = lines[..entry].iter().rev().take_while(|line| line.starts_with("//")).count();
    let body = lines[entry..].iter().take_while(|line| **line != "}").count();
    entry - above..(entry + body + 1).min(lines.len())
}

/// Runs the engine on its test data; a device that is not here is no failure.
fn run_on(tgc: &Path, engine: &Path, device: &str) -> Result<()> {
    let mut test = program(tgc);
    let output = test.arg("test").arg(shown(engine)).args(["--device", device]).output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        println!("{device:<10} {}", text.lines().next().unwrap_or_default());
        return Ok(());
    }
    let why = if text.trim().is_empty() { String::from_utf8_lossy(&output.stderr) } else { text };
    if output.status.code() == Some(DEVICE_MISSING) {
        println!(
            "{device:<10} not run: {}",
            why.lines().next().unwrap_or_default().trim_start_matches("FAIL").trim()
        );
        return Ok(());
    }
    bail!("`tgc test {} --device {device}` failed\n{}", shown(engine), why.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_shown_with_its_comment() {
        let text =
            "#include\n\n// a (loops)\nextern __global__ void\na() {\n  if (b) {\n  }\n}\n\n// b\n";
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(first_kernel(&lines), 2..8);
    }
}
