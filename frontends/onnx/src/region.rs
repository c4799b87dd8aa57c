//! Sub-graphs that stay sub-graphs: regions of `if` and `loop` nodes with explicit captures.
//!
//! While a region is imported, the enclosing graphs wait on a stack; a name found in an enclosing scope becomes an input
//! of every region between. Knows nothing of operators beside the two that have regions.

use tgc_ir::attr::Region;
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::op::Op;
use tgc_ir::types::TensorType;

use crate::cx::{Cx, OpError, Outputs, Val};
use crate::proto::GraphProto;

/// A graph that waits while a region inside it is imported.
pub(crate) struct Outer {
    pub graph: Graph,
    /// Nodes of `graph` and the inputs of the next inner graph that stand for them.
    captures: Vec<(NodeId, NodeId)>,
}

/// An imported region.
pub(crate) struct Built {
    pub graph: Graph,
    /// Nodes of the enclosing graph, in the order of the region's last inputs.
    pub captures: Vec<NodeId>,
    pub types: Vec<TensorType>,
}

fn capture_name(index: usize) -> String {
    format!("capture{index}")
}

impl Cx<'_> {
    /// Number of graphs around the current one.
    pub(crate) fn level(&self) -> usize {
        self.outer.len()
    }

    /// A value of an enclosing graph, made readable in the current one.
    pub(crate) fn bring(&mut self, val: Val, level: usize) -> Val {
        match val {
            Val::Node(id) => Val::Node(self.capture(id, level)),
            Val::Traced(id, known) => Val::Traced(self.capture(id, level), known),
            Val::Sequence(items, dtype) => {
                let items = items.iter().map(|v| self.bring(v.clone(), level)).collect::<Vec<_>>();
                Val::Sequence(items.into(), dtype)
            }
            Val::Optional(Some(inner)) => {
                let inner = self.bring((*inner).clone(), level);
                Val::Optional(Some(inner.into()))
            }
            other => other,
        }
    }

    /// The input of the current graph that stands for node `id` of the graph at `level`.
    pub(crate) fn capture(&mut self, mut id: NodeId, level: usize) -> NodeId {
        for at in level..self.outer.len() {
            let outer = &self.outer[at];
            if let Some((_, inner)) = outer.captures.iter().find(|(node, _)| *node == id) {
                id = *inner;
                continue;
            }
            let (name, ty) = (capture_name(outer.captures.len()), outer.graph.ty(id).clone());
            let inner_graph = match self.outer.get_mut(at + 1) {
                Some(next) => &mut next.graph,
                None => &mut self.graph,
            };
            let inner = inner_graph.input(&name, ty);
            self.outer[at].captures.push((id, inner));
            id = inner;
        }
        id
    }

    /// Imports a region with parameters; `captured` are captures that it must have first.
    pub(crate) fn region(
        &mut self,
        parameters: &[TensorType],
        captured: &[NodeId],
        body: impl FnOnce(&mut Self, &[Val]) -> Result<Vec<Val>, OpError>,
    ) -> Result<Built, OpError> {
        let mut inner = Graph::new("region");
        inner.facts = self.graph.facts.clone();
        let name = |i: usize| format!("parameter{i}");
        let ids: Vec<Val> = parameters
            .iter()
            .enumerate()
            .map(|(i, ty)| Val::Node(inner.input(&name(i), ty.clone())))
            .collect();
        let mut captures = Vec::new();
        for (i, &id) in captured.iter().enumerate() {
            captures.push((id, inner.input(&capture_name(i), self.graph.ty(id).clone())));
        }
        let graph = std::mem::replace(&mut self.graph, inner);
        self.outer.push(Outer { graph, captures });
        let results = body(self, &ids).and_then(|values| self.region_outputs(&values));
        let outer = self.outer.pop().expect("the stack is left as it was found");
        let inner = std::mem::replace(&mut self.graph, outer.graph);
        self.graph.facts = inner.facts.clone();
        let types = results?;
        Ok(Built {
            graph: inner.pruned(),
            captures: outer.captures.into_iter().map(|(node, _)| node).collect(),
            types,
        })
    }

    fn region_outputs(&mut self, values: &[Val]) -> Result<Vec<TensorType>, OpError> {
        let mut types = Vec::with_capacity(values.len());
        for (i, val) in values.iter().enumerate() {
            if matches!(val, Val::Sequence(..) | Val::Optional(_)) {
                return Err(OpError::unsupported(
                    "has a sub-graph that gives sequences or optionals by a condition on data",
                ));
            }
            let node = self.node(val)?;
            self.graph.output(&format!("result{i}"), node);
            types.push(self.graph.ty(node).clone());
        }
        Ok(types)
    }

    pub(crate) fn same_type(&self, a: &TensorType, b: &TensorType) -> bool {
        a.dtype == b.dtype
            && a.rank() == b.rank()
            && a.shape.iter().zip(&b.shape).all(|(x, y)| self.graph.facts.equal(x, y).is_yes())
    }

    /// An `if` on data; both branches must give the same types.
    pub(crate) fn branch_region(
        &mut self,
        condition: &Val,
        then: &GraphProto,
        otherwise: &GraphProto,
    ) -> Result<Outputs, OpError> {
        let condition = self.node(condition)?;
        let condition = self.reshape(condition, &[])?;
        let mut first = self.region(&[], &[], |cx, _| cx.inline(then, &[]))?;
        let second = self.region(&[], &first.captures, |cx, _| cx.inline(otherwise, &[]))?;
        for (i, &id) in second.captures.iter().enumerate().skip(first.captures.len()) {
            first.graph.input(&capture_name(i), self.graph.ty(id).clone());
        }
        if first.types.len() != second.types.len() {
            return Err(OpError::invalid("has branches with different numbers of results"));
        }
        for (a, b) in first.types.iter().zip(&second.types) {
            if !self.same_type(a, b) {
                return Err(OpError::unsupported(format!(
                    "decides by data between results of type {a} and {b}"
                )));
            }
        }
        let mut operands = vec![condition];
        operands.extend(&second.captures);
        let op = Op::If { then: Region::new(first.graph), otherwise: Region::new(second.graph) };
        let tuple = self.emit(op, &operands)?;
        (0..first.types.len()).map(|i| self.proj(tuple, i).map(Val::Node)).collect()
    }
}
