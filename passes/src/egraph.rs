//! Equality saturation on egg: encoding, analysis, rule application,
//! extraction. The only place that knows egg.

mod analysis;
mod apply;
mod extract;
mod language;
mod load;
mod trial;

use std::sync::Arc;

use egg::{EGraph, Id, Runner, SimpleScheduler};

use tgc_ir::Graph;
use tgc_ir::graph::{NodeId, Operands};

pub(crate) use analysis::{ClassData, Tensors};
pub(crate) use apply::{Compiled, Site};
pub(crate) use language::{Node, head_of, name_of};
pub(crate) use trial::Trial;
/// A class of equal values.
pub(crate) type ClassId = Id;

use crate::pass::{Context, PassError};
use crate::rules::RuleSet;

/// E-nodes per node of the graph that saturation may make, plus a constant.
const ENODES_PER_NODE: usize = 12;
const ENODES_EXTRA: usize = 2_000;
/// Rounds of saturation.
const ITERATIONS_MAX: usize = 32;

/// Counters of one saturation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// E-nodes at the end.
    pub enodes: usize,
    /// E-classes at the end.
    pub classes: usize,
    /// Rounds.
    pub iterations: usize,
    /// True when no rule changes anything any more.
    pub is_saturated: bool,
    /// Matches whose right side was no legal node of the same type.
    pub rejected: u64,
}

/// Runs the recognise rules to saturation and extracts the cheapest graph.
pub fn run(graph: &Graph, context: &mut Context<'_>) -> Result<Graph, PassError> {
    let mut tensors = Tensors::new(graph, context.rules);
    tensors.fuel = context.fuel;
    let mut egraph: EGraph<Node, Tensors> = EGraph::new(tensors);
    let map = load::load(&mut egraph, graph);
    egraph.rebuild();
    let limit = graph.len() * ENODES_PER_NODE + ENODES_EXTRA;
    let runner: Runner<Node, Tensors> =
        Runner::new(Tensors::new(&Graph::new(""), &RuleSet::default()))
            .with_egraph(egraph)
            .with_iter_limit(ITERATIONS_MAX)
            .with_node_limit(limit)
            .with_time_limit(std::time::Duration::from_secs(86_400))
            .with_scheduler(SimpleScheduler)
            .run(context.rules.compiled.of(context.rules));
    let egraph = &runner.egraph;
    context.saturation = Report {
        enodes: egraph.total_number_of_nodes(),
        classes: egraph.number_of_classes(),
        iterations: runner.iterations.len(),
        is_saturated: matches!(runner.stop_reason, Some(egg::StopReason::Saturated)),
        rejected: egraph.analysis.rejected,
    };
    for (rule, count) in &egraph.analysis.fired {
        *context.fired.entry(rule.clone()).or_insert(0) += count;
    }
    context.fuel = egraph.analysis.fuel;
    rebuild(graph, egraph, &map, context)
}

/// The cheapest graph of an e-graph.
fn rebuild(
    graph: &Graph,
    egraph: &EGraph<Node, Tensors>,
    map: &[Option<Id>],
    context: &Context<'_>,
) -> Result<Graph, PassError> {
    let roots: Vec<Id> = graph
        .outputs()
        .iter()
        .map(|o| egraph.find(map[o.node.index()].expect("outputs are loaded")))
        .collect();
    let choice = extract::extract(egraph, &roots, context.cost);
    let mut next = graph.successor();
    let mut built: rustc_hash::FxHashMap<Id, NodeId> = rustc_hash::FxHashMap::default();
    for class in choice.order(egraph, &roots) {
        let node = choice.node(egraph, class);
        let operands: Operands =
            node.operand_ids().iter().map(|c| built[&egraph.find(*c)]).collect();
        let op = egraph.analysis.op_of(node, |id| egraph[id].data.attr);
        let locations: Vec<Arc<str>> = egraph.analysis.locations_of(&egraph[class].data);
        next.set_location(&locations);
        built.insert(class, next.add(op, &operands)?);
    }
    next.set_location(&[]);
    for (output, root) in graph.outputs().iter().zip(roots) {
        next.output(&output.name, built[&root]);
    }
    Ok(next)
}
