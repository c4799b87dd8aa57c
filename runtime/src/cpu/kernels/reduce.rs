//! Rows of single precision reduced to one number each.

use super::isa::Isa;
use super::lanes::{AddOp, Extent, MaxOp, MinOp, Op2};
use super::simd::{Kernel, Simd};
use super::slots::Slots;

/// Sum, largest or smallest of each row of a single-precision tile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowReduce {
    /// Several lanes, then pairwise.
    Sum,
    /// NaN if any is.
    Max,
    /// NaN if any is.
    Min,
}

/// Reduces each row of `a` and calls `keep(row, value)`.
pub fn reduce_rows(
    isa: Isa,
    slots: &mut Slots,
    op: RowReduce,
    a: u16,
    e: Extent,
    mut keep: impl FnMut(usize, f32),
) {
    let a = slots.source::<f32>(a, e.count());
    for r in 0..e.rows {
        // SAFETY: the slot holds `rows * width` elements.
        let row = unsafe { std::slice::from_raw_parts(a.add(r * e.width), e.width) };
        keep(r, isa.run(ReduceRow { op, row }));
    }
}

/// One row reduced.
pub(crate) struct ReduceRow<'a> {
    pub(crate) op: RowReduce,
    pub(crate) row: &'a [f32],
}

impl Kernel for ReduceRow<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        match self.op {
            RowReduce::Sum => fold::<S, AddOp>(s, self.row, 0.0, S::hsum),
            RowReduce::Max => fold::<S, MaxOp>(s, self.row, f32::NEG_INFINITY, |s, v| {
                lanes_of(s, v, f32::NEG_INFINITY, larger)
            }),
            RowReduce::Min => fold::<S, MinOp>(s, self.row, f32::INFINITY, |s, v| {
                lanes_of(s, v, f32::INFINITY, smaller)
            }),
        }
    }
}

fn larger(a: f32, b: f32) -> f32 {
    if a.is_nan() || a > b { a } else { b }
}

fn smaller(a: f32, b: f32) -> f32 {
    if a.is_nan() || a < b { a } else { b }
}

#[inline(always)]
fn lanes_of<S: Simd>(s: S, v: S::F, neutral: f32, f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [neutral; 16];
    // SAFETY: `N <= 16`.
    unsafe { s.store(lanes.as_mut_ptr(), v) };
    lanes.iter().copied().fold(neutral, f)
}

#[inline(always)]
fn fold<S: Simd, O: Op2>(s: S, row: &[f32], neutral: f32, finish: impl Fn(S, S::F) -> f32) -> f32 {
    let mut acc = [s.splat(neutral); 4];
    let p = row.as_ptr();
    let mut i = 0;
    // SAFETY: every load is inside the row; the tail is masked and its missing lanes replaced by the neutral.
    unsafe {
        while i + 4 * S::N <= row.len() {
            for (u, a) in acc.iter_mut().enumerate() {
                *a = O::eval(s, *a, s.load(p.add(i + u * S::N)));
            }
            i += 4 * S::N;
        }
        while i + S::N <= row.len() {
            acc[0] = O::eval(s, acc[0], s.load(p.add(i)));
            i += S::N;
        }
        if i < row.len() {
            let mut lanes = [neutral; 16];
            std::ptr::copy_nonoverlapping(p.add(i), lanes.as_mut_ptr(), row.len() - i);
            acc[1] = O::eval(s, acc[1], s.load(lanes.as_ptr()));
        }
    }
    let ab = O::eval(s, acc[0], acc[1]);
    let cd = O::eval(s, acc[2], acc[3]);
    finish(s, O::eval(s, ab, cd))
}
