//! `sort`: the first k elements of each row in order, ties by lower index first.

use std::cmp::Ordering;

use tgc_ir::kernel_program::Sort;

use super::Launch;
use super::integer::evaluate;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::slots::{Element, Kind};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

#[derive(Debug)]
pub(super) struct BoundSort {
    outer: usize,
    extent: usize,
    k: usize,
    largest: bool,
    unsigned: bool,
    input: Program,
    epilogue: Program,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Sort) -> Result<BoundSort, CpuError> {
    let outer = cx.extents(&a.outer)?;
    let (extent, k) = (cx.number(&a.extent)?.max(0), cx.number(&a.k)?.max(0));
    if k > extent {
        return Err(cx.malformed(format!("{k} of {extent} elements cannot be kept")));
    }
    let input = cx.operand(&a.input, [&[], &outer, &[extent]], 0)?;
    let epilogue = cx.epilogue(&a.epilogue, [&[], &outer, &[k]], 2, false)?;
    let unsigned = a.input.body.dtype(a.input.value) == tgc_ir::DType::U64;
    let (outer, extent, k) = (count(&outer), extent as usize, k as usize);
    Ok(BoundSort { outer, extent, k, largest: a.largest, unsigned, input, epilogue })
}

/// A value with a total order in which NaN is largest.
trait Key: Element {
    fn order(self, other: Self, unsigned: bool) -> Ordering;
}
macro_rules! float_key {
    ($t:ty) => {
        impl Key for $t {
            fn order(self, other: Self, _: bool) -> Ordering {
                self.partial_cmp(&other).unwrap_or_else(|| self.is_nan().cmp(&other.is_nan()))
            }
        }
    };
}
float_key!(f32);
float_key!(f64);
impl Key for i64 {
    fn order(self, other: Self, unsigned: bool) -> Ordering {
        if unsigned { (self as u64).cmp(&(other as u64)) } else { self.cmp(&other) }
    }
}
impl Key for u8 {
    fn order(self, other: Self, _: bool) -> Ordering {
        self.cmp(&other)
    }
}

impl Launch for BoundSort {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let work = (self.outer * self.extent * 40) as u64;
        let pieces = if work < 10_000 { 1 } else { self.outer.min(4 * exec.pool.threads()) };
        exec.split(pieces, work, &|piece, w| {
            let scratch = &mut exec.worker(w).scratch;
            for row in share(self.outer, pieces, piece) {
                match self.input.results[0].1 {
                    Kind::F32 => self.row::<f32>(exec, scratch, regions, row),
                    Kind::F64 => self.row::<f64>(exec, scratch, regions, row),
                    Kind::I64 => self.row::<i64>(exec, scratch, regions, row),
                    Kind::Bool => self.row::<u8>(exec, scratch, regions, row),
                }
            }
        });
    }
}

impl BoundSort {
    fn row<T: Key>(&self, exec: Exec<'_>, scratch: &mut Scratch, regions: &[Region], row: usize) {
        let values =
            evaluate::<T>(exec, scratch, &self.input, regions, &[], [1, self.extent], [row, 0]);
        let mut order: Vec<u32> = (0..self.extent as u32).collect();
        let compare = |a: &u32, b: &u32| {
            let by_value = values[*a as usize].order(values[*b as usize], self.unsigned);
            let by_value = if self.largest { by_value.reverse() } else { by_value };
            by_value.then(a.cmp(b))
        };
        if self.k > 0 && self.k < self.extent {
            order.select_nth_unstable_by(self.k - 1, compare);
        }
        order.truncate(self.k);
        order.sort_unstable_by(compare);
        self.epilogue.shape(scratch, TILE);
        for (i, part) in order.chunks(TILE).enumerate() {
            let elements = scratch.slots.slice::<T>(0, part.len());
            elements.iter_mut().zip(part).for_each(|(e, &o)| *e = values[o as usize]);
            let indices = scratch.slots.slice::<i64>(1, part.len());
            indices.iter_mut().zip(part).for_each(|(e, &o)| *e = i64::from(o));
            let tile = Tile { fixed: &[], row, rows: 1, col: i * TILE, width: part.len() };
            self.epilogue.run(exec.isa, scratch, regions, &tile);
        }
    }
}
