//! Domains: the iteration space on which the members of a region live.

use tgc_ir::dim::Dim;
use tgc_ir::{Graph, NodeId, TensorType};

/// A space, and the axes over which a region reduces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Domain {
    /// Extents.
    pub(crate) shape: Vec<Dim>,
    /// Reduced axes, ascending; empty for regions without reductions.
    pub(crate) axes: Vec<usize>,
    /// Takes no further members.
    pub(crate) is_closed: bool,
}

impl Domain {
    /// Every element of a value.
    pub(crate) fn whole(ty: &TensorType) -> Domain {
        Domain { shape: ty.shape.to_vec(), axes: Vec::new(), is_closed: false }
    }

    /// Every element, and nothing else may join.
    pub(crate) fn closed(ty: &TensorType) -> Domain {
        Domain { is_closed: true, ..Domain::whole(ty) }
    }

    /// Rows along reduced axes.
    pub(crate) fn rows(shape: &[Dim], axes: &[i64]) -> Domain {
        let axes = axes.iter().map(|&a| a as usize).collect();
        Domain { shape: shape.to_vec(), axes, is_closed: false }
    }

    /// Whether a node's value lives on the space: all of it, or one element
    /// per row.
    pub(crate) fn holds(&self, graph: &Graph, node: NodeId) -> bool {
        let shape = graph.shape(node);
        if self.is_closed || shape.len() != self.shape.len() {
            return false;
        }
        shape == self.shape.as_slice() || (!self.axes.is_empty() && self.is_row(shape))
    }

    /// Extents with the reduced axes at 1.
    pub(crate) fn is_row(&self, shape: &[Dim]) -> bool {
        shape
            .iter()
            .zip(&self.shape)
            .enumerate()
            .all(|(a, (have, full))| if self.axes.contains(&a) { have.is(1) } else { have == full })
    }
}
