//! `attend`: scores, softmax and weighted sum in one kernel, a block of query rows at a time.
//!
//! A block keeps its rows of scores over all its keys, so that score and probability bodies are evaluated exactly;
//! keys are packed once per batch point, values are read in place where they lie contiguous. With a causal fact,
//! keys that no row of the block can see are not computed. A row's bits depend on its own keys alone.

use tgc_ir::DType;
use tgc_ir::kernel_program::{Attend, InstKind, Operand};
use tgc_ir::scalar::ScalarOp;

use super::contract::{coordinates, eval_rows};
use super::in_place::{InPlace, RowStarts};
use super::{Launch, attend_plain};
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, Worker, share};
use crate::cpu::kernels::gemm::{Lhs, PanelShape, Rows};
use crate::cpu::kernels::product::{self, Rhs};
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::softmax;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

/// Query rows of a block.
const BLOCK: usize = 24;
/// Floats of scores that a block may hold: half a second-level cache.
const SCORES: usize = 128 << 10;
/// Elements of a tile of scores.
const TILE: usize = 2048;

#[derive(Debug)]
pub(super) struct BoundAttend {
    batch: Vec<i64>,
    m: usize,
    n: usize,
    e: usize,
    keys: PanelShape,
    q: Matrix,
    k: Matrix,
    v: Matrix,
    score: Score,
    prob: Option<Program>,
    causal: Option<i64>,
    epilogue: Program,
    plain: Option<attend_plain::Plain>,
}

/// A row-major matrix per batch point.
#[derive(Debug)]
enum Matrix {
    /// In place, rows contiguous.
    Direct(InPlace),
    /// Evaluated into memory of the worker.
    Evaluated(Program),
}

/// What happens to raw scores.
#[derive(Debug)]
enum Score {
    /// Multiplied by a positive number.
    Scale(f32),
    /// Any body.
    Body(Program),
}

pub(super) fn bind(cx: &Binder<'_>, a: &Attend) -> Result<BoundAttend, CpuError> {
    let batch = cx.extents(&a.batch)?;
    let (m, n) = (cx.extents(&a.m)?, cx.extents(&a.n)?);
    let (d, e) = (cx.extents(&a.d)?, cx.extents(&a.e)?);
    let lanes = cx.isa.lanes();
    let plain = if a.acc == DType::F32 { None } else { Some(attend_plain::bind(cx, a)?) };
    let f32_only = plain.is_none();
    let matrix = |o: &Operand, rows: &[i64], cols: &[i64], multiple: usize| match f32_only {
        true => matrix(cx, o, &batch, rows, cols, multiple),
        false => Ok(Matrix::Evaluated(cx.operand(o, [&batch, rows, cols], 0)?)),
    };
    let scores = [&batch[..], &m, &n];
    let score = match scale_only(&a.score) {
        Some(scale) => Score::Scale(scale),
        None => Score::Body(cx.operand(&a.score, scores, 1)?),
    };
    let identity = matches!(a.prob.body.insts[a.prob.value as usize].kind, InstKind::Slot(0));
    let prob = if identity { None } else { Some(cx.operand(&a.prob, scores, 1)?) };
    let causal = a.causal.as_ref().map(|c| cx.number(c)).transpose()?;
    Ok(BoundAttend {
        q: matrix(&a.q, &m, &d, 1)?,
        k: matrix(&a.k, &n, &d, 1)?,
        v: matrix(&a.v, &n, &e, lanes)?,
        m: count(&m),
        n: count(&n),
        e: count(&e),
        keys: PanelShape::new(cx.isa, count(&d), count(&n)),
        score,
        prob,
        causal: causal.filter(|_| a.m.len() == 1 && a.n.len() == 1),
        epilogue: cx.epilogue(&a.epilogue, [&batch, &m, &e], 1, false)?,
        batch,
        plain,
    })
}

/// The positive constant that a score body multiplies by; one for the identity.
fn scale_only(score: &Operand) -> Option<f32> {
    let insts = &score.body.insts;
    match &insts[score.value as usize].kind {
        InstKind::Slot(0) => Some(1.0),
        InstKind::Scalar(ScalarOp::Mul, args) => {
            let (a, b) = (&insts[args[0] as usize].kind, &insts[args[1] as usize].kind);
            match (a, b) {
                (InstKind::Slot(0), InstKind::Const(c))
                | (InstKind::Const(c), InstKind::Slot(0)) => {
                    Some(c.as_f64() as f32).filter(|c| *c > 0.0 && c.is_finite())
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn matrix(
    cx: &Binder<'_>,
    operand: &Operand,
    batch: &[i64],
    rows: &[i64],
    cols: &[i64],
    multiple: usize,
) -> Result<Matrix, CpuError> {
    if let Some(matrix) = InPlace::of(cx, operand, batch, rows, cols)?
        && count(cols).is_multiple_of(multiple)
    {
        // Values are read as rows of one stride; queries and keys through any row starts.
        if multiple == 1 || matches!(matrix.rows, RowStarts::Strided(_)) {
            return Ok(Matrix::Direct(matrix));
        }
    }
    Ok(Matrix::Evaluated(cx.operand(operand, [batch, rows, cols], 0)?))
}

/// A matrix at one batch point.
#[derive(Clone, Copy)]
struct View<'a> {
    base: *const f32,
    rows: Rows<'a>,
}

impl Launch for BoundAttend {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let batches = count(&self.batch);
        if batches * self.m * self.e == 0 {
            return;
        }
        if let Some(plain) = &self.plain {
            return plain.run(exec, regions);
        }
        let d = self.keys.k;
        let nanoseconds = (batches * self.m * self.n) as u64 * ((d + self.e) as u64 / 60 + 1);
        let blocks = self.m.div_ceil(BLOCK);
        let wanted = if nanoseconds < 10_000 { 1 } else { 2 * exec.pool.threads() };
        let parts = if batches >= wanted { 1 } else { wanted.div_ceil(batches).min(blocks) };
        exec.split(batches * parts, nanoseconds, &|piece, w| {
            let worker = &mut *exec.worker(w);
            let units = share(blocks, parts, piece % parts);
            let rows = units.start * BLOCK..(units.end * BLOCK).min(self.m);
            self.part(exec, worker, regions, piece / parts, rows);
        });
    }
}

impl BoundAttend {
    fn part(
        &self,
        exec: Exec<'_>,
        worker: &mut Worker,
        regions: &[Region],
        b: usize,
        rows: std::ops::Range<usize>,
    ) {
        let fixed = coordinates(b, &self.batch);
        let (d, lanes) = (self.keys.k, self.keys.lanes);
        let wide = self.e.next_multiple_of(lanes);
        let ld = self.n.next_multiple_of(lanes) + lanes;
        let block = (SCORES / ld).clamp(1, BLOCK);
        // pack: keys | scores | sums; side: evaluated q, k and v.
        let sizes = [self.keys.floats(), block * ld, BLOCK * wide];
        let mut pack =
            std::mem::replace(&mut worker.pack, crate::cpu::kernels::buffer::Buffer::zeroed(0));
        pack.reserve(sizes.iter().sum::<usize>() * 4);
        let (keys, rest) = pack.as_f32_mut().split_at_mut(sizes[0]);
        let (scores, rest) = rest.split_at_mut(sizes[1]);
        let sums = &mut rest[..sizes[2]];
        let mut side =
            std::mem::replace(&mut worker.side, crate::cpu::kernels::buffer::Buffer::zeroed(0));
        side.reserve((BLOCK * d + self.n * d.max(wide) + self.n * wide) * 4);
        let (q_memory, rest) = side.as_f32_mut().split_at_mut(BLOCK * d);
        let (k_memory, v_memory) = rest.split_at_mut(self.n * d.max(wide));

        let k = self.view(exec, worker, regions, &self.k, b, &fixed, 0..self.n, d, d, k_memory);
        for p in 0..self.keys.panels() {
            // SAFETY: key rows are inside their region or the evaluated memory.
            unsafe {
                product::pack_rows_as_columns(
                    exec.isa,
                    k.base,
                    k.rows,
                    self.keys,
                    p,
                    &mut keys[self.keys.start(p)..],
                )
            };
        }
        let v =
            self.view(exec, worker, regions, &self.v, b, &fixed, 0..self.n, self.e, wide, v_memory);
        let mut row = rows.start;
        while row < rows.end {
            let count = block.min(rows.end - row);
            let q = self.view(
                exec,
                worker,
                regions,
                &self.q,
                b,
                &fixed,
                row..row + count,
                d,
                d,
                q_memory,
            );
            let first = if matches!(self.q, Matrix::Direct(_)) { row } else { 0 };
            let q = Lhs { base: q.base, rows: q.rows, run: d };
            let seen = self.seen(row, count);
            let panels = 0..seen.div_ceil(self.keys.width().max(1)).min(self.keys.panels());
            // SAFETY: query rows are readable, panels are packed, scores hold `count` rows of `ld` floats.
            unsafe {
                let rhs = Rhs::Panels(self.keys);
                product::product(
                    exec.isa,
                    &q,
                    first,
                    count,
                    keys.as_ptr(),
                    rhs,
                    panels,
                    scores.as_mut_ptr(),
                    ld,
                );
            }
            let inverse = self.probabilities(
                exec,
                &mut worker.scratch,
                regions,
                &fixed,
                row,
                count,
                seen,
                scores,
                ld,
            );
            self.weigh(exec, scores, ld, count, seen, v, sums, wide);
            self.finish(
                exec,
                &mut worker.scratch,
                regions,
                &fixed,
                row,
                &inverse[..count],
                sums,
                wide,
            );
            row += count;
        }
        worker.pack = pack;
        worker.side = side;
    }

    /// Keys that some row of the block may see.
    fn seen(&self, row: usize, rows: usize) -> usize {
        match self.causal {
            // A row that sees no key at all needs every score, whatever the mask made of them.
            Some(offset) if row as i64 + offset >= 0 => {
                ((row + rows) as i64 + offset).clamp(0, self.n as i64) as usize
            }
            _ => self.n,
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one operand at one batch point")]
    fn view<'a>(
        &'a self,
        exec: Exec<'_>,
        worker: &mut Worker,
        regions: &[Region],
        matrix: &'a Matrix,
        b: usize,
        fixed: &[i64],
        rows: std::ops::Range<usize>,
        width: usize,
        ld: usize,
        memory: &mut [f32],
    ) -> View<'a> {
        match matrix {
            Matrix::Direct(matrix) => {
                let empty = rows.is_empty() || width == 0;
                let base = if empty { std::ptr::null() } else { matrix.start(regions, b) };
                View { base, rows: matrix.rows.view() }
            }
            Matrix::Evaluated(program) => {
                let count = rows.len();
                eval_rows(
                    exec.isa,
                    worker,
                    program,
                    regions,
                    fixed,
                    rows,
                    width,
                    &mut memory[..count * width],
                );
                if ld != width {
                    spread_rows(memory, count, width, ld);
                }
                View { base: memory.as_ptr(), rows: Rows::Strided(ld) }
            }
        }
    }

    /// Scores to weights; the factor that each row of the sums still needs.
    #[allow(clippy::too_many_arguments, reason = "one block of scores")]
    fn probabilities(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        regions: &[Region],
        fixed: &[i64],
        row: usize,
        rows: usize,
        seen: usize,
        scores: &mut [f32],
        ld: usize,
    ) -> [f32; BLOCK] {
        let scale = match &self.score {
            Score::Scale(scale) => *scale,
            Score::Body(program) => {
                through(exec, scratch, program, regions, fixed, row, rows, seen, scores, ld);
                1.0
            }
        };
        let mut inverse = [1.0; BLOCK];
        // A sum over no key is zero.
        if seen == 0 {
            return inverse;
        }
        for (r, inverse) in inverse.iter_mut().enumerate().take(rows) {
            let row = &mut scores[r * ld..r * ld + seen];
            *inverse = 1.0 / softmax::exponentials(exec.isa, row, scale);
        }
        if let Some(program) = &self.prob {
            for (r, inverse) in inverse.iter_mut().enumerate().take(rows) {
                softmax::scale(exec.isa, &mut scores[r * ld..r * ld + seen], *inverse);
                *inverse = 1.0;
            }
            through(exec, scratch, program, regions, fixed, row, rows, seen, scores, ld);
        }
        inverse
    }

    #[allow(clippy::too_many_arguments, reason = "one block of weights")]
    fn weigh(
        &self,
        exec: Exec<'_>,
        scores: &[f32],
        ld: usize,
        rows: usize,
        seen: usize,
        v: View<'_>,
        sums: &mut [f32],
        wide: usize,
    ) {
        let Rows::Strided(ldv) = v.rows else {
            unreachable!("values are bound as rows of one stride")
        };
        let lhs = Lhs { base: scores.as_ptr(), rows: Rows::Strided(ld), run: seen };
        let rhs = Rhs::Rows { n: wide, ld: ldv };
        let panels = 0..product::row_panels(exec.isa, wide);
        // SAFETY: weights hold `rows` rows of `seen` floats, values as many rows of `wide` floats, sums `rows` of
        // `wide`.
        unsafe {
            product::product(exec.isa, &lhs, 0, rows, v.base, rhs, panels, sums.as_mut_ptr(), wide)
        };
    }

    #[allow(clippy::too_many_arguments, reason = "one block of sums")]
    fn finish(
        &self,
        exec: Exec<'_>,
        scratch: &mut Scratch,
        regions: &[Region],
        fixed: &[i64],
        row: usize,
        inverse: &[f32],
        sums: &mut [f32],
        wide: usize,
    ) {
        let step = (TILE / self.e).max(1);
        self.epilogue.shape(scratch, TILE.max(self.e));
        let mut done = 0;
        while done < inverse.len() {
            let rows = step.min(inverse.len() - done);
            let slot = scratch.slots.slice::<f32>(0, rows * self.e);
            for r in 0..rows {
                let from = &sums[(done + r) * wide..(done + r) * wide + self.e];
                let by = inverse[done + r];
                slot[r * self.e..(r + 1) * self.e]
                    .iter_mut()
                    .zip(from)
                    .for_each(|(s, x)| *s = x * by);
            }
            let tile = Tile { fixed, row: row + done, rows, col: 0, width: self.e };
            self.epilogue.run(exec.isa, scratch, regions, &tile);
            done += rows;
        }
    }
}

/// Moves rows of `width` floats apart to `ld`, from the last to the first, and clears what is between.
fn spread_rows(memory: &mut [f32], rows: usize, width: usize, ld: usize) {
    for r in (0..rows).rev() {
        memory.copy_within(r * width..(r + 1) * width, r * ld);
        memory[r * ld + width..(r + 1) * ld].fill(0.0);
    }
}

/// Runs a body over a block of scores in place.
#[allow(clippy::too_many_arguments, reason = "one block of scores")]
fn through(
    exec: Exec<'_>,
    scratch: &mut Scratch,
    program: &Program,
    regions: &[Region],
    fixed: &[i64],
    row: usize,
    rows: usize,
    seen: usize,
    scores: &mut [f32],
    ld: usize,
) {
    if seen == 0 {
        return;
    }
    program.shape(scratch, TILE);
    let width = seen.min(TILE);
    let step = TILE / width;
    let mut r = 0;
    while r < rows {
        let count = step.min(rows - r);
        let mut col = 0;
        while col < seen {
            let width = width.min(seen - col);
            let slot = scratch.slots.slice::<f32>(0, count * width);
            for (i, to) in slot.chunks_exact_mut(width).enumerate() {
                to.copy_from_slice(&scores[(r + i) * ld + col..(r + i) * ld + col + width]);
            }
            let tile = Tile { fixed, row: row + r, rows: count, col, width };
            program.run(exec.isa, scratch, regions, &tile);
            let slot = scratch.slots.slice::<f32>(program.results[0].0, count * width);
            for (i, from) in slot.chunks_exact(width).enumerate() {
                scores[(r + i) * ld + col..(r + i) * ld + col + width].copy_from_slice(from);
            }
            col += width;
        }
        r += count;
    }
}
