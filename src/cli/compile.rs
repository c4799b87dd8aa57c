//! `tgc compile`: model → engine.

use std::path::PathBuf;

use clap::Args;

use tgc::Outcome;
use tgc::session::{Failure, Kind, error_chain};

use super::{Compiling, Output, emit, engine_of};

/// Arguments of `compile`.
#[derive(Args)]
pub(crate) struct CompileArgs {
    /// Model (.onnx, or a graph in text .tgir).
    model: PathBuf,
    /// Engine file (default: the model's name with .tgc).
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Stages to write as text: ir, kernels, cuda, ptx, plan, dot.
    #[arg(long, value_delimiter = ',')]
    emit: Vec<emit::What>,
    /// Folder for emitted text (default: beside the engine, NAME.tgc.d).
    #[arg(long)]
    emit_dir: Option<PathBuf>,
    #[command(flatten)]
    compiling: Compiling,
}

/// Compiles and writes.
pub(crate) fn run(args: &CompileArgs, output: &Output) -> Result<(), Failure> {
    if args.model.extension().is_some_and(|e| e == "tgc") {
        return Err(Failure::new(
            Kind::Usage,
            format!("{} is an engine already", args.model.display()),
        ));
    }
    let start = std::time::Instant::now();
    let (engine, outcome) = engine_of(&args.model, &args.compiling, output)?;
    let outcome =
        outcome.ok_or_else(|| Failure::new(Kind::Internal, "a model compiles to an outcome"))?;
    let path = args.output.clone().unwrap_or_else(|| args.model.with_extension("tgc"));
    let bytes = engine.write(&path).map_err(|e| Failure::new(Kind::File, error_chain(&e)))?;
    if !args.emit.is_empty() {
        let folder = args.emit_dir.clone().unwrap_or_else(|| path.with_extension("tgc.d"));
        emit::write(&outcome, &args.emit, &folder)?;
        output.remark(format_args!("emitted to {}", folder.display()));
    }
    if output.json {
        output
            .document("tgc.compile/1", summary_json(&outcome, &path.display().to_string(), bytes));
    } else {
        for line in summary(&outcome) {
            output.result(line);
        }
        output.result(format_args!(
            "engine       {} ({}) in {:.2} s",
            path.display(),
            human_bytes(bytes),
            start.elapsed().as_secs_f64()
        ));
    }
    Ok(())
}

/// 1.5 MB and so on.
pub(crate) fn human_bytes(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} B"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}

/// Fused ops by name, in order of name.
pub(crate) fn fused(outcome: &Outcome) -> Vec<(&'static str, usize)> {
    let graph = &outcome.optimised;
    let mut counts: std::collections::BTreeMap<&'static str, usize> = Default::default();
    for id in graph.ids() {
        let op = graph.op(id);
        if matches!(op, tgc_ir::Op::Composite(_) | tgc_ir::Op::Attend { .. }) {
            *counts.entry(op.name()).or_insert(0) += 1;
        }
    }
    counts.into_iter().collect()
}

/// The summary lines of a compilation.
pub(crate) fn summary(outcome: &Outcome) -> Vec<String> {
    let mut out = vec![format!(
        "model        {}: {} nodes imported, {} after rewriting ({} e-nodes, {} rounds{})",
        outcome.engine.provenance.model,
        outcome.imported.len(),
        outcome.optimised.len(),
        outcome.saturation.enodes,
        outcome.saturation.iterations,
        if outcome.saturation.is_saturated { ", saturated" } else { ", budget reached" },
    )];
    let list =
        fused(outcome).iter().map(|(n, c)| format!("{n} {c}")).collect::<Vec<_>>().join(", ");
    out.push(format!("fused        {}", if list.is_empty() { "nothing".to_owned() } else { list }));
    for (target, plan) in &outcome.engine.plans {
        let launches = plan.launches().len();
        out.push(format!(
            "{target:<12} {launches} launches of {} kernels, arena {}",
            plan.kernels.len(),
            arena(outcome, plan)
        ));
        if let Some(built) = outcome.built.get(target) {
            let reports = built.units.iter().flat_map(|u| &u.reports);
            let spills: Vec<String> = reports
                .clone()
                .filter(|r| r.spill_bytes > 0)
                .map(|r| format!("{} spills {} bytes", r.name, r.spill_bytes))
                .collect();
            let registers = reports.map(|r| r.registers).max().unwrap_or(0);
            let spills = if spills.is_empty() { "no spills".to_owned() } else { spills.join(", ") };
            if registers > 0 {
                out.push(format!(
                    "             {} units, at most {registers} registers, {spills}",
                    built.units.len()
                ));
            }
        }
    }
    let verification = &outcome.engine.provenance.verification;
    out.extend(verification.checks.iter().map(|c| format!("verified     {c}")));
    out.extend(verification.not_reached.iter().map(|c| format!("not verified {c}")));
    out
}

/// The arena's size: its formula when that is short, else its value at the
/// smallest sizes.
fn arena(outcome: &Outcome, plan: &tgc_ir::plan::Plan) -> String {
    let formula = plan.arena_bytes.to_string();
    let small = tgc::verify::small_binding(&outcome.imported);
    match small.and_then(|binding| binding.eval(&plan.arena_bytes).ok()) {
        Some(bytes) if formula.len() > 60 => {
            format!("{} at small sizes (formula: --json)", human_bytes(bytes.max(0) as u64))
        }
        _ => format!("{formula} bytes"),
    }
}

fn summary_json(outcome: &Outcome, path: &str, bytes: u64) -> serde_json::Value {
    let plans: serde_json::Map<String, serde_json::Value> = outcome
        .engine
        .plans
        .iter()
        .map(|(target, plan)| {
            let launches = plan.launches().len();
            let value = serde_json::json!({
                "launches": launches,
                "kernels": plan.kernels.len(),
                "arena_bytes": plan.arena_bytes.to_string(),
            });
            (target.clone(), value)
        })
        .collect();
    serde_json::json!({
        "engine": path,
        "engine_bytes": bytes,
        "nodes_imported": outcome.imported.len(),
        "nodes_optimised": outcome.optimised.len(),
        "fused": fused(outcome).into_iter().collect::<std::collections::BTreeMap<_, _>>(),
        "rules_fired": outcome.fired,
        "targets": plans,
        "verification": outcome.engine.provenance.verification,
        "notes": outcome.notes,
    })
}
