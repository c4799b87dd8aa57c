//! The tile interpreter: a scalar body compiled to operations over tiles of rows by columns.
//!
//! A body's axes are split into *fixed* ones (constant in a tile), *row* axes and *column* axes. Each value knows
//! whether it varies by row, by column, by both or not at all, and is computed once per what it varies by: a bias
//! once per column, a token id once per row. Knows no anchor; reductions run over the columns of a row.

mod allocate;
mod bits;
mod compile;
mod reduce;
mod run;
mod scalar;
mod superops;

pub use compile::{Spec, compile};
pub use run::{Scratch, Tile};
pub use scalar::wrap;

use tgc_ir::DType;
use tgc_ir::kernel_program::ReduceOp;
use tgc_ir::scalar::ScalarOp;

use super::index::Walk;
use super::kernels::lanes::{Arg, Binary, Extent, Spread, Unary};
use super::kernels::slots::Kind;

/// By what a value varies within a tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Level {
    /// By row.
    pub row: bool,
    /// By column.
    pub col: bool,
}

impl Level {
    /// By both.
    pub const FULL: Level = Level { row: true, col: true };

    /// What varies when either varies.
    #[must_use]
    pub fn join(self, other: Level) -> Level {
        Level { row: self.row || other.row, col: self.col || other.col }
    }

    /// Elements that a value of this level has in a tile.
    #[must_use]
    pub fn extent(self, tile: Extent) -> Extent {
        Extent {
            rows: if self.row { tile.rows } else { 1 },
            width: if self.col { tile.width } else { 1 },
        }
    }

    /// How a value of level `self` meets an operation of level `at`.
    #[must_use]
    pub fn spread(self, at: Level) -> Spread {
        match (self.row, self.col) {
            _ if self == at => Spread::Full,
            (true, false) => Spread::Row,
            (false, true) => Spread::Col,
            _ => Spread::One,
        }
    }
}

/// An affine element offset or index, laid over a tile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Form {
    /// At the origin.
    pub base: i64,
    /// Per fixed axis.
    pub fixed: Vec<i64>,
    /// Over the row axes.
    pub rows: Walk,
    /// Over the column axes.
    pub cols: Walk,
}

/// A slot and the level of the value in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg {
    /// Which slot.
    pub slot: u16,
    /// By what the value varies.
    pub level: Level,
}

/// One operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Ins {
    /// By what the result varies.
    pub level: Level,
    /// Where the result goes (stores: what is stored).
    pub dst: u16,
    /// What is done.
    pub op: Op,
}

/// Operations.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// An affine index as integers.
    Coord(Form),
    /// Elements at an affine offset plus, per row, `add`; rows and columns whose mask is false read as zero.
    /// `in_place`: nobody reads the slot itself, so that it may stand for the memory of the elements.
    Load {
        region: u16,
        dtype: DType,
        form: Form,
        add: Option<Reg>,
        row_mask: Option<Reg>,
        col_mask: Option<u16>,
        in_place: bool,
    },
    /// Elements at computed offsets; zero outside the buffer or where the mask is false.
    Gather { region: u16, dtype: DType, index: u16, mask: Option<u16> },
    /// A vector operation.
    Unary(Unary, u16),
    /// A vector operation.
    Binary(Binary, Arg, Arg),
    /// Any row of the scalar table on values of a dtype.
    Scalar(ScalarOp, DType, [Arg; 3]),
    /// Floor division of integers.
    FloorDiv(Arg, Arg),
    /// Remainder of floor division.
    FloorMod(Arg, Arg),
    /// Conversion between dtypes.
    Cast { from: DType, to: DType, src: u16 },
    /// The same bits as another dtype of equal width.
    Bitcast { from: DType, to: DType, src: u16 },
    /// A value spread to this instruction's level.
    Expand(Kind, Arg),
    /// Columns of each row reduced.
    Reduce { op: ReduceOp, dtype: DType, src: Reg },
    /// `dst` stored at an affine offset plus, per row, `add`.
    Store { region: u16, dtype: DType, form: Form, add: Option<Reg> },
    /// `dst` stored at computed offsets; outside the buffer nothing.
    Scatter { region: u16, dtype: DType, index: u16 },
}

/// A compiled body.
#[derive(Clone, Debug)]
pub struct Program {
    /// Operations in order.
    pub ins: Vec<Ins>,
    /// Slots used.
    pub slots: u16,
    /// Where the wanted values are, one per request, full tiles.
    pub results: Vec<(u16, Kind)>,
    /// For chunked rows: per pass, what runs once before it and what runs per chunk.
    pub passes: Vec<Pass>,
    /// Arguments that the program stores to.
    pub written: Vec<u16>,
}

/// One sweep over the columns of a row in chunks.
#[derive(Clone, Debug, Default)]
pub struct Pass {
    /// Once per row, before the sweep: operations that do not vary by column.
    pub once: Vec<u32>,
    /// Per chunk.
    pub chunk: Vec<u32>,
}
