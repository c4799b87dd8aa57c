//! `rows`: code per element with reductions over each row.
//!
//! A row that fits the slots is loaded once and stays there through all its reductions; a longer one is swept in
//! chunks, once per reduction level. Which of the two depends on the row's length alone.

use tgc_ir::kernel_program::Rows;

use super::Launch;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Longest row that is kept whole: its live values then fit the second-level cache.
const RESIDENT: usize = 16 << 10;
/// Elements per sweep step of longer rows.
const CHUNK: usize = 4096;

#[derive(Debug)]
pub(super) struct BoundRows {
    program: Program,
    rows: usize,
    width: usize,
    chunked: bool,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Rows) -> Result<BoundRows, CpuError> {
    let (outer, inner) = (cx.extents(&a.outer)?, cx.extents(&a.inner)?);
    let width = count(&inner);
    let chunked = width > RESIDENT;
    let program = cx.epilogue(&a.epilogue, [&[], &outer, &inner], 0, chunked)?;
    Ok(BoundRows { program, rows: count(&outer), width, chunked })
}

impl Launch for BoundRows {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        if self.rows == 0 {
            return;
        }
        let capacity = self.width.max(TILE);
        let rows = if self.chunked { 1 } else { (TILE / self.width.max(1)).clamp(1, self.rows) };
        let tiles = self.rows.div_ceil(rows);
        let nanoseconds = (self.rows * self.width.max(1) * self.program.ins.len()) as u64 / 20;
        let pieces = if nanoseconds < 10_000 { 1 } else { tiles.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            let mut worker = exec.worker(w);
            let scratch = &mut worker.scratch;
            if self.chunked {
                for row in share(tiles, pieces, piece) {
                    self.program.run_row(exec.isa, scratch, regions, &[], row, self.width, CHUNK);
                }
                return;
            }
            self.program.shape(scratch, capacity);
            for t in share(tiles, pieces, piece) {
                let row = t * rows;
                let tile = Tile {
                    fixed: &[],
                    row,
                    rows: rows.min(self.rows - row),
                    col: 0,
                    width: self.width,
                };
                self.program.run(exec.isa, scratch, regions, &tile);
            }
        });
    }
}
