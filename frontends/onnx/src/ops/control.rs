//! Branches and loops that import can decide.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::facts::{Relation, Require};
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;

use super::{OnnxOp, call};
use crate::cx::{Cx, Node, OpError, Outputs, Val};
use crate::known::Known;
use crate::proto::GraphProto;

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("If", &[1, 11, 13, 16, 19, 21, 23, 24, 25], branch),
    call("Loop", &[1, 11, 13, 16, 19, 21, 23, 24, 25], repeat),
    call("Scan", &[9, 11, 16, 19, 21, 23, 24, 25], scan),
];

/// Rounds of a loop of known count that are written out.
const UNROLLED_MAX: i64 = 64;
/// Rounds of a scan, which is always written out.
const SCANNED_MAX: i64 = 1024;

fn truth(cx: &Cx, val: &Val) -> Option<bool> {
    let known = cx.known(val)?;
    known.elems.first()?.number().map(|x| x != 0.0)
}

fn branch(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (then, otherwise) = (n.attrs.graph("then_branch")?, n.attrs.graph("else_branch")?);
    let condition = n.val(0)?;
    let taken = match truth(cx, &condition) {
        Some(taken) => taken,
        None => match cx.comparison(&condition) {
            Some(comparison) => {
                cx.assume(&comparison);
                true
            }
            None => return cx.branch_region(&condition, then, otherwise),
        },
    };
    cx.inline(if taken { then } else { otherwise }, &[])
}

/// Stacks values of equal type along a new axis.
fn stack(cx: &mut Cx, values: &[Val], axis: usize) -> Result<Val, OpError> {
    let mut wide = Vec::with_capacity(values.len());
    for val in values {
        let mut shape = cx.extents(val)?;
        if axis > shape.len() {
            return Err(OpError::invalid("stacks along an axis that its values do not have"));
        }
        shape.insert(axis, Dim::ONE);
        wide.push(cx.reshape_val(val, &shape)?);
    }
    cx.concat_vals(&wide, axis)
}

/// Rounds known when compiling are written out; the continue condition must then be known, too.
fn repeat(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let body = n.attrs.graph("body")?;
    let carried: Vec<Val> = (2..n.inputs.len()).map(|i| n.val(i)).collect::<Result<_, _>>()?;
    let go = match n.opt(1) {
        Some(go) => truth(cx, &go),
        None => Some(true),
    };
    let trip = match n.opt(0) {
        Some(trip) => cx.known(&trip).and_then(|k| k.to_i64()).and_then(|t| t.first().copied()),
        None => Some(i64::MAX),
    };
    let in_region = |cx: &mut Cx| cx.loop_region(n.opt(0), n.opt(1), body, &carried);
    let (Some(trip), Some(go)) = (trip, go) else { return in_region(cx) };
    if trip > UNROLLED_MAX {
        return in_region(cx);
    }
    match unroll(cx, body, trip, go, carried.clone())? {
        Some(results) => Ok(results),
        None => in_region(cx),
    }
}

/// `None` when the continue condition depends on data.
fn unroll(
    cx: &mut Cx,
    body: &GraphProto,
    trip: i64,
    go: bool,
    carried: Vec<Val>,
) -> Result<Option<Outputs>, OpError> {
    let mut carried = carried;
    let mut go = go;
    let count = carried.len();
    let stacks = body.output.len().saturating_sub(1 + count);
    let mut stacked: Vec<Vec<Val>> = vec![Vec::new(); stacks];
    let mut round = 0;
    while go && round < trip {
        let mut inputs = vec![
            Val::from(Known::scalar(DType::I64, Dim::Const(round))),
            Val::from(Known::scalar(DType::Bool, Dim::ONE)),
        ];
        inputs.extend(carried.iter().cloned());
        let results = cx.inline(body, &inputs)?;
        if results.iter().any(|v| matches!(v, Val::Broken)) || results.len() < 1 + count {
            return Err(OpError::Broken);
        }
        match truth(cx, &results[0]) {
            Some(more) => go = more,
            None => return Ok(None),
        }
        carried = results[1..=count].to_vec();
        for (list, val) in stacked.iter_mut().zip(&results[1 + count..]) {
            list.push(val.clone());
        }
        round += 1;
    }
    for list in stacked {
        if list.is_empty() {
            return Err(OpError::unsupported(
                "runs no round, so that its stacked results have no extents",
            ));
        }
        carried.push(stack(cx, &list, 0)?);
    }
    Ok(Some(carried))
}

/// A Scan over an axis of known extent, written out.
fn scan(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    if n.version < 9 {
        return Err(OpError::unsupported(
            "of opset 8, with its batch axis, is not supported; opsets 9 and later are",
        ));
    }
    let body = n.attrs.graph("body")?;
    let scanned = usize::try_from(n.attrs.required_int("num_scan_inputs")?).unwrap_or(usize::MAX);
    let states = n
        .inputs
        .len()
        .checked_sub(scanned)
        .ok_or_else(|| OpError::invalid("has fewer operands than scans"))?;
    let mut state: Vec<Val> = (0..states).map(|i| n.val(i)).collect::<Result<_, _>>()?;
    let inputs: Vec<NodeId> =
        (states..n.inputs.len()).map(|i| n.node(cx, i)).collect::<Result<_, _>>()?;
    let at = |list: Option<&[i64]>, i: usize| list.and_then(|l| l.get(i)).copied().unwrap_or(0);
    let (in_axes, in_directions) =
        (n.attrs.ints("scan_input_axes")?, n.attrs.ints("scan_input_directions")?);
    let (out_axes, out_directions) =
        (n.attrs.ints("scan_output_axes")?, n.attrs.ints("scan_output_directions")?);
    let mut axes = Vec::new();
    let mut length = None;
    for (i, &x) in inputs.iter().enumerate() {
        let axis = cx.axis(at(in_axes, i), cx.rank(x))?;
        axes.push(axis);
        length = cx.shape(x)[axis].as_const().or(length);
    }
    let length =
        length.ok_or_else(|| OpError::unsupported("scans an axis whose extent is not a number"))?;
    if length > SCANNED_MAX {
        return Err(OpError::Limit(format!("runs more than {SCANNED_MAX} rounds")));
    }
    let mut stacked: Vec<Vec<Val>> = vec![Vec::new(); body.output.len().saturating_sub(states)];
    for round in 0..length {
        let mut operands = state.clone();
        for (i, &x) in inputs.iter().enumerate() {
            let index = if at(in_directions, i) == 1 { length - 1 - round } else { round };
            let row = cx.slice(x, axes[i], Dim::Const(index), 1, Dim::ONE)?;
            operands.push(cx.squeeze(row, &[axes[i]])?.into());
        }
        let results = cx.inline(body, &operands)?;
        if results.iter().any(|v| matches!(v, Val::Broken)) || results.len() < states {
            return Err(OpError::Broken);
        }
        state = results[..states].to_vec();
        for (list, val) in stacked.iter_mut().zip(&results[states..]) {
            list.push(val.clone());
        }
    }
    for (i, mut list) in stacked.into_iter().enumerate() {
        let Some(first) = list.first() else {
            return Err(OpError::unsupported("scans an axis of extent 0"));
        };
        let axis = cx.axis(at(out_axes, i), cx.extents(first)?.len() + 1)?;
        if at(out_directions, i) == 1 {
            list.reverse();
        }
        state.push(stack(cx, &list, axis)?);
    }
    Ok(state)
}

impl Cx<'_> {
    /// The comparison of dims that a condition computes.
    fn comparison(&self, val: &Val) -> Option<Comparison> {
        let Val::Node(id) = val else { return None };
        self.comparison_of(*id)
    }

    fn comparison_of(&self, id: NodeId) -> Option<Comparison> {
        let operands = self.graph.operands(id);
        let dims = || Some((self.dim_of(*operands.first()?)?, self.dim_of(*operands.get(1)?)?));
        match self.graph.op(id) {
            Op::View { .. } => self.comparison_of(operands[0]),
            Op::Scalar(S::Not) => self.comparison_of(operands[0])?.negated(),
            Op::Scalar(S::Eq) => {
                dims().map(|(lhs, rhs)| Comparison { lhs, relation: Relation::Equal, rhs })
            }
            Op::Scalar(S::Le) => {
                dims().map(|(lhs, rhs)| Comparison { lhs, relation: Relation::AtMost, rhs })
            }
            Op::Scalar(S::Lt) => dims().map(|(lhs, rhs)| Comparison {
                lhs: lhs + Dim::ONE,
                relation: Relation::AtMost,
                rhs,
            }),
            _ => None,
        }
    }

    /// The dim that a node of one element computes.
    fn dim_of(&self, id: NodeId) -> Option<Dim> {
        match self.graph.op(id) {
            Op::DimValue { value } => Some(value.clone()),
            Op::Splat { value: ScalarConst::Int(value), .. } => Some(Dim::Const(*value)),
            Op::View { .. } | Op::Cast { .. } => self.dim_of(*self.graph.operands(id).first()?),
            _ => None,
        }
    }

    /// Takes a comparison of dims for granted; binding checks it and names the node.
    fn assume(&mut self, comparison: &Comparison) {
        let origin = self.origin();
        let (lhs, rhs) = (comparison.lhs.clone(), comparison.rhs.clone());
        self.graph.facts.require(Require {
            lhs,
            relation: comparison.relation,
            rhs,
            origin: origin.clone(),
        });
        let text = comparison.text();
        self.notes.push(format!("If `{origin}` compares dims; it is decided by requiring {text}"));
    }
}

/// An undecided comparison of two dims.
#[derive(Clone, Debug, PartialEq)]
struct Comparison {
    lhs: Dim,
    relation: Relation,
    rhs: Dim,
}

impl Comparison {
    fn text(&self) -> String {
        let (lhs, rhs) = (self.lhs.clone(), self.rhs.clone());
        Require { lhs, relation: self.relation, rhs, origin: String::new() }.to_string()
    }

    /// The comparison that holds exactly when this one does not.
    fn negated(&self) -> Option<Self> {
        let (lhs, rhs) = (self.lhs.clone(), self.rhs.clone());
        Some(match self.relation {
            Relation::Equal => Self { lhs, relation: Relation::NotEqual, rhs },
            Relation::NotEqual => Self { lhs, relation: Relation::Equal, rhs },
            Relation::AtMost => Self { lhs: rhs + Dim::ONE, relation: Relation::AtMost, rhs: lhs },
            Relation::MultipleOf => return None,
        })
    }
}
