//! Composites become their bodies: kernels are cut from primitives.
//!
//! Recognition has done its work before (stable forms, attention, counts); a
//! family that wants a composite whole would be asked here.

use tgc_ir::composite::{Apply, CompositeOp};
use tgc_ir::graph::Operands;
use tgc_ir::infer::Violation;
use tgc_ir::{Graph, NodeId, Op, TensorType};

/// A graph that expands composites as they are added.
struct Expanding<'a>(&'a mut Graph);

impl Apply for Expanding<'_> {
    type Value = NodeId;

    fn apply(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId, Violation> {
        match op {
            Op::Composite(inner) => inner.expand(self, operands),
            other => self.0.add(other, operands),
        }
    }

    fn type_of(&self, value: &NodeId) -> TensorType {
        self.0.ty(*value).clone()
    }
}

fn expand_node(
    graph: &mut Graph,
    op: &CompositeOp,
    operands: &[NodeId],
) -> Result<NodeId, Violation> {
    op.expand(&mut Expanding(graph), operands)
}

/// The live part of a graph in primitives.
pub fn expand(graph: &Graph) -> Result<Graph, Violation> {
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
        let new = match graph.op(id) {
            Op::Composite(op) => expand_node(&mut next, op, &operands)?,
            op => next.add(op.clone(), &operands)?,
        };
        map[id.index()] = Some(new);
    }
    next.set_location(&[]);
    for output in graph.outputs() {
        next.output(&output.name, map[output.node.index()].expect("outputs are live"));
    }
    Ok(next)
}
