//! Where everything of one binding lies in an instance's block of device
//! memory. Knows no driver: sizes and offsets are numbers.

use tgc_ir::plan::{Place, Plan};

use super::error::{CudaError, malformed};
use super::launch::Values;
use super::program::{Program, Work};

/// Alignment of parts, as of the driver's own allocations.
const ALIGN: usize = 256;
/// Blocks from here on grow in steps of this, the driver's page.
const PAGE: usize = 2 << 20;

/// Offsets in an instance's block, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of inputs that are copied in; the table of symbols is at zero.
    pub(super) inputs: Vec<usize>,
    /// Of outputs that are copied out.
    pub(super) outputs: Vec<usize>,
    /// First byte of inputs, of outputs, and after outputs.
    pub(super) staged: [usize; 3],
    /// The plan's arena.
    pub(super) arena: usize,
    /// Scratch that kernels find zeroed.
    pub(super) workspace: usize,
    /// Its size.
    pub(super) workspace_bytes: usize,
    /// All of it.
    pub(super) total: usize,
    /// Per buffer of the plan: bytes, and offset in the arena where it has one.
    pub(super) buffers: Vec<(usize, usize)>,
}

/// Which ports lie in the instance's block: all but those that a caller or a state holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Staged<'a> {
    pub(super) inputs: &'a [bool],
    pub(super) outputs: &'a [bool],
}

impl Layout {
    /// Lays out a binding.
    pub(super) fn new(
        program: &Program,
        values: Values<'_>,
        staged: Staged<'_>,
    ) -> Result<Layout, CudaError> {
        let plan = values.plan;
        let mut at = 0usize;
        let mut place = |bytes: usize| {
            let start = at;
            at = at
                .checked_add(bytes)
                .and_then(|end| end.checked_next_multiple_of(ALIGN))
                .ok_or_else(|| {
                    malformed("the memory plan", "it needs more than can be addressed")
                })?;
            Ok::<usize, CudaError>(start)
        };
        place(plan.symbols.len() * 8)?;
        let buffers = buffers(values)?;
        let mut ports = |ports: &[tgc_ir::plan::Port], staged: &[bool]| {
            let bytes = |p: &tgc_ir::plan::Port, staged: bool| {
                if staged { buffers.get(p.buffer as usize).map_or(0, |b| b.0) } else { 0 }
            };
            ports
                .iter()
                .zip(staged)
                .map(|(p, s)| place(bytes(p, *s)))
                .collect::<Result<Vec<_>, _>>()
        };
        let inputs = ports(&plan.inputs, staged.inputs)?;
        let first_input = inputs.first().copied();
        let outputs = ports(&plan.outputs, staged.outputs)?;
        let arena = place(values.bytes(&plan.arena_bytes, "the arena")?)?;
        let workspace_bytes = workspace_bytes(program, values)?;
        let workspace = place(workspace_bytes)?;
        let middle = outputs.first().copied().unwrap_or(arena);
        let staged = [first_input.unwrap_or(middle), middle, arena];
        Ok(Layout {
            inputs,
            outputs,
            staged,
            arena,
            workspace,
            workspace_bytes,
            total: at,
            buffers,
        })
    }
}

/// Bytes and arena offsets of buffers, checked to lie inside.
fn buffers(values: Values<'_>) -> Result<Vec<(usize, usize)>, CudaError> {
    let plan: &Plan = values.plan;
    let arena = values.bytes(&plan.arena_bytes, "the arena")?;
    let measure = |buffer: &tgc_ir::plan::PlanBuffer| {
        let bytes = values.bytes(&buffer.bytes, &buffer.name)?;
        let Place::Arena { offset } = &buffer.place else { return Ok((bytes, 0)) };
        let offset = values.bytes(offset, &buffer.name)?;
        if offset % 64 != 0 || offset.checked_add(bytes).is_none_or(|end| end > arena) {
            let what = format!("buffer `{}`", buffer.name);
            return Err(malformed(what, "it lies outside the arena or off its alignment"));
        }
        Ok((bytes, offset))
    };
    plan.buffers.iter().map(measure).collect()
}

/// The largest workspace of a launch. Where counts found while running can
/// change the choice of variants, of all variants.
fn workspace_bytes(program: &Program, values: Values<'_>) -> Result<usize, CudaError> {
    let mut most = 0;
    for work in program.segments.iter().flatten() {
        let Work::Launch(site) = work else { continue };
        if program.has_data_symbols {
            for (variant, _) in &site.variants {
                // A variant whose size has no value here cannot be chosen here.
                most = most.max(values.bytes(&variant.workspace_bytes, &site.kernel).unwrap_or(0));
            }
        } else {
            let (variant, _) = values.select(site)?;
            most = most.max(values.bytes(&variant.workspace_bytes, &site.kernel)?);
        }
    }
    Ok(most)
}

/// How large a block to hold `needed` bytes is made, `None` when the present
/// one is large enough: it grows only, to powers of two and then whole pages,
/// so that slowly growing shapes seldom move it.
pub(super) fn grown_bytes(present: usize, needed: usize) -> Option<usize> {
    if needed <= present {
        return None;
    }
    let rounded =
        if needed < PAGE { needed.next_power_of_two() } else { needed.next_multiple_of(PAGE) };
    Some(rounded)
}

/// Checks the bytes of weights and of one instance against the allowed memory.
pub(super) fn check_limit(needed: u64, limit: Option<u64>) -> Result<(), CudaError> {
    match limit {
        Some(limit) if needed > limit => Err(CudaError::Limit { needed, limit }),
        _ => Ok(()),
    }
}
