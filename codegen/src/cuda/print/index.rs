//! Index expressions (dims over axes, values and symbols) as C++ integer expressions.

use std::collections::BTreeMap;

use tgc_ir::dim::Atom;
use tgc_ir::kernel_program::{as_axis, as_value};
use tgc_ir::{Dim, Facts, Symbol};

use super::scope::{PrintError, Scope};

/// Prints dims whose axes and values have given C++ names.
pub struct IndexPrinter<'a> {
    scope: &'a Scope<'a>,
    facts: &'a Facts,
    axes: &'a [String],
    values: &'a BTreeMap<u32, String>,
}

/// A printed expression with how tightly it binds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Sum,
    Product,
    Atom,
}

impl<'a> IndexPrinter<'a> {
    /// A printer for one body; `facts` hold bounds of its axes.
    pub fn new(
        scope: &'a Scope<'a>,
        facts: &'a Facts,
        axes: &'a [String],
        values: &'a BTreeMap<u32, String>,
    ) -> Self {
        IndexPrinter { scope, facts, axes, values }
    }

    /// The expression, simplified under the facts.
    ///
    /// # Errors
    /// [`PrintError::Malformed`] when it names an axis or value that is not there.
    pub fn print(&self, dim: &Dim) -> Result<String, PrintError> {
        Ok(self.dim(&self.simplified(dim))?.0)
    }

    /// The expression in parentheses where a factor needs them.
    ///
    /// # Errors
    /// As [`IndexPrinter::print`].
    pub fn print_factor(&self, dim: &Dim) -> Result<String, PrintError> {
        let (text, binding) = self.dim(&self.simplified(dim))?;
        Ok(if binding == Binding::Sum { format!("({text})") } else { text })
    }

    /// Simplified under the facts, with the axes called `0` gone.
    fn simplified(&self, dim: &Dim) -> Dim {
        let zeroed = dim.substitute(&|symbol| {
            let name = self.axes.get(as_axis(symbol)?)?;
            (name == "0").then_some(Dim::ZERO)
        });
        self.facts.simplify(&zeroed)
    }

    fn dim(&self, dim: &Dim) -> Result<(String, Binding), PrintError> {
        let p = match dim {
            Dim::Const(c) => {
                return Ok((self.literal(*c), if *c < 0 { Binding::Sum } else { Binding::Atom }));
            }
            Dim::Expr(p) => p,
        };
        let mut text = String::new();
        // Positive terms first, so that the expression rarely starts with a sign.
        let (positive, negative): (Vec<_>, Vec<_>) = p.terms.iter().partition(|(_, c)| *c > 0);
        for (monomial, coefficient) in positive.into_iter().chain(negative) {
            let sign = match (text.is_empty(), *coefficient < 0) {
                (true, false) => "",
                (true, true) => "-",
                (false, false) => " + ",
                (false, true) => " - ",
            };
            text.push_str(sign);
            text.push_str(&self.product(monomial, coefficient.unsigned_abs())?);
        }
        let single = p.terms.len() == 1 && p.constant == 0;
        match p.constant {
            0 => {}
            c if c < 0 => text.push_str(&format!(" - {}", self.literal(c.saturating_neg()))),
            c => text.push_str(&format!(" + {}", self.literal(c))),
        }
        let (monomial, coefficient) = &p.terms[0];
        let binding = match (single, *coefficient) {
            (true, 1) if monomial.len() == 1 => self.atom(&monomial[0])?.1,
            (true, c) if c > 0 => Binding::Product,
            _ => Binding::Sum,
        };
        Ok((text, binding))
    }

    fn product(&self, monomial: &[Atom], coefficient: u64) -> Result<String, PrintError> {
        let mut factors = Vec::new();
        for atom in monomial {
            let (text, binding) = self.atom(atom)?;
            let alone = monomial.len() == 1 && coefficient == 1;
            factors.push(if binding == Binding::Atom || alone {
                text
            } else {
                format!("({text})")
            });
        }
        if coefficient != 1 {
            factors.push(if coefficient > i32::MAX as u64 {
                format!("{coefficient}LL")
            } else {
                coefficient.to_string()
            });
        }
        Ok(factors.join(" * "))
    }

    fn literal(&self, value: i64) -> String {
        if i32::try_from(value).is_ok() { value.to_string() } else { format!("{value}LL") }
    }

    fn atom(&self, atom: &Atom) -> Result<(String, Binding), PrintError> {
        let call = |name: &str, a: &Dim, b: &Dim| -> Result<(String, Binding), PrintError> {
            let ty = self.scope.index_type();
            Ok((format!("{name}<{ty}>({}, {})", self.dim(a)?.0, self.dim(b)?.0), Binding::Atom))
        };
        match atom {
            Atom::Symbol(symbol) => Ok((self.symbol(symbol)?, Binding::Atom)),
            Atom::FloorDiv(a, b) => self.divided(a, b, '/', "floor_div", "index_div"),
            Atom::Mod(a, b) => self.divided(a, b, '%', "floor_mod", "index_mod"),
            Atom::Min(a, b) => call("minimum", a, b),
            Atom::Max(a, b) => call("maximum", a, b),
        }
    }

    /// Division or remainder: plain C++ where both operands are known not to be negative.
    fn divided(
        &self,
        a: &Dim,
        b: &Dim,
        sign: char,
        any: &str,
        natural: &str,
    ) -> Result<(String, Binding), PrintError> {
        let low = |dim: &Dim| self.facts.interval(dim).0;
        let is_natural = low(a).is_some_and(|low| low >= 0) && low(b).is_some_and(|low| low >= 1);
        let ((left, left_binds), (right, right_binds)) = (self.dim(a)?, self.dim(b)?);
        if is_natural && !self.scope.is_wide() {
            let left = if left_binds == Binding::Sum { format!("({left})") } else { left };
            let right = if right_binds == Binding::Atom { right } else { format!("({right})") };
            return Ok((format!("{left} {sign} {right}"), Binding::Product));
        }
        let function = if is_natural { natural } else { any };
        Ok((format!("{function}({left}, {right})"), Binding::Atom))
    }

    fn symbol(&self, symbol: &Symbol) -> Result<String, PrintError> {
        let missing = || self.scope.malformed(format!("`{symbol}` has no value where it is used"));
        if let Some(axis) = as_axis(symbol) {
            return self.axes.get(axis).cloned().ok_or_else(missing);
        }
        if let Some(value) = as_value(symbol) {
            let name = self.values.get(&value).ok_or_else(missing)?;
            return Ok(format!("({}){name}", self.scope.index_type()));
        }
        self.scope.symbol_name(symbol).map(str::to_owned).ok_or_else(missing)
    }
}
