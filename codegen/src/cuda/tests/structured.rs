//! Kernel programs of attention, convolution, pooling, scans, sorts, scatters and recurrent layers.

use smallvec::smallvec;
use tgc_ir::kernel_program::*;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::{DType, Dim};

use super::programs::{
    Case, axes, binary, buffer, case, dims, float, keep, load, narrow, plain, unary,
};

/// Sizes of an attention test.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    /// Query heads.
    pub(super) query: i64,
    /// Key and value heads.
    pub(super) key: i64,
    /// Queries and keys.
    pub(super) lengths: (i64, i64),
    /// Head sizes of scores and of the result.
    pub(super) sizes: (i64, i64),
}

/// Attention with grouped heads: score = raw · scale, −inf where n > m + offset when `causal`; the
/// probability body guards NaN when `guarded`.
pub(super) fn attention(dtype: DType, heads: Heads, causal: bool, guarded: bool) -> Case {
    let Heads { query: h, key: hk, lengths: (m, n), sizes: (d, e) } = heads;
    let batch = 2;
    let buffers = vec![
        buffer(Access::Read, dtype, &dims(&[batch, h, m, d])),
        buffer(Access::Read, dtype, &dims(&[batch, hk, n, d])),
        buffer(Access::Read, dtype, &dims(&[batch, hk, n, e])),
        buffer(Access::Write, dtype, &dims(&[batch, m, h, e])),
    ];
    let shared = axis(1).floor_div(&Dim::Const(h / hk));
    let mut score = Body::default();
    let raw = score.push(DType::F32, InstKind::Slot(0));
    let scale = float(&mut score, 1.0 / (d as f64).sqrt());
    let mut scored = binary(&mut score, ScalarOp::Mul, raw, scale);
    let offset = n - m;
    if causal {
        let limit = score.push(DType::I64, InstKind::Index(axis(2) + Dim::Const(offset)));
        let key = score.push(DType::I64, InstKind::Index(axis(3)));
        let visible = binary(&mut score, ScalarOp::Le, key, limit);
        let hidden = float(&mut score, f64::NEG_INFINITY);
        scored = score.push(
            DType::F32,
            InstKind::Scalar(ScalarOp::Select, smallvec![visible, scored, hidden]),
        );
    }
    let mut prob = Body::default();
    let mut weight = prob.push(DType::F32, InstKind::Slot(0));
    if guarded {
        let is_nan = unary(&mut prob, ScalarOp::IsNan, weight);
        let zero = float(&mut prob, 0.0);
        weight = prob
            .push(DType::F32, InstKind::Scalar(ScalarOp::Select, smallvec![is_nan, zero, weight]));
    }
    let anchor = Attend {
        batch: dims(&[batch, h]),
        m: dims(&[m]),
        n: dims(&[n]),
        d: dims(&[d]),
        e: dims(&[e]),
        q: plain(0, dtype, axes(0, 4)),
        k: plain(1, dtype, vec![axis(0), shared.clone(), axis(2), axis(3)]),
        v: plain(2, dtype, vec![axis(0), shared, axis(2), axis(3)]),
        score: Operand { body: score, value: scored },
        prob: Operand { body: prob, value: weight },
        acc: DType::F32,
        causal: causal.then_some(Dim::Const(offset)),
        epilogue: keep(3, DType::F32, dtype, vec![axis(0), axis(2), axis(1), axis(3)]),
    };
    let kind = if causal { "causal" } else { "full" };
    let guard = if guarded { "_guarded" } else { "" };
    case(
        &format!("attention_{dtype}_{h}_{hk}_{m}_{n}_{d}_{e}_{kind}{guard}"),
        buffers,
        Anchor::Attend(anchor),
    )
}

/// Shape of a convolution test.
#[derive(Clone, Copy)]
pub(super) struct ConvShape {
    /// Groups, input and output channels per group.
    pub(super) channels: (i64, i64, i64),
    /// Input extent, both axes differ by one.
    pub(super) extent: i64,
    /// Filter extent.
    pub(super) kernel: i64,
    /// Step.
    pub(super) stride: i64,
    /// Cells before.
    pub(super) pad: i64,
    /// Gradient form.
    pub(super) transposed: bool,
    /// Channels are the last axis of the input and the output.
    pub(super) channels_last: bool,
}

/// A two-dimensional convolution with relu.
pub(super) fn convolution(dtype: DType, shape: ConvShape) -> Case {
    let ConvShape {
        channels: (groups, c, o),
        extent,
        kernel,
        stride,
        pad,
        transposed,
        channels_last,
    } = shape;
    let input = [extent, extent + 1];
    let output = input.map(|x| {
        if transposed {
            (x - 1) * stride + kernel - 2 * pad
        } else {
            (x + 2 * pad - kernel) / stride + 1
        }
    });
    let image = |channels: i64, spatial: [i64; 2], access: Access| {
        let extents = dims(&[2, channels, spatial[0], spatial[1]]);
        let mut made = buffer(access, dtype, &extents);
        if channels_last {
            made.strides =
                dims(&[channels * spatial[0] * spatial[1], 1, channels * spatial[1], channels]);
        }
        made
    };
    let filter =
        if transposed { [groups * c, o, kernel, kernel] } else { [groups * o, c, kernel, kernel] };
    let mut filter = Buffer { constant: true, ..buffer(Access::Read, dtype, &dims(&filter)) };
    if channels_last && !transposed {
        filter.strides = dims(&[c * kernel * kernel, 1, kernel * c, c]);
    }
    let buffers = vec![
        image(groups * c, input, Access::Read),
        filter,
        image(groups * o, output, Access::Write),
    ];
    let mut body = Body::default();
    let slot = body.push(DType::F32, InstKind::Slot(0));
    let zero = float(&mut body, 0.0);
    let clamped = binary(&mut body, ScalarOp::Max, slot, zero);
    let value = narrow(&mut body, clamped, dtype);
    let stores = vec![Store { buffer: 2, index: axes(0, 4), value }];
    let anchor = Conv {
        batch: Dim::Const(2),
        groups,
        in_channels: Dim::Const(c),
        out_channels: Dim::Const(o),
        in_spatial: dims(&input),
        out_spatial: dims(&output),
        kernel: dims(&[kernel, kernel]),
        stride: vec![stride, stride],
        dilation: vec![1, 1],
        pad_low: dims(&[pad, pad]),
        transposed,
        input: plain(0, dtype, axes(0, 4)),
        filter: plain(1, dtype, axes(0, 4)),
        acc: DType::F32,
        epilogue: Epilogue { body, stores },
    };
    let way = match (transposed, channels_last) {
        (true, _) => "transposed",
        (_, true) => "last",
        _ => "first",
    };
    case(
        &format!("conv_{dtype}_{groups}_{c}_{o}_{extent}_{kernel}_{stride}_{way}"),
        buffers,
        Anchor::Conv(anchor),
    )
}

/// Pooling over two axes.
pub(super) fn pool(op: ReduceOp, divisor: PoolDivisor) -> Case {
    let (outer, input, output) = (dims(&[2, 3]), dims(&[9, 8]), dims(&[5, 4]));
    let all = |spatial: &[Dim]| [outer.as_slice(), spatial].concat();
    let mut buffers = vec![
        buffer(Access::Read, DType::F32, &all(&input)),
        buffer(Access::Write, DType::F32, &all(&output)),
    ];
    let mut epilogue = keep(1, DType::F32, DType::F32, axes(0, 4));
    if op == ReduceOp::Max {
        buffers.push(buffer(Access::Write, DType::I64, &all(&output)));
        let value = epilogue.body.push(DType::I64, InstKind::Slot(1));
        epilogue.stores.push(Store { buffer: 2, index: axes(0, 4), value });
    }
    let anchor = Pool {
        outer,
        in_spatial: input,
        out_spatial: output,
        kernel: vec![3, 3],
        stride: vec![2, 2],
        dilation: vec![1, 1],
        pad_low: dims(&[1, 1]),
        pad_high: dims(&[1, 1]),
        op,
        divisor,
        input: plain(0, DType::F32, axes(0, 4)),
        epilogue,
    };
    case(&format!("pool_{}_{divisor:?}", op.name()).to_lowercase(), buffers, Anchor::Pool(anchor))
}

/// Running values.
pub(super) fn running(op: ReduceOp, exclusive: bool, reverse: bool) -> Case {
    let shape = dims(&[5, 77]);
    let buffers =
        vec![buffer(Access::Read, DType::F32, &shape), buffer(Access::Write, DType::F32, &shape)];
    let anchor = Scan {
        outer: dims(&[5]),
        extent: Dim::Const(77),
        op,
        exclusive,
        reverse,
        input: plain(0, DType::F32, axes(0, 2)),
        acc: DType::F32,
        epilogue: keep(1, DType::F32, DType::F32, axes(0, 2)),
    };
    case(&format!("running_{}_{exclusive}_{reverse}", op.name()), buffers, Anchor::Scan(anchor))
}

/// The first `k` of 300 with their places.
pub(super) fn top(k: i64, largest: bool) -> Case {
    let (full, kept) = (dims(&[3, 300]), dims(&[3, k]));
    let buffers = vec![
        buffer(Access::Read, DType::F32, &full),
        buffer(Access::Write, DType::F32, &kept),
        buffer(Access::Write, DType::I64, &kept),
    ];
    let mut epilogue = keep(1, DType::F32, DType::F32, axes(0, 2));
    let value = epilogue.body.push(DType::I64, InstKind::Slot(1));
    epilogue.stores.push(Store { buffer: 2, index: axes(0, 2), value });
    let anchor = Sort {
        outer: dims(&[3]),
        extent: Dim::Const(300),
        k: Dim::Const(k),
        largest,
        input: plain(0, DType::F32, axes(0, 2)),
        epilogue,
    };
    case(&format!("top_{k}_{largest}"), buffers, Anchor::Sort(anchor))
}

/// y = x, then y[ids[i], j] combined with u[i, j] (or, for a vector, y[ids[i]] with u[i]).
pub(super) fn scatter(op: ScatterOp, is_vector: bool) -> Case {
    let tail: &[i64] = if is_vector { &[] } else { &[6] };
    let shape = |first: i64| dims(&[&[first], tail].concat());
    let rank = 1 + tail.len();
    let buffers = vec![
        buffer(Access::Read, DType::F32, &shape(40)),
        buffer(Access::Read, DType::I64, &dims(&[17])),
        buffer(Access::Read, DType::F32, &shape(17)),
        buffer(Access::Write, DType::F32, &shape(40)),
    ];
    let mut body = Body::default();
    let id = load(&mut body, 1, DType::I64, axes(0, 1));
    let value = load(&mut body, 2, DType::F32, axes(0, rank));
    let mut index = vec![value_index(id)];
    index.extend(axes(1, rank - 1));
    let anchor = Scatter {
        updates: shape(17),
        init: Some(plain(0, DType::F32, axes(0, rank))),
        op,
        body,
        store: Store { buffer: 3, index, value },
    };
    case(&format!("scatter_{op:?}_{rank}").to_lowercase(), buffers, Anchor::Scatter(anchor))
}

/// A recurrent layer of 3 sequences, 5 steps, 20 units.
pub(super) fn recurrent(cell: Cell, reverse: bool, with_lengths: bool) -> Case {
    let (time, batch, hidden) = (5, 3, 20);
    let gates = cell.gates();
    let f32 = DType::F32;
    let mut buffers = vec![
        buffer(Access::Read, f32, &dims(&[time, batch, gates * hidden])),
        Buffer { constant: true, ..buffer(Access::Read, f32, &dims(&[gates * hidden, hidden])) },
        buffer(Access::Read, f32, &dims(&[batch, hidden])),
        buffer(Access::Write, f32, &dims(&[time, batch, hidden])),
        buffer(Access::Write, f32, &dims(&[batch, hidden])),
    ];
    let mut add = |made: Buffer| {
        buffers.push(made);
        buffers.len() as u32 - 1
    };
    let is_lstm = cell == Cell::Lstm;
    let c0 = is_lstm.then(|| add(buffer(Access::Read, f32, &dims(&[batch, hidden]))));
    let c = is_lstm.then(|| add(buffer(Access::Write, f32, &dims(&[batch, hidden]))));
    let r_bias = matches!(cell, Cell::Gru { linear_before_reset: true })
        .then(|| add(buffer(Access::Read, f32, &dims(&[hidden]))));
    let peephole = is_lstm.then(|| add(buffer(Access::Read, f32, &dims(&[3 * hidden]))));
    let lengths = with_lengths.then(|| add(buffer(Access::Read, DType::I64, &dims(&[batch]))));
    let activation = |op: ScalarOp| {
        let mut body = Body::default();
        let slot = body.push(DType::F32, InstKind::Slot(0));
        let value = unary(&mut body, op, slot);
        Operand { body, value }
    };
    let activations = match cell {
        Cell::Plain => vec![activation(ScalarOp::Tanh)],
        Cell::Lstm => vec![
            activation(ScalarOp::Sigmoid),
            activation(ScalarOp::Tanh),
            activation(ScalarOp::Tanh),
        ],
        Cell::Gru { .. } => vec![activation(ScalarOp::Sigmoid), activation(ScalarOp::Tanh)],
    };
    let anchor = Rnn {
        cell,
        reverse,
        time: Dim::Const(time),
        batch: Dim::Const(batch),
        hidden: Dim::Const(hidden),
        x: plain(0, f32, axes(0, 3)),
        r: plain(1, f32, axes(0, 2)),
        r_bias: r_bias.map(|n| plain(n, f32, axes(0, 1))),
        h0: plain(2, f32, axes(0, 2)),
        c0: c0.map(|n| plain(n, f32, axes(0, 2))),
        peephole: peephole.map(|n| plain(n, f32, axes(0, 1))),
        lengths: lengths.map(|n| plain(n, DType::I64, axes(0, 1))),
        activations,
        input_forget: false,
        clip: is_lstm.then(|| ScalarConst::float(3.0)),
        acc: f32,
        y: Some(keep(3, f32, f32, axes(0, 3))),
        h: Some(keep(4, f32, f32, axes(0, 2))),
        c: c.map(|n| keep(n, f32, f32, axes(0, 2))),
    };
    let kind = match cell {
        Cell::Plain => "plain",
        Cell::Lstm => "lstm",
        Cell::Gru { linear_before_reset: false } => "gru",
        Cell::Gru { .. } => "gru_linear",
    };
    case(&format!("recurrent_{kind}_{reverse}_{with_lengths}"), buffers, Anchor::Rnn(anchor))
}

/// Attention over `rows` queries and `width` keys held in a buffer with room for 512.
pub(super) fn cached_attention(dtype: DType) -> Case {
    let (m, n, d) = (Dim::symbol("rows"), Dim::symbol("width"), Dim::Const(32));
    let cache = Buffer {
        strides: dims(&[512 * 32, 32, 1]),
        ..buffer(Access::Read, dtype, &[Dim::Const(2), n.clone(), d.clone()])
    };
    let query = [Dim::Const(2), m.clone(), d.clone()];
    let buffers = vec![
        buffer(Access::Read, dtype, &query),
        cache.clone(),
        cache,
        buffer(Access::Read, DType::Bool, std::slice::from_ref(&n)),
        buffer(Access::Write, dtype, &query),
    ];
    let mut score = Body::default();
    let raw = score.push(DType::F32, InstKind::Slot(0));
    let mask = load(&mut score, 3, DType::Bool, vec![axis(2)]);
    let hidden = float(&mut score, f64::NEG_INFINITY);
    let value =
        score.push(DType::F32, InstKind::Scalar(ScalarOp::Select, smallvec![mask, raw, hidden]));
    let mut prob = Body::default();
    let weight = prob.push(DType::F32, InstKind::Slot(0));
    let anchor = Attend {
        batch: dims(&[2]),
        m: vec![m],
        n: vec![n],
        d: vec![d.clone()],
        e: vec![d],
        q: plain(0, dtype, axes(0, 3)),
        k: plain(1, dtype, axes(0, 3)),
        v: plain(2, dtype, axes(0, 3)),
        score: Operand { body: score, value },
        prob: Operand { body: prob, value: weight },
        acc: DType::F32,
        causal: None,
        epilogue: keep(4, DType::F32, dtype, axes(0, 3)),
    };
    case(&format!("cached_attention_{dtype}"), buffers, Anchor::Attend(anchor))
}
