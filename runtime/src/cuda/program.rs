//! A plan's steps as the device takes them: segments that run without the
//! host, and what lies between.
//!
//! Knows no driver; entries are numbered, and whoever loads code resolves
//! the numbers.

use tgc_ir::dim::Symbol;
use tgc_ir::plan::{
    HostOp, HostStep, Launch, LoopStep, NO_BUFFER, Place, Plan, Source, Step, Trip, Variant,
};

use super::error::{CudaError, malformed};

/// Steps with segments numbered.
#[derive(Debug, Default)]
pub(super) struct Program {
    /// In order.
    pub(super) steps: Vec<Node>,
    /// Launches and copies that follow each other.
    pub(super) segments: Vec<Vec<Work>>,
    /// Entry points that launches name.
    pub(super) entries: Vec<EntryUse>,
    /// Some sizes are known only while running.
    pub(super) has_data_symbols: bool,
}

/// One step between looks of the host.
#[derive(Debug)]
pub(super) enum Node {
    /// Index in [`Program::segments`].
    Segment(usize),
    Host(HostStep),
    If {
        predicate: u32,
        then: Vec<Node>,
        otherwise: Vec<Node>,
    },
    Loop(Box<LoopNode>),
}

#[derive(Debug)]
pub(super) struct LoopNode {
    pub(super) trip: Trip,
    pub(super) condition: Option<u32>,
    pub(super) iteration: Option<u32>,
    /// The round and the copies of carried values after it.
    pub(super) body: Vec<Node>,
    /// (value, stack)
    pub(super) stacked: Vec<(u32, u32)>,
    pub(super) rounds: Option<Symbol>,
    pub(super) counts_rounds: bool,
}

/// Work that the device does by itself.
#[derive(Debug)]
pub(super) enum Work {
    Launch(LaunchSite),
    Copy { from: u32, to: u32 },
}

/// A launch with its entries numbered.
#[derive(Debug)]
pub(super) struct LaunchSite {
    /// Name of the kernel, for messages.
    pub(super) kernel: String,
    pub(super) buffers: Vec<u32>,
    /// ONNX nodes and rules, for messages.
    pub(super) provenance: Vec<String>,
    /// Each with an index in [`Program::entries`].
    pub(super) variants: Vec<(Variant, usize)>,
}

/// How an entry point is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EntryUse {
    pub(super) name: String,
    /// Pointers that it takes: the symbol table, buffers, workspace.
    pub(super) arguments: usize,
    /// Most dynamic shared memory of its launches; `None` when it depends on symbols.
    pub(super) shared_bytes: Option<i64>,
}

/// True when the kernel has a workspace argument.
pub(super) fn has_workspace(variant: &Variant) -> bool {
    !variant.workspace_bytes.is(0)
}

impl Program {
    /// Checks every index that steps name.
    pub(super) fn new(plan: &Plan) -> Result<Program, CudaError> {
        let has_data_symbols = plan.symbols.iter().any(|s| matches!(s.source, Source::Data { .. }));
        let mut program = Program { has_data_symbols, ..Program::default() };
        program.steps = program.nodes(plan, &plan.steps)?;
        Ok(program)
    }

    fn nodes(&mut self, plan: &Plan, steps: &[Step]) -> Result<Vec<Node>, CudaError> {
        let mut nodes = Vec::new();
        for step in steps {
            match step {
                Step::Launch(launch) => {
                    let site = self.site(plan, launch)?;
                    self.work(&mut nodes, Work::Launch(site));
                }
                Step::Copy { from, to } => self.copy(plan, &mut nodes, *from, *to)?,
                Step::Host(host) => {
                    if host.inputs.len() != operands(&host.op) {
                        return Err(malformed("a host step", "it has another number of operands"));
                    }
                    host.inputs.iter().try_for_each(|b| known(plan, *b, "a host step"))?;
                    let used = host.outputs.iter().filter(|b| **b != NO_BUFFER);
                    used.copied().try_for_each(|b| writable(plan, b, "a host step"))?;
                    nodes.push(Node::Host(host.clone()));
                }
                Step::If { predicate, then_steps, else_steps } => {
                    known(plan, *predicate, "a branch")?;
                    let then = self.nodes(plan, then_steps)?;
                    let otherwise = self.nodes(plan, else_steps)?;
                    nodes.push(Node::If { predicate: *predicate, then, otherwise });
                }
                Step::Loop(l) => nodes.push(Node::Loop(Box::new(self.loop_node(plan, l)?))),
            }
        }
        Ok(nodes)
    }

    fn loop_node(&mut self, plan: &Plan, l: &LoopStep) -> Result<LoopNode, CudaError> {
        if let Trip::Read(trip) = l.trip {
            known(plan, trip, "a loop")?;
        }
        if let Some(condition) = l.condition {
            known(plan, condition, "a loop")?;
        }
        if let Some(counter) = l.iteration {
            writable(plan, counter, "a loop")?;
        }
        for &(value, stack) in &l.stacked {
            known(plan, value, "a loop")?;
            writable(plan, stack, "a loop")?;
        }
        let mut body = self.nodes(plan, &l.body)?;
        for &(from, to) in &l.carried {
            self.copy(plan, &mut body, from, to)?;
        }
        Ok(LoopNode {
            trip: l.trip.clone(),
            condition: l.condition,
            iteration: l.iteration,
            body,
            stacked: l.stacked.clone(),
            rounds: l.rounds.clone(),
            counts_rounds: l.counts_rounds,
        })
    }

    /// Adds work to the segment at the end of a list of nodes.
    fn work(&mut self, nodes: &mut Vec<Node>, work: Work) {
        if let Some(Node::Segment(last)) = nodes.last() {
            self.segments[*last].push(work);
        } else {
            nodes.push(Node::Segment(self.segments.len()));
            self.segments.push(vec![work]);
        }
    }

    fn copy(
        &mut self,
        plan: &Plan,
        nodes: &mut Vec<Node>,
        from: u32,
        to: u32,
    ) -> Result<(), CudaError> {
        known(plan, from, "a copy")?;
        writable(plan, to, "a copy")?;
        let (source, target) = (&plan.buffers[from as usize], &plan.buffers[to as usize]);
        if source.dtype != target.dtype || source.shape.len() != target.shape.len() {
            let (from, to) = (source.name.clone(), target.name.clone());
            return Err(CudaError::Copy { from, to, why: "their types differ".into() });
        }
        self.work(nodes, Work::Copy { from, to });
        Ok(())
    }

    fn site(&mut self, plan: &Plan, launch: &Launch) -> Result<LaunchSite, CudaError> {
        let program = plan
            .kernels
            .get(launch.kernel as usize)
            .ok_or_else(|| malformed("a launch", "it names no kernel"))?;
        let kernel = || format!("kernel `{}`", program.name);
        if launch.buffers.len() != program.buffers.len() {
            return Err(malformed(kernel(), "a launch binds other arguments than it has"));
        }
        for (argument, &buffer) in program.buffers.iter().zip(&launch.buffers) {
            match argument.access {
                tgc_ir::kernel_program::Access::Read => known(plan, buffer, &kernel())?,
                _ => writable(plan, buffer, &kernel())?,
            }
        }
        let last = launch
            .variants
            .last()
            .ok_or_else(|| malformed(kernel(), "it has no entry for this target"))?;
        if !last.guard.is_empty() {
            return Err(malformed(kernel(), "its last entry has a guard"));
        }
        let variants = launch
            .variants
            .iter()
            .map(|v| Ok((v.clone(), self.entry(v, launch.buffers.len())?)))
            .collect::<Result<_, CudaError>>()?;
        Ok(LaunchSite {
            kernel: program.name.clone(),
            buffers: launch.buffers.clone(),
            provenance: launch.provenance.clone(),
            variants,
        })
    }

    /// The number of a variant's entry.
    fn entry(&mut self, variant: &Variant, buffers: usize) -> Result<usize, CudaError> {
        let arguments = 1 + buffers + usize::from(has_workspace(variant));
        let shared_bytes = variant.shared_bytes.as_const();
        let Some(at) = self.entries.iter().position(|e| e.name == variant.entry) else {
            self.entries.push(EntryUse { name: variant.entry.clone(), arguments, shared_bytes });
            return Ok(self.entries.len() - 1);
        };
        let entry = &mut self.entries[at];
        if entry.arguments != arguments {
            let what = format!("entry `{}`", variant.entry);
            return Err(malformed(what, "launches give it different numbers of arguments"));
        }
        entry.shared_bytes = entry.shared_bytes.zip(shared_bytes).map(|(a, b)| a.max(b));
        Ok(at)
    }
}

/// Operands of host work.
fn operands(op: &HostOp) -> usize {
    match op {
        HostOp::NonZero | HostOp::Unique { .. } => 1,
        HostOp::NonMaxSuppression { .. } => 5,
    }
}

fn known(plan: &Plan, buffer: u32, what: &str) -> Result<(), CudaError> {
    let found = plan.buffers.get(buffer as usize);
    let found = found.ok_or_else(|| malformed(what, format!("there is no buffer {buffer}")))?;
    let (kind, index, count) = match found.place {
        Place::Input(i) => ("input", i, plan.inputs.len()),
        Place::Output(o) => ("output", o, plan.outputs.len()),
        Place::Weight(_) | Place::Arena { .. } => return Ok(()),
    };
    if index as usize >= count {
        return Err(malformed(what, format!("there is no {kind} {index}")));
    }
    Ok(())
}

/// Weights are shared and never written.
fn writable(plan: &Plan, buffer: u32, what: &str) -> Result<(), CudaError> {
    known(plan, buffer, what)?;
    match plan.buffers[buffer as usize].place {
        Place::Weight(_) => Err(malformed(what, "it stores to a weight")),
        _ => Ok(()),
    }
}
