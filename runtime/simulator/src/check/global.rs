//! Races between blocks in global memory, by happens-before through atomics.
//!
//! A block's time advances when it releases; what it released at an address is learnt by whoever acquires
//! there. Plain accesses leave the last writer and readers of each word.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError};

use rustc_hash::FxHashMap;

/// Words of one page of shadow.
const PAGE_WORDS: usize = 4096;
/// Stands for several readers.
const SEVERAL: u64 = (1 << 22) - 1;
/// Bits of a block's number.
const BLOCK_BITS: u32 = 22;
const BLOCK_MASK: u64 = (1 << BLOCK_BITS) - 1;

/// The other access of a race.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OtherBlock {
    /// Number of the block in the grid; none when several read.
    pub(crate) block: Option<u64>,
    pub(crate) wrote: bool,
}

type Page = Box<[AtomicU64]>;

/// Shadow of all global memory during one launch: one word for four bytes, pages made when touched.
pub(crate) struct GlobalShadow {
    pages: Vec<Vec<OnceLock<Page>>>,
}

/// What a block knows of others: the times at which they released.
#[derive(Default)]
pub(crate) struct Knowledge {
    pub(crate) block: u64,
    pub(crate) time: u32,
    known: FxHashMap<u64, u32>,
}

impl Knowledge {
    /// Of a block that knows nothing yet.
    pub(crate) fn begin(&mut self, block: u64) {
        (self.block, self.time) = (block, 1);
        self.known.clear();
    }

    fn knows(&self, block: u64, time: u64) -> bool {
        self.known.get(&block).is_some_and(|t| u64::from(*t) >= time)
    }
}

/// Per word: writer and reader as numbers from 1, and the writer's time.
fn unpack(word: u64) -> (u64, u64, u64) {
    (word & BLOCK_MASK, word >> BLOCK_BITS & BLOCK_MASK, word >> (2 * BLOCK_BITS))
}

fn pack(writer: u64, reader: u64, time: u64) -> u64 {
    writer | reader << BLOCK_BITS | time.min((1 << 20) - 1) << (2 * BLOCK_BITS)
}

impl GlobalShadow {
    /// For allocations of these sizes.
    pub(crate) fn new(sizes: impl Iterator<Item = u64>) -> GlobalShadow {
        let pages = |bytes: u64| (bytes.div_ceil(4) as usize).div_ceil(PAGE_WORDS);
        GlobalShadow {
            pages: sizes.map(|b| (0..pages(b)).map(|_| OnceLock::new()).collect()).collect(),
        }
    }

    /// Most blocks that are told apart.
    pub(crate) const BLOCKS_MAX: u64 = SEVERAL - 1;

    /// Calls `f` with the shadow of each word of a range.
    #[inline(always)]
    fn for_words(
        &self,
        allocation: usize,
        (offset, bytes): (u64, u64),
        mut f: impl FnMut(&AtomicU64),
    ) {
        let (mut at, end) = ((offset / 4) as usize, (offset + bytes).div_ceil(4) as usize);
        let pages = &self.pages[allocation];
        while at < end {
            let (page, start) = (at / PAGE_WORDS, at % PAGE_WORDS);
            let count = (PAGE_WORDS - start).min(end - at);
            let cells =
                pages[page].get_or_init(|| (0..PAGE_WORDS).map(|_| AtomicU64::new(0)).collect());
            cells[start..start + count].iter().for_each(&mut f);
            at += count;
        }
    }

    /// Notes a read of a range; the write it races with, if any.
    pub(crate) fn read(
        &self,
        allocation: usize,
        range: (u64, u64),
        me: &Knowledge,
    ) -> Option<OtherBlock> {
        let mine = me.block + 1;
        let mut found = None;
        self.for_words(allocation, range, |cell| {
            let old = cell.load(Relaxed);
            let (writer, reader, time) = unpack(old);
            if writer != 0 && writer != mine && !me.knows(writer - 1, time) {
                found = Some(OtherBlock { block: Some(writer - 1), wrote: true });
            }
            if reader != mine && reader != SEVERAL {
                let reader = if reader == 0 { mine } else { SEVERAL };
                cell.store(pack(writer, reader, time), Relaxed);
            }
        });
        found
    }

    /// Notes a write of a range; the access it races with, if any.
    pub(crate) fn write(
        &self,
        allocation: usize,
        range: (u64, u64),
        me: &Knowledge,
    ) -> Option<OtherBlock> {
        let mine = me.block + 1;
        let mut found = None;
        let new = pack(mine, 0, me.time.into());
        self.for_words(allocation, range, |cell| {
            let old = cell.load(Relaxed);
            if old == new {
                return;
            }
            let (writer, reader, time) = unpack(old);
            if writer != 0 && writer != mine && !me.knows(writer - 1, time) {
                found = Some(OtherBlock { block: Some(writer - 1), wrote: true });
            } else if reader == SEVERAL && me.known.is_empty() {
                found = Some(OtherBlock { block: None, wrote: false });
            } else if !matches!(reader, 0 | SEVERAL) && reader != mine && !me.knows(reader - 1, 1) {
                found = Some(OtherBlock { block: Some(reader - 1), wrote: false });
            }
            cell.store(new, Relaxed);
        });
        found
    }
}

/// What was released at each address.
#[derive(Default)]
pub(crate) struct SyncTable {
    released: Mutex<FxHashMap<u64, FxHashMap<u64, u32>>>,
}

impl SyncTable {
    /// An atomic at an address: gives away what the block knows, and learns what others gave.
    pub(crate) fn atomic(&self, address: u64, me: &mut Knowledge, release: bool, acquire: bool) {
        let mut table = self.released.lock().unwrap_or_else(PoisonError::into_inner);
        let at = table.entry(address).or_default();
        if acquire {
            for (block, time) in at.iter().filter(|(block, _)| **block != me.block) {
                let known = me.known.entry(*block).or_insert(0);
                *known = (*known).max(*time);
            }
        }
        if release {
            for (block, time) in me.known.iter().map(|(b, t)| (*b, *t)).chain([(me.block, me.time)])
            {
                let known = at.entry(block).or_insert(0);
                *known = (*known).max(time);
            }
            me.time += 1;
        }
    }
}
