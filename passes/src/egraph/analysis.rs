//! What is known of every class: types, literal value, dependence on weights,
//! attribute value, the model's nodes and the rules behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use egg::{Analysis, DidMerge, EGraph, Id};
use indexmap::IndexSet;

use tgc_ir::attr::Attr;
use tgc_ir::facts::Facts;
use tgc_ir::graph::{Graph, ResultTypes};
use tgc_ir::infer::infer_types;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::op::Op;
use tgc_ir::scalar::{TypeRule, round_to};
use tgc_ir::types::TensorType;

use crate::egraph::language::{Kind, Node, name_of};
use crate::rules::RuleSet;

/// Per-class data.
#[derive(Clone, Debug)]
pub(crate) struct ClassData {
    /// Result types; empty for attributes and for nodes that no type rule accepts.
    pub(crate) types: ResultTypes,
    /// The value when every element is this literal.
    pub(crate) splat: Option<ScalarConst>,
    /// Depends on literals and weights only.
    pub(crate) is_const: bool,
    /// The attribute, for attribute classes.
    pub(crate) attr: Option<u32>,
    /// Indices of model node names.
    pub(crate) locations: BTreeSet<u32>,
}

impl ClassData {
    /// The type of a class with one result.
    pub(crate) fn ty(&self) -> Option<&TensorType> {
        self.types.first()
    }
}

/// A float in total order.
#[derive(Clone, Copy, Debug)]
struct OrderedFloat(f64);

impl Ord for OrderedFloat {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for OrderedFloat {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OrderedFloat {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for OrderedFloat {}

/// The interner and facts of one compilation.
pub(crate) struct Tensors {
    pub(crate) facts: Facts,
    pub(crate) attrs: IndexSet<Attr>,
    pub(crate) leaves: IndexSet<Op>,
    leaf_types: Vec<TensorType>,
    /// Float literals by element type and value.
    floats: BTreeSet<(tgc_ir::DType, OrderedFloat)>,
    pub(crate) locations: IndexSet<Arc<str>>,
    /// Applications per rule.
    pub(crate) fired: BTreeMap<String, u64>,
    pub(crate) rejected: u64,
    pub(crate) fuel: Option<u64>,
}

impl Tensors {
    pub(crate) fn new(graph: &Graph, rules: &RuleSet) -> Tensors {
        Tensors {
            facts: graph.facts.clone(),
            attrs: rules.literals.iter().cloned().collect(),
            leaves: IndexSet::new(),
            leaf_types: Vec::new(),
            floats: BTreeSet::new(),
            locations: IndexSet::new(),
            fired: BTreeMap::new(),
            rejected: 0,
            fuel: None,
        }
    }

    pub(crate) fn attr_node(&mut self, attr: Attr) -> Node {
        let (index, _) = self.attrs.insert_full(attr);
        Node { kind: Kind::Attr(index as u32), operands: 0, children: Default::default() }
    }

    pub(crate) fn leaf_node(&mut self, op: &Op, ty: &TensorType) -> Node {
        let (index, is_new) = self.leaves.insert_full(op.clone());
        if is_new {
            self.leaf_types.push(ty.clone());
            if let Op::Splat { value, dtype } = op
                && dtype.is_float()
            {
                self.floats.insert((*dtype, OrderedFloat(value.as_f64())));
            }
        }
        Node { kind: Kind::Leaf(index as u32), operands: 0, children: Default::default() }
    }

    /// A rank-0 literal.
    pub(crate) fn splat_node(&mut self, value: ScalarConst, dtype: tgc_ir::DType) -> Node {
        self.leaf_node(&Op::Splat { value, dtype }, &TensorType::scalar(dtype))
    }

    /// The float literal in use that differs from a computed one by rounding
    /// only, or else the computed one. Without it, products of the same
    /// factors in different orders are different literals, and rules that
    /// merge factors never come to an end.
    pub(crate) fn known_float(&self, value: f64, dtype: tgc_ir::DType) -> f64 {
        let slack = value.abs() * dtype.epsilon().unwrap_or(0.0) * 2.0;
        let range = (dtype, OrderedFloat(value - slack))..=(dtype, OrderedFloat(value + slack));
        let distance = |x: &f64| OrderedFloat((x - value).abs());
        self.floats.range(range).map(|(_, x)| x.0).min_by_key(distance).unwrap_or(value)
    }

    pub(crate) fn attr(&self, index: u32) -> &Attr {
        &self.attrs[index as usize]
    }

    /// The op of a node, given the attribute index of child classes.
    pub(crate) fn op_of(&self, node: &Node, attr_of: impl Fn(Id) -> Option<u32>) -> Op {
        match node.kind {
            Kind::Leaf(n) => self.leaves[n as usize].clone(),
            Kind::Op(head) => {
                let attrs: Vec<Attr> = node
                    .attr_ids()
                    .iter()
                    .map(|id| {
                        self.attr(attr_of(*id).expect("attribute children are attributes")).clone()
                    })
                    .collect();
                Op::from_attrs(name_of(head), &attrs)
                    .expect("attributes were checked when the node was made")
            }
            Kind::Attr(_) => Op::splat(0.0, tgc_ir::DType::F32),
        }
    }

    pub(crate) fn locations_of(&self, data: &ClassData) -> Vec<Arc<str>> {
        data.locations.iter().map(|l| self.locations[*l as usize].clone()).collect()
    }

    fn infer(&self, op: &Op, operands: &[&ClassData]) -> ResultTypes {
        if let Op::Proj { index } = op {
            let ty = operands.first().and_then(|d| d.types.get(usize::try_from(*index).ok()?));
            return ty.into_iter().cloned().collect();
        }
        let types: Option<Vec<&TensorType>> = operands.iter().map(|d| d.ty()).collect();
        types.and_then(|t| infer_types(op, &t, &self.facts).ok()).unwrap_or_default()
    }

    fn op_data(egraph: &EGraph<Node, Self>, node: &Node) -> ClassData {
        let this = &egraph.analysis;
        let op = this.op_of(node, |id| egraph[id].data.attr);
        let operands: Vec<&ClassData> =
            node.operand_ids().iter().map(|id| &egraph[*id].data).collect();
        let types = this.infer(&op, &operands);
        let is_random = matches!(op, Op::NonZero { .. } | Op::Nms { .. } | Op::Unique { .. });
        ClassData {
            splat: fold_splat(&op, &operands),
            is_const: !operands.is_empty() && operands.iter().all(|d| d.is_const) && !is_random,
            types,
            attr: None,
            locations: BTreeSet::new(),
        }
    }
}

/// The literal that an op on literals gives.
fn fold_splat(op: &Op, operands: &[&ClassData]) -> Option<ScalarConst> {
    match op {
        Op::Scalar(scalar) => {
            let values: Vec<_> =
                operands.iter().map(|d| d.splat.map(ScalarConst::value)).collect::<Option<_>>()?;
            let operand = operands.last()?.ty()?.dtype;
            let value = scalar.evaluate(&values, operand);
            let result = match scalar.record().types {
                TypeRule::Compare | TypeRule::Predicate => tgc_ir::DType::Bool,
                _ => operand,
            };
            Some(ScalarConst::from_value(round_to(value, result)))
        }
        Op::Cast { to } => {
            operands[0].splat.map(|s| ScalarConst::from_value(round_to(s.value(), *to)))
        }
        Op::View { .. } => operands[0].splat,
        _ => None,
    }
}

impl Analysis<Node> for Tensors {
    type Data = ClassData;

    fn make(egraph: &mut EGraph<Node, Self>, node: &Node, _: Id) -> ClassData {
        let empty = ClassData {
            types: ResultTypes::new(),
            splat: None,
            is_const: false,
            attr: None,
            locations: BTreeSet::new(),
        };
        match node.kind {
            Kind::Attr(index) => ClassData { attr: Some(index), ..empty },
            Kind::Leaf(index) => {
                let op = &egraph.analysis.leaves[index as usize];
                let splat = if let Op::Splat { value, .. } = op { Some(*value) } else { None };
                let is_const =
                    matches!(op, Op::Splat { .. } | Op::Constant { .. } | Op::Weight { .. });
                let ty = egraph.analysis.leaf_types[index as usize].clone();
                ClassData { types: smallvec::smallvec![ty], splat, is_const, ..empty }
            }
            Kind::Op(_) => Tensors::op_data(egraph, node),
        }
    }

    fn merge(&mut self, a: &mut ClassData, b: ClassData) -> DidMerge {
        // Parents are asked again only where what they read has changed;
        // names of model nodes they do not read.
        let before = (a.splat.is_some(), a.is_const);
        let is_b_new = (b.splat.is_none() && a.splat.is_some()) || a.is_const != b.is_const;
        a.splat = a.splat.or(b.splat);
        a.is_const |= b.is_const;
        a.locations.extend(b.locations);
        if a.types.is_empty() {
            a.types = b.types;
        }
        DidMerge(before != (a.splat.is_some(), a.is_const), is_b_new)
    }

    fn modify(egraph: &mut EGraph<Node, Self>, id: Id) {
        // A class with a literal value and rank 0 holds the literal itself.
        let data = &egraph[id].data;
        let (Some(value), Some(ty)) = (data.splat, data.ty()) else { return };
        if !ty.shape.is_empty() {
            return;
        }
        let dtype = ty.dtype;
        let node = egraph.analysis.splat_node(value, dtype);
        let literal = egraph.add(node);
        egraph.union(id, literal);
    }
}
