//! The scalar table on slots: which rows have vector loops, and plain functions for the rest.
//!
//! Shares no code with the reference's meanings.

use tgc_ir::DType;
use tgc_ir::dtype::DTypeKind;
use tgc_ir::scalar::ScalarOp;

use crate::cpu::index::floor_mod;
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::lanes::{self, Arg, Binary, Extent, FromImm, Unary};
use crate::cpu::kernels::region::kind_of;
use crate::cpu::kernels::slots::{Kind, Slots};

/// The vector form of a unary row, for single precision.
pub(super) fn vector1(op: ScalarOp) -> Option<Unary> {
    Some(match op {
        ScalarOp::Neg => Unary::Neg,
        ScalarOp::Abs => Unary::Abs,
        ScalarOp::Exp => Unary::Exp,
        ScalarOp::Log => Unary::Log,
        ScalarOp::Sqrt => Unary::Sqrt,
        ScalarOp::Rsqrt => Unary::Rsqrt,
        ScalarOp::Recip => Unary::Recip,
        ScalarOp::Erf => Unary::Erf,
        ScalarOp::Tanh => Unary::Tanh,
        ScalarOp::Sigmoid => Unary::Sigmoid,
        ScalarOp::Sin => Unary::Sin,
        ScalarOp::Cos => Unary::Cos,
        ScalarOp::Floor => Unary::Floor,
        ScalarOp::Ceil => Unary::Ceil,
        ScalarOp::Round => Unary::Round,
        ScalarOp::Trunc => Unary::Trunc,
        _ => return None,
    })
}

/// The vector form of a binary row, for single precision.
pub(super) fn vector2(op: ScalarOp) -> Option<Binary> {
    Some(match op {
        ScalarOp::Add => Binary::Add,
        ScalarOp::Sub => Binary::Sub,
        ScalarOp::Mul => Binary::Mul,
        ScalarOp::Div => Binary::Div,
        ScalarOp::Min => Binary::Min,
        ScalarOp::Max => Binary::Max,
        _ => return None,
    })
}

/// A unary row on doubles.
pub(super) fn real1(op: ScalarOp) -> Option<fn(f64) -> f64> {
    Some(match op {
        ScalarOp::Neg => |x| -x,
        ScalarOp::Abs => f64::abs,
        ScalarOp::Sign => |x| {
            if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x
            }
        },
        ScalarOp::Exp => f64::exp,
        ScalarOp::Log => f64::ln,
        ScalarOp::Expm1 => f64::exp_m1,
        ScalarOp::Log1p => f64::ln_1p,
        ScalarOp::Sqrt => f64::sqrt,
        ScalarOp::Rsqrt => |x| 1.0 / x.sqrt(),
        ScalarOp::Recip => |x| 1.0 / x,
        ScalarOp::Erf => libm::erf,
        ScalarOp::Tanh => f64::tanh,
        ScalarOp::Sigmoid => |x| 1.0 / (1.0 + (-x).exp()),
        ScalarOp::Sin => f64::sin,
        ScalarOp::Cos => f64::cos,
        ScalarOp::Tan => f64::tan,
        ScalarOp::Asin => f64::asin,
        ScalarOp::Acos => f64::acos,
        ScalarOp::Atan => f64::atan,
        ScalarOp::Sinh => f64::sinh,
        ScalarOp::Cosh => f64::cosh,
        ScalarOp::Asinh => libm::asinh,
        ScalarOp::Acosh => libm::acosh,
        ScalarOp::Atanh => libm::atanh,
        ScalarOp::Floor => f64::floor,
        ScalarOp::Ceil => f64::ceil,
        ScalarOp::Round => f64::round_ties_even,
        ScalarOp::Trunc => f64::trunc,
        _ => return None,
    })
}

/// A binary row on doubles.
pub(super) fn real2(op: ScalarOp) -> Option<fn(f64, f64) -> f64> {
    Some(match op {
        ScalarOp::Add => |x, y| x + y,
        ScalarOp::Sub => |x, y| x - y,
        ScalarOp::Mul => |x, y| x * y,
        ScalarOp::Div => |x, y| x / y,
        ScalarOp::Mod => |x, y| {
            let r = x % y;
            if r != 0.0 && (r < 0.0) != (y < 0.0) { r + y } else { r }
        },
        ScalarOp::Rem => |x, y| x % y,
        ScalarOp::Pow => f64::powf,
        ScalarOp::Min => |x, y| if x.is_nan() || x < y { x } else { y },
        ScalarOp::Max => |x, y| if x.is_nan() || x > y { x } else { y },
        _ => return None,
    })
}

fn power(base: i64, exponent: i64) -> i64 {
    match (base, exponent) {
        (1, _) | (_, 0) => 1,
        (-1, e) => {
            if e % 2 == 0 {
                1
            } else {
                -1
            }
        }
        (_, e) if e < 0 => 0,
        (b, e) => b.wrapping_pow(u32::try_from(e.min(128)).unwrap_or(128)),
    }
}

/// A binary row on integers of `dtype`, before wrapping.
fn int2(op: ScalarOp, dtype: DType) -> Option<fn(i64, i64) -> i64> {
    let unsigned = dtype == DType::U64;
    Some(match op {
        ScalarOp::Add => i64::wrapping_add,
        ScalarOp::Sub => i64::wrapping_sub,
        ScalarOp::Mul => i64::wrapping_mul,
        ScalarOp::Div if unsigned => |x, y| (x as u64).checked_div(y as u64).unwrap_or(0) as i64,
        ScalarOp::Div => |x, y| if y == 0 { 0 } else { x.wrapping_div(y) },
        ScalarOp::Mod | ScalarOp::Rem if unsigned => {
            |x, y| (x as u64).checked_rem(y as u64).unwrap_or(0) as i64
        }
        ScalarOp::Mod => floor_mod,
        ScalarOp::Rem => |x, y| if y == 0 { 0 } else { x.wrapping_rem(y) },
        ScalarOp::Pow => power,
        ScalarOp::Min if unsigned => |x, y| (x as u64).min(y as u64) as i64,
        ScalarOp::Min => i64::min,
        ScalarOp::Max if unsigned => |x, y| (x as u64).max(y as u64) as i64,
        ScalarOp::Max => i64::max,
        ScalarOp::And => |x, y| x & y,
        ScalarOp::Or => |x, y| x | y,
        ScalarOp::Xor => |x, y| x ^ y,
        ScalarOp::Shl => |x, y| if (0..64).contains(&y) { x << y } else { 0 },
        ScalarOp::Shr if unsigned => {
            |x, y| if y >= 64 { 0 } else { ((x as u64) >> y.max(0)) as i64 }
        }
        ScalarOp::Shr => |x, y| x >> y.clamp(0, 63),
        _ => return None,
    })
}

/// An integer as `dtype` holds it.
#[inline(always)]
pub fn wrap(x: i64, dtype: DType) -> i64 {
    match dtype {
        DType::I4 => (x << 60) >> 60,
        DType::U4 => x & 15,
        DType::I8 => i64::from(x as i8),
        DType::U8 => i64::from(x as u8),
        DType::I16 => i64::from(x as i16),
        DType::U16 => i64::from(x as u16),
        DType::I32 => i64::from(x as i32),
        DType::U32 => i64::from(x as u32),
        _ => x,
    }
}

/// A float as `dtype` holds it.
fn narrow(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(x as f32),
        DType::F16 => half::f16::from_f64(x).to_f64(),
        DType::BF16 => half::bf16::from_f64(x).to_f64(),
        _ => tgc_ir::scalar::round_float(x, dtype),
    }
}

/// A float truncated and saturated to an integer type.
fn to_int(x: f64, dtype: DType) -> i64 {
    if dtype == DType::U64 {
        return x as u64 as i64;
    }
    let (low, high) = dtype.int_range();
    (x as i64)
        .clamp(i64::try_from(low).unwrap_or(i64::MIN), i64::try_from(high).unwrap_or(i64::MAX))
}

/// Runs any row on full or spread operands.
#[allow(clippy::too_many_arguments, reason = "operands of one operation")]
pub(super) fn scalar(
    isa: Isa,
    slots: &mut Slots,
    op: ScalarOp,
    dtype: DType,
    dst: u16,
    args: &[Arg; 3],
    e: Extent,
) {
    if op == ScalarOp::Select {
        return match kind_of(dtype) {
            Kind::F32 => lanes::select::<f32>(isa, slots, dst, &args[0], &args[1], &args[2], e),
            Kind::F64 => lanes::select::<f64>(isa, slots, dst, &args[0], &args[1], &args[2], e),
            Kind::I64 => lanes::select::<i64>(isa, slots, dst, &args[0], &args[1], &args[2], e),
            Kind::Bool => lanes::select::<u8>(isa, slots, dst, &args[0], &args[1], &args[2], e),
        };
    }
    match kind_of(dtype) {
        Kind::F32 => floats::<f32>(isa, slots, op, dst, args, e, f64::from, |x| x as f32),
        Kind::F64 => floats::<f64>(isa, slots, op, dst, args, e, |x| x, |x| x),
        Kind::I64 => integers(isa, slots, op, dtype, dst, args, e),
        Kind::Bool => bools(isa, slots, op, dst, args, e),
    }
}

#[allow(clippy::too_many_arguments, reason = "operands of one operation")]
fn floats<T: FromImm + PartialOrd>(
    isa: Isa,
    slots: &mut Slots,
    op: ScalarOp,
    dst: u16,
    args: &[Arg; 3],
    e: Extent,
    wide: impl Fn(T) -> f64,
    back: impl Fn(f64) -> T,
) {
    let (a, b) = (&args[0], &args[1]);
    match op {
        ScalarOp::Eq => {
            return lanes::map2::<T, u8>(isa, slots, dst, a, b, e, |x, y| u8::from(x == y));
        }
        ScalarOp::Lt => {
            return lanes::map2::<T, u8>(isa, slots, dst, a, b, e, |x, y| u8::from(x < y));
        }
        ScalarOp::Le => {
            return lanes::map2::<T, u8>(isa, slots, dst, a, b, e, |x, y| u8::from(x <= y));
        }
        #[allow(clippy::eq_op, reason = "NaN is what differs from itself")]
        ScalarOp::IsNan => {
            return lanes::map2::<T, u8>(isa, slots, dst, a, a, e, |x, _| u8::from(x != x));
        }
        ScalarOp::IsInf => {
            return lanes::map2::<T, u8>(isa, slots, dst, a, a, e, |x, _| {
                u8::from(wide(x).is_infinite())
            });
        }
        _ => {}
    }
    if let Some(f) = real1(op) {
        lanes::map2::<T, T>(isa, slots, dst, a, a, e, |x, _| back(f(wide(x))));
    } else if let Some(f) = real2(op) {
        lanes::map2::<T, T>(isa, slots, dst, a, b, e, |x, y| back(f(wide(x), wide(y))));
    }
}

fn integers(
    isa: Isa,
    slots: &mut Slots,
    op: ScalarOp,
    dtype: DType,
    dst: u16,
    args: &[Arg; 3],
    e: Extent,
) {
    let (a, b) = (&args[0], &args[1]);
    let unsigned = dtype == DType::U64;
    let order = move |x: i64| if unsigned { x ^ i64::MIN } else { x };
    let bits = i64::from(dtype.bits());
    match op {
        ScalarOp::Eq => lanes::map2::<i64, u8>(isa, slots, dst, a, b, e, |x, y| u8::from(x == y)),
        ScalarOp::Lt => {
            lanes::map2::<i64, u8>(isa, slots, dst, a, b, e, |x, y| u8::from(order(x) < order(y)))
        }
        ScalarOp::Le => {
            lanes::map2::<i64, u8>(isa, slots, dst, a, b, e, |x, y| u8::from(order(x) <= order(y)))
        }
        ScalarOp::Neg => {
            lanes::map2::<i64, i64>(isa, slots, dst, a, a, e, |x, _| wrap(x.wrapping_neg(), dtype))
        }
        ScalarOp::Abs if unsigned => lanes::expand::<i64>(isa, slots, dst, a, e),
        ScalarOp::Abs => {
            lanes::map2::<i64, i64>(isa, slots, dst, a, a, e, |x, _| wrap(x.wrapping_abs(), dtype))
        }
        ScalarOp::Sign if unsigned => {
            lanes::map2::<i64, i64>(isa, slots, dst, a, a, e, |x, _| i64::from(x != 0))
        }
        ScalarOp::Sign => lanes::map2::<i64, i64>(isa, slots, dst, a, a, e, |x, _| x.signum()),
        ScalarOp::Not => lanes::map2::<i64, i64>(isa, slots, dst, a, a, e, |x, _| wrap(!x, dtype)),
        ScalarOp::Shl => lanes::map2::<i64, i64>(isa, slots, dst, a, b, e, move |x, y| {
            if (0..bits).contains(&y) { wrap(x << y, dtype) } else { 0 }
        }),
        ScalarOp::Add => {
            lanes::map2::<i64, i64>(isa, slots, dst, a, b, e, |x, y| wrap(x.wrapping_add(y), dtype))
        }
        ScalarOp::Mul => {
            lanes::map2::<i64, i64>(isa, slots, dst, a, b, e, |x, y| wrap(x.wrapping_mul(y), dtype))
        }
        _ => {
            if let Some(f) = int2(op, dtype) {
                lanes::map2::<i64, i64>(isa, slots, dst, a, b, e, |x, y| wrap(f(x, y), dtype));
            }
        }
    }
}

fn bools(isa: Isa, slots: &mut Slots, op: ScalarOp, dst: u16, args: &[Arg; 3], e: Extent) {
    let (a, b) = (&args[0], &args[1]);
    let f: fn(u8, u8) -> u8 = match op {
        ScalarOp::Not => |x, _| 1 - x,
        ScalarOp::And => |x, y| x & y,
        ScalarOp::Or => |x, y| x | y,
        ScalarOp::Xor => |x, y| x ^ y,
        ScalarOp::Eq => |x, y| u8::from(x == y),
        ScalarOp::Lt => |x, y| u8::from(x < y),
        ScalarOp::Le => |x, y| u8::from(x <= y),
        _ => |x, _| x,
    };
    let b = if op == ScalarOp::Not { a } else { b };
    match op {
        ScalarOp::And => lanes::map2::<u8, u8>(isa, slots, dst, a, b, e, |x, y| x & y),
        ScalarOp::Or => lanes::map2::<u8, u8>(isa, slots, dst, a, b, e, |x, y| x | y),
        _ => lanes::map2::<u8, u8>(isa, slots, dst, a, b, e, f),
    }
}

/// Converts `n` elements between dtypes.
pub(super) fn cast(
    isa: Isa,
    slots: &mut Slots,
    from: DType,
    to: DType,
    dst: u16,
    src: u16,
    n: usize,
) {
    match (kind_of(from), kind_of(to)) {
        (Kind::F32, Kind::F32) => match to {
            DType::F16 => lanes::map1::<f32, f32>(isa, slots, dst, src, n, |x| {
                half::f16::from_f32(x).to_f32()
            }),
            DType::BF16 => lanes::map1::<f32, f32>(isa, slots, dst, src, n, |x| {
                half::bf16::from_f32(x).to_f32()
            }),
            DType::F32 => lanes::map1::<f32, f32>(isa, slots, dst, src, n, |x| x),
            _ => lanes::map1::<f32, f32>(isa, slots, dst, src, n, |x| {
                narrow(f64::from(x), to) as f32
            }),
        },
        (Kind::F32, Kind::F64) => lanes::map1::<f32, f64>(isa, slots, dst, src, n, f64::from),
        (Kind::F64, Kind::F32) => {
            lanes::map1::<f64, f32>(isa, slots, dst, src, n, |x| narrow(x, to) as f32)
        }
        (Kind::F64, Kind::F64) => lanes::map1::<f64, f64>(isa, slots, dst, src, n, |x| x),
        (Kind::F32, Kind::I64) => {
            lanes::map1::<f32, i64>(isa, slots, dst, src, n, |x| to_int(f64::from(x), to))
        }
        (Kind::F64, Kind::I64) => {
            lanes::map1::<f64, i64>(isa, slots, dst, src, n, |x| to_int(x, to))
        }
        (Kind::I64, Kind::I64) => lanes::map1::<i64, i64>(isa, slots, dst, src, n, |x| wrap(x, to)),
        (Kind::I64, Kind::F32) if from == DType::U64 => {
            lanes::map1::<i64, f32>(isa, slots, dst, src, n, |x| {
                narrow_int(i128::from(x as u64), to)
            });
        }
        (Kind::I64, Kind::F32) if to == DType::F32 => {
            lanes::map1::<i64, f32>(isa, slots, dst, src, n, |x| x as f32)
        }
        (Kind::I64, Kind::F32) => {
            lanes::map1::<i64, f32>(isa, slots, dst, src, n, |x| narrow_int(i128::from(x), to));
        }
        (Kind::I64, Kind::F64) if from == DType::U64 => {
            lanes::map1::<i64, f64>(isa, slots, dst, src, n, |x| x as u64 as f64);
        }
        (Kind::I64, Kind::F64) => lanes::map1::<i64, f64>(isa, slots, dst, src, n, |x| x as f64),
        (Kind::Bool, Kind::F32) => lanes::map1::<u8, f32>(isa, slots, dst, src, n, f32::from),
        (Kind::Bool, Kind::F64) => lanes::map1::<u8, f64>(isa, slots, dst, src, n, f64::from),
        (Kind::Bool, Kind::I64) => lanes::map1::<u8, i64>(isa, slots, dst, src, n, i64::from),
        (Kind::Bool, Kind::Bool) => lanes::map1::<u8, u8>(isa, slots, dst, src, n, |x| x),
        (Kind::F32, Kind::Bool) => {
            lanes::map1::<f32, u8>(isa, slots, dst, src, n, |x| u8::from(x != 0.0))
        }
        (Kind::F64, Kind::Bool) => {
            lanes::map1::<f64, u8>(isa, slots, dst, src, n, |x| u8::from(x != 0.0))
        }
        (Kind::I64, Kind::Bool) => {
            lanes::map1::<i64, u8>(isa, slots, dst, src, n, |x| u8::from(x != 0))
        }
    }
}

fn narrow_int(x: i128, to: DType) -> f32 {
    if to == DType::F32 { x as f32 } else { narrow(x as f64, to) as f32 }
}

/// The neutral-free smallest and largest of an integer or bool type, for reductions.
pub(super) fn limits(dtype: DType) -> (i64, i64) {
    if dtype == DType::U64 {
        return (0, -1);
    }
    let (low, high) = dtype.int_range();
    debug_assert!(matches!(dtype.kind(), DTypeKind::Int | DTypeKind::UInt | DTypeKind::Bool));
    (i64::try_from(low).unwrap_or(i64::MIN), i64::try_from(high).unwrap_or(i64::MAX))
}
