//! Executes the cpu variant of a plan: an immutable engine shared by cheap instances.
//!
//! Kernels are bound when first launched under new symbol values; what derives from weights alone is packed once
//! per engine. In steady state a run allocates its outputs and nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tgc_ir::Tensor;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::kernel_program::{
    Access, Anchor, Body, Buffer as Argument, Epilogue, InstKind, KernelProgram, Load, Loops,
    Store, axis,
};
use tgc_ir::plan::{HostStep, Place, Plan, PlanBuffer, Source, Step};

use super::error::CpuError;
use super::exec::{Exec, Memory};
use super::host;
use super::index::number;
use super::kernels::Isa;
use super::kernels::buffer::Buffer;
use super::kernels::pool::Pool;
use super::kernels::region::{self, Region};
use super::program::{CpuProgram, Packs};

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
    plan: Plan,
    weights: Vec<Weight>,
    isa: Isa,
    pool: Pool,
    steps: Vec<Node>,
    launches: Vec<LaunchSite>,
}

/// Bytes of a weight, in place when aligned.
#[derive(Debug)]
struct Weight {
    tensor: Tensor,
    aligned: Option<Buffer>,
}

/// A launch of the plan, numbered through all nested steps.
#[derive(Debug)]
struct LaunchSite {
    kernel: Arc<KernelProgram>,
    buffers: Vec<u32>,
    /// Symbols that the kernel depends on, as positions in the plan's table.
    symbols: Vec<usize>,
    packs: Packs,
}

/// A step with its launches numbered.
#[derive(Debug)]
enum Node {
    Launch(usize),
    Host(HostStep),
    If { predicate: u32, then: Vec<Node>, otherwise: Vec<Node> },
    Loop(Box<LoopNode>),
}

#[derive(Debug)]
struct LoopNode {
    trip: Option<u32>,
    condition: Option<u32>,
    iteration: Option<u32>,
    body: Vec<Node>,
    carried: Vec<usize>,
    /// (copy launch, stack buffer)
    stacked: Vec<(usize, u32)>,
    rounds: Option<Symbol>,
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
            Step::Host(host) => Node::Host(host.clone()),
            Step::If { predicate, then_steps, else_steps } => Node::If {
                predicate: *predicate,
                then: self.nodes(then_steps, kernels)?,
                otherwise: self.nodes(else_steps, kernels)?,
            },
            Step::Loop(l) => Node::Loop(Box::new(LoopNode {
                trip: l.trip,
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
            })),
        })
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
            let weight = matches!(self.plan.buffers[buffer as usize].place, Place::Weight(_));
            if weight && argument.access != Access::Read {
                return Err(malformed(&kernel.name, "a launch writes a weight"));
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

fn malformed(kernel: &str, why: &str) -> CpuError {
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

    fn region(&self) -> Region {
        self.aligned
            .as_ref()
            .map_or_else(|| region::of_bytes(self.tensor.bytes()), region::of_shared)
    }
}

/// One user of an engine: arena, scratch and the kernels bound for its current shapes.
#[derive(Debug)]
pub struct CpuInstance {
    engine: Arc<CpuEngine>,
    memory: Memory,
    arena: Buffer,
    /// Values of the plan's symbols; data symbols hold their bound until their step has run.
    symbols: Vec<i64>,
    /// Per buffer: bytes, and arena offset where it has one.
    buffers: Vec<(usize, usize)>,
    /// Symbol values for which `buffers` was computed.
    bound_for: Vec<i64>,
    programs: Vec<Option<(Vec<i64>, Arc<CpuProgram>)>>,
    regions: Vec<Region>,
    arguments: Vec<Region>,
    copies: Vec<Option<Buffer>>,
}

impl CpuInstance {
    /// An instance of an engine.
    #[must_use]
    pub fn new(engine: &Arc<CpuEngine>) -> Self {
        let threads = engine.pool.threads();
        Self {
            memory: Memory::new(threads),
            arena: Buffer::zeroed(0),
            symbols: Vec::new(),
            buffers: Vec::new(),
            bound_for: Vec::new(),
            programs: vec![None; engine.launches.len()],
            regions: Vec::new(),
            arguments: Vec::new(),
            copies: Vec::new(),
            engine: Arc::clone(engine),
        }
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<CpuEngine> {
        &self.engine
    }

    /// Runs the plan on inputs in the order of its signature; gives the outputs in theirs.
    ///
    /// # Errors
    /// When the inputs do not fit the signature or its constraints, or memory cannot be addressed.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, CpuError> {
        let engine = Arc::clone(&self.engine);
        self.bind(&engine.plan, inputs)?;
        let mut outputs = self.lay(&engine, inputs);
        let steps = catch_unwind(AssertUnwindSafe(|| self.steps(&engine, &engine.steps)));
        match steps {
            Ok(result) => result?,
            Err(panic) => return Err(panicked(panic.as_ref())),
        }
        (0..engine.plan.outputs.len()).map(|i| self.output(&engine.plan, i, &mut outputs)).collect()
    }

    /// Binds symbols from the inputs and, when they changed, computes sizes and offsets anew.
    fn bind(&mut self, plan: &Plan, inputs: &[Tensor]) -> Result<(), CpuError> {
        if inputs.len() != plan.inputs.len() {
            return Err(CpuError::Count {
                what: "inputs",
                expected: plan.inputs.len(),
                found: inputs.len(),
            });
        }
        let values = bind_symbols(plan, inputs)?;
        check_inputs(plan, inputs, &values)?;
        if self.bound_for == values && self.buffers.len() == plan.buffers.len() {
            self.symbols.clone_from(&values);
            return Ok(());
        }
        check_constraints(plan, &values)?;
        let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
        let eval = |dim: &Dim| {
            let value = number(dim, &lookup)
                .map_err(|source| CpuError::Dim { kernel: "memory plan".into(), source })?;
            usize::try_from(value)
                .map_err(|_| CpuError::Memory { what: "a buffer", bytes: dim.to_string() })
        };
        let arena = eval(&plan.arena_bytes)?;
        if arena > isize::MAX as usize / 2 {
            return Err(CpuError::Memory { what: "the arena", bytes: arena.to_string() });
        }
        let mut buffers = Vec::with_capacity(plan.buffers.len());
        for buffer in &plan.buffers {
            let bytes = eval(&buffer.bytes)?;
            let offset = match &buffer.place {
                Place::Arena { offset } => {
                    let offset = eval(offset)?;
                    if offset % 16 != 0 || offset + bytes > arena {
                        return Err(malformed(
                            &buffer.name,
                            "a buffer lies outside the arena or off its alignment",
                        ));
                    }
                    offset
                }
                _ => 0,
            };
            buffers.push((bytes, offset));
        }
        self.arena.reserve(arena);
        self.buffers = buffers;
        self.bound_for.clone_from(&values);
        self.symbols = values;
        Ok(())
    }

    /// Finds the memory of every buffer; gives the outputs' bytes.
    fn lay(&mut self, engine: &CpuEngine, inputs: &[Tensor]) -> Vec<Vec<u8>> {
        let plan = &engine.plan;
        let written = |b: usize| {
            let writes = |l: &LaunchSite| {
                l.kernel
                    .buffers
                    .iter()
                    .zip(&l.buffers)
                    .any(|(a, &x)| x as usize == b && a.access != Access::Read)
            };
            matches!(plan.buffers[b].place, Place::Input(_)) && engine.launches.iter().any(writes)
        };
        let mut outputs: Vec<Vec<u8>> = vec![Vec::new(); plan.outputs.len()];
        self.copies.resize_with(inputs.len(), || None);
        self.regions.clear();
        let arena = region::of_buffer(&mut self.arena);
        for (b, (buffer, &(bytes, offset))) in plan.buffers.iter().zip(&self.buffers).enumerate() {
            let region = match buffer.place {
                Place::Arena { .. } => arena.part(offset, bytes),
                Place::Weight(w) => engine.weights[w as usize].region(),
                Place::Input(i) => {
                    let input = &inputs[i as usize];
                    let aligned = region::is_aligned(input.bytes(), input.dtype());
                    if aligned && plan.inputs[i as usize].state.is_none()
                        || (aligned && !written(b))
                    {
                        region::of_bytes(input.bytes())
                    } else {
                        let copy = self.copies[i as usize].get_or_insert_with(|| Buffer::zeroed(0));
                        copy.reserve(bytes.max(input.bytes().len()));
                        copy.copy_in(input.bytes());
                        region::of_buffer(copy)
                    }
                }
                Place::Output(o) => {
                    let output = &mut outputs[o as usize];
                    output.resize(bytes.max(output.len()), 0);
                    region::of_vec(output)
                }
            };
            self.regions.push(region);
        }
        outputs
    }

    fn steps(&mut self, engine: &CpuEngine, steps: &[Node]) -> Result<(), CpuError> {
        for step in steps {
            match step {
                Node::Launch(site) => self.launch(engine, *site, None)?,
                Node::Host(host) => self.host(engine, host)?,
                Node::If { predicate, then, otherwise } => {
                    let branch = if self.truth(engine, *predicate)? { then } else { otherwise };
                    self.steps(engine, branch)?;
                }
                Node::Loop(l) => self.repeat(engine, l)?,
            }
        }
        Ok(())
    }

    /// Runs a launch; `shift` moves its second argument by elements.
    fn launch(
        &mut self,
        engine: &CpuEngine,
        at: usize,
        shift: Option<usize>,
    ) -> Result<(), CpuError> {
        let site = &engine.launches[at];
        let current = match &self.programs[at] {
            Some((values, program))
                if site.symbols.iter().zip(values).all(|(&s, v)| self.symbols[s] == *v) =>
            {
                program
            }
            _ => {
                let program = self.bind_launch(engine, site)?;
                let values = site.symbols.iter().map(|&s| self.symbols[s]).collect();
                &self.programs[at].insert((values, Arc::new(program))).1
            }
        };
        self.arguments.clear();
        self.arguments.extend(site.buffers.iter().map(|&b| self.regions[b as usize]));
        if let Some(elements) = shift {
            let bytes = site.kernel.buffers[1].dtype.storage_bytes(elements);
            let whole = self.arguments[1];
            self.arguments[1] =
                whole.part(bytes.min(whole.bytes()), whole.bytes().saturating_sub(bytes));
        }
        let exec = Exec { isa: engine.isa, pool: &engine.pool, memory: &self.memory };
        current.run(exec, &self.arguments);
        Ok(())
    }

    fn bind_launch(&self, engine: &CpuEngine, site: &LaunchSite) -> Result<CpuProgram, CpuError> {
        let constants: Vec<Option<Region>> = site
            .buffers
            .iter()
            .map(|&b| match engine.plan.buffers[b as usize].place {
                Place::Weight(w) => Some(engine.weights[w as usize].region()),
                _ => None,
            })
            .collect();
        let lookup =
            |s: &Symbol| engine.plan.symbol_index(s).and_then(|i| self.symbols.get(i).copied());
        CpuProgram::bind(&site.kernel, &lookup, engine.isa, &constants, &site.packs)
    }

    /// Extents and strides of a buffer under the current symbols.
    fn view(&self, plan: &Plan, b: u32) -> Result<host::View, CpuError> {
        let buffer = plan
            .buffers
            .get(b as usize)
            .ok_or_else(|| malformed("host step", "names no buffer"))?;
        let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| self.symbols.get(i).copied());
        let numbers = |dims: &[Dim]| {
            dims.iter()
                .map(|d| number(d, &lookup))
                .collect::<Result<Vec<_>, _>>()
                .map_err(|source| CpuError::Dim { kernel: buffer.name.clone(), source })
        };
        let (shape, strides) = (numbers(&buffer.shape)?, numbers(&buffer.strides)?);
        Ok(host::View { region: self.regions[b as usize], dtype: buffer.dtype, shape, strides })
    }

    fn host(&mut self, engine: &CpuEngine, step: &HostStep) -> Result<(), CpuError> {
        let inputs = step
            .inputs
            .iter()
            .map(|&b| self.view(&engine.plan, b))
            .collect::<Result<Vec<_>, _>>()?;
        let results = host::run(&step.op, &inputs)?;
        if let Some(at) = step.count.as_ref().and_then(|s| engine.plan.symbol_index(s)) {
            self.symbols[at] = results.count;
        }
        for (&b, tensor) in step.outputs.iter().zip(&results.tensors) {
            self.view(&engine.plan, b)?.write(tensor)?;
        }
        Ok(())
    }

    fn truth(&self, engine: &CpuEngine, b: u32) -> Result<bool, CpuError> {
        Ok(self.view(&engine.plan, b)?.first()?.is_true())
    }

    fn repeat(&mut self, engine: &CpuEngine, l: &LoopNode) -> Result<(), CpuError> {
        let trip = match l.trip {
            Some(b) => Some(self.view(&engine.plan, b)?.first()?.as_int()),
            None => None,
        };
        let mut round: i128 = 0;
        while trip.is_none_or(|t| round < t) {
            if let Some(condition) = l.condition
                && !self.truth(engine, condition)?
            {
                break;
            }
            if let Some(b) = l.iteration {
                self.view(&engine.plan, b)?.write(&Tensor::from_i64(&[], &[round as i64]))?;
            }
            self.steps(engine, &l.body)?;
            for &copy in &l.carried {
                self.launch(engine, copy, None)?;
            }
            for &(copy, stack) in &l.stacked {
                let stride = self.view(&engine.plan, stack)?.strides.first().copied().unwrap_or(1);
                self.launch(engine, copy, Some(round as usize * stride.max(0) as usize))?;
            }
            round += 1;
        }
        if let Some(at) = l.rounds.as_ref().and_then(|s| engine.plan.symbol_index(s)) {
            self.symbols[at] = round as i64;
        }
        Ok(())
    }

    fn output(&self, plan: &Plan, i: usize, outputs: &mut [Vec<u8>]) -> Result<Tensor, CpuError> {
        let port = &plan.outputs[i];
        let view = self.view(plan, port.buffer)?;
        let shape: Vec<usize> = view.shape.iter().map(|&n| n.max(0) as usize).collect();
        let bytes = port.dtype.storage_bytes(shape.iter().product());
        let own =
            matches!(plan.buffers[port.buffer as usize].place, Place::Output(o) if o as usize == i);
        if own && view.is_dense() {
            let mut data = std::mem::take(&mut outputs[i]);
            data.truncate(bytes);
            return Tensor::new(port.dtype, shape, data.into())
                .map_err(|e| malformed(&port.name, &e.to_string()));
        }
        view.read()
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> CpuError {
    let why = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a kernel stopped");
    malformed("of the plan", why)
}

/// The symbols' values: from extents and elements of inputs; for data symbols the bound.
fn bind_symbols(plan: &Plan, inputs: &[Tensor]) -> Result<Vec<i64>, CpuError> {
    let mut values: Vec<i64> = Vec::with_capacity(plan.symbols.len());
    for source in &plan.symbols {
        let earlier = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
        let eval = |dim: &Dim, extent: i64| {
            let lookup = |s: &Symbol| if s.name() == "$0" { Some(extent) } else { earlier(s) };
            number(dim, &lookup)
                .map_err(|source| CpuError::Dim { kernel: "signature".into(), source })
        };
        let value = match &source.source {
            Source::InputExtent { input, axis, solve } => {
                let port = &plan.inputs[*input as usize];
                let tensor = &inputs[*input as usize];
                let extent = tensor
                    .shape()
                    .get(*axis as usize)
                    .copied()
                    .ok_or_else(|| wrong_type(port, tensor))?;
                eval(solve, extent as i64)?
            }
            Source::InputElement { input, element } => {
                let tensor = &inputs[*input as usize];
                if *element as usize >= tensor.len() {
                    return Err(wrong_type(&plan.inputs[*input as usize], tensor));
                }
                tensor.value(*element as usize).as_int() as i64
            }
            Source::Data { bound, .. } => eval(bound, 0)?,
        };
        let (low, high) = (source.bounds.low, source.bounds.high);
        if value < low || high.is_some_and(|h| value > h) {
            let high = high.map_or("any".to_owned(), |h| h.to_string());
            return Err(CpuError::Bounds { symbol: source.symbol.to_string(), value, low, high });
        }
        values.push(value);
    }
    Ok(values)
}

fn wrong_type(port: &tgc_ir::plan::Port, found: &Tensor) -> CpuError {
    CpuError::InputType {
        name: port.name.clone(),
        expected: format!("{}{}", port.dtype, tgc_ir::types::DisplayDims(&port.shape)),
        found: format!("{}{:?}", found.dtype(), found.shape()),
    }
}

/// Every input has the type that the signature says under the bound symbols.
fn check_inputs(plan: &Plan, inputs: &[Tensor], values: &[i64]) -> Result<(), CpuError> {
    let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
    for (port, tensor) in plan.inputs.iter().zip(inputs) {
        let fits = port.dtype == tensor.dtype()
            && port.shape.len() == tensor.shape().len()
            && port
                .shape
                .iter()
                .zip(tensor.shape())
                .all(|(d, &n)| number(d, &lookup) == Ok(n as i64));
        if !fits {
            return Err(wrong_type(port, tensor));
        }
    }
    Ok(())
}

fn check_constraints(plan: &Plan, values: &[i64]) -> Result<(), CpuError> {
    let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| values.get(i).copied());
    for require in &plan.requires {
        let holds = require.holds(&lookup);
        let holds =
            holds.map_err(|source| CpuError::Dim { kernel: require.origin.clone(), source })?;
        if !holds {
            return Err(CpuError::Require {
                require: require.to_string(),
                origin: require.origin.clone(),
            });
        }
    }
    Ok(())
}
