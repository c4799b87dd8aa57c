//! Operands to slots: registers by their class, constants and special registers by value.

use super::Decoder;
use super::inst::{LaneMask, SINK, Special};
use super::kernel::Constant;
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::ptx::ast::{Base, Operand, Space, Type};

/// First byte of the shared window of generic addresses.
pub(crate) const SHARED_WINDOW: u64 = 1 << 56;
/// First byte of the local window.
pub(crate) const LOCAL_WINDOW: u64 = 2 << 56;
/// First byte of the window of kernel parameters.
pub(crate) const PARAMETER_WINDOW: u64 = 3 << 56;

/// An address operand: register slot and what is added.
pub(super) struct Address {
    pub(super) slot: u32,
    pub(super) far: bool,
    pub(super) offset: i32,
}

impl<'a> Decoder<'_, 'a> {
    pub(super) fn class_of(&self, register: u32) -> Option<Class> {
        Class::of(self.body.registers[register as usize])
    }

    fn constant(&mut self, class: Class, constant: Constant) -> u32 {
        let (map, list) = match class {
            Class::Word => (&mut self.words, &mut self.kernel.word_constants),
            _ => (&mut self.doubles, &mut self.kernel.double_constants),
        };
        *map.entry(constant).or_insert_with(|| {
            let used = &mut self.used[class as usize];
            *used += 1;
            list.push((*used - 1, constant));
            *used - 1
        })
    }

    pub(super) fn word_constant(&mut self, bits: u32) -> u32 {
        self.constant(Class::Word, Constant::Bits(u64::from(bits)))
    }

    pub(super) fn double_constant(&mut self, bits: u64) -> u32 {
        self.constant(Class::Double, Constant::Bits(bits))
    }

    /// A source of a class.
    pub(super) fn source(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
        class: Class,
    ) -> Result<u32, PtxError> {
        match (operand, class) {
            (Operand::Register(r), _) if self.class_of(*r) == Some(class) => {
                Ok(self.slots[*r as usize])
            }
            (Operand::Register(_), _) => op.error("a register of another width is expected"),
            (Operand::Integer(0 | 1), Class::Predicate) | (_, Class::Predicate) => {
                op.error("a predicate is expected")
            }
            (Operand::Integer(bits), Class::Word) => Ok(self.word_constant(*bits as u32)),
            (Operand::Integer(bits), Class::Double) => Ok(self.double_constant(*bits)),
            (Operand::Single(bits), Class::Word) => Ok(self.word_constant(*bits)),
            (Operand::Single(bits), Class::Double) => {
                Ok(self.double_constant(f64::from(f32::from_bits(*bits)).to_bits()))
            }
            (Operand::Double(bits), Class::Double) => Ok(self.double_constant(*bits)),
            (Operand::Double(bits), Class::Word) => {
                Ok(self.word_constant((f64::from_bits(*bits) as f32).to_bits()))
            }
            (Operand::Special(name), _) => match special(name) {
                Some(found) => Ok(self.constant(class, Constant::Special(found))),
                None => op.error(format!("special register `%{name}` is not executed")),
            },
            (Operand::Symbol(base, offset), _) => {
                let value = self.symbol(op, *base, *offset)?;
                Ok(self.constant(class, value))
            }
            _ => op.error("an operand of this form is not executed"),
        }
    }

    /// A source of the class of a type. Values narrower than 32 bits are cut by the instructions themselves.
    pub(super) fn typed(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
        ty: Type,
    ) -> Result<u32, PtxError> {
        match Class::of(ty) {
            Some(class) => self.source(op, operand, class),
            None => op.unknown(),
        }
    }

    /// A predicate and whether it is negated.
    pub(super) fn predicate(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
    ) -> Result<(u32, bool), PtxError> {
        match operand {
            Operand::Not(inner) => {
                let (slot, negated) = self.predicate(op, inner)?;
                Ok((slot, !negated))
            }
            Operand::Integer(value) => Ok((SINK, (*value != 0))),
            _ => Ok((self.source(op, operand, Class::Predicate)?, false)),
        }
    }

    /// A destination of a class.
    pub(super) fn target(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
        class: Class,
    ) -> Result<u32, PtxError> {
        match operand {
            Operand::Register(r) if self.class_of(*r) == Some(class) => Ok(self.slots[*r as usize]),
            Operand::Sink => Ok(SINK),
            Operand::Register(_) => op.error("the result needs a register of another width"),
            _ => op.error("the result needs a register"),
        }
    }

    /// Class of the register that an operand names, or of a type.
    pub(super) fn class_or(&self, operand: &Operand<'a>, ty: Type) -> Option<Class> {
        match operand {
            Operand::Register(r) => self.class_of(*r),
            _ => Class::of(ty),
        }
    }

    /// Elements of `{a, b}`, or one operand.
    pub(super) fn elements<'o>(operand: &'o Operand<'a>) -> &'o [Operand<'a>] {
        match operand {
            Operand::Vector(list) => list,
            single => std::slice::from_ref(single),
        }
    }

    /// Address of a variable in its own space.
    fn symbol(
        &mut self,
        op: &Opcode<'_>,
        base: Base<'a>,
        offset: i64,
    ) -> Result<Constant, PtxError> {
        let at = |start: u32| Constant::Bits(i64::from(start).wrapping_add(offset) as u64);
        match base {
            Base::Variable(id) => {
                let (space, start) = self.layout.local[id as usize];
                match space {
                    Space::Param => Ok(Constant::Bits(
                        PARAMETER_WINDOW.wrapping_add(start.into()).wrapping_add(offset as u64),
                    )),
                    _ => Ok(at(start)),
                }
            }
            Base::Name(name) => {
                if let Some(start) = self.layout.shared_offset(name) {
                    return Ok(at(start));
                }
                match self.names.get(name) {
                    Some(index) => Ok(Constant::Global(*index, offset)),
                    None => op.error(format!("`{name}` is not declared")),
                }
            }
            Base::None | Base::Register(_) => Ok(Constant::Bits(offset as u64)),
        }
    }

    /// The parts of `[…]`; 64-bit when the base is.
    pub(super) fn address(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
    ) -> Result<Address, PtxError> {
        let Operand::Address { base, offset, .. } = operand else {
            return op.error("an address in brackets is expected");
        };
        let small = i32::try_from(*offset);
        match (base, small) {
            (Base::Register(r), Ok(offset)) => match self.class_of(*r) {
                Some(Class::Word) => {
                    Ok(Address { slot: self.slots[*r as usize], far: false, offset })
                }
                Some(Class::Double) => {
                    Ok(Address { slot: self.slots[*r as usize], far: true, offset })
                }
                _ => op.error("an address cannot be a predicate"),
            },
            (Base::Register(_), Err(_)) => op.error("an offset beyond 32 bits"),
            _ => {
                let value = self.symbol(op, *base, *offset)?;
                Ok(Address { slot: self.constant(Class::Double, value), far: true, offset: 0 })
            }
        }
    }

    /// Checks the number of operands.
    pub(super) fn count(
        &self,
        op: &Opcode<'_>,
        operands: &[Operand<'a>],
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<(), PtxError> {
        if range.contains(&operands.len()) {
            return Ok(());
        }
        op.error(format!("{} operands", operands.len()))
    }
}

/// Special registers that do not change while a warp runs.
fn special(name: &str) -> Option<Special> {
    let (stem, axis) = match name.split_once('.') {
        Some((stem, "x")) => (stem, 0),
        Some((stem, "y")) => (stem, 1),
        Some((stem, "z")) => (stem, 2),
        Some(_) => return None,
        None => (name, 3),
    };
    Some(match (stem, axis) {
        ("tid", 0..=2) => Special::Thread(axis),
        ("ntid", 0..=2) => Special::Threads(axis),
        ("ctaid", 0..=2) => Special::Block(axis),
        ("nctaid", 0..=2) => Special::Blocks(axis),
        ("cluster_ctaid", 0..=2) => Special::ClusterBlock(axis),
        ("cluster_nctaid", 0..=2) => Special::ClusterBlocks(axis),
        ("clusterid", 0..=2) => Special::Cluster(axis),
        ("nclusterid", 0..=2) => Special::Clusters(axis),
        ("cluster_ctarank", 3) => Special::ClusterRank,
        ("cluster_nctarank", 3) => Special::ClusterSize,
        ("is_explicit_cluster", 3) => Special::IsCluster,
        ("laneid", 3) => Special::Lane,
        ("warpid", 3) => Special::Warp,
        ("nwarpid", 3) => Special::Warps,
        ("WARP_SZ", 3) => Special::WarpSize,
        ("lanemask_eq", 3) => Special::LaneMask(LaneMask::Eq),
        ("lanemask_lt", 3) => Special::LaneMask(LaneMask::Lt),
        ("lanemask_le", 3) => Special::LaneMask(LaneMask::Le),
        ("lanemask_gt", 3) => Special::LaneMask(LaneMask::Gt),
        ("lanemask_ge", 3) => Special::LaneMask(LaneMask::Ge),
        ("dynamic_smem_size", 3) => Special::DynamicShared,
        ("total_smem_size", 3) => Special::TotalShared,
        ("smid" | "nsmid" | "gridid", 3) => Special::Zero,
        _ => return None,
    })
}
