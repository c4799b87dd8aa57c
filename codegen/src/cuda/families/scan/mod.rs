//! Family `scan`: running values along the last axis, one warp a row, 32 elements at a time.

use tgc_ir::kernel_program::{ReduceOp, Scan};
use tgc_ir::{DType, Dim};

use super::frame;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule;

const THREADS: u32 = 128;
const ROWS: i64 = 4;

/// Functor and neutral element of a running reduction.
fn reduction(
    scope: &Scope<'_>,
    op: ReduceOp,
    acc: DType,
) -> Result<(&'static str, String), PrintError> {
    let ty = value_type(acc);
    Ok(match op {
        ReduceOp::Sum => ("sum_of()", format!("({ty})0")),
        ReduceOp::Prod => ("product_of()", format!("({ty})1")),
        ReduceOp::Max => ("maximum_of()", format!("lowest<{ty}>()")),
        ReduceOp::Min => ("minimum_of()", format!("highest<{ty}>()")),
        other => return Err(scope.malformed(format!("a running {}", other.name()))),
    })
}

/// Emits a scan.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Scan,
) -> Result<Emitted, PrintError> {
    let name = &scope.program.name;
    let ty = scope.index_type();
    let (functor, neutral) = reduction(scope, anchor.op, anchor.acc)?;
    let acc = value_type(anchor.acc);
    let rows = Dim::product(&anchor.outer);
    let mut axes = frame::axis_names("r", &anchor.outer);
    let mut lines = Lines::default();
    frame::open_entry(&mut lines, scope, name, THREADS, false);
    lines.line(format!("const {ty} row = blockIdx.x * ({ty}){ROWS} + threadIdx.x / 32;"));
    lines.line("const int lane = threadIdx.x % 32;");
    lines.line(format!("if (row >= {}) return;", frame::print_extent(scope, &rows)?));
    frame::decompose(&mut lines, scope, "row", &axes, &anchor.outer)?;
    let length = frame::print_extent(scope, &anchor.extent)?;
    lines.line(format!("const {ty} length = {length};"));
    lines.line(format!("{acc} carried = {neutral};"));
    lines.open(format!("for ({ty} first = 0; first < length; first += 32) {{"));
    let place = if anchor.reverse { "length - 1 - first - lane" } else { "first + lane" };
    lines.line(format!("const {ty} i = {place};"));
    lines.line("const bool inside = first + lane < length;");
    axes.push("i".to_owned());
    let extents = [anchor.outer.as_slice(), std::slice::from_ref(&anchor.extent)].concat();
    let input = BodyPrinter::new(scope, &extents, axes.clone(), Vec::new());
    lines.line(format!("{acc} running = {neutral};"));
    lines.open("if (inside) {");
    let element = input.print(&anchor.input.body, &[anchor.input.value], &mut lines)?;
    lines.line(format!("running = ({acc})({});", element[&anchor.input.value]));
    lines.close("}");
    lines.line("#pragma unroll");
    lines.open("for (int step = 1; step < 32; step *= 2) {");
    lines.line(format!("const {acc} before = shuffle_up(running, step);"));
    lines.line(format!("if (lane >= step) running = {functor}(before, running);"));
    lines.close("}");
    lines.line(format!("running = {functor}(carried, running);"));
    if anchor.exclusive {
        lines.line(format!("const {acc} before = shuffle_up(running, 1);"));
        lines.line(format!("const {acc} value = lane == 0 ? carried : before;"));
    } else {
        lines.line(format!("const {acc} value = running;"));
    }
    lines.line("carried = shuffle_from(running, 31);");
    lines.open("if (inside) {");
    let mut out = BodyPrinter::new(scope, &extents, axes, vec!["value".to_owned()]);
    out.prefix = "e";
    out.print_stores(&anchor.epilogue.body, &anchor.epilogue.stores, &mut lines)?;
    lines.close("}");
    lines.close("}");
    lines.close("}");
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [rows.ceil_div(&Dim::Const(ROWS)), Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: "a row is one warp, 32 elements at a time".to_owned(),
        predicted_ns: schedule::memory_bound_ns(request.device, frame::buffer_bytes(scope)),
    };
    Ok(Emitted {
        family: "scan",
        skeletons: Vec::new(),
        text: lines.finish(),
        entries: vec![entry],
    })
}
