//! Literals in memory: where a value without operands must be read through a
//! buffer, a kernel writes it.

use tgc_ir::dim::Dim;
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer, Epilogue, InstKind, KernelProgram, Loops, Store, axis,
};
use tgc_ir::{Graph, NodeId, Op};

/// Whether a value is in memory only when a kernel of its own writes it.
pub(super) fn is_needed(graph: &Graph, node: NodeId) -> bool {
    matches!(graph.op(node), Op::Splat { .. } | Op::Iota { .. } | Op::DimValue { .. })
}

/// A kernel that writes a literal, iota or dim to a buffer.
pub(super) fn kernel(graph: &Graph, node: NodeId, strides: Vec<Dim>) -> KernelProgram {
    let ty = graph.ty(node);
    let mut body = Body::default();
    let value = match graph.op(node) {
        Op::Splat { value, dtype } => {
            let compute = dtype.accumulator();
            let value = body.push(compute, InstKind::Const(*value));
            if compute == *dtype { value } else { body.push(*dtype, InstKind::Cast(value)) }
        }
        Op::DimValue { value } => body.push(ty.dtype, InstKind::Index(value.clone())),
        _ => body.push(ty.dtype, InstKind::Index(axis(0))),
    };
    let shape = ty.shape.to_vec();
    let index = (0..shape.len()).map(axis).collect();
    KernelProgram {
        name: String::new(),
        buffers: vec![Buffer {
            access: Access::Write,
            dtype: ty.dtype,
            shape: shape.clone(),
            strides,
            constant: false,
        }],
        anchor: Anchor::Loops(Loops {
            extents: shape,
            epilogue: Epilogue { body, stores: vec![Store { buffer: 0, index, value }] },
        }),
    }
}
