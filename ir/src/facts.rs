//! What is known about symbols, and questions answered yes, no or unknown.
//!
//! Facts are bounds and divisibility per symbol plus *requires*: constraints
//! from import or from the user that binding checks and that the prover may
//! use. Unknown never lets a rewrite through.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::dim::{Atom, Dim, DimError, Symbol};

/// The three answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Truth {
    /// Holds for every binding that satisfies the facts.
    Yes,
    /// Holds for none.
    No,
    /// Not decided.
    Unknown,
}

impl Truth {
    /// True for [`Truth::Yes`] only.
    pub fn is_yes(self) -> bool {
        self == Truth::Yes
    }

    /// Yes and no exchanged.
    pub fn negate(self) -> Truth {
        match self {
            Truth::Yes => Truth::No,
            Truth::No => Truth::Yes,
            Truth::Unknown => Truth::Unknown,
        }
    }

    /// Both hold.
    pub fn and(self, other: Truth) -> Truth {
        match (self, other) {
            (Truth::No, _) | (_, Truth::No) => Truth::No,
            (Truth::Yes, Truth::Yes) => Truth::Yes,
            _ => Truth::Unknown,
        }
    }
}

/// Inclusive bounds and divisibility of a symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Smallest value.
    pub low: i64,
    /// Largest value, if there is one.
    pub high: Option<i64>,
    /// Every value is a multiple of this (1 says nothing).
    pub multiple_of: i64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { low: 1, high: None, multiple_of: 1 }
    }
}

/// The relation that a [`Require`] states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Relation {
    /// lhs = rhs.
    Equal,
    /// lhs ≠ rhs.
    NotEqual,
    /// lhs ≤ rhs.
    AtMost,
    /// rhs divides lhs.
    MultipleOf,
}

/// A constraint that every binding must satisfy, and who asks for it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Require {
    /// Left side.
    pub lhs: Dim,
    /// How the sides relate.
    pub relation: Relation,
    /// Right side.
    pub rhs: Dim,
    /// The ONNX node or user option that asks, for messages.
    pub origin: String,
}

impl Require {
    /// Whether given symbol values satisfy it.
    pub fn holds(&self, value: &dyn Fn(&Symbol) -> Option<i64>) -> Result<bool, DimError> {
        let (l, r) = (self.lhs.eval(value)?, self.rhs.eval(value)?);
        Ok(match self.relation {
            Relation::Equal => l == r,
            Relation::NotEqual => l != r,
            Relation::AtMost => l <= r,
            Relation::MultipleOf => r != 0 && l % r == 0,
        })
    }
}

impl fmt::Display for Require {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.relation {
            Relation::Equal => write!(f, "{} == {}", self.lhs, self.rhs),
            Relation::NotEqual => write!(f, "{} != {}", self.lhs, self.rhs),
            Relation::AtMost => write!(f, "{} <= {}", self.lhs, self.rhs),
            Relation::MultipleOf => write!(f, "{} % {} == 0", self.lhs, self.rhs),
        }
    }
}

/// An interval; `None` is unbounded.
type Interval = (Option<i64>, Option<i64>);

/// Bounds per symbol and constraints between them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    bounds: BTreeMap<Symbol, Bounds>,
    requires: Vec<Require>,
    /// Symbolic exclusive upper bounds, of index variables.
    #[serde(skip)]
    below: BTreeMap<Symbol, Dim>,
}

impl Facts {
    /// States bounds of a symbol; later statements narrow earlier ones.
    pub fn bound(&mut self, symbol: Symbol, bounds: Bounds) {
        let entry = self.bounds.entry(symbol).or_insert(bounds);
        entry.low = entry.low.max(bounds.low);
        entry.high = match (entry.high, bounds.high) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        if bounds.multiple_of > 1 && bounds.multiple_of % entry.multiple_of == 0 {
            entry.multiple_of = bounds.multiple_of;
        }
    }

    /// States `0 <= symbol < extent` for an index variable.
    pub fn bound_index(&mut self, symbol: Symbol, extent: &Dim) {
        let high = extent.as_const().map(|e| e - 1);
        self.bounds.insert(symbol.clone(), Bounds { low: 0, high, multiple_of: 1 });
        self.below.insert(symbol, extent.clone());
    }

    /// The least value of a dim over its index variables, where it is monotone
    /// in each.
    fn least_over_indices(&self, dim: &Dim) -> Dim {
        let mut current = dim.clone();
        for (symbol, extent) in self.below.iter().rev() {
            if !current.mentions(symbol) {
                continue;
            }
            let Some((slope, rest)) = current.linear_in(symbol) else { continue };
            match self.interval(&slope) {
                (Some(low), _) if low >= 0 => current = rest,
                (_, Some(high)) if high <= 0 => {
                    current = rest + slope * (extent.clone() - Dim::ONE)
                }
                _ => {}
            }
        }
        current
    }

    /// Adds a constraint once.
    pub fn require(&mut self, require: Require) {
        let known = |r: &Require| {
            r.lhs == require.lhs && r.rhs == require.rhs && r.relation == require.relation
        };
        if !self.requires.iter().any(known) {
            self.requires.push(require);
        }
    }

    /// Every constraint, in the order stated.
    pub fn requires(&self) -> &[Require] {
        &self.requires
    }

    /// Every symbol with stated bounds, by name.
    pub fn symbols(&self) -> impl Iterator<Item = (&Symbol, &Bounds)> {
        self.bounds.iter()
    }

    /// Bounds of a symbol; unstated symbols are unbounded.
    pub fn bounds_of(&self, symbol: &Symbol) -> Option<&Bounds> {
        self.bounds.get(symbol)
    }

    /// Rewrites a dim by the equality constraints (symbols that a constraint
    /// equates with an expression without them), so that provably equal dims
    /// often become the same normal form.
    pub fn canonical(&self, dim: &Dim) -> Dim {
        if dim.as_const().is_some() || self.requires.is_empty() {
            return dim.clone();
        }
        let mut current = dim.clone();
        for _ in 0..4 {
            let next = current.substitute(&|s| self.replacement(s));
            if next == current {
                break;
            }
            current = next;
        }
        current
    }

    fn replacement(&self, symbol: &Symbol) -> Option<Dim> {
        self.requires.iter().filter(|r| r.relation == Relation::Equal).find_map(|r| {
            let solve = |from: &Dim, to: &Dim| {
                (from.as_symbol() == Some(symbol) && !to.mentions(symbol)).then(|| to.clone())
            };
            match (r.lhs.as_symbol(), r.rhs.as_symbol()) {
                // Of two equated symbols the later name gives way.
                (Some(a), Some(b)) => (a.max(b) == symbol && a != b).then(|| Dim::from(a.min(b))),
                _ => solve(&r.lhs, &r.rhs).or_else(|| solve(&r.rhs, &r.lhs)),
            }
        })
    }

    /// Lower and upper bound of a dim by interval arithmetic.
    pub fn interval(&self, dim: &Dim) -> Interval {
        let p = match dim {
            Dim::Const(c) => return (Some(*c), Some(*c)),
            Dim::Expr(p) => p,
        };
        let mut sum = (Some(p.constant), Some(p.constant));
        for (monomial, coefficient) in &p.terms {
            let mut product = (Some(*coefficient), Some(*coefficient));
            for atom in monomial {
                product = multiply(product, self.atom_interval(atom));
            }
            sum = (add(sum.0, product.0), add(sum.1, product.1));
        }
        sum
    }

    fn atom_interval(&self, atom: &Atom) -> Interval {
        match atom {
            Atom::Symbol(s) => self.bounds.get(s).map_or((None, None), |b| (Some(b.low), b.high)),
            Atom::FloorDiv(a, b) => divide(self.interval(a), self.interval(b)),
            Atom::Mod(a, b) => match (self.interval(a), self.interval(b)) {
                ((Some(al), ah), (Some(bl), bh)) if bl > 0 => {
                    let high = bh.map(|x| x - 1);
                    let tighter = if al >= 0 { ah } else { None };
                    (Some(0), min_option(high, tighter).or(high))
                }
                _ => (None, None),
            },
            Atom::Min(a, b) => {
                let (x, y) = (self.interval(a), self.interval(b));
                (x.0.zip(y.0).map(|(p, q)| p.min(q)), min_option(x.1, y.1))
            }
            Atom::Max(a, b) => {
                let (x, y) = (self.interval(a), self.interval(b));
                let low = match (x.0, y.0) {
                    (Some(p), Some(q)) => Some(p.max(q)),
                    (p, q) => p.or(q),
                };
                (low, x.1.zip(y.1).map(|(p, q)| p.max(q)))
            }
        }
    }

    /// Whether two dims are equal.
    pub fn equal(&self, a: &Dim, b: &Dim) -> Truth {
        if a == b {
            return Truth::Yes;
        }
        let difference = self.canonical(&(a.clone() - b.clone()));
        if let Some(c) = difference.as_const() {
            return if c == 0 { Truth::Yes } else { Truth::No };
        }
        let stated = |relation| {
            self.requires.iter().any(|r| {
                r.relation == relation
                    && ((&r.lhs == a && &r.rhs == b) || (&r.lhs == b && &r.rhs == a))
            })
        };
        if stated(Relation::Equal) {
            return Truth::Yes;
        }
        match self.interval(&difference) {
            (Some(low), _) if low > 0 => Truth::No,
            (_, Some(high)) if high < 0 => Truth::No,
            _ if stated(Relation::NotEqual) => Truth::No,
            _ => Truth::Unknown,
        }
    }

    /// Whether `a <= b`.
    pub fn at_most(&self, a: &Dim, b: &Dim) -> Truth {
        let difference = self.canonical(&(b.clone() - a.clone()));
        match self.interval(&difference) {
            (Some(low), _) if low >= 0 => return Truth::Yes,
            (_, Some(high)) if high < 0 => return Truth::No,
            _ => {}
        }
        if !self.below.is_empty()
            && let (Some(low), _) =
                self.interval(&self.canonical(&self.least_over_indices(&difference)))
            && low >= 0
        {
            return Truth::Yes;
        }
        let stated = self.requires.iter().any(|r| {
            matches!(r.relation, Relation::AtMost | Relation::Equal) && &r.lhs == a && &r.rhs == b
        });
        if stated { Truth::Yes } else { Truth::Unknown }
    }

    /// Whether `a < b`.
    pub fn less(&self, a: &Dim, b: &Dim) -> Truth {
        self.at_most(&(a.clone() + Dim::ONE), b)
    }

    /// Whether `divisor` divides `dim`.
    pub fn divisible(&self, dim: &Dim, divisor: i64) -> Truth {
        if divisor == 1 {
            return Truth::Yes;
        }
        let p = self.canonical(dim).polynomial();
        let every_term = p.terms.iter().all(|(monomial, c)| {
            let known: i64 = monomial.iter().fold(*c, |known, atom| match atom {
                Atom::Symbol(s) => {
                    known.saturating_mul(self.bounds.get(s).map_or(1, |b| b.multiple_of))
                }
                _ => known,
            });
            known % divisor == 0
        });
        let stated = || {
            self.requires.iter().any(|r| {
                r.relation == Relation::MultipleOf
                    && r.lhs == *dim
                    && r.rhs.as_const().is_some_and(|c| c % divisor == 0)
            })
        };
        match (every_term, p.constant % divisor == 0) {
            (true, true) => Truth::Yes,
            (true, false) => Truth::No,
            _ if stated() => Truth::Yes,
            _ => Truth::Unknown,
        }
    }

    /// Simplifies an index expression: floor divisions of values below their
    /// divisor vanish, remainders of such values are the values themselves.
    pub fn simplify(&self, dim: &Dim) -> Dim {
        let Dim::Expr(p) = dim else { return dim.clone() };
        let mut sum = Dim::Const(p.constant);
        for (monomial, coefficient) in &p.terms {
            let mut product = Dim::Const(*coefficient);
            for atom in monomial {
                product = product * self.simplify_atom(atom);
            }
            sum = sum + product;
        }
        sum
    }

    fn simplify_atom(&self, atom: &Atom) -> Dim {
        match atom {
            Atom::Symbol(s) => Dim::from(s),
            Atom::FloorDiv(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                if self.is_below(&a, &b) { Dim::ZERO } else { a.floor_div(&b) }
            }
            Atom::Mod(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                if self.is_below(&a, &b) { a } else { a.modulo(&b) }
            }
            Atom::Min(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                match (self.at_most(&a, &b), self.at_most(&b, &a)) {
                    (Truth::Yes, _) => a,
                    (_, Truth::Yes) => b,
                    _ => a.minimum(&b),
                }
            }
            Atom::Max(a, b) => {
                let (a, b) = (self.simplify(a), self.simplify(b));
                match (self.at_most(&a, &b), self.at_most(&b, &a)) {
                    (Truth::Yes, _) => b,
                    (_, Truth::Yes) => a,
                    _ => a.maximum(&b),
                }
            }
        }
    }

    /// 0 ≤ a < b proved.
    fn is_below(&self, a: &Dim, b: &Dim) -> bool {
        self.at_most(&Dim::ZERO, a).is_yes() && self.less(a, b).is_yes()
    }
}

fn add(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    a?.checked_add(b?)
}

fn min_option(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    match (a, b) {
        (Some(x), Some(y)) => Some(x.min(y)),
        (x, y) => x.or(y),
    }
}

fn multiply(a: Interval, b: Interval) -> Interval {
    if a == (Some(0), Some(0)) || b == (Some(0), Some(0)) {
        return (Some(0), Some(0));
    }
    if let ((Some(al), Some(ah)), (Some(bl), Some(bh))) = (a, b) {
        let products =
            [al.checked_mul(bl), al.checked_mul(bh), ah.checked_mul(bl), ah.checked_mul(bh)];
        if products.iter().any(Option::is_none) {
            return (None, None);
        }
        return (
            products.iter().flatten().min().copied(),
            products.iter().flatten().max().copied(),
        );
    }
    let non_negative = |x: Interval| x.0.is_some_and(|l| l >= 0);
    let non_positive = |x: Interval| x.1.is_some_and(|h| h <= 0);
    let negate = |x: Interval| (x.1.and_then(i64::checked_neg), x.0.and_then(i64::checked_neg));
    if non_negative(a) && non_negative(b) {
        let low = a.0.zip(b.0).and_then(|(x, y)| x.checked_mul(y));
        return (low.or(Some(0)), a.1.zip(b.1).and_then(|(x, y)| x.checked_mul(y)));
    }
    if non_positive(a) && non_negative(b) {
        return negate(multiply(negate(a), b));
    }
    if non_negative(a) && non_positive(b) {
        return negate(multiply(a, negate(b)));
    }
    (None, None)
}

fn divide(a: Interval, b: Interval) -> Interval {
    let (Some(bl), bh) = b else { return (None, None) };
    if bl <= 0 {
        return (None, None);
    }
    let low =
        a.0.map(|x| if x >= 0 { bh.map_or(0, |h| x.div_euclid(h)) } else { x.div_euclid(bl) });
    let high =
        a.1.map(|x| if x >= 0 { x.div_euclid(bl) } else { bh.map_or(-1, |h| x.div_euclid(h)) });
    (low, high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Dim {
        text.parse().expect("test dim")
    }

    fn facts() -> Facts {
        let mut f = Facts::default();
        for name in ["B", "S", "T"] {
            f.bound(Symbol::new(name), Bounds::default());
        }
        f.bound(Symbol::new("i"), Bounds { low: 0, high: Some(63), multiple_of: 1 });
        f
    }

    #[test]
    fn equality_is_three_valued() {
        let mut f = facts();
        assert_eq!(f.equal(&d("B*S"), &d("S*B")), Truth::Yes);
        assert_eq!(f.equal(&d("S + 1"), &d("S")), Truth::No);
        assert_eq!(f.equal(&d("S + B"), &d("1")), Truth::No);
        assert_eq!(f.equal(&d("S"), &d("T")), Truth::Unknown);
        f.require(Require {
            lhs: d("S"),
            relation: Relation::Equal,
            rhs: d("T"),
            origin: "test".into(),
        });
        assert_eq!(f.equal(&d("2*S"), &d("2*T")), Truth::Yes);
    }

    #[test]
    fn index_expressions_simplify_by_bounds() {
        let f = facts();
        assert_eq!(f.simplify(&d("(64*S + i) // 64")), d("S"));
        assert_eq!(f.simplify(&d("(64*S + i) % 64")), d("i"));
        assert_eq!(f.simplify(&d("min(i, 100)")), d("i"));
        assert_eq!(f.simplify(&d("i // 32")), d("i // 32"));
    }

    #[test]
    fn index_variables_stay_below_symbolic_extents() {
        let mut f = facts();
        f.bound_index(Symbol::new("$0"), &d("S"));
        f.bound_index(Symbol::new("$1"), &d("T"));
        assert_eq!(f.simplify(&d("(T*$0 + $1) // T")), d("$0"));
        assert_eq!(f.simplify(&d("(T*$0 + $1) % (S*T)")), d("T*$0 + $1"));
    }

    #[test]
    fn divisibility_uses_bounds_and_requires() {
        let mut f = facts();
        assert_eq!(f.divisible(&d("8*S + 16"), 8), Truth::Yes);
        assert_eq!(f.divisible(&d("8*S + 3"), 8), Truth::No);
        assert_eq!(f.divisible(&d("S"), 8), Truth::Unknown);
        f.bound(Symbol::new("S"), Bounds { low: 1, high: None, multiple_of: 8 });
        assert_eq!(f.divisible(&d("S"), 8), Truth::Yes);
    }
}
