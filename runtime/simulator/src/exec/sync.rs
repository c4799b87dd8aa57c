//! Waiting: lanes of a warp for each other, warps at barriers, blocks of a cluster.

use super::address::first;
use super::lanes::LANES;
use super::state::Worker;
use super::step::{Flow, Here};
use super::warp::{Wait, Warp};
use crate::check::{Clock, FindingKind};
use crate::decode::inst::{Inst, NONE, Op, Vote};

/// Named barriers of a block.
pub(crate) const BARRIERS: usize = 16;

/// A barrier that warps gather at.
#[derive(Default)]
pub(crate) struct BarrierState {
    pub(crate) generation: u32,
    /// Warps that arrived in this generation, and with which lanes.
    arrived: Vec<(u32, u32)>,
    /// Threads asked for; zero when the whole block.
    threads: u32,
    /// What those that arrived know.
    clock: Clock,
    /// What those of the last generation knew.
    released: Clock,
    /// The last generation was of the whole block.
    released_whole: bool,
    /// Of a reduction: lanes for which the predicate holds, lanes at all.
    votes: (u32, u32),
    result: (u32, u32),
    /// An instruction that waits here, for reports.
    pub(crate) pc: u32,
}

impl BarrierState {
    pub(crate) fn reset(&mut self) {
        *self = BarrierState::default();
    }
}

impl Worker<'_> {
    /// Whether a wait has ended.
    pub(crate) fn is_over(&self, warp: &Warp, wait: Wait) -> bool {
        match wait {
            Wait::None => true,
            Wait::Lanes { .. } => false,
            Wait::Barrier { id, generation } => {
                self.blocks[warp.block].barriers[usize::from(id)].generation != generation
            }
            Wait::Mbarrier { block, address, phase } => {
                self.blocks[block].mbarriers.get(&address).is_none_or(|m| m.phase != phase)
            }
            Wait::Cluster { generation } => self.cluster.generation != generation,
        }
    }

    /// What happens to a fragment when its wait ends.
    pub(crate) fn finish_wait(&mut self, warp: &mut Warp, at: usize, wait: Wait) {
        match wait {
            Wait::Barrier { id, .. } => {
                let fragment = warp.fragments[at];
                let inst = &self.machine.kernel.code[fragment.pc as usize];
                let barrier = &self.blocks[warp.block].barriers[usize::from(id)];
                warp.clock.join(&barrier.released);
                warp.epoch += u32::from(barrier.released_whole);
                if let Op::Barrier { reduction: Some(vote), .. } = inst.op {
                    let (set, all) = barrier.result;
                    match vote {
                        Vote::Ballot => warp.file.set_word(inst.d, &[set; LANES], fragment.mask),
                        Vote::All => set_all(warp, inst.d, set == all, fragment.mask),
                        _ => set_all(warp, inst.d, set != 0, fragment.mask),
                    }
                }
                warp.tick();
                self.finish_instruction(warp, at);
            }
            Wait::Cluster { .. } => {
                warp.clock.join(&self.cluster.released);
                warp.tick();
                warp.cluster_arrived = None;
                self.finish_instruction(warp, at);
            }
            // The instruction is executed again, and succeeds.
            _ => {}
        }
    }

    /// Counts an instruction that waited and steps over it.
    fn finish_instruction(&mut self, warp: &mut Warp, at: usize) {
        let fragment = &mut warp.fragments[at];
        let count = &mut self.counts[fragment.pc as usize];
        count.issues += 1;
        count.lanes += u64::from(fragment.mask.count_ones());
        fragment.pc += 1;
    }

    /// `bar` and `barrier`: warps arrive with all their live lanes.
    pub(crate) fn barrier(&mut self, warp: &mut Warp, inst: &Inst, here: Here) -> Flow {
        let Op::Barrier { waits, reduction, aligned } = inst.op else { return Flow::Next };
        let lead = first(here.active);
        let id = warp.file.word(inst.a)[lead] as usize;
        if id >= BARRIERS {
            self.report((warp, lead as u32, here.pc), FindingKind::Undefined, None, || {
                format!("barrier {id}; a block has {BARRIERS}")
            });
            return Flow::Stop;
        }
        if aligned && here.active != warp.live {
            self.check_converged(warp, (here.pc, here.active));
        }
        let threads = if inst.b == NONE { 0 } else { warp.file.word(inst.b)[lead] };
        if !threads.is_multiple_of(32) {
            self.report((warp, lead as u32, here.pc), FindingKind::Undefined, None, || {
                format!("a barrier for {threads} threads, which is no multiple of 32")
            });
        }
        let holds = warp.file.predicate(inst.c) ^ if inst.offset != 0 { u32::MAX } else { 0 };
        let barrier = &mut self.blocks[warp.block].barriers[id];
        let asked = barrier.threads;
        if barrier.arrived.is_empty() {
            barrier.threads = threads;
        }
        barrier.pc = here.pc;
        barrier.clock.join(&warp.clock);
        let known = barrier.clock.time(warp.agent).max(warp.time);
        barrier.clock.set(warp.agent, known);
        if reduction.is_some() {
            barrier.votes.0 += (holds & here.active).count_ones();
            barrier.votes.1 += here.active.count_ones();
        }
        match barrier.arrived.iter_mut().find(|(w, _)| *w == warp.index) {
            Some((_, lanes)) => *lanes |= here.active,
            None => barrier.arrived.push((warp.index, here.active)),
        }
        let mismatch = barrier.arrived.len() > 1 && asked != threads;
        let generation = barrier.generation;
        if mismatch {
            self.report((warp, lead as u32, here.pc), FindingKind::Undefined, None, || {
                format!("barrier {id} is used for {threads} threads (0: the block) and for {asked} at the same time")
            });
        }
        warp.tick();
        if waits { Flow::Wait(Wait::Barrier { id: id as u8, generation }) } else { Flow::Next }
    }

    /// Opens barriers that everyone expected has reached; whether any opened.
    pub(crate) fn open_barriers(&mut self, block: usize) -> bool {
        let per_block = self.machine.warps() as usize;
        let warps = &self.warps[block * per_block..(block + 1) * per_block];
        let live = |index: u32| warps[index as usize].live;
        let alive = warps.iter().filter(|w| !w.is_done()).count() as u32;
        let mut opened = false;
        for barrier in self.blocks[block].barriers.iter_mut().filter(|b| !b.arrived.is_empty()) {
            let whole = |(w, lanes): &&(u32, u32)| live(*w) & !lanes == 0;
            let arrived = barrier.arrived.iter().filter(whole).count() as u32;
            let gone = barrier.arrived.iter().filter(|(w, _)| live(*w) == 0).count() as u32;
            let expected =
                if barrier.threads == 0 { alive + gone } else { barrier.threads.div_ceil(32) };
            if arrived >= expected && arrived > 0 {
                barrier.generation += 1;
                barrier.released = std::mem::take(&mut barrier.clock);
                barrier.result = std::mem::take(&mut barrier.votes);
                barrier.arrived.clear();
                barrier.released_whole = barrier.threads == 0;
                barrier.threads = 0;
                opened = true;
            }
        }
        opened
    }

    /// `barrier.cluster`
    pub(crate) fn cluster_barrier(&mut self, warp: &mut Warp, inst: &Inst, here: Here) -> Flow {
        match inst.op {
            Op::ClusterArrive { release } => {
                if warp.cluster_arrived.is_some() {
                    self.report(
                        (warp, first(here.active) as u32, here.pc),
                        FindingKind::Undefined,
                        None,
                        || "barrier.cluster.arrive twice without a wait between".into(),
                    );
                    return Flow::Next;
                }
                warp.cluster_arrived = Some(self.cluster.generation);
                if release {
                    self.cluster.clock.join(&warp.clock);
                    self.cluster.clock.set(warp.agent, warp.time);
                }
                self.cluster.arrived += 1;
                warp.tick();
                Flow::Next
            }
            _ => match warp.cluster_arrived {
                Some(generation) => Flow::Wait(Wait::Cluster { generation }),
                None => {
                    self.report(
                        (warp, first(here.active) as u32, here.pc),
                        FindingKind::Undefined,
                        None,
                        || "barrier.cluster.wait without an arrive before it".into(),
                    );
                    Flow::Next
                }
            },
        }
    }

    /// Opens the cluster barrier when all live warps of the gang have arrived.
    pub(crate) fn open_cluster_barrier(&mut self) -> bool {
        let waiting =
            self.warps.iter().filter(|w| !w.is_done() && w.cluster_arrived.is_none()).count();
        if self.cluster.arrived == 0 || waiting != 0 {
            return false;
        }
        self.cluster.generation += 1;
        self.cluster.released = std::mem::take(&mut self.cluster.clock);
        self.cluster.arrived = 0;
        true
    }

    /// `fence.proxy.async`: earlier plain writes of the warp become visible to the asynchronous proxy.
    pub(crate) fn proxy_fence(&mut self, warp: &mut Warp) {
        self.fenced[warp.agent as usize] = warp.time;
        warp.fenced = warp.time;
        warp.tick();
    }
}

fn set_all(warp: &mut Warp, slot: u32, holds: bool, mask: u32) {
    warp.file.set_predicate(slot, if holds { u32::MAX } else { 0 }, mask);
}
