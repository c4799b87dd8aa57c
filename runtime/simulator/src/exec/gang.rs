//! A gang: the blocks of a cluster (or of a whole grid) that run interleaved on one thread, and the order in
//! which their warps and their asynchronous copies go on.

use super::address::first;
use super::lanes::{DoubleRow, LANES, WordRow};
use super::launch::Completion;
use super::state::{BlockState, ClusterBarrier, Machine, Worker};
use super::sync::{BARRIERS, BarrierState};
use super::warp::{Wait, Warp};
use crate::check::{FindingKind, Findings};
use crate::counters::PcCount;
use crate::decode::inst::{LaneMask, Special};
use crate::decode::kernel::Constant;

/// Instructions that a warp runs before another may.
const BUDGET: u32 = 2048;
/// Most instructions of a turn under a random schedule.
const BUDGET_RANDOM: u64 = 96;
/// Rounds after which the oldest copy is done although nobody waits for it.
const STALE_ROUNDS: u32 = 64;

impl<'m> Worker<'m> {
    pub(crate) fn new(machine: &'m Machine<'m>, blocks: usize) -> Worker<'m> {
        let per_block = machine.warps();
        let mut warps = Vec::new();
        for block in 0..blocks {
            for index in 0..per_block {
                let agent = block as u32 * per_block + index;
                let mut warp = Warp::at(block, index, agent);
                prepare(machine, &mut warp);
                warps.push(warp);
            }
        }
        Worker {
            machine,
            findings: Findings::default(),
            counts: vec![PcCount::default(); machine.kernel.code.len()],
            blocks: (0..blocks).map(|_| BlockState::default()).collect(),
            warps,
            cluster: ClusterBarrier::default(),
            flights: Vec::new(),
            next_flight: 0,
            agents: 0,
            fenced: Vec::new(),
            hint: 0,
            random: 1,
            steps: 0,
            stopped: false,
        }
    }

    /// Runs the gang of a number, blocks given by their positions in the grid.
    pub(crate) fn run_gang(&mut self, gang: u64, ids: &[[u32; 3]]) {
        self.begin_gang(gang, ids);
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        let mut stale = 0;
        while !self.stopped {
            let mut progress = self.run_round(&mut order);
            for block in 0..self.blocks.len() {
                progress |= self.open_barriers(block);
            }
            progress |= self.open_cluster_barrier();
            stale = if self.flights.is_empty() { 0 } else { stale + 1 };
            if self.is_copy_due(progress, stale) {
                self.finish_some_flight();
                (progress, stale) = (true, 0);
            }
            if self.warps.iter().all(Warp::is_done) {
                self.check_unfinished();
                return;
            }
            if !progress {
                self.report_deadlock();
                return;
            }
        }
    }

    fn begin_gang(&mut self, gang: u64, ids: &[[u32; 3]]) {
        let machine = self.machine;
        self.findings.gang = gang;
        self.flights.clear();
        self.agents = self.warps.len() as u32;
        self.fenced.clear();
        self.fenced.resize(self.warps.len(), 0);
        self.cluster = ClusterBarrier::default();
        (self.steps, self.stopped) = (0, false);
        // An odd multiple keeps seeds of neighbouring gangs apart; the state may not be zero.
        self.random = (machine.options.seed ^ gang.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
        let cluster = machine.cluster_blocks();
        for (at, (block, id)) in self.blocks.iter_mut().zip(ids).enumerate() {
            block.id = *id;
            block.rank = at as u32 % cluster;
            block.shared.clear();
            // What nobody wrote reads as NaN.
            block.shared.resize(machine.shared_bytes as usize, 0xff);
            if machine.options.checks {
                let granules = (machine.kernel.granule, machine.kernel.stored);
                let bytes = machine.shared_bytes as usize;
                block.shadow.reset(bytes, granules, machine.kernel.fine_order);
            }
            block.barriers.resize_with(BARRIERS, BarrierState::default);
            block.barriers.iter_mut().for_each(BarrierState::reset);
            block.mbarriers.clear();
            block.async_reads.clear();
            block.knowledge.begin(linear(machine.grid, *id));
        }
        let threads = machine.threads();
        for warp in &mut self.warps {
            let lanes = (threads - warp.index * 32).min(32);
            warp.begin(if lanes == 32 { u32::MAX } else { (1 << lanes) - 1 });
            place(machine, warp, ids[warp.block], warp.block as u32 % cluster);
        }
    }

    /// Gives each warp a turn.
    fn run_round(&mut self, order: &mut [usize]) -> bool {
        let random = self.machine.options.seed != 0;
        if random {
            for at in (1..order.len()).rev() {
                let other = self.random(at as u64 + 1) as usize;
                order.swap(at, other);
            }
        }
        let mut progress = false;
        for at in order {
            if self.warps[*at].is_done() {
                continue;
            }
            let budget = if !random {
                BUDGET
            } else if self.random(4) == 0 {
                // A turn left out counts as progress, for the next may bring some.
                progress |= self.can_move(*at);
                continue;
            } else {
                1 + self.random(BUDGET_RANDOM) as u32
            };
            let mut warp = std::mem::take(&mut self.warps[*at]);
            progress |= self.run_warp(&mut warp, budget);
            self.warps[*at] = warp;
            if self.stopped {
                break;
            }
        }
        progress
    }

    fn can_move(&self, at: usize) -> bool {
        let warp = &self.warps[at];
        warp.fragments.iter().any(|f| self.is_over(warp, f.wait))
    }

    fn is_copy_due(&mut self, progress: bool, stale: u32) -> bool {
        if self.flights.is_empty() {
            return false;
        }
        match self.machine.options.completion {
            Completion::Seeded => !progress || stale > STALE_ROUNDS || self.random(3) == 0,
            _ => !progress || stale > STALE_ROUNDS,
        }
    }

    fn finish_some_flight(&mut self) {
        let at = match self.machine.options.completion {
            Completion::Seeded => self.random(self.flights.len() as u64) as usize,
            _ => 0,
        };
        if let Some(flight) = self.flights.get(at) {
            let number = flight.number;
            self.finish_flight(number);
        }
    }

    /// Asynchronous work that nobody waited for.
    fn check_unfinished(&mut self) {
        let mut found = Vec::new();
        for (at, warp) in self.warps.iter().enumerate() {
            let copies = warp.copy_groups.iter().flatten().chain(&warp.copies);
            found.extend(copies.map(|c| (at, c.pc, "cp.async")));
            let products = warp.product_groups.iter().flatten().chain(&warp.products);
            found.extend(products.map(|p| (at, p.pc, "wgmma")));
        }
        let per_block = self.machine.warps() as usize;
        let flights = self.flights.iter();
        found.extend(flights.map(|f| (f.block * per_block + f.index as usize, f.pc, "bulk copy")));
        for (at, pc, what) in found {
            let warp = std::mem::take(&mut self.warps[at]);
            self.report((&warp, 0, pc), FindingKind::UnfinishedAsync, None, || {
                format!("the kernel ends and nobody has waited for this {what}")
            });
            self.warps[at] = warp;
        }
        while let Some(flight) = self.flights.first() {
            let number = flight.number;
            self.finish_flight(number);
        }
    }

    fn report_deadlock(&mut self) {
        let mut words = vec!["nothing can go on".to_owned()];
        let mut lead = None;
        for (at, warp) in self.warps.iter().enumerate() {
            for fragment in &warp.fragments {
                lead = lead.or(Some((at, fragment.pc, first(fragment.mask) as u32)));
                words.push(format!(
                    "  block {:?} warp {} lanes {:#010x}, PTX line {}: {}",
                    self.blocks[warp.block].id,
                    warp.index,
                    fragment.mask,
                    self.machine.kernel.lines[fragment.pc as usize],
                    self.describe(warp, fragment.wait)
                ));
            }
        }
        let hidden = words.len().saturating_sub(40);
        words.truncate(40);
        if hidden > 0 {
            words.push(format!("  and {hidden} more"));
        }
        let Some((at, pc, lane)) = lead else { return };
        let warp = std::mem::take(&mut self.warps[at]);
        self.report((&warp, lane, pc), FindingKind::Deadlock, None, || words.join("\n"));
        self.warps[at] = warp;
    }

    fn describe(&self, warp: &Warp, wait: Wait) -> String {
        match wait {
            Wait::None => "can go on".into(),
            Wait::Lanes { members } => format!("waits for lanes {members:#010x} of its warp"),
            Wait::Barrier { id, .. } => format!("waits at barrier {id}"),
            Wait::Cluster { .. } => "waits for its cluster".into(),
            Wait::Mbarrier { block, address, phase } => {
                let state = self.blocks[block].mbarriers.get(&address);
                let state = state.map_or_else(String::new, |s| s.describe());
                let whose = if block == warp.block { "" } else { " of another block" };
                format!("waits for phase {phase} of the mbarrier at {address}{whose} ({state})")
            }
        }
    }
}

/// A block's number in its grid.
pub(crate) fn linear(grid: [u32; 3], id: [u32; 3]) -> u64 {
    let [x, y, z] = id.map(u64::from);
    (z * u64::from(grid[1]) + y) * u64::from(grid[0]) + x
}

/// Gives a warp its registers and constants.
fn prepare(machine: &Machine<'_>, warp: &mut Warp) {
    let kernel = machine.kernel;
    let [words, doubles, predicates] = kernel.slots;
    warp.file.words = vec![WordRow([0; LANES]); words as usize];
    warp.file.doubles = vec![DoubleRow([0; LANES]); doubles as usize];
    warp.file.predicates = vec![0; predicates as usize];
    warp.local = vec![0; kernel.local_bytes as usize * LANES];
    for (slot, constant) in &kernel.word_constants {
        if let Some(bits) = bits(machine, *constant) {
            warp.file.words[*slot as usize].0 = [bits as u32; LANES];
        }
    }
    for (slot, constant) in &kernel.double_constants {
        if let Some(bits) = bits(machine, *constant) {
            warp.file.doubles[*slot as usize].0 = [bits; LANES];
        }
    }
}

fn bits(machine: &Machine<'_>, constant: Constant) -> Option<u64> {
    match constant {
        Constant::Bits(bits) => Some(bits),
        Constant::Global(index, offset) => {
            Some(machine.globals.get(index as usize)?.wrapping_add(offset as u64))
        }
        Constant::Special(_) => None,
    }
}

/// Clears the registers of a warp and fills its special registers for a block.
fn place(machine: &Machine<'_>, warp: &mut Warp, block: [u32; 3], rank: u32) {
    let kernel = machine.kernel;
    let registers = |constants: &[(u32, Constant)], all: u32| {
        constants.iter().map(|(slot, _)| *slot).min().unwrap_or(all) as usize
    };
    let words = registers(&kernel.word_constants, kernel.slots[0]);
    warp.file.words[..words].fill(WordRow([0; LANES]));
    let doubles = registers(&kernel.double_constants, kernel.slots[1]);
    warp.file.doubles[..doubles].fill(DoubleRow([0; LANES]));
    warp.file.predicates.fill(0);
    for (slot, constant) in &kernel.word_constants {
        if let Constant::Special(special) = constant {
            let row = special_row(machine, special, (block, rank), warp.index);
            warp.file.words[*slot as usize].0 = row;
        }
    }
    for (slot, constant) in &kernel.double_constants {
        if let Constant::Special(special) = constant {
            let row = special_row(machine, special, (block, rank), warp.index);
            warp.file.doubles[*slot as usize].0 = row.map(u64::from);
        }
    }
}

fn special_row(
    machine: &Machine<'_>,
    special: &Special,
    (block, rank): ([u32; 3], u32),
    warp: u32,
) -> [u32; LANES] {
    let cluster = machine.cluster;
    let axis = |values: [u32; 3], at: &u8| [values[usize::from(*at)]; LANES];
    let each = |f: &dyn Fn(u32) -> u32| std::array::from_fn(|lane| f(lane as u32));
    let within: [u32; 3] = std::array::from_fn(|a| block[a] % cluster[a]);
    match special {
        Special::Thread(at) => each(&|lane| {
            let [x, y, _] = machine.block;
            let t = warp * 32 + lane;
            [t % x, t / x % y, t / (x * y)][usize::from(*at)]
        }),
        Special::Threads(at) => axis(machine.block, at),
        Special::Block(at) => axis(block, at),
        Special::Blocks(at) => axis(machine.grid, at),
        Special::Lane => each(&|lane| lane),
        Special::Warp => [warp; LANES],
        Special::Warps => [machine.warps(); LANES],
        Special::WarpSize => [32; LANES],
        Special::LaneMask(kind) => each(&|lane| match kind {
            LaneMask::Eq => 1 << lane,
            LaneMask::Lt => (1 << lane) - 1,
            LaneMask::Le => u32::MAX >> (31 - lane),
            LaneMask::Gt => !(u32::MAX >> (31 - lane)),
            LaneMask::Ge => !((1u32 << lane) - 1),
        }),
        Special::ClusterBlock(at) => axis(within, at),
        Special::ClusterBlocks(at) => axis(cluster, at),
        Special::Cluster(at) => axis(std::array::from_fn(|a| block[a] / cluster[a]), at),
        Special::Clusters(at) => axis(std::array::from_fn(|a| machine.grid[a] / cluster[a]), at),
        Special::ClusterRank => [rank; LANES],
        Special::ClusterSize => [machine.cluster_blocks(); LANES],
        Special::IsCluster => [u32::from(machine.cluster_blocks() > 1); LANES],
        Special::DynamicShared => [machine.dynamic_shared; LANES],
        Special::TotalShared => [machine.shared_bytes; LANES],
        Special::Zero => [0; LANES],
    }
}
