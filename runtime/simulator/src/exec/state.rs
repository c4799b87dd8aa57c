//! State of a worker: the gang of blocks it runs, and what it has found and counted.

use std::collections::BTreeMap;

use super::bulk::Flight;
use super::isa::Level;
use super::launch::LaunchOptions;
use super::mbarrier::MbarrierState;
use super::sync::BarrierState;
use super::warp::Warp;
use super::wgmma::AsyncRead;
use crate::check::Knowledge;
use crate::check::{Clock, Findings, GlobalShadow, SharedShadow, SyncTable};
use crate::counters::PcCount;
use crate::decode::kernel::Kernel;
use crate::memory::Memory;

/// What all workers of a launch share.
pub(crate) struct Machine<'m> {
    pub(crate) kernel: &'m Kernel,
    pub(crate) memory: &'m Memory,
    pub(crate) parameters: &'m [u8],
    /// Addresses of the module's variables.
    pub(crate) globals: &'m [u64],
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) cluster: [u32; 3],
    pub(crate) shared_bytes: u32,
    pub(crate) dynamic_shared: u32,
    pub(crate) options: &'m LaunchOptions,
    pub(crate) level: Level,
    pub(crate) races: Option<GlobalShadow>,
    pub(crate) sync: SyncTable,
}

impl Machine<'_> {
    pub(crate) fn threads(&self) -> u32 {
        self.block.iter().product()
    }

    pub(crate) fn warps(&self) -> u32 {
        self.threads().div_ceil(32)
    }

    pub(crate) fn cluster_blocks(&self) -> u32 {
        self.cluster.iter().product()
    }
}

/// What a block has beside its warps.
#[derive(Default)]
pub(crate) struct BlockState {
    pub(crate) id: [u32; 3],
    /// Its rank in its cluster.
    pub(crate) rank: u32,
    pub(crate) shared: Vec<u8>,
    pub(crate) shadow: SharedShadow,
    pub(crate) barriers: Vec<BarrierState>,
    pub(crate) mbarriers: BTreeMap<u32, MbarrierState>,
    /// Shared memory that asynchronous products or stores read.
    pub(crate) async_reads: Vec<AsyncRead>,
    pub(crate) knowledge: Knowledge,
}

/// The cluster barrier.
#[derive(Default)]
pub(crate) struct ClusterBarrier {
    pub(crate) generation: u32,
    pub(crate) arrived: u32,
    pub(crate) clock: Clock,
    pub(crate) released: Clock,
}

/// A thread of the host at work.
pub(crate) struct Worker<'m> {
    pub(crate) machine: &'m Machine<'m>,
    pub(crate) findings: Findings,
    pub(crate) counts: Vec<PcCount>,
    pub(crate) blocks: Vec<BlockState>,
    pub(crate) warps: Vec<Warp>,
    pub(crate) cluster: ClusterBarrier,
    /// Bulk copies under way.
    pub(crate) flights: Vec<Flight>,
    pub(crate) next_flight: u64,
    /// Agents of clocks given so far: warps, then mbarriers.
    pub(crate) agents: u32,
    /// Proxy fences of each warp, as the time up to which its writes are visible.
    pub(crate) fenced: Vec<u32>,
    /// Allocation of the last access.
    pub(crate) hint: usize,
    pub(crate) random: u64,
    pub(crate) steps: u64,
    /// The gang cannot go on.
    pub(crate) stopped: bool,
}

impl<'m> Worker<'m> {
    /// A number below `n` from the launch's seed.
    pub(crate) fn random(&mut self, n: u64) -> u64 {
        // xorshift64* (Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled").
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n.max(1)
    }
}
