//! All kernels of one target: emitted, grouped, compiled, with spilling candidates replaced.
//!
//! Knows programs, NVRTC and the cache; knows no plan and no engine file.

use std::collections::BTreeSet;

use tgc_ir::device_table::Device;
use tgc_ir::kernel_program::KernelProgram;
use tgc_ir::{Facts, Symbol};

use super::assemble;
use super::build::compile_all;
use super::cache::Cache;
use super::emit::{Emitted, Request, emit};
use super::nvrtc::{
    Compiled, KernelReport, Nvrtc, NvrtcError, Program, lower_ptx_version, without_folders,
};
use super::print::scope::PrintError;

/// Tile choices that are tried before a spilling kernel is accepted as it is.
const CANDIDATES: usize = 3;

/// A kernel program with what its header comment says about its origin.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The program.
    pub program: &'a KernelProgram,
    /// ONNX nodes and rules.
    pub provenance: &'a [String],
}

/// What all kernels of a target share.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// Bounds and constraints of shape symbols.
    pub facts: &'a Facts,
    /// Symbols in the order of the run-time table.
    pub symbols: &'a [Symbol],
    /// The GPU whose figures choose tiles.
    pub device: &'a Device,
    /// `sm_90a` … for cubins, `compute_80` … for PTX only.
    pub arch: &'a str,
    /// Compiled code names lines of the CUDA text; its PTX is then as NVRTC wrote it, since
    /// lines of inlined functions need a newer version than the instructions.
    pub line_info: bool,
}

/// A translation unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Indices of its kernels.
    pub kernels: Vec<usize>,
    /// The whole text, headers not included.
    pub source: String,
    /// PTX with the lowest version that its instructions need; empty without NVRTC.
    pub ptx: String,
    /// Machine code; empty for a virtual architecture or without NVRTC.
    pub cubin: Vec<u8>,
    /// Registers and spills per kernel.
    pub reports: Vec<KernelReport>,
    /// Performance warnings of the assembler.
    pub warnings: Vec<String>,
}

/// Everything that was made for a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// One per kernel program, in order.
    pub emitted: Vec<Emitted>,
    /// Units, in order of their first kernel's place among units.
    pub units: Vec<Unit>,
}

/// A kernel could not be printed or compiled.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Printing failed.
    #[error(transparent)]
    Print(#[from] PrintError),
    /// NVRTC refused a unit or failed.
    #[error(transparent)]
    Nvrtc(#[from] NvrtcError),
}

/// Prints every kernel for a target.
///
/// # Errors
/// The first [`PrintError`], in the order of the kernels.
pub fn emit_all(sources: &[Source<'_>], target: &Target<'_>) -> Result<Vec<Emitted>, PrintError> {
    sources.iter().map(|source| emit_candidate(source, target, 0)).collect()
}

fn emit_candidate(
    source: &Source<'_>,
    target: &Target<'_>,
    candidate: usize,
) -> Result<Emitted, PrintError> {
    let Target { facts, symbols, device, .. } = *target;
    emit(
        source.program,
        &Request { facts, symbols, device, provenance: source.provenance, candidate },
    )
}

/// Prints and groups every kernel without compiling: what an engine carries when NVRTC is absent.
///
/// # Errors
/// As [`emit_all`].
pub fn build_sources(sources: &[Source<'_>], target: &Target<'_>) -> Result<Built, EngineError> {
    let emitted = emit_all(sources, target)?;
    let units = assemble::group_units(&emitted)
        .into_iter()
        .map(|kernels| {
            let source =
                assemble::unit_text(&kernels.iter().map(|&n| &emitted[n]).collect::<Vec<_>>());
            Unit {
                kernels,
                source,
                ptx: String::new(),
                cubin: Vec::new(),
                reports: Vec::new(),
                warnings: Vec::new(),
            }
        })
        .collect();
    Ok(Built { emitted, units })
}

/// Prints and compiles every kernel on at most `threads` threads.
///
/// A kernel that spills or draws a performance warning is printed again with its next tile choice, and
/// the choice with the fewest spilled bytes is kept. The result does not depend on the thread count.
///
/// # Errors
/// The first error in the order of the units.
pub fn build(
    nvrtc: &Nvrtc,
    sources: &[Source<'_>],
    target: &Target<'_>,
    threads: usize,
    cache: Option<&Cache>,
) -> Result<Built, EngineError> {
    let mut built = build_sources(sources, target)?;
    compile_units(nvrtc, target, &mut built, None, threads, cache)?;
    for candidate in 1..CANDIDATES {
        let poor: BTreeSet<usize> =
            (0..built.units.len()).filter(|&n| flaws(&built.units[n]) > (0, 0)).collect();
        if poor.is_empty() {
            break;
        }
        let mut other = built.clone();
        for &n in &poor {
            let kernels = other.units[n].kernels.clone();
            for &kernel in &kernels {
                other.emitted[kernel] = emit_candidate(&sources[kernel], target, candidate)?;
            }
            let texts: Vec<&Emitted> = kernels.iter().map(|&k| &other.emitted[k]).collect();
            other.units[n].source = assemble::unit_text(&texts);
        }
        compile_units(nvrtc, target, &mut other, Some(&poor), threads, cache)?;
        for n in poor {
            if flaws(&other.units[n]) < flaws(&built.units[n]) {
                for &kernel in &other.units[n].kernels {
                    built.emitted[kernel] = other.emitted[kernel].clone();
                }
                built.units[n] = other.units[n].clone();
            }
        }
    }
    Ok(built)
}

/// Performance warnings and spilled bytes: what rejects a candidate.
fn flaws(unit: &Unit) -> (usize, u32) {
    (unit.warnings.len(), unit.reports.iter().map(|report| report.spill_bytes).sum())
}

/// Compiles the units in `only` (all when absent) and fills in what came out.
fn compile_units(
    nvrtc: &Nvrtc,
    target: &Target<'_>,
    built: &mut Built,
    only: Option<&BTreeSet<usize>>,
    threads: usize,
    cache: Option<&Cache>,
) -> Result<(), EngineError> {
    let wanted: Vec<usize> =
        (0..built.units.len()).filter(|n| only.is_none_or(|only| only.contains(n))).collect();
    let programs: Vec<_> = wanted
        .iter()
        .map(|&n| {
            let kernels: Vec<&Emitted> =
                built.units[n].kernels.iter().map(|&k| &built.emitted[k]).collect();
            let line_info = target.line_info;
            Program { line_info, ..assemble::program("kernels.cu", target.arch, &kernels) }
        })
        .collect();
    for (n, outcome) in wanted.into_iter().zip(compile_all(nvrtc, &programs, threads, cache)) {
        let Compiled { ptx, cubin, kernels, warnings, .. } = outcome?;
        let unit = &mut built.units[n];
        unit.ptx = if target.line_info { without_folders(&ptx) } else { lower_ptx_version(&ptx) };
        unit.cubin = cubin;
        (unit.reports, unit.warnings) = (kernels, warnings);
    }
    Ok(())
}
