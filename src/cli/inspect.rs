//! `tgc inspect`: what is in a model or an engine.

use std::path::PathBuf;

use clap::Args;

use tgc::Outcome;
use tgc::session::Failure;
use tgc_ir::Graph;
use tgc_ir::plan::{Event, Plan, Step, Trip, walk};
use tgc_runtime::engine::Engine;

use super::compile::{fused, human_bytes, summary};
use super::{Compiling, Output, engine_of};

/// Arguments of `inspect`.
#[derive(Args)]
pub(crate) struct InspectArgs {
    /// Model (.onnx, .tgir) or engine (.tgc).
    model: PathBuf,
    /// Print the optimised graph.
    #[arg(long)]
    graph: bool,
    /// Print nodes of the imported graph that come from this ONNX node, and their producers.
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    #[command(flatten)]
    compiling: Compiling,
}

/// Prints signature, fusions, kernels and sizes.
pub(crate) fn run(args: &InspectArgs, output: &Output) -> Result<(), Failure> {
    let mut compiling = args.compiling.clone();
    compiling.no_verify = true;
    let (engine, outcome) = engine_of(&args.model, &compiling, output)?;
    if output.json {
        output.document("tgc.inspect/1", document(&engine, outcome.as_ref()));
        return Ok(());
    }
    if let (Some(name), Some(outcome)) = (&args.node, &outcome) {
        return show_node(&outcome.imported, name, output);
    }
    if let Some(plan) = engine.plans.values().next() {
        for port in &plan.inputs {
            output.result(format_args!(
                "input        {}  {}{}",
                port.name,
                port.dtype,
                tgc_ir::types::DisplayDims(&port.shape)
            ));
        }
        for port in &plan.outputs {
            output.result(format_args!(
                "output       {}  {}{}",
                port.name,
                port.dtype,
                tgc_ir::types::DisplayDims(&port.shape)
            ));
        }
        for require in &plan.requires {
            output.result(format_args!("requires     {require}  (from {})", require.origin));
        }
    }
    let weights: usize = engine.weights.iter().map(|w| w.bytes().len()).sum();
    output.result(format_args!(
        "weights      {} in {} tensors",
        human_bytes(weights as u64),
        engine.weights.len()
    ));
    match &outcome {
        Some(outcome) => {
            summary(outcome)
                .into_iter()
                .filter(|l| !l.starts_with("not verified"))
                .for_each(|l| output.result(l));
        }
        None => {
            output.result(format_args!(
                "model        {} compiled by tgc {}",
                engine.provenance.model, engine.provenance.tgc
            ));
            let verification = &engine.provenance.verification;
            verification
                .checks
                .iter()
                .for_each(|c| output.result(format_args!("verified     {c}")));
            verification
                .not_reached
                .iter()
                .for_each(|c| output.result(format_args!("not verified {c}")));
        }
    }
    for (target, plan) in &engine.plans {
        output.result(format_args!("kernels of {target}:"));
        kernels(plan).into_iter().for_each(|line| output.result(line));
    }
    if args.graph {
        output.result(&engine.graph);
    }
    Ok(())
}

/// One line per step, nested ones indented: kernel, family, where it comes from.
fn kernels(plan: &Plan) -> Vec<String> {
    let mut out = Vec::new();
    let mut depth = 1;
    walk(&plan.steps, &mut |event| match event {
        Event::Enter(step) => {
            out.push(format!("{}{}", "  ".repeat(depth), line(plan, step)));
            depth += usize::from(matches!(step, Step::If { .. } | Step::Loop(_)));
        }
        Event::Else(_) => out.push(format!("{}else", "  ".repeat(depth - 1))),
        Event::Leave(_) => depth -= 1,
    });
    out
}

fn line(plan: &Plan, step: &Step) -> String {
    let name = |b: u32| &plan.buffers[b as usize].name;
    match step {
        Step::Launch(launch) => {
            let kernel = &plan.kernels[launch.kernel as usize];
            let from = match launch.provenance.as_slice() {
                [] => String::new(),
                [one] => one.clone(),
                [first, .., last] => {
                    format!("{first} … {last} ({} nodes)", launch.provenance.len())
                }
            };
            format!("{:<14} {:<9} {from}", kernel.name, kernel.family())
        }
        Step::Copy { from, to } => format!("copy           {} to {}", name(*from), name(*to)),
        Step::Host(host) => format!("host           {:?}", host.op),
        Step::If { predicate, .. } => format!("if             {}", name(*predicate)),
        Step::Loop(l) => {
            let trip = match &l.trip {
                Trip::Unbounded => "any number of".to_owned(),
                Trip::Known(dim) => format!("{dim}"),
                Trip::Read(buffer) => name(*buffer).clone(),
            };
            let condition = l.condition.map_or_else(String::new, |c| format!(" while {}", name(c)));
            format!("loop           {trip} rounds{condition}")
        }
    }
}

fn show_node(graph: &Graph, name: &str, output: &Output) -> Result<(), Failure> {
    let mut found = false;
    for id in graph.ids().filter(|id| graph.locations(*id).iter().any(|l| &**l == name)) {
        found = true;
        for &operand in graph.operands(id) {
            output.result(format_args!("  {}", tgc_ir::text::node_line(graph, operand)));
        }
        output.result(tgc_ir::text::node_line(graph, id));
    }
    if found {
        return Ok(());
    }
    let names: std::collections::BTreeSet<&str> =
        graph.ids().flat_map(|id| graph.locations(id)).map(AsRef::as_ref).collect();
    let hint = tgc::session::closest(name, names)
        .map_or_else(String::new, |h| format!("; did you mean `{h}`?"));
    Err(Failure::new(
        tgc::session::Kind::Usage,
        format!("no node `{name}` is left after import{hint}"),
    ))
}

fn document(engine: &Engine, outcome: Option<&Outcome>) -> serde_json::Value {
    let plans: serde_json::Map<String, serde_json::Value> = engine
        .plans
        .iter()
        .map(|(target, plan)| {
            let launches: Vec<serde_json::Value> = plan
                .launches()
                .into_iter()
                .map(|l| {
                    let kernel = &plan.kernels[l.kernel as usize];
                    serde_json::json!({ "kernel": kernel.name, "family": kernel.family(), "nodes": l.provenance })
                })
                .collect();
            (target.clone(), serde_json::json!({ "arena_bytes": plan.arena_bytes.to_string(), "launches": launches }))
        })
        .collect();
    serde_json::json!({
        "provenance": engine.provenance,
        "weights_bytes": engine.weights.iter().map(|w| w.bytes().len()).sum::<usize>(),
        "fused": outcome.map(|o| fused(o).into_iter().collect::<std::collections::BTreeMap<_, _>>()),
        "targets": plans,
    })
}
