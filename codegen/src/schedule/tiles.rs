//! Tile choice for contractions: a table of tiles with measured registers, and a model that ranks them.
//!
//! Registers are those that the assembler reports for the skeletons (NVRTC 13.0.88, sm_90a, plain
//! epilogue); the model counts whole waves of blocks, the ring's fill and the epilogue's bytes.

use tgc_ir::device_table::Device;

use super::{LAUNCH_NS, MEMORY_SHARE};

/// Clocks until the first tile of a ring has arrived.
const FILL_CLOCKS: f64 = 900.0;
/// Second-level cache bytes per clock that one multiprocessor gets.
const L2_BYTES_PER_CLOCK: f64 = 46.0;
/// Shared-memory bytes per clock of a multiprocessor.
const SHARED_BYTES_PER_CLOCK: f64 = 128.0;
/// Share of the boost clock that a busy chip sustains.
const SUSTAINED: f64 = 0.8;
/// Extra time of the last block's addition of partial sums, nanoseconds.
const SPLIT_NS: f64 = 1000.0;

/// A tile of a contraction on tensor cores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// Rows of a block.
    pub m: i64,
    /// Columns of a block.
    pub n: i64,
    /// Depth of a stage.
    pub k: i64,
    /// Rows of a warp.
    pub warp_m: i64,
    /// Columns of a warp.
    pub warp_n: i64,
    /// Threads that share a `warp_m` x `warp_n` part: a warp on tensor cores, one thread on plain cores.
    pub lanes: i64,
    /// Stages of the ring.
    pub stages: i64,
    /// Registers per thread, as reported by the assembler.
    pub registers: i64,
}

impl Tile {
    /// Threads of a block.
    pub const fn threads(&self) -> i64 {
        (self.m / self.warp_m) * (self.n / self.warp_n) * self.lanes
    }

    /// Dynamic shared memory: the ring, or the staged accumulators where those are larger.
    pub const fn shared_bytes(&self) -> i64 {
        let ring = self.stages * (self.m + self.n) * self.k * 2;
        let stage = (self.m / self.warp_m) * 16 * (self.n + 4) * 4;
        if ring > stage { ring } else { stage }
    }
}

const fn half(
    m: i64,
    n: i64,
    k: i64,
    (warp_m, warp_n): (i64, i64),
    stages: i64,
    registers: i64,
) -> Tile {
    Tile { m, n, k, warp_m, warp_n, lanes: 32, stages, registers }
}

const fn plain(m: i64, n: i64, k: i64, (warp_m, warp_n): (i64, i64), registers: i64) -> Tile {
    Tile { m, n, k, warp_m, warp_n, lanes: 1, stages: 2, registers }
}

/// Tiles of the tensor-core skeleton for half types.
pub const HALF_TILES: [Tile; 6] = [
    half(128, 128, 32, (64, 32), 4, 124),
    half(128, 64, 32, (32, 64), 4, 128),
    half(64, 128, 32, (32, 64), 4, 128),
    half(64, 64, 32, (32, 32), 4, 80),
    half(32, 64, 64, (16, 32), 4, 72),
    half(16, 64, 64, (16, 16), 4, 60),
];

/// Tiles of the plain skeleton: a block of 256 or 64 threads, each with `warp_m` x `warp_n` sums.
pub const PLAIN_TILES: [Tile; 4] = [
    plain(128, 128, 8, (8, 8), 128),
    plain(64, 64, 16, (4, 4), 64),
    plain(32, 64, 16, (4, 4), 64),
    plain(32, 32, 16, (2, 2), 40),
];

/// The extents of a contraction, as numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extents {
    /// Independent products.
    pub batch: f64,
    /// Rows.
    pub m: f64,
    /// Columns.
    pub n: f64,
    /// Summed.
    pub k: f64,
    /// Bytes of an operand element.
    pub bytes: f64,
    /// True when `k` is the same in every run, so that it may be split.
    pub splits: bool,
}

/// A choice with its predicted time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// The tile.
    pub tile: Tile,
    /// Runs of k that blocks sum apart.
    pub splits: i64,
    /// Predicted time in nanoseconds.
    pub predicted_ns: u64,
}

/// Ranks tensor-core tiles and splits, cheapest first; of equal times the smaller tile.
pub fn rank_half(device: &Device, extents: &Extents) -> Vec<Choice> {
    let flop_clock = device.f16_tflops * 1e3 / (f64::from(device.sms) * device.clock_ghz)
        * device.mma_sync_share;
    let mut choices = Vec::new();
    for tile in
        HALF_TILES.iter().filter(|tile| tile.shared_bytes() <= i64::from(device.shared_bytes_block))
    {
        for splits in [1i64, 2, 3, 4, 6, 8] {
            let enough = extents.splits && extents.k >= (splits * 4 * tile.k) as f64;
            let blocks = blocks_of(tile, extents) * splits as f64;
            if splits == 1 || (enough && blocks <= f64::from(2 * device.sms)) {
                choices.push(price(device, tile, extents, splits, flop_clock));
            }
        }
    }
    choices
        .sort_by_key(|choice| (choice.predicted_ns, choice.tile.m * choice.tile.n, choice.splits));
    choices
}

/// Ranks plain tiles (`tflops`: the arithmetic peak of the element type), cheapest first.
pub fn rank_plain(device: &Device, extents: &Extents, tflops: f64) -> Vec<Choice> {
    let flop_clock = tflops * 1e3 / (f64::from(device.sms) * device.clock_ghz);
    let mut choices: Vec<Choice> = Vec::new();
    for tile in &PLAIN_TILES {
        // A thread's operands pass through registers; small tiles are limited by shared memory.
        let reuse = (tile.warp_m * tile.warp_n) as f64 / (tile.warp_m + tile.warp_n) as f64;
        let limit = flop_clock.min(SHARED_BYTES_PER_CLOCK / extents.bytes * 2.0 * reuse);
        for splits in [1i64, 2, 4, 8] {
            let enough = extents.splits && extents.k >= (splits * 16 * tile.k) as f64;
            let blocks = blocks_of(tile, extents) * splits as f64;
            if splits == 1 || (enough && blocks <= f64::from(2 * device.sms)) {
                choices.push(price(device, tile, extents, splits, limit));
            }
        }
    }
    choices
        .sort_by_key(|choice| (choice.predicted_ns, choice.tile.m * choice.tile.n, choice.splits));
    choices
}

fn blocks_of(tile: &Tile, extents: &Extents) -> f64 {
    extents.batch * (extents.m / tile.m as f64).ceil() * (extents.n / tile.n as f64).ceil()
}

fn price(device: &Device, tile: &Tile, extents: &Extents, splits: i64, flop_clock: f64) -> Choice {
    let (m, n, k) = (tile.m as f64, tile.n as f64, tile.k as f64);
    let threads = tile.threads() as f64;
    let by_shared =
        f64::from(device.shared_kib_sm) * 1024.0 / (tile.shared_bytes() as f64 + 1024.0);
    let by_registers = 65536.0 / (tile.registers as f64 * threads);
    let resident =
        by_shared.min(by_registers).min(f64::from(device.threads_sm) / threads).floor().max(1.0);
    // Fewer than eight warps on a multiprocessor do not keep its units busy.
    let issue = (resident * threads / 256.0).min(1.0);
    let steps = (extents.k / k / splits as f64).ceil();
    let load = (m + n) * k * extents.bytes;
    let step = (2.0 * m * n * k / flop_clock / issue)
        .max(load / SHARED_BYTES_PER_CLOCK)
        .max(load / L2_BYTES_PER_CLOCK);
    let out_bytes = if splits == 1 { extents.bytes * 2.0 } else { 8.0 };
    let epilogue = m * n * out_bytes / L2_BYTES_PER_CLOCK;
    let waves = (blocks_of(tile, extents) * splits as f64 / f64::from(device.sms)).ceil();
    let busy = waves * (steps * step + epilogue) + (waves / resident).ceil() * FILL_CLOCKS;
    let compute_ns = busy / (device.clock_ghz * SUSTAINED);
    let elements =
        extents.batch * (extents.m * extents.k + extents.n * extents.k + extents.m * extents.n);
    let memory_ns = elements * extents.bytes / (device.dram_gb_s * MEMORY_SHARE);
    let extra = if splits > 1 { SPLIT_NS } else { 0.0 };
    Choice {
        tile: *tile,
        splits,
        predicted_ns: (compute_ns.max(memory_ns) + LAUNCH_NS + extra).round() as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best(m: f64, n: f64, k: f64) -> Choice {
        let device = Device::for_target("sm_90a").unwrap();
        rank_half(device, &Extents { batch: 1.0, m, n, k, bytes: 2.0, splits: true })[0]
    }

    #[test]
    fn large_products_take_large_tiles_and_few_rows_take_flat_ones() {
        let large = best(8192.0, 8192.0, 8192.0);
        assert_eq!((large.tile.m, large.tile.n, large.splits), (128, 128, 1));
        assert!(best(16.0, 4096.0, 4096.0).tile.m <= 32);
        // A deep product with few tiles is split.
        assert!(best(64.0, 64.0, 16384.0).splits > 1);
    }

    #[test]
    fn predictions_grow_with_work() {
        assert!(
            best(1024.0, 1024.0, 1024.0).predicted_ns < best(4096.0, 1024.0, 1024.0).predicted_ns
        );
    }
}
