//! Instructions that touch registers only: one row each, a name and a function on the values of one lane.
//!
//! The decoder chooses rows by PTX's names and types; rows know nothing of PTX's text. Rows with `modifiers`
//! take the bits of [`super::float::flags`].

use super::bits::{bit_field, dot4, insert_bits, logic3, permute_bytes};
use super::float::{self, BF16, F16, Round, canonical};
use super::lanes::{File, map1, map2, map3};
use super::special;
use crate::decode::inst::Inst;

macro_rules! rows {
    (hot { $($hot:ident $hot_shape:ident $hot_body:expr;)* } cold { $($name:ident $shape:ident $body:expr;)* }) => {
        /// What a register instruction computes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "a name says what its row computes")]
        pub(crate) enum AluOp { $($hot,)* $($name,)* }

        /// The name of a row.
        pub(crate) fn name(op: AluOp) -> &'static str {
            match op { $(AluOp::$hot => stringify!($hot),)* $(AluOp::$name => stringify!($name),)* }
        }

        /// Computes an instruction in the lanes of a mask.
        #[inline(always)]
        pub(crate) fn execute(op: AluOp, file: &mut File, i: &Inst, mask: u32) {
            let modifiers = i.extra;
            match op {
                $(AluOp::$hot => rows!(@ $hot_shape, file, i, mask, modifiers, $hot_body),)*
                _ => execute_cold(op, file, i, mask),
            }
        }

        #[inline(never)]
        fn execute_cold(op: AluOp, file: &mut File, i: &Inst, mask: u32) {
            let modifiers = i.extra;
            match op {
                $(AluOp::$name => rows!(@ $shape, file, i, mask, modifiers, $body),)*
                _ => {}
            }
        }
    };
    (@ one, $f:ident, $i:ident, $m:ident, $x:ident, $body:expr) => { map1($f, ($i.d, $i.a), $m, $body) };
    (@ two, $f:ident, $i:ident, $m:ident, $x:ident, $body:expr) => { map2($f, ($i.d, $i.a, $i.b), $m, $body) };
    (@ three, $f:ident, $i:ident, $m:ident, $x:ident, $body:expr) => {
        map3($f, ($i.d, $i.a, $i.b, $i.c), $m, $body)
    };
    (@ one_mod, $f:ident, $i:ident, $m:ident, $x:ident, $body:expr) => {{
        let body = $body;
        map1($f, ($i.d, $i.a), $m, |a| body(a, $x))
    }};
    (@ two_mod, $f:ident, $i:ident, $m:ident, $x:ident, $body:expr) => {{
        let body = $body;
        map2($f, ($i.d, $i.a, $i.b), $m, |a, b| body(a, b, $x))
    }};
    (@ three_mod, $f:ident, $i:ident, $m:ident, $x:ident, $body:expr) => {{
        let body = $body;
        map3($f, ($i.d, $i.a, $i.b, $i.c), $m, |a, b, c| body(a, b, c, $x))
    }};
}

fn halves(f: impl Fn(u32) -> u32) -> u32 {
    f(0) | f(16) << 16
}

#[inline(always)]
fn half_of(x: u32, at: u32) -> u32 {
    x >> at & 0xffff
}

/// A sum or product of halves formed in f64, rounded once.
#[inline(never)]
fn f16_fma(a: u32, b: u32, c: u32, modifiers: u32) -> u32 {
    narrow_fma(F16, (a, b, c), modifiers)
}

#[inline(never)]
fn bf16_fma(a: u32, b: u32, c: u32, modifiers: u32) -> u32 {
    narrow_fma(BF16, (a, b, c), modifiers)
}

#[inline(never)]
fn narrow_fma(format: float::Narrow, (a, b, c): (u32, u32, u32), modifiers: u32) -> u32 {
    let product = format.decode(a) * format.decode(b);
    let sum = float::add_odd(product, format.decode(c));
    let sum = if modifiers & float::flags::SAT != 0 {
        if sum.is_nan() { 0.0 } else { sum.clamp(0.0, 1.0) }
    } else if modifiers & float::flags::RELU != 0 && sum < 0.0 {
        0.0
    } else {
        sum
    };
    format.encode(sum, Round::Nearest, false)
}

#[inline(never)]
fn f16_extreme(a: u32, b: u32, modifiers: u32, largest: bool) -> u32 {
    let picked = float::extreme(float::f16_to_f32(a), float::f16_to_f32(b), largest, modifiers);
    float::f32_to_f16(picked)
}

#[inline(never)]
fn bf16_extreme(a: u32, b: u32, modifiers: u32, largest: bool) -> u32 {
    let (a, b) = (f32::from_bits(a << 16), f32::from_bits(b << 16));
    float::f32_to_bf16(float::extreme(a, b, largest, modifiers))
}

/// Comparison of floats by code: eq ne lt le gt ge num nan, then the unordered forms.
#[inline(always)]
fn ordered<T: PartialOrd + Copy>(a: T, b: T, code: u32) -> bool {
    let number = a.partial_cmp(&b).is_some();
    let holds = match code & 7 {
        0 => a == b,
        1 => number && a != b,
        2 => a < b,
        3 => a <= b,
        4 => a > b,
        5 => a >= b,
        6 => number,
        _ => !number,
    };
    holds || code & 8 != 0 && !number
}

fn shift_left(a: u32, b: u32) -> u32 {
    a.checked_shl(b).unwrap_or(0)
}

rows! {
    // Rows that kernels spend their time in, instantiated for each instruction set of the host.
    hot {
        // moves
        Mov32 one |a: u32| a;
        Mov64 one |a: u64| a;
        MovPred one |a: bool| a;
        PackHalves two |a: u16, b: u16| u32::from(a) | u32::from(b) << 16;
        PackWords two |a: u32, b: u32| u64::from(a) | u64::from(b) << 32;
        SelectWord three |a: u32, b: u32, p: bool| if p { a } else { b };
        SelectDouble three |a: u64, b: u64, p: bool| if p { a } else { b };

        // integers of 16 bits
        AddU16 two |a: u16, b: u16| a.wrapping_add(b);
        SubU16 two |a: u16, b: u16| a.wrapping_sub(b);
        MulWideU16 two |a: u16, b: u16| u32::from(a) * u32::from(b);
        And16 two |a: u16, b: u16| a & b;
        Or16 two |a: u16, b: u16| a | b;
        Shl16 two |a: u16, b: u32| a.checked_shl(b).unwrap_or(0);
        ShrU16 two |a: u16, b: u32| a.checked_shr(b).unwrap_or(0);

        // integers of 32 bits
        Add32 two |a: u32, b: u32| a.wrapping_add(b);
        Sub32 two |a: u32, b: u32| a.wrapping_sub(b);
        MulLo32 two |a: u32, b: u32| a.wrapping_mul(b);
        MulHiU32 two |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32;
        MulHiS32 two |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32;
        MulWideU32 two |a: u32, b: u32| u64::from(a) * u64::from(b);
        MulWideS32 two |a: i32, b: i32| i64::from(a) * i64::from(b);
        MadLo32 three |a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c);
        MadWideU32 three |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c);
        MadWideS32 three |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c);
        MinU32 two |a: u32, b: u32| a.min(b);
        MaxU32 two |a: u32, b: u32| a.max(b);
        MinS32 two |a: i32, b: i32| a.min(b);
        MaxS32 two |a: i32, b: i32| a.max(b);
        NegS32 one |a: i32| a.wrapping_neg();
        And32 two |a: u32, b: u32| a & b;
        Or32 two |a: u32, b: u32| a | b;
        Xor32 two |a: u32, b: u32| a ^ b;
        Not32 one |a: u32| !a;
        Shl32 two |a: u32, b: u32| shift_left(a, b);
        ShrU32 two |a: u32, b: u32| a.checked_shr(b).unwrap_or(0);
        ShrS32 two |a: i32, b: u32| a >> b.min(31);
        Logic3 three_mod |a: u32, b: u32, c: u32, table: u32| logic3(a, b, c, table);

        // integers of 64 bits
        Add64 two |a: u64, b: u64| a.wrapping_add(b);
        Sub64 two |a: u64, b: u64| a.wrapping_sub(b);
        MulLo64 two |a: u64, b: u64| a.wrapping_mul(b);
        MadLo64 three |a: u64, b: u64, c: u64| a.wrapping_mul(b).wrapping_add(c);
        MinS64 two |a: i64, b: i64| a.min(b);
        MaxS64 two |a: i64, b: i64| a.max(b);
        NegS64 one |a: i64| a.wrapping_neg();
        And64 two |a: u64, b: u64| a & b;
        Or64 two |a: u64, b: u64| a | b;
        Xor64 two |a: u64, b: u64| a ^ b;
        Not64 one |a: u64| !a;
        Shl64 two |a: u64, b: u32| a.checked_shl(b).unwrap_or(0);
        ShrU64 two |a: u64, b: u32| a.checked_shr(b).unwrap_or(0);
        ShrS64 two |a: i64, b: u32| a >> b.min(63);

        // predicates
        AndPred two |a: bool, b: bool| a & b;
        OrPred two |a: bool, b: bool| a | b;
        XorPred two |a: bool, b: bool| a ^ b;
        NotPred one |a: bool| !a;

        // comparisons
        Eq32 two |a: u32, b: u32| a == b;
        Ne32 two |a: u32, b: u32| a != b;
        LtU32 two |a: u32, b: u32| a < b;
        LeU32 two |a: u32, b: u32| a <= b;
        LtS32 two |a: i32, b: i32| a < b;
        LeS32 two |a: i32, b: i32| a <= b;
        Eq64 two |a: u64, b: u64| a == b;
        Ne64 two |a: u64, b: u64| a != b;
        LtU64 two |a: u64, b: u64| a < b;
        LeU64 two |a: u64, b: u64| a <= b;
        LtS64 two |a: i64, b: i64| a < b;
        LeS64 two |a: i64, b: i64| a <= b;
        EqF32 two |a: f32, b: f32| a == b;
        LtF32 two |a: f32, b: f32| a < b;
        LeF32 two |a: f32, b: f32| a <= b;
        CompareF32 two_mod |a: f32, b: f32, code: u32| ordered(a, b, code);

        // f32
        AddF32 two |a: f32, b: f32| canonical(a + b);
        SubF32 two |a: f32, b: f32| canonical(a - b);
        MulF32 two |a: f32, b: f32| canonical(a * b);
        FmaF32 three |a: f32, b: f32, c: f32| canonical(a.mul_add(b, c));
        DivF32 two |a: f32, b: f32| canonical(a / b);
        SqrtF32 one |a: f32| canonical(a.sqrt());
        RcpF32 one |a: f32| canonical(1.0 / a);
        MinF32 two |a: f32, b: f32| float::extreme(a, b, false, 0);
        MaxF32 two |a: f32, b: f32| float::extreme(a, b, true, 0);
        MinNanF32 two |a: f32, b: f32| float::extreme(a, b, false, float::flags::NAN);
        MaxNanF32 two |a: f32, b: f32| float::extreme(a, b, true, float::flags::NAN);
        NegF32 one |a: u32| a ^ 1 << 31;
        AbsF32 one |a: u32| a & !(1 << 31);
        CopySignF32 two |a: u32, b: u32| b & 0x7fff_ffff | a & 0x8000_0000;
        Exp2F32 one special::exp2;
        Exp2ModF32 one_mod |a: f32, m: u32| float::flushed(a, m, special::exp2);
        RsqrtF32 one_mod |a: f32, m: u32| float::flushed(a, m, special::rsqrt);

        // f64
        AddF64 two |a: f64, b: f64| a + b;
        SubF64 two |a: f64, b: f64| a - b;
        MulF64 two |a: f64, b: f64| a * b;
        FmaF64 three |a: f64, b: f64, c: f64| a.mul_add(b, c);

        // conversions that kernels use all the time; the others are `Convert`
        ZeroExtend16 one |a: u16| u32::from(a);
        SignExtend16 one |a: i16| i32::from(a);
        ZeroExtend8 one |a: u8| u32::from(a);
        SignExtend8 one |a: i8| i32::from(a);
        Widen one |a: u32| u64::from(a);
        WidenSigned one |a: i32| i64::from(a);
        LowWord one |a: u64| a as u32;
        LowHalf one |a: u64| a as u16;
        F32FromF16 one |a: u16| float::f16_to_f32(a.into());
        F16FromF32 one |a: f32| float::f32_to_f16(a) as u16;
        F32FromBf16 one |a: u16| f32::from_bits(u32::from(a) << 16);
        Bf16FromF32 one |a: f32| float::f32_to_bf16(a) as u16;
        F16x2FromF32 two |a: f32, b: f32| float::f32_to_f16(a) << 16 | float::f32_to_f16(b);
        Bf16x2FromF32 two |a: f32, b: f32| float::f32_to_bf16(a) << 16 | float::f32_to_bf16(b);
        Tf32FromF32 one |a: f32| float::f32_to_tf32(a, false);
        Tf32AwayFromF32 one |a: f32| float::f32_to_tf32(a, true);
        F32FromS32 one |a: i32| a as f32;
        F32FromU32 one |a: u32| a as f32;
        S32FromF32 one |a: f32| a as i32;
        F32Floor one |a: f32| canonical(a.floor());
        F32Ceil one |a: f32| canonical(a.ceil());
        F32Trunc one |a: f32| canonical(a.trunc());
        F32Round one |a: f32| canonical(a.round_ties_even());
        F32Saturate one |a: f32| if a.is_nan() { 0.0 } else { a.clamp(0.0, 1.0) + 0.0 };
        F64FromF32 one |a: f32| f64::from(a);
        F32FromF64 one |a: f64| canonical(a as f32);
    }
    // The others, compiled once: their functions are calls, and vectors would gain little.
    cold {
        // moves
        PackBytes two |a: u8, b: u8| u16::from(a) | u16::from(b) << 8;

        // integers of 16 bits
        MulLoU16 two |a: u16, b: u16| a.wrapping_mul(b);
        MulHiU16 two |a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16;
        MulHiS16 two |a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16;
        MulWideS16 two |a: i16, b: i16| i32::from(a) * i32::from(b);
        MadLoU16 three |a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c);
        MadWideU16 three |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c);
        MadWideS16 three |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c);
        DivU16 two |a: u16, b: u16| a.checked_div(b).unwrap_or(u16::MAX);
        DivS16 two |a: i16, b: i16| if b == 0 { -1 } else { a.wrapping_div(b) };
        RemU16 two |a: u16, b: u16| a.checked_rem(b).unwrap_or(a);
        RemS16 two |a: i16, b: i16| if b == 0 { a } else { a.wrapping_rem(b) };
        MinU16 two |a: u16, b: u16| a.min(b);
        MaxU16 two |a: u16, b: u16| a.max(b);
        MinS16 two |a: i16, b: i16| a.min(b);
        MaxS16 two |a: i16, b: i16| a.max(b);
        NegS16 one |a: i16| a.wrapping_neg();
        AbsS16 one |a: i16| a.wrapping_abs();
        Xor16 two |a: u16, b: u16| a ^ b;
        Not16 one |a: u16| !a;
        ShrS16 two |a: i16, b: u32| a >> b.min(15);

        // integers of 32 bits
        AddSatS32 two |a: i32, b: i32| a.saturating_add(b);
        SubSatS32 two |a: i32, b: i32| a.saturating_sub(b);
        MadHiU32 three |a: u32, b: u32, c: u32| (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c);
        MadHiS32 three |a: i32, b: i32, c: i32| (((i64::from(a) * i64::from(b)) >> 32) as i32).wrapping_add(c);
        DivU32 two |a: u32, b: u32| a.checked_div(b).unwrap_or(u32::MAX);
        DivS32 two |a: i32, b: i32| if b == 0 { -1 } else { a.wrapping_div(b) };
        RemU32 two |a: u32, b: u32| a.checked_rem(b).unwrap_or(a);
        RemS32 two |a: i32, b: i32| if b == 0 { a } else { a.wrapping_rem(b) };
        AbsS32 one |a: i32| a.wrapping_abs();
        SadU32 three |a: u32, b: u32, c: u32| a.abs_diff(b).wrapping_add(c);
        SadS32 three |a: i32, b: i32, c: u32| a.abs_diff(b).wrapping_add(c);
        Cnot32 one |a: u32| u32::from(a == 0);
        FunnelLeftWrap three |a: u32, b: u32, c: u32| (((u64::from(b) << 32 | u64::from(a)) << (c & 31)) >> 32) as u32;
        FunnelLeftClamp three |a: u32, b: u32, c: u32| (((u64::from(b) << 32 | u64::from(a)) << c.min(32)) >> 32) as u32;
        FunnelRightWrap three |a: u32, b: u32, c: u32| ((u64::from(b) << 32 | u64::from(a)) >> (c & 31)) as u32;
        FunnelRightClamp three |a: u32, b: u32, c: u32| ((u64::from(b) << 32 | u64::from(a)) >> c.min(32)) as u32;
        Permute three_mod |a: u32, b: u32, c: u32, mode: u32| permute_bytes(a, b, c, mode);
        Dot4 three_mod |a: u32, b: u32, c: u32, signed: u32| dot4(a, b, c, signed);
        CountBits32 one |a: u32| a.count_ones();
        LeadingZeros32 one |a: u32| a.leading_zeros();
        Reverse32 one |a: u32| a.reverse_bits();
        FindU32 one |a: u32| 31u32.wrapping_sub(a.leading_zeros());
        FindS32 one |a: u32| 31u32.wrapping_sub(if a >> 31 == 1 { !a } else { a }.leading_zeros());
        FindShiftU32 one |a: u32| if a == 0 { u32::MAX } else { a.leading_zeros() };
        FieldU32 three |a: u32, b: u32, c: u32| bit_field(u64::from(a), b, c, 32, false) as u32;
        FieldS32 three |a: u32, b: u32, c: u32| bit_field(u64::from(a), b, c, 32, true) as u32;
        FieldMask three |_a: u32, b: u32, c: u32| insert_bits(u64::MAX, 0, b, c, 32) as u32;

        // integers of 64 bits
        MulHiU64 two |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64;
        MulHiS64 two |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64;
        MadHiU64 three |a: u64, b: u64, c: u64| (((u128::from(a) * u128::from(b)) >> 64) as u64).wrapping_add(c);
        DivU64 two |a: u64, b: u64| a.checked_div(b).unwrap_or(u64::MAX);
        DivS64 two |a: i64, b: i64| if b == 0 { -1 } else { a.wrapping_div(b) };
        RemU64 two |a: u64, b: u64| a.checked_rem(b).unwrap_or(a);
        RemS64 two |a: i64, b: i64| if b == 0 { a } else { a.wrapping_rem(b) };
        MinU64 two |a: u64, b: u64| a.min(b);
        MaxU64 two |a: u64, b: u64| a.max(b);
        AbsS64 one |a: i64| a.wrapping_abs();
        CountBits64 one |a: u64| a.count_ones();
        LeadingZeros64 one |a: u64| a.leading_zeros();
        Reverse64 one |a: u64| a.reverse_bits();
        FindU64 one |a: u64| 63u32.wrapping_sub(a.leading_zeros());
        FindS64 one |a: u64| 63u32.wrapping_sub(if a >> 63 == 1 { !a } else { a }.leading_zeros());
        FieldU64 three |a: u64, b: u32, c: u32| bit_field(a, b, c, 64, false);
        FieldS64 three |a: u64, b: u32, c: u32| bit_field(a, b, c, 64, true);

        // comparisons
        EqU16 two |a: u16, b: u16| a == b;
        NeU16 two |a: u16, b: u16| a != b;
        LtU16 two |a: u16, b: u16| a < b;
        LeU16 two |a: u16, b: u16| a <= b;
        LtS16 two |a: i16, b: i16| a < b;
        LeS16 two |a: i16, b: i16| a <= b;
        CompareFlushF32 two_mod |a: f32, b: f32, code: u32| ordered(float::flush(a), float::flush(b), code);
        CompareF64 two_mod |a: f64, b: f64, code: u32| ordered(a, b, code);
        CompareF16 two_mod |a: u32, b: u32, code: u32| ordered(float::f16_to_f32(half_of(a, 0)), float::f16_to_f32(half_of(b, 0)), code);
        CompareBf16 two_mod |a: u32, b: u32, code: u32| ordered(f32::from_bits(a << 16), f32::from_bits(b << 16), code);
        TestFinite one |a: f32| a.is_finite();
        TestInfinite one |a: f32| a.is_infinite();
        TestNumber one |a: f32| !a.is_nan();
        TestNotNumber one |a: f32| a.is_nan();

        // f32
        AddModF32 two_mod float::add;
        SubModF32 two_mod |a: f32, b: f32, m: u32| float::add(a, -b, m);
        MulModF32 two_mod float::mul;
        FmaModF32 three_mod float::fma;
        DivModF32 two_mod float::div;
        SqrtModF32 one_mod float::sqrt;
        RcpModF32 one_mod |a: f32, m: u32| float::div(1.0, a, m);
        MinModF32 two_mod |a: f32, b: f32, m: u32| float::extreme_modified(a, b, false, m);
        MaxModF32 two_mod |a: f32, b: f32, m: u32| float::extreme_modified(a, b, true, m);
        NegFlushF32 one |a: f32| -float::flush(a);
        AbsFlushF32 one |a: f32| float::flush(a).abs();
        Log2F32 one_mod |a: f32, m: u32| float::flushed(a, m, special::log2);
        SinF32 one_mod |a: f32, m: u32| float::flushed(a, m, special::sin);
        CosF32 one_mod |a: f32, m: u32| float::flushed(a, m, special::cos);
        TanhF32 one_mod |a: f32, m: u32| float::flushed(a, m, special::tanh);

        // f64
        DivF64 two |a: f64, b: f64| a / b;
        SqrtF64 one |a: f64| a.sqrt();
        RcpF64 one |a: f64| 1.0 / a;
        // The low word of the result is zero (PTX ISA, `rcp.approx.ftz.f64`).
        RcpApproxF64 one |a: f64| f64::from_bits((1.0 / a).to_bits() & !0xffff_ffff);
        RsqrtF64 one |a: f64| 1.0 / a.sqrt();
        MinF64 two |a: f64, b: f64| a.min(b);
        MaxF64 two |a: f64, b: f64| a.max(b);
        NegF64 one |a: u64| a ^ 1 << 63;
        AbsF64 one |a: u64| a & !(1 << 63);
        CopySignF64 two |a: u64, b: u64| b & !(1 << 63) | a & 1 << 63;

        // halves, alone and in pairs
        FmaF16 three_mod |a: u16, b: u16, c: u16, m: u32| f16_fma(a.into(), b.into(), c.into(), m) as u16;
        FmaF16x2 three_mod |a: u32, b: u32, c: u32, m: u32| halves(|h| f16_fma(half_of(a, h), half_of(b, h), half_of(c, h), m));
        FmaBf16 three_mod |a: u16, b: u16, c: u16, m: u32| bf16_fma(a.into(), b.into(), c.into(), m) as u16;
        FmaBf16x2 three_mod |a: u32, b: u32, c: u32, m: u32| halves(|h| bf16_fma(half_of(a, h), half_of(b, h), half_of(c, h), m));
        AddF16 two_mod |a: u16, b: u16, m: u32| f16_fma(a.into(), 0x3c00, b.into(), m) as u16;
        AddF16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| f16_fma(half_of(a, h), 0x3c00, half_of(b, h), m));
        SubF16 two_mod |a: u16, b: u16, m: u32| f16_fma(b.into(), 0xbc00, a.into(), m) as u16;
        SubF16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| f16_fma(half_of(b, h), 0xbc00, half_of(a, h), m));
        MulF16 two_mod |a: u16, b: u16, m: u32| f16_fma(a.into(), b.into(), 0x8000, m) as u16;
        MulF16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| f16_fma(half_of(a, h), half_of(b, h), 0x8000, m));
        AddBf16 two_mod |a: u16, b: u16, m: u32| bf16_fma(a.into(), 0x3f80, b.into(), m) as u16;
        AddBf16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| bf16_fma(half_of(a, h), 0x3f80, half_of(b, h), m));
        SubBf16 two_mod |a: u16, b: u16, m: u32| bf16_fma(b.into(), 0xbf80, a.into(), m) as u16;
        SubBf16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| bf16_fma(half_of(b, h), 0xbf80, half_of(a, h), m));
        MulBf16 two_mod |a: u16, b: u16, m: u32| bf16_fma(a.into(), b.into(), 0x8000, m) as u16;
        MulBf16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| bf16_fma(half_of(a, h), half_of(b, h), 0x8000, m));
        MinF16 two_mod |a: u16, b: u16, m: u32| f16_extreme(a.into(), b.into(), m, false) as u16;
        MaxF16 two_mod |a: u16, b: u16, m: u32| f16_extreme(a.into(), b.into(), m, true) as u16;
        MinF16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| f16_extreme(half_of(a, h), half_of(b, h), m, false));
        MaxF16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| f16_extreme(half_of(a, h), half_of(b, h), m, true));
        MinBf16 two_mod |a: u16, b: u16, m: u32| bf16_extreme(a.into(), b.into(), m, false) as u16;
        MaxBf16 two_mod |a: u16, b: u16, m: u32| bf16_extreme(a.into(), b.into(), m, true) as u16;
        MinBf16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| bf16_extreme(half_of(a, h), half_of(b, h), m, false));
        MaxBf16x2 two_mod |a: u32, b: u32, m: u32| halves(|h| bf16_extreme(half_of(a, h), half_of(b, h), m, true));
        Neg16 one |a: u16| a ^ 0x8000;
        Abs16 one |a: u16| a & 0x7fff;
        Neg16x2 one |a: u32| a ^ 0x8000_8000;
        Abs16x2 one |a: u32| a & 0x7fff_7fff;
        Exp2F16 one |a: u16| float::f32_to_f16(special::exp2(float::f16_to_f32(a.into()))) as u16;
        Exp2F16x2 one |a: u32| halves(|h| float::f32_to_f16(special::exp2(float::f16_to_f32(half_of(a, h)))));
        Exp2Bf16x2 one |a: u32| halves(|h| float::f32_to_bf16(special::exp2(f32::from_bits(half_of(a, h) << 16))));
        TanhF16 one |a: u16| float::f32_to_f16(special::tanh(float::f16_to_f32(a.into()))) as u16;
        TanhF16x2 one |a: u32| halves(|h| float::f32_to_f16(special::tanh(float::f16_to_f32(half_of(a, h)))));
        TanhBf16x2 one |a: u32| halves(|h| float::f32_to_bf16(special::tanh(f32::from_bits(half_of(a, h) << 16))));

        // conversions that kernels use all the time; the others are `Convert`
        SignExtend8To16 one |a: i8| i16::from(a);
        WidenU16 one |a: u16| u64::from(a);
        WidenS16 one |a: i16| i64::from(a);
        U32FromF32 one |a: f32| a as u32;
        Convert16 one_mod |a: u16, m: u32| super::convert::convert(a.into(), m) as u32;
        Convert32 one_mod |a: u32, m: u32| super::convert::convert(a.into(), m) as u32;
        Convert64 one_mod |a: u64, m: u32| super::convert::convert(a, m) as u32;
        Convert16To64 one_mod |a: u16, m: u32| super::convert::convert(a.into(), m);
        Convert32To64 one_mod |a: u32, m: u32| super::convert::convert(a.into(), m);
        Convert64To64 one_mod |a: u64, m: u32| super::convert::convert(a, m);
        E4m3x2FromF32 two_mod |a: f32, b: f32, m: u32| super::convert::pair_of_bytes(float::E4M3, a, b, m);
        E5m2x2FromF32 two_mod |a: f32, b: f32, m: u32| super::convert::pair_of_bytes(float::E5M2, a, b, m);
        F16x2FromE4m3x2 one |a: u16| super::convert::halves_of_bytes(float::E4M3, a);
        F16x2FromE5m2x2 one |a: u16| super::convert::halves_of_bytes(float::E5M2, a);
    }
}

/// Rows with four operands or two results, which the table's shapes do not have.
#[inline(always)]
pub(crate) fn insert_field(file: &mut File, i: &Inst, mask: u32, wide: bool) {
    let (start, length) = (*file.word(i.c), *file.word(i.extra));
    if wide {
        let (a, b) = (*file.double(i.a), *file.double(i.b));
        let out = std::array::from_fn(|l| insert_bits(a[l], b[l], start[l], length[l], 64));
        file.set_double(i.d, &out, mask);
    } else {
        let (a, b) = (*file.word(i.a), *file.word(i.b));
        let out = std::array::from_fn(|l| {
            insert_bits(a[l].into(), b[l].into(), start[l], length[l], 32) as u32
        });
        file.set_word(i.d, &out, mask);
    }
}
