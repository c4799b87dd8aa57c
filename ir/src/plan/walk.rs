//! One traversal of nested steps, for everything that reads or changes a
//! plan's instructions: arena, reports, kernel variants.

use super::{Launch, LoopStep, NO_BUFFER, Plan, Step, Trip};

/// What a traversal meets, in execution order.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A step; for `if` and `loop` before what they hold.
    Enter(&'a Step),
    /// Between the branches of an `if`.
    Else(&'a Step),
    /// After what an `if` or `loop` holds.
    Leave(&'a Step),
}

/// Visits steps and everything nested in them.
pub fn walk<'a>(steps: &'a [Step], visit: &mut dyn FnMut(Event<'a>)) {
    for step in steps {
        visit(Event::Enter(step));
        match step {
            Step::If { then_steps, else_steps, .. } => {
                walk(then_steps, visit);
                visit(Event::Else(step));
                walk(else_steps, visit);
                visit(Event::Leave(step));
            }
            Step::Loop(l) => {
                walk(&l.body, visit);
                visit(Event::Leave(step));
            }
            Step::Launch(_) | Step::Copy { .. } | Step::Host(_) => {}
        }
    }
}

/// Changes launches and those nested in other steps.
pub fn change_launches(steps: &mut [Step], visit: &mut dyn FnMut(&mut Launch)) {
    for step in steps {
        match step {
            Step::Launch(launch) => visit(launch),
            Step::If { then_steps, else_steps, .. } => {
                change_launches(then_steps, visit);
                change_launches(else_steps, visit);
            }
            Step::Loop(l) => change_launches(&mut l.body, visit),
            Step::Copy { .. } | Step::Host(_) => {}
        }
    }
}

impl Plan {
    /// Every launch, nested ones included, in order.
    pub fn launches(&self) -> Vec<&Launch> {
        let mut out = Vec::new();
        walk(&self.steps, &mut |event| {
            if let Event::Enter(Step::Launch(launch)) = event {
                out.push(launch);
            }
        });
        out
    }

    /// Changes every launch, nested ones included.
    pub fn change_launches(&mut self, visit: &mut dyn FnMut(&mut Launch)) {
        change_launches(&mut self.steps, visit);
    }
}

impl Event<'_> {
    /// Buffers that are read or written at this point.
    pub fn buffers(&self) -> Vec<u32> {
        match self {
            Event::Enter(Step::Launch(launch)) => launch.buffers.clone(),
            Event::Enter(Step::Copy { from, to }) => vec![*from, *to],
            Event::Enter(Step::Host(host)) => {
                let all = host.inputs.iter().chain(&host.outputs);
                all.copied().filter(|b| *b != NO_BUFFER).collect()
            }
            Event::Enter(Step::If { predicate, .. }) => vec![*predicate],
            Event::Enter(Step::Loop(l)) => l.held().collect(),
            Event::Leave(Step::Loop(l)) => {
                let values = l.carried.iter().chain(&l.stacked).map(|(from, _)| *from);
                l.held().chain(values).collect()
            }
            Event::Else(_) | Event::Leave(_) => Vec::new(),
        }
    }
}

impl LoopStep {
    /// Buffers that keep their contents from round to round.
    fn held(&self) -> impl Iterator<Item = u32> + '_ {
        let trip = match self.trip {
            Trip::Read(buffer) => Some(buffer),
            Trip::Unbounded | Trip::Known(_) => None,
        };
        let targets = self.carried.iter().chain(&self.stacked).map(|(_, to)| *to);
        [trip, self.condition, self.iteration].into_iter().flatten().chain(targets)
    }
}
