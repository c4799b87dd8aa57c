//! The analytic cost model of a GPU behind the trait by which passes and `cut` choose.
//!
//! Prices are rooflines: time of the arithmetic at the rate of its units against time of the bytes.
//! Symbols stand for their upper bounds or typical extents; a price ranks, it promises nothing.

use std::collections::BTreeSet;

use tgc_ir::cost::{CostModel, Picoseconds};
use tgc_ir::device_table::Device;
use tgc_ir::facts::Facts;
use tgc_ir::scalar::{ScalarOp, traits};
use tgc_ir::spec::{AttendSpec, ContractSpec, Group};
use tgc_ir::{DType, Dim, Graph, NodeId, Op, TensorType};

use super::{LAUNCH_NS, MEMORY_SHARE, typical};

/// Instructions of a cheap and of an expensive pointwise function.
const CHEAP: f64 = 1.0;
/// As [`CHEAP`].
const EXPENSIVE: f64 = 20.0;
/// Share of an op's traffic that remains when it fuses into a neighbour.
const FUSED_SHARE: f64 = 1.0 / 16.0;
/// Share of the arithmetic peak that real tiles reach.
const TILE_SHARE: f64 = 0.6;

/// Prices of one GPU.
#[derive(Debug, Clone)]
pub struct GpuCost<'a> {
    /// Its row of the table.
    pub device: &'static Device,
    /// Bounds of symbols.
    pub facts: &'a Facts,
}

/// Picoseconds of nanoseconds, at least one so that no work is free.
fn picoseconds(ns: f64) -> Picoseconds {
    (ns * 1000.0).ceil().clamp(1.0, 1e18) as Picoseconds
}

impl GpuCost<'_> {
    fn count(&self, dims: &[Dim]) -> f64 {
        dims.iter().map(|dim| typical(self.facts, dim)).product()
    }

    fn bytes(&self, ty: &TensorType) -> f64 {
        self.count(&ty.shape) * f64::from(ty.dtype.bits()) / 8.0
    }

    fn traffic_ns(&self, bytes: f64) -> f64 {
        bytes / (self.device.dram_gb_s * MEMORY_SHARE)
    }

    /// Rate of multiply-adds of a dtype in tera-operations a second.
    fn contract_tflops(&self, dtype: DType) -> f64 {
        match dtype {
            DType::F16 | DType::BF16 => {
                self.device.f16_tflops * self.device.mma_sync_share * TILE_SHARE
            }
            DType::F64 => self.device.f64_tflops * TILE_SHARE,
            _ => self.device.f32_tflops * TILE_SHARE,
        }
    }

    fn pointwise_ns(&self, op: ScalarOp, elements: f64) -> f64 {
        let instructions = if op.has(traits::EXPENSIVE) { EXPENSIVE } else { CHEAP };
        // One instruction is half a multiply-add.
        elements * instructions * 2.0 / (self.device.f32_tflops * 1000.0)
    }

    fn contract_flops(&self, spec: &ContractSpec) -> f64 {
        2.0 * self.count(&spec.extents)
    }

    /// Products of both contractions: labels of the queries and keys, times the label sets that each sums or keeps.
    fn attend_flops(&self, spec: &AttendSpec) -> f64 {
        let labels = |axes: &[Group]| axes.iter().flatten().copied().collect::<BTreeSet<u32>>();
        let (q, k, v, out) = (labels(&spec.q), labels(&spec.k), labels(&spec.v), labels(&spec.out));
        let extent = |label: &u32| {
            spec.extents.get(*label as usize).map_or(1.0, |dim| typical(self.facts, dim))
        };
        let product = |set: &BTreeSet<u32>| set.iter().map(extent).product::<f64>();
        let scores = &q | &k;
        let sums = &(&out | &v) | &spec.keys.iter().copied().collect();
        2.0 * (product(&scores) + product(&sums))
    }

    /// Arithmetic of a node on its own, nanoseconds.
    fn arithmetic_ns(&self, op: &Op, operands: &[TensorType], result: &[TensorType]) -> f64 {
        let elements = result.first().map_or(0.0, |ty| self.count(&ty.shape));
        let dtype = operands.first().map_or(DType::F32, |ty| ty.dtype);
        let flops = match op {
            Op::Scalar(op) => return self.pointwise_ns(*op, elements),
            Op::Contract { spec } => self.contract_flops(spec),
            Op::Attend { spec } => self.attend_flops(spec),
            Op::Conv { .. } => {
                // Every output element takes one filter's worth of taps.
                let filter =
                    operands.get(1).map_or(1.0, |ty| self.count(ty.shape.get(1..).unwrap_or(&[])));
                2.0 * elements * filter
            }
            Op::Rnn { .. } => {
                let weights = operands.get(1).map_or(1.0, |ty| self.count(&ty.shape));
                let steps =
                    operands.first().map_or(1.0, |ty| self.count(ty.shape.get(..2).unwrap_or(&[])));
                2.0 * weights * steps
            }
            _ => return self.pointwise_ns(ScalarOp::Add, elements),
        };
        flops / (self.contract_tflops(dtype) * 1000.0)
    }
}

/// True for ops that a neighbour's kernel absorbs.
fn fuses(op: &Op) -> bool {
    matches!(
        op,
        Op::Scalar(_)
            | Op::View { .. }
            | Op::Cast { .. }
            | Op::Bitcast { .. }
            | Op::Proj { .. }
            | Op::Gather { .. }
    )
}

/// True for ops whose value exists before anything runs or costs nothing to make.
fn is_leaf(op: &Op) -> bool {
    matches!(
        op,
        Op::Input { .. }
            | Op::Weight { .. }
            | Op::Constant { .. }
            | Op::Splat { .. }
            | Op::Iota { .. }
            | Op::DimValue { .. }
    )
}

impl CostModel for GpuCost<'_> {
    fn node(&self, op: &Op, operands: &[TensorType], result: &[TensorType]) -> Picoseconds {
        if is_leaf(op) {
            return 0;
        }
        let written: f64 = result.iter().map(|ty| self.bytes(ty)).sum();
        let arithmetic = self.arithmetic_ns(op, operands, result);
        if fuses(op) {
            return picoseconds(arithmetic + self.traffic_ns(written) * FUSED_SHARE);
        }
        let read: f64 = operands.iter().map(|ty| self.bytes(ty)).sum();
        picoseconds(arithmetic.max(self.traffic_ns(read + written)))
    }

    fn launch(&self) -> Picoseconds {
        picoseconds(LAUNCH_NS)
    }

    fn traffic(&self, bytes: u64) -> Picoseconds {
        picoseconds(self.traffic_ns(bytes as f64))
    }

    fn region(&self, graph: &Graph, nodes: &[NodeId], outputs: &[NodeId]) -> Picoseconds {
        let inside: BTreeSet<NodeId> = nodes.iter().copied().collect();
        let mut read: BTreeSet<NodeId> = BTreeSet::new();
        let mut arithmetic = 0.0;
        for &node in nodes {
            let operands = graph.operands(node);
            read.extend(operands.iter().filter(|operand| !inside.contains(operand)));
            if !is_leaf(graph.op(node)) {
                let types: Vec<TensorType> =
                    operands.iter().map(|&operand| graph.ty(operand).clone()).collect();
                arithmetic += self.arithmetic_ns(graph.op(node), &types, graph.types(node));
            }
        }
        let moved = read.iter().chain(outputs).map(|&node| self.bytes(graph.ty(node)));
        picoseconds(arithmetic.max(self.traffic_ns(moved.sum())) + LAUNCH_NS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_kernel_is_cheaper_than_two_and_half_products_than_f32() {
        let facts = Facts::default();
        let cost = GpuCost { device: Device::for_target("sm_90a").unwrap(), facts: &facts };
        let mut graph = Graph::new("test");
        let shape = [Dim::Const(1024), Dim::Const(1024)];
        let x = graph.input("x", TensorType::new(DType::F32, shape.clone()));
        let exp = graph.add(Op::Scalar(ScalarOp::Exp), &[x]).unwrap();
        let neg = graph.add(Op::Scalar(ScalarOp::Neg), &[exp]).unwrap();
        let together = cost.region(&graph, &[exp, neg], &[neg]);
        let apart = cost.region(&graph, &[exp], &[exp]) + cost.region(&graph, &[neg], &[neg]);
        assert!(together < apart);
        let product = |dtype: DType| {
            let [m, k] = shape.clone();
            let op =
                Op::Contract { spec: ContractSpec::matmul(&[], m, k.clone(), k, dtype).into() };
            let ty = TensorType::new(dtype, shape.clone());
            cost.node(&op, &[ty.clone(), ty.clone()], &[ty])
        };
        assert!(product(DType::F16) < product(DType::F32));
    }
}
