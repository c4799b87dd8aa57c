//! Verification by default: what was compiled is compared with what was
//! imported, on the reference, on usual and on hard inputs.
//!
//! * Layer 3: the optimised graph gives what the imported graph gives.
//! * Layer 4: the plan's kernels, run by the reference that defines every
//!   anchor, give what the graph gives; and so does the cpu device.
//!
//! Tolerance: the error against the imported graph in f64 is at most four
//! times the error of that graph rounded to the declared dtypes after each op, or
//! four times what it moves by when its inputs move by one unit in the last place,
//! plus a floor of a few units in the last place of the largest magnitude, more
//! of them where sums are long. Where that rounded graph overflows, any value is
//! allowed.
//!
//! A model whose evaluation exceeds the budget has its distinct kernels checked
//! one by one on drawn inputs ([`kernels`]); the rest is listed as not reached.

use std::collections::BTreeMap;

use tgc_ir::bind::Binding;
use tgc_ir::eval::{EvalError, Mode, run};
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::scalar::Value;
use tgc_ir::{Symbol, Tensor};

use crate::device::{RunOptions, open};
use crate::inputs::{Style, random};
use crate::session::{Failure, Kind, Outcome, error_chain};
use crate::tolerance::compare;
use cost::Character;

mod bisect;
mod cost;
mod kernels;

pub use bisect::{Culprit, bisect};
pub use kernels::{Finding, KernelCheck, check_launches};

/// Units in the last place of the largest magnitude that are always allowed.
const FLOOR_ULPS: f64 = 16.0;
/// Length of a sum beyond which the floor grows, with the square root of the
/// length: rounding errors of a long sum walk at random.
const SUM_FREE: f64 = 256.0;
/// Share of the largest magnitude that outputs of quantised models may move by:
/// one step of eight bits.
const QUANTISED_STEP: f64 = 1.0 / 127.0;
/// Times the rounding error of the declared dtypes that is allowed.
const SLACK: f64 = 4.0;

/// Compares stages and records what was done; an error when one differs.
///
/// # Errors
/// [`Failure`] of kind verification, naming output, error and tolerance.
pub fn verify(outcome: &mut Outcome, seconds: f64) -> Result<(), Failure> {
    let Some(binding) = small_binding(&outcome.imported) else {
        let why = "everything: no small binding of the symbols satisfies the model's constraints"
            .to_owned();
        outcome.engine.provenance.verification.not_reached.push(why);
        return Ok(());
    };
    let mut budget = Budget { left: seconds };
    let (graph, kernels) = cost::of_outcome(outcome, &binding);
    for style in [Style::Usual, Style::Hard] {
        // The imported graph exact, rounded and perturbed, and the optimised one.
        if budget.take(4.0 * graph + kernels) {
            round(outcome, &binding, style)?;
            continue;
        }
        let why = format!(
            "{style:?} inputs, the whole model: the reference would take about {:.0} s, of the budget {:.0} s are left (--verify-seconds)",
            4.0 * graph + kernels,
            budget.left
        );
        outcome.engine.provenance.verification.not_reached.push(why);
    }
    if outcome.engine.provenance.verification.checks.is_empty() {
        kernels::verify(outcome, &binding, &mut budget)?;
    }
    for target in outcome.built.keys() {
        let why = format!(
            "CUDA text for {target}: it compiles; `tgc test --device simulator` executes it"
        );
        outcome.engine.provenance.verification.not_reached.push(why);
    }
    Ok(())
}

fn round(outcome: &mut Outcome, binding: &Binding, style: Style) -> Result<(), Failure> {
    let inputs = random(&outcome.imported, binding, 1, style)?;
    let names: Vec<String> =
        crate::inputs::ports(&outcome.imported).into_iter().map(|(n, _)| n).collect();
    let named: Vec<(&str, Tensor)> =
        names.iter().map(String::as_str).zip(inputs.iter().cloned()).collect();
    let evaluate = |graph: &Graph, mode| run(graph, &named, mode);
    let wanted = match evaluate(&outcome.imported, Mode::Exact) {
        Ok(wanted) => wanted,
        // Random inputs can violate what a model requires of its data.
        Err(e) => {
            let why = format!(
                "{style:?} inputs: the imported graph does not evaluate on random ones ({e})"
            );
            outcome.engine.provenance.verification.not_reached.push(why);
            return Ok(());
        }
    };
    let internal = |what: &str, e: &dyn std::error::Error| {
        Failure::new(Kind::Verification, format!("{what}: {}", error_chain(e)))
    };
    let expected = expect(&outcome.imported, &named, wanted)
        .map_err(|e| internal("the imported graph", &e))?;
    let optimised = evaluate(&outcome.optimised, Mode::Exact)
        .map_err(|e| internal("the optimised graph", &e))?;
    check(outcome, &format!("{style:?} inputs, optimised graph"), &optimised, &expected)?;
    let weights: Vec<Option<Tensor>> = outcome.engine.weights.iter().cloned().map(Some).collect();
    if let Some(plan) = outcome.engine.plans.values().next() {
        let kernels = tgc_runtime::reference::run_plan(plan, &weights, &inputs)
            .map_err(|e| internal("the kernels", &e))?;
        check(outcome, &format!("{style:?} inputs, kernel programs"), &kernels, &expected)?;
    }
    if outcome.engine.plans.contains_key("cpu") {
        let mut cpu = open(&outcome.engine, "cpu", RunOptions::default())?;
        let got = cpu.run(&inputs)?;
        check(outcome, &format!("{style:?} inputs, cpu device"), &got, &expected)?;
    }
    Ok(())
}

/// Every float off by one unit in the last place, up or down: what an output
/// moves by then, any order of operations may move it by.
fn perturbed(tensor: &Tensor) -> Tensor {
    let dtype = tensor.dtype();
    if !dtype.is_float() {
        return tensor.clone();
    }
    let epsilon = dtype.epsilon().unwrap_or(0.0).max(f64::from(f32::EPSILON));
    let mut draw = crate::inputs::Draw::new(tensor.len() as u64);
    let values: Vec<Value> = (0..tensor.len())
        .map(|i| {
            let step = if draw.unit() < 0.5 { epsilon } else { -epsilon };
            Value::Float(tensor.value(i).as_f64() * (1.0 + step))
        })
        .collect();
    Tensor::from_values(dtype, tensor.shape(), &values)
}

/// What the outputs of a graph must be on given inputs, where `wanted` are its
/// outputs in f64.
fn expect(
    graph: &Graph,
    inputs: &[(&str, Tensor)],
    wanted: Vec<Tensor>,
) -> Result<Vec<Expected>, EvalError> {
    let rounded = run(graph, inputs, Mode::Rounded)?;
    let moved: Vec<(&str, Tensor)> = inputs.iter().map(|(n, t)| (*n, perturbed(t))).collect();
    let moved = run(graph, &moved, Mode::Exact)?;
    let binding = tgc_ir::eval::bind_inputs(graph, inputs)?;
    let character = cost::character(graph, live_nodes(graph), &binding);
    let samples = rounded.into_iter().zip(moved);
    let expected = wanted.into_iter().zip(samples).map(|(want, (rounded, moved))| {
        let sensitivity = allowed(&want, &moved, character);
        let mut expected = Expected::new(want, rounded, character);
        expected.limit = expected.limit.max(sensitivity);
        expected
    });
    Ok(expected.collect())
}

fn live_nodes(graph: &Graph) -> impl Iterator<Item = NodeId> {
    let live = graph.live();
    graph.ids().filter(move |id| live[id.index()])
}

/// What an output must be.
struct Expected {
    want: Tensor,
    /// Largest error.
    limit: f64,
    /// Elements at which rounding to the declared dtypes overflows on the way.
    overflows: Vec<bool>,
}

impl Expected {
    fn new(want: Tensor, rounded: Tensor, character: Character) -> Expected {
        let overflow = |i: usize| {
            let (w, r) = (want.value(i).as_f64(), rounded.value(i).as_f64());
            !r.is_finite() && r != w && !(r.is_nan() && w.is_nan())
        };
        let overflows = if rounded.len() == want.len() {
            (0..want.len()).map(overflow).collect()
        } else {
            vec![false; want.len()]
        };
        let mut expected = Expected { want, limit: 0.0, overflows };
        expected.limit = allowed(&expected.want, &expected.settled(&rounded), character);
        expected
    }

    /// A result with the wanted values where any is allowed.
    fn settled(&self, got: &Tensor) -> Tensor {
        let same_type = got.dtype() == self.want.dtype() && got.shape() == self.want.shape();
        if !same_type || !self.overflows.contains(&true) {
            return got.clone();
        }
        let pick = |i: usize| if self.overflows[i] { self.want.value(i) } else { got.value(i) };
        let values: Vec<_> = (0..got.len()).map(pick).collect();
        Tensor::from_values(got.dtype(), got.shape(), &values)
    }
}

/// The allowed error of a value, from its evaluation with rounding and the
/// length of the longest sum behind it.
fn allowed(want: &Tensor, rounded: &Tensor, character: Character) -> f64 {
    let Ok(difference) = compare(rounded, want, 0.0, 1.0) else { return 0.0 };
    let epsilon = want.dtype().epsilon().unwrap_or(0.0).max(f64::from(f32::EPSILON));
    let rounding = if difference.max_abs.is_finite() { difference.max_abs } else { 0.0 };
    let ulps = FLOOR_ULPS * (character.longest_sum / SUM_FREE).sqrt().max(1.0);
    let magnitude = difference.max_want.max(f64::MIN_POSITIVE);
    let is_stepped = character.is_quantised && want.dtype().is_float();
    let step = if is_stepped { QUANTISED_STEP * magnitude } else { 0.0 };
    (SLACK * rounding + ulps * epsilon * magnitude).max(step)
}

/// What verification wants of the outputs of a graph on given inputs: the
/// values in f64 and the largest error of each.
///
/// # Errors
/// [`Failure`] when the graph does not evaluate on the inputs.
pub fn baseline(
    graph: &Graph,
    inputs: &[(&str, Tensor)],
) -> Result<(Vec<Tensor>, Vec<f64>), Failure> {
    let fail = |e: EvalError| Failure::new(Kind::Usage, error_chain(&e));
    let exact = run(graph, inputs, Mode::Exact).map_err(fail)?;
    let expected = expect(graph, inputs, exact).map_err(fail)?;
    Ok(expected.into_iter().map(|e| (e.want, e.limit)).unzip())
}

fn check(
    outcome: &mut Outcome,
    what: &str,
    got: &[Tensor],
    expected: &[Expected],
) -> Result<(), Failure> {
    let mut worst = 0.0f64;
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let (got, want, limit) = (&expected.settled(got), &expected.want, &expected.limit);
        let name = outcome.imported.outputs()[i].name.clone();
        let difference = compare(got, want, 0.0, *limit).map_err(|e| {
            Failure::new(Kind::Verification, format!("{what}: output `{name}`: {e}"))
        })?;
        if difference.excess > 1.0 {
            let at = difference.at;
            return Err(Failure::new(
                Kind::Verification,
                format!(
                    "{what}: output `{name}` differs by {:.3e} where {limit:.3e} is allowed\n  at element {at}: {:?} instead of {:?}\n  help: `tgc opt --check-each` names the first pass that changes an answer; --no-verify skips this check",
                    difference.max_abs,
                    got.value(at).as_f64(),
                    want.value(at).as_f64()
                ),
            ));
        }
        worst = worst.max(difference.max_abs / limit.max(f64::MIN_POSITIVE));
    }
    let line = format!(
        "{what}: {} outputs, largest error {:.0} % of the tolerance",
        expected.len(),
        100.0 * worst
    );
    outcome.engine.provenance.verification.checks.push(line);
    Ok(())
}

/// Small values of the symbols that satisfy bounds and constraints.
pub fn small_binding(graph: &Graph) -> Option<Binding> {
    let symbols: Vec<(Symbol, tgc_ir::facts::Bounds)> =
        graph.facts.symbols().map(|(s, b)| (s.clone(), *b)).collect();
    let data: Vec<&Symbol> = graph.data_symbols.iter().map(|(s, _)| s).collect();
    // A few sizes, distinct per symbol where possible, then equal ones, then multiples of 32.
    let tries: [&dyn Fn(usize) -> i64; 8] = [
        &|i| 2 + i as i64,
        &|_| 2,
        &|_| 8,
        &|_| 3,
        &|_| 1,
        &|i| 16 * (1 + i as i64 % 2),
        &|_| 32,
        &|_| 64,
    ];
    for size in tries {
        let mut values = BTreeMap::new();
        for (i, (symbol, bounds)) in symbols.iter().enumerate() {
            if data.contains(&symbol) {
                continue;
            }
            let step = bounds.multiple_of.max(1);
            let value = size(i).max(bounds.low).min(bounds.high.unwrap_or(i64::MAX));
            values.insert(symbol.clone(), (value + step - 1) / step * step);
        }
        // Equality constraints fix symbols.
        for require in graph.facts.requires() {
            if require.relation == tgc_ir::facts::Relation::Equal {
                let known = values.clone();
                for (a, b) in [(&require.lhs, &require.rhs), (&require.rhs, &require.lhs)] {
                    if let (Some(symbol), Ok(value)) =
                        (a.as_symbol(), b.eval(&|s| known.get(s).copied()))
                    {
                        values.insert(symbol.clone(), value);
                    }
                }
            }
        }
        let binding = Binding(values);
        if binding.check_facts(&graph.facts).is_ok() {
            return Some(binding);
        }
    }
    None
}

/// Estimated seconds that verification may still take.
struct Budget {
    left: f64,
}

impl Budget {
    /// Takes some, when that much is left.
    fn take(&mut self, seconds: f64) -> bool {
        let fits = seconds <= self.left;
        if fits {
            self.left -= seconds;
        }
        fits
    }
}
