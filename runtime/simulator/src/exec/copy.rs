//! `cp.async`, `ldmatrix` and `stmatrix`: copies between global memory, shared memory and fragments.

use super::access::word_at;
use super::address::{Addresses, addresses, for_lanes, offsets, sectors, waves};
use super::lanes::{LANES, Words};
use super::launch::Completion;
use super::state::Worker;
use super::warp::Warp;
use crate::check::{FindingKind, NO_EPOCH, Row, Stamp};
use crate::decode::inst::{Inst, Op};

/// A `cp.async` of a warp that is under way.
#[derive(Clone)]
pub(crate) struct ElementCopy {
    pub(crate) pc: u32,
    mask: u32,
    bytes: u32,
    to: Words,
    from: Addresses,
    present: [u32; LANES],
    /// The bytes have moved already; what is left is to say so.
    moved: bool,
}

impl Worker<'_> {
    pub(crate) fn element_copy(&mut self, warp: &mut Warp, inst: &Inst, (pc, active): (u32, u32)) {
        match inst.op {
            Op::CpAsync { bytes, far } => {
                self.begin_element_copy(warp, inst, (pc, active), (bytes, far))
            }
            Op::CpAsyncCommit => {
                let empty = warp.spare_copies.pop().unwrap_or_default();
                let group = std::mem::replace(&mut warp.copies, empty);
                warp.copy_groups.push_back(group);
            }
            Op::CpAsyncWait => {
                let keep = warp.file.word(inst.a)[super::address::first(active)] as usize;
                while warp.copy_groups.len() > keep {
                    let group = warp.copy_groups.pop_front().unwrap_or_default();
                    self.end_element_copies(warp, group, None);
                }
            }
            Op::CpAsyncWaitAll => self.end_all_element_copies(warp, None),
            Op::CpAsyncArrive { counted } => self.copy_arrive(warp, inst, (pc, active), counted),
            _ => {}
        }
    }

    pub(crate) fn end_all_element_copies(&mut self, warp: &mut Warp, stamp: Option<Stamp>) {
        while let Some(group) = warp.copy_groups.pop_front() {
            self.end_element_copies(warp, group, stamp);
        }
        let open = std::mem::take(&mut warp.copies);
        self.end_element_copies(warp, open, stamp);
    }

    fn begin_element_copy(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        (pc, active): (u32, u32),
        (bytes, far): (u8, bool),
    ) {
        let size = u32::from(bytes);
        let to = offsets(&addresses(warp, inst.d, far, inst.offset));
        let from = addresses(warp, inst.a, true, inst.extra as i32);
        let mut present = *warp.file.word(inst.b);
        present.iter_mut().for_each(|n| *n = (*n).min(size));
        let good = self.check_aligned(warp, (pc, active), &to, size.into());
        let good = good & self.check_aligned(warp, (pc, good), &from, size.into());
        let end = self.blocks[warp.block].shared.len() as u64;
        let mut mask = 0;
        for_lanes(good, |lane| {
            if to[lane] + u64::from(size) > end {
                let range = (to[lane], size.into(), end);
                self.report_beyond((warp, lane as u32, pc), "the block's shared memory", range);
            } else {
                mask |= 1 << lane;
            }
        });
        let mut reads = 0;
        for_lanes(mask, |lane| reads |= u32::from(present[lane] != 0) << lane);
        let count = &mut self.counts[pc as usize];
        count.sectors += sectors(&from, reads, size.into());
        count.waves += waves(&to, mask, size);
        count.bytes += u64::from(size) * u64::from(reads.count_ones());
        if self.machine.options.checks {
            self.check_begin_copies(warp, pc, (&to, mask, size));
        }
        let mut places = [0; LANES];
        places.iter_mut().zip(&to).for_each(|(offset, address)| *offset = *address as u32);
        let mut copy =
            ElementCopy { pc, mask, bytes: size, to: places, from, present, moved: false };
        let early = match self.machine.options.completion {
            Completion::Early => true,
            Completion::Late => false,
            Completion::Seeded => self.random(2) == 0,
        };
        if early {
            self.move_elements(warp, &copy);
            copy.moved = true;
        }
        warp.copies.push(copy);
    }

    fn check_begin_copies(
        &mut self,
        warp: &Warp,
        pc: u32,
        (to, mask, size): (&Addresses, u32, u32),
    ) {
        for_lanes(mask, |lane| {
            let me = warp.accessor(warp.block, lane as u32, pc);
            let start = to[lane] as u32;
            let row = Row { start, bytes: size, per_lane: 0 };
            if let Some(conflict) = self.blocks[warp.block].shadow.begin_copy(row, &me) {
                self.report_conflict((warp, lane as u32, pc), conflict, (start, true));
            }
            if !self.blocks[warp.block].async_reads.is_empty() {
                self.check_async_reads(warp, (pc, lane as u32), warp.block, (start, size));
            }
        });
    }

    /// Copies have arrived; others see it through the warp, or through the mbarrier of a stamp.
    fn end_element_copies(
        &mut self,
        warp: &mut Warp,
        mut group: Vec<ElementCopy>,
        stamp: Option<Stamp>,
    ) {
        let leaves = if stamp.is_some() { NO_EPOCH } else { warp.epoch };
        let stamp = stamp.unwrap_or(Stamp { agent: warp.agent, time: warp.time });
        for copy in group.drain(..) {
            if !copy.moved {
                self.move_elements(warp, &copy);
            }
            if self.machine.options.checks {
                let shadow = &mut self.blocks[warp.block].shadow;
                for_lanes(copy.mask, |lane| {
                    let row = Row { start: copy.to[lane], bytes: copy.bytes, per_lane: 0 };
                    shadow.end_copy(row, (stamp, lane as u32, leaves), false);
                });
            }
        }
        warp.spare_copies.push(group);
    }

    fn move_elements(&mut self, warp: &Warp, copy: &ElementCopy) {
        if self.machine.options.checks {
            self.check_sources(warp, copy);
        }
        for_lanes(copy.mask, |lane| {
            let present = u64::from(copy.present[lane]);
            let mut value = [0u8; 16];
            if present != 0 {
                let Some(at) = self.allocation_of(copy.from[lane], present) else {
                    let at = (warp, lane as u32, copy.pc);
                    return self.report_outside(at, copy.from[lane], present);
                };
                let allocation = self.machine.memory.allocation(at);
                let first = ((copy.from[lane] - allocation.base) / 4) as usize;
                for (word, bytes) in
                    value.chunks_exact_mut(4).take(present.div_ceil(4) as usize).enumerate()
                {
                    bytes.copy_from_slice(&allocation.word(first + word).to_le_bytes());
                }
                value[present as usize..].fill(0);
            }
            let start = copy.to[lane] as usize;
            let size = copy.bytes as usize;
            self.blocks[warp.block].shared[start..start + size].copy_from_slice(&value[..size]);
        });
    }

    /// Checks what lanes read, neighbours together.
    fn check_sources(&mut self, warp: &Warp, copy: &ElementCopy) {
        let mut rest = copy.mask;
        while rest != 0 {
            let lane = super::address::first(rest);
            let (from, mut bytes) = (copy.from[lane], u64::from(copy.present[lane]));
            rest &= rest - 1;
            while rest != 0 && bytes != 0 {
                let next = super::address::first(rest);
                if copy.from[next] != from + bytes || copy.present[next] == 0 {
                    break;
                }
                bytes += u64::from(copy.present[next]);
                rest &= rest - 1;
            }
            if bytes != 0
                && let Some(at) = self.allocation_of(from, bytes)
            {
                let offset = from - self.machine.memory.allocation(at).base;
                self.check_copied(warp, (copy.pc, lane), at, (offset, bytes));
            }
        }
    }

    fn check_copied(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, usize),
        at: usize,
        (offset, bytes): (u64, u64),
    ) {
        let allocation = self.machine.memory.allocation(at);
        if !allocation.is_written(offset, bytes) {
            self.report((warp, lane as u32, pc), FindingKind::UninitialisedGlobal, None, || {
                format!("{bytes} bytes of global memory at {:#x} are copied and nothing has written them", allocation.base + offset)
            });
        }
        self.check_race(warp, (pc, lane), at, (offset, bytes), false);
    }

    /// `ldmatrix` and `stmatrix`: lanes 8q to 8q+7 hold the addresses of the rows of matrix q.
    pub(crate) fn matrix_move(&mut self, warp: &mut Warp, inst: &Inst, (pc, active): (u32, u32)) {
        let (Op::LdMatrix { count, transposed, far } | Op::StMatrix { count, transposed, far }) =
            inst.op
        else {
            return;
        };
        let stores = matches!(inst.op, Op::StMatrix { .. });
        self.check_converged(warp, (pc, active));
        warp.tick();
        let all = offsets(&addresses(warp, inst.a, far, inst.offset));
        let lanes = if count == 4 { u32::MAX } else { (1 << (8 * count)) - 1 };
        let good = self.check_aligned(warp, (pc, lanes), &all, 16);
        let end = self.blocks[warp.block].shared.len() as u64;
        let mut inside = 0;
        for_lanes(good, |lane| inside |= u32::from(all[lane] + 16 <= end) << lane);
        if inside != good {
            let lane = super::address::first(good & !inside);
            self.report_beyond(
                (warp, lane as u32, pc),
                "the block's shared memory",
                (all[lane], 16, end),
            );
        }
        let counts = &mut self.counts[pc as usize];
        counts.waves += waves(&all, inside, 16);
        counts.bytes += 16 * u64::from(inside.count_ones());
        if self.machine.options.checks {
            self.check_shared(warp, (pc, warp.block), (&all, inside, 16), stores);
        }
        let kernel = self.machine.kernel;
        let shared = &mut self.blocks[warp.block].shared;
        for (q, slot) in
            kernel.lists[inst.extra as usize..][..usize::from(count)].iter().enumerate()
        {
            let row =
                |r: usize| (inside >> (8 * q + r) & 1 != 0).then_some(all[8 * q + r] as usize);
            if stores {
                store_matrix(shared, row, warp.file.word(*slot), transposed);
            } else {
                let value = load_matrix(shared, row, transposed);
                warp.file.set_word(*slot, &value, active);
            }
        }
        warp.tick();
    }
}

fn load_matrix(
    shared: &[u8],
    row: impl Fn(usize) -> Option<usize>,
    transposed: bool,
) -> [u32; LANES] {
    let mut words = [0; LANES];
    for r in 0..8 {
        if let Some(bytes) = row(r).and_then(|start| shared.get(start..start + 16)) {
            for (word, part) in words[r * 4..r * 4 + 4].iter_mut().zip(bytes.chunks_exact(4)) {
                *word = word_at(part, 0);
            }
        }
    }
    if transposed { transpose(&words) } else { words }
}

fn store_matrix(
    shared: &mut [u8],
    row: impl Fn(usize) -> Option<usize>,
    words: &[u32; LANES],
    transposed: bool,
) {
    let words = if transposed { transpose(words) } else { *words };
    for r in 0..8 {
        if let Some(bytes) = row(r).and_then(|start| shared.get_mut(start..start + 16)) {
            for (part, word) in bytes.chunks_exact_mut(4).zip(&words[r * 4..r * 4 + 4]) {
                part.copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

/// Transposes eight rows of eight halves.
fn transpose(words: &[u32; LANES]) -> [u32; LANES] {
    let mut halves = [[0u16; 8]; 8];
    for (r, row) in halves.iter_mut().enumerate() {
        for (pair, word) in row.chunks_exact_mut(2).zip(&words[r * 4..r * 4 + 4]) {
            (pair[0], pair[1]) = (*word as u16, (*word >> 16) as u16);
        }
    }
    let mut out = [0; LANES];
    for (r, row) in out.chunks_exact_mut(4).enumerate() {
        for (c, word) in row.iter_mut().enumerate() {
            *word = u32::from(halves[2 * c][r]) | u32::from(halves[2 * c + 1][r]) << 16;
        }
    }
    out
}
