//! `contract`: sums of products, single precision through packed panels, other types through [`super::integer`].
//!
//! Panels of constant right operands are packed once when bound. Every element of the result is one chain over k
//! in ascending order, whatever the extents of m, batch and the number of threads.

use std::sync::Arc;

use tgc_ir::DType;
use tgc_ir::kernel_program::{Contract, Operand};

use super::in_place::InPlace;
use super::staging::Image;
use super::{Bound, Launch, integer};
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, Worker, share};
use crate::cpu::index::bind as bind_dim;
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::buffer::Buffer;
use crate::cpu::kernels::gemm::{self, BLOCK_ROWS, Block, Lhs, PanelShape, Rows, TILE_FLOATS};
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Tile};

/// Elements per tile while an operand is evaluated.
const EVAL: usize = 2048;

/// A contraction whose operands have been bound.
#[derive(Debug)]
pub(super) struct BoundContract {
    batch: Vec<i64>,
    m: usize,
    shape: PanelShape,
    lhs: Left,
    rhs: Right,
    epilogue: Program,
}

/// Rows of the left operand.
#[derive(Debug)]
pub(super) enum Left {
    /// Where they are.
    Direct(InPlace),
    /// Evaluated into row-major memory first.
    Evaluated(Program),
    /// Windows of images, `group` channels per batch point.
    Windows { image: Box<Image>, group: usize },
}

/// Panels of the right operand.
#[derive(Debug)]
pub(super) enum Right {
    /// Packed when bound; one or one per batch.
    Constant { panels: Arc<Buffer>, per_batch: bool },
    /// Packed per run.
    Packed(Program),
}

pub(super) fn bind(cx: &Binder<'_>, a: &Contract) -> Result<Bound, CpuError> {
    let (batch, m, n, k) =
        (cx.extents(&a.batch)?, cx.extents(&a.m)?, cx.extents(&a.n)?, cx.extents(&a.k)?);
    if a.acc != DType::F32 {
        return Ok(Box::new(integer::bind(cx, a, [batch, m, n, k])?));
    }
    let shape = PanelShape::new(cx.isa, count(&k), count(&n));
    let rhs = Right::bind(cx, &a.rhs, shape, &batch, [&k, &n])?;
    let lhs = match InPlace::of(cx, &a.lhs, &batch, &m, &k)? {
        Some(matrix) => Left::Direct(matrix),
        None => Left::Evaluated(cx.operand(&a.lhs, [&batch, &m, &k], 0)?),
    };
    let epilogue = cx.epilogue(&a.epilogue, [&batch, &m, &n], 1, false)?;
    Ok(Box::new(BoundContract::new(batch, count(&m), shape, lhs, rhs, epilogue)))
}

impl Right {
    /// Panels of an operand over batch, k and n.
    pub(super) fn bind(
        cx: &Binder<'_>,
        operand: &Operand,
        shape: PanelShape,
        batch: &[i64],
        [k, n]: [&[i64]; 2],
    ) -> Result<Self, CpuError> {
        let program = cx.operand(operand, [batch, k, n], 0)?;
        if !cx.is_constant(operand) {
            return Ok(Right::Packed(program));
        }
        let batches = count(batch);
        let per_batch = batches > 1 && varies_with(cx, operand, batch.len())?;
        let copies = if per_batch { batches } else { batches.min(1) };
        let key = [shape.k as i64, shape.n as i64, copies as i64];
        let panels = cx.packed(operand, &key, || pack_constant(cx, &program, shape, batch, copies));
        Ok(Right::Constant { panels, per_batch })
    }
}

/// True when a body mentions one of the first `axes` axes.
fn varies_with(cx: &Binder<'_>, operand: &Operand, axes: usize) -> Result<bool, CpuError> {
    let used = operand.body.dims().any(|dim| {
        bind_dim(dim, cx.symbols)
            .symbols()
            .iter()
            .any(|s| tgc_ir::kernel_program::as_axis(s).is_some_and(|a| a < axes))
    });
    Ok(used)
}

fn pack_constant(
    cx: &Binder<'_>,
    program: &Program,
    shape: PanelShape,
    batch: &[i64],
    batches: usize,
) -> Buffer {
    let mut panels = Buffer::floats(shape.floats() * batches);
    let regions = cx.constant_regions();
    let mut worker = Worker::fresh();
    for b in 0..batches {
        let fixed = coordinates(b, batch);
        for p in 0..shape.panels() {
            let start = b * shape.floats() + shape.start(p);
            let ld = shape.vectors(p) * shape.lanes;
            let out = &mut panels.as_f32_mut()[start..start + shape.k * ld];
            pack_panel(cx.isa, &mut worker, program, &regions, &fixed, shape, p, out);
        }
    }
    panels
}

/// Evaluates columns of panel `p` over all k into `out`, `[k][width of the panel]`.
#[allow(clippy::too_many_arguments, reason = "one packing step")]
pub(super) fn pack_panel(
    isa: Isa,
    worker: &mut Worker,
    program: &Program,
    regions: &[Region],
    fixed: &[i64],
    shape: PanelShape,
    p: usize,
    out: &mut [f32],
) {
    let ld = shape.vectors(p) * shape.lanes;
    let col = p * shape.width();
    let width = ld.min(shape.n - col);
    program.shape(&mut worker.scratch, EVAL);
    let step = EVAL / width;
    let mut row = 0;
    while row < shape.k {
        let rows = step.min(shape.k - row);
        program.run(isa, &mut worker.scratch, regions, &Tile { fixed, row, rows, col, width });
        let values = worker.scratch.slots.slice::<f32>(program.results[0].0, rows * width);
        let to = &mut out[row * ld..(row + rows) * ld];
        if width == ld {
            to.copy_from_slice(values);
        } else {
            for (to, from) in to.chunks_exact_mut(ld).zip(values.chunks_exact(width)) {
                to[..width].copy_from_slice(from);
                to[width..].fill(0.0);
            }
        }
        row += rows;
    }
}

/// Evaluates rows `rows` of a `[rows, k]` operand into row-major `out`, which starts at row `rows.start`.
pub(super) fn eval_rows(
    isa: Isa,
    worker: &mut Worker,
    program: &Program,
    regions: &[Region],
    fixed: &[i64],
    rows: std::ops::Range<usize>,
    k: usize,
    out: &mut [f32],
) {
    program.shape(&mut worker.scratch, EVAL);
    let width = k.min(EVAL);
    let step = if width == k { (EVAL / width.max(1)).max(1) } else { 1 };
    let first = rows.start;
    let mut row = rows.start;
    while row < rows.end {
        let count = step.min(rows.end - row);
        let mut col = 0;
        while col < k {
            let width = width.min(k - col);
            program.run(
                isa,
                &mut worker.scratch,
                regions,
                &Tile { fixed, row, rows: count, col, width },
            );
            let values = worker.scratch.slots.slice::<f32>(program.results[0].0, count * width);
            let at = (row - first) * k + col;
            out[at..at + count * width].copy_from_slice(values);
            col += width;
        }
        row += count;
    }
}

/// Coordinates of point `i` of a space.
pub(super) fn coordinates(mut i: usize, extents: &[i64]) -> Vec<i64> {
    let mut out = vec![0; extents.len()];
    for (c, &e) in out.iter_mut().zip(extents).rev() {
        let e = e.max(1) as usize;
        *c = (i % e) as i64;
        i /= e;
    }
    out
}

/// Makes a block of accumulators the first slot, without its padding columns, and runs the epilogue on it.
#[allow(clippy::too_many_arguments, reason = "one epilogue call")]
pub(super) fn finish_block(
    isa: Isa,
    scratch: &mut crate::cpu::tile::Scratch,
    epilogue: &Program,
    regions: &[Region],
    fixed: &[i64],
    block: &Block<'_>,
    row: usize,
) {
    if block.cols == block.ld {
        // SAFETY: the tile holds the block's rows of whole vectors, and nobody writes it while the program runs.
        unsafe { scratch.slots.stand_for(0, block.tile.as_ptr().cast()) };
    } else {
        let slot = scratch.slots.slice::<f32>(0, block.rows * block.cols);
        for (to, from) in slot.chunks_exact_mut(block.cols).zip(block.tile.chunks_exact(block.ld)) {
            to.copy_from_slice(&from[..block.cols]);
        }
    }
    let tile = Tile { fixed, row, rows: block.rows, col: block.col, width: block.cols };
    epilogue.run(isa, scratch, regions, &tile);
}

impl Launch for BoundContract {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let (m, shape) = (self.m, self.shape);
        let batches = count(&self.batch);
        if m == 0 || shape.n == 0 || batches == 0 {
            return;
        }
        let left_floats = match &self.lhs {
            Left::Direct(_) => 0,
            Left::Evaluated(_) => batches * m * shape.k,
            Left::Windows { image, .. } => image.floats(),
        };
        let right_floats =
            if matches!(self.rhs, Right::Packed(_)) { batches * shape.floats() } else { 0 };
        if left_floats + right_floats == 0 {
            self.multiply(exec, regions, [Region::empty(); 2]);
            return;
        }
        let (_hold, shared) = exec.shared([left_floats, right_floats]);
        self.prepare(exec, regions, shared);
        self.multiply(exec, regions, shared);
    }
}

impl BoundContract {
    /// `m` rows per batch point against panels of a shape.
    pub(super) fn new(
        batch: Vec<i64>,
        m: usize,
        shape: PanelShape,
        lhs: Left,
        rhs: Right,
        epilogue: Program,
    ) -> Self {
        Self { batch, m, shape, lhs, rhs, epilogue }
    }

    /// Evaluates and packs what is neither in place nor constant.
    fn prepare(&self, exec: Exec<'_>, regions: &[Region], shared: [Region; 2]) {
        let batches = count(&self.batch);
        if let Left::Windows { image, .. } = &self.lhs {
            image.prepare(exec, regions, shared[0]);
        }
        if let Left::Evaluated(program) = &self.lhs {
            let parts = if self.m * self.shape.k * batches < 32 << 10 {
                1
            } else {
                self.m.min(4 * exec.pool.threads())
            };
            exec.split(batches * parts, (batches * self.m * self.shape.k) as u64, &|piece, w| {
                let (b, rows) = (piece / parts, share(self.m, parts, piece % parts));
                let at = (b * self.m + rows.start) * self.shape.k;
                // SAFETY: pieces write disjoint rows of the shared buffer, which `shared` made large enough.
                let out = unsafe { shared[0].floats_mut(at, rows.len() * self.shape.k) };
                let fixed = coordinates(b, &self.batch);
                eval_rows(
                    exec.isa,
                    &mut exec.worker(w),
                    program,
                    regions,
                    &fixed,
                    rows,
                    self.shape.k,
                    out,
                );
            });
        }
        if let Right::Packed(program) = &self.rhs {
            let (shape, panels) = (self.shape, self.shape.panels());
            exec.split(batches * panels, (batches * shape.floats()) as u64, &|piece, w| {
                let (b, p) = (piece / panels, piece % panels);
                let ld = shape.vectors(p) * shape.lanes;
                // SAFETY: each piece is one panel of the shared buffer, which `shared` made large enough.
                let out = unsafe {
                    shared[1].floats_mut(b * shape.floats() + shape.start(p), shape.k * ld)
                };
                let fixed = coordinates(b, &self.batch);
                pack_panel(exec.isa, &mut exec.worker(w), program, regions, &fixed, shape, p, out);
            });
        }
    }

    fn multiply(&self, exec: Exec<'_>, regions: &[Region], shared: [Region; 2]) {
        let (m, shape) = (self.m, self.shape);
        let (batches, panels) = (count(&self.batch), shape.panels());
        let nanoseconds = (batches * m * shape.n) as u64 * (self.shape.k as u64 / 60 + 1);
        let (across, down) = self.grid(exec.pool.threads(), nanoseconds);
        exec.split(batches * across * down, nanoseconds, &|piece, w| {
            let (b, rest) = (piece / (across * down), piece % (across * down));
            let panels = share(panels, across, rest / down);
            let units = share(m.div_ceil(BLOCK_ROWS), down, rest % down);
            let rows = units.start * BLOCK_ROWS..(units.end * BLOCK_ROWS).min(m);
            self.part(exec, regions, shared, b, rows, panels, w);
        });
    }

    /// Pieces along the panels and along the rows.
    fn grid(&self, threads: usize, nanoseconds: u64) -> (usize, usize) {
        let batches = count(&self.batch);
        if threads == 1 || nanoseconds < 10_000 || batches >= 4 * threads {
            return (1, 1);
        }
        let wanted = (4 * threads).div_ceil(batches);
        let across = self.shape.panels().min(wanted);
        let down = wanted.div_ceil(across).min(self.m.div_ceil(BLOCK_ROWS));
        (across, down)
    }

    #[allow(clippy::too_many_arguments, reason = "one piece of the product")]
    fn part(
        &self,
        exec: Exec<'_>,
        regions: &[Region],
        shared: [Region; 2],
        b: usize,
        rows: std::ops::Range<usize>,
        panels: std::ops::Range<usize>,
        w: usize,
    ) {
        let shape = self.shape;
        let coords = coordinates(b, &self.batch);
        let packed: &[f32] = match &self.rhs {
            Right::Constant { panels, per_batch } => {
                let b = if *per_batch { b } else { 0 };
                &panels.as_f32()[b * shape.floats()..(b + 1) * shape.floats()]
            }
            // SAFETY: `prepare` has written the panels and nobody writes them again before the next run.
            Right::Packed(_) => unsafe { shared[1].floats(b * shape.floats(), shape.floats()) },
        };
        let k = shape.k;
        let lhs = match &self.lhs {
            Left::Direct(matrix) => {
                // Without k nothing is read, and the matrix may be empty.
                let base = if k > 0 { matrix.start(regions, b) } else { std::ptr::null() };
                Lhs { base, rows: matrix.rows.view(), run: k }
            }
            Left::Evaluated(_) => {
                let base = shared[0].float_at(b * self.m * k);
                Lhs { base, rows: Rows::Strided(k), run: k }
            }
            Left::Windows { image, group } => Lhs {
                base: image.base(regions, shared[0]).wrapping_add(b * group),
                rows: Rows::Windows(image.taps()),
                run: image.run,
            },
        };
        let worker = &mut *exec.worker(w);
        self.epilogue.shape(&mut worker.scratch, TILE_FLOATS);
        let (scratch, tile) = (&mut worker.scratch, worker.tile.as_f32_mut());
        let mut sink = |block: Block<'_>| {
            let row = block.row;
            finish_block(exec.isa, scratch, &self.epilogue, regions, &coords, &block, row);
        };
        // SAFETY: the left operand's elements are inside its region (checked against its last element;
        // offsets are non-negative by `InPlace::of`), and no kernel writes an operand of its own product.
        unsafe { gemm::contract(exec.isa, &lhs, rows, shape, packed, panels, tile, &mut sink) };
    }
}
