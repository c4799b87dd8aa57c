//! One instance of a rule in a real e-graph: the left side is built node by
//! node, the production guards and functions run, and both sides are
//! evaluated on the reference.
//!
//! Ops are evaluated one by one, never as a graph: a graph composes views by
//! itself, and a rule that composes them would be compared with itself.

use std::sync::Arc;

use egg::{EGraph, Id, Searcher};
use rustc_hash::FxHashMap;

use tgc_ir::attr::Attr;
use tgc_ir::bind::Binding;
use tgc_ir::eval::{Array, EvalError, Evaluator, Mode};
use tgc_ir::facts::Facts;
use tgc_ir::graph::Graph;
use tgc_ir::op::Op;
use tgc_ir::types::TensorType;

use crate::egraph::analysis::Tensors;
use crate::egraph::apply::{Applier, Refusal};
use crate::egraph::language::{Kind, Node, head_of};
use crate::rules::{Role, Rule, RuleSet, Term};

/// An e-graph under construction and what was added to it, in order.
pub(crate) struct Trial {
    egraph: EGraph<Node, Tensors>,
    steps: Vec<(Id, Node)>,
}

/// A rewritten match: the class of the left side's root, and what it became.
pub(crate) struct Rewritten {
    root: Id,
    new: Id,
    /// Classes that variables stand for.
    bound: Vec<Id>,
}

/// What both sides of a match evaluate to.
pub(crate) struct Sides {
    /// Left.
    pub(crate) lhs: Arc<Array>,
    /// Right.
    pub(crate) rhs: Arc<Array>,
    /// The type that inference gives the right side.
    pub(crate) rhs_type: TensorType,
}

impl Trial {
    pub(crate) fn new(facts: Facts, rule: &Rule) -> Trial {
        let mut set = RuleSet::default();
        rule.lhs.attributes(&mut set.literals);
        let mut graph = Graph::new("");
        graph.facts = facts;
        Trial { egraph: EGraph::new(Tensors::new(&graph, &set)), steps: Vec::new() }
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.egraph.analysis.facts
    }

    fn push(&mut self, node: Node) -> Id {
        let id = self.egraph.add(node.clone());
        self.steps.push((id, node));
        id
    }

    /// An op without operands.
    pub(crate) fn leaf(&mut self, op: &Op, ty: &TensorType) -> Id {
        let node = self.egraph.analysis.leaf_node(op, ty);
        self.push(node)
    }

    pub(crate) fn attr(&mut self, attr: Attr) -> Id {
        let node = self.egraph.analysis.attr_node(attr);
        self.egraph.add(node)
    }

    /// The attribute of an attribute class.
    pub(crate) fn attr_of(&self, id: Id) -> Option<&Attr> {
        self.egraph[id].data.attr.map(|i| self.egraph.analysis.attr(i))
    }

    /// An op; `None` when it has no type.
    pub(crate) fn op(&mut self, name: &str, operands: &[Id], attrs: &[Id]) -> Option<Id> {
        let children = operands.iter().chain(attrs).copied().collect();
        let node =
            Node { kind: Kind::Op(head_of(name)?), operands: operands.len() as u16, children };
        let id = self.push(node);
        self.ty(id).is_some().then_some(id)
    }

    /// The type of a class.
    pub(crate) fn ty(&self, id: Id) -> Option<&TensorType> {
        self.egraph[id].data.ty()
    }

    /// The coarsest rounding step of the floats in it, 0 without floats.
    pub(crate) fn coarsest_epsilon(&self) -> f64 {
        let types = self.steps.iter().filter_map(|(id, _)| self.ty(*id));
        types.filter_map(|t| t.dtype.epsilon()).fold(0.0, f64::max)
    }

    /// Matches one form of a rule at the last node and rewrites; conditions of
    /// role `when` are not asked.
    pub(crate) fn rewrite(&mut self, rule: &Rule, lhs: &Term) -> Vec<Result<Rewritten, Refusal>> {
        let Some(&(root, _)) = self.steps.last() else { return Vec::new() };
        self.egraph.rebuild();
        let root = self.egraph.find(root);
        let literals = self.egraph.analysis.attrs.clone();
        let applier = Applier::new(rule, lhs, &literals);
        let pattern = applier.pattern();
        let Some(matches) = pattern.search_eclass(&self.egraph, root) else { return Vec::new() };
        let mut out = Vec::new();
        for subst in &matches.substs {
            let bound = applier.bound(subst);
            let new = applier.replacement(&mut self.egraph, root, subst, &|c| c.role == Role::If);
            out.push(new.map(|new| Rewritten { root, new, bound }));
        }
        self.egraph.rebuild();
        out
    }

    /// Evaluates both sides of a match. `inputs` gives the value of an input.
    pub(crate) fn evaluate(
        &self,
        rewritten: &Rewritten,
        binding: &Binding,
        inputs: &dyn Fn(&Op) -> Option<Array>,
        mode: Mode,
    ) -> Result<Sides, EvalError> {
        let mut run = Run { trial: self, binding, inputs, mode };
        let mut left: FxHashMap<Id, Arc<Array>> = FxHashMap::default();
        for (id, node) in &self.steps {
            let id = self.egraph.find(*id);
            if !left.contains_key(&id) {
                let value = run.node(node, &left)?;
                left.insert(id, value);
            }
        }
        let mut right: FxHashMap<Id, Arc<Array>> = FxHashMap::default();
        for id in &rewritten.bound {
            let id = self.egraph.find(*id);
            if let Some(value) = left.get(&id) {
                right.insert(id, value.clone());
            }
        }
        let new = self.egraph.find(rewritten.new);
        let rhs = run.class(new, &mut right)?;
        let lhs = left[&self.egraph.find(rewritten.root)].clone();
        let rhs_type = self.ty(new).cloned().unwrap_or_else(|| TensorType::scalar(rhs.dtype));
        Ok(Sides { lhs, rhs, rhs_type })
    }

    /// The left side, one line per node, for messages.
    pub(crate) fn text(&self) -> String {
        let mut lines = Vec::new();
        for (id, node) in &self.steps {
            let op = self.egraph.analysis.op_of(node, |id| self.egraph[id].data.attr);
            let attrs: Vec<String> = op.attrs().iter().map(Attr::to_text).collect();
            let operands: Vec<String> =
                node.operand_ids().iter().map(|o| format!("%{o}")).collect();
            let ty = self.ty(*id).map(TensorType::to_string).unwrap_or_default();
            lines.push(format!(
                "  %{id} = {} {} {{{}}} : {ty}",
                op.name(),
                operands.join(", "),
                attrs.join("; ")
            ));
        }
        lines.join("\n")
    }
}

struct Run<'a> {
    trial: &'a Trial,
    binding: &'a Binding,
    inputs: &'a dyn Fn(&Op) -> Option<Array>,
    mode: Mode,
}

impl Run<'_> {
    fn node(
        &mut self,
        node: &Node,
        values: &FxHashMap<Id, Arc<Array>>,
    ) -> Result<Arc<Array>, EvalError> {
        let egraph = &self.trial.egraph;
        let op = egraph.analysis.op_of(node, |id| egraph[id].data.attr);
        if let Some(value) = (self.inputs)(&op) {
            return Ok(Arc::new(value));
        }
        let mut graph = Graph::new("");
        graph.facts = egraph.analysis.facts.clone();
        let mut operands = Vec::new();
        for (i, operand) in node.operand_ids().iter().enumerate() {
            let ty = egraph[*operand].data.ty().expect("operands of typed nodes have types");
            operands
                .push((graph.input(&format!("x{i}"), ty.clone()), &values[&egraph.find(*operand)]));
        }
        let ids: Vec<_> = operands.iter().map(|(id, _)| *id).collect();
        let root = graph.add(op, &ids)?;
        let mut evaluator = Evaluator::unbound(&graph, self.mode);
        evaluator.binding = self.binding.clone();
        for (id, value) in operands {
            evaluator.set_value(id, (**value).clone());
        }
        for id in graph.ids() {
            evaluator.evaluate(id)?;
        }
        Ok(evaluator.value(root).clone())
    }

    /// Evaluates a class through its leaf, or else its first node.
    fn class(
        &mut self,
        id: Id,
        values: &mut FxHashMap<Id, Arc<Array>>,
    ) -> Result<Arc<Array>, EvalError> {
        let egraph = &self.trial.egraph;
        let id = egraph.find(id);
        if let Some(known) = values.get(&id) {
            return Ok(known.clone());
        }
        let nodes = &egraph[id].nodes;
        let node =
            nodes.iter().find(|n| matches!(n.kind, Kind::Leaf(_))).unwrap_or(&nodes[0]).clone();
        for operand in node.operand_ids() {
            self.class(*operand, values)?;
        }
        let value = self.node(&node, values)?;
        values.insert(id, value.clone());
        Ok(value)
    }
}
