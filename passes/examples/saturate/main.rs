//! Milliseconds per pass and fused sites per model, release:
//! `cargo run --release -p tgc-passes --example saturate -- [MODELS_FOLDER [NAME...]]`.
//!
//! Without a folder of models it measures BERT of 12 and 24 layers, written
//! node by node as an exporter spells it. With one, every `*/model.onnx` in it
//! is imported, and sites are compared with `meta.json`. With parts of model
//! names only those models are measured, with the rules that fired most.

mod bert;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use tgc_ir::Graph;
use tgc_passes::cost::Structural;
use tgc_passes::rules::RuleSet;
use tgc_passes::{Context, Observer, PASSES, Pass, run_passes};

/// Runs per model; the fastest counts.
const REPEATS: usize = 7;

/// Site names of `meta.json` and the ops that a site becomes (a norm without
/// gain or bias is its core).
const SITES: &[(&str, &[&str])] = &[
    ("attention", &["attend"]),
    ("layernorm", &["layer_norm", "normalize"]),
    ("rmsnorm", &["rms_norm", "rms_normalize"]),
    ("gelu_erf", &["gelu"]),
    ("gelu_tanh", &["gelu_tanh"]),
    ("quick_gelu", &["quick_gelu"]),
    ("silu", &["silu"]),
    ("hardswish", &["hard_swish"]),
    ("relu", &["relu"]),
];

#[derive(Default)]
struct Clock {
    started: Option<Instant>,
    ms: BTreeMap<&'static str, f64>,
}

impl Observer for Clock {
    fn before(&mut self, _: &Pass, _: &Graph) {
        self.started = Some(Instant::now());
    }

    fn after(&mut self, pass: &Pass, _: &Graph, _: &Graph) {
        let spent = self.started.map_or(0.0, |s| s.elapsed().as_secs_f64() * 1e3);
        *self.ms.entry(pass.name).or_insert(0.0) += spent;
    }
}

struct Measured {
    optimised: Graph,
    ms: BTreeMap<&'static str, f64>,
    saturation: tgc_passes::egraph::Report,
    fired: BTreeMap<String, u64>,
}

impl Measured {
    /// Rewriting without the evaluation of constants.
    fn rewriting_ms(&self) -> f64 {
        self.ms.iter().filter(|(name, _)| !name.starts_with("fold")).map(|(_, ms)| ms).sum()
    }
}

fn measure(
    graph: &Graph,
    rules: &RuleSet,
    repeats: usize,
) -> Result<Measured, tgc_passes::PassError> {
    let passes: Vec<&Pass> = PASSES.iter().collect();
    let mut fastest: Option<Measured> = None;
    for _ in 0..repeats {
        let mut context = Context::new(&Structural, rules);
        let mut clock = Clock::default();
        let optimised = run_passes(graph, &passes, &mut context, &mut clock, false)?;
        let measured = Measured {
            optimised,
            ms: clock.ms,
            saturation: context.saturation,
            fired: context.fired,
        };
        if fastest.as_ref().is_none_or(|f| measured.rewriting_ms() < f.rewriting_ms()) {
            fastest = Some(measured);
        }
    }
    Ok(fastest.expect("at least one run"))
}

fn print_times(name: &str, graph: &Graph, measured: &Measured) {
    let report = &measured.saturation;
    let parts: Vec<String> =
        PASSES.iter().map(|p| format!("{} {:.2}", p.name, measured.ms[p.name])).collect();
    println!(
        "{name:34} {:5} -> {:5} nodes  {:6} e-nodes {:2} rounds{}  {:7.2} ms  ({})",
        graph.len(),
        measured.optimised.len(),
        report.enodes,
        report.iterations,
        if report.is_saturated { "" } else { " LIMIT" },
        measured.rewriting_ms(),
        parts.join(", ")
    );
}

/// The rules that fired most.
fn print_fired(fired: &BTreeMap<String, u64>) {
    let mut rules: Vec<(&String, &u64)> = fired.iter().collect();
    rules.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let parts: Vec<String> =
        rules.iter().take(12).map(|(rule, count)| format!("{rule} {count}")).collect();
    println!("    {}", parts.join(", "));
}

fn count(graph: &Graph, names: &[&str]) -> u64 {
    let live = graph.live();
    graph.ids().filter(|id| live[id.index()] && names.contains(&graph.op(*id).name())).count()
        as u64
}

fn expected(folder: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(folder.join("meta.json")).unwrap_or_default();
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let sites = meta["expected_sites"].as_object().cloned().unwrap_or_default();
    sites.into_iter().filter_map(|(k, v)| Some((k, v.as_u64()?))).collect()
}

fn corpus(folder: &Path, only: &[String], rules: &RuleSet) -> std::io::Result<()> {
    let mut totals: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let (mut ms, mut models) = (0.0, 0);
    let mut folders: Vec<_> =
        std::fs::read_dir(folder)?.filter_map(|e| e.ok().map(|e| e.path())).collect();
    folders.sort();
    for path in folders.iter().filter(|p| p.join("model.onnx").exists()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !only.is_empty() && !only.iter().any(|o| name.contains(o.as_str())) {
            continue;
        }
        let imported = tgc_onnx::load(&path.join("model.onnx"))
            .map_err(|e| e.to_string())
            .and_then(|m| tgc_onnx::import(&m).map_err(|e| e.to_string()));
        let graph = match imported {
            Ok(imported) => imported.graph.pruned(),
            Err(error) => {
                println!("{name:34} is not imported: {}", error.lines().next().unwrap_or_default());
                continue;
            }
        };
        let measured = match measure(&graph, rules, 1) {
            Ok(measured) => measured,
            Err(error) => {
                println!("{name:34} fails: {error}");
                continue;
            }
        };
        models += 1;
        ms += measured.rewriting_ms();
        print_times(&name, &graph, &measured);
        let wanted = expected(path);
        let mut short: Vec<String> = Vec::new();
        for (site, ops) in SITES {
            let Some(&want) = wanted.get(*site) else { continue };
            let have = count(&measured.optimised, ops);
            let total = totals.entry(site).or_default();
            *total = (total.0 + have.min(want), total.1 + want);
            if have < want {
                short.push(format!("{site} {have}/{want}"));
            }
        }
        if !short.is_empty() {
            println!("    {}", short.join("  "));
        }
        if !only.is_empty() {
            print_fired(&measured.fired);
        }
    }
    println!("{models} models, {ms:.0} ms");
    for (site, (have, want)) in totals {
        println!("{site:12} {have:4} of {want:4}");
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let rules = RuleSet::builtin();
    println!("rules read in {:.2} ms", started.elapsed().as_secs_f64() * 1e3);
    for layers in [12, 24] {
        let graph = bert::bert(layers);
        print_times(&format!("bert{layers}"), &graph, &measure(&graph, &rules, REPEATS)?);
    }
    let mut args = std::env::args().skip(1);
    if let Some(folder) = args.next() {
        corpus(Path::new(&folder), &args.collect::<Vec<_>>(), &rules)?;
    }
    Ok(())
}
