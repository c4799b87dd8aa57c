//! The numbering behind [`tgc_ir::plan::Place::Weight`]: a graph's weights,
//! then its dense literals in node order, then likewise those of its regions.

use std::sync::Arc;

use tgc_ir::tensor::Tensor;
use tgc_ir::{Graph, NodeId, Op};

/// What a plan calls a weight.
#[derive(Clone, Debug)]
pub struct Constant {
    /// For people.
    pub name: Arc<str>,
    /// Its contents; `None` when a text form left them out.
    pub data: Option<Tensor>,
    /// Some value of the graph needs it.
    pub is_read: bool,
}

/// The constants of a graph in the order of their numbers.
pub fn constants(graph: &Graph) -> Vec<Constant> {
    let mut out = Vec::new();
    collect(graph, true, &mut out);
    out
}

fn collect(graph: &Graph, is_live: bool, out: &mut Vec<Constant>) {
    let live = graph.live();
    let is_read = |id: NodeId| is_live && live[id.index()];
    let mut read = vec![false; graph.weights().len()];
    for id in graph.ids().filter(|id| is_read(*id)) {
        if let Op::Weight { index } = graph.op(id) {
            read[*index as usize] = true;
        }
    }
    let weights = graph.weights().iter().zip(read);
    out.extend(weights.map(|(w, is_read)| Constant {
        name: w.name.clone(),
        data: w.data.clone(),
        is_read,
    }));
    for id in graph.ids() {
        if let Op::Constant { value } = graph.op(id) {
            let data = Some((*value.0).clone());
            out.push(Constant { name: Arc::from("a literal"), data, is_read: is_read(id) });
        }
    }
    for id in graph.ids() {
        graph.op(id).regions().iter().for_each(|r| collect(r.graph(), is_read(id), out));
    }
}

fn literals(graph: &Graph, before: NodeId) -> usize {
    let literal = |id: &NodeId| matches!(graph.op(*id), Op::Constant { .. });
    graph.ids().take(before.index()).filter(literal).count()
}

/// How many constants a graph has, its regions' included.
fn count(graph: &Graph) -> usize {
    let own = graph.weights().len() + literals(graph, NodeId(graph.len() as u32));
    let regions = graph.ids().flat_map(|id| graph.op(id).regions());
    own + regions.map(|r| count(r.graph())).sum::<usize>()
}

/// The number of a dense literal among its graph's constants.
pub(super) fn literal(graph: &Graph, node: NodeId) -> usize {
    graph.weights().len() + literals(graph, node)
}

/// The first number of a node's region `which`, among its graph's constants.
pub(super) fn first_of_region(graph: &Graph, node: NodeId, which: usize) -> usize {
    let own = graph.weights().len() + literals(graph, NodeId(graph.len() as u32));
    let earlier = graph.ids().take(node.index()).flat_map(|id| graph.op(id).regions());
    let siblings = graph.op(node).regions().into_iter().take(which);
    own + earlier.chain(siblings).map(|r| count(r.graph())).sum::<usize>()
}
