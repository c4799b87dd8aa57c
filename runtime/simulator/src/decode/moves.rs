//! Moves, packing, address conversions and the instructions that change the flow.

use super::Decoder;
use super::flow::{Jump, jump};
use super::inst::{Inst, Op, Window};
use super::opcode::Opcode;
use super::operands::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW};
use super::registers::Class;
use crate::error::PtxError;
use crate::exec::alu::AluOp::*;
use crate::ptx::ast::{Instruction, Operand, Type};

impl<'a> Decoder<'_, 'a> {
    pub(super) fn flow(
        &mut self,
        op: &Opcode<'_>,
        i: &Instruction<'a>,
        meeting: u32,
    ) -> Result<Inst, PtxError> {
        op.allow(&["uni", "idx"])?;
        match jump(self.body, i)? {
            Jump::Leave if op.base == "trap" => Ok(self.blank(Op::Trap)),
            Jump::Leave => Ok(self.blank(Op::Exit)),
            Jump::To(targets) if op.base == "bra" => {
                let mut out = self.blank(Op::Branch);
                (out.extra, out.c) = (targets[0], meeting);
                Ok(out)
            }
            Jump::To(targets) => {
                let mut out = self.blank(Op::BranchIndexed);
                out.a = self.source(op, &i.operands[0], Class::Word)?;
                out.extra = self.list(&targets);
                (out.offset, out.c) = (targets.len() as i32, meeting);
                Ok(out)
            }
            Jump::None => op.unknown(),
        }
    }

    pub(super) fn mov(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 2..=2)?;
        op.allow(&[])?;
        let ty = op.ty()?;
        if let Operand::Special(name) = &o[1]
            && let Some(inst) = self.clock(op, name, &o[0])?
        {
            return Ok(inst);
        }
        match (&o[0], &o[1]) {
            (Operand::Vector(parts), source) => self.unpack(op, ty, parts, source),
            (target, Operand::Vector(parts)) => self.pack(op, ty, target, parts),
            (target, source) => {
                let Some(class) = Class::of(ty) else { return op.unknown() };
                let row = match class {
                    Class::Word => Mov32,
                    Class::Double => Mov64,
                    Class::Predicate => return self.mov_predicate(op, target, source),
                };
                let mut i = self.blank(Op::Alu(row));
                i.d = self.target(op, target, class)?;
                i.a = self.source(op, source, class)?;
                Ok(i)
            }
        }
    }

    fn mov_predicate(
        &mut self,
        op: &Opcode<'_>,
        target: &Operand<'a>,
        source: &Operand<'a>,
    ) -> Result<Inst, PtxError> {
        if let Operand::Integer(value) = source {
            // A value is equal to itself and below no other: true or false without a constant.
            let mut i = self.blank(Op::Alu(if *value != 0 { Eq32 } else { Ne32 }));
            i.d = self.target(op, target, Class::Predicate)?;
            return Ok(i);
        }
        let (a, negated) = self.predicate(op, source)?;
        let mut i = self.blank(Op::Alu(if negated { NotPred } else { MovPred }));
        i.d = self.target(op, target, Class::Predicate)?;
        i.a = a;
        Ok(i)
    }

    fn clock(
        &mut self,
        op: &Opcode<'_>,
        name: &str,
        target: &Operand<'a>,
    ) -> Result<Option<Inst>, PtxError> {
        let class = match name {
            "clock" | "clock_hi" | "globaltimer_lo" | "globaltimer_hi" => Class::Word,
            "clock64" | "globaltimer" => Class::Double,
            _ => return Ok(None),
        };
        let mut i = self.blank(Op::Clock { wide: class == Class::Double });
        i.d = self.target(op, target, class)?;
        Ok(Some(i))
    }

    fn unpack(
        &mut self,
        op: &Opcode<'_>,
        ty: Type,
        parts: &[Operand<'a>],
        source: &Operand<'a>,
    ) -> Result<Inst, PtxError> {
        let part = part_bits(op, ty, parts.len())?;
        let a = self.typed(op, source, ty)?;
        let mut slots = Vec::with_capacity(parts.len());
        for target in parts {
            slots.push(self.target(op, target, Class::Word)?);
        }
        let mut i = self.blank(Op::Unpack { part, parts: parts.len() as u8 });
        (i.a, i.b) = (a, u32::from(ty.bytes() == 8));
        i.extra = self.list(&slots);
        Ok(i)
    }

    fn pack(
        &mut self,
        op: &Opcode<'_>,
        ty: Type,
        target: &Operand<'a>,
        parts: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        let part = part_bits(op, ty, parts.len())?;
        let Some(class) = Class::of(ty) else { return op.unknown() };
        let d = self.target(op, target, class)?;
        let mut slots = Vec::with_capacity(parts.len());
        for source in parts {
            slots.push(self.source(op, source, Class::Word)?);
        }
        let mut i = match (part, slots.len()) {
            (32, 2) => self.blank(Op::Alu(PackWords)),
            (16, 2) => self.blank(Op::Alu(PackHalves)),
            (8, 2) => self.blank(Op::Alu(PackBytes)),
            (_, count) => {
                self.blank(Op::Pack { part, parts: count as u8, wide: class == Class::Double })
            }
        };
        (i.d, i.a, i.b) = (d, slots[0], slots[1]);
        i.extra = self.list(&slots);
        Ok(i)
    }

    pub(super) fn address_conversion(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        op.allow(&[
            "to",
            "global",
            "shared",
            "shared::cta",
            "shared::cluster",
            "local",
            "param",
            "const",
        ])?;
        match op.base {
            "mapa" => return self.map_rank(op, o),
            "isspacep" => return self.is_space(op, o),
            "cvta" => {}
            _ => return op.unknown(),
        }
        self.count(op, o, 2..=2)?;
        let class = Class::of(op.ty()?).unwrap_or(Class::Double);
        let window = if op.any(&["shared", "shared::cta", "shared::cluster"]) {
            SHARED_WINDOW
        } else if op.has("local") {
            LOCAL_WINDOW
        } else if op.any(&["param", "param::entry"]) {
            PARAMETER_WINDOW
        } else {
            0
        };
        let row = match (window, op.has("to")) {
            (0, _) => Mov64,
            // An address of a parameter is generic from the start.
            (PARAMETER_WINDOW, _) => Mov64,
            (_, true) => And64,
            (_, false) => Add64,
        };
        if class != Class::Double {
            return op.error("only 64-bit addresses are converted");
        }
        let mut i = self.blank(Op::Alu(row));
        i.d = self.target(op, &o[0], class)?;
        i.a = self.source(op, &o[1], class)?;
        i.b = self.double_constant(if row == And64 { !window } else { window });
        Ok(i)
    }

    fn map_rank(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 3..=3)?;
        let Some(class) = Class::of(op.ty()?) else { return op.unknown() };
        let mut i = self.blank(Op::MapRank { far: class == Class::Double });
        i.d = self.target(op, &o[0], class)?;
        i.a = self.source(op, &o[1], class)?;
        i.b = self.source(op, &o[2], Class::Word)?;
        Ok(i)
    }

    fn is_space(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 2..=2)?;
        let window = if op.has("global") {
            Window::Global
        } else if op.any(&["shared", "shared::cta"]) {
            Window::Shared
        } else if op.has("shared::cluster") {
            Window::Cluster
        } else if op.has("local") {
            Window::Local
        } else {
            return op.unknown();
        };
        let mut i = self.blank(Op::IsSpace(window));
        i.d = self.target(op, &o[0], Class::Predicate)?;
        i.a = self.source(op, &o[1], Class::Double)?;
        Ok(i)
    }
}

/// Bits of each part of a packed value.
fn part_bits(op: &Opcode<'_>, ty: Type, parts: usize) -> Result<u8, PtxError> {
    let bits = ty.bytes() * 8;
    match parts {
        2 | 4 | 8 if bits / parts as u32 >= 8 => Ok((bits / parts as u32) as u8),
        _ => op.error(format!("{parts} parts")),
    }
}
