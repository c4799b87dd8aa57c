//! Windows that meet channel by channel (depthwise convolution, pooling) or in few output channels.

use std::sync::Arc;

use tgc_ir::kernel_program::Operand;

use super::Launch;
use super::contract::eval_rows;
use super::staging::Image;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, Worker, share};
use crate::cpu::kernels::buffer::Buffer;
use crate::cpu::kernels::dots::dots;
use crate::cpu::kernels::gemm::{Lhs, Rows};
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::windows::{Meet, windows};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Elements that one epilogue call handles, about.
const ELEMENTS: usize = 2 * TILE;
/// Positions that share the loads of weights.
const POSITIONS: usize = 6;

/// What happens under a window.
#[derive(Debug)]
pub(super) enum Rule {
    /// Sum of products, channel by channel; weights are `[tap][channel]`.
    Weighted(Weights),
    /// Dot products with a filter per output channel; weights are `[channel][tap and input channel]`.
    Dots(Weights),
    /// Sum.
    Sum,
    /// Largest.
    Max,
}

/// Weights.
#[derive(Debug)]
pub(super) enum Weights {
    /// Evaluated once.
    Constant(Arc<Buffer>),
    /// Evaluated per run.
    Evaluated(Program),
}

impl Weights {
    /// An operand over rows and columns.
    pub(super) fn bind(
        cx: &Binder<'_>,
        operand: &Operand,
        rows: &[i64],
        cols: &[i64],
    ) -> Result<Self, CpuError> {
        let program = cx.operand(operand, [&[], rows, cols], 0)?;
        if !cx.is_constant(operand) {
            return Ok(Weights::Evaluated(program));
        }
        let (rows, k) = (count(rows), count(cols));
        Ok(Weights::Constant(cx.packed(operand, &[rows as i64, k as i64], || {
            let mut out = Buffer::floats(rows * k);
            let worker = &mut Worker::fresh();
            let (regions, to) = (cx.constant_regions(), out.as_f32_mut());
            eval_rows(cx.isa, worker, &program, &regions, &[], 0..rows, k, to);
            out
        })))
    }
}

/// A bound reduction of windows.
#[derive(Debug)]
pub(super) struct Windowed {
    image: Image,
    channels: usize,
    /// Rows of the weights.
    rows: usize,
    /// Elements of a window per channel.
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
        let rows = if matches!(rule, Rule::Dots(_)) { channels } else { taps };
        Self { image, channels, rows, taps, rule, divisors, epilogue }
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
            Rule::Weighted(Weights::Evaluated(_)) | Rule::Dots(Weights::Evaluated(_)) => weights,
            _ => 0,
        };
        let (_hold, shared) = exec.shared([self.image.floats(), evaluated]);
        self.image.prepare(exec, regions, shared[0]);
        let weights = match &self.rule {
            Rule::Sum | Rule::Max => &[][..],
            Rule::Weighted(w) | Rule::Dots(w) => match w {
                Weights::Constant(buffer) => buffer.as_f32(),
                Weights::Evaluated(program) => {
                    // SAFETY: the shared buffer is large enough and nobody else uses it before the pieces start.
                    let out = unsafe { shared[1].floats_mut(0, weights) };
                    let worker = &mut *exec.worker(0);
                    let (rows, k) = (0..self.rows, weights / self.rows.max(1));
                    eval_rows(exec.isa, worker, program, regions, &[], rows, k, out);
                    out
                }
            },
        };
        let step = (ELEMENTS / self.channels / POSITIONS * POSITIONS).max(POSITIONS);
        let tiles = positions.div_ceil(step);
        let nanoseconds = (positions * self.channels * (self.taps + 8)) as u64 / 16;
        let pieces = if nanoseconds < 10_000 { 1 } else { tiles.min(4 * exec.pool.threads()) };
        exec.split(pieces, nanoseconds, &|piece, w| {
            for tile in share(tiles, pieces, piece) {
                let row = tile * step;
                self.tile(exec, regions, shared[0], weights, row, step.min(positions - row), w);
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
        weights: &[f32],
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
        let meet = match self.rule {
            Rule::Sum => Some(Meet::Sum),
            Rule::Max => Some(Meet::Max),
            Rule::Weighted(_) => Some(Meet::Weighted(weights)),
            Rule::Dots(_) => None,
        };
        // SAFETY: cells named by the image's tables lie in its region, which `base` checks, or in staged memory.
        unsafe {
            match meet {
                Some(meet) => windows(exec.isa, base, taps, row, rows, self.channels, meet, out),
                None => {
                    let lhs = Lhs { base, rows: Rows::Windows(taps), run: self.image.run };
                    dots(exec.isa, &lhs, row, rows, weights, self.channels, out);
                }
            }
        }
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
