//! The recognising rule of every composite, generated from its body.

use tgc_ir::DType;
use tgc_ir::attr::{Attr, AttrKind};
use tgc_ir::composite::{AttrExpr, Composite, Expr, all};
use tgc_ir::op::Op;

use crate::rules::conditions::{Condition, Role};
use crate::rules::functions::Function;
use crate::rules::{Class, Rule, Term};

/// One rule per composite for values computed in their own dtype, and one for
/// narrow floats whose sums are kept in f32 between casts.
pub(crate) fn from_composites() -> Vec<Rule> {
    let mut out = Vec::new();
    for composite in all() {
        let plain = Translator::new(composite, false).rule();
        let wide = Translator::new(composite, true).rule();
        if wide.lhs != plain.lhs {
            out.push(wide);
        }
        out.push(plain);
    }
    out
}

/// A constant attribute is the value of a literal operand of the body, or the
/// attribute of an inner composite.
fn attr_of_rhs(lhs: &Term, name: &str, kind: AttrKind) -> Term {
    match kind {
        AttrKind::Const if mentions(lhs, name) => {
            Term::Call(Function::named("value").expect("in the table"), vec![name.to_owned()])
        }
        AttrKind::Const => Term::Var(format!("{name}_value")),
        _ => Term::Var(name.to_owned()),
    }
}

fn mentions(term: &Term, name: &str) -> bool {
    match term {
        Term::Var(n) => n == name,
        Term::Op(_, operands, attrs) => operands.iter().chain(attrs).any(|t| mentions(t, name)),
        _ => false,
    }
}

struct Translator {
    composite: &'static Composite,
    with_casts: bool,
    numbers: u32,
    conditions: Vec<Condition>,
}

impl Translator {
    fn new(composite: &'static Composite, with_casts: bool) -> Self {
        Translator { composite, with_casts, numbers: 0, conditions: Vec::new() }
    }

    fn rule(mut self) -> Rule {
        let mut scope: Vec<(&'static str, Term)> = Vec::new();
        for (name, expr) in self.composite.body() {
            let term = self.term(expr, &scope);
            scope.push((name, term));
        }
        let lhs = scope.pop().map(|(_, t)| t).expect("a body ends in yield");
        let operands = self.composite.operands.iter().map(|o| Term::Var((*o).to_owned())).collect();
        let attrs = self
            .composite
            .attrs
            .iter()
            .map(|(name, kind)| attr_of_rhs(&lhs, name, *kind))
            .collect();
        let suffix = if self.with_casts { "-wide" } else { "" };
        for (name, kind) in &self.composite.attrs {
            if *kind == AttrKind::Const && mentions(&lhs, name) {
                self.condition("splat", vec![(*name).to_owned()]);
            }
        }
        let text = format!("body of {} => {}", self.composite.name, self.composite.name);
        Rule {
            name: format!("fuse.{}{suffix}", self.composite.name),
            class: Class::Real,
            law: self.composite.doc.clone(),
            is_recognise: true,
            examples: Vec::new(),
            lhs,
            rhs: Term::Op(self.composite.name, operands, attrs),
            conditions: self.conditions,
            text,
        }
    }

    fn condition(&mut self, name: &str, args: Vec<String>) {
        let condition = Condition::new(Role::If, name, args).expect("in the table");
        self.conditions.push(condition);
    }

    fn term(&mut self, expr: &Expr, scope: &[(&'static str, Term)]) -> Term {
        match expr {
            Expr::Number(x) => {
                self.numbers += 1;
                Term::Number(self.numbers, *x)
            }
            Expr::Name(name) => {
                let known = scope.iter().rev().find(|(n, _)| n == name).map(|(_, t)| t.clone());
                known.unwrap_or_else(|| Term::Var((*name).to_owned()))
            }
            Expr::Call("count", args, _) => {
                let Expr::Name(x) = args[0] else { panic!("count is of a name") };
                let count = format!("count_of_{x}");
                self.condition("is_count", vec![count.clone(), x.to_owned(), "axes".to_owned()]);
                Term::Var(count)
            }
            Expr::Call("cast", args, attrs) => {
                let inner = self.term(&args[0], scope);
                match attrs.first() {
                    _ if !self.with_casts => inner,
                    Some((_, AttrExpr::Accumulator(_))) => {
                        Term::Op("cast", vec![inner], vec![Term::Attr(Attr::DType(DType::F32))])
                    }
                    _ => Term::Op("cast", vec![inner], vec![Term::Var("result_type".to_owned())]),
                }
            }
            Expr::Call(name, args, attrs) => {
                let operands = args.iter().map(|a| self.term(a, scope)).collect();
                let schema = Op::schema(name).expect("bodies name known ops");
                let attrs = schema.iter().map(|(key, kind)| self.attr(key, *kind, attrs)).collect();
                Term::Op(name, operands, attrs)
            }
        }
    }

    fn attr(&self, key: &str, kind: AttrKind, given: &[(&'static str, AttrExpr)]) -> Term {
        let expr = given
            .iter()
            .find(|(n, _)| *n == key)
            .map(|(_, e)| e)
            .expect("bodies give every attribute");
        let AttrExpr::Text(text) = expr else { panic!("dtype functions stand in casts only") };
        if self.composite.attrs.iter().any(|(n, _)| n == text) {
            return match kind {
                // A constant attribute of an inner composite matches any value
                // of the same name: both sides share it.
                AttrKind::Const => Term::Var(format!("{text}_value")),
                _ => Term::Var((*text).to_owned()),
            };
        }
        Term::Attr(Attr::parse(kind, text).expect("bodies give legal attributes"))
    }
}
