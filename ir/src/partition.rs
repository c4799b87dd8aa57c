//! Partitions: which nodes form one kernel, and in which precision values are
//! stored and computed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::dtype::DType;
use crate::graph::{Graph, NodeId};

/// Precision of one value: how it is stored between kernels and how sums over
/// it are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Precision {
    /// Storage.
    pub storage: DType,
    /// Arithmetic.
    pub compute: DType,
    /// Sums and statistics.
    pub accumulate: DType,
}

/// The nodes of one kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// The op that fixes the structure; `None` for pure pointwise regions.
    pub anchor: Option<NodeId>,
    /// Members in topological order.
    pub nodes: Vec<NodeId>,
    /// Members whose values are read outside, in topological order.
    pub outputs: Vec<NodeId>,
}

/// A cut of a graph into regions, in execution order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// Kernels.
    pub regions: Vec<Region>,
    /// Exceptions from [`default_precision`].
    pub precision: BTreeMap<NodeId, Precision>,
}

/// Storage as declared; narrow floats computed and summed in f32.
pub fn default_precision(dtype: DType) -> Precision {
    Precision { storage: dtype, compute: dtype.accumulator(), accumulate: dtype.accumulator() }
}

/// A partition does not fit its graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PartitionError {
    /// A region reads a value that no earlier region or leaf gives.
    #[error("region {region} reads %{value}, which no earlier region gives")]
    Order {
        /// Region index.
        region: usize,
        /// Node.
        value: u32,
    },
    /// A graph output is computed by no region.
    #[error("output %{0} is computed by no region")]
    Missing(u32),
}

impl Partition {
    /// Precision of a node's value.
    pub fn precision_of(&self, graph: &Graph, node: NodeId) -> Precision {
        self.precision.get(&node).copied().unwrap_or_else(|| default_precision(graph.dtype(node)))
    }

    /// Checks that regions in order compute every graph output from leaves.
    pub fn verify(&self, graph: &Graph) -> Result<(), PartitionError> {
        let mut ready = vec![false; graph.len()];
        for node in graph.ids() {
            ready[node.index()] = graph.op(node).is_leaf();
        }
        for (i, region) in self.regions.iter().enumerate() {
            let mut inside = vec![false; graph.len()];
            for &node in &region.nodes {
                for &operand in graph.operands(node) {
                    if !ready[operand.index()] && !inside[operand.index()] {
                        return Err(PartitionError::Order { region: i, value: operand.0 });
                    }
                }
                inside[node.index()] = true;
            }
            region.outputs.iter().for_each(|o| ready[o.index()] = true);
        }
        match graph.outputs().iter().find(|o| !ready[o.node.index()]) {
            Some(output) => Err(PartitionError::Missing(output.node.0)),
            None => Ok(()),
        }
    }
}
