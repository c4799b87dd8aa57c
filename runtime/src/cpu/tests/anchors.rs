//! Loops, rows, scans, sorts, scatters and recurrent layers.

use tgc_ir::kernel_program::{
    Access, Anchor, Body, Cell, Epilogue, Guard, InstKind, KernelProgram, Load, Loops, Operand,
    ReduceOp, Rnn, Rows, Scan, Scatter, ScatterOp, Sort, Store, axis, value_index,
};
use tgc_ir::scalar::ScalarOp;
use tgc_ir::{DType, Dim, Tensor};

use super::{
    Draw, argument, check, check_with, dims, float, kernel, load, plain, scalar, store_slot,
};

const F32: DType = DType::F32;

fn loops(
    buffers: Vec<tgc_ir::kernel_program::Buffer>,
    extents: Vec<Dim>,
    body: Body,
    stores: Vec<Store>,
) -> KernelProgram {
    kernel(buffers, Anchor::Loops(Loops { extents, epilogue: Epilogue { body, stores } }))
}

#[test]
fn strided_broadcast_and_transposed_loads_match() {
    let mut draw = Draw::new(20);
    for (a, b, c) in [(2, 3, 5), (1, 40, 70), (3, 65, 33), (2, 1, 2000)] {
        let mut body = Body::default();
        let x = body.push(F32, load(0, vec![axis(1), axis(2), axis(0)]));
        let row = body.push(F32, load(1, vec![axis(1)]));
        let column = body.push(F32, load(2, vec![axis(2)]));
        let one = body.push(F32, load(3, vec![]));
        let sum = scalar(&mut body, F32, ScalarOp::Mul, &[x, row]);
        let sum = scalar(&mut body, F32, ScalarOp::Sub, &[column, sum]);
        let value = scalar(&mut body, F32, ScalarOp::Max, &[sum, one]);
        let program = loops(
            vec![
                argument(Access::Read, F32, &[b, c, a]),
                argument(Access::Read, F32, &[b]),
                argument(Access::Read, F32, &[c]),
                argument(Access::Read, F32, &[]),
                argument(Access::Write, F32, &[a, b, c]),
            ],
            dims(&[a, b, c]),
            body,
            vec![Store { buffer: 4, index: vec![axis(0), axis(1), axis(2)], value }],
        );
        let [a, b, c] = [a, b, c].map(|x| x as usize);
        let data = [
            draw.tensor(F32, &[b, c, a]),
            draw.tensor(F32, &[b]),
            draw.tensor(F32, &[c]),
            draw.tensor(F32, &[]),
            Tensor::zeros(F32, &[a, b, c]),
        ];
        check(&program, &data, 3e-7);
    }
}

/// Padding on two axes with a fill: guards by row and by column.
#[test]
fn guarded_loads_match() {
    let mut draw = Draw::new(21);
    for (h, w) in [(4, 5), (3, 300), (200, 3)] {
        let mut body = Body::default();
        let fill = float(&mut body, -7.0);
        let (y, x) = (axis(0) - Dim::Const(2), axis(1) - Dim::ONE);
        let guards = vec![
            Guard { value: y.clone(), below: Dim::Const(h) },
            Guard { value: x.clone(), below: Dim::Const(w) },
        ];
        let load = Load { buffer: 0, index: vec![y, x], guards, otherwise: Some(fill) };
        let value = body.push(F32, InstKind::Load(load));
        let out = [h + 3, w + 4];
        let program = loops(
            vec![argument(Access::Read, F32, &[h, w]), argument(Access::Write, F32, &out)],
            dims(&out),
            body,
            vec![Store { buffer: 1, index: vec![axis(0), axis(1)], value }],
        );
        let data = [
            draw.tensor(F32, &[h as usize, w as usize]),
            Tensor::zeros(F32, &[out[0] as usize, out[1] as usize]),
        ];
        check(&program, &data, 0.0);
    }
}

/// Rows gathered by id, columns by a computed index, divisions and remainders in indices, symbolic extents.
#[test]
fn gathered_and_computed_indices_match() {
    let mut draw = Draw::new(22);
    let mut body = Body::default();
    let id = body.push(DType::I64, load(0, vec![axis(0)]));
    let row = body.push(F32, load(1, vec![value_index(id), axis(1)]));
    let which = body.push(DType::I32, load(2, vec![axis(1)]));
    let picked = body.push(F32, load(1, vec![axis(0), value_index(which)]));
    let folded =
        vec![axis(0).modulo(&Dim::Const(3)), (axis(1) + axis(0)).floor_div(&Dim::Const(2))];
    let folded = body.push(F32, load(1, folded));
    let sum = scalar(&mut body, F32, ScalarOp::Add, &[row, picked]);
    let value = scalar(&mut body, F32, ScalarOp::Add, &[sum, folded]);
    let (s, width) = (Dim::symbol("S"), 300);
    let mut ids = argument(Access::Read, DType::I64, &[]);
    (ids.shape, ids.strides) = (vec![s.clone()], vec![Dim::ONE]);
    let mut out = argument(Access::Write, F32, &[]);
    (out.shape, out.strides) =
        (vec![s.clone(), Dim::Const(width)], vec![Dim::Const(width), Dim::ONE]);
    let program = loops(
        vec![
            ids,
            argument(Access::Read, F32, &[9, width]),
            argument(Access::Read, DType::I32, &[width]),
            out,
        ],
        vec![s, Dim::Const(width)],
        body,
        vec![Store { buffer: 3, index: vec![axis(0), axis(1)], value }],
    );
    for n in [1i64, 7] {
        let ids: Vec<i64> = (0..n).map(|_| (draw.next() % 9) as i64).collect();
        let which: Vec<_> =
            (0..width).map(|i| tgc_ir::scalar::Value::Int(i128::from(i * 7 % width))).collect();
        let data = [
            Tensor::from_i64(&[n as usize], &ids),
            draw.tensor(F32, &[9, width as usize]),
            Tensor::from_values(DType::I32, &[width as usize], &which),
            Tensor::zeros(F32, &[n as usize, width as usize]),
        ];
        check_with(&program, &[("S", n)], &data, 1e-7);
    }
}

/// Layer norm with a row output (the mean) and an element output.
fn layer_norm(outer: i64, inner: i64) -> KernelProgram {
    let mut body = Body::default();
    let x = body.push(F32, load(0, vec![axis(0), axis(1)]));
    let sum = body.push(F32, InstKind::Reduce(ReduceOp::Sum, x));
    let scale = float(&mut body, 1.0 / inner as f64);
    let mean = scalar(&mut body, F32, ScalarOp::Mul, &[sum, scale]);
    let centred = scalar(&mut body, F32, ScalarOp::Sub, &[x, mean]);
    let squared = scalar(&mut body, F32, ScalarOp::Mul, &[centred, centred]);
    let squares = body.push(F32, InstKind::Reduce(ReduceOp::Sum, squared));
    let variance = scalar(&mut body, F32, ScalarOp::Mul, &[squares, scale]);
    let epsilon = float(&mut body, 1e-5);
    let variance = scalar(&mut body, F32, ScalarOp::Add, &[variance, epsilon]);
    let inverse = scalar(&mut body, F32, ScalarOp::Rsqrt, &[variance]);
    let gamma = body.push(F32, load(1, vec![axis(1)]));
    let normal = scalar(&mut body, F32, ScalarOp::Mul, &[centred, inverse]);
    let value = scalar(&mut body, F32, ScalarOp::Mul, &[normal, gamma]);
    let stores = vec![
        Store { buffer: 2, index: vec![axis(0), axis(1)], value },
        Store { buffer: 3, index: vec![axis(0)], value: mean },
    ];
    kernel(
        vec![
            argument(Access::Read, F32, &[outer, inner]),
            argument(Access::Read, F32, &[inner]),
            argument(Access::Write, F32, &[outer, inner]),
            argument(Access::Write, F32, &[outer]),
        ],
        Anchor::Rows(Rows {
            outer: dims(&[outer]),
            inner: dims(&[inner]),
            epilogue: Epilogue { body, stores },
        }),
    )
}

#[test]
fn norms_of_short_long_and_swept_rows_match() {
    let mut draw = Draw::new(23);
    for (outer, inner) in [(1, 1), (7, 3), (5, 100), (3, 768), (2, 5000), (2, 20_000)] {
        let (o, i) = (outer as usize, inner as usize);
        let data = [
            draw.tensor(F32, &[o, i]),
            draw.tensor(F32, &[i]),
            Tensor::zeros(F32, &[o, i]),
            Tensor::zeros(F32, &[o]),
        ];
        check(&layer_norm(outer, inner), &data, 3e-6);
    }
}

/// Reduction over a middle axis: rows are not contiguous.
#[test]
fn every_reduction_of_every_kind_matches() {
    let mut draw = Draw::new(24);
    for dtype in [F32, DType::F64, DType::I32, DType::U8, DType::I64, DType::Bool, DType::F16] {
        for &op in ReduceOp::ALL {
            let logical = matches!(op, ReduceOp::All | ReduceOp::Any);
            if logical != (dtype == DType::Bool)
                || (dtype == DType::F16 && !matches!(op, ReduceOp::Max | ReduceOp::Min))
            {
                continue;
            }
            for width in [0, 1, 37] {
                if width == 0 && op.is_arg() {
                    continue;
                }
                let mut body = Body::default();
                let x = body.push(dtype, load(0, vec![axis(0), axis(2), axis(1)]));
                let value = body.push(op.result(dtype), InstKind::Reduce(op, x));
                let stores = vec![Store { buffer: 1, index: vec![axis(0), axis(1)], value }];
                let program = kernel(
                    vec![
                        argument(Access::Read, dtype, &[2, width, 9]),
                        argument(Access::Write, op.result(dtype), &[2, 9]),
                    ],
                    Anchor::Rows(Rows {
                        outer: dims(&[2, 9]),
                        inner: dims(&[width]),
                        epilogue: Epilogue { body, stores },
                    }),
                );
                let data = [
                    draw.tensor(dtype, &[2, width as usize, 9]),
                    Tensor::zeros(op.result(dtype), &[2, 9]),
                ];
                check(&program, &data, 1e-5);
            }
        }
    }
}

#[test]
fn scans_match() {
    let mut draw = Draw::new(25);
    for dtype in [F32, DType::I32, DType::F64] {
        for op in [ReduceOp::Sum, ReduceOp::Max, ReduceOp::Min] {
            for (exclusive, reverse) in [(false, false), (true, false), (false, true), (true, true)]
            {
                let program = kernel(
                    vec![
                        argument(Access::Read, dtype, &[3, 50]),
                        argument(Access::Write, dtype, &[3, 50]),
                    ],
                    Anchor::Scan(Scan {
                        outer: dims(&[3]),
                        extent: Dim::Const(50),
                        op,
                        exclusive,
                        reverse,
                        input: plain(dtype, 0, &[0, 1]),
                        acc: dtype,
                        epilogue: store_slot(dtype, 1, 2),
                    }),
                );
                if exclusive && op != ReduceOp::Sum && dtype == DType::I32 {
                    continue;
                }
                check(
                    &program,
                    &[draw.tensor(dtype, &[3, 50]), Tensor::zeros(dtype, &[3, 50])],
                    2e-6,
                );
            }
        }
    }
}

#[test]
fn sorts_match() {
    let mut draw = Draw::new(26);
    for dtype in [F32, DType::I64, DType::U8] {
        for largest in [false, true] {
            for k in [1, 5, 40] {
                let mut body = Body::default();
                let value = body.push(dtype, InstKind::Slot(0));
                let at = body.push(DType::I64, InstKind::Slot(1));
                let place = vec![axis(0), axis(1)];
                let stores = vec![
                    Store { buffer: 1, index: place.clone(), value },
                    Store { buffer: 2, index: place, value: at },
                ];
                let program = kernel(
                    vec![
                        argument(Access::Read, dtype, &[3, 40]),
                        argument(Access::Write, dtype, &[3, k]),
                        argument(Access::Write, DType::I64, &[3, k]),
                    ],
                    Anchor::Sort(Sort {
                        outer: dims(&[3]),
                        extent: Dim::Const(40),
                        k: Dim::Const(k),
                        largest,
                        input: plain(dtype, 0, &[0, 1]),
                        epilogue: Epilogue { body, stores },
                    }),
                );
                let k = k as usize;
                let data = [
                    draw.tensor(dtype, &[3, 40]),
                    Tensor::zeros(dtype, &[3, k]),
                    Tensor::zeros(DType::I64, &[3, k]),
                ];
                check(&program, &data, 0.0);
            }
        }
    }
}

#[test]
fn scatters_match() {
    let mut draw = Draw::new(27);
    for (op, init) in [
        (ScatterOp::Replace, true),
        (ScatterOp::Add, true),
        (ScatterOp::Mul, false),
        (ScatterOp::Min, true),
        (ScatterOp::Max, false),
    ] {
        let mut body = Body::default();
        let at = body.push(DType::I64, load(1, vec![axis(0)]));
        let value = body.push(F32, load(2, vec![axis(0), axis(1)]));
        let store = Store { buffer: 3, index: vec![value_index(at), axis(1)], value };
        let program = kernel(
            vec![
                argument(Access::Read, F32, &[6, 4]),
                argument(Access::Read, DType::I64, &[9]),
                argument(Access::Read, F32, &[9, 4]),
                argument(Access::ReadWrite, F32, &[6, 4]),
            ],
            Anchor::Scatter(Scatter {
                updates: dims(&[9, 4]),
                init: init.then(|| plain(F32, 0, &[0, 1])),
                op,
                body,
                store,
            }),
        );
        let data = [
            draw.tensor(F32, &[6, 4]),
            Tensor::from_i64(&[9], &[0, 3, 3, 5, -1, 6, 2, 0, 3]),
            draw.tensor(F32, &[9, 4]),
            draw.tensor(F32, &[6, 4]),
        ];
        check(&program, &data, 1e-6);
    }
}

fn activation(op: ScalarOp, dtype: DType) -> Operand {
    let mut body = Body::default();
    let x = body.push(dtype, InstKind::Slot(0));
    let value = scalar(&mut body, dtype, op, &[x]);
    Operand { body, value }
}

#[test]
fn recurrent_layers_match() {
    let mut draw = Draw::new(28);
    let (time, batch, hidden) = (4i64, 3i64, 20i64);
    for dtype in [F32, DType::F64] {
        for cell in [
            Cell::Plain,
            Cell::Lstm,
            Cell::Gru { linear_before_reset: false },
            Cell::Gru { linear_before_reset: true },
        ] {
            for (reverse, extras) in [(false, false), (true, true)] {
                let gates = cell.gates() * hidden;
                let lstm = cell == Cell::Lstm;
                let shapes: [&[i64]; 9] = [
                    &[time, batch, gates],
                    &[gates, hidden],
                    &[batch, hidden],
                    &[batch, hidden],
                    &[3 * hidden],
                    &[hidden],
                    &[time, batch, hidden],
                    &[batch, hidden],
                    &[batch, hidden],
                ];
                let mut buffers: Vec<_> = shapes
                    .iter()
                    .enumerate()
                    .map(|(i, s)| {
                        argument(if i < 6 { Access::Read } else { Access::Write }, dtype, s)
                    })
                    .collect();
                buffers[1].constant = extras;
                buffers.push(argument(Access::Read, DType::I64, &[batch]));
                let mut data: Vec<Tensor> = shapes
                    .iter()
                    .map(|s| draw.tensor(dtype, &s.iter().map(|&n| n as usize).collect::<Vec<_>>()))
                    .collect();
                data.push(Tensor::from_i64(&[3], &[4, 2, 0]));
                let program = kernel(
                    buffers,
                    Anchor::Rnn(Rnn {
                        cell,
                        reverse,
                        time: Dim::Const(time),
                        batch: Dim::Const(batch),
                        hidden: Dim::Const(hidden),
                        x: plain(dtype, 0, &[0, 1, 2]),
                        r: plain(dtype, 1, &[0, 1]),
                        r_bias: matches!(cell, Cell::Gru { linear_before_reset: true })
                            .then(|| plain(dtype, 5, &[0])),
                        h0: plain(dtype, 2, &[0, 1]),
                        c0: lstm.then(|| plain(dtype, 3, &[0, 1])),
                        peephole: (lstm && extras).then(|| plain(dtype, 4, &[0])),
                        lengths: extras.then(|| plain(DType::I64, 9, &[0])),
                        activations: vec![
                            activation(
                                if cell == Cell::Plain {
                                    ScalarOp::Tanh
                                } else {
                                    ScalarOp::Sigmoid
                                },
                                dtype,
                            ),
                            activation(ScalarOp::Tanh, dtype),
                            activation(ScalarOp::Tanh, dtype),
                        ],
                        input_forget: lstm && extras,
                        clip: extras.then(|| tgc_ir::kernel_program::ScalarConst::float(1.5)),
                        acc: dtype,
                        y: Some(store_slot(dtype, 6, 3)),
                        h: Some(store_slot(dtype, 7, 2)),
                        c: lstm.then(|| store_slot(dtype, 8, 2)),
                    }),
                );
                check(&program, &data, if dtype == F32 { 3e-5 } else { 1e-12 });
            }
        }
    }
}
