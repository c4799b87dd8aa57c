//! The arena: one block of memory for every value between kernels.
//!
//! Offsets are expressions over symbols. A block is reused when its size is
//! provably enough for every binding; otherwise the arena grows. Time runs
//! through nested steps; what a loop reads in a later round stays for all of it.

use tgc_ir::dim::Dim;
use tgc_ir::facts::Facts;
use tgc_ir::plan::{Event, Place, PlanBuffer, Step, walk};

/// Alignment of every buffer, in bytes.
const ALIGN: i64 = 64;

struct Block {
    offset: Dim,
    bytes: Dim,
    /// Time after which it is free.
    free_after: usize,
}

/// First and last time at which a buffer's contents matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    first: usize,
    last: usize,
}

/// Places every arena buffer and returns the size of the arena.
pub(crate) fn assign(buffers: &mut [PlanBuffer], steps: &[Step], facts: &Facts) -> Dim {
    let lives = lives(buffers.len(), steps);
    let mut order: Vec<(usize, usize, Life)> =
        lives.iter().enumerate().filter_map(|(b, l)| l.map(|l| (l.first, b, l))).collect();
    order.sort_unstable_by_key(|(first, buffer, _)| (*first, *buffer));
    let mut blocks: Vec<Block> = Vec::new();
    let mut end = Dim::ZERO;
    for (_, buffer, life) in order {
        if !matches!(buffers[buffer].place, Place::Arena { .. }) {
            continue;
        }
        let bytes = aligned(&buffers[buffer].bytes);
        let reused = blocks
            .iter_mut()
            .filter(|b| b.free_after < life.first && facts.at_most(&bytes, &b.bytes).is_yes())
            .min_by(|a, b| a.bytes.as_const().cmp(&b.bytes.as_const()));
        let offset = match reused {
            Some(block) => {
                block.free_after = life.last;
                block.offset.clone()
            }
            None => {
                let offset = end.clone();
                end = end + bytes.clone();
                blocks.push(Block { offset: offset.clone(), bytes, free_after: life.last });
                offset
            }
        };
        buffers[buffer].place = Place::Arena { offset };
    }
    end
}

fn aligned(bytes: &Dim) -> Dim {
    bytes.ceil_div(&Dim::Const(ALIGN)) * Dim::Const(ALIGN)
}

/// When each buffer is in use; `None` for those that no step names.
fn lives(buffers: usize, steps: &[Step]) -> Vec<Option<Life>> {
    let mut uses: Vec<Vec<usize>> = vec![Vec::new(); buffers];
    let mut loops: Vec<Life> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut now = 0;
    walk(steps, &mut |event| {
        event.buffers().into_iter().for_each(|b| uses[b as usize].push(now));
        match event {
            Event::Enter(Step::Loop(_)) => open.push(now),
            Event::Leave(Step::Loop(_)) => {
                let first = open.pop().expect("every loop is entered before it is left");
                loops.push(Life { first, last: now });
            }
            _ => {}
        }
        now += 1;
    });
    uses.iter().map(|uses| life(uses, &loops)).collect()
}

/// From first to last use; a loop that uses what lies outside of it, too,
/// needs it from its first round to its last.
fn life(uses: &[usize], loops: &[Life]) -> Option<Life> {
    let mut life = Life { first: *uses.first()?, last: *uses.last()? };
    let (first, last) = (life.first, life.last);
    for span in loops {
        let inside = uses.iter().any(|u| span.first < *u && *u < span.last);
        if inside && (first < span.first || last > span.last) {
            life.first = life.first.min(span.first);
            life.last = life.last.max(span.last);
        }
    }
    Some(life)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loops_hold_what_they_read_from_outside() {
        let span = [Life { first: 2, last: 9 }];
        assert_eq!(life(&[0, 4], &span), Some(Life { first: 0, last: 9 }), "read in every round");
        assert_eq!(life(&[3, 4], &span), Some(Life { first: 3, last: 4 }), "local to a round");
        assert_eq!(life(&[4, 12], &span), Some(Life { first: 2, last: 12 }), "read after it");
        assert_eq!(life(&[2, 9, 12], &span), Some(Life { first: 2, last: 12 }), "carried");
        assert_eq!(life(&[0, 1], &span), Some(Life { first: 0, last: 1 }), "dead before it");
        assert_eq!(life(&[], &span), None);
    }
}
