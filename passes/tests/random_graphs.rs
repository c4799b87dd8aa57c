//! Random graphs keep their meaning through the whole pipeline, with the usual
//! prices and with prices drawn at random (so that extraction takes other
//! nodes of the same classes).

use tgc_ir::cost::{CostModel, Picoseconds};
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::dtype::DType;
use tgc_ir::eval::{Mode, run};
use tgc_ir::facts::Bounds;
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::kernel_program::ReduceOp;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::tensor::Tensor;
use tgc_ir::types::TensorType;
use tgc_passes::cost::Structural;
use tgc_passes::pass::Silent;
use tgc_passes::rules::RuleSet;
use tgc_passes::{Context, PASSES, run_passes};

/// Extent of the symbol `S`.
const SEQ: usize = 3;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.0 >> 33
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(4001) as f32 / 1000.0 - 2.0).collect()
    }
}

/// Prices that say nothing: any node of a class may be the cheapest.
struct Dice(u64);

impl CostModel for Dice {
    fn node(&self, op: &Op, operands: &[TensorType], result: &[TensorType]) -> Picoseconds {
        let text = format!("{op:?}{operands:?}{result:?}");
        1 + text.bytes().fold(self.0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
            % 1_000_000
    }

    fn launch(&self) -> Picoseconds {
        1
    }

    fn traffic(&self, bytes: u64) -> Picoseconds {
        bytes
    }

    fn region(&self, _: &Graph, _: &[NodeId], _: &[NodeId]) -> Picoseconds {
        1
    }
}

/// Writes one graph; every value is f32 [2, S, 4] or [2, 4, S].
struct Writer {
    graph: Graph,
    rng: Rng,
    wide: Vec<NodeId>,
    tall: Vec<NodeId>,
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let mut graph = Graph::new("random");
        graph.facts.bound(Symbol::new("S"), Bounds::default());
        let ty = |a: Dim, b: Dim| TensorType::new(DType::F32, [Dim::Const(2), a, b]);
        let wide = vec![graph.input("x", ty(Dim::symbol("S"), Dim::Const(4)))];
        let tall = vec![graph.input("y", ty(Dim::Const(4), Dim::symbol("S")))];
        Writer { graph, rng: Rng(seed), wide, tall }
    }

    fn pick(&mut self, is_wide: bool) -> NodeId {
        let from = if is_wide { &self.wide } else { &self.tall };
        from[self.rng.below(from.len())]
    }

    fn weight(&mut self, shape: &[usize]) -> NodeId {
        let values = self.rng.values(shape.iter().product());
        self.graph.weight("w", Tensor::from_f32(shape, &values))
    }

    fn map(&mut self, op: ScalarOp, x: NodeId, y: NodeId) -> NodeId {
        self.graph.scalar(op, &[x, y]).expect("fits")
    }

    fn step(&mut self) {
        let is_wide = self.rng.below(2) == 0;
        let x = self.pick(is_wide);
        let node = match self.rng.below(10) {
            0 => {
                let y = self.pick(is_wide);
                let op = [ScalarOp::Add, ScalarOp::Mul, ScalarOp::Sub][self.rng.below(3)];
                self.map(op, x, y)
            }
            1 => {
                let value = [0.5, 2.0, 1.0, -1.0, 0.0, 1.702][self.rng.below(6)];
                let literal = self.graph.splat(value, DType::F32);
                let op =
                    [ScalarOp::Add, ScalarOp::Mul, ScalarOp::Sub, ScalarOp::Max][self.rng.below(4)];
                self.map(op, x, literal)
            }
            2 => {
                let sigmoid = self.graph.scalar(ScalarOp::Sigmoid, &[x]).expect("fits");
                self.map(ScalarOp::Mul, x, sigmoid)
            }
            3 => self.norm(x),
            4 => {
                let axes = tgc_ir::attr::Attr::Ints(vec![1 + self.rng.below(2) as i64]);
                self.graph.composite("softmax", &[x], &[axes]).expect("fits")
            }
            5 => self.graph.scalar(ScalarOp::Tanh, &[x]).expect("fits"),
            6 => self.bias(x, is_wide),
            7 if is_wide => {
                let weight = self.weight(&[1, 4, 4]);
                let shape = [Dim::Const(2), Dim::Const(4), Dim::Const(4)];
                let weight = self.graph.expand(weight, &shape).expect("broadcasts");
                self.graph.matmul(x, weight).expect("fits")
            }
            8 => self.attention(is_wide),
            _ => {
                let turned = self.graph.transpose(x, &[0, 2, 1]).expect("permutes");
                return if is_wide { self.tall.push(turned) } else { self.wide.push(turned) };
            }
        };
        if is_wide { self.wide.push(node) } else { self.tall.push(node) }
    }

    fn norm(&mut self, x: NodeId) -> NodeId {
        let axis = 1 + self.rng.below(2);
        let count = self.graph.shape(x)[axis].clone();
        let count = self.graph.dim_value(&count);
        let count = self.graph.cast(count, DType::F32).expect("casts");
        let sum = self.graph.reduce(ReduceOp::Sum, x, &[axis]).expect("reduces");
        let mean = self.map(ScalarOp::Div, sum, count);
        let centred = self.map(ScalarOp::Sub, x, mean);
        let two = self.graph.splat(2.0, DType::F32);
        let square = self.map(ScalarOp::Pow, centred, two);
        let sum = self.graph.reduce(ReduceOp::Sum, square, &[axis]).expect("reduces");
        let variance = self.map(ScalarOp::Div, sum, count);
        let epsilon = self.graph.splat(1e-2, DType::F32);
        let shifted = self.map(ScalarOp::Add, variance, epsilon);
        let root = self.graph.scalar(ScalarOp::Sqrt, &[shifted]).expect("fits");
        self.map(ScalarOp::Div, centred, root)
    }

    fn bias(&mut self, x: NodeId, is_wide: bool) -> NodeId {
        let weight = if is_wide { self.weight(&[1, 1, 4]) } else { self.weight(&[1, 4, 1]) };
        let op = [ScalarOp::Add, ScalarOp::Mul][self.rng.below(2)];
        self.map(op, x, weight)
    }

    /// softmax(q·kᵀ·c) · v over the sequence.
    fn attention(&mut self, is_wide: bool) -> NodeId {
        let (q, k, v) = (self.pick(true), self.pick(false), self.pick(true));
        let scores = self.graph.matmul(q, k).expect("fits");
        let scale = self.graph.splat(0.5, DType::F32);
        let scores = self.map(ScalarOp::Mul, scores, scale);
        let axes = tgc_ir::attr::Attr::Ints(vec![2]);
        let probs = self.graph.composite("softmax", &[scores], &[axes]).expect("fits");
        let out = self.graph.matmul(probs, v).expect("fits");
        if is_wide { out } else { self.graph.transpose(out, &[0, 2, 1]).expect("permutes") }
    }

    fn finish(mut self) -> Graph {
        for _ in 0..4 + self.rng.below(10) {
            self.step();
        }
        let (a, b) = (self.wide[self.wide.len() - 1], self.tall[self.tall.len() - 1]);
        self.graph.output("wide", a);
        self.graph.output("tall", b);
        self.graph
    }
}

fn check(
    seed: u64,
    cost: &dyn CostModel,
    rules: &RuleSet,
    fired: &mut std::collections::BTreeSet<String>,
) {
    let graph = Writer::new(seed).finish();
    let mut rng = Rng(seed ^ 0x5eed);
    let inputs = [
        ("x", Tensor::from_f32(&[2, SEQ, 4], &rng.values(8 * SEQ))),
        ("y", Tensor::from_f32(&[2, 4, SEQ], &rng.values(8 * SEQ))),
    ];
    let passes: Vec<_> = PASSES.iter().collect();
    let mut context = Context::new(cost, rules);
    let optimised = run_passes(&graph, &passes, &mut context, &mut Silent, true).expect("rewrites");
    fired.extend(context.fired.into_keys());
    let wanted = run(&graph, &inputs, Mode::Exact).expect("evaluates");
    let got = run(&optimised, &inputs, Mode::Exact).expect("evaluates");
    for (want, got) in wanted.iter().zip(&got) {
        let (want, got) = (want.to_f64(), got.to_f64());
        let scale = want.iter().fold(1.0f64, |m, v| m.max(v.abs()));
        let worst = want.iter().zip(&got).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        assert!(
            worst <= 1e-6 * scale,
            "seed {seed}: {worst:.3e} of {scale:.3e}\n{}",
            tgc_ir::text::print(&graph)
        );
    }
}

#[test]
fn optimised_graphs_mean_the_same() {
    let rules = RuleSet::builtin();
    let mut fired = std::collections::BTreeSet::new();
    for seed in 0..200 {
        check(seed, &Structural, &rules, &mut fired);
    }
    for step in ["fuse-attention", "fuse.silu", "norm.core-divided", "contract.absorb-lhs"] {
        assert!(fired.contains(step), "no graph reached {step}: {fired:?}");
    }
}

#[test]
fn any_extraction_means_the_same() {
    let rules = RuleSet::builtin();
    let mut fired = std::collections::BTreeSet::new();
    for seed in 0..200 {
        check(seed, &Dice(seed), &rules, &mut fired);
    }
}
