//! Instructions that lanes of a warp execute together for a mask of members (PTX ISA, sections 9.7.9 and
//! 9.7.13): shuffles, votes, matches, reductions, elections and `bar.warp.sync`.

use super::address::{first, for_lanes};
use super::lanes::LANES;
use super::state::Worker;
use super::step::{Flow, Here};
use super::warp::{Wait, Warp};
use crate::check::FindingKind;
use crate::decode::inst::{Inst, NONE, Op, Reduction, Shuffle, Vote};

impl Worker<'_> {
    pub(crate) fn collective(&mut self, warp: &mut Warp, inst: &Inst, here: Here) -> Flow {
        let slot = if matches!(inst.op, Op::Shuffle(_)) { inst.extra } else { inst.c };
        let members = warp.file.word(slot)[first(here.active)];
        let outside = here.active & !members;
        if outside != 0 || members & !warp.live != 0 {
            let lane = first(if outside != 0 { outside } else { here.active });
            let live = warp.live;
            self.report((warp, lane as u32, here.pc), FindingKind::Undefined, None, || {
                format!("lanes {:#010x} execute it for members {members:#010x}; live lanes are {live:#010x}", here.active)
            });
        }
        let needed = members & warp.live;
        if needed & !here.active != 0 {
            return Flow::Wait(Wait::Lanes { members: needed });
        }
        execute(warp, inst, here.active, members);
        warp.tick();
        Flow::Next
    }

    /// Lanes that wait for each other at one instruction, in several fragments, execute it when all are there.
    pub(crate) fn gather_lanes(&mut self, warp: &mut Warp) -> Option<usize> {
        for at in 0..warp.fragments.len() {
            let lead = warp.fragments[at];
            let Wait::Lanes { members } = lead.wait else { continue };
            let inst = self.machine.kernel.code[lead.pc as usize];
            let is_sync = matches!(inst.op, Op::WarpSync);
            // Barriers of a warp may stand at several places, other instructions at one.
            let meets = |f: &super::warp::Fragment| {
                let same = matches!(self.machine.kernel.code[f.pc as usize].op, Op::WarpSync);
                matches!(f.wait, Wait::Lanes { .. }) && (f.pc == lead.pc || is_sync && same)
            };
            let there = warp.fragments.iter().filter(|f| meets(f)).fold(0, |m, f| m | f.mask);
            if members & warp.live & !there != 0 {
                continue;
            }
            execute(warp, &inst, there, members);
            warp.tick();
            let arrived: Vec<bool> = warp.fragments.iter().map(meets).collect();
            for (fragment, _) in
                warp.fragments.iter_mut().zip(&arrived).filter(|(_, there)| **there)
            {
                let count = &mut self.counts[fragment.pc as usize];
                count.issues += 1;
                count.diverged += 1;
                count.lanes += u64::from(fragment.mask.count_ones());
                fragment.pc += 1;
                fragment.wait = Wait::None;
            }
            return Some(at);
        }
        None
    }
}

fn execute(warp: &mut Warp, inst: &Inst, active: u32, members: u32) {
    match inst.op {
        Op::Shuffle(kind) => shuffle(warp, inst, kind, active),
        Op::Vote(kind) => vote(warp, inst, kind, active),
        Op::Match { all, wide } => matching(warp, inst, (all, wide), active),
        Op::Redux(kind) => redux(warp, inst, kind, active),
        Op::Elect => {
            let leader = first(members);
            warp.file.set_word(inst.d, &[leader as u32; LANES], active);
            warp.file.set_predicate(inst.offset as u32, 1 << leader, active);
        }
        _ => {}
    }
}

/// PTX ISA, `shfl.sync`: the upper bits of `c` cut the warp into segments, the lower ones clamp.
fn shuffle(warp: &mut Warp, inst: &Inst, kind: Shuffle, active: u32) {
    let (value, b, c) = (*warp.file.word(inst.a), *warp.file.word(inst.b), *warp.file.word(inst.c));
    let mut out = [0; LANES];
    let mut valid = 0u32;
    for lane in 0..LANES as u32 {
        let (offset, clamp) = (b[lane as usize] & 31, c[lane as usize] & 31);
        let segment = c[lane as usize] >> 8 & 31;
        let highest = lane & segment | clamp & !segment;
        let lowest = lane & segment;
        let (source, inside) = match kind {
            Shuffle::Up => {
                let source = lane.wrapping_sub(offset);
                (source, source as i32 >= highest as i32)
            }
            Shuffle::Down => (lane + offset, lane + offset <= highest),
            Shuffle::Butterfly => (lane ^ offset, lane ^ offset <= highest),
            Shuffle::Index => {
                let source = lowest | offset & !segment;
                (source, source <= highest)
            }
        };
        let source = if inside { source } else { lane };
        out[lane as usize] = value[source as usize & 31];
        valid |= u32::from(inside) << lane;
    }
    warp.file.set_word(inst.d, &out, active);
    warp.file.set_predicate(inst.offset as u32, valid, active);
}

fn vote(warp: &mut Warp, inst: &Inst, kind: Vote, active: u32) {
    let holds = match inst.a {
        NONE if inst.b != 0 => u32::MAX,
        NONE => 0,
        slot => warp.file.predicate(slot) ^ if inst.b != 0 { u32::MAX } else { 0 },
    } & active;
    let all = |yes: bool| if yes { u32::MAX } else { 0 };
    match kind {
        Vote::Ballot => warp.file.set_word(inst.d, &[holds; LANES], active),
        Vote::All => warp.file.set_predicate(inst.d, all(holds == active), active),
        Vote::Any => warp.file.set_predicate(inst.d, all(holds != 0), active),
        Vote::Uniform => {
            warp.file.set_predicate(inst.d, all(holds == active || holds == 0), active)
        }
    }
}

fn matching(warp: &mut Warp, inst: &Inst, (all, wide): (bool, bool), active: u32) {
    let value: [u64; LANES] =
        if wide { *warp.file.double(inst.a) } else { warp.file.word(inst.a).map(u64::from) };
    let mut out = [0u32; LANES];
    for_lanes(active, |lane| {
        for_lanes(active, |other| out[lane] |= u32::from(value[lane] == value[other]) << other);
    });
    if all {
        let agrees = out[first(active)] == active;
        warp.file.set_word(inst.d, &[if agrees { active } else { 0 }; LANES], active);
        warp.file.set_predicate(inst.offset as u32, if agrees { u32::MAX } else { 0 }, active);
    } else {
        warp.file.set_word(inst.d, &out, active);
    }
}

fn redux(warp: &mut Warp, inst: &Inst, kind: Reduction, active: u32) {
    let value = warp.file.word(inst.a);
    let lead = value[first(active)];
    let mut total = lead;
    for_lanes(active & (active - 1), |lane| {
        let x = value[lane];
        total = match kind {
            Reduction::Add => total.wrapping_add(x),
            Reduction::MinU => total.min(x),
            Reduction::MaxU => total.max(x),
            Reduction::MinS => (total as i32).min(x as i32) as u32,
            Reduction::MaxS => (total as i32).max(x as i32) as u32,
            Reduction::And => total & x,
            Reduction::Or => total | x,
            Reduction::Xor => total ^ x,
        };
    });
    warp.file.set_word(inst.d, &[total; LANES], active);
}
