//! One user of an engine: runs the plan's steps over memory of its own.
//!
//! Kernels are bound when first launched under new symbol values. In steady state a run allocates its outputs and
//! nothing else.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use tgc_ir::Tensor;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::plan::{HostStep, Place, Plan, Trip};

use super::binding::{bind_symbols, check_constraints, check_inputs};
use super::engine::{CpuEngine, LaunchSite, LoopNode, Node, malformed};
use super::error::CpuError;
use super::exec::{Exec, Memory};
use super::host;
use super::index::number;
use super::kernels::buffer::Buffer;
use super::kernels::region::{self, Region};
use super::program::CpuProgram;

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
        self.run_watched(inputs, &mut |_| {})
    }

    /// As [`CpuInstance::run`], calling `watch` with the number of each launch after it has run. Launches are
    /// numbered through the plan, those of nested steps included; [`CpuEngine::launch_names`] names them.
    ///
    /// # Errors
    /// As [`CpuInstance::run`].
    pub fn run_watched(
        &mut self,
        inputs: &[Tensor],
        watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor>, CpuError> {
        let engine = Arc::clone(&self.engine);
        self.bind(&engine.plan, inputs)?;
        let mut outputs = self.lay(&engine, inputs)?;
        let steps = catch_unwind(AssertUnwindSafe(|| self.steps(&engine, &engine.steps, watch)));
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
    fn lay(&mut self, engine: &CpuEngine, inputs: &[Tensor]) -> Result<Vec<Buffer>, CpuError> {
        let plan = &engine.plan;
        let mut outputs: Vec<Buffer> = (0..plan.outputs.len()).map(|_| Buffer::zeroed(0)).collect();
        self.copies.resize_with(inputs.len(), || None);
        self.regions.clear();
        let arena = region::of_buffer(&mut self.arena);
        for (b, (buffer, &(bytes, offset))) in plan.buffers.iter().zip(&self.buffers).enumerate() {
            let region = match buffer.place {
                Place::Arena { .. } => arena.part(offset, bytes),
                Place::Weight(w) => engine.weights[w as usize].region(),
                // The plan updates a state in place: input and output are one buffer with the strides of its
                // capacity.
                Place::Input(i) if plan.inputs[i as usize].state.is_some() => {
                    let copy = self.copies[i as usize].get_or_insert_with(|| Buffer::zeroed(0));
                    copy.reserve(bytes);
                    region::of_buffer(copy)
                }
                Place::Input(i) => {
                    let input = &inputs[i as usize];
                    let in_place =
                        region::is_aligned(input.bytes(), input.dtype()) && !engine.written[b];
                    if in_place {
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
                    output.reserve(bytes);
                    region::of_buffer(output)
                }
            };
            self.regions.push(region);
        }
        for (port, input) in plan.inputs.iter().zip(inputs) {
            if port.state.is_some() {
                self.view(plan, port.buffer)?.write(input)?;
            }
        }
        Ok(outputs)
    }

    fn steps(
        &mut self,
        engine: &CpuEngine,
        steps: &[Node],
        watch: &mut dyn FnMut(usize),
    ) -> Result<(), CpuError> {
        for step in steps {
            match step {
                Node::Launch(site) => {
                    self.launch(engine, *site, None)?;
                    watch(*site);
                }
                Node::Host(host) => self.host(engine, host)?,
                Node::If { predicate, then, otherwise } => {
                    let branch = if self.truth(engine, *predicate)? { then } else { otherwise };
                    self.steps(engine, branch, watch)?;
                }
                Node::Loop(l) => self.repeat(engine, l, watch)?,
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

    fn repeat(
        &mut self,
        engine: &CpuEngine,
        l: &LoopNode,
        watch: &mut dyn FnMut(usize),
    ) -> Result<(), CpuError> {
        let plan = &engine.plan;
        let most = self.most_rounds(plan, &l.trip)?;
        let rounds = l.rounds.as_ref().and_then(|s| plan.symbol_index(s));
        let planned = rounds.map_or(i64::MAX, |at| self.bound_for[at]);
        let mut round: i64 = 0;
        while i128::from(round) < most {
            if let Some(condition) = l.condition
                && !self.truth(engine, condition)?
            {
                break;
            }
            if round >= planned {
                let why = format!("its results have room for {planned} rounds, it runs more");
                return Err(CpuError::Step { step: "loop".into(), why });
            }
            if let Some(at) = rounds.filter(|_| l.counts_rounds) {
                self.symbols[at] = round;
            }
            if let Some(b) = l.iteration {
                self.view(plan, b)?.write(&Tensor::from_i64(&[], &[round]))?;
            }
            self.steps(engine, &l.body, watch)?;
            for &copy in &l.carried {
                self.launch(engine, copy, None)?;
            }
            for &(copy, stack) in &l.stacked {
                let stride = self.view(plan, stack)?.strides.first().copied().unwrap_or(1);
                self.launch(engine, copy, Some(round as usize * stride.max(0) as usize))?;
            }
            round += 1;
        }
        if let Some(at) = rounds {
            self.symbols[at] = round;
        }
        Ok(())
    }

    fn most_rounds(&self, plan: &Plan, trip: &Trip) -> Result<i128, CpuError> {
        let lookup = |s: &Symbol| plan.symbol_index(s).and_then(|i| self.symbols.get(i).copied());
        match trip {
            Trip::Unbounded => Ok(i128::MAX),
            Trip::Known(dim) => number(dim, &lookup)
                .map(i128::from)
                .map_err(|source| CpuError::Dim { kernel: "loop".into(), source }),
            Trip::Read(buffer) => Ok(self.view(plan, *buffer)?.first()?.as_int()),
        }
    }

    fn output(&self, plan: &Plan, i: usize, outputs: &mut [Buffer]) -> Result<Tensor, CpuError> {
        let port = &plan.outputs[i];
        let view = self.view(plan, port.buffer)?;
        let shape: Vec<usize> = view.shape.iter().map(|&n| n.max(0) as usize).collect();
        let bytes = port.dtype.storage_bytes(shape.iter().product());
        let own =
            matches!(plan.buffers[port.buffer as usize].place, Place::Output(o) if o as usize == i);
        if own && view.is_dense() {
            let data = std::mem::replace(&mut outputs[i], Buffer::zeroed(0));
            let data = Bytes::from_owner(data).slice(..bytes);
            return Tensor::new(port.dtype, shape, data)
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
