//! The portable lanes: arrays of four floats that the compiler may turn into whatever the target has.
//! No intrinsics, no target features.

use super::simd::Simd;

/// Four lanes of plain Rust; every CPU has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Portable;

/// Aligned so that the compiler keeps it in one register.
#[derive(Clone, Copy)]
#[repr(align(16))]
pub struct Four<T>([T; 4]);

type F = Four<f32>;
type I = Four<i32>;
type M = Four<bool>;

#[inline(always)]
fn zip<A: Copy, B: Copy, R>(a: Four<A>, b: Four<B>, f: impl Fn(A, B) -> R) -> Four<R> {
    let (a, b) = (a.0, b.0);
    Four([f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])])
}

/// `2^n` as bits, for `n` in the normal exponent range.
#[inline(always)]
fn pow2(n: i32) -> f32 {
    f32::from_bits(((n + 127) << 23) as u32)
}

impl Simd for Portable {
    type F = F;
    type I = I;
    type M = M;
    const N: usize = 4;
    const MR: usize = 6;
    const ACC: usize = 12;
    const NV: usize = 2;

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        Four([x; 4])
    }
    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F {
        // SAFETY: the caller vouches for four readable floats.
        Four(unsafe { p.cast::<[f32; 4]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: F) {
        // SAFETY: the caller vouches for four writable floats.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v.0) }
    }
    #[inline(always)]
    unsafe fn load_n(self, p: *const f32, n: usize) -> F {
        let mut lanes = [0.0; 4];
        for (i, lane) in lanes.iter_mut().enumerate().take(n) {
            // SAFETY: the caller vouches for `n` readable floats and `i < n`.
            *lane = unsafe { *p.add(i) };
        }
        Four(lanes)
    }
    #[inline(always)]
    unsafe fn store_n(self, p: *mut f32, v: F, n: usize) {
        for (i, lane) in v.0.iter().enumerate().take(n) {
            // SAFETY: the caller vouches for `n` writable floats and `i < n`.
            unsafe { *p.add(i) = *lane }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> F {
        // SAFETY: the caller vouches for four readable halves.
        Four(
            unsafe { p.cast::<[u16; 4]>().read_unaligned() }
                .map(|h| half::f16::from_bits(h).to_f32()),
        )
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: F) {
        // SAFETY: the caller vouches for four writable halves.
        unsafe {
            p.cast::<[u16; 4]>().write_unaligned(v.0.map(|x| half::f16::from_f32(x).to_bits()))
        }
    }

    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        zip(a, b, |x, y| x + y)
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        zip(a, b, |x, y| x - y)
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        zip(a, b, |x, y| x * y)
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        zip(a, b, |x, y| x / y)
    }
    #[inline(always)]
    fn fma(self, a: F, b: F, c: F) -> F {
        self.add(self.mul(a, b), c)
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        zip(a, b, |x, y| if x < y { x } else { y })
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        zip(a, b, |x, y| if x > y { x } else { y })
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        Four(a.0.map(f32::abs))
    }
    #[inline(always)]
    fn copysign(self, a: F, b: F) -> F {
        zip(a, b, f32::copysign)
    }
    #[inline(always)]
    fn round(self, a: F) -> F {
        Four(a.0.map(f32::round_ties_even))
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        Four(a.0.map(f32::sqrt))
    }
    #[inline(always)]
    fn scale2(self, a: F, n: F) -> F {
        zip(a, n, |x, n| {
            let n = n as i32;
            let half = n >> 1;
            x * pow2(half) * pow2(n - half)
        })
    }
    #[inline(always)]
    fn lt(self, a: F, b: F) -> M {
        zip(a, b, |x, y| x < y)
    }
    #[inline(always)]
    fn eq(self, a: F, b: F) -> M {
        zip(a, b, |x, y| x == y)
    }
    #[inline(always)]
    fn select(self, m: M, a: F, b: F) -> F {
        let (m, a, b) = (m.0, a.0, b.0);
        let pick = |i: usize| if m[i] { a[i] } else { b[i] };
        Four([pick(0), pick(1), pick(2), pick(3)])
    }
    #[inline(always)]
    fn any(self, m: M) -> bool {
        m.0[0] | m.0[1] | m.0[2] | m.0[3]
    }
    #[inline(always)]
    fn hsum(self, a: F) -> f32 {
        (a.0[0] + a.0[2]) + (a.0[1] + a.0[3])
    }
    #[inline(always)]
    fn hmax(self, a: F) -> f32 {
        a.0[0].max(a.0[1]).max(a.0[2].max(a.0[3]))
    }

    #[inline(always)]
    fn isplat(self, x: i32) -> I {
        Four([x; 4])
    }
    #[inline(always)]
    fn bits(self, a: F) -> I {
        Four(a.0.map(|x| x.to_bits() as i32))
    }
    #[inline(always)]
    fn of_bits(self, a: I) -> F {
        Four(a.0.map(|x| f32::from_bits(x as u32)))
    }
    #[inline(always)]
    fn to_int(self, a: F) -> I {
        Four(a.0.map(|x| x.round_ties_even() as i32))
    }
    #[inline(always)]
    fn to_float(self, a: I) -> F {
        Four(a.0.map(|x| x as f32))
    }
    #[inline(always)]
    fn iadd(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn isub(self, a: I, b: I) -> I {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn iand(self, a: I, b: I) -> I {
        zip(a, b, |x, y| x & y)
    }
    #[inline(always)]
    fn shl<const K: u32>(self, a: I) -> I {
        Four(a.0.map(|x| x << K))
    }
    #[inline(always)]
    fn shr<const K: u32>(self, a: I) -> I {
        Four(a.0.map(|x| x >> K))
    }
    #[inline(always)]
    fn ieq(self, a: I, b: I) -> M {
        zip(a, b, |x, y| x == y)
    }
}
