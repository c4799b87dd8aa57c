//! Speed of the cpu device's kernels on one thread: `cargo run --release -p tgc-runtime --example cpu_kernels`.
//!
//! Every line is the best of several rounds of one bound kernel program, epilogue included. An argument names the
//! instruction set (`portable`, `avx2`, `avx512`); the best of the machine is the default.

use std::hint::black_box;
use std::time::Instant;

use tgc_ir::DType;
use tgc_ir::dim::Dim;
use tgc_ir::kernel_program::{
    Access, Anchor, Attend, Body, Buffer, Contract, Conv, Epilogue, InstKind, KernelProgram, Load,
    Loops, Operand, ReduceOp, Rows, ScalarConst, Store, axis,
};
use tgc_ir::scalar::ScalarOp;
use tgc_runtime::cpu::Isa;
use tgc_runtime::cpu::exec::{Exec, Memory};
use tgc_runtime::cpu::kernels::buffer::Buffer as Memory64;
use tgc_runtime::cpu::kernels::pool::Pool;
use tgc_runtime::cpu::kernels::region::{self, Region};
use tgc_runtime::cpu::program::{CpuProgram, Packs};

const F32: DType = DType::F32;

fn dims(extents: &[i64]) -> Vec<Dim> {
    extents.iter().map(|&e| Dim::Const(e)).collect()
}

fn argument(access: Access, shape: &[i64], constant: bool) -> Buffer {
    let shape = dims(shape);
    Buffer { access, dtype: F32, strides: Buffer::dense_strides(&shape), shape, constant }
}

fn load(buffer: u32, index: Vec<Dim>) -> InstKind {
    InstKind::Load(Load { buffer, index, guards: Vec::new(), otherwise: None })
}

fn operand(buffer: u32, axes: &[usize]) -> Operand {
    let mut body = Body::default();
    let value = body.push(F32, load(buffer, axes.iter().map(|&a| axis(a)).collect()));
    Operand { body, value }
}

fn op(body: &mut Body, op: ScalarOp, args: &[u32]) -> u32 {
    body.push(F32, InstKind::Scalar(op, args.iter().copied().collect()))
}

fn float(body: &mut Body, x: f64) -> u32 {
    body.push(F32, InstKind::Const(ScalarConst::float(x)))
}

/// x/2 (1 + erf(x / sqrt 2)) as exporters write it.
fn gelu(body: &mut Body, x: u32) -> u32 {
    let c = float(body, std::f64::consts::FRAC_1_SQRT_2);
    let scaled = op(body, ScalarOp::Mul, &[x, c]);
    let erf = op(body, ScalarOp::Erf, &[scaled]);
    let one = float(body, 1.0);
    let sum = op(body, ScalarOp::Add, &[erf, one]);
    let product = op(body, ScalarOp::Mul, &[x, sum]);
    let half = float(body, 0.5);
    op(body, ScalarOp::Mul, &[product, half])
}

/// y = act(x w + bias)
fn linear(m: i64, n: i64, k: i64, activate: bool) -> KernelProgram {
    let mut body = Body::default();
    let acc = body.push(F32, InstKind::Slot(0));
    let bias = body.push(F32, load(2, vec![axis(1)]));
    let mut value = op(&mut body, ScalarOp::Add, &[acc, bias]);
    if activate {
        value = gelu(&mut body, value);
    }
    KernelProgram {
        name: "linear".into(),
        buffers: vec![
            argument(Access::Read, &[m, k], false),
            argument(Access::Read, &[k, n], true),
            argument(Access::Read, &[n], true),
            argument(Access::Write, &[m, n], false),
        ],
        anchor: Anchor::Contract(Contract {
            batch: vec![],
            m: dims(&[m]),
            n: dims(&[n]),
            k: dims(&[k]),
            lhs: operand(0, &[0, 1]),
            rhs: operand(1, &[0, 1]),
            acc: F32,
            epilogue: Epilogue {
                body,
                stores: vec![Store { buffer: 3, index: vec![axis(0), axis(1)], value }],
            },
        }),
    }
}

fn attention(h: i64, s: i64, d: i64, masked: bool, causal: bool) -> KernelProgram {
    let mut score = Body::default();
    let raw = score.push(F32, InstKind::Slot(0));
    let scale = float(&mut score, 1.0 / (d as f64).sqrt());
    let mut value = op(&mut score, ScalarOp::Mul, &[raw, scale]);
    if masked {
        let mask = score.push(F32, load(3, vec![axis(2)]));
        value = op(&mut score, ScalarOp::Add, &[value, mask]);
    }
    if causal {
        let row = score.push(DType::I64, InstKind::Index(axis(1)));
        let key = score.push(DType::I64, InstKind::Index(axis(2)));
        let seen = score
            .push(DType::Bool, InstKind::Scalar(ScalarOp::Le, [key, row].into_iter().collect()));
        let low = float(&mut score, f64::NEG_INFINITY);
        value = op(&mut score, ScalarOp::Select, &[seen, value, low]);
    }
    let mut prob = Body::default();
    let p = prob.push(F32, InstKind::Slot(0));
    let mut out = Body::default();
    let sum = out.push(F32, InstKind::Slot(0));
    KernelProgram {
        name: "attention".into(),
        buffers: vec![
            argument(Access::Read, &[s, h, d], false),
            argument(Access::Read, &[s, h, d], false),
            argument(Access::Read, &[s, h, d], false),
            argument(Access::Read, &[s], false),
            argument(Access::Write, &[s, h, d], false),
        ],
        anchor: Anchor::Attend(Attend {
            batch: dims(&[h]),
            m: dims(&[s]),
            n: dims(&[s]),
            d: dims(&[d]),
            e: dims(&[d]),
            q: operand(0, &[1, 0, 2]),
            k: operand(1, &[1, 0, 2]),
            v: operand(2, &[1, 0, 2]),
            score: Operand { body: score, value },
            prob: Operand { body: prob, value: p },
            acc: F32,
            causal: causal.then_some(Dim::ZERO),
            epilogue: Epilogue {
                body: out,
                stores: vec![Store {
                    buffer: 4,
                    index: vec![axis(1), axis(0), axis(2)],
                    value: sum,
                }],
            },
        }),
    }
}

/// layer norm of x (+ gelu and residual before it when `chain`)
fn norm(rows: i64, n: i64, chain: bool) -> KernelProgram {
    let mut body = Body::default();
    let mut x = body.push(F32, load(0, vec![axis(0), axis(1)]));
    if chain {
        let bias = body.push(F32, load(1, vec![axis(1)]));
        let sum = op(&mut body, ScalarOp::Add, &[x, bias]);
        let active = gelu(&mut body, sum);
        let rest = body.push(F32, load(2, vec![axis(0), axis(1)]));
        x = op(&mut body, ScalarOp::Add, &[active, rest]);
    }
    let inverse = float(&mut body, 1.0 / n as f64);
    let sum = body.push(F32, InstKind::Reduce(ReduceOp::Sum, x));
    let mean = op(&mut body, ScalarOp::Mul, &[sum, inverse]);
    let centred = op(&mut body, ScalarOp::Sub, &[x, mean]);
    let square = op(&mut body, ScalarOp::Mul, &[centred, centred]);
    let squares = body.push(F32, InstKind::Reduce(ReduceOp::Sum, square));
    let variance = op(&mut body, ScalarOp::Mul, &[squares, inverse]);
    let epsilon = float(&mut body, 1e-5);
    let variance = op(&mut body, ScalarOp::Add, &[variance, epsilon]);
    let deviation = op(&mut body, ScalarOp::Rsqrt, &[variance]);
    let normal = op(&mut body, ScalarOp::Mul, &[centred, deviation]);
    let gamma = body.push(F32, load(1, vec![axis(1)]));
    let scaled = op(&mut body, ScalarOp::Mul, &[normal, gamma]);
    let value = op(&mut body, ScalarOp::Add, &[scaled, gamma]);
    KernelProgram {
        name: "norm".into(),
        buffers: vec![
            argument(Access::Read, &[rows, n], false),
            argument(Access::Read, &[n], true),
            argument(Access::Read, &[rows, n], false),
            argument(Access::Write, &[rows, n], false),
        ],
        anchor: Anchor::Rows(Rows {
            outer: dims(&[rows]),
            inner: dims(&[n]),
            epilogue: Epilogue {
                body,
                stores: vec![Store { buffer: 3, index: vec![axis(0), axis(1)], value }],
            },
        }),
    }
}

/// (mul, add, max) three times over n floats, or gelu.
fn chain(n: i64, activation: bool) -> KernelProgram {
    let mut body = Body::default();
    let mut x = body.push(F32, load(0, vec![axis(0)]));
    if activation {
        x = gelu(&mut body, x);
    } else {
        for i in 0..3 {
            let (a, b, c) = (
                float(&mut body, 1.1 + f64::from(i)),
                float(&mut body, 0.3),
                float(&mut body, -1.0 - f64::from(i)),
            );
            x = op(&mut body, ScalarOp::Mul, &[x, a]);
            x = op(&mut body, ScalarOp::Add, &[x, b]);
            x = op(&mut body, ScalarOp::Max, &[x, c]);
        }
    }
    KernelProgram {
        name: "chain".into(),
        buffers: vec![argument(Access::Read, &[n], false), argument(Access::Write, &[n], false)],
        anchor: Anchor::Loops(Loops {
            extents: dims(&[n]),
            epilogue: Epilogue {
                body,
                stores: vec![Store { buffer: 1, index: vec![axis(0)], value: x }],
            },
        }),
    }
}

/// NCHW convolution with bias and relu.
fn conv(groups: i64, c: i64, o: i64, extent: i64, k: i64, stride: i64) -> KernelProgram {
    let out = (extent + 2 * (k / 2) - k) / stride + 1;
    let mut body = Body::default();
    let acc = body.push(F32, InstKind::Slot(0));
    let bias = body.push(F32, load(2, vec![axis(1)]));
    let sum = op(&mut body, ScalarOp::Add, &[acc, bias]);
    let zero = float(&mut body, 0.0);
    let value = op(&mut body, ScalarOp::Max, &[sum, zero]);
    KernelProgram {
        name: "conv".into(),
        buffers: vec![
            argument(Access::Read, &[1, groups * c, extent, extent], false),
            argument(Access::Read, &[groups * o, c, k, k], true),
            argument(Access::Read, &[groups * o], true),
            argument(Access::Write, &[1, groups * o, out, out], false),
        ],
        anchor: Anchor::Conv(Conv {
            batch: Dim::ONE,
            groups,
            in_channels: Dim::Const(c),
            out_channels: Dim::Const(o),
            in_spatial: dims(&[extent, extent]),
            out_spatial: dims(&[out, out]),
            kernel: dims(&[k, k]),
            stride: vec![stride; 2],
            dilation: vec![1; 2],
            pad_low: dims(&[k / 2; 2]),
            transposed: false,
            input: operand(0, &[0, 1, 2, 3]),
            filter: operand(1, &[0, 1, 2, 3]),
            acc: F32,
            epilogue: Epilogue {
                body,
                stores: vec![Store {
                    buffer: 3,
                    index: vec![axis(0), axis(1), axis(2), axis(3)],
                    value,
                }],
            },
        }),
    }
}

struct Bench {
    isa: Isa,
    pool: Pool,
    memory: Memory,
}

impl Bench {
    /// Best seconds of one run.
    fn time(&self, kernel: &KernelProgram) -> f64 {
        let count = |b: &Buffer| {
            b.shape.iter().map(|d| d.as_const().unwrap_or(1)).product::<i64>() as usize
        };
        let mut cells: Vec<Memory64> =
            kernel.buffers.iter().map(|b| Memory64::floats(count(b))).collect();
        for cell in &mut cells {
            cell.as_f32_mut()
                .iter_mut()
                .enumerate()
                .for_each(|(i, x)| *x = (i * 37 % 101) as f32 / 50.0 - 1.0);
        }
        let regions: Vec<Region> = cells.iter_mut().map(region::of_buffer).collect();
        let constants: Vec<Option<Region>> =
            kernel.buffers.iter().zip(&regions).map(|(b, r)| b.constant.then_some(*r)).collect();
        let program =
            match CpuProgram::bind(kernel, &|_| None, self.isa, &constants, &Packs::default()) {
                Ok(program) => program,
                Err(error) => {
                    eprintln!("{}: {error}", kernel.name);
                    return f64::NAN;
                }
            };
        let exec = Exec { isa: self.isa, pool: &self.pool, memory: &self.memory };
        let run = |times: usize| {
            let start = Instant::now();
            (0..times).for_each(|_| program.run(exec, black_box(&regions)));
            start.elapsed().as_secs_f64() / times as f64
        };
        // Short rounds, so that some run undisturbed on a loaded machine.
        let times = ((0.001 / run(1).max(1e-9)) as usize).clamp(1, 10_000);
        (0..60).map(|_| run(times)).fold(f64::INFINITY, f64::min)
    }
}

fn main() {
    let name = std::env::args().nth(1);
    let isa = name.as_deref().map_or(Some(Isa::best()), Isa::named);
    let (Some(isa), Ok(pool)) = (isa, Pool::new(1)) else {
        eprintln!("this machine lacks {}", name.unwrap_or_default());
        std::process::exit(2);
    };
    let bench = Bench { isa, pool, memory: Memory::new(1) };
    println!("{}, one thread", isa.name());
    for (m, n, k) in [
        (1, 768, 768),
        (1, 3072, 768),
        (8, 768, 768),
        (128, 768, 768),
        (128, 3072, 768),
        (128, 768, 3072),
        (512, 768, 768),
        (1, 64, 64),
    ] {
        for activate in [false, true] {
            let t = bench.time(&linear(m, n, k, activate));
            let gflops = (2 * m * n * k) as f64 / t / 1e9;
            println!(
                "linear{} {m} x {n} x {k}: {:.2} us, {gflops:.1} GFLOP/s",
                if activate { "+gelu" } else { "" },
                t * 1e6
            );
        }
    }
    for (h, s, d) in [(12, 128, 64), (12, 512, 64), (12, 197, 64)] {
        for (masked, causal) in [(false, false), (true, false), (false, true)] {
            let t = bench.time(&attention(h, s, d, masked, causal));
            let gflops = (4 * h * s * s * d) as f64 / t / 1e9;
            println!(
                "attention {h} x {s} x {d} masked {masked} causal {causal}: {:.1} us, {gflops:.1} GFLOP/s dense",
                t * 1e6
            );
        }
    }
    for (what, program, n) in [
        ("layer norm 512 x 768", norm(512, 768, false), 512 * 768),
        ("bias+gelu+residual+norm 512 x 768", norm(512, 768, true), 512 * 768),
        ("9 cheap ops, 16 Ki", chain(1 << 14, false), 1 << 14),
        ("9 cheap ops, 1 Mi", chain(1 << 20, false), 1 << 20),
        ("gelu, 16 Ki", chain(1 << 14, true), 1 << 14),
        ("9 cheap ops, 64", chain(64, false), 64),
    ] {
        let t = bench.time(&program);
        println!("{what}: {:.3} us, {:.3} ns per element", t * 1e6, t / f64::from(n) * 1e9);
    }
    for (g, c, o, e, k, s) in [
        (1, 64, 64, 56, 3, 1),
        (1, 64, 256, 56, 1, 1),
        (1, 256, 64, 56, 1, 1),
        (1, 128, 128, 28, 3, 1),
        (1, 256, 256, 14, 3, 1),
        (1, 512, 512, 7, 3, 1),
        (1, 512, 2048, 7, 1, 1),
        (1, 3, 64, 224, 7, 2),
        (72, 1, 1, 56, 3, 1),
        (480, 1, 1, 14, 3, 1),
        (672, 1, 1, 14, 5, 1),
        (960, 1, 1, 7, 5, 1),
    ] {
        let t = bench.time(&conv(g, c, o, e, k, s));
        let out = (e / s) * (e / s);
        let gflops = (2 * g * c * o * k * k * out) as f64 / t / 1e9;
        println!(
            "conv {g} groups {c}->{o} {e}x{e} k{k} s{s}: {:.1} us, {gflops:.1} GFLOP/s",
            t * 1e6
        );
    }
}
