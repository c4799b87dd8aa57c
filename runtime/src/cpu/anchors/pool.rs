//! `pool`: reductions over sliding windows. Single-precision sums and maxima run over staged planes; other types
//! and the index of the maximum cell by cell.

use tgc_ir::kernel_program::{InstKind, Pool, PoolDivisor, ReduceOp};

use super::Launch;
use super::integer::evaluate;
use super::staging::{SLACK, Staged, Windows, points};
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, Worker, share};
use crate::cpu::kernels::planes::{self, Window};
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::slots::{Element, Kind};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

#[derive(Debug)]
pub(super) struct BoundPool {
    outer: usize,
    windows: Windows,
    pad_high: Vec<i64>,
    max: bool,
    divisor: PoolDivisor,
    input: Program,
    kind: Kind,
    epilogue: Program,
    /// Set when planes are staged; with the divisor of each output cell.
    staged: Option<(Staged, Vec<f32>)>,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Pool) -> Result<BoundPool, CpuError> {
    let rank = a.in_spatial.len();
    let lengths =
        [a.out_spatial.len(), a.kernel.len(), a.stride.len(), a.dilation.len(), a.pad_low.len()];
    if lengths.iter().any(|&l| l != rank) || a.pad_high.len() != rank {
        return Err(cx.malformed("spatial attributes disagree in rank"));
    }
    if a.stride.iter().chain(&a.dilation).any(|&s| s < 1)
        || !matches!(a.op, ReduceOp::Sum | ReduceOp::Max)
    {
        return Err(cx.malformed("windows reduce by sum or max in positive steps"));
    }
    let numbers =
        |dims: &[tgc_ir::Dim]| dims.iter().map(|d| cx.number(d)).collect::<Result<Vec<_>, _>>();
    let windows = Windows {
        input: cx.extents(&a.in_spatial)?,
        output: cx.extents(&a.out_spatial)?,
        kernel: a.kernel.clone(),
        stride: a.stride.clone(),
        dilation: a.dilation.clone(),
        pad: numbers(&a.pad_low)?,
    };
    let outer = cx.extents(&a.outer)?;
    let input = cx.operand(&a.input, [&[], &outer, &windows.input], 0)?;
    let kind = input.results[0].1;
    let epilogue = cx.epilogue(&a.epilogue, [&[], &outer, &windows.output], 2, false)?;
    let wants_index = a.epilogue.body.insts.iter().any(|i| matches!(i.kind, InstKind::Slot(1)));
    let mut bound = BoundPool {
        outer: count(&outer),
        windows,
        pad_high: numbers(&a.pad_high)?,
        max: a.op == ReduceOp::Max,
        divisor: a.divisor,
        input,
        kind,
        epilogue,
        staged: None,
    };
    if kind == Kind::F32 && !wants_index {
        let divisors = points(&bound.windows.output).map(|y| bound.divisor(&y) as f32).collect();
        bound.staged = Some((Staged::new(bound.windows.clone()), divisors));
    }
    Ok(bound)
}

impl Launch for BoundPool {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let cells = count(&self.windows.output);
        if self.outer * cells == 0 {
            return;
        }
        let taps = count(&self.windows.kernel);
        let nanoseconds = (self.outer * cells * (taps + 8)) as u64 / 8;
        let step = if self.staged.is_some() { (TILE / cells).clamp(1, self.outer) } else { 1 };
        let units = self.outer.div_ceil(step);
        let pieces = if nanoseconds < 10_000 { 1 } else { units.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            let worker = &mut *exec.worker(w);
            for unit in share(units, pieces, piece) {
                let rows = step.min(self.outer - unit * step);
                match (&self.staged, self.kind) {
                    (Some((staged, divisors)), _) => {
                        self.planes(exec, worker, regions, staged, divisors, unit * step, rows);
                    }
                    (None, Kind::F32) => {
                        self.cells::<f32>(exec, &mut worker.scratch, regions, unit)
                    }
                    (None, Kind::F64) => {
                        self.cells::<f64>(exec, &mut worker.scratch, regions, unit)
                    }
                    (None, Kind::I64) => {
                        self.cells::<i64>(exec, &mut worker.scratch, regions, unit)
                    }
                    (None, Kind::Bool) => {
                        self.cells::<u8>(exec, &mut worker.scratch, regions, unit)
                    }
                }
            }
        });
    }
}

/// A value that windows can reduce.
trait Cell: Element + PartialOrd {
    fn sum(self, other: Self) -> Self;
    fn divide(self, by: i64) -> Self;
    fn lowest() -> Self;
}
impl Cell for f32 {
    fn sum(self, other: Self) -> Self {
        self + other
    }
    fn divide(self, by: i64) -> Self {
        self / by as f32
    }
    fn lowest() -> Self {
        f32::NEG_INFINITY
    }
}
impl Cell for f64 {
    fn sum(self, other: Self) -> Self {
        self + other
    }
    fn divide(self, by: i64) -> Self {
        self / by as f64
    }
    fn lowest() -> Self {
        f64::NEG_INFINITY
    }
}
impl Cell for i64 {
    fn sum(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    fn divide(self, by: i64) -> Self {
        if by == 0 { 0 } else { self / by }
    }
    fn lowest() -> Self {
        i64::MIN
    }
}
impl Cell for u8 {
    fn sum(self, other: Self) -> Self {
        self | other
    }
    fn divide(self, _: i64) -> Self {
        self
    }
    fn lowest() -> Self {
        0
    }
}

impl BoundPool {
    /// What divides the sum of the window at output cell `y`.
    fn divisor(&self, y: &[i64]) -> i64 {
        let w = &self.windows;
        let inside = |i: usize, low: i64, high: i64| {
            let start = y[i] * w.stride[i] - w.pad[i];
            (0..w.kernel[i]).filter(|k| (low..high).contains(&(start + k * w.dilation[i]))).count()
                as i64
        };
        match self.divisor {
            PoolDivisor::One => 1,
            PoolDivisor::ValidCount => (0..y.len()).map(|i| inside(i, 0, w.input[i])).product(),
            PoolDivisor::PaddedCount => {
                (0..y.len()).map(|i| inside(i, -w.pad[i], w.input[i] + self.pad_high[i])).product()
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one piece of the planes")]
    fn planes(
        &self,
        exec: Exec<'_>,
        worker: &mut Worker,
        regions: &[Region],
        staged: &Staged,
        divisors: &[f32],
        row: usize,
        rows: usize,
    ) {
        let width = staged.width();
        let cells = staged.rows.len() * width;
        let floats = rows * staged.channel + SLACK;
        let strip = staged.span.next_multiple_of(16);
        let mut pack =
            std::mem::replace(&mut worker.pack, crate::cpu::kernels::buffer::Buffer::zeroed(0));
        pack.reserve((floats + strip) * 4);
        let (planes_in, sums) = pack.as_f32_mut().split_at_mut(floats);
        let fill = if self.max { f32::NEG_INFINITY } else { 0.0 };
        staged.stage(exec.isa, worker, &self.input, regions, &[], row, rows, fill, planes_in);
        let window = if self.max { Window::Max } else { Window::Sum };
        let step = TILE.max(width) / width;
        self.epilogue.shape(
            &mut worker.scratch,
            (rows * cells).clamp(TILE, TILE.max(step * width)).max(TILE),
        );
        if rows * cells > worker.scratch.slots.capacity() {
            // One large plane, line by line.
            self.lines(exec, worker, regions, staged, divisors, row, window, planes_in, sums, step);
        } else {
            for r in 0..rows {
                // SAFETY: every position up to the span is staged; slack holds the rest of the last vector.
                unsafe {
                    let base = planes_in.as_ptr().add(r * staged.channel);
                    planes::window(exec.isa, base, &staged.taps, window, &mut sums[..strip]);
                }
                let slot = &mut worker.scratch.slots.slice::<f32>(0, (r + 1) * cells)[r * cells..];
                self.collect(exec.isa, staged, divisors, 0..staged.rows.len(), sums, slot);
            }
            let tile = Tile { fixed: &[], row, rows, col: 0, width: cells };
            self.epilogue.run(exec.isa, &mut worker.scratch, regions, &tile);
        }
        worker.pack = pack;
    }

    #[allow(clippy::too_many_arguments, reason = "one plane of a piece")]
    fn lines(
        &self,
        exec: Exec<'_>,
        worker: &mut Worker,
        regions: &[Region],
        staged: &Staged,
        divisors: &[f32],
        row: usize,
        window: Window<'_>,
        plane: &[f32],
        sums: &mut [f32],
        step: usize,
    ) {
        let width = staged.width();
        let mut line = 0;
        while line < staged.rows.len() {
            let end = (line + step).min(staged.rows.len());
            let from = staged.rows[line];
            let span = (staged.rows[end - 1] + width - from).next_multiple_of(16);
            // SAFETY: as for whole planes.
            unsafe {
                planes::window(
                    exec.isa,
                    plane.as_ptr().add(from),
                    &staged.taps,
                    window,
                    &mut sums[..span],
                )
            };
            let slot = worker.scratch.slots.slice::<f32>(0, (end - line) * width);
            self.collect(exec.isa, staged, divisors, line..end, sums, slot);
            let tile =
                Tile { fixed: &[], row, rows: 1, col: line * width, width: (end - line) * width };
            self.epilogue.run(exec.isa, &mut worker.scratch, regions, &tile);
            line = end;
        }
    }

    /// Output cells of lines `lines`, divided.
    fn collect(
        &self,
        isa: crate::cpu::kernels::Isa,
        staged: &Staged,
        divisors: &[f32],
        lines: std::ops::Range<usize>,
        sums: &[f32],
        out: &mut [f32],
    ) {
        let width = staged.width();
        staged.collect(isa, sums, lines.clone(), out);
        if self.divisor != PoolDivisor::One {
            let by = &divisors[lines.start * width..lines.end * width];
            out.iter_mut().zip(by).for_each(|(x, d)| *x /= d);
        }
    }

    /// One outer point, cell by cell, with the index of the maximum.
    fn cells<T: Cell>(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        regions: &[Region],
        row: usize,
    ) {
        let w = &self.windows;
        let cells = count(&w.input);
        let input = evaluate::<T>(exec, scratch, &self.input, regions, &[], [1, cells], [row, 0]);
        let results: Vec<(T, i64)> = points(&w.output).map(|y| self.cell(&input, &y)).collect();
        self.epilogue.shape(scratch, TILE);
        for (i, part) in results.chunks(TILE).enumerate() {
            let values = scratch.slots.slice::<T>(0, part.len());
            values.iter_mut().zip(part).for_each(|(v, p)| *v = p.0);
            let indices = scratch.slots.slice::<i64>(1, part.len());
            indices.iter_mut().zip(part).for_each(|(v, p)| *v = p.1);
            let tile = Tile { fixed: &[], row, rows: 1, col: i * TILE, width: part.len() };
            self.epilogue.run(exec.isa, scratch, regions, &tile);
        }
    }

    fn cell<T: Cell>(&self, input: &[T], y: &[i64]) -> (T, i64) {
        let w = &self.windows;
        let mut value = if self.max { T::lowest() } else { T::default() };
        let mut index = 0;
        let mut first = true;
        for k in points(&w.kernel) {
            let mut at = 0;
            let inside = (0..y.len()).all(|i| {
                let x = y[i] * w.stride[i] + k[i] * w.dilation[i] - w.pad[i];
                at = at * w.input[i] + x;
                (0..w.input[i]).contains(&x)
            });
            if !inside {
                continue;
            }
            let x = input[at as usize];
            if !self.max {
                value = value.sum(x);
            } else if first
                || x > value
                || (x.partial_cmp(&x).is_none() && value.partial_cmp(&value).is_some())
            {
                (value, index) = (x, at);
            }
            first = false;
        }
        if !self.max && self.divisor != PoolDivisor::One {
            value = value.divide(self.divisor(y));
        }
        (value, index)
    }
}
