//! Convolution in any type and in gradient form: one scaled, shifted plane added per (output, input, tap).

use tgc_ir::kernel_program::Conv;

use super::Launch;
use super::conv::Shape;
use super::integer::evaluate;
use super::staging::points;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::{Region, kind_of};
use crate::cpu::kernels::slots::{Element, Kind};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile, wrap};

#[derive(Debug)]
pub(super) struct PlainConv {
    shape: Shape,
    transposed: bool,
    kind: Kind,
    acc: tgc_ir::DType,
    input: Program,
    filter: Program,
    epilogue: Program,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Conv, shape: Shape) -> Result<PlainConv, CpuError> {
    let (channels, outputs) =
        ([(shape.groups * shape.c) as i64], [(shape.groups * shape.o) as i64]);
    let images = [shape.batch as i64];
    let mut inner = vec![if a.transposed { shape.o } else { shape.c } as i64];
    inner.extend(&shape.windows.kernel);
    let input = cx.operand(&a.input, [&images, &channels, &shape.windows.input], 0)?;
    let first = if a.transposed { &channels } else { &outputs };
    let filter = cx.operand(&a.filter, [&[], first, &inner], 0)?;
    let kind = kind_of(a.acc);
    if kind == Kind::Bool || input.results[0].1 != kind || filter.results[0].1 != kind {
        return Err(cx.malformed("operands are not of the type of the sums"));
    }
    let epilogue =
        cx.epilogue(&a.epilogue, [&images, &outputs, &shape.windows.output], 1, false)?;
    Ok(PlainConv { shape, transposed: a.transposed, kind, acc: a.acc, input, filter, epilogue })
}

trait Sum: Element + PartialEq {
    fn add_product(self, a: Self, b: Self) -> Self;
}
impl Sum for f32 {
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}
impl Sum for f64 {
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}
impl Sum for i64 {
    #[inline(always)]
    fn add_product(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl Launch for PlainConv {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        match self.kind {
            Kind::F32 => self.all::<f32>(exec, regions),
            Kind::F64 => self.all::<f64>(exec, regions),
            _ => self.all::<i64>(exec, regions),
        }
    }
}

impl PlainConv {
    fn all<T: Sum>(&self, exec: Exec<'_>, regions: &[Region]) {
        let s = &self.shape;
        let (channels, outputs) = (s.groups * s.c, s.groups * s.o);
        let taps = count(&s.windows.kernel);
        let (rows, cols) =
            if self.transposed { (channels, s.o * taps) } else { (outputs, s.c * taps) };
        let cells = count(&s.windows.input);
        let filter = evaluate::<T>(
            exec,
            &mut exec.worker(0).scratch,
            &self.filter,
            regions,
            &[],
            [rows, cols],
            [0, 0],
        );
        for n in 0..s.batch {
            let fixed = [n as i64];
            let shape = [channels, cells];
            let input = evaluate::<T>(
                exec,
                &mut exec.worker(0).scratch,
                &self.input,
                regions,
                &fixed,
                shape,
                [0, 0],
            );
            let work = (outputs * s.c * taps * cells.max(count(&s.windows.output))) as u64;
            let pieces = outputs.min(if work < 10_000 { 1 } else { 4 * exec.pool.threads() });
            exec.split(pieces, work, &|piece, w| {
                let scratch = &mut exec.worker(w).scratch;
                for o in share(outputs, pieces, piece) {
                    let plane = self.plane(o, &input, &filter);
                    self.store(exec, scratch, regions, &fixed, o, &plane);
                }
            });
        }
    }

    /// The sums of one output channel.
    fn plane<T: Sum>(&self, o: usize, input: &[T], filter: &[T]) -> Vec<T> {
        let (s, w) = (&self.shape, &self.shape.windows);
        let (cells, taps) = (count(&w.input), count(&w.kernel));
        let mut plane = vec![T::default(); count(&w.output)];
        let group = o / s.o;
        for c in 0..s.c {
            let channel = group * s.c + c;
            let image = &input[channel * cells..(channel + 1) * cells];
            for (t, tap) in points(&w.kernel).enumerate() {
                let weight = if self.transposed {
                    filter[(channel * s.o + o % s.o) * taps + t]
                } else {
                    filter[(o * s.c + c) * taps + t]
                };
                self.add_tap(&tap, weight, image, &mut plane);
            }
        }
        plane
    }

    /// Adds `weight * image`, shifted as `tap` says, to `plane`.
    fn add_tap<T: Sum>(&self, tap: &[i64], weight: T, image: &[T], plane: &mut [T]) {
        let w = &self.shape.windows;
        // The axis that advances by one is the output's, or the input's in gradient form.
        let (drive, other) =
            if self.transposed { (&w.input, &w.output) } else { (&w.output, &w.input) };
        let last = drive.len().saturating_sub(1);
        let at = |i: usize, x: i64| x * w.stride[i] + tap[i] * w.dilation[i] - w.pad[i];
        for (row, outer) in points(&drive[..last]).enumerate() {
            let mut base = 0;
            let inside = (0..last).all(|i| {
                let x = at(i, outer[i]);
                base = base * other[i] + x;
                (0..other[i]).contains(&x)
            });
            if !inside {
                continue;
            }
            let width = drive.get(last).copied().unwrap_or(1);
            let reach = other.get(last).copied().unwrap_or(1);
            for x in 0..width {
                let y = if drive.is_empty() { 0 } else { at(last, x) };
                if (0..reach).contains(&y) {
                    let (here, there) = (row as i64 * width + x, base * reach + y);
                    let (to, from) = if self.transposed { (there, here) } else { (here, there) };
                    let sum = &mut plane[to as usize];
                    *sum = sum.add_product(image[from as usize], weight);
                }
            }
        }
    }

    fn store<T: Sum>(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        regions: &[Region],
        fixed: &[i64],
        o: usize,
        plane: &[T],
    ) {
        self.epilogue.shape(scratch, TILE);
        for (i, part) in plane.chunks(TILE).enumerate() {
            scratch.slots.slice::<T>(0, part.len()).copy_from_slice(part);
            if self.kind == Kind::I64 {
                scratch
                    .slots
                    .slice::<i64>(0, part.len())
                    .iter_mut()
                    .for_each(|x| *x = wrap(*x, self.acc));
            }
            let tile = Tile { fixed, row: o, rows: 1, col: i * TILE, width: part.len() };
            self.epilogue.run(exec.isa, scratch, regions, &tile);
        }
    }
}
