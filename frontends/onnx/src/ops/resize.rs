//! Resize: per axis, each output element is a weighted sum of a few input elements.
//!
//! With known extents the taps are computed here and become literals; with symbolic extents they become nodes. The formulas
//! are those of the ONNX Resize-19 text and its reference implementation.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::scalar::{ScalarOp as S, Value};
use tgc_ir::tensor::Tensor;

use super::linear::{Labelled, Labels, contract};
use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] =
    &[call("Resize", &[10, 11, 13, 18, 19], resize), call("Upsample", &[7, 9, 10], resize)];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Nearest,
    Linear,
    Cubic,
}

struct Style {
    mode: Mode,
    transform: String,
    nearest: String,
    cubic_a: f64,
    exclude_outside: bool,
    antialias: bool,
    extrapolation: f64,
}

fn style(n: &Node) -> Result<Style, OpError> {
    let mode = match n.attrs.string_or("mode", "nearest")?.as_str() {
        "nearest" => Mode::Nearest,
        "linear" | "bilinear" => Mode::Linear,
        "cubic" => Mode::Cubic,
        other => return Err(OpError::invalid(format!("has mode `{other}`"))),
    };
    Ok(Style {
        mode,
        transform: n.attrs.string_or("coordinate_transformation_mode", "half_pixel")?,
        nearest: n.attrs.string_or("nearest_mode", "round_prefer_floor")?,
        cubic_a: n.attrs.float_or("cubic_coeff_a", -0.75)?,
        exclude_outside: n.attrs.flag("exclude_outside", false)?,
        antialias: n.attrs.flag("antialias", false)?,
        extrapolation: n.attrs.float_or("extrapolation_value", 0.0)?,
    })
}

/// One axis: its extents, the scale that coordinates are computed with, and the region of `tf_crop_and_resize`.
struct Axis {
    axis: usize,
    from: Dim,
    to: Dim,
    /// `None`: the quotient of the extents.
    scale: Option<f64>,
    region: (f64, f64),
}

/// The axes that change, by scales or sizes.
fn axes_of(cx: &mut Cx, n: &Node, shape: &[Dim]) -> Result<Vec<Axis>, OpError> {
    let axes = match n.attrs.ints("axes")? {
        Some(axes) => cx.axes(axes, shape.len())?,
        None => (0..shape.len()).collect(),
    };
    let given = |cx: &Cx, i: usize| {
        n.opt(i).is_some_and(|v| cx.extents(&v).is_ok_and(|s| !s.iter().any(|d| d.is(0))))
    };
    let crops = n.attrs.string_or("coordinate_transformation_mode", "")? == "tf_crop_and_resize";
    let region = if crops { cx.floats(n, 1, "the region")? } else { Vec::new() };
    let region = |i: usize| match (region.get(i), region.get(i + axes.len())) {
        (Some(&start), Some(&end)) => (start, end),
        _ => (0.0, 1.0),
    };
    let mut out = Vec::new();
    if given(cx, 3) {
        let sizes = cx.dims(n, 3, "the sizes")?;
        if sizes.len() != axes.len() {
            return Err(OpError::invalid(format!(
                "has {} sizes for {} axes",
                sizes.len(),
                axes.len()
            )));
        }
        let kept = kept_scale(n, shape, &axes, &sizes)?;
        for (i, (&axis, size)) in axes.iter().zip(sizes).enumerate() {
            let from = shape[axis].clone();
            let (to, scale) = match (kept, from.as_const()) {
                (Some(scale), Some(d)) => {
                    (Dim::Const((scale * d as f64 + 0.5).floor() as i64), Some(scale))
                }
                _ => (size, None),
            };
            out.push(Axis { axis, from, to, scale, region: region(i) });
        }
        return Ok(out);
    }
    let known = cx.known(&n.val(2)?).filter(|k| k.elems.len() == axes.len());
    let scales = known.ok_or(OpError::NotConstant { index: 2, what: "the scales" })?;
    for (i, (&axis, scale)) in axes.iter().zip(&scales.elems).enumerate() {
        let scale = scale.number().ok_or(OpError::NotConstant { index: 2, what: "the scales" })?;
        if !scale.is_finite() || scale <= 0.0 {
            return Err(OpError::invalid(format!("has scale {scale}")));
        }
        let from = shape[axis].clone();
        let (start, end) = region(i);
        out.push(Axis {
            axis,
            to: scaled(&from, scale * (end - start))?,
            from,
            scale: Some(scale),
            region: (start, end),
        });
    }
    Ok(out)
}

/// `floor(extent · scale)`.
fn scaled(extent: &Dim, scale: f64) -> Result<Dim, OpError> {
    if let Some(d) = extent.as_const() {
        return Ok(Dim::Const((d as f64 * scale).floor() as i64));
    }
    for den in [1i64, 2, 3, 4, 5, 6, 7, 8, 10, 16, 32] {
        let num = scale * den as f64;
        if (num - num.round()).abs() < 1e-6 && num.round() >= 1.0 {
            return Ok(
                (extent.clone() * Dim::Const(num.round() as i64)).floor_div(&Dim::Const(den))
            );
        }
    }
    Err(OpError::unsupported(format!(
        "scales the symbolic extent {extent} by {scale}, which is no small fraction"
    )))
}

/// One scale for all axes when the aspect ratio is kept.
fn kept_scale(
    n: &Node,
    shape: &[Dim],
    axes: &[usize],
    sizes: &[Dim],
) -> Result<Option<f64>, OpError> {
    let policy = n.attrs.string_or("keep_aspect_ratio_policy", "stretch")?;
    if policy == "stretch" {
        return Ok(None);
    }
    let mut best: Option<f64> = None;
    for (&axis, size) in axes.iter().zip(sizes) {
        let (Some(from), Some(to)) = (shape[axis].as_const(), size.as_const()) else {
            return Err(OpError::unsupported("keeps the aspect ratio of symbolic extents"));
        };
        let scale = to as f64 / from as f64;
        best = Some(match (best, policy.as_str()) {
            (None, _) => scale,
            (Some(b), "not_larger") => b.min(scale),
            (Some(b), "not_smaller") => b.max(scale),
            _ => return Err(OpError::invalid(format!("has keep_aspect_ratio_policy `{policy}`"))),
        });
    }
    Ok(best)
}

fn resize(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let mut x = n.node(cx, 0)?;
    let style = style(n)?;
    let dtype = cx.node_dtype(x);
    let axes = axes_of(cx, n, &cx.shape(x))?;
    let interpolates = style.mode != Mode::Nearest && !dtype.is_float();
    if interpolates {
        x = cx.cast(x, DType::F32)?;
    }
    let mut outside = None;
    for axis in axes {
        let same = axis.from == axis.to
            && axis.region == (0.0, 1.0)
            && axis.scale.is_none_or(|s| s == 1.0);
        if !same {
            x = resize_axis(cx, x, &axis, &style, &mut outside)?;
        }
    }
    if let Some(outside) = outside {
        let fill = cx.num(x, style.extrapolation)?;
        x = cx.map(S::Select, &[outside, fill, x])?;
    }
    if interpolates {
        let rounded = cx.map(S::Round, &[x])?;
        x = cx.cast(rounded, dtype)?;
    }
    one(x)
}

fn resize_axis(
    cx: &mut Cx,
    x: NodeId,
    axis: &Axis,
    style: &Style,
    outside: &mut Option<NodeId>,
) -> Result<NodeId, OpError> {
    if let Some(times) = repeats(axis, style) {
        return repeat_each(cx, x, axis, times);
    }
    let (Some(from), Some(to)) = (axis.from.as_const(), axis.to.as_const()) else {
        return symbolic_axis(cx, x, axis, style);
    };
    if !(1..1 << 24).contains(&from) || !(0..1 << 24).contains(&to) {
        return Err(OpError::invalid(format!("resizes extent {from} to {to}")));
    }
    let rows: Vec<Row> =
        (0..to).map(|i| row(i, from, to, axis, style)).collect::<Result<_, _>>()?;
    if style.transform == "tf_crop_and_resize" {
        let beyond: Vec<Value> = rows.iter().map(|r| Value::Int(i128::from(r.outside))).collect();
        let mask = cx.constant(Tensor::from_values(DType::Bool, &[rows.len()], &beyond))?;
        let mask = cx.along(mask, axis.axis, cx.rank(x))?;
        *outside = Some(match *outside {
            Some(before) => cx.map(S::Or, &[before, mask])?,
            None => mask,
        });
    }
    let width = rows.iter().map(|r| r.taps.len()).max().unwrap_or(0);
    if width <= 4 {
        sum_of_taps(cx, x, axis, &rows, width)
    } else {
        product(cx, x, axis, &rows, from)
    }
}

/// The factor of a nearest upsampling that only repeats elements.
fn repeats(axis: &Axis, style: &Style) -> Option<i64> {
    let times = axis.to.exact_div(&axis.from)?.as_const().filter(|&t| t >= 1)?;
    let exact = axis.scale.is_none_or(|s| s == times as f64);
    let floors = match style.transform.as_str() {
        "asymmetric" => style.nearest == "floor",
        "half_pixel" | "pytorch_half_pixel" => {
            style.nearest.starts_with("round") && axis.from.as_const() != Some(0)
        }
        _ => false,
    };
    // pytorch_half_pixel reads 0 when the result has one element, which is what repetition gives too.
    (style.mode == Mode::Nearest && exact && floors).then_some(times)
}

fn repeat_each(cx: &mut Cx, x: NodeId, axis: &Axis, times: i64) -> Result<NodeId, OpError> {
    let mut merged = cx.shape(x);
    let mut wide = merged.clone();
    wide.insert(axis.axis + 1, Dim::Const(times));
    let x = cx.unsqueeze(x, &[axis.axis + 1])?;
    let x = cx.broadcast(x, &wide)?;
    merged[axis.axis] = axis.to.clone();
    cx.reshape(x, &merged)
}

/// What one output element reads.
struct Row {
    taps: Vec<(i64, f64)>,
    outside: bool,
}

/// The input coordinate of an output index.
fn coordinate(i: f64, from: f64, to: f64, axis: &Axis, transform: &str) -> Result<f64, OpError> {
    let scale = axis.scale.unwrap_or(to / from);
    let half = (i + 0.5) / scale - 0.5;
    Ok(match transform {
        "half_pixel" => half,
        "pytorch_half_pixel" => {
            if to > 1.0 {
                half
            } else {
                0.0
            }
        }
        "half_pixel_symmetric" => from / 2.0 * (1.0 - to / (scale * from)) + half,
        "align_corners" => {
            // The resized length is a fraction when scales are given.
            let length = axis.scale.map_or(to, |s| s * from);
            if length == 1.0 { 0.0 } else { i * (from - 1.0) / (length - 1.0) }
        }
        "asymmetric" => i / scale,
        "tf_crop_and_resize" => {
            let (start, end) = axis.region;
            if to > 1.0 {
                start * (from - 1.0) + i * (end - start) * (from - 1.0) / (to - 1.0)
            } else {
                0.5 * (start + end) * (from - 1.0)
            }
        }
        other => {
            return Err(OpError::invalid(format!("has coordinate_transformation_mode `{other}`")));
        }
    })
}

fn row(i: i64, from: i64, to: i64, axis: &Axis, style: &Style) -> Result<Row, OpError> {
    let x = coordinate(i as f64, from as f64, to as f64, axis, &style.transform)?;
    let outside = style.transform == "tf_crop_and_resize" && (x < 0.0 || x > (from - 1) as f64);
    let last = from - 1;
    if style.mode == Mode::Nearest {
        let at = nearest(x, &style.nearest)?;
        return Ok(Row { taps: vec![((at as i64).clamp(0, last), 1.0)], outside });
    }
    let base = x.ceil() - 1.0;
    let ratio = x - base;
    let scale = axis.scale.unwrap_or(to as f64 / from as f64);
    let (first, weights) = weights(ratio, scale, style);
    let mut taps: Vec<(i64, f64)> =
        weights.iter().enumerate().map(|(k, &w)| (base as i64 + first + k as i64, w)).collect();
    if style.exclude_outside {
        taps.iter_mut().filter(|(at, _)| *at < 0 || *at > last).for_each(|(_, w)| *w = 0.0);
        let total: f64 = taps.iter().map(|(_, w)| w).sum();
        taps.iter_mut().for_each(|(_, w)| *w /= total);
    }
    taps.iter_mut().for_each(|(at, _)| *at = (*at).clamp(0, last));
    Ok(Row { taps, outside })
}

fn nearest(x: f64, rule: &str) -> Result<f64, OpError> {
    Ok(match rule {
        "round_prefer_floor" => (x - 0.5).ceil(),
        "round_prefer_ceil" => (x + 0.5).floor(),
        "floor" => x.floor(),
        "ceil" => x.ceil(),
        other => return Err(OpError::invalid(format!("has nearest_mode `{other}`"))),
    })
}

/// Weights of taps from `first` on, for a coordinate `ratio` in (0, 1] behind tap 0; antialiasing widens them by 1/scale.
fn weights(ratio: f64, scale: f64, style: &Style) -> (i64, Vec<f64>) {
    let scale = if style.antialias { scale.min(1.0) } else { 1.0 };
    let reach = if style.mode == Mode::Linear { 1.0 } else { 2.0 };
    let first = (-reach / scale).floor() as i64 + 1;
    let count = 2 - 2 * first;
    let kernel = |x: f64| {
        let x = x.abs();
        match style.mode {
            Mode::Linear | Mode::Nearest => (1.0 - x).max(0.0),
            Mode::Cubic => cubic(x, style.cubic_a),
        }
    };
    let mut out: Vec<f64> =
        (0..count).map(|k| kernel(scale * ((first + k) as f64 - ratio))).collect();
    if style.antialias {
        let total: f64 = out.iter().sum();
        out.iter_mut().for_each(|w| *w /= total);
    }
    (first, out)
}

/// Keys' cubic convolution kernel.
fn cubic(x: f64, a: f64) -> f64 {
    if x <= 1.0 {
        ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        ((a * x - 5.0 * a) * x + 8.0 * a) * x - 4.0 * a
    } else {
        0.0
    }
}

fn sum_of_taps(
    cx: &mut Cx,
    x: NodeId,
    axis: &Axis,
    rows: &[Row],
    width: usize,
) -> Result<NodeId, OpError> {
    let (rank, dtype) = (cx.rank(x), cx.node_dtype(x));
    let mut total = None;
    for k in 0..width {
        let tap = |r: &Row| r.taps.get(k).copied().unwrap_or((0, 0.0));
        let at: Vec<i64> = rows.iter().map(|r| tap(r).0).collect();
        let weight: Vec<f64> = rows.iter().map(|r| tap(r).1).collect();
        if weight.iter().all(|w| *w == 0.0) && total.is_some() {
            continue;
        }
        let at = cx.constant(Tensor::from_i64(&[at.len()], &at))?;
        let mut part = cx.take(x, at, axis.axis)?;
        if weight.iter().any(|w| *w != 1.0) {
            let values: Vec<Value> = weight.iter().map(|&w| Value::Float(w)).collect();
            let weight = cx.constant(Tensor::from_values(dtype, &[values.len()], &values))?;
            let weight = cx.along(weight, axis.axis, rank)?;
            part = cx.map(S::Mul, &[part, weight])?;
        }
        total = Some(match total {
            Some(total) => cx.map(S::Add, &[total, part])?,
            None => part,
        });
    }
    total.ok_or_else(|| OpError::invalid("has an empty result"))
}

/// A product with the matrix of weights, for rows of many taps.
fn product(
    cx: &mut Cx,
    x: NodeId,
    axis: &Axis,
    rows: &[Row],
    from: i64,
) -> Result<NodeId, OpError> {
    let mut matrix = vec![0.0; rows.len() * from as usize];
    for (i, row) in rows.iter().enumerate() {
        for &(at, weight) in &row.taps {
            matrix[i * from as usize + at as usize] += weight;
        }
    }
    let values: Vec<Value> = matrix.into_iter().map(Value::Float).collect();
    let dtype = cx.node_dtype(x);
    let matrix = cx.constant(Tensor::from_values(dtype, &[rows.len(), from as usize], &values))?;
    let rank = cx.rank(x) as u32;
    let mut labels = Labels::default();
    let own: Vec<u32> = (0..rank).collect();
    for (extent, &label) in cx.shape(x).iter().zip(&own) {
        labels.meet(cx, label, extent)?;
    }
    labels.meet(cx, rank, &axis.to)?;
    let out: Vec<u32> =
        own.iter().map(|&l| if l as usize == axis.axis { rank } else { l }).collect();
    let x = Labelled { node: x, labels: own };
    let m = Labelled { node: matrix, labels: vec![rank, axis.axis as u32] };
    contract(cx, &labels, &x, &m, &out)
}

/// Coordinates as nodes, for extents that are not numbers.
fn symbolic_axis(cx: &mut Cx, x: NodeId, axis: &Axis, style: &Style) -> Result<NodeId, OpError> {
    if style.exclude_outside || style.antialias || style.mode == Mode::Cubic {
        return Err(OpError::unsupported(
            "of symbolic extents is supported in modes nearest and linear, without antialiasing",
        ));
    }
    let f = DType::F32;
    let i = cx.iota(&axis.to, f)?;
    let (from, to) = (cx.dim(&axis.from, f)?, cx.dim(&axis.to, f)?);
    let scale = match axis.scale {
        Some(scale) => cx.splat(scale, f)?,
        None => cx.map(S::Div, &[to, from])?,
    };
    let (half, unit) = (cx.splat(0.5, f)?, cx.splat(1.0, f)?);
    let at = match style.transform.as_str() {
        "asymmetric" => cx.map(S::Div, &[i, scale])?,
        "half_pixel" | "pytorch_half_pixel" => {
            let centre = cx.map(S::Add, &[i, half])?;
            let centre = cx.map(S::Div, &[centre, scale])?;
            let at = cx.map(S::Sub, &[centre, half])?;
            if style.transform == "half_pixel" || axis.to.as_const().is_some_and(|to| to > 1) {
                at
            } else {
                let (zero, single) = (cx.splat(0.0, f)?, cx.map(S::Le, &[to, unit])?);
                cx.map(S::Select, &[single, zero, at])?
            }
        }
        "align_corners" => {
            let (a, b) = (cx.map(S::Sub, &[from, unit])?, cx.map(S::Sub, &[to, unit])?);
            let b = cx.map(S::Max, &[b, unit])?;
            let step = cx.map(S::Mul, &[i, a])?;
            cx.map(S::Div, &[step, b])?
        }
        other => {
            return Err(OpError::unsupported(format!(
                "of symbolic extents with `{other}` is not supported"
            )));
        }
    };
    let last = cx.dim(&(axis.from.clone() - Dim::ONE), DType::I64)?;
    let zero = cx.int(0)?;
    let pick = |cx: &mut Cx, at: NodeId| {
        let at = cx.cast(at, DType::I64)?;
        let at = cx.map(S::Max, &[at, zero])?;
        let at = cx.map(S::Min, &[at, last])?;
        cx.take(x, at, axis.axis)
    };
    if style.mode == Mode::Nearest {
        let at = match style.nearest.as_str() {
            "floor" => cx.map(S::Floor, &[at])?,
            "ceil" => cx.map(S::Ceil, &[at])?,
            "round_prefer_ceil" => {
                let at = cx.map(S::Add, &[at, half])?;
                cx.map(S::Floor, &[at])?
            }
            _ => {
                let at = cx.map(S::Sub, &[at, half])?;
                cx.map(S::Ceil, &[at])?
            }
        };
        return pick(cx, at);
    }
    let base = cx.map(S::Floor, &[at])?;
    let ratio = cx.map(S::Sub, &[at, base])?;
    let next = cx.map(S::Add, &[base, unit])?;
    let (low, high) = (pick(cx, base)?, pick(cx, next)?);
    let dtype = cx.node_dtype(x);
    let ratio = cx.cast(ratio, dtype)?;
    let ratio = cx.along(ratio, axis.axis, cx.rank(x))?;
    let step = cx.map(S::Sub, &[high, low])?;
    let step = cx.map(S::Mul, &[step, ratio])?;
    cx.map(S::Add, &[low, step])
}
