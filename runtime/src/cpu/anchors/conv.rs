//! `conv`: filter rows against panels of input cells gathered from staged planes; depthwise plane by plane.
//!
//! Rows of the product are output channels, columns output positions, so that filters are read in place and
//! results are stored along the image. Other types and the gradient form go through [`super::conv_plain`].

use std::sync::Arc;

use tgc_ir::DType;
use tgc_ir::kernel_program::{Conv, Operand};

use super::contract::eval_rows;
use super::in_place::{RowStarts, plain_f32};
use super::staging::{SLACK, Staged, Windows};
use super::{Bound, Launch, conv_depthwise, conv_plain};
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, Worker, share};
use crate::cpu::index::Walk;
use crate::cpu::kernels::buffer::Buffer;
use crate::cpu::kernels::gemm::{self, BLOCK_ROWS, Block, Lhs, PanelShape, Rows, TILE_FLOATS};
use crate::cpu::kernels::planes;
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Extents of a convolution.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) batch: usize,
    pub(super) groups: usize,
    /// Input channels per group.
    pub(super) c: usize,
    /// Output channels per group.
    pub(super) o: usize,
    pub(super) windows: Windows,
}

#[derive(Debug)]
struct BoundConv {
    shape: Shape,
    panels: PanelShape,
    staged: Staged,
    /// Offset of each (channel of a group, tap) in the staged or original image.
    cells: Vec<usize>,
    input: Input,
    filter: Filter,
    epilogue: Program,
}

/// Where panels gather from.
#[derive(Debug)]
enum Input {
    /// The image as it is: kernel 1, no padding, spatial axes contiguous.
    Direct { region: usize, base: i64, image: i64, channel: i64, last: i64 },
    /// Staged per image.
    Staged(Program),
}

/// Rows of the filter matrix.
#[derive(Debug)]
pub(super) enum Filter {
    /// In place.
    Direct { region: usize, base: usize, rows: RowStarts, last: i64 },
    /// Evaluated once.
    Constant(Arc<Buffer>),
    /// Evaluated per run.
    Evaluated(Program),
}

pub(super) fn shape(cx: &Binder<'_>, a: &Conv) -> Result<Shape, CpuError> {
    let rank = a.in_spatial.len();
    let lengths =
        [a.out_spatial.len(), a.kernel.len(), a.stride.len(), a.dilation.len(), a.pad_low.len()];
    if lengths.iter().any(|&l| l != rank)
        || a.groups < 1
        || a.stride.iter().chain(&a.dilation).any(|&s| s < 1)
    {
        return Err(cx.malformed("spatial attributes disagree in rank or are not positive"));
    }
    Ok(Shape {
        batch: cx.extent(&a.batch)?,
        groups: a.groups as usize,
        c: cx.extent(&a.in_channels)?,
        o: cx.extent(&a.out_channels)?,
        windows: Windows {
            input: cx.extents(&a.in_spatial)?,
            output: cx.extents(&a.out_spatial)?,
            kernel: cx.extents(&a.kernel)?,
            stride: a.stride.clone(),
            dilation: a.dilation.clone(),
            pad: a.pad_low.iter().map(|d| cx.number(d)).collect::<Result<_, _>>()?,
        },
    })
}

pub(super) fn bind(cx: &Binder<'_>, a: &Conv) -> Result<Bound, CpuError> {
    let shape = shape(cx, a)?;
    if a.acc != DType::F32 || a.transposed {
        return Ok(Box::new(conv_plain::bind(cx, a, shape)?));
    }
    let staged = Staged::new(shape.windows.clone());
    let filter = filter(cx, &a.filter, &shape)?;
    let channels = [(shape.groups * shape.c) as i64];
    let images = [shape.batch as i64];
    let input = cx.operand(&a.input, [&images, &channels, &shape.windows.input], 0)?;
    let outputs = [(shape.groups * shape.o) as i64];
    let epilogue =
        cx.epilogue(&a.epilogue, [&images, &outputs, &shape.windows.output], 1, false)?;
    if shape.c == 1 && shape.o <= 4 {
        return Ok(Box::new(conv_depthwise::bind(shape, staged, input, filter, epilogue)));
    }
    let (input, cells) = match direct_input(cx, &a.input, &shape)? {
        Some((input, channel)) => (input, (0..shape.c).map(|c| c * channel).collect()),
        None => {
            let cell = |c: usize| staged.taps.iter().map(move |t| (c, *t));
            let cells = (0..shape.c).flat_map(cell).map(|(c, t)| c * staged.channel + t).collect();
            (Input::Staged(input), cells)
        }
    };
    let columns = staged.span;
    let panels = PanelShape::new(cx.isa, shape.c * staged.taps.len(), columns);
    Ok(Box::new(BoundConv { shape, panels, staged, cells, input, filter, epilogue }))
}

/// The filter as rows of `channels * taps` floats, one per output channel.
pub(super) fn filter(
    cx: &Binder<'_>,
    operand: &Operand,
    shape: &Shape,
) -> Result<Filter, CpuError> {
    let outputs = [(shape.groups * shape.o) as i64];
    let mut inner = vec![shape.c as i64];
    inner.extend(&shape.windows.kernel);
    let k = count(&inner);
    if let Some((region, affine)) = plain_f32(cx, operand, 1 + inner.len())?
        && (Walk::new(&inner, &affine.coefs[1..]).stride() == Some(1) || k == 1)
        && affine.coefs[0] >= 0
        && affine.base >= 0
    {
        let rows = RowStarts::Strided(affine.coefs[0] as usize);
        let last = affine.range(&[&outputs[..], &inner].concat()).1;
        return Ok(Filter::Direct { region, base: affine.base as usize, rows, last });
    }
    let program = cx.operand(operand, [&[], &outputs, &inner], 0)?;
    if !cx.is_constant(operand) {
        return Ok(Filter::Evaluated(program));
    }
    let key = [outputs[0], k as i64];
    Ok(Filter::Constant(cx.packed(operand, &key, || {
        let mut out = Buffer::floats(count(&outputs) * k);
        let rows = 0..count(&outputs);
        let regions = cx.constant_regions();
        eval_rows(cx.isa, &mut Worker::fresh(), &program, &regions, &[], rows, k, out.as_f32_mut());
        out
    })))
}

impl Filter {
    /// Floats of shared memory that [`Filter::rows`] needs.
    pub(super) fn floats(&self, rows: usize, k: usize) -> usize {
        if matches!(self, Filter::Evaluated(_)) { rows * k } else { 0 }
    }

    /// Evaluates into `memory` if needed; first float and row starts.
    pub(super) fn rows(
        &self,
        exec: Exec<'_>,
        regions: &[Region],
        memory: Region,
        rows: usize,
        k: usize,
    ) -> (*const f32, Rows<'_>) {
        match self {
            Filter::Direct { region, base, rows, last } => {
                if k > 0 {
                    regions[*region].check_floats(*last);
                }
                (regions[*region].float_at(*base), rows.view())
            }

            Filter::Constant(buffer) => (buffer.as_f32().as_ptr(), Rows::Strided(k)),
            Filter::Evaluated(program) => {
                // SAFETY: the shared buffer is large enough and nobody else uses it before the product starts.
                let out = unsafe { memory.floats_mut(0, rows * k) };
                eval_rows(exec.isa, &mut exec.worker(0), program, regions, &[], 0..rows, k, out);
                (memory.float_at(0), Rows::Strided(k))
            }
        }
    }
}

fn direct_input(
    cx: &Binder<'_>,
    operand: &Operand,
    shape: &Shape,
) -> Result<Option<(Input, usize)>, CpuError> {
    let w = &shape.windows;
    let pointwise = w.kernel.iter().all(|&k| k == 1) && w.stride.iter().all(|&s| s == 1);
    if !pointwise || w.pad.iter().any(|&p| p != 0) || w.input != w.output {
        return Ok(None);
    }
    let Some((region, affine)) = plain_f32(cx, operand, 2 + w.input.len())? else {
        return Ok(None);
    };
    let spatial = Walk::new(&w.input, &affine.coefs[2..]);
    let contiguous = spatial.stride() == Some(1) || count(&w.input) == 1;
    if !contiguous || affine.coefs.iter().any(|&c| c < 0) || affine.base < 0 {
        return Ok(None);
    }
    let (image, channel) = (affine.coefs[0], affine.coefs[1]);
    let extents = [&[shape.batch as i64, (shape.groups * shape.c) as i64], &w.input[..]].concat();
    let last = affine.range(&extents).1;
    Ok(Some((Input::Direct { region, base: affine.base, image, channel, last }, channel as usize)))
}

impl Launch for BoundConv {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let s = &self.shape;
        let (rows, k) = (s.groups * s.o, self.panels.k);
        if rows == 0 || self.staged.span == 0 {
            return;
        }
        let channels = s.groups * s.c;
        let image = if matches!(self.input, Input::Staged(_)) {
            channels * self.staged.channel + SLACK
        } else {
            0
        };
        let (_hold, shared) = exec.shared([image, self.filter.floats(rows, k)]);
        let filter = self.filter.rows(exec, regions, shared[1], rows, k);
        let filter = Lhs { base: filter.0, rows: filter.1, segments: &[0], run: k };
        for n in 0..s.batch {
            let base = match &self.input {
                Input::Direct { region, base, image, last, .. } => {
                    regions[*region].check_floats(*last);
                    regions[*region].float_at((base + n as i64 * image) as usize)
                }
                Input::Staged(program) => {
                    self.stage(exec, regions, program, n, channels, shared[0]);
                    shared[0].float_at(0)
                }
            };
            self.multiply(exec, regions, n, &Image(base), &filter);
        }
    }
}

/// Start of an image, shared by workers that only read it.
struct Image(*const f32);
// SAFETY: the image is read only while the product runs.
unsafe impl Sync for Image {}

impl BoundConv {
    fn stage(
        &self,
        exec: Exec<'_>,
        regions: &[Region],
        program: &Program,
        n: usize,
        channels: usize,
        to: Region,
    ) {
        let floats = self.staged.channel;
        let pieces =
            if channels * floats < 32 << 10 { 1 } else { channels.min(4 * exec.pool.threads()) };
        exec.split(pieces, (channels * floats / 4) as u64, &|piece, w| {
            let range = share(channels, pieces, piece);
            // SAFETY: pieces write disjoint channels of the shared buffer, which is large enough for all.
            let out = unsafe { to.floats_mut(range.start * floats, range.len() * floats) };
            let worker = &mut *exec.worker(w);
            let fixed = [n as i64];
            self.staged.stage(
                exec.isa,
                worker,
                program,
                regions,
                &fixed,
                range.start,
                range.len(),
                0.0,
                out,
            );
        });
    }

    fn multiply(
        &self,
        exec: Exec<'_>,
        regions: &[Region],
        n: usize,
        image: &Image,
        filter: &Lhs<'_>,
    ) {
        let s = &self.shape;
        let panels = self.panels.panels();
        let nanoseconds =
            (s.groups * s.o * self.staged.span) as u64 * (self.panels.k as u64 / 60 + 1);
        let wanted = if nanoseconds < 10_000 || exec.pool.threads() == 1 {
            1
        } else {
            4 * exec.pool.threads()
        };
        let down = wanted.div_ceil(s.groups * panels).min(s.o.div_ceil(BLOCK_ROWS));
        exec.split(s.groups * panels * down, nanoseconds, &|piece, w| {
            let (g, rest) = (piece / (panels * down), piece % (panels * down));
            let units = share(s.o.div_ceil(BLOCK_ROWS), down, rest % down);
            let rows = units.start * BLOCK_ROWS..(units.end * BLOCK_ROWS).min(s.o);
            self.panel(exec, regions, n, image, filter, g, rest / down, rows, w);
        });
    }

    #[allow(clippy::too_many_arguments, reason = "one piece of the product")]
    fn panel(
        &self,
        exec: Exec<'_>,
        regions: &[Region],
        n: usize,
        image: &Image,
        filter: &Lhs<'_>,
        g: usize,
        p: usize,
        rows: std::ops::Range<usize>,
        w: usize,
    ) {
        let s = &self.shape;
        let (col, vectors) = (p * self.panels.width(), self.panels.vectors(p));
        let ld = vectors * self.panels.lanes;
        let width = ld.min(self.staged.span - col);
        let group = match &self.input {
            Input::Direct { channel, .. } => g * s.c * *channel as usize,
            Input::Staged(_) => g * s.c * self.staged.channel,
        };
        let worker = &mut *exec.worker(w);
        worker.pack.reserve(self.panels.k * ld * 4);
        let pack = &mut worker.pack.as_f32_mut()[..self.panels.k * ld];
        // SAFETY: cells of output positions below `span` are inside the image: staged by construction, in place
        // because kernel 1 makes positions and cells the same.
        unsafe {
            planes::gather_rows(
                exec.isa,
                image.0.wrapping_add(group + col),
                &self.cells,
                width,
                ld,
                pack,
            )
        };
        let (mut starts, mut at) = ([(0usize, 0usize); 64], 0);
        let first = self.staged.cells(col, col + width, &mut |from, count| {
            starts[at] = (from - col, count);
            at += 1;
        });
        let starts = &starts[..at];
        let valid: usize = starts.iter().map(|s| s.1).sum();
        if valid == 0 {
            return;
        }
        self.epilogue.shape(&mut worker.scratch, TILE_FLOATS);
        let (scratch, tile) = (&mut worker.scratch, worker.tile.as_f32_mut());
        let fixed = [n as i64];
        let mut sink = |block: Block<'_>| {
            let slot = scratch.slots.slice::<f32>(0, block.rows * valid);
            for (to, from) in slot.chunks_exact_mut(valid).zip(block.tile.chunks_exact(block.ld)) {
                let mut at = 0;
                for &(start, count) in starts {
                    to[at..at + count].copy_from_slice(&from[start..start + count]);
                    at += count;
                }
            }
            let row = block.row;
            let tile = Tile { fixed: &fixed, row, rows: block.rows, col: first, width: valid };
            self.epilogue.run(exec.isa, scratch, regions, &tile);
        };
        let shape = PanelShape { n: width, nv: vectors, ..self.panels };
        let rows = g * s.o + rows.start..g * s.o + rows.end;
        // SAFETY: filter rows are inside their region or buffer; nobody writes them meanwhile.
        unsafe { gemm::contract(exec.isa, filter, rows, shape, pack, 0..1, tile, &mut sink) };
    }
}
