//! Bulk and tensor copies of the asynchronous proxy (PTX ISA, sections 9.7.9.25 and 5.5): issued by one
//! thread, done at any time until what waits for them.

use super::address::{first, for_lanes};
use super::launch::Completion;
use super::state::Worker;
use super::step::{Flow, Here};
use super::tensor;
use super::warp::Warp;
use super::wgmma::AsyncRead;
use crate::check::{FindingKind, NO_EPOCH, Row, Stamp};
use crate::decode::inst::{AtomicKind, Bulk, Inst};
use crate::decode::operands::PARAMETER_WINDOW;
use crate::memory::{Swizzle, TENSOR_MAP_BYTES, TensorMap};

/// A place in shared memory and the mbarrier that learns of its bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Landing {
    pub(crate) block: usize,
    pub(crate) start: u32,
    pub(crate) mbarrier: u32,
}

/// What a copy moves.
#[derive(Clone, Debug)]
pub(crate) enum Cargo {
    FromGlobal { address: u64, bytes: u32 },
    FromTensor { map: Box<TensorMap>, at: [i32; 5], offsets: Vec<u32> },
    FromShared { block: usize, start: u32, bytes: u32 },
    ToGlobal { start: u32, address: u64, bytes: u32 },
    ToTensor { map: Box<TensorMap>, start: u32, at: [i32; 5], reduction: Option<AtomicKind> },
}

/// A copy under way.
#[derive(Clone, Debug)]
pub(crate) struct Flight {
    pub(crate) number: u64,
    pub(crate) pc: u32,
    pub(crate) lane: u32,
    pub(crate) index: u32,
    pub(crate) block: usize,
    pub(crate) agent: u32,
    pub(crate) cargo: Cargo,
    pub(crate) landings: Vec<Landing>,
}

impl Flight {
    /// Bytes that land in each place.
    pub(crate) fn bytes(&self) -> u32 {
        match &self.cargo {
            Cargo::FromGlobal { bytes, .. }
            | Cargo::FromShared { bytes, .. }
            | Cargo::ToGlobal { bytes, .. } => *bytes,
            Cargo::FromTensor { map, .. } | Cargo::ToTensor { map, .. } => map.box_bytes() as u32,
        }
    }
}

/// Operand addresses of a copy's first lane.
struct Operands {
    d: u64,
    a: u64,
    c: u64,
}

impl Worker<'_> {
    pub(crate) fn bulk(&mut self, warp: &mut Warp, inst: &Inst, kind: Bulk, here: Here) -> Flow {
        match kind {
            Bulk::PrefetchTensor => return Flow::Next,
            Bulk::Commit => {
                let group = std::mem::take(&mut warp.stores);
                warp.store_groups.push_back(group);
                return Flow::Next;
            }
            Bulk::Wait { .. } => {
                let keep = warp.file.word(inst.a)[first(here.active)] as usize;
                while warp.store_groups.len() > keep {
                    for number in warp.store_groups.pop_front().unwrap_or_default() {
                        self.finish_flight(number);
                    }
                }
                let agent = warp.agent;
                let stamp = Stamp { agent, time: warp.time };
                let reads = &self.blocks[warp.block].async_reads;
                let flying = |n: u64| self.flights.iter().any(|f| f.number == n);
                let ended: Vec<u64> = reads
                    .iter()
                    .filter(|r| {
                        !r.done && r.stamp.agent == agent && r.is_store && !flying(r.number)
                    })
                    .map(|r| r.number)
                    .collect();
                self.end_reads(warp.block, &ended, stamp);
                warp.tick();
                return Flow::Next;
            }
            _ => {}
        }
        for_lanes(here.active, |lane| self.issue(warp, inst, kind, (here.pc, lane)));
        Flow::Next
    }

    fn issue(&mut self, warp: &mut Warp, inst: &Inst, kind: Bulk, (pc, lane): (u32, usize)) {
        let value = |slot: u32, far: bool| {
            if far { warp.file.double(slot)[lane] } else { u64::from(warp.file.word(slot)[lane]) }
        };
        let bit = |at: u32| inst.offset >> at & 1 != 0;
        let operands = Operands {
            d: value(inst.d, bit(0)),
            a: value(inst.a, bit(1)),
            c: value(inst.c, bit(2)),
        };
        let local = |address: u64| address as u32;
        let at = (pc, lane as u32);
        let lists = &self.machine.kernel.lists;
        let (cargo, loads, mask) = match kind {
            Bulk::Load { multicast } => {
                let bytes = warp.file.word(inst.b)[lane];
                let mask = multicast.then(|| warp.file.word(inst.extra)[lane]);
                (Cargo::FromGlobal { address: operands.a, bytes }, true, mask)
            }
            Bulk::ToCluster => {
                let bytes = warp.file.word(inst.b)[lane];
                let Some((block, start)) = self.shared_place(warp, operands.a) else { return };
                (Cargo::FromShared { block, start, bytes }, true, None)
            }
            Bulk::Store => {
                let bytes = warp.file.word(inst.b)[lane];
                (
                    Cargo::ToGlobal { start: local(operands.a), address: operands.d, bytes },
                    false,
                    None,
                )
            }
            Bulk::TensorLoad { rank, im2col, multicast } => {
                let Some(map) = self.tensor_map(warp, at, operands.a, (rank, im2col)) else {
                    return;
                };
                let (coordinates, rest) = coordinates(lists, warp, inst, rank, lane);
                let offsets = if im2col { usize::from(rank) - 2 } else { 0 };
                let slots = &rest[..offsets];
                let offsets_values = slots.iter().map(|s| warp.file.word(*s)[lane]).collect();
                let mask = multicast.then(|| warp.file.word(rest[offsets])[lane]);
                (
                    Cargo::FromTensor {
                        map: Box::new(map),
                        at: coordinates,
                        offsets: offsets_values,
                    },
                    true,
                    mask,
                )
            }
            Bulk::TensorStore { rank, im2col, reduction } => {
                let Some(map) = self.tensor_map(warp, at, operands.d, (rank, im2col)) else {
                    return;
                };
                let (coordinates, _) = coordinates(lists, warp, inst, rank, lane);
                let start = local(operands.a);
                (
                    Cargo::ToTensor { map: Box::new(map), start, at: coordinates, reduction },
                    false,
                    None,
                )
            }
            _ => return,
        };
        let landings = if loads { self.landings(warp, &operands, mask) } else { Vec::new() };
        let number = self.next_flight;
        self.next_flight += 1;
        let (index, block, agent) = (warp.index, warp.block, warp.agent);
        let flight = Flight { number, pc, lane: lane as u32, index, block, agent, cargo, landings };
        if !self.check_issue(warp, &flight) {
            return;
        }
        let count = &mut self.counts[pc as usize];
        count.bytes += u64::from(flight.bytes());
        count.sectors += u64::from(flight.bytes()).div_ceil(32);
        if !loads {
            warp.stores.push(number);
        }
        self.flights.push(flight);
        if self.machine.options.completion == Completion::Early {
            self.finish_flight(number);
        }
    }

    /// Where a load lands: once, or at the same offsets in each block of a multicast mask.
    fn landings(&self, warp: &Warp, operands: &Operands, mask: Option<u32>) -> Vec<Landing> {
        let place = |address: u64| self.shared_place(warp, address);
        let (Some((block, start)), Some((_, mbarrier))) = (place(operands.d), place(operands.c))
        else {
            return Vec::new();
        };
        let Some(mask) = mask else { return vec![Landing { block, start, mbarrier }] };
        let cluster = self.machine.cluster_blocks() as usize;
        let lead = warp.block / cluster * cluster;
        let chosen = (0..cluster.min(16)).filter(|rank| mask >> rank & 1 != 0);
        chosen.map(|rank| Landing { block: lead + rank, start, mbarrier }).collect()
    }

    /// The map at an address of a parameter or of global memory.
    fn tensor_map(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, u32),
        address: u64,
        (rank, im2col): (u8, bool),
    ) -> Option<TensorMap> {
        let mut bytes = [0; TENSOR_MAP_BYTES];
        let read = if address & PARAMETER_WINDOW == PARAMETER_WINDOW {
            let start = (address & ((1 << 56) - 1)) as usize;
            let found = self.machine.parameters.get(start..start.saturating_add(TENSOR_MAP_BYTES));
            found.map(|b| bytes.copy_from_slice(b)).is_some()
        } else {
            self.machine.memory.read(address, &mut bytes).is_ok()
        };
        let map = if read { TensorMap::decode(&bytes) } else { None };
        let fits =
            |m: &TensorMap| m.extents.len() == usize::from(rank) && m.window.is_some() == im2col;
        let found = map.filter(fits);
        if found.is_none() || !address.is_multiple_of(64) {
            self.report((warp, lane, pc), FindingKind::TensorMap, None, || {
                format!("no tensor map of {rank} axes lies at {address:#x}, aligned to 64")
            });
        }
        found
    }

    /// What the hardware would refuse or get wrong at the moment of issue.
    fn check_issue(&mut self, warp: &Warp, flight: &Flight) -> bool {
        let at = (warp, flight.lane, flight.pc);
        let bytes = flight.bytes();
        let (tensor, swizzle) = match &flight.cargo {
            Cargo::FromTensor { map, .. } | Cargo::ToTensor { map, .. } => (true, map.swizzle),
            _ => (false, Swizzle::None),
        };
        let align = if !tensor {
            16
        } else if swizzle == Swizzle::None {
            128
        } else {
            8 * swizzle.span() as u32
        };
        let global = match &flight.cargo {
            Cargo::FromGlobal { address, .. } | Cargo::ToGlobal { address, .. } => *address,
            _ => 0,
        };
        if !bytes.is_multiple_of(16) || !global.is_multiple_of(16) {
            self.report(at, FindingKind::Misaligned, None, || {
                format!("a bulk copy of {bytes} bytes at {global:#x}: both must be multiples of 16")
            });
            return false;
        }
        let mut places: Vec<(usize, u32)> =
            flight.landings.iter().map(|l| (l.block, l.start)).collect();
        match &flight.cargo {
            Cargo::ToGlobal { start, .. } | Cargo::ToTensor { start, .. } => {
                places.push((flight.block, *start))
            }
            Cargo::FromShared { block, start, .. } => places.push((*block, *start)),
            _ => {}
        }
        for (block, start) in &places {
            if !start.is_multiple_of(align) {
                self.report(at, FindingKind::Misaligned, None, || {
                    format!("an asynchronous copy at byte {start} of shared memory needs a multiple of {align}")
                });
                return false;
            }
            let end = self.blocks[*block].shared.len() as u64;
            if u64::from(*start) + u64::from(bytes) > end {
                self.report_beyond(
                    at,
                    "the block's shared memory",
                    (u64::from(*start), bytes.into(), end),
                );
                return false;
            }
        }
        if flight.landings.iter().any(|l| !self.blocks[l.block].mbarriers.contains_key(&l.mbarrier))
        {
            self.report(at, FindingKind::Mbarrier, None, || {
                "an asynchronous copy completes on an mbarrier that was never initialised".into()
            });
            return false;
        }
        if self.machine.options.checks {
            self.check_landings(warp, flight);
            self.check_departure(warp, flight);
        }
        true
    }

    /// The copy writes its landings from now on.
    fn check_landings(&mut self, warp: &Warp, flight: &Flight) {
        for landing in &flight.landings {
            let me = warp.accessor(landing.block, flight.lane, flight.pc);
            let row = Row { start: landing.start, bytes: flight.bytes(), per_lane: 0 };
            let found = self.blocks[landing.block].shadow.begin_copy(row, &me);
            if let Some(conflict) = found {
                self.report_conflict(
                    (warp, flight.lane, flight.pc),
                    conflict,
                    (landing.start, true),
                );
            }
            let range = (landing.start, flight.bytes());
            self.check_async_reads(warp, (flight.pc, flight.lane), landing.block, range);
        }
    }

    /// A store reads shared memory from now on.
    fn check_departure(&mut self, warp: &Warp, flight: &Flight) {
        let (block, start) = match &flight.cargo {
            Cargo::ToGlobal { start, .. } | Cargo::ToTensor { start, .. } => (flight.block, *start),
            Cargo::FromShared { block, start, .. } => (*block, *start),
            _ => return,
        };
        let stamp = Stamp { agent: warp.agent, time: warp.time };
        let me = warp.accessor(block, flight.lane, flight.pc);
        let fenced = &self.fenced;
        let seen = |s: Stamp| fenced.get(s.agent as usize).is_none_or(|t| *t >= s.time);
        let found = self.blocks[block].shadow.proxy_read(start, flight.bytes(), &me, seen);
        if let Some(conflict) = found {
            self.report_conflict((warp, flight.lane, flight.pc), conflict, (start, false));
        }
        if flight.landings.is_empty() {
            let end = start + flight.bytes();
            let (number, lane, pc) = (flight.number, flight.lane, flight.pc);
            self.blocks[block].async_reads.push(AsyncRead {
                number,
                start,
                end,
                lane,
                pc,
                stamp,
                done: false,
                is_store: true,
            });
        }
    }

    /// Moves a copy's bytes and tells its mbarriers.
    pub(crate) fn finish_flight(&mut self, number: u64) {
        let Some(at) = self.flights.iter().position(|f| f.number == number) else { return };
        let flight = self.flights.remove(at);
        tensor::perform(self, &flight);
        for landing in &flight.landings {
            if self.machine.options.checks
                && let Some(state) = self.blocks[landing.block].mbarriers.get(&landing.mbarrier)
            {
                let stamp = state.stamp();
                let row = Row { start: landing.start, bytes: flight.bytes(), per_lane: 0 };
                let arrival = (stamp, flight.lane, NO_EPOCH);
                self.blocks[landing.block].shadow.end_copy(row, arrival, true);
            }
            self.complete_bytes(landing.block, landing.mbarrier, i64::from(flight.bytes()));
        }
    }
}

/// Coordinates of a tensor copy, and the slots that follow them.
fn coordinates<'k>(
    lists: &'k [u32],
    warp: &Warp,
    inst: &Inst,
    rank: u8,
    lane: usize,
) -> ([i32; 5], &'k [u32]) {
    let slots = &lists[inst.extra as usize..];
    let mut out = [0; 5];
    for (at, slot) in slots[..usize::from(rank)].iter().enumerate() {
        out[at] = warp.file.word(*slot)[lane] as i32;
    }
    (out, &slots[usize::from(rank)..])
}
