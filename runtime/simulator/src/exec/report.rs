//! From what went wrong to a finding: who, where, and in which words.

use super::state::Worker;
use super::warp::Warp;
use crate::check::{Conflict, FindingKind, Key, OtherBlock, Sighting, Stamp};

/// The other access of a conflict.
#[derive(Clone, Copy)]
pub(crate) struct Other {
    pub(crate) stamp: Stamp,
    pub(crate) lane: u32,
    pub(crate) pc: u32,
}

impl Worker<'_> {
    /// Position of a thread in its block.
    pub(crate) fn thread(&self, warp: u32, lane: u32) -> [u32; 3] {
        let [x, y, _] = self.machine.block;
        let t = warp * 32 + lane;
        [t % x, t / x % y, t / (x * y)]
    }

    /// Adds a finding at an instruction of a warp.
    pub(crate) fn report(
        &mut self,
        (warp, lane, pc): (&Warp, u32, u32),
        kind: FindingKind,
        other: Option<Other>,
        words: impl FnOnce() -> String,
    ) {
        let key = Key { kind, pc, other_pc: other.map(|o| o.pc) };
        let thread = self.thread(warp.index, lane);
        let block = self.blocks[warp.block].id;
        let other = other.and_then(|o| {
            // Agents after the warps are mbarriers: asynchronous copies have no thread.
            let per_block = self.machine.warps();
            let at = (o.stamp.agent / per_block) as usize;
            let there = self.blocks.get(at)?.id;
            Some((there, self.thread(o.stamp.agent % per_block, o.lane)))
        });
        let gang = self.findings.gang;
        self.findings.add(key, || Sighting {
            gang,
            block,
            thread,
            other,
            message: words(),
            count: 1,
        });
    }

    /// Adds a finding for a conflict in shared memory.
    pub(crate) fn report_conflict(
        &mut self,
        at: (&Warp, u32, u32),
        conflict: Conflict,
        (address, writes): (u32, bool),
    ) {
        let verb = if writes { "written" } else { "read" };
        match conflict {
            Conflict::Uninitialised => {
                self.report(at, FindingKind::UninitialisedShared, None, || {
                    format!("shared memory at byte {address} is read and nothing has written it")
                });
            }
            Conflict::Race { other, lane, pc, wrote } => {
                let same_warp = other.agent == at.0.agent;
                let order = if same_warp { "no __syncwarp" } else { "no barrier" };
                let before = if wrote { "written" } else { "read" };
                let other = Some(Other { stamp: other, lane, pc });
                self.report(at, FindingKind::SharedRace, other, || {
                    format!(
                        "shared memory at byte {address} is {verb} after another thread has {before} it, with {order} between"
                    )
                });
            }
            Conflict::Pending { other, lane, pc } => {
                let other = Some(Other { stamp: other, lane, pc });
                self.report(at, FindingKind::AsyncHazard, other, || {
                    format!("shared memory at byte {address} is {verb} while an asynchronous copy into it may be under way")
                });
            }
            Conflict::Unfenced { other, lane, pc } => {
                let other = Some(Other { stamp: other, lane, pc });
                self.report(at, FindingKind::MissingProxyFence, other, || {
                    format!("shared memory at byte {address}, written by plain stores, is read by the asynchronous proxy with no fence.proxy.async between")
                });
            }
        }
    }

    /// Adds a finding for a race between blocks.
    pub(crate) fn report_global(
        &mut self,
        at: (&Warp, u32, u32),
        other: OtherBlock,
        address: u64,
        writes: bool,
    ) {
        self.report(at, FindingKind::GlobalRace, None, || {
            let verb = if writes { "written" } else { "read" };
            let before = if other.wrote { "written" } else { "read" };
            format!("global memory at {address:#x} is {verb} by one block and {before} by another, and nothing orders them")
        });
    }
}
