//! What a kernel did, per instruction and in sum: the figures from which GPU speed is predicted.

use std::collections::BTreeMap;

use tgc_ir::device_table::Device;

use crate::decode::inst::{Mma, Op, Wgmma, Window};
use crate::decode::kernel::Kernel;
use crate::ptx::ast::Type;

/// Counts of one instruction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PcCount {
    /// Times that a warp executed it.
    pub issues: u64,
    /// Threads that did.
    pub lanes: u64,
    /// Times that only some lanes of the warp were there.
    pub diverged: u64,
    /// 32-byte sectors of global memory that its requests touch.
    pub sectors: u64,
    /// Rounds that its accesses to the banks of shared memory take.
    pub waves: u64,
    /// Bytes that its lanes move.
    pub bytes: u64,
}

impl PcCount {
    pub(crate) fn add(&mut self, other: &PcCount) {
        self.issues += other.issues;
        self.lanes += other.lanes;
        self.diverged += other.diverged;
        self.sectors += other.sectors;
        self.waves += other.waves;
        self.bytes += other.bytes;
    }
}

/// An address space's traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Warp instructions.
    pub requests: u64,
    /// Bytes that lanes asked for.
    pub bytes: u64,
    /// Global memory: 32-byte sectors touched. Shared memory: rounds of the banks.
    pub units: u64,
}

/// How many blocks of a kernel one SM holds, and what sets the limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Occupancy {
    /// Blocks at the same time on an SM.
    pub blocks_sm: u32,
    /// Share of the SM's threads.
    pub share: f64,
    /// `threads`, `shared memory`, `registers` or `blocks`.
    pub limit: &'static str,
    /// Rounds of blocks over the whole device.
    pub waves: f64,
}

/// Sums over a launch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counters {
    /// Warp instructions.
    pub warp_instructions: u64,
    /// Thread instructions.
    pub thread_instructions: u64,
    /// Warp instructions by opcode group.
    pub mix: BTreeMap<&'static str, u64>,
    /// Warp instructions that not all lanes of a warp executed.
    pub diverged: u64,
    /// Loads of global memory.
    pub global_loads: Traffic,
    /// Stores to global memory.
    pub global_stores: Traffic,
    /// Atomics on global memory.
    pub global_atomics: Traffic,
    /// Loads of shared memory, matrix loads included.
    pub shared_loads: Traffic,
    /// Stores to shared memory.
    pub shared_stores: Traffic,
    /// Asynchronous copies to and from shared memory, bulk and tensor copies included.
    pub copies: Traffic,
    /// Local memory: spills and arrays.
    pub local: Traffic,
    /// Multiply-adds of the matrix units.
    pub matrix_multiply_adds: u64,
    /// Blocks that ran.
    pub blocks: u64,
    /// Occupancy on the launch's device, when one was named.
    pub occupancy: Option<Occupancy>,
    /// Counts of each instruction with its PTX line.
    pub lines: Vec<(u32, PcCount)>,
}

/// Rounds of the banks, and bytes, that an instruction asks for at best: what bank conflicts are measured by.
impl Counters {
    /// Rounds per request of shared memory beyond which there are conflicts: 1 when none.
    pub fn bank_rounds(&self) -> f64 {
        let units = self.shared_loads.units + self.shared_stores.units;
        let bytes = self.shared_loads.bytes + self.shared_stores.bytes;
        let best =
            bytes.div_ceil(128).max(self.shared_loads.requests + self.shared_stores.requests);
        if best == 0 { 1.0 } else { units as f64 / best as f64 }
    }

    /// Share of the touched global sectors' bytes that were asked for.
    pub fn sector_use(&self) -> f64 {
        let units = self.global_loads.units + self.global_stores.units;
        let bytes = self.global_loads.bytes + self.global_stores.bytes;
        if units == 0 { 1.0 } else { bytes as f64 / (32 * units) as f64 }
    }

    pub(crate) fn of(kernel: &Kernel, counts: &[PcCount]) -> Counters {
        let mut out = Counters::default();
        for ((inst, count), line) in kernel.code.iter().zip(counts).zip(&kernel.lines) {
            out.warp_instructions += count.issues;
            out.thread_instructions += count.lanes;
            out.diverged += count.diverged;
            *out.mix.entry(group(inst.op)).or_default() += count.issues;
            out.lines.push((*line, *count));
            out.matrix_multiply_adds += count.issues * multiply_adds(inst.op);
            let traffic = |t: &mut Traffic, units: u64| {
                t.requests += count.issues;
                t.bytes += count.bytes;
                t.units += units;
            };
            match inst.op {
                Op::Load(a) => out.add_access(a.window, count, false),
                Op::Store(a) => out.add_access(a.window, count, true),
                Op::Atomic(a) if a.window == Window::Shared => {
                    traffic(&mut out.shared_stores, count.waves)
                }
                Op::Atomic(_) => traffic(&mut out.global_atomics, count.sectors),
                Op::LdMatrix { .. } => traffic(&mut out.shared_loads, count.waves),
                Op::StMatrix { .. } => traffic(&mut out.shared_stores, count.waves),
                Op::CpAsync { .. } | Op::Bulk(_) => traffic(&mut out.copies, count.sectors),
                _ => {}
            }
        }
        out.mix.retain(|_, n| *n > 0);
        out
    }

    fn add_access(&mut self, window: Window, count: &PcCount, stores: bool) {
        // A generic access went wherever its addresses led: the units say where.
        let window = match window {
            Window::Generic if count.waves > 0 && count.sectors == 0 => Window::Shared,
            Window::Generic if count.sectors > 0 => Window::Global,
            Window::Generic => Window::Local,
            other => other,
        };
        let (traffic, units) = match (window, stores) {
            (Window::Shared | Window::Cluster, false) => (&mut self.shared_loads, count.waves),
            (Window::Shared | Window::Cluster, true) => (&mut self.shared_stores, count.waves),
            (Window::Local, _) => (&mut self.local, 0),
            (_, false) => (&mut self.global_loads, count.sectors),
            (_, true) => (&mut self.global_stores, count.sectors),
        };
        traffic.requests += count.issues;
        traffic.bytes += count.bytes;
        traffic.units += units;
    }
}

/// Multiply-adds of one warp's execution.
fn multiply_adds(op: Op) -> u64 {
    match op {
        Op::Mma(Mma { k, .. }) => 16 * 8 * u64::from(k),
        Op::Wgmma(Wgmma { n, a, .. }) => {
            let k = 32 / if a == Type::Tf32 { 4 } else { a.bytes() };
            16 * u64::from(n) * u64::from(k)
        }
        _ => 0,
    }
}

/// Name of an instruction's group in the mix.
fn group(op: Op) -> &'static str {
    match op {
        Op::Alu(row) => {
            let name = crate::exec::alu::name(row);
            if name.ends_with("F64") {
                "float64"
            } else if name.contains("F32")
                || name.contains("16") && name.contains('F')
                || name.contains("Bf")
            {
                "float"
            } else if name.starts_with("Mov")
                || name.starts_with("Select")
                || name.starts_with("Pack")
            {
                "move"
            } else {
                "integer"
            }
        }
        Op::InsertField { .. } | Op::Carry { .. } | Op::Compare { .. } => "integer",
        Op::Unpack { .. }
        | Op::Pack { .. }
        | Op::MapRank { .. }
        | Op::IsSpace(_)
        | Op::LoadParam(_) => "move",
        Op::Branch | Op::BranchIndexed | Op::Exit | Op::Trap => "branch",
        Op::Load(_) | Op::Store(_) | Op::LdMatrix { .. } | Op::StMatrix { .. } => "memory",
        Op::Atomic(_) => "atomic",
        Op::Shuffle(_)
        | Op::Vote(_)
        | Op::Match { .. }
        | Op::Redux(_)
        | Op::Elect
        | Op::ActiveMask => "warp",
        Op::Mma(_) | Op::Wgmma(_) => "matrix",
        Op::CpAsync { .. } | Op::Bulk(_) => "copy",
        _ => "synchronisation",
    }
}

/// Registers of an SM (CUDA programming guide, technical specifications).
const REGISTERS_SM: u32 = 65536;
/// Shared memory that each block costs beside its own.
const SHARED_RESERVED: u32 = 1024;

/// Occupancy by the limits of the device table; registers per thread come from the assembler's report.
pub fn occupancy(
    device: &Device,
    threads: u32,
    shared_bytes: u32,
    registers: Option<u32>,
    blocks: u64,
) -> Occupancy {
    let warps = threads.div_ceil(32).max(1);
    let by_threads = device.threads_sm / (warps * 32);
    let per_block =
        if device.capability.0 >= 8 { shared_bytes + SHARED_RESERVED } else { shared_bytes };
    let by_shared = device.shared_kib_sm * 1024 / per_block.max(1);
    // Registers are given to a warp in units of 256.
    let by_registers = match registers {
        Some(r) if r > 0 => REGISTERS_SM / ((r * 32).next_multiple_of(256) * warps),
        _ => u32::MAX,
    };
    let most_blocks = if device.threads_sm == 2048 { 32 } else { 16 };
    let limits = [
        (by_threads, "threads"),
        (by_shared, "shared memory"),
        (by_registers, "registers"),
        (most_blocks, "blocks"),
    ];
    let (blocks_sm, limit) = limits.into_iter().min_by_key(|(n, _)| *n).unwrap_or((0, "threads"));
    let resident = u64::from(blocks_sm.max(1)) * u64::from(device.sms);
    Occupancy {
        blocks_sm,
        share: f64::from(blocks_sm * warps * 32) / f64::from(device.threads_sm),
        limit,
        waves: blocks as f64 / resident as f64,
    }
}
