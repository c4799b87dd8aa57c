//! Which rewrite first changes an answer: a search over fuel.
//!
//! With fuel `n` the first `n` rewrites happen and no more, so the answers of
//! growing fuel differ from one rewrite on. Finding it takes the logarithm of
//! their number of evaluations.

use std::collections::BTreeMap;

use tgc_ir::Tensor;
use tgc_ir::eval::{Mode, run as evaluate};
use tgc_ir::graph::Graph;

use super::baseline;
use crate::session::{Failure, Options, Quiet, Session};
use crate::tolerance::compare;

/// The rewrite after which an output differs.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// Rewrites that happen before and with it.
    pub fuel: u64,
    /// Rules or hub steps that fire with this fuel and not with one less.
    pub rules: Vec<String>,
    /// Output that differs, and by how much.
    pub output: String,
    /// Largest difference.
    pub max_abs: f64,
    /// The graph before it.
    pub before: Graph,
    /// The graph after it.
    pub after: Graph,
}

/// Searches for the first rewrite that changes an output beyond the tolerance;
/// none when the fully rewritten graph agrees.
///
/// # Errors
/// [`Failure`] when passes fail or the imported graph does not evaluate.
pub fn bisect(
    options: &Options,
    imported: &Graph,
    inputs: &[(&str, Tensor)],
) -> Result<Option<Culprit>, Failure> {
    let (exact, limits) = baseline(imported, inputs)?;
    let search = Search { options, imported, inputs, exact, limits };
    let full = search.with_fuel(None)?;
    let Some(mut found) = search.difference(&full.0) else { return Ok(None) };
    let (mut good, mut bad) = (0, full.1.values().sum::<u64>());
    let mut states = (search.with_fuel(Some(0))?, full);
    if let Some((output, max_abs)) = search.difference(&states.0.0) {
        // No rewrite is to blame: passes without fuel change the answer.
        let rules = Vec::new();
        let (before, after) = (imported.clone(), states.0.0);
        return Ok(Some(Culprit { fuel: 0, rules, output, max_abs, before, after }));
    }
    while good + 1 < bad {
        let middle = good + (bad - good) / 2;
        let tried = search.with_fuel(Some(middle))?;
        match search.difference(&tried.0) {
            Some(difference) => (bad, found, states.1) = (middle, difference, tried),
            None => (good, states.0) = (middle, tried),
        }
    }
    let ((before, fired_before), (after, fired_after)) = states;
    let rules = fired_after
        .iter()
        .filter(|(rule, count)| fired_before.get(*rule).unwrap_or(&0) < *count)
        .map(|(rule, _)| rule.clone())
        .collect();
    let (output, max_abs) = found;
    Ok(Some(Culprit { fuel: bad, rules, output, max_abs, before, after }))
}

struct Search<'a> {
    options: &'a Options,
    imported: &'a Graph,
    inputs: &'a [(&'a str, Tensor)],
    exact: Vec<Tensor>,
    limits: Vec<f64>,
}

impl Search<'_> {
    fn with_fuel(&self, fuel: Option<u64>) -> Result<(Graph, BTreeMap<String, u64>), Failure> {
        let session = Session::new(Options { fuel, ..self.options.clone() });
        let (graph, fired, _) = session.optimise(self.imported, &mut Quiet)?;
        Ok((graph, fired))
    }

    /// The first output beyond its limit; a graph that does not evaluate differs.
    fn difference(&self, graph: &Graph) -> Option<(String, f64)> {
        let names = graph.outputs().iter().map(|o| o.name.to_string());
        let Ok(got) = evaluate(graph, self.inputs, Mode::Exact) else {
            return Some(("(the graph does not evaluate)".to_owned(), f64::INFINITY));
        };
        names.zip(got.iter().zip(self.exact.iter().zip(&self.limits))).find_map(
            |(name, (got, (want, limit)))| match compare(got, want, 0.0, *limit) {
                Ok(d) if d.excess <= 1.0 => None,
                Ok(d) => Some((name, d.max_abs)),
                Err(_) => Some((name, f64::INFINITY)),
            },
        )
    }
}
