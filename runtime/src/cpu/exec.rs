//! What a bound kernel runs with: instruction set, threads, and scratch memory that grows once.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::kernels::Isa;
use super::kernels::buffer::Buffer;
use super::kernels::pool::Pool;
use super::kernels::region::Region;
use super::tile::Scratch;

/// Elements of an ordinary tile.
pub const TILE: usize = 1024;

/// Scratch of one worker.
#[derive(Debug)]
pub struct Worker {
    /// Slots of tile programs.
    pub scratch: Scratch,
    /// Block of accumulators.
    pub tile: Buffer,
    /// Packed panels or rows.
    pub pack: Buffer,
    /// Second packed operand.
    pub side: Buffer,
}

impl Worker {
    /// Empty scratch.
    #[must_use]
    pub fn fresh() -> Self {
        let tile = Buffer::floats(super::kernels::gemm::TILE_FLOATS);
        Self { scratch: Scratch::default(), tile, pack: Buffer::zeroed(0), side: Buffer::zeroed(0) }
    }
}

/// Scratch of one instance.
#[derive(Debug)]
pub struct Memory {
    workers: Vec<Mutex<Worker>>,
    shared: Mutex<[Buffer; 2]>,
}

impl Memory {
    /// Scratch for `threads` workers.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let workers = (0..threads).map(|_| Mutex::new(Worker::fresh())).collect();
        Self { workers, shared: Mutex::new([Buffer::zeroed(0), Buffer::zeroed(0)]) }
    }
}

/// The surroundings of one kernel run.
#[derive(Clone, Copy, Debug)]
pub struct Exec<'a> {
    /// Instruction set.
    pub isa: Isa,
    /// Threads.
    pub pool: &'a Pool,
    /// Scratch.
    pub memory: &'a Memory,
}

impl<'a> Exec<'a> {
    /// Scratch of worker `w`; free whenever that worker asks.
    pub fn worker(&self, w: usize) -> MutexGuard<'a, Worker> {
        self.memory.workers[w].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Two buffers that all workers of one kernel share, with room for these numbers of floats.
    pub fn shared(&self, floats: [usize; 2]) -> (MutexGuard<'a, [Buffer; 2]>, [Region; 2]) {
        let mut buffers = self.memory.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let regions = super::kernels::region::reserve(&mut buffers, floats);
        (buffers, regions)
    }

    /// Runs `work(piece, worker)` over pieces of a job that takes about `nanoseconds` on one thread: alone when it
    /// is not worth waking anybody.
    pub fn split(&self, pieces: usize, nanoseconds: u64, work: &(dyn Fn(usize, usize) + Sync)) {
        if nanoseconds < 10_000 {
            (0..pieces).for_each(|p| work(p, 0));
        } else {
            self.pool.run(pieces, work);
        }
    }
}

/// Splits `n` units into at most `pieces` equal ranges; the range of piece `p`.
#[must_use]
pub fn share(n: usize, pieces: usize, p: usize) -> std::ops::Range<usize> {
    n * p / pieces..n * (p + 1) / pieces
}
