//! Control flow of a body: basic blocks, their edges, and where diverged lanes meet again.

use super::Body;
use crate::error::PtxError;
use crate::ptx::ast::{Instruction, Operand};

/// Blocks of a body in the order of its text.
pub(super) struct Flow {
    /// First instruction of each block, and the end of the last.
    pub(super) starts: Vec<u32>,
    /// Blocks that may follow each block; `exit` stands for leaving the kernel.
    pub(super) successors: Vec<Vec<u32>>,
    /// Block of each instruction.
    pub(super) block_of: Vec<u32>,
}

/// How an instruction changes the flow.
pub(super) enum Jump {
    None,
    To(Vec<u32>),
    Leave,
}

/// First word of an opcode.
pub(super) fn base<'a>(i: &Instruction<'a>) -> &'a str {
    i.opcode.split('.').next().unwrap_or_default()
}

/// Where an instruction may jump, as positions.
pub(super) fn jump(body: &Body<'_>, i: &Instruction<'_>) -> Result<Jump, PtxError> {
    let at = |label: u32| match body.label_at[label as usize] {
        u32::MAX => Err(PtxError::new(i.line, "the label it jumps to stands nowhere")),
        at => Ok(at),
    };
    match (base(i), i.operands.as_slice()) {
        ("bra", [Operand::Label(label)]) => Ok(Jump::To(vec![at(*label)?])),
        ("bra", _) => Err(PtxError::new(i.line, "the label it jumps to is not declared")),
        ("brx", [_, Operand::Targets(table)]) => {
            let labels = &body.targets[*table as usize];
            Ok(Jump::To(labels.iter().map(|l| at(*l)).collect::<Result<_, _>>()?))
        }
        ("brx", _) => Err(PtxError::new(i.line, "`brx.idx` needs a table of labels")),
        ("ret" | "exit" | "trap", _) => Ok(Jump::Leave),
        _ => Ok(Jump::None),
    }
}

impl Flow {
    pub(super) fn of(body: &Body<'_>) -> Result<Flow, PtxError> {
        let count = body.instructions.len();
        let mut is_start = vec![false; count + 1];
        is_start[0] = true;
        is_start[count] = true;
        let mut jumps = Vec::with_capacity(count);
        for (at, i) in body.instructions.iter().enumerate() {
            let jump = jump(body, i)?;
            if let Jump::To(targets) = &jump {
                targets.iter().for_each(|t| is_start[*t as usize] = true);
            }
            if !matches!(jump, Jump::None) {
                is_start[at + 1] = true;
            }
            jumps.push(jump);
        }
        let starts: Vec<u32> = (0..=count as u32).filter(|at| is_start[*at as usize]).collect();
        let mut block_of = vec![0; count + 1];
        for (block, range) in starts.windows(2).enumerate() {
            block_of[range[0] as usize..range[1] as usize].fill(block as u32);
        }
        let blocks = starts.len() - 1;
        block_of[count] = blocks as u32;
        let mut successors = Vec::with_capacity(blocks);
        for block in 0..blocks {
            let last = starts[block + 1] as usize - 1;
            let falls = body.instructions[last].guard.is_some();
            let mut next = match &jumps[last] {
                Jump::None => vec![block as u32 + 1],
                Jump::Leave => vec![blocks as u32],
                Jump::To(targets) => targets.iter().map(|t| block_of[*t as usize]).collect(),
            };
            if falls && !matches!(jumps[last], Jump::None) {
                next.push(block as u32 + 1);
            }
            next.sort_unstable();
            next.dedup();
            successors.push(next);
        }
        Ok(Flow { starts, successors, block_of })
    }

    /// Number of blocks, and of the block that stands for the end.
    pub(super) fn blocks(&self) -> usize {
        self.successors.len()
    }

    /// For each block, the first block that every way from it to the end passes (Cooper, Harvey and Kennedy,
    /// "A simple, fast dominance algorithm", on the reversed graph).
    pub(super) fn post_dominators(&self) -> Vec<u32> {
        let end = self.blocks();
        let order = self.reversed_postorder();
        let mut rank = vec![usize::MAX; end + 1];
        order.iter().enumerate().for_each(|(at, block)| rank[*block as usize] = at);
        let mut found = vec![u32::MAX; end + 1];
        found[end] = end as u32;
        let mut changed = true;
        while changed {
            changed = false;
            for block in order.iter().map(|b| *b as usize).filter(|b| *b != end) {
                let mut meet = u32::MAX;
                for next in self.successors[block].iter().copied() {
                    if found[next as usize] == u32::MAX {
                        continue;
                    }
                    meet =
                        if meet == u32::MAX { next } else { intersect(&found, &rank, meet, next) };
                }
                changed |= found[block] != meet;
                found[block] = meet;
            }
        }
        // Blocks from which no way leads to the end never meet again.
        found.iter_mut().filter(|f| **f == u32::MAX).for_each(|f| *f = end as u32);
        found
    }

    /// Blocks in reverse postorder of a walk from the end against the edges.
    fn reversed_postorder(&self) -> Vec<u32> {
        let end = self.blocks();
        let mut predecessors = vec![Vec::new(); end + 1];
        for (block, next) in self.successors.iter().enumerate() {
            next.iter().for_each(|n| predecessors[*n as usize].push(block as u32));
        }
        let mut seen = vec![false; end + 1];
        let mut out = Vec::with_capacity(end + 1);
        let mut stack = vec![(end as u32, 0)];
        seen[end] = true;
        while let Some((block, at)) = stack.pop() {
            match predecessors[block as usize].get(at) {
                None => out.push(block),
                Some(next) => {
                    stack.push((block, at + 1));
                    if !std::mem::replace(&mut seen[*next as usize], true) {
                        stack.push((*next, 0));
                    }
                }
            }
        }
        out.reverse();
        out
    }
}

fn intersect(found: &[u32], rank: &[usize], mut a: u32, mut b: u32) -> u32 {
    while a != b {
        while rank[a as usize] > rank[b as usize] {
            a = found[a as usize];
        }
        while rank[b as usize] > rank[a as usize] {
            b = found[b as usize];
        }
    }
    a
}
