//! Instructions that a warp or a block executes together, and the matrix instructions.

use super::Decoder;
use super::inst::{Inst, Mma, NONE, Op, Reduction, SINK, Shuffle, Vote, Wgmma};
use super::opcode::Opcode;
use super::registers::Class;
use crate::error::PtxError;
use crate::ptx::ast::{Operand, Type};

impl<'a> Decoder<'_, 'a> {
    pub(super) fn warp(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        match op.base {
            "shfl" => self.shuffle(op, o),
            "vote" => self.vote(op, o),
            "match" => self.matching(op, o),
            "redux" => self.redux(op, o),
            "elect" => self.elect(op, o),
            _ => {
                self.count(op, o, 1..=1)?;
                let mut i = self.blank(Op::ActiveMask);
                i.d = self.target(op, &o[0], Class::Word)?;
                Ok(i)
            }
        }
    }

    /// `a|p` of a result with a predicate.
    fn pair<'o>(operand: &'o Operand<'a>) -> (&'o Operand<'a>, &'o Operand<'a>) {
        match operand {
            Operand::Pair(pair) => (&pair.0, &pair.1),
            single => (single, &Operand::Sink),
        }
    }

    fn shuffle(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&["sync", "up", "down", "bfly", "idx"])?;
        self.count(op, o, 5..=5)?;
        let kind = if op.has("up") {
            Shuffle::Up
        } else if op.has("down") {
            Shuffle::Down
        } else if op.has("bfly") {
            Shuffle::Butterfly
        } else {
            Shuffle::Index
        };
        let mut i = self.blank(Op::Shuffle(kind));
        let (value, valid) = Self::pair(&o[0]);
        i.d = self.target(op, value, Class::Word)?;
        i.offset = self.target(op, valid, Class::Predicate)? as i32;
        i.a = self.source(op, &o[1], Class::Word)?;
        i.b = self.source(op, &o[2], Class::Word)?;
        i.c = self.source(op, &o[3], Class::Word)?;
        i.extra = self.source(op, &o[4], Class::Word)?;
        Ok(i)
    }

    fn vote(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&["sync", "all", "any", "uni", "ballot"])?;
        self.count(op, o, 3..=3)?;
        let kind = if op.has("all") {
            Vote::All
        } else if op.has("any") {
            Vote::Any
        } else if op.has("uni") {
            Vote::Uniform
        } else {
            Vote::Ballot
        };
        let mut i = self.blank(Op::Vote(kind));
        let class = if kind == Vote::Ballot { Class::Word } else { Class::Predicate };
        i.d = self.target(op, &o[0], class)?;
        // A constant predicate compares with itself: negation says which value it is.
        let (a, negated) = self.predicate(op, &o[1])?;
        (i.a, i.b) = (a, u32::from(negated));
        if let Operand::Integer(value) = o[1] {
            (i.a, i.b) = (NONE, u32::from(value != 0));
        }
        i.c = self.source(op, &o[2], Class::Word)?;
        Ok(i)
    }

    fn matching(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&["sync", "any", "all"])?;
        self.count(op, o, 3..=3)?;
        let wide = op.ty()?.bytes() == 8;
        let mut i = self.blank(Op::Match { all: op.has("all"), wide });
        let (mask, agrees) = Self::pair(&o[0]);
        i.d = self.target(op, mask, Class::Word)?;
        i.offset = self.target(op, agrees, Class::Predicate)? as i32;
        i.a = self.source(op, &o[1], if wide { Class::Double } else { Class::Word })?;
        i.c = self.source(op, &o[2], Class::Word)?;
        Ok(i)
    }

    fn redux(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&["sync", "add", "min", "max", "and", "or", "xor"])?;
        self.count(op, o, 3..=3)?;
        let signed = op.ty()?.is_signed();
        let kinds = [
            ("add", Reduction::Add),
            ("min", if signed { Reduction::MinS } else { Reduction::MinU }),
            ("max", if signed { Reduction::MaxS } else { Reduction::MaxU }),
            ("and", Reduction::And),
            ("or", Reduction::Or),
            ("xor", Reduction::Xor),
        ];
        let found = kinds.into_iter().find(|(name, _)| op.has(name));
        let (Some((_, kind)), Type::U32 | Type::S32 | Type::B32) = (found, op.ty()?) else {
            return op.unknown();
        };
        let mut i = self.blank(Op::Redux(kind));
        i.d = self.target(op, &o[0], Class::Word)?;
        i.a = self.source(op, &o[1], Class::Word)?;
        i.c = self.source(op, &o[2], Class::Word)?;
        Ok(i)
    }

    fn elect(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&["sync"])?;
        self.count(op, o, 2..=2)?;
        let mut i = self.blank(Op::Elect);
        let (lane, elected) = Self::pair(&o[0]);
        i.d = self.target(op, lane, Class::Word)?;
        i.offset = self.target(op, elected, Class::Predicate)? as i32;
        i.c = self.source(op, &o[1], Class::Word)?;
        Ok(i)
    }

    pub(super) fn barrier(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&[
            "sync", "arrive", "red", "cta", "aligned", "popc", "and", "or", "warp", "cluster",
            "wait", "release", "acquire", "relaxed",
        ])?;
        if op.has("warp") {
            self.count(op, o, 1..=1)?;
            let mut i = self.blank(Op::WarpSync);
            i.c = self.source(op, &o[0], Class::Word)?;
            return Ok(i);
        }
        if op.has("cluster") {
            let arrive = Op::ClusterArrive { release: !op.has("relaxed") };
            return Ok(self.blank(if op.has("wait") { Op::ClusterWait } else { arrive }));
        }
        if op.has("red") {
            return self.barrier_reduction(op, o);
        }
        self.count(op, o, 1..=2)?;
        let aligned = op.base == "bar" || op.has("aligned");
        let mut i = self.blank(Op::Barrier { waits: !op.has("arrive"), reduction: None, aligned });
        i.a = self.source(op, &o[0], Class::Word)?;
        i.b = match o.get(1) {
            Some(count) => self.source(op, count, Class::Word)?,
            None => NONE,
        };
        Ok(i)
    }

    fn barrier_reduction(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        self.count(op, o, 3..=4)?;
        let reduction = match (op.has("popc"), op.has("and")) {
            (true, _) => Vote::Ballot,
            (_, true) => Vote::All,
            _ => Vote::Any,
        };
        let aligned = op.base == "bar" || op.has("aligned");
        let mut i = self.blank(Op::Barrier { waits: true, reduction: Some(reduction), aligned });
        let class = if reduction == Vote::Ballot { Class::Word } else { Class::Predicate };
        i.d = self.target(op, &o[0], class)?;
        i.a = self.source(op, &o[1], Class::Word)?;
        i.b = if o.len() == 4 { self.source(op, &o[2], Class::Word)? } else { NONE };
        let (c, negated) = self.predicate(op, &o[o.len() - 1])?;
        (i.c, i.offset) = (c, i32::from(negated));
        Ok(i)
    }

    fn fragment(
        &mut self,
        op: &Opcode<'_>,
        operand: &Operand<'a>,
        count: usize,
        (class, is_target): (Class, bool),
        slots: &mut Vec<u32>,
    ) -> Result<(), PtxError> {
        let registers = Self::elements(operand);
        if registers.len() != count {
            return op.error(format!("a fragment of {} registers, not {count}", registers.len()));
        }
        for register in registers {
            slots.push(if is_target {
                self.target(op, register, class)?
            } else {
                self.source(op, register, class)?
            });
        }
        Ok(())
    }

    pub(super) fn mma(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        op.allow(&[
            "sync",
            "aligned",
            "m16n8k8",
            "m16n8k4",
            "m16n8k16",
            "m16n8k32",
            "row",
            "col",
            "satfinite",
        ])?;
        self.count(op, o, 4..=4)?;
        let [d, a, b, c] = op.types()[..] else { return op.error("four types are expected") };
        let k: u8 = op.after("m16n8k").and_then(|k| k.parse().ok()).unwrap_or(0);
        if !op.text.contains(".row.col.") || c != d || !is_product(a, b, d, k) {
            return op.unknown();
        }
        let class = if d == Type::F64 { Class::Double } else { Class::Word };
        let unit = if d == Type::F64 { 8 } else { 4 };
        let count =
            |rows: u32, columns: u32, ty: Type| (rows * columns * ty.bytes() / 32 / unit) as usize;
        let accumulators = if d == Type::F16 { 2 } else { 4 };
        let mut slots = Vec::new();
        self.fragment(op, &o[0], accumulators, (class, true), &mut slots)?;
        self.fragment(op, &o[1], count(16, k.into(), element(a)), (class, false), &mut slots)?;
        self.fragment(op, &o[2], count(k.into(), 8, element(b)), (class, false), &mut slots)?;
        self.fragment(op, &o[3], accumulators, (class, false), &mut slots)?;
        let mut i = self.blank(Op::Mma(Mma { k, a, b, d, saturates: op.has("satfinite") }));
        i.extra = self.list(&slots);
        Ok(i)
    }

    pub(super) fn wgmma(&mut self, op: &Opcode<'_>, o: &[Operand<'a>]) -> Result<Inst, PtxError> {
        if op.has("fence") {
            return Ok(self.blank(Op::WgmmaFence));
        }
        if op.has("commit_group") {
            return Ok(self.blank(Op::WgmmaCommit));
        }
        if op.has("wait_group") {
            self.count(op, o, 1..=1)?;
            let mut i = self.blank(Op::WgmmaWait);
            i.a = self.source(op, &o[0], Class::Word)?;
            return Ok(i);
        }
        let [d, a, b] = op.types()[..] else { return op.error("three types are expected") };
        let n =
            op.after("m64n").and_then(|s| s.split_once('k')?.0.parse::<u16>().ok()).unwrap_or(0);
        let k =
            op.after("m64n").and_then(|s| s.split_once('k')?.1.parse::<u32>().ok()).unwrap_or(0);
        let half = matches!(a, Type::F16 | Type::Bf16);
        let known = n.is_multiple_of(8)
            && (8..=256).contains(&n)
            && is_product(a, b, d, 0)
            && k * element(a).bytes() == 32
            && d != Type::F64;
        if !known || !op.has("mma_async") || op.has("sp") {
            return op.unknown();
        }
        self.count(op, o, 4..=8)?;
        let registers = usize::from(n) / if d == Type::F16 { 4 } else { 2 };
        let mut slots = Vec::new();
        self.fragment(op, &o[0], registers, (Class::Word, true), &mut slots)?;
        let a_in_registers = matches!(o[1], Operand::Vector(_));
        let (mut da, db) = (0, self.source(op, &o[2], Class::Double)?);
        if a_in_registers {
            self.fragment(op, &o[1], 4, (Class::Word, false), &mut slots)?;
        } else {
            da = self.source(op, &o[1], Class::Double)?;
        }
        let mut numbers = [1, 1, 0, 0];
        let expected = match (half, a_in_registers, d) {
            (_, _, Type::S32) => 0,
            (true, true, _) => 3,
            (true, false, _) => 4,
            _ => 2,
        };
        if o.len() != 4 + expected {
            return op.error(format!("{} operands", o.len()));
        }
        for (at, operand) in o[4..].iter().enumerate() {
            let Operand::Integer(value) = operand else { return op.error("a number is expected") };
            // Operand A in registers has no transposition, so B's comes in its place.
            let place = if at == 2 && a_in_registers { 3 } else { at };
            numbers[place] = *value as i64;
        }
        let mut i = self.blank(Op::Wgmma(Wgmma {
            n,
            a,
            b,
            d,
            a_in_registers,
            a_transposed: numbers[2] != 0,
            b_transposed: numbers[3] != 0,
            negate: (numbers[0] < 0, numbers[1] < 0),
        }));
        match &o[3] {
            Operand::Integer(scale) => (i.c, i.offset) = (SINK, if *scale != 0 { 1 } else { 2 }),
            predicate => i.c = self.source(op, predicate, Class::Predicate)?,
        }
        (i.a, i.b, i.extra) = (da, db, self.list(&slots));
        Ok(i)
    }
}

/// The type whose size elements of a matrix have.
fn element(ty: Type) -> Type {
    if ty == Type::Tf32 { Type::F32 } else { ty }
}

/// Element types that the matrix units multiply; `k` of an `mma.sync`, or 0.
fn is_product(a: Type, b: Type, d: Type, k: u8) -> bool {
    let byte_int = |t: Type| matches!(t, Type::U8 | Type::S8);
    let byte_float = |t: Type| matches!(t, Type::E4m3 | Type::E5m2);
    match (a, b, d) {
        (Type::F16, Type::F16, Type::F32 | Type::F16) | (Type::Bf16, Type::Bf16, Type::F32) => {
            matches!(k, 0 | 8 | 16)
        }
        (Type::Tf32, Type::Tf32, Type::F32) => matches!(k, 0 | 4 | 8),
        (Type::F64, Type::F64, Type::F64) => matches!(k, 4 | 8 | 16),
        (x, y, Type::S32) if byte_int(x) && byte_int(y) => matches!(k, 0 | 16 | 32),
        (x, y, Type::F32 | Type::F16) if byte_float(x) && byte_float(y) => matches!(k, 0 | 16 | 32),
        _ => false,
    }
}
