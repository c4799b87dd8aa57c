//! BERT as TorchScript exports it: decomposed layer norm, erf-gelu, reshapes
//! and transposes around heads, an additive mask, symbolic batch and sequence.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::{Graph, NodeId, Weight};
use tgc_ir::kernel_program::ReduceOp;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::spec::ContractSpec;
use tgc_ir::types::TensorType;

const HIDDEN: i64 = 768;
const HEADS: i64 = 12;
const HEAD: i64 = 64;
const INNER: i64 = 3072;

struct Writer {
    graph: Graph,
    batch: Dim,
    seq: Dim,
}

/// The encoder with this many layers.
pub(crate) fn bert(layers: usize) -> Graph {
    let mut w =
        Writer { graph: Graph::new("bert"), batch: Dim::symbol("B"), seq: Dim::symbol("S") };
    for symbol in ["B", "S"] {
        w.graph.facts.bound(tgc_ir::dim::Symbol::new(symbol), tgc_ir::facts::Bounds::default());
    }
    let embedded = w.graph.input(
        "embedded",
        TensorType::new(DType::F32, [w.batch.clone(), w.seq.clone(), Dim::Const(HIDDEN)]),
    );
    let mask = w
        .graph
        .input("attention_mask", TensorType::new(DType::I64, [w.batch.clone(), w.seq.clone()]));
    let mask = w.mask(mask);
    let mut x = w.layer_norm(embedded);
    for _ in 0..layers {
        x = w.layer(x, mask);
    }
    w.graph.output("last_hidden_state", x);
    w.graph
}

impl Writer {
    fn weight(&mut self, shape: &[i64]) -> NodeId {
        let index = self.graph.weights().len();
        let ty = TensorType::new(DType::F32, shape.iter().map(|d| Dim::Const(*d)));
        let index =
            self.graph.push_weight(Weight { name: format!("w{index}").into(), ty, data: None });
        self.add(Op::Weight { index: index as i64 }, &[])
    }

    fn add(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph.add(op, operands).expect("the model is well typed")
    }

    fn map(&mut self, op: ScalarOp, operands: &[NodeId]) -> NodeId {
        let rank = operands.iter().map(|o| self.graph.shape(*o).len()).max().unwrap_or(0);
        let raised: Vec<NodeId> =
            operands.iter().map(|o| self.graph.raise_rank(*o, rank).expect("raises")).collect();
        self.add(Op::Scalar(op), &raised)
    }

    fn with(&mut self, op: ScalarOp, x: NodeId, value: f64) -> NodeId {
        let literal = self.graph.splat(value, DType::F32);
        self.map(op, &[x, literal])
    }

    /// (1 − mask) · lowest, as [B, 1, 1, S].
    fn mask(&mut self, mask: NodeId) -> NodeId {
        let (b, s) = (self.batch.clone(), self.seq.clone());
        let wide = self.graph.reshape(mask, &[b, Dim::ONE, Dim::ONE, s]).expect("unsqueezes");
        let wide = self.graph.cast(wide, DType::F32).expect("casts");
        let one = self.graph.splat(1.0, DType::F32);
        let inverse = self.map(ScalarOp::Sub, &[one, wide]);
        self.with(ScalarOp::Mul, inverse, f64::from(f32::MIN))
    }

    fn mean(&mut self, x: NodeId) -> NodeId {
        let sum = self.graph.reduce(ReduceOp::Sum, x, &[2]).expect("reduces");
        self.with(ScalarOp::Div, sum, HIDDEN as f64)
    }

    fn layer_norm(&mut self, x: NodeId) -> NodeId {
        let mean = self.mean(x);
        let centred = self.map(ScalarOp::Sub, &[x, mean]);
        let square = self.with(ScalarOp::Pow, centred, 2.0);
        let variance = self.mean(square);
        let variance = self.with(ScalarOp::Add, variance, 1e-12);
        let deviation = self.map(ScalarOp::Sqrt, &[variance]);
        let unit = self.map(ScalarOp::Div, &[centred, deviation]);
        let (gain, bias) = (self.weight(&[HIDDEN]), self.weight(&[HIDDEN]));
        let scaled = self.map(ScalarOp::Mul, &[unit, gain]);
        self.map(ScalarOp::Add, &[scaled, bias])
    }

    fn matmul(&mut self, x: NodeId, y: NodeId, batch: &[Dim], [m, k, n]: [Dim; 3]) -> NodeId {
        let mut spec = ContractSpec::matmul(batch, m, k, n, DType::F32);
        if self.graph.shape(y).len() == 2 {
            // The weight has no batch axes.
            spec.rhs.drain(..batch.len());
            spec = spec.canonical();
        }
        self.add(Op::Contract { spec: spec.into() }, &[x, y])
    }

    fn linear(&mut self, x: NodeId, from: i64, to: i64) -> NodeId {
        let weight = self.weight(&[from, to]);
        let (b, s) = (self.batch.clone(), self.seq.clone());
        let product = self.matmul(x, weight, &[b], [s, Dim::Const(from), Dim::Const(to)]);
        let bias = self.weight(&[to]);
        self.map(ScalarOp::Add, &[product, bias])
    }

    fn heads(&mut self, x: NodeId, axes: &[usize]) -> NodeId {
        let to = [self.batch.clone(), self.seq.clone(), Dim::Const(HEADS), Dim::Const(HEAD)];
        let split = self.graph.reshape(x, &to).expect("splits");
        self.graph.transpose(split, axes).expect("permutes")
    }

    fn attention(&mut self, x: NodeId, mask: NodeId) -> NodeId {
        let [q, k, v] = [0; 3].map(|_| self.linear(x, HIDDEN, HIDDEN));
        let q = self.heads(q, &[0, 2, 1, 3]);
        let k = self.heads(k, &[0, 2, 3, 1]);
        let v = self.heads(v, &[0, 2, 1, 3]);
        let (b, s) = (self.batch.clone(), self.seq.clone());
        let batch = [b.clone(), Dim::Const(HEADS)];
        let scores = self.matmul(q, k, &batch, [s.clone(), Dim::Const(HEAD), s.clone()]);
        let scores = self.with(ScalarOp::Div, scores, 8.0);
        let scores = self.map(ScalarOp::Add, &[scores, mask]);
        let axes = tgc_ir::attr::Attr::Ints(vec![3]);
        let probs = self.graph.composite("softmax", &[scores], &[axes]).expect("has the axis");
        let context = self.matmul(probs, v, &batch, [s.clone(), s.clone(), Dim::Const(HEAD)]);
        let context = self.graph.transpose(context, &[0, 2, 1, 3]).expect("permutes");
        let context = self.graph.reshape(context, &[b, s, Dim::Const(HIDDEN)]).expect("merges");
        self.linear(context, HIDDEN, HIDDEN)
    }

    fn gelu(&mut self, x: NodeId) -> NodeId {
        let scaled = self.with(ScalarOp::Div, x, std::f64::consts::SQRT_2);
        let erf = self.map(ScalarOp::Erf, &[scaled]);
        let shifted = self.with(ScalarOp::Add, erf, 1.0);
        let product = self.map(ScalarOp::Mul, &[x, shifted]);
        self.with(ScalarOp::Mul, product, 0.5)
    }

    fn layer(&mut self, x: NodeId, mask: NodeId) -> NodeId {
        let attended = self.attention(x, mask);
        let sum = self.map(ScalarOp::Add, &[attended, x]);
        let normed = self.layer_norm(sum);
        let inner = self.linear(normed, HIDDEN, INNER);
        let inner = self.gelu(inner);
        let outer = self.linear(inner, INNER, HIDDEN);
        let sum = self.map(ScalarOp::Add, &[outer, normed]);
        self.layer_norm(sum)
    }
}
