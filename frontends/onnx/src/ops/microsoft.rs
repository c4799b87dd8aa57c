//! Operators of the domain `com.microsoft` that onnxruntime's quantiser writes.

use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::scalar::ScalarOp as S;

use super::quant::through_floats;
use super::{Lower, OnnxOp, one};
use crate::cx::{Cx, Node, OpError, Outputs};
use crate::ops::conv_pool::shifted;
use crate::ops::linear::integer_matmul;

const fn microsoft(
    name: &'static str,
    lower: fn(&mut Cx, &Node) -> Result<Outputs, OpError>,
) -> OnnxOp {
    OnnxOp { domain: "com.microsoft", name, since: &[1], lower: Lower::Call(lower) }
}

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    microsoft("QLinearAdd", |cx, n| binary(cx, n, S::Add)),
    microsoft("QLinearMul", |cx, n| binary(cx, n, S::Mul)),
    microsoft("QLinearGlobalAveragePool", global_average_pool),
    microsoft("QGemm", qgemm),
];

fn operands(cx: &mut Cx, n: &Node, count: usize) -> Result<Vec<NodeId>, OpError> {
    (0..count).map(|i| n.node(cx, i)).collect()
}

fn binary(cx: &mut Cx, n: &Node, op: S) -> Result<Outputs, OpError> {
    let o = operands(cx, n, 8)?;
    through_floats(cx, &[[o[0], o[1], o[2]], [o[3], o[4], o[5]]], [o[6], o[7]], |cx, x| {
        cx.map(op, x)
    })
}

fn global_average_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    if n.attrs.flag("channels_last", false)? {
        return Err(OpError::unsupported("with channels_last is not supported"));
    }
    let o = operands(cx, n, 5)?;
    let axes: Vec<usize> = (2..cx.rank(o[0])).collect();
    through_floats(cx, &[[o[0], o[1], o[2]]], [o[3], o[4]], |cx, x| cx.mean(x[0], &axes))
}

/// A Gemm of quantised operands with an i32 bias; without output scale the result is f32.
fn qgemm(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let o = operands(cx, n, 6)?;
    if n.attrs.float_or("alpha", 1.0)? != 1.0 {
        return Err(OpError::unsupported("with alpha other than 1 is not supported"));
    }
    let scalar = |cx: &mut Cx, p: NodeId| {
        if cx.shape(p).iter().all(|d| d.is(1)) { cx.reshape(p, &[]) } else { Ok(p) }
    };
    let (za, zb) = (scalar(cx, o[2])?, scalar(cx, o[5])?);
    let (mut a, mut b) = (shifted(cx, o[0], Some(za))?, o[3]);
    if n.attrs.flag("transA", false)? {
        a = cx.permute(a, &[1, 0])?;
    }
    if n.attrs.flag("transB", false)? {
        b = cx.permute(b, &[1, 0])?;
    }
    let b = shifted(cx, b, Some(zb))?;
    let mut acc = integer_matmul(cx, a, b)?;
    if let Some(bias) = n.opt_node(cx, 6)? {
        acc = cx.map(S::Add, &[acc, bias])?;
    }
    let (sa, sb) = (scalar(cx, o[1])?, scalar(cx, o[4])?);
    let product = cx.map(S::Mul, &[sa, sb])?;
    let real = cx.cast(acc, DType::F32)?;
    let real = cx.map(S::Mul, &[real, product])?;
    match (n.opt_node(cx, 7)?, n.opt_node(cx, 8)?) {
        (Some(scale), Some(zero)) => {
            let (unit, none) = (cx.splat(1.0, DType::F32)?, cx.splat(0.0, DType::F32)?);
            through_floats(cx, &[[real, unit, none]], [scale, zero], |_, x| Ok(x[0]))
        }
        _ => one(real),
    }
}
