//! Constants, shapes, conversions and operators that pass a value on.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;
use tgc_ir::tensor::Tensor;

use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs, Val};
use crate::known::{Elem, Known, count};
use crate::tensors;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("Constant", &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25], constant),
    call("ConstantOfShape", &[9, 20, 21, 23, 24, 25], constant_of_shape),
    call("Shape", &[1, 13, 15, 19, 21, 23, 24, 25], shape),
    call("Size", &[1, 13, 19, 21, 23, 24, 25], size),
    call("Identity", &[1, 13, 14, 16, 19, 21, 23, 24, 25], identity),
    call("Dropout", &[1, 6, 7, 10, 12, 13, 22], dropout),
    call("Cast", &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28], cast),
    call("CastLike", &[15, 19, 21, 23, 24, 25], cast_like),
    call("BitCast", &[26], bit_cast),
    call("EyeLike", &[9, 22], eye_like),
];

fn constant(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let name = n.outputs.first().cloned().unwrap_or_default();
    if let Some(proto) = n.attrs.tensor("value")? {
        let tensor = cx.read(proto)?;
        return one(cx.weight(&name, tensor, true));
    }
    let tensor = if let Some(x) = n.attrs.float("value_float")? {
        Tensor::from_f32(&[], &[x])
    } else if let Some(x) = n.attrs.int("value_int")? {
        Tensor::from_i64(&[], &[x])
    } else if let Some(x) = n.attrs.floats("value_floats")? {
        Tensor::from_f32(&[x.len()], x)
    } else if let Some(x) = n.attrs.ints("value_ints")? {
        Tensor::from_i64(&[x.len()], x)
    } else if n.attrs.has("sparse_value") {
        return sparse_constant(cx, n);
    } else {
        return Err(OpError::unsupported("has no tensor value; strings are not supported"));
    };
    one(cx.weight(&name, tensor, true))
}

fn sparse_constant(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let sparse = n.attrs.find("sparse_value").and_then(|a| a.sparse_tensor.as_ref());
    let sparse =
        sparse.ok_or_else(|| OpError::invalid("has a sparse_value that is no sparse tensor"))?;
    let limit = cx.limits.owned_bytes;
    let tensor = tensors::read_sparse(sparse, &mut cx.external, limit)?;
    cx.own(tensor.bytes().len())?;
    let name = n.outputs.first().cloned().unwrap_or_default();
    one(cx.weight(&name, tensor, true))
}

fn constant_of_shape(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let dims = cx.dims(n, 0, "the shape")?;
    if dims.iter().any(|d| d.as_const().is_some_and(|c| c < 0)) {
        return Err(OpError::invalid("has a negative extent"));
    }
    let value = match n.attrs.tensor("value")? {
        Some(proto) => cx.read(proto)?,
        None => Tensor::from_f32(&[], &[0.0]),
    };
    if value.len() != 1 {
        return Err(OpError::invalid(format!("has a value of {} elements", value.len())));
    }
    let scalar = Tensor::from_values(value.dtype(), &[], &[value.value(0)]);
    if let (Some(known), Some(shape)) = (Known::of_tensor(&scalar), cx.small_shape(&dims))
        && !value.dtype().is_float()
        && let Some(out) = known.broadcast(&shape)
    {
        return one(out);
    }
    let x = cx.constant(scalar)?;
    one(cx.broadcast(x, &dims)?)
}

fn shape(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let dims: Vec<Dim> = cx.extents(&n.val(0)?)?.iter().map(|d| cx.simplify(d)).collect();
    let rank = dims.len() as i64;
    let clamp = |a: i64| if a < 0 { a.saturating_add(rank) } else { a }.clamp(0, rank) as usize;
    let start = clamp(n.attrs.int_or("start", 0)?);
    let end = clamp(n.attrs.int("end")?.unwrap_or(rank));
    one(Known::dims(dims.get(start..end).unwrap_or(&[])))
}

fn size(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let dims = cx.extents(&n.val(0)?)?;
    one(Known::scalar(DType::I64, Dim::product(&dims)))
}

fn identity(_: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    one(n.val(0)?)
}

/// In inference the data passes and the mask is all true; training mode draws random numbers.
fn dropout(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    if let Some(training) = n.opt(2) {
        let known = cx.known(&training).and_then(|k| k.to_i64());
        let ratio = match n.opt(1) {
            Some(ratio) => {
                cx.known(&ratio).and_then(|k| k.to_f64()).and_then(|r| r.first().copied())
            }
            None => Some(0.5),
        };
        match known.as_deref() {
            Some([0]) => {}
            Some(_) if ratio == Some(0.0) => {}
            Some(_) => {
                return Err(OpError::unsupported(
                    "in training mode draws random numbers, which is not supported",
                ));
            }
            None => return Err(OpError::NotConstant { index: 2, what: "training_mode" }),
        }
    }
    if !n.wants(1) {
        return one(data);
    }
    let shape = cx.extents(&data)?;
    let kept = cx.truth(true)?;
    let mask = cx.broadcast(kept, &shape)?;
    // Before opset 7 the mask has the type of the data, later it is bool.
    let mask = if n.version < 10 {
        let dtype = cx.dtype(&data)?;
        cx.cast(mask, dtype)?
    } else {
        mask
    };
    Ok(vec![data, mask.into()])
}

fn cast_to(cx: &mut Cx, val: &Val, to: DType, n: &Node) -> Result<Outputs, OpError> {
    if let Some(known) = cx.known(val)
        && let Some(out) =
            known.cast(to, |d| tgc_ir::Truth::Yes == cx.graph.facts.at_most(&Dim::ZERO, d))
    {
        return one(out);
    }
    let from = cx.dtype(val)?;
    let is_f8 = |d: DType| matches!(d, DType::F8E4M3 | DType::F8E5M2);
    if is_f8(to) && !n.attrs.flag("saturate", true)? && from != to {
        return Err(OpError::unsupported(format!("without saturation to {to} is not supported")));
    }
    let mut x = cx.node(val)?;
    if is_f8(to) && from.is_float() && from != to {
        // Saturating conversion: values beyond the range become the largest finite one.
        let (low, high) = (cx.num(x, -to.max_value())?, cx.num(x, to.max_value())?);
        x = cx.map(S::Max, &[x, low])?;
        x = cx.map(S::Min, &[x, high])?;
    }
    // Out of range, 4-bit results wrap as the official cases expect.
    if to.bits() < 8 && from.is_float() {
        x = cx.cast(x, DType::I32)?;
    }
    one(cx.cast(x, to)?)
}

fn cast(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let code = n.attrs.required_int("to")?;
    let to = tensors::dtype(i32::try_from(code).unwrap_or(-1))?;
    cast_to(cx, &n.val(0)?, to, n)
}

fn cast_like(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let to = cx.dtype(&n.val(1)?)?;
    cast_to(cx, &n.val(0)?, to, n)
}

fn bit_cast(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let code = n.attrs.required_int("to")?;
    let to = tensors::dtype(i32::try_from(code).unwrap_or(-1))?;
    let x = n.node(cx, 0)?;
    one(cx.emit(Op::Bitcast { to }, &[x])?)
}

fn eye_like(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let like = n.val(0)?;
    let dims = cx.extents(&like)?;
    let [rows, columns] = dims.as_slice() else {
        return Err(OpError::invalid("takes data of rank 2"));
    };
    let dtype = match n.attrs.int("dtype")? {
        Some(code) => tensors::dtype(i32::try_from(code).unwrap_or(-1))?,
        None => cx.dtype(&like)?,
    };
    let k = n.attrs.int_or("k", 0)?;
    if let (Some(r), Some(c)) = (rows.as_const(), columns.as_const())
        && dtype.is_int()
        && let Some(total) = count(&[r as usize, c as usize])
        && c > 0
    {
        let elem =
            |i: usize| Elem::Int(Dim::Const(i64::from((i as i64 % c) - (i as i64 / c) == k)));
        let shape = vec![r as usize, c as usize];
        return one(Known { dtype, shape, elems: (0..total).map(elem).collect() });
    }
    let row = cx.iota(rows, DType::I64)?;
    let row = cx.along(row, 0, 2)?;
    let column = cx.iota(columns, DType::I64)?;
    let column = cx.along(column, 1, 2)?;
    let shift = cx.int(k)?;
    let row = cx.map(S::Add, &[row, shift])?;
    let hit = cx.map(S::Eq, &[row, column])?;
    one(cx.cast(hit, dtype)?)
}
