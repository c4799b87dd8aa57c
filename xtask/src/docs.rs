//! Tables under `docs/reference`, written by the built `tgc` about itself.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{build_tgc, capture, program, root, shown};

/// File under `docs/reference`, title, and the command that prints it.
const TABLES: &[(&str, &str, &[&str])] = &[
    ("ops.md", "Ops", &["ops", "--markdown"]),
    ("operators.md", "ONNX operators", &["operators", "--markdown"]),
    ("rules.md", "Rewrite rules", &["rules", "--markdown"]),
    ("passes.md", "Passes", &["passes", "--markdown"]),
    ("targets.md", "Targets", &["targets", "--markdown"]),
];

/// Writes every table.
pub(crate) fn write() -> Result<()> {
    let tgc = build_tgc()?;
    std::fs::create_dir_all(folder())?;
    for (file, text) in tables(&tgc)? {
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", shown(&file)))?;
        println!("wrote {}", shown(&file));
    }
    Ok(())
}

/// Fails when a table differs from what the binary prints.
pub(crate) fn check() -> Result<()> {
    let stale = stale(&build_tgc()?)?;
    if !stale.is_empty() {
        bail!("`cargo xtask docs` has not been run since a change: {}", stale.join(", "));
    }
    println!("docs/reference is up to date");
    Ok(())
}

fn folder() -> PathBuf {
    root().join("docs/reference")
}

fn tables(tgc: &Path) -> Result<Vec<(PathBuf, String)>> {
    let table = |(file, title, args): &(&str, &str, &[&str])| {
        let table = capture(program(tgc).args(*args))?;
        let command = args.join(" ");
        let text = format!(
            "# {title}\n\nWritten by `cargo xtask docs` from `tgc {command}`.\n\n{}\n",
            table.trim_end()
        );
        Ok((folder().join(file), text))
    };
    TABLES.iter().map(table).collect()
}

fn stale(tgc: &Path) -> Result<Vec<String>> {
    let differs = |(file, text): &(PathBuf, String)| {
        std::fs::read_to_string(file).ok().as_ref() != Some(text)
    };
    Ok(tables(tgc)?.iter().filter(|t| differs(t)).map(|(file, _)| shown(file)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with the binary that the same `cargo test --workspace` has built.
    #[test]
    fn tables_are_up_to_date() {
        let test = std::env::current_exe().unwrap();
        let tgc =
            test.ancestors().nth(2).unwrap().join(format!("tgc{}", std::env::consts::EXE_SUFFIX));
        if !tgc.is_file() || !folder().is_dir() {
            println!("skipped: tgc is not built, so docs/reference is not compared");
            return;
        }
        assert_eq!(stale(&tgc).unwrap(), Vec::<String>::new(), "run `cargo xtask docs`");
    }
}
