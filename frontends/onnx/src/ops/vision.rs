//! Sampling of images at computed positions.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;

use super::linear::matmul_of;
use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] =
    &[call("GridSample", &[16, 20, 22], grid_sample), call("AffineGrid", &[20], affine_grid)];

/// How positions outside the image read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Padding {
    Zeros,
    Border,
    Reflection,
}

struct Sampler {
    x: NodeId,
    /// Extents of the spatial axes.
    spatial: Vec<Dim>,
    dtype: DType,
    padding: Padding,
    align_corners: bool,
    /// `[N, C, P]`: the shape of what is read.
    read: Vec<Dim>,
}

impl Sampler {
    /// `(g + 1) / 2 · (size - 1)`, or `((g + 1) · size - 1) / 2` when the edges of corner cells are at ±1.
    fn position(&self, cx: &mut Cx, g: NodeId, size: &Dim) -> Result<NodeId, OpError> {
        let (unit, half) = (cx.num(g, 1.0)?, cx.num(g, 0.5)?);
        let dtype = self.dtype;
        let from_zero = cx.map(S::Add, &[g, unit])?;
        if self.align_corners {
            let last = cx.dim(&(size.clone() - Dim::ONE), dtype)?;
            let scaled = cx.map(S::Mul, &[from_zero, last])?;
            return cx.map(S::Mul, &[scaled, half]);
        }
        let size = cx.dim(size, dtype)?;
        let scaled = cx.map(S::Mul, &[from_zero, size])?;
        let scaled = cx.map(S::Sub, &[scaled, unit])?;
        cx.map(S::Mul, &[scaled, half])
    }

    /// Brings a position into the image for the border and reflection rules.
    fn inside(&self, cx: &mut Cx, at: NodeId, size: &Dim) -> Result<NodeId, OpError> {
        let (zero, half) = (cx.num(at, 0.0)?, cx.num(at, 0.5)?);
        let last = cx.dim(&(size.clone() - Dim::ONE), self.dtype)?;
        match self.padding {
            Padding::Zeros => Ok(at),
            Padding::Border => {
                let at = cx.map(S::Max, &[at, zero])?;
                cx.map(S::Min, &[at, last])
            }
            Padding::Reflection => {
                // A triangle wave over [low, high]: span - |(|x - low| mod 2·span) - span| + low.
                let (low, span) = if self.align_corners {
                    (zero, last)
                } else {
                    let low = cx.map(S::Neg, &[half])?;
                    (low, cx.dim(size, self.dtype)?)
                };
                let two = cx.num(at, 2.0)?;
                let d = cx.map(S::Sub, &[at, low])?;
                let d = cx.map(S::Abs, &[d])?;
                let period = cx.map(S::Mul, &[span, two])?;
                let unit = cx.num(at, 1.0)?;
                let period =
                    cx.map(S::Max, &[period, if self.align_corners { unit } else { period }])?;
                let d = cx.map(S::Mod, &[d, period])?;
                let d = cx.map(S::Sub, &[d, span])?;
                let d = cx.map(S::Abs, &[d])?;
                let d = cx.map(S::Sub, &[span, d])?;
                cx.map(S::Add, &[d, low])
            }
        }
    }

    /// Elements at whole positions (one `[N, P]` float per axis); outside the image by the padding rule.
    fn pixel(&self, cx: &mut Cx, at: &[NodeId]) -> Result<NodeId, OpError> {
        let mut linear = None;
        let mut valid = None;
        for (axis, &position) in at.iter().enumerate() {
            let size = &self.spatial[axis];
            let position = self.inside(cx, position, size)?;
            let last = cx.dim(&(size.clone() - Dim::ONE), self.dtype)?;
            let zero = cx.num(position, 0.0)?;
            if self.padding == Padding::Zeros {
                let (low, high) =
                    (cx.map(S::Le, &[zero, position])?, cx.map(S::Le, &[position, last])?);
                let both = cx.map(S::And, &[low, high])?;
                valid = Some(match valid {
                    Some(valid) => cx.map(S::And, &[valid, both])?,
                    None => both,
                });
            }
            let clamped = cx.map(S::Max, &[position, zero])?;
            let clamped = cx.map(S::Min, &[clamped, last])?;
            let clamped = cx.map(S::Round, &[clamped])?;
            let index = cx.cast(clamped, DType::I64)?;
            linear = Some(match linear {
                Some(before) => {
                    let size = cx.dim(size, DType::I64)?;
                    let before = cx.map(S::Mul, &[before, size])?;
                    cx.map(S::Add, &[before, index])?
                }
                None => index,
            });
        }
        let Some(linear) = linear else { return Err(OpError::invalid("has no spatial axes")) };
        let index = cx.unsqueeze(linear, &[1])?;
        let index = cx.broadcast(index, &self.read)?;
        let picked = cx.emit(Op::GatherElements { axis: 2 }, &[self.x, index])?;
        let Some(valid) = valid else { return Ok(picked) };
        let valid = cx.unsqueeze(valid, &[1])?;
        let zero = cx.zero(picked)?;
        cx.map(S::Select, &[valid, picked, zero])
    }

    /// Σ over the corners of the taps of each axis.
    fn weighted(&self, cx: &mut Cx, taps: &[Vec<(NodeId, NodeId)>]) -> Result<NodeId, OpError> {
        let count: usize = taps.iter().map(Vec::len).product();
        let mut total = None;
        for corner in 0..count {
            let mut rest = corner;
            let (mut at, mut weight) = (Vec::new(), None);
            for axis in taps {
                let (position, w) = axis[rest % axis.len()];
                rest /= axis.len();
                at.push(position);
                weight = Some(match weight {
                    Some(before) => cx.map(S::Mul, &[before, w])?,
                    None => w,
                });
            }
            let Some(weight) = weight else { return Err(OpError::invalid("has no spatial axes")) };
            let value = self.pixel(cx, &at)?;
            let weight = cx.unsqueeze(weight, &[1])?;
            let part = cx.map(S::Mul, &[value, weight])?;
            total = Some(match total {
                Some(total) => cx.map(S::Add, &[total, part])?,
                None => part,
            });
        }
        total.ok_or_else(|| OpError::invalid("has no spatial axes"))
    }

    /// The two or four taps of one axis around a position.
    fn taps(&self, cx: &mut Cx, at: NodeId, cubic: bool) -> Result<Vec<(NodeId, NodeId)>, OpError> {
        let unit = cx.num(at, 1.0)?;
        let base = cx.map(S::Floor, &[at])?;
        let ratio = cx.map(S::Sub, &[at, base])?;
        let rest = cx.map(S::Sub, &[unit, ratio])?;
        let next = cx.map(S::Add, &[base, unit])?;
        if !cubic {
            return Ok(vec![(base, rest), (next, ratio)]);
        }
        let (before, after) = (cx.map(S::Sub, &[base, unit])?, cx.map(S::Add, &[next, unit])?);
        let (far_left, far_right) =
            (cx.map(S::Add, &[ratio, unit])?, cx.map(S::Add, &[rest, unit])?);
        Ok(vec![
            (before, outer_weight(cx, far_left)?),
            (base, inner_weight(cx, ratio)?),
            (next, inner_weight(cx, rest)?),
            (after, outer_weight(cx, far_right)?),
        ])
    }
}

/// Coefficient of the cubic kernel (GridSample-20).
const CUBIC_A: f64 = -0.75;

/// A polynomial by Horner's rule, highest coefficient first.
fn polynomial(cx: &mut Cx, x: NodeId, coefficients: &[f64]) -> Result<NodeId, OpError> {
    let mut total = cx.num(x, coefficients[0])?;
    for &c in &coefficients[1..] {
        let c = cx.num(x, c)?;
        let scaled = cx.map(S::Mul, &[total, x])?;
        total = cx.map(S::Add, &[scaled, c])?;
    }
    Ok(total)
}

fn inner_weight(cx: &mut Cx, x: NodeId) -> Result<NodeId, OpError> {
    polynomial(cx, x, &[CUBIC_A + 2.0, -(CUBIC_A + 3.0), 0.0, 1.0])
}

fn outer_weight(cx: &mut Cx, x: NodeId) -> Result<NodeId, OpError> {
    polynomial(cx, x, &[CUBIC_A, -5.0 * CUBIC_A, 8.0 * CUBIC_A, -4.0 * CUBIC_A])
}

fn grid_sample(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, grid) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let (sx, sg) = (cx.shape(x), cx.shape(grid));
    let d = sx
        .len()
        .checked_sub(2)
        .filter(|&d| d > 0)
        .ok_or_else(|| OpError::invalid("takes data of rank 3 or more"))?;
    if sg.len() != d + 2 || !sg[d + 1].is(d as i64) {
        return Err(OpError::invalid("has a grid that does not fit its data"));
    }
    let padding = match n.attrs.string_or("padding_mode", "zeros")?.as_str() {
        "zeros" => Padding::Zeros,
        "border" => Padding::Border,
        "reflection" => Padding::Reflection,
        other => return Err(OpError::invalid(format!("has padding_mode `{other}`"))),
    };
    let points = Dim::product(&sg[1..=d]);
    let flat = cx.reshape(x, &[sx[0].clone(), sx[1].clone(), Dim::product(&sx[2..])])?;
    let sampler = Sampler {
        x: flat,
        spatial: sx[2..].to_vec(),
        dtype: cx.node_dtype(grid),
        padding,
        align_corners: n.attrs.flag("align_corners", false)?,
        read: vec![sx[0].clone(), sx[1].clone(), points.clone()],
    };
    let grid = cx.reshape(grid, &[sg[0].clone(), points, Dim::Const(d as i64)])?;
    let mode = n.attrs.string_or("mode", "linear")?;
    let mut positions = Vec::new();
    for axis in 0..d {
        // The grid lists coordinates from the innermost axis outwards.
        let g = cx.slice(grid, 2, Dim::Const((d - 1 - axis) as i64), 1, Dim::ONE)?;
        let g = cx.squeeze(g, &[2])?;
        let at = sampler.position(cx, g, &sampler.spatial[axis])?;
        positions.push(if mode.ends_with("cubic") {
            at
        } else {
            sampler.inside(cx, at, &sampler.spatial[axis])?
        });
    }
    let y = match mode.as_str() {
        "nearest" => {
            let at: Vec<NodeId> =
                positions.iter().map(|&p| cx.map(S::Round, &[p])).collect::<Result<_, _>>()?;
            sampler.pixel(cx, &at)?
        }
        "linear" | "bilinear" | "cubic" | "bicubic" => {
            let cubic = mode.ends_with("cubic");
            let taps: Vec<_> =
                positions.iter().map(|&p| sampler.taps(cx, p, cubic)).collect::<Result<_, _>>()?;
            let y = sampler.weighted(cx, &taps)?;
            let dtype = cx.node_dtype(x);
            cx.cast(y, dtype)?
        }
        other => return Err(OpError::invalid(format!("has mode `{other}`"))),
    };
    let mut to = vec![sx[0].clone(), sx[1].clone()];
    to.extend_from_slice(&sg[1..=d]);
    one(cx.reshape(y, &to)?)
}

/// Positions −1 … 1 of `size` cells, at the corners or at the centres.
fn steps(cx: &mut Cx, size: &Dim, dtype: DType, align_corners: bool) -> Result<NodeId, OpError> {
    let i = cx.iota(size, dtype)?;
    let (unit, two) = (cx.splat(1.0, dtype)?, cx.splat(2.0, dtype)?);
    let size = cx.dim(size, dtype)?;
    if align_corners {
        let last = cx.map(S::Sub, &[size, unit])?;
        let last = cx.map(S::Max, &[last, unit])?;
        let x = cx.map(S::Mul, &[i, two])?;
        let x = cx.map(S::Div, &[x, last])?;
        return cx.map(S::Sub, &[x, unit]);
    }
    let x = cx.map(S::Mul, &[i, two])?;
    let x = cx.map(S::Add, &[x, unit])?;
    let x = cx.map(S::Div, &[x, size])?;
    cx.map(S::Sub, &[x, unit])
}

/// `grid = [x, y, (z,) 1] · theta'`.
fn affine_grid(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let theta = n.node(cx, 0)?;
    let size = cx.dims(n, 1, "the size")?;
    let dtype = cx.node_dtype(theta);
    let align = n.attrs.flag("align_corners", false)?;
    let spatial = size
        .get(2..)
        .filter(|s| !s.is_empty())
        .ok_or_else(|| OpError::invalid("has a size of rank below 3"))?;
    let d = spatial.len();
    let mut wide = spatial.to_vec();
    wide.push(Dim::ONE);
    let mut columns = Vec::new();
    for axis in (0..d).rev() {
        let x = steps(cx, &spatial[axis], dtype, align)?;
        let x = cx.along(x, axis, d + 1)?;
        columns.push(cx.broadcast(x, &wide)?);
    }
    let unit = cx.splat(1.0, dtype)?;
    columns.push(cx.broadcast(unit, &wide)?);
    let points = cx.concat(&columns, d)?;
    let points =
        cx.reshape(points, &[Dim::ONE, Dim::product(spatial), Dim::Const(d as i64 + 1)])?;
    let theta = cx.permute(theta, &[0, 2, 1])?;
    let grid = matmul_of(cx, points, theta)?;
    let mut to = vec![size[0].clone()];
    to.extend_from_slice(spatial);
    to.push(Dim::Const(d as i64));
    one(cx.reshape(grid, &to)?)
}
