//! Special functions, more exactly than hardware and the same on every machine.
//!
//! PTX bounds the error of the `.approx` forms (PTX ISA, section 9.7.3); these stay far inside the bounds, so
//! a kernel that only works because of hardware's error is not found, and one that needs exactness passes.

/// 2^x, to half a unit in the last place of f32 and a little: a polynomial on [-1/2, 1/2] in f64.
#[inline(always)]
pub(crate) fn exp2(x: f32) -> f32 {
    let wide = f64::from(x).clamp(-200.0, 200.0);
    // Adding and taking away 1.5·2^52 rounds to an integer, whose bits stand at the end of the sum.
    let shifted = wide + 6_755_399_441_055_744.0;
    let whole = shifted - 6_755_399_441_055_744.0;
    let t = (wide - whole) * std::f64::consts::LN_2;
    // Taylor's series; the rest is below t^10/10! < 2^-36.
    let mut sum = 1.0 / 362_880.0;
    for divisor in [40320.0, 5040.0, 720.0, 120.0, 24.0, 6.0, 2.0, 1.0, 1.0f64] {
        sum = sum * t + 1.0 / divisor;
    }
    let power = f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52);
    let value = (sum * power) as f32;
    if x.is_nan() { f32::from_bits(super::float::NAN32) } else { value }
}

/// log2(x).
pub(crate) fn log2(x: f32) -> f32 {
    super::float::canonical(libm::log2(f64::from(x)) as f32)
}

/// sin(x), for the angles that `.approx` is defined for.
pub(crate) fn sin(x: f32) -> f32 {
    super::float::canonical(libm::sin(f64::from(x)) as f32)
}

/// cos(x).
pub(crate) fn cos(x: f32) -> f32 {
    super::float::canonical(libm::cos(f64::from(x)) as f32)
}

/// tanh(x).
pub(crate) fn tanh(x: f32) -> f32 {
    super::float::canonical(libm::tanh(f64::from(x)) as f32)
}

/// 1 / √x.
#[inline(always)]
pub(crate) fn rsqrt(x: f32) -> f32 {
    super::float::canonical((1.0 / f64::from(x).sqrt()) as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two_are_right_to_the_rounding_of_f32() {
        for step in -1500..1500 {
            let x = step as f32 * 0.1003;
            let exact = libm::exp2(f64::from(x));
            let error = (f64::from(exp2(x)) - exact).abs();
            assert!(
                error <= 0.51 * f64::from((exact as f32).next_up() - exact as f32) || exact > 3e38,
                "{x}"
            );
        }
        assert_eq!(
            (exp2(f32::NEG_INFINITY), exp2(f32::INFINITY), exp2(0.0)),
            (0.0, f32::INFINITY, 1.0)
        );
        assert!(exp2(f32::NAN).is_nan());
    }
}
