//! Canonical form that rules rely on (eqsat import invariants): literals have
//! rank 0 where broadcasting allows it and stand on the right of commutative
//! ops; composites of literals and casts of literals are literals.

use tgc_ir::graph::{Graph, NodeId, Operands};
use tgc_ir::infer::Violation;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::op::Op;
use tgc_ir::scalar::traits::COMMUTATIVE;

use crate::pass::{Context, PassError};

/// Rewrites every node into canonical form.
pub fn run(graph: &Graph, _: &mut Context<'_>) -> Result<Graph, PassError> {
    rebuild(graph, canonical)
}

/// Rebuilds the live graph node by node through `make`.
pub(crate) fn rebuild(
    graph: &Graph,
    mut make: impl FnMut(&mut Graph, &Op, &[NodeId]) -> Result<NodeId, Violation>,
) -> Result<Graph, PassError> {
    let live = graph.live();
    let mut next = graph.successor();
    let mut map: Vec<Option<NodeId>> = vec![None; graph.len()];
    for id in graph.ids() {
        if !live[id.index()] && !graph.inputs().contains(&id) {
            continue;
        }
        let operands: Operands = graph
            .operands(id)
            .iter()
            .map(|o| map[o.index()].expect("operands of live nodes are live"))
            .collect();
        let locations: Vec<_> = graph.locations(id).iter().cloned().collect();
        next.set_location(&locations);
        map[id.index()] = Some(make(&mut next, graph.op(id), &operands)?);
    }
    next.set_location(&[]);
    for output in graph.outputs() {
        next.output(&output.name, map[output.node.index()].expect("outputs are live"));
    }
    Ok(next)
}

fn canonical(next: &mut Graph, op: &Op, operands: &[NodeId]) -> Result<NodeId, Violation> {
    match op {
        Op::Scalar(scalar) => {
            let mut operands = Operands::from_slice(operands);
            let shape = next.add(op.clone(), &operands).map(|n| next.shape(n).to_vec())?;
            for at in 0..operands.len() {
                let Some(literal) = bare_literal(next, operands[at]) else { continue };
                let before = std::mem::replace(&mut operands[at], literal);
                // Only where the other operands give the same shape.
                let same = next
                    .add(op.clone(), &operands)
                    .is_ok_and(|n| next.shape(n) == shape.as_slice());
                if !same {
                    operands[at] = before;
                }
            }
            if let [a, b] = operands.as_slice()
                && scalar.has(COMMUTATIVE)
                && next.splat_value(*a).is_some()
                && next.splat_value(*b).is_none()
            {
                operands.swap(0, 1);
            }
            next.add(op.clone(), &operands)
        }
        Op::Cast { to } => {
            match (next.splat_value(operands[0]), next.shape(operands[0]).is_empty()) {
                (Some(value), true) => {
                    let rounded = tgc_ir::scalar::round_to(value.value(), *to);
                    next.add(Op::Splat { value: ScalarConst::from_value(rounded), dtype: *to }, &[])
                }
                _ => next.add(op.clone(), operands),
            }
        }
        _ => next.add(op.clone(), operands),
    }
}

/// The rank-0 literal behind a broadcast one.
fn bare_literal(graph: &mut Graph, node: NodeId) -> Option<NodeId> {
    if graph.shape(node).is_empty() {
        return None;
    }
    let value = graph.splat_value(node)?;
    let dtype = graph.dtype(node);
    graph.add(Op::Splat { value, dtype }, &[]).ok()
}
