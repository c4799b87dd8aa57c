//! Family `sort`: each element's place is the number of elements before it in the order; one block a row.
//!
//! Quadratic in the row, but in parallel and stable, with no scratch memory.

use tgc_ir::Dim;
use tgc_ir::kernel_program::Sort;

use super::frame;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule::{self, typical};

const THREADS: u32 = 256;

/// Emits a sort or top-k.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Sort,
) -> Result<Emitted, PrintError> {
    let name = &scope.program.name;
    let ty = scope.index_type();
    let value = value_type(anchor.input.body.dtype(anchor.input.value));
    let rows = Dim::product(&anchor.outer);
    let outer = frame::axis_names("r", &anchor.outer);
    let extents = [anchor.outer.as_slice(), std::slice::from_ref(&anchor.extent)].concat();
    let slices = anchor.extent.ceil_div(&Dim::Const(i64::from(THREADS)));
    let mut lines = Lines::default();
    frame::open_entry(&mut lines, scope, name, THREADS, false);
    lines.line(format!("const {ty} slices = {};", frame::print_extent(scope, &slices)?));
    lines.line(format!("const {ty} row = blockIdx.x / slices;"));
    lines.line(format!("const {ty} i = blockIdx.x % slices * {THREADS} + threadIdx.x;"));
    lines.line(format!("const {ty} length = {};", frame::print_extent(scope, &anchor.extent)?));
    frame::decompose(&mut lines, scope, "row", &outer, &anchor.outer)?;
    let element =
        |lines: &mut Lines, axis: &str, prefix: &'static str, to: &str| -> Result<(), PrintError> {
            let axes = outer.iter().cloned().chain([axis.to_owned()]).collect();
            let mut printer = BodyPrinter::new(scope, &extents, axes, Vec::new());
            printer.prefix = prefix;
            let values = printer.print(&anchor.input.body, &[anchor.input.value], lines)?;
            lines.line(format!("{to} = {};", values[&anchor.input.value]));
            Ok(())
        };
    lines.line(format!("__shared__ {value} others[{THREADS}];"));
    lines.line(format!("{value} own = 0;"));
    lines.open("if (i < length) {");
    element(&mut lines, "i", "v", "own")?;
    lines.close("}");
    lines.line(format!("{ty} rank = 0;"));
    lines.open(format!("for ({ty} first = 0; first < length; first += {THREADS}) {{"));
    lines.line("__syncthreads();");
    lines.line(format!("const {ty} j = first + threadIdx.x;"));
    lines.open("if (j < length) {");
    element(&mut lines, "j", "z", "others[threadIdx.x]")?;
    lines.close("}");
    lines.line("__syncthreads();");
    lines.open(format!(
        "for (int other = 0; other < {THREADS} && first + other < length; other++) {{"
    ));
    let precedes = if anchor.largest { "is_above" } else { "is_less" };
    lines.line(format!("const bool before = {precedes}(others[other], own);"));
    lines.line(format!("const bool after = {precedes}(own, others[other]);"));
    lines.line("rank += before || (!after && first + other < i);");
    lines.close("}");
    lines.close("}");
    lines.open(format!(
        "if (i < length && rank < {}) {{",
        frame::print_extent_factor(scope, &anchor.k)?
    ));
    let kept = [anchor.outer.as_slice(), std::slice::from_ref(&anchor.k)].concat();
    let axes = outer.iter().cloned().chain(["rank".to_owned()]).collect();
    let mut out = BodyPrinter::new(scope, &kept, axes, vec!["own".to_owned(), "(i64)i".to_owned()]);
    out.prefix = "e";
    out.print_stores(&anchor.epilogue.body, &anchor.epilogue.stores, &mut lines)?;
    lines.close("}");
    lines.close("}");
    let length = typical(scope.facts(), &anchor.extent);
    let comparisons = typical(scope.facts(), &rows) * length * length;
    let entry = Entry {
        guard: Vec::new(),
        name: name.clone(),
        grid: [rows * slices, Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!("{THREADS} threads count the places of {THREADS} elements"),
        predicted_ns: schedule::roofline_ns(
            request.device,
            frame::buffer_bytes(scope),
            comparisons * 8.0,
            request.device.f32_tflops / 2.0,
        ),
    };
    Ok(Emitted {
        family: "sort",
        skeletons: Vec::new(),
        text: lines.finish(),
        entries: vec![entry],
    })
}
