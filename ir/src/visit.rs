//! petgraph's visit traits over a graph, so that its algorithms (topological
//! order, components, dominators, paths) and its dot output work on ours.
//!
//! [`Graph::dataflow`] gives the view: nodes are the graph's nodes, an edge
//! goes from a value to each operand slot that reads it. Nothing here knows
//! what an op means.
//!
//! Source: the traits of `petgraph::visit`, version 0.8.

use std::ops::Range;

use petgraph::Direction;
use petgraph::visit::{
    Data, EdgeCount, EdgeRef, GraphBase, GraphProp, IntoEdgeReferences, IntoEdges,
    IntoEdgesDirected, IntoNeighbors, IntoNeighborsDirected, IntoNodeIdentifiers,
    IntoNodeReferences, NodeCompactIndexable, NodeCount, NodeIndexable, Visitable,
};

use crate::graph::{Graph, NodeId};
use crate::op::Op;
use crate::types::TensorType;

/// The nodes and operand edges of a graph, indexed in both directions.
#[derive(Clone, Debug)]
pub struct Dataflow<'g> {
    graph: &'g Graph,
    /// By user, then by operand slot.
    edges: Vec<Edge>,
    /// Edges into node `n`: `edges[entering[n]..entering[n + 1]]`.
    entering: Vec<u32>,
    /// Edges out of node `n`: `by_source[leaving[n]..leaving[n + 1]]`.
    leaving: Vec<u32>,
    by_source: Vec<EdgeId>,
}

/// An operand slot: the value, who reads it, and as which operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Edge {
    from: NodeId,
    to: NodeId,
}

/// An edge of a [`Dataflow`]: its index in order of user, then operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeId(u32);

impl Graph {
    /// The graph as petgraph's algorithms see it; linear in its size.
    pub fn dataflow(&self) -> Dataflow<'_> {
        let mut edges = Vec::new();
        let mut entering = vec![0];
        let mut leaving = vec![0u32; self.len() + 1];
        for to in self.ids() {
            edges.extend(self.operands(to).iter().map(|&from| Edge { from, to }));
            entering.push(edges.len() as u32);
        }
        for edge in &edges {
            leaving[edge.from.index() + 1] += 1;
        }
        for n in 0..self.len() {
            leaving[n + 1] += leaving[n];
        }
        let mut next = leaving.clone();
        let mut by_source = vec![EdgeId(0); edges.len()];
        for (index, edge) in edges.iter().enumerate() {
            let slot = &mut next[edge.from.index()];
            by_source[*slot as usize] = EdgeId(index as u32);
            *slot += 1;
        }
        Dataflow { graph: self, edges, entering, leaving, by_source }
    }
}

impl<'g> Dataflow<'g> {
    /// The graph behind the view.
    pub fn graph(&self) -> &'g Graph {
        self.graph
    }

    /// The value that an edge carries and the node that reads it.
    pub fn endpoints(&self, edge: EdgeId) -> (NodeId, NodeId) {
        let Edge { from, to } = self.edges[edge.0 as usize];
        (from, to)
    }

    fn range(&self, node: NodeId, direction: Direction) -> Range<usize> {
        let bounds = match direction {
            Direction::Outgoing => &self.leaving,
            Direction::Incoming => &self.entering,
        };
        bounds[node.index()] as usize..bounds[node.index() + 1] as usize
    }

    fn edge(&self, range_index: usize, direction: Direction) -> EdgeId {
        match direction {
            Direction::Outgoing => self.by_source[range_index],
            Direction::Incoming => EdgeId(range_index as u32),
        }
    }

    fn reference(&self, id: EdgeId) -> EdgeReference<'_> {
        let (source, target) = self.endpoints(id);
        EdgeReference { id, source, target, ty: self.graph.ty(source) }
    }
}

/// An edge with its ends and the type of the value (the first of a tuple).
#[derive(Clone, Copy, Debug)]
pub struct EdgeReference<'a> {
    id: EdgeId,
    source: NodeId,
    target: NodeId,
    ty: &'a TensorType,
}

impl<'a> EdgeRef for EdgeReference<'a> {
    type NodeId = NodeId;
    type EdgeId = EdgeId;
    type Weight = TensorType;

    fn source(&self) -> NodeId {
        self.source
    }
    fn target(&self) -> NodeId {
        self.target
    }
    fn weight(&self) -> &TensorType {
        self.ty
    }
    fn id(&self) -> EdgeId {
        self.id
    }
}

/// Edges of one node in one direction, or all edges.
#[derive(Clone, Debug)]
pub struct Edges<'a> {
    flow: &'a Dataflow<'a>,
    range: Range<usize>,
    direction: Direction,
}

impl<'a> Iterator for Edges<'a> {
    type Item = EdgeReference<'a>;

    fn next(&mut self) -> Option<EdgeReference<'a>> {
        let index = self.range.next()?;
        Some(self.flow.reference(self.flow.edge(index, self.direction)))
    }
}

/// Nodes at the far ends of a node's edges, one for each edge.
#[derive(Clone, Debug)]
pub struct Neighbors<'a>(Edges<'a>);

impl Iterator for Neighbors<'_> {
    type Item = NodeId;

    fn next(&mut self) -> Option<NodeId> {
        let edge = self.0.next()?;
        Some(match self.0.direction {
            Direction::Outgoing => edge.target,
            Direction::Incoming => edge.source,
        })
    }
}

/// Nodes with their ops.
#[derive(Clone, Debug)]
pub struct Nodes<'a> {
    graph: &'a Graph,
    ids: Range<u32>,
}

impl<'a> Iterator for Nodes<'a> {
    type Item = (NodeId, &'a Op);

    fn next(&mut self) -> Option<(NodeId, &'a Op)> {
        let id = NodeId(self.ids.next()?);
        Some((id, self.graph.op(id)))
    }
}

impl GraphBase for Dataflow<'_> {
    type NodeId = NodeId;
    type EdgeId = EdgeId;
}

impl Data for Dataflow<'_> {
    type NodeWeight = Op;
    type EdgeWeight = TensorType;
}

impl GraphProp for Dataflow<'_> {
    type EdgeType = petgraph::Directed;
}

impl NodeCount for Dataflow<'_> {
    fn node_count(&self) -> usize {
        self.graph.len()
    }
}

impl EdgeCount for Dataflow<'_> {
    fn edge_count(&self) -> usize {
        self.edges.len()
    }
}

impl NodeIndexable for Dataflow<'_> {
    fn node_bound(&self) -> usize {
        self.graph.len()
    }
    fn to_index(&self, node: NodeId) -> usize {
        node.index()
    }
    fn from_index(&self, index: usize) -> NodeId {
        NodeId(index as u32)
    }
}

impl NodeCompactIndexable for Dataflow<'_> {}

impl Visitable for Dataflow<'_> {
    type Map = Vec<bool>;

    fn visit_map(&self) -> Vec<bool> {
        vec![false; self.graph.len()]
    }
    fn reset_map(&self, map: &mut Vec<bool>) {
        map.clear();
        map.resize(self.graph.len(), false);
    }
}

/// Lets a mask over nodes be petgraph's set of visited ones.
impl petgraph::visit::VisitMap<NodeId> for Vec<bool> {
    fn visit(&mut self, node: NodeId) -> bool {
        !std::mem::replace(&mut self[node.index()], true)
    }
    fn is_visited(&self, node: &NodeId) -> bool {
        self[node.index()]
    }
    fn unvisit(&mut self, node: NodeId) -> bool {
        std::mem::replace(&mut self[node.index()], false)
    }
}

impl<'a> IntoNodeIdentifiers for &'a Dataflow<'a> {
    type NodeIdentifiers = std::iter::Map<Range<u32>, fn(u32) -> NodeId>;

    fn node_identifiers(self) -> Self::NodeIdentifiers {
        (0..self.graph.len() as u32).map(NodeId)
    }
}

impl<'a> IntoNodeReferences for &'a Dataflow<'a> {
    type NodeRef = (NodeId, &'a Op);
    type NodeReferences = Nodes<'a>;

    fn node_references(self) -> Nodes<'a> {
        Nodes { graph: self.graph, ids: 0..self.graph.len() as u32 }
    }
}

impl<'a> IntoEdgeReferences for &'a Dataflow<'a> {
    type EdgeRef = EdgeReference<'a>;
    type EdgeReferences = Edges<'a>;

    fn edge_references(self) -> Edges<'a> {
        Edges { flow: self, range: 0..self.edges.len(), direction: Direction::Incoming }
    }
}

impl<'a> IntoNeighbors for &'a Dataflow<'a> {
    type Neighbors = Neighbors<'a>;

    fn neighbors(self, node: NodeId) -> Neighbors<'a> {
        self.neighbors_directed(node, Direction::Outgoing)
    }
}

impl<'a> IntoNeighborsDirected for &'a Dataflow<'a> {
    type NeighborsDirected = Neighbors<'a>;

    fn neighbors_directed(self, node: NodeId, direction: Direction) -> Neighbors<'a> {
        Neighbors(self.edges_directed(node, direction))
    }
}

impl<'a> IntoEdges for &'a Dataflow<'a> {
    type Edges = Edges<'a>;

    fn edges(self, node: NodeId) -> Edges<'a> {
        self.edges_directed(node, Direction::Outgoing)
    }
}

impl<'a> IntoEdgesDirected for &'a Dataflow<'a> {
    type EdgesDirected = Edges<'a>;

    fn edges_directed(self, node: NodeId, direction: Direction) -> Edges<'a> {
        Edges { flow: self, range: self.range(node, direction), direction }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use petgraph::algo::{dominators, has_path_connecting, is_cyclic_directed, toposort};
    use petgraph::visit::Reversed;

    /// `y = f(a) + g(a)`, and a node that nothing reads.
    fn diamond() -> Graph {
        crate::text::parse(
            r#"graph "d" {
  %0 = input name=a ty="f32[4]"
  %1 = exp %0
  %2 = sqrt %0
  %3 = add %1 %2
  %4 = tanh %0
  output "y" %3
}
"#,
        )
        .expect("the text is a graph")
    }

    #[test]
    fn edges_are_the_operand_slots_in_both_directions() {
        let graph = diamond();
        let flow = graph.dataflow();
        assert_eq!(flow.edge_count(), 5);
        let (a, sum) = (graph.inputs()[0], graph.outputs()[0].node);
        let users: Vec<NodeId> = (&flow).neighbors(a).collect();
        assert_eq!(users, graph.users()[a.index()]);
        let read: Vec<NodeId> = (&flow).neighbors_directed(sum, Direction::Incoming).collect();
        assert_eq!(read, graph.operands(sum));
        for edge in (&flow).edge_references() {
            assert!(graph.operands(edge.target()).contains(&edge.source()));
            assert_eq!(edge.weight(), graph.ty(edge.source()));
        }
    }

    #[test]
    fn algorithms_of_petgraph_run_on_it() {
        let graph = diamond();
        let flow = graph.dataflow();
        let (a, sum) = (graph.inputs()[0], graph.outputs()[0].node);
        assert!(!is_cyclic_directed(&flow));
        let order = toposort(&flow, None).expect("operands precede users");
        assert_eq!(order.len(), graph.len());
        assert!(has_path_connecting(&flow, a, sum, None));
        assert!(!has_path_connecting(Reversed(&flow), a, sum, None));
        // The only waist of a diamond is its top.
        let found = dominators::simple_fast(&flow, a);
        assert_eq!(found.immediate_dominator(sum), Some(a));
    }
}
