//! `attend` in double precision: one query row at a time, plain loops.

use tgc_ir::DType;
use tgc_ir::kernel_program::Attend;

use super::contract::coordinates;
use super::integer::evaluate;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE, share};
use crate::cpu::kernels::region::Region;
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

#[derive(Debug)]
pub(super) struct Plain {
    batch: Vec<i64>,
    m: usize,
    n: usize,
    d: usize,
    e: usize,
    q: Program,
    k: Program,
    v: Program,
    score: Program,
    prob: Program,
    epilogue: Program,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Attend) -> Result<Plain, CpuError> {
    if a.acc != DType::F64 {
        return Err(cx.malformed("attention keeps its statistics in f32 or f64"));
    }
    let batch = cx.extents(&a.batch)?;
    let (m, n) = (cx.extents(&a.m)?, cx.extents(&a.n)?);
    let (d, e) = (cx.extents(&a.d)?, cx.extents(&a.e)?);
    Ok(Plain {
        q: cx.operand(&a.q, [&batch, &m, &d], 0)?,
        k: cx.operand(&a.k, [&batch, &n, &d], 0)?,
        v: cx.operand(&a.v, [&batch, &n, &e], 0)?,
        score: cx.operand(&a.score, [&batch, &m, &n], 1)?,
        prob: cx.operand(&a.prob, [&batch, &m, &n], 1)?,
        epilogue: cx.epilogue(&a.epilogue, [&batch, &m, &e], 1, false)?,
        m: count(&m),
        n: count(&n),
        d: count(&d),
        e: count(&e),
        batch,
    })
}

impl Plain {
    pub(super) fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        let batches = count(&self.batch);
        let pieces = batches.min(4 * exec.pool.threads());
        exec.split(pieces, u64::MAX, &|piece, w| {
            let scratch = &mut exec.worker(w).scratch;
            for b in share(batches, pieces, piece) {
                self.point(exec, scratch, regions, &coordinates(b, &self.batch));
            }
        });
    }

    fn point(&self, exec: Exec<'_>, scratch: &mut Scratch, regions: &[Region], fixed: &[i64]) {
        let k = evaluate::<f64>(exec, scratch, &self.k, regions, fixed, [self.n, self.d], [0, 0]);
        let v = evaluate::<f64>(exec, scratch, &self.v, regions, fixed, [self.n, self.e], [0, 0]);
        for row in 0..self.m {
            let q = evaluate::<f64>(exec, scratch, &self.q, regions, fixed, [1, self.d], [row, 0]);
            let mut s: Vec<f64> = (0..self.n)
                .map(|n| q.iter().zip(&k[n * self.d..]).map(|(q, k)| q * k).sum())
                .collect();
            through(exec, scratch, &self.score, regions, fixed, row, &mut s);
            let max = s
                .iter()
                .copied()
                .fold(f64::NEG_INFINITY, |a, b| if a.is_nan() || a > b { a } else { b });
            s.iter_mut().for_each(|x| *x = (*x - max).exp());
            let total: f64 = s.iter().sum();
            s.iter_mut().for_each(|x| *x /= total);
            through(exec, scratch, &self.prob, regions, fixed, row, &mut s);
            let mut out = vec![0.0; self.e];
            for (p, v) in s.iter().zip(v.chunks_exact(self.e)) {
                out.iter_mut().zip(v).for_each(|(o, v)| *o += p * v);
            }
            self.epilogue.shape(scratch, TILE);
            for (i, part) in out.chunks(TILE).enumerate() {
                scratch.slots.slice::<f64>(0, part.len()).copy_from_slice(part);
                let tile = Tile { fixed, row, rows: 1, col: i * TILE, width: part.len() };
                self.epilogue.run(exec.isa, scratch, regions, &tile);
            }
        }
    }
}

fn through(
    exec: Exec<'_>,
    scratch: &mut Scratch,
    program: &Program,
    regions: &[Region],
    fixed: &[i64],
    row: usize,
    values: &mut [f64],
) {
    program.shape(scratch, TILE);
    for (i, part) in values.chunks_mut(TILE).enumerate() {
        scratch.slots.slice::<f64>(0, part.len()).copy_from_slice(part);
        let tile = Tile { fixed, row, rows: 1, col: i * TILE, width: part.len() };
        program.run(exec.isa, scratch, regions, &tile);
        part.copy_from_slice(scratch.slots.slice::<f64>(program.results[0].0, part.len()));
    }
}
