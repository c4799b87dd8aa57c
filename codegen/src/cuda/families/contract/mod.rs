//! Family `contract`: sums of products over any labels, by one of three skeletons.
//!
//! Half operands go to tensor cores, few static rows stream the right operand, everything else runs on
//! plain cores. The choice depends on element types and static extents alone, so that a row's bits do not
//! depend on how many rows a run has.

mod launch;
pub(super) mod operand;
pub(super) mod store;

use tgc_ir::kernel_program::{Contract, Guard};
use tgc_ir::{DType, Dim};

use self::launch::{
    describe, plain_entry, plain_tile_struct, print_entry, tile_struct, tiled_entry,
};
use self::operand::{OperandText, Walk};
use self::store::StoreText;
use super::frame::{self, Slot};
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule::tiles::{self, Choice, Extents};
use crate::schedule::{self, typical};

/// Rows up to which the right operand is streamed.
const STREAM_ROWS: i64 = 8;

/// The anchor's space after merging: groups, rows, columns, steps.
struct Space {
    parts: Vec<Vec<Dim>>,
}

const GROUPS: usize = 0;
const ROWS: usize = 1;
const COLUMNS: usize = 2;
const STEPS: usize = 3;
const LETTERS: [&str; 4] = ["b", "m", "n", "k"];

impl Space {
    fn of(scope: &Scope<'_>, anchor: &Contract, inside: &[Guard]) -> Result<Space, PrintError> {
        let mut parts =
            vec![anchor.batch.clone(), anchor.m.clone(), anchor.n.clone(), anchor.k.clone()];
        let slots = [
            Slot {
                body: &anchor.lhs.body,
                guards: inside,
                stores: &[],
                parts: vec![GROUPS, ROWS, STEPS],
            },
            Slot {
                body: &anchor.rhs.body,
                guards: &[],
                stores: &[],
                parts: vec![GROUPS, STEPS, COLUMNS],
            },
            Slot {
                body: &anchor.epilogue.body,
                guards: &[],
                stores: &anchor.epilogue.stores,
                parts: vec![GROUPS, ROWS, COLUMNS],
            },
        ];
        frame::merge_parts(scope, &mut parts, &slots)?;
        Ok(Space { parts })
    }

    fn count(&self, part: usize) -> Dim {
        Dim::product(&self.parts[part])
    }

    /// Extents, names and ranges of a body that has these parts in this order.
    fn axes(&self, order: [usize; 3]) -> (Vec<Dim>, Vec<String>, [std::ops::Range<usize>; 4]) {
        let (mut extents, mut names) = (Vec::new(), Vec::new());
        let mut ranges = [0..0, 0..0, 0..0, 0..0];
        for part in order {
            let start = extents.len();
            extents.extend(self.parts[part].iter().cloned());
            names.extend(frame::axis_names(LETTERS[part], &self.parts[part]));
            ranges[part] = start..extents.len();
        }
        (extents, names, ranges)
    }
}

/// Everything that the text of one contraction needs.
struct Pieces<'a> {
    space: Space,
    left: OperandText<'a>,
    right: OperandText<'a>,
    anchor: &'a Contract,
}

impl<'a> Pieces<'a> {
    fn of(
        scope: &Scope<'_>,
        anchor: &'a Contract,
        inside: Vec<Guard>,
    ) -> Result<Pieces<'a>, PrintError> {
        let space = Space::of(scope, anchor, &inside)?;
        let (extents, axes, ranges) = space.axes([GROUPS, ROWS, STEPS]);
        let [groups, rows, _, steps] = ranges;
        let left = OperandText {
            side: "left",
            operand: &anchor.lhs,
            extents,
            axes,
            groups,
            rows,
            steps,
            inside,
        };
        let (extents, axes, ranges) = space.axes([GROUPS, STEPS, COLUMNS]);
        let [groups, _, columns, steps] = ranges;
        let right = OperandText {
            side: "right",
            operand: &anchor.rhs,
            extents,
            axes,
            groups,
            rows: columns,
            steps,
            inside: Vec::new(),
        };
        Ok(Pieces { space, left, right, anchor })
    }

    fn store(&self, run: i64) -> StoreText<'a> {
        let (extents, axes, ranges) = self.space.axes([GROUPS, ROWS, COLUMNS]);
        let [groups, rows, columns, _] = ranges;
        StoreText {
            epilogue: &self.anchor.epilogue,
            extents,
            axes,
            groups,
            rows,
            columns,
            sum: self.anchor.acc,
            run,
        }
    }

    /// Sizes for the cost model.
    fn extents(&self, scope: &Scope<'_>, bytes: f64) -> Extents {
        let size = |part: usize| typical(scope.facts(), &self.space.count(part));
        let splits = self.space.count(STEPS).as_const().is_some();
        Extents {
            batch: size(GROUPS),
            m: size(ROWS),
            n: size(COLUMNS),
            k: size(STEPS),
            bytes,
            splits,
        }
    }
}

/// Emits a contraction.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Contract,
) -> Result<Emitted, PrintError> {
    emit_with_conditions(scope, request, anchor, Vec::new(), "contract")
}

/// Emits a contraction whose left operand is zero where `inside` (over the left operand's axes) fails.
pub(super) fn emit_with_conditions(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Contract,
    inside: Vec<Guard>,
    family: &'static str,
) -> Result<Emitted, PrintError> {
    let pieces = Pieces::of(scope, anchor, inside)?;
    Ok(Emitted { family, ..choose(scope, request, &pieces)? })
}

/// The skeleton for this contraction.
fn choose(
    scope: &Scope<'_>,
    request: &Request<'_>,
    pieces: &Pieces<'_>,
) -> Result<Emitted, PrintError> {
    let anchor = pieces.anchor;
    let rows = pieces.space.count(ROWS).as_const();
    if rows.is_some_and(|rows| (1..=STREAM_ROWS).contains(&rows)) {
        return stream(scope, request, pieces, rows.unwrap_or(1));
    }
    let half = pieces.left.narrow().filter(|half| pieces.right.narrow() == Some(*half));
    match half.filter(|_| anchor.acc == DType::F32) {
        Some(half) => tensor_core(scope, request, pieces, half),
        None => plain(scope, request, pieces),
    }
}

/// The struct up to the operands: types, arguments, extents.
fn open_struct(
    lines: &mut Lines,
    scope: &Scope<'_>,
    pieces: &Pieces<'_>,
) -> Result<(), PrintError> {
    frame::open_slots(lines, scope, &format!("{}_slots", scope.program.name));
    lines.line(format!("typedef {} Sum;", value_type(pieces.anchor.acc)));
    for (name, part) in [("groups", GROUPS), ("rows", ROWS), ("columns", COLUMNS), ("depth", STEPS)]
    {
        frame::extent_function(lines, scope, name, &pieces.space.count(part))?;
    }
    Ok(())
}

fn walk_constants(lines: &mut Lines, left: Walk, right: Walk) {
    lines.line(format!(
        "static const bool left_along_k = {}, right_along_k = {};",
        left.along_steps, right.along_steps
    ));
}

fn tensor_core(
    scope: &Scope<'_>,
    request: &Request<'_>,
    pieces: &Pieces<'_>,
    half: DType,
) -> Result<Emitted, PrintError> {
    let choice =
        ranked(&tiles::rank_half(request.device, &pieces.extents(scope, 2.0)), request.candidate);
    let (left, right) = (pieces.left.walk(scope, 8)?, pieces.right.walk(scope, 8)?);
    let mut lines = Lines::default();
    open_struct(&mut lines, scope, pieces)?;
    lines.line(format!("typedef {} Element;", half.name()));
    walk_constants(&mut lines, left, right);
    lines.line(format!(
        "static const bool left_async = {}, right_async = {};",
        left.width == 8,
        right.width == 8
    ));
    pieces.left.print(scope, &mut lines)?;
    pieces.right.print(scope, &mut lines)?;
    pieces.store(8).print(scope, &mut lines)?;
    lines.close("};");
    let name = &scope.program.name;
    let (tile, splits) = (choice.tile, choice.splits);
    lines.line(tile_struct(name, &choice));
    let configuration = format!("tensor cores, {}", describe(&choice));
    let [groups, rows, columns] = [GROUPS, ROWS, COLUMNS].map(|part| pieces.space.count(part));
    let mut entry =
        tiled_entry(name, [&groups, &rows, &columns], &choice, DType::F32, configuration);
    entry.shared_bytes = Dim::Const(tile.shared_bytes());
    print_entry(
        &mut lines,
        scope,
        DType::F32,
        &entry,
        splits,
        &format!("contract_tensor_core<{name}_tile>"),
    )?;
    let skeletons = vec!["tile_fill.cuh", "contract_tensor_core.cuh"];
    Ok(Emitted { family: "contract", skeletons, text: lines.finish(), entries: vec![entry] })
}

/// Arithmetic peak of an element type on plain cores, in tera-operations a second.
pub(super) fn plain_tflops(request: &Request<'_>, sum: DType) -> f64 {
    match sum {
        DType::F64 => request.device.f64_tflops,
        DType::F32 => request.device.f32_tflops,
        DType::I64 | DType::U64 => request.device.f32_tflops / 8.0,
        _ => request.device.f32_tflops / 2.0,
    }
}

fn plain(
    scope: &Scope<'_>,
    request: &Request<'_>,
    pieces: &Pieces<'_>,
) -> Result<Emitted, PrintError> {
    let sum = pieces.anchor.acc;
    let bytes = sum.bytes().unwrap_or(4) as f64;
    let choice = plain_choice(request, &pieces.extents(scope, bytes), sum);
    let (left, right) = (pieces.left.walk(scope, 1)?, pieces.right.walk(scope, 1)?);
    let mut lines = Lines::default();
    open_struct(&mut lines, scope, pieces)?;
    walk_constants(&mut lines, left, right);
    pieces.left.print(scope, &mut lines)?;
    pieces.right.print(scope, &mut lines)?;
    pieces.store(choice.tile.warp_n.min(4)).print(scope, &mut lines)?;
    lines.close("};");
    let name = &scope.program.name;
    lines.line(plain_tile_struct(name, &choice));
    let [groups, rows, columns] = [GROUPS, ROWS, COLUMNS].map(|part| pieces.space.count(part));
    let entry = plain_entry(name, [&groups, &rows, &columns], &choice, sum);
    print_entry(
        &mut lines,
        scope,
        sum,
        &entry,
        choice.splits,
        &format!("contract_plain<{name}_tile>"),
    )?;
    Ok(Emitted {
        family: "contract",
        skeletons: vec!["contract_plain.cuh"],
        text: lines.finish(),
        entries: vec![entry],
    })
}

/// The best plain tile; eight-byte sums take small tiles, whose shared memory is static.
pub(super) fn plain_choice(request: &Request<'_>, extents: &Extents, sum: DType) -> Choice {
    let choices = tiles::rank_plain(request.device, extents, plain_tflops(request, sum));
    let fits: Vec<Choice> =
        choices.into_iter().filter(|choice| sum.bits() <= 32 || choice.tile.m <= 64).collect();
    ranked(&fits, request.candidate)
}

/// The choice of a rank; the last one when there are fewer.
fn ranked(choices: &[Choice], candidate: usize) -> Choice {
    choices[candidate.min(choices.len() - 1)]
}

fn stream(
    scope: &Scope<'_>,
    request: &Request<'_>,
    pieces: &Pieces<'_>,
    rows: i64,
) -> Result<Emitted, PrintError> {
    let sum = pieces.anchor.acc;
    let element = pieces
        .right
        .operand
        .plain_load()
        .map(|load| scope.program.buffers[load.buffer as usize].dtype);
    let bytes = element.and_then(DType::bytes).unwrap_or(4) as i64;
    let along_k = pieces.right.walk(scope, 1)?.along_steps;
    // A lane reads 16 bytes along k; along n four, so that enough blocks share the columns.
    let right = pieces.right.walk(scope, if along_k { 16 / bytes } else { (4 / bytes).max(1) })?;
    let mut lines = Lines::default();
    open_struct(&mut lines, scope, pieces)?;
    pieces.left.print(scope, &mut lines)?;
    pieces.right.print(scope, &mut lines)?;
    pieces.right.print_run(scope, &mut lines, right, sum)?;
    let (columns, warps) = if along_k { (if rows <= 4 { 4 } else { 2 }, 4) } else { (1, 8) };
    pieces.store(columns).print(scope, &mut lines)?;
    lines.close("};");
    let name = &scope.program.name;
    let (call, span) = if along_k {
        (format!("contract_stream_k<{rows}, {columns}, {warps}>"), columns * warps)
    } else {
        (format!("contract_stream_n<{rows}, {warps}>"), 32 * right.width)
    };
    let blocks =
        pieces.space.count(GROUPS) * pieces.space.count(COLUMNS).ceil_div(&Dim::Const(span));
    let threads = (warps * 32) as u32;
    frame::open_entry(&mut lines, scope, name, threads, false);
    lines.line(frame::slots_value(scope, &format!("{name}_slots")));
    lines.line(format!("{call}(slots);"));
    lines.close("}");
    let along = if along_k { "k" } else { "n" };
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [blocks, Dim::ONE, Dim::ONE],
        block: [threads, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!(
            "{rows} rows stream the right operand along {along}, {} elements at once",
            right.width
        ),
        predicted_ns: schedule::memory_bound_ns(request.device, frame::buffer_bytes(scope)),
    };
    Ok(Emitted {
        family: "contract",
        skeletons: vec!["contract_stream.cuh"],
        text: lines.finish(),
        entries: vec![entry],
    })
}
