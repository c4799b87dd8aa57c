//! Family `loops`: every point of a space independently, one thread a point or a vector of points.
//!
//! Neighbouring axes that every access walks as one are merged; a vector width is used when the last
//! axis provably divides and every vector access is provably aligned.

use tgc_ir::kernel_program::Loops;
use tgc_ir::{Dim, Facts};

use super::frame::{self, Run};
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::storage_type;
use crate::schedule;

const THREADS: u32 = 256;
/// Blocks per multiprocessor beyond which a grid-stride loop repeats.
const BLOCKS_PER_SM: i64 = 16;

/// Emits a pointwise kernel.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Loops,
) -> Result<Emitted, PrintError> {
    let extents = merged_extents(scope, anchor)?;
    let axes = frame::axis_names("i", &extents);
    let printer = BodyPrinter::new(scope, &extents, axes, Vec::new());
    let width = vector_width(&printer, anchor, &extents)?;
    let name = &scope.program.name;
    let mut lines = Lines::default();
    frame::open_entry(&mut lines, scope, name, THREADS, false);
    let points = Dim::product(&extents).floor_div(&Dim::Const(width));
    let ty = scope.index_type();
    lines.line(format!("const {ty} points = {};", frame::print_extent(scope, &points)?));
    lines.open(format!(
        "for ({ty} p = blockIdx.x * ({ty}){THREADS} + threadIdx.x; p < points; p += gridDim.x * ({ty}){THREADS}) {{"
    ));
    if width == 1 {
        frame::decompose(&mut lines, scope, "p", &printer.axes, &extents)?;
        printer.print_stores(&anchor.epilogue.body, &anchor.epilogue.stores, &mut lines)?;
    } else {
        vector_point(&mut lines, printer, anchor, &extents, width)?;
    }
    lines.close("}");
    lines.close("}");
    let wanted = points.ceil_div(&Dim::Const(i64::from(THREADS)));
    let grid = wanted.minimum(&Dim::Const(i64::from(request.device.sms) * BLOCKS_PER_SM));
    let bytes = frame::buffer_bytes(scope);
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [grid, Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!("{THREADS} threads, {width} elements a thread"),
        predicted_ns: schedule::memory_bound_ns(request.device, bytes),
    };
    Ok(Emitted {
        family: "loops",
        skeletons: Vec::new(),
        text: lines.finish(),
        entries: vec![entry],
    })
}

/// The extents after merging: a merged axis has extent one, its inner neighbour the product.
fn merged_extents(scope: &Scope<'_>, anchor: &Loops) -> Result<Vec<Dim>, PrintError> {
    let mut extents = anchor.extents.clone();
    for outer in (0..extents.len().saturating_sub(1)).rev() {
        let Some(inner) = (outer + 1..extents.len()).find(|&n| !extents[n].is(1)) else { continue };
        let printer =
            BodyPrinter::new(scope, &extents, frame::axis_names("i", &extents), Vec::new());
        let (body, stores) = (&anchor.epilogue.body, &anchor.epilogue.stores);
        let merges = frame::walks_as_one(&printer, body, stores, (outer, inner), &extents[inner])?;
        if !extents[outer].is(1) && merges {
            extents[inner] = extents[outer].clone() * extents[inner].clone();
            extents[outer] = Dim::ONE;
        }
    }
    Ok(extents)
}

/// The widest vector such that no access is wider than 16 bytes, every store runs packed along the last
/// axis, and every load runs packed or does not move.
fn vector_width(
    printer: &BodyPrinter<'_>,
    anchor: &Loops,
    extents: &[Dim],
) -> Result<i64, PrintError> {
    let Some(axis) = extents.len().checked_sub(1) else { return Ok(1) };
    let program = printer.scope.program;
    let bytes =
        program.buffers.iter().filter_map(|buffer| buffer.dtype.bytes()).max().unwrap_or(16);
    let mut width = (16 / bytes.max(1)).min(16) as i64;
    while width > 1 {
        if extents_divide(&printer.facts, &extents[axis], width)
            && accesses_allow(printer, anchor, axis, width)?
        {
            return Ok(width);
        }
        width /= 2;
    }
    Ok(1)
}

fn extents_divide(facts: &Facts, extent: &Dim, width: i64) -> bool {
    facts.divisible(extent, width).is_yes()
}

fn accesses_allow(
    printer: &BodyPrinter<'_>,
    anchor: &Loops,
    axis: usize,
    width: i64,
) -> Result<bool, PrintError> {
    for store in &anchor.epilogue.stores {
        let offset = printer.offset(store.buffer, &store.index)?;
        if frame::run_along(&printer.facts, &offset, axis, width) != Run::Packed
            || frame::depends_on_values(&offset)
        {
            return Ok(false);
        }
    }
    let (mut packed, mut scattered) = (false, false);
    for (_, load) in frame::loads(&anchor.epilogue.body) {
        let offset = printer.offset(load.buffer, &load.index)?;
        match frame::run_along(&printer.facts, &offset, axis, width) {
            Run::Packed if load.guards.is_empty() => packed = true,
            Run::Same if !frame::guards_mention(load, axis) => {}
            _ => scattered = true,
        }
    }
    // Scattered loads alone would only lose coalescing.
    Ok(!scattered || packed)
}

/// One vector of points: packs in, a loop over lanes, packs out.
fn vector_point(
    lines: &mut Lines,
    mut printer: BodyPrinter<'_>,
    anchor: &Loops,
    extents: &[Dim],
    width: i64,
) -> Result<(), PrintError> {
    let scope = printer.scope;
    let last = extents.len() - 1;
    let base = printer.axes[last].clone();
    let mut vector_extents = extents.to_vec();
    vector_extents[last] = extents[last].floor_div(&Dim::Const(width));
    let mut vector_axes = printer.axes.clone();
    vector_axes[last] = "v".to_owned();
    frame::decompose(lines, scope, "p", &vector_axes, &vector_extents)?;
    lines.line(format!("const {} {base} = v * {width};", scope.index_type()));
    let (body, stores) = (&anchor.epilogue.body, &anchor.epilogue.stores);
    let known = frame::load_packs(lines, &printer, body, &|_| true, last, width)?;
    printer.known.extend(known);
    let none = std::collections::BTreeMap::new();
    let places: Vec<String> = stores
        .iter()
        .map(|store| printer.index(&none).print(&printer.offset(store.buffer, &store.index)?))
        .collect::<Result<_, _>>()?;
    let stored =
        |buffer: u32| storage_type(scope.program.buffers[buffer as usize].dtype).unwrap_or("u8");
    for (n, store) in stores.iter().enumerate() {
        lines.line(format!("pack<{}, {width}> out{n};", stored(store.buffer)));
    }
    lines.line("#pragma unroll");
    lines.open(format!("for (int lane = 0; lane < {width}; lane++) {{"));
    printer.axes[last] = format!("({base} + lane)");
    let (_, elements) = printer.print_store_values(body, stores, lines)?;
    for (n, element) in elements.iter().enumerate() {
        lines.line(format!("out{n}.at[lane] = {element};"));
    }
    lines.close("}");
    for (n, (store, place)) in stores.iter().zip(&places).enumerate() {
        let name = scope.buffer_name(store.buffer);
        lines.line(format!(
            "store_pack<{}, {width}>({name} + {place}, out{n});",
            stored(store.buffer)
        ));
    }
    Ok(())
}
