//! Plans: symbols, arena, weights, host steps, branches, loops and refusals.

use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::facts::{Bounds, Relation, Require};
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer, Contract, Epilogue, InstKind, KernelProgram, Loops, ScalarConst,
    Store, axis,
};
use tgc_ir::plan::{
    HostOp, HostStep, Launch, LoopStep, Place, Plan, PlanBuffer, Port, Source, Step, SymbolSource,
};
use tgc_ir::scalar::{ScalarOp, Value};
use tgc_ir::{DType, Tensor};

use super::{argument, dims, kernel, load, plain, scalar, store_slot};
use crate::cpu::{CpuEngine, CpuError, CpuInstance, Options};

const F32: DType = DType::F32;

fn buffer(name: &str, dtype: DType, shape: Vec<Dim>, place: Place) -> PlanBuffer {
    let count = Dim::product(&shape);
    let bytes = count * Dim::Const(i64::from(dtype.bits()) / 8);
    PlanBuffer {
        name: name.into(),
        dtype,
        strides: Buffer::dense_strides(&shape),
        shape,
        bytes,
        place,
    }
}

fn port(name: &str, dtype: DType, shape: Vec<Dim>, buffer: u32) -> Port {
    Port { name: name.into(), dtype, shape, buffer, state: None }
}

fn launch(kernel: u32, buffers: &[u32]) -> Step {
    Step::Launch(Launch {
        kernel,
        buffers: buffers.to_vec(),
        variants: Vec::new(),
        provenance: Vec::new(),
    })
}

fn symbol(name: &str, source: Source) -> SymbolSource {
    SymbolSource {
        symbol: Symbol::new(name),
        bounds: Bounds { low: 0, high: Some(64), multiple_of: 1 },
        source,
    }
}

fn extent(name: &str, input: u32, axis: u32) -> SymbolSource {
    symbol(name, Source::InputExtent { input, axis, solve: Dim::symbol("$0") })
}

/// `to = op(from, constant)` over a buffer of extents `shape`.
fn map(shape: &[Dim], dtype: DType, op: ScalarOp, by: ScalarConst) -> KernelProgram {
    let argument = |access| Buffer {
        access,
        dtype,
        shape: shape.to_vec(),
        strides: Buffer::dense_strides(shape),
        constant: false,
    };
    let index: Vec<Dim> = (0..shape.len()).map(axis).collect();
    let mut body = Body::default();
    let x = body.push(dtype, load(0, index.clone()));
    let c = body.push(dtype, InstKind::Const(by));
    let result = op.result(&[dtype, dtype]).unwrap();
    let value = scalar(&mut body, result, op, &[x, c]);
    let mut out = argument(Access::Write);
    out.dtype = result;
    let epilogue = Epilogue { body, stores: vec![Store { buffer: 1, index, value }] };
    kernel(
        vec![argument(Access::Read), out],
        Anchor::Loops(Loops { extents: shape.to_vec(), epilogue }),
    )
}

/// y[S, 5] = 2 (x[S, 4] w[4, 5])
fn linear_plan() -> Plan {
    let s = Dim::symbol("S");
    let rows = |n: i64| vec![s.clone(), Dim::Const(n)];
    let mut product = kernel(
        vec![
            argument(Access::Read, F32, &[1, 4]),
            argument(Access::Read, F32, &[4, 5]),
            argument(Access::Write, F32, &[1, 5]),
        ],
        Anchor::Contract(Contract {
            batch: vec![],
            m: vec![s.clone()],
            n: dims(&[5]),
            k: dims(&[4]),
            lhs: plain(F32, 0, &[0, 1]),
            rhs: plain(F32, 1, &[0, 1]),
            acc: F32,
            epilogue: store_slot(F32, 2, 2),
        }),
    );
    product.buffers[0].shape = rows(4);
    product.buffers[1].constant = true;
    product.buffers[2].shape = rows(5);
    Plan {
        target: "cpu".into(),
        symbols: vec![extent("S", 0, 0)],
        requires: vec![Require {
            lhs: s.clone(),
            relation: Relation::NotEqual,
            rhs: Dim::Const(13),
            origin: "a user".into(),
        }],
        inputs: vec![port("x", F32, rows(4), 0)],
        outputs: vec![port("y", F32, rows(5), 3)],
        buffers: vec![
            buffer("x", F32, rows(4), Place::Input(0)),
            buffer("w", F32, dims(&[4, 5]), Place::Weight(0)),
            buffer("t", F32, rows(5), Place::Arena { offset: Dim::Const(64) }),
            buffer("y", F32, rows(5), Place::Output(0)),
        ],
        steps: vec![launch(0, &[0, 1, 2]), launch(1, &[2, 3])],
        arena_bytes: s.clone() * Dim::Const(20) + Dim::Const(64),
        kernels: vec![product, map(&rows(5), F32, ScalarOp::Mul, ScalarConst::float(2.0))],
    }
}

fn engine(plan: Plan, weights: Vec<Tensor>) -> std::sync::Arc<CpuEngine> {
    CpuEngine::new(plan, weights, Options { threads: 2, isa: None }).unwrap()
}

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| i as f32 - 3.0).collect()
}

#[test]
fn a_plan_runs_at_several_shapes_and_from_several_instances() {
    let engine = engine(linear_plan(), vec![Tensor::from_f32(&[4, 5], &numbers(20))]);
    let mut instance = CpuInstance::new(&engine);
    let mut other = CpuInstance::new(&engine);
    for s in [3usize, 1, 40, 0, 3] {
        let x = numbers(4 * s);
        let expected: Vec<f32> = (0..s * 5)
            .map(|i| {
                2.0 * (0..4).map(|k| x[i / 5 * 4 + k] * numbers(20)[k * 5 + i % 5]).sum::<f32>()
            })
            .collect();
        let input = [Tensor::from_f32(&[s, 4], &x)];
        let y = instance.run(&input).unwrap();
        assert_eq!(y, vec![Tensor::from_f32(&[s, 5], &expected)]);
        assert_eq!(other.run(&input).unwrap(), y);
    }
}

#[test]
fn misaligned_inputs_and_weights_are_read_right() {
    let shifted = |tensor: &Tensor| {
        let mut bytes = vec![0u8];
        bytes.extend_from_slice(tensor.bytes());
        Tensor::new(tensor.dtype(), tensor.shape().to_vec(), bytes::Bytes::from(bytes).slice(1..))
            .unwrap()
    };
    let weight = Tensor::from_f32(&[4, 5], &numbers(20));
    let x = Tensor::from_f32(&[2, 4], &numbers(8));
    let plain = CpuInstance::new(&engine(linear_plan(), vec![weight.clone()]))
        .run(std::slice::from_ref(&x))
        .unwrap();
    let odd = CpuInstance::new(&engine(linear_plan(), vec![shifted(&weight)]))
        .run(&[shifted(&x)])
        .unwrap();
    assert_eq!(plain, odd);
}

#[test]
fn wrong_inputs_are_refused_with_their_reason() {
    let engine = engine(linear_plan(), vec![Tensor::zeros(F32, &[4, 5])]);
    let mut instance = CpuInstance::new(&engine);
    assert!(matches!(instance.run(&[]), Err(CpuError::Count { .. })));
    for wrong in
        [Tensor::zeros(F32, &[2, 3]), Tensor::zeros(DType::F16, &[2, 4]), Tensor::zeros(F32, &[8])]
    {
        assert!(matches!(instance.run(&[wrong]), Err(CpuError::InputType { .. })));
    }
    assert!(matches!(instance.run(&[Tensor::zeros(F32, &[65, 4])]), Err(CpuError::Bounds { .. })));
    assert!(matches!(instance.run(&[Tensor::zeros(F32, &[13, 4])]), Err(CpuError::Require { .. })));
    assert!(matches!(
        CpuEngine::new(linear_plan(), vec![], Options::default()),
        Err(CpuError::Count { .. })
    ));
    let mut plan = linear_plan();
    plan.steps[0] = launch(0, &[0, 1]);
    let weights = vec![Tensor::zeros(F32, &[4, 5])];
    assert!(matches!(
        CpuEngine::new(plan, weights.clone(), Options::default()),
        Err(CpuError::Malformed { .. })
    ));
    let mut plan = linear_plan();
    plan.steps[1] = launch(1, &[2, 1]);
    assert!(matches!(
        CpuEngine::new(plan, weights, Options::default()),
        Err(CpuError::Malformed { .. })
    ));
}

#[test]
fn counts_found_while_running_size_later_steps() {
    let (n, count) = (Dim::symbol("N"), Dim::symbol("count"));
    let places = vec![Dim::ONE, count.clone()];
    let plan = Plan {
        target: "cpu".into(),
        symbols: vec![
            extent("N", 0, 0),
            symbol("count", Source::Data { step: 0, bound: n.clone() }),
        ],
        requires: vec![],
        inputs: vec![port("x", F32, vec![n.clone()], 0)],
        outputs: vec![port("y", DType::I64, places.clone(), 2)],
        buffers: vec![
            buffer("x", F32, vec![n.clone()], Place::Input(0)),
            buffer("at", DType::I64, places.clone(), Place::Arena { offset: Dim::ZERO }),
            buffer("y", DType::I64, places.clone(), Place::Output(0)),
        ],
        steps: vec![
            Step::Host(HostStep {
                op: HostOp::NonZero,
                inputs: vec![0],
                outputs: vec![1],
                count: Some(Symbol::new("count")),
            }),
            launch(0, &[1, 2]),
        ],
        arena_bytes: n * Dim::Const(8),
        kernels: vec![map(&places, DType::I64, ScalarOp::Mul, ScalarConst::Int(10))],
    };
    let engine = engine(plan, vec![]);
    let mut instance = CpuInstance::new(&engine);
    for (x, y) in
        [(vec![0.0, 2.0, 0.0, -1.0], vec![10, 30]), (vec![0.0; 4], vec![]), (vec![1.0], vec![0])]
    {
        let out = instance.run(&[Tensor::from_f32(&[x.len()], &x)]).unwrap();
        assert_eq!(out, vec![Tensor::from_i64(&[1, y.len()], &y)]);
    }
}

/// Doubles x until it is at least 100, at most `trip` times, stacking every value.
#[test]
fn loops_and_branches_follow_their_predicates() {
    let one = dims(&[1]);
    let scratch = |name: &str, dtype, at: i64| {
        buffer(name, dtype, one.clone(), Place::Arena { offset: Dim::Const(at) })
    };
    let rounds = Symbol::new("rounds");
    let stack = vec![Dim::from(&rounds), Dim::ONE];
    let plan = Plan {
        target: "cpu".into(),
        symbols: vec![symbol("rounds", Source::Data { step: 1, bound: Dim::Const(8) })],
        requires: vec![],
        inputs: vec![
            port("x", F32, one.clone(), 0),
            port("trip", DType::I64, vec![], 1),
            port("negate", DType::Bool, vec![], 2),
        ],
        outputs: vec![port("last", F32, one.clone(), 6), port("all", F32, stack.clone(), 7)],
        buffers: vec![
            buffer("x", F32, one.clone(), Place::Input(0)),
            buffer("trip", DType::I64, vec![], Place::Input(1)),
            buffer("negate", DType::Bool, vec![], Place::Input(2)),
            scratch("value", F32, 0),
            scratch("next", F32, 64),
            scratch("go", DType::Bool, 128),
            buffer("last", F32, one.clone(), Place::Output(0)),
            buffer("all", F32, stack, Place::Output(1)),
        ],
        steps: vec![
            Step::Copy { from: 0, to: 3 },
            launch(1, &[3, 5]),
            Step::Loop(Box::new(LoopStep {
                trip: tgc_ir::plan::Trip::Read(1),
                condition: Some(5),
                iteration: None,
                body: vec![launch(0, &[3, 4]), launch(1, &[4, 5])],
                carried: vec![(4, 3)],
                stacked: vec![(4, 7)],
                rounds: Some(rounds),
                counts_rounds: false,
            })),
            Step::If {
                predicate: 2,
                then_steps: vec![launch(2, &[3, 6])],
                else_steps: vec![Step::Copy { from: 3, to: 6 }],
            },
        ],
        arena_bytes: Dim::Const(192),
        kernels: vec![
            map(&one, F32, ScalarOp::Mul, ScalarConst::float(2.0)),
            map(&one, F32, ScalarOp::Lt, ScalarConst::float(100.0)),
            map(&one, F32, ScalarOp::Mul, ScalarConst::float(-1.0)),
        ],
    };
    let engine = engine(plan, vec![]);
    let mut instance = CpuInstance::new(&engine);
    let run = |instance: &mut CpuInstance, x: f32, trip: i64, negate: bool| {
        let flag = Tensor::from_values(DType::Bool, &[], &[Value::Int(i128::from(negate))]);
        instance.run(&[Tensor::from_f32(&[1], &[x]), Tensor::from_i64(&[], &[trip]), flag]).unwrap()
    };
    let out = run(&mut instance, 30.0, 8, false);
    assert_eq!(
        out,
        vec![Tensor::from_f32(&[1], &[120.0]), Tensor::from_f32(&[2, 1], &[60.0, 120.0])]
    );
    let out = run(&mut instance, 1.0, 3, true);
    assert_eq!(
        out,
        vec![Tensor::from_f32(&[1], &[-8.0]), Tensor::from_f32(&[3, 1], &[2.0, 4.0, 8.0])]
    );
}
