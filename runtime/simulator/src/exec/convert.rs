//! Conversions between any two scalar types with any rounding (PTX ISA, section 9.7.9.21), by way of f64 or
//! of a wide integer. Exact, and slower than the rows for common pairs.

use super::float::{BF16, E4M3, E5M2, F16, NAN32, Narrow, Round, flags, flush, narrow};
use crate::ptx::ast::Type;

/// Bit that asks for an integral value of a float.
pub(crate) const INTEGRAL: u32 = 1 << 12;
const FROM_SHIFT: u32 = 16;
const TO_SHIFT: u32 = 24;

/// Types in the order of their codes.
const TYPES: [Type; 16] = [
    Type::U8,
    Type::U16,
    Type::U32,
    Type::U64,
    Type::S8,
    Type::S16,
    Type::S32,
    Type::S64,
    Type::F16,
    Type::Bf16,
    Type::F32,
    Type::F64,
    Type::Tf32,
    Type::E4m3,
    Type::E5m2,
    Type::Pred,
];

/// Modifier bits of a conversion; none when one of the types takes no part in conversions.
pub(crate) fn modifiers(from: Type, to: Type, flags: u32) -> Option<u32> {
    let code = |ty: Type| TYPES[..15].iter().position(|t| *t == ty).map(|p| p as u32);
    Some(flags | code(from)? << FROM_SHIFT | code(to)? << TO_SHIFT)
}

/// Converts the bits of one value.
#[inline(never)]
pub(crate) fn convert(bits: u64, modifiers: u32) -> u64 {
    let from = TYPES[(modifiers >> FROM_SHIFT & 15) as usize];
    let to = TYPES[(modifiers >> TO_SHIFT & 15) as usize];
    match float_value(bits, from, modifiers) {
        Some(value) => from_float(value, to, modifiers),
        None => from_integer(integer_value(bits, from), to, modifiers),
    }
}

fn float_value(bits: u64, from: Type, modifiers: u32) -> Option<f64> {
    Some(match from {
        Type::F16 => F16.decode(bits as u32),
        Type::Bf16 => BF16.decode(bits as u32),
        Type::F32 | Type::Tf32 => {
            let value = f32::from_bits(bits as u32);
            f64::from(if modifiers & flags::FTZ != 0 { flush(value) } else { value })
        }
        Type::F64 => f64::from_bits(bits),
        Type::E4m3 => E4M3.decode(bits as u32),
        Type::E5m2 => E5M2.decode(bits as u32),
        _ => return None,
    })
}

fn integer_value(bits: u64, from: Type) -> i128 {
    match from {
        Type::U8 => i128::from(bits as u8),
        Type::U16 => i128::from(bits as u16),
        Type::U32 => i128::from(bits as u32),
        Type::S8 => i128::from(bits as i8),
        Type::S16 => i128::from(bits as i16),
        Type::S32 => i128::from(bits as i32),
        Type::S64 => i128::from(bits as i64),
        _ => i128::from(bits),
    }
}

fn range(to: Type) -> (i128, i128) {
    let bits = to.bytes() * 8;
    if to.is_signed() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

fn rounded(value: f64, round: Round) -> f64 {
    match round {
        Round::Nearest => value.round_ties_even(),
        Round::Away => value.round(),
        Round::Zero => value.trunc(),
        Round::Down => value.floor(),
        Round::Up => value.ceil(),
    }
}

fn from_float(value: f64, to: Type, modifiers: u32) -> u64 {
    let round = Round::of(modifiers);
    let value = if modifiers & INTEGRAL != 0 { rounded(value, round) } else { value };
    let value = if modifiers & flags::RELU != 0 && value < 0.0 { 0.0 } else { value };
    if to_is_float(to) {
        let clamped = if modifiers & flags::SAT == 0 {
            value
        } else if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, 1.0) + 0.0
        };
        return encode(clamped, to, round, modifiers);
    }
    // Out-of-range values and NaN (zero) saturate (PTX ISA, `cvt`).
    let (low, high) = range(to);
    let whole = if value.is_nan() { 0 } else { (rounded(value, round) as i128).clamp(low, high) };
    mask(whole, to)
}

fn to_is_float(to: Type) -> bool {
    matches!(
        to,
        Type::F16 | Type::Bf16 | Type::F32 | Type::F64 | Type::Tf32 | Type::E4m3 | Type::E5m2
    )
}

fn encode(value: f64, to: Type, round: Round, modifiers: u32) -> u64 {
    let saturates = modifiers & flags::SATFINITE != 0;
    match to {
        Type::F16 => u64::from(F16.encode(value, round, saturates)),
        Type::Bf16 => u64::from(BF16.encode(value, round, saturates)),
        Type::E4m3 => u64::from(E4M3.encode(value, round, saturates)),
        Type::E5m2 => u64::from(E5M2.encode(value, round, saturates)),
        Type::F64 => value.to_bits(),
        _ if value.is_nan() => u64::from(NAN32),
        _ => {
            let result = narrow(value, round);
            let result = if modifiers & flags::FTZ != 0 { flush(result) } else { result };
            u64::from(result.to_bits())
        }
    }
}

fn from_integer(value: i128, to: Type, modifiers: u32) -> u64 {
    let round = Round::of(modifiers);
    if to == Type::F32 {
        return u64::from(integer_to_f32(value, round).to_bits());
    }
    if to_is_float(to) {
        // Below 2^53 every integer is a double; larger ones are rounded to f64 once.
        return encode(value as f64, to, round, modifiers);
    }
    let (low, high) = range(to);
    let value = if modifiers & flags::SAT != 0 { value.clamp(low, high) } else { value };
    mask(value, to)
}

fn integer_to_f32(value: i128, round: Round) -> f32 {
    let near = value as f32;
    let error = value - near as i128;
    match round {
        Round::Zero if error != 0 && (error > 0) != (value > 0) => {
            f32::from_bits(near.to_bits() - 1)
        }
        Round::Down if error < 0 => near.next_down(),
        Round::Up if error > 0 => near.next_up(),
        _ => near,
    }
}

fn mask(value: i128, to: Type) -> u64 {
    match to.bytes() {
        8 => value as u64,
        bytes => value as u64 & ((1 << (8 * bytes)) - 1),
    }
}

/// `cvt.…x2.f32 d, a, b`: a in the upper byte.
pub(crate) fn pair_of_bytes(format: Narrow, a: f32, b: f32, modifiers: u32) -> u16 {
    let relu = |x: f32| if modifiers & flags::RELU != 0 && x < 0.0 { 0.0 } else { x };
    let byte = |x: f32| format.encode(f64::from(relu(x)), Round::Nearest, true) as u16;
    byte(a) << 8 | byte(b)
}

/// `cvt.f16x2.…x2`
pub(crate) fn halves_of_bytes(format: Narrow, pair: u16) -> u32 {
    let half = |byte: u16| F16.encode(format.decode(byte.into()), Round::Nearest, false);
    half(pair >> 8) << 16 | half(pair & 0xff)
}
