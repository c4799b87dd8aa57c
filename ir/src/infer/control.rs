//! Type rules of the ops with regions.

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::facts::Facts;
use crate::graph::{Graph, ResultTypes};
use crate::types::TensorType;

use super::{Inferred, fail, same_dims};

/// The extents of a carried value after a number of rounds.
pub fn after_rounds(shape: &[Dim], rounds: &Symbol, count: &Dim) -> Vec<Dim> {
    shape.iter().map(|d| d.substitute(&|s| (s == rounds).then(|| count.clone()))).collect()
}

fn fits(have: &TensorType, dtype: DType, shape: &[Dim], facts: &Facts) -> bool {
    have.dtype == dtype && same_dims(&have.shape, shape, facts)
}

fn inputs(region: &Graph) -> impl Iterator<Item = &TensorType> {
    region.inputs().iter().map(|n| region.ty(*n))
}

fn results(region: &Graph) -> impl Iterator<Item = &TensorType> {
    region.outputs().iter().map(|o| region.ty(o.node))
}

/// One of two regions: both map the captures to results of the same types.
pub(super) fn branches(
    then: &Graph,
    otherwise: &Graph,
    operands: &[&TensorType],
    facts: &Facts,
) -> Inferred {
    let Some((condition, captures)) = operands.split_first() else {
        return fail("if C1", "needs a condition".to_owned());
    };
    if condition.rank() != 0 || condition.dtype != DType::Bool {
        return fail("if C1", format!("the condition is {condition}, should be bool[]"));
    }
    for region in [then, otherwise] {
        if region.inputs().len() != captures.len() {
            let message = format!(
                "a branch takes {} values, {} are captured",
                region.inputs().len(),
                captures.len()
            );
            return fail("if C2", message);
        }
        for (want, have) in inputs(region).zip(captures) {
            if !fits(have, want.dtype, &want.shape, facts) {
                return fail("if C2", format!("a branch takes {want}, {have} is captured"));
            }
        }
    }
    if then.outputs().len() != otherwise.outputs().len() {
        return fail("if C3", "branches have different numbers of results".to_owned());
    }
    for (a, b) in results(then).zip(results(otherwise)) {
        if !fits(b, a.dtype, &a.shape, facts) {
            return fail("if C3", format!("branches give {a} and {b}"));
        }
    }
    Ok(results(then).cloned().collect())
}

/// Repetition: see [`crate::Op::Loop`].
pub(super) fn repeated(
    body: &Graph,
    carried: i64,
    rounds: &Symbol,
    operands: &[&TensorType],
    facts: &Facts,
) -> Inferred {
    let carried = usize::try_from(carried).unwrap_or(0);
    if operands.len() < 2 + carried
        || body.inputs().len() + 1 != operands.len()
        || body.outputs().len() < 1 + carried
    {
        let message = format!(
            "a body of {} parameters and {} results for {} operands, {carried} of them carried",
            body.inputs().len(),
            body.outputs().len(),
            operands.len()
        );
        return fail("loop C1", message);
    }
    let is_scalar = |ty: &TensorType, dtype| ty.rank() == 0 && ty.dtype == dtype;
    if !is_scalar(operands[0], DType::I64) || !is_scalar(operands[1], DType::Bool) {
        let message = format!(
            "count {} and condition {}, should be i64[] and bool[]",
            operands[0], operands[1]
        );
        return fail("loop C2", message);
    }
    let mut out = ResultTypes::new();
    for (i, want) in inputs(body).skip(1).enumerate() {
        let first = after_rounds(&want.shape, rounds, &Dim::ZERO);
        if !fits(operands[2 + i], want.dtype, &first, facts) {
            return fail("loop C3", format!("a body takes {want}, finds {}", operands[2 + i]));
        }
        if i >= carried {
            continue;
        }
        let next = after_rounds(&want.shape, rounds, &(Dim::from(rounds) + Dim::ONE));
        let result = body.ty(body.outputs()[1 + i].node);
        if !fits(result, want.dtype, &next, facts) {
            return fail("loop C4", format!("a round makes {result} of the carried {want}"));
        }
        out.push(want.clone());
    }
    for mut ty in results(body).skip(1 + carried).cloned() {
        if ty.shape.iter().any(|d| d.mentions(rounds)) {
            return fail(
                "loop C5",
                format!("stacks {ty}, whose extents change from round to round"),
            );
        }
        ty.shape.insert(0, Dim::from(rounds));
        out.push(ty);
    }
    Ok(out)
}
