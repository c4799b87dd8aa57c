//! Attention, rotary embeddings and their relatives, written out in contractions and softmax.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ReduceOp as R;
use tgc_ir::scalar::ScalarOp as S;

use super::linear::{Labelled, Labels, contract};
use super::norm::axes_attr;
use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs};
use crate::tensors;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("Attention", &[23, 24, 25], attention),
    call("LinearAttention", &[27], linear_attention),
    call("RotaryEmbedding", &[23], rotary_embedding),
];

/// Steps of a linear attention that are written out.
const STEPS_MAX: i64 = 256;

/// `[B, S, H·D] → [B, H, S, D]`; rank 4 stays.
fn heads(cx: &mut Cx, x: NodeId, count: Option<i64>) -> Result<NodeId, OpError> {
    let shape = cx.shape(x);
    match shape.len() {
        4 => Ok(x),
        3 => {
            let count = count
                .filter(|&h| h > 0)
                .ok_or_else(|| OpError::invalid("takes head counts for operands of rank 3"))?;
            let size = shape[2].floor_div(&Dim::Const(count));
            let x =
                cx.reshape(x, &[shape[0].clone(), shape[1].clone(), Dim::Const(count), size])?;
            cx.permute(x, &[0, 2, 1, 3])
        }
        rank => Err(OpError::invalid(format!("takes operands of rank 3 or 4, not {rank}"))),
    }
}

/// Where keys come from, and how many precede the first query.
struct Keys {
    k: NodeId,
    v: NodeId,
    /// Absolute position of query 0, rank 0 or `[B, 1, 1, 1]`.
    offset: NodeId,
    /// Valid keys per sample, `[B, 1, 1, 1]`.
    valid: Option<NodeId>,
}

fn keys(cx: &mut Cx, n: &Node, queries: &Dim) -> Result<Keys, OpError> {
    let kv_heads = n.attrs.int("kv_num_heads")?;
    let (k, v) = (n.node(cx, 1)?, n.node(cx, 2)?);
    let (mut k, mut v) = (heads(cx, k, kv_heads)?, heads(cx, v, kv_heads)?);
    let mut offset = cx.int(0)?;
    match (n.opt_node(cx, 4)?, n.opt_node(cx, 5)?) {
        (Some(past_k), Some(past_v)) => {
            if cx.rank(past_k) != 4 || cx.rank(past_v) != 4 {
                return Err(OpError::invalid("takes past keys and values of rank 4"));
            }
            offset = cx.dim(&cx.shape(past_k)[2].clone(), DType::I64)?;
            k = cx.concat(&[past_k, k], 2)?;
            v = cx.concat(&[past_v, v], 2)?;
        }
        (None, None) => {}
        _ => return Err(OpError::invalid("takes past keys and past values together")),
    }
    let mut valid = None;
    if let Some(lengths) = n.opt_node(cx, 6)? {
        let lengths = cx.cast(lengths, DType::I64)?;
        let lengths = cx.along(lengths, 0, 4)?;
        let queries = cx.dim(queries, DType::I64)?;
        offset = cx.map(S::Sub, &[lengths, queries])?;
        valid = Some(lengths);
    }
    Ok(Keys { k, v, offset, valid })
}

/// Iotas over queries `[S, 1]` and keys `[1, T]`.
fn positions(cx: &mut Cx, queries: &Dim, total: &Dim) -> Result<(NodeId, NodeId), OpError> {
    let q = cx.iota(queries, DType::I64)?;
    let k = cx.iota(total, DType::I64)?;
    Ok((cx.along(q, 2, 4)?, cx.along(k, 3, 4)?))
}

/// `total` with `0` where allowed and −∞ elsewhere added.
fn forbid(
    cx: &mut Cx,
    total: Option<NodeId>,
    allowed: NodeId,
    dtype: DType,
) -> Result<Option<NodeId>, OpError> {
    let (zero, never) = (cx.splat(0.0, dtype)?, cx.splat(f64::NEG_INFINITY, dtype)?);
    let bias = cx.map(S::Select, &[allowed, zero, never])?;
    Ok(Some(match total {
        Some(total) => cx.map(S::Add, &[total, bias])?,
        None => bias,
    }))
}

/// The mask operand as a bias, its last axis filled up with −∞.
fn mask_bias(cx: &mut Cx, n: &Node, total: &Dim, dtype: DType) -> Result<Option<NodeId>, OpError> {
    let Some(mut mask) = n.opt_node(cx, 3)? else { return Ok(None) };
    let shape = cx.shape(mask);
    let Some(last) = shape.last() else {
        return Err(OpError::invalid("takes a mask of rank 1 or more"));
    };
    if let (Some(have), Some(want)) = (last.as_const(), total.as_const())
        && have < want
        && have != 1
    {
        let low = vec![Dim::ZERO; shape.len()];
        let mut high = low.clone();
        high[shape.len() - 1] = Dim::Const(want - have);
        let fill = if cx.node_dtype(mask) == DType::Bool {
            cx.truth(false)?
        } else {
            cx.num(mask, f64::NEG_INFINITY)?
        };
        mask = cx.pad(mask, &low, &high, fill)?;
    }
    let mask = cx.graph.raise_rank(mask, 4)?;
    if cx.node_dtype(mask) == DType::Bool {
        forbid(cx, None, mask, dtype)
    } else {
        Ok(Some(cx.cast(mask, dtype)?))
    }
}

fn bias_of(
    cx: &mut Cx,
    n: &Node,
    keys: &Keys,
    queries: &Dim,
    total: &Dim,
    dtype: DType,
) -> Result<Option<NodeId>, OpError> {
    let mut bias = mask_bias(cx, n, total, dtype)?;
    let (left, right) =
        (n.attrs.int_or("left_window_size", -1)?, n.attrs.int_or("right_window_size", -1)?);
    let causal = n.attrs.flag("is_causal", false)?;
    if causal || left >= 0 || right >= 0 {
        let (q, k) = positions(cx, queries, total)?;
        let at = cx.map(S::Add, &[q, keys.offset])?;
        if causal {
            let allowed = cx.map(S::Le, &[k, at])?;
            bias = forbid(cx, bias, allowed, dtype)?;
        }
        for (size, is_left) in [(left, true), (right, false)] {
            if size >= 0 {
                let size = cx.int(size)?;
                let (low, high) = if is_left { (at, k) } else { (k, at) };
                let reach = cx.map(S::Add, &[high, size])?;
                let allowed = cx.map(S::Le, &[low, reach])?;
                bias = forbid(cx, bias, allowed, dtype)?;
            }
        }
    }
    if let Some(valid) = keys.valid {
        let (_, k) = positions(cx, queries, total)?;
        let allowed = cx.map(S::Lt, &[k, valid])?;
        bias = forbid(cx, bias, allowed, dtype)?;
    }
    Ok(bias)
}

/// Scores `[B, H, S, T]` of scaled queries and keys; grouped heads share keys through labels.
fn scores_of(cx: &mut Cx, q: NodeId, k: NodeId, scale: f64) -> Result<NodeId, OpError> {
    let root = cx.num(q, scale.sqrt())?;
    let (q, k) = (cx.map(S::Mul, &[q, root])?, cx.map(S::Mul, &[k, root])?);
    let (sq, sk) = (cx.shape(q), cx.shape(k));
    grouped(cx, (q, &sq), (k, &sk), [3, 4], [5, 4], [3, 5])
}

/// A product of `x [B, H, ·, ·]` and `y [B, Hkv, ·, ·]` with labels b h g = 0 1 2: `H = Hkv · G`.
fn grouped(
    cx: &mut Cx,
    x: (NodeId, &[Dim]),
    y: (NodeId, &[Dim]),
    xl: [u32; 2],
    yl: [u32; 2],
    ol: [u32; 2],
) -> Result<NodeId, OpError> {
    let ((x, sx), (y, sy)) = (x, y);
    let mut labels = Labels::default();
    let group = sx[1].floor_div(&sy[1]);
    let (mut x, mut x_labels) = (x, vec![0, 1, xl[0], xl[1]]);
    let mut shape = sx.to_vec();
    let is_grouped = !group.is(1);
    if is_grouped {
        shape.splice(1..2, [sy[1].clone(), group]);
        x = cx.reshape(x, &shape)?;
        x_labels.insert(2, 2);
    }
    for (extent, &label) in shape.iter().zip(&x_labels) {
        labels.meet(cx, label, extent)?;
    }
    let y_labels = vec![0, 1, yl[0], yl[1]];
    for (extent, &label) in sy.iter().zip(&y_labels) {
        labels.meet(cx, label, extent)?;
    }
    let out_labels: Vec<u32> =
        if is_grouped { vec![0, 1, 2, ol[0], ol[1]] } else { vec![0, 1, ol[0], ol[1]] };
    let (x, y) = (Labelled { node: x, labels: x_labels }, Labelled { node: y, labels: y_labels });
    let out = contract(cx, &labels, &x, &y, &out_labels)?;
    if !is_grouped {
        return Ok(out);
    }
    cx.reshape(out, &[sx[0].clone(), sx[1].clone(), labels.extent(ol[0]), labels.extent(ol[1])])
}

fn soft_cap(cx: &mut Cx, x: NodeId, cap: f64) -> Result<NodeId, OpError> {
    let cap = cx.num(x, cap)?;
    let inner = cx.map(S::Div, &[x, cap])?;
    let inner = cx.map(S::Tanh, &[inner])?;
    cx.map(S::Mul, &[inner, cap])
}

/// Probabilities; rows whose bias forbids every key are 0.
fn probabilities(
    cx: &mut Cx,
    scores: NodeId,
    bias: Option<NodeId>,
    precision: DType,
) -> Result<NodeId, OpError> {
    let wide = cx.cast(scores, precision)?;
    let p = cx.composite("softmax", &[wide], &[axes_attr(&[3])])?;
    let Some(bias) = bias else { return Ok(p) };
    let best = cx.reduce(R::Max, bias, &[cx.rank(bias) - 1], true)?;
    let never = cx.num(best, f64::NEG_INFINITY)?;
    let masked = cx.map(S::Eq, &[best, never])?;
    let zero = cx.zero(p)?;
    cx.map(S::Select, &[masked, zero, p])
}

fn attention(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let query = n.node(cx, 0)?;
    let (packed, dtype) = (cx.rank(query) == 3, cx.node_dtype(query));
    let q = heads(cx, query, n.attrs.int("q_num_heads")?)?;
    let sq = cx.shape(q);
    let keys = keys(cx, n, &sq[2])?;
    let total = cx.shape(keys.k)[2].clone();
    let scale = match n.attrs.float("scale")? {
        Some(scale) => f64::from(scale),
        None => match sq[3].as_const() {
            Some(size) if size > 0 => 1.0 / (size as f64).sqrt(),
            _ => {
                return Err(OpError::unsupported(
                    "has a head size that is not a number; give it a scale",
                ));
            }
        },
    };
    let raw = scores_of(cx, q, keys.k, scale)?;
    let cap = n.attrs.float_or("softcap", 0.0)?;
    let capped = if cap > 0.0 { soft_cap(cx, raw, cap)? } else { raw };
    let bias = bias_of(cx, n, &keys, &sq[2], &total, dtype)?;
    let scores = match bias {
        Some(bias) => cx.map(S::Add, &[capped, bias])?,
        None => capped,
    };
    let precision = match n.attrs.int("softmax_precision")? {
        Some(code) => tensors::dtype(i32::try_from(code).unwrap_or(0))?,
        None => dtype,
    };
    let p = probabilities(cx, scores, bias, precision)?;
    let p = cx.cast(p, dtype)?;
    let (sp, sv) = (cx.shape(p), cx.shape(keys.v));
    let mut y = grouped(cx, (p, &sp), (keys.v, &sv), [3, 4], [4, 5], [3, 5])?;
    if packed {
        let s = cx.shape(y);
        y = cx.permute(y, &[0, 2, 1, 3])?;
        y = cx.reshape(y, &[s[0].clone(), s[2].clone(), s[1].clone() * s[3].clone()])?;
    }
    let shown = match n.attrs.int_or("qk_matmul_output_mode", 0)? {
        0 => raw,
        1 => capped,
        2 => scores,
        3 => p,
        mode => {
            return Err(OpError::invalid(format!(
                "has qk_matmul_output_mode {mode}; allowed are 0 to 3"
            )));
        }
    };
    let shown = if n.wants(3) {
        cx.broadcast(shown, &[sq[0].clone(), sq[1].clone(), sq[2].clone(), total])?
    } else {
        y
    };
    many(&[y, keys.k, keys.v, shown])
}

/// Pairs are the two halves of the rotated part, or neighbours when interleaved.
fn rotary_embedding(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let input = n.node(cx, 0)?;
    let shape = cx.shape(input);
    let (x, head_axis) = match shape.len() {
        4 => (input, 1),
        3 => {
            let count = n.attrs.required_int("num_heads")?;
            if count < 1 {
                return Err(OpError::invalid(format!("has num_heads {count}")));
            }
            let size = shape[2].floor_div(&Dim::Const(count));
            (cx.reshape(input, &[shape[0].clone(), shape[1].clone(), Dim::Const(count), size])?, 2)
        }
        rank => return Err(OpError::invalid(format!("takes data of rank 3 or 4, not {rank}"))),
    };
    let wide = cx.shape(x);
    let size = wide[3]
        .as_const()
        .ok_or_else(|| OpError::unsupported("has a head size that is not a number"))?;
    let rotated = match n.attrs.int_or("rotary_embedding_dim", 0)? {
        0 => size,
        r if r > 0 && r <= size && r % 2 == 0 => r,
        r => {
            return Err(OpError::invalid(format!(
                "has rotary_embedding_dim {r} for heads of {size}"
            )));
        }
    };
    let mut caches = Vec::new();
    for i in [1, 2] {
        let mut cache = n.node(cx, i)?;
        if let Some(ids) = n.opt(3) {
            let rows = cx.shape(cache)[0].clone();
            let ids = cx.index(&ids, &rows)?;
            cache = cx.take(cache, ids, 0)?;
        }
        caches.push(cx.unsqueeze(cache, &[head_axis])?);
    }
    let interleaved = n.attrs.flag("interleaved", false)?;
    let (first, second) = pairs(cx, x, rotated, interleaved)?;
    let turn = |cx: &mut Cx, a: NodeId, b: NodeId, op: S| {
        let left = cx.map(S::Mul, &[caches[0], a])?;
        let right = cx.map(S::Mul, &[caches[1], b])?;
        cx.map(op, &[left, right])
    };
    let real = turn(cx, first, second, S::Sub)?;
    let imaginary = turn(cx, second, first, S::Add)?;
    let mut out = if interleaved {
        let (a, b) = (cx.unsqueeze(real, &[4])?, cx.unsqueeze(imaginary, &[4])?);
        let both = cx.concat(&[a, b], 4)?;
        let mut flat = wide.clone();
        flat[3] = Dim::Const(rotated);
        cx.reshape(both, &flat)?
    } else {
        cx.concat(&[real, imaginary], 3)?
    };
    if rotated < size {
        let rest = cx.slice(x, 3, Dim::Const(rotated), 1, Dim::Const(size - rotated))?;
        out = cx.concat(&[out, rest], 3)?;
    }
    one(cx.reshape(out, &shape)?)
}

fn pairs(
    cx: &mut Cx,
    x: NodeId,
    rotated: i64,
    interleaved: bool,
) -> Result<(NodeId, NodeId), OpError> {
    let half = Dim::Const(rotated / 2);
    if interleaved {
        let first = cx.slice(x, 3, Dim::ZERO, 2, half.clone())?;
        return Ok((first, cx.slice(x, 3, Dim::ONE, 2, half)?));
    }
    let first = cx.slice(x, 3, Dim::ZERO, 1, half.clone())?;
    Ok((first, cx.slice(x, 3, half.clone(), 1, half)?))
}

/// Rows of one step: `[B, H, T, D] → [B, H, D]`.
fn at_step(cx: &mut Cx, x: NodeId, step: i64) -> Result<NodeId, OpError> {
    let x = cx.slice(x, 2, Dim::Const(step), 1, Dim::ONE)?;
    cx.squeeze(x, &[2])
}

/// What a linear attention reads, heads apart and in f32.
struct Recurrence {
    q: NodeId,
    k: NodeId,
    v: NodeId,
    /// `exp` of the decay, `[B, H, T, D or 1]`.
    keep: Option<NodeId>,
    /// Update rate, `[B, H or 1, T, 1]`.
    rate: Option<NodeId>,
}

impl Recurrence {
    /// `S' = keep · S + k ⊗ u` with `u = v`, or `rate · (v - k · keep · S)` for the delta rules.
    fn advance(&self, cx: &mut Cx, state: NodeId, step: i64) -> Result<NodeId, OpError> {
        let mut state = state;
        if let Some(keep) = self.keep {
            let keep = at_step(cx, keep, step)?;
            let keep = cx.unsqueeze(keep, &[3])?;
            state = cx.map(S::Mul, &[state, keep])?;
        }
        let (k, v) = (at_step(cx, self.k, step)?, at_step(cx, self.v, step)?);
        let k = cx.unsqueeze(k, &[3])?;
        let mut update = cx.unsqueeze(v, &[2])?;
        if let Some(rate) = self.rate {
            let read = cx.map(S::Mul, &[state, k])?;
            let read = cx.reduce(R::Sum, read, &[2], true)?;
            let rate = at_step(cx, rate, step)?;
            let rate = cx.unsqueeze(rate, &[3])?;
            update = cx.map(S::Sub, &[update, read])?;
            update = cx.map(S::Mul, &[update, rate])?;
        }
        let outer = cx.map(S::Mul, &[k, update])?;
        cx.map(S::Add, &[state, outer])
    }
}

fn linear_attention(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (q_heads, kv_heads) =
        (n.attrs.required_int("q_num_heads")?, n.attrs.required_int("kv_num_heads")?);
    if q_heads < 1 || kv_heads < 1 || q_heads % kv_heads != 0 {
        return Err(OpError::invalid(format!(
            "has {q_heads} query heads and {kv_heads} key heads"
        )));
    }
    let query = n.node(cx, 0)?;
    let (dtype, shape) = (cx.node_dtype(query), cx.shape(query));
    let wide = |cx: &mut Cx, x: NodeId, heads_of: i64| {
        let x = heads(cx, x, Some(heads_of))?;
        cx.cast(x, DType::F32)
    };
    let (k, v) = (n.node(cx, 1)?, n.node(cx, 2)?);
    let (q, k, v) = (wide(cx, query, q_heads)?, wide(cx, k, kv_heads)?, wide(cx, v, kv_heads)?);
    let keep = match n.opt_node(cx, 4)? {
        Some(decay) => {
            let decay = wide(cx, decay, kv_heads)?;
            Some(cx.map(S::Exp, &[decay])?)
        }
        None => None,
    };
    let rate = match n.opt_node(cx, 5)? {
        Some(rate) => {
            let rate = cx.cast(rate, DType::F32)?;
            let rate = cx.permute(rate, &[0, 2, 1])?;
            Some(cx.unsqueeze(rate, &[3])?)
        }
        None => None,
    };
    let (sq, sv) = (cx.shape(q), cx.shape(v));
    let steps = sq[2].as_const().filter(|s| (1..=STEPS_MAX).contains(s));
    let steps = steps.ok_or_else(|| {
        OpError::unsupported(format!("of {} steps; 1 to {STEPS_MAX} are supported", sq[2]))
    })?;
    let past = n.opt_node(cx, 3)?;
    let state_dtype = past.map_or(dtype, |p| cx.node_dtype(p));
    let mut state = match past {
        Some(past) => cx.cast(past, DType::F32)?,
        None => {
            let zero = cx.splat(0.0, DType::F32)?;
            cx.broadcast(zero, &[sv[0].clone(), sv[1].clone(), sq[3].clone(), sv[3].clone()])?
        }
    };
    let scale = match (n.attrs.float_or("scale", 0.0)?, sq[3].as_const()) {
        (scale, _) if scale != 0.0 => scale,
        (_, Some(size)) if size > 0 => 1.0 / (size as f64).sqrt(),
        _ => {
            return Err(OpError::unsupported(
                "has a head size that is not a number; give it a scale",
            ));
        }
    };
    let scale = cx.splat(scale, DType::F32)?;
    let recurrence = Recurrence { q, k, v, keep, rate };
    let mut rows = Vec::new();
    for step in 0..steps {
        state = recurrence.advance(cx, state, step)?;
        let q = cx.slice(recurrence.q, 2, Dim::Const(step), 1, Dim::ONE)?;
        let (one_query, whole) = (cx.shape(q), cx.shape(state));
        rows.push(grouped(cx, (q, &one_query), (state, &whole), [3, 4], [4, 5], [3, 5])?);
    }
    let y = cx.concat(&rows, 2)?;
    let y = cx.map(S::Mul, &[y, scale])?;
    let y = cx.permute(y, &[0, 2, 1, 3])?;
    let y = cx.reshape(y, &[shape[0].clone(), shape[1].clone(), sq[1].clone() * sv[3].clone()])?;
    many(&[cx.cast(y, dtype)?, cx.cast(state, state_dtype)?])
}
