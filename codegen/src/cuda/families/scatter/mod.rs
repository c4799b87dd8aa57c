//! Family `scatter`: writes at computed places, in order, without atomics.
//!
//! An output axis is *owned* when its index is an update axis of its own: updates with different values
//! there never meet. Each thread takes one point of the owned axes, fills its part of the output and then
//! applies its updates in row-major order. With no owned axis one block does everything, and each of its
//! threads applies the updates whose element falls to it.

use tgc_ir::kernel_program::{Scatter, ScatterOp, as_axis, axis_symbol};
use tgc_ir::{DType, Dim};

use super::frame;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::{BodyPrinter, index_values};
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::{scalar, value_type};
use crate::schedule::{self, typical};

const THREADS: u32 = 256;

/// The axes of a scatter, split by ownership.
struct Split {
    /// (output axis, update axis) pairs.
    owned: Vec<(usize, usize)>,
    /// Names of output axes.
    places: Vec<String>,
    /// Names of update axes.
    updates: Vec<String>,
}

/// Emits a scatter.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Scatter,
) -> Result<Emitted, PrintError> {
    let name = &scope.program.name;
    let buffer = scope.program.buffers.get(anchor.store.buffer as usize);
    let shape = buffer.ok_or_else(|| scope.malformed("a store names no buffer"))?.shape.clone();
    let split = split(anchor, &shape);
    let owned: Vec<Dim> = split.owned.iter().map(|&(place, _)| shape[place].clone()).collect();
    let points = Dim::product(&owned);
    let ty = scope.index_type();
    let mut lines = Lines::default();
    frame::open_entry(&mut lines, scope, name, THREADS, false);
    let alone = owned.is_empty();
    if alone {
        lines.line(format!("const {ty} p = threadIdx.x;"));
    } else {
        lines.line(format!("const {ty} p = blockIdx.x * ({ty}){THREADS} + threadIdx.x;"));
        lines.line(format!("if (p >= {}) return;", frame::print_extent(scope, &points)?));
        let names: Vec<String> =
            split.owned.iter().map(|&(place, _)| split.places[place].clone()).collect();
        let ones: Vec<Dim> = owned.clone();
        frame::decompose(&mut lines, scope, "p", &names, &ones)?;
    }
    initialise(&mut lines, scope, anchor, &shape, &split)?;
    if alone && anchor.init.is_some() {
        lines.line("__syncthreads();");
    }
    apply(&mut lines, scope, anchor, &shape, &split)?;
    lines.close("}");
    let blocks = if alone { Dim::ONE } else { points.ceil_div(&Dim::Const(i64::from(THREADS))) };
    let updates = typical(scope.facts(), &Dim::product(&anchor.updates));
    let chain = updates / typical(scope.facts(), &points).max(1.0);
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [blocks, Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!("{THREADS} threads, {} owned axes", owned.len()),
        // A chain of dependent reads of the second-level cache, about 200 ns each.
        predicted_ns: schedule::memory_bound_ns(request.device, frame::buffer_bytes(scope))
            + (chain * 200.0) as u64,
    };
    Ok(Emitted {
        family: "scatter",
        skeletons: Vec::new(),
        text: lines.finish(),
        entries: vec![entry],
    })
}

fn split(anchor: &Scatter, shape: &[Dim]) -> Split {
    let index = &anchor.store.index;
    let mut owned = Vec::new();
    for (place, dim) in index.iter().enumerate() {
        let Some(update) = dim.as_symbol().and_then(as_axis) else { continue };
        let elsewhere = index
            .iter()
            .enumerate()
            .any(|(n, other)| n != place && other.mentions(&axis_symbol(update)));
        if !elsewhere && !shape[place].is(1) {
            owned.push((place, update));
        }
    }
    let mut updates = frame::axis_names("u", &anchor.updates);
    let places = frame::axis_names("o", shape);
    for &(place, update) in &owned {
        updates[update].clone_from(&places[place]);
    }
    Split { owned, places, updates }
}

/// Every element of this thread's part gets its initial value.
fn initialise(
    lines: &mut Lines,
    scope: &Scope<'_>,
    anchor: &Scatter,
    shape: &[Dim],
    split: &Split,
) -> Result<(), PrintError> {
    let Some(init) = &anchor.init else { return Ok(()) };
    let ty = scope.index_type();
    let free: Vec<usize> =
        (0..shape.len()).filter(|&n| !split.owned.iter().any(|&(place, _)| place == n)).collect();
    let extents: Vec<Dim> = free.iter().map(|&n| shape[n].clone()).collect();
    let names: Vec<String> = free.iter().map(|&n| split.places[n].clone()).collect();
    let (start, step) = if split.owned.is_empty() {
        ("p".to_owned(), THREADS.to_string())
    } else {
        ("0".to_owned(), "1".to_owned())
    };
    let count = frame::print_extent(scope, &Dim::product(&extents))?;
    lines.open(format!("for ({ty} e = {start}; e < {count}; e += {step}) {{"));
    frame::decompose(lines, scope, "e", &names, &extents)?;
    let mut printer = BodyPrinter::new(scope, shape, split.places.clone(), Vec::new());
    printer.prefix = "z";
    let values = printer.print(&init.body, &[init.value], lines)?;
    let to = scope.program.buffers[anchor.store.buffer as usize].dtype;
    let place: Vec<Dim> = (0..shape.len()).map(tgc_ir::kernel_program::axis).collect();
    let element = printer.element(anchor.store.buffer, &place, &values)?;
    lines.line(format!(
        "{element} = {};",
        scalar::stored(&values[&init.value], init.body.dtype(init.value), to)
    ));
    lines.close("}");
    Ok(())
}

/// Applies this thread's updates in order.
fn apply(
    lines: &mut Lines,
    scope: &Scope<'_>,
    anchor: &Scatter,
    shape: &[Dim],
    split: &Split,
) -> Result<(), PrintError> {
    let ty = scope.index_type();
    let mut inside: Vec<String> = Vec::new();
    for &(place, update) in &split.owned {
        if !scope.facts().at_most(&shape[place], &anchor.updates[update]).is_yes() {
            let extent = frame::print_extent_factor(scope, &anchor.updates[update])?;
            inside.push(format!("{} < {extent}", split.places[place]));
        }
    }
    if !inside.is_empty() {
        lines.line(format!("if (!({})) return;", inside.join(" && ")));
    }
    let free: Vec<usize> = (0..anchor.updates.len())
        .filter(|&n| !split.owned.iter().any(|&(_, update)| update == n))
        .collect();
    let extents: Vec<Dim> = free.iter().map(|&n| anchor.updates[n].clone()).collect();
    let names: Vec<String> = free.iter().map(|&n| split.updates[n].clone()).collect();
    let count = frame::print_extent(scope, &Dim::product(&extents))?;
    lines.open(format!("for ({ty} u = 0; u < {count}; u++) {{"));
    frame::decompose(lines, scope, "u", &names, &extents)?;
    let printer = BodyPrinter::new(scope, &anchor.updates, split.updates.clone(), Vec::new());
    let places = index_values(&anchor.store.index);
    let values = printer.print(&anchor.body, &places, lines)?;
    for (n, dim) in anchor.store.index.iter().enumerate() {
        if split.owned.iter().any(|&(place, _)| place == n) {
            continue;
        }
        let (text, extent) = (
            printer.index(&values).print_factor(dim)?,
            frame::print_extent_factor(scope, &shape[n])?,
        );
        lines.line(format!("if ({text} < 0 || {text} >= {extent}) continue;"));
    }
    let offset =
        printer.index(&values).print(&printer.offset(anchor.store.buffer, &anchor.store.index)?)?;
    lines.line(format!("const {ty} at = {offset};"));
    if split.owned.is_empty() {
        lines.line(format!("if (at % {THREADS} != p) continue;"));
    }
    combine(lines, printer, values, anchor)?;
    lines.close("}");
    Ok(())
}

fn combine(
    lines: &mut Lines,
    mut printer: BodyPrinter<'_>,
    values: std::collections::BTreeMap<u32, String>,
    anchor: &Scatter,
) -> Result<(), PrintError> {
    let scope = printer.scope;
    printer.known = values;
    printer.prefix = "z";
    let value =
        printer.print(&anchor.body, &[anchor.store.value], lines)?.remove(&anchor.store.value);
    let value = value.unwrap_or_default();
    let from = anchor.body.dtype(anchor.store.value);
    let to = scope.program.buffers[anchor.store.buffer as usize].dtype;
    let name = scope.buffer_name(anchor.store.buffer);
    let before = scalar::loaded(&format!("{name}[at]"), to);
    let held = value_type(to);
    let combined = match anchor.op {
        ScatterOp::Replace => value,
        ScatterOp::Add if to == DType::Bool => format!("{before} || {value}"),
        ScatterOp::Mul if to == DType::Bool => format!("{before} && {value}"),
        ScatterOp::Add => format!("({held})({before} + {value})"),
        ScatterOp::Mul => format!("({held})({before} * {value})"),
        ScatterOp::Min => format!("minimum<{held}>({before}, {value})"),
        ScatterOp::Max => format!("maximum<{held}>({before}, {value})"),
    };
    lines.line(format!("{name}[at] = {};", scalar::stored(&combined, from, to)));
    Ok(())
}
