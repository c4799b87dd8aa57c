//! Which crate may depend on which, from `cargo metadata`. Dev-dependencies are free.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::shell::metadata;

/// Every crate of the workspace and those of ours that it may use.
const EDGES: &[(&str, &[&str])] = &[
    ("tgc-ir", &[]),
    ("tgc-onnx", &["tgc-ir"]),
    ("tgc-passes", &["tgc-ir"]),
    ("tgc-codegen", &["tgc-ir"]),
    ("tgc-runtime", &["tgc-ir"]),
    ("tgc-simulator", &["tgc-ir"]),
    ("tgc", &["tgc-ir", "tgc-onnx", "tgc-passes", "tgc-codegen", "tgc-runtime", "tgc-simulator"]),
    ("xtask", &[]),
];

/// Crates of others that belong to one place, and where.
const CONFINED: &[(&str, &[&str])] = &[
    ("egg", &["tgc-passes"]),
    ("prost", &["tgc-onnx"]),
    ("cudarc", &["tgc-codegen", "tgc-runtime"]),
    ("anyhow", &["tgc", "xtask"]),
    ("clap", &["tgc", "xtask"]),
    ("clap_complete", &["tgc"]),
    ("indicatif", &["tgc"]),
    ("tracing-subscriber", &["tgc"]),
];

/// A crate and what it is built with.
struct Package {
    name: String,
    uses: Vec<String>,
}

fn packages() -> Result<Vec<Package>> {
    let metadata = metadata()?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists packages")?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let uses = |package: &Value| {
        let all = package["dependencies"].as_array().into_iter().flatten();
        all.filter(|d| d["kind"] != "dev").map(|d| text(&d["name"])).collect()
    };
    Ok(packages.iter().map(|p| Package { name: text(&p["name"]), uses: uses(p) }).collect())
}

/// Edges between our crates that the table does not allow, and crates it does not know.
pub(super) fn edges() -> Result<Vec<String>> {
    Ok(forbidden_edges(&packages()?))
}

fn forbidden_edges(packages: &[Package]) -> Vec<String> {
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = EDGES.iter().find(|(name, _)| *name == package.name) else {
            findings.push(format!("`{}` has no row in the table of edges", package.name));
            continue;
        };
        let ours = package.uses.iter().filter(|used| EDGES.iter().any(|(name, _)| name == used));
        let wrong = ours.filter(|used| !allowed.contains(&used.as_str()));
        findings.extend(wrong.map(|used| format!("`{}` may not depend on `{used}`", package.name)));
    }
    findings
}

/// Crates of others outside their place.
pub(super) fn confined() -> Result<Vec<String>> {
    Ok(outside_their_place(&packages()?))
}

fn outside_their_place(packages: &[Package]) -> Vec<String> {
    let mut findings = Vec::new();
    for (confined, places) in CONFINED {
        let users = packages.iter().filter(|p| p.uses.iter().any(|used| used == confined));
        let wrong = users.filter(|p| !places.contains(&p.name.as_str()));
        findings.extend(wrong.map(|p| {
            format!("`{confined}` belongs to {}, not to `{}`", places.join(", "), p.name)
        }));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, uses: &[&str]) -> Package {
        Package { name: name.to_owned(), uses: uses.iter().map(|u| (*u).to_owned()).collect() }
    }

    #[test]
    fn sideways_edges_and_unknown_crates_are_found() {
        let packages = [package("tgc-passes", &["tgc-ir", "tgc-codegen"]), package("tgc-new", &[])];
        assert_eq!(
            forbidden_edges(&packages),
            [
                "`tgc-passes` may not depend on `tgc-codegen`",
                "`tgc-new` has no row in the table of edges"
            ]
        );
    }

    #[test]
    fn confined_crates_are_found_outside_their_place() {
        let packages = [package("tgc-ir", &["egg"]), package("tgc-passes", &["egg"])];
        assert_eq!(
            outside_their_place(&packages),
            ["`egg` belongs to tgc-passes, not to `tgc-ir`"]
        );
    }
}
