//! Window functions and Fourier transforms of known length.

use std::f64::consts::PI;

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::scalar::{ScalarOp as S, Value};
use tgc_ir::tensor::Tensor;

use super::linear::{Labelled, Labels, contract};
use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs};
use crate::tensors;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("HannWindow", &[17], |cx, n| window(cx, n, &[0.5, -0.5])),
    call("HammingWindow", &[17], |cx, n| window(cx, n, &[25.0 / 46.0, -21.0 / 46.0])),
    call("BlackmanWindow", &[17], |cx, n| window(cx, n, &[0.42, -0.5, 0.08])),
    call("DFT", &[17, 20], dft),
    call("STFT", &[17], stft),
];

/// Elements that the matrix of a transform may have.
const MATRIX_MAX: i64 = 1 << 24;

/// The first number of an operand.
fn scalar(cx: &Cx, n: &Node, i: usize, what: &'static str) -> Result<i64, OpError> {
    cx.ints(n, i, what)?.first().copied().ok_or_else(|| OpError::invalid(format!("has no {what}")))
}

/// Σ c_k · cos(2πki / N), N one less than the size unless periodic.
fn window(cx: &mut Cx, n: &Node, coefficients: &[f64]) -> Result<Outputs, OpError> {
    let size = scalar(cx, n, 0, "the size")?;
    let dtype = tensors::dtype(i32::try_from(n.attrs.int_or("output_datatype", 1)?).unwrap_or(-1))?;
    if !(0..1 << 24).contains(&size) {
        return Err(OpError::invalid(format!("has size {size}")));
    }
    let period = if n.attrs.flag("periodic", true)? { size } else { (size - 1).max(1) } as f64;
    let element = |i: i64| {
        let term = |(k, c): (usize, &f64)| c * (2.0 * PI * k as f64 * i as f64 / period).cos();
        Value::Float(coefficients.iter().enumerate().map(term).sum())
    };
    let values: Vec<Value> = (0..size).map(element).collect();
    one(cx.constant(Tensor::from_values(dtype, &[values.len()], &values))?)
}

/// Which transform.
#[derive(Clone, Copy)]
struct Transform {
    length: i64,
    one_sided: bool,
    inverse: bool,
}

/// The axis is a product with the matrix of roots of unity; the last axis holds the real and imaginary part (or only the
/// real one).
fn transform(cx: &mut Cx, x: NodeId, axis: usize, t: Transform) -> Result<NodeId, OpError> {
    let shape = cx.shape(x);
    let parts = shape.last().and_then(Dim::as_const).filter(|p| (1..=2).contains(p));
    let Some(parts) = parts else {
        return Err(OpError::invalid("takes data whose last axis is 1 or 2"));
    };
    let real_result = t.inverse && t.one_sided;
    let rows = shape[axis].as_const().unwrap_or(t.length);
    let bins = if t.one_sided && !t.inverse { t.length / 2 + 1 } else { t.length };
    if t.length < 1 || rows.saturating_mul(bins) > MATRIX_MAX / 4 {
        return Err(OpError::unsupported(format!(
            "has length {}; lengths of a few thousand are supported",
            t.length
        )));
    }
    let sign = if t.inverse { 1.0 } else { -1.0 };
    let scale = if t.inverse { 1.0 / t.length as f64 } else { 1.0 };
    let results = if real_result { 1 } else { 2 };
    let mut values = Vec::new();
    for i in 0..rows {
        // The half that a one-sided input leaves out is the conjugate of the half that is there.
        let twice = real_result && i != 0 && 2 * i != t.length;
        let scale = if twice { 2.0 * scale } else { scale };
        for k in 0..bins {
            let angle = 2.0 * PI * ((i * k) % t.length) as f64 / t.length as f64;
            let (re, im) = (scale * angle.cos(), sign * scale * angle.sin());
            for row in [[re, im], [-im, re]].iter().take(parts as usize) {
                values.extend(row.iter().take(results).map(|&v| Value::Float(v)));
            }
        }
    }
    let dtype = cx.node_dtype(x);
    let extents = [rows as usize, bins as usize, parts as usize, results];
    let matrix = cx.constant(Tensor::from_values(dtype, &extents, &values))?;
    let rank = shape.len() as u32;
    let own: Vec<u32> = (0..rank).collect();
    let matrix_labels = vec![axis as u32, rank, rank - 1, rank + 1];
    let mut labels = Labels::default();
    for (node, names) in [(x, &own), (matrix, &matrix_labels)] {
        for (extent, &label) in cx.shape(node).iter().zip(names) {
            labels.meet(cx, label, extent)?;
        }
    }
    let mut out = own.clone();
    out[axis] = rank;
    out[rank as usize - 1] = rank + 1;
    let (x, m) =
        (Labelled { node: x, labels: own }, Labelled { node: matrix, labels: matrix_labels });
    contract(cx, &labels, &x, &m, &out)
}

/// Cuts or fills an axis with zeros to a length.
fn fit(cx: &mut Cx, x: NodeId, axis: usize, length: i64) -> Result<NodeId, OpError> {
    let shape = cx.shape(x);
    let have = shape[axis]
        .as_const()
        .ok_or_else(|| OpError::unsupported("transforms an axis of symbolic extent"))?;
    if have > length {
        return cx.slice(x, axis, Dim::ZERO, 1, Dim::Const(length));
    }
    let low = vec![Dim::ZERO; shape.len()];
    let mut high = low.clone();
    high[axis] = Dim::Const(length - have);
    let zero = cx.zero(x)?;
    cx.pad(x, &low, &high, zero)
}

fn dft(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let axis = match n.opt(2) {
        Some(_) => scalar(cx, n, 2, "the axis")?,
        None => n.attrs.int_or("axis", if n.version < 20 { 1 } else { -2 })?,
    };
    let axis = cx.axis(axis, shape.len())?;
    let (one_sided, inverse) = (n.attrs.flag("onesided", false)?, n.attrs.flag("inverse", false)?);
    let have = shape[axis]
        .as_const()
        .ok_or_else(|| OpError::unsupported("transforms an axis of symbolic extent"))?;
    let length = match n.opt(1) {
        Some(_) => scalar(cx, n, 1, "the length")?,
        None if one_sided && inverse => 2 * (have - 1),
        None => have,
    };
    if !(1..1 << 20).contains(&length) {
        return Err(OpError::invalid(format!("has length {length}")));
    }
    let rows = if one_sided && inverse { length / 2 + 1 } else { length };
    let x = fit(cx, x, axis, rows)?;
    one(transform(cx, x, axis, Transform { length, one_sided, inverse })?)
}

/// Frames are gathered at `step · f + i`, windowed, and transformed.
fn stft(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let signal = n.node(cx, 0)?;
    let shape = cx.shape(signal);
    if shape.len() != 3 {
        return Err(OpError::invalid("takes a signal of rank 3"));
    }
    let step = scalar(cx, n, 1, "the step")?;
    let window = n.opt_node(cx, 2)?;
    let length = match (n.opt(3), window) {
        (Some(_), _) => scalar(cx, n, 3, "the frame length")?,
        (None, Some(window)) => cx.shape(window).first().and_then(Dim::as_const).unwrap_or(0),
        (None, None) => shape[1].as_const().unwrap_or(0),
    };
    if step < 1 || !(1..1 << 20).contains(&length) {
        return Err(OpError::invalid(format!("has step {step} and frame length {length}")));
    }
    let frames = (shape[1].clone() - Dim::Const(length)).floor_div(&Dim::Const(step)) + Dim::ONE;
    let start = cx.iota(&frames, DType::I64)?;
    let by = cx.int(step)?;
    let start = cx.map(S::Mul, &[start, by])?;
    let start = cx.along(start, 0, 2)?;
    let inner = cx.iota(&Dim::Const(length), DType::I64)?;
    let inner = cx.along(inner, 1, 2)?;
    let at = cx.map(S::Add, &[start, inner])?;
    let mut x = cx.take(signal, at, 1)?;
    if let Some(window) = window {
        let window = cx.along(window, 2, 4)?;
        x = cx.map(S::Mul, &[x, window])?;
    }
    let one_sided = n.attrs.flag("onesided", true)?;
    one(transform(cx, x, 2, Transform { length, one_sided, inverse: false })?)
}
