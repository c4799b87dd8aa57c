//! `scan`: a running sum, product, maximum or minimum along the last axis.

use tgc_ir::kernel_program::{ReduceOp, Scan};

use super::Launch;
use super::integer::evaluate;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::slots::{Element, Kind};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile, wrap};

#[derive(Debug)]
pub(super) struct BoundScan {
    outer: usize,
    extent: usize,
    op: ReduceOp,
    exclusive: bool,
    reverse: bool,
    acc: tgc_ir::DType,
    input: Program,
    epilogue: Program,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Scan) -> Result<BoundScan, CpuError> {
    let outer = cx.extents(&a.outer)?;
    let extent = [cx.number(&a.extent)?.max(0)];
    if !matches!(a.op, ReduceOp::Sum | ReduceOp::Prod | ReduceOp::Max | ReduceOp::Min) {
        return Err(cx.malformed("scans run sum, prod, max or min"));
    }
    let input = cx.operand(&a.input, [&[], &outer, &extent], 0)?;
    let epilogue = cx.epilogue(&a.epilogue, [&[], &outer, &extent], 1, false)?;
    Ok(BoundScan {
        outer: count(&outer),
        extent: count(&extent),
        op: a.op,
        exclusive: a.exclusive,
        reverse: a.reverse,
        acc: a.acc,
        input,
        epilogue,
    })
}

/// A value that can run.
trait Running: Element {
    fn neutral(op: ReduceOp) -> Self;
    fn step(self, op: ReduceOp, x: Self) -> Self;
}

macro_rules! running_float {
    ($t:ty) => {
        impl Running for $t {
            fn neutral(op: ReduceOp) -> Self {
                match op {
                    ReduceOp::Prod => 1.0,
                    ReduceOp::Max => Self::NEG_INFINITY,
                    ReduceOp::Min => Self::INFINITY,
                    _ => 0.0,
                }
            }
            fn step(self, op: ReduceOp, x: Self) -> Self {
                match op {
                    ReduceOp::Prod => self * x,
                    ReduceOp::Max => {
                        if self.is_nan() || self > x {
                            self
                        } else {
                            x
                        }
                    }
                    ReduceOp::Min => {
                        if self.is_nan() || self < x {
                            self
                        } else {
                            x
                        }
                    }
                    _ => self + x,
                }
            }
        }
    };
}
running_float!(f32);
running_float!(f64);

impl Running for i64 {
    fn neutral(op: ReduceOp) -> Self {
        match op {
            ReduceOp::Prod => 1,
            ReduceOp::Max => i64::MIN,
            ReduceOp::Min => i64::MAX,
            _ => 0,
        }
    }
    fn step(self, op: ReduceOp, x: Self) -> Self {
        match op {
            ReduceOp::Prod => self.wrapping_mul(x),
            ReduceOp::Max => self.max(x),
            ReduceOp::Min => self.min(x),
            _ => self.wrapping_add(x),
        }
    }
}

impl Running for u8 {
    fn neutral(op: ReduceOp) -> Self {
        u8::from(matches!(op, ReduceOp::Prod | ReduceOp::Min))
    }
    fn step(self, op: ReduceOp, x: Self) -> Self {
        if matches!(op, ReduceOp::Prod | ReduceOp::Min) { self & x } else { self | x }
    }
}

impl Launch for BoundScan {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let work = (self.outer * self.extent * 4) as u64;
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

impl BoundScan {
    fn row<T: Running>(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        regions: &[Region],
        row: usize,
    ) {
        let mut values =
            evaluate::<T>(exec, scratch, &self.input, regions, &[], [1, self.extent], [row, 0]);
        let mut running = T::neutral(self.op);
        let mut visit = |x: &mut T| {
            let next = running.step(self.op, *x);
            *x = if self.exclusive { running } else { next };
            running = next;
        };
        if self.reverse {
            values.iter_mut().rev().for_each(&mut visit);
        } else {
            values.iter_mut().for_each(&mut visit);
        }
        self.epilogue.shape(scratch, TILE);
        for (i, part) in values.chunks(TILE).enumerate() {
            scratch.slots.slice::<T>(0, part.len()).copy_from_slice(part);
            if T::KIND == Kind::I64 {
                scratch
                    .slots
                    .slice::<i64>(0, part.len())
                    .iter_mut()
                    .for_each(|x| *x = wrap(*x, self.acc));
            }
            let tile = Tile { fixed: &[], row, rows: 1, col: i * TILE, width: part.len() };
            self.epilogue.run(exec.isa, scratch, regions, &tile);
        }
    }
}
