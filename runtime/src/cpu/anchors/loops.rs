//! `loops`: every point of a space, independently.

use tgc_ir::kernel_program::Loops;

use super::Launch;
use crate::cpu::boxes;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Columns that make a tile worth its bookkeeping.
const WIDE: i64 = 256;

/// Columns that make a row worth its own offset.
const RUN: i64 = 16;

#[derive(Debug)]
pub(super) struct BoundLoops {
    parts: Vec<Part>,
}

/// A box of the space.
#[derive(Debug)]
struct Part {
    program: Program,
    rows: usize,
    cols: usize,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Loops) -> Result<BoundLoops, CpuError> {
    let extents = cx.extents(&a.extents)?;
    let parts = boxes::split(&extents, &a.epilogue, cx.symbols);
    let parts = parts.iter().map(|part| Part::bind(cx, part)).collect::<Result<_, _>>()?;
    Ok(BoundLoops { parts })
}

impl Launch for BoundLoops {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        self.parts.iter().for_each(|part| part.run(exec, regions));
    }
}

impl Part {
    fn bind(cx: &Binder<'_>, part: &boxes::Part) -> Result<Self, CpuError> {
        let mut first = part.extents.len();
        let mut width = 1;
        let ragged = part.ragged();
        while first > 0 && width < WIDE && !(width >= RUN && ragged.contains(&(first - 1))) {
            first -= 1;
            width *= part.extents[first].max(1);
        }
        let (rows, cols) = part.extents.split_at(first);
        let program = cx.epilogue(&part.epilogue, [&[], rows, cols], 0, false)?;
        Ok(Self { program, rows: count(rows), cols: count(cols) })
    }

    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let points = self.rows * self.cols;
        if points == 0 {
            return;
        }
        let width = self.cols.min(TILE);
        let rows = (TILE / width).min(self.rows);
        let (down, across) = (self.rows.div_ceil(rows), self.cols.div_ceil(width));
        let tiles = down * across;
        let nanoseconds = (points * self.program.ins.len()) as u64 / 20;
        let pieces = if nanoseconds < 10_000 { 1 } else { tiles.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            let mut worker = exec.worker(w);
            let scratch = &mut worker.scratch;
            self.program.shape(scratch, TILE);
            for t in share(tiles, pieces, piece) {
                let (row, col) = (t / across * rows, t % across * width);
                let tile = Tile {
                    fixed: &[],
                    row,
                    rows: rows.min(self.rows - row),
                    col,
                    width: width.min(self.cols - col),
                };
                self.program.run(exec.isa, scratch, regions, &tile);
            }
        });
    }
}
