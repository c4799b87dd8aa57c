//! Rules as egg rewrites: patterns for searching, our own application with
//! guards, computed attributes and type checks.

use egg::{EGraph, ENodeOrVar, Id, Pattern, PatternAst, RecExpr, Rewrite, Subst, Symbol, Var};

use tgc_ir::kernel_program::ScalarConst;

use crate::egraph::analysis::Tensors;
use crate::egraph::language::{Kind, Node, head_of, name_of};
use crate::rules::{Guarded, Rule, RuleSet, Term};

/// Every rule and its commuted forms as rewrites, in order.
pub(crate) fn compile(rules: &RuleSet) -> Vec<Rewrite<Node, Tensors>> {
    let mut out = Vec::new();
    for rule in rules.rules.iter().filter(|r| r.is_recognise) {
        for (n, lhs) in rule.variants().into_iter().enumerate() {
            let mut ast: PatternAst<Node> = RecExpr::default();
            add_pattern(&lhs, &mut ast, rules);
            let searcher = Pattern::new(ast);
            let applier = Applier { rule: rule.clone(), lhs, literals: rules.clone() };
            let name = format!("{}#{n}", rule.name);
            out.push(Rewrite::new(name, searcher, applier).expect("right sides only use bound variables"));
        }
    }
    out
}

fn var(name: &str) -> Var {
    Var::from(Symbol::from(format!("?{name}")))
}

fn add_pattern(term: &Term, ast: &mut PatternAst<Node>, rules: &RuleSet) -> Id {
    match term {
        Term::Var(name) => ast.add(ENodeOrVar::Var(var(name))),
        Term::Number(index, _) => ast.add(ENodeOrVar::Var(var(&format!("literal{index}")))),
        Term::Attr(attr) => {
            let index = rules.literals.get_index_of(attr).expect("literals are interned when rules are read");
            ast.add(ENodeOrVar::ENode(Node { kind: Kind::Attr(index as u32), operands: 0, children: Default::default() }))
        }
        Term::Op(name, operands, attrs) => {
            let children = operands.iter().chain(attrs).map(|t| add_pattern(t, ast, rules)).collect();
            let head = head_of(name).expect("ops are checked when rules are read");
            ast.add(ENodeOrVar::ENode(Node { kind: Kind::Op(head), operands: operands.len() as u16, children }))
        }
        Term::Call(..) => ast.add(ENodeOrVar::Var(var("never"))),
    }
}

struct Applier {
    rule: Rule,
    lhs: Term,
    literals: RuleSet,
}

/// A match seen by guards and functions.
pub(crate) struct Site<'a> {
    pub(crate) egraph: &'a EGraph<Node, Tensors>,
    pub(crate) subst: &'a Subst,
}

impl Site<'_> {
    pub(crate) fn class(&self, name: &str) -> Option<Id> {
        self.subst.get(var(name)).map(|id| self.egraph.find(*id))
    }

    /// Whether a class is a dim value (possibly cast) equal to `want`.
    pub(crate) fn is_dim(&self, class: Id, want: &tgc_ir::Dim) -> bool {
        self.egraph[class].nodes.iter().any(|node| match node.kind {
            Kind::Leaf(n) => match &self.egraph.analysis.leaves[n as usize] {
                tgc_ir::Op::DimValue { value } => self.egraph.analysis.facts.equal(value, want).is_yes(),
                _ => false,
            },
            Kind::Op(head) if name_of(head) == "cast" => self.is_dim(node.children[0], want),
            _ => false,
        })
    }
}

impl egg::Applier<Node, Tensors> for Applier {
    fn apply_one(
        &self,
        egraph: &mut EGraph<Node, Tensors>,
        eclass: Id,
        subst: &Subst,
        _: Option<&PatternAst<Node>>,
        rule_name: Symbol,
    ) -> Vec<Id> {
        if !self.literals_match(egraph, subst) {
            return Vec::new();
        }
        {
            let site = Site { egraph, subst };
            if !self.rule.conditions.iter().all(|c| c.holds(&site)) {
                return Vec::new();
            }
        }
        if egraph.analysis.fuel == Some(0) {
            return Vec::new();
        }
        let Some(new) = self.build(egraph, subst, &self.rule.rhs, eclass) else {
            egraph.analysis.rejected += 1;
            return Vec::new();
        };
        if !same_type(egraph, eclass, new) {
            egraph.analysis.rejected += 1;
            return Vec::new();
        }
        self.spread_locations(egraph, subst, eclass);
        if !egraph.union_trusted(eclass, new, rule_name) {
            return Vec::new();
        }
        if let Some(left) = &mut egraph.analysis.fuel {
            *left -= 1;
        }
        *egraph.analysis.fired.entry(self.rule.name.clone()).or_insert(0) += 1;
        vec![eclass]
    }

    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }
}

impl Applier {
    fn literals_match(&self, egraph: &EGraph<Node, Tensors>, subst: &Subst) -> bool {
        fn check(term: &Term, egraph: &EGraph<Node, Tensors>, subst: &Subst) -> bool {
            match term {
                Term::Number(index, want) => {
                    let data = subst.get(var(&format!("literal{index}"))).map(|id| &egraph[*id].data);
                    let Some(data) = data else { return false };
                    let (Some(value), Some(ty)) = (data.splat, data.ty()) else { return false };
                    is_literal(value.as_f64(), *want, ty.dtype)
                }
                Term::Op(_, operands, attrs) => operands.iter().chain(attrs).all(|t| check(t, egraph, subst)),
                _ => true,
            }
        }
        check(&self.lhs, egraph, subst)
    }

    /// Adds a right side; `None` when a function has no value or a node no type.
    fn build(&self, egraph: &mut EGraph<Node, Tensors>, subst: &Subst, term: &Term, like: Id) -> Option<Id> {
        match term {
            Term::Var(name) => subst.get(var(name)).copied(),
            Term::Number(_, value) => {
                let dtype = egraph[like].data.ty()?.dtype;
                let value = if dtype.is_float() { ScalarConst::float(*value) } else { ScalarConst::Int(*value as i64) };
                let node = egraph.analysis.splat_node(value, dtype);
                Some(egraph.add(node))
            }
            Term::Attr(attr) => {
                let node = egraph.analysis.attr_node(attr.clone());
                Some(egraph.add(node))
            }
            Term::Call(function, args) => {
                let site = Site { egraph, subst };
                let value = function.evaluate(args, &site)?;
                let node = match value {
                    Guarded::Attr(attr) => egraph.analysis.attr_node(attr),
                    Guarded::Splat(value, dtype) => egraph.analysis.splat_node(value, dtype),
                };
                Some(egraph.add(node))
            }
            Term::Op(name, operands, attrs) => {
                let mut like_operand = like;
                let mut ids: Vec<Option<Id>> = Vec::new();
                for operand in operands {
                    let id = match operand {
                        Term::Number(..) => None,
                        other => Some(self.build(egraph, subst, other, like)?),
                    };
                    if let Some(id) = id {
                        like_operand = id;
                    }
                    ids.push(id);
                }
                let mut children: smallvec::SmallVec<[Id; 4]> = Default::default();
                for (operand, id) in operands.iter().zip(ids) {
                    children.push(match id {
                        Some(id) => id,
                        None => self.build(egraph, subst, operand, like_operand)?,
                    });
                }
                for attr in attrs {
                    children.push(self.build(egraph, subst, attr, like)?);
                }
                let head = head_of(name)?;
                order_literals_right(egraph, name, &mut children);
                let node = Node { kind: Kind::Op(head), operands: operands.len() as u16, children };
                let id = egraph.add(node);
                (!egraph[id].data.types.is_empty()).then_some(id)
            }
        }
    }

    /// The model nodes behind everything that the left side covers also stand
    /// behind its root.
    fn spread_locations(&self, egraph: &mut EGraph<Node, Tensors>, subst: &Subst, root: Id) {
        fn covered(term: &Term, egraph: &EGraph<Node, Tensors>, subst: &Subst, rules: &RuleSet, out: &mut Vec<Id>) -> Option<Id> {
            match term {
                Term::Var(name) => subst.get(var(name)).copied(),
                Term::Number(index, _) => subst.get(var(&format!("literal{index}"))).copied(),
                Term::Attr(attr) => {
                    let index = rules.literals.get_index_of(attr)?;
                    egraph.lookup(Node { kind: Kind::Attr(index as u32), operands: 0, children: Default::default() })
                }
                Term::Op(name, operands, attrs) => {
                    let children: Option<smallvec::SmallVec<[Id; 4]>> =
                        operands.iter().chain(attrs).map(|t| covered(t, egraph, subst, rules, out)).collect();
                    let node = Node { kind: Kind::Op(head_of(name)?), operands: operands.len() as u16, children: children? };
                    let id = egraph.lookup(node)?;
                    out.push(id);
                    Some(id)
                }
                Term::Call(..) => None,
            }
        }
        let mut inner = Vec::new();
        covered(&self.lhs, egraph, subst, &self.literals, &mut inner);
        let names: Vec<u32> = inner.iter().flat_map(|id| egraph[*id].data.locations.iter().copied()).collect();
        egraph[root].data.locations.extend(names);
    }
}

/// Commutative ops keep literals on the right.
fn order_literals_right(egraph: &EGraph<Node, Tensors>, name: &str, children: &mut smallvec::SmallVec<[Id; 4]>) {
    let commutative = name.parse::<tgc_ir::scalar::ScalarOp>().is_ok_and(|op| op.has(tgc_ir::scalar::traits::COMMUTATIVE));
    if commutative && egraph[children[0]].data.splat.is_some() && egraph[children[1]].data.splat.is_none() {
        children.swap(0, 1);
    }
}

/// A literal equals a mathematical constant up to the rounding of its dtype
/// (and of f32, through which exporters write constants).
pub(crate) fn is_literal(value: f64, want: f64, dtype: tgc_ir::DType) -> bool {
    if value == want {
        return true;
    }
    let epsilon = dtype.epsilon().unwrap_or(0.0).max(f64::from(f32::EPSILON));
    (value - want).abs() <= epsilon * want.abs() * 4.0
}

fn same_type(egraph: &EGraph<Node, Tensors>, a: Id, b: Id) -> bool {
    let (a, b) = (&egraph[a].data, &egraph[b].data);
    a.types.len() == b.types.len()
        && a.types.iter().zip(&b.types).all(|(x, y)| {
            x.dtype == y.dtype
                && x.rank() == y.rank()
                && x.shape.iter().zip(&y.shape).all(|(p, q)| egraph.analysis.facts.equal(p, q).is_yes())
        })
}

