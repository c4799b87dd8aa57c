//! Where each symbol of a plan gets its value.

use std::collections::BTreeSet;

use tgc_ir::bind::solve;
use tgc_ir::dim::Dim;
use tgc_ir::facts::Bounds;
use tgc_ir::plan::{Event, Source, Step, SymbolSource, walk};
use tgc_ir::{Graph, Symbol};

use crate::CodegenError;

/// Sources of every symbol of the graph, in an order in which each can be
/// solved from earlier ones.
pub(crate) fn sources(graph: &Graph, steps: &[Step]) -> Result<Vec<SymbolSource>, CodegenError> {
    let mut out: Vec<SymbolSource> = Vec::new();
    let mut known: BTreeSet<Symbol> = BTreeSet::new();
    let bounds = |s: &Symbol| {
        graph.facts.bounds_of(s).copied().unwrap_or(Bounds {
            low: i64::MIN,
            high: None,
            multiple_of: 1,
        })
    };
    for element in &graph.element_symbols {
        let source =
            Source::InputElement { input: element.input as u32, element: element.element as u32 };
        if known.insert(element.symbol.clone()) {
            out.push(SymbolSource {
                symbol: element.symbol.clone(),
                bounds: bounds(&element.symbol),
                source,
            });
        }
    }
    loop {
        let before = out.len();
        for (input, &node) in graph.inputs().iter().enumerate() {
            for (axis, dim) in graph.shape(node).iter().enumerate() {
                if let Some((symbol, value)) = solve(dim, &|s| known.contains(s)) {
                    let source = Source::InputExtent {
                        input: input as u32,
                        axis: axis as u32,
                        solve: value,
                    };
                    known.insert(symbol.clone());
                    out.push(SymbolSource { bounds: bounds(&symbol), symbol, source });
                }
            }
        }
        if out.len() == before {
            break;
        }
    }
    for (graph, symbol, bound) in data_symbols(graph) {
        if let Some(step) = steps.iter().position(|step| finds(step, symbol)) {
            known.insert(symbol.clone());
            let bounds = graph.facts.bounds_of(symbol).copied();
            let bounds = bounds.unwrap_or(Bounds { low: 0, high: None, multiple_of: 1 });
            let source = Source::Data { step: step as u32, bound: bound.clone() };
            out.push(SymbolSource { symbol: symbol.clone(), bounds, source });
        }
    }
    match needed(graph).into_iter().find(|s| !known.contains(s)) {
        Some(missing) => Err(CodegenError::Undetermined(missing.to_string())),
        None => Ok(out),
    }
}

/// Symbols of counts with their bounds: a graph's own, then its regions'.
fn data_symbols(graph: &Graph) -> Vec<(&Graph, &Symbol, &Dim)> {
    let mut out: Vec<(&Graph, &Symbol, &Dim)> =
        graph.data_symbols.iter().map(|(symbol, bound)| (graph, symbol, bound)).collect();
    let live = graph.live();
    for id in graph.ids().filter(|id| live[id.index()]) {
        let regions = graph.op(id).regions();
        out.extend(regions.into_iter().flat_map(|r| data_symbols(r.graph())));
    }
    out
}

/// Whether a step, or one nested in it, finds a count.
fn finds(step: &Step, symbol: &Symbol) -> bool {
    let mut found = false;
    walk(std::slice::from_ref(step), &mut |event| {
        found |= match event {
            Event::Enter(Step::Host(host)) => host.count.as_ref() == Some(symbol),
            Event::Enter(Step::Loop(l)) => l.rounds.as_ref() == Some(symbol),
            _ => false,
        };
    });
    found
}

/// Symbols that live values mention.
fn needed(graph: &Graph) -> BTreeSet<Symbol> {
    let live = graph.live();
    let mut out = BTreeSet::new();
    for id in graph.ids().filter(|id| live[id.index()]) {
        let op = graph.op(id);
        // A loop's symbol matters where a result that is read mentions it.
        let types = if op.is_tuple() { &[] } else { graph.types(id) };
        types.iter().flat_map(|ty| &ty.shape).for_each(|d| d.collect_symbols(&mut out));
        op.regions().iter().for_each(|r| out.extend(needed(r.graph())));
    }
    out
}
