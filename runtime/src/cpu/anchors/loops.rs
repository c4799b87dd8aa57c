//! `loops`: every point of a space, independently.

use tgc_ir::kernel_program::Loops;

use super::Launch;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Columns that make a tile worth its bookkeeping.
const WIDE: i64 = 256;

#[derive(Debug)]
pub(super) struct BoundLoops {
    program: Program,
    rows: usize,
    cols: usize,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Loops) -> Result<BoundLoops, CpuError> {
    let extents = cx.extents(&a.extents)?;
    let mut first = extents.len();
    let mut width = 1;
    while first > 0 && width < WIDE {
        first -= 1;
        width *= extents[first].max(1);
    }
    let (rows, cols) = extents.split_at(first);
    let program = cx.epilogue(&a.epilogue, [&[], rows, cols], 0, false)?;
    Ok(BoundLoops { program, rows: count(rows), cols: count(cols) })
}

impl Launch for BoundLoops {
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
