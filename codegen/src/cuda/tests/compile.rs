//! Every family through NVRTC for every target.

use std::path::PathBuf;

use tgc_ir::device_table::{Device, cuda_targets};
use tgc_ir::kernel_program::{Cell, PoolDivisor, ReduceOp, ScatterOp};
use tgc_ir::{DType, Dim};

use super::programs::{self, Case, Layout, ROW_MAJOR};
use super::structured::{self, ConvShape, Heads};
use crate::cuda::assemble;
use crate::cuda::build::compile_all;
use crate::cuda::cache::Cache;
use crate::cuda::emit::{Emitted, Request, emit};
use crate::cuda::nvrtc::{
    Compiled, Nvrtc, Program, PtxVersion, lower_ptx_version, needed_ptx_version, without_folders,
};

/// NVRTC from the folder that the environment names or from the workspace's own; says why when absent.
pub(super) fn nvrtc() -> Option<Nvrtc> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/nvrtc");
    let folders: Vec<PathBuf> =
        std::env::var_os("TGC_NVRTC").map(PathBuf::from).into_iter().chain([root]).collect();
    match Nvrtc::load(&folders) {
        Ok(nvrtc) => Some(nvrtc),
        Err(error) => {
            eprintln!(
                "skipped: {}",
                error.to_string().lines().next().unwrap_or("NVRTC was not found")
            );
            None
        }
    }
}

/// Emits a case for a target.
pub(super) fn emit_for(case: &Case, target: &str) -> Emitted {
    let device = Device::for_target(target).unwrap();
    let provenance = ["MatMul `/layer.0/dense` by rule contract.fold-transpose".to_owned()];
    let request = Request {
        facts: &case.facts,
        symbols: &case.symbols,
        device,
        provenance: &provenance,
        candidate: 0,
    };
    emit(&case.program, &request).unwrap()
}

/// Cases of every family; extents that are ragged, aligned, symbolic and single.
pub(super) fn cases() -> Vec<Case> {
    let mut cases = vec![
        programs::add_gelu(DType::F32, 768),
        programs::add_gelu(DType::F16, 768),
        programs::add_gelu(DType::BF16, 765),
        programs::gather(),
        programs::transpose(),
        programs::single(),
        programs::padded(),
        programs::centred(),
        structured::cached_attention(DType::F16),
        structured::cached_attention(DType::F32),
        programs::symbolic_depth(DType::F16),
        programs::symbolic_depth(DType::F32),
        programs::softmax(9, 6),
        programs::softmax(6, 77),
        programs::softmax(3, 1000),
        programs::softmax(2, 9000),
        programs::layer_norm(DType::F16, Some(768)),
        programs::layer_norm(DType::F32, Some(1537)),
        programs::layer_norm(DType::F32, None),
        programs::heads(DType::F16),
        programs::heads(DType::F32),
    ];
    for &op in ReduceOp::ALL {
        let dtype =
            if matches!(op, ReduceOp::All | ReduceOp::Any) { DType::Bool } else { DType::F32 };
        cases.push(programs::reduce(op, dtype, false, 100));
        cases.push(programs::reduce(op, dtype, true, 37));
        cases.push(programs::reduce(op, dtype, false, 20000));
    }
    for (left_transposed, right_transposed) in
        [(false, false), (false, true), (true, false), (true, true)]
    {
        let layout = Layout { left_transposed, right_transposed };
        for dtype in [DType::F16, DType::BF16, DType::F32] {
            cases.push(programs::product(dtype, 1, Dim::symbol("rows"), 768, 768, layout));
            cases.push(programs::product(dtype, 2, Dim::Const(50), 37, 41, layout));
        }
        for dtype in [DType::F16, DType::F32] {
            cases.push(programs::product(dtype, 1, Dim::Const(1), 1000, 520, layout));
            cases.push(programs::product(dtype, 2, Dim::Const(3), 37, 41, layout));
        }
    }
    cases.push(programs::product(DType::F64, 2, Dim::Const(50), 37, 41, ROW_MAJOR));
    cases.push(programs::product(DType::I32, 2, Dim::Const(50), 37, 41, ROW_MAJOR));
    cases.push(programs::product(DType::I64, 2, Dim::Const(1), 37, 41, ROW_MAJOR));
    cases.push(programs::product(DType::F16, 1, Dim::Const(64), 64, 8192, ROW_MAJOR));
    cases.push(programs::product(DType::F32, 1, Dim::Const(64), 64, 8192, ROW_MAJOR));
    cases.extend(structured());
    cases
}

/// Cases of attention, convolution and the families around them.
fn structured() -> Vec<Case> {
    let mut cases = Vec::new();
    for dtype in [DType::F16, DType::BF16, DType::F32] {
        let heads = Heads { query: 4, key: 2, lengths: (50, 77), sizes: (64, 64) };
        cases.push(structured::attention(dtype, heads, true, false));
        cases.push(structured::attention(
            dtype,
            Heads { lengths: (1, 33), sizes: (80, 48), ..heads },
            false,
            true,
        ));
        cases.push(structured::attention(
            dtype,
            Heads { sizes: (256, 256), ..heads },
            false,
            false,
        ));
        cases.push(structured::attention(dtype, Heads { sizes: (20, 300), ..heads }, false, false));
        let shape = ConvShape {
            channels: (1, 24, 40),
            extent: 9,
            kernel: 3,
            stride: 2,
            pad: 1,
            transposed: false,
            channels_last: false,
        };
        cases.push(structured::convolution(dtype, shape));
        cases.push(structured::convolution(dtype, ConvShape { channels_last: true, ..shape }));
        cases.push(structured::convolution(dtype, ConvShape { transposed: true, ..shape }));
        cases.push(structured::convolution(dtype, ConvShape { channels: (3, 8, 16), ..shape }));
        cases.push(structured::convolution(dtype, ConvShape { channels: (10, 1, 1), ..shape }));
    }
    for op in [ReduceOp::Sum, ReduceOp::Max] {
        for divisor in [PoolDivisor::One, PoolDivisor::ValidCount, PoolDivisor::PaddedCount] {
            cases.push(structured::pool(op, divisor));
        }
    }
    for op in [ReduceOp::Sum, ReduceOp::Prod, ReduceOp::Max, ReduceOp::Min] {
        cases.push(structured::running(op, false, false));
        cases.push(structured::running(op, true, true));
    }
    cases.extend([structured::top(7, true), structured::top(300, false)]);
    for op in [ScatterOp::Replace, ScatterOp::Add, ScatterOp::Mul, ScatterOp::Min, ScatterOp::Max] {
        cases.extend([structured::scatter(op, true), structured::scatter(op, false)]);
    }
    for cell in [
        Cell::Plain,
        Cell::Lstm,
        Cell::Gru { linear_before_reset: false },
        Cell::Gru { linear_before_reset: true },
    ] {
        cases.push(structured::recurrent(cell, false, false));
        cases.push(structured::recurrent(cell, true, true));
    }
    cases
}

/// Compiles cases for a target, units shared as an engine shares them, and checks registers and warnings.
pub(super) fn compile_for(nvrtc: &Nvrtc, target: &str, cases: &[Case]) {
    let device = target.replace("compute_", "sm_");
    let emitted: Vec<Emitted> = cases.iter().map(|case| emit_for(case, &device)).collect();
    let units = assemble::group_units(&emitted);
    let programs: Vec<_> = units
        .iter()
        .enumerate()
        .map(|(n, unit)| {
            let kernels: Vec<&Emitted> = unit.iter().map(|&k| &emitted[k]).collect();
            assemble::program(&format!("unit_{n}.cu"), target, &kernels)
        })
        .collect();
    for (unit, outcome) in units.iter().zip(compile_all(nvrtc, &programs, 2, None)) {
        let compiled = outcome.unwrap_or_else(|error| panic!("{error}"));
        assert!(compiled.warnings.is_empty(), "{target}: {:?}", compiled.warnings);
        for kernel in &compiled.kernels {
            assert_eq!(
                kernel.spill_bytes, 0,
                "{target}: {} spills with {} registers",
                kernel.name, kernel.registers
            );
        }
        for entry in unit.iter().flat_map(|&k| &emitted[k].entries) {
            assert!(
                compiled.ptx.contains(&format!(".entry {}(", entry.name)),
                "{} is missing",
                entry.name
            );
        }
    }
}

#[test]
fn every_family_compiles_for_every_target() {
    let Some(nvrtc) = nvrtc() else { return };
    for target in cuda_targets() {
        // The oldest and the Hopper target see everything, the others a cross-section.
        let step = if matches!(target, "sm_80" | "sm_90a") { 1 } else { 8 };
        let some: Vec<Case> = cases().into_iter().step_by(step).collect();
        compile_for(&nvrtc, target, &some);
    }
}

#[test]
fn source_files_are_named_without_folders() {
    let text = "\t.loc\t1 9 0\n\t.file\t1 \"/a b/kernels.cu\"\n\t.file\t2 \"prelude.cuh\"\n";
    let named = "\t.loc\t1 9 0\n\t.file\t1 \"kernels.cu\"\n\t.file\t2 \"prelude.cuh\"\n";
    assert_eq!(without_folders(text), named);
}

#[test]
fn portable_ptx_needs_no_new_driver() {
    let Some(nvrtc) = nvrtc() else { return };
    for case in cases().into_iter().step_by(3) {
        let emitted = emit_for(&case, "sm_80");
        let compiled =
            nvrtc.compile(&assemble::program("unit.cu", "compute_80", &[&emitted])).unwrap();
        assert!(compiled.cubin.is_empty());
        let needed = needed_ptx_version(&compiled.ptx).expect("compute_80 is in the table");
        assert!(needed <= PtxVersion(7, 4), "{} needs PTX {needed}", case.program.name);
        assert!(lower_ptx_version(&compiled.ptx).contains(&format!("\n.version {needed}\n")));
    }
}

#[test]
fn results_do_not_depend_on_threads_or_cache() {
    let Some(nvrtc) = nvrtc() else { return };
    let cases = [programs::softmax(6, 77), programs::gather(), programs::softmax(6, 77)];
    let programs: Vec<_> = cases
        .iter()
        .map(|case| assemble::program("unit.cu", "sm_80", &[&emit_for(case, "sm_80")]))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::in_folder(folder.path());
    let all = |threads: usize, cache: Option<&Cache>| -> Vec<Compiled> {
        compile_all(&nvrtc, &programs, threads, cache).into_iter().map(Result::unwrap).collect()
    };
    let alone = all(1, None);
    assert_eq!(all(4, None), alone);
    assert_eq!(all(2, Some(&cache)), alone);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    assert_eq!(all(2, Some(&cache)), alone);
}

#[test]
fn a_refused_program_shows_the_compiler_log() {
    let Some(nvrtc) = nvrtc() else { return };
    let program = Program {
        name: "broken.cu".into(),
        source: "__global__ void k() { undefined_name; }".into(),
        arch: "sm_80".into(),
        headers: vec![],
        line_info: false,
    };
    let error = nvrtc.compile(&program).unwrap_err().to_string();
    assert!(error.starts_with("broken.cu does not compile for sm_80:"), "{error}");
    assert!(error.contains("undefined_name"), "{error}");
}
