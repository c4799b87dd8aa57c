//! Staged planes: one channel of an image with its border, split by stride phase.
//!
//! In a staged channel the cells that one filter tap meets lie at a constant distance from the output position,
//! for any padding, stride and dilation: `cell(y, k) = start(y) + tap(k)` with `start` linear in y.

use crate::cpu::exec::{TILE, Worker};
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::planes;
use crate::cpu::kernels::region::Region;
use crate::cpu::tile::{Program, Tile};

/// Floats past a channel that vector loads may touch.
pub(super) const SLACK: usize = 64;

/// Sliding windows over spatial axes.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Input extents.
    pub(super) input: Vec<i64>,
    /// Output extents.
    pub(super) output: Vec<i64>,
    /// Window extents.
    pub(super) kernel: Vec<i64>,
    /// Step of the window.
    pub(super) stride: Vec<i64>,
    /// Step between cells.
    pub(super) dilation: Vec<i64>,
    /// Cells before the first input cell.
    pub(super) pad: Vec<i64>,
}

/// The layout of a staged channel.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    windows: Windows,
    /// Extents of one phase plane.
    plane: Vec<i64>,
    /// Distances within a plane.
    strides: Vec<i64>,
    /// Floats of one channel, slack included.
    pub(super) channel: usize,
    /// Offset of each tap, in row-major order of the window.
    pub(super) taps: Vec<usize>,
    /// Linear position of each output row (all axes but the last).
    pub(super) rows: Vec<usize>,
    /// Linear positions from the first to the last output.
    pub(super) span: usize,
}

impl Staged {
    pub(super) fn new(windows: Windows) -> Self {
        let rank = windows.input.len();
        let mut plane = vec![1; rank];
        for (i, extent) in plane.iter_mut().enumerate() {
            let reach = (windows.output[i] - 1).max(0) * windows.stride[i]
                + (windows.kernel[i] - 1) * windows.dilation[i]
                + 1;
            *extent = (reach + windows.stride[i] - 1) / windows.stride[i];
        }
        let mut strides = vec![1; rank];
        for i in (1..rank).rev() {
            strides[i - 1] = strides[i] * plane[i];
        }
        let size: i64 = plane.iter().product();
        let phases: i64 = windows.stride.iter().product();
        let taps = points(&windows.kernel)
            .map(|k| {
                let (mut phase, mut offset) = (0, 0);
                for i in 0..rank {
                    let t = k[i] * windows.dilation[i];
                    phase = phase * windows.stride[i] + t % windows.stride[i];
                    offset += t / windows.stride[i] * strides[i];
                }
                (phase * size + offset) as usize
            })
            .collect();
        let outer = &windows.output[..rank.saturating_sub(1)];
        let rows: Vec<usize> = points(outer)
            .map(|y| y.iter().zip(&strides).map(|(y, s)| y * s).sum::<i64>() as usize)
            .collect();
        let width = windows.output.last().copied().unwrap_or(1) as usize;
        let span = rows.last().map_or(0, |r| r + width);
        let channel = (size * phases) as usize + SLACK;
        // A multiple of a page between channels would put every channel into the same cache sets.
        let channel = channel.next_multiple_of(16) + if channel % 1024 < 32 { 32 } else { 0 };
        Self { windows, plane, strides, channel, taps, rows, span }
    }

    /// Output cells of one row.
    pub(super) fn width(&self) -> usize {
        self.windows.output.last().copied().unwrap_or(1) as usize
    }

    /// Evaluates channels `first..first + count` (the row axis of `program`) into `out`, border set to `fill`.
    #[allow(clippy::too_many_arguments, reason = "one staging step")]
    pub(super) fn stage(
        &self,
        isa: Isa,
        worker: &mut Worker,
        program: &Program,
        regions: &[Region],
        fixed: &[i64],
        first: usize,
        count: usize,
        fill: f32,
        out: &mut [f32],
    ) {
        out[..count * self.channel].fill(fill);
        let cells: usize = self.windows.input.iter().product::<i64>() as usize;
        if cells == 0 {
            return;
        }
        program.shape(&mut worker.scratch, TILE);
        let width = cells.min(TILE);
        let step = if width == cells { TILE / width } else { 1 };
        let mut c = 0;
        while c < count {
            let rows = step.min(count - c);
            let mut col = 0;
            while col < cells {
                let width = width.min(cells - col);
                let tile = Tile { fixed, row: first + c, rows, col, width };
                program.run(isa, &mut worker.scratch, regions, &tile);
                let values = worker.scratch.slots.slice::<f32>(program.results[0].0, rows * width);
                for (r, values) in values.chunks_exact(width).enumerate() {
                    self.place(
                        isa,
                        values,
                        col,
                        &mut out[(c + r) * self.channel..(c + r + 1) * self.channel],
                    );
                }
                col += width;
            }
            c += rows;
        }
    }

    /// Puts input cells `col..` of one channel where windows look for them.
    fn place(&self, isa: Isa, values: &[f32], col: usize, out: &mut [f32]) {
        let w = &self.windows;
        let rank = w.input.len();
        if rank == 0 {
            out[0] = values[0];
            return;
        }
        let extent = w.input[rank - 1] as usize;
        if rank == 2
            && w.stride == [1, 1]
            && col.is_multiple_of(extent)
            && values.len().is_multiple_of(extent)
        {
            self.place_lines(isa, values, (col / extent) as i64, out);
            return;
        }
        let mut at = 0;
        while at < values.len() {
            let cell = col + at;
            let x = cell % extent;
            let take = (extent - x).min(values.len() - at);
            if let Some((phase, offset)) = self.row_of(cell / extent) {
                self.place_row(&values[at..at + take], x as i64, phase, offset, out);
            }
            at += take;
        }
    }

    /// Puts whole lines of a plane of step one, from line `first` on.
    fn place_lines(&self, isa: Isa, values: &[f32], first: i64, out: &mut [f32]) {
        let (w, width) = (&self.windows, self.windows.input[1]);
        let lines = values.len() as i64 / width;
        let (top, left) = (first + w.pad[0], w.pad[1]);
        let (skip, end) = ((-top).clamp(0, lines), (self.plane[0] - top).clamp(0, lines));
        let (from, to) = ((-left).clamp(0, width), (self.plane[1] - left).clamp(0, width));
        if end <= skip || to <= from {
            return;
        }
        let source = &values[(skip * width + from) as usize..];
        let target = &mut out[((top + skip) * self.strides[0] + left + from) as usize..];
        let step = self.strides[0] as usize;
        planes::copy_rows(
            isa,
            source,
            width as usize,
            target,
            step,
            (to - from) as usize,
            (end - skip) as usize,
        );
    }

    /// Distance between output rows, when one distance serves all.
    pub(super) fn line_step(&self) -> Option<usize> {
        match self.windows.output.len() {
            0 | 1 => Some(0),
            2 => Some(self.strides[0] as usize),
            _ => None,
        }
    }

    /// Output cells of lines `lines` out of `sums`, whose first position is that of the first line.
    pub(super) fn collect(
        &self,
        isa: Isa,
        sums: &[f32],
        lines: std::ops::Range<usize>,
        out: &mut [f32],
    ) {
        let width = self.width();
        let first = self.rows[lines.start];
        if let Some(step) = self.line_step() {
            planes::copy_rows(isa, sums, step, out, width, width, lines.len());
            return;
        }
        for (line, to) in lines.zip(out.chunks_exact_mut(width)) {
            let start = self.rows[line] - first;
            to.copy_from_slice(&sums[start..start + width]);
        }
    }

    /// Phase number and plane offset of an input row, `None` when no window reaches it.
    fn row_of(&self, mut row: usize) -> Option<(i64, i64)> {
        let w = &self.windows;
        let last = w.input.len() - 1;
        let (mut phase, mut offset, mut weight) = (0, 0, 1);
        for i in (0..last).rev() {
            let padded = (row as i64) % w.input[i] + w.pad[i];
            row /= w.input[i] as usize;
            if padded < 0 || padded / w.stride[i] >= self.plane[i] {
                return None;
            }
            phase += padded % w.stride[i] * weight;
            weight *= w.stride[i];
            offset += padded / w.stride[i] * self.strides[i];
        }
        Some((phase, offset))
    }

    fn place_row(&self, values: &[f32], x: i64, phase: i64, offset: i64, out: &mut [f32]) {
        let last = self.windows.input.len() - 1;
        let (step, limit) = (self.windows.stride[last], self.plane[last]);
        let size: i64 = self.plane.iter().product();
        let start = x + self.windows.pad[last];
        if step == 1 {
            let skip = (-start).max(0).min(values.len() as i64);
            let end = (limit - start).clamp(skip, values.len() as i64);
            let to = (phase * size + offset + start + skip) as usize;
            out[to..to + (end - skip) as usize]
                .copy_from_slice(&values[skip as usize..end as usize]);
            return;
        }
        for first in 0..step.min(values.len() as i64) {
            let padded = start + first;
            let (part, cell) = (padded.rem_euclid(step), padded.div_euclid(step));
            let to = (phase * step + part) * size + offset + cell;
            for (i, &value) in values[first as usize..].iter().step_by(step as usize).enumerate() {
                if (0..limit).contains(&(cell + i as i64)) {
                    out[(to + i as i64) as usize] = value;
                }
            }
        }
    }

    /// Output cells among linear positions `from..to`: calls `visit(position, count)` per stretch and returns the
    /// row-major number of the first.
    pub(super) fn cells(
        &self,
        from: usize,
        to: usize,
        visit: &mut dyn FnMut(usize, usize),
    ) -> usize {
        let width = self.width();
        let first = self.rows.partition_point(|&r| r + width <= from);
        let mut start = None;
        for (row, &r) in self.rows.iter().enumerate().skip(first) {
            if r >= to {
                break;
            }
            let (a, b) = (r.max(from), (r + width).min(to));
            if a < b {
                start.get_or_insert(row * width + a - r);
                visit(a, b - a);
            }
        }
        start.unwrap_or(0)
    }
}

/// Every point of a space, row-major.
pub(super) fn points(extents: &[i64]) -> impl Iterator<Item = Vec<i64>> + '_ {
    let count = extents.iter().product::<i64>().max(0) as usize;
    (0..count).map(|i| super::contract::coordinates(i, extents))
}
