//! Contractions and attention.

use tgc_ir::kernel_program::{
    Access, Anchor, Attend, Body, Contract, Epilogue, InstKind, KernelProgram, Operand,
    ScalarConst, Store, axis,
};
use tgc_ir::scalar::ScalarOp;
use tgc_ir::{DType, Tensor};

use super::{Draw, argument, check, dims, float, kernel, load, plain, scalar, store_slot};

const F32: DType = DType::F32;

/// y[b, m, n] = gelu-like epilogue of x[b, m, k] w[k, n] + bias[n] + r[b, m, n]
fn linear(batch: i64, m: i64, n: i64, k: i64, constant: bool) -> KernelProgram {
    let mut body = Body::default();
    let acc = body.push(F32, InstKind::Slot(0));
    let bias = body.push(F32, load(2, vec![axis(2)]));
    let sum = scalar(&mut body, F32, ScalarOp::Add, &[acc, bias]);
    let tanh = scalar(&mut body, F32, ScalarOp::Tanh, &[sum]);
    let rest = body.push(F32, load(3, vec![axis(0), axis(1), axis(2)]));
    let value = scalar(&mut body, F32, ScalarOp::Add, &[tanh, rest]);
    let store = Store { buffer: 4, index: vec![axis(0), axis(1), axis(2)], value };
    let mut weight = argument(Access::Read, F32, &[k, n]);
    weight.constant = constant;
    kernel(
        vec![
            argument(Access::Read, F32, &[batch, m, k]),
            weight,
            argument(Access::Read, F32, &[n]),
            argument(Access::Read, F32, &[batch, m, n]),
            argument(Access::Write, F32, &[batch, m, n]),
        ],
        Anchor::Contract(Contract {
            batch: dims(&[batch]),
            m: dims(&[m]),
            n: dims(&[n]),
            k: dims(&[k]),
            lhs: plain(F32, 0, &[0, 1, 2]),
            rhs: plain(F32, 1, &[1, 2]),
            acc: F32,
            epilogue: Epilogue { body, stores: vec![store] },
        }),
    )
}

fn linear_data(draw: &mut Draw, batch: usize, m: usize, n: usize, k: usize) -> Vec<Tensor> {
    vec![
        draw.tensor(F32, &[batch, m, k]),
        draw.tensor(F32, &[k, n]),
        draw.tensor(F32, &[n]),
        draw.tensor(F32, &[batch, m, n]),
        Tensor::zeros(F32, &[batch, m, n]),
    ]
}

#[test]
fn contractions_of_ragged_extents_match() {
    let mut draw = Draw::new(1);
    for (batch, m, n, k) in [
        (1, 1, 1, 1),
        (1, 1, 70, 9),
        (2, 3, 49, 5),
        (1, 9, 64, 17),
        (1, 33, 97, 20),
        (1, 67, 50, 3),
        (3, 8, 16, 33),
    ] {
        for constant in [false, true] {
            let data = linear_data(&mut draw, batch, m, n, k);
            let [b, m, n, k] = [batch, m, n, k].map(|x| x as i64);
            check(&linear(b, m, n, k, constant), &data, 2e-6);
        }
    }
}

#[test]
fn empty_contractions_write_the_epilogue_of_zero() {
    let mut draw = Draw::new(2);
    check(&linear(1, 3, 5, 0, false), &linear_data(&mut draw, 1, 3, 5, 0), 1e-6);
    check(&linear(1, 0, 5, 4, false), &linear_data(&mut draw, 1, 0, 5, 4), 1e-6);
}

/// Several axes per role, transposed operands, a prologue on each side.
#[test]
fn contractions_with_split_axes_and_prologues_match() {
    let mut draw = Draw::new(3);
    // lhs[s, h, d] transposed in memory as [h, d, s]; rhs[h, d, e, t]; out[t, s, e]
    let (s, h, d, e, t) = (5, 2, 7, 3, 6);
    let mut lhs = Body::default();
    let x = lhs.push(DType::F16, load(0, vec![axis(1), axis(2), axis(0)]));
    let x = lhs.push(F32, InstKind::Cast(x));
    let half = float(&mut lhs, 0.5);
    let lhs_value = scalar(&mut lhs, F32, ScalarOp::Mul, &[x, half]);
    let mut rhs = Body::default();
    let w = rhs.push(DType::BF16, load(1, vec![axis(0), axis(1), axis(2), axis(3)]));
    let rhs_value = rhs.push(F32, InstKind::Cast(w));
    let mut out = Body::default();
    let acc = out.push(F32, InstKind::Slot(0));
    let value = out.push(DType::F16, InstKind::Cast(acc));
    let program = kernel(
        vec![
            argument(Access::Read, DType::F16, &[h, d, s]),
            argument(Access::Read, DType::BF16, &[h, d, e, t]),
            argument(Access::Write, DType::F16, &[t, s, e]),
        ],
        Anchor::Contract(Contract {
            batch: vec![],
            m: dims(&[s]),
            n: dims(&[e, t]),
            k: dims(&[h, d]),
            lhs: Operand { body: lhs, value: lhs_value },
            rhs: Operand { body: rhs, value: rhs_value },
            acc: F32,
            epilogue: Epilogue {
                body: out,
                stores: vec![Store { buffer: 2, index: vec![axis(2), axis(0), axis(1)], value }],
            },
        }),
    );
    let data = [
        draw.tensor(DType::F16, &[2, 7, 5]),
        draw.tensor(DType::BF16, &[2, 7, 3, 6]),
        Tensor::zeros(DType::F16, &[6, 5, 3]),
    ];
    check(&program, &data, 1e-3);
}

#[test]
fn integer_and_double_contractions_are_exact() {
    let mut draw = Draw::new(4);
    for (from, acc) in [
        (DType::I8, DType::I32),
        (DType::U8, DType::I32),
        (DType::I64, DType::I64),
        (DType::F64, DType::F64),
    ] {
        let operand = |buffer: u32, axes: &[usize]| {
            let mut operand = plain(from, buffer, axes);
            operand.value = operand.body.push(acc, InstKind::Cast(operand.value));
            operand
        };
        let program = kernel(
            vec![
                argument(Access::Read, from, &[2, 4, 5]),
                argument(Access::Read, from, &[2, 5, 300]),
                argument(Access::Write, acc, &[2, 4, 300]),
            ],
            Anchor::Contract(Contract {
                batch: dims(&[2]),
                m: dims(&[4]),
                n: dims(&[300]),
                k: dims(&[5]),
                lhs: operand(0, &[0, 1, 2]),
                rhs: operand(1, &[0, 1, 2]),
                acc,
                epilogue: store_slot(acc, 2, 3),
            }),
        );
        let data = [
            draw.tensor(from, &[2, 4, 5]),
            draw.tensor(from, &[2, 5, 300]),
            Tensor::zeros(acc, &[2, 4, 300]),
        ];
        check(&program, &data, 1e-15);
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch() {
    let mut draw = Draw::new(5);
    let data = linear_data(&mut draw, 1, 13, 70, 40);
    for isa in super::Isa::available() {
        let all =
            super::on_device(&linear(1, 13, 70, 40, true), &Default::default(), &data, isa, 1);
        for row in [0, 7, 12] {
            let cut = |t: &Tensor, width: usize| {
                Tensor::new(
                    F32,
                    vec![1, 1, width],
                    t.bytes().slice(row * width * 4..(row + 1) * width * 4),
                )
                .unwrap()
            };
            let alone = [
                cut(&data[0], 40),
                data[1].clone(),
                data[2].clone(),
                cut(&data[3], 70),
                cut(&data[4], 70),
            ];
            let alone =
                super::on_device(&linear(1, 1, 70, 40, true), &Default::default(), &alone, isa, 1);
            assert_eq!(alone[4].bytes(), cut(&all[4], 70).bytes(), "{} row {row}", isa.name());
        }
    }
}

struct Heads {
    b: i64,
    h: i64,
    m: i64,
    n: i64,
    d: i64,
    e: i64,
}

/// Attention over [b, s, h * d] buffers with a score and a probability body.
fn attention(
    z: &Heads,
    dtype: DType,
    score: Operand,
    prob: Operand,
    causal: Option<i64>,
    mask: &[i64],
) -> KernelProgram {
    let rows = |buffer: u32| {
        let mut body = Body::default();
        let value = body.push(dtype, load(buffer, vec![axis(0), axis(2), axis(1), axis(3)]));
        Operand { body, value }
    };
    let mut out = Body::default();
    let value = out.push(dtype, InstKind::Slot(0));
    kernel(
        vec![
            argument(Access::Read, dtype, &[z.b, z.m, z.h, z.d]),
            argument(Access::Read, dtype, &[z.b, z.n, z.h, z.d]),
            argument(Access::Read, dtype, &[z.b, z.n, z.h, z.e]),
            argument(Access::Read, DType::Bool, mask),
            argument(Access::Write, dtype, &[z.b, z.m, z.h, z.e]),
        ],
        Anchor::Attend(Attend {
            batch: dims(&[z.b, z.h]),
            m: dims(&[z.m]),
            n: dims(&[z.n]),
            d: dims(&[z.d]),
            e: dims(&[z.e]),
            q: rows(0),
            k: rows(1),
            v: rows(2),
            score,
            prob,
            acc: dtype,
            causal: causal.map(tgc_ir::Dim::Const),
            epilogue: Epilogue {
                body: out,
                stores: vec![Store {
                    buffer: 4,
                    index: vec![axis(0), axis(2), axis(1), axis(3)],
                    value,
                }],
            },
        }),
    )
}

fn attention_data(draw: &mut Draw, z: &Heads, dtype: DType, mask: &[usize]) -> Vec<Tensor> {
    let [b, h, m, n, d, e] = [z.b, z.h, z.m, z.n, z.d, z.e].map(|x| x as usize);
    vec![
        draw.tensor(dtype, &[b, m, h, d]),
        draw.tensor(dtype, &[b, n, h, d]),
        draw.tensor(dtype, &[b, n, h, e]),
        draw.tensor(DType::Bool, mask),
        Tensor::zeros(dtype, &[b, m, h, e]),
    ]
}

fn identity(dtype: DType) -> Operand {
    let mut body = Body::default();
    let value = body.push(dtype, InstKind::Slot(0));
    Operand { body, value }
}

fn constant(body: &mut Body, dtype: DType, x: f64) -> u32 {
    body.push(dtype, InstKind::Const(ScalarConst::float(x)))
}

#[test]
fn scaled_attention_matches() {
    let mut draw = Draw::new(6);
    for (m, n, d, e) in [(1, 1, 4, 4), (5, 7, 8, 16), (30, 65, 9, 5), (50, 3, 16, 32)] {
        let z = Heads { b: 2, h: 2, m, n, d, e };
        for dtype in [F32, DType::F64] {
            let mut score = identity(dtype);
            let c = constant(&mut score.body, dtype, 0.3);
            score.value = scalar(&mut score.body, dtype, ScalarOp::Mul, &[0, c]);
            let program = attention(&z, dtype, score, identity(dtype), None, &[1]);
            check(&program, &attention_data(&mut draw, &z, dtype, &[1]), 2e-6);
        }
    }
}

/// select(mask[b, n], s, -inf) with rows that may be fully masked, and a guard that turns their NaN into zero.
#[test]
fn masked_attention_with_fully_masked_rows_matches() {
    let mut draw = Draw::new(7);
    let z = Heads { b: 3, h: 2, m: 6, n: 20, d: 8, e: 16 };
    let mut score = identity(F32);
    let mask = score.body.push(DType::Bool, load(3, vec![axis(0), axis(3)]));
    let low = constant(&mut score.body, F32, f64::NEG_INFINITY);
    score.value = scalar(&mut score.body, F32, ScalarOp::Select, &[mask, 0, low]);
    let mut guard = identity(F32);
    let nan =
        guard.body.push(DType::Bool, InstKind::Scalar(ScalarOp::IsNan, [0].into_iter().collect()));
    let zero = constant(&mut guard.body, F32, 0.0);
    guard.value = scalar(&mut guard.body, F32, ScalarOp::Select, &[nan, zero, 0]);
    let mut data = attention_data(&mut draw, &z, F32, &[3, 20]);
    let mut bits: Vec<_> = data[3].values();
    bits[20..40].fill(tgc_ir::scalar::Value::Int(0));
    data[3] = Tensor::from_values(DType::Bool, &[3, 20], &bits);
    for prob in [identity(F32), guard] {
        check(&attention(&z, F32, score.clone(), prob, None, &[3, 20]), &data, 2e-6);
    }
}

#[test]
fn attention_over_no_key_is_zero() {
    let mut draw = Draw::new(12);
    let z = Heads { b: 2, h: 2, m: 3, n: 0, d: 8, e: 16 };
    let program = attention(&z, F32, identity(F32), identity(F32), None, &[1]);
    check(&program, &attention_data(&mut draw, &z, F32, &[1]), 0.0);
}

#[test]
fn causal_blocks_are_skipped_without_a_trace() {
    let mut draw = Draw::new(8);
    for (m, n, offset) in [(60, 60, 0), (30, 75, 45), (40, 20, -20)] {
        let z = Heads { b: 1, h: 2, m, n, d: 8, e: 8 };
        let mut score = identity(F32);
        let (row, key) = (axis(2) + tgc_ir::Dim::Const(offset), axis(3));
        let row = score.body.push(DType::I64, InstKind::Index(row));
        let key = score.body.push(DType::I64, InstKind::Index(key));
        let seen = scalar(&mut score.body, DType::Bool, ScalarOp::Le, &[key, row]);
        let low = constant(&mut score.body, F32, -1e30);
        score.value = scalar(&mut score.body, F32, ScalarOp::Select, &[seen, 0, low]);
        let program = attention(&z, F32, score, identity(F32), Some(offset), &[1]);
        check(&program, &attention_data(&mut draw, &z, F32, &[1]), 2e-6);
    }
}

/// Query heads share key heads: the head index of keys and values is divided.
#[test]
fn grouped_heads_read_their_keys_in_place() {
    let mut draw = Draw::new(11);
    let z = Heads { b: 2, h: 6, m: 9, n: 9, d: 8, e: 16 };
    let mut program = attention(&z, F32, identity(F32), identity(F32), None, &[1]);
    let shared = axis(1).floor_div(&tgc_ir::Dim::Const(3));
    let Anchor::Attend(attend) = &mut program.anchor else { panic!("attention") };
    for (buffer, operand) in [(1, &mut attend.k), (2, &mut attend.v)] {
        let mut body = Body::default();
        let value = body.push(F32, load(buffer, vec![axis(0), axis(2), shared.clone(), axis(3)]));
        *operand = Operand { body, value };
    }
    program.buffers[1] = argument(Access::Read, F32, &[2, 9, 2, 8]);
    program.buffers[2] = argument(Access::Read, F32, &[2, 9, 2, 16]);
    let mut data = attention_data(&mut draw, &z, F32, &[1]);
    data[1] = draw.tensor(F32, &[2, 9, 2, 8]);
    data[2] = draw.tensor(F32, &[2, 9, 2, 16]);
    check(&program, &data, 2e-6);
}
