//! `--emit`: stages as text files.

use std::path::Path;

use clap::ValueEnum;

use tgc::Outcome;
use tgc::session::{Failure, Kind};
use tgc_runtime::engine::write_beside;

/// What can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum What {
    /// Graphs: imported, optimised, primitives.
    Ir,
    /// Kernel programs.
    Kernels,
    /// Generated CUDA.
    Cuda,
    /// Its PTX.
    Ptx,
    /// Plans.
    Plan,
    /// The optimised graph for Graphviz.
    Dot,
}

/// Writes every wanted stage into a folder.
pub(crate) fn write(outcome: &Outcome, wanted: &[What], folder: &Path) -> Result<(), Failure> {
    for what in wanted {
        match what {
            What::Ir => {
                put(folder, "imported.tgir", &tgc_ir::text::print(&outcome.imported))?;
                put(folder, "optimised.tgir", &tgc_ir::text::print(&outcome.optimised))?;
                put(folder, "primitives.tgir", &tgc_ir::text::print(&outcome.primitives))?;
            }
            What::Kernels => {
                for (target, plan) in &outcome.engine.plans {
                    for kernel in &plan.kernels {
                        put(
                            folder,
                            &format!("{target}/{}.kernel.ron", kernel.name),
                            &pretty(kernel)?,
                        )?;
                    }
                }
            }
            What::Plan => {
                for (target, plan) in &outcome.engine.plans {
                    let mut short = plan.clone();
                    short.kernels.clear();
                    put(folder, &format!("{target}/plan.ron"), &pretty(&short)?)?;
                }
            }
            What::Cuda | What::Ptx => {
                let ending = if *what == What::Cuda { ".cu" } else { ".ptx" };
                for (name, bytes) in
                    outcome.engine.files.iter().filter(|(n, _)| n.ends_with(ending))
                {
                    put(folder, name, &String::from_utf8_lossy(bytes))?;
                }
            }
            What::Dot => put(folder, "optimised.dot", &tgc_ir::text::dot(&outcome.optimised))?,
        }
    }
    Ok(())
}

fn pretty<T: serde::Serialize>(value: &T) -> Result<String, Failure> {
    ron::ser::to_string_pretty(value, ron::ser::PrettyConfig::new().depth_limit(6))
        .map_err(|e| Failure::new(Kind::Internal, e))
}

fn put(folder: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = folder.join(name);
    let parent = path.parent().unwrap_or(folder);
    std::fs::create_dir_all(parent)
        .and_then(|()| write_beside(&path, text.as_bytes()))
        .map_err(|e| Failure::new(Kind::File, format!("cannot write {}: {e}", path.display())))
}
