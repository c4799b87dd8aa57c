//! Change cost: in how many source files a name may stand (`tests/places.toml`).
//!
//! A name counts as an identifier whatever its spelling (`HardSwish`, `hard_swish`, `hard-swish`). Comments and tests do
//! not count.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};

use super::sources::{files, has_extension};
use crate::shell::{root, shown};

/// Files in which knowledge lives.
const SOURCES: &[&str] = &["rs", "cu", "cuh", "rules", "tgir"];

/// Folders and files of tests, examples and automation.
const NO_SOURCES: &[&str] = &["tests", "tests.rs", "examples", "benches", "bench", "xtask"];

/// Names that stand in more files than they may, or in none.
pub(super) fn counts() -> Result<Vec<String>> {
    let path = root().join("tests/places.toml");
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", shown(&path)))?;
    let groups: BTreeMap<String, BTreeMap<String, usize>> = toml::from_str(&text)
        .with_context(|| format!("{} is groups of `name = count`", shown(&path)))?;
    let probes = groups.values().flatten();
    let names: BTreeSet<String> = probes.clone().map(|(name, _)| folded(name)).collect();
    let mut stands: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files()?.iter().filter(|f| is_source(f)) {
        for name in identifiers(&std::fs::read_to_string(file)?, has_extension(file, &["rules"])) {
            if names.contains(&name) {
                stands.entry(name).or_default().push(shown(file));
            }
        }
    }
    let mut findings = Vec::new();
    for (name, most) in probes {
        let found = stands.get(&folded(name)).map_or(&[][..], Vec::as_slice);
        if found.is_empty() {
            findings.push(format!("`{name}` stands in no file: rename or remove the probe"));
        } else if found.len() > *most {
            let list = found.join(", ");
            findings.push(format!(
                "`{name}` may stand in {most} files and stands in {}: {list}",
                found.len()
            ));
        }
    }
    Ok(findings)
}

fn is_source(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).unwrap_or(path);
    has_extension(path, SOURCES)
        && !inside.iter().any(|part| NO_SOURCES.iter().any(|no| part == *no))
}

/// Lower case without `_` and `-`.
fn folded(name: &str) -> String {
    name.chars().filter(|c| !"_-".contains(*c)).flat_map(char::to_lowercase).collect()
}

/// Folded identifiers of a text, comments and a trailing test module apart.
fn identifiers(text: &str, is_rules: bool) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code =
        text.lines().map(|line| if is_rules { before(line, "#") } else { before(line, "//") });
    code.flat_map(|line| line.split(|c: char| !(c.is_alphanumeric() || "_-".contains(c))))
        .map(folded)
        .filter(|word| !word.is_empty())
        .collect()
}

/// A line up to a comment mark that stands outside a string.
fn before<'a>(line: &'a str, mark: &str) -> &'a str {
    let outside = |at: &usize| line[..*at].matches('"').count().is_multiple_of(2);
    let comment = line.match_indices(mark).map(|(at, _)| at).find(outside);
    &line[..comment.unwrap_or(line.len())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_one_name() {
        let text = "HardSwish hard_swish // hard_sigmoid\n\"https://x\" sm_90a\n#[cfg(test)] mod t { gelu }";
        let found = identifiers(text, false);
        assert!(found.contains("hardswish") && found.contains("sm90a"));
        assert!(!found.contains("hardsigmoid") && !found.contains("gelu"));
    }

    #[test]
    fn rule_names_keep_their_words_together() {
        let found = identifiers("# fold-weights\nrule contract.absorb-lhs : exact", true);
        assert!(found.contains("absorblhs") && !found.contains("foldweights"));
    }
}
