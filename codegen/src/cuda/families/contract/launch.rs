//! Launches of tiled contractions: tile constants, grid, tickets and partial sums, the entry's text.

use tgc_ir::{DType, Dim};

use crate::cuda::emit::Entry;
use crate::cuda::families::frame;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::value_type;
use crate::schedule::tiles::Choice;

/// Blocks, workspace and name of a tiled launch.
pub(super) fn tiled_entry(
    name: &str,
    [groups, rows, columns]: [&Dim; 3],
    choice: &Choice,
    sum: DType,
    configuration: String,
) -> Entry {
    let tile = &choice.tile;
    let across = |extent: &Dim, by: i64| extent.ceil_div(&Dim::Const(by));
    let places = groups.clone() * across(rows, tile.m) * across(columns, tile.n);
    let sums = groups.clone()
        * rows.clone()
        * columns.clone()
        * Dim::Const(choice.splits * sum.bytes().unwrap_or(4) as i64);
    let workspace = if choice.splits > 1 { ticket_bytes(&places) + sums } else { Dim::ZERO };
    Entry {
        guard: Vec::new(),
        name: name.to_owned(),
        grid: [places * Dim::Const(choice.splits), Dim::ONE, Dim::ONE],
        block: [tile.threads() as u32, 1, 1],
        shared_bytes: Dim::ZERO,
        workspace_bytes: workspace,
        configuration,
        predicted_ns: choice.predicted_ns,
    }
}

/// Bytes of one ticket per place, rounded up so that the sums behind them are aligned.
fn ticket_bytes(places: &Dim) -> Dim {
    (places.clone() * Dim::Const(4)).ceil_div(&Dim::Const(16)) * Dim::Const(16)
}

/// The entry that fills the slots and calls `call`, with tickets and partial sums where k is split.
pub(super) fn print_entry(
    lines: &mut Lines,
    scope: &Scope<'_>,
    sum: DType,
    entry: &Entry,
    splits: i64,
    call: &str,
) -> Result<(), PrintError> {
    frame::open_entry(lines, scope, &entry.name, entry.block[0], splits > 1);
    lines.line(frame::slots_value(scope, &format!("{}_slots", scope.program.name)));
    if splits > 1 {
        let places = entry.grid[0].floor_div(&Dim::Const(splits));
        let bytes = frame::print_extent(scope, &ticket_bytes(&places))?;
        lines.line("u32 *const tickets = (u32 *)workspace;");
        lines.line(format!(
            "{0} *const partial = ({0} *)((char *)workspace + {bytes});",
            value_type(sum)
        ));
    } else {
        lines.line("u32 *const tickets = nullptr;");
        lines.line(format!("{} *const partial = nullptr;", value_type(sum)));
    }
    lines.line(format!("{call}(slots, partial, tickets);"));
    lines.close("}");
    Ok(())
}

/// The tile constants of a tensor-core kernel.
pub(super) fn tile_struct(name: &str, choice: &Choice) -> String {
    let tile = &choice.tile;
    format!(
        "struct {name}_tile {{ static const int M = {}, N = {}, K = {}, WARP_M = {}, WARP_N = {}, STAGES = {}, SPLITS = {}; }};",
        tile.m, tile.n, tile.k, tile.warp_m, tile.warp_n, tile.stages, choice.splits
    )
}

/// A tile in words.
pub(super) fn describe(choice: &Choice) -> String {
    let tile = &choice.tile;
    let split =
        if choice.splits > 1 { format!(", k in {} runs", choice.splits) } else { String::new() };
    format!("{}x{}x{} tiles, {} stages{split}", tile.m, tile.n, tile.k, tile.stages)
}

/// The tile constants of a plain kernel.
pub(super) fn plain_tile_struct(name: &str, choice: &Choice) -> String {
    let tile = &choice.tile;
    format!(
        "struct {name}_tile {{ static const int M = {}, N = {}, K = {}, PER_M = {}, PER_N = {}, SPLITS = {}; }};",
        tile.m, tile.n, tile.k, tile.warp_m, tile.warp_n, choice.splits
    )
}

/// The launch of a plain kernel.
pub(super) fn plain_entry(name: &str, space: [&Dim; 3], choice: &Choice, sum: DType) -> Entry {
    let tile = &choice.tile;
    let split =
        if choice.splits > 1 { format!(", k in {} runs", choice.splits) } else { String::new() };
    let configuration = format!("plain cores, {}x{}x{} tiles{split}", tile.m, tile.n, tile.k);
    let mut entry = tiled_entry(name, space, choice, sum, configuration);
    entry.block[0] = ((tile.m / tile.warp_m) * (tile.n / tile.warp_n)) as u32;
    entry
}
