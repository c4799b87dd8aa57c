//! Checks of loads and stores: what was written, and what races.

use super::access::Transfer;
use super::address::{Addresses, RANK_SHIFT, first, for_lanes};
use super::lanes::FULL;
use super::state::Worker;
use super::warp::Warp;
use crate::check::{FindingKind, Row, SEVERAL_LANES};

impl Worker<'_> {
    /// Initialisation and races of lanes that lie in one allocation.
    #[inline(always)]
    pub(super) fn check_global(
        &mut self,
        warp: &Warp,
        transfer: &Transfer<'_>,
        at: usize,
        all: &Addresses,
        inside: u32,
    ) {
        let size = transfer.size();
        let pc = transfer.pc;
        let allocation = self.machine.memory.allocation(at);
        let checks = self.machine.options.checks;
        let (low, high) = bounds(all, inside);
        let offset = low - allocation.base;
        // Lanes side by side are one range.
        let joined = high - low + size == size * u64::from(inside.count_ones());
        if transfer.stores {
            if joined {
                allocation.mark(offset, high - low + size);
            } else {
                for_lanes(inside, |lane| allocation.mark(all[lane] - allocation.base, size));
            }
        } else if checks
            && !allocation.is_complete()
            && !allocation.is_written(offset, high - low + size)
        {
            self.check_written(warp, pc, at, (all, inside, size));
        }
        if !checks || self.machine.races.is_none() || transfer.access.strong {
            return;
        }
        if joined {
            self.check_race(
                warp,
                (pc, first(inside)),
                at,
                (offset, high - low + size),
                transfer.stores,
            );
        } else {
            for_lanes(inside, |lane| {
                self.check_race(
                    warp,
                    (pc, lane),
                    at,
                    (all[lane] - allocation.base, size),
                    transfer.stores,
                );
            });
        }
    }

    #[cold]
    fn check_written(
        &mut self,
        warp: &Warp,
        pc: u32,
        at: usize,
        (all, inside, size): (&Addresses, u32, u64),
    ) {
        let allocation = self.machine.memory.allocation(at);
        for_lanes(inside, |lane| {
            if !allocation.is_written(all[lane] - allocation.base, size) {
                self.report((warp, lane as u32, pc), FindingKind::UninitialisedGlobal, None, || {
                    let offset = all[lane] - allocation.base;
                    format!(
                        "{size} bytes of global memory at {:#x} (byte {offset} of an allocation of {}) are read and nothing has written them",
                        all[lane], allocation.bytes
                    )
                });
            }
        });
    }

    pub(crate) fn check_race(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, usize),
        at: usize,
        range: (u64, u64),
        stores: bool,
    ) {
        let Some(races) = &self.machine.races else { return };
        let knowledge = &self.blocks[warp.block].knowledge;
        let found = if stores {
            races.write(at, range, knowledge)
        } else {
            races.read(at, range, knowledge)
        };
        if let Some(other) = found {
            let address = self.machine.memory.allocation(at).base + range.0;
            self.report_global((warp, lane as u32, pc), other, address, stores);
        }
    }

    #[inline(always)]
    pub(crate) fn check_shared(
        &mut self,
        warp: &Warp,
        (pc, block): (u32, usize),
        (offsets, lanes, size): (&Addresses, u32, u32),
        stores: bool,
    ) {
        let local = |lane: usize| offsets[lane] as u32 & ((1 << RANK_SHIFT) - 1);
        let lead = first(lanes);
        match shape(offsets, lanes, size) {
            Shape::Row => {
                let row = Row { start: local(0), bytes: 32 * size, per_lane: size };
                self.check_row(warp, (pc, 0), block, row, stores);
            }
            Shape::Place if !stores => {
                let row = Row { start: local(lead), bytes: size, per_lane: 0 };
                let lane = if lanes.is_power_of_two() { lead as u32 } else { SEVERAL_LANES };
                self.check_row(warp, (pc, lane), block, row, stores);
            }
            _ => for_lanes(lanes, |lane| {
                let row = Row { start: local(lane), bytes: size, per_lane: 0 };
                self.check_row(warp, (pc, lane as u32), block, row, stores);
            }),
        }
    }

    #[inline(always)]
    fn check_row(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, u32),
        block: usize,
        row: Row,
        stores: bool,
    ) {
        let me = warp.accessor(block, lane, pc);
        let shadow = &mut self.blocks[block].shadow;
        let found = if stores { shadow.write(row, &me) } else { shadow.read(row, &me) };
        let lane = if lane == SEVERAL_LANES { 0 } else { lane };
        if let Some(conflict) = found {
            self.report_conflict((warp, lane, pc), conflict, (row.start, stores));
        }
        if stores && !self.blocks[block].async_reads.is_empty() {
            self.check_async_reads(warp, (pc, lane), block, (row.start, row.bytes));
        }
    }
}

/// How the addresses of a warp's access lie.
enum Shape {
    /// All lanes, each behind the one before.
    Row,
    /// All at one place.
    Place,
    Other,
}

#[inline(always)]
fn shape(offsets: &Addresses, lanes: u32, size: u32) -> Shape {
    let lead = offsets[first(lanes)];
    let (mut in_row, mut in_place) = (lanes == FULL, true);
    for (lane, offset) in offsets.iter().enumerate() {
        let there = lanes >> lane & 1 != 0;
        in_row &= *offset == lead + u64::from(size) * lane as u64;
        in_place &= !there || *offset == lead;
    }
    match (in_row, in_place) {
        (true, _) => Shape::Row,
        (_, true) => Shape::Place,
        _ => Shape::Other,
    }
}

/// Lowest and highest address of some lanes.
#[inline(always)]
fn bounds(all: &Addresses, lanes: u32) -> (u64, u64) {
    let (mut low, mut high) = (u64::MAX, 0);
    for (lane, address) in all.iter().enumerate() {
        let there = lanes >> lane & 1 != 0;
        low = low.min(if there { *address } else { u64::MAX });
        high = high.max(if there { *address } else { 0 });
    }
    (low, high)
}
