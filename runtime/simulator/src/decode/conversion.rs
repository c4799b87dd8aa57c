//! `cvt`: fast rows for the pairs that kernels use all the time, the general conversion for the others.

use super::Decoder;
use super::inst::{Inst, Op};
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::exec::alu::AluOp::{self, *};
use crate::exec::convert::{self, INTEGRAL};
use crate::exec::float::{Round, flags};
use crate::ptx::ast::{Operand, Type};

impl<'a> Decoder<'_, 'a> {
    pub(super) fn conversion(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        op.allow(&[
            "rn",
            "rz",
            "rm",
            "rp",
            "rni",
            "rzi",
            "rmi",
            "rpi",
            "rna",
            "ftz",
            "sat",
            "relu",
            "satfinite",
        ])?;
        let types = op.types();
        let [to, from] = types[..] else { return op.error("a conversion has two types") };
        if o.len() == 3 {
            return self.packing(op, o, to, from);
        }
        self.count(op, o, 2..=2)?;
        let (Some(d), Some(a)) = (self.class_or(&o[0], to), self.class_or(&o[1], from)) else {
            return op.unknown();
        };
        let (row, modifiers) = match (to, from) {
            (Type::F16x2, Type::E4m3x2) => (F16x2FromE4m3x2, 0),
            (Type::F16x2, Type::E5m2x2) => (F16x2FromE5m2x2, 0),
            _ => match fast_row(op, to, from, d, a) {
                Some(row) => (row, 0),
                None => general(op, to, from, d, a)?,
            },
        };
        let mut i = self.blank(Op::Alu(row));
        i.extra = modifiers;
        i.d = self.target(op, &o[0], d)?;
        i.a = self.source(op, &o[1], a)?;
        Ok(i)
    }

    /// `cvt.….f32 d, a, b`: two values into one register.
    fn packing(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
        to: Type,
        from: Type,
    ) -> Result<Inst, PtxError> {
        let relu = op.flags() & flags::RELU;
        let row = match (to, from) {
            (Type::F16x2, Type::F32) if relu == 0 && op.has("rn") => F16x2FromF32,
            (Type::Bf16x2, Type::F32) if relu == 0 && op.has("rn") => Bf16x2FromF32,
            (Type::E4m3x2, Type::F32) => E4m3x2FromF32,
            (Type::E5m2x2, Type::F32) => E5m2x2FromF32,
            _ => return op.unknown(),
        };
        let mut i = self.blank(Op::Alu(row));
        i.extra = relu;
        i.d = self.target(op, &o[0], Class::Word)?;
        i.a = self.source(op, &o[1], Class::Word)?;
        i.b = self.source(op, &o[2], Class::Word)?;
        Ok(i)
    }
}

fn general(
    op: &Opcode<'_>,
    to: Type,
    from: Type,
    d: Class,
    a: Class,
) -> Result<(AluOp, u32), PtxError> {
    let is_float = |t: Type| matches!(t, Type::F16 | Type::Bf16 | Type::F32 | Type::F64);
    let unsigned = |t: Type| match t {
        Type::B8 => Type::U8,
        Type::B16 => Type::U16,
        Type::B32 => Type::U32,
        Type::B64 => Type::U64,
        other => other,
    };
    let (from, to) = (unsigned(from), unsigned(to));
    let integral = op.any(&["rni", "rzi", "rmi", "rpi"]) && is_float(from) && is_float(to);
    let mut bits = op.flags() | if integral { INTEGRAL } else { 0 };
    if !is_float(from) && !is_float(to) && op.flags() & flags::SAT == 0 {
        bits = 0;
    }
    // A narrower integer in a wider register is extended as its type says.
    let extended = match (d, to) {
        (Class::Double, Type::U8 | Type::U16 | Type::U32) => Type::U64,
        (Class::Double, Type::S8 | Type::S16 | Type::S32) => Type::S64,
        (_, Type::S8) => return signed_byte(op, from),
        _ => to,
    };
    if extended != to && is_float(from) {
        return op.error("a float becomes an integer of its register's width only");
    }
    let Some(modifiers) = convert::modifiers(from, extended, bits) else { return op.unknown() };
    let row = match (a, d) {
        (Class::Word, Class::Word) if from.bytes() <= 2 => Convert16,
        (Class::Word, Class::Word) => Convert32,
        (Class::Double, Class::Word) => Convert64,
        (Class::Word, Class::Double) if from.bytes() <= 2 => Convert16To64,
        (Class::Word, Class::Double) => Convert32To64,
        (Class::Double, Class::Double) => Convert64To64,
        _ => return op.unknown(),
    };
    Ok((row, modifiers))
}

/// `cvt.s8.…` leaves a value that is sign-extended to its register.
fn signed_byte(op: &Opcode<'_>, from: Type) -> Result<(AluOp, u32), PtxError> {
    match from {
        Type::U8 | Type::S8 | Type::U16 | Type::S16 => Ok((SignExtend8To16, 0)),
        Type::U32 | Type::S32 => Ok((SignExtend8, 0)),
        _ => op.unknown(),
    }
}

fn fast_row(op: &Opcode<'_>, to: Type, from: Type, d: Class, a: Class) -> Option<AluOp> {
    use Type::*;
    let nearest = op.round() == Some(Round::Nearest);
    let bare = op.flags() & !Round::Up.bits() & !Round::Away.bits() == 0;
    let integral = op.any(&["rni", "rzi", "rmi", "rpi"]);
    if op.has("sat") && (to, from) == (F32, F32) && !integral && op.flags() == flags::SAT {
        return Some(F32Saturate);
    }
    if !bare {
        return None;
    }
    match (to, from, d, a) {
        (F32, F16, ..) => Some(F32FromF16),
        (F32, Bf16, ..) => Some(F32FromBf16),
        (F16, F32, ..) if nearest => Some(F16FromF32),
        (Bf16, F32, ..) if nearest => Some(Bf16FromF32),
        (Tf32, F32, ..) if nearest => Some(Tf32FromF32),
        (Tf32, F32, ..) if op.has("rna") => Some(Tf32AwayFromF32),
        (F32, S32, ..) if nearest => Some(F32FromS32),
        (F32, U32, ..) if nearest => Some(F32FromU32),
        (S32, F32, Class::Word, _) if op.has("rzi") => Some(S32FromF32),
        (U32, F32, Class::Word, _) if op.has("rzi") => Some(U32FromF32),
        (F32, F32, ..) if op.has("rmi") => Some(F32Floor),
        (F32, F32, ..) if op.has("rpi") => Some(F32Ceil),
        (F32, F32, ..) if op.has("rzi") => Some(F32Trunc),
        (F32, F32, ..) if op.has("rni") => Some(F32Round),
        (F64, F32, ..) => Some(F64FromF32),
        (F32, F64, ..) if nearest && !integral => Some(F32FromF64),
        (U64 | S64, U32, Class::Double, Class::Word) => Some(Widen),
        (S64 | U64, S32, Class::Double, Class::Word) => Some(WidenSigned),
        (S64 | U64, U16, Class::Double, Class::Word) => Some(WidenU16),
        (S64 | U64, S16, Class::Double, Class::Word) => Some(WidenS16),
        (U32 | S32, U64 | S64, Class::Word, Class::Double) => Some(LowWord),
        (U16 | S16, U64 | S64, Class::Word, Class::Double) => Some(LowHalf),
        (U32 | S32, U16, Class::Word, _) => Some(ZeroExtend16),
        (U32 | S32, S16, Class::Word, _) => Some(SignExtend16),
        (U16 | S16, U32 | S32, Class::Word, Class::Word) => Some(ZeroExtend16),
        (U16 | S16 | U32 | S32, U8, Class::Word, Class::Word) => Some(ZeroExtend8),
        (U32 | S32, S8, Class::Word, Class::Word) => Some(SignExtend8),
        (U16 | S16, S8, Class::Word, Class::Word) => Some(SignExtend8To16),
        _ => None,
    }
}
