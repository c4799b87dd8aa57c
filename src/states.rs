//! `--state auto`: which inputs continue as which outputs, by the exporters'
//! usual names of caches.

use tgc_ir::dim::Dim;
use tgc_ir::facts::{Relation, Require};
use tgc_ir::graph::Graph;

/// Capacity of a state when neither an option nor a bound says one.
const CAPACITY_DEFAULT: i64 = 2048;

/// Pairs inputs and outputs by the exporters' usual names of caches, with the
/// capacity of the axis that grows.
pub(crate) fn pair(graph: &mut Graph, capacities: &[(String, i64)]) -> Vec<String> {
    let mut notes = Vec::new();
    for (input, (name, _)) in crate::inputs::ports(graph).into_iter().enumerate() {
        let Some(output) = continued_by(graph, &name) else { continue };
        let before = graph.shape(graph.inputs()[input]).to_vec();
        let after = graph.shape(graph.outputs()[output].node).to_vec();
        let growing: Vec<usize> = before
            .iter()
            .zip(&after)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(i, _)| i)
            .collect();
        let [axis] = growing.as_slice() else { continue };
        let symbol = before[*axis].as_symbol().cloned();
        let stated = symbol
            .as_ref()
            .and_then(|s| capacities.iter().find(|(n, _)| n == s.name()))
            .map(|(_, c)| *c);
        let bound = symbol.as_ref().and_then(|s| graph.facts.bounds_of(s)).and_then(|b| b.high);
        let capacity = stated.or(bound).unwrap_or(CAPACITY_DEFAULT);
        let output_name = graph.outputs()[output].name.clone();
        graph.facts.require(Require {
            lhs: after[*axis].clone(),
            relation: Relation::AtMost,
            rhs: Dim::Const(capacity),
            origin: format!("the capacity of state {name}"),
        });
        notes.push(format!("state: {name} continues as {output_name}, capacity {capacity}"));
        graph.states.push(tgc_ir::graph::State {
            input,
            output,
            capacity: Some(Dim::Const(capacity)),
            axis: *axis,
        });
    }
    notes
}

/// The output that continues an input, by name.
fn continued_by(graph: &Graph, name: &str) -> Option<usize> {
    let stem = name.strip_prefix("past_key_values").or_else(|| name.strip_prefix("past"))?;
    let wanted = [format!("present{stem}"), format!("present_key_values{stem}")];
    graph.outputs().iter().position(|o| wanted.iter().any(|w| **w == *o.name))
}
