//! mbarrier objects (PTX ISA, section 9.7.13.15): arrivals, expected bytes, phases.

use super::address::{addresses, first, for_lanes};
use super::state::Worker;
use super::step::{Flow, Here};
use super::warp::{Wait, Warp};
use crate::check::{Clock, FindingKind, Stamp};
use crate::decode::inst::{Inst, Mbarrier, NONE, Window};

/// Most arrivals that an mbarrier counts.
const COUNT_MAX: i64 = (1 << 20) - 1;

/// One mbarrier.
#[derive(Clone, Debug, Default)]
pub(crate) struct MbarrierState {
    count: i64,
    pending: i64,
    pub(crate) transactions: i64,
    /// Completed phases.
    pub(crate) phase: u32,
    /// Its number in the gang's clocks.
    pub(crate) agent: u32,
    clock: Clock,
    released: Clock,
    /// An instruction that waits for it, for reports.
    pub(crate) waited_at: Option<u32>,
}

impl MbarrierState {
    /// What copies that arrive in this phase are seen by.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp { agent: self.agent, time: self.phase + 1 }
    }

    fn settle(&mut self) {
        if self.pending == 0 && self.transactions == 0 {
            self.phase += 1;
            self.pending = self.count;
            self.clock.set(self.agent, self.phase);
            self.released.join(&self.clock);
            self.clock.clear();
        }
    }

    /// A few words on what it waits for.
    pub(crate) fn describe(&self) -> String {
        format!(
            "phase {}, {} of {} arrivals missing, {} bytes missing",
            self.phase, self.pending, self.count, self.transactions
        )
    }
}

impl Worker<'_> {
    pub(crate) fn mbarrier(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        (kind, _window): (Mbarrier, Window),
        here: Here,
    ) -> Flow {
        if kind == Mbarrier::PendingCount {
            let state = *warp.file.double(inst.b);
            warp.file.set_word(inst.d, &state.map(|s| (s >> 32) as u32), here.active);
            return Flow::Next;
        }
        let all =
            addresses(warp, inst.a, inst.extra != 0, inst.offset).map(|a| a & ((1 << 56) - 1));
        let mut flow = Flow::Next;
        let mut stop = false;
        for_lanes(here.active, |lane| {
            if stop {
                return;
            }
            let at = (here.pc, lane as u32);
            let Some((block, address)) = self.mbarrier_place(warp, at, all[lane]) else { return };
            match kind {
                Mbarrier::Init => {
                    let count = i64::from(warp.file.word(inst.b)[lane]);
                    self.mbarrier_init(warp, at, (block, address), count);
                }
                Mbarrier::Wait { parity, blocks } => {
                    match self.mbarrier_wait(warp, inst, at, (block, address), parity) {
                        Some(wait) if blocks => {
                            flow = Flow::Wait(wait);
                            stop = true;
                        }
                        Some(_) => {
                            warp.file.set_predicate(inst.d, 0, 1 << lane);
                            flow = Flow::Yield;
                        }
                        None => warp.file.set_predicate(inst.d, u32::MAX, 1 << lane),
                    }
                }
                _ => self.mbarrier_change(warp, inst, at, (block, address), kind),
            }
        });
        if matches!(kind, Mbarrier::Arrive { .. } | Mbarrier::Wait { .. })
            && matches!(flow, Flow::Next)
        {
            warp.tick();
        }
        // Others may run between an arrival and what follows it.
        if matches!(kind, Mbarrier::Arrive { .. })
            && self.machine.options.seed != 0
            && self.random(2) == 0
        {
            return Flow::Yield;
        }
        flow
    }

    fn mbarrier_place(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, u32),
        address: u64,
    ) -> Option<(usize, u32)> {
        let place = self.shared_place(warp, address);
        let inside = |(block, offset): &(usize, u32)| {
            offset.is_multiple_of(8) && *offset as usize + 8 <= self.blocks[*block].shared.len()
        };
        let found = place.filter(inside);
        if found.is_none() {
            self.report((warp, lane, pc), FindingKind::Mbarrier, None, || {
                format!(
                    "an mbarrier at {address:#x}, which is no multiple of 8 within shared memory"
                )
            });
        }
        found
    }

    fn mbarrier_init(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, u32),
        (block, address): (usize, u32),
        count: i64,
    ) {
        if !(1..=COUNT_MAX).contains(&count) {
            self.report((warp, lane, pc), FindingKind::Mbarrier, None, || {
                format!("an mbarrier for {count} arrivals")
            });
        }
        let agent = self.agents;
        self.agents += 1;
        let state = MbarrierState { count, pending: count, agent, ..MbarrierState::default() };
        if self.blocks[block].mbarriers.insert(address, state).is_some() {
            self.report((warp, lane, pc), FindingKind::Mbarrier, None, || {
                format!("the mbarrier at {address} is initialised again without mbarrier.inval")
            });
        }
    }

    fn missing(&mut self, warp: &Warp, (pc, lane): (u32, u32), address: u32) {
        self.report((warp, lane, pc), FindingKind::Mbarrier, None, || {
            format!("the mbarrier at {address} was never initialised")
        });
    }

    /// What a wait must wait for; nothing when its phase is complete.
    fn mbarrier_wait(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        at: (u32, u32),
        (block, address): (usize, u32),
        parity: bool,
    ) -> Option<Wait> {
        let lane = at.1 as usize;
        let Some(state) = self.blocks[block].mbarriers.get_mut(&address) else {
            self.missing(warp, at, address);
            self.stopped = true;
            return None;
        };
        let over = if parity {
            state.phase & 1 != warp.file.word(inst.b)[lane] & 1
        } else {
            state.phase != warp.file.double(inst.b)[lane] as u32
        };
        if over {
            warp.clock.join(&state.released);
            return None;
        }
        state.waited_at = Some(at.0);
        Some(Wait::Mbarrier { block, address, phase: state.phase })
    }

    fn mbarrier_change(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        at: (u32, u32),
        (block, address): (usize, u32),
        kind: Mbarrier,
    ) {
        let lane = at.1 as usize;
        let word = |slot: u32| i64::from(warp.file.word(slot)[lane]);
        let (arrivals, bytes) = match kind {
            Mbarrier::Arrive { .. } => (
                if inst.b == NONE { 1 } else { word(inst.b) },
                if inst.c == NONE { 0 } else { word(inst.c) },
            ),
            Mbarrier::ExpectTx => (0, word(inst.b)),
            Mbarrier::CompleteTx => (0, -word(inst.b)),
            _ => (0, 0),
        };
        let Some(state) = self.blocks[block].mbarriers.get_mut(&address) else {
            return self.missing(warp, at, address);
        };
        if kind == Mbarrier::Inval {
            self.blocks[block].mbarriers.remove(&address);
            return;
        }
        // The token: phase, and arrivals missing before this one.
        let token = u64::from(state.phase) | (state.pending as u64) << 32;
        if kind == (Mbarrier::Arrive { drop: true }) {
            state.count -= 1;
        }
        state.transactions += bytes;
        state.pending -= arrivals;
        if arrivals > 0 {
            state.clock.join(&warp.clock);
            let known = state.clock.time(warp.agent).max(warp.time);
            state.clock.set(warp.agent, known);
        }
        let too_many = state.pending < 0;
        state.settle();
        if too_many {
            let words = state.describe();
            self.report((warp, at.1, at.0), FindingKind::Mbarrier, None, || {
                format!("more arrivals at the mbarrier at {address} than it expects: {words}")
            });
        }
        warp.file.doubles[inst.d as usize].0[lane] = token;
    }

    /// Bytes of an asynchronous copy have arrived.
    pub(crate) fn complete_bytes(&mut self, block: usize, address: u32, bytes: i64) {
        if let Some(state) = self.blocks[block].mbarriers.get_mut(&address) {
            state.transactions -= bytes;
            state.settle();
        }
    }

    /// `cp.async.mbarrier.arrive`: the warp's copies arrive through an mbarrier.
    pub(crate) fn copy_arrive(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        (pc, active): (u32, u32),
        counted: bool,
    ) {
        let all = addresses(warp, inst.a, inst.b != 0, inst.offset).map(|a| a & ((1 << 56) - 1));
        let lead = first(active);
        let Some((block, address)) = self.mbarrier_place(warp, (pc, lead as u32), all[lead]) else {
            return;
        };
        let Some(state) = self.blocks[block].mbarriers.get(&address) else {
            return self.missing(warp, (pc, lead as u32), address);
        };
        let stamp = state.stamp();
        self.end_all_element_copies(warp, Some(stamp));
        if counted && let Some(state) = self.blocks[block].mbarriers.get_mut(&address) {
            state.pending -= i64::from(active.count_ones());
            state.clock.join(&warp.clock);
            state.clock.set(warp.agent, warp.time);
            state.settle();
        }
        warp.tick();
    }
}
