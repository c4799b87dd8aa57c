//! From a graph to an e-graph.

use egg::{EGraph, Id};

use tgc_ir::Graph;

use crate::egraph::analysis::Tensors;
use crate::egraph::language::{Kind, Node, head_of, is_leaf};

/// Adds every live node; classes by node index.
pub(crate) fn load(egraph: &mut EGraph<Node, Tensors>, graph: &Graph) -> Vec<Option<Id>> {
    let live = graph.live();
    let mut map: Vec<Option<Id>> = vec![None; graph.len()];
    for id in graph.ids().filter(|id| live[id.index()]) {
        let op = graph.op(id);
        let node = if is_leaf(op) {
            // Weights have their type from the graph's table.
            egraph.analysis.leaf_node(op, graph.ty(id))
        } else {
            let operands: Vec<Id> = graph
                .operands(id)
                .iter()
                .map(|o| map[o.index()].expect("operands come first"))
                .collect();
            let mut children: smallvec::SmallVec<[Id; 4]> = operands.iter().copied().collect();
            for attr in op.attrs() {
                let node = egraph.analysis.attr_node(attr);
                children.push(egraph.add(node));
            }
            let head = head_of(op.name()).expect("every op has a head");
            Node { kind: Kind::Op(head), operands: operands.len() as u16, children }
        };
        let class = egraph.add(node);
        let names: Vec<u32> = graph
            .locations(id)
            .iter()
            .map(|n| egraph.analysis.locations.insert_full(n.clone()).0 as u32)
            .collect();
        egraph[class].data.locations.extend(names);
        map[id.index()] = Some(class);
    }
    map
}
