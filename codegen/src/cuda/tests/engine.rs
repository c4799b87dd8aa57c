//! All kernels of a target at once.

use tgc_ir::device_table::Device;
use tgc_ir::facts::Facts;
use tgc_ir::{DType, Dim, Symbol};

use super::compile::nvrtc;
use super::programs::{self, Case, ROW_MAJOR};
use crate::cuda::engine::{Built, Source, Target, build, build_sources};

fn cases() -> Vec<Case> {
    vec![
        programs::add_gelu(DType::F16, 768),
        programs::product(DType::F16, 1, Dim::symbol("rows"), 768, 768, ROW_MAJOR),
        programs::softmax(6, 77),
        programs::product(DType::F32, 2, Dim::Const(50), 37, 41, ROW_MAJOR),
    ]
}

/// The facts of all cases and their common symbol table.
fn shared(cases: &[Case]) -> (Facts, Vec<Symbol>) {
    let mut facts = Facts::default();
    let mut symbols: Vec<Symbol> =
        cases.iter().flat_map(|case| case.symbols.iter().cloned()).collect();
    symbols.sort();
    symbols.dedup();
    for (symbol, bounds) in cases.iter().flat_map(|case| case.facts.symbols()) {
        facts.bound(symbol.clone(), *bounds);
    }
    (facts, symbols)
}

fn with_target<T>(act: impl FnOnce(&[Source<'_>], &Target<'_>) -> T) -> T {
    let cases = cases();
    let (facts, symbols) = shared(&cases);
    let sources: Vec<Source<'_>> =
        cases.iter().map(|case| Source { program: &case.program, provenance: &[] }).collect();
    let device = Device::for_target("sm_90a").unwrap();
    act(
        &sources,
        &Target { facts: &facts, symbols: &symbols, device, arch: "sm_90a", line_info: false },
    )
}

fn kernels_of_units(built: &Built) -> Vec<Vec<usize>> {
    built.units.iter().map(|unit| unit.kernels.clone()).collect()
}

#[test]
fn small_kernels_share_a_unit_and_products_have_their_own() {
    let built = with_target(|sources, target| build_sources(sources, target).unwrap());
    assert_eq!(kernels_of_units(&built), [vec![0, 2], vec![1], vec![3]]);
    assert!(
        built
            .units
            .iter()
            .all(|unit| unit.cubin.is_empty() && unit.source.contains("#include \"prelude.cuh\""))
    );
}

#[test]
fn a_build_does_not_depend_on_threads() {
    let Some(nvrtc) = nvrtc() else { return };
    let one = with_target(|sources, target| build(&nvrtc, sources, target, 1, None).unwrap());
    let many = with_target(|sources, target| build(&nvrtc, sources, target, 3, None).unwrap());
    assert_eq!(one, many);
    for unit in &one.units {
        assert!(unit.ptx.contains(".version 8.0\n"), "the lowest version of sm_90a");
        assert!(!unit.cubin.is_empty() && unit.warnings.is_empty());
        let entries: usize =
            unit.kernels.iter().map(|&kernel| one.emitted[kernel].entries.len()).sum();
        assert_eq!(unit.reports.len(), entries);
    }
}

#[test]
fn predictions_have_the_form_of_the_tuning_file() {
    let built = with_target(|sources, target| build_sources(sources, target).unwrap());
    let device = Device::for_target("sm_90a").unwrap();
    let records = built.emitted[1].records(device, "f16 1x128x768x768");
    let text = crate::schedule::tuning::write_records(&records);
    assert_eq!(crate::schedule::tuning::read_records(&text).unwrap(), records);
    assert_eq!((records[0].device.as_str(), records[0].family.as_str()), (device.name, "contract"));
}
