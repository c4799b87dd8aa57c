//! One row of attention scores turned into unnormalised probabilities.

use super::isa::Isa;
use super::reduce::{ReduceRow, RowReduce};
use super::simd::{Kernel, Simd};
use super::vmath;

/// Replaces each score `s` by `exp(s * scale - max * scale)`, the maximum being the row's; returns the sum of the
/// results. `scale` is positive. A row whose maximum is -inf or NaN, or that holds a NaN, sums to NaN.
pub fn exponentials(isa: Isa, row: &mut [f32], scale: f32) -> f32 {
    let max = isa.run(ReduceRow { op: RowReduce::Max, row });
    isa.run(Exponentials { row, max: max * scale, scale })
}

struct Exponentials<'a> {
    row: &'a mut [f32],
    max: f32,
    scale: f32,
}

impl Kernel for Exponentials<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let (max, scale) = (s.splat(self.max), s.splat(self.scale));
        let mut sums = [s.splat(0.0); 2];
        let p = self.row.as_mut_ptr();
        let n = self.row.len();
        let mut i = 0;
        // SAFETY: full vectors are inside the row, the tail is masked.
        unsafe {
            while i + 2 * S::N <= n {
                for (u, sum) in sums.iter_mut().enumerate() {
                    let at = p.add(i + u * S::N);
                    let e = vmath::exp(s, s.sub(s.mul(s.load(at), scale), max));
                    s.store(at, e);
                    *sum = s.add(*sum, e);
                }
                i += 2 * S::N;
            }
            while i < n {
                let left = (n - i).min(S::N);
                let at = p.add(i);
                let e = vmath::exp(s, s.sub(s.mul(s.load_n(at, left), scale), max));
                s.store_n(at, e, left);
                // Lanes past the end come back as zero.
                sums[0] = s.add(sums[0], s.load_n(at, left));
                i += left;
            }
        }
        s.hsum(s.add(sums[0], sums[1]))
    }
}

/// Multiplies a row by a number.
pub fn scale(isa: Isa, row: &mut [f32], by: f32) {
    struct Scale<'a>(&'a mut [f32], f32);
    impl Kernel for Scale<'_> {
        type Out = ();
        #[inline(always)]
        fn run<S: Simd>(self, _: S) {
            self.0.iter_mut().for_each(|x| *x *= self.1);
        }
    }
    isa.run(Scale(row, by));
}
