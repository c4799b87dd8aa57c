//! Layer 4, kernel by kernel: kernels against the nodes that they compute, both
//! on the reference, on drawn inputs or on those of a run.
//!
//! Drawn inputs are for models that are too large to evaluate whole. Equal layers share their
//! kernels, so the work does not grow with depth.

use std::collections::{BTreeMap, BTreeSet};

use tgc_ir::bind::Binding;
use tgc_ir::eval::{Array, EvalError, Evaluator, Mode};
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::kernel_program::Access;
use tgc_ir::partition::Region;
use tgc_ir::plan::{Launch, Place, Plan};
use tgc_ir::scalar::Value;
use tgc_ir::{DType, Tensor};

use super::{Budget, allowed, cost};
use crate::inputs::Draw;
use crate::session::{Cut, Failure, Kind, Outcome, error_chain};
use crate::tolerance::compare;

/// Kernels that a record names when they were not reached.
const NAMED_MOST: usize = 6;

/// Checks the distinct kernels of the first target, cheapest first.
///
/// # Errors
/// [`Failure`] of kind verification, naming the kernel and its nodes.
pub(super) fn verify(
    outcome: &mut Outcome,
    binding: &Binding,
    budget: &mut Budget,
) -> Result<(), Failure> {
    let Some((target, plan)) = outcome.engine.plans.iter().next() else { return Ok(()) };
    let Some(cut) = outcome.cuts.get(target) else { return Ok(()) };
    let bench = Bench { graph: &outcome.primitives, plan, cut, binding };
    let mut seen = BTreeSet::new();
    let mut cases: Vec<Case<'_>> = plan
        .launches()
        .into_iter()
        .filter(|launch| seen.insert(launch.kernel))
        .filter_map(|launch| bench.case(launch))
        .collect();
    cases.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let (mut checked, mut worst, mut left_out) = (0, 0.0f64, Vec::new());
    for case in &cases {
        let name = &plan.kernels[case.launch.kernel as usize].name;
        if !budget.take(case.seconds) {
            left_out.push(format!("{name} (about {:.0} s)", case.seconds));
            continue;
        }
        match bench.check(case, &|node, dtype, shape| drawn(dtype, shape, u64::from(node.0)))? {
            Ok(share) => {
                worst = worst.max(share);
                checked += 1;
            }
            Err(e) => left_out.push(format!("{name} (does not evaluate on drawn inputs: {e})")),
        }
    }
    let nested = seen.len() - cases.len();
    let record = &mut outcome.engine.provenance.verification;
    if checked > 0 {
        let percent = 100.0 * worst;
        record.checks.push(format!(
            "{checked} of {} distinct kernels, each on drawn inputs: largest error {percent:.0} % of the tolerance",
            seen.len()
        ));
    }
    if nested > 0 {
        left_out.push(format!("{nested} kernels in branches and loops, or on states"));
    }
    if !left_out.is_empty() {
        let more = left_out.len().saturating_sub(NAMED_MOST);
        left_out.truncate(NAMED_MOST);
        if more > 0 {
            left_out.push(format!("and {more} more"));
        }
        record.not_reached.push(format!("kernel programs: {}", left_out.join(", ")));
    }
    Ok(())
}

/// What a kernel did on its actual inputs.
#[derive(Clone, Debug)]
pub struct KernelCheck {
    /// Name of the kernel.
    pub kernel: String,
    /// ONNX nodes that it computes.
    pub nodes: Vec<String>,
    /// What was found.
    pub finding: Finding,
}

/// What comparing a kernel with its nodes gave.
#[derive(Clone, Debug, PartialEq)]
pub enum Finding {
    /// They agree: the largest error as a share of the tolerance.
    Agrees(f64),
    /// They differ, with the place and the figures.
    Differs(String),
    /// They were not compared, and why.
    NotCompared(String),
}

impl KernelCheck {
    /// Whether the kernel computes something else than its nodes.
    pub fn differs(&self) -> bool {
        matches!(self.finding, Finding::Differs(_))
    }
}

/// Checks every kernel of the first target on the inputs that it meets in a run,
/// in order of execution. Kernels in branches and loops, and those on states, are
/// left out.
///
/// # Errors
/// When the graph itself does not evaluate on the inputs.
pub fn check_launches(
    outcome: &Outcome,
    inputs: &[(&str, Tensor)],
) -> Result<Vec<KernelCheck>, Failure> {
    let graph = &outcome.primitives;
    let fail = |e: EvalError| Failure::new(Kind::Verification, error_chain(&e));
    let mut evaluator = Evaluator::new(graph, inputs, Mode::Exact).map_err(fail)?;
    evaluator.run().map_err(fail)?;
    let binding = evaluator.binding.clone();
    let Some((target, plan)) = outcome.engine.plans.iter().next() else { return Ok(Vec::new()) };
    let Some(cut) = outcome.cuts.get(target) else { return Ok(Vec::new()) };
    let bench = Bench { graph, plan, cut, binding: &binding };
    let source = |node: NodeId, _: DType, _: &[usize]| evaluator.value(node).to_tensor();
    let checked = plan.launches().into_iter().filter_map(|launch| bench.case(launch)).map(|case| {
        let finding = match bench.check(&case, &source) {
            Ok(Ok(share)) => Finding::Agrees(share),
            Ok(Err(e)) => Finding::NotCompared(e.to_string()),
            Err(failure) => Finding::Differs(failure.message),
        };
        KernelCheck {
            kernel: plan.kernels[case.launch.kernel as usize].name.clone(),
            nodes: case.launch.provenance.clone(),
            finding,
        }
    });
    Ok(checked.collect())
}

/// Where the values that a kernel reads come from: by node, dtype and extents.
type Source<'s> = dyn Fn(NodeId, DType, &[usize]) -> Tensor + 's;

/// A launch with the nodes that it computes.
struct Case<'a> {
    launch: &'a Launch,
    region: &'a Region,
    seconds: f64,
}

struct Bench<'a> {
    graph: &'a Graph,
    plan: &'a Plan,
    cut: &'a Cut,
    binding: &'a Binding,
}

impl<'a> Bench<'a> {
    fn value_of(&self, buffer: u32) -> Option<NodeId> {
        self.cut.values.get(buffer as usize).copied().flatten()
    }

    /// None for launches inside branches and loops, whose buffers hold no value
    /// of the graph itself, for those on a state's memory, which holds different
    /// values before and after, and for kernels of literals.
    fn case(&self, launch: &'a Launch) -> Option<Case<'a>> {
        let on_state = |b: &u32| match self.plan.buffers[*b as usize].place {
            Place::Input(n) => self.plan.inputs[n as usize].state.is_some(),
            _ => false,
        };
        if launch.buffers.iter().any(on_state) {
            return None;
        }
        let arguments = &self.plan.kernels[launch.kernel as usize].buffers;
        let written: BTreeSet<NodeId> = launch
            .buffers
            .iter()
            .zip(arguments)
            .filter(|(_, argument)| argument.access != Access::Read)
            .filter_map(|(buffer, _)| self.value_of(*buffer))
            .collect();
        let regions = &self.cut.partition.regions;
        let region = regions
            .iter()
            .find(|r| !r.outputs.is_empty() && r.outputs.iter().all(|o| written.contains(o)))?;
        let nodes = region.nodes.iter().map(|n| cost::of_node(self.graph, *n, self.binding));
        // The nodes in two modes, and the kernel.
        let seconds =
            3.0 * nodes.sum::<f64>() + cost::of_buffers(self.plan, &launch.buffers, self.binding);
        Some(Case { launch, region, seconds })
    }

    /// The largest error as a share of the tolerance; the inner error when
    /// drawn inputs are not valid ones for these nodes.
    fn check(
        &self,
        case: &Case<'_>,
        source: &Source<'_>,
    ) -> Result<Result<f64, EvalError>, Failure> {
        let behind = self.behind(case);
        let drawn = match self.given(&behind, source) {
            Ok(drawn) => drawn,
            Err(e) => return Ok(Err(e)),
        };
        let (exact, rounded) = match (
            self.evaluate(&behind, &drawn, Mode::Exact),
            self.evaluate(&behind, &drawn, Mode::Rounded),
        ) {
            (Ok(exact), Ok(rounded)) => (exact, rounded),
            (Err(e), _) | (_, Err(e)) => return Ok(Err(e)),
        };
        let kernel = &self.plan.kernels[case.launch.kernel as usize];
        let at = || format!("kernel {} ({})", kernel.name, case.launch.provenance.join(", "));
        let contents = |buffer: u32| {
            let node = self.value_of(buffer).filter(|node| behind.contains_key(node))?;
            Some(exact.value(node).to_tensor())
        };
        let results = match tgc_runtime::reference::run_launch(
            self.plan,
            case.launch,
            self.binding,
            &contents,
        ) {
            Ok(results) => results,
            Err(e @ EvalError::NoWeight(_)) => return Ok(Err(e)),
            Err(e) => {
                let message = format!("{}: {}", at(), error_chain(&e));
                return Err(Failure::new(Kind::Verification, message));
            }
        };
        let mut worst = 0.0f64;
        for (buffer, got) in results {
            let Some(node) = self.value_of(buffer) else { continue };
            let want = exact.value(node).to_tensor();
            let nodes = behind.iter().filter(|(_, given)| !**given).map(|(node, _)| *node);
            let character = cost::character(self.graph, nodes, self.binding);
            let limit = allowed(&want, &rounded.value(node).to_tensor(), character);
            let difference = compare(&got, &want, 0.0, limit)
                .map_err(|e| Failure::new(Kind::Verification, format!("{}: {e}", at())))?;
            if difference.excess > 1.0 {
                let message = format!(
                    "{} differs from its nodes by {:.3e} where {limit:.3e} is allowed\n  at element {} of value {node}\n  help: `tgc compile --emit ir,kernels --no-verify` writes both as text",
                    at(),
                    difference.max_abs,
                    difference.at
                );
                return Err(Failure::new(Kind::Verification, message));
            }
            worst = worst.max(difference.max_abs / limit.max(f64::MIN_POSITIVE));
        }
        Ok(Ok(worst))
    }

    /// The nodes behind a region's outputs in topological order: down to values
    /// that lie in memory (flag true), through cheap ones that lie nowhere.
    fn behind(&self, case: &Case<'_>) -> BTreeMap<NodeId, bool> {
        let stored: BTreeSet<NodeId> = self.cut.values.iter().copied().flatten().collect();
        let mut found = BTreeMap::new();
        let mut stack = case.region.outputs.clone();
        while let Some(node) = stack.pop() {
            let given = stored.contains(&node) && !case.region.nodes.contains(&node);
            if found.insert(node, given).is_none() && !given {
                stack.extend(self.graph.operands(node));
            }
        }
        found
    }

    /// Values for what a region reads that is no weight or literal.
    fn given(
        &self,
        behind: &BTreeMap<NodeId, bool>,
        source: &Source<'_>,
    ) -> Result<Vec<(NodeId, Tensor)>, EvalError> {
        let is_leaf = |n: &NodeId| {
            let op = self.graph.op(*n);
            op.is_leaf() && !matches!(op, tgc_ir::Op::Input { .. })
        };
        behind
            .iter()
            .filter(|(node, given)| **given && !is_leaf(node))
            .map(|(&node, _)| {
                let ty = self.graph.ty(node);
                let what = || EvalError::Extent { what: node.to_string(), extent: -1 };
                let shape = self.binding.extents(&ty.shape).ok_or_else(what)?;
                Ok((node, source(node, ty.dtype, &shape)))
            })
            .collect()
    }

    fn evaluate(
        &self,
        behind: &BTreeMap<NodeId, bool>,
        drawn: &[(NodeId, Tensor)],
        mode: Mode,
    ) -> Result<Evaluator<'a>, EvalError> {
        let mut evaluator = Evaluator::unbound(self.graph, mode);
        evaluator.binding = self.binding.clone();
        for (node, tensor) in drawn {
            evaluator.set_value(*node, Array::from_tensor(tensor));
        }
        behind.keys().try_for_each(|node| evaluator.evaluate(*node))?;
        Ok(evaluator)
    }
}

/// Normal floats; integers and truth values 0 or 1, which are indices of every
/// axis that has two elements.
fn drawn(dtype: DType, shape: &[usize], seed: u64) -> Tensor {
    let mut draw = Draw::new(seed + 1);
    let mut value = || match dtype.is_float() {
        true => Value::Float(draw.normal()),
        false => Value::Int(i128::from(draw.unit() < 0.5)),
    };
    let values: Vec<Value> = (0..shape.iter().product::<usize>()).map(|_| value()).collect();
    Tensor::from_values(dtype, shape, &values)
}
