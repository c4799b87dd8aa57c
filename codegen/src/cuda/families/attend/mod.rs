//! Family `attend`: attention with a softmax over keys, scores and probabilities as slots.
//!
//! Half operands with heads of at most 256 take the tensor-core skeleton, everything else the plain one.

use std::ops::Range;

use tgc_ir::kernel_program::{Attend, InstKind, Operand};
use tgc_ir::{DType, Dim};

use super::contract::operand::OperandText;
use super::contract::store::StoreText;
use super::frame::{self, Slot};
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule::{self, typical};

const GROUPS: usize = 0;
const QUERIES: usize = 1;
const KEYS: usize = 2;
const DEPTH: usize = 3;
const WIDTH: usize = 4;
const LETTERS: [&str; 5] = ["b", "m", "n", "d", "e"];
/// Largest head of the tensor-core skeleton: its sums fill half the registers.
const LARGEST_HEAD: i64 = 256;
/// Warps of a block in either skeleton; a tensor-core warp has 16 query rows, a plain one has one.
const WARPS: i64 = 4;

/// The anchor's space after merging.
struct Space {
    parts: Vec<Vec<Dim>>,
}

impl Space {
    fn of(scope: &Scope<'_>, a: &Attend) -> Result<Space, PrintError> {
        let mut parts = vec![a.batch.clone(), a.m.clone(), a.n.clone(), a.d.clone(), a.e.clone()];
        let reads =
            |operand: &'_ Operand, parts: [usize; 3]| (operand.body.clone(), parts.to_vec());
        let bodies = [
            reads(&a.q, [GROUPS, QUERIES, DEPTH]),
            reads(&a.k, [GROUPS, KEYS, DEPTH]),
            reads(&a.v, [GROUPS, KEYS, WIDTH]),
            reads(&a.score, [GROUPS, QUERIES, KEYS]),
            reads(&a.prob, [GROUPS, QUERIES, KEYS]),
        ];
        let mut slots: Vec<Slot<'_>> = bodies
            .iter()
            .map(|(body, parts)| Slot { body, guards: &[], stores: &[], parts: parts.clone() })
            .collect();
        let (body, stores) = (&a.epilogue.body, a.epilogue.stores.as_slice());
        slots.push(Slot { body, guards: &[], stores, parts: vec![GROUPS, QUERIES, WIDTH] });
        frame::merge_parts(scope, &mut parts, &slots)?;
        Ok(Space { parts })
    }

    fn count(&self, part: usize) -> Dim {
        Dim::product(&self.parts[part])
    }

    /// Extents, names and the ranges of three parts in a body's order.
    fn axes(&self, order: [usize; 3]) -> (Vec<Dim>, Vec<String>, [Range<usize>; 3]) {
        let (mut extents, mut names) = (Vec::new(), Vec::new());
        let ranges = order.map(|part| {
            let start = extents.len();
            extents.extend(self.parts[part].iter().cloned());
            names.extend(frame::axis_names(LETTERS[part], &self.parts[part]));
            start..extents.len()
        });
        (extents, names, ranges)
    }

    fn operand<'a>(
        &self,
        side: &'static str,
        operand: &'a Operand,
        order: [usize; 3],
    ) -> OperandText<'a> {
        let (extents, axes, [groups, rows, steps]) = self.axes(order);
        OperandText { side, operand, extents, axes, groups, rows, steps, inside: Vec::new() }
    }
}

/// True when the probability body gives back its slot.
fn is_identity(operand: &Operand) -> bool {
    let mut at = operand.value;
    loop {
        match operand.body.insts.get(at as usize).map(|inst| &inst.kind) {
            Some(InstKind::Slot(0)) => return true,
            Some(InstKind::Cast(from)) if operand.body.dtype(at) == operand.body.dtype(*from) => {
                at = *from
            }
            _ => return false,
        }
    }
}

/// Emits an attention kernel.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Attend,
) -> Result<Emitted, PrintError> {
    let space = Space::of(scope, anchor)?;
    let query = space.operand("query", &anchor.q, [GROUPS, QUERIES, DEPTH]);
    let key = space.operand("key", &anchor.k, [GROUPS, KEYS, DEPTH]);
    let value = space.operand("value", &anchor.v, [GROUPS, KEYS, WIDTH]);
    let half =
        query.narrow().filter(|half| key.narrow() == Some(*half) && value.narrow() == Some(*half));
    let heads = (space.count(DEPTH).as_const(), space.count(WIDTH).as_const());
    let form = match (half.filter(|_| anchor.acc == DType::F32), heads) {
        (Some(half), (Some(depth), Some(width)))
            if depth.max(width) <= LARGEST_HEAD && depth.min(width) >= 1 =>
        {
            Form::tensor_core(half, depth, width)
        }
        _ => Form::plain(space.count(WIDTH).as_const()),
    };
    let mut lines = Lines::default();
    let name = &scope.program.name;
    frame::open_slots(&mut lines, scope, &format!("{name}_slots"));
    lines.line(format!("typedef {} Sum;", value_type(anchor.acc)));
    lines.line(format!("static const bool weighs = {};", !is_identity(&anchor.prob)));
    let parts = [
        ("groups", GROUPS),
        ("queries", QUERIES),
        ("keys", KEYS),
        ("depth", DEPTH),
        ("width", WIDTH),
    ];
    for (name, part) in parts {
        frame::extent_function(&mut lines, scope, name, &space.count(part))?;
    }
    if let Some(half) = form.half {
        lines.line(format!("typedef {} Element;", half.name()));
        for operand in [&query, &key, &value] {
            let walk = operand.walk(scope, 8)?;
            let is_async = walk.along_steps && walk.width == 8;
            lines.line(format!("static const bool {}_async = {is_async};", operand.side));
        }
    }
    for operand in [&query, &key, &value] {
        operand.print(scope, &mut lines)?;
    }
    print_scalar(&mut lines, scope, &space, "score", &anchor.score, anchor.acc)?;
    print_scalar(&mut lines, scope, &space, "weight", &anchor.prob, anchor.acc)?;
    print_last_key(&mut lines, scope, &space, anchor)?;
    let (extents, axes, [groups, rows, columns]) = space.axes([GROUPS, QUERIES, WIDTH]);
    let store = StoreText {
        epilogue: &anchor.epilogue,
        extents,
        axes,
        groups,
        rows,
        columns,
        sum: anchor.acc,
        run: form.run,
    };
    store.print(scope, &mut lines)?;
    lines.close("};");
    finish(lines, scope, request, &space, &form)
}

/// Which skeleton, with its constants.
struct Form {
    half: Option<DType>,
    call: String,
    run: i64,
    query_rows: i64,
    /// Elements of the result that one block of the second grid axis covers; none when all.
    covered: Option<i64>,
    shared_bytes: i64,
    configuration: String,
}

impl Form {
    fn tensor_core(half: DType, depth: i64, width: i64) -> Form {
        let round = |size: i64| (size + 15) / 16 * 16;
        let pitch = |size: i64| (round(size) as u64).next_power_of_two() as i64;
        let keys = if depth.max(width) <= 128 { 64 } else { 32 };
        let (pitch_d, pitch_w) = (pitch(depth), pitch(width));
        let (depth, width) = (round(depth), round(width));
        let rows = WARPS * 16;
        Form {
            half: Some(half),
            call: format!(
                "attend_tensor_core<{depth}, {width}, {WARPS}, {keys}, {pitch_d}, {pitch_w}>"
            ),
            run: 2,
            query_rows: rows,
            covered: None,
            shared_bytes: 2 * (rows * pitch_d + 2 * keys * (pitch_d + pitch_w)),
            configuration: format!(
                "tensor cores, {rows} queries x {keys} keys, head {depth}/{width}, 2 stages"
            ),
        }
    }

    fn plain(width: Option<i64>) -> Form {
        let each = width.map_or(8, |width| ((width + 31) / 32).clamp(1, 8));
        Form {
            half: None,
            call: format!("attend_plain<{each}, {WARPS}>"),
            run: 1,
            query_rows: WARPS,
            covered: Some(32 * each),
            shared_bytes: 0,
            configuration: format!(
                "plain cores, a query is one warp, {} elements of the head",
                32 * each
            ),
        }
    }
}

fn finish(
    mut lines: Lines,
    scope: &Scope<'_>,
    request: &Request<'_>,
    space: &Space,
    form: &Form,
) -> Result<Emitted, PrintError> {
    let name = &scope.program.name;
    let threads = (WARPS * 32) as u32;
    frame::open_entry(&mut lines, scope, name, threads, false);
    lines.line(frame::slots_value(scope, &format!("{name}_slots")));
    lines.line(format!("{}(slots);", form.call));
    lines.close("}");
    // A tensor-core block stays within one group; plain rows are counted over all groups.
    let (groups, queries) = (space.count(GROUPS), space.count(QUERIES));
    let rows = Dim::Const(form.query_rows);
    let blocks = match form.half {
        Some(_) => groups * queries.ceil_div(&rows),
        None => (groups * queries).ceil_div(&rows),
    };
    let across =
        form.covered.map_or(Dim::ONE, |covered| space.count(WIDTH).ceil_div(&Dim::Const(covered)));
    let size = |part: usize| typical(scope.facts(), &space.count(part));
    let flops = 2.0 * size(GROUPS) * size(QUERIES) * size(KEYS) * (size(DEPTH) + size(WIDTH));
    let device = request.device;
    // Half of the peak of mma.sync; a tenth of the plain peak, because keys are read by every query.
    let tflops = match form.half {
        Some(_) => device.f16_tflops * device.mma_sync_share * 0.5,
        None => device.f32_tflops * 0.1,
    };
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [blocks, across, Dim::ONE],
        block: [threads, 1, 1],
        shared_bytes: Dim::Const(form.shared_bytes),
        workspace_bytes: Dim::ZERO,
        configuration: form.configuration.clone(),
        predicted_ns: schedule::roofline_ns(device, frame::buffer_bytes(scope), flops, tflops),
    };
    let skeletons = match form.half {
        Some(_) => vec!["tile_fill.cuh", "attend_tensor_core.cuh"],
        None => vec!["attend_plain.cuh"],
    };
    Ok(Emitted { family: "attend", skeletons, text: lines.finish(), entries: vec![entry] })
}

/// `score` or `weight`: a body over groups, queries and keys with one slot.
fn print_scalar(
    lines: &mut Lines,
    scope: &Scope<'_>,
    space: &Space,
    function: &str,
    operand: &Operand,
    acc: DType,
) -> Result<(), PrintError> {
    let (extents, axes, ranges) = space.axes([GROUPS, QUERIES, KEYS]);
    let sum = value_type(acc);
    lines.open(format!("DEVICE {sum} {function}(i64 g, i64 m, i64 n, {sum} raw) const {{"));
    for (flat, range) in ["g", "m", "n"].into_iter().zip(ranges) {
        let flat = if scope.is_wide() { flat.to_owned() } else { format!("(i32){flat}") };
        frame::decompose(lines, scope, &flat, &axes[range.clone()], &extents[range])?;
    }
    let printer = BodyPrinter::new(scope, &extents, axes, vec!["raw".to_owned()]);
    let values = printer.print(&operand.body, &[operand.value], lines)?;
    lines.line(format!("return ({sum})({});", values[&operand.value]));
    lines.close("}");
    Ok(())
}

/// One past the last key that any of the rows `first` to `last` needs.
fn print_last_key(
    lines: &mut Lines,
    scope: &Scope<'_>,
    space: &Space,
    anchor: &Attend,
) -> Result<(), PrintError> {
    let text = match &anchor.causal {
        // A row before the first key keeps all of them, because its softmax is over masked scores.
        Some(offset) => {
            let offset = frame::print_extent_factor(scope, offset)?;
            format!("first + {offset} < 0 ? keys() : last + {offset} + 1")
        }
        None => frame::print_extent(scope, &space.count(KEYS))?,
    };
    lines.line(format!("DEVICE i64 last_key(i64 first, i64 last) const {{ return {text}; }}"));
    Ok(())
}
