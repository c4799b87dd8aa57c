//! The ground floor of tgc: the languages that cross crates, each plain data
//! with a text form and a verifier, and the reference evaluation that judges
//! everything else.
//!
//! * [`graph::Graph`] with [`op::Op`], [`types::TensorType`], [`dim::Dim`] and
//!   [`facts::Facts`]: what a model means.
//! * [`partition::Partition`]: which nodes form one kernel.
//! * [`kernel_program::KernelProgram`]: what one kernel computes, for any machine.
//! * [`plan::Plan`]: what runs in which order over which memory.
//! * [`device_table`]: figures of machines.
//! * [`eval`]: one slow obvious implementation of every op and anchor.
//!
//! Absent here: ONNX, rewrite rules, kernels of any device, files, the
//! environment, the clock.

mod serde_text;

pub mod attr;
pub mod bind;
mod builder;
pub mod composite;
pub mod cost;
pub mod device_table;
pub mod dim;
mod dim_parse;
pub mod dtype;
pub mod eval;
pub mod facts;
pub mod graph;
pub mod infer;
pub mod kernel_program;
pub mod op;
pub mod partition;
pub mod plan;
pub mod scalar;
pub mod spec;
pub mod tensor;
pub mod text;
pub mod types;
pub mod view;
pub mod visit;

pub use dim::{Dim, Symbol};
pub use dtype::DType;
pub use facts::{Facts, Truth};
pub use graph::{Graph, NodeId};
pub use op::Op;
pub use tensor::Tensor;
pub use types::TensorType;
