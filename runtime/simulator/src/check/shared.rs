//! Shadow of a block's shared memory: who wrote and read each granule last, and what is still in flight.
//!
//! A granule is the smallest access of the kernel (1, 2 or 4 bytes), so that neighbours never alias. Accesses
//! before the last barrier of the whole block are known to be ordered by that barrier's number alone; only
//! those since then need clocks.

use super::clock::{Clock, Stamp};

/// Written by anything.
const WRITTEN: u64 = 1 << 56;
/// An asynchronous copy into it has not arrived.
const PENDING: u64 = 1 << 57;
/// Several readers since the last barrier. The low half is a mask of warps, or the index of a list.
const MANY: u64 = 1 << 58;
/// The asynchronous proxy wrote it, so that no proxy fence is needed.
const BY_PROXY: u64 = 1 << 59;
/// Bits that say which lane.
const LANE_BITS: u64 = 0xff << 48;
/// Stands for several lanes of a warp.
pub(crate) const SEVERAL_LANES: u32 = 0xff;
/// Epoch of an accessor that takes no part in the block's barriers, as the past sees it.
pub(crate) const NO_EPOCH: u32 = u32::MAX;

/// Time, agent and lane of an access in one word.
fn pack(stamp: Stamp, lane: u32, flags: u64) -> u64 {
    u64::from(stamp.time)
        | u64::from(stamp.agent & 0xffff) << 32
        | u64::from(lane & 0xff) << 48
        | flags
}

fn stamp_of(packed: u64) -> Stamp {
    Stamp { agent: (packed >> 32) as u32 & 0xffff, time: packed as u32 }
}

fn lane_of(packed: u64) -> u32 {
    (packed >> 48) as u32 & 0xff
}

#[derive(Clone, Copy, Default)]
struct Cell {
    write: u64,
    read: u64,
    write_pc: u32,
    read_pc: u32,
    write_epoch: u32,
    read_epoch: u32,
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Uninitialised,
    /// Nothing orders it after an access of another thread.
    Race {
        other: Stamp,
        lane: u32,
        pc: u32,
        wrote: bool,
    },
    /// An asynchronous copy has not arrived.
    Pending {
        other: Stamp,
        lane: u32,
        pc: u32,
    },
    /// A plain write that the asynchronous proxy may not see.
    Unfenced {
        other: Stamp,
        lane: u32,
        pc: u32,
    },
}

/// Who accesses.
#[derive(Clone, Copy)]
pub(crate) struct Accessor<'c> {
    pub(crate) stamp: Stamp,
    pub(crate) lane: u32,
    pub(crate) pc: u32,
    pub(crate) clock: &'c Clock,
    /// Barriers of the whole block that it has passed; zero when it is of another block.
    pub(crate) epoch: u32,
    /// What the past of others compares with: the epoch, or [`NO_EPOCH`].
    pub(crate) leaves: u32,
}

/// Granules of one access: where it begins, how many, and how many (as a power of two) each lane has; lanes
/// count up from the accessor's.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) start: u32,
    pub(crate) bytes: u32,
    /// Bytes of a lane, or zero when one lane has them all.
    pub(crate) per_lane: u32,
}

/// The shadow of one block's shared memory.
#[derive(Default)]
pub(crate) struct SharedShadow {
    cells: Vec<Cell>,
    shift: u32,
    /// Readers are told apart by clocks, since other things than whole barriers order them.
    fine: bool,
    /// Granules that are always written together, for the asynchronous proxy.
    step: usize,
    readers: Vec<Vec<(u64, u32)>>,
    free: Vec<u32>,
}

impl SharedShadow {
    /// Forgets everything; `granule` is 1, 2 or 4 bytes, `stored` the smallest plain store, at most 16. `fine`: the kernel has other order than barriers of
    /// the whole block.
    pub(crate) fn reset(&mut self, bytes: usize, (granule, stored): (u32, u32), fine: bool) {
        (self.shift, self.fine) = (granule.trailing_zeros(), fine);
        self.step = (stored / granule).max(1) as usize;
        self.cells.clear();
        self.cells.resize(bytes.div_ceil(granule as usize), Cell::default());
        self.free = (0..self.readers.len() as u32).collect();
    }

    fn range(&self, start: u32, bytes: u32) -> std::ops::Range<usize> {
        let end = (start + bytes + (1 << self.shift) - 1) >> self.shift;
        let end = (end as usize).min(self.cells.len());
        ((start >> self.shift) as usize).min(end)..end
    }

    /// Shift from a cell's position in a row to its lane.
    fn lane_shift(&self, row: Row) -> u32 {
        match row.per_lane >> self.shift {
            0 => 31,
            cells => cells.trailing_zeros(),
        }
    }

    /// A plain read; the first conflict of its granules.
    #[inline(always)]
    pub(crate) fn read(&mut self, row: Row, me: &Accessor<'_>) -> Option<Conflict> {
        let mut found = None;
        let (base, shift) = (pack(me.stamp, me.lane, 0), self.lane_shift(row));
        let range = self.range(row.start, row.bytes);
        let (cells, fine) = (&mut self.cells[range], self.fine);
        for (at, cell) in cells.iter_mut().enumerate() {
            let packed = base + ((at as u64 >> shift) << 48);
            let settled =
                cell.write & (WRITTEN | PENDING) == WRITTEN && cell.write_epoch < me.epoch;
            if !settled {
                found = found.or_else(|| after_write(cell, lane_of(packed), me));
            }
            if cell.read == 0 || cell.read_epoch < me.epoch {
                if cell.read & MANY != 0 && fine {
                    self.free.push(cell.read as u32);
                }
                (cell.read, cell.read_pc, cell.read_epoch) = (packed, me.pc, me.leaves);
            } else if cell.read != packed {
                add_reader(cell, packed, me, fine.then_some((&mut self.readers, &mut self.free)));
            }
        }
        found
    }

    /// A plain write; the first conflict of its granules.
    #[inline(always)]
    pub(crate) fn write(&mut self, row: Row, me: &Accessor<'_>) -> Option<Conflict> {
        self.replace(row, me, WRITTEN)
    }

    /// A write of an asynchronous copy begins: it must lie after earlier accesses, and nobody may touch its
    /// granules until it has arrived.
    pub(crate) fn begin_copy(&mut self, row: Row, me: &Accessor<'_>) -> Option<Conflict> {
        self.replace(row, me, PENDING)
    }

    /// An asynchronous copy has arrived at a moment of an agent; `leaves` as in [`Accessor`].
    pub(crate) fn end_copy(
        &mut self,
        row: Row,
        (stamp, lane, leaves): (Stamp, u32, u32),
        by_proxy: bool,
    ) {
        let shift = self.lane_shift(row);
        let range = self.range(row.start, row.bytes);
        let base = pack(stamp, lane, WRITTEN | if by_proxy { BY_PROXY } else { 0 });
        for (at, cell) in self.cells[range].iter_mut().enumerate() {
            cell.write = base + ((at as u64 >> shift) << 48);
            (cell.write_epoch, cell.read) = (leaves, 0);
        }
    }

    /// An atomic: it becomes the last writer without racing.
    pub(crate) fn atomic(&mut self, start: u32, bytes: u32, me: &Accessor<'_>) -> Option<Conflict> {
        let mut found = None;
        let range = self.range(start, bytes);
        for cell in &mut self.cells[range] {
            found = found.or_else(|| after_write(cell, me.lane, me));
            (cell.write, cell.write_pc) = (pack(me.stamp, me.lane, WRITTEN), me.pc);
            cell.write_epoch = me.leaves;
        }
        found
    }

    #[inline(always)]
    fn replace(&mut self, row: Row, me: &Accessor<'_>, flags: u64) -> Option<Conflict> {
        let mut found = None;
        let (base, shift) = (pack(me.stamp, me.lane, flags), self.lane_shift(row));
        let range = self.range(row.start, row.bytes);
        let fine = self.fine;
        for (at, cell) in self.cells[range].iter_mut().enumerate() {
            let packed = base + ((at as u64 >> shift) << 48);
            let settled = cell.write & PENDING == 0 && cell.write_epoch < me.epoch;
            if !settled {
                found = found.or_else(|| before_write(cell, lane_of(packed), me));
            }
            if cell.read != 0 {
                if cell.read_epoch >= me.epoch {
                    found = found.or_else(|| {
                        after_reads(cell, lane_of(packed), me, fine.then_some(&self.readers))
                    });
                }
                if cell.read & MANY != 0 && fine {
                    self.free.push(cell.read as u32);
                }
            }
            *cell = Cell {
                write: packed,
                read: 0,
                write_pc: me.pc,
                read_pc: 0,
                write_epoch: me.leaves,
                read_epoch: 0,
            };
        }
        found
    }

    /// A read by the asynchronous proxy at the moment of its issue: `fenced` tells whether an agent made its
    /// writes up to a time visible to the proxy.
    pub(crate) fn proxy_read(
        &self,
        start: u32,
        bytes: u32,
        me: &Accessor<'_>,
        fenced: impl Fn(Stamp) -> bool,
    ) -> Option<Conflict> {
        let mut last = 0;
        for cell in self.cells[self.range(start, bytes)].iter().step_by(self.step.max(1)) {
            if cell.write == last {
                continue;
            }
            last = cell.write;
            if let Some(conflict) = after_write(cell, SEVERAL_LANES, me) {
                return Some(conflict);
            }
            let (other, lane) = (stamp_of(cell.write), lane_of(cell.write));
            if cell.write & BY_PROXY == 0 && !fenced(other) {
                return Some(Conflict::Unfenced { other, lane, pc: cell.write_pc });
            }
        }
        None
    }
}

/// Whether another thread's access at a moment may be at the same time as that of a lane of mine.
#[inline(always)]
fn concurrent(packed: u64, lane: u32, me: &Accessor<'_>) -> bool {
    let other = stamp_of(packed);
    if other.agent == me.stamp.agent {
        // Lanes of a warp are ordered by its synchronising instructions only.
        return other.time == me.stamp.time && lane_of(packed) != lane;
    }
    !me.clock.knows(other)
}

fn after_write(cell: &Cell, lane: u32, me: &Accessor<'_>) -> Option<Conflict> {
    let (other, by, pc) = (stamp_of(cell.write), lane_of(cell.write), cell.write_pc);
    if cell.write & PENDING != 0 {
        return Some(Conflict::Pending { other, lane: by, pc });
    }
    if cell.write & WRITTEN == 0 {
        return Some(Conflict::Uninitialised);
    }
    let ordered = cell.write_epoch < me.epoch || !concurrent(cell.write, lane, me);
    (!ordered).then_some(Conflict::Race { other, lane: by, pc, wrote: true })
}

fn before_write(cell: &Cell, lane: u32, me: &Accessor<'_>) -> Option<Conflict> {
    if cell.write == 0 {
        return None;
    }
    let (other, by, pc) = (stamp_of(cell.write), lane_of(cell.write), cell.write_pc);
    if cell.write & PENDING != 0 {
        return Some(Conflict::Pending { other, lane: by, pc });
    }
    // Lanes that write one place by one instruction are left to the hardware's choice.
    let same_instruction = other == me.stamp && pc == me.pc;
    let race =
        cell.write_epoch >= me.epoch && concurrent(cell.write, lane, me) && !same_instruction;
    race.then_some(Conflict::Race { other, lane: by, pc, wrote: true })
}

fn after_reads(
    cell: &Cell,
    lane: u32,
    me: &Accessor<'_>,
    readers: Option<&Vec<Vec<(u64, u32)>>>,
) -> Option<Conflict> {
    let race = |packed: u64, pc: u32| Conflict::Race {
        other: stamp_of(packed),
        lane: lane_of(packed),
        pc,
        wrote: false,
    };
    if cell.read & MANY == 0 {
        return concurrent(cell.read, lane, me).then(|| race(cell.read, cell.read_pc));
    }
    let Some(readers) = readers else {
        let others = cell.read as u32 & !(1 << (me.stamp.agent & 31));
        let agent = others.trailing_zeros() | me.stamp.agent & !31;
        return (others != 0).then(|| race(pack(Stamp { agent, time: 0 }, 0, 0), cell.read_pc));
    };
    let list = &readers[cell.read as u32 as usize];
    list.iter()
        .find(|(packed, _)| concurrent(*packed, lane, me))
        .map(|(packed, pc)| race(*packed, *pc))
}

/// Lists of readers, and those that are free.
type Lists<'l> = (&'l mut Vec<Vec<(u64, u32)>>, &'l mut Vec<u32>);

/// Adds a reader to a cell that has one since the last barrier.
fn add_reader(cell: &mut Cell, packed: u64, me: &Accessor<'_>, lists: Option<Lists<'_>>) {
    let agent = |p: u64| stamp_of(p).agent;
    cell.read_epoch = cell.read_epoch.max(me.leaves);
    if cell.read & MANY == 0 && agent(cell.read) == me.stamp.agent {
        let lane = if stamp_of(cell.read) == me.stamp { LANE_BITS } else { 0 };
        (cell.read, cell.read_pc) = (packed | lane, me.pc);
        return;
    }
    let Some((readers, free)) = lists else {
        let mask =
            if cell.read & MANY == 0 { 1 << (agent(cell.read) & 31) } else { cell.read as u32 };
        cell.read = MANY | u64::from(mask | 1 << (me.stamp.agent & 31));
        return;
    };
    if cell.read & MANY == 0 {
        let index = free.pop().unwrap_or_else(|| {
            readers.push(Vec::new());
            readers.len() as u32 - 1
        });
        let list = &mut readers[index as usize];
        list.clear();
        list.push((cell.read, cell.read_pc));
        cell.read = MANY | u64::from(index);
    }
    let list = &mut readers[cell.read as u32 as usize];
    match list.iter_mut().find(|(p, _)| agent(*p) == me.stamp.agent) {
        Some(mine) => {
            let lane = if stamp_of(mine.0) == me.stamp { LANE_BITS } else { 0 };
            *mine = (packed | lane, me.pc);
        }
        None => list.push((packed, me.pc)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(agent: u32, time: u32, epoch: u32, clock: &Clock) -> Accessor<'_> {
        Accessor { stamp: Stamp { agent, time }, lane: 0, pc: agent, clock, epoch, leaves: epoch }
    }

    fn word(start: u32) -> Row {
        Row { start, bytes: 4, per_lane: 0 }
    }

    fn shadow(fine: bool) -> SharedShadow {
        let mut shadow = SharedShadow::default();
        shadow.reset(64, (4, 4), fine);
        shadow
    }

    #[test]
    fn a_read_of_another_warps_write_needs_its_clock_or_a_barrier() {
        let (mut shadow, mut clock) = (shadow(true), Clock::default());
        assert_eq!(shadow.write(word(0), &access(0, 1, 0, &Clock::default())), None);
        let race = shadow.read(word(0), &access(1, 1, 0, &clock));
        assert!(matches!(race, Some(Conflict::Race { wrote: true, pc: 0, .. })));
        assert_eq!(shadow.read(word(0), &access(1, 1, 1, &clock)), None);
        clock.set(0, 1);
        assert_eq!(shadow.read(word(0), &access(1, 1, 0, &clock)), None);
    }

    #[test]
    fn a_write_after_several_readers_needs_to_know_them_all() {
        let (mut shadow, mut clock) = (shadow(true), Clock::default());
        clock.set(0, 1);
        shadow.write(word(0), &access(0, 1, 0, &Clock::default()));
        for agent in [1, 2] {
            assert_eq!(shadow.read(word(0), &access(agent, 1, 0, &clock)), None);
        }
        clock.set(1, 1);
        let race = shadow.write(word(0), &access(0, 2, 0, &clock));
        assert!(matches!(race, Some(Conflict::Race { wrote: false, pc: 2, .. })));
    }

    #[test]
    fn without_fine_order_only_barriers_separate_readers_from_a_writer() {
        let (mut shadow, clock) = (shadow(false), Clock::default());
        shadow.write(word(0), &access(0, 1, 0, &clock));
        for agent in [0, 1, 2] {
            assert_eq!(shadow.read(word(0), &access(agent, 2, 1, &clock)), None);
        }
        let mut again =
            SharedShadow { cells: shadow.cells.clone(), shift: 2, ..SharedShadow::default() };
        assert_eq!(again.write(word(0), &access(0, 3, 2, &clock)), None);
        assert!(shadow.write(word(0), &access(0, 3, 1, &clock)).is_some());
    }

    #[test]
    fn lanes_of_a_row_are_told_apart() {
        let (mut shadow, clock) = (shadow(false), Clock::default());
        let row = Row { start: 0, bytes: 32, per_lane: 4 };
        assert_eq!(shadow.write(row, &access(0, 1, 0, &clock)), None);
        let mut me = access(0, 1, 0, &clock);
        me.lane = 3;
        assert_eq!(shadow.read(word(12), &me), None);
        assert!(matches!(shadow.read(word(16), &me), Some(Conflict::Race { lane: 4, .. })));
    }

    #[test]
    fn copies_in_flight_may_not_be_touched() {
        let (mut shadow, clock) = (shadow(false), Clock::default());
        let row = Row { start: 0, bytes: 16, per_lane: 0 };
        assert_eq!(shadow.begin_copy(row, &access(0, 1, 0, &clock)), None);
        assert!(matches!(
            shadow.read(word(12), &access(0, 1, 0, &clock)),
            Some(Conflict::Pending { .. })
        ));
        shadow.end_copy(row, (Stamp { agent: 0, time: 2 }, 0, 0), false);
        assert_eq!(shadow.read(word(12), &access(0, 3, 0, &clock)), None);
    }

    #[test]
    fn unwritten_granules_are_found() {
        let (mut shadow, clock) = (shadow(false), Clock::default());
        assert_eq!(shadow.read(word(8), &access(0, 1, 0, &clock)), Some(Conflict::Uninitialised));
    }
}
