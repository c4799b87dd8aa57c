//! Every row of the scalar table, every cast and every storage type, through loops.

use tgc_ir::dtype::DTypeKind;
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Epilogue, InstKind, KernelProgram, Loops, Store, axis,
};
use tgc_ir::scalar::{ScalarOp, Value};
use tgc_ir::{DType, Tensor};

use super::{Draw, Isa, argument, check, dims, kernel, load, on_device};

fn pointwise(inputs: &[DType], build: impl Fn(&mut Body, &[u32]) -> u32, n: i64) -> KernelProgram {
    let mut body = Body::default();
    let loads: Vec<u32> = inputs
        .iter()
        .enumerate()
        .map(|(i, &d)| body.push(d, load(i as u32, vec![axis(0)])))
        .collect();
    let value = build(&mut body, &loads);
    let dtype = body.dtype(value);
    let mut buffers: Vec<_> = inputs.iter().map(|&d| argument(Access::Read, d, &[n])).collect();
    buffers.push(argument(Access::Write, dtype, &[n]));
    let stores = vec![Store { buffer: inputs.len() as u32, index: vec![axis(0)], value }];
    kernel(
        buffers,
        Anchor::Loops(Loops { extents: dims(&[n]), epilogue: Epilogue { body, stores } }),
    )
}

/// Points of a row's domain: spread over magnitudes, with the edges.
fn domain(op: ScalarOp, draw: &mut Draw, n: usize, limit: f64) -> Vec<Value> {
    let (low, high) = op.record().domain;
    let (low, high) = (low.max(-limit), high.min(limit));
    (0..n)
        .map(|i| {
            let x = if i % 2 == 0 {
                low + (high - low) * (draw.unit() + 1.0) / 2.0
            } else {
                (draw.unit() * 40.0).exp2() * if draw.next() & 1 == 0 { 1.0 } else { -1.0 }
            };
            Value::Float(if (low..=high).contains(&x) {
                x
            } else {
                low + (high - low) * (draw.unit() + 1.0) / 2.0
            })
        })
        .collect()
}

#[test]
fn float_rows_are_within_their_bounds() {
    let n = 600;
    let mut draw = Draw::new(40);
    for &op in ScalarOp::ALL {
        for (dtype, limit) in [(DType::F32, 1e30), (DType::F64, 1e30)] {
            let types = vec![dtype; op.arity()];
            if op == ScalarOp::Select || op.result(&types).is_err() {
                continue;
            }
            let result = op.result(&types).unwrap();
            let program = pointwise(
                &types,
                |b, x| b.push(result, InstKind::Scalar(op, x.iter().copied().collect())),
                n,
            );
            let mut data: Vec<Tensor> = types
                .iter()
                .map(|&d| {
                    Tensor::from_values(d, &[n as usize], &domain(op, &mut draw, n as usize, limit))
                })
                .collect();
            data.push(Tensor::zeros(result, &[n as usize]));
            for isa in Isa::available() {
                let out = on_device(&program, &Default::default(), &data, isa, 1).pop().unwrap();
                for i in 0..n as usize {
                    let args: Vec<Value> = data[..types.len()].iter().map(|t| t.value(i)).collect();
                    let exact = op.evaluate(&args, dtype);
                    if result == DType::Bool {
                        assert_eq!(out.value(i), exact, "{op} {args:?}");
                        continue;
                    }
                    let (x, y) = (exact.as_f64(), out.value(i).as_f64());
                    let ulp = f64::from((x.abs() as f32).max(f32::MIN_POSITIVE))
                        * f64::from(f32::EPSILON);
                    let bound = f64::from(op.record().ulp.max(1))
                        * if dtype == DType::F64 { 1e-3 } else { 1.0 };
                    let near_zero = matches!(op, ScalarOp::Sin | ScalarOp::Cos | ScalarOp::Mod)
                        && (x - y).abs() < 3e-7;
                    let same = (x.is_nan() && y.is_nan())
                        || x as f32 == y as f32
                        || (x - y).abs() <= bound * ulp;
                    assert!(same || near_zero, "{} {op} {args:?}: {y}, should be {x}", isa.name());
                }
            }
        }
    }
}

#[test]
fn integer_and_logic_rows_are_exact() {
    let n = 200;
    let mut draw = Draw::new(41);
    let integers = [
        DType::I8,
        DType::U8,
        DType::I16,
        DType::U16,
        DType::I32,
        DType::U32,
        DType::I64,
        DType::U64,
        DType::Bool,
    ];
    for &op in ScalarOp::ALL {
        for dtype in integers {
            let types = vec![dtype; op.arity()];
            if op == ScalarOp::Select || op.result(&types).is_err() {
                continue;
            }
            let result = op.result(&types).unwrap();
            let program = pointwise(
                &types,
                |b, x| b.push(result, InstKind::Scalar(op, x.iter().copied().collect())),
                n,
            );
            let mut data: Vec<Tensor> =
                types.iter().map(|&d| draw.tensor(d, &[n as usize])).collect();
            data.push(Tensor::zeros(result, &[n as usize]));
            check(&program, &data, 0.0);
        }
    }
}

#[test]
fn select_takes_any_type_and_spread() {
    let mut draw = Draw::new(42);
    for dtype in [DType::F32, DType::F64, DType::I32, DType::Bool, DType::F16] {
        let program = pointwise(
            &[DType::Bool, dtype, dtype],
            |b, x| b.push(dtype, InstKind::Scalar(ScalarOp::Select, x.iter().copied().collect())),
            77,
        );
        let data = [
            draw.tensor(DType::Bool, &[77]),
            draw.tensor(dtype, &[77]),
            draw.tensor(dtype, &[77]),
            Tensor::zeros(dtype, &[77]),
        ];
        check(&program, &data, 0.0);
    }
}

#[test]
fn casts_between_all_types_are_exact() {
    let mut draw = Draw::new(43);
    for &from in DType::ALL {
        for &to in DType::ALL {
            let n = 64;
            let program = pointwise(&[from], |b, x| b.push(to, InstKind::Cast(x[0])), n);
            let mut values = draw.tensor(from, &[n as usize]).values();
            if from.kind() == DTypeKind::Float {
                values[..6].copy_from_slice(
                    &[300.7, -300.7, 0.0, -0.5, 7e9, -7e9]
                        .map(|x| tgc_ir::scalar::round_to(Value::Float(x), from)),
                );
            } else {
                let (low, high) = from.int_range();
                values[..2].copy_from_slice(&[Value::Int(low), Value::Int(high)]);
            }
            let data = [
                Tensor::from_values(from, &[n as usize], &values),
                Tensor::zeros(to, &[n as usize]),
            ];
            check(&program, &data, 0.0);
        }
    }
}

/// Every grouping of a gelu, x sigmoid(x) and a hard swish, whose intermediate values may also be wanted.
#[test]
fn superops_equal_their_expansions() {
    let mut draw = Draw::new(44);
    let n = 500;
    let f32 = DType::F32;
    for shape in 0..6 {
        let program = pointwise(
            &[f32],
            |b, loads| {
                let op = |b: &mut Body, op, args: &[u32]| super::scalar(b, f32, op, args);
                let x = loads[0];
                if shape == 4 {
                    let s = op(b, ScalarOp::Sigmoid, &[x]);
                    return op(b, ScalarOp::Mul, &[s, x]);
                }
                if shape == 5 {
                    let constants = [1.0 / 6.0, 0.5, 0.0, 1.0];
                    let ops = [ScalarOp::Mul, ScalarOp::Add, ScalarOp::Max, ScalarOp::Min];
                    let gate = constants.into_iter().zip(ops).fold(x, |y, (c, f)| {
                        let c = super::float(b, c);
                        op(b, f, &[y, c])
                    });
                    return op(b, ScalarOp::Mul, &[gate, x]);
                }
                let c = super::float(b, std::f64::consts::FRAC_1_SQRT_2);
                let y = op(b, ScalarOp::Mul, &[x, c]);
                let erf = op(b, ScalarOp::Erf, &[y]);
                let one = super::float(b, 1.0);
                let half = super::float(b, 0.5);
                let sum = op(b, ScalarOp::Add, &[one, erf]);
                match shape {
                    0 => {
                        let p = op(b, ScalarOp::Mul, &[x, sum]);
                        op(b, ScalarOp::Mul, &[p, half])
                    }
                    1 => {
                        let p = op(b, ScalarOp::Mul, &[half, x]);
                        op(b, ScalarOp::Mul, &[p, sum])
                    }
                    2 => {
                        let p = op(b, ScalarOp::Mul, &[sum, half]);
                        op(b, ScalarOp::Mul, &[x, p])
                    }
                    _ => {
                        let p = op(b, ScalarOp::Mul, &[x, sum]);
                        let g = op(b, ScalarOp::Mul, &[p, half]);
                        op(b, ScalarOp::Add, &[g, erf])
                    }
                }
            },
            n,
        );
        check(
            &program,
            &[draw.tensor(f32, &[n as usize]), Tensor::zeros(f32, &[n as usize])],
            4e-7,
        );
    }
}
