//! Rules as egg rewrites: patterns for searching, our own application with
//! guards, computed attributes and type checks.

use std::sync::{Arc, OnceLock};

use egg::{EGraph, ENodeOrVar, Id, Pattern, PatternAst, RecExpr, Rewrite, Subst, Symbol, Var};
use indexmap::IndexSet;
use smallvec::SmallVec;

use tgc_ir::attr::Attr;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::scalar::traits::COMMUTATIVE;

use crate::egraph::analysis::Tensors;
use crate::egraph::language::{Kind, Node, head_of, name_of};
use crate::rules::{Class, Condition, Function, Guarded, Rule, RuleSet, Term};

/// The rules of a set as egg rewrites, made once per set.
#[derive(Clone, Default)]
pub(crate) struct Compiled(OnceLock<Arc<Vec<Rewrite<Node, Tensors>>>>);

impl Compiled {
    /// The rewrites, compiled at the first call.
    pub(crate) fn of<'a>(&'a self, rules: &RuleSet) -> &'a [Rewrite<Node, Tensors>] {
        self.0.get_or_init(|| Arc::new(compile(rules)))
    }
}

impl std::fmt::Debug for Compiled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rewrites", self.0.get().map_or(0, |r| r.len()))
    }
}

/// Every recognise rule in every commuted form, in order.
fn compile(rules: &RuleSet) -> Vec<Rewrite<Node, Tensors>> {
    let mut out = Vec::new();
    for rule in rules.rules.iter().filter(|r| r.is_recognise) {
        for (n, lhs) in rule.variants().into_iter().enumerate() {
            let applier = Applier::new(rule, &lhs, &rules.literals);
            let name = format!("{}#{n}", rule.name);
            out.push(
                Rewrite::new(name, applier.pattern(), applier)
                    .expect("right sides only use bound variables"),
            );
        }
    }
    out
}

/// A term of a rule with everything looked up that can be.
enum Compact {
    Var(Var),
    /// A literal operand; on the left, the variable that stands for it.
    Number(Var, f64),
    Attr(u32),
    /// An attribute of a right side that no left side names.
    NewAttr(Attr),
    Op {
        head: u16,
        commutes: bool,
        operands: Vec<Compact>,
        attrs: Vec<Compact>,
    },
    Call(Function, Vec<String>),
}

fn var(name: &str) -> Var {
    Var::from(Symbol::from(format!("?{name}")))
}

impl Compact {
    fn new(term: &Term, literals: &IndexSet<Attr>) -> Compact {
        match term {
            Term::Var(name) => Compact::Var(var(name)),
            Term::Number(index, value) => Compact::Number(var(&format!("literal{index}")), *value),
            Term::Attr(attr) => match literals.get_index_of(attr) {
                Some(index) => Compact::Attr(index as u32),
                None => Compact::NewAttr(attr.clone()),
            },
            Term::Op(name, operands, attrs) => Compact::Op {
                head: head_of(name).expect("ops are checked when rules are read"),
                commutes: name.parse::<ScalarOp>().is_ok_and(|op| op.has(COMMUTATIVE)),
                operands: operands.iter().map(|t| Compact::new(t, literals)).collect(),
                attrs: attrs.iter().map(|t| Compact::new(t, literals)).collect(),
            },
            Term::Call(function, args) => Compact::Call(*function, args.clone()),
        }
    }

    /// Adds this left side to a pattern.
    fn add_to(&self, ast: &mut PatternAst<Node>) -> Id {
        match self {
            Compact::Var(name) | Compact::Number(name, _) => ast.add(ENodeOrVar::Var(*name)),
            Compact::Attr(index) => {
                let kind = Kind::Attr(*index);
                ast.add(ENodeOrVar::ENode(Node { kind, operands: 0, children: Default::default() }))
            }
            Compact::Op { head, operands, attrs, .. } => {
                let children = operands.iter().chain(attrs).map(|t| t.add_to(ast)).collect();
                let kind = Kind::Op(*head);
                ast.add(ENodeOrVar::ENode(Node { kind, operands: operands.len() as u16, children }))
            }
            // Left sides compute nothing and their attributes are interned.
            Compact::Call(..) | Compact::NewAttr(_) => ast.add(ENodeOrVar::Var(var("never"))),
        }
    }

    /// Whether the classes that stand for literals have their values: for an
    /// exact rule the very number, else up to rounding.
    fn literals_match(
        &self,
        egraph: &EGraph<Node, Tensors>,
        subst: &Subst,
        is_exact: bool,
    ) -> bool {
        match self {
            Compact::Number(name, want) => {
                let Some(data) = subst.get(*name).map(|id| &egraph[*id].data) else { return false };
                let (Some(value), Some(ty)) = (data.splat, data.ty()) else { return false };
                value.as_f64() == *want
                    || (!is_exact && is_literal(value.as_f64(), *want, ty.dtype))
            }
            Compact::Op { operands, attrs, .. } => {
                operands.iter().chain(attrs).all(|t| t.literals_match(egraph, subst, is_exact))
            }
            _ => true,
        }
    }

    /// The class of this left side under a match; `out` collects the classes
    /// of all its ops.
    fn covered(
        &self,
        egraph: &EGraph<Node, Tensors>,
        subst: &Subst,
        out: &mut Vec<Id>,
    ) -> Option<Id> {
        match self {
            Compact::Var(name) | Compact::Number(name, _) => subst.get(*name).copied(),
            Compact::Attr(index) => egraph.lookup(Node {
                kind: Kind::Attr(*index),
                operands: 0,
                children: Default::default(),
            }),
            Compact::Op { head, operands, attrs, .. } => {
                let children: Option<SmallVec<[Id; 4]>> =
                    operands.iter().chain(attrs).map(|t| t.covered(egraph, subst, out)).collect();
                let id = egraph.lookup(Node {
                    kind: Kind::Op(*head),
                    operands: operands.len() as u16,
                    children: children?,
                })?;
                out.push(id);
                Some(id)
            }
            Compact::Call(..) | Compact::NewAttr(_) => None,
        }
    }
}

/// Conditions and right side of one form of a rule.
pub(crate) struct Applier {
    name: String,
    is_exact: bool,
    conditions: Vec<Condition>,
    lhs: Compact,
    rhs: Compact,
    /// Variables of the left side by name.
    vars: Vec<(String, Var)>,
}

/// A match seen by guards and functions.
pub(crate) struct Site<'a> {
    pub(crate) egraph: &'a EGraph<Node, Tensors>,
    pub(crate) subst: &'a Subst,
    vars: &'a [(String, Var)],
}

impl Site<'_> {
    pub(crate) fn class(&self, name: &str) -> Option<Id> {
        let (_, var) = self.vars.iter().find(|(n, _)| n == name)?;
        self.subst.get(*var).map(|id| self.egraph.find(*id))
    }

    /// Whether a class is a dim value (possibly cast) equal to `want`.
    pub(crate) fn is_dim(&self, class: Id, want: &tgc_ir::Dim) -> bool {
        self.egraph[class].nodes.iter().any(|node| match node.kind {
            Kind::Leaf(n) => match &self.egraph.analysis.leaves[n as usize] {
                tgc_ir::Op::DimValue { value } => {
                    self.egraph.analysis.facts.equal(value, want).is_yes()
                }
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
        if egraph.analysis.fuel == Some(0) {
            return Vec::new();
        }
        let new = match self.replacement(egraph, eclass, subst, &|_| true) {
            Ok(new) => new,
            Err(Refusal::Guard) => return Vec::new(),
            Err(Refusal::NoValue | Refusal::OtherType) => {
                egraph.analysis.rejected += 1;
                return Vec::new();
            }
        };
        self.spread_locations(egraph, subst, eclass);
        if !egraph.union_trusted(eclass, new, rule_name) {
            return Vec::new();
        }
        if let Some(left) = &mut egraph.analysis.fuel {
            *left -= 1;
        }
        match egraph.analysis.fired.get_mut(&self.name) {
            Some(count) => *count += 1,
            None => {
                egraph.analysis.fired.insert(self.name.clone(), 1);
            }
        }
        vec![eclass]
    }

    fn vars(&self) -> Vec<Var> {
        Vec::new()
    }
}

/// Why a match is not rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A literal or a condition does not hold.
    Guard,
    /// A function has no value, or a node of the right side no type.
    NoValue,
    /// The right side has another type than the left.
    OtherType,
}

impl Applier {
    /// One form of a rule; `literals` are the attributes that left sides name.
    pub(crate) fn new(rule: &Rule, lhs: &Term, literals: &IndexSet<Attr>) -> Applier {
        let mut names = Vec::new();
        lhs.variables(&mut names);
        names.sort_unstable();
        names.dedup();
        Applier {
            name: rule.name.clone(),
            is_exact: rule.class == Class::Exact,
            conditions: rule.conditions.clone(),
            lhs: Compact::new(lhs, literals),
            rhs: Compact::new(&rule.rhs, literals),
            vars: names.into_iter().map(|n| (n.to_owned(), var(n))).collect(),
        }
    }

    /// The left side for searching.
    pub(crate) fn pattern(&self) -> Pattern<Node> {
        let mut ast: PatternAst<Node> = RecExpr::default();
        self.lhs.add_to(&mut ast);
        Pattern::new(ast)
    }

    /// The classes that variables of the left side stand for.
    pub(crate) fn bound(&self, subst: &Subst) -> Vec<Id> {
        self.vars.iter().filter_map(|(_, v)| subst.get(*v).copied()).collect()
    }

    /// The class that equals `eclass` by this rule, added to the e-graph;
    /// only conditions that `asks` selects are asked.
    pub(crate) fn replacement(
        &self,
        egraph: &mut EGraph<Node, Tensors>,
        eclass: Id,
        subst: &Subst,
        asks: &dyn Fn(&Condition) -> bool,
    ) -> Result<Id, Refusal> {
        if !self.lhs.literals_match(egraph, subst, self.is_exact) {
            return Err(Refusal::Guard);
        }
        let site = Site { egraph, subst, vars: &self.vars };
        if !self.conditions.iter().filter(|c| asks(c)).all(|c| c.holds(&site)) {
            return Err(Refusal::Guard);
        }
        let new = self.build(egraph, subst, &self.rhs, eclass).ok_or(Refusal::NoValue)?;
        if same_type(egraph, eclass, new) { Ok(new) } else { Err(Refusal::OtherType) }
    }

    /// Adds a right side; `None` when a function has no value or a node no type.
    fn build(
        &self,
        egraph: &mut EGraph<Node, Tensors>,
        subst: &Subst,
        term: &Compact,
        like: Id,
    ) -> Option<Id> {
        match term {
            Compact::Var(name) => subst.get(*name).copied(),
            Compact::Number(_, value) => {
                let dtype = egraph[like].data.ty()?.dtype;
                let value = if dtype.is_float() {
                    ScalarConst::float(*value)
                } else {
                    ScalarConst::Int(*value as i64)
                };
                let node = egraph.analysis.splat_node(value, dtype);
                Some(egraph.add(node))
            }
            Compact::Attr(index) => Some(egraph.add(Node {
                kind: Kind::Attr(*index),
                operands: 0,
                children: Default::default(),
            })),
            Compact::NewAttr(attr) => {
                let node = egraph.analysis.attr_node(attr.clone());
                Some(egraph.add(node))
            }
            Compact::Call(function, args) => {
                let value = function.evaluate(args, &Site { egraph, subst, vars: &self.vars })?;
                let node = match value {
                    Guarded::Attr(attr) => egraph.analysis.attr_node(attr),
                    Guarded::Splat(value, dtype) => egraph.analysis.splat_node(value, dtype),
                };
                Some(egraph.add(node))
            }
            Compact::Op { head, commutes, operands, attrs } => {
                let mut children: SmallVec<[Id; 4]> = Default::default();
                // Literals take the element type of their last neighbour.
                let mut neighbour = like;
                for operand in operands.iter().filter(|o| !matches!(o, Compact::Number(..))) {
                    neighbour = self.build(egraph, subst, operand, like)?;
                    children.push(neighbour);
                }
                for (at, operand) in operands.iter().enumerate() {
                    if matches!(operand, Compact::Number(..)) {
                        children.insert(at, self.build(egraph, subst, operand, neighbour)?);
                    }
                }
                for attr in attrs {
                    children.push(self.build(egraph, subst, attr, like)?);
                }
                if *commutes {
                    order_literals_right(egraph, &mut children);
                }
                let id = egraph.add(Node {
                    kind: Kind::Op(*head),
                    operands: operands.len() as u16,
                    children,
                });
                (!egraph[id].data.types.is_empty()).then_some(id)
            }
        }
    }

    /// The model nodes behind everything that the left side covers also stand
    /// behind its root.
    fn spread_locations(&self, egraph: &mut EGraph<Node, Tensors>, subst: &Subst, root: Id) {
        let mut inner = Vec::new();
        self.lhs.covered(egraph, subst, &mut inner);
        let names: Vec<u32> =
            inner.iter().flat_map(|id| egraph[*id].data.locations.iter().copied()).collect();
        egraph[root].data.locations.extend(names);
    }
}

/// Commutative ops keep literals on the right.
fn order_literals_right(egraph: &EGraph<Node, Tensors>, children: &mut SmallVec<[Id; 4]>) {
    if egraph[children[0]].data.splat.is_some() && egraph[children[1]].data.splat.is_none() {
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
                && x.shape
                    .iter()
                    .zip(&y.shape)
                    .all(|(p, q)| egraph.analysis.facts.equal(p, q).is_yes())
        })
}
