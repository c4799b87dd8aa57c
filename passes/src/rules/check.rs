//! The property test of a rule, made from the rule itself: instances of its
//! left side are drawn, the production guards and functions run on them in a
//! real e-graph, and both sides are compared in inferred type and in value.
//!
//! Conditions of role `when` are not asked: a rule is sound without them.
//! Knows nothing of files or of any particular rule.

mod draw;
mod values;
mod views;

use tgc_ir::eval::Mode;
use tgc_ir::op::Op;
use tgc_ir::scalar::Value;

use crate::egraph::Trial;
use crate::rules::{Class, Rule, Term};

use draw::Drawer;
use values::{Rng, array_for};

/// Instances that must be reached for a rule to count as tested.
pub const REACHED_MIN: usize = 16;

/// Draws per wanted instance before giving up.
const DRAWS_PER_INSTANCE: usize = 400;

/// What the test of one rule found.
#[derive(Clone, Debug)]
pub struct RuleReport {
    /// Rule name.
    pub rule: String,
    /// Left sides drawn.
    pub drawn: usize,
    /// Instances on which the rule fired and both sides were evaluated.
    pub reached: usize,
    /// The first counterexample, with its left side.
    pub failure: Option<String>,
}

impl RuleReport {
    /// Enough instances and no counterexample.
    pub fn holds(&self) -> bool {
        self.failure.is_none() && self.reached >= REACHED_MIN
    }
}

impl std::fmt::Display for RuleReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let RuleReport { rule, drawn, reached, failure } = self;
        match failure {
            Some(failure) => write!(f, "{rule}: wrong after {reached} instances: {failure}"),
            None if *reached < REACHED_MIN => {
                write!(
                    f,
                    "{rule}: only {reached} of {drawn} draws were instances, {REACHED_MIN} are needed"
                )
            }
            None => write!(f, "{rule}: {reached} instances of {drawn} draws hold"),
        }
    }
}

/// Tests a rule on this many instances drawn from `seed`; stops at the first
/// counterexample.
pub fn check_rule(rule: &Rule, seed: u64, instances: usize) -> RuleReport {
    let mut report = RuleReport { rule: rule.name.clone(), drawn: 0, reached: 0, failure: None };
    let variants = rule.variants();
    let mut rng = Rng::new(
        seed ^ rule.name.bytes().fold(0, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)),
    );
    while report.reached < instances && report.drawn < instances * DRAWS_PER_INSTANCE {
        report.drawn += 1;
        let lhs = &variants[rng.below(variants.len())];
        let drawn = Drawer::new(rule, lhs, &mut rng).draw();
        let Some(drawn) = drawn else { continue };
        match try_instance(rule, lhs, drawn.0, &drawn.1, rng.next()) {
            Ok(reached) => report.reached += usize::from(reached),
            Err(failure) => {
                report.failure = Some(failure);
                break;
            }
        }
    }
    report
}

/// Whether the rule fired on an instance; the difference when it is wrong.
fn try_instance(
    rule: &Rule,
    lhs: &Term,
    mut trial: Trial,
    binding: &tgc_ir::bind::Binding,
    seed: u64,
) -> Result<bool, String> {
    let is_exact = rule.class == Class::Exact;
    let mode = if is_exact { Mode::Rounded } else { Mode::Exact };
    let inputs = |op: &Op| match op {
        Op::Input { name, ty } => {
            let own =
                name.bytes().fold(seed, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
            array_for(ty, binding, &mut Rng::new(own), is_exact)
        }
        _ => None,
    };
    let mut reached = false;
    for rewritten in trial.rewrite(rule, lhs).into_iter().flatten() {
        // What the reference refuses on the left says nothing of the rule.
        let Ok(sides) = trial.evaluate(&rewritten, binding, &inputs, mode) else { continue };
        reached = true;
        let wrong = |what: String| format!("{what}\nwith {:?}\n{}", binding.0, trial.text());
        let inferred = binding.extents(&sides.rhs_type.shape);
        if inferred.as_deref() != Some(&sides.rhs.shape) || sides.rhs_type.dtype != sides.rhs.dtype
        {
            return Err(wrong(format!(
                "inferred {}, evaluated {:?}",
                sides.rhs_type, sides.rhs.shape
            )));
        }
        if sides.lhs.shape != sides.rhs.shape || sides.lhs.dtype != sides.rhs.dtype {
            return Err(wrong(format!(
                "left is {:?}, right {:?}",
                sides.lhs.shape, sides.rhs.shape
            )));
        }
        let values =
            |a: &tgc_ir::eval::Array| (0..a.len()).map(|i| a.get(i)).collect::<Vec<Value>>();
        let (left, right) = (values(&sides.lhs), values(&sides.rhs));
        if let Some(at) =
            values::first_difference(&left, &right, is_exact, trial.coarsest_epsilon())
        {
            return Err(wrong(format!("element {at}: left {:?}, right {:?}", left[at], right[at])));
        }
    }
    Ok(reached)
}
