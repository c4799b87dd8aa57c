//! Sequences and optionals of lengths known at import.

use std::rc::Rc;

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;

use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs, Val};
use crate::known::Known;
use crate::tensors;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("SequenceConstruct", &[11], construct),
    call("SequenceEmpty", &[11], empty),
    call("SequenceAt", &[11], at),
    call("SequenceInsert", &[11], insert),
    call("SequenceErase", &[11], erase),
    call("SequenceLength", &[11], length),
    call("SplitToSequence", &[11, 24], split_to_sequence),
    call("ConcatFromSequence", &[11], concat_from_sequence),
    call("Optional", &[15, 28], optional),
    call("OptionalHasElement", &[15, 18, 28], has_element),
    call("OptionalGetElement", &[15, 18, 28], get_element),
];

fn sequence(n: &Node, i: usize) -> Result<(Rc<Vec<Val>>, DType), OpError> {
    match n.val(i)? {
        Val::Sequence(items, dtype) => Ok((items, dtype)),
        Val::Broken => Err(OpError::Broken),
        _ => Err(OpError::invalid(format!("takes a sequence as operand {i}"))),
    }
}

fn construct(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let items: Vec<Val> = (0..n.inputs.len()).map(|i| n.val(i)).collect::<Result<_, _>>()?;
    let dtype = cx.dtype(&n.val(0)?)?;
    one(Val::Sequence(Rc::new(items), dtype))
}

fn empty(_: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let code = n.attrs.int_or("dtype", 1)?;
    let dtype = tensors::dtype(i32::try_from(code).unwrap_or(-1))?;
    one(Val::Sequence(Rc::default(), dtype))
}

/// A position in `0..count`, negative ones counted from the end.
fn position(cx: &Cx, n: &Node, operand: usize, count: usize) -> Result<usize, OpError> {
    let index = cx.ints(n, operand, "the position")?.first().copied().unwrap_or(0);
    cx.axis(index, count).map_err(|_| OpError::invalid(format!("reads element {index} of {count}")))
}

fn at(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (items, _) = sequence(n, 0)?;
    let i = position(cx, n, 1, items.len())?;
    one(items[i].clone())
}

fn insert(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (items, dtype) = sequence(n, 0)?;
    let mut items = (*items).clone();
    let i = match n.opt(2) {
        Some(_) => {
            let index = cx.ints(n, 2, "the position")?.first().copied().unwrap_or(0);
            cx.split_point(index, items.len())?
        }
        None => items.len(),
    };
    items.insert(i, n.val(1)?);
    one(Val::Sequence(Rc::new(items), dtype))
}

fn erase(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (items, dtype) = sequence(n, 0)?;
    let mut items = (*items).clone();
    let i = if n.opt(1).is_some() {
        position(cx, n, 1, items.len())?
    } else {
        items.len().wrapping_sub(1)
    };
    if i >= items.len() {
        return Err(OpError::invalid("erases from an empty sequence"));
    }
    items.remove(i);
    one(Val::Sequence(Rc::new(items), dtype))
}

fn length(_: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (items, _) = sequence(n, 0)?;
    one(Known::scalar(DType::I64, Dim::Const(items.len() as i64)))
}

/// Parts of one extent, or of given extents; without them each index is a part.
fn split_to_sequence(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let dtype = cx.node_dtype(x);
    let shape = cx.shape(x);
    let axis = cx.axis(n.attrs.int_or("axis", 0)?, shape.len())?;
    let Some(total) = shape[axis].as_const() else {
        return Err(OpError::unsupported("splits an axis whose extent is not a number"));
    };
    let (parts, keep) = match n.opt(1) {
        Some(split) => {
            let sizes = cx.ints(n, 1, "the split sizes")?;
            let parts = if cx.extents(&split)?.is_empty() {
                let size = sizes
                    .first()
                    .copied()
                    .filter(|&s| s > 0)
                    .ok_or_else(|| OpError::invalid("has no split size"))?;
                (0..total).step_by(size as usize).map(|at| size.min(total - at)).collect()
            } else {
                sizes
            };
            (parts, true)
        }
        None => (vec![1; usize::try_from(total).unwrap_or(0)], n.attrs.flag("keepdims", true)?),
    };
    if parts.iter().sum::<i64>() != total {
        return Err(OpError::invalid(format!("has split sizes {parts:?} for extent {total}")));
    }
    let mut start = 0;
    let mut items = Vec::with_capacity(parts.len());
    for part in parts {
        let piece = cx.slice(x, axis, Dim::Const(start), 1, Dim::Const(part))?;
        items.push(Val::Node(if keep { piece } else { cx.squeeze(piece, &[axis])? }));
        start += part;
    }
    one(Val::Sequence(Rc::new(items), dtype))
}

fn concat_from_sequence(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (items, _) = sequence(n, 0)?;
    let Some(first) = items.first() else {
        return Err(OpError::unsupported("joins an empty sequence"));
    };
    let rank = cx.extents(first)?.len();
    let axis = n.attrs.required_int("axis")?;
    if !n.attrs.flag("new_axis", false)? {
        let axis = cx.axis(axis, rank)?;
        return one(cx.concat_vals(&items, axis)?);
    }
    let axis = cx.axis(axis, rank + 1)?;
    let mut wide = Vec::new();
    for item in items.iter() {
        let mut shape = cx.extents(item)?;
        shape.insert(axis.min(shape.len()), Dim::ONE);
        wide.push(cx.reshape_val(item, &shape)?);
    }
    one(cx.concat_vals(&wide, axis)?)
}

fn optional(_: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    one(Val::Optional(n.opt(0).map(Rc::new)))
}

fn has_element(_: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let has = !matches!(n.opt(0), None | Some(Val::Optional(None)));
    one(Known::scalar(DType::Bool, Dim::Const(i64::from(has))))
}

fn get_element(_: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    match n.val(0)? {
        Val::Optional(Some(inner)) => one((*inner).clone()),
        Val::Optional(None) => Err(OpError::invalid("reads an empty optional")),
        tensor => one(tensor),
    }
}
