//! The prices by which passes and `cut` choose: a trait that codegen implements.

use crate::graph::{Graph, NodeId};
use crate::op::Op;
use crate::types::TensorType;

/// Predicted time in picoseconds; integers, so that ties are exact.
pub type Picoseconds = u64;

/// Prices nodes and kernels of one target.
pub trait CostModel: Sync {
    /// The price of computing `op` from operand types, on its own but without
    /// counting what fuses for free.
    fn node(&self, op: &Op, operands: &[TensorType], result: &[TensorType]) -> Picoseconds;

    /// The fixed price of one more kernel.
    fn launch(&self) -> Picoseconds;

    /// The price of moving this many bytes through memory once.
    fn traffic(&self, bytes: u64) -> Picoseconds;

    /// The price of a whole region computed as one kernel.
    fn region(&self, graph: &Graph, nodes: &[NodeId], outputs: &[NodeId]) -> Picoseconds;
}
