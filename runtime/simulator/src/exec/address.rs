//! Addresses of a warp's lanes, and which memory they lead to.

use super::lanes::LANES;
use super::state::Worker;
use super::warp::Warp;
use crate::check::FindingKind;
use crate::decode::inst::Window;
use crate::decode::operands::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW};

/// Addresses of all lanes.
pub(crate) type Addresses = [u64; LANES];

/// Bits that tell the windows of generic addresses apart.
const WINDOW_MASK: u64 = 0xff << 56;
/// Where the block's rank stands in addresses of a cluster's shared memory.
pub(crate) const RANK_SHIFT: u32 = 24;

/// Memory that a generic address may lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Global,
    Shared,
    Local,
    Parameter,
}

/// Register plus offset, of each lane.
#[inline(always)]
pub(crate) fn addresses(warp: &Warp, slot: u32, far: bool, offset: i32) -> Addresses {
    let added = offset as i64 as u64;
    // Loops rather than `map`, which on long arrays is no vector code.
    let mut out = [0; LANES];
    if far {
        for (address, base) in out.iter_mut().zip(warp.file.double(slot)) {
            *address = base.wrapping_add(added);
        }
    } else {
        for (address, base) in out.iter_mut().zip(warp.file.word(slot)) {
            *address = u64::from(base.wrapping_add(added as u32));
        }
    }
    out
}

/// Addresses less their windows.
#[inline(always)]
pub(crate) fn offsets(addresses: &Addresses) -> Addresses {
    let mut out = *addresses;
    out.iter_mut().for_each(|a| *a &= !WINDOW_MASK);
    out
}

/// Whether all lanes access, each behind the one before, from a multiple of the size on.
#[inline(always)]
pub(crate) fn is_row(addresses: &Addresses, mask: u32, size: u64) -> bool {
    let lead = addresses[0];
    let mut apart = 0;
    for (lane, address) in addresses.iter().enumerate() {
        apart |= address.wrapping_sub(lead) ^ (size * lane as u64);
    }
    mask == u32::MAX && apart == 0 && lead & (size - 1) == 0
}

/// Calls `f` with each lane of a mask.
#[inline(always)]
pub(crate) fn for_lanes(mut mask: u32, mut f: impl FnMut(usize)) {
    while mask != 0 {
        f(mask.trailing_zeros() as usize);
        mask &= mask - 1;
    }
}

/// The first lane of a mask.
pub(crate) fn first(mask: u32) -> usize {
    mask.trailing_zeros() as usize & 31
}

/// Where a window's addresses lead; generic ones by their upper bits.
#[inline(always)]
pub(crate) fn target(window: Window, address: u64) -> Target {
    match window {
        Window::Global => Target::Global,
        Window::Shared | Window::Cluster => Target::Shared,
        Window::Local => Target::Local,
        Window::Generic => match address & WINDOW_MASK {
            SHARED_WINDOW => Target::Shared,
            LOCAL_WINDOW => Target::Local,
            PARAMETER_WINDOW => Target::Parameter,
            _ => Target::Global,
        },
    }
}

/// Splits a mask by where the addresses lead.
#[inline(always)]
pub(crate) fn split(window: Window, addresses: &Addresses, mask: u32) -> (Target, u32) {
    let lead = target(window, addresses[first(mask)]);
    if window != Window::Generic {
        return (lead, mask);
    }
    let mut same = 0;
    for_lanes(mask, |lane| same |= u32::from(target(window, addresses[lane]) == lead) << lane);
    (lead, same)
}

/// Lanes whose address is a multiple of a size, as a mask.
#[inline(always)]
fn aligned(addresses: &Addresses, size: u64) -> u32 {
    let mut out = 0;
    for (lane, address) in addresses.iter().enumerate() {
        out |= u32::from(address & (size - 1) == 0) << lane;
    }
    out
}

impl Worker<'_> {
    /// Lanes of a mask whose addresses are multiples of `size`; the others are reported.
    #[inline(always)]
    pub(crate) fn check_aligned(
        &mut self,
        warp: &Warp,
        (pc, mask): (u32, u32),
        addresses: &Addresses,
        size: u64,
    ) -> u32 {
        let good = aligned(addresses, size);
        let bad = mask & !good;
        if bad != 0 {
            let lane = first(bad);
            self.report((warp, lane as u32, pc), FindingKind::Misaligned, None, || {
                format!(
                    "an access of {size} bytes at {:#x}, which is not a multiple of {size}",
                    addresses[lane]
                )
            });
        }
        mask & good
    }

    /// Block in the gang and offset of a shared address; a rank of the cluster may stand in its upper bits.
    #[inline(always)]
    pub(crate) fn shared_place(&self, warp: &Warp, address: u64) -> Option<(usize, u32)> {
        let rank = (address as u32) >> RANK_SHIFT;
        let offset = address as u32 & ((1 << RANK_SHIFT) - 1);
        if rank == 0 {
            return Some((warp.block, offset));
        }
        // Blocks of a cluster follow each other in the gang.
        let cluster = self.machine.cluster_blocks() as usize;
        let first = warp.block / cluster * cluster;
        ((rank as usize) <= cluster).then_some((first + rank as usize - 1, offset))
    }

    /// Reports lanes beyond the end of shared, local or parameter memory.
    #[cold]
    pub(crate) fn report_beyond(
        &mut self,
        at: (&Warp, u32, u32),
        what: &str,
        (offset, size, bytes): (u64, u64, u64),
    ) {
        self.report(at, FindingKind::OutOfBounds, None, || {
            format!("{size} bytes at byte {offset} of {what}, which has {bytes}")
        });
    }

    /// Reports an address in no allocation.
    #[cold]
    pub(crate) fn report_outside(&mut self, at: (&Warp, u32, u32), address: u64, size: u64) {
        let around = self.machine.memory.neighbourhood(address);
        self.report(at, FindingKind::OutOfBounds, None, || {
            format!("{size} bytes of global memory at {address:#x}: {around}")
        });
    }

    /// The allocation that holds a range, the last one first.
    #[inline(always)]
    pub(crate) fn allocation_of(&mut self, address: u64, size: u64) -> Option<usize> {
        let memory = self.machine.memory;
        let hinted = memory
            .allocations()
            .get(self.hint)
            .is_some_and(|a| address >= a.base && address.wrapping_add(size) <= a.base + a.bytes);
        if !hinted {
            self.hint = memory.find(address, size)?;
        }
        Some(self.hint)
    }

    /// The first lane's allocation and the lanes of a mask that lie in it with `size` bytes; lanes that lie in
    /// none are reported and taken from the mask.
    #[inline(always)]
    pub(crate) fn allocation_lanes(
        &mut self,
        warp: &Warp,
        pc: u32,
        (addresses, size): (&Addresses, u64),
        rest: &mut u32,
    ) -> Option<(usize, u32)> {
        while *rest != 0 {
            let lane = first(*rest);
            let address = addresses[lane];
            let found = self.allocation_of(address, size);
            let Some(at) = found else {
                self.report_outside((warp, lane as u32, pc), address, size);
                *rest &= *rest - 1;
                continue;
            };
            let allocation = self.machine.memory.allocation(at);
            // Below `bytes` there are `size` bytes left exactly up to this offset.
            let last = allocation.bytes - size;
            let mut inside = 0;
            for (lane, address) in addresses.iter().enumerate() {
                inside |= u32::from(address.wrapping_sub(allocation.base) <= last) << lane;
            }
            inside &= *rest;
            *rest &= !inside;
            return Some((at, inside));
        }
        None
    }
}

/// Sectors of 32 bytes that lanes touch.
#[inline(always)]
pub(crate) fn sectors(addresses: &Addresses, mask: u32, size: u64) -> u64 {
    let mut seen = [0u64; LANES];
    let (mut count, mut last, mut total) = (0usize, u64::MAX, 0u64);
    for_lanes(mask, |lane| {
        let sector = addresses[lane] >> 5;
        if sector != last {
            last = sector;
            if count == 0 || sector > seen[count - 1] || !seen[..count].contains(&sector) {
                seen[count] = sector;
                count += 1;
                total += size.div_ceil(32).max(1);
            }
        }
    });
    total
}

/// Rounds that the banks of shared memory need: 32 banks of 4 bytes, groups of lanes that move 128 bytes.
#[inline(always)]
pub(crate) fn waves(addresses: &Addresses, mask: u32, size: u32) -> u64 {
    let words = size.div_ceil(4);
    let group = (32 / words.max(1)).clamp(1, 32) as usize;
    let mut total = 0;
    let mut lane = 0;
    while lane < LANES {
        let part = mask >> lane & if group == 32 { u32::MAX } else { (1 << group) - 1 };
        total += group_waves(addresses, lane, part, words);
        lane += group;
    }
    total
}

#[inline(always)]
fn group_waves(addresses: &Addresses, start: usize, part: u32, words: u32) -> u64 {
    if part == 0 {
        return 0;
    }
    // Neighbouring lanes at neighbouring words, or all at one word, need one round.
    let lead = (addresses[start + first(part)] >> 2) as u32;
    let (mut in_row, mut in_place) = (true, true);
    let mut expected = lead;
    for_lanes(part, |at| {
        let word = (addresses[start + at] >> 2) as u32;
        in_row &= word == expected;
        in_place &= word == lead;
        expected += words;
    });
    if in_row || in_place || are_apart(addresses, start, part, words) {
        return 1;
    }
    let mut banks = [[u32::MAX; 32]; 32];
    let mut depth = [0u8; 32];
    for_lanes(part, |at| {
        let word = (addresses[start + at] >> 2) as u32;
        for word in word..word + words {
            let bank = (word & 31) as usize;
            let used = usize::from(depth[bank]);
            if !banks[bank][..used].contains(&word) && used < 32 {
                banks[bank][used] = word;
                depth[bank] += 1;
            }
        }
    });
    u64::from(depth.iter().copied().max().unwrap_or(1))
}

/// Whether no bank is asked twice.
#[inline(always)]
fn are_apart(addresses: &Addresses, start: usize, part: u32, words: u32) -> bool {
    let (mut used, mut twice) = (0u32, false);
    let lane_banks = if words >= 32 { u32::MAX } else { (1 << words) - 1 };
    for_lanes(part, |at| {
        let banks = u32::rotate_left(lane_banks, (addresses[start + at] >> 2) as u32 & 31);
        twice |= used & banks != 0;
        used |= banks;
    });
    !twice
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(f: impl Fn(u64) -> u64) -> Addresses {
        std::array::from_fn(|lane| f(lane as u64))
    }

    #[test]
    fn sectors_count_each_32_bytes_once() {
        assert_eq!(sectors(&lanes(|l| l * 4), u32::MAX, 4), 4);
        assert_eq!(sectors(&lanes(|l| l * 16), u32::MAX, 16), 16);
        assert_eq!(sectors(&lanes(|l| l * 64), u32::MAX, 4), 32);
        assert_eq!(sectors(&lanes(|_| 0), u32::MAX, 4), 1);
    }

    #[test]
    fn bank_conflicts_multiply_rounds() {
        assert_eq!(waves(&lanes(|l| l * 4), u32::MAX, 4), 1);
        assert_eq!(waves(&lanes(|_| 4), u32::MAX, 4), 1);
        assert_eq!(waves(&lanes(|l| l * 8), u32::MAX, 4), 2);
        assert_eq!(waves(&lanes(|l| l * 128), u32::MAX, 4), 32);
        assert_eq!(waves(&lanes(|l| l * 16), u32::MAX, 16), 4);
        assert_eq!(waves(&lanes(|l| l * 33 * 4), u32::MAX, 4), 1);
    }
}
