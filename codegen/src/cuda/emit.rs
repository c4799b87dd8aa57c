//! What emission gives for one kernel program: text, entries and how to launch them.
//!
//! Knows families by their one function each; knows no plan layout beyond the variants it fills.

use tgc_ir::device_table::Device;
use tgc_ir::facts::{Bounds, Relation, Require};
use tgc_ir::kernel_program::{Anchor, Buffer, KernelProgram};
use tgc_ir::plan::Variant;
use tgc_ir::types::DisplayDims;
use tgc_ir::{Dim, Facts, Symbol, TensorType};

use super::families;
use super::print::lines::Lines;
use super::print::scope::{PrintError, Scope};
use crate::schedule::tuning::TuningRecord;

/// Elements of the widest access, 16 bytes of a half type.
const ALIGNED: i64 = 8;

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
    /// Which of the ranked tile choices to take, 0 the best; families without a choice ignore it.
    pub candidate: usize,
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

impl Entry {
    /// The launch in the plan's terms.
    pub fn variant(&self) -> Variant {
        Variant {
            guard: self.guard.clone(),
            entry: self.name.clone(),
            grid: self.grid.clone(),
            block: self.block,
            shared_bytes: self.shared_bytes.clone(),
            workspace_bytes: self.workspace_bytes.clone(),
        }
    }
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

impl Emitted {
    /// The launch's variants, in order.
    pub fn variants(&self) -> Vec<Variant> {
        self.entries.iter().map(Entry::variant).collect()
    }

    /// Predicted times for the tuning file; `key` identifies the work.
    pub fn records(&self, device: &Device, key: &str) -> Vec<TuningRecord> {
        let record = |entry: &Entry| TuningRecord {
            device: device.name.to_owned(),
            family: self.family.to_owned(),
            key: key.to_owned(),
            configuration: entry.configuration.clone(),
            predicted_ns: entry.predicted_ns,
            measured_ns: None,
        };
        self.entries.iter().map(record).collect()
    }
}

/// Emits a kernel program for one device.
///
/// Contractions and attention over symbolic extents get a second entry for extents that are multiples of
/// eight, when that allows wider accesses; both entries do the same arithmetic in the same order.
///
/// # Errors
/// [`PrintError`] when the program is malformed or needs what cuda does not have.
pub fn emit(program: &KernelProgram, request: &Request<'_>) -> Result<Emitted, PrintError> {
    let mut emitted = emit_under(program, request)?;
    if matches!(program.anchor, Anchor::Contract(_) | Anchor::Attend(_))
        && let Some((aligned, guard)) = aligned_form(program, request, &emitted)?
    {
        let guarded =
            aligned.entries.into_iter().map(|entry| Entry { guard: guard.clone(), ..entry });
        emitted.entries.splice(0..0, guarded);
        emitted.text = format!("{}\n{}", aligned.text, emitted.text);
    }
    Ok(emitted)
}

/// The text under the request's own facts.
fn emit_under(program: &KernelProgram, request: &Request<'_>) -> Result<Emitted, PrintError> {
    let scope = Scope::new(program, request.facts, request.symbols)?;
    let mut emitted = families::emit(&scope, request)?;
    let mut lines = Lines::default();
    header(&mut lines, &scope, request, &emitted);
    lines.text(&emitted.text);
    emitted.text = lines.finish();
    Ok(emitted)
}

/// The form for extents that are multiples of [`ALIGNED`], with the least guard that allows it; `None`
/// when nothing is gained.
fn aligned_form(
    program: &KernelProgram,
    request: &Request<'_>,
    general: &Emitted,
) -> Result<Option<(Emitted, Vec<Require>)>, PrintError> {
    let named = KernelProgram { name: format!("{}_by_{ALIGNED}", program.name), ..program.clone() };
    let under = |symbols: &[Symbol]| -> Result<Emitted, PrintError> {
        let mut facts = request.facts.clone();
        for symbol in symbols {
            let known = facts.bounds_of(symbol).copied().unwrap_or_default();
            facts.bound(symbol.clone(), Bounds { multiple_of: ALIGNED, ..known });
        }
        emit_under(&named, &Request { facts: &facts, ..request.clone() })
    };
    let mut symbols = program.symbols();
    let aligned = under(&symbols)?;
    if symbols.is_empty() || aligned.text == general.text.replace(&program.name, &named.name) {
        return Ok(None);
    }
    for symbol in symbols.clone() {
        let fewer: Vec<Symbol> =
            symbols.iter().filter(|other| **other != symbol).cloned().collect();
        if under(&fewer)?.text == aligned.text {
            symbols = fewer;
        }
    }
    let origin = format!("wide accesses of kernel {}", program.name);
    let require = |symbol: &Symbol| Require {
        lhs: Dim::from(symbol),
        relation: Relation::MultipleOf,
        rhs: Dim::Const(ALIGNED),
        origin: origin.clone(),
    };
    Ok(Some((aligned, symbols.iter().map(require).collect())))
}

/// The header comment: what the kernel is, where it comes from, what it reads and writes, how it is cut.
fn header(lines: &mut Lines, scope: &Scope<'_>, request: &Request<'_>, emitted: &Emitted) {
    let program = scope.program;
    lines.line(format!("// {} ({})", program.name, emitted.family));
    for origin in request.provenance {
        lines.line(format!("//   from {}", origin.replace(['\n', '\r'], " ")));
    }
    for (n, buffer) in program.buffers.iter().enumerate() {
        let name = scope.buffer_name(n as u32);
        let ty = TensorType::new(buffer.dtype, buffer.shape.iter().cloned());
        let is_dense = Buffer::dense_strides(&buffer.shape) == buffer.strides;
        let strides = if is_dense {
            String::new()
        } else {
            format!(", strides {}", DisplayDims(&buffer.strides))
        };
        lines.line(format!("//   {name}: {ty}{strides}"));
    }
    for entry in &emitted.entries {
        let us = entry.predicted_ns as f64 / 1000.0;
        lines.line(format!(
            "//   {}: {}; {us:.1} us predicted on {}",
            entry.name, entry.configuration, request.device.name
        ));
    }
}
