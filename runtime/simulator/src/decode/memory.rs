//! Loads, stores, atomics, matrix moves and fences.

use super::Decoder;
use super::inst::{Access, Atomic, AtomicKind, Inst, Op, SINK, Window};
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::ptx::ast::{Base, Operand, Space, Type};

/// Modifiers of loads and stores that change no result here.
const HINTS: &[&str] = &[
    "nc",
    "volatile",
    "relaxed",
    "acquire",
    "release",
    "weak",
    "mmio",
    "cta",
    "gpu",
    "sys",
    "cluster",
    "ca",
    "cg",
    "cs",
    "lu",
    "cv",
    "wb",
    "wt",
    "L1::no_allocate",
    "L1::evict_first",
    "L1::evict_last",
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::allocate",
    "L2::cache_hint",
    "L2::64B",
    "L2::128B",
    "L2::256B",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "global",
    "shared",
    "shared::cta",
    "shared::cluster",
    "local",
    "param",
    "param::entry",
    "param::func",
    "const",
    "v2",
    "v4",
    "v8",
    "async",
    "unified",
];

impl<'a> Decoder<'_, 'a> {
    pub(super) fn window(&self, op: &Opcode<'_>) -> Window {
        if op.any(&["global", "const"]) {
            Window::Global
        } else if op.any(&["shared", "shared::cta"]) {
            Window::Shared
        } else if op.has("shared::cluster") {
            Window::Cluster
        } else if op.has("local") {
            Window::Local
        } else {
            Window::Generic
        }
    }

    pub(super) fn hint(&mut self, op: &Opcode<'_>) -> Result<Inst, PtxError> {
        match op.base {
            "prefetch" | "prefetchu" => Ok(self.blank(Op::Nop)),
            _ => op.unknown(),
        }
    }

    pub(super) fn load_store(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        op.allow(HINTS)?;
        if op.has("async") {
            return op.unknown();
        }
        // A last operand may be a cache policy.
        self.count(op, o, 2..=3)?;
        let ty = op.ty()?;
        let is_load = op.base != "st";
        let (address, registers) = if is_load { (&o[1], &o[0]) } else { (&o[0], &o[1]) };
        let registers = Self::elements(registers);
        let vector = ["v2", "v4", "v8"].iter().position(|v| op.has(v)).map_or(1, |p| 2usize << p);
        if registers.len() != vector {
            return op.error(format!("{} registers", registers.len()));
        }
        let class = registers.iter().find_map(|r| match r {
            Operand::Register(r) => self.class_of(*r),
            _ => None,
        });
        let Some(class) = class.or(Class::of(ty)).filter(|c| *c != Class::Predicate) else {
            return op.unknown();
        };
        let mut slots = Vec::with_capacity(vector);
        for register in registers {
            slots.push(if is_load {
                self.target(op, register, class)?
            } else {
                self.source(op, register, class)?
            });
        }
        let mut access = Access {
            window: self.window(op),
            bytes: ty.bytes() as u8,
            count: vector as u8,
            signed: ty.is_signed(),
            wide: class == Class::Double,
            far: true,
            strong: op.any(&["volatile", "relaxed", "acquire", "release", "mmio"]),
        };
        if ty.bytes() > 8 || access.size() > 32 {
            return op.unknown();
        }
        let parameter = self.parameter(op, address);
        let mut i = self.blank(Op::Nop);
        (i.d, i.extra) = (slots[0], self.list(&slots));
        if let Some((space, offset)) = parameter {
            if space == Space::Param {
                if !is_load
                    || offset < 0
                    || offset as u64 + u64::from(access.size()) > self.kernel.parameter_bytes.into()
                {
                    return op.error("outside the kernel's parameters");
                }
                (i.op, i.offset) = (Op::LoadParam(access), offset as i32);
                return Ok(i);
            }
            access.window = Window::Local;
            i.a = self.double_constant(offset as u64);
        } else {
            if op.any(&["param", "param::entry"]) {
                access.window = Window::Generic;
            }
            let found = self.address(op, address)?;
            (i.a, i.offset, access.far) = (found.slot, found.offset, found.far);
        }
        i.op = if is_load { Op::Load(access) } else { Op::Store(access) };
        Ok(i)
    }

    /// Space and offset when the address is a variable of the `.param` space.
    fn parameter(&self, op: &Opcode<'_>, address: &Operand<'a>) -> Option<(Space, i64)> {
        let Operand::Address { base: Base::Variable(id), offset, .. } = address else {
            return None;
        };
        let (space, start) = self.layout.local[*id as usize];
        let is_param = op.any(&["param", "param::entry", "param::func"]);
        is_param.then_some((space, i64::from(start).saturating_add(*offset)))
    }

    pub(super) fn atomic(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&[
            "relaxed",
            "acquire",
            "release",
            "acq_rel",
            "cta",
            "gpu",
            "sys",
            "cluster",
            "global",
            "shared",
            "shared::cta",
            "shared::cluster",
            "add",
            "inc",
            "dec",
            "and",
            "or",
            "xor",
            "min",
            "max",
            "exch",
            "cas",
            "noftz",
            "ftz",
            "v2",
            "v4",
            "v8",
            "L2::cache_hint",
        ])?;
        let kinds = [
            ("add", AtomicKind::Add),
            ("inc", AtomicKind::Inc),
            ("dec", AtomicKind::Dec),
            ("and", AtomicKind::And),
            ("or", AtomicKind::Or),
            ("xor", AtomicKind::Xor),
            ("min", AtomicKind::Min),
            ("max", AtomicKind::Max),
            ("exch", AtomicKind::Exchange),
            ("cas", AtomicKind::CompareSwap),
        ];
        let Some((_, kind)) = kinds.into_iter().find(|(name, _)| op.has(name)) else {
            return op.unknown();
        };
        let (ty, returns) = (op.ty()?, op.base == "atom");
        let Some(class) = Class::of(ty).filter(|_| ty.bytes() >= 2) else { return op.unknown() };
        let count = ["v2", "v4", "v8"].iter().position(|v| op.has(v)).map_or(1, |p| 2u8 << p);
        if count > 1 && returns || op.has("cache_hint") {
            return op.unknown();
        }
        let o = if returns { o } else { &[&[Operand::Sink], o].concat()[..] };
        let operands = if kind == AtomicKind::CompareSwap { 4 } else { 3 };
        self.count(op, o, operands..=operands)?;
        let address = self.address(op, &o[1])?;
        let strong = op.has("acq_rel");
        let mut i = self.blank(Op::Atomic(Atomic {
            kind,
            ty,
            window: self.window(op),
            far: address.far,
            release: strong || op.has("release"),
            acquire: strong || op.has("acquire"),
            count,
        }));
        (i.a, i.offset) = (address.slot, address.offset);
        i.d = if returns { self.target(op, &o[0], class)? } else { SINK };
        let mut slots = Vec::new();
        for element in Self::elements(&o[2]) {
            slots.push(self.source(op, element, class)?);
        }
        if slots.len() != usize::from(count) {
            return op.error("another number of elements");
        }
        (i.b, i.extra) = (slots[0], self.list(&slots));
        if let Some(swap) = o.get(3) {
            i.c = self.source(op, swap, class)?;
        }
        Ok(i)
    }

    pub(super) fn fence(&mut self, op: &Opcode<'_>) -> Result<Inst, PtxError> {
        op.allow(&[
            "gl",
            "cta",
            "sys",
            "gpu",
            "cluster",
            "sc",
            "acq_rel",
            "acquire",
            "release",
            "proxy",
            "async",
            "async::generic",
            "alias",
            "global",
            "shared::cta",
            "shared::cluster",
            "async.global",
            "mbarrier_init",
            "tensormap::generic",
            "sync_restrict::shared::cta",
            "sync_restrict::shared::cluster",
        ])?;
        let proxy = op.has("proxy");
        let gpu = !op.any(&["cta"]) && !op.has("mbarrier_init");
        Ok(self.blank(if proxy { Op::ProxyFence } else { Op::Fence { gpu } }))
    }

    pub(super) fn matrix_move(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        op.allow(&["sync", "aligned", "m8n8", "x1", "x2", "x4", "trans", "shared", "shared::cta"])?;
        self.count(op, o, 2..=2)?;
        if op.ty()? != Type::B16 {
            return op.unknown();
        }
        let count = ["x1", "x2", "x4"].iter().position(|x| op.has(x)).map_or(0, |p| 1usize << p);
        let is_load = op.base == "ldmatrix";
        let (address, registers) = if is_load { (&o[1], &o[0]) } else { (&o[0], &o[1]) };
        let registers = Self::elements(registers);
        if registers.len() != count {
            return op.error(format!("{} registers", registers.len()));
        }
        let mut slots = Vec::with_capacity(count);
        for register in registers {
            slots.push(if is_load {
                self.target(op, register, Class::Word)?
            } else {
                self.source(op, register, Class::Word)?
            });
        }
        let found = self.address(op, address)?;
        let (count, transposed, far) = (count as u8, op.has("trans"), found.far);
        let mut i = self.blank(if is_load {
            Op::LdMatrix { count, transposed, far }
        } else {
            Op::StMatrix { count, transposed, far }
        });
        (i.a, i.offset) = (found.slot, found.offset);
        i.extra = self.list(&slots);
        Ok(i)
    }
}
