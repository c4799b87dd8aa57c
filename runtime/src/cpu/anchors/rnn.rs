//! `rnn`: RNN, LSTM and GRU of one direction, one step after the other.
//!
//! The recurrent product of a step is a contraction of the state with packed panels; gates are evaluated through
//! the activation bodies. Double precision takes plain products.

use std::sync::Arc;

use tgc_ir::DType;
use tgc_ir::kernel_program::{Cell, Epilogue, Operand, Rnn};

use super::Launch;
use super::integer::evaluate;
use crate::cpu::error::CpuError;
use crate::cpu::exec::{Exec, TILE};
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::buffer::Buffer;
use crate::cpu::kernels::gemm::{Lhs, PanelShape, Rows};
use crate::cpu::kernels::product::{self, Rhs};
use crate::cpu::kernels::region::Region;
use crate::cpu::kernels::slots::{Element, Kind};
use crate::cpu::program::{Binder, count};
use crate::cpu::tile::{Program, Scratch, Tile};

#[derive(Debug)]
pub(super) struct BoundRnn {
    cell: Cell,
    reverse: bool,
    time: usize,
    batch: usize,
    hidden: usize,
    double: bool,
    x: Program,
    r: Program,
    /// Recurrent panels, when they are weights.
    panels: Option<Arc<Buffer>>,
    r_bias: Option<Program>,
    h0: Program,
    c0: Option<Program>,
    peephole: Option<Program>,
    lengths: Option<Program>,
    activations: Vec<Program>,
    input_forget: bool,
    clip: Option<f64>,
    y: Option<Program>,
    h: Option<Program>,
    c: Option<Program>,
}

pub(super) fn bind(cx: &Binder<'_>, a: &Rnn) -> Result<BoundRnn, CpuError> {
    let (time, batch, hidden) =
        (cx.number(&a.time)?.max(0), cx.number(&a.batch)?.max(0), cx.number(&a.hidden)?.max(0));
    let wanted = match a.cell {
        Cell::Plain => 1,
        Cell::Lstm => 3,
        Cell::Gru { .. } => 2,
    };
    if a.activations.len() < wanted || (a.cell == Cell::Lstm && a.c0.is_none()) {
        return Err(cx.malformed("the cell lacks activations or a state"));
    }
    if !matches!(a.acc, DType::F32 | DType::F64) {
        return Err(cx.malformed("states are f32 or f64"));
    }
    let gates = [a.cell.gates() * hidden];
    let (b, h) = ([batch], [hidden]);
    let optional = |o: &Option<Operand>, rows: &[i64], cols: &[i64]| {
        o.as_ref().map(|o| cx.operand(o, [&[], rows, cols], 0)).transpose()
    };
    let out = |e: &Option<Epilogue>, fixed: &[i64]| {
        e.as_ref().map(|e| cx.epilogue(e, [fixed, &b, &h], 1, false)).transpose()
    };
    let r = cx.operand(&a.r, [&[], &gates, &h], 0)?;
    let double = a.acc == DType::F64;
    let mut bound = BoundRnn {
        cell: a.cell,
        reverse: a.reverse,
        time: time as usize,
        batch: batch as usize,
        hidden: hidden as usize,
        double,
        x: cx.operand(&a.x, [&[time], &b, &gates], 0)?,
        r,
        panels: None,
        r_bias: optional(&a.r_bias, &[], &h)?,
        h0: cx.operand(&a.h0, [&[], &b, &h], 0)?,
        c0: optional(&a.c0, &b, &h)?,
        peephole: optional(&a.peephole, &[], &[3 * hidden])?,
        lengths: optional(&a.lengths, &[], &b)?,
        activations: a
            .activations
            .iter()
            .map(|o| cx.operand(o, [&[], &[], &[]], 1))
            .collect::<Result<_, _>>()?,
        input_forget: a.input_forget,
        clip: a.clip.map(tgc_ir::kernel_program::ScalarConst::as_f64),
        y: out(&a.y, &[time])?,
        h: out(&a.h, &[])?,
        c: out(&a.c, &[])?,
    };
    if !double && cx.is_constant(&a.r) && count(&gates) * count(&h) > 0 {
        let memory = crate::cpu::exec::Memory::new(1);
        let pool = crate::cpu::kernels::pool::Pool::new(1)?;
        let exec = Exec { isa: cx.isa, pool: &pool, memory: &memory };
        let key = [gates[0], hidden];
        let panels = cx.packed(&a.r, &key, || bound.pack(exec, &cx.constant_regions()));
        bound.panels = Some(panels);
    }
    Ok(bound)
}

/// A type of state.
trait Real:
    Element
    + PartialOrd
    + std::ops::Add<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Sub<Output = Self>
{
    const ONE: Self;
    fn of(x: f64) -> Self;
    /// `out[b] += state[b] . weights[n]` for gate columns `columns`.
    fn recur(
        isa: Isa,
        rnn: &BoundRnn,
        weights: &Weights<Self>,
        state: &[Self],
        columns: std::ops::Range<usize>,
        out: &mut [Self],
    );
}

/// Recurrent weights: rows per gate column, or packed.
struct Weights<'a, T> {
    rows: Vec<T>,
    panels: Option<&'a [f32]>,
}

impl Real for f64 {
    const ONE: Self = 1.0;
    fn of(x: f64) -> Self {
        x
    }
    fn recur(
        _: Isa,
        rnn: &BoundRnn,
        weights: &Weights<Self>,
        state: &[Self],
        columns: std::ops::Range<usize>,
        out: &mut [Self],
    ) {
        let (h, width) = (rnn.hidden, rnn.width());
        for (b, state) in state.chunks_exact(h).enumerate() {
            for n in columns.clone() {
                let row = &weights.rows[n * h..(n + 1) * h];
                out[b * width + n] += state.iter().zip(row).map(|(s, w)| s * w).sum::<f64>();
            }
        }
    }
}

impl Real for f32 {
    const ONE: Self = 1.0;
    fn of(x: f64) -> Self {
        x as f32
    }
    fn recur(
        isa: Isa,
        rnn: &BoundRnn,
        weights: &Weights<Self>,
        state: &[Self],
        columns: std::ops::Range<usize>,
        out: &mut [Self],
    ) {
        let shape = rnn.shape(isa);
        let panels = weights.panels.unwrap_or(&weights.rows);
        let wide = shape.n.next_multiple_of(shape.lanes);
        let mut sums = vec![0.0f32; rnn.batch * wide];
        let lhs = Lhs { base: state.as_ptr(), rows: Rows::Strided(rnn.hidden), run: rnn.hidden };
        let from = columns.start / shape.width();
        let to = columns.end.div_ceil(shape.width());
        // SAFETY: the state has a row per sequence, panels are whole, sums have room for whole vectors.
        unsafe {
            let rhs = Rhs::Panels(shape);
            product::product(
                isa,
                &lhs,
                0,
                rnn.batch,
                panels.as_ptr(),
                rhs,
                from..to,
                sums.as_mut_ptr(),
                wide,
            );
        }
        let width = rnn.width();
        for b in 0..rnn.batch {
            let sums = &sums[b * wide + columns.start..b * wide + columns.end];
            out[b * width + columns.start..b * width + columns.end]
                .iter_mut()
                .zip(sums)
                .for_each(|(o, s)| *o += s);
        }
    }
}

impl Launch for BoundRnn {
    fn run(&self, exec: Exec<'_>, regions: &[Region]) {
        if self.batch * self.hidden == 0 {
            return;
        }
        if self.double {
            self.all::<f64>(exec, regions, None);
        } else if let Some(panels) = &self.panels {
            self.all::<f32>(exec, regions, Some(panels.as_f32()));
        } else {
            let packed = self.pack(exec, regions);
            self.all::<f32>(exec, regions, Some(packed.as_f32()));
        }
    }
}

/// The state and what a step needs.
struct State<T> {
    h: Vec<T>,
    c: Vec<T>,
    r_bias: Vec<T>,
    peephole: Vec<T>,
    lengths: Vec<i64>,
}

impl BoundRnn {
    /// Gate columns.
    fn width(&self) -> usize {
        self.cell.gates() as usize * self.hidden
    }

    fn shape(&self, isa: Isa) -> PanelShape {
        PanelShape::new(isa, self.hidden, self.width())
    }

    fn pack(&self, exec: Exec<'_>, regions: &[Region]) -> Buffer {
        let shape = self.shape(exec.isa);
        let scratch = &mut exec.worker(0).scratch;
        let rows = evaluate::<f32>(
            exec,
            scratch,
            &self.r,
            regions,
            &[],
            [self.width(), self.hidden],
            [0, 0],
        );
        let mut panels = Buffer::floats(shape.floats());
        for p in 0..shape.panels() {
            let out = &mut panels.as_f32_mut()[shape.start(p)..];
            // SAFETY: `rows` holds a row of `hidden` floats per gate column.
            unsafe {
                product::pack_rows_as_columns(
                    exec.isa,
                    rows.as_ptr(),
                    Rows::Strided(self.hidden),
                    shape,
                    p,
                    out,
                )
            };
        }
        panels
    }

    fn all<T: Real>(&self, exec: Exec<'_>, regions: &[Region], panels: Option<&[f32]>) {
        let scratch = &mut exec.worker(0).scratch;
        let (b, h, w) = (self.batch, self.hidden, self.width());
        let mut eval = |p: &Program, shape: [usize; 2]| {
            evaluate::<T>(exec, scratch, p, regions, &[], shape, [0, 0])
        };
        let rows = if panels.is_none() { eval(&self.r, [w, h]) } else { Vec::new() };
        let weights = Weights { rows, panels };
        let mut state = State {
            h: eval(&self.h0, [b, h]),
            c: self.c0.as_ref().map_or(Vec::new(), |p| eval(p, [b, h])),
            r_bias: self.r_bias.as_ref().map_or(vec![T::default(); h], |p| eval(p, [1, h])),
            peephole: self
                .peephole
                .as_ref()
                .map_or(vec![T::default(); 3 * h], |p| eval(p, [1, 3 * h])),
            lengths: Vec::new(),
        };
        if let Some(lengths) = &self.lengths {
            state.lengths = match lengths.results[0].1 {
                Kind::I64 => evaluate::<i64>(exec, scratch, lengths, regions, &[], [1, b], [0, 0]),
                _ => Vec::new(),
            };
        }
        for step in 0..self.time {
            let t = if self.reverse { self.time - 1 - step } else { step };
            let mut gates =
                evaluate::<T>(exec, scratch, &self.x, regions, &[t as i64], [b, w], [0, 0]);
            let mut next = self.step(exec.isa, scratch, &weights, &state, &mut gates);
            self.hold(t, &state, &mut next);
            if let Some(y) = &self.y {
                let mut shown = next.0.clone();
                self.blank(t, &state.lengths, &mut shown);
                emit(exec, scratch, regions, y, &[t as i64], &shown, [b, h]);
            }
            (state.h, state.c) = next;
        }
        if let Some(p) = &self.h {
            emit(exec, scratch, regions, p, &[], &state.h, [b, h]);
        }
        if let Some(p) = &self.c {
            emit(exec, scratch, regions, p, &[], &state.c, [b, h]);
        }
    }

    /// Sequences that have ended keep their state.
    fn hold<T: Real>(&self, t: usize, old: &State<T>, next: &mut (Vec<T>, Vec<T>)) {
        for (b, &length) in old.lengths.iter().enumerate() {
            if t as i64 >= length {
                let range = b * self.hidden..(b + 1) * self.hidden;
                next.0[range.clone()].copy_from_slice(&old.h[range.clone()]);
                if !old.c.is_empty() {
                    next.1[range.clone()].copy_from_slice(&old.c[range]);
                }
            }
        }
    }

    /// Sequences that have ended show zero.
    fn blank<T: Real>(&self, t: usize, lengths: &[i64], shown: &mut [T]) {
        for (b, &length) in lengths.iter().enumerate() {
            if t as i64 >= length {
                shown[b * self.hidden..(b + 1) * self.hidden].fill(T::default());
            }
        }
    }

    fn clip<T: Real>(&self, x: T) -> T {
        let Some(limit) = self.clip else { return x };
        let (low, high) = (T::of(-limit), T::of(limit));
        if x < low {
            low
        } else if x > high {
            high
        } else {
            x
        }
    }

    fn activate<T: Real>(&self, isa: Isa, scratch: &mut Scratch, which: usize, values: &mut [T]) {
        let program = &self.activations[which];
        program.shape(scratch, TILE);
        for part in values.chunks_mut(TILE) {
            scratch.slots.slice::<T>(0, part.len()).copy_from_slice(part);
            program.run(
                isa,
                scratch,
                &[],
                &Tile { fixed: &[], row: 0, rows: 1, col: 0, width: part.len() },
            );
            part.copy_from_slice(scratch.slots.slice::<T>(program.results[0].0, part.len()));
        }
    }

    /// Gate `g` of every sequence: `f(index in the state, pre-activation)`, clipped and activated.
    fn gate<T: Real>(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        gates: &[T],
        g: usize,
        act: usize,
        f: impl Fn(usize, T) -> T,
    ) -> Vec<T> {
        let (h, w) = (self.hidden, self.width());
        let mut out: Vec<T> = (0..self.batch * h)
            .map(|i| self.clip(f(i, gates[i / h * w + g * h + i % h])))
            .collect();
        self.activate(isa, scratch, act, &mut out);
        out
    }

    fn step<T: Real>(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        weights: &Weights<'_, T>,
        state: &State<T>,
        gates: &mut [T],
    ) -> (Vec<T>, Vec<T>) {
        match self.cell {
            Cell::Plain => {
                T::recur(isa, self, weights, &state.h, 0..self.width(), gates);
                (self.gate(isa, scratch, gates, 0, 0, |_, x| x), Vec::new())
            }
            Cell::Lstm => {
                T::recur(isa, self, weights, &state.h, 0..self.width(), gates);
                self.lstm(isa, scratch, state, gates)
            }
            Cell::Gru { linear_before_reset } => {
                (self.gru(isa, scratch, weights, state, gates, linear_before_reset), Vec::new())
            }
        }
    }

    fn lstm<T: Real>(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        state: &State<T>,
        gates: &[T],
    ) -> (Vec<T>, Vec<T>) {
        let h = self.hidden;
        let (c, p) = (&state.c, &state.peephole);
        let input = self.gate(isa, scratch, gates, 0, 0, |i, x| x + p[i % h] * c[i]);
        let forget = if self.input_forget {
            input.iter().map(|&i| T::ONE - i).collect()
        } else {
            self.gate(isa, scratch, gates, 2, 0, |i, x| x + p[2 * h + i % h] * c[i])
        };
        let candidate = self.gate(isa, scratch, gates, 3, 1, |_, x| x);
        let next: Vec<T> =
            (0..c.len()).map(|i| forget[i] * c[i] + input[i] * candidate[i]).collect();
        let output = self.gate(isa, scratch, gates, 1, 0, |i, x| x + p[h + i % h] * next[i]);
        let mut shown = next.clone();
        self.activate(isa, scratch, 2, &mut shown);
        shown.iter_mut().zip(&output).for_each(|(s, &o)| *s = o * *s);
        (shown, next)
    }

    fn gru<T: Real>(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        weights: &Weights<'_, T>,
        state: &State<T>,
        gates: &mut [T],
        linear_before_reset: bool,
    ) -> Vec<T> {
        let (h, w) = (self.hidden, self.width());
        T::recur(isa, self, weights, &state.h, 0..2 * h, gates);
        let update = self.gate(isa, scratch, gates, 0, 0, |_, x| x);
        let reset = self.gate(isa, scratch, gates, 1, 0, |_, x| x);
        let mut recurrent = vec![T::default(); self.batch * w];
        if linear_before_reset {
            T::recur(isa, self, weights, &state.h, 2 * h..w, &mut recurrent);
        } else {
            let gated: Vec<T> = state.h.iter().zip(&reset).map(|(&s, &r)| s * r).collect();
            T::recur(isa, self, weights, &gated, 2 * h..w, &mut recurrent);
        }
        let candidate = self.gate(isa, scratch, gates, 2, 1, |i, x| {
            let r = recurrent[i / h * w + 2 * h + i % h];
            if linear_before_reset { x + reset[i] * (r + state.r_bias[i % h]) } else { x + r }
        });
        (0..state.h.len())
            .map(|i| (T::ONE - update[i]) * candidate[i] + update[i] * state.h[i])
            .collect()
    }
}

/// Runs an epilogue over a `[rows, cols]` value.
fn emit<T: Real>(
    exec: Exec<'_>,
    scratch: &mut Scratch,
    regions: &[Region],
    p: &Program,
    fixed: &[i64],
    values: &[T],
    [rows, cols]: [usize; 2],
) {
    p.shape(scratch, TILE);
    for row in 0..rows {
        for (i, part) in values[row * cols..(row + 1) * cols].chunks(TILE).enumerate() {
            scratch.slots.slice::<T>(0, part.len()).copy_from_slice(part);
            let tile = Tile { fixed, row, rows: 1, col: i * TILE, width: part.len() };
            p.run(exec.isa, scratch, regions, &tile);
        }
    }
}
