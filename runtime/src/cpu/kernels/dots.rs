//! Few columns: each element of the product is a dot product of contiguous runs, vector by vector along k.
//!
//! Where the columns would fill less than half a vector this does more of the work per instruction than a panel.

use super::gemm::Lhs;
use super::isa::Isa;
use super::simd::{Kernel, Simd};
use super::taps::{SEGMENTS, Starts};

/// `out[r][j]` = row `first + r` of `lhs` times row `j` of `filters`, for `rows` rows and `n` columns. Filters are
/// `[n][k]`, k being the floats of a row of `lhs`.
///
/// # Safety
/// The rows of `lhs` are readable and nobody writes them meanwhile.
///
/// # Panics
/// When `filters` or `out` is too short.
pub unsafe fn dots(
    isa: Isa,
    lhs: &Lhs<'_>,
    first: usize,
    rows: usize,
    filters: &[f32],
    n: usize,
    out: &mut [f32],
) {
    let k = lhs.segments() * lhs.run;
    assert!(filters.len() >= n * k && out.len() >= rows * n);
    isa.run(Dots { lhs, first, rows, filters: filters.as_ptr(), k, n, out: out.as_mut_ptr() });
}

struct Dots<'a, 'b> {
    lhs: &'a Lhs<'b>,
    first: usize,
    rows: usize,
    filters: *const f32,
    k: usize,
    n: usize,
    out: *mut f32,
}

impl Kernel for Dots<'_, '_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut row = 0;
        while row < self.rows {
            // SAFETY: the caller of `dots` vouches for the rows; filters and results are long enough.
            row += unsafe {
                match self.rows - row {
                    4.. if S::ACC >= 24 => self.columns::<S, 4>(s, row),
                    2.. => self.columns::<S, 2>(s, row),
                    _ => self.columns::<S, 1>(s, row),
                }
            };
        }
    }
}

impl Dots<'_, '_> {
    /// All columns of `P` rows; gives `P`.
    ///
    /// # Safety
    /// As [`dots`].
    #[inline(always)]
    unsafe fn columns<S: Simd, const P: usize>(&self, s: S, row: usize) -> usize {
        let mut column = 0;
        while column < self.n {
            // SAFETY: the caller's.
            column += unsafe {
                match self.n - column {
                    4.. => self.block::<S, P, 4>(s, row, column),
                    2.. => self.block::<S, P, 2>(s, row, column),
                    _ => self.block::<S, P, 1>(s, row, column),
                }
            };
        }
        P
    }

    /// `P` rows by `O` columns; gives `O`.
    ///
    /// # Safety
    /// As [`dots`].
    #[inline(always)]
    #[allow(
        clippy::needless_range_loop,
        reason = "constant index loops keep the accumulators in registers"
    )]
    unsafe fn block<S: Simd, const P: usize, const O: usize>(
        &self,
        s: S,
        row: usize,
        column: usize,
    ) -> usize {
        let (total, run) = (self.lhs.segments(), self.lhs.run);
        let mut acc = [[s.splat(0.0); O]; P];
        let mut from = 0;
        while from < total {
            let count = SEGMENTS.min(total - from);
            let mut starts = Starts::new();
            let starts = self.lhs.starts(self.first + row, P, from, count, &mut starts);
            for (t, at) in starts.iter().enumerate() {
                let mut i = 0;
                while i < run {
                    let n = S::N.min(run - i);
                    // SAFETY: the caller's; the last vector of a run is masked.
                    unsafe {
                        let filter = self.filters.add(column * self.k + (from + t) * run + i);
                        let mut w = [s.splat(0.0); O];
                        for o in 0..O {
                            w[o] = part::<S>(s, filter.add(o * self.k), n);
                        }
                        for p in 0..P {
                            let x = part::<S>(s, at[p].add(i), n);
                            for o in 0..O {
                                acc[p][o] = s.fma(x, w[o], acc[p][o]);
                            }
                        }
                    }
                    i += S::N;
                }
            }
            from += count;
        }
        for p in 0..P {
            for o in 0..O {
                // SAFETY: results hold every row and column.
                unsafe { *self.out.add((row + p) * self.n + column + o) = s.hsum(acc[p][o]) };
            }
        }
        O
    }
}

/// A vector of `n` floats, the rest zero.
///
/// # Safety
/// `at` is readable for `n` floats.
#[inline(always)]
unsafe fn part<S: Simd>(s: S, at: *const f32, n: usize) -> S::F {
    // SAFETY: the caller's.
    unsafe { if n == S::N { s.load(at) } else { s.load_n(at, n) } }
}
