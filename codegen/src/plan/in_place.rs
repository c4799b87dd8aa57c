//! Carried values that a round updates in place.
//!
//! A round's result may be computed in the buffer of the carried value when
//! nothing reads the old value afterwards, and the kernel that writes it reads
//! the old one, if at all, at the element that it writes. What appends to a
//! carried value writes behind the old part, which stays readable.

use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::graph::State;
use tgc_ir::infer::after_rounds;
use tgc_ir::kernel_program::{Access, Anchor, InstKind, KernelProgram};
use tgc_ir::plan::{Event, Launch, Place, Step, change_launches, walk};
use tgc_ir::{Graph, Op};

use super::Memory;

/// A loop's body with the carried values that it appends to as states, whose
/// capacity is their extent after the last possible round.
pub(super) fn with_appends(body: &Graph, carried: usize, rounds: &Symbol, most: &Dim) -> Graph {
    let mut next = body.clone();
    for i in 0..carried {
        let (input, output) = (body.inputs()[1 + i], body.outputs()[1 + i].node);
        let shape = body.shape(input);
        let growing: Vec<usize> = (0..shape.len()).filter(|a| shape[*a].mentions(rounds)).collect();
        let (Op::Concat { axis }, [axis_grown]) = (body.op(output), growing.as_slice()) else {
            continue;
        };
        let is_new = !next.states.iter().any(|s| body.outputs()[s.output].node == output);
        let appends = *axis == *axis_grown as i64 && body.operands(output).first() == Some(&input);
        if is_new && appends {
            let capacity = after_rounds(&shape[*axis_grown..=*axis_grown], rounds, most).pop();
            next.states.push(State { input: 1 + i, output: 1 + i, capacity, axis: *axis_grown });
        }
    }
    next
}

/// Renames results to the carried values that they replace, where that is
/// safe, and drops their copies.
pub(super) fn merge(memory: &Memory, steps: &mut [Step], pairs: [&mut Vec<(u32, u32)>; 2]) {
    let [carried, stacked] = pairs;
    for at in 0..carried.len() {
        let (from, to) = carried[at];
        let is_carried = carried.iter().any(|(_, state)| *state == from);
        // The old value is still to be handed on after the round.
        let is_handed_on = carried.iter().chain(stacked.iter()).any(|(value, _)| *value == to);
        if is_carried || is_handed_on || !is_safe(memory, steps, from, to) {
            continue;
        }
        let renamed = |b: u32| if b == from { to } else { b };
        change_launches(steps, &mut |launch| {
            launch.buffers.iter_mut().for_each(|b| *b = renamed(*b));
        });
        carried.iter_mut().chain(stacked.iter_mut()).for_each(|pair| pair.0 = renamed(pair.0));
    }
    carried.retain(|(from, to)| from != to);
}

fn is_safe(memory: &Memory, steps: &[Step], from: u32, to: u32) -> bool {
    let [source, target] = [from, to].map(|b| &memory.buffers[b as usize]);
    let fits = matches!(source.place, Place::Arena { .. })
        && source.dtype == target.dtype
        && source.strides == target.strides;
    let mentions = |steps: &[Step], buffer: u32| {
        let mut found = false;
        walk(steps, &mut |event| found |= event.buffers().contains(&buffer));
        found
    };
    let Some(first) = steps.iter().position(|s| mentions(std::slice::from_ref(s), from)) else {
        return false;
    };
    let Step::Launch(launch) = &steps[first] else { return false };
    // Renaming reaches launches only.
    let mut is_renamed = true;
    walk(steps, &mut |event| {
        let is_launch = matches!(event, Event::Enter(Step::Launch(_)));
        is_renamed &= is_launch || !event.buffers().contains(&from);
    });
    fits && is_renamed
        && !mentions(&steps[first + 1..], to)
        && is_elementwise(memory, launch, from, to)
}

/// Whether a launch writes one buffer and reads another only at the element it writes.
fn is_elementwise(memory: &Memory, launch: &Launch, from: u32, to: u32) -> bool {
    let Some((program, ())) = memory.kernels.get_index(launch.kernel as usize) else {
        return false;
    };
    let arguments = |buffer: u32| -> Vec<u32> {
        (0..launch.buffers.len() as u32).filter(|a| launch.buffers[*a as usize] == buffer).collect()
    };
    let [written] = arguments(from)[..] else { return false };
    if program.buffers[written as usize].access != Access::Write {
        return false;
    }
    arguments(to).into_iter().all(|read| reads_what_it_writes(program, read, written))
}

fn reads_what_it_writes(program: &KernelProgram, read: u32, written: u32) -> bool {
    let Anchor::Loops(loops) = &program.anchor else { return false };
    let [store] = loops.epilogue.stores.as_slice() else { return false };
    let is_same = |kind: &InstKind| match kind {
        InstKind::Load(load) => load.buffer != read || load.index == store.index,
        _ => true,
    };
    store.buffer == written && loops.epilogue.body.insts.iter().all(|inst| is_same(&inst.kind))
}
