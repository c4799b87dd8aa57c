//! One allocation: its words, and one bit for each byte that was written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// What unwritten words hold: NaN in every float format.
const POISON: u32 = u32::MAX;

/// A range of device memory.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) base: u64,
    pub(crate) bytes: u64,
    words: Box<[AtomicU32]>,
    /// One bit per byte.
    written: Box<[AtomicU32]>,
    /// All bytes were written: the bits need no look.
    complete: AtomicBool,
    /// Taken by atomics that no single word can do.
    lock: Mutex<()>,
}

impl Allocation {
    pub(super) fn new(base: u64, bytes: u64) -> Allocation {
        let words = bytes.div_ceil(4) as usize;
        Allocation {
            base,
            bytes,
            words: (0..words).map(|_| AtomicU32::new(POISON)).collect(),
            written: (0..words.div_ceil(8)).map(|_| AtomicU32::new(0)).collect(),
            complete: AtomicBool::new(bytes == 0),
            lock: Mutex::new(()),
        }
    }

    /// A word by its index.
    #[inline(always)]
    pub(crate) fn word(&self, index: usize) -> u32 {
        self.words[index].load(Relaxed)
    }

    #[inline(always)]
    pub(crate) fn set_word(&self, index: usize, value: u32) {
        self.words[index].store(value, Relaxed);
    }

    /// Words by their indices.
    #[inline(always)]
    pub(crate) fn words(&self, first: usize, count: usize) -> &[AtomicU32] {
        &self.words[first..first + count]
    }

    /// An element of 1, 2, 4 or 8 bytes, aligned to itself.
    #[inline(always)]
    pub(crate) fn load(&self, offset: u64, bytes: u32) -> u64 {
        let index = (offset / 4) as usize;
        match bytes {
            4 => u64::from(self.word(index)),
            8 => u64::from(self.word(index)) | u64::from(self.word(index + 1)) << 32,
            2 => u64::from(self.word(index) >> (8 * (offset & 2)) & 0xffff),
            _ => u64::from(self.word(index) >> (8 * (offset & 3)) & 0xff),
        }
    }

    #[inline(always)]
    pub(crate) fn store(&self, offset: u64, bytes: u32, value: u64) {
        let index = (offset / 4) as usize;
        match bytes {
            4 => self.set_word(index, value as u32),
            8 => {
                self.set_word(index, value as u32);
                self.set_word(index + 1, (value >> 32) as u32);
            }
            _ => {
                let shift = 8 * (offset & 3) as u32;
                let mask = ((1u32 << (8 * bytes)) - 1) << shift;
                let part = (value as u32) << shift & mask;
                // Neighbours in the word may be written by other blocks at the same time.
                let _ = self.words[index]
                    .fetch_update(Relaxed, Relaxed, |old| Some(old & !mask | part));
            }
        }
    }

    /// Replaces an element of 2, 4 or 8 bytes by a function of it; returns what was there.
    pub(crate) fn update(&self, offset: u64, bytes: u32, f: impl Fn(u64) -> u64) -> u64 {
        let index = (offset / 4) as usize;
        if bytes == 8 {
            // A poisoned lock only means that another worker panicked while holding it.
            let _held = self.lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let old = self.load(offset, 8);
            self.store(offset, 8, f(old));
            return old;
        }
        let shift = if bytes == 2 { 8 * (offset & 2) as u32 } else { 0 };
        let mask = if bytes == 2 { 0xffff << shift } else { u32::MAX };
        let replaced = |word: u32| {
            let part = (f(u64::from((word & mask) >> shift)) as u32) << shift;
            Some(word & !mask | part & mask)
        };
        let old = match self.words[index].fetch_update(Relaxed, Relaxed, replaced) {
            Ok(old) | Err(old) => old,
        };
        u64::from((old & mask) >> shift)
    }

    pub(super) fn write(&self, offset: u64, contents: &[u8]) {
        let mut at = offset;
        let mut rest = contents;
        while !rest.is_empty() {
            if at.is_multiple_of(4) && rest.len() >= 4 {
                let (head, tail) = rest.split_at(4);
                self.set_word(
                    (at / 4) as usize,
                    u32::from_le_bytes([head[0], head[1], head[2], head[3]]),
                );
                (at, rest) = (at + 4, tail);
            } else {
                self.store(at, 1, rest[0].into());
                (at, rest) = (at + 1, &rest[1..]);
            }
        }
        self.mark(offset, contents.len() as u64);
        if contents.len() as u64 == self.bytes {
            self.complete.store(true, Relaxed);
        }
    }

    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) {
        let whole = if offset.is_multiple_of(4) { into.len() / 4 * 4 } else { 0 };
        let (words, rest) = into.split_at_mut(whole);
        let first = (offset / 4) as usize;
        for (at, bytes) in words.chunks_exact_mut(4).enumerate() {
            bytes.copy_from_slice(&self.word(first + at).to_le_bytes());
        }
        for (at, byte) in rest.iter_mut().enumerate() {
            *byte = self.load(offset + (whole + at) as u64, 1) as u8;
        }
    }

    /// Bits of a range within one word of 32 bytes.
    fn bits(start: u64, end: u64) -> u32 {
        let length = end - start;
        if length >= 32 { u32::MAX } else { ((1u32 << length) - 1) << (start % 32) }
    }

    fn for_each_bits(start: u64, bytes: u64, mut f: impl FnMut(usize, u32)) {
        let (mut at, end) = (start, start + bytes);
        while at < end {
            let next = (at / 32 * 32 + 32).min(end);
            f((at / 32) as usize, Self::bits(at, next));
            at = next;
        }
    }

    /// Remembers that bytes were written.
    #[inline(always)]
    pub(crate) fn mark(&self, offset: u64, bytes: u64) {
        if self.complete.load(Relaxed) {
            return;
        }
        Self::for_each_bits(offset, bytes, |index, bits| {
            let word = &self.written[index];
            if word.load(Relaxed) & bits != bits {
                word.fetch_or(bits, Relaxed);
            }
        });
    }

    pub(super) fn forget(&self, offset: u64, bytes: u64) {
        if self.complete.swap(false, Relaxed) {
            self.written.iter().for_each(|w| w.store(u32::MAX, Relaxed));
        }
        Self::for_each_bits(offset, bytes, |index, bits| {
            self.written[index].fetch_and(!bits, Relaxed);
        });
    }

    /// Whether all bytes of a range were written.
    #[inline(always)]
    pub(crate) fn is_written(&self, offset: u64, bytes: u64) -> bool {
        self.complete.load(Relaxed) || self.first_unwritten(offset, bytes).is_none()
    }

    pub(super) fn first_unwritten(&self, offset: u64, bytes: u64) -> Option<u64> {
        if self.complete.load(Relaxed) {
            return None;
        }
        let mut found = None;
        Self::for_each_bits(offset, bytes, |index, bits| {
            let missing = bits & !self.written[index].load(Relaxed);
            if missing != 0 && found.is_none() {
                found = Some(index as u64 * 32 + u64::from(missing.trailing_zeros()));
            }
        });
        found
    }

    /// Whether every byte was written, so that no bit needs a look.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete.load(Relaxed)
    }
}
