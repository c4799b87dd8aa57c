//! Gives virtual registers slots by the time they live: NVRTC numbers every value of a kernel once, and a
//! warp's file of thousands of rows would leave the caches.
//!
//! Liveness is that of whole warps: a write under a predicate or by some lanes does not end what was there.

use super::Body;
use super::flow::{Flow, base};
use crate::ptx::ast::{Base, Instruction, Operand, Type};

/// Kind of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Up to 32 bits a lane.
    Word,
    /// 64 bits a lane.
    Double,
    /// One bit a lane.
    Predicate,
}

impl Class {
    /// Class of registers of a type; none for 128 bits.
    pub(super) fn of(ty: Type) -> Option<Class> {
        match ty.bytes() {
            0 => Some(Class::Predicate),
            1..=4 => Some(Class::Word),
            8 => Some(Class::Double),
            _ => None,
        }
    }
}

/// Slot of each register, and how many slots each class needs.
pub(super) struct Slots {
    pub(super) slot: Vec<u32>,
    pub(super) used: [u32; 3],
}

/// Assigns slots; the first `reserved` of each class are kept free.
pub(super) fn assign(body: &Body<'_>, flow: &Flow, reserved: [u32; 3]) -> Slots {
    let intervals = intervals(body, flow);
    let mut order: Vec<u32> =
        (0..body.registers.len() as u32).filter(|r| intervals[*r as usize].is_some()).collect();
    order.sort_by_key(|r| (intervals[*r as usize].map(|(from, _)| from), *r));
    let mut slots = Slots { slot: vec![0; body.registers.len()], used: reserved };
    let mut free: [Vec<u32>; 3] = Default::default();
    let mut active = std::collections::BinaryHeap::new();
    for register in order {
        let Some((from, to)) = intervals[register as usize] else { continue };
        while let Some(&std::cmp::Reverse((end, class, slot))) = active.peek() {
            if end >= from {
                break;
            }
            active.pop();
            let class: usize = class;
            free[class].push(slot);
        }
        let class = Class::of(body.registers[register as usize]).unwrap_or(Class::Double) as usize;
        let slot = free[class].pop().unwrap_or_else(|| {
            slots.used[class] += 1;
            slots.used[class] - 1
        });
        slots.slot[register as usize] = slot;
        active.push(std::cmp::Reverse((to, class, slot)));
    }
    slots
}

/// First and last position at which each register is live or named.
fn intervals(body: &Body<'_>, flow: &Flow) -> Vec<Option<(u32, u32)>> {
    let live = Liveness::of(body, flow);
    let mut out: Vec<Option<(u32, u32)>> = vec![None; body.registers.len()];
    let mut extend = |register: u32, at: u32| {
        let slot = &mut out[register as usize];
        *slot = Some(slot.map_or((at, at), |(from, to)| (from.min(at), to.max(at))));
    };
    for (block, range) in flow.starts.windows(2).enumerate() {
        live.at_start(block).for_each(|r| extend(r, range[0]));
        live.at_end(block).for_each(|r| extend(r, range[1] - 1));
        for at in range[0]..range[1] {
            let i = &body.instructions[at as usize];
            for_each_register(i, &mut |r, _| extend(r, at));
            if base(i) == "wgmma" {
                live.accumulators.iter().for_each(|r| extend(*r, at));
            }
        }
    }
    out
}

/// Registers live at the borders of blocks, as bit sets.
struct Liveness {
    words: usize,
    entering: Vec<u64>,
    leaving: Vec<u64>,
    /// Written by the asynchronous matrix unit at a time that the text does not show.
    accumulators: Vec<u32>,
}

impl Liveness {
    fn of(body: &Body<'_>, flow: &Flow) -> Liveness {
        let words = body.registers.len().div_ceil(64);
        let blocks = flow.blocks();
        let size = words * blocks;
        let mut live = Liveness {
            words,
            entering: vec![0; size],
            leaving: vec![0; size],
            accumulators: accumulators(body),
        };
        let mut kills = vec![0u64; size];
        for (block, range) in flow.starts.windows(2).enumerate() {
            let row = block * words..(block + 1) * words;
            let (uses, defs) = (&mut live.entering[row.clone()], &mut kills[row]);
            for i in &body.instructions[range[0] as usize..range[1] as usize] {
                for_each_register(i, &mut |r, defines| {
                    let (word, bit) = (r as usize / 64, 1u64 << (r % 64));
                    if defines && i.guard.is_none() {
                        defs[word] |= bit & !uses[word];
                    } else if defs[word] & bit == 0 {
                        uses[word] |= bit;
                    }
                });
            }
        }
        live.solve(flow, &kills);
        live
    }

    fn solve(&mut self, flow: &Flow, kills: &[u64]) {
        let words = self.words;
        let mut changed = true;
        while changed {
            changed = false;
            for block in (0..flow.blocks()).rev() {
                for next in flow.successors[block].iter().map(|n| *n as usize) {
                    if next == flow.blocks() {
                        continue;
                    }
                    for word in 0..words {
                        let (from, to) = (next * words + word, block * words + word);
                        let incoming = self.entering[from] & !self.leaving[to];
                        if incoming != 0 {
                            self.leaving[to] |= incoming;
                            self.entering[to] |= incoming & !kills[to];
                            changed = true;
                        }
                    }
                }
            }
        }
    }

    fn at_start(&self, block: usize) -> impl Iterator<Item = u32> + '_ {
        bits(&self.entering[block * self.words..(block + 1) * self.words])
    }

    fn at_end(&self, block: usize) -> impl Iterator<Item = u32> + '_ {
        bits(&self.leaving[block * self.words..(block + 1) * self.words])
    }
}

fn bits(words: &[u64]) -> impl Iterator<Item = u32> + '_ {
    words.iter().enumerate().flat_map(|(at, word)| {
        let mut rest = *word;
        std::iter::from_fn(move || {
            let bit = rest.trailing_zeros();
            rest &= rest.wrapping_sub(1);
            (bit < 64).then_some(at as u32 * 64 + bit)
        })
    })
}

fn accumulators(body: &Body<'_>) -> Vec<u32> {
    let mut out = Vec::new();
    for i in body.instructions.iter().filter(|i| i.opcode.starts_with("wgmma.mma_async")) {
        let mut add = |r: u32, _: bool| out.push(r);
        i.operands.first().into_iter().for_each(|o| registers(o, false, &mut add));
        // Operand A in registers is read asynchronously too.
        i.operands.get(1).into_iter().for_each(|o| registers(o, false, &mut add));
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Calls `f` with each register of an instruction, uses first, and whether the instruction replaces its value
/// in all active lanes.
fn for_each_register(i: &Instruction<'_>, f: &mut impl FnMut(u32, bool)) {
    if let Some((register, _)) = i.guard {
        f(register, false);
    }
    let results = results(i);
    for operand in &i.operands[results..] {
        registers(operand, false, f);
    }
    for operand in &i.operands[..results] {
        registers(operand, true, f);
    }
}

/// How many leading operands an instruction writes.
fn results(i: &Instruction<'_>) -> usize {
    let writes = match base(i) {
        "st" | "red" | "bra" | "brx" | "ret" | "exit" | "trap" | "bar" | "barrier" | "membar"
        | "fence" | "prefetch" | "prefetchu" | "cp" | "stmatrix" | "wgmma" | "setmaxnreg"
        | "griddepcontrol" | "nanosleep" | "discard" | "tensormap" | "multimem" => {
            i.opcode.starts_with("bar.red") || i.opcode.starts_with("barrier.red")
        }
        "mbarrier" => ["arrive", "test", "try", "pending"]
            .iter()
            .any(|w| i.opcode.split('.').any(|part| part.starts_with(w))),
        _ => true,
    };
    usize::from(writes && !matches!(i.operands.first(), Some(Operand::Address { .. })))
        .min(i.operands.len())
}

fn registers(operand: &Operand<'_>, defines: bool, f: &mut impl FnMut(u32, bool)) {
    match operand {
        Operand::Register(r) => f(*r, defines),
        Operand::Address { base, rest, .. } => {
            if let Base::Register(r) = base {
                f(*r, false);
            }
            rest.iter().for_each(|o| registers(o, false, f));
        }
        Operand::Vector(list) | Operand::List(list) => {
            list.iter().for_each(|o| registers(o, defines, f));
        }
        Operand::Pair(pair) => {
            registers(&pair.0, defines, f);
            registers(&pair.1, defines, f);
        }
        Operand::Not(inner) => registers(inner, false, f),
        _ => {}
    }
}
