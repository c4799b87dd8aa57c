//! Windows that meet channel by channel: depthwise convolution and pooling in single precision.

use std::sync::Arc;

use super::Launch;
use super::contract::eval_rows;
use super::staging::Image;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::buffer::Buffer;
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::windows::{Meet, windows};
use crate::cpu::tile::{Program, Tile};

/// Elements that one epilogue call handles, about.
const ELEMENTS: usize = 2 * TILE;
/// Positions that share the loads of weights.
const POSITIONS: usize = 6;

/// What happens under a window.
#[derive(Debug)]
pub(super) enum Rule {
    /// Sum of products.
    Weighted(Weights),
    /// Sum.
    Sum,
    /// Largest.
    Max,
}

/// Weights, `[tap][channel]`.
#[derive(Debug)]
pub(super) enum Weights {
    /// Evaluated once.
    Constant(Arc<Buffer>),
    /// Evaluated per run.
    Evaluated(Program),
}

/// A bound reduction of windows.
#[derive(Debug)]
pub(super) struct Windowed {
    image: Image,
    channels: usize,
    taps: usize,
    rule: Rule,
    /// What each position of an image is divided by; nothing when empty.
    divisors: Vec<f32>,
    epilogue: Program,
}

impl Windowed {
    /// The epilogue's rows are positions of all images, its columns channels.
    pub(super) fn new(
        image: Image,
        channels: usize,
        taps: usize,
        rule: Rule,
        divisors: Vec<f32>,
        epilogue: Program,
    ) -> Self {
        Self { image, channels, taps, rule, divisors, epilogue }
    }
}

impl Launch for Windowed {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let positions = self.image.positions();
        if positions * self.channels == 0 {
            return;
        }
        let weights = self.taps * self.channels;
        let evaluated = match &self.rule {
            Rule::Weighted(Weights::Evaluated(_)) => weights,
            _ => 0,
        };
        let (_hold, shared) = exec.shared([self.image.floats(), evaluated]);
        self.image.prepare(exec, regions, shared[0]);
        let meet = match &self.rule {
            Rule::Sum => Meet::Sum,
            Rule::Max => Meet::Max,
            Rule::Weighted(Weights::Constant(buffer)) => Meet::Weighted(buffer.as_f32()),
            Rule::Weighted(Weights::Evaluated(program)) => {
                // SAFETY: the shared buffer is large enough and nobody else uses it before the pieces start.
                let out = unsafe { shared[1].floats_mut(0, weights) };
                let worker = &mut *exec.worker(0);
                let rows = 0..self.taps;
                eval_rows(exec.isa, worker, program, regions, &[], rows, self.channels, out);
                Meet::Weighted(out)
            }
        };
        let step = (ELEMENTS / self.channels / POSITIONS * POSITIONS).max(POSITIONS);
        let tiles = positions.div_ceil(step);
        let nanoseconds = (positions * self.channels * (self.taps + 8)) as u64 / 16;
        let pieces = if nanoseconds < 10_000 { 1 } else { tiles.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            for tile in share(tiles, pieces, piece) {
                let row = tile * step;
                self.tile(exec, regions, shared[0], meet, row, step.min(positions - row), w);
            }
        });
    }
}

impl Windowed {
    #[allow(clippy::too_many_arguments, reason = "one piece of the positions")]
    fn tile(
        &self,
        exec: Exec<'_>,
        regions: &[Region],
        memory: Region,
        meet: Meet<'_>,
        row: usize,
        rows: usize,
        w: usize,
    ) {
        let worker = &mut *exec.worker(w);
        let n = rows * self.channels;
        self.epilogue.shape(&mut worker.scratch, n.max(ELEMENTS));
        let out = worker.scratch.slots.slice::<f32>(0, n);
        let base = self.image.base(regions, memory);
        let taps = self.image.taps();
        // SAFETY: cells named by the image's tables lie in its region, which `base` checks, or in staged memory.
        unsafe { windows(exec.isa, base, taps, row, rows, self.channels, meet, out) };
        if !self.divisors.is_empty() {
            for (r, values) in out.chunks_exact_mut(self.channels).enumerate() {
                let by = self.divisors[(row + r) % self.divisors.len()];
                values.iter_mut().for_each(|x| *x /= by);
            }
        }
        let tile = Tile { fixed: &[], row, rows, col: 0, width: self.channels };
        self.epilogue.run(exec.isa, &mut worker.scratch, regions, &tile);
    }
}
