//! Runs a warp for a while: register instructions in tight loops, everything else one at a time.

use super::access::Transfer;
use super::address::{first, for_lanes};
use super::isa::{self, Span, guarded};
use super::lanes::LANES;
use super::state::Worker;
use super::warp::{Fragment, Wait, Warp};
use crate::check::FindingKind;
use crate::decode::inst::{Combine, Inst, Op, Window};

/// What an instruction does to its fragment.
pub(crate) enum Flow {
    Next,
    /// Its lanes were parted or have left: fragments changed.
    Changed,
    /// Stays at this instruction until a condition holds.
    Wait(Wait),
    /// Goes on, but others may run first.
    Yield,
    /// The gang cannot go on.
    Stop,
}

/// Where an instruction is executed: fragment, position, active lanes.
#[derive(Clone, Copy)]
pub(crate) struct Here {
    pub(crate) fragment: usize,
    pub(crate) pc: u32,
    pub(crate) active: u32,
}

impl Worker<'_> {
    /// Runs a warp for at most `budget` instructions; whether it did anything.
    pub(crate) fn run_warp(&mut self, warp: &mut Warp, budget: u32) -> bool {
        let mut left = budget;
        while left > 0 && !self.stopped && !warp.is_done() {
            let Some(at) = self.ready_fragment(warp) else { break };
            if !self.run_fragment(warp, at, &mut left) {
                break;
            }
        }
        let used = u64::from(budget - left);
        warp.steps += used;
        self.steps += used;
        if self.steps > self.machine.options.step_limit && !self.stopped {
            self.report_step_limit(warp);
        }
        used > 0
    }

    fn report_step_limit(&mut self, warp: &Warp) {
        self.stopped = true;
        let Some(fragment) = warp.fragments.first() else { return };
        let limit = self.machine.options.step_limit;
        let pc = fragment.pc.min(self.machine.kernel.code.len() as u32 - 1);
        self.report((warp, first(fragment.mask) as u32, pc), FindingKind::StepLimit, None, || {
            format!(
                "stopped after {limit} warp instructions of one group of blocks: an endless loop?"
            )
        });
    }

    /// A fragment that can go on: the last that waits for nothing, or one whose wait is over.
    fn ready_fragment(&mut self, warp: &mut Warp) -> Option<usize> {
        for at in (0..warp.fragments.len()).rev() {
            let wait = warp.fragments[at].wait;
            if wait == Wait::None {
                return Some(at);
            }
            if self.is_over(warp, wait) {
                warp.fragments[at].wait = Wait::None;
                self.finish_wait(warp, at, wait);
                return Some(at);
            }
        }
        self.gather_lanes(warp)
    }

    /// Runs one fragment until it changes, waits or yields; whether the warp may go on at once.
    fn run_fragment(&mut self, warp: &mut Warp, at: usize, left: &mut u32) -> bool {
        let kernel = self.machine.kernel;
        let Fragment { mut pc, mask, meet, .. } = warp.fragments[at];
        let partial = mask != warp.live;
        while *left > 0 {
            let span = Span { pc, meet, mask, partial, budget: *left };
            let (next, rest) =
                isa::run(self.machine.level, &kernel.code, &mut warp.file, &mut self.counts, span);
            (pc, *left) = (next, rest);
            warp.fragments[at].pc = pc;
            if pc == meet {
                warp.arrive(at);
                return true;
            }
            if *left == 0 {
                return true;
            }
            let inst = &kernel.code[pc as usize];
            let active = guarded(&warp.file, inst.guard, mask);
            let flow = if active == 0 && !matches!(inst.op, Op::Branch | Op::BranchIndexed) {
                Flow::Next
            } else {
                self.step(warp, inst, Here { fragment: at, pc, active })
            };
            if !matches!(flow, Flow::Wait(_)) {
                *left -= 1;
                let count = &mut self.counts[pc as usize];
                count.issues += 1;
                count.lanes += u64::from(active.count_ones());
                count.diverged += u64::from(partial);
            }
            match flow {
                Flow::Next => pc += 1,
                Flow::Changed => return true,
                Flow::Wait(wait) => {
                    warp.fragments[at].wait = wait;
                    return true;
                }
                Flow::Yield => {
                    warp.fragments[at].pc = pc + 1;
                    return false;
                }
                Flow::Stop => {
                    self.stopped = true;
                    return false;
                }
            }
        }
        warp.fragments[at].pc = pc;
        true
    }

    fn step(&mut self, warp: &mut Warp, inst: &Inst, here: Here) -> Flow {
        let kernel = self.machine.kernel;
        let Here { fragment, pc, active } = here;
        match inst.op {
            Op::Nop | Op::SetMaxRegisters { .. } | Op::WgmmaFence => {}
            Op::Alu(_) => unreachable!("register instructions run in their own loop"),
            Op::InsertField { wide } => {
                super::alu::insert_field(&mut warp.file, inst, active, wide)
            }
            Op::Compare { .. } => compare(warp, inst, active),
            Op::Unpack { part, parts } => unpack(warp, inst, active, (part, parts), &kernel.lists),
            Op::Pack { part, parts, wide } => {
                pack(warp, inst, active, (part, parts, wide), &kernel.lists)
            }
            Op::Carry { .. } => carry(warp, inst, active),
            Op::Branch => {
                warp.diverge(fragment, active, inst.extra, inst.c);
                return Flow::Changed;
            }
            Op::BranchIndexed => return self.branch_indexed(warp, inst, here),
            Op::Exit => {
                warp.leave(fragment, active);
                return Flow::Changed;
            }
            Op::Trap => {
                self.report((warp, first(active) as u32, pc), FindingKind::Trap, None, || {
                    "the kernel executed `trap`".into()
                });
                return Flow::Stop;
            }
            Op::Load(access) => {
                let transfer = Transfer::of(kernel, inst, pc, access, false);
                self.load_store(warp, inst, &transfer, active);
                // A strong load may be polling for another block.
                if access.strong && self.blocks.len() > 1 {
                    return Flow::Yield;
                }
            }
            Op::Store(access) => {
                let transfer = Transfer::of(kernel, inst, pc, access, true);
                self.load_store(warp, inst, &transfer, active);
            }
            Op::LoadParam(access) => {
                let transfer = Transfer::of(kernel, inst, pc, access, false);
                self.load_parameter(warp, inst, &transfer, active);
            }
            Op::Atomic(atomic) => self.atomic(warp, inst, atomic, (pc, active)),
            Op::Shuffle(_)
            | Op::Vote(_)
            | Op::Match { .. }
            | Op::Redux(_)
            | Op::Elect
            | Op::WarpSync => {
                return self.collective(warp, inst, here);
            }
            Op::ActiveMask => warp.file.set_word(inst.d, &[active; LANES], active),
            Op::Barrier { .. } => return self.barrier(warp, inst, here),
            Op::ClusterArrive { .. } | Op::ClusterWait => {
                return self.cluster_barrier(warp, inst, here);
            }
            Op::Fence { .. } => {}
            Op::ProxyFence => self.proxy_fence(warp),
            Op::CpAsync { .. }
            | Op::CpAsyncCommit
            | Op::CpAsyncWait
            | Op::CpAsyncWaitAll
            | Op::CpAsyncArrive { .. } => {
                self.element_copy(warp, inst, (pc, active));
            }
            Op::LdMatrix { .. } | Op::StMatrix { .. } => self.matrix_move(warp, inst, (pc, active)),
            Op::Mma(shape) => {
                self.check_converged(warp, (pc, active));
                let slots = &kernel.lists[inst.extra as usize..];
                isa::mma(self.machine.level, &mut warp.file, shape, slots, active);
            }
            Op::Mbarrier { kind, window } => {
                return self.mbarrier(warp, inst, (kind, window), here);
            }
            Op::Bulk(kind) => return self.bulk(warp, inst, kind, here),
            Op::Wgmma(shape) => self.wgmma(warp, inst, shape, (pc, active)),
            Op::WgmmaCommit => {
                let group = std::mem::take(&mut warp.products);
                warp.product_groups.push_back(group);
            }
            Op::WgmmaWait => self.wait_products(warp, inst, pc),
            Op::MapRank { far } => map_rank(warp, inst, far, active),
            Op::Clock { wide } => clock(warp, inst, wide, active),
            Op::Sleep => return Flow::Yield,
            Op::IsSpace(window) => is_space(warp, inst, window, active),
        }
        Flow::Next
    }

    fn branch_indexed(&mut self, warp: &mut Warp, inst: &Inst, here: Here) -> Flow {
        let kernel = self.machine.kernel;
        let targets = &kernel.lists[inst.extra as usize..][..inst.offset as usize];
        let index = *warp.file.word(inst.a);
        let mut parts: Vec<(u32, u32)> = Vec::new();
        let mut put = |target: u32, lane: usize| match parts.iter_mut().find(|(t, _)| *t == target)
        {
            Some((_, mask)) => *mask |= 1 << lane,
            None => parts.push((target, 1 << lane)),
        };
        let mut outside = 0u32;
        for_lanes(here.active, |lane| match targets.get(index[lane] as usize) {
            Some(target) => put(*target, lane),
            None => outside |= 1 << lane,
        });
        for_lanes(warp.fragments[here.fragment].mask & !here.active, |lane| put(here.pc + 1, lane));
        if outside != 0 {
            let lane = first(outside);
            self.report((warp, lane as u32, here.pc), FindingKind::Undefined, None, || {
                format!("index {} of {} targets", index[lane], targets.len())
            });
            return Flow::Stop;
        }
        warp.part(here.fragment, &parts, inst.c);
        Flow::Changed
    }

    /// Reports an aligned instruction that not all live lanes execute together.
    pub(crate) fn check_converged(&mut self, warp: &Warp, (pc, active): (u32, u32)) {
        if active != warp.live {
            let (lane, live) = (first(active) as u32, warp.live);
            self.report((warp, lane, pc), FindingKind::Divergence, None, || {
                format!("an instruction of the whole warp is executed by lanes {active:#010x} of {live:#010x}")
            });
        }
    }
}

fn compare(warp: &mut Warp, inst: &Inst, active: u32) {
    let Op::Compare { row, combine, negated } = inst.op else { return };
    let other = warp.file.predicate(inst.c) ^ if negated { u32::MAX } else { 0 };
    super::alu::execute(row, &mut warp.file, &Inst { d: 0, ..*inst }, active);
    let result = warp.file.predicate(0);
    let join = |result: u32| match combine {
        Combine::None => result,
        Combine::And => result & other,
        Combine::Or => result | other,
        Combine::Xor => result ^ other,
    };
    warp.file.set_predicate(inst.d, join(result), active);
    if inst.offset != 0 {
        warp.file.set_predicate(inst.offset as u32, join(!result), active);
    }
}

fn unpack(warp: &mut Warp, inst: &Inst, active: u32, (part, parts): (u8, u8), lists: &[u32]) {
    let wide = inst.b != 0;
    let value: [u64; LANES] =
        if wide { *warp.file.double(inst.a) } else { warp.file.word(inst.a).map(u64::from) };
    let mask = if part == 32 { u32::MAX } else { (1 << part) - 1 };
    for (at, slot) in lists[inst.extra as usize..][..usize::from(parts)].iter().enumerate() {
        let shift = at as u32 * u32::from(part);
        warp.file.set_word(*slot, &value.map(|v| (v >> shift) as u32 & mask), active);
    }
}

fn pack(
    warp: &mut Warp,
    inst: &Inst,
    active: u32,
    (part, parts, wide): (u8, u8, bool),
    lists: &[u32],
) {
    let mut value = [0u64; LANES];
    let mask = if part == 32 { u64::from(u32::MAX) } else { (1 << part) - 1 };
    for (at, slot) in lists[inst.extra as usize..][..usize::from(parts)].iter().enumerate() {
        let shift = at as u32 * u32::from(part);
        let row = warp.file.word(*slot);
        for (out, bits) in value.iter_mut().zip(row) {
            *out |= (u64::from(*bits) & mask) << shift;
        }
    }
    if wide {
        warp.file.set_double(inst.d, &value, active);
    } else {
        warp.file.set_word(inst.d, &value.map(|v| v as u32), active);
    }
}

fn carry(warp: &mut Warp, inst: &Inst, active: u32) {
    let Op::Carry { subtract, reads, writes, wide } = inst.op else { return };
    let flag = warp.file.predicate(inst.c);
    let (mut out, mut flags) = ([0u64; LANES], 0u32);
    for (lane, slot) in out.iter_mut().enumerate() {
        let (a, b) = if wide {
            (warp.file.double(inst.a)[lane], warp.file.double(inst.b)[lane])
        } else {
            (warp.file.word(inst.a)[lane].into(), warp.file.word(inst.b)[lane].into())
        };
        let carried = u128::from(reads && flag >> lane & 1 != 0);
        let (a, b) = (u128::from(a), u128::from(b));
        let result =
            if subtract { a.wrapping_sub(b).wrapping_sub(carried) } else { a + b + carried };
        *slot = result as u64;
        flags |= ((result >> if wide { 64 } else { 32 }) as u32 & 1) << lane;
    }
    if wide {
        warp.file.set_double(inst.d, &out, active);
    } else {
        warp.file.set_word(inst.d, &out.map(|v| v as u32), active);
    }
    if writes {
        warp.file.set_predicate(inst.c, flags, active);
    }
}

/// Ranks stand in the upper bits of shared addresses, one up, so that zero is one's own block.
fn map_rank(warp: &mut Warp, inst: &Inst, far: bool, active: u32) {
    let rank = *warp.file.word(inst.b);
    let place = |lane: usize, offset: u32| {
        offset & ((1 << super::address::RANK_SHIFT) - 1)
            | (rank[lane] + 1) << super::address::RANK_SHIFT
    };
    if far {
        let a = *warp.file.double(inst.a);
        let out =
            std::array::from_fn(|l| a[l] & !u64::from(u32::MAX) | u64::from(place(l, a[l] as u32)));
        warp.file.set_double(inst.d, &out, active);
    } else {
        let a = *warp.file.word(inst.a);
        warp.file.set_word(inst.d, &std::array::from_fn(|l| place(l, a[l])), active);
    }
}

/// Clocks count the warp's instructions: no clock of the host is read.
fn clock(warp: &mut Warp, inst: &Inst, wide: bool, active: u32) {
    warp.steps += 1;
    if wide {
        warp.file.set_double(inst.d, &[warp.steps; LANES], active);
    } else {
        warp.file.set_word(inst.d, &[warp.steps as u32; LANES], active);
    }
}

fn is_space(warp: &mut Warp, inst: &Inst, window: Window, active: u32) {
    use super::address::{Target, target};
    let address = *warp.file.double(inst.a);
    let wanted = target(window, 0);
    let mut bits = 0;
    for (lane, address) in address.iter().enumerate() {
        let found = target(Window::Generic, *address);
        bits |=
            u32::from(found == wanted || wanted == Target::Global && found == Target::Parameter)
                << lane;
    }
    warp.file.set_predicate(inst.d, bits, active);
}
