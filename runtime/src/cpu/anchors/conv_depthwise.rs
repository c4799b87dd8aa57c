//! Convolution with one input channel per group: each output plane is a weighted window over one staged plane.

use super::Launch;
use super::conv::{Filter, Shape};
use super::staging::{SLACK, Staged};
use crate::cpu::exec::{Exec, Worker, share};
use crate::cpu::kernels::gemm::Rows;
use crate::cpu::kernels::planes::{self, Window};
use crate::cpu::kernels::region::Region;
use crate::cpu::tile::{Program, Tile};

/// Cells that one epilogue call handles, about.
const CELLS: usize = 2048;

#[derive(Debug)]
pub(super) struct Depthwise {
    shape: Shape,
    staged: Staged,
    input: Program,
    filter: Filter,
    epilogue: Program,
}

pub(super) fn bind(
    shape: Shape,
    staged: Staged,
    input: Program,
    filter: Filter,
    epilogue: Program,
) -> Depthwise {
    Depthwise { shape, staged, input, filter, epilogue }
}

/// The filter's first float and row starts, shared by workers that only read it.
struct Taps<'a>(*const f32, Rows<'a>);
// SAFETY: the filter is read only while planes are computed.
unsafe impl Sync for Taps<'_> {}

impl Taps<'_> {
    /// Weights of output channel `o`, as bits.
    fn of(&self, o: usize, taps: usize) -> &[u32] {
        let start = match self.1 {
            Rows::Strided(stride) => o * stride,
            Rows::Table(table) => table[o],
        };
        // SAFETY: the filter has a row of `taps` floats per output channel, in its region or buffer.
        unsafe { std::slice::from_raw_parts(self.0.add(start).cast(), taps) }
    }
}

impl Launch for Depthwise {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let s = &self.shape;
        let outputs = s.groups * s.o;
        let taps = self.staged.taps.len();
        let cells = self.staged.rows.len() * self.staged.width();
        if outputs * cells == 0 {
            return;
        }
        let (_hold, shared) = exec.shared([0, self.filter.floats(outputs, taps)]);
        let (base, rows) = self.filter.rows(exec, regions, shared[1], outputs, taps);
        let filter = Taps(base, rows);
        // Groups whose output planes share one epilogue call.
        let step = (CELLS / (cells * s.o)).clamp(1, s.groups);
        let units = s.batch * s.groups.div_ceil(step);
        let nanoseconds = (s.batch * outputs * cells * (taps + 8)) as u64 / 12;
        let pieces = if nanoseconds < 10_000 { 1 } else { units.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            let worker = &mut *exec.worker(w);
            for unit in share(units, pieces, piece) {
                let per_image = s.groups.div_ceil(step);
                let group = unit % per_image * step;
                let groups = step.min(s.groups - group);
                self.planes(exec, worker, regions, unit / per_image, group, groups, &filter);
            }
        });
    }
}

impl Depthwise {
    #[allow(clippy::too_many_arguments, reason = "one piece of the planes")]
    fn planes(
        &self,
        exec: Exec<'_>,
        worker: &mut Worker,
        regions: &[Region],
        n: usize,
        group: usize,
        groups: usize,
        filter: &Taps<'_>,
    ) {
        let (s, staged) = (&self.shape, &self.staged);
        let fixed = [n as i64];
        let width = staged.width();
        let floats = groups * staged.channel + SLACK;
        let mut pack =
            std::mem::replace(&mut worker.pack, crate::cpu::kernels::buffer::Buffer::zeroed(0));
        let lines = (CELLS / width).clamp(1, staged.rows.len());
        let strip = (staged.rows[lines - 1] + width).next_multiple_of(16);
        pack.reserve((floats + strip + 64) * 4);
        let (planes_in, sums) = pack.as_f32_mut().split_at_mut(floats);
        staged.stage(exec.isa, worker, &self.input, regions, &fixed, group, groups, 0.0, planes_in);
        let capacity = (groups * s.o * lines * width).max(CELLS);
        self.epilogue.shape(&mut worker.scratch, capacity);
        let mut line = 0;
        while line < staged.rows.len() {
            let count = lines.min(staged.rows.len() - line);
            let from = staged.rows[line];
            let span = (staged.rows[line + count - 1] + width - from).next_multiple_of(16);
            for plane in 0..groups * s.o {
                let weights = filter.of(group * s.o + plane, staged.taps.len());
                let at = plane / s.o * staged.channel + from;
                // SAFETY: positions up to the last output cell are staged, and the slack holds the rest of the last
                // vector.
                unsafe {
                    let base = planes_in.as_ptr().add(at);
                    planes::window(
                        exec.isa,
                        base,
                        &staged.taps,
                        Window::Weighted(weights),
                        &mut sums[..span],
                    );
                }
                let slot = worker.scratch.slots.slice::<f32>(0, (plane + 1) * count * width);
                staged.collect(
                    exec.isa,
                    sums,
                    line..line + count,
                    &mut slot[plane * count * width..],
                );
            }
            let row = group * s.o;
            let tile = Tile {
                fixed: &fixed,
                row,
                rows: groups * s.o,
                col: line * width,
                width: count * width,
            };
            self.epilogue.run(exec.isa, &mut worker.scratch, regions, &tile);
            line += count;
        }
        worker.pack = pack;
    }
}
