//! The operators, one table per group; an operator is one entry.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use tgc_ir::graph::NodeId;
use tgc_ir::scalar::ScalarOp;

use crate::cx::{Cx, Node, OpError, Outputs, Val};

mod attention;
mod constant;
mod control;
mod conv_pool;
mod indexing;
mod linear;
mod loss;
mod microsoft;
mod movement;
mod norm;
mod pointwise;
mod quant;
mod reduce;
mod resize;
mod rnn;
mod sequence;
mod signal;
mod vision;

/// How an operator becomes IR.
pub(crate) enum Lower {
    /// One row of the scalar table over all inputs.
    Scalar(ScalarOp),
    /// Builder calls.
    Call(fn(&mut Cx, &Node) -> Result<Outputs, OpError>),
}

/// One ONNX operator.
pub(crate) struct OnnxOp {
    /// Empty for the default domain.
    pub domain: &'static str,
    pub name: &'static str,
    /// Opset versions in which the operator changed; the entry serves all of them.
    pub since: &'static [i64],
    pub lower: Lower,
}

const fn scalar(name: &'static str, since: &'static [i64], op: ScalarOp) -> OnnxOp {
    OnnxOp { domain: "", name, since, lower: Lower::Scalar(op) }
}

const fn call(
    name: &'static str,
    since: &'static [i64],
    lower: fn(&mut Cx, &Node) -> Result<Outputs, OpError>,
) -> OnnxOp {
    OnnxOp { domain: "", name, since, lower: Lower::Call(lower) }
}

/// A single result.
fn one(value: impl Into<Val>) -> Result<Outputs, OpError> {
    Ok(vec![value.into()])
}

/// Several results that are nodes.
fn many(values: &[NodeId]) -> Result<Outputs, OpError> {
    Ok(values.iter().map(|&v| Val::Node(v)).collect())
}

const GROUPS: &[&[OnnxOp]] = &[
    attention::OPS,
    constant::OPS,
    control::OPS,
    conv_pool::OPS,
    indexing::OPS,
    linear::OPS,
    loss::OPS,
    microsoft::OPS,
    movement::OPS,
    norm::OPS,
    pointwise::OPS,
    quant::OPS,
    reduce::OPS,
    resize::OPS,
    rnn::OPS,
    sequence::OPS,
    signal::OPS,
    vision::OPS,
];

fn table() -> &'static BTreeMap<(&'static str, &'static str), &'static OnnxOp> {
    static TABLE: OnceLock<BTreeMap<(&str, &str), &OnnxOp>> = OnceLock::new();
    TABLE.get_or_init(|| {
        GROUPS.iter().flat_map(|g| g.iter()).map(|op| ((op.domain, op.name), op)).collect()
    })
}

/// The entry for an operator.
pub(crate) fn find(domain: &str, name: &str) -> Option<&'static OnnxOp> {
    table().get(&(domain, name)).copied()
}

/// Operators of the domain whose names resemble `name`, for help.
pub(crate) fn similar(domain: &str, name: &str) -> Option<&'static str> {
    let lower = name.to_ascii_lowercase();
    table().keys().filter(|(d, _)| *d == domain).map(|(_, n)| *n).find(|n| {
        let n = n.to_ascii_lowercase();
        n == lower
            || (lower.len() > 3 && (n.starts_with(&lower) || lower.starts_with(&n)) && n.len() > 3)
    })
}

/// Every operator that the importer knows: (domain, name, versions in which it changed), by domain and name. The empty
/// domain is `ai.onnx`.
pub fn operators() -> impl Iterator<Item = (&'static str, &'static str, &'static [i64])> {
    table().values().map(|op| (op.domain, op.name, op.since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_operator_has_two_entries() {
        let entries: usize = GROUPS.iter().map(|g| g.len()).sum();
        assert_eq!(entries, operators().count());
        for (_, name, since) in operators() {
            assert!(since.windows(2).all(|w| w[0] < w[1]) && !since.is_empty(), "{name}");
        }
    }
}
