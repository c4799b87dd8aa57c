//! Windows over channels: each output is a sum, a weighted sum or the largest of the cells under its window, channel
//! by channel, for cells whose channels are contiguous. And the transposition that makes them so.

use super::isa::Isa;
use super::simd::{Kernel, Simd};
use super::taps::{SEGMENTS, Starts, Taps};

/// What meets under a window.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meet<'a> {
    /// Sum of cell times weight, in tap order; weights are `[tap][channel]`, as many channels apart as there are.
    Weighted(&'a [f32]),
    /// Sum.
    Sum,
    /// Largest; NaN if any is.
    Max,
}

/// `out[p][c]` = what the taps of position `first + p` have in channel `c`, for `positions` positions.
///
/// # Safety
/// Every cell that `taps` names is readable for `channels` floats from `base`.
///
/// # Panics
/// When `out`, the weights or the fill are too short.
#[allow(clippy::too_many_arguments, reason = "three operands and their extents")]
pub unsafe fn windows(
    isa: Isa,
    base: *const f32,
    taps: Taps<'_>,
    first: usize,
    positions: usize,
    channels: usize,
    meet: Meet<'_>,
    out: &mut [f32],
) {
    assert!(out.len() >= positions * channels && taps.fill.len() >= channels);
    if let Meet::Weighted(weights) = meet {
        assert!(weights.len() >= taps.count() * channels);
    }
    isa.run(Windows { base, taps, first, positions, channels, meet, out: out.as_mut_ptr() });
}

struct Windows<'a> {
    base: *const f32,
    taps: Taps<'a>,
    first: usize,
    positions: usize,
    channels: usize,
    meet: Meet<'a>,
    out: *mut f32,
}

impl Kernel for Windows<'_> {
    type Out = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut done = 0;
        while done < self.positions {
            let left = self.positions - done;
            // SAFETY: the caller of `windows` vouches for the cells; `out` holds all positions.
            unsafe {
                let out = self.out.add(done * self.channels);
                done += match left {
                    6.. if S::ACC >= 24 => self.block::<S, 6>(s, done, out),
                    4.. => self.block::<S, 4>(s, done, out),
                    2.. => self.block::<S, 2>(s, done, out),
                    _ => self.block::<S, 1>(s, done, out),
                };
            }
        }
    }
}

impl Windows<'_> {
    /// `P` positions from `done` on; gives `P`.
    ///
    /// # Safety
    /// As [`windows`], `out` is writable for `P` rows of the channels.
    #[inline(always)]
    unsafe fn block<S: Simd, const P: usize>(&self, s: S, done: usize, out: *mut f32) -> usize {
        let mut from = 0;
        let total = self.taps.count();
        while from < total {
            let count = SEGMENTS.min(total - from);
            let mut starts = Starts::new();
            self.taps.starts(self.base, self.first + done, P, from..from + count, &mut starts);
            let starts = starts.filled(count);
            let mut c = 0;
            while c < self.channels {
                let left = self.channels - c;
                // SAFETY: the caller's; the last vector is masked.
                unsafe {
                    if left >= 2 * S::N {
                        self.lanes::<S, P, 2>(s, starts, from, c, 2 * S::N, out.add(c));
                        c += 2 * S::N;
                    } else {
                        let n = left.min(S::N);
                        self.lanes::<S, P, 1>(s, starts, from, c, n, out.add(c));
                        c += n;
                    }
                }
            }
            from += count;
        }
        P
    }

    /// `n` channels from `c` on, of taps `from..`, in `V` vectors (one may be partly filled when `V` is 1).
    ///
    /// # Safety
    /// As [`Windows::block`].
    #[inline(always)]
    #[allow(
        clippy::needless_range_loop,
        reason = "constant index loops keep the accumulators in registers"
    )]
    unsafe fn lanes<S: Simd, const P: usize, const V: usize>(
        &self,
        s: S,
        starts: &[[*const f32; 8]],
        from: usize,
        c: usize,
        n: usize,
        out: *mut f32,
    ) {
        let whole = n == V * S::N;
        let neutral = if self.meet == Meet::Max { f32::NEG_INFINITY } else { 0.0 };
        let mut acc = [[s.splat(neutral); V]; P];
        // SAFETY: the caller's.
        unsafe {
            if from > 0 {
                for p in 0..P {
                    for v in 0..V {
                        acc[p][v] = part::<S>(s, out.add(p * self.channels), v, n, whole);
                    }
                }
            }
            match self.meet {
                Meet::Weighted(weights) => {
                    for (t, at) in starts.iter().enumerate() {
                        let row = weights.as_ptr().add((from + t) * self.channels + c);
                        let mut w = [s.splat(0.0); V];
                        for v in 0..V {
                            w[v] = part::<S>(s, row, v, n, whole);
                        }
                        for p in 0..P {
                            for v in 0..V {
                                acc[p][v] =
                                    s.fma(part::<S>(s, at[p].add(c), v, n, whole), w[v], acc[p][v]);
                            }
                        }
                    }
                }
                Meet::Sum => {
                    for at in starts {
                        for p in 0..P {
                            for v in 0..V {
                                acc[p][v] =
                                    s.add(acc[p][v], part::<S>(s, at[p].add(c), v, n, whole));
                            }
                        }
                    }
                }
                Meet::Max => {
                    for at in starts {
                        for p in 0..P {
                            for v in 0..V {
                                let x = part::<S>(s, at[p].add(c), v, n, whole);
                                let most = s.max(acc[p][v], x);
                                acc[p][v] = s.select(s.eq(acc[p][v], acc[p][v]), most, acc[p][v]);
                            }
                        }
                    }
                }
            }
            for p in 0..P {
                for v in 0..V {
                    let to = out.add(p * self.channels);
                    if whole {
                        s.store(to.add(v * S::N), acc[p][v]);
                    } else {
                        s.store_n(to, acc[p][v], n);
                    }
                }
            }
        }
    }
}

/// Vector `v` of `n` floats; when they are not whole vectors there is one.
///
/// # Safety
/// `at` is readable for `n` floats.
#[inline(always)]
unsafe fn part<S: Simd>(s: S, at: *const f32, v: usize, n: usize, whole: bool) -> S::F {
    // SAFETY: the caller's.
    unsafe { if whole { s.load(at.add(v * S::N)) } else { s.load_n(at, n) } }
}

/// `to[x * step + c] = from[c * width + x]` for `rows` values of c.
///
/// # Panics
/// When a slice is too short.
pub fn transpose(from: &[f32], rows: usize, width: usize, to: &mut [f32], step: usize) {
    // Lines of `to` that stay in the first-level cache while all rows are written to them.
    const FLOATS: usize = 4096;
    assert!(rows <= step && from.len() >= rows * width);
    let places = (FLOATS / step.max(1)).max(16);
    for (i, to) in to.chunks_mut(places * step).enumerate() {
        let first = i * places;
        if first >= width {
            break;
        }
        let last = (first + places).min(width);
        for c in 0..rows {
            let row = &from[c * width + first..c * width + last];
            to[c..].iter_mut().step_by(step).zip(row).for_each(|(to, from)| *to = *from);
        }
    }
}
