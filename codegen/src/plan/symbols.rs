//! Where each symbol of a plan gets its value.

use std::collections::BTreeSet;

use tgc_ir::bind::solve;
use tgc_ir::facts::Bounds;
use tgc_ir::plan::{Source, Step, SymbolSource};
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
    for (symbol, bound) in &graph.data_symbols {
        let step = steps
            .iter()
            .position(|s| matches!(s, Step::Host(h) if h.count.as_ref() == Some(symbol)));
        if let Some(step) = step {
            known.insert(symbol.clone());
            let source = Source::Data { step: step as u32, bound: bound.clone() };
            out.push(SymbolSource { symbol: symbol.clone(), bounds: bounds(symbol), source });
        }
    }
    match needed(graph).into_iter().find(|s| !known.contains(s)) {
        Some(missing) => Err(CodegenError::Undetermined(missing.to_string())),
        None => Ok(out),
    }
}

/// Symbols that live values mention.
fn needed(graph: &Graph) -> BTreeSet<Symbol> {
    let live = graph.live();
    let mut out = BTreeSet::new();
    for id in graph.ids().filter(|id| live[id.index()]) {
        for ty in graph.types(id) {
            ty.shape.iter().for_each(|d| d.collect_symbols(&mut out));
        }
    }
    out
}
