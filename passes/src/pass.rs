//! Passes: functions from graph to graph in one table, run by one manager.

use tgc_ir::Graph;
use tgc_ir::cost::CostModel;
use tgc_ir::infer::{Violation, verify};

use crate::rules::RuleSet;

/// A pass.
pub struct Pass {
    /// Name on the command line.
    pub name: &'static str,
    /// What it does, one line.
    pub summary: &'static str,
    /// Graph in, graph out.
    pub run: fn(&Graph, &mut Context<'_>) -> Result<Graph, PassError>,
}

/// What passes may use.
pub struct Context<'a> {
    /// Prices.
    pub cost: &'a dyn CostModel,
    /// Rules for saturation.
    pub rules: &'a RuleSet,
    /// Rewrites still allowed; `None` is no limit. One per rule application,
    /// fused attention, merged sibling group or folded value.
    pub fuel: Option<u64>,
    /// How often each rule and hub step fired, by name.
    pub fired: std::collections::BTreeMap<String, u64>,
    /// Counters of the last saturation.
    pub saturation: crate::egraph::Report,
}

impl<'a> Context<'a> {
    /// No fuel limit.
    pub fn new(cost: &'a dyn CostModel, rules: &'a RuleSet) -> Context<'a> {
        Context {
            cost,
            rules,
            fuel: None,
            fired: Default::default(),
            saturation: Default::default(),
        }
    }

    /// Takes one unit of fuel for a rewrite of this name; false when there is
    /// none left.
    pub fn spend(&mut self, name: &str) -> bool {
        match &mut self.fuel {
            Some(0) => return false,
            Some(left) => *left -= 1,
            None => {}
        }
        *self.fired.entry(name.to_owned()).or_insert(0) += 1;
        true
    }
}

/// Watches a pipeline (printing, timing).
pub trait Observer {
    /// Before a pass runs.
    fn before(&mut self, _pass: &Pass, _graph: &Graph) {}
    /// After it has run.
    fn after(&mut self, _pass: &Pass, _before: &Graph, _graph: &Graph) {}
}

/// Watches nothing.
pub struct Silent;

impl Observer for Silent {}

/// A pipeline failed.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PassError {
    /// No pass of this name.
    #[error("there is no pass `{0}`; `tgc passes` lists them")]
    Unknown(String),
    /// A pass built a wrong type: a fault of ours.
    #[error("pass `{pass}` built a wrong node: {violation}")]
    Wrong {
        /// Pass name.
        pass: &'static str,
        /// What is wrong.
        violation: Violation,
    },
    /// A type rule failed while rewriting.
    #[error(transparent)]
    Type(#[from] Violation),
    /// A folded value could not be evaluated.
    #[error(transparent)]
    Fold(#[from] tgc_ir::eval::EvalError),
}

/// Every pass, in the order of the default pipeline.
pub const PASSES: &[Pass] = &[
    Pass {
        name: "canonicalise",
        summary: "literals to rank 0 and to the right, views composed",
        run: crate::canon::run,
    },
    Pass {
        name: "fold",
        summary: "evaluate small values that depend on literals only",
        run: crate::fold::fold_small,
    },
    Pass {
        name: "saturate",
        summary: "equality saturation with the recognise rules, then extraction",
        run: crate::egraph::run,
    },
    Pass {
        name: "fuse-attention",
        summary: "contract(softmax chain(contract)) becomes attend",
        run: crate::attention::run,
    },
    Pass {
        name: "merge-siblings",
        summary: "contractions of one value with weights of equal form become one",
        run: crate::siblings::run,
    },
    Pass {
        name: "fold-weights",
        summary: "evaluate what depends on weights only",
        run: crate::fold::fold_weights,
    },
    Pass { name: "prune", summary: "drop what no output needs", run: prune },
];

fn prune(graph: &Graph, _: &mut Context<'_>) -> Result<Graph, PassError> {
    Ok(graph.pruned())
}

/// The pass of a name.
///
/// # Errors
/// [`PassError::Unknown`].
pub fn find(name: &str) -> Result<&'static Pass, PassError> {
    PASSES.iter().find(|p| p.name == name).ok_or_else(|| PassError::Unknown(name.to_owned()))
}

/// Runs passes in order; `verify_each` checks every result.
///
/// # Errors
/// The first failure.
pub fn run_passes(
    graph: &Graph,
    passes: &[&Pass],
    context: &mut Context<'_>,
    observer: &mut dyn Observer,
    verify_each: bool,
) -> Result<Graph, PassError> {
    let mut current = graph.clone();
    for pass in passes {
        observer.before(pass, &current);
        let next = {
            let _span = tracing::debug_span!("pass", name = pass.name).entered();
            (pass.run)(&current, context)?
        };
        if verify_each {
            verify(&next)
                .map_err(|(_, violation)| PassError::Wrong { pass: pass.name, violation })?;
        }
        observer.after(pass, &current, &next);
        current = next;
    }
    Ok(current)
}
