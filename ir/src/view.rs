//! Views: split → permute → slice/reverse/broadcast → merge, in normal form.
//!
//! A view splits every input axis into *atoms*, takes each atom (possibly a
//! strided part of it), or fixes it at one index, inserts broadcast atoms, and
//! merges atoms into output axes. Transposes, reshapes, slices, reversals,
//! expansions, squeezes and their compositions are one view each where they
//! can be; composition is arithmetic on atoms.
//!
//! Invariants (normal form): no atom has extent 1; atoms are numbered in input
//! order; atoms that stay together in order and whole are one atom.

use crate::dim::Dim;
use crate::facts::Facts;

/// A part of an output axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OutAtom {
    /// Indices `start + step·i`, i < extent, of an input atom.
    Take {
        /// Input atom.
        atom: u32,
        /// First index.
        start: Dim,
        /// Stride; negative reverses.
        step: i64,
        /// How many.
        extent: Dim,
    },
    /// A new part over which the value repeats.
    Broadcast(Dim),
}

impl OutAtom {
    /// Number of indices.
    pub fn extent(&self) -> &Dim {
        match self {
            OutAtom::Take { extent, .. } | OutAtom::Broadcast(extent) => extent,
        }
    }
}

/// A re-indexing of a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct View {
    /// Atom extents of each input axis, outermost first.
    pub input: Vec<Vec<Dim>>,
    /// Parts of each output axis, outermost first.
    pub output: Vec<Vec<OutAtom>>,
    /// Atoms that are not in the output, and the index at which they stay.
    pub fixed: Vec<(u32, Dim)>,
}

fn group(extent: &Dim) -> Vec<Dim> {
    if extent.is(1) { Vec::new() } else { vec![extent.clone()] }
}

fn whole(atom: u32, extent: &Dim) -> OutAtom {
    OutAtom::Take { atom, start: Dim::ZERO, step: 1, extent: extent.clone() }
}

impl View {
    /// The view that changes nothing.
    pub fn identity(shape: &[Dim]) -> View {
        let axes: Vec<usize> = (0..shape.len()).collect();
        View::permute(shape, &axes)
    }

    /// Output axis i is input axis `axes[i]`; axes left out must have extent 1.
    pub fn permute(shape: &[Dim], axes: &[usize]) -> View {
        let input: Vec<Vec<Dim>> = shape.iter().map(group).collect();
        let mut first = Vec::new();
        let mut count = 0u32;
        for atoms in &input {
            first.push(count);
            count += atoms.len() as u32;
        }
        let output = axes
            .iter()
            .map(|&a| {
                input[a].iter().enumerate().map(|(j, e)| whole(first[a] + j as u32, e)).collect()
            })
            .collect();
        View { input, output, fixed: Vec::new() }
    }

    /// Elements `start + step·i`, i < extent, along one axis.
    pub fn slice(shape: &[Dim], axis: usize, start: Dim, step: i64, extent: Dim) -> View {
        let mut view = View::identity(shape);
        if view.output[axis].is_empty() {
            if !extent.is(1) {
                // Zero of one, or a repeated single element.
                view.output[axis].push(OutAtom::Broadcast(extent));
            }
            return view;
        }
        if let OutAtom::Take { start: s, step: t, extent: e, .. } = &mut view.output[axis][0] {
            *s = start;
            *t = step;
            *e = extent;
        }
        view.normalised()
    }

    /// Broadcasts to `target`: ranks align at the last axis, input extents are
    /// 1 or equal to the target's. `None` when the rank shrinks.
    pub fn expand(shape: &[Dim], target: &[Dim]) -> Option<View> {
        let lead = target.len().checked_sub(shape.len())?;
        let mut view = View::identity(shape);
        let mut output: Vec<Vec<OutAtom>> = target[..lead]
            .iter()
            .map(|e| if e.is(1) { Vec::new() } else { vec![OutAtom::Broadcast(e.clone())] })
            .collect();
        for (axis, want) in target[lead..].iter().enumerate() {
            let parts = std::mem::take(&mut view.output[axis]);
            output.push(if parts.is_empty() && !want.is(1) {
                vec![OutAtom::Broadcast(want.clone())]
            } else {
                parts
            });
        }
        view.output = output;
        Some(view)
    }

    /// One or two views that reinterpret row-major elements under new extents;
    /// `None` when equality of the element counts cannot be seen.
    pub fn reshape(from: &[Dim], to: &[Dim], facts: &Facts) -> Option<Vec<View>> {
        if let Some(view) = View::regroup(from, to, facts) {
            return Some(vec![view]);
        }
        let total = Dim::product(from);
        if !facts.equal(&total, &Dim::product(to)).is_yes() {
            return None;
        }
        let flat = View::regroup(from, std::slice::from_ref(&total), facts)?;
        let split = View::regroup(std::slice::from_ref(&total), to, facts)?;
        Some(vec![flat, split])
    }

    /// A reshape as one view: splits and merges along common prefix products.
    fn regroup(from: &[Dim], to: &[Dim], facts: &Facts) -> Option<View> {
        let mut input: Vec<Vec<Dim>> = vec![Vec::new(); from.len()];
        let mut output: Vec<Vec<OutAtom>> = vec![Vec::new(); to.len()];
        let mut atoms = 0u32;
        let (mut i, mut j) = (0, 0);
        let (mut left, mut right) = (Dim::ONE, Dim::ONE);
        loop {
            while left.is(1) && i < from.len() {
                left = from[i].clone();
                i += 1;
            }
            while right.is(1) && j < to.len() {
                right = to[j].clone();
                j += 1;
            }
            match (left.is(1), right.is(1)) {
                (true, true) => break,
                (false, false) => {}
                _ => return None,
            }
            let (axis, target) = (i - 1, j - 1);
            let part = if facts.equal(&left, &right).is_yes() {
                let part = left;
                left = Dim::ONE;
                right = Dim::ONE;
                part
            } else if let Some(rest) = quotient(&left, &right, facts) {
                left = rest;
                std::mem::replace(&mut right, Dim::ONE)
            } else if let Some(rest) = quotient(&right, &left, facts) {
                right = rest;
                std::mem::replace(&mut left, Dim::ONE)
            } else {
                return None;
            };
            output[target].push(whole(atoms, &part));
            input[axis].push(part);
            atoms += 1;
        }
        Some(View { input, output, fixed: Vec::new() }.normalised())
    }

    /// Input extents.
    pub fn input_shape(&self) -> Vec<Dim> {
        self.input.iter().map(Dim::product).collect()
    }

    /// Output extents.
    pub fn output_shape(&self) -> Vec<Dim> {
        self.output.iter().map(|parts| Dim::product(parts.iter().map(OutAtom::extent))).collect()
    }

    /// True when nothing changes.
    pub fn is_identity(&self) -> bool {
        self.fixed.is_empty() && *self == View::identity(&self.input_shape())
    }

    /// True when every element occurs exactly once in the output.
    pub fn is_bijective(&self) -> bool {
        let extents: Vec<&Dim> = self.input.iter().flatten().collect();
        self.fixed.is_empty()
            && self.output.iter().flatten().all(|part| match part {
                OutAtom::Broadcast(_) => false,
                OutAtom::Take { atom, start, step, extent } => {
                    start.is(0) && *step == 1 && extent == extents[*atom as usize]
                }
            })
    }

    /// True when every output element is a different input element: no broadcast.
    pub fn has_broadcast(&self) -> bool {
        self.output.iter().flatten().any(|part| matches!(part, OutAtom::Broadcast(_)))
    }

    /// The view that undoes a bijective one.
    pub fn inverse(&self) -> Option<View> {
        if !self.is_bijective() {
            return None;
        }
        let order: Vec<(u32, Dim)> = self
            .output
            .iter()
            .flatten()
            .filter_map(|part| match part {
                OutAtom::Take { atom, extent, .. } => Some((*atom, extent.clone())),
                OutAtom::Broadcast(_) => None,
            })
            .collect();
        let input = self
            .output
            .iter()
            .map(|parts| parts.iter().map(|p| p.extent().clone()).collect())
            .collect();
        let mut next = 0u32;
        let output = self
            .input
            .iter()
            .map(|extents| {
                extents
                    .iter()
                    .map(|e| {
                        let at = order.iter().position(|(a, _)| *a == next).unwrap_or(0);
                        next += 1;
                        whole(at as u32, e)
                    })
                    .collect()
            })
            .collect();
        Some(View { input, output, fixed: Vec::new() }.normalised())
    }

    /// `second` after `self` as one view, when atoms can be aligned.
    pub fn then(&self, second: &View, facts: &Facts) -> Option<View> {
        if self.output.len() != second.input.len() {
            return None;
        }
        let mut first = Atoms::of(self);
        let mut after = Atoms::of(second);
        let mut pairs: Vec<OutAtom> = Vec::new();
        for axis in 0..self.output.len() {
            let mut ours: std::collections::VecDeque<OutAtom> =
                self.output[axis].iter().cloned().collect();
            let base: u32 = second.input[..axis].iter().map(|g| g.len() as u32).sum();
            let mut theirs: std::collections::VecDeque<(u32, Dim)> = second.input[axis]
                .iter()
                .enumerate()
                .map(|(k, e)| (base + k as u32, e.clone()))
                .collect();
            loop {
                match (ours.pop_front(), theirs.pop_front()) {
                    (None, None) => break,
                    (Some(a), Some((b, extent))) => {
                        if facts.equal(a.extent(), &extent).is_yes() {
                            after.assign(b, pairs.len());
                            pairs.push(a);
                        } else if let Some(rest) = quotient(a.extent(), &extent, facts) {
                            let (outer, inner) = first.split(&a, &extent, &rest)?;
                            ours.push_front(inner);
                            after.assign(b, pairs.len());
                            pairs.push(outer);
                        } else if let Some(rest) = quotient(&extent, a.extent(), facts) {
                            let inner = after.split_input(b, a.extent(), &rest)?;
                            theirs.push_front((inner, rest));
                            after.assign(b, pairs.len());
                            pairs.push(a);
                        } else {
                            return None;
                        }
                    }
                    _ => return None,
                }
            }
        }
        first.join(after, &pairs)
    }

    /// Renumbers, drops unit atoms and merges what stays together.
    pub fn normalised(self) -> View {
        let mut atoms = Atoms::of(&self);
        atoms.drop_units();
        atoms.merge_neighbours();
        atoms.into_view()
    }

    /// Input index (one expression per input axis) of an output index.
    pub fn input_index(&self, index: &[Dim]) -> Vec<Dim> {
        let mut atom_index: Vec<Dim> = vec![Dim::ZERO; self.input.iter().map(Vec::len).sum()];
        for (atom, at) in &self.fixed {
            atom_index[*atom as usize] = at.clone();
        }
        for (parts, i) in self.output.iter().zip(index) {
            let mut inner = Dim::ONE;
            for (k, part) in parts.iter().enumerate().rev() {
                if let OutAtom::Take { atom, start, step, extent } = part {
                    let mut own = i.floor_div(&inner);
                    if k > 0 {
                        own = own.modulo(extent);
                    }
                    atom_index[*atom as usize] = start.clone() + own * Dim::Const(*step);
                }
                inner = inner * part.extent().clone();
            }
        }
        let mut at = 0;
        self.input
            .iter()
            .map(|extents| {
                let mut sum = Dim::ZERO;
                for extent in extents {
                    sum = sum * extent.clone() + atom_index[at].clone();
                    at += 1;
                }
                sum
            })
            .collect()
    }
}

/// `a / b` when b divides a and the quotient is no unit.
pub(crate) fn quotient(a: &Dim, b: &Dim, facts: &Facts) -> Option<Dim> {
    let q = a.exact_div(b).or_else(|| facts.canonical(a).exact_div(&facts.canonical(b)))?;
    (!b.is(0) && !q.is(0) && !b.is(1)).then_some(q)
}

/// A view in editable form: atoms have stable keys.
#[derive(Clone)]
struct Atoms {
    /// Key → extent.
    extents: Vec<Dim>,
    /// Keys per input axis.
    input: Vec<Vec<u32>>,
    output: Vec<Vec<OutAtom>>,
    fixed: Vec<(u32, Dim)>,
    /// For a second view in a composition: key → index of the paired part.
    pair: Vec<Option<usize>>,
}

impl Atoms {
    fn of(view: &View) -> Atoms {
        let extents: Vec<Dim> = view.input.iter().flatten().cloned().collect();
        let mut next = 0;
        let input = view
            .input
            .iter()
            .map(|g| {
                let keys = (next..next + g.len() as u32).collect();
                next += g.len() as u32;
                keys
            })
            .collect();
        let pair = vec![None; extents.len()];
        Atoms { extents, input, output: view.output.clone(), fixed: view.fixed.clone(), pair }
    }

    fn assign(&mut self, key: u32, pair: usize) {
        self.pair[key as usize] = Some(pair);
    }

    fn is_whole(&self, part: &OutAtom) -> bool {
        match part {
            OutAtom::Broadcast(_) => true,
            OutAtom::Take { atom, start, step, extent } => {
                start.is(0) && *step == 1 && extent == &self.extents[*atom as usize]
            }
        }
    }

    /// Splits an input atom in place into (`outer`, new inner key).
    fn split_atom(&mut self, key: u32, outer: &Dim, inner: &Dim) -> u32 {
        let new = self.extents.len() as u32;
        self.extents[key as usize] = outer.clone();
        self.extents.push(inner.clone());
        self.pair.push(None);
        for keys in &mut self.input {
            if let Some(at) = keys.iter().position(|k| *k == key) {
                keys.insert(at + 1, new);
            }
        }
        new
    }

    /// Splits an output part of a first view into outer and inner.
    fn split(&mut self, part: &OutAtom, outer: &Dim, inner: &Dim) -> Option<(OutAtom, OutAtom)> {
        match part {
            OutAtom::Broadcast(_) => {
                Some((OutAtom::Broadcast(outer.clone()), OutAtom::Broadcast(inner.clone())))
            }
            OutAtom::Take { atom, .. } => {
                if !self.is_whole(part) {
                    return None;
                }
                let new = self.split_atom(*atom, outer, inner);
                Some((whole(*atom, outer), whole(new, inner)))
            }
        }
    }

    /// Splits an input atom of a second view, and where it is taken.
    fn split_input(&mut self, key: u32, outer: &Dim, inner: &Dim) -> Option<u32> {
        let place = self.output.iter().enumerate().find_map(|(axis, parts)| {
            parts
                .iter()
                .position(|p| matches!(p, OutAtom::Take { atom, .. } if *atom == key))
                .map(|at| (axis, at))
        });
        let (axis, at) = place?;
        if !self.is_whole(&self.output[axis][at].clone()) {
            return None;
        }
        let new = self.split_atom(key, outer, inner);
        self.output[axis][at] = whole(key, outer);
        self.output[axis].insert(at + 1, whole(new, inner));
        Some(new)
    }

    /// Combines a first view (self) with a second whose atoms are paired.
    fn join(mut self, second: Atoms, pairs: &[OutAtom]) -> Option<View> {
        let of = |key: u32| second.pair[key as usize].map(|p| &pairs[p]);
        let mut output = Vec::new();
        for parts in &second.output {
            let mut group = Vec::new();
            for part in parts {
                group.push(match part {
                    OutAtom::Broadcast(e) => OutAtom::Broadcast(e.clone()),
                    OutAtom::Take { atom, start, step, extent } => match of(*atom)? {
                        OutAtom::Broadcast(_) => OutAtom::Broadcast(extent.clone()),
                        OutAtom::Take { atom: a, start: s, step: t, .. } => OutAtom::Take {
                            atom: *a,
                            start: s.clone() + start.clone() * Dim::Const(*t),
                            step: t * step,
                            extent: extent.clone(),
                        },
                    },
                });
            }
            output.push(group);
        }
        for (key, at) in &second.fixed {
            if let OutAtom::Take { atom, start, step, .. } = of(*key)? {
                self.fixed.push((*atom, start.clone() + at.clone() * Dim::Const(*step)));
            }
        }
        self.output = output;
        self.drop_units();
        self.merge_neighbours();
        Some(self.into_view())
    }

    fn drop_units(&mut self) {
        for parts in &mut self.output {
            parts.retain(|part| match part {
                OutAtom::Broadcast(e) => !e.is(1),
                OutAtom::Take { atom, start, extent, .. } => {
                    if extent.is(1) {
                        self.fixed.push((*atom, start.clone()));
                    }
                    !extent.is(1)
                }
            });
        }
        let extents = &self.extents;
        self.fixed.retain(|(key, _)| !extents[*key as usize].is(1));
        let mut units: Vec<u32> = Vec::new();
        for keys in &mut self.input {
            keys.retain(|k| {
                let unit = extents[*k as usize].is(1);
                if unit {
                    units.push(*k);
                }
                !unit
            });
        }
        // A unit atom that is taken several times is a broadcast.
        for part in self.output.iter_mut().flatten() {
            if let OutAtom::Take { atom, extent, .. } = part
                && units.contains(atom)
            {
                *part = OutAtom::Broadcast(extent.clone());
            }
        }
    }

    fn merge_neighbours(&mut self) {
        'again: loop {
            for axis in 0..self.output.len() {
                for at in 1..self.output[axis].len() {
                    let (a, b) = (self.output[axis][at - 1].clone(), self.output[axis][at].clone());
                    let merged = match (&a, &b) {
                        (OutAtom::Broadcast(x), OutAtom::Broadcast(y)) => {
                            Some(OutAtom::Broadcast(x.clone() * y.clone()))
                        }
                        (OutAtom::Take { atom: x, .. }, OutAtom::Take { atom: y, .. })
                            if self.is_whole(&a) && self.is_whole(&b) && self.follows(*x, *y) =>
                        {
                            Some(self.fuse(*x, *y))
                        }
                        _ => None,
                    };
                    if let Some(part) = merged {
                        self.output[axis][at - 1] = part;
                        self.output[axis].remove(at);
                        continue 'again;
                    }
                }
            }
            return;
        }
    }

    /// Atom y is the next inner neighbour of x in an input axis.
    fn follows(&self, x: u32, y: u32) -> bool {
        self.input.iter().any(|keys| keys.windows(2).any(|w| w == [x, y]))
    }

    fn fuse(&mut self, x: u32, y: u32) -> OutAtom {
        let extent = self.extents[x as usize].clone() * self.extents[y as usize].clone();
        self.extents[x as usize] = extent.clone();
        self.input.iter_mut().for_each(|keys| keys.retain(|k| *k != y));
        whole(x, &extent)
    }

    fn into_view(self) -> View {
        let order: Vec<u32> = self.input.iter().flatten().copied().collect();
        let number = |key: u32| order.iter().position(|k| *k == key).unwrap_or(0) as u32;
        let output = self
            .output
            .into_iter()
            .map(|parts| {
                parts
                    .into_iter()
                    .map(|part| match part {
                        OutAtom::Take { atom, start, step, extent } => {
                            OutAtom::Take { atom: number(atom), start, step, extent }
                        }
                        broadcast @ OutAtom::Broadcast(_) => broadcast,
                    })
                    .collect()
            })
            .collect();
        let mut fixed: Vec<(u32, Dim)> =
            self.fixed.into_iter().map(|(k, at)| (number(k), at)).collect();
        fixed.sort();
        let input = self
            .input
            .iter()
            .map(|keys| keys.iter().map(|k| self.extents[*k as usize].clone()).collect())
            .collect();
        View { input, output, fixed }
    }
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

    fn one(from: &[&str], to: &[&str]) -> View {
        let mut views = View::reshape(&dims(from), &dims(to), &facts()).expect("reshape");
        assert_eq!(views.len(), 1);
        views.remove(0)
    }

    #[test]
    fn head_split_and_merge_cancel() {
        let f = facts();
        let split = one(&["B", "S", "768"], &["B", "S", "12", "64"]);
        let swap = View::permute(&split.output_shape(), &[0, 2, 1, 3]);
        let view = split.then(&swap, &f).expect("composes");
        assert_eq!(view.output_shape(), dims(&["B", "12", "S", "64"]));
        let back = View::permute(&view.output_shape(), &[0, 2, 1, 3]);
        let merge = one(&["B", "S", "12", "64"], &["B", "S", "768"]);
        let all = view.then(&back, &f).and_then(|v| v.then(&merge, &f)).expect("composes");
        assert!(all.is_identity(), "{all:?}");
        assert_eq!(
            view.inverse().expect("bijective").then(&view, &f).map(|v| v.is_identity()),
            Some(true)
        );
    }

    #[test]
    fn unalignable_reshape_takes_two_views() {
        let views =
            View::reshape(&dims(&["6", "4"]), &dims(&["4", "6"]), &facts()).expect("equal counts");
        assert_eq!(views.len(), 2);
        assert!(View::reshape(&dims(&["6", "4"]), &dims(&["5", "5"]), &facts()).is_none());
    }

    #[test]
    fn slices_compose() {
        let f = facts();
        let shape = dims(&["B", "10"]);
        let a = View::slice(&shape, 1, Dim::Const(2), 2, Dim::Const(4));
        let b = View::slice(&a.output_shape(), 1, Dim::Const(3), -1, Dim::Const(4));
        let ab = a.then(&b, &f).expect("composes");
        assert_eq!(ab.input_index(&dims(&["$0", "$1"])), dims(&["$0", "8 - 2*$1"]));
        let pick = View::slice(&shape, 1, Dim::Const(7), 1, Dim::ONE);
        assert_eq!(pick.input_index(&dims(&["$0", "$1"])), dims(&["$0", "7"]));
    }

    #[test]
    fn index_map_of_a_merge() {
        let merge = one(&["B", "S", "12", "64"], &["B", "S", "768"]);
        let index = merge.input_index(&dims(&["$0", "$1", "$2"]));
        assert_eq!(index[2], "($2 // 64)".parse::<Dim>().expect("dim"));
        assert_eq!(index[3], "($2 % 64)".parse::<Dim>().expect("dim"));
    }

    #[test]
    fn expansion_raises_rank() {
        let v = View::expand(&dims(&["1", "64"]), &dims(&["B", "S", "64"])).expect("fits");
        assert_eq!(v.output_shape(), dims(&["B", "S", "64"]));
        assert_eq!(v.input_index(&dims(&["$0", "$1", "$2"])), dims(&["0", "$2"]));
    }
}
