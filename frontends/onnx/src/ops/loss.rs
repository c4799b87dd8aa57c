//! Losses over class scores.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ReduceOp as R;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;

use super::norm::axes_attr;
use super::{OnnxOp, call, many, one};
use crate::cx::{Cx, Node, OpError, Outputs, Val};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("NegativeLogLikelihoodLoss", &[12, 13, 22], negative_log_likelihood),
    call("SoftmaxCrossEntropyLoss", &[12, 13], softmax_cross_entropy),
];

/// `-weight[target] · log_probability[target]` per position, reduced as the node says.
fn loss_of(cx: &mut Cx, n: &Node, log_p: NodeId) -> Result<NodeId, OpError> {
    let shape = cx.shape(log_p);
    if shape.len() < 2 {
        return Err(OpError::invalid("takes scores of rank 2 or more"));
    }
    let target = n.node(cx, 1)?;
    let target = cx.cast(target, DType::I64)?;
    let ignore = n.attrs.int("ignore_index")?;
    let zero_index = cx.int(0)?;
    let ignored = match ignore {
        Some(ignore) => {
            let ignore = cx.int(ignore)?;
            Some(cx.map(S::Eq, &[target, ignore])?)
        }
        None => None,
    };
    let mut safe = target;
    if let Some(ignored) = ignored {
        safe = cx.map(S::Select, &[ignored, zero_index, target])?;
    }
    let safe = cx.index(&Val::Node(safe), &shape[1])?;
    let at = cx.unsqueeze(safe, &[1])?;
    let picked = cx.emit(Op::GatherElements { axis: 1 }, &[log_p, at])?;
    let picked = cx.squeeze(picked, &[1])?;
    let mut loss = cx.map(S::Neg, &[picked])?;
    let mut weight = None;
    if let Some(w) = n.opt_node(cx, 2)? {
        weight = Some(cx.take(w, safe, 0)?);
    }
    if let Some(ignored) = ignored {
        let zero = cx.zero(loss)?;
        let unit = cx.num(loss, 1.0)?;
        weight = Some(cx.map(S::Select, &[ignored, zero, weight.unwrap_or(unit)])?);
        loss = cx.map(S::Select, &[ignored, zero, loss])?;
    }
    if let Some(weight) = weight {
        loss = cx.map(S::Mul, &[loss, weight])?;
    }
    let all: Vec<usize> = (0..cx.rank(loss)).collect();
    match n.attrs.string_or("reduction", "mean")?.as_str() {
        "none" => Ok(loss),
        "sum" => cx.reduce(R::Sum, loss, &all, false),
        "mean" => {
            let total = cx.reduce(R::Sum, loss, &all, false)?;
            match weight {
                Some(weight) => {
                    let shape = cx.shape(loss);
                    let weight = cx.broadcast(weight, &shape)?;
                    let count = cx.reduce(R::Sum, weight, &all, false)?;
                    cx.map(S::Div, &[total, count])
                }
                None => {
                    let count = Dim::product(&cx.shape(loss));
                    cx.divide_by(total, &count)
                }
            }
        }
        other => Err(OpError::invalid(format!("has reduction `{other}`"))),
    }
}

fn negative_log_likelihood(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let log_p = n.node(cx, 0)?;
    one(loss_of(cx, n, log_p)?)
}

fn softmax_cross_entropy(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let scores = n.node(cx, 0)?;
    let log_p = cx.composite("log_softmax", &[scores], &[axes_attr(&[1])])?;
    let loss = loss_of(cx, n, log_p)?;
    many(&[loss, log_p])
}
