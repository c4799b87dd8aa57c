//! Quantised operators, written out in integers and floats.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ReduceOp as R;
use tgc_ir::scalar::ScalarOp as S;

use super::conv_pool::{conv_of, shifted};
use super::linear::integer_matmul;
use super::norm::per_channel;
use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs};
use crate::tensors;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("QuantizeLinear", &[10, 13, 19, 21, 23, 24, 25, 28], quantize_linear),
    call("DequantizeLinear", &[10, 13, 19, 21, 23, 24, 25, 28], dequantize_linear),
    call("DynamicQuantizeLinear", &[11], dynamic_quantize_linear),
    call("MatMulInteger", &[10], matmul_integer),
    call("QLinearMatMul", &[10, 21], qlinear_matmul),
    call("QLinearConv", &[10], qlinear_conv),
];

/// A scale or zero point laid beside the data: one value, one per element of an axis, or one per block of an axis.
fn beside(cx: &mut Cx, p: NodeId, shape: &[Dim], axis: i64, block: i64) -> Result<NodeId, OpError> {
    let own = cx.shape(p);
    match own.len() {
        0 => Ok(p),
        1 if own[0].is(1) => cx.reshape(p, &[]),
        1 if block == 0 => {
            let axis = cx.axis(axis, shape.len())?;
            cx.require_equal(&own[0], &shape[axis])?;
            cx.along(p, axis, shape.len())
        }
        rank if rank == shape.len() => {
            let axis = cx.axis(axis, rank)?;
            let size = if block > 0 { Dim::Const(block) } else { shape[axis].ceil_div(&own[axis]) };
            let p = cx.unsqueeze(p, &[axis + 1])?;
            let mut wide = own.clone();
            wide.insert(axis + 1, size.clone());
            let p = cx.broadcast(p, &wide)?;
            let mut merged = own;
            merged[axis] = merged[axis].clone() * size;
            let p = cx.reshape(p, &merged)?;
            if merged[axis] == shape[axis] {
                Ok(p)
            } else {
                cx.slice(p, axis, Dim::ZERO, 1, shape[axis].clone())
            }
        }
        rank => Err(OpError::invalid(format!(
            "has a scale of rank {rank} for data of rank {}",
            shape.len()
        ))),
    }
}

/// `saturate(round(x / scale) + zero)` in the type of the quantised values.
fn quantize(
    cx: &mut Cx,
    x: NodeId,
    scale: NodeId,
    zero: Option<NodeId>,
    to: DType,
) -> Result<NodeId, OpError> {
    let ratio = cx.map(S::Div, &[x, scale])?;
    let wide = cx.node_dtype(ratio);
    if to.is_float() {
        let (low, high) = (cx.num(ratio, -to.max_value())?, cx.num(ratio, to.max_value())?);
        let ratio = cx.map(S::Max, &[ratio, low])?;
        let ratio = cx.map(S::Min, &[ratio, high])?;
        return cx.cast(ratio, to);
    }
    let mut q = cx.map(S::Round, &[ratio])?;
    if let Some(zero) = zero {
        let zero = cx.cast(zero, wide)?;
        q = cx.map(S::Add, &[q, zero])?;
    }
    let (low, high) = to.int_range();
    let (low, high) = (cx.num(q, low as f64)?, cx.num(q, high as f64)?);
    let q = cx.map(S::Max, &[q, low])?;
    let q = cx.map(S::Min, &[q, high])?;
    cx.cast(q, to)
}

/// `(x - zero) · scale` in the type of the scale.
fn dequantize(
    cx: &mut Cx,
    x: NodeId,
    scale: NodeId,
    zero: Option<NodeId>,
) -> Result<NodeId, OpError> {
    let wide = cx.node_dtype(scale);
    let mut x = cx.cast(x, wide)?;
    if let Some(zero) = zero {
        let zero = cx.cast(zero, wide)?;
        x = cx.map(S::Sub, &[x, zero])?;
    }
    cx.map(S::Mul, &[x, scale])
}

fn attribute_dtype(n: &Node, name: &str) -> Result<Option<DType>, OpError> {
    match n.attrs.int_or(name, 0)? {
        0 => Ok(None),
        code => Ok(Some(tensors::dtype(i32::try_from(code).unwrap_or(-1))?)),
    }
}

fn quantize_linear(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (mut x, scale) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let zero = n.opt_node(cx, 2)?;
    let to = match (zero, attribute_dtype(n, "output_dtype")?) {
        (Some(zero), _) => cx.node_dtype(zero),
        (None, declared) => declared.unwrap_or(DType::U8),
    };
    let (axis, block) = (n.attrs.int_or("axis", 1)?, n.attrs.int_or("block_size", 0)?);
    let shape = cx.shape(x);
    let mut scale = beside(cx, scale, &shape, axis, block)?;
    let zero = zero.map(|z| beside(cx, z, &shape, axis, block)).transpose()?;
    if let Some(precision) = attribute_dtype(n, "precision")? {
        (x, scale) = (cx.cast(x, precision)?, cx.cast(scale, precision)?);
    }
    if cx.node_dtype(x) != cx.node_dtype(scale) {
        (x, scale) = (cx.cast(x, DType::F32)?, cx.cast(scale, DType::F32)?);
    }
    one(quantize(cx, x, scale, zero, to)?)
}

fn dequantize_linear(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, scale) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let zero = n.opt_node(cx, 2)?;
    let (axis, block) = (n.attrs.int_or("axis", 1)?, n.attrs.int_or("block_size", 0)?);
    let shape = cx.shape(x);
    let scale = beside(cx, scale, &shape, axis, block)?;
    let zero = zero.map(|z| beside(cx, z, &shape, axis, block)).transpose()?;
    let y = dequantize(cx, x, scale, zero)?;
    match attribute_dtype(n, "output_dtype")? {
        Some(to) => one(cx.cast(y, to)?),
        None => one(y),
    }
}

/// Scale `(max - min) / 255` over a range that holds 0, zero point `round(-min / scale)`.
fn dynamic_quantize_linear(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let all: Vec<usize> = (0..cx.rank(x)).collect();
    let zero = cx.zero(x)?;
    let low = cx.reduce(R::Min, x, &all, false)?;
    let low = cx.map(S::Min, &[low, zero])?;
    let high = cx.reduce(R::Max, x, &all, false)?;
    let high = cx.map(S::Max, &[high, zero])?;
    let steps = cx.num(x, 255.0)?;
    let range = cx.map(S::Sub, &[high, low])?;
    let scale = cx.map(S::Div, &[range, steps])?;
    let offset = cx.map(S::Neg, &[low])?;
    let offset = cx.map(S::Div, &[offset, scale])?;
    let offset = cx.map(S::Round, &[offset])?;
    let offset = cx.map(S::Max, &[offset, zero])?;
    let offset = cx.map(S::Min, &[offset, steps])?;
    let offset = cx.cast(offset, DType::U8)?;
    let y = quantize(cx, x, scale, Some(offset), DType::U8)?;
    many(&[y, scale, offset])
}

/// A zero point of a matrix operand: per row of the left one, per column of the right one.
fn matrix_zero(
    cx: &mut Cx,
    zero: Option<NodeId>,
    rank: usize,
    is_left: bool,
) -> Result<Option<NodeId>, OpError> {
    let Some(zero) = zero else { return Ok(None) };
    let shape = cx.shape(zero);
    match shape.as_slice() {
        [] => Ok(Some(zero)),
        [d] if d.is(1) => Ok(Some(cx.reshape(zero, &[])?)),
        [_] if is_left && rank >= 2 => Ok(Some(cx.along(zero, rank - 2, rank)?)),
        [_] => Ok(Some(cx.along(zero, rank - 1, rank)?)),
        _ => Ok(Some(zero)),
    }
}

fn matmul_integer(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (a, b) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let (za, zb) = (n.opt_node(cx, 2)?, n.opt_node(cx, 3)?);
    let za = matrix_zero(cx, za, cx.rank(a), true)?;
    let zb = matrix_zero(cx, zb, cx.rank(b), false)?;
    let (a, b) = (shifted(cx, a, za)?, shifted(cx, b, zb)?);
    one(integer_matmul(cx, a, b)?)
}

/// `acc · (scale_a · scale_b)` quantised to the output's scale and zero point.
fn requantize(
    cx: &mut Cx,
    acc: NodeId,
    [a, b]: [NodeId; 2],
    scale: NodeId,
    zero: NodeId,
) -> Result<NodeId, OpError> {
    let to = cx.node_dtype(zero);
    let (a, b) = (cx.cast(a, DType::F32)?, cx.cast(b, DType::F32)?);
    let product = cx.map(S::Mul, &[a, b])?;
    let acc = cx.cast(acc, DType::F32)?;
    let real = cx.map(S::Mul, &[acc, product])?;
    let scale = cx.cast(scale, DType::F32)?;
    quantize(cx, real, scale, Some(zero), to)
}

fn qlinear_matmul(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let ops: Vec<NodeId> = (0..8).map(|i| n.node(cx, i)).collect::<Result<_, _>>()?;
    let (a, b) = (ops[0], ops[3]);
    let (ra, rb) = (cx.rank(a), cx.rank(b));
    let za = matrix_zero(cx, Some(ops[2]), ra, true)?;
    let zb = matrix_zero(cx, Some(ops[5]), rb, false)?;
    let sa = matrix_zero(cx, Some(ops[1]), ra, true)?.unwrap_or(ops[1]);
    let sb = matrix_zero(cx, Some(ops[4]), rb, false)?.unwrap_or(ops[4]);
    let (a, b) = (shifted(cx, a, za)?, shifted(cx, b, zb)?);
    let acc = integer_matmul(cx, a, b)?;
    let rank = cx.rank(acc);
    let sy = matrix_zero(cx, Some(ops[6]), rank, true)?.unwrap_or(ops[6]);
    let zy = matrix_zero(cx, Some(ops[7]), rank, true)?.unwrap_or(ops[7]);
    one(requantize(cx, acc, [sa, sb], sy, zy)?)
}

fn qlinear_conv(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let ops: Vec<NodeId> = (0..8).map(|i| n.node(cx, i)).collect::<Result<_, _>>()?;
    let (x, w) = (ops[0], ops[3]);
    let rank = cx.rank(x);
    let zx = cx.reshape(ops[2], &[])?;
    let zw = match cx.rank(ops[5]) {
        1 => cx.along(ops[5], 0, rank)?,
        _ => ops[5],
    };
    let (x, w) = (shifted(cx, x, Some(zx))?, shifted(cx, w, Some(zw))?);
    let mut acc = conv_of(cx, n, x, w)?;
    if let Some(bias) = n.opt_node(cx, 8)? {
        let bias = per_channel(cx, bias, rank)?;
        acc = cx.map(S::Add, &[acc, bias])?;
    }
    let scalar = |cx: &mut Cx, p: NodeId| cx.reshape(p, &[]);
    let sx = scalar(cx, ops[1])?;
    let sw = per_channel(cx, ops[4], rank)?;
    let (sy, zy) = (scalar(cx, ops[6])?, scalar(cx, ops[7])?);
    one(requantize(cx, acc, [sx, sw], sy, zy)?)
}

/// Dequantise, compute in f32, quantise again: the meaning of the QLinear operators of com.microsoft.
pub(crate) fn through_floats(
    cx: &mut Cx,
    operands: &[[NodeId; 3]],
    out: [NodeId; 2],
    compute: impl FnOnce(&mut Cx, &[NodeId]) -> Result<NodeId, OpError>,
) -> Result<Outputs, OpError> {
    let mut real = Vec::new();
    for &[x, scale, zero] in operands {
        let (scale, zero) = (cx.reshape(scale, &[])?, cx.reshape(zero, &[])?);
        real.push(dequantize(cx, x, scale, Some(zero))?);
    }
    let y = compute(cx, &real)?;
    let [scale, zero] = out;
    let (scale, zero) = (cx.reshape(scale, &[])?, cx.reshape(zero, &[])?);
    let to = cx.node_dtype(zero);
    one(quantize(cx, y, scale, Some(zero), to)?)
}
