//! The files of the repository: how they begin, what they may not name, how large they may be.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::shell::{root, shown};

/// Largest file outside `tests/models`, in bytes.
const BYTES_MAX: u64 = 200_000;

/// Beginnings of paths that exist on one machine only.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Every file of the repository, build output and git's own apart, in order of path.
pub(super) fn files() -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let (path, kind) = entry.and_then(|e| Ok((e.path(), e.file_type()?)))?;
            let name = path.file_name().unwrap_or_default();
            if kind.is_dir() && name != "target" && name != ".git" {
                folders.push(path);
            } else if kind.is_file() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Whether the file's name ends in one of these.
pub(super) fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    path.extension().is_some_and(|e| extensions.iter().any(|x| e == *x))
}

/// Rust files that do not say in their first line what they are for.
pub(super) fn module_docs() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in files()?.iter().filter(|p| has_extension(p, &["rs"])) {
        if !std::fs::read_to_string(path)?.starts_with("//!") {
            findings.push(format!("{} does not begin with `//!`", shown(path)));
        }
    }
    Ok(findings)
}

/// Text files that name a place on one machine.
pub(super) fn machine_paths() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for path in files()? {
        let Ok(text) = String::from_utf8(std::fs::read(&path)?) else { continue };
        for (at, line) in text.lines().enumerate() {
            if let Some(prefix) = MACHINE_PATHS.iter().find(|prefix| names_path(line, prefix)) {
                findings.push(format!("{}:{} names a path under {prefix}", shown(&path), at + 1));
            }
        }
    }
    Ok(findings)
}

/// Whether a line has the prefix at the beginning of a path (a longer path or an address may contain it).
fn names_path(line: &str, prefix: &str) -> bool {
    line.match_indices(prefix)
        .any(|(at, _)| !line[..at].ends_with(|c: char| c.is_alphanumeric() || ".-_~".contains(c)))
}

/// Files above the limit.
pub(super) fn sizes() -> Result<Vec<String>> {
    let models = root().join("tests/models");
    let mut findings = Vec::new();
    for path in files()?.iter().filter(|p| !p.starts_with(&models)) {
        let bytes = path.metadata()?.len();
        if bytes > BYTES_MAX {
            findings.push(format!("{} has {bytes} bytes, more than {BYTES_MAX}", shown(path)));
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_beginnings_of_paths_count() {
        let prefix = MACHINE_PATHS[0];
        assert!(names_path(&format!("see {prefix}someone/notes"), prefix));
        assert!(!names_path(&format!("https://example.org{prefix}page"), prefix));
    }
}
