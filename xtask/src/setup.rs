//! What demo and tests fetch: NVRTC and the official ONNX cases, both through pip into `target/`.
//!
//! Never an error: what cannot be fetched is left out, and the caller says so.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::shell::{capture, program, root, shown, target};

/// What is there after set-up.
#[derive(Default)]
pub(crate) struct Tools {
    /// Folder that holds NVRTC.
    pub(crate) nvrtc: Option<PathBuf>,
    /// Folder of node cases.
    pub(crate) cases: Option<PathBuf>,
    /// What is missing and why, a line each.
    pub(crate) left_out: Vec<String>,
}

impl Tools {
    /// Tells a command where the tools lie.
    pub(crate) fn apply<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let vars = [("TGC_NVRTC", &self.nvrtc), ("TGC_ONNX_CASES", &self.cases)];
        for (name, folder) in vars {
            if let Some(folder) = folder {
                command.env(name, folder);
            }
        }
        command
    }

    /// Prints one line for each tool.
    pub(crate) fn report(&self) {
        let tools = [("NVRTC", &self.nvrtc), ("official ONNX node cases", &self.cases)];
        for (name, folder) in tools {
            if let Some(folder) = folder {
                println!("{name}: {}", shown(folder));
            }
        }
        for line in &self.left_out {
            println!("left out: {line}");
        }
    }
}

/// NVRTC and the node cases.
pub(crate) fn run() -> Tools {
    let mut tools = nvrtc_only();
    match given("TGC_ONNX_CASES").map_or_else(node_cases, Ok) {
        Ok(folder) => tools.cases = Some(folder),
        Err(why) => tools.left_out.push(format!("the official ONNX node cases ({why:#})")),
    }
    tools
}

/// NVRTC alone.
pub(crate) fn nvrtc_only() -> Tools {
    let mut tools = Tools::default();
    let fetch = || install("nvidia-cuda-nvrtc", &["--no-deps"], &target("nvrtc"));
    match given("TGC_NVRTC").map_or_else(fetch, Ok) {
        Ok(folder) => tools.nvrtc = Some(folder),
        Err(why) => tools.left_out.push(format!("NVRTC, so kernels stay CUDA text ({why:#})")),
    }
    tools
}

fn given(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).map(PathBuf::from)
}

/// A pinned package in a folder of its own.
fn install(package: &str, options: &[&str], folder: &Path) -> Result<PathBuf> {
    fill(folder, |part| {
        eprintln!("fetching {package} into {}", shown(folder));
        let mut pip = program("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
        pip.args(["--retries", "1", "--timeout", "20"]).args(options).arg("--target").arg(part);
        pip.env("PIP_ROOT_USER_ACTION", "ignore").arg(requirement(package)?);
        capture(&mut pip).map(drop)
    })
}

/// The pinned version of a package.
fn requirement(package: &str) -> Result<String> {
    let file = root().join("xtask/requirements.txt");
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", shown(&file)))?;
    let found = text.lines().find(|line| line.starts_with(package));
    found.map(str::to_owned).with_context(|| format!("{} does not pin {package}", shown(&file)))
}

fn node_cases() -> Result<PathBuf> {
    fill(&target("onnx-cases"), |part| {
        let python = install("onnx", &[], &target("onnx-py"))?;
        eprintln!("writing the official ONNX node cases");
        let mut dump = program("python3");
        dump.arg("frontends/onnx/tests/dump_node_cases.py").arg(part).env("PYTHONPATH", python);
        capture(&mut dump).map(drop)
    })
}

/// The folder as it is, or made whole: written beside its place and renamed, so that an interrupted run leaves nothing.
fn fill(folder: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    if folder.is_dir() {
        return Ok(folder.to_path_buf());
    }
    let part = folder.with_extension("part");
    if part.exists() {
        std::fs::remove_dir_all(&part)?;
    }
    std::fs::create_dir_all(&part)?;
    write(&part)?;
    std::fs::rename(&part, folder)?;
    Ok(folder.to_path_buf())
}
