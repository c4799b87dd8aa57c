//! Operators that read or write at computed places.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ScatterOp;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;

use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs, Val};
use crate::known::{Elem, Known, count, unravel};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("Gather", &[1, 11, 13], gather),
    call("GatherElements", &[11, 13], gather_elements),
    call("GatherND", &[11, 12, 13], gather_nd),
    call("ScatterElements", &[11, 13, 16, 18], scatter_elements),
    call("Scatter", &[9, 11], scatter_elements),
    call("ScatterND", &[11, 13, 16, 18], scatter_nd),
    call("TensorScatter", &[24], tensor_scatter),
    call("OneHot", &[9, 11, 28], one_hot),
    call("NonZero", &[9, 13], non_zero),
    call("Compress", &[9, 11, 28], compress),
    call("TopK", &[1, 10, 11, 24], top_k),
    call("Unique", &[11, 28], unique),
    call("Trilu", &[14], trilu),
    call("Range", &[11, 27], range),
    call("ReverseSequence", &[10, 28], reverse_sequence),
    call("NonMaxSuppression", &[10, 11], non_max_suppression),
];

fn gather(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (data, indices) = (n.val(0)?, n.val(1)?);
    let shape = cx.extents(&data)?;
    let axis = cx.axis(n.attrs.int_or("axis", 0)?, shape.len())?;
    let known = cx.known(&indices).and_then(|k| k.to_i64().map(|i| (k, i)));
    if let Some((at, indices)) = &known {
        if let Some(out) = cx.known(&data).and_then(|k| gather_known(&k, axis, at, indices)) {
            return one(out);
        }
        // One constant index is a slice.
        if indices.len() == 1 {
            let size = shape[axis].clone();
            let start =
                if indices[0] < 0 { size + Dim::Const(indices[0]) } else { Dim::Const(indices[0]) };
            if let (Some(i), Some(d)) = (start.as_const(), shape[axis].as_const())
                && (i < 0 || i >= d)
            {
                return Err(OpError::invalid(format!(
                    "reads index {} of an axis of extent {d}",
                    indices[0]
                )));
            }
            let x = cx.node(&data)?;
            let x = cx.slice(x, axis, start, 1, Dim::ONE)?;
            let mut to = shape;
            to.splice(axis..=axis, at.shape.iter().map(|_| Dim::ONE));
            return one(cx.reshape(x, &to)?);
        }
    }
    let x = cx.node(&data)?;
    let indices = cx.index(&indices, &shape[axis])?;
    one(cx.take(x, indices, axis)?)
}

fn gather_known(data: &Known, axis: usize, at: &Known, indices: &[i64]) -> Option<Known> {
    let size = data.shape[axis] as i64;
    let mut shape = data.shape[..axis].to_vec();
    shape.extend(&at.shape);
    shape.extend(&data.shape[axis + 1..]);
    let inner: usize = data.shape[axis + 1..].iter().product();
    let picked = indices.len();
    data.pick(shape, |i| {
        let (outer, rest) = (i / (picked * inner), i % (picked * inner));
        let index = indices[rest / inner];
        let index =
            usize::try_from(if index < 0 { index.checked_add(size)? } else { index }).ok()?;
        (index < size as usize).then(|| (outer * size as usize + index) * inner + rest % inner)
    })
}

fn gather_elements(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let axis = cx.axis(n.attrs.int_or("axis", 0)?, shape.len())?;
    let indices = cx.index(&n.val(1)?, &shape[axis])?;
    one(cx.emit(Op::GatherElements { axis: axis as i64 }, &[x, indices])?)
}

/// Index tuples with negative entries brought into range, column by column.
fn tuple_indices(
    cx: &mut Cx,
    indices: &Val,
    shape: &[Dim],
    batch: usize,
) -> Result<NodeId, OpError> {
    let extents = cx.extents(indices)?;
    let Some(width) = extents.last().and_then(Dim::as_const).and_then(|w| usize::try_from(w).ok())
    else {
        return Err(OpError::unsupported("has index tuples of unknown length"));
    };
    let Some(sizes) = shape.get(batch..batch.saturating_add(width)) else {
        return Err(OpError::invalid("has index tuples longer than the rank of its data"));
    };
    if cx.known(indices).and_then(|k| k.to_i64()).is_some_and(|i| i.iter().all(|&i| i >= 0)) {
        let node = cx.node(indices)?;
        return cx.cast(node, DType::I64);
    }
    let node = cx.node(indices)?;
    let node = cx.cast(node, DType::I64)?;
    let parts = sizes.iter().map(|d| cx.dim(d, DType::I64)).collect::<Result<Vec<_>, _>>()?;
    let rows = parts.iter().map(|&p| cx.reshape(p, &[Dim::ONE])).collect::<Result<Vec<_>, _>>()?;
    let sizes = if rows.len() == 1 { rows[0] } else { cx.concat(&rows, 0)? };
    let zero = cx.int(0)?;
    let negative = cx.map(S::Lt, &[node, zero])?;
    let wrapped = cx.map(S::Add, &[node, sizes])?;
    cx.map(S::Select, &[negative, wrapped, node])
}

fn gather_nd(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let batch = n.attrs.int_or("batch_dims", 0)?;
    let depth =
        usize::try_from(batch).map_err(|_| OpError::invalid(format!("has batch_dims {batch}")))?;
    let indices = tuple_indices(cx, &n.val(1)?, &cx.shape(x), depth)?;
    one(cx.emit(Op::GatherNd { batch }, &[x, indices])?)
}

fn scatter_op(n: &Node) -> Result<ScatterOp, OpError> {
    Ok(match n.attrs.string_or("reduction", "none")?.as_str() {
        "none" => ScatterOp::Replace,
        "add" => ScatterOp::Add,
        "mul" => ScatterOp::Mul,
        "min" => ScatterOp::Min,
        "max" => ScatterOp::Max,
        other => return Err(OpError::invalid(format!("has reduction `{other}`"))),
    })
}

fn scatter_elements(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let axis = cx.axis(n.attrs.int_or("axis", 0)?, shape.len())?;
    let indices = cx.index(&n.val(1)?, &shape[axis])?;
    let updates = n.node(cx, 2)?;
    let op = scatter_op(n)?;
    one(cx.emit(Op::ScatterElements { axis: axis as i64, op }, &[x, indices, updates])?)
}

fn scatter_nd(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, updates) = (n.node(cx, 0)?, n.node(cx, 2)?);
    let indices = tuple_indices(cx, &n.val(1)?, &cx.shape(x), 0)?;
    let op = scatter_op(n)?;
    one(cx.emit(Op::ScatterNd { op }, &[x, indices, updates])?)
}

/// A cache written at per-sample positions along an axis.
fn tensor_scatter(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (cache, updates) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let (shape, new) = (cx.shape(cache), cx.shape(updates));
    let axis = cx.axis(n.attrs.int_or("axis", -2)?, shape.len())?;
    if axis == 0 || new.len() != shape.len() {
        return Err(OpError::invalid("has an update that does not fit its cache"));
    }
    let steps = cx.iota(&new[axis], DType::I64)?;
    let mut at = cx.along(steps, axis, shape.len())?;
    if let Some(start) = n.opt_node(cx, 2)? {
        let start = cx.cast(start, DType::I64)?;
        let start = cx.along(start, 0, shape.len())?;
        at = cx.map(S::Add, &[at, start])?;
    }
    if n.attrs.string_or("mode", "linear")? == "circular" {
        let size = cx.dim(&shape[axis], DType::I64)?;
        at = cx.map(S::Mod, &[at, size])?;
    }
    let at = cx.broadcast(at, &new)?;
    one(cx.emit(
        Op::ScatterElements { axis: axis as i64, op: ScatterOp::Replace },
        &[cache, at, updates],
    )?)
}

/// `values = [off, on]`; indices outside [-depth, depth) give a row of `off`.
fn one_hot(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let indices = n.node(cx, 0)?;
    let depth =
        cx.known(&n.val(1)?).and_then(|k| k.cast(DType::I64, |_| true)).and_then(|k| k.to_dims());
    let depth = depth
        .and_then(|d| d.first().cloned())
        .ok_or(OpError::NotConstant { index: 1, what: "the depth" })?;
    let rank = cx.rank(indices) + 1;
    let axis = cx.axis(n.attrs.int_or("axis", -1)?, rank)?;
    let mut at = cx.cast(indices, DType::I64)?;
    let size = cx.dim(&depth, DType::I64)?;
    let zero = cx.int(0)?;
    let negative = cx.map(S::Lt, &[at, zero])?;
    let wrapped = cx.map(S::Add, &[at, size])?;
    at = cx.map(S::Select, &[negative, wrapped, at])?;
    let at = cx.unsqueeze(at, &[axis])?;
    let classes = cx.iota(&depth, DType::I64)?;
    let classes = cx.along(classes, axis, rank)?;
    let hit = cx.map(S::Eq, &[at, classes])?;
    let values = n.node(cx, 2)?;
    let pick = |cx: &mut Cx, i: i64| {
        let v = cx.slice(values, 0, Dim::Const(i), 1, Dim::ONE)?;
        cx.reshape(v, &[])
    };
    let (off, on) = (pick(cx, 0)?, pick(cx, 1)?);
    one(cx.map(S::Select, &[hit, on, off])?)
}

/// True where the element is not zero.
fn truth_of(cx: &mut Cx, x: NodeId) -> Result<NodeId, OpError> {
    cx.cast(x, DType::Bool)
}

fn non_zero(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let data = n.val(0)?;
    if let Some(out) = cx.known(&data).and_then(|k| non_zero_known(&k)) {
        return one(out);
    }
    let x = cx.node(&data)?;
    let x = truth_of(cx, x)?;
    let count = cx.data_symbol("count", &Dim::product(&cx.shape(x)));
    one(cx.emit(Op::NonZero { count }, &[x])?)
}

fn non_zero_known(known: &Known) -> Option<Known> {
    let values = known.to_f64()?;
    let hits: Vec<Vec<usize>> =
        (0..values.len()).filter(|&i| values[i] != 0.0).map(|i| unravel(i, &known.shape)).collect();
    let rank = known.shape.len();
    let elems = (0..rank)
        .flat_map(|a| hits.iter().map(move |h| Elem::Int(Dim::Const(h[a] as i64))))
        .collect();
    Some(Known { dtype: DType::I64, shape: vec![rank, hits.len()], elems })
}

fn compress(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let mut x = n.node(cx, 0)?;
    let axis = match n.attrs.int("axis")? {
        Some(axis) => cx.axis(axis, cx.rank(x))?,
        None => {
            let total = Dim::product(&cx.shape(x));
            x = cx.reshape(x, &[total])?;
            0
        }
    };
    let condition = n.val(1)?;
    let indices = match cx.known(&condition).and_then(|k| non_zero_known(&k)) {
        Some(known) => {
            let hits = known.shape[1];
            let known = known
                .reshaped(vec![hits])
                .ok_or_else(|| OpError::invalid("takes a condition of rank 1"))?;
            cx.node(&known.into())?
        }
        None => {
            let condition = cx.node(&condition)?;
            let length = Dim::product(&cx.shape(condition));
            let count = cx.data_symbol("count", &length);
            let hits = cx.emit(Op::NonZero { count: count.clone() }, &[condition])?;
            cx.reshape(hits, &[Dim::from(&count)])?
        }
    };
    one(cx.take(x, indices, axis)?)
}

fn top_k(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axis = cx.axis(n.attrs.int_or("axis", -1)?, cx.rank(x))?;
    let k = cx.dims(n, 1, "k")?.first().cloned().ok_or_else(|| OpError::invalid("has no k"))?;
    cx.require_at_most(&k, &cx.shape(x)[axis].clone())?;
    let largest = n.attrs.flag("largest", true)?;
    let tuple = cx.emit(Op::TopK { axis: axis as i64, k, largest }, &[x])?;
    many(&[cx.proj(tuple, 0)?, cx.proj(tuple, 1)?])
}

fn unique(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let (axis, bound) = match n.attrs.int("axis")? {
        Some(axis) => {
            let axis = cx.axis(axis, shape.len())?;
            (axis as i64, shape[axis].clone())
        }
        None => (-1, Dim::product(&shape)),
    };
    let count = cx.data_symbol("unique", &bound);
    let sorted = n.attrs.flag("sorted", true)?;
    let tuple = cx.emit(Op::Unique { axis, sorted, count }, &[x])?;
    let parts = (0..4).map(|i| cx.proj(tuple, i)).collect::<Result<Vec<_>, _>>()?;
    many(&parts)
}

/// Keeps one side of diagonal k: upper where `column - row >= k`, lower where `<= k`.
fn trilu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let rank = shape.len();
    if rank < 2 {
        return Err(OpError::invalid("takes data of rank 2 or more"));
    }
    let k = match n.opt(1) {
        Some(_) => cx.dims(n, 1, "the diagonal").ok().and_then(|d| d.first().cloned()),
        None => Some(Dim::ZERO),
    };
    let k = match k {
        Some(k) => cx.dim(&k, DType::I64)?,
        None => {
            let k = n.node(cx, 1)?;
            cx.reshape(k, &[])?
        }
    };
    let rows = cx.iota(&shape[rank - 2], DType::I64)?;
    let rows = cx.along(rows, rank - 2, rank)?;
    let columns = cx.iota(&shape[rank - 1], DType::I64)?;
    let columns = cx.along(columns, rank - 1, rank)?;
    let limit = cx.map(S::Add, &[rows, k])?;
    let keep = if n.attrs.flag("upper", true)? {
        cx.map(S::Le, &[limit, columns])?
    } else {
        cx.map(S::Le, &[columns, limit])?
    };
    let zero = cx.zero(x)?;
    one(cx.map(S::Select, &[keep, x, zero])?)
}

/// `start + step · i` for `ceil((limit - start) / step)` values.
fn range(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let bounds: Vec<Val> = (0..3).map(|i| n.val(i)).collect::<Result<_, _>>()?;
    let dtype = cx.dtype(&bounds[0])?;
    let mut known = Vec::new();
    for (index, val) in bounds.iter().enumerate() {
        let elem = cx.known(val).and_then(|k| k.elems.first().cloned());
        known.push(elem.ok_or(OpError::NotConstant { index, what: "its bounds" })?);
    }
    if let (Elem::Int(start), Elem::Int(limit), Elem::Int(step)) = (&known[0], &known[1], &known[2])
    {
        let Some(by) = step.as_const().filter(|&s| s != 0) else {
            return Err(OpError::unsupported("has a step that is not a number other than 0"));
        };
        let length = limit.clone() - start.clone();
        let length = if by > 0 {
            length.ceil_div(step)
        } else {
            (-length).ceil_div(&Dim::Const(by.saturating_neg()))
        };
        let length = cx.at_least_zero(length);
        if let Some(length) = length.as_const().and_then(|l| usize::try_from(l).ok())
            && count(&[length]).is_some()
        {
            let elem = |i: usize| Elem::Int(start.clone() + step.clone() * Dim::Const(i as i64));
            return one(Known {
                dtype,
                shape: vec![length],
                elems: (0..length).map(elem).collect(),
            });
        }
        let mut x = cx.iota(&length, dtype)?;
        if by != 1 {
            let step = cx.num(x, by as f64)?;
            x = cx.map(S::Mul, &[x, step])?;
        }
        if !start.is(0) {
            let start = cx.dim(start, dtype)?;
            x = cx.map(S::Add, &[x, start])?;
        }
        return one(x);
    }
    let numbers: Option<Vec<f64>> = known.iter().map(Elem::number).collect();
    if let Some(n) = numbers {
        let length = ((n[1] - n[0]) / n[2]).ceil().max(0.0);
        if !length.is_finite() || length > 1e9 {
            return Err(OpError::invalid("has bounds without a finite length"));
        }
        let x = cx.iota(&Dim::Const(length as i64), DType::I64)?;
        return affine(cx, x, dtype, n[0], n[2]);
    }
    // Float bounds that are whole dims, such as Range(0, Cast(S), 1).
    match (&known[0], &known[1], known[2].number()) {
        (start, Elem::Ratio(limit, 1), Some(1.0)) if start.number() == Some(0.0) => {
            let length = limit.clone();
            one(cx.iota(&length, dtype)?)
        }
        _ => Err(OpError::unsupported("has float bounds that depend on dims")),
    }
}

fn affine(cx: &mut Cx, x: NodeId, dtype: DType, start: f64, step: f64) -> Result<Outputs, OpError> {
    let x = cx.cast(x, dtype)?;
    let (start, step) = (cx.num(x, start)?, cx.num(x, step)?);
    let x = cx.map(S::Mul, &[x, step])?;
    one(cx.map(S::Add, &[x, start])?)
}

/// Reverses the first `lengths[b]` steps of each sample: source index `len - 1 - t` where `t < len`.
fn reverse_sequence(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let shape = cx.shape(x);
    let rank = shape.len();
    let batch = cx.axis(n.attrs.int_or("batch_axis", 1)?, rank)?;
    let time = cx.axis(n.attrs.int_or("time_axis", 0)?, rank)?;
    let lengths = n.node(cx, 1)?;
    let lengths = cx.cast(lengths, DType::I64)?;
    let lengths = cx.along(lengths, batch, rank)?;
    let steps = cx.iota(&shape[time], DType::I64)?;
    let steps = cx.along(steps, time, rank)?;
    let inside = cx.map(S::Lt, &[steps, lengths])?;
    let unit = cx.int(1)?;
    let mirrored = cx.map(S::Sub, &[lengths, unit])?;
    let mirrored = cx.map(S::Sub, &[mirrored, steps])?;
    let source = cx.map(S::Select, &[inside, mirrored, steps])?;
    let source = cx.broadcast(source, &shape)?;
    one(cx.emit(Op::GatherElements { axis: time as i64 }, &[x, source])?)
}

fn non_max_suppression(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (boxes, scores) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let (b, s) = (cx.shape(boxes), cx.shape(scores));
    if b.len() != 3 || s.len() != 3 {
        return Err(OpError::invalid("takes boxes and scores of rank 3"));
    }
    let scalar = |cx: &mut Cx, i: usize, dtype: DType, default: f64| match n.opt_node(cx, i)? {
        Some(x) => {
            let x = cx.reshape(x, &[])?;
            cx.cast(x, dtype)
        }
        None => cx.splat(default, dtype),
    };
    let most = scalar(cx, 2, DType::I64, 0.0)?;
    let overlap = scalar(cx, 3, DType::F32, 0.0)?;
    let least = scalar(cx, 4, DType::F32, f64::from(f32::MIN))?;
    let bound = s[0].clone() * s[1].clone() * b[1].clone();
    let count = cx.data_symbol("boxes", &bound);
    let center_point = n.attrs.flag("center_point_box", false)?;
    one(cx.emit(Op::Nms { center_point, count }, &[boxes, scores, most, overlap, least])?)
}
