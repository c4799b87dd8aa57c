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

pub(super) fn case(name: &str, buffers: Vec<Buffer>, anchor: Anchor) -> Case {
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

pub(super) fn narrow(body: &mut Body, at: u32, dtype: DType) -> u32 {
    if body.dtype(at) == dtype { at } else { body.push(dtype, InstKind::Cast(at)) }
}

pub(super) fn float(body: &mut Body, value: f64) -> u32 {
    body.push(DType::F32, InstKind::Const(ScalarConst::float(value)))
}

pub(super) fn unary(body: &mut Body, op: ScalarOp, a: u32) -> u32 {
    let dtype = op.result(&[body.dtype(a)]).expect("a well-typed test");
    body.push(dtype, InstKind::Scalar(op, smallvec![a]))
}

pub(super) fn binary(body: &mut Body, op: ScalarOp, a: u32, b: u32) -> u32 {
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
