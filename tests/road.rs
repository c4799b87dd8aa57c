//! From ONNX to kernels on the reference: the imported graph, and its plan.

mod support;

use tgc_ir::eval::{Mode, run};

const CASES: &[&str] = &["zoo-bert-sdpa-ts17"];

#[test]
fn plans_equal_expected_outputs_on_the_reference() {
    let Some(corpus) = support::corpus() else { return };
    let only = std::env::var("CASES").ok();
    let names: Vec<String> = match &only {
        Some(list) => list.split(',').map(str::to_owned).collect(),
        None => CASES.iter().map(|c| (*c).to_owned()).collect(),
    };
    let mut bad = Vec::new();
    for name in names {
        let case = corpus.join(&name);
        let model = tgc_onnx::load(&case.join("model.onnx"));
        let model = match model { Ok(m) => m, Err(e) => { bad.push(format!("{name}: {e}")); continue } };
        let imported = match tgc_onnx::import(&model) { Ok(i) => i, Err(e) => { bad.push(format!("{name}: import {e}")); continue } };
        let graph = imported.graph;
        let tolerance = support::tolerance(&case);
        let compiled = match tgc_codegen::compile(&graph, "cpu") { Ok(c) => c, Err(e) => { bad.push(format!("{name}: compile {e}")); continue } };
        let weights = tgc_codegen::plan::weights(&compiled.graph);
        println!("{name}: {} nodes, {} primitives, {} steps, {} kernels", graph.len(), compiled.graph.len(), compiled.plan.steps.len(), compiled.plan.kernels.len());
        for (k, set) in support::data_sets(&case).into_iter().enumerate().take(1) {
            let names: Vec<&str> = compiled.plan.inputs.iter().map(|p| p.name.as_str()).collect();
            let named: Vec<(&str, _)> = names.iter().copied().zip(set.inputs.iter().cloned()).collect();
            let exact = match run(&graph, &named, Mode::Exact) { Ok(x) => x, Err(e) => { bad.push(format!("{name}: eval {e}")); continue } };
            let planned = match tgc_runtime::reference::run_plan(&compiled.plan, &weights, &set.inputs) { Ok(x) => x, Err(e) => { bad.push(format!("{name}: plan {e}")); continue } };
            for (i, want) in set.outputs.iter().enumerate() {
                let (a, b) = (support::excess(&exact[i], want, tolerance), support::excess(&planned[i], want, tolerance));
                println!("  set {k} output {i}: graph {a:?} plan {b:?}");
                if !matches!(a, Ok(x) if x <= 1.0) || !matches!(b, Ok(x) if x <= 1.0) {
                    bad.push(format!("{name} set {k} output {i}: {a:?} {b:?}"));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}
