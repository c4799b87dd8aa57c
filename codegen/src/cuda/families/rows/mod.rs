//! Family `rows`: reductions over the inner axes of every row, with code before, between and after.
//!
//! A row belongs to one thread, one warp or one block; which one depends on extents and strides alone,
//! so a row's bits do not depend on how many rows there are. Short rows of known length keep what later
//! passes need in registers; other rows are read again in each pass (`passes`).

mod passes;
mod text;

use tgc_ir::Dim;
use tgc_ir::kernel_program::{Rows, axis_symbol};

use passes::Passes;

use super::frame;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::schedule;

/// Who works on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Team {
    /// One thread; neighbouring threads have neighbouring rows.
    Thread,
    /// One warp.
    Warp,
    /// One block of this many threads.
    Block(u32),
}

impl Team {
    /// Threads that share a row.
    fn lanes(self) -> u32 {
        match self {
            Team::Thread => 1,
            Team::Warp => 32,
            Team::Block(threads) => threads,
        }
    }

    /// Threads of a block.
    fn threads(self) -> u32 {
        match self {
            Team::Thread => 128,
            Team::Warp => 256,
            Team::Block(threads) => threads,
        }
    }

    /// Rows of a block.
    fn rows(self) -> u32 {
        self.threads() / self.lanes()
    }
}

/// How the elements of a row are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deal {
    /// Who works on a row.
    team: Team,
    /// Elements that a thread reads at once.
    width: i64,
    /// Vectors per thread when the row is held in registers; `None` when it is read again in each pass.
    held: Option<i64>,
}

/// Longest row that one thread takes although its elements are neighbours.
const THREAD_ROW: i64 = 8;
/// Longest row that one warp takes.
const WARP_ROW: i64 = 512;
/// Elements that a thread holds in registers.
const HELD_ELEMENTS: i64 = 16;

/// Emits a row kernel.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Rows,
) -> Result<Emitted, PrintError> {
    let extents: Vec<Dim> = anchor.outer.iter().chain(&anchor.inner).cloned().collect();
    let mut axes = frame::axis_names("r", &anchor.outer);
    axes.extend(frame::axis_names("i", &anchor.inner));
    let printer = BodyPrinter::new(scope, &extents, axes, Vec::new());
    let passes = Passes::of(anchor);
    let deal = choose(&printer, anchor, &passes)?;
    let text = text::print(&printer, anchor, &passes, deal)?;
    let rows = Dim::product(&anchor.outer).ceil_div(&Dim::Const(i64::from(deal.team.rows())));
    let held = if deal.held.is_some() { "held in registers" } else { "read in each pass" };
    let who = match deal.team {
        Team::Thread => "one thread".to_owned(),
        Team::Warp => "one warp".to_owned(),
        Team::Block(threads) => format!("{threads} threads"),
    };
    let entry = Entry {
        guard: Vec::new(),
        name: scope.program.name.clone(),
        grid: [rows, Dim::ONE, Dim::ONE],
        block: [deal.team.threads(), 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: Dim::ZERO,
        configuration: format!("a row is {who}, {} elements at once, {held}", deal.width),
        predicted_ns: schedule::memory_bound_ns(request.device, frame::buffer_bytes(scope)),
    };
    Ok(Emitted { family: "rows", skeletons: Vec::new(), text, entries: vec![entry] })
}

/// The deal for this anchor; extents of the row and strides decide, the number of rows does not.
fn choose(printer: &BodyPrinter<'_>, anchor: &Rows, passes: &Passes) -> Result<Deal, PrintError> {
    let length = Dim::product(&anchor.inner).as_const();
    let is_tiny = length.is_some_and(|length| length <= THREAD_ROW);
    if is_tiny || (runs_across_rows(printer, anchor)? && length.is_none_or(|length| length <= 4096))
    {
        return Ok(Deal { team: Team::Thread, width: 1, held: None });
    }
    let width = row_width(printer, anchor, passes)?;
    let Some(length) = length else {
        return Ok(Deal { team: Team::Block(256), width, held: None });
    };
    let vectors = (length + width - 1) / width;
    let team = match length {
        0..=WARP_ROW => Team::Warp,
        _ if length <= 2048 => Team::Block(128),
        _ if length <= 4096 => Team::Block(256),
        _ => Team::Block(512),
    };
    let each = (vectors + i64::from(team.lanes()) - 1) / i64::from(team.lanes());
    let held = (each * width <= HELD_ELEMENTS && each > 0).then_some(each);
    Ok(Deal { team, width, held })
}

/// True when neighbouring rows, not neighbouring elements, are neighbours in memory in some load.
fn runs_across_rows(printer: &BodyPrinter<'_>, anchor: &Rows) -> Result<bool, PrintError> {
    let live = |extents: &[Dim]| extents.iter().rposition(|extent| !extent.is(1));
    let (Some(row_axis), Some(inner)) = (live(&anchor.outer), live(&anchor.inner)) else {
        return Ok(false);
    };
    let element_axis = anchor.outer.len() + inner;
    let mut across = false;
    for (_, load) in frame::loads(&anchor.epilogue.body) {
        let offset = printer.offset(load.buffer, &load.index)?;
        let by = |axis: usize| offset.linear_in(&axis_symbol(axis)).map(|(by, _)| by);
        match (by(row_axis), by(element_axis)) {
            (_, Some(by)) if by.is(1) => return Ok(false),
            (Some(row), Some(element)) if row.is(1) && !element.is(0) => across = true,
            _ => {}
        }
    }
    Ok(across)
}

/// The widest vector along the last inner axis that every packed load and store allows.
fn row_width(printer: &BodyPrinter<'_>, anchor: &Rows, passes: &Passes) -> Result<i64, PrintError> {
    let Some(extent) = anchor.inner.last() else { return Ok(1) };
    let axis = anchor.outer.len() + anchor.inner.len() - 1;
    let program = printer.scope.program;
    let bytes =
        program.buffers.iter().filter_map(|buffer| buffer.dtype.bytes()).max().unwrap_or(16);
    let mut width = (16 / bytes.max(1)).min(8) as i64;
    while width > 1 {
        if printer.facts.divisible(extent, width).is_yes()
            && allows(printer, anchor, passes, axis, width)?
        {
            return Ok(width);
        }
        width /= 2;
    }
    Ok(1)
}

fn allows(
    printer: &BodyPrinter<'_>,
    anchor: &Rows,
    passes: &Passes,
    axis: usize,
    width: i64,
) -> Result<bool, PrintError> {
    for &n in &passes.split_stores(anchor).0 {
        let store = &anchor.epilogue.stores[n];
        let offset = printer.offset(store.buffer, &store.index)?;
        let run = frame::run_along(&printer.facts, &offset, axis, width);
        if run != frame::Run::Packed || frame::depends_on_values(&offset) {
            return Ok(false);
        }
    }
    for (_, load) in frame::loads(&anchor.epilogue.body) {
        let offset = printer.offset(load.buffer, &load.index)?;
        if frame::run_along(&printer.facts, &offset, axis, width) == frame::Run::Scattered {
            return Ok(false);
        }
    }
    Ok(true)
}
