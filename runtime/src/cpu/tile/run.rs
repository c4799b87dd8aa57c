//! Execution of tile programs.

use tgc_ir::DType;

use super::bits::bitcast;
use super::reduce::{State, accumulate, finish};
use super::scalar::{cast, scalar};
use super::{Form, Ins, Level, Op, Program, Reg};
use crate::cpu::index::{Run, floor_div, floor_mod};
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::lanes::{self, Arg, Extent};
use crate::cpu::kernels::region::{Region, kind_of};
use crate::cpu::kernels::slots::{Kind, Slots};
use crate::cpu::kernels::transfer::{self, Place};

/// The points that a program runs over.
#[derive(Clone, Copy, Debug)]
pub struct Tile<'a> {
    /// Coordinates of the fixed axes.
    pub fixed: &'a [i64],
    /// First point of the row axes, linear.
    pub row: usize,
    /// Rows.
    pub rows: usize,
    /// First point of the column axes, linear.
    pub col: usize,
    /// Columns.
    pub width: usize,
}

impl Tile<'_> {
    fn extent(&self) -> Extent {
        Extent { rows: self.rows, width: self.width }
    }
}

/// Memory of one worker; contents do not survive between programs.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The tiles.
    pub slots: Slots,
    offsets: Vec<i64>,
    runs: Vec<Run>,
    spans: Vec<Run>,
    states: Vec<State>,
}

impl Program {
    /// Runs every operation over one tile, whose slots have been shaped by [`Program::shape`].
    pub fn run(&self, isa: Isa, scratch: &mut Scratch, regions: &[Region], tile: &Tile<'_>) {
        for ins in &self.ins {
            execute(isa, scratch, regions, &self.written, tile, ins);
        }
    }

    /// Prepares slots for tiles of at most `capacity` elements.
    pub fn shape(&self, scratch: &mut Scratch, capacity: usize) {
        scratch.slots.shape(self.slots as usize, capacity);
    }

    /// Runs a program compiled as chunked over one row of `width` columns, `chunk` at a time.
    pub fn run_row(
        &self,
        isa: Isa,
        scratch: &mut Scratch,
        regions: &[Region],
        fixed: &[i64],
        row: usize,
        width: usize,
        chunk: usize,
    ) {
        self.shape(scratch, chunk);
        for pass in &self.passes {
            let tile = Tile { fixed, row, rows: 1, col: 0, width: chunk.min(width) };
            for &i in &pass.once {
                execute(isa, scratch, regions, &self.written, &tile, &self.ins[i as usize]);
            }
            let reduces: Vec<&Ins> = pass
                .chunk
                .iter()
                .map(|&i| &self.ins[i as usize])
                .filter(|ins| matches!(ins.op, Op::Reduce { .. }))
                .collect();
            let mut states: Vec<State> = reduces
                .iter()
                .map(|ins| match ins.op {
                    Op::Reduce { op, dtype, .. } => State::new(op, dtype),
                    _ => unreachable!("filtered"),
                })
                .collect();
            let mut col = 0;
            while col < width {
                let tile = Tile { fixed, row, rows: 1, col, width: chunk.min(width - col) };
                let mut nth = 0;
                for &i in &pass.chunk {
                    let ins = &self.ins[i as usize];
                    if let Op::Reduce { op, dtype, src } = ins.op {
                        let state = &mut states[nth..=nth];
                        accumulate(
                            isa,
                            &mut scratch.slots,
                            op,
                            dtype,
                            src.slot,
                            tile.extent(),
                            col as i64,
                            state,
                        );
                        nth += 1;
                    } else {
                        execute(isa, scratch, regions, &self.written, &tile, ins);
                    }
                }
                col += tile.width;
            }
            for (ins, state) in reduces.iter().zip(&states) {
                if let Op::Reduce { op, dtype, .. } = ins.op {
                    finish(&mut scratch.slots, op, dtype, ins.dst, std::slice::from_ref(state));
                }
            }
        }
    }
}

fn execute(
    isa: Isa,
    scratch: &mut Scratch,
    regions: &[Region],
    written: &[u16],
    tile: &Tile<'_>,
    ins: &Ins,
) {
    let e = ins.level.extent(tile.extent());
    let n = e.count();
    let dst = ins.dst;
    match &ins.op {
        Op::Unary(op, a) => lanes::unary(isa, &mut scratch.slots, *op, dst, *a, n),
        Op::Binary(op, a, b) => lanes::binary(isa, &mut scratch.slots, *op, dst, a, b, e),
        Op::Scalar(op, dtype, args) => scalar(isa, &mut scratch.slots, *op, *dtype, dst, args, e),
        Op::FloorDiv(a, b) => {
            lanes::map2::<i64, i64>(isa, &mut scratch.slots, dst, a, b, e, floor_div)
        }
        Op::FloorMod(a, b) => {
            lanes::map2::<i64, i64>(isa, &mut scratch.slots, dst, a, b, e, floor_mod)
        }
        Op::Cast { from, to, src } => cast(isa, &mut scratch.slots, *from, *to, dst, *src, n),
        Op::Bitcast { from, to, src } => {
            bitcast(isa, &mut scratch.slots, [*from, *to], dst, *src, n);
        }
        Op::Expand(kind, a) => expand(isa, &mut scratch.slots, *kind, dst, a, e),
        Op::Coord(form) => coord(scratch, tile, ins.level, form, dst),
        Op::Load { region, dtype, form, add, row_mask, col_mask, in_place } => {
            let region = regions[*region as usize];
            let plain = *in_place && add.is_none() && row_mask.is_none() && col_mask.is_none();
            if plain && !written.iter().any(|&w| regions[w as usize].overlaps(region)) {
                lay(scratch, tile, ins.level, form);
                let place = Place { rows: &scratch.offsets, runs: &scratch.runs };
                // SAFETY: this program stores to no memory that overlaps this region, and no other kernel runs
                // meanwhile.
                if unsafe { transfer::borrow(&mut scratch.slots, dst, region, *dtype, place) } {
                    return;
                }
            }
            load(scratch, tile, ins.level, region, *dtype, form, *add, *row_mask, *col_mask, dst);
        }
        Op::Gather { region, dtype, index, mask } => {
            transfer::gather(
                &mut scratch.slots,
                dst,
                regions[*region as usize],
                *dtype,
                *index,
                *mask,
                n,
            );
        }
        Op::Reduce { op, dtype, src } => {
            let e = src.level.extent(tile.extent());
            let mut states = std::mem::take(&mut scratch.states);
            states.clear();
            states.resize(e.rows, State::new(*op, *dtype));
            accumulate(
                isa,
                &mut scratch.slots,
                *op,
                *dtype,
                src.slot,
                e,
                tile.col as i64,
                &mut states,
            );
            finish(&mut scratch.slots, *op, *dtype, dst, &states);
            scratch.states = states;
        }
        Op::Store { region, dtype, form, add } => {
            store(scratch, tile, ins.level, regions[*region as usize], *dtype, form, *add, dst);
        }
        Op::Scatter { region, dtype, index } => {
            transfer::scatter(
                &mut scratch.slots,
                dst,
                regions[*region as usize],
                *dtype,
                *index,
                n,
            );
        }
    }
}

fn expand(isa: Isa, slots: &mut Slots, kind: Kind, dst: u16, a: &Arg, e: Extent) {
    match kind {
        Kind::F32 => lanes::expand::<f32>(isa, slots, dst, a, e),
        Kind::F64 => lanes::expand::<f64>(isa, slots, dst, a, e),
        Kind::I64 => lanes::expand::<i64>(isa, slots, dst, a, e),
        Kind::Bool => lanes::expand::<u8>(isa, slots, dst, a, e),
    }
}

/// Fills `scratch.offsets` and `scratch.runs` with the tile's elements under a form.
fn lay(scratch: &mut Scratch, tile: &Tile<'_>, level: Level, form: &Form) {
    let base = form.fixed.iter().zip(tile.fixed).fold(form.base, |b, (c, x)| b + c * x);
    scratch.offsets.clear();
    scratch.runs.clear();
    let (offsets, runs) = (&mut scratch.offsets, &mut scratch.runs);
    match (level.row, level.col) {
        (false, false) => {
            offsets.push(base);
            runs.push(Run { offset: 0, count: 1, stride: 0 });
        }
        (true, false) => {
            offsets.push(base);
            form.rows.runs(tile.row, tile.rows, &mut |r| runs.push(r));
        }
        (false, true) => {
            offsets.push(base);
            form.cols.runs(tile.col, tile.width, &mut |r| runs.push(r));
        }
        (true, true) => {
            let dense =
                form.cols.stride() == Some(1) && form.rows.stride() == Some(tile.width as i64);
            if dense && tile.col == 0 {
                offsets.push(base + tile.row as i64 * tile.width as i64);
                runs.push(Run { offset: 0, count: tile.rows * tile.width, stride: 1 });
                return;
            }
            form.cols.runs(tile.col, tile.width, &mut |r| runs.push(r));
            form.rows.runs(tile.row, tile.rows, &mut |r| {
                offsets.extend((0..r.count as i64).map(|i| base + r.offset + i * r.stride));
            });
        }
    }
}

fn coord(scratch: &mut Scratch, tile: &Tile<'_>, level: Level, form: &Form, dst: u16) {
    lay(scratch, tile, level, form);
    let n = level.extent(tile.extent()).count();
    let out = scratch.slots.slice::<i64>(dst, n);
    let mut at = 0;
    for row in &scratch.offsets {
        for run in &scratch.runs {
            for (i, o) in out[at..at + run.count].iter_mut().enumerate() {
                *o = row + run.offset + i as i64 * run.stride;
            }
            at += run.count;
        }
    }
}

#[allow(clippy::too_many_arguments, reason = "parts of one instruction")]
fn load(
    scratch: &mut Scratch,
    tile: &Tile<'_>,
    level: Level,
    region: Region,
    dtype: DType,
    form: &Form,
    add: Option<Reg>,
    row_mask: Option<Reg>,
    col_mask: Option<u16>,
    dst: u16,
) {
    lay(scratch, tile, level, form);
    if add.is_none() && row_mask.is_none() && col_mask.is_none() {
        let place = Place { rows: &scratch.offsets, runs: &scratch.runs };
        transfer::load(&mut scratch.slots, dst, 0, region, dtype, place);
        return;
    }
    unfold(scratch, tile, level);
    transfer::clear(&mut scratch.slots, dst, kind_of(dtype), level.extent(tile.extent()).count());
    let elements = region.elements(dtype);
    let width: usize = scratch.runs.iter().map(|r| r.count).sum();
    spans(scratch, col_mask, width);
    for r in 0..scratch.offsets.len() {
        if !row_mask.is_none_or(|m| {
            scratch.slots.slice::<u8>(m.slot, r + 1)[if m.level.row { r } else { 0 }] != 0
        }) {
            continue;
        }
        let add = add.map_or(0, |a| {
            scratch.slots.slice::<i64>(a.slot, r + 1)[if a.level.row { r } else { 0 }]
        });
        let row = [scratch.offsets[r] + add];
        for span in &scratch.spans {
            // `stride` of a span is its first column, `offset` and `count` index the cut runs behind `runs`.
            let runs = &scratch.runs[span.offset as usize..span.offset as usize + span.count];
            let place = Place { rows: &row, runs };
            if place.range().is_some_and(|(low, high)| low >= 0 && high < elements) {
                transfer::load(
                    &mut scratch.slots,
                    dst,
                    r * width + span.stride as usize,
                    region,
                    dtype,
                    place,
                );
            }
        }
    }
}

/// Undoes the one-run shortcut of [`lay`], so that rows can be treated one by one.
fn unfold(scratch: &mut Scratch, tile: &Tile<'_>, level: Level) {
    if level == Level::FULL && tile.rows > 1 && scratch.offsets.len() == 1 {
        let base = scratch.offsets[0];
        scratch.offsets.clear();
        scratch.offsets.extend((0..tile.rows).map(|r| base + (r * tile.width) as i64));
        scratch.runs[0].count = tile.width;
    }
}

/// Cuts the runs to where the column mask is true: appends the cut runs to `scratch.runs` and describes each
/// stretch of true columns in `scratch.spans`.
fn spans(scratch: &mut Scratch, mask: Option<u16>, width: usize) {
    scratch.spans.clear();
    let whole = scratch.runs.len();
    let Some(mask) = mask else {
        scratch.spans.push(Run { offset: 0, count: whole, stride: 0 });
        return;
    };
    let mask = scratch.slots.slice::<u8>(mask, width);
    let mut col = 0;
    while col < width {
        if mask[col] == 0 {
            col += 1;
            continue;
        }
        let end = mask[col..].iter().position(|&m| m == 0).map_or(width, |p| col + p);
        let first = scratch.runs.len();
        let mut at = 0;
        for i in 0..whole {
            let run = scratch.runs[i];
            let (from, to) = (col.max(at), end.min(at + run.count));
            if from < to {
                let offset = run.offset + (from - at) as i64 * run.stride;
                scratch.runs.push(Run { offset, count: to - from, stride: run.stride });
            }
            at += run.count;
        }
        let count = scratch.runs.len() - first;
        scratch.spans.push(Run { offset: first as i64, count, stride: col as i64 });
        col = end;
    }
}

#[allow(clippy::too_many_arguments, reason = "parts of one instruction")]
fn store(
    scratch: &mut Scratch,
    tile: &Tile<'_>,
    level: Level,
    region: Region,
    dtype: DType,
    form: &Form,
    add: Option<Reg>,
    src: u16,
) {
    lay(scratch, tile, level, form);
    let Some(add) = add else {
        let place = Place { rows: &scratch.offsets, runs: &scratch.runs };
        transfer::store(&mut scratch.slots, src, 0, region, dtype, place);
        return;
    };
    unfold(scratch, tile, level);
    let elements = region.elements(dtype);
    let width: usize = scratch.runs.iter().map(|r| r.count).sum();
    for r in 0..scratch.offsets.len() {
        let add = scratch.slots.slice::<i64>(add.slot, r + 1)[if add.level.row { r } else { 0 }];
        let row = [scratch.offsets[r] + add];
        let place = Place { rows: &row, runs: &scratch.runs };
        if place.range().is_some_and(|(low, high)| low >= 0 && high < elements) {
            transfer::store(&mut scratch.slots, src, r * width, region, dtype, place);
        }
    }
}
