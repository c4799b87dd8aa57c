//! What emission gives for one kernel program: text, entries and how to launch them.
//!
//! Knows families by their one function each; knows no plan layout beyond the variants it fills.

use tgc_ir::device_table::Device;
use tgc_ir::facts::Require;
use tgc_ir::kernel_program::KernelProgram;
use tgc_ir::{Dim, Facts, Symbol};

use super::print::lines::Lines;
use super::print::scope::{PrintError, Scope};
use super::families;

/// What emission needs besides the program.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Bounds and constraints of shape symbols.
    pub facts: &'a Facts,
    /// Symbols in the order of the run-time table, the kernel's first argument.
    pub symbols: &'a [Symbol],
    /// The GPU whose figures choose tiles.
    pub device: &'a Device,
    /// ONNX nodes and rules, for the header comment.
    pub provenance: &'a [String],
}

/// One entry point of an emitted kernel with its launch, in the terms of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// All must hold under the bound symbols; empty for the last entry.
    pub guard: Vec<Require>,
    /// Entry name.
    pub name: String,
    /// Blocks. A launch must not be made when one of them is zero.
    pub grid: [Dim; 3],
    /// Threads per block.
    pub block: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: Dim,
    /// Zeroed scratch, the last argument; zero means that there is no such argument.
    pub workspace_bytes: Dim,
    /// For people and the tuning file: `128x128x32 4 stages`.
    pub configuration: String,
    /// Predicted time at the typical values of the symbols, nanoseconds.
    pub predicted_ns: u64,
}

/// The emitted text of a kernel program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Family name.
    pub family: &'static str,
    /// Skeletons that the text includes, by header name, in order.
    pub skeletons: Vec<&'static str>,
    /// The kernel's own text: header comment, slots, entries.
    pub text: String,
    /// Entries in the order of the launch's variants.
    pub entries: Vec<Entry>,
}

/// Emits a kernel program for one device.
///
/// # Errors
/// [`PrintError`] when the program is malformed or needs what cuda does not have.
pub fn emit(program: &KernelProgram, request: &Request<'_>) -> Result<Emitted, PrintError> {
    let scope = Scope::new(program, request.facts, request.symbols)?;
    let mut emitted = families::emit(&scope, request)?;
    let mut lines = Lines::default();
    header(&mut lines, program, request, &emitted);
    lines.text(&emitted.text);
    emitted.text = lines.finish();
    Ok(emitted)
}

/// The header comment: what the kernel is, where it comes from, what it reads and writes, how it is cut.
fn header(lines: &mut Lines, program: &KernelProgram, request: &Request<'_>, emitted: &Emitted) {
    lines.line(format!("// {} ({})", program.name, emitted.family));
    for origin in request.provenance {
        lines.line(format!("//   from {}", origin.replace(['\n', '\r'], " ")));
    }
    let scope_names = Scope::new(program, request.facts, request.symbols).ok();
    for (n, buffer) in program.buffers.iter().enumerate() {
        let name = scope_names.as_ref().map_or_else(|| format!("{n}"), |scope| scope.buffer_name(n as u32));
        let ty = tgc_ir::TensorType::new(buffer.dtype, buffer.shape.iter().cloned());
        let dense = Buffer::is_dense(buffer);
        let strides = if dense { String::new() } else { format!(", strides {}", tgc_ir::types::DisplayDims(&buffer.strides)) };
        lines.line(format!("//   {name}: {ty}{strides}"));
    }
    for entry in &emitted.entries {
        let us = entry.predicted_ns as f64 / 1000.0;
        lines.line(format!("//   {}: {}; {us:.1} us predicted on {}", entry.name, entry.configuration, request.device.name));
    }
}

/// Density of a buffer, for people.
struct Buffer;

impl Buffer {
    fn is_dense(buffer: &tgc_ir::kernel_program::Buffer) -> bool {
        tgc_ir::kernel_program::Buffer::dense_strides(&buffer.shape) == buffer.strides
    }
}
