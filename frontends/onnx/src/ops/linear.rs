//! Sums of products: MatMul, Gemm, Einsum, Det of small matrices.

use std::sync::Arc;

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ReduceOp;
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;
use tgc_ir::spec::ContractSpec;

use super::{OnnxOp, call, one};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("MatMul", &[1, 9, 13], matmul),
    call("Gemm", &[1, 6, 7, 9, 11, 13], gemm),
    call("Einsum", &[12, 28], einsum),
];

/// A tensor whose axes carry labels; an axis of extent 1 under a wider label repeats.
#[derive(Clone)]
pub(crate) struct Labelled {
    pub node: NodeId,
    pub labels: Vec<u32>,
}

/// The extents of labels in a contraction being built.
#[derive(Default)]
pub(crate) struct Labels {
    extents: Vec<Option<Dim>>,
}

impl Labels {
    /// Notes that an axis of this extent carries the label.
    pub(super) fn meet(&mut self, cx: &mut Cx, label: u32, extent: &Dim) -> Result<(), OpError> {
        let at = label as usize;
        if self.extents.len() <= at {
            self.extents.resize(at + 1, None);
        }
        let met = match &self.extents[at] {
            None => extent.clone(),
            Some(known) => cx.broadcast_extent(known, extent)?,
        };
        self.extents[at] = Some(met);
        Ok(())
    }

    /// The extent of a label that some axis carries.
    pub(super) fn extent(&self, label: u32) -> Dim {
        self.extents.get(label as usize).cloned().flatten().unwrap_or(Dim::ONE)
    }
}

/// Σ over the labels that `out` lacks of `a · b`, with axes in the order of `out`.
pub(crate) fn contract(
    cx: &mut Cx,
    labels: &Labels,
    a: &Labelled,
    b: &Labelled,
    out: &[u32],
) -> Result<NodeId, OpError> {
    let a = sum_lone(cx, labels, a, b, out)?;
    let b = sum_lone(cx, labels, b, &a, out)?;
    let groups = |cx: &Cx, x: &Labelled| -> Vec<Vec<u32>> {
        let shape = cx.shape(x.node);
        let unit = |i: usize| shape[i].is(1);
        x.labels
            .iter()
            .enumerate()
            .map(|(i, &l)| if unit(i) { Vec::new() } else { vec![l] })
            .collect()
    };
    let extents: Vec<Dim> = (0..labels.extents.len() as u32).map(|l| labels.extent(l)).collect();
    let (lhs, rhs) = (groups(cx, &a), groups(cx, &b));
    // A label that only repeats (extent 1 wherever it occurs) is broadcast after the sum.
    let carried = |l: &u32| lhs.iter().chain(&rhs).any(|g| g.contains(l));
    let result = out.iter().map(|l| if carried(l) { vec![*l] } else { Vec::new() }).collect();
    let dtype = cx.node_dtype(a.node);
    let spec = ContractSpec { extents, lhs, rhs, out: result, dtype }.canonical();
    cx.emit(Op::Contract { spec: Arc::new(spec) }, &[a.node, b.node])
}

/// Sums the labels that only `x` has.
fn sum_lone(
    cx: &mut Cx,
    _: &Labels,
    x: &Labelled,
    other: &Labelled,
    out: &[u32],
) -> Result<Labelled, OpError> {
    let other_shape = cx.shape(other.node);
    let shape = cx.shape(x.node);
    let in_other = |l: &u32| other.labels.iter().zip(&other_shape).any(|(o, d)| o == l && !d.is(1));
    let lone: Vec<usize> = (0..x.labels.len())
        .filter(|&i| !shape[i].is(1) && !in_other(&x.labels[i]) && !out.contains(&x.labels[i]))
        .collect();
    if lone.is_empty() {
        return Ok(x.clone());
    }
    let node = cx.reduce(ReduceOp::Sum, x.node, &lone, false)?;
    let labels = (0..x.labels.len()).filter(|i| !lone.contains(i)).map(|i| x.labels[i]).collect();
    Ok(Labelled { node, labels })
}

/// The batched matrix product of ONNX (numpy): vectors count as one row or one column.
pub(crate) fn matmul_of(cx: &mut Cx, a: NodeId, b: NodeId) -> Result<NodeId, OpError> {
    let (sa, sb) = (cx.shape(a), cx.shape(b));
    if sa.is_empty() || sb.is_empty() {
        return Err(OpError::invalid("takes operands of rank 1 or more"));
    }
    let (ra, rb) = (sa.len(), sb.len());
    let batch = ra.saturating_sub(2).max(rb.saturating_sub(2)) as u32;
    let (m, k, n) = (batch, batch + 1, batch + 2);
    let batch_labels = |rank: usize| (batch - rank.saturating_sub(2) as u32)..batch;
    let a_labels: Vec<u32> =
        if ra == 1 { vec![k] } else { batch_labels(ra).chain([m, k]).collect() };
    let b_labels: Vec<u32> =
        if rb == 1 { vec![k] } else { batch_labels(rb).chain([k, n]).collect() };
    let inner = (&sa[ra - 1], &sb[rb.saturating_sub(2)]);
    cx.require_equal(inner.0, inner.1).map_err(|_| {
        OpError::invalid(format!(
            "cannot multiply: inner extents {} and {} differ",
            inner.0, inner.1
        ))
    })?;
    let mut labels = Labels::default();
    for (shape, names) in [(&sa, &a_labels), (&sb, &b_labels)] {
        for (extent, &label) in shape.iter().zip(names) {
            labels.meet(cx, label, extent)?;
        }
    }
    let mut out: Vec<u32> = (0..batch).collect();
    out.extend((ra > 1).then_some(m));
    out.extend((rb > 1).then_some(n));
    let (a, b) = (Labelled { node: a, labels: a_labels }, Labelled { node: b, labels: b_labels });
    contract(cx, &labels, &a, &b, &out)
}

fn matmul(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (a, b) = (n.node(cx, 0)?, n.node(cx, 1)?);
    one(matmul_of(cx, a, b)?)
}

/// `alpha · A' · B' + beta · C`, C broadcast to [M, N].
fn gemm(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (a, b) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let (sa, sb) = (cx.shape(a), cx.shape(b));
    if sa.len() != 2 || sb.len() != 2 {
        return Err(OpError::invalid("takes matrices"));
    }
    let a_labels = if n.attrs.flag("transA", false)? { vec![1, 0] } else { vec![0, 1] };
    let b_labels = if n.attrs.flag("transB", false)? { vec![2, 1] } else { vec![1, 2] };
    let mut labels = Labels::default();
    for (shape, names) in [(&sa, &a_labels), (&sb, &b_labels)] {
        for (extent, &label) in shape.iter().zip(names.iter()) {
            labels.meet(cx, label, extent)?;
        }
    }
    let (a, b) = (Labelled { node: a, labels: a_labels }, Labelled { node: b, labels: b_labels });
    let mut out = contract(cx, &labels, &a, &b, &[0, 2])?;
    let alpha = n.attrs.float_or("alpha", 1.0)?;
    if alpha != 1.0 {
        let alpha = cx.num(out, alpha)?;
        out = cx.map(S::Mul, &[out, alpha])?;
    }
    let beta = n.attrs.float_or("beta", 1.0)?;
    if let Some(mut c) = n.opt_node(cx, 2)?
        && beta != 0.0
    {
        if beta != 1.0 {
            let beta = cx.num(c, beta)?;
            c = cx.map(S::Mul, &[c, beta])?;
        }
        out = cx.map(S::Add, &[out, c])?;
    }
    one(out)
}

/// An equation with every axis labelled: operands, result.
struct Equation {
    operands: Vec<Vec<u32>>,
    out: Vec<u32>,
}

/// Letters get labels in order; the axes of `...` get labels after all letters, aligned at the right.
fn parse(equation: &str, ranks: &[usize]) -> Result<Equation, OpError> {
    let bad = |why: &str| OpError::invalid(format!("has equation `{equation}`: {why}"));
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l.to_owned(), Some(r.to_owned())),
        None => (text.clone(), None),
    };
    let terms: Vec<&str> = left.split(',').collect();
    if terms.len() != ranks.len() {
        return Err(bad("the number of terms is not the number of operands"));
    }
    let mut letters: Vec<char> = left.chars().filter(char::is_ascii_alphabetic).collect();
    letters.sort_unstable();
    letters.dedup();
    let number = |c: char| letters.iter().position(|&l| l == c).map(|i| i as u32);
    let mut dots = 0usize;
    for (term, &rank) in terms.iter().zip(ranks) {
        let named = term.chars().filter(char::is_ascii_alphabetic).count();
        if term.contains("...") {
            dots = dots.max(
                rank.checked_sub(named)
                    .ok_or_else(|| bad("a term has more axes than its operand"))?,
            );
        } else if named != rank {
            return Err(bad("a term does not name every axis of its operand"));
        }
    }
    let first_dot = letters.len() as u32;
    let expand = |term: &str, width: usize| -> Result<Vec<u32>, OpError> {
        let mut out = Vec::new();
        let mut rest = term;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("...") {
                out.extend((0..width as u32).map(|i| first_dot + dots as u32 - width as u32 + i));
                rest = after;
            } else {
                out.push(number(c).ok_or_else(|| bad("a letter of the result is in no operand"))?);
                rest = &rest[c.len_utf8()..];
            }
        }
        Ok(out)
    };
    let mut operands = Vec::new();
    for (term, &rank) in terms.iter().zip(ranks) {
        let named = term.chars().filter(char::is_ascii_alphabetic).count();
        operands.push(expand(term, rank - named)?);
    }
    let out = match right {
        Some(right) => expand(&right, dots)?,
        None => {
            let once = |l: &u32| operands.iter().flatten().filter(|x| *x == l).count() == 1;
            (first_dot..first_dot + dots as u32).chain((0..first_dot).filter(once)).collect()
        }
    };
    Ok(Equation { operands, out })
}

/// Takes the diagonal over axes that share a label: flat index `i · (n + 1)` of an n × n matrix.
fn diagonals(cx: &mut Cx, mut x: Labelled) -> Result<Labelled, OpError> {
    while let Some((i, j)) = repeated(&x.labels) {
        let shape = cx.shape(x.node);
        cx.require_equal(&shape[i], &shape[j])?;
        let side = shape[i].as_const().ok_or_else(|| {
            OpError::unsupported(format!(
                "takes a diagonal over extent {}; only numbers are supported",
                shape[i]
            ))
        })?;
        let rank = shape.len();
        let mut perm: Vec<usize> = (0..rank).filter(|&a| a != i && a != j).collect();
        let mut labels: Vec<u32> = perm.iter().map(|&a| x.labels[a]).collect();
        labels.push(x.labels[i]);
        let mut flat: Vec<Dim> = perm.iter().map(|&a| shape[a].clone()).collect();
        perm.extend([i, j]);
        flat.push(Dim::Const(side.saturating_mul(side)));
        let node = cx.permute(x.node, &perm)?;
        let node = cx.reshape(node, &flat)?;
        let node = cx.slice(node, rank - 2, Dim::ZERO, side.saturating_add(1), Dim::Const(side))?;
        x = Labelled { node, labels };
    }
    Ok(x)
}

fn repeated(labels: &[u32]) -> Option<(usize, usize)> {
    (0..labels.len())
        .find_map(|i| labels[i + 1..].iter().position(|l| *l == labels[i]).map(|j| (i, i + 1 + j)))
}

fn einsum(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let equation = n.attrs.string_or("equation", "")?;
    let nodes: Vec<NodeId> =
        (0..n.inputs.len()).map(|i| n.node(cx, i)).collect::<Result<_, _>>()?;
    let ranks: Vec<usize> = nodes.iter().map(|&x| cx.rank(x)).collect();
    let equation = parse(&equation, &ranks)?;
    let mut labels = Labels::default();
    let mut operands = Vec::new();
    for (&node, names) in nodes.iter().zip(&equation.operands) {
        for (extent, &label) in cx.shape(node).iter().zip(names) {
            labels.meet(cx, label, extent)?;
        }
        operands.push(diagonals(cx, Labelled { node, labels: names.clone() })?);
    }
    let mut parts = operands.into_iter();
    let Some(mut total) = parts.next() else { return Err(OpError::invalid("has no operands")) };
    let rest: Vec<Labelled> = parts.collect();
    for (i, next) in rest.iter().enumerate() {
        let needed = |l: &u32| {
            equation.out.contains(l) || rest[i + 1..].iter().any(|r| r.labels.contains(l))
        };
        let mut keep: Vec<u32> =
            total.labels.iter().chain(&next.labels).copied().filter(needed).collect();
        keep.sort_unstable();
        keep.dedup();
        if i + 1 == rest.len() {
            keep = equation.out.clone();
        }
        let node = contract(cx, &labels, &total, next, &keep)?;
        total = Labelled { node, labels: keep };
    }
    one(arrange(cx, &labels, &total, &equation.out)?)
}

/// Sums what is not wanted, brings axes into order, and repeats what only repeats.
fn arrange(cx: &mut Cx, labels: &Labels, x: &Labelled, out: &[u32]) -> Result<NodeId, OpError> {
    let lone: Vec<usize> = (0..x.labels.len()).filter(|&i| !out.contains(&x.labels[i])).collect();
    let mut node = x.node;
    if !lone.is_empty() {
        node = cx.reduce(ReduceOp::Sum, node, &lone, false)?;
    }
    let kept: Vec<u32> = x.labels.iter().copied().filter(|l| out.contains(l)).collect();
    let perm: Vec<usize> = out
        .iter()
        .map(|l| kept.iter().position(|k| k == l))
        .collect::<Option<_>>()
        .ok_or_else(|| OpError::invalid("has a result axis that no operand has"))?;
    let node = cx.permute(node, &perm)?;
    let shape: Vec<Dim> = out.iter().map(|&l| labels.extent(l)).collect();
    cx.broadcast(node, &shape)
}

/// A matrix product of integers, exact in i32.
pub(crate) fn integer_matmul(cx: &mut Cx, a: NodeId, b: NodeId) -> Result<NodeId, OpError> {
    let (a, b) = (cx.cast(a, DType::I32)?, cx.cast(b, DType::I32)?);
    matmul_of(cx, a, b)
}
