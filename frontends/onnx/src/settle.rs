//! Turning an equality that is not proved into the facts that make it so.
//!
//! `min(S, 512) == S` means `S <= 512`; stated that way, the facts simplify every later extent, and a person can read
//! them. Knows dims only.

use tgc_ir::dim::{Atom, Dim};
use tgc_ir::facts::{Facts, Relation, Require};

/// Minima and maxima that one equality may need decided.
const DEPTH_MAX: usize = 6;

/// Facts under which `a == b`, without the equality itself; `None` when choosing sides of minima and maxima is not enough.
pub(crate) fn sides(a: &Dim, b: &Dim, facts: &Facts, origin: &str) -> Option<Vec<Require>> {
    let mut chosen = Vec::new();
    search(&(a.clone() - b.clone()), facts, origin, &mut chosen, DEPTH_MAX).then_some(chosen)
}

fn search(
    difference: &Dim,
    facts: &Facts,
    origin: &str,
    chosen: &mut Vec<Require>,
    depth: usize,
) -> bool {
    let difference = facts.simplify(&facts.canonical(difference));
    if let Some(value) = difference.as_const() {
        return value == 0;
    }
    if depth == 0 {
        return false;
    }
    let Some(atom) = extreme(&difference) else { return false };
    let (Atom::Min(x, y) | Atom::Max(x, y)) = &atom else { return false };
    let is_min = matches!(atom, Atom::Min(..));
    for (taken, other) in [(x, y), (y, x)] {
        let (low, high) = if is_min { (taken, other) } else { (other, taken) };
        let require = Require {
            lhs: low.clone(),
            relation: Relation::AtMost,
            rhs: high.clone(),
            origin: origin.to_owned(),
        };
        let mut with = facts.clone();
        with.require(require.clone());
        chosen.push(require);
        if search(&replace(&difference, &atom, taken), &with, origin, chosen, depth - 1) {
            return true;
        }
        chosen.pop();
    }
    false
}

/// An innermost minimum or maximum.
fn extreme(dim: &Dim) -> Option<Atom> {
    let Dim::Expr(p) = dim else { return None };
    p.terms.iter().flat_map(|(monomial, _)| monomial).find_map(|atom| match atom {
        Atom::Symbol(_) => None,
        Atom::FloorDiv(a, b) | Atom::Mod(a, b) => extreme(a).or_else(|| extreme(b)),
        Atom::Min(a, b) | Atom::Max(a, b) => {
            extreme(a).or_else(|| extreme(b)).or_else(|| Some(atom.clone()))
        }
    })
}

/// The dim with an atom replaced wherever it occurs.
fn replace(dim: &Dim, atom: &Atom, by: &Dim) -> Dim {
    let Dim::Expr(p) = dim else { return dim.clone() };
    let mut sum = Dim::Const(p.constant);
    for (monomial, coefficient) in &p.terms {
        let mut product = Dim::Const(*coefficient);
        for factor in monomial {
            product = product * replace_atom(factor, atom, by);
        }
        sum = sum + product;
    }
    sum
}

fn replace_atom(factor: &Atom, atom: &Atom, by: &Dim) -> Dim {
    if factor == atom {
        return by.clone();
    }
    let inner = |d: &Dim| replace(d, atom, by);
    match factor {
        Atom::Symbol(s) => Dim::from(s),
        Atom::FloorDiv(a, b) => inner(a).floor_div(&inner(b)),
        Atom::Mod(a, b) => inner(a).modulo(&inner(b)),
        Atom::Min(a, b) => inner(a).minimum(&inner(b)),
        Atom::Max(a, b) => inner(a).maximum(&inner(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(a: &str, b: &str) -> Option<Vec<String>> {
        let sides = sides(&a.parse().unwrap(), &b.parse().unwrap(), &Facts::default(), "test")?;
        Some(sides.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_minimum_becomes_a_bound() {
        assert_eq!(settled("min(S, 512)", "S"), Some(vec!["S <= 512".to_owned()]));
        assert_eq!(settled("64 - max(0, 64 - S)", "S"), Some(vec!["0 <= -S + 64".to_owned()]));
        assert_eq!(settled("S", "T"), None);
    }

    #[test]
    fn nested_choices_are_found() {
        let sides = settled("max(0, T - min(2, T))", "T - 2").unwrap();
        assert!(sides.contains(&"2 <= T".to_owned()), "{sides:?}");
    }
}
