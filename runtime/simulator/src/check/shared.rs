//! Shadow of a block's shared memory: who wrote and read each granule last, and what is still in flight.
//!
//! A granule is the smallest access of the kernel (1, 2 or 4 bytes), so that neighbours never alias.

use super::clock::{Clock, Stamp};

/// Written by anything.
const WRITTEN: u64 = 1 << 56;
/// An asynchronous copy into it has not arrived.
const PENDING: u64 = 1 << 57;
/// Several readers, listed apart; the low half is the list's index.
const MANY: u64 = 1 << 58;
/// The asynchronous proxy wrote it, so that no proxy fence is needed.
const BY_PROXY: u64 = 1 << 59;

/// Time, agent and lane of an access in one word.
fn pack(stamp: Stamp, lane: u32, flags: u64) -> u64 {
    u64::from(stamp.time) | u64::from(stamp.agent & 0xffff) << 32 | u64::from(lane & 0xff) << 48 | flags
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
}

/// What is wrong with an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conflict {
    Uninitialised,
    /// Nothing orders it after an access of another thread.
    Race { other: Stamp, lane: u32, pc: u32, wrote: bool },
    /// An asynchronous copy has not arrived.
    Pending { other: Stamp, lane: u32, pc: u32 },
    /// A plain write that the asynchronous proxy may not see.
    Unfenced { other: Stamp, lane: u32, pc: u32 },
}

/// Who accesses.
#[derive(Clone, Copy)]
pub(crate) struct Accessor<'c> {
    pub(crate) stamp: Stamp,
    pub(crate) lane: u32,
    pub(crate) pc: u32,
    pub(crate) clock: &'c Clock,
}

/// The shadow of one block's shared memory.
#[derive(Default)]
pub(crate) struct SharedShadow {
    cells: Vec<Cell>,
    shift: u32,
    readers: Vec<Vec<(u64, u32)>>,
}

impl SharedShadow {
    /// Forgets everything; `granule` is 1, 2 or 4 bytes.
    pub(crate) fn reset(&mut self, bytes: usize, granule: u32) {
        self.shift = granule.trailing_zeros();
        self.cells.clear();
        self.cells.resize(bytes.div_ceil(granule as usize), Cell::default());
        self.readers.clear();
    }

    fn range(&self, start: u32, bytes: u32) -> std::ops::Range<usize> {
        let end = (start + bytes + (1 << self.shift) - 1) >> self.shift;
        (start >> self.shift) as usize..(end as usize).min(self.cells.len())
    }

    /// A plain read; the first conflict of its granules.
    #[inline]
    pub(crate) fn read(&mut self, start: u32, bytes: u32, me: &Accessor<'_>) -> Option<Conflict> {
        let mut found = None;
        let packed = pack(me.stamp, me.lane, 0);
        let range = self.range(start, bytes);
        for cell in &mut self.cells[range] {
            found = found.or(after_write(cell, me));
            if cell.read == packed || cell.read == 0 {
                (cell.read, cell.read_pc) = (packed, me.pc);
            } else {
                add_reader(cell, packed, me, &mut self.readers);
            }
        }
        found
    }

    /// A plain write; the first conflict of its granules.
    #[inline]
    pub(crate) fn write(&mut self, start: u32, bytes: u32, me: &Accessor<'_>) -> Option<Conflict> {
        self.replace(start, bytes, me, WRITTEN)
    }

    /// A write of an asynchronous copy begins: it must lie after earlier accesses, and nobody may touch its
    /// granules until it has arrived.
    pub(crate) fn begin_copy(&mut self, start: u32, bytes: u32, me: &Accessor<'_>) -> Option<Conflict> {
        self.replace(start, bytes, me, PENDING)
    }

    /// An asynchronous copy has arrived at a moment of an agent.
    pub(crate) fn end_copy(&mut self, start: u32, bytes: u32, stamp: Stamp, lane: u32, by_proxy: bool) {
        let range = self.range(start, bytes);
        let flags = WRITTEN | if by_proxy { BY_PROXY } else { 0 };
        for cell in &mut self.cells[range] {
            cell.write = pack(stamp, lane, flags);
            cell.read = 0;
        }
    }

    /// An atomic: it becomes the last writer without racing.
    pub(crate) fn atomic(&mut self, start: u32, bytes: u32, me: &Accessor<'_>) -> Option<Conflict> {
        let mut found = None;
        let range = self.range(start, bytes);
        for cell in &mut self.cells[range] {
            found = found.or(after_write(cell, me));
            (cell.write, cell.write_pc) = (pack(me.stamp, me.lane, WRITTEN), me.pc);
        }
        found
    }

    fn replace(&mut self, start: u32, bytes: u32, me: &Accessor<'_>, flags: u64) -> Option<Conflict> {
        let mut found = None;
        let range = self.range(start, bytes);
        let packed = pack(me.stamp, me.lane, flags);
        for cell in &mut self.cells[range] {
            let race = before_write(cell, me).or_else(|| after_reads(cell, me, &self.readers));
            found = found.or(race);
            *cell = Cell { write: packed, read: 0, write_pc: me.pc, read_pc: 0 };
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
        for cell in &self.cells[self.range(start, bytes)] {
            if cell.write == last {
                continue;
            }
            last = cell.write;
            if let Some(conflict) = after_write(cell, me) {
                return Some(conflict);
            }
            let (other, lane) = (stamp_of(cell.write), lane_of(cell.write));
            if cell.write & BY_PROXY == 0 && !fenced(other) {
                return Some(Conflict::Unfenced { other, lane, pc: cell.write_pc });
            }
        }
        None
    }

    /// Whether anything was ever written to a granule.
    #[cfg(test)]
    fn is_written(&self, at: u32) -> bool {
        self.cells[(at >> self.shift) as usize].write & WRITTEN != 0
    }
}

/// Whether another thread's access at a moment may be at the same time as mine.
#[inline(always)]
fn concurrent(packed: u64, me: &Accessor<'_>) -> bool {
    let other = stamp_of(packed);
    if other.agent == me.stamp.agent {
        // Lanes of a warp are ordered by its synchronising instructions only.
        return other.time == me.stamp.time && lane_of(packed) != me.lane;
    }
    !me.clock.knows(other)
}

#[inline(always)]
fn after_write(cell: &Cell, me: &Accessor<'_>) -> Option<Conflict> {
    if cell.write & WRITTEN != 0 && !concurrent(cell.write, me) {
        return None;
    }
    let (other, lane, pc) = (stamp_of(cell.write), lane_of(cell.write), cell.write_pc);
    Some(if cell.write & PENDING != 0 {
        Conflict::Pending { other, lane, pc }
    } else if cell.write & WRITTEN == 0 {
        Conflict::Uninitialised
    } else {
        Conflict::Race { other, lane, pc, wrote: true }
    })
}

#[inline(always)]
fn before_write(cell: &Cell, me: &Accessor<'_>) -> Option<Conflict> {
    if cell.write == 0 {
        return None;
    }
    let (other, lane, pc) = (stamp_of(cell.write), lane_of(cell.write), cell.write_pc);
    if cell.write & PENDING != 0 {
        return Some(Conflict::Pending { other, lane, pc });
    }
    // Lanes that write one place by one instruction are left to the hardware's choice.
    let same_instruction = other == me.stamp && pc == me.pc;
    (concurrent(cell.write, me) && !same_instruction)
        .then_some(Conflict::Race { other, lane, pc, wrote: true })
}

fn after_reads(cell: &Cell, me: &Accessor<'_>, readers: &[Vec<(u64, u32)>]) -> Option<Conflict> {
    let race = |packed: u64, pc: u32| Conflict::Race {
        other: stamp_of(packed),
        lane: lane_of(packed),
        pc,
        wrote: false,
    };
    if cell.read == 0 {
        return None;
    }
    if cell.read & MANY == 0 {
        return concurrent(cell.read, me).then(|| race(cell.read, cell.read_pc));
    }
    let list = &readers[cell.read as u32 as usize];
    list.iter().find(|(packed, _)| concurrent(*packed, me)).map(|(packed, pc)| race(*packed, *pc))
}

/// Adds a reader to a cell that has one already.
fn add_reader(cell: &mut Cell, packed: u64, me: &Accessor<'_>, readers: &mut Vec<Vec<(u64, u32)>>) {
    if cell.read & MANY == 0 {
        // An earlier read that lies before this one says nothing more than this one does.
        if !concurrent(cell.read, me) {
            (cell.read, cell.read_pc) = (packed, me.pc);
            return;
        }
        readers.push(vec![(cell.read, cell.read_pc), (packed, me.pc)]);
        cell.read = MANY | (readers.len() - 1) as u64;
        return;
    }
    let list = &mut readers[cell.read as u32 as usize];
    let same = |p: u64| stamp_of(p).agent == me.stamp.agent && lane_of(p) == me.lane;
    match list.iter_mut().find(|(p, _)| same(*p)) {
        Some(mine) => *mine = (packed, me.pc),
        None => {
            list.retain(|(p, _)| concurrent(*p, me));
            list.push((packed, me.pc));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(agent: u32, time: u32, lane: u32, clock: &Clock) -> Accessor<'_> {
        Accessor { stamp: Stamp { agent, time }, lane, pc: agent, clock }
    }

    fn shadow() -> SharedShadow {
        let mut shadow = SharedShadow::default();
        shadow.reset(64, 4);
        shadow
    }

    #[test]
    fn a_read_of_another_warps_write_needs_its_clock() {
        let (mut shadow, mut clock) = (shadow(), Clock::default());
        assert_eq!(shadow.write(0, 4, &access(0, 1, 0, &Clock::default())), None);
        assert!(shadow.is_written(0));
        let race = shadow.read(0, 4, &access(1, 1, 0, &clock));
        assert!(matches!(race, Some(Conflict::Race { wrote: true, pc: 0, .. })));
        clock.set(0, 1);
        assert_eq!(shadow.read(0, 4, &access(1, 1, 0, &clock)), None);
    }

    #[test]
    fn a_write_after_several_readers_needs_to_know_them_all() {
        let (mut shadow, mut clock) = (shadow(), Clock::default());
        clock.set(0, 1);
        shadow.write(0, 4, &access(0, 1, 0, &Clock::default()));
        for agent in [1, 2] {
            assert_eq!(shadow.read(0, 4, &access(agent, 1, 0, &clock)), None);
        }
        clock.set(1, 1);
        let race = shadow.write(0, 4, &access(0, 2, 0, &clock));
        assert!(matches!(race, Some(Conflict::Race { wrote: false, pc: 2, .. })));
    }

    #[test]
    fn copies_in_flight_may_not_be_touched() {
        let (mut shadow, clock) = (shadow(), Clock::default());
        assert_eq!(shadow.begin_copy(0, 16, &access(0, 1, 0, &clock)), None);
        assert!(matches!(shadow.read(12, 4, &access(0, 1, 0, &clock)), Some(Conflict::Pending { .. })));
        shadow.end_copy(0, 16, Stamp { agent: 0, time: 2 }, 0, false);
        assert_eq!(shadow.read(12, 4, &access(0, 3, 0, &clock)), None);
    }

    #[test]
    fn unwritten_granules_are_found() {
        let (mut shadow, clock) = (shadow(), Clock::default());
        assert_eq!(shadow.read(8, 4, &access(0, 1, 0, &clock)), Some(Conflict::Uninitialised));
    }
}
