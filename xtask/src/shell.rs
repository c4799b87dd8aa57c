//! Folders of the workspace and running other programs.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().expect("xtask lies in the repository").to_path_buf()
}

/// A folder for fetched tools and written results; ignored by git.
pub(crate) fn target(name: &str) -> PathBuf {
    root().join("target").join(name)
}

/// A path as a person in the repository would write it.
pub(crate) fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// A program in the repository's root, without standard input.
pub(crate) fn program(name: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(name);
    command.current_dir(root()).stdin(Stdio::null());
    command
}

/// The cargo that runs this.
pub(crate) fn cargo() -> Command {
    program(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The command as a person would type it.
fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|w| shown(Path::new(w))).collect::<Vec<_>>().join(" ")
}

/// Runs to success, its output going where ours goes.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let text = line(command);
    eprintln!("$ {text}");
    let status = command.status().with_context(|| format!("cannot start `{text}`"))?;
    if !status.success() {
        bail!("`{text}` failed ({status})");
    }
    Ok(())
}

/// Runs to success and gives standard output.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let text = line(command);
    let output = command
        .stderr(Stdio::piped())
        .output()
        .with_context(|| format!("cannot start `{text}`"))?;
    if !output.status.success() {
        bail!(
            "`{text}` failed ({})\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs, handing every line of standard output to `see`; true on success.
pub(crate) fn watch(command: &mut Command, mut see: impl FnMut(&str)) -> Result<bool> {
    let text = line(command);
    eprintln!("$ {text}");
    let mut child =
        command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot start `{text}`"))?;
    let stdout = child.stdout.take().expect("standard output is piped");
    for row in BufReader::new(stdout).split(b'\n') {
        see(&String::from_utf8_lossy(&row?));
    }
    Ok(child.wait()?.success())
}

/// Builds the command line in release and gives its path.
pub(crate) fn build_tgc() -> Result<PathBuf> {
    run(cargo().args(["build", "--release", "--bin", "tgc"]))?;
    Ok(target_directory()?.join("release").join(format!("tgc{}", std::env::consts::EXE_SUFFIX)))
}

/// Where cargo builds (differs from `target` when the user moved it).
fn target_directory() -> Result<PathBuf> {
    let folder = metadata()?["target_directory"].as_str().map(PathBuf::from);
    folder.context("cargo metadata names no target directory")
}

/// `cargo metadata` of the workspace's own packages.
pub(crate) fn metadata() -> Result<serde_json::Value> {
    let text =
        capture(cargo().args(["metadata", "--no-deps", "--format-version", "1", "--offline"]))?;
    serde_json::from_str(&text).context("cargo metadata is JSON")
}
