//! Rules as data: terms, conditions, functions of attributes.
//!
//! A rule comes from a `.rules` file or from the body of a composite op (whose
//! standard recognising rule exists by itself). Nothing here knows egg.

mod check;
mod conditions;
mod functions;
mod generated;
mod parse;

use indexmap::IndexSet;

use tgc_ir::DType;
use tgc_ir::attr::Attr;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::scalar::traits::COMMUTATIVE;

pub use check::{REACHED_MIN, RuleReport, check_rule};
pub(crate) use conditions::{Condition, Role};
pub(crate) use functions::Function;
pub use parse::RuleError;

/// How exact a rule is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Bit-equal in the declared dtypes.
    Exact,
    /// Equal over the reals.
    Real,
    /// Approximate; off by default.
    Approx,
}

impl Class {
    /// Name in rule files.
    pub fn name(self) -> &'static str {
        match self {
            Class::Exact => "exact",
            Class::Real => "real",
            Class::Approx => "approx",
        }
    }
}

/// A pattern or the term that replaces it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    /// A variable, `?x`.
    Var(String),
    /// A literal operand; numbered within its rule.
    Number(u32, f64),
    /// A literal attribute.
    Attr(Attr),
    /// An op: name, operands, attributes.
    Op(&'static str, Vec<Term>, Vec<Term>),
    /// A computed attribute or literal: function and variable names.
    Call(Function, Vec<String>),
}

impl Term {
    /// Names of variables, in order of appearance, repeated as they are.
    pub(crate) fn variables<'a>(&'a self, out: &mut Vec<&'a str>) {
        match self {
            Term::Var(name) => out.push(name),
            Term::Op(_, operands, attrs) => {
                operands.iter().chain(attrs).for_each(|t| t.variables(out))
            }
            Term::Call(_, args) => out.extend(args.iter().map(String::as_str)),
            Term::Number(..) | Term::Attr(_) => {}
        }
    }

    /// Literal attributes.
    pub(crate) fn attributes(&self, out: &mut IndexSet<Attr>) {
        match self {
            Term::Attr(attr) => {
                out.insert(attr.clone());
            }
            Term::Op(_, operands, attrs) => {
                operands.iter().chain(attrs).for_each(|t| t.attributes(out))
            }
            Term::Var(_) | Term::Number(..) | Term::Call(..) => {}
        }
    }
}

/// What a function of a right side gives.
pub(crate) enum Guarded {
    /// An attribute.
    Attr(Attr),
    /// A rank-0 literal.
    Splat(ScalarConst, DType),
}

/// One rewrite rule.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `family.verb-noun`.
    pub name: String,
    /// How exact it is.
    pub class: Class,
    /// The mathematics, from the comment above it.
    pub law: String,
    /// Runs in the recognise phase (else only in search).
    pub is_recognise: bool,
    /// Models in which it must fire.
    pub examples: Vec<String>,
    pub(crate) lhs: Term,
    pub(crate) rhs: Term,
    pub(crate) conditions: Vec<Condition>,
    text: String,
}

/// A set of rules and the literal attributes that they name.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// In file order, generated ones last.
    pub rules: Vec<Rule>,
    pub(crate) literals: IndexSet<Attr>,
    /// The rules as the e-graph runs them.
    pub(crate) compiled: crate::egraph::Compiled,
}

/// Forms of one rule that differ by the order of commutative operands.
const VARIANTS_MAX: usize = 16;

impl Rule {
    /// Left side, arrow and right side as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The left side in every order of its commutative operands.
    pub(crate) fn variants(&self) -> Vec<Term> {
        let mut out = commuted(&self.lhs);
        let mut unique: Vec<Term> = Vec::new();
        for term in out.drain(..) {
            if !unique.contains(&term) {
                unique.push(term);
            }
        }
        unique.truncate(VARIANTS_MAX);
        unique
    }
}

fn commuted(term: &Term) -> Vec<Term> {
    let Term::Op(name, operands, attrs) = term else { return vec![term.clone()] };
    let mut choices: Vec<Vec<Term>> = vec![Vec::new()];
    for operand in operands {
        let forms = commuted(operand);
        choices = choices
            .iter()
            .flat_map(|prefix| {
                forms.iter().map(move |f| prefix.iter().cloned().chain([f.clone()]).collect())
            })
            .take(VARIANTS_MAX)
            .collect();
    }
    let commutes = name.parse::<ScalarOp>().is_ok_and(|op| op.has(COMMUTATIVE))
        && operands.iter().all(|o| !matches!(o, Term::Number(..)))
        && operands[0] != operands[1];
    choices
        .into_iter()
        .flat_map(|ops| {
            let swapped = commutes.then(|| vec![ops[1].clone(), ops[0].clone()]);
            std::iter::once(ops).chain(swapped).map(|o| Term::Op(name, o, attrs.clone()))
        })
        .take(VARIANTS_MAX)
        .collect()
}

/// Files with the built-in rules.
const BUILTIN: &[(&str, &str)] = &[
    ("spelling.rules", include_str!("../rules/spelling.rules")),
    ("activation.rules", include_str!("../rules/activation.rules")),
    ("norm.rules", include_str!("../rules/norm.rules")),
    ("layout.rules", include_str!("../rules/layout.rules")),
    ("contract.rules", include_str!("../rules/contract.rules")),
    ("conv.rules", include_str!("../rules/conv.rules")),
];

impl RuleSet {
    /// The built-in rules and those that composites bring.
    ///
    /// # Panics
    /// When a built-in file does not parse, which a test excludes.
    pub fn builtin() -> RuleSet {
        let mut set = RuleSet::default();
        for (file, text) in BUILTIN {
            set.add_text(file, text).expect("built-in rules parse");
        }
        set.rules.extend(generated::from_composites());
        set.intern_literals();
        set
    }

    /// Adds the rules of a file.
    ///
    /// # Errors
    /// [`RuleError`] with file, line and what was expected.
    pub fn add_text(&mut self, file: &str, text: &str) -> Result<(), RuleError> {
        self.rules.extend(parse::parse(file, text)?);
        self.intern_literals();
        Ok(())
    }

    fn intern_literals(&mut self) {
        self.compiled = Default::default();
        for rule in &self.rules {
            rule.lhs.attributes(&mut self.literals);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builtin_rules_parse_with_unique_names() {
        let set = RuleSet::builtin();
        let mut names: Vec<&str> = set.rules.iter().map(|r| r.name.as_str()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
        assert!(set.rules.iter().all(|r| !r.law.is_empty()), "every rule states its law");
        assert!(set.rules.iter().all(|r| r.variants().len() <= VARIANTS_MAX));
    }
}
