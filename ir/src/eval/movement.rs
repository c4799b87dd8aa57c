//! Reference of ops that move elements.

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::eval::EvalError;
use crate::eval::array::{Array, Indices, strides};
use crate::eval::node::Machine;
use crate::kernel_program::{ScatterOp, as_axis, axis};
use crate::op::PadMode;
use crate::scalar::{ScalarOp, Value};
use crate::view::View;

pub(crate) fn offset(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

fn check(what: &str, index: i128, extent: usize) -> Result<usize, EvalError> {
    match usize::try_from(index) {
        Ok(i) if i < extent => Ok(i),
        _ => Err(EvalError::Index { what: what.to_owned(), index: index as i64, extent }),
    }
}

pub(crate) fn view(
    machine: &Machine<'_>,
    view: &View,
    x: &Array,
    shape: &[usize],
) -> Result<Array, EvalError> {
    let axes: Vec<Dim> = (0..shape.len()).map(axis).collect();
    let map = view.input_index(&axes);
    let from = x.strides();
    let mut out = Array::filled(x.dtype, shape, Value::zero(x.dtype));
    for (at, index) in Indices::new(shape).enumerate() {
        let lookup = |s: &Symbol| match as_axis(s) {
            Some(n) => index.get(n).map(|i| *i as i64),
            None => machine.binding.value(s),
        };
        let mut source = 0;
        for ((expr, stride), extent) in map.iter().zip(&from).zip(&x.shape) {
            source += check("view", i128::from(expr.eval(&lookup)?), *extent)? * stride;
        }
        out.set(at, x.get(source));
    }
    Ok(out)
}

pub(crate) fn pad(
    machine: &Machine<'_>,
    mode: PadMode,
    low: &[Dim],
    x: &Array,
    fill: &Array,
    shape: &[usize],
) -> Result<Array, EvalError> {
    let low: Vec<i64> = low.iter().map(|d| machine.binding.eval(d)).collect::<Result<_, _>>()?;
    let from = x.strides();
    let mut out = Array::filled(x.dtype, shape, fill.get(0));
    'cells: for (at, index) in Indices::new(shape).enumerate() {
        let mut source = 0;
        for axis in 0..shape.len() {
            let n = x.shape[axis] as i64;
            let i = index[axis] as i64 - low[axis];
            let inside = match mode {
                _ if (0..n).contains(&i) => i,
                PadMode::Constant => continue 'cells,
                _ if n == 0 => {
                    return Err(EvalError::Extent {
                        what: "pad of an empty axis".into(),
                        extent: 0,
                    });
                }
                PadMode::Edge => i.clamp(0, n - 1),
                PadMode::Wrap => i.rem_euclid(n),
                PadMode::Reflect if n == 1 => 0,
                PadMode::Reflect => {
                    let period = 2 * (n - 1);
                    let r = i.rem_euclid(period);
                    if r < n { r } else { period - r }
                }
            };
            source += inside as usize * from[axis];
        }
        out.set(at, x.get(source));
    }
    Ok(out)
}

pub(crate) fn concat(
    axis: usize,
    x: &[std::sync::Arc<Array>],
    dtype: DType,
    shape: &[usize],
) -> Array {
    let mut out = Array::filled(dtype, shape, Value::zero(dtype));
    let to = strides(shape);
    let mut start = 0;
    for part in x {
        for (at, index) in Indices::new(&part.shape).enumerate() {
            out.set(offset(&index, &to) + start * to[axis], part.get(at));
        }
        start += part.shape[axis];
    }
    out
}

pub(crate) fn gather(
    axis: usize,
    x: &Array,
    indices: &Array,
    shape: &[usize],
) -> Result<Array, EvalError> {
    let (from, at_strides) = (x.strides(), indices.strides());
    let rank = indices.shape.len();
    let mut out = Array::filled(x.dtype, shape, Value::zero(x.dtype));
    for (at, index) in Indices::new(shape).enumerate() {
        let place = offset(&index[axis..axis + rank], &at_strides);
        let chosen = check("gather", indices.get(place).as_int(), x.shape[axis])?;
        let source = offset(&index[..axis], &from)
            + chosen * from[axis]
            + offset(&index[axis + rank..], &from[axis + 1..]);
        out.set(at, x.get(source));
    }
    Ok(out)
}

pub(crate) fn gather_elements(axis: usize, x: &Array, indices: &Array) -> Result<Array, EvalError> {
    let from = x.strides();
    let mut out = Array::filled(x.dtype, &indices.shape, Value::zero(x.dtype));
    for (at, mut index) in Indices::new(&indices.shape).enumerate() {
        index[axis] = check("gather_elements", indices.get(at).as_int(), x.shape[axis])?;
        out.set(at, x.get(offset(&index, &from)));
    }
    Ok(out)
}

pub(crate) fn gather_nd(
    batch: usize,
    x: &Array,
    indices: &Array,
    shape: &[usize],
) -> Result<Array, EvalError> {
    let (from, lead) = (x.strides(), indices.shape.len() - 1);
    let depth = indices.shape[lead];
    let mut out = Array::filled(x.dtype, shape, Value::zero(x.dtype));
    let at_strides = indices.strides();
    for (at, index) in Indices::new(shape).enumerate() {
        let tuple = offset(&index[..lead], &at_strides);
        let mut source = offset(&index[..batch], &from);
        for j in 0..depth {
            source += check("gather_nd", indices.get(tuple + j).as_int(), x.shape[batch + j])?
                * from[batch + j];
        }
        source += offset(&index[lead..], &from[batch + depth..]);
        out.set(at, x.get(source));
    }
    Ok(out)
}

pub(crate) fn combine(op: ScatterOp, old: Value, new: Value, dtype: DType) -> Value {
    let scalar = match op {
        ScatterOp::Replace => return new,
        ScatterOp::Add => ScalarOp::Add,
        ScatterOp::Mul => ScalarOp::Mul,
        ScatterOp::Min => ScalarOp::Min,
        ScatterOp::Max => ScalarOp::Max,
    };
    scalar.evaluate(&[old, new], dtype)
}

pub(crate) fn scatter_elements(
    axis: usize,
    op: ScatterOp,
    x: &Array,
    indices: &Array,
    updates: &Array,
) -> Result<Array, EvalError> {
    let to = x.strides();
    let mut out = x.clone();
    let update_strides = updates.strides();
    for (at, mut index) in Indices::new(&indices.shape).enumerate() {
        let value = updates.get(offset(&index, &update_strides));
        index[axis] = check("scatter_elements", indices.get(at).as_int(), x.shape[axis])?;
        let place = offset(&index, &to);
        out.set(place, combine(op, out.get(place), value, x.dtype));
    }
    Ok(out)
}

pub(crate) fn scatter_nd(
    op: ScatterOp,
    x: &Array,
    indices: &Array,
    updates: &Array,
) -> Result<Array, EvalError> {
    let (to, lead) = (x.strides(), indices.shape.len() - 1);
    let depth = indices.shape[lead];
    let mut out = x.clone();
    let at_strides = indices.strides();
    for (at, index) in Indices::new(&updates.shape).enumerate() {
        let tuple = offset(&index[..lead], &at_strides);
        let mut place = offset(&index[lead..], &to[depth..]);
        for (j, step) in to.iter().enumerate().take(depth) {
            place += check("scatter_nd", indices.get(tuple + j).as_int(), x.shape[j])? * step;
        }
        out.set(place, combine(op, out.get(place), updates.get(at), x.dtype));
    }
    Ok(out)
}
