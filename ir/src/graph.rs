//! The graph: append-only hash-consed nodes in topological order, with facts,
//! weights, signature and a side table of locations.
//!
//! Invariants: operands precede users; two nodes never have equal op and
//! operands; every node has the types that [`crate::infer`] gives it; views of
//! views are one view where they can be.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::facts::Facts;
use crate::infer::{Violation, infer};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// A node of a graph.
#[derive(
    Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As a table index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// Operand list.
pub type Operands = SmallVec<[NodeId; 3]>;

/// Result types: one, or several for tuple ops.
pub type ResultTypes = SmallVec<[TensorType; 1]>;

#[derive(Clone, Debug)]
struct Node {
    op: Op,
    operands: Operands,
    types: ResultTypes,
}

/// A trained tensor.
#[derive(Clone, Debug)]
pub struct Weight {
    /// Name in the model.
    pub name: Arc<str>,
    /// Its type (known extents).
    pub ty: TensorType,
    /// Its contents; `None` when a text form left them out.
    pub data: Option<Tensor>,
}

/// A named result of the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Name, unique among outputs.
    pub name: Arc<str>,
    /// The value.
    pub node: NodeId,
}

/// An input whose next value is an output, kept by the runtime between runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Index of the input.
    pub input: usize,
    /// Index of the output.
    pub output: usize,
    /// Greatest extent of the growing axis.
    pub capacity: Option<Dim>,
    /// The growing axis.
    pub axis: usize,
}

/// A symbol that is the value of an element of an integer input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ElementSymbol {
    /// The symbol.
    pub symbol: Symbol,
    /// Index of the input.
    pub input: usize,
    /// Row-major element index.
    pub element: usize,
}

/// A typed dataflow graph with symbolic shapes.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// For people.
    pub name: String,
    /// What is known about symbols, and what bindings must satisfy.
    pub facts: Facts,
    /// Symbols bound from input values.
    pub element_symbols: Vec<ElementSymbol>,
    /// Symbols of counts known only while running, with an upper bound.
    pub data_symbols: Vec<(Symbol, Dim)>,
    /// State pairs.
    pub states: Vec<State>,
    nodes: Vec<Node>,
    interned: FxHashMap<(Op, Operands), NodeId>,
    inputs: Vec<NodeId>,
    outputs: Vec<Output>,
    weights: Vec<Weight>,
    locations: Vec<BTreeSet<Arc<str>>>,
    here: Vec<Arc<str>>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Graph {
        Graph { name: name.into(), ..Graph::default() }
    }

    /// An empty graph with the same name, facts, symbols, weights, states and
    /// inputs (in order), to be filled by a rewrite. Output list is empty.
    pub fn successor(&self) -> Graph {
        let mut next = Graph {
            name: self.name.clone(),
            facts: self.facts.clone(),
            element_symbols: self.element_symbols.clone(),
            data_symbols: self.data_symbols.clone(),
            states: self.states.clone(),
            weights: self.weights.clone(),
            ..Graph::default()
        };
        for &input in &self.inputs {
            if let Op::Input { name, ty } = self.op(input) {
                let new = next.input(name, ty.clone());
                next.locations[new.index()] = self.locations[input.index()].clone();
            }
        }
        next
    }

    /// Number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// True when there is no node.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes in topological order.
    pub fn ids(&self) -> impl DoubleEndedIterator<Item = NodeId> + use<> {
        (0..self.nodes.len() as u32).map(NodeId)
    }

    /// The op of a node.
    pub fn op(&self, node: NodeId) -> &Op {
        &self.nodes[node.index()].op
    }

    /// The operands of a node.
    pub fn operands(&self, node: NodeId) -> &[NodeId] {
        &self.nodes[node.index()].operands
    }

    /// All result types of a node.
    pub fn types(&self, node: NodeId) -> &[TensorType] {
        &self.nodes[node.index()].types
    }

    /// The type of a node with one result (the first of a tuple).
    pub fn ty(&self, node: NodeId) -> &TensorType {
        &self.nodes[node.index()].types[0]
    }

    /// The extents of a node.
    pub fn shape(&self, node: NodeId) -> &[Dim] {
        &self.ty(node).shape
    }

    /// The element type of a node.
    pub fn dtype(&self, node: NodeId) -> DType {
        self.ty(node).dtype
    }

    /// Model inputs in order.
    pub fn inputs(&self) -> &[NodeId] {
        &self.inputs
    }

    /// Model outputs in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// Weights in order.
    pub fn weights(&self) -> &[Weight] {
        &self.weights
    }

    /// Adds a node, or finds the equal one. Identities (casts to the same
    /// type, views that change nothing) give their operand.
    pub fn add(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId, Violation> {
        if let Some(same) = self.identity_of(&op, operands) {
            self.note_location(same);
            return Ok(same);
        }
        if let Some((op, operands)) = self.composed_view(&op, operands) {
            return self.add(op, &operands);
        }
        let key = (op, Operands::from_slice(operands));
        if let Some(&known) = self.interned.get(&key) {
            self.note_location(known);
            return Ok(known);
        }
        let types = infer(self, &key.0, operands)?;
        let id = NodeId(self.nodes.len() as u32);
        self.nodes.push(Node { op: key.0.clone(), operands: key.1.clone(), types });
        self.interned.insert(key, id);
        self.locations.push(BTreeSet::new());
        self.note_location(id);
        Ok(id)
    }

    fn identity_of(&self, op: &Op, operands: &[NodeId]) -> Option<NodeId> {
        match (op, operands) {
            (Op::Cast { to } | Op::Bitcast { to }, [x]) if self.dtype(*x) == *to => Some(*x),
            (Op::View { view }, [x])
                if view.is_identity() && view.input_shape() == self.shape(*x) =>
            {
                Some(*x)
            }
            (Op::Reduce { op, axes }, [x]) if axes.is_empty() && !op.is_arg() => Some(*x),
            (Op::Concat { .. }, [x]) => Some(*x),
            _ => None,
        }
    }

    fn composed_view(&self, op: &Op, operands: &[NodeId]) -> Option<(Op, Operands)> {
        let (Op::View { view }, [x]) = (op, operands) else { return None };
        let Op::View { view: first } = self.op(*x) else { return None };
        let both = first.then(view, &self.facts)?;
        Some((Op::View { view: Arc::new(both) }, Operands::from_slice(self.operands(*x))))
    }

    /// Adds a model input; names are unique, an equal one is found again.
    pub fn input(&mut self, name: &str, ty: TensorType) -> NodeId {
        let op = Op::Input { name: Arc::from(name), ty };
        let id = self.add(op, &[]).expect("an input has no operands that could be wrong");
        if !self.inputs.contains(&id) {
            self.inputs.push(id);
        }
        id
    }

    /// Adds a weight; equal contents at equal addresses share a row.
    pub fn weight(&mut self, name: &str, data: Tensor) -> NodeId {
        let same = |w: &Weight| {
            w.data.as_ref().is_some_and(|d| {
                d.dtype() == data.dtype()
                    && d.shape() == data.shape()
                    && d.bytes().as_ptr() == data.bytes().as_ptr()
                    && d.bytes().len() == data.bytes().len()
            })
        };
        let index = if data.bytes().is_empty() { None } else { self.weights.iter().position(same) };
        let index = index.unwrap_or_else(|| {
            let ty =
                TensorType::new(data.dtype(), data.shape().iter().map(|&d| Dim::Const(d as i64)));
            self.push_weight(Weight { name: Arc::from(name), ty, data: Some(data) })
        });
        self.add(Op::Weight { index: index as i64 }, &[]).expect("the row exists")
    }

    /// Adds a row to the weight table and returns its index.
    pub fn push_weight(&mut self, weight: Weight) -> usize {
        self.weights.push(weight);
        self.weights.len() - 1
    }

    /// Adds an output.
    pub fn output(&mut self, name: &str, node: NodeId) {
        self.outputs.push(Output { name: Arc::from(name), node });
    }

    /// A symbol name that nothing uses yet, from a stem.
    pub fn fresh_symbol(&mut self, stem: &str) -> Symbol {
        let taken = |name: &str| {
            let s = Symbol::new(name);
            self.facts.bounds_of(&s).is_some() || self.data_symbols.iter().any(|(d, _)| *d == s)
        };
        let name = (0..)
            .map(|i| format!("{stem}{i}"))
            .find(|n| !taken(n))
            .unwrap_or_else(|| stem.to_owned());
        let symbol = Symbol::new(name);
        self.facts
            .bound(symbol.clone(), crate::facts::Bounds { low: 0, high: None, multiple_of: 1 });
        symbol
    }

    /// Where nodes that are added from now on come from (empty: nowhere new).
    pub fn set_location(&mut self, names: &[Arc<str>]) {
        self.here = names.to_vec();
    }

    fn note_location(&mut self, node: NodeId) {
        if !self.here.is_empty() && !self.nodes[node.index()].op.is_leaf() {
            self.locations[node.index()].extend(self.here.iter().cloned());
        }
    }

    /// Names of the model's nodes that a node comes from.
    pub fn locations(&self, node: NodeId) -> &BTreeSet<Arc<str>> {
        &self.locations[node.index()]
    }

    /// Adds locations to a node.
    pub fn add_locations(&mut self, node: NodeId, names: impl IntoIterator<Item = Arc<str>>) {
        self.locations[node.index()].extend(names);
    }

    /// Nodes from which an output can be reached, as a mask.
    pub fn live(&self) -> Vec<bool> {
        let mut live = vec![false; self.nodes.len()];
        for output in &self.outputs {
            live[output.node.index()] = true;
        }
        for id in self.ids().rev() {
            if live[id.index()] {
                for &operand in self.operands(id) {
                    live[operand.index()] = true;
                }
            }
        }
        live
    }

    /// Users of every node, in order; a node that is used twice by one user
    /// has it twice.
    pub fn users(&self) -> Vec<Vec<NodeId>> {
        let mut users = vec![Vec::new(); self.nodes.len()];
        for id in self.ids() {
            for &operand in self.operands(id) {
                users[operand.index()].push(id);
            }
        }
        users
    }

    /// The value of a rank-0 literal.
    pub fn splat_value(&self, node: NodeId) -> Option<crate::kernel_program::ScalarConst> {
        match self.op(node) {
            Op::Splat { value, .. } => Some(*value),
            Op::View { .. } => self.splat_value(self.operands(node)[0]),
            _ => None,
        }
    }

    /// Copies the live part of another graph's node into this one, mapping
    /// inputs by name and weights by row (both graphs must share them).
    pub fn import_node(
        &mut self,
        from: &Graph,
        node: NodeId,
        map: &[Option<NodeId>],
    ) -> Result<NodeId, Violation> {
        let operands: Option<Operands> =
            from.operands(node).iter().map(|o| map[o.index()]).collect();
        let operands = operands.expect("operands are imported before their users");
        self.here.clear();
        let new = self.add(from.op(node).clone(), &operands)?;
        self.locations[new.index()].extend(from.locations[node.index()].iter().cloned());
        Ok(new)
    }

    /// The graph without dead nodes; inputs stay.
    pub fn pruned(&self) -> Graph {
        let live = self.live();
        let mut next = self.successor();
        let mut map: Vec<Option<NodeId>> = vec![None; self.len()];
        for id in self.ids() {
            if live[id.index()] || self.inputs.contains(&id) {
                let new = next.import_node(self, id, &map).expect("types were right before");
                map[id.index()] = Some(new);
            }
        }
        for output in &self.outputs {
            next.output(&output.name, map[output.node.index()].expect("outputs are live"));
        }
        next
    }
}
