//! What the text of every family shares: signatures, axis decomposition, vector widths, traffic estimates.

use tgc_ir::kernel_program::{Access, Body, Guard, InstKind, Load, Store, axis_symbol};
use tgc_ir::{Dim, Facts};

use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::schedule::typical;

/// Opens an entry point: attributes, arguments in launch order, shape symbols.
pub(super) fn open_entry(
    lines: &mut Lines,
    scope: &Scope<'_>,
    name: &str,
    threads: u32,
    workspace: bool,
) {
    lines.line(format!("extern \"C\" __global__ void __launch_bounds__({threads}, 1)"));
    let mut arguments = vec!["const i64 *__restrict__ sym".to_owned()];
    arguments.extend(scope.buffer_arguments().into_iter().map(|(ty, name)| format!("{ty}{name}")));
    if workspace {
        arguments.push("void *workspace".to_owned());
    }
    lines.open(format!("{name}({}) {{", arguments.join(", ")));
    scope.symbol_lines().into_iter().for_each(|line| lines.line(line));
}

/// Names `letter0…` of axes; an axis of extent one is the constant `0`.
pub(super) fn axis_names(letter: &str, extents: &[Dim]) -> Vec<String> {
    let name = |(n, extent): (usize, &Dim)| {
        if extent.is(1) { "0".to_owned() } else { format!("{letter}{n}") }
    };
    extents.iter().enumerate().map(name).collect()
}

/// Prints an extent expression without axes.
pub(super) fn print_extent(scope: &Scope<'_>, dim: &Dim) -> Result<String, PrintError> {
    let none = std::collections::BTreeMap::new();
    let axes = Vec::new();
    crate::cuda::print::index::IndexPrinter::new(scope, scope.facts(), &axes, &none).print(dim)
}

/// Prints an extent in parentheses where it is a factor.
pub(super) fn print_extent_factor(scope: &Scope<'_>, dim: &Dim) -> Result<String, PrintError> {
    let none = std::collections::BTreeMap::new();
    let axes = Vec::new();
    let printer = crate::cuda::print::index::IndexPrinter::new(scope, scope.facts(), &axes, &none);
    printer.print_factor(dim)
}

/// Splits the flat index `flat` into axes of given extents, last axis fastest; axes called `0` are skipped.
pub(super) fn decompose(
    lines: &mut Lines,
    scope: &Scope<'_>,
    flat: &str,
    axes: &[String],
    extents: &[Dim],
) -> Result<(), PrintError> {
    let ty = scope.index_type();
    let live: Vec<usize> = (0..axes.len()).filter(|&n| axes[n] != "0").collect();
    let mut rest = flat.to_owned();
    for (place, &n) in live.iter().enumerate().rev() {
        let extent = print_extent_factor(scope, &extents[n])?;
        if place == 0 {
            lines.line(format!("const {ty} {} = {rest};", axes[n]));
            break;
        }
        let next = if place == 1 { axes[live[0]].clone() } else { format!("{}_up", axes[n]) };
        if scope.is_wide() {
            lines.line(format!("const {ty} {next} = index_div({rest}, {extent});"));
            lines.line(format!("const {ty} {} = {rest} - {next} * {extent};", axes[n]));
        } else {
            lines.line(format!("const {ty} {next} = {rest} / {extent};"));
            lines.line(format!("const {ty} {} = {rest} - {next} * {extent};", axes[n]));
        }
        if place == 1 {
            break;
        }
        rest = next;
    }
    Ok(())
}

/// How an access runs along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// The element does not depend on the axis.
    Same,
    /// Neighbours along the axis are neighbours in memory, and `width` of them start aligned.
    Packed,
    /// Anything else.
    Scattered,
}

/// How the offset of an access runs along `axis` in steps of `width` elements.
pub(super) fn run_along(facts: &Facts, offset: &Dim, axis: usize, width: i64) -> Run {
    match offset.linear_in(&axis_symbol(axis)) {
        Some((by, _)) if by.is(0) => Run::Same,
        Some((by, rest)) if by.is(1) && aligned(facts, &rest, width) => Run::Packed,
        _ => Run::Scattered,
    }
}

/// True when every value of an offset, axes included, is a multiple of `width`.
pub(super) fn aligned(facts: &Facts, offset: &Dim, width: i64) -> bool {
    facts.divisible(offset, width).is_yes()
}

/// Every load of a body with its instruction.
pub(super) fn loads(body: &Body) -> impl Iterator<Item = (u32, &Load)> {
    body.insts.iter().enumerate().filter_map(|(at, inst)| match &inst.kind {
        InstKind::Load(load) => Some((at as u32, load)),
        _ => None,
    })
}

/// True when any index expression of the load's guards mentions the axis.
pub(super) fn guards_mention(load: &Load, axis: usize) -> bool {
    let symbol = axis_symbol(axis);
    load.guards.iter().any(|guard| guard.value.mentions(&symbol) || guard.below.mentions(&symbol))
}

/// True when an offset depends on results of the body.
pub(super) fn depends_on_values(offset: &Dim) -> bool {
    offset.symbols().iter().any(|symbol| tgc_ir::kernel_program::as_value(symbol).is_some())
}

/// Declares packs of `width` elements for the loads that run along `axis`, and returns the element of each
/// by lane as what is known about them.
pub(super) fn load_packs(
    lines: &mut Lines,
    printer: &BodyPrinter<'_>,
    body: &Body,
    only: &dyn Fn(u32) -> bool,
    axis: usize,
    width: i64,
) -> Result<Vec<(u32, String)>, PrintError> {
    let mut known = Vec::new();
    let none = std::collections::BTreeMap::new();
    for (at, load) in loads(body).filter(|(at, _)| only(*at)) {
        let offset = printer.offset(load.buffer, &load.index)?;
        let is_packed = run_along(&printer.facts, &offset, axis, width) == Run::Packed;
        if !is_packed || !load.guards.is_empty() || depends_on_values(&offset) {
            continue;
        }
        let buffer = &printer.scope.program.buffers[load.buffer as usize];
        let stored = crate::cuda::print::storage_type(buffer.dtype).unwrap_or("u8");
        let place = printer.index(&none).print(&offset)?;
        let name = printer.scope.buffer_name(load.buffer);
        lines.line(format!(
            "const pack<{stored}, {width}> p{at} = load_pack<{stored}, {width}>({name} + {place});"
        ));
        known.push((
            at,
            crate::cuda::print::scalar::loaded(&format!("p{at}.at[lane]"), buffer.dtype),
        ));
    }
    Ok(known)
}

/// Bytes that a program moves when every buffer is read or written once, at typical sizes.
pub(super) fn buffer_bytes(scope: &Scope<'_>) -> f64 {
    let one = |buffer: &tgc_ir::kernel_program::Buffer| {
        let elements: f64 =
            buffer.shape.iter().map(|extent| typical(scope.facts(), extent)).product();
        let times = if buffer.access == Access::ReadWrite { 2.0 } else { 1.0 };
        elements * times * f64::from(buffer.dtype.bits()) / 8.0
    };
    scope.program.buffers.iter().map(one).sum()
}

/// True when every access of a body and of its stores walks `outer` and `inner` as one axis, so that they
/// may be merged: the outer step is the inner step times the inner extent, and nothing else names them.
pub(super) fn walks_as_one(
    printer: &BodyPrinter<'_>,
    body: &Body,
    stores: &[Store],
    (outer, inner): (usize, usize),
    inner_extent: &Dim,
) -> Result<bool, PrintError> {
    let mentions =
        |dim: &Dim| dim.mentions(&axis_symbol(outer)) || dim.mentions(&axis_symbol(inner));
    let is_named = body.insts.iter().any(|inst| match &inst.kind {
        InstKind::Index(dim) => mentions(dim),
        InstKind::Load(load) => {
            load.guards.iter().any(|g| mentions(&g.value) || mentions(&g.below))
        }
        _ => false,
    });
    if is_named {
        return Ok(false);
    }
    let accesses = loads(body).map(|(_, load)| (load.buffer, &load.index));
    for (buffer, index) in accesses.chain(stores.iter().map(|store| (store.buffer, &store.index))) {
        let offset = printer.offset(buffer, index)?;
        let steps = (offset.linear_in(&axis_symbol(outer)), offset.linear_in(&axis_symbol(inner)));
        let (Some((by_outer, _)), Some((by_inner, _))) = steps else { return Ok(false) };
        if by_outer != by_inner * inner_extent.clone() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The last axis of a range whose extent is not one.
pub(super) fn last_live(extents: &[Dim], range: std::ops::Range<usize>) -> Option<usize> {
    range.rev().find(|&n| !extents[n].is(1))
}

/// A body of a structured anchor: which parts of the anchor's space its axes are, in order.
pub(super) struct Slot<'a> {
    /// The code.
    pub(super) body: &'a Body,
    /// Conditions over its axes.
    pub(super) guards: &'a [Guard],
    /// What it stores.
    pub(super) stores: &'a [Store],
    /// Indices of parts.
    pub(super) parts: Vec<usize>,
}

impl Slot<'_> {
    /// Extents of the body's axes.
    fn extents(&self, parts: &[Vec<Dim>]) -> Vec<Dim> {
        self.parts.iter().flat_map(|&part| parts[part].iter().cloned()).collect()
    }

    /// Position of the first axis of a part in the body.
    fn start(&self, parts: &[Vec<Dim>], part: usize) -> Option<usize> {
        let place = self.parts.iter().position(|&other| other == part)?;
        Some(self.parts[..place].iter().map(|&before| parts[before].len()).sum())
    }
}

/// Merges neighbouring axes of every part that all bodies walk as one: the outer extent becomes one.
pub(super) fn merge_parts(
    scope: &Scope<'_>,
    parts: &mut [Vec<Dim>],
    slots: &[Slot<'_>],
) -> Result<(), PrintError> {
    for part in 0..parts.len() {
        for outer in (0..parts[part].len().saturating_sub(1)).rev() {
            let later = outer + 1..parts[part].len();
            let Some(inner) = later.into_iter().find(|&n| !parts[part][n].is(1)) else { continue };
            if parts[part][outer].is(1) {
                continue;
            }
            let mut merges = true;
            for slot in slots {
                let Some(start) = slot.start(parts, part) else { continue };
                let extents = slot.extents(parts);
                let printer =
                    BodyPrinter::new(scope, &extents, axis_names("i", &extents), Vec::new());
                let pair = (start + outer, start + inner);
                merges &= !slot.guards.iter().any(|guard| {
                    [pair.0, pair.1].iter().any(|&n| guard.value.mentions(&axis_symbol(n)))
                });
                merges &=
                    walks_as_one(&printer, slot.body, slot.stores, pair, &parts[part][inner])?;
            }
            if merges {
                parts[part][inner] = parts[part][outer].clone() * parts[part][inner].clone();
                parts[part][outer] = Dim::ONE;
            }
        }
    }
    Ok(())
}

/// Opens the struct that holds a kernel's arguments and slot functions.
pub(super) fn open_slots(lines: &mut Lines, scope: &Scope<'_>, name: &str) {
    lines.open(format!("struct {name} {{"));
    for (ty, name) in scope.buffer_arguments() {
        lines.line(format!("{ty}{name};"));
    }
    for name in scope.symbol_names() {
        lines.line(format!("{} {name};", scope.index_type()));
    }
}

/// The expression that makes a slots struct from the entry's arguments.
pub(super) fn slots_value(scope: &Scope<'_>, name: &str) -> String {
    let buffers = scope.buffer_arguments().into_iter().map(|(_, name)| name);
    let symbols = scope.symbol_names().into_iter().map(str::to_owned);
    let members: Vec<String> = buffers.chain(symbols).collect();
    format!("const {name} slots{{{}}};", members.join(", "))
}

/// A member function that returns an extent.
pub(super) fn extent_function(
    lines: &mut Lines,
    scope: &Scope<'_>,
    name: &str,
    extent: &Dim,
) -> Result<(), PrintError> {
    lines.line(format!("DEVICE i64 {name}() const {{ return {}; }}", print_extent(scope, extent)?));
    Ok(())
}
