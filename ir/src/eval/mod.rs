//! The reference: one slow obvious implementation of every op and of every
//! kernel anchor, in f64 and exact integers, optionally rounding to the
//! declared dtype after each op. It judges everything and shares no code with
//! any device.

mod array;
pub(crate) mod body;
mod control;
mod data;
mod kernel;
mod kernel_anchors;
mod linear;
mod movement;
mod node;
mod recurrent;
mod windows;

pub use array::Array;
pub use kernel::{KernelData, run_kernel};
pub use node::Evaluator;

use crate::bind::{BindError, Binding};
use crate::graph::Graph;
use crate::tensor::Tensor;

/// How results are kept between ops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Floats stay f64 whatever their declared dtype.
    Exact,
    /// Floats are rounded to their declared dtype after each op.
    Rounded,
}

/// Evaluation did not give a result.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum EvalError {
    /// Inputs do not fit.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A model input was not given.
    #[error("input `{0}` is missing")]
    MissingInput(String),
    /// An input that the model does not have.
    #[error("there is no input `{0}`")]
    UnknownInput(String),
    /// Another element type than declared.
    #[error("input `{name}` should be {expected}, is {found}")]
    InputType {
        /// Input name.
        name: String,
        /// Declared element type.
        expected: crate::DType,
        /// Given element type.
        found: crate::DType,
    },
    /// The contents of a weight are not in the graph.
    #[error("the contents of weight `{0}` are not in the graph")]
    NoWeight(String),
    /// A dim has no value.
    #[error(transparent)]
    Dim(#[from] crate::dim::DimError),
    /// An extent is negative or too large.
    #[error("{what} would have {extent} elements along an axis")]
    Extent {
        /// Node or buffer.
        what: String,
        /// The extent.
        extent: i64,
    },
    /// An index is outside its axis.
    #[error("{what}: index {index} is outside 0..{extent}")]
    Index {
        /// Node or buffer.
        what: String,
        /// The index.
        index: i64,
        /// Its limit.
        extent: usize,
    },
    /// A tensor would exceed what the reference takes on.
    #[error("{what} would have more than {limit} elements")]
    TooLarge {
        /// Node.
        what: String,
        /// Limit.
        limit: usize,
    },
    /// A type rule failed inside a composite.
    #[error(transparent)]
    Type(#[from] crate::infer::Violation),
}

/// Evaluates a graph on named inputs; outputs in order.
pub fn run(graph: &Graph, inputs: &[(&str, Tensor)], mode: Mode) -> Result<Vec<Tensor>, EvalError> {
    let mut evaluator = Evaluator::new(graph, inputs, mode)?;
    evaluator.run()?;
    Ok(graph.outputs().iter().map(|o| evaluator.value(o.node).to_tensor()).collect())
}

/// Binds the symbols of a graph from named inputs (checking names and types).
pub fn bind_inputs(graph: &Graph, inputs: &[(&str, Tensor)]) -> Result<Binding, EvalError> {
    node::bind(graph, inputs)
}
