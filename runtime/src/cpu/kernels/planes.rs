//! Loops over staged planes: panels gathered from rows of floats, and windows summed or compared tap by tap.
//!
//! A staged plane is laid out so that one filter tap is one constant offset for every output position.

use super::isa::Isa;
use super::simd::{Kernel, Simd};

/// Copies `offsets.len()` rows of `width` floats at `base + offset` into rows of `ld >= width` floats, the rest zero.
///
/// # Safety
/// Every row is readable.
pub unsafe fn gather_rows(
    isa: Isa,
    base: *const f32,
    offsets: &[usize],
    width: usize,
    ld: usize,
    out: &mut [f32],
) {
    assert!(width <= ld && out.len() >= offsets.len() * ld);
    isa.run(GatherRows { base, offsets, width, ld, out: out.as_mut_ptr() });
}

struct GatherRows<'a> {
    base: *const f32,
    offsets: &'a [usize],
    width: usize,
    ld: usize,
    out: *mut f32,
}

impl Kernel for GatherRows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (k, &offset) in self.offsets.iter().enumerate() {
            // SAFETY: the caller vouches for `width` floats per row; `out` has `ld` floats per row.
            unsafe {
                let (from, to) = (self.base.add(offset), self.out.add(k * self.ld));
                let mut i = 0;
                while i + S::N <= self.width {
                    s.store(to.add(i), s.load(from.add(i)));
                    i += S::N;
                }
                if i < self.width {
                    s.store(to.add(i), s.load_n(from.add(i), self.width - i));
                    i += S::N;
                }
                while i < self.ld {
                    s.store(to.add(i), s.splat(0.0));
                    i += S::N;
                }
            }
        }
    }
}

/// What meets at an output position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window<'a> {
    /// Sum of tap times weight, in tap order. (Bits, so that the type stays comparable.)
    Weighted(&'a [u32]),
    /// Sum.
    Sum,
    /// Largest; NaN if any is.
    Max,
}

/// `out[i] = window over taps t of plane[i + taps[t]]` for `i < out.len()`, which is a multiple of 16.
///
/// # Safety
/// `plane + tap + i` is readable for each.
pub unsafe fn window(
    isa: Isa,
    plane: *const f32,
    taps: &[usize],
    window: Window<'_>,
    out: &mut [f32],
) {
    assert_eq!(out.len() % 16, 0);
    if let Window::Weighted(weights) = window {
        assert_eq!(weights.len(), taps.len());
    }
    isa.run(Windows { plane, taps, window, out });
}

struct Windows<'a> {
    plane: *const f32,
    taps: &'a [usize],
    window: Window<'a>,
    out: &'a mut [f32],
}

impl Kernel for Windows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut i = 0;
        while i < self.out.len() {
            let wide = i + 4 * S::N <= self.out.len();
            // SAFETY: the caller vouches for the plane; `out` has at least one vector left (four where wide).
            unsafe {
                let (at, to) = (self.plane.add(i), self.out.as_mut_ptr().add(i));
                if wide {
                    step::<S, 4>(s, at, self.taps, self.window, to);
                } else {
                    step::<S, 1>(s, at, self.taps, self.window, to);
                }
            }
            i += if wide { 4 * S::N } else { S::N };
        }
    }
}

/// # Safety
/// `at + tap` is readable and `to` writable for `U` vectors.
#[inline(always)]
#[allow(
    clippy::needless_range_loop,
    reason = "constant index loops keep the accumulators in registers"
)]
unsafe fn step<S: Simd, const U: usize>(
    s: S,
    at: *const f32,
    taps: &[usize],
    window: Window<'_>,
    to: *mut f32,
) {
    // SAFETY: the caller's.
    unsafe {
        let mut acc = [s.splat(if window == Window::Max { f32::NEG_INFINITY } else { 0.0 }); U];
        match window {
            Window::Weighted(weights) => {
                for (&tap, &w) in taps.iter().zip(weights) {
                    let w = s.splat(f32::from_bits(w));
                    for u in 0..U {
                        acc[u] = s.fma(s.load(at.add(tap + u * S::N)), w, acc[u]);
                    }
                }
            }
            Window::Sum => {
                for &tap in taps {
                    for u in 0..U {
                        acc[u] = s.add(acc[u], s.load(at.add(tap + u * S::N)));
                    }
                }
            }
            Window::Max => {
                for &tap in taps {
                    for u in 0..U {
                        let x = s.load(at.add(tap + u * S::N));
                        acc[u] = s.select(s.eq(acc[u], acc[u]), s.max(acc[u], x), acc[u]);
                    }
                }
            }
        }
        for u in 0..U {
            s.store(to.add(u * S::N), acc[u]);
        }
    }
}

/// Copies `rows` rows of `width` floats between two strided blocks.
///
/// # Panics
/// When a row lies outside its slice.
#[allow(clippy::too_many_arguments, reason = "two strided blocks")]
pub fn copy_rows(
    isa: Isa,
    from: &[f32],
    from_step: usize,
    to: &mut [f32],
    to_step: usize,
    width: usize,
    rows: usize,
) {
    if rows == 0 || width == 0 {
        return;
    }
    assert!(
        (rows - 1) * from_step + width <= from.len() && (rows - 1) * to_step + width <= to.len()
    );
    isa.run(CopyRows { from: from.as_ptr(), from_step, to: to.as_mut_ptr(), to_step, width, rows });
}

struct CopyRows {
    from: *const f32,
    from_step: usize,
    to: *mut f32,
    to_step: usize,
    width: usize,
    rows: usize,
}

impl Kernel for CopyRows {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for r in 0..self.rows {
            // SAFETY: `copy_rows` has checked that every row is inside both blocks; the tail is masked.
            unsafe {
                let (from, to) = (self.from.add(r * self.from_step), self.to.add(r * self.to_step));
                let mut i = 0;
                while i + S::N <= self.width {
                    s.store(to.add(i), s.load(from.add(i)));
                    i += S::N;
                }
                if i < self.width {
                    s.store_n(to.add(i), s.load_n(from.add(i), self.width - i), self.width - i);
                }
            }
        }
    }
}
