//! Arithmetic by tables: PTX's name and type choose a row of [`crate::exec::alu`].

use super::Decoder;
use super::inst::{Inst, Op, SINK};
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::exec::alu::AluOp::{self, *};
use crate::exec::float::{Round, flags};
use crate::ptx::ast::{Operand, Type};

/// A name, the classes of its operands (result first) and its rows for u16 s16 u32 s32 u64 s64. Classes:
/// `t` that of the type, `w` 32 bits, `q` 64 bits, `p` predicate, `W` twice the type.
type IntegerRow = (&'static str, &'static str, [Option<AluOp>; 6]);

const fn all(h: AluOp, w: AluOp, q: AluOp) -> [Option<AluOp>; 6] {
    [Some(h), Some(h), Some(w), Some(w), Some(q), Some(q)]
}

const fn each(rows: [AluOp; 6]) -> [Option<AluOp>; 6] {
    let [a, b, c, d, e, f] = rows;
    [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f)]
}

const fn words(u: AluOp, s: AluOp) -> [Option<AluOp>; 6] {
    [None, None, Some(u), Some(s), None, None]
}

const fn wide(w: AluOp, q: AluOp) -> [Option<AluOp>; 6] {
    [None, None, Some(w), Some(w), Some(q), Some(q)]
}

const INTEGER: &[IntegerRow] = &[
    ("add", "ttt", all(AddU16, Add32, Add64)),
    ("add.sat", "ttt", [None, None, None, Some(AddSatS32), None, None]),
    ("sub", "ttt", all(SubU16, Sub32, Sub64)),
    ("sub.sat", "ttt", [None, None, None, Some(SubSatS32), None, None]),
    ("mul.lo", "ttt", all(MulLoU16, MulLo32, MulLo64)),
    ("mul.hi", "ttt", each([MulHiU16, MulHiS16, MulHiU32, MulHiS32, MulHiU64, MulHiS64])),
    (
        "mul.wide",
        "Wtt",
        [Some(MulWideU16), Some(MulWideS16), Some(MulWideU32), Some(MulWideS32), None, None],
    ),
    ("mad.lo", "tttt", all(MadLoU16, MadLo32, MadLo64)),
    ("mad.hi", "tttt", [None, None, Some(MadHiU32), Some(MadHiS32), Some(MadHiU64), None]),
    (
        "mad.wide",
        "WttW",
        [Some(MadWideU16), Some(MadWideS16), Some(MadWideU32), Some(MadWideS32), None, None],
    ),
    ("div", "ttt", each([DivU16, DivS16, DivU32, DivS32, DivU64, DivS64])),
    ("rem", "ttt", each([RemU16, RemS16, RemU32, RemS32, RemU64, RemS64])),
    ("min", "ttt", each([MinU16, MinS16, MinU32, MinS32, MinU64, MinS64])),
    ("max", "ttt", each([MaxU16, MaxS16, MaxU32, MaxS32, MaxU64, MaxS64])),
    ("neg", "tt", all(NegS16, NegS32, NegS64)),
    ("abs", "tt", all(AbsS16, AbsS32, AbsS64)),
    ("sad", "tttt", words(SadU32, SadS32)),
    ("and", "ttt", all(And16, And32, And64)),
    ("or", "ttt", all(Or16, Or32, Or64)),
    ("xor", "ttt", all(Xor16, Xor32, Xor64)),
    ("not", "tt", all(Not16, Not32, Not64)),
    ("cnot", "tt", words(Cnot32, Cnot32)),
    ("shl", "ttw", all(Shl16, Shl32, Shl64)),
    ("shr", "ttw", each([ShrU16, ShrS16, ShrU32, ShrS32, ShrU64, ShrS64])),
    ("shf.l.wrap", "tttt", words(FunnelLeftWrap, FunnelLeftWrap)),
    ("shf.l.clamp", "tttt", words(FunnelLeftClamp, FunnelLeftClamp)),
    ("shf.r.wrap", "tttt", words(FunnelRightWrap, FunnelRightWrap)),
    ("shf.r.clamp", "tttt", words(FunnelRightClamp, FunnelRightClamp)),
    ("popc", "wt", wide(CountBits32, CountBits64)),
    ("clz", "wt", wide(LeadingZeros32, LeadingZeros64)),
    ("brev", "tt", wide(Reverse32, Reverse64)),
    ("bfind", "wt", [None, None, Some(FindU32), Some(FindS32), Some(FindU64), Some(FindS64)]),
    ("bfind.shiftamt", "wt", [None, None, Some(FindShiftU32), None, None, None]),
    ("bfe", "ttww", [None, None, Some(FieldU32), Some(FieldS32), Some(FieldU64), Some(FieldS64)]),
    ("selp", "tttp", all(SelectWord, SelectWord, SelectDouble)),
];

/// A name, its operands, and rows for f32, f32 with modifiers, f64, f16, f16x2, bf16, bf16x2.
type FloatRow = (&'static str, &'static str, [Option<AluOp>; 7]);

const fn floats(plain: AluOp, modified: AluOp, double: AluOp) -> [Option<AluOp>; 7] {
    [Some(plain), Some(modified), Some(double), None, None, None, None]
}

const fn singles(plain: AluOp, modified: AluOp) -> [Option<AluOp>; 7] {
    [Some(plain), Some(modified), None, None, None, None, None]
}

const fn every(rows: [AluOp; 7]) -> [Option<AluOp>; 7] {
    let [a, b, c, d, e, f, g] = rows;
    [Some(a), Some(b), Some(c), Some(d), Some(e), Some(f), Some(g)]
}

const FLOAT: &[FloatRow] = &[
    ("add", "ttt", every([AddF32, AddModF32, AddF64, AddF16, AddF16x2, AddBf16, AddBf16x2])),
    ("sub", "ttt", every([SubF32, SubModF32, SubF64, SubF16, SubF16x2, SubBf16, SubBf16x2])),
    ("mul", "ttt", every([MulF32, MulModF32, MulF64, MulF16, MulF16x2, MulBf16, MulBf16x2])),
    ("fma", "tttt", every([FmaF32, FmaModF32, FmaF64, FmaF16, FmaF16x2, FmaBf16, FmaBf16x2])),
    ("mad", "tttt", floats(FmaF32, FmaModF32, FmaF64)),
    ("div", "ttt", floats(DivF32, DivModF32, DivF64)),
    ("sqrt", "tt", floats(SqrtF32, SqrtModF32, SqrtF64)),
    ("rcp", "tt", floats(RcpF32, RcpModF32, RcpF64)),
    ("rsqrt", "tt", floats(RsqrtF32, RsqrtF32, RsqrtF64)),
    ("min", "ttt", every([MinF32, MinModF32, MinF64, MinF16, MinF16x2, MinBf16, MinBf16x2])),
    ("max", "ttt", every([MaxF32, MaxModF32, MaxF64, MaxF16, MaxF16x2, MaxBf16, MaxBf16x2])),
    ("neg", "tt", every([NegF32, NegFlushF32, NegF64, Neg16, Neg16x2, Neg16, Neg16x2])),
    ("abs", "tt", every([AbsF32, AbsFlushF32, AbsF64, Abs16, Abs16x2, Abs16, Abs16x2])),
    ("copysign", "ttt", floats(CopySignF32, CopySignF32, CopySignF64)),
    (
        "ex2",
        "tt",
        [
            Some(Exp2F32),
            Some(Exp2ModF32),
            None,
            Some(Exp2F16),
            Some(Exp2F16x2),
            None,
            Some(Exp2Bf16x2),
        ],
    ),
    ("lg2", "tt", singles(Log2F32, Log2F32)),
    ("sin", "tt", singles(SinF32, SinF32)),
    ("cos", "tt", singles(CosF32, CosF32)),
    (
        "tanh",
        "tt",
        [
            Some(TanhF32),
            Some(TanhF32),
            None,
            Some(TanhF16),
            Some(TanhF16x2),
            None,
            Some(TanhBf16x2),
        ],
    ),
    (
        "selp",
        "tttp",
        [
            Some(SelectWord),
            None,
            Some(SelectDouble),
            Some(SelectWord),
            Some(SelectWord),
            Some(SelectWord),
            Some(SelectWord),
        ],
    ),
];

const MODIFIERS: &[&str] = &[
    "lo", "hi", "wide", "ftz", "sat", "rn", "rz", "rm", "rp", "approx", "full", "relu", "NaN",
    "xorsign", "abs", "l", "r", "wrap", "clamp", "shiftamt", "rni", "cc",
];

impl<'a> Decoder<'_, 'a> {
    pub(super) fn arithmetic(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        match op.base {
            "bfi" => return self.insert_field(op, o),
            "lop3" | "prmt" | "dp4a" | "bmsk" | "szext" => return self.bytewise(op, o),
            "addc" | "subc" => return self.carry(op, o),
            "add" | "sub" if op.has("cc") => return self.carry(op, o),
            _ => {}
        }
        let ty = op.ty()?;
        op.allow(MODIFIERS)?;
        let (signature, row, modifiers) = match ty {
            Type::Pred => return self.logic(op, o),
            Type::F32 | Type::F64 | Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2 => {
                float_row(op, ty)?
            }
            _ => integer_row(op, ty)?,
        };
        self.count(op, o, signature.len()..=signature.len())?;
        let mut i = self.blank(Op::Alu(row));
        i.extra = modifiers;
        let class = Class::of(ty).unwrap_or(Class::Word);
        let doubled = if ty.bytes() == 4 { Class::Double } else { Class::Word };
        for (at, (letter, operand)) in signature.bytes().zip(o).enumerate() {
            let class = match letter {
                b'w' => Class::Word,
                b'p' => Class::Predicate,
                b'W' => doubled,
                _ => class,
            };
            match at {
                0 => i.d = self.target(op, operand, class)?,
                1 => i.a = self.source(op, operand, class)?,
                2 => i.b = self.source(op, operand, class)?,
                _ => i.c = self.source(op, operand, class)?,
            }
        }
        Ok(i)
    }

    /// Operations on predicates.
    fn logic(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        let row = match op.base {
            "and" => AndPred,
            "or" => OrPred,
            "xor" => XorPred,
            "not" => NotPred,
            _ => return op.unknown(),
        };
        self.count(op, o, if row == NotPred { 2..=2 } else { 3..=3 })?;
        let mut i = self.blank(Op::Alu(row));
        i.d = self.target(op, &o[0], Class::Predicate)?;
        i.a = self.source(op, &o[1], Class::Predicate)?;
        if let Some(b) = o.get(2) {
            i.b = self.source(op, b, Class::Predicate)?;
        }
        Ok(i)
    }

    fn insert_field(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 5..=5)?;
        op.allow(&[])?;
        let ty = op.ty()?;
        let mut i = self.blank(Op::InsertField { wide: ty.bytes() == 8 });
        let class = Class::of(ty).unwrap_or(Class::Word);
        i.d = self.target(op, &o[0], class)?;
        i.a = self.source(op, &o[1], class)?;
        i.b = self.source(op, &o[2], class)?;
        i.c = self.source(op, &o[3], Class::Word)?;
        i.extra = self.source(op, &o[4], Class::Word)?;
        Ok(i)
    }

    fn bytewise(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        let modes = ["b32", "f4e", "b4e", "rc8", "ecl", "ecr", "rc16"];
        op.allow(&["f4e", "b4e", "rc8", "ecl", "ecr", "rc16", "clamp", "wrap"])?;
        let row = match op.base {
            "lop3" => Logic3,
            "prmt" => Permute,
            "dp4a" => Dot4,
            "bmsk" => FieldMask,
            _ => return op.unknown(),
        };
        let arguments = if row == FieldMask { 2 } else { 3 };
        self.count(op, o, arguments + 1..=arguments + 1 + usize::from(row == Logic3))?;
        let mut i = self.blank(Op::Alu(row));
        i.d = self.target(op, &o[0], Class::Word)?;
        let mut sources = [SINK; 3];
        for (slot, operand) in sources.iter_mut().zip(&o[1..=arguments]) {
            *slot = self.source(op, operand, Class::Word)?;
        }
        [i.a, i.b, i.c] = if row == FieldMask { [SINK, sources[0], sources[1]] } else { sources };
        i.extra = match row {
            Logic3 => match o.get(4) {
                Some(Operand::Integer(table)) => *table as u32,
                _ => return op.error("the table of `lop3` is a number"),
            },
            Permute => modes.iter().position(|m| op.has(m) && *m != "b32").unwrap_or(0) as u32,
            Dot4 => {
                let types = op.types();
                let signed = |at: usize| types.get(at).is_some_and(|t| t.is_signed());
                u32::from(signed(0)) | u32::from(signed(1)) << 1
            }
            _ => 0,
        };
        Ok(i)
    }

    /// `add.cc`, `addc`, `sub.cc`, `subc`: the carry flag is a predicate of its own.
    fn carry(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 3..=3)?;
        op.allow(&["cc"])?;
        let ty = op.ty()?;
        let class = Class::of(ty).unwrap_or(Class::Word);
        let slot = *self.carry.get_or_insert_with(|| {
            self.used[Class::Predicate as usize] += 1;
            self.used[Class::Predicate as usize] - 1
        });
        let mut i = self.blank(Op::Carry {
            subtract: op.base.starts_with("sub"),
            reads: op.base.ends_with('c'),
            writes: op.has("cc"),
            wide: class == Class::Double,
        });
        i.d = self.target(op, &o[0], class)?;
        i.a = self.source(op, &o[1], class)?;
        i.b = self.source(op, &o[2], class)?;
        i.c = slot;
        Ok(i)
    }
}

fn integer_row(op: &Opcode<'_>, ty: Type) -> Result<(&'static str, AluOp, u32), PtxError> {
    let mut key = op.base.to_owned();
    for part in ["lo", "hi", "wide", "sat", "l", "r", "wrap", "clamp", "shiftamt"] {
        if op.has(part) && !(op.base == "bfind" && part != "shiftamt") {
            key.push('.');
            key.push_str(part);
        }
    }
    let column = match ty.bytes() {
        2 => 0,
        4 => 2,
        8 => 4,
        _ => return op.unknown(),
    } + usize::from(ty.is_signed());
    let found = INTEGER.iter().find(|(name, _, _)| *name == key);
    match found.and_then(|(_, signature, rows)| Some((*signature, rows[column]?))) {
        Some((signature, row)) => Ok((signature, row, 0)),
        None => op.unknown(),
    }
}

fn float_row(op: &Opcode<'_>, ty: Type) -> Result<(&'static str, AluOp, u32), PtxError> {
    let mut modifiers = op.flags();
    if op.has("approx") || op.has("full") || op.base == "abs" || op.base == "neg" {
        modifiers &= flags::FTZ;
    }
    let column = match ty {
        Type::F32 if modifiers == 0 => 0,
        Type::F32 => 1,
        Type::F64 => 2,
        Type::F16 => 3,
        Type::F16x2 => 4,
        Type::Bf16 => 5,
        _ => 6,
    };
    if ty == Type::F64 && !matches!(op.round(), None | Some(Round::Nearest)) {
        return op.error("directed rounding of f64 is not executed");
    }
    if op.text == "rcp.approx.ftz.f64" {
        return Ok(("tt", RcpApproxF64, 0));
    }
    let found = FLOAT.iter().find(|(name, _, _)| *name == op.base);
    match found.and_then(|(_, signature, rows)| Some((*signature, rows[column]?))) {
        Some((_, row @ (MinModF32 | MaxModF32))) if modifiers == flags::NAN => {
            Ok(("ttt", if row == MinModF32 { MinNanF32 } else { MaxNanF32 }, 0))
        }
        Some((signature, row)) => Ok((signature, row, modifiers)),
        None => op.unknown(),
    }
}
