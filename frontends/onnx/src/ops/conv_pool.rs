//! Convolutions and poolings.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::{PoolDivisor, ReduceOp as R, ScatterOp};
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;
use tgc_ir::spec::{ConvSpec, PoolSpec};

use super::norm::per_channel;
use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("Conv", &[1, 11, 22], conv),
    call("ConvInteger", &[10], conv_integer),
    call("ConvTranspose", &[1, 11, 22], conv_transpose),
    call("CausalConvWithState", &[27], causal_conv),
    call("MaxPool", &[1, 8, 10, 11, 12, 22], max_pool),
    call("AveragePool", &[1, 7, 10, 11, 19, 22], average_pool),
    call("LpPool", &[1, 2, 11, 18, 22], lp_pool),
    call("GlobalAveragePool", &[1, 22], global_average_pool),
    call("GlobalMaxPool", &[1, 22], global_max_pool),
    call("GlobalLpPool", &[1, 2, 22], global_lp_pool),
    call("MaxUnpool", &[9, 11, 22], max_unpool),
    call("Col2Im", &[18], col2im),
];

/// Strides, dilations and pads of a window over spatial axes.
pub(crate) struct Geometry {
    pub stride: Vec<i64>,
    pub dilation: Vec<i64>,
    pub low: Vec<Dim>,
    pub high: Vec<Dim>,
}

fn positive(name: &str, given: Option<&[i64]>, count: usize) -> Result<Vec<i64>, OpError> {
    let list = given.map_or_else(|| vec![1; count], <[i64]>::to_vec);
    if list.len() != count || list.iter().any(|&s| !(1..1 << 31).contains(&s)) {
        return Err(OpError::invalid(format!("has {name} {list:?} for {count} spatial axes")));
    }
    Ok(list)
}

/// Reads the geometry of a node; `kernel` are the window extents, `input` the spatial extents of the data.
pub(crate) fn geometry(
    cx: &Cx,
    n: &Node,
    kernel: &[Dim],
    input: &[Dim],
) -> Result<Geometry, OpError> {
    let count = input.len();
    if kernel.len() != count {
        return Err(OpError::invalid(format!(
            "has a window of rank {} over {count} spatial axes",
            kernel.len()
        )));
    }
    let stride = positive("strides", n.attrs.ints("strides")?, count)?;
    let dilation = positive("dilations", n.attrs.ints("dilations")?, count)?;
    let auto = n.attrs.string_or("auto_pad", "NOTSET")?;
    let (mut low, mut high) = (vec![Dim::ZERO; count], vec![Dim::ZERO; count]);
    match auto.as_str() {
        "NOTSET" | "" => {
            if let Some(pads) = n.attrs.ints("pads")? {
                if pads.len() != 2 * count {
                    return Err(OpError::invalid(format!(
                        "has {} pads for {count} spatial axes",
                        pads.len()
                    )));
                }
                low = pads[..count].iter().map(|&p| Dim::Const(p)).collect();
                high = pads[count..].iter().map(|&p| Dim::Const(p)).collect();
            }
        }
        "VALID" => {}
        "SAME_UPPER" | "SAME_LOWER" => {
            for axis in 0..count {
                let by = Dim::Const(stride[axis]);
                let reach =
                    (kernel[axis].clone() - Dim::ONE) * Dim::Const(dilation[axis]) + Dim::ONE;
                let out = input[axis].ceil_div(&by);
                let total = cx.at_least_zero((out - Dim::ONE) * by + reach - input[axis].clone());
                let half = total.floor_div(&Dim::Const(2));
                let rest = total - half.clone();
                (low[axis], high[axis]) =
                    if auto == "SAME_UPPER" { (half, rest) } else { (rest, half) };
            }
        }
        other => return Err(OpError::invalid(format!("has auto_pad `{other}`"))),
    }
    Ok(Geometry { stride, dilation, low, high })
}

fn check_kernel(n: &Node, kernel: &[Dim]) -> Result<(), OpError> {
    let Some(declared) = n.attrs.ints("kernel_shape")? else { return Ok(()) };
    let fits = declared.len() == kernel.len()
        && declared.iter().zip(kernel).all(|(d, k)| k.as_const().is_none_or(|k| k == *d));
    if fits {
        Ok(())
    } else {
        Err(OpError::invalid(format!("has kernel_shape {declared:?}, its weights have {kernel:?}")))
    }
}

fn add_bias(cx: &mut Cx, y: NodeId, bias: Option<NodeId>) -> Result<NodeId, OpError> {
    let Some(bias) = bias else { return Ok(y) };
    let bias = per_channel(cx, bias, cx.rank(y))?;
    cx.map(S::Add, &[y, bias])
}

/// A convolution by the node's attributes, without bias.
pub(crate) fn conv_of(cx: &mut Cx, n: &Node, x: NodeId, w: NodeId) -> Result<NodeId, OpError> {
    let (sx, sw) = (cx.shape(x), cx.shape(w));
    if sx.len() < 3 || sw.len() != sx.len() {
        return Err(OpError::invalid("takes data and weights of one rank, 3 or more"));
    }
    check_kernel(n, &sw[2..])?;
    let g = geometry(cx, n, &sw[2..], &sx[2..])?;
    let groups = n.attrs.int_or("group", 1)?;
    let channels = sw[1].clone() * Dim::Const(groups);
    cx.require_equal(&sx[1], &channels)?;
    let spec = ConvSpec {
        groups,
        output_pad: vec![0; g.stride.len()],
        stride: g.stride,
        dilation: g.dilation,
        pad_low: g.low,
        pad_high: g.high,
        transposed: false,
    };
    cx.emit(Op::Conv { spec: spec.into() }, &[x, w])
}

fn conv(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, w, b) = (n.node(cx, 0)?, n.node(cx, 1)?, n.opt_node(cx, 2)?);
    let y = conv_of(cx, n, x, w)?;
    one(add_bias(cx, y, b)?)
}

/// Padding stands for the zero point, which the subtraction makes 0.
pub(crate) fn shifted(cx: &mut Cx, x: NodeId, zero: Option<NodeId>) -> Result<NodeId, OpError> {
    let x = cx.cast(x, DType::I32)?;
    let Some(zero) = zero else { return Ok(x) };
    let zero = cx.cast(zero, DType::I32)?;
    cx.map(S::Sub, &[x, zero])
}

fn conv_integer(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, w) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let (zero_x, mut zero_w) = (n.opt_node(cx, 2)?, n.opt_node(cx, 3)?);
    if let Some(z) = zero_w
        && cx.rank(z) == 1
    {
        zero_w = Some(cx.along(z, 0, cx.rank(w))?);
    }
    let zero_x = zero_x.map(|z| cx.reshape(z, &[])).transpose()?;
    let (x, w) = (shifted(cx, x, zero_x)?, shifted(cx, w, zero_w)?);
    one(conv_of(cx, n, x, w)?)
}

fn conv_transpose(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, w, b) = (n.node(cx, 0)?, n.node(cx, 1)?, n.opt_node(cx, 2)?);
    let (sx, sw) = (cx.shape(x), cx.shape(w));
    if sx.len() < 3 || sw.len() != sx.len() {
        return Err(OpError::invalid("takes data and weights of one rank, 3 or more"));
    }
    check_kernel(n, &sw[2..])?;
    let count = sx.len() - 2;
    let output_pad =
        n.attrs.ints("output_padding")?.map_or_else(|| vec![0; count], <[i64]>::to_vec);
    if output_pad.len() != count || output_pad.iter().any(|&p| !(0..1 << 31).contains(&p)) {
        return Err(OpError::invalid(format!("has output_padding {output_pad:?}")));
    }
    let stride = positive("strides", n.attrs.ints("strides")?, count)?;
    let dilation = positive("dilations", n.attrs.ints("dilations")?, count)?;
    let auto = n.attrs.string_or("auto_pad", "NOTSET")?;
    let same = auto.starts_with("SAME");
    let declared = n.attrs.ints("output_shape")?;
    let (low, high) = if declared.is_some() || same {
        let upper = auto == "SAME_UPPER";
        let full = |axis: usize| {
            let reach = (sw[2 + axis].clone() - Dim::ONE) * Dim::Const(dilation[axis]) + Dim::ONE;
            (sx[2 + axis].clone() - Dim::ONE) * Dim::Const(stride[axis])
                + reach
                + Dim::Const(output_pad[axis])
        };
        let want = |axis: usize| match declared {
            Some(shape) if shape.len() >= count => Dim::Const(shape[shape.len() - count + axis]),
            _ => sx[2 + axis].clone() * Dim::Const(stride[axis]),
        };
        let mut sides = (Vec::new(), Vec::new());
        for axis in 0..count {
            let total = full(axis) - want(axis);
            let half = total.floor_div(&Dim::Const(2));
            let rest = total - half.clone();
            let (low, high) = if upper { (half, rest) } else { (rest, half) };
            sides.0.push(low);
            sides.1.push(high);
        }
        sides
    } else {
        let g = geometry(cx, n, &sw[2..], &sx[2..])?;
        (g.low, g.high)
    };
    let groups = n.attrs.int_or("group", 1)?;
    cx.require_equal(&sx[1], &sw[0])?;
    let spec = ConvSpec {
        groups,
        stride,
        dilation,
        pad_low: low,
        pad_high: high,
        transposed: true,
        output_pad,
    };
    let y = cx.emit(Op::Conv { spec: spec.into() }, &[x, w])?;
    one(add_bias(cx, y, b)?)
}

/// A depthwise convolution over the state followed by the data; the new state is the last `k - 1` of both.
fn causal_conv(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, w, b) = (n.node(cx, 0)?, n.node(cx, 1)?, n.opt_node(cx, 2)?);
    let (sx, sw) = (cx.shape(x), cx.shape(w));
    if sx.len() != 3 || sw.len() != 3 {
        return Err(OpError::invalid("takes data and weights of rank 3"));
    }
    let taps = sw[2].clone() - Dim::ONE;
    let zero = cx.zero(x)?;
    let whole = match n.opt_node(cx, 3)? {
        Some(state) => cx.concat(&[state, x], 2)?,
        None => {
            let low = [Dim::ZERO, Dim::ZERO, taps.clone()];
            cx.pad(x, &low, &[Dim::ZERO, Dim::ZERO, Dim::ZERO], zero)?
        }
    };
    let groups = sx[1]
        .as_const()
        .ok_or_else(|| OpError::unsupported("has a channel count that is not a number"))?;
    let spec = ConvSpec {
        groups,
        stride: vec![1],
        dilation: vec![1],
        pad_low: vec![Dim::ZERO],
        pad_high: vec![Dim::ZERO],
        transposed: false,
        output_pad: vec![0],
    };
    let y = cx.emit(Op::Conv { spec: spec.into() }, &[whole, w])?;
    let mut y = add_bias(cx, y, b)?;
    match n.attrs.string_or("activation", "none")?.as_str() {
        "none" => {}
        "silu" | "swish" => y = cx.composite("silu", &[y], &[])?,
        other => {
            return Err(OpError::invalid(format!(
                "has activation `{other}`; allowed are none, silu and swish"
            )));
        }
    }
    let state = cx.slice(whole, 2, sx[2].clone(), 1, taps)?;
    many(&[y, state])
}

/// The window of a pooling node.
fn pool_spec(
    cx: &Cx,
    n: &Node,
    x: NodeId,
    op: R,
    divisor: PoolDivisor,
) -> Result<PoolSpec, OpError> {
    let shape = cx.shape(x);
    let kernel =
        n.attrs.ints("kernel_shape")?.ok_or_else(|| OpError::invalid("lacks kernel_shape"))?;
    if shape.len() < 3 {
        return Err(OpError::invalid("takes data of rank 3 or more"));
    }
    let kernel = positive("kernel_shape", Some(kernel), shape.len() - 2)?;
    let window: Vec<Dim> = kernel.iter().map(|&k| Dim::Const(k)).collect();
    let g = geometry(cx, n, &window, &shape[2..])?;
    let ceil = n.attrs.flag("ceil_mode", false)?;
    Ok(PoolSpec {
        op,
        divisor,
        kernel,
        stride: g.stride,
        dilation: g.dilation,
        pad_low: g.low,
        pad_high: g.high,
        ceil,
    })
}

/// Indices count in the whole tensor; with `storage_order` 1 the spatial part runs column by column.
fn max_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let spec = pool_spec(cx, n, x, R::Max, PoolDivisor::One)?;
    let tuple = cx.emit(Op::Pool { spec: spec.into() }, &[x])?;
    let y = cx.proj(tuple, 0)?;
    if !n.wants(1) {
        return one(y);
    }
    let shape = cx.shape(x);
    let mut at = cx.proj(tuple, 1)?;
    if n.attrs.flag("storage_order", false)? {
        let [_, _, h, w] = shape.as_slice() else {
            return Err(OpError::unsupported(
                "with storage_order 1 is supported for two spatial axes",
            ));
        };
        let (h, w) = (cx.dim(h, DType::I64)?, cx.dim(w, DType::I64)?);
        let (row, column) = (cx.map(S::Div, &[at, w])?, cx.map(S::Mod, &[at, w])?);
        let column = cx.map(S::Mul, &[column, h])?;
        at = cx.map(S::Add, &[column, row])?;
    }
    let rank = shape.len();
    let plane = Dim::product(&shape[2..]);
    for (axis, stride) in [(0, shape[1].clone() * plane.clone()), (1, plane)] {
        let i = cx.iota(&shape[axis], DType::I64)?;
        let stride = cx.dim(&stride, DType::I64)?;
        let i = cx.map(S::Mul, &[i, stride])?;
        let i = cx.along(i, axis, rank)?;
        at = cx.map(S::Add, &[at, i])?;
    }
    many(&[y, at])
}

fn average_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let padded = n.attrs.flag("count_include_pad", false)?;
    let divisor = if padded { PoolDivisor::PaddedCount } else { PoolDivisor::ValidCount };
    let spec = pool_spec(cx, n, x, R::Sum, divisor)?;
    one(cx.emit(Op::Pool { spec: spec.into() }, &[x])?)
}

/// `|x|^p` and the p-th root of a sum.
fn power(cx: &mut Cx, x: NodeId, p: i64) -> Result<NodeId, OpError> {
    let size = cx.map(S::Abs, &[x])?;
    match p {
        1 => Ok(size),
        2 => cx.map(S::Mul, &[x, x]),
        _ => {
            let p = cx.num(x, p as f64)?;
            cx.map(S::Pow, &[size, p])
        }
    }
}

fn root(cx: &mut Cx, x: NodeId, p: i64) -> Result<NodeId, OpError> {
    match p {
        1 => Ok(x),
        2 => cx.map(S::Sqrt, &[x]),
        _ => {
            let p = cx.num(x, 1.0 / p as f64)?;
            cx.map(S::Pow, &[x, p])
        }
    }
}

fn exponent(n: &Node) -> Result<i64, OpError> {
    match n.attrs.int_or("p", 2)? {
        p if p >= 1 => Ok(p),
        p => Err(OpError::invalid(format!("has p {p}"))),
    }
}

fn lp_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let p = exponent(n)?;
    let spec = pool_spec(cx, n, x, R::Sum, PoolDivisor::One)?;
    let inner = power(cx, x, p)?;
    let sums = cx.emit(Op::Pool { spec: spec.into() }, &[inner])?;
    one(root(cx, sums, p)?)
}

fn spatial(cx: &Cx, x: NodeId) -> Vec<usize> {
    (2..cx.rank(x)).collect()
}

fn global_average_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axes = spatial(cx, x);
    one(cx.mean(x, &axes)?)
}

fn global_max_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let axes = spatial(cx, x);
    one(cx.reduce(R::Max, x, &axes, true)?)
}

fn global_lp_pool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let p = exponent(n)?;
    let inner = power(cx, x, p)?;
    let sums = cx.reduce(R::Sum, inner, &spatial(cx, x), true)?;
    one(root(cx, sums, p)?)
}

/// Values go to their indices in a tensor of zeros. Indices count in the unpadded output of default extents.
fn max_unpool(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, at) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let shape = cx.shape(x);
    let kernel =
        n.attrs.ints("kernel_shape")?.ok_or_else(|| OpError::invalid("lacks kernel_shape"))?;
    if shape.len() != kernel.len() + 2 {
        return Err(OpError::invalid("has a window that does not fit its data"));
    }
    let window: Vec<Dim> = kernel.iter().map(|&k| Dim::Const(k)).collect();
    let g = geometry(cx, n, &window, &shape[2..])?;
    let mut natural = shape[..2].to_vec();
    for axis in 0..kernel.len() {
        let pads = g.low[axis].clone() + g.high[axis].clone();
        natural.push(
            (shape[2 + axis].clone() - Dim::ONE) * Dim::Const(g.stride[axis])
                + window[axis].clone()
                - pads,
        );
    }
    let to = match n.opt(2) {
        Some(_) => cx.dims(n, 2, "the output shape")?,
        None => natural.clone(),
    };
    let flat = |cx: &mut Cx, x: NodeId, d: &Dim| cx.reshape(x, std::slice::from_ref(d));
    let count = Dim::product(&shape);
    let (values, at) = (flat(cx, x, &count)?, flat(cx, at, &count)?);
    let zero = cx.zero(x)?;
    let cells = cx.broadcast(zero, &[Dim::product(&natural)])?;
    let op = Op::ScatterElements { axis: 0, op: ScatterOp::Replace };
    let y = cx.emit(op, &[cells, at, values])?;
    let y = cx.reshape(y, &natural)?;
    let low = vec![Dim::ZERO; to.len()];
    let high: Vec<Dim> = to.iter().zip(&natural).map(|(t, n)| t.clone() - n.clone()).collect();
    one(cx.pad(y, &low, &high, zero)?)
}

/// Overlapping blocks added into an image: a transposed convolution with the identity as weights.
fn col2im(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let image = cx.dims(n, 1, "the image shape")?;
    let block = cx.ints(n, 2, "the block shape")?;
    let shape = cx.shape(x);
    if shape.len() != 3 || image.len() != block.len() || block.iter().any(|&b| b < 1) {
        return Err(OpError::invalid("has image and block shapes that do not fit its data"));
    }
    let window: Vec<Dim> = block.iter().map(|&b| Dim::Const(b)).collect();
    let g = geometry(cx, n, &window, &image)?;
    let cells = Dim::product(&window);
    let channels = shape[1].floor_div(&cells);
    let mut grid = vec![shape[0].clone() * channels.clone(), cells.clone()];
    for axis in 0..block.len() {
        let reach = Dim::Const((block[axis] - 1).saturating_mul(g.dilation[axis]) + 1);
        let room = image[axis].clone() + g.low[axis].clone() + g.high[axis].clone() - reach;
        grid.push(room.floor_div(&Dim::Const(g.stride[axis])) + Dim::ONE);
    }
    let x = cx.reshape(x, &grid)?;
    let row = cx.iota(&cells, DType::I64)?;
    let (row, column) = (cx.along(row, 0, 2)?, cx.along(row, 1, 2)?);
    let eye = cx.map(S::Eq, &[row, column])?;
    let dtype = cx.node_dtype(x);
    let eye = cx.cast(eye, dtype)?;
    let mut filter = vec![cells, Dim::ONE];
    filter.extend(window);
    let w = cx.reshape(eye, &filter)?;
    let mut output_pad = Vec::new();
    for axis in 0..block.len() {
        let reach = Dim::Const((block[axis] - 1).saturating_mul(g.dilation[axis]) + 1);
        let covered = (grid[2 + axis].clone() - Dim::ONE) * Dim::Const(g.stride[axis]) + reach;
        let left = image[axis].clone() + g.low[axis].clone() + g.high[axis].clone() - covered;
        output_pad.push(
            left.as_const().ok_or_else(|| OpError::unsupported("has an image of unknown size"))?,
        );
    }
    let spec = ConvSpec {
        groups: 1,
        stride: g.stride,
        dilation: g.dilation,
        pad_low: g.low,
        pad_high: g.high,
        transposed: true,
        output_pad,
    };
    let y = cx.emit(Op::Conv { spec: spec.into() }, &[x, w])?;
    let mut to = vec![shape[0].clone(), channels];
    to.extend(image);
    one(cx.reshape(y, &to)?)
}
