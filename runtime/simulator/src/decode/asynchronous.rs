//! Asynchronous copies, mbarriers and the controls of sm_90.

use super::Decoder;
use super::inst::{AtomicKind, Bulk, Inst, Mbarrier, NONE, Op, SINK};
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::ptx::ast::Operand;

impl<'a> Decoder<'_, 'a> {
    pub(super) fn control(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        match op.base {
            "setmaxnreg" => {
                op.allow(&["inc", "dec", "sync", "aligned"])?;
                let mut i = self.blank(Op::SetMaxRegisters { increase: op.has("inc") });
                let Some(Operand::Integer(count)) = o.first() else { return op.unknown() };
                i.extra = *count as u32;
                Ok(i)
            }
            // Launches run one after another, so that what they wait for has ended.
            "griddepcontrol" => Ok(self.blank(Op::Nop)),
            "nanosleep" => Ok(self.blank(Op::Sleep)),
            _ => {
                let mut i = self.blank(Op::Clock { wide: true });
                i.d = self.target(op, o.first().unwrap_or(&Operand::Sink), Class::Double)?;
                Ok(i)
            }
        }
    }

    /// `cp.async` and all of `cp.async.bulk`.
    pub(super) fn copy(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        if !op.has("async") && !op.has("reduce") {
            return op.unknown();
        }
        if op.has("bulk") {
            return self.bulk(op, o);
        }
        if op.has("mbarrier") {
            return self.copy_arrive(op, o);
        }
        if op.has("commit_group") {
            return Ok(self.blank(Op::CpAsyncCommit));
        }
        if op.has("wait_all") {
            return Ok(self.blank(Op::CpAsyncWaitAll));
        }
        if op.has("wait_group") {
            self.count(op, o, 1..=1)?;
            let mut i = self.blank(Op::CpAsyncWait);
            i.a = self.source(op, &o[0], Class::Word)?;
            return Ok(i);
        }
        self.element_copy(op, o)
    }

    /// `cp.async.ca.shared.global [d], [a], bytes, present;`
    fn element_copy(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&[
            "async",
            "ca",
            "cg",
            "shared",
            "shared::cta",
            "global",
            "L2::64B",
            "L2::128B",
            "L2::256B",
            "L2::cache_hint",
        ])?;
        self.count(op, o, 3..=5)?;
        let Operand::Integer(bytes @ (4 | 8 | 16)) = o[2] else {
            return op.error("copies have 4, 8 or 16 bytes");
        };
        if op.has("cg") && bytes != 16 {
            return op.error("`.cg` copies 16 bytes");
        }
        let (to, from) = (self.address(op, &o[0])?, self.address(op, &o[1])?);
        let mut i = self.blank(Op::CpAsync { bytes: bytes as u8, far: to.far });
        let present = match o.get(3) {
            Some(operand)
                if self.class_or(operand, crate::ptx::ast::Type::U32) == Some(Class::Word) =>
            {
                self.source(op, operand, Class::Word)?
            }
            Some(_) => return op.error("a cache policy or `ignore-src` is not executed here"),
            None => self.word_constant(bytes as u32),
        };
        (i.d, i.a, i.b, i.offset) = (to.slot, from.slot, present, to.offset);
        i.extra = from.offset as u32;
        if !from.far {
            return op.error("the source needs a 64-bit address");
        }
        Ok(i)
    }

    fn copy_arrive(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&["async", "mbarrier", "arrive", "noinc", "shared", "shared::cta"])?;
        self.count(op, o, 1..=1)?;
        let address = self.address(op, &o[0])?;
        let mut i = self.blank(Op::CpAsyncArrive { counted: op.has("noinc") });
        (i.a, i.offset, i.b) = (address.slot, address.offset, u32::from(address.far));
        Ok(i)
    }

    pub(super) fn mbarrier(
        &mut self,
        op: &Opcode<'_>,
        o: &[Operand<'a>],
    ) -> Result<Inst, PtxError> {
        op.allow(&[
            "init",
            "inval",
            "arrive",
            "arrive_drop",
            "expect_tx",
            "complete_tx",
            "test_wait",
            "try_wait",
            "parity",
            "pending_count",
            "shared",
            "shared::cta",
            "shared::cluster",
            "release",
            "acquire",
            "relaxed",
            "cta",
            "cluster",
            "noComplete",
        ])?;
        let window = self.window(op);
        let make = |kind| Op::Mbarrier { kind, window };
        let parity = op.has("parity");
        if op.has("pending_count") {
            self.count(op, o, 2..=2)?;
            let mut i = self.blank(make(Mbarrier::PendingCount));
            i.d = self.target(op, &o[0], Class::Word)?;
            i.b = self.source(op, &o[1], Class::Double)?;
            return Ok(i);
        }
        let waits = op.any(&["test_wait", "try_wait"]);
        let arrives = op.any(&["arrive", "arrive_drop"]);
        let (result, o) = match o.split_first() {
            Some((first, rest))
                if (waits || arrives) && !matches!(first, Operand::Address { .. }) =>
            {
                (first, rest)
            }
            _ => (&Operand::Sink, o),
        };
        let Some(address) = o.first() else { return op.error("an address is missing") };
        let address = self.address(op, address)?;
        let kind = if op.has("init") {
            Mbarrier::Init
        } else if op.has("inval") {
            Mbarrier::Inval
        } else if waits {
            Mbarrier::Wait { parity, blocks: op.has("try_wait") }
        } else if arrives {
            Mbarrier::Arrive { drop: op.has("arrive_drop") }
        } else if op.has("expect_tx") {
            Mbarrier::ExpectTx
        } else {
            Mbarrier::CompleteTx
        };
        let mut i = self.blank(make(kind));
        (i.a, i.offset, i.extra) = (address.slot, address.offset, u32::from(address.far));
        (i.b, i.c) = (NONE, NONE);
        let argument = o.get(1);
        match kind {
            Mbarrier::Wait { .. } => {
                i.d = self.target(op, result, Class::Predicate)?;
                let class = if parity { Class::Word } else { Class::Double };
                let Some(argument) = argument else { return op.error("a phase is missing") };
                i.b = self.source(op, argument, class)?;
            }
            Mbarrier::Arrive { .. } => {
                i.d = self.target(op, result, Class::Double)?;
                if let Some(argument) = argument {
                    let slot = self.source(op, argument, Class::Word)?;
                    *(if op.has("expect_tx") { &mut i.c } else { &mut i.b }) = slot;
                }
            }
            Mbarrier::Init | Mbarrier::ExpectTx | Mbarrier::CompleteTx => {
                let Some(argument) = argument else { return op.error("a count is missing") };
                i.b = self.source(op, argument, Class::Word)?;
            }
            _ => {}
        }
        Ok(i)
    }

    fn bulk(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        if op.has("commit_group") {
            return Ok(self.blank(Op::Bulk(Bulk::Commit)));
        }
        if op.has("wait_group") {
            self.count(op, o, 1..=1)?;
            let mut i = self.blank(Op::Bulk(Bulk::Wait { read: op.has("read") }));
            i.a = self.source(op, &o[0], Class::Word)?;
            return Ok(i);
        }
        if op.has("prefetch") {
            return Ok(self.blank(Op::Bulk(Bulk::PrefetchTensor)));
        }
        op.allow(&[
            "async",
            "bulk",
            "tensor",
            "1d",
            "2d",
            "3d",
            "4d",
            "5d",
            "shared::cluster",
            "shared::cta",
            "global",
            "mbarrier::complete_tx::bytes",
            "bulk_group",
            "tile",
            "im2col",
            "multicast::cluster",
            "L2::cache_hint",
            "reduce",
            "add",
            "min",
            "max",
        ])?;
        if op.has("tensor") { self.tensor_copy(op, o) } else { self.plain_bulk(op, o) }
    }

    fn plain_bulk(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        if op.has("reduce") {
            return op.unknown();
        }
        let loads = op.has("mbarrier::complete_tx::bytes");
        self.count(op, o, if loads { 4..=6 } else { 3..=4 })?;
        let (to, from) = (self.address(op, &o[0])?, self.address(op, &o[1])?);
        let multicast = op.has("multicast::cluster");
        let kind = match (loads, op.has("global")) {
            (true, true) => Bulk::Load { multicast },
            (true, false) => Bulk::ToCluster,
            _ => Bulk::Store,
        };
        if to.offset != 0 || from.offset != 0 {
            return op.error("an offset in the address is not executed");
        }
        let mut i = self.blank(Op::Bulk(kind));
        (i.d, i.a) = (to.slot, from.slot);
        i.b = self.source(op, &o[2], Class::Word)?;
        // Which addresses have 64 bits: destination, source, mbarrier.
        i.offset = i32::from(to.far) | i32::from(from.far) << 1;
        if loads {
            let bar = self.address(op, &o[3])?;
            i.c = bar.slot;
            i.offset |= i32::from(bar.far) << 2;
        }
        i.extra = match o.get(4).filter(|_| multicast) {
            Some(mask) => self.source(op, mask, Class::Word)?,
            None => SINK,
        };
        Ok(i)
    }

    fn tensor_copy(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        let rank =
            ["1d", "2d", "3d", "4d", "5d"].iter().position(|d| op.has(d)).map_or(0, |p| p + 1);
        let (im2col, multicast) = (op.has("im2col"), op.has("multicast::cluster"));
        let loads = op.has("mbarrier::complete_tx::bytes");
        let tensor = if loads { o.get(1) } else { o.first() };
        let Some(Operand::Address { rest, .. }) = tensor else { return op.unknown() };
        let [Operand::Vector(coordinates)] = &rest[..] else {
            return op.error("coordinates are missing");
        };
        if coordinates.len() != rank || rank == 0 {
            return op.error(format!("{} coordinates", coordinates.len()));
        }
        let mut slots = Vec::new();
        for coordinate in coordinates {
            slots.push(self.source(op, coordinate, Class::Word)?);
        }
        let map = self.address(op, tensor.unwrap_or(&Operand::Sink))?;
        let mut i = self.blank(Op::Nop);
        if loads {
            self.count(op, o, 3..=6)?;
            let (to, bar) = (self.address(op, &o[0])?, self.address(op, &o[2])?);
            let mut rest = o[3..].iter();
            if im2col {
                let Some(Operand::Vector(offsets)) = rest.next() else {
                    return op.error("im2col offsets are missing");
                };
                if offsets.len() + 2 != rank {
                    return op.error(format!("{} im2col offsets", offsets.len()));
                }
                for offset in offsets {
                    slots.push(self.source(op, offset, Class::Word)?);
                }
            }
            if let Some(mask) = rest.next().filter(|_| multicast) {
                slots.push(self.source(op, mask, Class::Word)?);
            }
            if to.offset != 0 || bar.offset != 0 || map.offset != 0 {
                return op.error("an offset in the address is not executed");
            }
            i.op = Op::Bulk(Bulk::TensorLoad { rank: rank as u8, im2col, multicast });
            (i.d, i.a, i.c) = (to.slot, map.slot, bar.slot);
            i.offset = i32::from(to.far) | i32::from(map.far) << 1 | i32::from(bar.far) << 2;
        } else {
            self.count(op, o, 2..=3)?;
            let from = self.address(op, &o[1])?;
            let reduction = match (op.has("reduce"), op.has("add")) {
                (false, _) => None,
                (true, true) => Some(AtomicKind::Add),
                _ => return op.unknown(),
            };
            if from.offset != 0 || map.offset != 0 {
                return op.error("an offset in the address is not executed");
            }
            i.op = Op::Bulk(Bulk::TensorStore { rank: rank as u8, im2col, reduction });
            (i.d, i.a) = (map.slot, from.slot);
            i.offset = i32::from(map.far) | i32::from(from.far) << 1;
        }
        i.extra = self.list(&slots);
        Ok(i)
    }
}
