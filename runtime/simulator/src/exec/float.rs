//! Rounding, flushing and saturation of floating-point results as PTX defines them, and the narrow formats.
//!
//! Sums and products are formed in f64 rounded to odd (Boldo and Melquiond, "When double rounding is odd"), so
//! that the rounding to the narrow format is the only one.

/// The NaN that arithmetic on f32 gives (PTX ISA, section 9.7.3).
pub(crate) const NAN32: u32 = 0x7fff_ffff;

/// Modifier bits of an instruction.
pub(crate) mod flags {
    /// Subnormal operands and results become zero.
    pub(crate) const FTZ: u32 = 1;
    /// Results are clamped to [0, 1], NaN becomes 0.
    pub(crate) const SAT: u32 = 2;
    /// NaN operands give NaN in `min` and `max`.
    pub(crate) const NAN: u32 = 4;
    /// Negative results become zero.
    pub(crate) const RELU: u32 = 8;
    /// `min.xorsign.abs`
    pub(crate) const XORSIGN: u32 = 16;
    /// Out-of-range conversions give the largest finite value.
    pub(crate) const SATFINITE: u32 = 32;
    /// Where the rounding mode stands.
    pub(crate) const ROUND_SHIFT: u32 = 8;
}

/// Directions of rounding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    Nearest,
    Zero,
    Down,
    Up,
    /// To nearest, ties away from zero.
    Away,
}

impl Round {
    pub(crate) fn of(flags: u32) -> Round {
        match flags >> flags::ROUND_SHIFT & 7 {
            1 => Round::Zero,
            2 => Round::Down,
            3 => Round::Up,
            4 => Round::Away,
            _ => Round::Nearest,
        }
    }

    pub(crate) fn bits(self) -> u32 {
        (self as u32) << flags::ROUND_SHIFT
    }
}

/// f32 with the one NaN of arithmetic.
#[inline(always)]
pub(crate) fn canonical(x: f32) -> f32 {
    if x.is_nan() { f32::from_bits(NAN32) } else { x }
}

/// Zero of the same sign for a subnormal.
#[inline(always)]
pub(crate) fn flush(x: f32) -> f32 {
    if x.to_bits() & 0x7f80_0000 == 0 { f32::from_bits(x.to_bits() & 0x8000_0000) } else { x }
}

/// A rounded result and the sign of what it lacks, to the odd neighbour.
fn to_odd(rounded: f64, rest: f64) -> f64 {
    if rest == 0.0 || rest.is_nan() || !rounded.is_finite() || rounded.to_bits() & 1 == 1 {
        return rounded;
    }
    let away = (rest > 0.0) == (rounded > 0.0);
    f64::from_bits(if away { rounded.to_bits() + 1 } else { rounded.to_bits() - 1 })
}

/// a + b rounded to odd.
pub(crate) fn add_odd(a: f64, b: f64) -> f64 {
    let sum = a + b;
    let shadow = sum - a;
    to_odd(sum, (a - (sum - shadow)) + (b - shadow))
}

fn div_odd(a: f64, b: f64) -> f64 {
    let quotient = a / b;
    let rest = (-quotient).mul_add(b, a);
    to_odd(quotient, if b < 0.0 { -rest } else { rest })
}

fn sqrt_odd(a: f64) -> f64 {
    let root = a.sqrt();
    to_odd(root, (-root).mul_add(root, a))
}

/// f64 to f32 in a direction.
pub(crate) fn narrow(x: f64, round: Round) -> f32 {
    let near = x as f32;
    let back = f64::from(near);
    if back == x || x.is_nan() || x.is_infinite() {
        return near;
    }
    let (lower, upper) = if back < x { (near, near.next_up()) } else { (near.next_down(), near) };
    match round {
        Round::Nearest | Round::Away => near,
        Round::Zero if x > 0.0 => lower,
        Round::Zero => upper,
        Round::Down => lower,
        Round::Up => upper,
    }
}

/// Applies what follows rounding.
fn finish(x: f32, modifiers: u32) -> f32 {
    let x = if modifiers & flags::FTZ != 0 { flush(x) } else { x };
    if modifiers & flags::SAT != 0 {
        return if x.is_nan() { 0.0 } else { x.clamp(0.0, 1.0) + 0.0 };
    }
    if modifiers & flags::RELU != 0 && x < 0.0 {
        return 0.0;
    }
    canonical(x)
}

fn operand(x: f32, modifiers: u32) -> f64 {
    f64::from(if modifiers & flags::FTZ != 0 { flush(x) } else { x })
}

/// a + b with modifiers.
#[inline(never)]
pub(crate) fn add(a: f32, b: f32, modifiers: u32) -> f32 {
    let sum = add_odd(operand(a, modifiers), operand(b, modifiers));
    let round = Round::of(modifiers);
    // An exact zero of unlike signs is negative when rounding down (IEEE 754, section 6.3).
    if sum == 0.0 && round == Round::Down && (a.is_sign_negative() || b.is_sign_negative()) {
        return finish(-0.0, modifiers);
    }
    finish(narrow(sum, round), modifiers)
}

/// a · b with modifiers.
#[inline(never)]
pub(crate) fn mul(a: f32, b: f32, modifiers: u32) -> f32 {
    let product = operand(a, modifiers) * operand(b, modifiers);
    finish(narrow(product, Round::of(modifiers)), modifiers)
}

/// a · b + c with modifiers, rounded once.
#[inline(never)]
pub(crate) fn fma(a: f32, b: f32, c: f32, modifiers: u32) -> f32 {
    let product = operand(a, modifiers) * operand(b, modifiers);
    finish(narrow(add_odd(product, operand(c, modifiers)), Round::of(modifiers)), modifiers)
}

/// a / b with modifiers.
#[inline(never)]
pub(crate) fn div(a: f32, b: f32, modifiers: u32) -> f32 {
    let quotient = div_odd(operand(a, modifiers), operand(b, modifiers));
    finish(narrow(quotient, Round::of(modifiers)), modifiers)
}

/// √a with modifiers.
#[inline(never)]
pub(crate) fn sqrt(a: f32, modifiers: u32) -> f32 {
    finish(narrow(sqrt_odd(operand(a, modifiers)), Round::of(modifiers)), modifiers)
}

/// The smaller (or the larger) of two; −0 is below +0, NaN loses unless asked for.
#[inline(always)]
pub(crate) fn extreme(a: f32, b: f32, largest: bool, modifiers: u32) -> f32 {
    if a.is_nan() || b.is_nan() {
        let both = a.is_nan() && b.is_nan();
        return if both || modifiers & flags::NAN != 0 {
            f32::from_bits(NAN32)
        } else if a.is_nan() {
            b
        } else {
            a
        };
    }
    let below = if a == b { a.is_sign_negative() } else { a < b };
    if below != largest { a } else { b }
}

/// `min` and `max` with modifiers.
#[inline(never)]
pub(crate) fn extreme_modified(a: f32, b: f32, largest: bool, modifiers: u32) -> f32 {
    let ready = |x: f32| if modifiers & flags::FTZ != 0 { flush(x) } else { x };
    let (a, b) = (ready(a), ready(b));
    if modifiers & flags::XORSIGN != 0 {
        let sign = (a.to_bits() ^ b.to_bits()) & 0x8000_0000;
        let magnitude = extreme(a.abs(), b.abs(), largest, modifiers);
        return f32::from_bits(magnitude.to_bits() | sign);
    }
    extreme(a, b, largest, modifiers)
}

/// Bits of an f16 as f32, exactly.
#[inline(always)]
pub(crate) fn f16_to_f32(h: u32) -> f32 {
    // The exponent is rebiased by a multiplication, which also normalises subnormals.
    let magnitude = (h & 0x7fff) << 13;
    let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000);
    let special = magnitude >= 0x0f80_0000;
    let bits = if special { magnitude | 0x7f80_0000 } else { scaled.to_bits() };
    f32::from_bits(bits | (h & 0x8000) << 16)
}

/// f32 to f16 bits, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_f16(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    // Adding 0.5 leaves a subnormal's bits at the end of the mantissa, rounded.
    let small = (f32::from_bits(magnitude) + 0.5).to_bits().wrapping_sub(0x3f00_0000);
    let rounded = magnitude.wrapping_add(0xfff + (magnitude >> 13 & 1)).wrapping_sub(0x3800_0000);
    let normal = (rounded >> 13).min(0x7c00);
    let finite = if magnitude < 0x3880_0000 { small } else { normal };
    let large = if magnitude > 0x7f80_0000 { 0x7fff } else { 0x7c00 };
    let sign = if magnitude > 0x7f80_0000 { 0 } else { bits >> 16 & 0x8000 };
    sign | if magnitude >= 0x4780_0000 { large } else { finite }
}

/// f32 to bf16 bits, to nearest even.
#[inline(always)]
pub(crate) fn f32_to_bf16(x: f32) -> u32 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1)) >> 16;
    if x.is_nan() { 0x7fff } else { rounded }
}

/// A function with subnormal operands and results flushed where asked for.
#[inline(always)]
pub(crate) fn flushed(x: f32, modifiers: u32, f: impl Fn(f32) -> f32) -> f32 {
    if modifiers & flags::FTZ != 0 { flush(f(flush(x))) } else { f(x) }
}

/// f32 to TF32 bits: 10 bits of mantissa, to nearest (ties as asked).
#[inline(always)]
pub(crate) fn f32_to_tf32(x: f32, away: bool) -> u32 {
    let bits = x.to_bits();
    if x.is_nan() {
        return NAN32;
    }
    if bits & 0x7f80_0000 == 0x7f80_0000 {
        return bits;
    }
    let half = if away { 0x1000 } else { 0xfff + (bits >> 13 & 1) };
    bits.wrapping_add(half) & !0x1fff
}

/// Shape of a narrow float: bits of exponent and mantissa, and whether the top exponent is for infinities.
#[derive(Clone, Copy)]
pub(crate) struct Narrow {
    exponent: u32,
    mantissa: u32,
    ieee: bool,
}

/// IEEE half precision.
pub(crate) const F16: Narrow = Narrow { exponent: 5, mantissa: 10, ieee: true };
/// Brain float.
pub(crate) const BF16: Narrow = Narrow { exponent: 8, mantissa: 7, ieee: true };
/// OCP 8-bit float with 4 bits of exponent, no infinity.
pub(crate) const E4M3: Narrow = Narrow { exponent: 4, mantissa: 3, ieee: false };
/// OCP 8-bit float with 5 bits of exponent.
pub(crate) const E5M2: Narrow = Narrow { exponent: 5, mantissa: 2, ieee: true };

impl Narrow {
    fn bias(self) -> i32 {
        (1 << (self.exponent - 1)) - 1
    }

    fn max_bits(self) -> u64 {
        let all = (1u64 << (self.exponent + self.mantissa)) - 1;
        if self.ieee { all - (1 << self.mantissa) } else { all - 1 }
    }

    fn nan_bits(self) -> u32 {
        ((1u64 << (self.exponent + self.mantissa)) - 1) as u32
    }

    /// Exact value of its bits.
    #[inline(never)]
    pub(crate) fn decode(self, bits: u32) -> f64 {
        let mantissa = bits & ((1 << self.mantissa) - 1);
        let exponent = bits >> self.mantissa & ((1 << self.exponent) - 1);
        let negative = bits >> (self.mantissa + self.exponent) & 1 == 1;
        let top = exponent == (1 << self.exponent) - 1;
        let scale = |e: i32| f64::from_bits(((1023 + e) as u64) << 52);
        let value = if top && self.ieee && mantissa == 0 {
            f64::INFINITY
        } else if top && (self.ieee || mantissa == (1 << self.mantissa) - 1) {
            f64::NAN
        } else if exponent == 0 {
            f64::from(mantissa) * scale(1 - self.bias() - self.mantissa as i32)
        } else {
            let whole = mantissa | 1 << self.mantissa;
            f64::from(whole) * scale(exponent as i32 - self.bias() - self.mantissa as i32)
        };
        if negative { -value } else { value }
    }

    /// Bits of a value, rounded once; `satfinite` clamps to the largest finite value.
    #[inline(never)]
    pub(crate) fn encode(self, x: f64, round: Round, satfinite: bool) -> u32 {
        if x.is_nan() {
            return self.nan_bits();
        }
        let sign = u32::from(x.is_sign_negative()) << (self.exponent + self.mantissa);
        let magnitude = x.abs();
        let unit_exponent = (((magnitude.to_bits() >> 52) as i32) - 1023).max(1 - self.bias())
            - self.mantissa as i32;
        let scaled = magnitude * f64::from_bits(((1023 - unit_exponent) as u64) << 52);
        let (whole, negative) = (scaled.floor(), x.is_sign_negative());
        let up = match round {
            Round::Nearest => scaled.round_ties_even() > whole,
            Round::Away => scaled.round() > whole,
            Round::Zero => false,
            Round::Down => negative && scaled > whole,
            Round::Up => !negative && scaled > whole,
        };
        // In units of the last place, the bits of consecutive floats are consecutive integers.
        let steps = (unit_exponent + self.mantissa as i32 - (1 - self.bias())) as u64;
        let bits = if magnitude.is_infinite() || steps > 1 << 12 {
            u64::MAX
        } else {
            (steps << self.mantissa) + whole as u64 + u64::from(up)
        };
        sign | if bits <= self.max_bits() {
            bits as u32
        } else if satfinite || (matches!(round, Round::Zero) && magnitude.is_finite()) {
            self.max_bits() as u32
        } else if self.ieee {
            self.max_bits() as u32 + 1
        } else {
            self.nan_bits()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_survives_the_way_through_f32() {
        for bits in 0..=0xffffu32 {
            let exact = F16.decode(bits);
            let fast = f16_to_f32(bits);
            assert!(f64::from(fast) == exact || exact.is_nan() && fast.is_nan(), "{bits:#x}");
            if !exact.is_nan() {
                assert_eq!(f32_to_f16(fast), bits);
                assert_eq!(F16.encode(exact, Round::Nearest, false), bits);
            }
        }
    }

    #[test]
    fn halves_round_to_nearest_even_at_every_border() {
        for bits in 0..0x7c00u32 {
            let (low, high) = (F16.decode(bits), F16.decode(bits + 1));
            let middle = if high.is_infinite() { 65520.0 } else { (low + high) / 2.0 };
            let even = if bits % 2 == 0 { bits } else { bits + 1 };
            assert_eq!(f32_to_f16(middle as f32), even, "{middle}");
            assert_eq!(f32_to_f16((middle as f32).next_down()), bits);
            assert_eq!(f32_to_f16((middle as f32).next_up()), bits + 1);
        }
    }

    #[test]
    fn eight_bit_floats_round_trip_and_saturate() {
        for format in [E4M3, E5M2] {
            for bits in 0..=255u32 {
                let value = format.decode(bits);
                if !value.is_nan() {
                    assert_eq!(
                        format.encode(value, Round::Nearest, true) & 0xff,
                        if value.is_infinite() { bits - 1 } else { bits }
                    );
                }
            }
        }
        assert_eq!(E4M3.decode(0x7e), 448.0);
        assert_eq!(E5M2.decode(0x7b), 57344.0);
        assert_eq!(E4M3.encode(1e9, Round::Nearest, true), 0x7e);
    }

    #[test]
    fn directed_rounding_brackets_the_exact_value() {
        let (a, b) = (1.0f32, 1.0e-10f32);
        let modes = [Round::Down, Round::Up, Round::Zero];
        let [down, up, zero] = modes.map(|round| add(a, b, round.bits()));
        assert_eq!((down, up, zero), (1.0, 1.0f32.next_up(), 1.0));
        assert_eq!(fma(3.0, 1.0 / 3.0, -1.0, Round::Up.bits()), 3.0f32.mul_add(1.0 / 3.0, -1.0));
    }
}
