//! Plans: what runs in which order over which memory.
//!
//! Offsets and sizes are expressions over symbols that binding gives values,
//! so one plan serves every shape. Plain data; the text form is RON.

mod walk;

use serde::{Deserialize, Serialize};

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::facts::{Bounds, Facts, Require};
use crate::kernel_program::KernelProgram;
pub use walk::{Event, change_launches, walk};

/// Stands for a buffer that nobody reads (an unused result of a host step).
pub const NO_BUFFER: u32 = u32::MAX;

/// A compiled graph for one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Target name (`cpu`, `sm_90a`, …).
    pub target: String,
    /// Symbols in the order of the run-time table.
    pub symbols: Vec<SymbolSource>,
    /// Constraints that binding checks.
    pub requires: Vec<Require>,
    /// Model inputs, in order.
    pub inputs: Vec<Port>,
    /// Model outputs, in order.
    pub outputs: Vec<Port>,
    /// Every tensor that a step names.
    pub buffers: Vec<PlanBuffer>,
    /// Instructions, in order.
    pub steps: Vec<Step>,
    /// Size of the one memory block for everything placed in the arena.
    pub arena_bytes: Dim,
    /// Kernel programs that launches refer to; equal layers share one.
    pub kernels: Vec<KernelProgram>,
}

/// A named tensor at the boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Name in the model.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<Dim>,
    /// Index in [`Plan::buffers`].
    pub buffer: u32,
    /// For an input that is a state: the output that is its next value.
    pub state: Option<u32>,
}

/// Where a symbol's value comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SymbolSource {
    /// Which symbol.
    pub symbol: Symbol,
    /// Its bounds, checked when bound.
    pub bounds: Bounds,
    /// How it is found.
    pub source: Source,
}

/// How a symbol is found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// The extent of an input's axis is an expression of this symbol and of
    /// earlier ones; `solve` gives the symbol in terms of `$0` (the extent)
    /// and earlier symbols.
    InputExtent {
        /// Index in [`Plan::inputs`].
        input: u32,
        /// Axis.
        axis: u32,
        /// The symbol's value in terms of `$0`.
        solve: Dim,
    },
    /// An element of a small integer input.
    InputElement {
        /// Index in [`Plan::inputs`].
        input: u32,
        /// Row-major element index.
        element: u32,
    },
    /// A count that a step finds while running; before that its upper bound
    /// stands for it in sizes.
    Data {
        /// Index in [`Plan::steps`] of the step, or of the one that holds it.
        step: u32,
        /// Upper bound.
        bound: Dim,
    },
}

/// A tensor in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanBuffer {
    /// For people: the value it holds.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<Dim>,
    /// Strides in elements.
    pub strides: Vec<Dim>,
    /// Bytes from the first to the last element inclusive.
    pub bytes: Dim,
    /// Where it lies.
    pub place: Place,
}

/// Where a buffer lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// Caller's input of this index.
    Input(u32),
    /// Caller's output of this index.
    Output(u32),
    /// Weight of this index in the engine.
    Weight(u32),
    /// In the arena, 64-byte aligned.
    Arena {
        /// Byte offset.
        offset: Dim,
    },
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Runs a kernel.
    Launch(Launch),
    /// Copies the elements of a buffer to another of equal element type and
    /// rank, each by its own strides; the other may have room for more.
    Copy {
        /// Source buffer.
        from: u32,
        /// Destination buffer.
        to: u32,
    },
    /// Work that the host does on buffers.
    Host(HostStep),
    /// Runs one of two plans by a bool element.
    If {
        /// Buffer of one bool.
        predicate: u32,
        /// When true.
        then_steps: Vec<Step>,
        /// When false.
        else_steps: Vec<Step>,
    },
    /// Repeats steps.
    Loop(Box<LoopStep>),
}

/// The greatest number of rounds of a loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trip {
    /// The condition alone ends it.
    Unbounded,
    /// Known when bound.
    Known(Dim),
    /// The element of a buffer of one i64, read before the first round.
    Read(u32),
}

/// A counted and conditional loop. A carried value lives in one buffer: rounds
/// read it, and its next value is written to it after, or by, the round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoopStep {
    /// The greatest number of rounds.
    pub trip: Trip,
    /// Buffer of one bool, read before every round.
    pub condition: Option<u32>,
    /// Buffer of one i64 that receives the round number.
    pub iteration: Option<u32>,
    /// The round.
    pub body: Vec<Step>,
    /// Copied after every round: (from, to).
    pub carried: Vec<(u32, u32)>,
    /// Values stacked over rounds: (value, stack).
    pub stacked: Vec<(u32, u32)>,
    /// Symbol that receives the number of rounds.
    pub rounds: Option<Symbol>,
    /// `rounds` receives the rounds completed so far before every round, too:
    /// extents inside depend on it.
    pub counts_rounds: bool,
}

/// Running a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// Index in [`Plan::kernels`].
    pub kernel: u32,
    /// One buffer per kernel argument.
    pub buffers: Vec<u32>,
    /// Ways to launch on a GPU; empty for other targets.
    pub variants: Vec<Variant>,
    /// For people: ONNX nodes and rules.
    pub provenance: Vec<String>,
}

/// One way to launch on a GPU; of a list the first whose guard holds runs,
/// the last has no guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// All must hold under the bound symbols.
    pub guard: Vec<Require>,
    /// Entry point, one of the kernels of the engine.
    pub entry: String,
    /// Blocks.
    pub grid: [Dim; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: Dim,
    /// Zeroed scratch in the arena that the kernel gets as its last argument.
    pub workspace_bytes: Dim,
}

/// Host work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStep {
    /// What.
    pub op: HostOp,
    /// Operand buffers.
    pub inputs: Vec<u32>,
    /// Result buffers.
    pub outputs: Vec<u32>,
    /// Symbol that receives a count.
    pub count: Option<Symbol>,
}

/// Kinds of host work: ops whose result size depends on data, and generators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostOp {
    /// Indices of true elements, i64[rank, count], row-major order.
    NonZero,
    /// Greedy non-maximum suppression (ONNX NonMaxSuppression-11), i64[count, 3].
    NonMaxSuppression {
        /// Boxes are centre and size instead of corners.
        center_point: bool,
    },
    /// Sorted or first-seen unique elements with indices, inverse and counts.
    Unique {
        /// Axis, or flattened.
        axis: Option<u32>,
        /// Ascending instead of first seen.
        sorted: bool,
    },
}

impl Plan {
    /// Every constraint and bound as facts for the prover.
    pub fn facts(&self) -> Facts {
        let mut facts = Facts::default();
        for s in &self.symbols {
            facts.bound(s.symbol.clone(), s.bounds);
        }
        for r in &self.requires {
            facts.require(r.clone());
        }
        facts
    }

    /// Position of a symbol in the run-time table.
    pub fn symbol_index(&self, symbol: &Symbol) -> Option<usize> {
        self.symbols.iter().position(|s| &s.symbol == symbol)
    }
}
