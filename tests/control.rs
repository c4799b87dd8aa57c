//! Random graphs with branches and loops, nested in each other: kernels and
//! cpu device give what the graph gives, after a trip through its text form.

use tgc::device::{RunOptions, open};
use tgc::{Options, Session};
use tgc_ir::attr::Region;
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

const ROWS: i64 = 2;
const COLUMNS: i64 = 3;
/// Rounds that a loop may run.
const ROUNDS_MAX: i64 = 4;

struct Rng(u64);

impl Rng {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n as u64) as usize
    }

    fn values(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.below(4001) as f32 / 1000.0 - 2.0).collect()
    }
}

/// Writes one graph; every value in the pool is f32 [2, 3].
struct Writer {
    rng: Rng,
    loops: usize,
}

fn matrix() -> TensorType {
    TensorType::new(DType::F32, [Dim::Const(ROWS), Dim::Const(COLUMNS)])
}

impl Writer {
    fn pick(&mut self, pool: &[NodeId]) -> NodeId {
        pool[self.rng.below(pool.len())]
    }

    /// Adds values to a pool; at most `depth` regions inside each other.
    fn fill(&mut self, g: &mut Graph, pool: &mut Vec<NodeId>, count: NodeId, depth: usize) {
        for _ in 0..3 + self.rng.below(3) {
            let (a, b) = (self.pick(pool), self.pick(pool));
            let kinds = if depth == 0 { 5 } else { 9 };
            let new = match self.rng.below(kinds) {
                0 => g.scalar(ScalarOp::Add, &[a, b]).expect("fits"),
                1 => {
                    let product = g.scalar(ScalarOp::Mul, &[a, b]).expect("fits");
                    g.scalar(ScalarOp::Tanh, &[product]).expect("fits")
                }
                2 => {
                    let sum = g.reduce(ReduceOp::Sum, a, &[1]).expect("fits");
                    g.scalar(ScalarOp::Sub, &[b, sum]).expect("broadcasts")
                }
                3 => g.splat(0.5, DType::F32),
                4 => {
                    let w = Tensor::from_f32(&[3, 3], &self.rng.values(9));
                    let w = g.constant(w);
                    let y = g.matmul(a, w).expect("fits");
                    g.scalar(ScalarOp::Tanh, &[y]).expect("fits")
                }
                5 | 6 => self.branch(g, pool, count, depth - 1),
                _ => self.repeat(g, pool, count, depth - 1),
            };
            pool.push(g.expand(new, &matrix().shape).expect("is or broadcasts to a matrix"));
        }
    }

    fn region(&self, g: &Graph, parameters: &[TensorType], captures: &[NodeId]) -> Graph {
        let mut inner = Graph::new("region");
        inner.facts = g.facts.clone();
        for (i, ty) in parameters.iter().enumerate() {
            inner.input(&format!("parameter{i}"), ty.clone());
        }
        for (i, n) in captures.iter().enumerate() {
            inner.input(&format!("capture{i}"), g.ty(*n).clone());
        }
        inner
    }

    /// Whether the sum of a matrix is positive.
    fn test(&mut self, g: &mut Graph, x: NodeId, limit: f64) -> NodeId {
        let sum = g.reduce(ReduceOp::Sum, x, &[0, 1]).expect("fits");
        let sum = g.squeeze(sum, &[0, 1]).expect("is one element");
        let limit = g.splat(limit, DType::F32);
        g.scalar(ScalarOp::Lt, &[limit, sum]).expect("fits")
    }

    fn captures(&mut self, pool: &[NodeId], count: NodeId) -> Vec<NodeId> {
        let mut out: Vec<NodeId> = vec![count];
        out.extend((0..3).map(|_| self.pick(pool)));
        out
    }

    fn branch(&mut self, g: &mut Graph, pool: &[NodeId], count: NodeId, depth: usize) -> NodeId {
        let x = self.pick(pool);
        let condition = self.test(g, x, 0.0);
        let captures = self.captures(pool, count);
        let [then, otherwise] = [0, 1].map(|_| {
            let mut inner = self.region(g, &[], &captures);
            let count = inner.inputs()[0];
            let mut values = inner.inputs()[1..].to_vec();
            self.fill(&mut inner, &mut values, count, depth);
            let (first, second) = (self.pick(&values), *values.last().expect("not empty"));
            inner.output("result0", first);
            inner.output("result1", second);
            Region::new(inner)
        });
        let operands: Vec<NodeId> = std::iter::once(condition).chain(captures).collect();
        let tuple = g.add(Op::If { then, otherwise }, &operands).expect("is typed");
        let a = g.proj(tuple, 0).expect("two results");
        let b = g.proj(tuple, 1).expect("two results");
        g.scalar(ScalarOp::Max, &[a, b]).expect("fits")
    }

    /// Carries two matrices and one tensor that gains a column a round, stacks
    /// a matrix; gives their sum.
    fn repeat(&mut self, g: &mut Graph, pool: &[NodeId], count: NodeId, depth: usize) -> NodeId {
        let rounds = Symbol::new(format!("rounds{}", self.loops));
        self.loops += 1;
        let bounds = Bounds { low: 0, high: Some(ROUNDS_MAX), multiple_of: 1 };
        g.facts.bound(rounds.clone(), bounds);
        g.data_symbols.push((rounds.clone(), Dim::Const(ROUNDS_MAX)));
        let trip = match self.rng.below(3) {
            0 => count,
            1 => g.splat_int(self.rng.below(ROUNDS_MAX as usize) as i64, DType::I64),
            _ => g.splat_int(ROUNDS_MAX, DType::I64),
        };
        let x = self.pick(pool);
        let go = match self.rng.below(2) {
            0 => self.test(g, x, -6.0),
            _ => g.splat_int(1, DType::Bool),
        };
        let grown = |dim: Dim| TensorType::new(DType::F32, [Dim::Const(ROWS), dim]);
        let width = Dim::Const(COLUMNS) + Dim::from(&rounds);
        let parameters = [TensorType::scalar(DType::I64), matrix(), matrix(), grown(width.clone())];
        let captures = self.captures(pool, count);
        let mut inner = self.region(g, &parameters, &captures);
        let [round, a, b, list, inner_count] = inner.inputs()[..5] else {
            panic!("four parameters and a capture")
        };
        let mut values = [&[a, b], &inner.inputs()[5..]].concat();
        let number = inner.cast(round, DType::F32).expect("casts");
        values.push(inner.expand(number, &matrix().shape).expect("broadcasts"));
        let total = inner.reduce(ReduceOp::Sum, list, &[1]).expect("fits");
        values.push(inner.expand(total, &matrix().shape).expect("broadcasts"));
        self.fill(&mut inner, &mut values, inner_count, depth);
        let last = self.pick(&values);
        let go_on = match self.rng.below(2) {
            0 => self.test(&mut inner, last, -4.0),
            _ => inner.splat_int(1, DType::Bool),
        };
        inner.output("go", go_on);
        let last = inner.scalar(ScalarOp::Tanh, &[last]).expect("fits");
        // Now and then the two change places.
        let (next_a, next_b) =
            if self.rng.below(3) == 0 { (b, a) } else { (last, self.pick(&values)) };
        inner.output("a", next_a);
        inner.output("b", next_b);
        let column = inner.slice(last, 1, Dim::ZERO, 1, Dim::ONE).expect("has columns");
        let longer = inner.add(Op::Concat { axis: 1 }, &[list, column]).expect("fits");
        inner.output("list", longer);
        let shown = self.pick(&values);
        inner.output("stacked", shown);
        let mut operands = vec![trip, go];
        operands.extend((0..3).map(|_| self.pick(pool)));
        operands.extend(captures);
        let op = Op::Loop { body: Region::new(inner), carried: 3, rounds };
        let tuple = g.add(op, &operands).expect("is typed");
        let results: Vec<NodeId> = (0..4).map(|i| g.proj(tuple, i).expect("four")).collect();
        let list = g.reduce(ReduceOp::Max, results[2], &[1]).expect("fits");
        let stacked = g.reduce(ReduceOp::Sum, results[3], &[0]).expect("fits");
        let stacked = g.squeeze(stacked, &[0]).expect("has one");
        let sum = g.scalar(ScalarOp::Add, &[results[0], results[1]]).expect("fits");
        let sum = g.scalar(ScalarOp::Add, &[sum, list]).expect("broadcasts");
        g.scalar(ScalarOp::Add, &[sum, stacked]).expect("fits")
    }
}

fn random_graph(seed: u64) -> Graph {
    let mut g = Graph::new("control");
    let x = g.input("x", matrix());
    let y = g.input("y", matrix());
    let count = g.input("count", TensorType::scalar(DType::I64));
    let mut writer = Writer { rng: Rng(seed), loops: 0 };
    let mut pool = vec![x, y];
    while writer.loops == 0 {
        writer.fill(&mut g, &mut pool, count, 2);
    }
    let last = *pool.last().expect("not empty");
    let some = writer.pick(&pool);
    g.output("last", last);
    g.output("some", some);
    g.pruned()
}

#[test]
fn random_branches_and_loops_give_what_the_graph_gives() {
    let folder = tempfile::tempdir().expect("a folder");
    for seed in 0..120 {
        let graph = random_graph(seed);
        let text = tgc_ir::text::print_with_weights(&graph, 64);
        let path = folder.path().join(format!("{seed}.tgir"));
        std::fs::write(&path, &text).expect("writable");
        let session = Session::new(Options { verify: false, ..Options::default() });
        let outcome =
            session.compile(&path).unwrap_or_else(|e| panic!("seed {seed}: {e:?}\n{text}"));
        let plan = &outcome.engine.plans["cpu"];
        let printed = ron::to_string(plan).expect("prints");
        assert_eq!(&ron::from_str::<tgc_ir::plan::Plan>(&printed).expect("reads"), plan);
        let mut devices = ["reference", "cpu"]
            .map(|d| (d, open(&outcome.engine, d, RunOptions { threads: 1 }).expect("opens")));
        let mut rng = Rng(seed + 1000);
        for count in [0, 1, 3] {
            let mut input = || Tensor::from_f32(&[2, 3], &rng.values(6));
            let inputs = [input(), input(), Tensor::from_i64(&[], &[count])];
            let names = ["x", "y", "count"];
            let named: Vec<(&str, Tensor)> = names.into_iter().zip(inputs.clone()).collect();
            let want = run(&graph, &named, Mode::Exact).expect("evaluates");
            for (name, device) in &mut devices {
                let got = device
                    .run(&inputs)
                    .unwrap_or_else(|e| panic!("seed {seed} count {count} {name}: {e:?}\n{text}"));
                for (got, want) in got.iter().zip(&want) {
                    let difference = tgc::tolerance::compare(got, want, 1e-4, 1e-4)
                        .unwrap_or_else(|e| panic!("seed {seed} {name}: {e:?}"));
                    assert!(
                        difference.excess <= 1.0,
                        "seed {seed} count {count} {name}: {got:?} instead of {want:?}\n{text}"
                    );
                }
            }
        }
    }
}
