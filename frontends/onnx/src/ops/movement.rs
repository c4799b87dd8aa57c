//! Operators that only move elements: reshape, transpose, slice, concat, expand, tile, pad.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::scalar::ScalarOp as S;

use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs, Val};
use crate::known::{Known, strides, unravel};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("Reshape", &[1, 5, 13, 14, 19, 21, 23, 24, 25], reshape),
    call("Flatten", &[1, 9, 11, 13, 21, 23, 24, 25], flatten),
    call("Squeeze", &[1, 11, 13, 21, 23, 24, 25], squeeze),
    call("Unsqueeze", &[1, 11, 13, 21, 23, 24, 25], unsqueeze),
    call("Transpose", &[1, 13, 21, 23, 24, 25], transpose),
    call("Slice", &[1, 10, 11, 13], slice),
    call("Split", &[1, 2, 11, 13, 18], split),
    call("Concat", &[1, 4, 11, 13], concat),
    call("Expand", &[8, 13], expand),
    call("Tile", &[1, 6, 13], tile),
    call("Pad", &[1, 2, 11, 13, 18, 19, 21, 23, 24, 25], pad),
    call("DepthToSpace", &[1, 11, 13, 28], depth_to_space),
    call("SpaceToDepth", &[1, 13, 28], space_to_depth),
    call("CenterCropPad", &[18], center_crop_pad),
];

fn reshape(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let from = cx.extents(&data)?;
    let wanted = cx.dims(n, 1, "the shape")?;
    let allow_zero = n.attrs.flag("allowzero", false)?;
    let mut to: Vec<Dim> = Vec::with_capacity(wanted.len());
    let mut rest = None;
    for (axis, dim) in wanted.iter().enumerate() {
        match dim.as_const() {
            Some(0) if !allow_zero => match from.get(axis) {
                Some(d) => to.push(d.clone()),
                None => {
                    return Err(OpError::invalid(format!(
                        "copies axis {axis}, which its data does not have"
                    )));
                }
            },
            Some(-1) if rest.is_some() => return Err(OpError::invalid("has two extents of -1")),
            Some(-1) => {
                rest = Some(axis);
                to.push(Dim::ONE);
            }
            Some(d) if d < 0 => {
                return Err(OpError::invalid(format!("has extent {d} in its shape")));
            }
            _ => to.push(dim.clone()),
        }
    }
    let total = Dim::product(&from);
    if let Some(axis) = rest {
        to[axis] = cx.remaining_extent(&total, &from, &to)?;
    }
    one(cx.reshape_val(&data, &to)?)
}

fn flatten(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let from = cx.extents(&data)?;
    let axis = cx.split_point(n.attrs.int_or("axis", 1)?, from.len())?;
    one(cx.reshape_val(&data, &[Dim::product(&from[..axis]), Dim::product(&from[axis..])])?)
}

fn squeeze(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let from = cx.extents(&data)?;
    let axes = match cx.opt_ints(n, 1, "the axes")? {
        Some(axes) => cx.axes(&axes, from.len())?,
        None => {
            if from.iter().any(|d| d.as_const().is_none()) {
                let shape = cx.describe(&data);
                return Err(OpError::unsupported(format!(
                    "without axes cannot tell which extents of {shape} are 1; give it axes"
                )));
            }
            (0..from.len()).filter(|&a| from[a].is(1)).collect()
        }
    };
    let mut data = data;
    for &axis in &axes {
        cx.require_equal(&from[axis], &Dim::ONE)?;
        if !from[axis].is(1) {
            // Required to be 1, which the extent itself does not show.
            let x = cx.node(&data)?;
            data = cx.slice(x, axis, Dim::ZERO, 1, Dim::ONE)?.into();
        }
    }
    let to: Vec<Dim> =
        (0..from.len()).filter(|a| !axes.contains(a)).map(|a| from[a].clone()).collect();
    one(cx.reshape_val(&data, &to)?)
}

fn unsqueeze(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let from = cx.extents(&data)?;
    let axes = cx.ints(n, 1, "the axes")?;
    let rank = from.len() + axes.len();
    let axes = cx.axes(&axes, rank)?;
    let mut rest = from.into_iter();
    let to: Vec<Dim> = (0..rank)
        .map(|a| if axes.contains(&a) { Some(Dim::ONE) } else { rest.next() })
        .collect::<Option<_>>()
        .ok_or_else(|| OpError::invalid("names an axis twice"))?;
    one(cx.reshape_val(&data, &to)?)
}

fn transpose(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let rank = cx.extents(&data)?.len();
    let perm: Vec<usize> = match n.attrs.ints("perm")? {
        Some(perm) => perm.iter().map(|&p| cx.axis(p, rank)).collect::<Result<_, _>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if sorted != (0..rank).collect::<Vec<_>>() {
        return Err(OpError::invalid(format!("has perm {perm:?} for data of rank {rank}")));
    }
    if let Some(out) = cx.known(&data).and_then(|k| k.transposed(&perm)) {
        return one(out);
    }
    let x = cx.node(&data)?;
    one(cx.permute(x, &perm)?)
}

/// One axis of a Slice: first index, step, and number of indices.
struct Cut {
    axis: usize,
    start: Dim,
    step: i64,
    extent: Dim,
}

/// ONNX clamps bounds into the axis. Where a symbolic bound meets a constant extent the model means `bound <= extent`
/// (a table cut to the length of the input): that becomes a requirement instead of a minimum.
fn cut(
    cx: &mut Cx,
    axis: usize,
    size: &Dim,
    start: &Dim,
    end: &Dim,
    step: i64,
) -> Result<Cut, OpError> {
    let zero = Dim::ZERO;
    if step > 0 {
        // A slice that starts behind the end would be empty, which no model means.
        let start = cx.slice_bound(start, size, [&zero, size], true)?;
        let end = cx.slice_bound(end, size, [&zero, size], false)?;
        let length = cx.at_least_zero(end - start.clone());
        return Ok(Cut {
            axis,
            start,
            step,
            extent: cx.simplify(&length.ceil_div(&Dim::Const(step))),
        });
    }
    let last = size.clone() - Dim::ONE;
    let below = Dim::Const(-1);
    let start = cx.slice_bound(start, size, [&below, &last], false)?;
    let end = cx.slice_bound(end, size, [&below, &last], false)?;
    let length = cx.at_least_zero(start.clone() - end);
    let by = step.checked_neg().ok_or_else(|| OpError::invalid("has a step of -2^63"))?;
    Ok(Cut { axis, start, step, extent: cx.simplify(&length.ceil_div(&Dim::Const(by))) })
}

fn slice(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let sizes = cx.extents(&data)?;
    let starts = cx.dims(n, 1, "the starts")?;
    let ends = cx.dims(n, 2, "the ends")?;
    let axes = match cx.opt_ints(n, 3, "the axes")? {
        Some(axes) => cx.axes(&axes, sizes.len())?,
        None => (0..starts.len()).collect(),
    };
    let steps = cx.opt_ints(n, 4, "the steps")?.unwrap_or_else(|| vec![1; starts.len()]);
    let count = starts.len();
    if ends.len() != count
        || axes.len() != count
        || steps.len() != count
        || axes.iter().any(|&a| a >= sizes.len())
    {
        return Err(OpError::invalid("has starts, ends, axes and steps that do not fit its data"));
    }
    if steps.contains(&0) {
        return Err(OpError::invalid("has a step of 0"));
    }
    let mut cuts = Vec::with_capacity(count);
    for i in 0..count {
        cuts.push(cut(cx, axes[i], &sizes[axes[i]], &starts[i], &ends[i], steps[i])?);
    }
    if let Some(out) = cx.known(&data).and_then(|k| slice_known(&k, &cuts)) {
        return one(out);
    }
    let mut x = cx.node(&data)?;
    for c in cuts {
        if c.step != 1 || !c.start.is(0) || c.extent != sizes[c.axis] {
            x = cx.slice(x, c.axis, c.start, c.step, c.extent)?;
        }
    }
    one(x)
}

fn slice_known(known: &Known, cuts: &[Cut]) -> Option<Known> {
    let mut shape = known.shape.clone();
    let (mut start, mut step) = (vec![0i64; shape.len()], vec![1i64; shape.len()]);
    for c in cuts {
        shape[c.axis] = usize::try_from(c.extent.as_const()?).ok()?;
        start[c.axis] = c.start.as_const()?;
        step[c.axis] = c.step;
    }
    let from = strides(&known.shape);
    let to = shape.clone();
    known.pick(shape, |i| {
        let at = unravel(i, &to);
        let mut sum = 0usize;
        for a in 0..at.len() {
            let index = start[a].checked_add(step[a].checked_mul(at[a] as i64)?)?;
            sum += usize::try_from(index).ok()? * from[a];
        }
        Some(sum)
    })
}

/// The last part takes the rest when the number of parts does not divide the extent (opset 18).
fn split(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let sizes = cx.extents(&data)?;
    let axis = cx.axis(n.attrs.int_or("axis", 0)?, sizes.len())?;
    let parts = match n.opt(1) {
        Some(_) => cx.dims(n, 1, "the split sizes")?,
        None => {
            let count = n.attrs.int("num_outputs")?.unwrap_or(n.outputs.len() as i64);
            if !(1..=1 << 20).contains(&count) {
                return Err(OpError::invalid(format!("has num_outputs {count}")));
            }
            let chunk = sizes[axis].ceil_div(&Dim::Const(count));
            let last = sizes[axis].clone() - chunk.clone() * Dim::Const(count - 1);
            let mut parts = vec![chunk; count as usize - 1];
            parts.push(last);
            parts
        }
    };
    cx.require_equal(&Dim::sum(&parts), &sizes[axis])?;
    let mut start = Dim::ZERO;
    let mut outputs = Vec::with_capacity(parts.len());
    for extent in parts {
        let next = start.clone() + extent.clone();
        let cuts = [Cut { axis, start: start.clone(), step: 1, extent: extent.clone() }];
        outputs.push(match cx.known(&data).and_then(|k| slice_known(&k, &cuts)) {
            Some(known) => known.into(),
            None => {
                let x = cx.node(&data)?;
                cx.slice(x, axis, start, 1, extent)?.into()
            }
        });
        start = next;
    }
    Ok(outputs)
}

fn concat(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let parts: Vec<Val> = (0..n.inputs.len()).map(|i| n.val(i)).collect::<Result<_, _>>()?;
    let rank = cx.extents(&n.val(0)?)?.len();
    // Version 1 defaults to axis 1; from version 4 on the attribute is required.
    let axis = cx.axis(n.attrs.int_or("axis", 1)?, rank)?;
    one(cx.concat_vals(&parts, axis)?)
}

fn expand(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let from = cx.extents(&data)?;
    let wanted = cx.dims(n, 1, "the shape")?;
    let to = cx.broadcast_extents(&from, &wanted)?;
    if let (Some(known), Some(shape)) = (cx.known(&data), cx.small_shape(&to))
        && let Some(out) = known.broadcast(&shape)
    {
        return one(out);
    }
    let x = cx.node(&data)?;
    one(cx.broadcast(x, &to)?)
}

/// Repeats the whole axis: `[d] → [1, d] → [r, d] → [r·d]`.
fn repeat(cx: &mut Cx, x: NodeId, axis: usize, times: &Dim) -> Result<NodeId, OpError> {
    let shape = cx.shape(x);
    let mut wide = shape.clone();
    wide.insert(axis, times.clone());
    let x = cx.unsqueeze(x, &[axis])?;
    let x = cx.broadcast(x, &wide)?;
    let mut merged = shape;
    merged[axis] = merged[axis].clone() * times.clone();
    cx.reshape(x, &merged)
}

fn tile(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    let rank = cx.extents(&data)?.len();
    let mut times = cx.dims(n, 1, "the repeats")?;
    if n.version < 6 {
        let axis = cx.axis(cx.ints(n, 2, "the axis")?.first().copied().unwrap_or(0), rank)?;
        let count = times.first().cloned().unwrap_or(Dim::ONE);
        times = vec![Dim::ONE; rank];
        times[axis] = count;
    }
    if times.len() != rank {
        return Err(OpError::invalid(format!(
            "has {} repeats for data of rank {rank}",
            times.len()
        )));
    }
    if let (Some(known), Some(times)) = (cx.known(&data), cx.small_shape(&times)) {
        let shape: Vec<usize> =
            known.shape.iter().zip(&times).map(|(d, t)| d.saturating_mul(*t)).collect();
        let from = strides(&known.shape);
        let to = shape.clone();
        let source = |i: usize| {
            Some(
                unravel(i, &to)
                    .iter()
                    .enumerate()
                    .map(|(a, at)| (at % known.shape[a]) * from[a])
                    .sum(),
            )
        };
        if let Some(out) = known.pick(shape, source) {
            return one(out);
        }
    }
    let mut x = cx.node(&data)?;
    for (axis, times) in times.iter().enumerate() {
        if !times.is(1) {
            x = repeat(cx, x, axis, times)?;
        }
    }
    one(x)
}

/// Pads of the given axes as (low, high) per axis of the data.
fn pad_widths(cx: &mut Cx, n: &Node, rank: usize) -> Result<(Vec<Dim>, Vec<Dim>), OpError> {
    let pads = cx.dims(n, 1, "the pads")?;
    let axes = match cx.opt_ints(n, 3, "the axes")? {
        Some(axes) => cx.axes(&axes, rank)?,
        None => (0..rank).collect(),
    };
    if pads.len() != 2 * axes.len() {
        return Err(OpError::invalid(format!("has {} pads for {} axes", pads.len(), axes.len())));
    }
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (i, &axis) in axes.iter().enumerate() {
        low[axis] = pads[i].clone();
        high[axis] = pads[i + axes.len()].clone();
    }
    Ok((low, high))
}

fn pad(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let mut x = n.node(cx, 0)?;
    let rank = cx.rank(x);
    let (mut low, mut high) = pad_widths(cx, n, rank)?;
    let mode = n.attrs.string_or("mode", "constant")?;
    // A negative pad cuts.
    for axis in 0..rank {
        let size = cx.shape(x)[axis].clone();
        let negative =
            |d: &Dim| d.as_const().filter(|&c| c < 0).map_or(Dim::ZERO, |c| Dim::Const(-c));
        let (cut_low, cut_high) = (negative(&low[axis]), negative(&high[axis]));
        if !cut_low.is(0) || !cut_high.is(0) {
            let extent = size - cut_low.clone() - cut_high.clone();
            low[axis] = low[axis].clone() + cut_low.clone();
            high[axis] = high[axis].clone() + cut_high;
            x = cx.slice(x, axis, cut_low, 1, extent)?;
        }
    }
    if low.iter().chain(&high).all(|d| d.is(0)) {
        return one(x);
    }
    if mode == "constant" {
        let value = match n.opt_node(cx, 2)? {
            Some(value) => {
                let value = cx.reshape(value, &[])?;
                let dtype = cx.node_dtype(x);
                cx.cast(value, dtype)?
            }
            None => cx.num(x, 0.0)?,
        };
        return one(cx.pad(x, &low, &high, value)?);
    }
    for axis in 0..rank {
        if !low[axis].is(0) || !high[axis].is(0) {
            let indices =
                pad_indices(cx, &mode, &cx.shape(x)[axis].clone(), &low[axis], &high[axis])?;
            x = cx.take(x, indices, axis)?;
        }
    }
    one(x)
}

/// Source indices of a padded axis: `i - low` clamped, folded at both ends, or wrapped.
fn pad_indices(
    cx: &mut Cx,
    mode: &str,
    size: &Dim,
    low: &Dim,
    high: &Dim,
) -> Result<NodeId, OpError> {
    let extent = size.clone() + low.clone() + high.clone();
    let iota = cx.iota(&extent, DType::I64)?;
    let low = cx.dim(low, DType::I64)?;
    let at = cx.map(S::Sub, &[iota, low])?;
    let last = cx.dim(&(size.clone() - Dim::ONE), DType::I64)?;
    let zero = cx.int(0)?;
    match mode {
        "edge" => {
            let at = cx.map(S::Max, &[at, zero])?;
            cx.map(S::Min, &[at, last])
        }
        // (n-1) - | (n-1) - |i| | folds one period at each end.
        "reflect" => {
            let at = cx.map(S::Abs, &[at])?;
            let over = cx.map(S::Sub, &[last, at])?;
            let over = cx.map(S::Abs, &[over])?;
            let at = cx.map(S::Sub, &[last, over])?;
            cx.map(S::Max, &[at, zero])
        }
        "wrap" => {
            let size = cx.dim(size, DType::I64)?;
            cx.map(S::Mod, &[at, size])
        }
        other => Err(OpError::invalid(format!(
            "has mode `{other}`; allowed are constant, edge, reflect and wrap"
        ))),
    }
}

fn block_size(n: &Node) -> Result<Dim, OpError> {
    match n.attrs.required_int("blocksize")? {
        b if b > 0 && b < 1 << 20 => Ok(Dim::Const(b)),
        b => Err(OpError::invalid(format!("has blocksize {b}"))),
    }
}

fn image_extents(cx: &Cx, x: NodeId) -> Result<[Dim; 4], OpError> {
    <[Dim; 4]>::try_from(cx.shape(x)).map_err(|_| OpError::invalid("takes data of rank 4"))
}

fn depth_to_space(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let b = block_size(n)?;
    let [images, c, h, w] = image_extents(cx, x)?;
    let rest = c.floor_div(&(b.clone() * b.clone()));
    let columns_first = match n.attrs.string_or("mode", "DCR")?.as_str() {
        "DCR" => false,
        "CRD" => true,
        other => {
            return Err(OpError::invalid(format!("has mode `{other}`; allowed are DCR and CRD")));
        }
    };
    let (split, perm) = if columns_first {
        (
            vec![images.clone(), rest.clone(), b.clone(), b.clone(), h.clone(), w.clone()],
            [0, 1, 4, 2, 5, 3],
        )
    } else {
        (
            vec![images.clone(), b.clone(), b.clone(), rest.clone(), h.clone(), w.clone()],
            [0, 3, 4, 1, 5, 2],
        )
    };
    let x = cx.reshape(x, &split)?;
    let x = cx.permute(x, &perm)?;
    one(cx.reshape(x, &[images, rest, h * b.clone(), w * b])?)
}

fn space_to_depth(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let b = block_size(n)?;
    let [images, c, h, w] = image_extents(cx, x)?;
    let (rows, columns) = (h.floor_div(&b), w.floor_div(&b));
    let x = cx.reshape(
        x,
        &[images.clone(), c.clone(), rows.clone(), b.clone(), columns.clone(), b.clone()],
    )?;
    let perm = match n.attrs.string_or("mode", "DCR")?.as_str() {
        "DCR" => [0, 3, 5, 1, 2, 4],
        "CRD" => [0, 1, 3, 5, 2, 4],
        other => {
            return Err(OpError::invalid(format!("has mode `{other}`; allowed are DCR and CRD")));
        }
    };
    let x = cx.permute(x, &perm)?;
    one(cx.reshape(x, &[images, c * b.clone() * b, rows, columns])?)
}

/// Crops or pads about the centre; the odd element goes to the end.
fn center_crop_pad(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let mut x = n.node(cx, 0)?;
    let rank = cx.rank(x);
    let wanted = cx.ints(n, 1, "the shape")?;
    let axes = match n.attrs.ints("axes")? {
        Some(axes) => cx.axes(axes, rank)?,
        None => (0..rank).collect(),
    };
    if axes.len() != wanted.len() {
        return Err(OpError::invalid("has a shape that does not fit its axes"));
    }
    let sizes = cx.shape(x);
    let (mut low, mut high) = (vec![Dim::ZERO; rank], vec![Dim::ZERO; rank]);
    for (&axis, &want) in axes.iter().zip(&wanted) {
        let size =
            sizes[axis].as_const().ok_or(OpError::NotConstant { index: 0, what: "the extents" })?;
        if want < size {
            x = cx.slice(x, axis, Dim::Const((size - want) / 2), 1, Dim::Const(want))?;
        } else {
            low[axis] = Dim::Const((want - size) / 2);
            high[axis] = Dim::Const((want - size) - (want - size) / 2);
        }
    }
    let zero = cx.num(x, 0.0)?;
    many(&[cx.pad(x, &low, &high, zero)?])
}
