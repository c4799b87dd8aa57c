//! Printing graphs.

use std::fmt::Write as _;

use crate::attr::{Attr, ConstTensor};
use crate::graph::{Graph, NodeId};
use crate::op::Op;

/// The text form; weights beyond 16 elements are named without contents.
pub fn print(graph: &Graph) -> String {
    print_with_weights(graph, 16)
}

/// The text form with the contents of weights of up to `elements_max` elements.
pub fn print_with_weights(graph: &Graph, elements_max: usize) -> String {
    let mut out = format!("graph {:?} {{\n", graph.name);
    header(graph, elements_max, &mut out);
    for id in graph.ids() {
        let _ = writeln!(out, "  {}", node_line(graph, id));
    }
    for output in graph.outputs() {
        let _ = writeln!(out, "  output {:?} {}", output.name, output.node);
    }
    for state in &graph.states {
        let capacity = state
            .capacity
            .as_ref()
            .map_or_else(String::new, |c| format!(" capacity {:?}", c.to_string()));
        let _ =
            writeln!(out, "  state {} {} axis {}{capacity}", state.input, state.output, state.axis);
    }
    for id in graph.ids().filter(|id| !graph.locations(*id).is_empty()) {
        let names: Vec<String> = graph.locations(id).iter().map(|n| format!("{n:?}")).collect();
        let _ = writeln!(out, "  loc {id} {}", names.join(" "));
    }
    out.push_str("}\n");
    out
}

fn header(graph: &Graph, elements_max: usize, out: &mut String) {
    for (symbol, bounds) in graph.facts.symbols() {
        let high = bounds.high.map_or_else(String::new, |h| h.to_string());
        let step = if bounds.multiple_of > 1 {
            format!(" step {}", bounds.multiple_of)
        } else {
            String::new()
        };
        let _ = writeln!(out, "  symbol {:?} {}..{high}{step}", symbol.name(), bounds.low);
    }
    for require in graph.facts.requires() {
        let _ = writeln!(out, "  require {:?} from {:?}", require.to_string(), require.origin);
    }
    for element in &graph.element_symbols {
        let _ = writeln!(
            out,
            "  element {:?} {} {}",
            element.symbol.name(),
            element.input,
            element.element
        );
    }
    for (symbol, bound) in &graph.data_symbols {
        let _ = writeln!(out, "  data {:?} {:?}", symbol.name(), bound.to_string());
    }
    for (index, weight) in graph.weights().iter().enumerate() {
        let contents = match &weight.data {
            Some(data) if data.len() <= elements_max => {
                let text = Attr::Tensor(ConstTensor(std::sync::Arc::new(data.clone()))).to_text();
                text[text.find('{').unwrap_or(0)..].to_owned()
            }
            _ => "omitted".to_owned(),
        };
        let _ = writeln!(out, "  weight {index} {:?} {} {contents}", weight.name, weight.ty);
    }
}

/// One node: `%3 = reduce %2 op=max axes=[1] : f32[B, 1]`.
pub fn node_line(graph: &Graph, id: NodeId) -> String {
    let op = graph.op(id);
    let mut out = format!("{id} = {}", op.name());
    for operand in graph.operands(id) {
        let _ = write!(out, " {operand}");
    }
    let schema = Op::schema(op.name()).unwrap_or_default();
    for ((name, _), attr) in schema.iter().zip(op.attrs()) {
        let _ = write!(out, " {name}={}", word(&attr.to_text()));
    }
    let types: Vec<String> = graph.types(id).iter().map(ToString::to_string).collect();
    let _ = write!(out, " : {}", types.join("; "));
    out
}

/// Bare when it is one plain word, else quoted.
fn word(text: &str) -> String {
    let plain =
        !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-+[]".contains(c));
    if plain { text.to_owned() } else { format!("{text:?}") }
}
