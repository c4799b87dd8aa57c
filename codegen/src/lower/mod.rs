//! `lower`: a region becomes a kernel program.
//!
//! The region's anchor fixes the structure; every slot body is emitted from
//! the graph by asking for a node's value at an index. Views, padding,
//! concatenation and gathers become index arithmetic here, simplified by what
//! is known of the axes.

mod anchors;
mod emit;

use tgc_ir::kernel_program::{Access, Buffer, KernelProgram};
use tgc_ir::partition::Region;
use tgc_ir::plan::HostOp;
use tgc_ir::{Graph, NodeId, Op};

use crate::CodegenError;
use crate::layout::Layout;

/// A region as something that can run.
#[derive(Clone, Debug)]
pub enum Lowered {
    /// A kernel, and the node behind each of its buffers.
    Kernel {
        /// Structure and bodies.
        program: Box<KernelProgram>,
        /// Values read or written, one per buffer.
        arguments: Vec<NodeId>,
    },
    /// Work for the host.
    Host {
        /// What.
        op: HostOp,
        /// Values read.
        inputs: Vec<NodeId>,
        /// Results in order; absent ones are read by nobody.
        outputs: Vec<Option<NodeId>>,
        /// Symbol of the count.
        count: tgc_ir::Symbol,
    },
}

/// The buffers of a kernel under construction.
pub(crate) struct Arguments<'a> {
    pub(crate) graph: &'a Graph,
    layout: &'a dyn Layout,
    pub(crate) buffers: Vec<Buffer>,
    pub(crate) nodes: Vec<NodeId>,
}

impl Arguments<'_> {
    /// Axes of a value from the slowest to the fastest in memory.
    pub(crate) fn order(&self, node: NodeId) -> Vec<usize> {
        self.layout.order(node)
    }

    /// The buffer that holds a value, added at first use.
    pub(crate) fn buffer(&mut self, node: NodeId, access: Access) -> u32 {
        if let Some(at) = self.nodes.iter().position(|n| *n == node) {
            if access != Access::Read && self.buffers[at].access == Access::Read {
                self.buffers[at].access = Access::ReadWrite;
            }
            return at as u32;
        }
        let ty = self.graph.ty(node);
        self.buffers.push(Buffer {
            access,
            dtype: ty.dtype,
            shape: ty.shape.to_vec(),
            strides: self.layout.strides(node),
            constant: matches!(self.graph.op(node), Op::Weight { .. } | Op::Constant { .. }),
        });
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }
}

/// Lowers one region.
pub fn lower(graph: &Graph, region: &Region, layout: &dyn Layout) -> Result<Lowered, CodegenError> {
    if let Some(host) = host_step(graph, region) {
        return Ok(host);
    }
    let arguments = Arguments { graph, layout, buffers: Vec::new(), nodes: Vec::new() };
    let mut lowering = anchors::Lowering { graph, region, arguments };
    let anchor = lowering.anchor()?;
    let program =
        KernelProgram { name: String::new(), buffers: lowering.arguments.buffers, anchor };
    let mut arguments = lowering.arguments.nodes;
    let mut program = Box::new(program);
    order_buffers(&mut program, &mut arguments);
    Ok(Lowered::Kernel { program, arguments })
}

fn host_step(graph: &Graph, region: &Region) -> Option<Lowered> {
    let anchor = region.anchor?;
    let (op, count) = match graph.op(anchor) {
        Op::NonZero { count } => (HostOp::NonZero, count),
        Op::Nms { center_point, count } => {
            (HostOp::NonMaxSuppression { center_point: *center_point }, count)
        }
        Op::Unique { axis, sorted, count } => {
            (HostOp::Unique { axis: u32::try_from(*axis).ok(), sorted: *sorted }, count)
        }
        _ => return None,
    };
    let outputs = if graph.op(anchor).is_tuple() {
        (0..graph.types(anchor).len() as i64)
            .map(|i| {
                region
                    .outputs
                    .iter()
                    .copied()
                    .find(|o| matches!(graph.op(*o), Op::Proj { index } if *index == i))
            })
            .collect()
    } else {
        vec![Some(anchor)]
    };
    Some(Lowered::Host {
        op,
        inputs: graph.operands(anchor).to_vec(),
        outputs,
        count: count.clone(),
    })
}

/// Inputs first, then outputs, each in order of first use.
fn order_buffers(program: &mut KernelProgram, arguments: &mut Vec<NodeId>) {
    let mut order: Vec<u32> = (0..program.buffers.len() as u32).collect();
    order.sort_by_key(|i| program.buffers[*i as usize].access != Access::Read);
    let mut place = vec![0u32; order.len()];
    order.iter().enumerate().for_each(|(new, old)| place[*old as usize] = new as u32);
    program.buffers = order.iter().map(|i| program.buffers[*i as usize].clone()).collect();
    *arguments = order.iter().map(|i| arguments[*i as usize]).collect();
    program.map_buffers(&|b| place[b as usize]);
}
