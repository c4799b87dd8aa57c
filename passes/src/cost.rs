//! A machine-free cost model: counts work, traffic and kernels. The default
//! where no target is given, and in tests.

use tgc_ir::cost::{CostModel, Picoseconds};
use tgc_ir::dim::Dim;
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::op::Op;
use tgc_ir::types::TensorType;

/// Prices of a generic machine: one picosecond per 10 flops and per 2 bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Structural;

/// What an unknown extent counts as.
const EXTENT_GUESS: i64 = 64;

/// A dim as a number, unknown symbols taken at a typical value.
pub fn guess(dim: &Dim) -> u64 {
    dim.eval(&|_| Some(EXTENT_GUESS)).map_or(u64::MAX / 1024, |v| v.max(0) as u64)
}

fn elements(types: &[TensorType]) -> u64 {
    types.iter().map(|t| guess(&t.count())).fold(0, u64::saturating_add)
}

impl CostModel for Structural {
    fn node(&self, op: &Op, operands: &[TensorType], result: &[TensorType]) -> Picoseconds {
        let (inputs, outputs) = (elements(operands), elements(result));
        let moved = inputs.saturating_add(outputs) * 2;
        match op {
            _ if op.is_leaf() => 0,
            Op::Proj { .. } => 0,
            Op::View { .. } => 100,
            Op::Scalar(_) | Op::Cast { .. } | Op::Bitcast { .. } => 1_000 + outputs / 4,
            Op::Contract { spec } => {
                let work = spec.extents.iter().map(guess).fold(1u64, u64::saturating_mul);
                2_000_000 + moved + work / 5
            }
            Op::Conv { .. } => 2_000_000 + moved + outputs.saturating_mul(64),
            // A recognised composite is one pass over its operands.
            Op::Composite(_) => 1_200 + outputs / 4 + inputs / 4,
            Op::Attend { .. } => 2_000_000 + moved * 2,
            _ => 2_000_000 + moved,
        }
    }

    fn launch(&self) -> Picoseconds {
        2_000_000
    }

    fn traffic(&self, bytes: u64) -> Picoseconds {
        bytes / 2
    }

    fn region(&self, graph: &Graph, nodes: &[NodeId], outputs: &[NodeId]) -> Picoseconds {
        let types = |n: &NodeId| graph.types(*n).to_vec();
        let work: u64 = nodes
            .iter()
            .map(|n| {
                let operands: Vec<TensorType> = graph.operands(*n).iter().flat_map(types).collect();
                self.node(graph.op(*n), &operands, graph.types(*n)).saturating_sub(self.launch())
            })
            .sum();
        self.launch()
            + work
            + self.traffic(outputs.iter().map(|o| elements(graph.types(*o)) * 4).sum())
    }
}
