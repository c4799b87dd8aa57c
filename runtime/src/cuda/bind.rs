//! Symbol values from inputs, remembered while extents stay the same. Knows
//! no driver.

use std::collections::BTreeMap;

use tgc_ir::bind::{BindError, Binding};
use tgc_ir::dim::Symbol;
use tgc_ir::facts::Facts;
use tgc_ir::plan::{Plan, Source};
use tgc_ir::tensor::Tensor;
use tgc_ir::types::{DisplayDims, TensorType};

use super::error::CudaError;
use super::launch::Values;

/// What binding needs of a plan, made once.
#[derive(Debug)]
pub(super) struct Signature {
    types: Vec<TensorType>,
    facts: Facts,
    /// Inputs' elements that are symbols: (symbol, input, element).
    pub(super) elements: Vec<(Symbol, usize, usize)>,
}

/// The last binding.
#[derive(Debug, Default)]
pub(super) struct Bound {
    shapes: Vec<Vec<usize>>,
    elements: Vec<i64>,
    /// Values of the plan's symbols; data symbols hold their bound.
    pub(super) table: Vec<i64>,
    is_bound: bool,
}

impl Signature {
    pub(super) fn new(plan: &Plan) -> Signature {
        let ty = |p: &tgc_ir::plan::Port| TensorType::new(p.dtype, p.shape.iter().cloned());
        let elements = plan.symbols.iter().filter_map(|s| match s.source {
            Source::InputElement { input, element } => {
                Some((s.symbol.clone(), input as usize, element as usize))
            }
            _ => None,
        });
        Signature {
            types: plan.inputs.iter().map(ty).collect(),
            facts: plan.facts(),
            elements: elements.collect(),
        }
    }

    fn binding(
        &self,
        plan: &Plan,
        shapes: &[&[usize]],
        elements: &[i64],
    ) -> Result<Vec<i64>, CudaError> {
        let preset: BTreeMap<Symbol, i64> =
            self.elements.iter().zip(elements).map(|((s, ..), v)| (s.clone(), *v)).collect();
        let named: Vec<(&str, &TensorType, &[usize])> = plan
            .inputs
            .iter()
            .zip(&self.types)
            .zip(shapes)
            .map(|((p, ty), shape)| (p.name.as_str(), ty, *shape))
            .collect();
        let binding = Binding::from_inputs(&named, &self.facts, preset)?;
        let mut table = Vec::with_capacity(plan.symbols.len());
        for source in &plan.symbols {
            let value = match &source.source {
                Source::Data { bound, .. } => {
                    Values { plan, table: &table }.eval(bound, source.symbol.name())?
                }
                _ => binding
                    .value(&source.symbol)
                    .ok_or_else(|| BindError::Undetermined(source.symbol.clone()))?,
            };
            table.push(value);
        }
        Ok(table)
    }
}

impl Bound {
    /// Binds symbols from the inputs' extents and elements; true when they changed.
    pub(super) fn bind(
        &mut self,
        plan: &Plan,
        signature: &Signature,
        shapes: &[&[usize]],
        elements: &[i64],
    ) -> Result<bool, CudaError> {
        let same = self.is_bound
            && self.elements == elements
            && self.shapes.len() == shapes.len()
            && self.shapes.iter().zip(shapes).all(|(a, b)| a == b);
        if same {
            return Ok(false);
        }
        self.is_bound = false;
        self.table = signature.binding(plan, shapes, elements)?;
        self.shapes = shapes.iter().map(|s| s.to_vec()).collect();
        self.elements = elements.to_vec();
        self.is_bound = true;
        Ok(true)
    }

    /// Has the next binding count as changed.
    pub(super) fn forget(&mut self) {
        self.is_bound = false;
    }
}

/// An input's element type is the signature's.
pub(super) fn check_type(port: &tgc_ir::plan::Port, tensor: &Tensor) -> Result<(), CudaError> {
    if port.dtype == tensor.dtype() {
        return Ok(());
    }
    Err(CudaError::InputType {
        name: port.name.clone(),
        expected: format!("{}{}", port.dtype, DisplayDims(&port.shape)),
        found: format!("{}{:?}", tensor.dtype(), tensor.shape()),
    })
}
