//! The scalar table: every pointwise function, one row each.
//!
//! A row gives name, arity, type rule, meaning (for the reference only), the
//! expansion in other rows or an intrinsic name that devices share, the bound
//! in units in the last place that a device must keep, the input interval on
//! which devices are compared with the meaning, and algebraic traits.

use std::fmt;
use std::str::FromStr;

use crate::dtype::{DType, DTypeKind};

/// A number of any dtype: what the reference computes with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// Floats, in double precision.
    Float(f64),
    /// Integers, and bool as 0 or 1.
    Int(i128),
}

impl Value {
    /// As f64 (integers convert).
    pub fn as_f64(self) -> f64 {
        match self {
            Value::Float(x) => x,
            Value::Int(x) => x as f64,
        }
    }

    /// As an integer (floats truncate towards zero and saturate).
    pub fn as_int(self) -> i128 {
        match self {
            Value::Float(x) => x as i128,
            Value::Int(x) => x,
        }
    }

    /// True when not zero (NaN counts as true).
    pub fn is_true(self) -> bool {
        match self {
            Value::Float(x) => x != 0.0,
            Value::Int(x) => x != 0,
        }
    }

    /// Zero of a dtype.
    pub fn zero(dtype: DType) -> Value {
        if dtype.is_float() { Value::Float(0.0) } else { Value::Int(0) }
    }
}

/// Which dtypes a scalar op takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeRule {
    /// T… → T for any integer or float T.
    Numeric,
    /// T… → T for float T.
    Float,
    /// T… → T for integer T.
    Integer,
    /// T… → T for bool (logical) or integer (bitwise) T.
    Logic,
    /// T, T → bool for any T.
    Compare,
    /// T → bool for float T.
    Predicate,
    /// bool, T, T → T for any T.
    Select,
}

/// How devices compute a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expansion {
    /// Each device has its own instruction or function for it.
    Intrinsic,
    /// An expression in other rows: `x`, `y`, `z` are the operands, literals
    /// take the operand's dtype. Devices may still use something better.
    Expand(&'static str),
}

/// Algebraic facts that rules and generators may use.
pub mod traits {
    /// f(a, b) = f(b, a).
    pub const COMMUTATIVE: u32 = 1;
    /// f(-x) = -f(x).
    pub const ODD: u32 = 2;
    /// f(-x) = f(x).
    pub const EVEN: u32 = 4;
    /// x ≤ y implies f(x) ≤ f(y).
    pub const MONOTONE: u32 = 8;
    /// f(0) = 0.
    pub const ZERO_PRESERVING: u32 = 16;
    /// f(x) ≥ 0.
    pub const NON_NEGATIVE: u32 = 32;
    /// Costs many instructions on every device.
    pub const EXPENSIVE: u32 = 64;
}

/// One row of the table.
pub struct ScalarRecord {
    /// Name in every text form.
    pub name: &'static str,
    /// Number of operands.
    pub arity: usize,
    /// Dtypes.
    pub types: TypeRule,
    /// Meaning on floats.
    pub float: fn(&[f64]) -> f64,
    /// Meaning on integers before wrapping to the dtype; `None` where the type
    /// rule takes floats only.
    pub int: Option<fn(&[i128], DType) -> i128>,
    /// How devices compute it.
    pub device: Expansion,
    /// Allowed error of devices in units in the last place of f32.
    pub ulp: u32,
    /// Interval of inputs on which devices are compared with the meaning.
    pub domain: (f64, f64),
    /// Bits of [`traits`].
    pub traits: u32,
}

macro_rules! scalar_table {
    ($($(#[$doc:meta])* $variant:ident { $($field:ident : $value:expr),* $(,)? })*) => {
        /// A pointwise function.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ScalarOp { $($(#[$doc])* $variant,)* }

        impl ScalarOp {
            /// Every row, in table order.
            pub const ALL: &'static [ScalarOp] = &[$(ScalarOp::$variant),*];

            /// The row.
            pub fn record(self) -> &'static ScalarRecord {
                match self {
                    $(ScalarOp::$variant => {
                        static RECORD: ScalarRecord = ScalarRecord { $($field: $value),* };
                        &RECORD
                    })*
                }
            }
        }
    };
}

const ALL: (f64, f64) = (-1e30, 1e30);

use Expansion::{Expand, Intrinsic};
use traits::*;

scalar_table! {
    /// −x.
    Neg { name: "neg", arity: 1, types: TypeRule::Numeric, float: |a| -a[0], int: Some(|a, _| a[0].wrapping_neg()), device: Intrinsic, ulp: 0, domain: ALL, traits: ODD | ZERO_PRESERVING }
    /// Magnitude.
    Abs { name: "abs", arity: 1, types: TypeRule::Numeric, float: |a| a[0].abs(), int: Some(|a, _| a[0].abs()), device: Intrinsic, ulp: 0, domain: ALL, traits: EVEN | ZERO_PRESERVING | NON_NEGATIVE }
    /// −1, 0 or 1; NaN stays.
    Sign { name: "sign", arity: 1, types: TypeRule::Numeric, float: |a| if a[0] > 0.0 { 1.0 } else if a[0] < 0.0 { -1.0 } else { a[0] }, int: Some(|a, _| a[0].signum()), device: Expand("select(lt(0, x), 1, select(lt(x, 0), -1, x))"), ulp: 0, domain: ALL, traits: ODD | MONOTONE | ZERO_PRESERVING }
    /// e^x.
    Exp { name: "exp", arity: 1, types: TypeRule::Float, float: |a| a[0].exp(), int: None, device: Intrinsic, ulp: 2, domain: (-87.0, 88.0), traits: MONOTONE | NON_NEGATIVE | EXPENSIVE }
    /// Natural logarithm.
    Log { name: "log", arity: 1, types: TypeRule::Float, float: |a| a[0].ln(), int: None, device: Intrinsic, ulp: 3, domain: (1e-30, 1e30), traits: MONOTONE | EXPENSIVE }
    /// e^x − 1 without cancellation.
    Expm1 { name: "expm1", arity: 1, types: TypeRule::Float, float: |a| a[0].exp_m1(), int: None, device: Intrinsic, ulp: 4, domain: (-80.0, 80.0), traits: MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// ln(1 + x) without cancellation.
    Log1p { name: "log1p", arity: 1, types: TypeRule::Float, float: |a| a[0].ln_1p(), int: None, device: Intrinsic, ulp: 4, domain: (-0.999, 1e30), traits: MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Square root.
    Sqrt { name: "sqrt", arity: 1, types: TypeRule::Float, float: |a| a[0].sqrt(), int: None, device: Intrinsic, ulp: 1, domain: (0.0, 1e30), traits: MONOTONE | ZERO_PRESERVING | NON_NEGATIVE }
    /// 1/√x.
    Rsqrt { name: "rsqrt", arity: 1, types: TypeRule::Float, float: |a| 1.0 / a[0].sqrt(), int: None, device: Expand("recip(sqrt(x))"), ulp: 3, domain: (1e-30, 1e30), traits: NON_NEGATIVE }
    /// 1/x.
    Recip { name: "recip", arity: 1, types: TypeRule::Float, float: |a| 1.0 / a[0], int: None, device: Expand("div(1, x)"), ulp: 1, domain: (1e-30, 1e30), traits: ODD }
    /// Error function.
    Erf { name: "erf", arity: 1, types: TypeRule::Float, float: |a| libm::erf(a[0]), int: None, device: Intrinsic, ulp: 4, domain: (-6.0, 6.0), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Hyperbolic tangent.
    Tanh { name: "tanh", arity: 1, types: TypeRule::Float, float: |a| a[0].tanh(), int: None, device: Intrinsic, ulp: 4, domain: (-10.0, 10.0), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// 1/(1 + e^−x).
    Sigmoid { name: "sigmoid", arity: 1, types: TypeRule::Float, float: |a| 1.0 / (1.0 + (-a[0]).exp()), int: None, device: Expand("recip(add(1, exp(neg(x))))"), ulp: 4, domain: (-80.0, 80.0), traits: MONOTONE | NON_NEGATIVE | EXPENSIVE }
    /// Sine, radians.
    Sin { name: "sin", arity: 1, types: TypeRule::Float, float: |a| a[0].sin(), int: None, device: Intrinsic, ulp: 4, domain: (-100.0, 100.0), traits: ODD | ZERO_PRESERVING | EXPENSIVE }
    /// Cosine, radians.
    Cos { name: "cos", arity: 1, types: TypeRule::Float, float: |a| a[0].cos(), int: None, device: Intrinsic, ulp: 4, domain: (-100.0, 100.0), traits: EVEN | EXPENSIVE }
    /// Tangent, radians.
    Tan { name: "tan", arity: 1, types: TypeRule::Float, float: |a| a[0].tan(), int: None, device: Intrinsic, ulp: 6, domain: (-1.5, 1.5), traits: ODD | ZERO_PRESERVING | EXPENSIVE }
    /// Inverse sine.
    Asin { name: "asin", arity: 1, types: TypeRule::Float, float: |a| a[0].asin(), int: None, device: Intrinsic, ulp: 5, domain: (-1.0, 1.0), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Inverse cosine.
    Acos { name: "acos", arity: 1, types: TypeRule::Float, float: |a| a[0].acos(), int: None, device: Intrinsic, ulp: 5, domain: (-1.0, 1.0), traits: NON_NEGATIVE | EXPENSIVE }
    /// Inverse tangent.
    Atan { name: "atan", arity: 1, types: TypeRule::Float, float: |a| a[0].atan(), int: None, device: Intrinsic, ulp: 5, domain: (-1e6, 1e6), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Hyperbolic sine.
    Sinh { name: "sinh", arity: 1, types: TypeRule::Float, float: |a| a[0].sinh(), int: None, device: Intrinsic, ulp: 5, domain: (-80.0, 80.0), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Hyperbolic cosine.
    Cosh { name: "cosh", arity: 1, types: TypeRule::Float, float: |a| a[0].cosh(), int: None, device: Intrinsic, ulp: 5, domain: (-80.0, 80.0), traits: EVEN | NON_NEGATIVE | EXPENSIVE }
    /// Inverse hyperbolic sine.
    Asinh { name: "asinh", arity: 1, types: TypeRule::Float, float: |a| a[0].asinh(), int: None, device: Intrinsic, ulp: 5, domain: (-1e6, 1e6), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Inverse hyperbolic cosine.
    Acosh { name: "acosh", arity: 1, types: TypeRule::Float, float: |a| a[0].acosh(), int: None, device: Intrinsic, ulp: 6, domain: (1.0, 1e6), traits: MONOTONE | NON_NEGATIVE | EXPENSIVE }
    /// Inverse hyperbolic tangent.
    Atanh { name: "atanh", arity: 1, types: TypeRule::Float, float: |a| a[0].atanh(), int: None, device: Intrinsic, ulp: 6, domain: (-0.999, 0.999), traits: ODD | MONOTONE | ZERO_PRESERVING | EXPENSIVE }
    /// Largest integer not above.
    Floor { name: "floor", arity: 1, types: TypeRule::Float, float: |a| a[0].floor(), int: None, device: Intrinsic, ulp: 0, domain: ALL, traits: MONOTONE | ZERO_PRESERVING }
    /// Smallest integer not below.
    Ceil { name: "ceil", arity: 1, types: TypeRule::Float, float: |a| a[0].ceil(), int: None, device: Intrinsic, ulp: 0, domain: ALL, traits: MONOTONE | ZERO_PRESERVING }
    /// Nearest integer, ties to even.
    Round { name: "round", arity: 1, types: TypeRule::Float, float: |a| a[0].round_ties_even(), int: None, device: Intrinsic, ulp: 0, domain: ALL, traits: ODD | MONOTONE | ZERO_PRESERVING }
    /// Integer towards zero.
    Trunc { name: "trunc", arity: 1, types: TypeRule::Float, float: |a| a[0].trunc(), int: None, device: Intrinsic, ulp: 0, domain: ALL, traits: ODD | MONOTONE | ZERO_PRESERVING }
    /// True for NaN.
    IsNan { name: "is_nan", arity: 1, types: TypeRule::Predicate, float: |a| f64::from(a[0].is_nan()), int: None, device: Expand("not(eq(x, x))"), ulp: 0, domain: ALL, traits: 0 }
    /// True for either infinity.
    IsInf { name: "is_inf", arity: 1, types: TypeRule::Predicate, float: |a| f64::from(a[0].is_infinite()), int: None, device: Intrinsic, ulp: 0, domain: ALL, traits: EVEN }
    /// Logical or bitwise complement.
    Not { name: "not", arity: 1, types: TypeRule::Logic, float: |a| a[0], int: Some(|a, d| if d == DType::Bool { 1 - a[0] } else { !a[0] }), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
    /// x + y.
    Add { name: "add", arity: 2, types: TypeRule::Numeric, float: |a| a[0] + a[1], int: Some(|a, _| a[0].wrapping_add(a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// x − y.
    Sub { name: "sub", arity: 2, types: TypeRule::Numeric, float: |a| a[0] - a[1], int: Some(|a, _| a[0].wrapping_sub(a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
    /// x · y.
    Mul { name: "mul", arity: 2, types: TypeRule::Numeric, float: |a| a[0] * a[1], int: Some(|a, _| a[0].wrapping_mul(a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// x / y; integers truncate towards zero, by zero give 0.
    Div { name: "div", arity: 2, types: TypeRule::Numeric, float: |a| a[0] / a[1], int: Some(|a, _| if a[1] == 0 { 0 } else { a[0].wrapping_div(a[1]) }), device: Intrinsic, ulp: 1, domain: ALL, traits: 0 }
    /// Remainder with the sign of the divisor; integers by zero give 0.
    Mod { name: "mod", arity: 2, types: TypeRule::Numeric, float: |a| { let r = a[0] % a[1]; if r != 0.0 && (r < 0.0) != (a[1] < 0.0) { r + a[1] } else { r } }, int: Some(|a, _| if a[1] == 0 { 0 } else { let r = a[0] % a[1]; if r != 0 && (r < 0) != (a[1] < 0) { r + a[1] } else { r } }), device: Intrinsic, ulp: 4, domain: (-1e3, 1e3), traits: 0 }
    /// Remainder with the sign of the dividend (C `fmod`, `%`); integers by zero give 0.
    Rem { name: "rem", arity: 2, types: TypeRule::Numeric, float: |a| a[0] % a[1], int: Some(|a, _| if a[1] == 0 { 0 } else { a[0] % a[1] }), device: Intrinsic, ulp: 4, domain: (-1e3, 1e3), traits: 0 }
    /// x^y (C `pow`); integers by repeated multiplication, negative exponents of |x| > 1 give 0.
    Pow { name: "pow", arity: 2, types: TypeRule::Numeric, float: |a| a[0].powf(a[1]), int: Some(int_pow), device: Intrinsic, ulp: 16, domain: (1e-3, 20.0), traits: EXPENSIVE }
    /// The smaller; NaN if either is.
    Min { name: "min", arity: 2, types: TypeRule::Numeric, float: |a| if a[0].is_nan() || a[1].is_nan() { f64::NAN } else { a[0].min(a[1]) }, int: Some(|a, _| a[0].min(a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// The larger; NaN if either is.
    Max { name: "max", arity: 2, types: TypeRule::Numeric, float: |a| if a[0].is_nan() || a[1].is_nan() { f64::NAN } else { a[0].max(a[1]) }, int: Some(|a, _| a[0].max(a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// Logical or bitwise and.
    And { name: "and", arity: 2, types: TypeRule::Logic, float: |a| a[0], int: Some(|a, _| a[0] & a[1]), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// Logical or bitwise or.
    Or { name: "or", arity: 2, types: TypeRule::Logic, float: |a| a[0], int: Some(|a, _| a[0] | a[1]), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// Logical or bitwise exclusive or.
    Xor { name: "xor", arity: 2, types: TypeRule::Logic, float: |a| a[0], int: Some(|a, _| a[0] ^ a[1]), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// Shift left; counts of the width or more give 0.
    Shl { name: "shl", arity: 2, types: TypeRule::Integer, float: |a| a[0], int: Some(|a, d| if a[1] < 0 || a[1] >= i128::from(d.bits()) { 0 } else { a[0] << a[1] }), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
    /// Shift right, arithmetic for signed types; counts of the width or more give 0 (or −1).
    Shr { name: "shr", arity: 2, types: TypeRule::Integer, float: |a| a[0], int: Some(|a, d| a[0] >> a[1].clamp(0, i128::from(d.bits()))), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
    /// x = y.
    Eq { name: "eq", arity: 2, types: TypeRule::Compare, float: |a| f64::from(a[0] == a[1]), int: Some(|a, _| i128::from(a[0] == a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: COMMUTATIVE }
    /// x < y.
    Lt { name: "lt", arity: 2, types: TypeRule::Compare, float: |a| f64::from(a[0] < a[1]), int: Some(|a, _| i128::from(a[0] < a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
    /// x ≤ y.
    Le { name: "le", arity: 2, types: TypeRule::Compare, float: |a| f64::from(a[0] <= a[1]), int: Some(|a, _| i128::from(a[0] <= a[1])), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
    /// y where x, else z; the side not taken has no effect.
    Select { name: "select", arity: 3, types: TypeRule::Select, float: |a| if a[0] != 0.0 { a[1] } else { a[2] }, int: Some(|a, _| if a[0] != 0 { a[1] } else { a[2] }), device: Intrinsic, ulp: 0, domain: ALL, traits: 0 }
}

fn int_pow(a: &[i128], _: DType) -> i128 {
    let (base, exponent) = (a[0], a[1]);
    if exponent >= 0 {
        return (0..exponent.min(128)).fold(1i128, |p, _| p.wrapping_mul(base));
    }
    match base {
        1 => 1,
        -1 => {
            if exponent % 2 == 0 {
                1
            } else {
                -1
            }
        }
        _ => 0,
    }
}

/// A scalar op was given dtypes that its type rule forbids.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{op}` takes {expected}, found ({found})")]
pub struct ScalarTypeError {
    /// Name of the op.
    pub op: &'static str,
    /// What its rule takes.
    pub expected: &'static str,
    /// What it was given.
    pub found: String,
}

impl ScalarOp {
    /// Name in every text form.
    pub fn name(self) -> &'static str {
        self.record().name
    }

    /// Number of operands.
    pub fn arity(self) -> usize {
        self.record().arity
    }

    /// True when all bits of `mask` (see [`traits`]) hold.
    pub fn has(self, mask: u32) -> bool {
        self.record().traits & mask == mask
    }

    /// The result dtype for operand dtypes.
    pub fn result(self, operands: &[DType]) -> Result<DType, ScalarTypeError> {
        let record = self.record();
        let fail = |expected| {
            let found = operands.iter().map(|d| d.name()).collect::<Vec<_>>().join(", ");
            Err(ScalarTypeError { op: record.name, expected, found })
        };
        if operands.len() != record.arity {
            return fail(match record.arity {
                1 => "one operand",
                2 => "two operands",
                _ => "three operands",
            });
        }
        let values = if record.types == TypeRule::Select { &operands[1..] } else { operands };
        let first = values[0];
        if values.iter().any(|&d| d != first) {
            return fail("operands of one element type");
        }
        match record.types {
            TypeRule::Numeric if first == DType::Bool => fail("numbers"),
            TypeRule::Float | TypeRule::Predicate if !first.is_float() => fail("floats"),
            TypeRule::Integer if !first.is_int() => fail("integers"),
            TypeRule::Logic if first.is_float() => fail("bool or integers"),
            TypeRule::Select if operands[0] != DType::Bool => fail("a bool condition"),
            TypeRule::Compare | TypeRule::Predicate => Ok(DType::Bool),
            _ => Ok(first),
        }
    }

    /// The meaning on values of dtype `operand` (the dtype of the operands;
    /// for select, of the chosen values), before rounding to the result dtype.
    pub fn evaluate(self, args: &[Value], operand: DType) -> Value {
        let record = self.record();
        if self == ScalarOp::Select {
            return if args[0].is_true() { args[1] } else { args[2] };
        }
        if operand.is_float() {
            let mut floats = [0.0; 3];
            for (to, from) in floats.iter_mut().zip(args) {
                *to = from.as_f64();
            }
            let out = (record.float)(&floats[..args.len()]);
            return match record.types {
                TypeRule::Compare | TypeRule::Predicate => Value::Int(i128::from(out != 0.0)),
                _ => Value::Float(out),
            };
        }
        let mut ints = [0; 3];
        for (to, from) in ints.iter_mut().zip(args) {
            *to = from.as_int();
        }
        match record.int {
            Some(meaning) => Value::Int(meaning(&ints[..args.len()], operand)),
            None => Value::Int(0),
        }
    }
}

impl fmt::Display for ScalarOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no scalar op.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scalar op; `tgc ops` lists them")]
pub struct UnknownScalar(pub String);

impl FromStr for ScalarOp {
    type Err = UnknownScalar;
    fn from_str(text: &str) -> Result<Self, UnknownScalar> {
        Self::ALL
            .iter()
            .copied()
            .find(|op| op.name() == text)
            .ok_or_else(|| UnknownScalar(text.to_owned()))
    }
}

crate::text_serde!(ScalarOp);

/// Rounds a value to what a dtype can hold: floats to nearest even, integers
/// by wrapping, anything to bool by comparison with zero.
pub fn round_to(value: Value, dtype: DType) -> Value {
    match dtype.kind() {
        DTypeKind::Bool => Value::Int(i128::from(value.is_true())),
        DTypeKind::Int | DTypeKind::UInt => Value::Int(wrap_int(value, dtype)),
        DTypeKind::Float => Value::Float(round_float(value.as_f64(), dtype)),
    }
}

fn wrap_int(value: Value, dtype: DType) -> i128 {
    let (low, high) = dtype.int_range();
    match value {
        // Saturating, as every device we target converts.
        Value::Float(x) if x.is_nan() => 0,
        Value::Float(x) => (x as i128).clamp(low, high),
        Value::Int(x) => {
            let span = high - low + 1;
            (x - low).rem_euclid(span) + low
        }
    }
}

/// Nearest value of a float dtype, ties to even.
pub fn round_float(x: f64, dtype: DType) -> f64 {
    match dtype {
        DType::F32 => f64::from(x as f32),
        DType::F16 => half::f16::from_f64(x).to_f64(),
        DType::BF16 => round_bf16(x),
        DType::F8E4M3 => round_small(x, 3, -6, 448.0, false),
        DType::F8E5M2 => round_small(x, 2, -14, 57344.0, true),
        _ => x,
    }
}

/// bf16 rounded once from f64 (going through f32 first would round twice).
fn round_bf16(x: f64) -> f64 {
    if !x.is_finite() {
        return x;
    }
    round_small(x, 7, -126, DType::BF16.max_value(), true)
}

/// Rounds to a format with `mantissa` bits and smallest normal exponent
/// `exponent_min`; overflow gives infinity or, without infinities, NaN.
fn round_small(x: f64, mantissa: i32, exponent_min: i32, max: f64, has_infinity: bool) -> f64 {
    if x == 0.0 || x.is_nan() {
        return x;
    }
    let overflow = if has_infinity { f64::INFINITY.copysign(x) } else { f64::NAN };
    if x.is_infinite() {
        return overflow;
    }
    let exponent = (libm::ilogb(x)).max(exponent_min);
    let unit = libm::ldexp(1.0, exponent - mantissa);
    let rounded = (x / unit).round_ties_even() * unit;
    if rounded.abs() > max { overflow } else { rounded }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_read_back() {
        for &op in ScalarOp::ALL {
            assert_eq!(op.name().parse(), Ok(op));
        }
    }

    #[test]
    fn type_rules_hold() {
        use DType::*;
        assert_eq!(ScalarOp::Add.result(&[F32, F32]), Ok(F32));
        assert_eq!(ScalarOp::Lt.result(&[I64, I64]), Ok(Bool));
        assert_eq!(ScalarOp::Select.result(&[Bool, F16, F16]), Ok(F16));
        assert!(ScalarOp::Exp.result(&[I32]).is_err());
        assert!(ScalarOp::Add.result(&[F32, F16]).is_err());
        assert!(ScalarOp::Add.result(&[Bool, Bool]).is_err());
        assert!(ScalarOp::Select.result(&[F32, F16, F16]).is_err());
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        assert_eq!(round_float(1.0 + 2f64.powi(-8), DType::BF16), 1.0);
        assert_eq!(round_float(1.0 + 3.0 * 2f64.powi(-8), DType::BF16), 1.0 + 2f64.powi(-6));
        assert_eq!(round_float(70000.0, DType::F16), f64::INFINITY);
        assert!(round_float(500.0, DType::F8E4M3).is_nan());
        for x in [0.1, 3.3e-39, 1e38, -7.7] {
            assert_eq!(round_float(x, DType::BF16), half::bf16::from_f64(x).to_f64(), "{x}");
        }
    }

    #[test]
    fn integers_wrap() {
        assert_eq!(round_to(Value::Int(300), DType::U8), Value::Int(44));
        assert_eq!(round_to(Value::Int(200), DType::I8), Value::Int(-56));
        assert_eq!(
            ScalarOp::Pow.evaluate(&[Value::Int(3), Value::Int(4)], DType::I64),
            Value::Int(81)
        );
        assert_eq!(
            ScalarOp::Mod.evaluate(&[Value::Int(-7), Value::Int(3)], DType::I64),
            Value::Int(2)
        );
        assert_eq!(
            ScalarOp::Rem.evaluate(&[Value::Int(-7), Value::Int(3)], DType::I64),
            Value::Int(-1)
        );
    }
}
