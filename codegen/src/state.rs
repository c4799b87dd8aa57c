//! States: caches that a plan updates in place.
//!
//! A state is an input whose next value is an output of the form
//! concat(input, new). With a capacity, both are one buffer whose strides are
//! those of the capacity: the kernel that computes the output writes the new
//! part behind the old one, and nothing copies the cache.

use tgc_ir::dim::Dim;
use tgc_ir::graph::State;
use tgc_ir::kernel_program::Buffer;
use tgc_ir::{Graph, NodeId, Op};

/// A state that can be updated in place.
#[derive(Clone, Debug)]
pub struct InPlace<'a> {
    /// The pair.
    pub state: &'a State,
    /// The input.
    pub past: NodeId,
    /// The output: concat(past, new).
    pub present: NodeId,
    /// What is appended.
    pub new: NodeId,
    /// Growing axis.
    pub axis: usize,
    /// Greatest extent of that axis.
    pub capacity: &'a Dim,
}

/// Every state of a graph that has a capacity and the form of an append.
pub fn in_place(graph: &Graph) -> Vec<InPlace<'_>> {
    graph.states.iter().filter_map(|state| append(graph, state)).collect()
}

fn append<'a>(graph: &'a Graph, state: &'a State) -> Option<InPlace<'a>> {
    let capacity = state.capacity.as_ref()?;
    let past = *graph.inputs().get(state.input)?;
    let present = graph.outputs().get(state.output)?.node;
    let Op::Concat { axis } = graph.op(present) else { return None };
    let (axis, operands) = (usize::try_from(*axis).ok()?, graph.operands(present));
    let is_append = operands.len() == 2 && operands[0] == past && operands[1] != past;
    is_append.then(|| InPlace { state, past, present, new: operands[1], axis, capacity })
}

/// The state that a node is the input or the output of.
pub fn of_node(graph: &Graph, node: NodeId) -> Option<InPlace<'_>> {
    in_place(graph).into_iter().find(|s| s.past == node || s.present == node)
}

impl InPlace<'_> {
    /// Extents of the buffer.
    pub fn buffer_shape(&self, graph: &Graph) -> Vec<Dim> {
        let mut shape = graph.shape(self.past).to_vec();
        shape[self.axis] = self.capacity.clone();
        shape
    }

    /// Strides of the buffer.
    pub fn strides(&self, graph: &Graph) -> Vec<Dim> {
        Buffer::dense_strides(&self.buffer_shape(graph))
    }
}
