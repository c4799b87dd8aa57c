//! `contract` for double precision and integers: exact or double sums, plain loops over evaluated operands.

use tgc_ir::DType;
use tgc_ir::kernel_program::Contract;

use super::Launch;
use super::contract::coordinates;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, share};
use crate::cpu::kernels::region::{Region, kind_of};
use crate::cpu::kernels::slots::{Element, Kind};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

/// Columns of a result strip.
const STRIP: usize = 256;
/// Elements of an evaluation tile.
const EVAL: usize = 2048;

#[derive(Debug)]
pub(super) struct Plain {
    batch: Vec<i64>,
    m: usize,
    n: usize,
    k: usize,
    kind: Kind,
    acc: DType,
    lhs: Program,
    rhs: Program,
    epilogue: Program,
}

pub(super) fn bind(
    cx: &Binder<'_>,
    a: &Contract,
    extents: [Vec<i64>; 4],
) -> Result<Plain, CpuError> {
    let [batch, m, n, k] = extents;
    if kind_of(a.acc) == Kind::Bool {
        return Err(cx.malformed("sums of truth values have no type"));
    }
    let kind = kind_of(a.acc);
    let lhs = cx.operand(&a.lhs, [&batch, &m, &k], 0)?;
    let rhs = cx.operand(&a.rhs, [&batch, &k, &n], 0)?;
    for (side, program) in [("left", &lhs), ("right", &rhs)] {
        if program.results[0].1 != kind {
            return Err(cx.malformed(format!("the {side} operand is not of the type of the sums")));
        }
    }
    let epilogue = cx.epilogue(&a.epilogue, [&batch, &m, &n], 1, false)?;
    Ok(Plain {
        m: count(&m),
        n: count(&n),
        k: count(&k),
        batch,
        kind,
        acc: a.acc,
        lhs,
        rhs,
        epilogue,
    })
}

/// A type in which sums are kept.
trait Sum: Element {
    fn add_product(self, a: Self, b: Self) -> Self;
}
impl Sum for f64 {
    fn add_product(self, a: Self, b: Self) -> Self {
        self + a * b
    }
}
impl Sum for i64 {
    fn add_product(self, a: Self, b: Self) -> Self {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl Launch for Plain {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let strips = self.n.div_ceil(STRIP);
        let batches = count(&self.batch);
        let nanoseconds = (batches * self.m * self.n * self.k) as u64;
        let pieces =
            (batches * strips).min(if nanoseconds < 10_000 { 1 } else { 4 * exec.pool.threads() });
        exec.split(pieces, nanoseconds, &|piece, w| {
            let scratch = &mut exec.worker(w).scratch;
            for unit in share(batches * strips, pieces, piece) {
                let fixed = coordinates(unit / strips, &self.batch);
                let col = unit % strips * STRIP;
                match self.kind {
                    Kind::F64 => self.strip::<f64>(exec, scratch, regions, &fixed, col),
                    _ => self.strip::<i64>(exec, scratch, regions, &fixed, col),
                }
            }
        });
    }
}

impl Plain {
    fn strip<T: Sum>(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        regions: &[Region],
        fixed: &[i64],
        col: usize,
    ) {
        let width = STRIP.min(self.n - col);
        let rhs =
            evaluate::<T>(exec, scratch, &self.rhs, regions, fixed, [self.k, width], [0, col]);
        for row in 0..self.m {
            let lhs =
                evaluate::<T>(exec, scratch, &self.lhs, regions, fixed, [1, self.k], [row, 0]);
            let mut sums = vec![T::default(); width];
            for (a, b) in lhs.iter().zip(rhs.chunks_exact(width)) {
                sums.iter_mut().zip(b).for_each(|(s, b)| *s = s.add_product(*a, *b));
            }
            self.epilogue.shape(scratch, EVAL);
            scratch.slots.slice::<T>(0, width).copy_from_slice(&sums);
            if self.acc != DType::I64 && self.kind == Kind::I64 {
                wrap_slot(scratch, width, self.acc);
            }
            self.epilogue.run(
                exec.isa,
                scratch,
                regions,
                &Tile { fixed, row, rows: 1, col, width },
            );
        }
    }
}

fn wrap_slot(scratch: &mut Scratch, width: usize, acc: DType) {
    for x in scratch.slots.slice::<i64>(0, width) {
        *x = crate::cpu::tile::wrap(*x, acc);
    }
}

/// An operand's elements `[rows, cols]` from `[row, col]` on, row-major.
pub(super) fn evaluate<T: Element>(
    exec: Exec<'_>,
    scratch: &mut Scratch,
    program: &Program,
    regions: &[Region],
    fixed: &[i64],
    [rows, cols]: [usize; 2],
    [row, col]: [usize; 2],
) -> Vec<T> {
    program.shape(scratch, EVAL);
    let mut out = Vec::with_capacity(rows * cols);
    let width = cols.clamp(1, EVAL);
    let step = if width >= cols { EVAL / width } else { 1 };
    let mut r = 0;
    while r < rows && cols > 0 {
        let count = step.min(rows - r);
        let mut c = 0;
        while c < cols {
            let width = width.min(cols - c);
            let tile = Tile { fixed, row: row + r, rows: count, col: col + c, width };
            program.run(exec.isa, scratch, regions, &tile);
            out.extend_from_slice(scratch.slots.slice::<T>(program.results[0].0, count * width));
            c += width;
        }
        r += count;
    }
    out
}
