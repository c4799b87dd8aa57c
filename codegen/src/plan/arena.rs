//! The arena: one block of memory for every value between kernels.
//!
//! Offsets are expressions over symbols. A block is reused when its size is
//! provably enough for every binding; otherwise the arena grows.

use tgc_ir::dim::Dim;
use tgc_ir::facts::Facts;
use tgc_ir::plan::{Place, PlanBuffer, Step};

/// Alignment of every buffer, in bytes.
const ALIGN: i64 = 64;

struct Block {
    offset: Dim,
    bytes: Dim,
    /// Step index after which it is free.
    free_after: usize,
}

/// Places every arena buffer and returns the size of the arena.
pub(crate) fn assign(buffers: &mut [PlanBuffer], steps: &[Step], facts: &Facts) -> Dim {
    let mut last_use = vec![0usize; buffers.len()];
    let mut first_use = vec![usize::MAX; buffers.len()];
    for (i, step) in steps.iter().enumerate() {
        for buffer in buffers_of(step) {
            last_use[buffer as usize] = i;
            first_use[buffer as usize] = first_use[buffer as usize].min(i);
        }
    }
    let mut blocks: Vec<Block> = Vec::new();
    let mut end = Dim::ZERO;
    for i in 0..steps.len() {
        for buffer in 0..buffers.len() {
            let is_arena = matches!(buffers[buffer].place, Place::Arena { .. });
            if !is_arena || first_use[buffer] != i {
                continue;
            }
            let bytes = aligned(&buffers[buffer].bytes);
            let reused = blocks
                .iter_mut()
                .filter(|b| b.free_after < i && facts.at_most(&bytes, &b.bytes).is_yes())
                .min_by(|a, b| a.bytes.as_const().cmp(&b.bytes.as_const()));
            let offset = match reused {
                Some(block) => {
                    block.free_after = last_use[buffer];
                    block.offset.clone()
                }
                None => {
                    let offset = end.clone();
                    end = end + bytes.clone();
                    blocks.push(Block {
                        offset: offset.clone(),
                        bytes,
                        free_after: last_use[buffer],
                    });
                    offset
                }
            };
            buffers[buffer].place = Place::Arena { offset };
        }
    }
    end
}

fn aligned(bytes: &Dim) -> Dim {
    bytes.ceil_div(&Dim::Const(ALIGN)) * Dim::Const(ALIGN)
}

/// Every buffer that a step names.
fn buffers_of(step: &Step) -> Vec<u32> {
    let real = |buffers: &[u32]| {
        buffers.iter().copied().filter(|b| *b != tgc_ir::plan::NO_BUFFER).collect::<Vec<_>>()
    };
    match step {
        Step::Launch(launch) => launch.buffers.clone(),
        Step::Copy { from, to } => vec![*from, *to],
        Step::Host(host) => [real(&host.inputs), real(&host.outputs)].concat(),
        Step::If { predicate, then_steps, else_steps } => std::iter::once(*predicate)
            .chain(then_steps.iter().chain(else_steps).flat_map(buffers_of))
            .collect(),
        Step::Loop(step) => {
            let own = [step.trip, step.condition, step.iteration].into_iter().flatten();
            let pairs = step.carried.iter().chain(&step.stacked).flat_map(|(a, b)| [*a, *b]);
            own.chain(pairs).chain(step.body.iter().flat_map(buffers_of)).collect()
        }
    }
}
