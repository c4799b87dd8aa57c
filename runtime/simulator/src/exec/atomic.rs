//! Atomics and reductions in global and shared memory.

use super::address::{Target, addresses, first, for_lanes, sectors, split, waves};
use super::float::{BF16, F16, Narrow, Round, canonical};
use super::state::Worker;
use super::warp::Warp;
use crate::decode::inst::{Atomic, AtomicKind, Inst};
use crate::ptx::ast::Type;

impl Worker<'_> {
    pub(crate) fn atomic(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        atomic: Atomic,
        (pc, active): (u32, u32),
    ) {
        let all = addresses(warp, inst.a, atomic.far, inst.offset);
        let element = u64::from(atomic.ty.bytes());
        let size = element * u64::from(atomic.count);
        self.counts[pc as usize].bytes += size * u64::from(active.count_ones());
        let good = self.check_aligned(warp, (pc, active), &all, size);
        let registers =
            &self.machine.kernel.lists[inst.extra as usize..][..usize::from(atomic.count)];
        let mut rest = good;
        while rest != 0 {
            let (target, lanes) = split(atomic.window, &all, rest);
            rest &= !lanes;
            match target {
                Target::Shared => {
                    let offsets = all.map(|a| a & ((1 << 56) - 1));
                    self.counts[pc as usize].waves += waves(&offsets, lanes, size as u32);
                    for_lanes(lanes, |lane| {
                        self.shared_atomic(warp, inst, atomic, (pc, lane, offsets[lane]))
                    });
                }
                Target::Global => {
                    self.counts[pc as usize].sectors += sectors(&all, lanes, size);
                    for_lanes(lanes, |lane| {
                        self.global_atomic(warp, inst, (atomic, registers), (pc, lane, all[lane]));
                    });
                }
                _ => self.report_outside((warp, first(lanes) as u32, pc), all[first(lanes)], size),
            }
        }
    }

    fn global_atomic(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        (atomic, registers): (Atomic, &[u32]),
        (pc, lane, address): (u32, usize, u64),
    ) {
        let bytes = atomic.ty.bytes();
        let size = u64::from(bytes) * registers.len() as u64;
        let memory = self.machine.memory;
        let Some(at) = memory.find(address, size) else {
            return self.report_outside((warp, lane as u32, pc), address, size);
        };
        let allocation = memory.allocation(at);
        let offset = address - allocation.base;
        if self.machine.options.checks
            && atomic.kind != AtomicKind::Exchange
            && !allocation.is_written(offset, size)
        {
            self.report(
                (warp, lane as u32, pc),
                crate::check::FindingKind::UninitialisedGlobal,
                None,
                || format!("an atomic on {size} bytes at {address:#x} that nothing has written"),
            );
        }
        for (index, slot) in registers.iter().enumerate() {
            let operand = value(warp, *slot, lane, bytes);
            let swap = value(warp, inst.c, lane, bytes);
            let place = offset + index as u64 * u64::from(bytes);
            let old = allocation.update(place, bytes, |old| apply(atomic, old, operand, swap));
            set(warp, inst.d, lane, bytes, old);
        }
        allocation.mark(offset, size);
        if self.machine.races.is_some() {
            // A fence before and after makes a relaxed atomic order as strong ones do; being lenient about
            // the fences finds fewer races and no false ones.
            let machine = self.machine;
            let knowledge = &mut self.blocks[warp.block].knowledge;
            machine.sync.atomic(address, knowledge, true, true);
        }
    }

    fn shared_atomic(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        atomic: Atomic,
        (pc, lane, address): (u32, usize, u64),
    ) {
        let bytes = atomic.ty.bytes() as usize;
        let place = self.shared_place(warp, address);
        let Some((block, offset)) = place else {
            return self.report_outside((warp, lane as u32, pc), address, bytes as u64);
        };
        let start = offset as usize;
        let end = self.blocks[block].shared.len();
        if start + bytes > end {
            let range = (start as u64, bytes as u64, end as u64);
            return self.report_beyond((warp, lane as u32, pc), "the block's shared memory", range);
        }
        if self.machine.options.checks {
            self.check_shared_atomic(warp, (pc, lane as u32), block, (offset, bytes as u32));
        }
        let operand = value(warp, inst.b, lane, atomic.ty.bytes());
        let swap = value(warp, inst.c, lane, atomic.ty.bytes());
        let shared = &mut self.blocks[block].shared;
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&shared[start..start + bytes]);
        let old = u64::from_le_bytes(word);
        let new = apply(atomic, old, operand, swap).to_le_bytes();
        shared[start..start + bytes].copy_from_slice(&new[..bytes]);
        set(warp, inst.d, lane, atomic.ty.bytes(), old);
    }

    /// Atomics do not race with each other; what they race with is found when plain accesses come.
    fn check_shared_atomic(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, u32),
        block: usize,
        (start, size): (u32, u32),
    ) {
        use crate::check::Conflict;
        let me = warp.accessor(block, lane, pc);
        if let Some(conflict @ (Conflict::Uninitialised | Conflict::Pending { .. })) =
            self.blocks[block].shadow.atomic(start, size, &me)
        {
            self.report_conflict((warp, lane, pc), conflict, (start, false));
        }
    }
}

fn value(warp: &Warp, slot: u32, lane: usize, bytes: u32) -> u64 {
    if bytes == 8 { warp.file.double(slot)[lane] } else { u64::from(warp.file.word(slot)[lane]) }
}

fn set(warp: &mut Warp, slot: u32, lane: usize, bytes: u32, value: u64) {
    if bytes == 8 {
        warp.file.doubles[slot as usize].0[lane] = value;
    } else {
        warp.file.words[slot as usize].0[lane] = value as u32;
    }
}

/// The new value of an element.
fn apply(atomic: Atomic, old: u64, operand: u64, swap: u64) -> u64 {
    let wide = atomic.ty.bytes() == 8;
    let signed = |x: u64| if wide { x as i64 } else { i64::from(x as u32 as i32) };
    let cut = |x: u64| if wide { x } else { x & 0xffff_ffff };
    match atomic.kind {
        AtomicKind::Exchange => operand,
        AtomicKind::CompareSwap => {
            if old == cut(operand) {
                swap
            } else {
                old
            }
        }
        AtomicKind::And => old & operand,
        AtomicKind::Or => old | operand,
        AtomicKind::Xor => old ^ operand,
        AtomicKind::Inc => {
            if old >= operand {
                0
            } else {
                old + 1
            }
        }
        AtomicKind::Dec => {
            if old == 0 || old > operand {
                operand
            } else {
                old - 1
            }
        }
        AtomicKind::Add => add(atomic.ty, old, operand),
        AtomicKind::Min | AtomicKind::Max => {
            let largest = atomic.kind == AtomicKind::Max;
            let below = if atomic.ty.is_signed() {
                signed(old) < signed(operand)
            } else {
                cut(old) < cut(operand)
            };
            if below == largest { operand } else { old }
        }
    }
}

fn add(ty: Type, old: u64, operand: u64) -> u64 {
    let halves = |format: Narrow| {
        let sum = |at: u32| {
            let part = |x: u64| format.decode((x >> at) as u32 & 0xffff);
            u64::from(format.encode(part(old) + part(operand), Round::Nearest, false))
        };
        if ty.bytes() == 4 { sum(0) | sum(16) << 16 } else { sum(0) }
    };
    match ty {
        Type::F32 => {
            let sum = f32::from_bits(old as u32) + f32::from_bits(operand as u32);
            u64::from(canonical(sum).to_bits())
        }
        Type::F64 => (f64::from_bits(old) + f64::from_bits(operand)).to_bits(),
        Type::F16 | Type::F16x2 => halves(F16),
        Type::Bf16 | Type::Bf16x2 => halves(BF16),
        _ => old.wrapping_add(operand),
    }
}
