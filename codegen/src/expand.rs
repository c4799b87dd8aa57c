//! Composites become their bodies: kernels are cut from primitives.
//!
//! Recognition has done its work before (stable forms, attention, counts); a
//! family that wants a composite whole would be asked here.

use tgc_ir::attr::Region;
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

/// The live part of a graph, regions included, in primitives.
pub fn expand(graph: &Graph) -> Result<Graph, Violation> {
    expand_with(graph, &[])
}

/// What a capture is read as instead.
enum Known {
    /// A literal of the graph around the region.
    Literal(Op),
    /// An earlier input for the same value.
    Same(NodeId),
}

/// As [`expand`], with inputs read as what is known of them.
fn expand_with(graph: &Graph, known: &[(NodeId, Known)]) -> Result<Graph, Violation> {
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
        let known = known.iter().find(|(input, _)| *input == id);
        let new = match (graph.op(id), known) {
            (_, Some((_, Known::Literal(literal)))) => next.add(literal.clone(), &[])?,
            (_, Some((_, Known::Same(input)))) => {
                map[input.index()].expect("earlier inputs come first")
            }
            (Op::Composite(op), _) => expand_node(&mut next, op, &operands)?,
            (op, _) => {
                let op = expand_regions(&next, op, &operands)?;
                next.add(op, &operands)?
            }
        };
        map[id.index()] = Some(new);
    }
    next.set_location(&[]);
    for output in graph.outputs() {
        next.output(&output.name, map[output.node.index()].expect("outputs are live"));
    }
    Ok(next)
}

/// An op with its regions in primitives; what they capture of literals is
/// theirs.
fn expand_regions(graph: &Graph, op: &Op, operands: &[NodeId]) -> Result<Op, Violation> {
    let expanded = |region: &Region, operands: &[NodeId], own: usize| {
        let inputs = &region.graph().inputs()[own..];
        let known = |i: usize| match graph.op(operands[i]) {
            op @ (Op::Splat { .. } | Op::Iota { .. } | Op::DimValue { .. }) => {
                Some((inputs[i], Known::Literal(op.clone())))
            }
            _ => {
                let first = operands.iter().position(|o| *o == operands[i])?;
                (first < i).then(|| (inputs[i], Known::Same(inputs[first])))
            }
        };
        let known: Vec<(NodeId, Known)> = (0..inputs.len()).filter_map(known).collect();
        expand_with(region.graph(), &known).map(Region::new)
    };
    Ok(match op {
        Op::If { then, otherwise } => Op::If {
            then: expanded(then, &operands[1..], 0)?,
            otherwise: expanded(otherwise, &operands[1..], 0)?,
        },
        Op::Loop { body, carried, rounds } => {
            let own = *carried as usize;
            Op::Loop {
                body: expanded(body, &operands[2 + own..], 1 + own)?,
                carried: *carried,
                rounds: rounds.clone(),
            }
        }
        other => other.clone(),
    })
}
