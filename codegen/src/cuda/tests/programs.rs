//! Kernel programs that between them use every family, ragged shapes and symbolic extents.

use smallvec::smallvec;
use tgc_ir::facts::{Bounds, Facts};
use tgc_ir::kernel_program::*;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::{DType, Dim, Symbol};

/// A program with the facts and symbols under which it is emitted.
pub(super) struct Case {
    /// The program.
    pub(super) program: KernelProgram,
    /// Facts about its symbols.
    pub(super) facts: Facts,
    /// Symbol table.
    pub(super) symbols: Vec<Symbol>,
}

/// A dense buffer.
pub(super) fn buffer(access: Access, dtype: DType, shape: &[Dim]) -> Buffer {
    Buffer {
        access,
        dtype,
        shape: shape.to_vec(),
        strides: Buffer::dense_strides(shape),
        constant: false,
    }
}

/// Constant extents.
pub(super) fn dims(extents: &[i64]) -> Vec<Dim> {
    extents.iter().map(|&extent| Dim::Const(extent)).collect()
}

/// Axes `$from…`.
pub(super) fn axes(from: usize, count: usize) -> Vec<Dim> {
    (from..from + count).map(axis).collect()
}

fn case(name: &str, buffers: Vec<Buffer>, anchor: Anchor) -> Case {
    let program = KernelProgram { name: name.to_owned(), buffers, anchor };
    let symbols = program.symbols();
    let mut facts = Facts::default();
    for symbol in &symbols {
        facts.bound(symbol.clone(), Bounds::default());
    }
    Case { program, facts, symbols }
}

/// Reads buffer 0… at axes, widened to f32 when narrow.
pub(super) fn load(body: &mut Body, buffer: u32, dtype: DType, index: Vec<Dim>) -> u32 {
    let at =
        body.push(dtype, InstKind::Load(Load { buffer, index, guards: vec![], otherwise: None }));
    widen(body, at)
}

fn widen(body: &mut Body, at: u32) -> u32 {
    match body.dtype(at) {
        DType::F16 | DType::BF16 => body.push(DType::F32, InstKind::Cast(at)),
        _ => at,
    }
}

fn narrow(body: &mut Body, at: u32, dtype: DType) -> u32 {
    if body.dtype(at) == dtype { at } else { body.push(dtype, InstKind::Cast(at)) }
}

fn float(body: &mut Body, value: f64) -> u32 {
    body.push(DType::F32, InstKind::Const(ScalarConst::float(value)))
}

fn unary(body: &mut Body, op: ScalarOp, a: u32) -> u32 {
    let dtype = op.result(&[body.dtype(a)]).expect("a well-typed test");
    body.push(dtype, InstKind::Scalar(op, smallvec![a]))
}

fn binary(body: &mut Body, op: ScalarOp, a: u32, b: u32) -> u32 {
    let dtype = op.result(&[body.dtype(a), body.dtype(b)]).expect("a well-typed test");
    body.push(dtype, InstKind::Scalar(op, smallvec![a, b]))
}

/// An operand that is one load.
pub(super) fn plain(buffer: u32, dtype: DType, index: Vec<Dim>) -> Operand {
    let mut body = Body::default();
    let value = load(&mut body, buffer, dtype, index);
    Operand { body, value }
}

/// An epilogue that stores slot 0.
pub(super) fn keep(buffer: u32, sum: DType, dtype: DType, index: Vec<Dim>) -> Epilogue {
    let mut body = Body::default();
    let slot = body.push(sum, InstKind::Slot(0));
    let value = narrow(&mut body, slot, dtype);
    Epilogue { body, stores: vec![Store { buffer, index, value }] }
}

/// gelu(x + bias), x[rows, width] with rows symbolic.
pub(super) fn add_gelu(dtype: DType, width: i64) -> Case {
    let (rows, width) = (Dim::symbol("rows"), Dim::Const(width));
    let shape = [rows, width.clone()];
    let buffers = vec![
        buffer(Access::Read, dtype, &shape),
        Buffer { constant: true, ..buffer(Access::Read, dtype, &[width]) },
        buffer(Access::Write, dtype, &shape),
    ];
    let mut body = Body::default();
    let x = load(&mut body, 0, dtype, axes(0, 2));
    let bias = load(&mut body, 1, dtype, axes(1, 1));
    let sum = binary(&mut body, ScalarOp::Add, x, bias);
    let (half, one, scale) = (
        float(&mut body, 0.5),
        float(&mut body, 1.0),
        float(&mut body, std::f64::consts::FRAC_1_SQRT_2),
    );
    let scaled = binary(&mut body, ScalarOp::Mul, sum, scale);
    let erf = unary(&mut body, ScalarOp::Erf, scaled);
    let shifted = binary(&mut body, ScalarOp::Add, erf, one);
    let halved = binary(&mut body, ScalarOp::Mul, sum, half);
    let gelu = binary(&mut body, ScalarOp::Mul, halved, shifted);
    let value = narrow(&mut body, gelu, dtype);
    let stores = vec![Store { buffer: 2, index: axes(0, 2), value }];
    let anchor =
        Anchor::Loops(Loops { extents: shape.to_vec(), epilogue: Epilogue { body, stores } });
    case(&format!("add_gelu_{dtype}"), buffers, anchor)
}

/// table[ids[i]] with a guard, i64 indices.
pub(super) fn gather() -> Case {
    let (count, width) = (Dim::symbol("count"), Dim::Const(12));
    let buffers = vec![
        buffer(Access::Read, DType::F32, &[Dim::Const(50), width.clone()]),
        buffer(Access::Read, DType::I64, std::slice::from_ref(&count)),
        buffer(Access::Write, DType::F32, &[count.clone(), width.clone()]),
    ];
    let mut body = Body::default();
    let id = load(&mut body, 1, DType::I64, axes(0, 1));
    let guards = vec![Guard { value: value_index(id), below: Dim::Const(50) }];
    let index = vec![value_index(id), axis(1)];
    let value =
        body.push(DType::F32, InstKind::Load(Load { buffer: 0, index, guards, otherwise: None }));
    let stores = vec![Store { buffer: 2, index: axes(0, 2), value }];
    let anchor =
        Anchor::Loops(Loops { extents: vec![count, width], epilogue: Epilogue { body, stores } });
    case("gather", buffers, anchor)
}

/// y[i, j] = x[j, i].
pub(super) fn transpose() -> Case {
    let buffers = vec![
        buffer(Access::Read, DType::F32, &dims(&[33, 20])),
        buffer(Access::Write, DType::F32, &dims(&[20, 33])),
    ];
    let mut body = Body::default();
    let value = load(&mut body, 0, DType::F32, vec![axis(1), axis(0)]);
    let stores = vec![Store { buffer: 1, index: axes(0, 2), value }];
    case(
        "transpose",
        buffers,
        Anchor::Loops(Loops { extents: dims(&[20, 33]), epilogue: Epilogue { body, stores } }),
    )
}

/// A pointwise program over one scalar op and element type.
pub(super) fn scalar(op: ScalarOp, dtype: DType) -> Option<Case> {
    let operands: Vec<DType> = match (op, op.arity()) {
        (ScalarOp::Select, _) => vec![DType::Bool, dtype, dtype],
        (_, arity) => vec![dtype; arity],
    };
    let result = op.result(&operands).ok()?;
    let shape = dims(&[7]);
    let mut buffers: Vec<Buffer> =
        operands.iter().map(|&dtype| buffer(Access::Read, dtype, &shape)).collect();
    buffers.push(buffer(Access::Write, result, &shape));
    let mut body = Body::default();
    let args = operands
        .iter()
        .enumerate()
        .map(|(n, &dtype)| load(&mut body, n as u32, dtype, axes(0, 1)))
        .collect();
    let value = body.push(result, InstKind::Scalar(op, args));
    let stores = vec![Store { buffer: operands.len() as u32, index: axes(0, 1), value }];
    let anchor = Anchor::Loops(Loops { extents: shape, epilogue: Epilogue { body, stores } });
    Some(case(&format!("{}_{dtype}", op.name()), buffers, anchor))
}

/// A pointwise program that converts.
pub(super) fn cast(from: DType, to: DType) -> Case {
    let shape = dims(&[7]);
    let buffers = vec![buffer(Access::Read, from, &shape), buffer(Access::Write, to, &shape)];
    let mut body = Body::default();
    let at = body.push(
        from,
        InstKind::Load(Load { buffer: 0, index: axes(0, 1), guards: vec![], otherwise: None }),
    );
    let value = body.push(to, InstKind::Cast(at));
    let stores = vec![Store { buffer: 1, index: axes(0, 1), value }];
    let anchor = Anchor::Loops(Loops { extents: shape, epilogue: Epilogue { body, stores } });
    case(&format!("cast_{from}_{to}"), buffers, anchor)
}

/// Layer normalisation with residual over `width` (symbolic when none).
pub(super) fn layer_norm(dtype: DType, width: Option<i64>) -> Case {
    let rows = Dim::symbol("rows");
    let extent = width.map_or(Dim::symbol("width"), Dim::Const);
    let shape = [rows.clone(), extent.clone()];
    let vector = std::slice::from_ref(&extent);
    let buffers = vec![
        buffer(Access::Read, dtype, &shape),
        buffer(Access::Read, dtype, &shape),
        buffer(Access::Read, dtype, vector),
        buffer(Access::Read, dtype, vector),
        buffer(Access::Write, dtype, &shape),
    ];
    let mut body = Body::default();
    let x = load(&mut body, 0, dtype, axes(0, 2));
    let residual = load(&mut body, 1, dtype, axes(0, 2));
    let sum = binary(&mut body, ScalarOp::Add, x, residual);
    let total = body.push(DType::F32, InstKind::Reduce(ReduceOp::Sum, sum));
    let length = body.push(DType::I64, InstKind::Index(extent.clone()));
    let length = body.push(DType::F32, InstKind::Cast(length));
    let mean = binary(&mut body, ScalarOp::Div, total, length);
    let centred = binary(&mut body, ScalarOp::Sub, sum, mean);
    let square = binary(&mut body, ScalarOp::Mul, centred, centred);
    let squares = body.push(DType::F32, InstKind::Reduce(ReduceOp::Sum, square));
    let variance = binary(&mut body, ScalarOp::Div, squares, length);
    let eps = float(&mut body, 1e-5);
    let safe = binary(&mut body, ScalarOp::Add, variance, eps);
    let scale = unary(&mut body, ScalarOp::Rsqrt, safe);
    let normal = binary(&mut body, ScalarOp::Mul, centred, scale);
    let gamma = load(&mut body, 2, dtype, axes(1, 1));
    let beta = load(&mut body, 3, dtype, axes(1, 1));
    let scaled = binary(&mut body, ScalarOp::Mul, normal, gamma);
    let shifted = binary(&mut body, ScalarOp::Add, scaled, beta);
    let value = narrow(&mut body, shifted, dtype);
    let stores = vec![Store { buffer: 4, index: axes(0, 2), value }];
    let anchor =
        Rows { outer: vec![rows], inner: vec![extent], epilogue: Epilogue { body, stores } };
    let name = width.map_or("any".to_owned(), |width| width.to_string());
    case(&format!("layer_norm_{dtype}_{name}"), buffers, Anchor::Rows(anchor))
}

/// Softmax over the last axis.
pub(super) fn softmax(rows: i64, width: i64) -> Case {
    let shape = dims(&[rows, width]);
    let buffers =
        vec![buffer(Access::Read, DType::F32, &shape), buffer(Access::Write, DType::F32, &shape)];
    let mut body = Body::default();
    let x = load(&mut body, 0, DType::F32, axes(0, 2));
    let most = body.push(DType::F32, InstKind::Reduce(ReduceOp::Max, x));
    let centred = binary(&mut body, ScalarOp::Sub, x, most);
    let exp = unary(&mut body, ScalarOp::Exp, centred);
    let total = body.push(DType::F32, InstKind::Reduce(ReduceOp::Sum, exp));
    let value = binary(&mut body, ScalarOp::Div, exp, total);
    let stores = vec![Store { buffer: 1, index: axes(0, 2), value }];
    let anchor =
        Rows { outer: dims(&[rows]), inner: dims(&[width]), epilogue: Epilogue { body, stores } };
    case(&format!("softmax_{width}"), buffers, Anchor::Rows(anchor))
}

/// One reduction of x[outer, inner] over `inner`, or over `outer` when `across`.
pub(super) fn reduce(op: ReduceOp, dtype: DType, across: bool, width: i64) -> Case {
    let result = op.result(dtype);
    let (kept, gone) = if across { (40, width) } else { (5, width) };
    let shape = if across { dims(&[gone, kept]) } else { dims(&[kept, gone]) };
    let buffers =
        vec![buffer(Access::Read, dtype, &shape), buffer(Access::Write, result, &dims(&[kept]))];
    let mut body = Body::default();
    let index = if across { vec![axis(1), axis(0)] } else { axes(0, 2) };
    let x = load(&mut body, 0, dtype, index);
    let at = body.push(op.result(body.dtype(x)), InstKind::Reduce(op, x));
    let value = narrow(&mut body, at, result);
    let stores = vec![Store { buffer: 1, index: axes(0, 1), value }];
    let anchor =
        Rows { outer: dims(&[kept]), inner: dims(&[gone]), epilogue: Epilogue { body, stores } };
    let way = if across { "across" } else { "along" };
    case(&format!("{}_{dtype}_{way}_{width}", op.name()), buffers, Anchor::Rows(anchor))
}

/// How the operands of a product lie.
#[derive(Clone, Copy)]
pub(super) struct Layout {
    /// Left is stored [k, m].
    pub(super) left_transposed: bool,
    /// Right is stored [n, k].
    pub(super) right_transposed: bool,
}

/// Both operands row-major.
pub(super) const ROW_MAJOR: Layout = Layout { left_transposed: false, right_transposed: false };

/// y[b, m, n] = relu(Σ_k x[b, m, k] · w[b, k, n] + bias[n]).
pub(super) fn product(dtype: DType, batch: i64, m: Dim, n: i64, k: i64, layout: Layout) -> Case {
    let sum = if dtype.is_float() { dtype.accumulator() } else { dtype };
    let (b, n, k) = (Dim::Const(batch), Dim::Const(n), Dim::Const(k));
    let pair = |swap: bool, x: &Dim, y: &Dim| {
        if swap { [b.clone(), y.clone(), x.clone()] } else { [b.clone(), x.clone(), y.clone()] }
    };
    let buffers = vec![
        buffer(Access::Read, dtype, &pair(layout.left_transposed, &m, &k)),
        Buffer {
            constant: true,
            ..buffer(Access::Read, dtype, &pair(layout.right_transposed, &k, &n))
        },
        buffer(Access::Read, dtype, std::slice::from_ref(&n)),
        buffer(Access::Write, dtype, &[b.clone(), m.clone(), n.clone()]),
    ];
    let index = |swap: bool| if swap { vec![axis(0), axis(2), axis(1)] } else { axes(0, 3) };
    let mut body = Body::default();
    let slot = body.push(sum, InstKind::Slot(0));
    let bias = load(&mut body, 2, dtype, vec![axis(2)]);
    let added = binary(&mut body, ScalarOp::Add, slot, bias);
    let zero = body.push(
        sum,
        InstKind::Const(if sum.is_float() { ScalarConst::float(0.0) } else { ScalarConst::Int(0) }),
    );
    let clamped = binary(&mut body, ScalarOp::Max, added, zero);
    let value = narrow(&mut body, clamped, dtype);
    let stores = vec![Store { buffer: 3, index: axes(0, 3), value }];
    let anchor = Contract {
        batch: vec![b.clone()],
        m: vec![m.clone()],
        n: vec![n.clone()],
        k: vec![k.clone()],
        lhs: plain(0, dtype, index(layout.left_transposed)),
        rhs: plain(1, dtype, index(layout.right_transposed)),
        acc: sum,
        epilogue: Epilogue { body, stores },
    };
    let way = |swap: bool| if swap { "t" } else { "n" };
    let m_name = m.as_const().map_or("any".to_owned(), |m| m.to_string());
    let name = format!(
        "product_{dtype}_{batch}_{m_name}_{n}_{k}_{}{}",
        way(layout.left_transposed),
        way(layout.right_transposed)
    );
    case(&name, buffers, Anchor::Contract(anchor))
}

/// The heads of a projection: y[b, h, s, d] = Σ_k silu(x[b, s, k]) · w[k, h, d], a prologue and label groups.
pub(super) fn heads(dtype: DType) -> Case {
    let (b, s) = (Dim::symbol("batch"), Dim::symbol("sequence"));
    let (h, d, k) = (Dim::Const(3), Dim::Const(16), Dim::Const(40));
    let buffers = vec![
        buffer(Access::Read, dtype, &[b.clone(), s.clone(), k.clone()]),
        buffer(Access::Read, dtype, &[k.clone(), h.clone(), d.clone()]),
        buffer(Access::Write, dtype, &[b.clone(), h.clone(), s.clone(), d.clone()]),
    ];
    let mut body = Body::default();
    let x = load(&mut body, 0, dtype, axes(0, 3));
    let gate = unary(&mut body, ScalarOp::Sigmoid, x);
    let silu = binary(&mut body, ScalarOp::Mul, x, gate);
    let halved = narrow(&mut body, silu, dtype);
    let value = widen(&mut body, halved);
    let epilogue = keep(2, DType::F32, dtype, vec![axis(0), axis(2), axis(1), axis(3)]);
    let anchor = Contract {
        batch: vec![],
        m: vec![b, s],
        n: vec![h, d],
        k: vec![k],
        lhs: Operand { body, value },
        rhs: plain(1, dtype, axes(0, 3)),
        acc: DType::F32,
        epilogue,
    };
    case(&format!("heads_{dtype}"), buffers, Anchor::Contract(anchor))
}

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

/// One element from one element.
pub(super) fn single() -> Case {
    let buffers =
        vec![buffer(Access::Read, DType::F32, &[]), buffer(Access::Write, DType::F32, &[])];
    let mut body = Body::default();
    let x = load(&mut body, 0, DType::F32, vec![]);
    let value = unary(&mut body, ScalarOp::Exp, x);
    let stores = vec![Store { buffer: 1, index: vec![], value }];
    case(
        "single",
        buffers,
        Anchor::Loops(Loops { extents: vec![], epilogue: Epilogue { body, stores } }),
    )
}

/// y[i, j] = x[2 - i, j - 2] inside x and −1 outside: a reversed axis, padding, a fill value.
pub(super) fn padded() -> Case {
    let width = Dim::symbol("width");
    let input = [Dim::Const(3), width.clone()];
    let output = [Dim::Const(3), width.clone() + Dim::Const(5)];
    let buffers =
        vec![buffer(Access::Read, DType::F32, &input), buffer(Access::Write, DType::F32, &output)];
    let mut body = Body::default();
    let fill = float(&mut body, -1.0);
    let column = axis(1) - Dim::Const(2);
    let guards = vec![Guard { value: column.clone(), below: width }];
    let index = vec![Dim::Const(2) - axis(0), column];
    let value = body
        .push(DType::F32, InstKind::Load(Load { buffer: 0, index, guards, otherwise: Some(fill) }));
    let stores = vec![Store { buffer: 1, index: axes(0, 2), value }];
    case(
        "padded",
        buffers,
        Anchor::Loops(Loops { extents: output.to_vec(), epilogue: Epilogue { body, stores } }),
    )
}

/// The mean over the first and last axis of x[6, rows, 10], and x minus it.
pub(super) fn centred() -> Case {
    let shape = [Dim::Const(6), Dim::symbol("rows"), Dim::Const(10)];
    let kept = [shape[1].clone()];
    let buffers = vec![
        buffer(Access::Read, DType::F32, &shape),
        buffer(Access::Write, DType::F32, &shape),
        buffer(Access::Write, DType::F32, &kept),
    ];
    let mut body = Body::default();
    let index = vec![axis(1), axis(0), axis(2)];
    let x = load(&mut body, 0, DType::F32, index.clone());
    let sum = body.push(DType::F32, InstKind::Reduce(ReduceOp::Sum, x));
    let share = float(&mut body, 1.0 / 60.0);
    let mean = binary(&mut body, ScalarOp::Mul, sum, share);
    let value = binary(&mut body, ScalarOp::Sub, x, mean);
    let stores = vec![
        Store { buffer: 1, index, value },
        Store { buffer: 2, index: vec![axis(0)], value: mean },
    ];
    let inner = vec![shape[0].clone(), shape[2].clone()];
    let anchor = Rows { outer: kept.to_vec(), inner, epilogue: Epilogue { body, stores } };
    case("centred", buffers, Anchor::Rows(anchor))
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

/// scores[b, m, n] = Σ_k p[b, m, k] · v[b, k, n] with a symbolic k, which may be a multiple of eight or not.
pub(super) fn symbolic_depth(dtype: DType) -> Case {
    let (b, m, n, k) = (Dim::Const(2), Dim::symbol("rows"), Dim::Const(24), Dim::symbol("width"));
    let buffers = vec![
        buffer(Access::Read, dtype, &[b.clone(), m.clone(), k.clone()]),
        buffer(Access::Read, dtype, &[b.clone(), k.clone(), n.clone()]),
        buffer(Access::Write, dtype, &[b.clone(), m.clone(), n.clone()]),
    ];
    let anchor = Contract {
        batch: vec![b],
        m: vec![m],
        n: vec![n],
        k: vec![k],
        lhs: plain(0, dtype, axes(0, 3)),
        rhs: plain(1, dtype, axes(0, 3)),
        acc: DType::F32,
        epilogue: keep(2, DType::F32, dtype, axes(0, 3)),
    };
    case(&format!("symbolic_depth_{dtype}"), buffers, Anchor::Contract(anchor))
}
