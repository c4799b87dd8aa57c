//! What the compiler does not check: who may depend on whom, how files begin, where names may stand.
//!
//! Each check gives its findings as lines; `cargo test` and `cargo xtask tidy` run the same ones.

mod crates;
mod places;
mod sources;

use anyhow::{Result, bail};

/// A check: its name and what it finds.
type Check = (&'static str, fn() -> Result<Vec<String>>);

const CHECKS: &[Check] = &[
    ("crate edges", crates::edges),
    ("confined crates", crates::confined),
    ("module docs", sources::module_docs),
    ("machine paths", sources::machine_paths),
    ("file sizes", sources::sizes),
    ("places", places::counts),
];

/// Runs every check and prints what it finds.
pub(crate) fn run() -> Result<()> {
    let mut n_findings = 0;
    for (name, check) in CHECKS {
        let findings = check()?;
        findings.iter().for_each(|finding| println!("{name}: {finding}"));
        n_findings += findings.len();
    }
    if n_findings > 0 {
        bail!("{n_findings} findings");
    }
    println!("tidy: {} checks found nothing", CHECKS.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_tree_is_tidy() {
        super::run().unwrap();
    }
}
