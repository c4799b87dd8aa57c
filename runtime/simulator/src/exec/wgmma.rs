//! `wgmma`: matrix descriptors, what an asynchronous product reads, and when it is done (PTX ISA, section
//! 9.7.15). Each warp of a warpgroup multiplies its own 16 rows.

use super::access::word_at;
use super::isa;
use super::lanes::{LANES, Words};
use super::launch::Completion;
use super::state::Worker;
use super::warp::Warp;
use crate::check::{FindingKind, Stamp};
use crate::decode::inst::{Inst, Wgmma};
use crate::memory::Swizzle;
use crate::ptx::ast::Type;

/// A product that was issued and not waited for.
#[derive(Clone)]
pub(crate) struct Product {
    pub(crate) pc: u32,
    shape: Wgmma,
    list: u32,
    a: u64,
    b: u64,
    keeps: bool,
    done: bool,
    /// Numbers of what it reads, in the block's list.
    reads: (u64, u64),
}

/// Shared memory that an asynchronous operation reads.
#[derive(Clone, Debug)]
pub(crate) struct AsyncRead {
    pub(crate) number: u64,
    pub(crate) start: u32,
    pub(crate) end: u32,
    pub(crate) lane: u32,
    pub(crate) pc: u32,
    /// The issuing warp; its time once it has waited for the end.
    pub(crate) stamp: Stamp,
    pub(crate) done: bool,
    /// A bulk store's, rather than a product's.
    pub(crate) is_store: bool,
}

/// A matrix descriptor taken apart.
#[derive(Clone, Copy)]
struct Descriptor {
    start: u32,
    leading: u32,
    stride: u32,
    swizzle: Swizzle,
}

impl Descriptor {
    fn of(bits: u64) -> Descriptor {
        let field = |at: u32| ((bits >> at & 0x3fff) as u32) << 4;
        let swizzle = match bits >> 62 {
            0 => Swizzle::None,
            1 => Swizzle::B128,
            2 => Swizzle::B64,
            _ => Swizzle::B32,
        };
        Descriptor { start: field(0), leading: field(16), stride: field(32), swizzle }
    }

    /// Address of a 16-byte chunk of a row whose elements along k are neighbours.
    fn k_major(self, row: u32, chunk: u32) -> u32 {
        let group = self.start + row / 8 * self.stride;
        let place = match self.swizzle {
            Swizzle::None => group + row % 8 * 16 + chunk * self.leading,
            swizzle => group + row % 8 * swizzle.span() as u32 + chunk * 16,
        };
        self.swizzle.apply(place)
    }

    /// Address of a 16-bit element when rows (m or n) are neighbours.
    fn mn_major(self, row: u32, k: u32) -> u32 {
        let place = match self.swizzle {
            Swizzle::None => {
                self.start + row / 8 * self.stride + row % 8 * 2 + k % 8 * 16 + k / 8 * self.leading
            }
            swizzle => {
                let span = swizzle.span() as u32;
                let (atom, within) = (row / (span / 2), row % (span / 2));
                self.start + atom * self.leading + within * 2 + k / 8 * self.stride + k % 8 * span
            }
        };
        self.swizzle.apply(place)
    }
}

impl Worker<'_> {
    pub(crate) fn wgmma(
        &mut self,
        warp: &mut Warp,
        inst: &Inst,
        shape: Wgmma,
        (pc, active): (u32, u32),
    ) {
        self.check_converged(warp, (pc, active));
        let keeps = match inst.offset {
            1 => true,
            2 => false,
            _ => warp.file.predicate(inst.c) & active != 0,
        };
        let (a, b) = (warp.file.double(inst.a)[0], warp.file.double(inst.b)[0]);
        let mut product = Product {
            pc,
            shape,
            list: inst.extra,
            a,
            b,
            keeps,
            done: false,
            reads: (u64::MAX, u64::MAX),
        };
        if !shape.a_in_registers {
            product.reads.0 = self.begin_read(warp, &product, false);
        }
        product.reads.1 = self.begin_read(warp, &product, true);
        let early = match self.machine.options.completion {
            Completion::Early => true,
            Completion::Late => false,
            Completion::Seeded => self.random(2) == 0,
        };
        if early {
            // Products onto the same accumulators are done in their order.
            self.multiply_pending(warp);
            self.multiply(warp, &mut product);
        }
        warp.products.push(product);
    }

    /// Chunks that an operand lies in: start address and bytes of each, by row.
    fn chunks(
        warp: &Warp,
        product: &Product,
        is_b: bool,
        mut f: impl FnMut(usize, usize, u32, u32),
    ) {
        let shape = product.shape;
        let (bits, transposed, rows) = if is_b {
            (product.b, shape.b_transposed, u32::from(shape.n))
        } else {
            (product.a, shape.a_transposed, 16)
        };
        let descriptor = Descriptor::of(bits);
        // Operand A of a warpgroup has 64 rows, 16 for each warp.
        let base = if is_b { 0 } else { warp.index % 4 * 16 };
        for row in 0..rows {
            if transposed {
                for k in 0..16 {
                    f(row as usize, 2 * k as usize, descriptor.mn_major(base + row, k), 2);
                }
            } else {
                for chunk in 0..2 {
                    f(row as usize, 16 * chunk as usize, descriptor.k_major(base + row, chunk), 16);
                }
            }
        }
    }

    /// Checks what an operand reads and keeps it from being overwritten until the end.
    fn begin_read(&mut self, warp: &Warp, product: &Product, is_b: bool) -> u64 {
        let bytes = self.blocks[warp.block].shared.len() as u32;
        let (mut low, mut high) = (u32::MAX, 0);
        let mut conflict = None;
        let stamp = Stamp { agent: warp.agent, time: warp.time };
        let me = warp.accessor(warp.block, 0, product.pc);
        let (fenced, checks) = (&self.fenced, self.machine.options.checks);
        let seen = |s: Stamp| fenced.get(s.agent as usize).is_none_or(|t| *t >= s.time);
        let shadow = &self.blocks[warp.block].shadow;
        Self::chunks(warp, product, is_b, |_, _, start, size| {
            (low, high) = (low.min(start), high.max(start + size));
            if checks && conflict.is_none() && start + size <= bytes {
                conflict = shadow.proxy_read(start, size, &me, seen).map(|c| (c, start));
            }
        });
        let at = (warp, 0, product.pc);
        let descriptor = Descriptor::of(if is_b { product.b } else { product.a });
        if let Some((conflict, start)) = conflict {
            self.report_conflict(at, conflict, (start, false));
        }
        if high > bytes {
            self.report(at, FindingKind::Descriptor, None, || {
                format!(
                    "operand {} reaches byte {high} of {bytes} bytes of shared memory",
                    if is_b { "B" } else { "A" }
                )
            });
        }
        let transposed = if is_b { product.shape.b_transposed } else { product.shape.a_transposed };
        self.check_descriptor(at, (descriptor, transposed), product.shape, is_b);
        let number = self.next_flight;
        self.next_flight += 1;
        let (start, end, pc) = (low, high, product.pc);
        let read =
            AsyncRead { number, start, end, lane: 0, pc, stamp, done: false, is_store: false };
        // A read says all that an earlier one of the same range by the same agent does.
        let same = |r: &&mut AsyncRead| {
            r.done && (r.start, r.end, r.stamp.agent) == (start, end, stamp.agent)
        };
        let reads = &mut self.blocks[warp.block].async_reads;
        match reads.iter_mut().find(same) {
            Some(place) => *place = read,
            None => reads.push(read),
        }
        number
    }

    /// Fields that the hardware would misread.
    fn check_descriptor(
        &mut self,
        at: (&Warp, u32, u32),
        (descriptor, transposed): (Descriptor, bool),
        shape: Wgmma,
        is_b: bool,
    ) {
        let name = if is_b { "B" } else { "A" };
        let rows = if is_b { u32::from(shape.n) } else { 64 };
        let span = descriptor.swizzle.span() as u32;
        let atom = 8 * span;
        if rows > 8 && !transposed && descriptor.stride == 0 {
            self.report(at, FindingKind::Descriptor, None, || {
                format!("operand {name}: the stride between groups of eight rows is zero")
            });
        }
        if descriptor.swizzle != Swizzle::None && !transposed && descriptor.stride % atom != 0 {
            self.report(at, FindingKind::Descriptor, None, || {
                format!(
                    "operand {name}: a stride of {} bytes is no multiple of the swizzle's {atom}",
                    descriptor.stride
                )
            });
        }
        if transposed
            && descriptor.swizzle != Swizzle::None
            && rows * 2 > span
            && descriptor.leading == 0
        {
            self.report(at, FindingKind::Descriptor, None, || {
                format!(
                    "operand {name}: the leading offset between columns of {span} bytes is zero"
                )
            });
        }
    }

    /// Bytes of an operand, as registers would hold them: a function takes row, byte and what lies there.
    fn gather(
        &self,
        warp: &Warp,
        product: &Product,
        is_b: bool,
        mut put: impl FnMut(usize, usize, &[u8]),
    ) {
        let shared = &self.blocks[warp.block].shared;
        Self::chunks(warp, product, is_b, |row, at, start, size| {
            if let Some(bytes) = shared.get(start as usize..(start + size) as usize) {
                put(row, at, bytes);
            }
        });
    }

    fn multiply_pending(&mut self, warp: &mut Warp) {
        let mut groups = std::mem::take(&mut warp.product_groups);
        let mut open = std::mem::take(&mut warp.products);
        for product in groups.iter_mut().flatten().chain(&mut open) {
            self.multiply(warp, product);
        }
        (warp.product_groups, warp.products) = (groups, open);
    }

    fn multiply(&mut self, warp: &mut Warp, product: &mut Product) {
        if product.done {
            return;
        }
        product.done = true;
        let shape = product.shape;
        let mut a = [[0; LANES]; 4];
        if !shape.a_in_registers {
            self.gather(warp, product, false, |row, at, bytes| {
                place(&mut a[at / 16 * 2 + row / 8], row % 8, at % 16, bytes);
            });
        }
        let mut b = vec![[[0; LANES]; 2]; usize::from(shape.n) / 8];
        self.gather(warp, product, true, |row, at, bytes| {
            place(&mut b[row / 8][at / 16], row % 8, at % 16, bytes);
        });
        let accumulators = usize::from(shape.n) / if shape.d == Type::F16 { 4 } else { 2 };
        let count = accumulators + if shape.a_in_registers { 4 } else { 0 };
        let slots = &self.machine.kernel.lists[product.list as usize..][..count];
        isa::wgmma(self.machine.level, &mut warp.file, shape, slots, &a, &b, product.keeps);
    }

    /// `wgmma.wait_group`
    pub(crate) fn wait_products(&mut self, warp: &mut Warp, inst: &Inst, _pc: u32) {
        let keep = warp.file.word(inst.a)[0] as usize;
        let mut ended = Vec::new();
        while warp.product_groups.len() > keep {
            for mut product in warp.product_groups.pop_front().unwrap_or_default() {
                self.multiply(warp, &mut product);
                ended.extend([product.reads.0, product.reads.1]);
            }
        }
        let stamp = Stamp { agent: warp.agent, time: warp.time };
        self.end_reads(warp.block, &ended, stamp);
        warp.tick();
    }

    /// Reads have ended, at a moment of an agent.
    pub(crate) fn end_reads(&mut self, block: usize, numbers: &[u64], stamp: Stamp) {
        let reads = &mut self.blocks[block].async_reads;
        for read in reads.iter_mut().filter(|r| numbers.contains(&r.number)) {
            (read.done, read.stamp) = (true, stamp);
        }
    }

    /// Whether a write meets an asynchronous read that has not ended, or whose end the writer does not know.
    pub(crate) fn check_async_reads(
        &mut self,
        warp: &Warp,
        (pc, lane): (u32, u32),
        block: usize,
        (start, size): (u32, u32),
    ) {
        let hit = self.blocks[block].async_reads.iter().find(|r| {
            let overlaps = r.start < start + size && start < r.end;
            overlaps && !(r.done && (r.stamp.agent == warp.agent || warp.clock.knows(r.stamp)))
        });
        let Some(read) = hit.cloned() else { return };
        let other = super::report::Other { stamp: read.stamp, lane: read.lane, pc: read.pc };
        self.report((warp, lane, pc), FindingKind::AsyncHazard, Some(other), || {
            format!(
                "shared memory at byte {start} is overwritten while an asynchronous read of bytes {} to {} may be under way",
                read.start, read.end
            )
        });
    }
}

/// Puts 2 or 16 bytes of a row into the words of its four lanes.
fn place(words: &mut Words, row: usize, at: usize, bytes: &[u8]) {
    if bytes.len() == 16 {
        for (word, part) in words[row * 4..row * 4 + 4].iter_mut().zip(bytes.chunks_exact(4)) {
            *word = word_at(part, 0);
        }
    } else {
        let half = u32::from(bytes[0]) | u32::from(bytes[1]) << 8;
        words[row * 4 + at / 4] |= half << (8 * (at & 2));
    }
}
