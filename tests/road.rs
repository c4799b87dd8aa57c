//! The road end to end on the model corpus: every case imports, compiles, and
//! is right on the cpu device at every data set and, where it is small enough
//! for it, on the reference; attention, norms and activations are one op each.

mod support;

use std::path::Path;

use tgc::device::{RunOptions, open};
use tgc::{Options, Outcome, Session};

/// Cases that must be right at every stage.
const CASES: &[&str] = &[
    "zoo-bert-sdpa-ts17",
    "zoo-bert-sdpa-dy20",
    "zoo-gpt2-ts17",
    "zoo-llama-ts17",
    "zoo-llama-decode-dy20",
    "zoo-vit-dy20",
    "zoo-swin-ts17",
    "zoo-clip-ts17",
    "zoo-resnet50-ts17",
    "zoo-mobilenetv3-ts17",
    "zoo-segformer-ts17",
    "zoo-conformer-ts17",
    "real-atspm-pairs",
    "real-basic-pitch",
    "real-magika",
    "real-ppocrv2-cls",
    "real-ppocrv4-det",
    "real-silero-vad",
];

/// Cases whose recognised sites must equal what the architecture has.
const SITES: &[&str] = &[
    "zoo-bert-sdpa-ts17",
    "zoo-bert-sdpa-dy20",
    "zoo-gpt2-ts17",
    "zoo-llama-ts17",
    "zoo-vit-dy20",
    "zoo-clip-ts17",
];

fn compile(case: &Path) -> Result<Outcome, String> {
    let options = Options { verify: false, ..Options::default() };
    Session::new(options).compile(&case.join("model.onnx")).map_err(|e| e.to_string())
}

fn check_device(case: &Path, outcome: &Outcome, device: &str) -> Result<(), String> {
    let mut instance =
        open(&outcome.engine, device, RunOptions { threads: 2 }).map_err(|e| e.to_string())?;
    let tolerance = support::tolerance(case);
    let ports = tgc::inputs::ports(&outcome.imported);
    for (k, set) in support::data_sets(case).into_iter().enumerate() {
        let named = ports.iter().map(|(n, _)| n.clone()).zip(set.inputs).collect();
        let inputs = tgc::inputs::arrange(named, &ports).map_err(|e| e.to_string())?;
        let got = instance.run(&inputs).map_err(|e| format!("{device} set {k}: {e}"))?;
        for (i, (got, want)) in got.iter().zip(&set.outputs).enumerate() {
            let excess = support::excess(got, want, tolerance)
                .map_err(|e| format!("{device} set {k} output {i}: {e}"))?;
            if excess > 1.0 {
                return Err(format!(
                    "{device} set {k} output {i}: {excess:.2} times the tolerance"
                ));
            }
        }
    }
    Ok(())
}

fn check_case(corpus: &Path, name: &str) -> Result<(), String> {
    let case = corpus.join(name);
    let outcome = compile(&case)?;
    check_device(&case, &outcome, "cpu")?;
    check_device(&case, &outcome, "reference")
}

#[test]
fn corpus_cases_are_right_on_every_device() {
    let Some(corpus) = support::corpus() else { return };
    let failures: Vec<String> = CASES
        .iter()
        .filter_map(|name| check_case(&corpus, name).err().map(|e| format!("{name}: {e}")))
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn attention_norms_and_activations_are_one_op_each() {
    let Some(corpus) = support::corpus() else { return };
    let mut failures = Vec::new();
    for name in SITES {
        let case = corpus.join(name);
        let outcome = compile(&case).expect("compiles");
        let found = support::sites(&outcome.optimised);
        for (site, op) in support::SITE_OPS {
            let want = support::expected_sites(&case, site);
            let have = found.get(op).copied().unwrap_or(0);
            if want.is_some_and(|w| w != have) {
                failures.push(format!("{name}: {site} {have} of {want:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn a_bert_layer_takes_at_most_nine_kernels() {
    let Some(corpus) = support::corpus() else { return };
    let outcome = compile(&corpus.join("zoo-bert-sdpa-ts17")).expect("compiles");
    let steps = outcome.engine.plans["cpu"].steps.len();
    // Two layers, embeddings with their norm, the mask and the pooler.
    assert!(steps <= 2 * 9 + 5, "{steps} steps");
}

#[test]
fn the_same_model_gives_the_same_bytes() {
    let Some(corpus) = support::corpus() else { return };
    for name in ["zoo-bert-sdpa-ts17", "real-silero-vad"] {
        let path = corpus.join(name).join("model.onnx");
        let bytes = |threads: usize| {
            let options = Options { verify: false, threads, ..Options::default() };
            let outcome = Session::new(options).compile(&path).expect("compiles");
            outcome.engine.to_bytes().expect("serialises")
        };
        let first = bytes(1);
        // Another model in between must leave no trace.
        compile(&corpus.join("zoo-vit-dy20")).expect("compiles");
        assert!(first == bytes(2), "{name} compiles to different bytes");
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    let Some(corpus) = support::corpus() else { return };
    for name in ["zoo-bert-sdpa-ts17", "zoo-llama-ts17"] {
        let outcome = compile(&corpus.join(name)).expect("compiles");
        let sizes = |batch: i64| {
            let mut binding = tgc::verify::small_binding(&outcome.imported).expect("sizes");
            for (symbol, value) in &mut binding.0 {
                *value = if symbol.name().contains("batch") || symbol.name() == "B" {
                    batch
                } else {
                    12
                };
            }
            binding
        };
        let all = tgc::inputs::random(&outcome.imported, &sizes(8), 3, tgc::inputs::Style::Usual)
            .expect("inputs");
        let mut device = open(&outcome.engine, "cpu", RunOptions { threads: 2 }).expect("opens");
        let batched = device.run(&all).expect("runs");
        for row in [0, 5, 7] {
            let one: Vec<_> = all.iter().map(|t| support::row(t, row)).collect();
            let alone = device.run(&one).expect("runs");
            for (a, b) in alone.iter().zip(&batched) {
                assert!(a == &support::row(b, row), "{name}: row {row} differs");
            }
        }
    }
}

#[test]
fn a_cache_with_a_capacity_is_updated_in_place() {
    let Some(corpus) = support::corpus() else { return };
    let case = corpus.join("zoo-llama-decode-dy20");
    let options = Options { verify: false, auto_state: true, ..Options::default() };
    let outcome = Session::new(options).compile(&case.join("model.onnx")).expect("compiles");
    let plan = &outcome.engine.plans["cpu"];
    let states = plan.inputs.iter().filter(|p| p.state.is_some()).count();
    assert_eq!(states, 4, "keys and values of two layers");
    assert!(
        !plan.steps.iter().any(|s| matches!(s, tgc_ir::plan::Step::Copy { .. })),
        "nothing is copied"
    );
    for port in plan.inputs.iter().filter(|p| p.state.is_some()) {
        let output = &plan.outputs[port.state.expect("filtered") as usize];
        let place = |b: u32| &plan.buffers[b as usize].place;
        assert_eq!(
            place(port.buffer),
            place(output.buffer),
            "{} and {} are one buffer",
            port.name,
            output.name
        );
    }
    for device in ["cpu", "reference"] {
        check_device(&case, &outcome, device).expect("the same answers");
    }
}
