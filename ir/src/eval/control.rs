//! Reference of branches and loops.

use std::sync::Arc;

use crate::attr::Region;
use crate::dim::Symbol;
use crate::eval::EvalError;
use crate::eval::array::Array;
use crate::eval::node::{Evaluator, Machine};

/// Rounds that the reference runs before it gives up.
const ROUNDS_MAX: usize = 1 << 20;

fn run_region(
    machine: &mut Machine<'_>,
    region: &Region,
    params: &[Arc<Array>],
) -> Result<Vec<Arc<Array>>, EvalError> {
    let graph = region.graph();
    let mut evaluator = Evaluator::for_region(graph, params, machine.binding, machine.mode);
    evaluator.run()?;
    let outputs = graph.outputs().iter().map(|o| evaluator.value(o.node).clone()).collect();
    for (symbol, value) in evaluator.binding.0 {
        machine.binding.0.entry(symbol).or_insert(value);
    }
    Ok(outputs)
}

pub(crate) fn branch(
    machine: &mut Machine<'_>,
    then: &Region,
    otherwise: &Region,
    x: &[Arc<Array>],
) -> Result<Vec<Array>, EvalError> {
    let region = if x[0].get(0).is_true() { then } else { otherwise };
    Ok(run_region(machine, region, &x[1..])?.iter().map(|a| (**a).clone()).collect())
}

pub(crate) fn repeat(
    machine: &mut Machine<'_>,
    body: &Region,
    carried: usize,
    rounds: &Symbol,
    x: &[Arc<Array>],
) -> Result<Vec<Array>, EvalError> {
    let trip = x[0].get(0).as_int();
    let mut go = x[1].get(0).is_true();
    let mut state: Vec<Arc<Array>> = x[2..2 + carried].to_vec();
    let captures = &x[2 + carried..];
    let stacks = body.graph().outputs().len().saturating_sub(1 + carried);
    let mut stacked: Vec<Vec<Arc<Array>>> = vec![Vec::new(); stacks];
    let mut round = 0usize;
    while go && (round as i128) < trip {
        if round >= ROUNDS_MAX {
            return Err(EvalError::TooLarge { what: "loop".into(), limit: ROUNDS_MAX });
        }
        let counter =
            Array::filled(crate::DType::I64, &[], crate::scalar::Value::Int(round as i128));
        machine.bind_count(rounds, round);
        let params: Vec<Arc<Array>> = std::iter::once(Arc::new(counter))
            .chain(state.iter().cloned())
            .chain(captures.iter().cloned())
            .collect();
        let results = run_region(machine, body, &params)?;
        go = results[0].get(0).is_true();
        state = results[1..1 + carried].to_vec();
        for (stack, value) in stacked.iter_mut().zip(&results[1 + carried..]) {
            stack.push(value.clone());
        }
        round += 1;
    }
    machine.bind_count(rounds, round);
    let mut out: Vec<Array> = state.iter().map(|a| (**a).clone()).collect();
    for (i, stack) in stacked.iter().enumerate() {
        let output = body.graph().outputs()[1 + carried + i].node;
        let ty = body.graph().ty(output);
        let inner = match stack.first() {
            Some(first) => first.shape.clone(),
            None => machine.extents("loop", &ty.shape)?,
        };
        let size: usize = inner.iter().product();
        let shape: Vec<usize> = std::iter::once(round).chain(inner).collect();
        out.push(Array::build(ty.dtype, &shape, |at| stack[at / size].get(at % size)));
    }
    Ok(out)
}
