//! Launching a kernel: checks of its shape, workers over the host's cores, and the report.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tgc_ir::device_table::Device;

use super::isa::Level;
use super::state::{Machine, Worker};
use crate::check::{Finding, Findings, GlobalShadow, Key, Sighting, Site, SourcePlace, SyncTable};
use crate::counters::{Counters, PcCount, occupancy};
use crate::decode::kernel::Kernel;
use crate::error::LaunchError;
use crate::memory::Memory;
use crate::module::{Module, Variables};

/// When asynchronous work is done, of all moments that are legal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Completion {
    /// At once.
    Early,
    /// When something waits for it.
    #[default]
    Late,
    /// At moments drawn from the seed.
    Seeded,
}

/// Grid, block, cluster and dynamic shared memory of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaunchShape {
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads along each axis.
    pub block: [u32; 3],
    /// Blocks of a cluster; none: what the kernel says, or no clusters.
    pub cluster: Option<[u32; 3]>,
    /// Bytes of dynamic shared memory.
    pub dynamic_shared: u32,
}

impl LaunchShape {
    /// A grid of blocks along one axis.
    pub fn linear(blocks: u32, threads: u32, dynamic_shared: u32) -> LaunchShape {
        LaunchShape { grid: [blocks, 1, 1], block: [threads, 1, 1], cluster: None, dynamic_shared }
    }
}

/// How a launch is run.
#[derive(Clone, Debug)]
pub struct LaunchOptions {
    /// Row of the device table: limits of shared memory and threads, and occupancy.
    pub device: Option<&'static Device>,
    /// Zero runs warps in order; other seeds draw the order of warps and the length of their turns.
    pub seed: u64,
    /// When asynchronous work is done.
    pub completion: Completion,
    /// Initialisation, races and hazards are looked for. Bounds and alignment always are.
    pub checks: bool,
    /// Races between blocks in global memory are looked for, if `checks` are on.
    pub global_races: bool,
    /// Most warp instructions of one cluster (or of one block without clusters).
    pub step_limit: u64,
    /// Most bytes of host memory for the shared and local memory of one worker.
    pub memory_limit: u64,
    /// Threads of the host; zero: all.
    pub threads: usize,
    /// All blocks run interleaved, as those that wait for each other need it.
    pub co_resident: bool,
    /// Registers of a thread, as the assembler reports them: for occupancy.
    pub registers: Option<u32>,
}

impl Default for LaunchOptions {
    fn default() -> LaunchOptions {
        LaunchOptions {
            device: None,
            seed: 0,
            completion: Completion::Late,
            checks: true,
            global_races: true,
            step_limit: 1 << 32,
            memory_limit: 1 << 32,
            threads: 0,
            co_resident: false,
            registers: None,
        }
    }
}

/// What a launch did.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Faults, each once, in the order of the blocks that showed them first.
    pub findings: Vec<Finding>,
    /// What was counted.
    pub counters: Counters,
}

impl Report {
    /// Whether nothing was found.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Runs a kernel to its end. What it does wrong is in the report; its stores are in the memory.
pub fn launch(
    module: &Module,
    variables: &Variables,
    kernel: &str,
    memory: &Memory,
    shape: &LaunchShape,
    parameters: &[u8],
    options: &LaunchOptions,
) -> Result<Report, LaunchError> {
    let decoded = module.decoded();
    let found = decoded.kernels.iter().find(|k| k.name == kernel);
    let kernel = found.ok_or_else(|| LaunchError::NoKernel(kernel.to_owned()))?;
    let cluster = check_shape(kernel, shape, options)?;
    if parameters.len() != kernel.parameter_bytes as usize {
        let (expected, given) = (kernel.parameter_bytes as usize, parameters.len());
        return Err(LaunchError::Parameters { kernel: kernel.name.clone(), expected, given });
    }
    let blocks: u64 = shape.grid.iter().map(|g| u64::from(*g)).product();
    let gang_blocks =
        if options.co_resident { blocks } else { cluster.iter().map(|c| u64::from(*c)).product() };
    check_memory(kernel, shape, options, gang_blocks)?;
    let tracks =
        options.checks && options.global_races && blocks > 1 && blocks < GlobalShadow::BLOCKS_MAX;
    let machine = Machine {
        kernel,
        memory,
        parameters,
        globals: variables.addresses(),
        grid: shape.grid,
        block: shape.block,
        cluster,
        shared_bytes: kernel.static_shared + shape.dynamic_shared,
        dynamic_shared: shape.dynamic_shared,
        options,
        level: Level::detect(),
        races: tracks.then(|| GlobalShadow::new(memory.allocations().iter().map(|a| a.bytes))),
        sync: SyncTable::default(),
    };
    let (findings, counts) = run_all(&machine, blocks / gang_blocks, gang_blocks as usize);
    let mut counters = Counters::of(kernel, &counts);
    counters.blocks = blocks;
    counters.occupancy = options.device.map(|device| {
        occupancy(device, machine.threads(), machine.shared_bytes, options.registers, blocks)
    });
    let findings = describe(module, kernel, findings);
    Ok(Report { findings, counters })
}

/// Checks extents against the kernel and the device; returns the cluster.
fn check_shape(
    kernel: &Kernel,
    shape: &LaunchShape,
    options: &LaunchOptions,
) -> Result<[u32; 3], LaunchError> {
    let fail = |why: String| Err(LaunchError::Shape { kernel: kernel.name.clone(), why });
    let threads: u64 = shape.block.iter().map(|b| u64::from(*b)).product();
    if threads == 0 || threads > 1024 || shape.block[2] > 64 {
        return fail(format!("a block of {:?} threads; it may have 1 to 1024", shape.block));
    }
    if shape.grid.contains(&0)
        || shape.grid[0] > i32::MAX as u32
        || shape.grid[1..].iter().any(|g| *g > 65535)
    {
        return fail(format!("a grid of {:?} blocks", shape.grid));
    }
    if let Some(most) = kernel.max_threads.filter(|most| threads > u64::from(*most)) {
        return fail(format!("{threads} threads in a block; the kernel allows {most}"));
    }
    if let Some(required) = kernel.required_threads.filter(|r| *r != shape.block) {
        return fail(format!(
            "blocks of {:?} threads; the kernel requires {required:?}",
            shape.block
        ));
    }
    let cluster = shape.cluster.or(kernel.cluster).unwrap_or([1; 3]);
    let size: u64 = cluster.iter().map(|c| u64::from(*c)).product();
    let divides = cluster.iter().zip(shape.grid).all(|(c, g)| *c != 0 && g.is_multiple_of(*c));
    if !divides || size > 16 {
        return fail(format!("clusters of {cluster:?} blocks in a grid of {:?}", shape.grid));
    }
    let shared = u64::from(kernel.static_shared) + u64::from(shape.dynamic_shared);
    let most = options.device.map_or(1 << 24, |d| u64::from(d.shared_bytes_block));
    if shared > most {
        return fail(format!("{shared} bytes of shared memory in a block; the device has {most}"));
    }
    Ok(cluster)
}

fn check_memory(
    kernel: &Kernel,
    shape: &LaunchShape,
    options: &LaunchOptions,
    blocks: u64,
) -> Result<(), LaunchError> {
    let threads: u64 = shape.block.iter().map(|b| u64::from(*b)).product();
    let registers = 4 * u64::from(kernel.slots[0]) + 8 * u64::from(kernel.slots[1]);
    let shared = u64::from(kernel.static_shared + shape.dynamic_shared) * 8;
    let per_thread = registers + u64::from(kernel.local_bytes);
    let bytes = blocks.saturating_mul(shared + threads.next_multiple_of(32) * per_thread);
    if bytes > options.memory_limit {
        let limit = options.memory_limit;
        return Err(LaunchError::Memory { kernel: kernel.name.clone(), bytes, limit });
    }
    Ok(())
}

/// Positions of the blocks of a gang.
fn gang_blocks(machine: &Machine<'_>, gang: u64, count: usize) -> Vec<[u32; 3]> {
    let cluster = machine.cluster;
    let size: u64 = cluster.iter().map(|c| u64::from(*c)).product();
    let clusters: [u32; 3] = std::array::from_fn(|a| machine.grid[a] / cluster[a]);
    let position = |at: u64, extents: [u32; 3]| {
        let [x, y] = [u64::from(extents[0]), u64::from(extents[1])];
        [(at % x) as u32, (at / x % y) as u32, (at / (x * y)) as u32]
    };
    (0..count as u64)
        .map(|at| {
            let number = gang * count as u64 + at;
            let (outer, inner) =
                (position(number / size, clusters), position(number % size, cluster));
            std::array::from_fn(|a| outer[a] * cluster[a] + inner[a])
        })
        .collect()
}

fn run_all(machine: &Machine<'_>, gangs: u64, count: usize) -> (Findings, Vec<PcCount>) {
    let available = || std::thread::available_parallelism().map_or(1, usize::from);
    let wanted = if machine.options.threads == 0 { available() } else { machine.options.threads };
    let workers = wanted.min(usize::try_from(gangs).unwrap_or(usize::MAX)).max(1);
    let next = AtomicU64::new(0);
    let total =
        Mutex::new((Findings::default(), vec![PcCount::default(); machine.kernel.code.len()]));
    let work = || {
        let mut worker = Worker::new(machine, count);
        loop {
            let turn = next.fetch_add(1, Relaxed);
            if turn >= gangs {
                break;
            }
            // A seed begins elsewhere in the grid, and odd ones go backwards.
            let seed = machine.options.seed;
            let place = (turn + seed / 2) % gangs;
            let gang = if seed % 2 == 1 { gangs - 1 - place } else { place };
            worker.run_gang(gang, &gang_blocks(machine, gang, count));
        }
        let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
        total.0.merge(std::mem::take(&mut worker.findings));
        total.1.iter_mut().zip(&worker.counts).for_each(|(sum, count)| sum.add(count));
    };
    if workers == 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(work);
            }
        });
    }
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn describe(module: &Module, kernel: &Kernel, findings: Findings) -> Vec<Finding> {
    let mut all: Vec<(Key, Sighting)> = findings.seen.into_iter().collect();
    all.sort_by_key(|(key, sighting)| (sighting.gang, *key));
    let site = |pc: u32, block, thread| {
        let pc = pc as usize;
        let place = kernel.places[pc];
        let file = |number: u32| module.decoded().files.get(&number).cloned().unwrap_or_default();
        let source = place.map(|p| SourcePlace {
            file: file(p.file),
            line: p.line,
            inlined_at: p.inlined_at.map(|(number, line)| (file(number), line)),
        });
        Site { block, thread, ptx_line: kernel.lines[pc], source }
    };
    all.into_iter()
        .map(|(key, s)| Finding {
            kind: key.kind,
            kernel: kernel.name.clone(),
            site: site(key.pc, s.block, s.thread),
            other: s
                .other
                .and_then(|(block, thread)| key.other_pc.map(|pc| site(pc, block, thread))),
            message: s.message,
            count: s.count,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::exec::gang::linear;

    #[test]
    fn blocks_are_numbered_row_by_row() {
        assert_eq!(linear([3, 4, 5], [2, 1, 1]), 12 + 3 + 2);
    }
}
