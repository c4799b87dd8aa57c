//! Symbolic integer dims: normalised expressions over named symbols.
//!
//! A [`Dim`] is either a constant or a polynomial with integer coefficients
//! over *atoms* (symbols, floor divisions, remainders, minima, maxima). Equal
//! normal forms compare equal; unequal ones may still denote the same number,
//! which only [`crate::facts::Facts`] can decide. The same type is used for
//! index expressions inside kernels, where axis variables are symbols.
//!
//! Invariants: terms are sorted and have non-zero coefficients; a constant is
//! always `Dim::Const`; no atom has only constant parts.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

/// A named unknown. Names are the identity: two symbols with one name are one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Symbol(Arc<str>);

impl Symbol {
    /// The symbol of this name.
    pub fn new(name: impl AsRef<str>) -> Self {
        Symbol(Arc::from(name.as_ref()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a polynomial is built from besides numbers.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Atom {
    /// A named unknown.
    Symbol(Symbol),
    /// Division rounding to minus infinity.
    FloorDiv(Dim, Dim),
    /// Remainder with the sign of the divisor: `a - b * floor(a / b)`.
    Mod(Dim, Dim),
    /// The smaller one; operands ordered.
    Min(Dim, Dim),
    /// The larger one; operands ordered.
    Max(Dim, Dim),
}

/// A product of atoms, sorted; powers are repeated factors.
pub type Monomial = SmallVec<[Atom; 2]>;

/// A sum of monomials with integer coefficients plus a constant.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Polynomial {
    /// Sorted by monomial, coefficients never zero, monomials never empty.
    pub terms: Vec<(Monomial, i64)>,
    /// The term without atoms.
    pub constant: i64,
}

/// An integer expression over symbols.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dim {
    /// A known number.
    Const(i64),
    /// Anything else, in normal form.
    Expr(Arc<Polynomial>),
}

/// Why a dim has no value under given symbols.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// A symbol was not bound.
    #[error("symbol `{0}` has no value")]
    Unbound(Symbol),
    /// Division or remainder by zero.
    #[error("`{0}` divides by zero")]
    DivisionByZero(String),
    /// The value does not fit 64 bits.
    #[error("`{0}` overflows 64 bits")]
    Overflow(String),
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim::Const(value)
    }
}

impl From<&Symbol> for Dim {
    fn from(symbol: &Symbol) -> Self {
        Dim::atom(Atom::Symbol(symbol.clone()))
    }
}

impl Dim {
    /// Zero.
    pub const ZERO: Dim = Dim::Const(0);
    /// One.
    pub const ONE: Dim = Dim::Const(1);

    /// The dim of a named symbol.
    pub fn symbol(name: impl AsRef<str>) -> Dim {
        Dim::from(&Symbol::new(name))
    }

    fn atom(atom: Atom) -> Dim {
        let mut monomial = Monomial::new();
        monomial.push(atom);
        Dim::Expr(Arc::new(Polynomial { terms: vec![(monomial, 1)], constant: 0 }))
    }

    fn from_polynomial(p: Polynomial) -> Dim {
        if p.terms.is_empty() { Dim::Const(p.constant) } else { Dim::Expr(Arc::new(p)) }
    }

    /// The number, when it is one.
    pub fn as_const(&self) -> Option<i64> {
        match self {
            Dim::Const(c) => Some(*c),
            Dim::Expr(_) => None,
        }
    }

    /// The symbol, when the dim is just that.
    pub fn as_symbol(&self) -> Option<&Symbol> {
        let Dim::Expr(p) = self else { return None };
        match (p.terms.as_slice(), p.constant) {
            ([(monomial, 1)], 0) => match monomial.as_slice() {
                [Atom::Symbol(s)] => Some(s),
                _ => None,
            },
            _ => None,
        }
    }

    /// True when the dim is this number.
    pub fn is(&self, value: i64) -> bool {
        self.as_const() == Some(value)
    }

    /// Terms and constant of any dim.
    pub fn polynomial(&self) -> Polynomial {
        match self {
            Dim::Const(c) => Polynomial { terms: Vec::new(), constant: *c },
            Dim::Expr(p) => (**p).clone(),
        }
    }

    /// Floor division; simplified when the quotient is a polynomial.
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if divisor.is(1) {
            return self.clone();
        }
        if let (Some(a), Some(b)) = (self.as_const(), divisor.as_const())
            && b != 0
        {
            return Dim::Const(floor_div(a, b));
        }
        if let Some(q) = self.exact_div(divisor) {
            return q;
        }
        let (quotient, rest) = self.split_multiples(divisor);
        if !quotient.is(0) {
            return quotient + rest.floor_div(divisor);
        }
        // ((x // a) + c) // b = (x + c*a) // (a*b) for positive a, b.
        if let Some((inner, by, constant)) = self.as_floor_div()
            && let (Some(a), Some(b)) = (by.as_const(), divisor.as_const())
            && a > 0
            && b > 0
            && let (Some(product), Some(shift)) = (a.checked_mul(b), constant.checked_mul(a))
        {
            return (inner.clone() + Dim::Const(shift)).floor_div(&Dim::Const(product));
        }
        Dim::atom(Atom::FloorDiv(self.clone(), divisor.clone()))
    }

    /// (x, a, c) when self is (x // a) + c.
    fn as_floor_div(&self) -> Option<(&Dim, &Dim, i64)> {
        let Dim::Expr(p) = self else { return None };
        match p.terms.as_slice() {
            [(monomial, 1)] => match monomial.as_slice() {
                [Atom::FloorDiv(a, b)] => Some((a, b, p.constant)),
                _ => None,
            },
            _ => None,
        }
    }

    /// Division rounding up, for divisors that are positive.
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        (self.clone() + divisor.clone() - Dim::ONE).floor_div(divisor)
    }

    /// Remainder with the sign of the divisor.
    pub fn modulo(&self, divisor: &Dim) -> Dim {
        if divisor.is(1) {
            return Dim::ZERO;
        }
        if let (Some(a), Some(b)) = (self.as_const(), divisor.as_const())
            && b != 0
        {
            return Dim::Const(a - b * floor_div(a, b));
        }
        if self.exact_div(divisor).is_some() {
            return Dim::ZERO;
        }
        let (quotient, rest) = self.split_multiples(divisor);
        if !quotient.is(0) {
            return rest.modulo(divisor);
        }
        Dim::atom(Atom::Mod(self.clone(), divisor.clone()))
    }

    /// The smaller of two.
    pub fn minimum(&self, other: &Dim) -> Dim {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => Dim::Const(a.min(b)),
            _ if self == other => self.clone(),
            _ if self <= other => Dim::atom(Atom::Min(self.clone(), other.clone())),
            _ => Dim::atom(Atom::Min(other.clone(), self.clone())),
        }
    }

    /// The larger of two.
    pub fn maximum(&self, other: &Dim) -> Dim {
        match (self.as_const(), other.as_const()) {
            (Some(a), Some(b)) => Dim::Const(a.max(b)),
            _ if self == other => self.clone(),
            _ if self <= other => Dim::atom(Atom::Max(self.clone(), other.clone())),
            _ => Dim::atom(Atom::Max(other.clone(), self.clone())),
        }
    }

    /// The polynomial quotient when every term divides (a monomial or constant
    /// divisor, or an equal polynomial), `None` otherwise or for divisor zero.
    pub fn exact_div(&self, divisor: &Dim) -> Option<Dim> {
        if divisor.is(0) {
            return None;
        }
        if self.is(0) {
            return Some(Dim::ZERO);
        }
        if self == divisor {
            return Some(Dim::ONE);
        }
        let d = divisor.polynomial();
        if let Some((by, coefficient)) = single_term(&d) {
            let p = self.polynomial();
            if p.constant != 0 && (!by.is_empty() || p.constant % coefficient != 0) {
                return None;
            }
            let mut out = Polynomial { terms: Vec::new(), constant: 0 };
            if by.is_empty() {
                out.constant = p.constant / coefficient;
            }
            for (monomial, c) in &p.terms {
                let rest = remove_factors(monomial, &by)?;
                if c % coefficient != 0 {
                    return None;
                }
                add_term(&mut out, rest, c / coefficient);
            }
            return Some(Dim::from_polynomial(out));
        }
        self.long_division(&d)
    }

    /// Division by a sum of terms through its leading term.
    fn long_division(&self, divisor: &Polynomial) -> Option<Dim> {
        let (lead, coefficient) = divisor.terms.last()?;
        let mut rest = self.clone();
        let mut quotient = Dim::ZERO;
        for _ in 0..8 {
            if rest.is(0) {
                return Some(quotient);
            }
            let p = rest.polynomial();
            let (monomial, c) = p
                .terms
                .iter()
                .rev()
                .find(|(m, c)| remove_factors(m, lead).is_some() && c % coefficient == 0)?;
            let mut part = Polynomial { terms: Vec::new(), constant: 0 };
            add_term(&mut part, remove_factors(monomial, lead)?, c / coefficient);
            let part = Dim::from_polynomial(part);
            rest = rest - part.clone() * Dim::from_polynomial(divisor.clone());
            quotient = quotient + part;
        }
        None
    }

    /// Splits into (q, r) with self = q * divisor + r, q holding every term
    /// that is a multiple of a constant or single-term divisor.
    fn split_multiples(&self, divisor: &Dim) -> (Dim, Dim) {
        let d = divisor.polynomial();
        let Some((by, coefficient)) = single_term(&d) else { return (Dim::ZERO, self.clone()) };
        let p = self.polynomial();
        let (mut q, mut r) = (
            Polynomial { terms: Vec::new(), constant: 0 },
            Polynomial { terms: Vec::new(), constant: 0 },
        );
        if by.is_empty() && coefficient > 0 {
            q.constant = floor_div(p.constant, coefficient);
            r.constant = p.constant - q.constant * coefficient;
        } else {
            r.constant = p.constant;
        }
        for (monomial, c) in &p.terms {
            match remove_factors(monomial, &by) {
                Some(rest) if c % coefficient == 0 => add_term(&mut q, rest, c / coefficient),
                _ => add_term(&mut r, monomial.clone(), *c),
            }
        }
        (Dim::from_polynomial(q), Dim::from_polynomial(r))
    }

    /// Its value when every symbol has one.
    pub fn eval(&self, value: &dyn Fn(&Symbol) -> Option<i64>) -> Result<i64, DimError> {
        let Dim::Expr(p) = self else { return Ok(self.as_const().unwrap_or(0)) };
        let overflow = || DimError::Overflow(self.to_string());
        let mut sum = p.constant;
        for (monomial, coefficient) in &p.terms {
            let mut product = *coefficient;
            for atom in monomial {
                product = product.checked_mul(atom.eval(value)?).ok_or_else(overflow)?;
            }
            sum = sum.checked_add(product).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// Replaces symbols by dims (`None` keeps one) and normalises again.
    pub fn substitute(&self, replace: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        let Dim::Expr(p) = self else { return self.clone() };
        let mut sum = Dim::Const(p.constant);
        for (monomial, coefficient) in &p.terms {
            let mut product = Dim::Const(*coefficient);
            for atom in monomial {
                product = product * atom.substitute(replace);
            }
            sum = sum + product;
        }
        sum
    }

    /// Adds every symbol that occurs to `out`.
    pub fn collect_symbols(&self, out: &mut BTreeSet<Symbol>) {
        let Dim::Expr(p) = self else { return };
        for (monomial, _) in &p.terms {
            for atom in monomial {
                match atom {
                    Atom::Symbol(s) => {
                        out.insert(s.clone());
                    }
                    Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                        a.collect_symbols(out);
                        b.collect_symbols(out);
                    }
                }
            }
        }
    }

    /// Every symbol that occurs.
    pub fn symbols(&self) -> BTreeSet<Symbol> {
        let mut out = BTreeSet::new();
        self.collect_symbols(&mut out);
        out
    }

    /// True when the symbol occurs anywhere.
    pub fn mentions(&self, symbol: &Symbol) -> bool {
        let Dim::Expr(p) = self else { return false };
        p.terms.iter().flat_map(|(m, _)| m).any(|atom| match atom {
            Atom::Symbol(s) => s == symbol,
            Atom::FloorDiv(a, b) | Atom::Mod(a, b) | Atom::Min(a, b) | Atom::Max(a, b) => {
                a.mentions(symbol) || b.mentions(symbol)
            }
        })
    }

    /// Splits into (coefficient, rest) with self = coefficient * symbol + rest,
    /// neither mentioning the symbol; `None` when it is not linear in it.
    pub fn linear_in(&self, symbol: &Symbol) -> Option<(Dim, Dim)> {
        let Dim::Expr(p) = self else { return Some((Dim::ZERO, self.clone())) };
        let mut coefficient = Polynomial { terms: Vec::new(), constant: 0 };
        let mut rest = Polynomial { terms: Vec::new(), constant: p.constant };
        for (monomial, c) in &p.terms {
            let at = monomial.iter().position(|a| matches!(a, Atom::Symbol(s) if s == symbol));
            let mut factors = monomial.clone();
            if let Some(at) = at {
                factors.remove(at);
            }
            let nonlinear = factors.iter().any(|a| Dim::atom(a.clone()).mentions(symbol));
            if nonlinear {
                return None;
            }
            match (at, factors.is_empty()) {
                (Some(_), true) => coefficient.constant += c,
                (Some(_), false) => add_term(&mut coefficient, factors, *c),
                (None, _) => add_term(&mut rest, factors, *c),
            }
        }
        Some((Dim::from_polynomial(coefficient), Dim::from_polynomial(rest)))
    }

    /// Product of dims; one for none.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::ONE, |a, b| a * b.clone())
    }

    /// Sum of dims; zero for none.
    pub fn sum<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
        dims.into_iter().fold(Dim::ZERO, |a, b| a + b.clone())
    }
}

impl Atom {
    fn eval(&self, value: &dyn Fn(&Symbol) -> Option<i64>) -> Result<i64, DimError> {
        let by_zero = || DimError::DivisionByZero(Dim::atom(self.clone()).to_string());
        Ok(match self {
            Atom::Symbol(s) => value(s).ok_or_else(|| DimError::Unbound(s.clone()))?,
            Atom::FloorDiv(a, b) => {
                let (a, b) = (a.eval(value)?, b.eval(value)?);
                if b == 0 {
                    return Err(by_zero());
                }
                floor_div(a, b)
            }
            Atom::Mod(a, b) => {
                let (a, b) = (a.eval(value)?, b.eval(value)?);
                if b == 0 {
                    return Err(by_zero());
                }
                a.wrapping_sub(b.wrapping_mul(floor_div(a, b)))
            }
            Atom::Min(a, b) => a.eval(value)?.min(b.eval(value)?),
            Atom::Max(a, b) => a.eval(value)?.max(b.eval(value)?),
        })
    }

    fn substitute(&self, replace: &dyn Fn(&Symbol) -> Option<Dim>) -> Dim {
        match self {
            Atom::Symbol(s) => replace(s).unwrap_or_else(|| Dim::from(s)),
            Atom::FloorDiv(a, b) => a.substitute(replace).floor_div(&b.substitute(replace)),
            Atom::Mod(a, b) => a.substitute(replace).modulo(&b.substitute(replace)),
            Atom::Min(a, b) => a.substitute(replace).minimum(&b.substitute(replace)),
            Atom::Max(a, b) => a.substitute(replace).maximum(&b.substitute(replace)),
        }
    }
}

fn floor_div(a: i64, b: i64) -> i64 {
    let q = a.wrapping_div(b);
    if a.wrapping_rem(b) != 0 && ((a < 0) != (b < 0)) { q - 1 } else { q }
}

/// The single term of a polynomial as (factors, coefficient).
fn single_term(p: &Polynomial) -> Option<(Monomial, i64)> {
    match (p.terms.as_slice(), p.constant) {
        ([], c) if c != 0 => Some((Monomial::new(), c)),
        ([(m, c)], 0) => Some((m.clone(), *c)),
        _ => None,
    }
}

/// `monomial` without the factors `by`, when all of them occur.
fn remove_factors(monomial: &Monomial, by: &Monomial) -> Option<Monomial> {
    let mut rest = monomial.clone();
    for factor in by {
        let at = rest.iter().position(|a| a == factor)?;
        rest.remove(at);
    }
    Some(rest)
}

fn add_term(p: &mut Polynomial, monomial: Monomial, coefficient: i64) {
    if coefficient == 0 {
        return;
    }
    if monomial.is_empty() {
        p.constant = p.constant.wrapping_add(coefficient);
        return;
    }
    match p.terms.binary_search_by(|(m, _)| m.cmp(&monomial)) {
        Ok(at) => {
            p.terms[at].1 = p.terms[at].1.wrapping_add(coefficient);
            if p.terms[at].1 == 0 {
                p.terms.remove(at);
            }
        }
        Err(at) => p.terms.insert(at, (monomial, coefficient)),
    }
}

impl std::ops::Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        match (&self, &other) {
            (Dim::Const(a), Dim::Const(b)) => Dim::Const(a.saturating_add(*b)),
            (_, Dim::Const(0)) => self,
            (Dim::Const(0), _) => other,
            _ => {
                let mut p = self.polynomial();
                let q = other.polynomial();
                p.constant = p.constant.saturating_add(q.constant);
                for (monomial, c) in q.terms {
                    add_term(&mut p, monomial, c);
                }
                Dim::from_polynomial(p)
            }
        }
    }
}

impl std::ops::Neg for Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        self * Dim::Const(-1)
    }
}

impl std::ops::Sub for Dim {
    type Output = Dim;
    #[allow(clippy::suspicious_arithmetic_impl, reason = "a - b is a + (-1 * b) in normal form")]
    fn sub(self, other: Dim) -> Dim {
        self + other * Dim::Const(-1)
    }
}

impl std::ops::Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        match (&self, &other) {
            (Dim::Const(a), Dim::Const(b)) => Dim::Const(a.saturating_mul(*b)),
            (_, Dim::Const(1)) => self,
            (Dim::Const(1), _) => other,
            (_, Dim::Const(0)) | (Dim::Const(0), _) => Dim::ZERO,
            _ => multiply(&self.polynomial(), &other.polynomial()),
        }
    }
}

fn multiply(p: &Polynomial, q: &Polynomial) -> Dim {
    let mut out = Polynomial { terms: Vec::new(), constant: p.constant.saturating_mul(q.constant) };
    for (m, c) in &p.terms {
        add_term(&mut out, m.clone(), c.saturating_mul(q.constant));
    }
    for (m, c) in &q.terms {
        add_term(&mut out, m.clone(), c.saturating_mul(p.constant));
    }
    for (m, c) in &p.terms {
        for (n, d) in &q.terms {
            let mut factors = m.clone();
            factors.extend(n.iter().cloned());
            factors.sort();
            add_term(&mut out, factors, c.saturating_mul(*d));
        }
    }
    Dim::from_polynomial(out)
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(s) => write!(f, "{}", quoted(s.name())),
            Atom::FloorDiv(a, b) => write!(f, "({} // {})", Factor(a), Factor(b)),
            Atom::Mod(a, b) => write!(f, "({} % {})", Factor(a), Factor(b)),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
        }
    }
}

/// An operand of a division: sums, products and negative numbers in parentheses.
struct Factor<'a>(&'a Dim);

impl fmt::Display for Factor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let single = match self.0 {
            Dim::Const(c) => *c >= 0,
            Dim::Expr(p) => {
                p.constant == 0 && matches!(p.terms.as_slice(), [(m, 1)] if m.len() == 1)
            }
        };
        if single { write!(f, "{}", self.0) } else { write!(f, "({})", self.0) }
    }
}

/// Names that are no plain identifier print in quotes so that they read back.
fn quoted(name: &str) -> String {
    let plain = name
        .chars()
        .next()
        .is_some_and(|c| c.is_ascii_alphabetic() || matches!(c, '_' | '$' | '@'))
        && name.chars().skip(1).all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
        && !matches!(name, "min" | "max");
    if plain { name.to_owned() } else { format!("'{}'", name.replace('\'', "_")) }
}

impl fmt::Display for Dim {
    /// `2*B*S + 3`, `(S // 8)`, `min(S, 512)`; divisions and remainders are in
    /// parentheses, and their operands that are sums too.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = match self {
            Dim::Const(c) => return write!(f, "{c}"),
            Dim::Expr(p) => p,
        };
        for (i, (monomial, c)) in p.terms.iter().enumerate() {
            match (i, *c < 0) {
                (0, true) => f.write_str("-")?,
                (0, false) => {}
                (_, true) => f.write_str(" - ")?,
                (_, false) => f.write_str(" + ")?,
            }
            if c.unsigned_abs() != 1 {
                write!(f, "{}*", c.unsigned_abs())?;
            }
            for (j, atom) in monomial.iter().enumerate() {
                if j > 0 {
                    f.write_str("*")?;
                }
                write!(f, "{atom}")?;
            }
        }
        match p.constant {
            0 => Ok(()),
            c if c < 0 => write!(f, " - {}", c.unsigned_abs()),
            c => write!(f, " + {c}"),
        }
    }
}

crate::text_serde!(Dim);
crate::text_serde!(Symbol);

impl std::str::FromStr for Symbol {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Symbol::new(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn d(text: &str) -> Dim {
        text.parse().expect("test dim")
    }

    #[test]
    fn normal_forms_meet() {
        assert_eq!(d("B*(S + 1) - B"), d("S*B"));
        assert_eq!(d("(2*S + 4) // 2"), d("S + 2"));
        assert_eq!(d("(64*h + d) // 64"), d("h + (d // 64)"));
        assert_eq!(d("(64*h + d) % 64"), d("d % 64"));
        assert_eq!(d("(B*S*768) // (B*S)"), Dim::Const(768));
        assert_eq!(d("((S + 3) // 2) // 4"), d("(S + 3) // 8"));
        assert_eq!(d("(B*S + B) // (S + 1)"), d("B"));
    }

    #[test]
    fn text_round_trips() {
        for text in [
            "2*B*S + 3",
            "(S // 8)",
            "min(S, 512)",
            "-S + 1",
            "'past length' + 1",
            "((S + 3) // 8)*B - 2",
        ] {
            let dim = d(text);
            assert_eq!(d(&dim.to_string()), dim, "{text}");
        }
    }

    #[test]
    fn evaluates_with_floor_semantics() {
        let bind = |s: &Symbol| (s.name() == "S").then_some(-7);
        assert_eq!(d("S // 2").eval(&bind), Ok(-4));
        assert_eq!(d("S % 2").eval(&bind), Ok(1));
        assert!(matches!(d("S // (S + 7)").eval(&bind), Err(DimError::DivisionByZero(_))));
        assert!(matches!(d("T").eval(&bind), Err(DimError::Unbound(_))));
    }

    #[test]
    fn linear_split() {
        let (c, r) = d("64*h + d + S*h").linear_in(&Symbol::new("h")).expect("linear");
        assert_eq!((c, r), (d("64 + S"), d("d")));
        assert!(d("h*h").linear_in(&Symbol::new("h")).is_none());
        assert!(d("(h // 2)").linear_in(&Symbol::new("h")).is_none());
    }
}
