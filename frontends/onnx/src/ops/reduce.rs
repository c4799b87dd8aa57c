//! Reductions and running sums.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ReduceOp as R;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;

use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs};
use crate::known::Known;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("ReduceSum", &[1, 11, 13], |cx, n| plain(cx, n, R::Sum, S::Add)),
    call("ReduceProd", &[1, 11, 13, 18], |cx, n| plain(cx, n, R::Prod, S::Mul)),
    call("ReduceMax", &[1, 11, 12, 13, 18, 20], |cx, n| plain(cx, n, R::Max, S::Max)),
    call("ReduceMin", &[1, 11, 12, 13, 18, 20], |cx, n| plain(cx, n, R::Min, S::Min)),
    call("ReduceMean", &[1, 11, 13, 18], reduce_mean),
    call("ReduceL1", &[1, 11, 13, 18], reduce_l1),
    call("ReduceL2", &[1, 11, 13, 18], reduce_l2),
    call("ReduceSumSquare", &[1, 11, 13, 18], reduce_sum_square),
    call("ReduceLogSum", &[1, 11, 13, 18, 28], reduce_log_sum),
    call("ReduceLogSumExp", &[1, 11, 13, 18, 28], reduce_log_sum_exp),
    call("ArgMax", &[1, 11, 12, 13], |cx, n| arg(cx, n, R::ArgMax, R::ArgMaxLast)),
    call("ArgMin", &[1, 11, 12, 13], |cx, n| arg(cx, n, R::ArgMin, R::ArgMinLast)),
    call("CumSum", &[11, 14], |cx, n| cumulative(cx, n, R::Sum)),
    call("CumProd", &[26], |cx, n| cumulative(cx, n, R::Prod)),
];

/// The axes of a reduction; `None` means that nothing is reduced.
fn axes_of(cx: &mut Cx, n: &Node, rank: usize) -> Result<Option<Vec<usize>>, OpError> {
    let given = cx.opt_ints(n, 1, "the axes")?.unwrap_or_default();
    if !given.is_empty() {
        let mut axes = cx.axes(&given, rank)?;
        axes.sort_unstable();
        return Ok(Some(axes));
    }
    let nothing = n.attrs.flag("noop_with_empty_axes", false)?;
    Ok((!nothing).then(|| (0..rank).collect()))
}

/// Reduces operand 0 as the node says, after `before` and followed by `after`.
fn reduce_with(
    cx: &mut Cx,
    n: &Node,
    op: R,
    before: impl FnOnce(&mut Cx, NodeId) -> Result<NodeId, OpError>,
    after: impl FnOnce(&mut Cx, NodeId, &Dim) -> Result<NodeId, OpError>,
) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let keep = n.attrs.flag("keepdims", true)?;
    let axes = axes_of(cx, n, shape.len())?;
    let inner = before(cx, x)?;
    let (out, count) = match axes {
        Some(axes) => {
            let count = Dim::product(axes.iter().map(|&a| &shape[a]));
            (cx.reduce(op, inner, &axes, keep)?, count)
        }
        None => (inner, Dim::ONE),
    };
    one(after(cx, out, &count)?)
}

fn plain(cx: &mut Cx, n: &Node, op: R, step: S) -> Result<Outputs, OpError> {
    if let Some(known) = reduce_known(cx, n, step)? {
        return one(known);
    }
    let data = n.val(0)?;
    if cx.dtype(&data)? == DType::Bool {
        let op = if op == R::Max { R::Any } else { R::All };
        return reduce_with(cx, n, op, |_, x| Ok(x), |_, x, _| Ok(x));
    }
    reduce_with(cx, n, op, |_, x| Ok(x), |_, x, _| Ok(x))
}

/// Reductions of shape arithmetic: a known vector over its only axis.
fn reduce_known(cx: &mut Cx, n: &Node, step: S) -> Result<Option<Known>, OpError> {
    let Some(known) = cx.known(&n.val(0)?) else { return Ok(None) };
    if known.shape.len() != 1 || known.elems.is_empty() || known.dtype == DType::Bool {
        return Ok(None);
    }
    if axes_of(cx, n, 1)?.is_none() {
        return Ok(None);
    }
    let shape = if n.attrs.flag("keepdims", true)? { vec![1] } else { vec![] };
    let part = |i: usize| Known {
        dtype: known.dtype,
        shape: shape.clone(),
        elems: vec![known.elems[i].clone()],
    };
    let mut total = part(0);
    for i in 1..known.elems.len() {
        match Known::pointwise(step, &[&total, &part(i)], &cx.prover()) {
            Some(next) => total = next,
            None => return Ok(None),
        }
    }
    Ok(Some(total))
}

fn reduce_mean(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    reduce_with(cx, n, R::Sum, |_, x| Ok(x), |cx, x, count| cx.divide_by(x, count))
}

fn reduce_l1(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    reduce_with(cx, n, R::Sum, |cx, x| cx.map(S::Abs, &[x]), |_, x, _| Ok(x))
}

fn square(cx: &mut Cx, x: NodeId) -> Result<NodeId, OpError> {
    cx.map(S::Mul, &[x, x])
}

/// The root is taken in a float type and rounded back for integers.
fn reduce_l2(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let root = |cx: &mut Cx, x: NodeId, _: &Dim| {
        let dtype = cx.node_dtype(x);
        if dtype.is_float() {
            return cx.map(S::Sqrt, &[x]);
        }
        let wide = cx.cast(x, DType::F64)?;
        let root = cx.map(S::Sqrt, &[wide])?;
        cx.cast(root, dtype)
    };
    reduce_with(cx, n, R::Sum, square, root)
}

fn reduce_sum_square(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    reduce_with(cx, n, R::Sum, square, |_, x, _| Ok(x))
}

fn reduce_log_sum(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    reduce_with(cx, n, R::Sum, |_, x| Ok(x), |cx, x, _| cx.map(S::Log, &[x]))
}

/// `m + log(sum(exp(x - m)))` with the greatest `m`; an infinite `m` stands for itself.
fn reduce_log_sum_exp(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let Some(axes) = axes_of(cx, n, cx.rank(x))? else { return one(x) };
    let greatest = cx.reduce(R::Max, x, &axes, true)?;
    let zero = cx.num(x, 0.0)?;
    let infinite = cx.map(S::IsInf, &[greatest])?;
    let shift = cx.map(S::Select, &[infinite, zero, greatest])?;
    let inner = cx.map(S::Sub, &[x, shift])?;
    let inner = cx.map(S::Exp, &[inner])?;
    let total = cx.reduce(R::Sum, inner, &axes, true)?;
    let out = cx.map(S::Log, &[total])?;
    let out = cx.map(S::Add, &[out, shift])?;
    if n.attrs.flag("keepdims", true)? { one(out) } else { one(cx.squeeze(out, &axes)?) }
}

fn arg(cx: &mut Cx, n: &Node, first: R, last: R) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axis = cx.axis(n.attrs.int_or("axis", 0)?, cx.rank(x))?;
    let op = if n.attrs.flag("select_last_index", false)? { last } else { first };
    one(cx.reduce(op, x, &[axis], n.attrs.flag("keepdims", true)?)?)
}

fn cumulative(cx: &mut Cx, n: &Node, op: R) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axis = cx
        .ints(n, 1, "the axis")?
        .first()
        .copied()
        .ok_or_else(|| OpError::invalid("has no axis"))?;
    let axis = cx.axis(axis, cx.rank(x))? as i64;
    let (exclusive, reverse) = (n.attrs.flag("exclusive", false)?, n.attrs.flag("reverse", false)?);
    one(cx.emit(Op::Scan { op, axis, exclusive, reverse }, &[x])?)
}
