//! `pool`: reductions over sliding windows. Single-precision sums and maxima run channel by channel; other types and
//! the index of the maximum cell by cell.

use tgc_ir::kernel_program::{InstKind, Pool, PoolDivisor, ReduceOp, axis};

use super::integer::evaluate;
use super::staging::{Given, Image, Windows, points};
use super::windowed::{Rule, Windowed};
use super::{Bound, Launch};
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
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
}

pub(super) fn bind(cx: &Binder<'_>, a: &Pool) -> Result<Bound, CpuError> {
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
    let bound = BoundPool {
        outer: count(&outer),
        windows,
        pad_high: numbers(&a.pad_high)?,
        max: a.op == ReduceOp::Max,
        divisor: a.divisor,
        input,
        kind,
        epilogue,
    };
    if kind == Kind::F32 && !wants_index && !outer.is_empty() {
        return Ok(Box::new(by_channel(cx, a, &bound, &outer)?));
    }
    Ok(Box::new(bound))
}

/// The same with the last outer axis as channels.
fn by_channel(
    cx: &Binder<'_>,
    a: &Pool,
    bound: &BoundPool,
    outer: &[i64],
) -> Result<Windowed, CpuError> {
    let windows = bound.windows.clone().with_an_axis();
    let (rank, last) = (windows.rank(), outer.len() - 1);
    let (images, channels) = (&outer[..last], outer[last] as usize);
    let fill = if bound.max { f32::NEG_INFINITY } else { 0.0 };
    let given =
        Given { operand: &a.input, images, channels, group: channels, fill, merge_below: None };
    let taps = count(&windows.kernel);
    let rows = [images, &windows.output].concat();
    let image = Image::bind(cx, &given, windows)?;
    let epilogue = a.epilogue.with_axes(&|n| {
        axis(match n {
            n if n < last => n,
            n if n == last => last + rank,
            n => n - 1,
        })
    });
    let epilogue = cx.epilogue(&epilogue, [&[], &rows, &outer[last..]], 2, false)?;
    let divisors = match bound.divisor {
        PoolDivisor::One => Vec::new(),
        _ => points(&bound.windows.output).map(|y| bound.divisor(&y) as f32).collect(),
    };
    let rule = if bound.max { Rule::Max } else { Rule::Sum };
    Ok(Windowed::new(image, channels, taps, rule, divisors, epilogue))
}

impl Launch for BoundPool {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let cells = count(&self.windows.output);
        if self.outer * cells == 0 {
            return;
        }
        let taps = count(&self.windows.kernel);
        let nanoseconds = (self.outer * cells * (taps + 8)) as u64 / 8;
        let units = self.outer;
        let pieces = if nanoseconds < 10_000 { 1 } else { units.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            let scratch = &mut exec.worker(w).scratch;
            for unit in share(units, pieces, piece) {
                match self.kind {
                    Kind::F32 => self.cells::<f32>(exec, scratch, regions, unit),
                    Kind::F64 => self.cells::<f64>(exec, scratch, regions, unit),
                    Kind::I64 => self.cells::<i64>(exec, scratch, regions, unit),
                    Kind::Bool => self.cells::<u8>(exec, scratch, regions, unit),
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
