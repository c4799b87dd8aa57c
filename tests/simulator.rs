//! The simulator device: small graphs and one model run on it as compiled for
//! sm_80, agree with the reference and show no finding; and what is wrong with
//! a kernel is told with its lines and nodes. Needs NVRTC, no GPU.

mod support;

use std::path::{Path, PathBuf};

use tgc::device::{RunOptions, open};
use tgc::inputs::{Style, random};
use tgc::session::Kind;
use tgc::tolerance::compare;
use tgc::{Options, Outcome, Session};
use tgc_codegen::cuda::nvrtc::Nvrtc;
use tgc_ir::Tensor;

/// Where NVRTC may be; `None`, with a word, when it is not there.
fn nvrtc() -> Option<Vec<PathBuf>> {
    let folder = std::env::var_os("TGC_NVRTC").map(PathBuf::from);
    let package = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/nvrtc/nvidia/cu13/lib");
    let folders: Vec<PathBuf> = folder.into_iter().chain([package]).collect();
    if Nvrtc::load(&folders).is_ok() {
        return Some(folders);
    }
    println!("skipped: NVRTC is not found; TGC_NVRTC names its folder");
    None
}

fn compile(path: &Path, nvrtc_folders: &[PathBuf]) -> Outcome {
    let options = Options {
        targets: vec!["sm_80".to_owned()],
        verify: false,
        nvrtc_folders: nvrtc_folders.to_vec(),
        line_info: true,
        ..Options::default()
    };
    Session::new(options).compile(path).expect("compiles")
}

fn graph(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tgir").join(name)
}

fn drawn(outcome: &Outcome) -> Vec<Tensor> {
    let binding = tgc::verify::small_binding(&outcome.imported).expect("sizes");
    random(&outcome.imported, &binding, 7, Style::Usual).expect("inputs")
}

fn on(outcome: &Outcome, device: &str, inputs: &[Tensor]) -> Vec<Tensor> {
    let mut instance = open(&outcome.engine, device, RunOptions::default()).expect("opens");
    instance.run(inputs).unwrap_or_else(|e| panic!("{device}: {}", e.message))
}

#[test]
fn graphs_agree_with_the_reference_and_show_no_finding() {
    let Some(folders) = nvrtc() else { return };
    let mut ran = 0;
    for entry in std::fs::read_dir(graph("")).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|e| e != "tgir") {
            continue;
        }
        let outcome = compile(&path, &folders);
        if !outcome.imported.states.is_empty() {
            continue;
        }
        let inputs = drawn(&outcome);
        let wanted = on(&outcome, "reference", &inputs);
        for (got, want) in on(&outcome, "simulator", &inputs).iter().zip(&wanted) {
            let epsilon = want.dtype().epsilon().unwrap_or(0.0).max(1e-6);
            let scale = want.to_f64().iter().fold(0.0f64, |m, v| m.max(v.abs())).min(1e30);
            let difference =
                compare(got, want, 8.0 * epsilon, 8.0 * epsilon * scale).expect("comparable");
            assert!(difference.excess <= 1.0, "{}: {difference:?}", path.display());
        }
        ran += 1;
    }
    assert!(ran >= 10, "only {ran} graphs ran");
}

#[test]
fn a_model_is_right_on_its_test_data() {
    let (Some(folders), Some(corpus)) = (nvrtc(), support::corpus()) else { return };
    let case = corpus.join("zoo-gpt2-ts17");
    let outcome = compile(&case.join("model.onnx"), &folders);
    for set in support::data_sets(&case) {
        let got = on(&outcome, "simulator", &set.inputs);
        for (got, want) in got.iter().zip(&set.outputs) {
            let excess = support::excess(got, want, support::tolerance(&case)).expect("comparable");
            assert!(excess <= 1.0, "{excess:.2} times the tolerance");
        }
    }
}

#[test]
fn a_stray_load_is_told_with_kernel_lines_and_nodes() {
    let Some(folders) = nvrtc() else { return };
    let mut outcome = compile(&graph("softmax_rows.tgir"), &folders);
    let unit = "sm_80/unit_0.ptx";
    let text = String::from_utf8(outcome.engine.files[unit].to_vec()).expect("text");
    let plan = outcome.engine.plans.get_mut("sm_80").expect("compiled for it");
    plan.change_launches(&mut |launch| launch.provenance = vec!["/rows/Softmax".to_owned()]);
    // Loads from an address eight gigabytes off.
    let (at, _) = text.match_indices("ld.global").next().expect("the kernel loads");
    let end = at + text[at..].find(']').expect("an address");
    let start = at + text[at..].find('[').expect("an address") + 1;
    let register: String = text[start..end].split('+').next().expect("a register").to_owned();
    let broken =
        format!("{}add.s64 {register}, {register}, 8589934592;\n{}", &text[..at], &text[at..]);
    outcome.engine.files.insert(unit.to_owned(), broken.into_bytes().into());
    let inputs = drawn(&outcome);
    let mut instance = open(&outcome.engine, "simulator", RunOptions::default()).expect("opens");
    let failure = instance.run(&inputs).expect_err("a load goes astray");
    assert_eq!(failure.kind, Kind::Verification, "{}", failure.message);
    for part in [
        "out-of-bounds: ",
        "kernel `",
        "block (",
        "thread (",
        "PTX line ",
        ", kernels.cu:",
        "computes /rows/Softmax",
        unit,
    ] {
        assert!(failure.message.contains(part), "`{part}` is not in:\n{}", failure.message);
    }
}

#[test]
fn engines_without_a_cuda_target_say_what_to_do() {
    let options = Options { verify: false, ..Options::default() };
    let outcome = Session::new(options).compile(&graph("softmax_rows.tgir")).expect("compiles");
    let refused = open(&outcome.engine, "simulator", RunOptions::default());
    let failure = refused.err().expect("cpu code is not executed");
    assert_eq!(failure.kind, Kind::Device);
    assert!(failure.message.contains("help: compile with --target sm_80"), "{}", failure.message);
}
