//! From the tree to instructions over slots: calls inlined, registers assigned, labels resolved, the place
//! where diverged lanes meet again known for each branch.
//!
//! An instruction that is not executed is an error here, with its line, before anything runs.

mod arithmetic;
mod asynchronous;
mod collective;
mod comparison;
mod conversion;
mod flow;
mod inline;
pub(crate) mod inst;
pub(crate) mod kernel;
mod memory;
mod moves;
mod opcode;
pub(crate) mod operands;
mod registers;

use flow::Flow;
use inst::{Inst, NONE, Op, SINK};
use kernel::{Constant, Kernel, Layout};
use opcode::Opcode;
use rustc_hash::FxHashMap;

use crate::error::PtxError;
use crate::ptx::ast::{Function, Instruction, Label, Module, Type, Variable};

pub(crate) use kernel::decode_module;

/// A kernel's instructions with calls inlined.
#[derive(Default)]
pub(crate) struct Body<'a> {
    instructions: Vec<Instruction<'a>>,
    label_at: Vec<u32>,
    targets: Vec<Vec<Label>>,
    registers: Vec<Type>,
    variables: Vec<Variable<'a>>,
}

/// Decodes one kernel.
fn decode<'a>(
    module: &Module<'a>,
    entry: &Function<'a>,
    names: &FxHashMap<&str, u32>,
    shared: &Layout<'a>,
) -> Result<Kernel, PtxError> {
    let body = inline::inline(entry, &module.functions)?;
    let flow = Flow::of(&body)?;
    let meets = flow.post_dominators();
    let slots = registers::assign(&body, &flow, [SINK + 1; 3]);
    let (layout, kernel) = kernel::prepare(entry, &body, shared)?;
    let mut decoder = Decoder {
        body: &body,
        names,
        layout,
        slots: slots.slot,
        used: slots.used,
        words: FxHashMap::default(),
        doubles: FxHashMap::default(),
        carry: None,
        kernel,
        guard: NONE,
    };
    for (at, i) in body.instructions.iter().enumerate() {
        let block = flow.block_of[at] as usize;
        let meeting = flow.starts[(meets[block] as usize).min(flow.starts.len() - 1)];
        let inst = decoder.instruction(i, meeting)?;
        decoder.kernel.code.push(inst);
        decoder.kernel.lines.push(i.line);
        decoder.kernel.places.push(i.place);
    }
    decoder.finish()
}

/// State of decoding one kernel.
struct Decoder<'b, 'a> {
    body: &'b Body<'a>,
    /// Index of each module variable.
    names: &'b FxHashMap<&'b str, u32>,
    layout: Layout<'a>,
    slots: Vec<u32>,
    used: [u32; 3],
    words: FxHashMap<Constant, u32>,
    doubles: FxHashMap<Constant, u32>,
    /// Predicate slot of the carry flag.
    carry: Option<u32>,
    kernel: Kernel,
    guard: u32,
}

impl<'a> Decoder<'_, 'a> {
    /// An instruction with all fields unused.
    fn blank(&self, op: Op) -> Inst {
        Inst { op, guard: self.guard, d: SINK, a: 0, b: 0, c: 0, extra: 0, offset: 0 }
    }

    /// Keeps a list of slots; returns where it starts.
    fn list(&mut self, slots: &[u32]) -> u32 {
        self.kernel.lists.extend_from_slice(slots);
        (self.kernel.lists.len() - slots.len()) as u32
    }

    fn instruction(&mut self, i: &Instruction<'a>, meeting: u32) -> Result<Inst, PtxError> {
        let op = Opcode::new(i.opcode, i.line);
        self.guard = match i.guard {
            Some((register, negated)) => self.slots[register as usize] << 1 | u32::from(negated),
            None => NONE,
        };
        let o = i.operands.as_slice();
        match op.base {
            "bra" | "brx" | "ret" | "exit" | "trap" | "brkpt" => self.flow(&op, i, meeting),
            "mov" => self.mov(&op, o),
            "cvta" | "isspacep" | "mapa" | "getctarank" => self.address_conversion(&op, o),
            "setp" | "testp" | "set" => self.comparison(&op, o),
            "cvt" => self.conversion(&op, o),
            "ld" | "ldu" | "st" => self.load_store(&op, o),
            "atom" | "red" => self.atomic(&op, o),
            "prefetch" | "prefetchu" | "discard" | "applypriority" => self.hint(&op),
            "shfl" | "vote" | "match" | "redux" | "elect" | "activemask" => self.warp(&op, o),
            "bar" | "barrier" => self.barrier(&op, o),
            "membar" | "fence" => self.fence(&op),
            "ldmatrix" | "stmatrix" => self.matrix_move(&op, o),
            "mma" => self.mma(&op, o),
            "wgmma" => self.wgmma(&op, o),
            "cp" => self.copy(&op, o),
            "mbarrier" => self.mbarrier(&op, o),
            "setmaxnreg" | "griddepcontrol" | "nanosleep" | "createpolicy" => self.control(&op, o),
            _ => self.arithmetic(&op, o),
        }
    }

    fn finish(mut self) -> Result<Kernel, PtxError> {
        let end = self.kernel.code.len();
        if end == 0 || !matches!(self.kernel.code[end - 1].op, Op::Exit) {
            // A text may end without `ret`; running off its end leaves the kernel too.
            self.guard = NONE;
            let exit = self.blank(Op::Exit);
            self.kernel.code.push(exit);
            self.kernel.lines.push(self.kernel.lines.last().copied().unwrap_or(self.kernel.line));
            self.kernel.places.push(None);
        }
        self.kernel.slots = self.used;
        self.kernel.granule = kernel::granule(&self.kernel.code);
        self.kernel.stored = kernel::stored(&self.kernel.code);
        self.kernel.fine_order = kernel::fine_order(&self.kernel.code);
        Ok(self.kernel)
    }
}
