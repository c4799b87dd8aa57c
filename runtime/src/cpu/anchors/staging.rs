//! Images under sliding windows: in place where channels are contiguous, else staged with channels last and a border.

use tgc_ir::kernel_program::{Operand, axis};

use super::in_place::plain_f32;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, Worker, share};
use crate::cpu::index::Affine;
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::taps::{OUTSIDE, SEGMENTS, Taps};
use crate::cpu::kernels::windows::transpose;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Sliding windows over spatial axes.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    /// Input extents.
    pub(super) input: Vec<i64>,
    /// Output extents.
    pub(super) output: Vec<i64>,
    /// Window extents.
    pub(super) kernel: Vec<i64>,
    /// Step of the window.
    pub(super) stride: Vec<i64>,
    /// Step between cells.
    pub(super) dilation: Vec<i64>,
    /// Cells before the first input cell.
    pub(super) pad: Vec<i64>,
}

impl Windows {
    /// The same windows with at least one axis.
    pub(super) fn with_an_axis(mut self) -> Self {
        if self.input.is_empty() {
            for list in [
                &mut self.input,
                &mut self.output,
                &mut self.kernel,
                &mut self.stride,
                &mut self.dilation,
            ] {
                list.push(1);
            }
            self.pad.push(0);
        }
        self
    }

    /// Spatial axes.
    pub(super) fn rank(&self) -> usize {
        self.input.len()
    }

    /// Cells that the windows of axis `i` cover, border included.
    fn reach(&self, i: usize) -> i64 {
        (self.output[i] - 1).max(0) * self.stride[i] + (self.kernel[i] - 1) * self.dilation[i] + 1
    }

    /// True when no window of axis `i` leaves the input.
    fn is_inside(&self, i: usize) -> bool {
        self.pad[i] == 0 && self.reach(i) <= self.input[i]
    }
}

/// Images whose cells have contiguous channels.
#[derive(Debug)]
pub(super) struct Image {
    source: Source,
    windows: Windows,
    images: usize,
    channels: usize,
    lines: Vec<i64>,
    line_taps: usize,
    places: Vec<i64>,
    place_taps: usize,
    /// Places whose cells along the line are all inside, and the distance between neighbours.
    inner: (usize, usize),
    step: usize,
    fill: Vec<f32>,
    /// Floats per segment: the channels of a group under one tap, or under a line of taps.
    pub(super) run: usize,
}

#[derive(Debug)]
enum Source {
    InPlace { region: usize, base: usize, last: i64 },
    Staged(Box<Staged>),
}

/// How images are evaluated into staged memory.
#[derive(Debug)]
struct Staged {
    program: Program,
    /// Rows of the program are (lines, channels) and its columns run along a line; else rows are lines and columns
    /// (place, channel).
    across: bool,
    /// Extents of the bordered image.
    bordered: Vec<i64>,
}

/// What an image is bound from.
pub(super) struct Given<'a> {
    /// Code over image, channel, spatial axes.
    pub(super) operand: &'a Operand,
    /// Axes that count images.
    pub(super) images: &'a [i64],
    /// Channels.
    pub(super) channels: usize,
    /// Channels that one segment holds.
    pub(super) group: usize,
    /// What a cell outside holds.
    pub(super) fill: f32,
    /// Neighbouring taps of a line may form one segment, and are staged to do so below this number of channels.
    pub(super) merge_below: Option<usize>,
}

impl Image {
    pub(super) fn bind(
        cx: &Binder<'_>,
        given: &Given<'_>,
        windows: Windows,
    ) -> Result<Self, CpuError> {
        let images = count(given.images);
        let mut image = Self {
            source: Source::InPlace { region: 0, base: 0, last: 0 },
            images,
            channels: given.channels,
            lines: Vec::new(),
            line_taps: 0,
            places: Vec::new(),
            place_taps: 0,
            inner: (0, 0),
            step: 0,
            fill: Vec::new(),
            run: given.group,
            windows,
        };
        match image.in_place(cx, given)? {
            Some(affine) => image.lay(given, &affine.coefs, false),
            None => image.stage_through(cx, given)?,
        }
        Ok(image)
    }

    /// Where the operand is when it needs no staging.
    fn in_place(&mut self, cx: &Binder<'_>, given: &Given<'_>) -> Result<Option<Affine>, CpuError> {
        let w = &self.windows;
        let axes = given.images.len() + 1 + w.rank();
        let Some((region, affine)) = plain_f32(cx, given.operand, axes)? else { return Ok(None) };
        let channel = affine.coefs[given.images.len()];
        let contiguous = channel == 1 || given.channels == 1;
        let last = w.rank() - 1;
        let along = affine.coefs[axes - 1] == given.channels as i64 && w.is_inside(last);
        let few = given.merge_below.is_some_and(|below| given.group < below);
        let narrow = few && w.kernel[last] > 1 && !along;
        let extents = [given.images, &[given.channels as i64], &w.input[..]].concat();
        let negative = affine.base < 0 || affine.coefs.iter().any(|&c| c < 0);
        if !contiguous || narrow || negative || count(&extents) == 0 {
            return Ok(None);
        }
        let last = affine.range(&extents).1;
        self.source = Source::InPlace { region, base: affine.base as usize, last };
        Ok(Some(affine))
    }

    fn stage_through(&mut self, cx: &Binder<'_>, given: &Given<'_>) -> Result<(), CpuError> {
        let w = &self.windows;
        let (i, rank) = (given.images.len(), w.rank());
        let across = match plain_f32(cx, given.operand, i + 1 + rank)? {
            Some((_, affine)) => affine.coefs[i] != 1,
            None => true,
        };
        let (lines, width) = w.input.split_at(rank - 1);
        let channels = [given.channels as i64];
        // Images, lines, then channel and place in either order.
        let (channel, place) =
            if across { (i + rank - 1, i + rank) } else { (i + rank, i + rank - 1) };
        let operand = given.operand.with_axes(&|n| {
            axis(match n {
                n if n < i => n,
                n if n == i => channel,
                n if n == i + rank => place,
                n => n - 1,
            })
        });
        let outer = [given.images, lines].concat();
        let program = if across {
            cx.operand(&operand, [&[], &[&outer[..], &channels].concat(), width], 0)?
        } else {
            cx.operand(&operand, [&[], &outer, &[width, &channels].concat()], 0)?
        };
        let bordered: Vec<i64> = (0..rank).map(|i| w.reach(i)).collect();
        let mut coefs = vec![given.channels as i64; rank + 2];
        for (n, coef) in coefs.iter_mut().enumerate().skip(2) {
            *coef *= bordered[n - 1..].iter().product::<i64>();
        }
        coefs[0] = given.channels as i64 * bordered.iter().product::<i64>();
        coefs[1] = 1;
        self.source = Source::Staged(Box::new(Staged { program, across, bordered }));
        let given = Given { images: &[self.images as i64], ..*given };
        self.lay(&given, &coefs, true);
        Ok(())
    }

    /// Makes the tables for images of these strides: images, channel, spatial axes.
    fn lay(&mut self, given: &Given<'_>, strides: &[i64], bordered: bool) {
        let w = &self.windows;
        let rank = w.rank();
        let (by_image, spatial) = strides.split_at(given.images.len());
        let spatial = &spatial[1..];
        let cell = |i: usize, y: i64, k: i64| {
            let at = y * w.stride[i] + k * w.dilation[i] - if bordered { 0 } else { w.pad[i] };
            let inside = bordered || (0..w.input[i]).contains(&at);
            if inside { at * spatial[i] } else { OUTSIDE }
        };
        let last = rank - 1;
        let whole_line = given.merge_below.is_some()
            && w.dilation[last] == 1
            && given.group == given.channels
            && spatial[last] == given.channels as i64
            && (bordered || w.is_inside(last));
        let place_taps = if whole_line { 1 } else { w.kernel[last] };
        for y in 0..w.output[last] {
            self.places.extend((0..place_taps).map(|k| cell(last, y, k)));
        }
        let inside = |cells: &[i64]| cells.iter().all(|&c| c >= 0);
        let mut places = self.places.chunks_exact(place_taps.max(1) as usize).map(inside);
        if let Some(first) = places.position(|all| all) {
            self.inner = (first, first + 1 + places.take_while(|all| *all).count());
        }
        self.step = (w.stride[last] * spatial[last]) as usize;
        for image in points(given.images) {
            let start: i64 = image.iter().zip(by_image).map(|(i, s)| i * s).sum();
            for y in points(&w.output[..last]) {
                for k in points(&w.kernel[..last]) {
                    let at = (0..last).map(|i| cell(i, y[i], k[i]));
                    self.lines.push(at.fold(start, |sum, c| (sum + c).max(OUTSIDE)));
                }
            }
        }
        self.place_taps = place_taps as usize;
        self.line_taps = count(&w.kernel[..last]);
        if whole_line {
            self.run *= w.kernel[last] as usize;
        }
        self.fill = vec![given.fill; self.run.max(given.channels)];
    }

    /// Positions of all images.
    pub(super) fn positions(&self) -> usize {
        self.images * count(&self.windows.output)
    }

    /// Floats of shared memory that [`Image::prepare`] fills.
    pub(super) fn floats(&self) -> usize {
        match &self.source {
            Source::InPlace { .. } => 0,
            Source::Staged(s) => self.images * count(&s.bordered) * self.channels + SEGMENTS,
        }
    }

    /// The windows' cells.
    pub(super) fn taps(&self) -> Taps<'_> {
        Taps {
            lines: &self.lines,
            line_taps: self.line_taps,
            places: &self.places,
            place_taps: self.place_taps,
            inner: self.inner,
            step: self.step,
            width: count(&self.windows.output[self.windows.rank() - 1..]),
            fill: &self.fill,
        }
    }

    /// First float of the images, after checking that all of them lie in the region.
    pub(super) fn base(&self, regions: &[Region], memory: Region) -> *const f32 {
        match &self.source {
            Source::InPlace { region, base, last } => {
                regions[*region].check_floats(*last);
                regions[*region].float_at(*base)
            }
            Source::Staged(_) => memory.float_at(0),
        }
    }

    /// Evaluates what is not in place into `memory`.
    pub(super) fn prepare(&self, exec: Exec<'_>, regions: &[Region], memory: Region) {
        let Source::Staged(staged) = &self.source else { return };
        let w = &self.windows;
        let line = staged.bordered[w.rank() - 1] as usize * self.channels;
        let lines = self.images * count(&staged.bordered[..w.rank() - 1]);
        let pieces = if lines * line < 32 << 10 { 1 } else { lines.min(4 * exec.pool.threads()) };
        exec.split(pieces, (lines * line / 4) as u64, &|piece, w| {
            let range = share(lines, pieces, piece);
            // SAFETY: pieces write disjoint lines of the shared buffer, which is large enough for all.
            let out = unsafe { memory.floats_mut(range.start * line, range.len() * line) };
            let worker = &mut *exec.worker(w);
            staged.program.shape(&mut worker.scratch, TILE);
            for (to, at) in out.chunks_exact_mut(line.max(1)).zip(range) {
                self.stage_line(exec, worker, regions, staged, at, to);
            }
        });
    }

    /// Writes line `at` of the bordered images.
    fn stage_line(
        &self,
        exec: Exec<'_>,
        worker: &mut Worker,
        regions: &[Region],
        staged: &Staged,
        at: usize,
        to: &mut [f32],
    ) {
        let w = &self.windows;
        let last = w.rank() - 1;
        to.fill(self.fill[0]);
        let Some(line) = self.input_line(&staged.bordered, at) else { return };
        let width = w.input[last] as usize;
        // Places of the line that windows reach.
        let skip = (-w.pad[last]).clamp(0, width as i64) as usize;
        let end = (staged.bordered[last] - w.pad[last]).clamp(skip as i64, width as i64) as usize;
        let to = &mut to[(skip as i64 + w.pad[last]) as usize * self.channels..];
        let to = &mut to[..(end - skip) * self.channels];
        if staged.across {
            let step = TILE.min(end - skip).max(1);
            let group = (TILE / step).max(1);
            for c in (0..self.channels).step_by(group) {
                let rows = group.min(self.channels - c);
                for col in (skip..end).step_by(step) {
                    let width = step.min(end - col);
                    let row = line * self.channels + c;
                    let tile = Tile { fixed: &[], row, rows, col, width };
                    staged.program.run(exec.isa, &mut worker.scratch, regions, &tile);
                    let slot = staged.program.results[0].0;
                    let values = worker.scratch.slots.slice::<f32>(slot, rows * width);
                    let to = &mut to[(col - skip) * self.channels + c..];
                    transpose(values, rows, width, to, self.channels);
                }
            }
            return;
        }
        for col in (0..to.len()).step_by(TILE) {
            let width = TILE.min(to.len() - col);
            let first = skip * self.channels + col;
            let tile = Tile { fixed: &[], row: line, rows: 1, col: first, width };
            staged.program.run(exec.isa, &mut worker.scratch, regions, &tile);
            let values = worker.scratch.slots.slice::<f32>(staged.program.results[0].0, width);
            to[col..col + width].copy_from_slice(values);
        }
    }

    /// The input line behind line `at` of the bordered images, `None` in the border.
    fn input_line(&self, bordered: &[i64], at: usize) -> Option<usize> {
        let w = &self.windows;
        let outer = w.rank() - 1;
        let per_image = count(&bordered[..outer]);
        let coordinates = super::contract::coordinates(at % per_image, &bordered[..outer]);
        let mut line = (at / per_image) as i64;
        for (i, c) in coordinates.iter().enumerate() {
            let inside = c - w.pad[i];
            if !(0..w.input[i]).contains(&inside) {
                return None;
            }
            line = line * w.input[i] + inside;
        }
        Some(line as usize)
    }
}

/// Every point of a space, row-major.
pub(super) fn points(extents: &[i64]) -> impl Iterator<Item = Vec<i64>> + '_ {
    let count = extents.iter().product::<i64>().max(0) as usize;
    (0..count).map(|i| super::contract::coordinates(i, extents))
}
