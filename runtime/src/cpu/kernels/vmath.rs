//! Elementary functions over [`Simd`] lanes, single precision.
//!
//! Each function handles infinities, NaN, zeros and subnormal results as its scalar meaning does. Bounds stand
//! on each function in units in the last place (ulp) of the exact result and are swept by the tests.

use super::simd::Simd;

/// Polynomial by Horner's rule, highest coefficient first.
#[inline(always)]
fn horner<S: Simd, const K: usize>(s: S, x: S::F, coefficients: [f32; K]) -> S::F {
    let mut sum = s.splat(coefficients[0]);
    let mut k = 1;
    while k < K {
        sum = s.fma(sum, x, s.splat(coefficients[k]));
        k += 1;
    }
    sum
}

/// `2^n * e^r` for integral `n` and `|r| <= ln(2)/2`.
#[inline(always)]
fn exp_reduced<S: Simd>(s: S, n: S::F, r: S::F) -> S::F {
    let p = horner(s, r, [0.001_381_461, 0.008_368_711, 0.041_668_39, 0.166_665_21, 0.499_999_94]);
    let p = s.fma(p, s.mul(r, r), r);
    s.scale2(s.add(p, s.splat(1.0)), n)
}

/// `e^x`, 2 ulp (3 on the portable lanes).
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // The bound comes first so that NaN, the second operand, passes through.
    let x = s.min(s.splat(89.0), s.max(s.splat(-105.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-0.693_359_4), x);
    let r = s.fma(n, s.splat(2.121_944_4e-4), r);
    exp_reduced(s, n, r)
}

/// Exponent and mantissa of a positive finite number: `x = m * 2^e` with `m` in [sqrt(1/2), sqrt(2)).
#[inline(always)]
fn split<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let tiny = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let scaled = s.select(tiny, s.mul(x, s.splat(16_777_216.0)), x);
    let lost = s.select(tiny, s.splat(24.0), s.splat(0.0));
    // Adding this moves sqrt(1/2) to a power of two, so that the exponent field counts from there.
    let shifted = s.iadd(s.bits(scaled), s.isplat(0x3f80_0000 - 0x3f35_04f3));
    let e = s.isub(s.shr::<23>(shifted), s.isplat(127));
    let m = s.iadd(s.iand(shifted, s.isplat(0x007f_ffff)), s.isplat(0x3f35_04f3));
    (s.of_bits(m), s.sub(s.to_float(e), lost))
}

/// `ln(m)` for `m` in [sqrt(1/2), sqrt(2)) as `x + tail`, `x = m - 1` (Cephes `logf`).
#[inline(always)]
fn log_parts<S: Simd>(s: S, m: S::F) -> (S::F, S::F) {
    let x = s.sub(m, s.splat(1.0));
    let z = s.mul(x, x);
    let p = horner(
        s,
        x,
        [
            7.037_683_6e-2,
            -1.151_461e-1,
            1.167_699_87e-1,
            -1.242_014_1e-1,
            1.424_932_3e-1,
            -1.666_805_8e-1,
            2.000_071_5e-1,
            -2.499_999_4e-1,
            3.333_333e-1,
        ],
    );
    (x, s.mul(s.mul(p, x), z))
}

/// Puts the values of a logarithm where its argument is zero, negative, infinite or NaN.
#[inline(always)]
fn log_edges<S: Simd>(s: S, x: S::F, finite: S::F) -> S::F {
    let zero = s.splat(0.0);
    let inf = s.splat(f32::INFINITY);
    let y = s.select(s.lt(x, inf), finite, x);
    let y = s.select(s.eq(x, zero), s.splat(f32::NEG_INFINITY), y);
    s.select(s.lt(x, zero), s.splat(f32::NAN), y)
}

/// Natural logarithm, 2 ulp.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let (m, e) = split(s, x);
    let (d, tail) = log_parts(s, m);
    let tail = s.fma(e, s.splat(-2.121_944_4e-4), tail);
    let tail = s.fma(s.splat(-0.5), s.mul(d, d), tail);
    let y = s.fma(e, s.splat(0.693_359_4), s.add(d, tail));
    log_edges(s, x, y)
}

/// `y`, and exactly one with the sign of `x` beyond `limit`.
#[inline(always)]
fn saturate<S: Simd>(s: S, x: S::F, limit: f32, y: S::F) -> S::F {
    let one = s.copysign(s.splat(1.0), x);
    s.select(s.lt(s.splat(limit), s.abs(x)), one, y)
}

/// Hyperbolic tangent, 4 ulp: odd rational function of degree 13 over 6.
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let bound = s.splat(7.905_311);
    let a = s.min(bound, s.max(s.splat(-7.905_311), x));
    let x2 = s.mul(a, a);
    let p = horner(
        s,
        x2,
        [
            -2.760_768_5e-16,
            2.000_188e-13,
            -8.604_672e-11,
            5.122_297e-8,
            1.485_722_4e-5,
            6.372_619e-4,
            4.893_524_6e-3,
        ],
    );
    let q = horner(s, x2, [1.198_258_4e-6, 1.185_347_1e-4, 2.268_434_6e-3, 4.893_525e-3]);
    let y = s.mul(a, s.div(p, q));
    let small = s.lt(s.abs(x), s.splat(4e-4));
    s.select(small, x, saturate(s, x, 9.011, y))
}

/// Error function, 2e-7 absolute and 8 ulp: odd rational function of degree 13 over 8.
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.min(s.splat(4.0), s.max(s.splat(-4.0), x));
    let x2 = s.mul(a, a);
    let p = horner(
        s,
        x2,
        [
            -2.726_142_3e-10,
            2.770_681_5e-8,
            -2.101_024e-6,
            -5.692_506_5e-5,
            -7.349_906_5e-4,
            -2.954_6e-3,
            -1.609_603_3e-2,
        ],
    );
    let q = horner(
        s,
        x2,
        [-1.456_607_2e-5, -2.133_740_6e-4, -1.682_827e-3, -7.373_329e-3, -1.426_473_9e-2],
    );
    // The quotient first: `a * p` would be subnormal for tiny `a`.
    let y = s.mul(a, s.div(p, q));
    saturate(s, x, 3.92, y)
}

/// `1 / (1 + e^-x)`, 4 ulp where the result is normal.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    s.div(one, s.add(one, exp(s, s.sub(s.splat(0.0), x))))
}

/// `x/2 (1 + erf(x / sqrt 2))`, 3e-7 max(1, |x|) absolute.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(s: S, x: S::F) -> S::F {
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}

/// Beyond this the three-part reduction by pi/2 loses bits.
const REDUCED: f32 = 8192.0;

/// Sine (`quarter = 0`) or cosine (`quarter = 1`), 2 ulp outside the neighbourhood of zeros, 1e-7 absolute there.
#[inline(always)]
fn sin_shifted<S: Simd>(s: S, x: S::F, quarter: i32) -> S::F {
    if s.any(s.lt(s.splat(REDUCED), s.abs(x))) {
        return per_lane(s, x, if quarter == 0 { f32::sin } else { f32::cos });
    }
    let n = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_2_PI)));
    let r = s.fma(n, s.splat(-1.570_312_5), x);
    let r = s.fma(n, s.splat(-4.837_513e-4), r);
    let r = s.fma(n, s.splat(-7.549_79e-8), r);
    let r2 = s.mul(r, r);
    let p = horner(s, r2, [-1.951_529_6e-4, 8.332_161e-3, -1.666_665_5e-1]);
    let sine = s.fma(s.mul(p, r2), r, r);
    let p = horner(s, r2, [2.443_315_7e-5, -1.388_731_6e-3, 4.166_664_6e-2]);
    let cosine = s.fma(s.mul(p, r2), r2, s.fma(r2, s.splat(-0.5), s.splat(1.0)));
    let k = s.iadd(s.to_int(n), s.isplat(quarter));
    let y = s.select(s.ieq(s.iand(k, s.isplat(1)), s.isplat(1)), cosine, sine);
    let negative = s.ieq(s.iand(k, s.isplat(2)), s.isplat(2));
    s.select(negative, s.sub(s.splat(-0.0), y), y)
}

/// Sine; see [`sin_shifted`].
#[inline(always)]
pub(crate) fn sin<S: Simd>(s: S, x: S::F) -> S::F {
    sin_shifted(s, x, 0)
}

/// Cosine; see [`sin_shifted`].
#[inline(always)]
pub(crate) fn cos<S: Simd>(s: S, x: S::F) -> S::F {
    sin_shifted(s, x, 1)
}

/// A scalar function lane by lane.
#[inline(always)]
pub(crate) fn per_lane<S: Simd>(s: S, x: S::F, f: impl Fn(f32) -> f32) -> S::F {
    let mut lanes = [0.0f32; 16];
    // SAFETY: `N <= 16` lanes fit the array.
    unsafe {
        s.store(lanes.as_mut_ptr(), x);
        for lane in &mut lanes[..S::N] {
            *lane = f(*lane);
        }
        s.load(lanes.as_ptr())
    }
}

/// Next integer below.
#[inline(always)]
pub(crate) fn floor<S: Simd>(s: S, x: S::F) -> S::F {
    let r = s.round(x);
    s.copysign(s.select(s.lt(x, r), s.sub(r, s.splat(1.0)), r), x)
}

/// Next integer above.
#[inline(always)]
pub(crate) fn ceil<S: Simd>(s: S, x: S::F) -> S::F {
    let r = s.round(x);
    s.copysign(s.select(s.lt(r, x), s.add(r, s.splat(1.0)), r), x)
}

#[cfg(test)]
mod tests {
    use super::super::isa::Isa;
    use super::super::simd::{Kernel, Simd};
    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Fun {
        Exp,
        Log,
        Tanh,
        Erf,
        Sigmoid,
        Sin,
        Cos,
        Gelu,
        Floor,
        Ceil,
    }

    struct Eval<'a>(Fun, &'a mut [f32]);

    impl Kernel for Eval<'_> {
        type Out = ();
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for chunk in self.1.chunks_mut(S::N) {
                // SAFETY: partial loads and stores of the chunk's length.
                unsafe {
                    let x = s.load_n(chunk.as_ptr(), chunk.len());
                    let y = match self.0 {
                        Fun::Exp => exp(s, x),
                        Fun::Log => log(s, x),
                        Fun::Tanh => tanh(s, x),
                        Fun::Erf => erf(s, x),
                        Fun::Sigmoid => sigmoid(s, x),
                        Fun::Sin => sin(s, x),
                        Fun::Cos => cos(s, x),
                        Fun::Gelu => gelu(s, x),
                        Fun::Floor => floor(s, x),
                        Fun::Ceil => ceil(s, x),
                    };
                    s.store_n(chunk.as_mut_ptr(), y, chunk.len());
                }
            }
        }
    }

    fn apply(isa: Isa, fun: Fun, x: &[f32]) -> Vec<f32> {
        let mut y = x.to_vec();
        isa.run(Eval(fun, &mut y));
        y
    }

    /// Every `stride`-th float of [lo, hi], in bit order, both signs where the interval has both.
    fn sweep(lo: f32, hi: f32, stride: u32) -> Vec<f32> {
        let mut xs = Vec::new();
        for sign in [1.0f32, -1.0] {
            let (a, b) = if sign > 0.0 { (lo.max(0.0), hi) } else { ((-hi).max(0.0), -lo) };
            if b <= a {
                continue;
            }
            xs.extend(
                (a.to_bits()..=b.to_bits())
                    .step_by(stride as usize)
                    .map(|u| sign * f32::from_bits(u)),
            );
        }
        xs
    }

    fn ulp(y: f64) -> f64 {
        let y = (y.abs() as f32).max(f32::MIN_POSITIVE);
        f64::from(f32::from_bits(y.to_bits() + 1)) - f64::from(y)
    }

    fn worst(isa: Isa, fun: Fun, xs: &[f32], exact: impl Fn(f64) -> f64, floor: f64) -> f64 {
        let ys = apply(isa, fun, xs);
        let mut worst = 0.0f64;
        for (&x, &y) in xs.iter().zip(&ys) {
            let e = exact(f64::from(x));
            if (e as f32) == y || (e.is_nan() && y.is_nan()) {
                continue;
            }
            let error = (f64::from(y) - e).abs() / ulp(e).max(floor);
            assert!(!error.is_nan(), "{fun:?}({x}) = {y}, exactly {e}");
            worst = worst.max(error);
        }
        worst
    }

    fn erf64(x: f64) -> f64 {
        // Series below 3, continued fraction above; both to about 1e-15.
        let a = x.abs();
        let value = if a < 3.0 {
            let (mut term, mut sum) = (a, a);
            for k in 1..80 {
                term *= -a * a / f64::from(k);
                sum += term / f64::from(2 * k + 1);
            }
            sum * 2.0 / std::f64::consts::PI.sqrt()
        } else {
            let mut f = 0.0;
            for k in (1..60).rev() {
                f = f64::from(k) / 2.0 / (a + f);
            }
            1.0 - (-a * a).exp() / (a + f) / std::f64::consts::PI.sqrt()
        };
        value.copysign(x)
    }

    #[test]
    fn functions_are_within_their_bounds_on_every_isa() {
        const STEP: u32 = 40_009;
        for isa in Isa::available() {
            let check = |fun, lo, hi, exact: fn(f64) -> f64, floor, bound: f64| {
                let w = worst(isa, fun, &sweep(lo, hi, STEP), exact, floor);
                assert!(w <= bound, "{} {fun:?} on [{lo}, {hi}]: {w} ulp", isa.name());
            };
            let sigmoid64 = |x: f64| 1.0 / (1.0 + (-x).exp());
            check(Fun::Exp, -103.0, 88.7, f64::exp, 0.0, 3.0);
            check(Fun::Log, 0.0, f32::MAX, f64::ln, 0.0, 2.5);
            check(Fun::Tanh, -20.0, 20.0, f64::tanh, 0.0, 4.0);
            check(Fun::Erf, -6.0, 6.0, erf64, 0.0, 8.0);
            check(Fun::Sigmoid, -80.0, 80.0, sigmoid64, 0.0, 4.0);
            check(Fun::Sin, -8000.0, 8000.0, f64::sin, 6e-8, 2.5);
            check(Fun::Cos, -8000.0, 8000.0, f64::cos, 6e-8, 2.5);
            check(Fun::Sin, 9000.0, 1e30, f64::sin, 0.0, 1.0);
            check(Fun::Floor, -3e9, 3e9, f64::floor, 0.0, 0.0);
            check(Fun::Ceil, -3e9, 3e9, f64::ceil, 0.0, 0.0);
        }
    }

    #[test]
    fn gelu_is_close_on_every_isa() {
        for isa in Isa::available() {
            let xs = sweep(-6.0, 6.0, 40_009);
            for (x, y) in xs.iter().zip(apply(isa, Fun::Gelu, &xs)) {
                let x = f64::from(*x);
                let exact = 0.5 * x * (1.0 + erf64(x * std::f64::consts::FRAC_1_SQRT_2));
                assert!(
                    (f64::from(y) - exact).abs() < 3e-7 * x.abs().max(1.0),
                    "{} gelu({x}) = {y} not {exact}",
                    isa.name()
                );
            }
        }
    }

    #[test]
    fn edges_keep_their_meaning_on_every_isa() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let cases: [(Fun, f32, f32); 19] = [
            (Fun::Exp, -inf, 0.0),
            (Fun::Exp, inf, inf),
            (Fun::Exp, 200.0, inf),
            (Fun::Exp, -200.0, 0.0),
            (Fun::Exp, nan, nan),
            (Fun::Log, 0.0, -inf),
            (Fun::Log, -1.0, nan),
            (Fun::Log, inf, inf),
            (Fun::Log, nan, nan),
            (Fun::Log, 1e-45, 1e-45f32.ln()),
            (Fun::Tanh, inf, 1.0),
            (Fun::Tanh, -20.0, -1.0),
            (Fun::Tanh, nan, nan),
            (Fun::Erf, inf, 1.0),
            (Fun::Erf, nan, nan),
            (Fun::Sigmoid, -inf, 0.0),
            (Fun::Sigmoid, inf, 1.0),
            (Fun::Sin, inf, nan),
            (Fun::Floor, -inf, -inf),
        ];
        for isa in Isa::available() {
            for (fun, x, expected) in cases {
                let y = apply(isa, fun, &[x])[0];
                let same = y == expected || (y.is_nan() && expected.is_nan());
                assert!(same, "{} {fun:?}({x}) = {y}, not {expected}", isa.name());
            }
            assert_eq!(apply(isa, Fun::Floor, &[-0.0])[0].to_bits(), (-0.0f32).to_bits());
        }
    }
}
