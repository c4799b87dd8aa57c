//! Printed text: snapshots for people, determinism, every scalar row and conversion.

use tgc_ir::scalar::ScalarOp;
use tgc_ir::{DType, Dim};

use super::compile::{cases, compile_for, emit_for, nvrtc};
use super::programs::{self, Case, Layout};
use crate::cuda::assemble::unit_text;

/// Element types that CUDA kernels compute with.
const COMPUTED: [DType; 11] = [
    DType::Bool,
    DType::I8,
    DType::U8,
    DType::I16,
    DType::U16,
    DType::I32,
    DType::U32,
    DType::I64,
    DType::U64,
    DType::F32,
    DType::F64,
];

#[test]
fn a_pointwise_kernel_reads_well() {
    let emitted = emit_for(&programs::add_gelu(DType::F16, 768), "sm_90a");
    assert_eq!(unit_text(&[&emitted]), include_str!("add_gelu_f16.cu"));
}

#[test]
fn a_product_reads_well() {
    let layout = Layout { left_transposed: false, right_transposed: true };
    let emitted = emit_for(
        &programs::product(DType::F16, 1, Dim::symbol("rows"), 768, 768, layout),
        "sm_90a",
    );
    assert_eq!(unit_text(&[&emitted]), include_str!("product_f16.cu"));
}

#[test]
fn printing_is_deterministic() {
    for case in cases() {
        assert_eq!(emit_for(&case, "sm_80"), emit_for(&case, "sm_80"), "{}", case.program.name);
    }
}

#[test]
fn entries_are_named_and_the_last_has_no_guard() {
    for case in cases() {
        let emitted = emit_for(&case, "sm_90a");
        let last = emitted.entries.last().expect("every kernel has an entry");
        assert!(last.guard.is_empty(), "{}", case.program.name);
        assert!(emitted.entries.iter().all(|entry| entry.predicted_ns > 0));
        assert_eq!(last.name, case.program.name);
    }
}

#[test]
fn every_scalar_row_and_conversion_compiles() {
    let Some(nvrtc) = nvrtc() else { return };
    let mut cases: Vec<Case> = Vec::new();
    for &op in ScalarOp::ALL {
        cases.extend(COMPUTED.iter().filter_map(|&dtype| programs::scalar(op, dtype)));
    }
    let stored = [COMPUTED.as_slice(), &[DType::F16, DType::BF16]].concat();
    for &from in &stored {
        cases.extend(stored.iter().map(|&to| programs::cast(from, to)));
    }
    compile_for(&nvrtc, "sm_80", &cases);
}

#[test]
fn a_missing_symbol_and_a_packed_buffer_are_named() {
    let mut case = programs::add_gelu(DType::F32, 8);
    case.symbols.clear();
    let device = tgc_ir::device_table::Device::for_target("sm_80").unwrap();
    let request = |case: &Case| {
        let request = crate::cuda::emit::Request {
            facts: &case.facts,
            symbols: &case.symbols,
            device,
            provenance: &[],
            candidate: 0,
        };
        crate::cuda::emit::emit(&case.program, &request).unwrap_err().to_string()
    };
    assert_eq!(
        request(&case),
        "kernel `add_gelu_f32` needs symbol `rows`, which the symbol table does not hold"
    );
    let packed = programs::cast(DType::I4, DType::I32);
    assert_eq!(request(&packed), "kernel `cast_i4_i32`: a buffer of i4 is not supported on cuda");
}

#[test]
fn symbolic_extents_get_a_guarded_wide_form() {
    let emitted = emit_for(&programs::symbolic_depth(DType::F16), "sm_90a");
    let entries: Vec<(String, Vec<String>)> = emitted
        .entries
        .iter()
        .map(|entry| (entry.name.clone(), entry.guard.iter().map(ToString::to_string).collect()))
        .collect();
    let wide = ("symbolic_depth_f16_by_8".to_owned(), vec!["width % 8 == 0".to_owned()]);
    assert_eq!(entries, [wide, ("symbolic_depth_f16".to_owned(), vec![])]);
    assert!(
        emitted.text.contains("left_async = true") && emitted.text.contains("left_async = false")
    );
}
