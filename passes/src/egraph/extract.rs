//! Extraction: greedy over the DAG on class cost sets.
//!
//! Every class keeps the set of classes that its choice needs, each counted
//! once, so that shared values are not paid twice (tree cost doubles at every
//! residual). Candidates whose set contains the class itself are cyclic and
//! are passed over. Ties go to the node that prints first, so the result does
//! not depend on ids.

use egg::{EGraph, Id};
use rustc_hash::FxHashMap;

use tgc_ir::cost::{CostModel, Picoseconds};
use tgc_ir::types::TensorType;

use crate::egraph::analysis::Tensors;
use crate::egraph::language::{Kind, Node};

/// A choice of one node per class.
pub(crate) struct Choice {
    best: FxHashMap<Id, usize>,
}

/// The choice of one class so far.
struct Best {
    index: usize,
    total: Picoseconds,
    price: Picoseconds,
    set: ClassSet,
}

/// Chooses the cheapest acyclic node of every class that roots can need.
pub(crate) fn extract(
    egraph: &EGraph<Node, Tensors>,
    roots: &[Id],
    cost: &dyn CostModel,
) -> Choice {
    let mut search = Search::new(egraph, reachable(egraph, roots), cost);
    // Until nothing improves: children settle before their users.
    while search.round() {}
    let chosen = search.classes.iter().zip(&search.best);
    Choice {
        best: chosen.filter_map(|(class, best)| Some((*class, best.as_ref()?.index))).collect(),
    }
}

/// A set of classes by position.
#[derive(Clone, Default)]
struct ClassSet(Vec<u64>);

impl ClassSet {
    fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    fn insert(&mut self, at: usize) {
        if self.0.len() <= at / 64 {
            self.0.resize(at / 64 + 1, 0);
        }
        self.0[at / 64] |= 1 << (at % 64);
    }

    /// Adds another set; calls `new` with every position that was not there.
    fn absorb(&mut self, other: &ClassSet, mut new: impl FnMut(usize)) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        for (i, (have, more)) in self.0.iter_mut().zip(&other.0).enumerate() {
            let mut added = more & !*have;
            *have |= more;
            while added != 0 {
                new(i * 64 + added.trailing_zeros() as usize);
                added &= added - 1;
            }
        }
    }
}

/// A node of a class with the positions of its operands.
struct Candidate {
    index: usize,
    price: Picoseconds,
    operands: Vec<u32>,
}

struct Search<'a> {
    egraph: &'a EGraph<Node, Tensors>,
    /// Children first where there is no cycle; position in it is the number
    /// of a class in sets.
    classes: Vec<Id>,
    candidates: Vec<Vec<Candidate>>,
    best: Vec<Option<Best>>,
}

impl<'a> Search<'a> {
    fn new(egraph: &'a EGraph<Node, Tensors>, classes: Vec<Id>, cost: &dyn CostModel) -> Self {
        let position: FxHashMap<Id, u32> =
            classes.iter().enumerate().map(|(i, c)| (*c, i as u32)).collect();
        let candidate = |(index, node): (usize, &Node)| Candidate {
            index,
            price: price(egraph, node, cost),
            operands: node.operand_ids().iter().map(|o| position[&egraph.find(*o)]).collect(),
        };
        let candidates = classes
            .iter()
            .map(|c| egraph[*c].nodes.iter().enumerate().map(candidate).collect())
            .collect();
        let best = classes.iter().map(|_| None).collect();
        Search { egraph, classes, candidates, best }
    }

    /// Looks at every node once; whether a choice improved.
    fn round(&mut self) -> bool {
        let mut is_changed = false;
        for at in 0..self.classes.len() {
            for n in 0..self.candidates[at].len() {
                let Some(found) = self.cost_of(at, &self.candidates[at][n]) else { continue };
                let is_better = self.best[at].as_ref().is_none_or(|b| {
                    found.total < b.total
                        || (found.total == b.total
                            && prints_before(self.egraph, self.classes[at], found.index, b.index))
                });
                if is_better {
                    self.best[at] = Some(found);
                    is_changed = true;
                }
            }
        }
        is_changed
    }

    /// A candidate with all that it needs; `None` while an operand has no
    /// choice, when it needs itself, or when it costs more than the best.
    fn cost_of(&self, at: usize, candidate: &Candidate) -> Option<Best> {
        let limit = self.best[at].as_ref().map_or(Picoseconds::MAX, |b| b.total);
        let mut operands: Vec<&Best> = Vec::with_capacity(candidate.operands.len());
        for operand in &candidate.operands {
            let found = self.best[*operand as usize].as_ref()?;
            if *operand as usize == at
                || found.set.has(at)
                || found.total.saturating_add(candidate.price) > limit
            {
                return None;
            }
            operands.push(found);
        }
        operands.sort_by_key(|b| std::cmp::Reverse(b.total));
        let (mut set, mut total) =
            operands.first().map_or_else(Default::default, |b| (b.set.clone(), b.total));
        for operand in operands.iter().skip(1) {
            set.absorb(&operand.set, |new| {
                let price = self.best[new].as_ref().map_or(0, |b| b.price);
                total = total.saturating_add(price);
            });
        }
        total = total.saturating_add(candidate.price);
        if candidate.price > 0 {
            set.insert(at);
        }
        Some(Best { index: candidate.index, total, price: candidate.price, set })
    }
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
            for child in node.operand_ids() {
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
    let operands: Vec<TensorType> =
        node.operand_ids().iter().filter_map(|id| egraph[*id].data.ty().cloned()).collect();
    let id = egraph.lookup(node.clone());
    let types = id.map(|id| egraph[id].data.types.clone()).unwrap_or_default();
    cost.node(&op, &operands, &types).max(1)
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
        let index = self.best.get(&class).expect("every class that a root needs has a choice");
        &egraph[class].nodes[*index]
    }

    /// Chosen tensor classes, operands before users.
    pub(crate) fn order(&self, egraph: &EGraph<Node, Tensors>, roots: &[Id]) -> Vec<Id> {
        let mut order = Vec::new();
        let mut seen: rustc_hash::FxHashSet<Id> = rustc_hash::FxHashSet::default();
        let mut stack: Vec<(Id, bool)> =
            roots.iter().rev().map(|r| (egraph.find(*r), false)).collect();
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
