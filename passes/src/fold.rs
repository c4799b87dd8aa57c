//! Bounded folding: values that depend on literals or weights only.
//!
//! Folding never makes a big tensor from a small description: a folded literal
//! has at most [`LITERAL_ELEMENTS_MAX`] elements, a folded weight at most as
//! many bytes as what it is computed from.

use std::sync::Arc;

use tgc_ir::attr::ConstTensor;
use tgc_ir::eval::{Evaluator, Mode};
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::op::Op;
use tgc_ir::tensor::Tensor;

use crate::canon::rebuild;
use crate::pass::{Context, PassError};

/// Elements of a literal that folding may make.
const LITERAL_ELEMENTS_MAX: i64 = 4096;

/// Which leaves a node depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Depends {
    Literals,
    Weights,
    Inputs,
}

fn dependence(graph: &Graph) -> Vec<Depends> {
    let mut out: Vec<Depends> = Vec::with_capacity(graph.len());
    for id in graph.ids() {
        let own = match graph.op(id) {
            Op::Input { .. } | Op::Random { .. } | Op::DimValue { .. } => Depends::Inputs,
            Op::NonZero { .. }
            | Op::Nms { .. }
            | Op::Unique { .. }
            | Op::If { .. }
            | Op::Loop { .. } => Depends::Inputs,
            Op::Weight { index } if graph.weights()[*index as usize].data.is_none() => {
                Depends::Inputs
            }
            Op::Weight { .. } => Depends::Weights,
            _ if graph.types(id).iter().any(|t| t.const_shape().is_none()) => Depends::Inputs,
            _ => Depends::Literals,
        };
        out.push(graph.operands(id).iter().map(|o| out[o.index()]).fold(own, Ord::max));
    }
    out
}

/// Evaluates small values of literals.
pub fn fold_small(graph: &Graph, context: &mut Context<'_>) -> Result<Graph, PassError> {
    let depends = dependence(graph);
    let live = graph.live();
    let worth = |id: NodeId| {
        live[id.index()]
            && depends[id.index()] == Depends::Literals
            && !graph.op(id).is_leaf()
            && !graph.op(id).is_tuple()
            && graph.splat_value(id).is_none()
            && graph.ty(id).count().as_const().is_some_and(|n| n <= LITERAL_ELEMENTS_MAX)
    };
    let roots: Vec<NodeId> = graph.ids().filter(|id| worth(*id)).collect();
    replace(graph, &roots, context, |next, value| {
        if let Some(splat) = value.splat_value() {
            let op = Op::Splat { value: ScalarConst::from_value(splat), dtype: value.dtype() };
            let node = next.add(op, &[])?;
            let shape: Vec<tgc_ir::Dim> =
                value.shape().iter().map(|d| tgc_ir::Dim::Const(*d as i64)).collect();
            return next.expand(node, &shape);
        }
        next.add(Op::Constant { value: ConstTensor(Arc::new(value)) }, &[])
    })
}

/// Evaluates the largest values of weights that other ops read.
pub fn fold_weights(graph: &Graph, context: &mut Context<'_>) -> Result<Graph, PassError> {
    let depends = dependence(graph);
    let live = graph.live();
    let users = graph.users();
    let is_output: Vec<bool> =
        graph.ids().map(|id| graph.outputs().iter().any(|o| o.node == id)).collect();
    let worth = |id: NodeId| {
        let leaves = |id: NodeId| graph.operands(id).iter().map(|o| bytes(graph, *o)).sum::<i64>();
        live[id.index()]
            && depends[id.index()] <= Depends::Weights
            && !graph.op(id).is_leaf()
            && !graph.op(id).is_tuple()
            && !matches!(graph.op(id), Op::View { .. } | Op::Cast { .. })
            && bytes(graph, id) <= leaves(id).max(LITERAL_ELEMENTS_MAX)
    };
    // A root is read by something that is not itself folded.
    let roots: Vec<NodeId> = graph
        .ids()
        .filter(|id| {
            worth(*id)
                && (is_output[id.index()]
                    || users[id.index()].iter().any(|u| live[u.index()] && !worth(*u)))
        })
        .collect();
    replace(graph, &roots, context, |next, value| Ok(next.weight("folded", value)))
}

fn bytes(graph: &Graph, id: NodeId) -> i64 {
    graph.ty(id).bytes().as_const().unwrap_or(i64::MAX / 64)
}

/// Evaluates roots on the reference and puts `make` of their values in place.
fn replace(
    graph: &Graph,
    roots: &[NodeId],
    context: &mut Context<'_>,
    mut make: impl FnMut(&mut Graph, Tensor) -> Result<NodeId, tgc_ir::infer::Violation>,
) -> Result<Graph, PassError> {
    let roots: Vec<NodeId> = roots.iter().copied().filter(|_| context.spend("fold")).collect();
    if roots.is_empty() {
        return Ok(graph.clone());
    }
    let mut needed = vec![false; graph.len()];
    let mut stack = roots.clone();
    while let Some(id) = stack.pop() {
        if !std::mem::replace(&mut needed[id.index()], true) {
            stack.extend(graph.operands(id));
        }
    }
    let mut evaluator = Evaluator::unbound(graph, Mode::Exact);
    let mut values: Vec<Option<Tensor>> = vec![None; graph.len()];
    for id in graph.ids().filter(|id| needed[id.index()]) {
        evaluator.evaluate(id)?;
        if roots.contains(&id) {
            values[id.index()] = Some(evaluator.value(id).to_tensor());
        }
    }
    let mut at = graph
        .ids()
        .filter(|id| graph.live()[id.index()] || graph.inputs().contains(id))
        .collect::<Vec<_>>()
        .into_iter();
    rebuild(graph, |next, op, operands| {
        let id = at.next().expect("rebuild visits live nodes and inputs in order");
        match values[id.index()].take() {
            Some(value) => make(next, value),
            None => next.add(op.clone(), operands),
        }
    })
    .map(|g| g.pruned())
}
