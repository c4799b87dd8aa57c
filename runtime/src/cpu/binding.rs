//! Symbol values from inputs, and the checks that a run's inputs must pass.

use tgc_ir::Tensor;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::plan::{Plan, Source};

use super::error::CpuError;
use super::index::number;

/// The symbols' values: from extents and elements of inputs; for data symbols the bound.
pub(super) fn bind_symbols(plan: &Plan, inputs: &[Tensor]) -> Result<Vec<i64>, CpuError> {
    let mut values: Vec<i64> = Vec::with_capacity(plan.symbols.len());
    for source in &plan.symbols {
        let earlier = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
        let eval = |dim: &Dim, extent: i64| {
            let lookup = |s: &Symbol| if s.name() == "$0" { Some(extent) } else { earlier(s) };
            number(dim, &lookup)
                .map_err(|source| CpuError::Dim { kernel: "signature".into(), source })
        };
        let value = match &source.source {
            Source::InputExtent { input, axis, solve } => {
                let port = &plan.inputs[*input as usize];
                let tensor = &inputs[*input as usize];
                let extent = tensor
                    .shape()
                    .get(*axis as usize)
                    .copied()
                    .ok_or_else(|| wrong_type(port, tensor))?;
                eval(solve, extent as i64)?
            }
            Source::InputElement { input, element } => {
                let tensor = &inputs[*input as usize];
                if *element as usize >= tensor.len() {
                    return Err(wrong_type(&plan.inputs[*input as usize], tensor));
                }
                tensor.value(*element as usize).as_int() as i64
            }
            Source::Data { bound, .. } => eval(bound, 0)?,
        };
        let (low, high) = (source.bounds.low, source.bounds.high);
        if value < low || high.is_some_and(|h| value > h) {
            let high = high.map_or("any".to_owned(), |h| h.to_string());
            return Err(CpuError::Bounds { symbol: source.symbol.to_string(), value, low, high });
        }
        values.push(value);
    }
    Ok(values)
}

fn wrong_type(port: &tgc_ir::plan::Port, found: &Tensor) -> CpuError {
    CpuError::InputType {
        name: port.name.clone(),
        expected: format!("{}{}", port.dtype, tgc_ir::types::DisplayDims(&port.shape)),
        found: format!("{}{:?}", found.dtype(), found.shape()),
    }
}

/// Every input has the type that the signature says under the bound symbols.
pub(super) fn check_inputs(plan: &Plan, inputs: &[Tensor], values: &[i64]) -> Result<(), CpuError> {
    let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
    for (port, tensor) in plan.inputs.iter().zip(inputs) {
        let fits = port.dtype == tensor.dtype()
            && port.shape.len() == tensor.shape().len()
            && port
                .shape
                .iter()
                .zip(tensor.shape())
                .all(|(d, &n)| number(d, &lookup) == Ok(n as i64));
        if !fits {
            return Err(wrong_type(port, tensor));
        }
    }
    Ok(())
}

pub(super) fn check_constraints(plan: &Plan, values: &[i64]) -> Result<(), CpuError> {
    let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
    for require in &plan.requires {
        let holds = require.holds(&lookup);
        let holds =
            holds.map_err(|source| CpuError::Dim { kernel: require.origin.clone(), source })?;
        if !holds {
            return Err(CpuError::Require {
                require: require.to_string(),
                origin: require.origin.clone(),
            });
        }
    }
    Ok(())
}
