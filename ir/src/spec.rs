//! Structured attributes: labelled contractions, windows, attention.
//!
//! A *label* is a named part of an axis; an axis is a group of labels,
//! outermost first, and an axis of extent 1 may be the empty group. Labels are
//! numbered canonically (first appearance), so that transposes, splits and
//! merges of operands are other groups, not other nodes.

use serde::{Deserialize, Serialize};

use crate::dim::Dim;
use crate::dtype::DType;
use crate::facts::Facts;
use crate::kernel_program::{Body, Cell, PoolDivisor, ReduceOp, ScalarConst};
use crate::view::{OutAtom, View, quotient};

/// A label number.
pub type Label = u32;

/// The labels of one axis, outermost first.
pub type Group = Vec<Label>;

/// out = Σ over labels that are not in `out` of lhs · rhs.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ContractSpec {
    /// Extent of each label.
    pub extents: Vec<Dim>,
    /// Axes of the left operand.
    pub lhs: Vec<Group>,
    /// Axes of the right operand.
    pub rhs: Vec<Group>,
    /// Axes of the result.
    pub out: Vec<Group>,
    /// Element type of the result (sums are kept in its accumulator type).
    pub dtype: DType,
}

/// How a label takes part in a contraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// In both operands and the result.
    Batch,
    /// In lhs and the result.
    M,
    /// In rhs and the result.
    N,
    /// In both operands, summed.
    K,
    /// In one operand only, summed.
    LoneSum,
}

impl ContractSpec {
    /// Plain (batched) matrix product: lhs [batch…, m, k] · rhs [batch…, k, n].
    pub fn matmul(batch: &[Dim], m: Dim, k: Dim, n: Dim, dtype: DType) -> ContractSpec {
        let b: Vec<Group> = (0..batch.len() as u32).map(|l| vec![l]).collect();
        let (ml, kl, nl) = (b.len() as u32, b.len() as u32 + 1, b.len() as u32 + 2);
        let axes = |x: Label, y: Label| b.iter().cloned().chain([vec![x], vec![y]]).collect();
        let extents = batch.iter().cloned().chain([m, k, n]).collect();
        ContractSpec { extents, lhs: axes(ml, kl), rhs: axes(kl, nl), out: axes(ml, nl), dtype }
            .canonical()
    }

    /// Which part a label plays.
    pub fn role(&self, label: Label) -> Role {
        let within = |axes: &[Group]| axes.iter().flatten().any(|l| *l == label);
        match (within(&self.lhs), within(&self.rhs), within(&self.out)) {
            (true, true, true) => Role::Batch,
            (true, false, true) => Role::M,
            (false, true, true) => Role::N,
            (true, true, false) => Role::K,
            _ => Role::LoneSum,
        }
    }

    /// Labels of a role, in order of first appearance in `axes`.
    pub fn labels_of(&self, role: Role, axes: &[Group]) -> Vec<Label> {
        axes.iter().flatten().copied().filter(|l| self.role(*l) == role).collect()
    }

    /// The same contraction with labels renumbered by first appearance in
    /// lhs, rhs, out; labels that always stay together become one, labels of
    /// extent 1 vanish.
    pub fn canonical(self) -> ContractSpec {
        let mut axes = vec![self.lhs, self.rhs, self.out];
        let extents = tidy_labels(self.extents, &mut axes);
        let mut parts = axes.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        ContractSpec { extents, lhs: next(), rhs: next(), out: next(), dtype: self.dtype }
    }

    /// Extents of the axes of an operand or of the result.
    pub fn shape(&self, axes: &[Group]) -> Vec<Dim> {
        group_shape(&self.extents, axes)
    }

    /// The contraction that reads the input of `view` where this one reads
    /// the view's output as operand `side` (0 = lhs, 1 = rhs). `None` when the
    /// view slices, fixes or broadcasts what labels cannot express.
    pub fn absorb_operand(&self, side: usize, view: &View, facts: &Facts) -> Option<ContractSpec> {
        let mut work = Relabel::new(
            self.extents.clone(),
            vec![self.lhs.clone(), self.rhs.clone(), self.out.clone()],
        );
        let new = work.through_view(side, view, facts)?;
        work.axes[side] = new;
        let spec = ContractSpec {
            extents: work.extents,
            lhs: work.axes[0].clone(),
            rhs: work.axes[1].clone(),
            out: work.axes[2].clone(),
            dtype: self.dtype,
        };
        // A label that only the other operand has and the result lacks would
        // sum that operand alone: the broadcast took part in the sum.
        let lone = (0..spec.extents.len() as u32).any(|l| {
            spec.role(l) == Role::LoneSum
                && [&spec.lhs, &spec.rhs, &spec.out]
                    .iter()
                    .any(|a| a.iter().flatten().any(|x| *x == l))
        });
        (!lone).then(|| spec.canonical())
    }

    /// The contraction whose result is `view` of this one's result.
    pub fn absorb_result(&self, view: &View, facts: &Facts) -> Option<ContractSpec> {
        if !view.is_bijective() {
            return None;
        }
        let mut work = Relabel::new(
            self.extents.clone(),
            vec![self.lhs.clone(), self.rhs.clone(), self.out.clone()],
        );
        let inverse = view.inverse()?;
        let new = work.through_view(2, &inverse, facts)?;
        Some(
            ContractSpec {
                extents: work.extents,
                lhs: work.axes[0].clone(),
                rhs: work.axes[1].clone(),
                out: new,
                dtype: self.dtype,
            }
            .canonical(),
        )
    }

    /// Exchanges the operands.
    pub fn swapped(&self) -> ContractSpec {
        ContractSpec { lhs: self.rhs.clone(), rhs: self.lhs.clone(), ..self.clone() }.canonical()
    }
}

/// Extents of grouped axes.
pub fn group_shape(extents: &[Dim], axes: &[Group]) -> Vec<Dim> {
    axes.iter().map(|g| Dim::product(g.iter().map(|l| &extents[*l as usize]))).collect()
}

/// Drops unit labels, merges labels that always stand together in order, and
/// renumbers by first appearance. Returns the new extents.
pub fn tidy_labels(mut extents: Vec<Dim>, axes: &mut [Vec<Group>]) -> Vec<Dim> {
    for group in axes.iter_mut().flatten() {
        group.retain(|l| !extents[*l as usize].is(1));
    }
    while let Some((a, b)) = mergeable(axes) {
        extents[a as usize] = extents[a as usize].clone() * extents[b as usize].clone();
        axes.iter_mut().flatten().for_each(|g| g.retain(|l| *l != b));
    }
    let mut order: Vec<Label> = Vec::new();
    for label in axes.iter().flatten().flatten() {
        if !order.contains(label) {
            order.push(*label);
        }
    }
    let number = |l: Label| order.iter().position(|x| *x == l).unwrap_or(0) as Label;
    axes.iter_mut().flatten().for_each(|g| g.iter_mut().for_each(|l| *l = number(*l)));
    order.iter().map(|l| extents[*l as usize].clone()).collect()
}

/// Two labels that are neighbours in this order wherever either occurs.
fn mergeable(axes: &[Vec<Group>]) -> Option<(Label, Label)> {
    let groups: Vec<&Group> = axes.iter().flatten().collect();
    groups.iter().flat_map(|g| g.windows(2)).map(|w| (w[0], w[1])).find(|(a, b)| {
        groups.iter().all(|g| {
            let a_at = g.iter().position(|l| l == a);
            let b_at = g.iter().position(|l| l == b);
            match (a_at, b_at) {
                (None, None) => true,
                (Some(i), Some(j)) => j == i + 1,
                _ => false,
            }
        })
    })
}

/// Label groups under refinement: splitting a label splits it everywhere.
pub struct Relabel {
    /// Extents of labels.
    pub extents: Vec<Dim>,
    /// Groups per operand.
    pub axes: Vec<Vec<Group>>,
}

impl Relabel {
    /// Starts from given groups.
    pub fn new(extents: Vec<Dim>, axes: Vec<Vec<Group>>) -> Relabel {
        Relabel { extents, axes }
    }

    /// Splits a label into itself (outer) and a new inner one, everywhere.
    pub fn split(&mut self, label: Label, outer: &Dim, inner: &Dim) -> Label {
        let new = self.extents.len() as Label;
        self.extents[label as usize] = outer.clone();
        self.extents.push(inner.clone());
        for group in self.axes.iter_mut().flatten() {
            if let Some(at) = group.iter().position(|l| *l == label) {
                group.insert(at + 1, new);
            }
        }
        new
    }

    /// Makes two label sequences equal by splitting where extents allow: every
    /// label of `a` then has a partner in `b`. Both are groups of slots
    /// (operand, axis). `None` when the extents do not align.
    pub fn align(&mut self, a: (usize, usize), b: (usize, usize), facts: &Facts) -> Option<()> {
        let mut at = 0;
        loop {
            let (x, y) =
                (self.axes[a.0][a.1].get(at).copied(), self.axes[b.0][b.1].get(at).copied());
            match (x, y) {
                (None, None) => return Some(()),
                (Some(x), Some(y)) => {
                    let (ex, ey) =
                        (self.extents[x as usize].clone(), self.extents[y as usize].clone());
                    if facts.equal(&ex, &ey).is_yes() {
                        at += 1;
                    } else if let Some(rest) = quotient(&ex, &ey, facts) {
                        self.split(x, &ey, &rest);
                    } else if let Some(rest) = quotient(&ey, &ex, facts) {
                        self.split(y, &ex, &rest);
                    } else {
                        return None;
                    }
                }
                _ => return None,
            }
        }
    }

    /// Replaces a label by another everywhere.
    pub fn rename(&mut self, from: Label, to: Label) {
        self.axes.iter_mut().flatten().flatten().filter(|l| **l == from).for_each(|l| *l = to);
    }

    /// Groups for the input axes of `view`, whose output axes are labelled as
    /// `axes[side]`. Labels over which the view broadcasts are left out of the
    /// new groups. `None` when an atom is sliced, fixed or not alignable.
    pub fn through_view(&mut self, side: usize, view: &View, facts: &Facts) -> Option<Vec<Group>> {
        if !view.fixed.is_empty() || view.output.len() != self.axes[side].len() {
            return None;
        }
        let atom_extents: Vec<Dim> = view.input.iter().flatten().cloned().collect();
        let mut of_atom: Vec<Group> = vec![Vec::new(); atom_extents.len()];
        for axis in 0..view.output.len() {
            let mut labels: std::collections::VecDeque<Label> =
                self.axes[side][axis].iter().copied().collect();
            for part in &view.output[axis] {
                let target = match part {
                    OutAtom::Broadcast(_) => None,
                    OutAtom::Take { atom, start, step: 1, extent }
                        if start.is(0) && *extent == atom_extents[*atom as usize] =>
                    {
                        Some(*atom)
                    }
                    OutAtom::Take { .. } => return None,
                };
                let mut rest = part.extent().clone();
                while !rest.is(1) {
                    let label = labels.pop_front()?;
                    let extent = self.extents[label as usize].clone();
                    if facts.equal(&rest, &extent).is_yes() {
                        rest = Dim::ONE;
                    } else if let Some(q) = quotient(&rest, &extent, facts) {
                        rest = q;
                    } else if let Some(q) = quotient(&extent, &rest, facts) {
                        let inner = self.split(label, &rest, &q);
                        labels.push_front(inner);
                        rest = Dim::ONE;
                    } else {
                        return None;
                    }
                    if let Some(atom) = target {
                        of_atom[atom as usize].push(label);
                    }
                }
            }
            if !labels.is_empty() {
                return None;
            }
        }
        // Splits after a label was noted: expand notes through the current axes
        // is not needed, because inner parts are noted when they are popped.
        let mut next = 0;
        Some(
            view.input
                .iter()
                .map(|atoms| {
                    let group = of_atom[next..next + atoms.len()].concat();
                    next += atoms.len();
                    group
                })
                .collect(),
        )
    }
}

/// A convolution (operands x [n, c, spatial…], w): see
/// [`crate::kernel_program::Conv`] for the meaning.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ConvSpec {
    /// Groups.
    pub groups: i64,
    /// Steps.
    pub stride: Vec<i64>,
    /// Steps between taps.
    pub dilation: Vec<i64>,
    /// Cells before.
    pub pad_low: Vec<Dim>,
    /// Cells after; for transposed ones, cut from the end.
    pub pad_high: Vec<Dim>,
    /// Gradient form.
    pub transposed: bool,
    /// Extra cells at the end of a transposed result.
    pub output_pad: Vec<i64>,
}

/// A pooling (operand x [n, c, spatial…]).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PoolSpec {
    /// Sum or Max.
    pub op: ReduceOp,
    /// What divides a sum.
    pub divisor: PoolDivisor,
    /// Window.
    pub kernel: Vec<i64>,
    /// Steps.
    pub stride: Vec<i64>,
    /// Steps between cells.
    pub dilation: Vec<i64>,
    /// Cells before.
    pub pad_low: Vec<Dim>,
    /// Cells after.
    pub pad_high: Vec<Dim>,
    /// Windows that start inside but end outside count too.
    pub ceil: bool,
}

/// Attention (operands q, k, v, extras…): see
/// [`crate::kernel_program::Attend`] for the meaning. `score` and `prob` are
/// bodies without loads: slot 0 is the score or probability, slot 1 + i the
/// element of extra i.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AttendSpec {
    /// Extent of each label.
    pub extents: Vec<Dim>,
    /// Axes of the operands.
    pub q: Vec<Group>,
    /// Axes of the keys.
    pub k: Vec<Group>,
    /// Axes of the values.
    pub v: Vec<Group>,
    /// Axes of the result.
    pub out: Vec<Group>,
    /// Axes of the further operands.
    pub extras: Vec<Vec<Group>>,
    /// Labels over which probabilities sum to one, outermost first.
    pub keys: Vec<Label>,
    /// From raw score to what softmax sees.
    pub score: Body,
    /// Result of `score`.
    pub score_value: u32,
    /// From probability to weight.
    pub prob: Body,
    /// Result of `prob`.
    pub prob_value: u32,
    /// Element type of the result.
    pub dtype: DType,
    /// Scores of keys later than query + offset are masked by the chain.
    pub causal: Option<Dim>,
}

/// A recurrent layer of one direction (operands x, r, then those that the
/// flags name in the order r_bias, h0, c0, peephole, lengths); results y, h, c.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RnnSpec {
    /// Which cell.
    pub cell: Cell,
    /// Backwards.
    pub reverse: bool,
    /// Has operand r_bias.
    pub r_bias: bool,
    /// Has operand peephole.
    pub peephole: bool,
    /// Has operand lengths.
    pub lengths: bool,
    /// Gate functions: bodies with slot 0.
    pub activations: Vec<(Body, u32)>,
    /// Couples input and forget gate.
    pub input_forget: bool,
    /// Clip of gate inputs.
    pub clip: Option<ScalarConst>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Symbol;
    use crate::facts::Bounds;

    fn dims(text: &[&str]) -> Vec<Dim> {
        text.iter().map(|t| t.parse().expect("dim")).collect()
    }

    fn facts() -> Facts {
        let mut f = Facts::default();
        for s in ["B", "S"] {
            f.bound(Symbol::new(s), Bounds::default());
        }
        f
    }

    #[test]
    fn head_split_and_transpose_become_labels() {
        let f = facts();
        // q: [B, S, 768] viewed as [B, 12, S, 64] times k [B, 12, S, 64] transposed.
        let split = View::reshape(&dims(&["B", "S", "768"]), &dims(&["B", "S", "12", "64"]), &f)
            .expect("split")
            .remove(0);
        let heads =
            split.then(&View::permute(&split.output_shape(), &[0, 2, 1, 3]), &f).expect("composes");
        let spec = ContractSpec::matmul(
            &dims(&["B", "12"]),
            "S".parse().expect("dim"),
            Dim::Const(64),
            "S".parse().expect("dim"),
            DType::F32,
        );
        let q = spec.absorb_operand(0, &heads, &f).expect("absorbs");
        assert_eq!(q.shape(&q.lhs), dims(&["B", "S", "768"]));
        assert_eq!(q.to_string(), "a:B b:S (c:12 d:64), a c d e:S -> a c b e : f32");
        let swap = View::permute(&dims(&["B", "12", "S", "64"]), &[0, 1, 3, 2]);
        let qk = q.absorb_operand(1, &swap, &f).expect("absorbs");
        assert_eq!(qk.to_string(), "a:B b:S (c:12 d:64), a c e:S d -> a c b e : f32");
    }

    #[test]
    fn result_views_become_labels() {
        let f = facts();
        let spec = ContractSpec::matmul(
            &[],
            "S".parse().expect("dim"),
            Dim::Const(768),
            Dim::Const(768),
            DType::F32,
        );
        let split = View::reshape(&dims(&["S", "768"]), &dims(&["S", "12", "64"]), &f)
            .expect("split")
            .remove(0);
        let view =
            split.then(&View::permute(&split.output_shape(), &[1, 0, 2]), &f).expect("composes");
        let out = spec.absorb_result(&view, &f).expect("absorbs");
        assert_eq!(out.to_string(), "a:S b:768, b (c:12 d:64) -> c a d : f32");
    }

    #[test]
    fn broadcast_operand_drops_its_batch_label() {
        let f = facts();
        let view = View::expand(&dims(&["768", "64"]), &dims(&["B", "768", "64"])).expect("fits");
        let spec = ContractSpec::matmul(
            &dims(&["B"]),
            "S".parse().expect("dim"),
            Dim::Const(768),
            Dim::Const(64),
            DType::F32,
        );
        let out = spec.absorb_operand(1, &view, &f).expect("absorbs");
        assert_eq!(out.to_string(), "a:B b:S c:768, c d:64 -> a b d : f32");
    }
}
