//! From ONNX to kernels on the reference: imported graph, optimised graph and
//! plan give the expected outputs.

mod support;

use std::collections::BTreeMap;

use tgc_ir::eval::{Mode, run};
use tgc_ir::{Graph, Op};

const CASES: &[&str] = &["zoo-bert-sdpa-ts17"];

fn sites(graph: &Graph) -> BTreeMap<&'static str, usize> {
    let mut out = BTreeMap::new();
    for id in graph.ids() {
        if matches!(
            graph.op(id),
            Op::Composite(_) | Op::Attend { .. } | Op::Contract { .. } | Op::Conv { .. }
        ) {
            *out.entry(graph.op(id).name()).or_insert(0) += 1;
        }
    }
    out
}

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
        if let Err(why) = check(&corpus.join(&name), &name) {
            println!("{name}: FAILED {why}");
            bad.push(format!("{name}: {why}"));
        }
    }
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

fn check(case: &std::path::Path, name: &str) -> Result<(), String> {
    let model = tgc_onnx::load(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let graph = tgc_onnx::import(&model).map_err(|e| format!("import {e}"))?.graph;
    let rules = tgc_passes::rules::RuleSet::builtin();
    let cost = tgc_passes::cost::Structural;
    let mut context = tgc_passes::Context::new(&cost, &rules);
    let passes: Vec<&tgc_passes::Pass> = tgc_passes::PASSES.iter().collect();
    let start = std::time::Instant::now();
    let optimised =
        tgc_passes::run_passes(&graph, &passes, &mut context, &mut tgc_passes::pass::Silent, true)
            .map_err(|e| format!("passes {e}"))?;
    println!(
        "{name}: {} -> {} nodes in {:?}; {:?}; {:?}",
        graph.len(),
        optimised.len(),
        start.elapsed(),
        context.saturation,
        sites(&optimised)
    );
    if std::env::var_os("SHOW").is_some() {
        println!("{}", tgc_ir::text::print(&optimised));
        println!("{:?}", context.fired);
    }
    let compiled = tgc_codegen::compile(&optimised, "cpu").map_err(|e| format!("compile {e}"))?;
    let weights = tgc_codegen::plan::weights(&compiled.graph);
    println!(
        "  {} primitives, {} steps, {} kernels",
        compiled.graph.len(),
        compiled.plan.steps.len(),
        compiled.plan.kernels.len()
    );
    if std::env::var_os("NORUN").is_some() {
        return Ok(());
    }
    let tolerance = support::tolerance(case);
    for (k, set) in support::data_sets(case).into_iter().enumerate().take(1) {
        let named: Vec<(&str, _)> = compiled
            .plan
            .inputs
            .iter()
            .map(|p| p.name.as_str())
            .zip(set.inputs.iter().cloned())
            .collect();
        let exact = run(&optimised, &named, Mode::Exact).map_err(|e| format!("eval {e}"))?;
        let planned = tgc_runtime::reference::run_plan(&compiled.plan, &weights, &set.inputs)
            .map_err(|e| format!("plan {e}"))?;
        for (i, want) in set.outputs.iter().enumerate() {
            let (a, b) = (
                support::excess(&exact[i], want, tolerance),
                support::excess(&planned[i], want, tolerance),
            );
            println!("  set {k} output {i}: graph {a:?} plan {b:?}");
            if !matches!(a, Ok(x) if x <= 1.0) || !matches!(b, Ok(x) if x <= 1.0) {
                return Err(format!("set {k} output {i}: {a:?} {b:?}"));
            }
        }
    }
    Ok(())
}
