//! A graph for Graphviz: boxes for ops, arrows labelled with types.
//!
//! Written by petgraph's dot writer over [`Graph::dataflow`]. Weights and
//! literals are left out, or a drawing of a network would be mostly those.

use petgraph::dot::{Config, Dot};
use petgraph::visit::NodeFiltered;

use crate::graph::{Graph, NodeId};
use crate::op::Op;

/// Graphviz text of the live part of a graph; one node or edge a line.
pub fn dot(graph: &Graph) -> String {
    let live = graph.live();
    let shown = |id: NodeId| {
        live[id.index()] && (!graph.op(id).is_leaf() || matches!(graph.op(id), Op::Input { .. }))
    };
    let flow = graph.dataflow();
    let filtered = NodeFiltered::from_fn(&flow, shown);
    let edge = |_, edge: crate::visit::EdgeReference<'_>| {
        format!("label=\"{}\"", quoted(&petgraph::visit::EdgeRef::weight(&edge).to_string()))
    };
    let node = |_, (id, op): (NodeId, &Op)| {
        let outputs = graph.outputs().iter().filter(|o| o.node == id);
        let mut lines = vec![format!("{id} {}", label(op))];
        lines.extend(outputs.map(|o| format!("→ {}", o.name)));
        let shape = if lines.len() > 1 { "doubleoctagon" } else { "box" };
        let text: Vec<String> = lines.iter().map(|l| quoted(l)).collect();
        format!("shape={shape} fontname=monospace label=\"{}\"", text.join("\\n"))
    };
    let config = [Config::NodeNoLabel, Config::EdgeNoLabel];
    // The writer asks weights for `Debug` even when it does not print them.
    format!("{:?}", Dot::with_attr_getters(&&filtered, &config, &edge, &node))
}

fn label(op: &Op) -> String {
    match op {
        Op::Input { name, ty } => format!("input {name} : {ty}"),
        other => other.name().to_owned(),
    }
}

fn quoted(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    #[test]
    fn draws_ops_and_types_without_weights() {
        let text = r#"graph "d" {
  %0 = input name="a\"b" ty="f32[4]"
  %1 = splat value=2.0 dtype=f32
  %2 = mul %0 %1
  output "y" %2
}
"#;
        let graph = crate::text::parse(text).expect("the text is a graph");
        let drawn = super::dot(&graph);
        assert!(drawn.starts_with("digraph {"), "{drawn}");
        assert!(drawn.contains("mul\\n→ y"), "{drawn}");
        assert!(drawn.contains("f32[4]"), "{drawn}");
        assert!(!drawn.contains("splat"), "{drawn}");
    }
}
