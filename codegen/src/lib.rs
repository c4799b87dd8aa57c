//! From graph to kernels and plan: expansion, cut, layout, lowering, schedules, CUDA
//! text and its compilation, plan building.
//!
//! [`compile`] runs the machine-neutral part: a graph becomes a
//! [`tgc_ir::partition::Partition`], each region a
//! [`tgc_ir::kernel_program::KernelProgram`], and the whole a
//! [`tgc_ir::plan::Plan`]. [`cuda`] turns kernel programs into text and
//! binaries.
//!
//! Absent here: ONNX, rewrite rules, running anything, the environment.

pub mod cuda;
pub mod cut;
pub mod expand;
pub mod layout;
pub mod lower;
pub mod plan;
pub mod schedule;
pub mod state;

use tgc_ir::partition::Partition;
use tgc_ir::plan::Plan;
use tgc_ir::{Graph, NodeId};

/// What the machine-neutral part of code generation gives.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The graph in primitives that regions refer to.
    pub graph: Graph,
    /// Its cut.
    pub partition: Partition,
    /// Kernels, memory and order.
    pub plan: Plan,
    /// Per buffer of the plan the value of the graph that it holds; none for
    /// buffers of nested regions.
    pub values: Vec<Option<NodeId>>,
}

/// A graph cannot be compiled.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum CodegenError {
    /// No kernel family computes an op.
    #[error("no kernel computes `{op}` yet (from {location}); `--device reference` evaluates it")]
    Unsupported {
        /// Op name.
        op: String,
        /// ONNX nodes it comes from.
        location: String,
    },
    /// A rewritten type is wrong: a fault of ours.
    #[error(transparent)]
    Type(#[from] tgc_ir::infer::Violation),
    /// A cut is wrong: a fault of ours.
    #[error(transparent)]
    Partition(#[from] tgc_ir::partition::PartitionError),
    /// A symbol cannot be found from the inputs.
    #[error(
        "symbol `{0}` is determined by no input; declare its dim or give it a value with `--dim`"
    )]
    Undetermined(String),
}

/// Cuts, lowers and plans a graph for a target (`cpu`, `sm_90a`, …).
pub fn compile(graph: &Graph, target: &str) -> Result<Compiled, CodegenError> {
    let graph = expand::expand(graph)?;
    let partition = cut::cut(&graph)?;
    partition.verify(&graph)?;
    let layouts = layout::decide(&graph, &partition, layout::Preferences::of(target));
    let plan::Planned { plan, values } = plan::build(&graph, &partition, &layouts, target)?;
    Ok(Compiled { graph, partition, plan, values })
}
