//! Softmax and normalisations, as composites of the IR where it has them.

use tgc_ir::attr::Attr;
use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::{PoolDivisor, ReduceOp as R, ScalarConst};
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;
use tgc_ir::spec::PoolSpec;

use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("Softmax", &[1, 11, 13], |cx, n| softmax_like(cx, n, "softmax")),
    call("LogSoftmax", &[1, 11, 13], |cx, n| softmax_like(cx, n, "log_softmax")),
    call("Hardmax", &[1, 11, 13], hardmax),
    call("LayerNormalization", &[17], layer_normalization),
    call("RMSNormalization", &[23], rms_normalization),
    call("InstanceNormalization", &[1, 6, 22], instance_normalization),
    call("GroupNormalization", &[18, 21], group_normalization),
    call("BatchNormalization", &[1, 6, 7, 9, 14, 15], batch_normalization),
    call("MeanVarianceNormalization", &[9, 13], mean_variance_normalization),
    call("LpNormalization", &[1, 22], lp_normalization),
    call("LRN", &[1, 13], lrn),
];

pub(crate) fn axes_attr(axes: &[usize]) -> Attr {
    Attr::Ints(axes.iter().map(|&a| a as i64).collect())
}

fn const_attr(value: f64) -> Attr {
    Attr::Const(ScalarConst::float(value))
}

/// The axes a softmax runs over: one, or before opset 13 all from the axis on.
fn softmax_axes(cx: &Cx, n: &Node, rank: usize) -> Result<Vec<usize>, OpError> {
    if n.version >= 13 {
        return Ok(vec![cx.axis(n.attrs.int_or("axis", -1)?, rank)?]);
    }
    let axis = cx.split_point(n.attrs.int_or("axis", 1)?, rank)?;
    Ok((axis..rank).collect())
}

fn softmax_like(cx: &mut Cx, n: &Node, name: &str) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axes = softmax_axes(cx, n, cx.rank(x))?;
    one(cx.composite(name, &[x], &[axes_attr(&axes)])?)
}

/// 1 at the first greatest element of each row.
fn hardmax(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let axes = softmax_axes(cx, n, shape.len())?;
    let Some(&first) = axes.first() else {
        return Err(OpError::invalid("has no axis to run over"));
    };
    let split = if axes.len() == 1 { first + 1 } else { shape.len() };
    let mut flat = shape[..first].to_vec();
    flat.push(Dim::product(&shape[first..split]));
    flat.extend_from_slice(&shape[split..]);
    let rows = cx.reshape(x, &flat)?;
    let hit = cx.reduce(R::ArgMax, rows, &[first], true)?;
    let at = cx.iota(&flat[first], DType::I64)?;
    let at = cx.along(at, first, flat.len())?;
    let hit = cx.map(S::Eq, &[at, hit])?;
    let dtype = cx.node_dtype(x);
    let out = cx.cast(hit, dtype)?;
    one(cx.reshape(out, &shape)?)
}

/// Scale or bias of rank at most `rank`, aligned at the last axis.
fn aligned(cx: &mut Cx, x: NodeId, rank: usize) -> Result<NodeId, OpError> {
    Ok(cx.graph.raise_rank(x, rank)?)
}

/// Mean and 1/deviation in the type of the statistics, kept with extent 1.
fn statistics(
    cx: &mut Cx,
    x: NodeId,
    axes: &[usize],
    eps: f64,
) -> Result<(NodeId, NodeId), OpError> {
    let wide = cx.node_dtype(x).accumulator();
    let x = cx.cast(x, wide)?;
    let mean = cx.mean(x, axes)?;
    let d = cx.map(S::Sub, &[x, mean])?;
    let square = cx.map(S::Mul, &[d, d])?;
    let variance = cx.mean(square, axes)?;
    let eps = cx.num(variance, eps)?;
    let guarded = cx.map(S::Add, &[variance, eps])?;
    Ok((mean, cx.map(S::Rsqrt, &[guarded])?))
}

fn layer_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let rank = cx.rank(x);
    let first = cx.axis(n.attrs.int_or("axis", -1)?, rank)?;
    let axes: Vec<usize> = (first..rank).collect();
    let eps = n.attrs.float_or("epsilon", 1e-5)?;
    let scale = n.node(cx, 1)?;
    let scale = aligned(cx, scale, rank)?;
    let attrs = [axes_attr(&axes), const_attr(eps)];
    let y = match n.opt_node(cx, 2)? {
        Some(bias) => {
            let bias = aligned(cx, bias, rank)?;
            cx.composite("layer_norm", &[x, scale, bias], &attrs)?
        }
        None => {
            let unit = cx.composite("normalize", &[x], &attrs)?;
            cx.map(S::Mul, &[unit, scale])?
        }
    };
    if !n.wants(1) && !n.wants(2) {
        return one(y);
    }
    let (mean, deviation) = statistics(cx, x, &axes, eps)?;
    many(&[y, mean, deviation])
}

fn rms_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let rank = cx.rank(x);
    let first = cx.axis(n.attrs.int_or("axis", -1)?, rank)?;
    let axes: Vec<usize> = (first..rank).collect();
    let eps = n.attrs.float_or("epsilon", 1e-5)?;
    let scale = n.node(cx, 1)?;
    let scale = aligned(cx, scale, rank)?;
    one(cx.composite("rms_norm", &[x, scale], &[axes_attr(&axes), const_attr(eps)])?)
}

/// A value per channel laid along axis 1.
pub(crate) fn per_channel(cx: &mut Cx, x: NodeId, rank: usize) -> Result<NodeId, OpError> {
    if cx.rank(x) == 1 && rank > 1 { cx.along(x, 1, rank) } else { Ok(x) }
}

fn instance_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let rank = cx.rank(x);
    if rank < 2 {
        return Err(OpError::invalid("takes data of rank 2 or more"));
    }
    let axes: Vec<usize> = (2..rank).collect();
    let (scale, bias) = (n.node(cx, 1)?, n.node(cx, 2)?);
    let (scale, bias) = (per_channel(cx, scale, rank)?, per_channel(cx, bias, rank)?);
    let attrs = [axes_attr(&axes), const_attr(n.attrs.float_or("epsilon", 1e-5)?)];
    one(cx.composite("layer_norm", &[x, scale, bias], &attrs)?)
}

/// Scale and bias are per channel from version 21 on, per group in version 18.
fn group_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    if shape.len() < 2 {
        return Err(OpError::invalid("takes data of rank 2 or more"));
    }
    let groups = n.attrs.required_int("num_groups")?;
    if groups < 1 {
        return Err(OpError::invalid(format!("has num_groups {groups}")));
    }
    let groups = Dim::Const(groups);
    let per_group = shape[1].floor_div(&groups);
    let mut split = vec![shape[0].clone(), groups, per_group];
    split.extend_from_slice(&shape[2..]);
    let rank = split.len();
    let grouped = cx.reshape(x, &split)?;
    let axes: Vec<usize> = (2..rank).collect();
    let attrs = [axes_attr(&axes), const_attr(n.attrs.float_or("epsilon", 1e-5)?)];
    let unit = cx.composite("normalize", &[grouped], &attrs)?;
    let (scale, bias) = (n.node(cx, 1)?, n.node(cx, 2)?);
    if n.version >= 21 {
        let unit = cx.reshape(unit, &shape)?;
        let (scale, bias) =
            (per_channel(cx, scale, shape.len())?, per_channel(cx, bias, shape.len())?);
        let out = cx.map(S::Mul, &[unit, scale])?;
        return one(cx.map(S::Add, &[out, bias])?);
    }
    let (scale, bias) = (per_channel(cx, scale, rank)?, per_channel(cx, bias, rank)?);
    let out = cx.map(S::Mul, &[unit, scale])?;
    let out = cx.map(S::Add, &[out, bias])?;
    one(cx.reshape(out, &shape)?)
}

/// `x · a + b` with `a = scale / sqrt(var + eps)` and `b = bias - mean · a`, which fold into a convolution before it.
fn batch_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let rank = cx.rank(x);
    let eps = n.attrs.float_or("epsilon", 1e-5)?;
    let (scale, bias, mean, var) = (n.node(cx, 1)?, n.node(cx, 2)?, n.node(cx, 3)?, n.node(cx, 4)?);
    let training = if n.version >= 14 { n.attrs.flag("training_mode", false)? } else { false };
    if !training {
        return one(scale_and_shift(cx, x, [scale, bias, mean, var], eps, rank)?);
    }
    let momentum = n.attrs.float_or("momentum", 0.9)?;
    let axes: Vec<usize> = (0..rank).filter(|&a| a != 1).collect();
    let batch_mean = cx.mean(x, &axes)?;
    let d = cx.map(S::Sub, &[x, batch_mean])?;
    let square = cx.map(S::Mul, &[d, d])?;
    let batch_var = cx.mean(square, &axes)?;
    let batch_mean = cx.squeeze(batch_mean, &axes)?;
    let batch_var = cx.squeeze(batch_var, &axes)?;
    let y = scale_and_shift(cx, x, [scale, bias, batch_mean, batch_var], eps, rank)?;
    let mut running = |old: NodeId, new: NodeId| {
        let (keep, take) = (cx.num(old, momentum)?, cx.num(old, 1.0 - momentum)?);
        let old = cx.map(S::Mul, &[old, keep])?;
        let new = cx.map(S::Mul, &[new, take])?;
        cx.map(S::Add, &[old, new])
    };
    let (mean, var) = (running(mean, batch_mean)?, running(var, batch_var)?);
    many(&[y, mean, var])
}

fn scale_and_shift(
    cx: &mut Cx,
    x: NodeId,
    [scale, bias, mean, var]: [NodeId; 4],
    eps: f64,
    rank: usize,
) -> Result<NodeId, OpError> {
    let eps = cx.num(var, eps)?;
    let guarded = cx.map(S::Add, &[var, eps])?;
    let inverse = cx.map(S::Rsqrt, &[guarded])?;
    let dtype = cx.node_dtype(x);
    let inverse = cx.cast(inverse, dtype)?;
    let a = cx.map(S::Mul, &[scale, inverse])?;
    let mean = cx.cast(mean, dtype)?;
    let shift = cx.map(S::Mul, &[mean, a])?;
    let b = cx.map(S::Sub, &[bias, shift])?;
    let (a, b) = (per_channel(cx, a, rank)?, per_channel(cx, b, rank)?);
    let out = cx.map(S::Mul, &[x, a])?;
    cx.map(S::Add, &[out, b])
}

/// `(x - mean) / (deviation + 1e-9)`.
fn mean_variance_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axes = cx.axes(n.attrs.ints("axes")?.unwrap_or(&[0, 2, 3]), cx.rank(x))?;
    let mean = cx.mean(x, &axes)?;
    let d = cx.map(S::Sub, &[x, mean])?;
    let square = cx.map(S::Mul, &[d, d])?;
    let variance = cx.mean(square, &axes)?;
    let deviation = cx.map(S::Sqrt, &[variance])?;
    let eps = cx.num(x, 1e-9)?;
    let deviation = cx.map(S::Add, &[deviation, eps])?;
    one(cx.map(S::Div, &[d, deviation])?)
}

/// A row of norm 0 stays 0.
fn lp_normalization(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axis = cx.axis(n.attrs.int_or("axis", -1)?, cx.rank(x))?;
    let norm = match n.attrs.int_or("p", 2)? {
        1 => {
            let size = cx.map(S::Abs, &[x])?;
            cx.reduce(R::Sum, size, &[axis], true)?
        }
        2 => {
            let square = cx.map(S::Mul, &[x, x])?;
            let total = cx.reduce(R::Sum, square, &[axis], true)?;
            cx.map(S::Sqrt, &[total])?
        }
        p => return Err(OpError::invalid(format!("has p {p}; allowed are 1 and 2"))),
    };
    let zero = cx.zero(x)?;
    let unit = cx.num(x, 1.0)?;
    let empty = cx.map(S::Eq, &[norm, zero])?;
    let norm = cx.map(S::Select, &[empty, unit, norm])?;
    one(cx.map(S::Div, &[x, norm])?)
}

/// Squares are summed over a window of channels: a pooling with the channels as rows.
fn lrn(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let size = n.attrs.required_int("size")?;
    if shape.len() < 2 || size < 1 {
        return Err(OpError::invalid(format!(
            "takes data of rank 2 or more and a positive size, not {size}"
        )));
    }
    let square = cx.map(S::Mul, &[x, x])?;
    let image = [shape[0].clone(), Dim::ONE, shape[1].clone(), Dim::product(&shape[2..])];
    let square = cx.reshape(square, &image)?;
    let spec = PoolSpec {
        op: R::Sum,
        divisor: PoolDivisor::One,
        kernel: vec![size, 1],
        stride: vec![1, 1],
        dilation: vec![1, 1],
        pad_low: vec![Dim::Const((size - 1) / 2), Dim::ZERO],
        pad_high: vec![Dim::Const(size - 1 - (size - 1) / 2), Dim::ZERO],
        ceil: false,
    };
    let sums = cx.emit(Op::Pool { spec: spec.into() }, &[square])?;
    let sums = cx.reshape(sums, &shape)?;
    let factor = cx.num(x, n.attrs.float_or("alpha", 1e-4)? / size as f64)?;
    let bias = cx.num(x, n.attrs.float_or("bias", 1.0)?)?;
    let beta = cx.num(x, n.attrs.float_or("beta", 0.75)?)?;
    let base = cx.map(S::Mul, &[sums, factor])?;
    let base = cx.map(S::Add, &[base, bias])?;
    let base = cx.map(S::Pow, &[base, beta])?;
    one(cx.map(S::Div, &[x, base])?)
}
