//! Estimates of how long the reference takes, from sizes; no clock is read.

use tgc_ir::bind::Binding;
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::op::Op;
use tgc_ir::plan::Plan;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::spec::ContractSpec;

use crate::session::Outcome;

/// Multiply-adds of contractions and convolutions in a second, roughly.
const PRODUCT_RATE: f64 = 5.0e8;
/// Elements of other ops in a second.
const ELEMENT_RATE: f64 = 1.5e7;
/// Elements in a second that a kernel's bodies compute or read.
const BODY_RATE: f64 = 4.0e6;

/// Seconds to evaluate the imported graph once, and to run the plan's kernels.
pub(super) fn of_outcome(outcome: &Outcome, binding: &Binding) -> (f64, f64) {
    let kernels = outcome.engine.plans.values().next().map_or(0.0, |plan| of_plan(plan, binding));
    let graph = &outcome.imported;
    let seconds: f64 = super::live_nodes(graph).map(|id| of_node(graph, id, binding)).sum();
    // The products of kernels are those of the graph.
    (seconds, kernels + seconds)
}

/// Seconds for the elements that the kernels of a plan read and write.
fn of_plan(plan: &Plan, binding: &Binding) -> f64 {
    plan.launches().iter().map(|l| of_buffers(plan, &l.buffers, binding)).sum()
}

/// Seconds for the elements that one launch reads and writes.
pub(super) fn of_buffers(plan: &Plan, buffers: &[u32], binding: &Binding) -> f64 {
    let elements = |b: &u32| size(&plan.buffers[*b as usize].shape, binding);
    buffers.iter().map(elements).sum::<f64>() / BODY_RATE
}

/// Seconds to evaluate one node.
pub(super) fn of_node(graph: &Graph, id: NodeId, binding: &Binding) -> f64 {
    let op = graph.op(id);
    if op.is_leaf() {
        return 0.0;
    }
    let own = size(graph.shape(id), binding);
    let products = match op {
        Op::Contract { spec } => size(&spec.extents, binding),
        Op::Conv { .. } => own * sum_of_conv(graph, id, binding),
        Op::Attend { spec } => size(&spec.extents, binding),
        Op::Rnn { .. } => own * 8.0 * size(graph.shape(graph.operands(id)[1]), binding),
        _ => 0.0,
    };
    let window = match op {
        Op::Pool { spec } => spec.kernel.iter().product::<i64>() as f64,
        _ => 1.0,
    };
    products / PRODUCT_RATE + own * window / ELEMENT_RATE
}

/// What makes the answers of a graph sensitive to the order of its operations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Character {
    /// Terms of the longest sum of products.
    pub(super) longest_sum: f64,
    /// Values are rounded to integers on the way, as quantised models do: one
    /// near a boundary may fall on either side of it.
    pub(super) is_quantised: bool,
}

/// The character of some nodes of a graph.
pub(super) fn character(
    graph: &Graph,
    nodes: impl IntoIterator<Item = NodeId>,
    binding: &Binding,
) -> Character {
    let mut found = Character { longest_sum: 1.0, is_quantised: false };
    for id in nodes {
        let terms = match graph.op(id) {
            Op::Contract { spec } => sum_of_contraction(spec, binding),
            Op::Conv { .. } => sum_of_conv(graph, id, binding),
            _ => 1.0,
        };
        found.longest_sum = found.longest_sum.max(terms);
        found.is_quantised |= matches!(graph.op(id), Op::Scalar(ScalarOp::Round));
    }
    found
}

fn sum_of_contraction(spec: &ContractSpec, binding: &Binding) -> f64 {
    let kept = |label: usize| spec.out.iter().flatten().any(|l| *l as usize == label);
    let summed = spec.extents.iter().enumerate().filter(|(label, _)| !kept(*label));
    summed.map(|(_, dim)| value(dim, binding)).product()
}

fn sum_of_conv(graph: &Graph, id: NodeId, binding: &Binding) -> f64 {
    size(&graph.shape(graph.operands(id)[1])[1..], binding)
}

fn size(dims: &[tgc_ir::Dim], binding: &Binding) -> f64 {
    dims.iter().map(|d| value(d, binding)).product()
}

/// An extent; one that is known only while running counts as 64.
fn value(dim: &tgc_ir::Dim, binding: &Binding) -> f64 {
    binding.eval(dim).unwrap_or(64).max(0) as f64
}
