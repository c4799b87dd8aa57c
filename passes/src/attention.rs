//! Attention by structure: contract(chain(softmax(chain(contract)))) becomes
//! one `attend`, whatever pointwise chains sit on scores and probabilities.
//!
//! The chains are kept as scalar bodies, so the fusion is exact for every
//! input: scales, masks of any form, biases, soft caps and NaN guards stay
//! what they were. Views inside the chains become labels. A step over the
//! extracted graph, because a pattern cannot say "any chain".

use std::sync::Arc;

use rustc_hash::FxHashMap;

use tgc_ir::attr::Attr;
use tgc_ir::dtype::DType;
use tgc_ir::graph::{Graph, NodeId, Operands};
use tgc_ir::kernel_program::{Body, InstKind};
use tgc_ir::op::Op;
use tgc_ir::spec::{AttendSpec, ContractSpec, Group, Label, Relabel, Role, tidy_labels};

use crate::pass::{Context, PassError};

/// Nodes between softmax and contraction that a chain may have.
const CHAIN_MAX: usize = 32;

/// Fuses every attention site.
pub fn run(graph: &Graph, context: &mut Context<'_>) -> Result<Graph, PassError> {
    let users = graph.users();
    let live = graph.live();
    let mut found: FxHashMap<NodeId, Site> = FxHashMap::default();
    for id in graph.ids().filter(|id| live[id.index()]) {
        if let Op::Contract { spec } = graph.op(id)
            && let Some(site) =
                [0, 1].into_iter().find_map(|side| find(graph, &users, id, spec, side))
            && context.spend("fuse-attention")
        {
            found.insert(id, site);
        }
    }
    if found.is_empty() {
        return Ok(graph.clone());
    }
    let mut next = graph.successor();
    let mut map: Vec<Option<NodeId>> = vec![None; graph.len()];
    for id in graph.ids().filter(|id| live[id.index()] || graph.inputs().contains(id)) {
        let new_of = |n: NodeId| map[n.index()].expect("operands come first");
        let new = match found.get(&id) {
            Some(site) => {
                let operands: Operands = site.operands.iter().map(|o| new_of(*o)).collect();
                let names: Vec<_> =
                    site.covered.iter().flat_map(|n| graph.locations(*n).iter().cloned()).collect();
                next.set_location(&names);
                next.add(Op::Attend { spec: Arc::new(site.spec.clone()) }, &operands)?
            }
            None => {
                let operands: Operands = graph.operands(id).iter().map(|o| new_of(*o)).collect();
                let names: Vec<_> = graph.locations(id).iter().cloned().collect();
                next.set_location(&names);
                next.add(graph.op(id).clone(), &operands)?
            }
        };
        map[id.index()] = Some(new);
    }
    next.set_location(&[]);
    for output in graph.outputs() {
        next.output(&output.name, map[output.node.index()].expect("outputs are live"));
    }
    Ok(next.pruned())
}

/// What one fusion replaces and by what.
struct Site {
    spec: AttendSpec,
    operands: Vec<NodeId>,
    covered: Vec<NodeId>,
}

/// Slots of the relabelling.
const VALUE: usize = 0;
const OUT: usize = 1;
const PROBS: usize = 2;

struct Matcher<'a> {
    graph: &'a Graph,
    labels: Relabel,
    /// Operands beside q, k, v: node and slot of its groups.
    extras: Vec<(NodeId, usize)>,
    covered: Vec<NodeId>,
}

fn find(
    graph: &Graph,
    users: &[Vec<NodeId>],
    root: NodeId,
    spec: &ContractSpec,
    side: usize,
) -> Option<Site> {
    let probs = graph.operands(root)[side];
    let [softmax] = anchors_above(graph, probs, &|op| is_softmax(op).is_some())?[..] else {
        return None;
    };
    // Of several products that are added up, one is q·k; the others are read
    // as a bias.
    let products =
        anchors_above(graph, graph.operands(softmax)[0], &|op| matches!(op, Op::Contract { .. }))?;
    products
        .into_iter()
        .find_map(|product| find_with(graph, users, root, spec, side, [softmax, product]))
}

/// The site with this softmax and this product of queries and keys.
fn find_with(
    graph: &Graph,
    users: &[Vec<NodeId>],
    root: NodeId,
    spec: &ContractSpec,
    side: usize,
    [softmax, product]: [NodeId; 2],
) -> Option<Site> {
    let operands = graph.operands(root);
    let (probs, value) = (operands[side], operands[1 - side]);
    let (probs_axes, value_axes) =
        if side == 0 { (&spec.lhs, &spec.rhs) } else { (&spec.rhs, &spec.lhs) };
    let scores = graph.operands(softmax)[0];
    let axes = vec![value_axes.clone(), spec.out.clone(), probs_axes.clone()];
    let labels = Relabel::new(spec.extents.clone(), axes);
    let mut matcher = Matcher { graph, labels, extras: Vec::new(), covered: vec![root] };
    let prob = matcher.chain(probs, softmax, PROBS)?;
    let score = matcher.chain(scores, product, prob.anchor_slot)?;
    matcher.covered.extend([softmax, product]);
    if !matcher.is_private(users, root) {
        return None;
    }
    matcher.finish(root, softmax, product, value, prob, score, spec)
}

/// The softmax axis when the op is one along one axis.
fn is_softmax(op: &Op) -> Option<usize> {
    match op {
        Op::Composite(c) if c.name() == "softmax" => match c.attr("axes") {
            Some(Attr::Ints(axes)) if axes.len() == 1 => usize::try_from(axes[0]).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// The nearest nodes of a kind on the ways up through pointwise ops and
/// views, in order; `None` when there is too much in between.
fn anchors_above(graph: &Graph, from: NodeId, is: &dyn Fn(&Op) -> bool) -> Option<Vec<NodeId>> {
    let mut stack = vec![from];
    let mut seen: Vec<NodeId> = Vec::new();
    let mut found: Vec<NodeId> = Vec::new();
    while let Some(node) = stack.pop() {
        if seen.contains(&node) {
            continue;
        }
        seen.push(node);
        if seen.len() > 4 * CHAIN_MAX {
            return None;
        }
        let op = graph.op(node);
        if is(op) {
            found.push(node);
        } else if op.is_pointwise() || matches!(op, Op::View { .. }) {
            stack.extend(graph.operands(node));
        }
    }
    found.sort_unstable();
    Some(found)
}

/// A chain as a body.
struct Chain {
    body: Body,
    value: u32,
    /// Slot with the groups of the anchor's axes.
    anchor_slot: usize,
}

impl Matcher<'_> {
    fn chain(&mut self, top: NodeId, anchor: NodeId, slot: usize) -> Option<Chain> {
        let mut chain = ChainBuilder {
            anchor,
            body: Body::default(),
            anchor_slot: None,
            memo: FxHashMap::default(),
        };
        let value = chain.build(self, top, slot)?;
        Some(Chain { body: chain.body, value, anchor_slot: chain.anchor_slot? })
    }

    /// Every covered node but the root is read inside only.
    fn is_private(&self, users: &[Vec<NodeId>], root: NodeId) -> bool {
        let is_output = |n: NodeId| self.graph.outputs().iter().any(|o| o.node == n);
        self.covered
            .iter()
            .filter(|n| **n != root)
            .all(|n| !is_output(*n) && users[n.index()].iter().all(|u| self.covered.contains(u)))
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one match")]
    fn finish(
        mut self,
        root: NodeId,
        softmax: NodeId,
        product: NodeId,
        value: NodeId,
        prob: Chain,
        score: Chain,
        outer: &ContractSpec,
    ) -> Option<Site> {
        let graph = self.graph;
        let Op::Contract { spec: inner } = graph.op(product) else { return None };
        // The inner contraction's labels join the universe.
        let offset = self.labels.extents.len() as Label;
        self.labels.extents.extend(inner.extents.iter().cloned());
        let shift = |axes: &[Group]| {
            axes.iter().map(|g| g.iter().map(|l| l + offset).collect()).collect::<Vec<Group>>()
        };
        let first = self.labels.axes.len();
        self.labels.axes.extend([shift(&inner.out), shift(&inner.lhs), shift(&inner.rhs)]);
        let scores_slot = score.anchor_slot;
        for axis in 0..self.labels.axes[scores_slot].len() {
            self.labels.align((scores_slot, axis), (first, axis), &graph.facts)?;
            let pairs: Vec<(Label, Label)> = self.labels.axes[first][axis]
                .iter()
                .copied()
                .zip(self.labels.axes[scores_slot][axis].iter().copied())
                .collect();
            for (from, to) in pairs {
                self.labels.rename(from, to);
            }
        }
        // Keys: what the outer contraction sums, exactly the softmax axis.
        let axis = is_softmax(graph.op(softmax))?;
        let keys = self.labels.axes[prob.anchor_slot][axis].clone();
        let within = |axes: &[Group], l: Label| axes.iter().flatten().any(|x| *x == l);
        let out = self.labels.axes[OUT].clone();
        let summed: Vec<Label> = self.labels.axes[PROBS]
            .iter()
            .flatten()
            .copied()
            .filter(|l| !within(&out, *l))
            .collect();
        let mut sorted = (summed.clone(), keys.clone());
        sorted.0.sort_unstable();
        sorted.1.sort_unstable();
        if sorted.0 != sorted.1 || keys.is_empty() {
            return None;
        }
        if (0..outer.extents.len() as Label).any(|l| {
            outer.role(l) == Role::LoneSum && (within(&outer.lhs, l) || within(&outer.rhs, l))
        }) {
            return None;
        }
        // q is the side without keys.
        let (q_side, k_side) =
            match [1, 2].map(|s| keys.iter().any(|l| within(&self.labels.axes[first + s], *l))) {
                [false, true] => (0, 1),
                [true, false] => (1, 0),
                _ => return None,
            };
        let extra_slots: Vec<usize> = self.extras.iter().map(|(_, s)| *s).collect();
        let keys_slot = self.labels.axes.len();
        self.labels.axes.push(vec![keys]);
        let picked: Vec<usize> = [first + 1 + q_side, first + 1 + k_side, VALUE, OUT, keys_slot]
            .into_iter()
            .chain(extra_slots)
            .collect();
        let mut axes: Vec<Vec<Group>> =
            picked.iter().map(|s| self.labels.axes[*s].clone()).collect();
        let extents = tidy_labels(self.labels.extents.clone(), &mut axes);
        let mut axes = axes.into_iter();
        let mut next = || axes.next().unwrap_or_default();
        let (q, k, v, out, keys) = (next(), next(), next(), next(), next());
        let spec = AttendSpec {
            extents,
            q,
            k,
            v,
            out,
            extras: axes.collect(),
            keys: keys.into_iter().flatten().collect(),
            score: score.body,
            score_value: score.value,
            prob: prob.body,
            prob_value: prob.value,
            dtype: graph.dtype(root),
            causal: None,
        };
        let products = graph.operands(product);
        let operands = [products[q_side], products[k_side], value]
            .into_iter()
            .chain(self.extras.iter().map(|(n, _)| *n))
            .collect();
        Some(Site { spec, operands, covered: self.covered })
    }
}

struct ChainBuilder {
    anchor: NodeId,
    body: Body,
    anchor_slot: Option<usize>,
    memo: FxHashMap<NodeId, u32>,
}

impl ChainBuilder {
    /// The value of a node of the chain whose axes are labelled as in `slot`.
    fn build(&mut self, m: &mut Matcher<'_>, node: NodeId, slot: usize) -> Option<u32> {
        if node == self.anchor {
            match self.anchor_slot {
                None => self.anchor_slot = Some(slot),
                Some(known) if m.labels.axes[known] == m.labels.axes[slot] => {}
                Some(_) => return None,
            }
            let dtype = score_dtype(m.graph.dtype(node));
            return Some(self.body.push(dtype, InstKind::Slot(0)));
        }
        if let Some(&known) = self.memo.get(&node) {
            return Some(known);
        }
        let graph = m.graph;
        let is_on_path = reaches(graph, node, self.anchor);
        let value = match graph.op(node) {
            Op::Splat { value, dtype } => {
                self.body.push(dtype.accumulator(), InstKind::Const(*value))
            }
            _ if !is_on_path => self.extra(m, node, slot)?,
            Op::Scalar(op) => {
                let mut args = smallvec::SmallVec::new();
                for &operand in graph.operands(node) {
                    args.push(self.build_broadcast(m, operand, node, slot)?);
                }
                self.body.push(graph.dtype(node).accumulator(), InstKind::Scalar(*op, args))
            }
            Op::Cast { to } => {
                let inner = self.build(m, graph.operands(node)[0], slot)?;
                let narrowed = if self.body.dtype(inner) == *to {
                    inner
                } else {
                    self.body.push(*to, InstKind::Cast(inner))
                };
                let wide = to.accumulator();
                if wide == *to { narrowed } else { self.body.push(wide, InstKind::Cast(narrowed)) }
            }
            Op::View { view } if !view.has_broadcast() => {
                let groups = m.labels.through_view(slot, view, &graph.facts)?;
                m.labels.axes.push(groups);
                let inner = m.labels.axes.len() - 1;
                self.build(m, graph.operands(node)[0], inner)?
            }
            _ => return None,
        };
        if is_on_path {
            m.covered.push(node);
            if m.covered.len() > 2 * CHAIN_MAX {
                return None;
            }
        }
        self.memo.insert(node, value);
        Some(value)
    }

    /// An operand of a pointwise node: on the path it has all axes.
    fn build_broadcast(
        &mut self,
        m: &mut Matcher<'_>,
        operand: NodeId,
        user: NodeId,
        slot: usize,
    ) -> Option<u32> {
        let on_path = reaches(m.graph, operand, self.anchor);
        let (own, whole) = (m.graph.shape(operand), m.graph.shape(user));
        let is_whole = own.len() == whole.len()
            && own.iter().zip(whole).all(|(a, b)| m.graph.facts.equal(a, b).is_yes());
        if on_path && !is_whole {
            return None;
        }
        self.build(m, operand, slot)
    }

    /// A value from outside: an operand of the attend with its own labels.
    fn extra(&mut self, m: &mut Matcher<'_>, node: NodeId, slot: usize) -> Option<u32> {
        let shape = m.graph.shape(node);
        let groups: Vec<Group> = if shape.is_empty() {
            Vec::new()
        } else {
            shape
                .iter()
                .zip(&m.labels.axes[slot])
                .map(|(d, g)| if d.is(1) { Vec::new() } else { g.clone() })
                .collect()
        };
        let index = m.extras.len() as u32;
        m.labels.axes.push(groups);
        m.extras.push((node, m.labels.axes.len() - 1));
        Some(self.body.push(m.graph.dtype(node).accumulator(), InstKind::Slot(index + 1)))
    }
}

/// Scores and probabilities are kept in f32 (f64 for doubles).
fn score_dtype(dtype: DType) -> DType {
    dtype.accumulator()
}

/// Whether `to` is at or above `from` through pointwise ops and views.
fn reaches(graph: &Graph, from: NodeId, to: NodeId) -> bool {
    let mut stack = vec![from];
    let mut seen: Vec<NodeId> = Vec::new();
    while let Some(node) = stack.pop() {
        if node == to {
            return true;
        }
        if node < to || seen.contains(&node) {
            continue;
        }
        seen.push(node);
        let op = graph.op(node);
        if op.is_pointwise() || matches!(op, Op::View { .. }) {
            stack.extend(graph.operands(node));
        }
    }
    false
}
