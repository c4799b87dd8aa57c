//! `setp`, `set` and `testp`.

use super::Decoder;
use super::inst::{Combine, Inst, Op, SINK};
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::exec::alu::AluOp::{self, *};
use crate::ptx::ast::{Operand, Type};

/// A row, whether its operands change places, and its code for float comparisons.
struct Comparison {
    row: AluOp,
    swapped: bool,
    code: u32,
}

/// Position of a relation in the codes of float comparisons.
const RELATIONS: [&str; 8] = ["eq", "ne", "lt", "le", "gt", "ge", "num", "nan"];

impl<'a> Decoder<'_, 'a> {
    pub(super) fn comparison(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        match op.base {
            "testp" => self.test(op, o),
            "setp" => self.set_predicate(op, o),
            _ => op.unknown(),
        }
    }

    fn test(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 2..=2)?;
        let row = match (op.ty()?, op.text.split('.').nth(1).unwrap_or_default()) {
            (Type::F32, "finite") => TestFinite,
            (Type::F32, "infinite") => TestInfinite,
            (Type::F32, "number") => TestNumber,
            (Type::F32, "notanumber") => TestNotNumber,
            _ => return op.unknown(),
        };
        let mut i = self.blank(Op::Alu(row));
        i.d = self.target(op, &o[0], Class::Predicate)?;
        i.a = self.source(op, &o[1], Class::Word)?;
        Ok(i)
    }

    fn set_predicate(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&[
            "eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs", "equ", "neu", "ltu", "leu",
            "gtu", "geu", "num", "nan", "and", "or", "xor", "ftz",
        ])?;
        self.count(op, o, 3..=4)?;
        let ty = op.ty()?;
        let Some(found) = comparison_row(op, ty) else { return op.unknown() };
        let combine = match (op.has("and"), op.has("or"), op.has("xor"), o.get(3)) {
            (_, _, _, None) => Combine::None,
            (true, _, _, Some(_)) => Combine::And,
            (_, true, _, Some(_)) => Combine::Or,
            (_, _, true, Some(_)) => Combine::Xor,
            _ => return op.unknown(),
        };
        let (a, b) = if found.swapped { (&o[2], &o[1]) } else { (&o[1], &o[2]) };
        let (a, b) = (self.typed(op, a, ty)?, self.typed(op, b, ty)?);
        let (first, second) = match &o[0] {
            Operand::Pair(pair) => (&pair.0, Some(&pair.1)),
            single => (single, None),
        };
        let d = self.target(op, first, Class::Predicate)?;
        let mut i = match (combine, second) {
            (Combine::None, None) => self.blank(Op::Alu(found.row)),
            _ => {
                let (c, negated) = match o.get(3) {
                    Some(operand) => self.predicate(op, operand)?,
                    None => (SINK, false),
                };
                let mut i = self.blank(Op::Compare { row: found.row, combine, negated });
                i.c = c;
                if let Some(second) = second {
                    i.offset = self.target(op, second, Class::Predicate)? as i32;
                }
                i
            }
        };
        (i.d, i.a, i.b, i.extra) = (d, a, b, found.code);
        Ok(i)
    }
}

fn comparison_row(op: &Opcode<'_>, ty: Type) -> Option<Comparison> {
    let relation = op.text.split('.').nth(1)?;
    let plain = |row| Some(Comparison { row, swapped: false, code: 0 });
    let rows = match (ty, ty.is_signed()) {
        (Type::F32 | Type::F64 | Type::F16 | Type::Bf16, _) => {
            return float_comparison(op, ty, relation);
        }
        (Type::U16 | Type::B16, _) => [EqU16, NeU16, LtU16, LeU16],
        (Type::S16, _) => [EqU16, NeU16, LtS16, LeS16],
        (Type::S32, _) => [Eq32, Ne32, LtS32, LeS32],
        (Type::U32 | Type::B32, _) => [Eq32, Ne32, LtU32, LeU32],
        (Type::S64, _) => [Eq64, Ne64, LtS64, LeS64],
        (Type::U64 | Type::B64, _) => [Eq64, Ne64, LtU64, LeU64],
        _ => return None,
    };
    let swapped = |row| Some(Comparison { row, swapped: true, code: 0 });
    match relation {
        "eq" => plain(rows[0]),
        "ne" => plain(rows[1]),
        "lt" | "lo" => plain(rows[2]),
        "le" | "ls" => plain(rows[3]),
        "gt" | "hi" => swapped(rows[2]),
        "ge" | "hs" => swapped(rows[3]),
        _ => None,
    }
}

fn float_comparison(op: &Opcode<'_>, ty: Type, relation: &str) -> Option<Comparison> {
    let unordered = relation.len() == 3 && relation.ends_with('u');
    let stem = if unordered { &relation[..2] } else { relation };
    let code = RELATIONS.iter().position(|r| *r == stem)? as u32;
    let (row, swapped) = match (ty, code, unordered) {
        (Type::F32, ..) if op.has("ftz") => (CompareFlushF32, false),
        (Type::F32, 0, false) => (EqF32, false),
        (Type::F32, 2, false) => (LtF32, false),
        (Type::F32, 3, false) => (LeF32, false),
        (Type::F32, 4, false) => (LtF32, true),
        (Type::F32, 5, false) => (LeF32, true),
        (Type::F32, ..) => (CompareF32, false),
        (Type::F64, ..) => (CompareF64, false),
        (Type::F16, ..) => (CompareF16, false),
        _ => (CompareBf16, false),
    };
    Some(Comparison { row, swapped, code: code | u32::from(unordered) << 3 })
}
