//! Family `pool`: a reduction over sliding windows, one thread per output.

use tgc_ir::kernel_program::{Pool, PoolDivisor, ReduceOp};
use tgc_ir::{DType, Dim};

use super::frame;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule;

const THREADS: u32 = 256;

/// Emits a pooling kernel.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Pool,
) -> Result<Emitted, PrintError> {
    let name = &scope.program.name;
    let space = [anchor.outer.as_slice(), &anchor.out_spatial].concat();
    let outer = frame::axis_names("o", &anchor.outer);
    let cells = frame::axis_names("c", &anchor.out_spatial);
    let points = Dim::product(&space);
    let ty = scope.index_type();
    let mut lines = Lines::default();
    frame::open_entry(&mut lines, scope, name, THREADS, false);
    lines.line(format!("const {ty} p = blockIdx.x * ({ty}){THREADS} + threadIdx.x;"));
    lines.line(format!("if (p >= {}) return;", frame::print_extent(scope, &points)?));
    frame::decompose(&mut lines, scope, "p", &[outer.as_slice(), &cells].concat(), &space)?;
    window(&mut lines, scope, anchor, &outer, &cells)?;
    let slots = vec!["value".to_owned(), "place".to_owned()];
    let out = BodyPrinter::new(scope, &space, [outer, cells].concat(), slots);
    out.print_stores(&anchor.epilogue.body, &anchor.epilogue.stores, &mut lines)?;
    lines.close("}");
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [points.ceil_div(&Dim::Const(i64::from(THREADS))), Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!("{THREADS} threads, one window a thread"),
        predicted_ns: schedule::memory_bound_ns(request.device, frame::buffer_bytes(scope)),
    };
    Ok(Emitted {
        family: "pool",
        skeletons: Vec::new(),
        text: lines.finish(),
        entries: vec![entry],
    })
}

/// The loops over the window; leaves `value` and, for the largest, `at`.
fn window(
    lines: &mut Lines,
    scope: &Scope<'_>,
    anchor: &Pool,
    outer: &[String],
    cells: &[String],
) -> Result<(), PrintError> {
    let ty = scope.index_type();
    let dtype = anchor.input.body.dtype(anchor.input.value);
    let value = value_type(dtype);
    let is_max = anchor.op == ReduceOp::Max;
    let start = if is_max { format!("lowest<{value}>()") } else { "0".to_owned() };
    lines.line(format!("{value} value = {start};"));
    if is_max {
        lines.line("i64 place = -1;");
    }
    lines.line(format!("{ty} count = 0;"));
    let rank = anchor.kernel.len();
    for (d, cell) in cells.iter().enumerate().take(rank) {
        let (window, stride, dilation) = (anchor.kernel[d], anchor.stride[d], anchor.dilation[d]);
        let pad = frame::print_extent_factor(scope, &anchor.pad_low[d])?;
        let extent = frame::print_extent_factor(scope, &anchor.in_spatial[d])?;
        let high = frame::print_extent_factor(scope, &anchor.pad_high[d])?;
        lines.open(format!("for ({ty} t{d} = 0; t{d} < {window}; t{d}++) {{"));
        lines.line(format!("const {ty} at{d} = {cell} * {stride} + t{d} * {dilation} - {pad};"));
        if anchor.divisor == PoolDivisor::PaddedCount {
            lines.line(format!("if (at{d} >= {extent} + {high}) continue;"));
        } else {
            lines.line(format!("if (at{d} < 0 || at{d} >= {extent}) continue;"));
        }
    }
    lines.line("count += 1;");
    if anchor.divisor == PoolDivisor::PaddedCount {
        let outside: Vec<String> = (0..rank)
            .map(|d| {
                Ok(format!(
                    "at{d} < 0 || at{d} >= {}",
                    frame::print_extent_factor(scope, &anchor.in_spatial[d])?
                ))
            })
            .collect::<Result<_, PrintError>>()?;
        lines.line(format!("if ({}) continue;", outside.join(" || ")));
    }
    // A coordinate of an axis of one cell is zero wherever it is inside.
    let coordinates = (0..rank).map(|d| format!("at{d}"));
    let axes = outer.iter().cloned().chain(coordinates).collect();
    let printer = BodyPrinter::new(
        scope,
        &[anchor.outer.as_slice(), &anchor.in_spatial].concat(),
        axes,
        Vec::new(),
    );
    let element = printer.print(&anchor.input.body, &[anchor.input.value], lines)?;
    let element = &element[&anchor.input.value];
    if is_max {
        let mut flat = "0".to_owned();
        for d in 0..rank {
            flat = format!(
                "({flat}) * {} + at{d}",
                frame::print_extent_factor(scope, &anchor.in_spatial[d])?
            );
        }
        lines.line(format!("const {value} element = {element};"));
        lines.line("if (place < 0 || is_above(element, value)) {");
        lines.line("  value = element;");
        lines.line(format!("  place = {flat};"));
        lines.line("}");
    } else {
        lines.line(format!("value += {element};"));
    }
    for _ in 0..rank {
        lines.close("}");
    }
    if anchor.divisor != PoolDivisor::One && dtype != DType::Bool {
        lines.line(format!("value = op::div(value, ({value})count);"));
    }
    Ok(())
}
