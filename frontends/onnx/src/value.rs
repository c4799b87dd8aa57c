//! What an ONNX value name stands for while a graph is imported, and how operators report failure.

use std::rc::Rc;

use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::tensor::Tensor;

use crate::attr::AttrError;
use crate::known::Known;

/// A tensor of the file that becomes a weight node when something reads it.
#[derive(Debug)]
pub(crate) struct Weight {
    pub name: String,
    pub tensor: Tensor,
    /// Written in the graph (a Constant node) rather than in its table of weights.
    pub is_literal: bool,
    /// Elements, when there are few.
    pub known: Option<Rc<Known>>,
}

/// An ONNX value.
#[derive(Clone, Debug)]
pub(crate) enum Val {
    /// A node of the graph.
    Node(NodeId),
    /// Elements known at import; becomes nodes only when data needs it.
    Known(Rc<Known>),
    /// A small integer value that is data, and its elements as dims for those who need a shape.
    Traced(NodeId, Rc<Known>),
    /// A tensor of the file.
    Weight(Rc<Weight>),
    /// A sequence of known length, and its element type.
    Sequence(Rc<Vec<Val>>, DType),
    /// An optional; `None` is empty.
    Optional(Option<Rc<Val>>),
    /// The result of a node that could not be imported; readers are passed over silently.
    Broken,
}

impl From<NodeId> for Val {
    fn from(id: NodeId) -> Self {
        Self::Node(id)
    }
}

impl From<Known> for Val {
    fn from(known: Known) -> Self {
        Self::Known(Rc::new(known))
    }
}

/// The results of a node, as many as the operator defines (absent trailing ones may be left out).
pub(crate) type Outputs = Vec<Val>;

/// Why a node could not be imported.
#[derive(Clone, Debug)]
pub(crate) enum OpError {
    /// A form of the operator that is not supported.
    Unsupported(String),
    /// Operands or attributes that the operator does not allow.
    Invalid(String),
    /// Operand `index` must be known at import.
    NotConstant { index: usize, what: &'static str },
    /// A tensor attribute that cannot be read.
    Tensor(String),
    /// Too much work.
    Limit(String),
    /// An operand comes from a node that failed; nothing is said.
    Broken,
}

impl OpError {
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::Invalid(message.into())
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::Unsupported(message.into())
    }
}

impl From<AttrError> for OpError {
    fn from(error: AttrError) -> Self {
        Self::Invalid(format!("is malformed: {error}"))
    }
}

impl From<crate::tensors::ReadTensorError> for OpError {
    fn from(error: crate::tensors::ReadTensorError) -> Self {
        match error {
            crate::tensors::ReadTensorError::Type { .. } => {
                Self::Unsupported(format!("needs {error}"))
            }
            other => Self::Tensor(format!("has a tensor that cannot be read: {other}")),
        }
    }
}
