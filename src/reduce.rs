//! Shrinking a graph while something stays true of it: what is left of a model
//! that fails is a few lines that can be read and reported.
//!
//! Greedy and deterministic: outputs are dropped and moved towards the inputs,
//! values become inputs, nodes are bypassed, symbols get small values, until no
//! single change keeps the property.

use std::collections::{BTreeMap, BTreeSet};

use tgc_ir::facts::Bounds;
use tgc_ir::graph::{ElementSymbol, Graph, NodeId};
use tgc_ir::infer::Violation;
use tgc_ir::op::Op;

/// What a property says about a candidate.
pub type Property<'p> = dyn FnMut(&Graph) -> bool + 'p;

/// The smallest graph found of which the property is true, and how many
/// candidates were tried. The graph itself when nothing smaller has it.
pub fn reduce(graph: &Graph, property: &mut Property<'_>) -> (Graph, usize) {
    let mut search = Search { property, tried: 0 };
    let mut best = rebuilt(graph, &Change::default()).unwrap_or_else(|_| graph.clone());
    loop {
        let before = (best.len(), best.inputs().len());
        best = search.fewer_outputs(best);
        best = search.earlier_outputs(best);
        best = search.values_as_inputs(best);
        best = search.bypasses(best);
        best = search.small_symbols(best);
        if (best.len(), best.inputs().len()) >= before {
            return (best, search.tried);
        }
    }
}

struct Search<'s, 'p> {
    property: &'s mut Property<'p>,
    tried: usize,
}

impl Search<'_, '_> {
    /// The changed graph, when it is a graph and has the property.
    fn attempt(&mut self, graph: &Graph, change: &Change) -> Option<Graph> {
        let candidate = rebuilt(graph, change).ok()?;
        self.tried += 1;
        (self.property)(&candidate).then_some(candidate)
    }

    fn fewer_outputs(&mut self, mut best: Graph) -> Graph {
        let mut at = 0;
        while best.outputs().len() > 1 && at < best.outputs().len() {
            let kept = best.outputs().iter().enumerate().filter(|(i, _)| *i != at);
            let outputs = kept.map(|(_, o)| (o.name.to_string(), o.node)).collect();
            match self.attempt(&best, &Change { outputs: Some(outputs), ..Change::default() }) {
                Some(smaller) => best = smaller,
                None => at += 1,
            }
        }
        best
    }

    /// Moves each output to an operand of the node that it is.
    fn earlier_outputs(&mut self, mut best: Graph) -> Graph {
        'moved: loop {
            for (at, output) in best.outputs().iter().enumerate() {
                for &operand in best.operands(output.node) {
                    if best.op(operand).is_leaf() || best.types(operand).len() != 1 {
                        continue;
                    }
                    let mut outputs: Vec<(String, NodeId)> =
                        best.outputs().iter().map(|o| (o.name.to_string(), o.node)).collect();
                    outputs[at].1 = operand;
                    let change = Change { outputs: Some(outputs), ..Change::default() };
                    if let Some(smaller) = self.attempt(&best, &change) {
                        best = smaller;
                        continue 'moved;
                    }
                }
            }
            return best;
        }
    }

    /// Makes values inputs, those nearest the outputs first, as they save most.
    fn values_as_inputs(&mut self, best: Graph) -> Graph {
        self.each_node(best, |graph, node| {
            let single = graph.types(node).len() == 1;
            let input = matches!(graph.op(node), Op::Input { .. });
            let cuts = if single && !input { vec![Replacement::Input] } else { Vec::new() };
            // A literal is shorter than an input.
            if matches!(graph.op(node), Op::Splat { .. } | Op::Iota { .. }) {
                Vec::new()
            } else {
                cuts
            }
        })
    }

    /// Replaces nodes by operands of the same type.
    fn bypasses(&mut self, best: Graph) -> Graph {
        self.each_node(best, |graph, node| {
            let operands: BTreeSet<NodeId> = graph.operands(node).iter().copied().collect();
            let equal = operands.into_iter().filter(|o| graph.types(*o) == graph.types(node));
            equal.map(Replacement::Node).collect()
        })
    }

    fn each_node(
        &mut self,
        mut best: Graph,
        replacements: impl Fn(&Graph, NodeId) -> Vec<Replacement>,
    ) -> Graph {
        let mut at = best.len();
        while at > 0 {
            at -= 1;
            let node = NodeId(at as u32);
            for replacement in replacements(&best, node) {
                let change =
                    Change { replace: BTreeMap::from([(node, replacement)]), ..Change::default() };
                if let Some(smaller) = self.attempt(&best, &change)
                    && smaller.len() <= best.len()
                {
                    at = at.min(smaller.len());
                    best = smaller;
                    break;
                }
            }
        }
        best
    }

    /// Fixes each symbol to its smallest value, or the next but one.
    fn small_symbols(&mut self, mut best: Graph) -> Graph {
        let symbols: Vec<_> = best.facts.symbols().map(|(s, b)| (s.clone(), *b)).collect();
        for (symbol, bounds) in symbols {
            if Some(bounds.low) == bounds.high {
                continue;
            }
            for value in [bounds.low, bounds.low + 1, bounds.low + 2] {
                let mut candidate = best.clone();
                let fixed = Bounds { low: value, high: Some(value), multiple_of: 1 };
                candidate.facts.bound(symbol.clone(), fixed);
                self.tried += 1;
                if (self.property)(&candidate) {
                    best = candidate;
                    break;
                }
            }
        }
        best
    }
}

/// One step of shrinking.
#[derive(Default)]
struct Change {
    /// Outputs instead of the graph's.
    outputs: Option<Vec<(String, NodeId)>>,
    /// Nodes that something else stands for.
    replace: BTreeMap<NodeId, Replacement>,
}

enum Replacement {
    /// A new input of the node's type.
    Input,
    /// An earlier node.
    Node(NodeId),
}

/// The live part of a graph after a change: weights and inputs that nothing
/// reads are gone, states and locations too.
fn rebuilt(graph: &Graph, change: &Change) -> Result<Graph, Violation> {
    let outputs = change
        .outputs
        .clone()
        .unwrap_or_else(|| graph.outputs().iter().map(|o| (o.name.to_string(), o.node)).collect());
    let live = reached(graph, change, outputs.iter().map(|(_, node)| *node));
    let mut next = Graph::new(graph.name.clone());
    next.facts = graph.facts.clone();
    next.data_symbols = graph.data_symbols.clone();
    let mut map: Vec<Option<NodeId>> = vec![None; graph.len()];
    for node in graph.ids().filter(|n| live[n.index()]) {
        let new = match (change.replace.get(&node), graph.op(node)) {
            (Some(Replacement::Node(other)), _) => map[other.index()].expect("operands come first"),
            (Some(Replacement::Input), _) => {
                next.input(&fresh_name(graph, node), graph.ty(node).clone())
            }
            (None, Op::Input { name, ty }) => next.input(name, ty.clone()),
            (None, Op::Weight { index }) => {
                let row = next.push_weight(graph.weights()[*index as usize].clone());
                next.add(Op::Weight { index: row as i64 }, &[])?
            }
            _ => next.import_node(graph, node, &map)?,
        };
        map[node.index()] = Some(new);
    }
    for (name, node) in outputs {
        next.output(&name, map[node.index()].expect("outputs are live"));
    }
    next.element_symbols =
        graph.element_symbols.iter().filter_map(|e| moved(graph, &next, e)).collect();
    Ok(next)
}

/// Nodes that the changed outputs need, as a mask.
fn reached(graph: &Graph, change: &Change, outputs: impl Iterator<Item = NodeId>) -> Vec<bool> {
    let mut live = vec![false; graph.len()];
    let mut stack: Vec<NodeId> = outputs.collect();
    while let Some(node) = stack.pop() {
        if std::mem::replace(&mut live[node.index()], true) {
            continue;
        }
        match change.replace.get(&node) {
            Some(Replacement::Input) => {}
            Some(Replacement::Node(other)) => stack.push(*other),
            None => stack.extend(graph.operands(node)),
        }
    }
    live
}

fn fresh_name(graph: &Graph, node: NodeId) -> String {
    let taken = |name: &str| {
        graph
            .inputs()
            .iter()
            .any(|i| matches!(graph.op(*i), Op::Input { name: n, .. } if **n == *name))
    };
    let mut name = format!("v{}", node.0);
    while taken(&name) {
        name.push('_');
    }
    name
}

/// An element symbol with the new index of its input.
fn moved(from: &Graph, to: &Graph, element: &ElementSymbol) -> Option<ElementSymbol> {
    let name = |graph: &Graph, input: NodeId| match graph.op(input) {
        Op::Input { name, .. } => Some(name.to_string()),
        _ => None,
    };
    let wanted = name(from, *from.inputs().get(element.input)?)?;
    let input = to.inputs().iter().position(|i| name(to, *i).as_ref() == Some(&wanted))?;
    Some(ElementSymbol { input, ..element.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"graph "g" {
  symbol "B" 1..64
  %0 = input name=x ty="f32[B, 4]"
  %1 = input name=y ty="f32[B, 4]"
  %2 = exp %0
  %3 = tanh %1
  %4 = add %2 %3
  %5 = sqrt %4
  %6 = neg %5
  output "a" %6
  output "b" %3
}
"#;

    #[test]
    fn what_does_not_matter_goes() {
        let graph = tgc_ir::text::parse(TEXT).expect("the text is a graph");
        let has_sqrt = |g: &Graph| g.ids().any(|n| g.op(n).name() == "sqrt");
        let (small, tried) = reduce(&graph, &mut |g| has_sqrt(g));
        // An input and the square root of it.
        assert_eq!((small.len(), small.outputs().len()), (2, 1), "{}", tgc_ir::text::print(&small));
        assert!(tried < 30, "{tried} candidates");
        let bounds = small.facts.symbols().next().map(|(_, b)| *b);
        assert_eq!(bounds.map(|b| (b.low, b.high)), Some((1, Some(1))));
    }

    #[test]
    fn a_property_of_nothing_smaller_keeps_the_graph() {
        let graph = tgc_ir::text::parse(TEXT).expect("the text is a graph");
        let (same, _) = reduce(&graph, &mut |g| g.len() >= 7 && g.outputs().len() == 2);
        assert_eq!(same.len(), graph.len());
    }
}
