//! The immutable part of an executable plan: weights, threads, and the plan's steps with their launches numbered.
//! [`super::instance`] runs it.

use std::sync::Arc;

use tgc_ir::Tensor;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer as Argument, Epilogue, InstKind, KernelProgram, Load, Loops,
    Store, axis,
};
use tgc_ir::plan::{HostStep, LoopStep, Place, Plan, PlanBuffer, Step, Trip};

use super::error::CpuError;
use super::kernels::Isa;
use super::kernels::buffer::Buffer;
use super::kernels::pool::Pool;
use super::kernels::region::{self, Region};
use super::program::Packs;

/// How an engine runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Threads, the caller's included; 0 means the number of CPUs that this process may use.
    pub threads: usize,
    /// Instruction set; the best of the machine when absent.
    pub isa: Option<Isa>,
}

/// A plan with its weights, ready to make instances.
#[derive(Debug)]
pub struct CpuEngine {
    pub(super) plan: Plan,
    pub(super) weights: Vec<Weight>,
    pub(super) isa: Isa,
    pub(super) pool: Pool,
    pub(super) steps: Vec<Node>,
    pub(super) launches: Vec<LaunchSite>,
    /// Per buffer: some step stores to it.
    pub(super) written: Vec<bool>,
}

/// Bytes of a weight, in place when aligned.
#[derive(Debug)]
pub(super) struct Weight {
    tensor: Tensor,
    aligned: Option<Buffer>,
}

/// A launch of the plan, numbered through all nested steps.
#[derive(Debug)]
pub(super) struct LaunchSite {
    pub(super) kernel: Arc<KernelProgram>,
    pub(super) buffers: Vec<u32>,
    /// Symbols that the kernel depends on, as positions in the plan's table.
    pub(super) symbols: Vec<usize>,
    pub(super) packs: Packs,
}

/// A step with its launches numbered.
#[derive(Debug)]
pub(super) enum Node {
    Launch(usize),
    Host(HostStep),
    If { predicate: u32, then: Vec<Node>, otherwise: Vec<Node> },
    Loop(Box<LoopNode>),
}

#[derive(Debug)]
pub(super) struct LoopNode {
    pub(super) trip: Trip,
    pub(super) condition: Option<u32>,
    pub(super) iteration: Option<u32>,
    pub(super) body: Vec<Node>,
    pub(super) carried: Vec<usize>,
    /// (copy launch, stack buffer)
    pub(super) stacked: Vec<(usize, u32)>,
    pub(super) rounds: Option<Symbol>,
    pub(super) counts_rounds: bool,
}

impl CpuEngine {
    /// Takes a plan for the cpu and its weights in the plan's order; packs what does not depend on symbols.
    ///
    /// # Errors
    /// When weights are missing, a kernel cannot be bound or a thread cannot be started.
    pub fn new(plan: Plan, weights: Vec<Tensor>, options: Options) -> Result<Arc<Self>, CpuError> {
        let wanted = plan.buffers.iter().filter_map(|b| match b.place {
            Place::Weight(w) => Some(w as usize + 1),
            _ => None,
        });
        let expected = wanted.max().unwrap_or(0);
        if weights.len() < expected {
            return Err(CpuError::Count { what: "weights", expected, found: weights.len() });
        }
        let weights = weights.into_iter().map(Weight::new).collect();
        let threads = if options.threads == 0 {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        } else {
            options.threads
        };
        let isa = options.isa.unwrap_or_else(Isa::best);
        let mut engine = Self {
            weights,
            isa,
            pool: Pool::new(threads)?,
            steps: Vec::new(),
            launches: Vec::new(),
            written: vec![false; plan.buffers.len()],
            plan,
        };
        let steps = engine.plan.steps.clone();
        let kernels: Vec<Arc<KernelProgram>> =
            engine.plan.kernels.iter().cloned().map(Arc::new).collect();
        engine.steps = engine.nodes(&steps, &kernels)?;
        Ok(Arc::new(engine))
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Per launch, in the numbering of [`super::CpuInstance::run_watched`]: its kernel and the value it writes.
    #[must_use]
    pub fn launch_names(&self) -> Vec<(&str, &str)> {
        let written = |site: &LaunchSite| {
            let at = site.kernel.buffers.iter().rposition(|b| b.access != Access::Read);
            at.map_or("", |i| self.plan.buffers[site.buffers[i] as usize].name.as_str())
        };
        self.launches.iter().map(|site| (site.kernel.name.as_str(), written(site))).collect()
    }

    fn nodes(
        &mut self,
        steps: &[Step],
        kernels: &[Arc<KernelProgram>],
    ) -> Result<Vec<Node>, CpuError> {
        steps.iter().map(|step| self.node(step, kernels)).collect()
    }

    fn node(&mut self, step: &Step, kernels: &[Arc<KernelProgram>]) -> Result<Node, CpuError> {
        Ok(match step {
            Step::Launch(launch) => {
                let kernel = kernels.get(launch.kernel as usize).cloned();
                let kernel =
                    kernel.ok_or_else(|| malformed("launch", "names no kernel of the plan"))?;
                Node::Launch(self.site(kernel, launch.buffers.clone())?)
            }
            Step::Copy { from, to } => Node::Launch(self.copy(*from, *to, false)?),
            Step::Host(host) => {
                for &output in &host.outputs {
                    self.mark_written("host step", output)?;
                }
                Node::Host(host.clone())
            }
            Step::If { predicate, then_steps, else_steps } => Node::If {
                predicate: *predicate,
                then: self.nodes(then_steps, kernels)?,
                otherwise: self.nodes(else_steps, kernels)?,
            },
            Step::Loop(l) => {
                if let Some(counter) = l.iteration {
                    self.mark_written("loop", counter)?;
                }
                Node::Loop(Box::new(self.loop_node(l, kernels)?))
            }
        })
    }

    fn loop_node(
        &mut self,
        l: &LoopStep,
        kernels: &[Arc<KernelProgram>],
    ) -> Result<LoopNode, CpuError> {
        Ok(LoopNode {
            trip: l.trip.clone(),
            condition: l.condition,
            iteration: l.iteration,
            body: self.nodes(&l.body, kernels)?,
            carried: l
                .carried
                .iter()
                .map(|&(a, b)| self.copy(a, b, false))
                .collect::<Result<_, _>>()?,
            stacked: l
                .stacked
                .iter()
                .map(|&(value, stack)| Ok((self.copy(value, stack, true)?, stack)))
                .collect::<Result<_, CpuError>>()?,
            rounds: l.rounds.clone(),
            counts_rounds: l.counts_rounds,
        })
    }

    /// Notes that a step stores to a buffer; weights are never stored to.
    fn mark_written(&mut self, step: &str, buffer: u32) -> Result<(), CpuError> {
        let place = self.plan.buffers.get(buffer as usize).map(|b| &b.place);
        match place {
            None => Err(malformed(step, "names no buffer of the plan")),
            Some(Place::Weight(_)) => Err(malformed(step, "a step stores to a weight")),
            Some(_) => {
                self.written[buffer as usize] = true;
                Ok(())
            }
        }
    }

    fn site(&mut self, kernel: Arc<KernelProgram>, buffers: Vec<u32>) -> Result<usize, CpuError> {
        if buffers.len() != kernel.buffers.len()
            || buffers.iter().any(|&b| b as usize >= self.plan.buffers.len())
        {
            return Err(malformed(
                &kernel.name,
                "a launch binds other arguments than the kernel has",
            ));
        }
        for (argument, &buffer) in kernel.buffers.iter().zip(&buffers) {
            if argument.access != Access::Read {
                self.mark_written(&kernel.name, buffer)?;
            }
        }
        let mut symbols = Vec::new();
        for symbol in kernel.symbols() {
            let at = self.plan.symbol_index(&symbol);
            symbols.push(at.ok_or_else(|| {
                malformed(&kernel.name, &format!("`{symbol}` is no symbol of the plan"))
            })?);
        }
        self.launches.push(LaunchSite { kernel, buffers, symbols, packs: Packs::default() });
        Ok(self.launches.len() - 1)
    }

    /// A launch that copies a buffer; with `slice`, to one slice along the first axis of the target.
    fn copy(&mut self, from: u32, to: u32, slice: bool) -> Result<usize, CpuError> {
        let buffer = |b: u32| {
            self.plan.buffers.get(b as usize).ok_or_else(|| malformed("copy", "names no buffer"))
        };
        let (source, target) = (buffer(from)?, buffer(to)?);
        let skip = usize::from(slice);
        if source.dtype != target.dtype || source.shape.len() + skip != target.shape.len() {
            return Err(malformed("copy", "source and target differ in type"));
        }
        let kernel = copy_kernel(source, &target.strides[skip..]);
        self.site(Arc::new(kernel), vec![from, to])
    }
}

pub(super) fn malformed(kernel: &str, why: &str) -> CpuError {
    CpuError::Malformed { kernel: kernel.to_owned(), why: why.to_owned() }
}

/// A loop that copies a buffer of these extents.
fn copy_kernel(source: &PlanBuffer, to_strides: &[Dim]) -> KernelProgram {
    let argument = |access, strides: &[Dim]| Argument {
        access,
        dtype: source.dtype,
        shape: source.shape.clone(),
        strides: strides.to_vec(),
        constant: false,
    };
    let index: Vec<Dim> = (0..source.shape.len()).map(axis).collect();
    let mut body = Body::default();
    let load = Load { buffer: 0, index: index.clone(), guards: Vec::new(), otherwise: None };
    let value = body.push(source.dtype, InstKind::Load(load));
    let epilogue = Epilogue { body, stores: vec![Store { buffer: 1, index, value }] };
    KernelProgram {
        name: "copy".to_owned(),
        buffers: vec![argument(Access::Read, &source.strides), argument(Access::Write, to_strides)],
        anchor: Anchor::Loops(Loops { extents: source.shape.clone(), epilogue }),
    }
}

impl Weight {
    fn new(tensor: Tensor) -> Self {
        let aligned = region::aligned_copy(tensor.bytes(), tensor.dtype());
        Self { tensor, aligned }
    }

    pub(super) fn region(&self) -> Region {
        self.aligned
            .as_ref()
            .map_or_else(|| region::of_bytes(self.tensor.bytes()), region::of_shared)
    }
}
