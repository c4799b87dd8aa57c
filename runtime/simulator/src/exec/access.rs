//! Loads and stores.

use std::sync::atomic::Ordering::Relaxed;

use super::address::{
    Addresses, Target, addresses, first, for_lanes, is_row, offsets, sectors, split, waves,
};
use super::lanes::FULL;
use super::state::Worker;
use super::warp::Warp;
use crate::decode::inst::{Access, Inst};
use crate::decode::kernel::Kernel;

/// Offsets within one memory are addresses less a window or a base.
const OFFSET_MASK: u64 = (1 << 56) - 1;

/// One load or store of a warp: instruction, position, and registers of its elements.
#[derive(Clone, Copy)]
pub(crate) struct Transfer<'k> {
    pub(crate) access: Access,
    pub(crate) registers: &'k [u32],
    pub(crate) pc: u32,
    pub(crate) stores: bool,
}

impl<'k> Transfer<'k> {
    pub(crate) fn of(
        kernel: &'k Kernel,
        inst: &Inst,
        pc: u32,
        access: Access,
        stores: bool,
    ) -> Transfer<'k> {
        let start = inst.extra as usize;
        let registers = &kernel.lists[start..start + usize::from(access.count)];
        Transfer { access, registers, pc, stores }
    }

    pub(crate) fn element(&self) -> u32 {
        u32::from(self.access.bytes)
    }

    pub(crate) fn size(&self) -> u64 {
        u64::from(self.access.size())
    }

    /// Writes one element of some lanes to its register.
    #[inline(always)]
    fn set(&self, warp: &mut Warp, at: usize, mask: u32, value: impl Fn(usize) -> u64) {
        let bits = 64 - 8 * self.element();
        let extend = |v: u64| {
            if self.access.signed { ((v << bits) as i64 >> bits) as u64 } else { v }
        };
        let slot = self.registers[at];
        if self.access.wide {
            let row = &mut warp.file.doubles[slot as usize].0;
            for_lanes(mask, |lane| row[lane] = extend(value(lane)));
        } else if mask == FULL && self.element() == 4 {
            let row = &mut warp.file.words[slot as usize].0;
            for (lane, word) in row.iter_mut().enumerate() {
                *word = value(lane) as u32;
            }
        } else {
            let row = &mut warp.file.words[slot as usize].0;
            for_lanes(mask, |lane| row[lane] = extend(value(lane)) as u32);
        }
    }

    /// One element's value of a lane.
    #[inline(always)]
    fn value(&self, warp: &Warp, at: usize, lane: usize) -> u64 {
        let slot = self.registers[at];
        if self.access.wide {
            warp.file.double(slot)[lane]
        } else {
            u64::from(warp.file.word(slot)[lane])
        }
    }
}

impl Worker<'_> {
    pub(crate) fn load_store(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        transfer: &Transfer<'_>,
        active: u32,
    ) {
        let access = transfer.access;
        let all = addresses(warp, inst.a, access.far, inst.offset);
        self.counts[transfer.pc as usize].bytes += transfer.size() * u64::from(active.count_ones());
        let mut rest = active;
        while rest != 0 {
            let (target, lanes) = split(access.window, &all, rest);
            rest &= !lanes;
            match target {
                Target::Global => self.global(warp, transfer, &all, lanes),
                Target::Shared => self.shared(warp, transfer, &all, lanes),
                Target::Local => self.local(warp, transfer, &all, lanes),
                Target::Parameter => self.parameter(warp, transfer, &all, lanes),
            }
        }
    }

    /// A row of words in one allocation: one check for all lanes; whether it was one.
    #[inline(always)]
    fn global_row(
        &mut self,
        warp: &mut Warp,
        transfer: &Transfer<'_>,
        all: &Addresses,
        lanes: u32,
    ) -> bool {
        let size = transfer.size();
        if transfer.element() != 4 || transfer.access.wide || !is_row(all, lanes, size) {
            return false;
        }
        let bytes = 32 * size;
        let Some(at) = self.allocation_of(all[0], bytes) else { return false };
        let allocation = self.machine.memory.allocation(at);
        let offset = all[0] - allocation.base;
        let count = transfer.registers.len();
        self.counts[transfer.pc as usize].sectors +=
            ((all[0] + bytes - 1) >> 5) - (all[0] >> 5) + 1;
        self.check_global(warp, transfer, at, all, lanes);
        let words = allocation.words((offset / 4) as usize, 32 * count);
        for (element, slot) in transfer.registers.iter().enumerate() {
            let row = &mut warp.file.words[*slot as usize].0;
            for (value, word) in row.iter_mut().zip(words[element..].iter().step_by(count)) {
                if transfer.stores {
                    word.store(*value, Relaxed);
                } else {
                    *value = word.load(Relaxed);
                }
            }
        }
        true
    }

    fn global(&mut self, warp: &mut Warp, transfer: &Transfer<'_>, all: &Addresses, lanes: u32) {
        if self.global_row(warp, transfer, all, lanes) {
            return;
        }
        let size = transfer.size();
        let pc = transfer.pc;
        self.counts[pc as usize].sectors += sectors(all, lanes, size);
        let mut rest = self.check_aligned(warp, (pc, lanes), all, size);
        if !transfer.stores && rest != lanes {
            clear(warp, transfer, lanes & !rest);
        }
        let wanted = rest;
        let mut reached = 0;
        while let Some((at, inside)) = self.allocation_lanes(warp, pc, (all, size), &mut rest) {
            reached |= inside;
            let allocation = self.machine.memory.allocation(at);
            self.check_global(warp, transfer, at, all, inside);
            let bytes = transfer.element();
            for element in 0..transfer.registers.len() {
                let from = allocation.base.wrapping_sub(element as u64 * u64::from(bytes));
                if transfer.stores {
                    for_lanes(inside, |lane| {
                        allocation.store(
                            all[lane] - from,
                            bytes,
                            transfer.value(warp, element, lane),
                        );
                    });
                } else if bytes == 4 {
                    transfer.set(warp, element, inside, |lane| {
                        u64::from(allocation.word(((all[lane] - from) >> 2) as usize))
                    });
                } else {
                    transfer.set(warp, element, inside, |lane| {
                        allocation.load(all[lane] - from, bytes)
                    });
                }
            }
        }
        if !transfer.stores && reached != wanted {
            clear(warp, transfer, wanted & !reached);
        }
    }

    /// A row of words in the block's own shared memory; whether it was one.
    #[inline(always)]
    fn shared_row(
        &mut self,
        warp: &mut Warp,
        transfer: &Transfer<'_>,
        offsets: &Addresses,
        lanes: u32,
    ) -> bool {
        let (size, count) = (transfer.size(), transfer.registers.len());
        let (start, end) = (offsets[0] as usize, (offsets[0] + 32 * size) as usize);
        let is_plain = transfer.element() == 4 && !transfer.access.wide;
        if !is_plain || !is_row(offsets, lanes, size) || end > self.blocks[warp.block].shared.len()
        {
            return false;
        }
        // Groups of lanes that move 128 bytes each take one round.
        self.counts[transfer.pc as usize].waves += count as u64;
        if self.machine.options.checks {
            self.check_shared(
                warp,
                (transfer.pc, warp.block),
                (offsets, lanes, size as u32),
                transfer.stores,
            );
        }
        let bytes = &mut self.blocks[warp.block].shared[start..end];
        for (element, slot) in transfer.registers.iter().enumerate() {
            let row = &mut warp.file.words[*slot as usize].0;
            for (value, lane) in row.iter_mut().zip(bytes.chunks_exact_mut(4 * count)) {
                let word = &mut lane[4 * element..4 * element + 4];
                if transfer.stores {
                    word.copy_from_slice(&value.to_le_bytes());
                } else {
                    *value = word_at(word, 0);
                }
            }
        }
        true
    }

    fn shared(&mut self, warp: &mut Warp, transfer: &Transfer<'_>, all: &Addresses, lanes: u32) {
        let size = transfer.size();
        let pc = transfer.pc;
        let offsets = offsets(all);
        if self.shared_row(warp, transfer, &offsets, lanes) {
            return;
        }
        self.counts[pc as usize].waves += waves(&offsets, lanes, size as u32);
        let mut rest = self.check_aligned(warp, (pc, lanes), &offsets, size);
        if !transfer.stores && rest != lanes {
            clear(warp, transfer, lanes & !rest);
        }
        while rest != 0 {
            let lead = self.shared_place(warp, offsets[first(rest)]);
            let rank = offsets[first(rest)] >> super::address::RANK_SHIFT;
            let mut same = 0;
            for_lanes(rest, |lane| {
                same |= u32::from(offsets[lane] >> super::address::RANK_SHIFT == rank) << lane;
            });
            rest &= !same;
            let inside = self.shared_bounds(warp, pc, (&offsets, same, size), lead);
            if !transfer.stores && inside != same {
                clear(warp, transfer, same & !inside);
            }
            let Some((block, _)) = lead.filter(|_| inside != 0) else { continue };
            if self.machine.options.checks {
                self.check_shared(
                    warp,
                    (pc, block),
                    (&offsets, inside, size as u32),
                    transfer.stores,
                );
            }
            self.move_shared(warp, transfer, block, &offsets, inside);
        }
    }

    /// Lanes within shared memory of a block; the others are reported.
    #[inline(always)]
    fn shared_bounds(
        &mut self,
        warp: &Warp,
        pc: u32,
        (offsets, lanes, size): (&Addresses, u32, u64),
        lead: Option<(usize, u32)>,
    ) -> u32 {
        let bytes = lead.map_or(0, |(block, _)| self.blocks[block].shared.len() as u64);
        let local = |lane: usize| offsets[lane] & ((1 << super::address::RANK_SHIFT) - 1);
        let mut inside = 0;
        for_lanes(lanes, |lane| inside |= u32::from(local(lane) + size <= bytes) << lane);
        if inside != lanes {
            let lane = first(lanes & !inside);
            self.report_beyond(
                (warp, lane as u32, pc),
                "the block's shared memory",
                (local(lane), size, bytes),
            );
        }
        inside
    }

    fn move_shared(
        &mut self,
        warp: &mut Warp,
        transfer: &Transfer<'_>,
        block: usize,
        offsets: &Addresses,
        lanes: u32,
    ) {
        let shared = &mut self.blocks[block].shared;
        let bytes = transfer.element() as usize;
        let mask = (1 << super::address::RANK_SHIFT) - 1;
        for element in 0..transfer.registers.len() {
            let start = |lane: usize| (offsets[lane] & mask) as usize + element * bytes;
            if transfer.stores {
                for_lanes(lanes, |lane| {
                    let value = transfer.value(warp, element, lane).to_le_bytes();
                    match bytes {
                        4 => shared[start(lane)..start(lane) + 4].copy_from_slice(&value[..4]),
                        _ => shared[start(lane)..start(lane) + bytes]
                            .copy_from_slice(&value[..bytes]),
                    }
                });
            } else {
                transfer.set(warp, element, lanes, |lane| match bytes {
                    4 => u64::from(word_at(shared, start(lane))),
                    _ => {
                        let mut value = [0; 8];
                        value[..bytes].copy_from_slice(&shared[start(lane)..start(lane) + bytes]);
                        u64::from_le_bytes(value)
                    }
                });
            }
        }
    }

    fn local(&mut self, warp: &mut Warp, transfer: &Transfer<'_>, all: &Addresses, lanes: u32) {
        let size = transfer.size();
        let bytes = u64::from(self.machine.kernel.local_bytes);
        let good = self.check_aligned(warp, (transfer.pc, lanes), all, size);
        let element = transfer.element() as usize;
        for_lanes(good, |lane| {
            let offset = all[lane] & OFFSET_MASK;
            if offset + size > bytes {
                self.report_beyond(
                    (warp, lane as u32, transfer.pc),
                    "the thread's local memory",
                    (offset, size, bytes),
                );
                return;
            }
            let start = lane * bytes as usize + offset as usize;
            for at in 0..transfer.registers.len() {
                let range = start + at * element..start + (at + 1) * element;
                if transfer.stores {
                    let value = transfer.value(warp, at, lane).to_le_bytes();
                    warp.local[range].copy_from_slice(&value[..element]);
                } else {
                    let mut value = [0; 8];
                    value[..element].copy_from_slice(&warp.local[range]);
                    transfer.set(warp, at, 1 << lane, |_| u64::from_le_bytes(value));
                }
            }
        });
    }

    /// Generic reads of the kernel's parameters.
    fn parameter(&mut self, warp: &mut Warp, transfer: &Transfer<'_>, all: &Addresses, lanes: u32) {
        let size = transfer.size();
        let parameters = self.machine.parameters;
        let element = transfer.element() as usize;
        for_lanes(lanes, |lane| {
            let offset = (all[lane] & OFFSET_MASK) as usize;
            if transfer.stores || offset as u64 + size > parameters.len() as u64 {
                let bytes = parameters.len() as u64;
                self.report_beyond(
                    (warp, lane as u32, transfer.pc),
                    "the kernel's parameters",
                    (offset as u64, size, bytes),
                );
                return;
            }
            for at in 0..transfer.registers.len() {
                let mut value = [0; 8];
                value[..element].copy_from_slice(&parameters[offset + at * element..][..element]);
                transfer.set(warp, at, 1 << lane, |_| u64::from_le_bytes(value));
            }
        });
    }

    /// `ld.param` of a kernel parameter, the same for all lanes.
    pub(crate) fn load_parameter(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        transfer: &Transfer<'_>,
        active: u32,
    ) {
        let element = transfer.element() as usize;
        for at in 0..transfer.registers.len() {
            let start = inst.offset as usize + at * element;
            let mut value = [0; 8];
            value[..element].copy_from_slice(&self.machine.parameters[start..start + element]);
            transfer.set(warp, at, active, |_| u64::from_le_bytes(value));
        }
    }
}

/// A word of little-endian bytes.
#[inline(always)]
pub(crate) fn word_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// Lanes whose load failed read zero.
#[cold]
fn clear(warp: &mut Warp, transfer: &Transfer<'_>, lanes: u32) {
    for at in 0..transfer.registers.len() {
        transfer.set(warp, at, lanes, |_| 0);
    }
}
