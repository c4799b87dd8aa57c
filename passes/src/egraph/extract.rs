//! Extraction: greedy over the DAG on class cost sets.
//!
//! Every class keeps the set of classes that its choice needs, each counted
//! once, so that shared values are not paid twice (tree cost doubles at every
//! residual). Candidates whose set contains the class itself are cyclic and
//! are passed over. Ties go to the node that prints first, so the result does
//! not depend on ids.

use std::collections::BTreeMap;
use std::rc::Rc;

use egg::{EGraph, Id, Language};
use rustc_hash::FxHashMap;

use tgc_ir::cost::{CostModel, Picoseconds};
use tgc_ir::types::TensorType;

use crate::egraph::analysis::Tensors;
use crate::egraph::language::{Kind, Node};

/// A choice of one node per class.
pub(crate) struct Choice {
    best: FxHashMap<Id, Best>,
}

#[derive(Clone)]
struct Best {
    index: usize,
    total: Picoseconds,
    /// Classes needed, with their own prices.
    set: Rc<BTreeMap<Id, Picoseconds>>,
}

/// Chooses the cheapest acyclic node of every class that roots can need.
pub(crate) fn extract(egraph: &EGraph<Node, Tensors>, roots: &[Id], cost: &dyn CostModel) -> Choice {
    let classes = reachable(egraph, roots);
    let prices: FxHashMap<Id, Vec<Picoseconds>> = classes
        .iter()
        .map(|c| (*c, egraph[*c].nodes.iter().map(|n| price(egraph, n, cost)).collect()))
        .collect();
    let mut best: FxHashMap<Id, Best> = FxHashMap::default();
    // Until nothing improves: children settle before their users.
    for _ in 0..classes.len() + 1 {
        let mut is_changed = false;
        for &class in &classes {
            for (index, node) in egraph[class].nodes.iter().enumerate() {
                let Some(candidate) = candidate(egraph, class, index, node, prices[&class][index], &best) else {
                    continue;
                };
                let better = best.get(&class).is_none_or(|b| {
                    candidate.total < b.total || (candidate.total == b.total && prints_before(egraph, class, index, b.index))
                });
                if better {
                    best.insert(class, candidate);
                    is_changed = true;
                }
            }
        }
        if !is_changed {
            break;
        }
    }
    Choice { best }
}

/// Classes from roots, children first where there is no cycle.
fn reachable(egraph: &EGraph<Node, Tensors>, roots: &[Id]) -> Vec<Id> {
    let mut order = Vec::new();
    let mut state: FxHashMap<Id, bool> = FxHashMap::default();
    let mut stack: Vec<(Id, bool)> = roots.iter().rev().map(|r| (egraph.find(*r), false)).collect();
    while let Some((id, is_done)) = stack.pop() {
        if is_done {
            order.push(id);
            continue;
        }
        if state.insert(id, true).is_some() {
            continue;
        }
        stack.push((id, true));
        for node in &egraph[id].nodes {
            for child in node.children() {
                stack.push((egraph.find(*child), false));
            }
        }
    }
    order
}

fn price(egraph: &EGraph<Node, Tensors>, node: &Node, cost: &dyn CostModel) -> Picoseconds {
    if !matches!(node.kind, Kind::Op(_)) {
        return 0;
    }
    // What depends on weights only is computed when the engine is built.
    if node.operand_ids().iter().all(|id| egraph[*id].data.is_const) {
        return 1;
    }
    let op = egraph.analysis.op_of(node, |id| egraph[id].data.attr);
    let operands: Vec<TensorType> = node.operand_ids().iter().filter_map(|id| egraph[*id].data.ty().cloned()).collect();
    let id = egraph.lookup(node.clone());
    let types = id.map(|id| egraph[id].data.types.clone()).unwrap_or_default();
    cost.node(&op, &operands, &types).max(1)
}

fn candidate(
    egraph: &EGraph<Node, Tensors>,
    class: Id,
    index: usize,
    node: &Node,
    price: Picoseconds,
    best: &FxHashMap<Id, Best>,
) -> Option<Best> {
    let mut children: Vec<&Best> = Vec::with_capacity(node.children().len());
    for child in node.children() {
        let child = egraph.find(*child);
        let found = best.get(&child)?;
        if child == class || found.set.contains_key(&class) {
            return None;
        }
        children.push(found);
    }
    let largest = children.iter().max_by_key(|b| b.set.len());
    let mut set: BTreeMap<Id, Picoseconds> = largest.map_or_else(BTreeMap::new, |b| (*b.set).clone());
    for child in &children {
        set.extend(child.set.iter().map(|(k, v)| (*k, *v)));
    }
    set.insert(class, price);
    let total = set.values().fold(0u64, |a, b| a.saturating_add(*b));
    Some(Best { index, total, set: Rc::new(set) })
}

/// Order of two nodes of a class by op and printed attributes.
fn prints_before(egraph: &EGraph<Node, Tensors>, class: Id, a: usize, b: usize) -> bool {
    if a == b {
        return false;
    }
    let text = |i: usize| {
        let node = &egraph[class].nodes[i];
        let op = egraph.analysis.op_of(node, |id| egraph[id].data.attr);
        let attrs: Vec<String> = op.attrs().iter().map(tgc_ir::attr::Attr::to_text).collect();
        (op.name(), attrs)
    };
    text(a) < text(b)
}

impl Choice {
    /// The chosen node of a class.
    pub(crate) fn node<'a>(&self, egraph: &'a EGraph<Node, Tensors>, class: Id) -> &'a Node {
        let best = self.best.get(&class).expect("every class that a root needs has a choice");
        &egraph[class].nodes[best.index]
    }

    /// Chosen tensor classes, operands before users.
    pub(crate) fn order(&self, egraph: &EGraph<Node, Tensors>, roots: &[Id]) -> Vec<Id> {
        let mut order = Vec::new();
        let mut seen: rustc_hash::FxHashSet<Id> = rustc_hash::FxHashSet::default();
        let mut stack: Vec<(Id, bool)> = roots.iter().rev().map(|r| (egraph.find(*r), false)).collect();
        while let Some((id, is_done)) = stack.pop() {
            if is_done {
                order.push(id);
                continue;
            }
            if !seen.insert(id) {
                continue;
            }
            stack.push((id, true));
            let node = self.node(egraph, id);
            stack.extend(node.operand_ids().iter().rev().map(|c| (egraph.find(*c), false)));
        }
        order
    }
}
