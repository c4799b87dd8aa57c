//! A warp: its registers, which of its lanes are where, and what it has under way.
//!
//! Lanes that part at a branch become fragments that meet again at the branch's post-dominator. Any fragment
//! may run while another waits, as on devices since Volta.

use std::collections::VecDeque;

use super::copy::ElementCopy;
use super::lanes::File;
use super::wgmma::Product;
use crate::check::{Accessor, Clock, NO_EPOCH, Stamp};
use crate::decode::inst::NONE;

/// Why a fragment cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// It can.
    None,
    /// For other lanes of the warp at an instruction for these members.
    Lanes { members: u32 },
    /// For a barrier to begin its next generation.
    Barrier { id: u8, generation: u32 },
    /// For an mbarrier of a block to complete a phase.
    Mbarrier { block: usize, address: u32, phase: u32 },
    /// For the cluster barrier to begin its next generation.
    Cluster { generation: u32 },
}

/// Lanes at one place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fragment {
    pub(crate) pc: u32,
    pub(crate) mask: u32,
    /// Where it waits for those it parted from.
    pub(crate) meet: u32,
    join: u32,
    pub(crate) wait: Wait,
}

/// Lanes that parted and will meet.
#[derive(Clone, Copy, Debug)]
struct Join {
    pc: u32,
    /// Lanes that are expected; those that leave the kernel are taken out.
    mask: u32,
    arrived: u32,
    meet: u32,
    parent: u32,
}

/// A warp of a gang.
#[derive(Default)]
pub(crate) struct Warp {
    pub(crate) file: File,
    /// Its block in the gang.
    pub(crate) block: usize,
    /// Its number in its block.
    pub(crate) index: u32,
    /// Its number in the gang's clocks.
    pub(crate) agent: u32,
    pub(crate) live: u32,
    pub(crate) fragments: Vec<Fragment>,
    joins: Vec<Join>,
    free_joins: Vec<u32>,
    pub(crate) clock: Clock,
    pub(crate) time: u32,
    /// Barriers of the whole block that it has passed.
    pub(crate) epoch: u32,
    /// Writes up to this time are visible to the asynchronous proxy.
    pub(crate) fenced: u32,
    pub(crate) local: Vec<u8>,
    /// `cp.async` since the last commit, and committed groups.
    pub(crate) copies: Vec<ElementCopy>,
    pub(crate) copy_groups: VecDeque<Vec<ElementCopy>>,
    /// Empty groups to use again.
    pub(crate) spare_copies: Vec<Vec<ElementCopy>>,
    /// `wgmma` since the last commit, and committed groups.
    pub(crate) products: Vec<Product>,
    pub(crate) product_groups: VecDeque<Vec<Product>>,
    /// Bulk stores since the last commit (their flights), and committed groups.
    pub(crate) stores: Vec<u64>,
    pub(crate) store_groups: VecDeque<Vec<u64>>,
    pub(crate) steps: u64,
    /// Cluster barrier generation that it arrived for.
    pub(crate) cluster_arrived: Option<u32>,
}

impl Warp {
    /// A warp without registers, at its place in its gang.
    pub(crate) fn at(block: usize, index: u32, agent: u32) -> Warp {
        Warp { block, index, agent, ..Warp::default() }
    }

    /// Puts all lanes of a mask at the first instruction.
    pub(crate) fn begin(&mut self, lanes: u32) {
        self.live = lanes;
        self.fragments.clear();
        self.fragments.push(Fragment {
            pc: 0,
            mask: lanes,
            meet: NONE,
            join: NONE,
            wait: Wait::None,
        });
        self.joins.clear();
        self.free_joins.clear();
        self.clock.clear();
        (self.time, self.epoch, self.fenced, self.steps) = (1, 0, 0, 0);
        self.local.fill(0);
        self.copies.clear();
        self.copy_groups.clear();
        self.products.clear();
        self.product_groups.clear();
        self.stores.clear();
        self.store_groups.clear();
        self.cluster_arrived = None;
    }

    /// Itself, as the shadow of a block of its gang sees it.
    #[inline(always)]
    pub(crate) fn accessor(&self, block: usize, lane: u32, pc: u32) -> Accessor<'_> {
        let stamp = Stamp { agent: self.agent, time: self.time };
        let (epoch, leaves) =
            if block == self.block { (self.epoch, self.epoch) } else { (0, NO_EPOCH) };
        Accessor { stamp, lane, pc, clock: &self.clock, epoch, leaves }
    }

    /// Advances its time after an instruction that orders its lanes.
    pub(crate) fn tick(&mut self) {
        self.time += 1;
    }

    /// Parts a fragment: `taken` lanes go to `target`, the others to the next instruction; all meet at `meet`.
    pub(crate) fn diverge(&mut self, at: usize, taken: u32, target: u32, meet: u32) {
        let whole = self.fragments[at];
        let rest = Fragment { pc: whole.pc + 1, mask: whole.mask & !taken, ..whole };
        self.part(at, &[(target, taken), (rest.pc, rest.mask)], meet);
    }

    /// Parts a fragment into several that meet again.
    pub(crate) fn part(&mut self, at: usize, parts: &[(u32, u32)], meet: u32) {
        let whole = self.fragments.swap_remove(at);
        let join = if meet == whole.meet && whole.join != NONE {
            whole.join
        } else {
            self.new_join(Join {
                pc: meet,
                mask: whole.mask,
                arrived: 0,
                meet: whole.meet,
                parent: whole.join,
            })
        };
        // The last one runs first: the lanes that fall through.
        for (pc, mask) in parts.iter().filter(|(_, mask)| *mask != 0) {
            if *pc == meet {
                self.joins[join as usize].arrived |= mask;
            } else {
                self.fragments.push(Fragment {
                    pc: *pc,
                    mask: *mask,
                    meet,
                    join,
                    wait: Wait::None,
                });
            }
        }
        self.close_joins(join);
    }

    fn new_join(&mut self, join: Join) -> u32 {
        match self.free_joins.pop() {
            Some(at) => {
                self.joins[at as usize] = join;
                at
            }
            None => {
                self.joins.push(join);
                self.joins.len() as u32 - 1
            }
        }
    }

    /// A fragment stands at its meeting point.
    pub(crate) fn arrive(&mut self, at: usize) {
        let fragment = self.fragments.swap_remove(at);
        self.joins[fragment.join as usize].arrived |= fragment.mask;
        self.close_joins(fragment.join);
    }

    /// Continues whatever is complete, from a join outwards.
    fn close_joins(&mut self, mut at: u32) {
        while at != NONE {
            let join = self.joins[at as usize];
            if join.arrived != join.mask {
                return;
            }
            self.free_joins.push(at);
            if join.mask != 0 && join.pc != join.meet {
                let (pc, mask) = (join.pc, join.mask);
                let fragment =
                    Fragment { pc, mask, meet: join.meet, join: join.parent, wait: Wait::None };
                self.fragments.push(fragment);
                return;
            }
            at = join.parent;
            if at != NONE {
                self.joins[at as usize].arrived |= join.mask;
            }
        }
    }

    /// Lanes of a fragment leave the kernel.
    pub(crate) fn leave(&mut self, at: usize, lanes: u32) {
        self.live &= !lanes;
        let mut join = self.fragments[at].join;
        let first = join;
        while join != NONE {
            self.joins[join as usize].mask &= !lanes;
            join = self.joins[join as usize].parent;
        }
        self.fragments[at].mask &= !lanes;
        self.fragments[at].pc += 1;
        if self.fragments[at].mask == 0 {
            self.fragments.swap_remove(at);
            self.close_joins(first);
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        self.live == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(warp: &Warp) -> Vec<(u32, u32)> {
        let mut all: Vec<_> = warp.fragments.iter().map(|f| (f.pc, f.mask)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn lanes_that_part_meet_again() {
        let mut warp = Warp::default();
        warp.begin(0xff);
        warp.diverge(0, 0x0f, 10, 20);
        assert_eq!(places(&warp), [(1, 0xf0), (10, 0x0f)]);
        warp.arrive(0);
        assert_eq!(warp.fragments.len(), 1);
        warp.arrive(0);
        assert_eq!(places(&warp), [(20, 0xff)]);
    }

    #[test]
    fn loops_left_lane_by_lane_keep_one_join() {
        let mut warp = Warp::default();
        warp.begin(0xf);
        for lane in 0..3 {
            // Lane by lane leaves the loop to 5; the others go back to 2.
            let at = warp.fragments.len() - 1;
            warp.fragments[at].pc = 4;
            let rest = warp.fragments[at].mask & !(1 << lane);
            warp.diverge(at, rest, 2, 5);
            assert_eq!(warp.joins.len(), 1);
        }
        let at = warp.fragments.len() - 1;
        warp.arrive(at);
        assert_eq!(places(&warp), [(5, 0xf)]);
    }

    #[test]
    fn lanes_that_leave_are_not_waited_for() {
        let mut warp = Warp::default();
        warp.begin(0x3);
        warp.diverge(0, 0x1, 10, 20);
        let at = warp.fragments.iter().position(|f| f.pc == 10).unwrap();
        warp.leave(at, 0x1);
        warp.arrive(0);
        assert_eq!((places(&warp), warp.live), (vec![(20, 0x2)], 0x2));
    }
}
