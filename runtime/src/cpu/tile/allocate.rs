//! Slots and order of compiled operations: what is dropped, what shares a slot, what a sweep over columns holds.

use super::{Ins, Op, Pass};
use crate::cpu::kernels::lanes::Arg;

/// Calls `f(register, is result)` for every register of an operation.
pub(super) fn visit(ins: &mut Ins, f: &mut dyn FnMut(&mut u16, bool)) {
    fn arg(a: &mut Arg, f: &mut dyn FnMut(&mut u16, bool)) {
        if let Arg::Slot(slot, _) = a {
            f(slot, false);
        }
    }
    let mut writes = true;
    match &mut ins.op {
        Op::Coord(_) => {}
        Op::Load { add, row_mask, col_mask, .. } => {
            add.iter_mut().for_each(|r| f(&mut r.slot, false));
            row_mask.iter_mut().for_each(|r| f(&mut r.slot, false));
            col_mask.iter_mut().for_each(|r| f(r, false));
        }
        Op::Gather { index, mask, .. } => {
            f(index, false);
            mask.iter_mut().for_each(|r| f(r, false));
        }
        Op::Unary(_, a) | Op::Cast { src: a, .. } | Op::Bitcast { src: a, .. } => f(a, false),
        Op::Binary(_, a, b) | Op::FloorDiv(a, b) | Op::FloorMod(a, b) => {
            arg(a, f);
            arg(b, f);
        }
        Op::Scalar(_, _, args) => args.iter_mut().for_each(|a| arg(a, f)),
        Op::Expand(_, a) => arg(a, f),
        Op::Reduce { src, .. } => f(&mut src.slot, false),
        Op::Store { add, .. } => {
            add.iter_mut().for_each(|r| f(&mut r.slot, false));
            writes = false;
        }
        Op::Scatter { index, .. } => {
            f(index, false);
            writes = false;
        }
    }
    f(&mut ins.dst, writes);
}

/// Drops operations whose results nothing reads.
pub(super) fn prune(ins: &mut Vec<Ins>, regs: u16, keep: &[u16]) {
    let mut read = vec![false; regs as usize];
    keep.iter().for_each(|&r| read[r as usize] = true);
    let mut used = vec![true; ins.len()];
    for (i, one) in ins.iter_mut().enumerate().rev() {
        let stores = matches!(one.op, Op::Store { .. } | Op::Scatter { .. });
        used[i] = stores || read[one.dst as usize];
        if used[i] {
            visit(one, &mut |reg, written| read[*reg as usize] |= !written);
        }
    }
    let mut used = used.into_iter();
    ins.retain(|_| used.next().unwrap_or(true));
}

/// Registers to slots by last use; a result never shares a slot with an operand of its operation.
pub(super) fn allocate(ins: &[Ins], regs: u16, given: u16, keep: &[u16]) -> (Vec<u16>, u16) {
    let mut last = vec![0usize; regs as usize];
    for (i, one) in ins.iter().enumerate() {
        visit(&mut one.clone(), &mut |reg, _| last[*reg as usize] = i);
    }
    keep.iter().for_each(|&r| last[r as usize] = usize::MAX);
    let mut map: Vec<u16> = vec![u16::MAX; regs as usize];
    (0..given).for_each(|r| map[r as usize] = r);
    let mut free: Vec<u16> = Vec::new();
    let mut slots = given;
    for (i, one) in ins.iter().enumerate() {
        let mut done = Vec::new();
        visit(&mut one.clone(), &mut |reg, written| {
            if written && map[*reg as usize] == u16::MAX {
                map[*reg as usize] = free.pop().unwrap_or_else(|| {
                    slots += 1;
                    slots - 1
                });
            }
            if last[*reg as usize] == i && !done.contains(reg) {
                done.push(*reg);
            }
        });
        free.extend(done.into_iter().map(|r| map[r as usize]));
    }
    (map, slots.max(1))
}

/// Splits operations into sweeps over the columns: a reduction ends one.
pub(super) fn passes(ins: &[Ins], regs: u16) -> Vec<Pass> {
    let mut stage = vec![0usize; regs as usize];
    let mut reads: Vec<Vec<u16>> = Vec::new();
    let mut at = vec![0usize; ins.len()];
    let mut writer = vec![usize::MAX; regs as usize];
    for (i, one) in ins.iter().enumerate() {
        let (mut from, mut to) = (Vec::new(), None);
        visit(&mut one.clone(), &mut |reg, written| {
            if written { to = Some(*reg) } else { from.push(*reg) }
        });
        at[i] = from.iter().map(|&r| stage[r as usize]).max().unwrap_or(0);
        if let Some(to) = to {
            stage[to as usize] = at[i] + usize::from(matches!(one.op, Op::Reduce { .. }));
            writer[to as usize] = i;
        }
        reads.push(from);
    }
    let is_reduce = |i: usize| matches!(ins[i].op, Op::Reduce { .. });
    let is_store = |i: usize| matches!(ins[i].op, Op::Store { .. } | Op::Scatter { .. });
    let last =
        at.iter().enumerate().map(|(i, &s)| s + usize::from(is_reduce(i))).max().unwrap_or(0);
    let sweeps = |i: usize| is_reduce(i) || ins[i].level.col;
    (0..=last)
        .map(|p| {
            let once = (0..ins.len())
                .filter(|&i| !sweeps(i) && if is_store(i) { p == last } else { at[i] == p });
            let mut wanted = vec![false; ins.len()];
            for i in (0..ins.len()).rev() {
                wanted[i] |=
                    sweeps(i) && if is_store(i) { p == last } else { is_reduce(i) && at[i] == p };
                if wanted[i] {
                    for &r in &reads[i] {
                        let w = writer[r as usize];
                        if w != usize::MAX && sweeps(w) && !is_reduce(w) {
                            wanted[w] = true;
                        }
                    }
                }
            }
            let chunk = (0..ins.len()).filter(|&i| wanted[i]).map(|i| i as u32).collect();
            Pass { once: once.map(|i| i as u32).collect(), chunk }
        })
        .collect()
}
