//! Submitting a plan's steps: segments directly or as captured graphs, and
//! the host's own work between them.

use tgc_ir::Tensor;
use tgc_ir::dim::Symbol;
use tgc_ir::plan::{HostStep, NO_BUFFER, Plan, PlanBuffer, Trip};
use tgc_ir::scalar::Value;

use super::engine::CudaEngine;
use super::error::{CudaError, malformed};
use super::graphs::Slot;
use super::instance::CudaInstance;
use super::launch::{Values, is_dense};
use super::layout::Layout;
use super::program::{LaunchSite, LoopNode, Node, Work, has_workspace};
use super::raw::StreamHandle;
use super::transfer::{Shape, gather, scatter};

/// What submitting a segment needs.
struct Submission<'a> {
    engine: &'a CudaEngine,
    values: Values<'a>,
    layout: &'a Layout,
    addresses: &'a [u64],
    /// Address of the instance's block.
    base: u64,
}

impl Submission<'_> {
    fn segment(&self, works: &[Work], stream: StreamHandle) -> Result<(), CudaError> {
        works.iter().try_for_each(|work| match work {
            Work::Launch(site) => self.launch(site, stream),
            Work::Copy { from, to } => {
                let buffers = &self.values.plan.buffers;
                let (source, target) = (&buffers[*from as usize], &buffers[*to as usize]);
                let room = (self.addresses[*to as usize], self.layout.buffers[*to as usize].0);
                self.copy(*from, source, room, target, stream)
            }
        })
    }

    fn copy(
        &self,
        from: u32,
        source: &PlanBuffer,
        (to, room): (u64, usize),
        target: &PlanBuffer,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let start = self.addresses[from as usize];
        for (from, at, bytes) in self.values.copy_runs(source, target)? {
            if at + bytes > room {
                let (from, to) = (source.name.clone(), target.name.clone());
                let why = format!("it needs {} bytes where {room} were planned", at + bytes);
                return Err(CudaError::Copy { from, to, why });
            }
            if bytes > 0 {
                stream.copy(to + at as u64, start + from as u64, bytes)?;
            }
        }
        Ok(())
    }

    fn launch(&self, site: &LaunchSite, stream: StreamHandle) -> Result<(), CudaError> {
        let (variant, entry) = self.values.select(site)?;
        let Some(grid) = self.values.grid(site, variant)? else { return Ok(()) };
        let shared = self.values.bytes(&variant.shared_bytes, &site.kernel)?;
        let most = self.engine.shared_max[entry];
        if shared > most as usize {
            let why = format!("it takes {shared} bytes of shared memory, {most} are allowed");
            return Err(CudaError::Launch { kernel: site.kernel.clone(), why });
        }
        let mut pointers: smallvec::SmallVec<[u64; 32]> = smallvec::smallvec![self.base];
        pointers.extend(site.buffers.iter().map(|b| self.addresses[*b as usize]));
        if has_workspace(variant) {
            let bytes = self.values.bytes(&variant.workspace_bytes, &site.kernel)?;
            if bytes > self.layout.workspace_bytes {
                let what = format!("kernel `{}`", site.kernel);
                return Err(malformed(
                    what,
                    "its workspace is larger than at the bound of its symbols",
                ));
            }
            let workspace = self.base + self.layout.workspace as u64;
            if bytes > 0 {
                stream.zero(workspace, bytes)?;
            }
            pointers.push(workspace);
        }
        let function = self.engine.functions[entry];
        Ok(stream.launch(function, grid, variant.block, shared as u32, &pointers)?)
    }
}

impl CudaInstance {
    fn submission<'a>(&'a self, engine: &'a CudaEngine) -> Submission<'a> {
        Submission {
            engine,
            values: Values { plan: &engine.plan, table: &self.table },
            layout: &self.layout,
            addresses: &self.addresses,
            base: self.block.address(),
        }
    }

    pub(super) fn steps(
        &mut self,
        engine: &CudaEngine,
        steps: &[Node],
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        steps.iter().try_for_each(|step| match step {
            Node::Segment(at) => self.segment(engine, *at, stream),
            Node::Host(host) => self.host(engine, host, stream),
            Node::If { predicate, then, otherwise } => {
                let holds = self.scalar(&engine.plan, *predicate, stream)?.is_true();
                self.steps(engine, if holds { then } else { otherwise }, stream)
            }
            Node::Loop(l) => self.repeat(engine, l, stream),
        })
    }

    /// Runs a segment: directly when its binding is new, captured when it comes again, then replayed.
    fn segment(
        &mut self,
        engine: &CudaEngine,
        at: usize,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        self.upload_table(stream)?;
        let works = &engine.program.segments[at];
        match self.graphs.slot(&self.table, &self.key, at) {
            Slot::Captured(graph) => Ok(stream.replay(graph)?),
            slot @ Slot::New => {
                *slot = Slot::Seen;
                self.submission(engine).segment(works, stream)
            }
            Slot::Seen => {
                let submission = self.submission(engine);
                let graph = self.stream.capture(|stream| submission.segment(works, stream))?;
                stream.replay(&graph)?;
                *self.graphs.slot(&self.table, &self.key, at) = Slot::Captured(graph);
                Ok(())
            }
        }
    }

    /// Brings the device's symbol table up to date.
    fn upload_table(&mut self, stream: StreamHandle) -> Result<(), CudaError> {
        if self.device_table != self.table {
            let bytes: Vec<u8> = self.table.iter().flat_map(|v| v.to_le_bytes()).collect();
            stream.copy_in(self.block.address(), &bytes)?;
            self.device_table.clone_from(&self.table);
        }
        Ok(())
    }

    fn shape(&self, plan: &Plan, buffer: u32) -> Result<Shape, CudaError> {
        Shape::of(plan, &self.table, buffer, self.layout.buffers[buffer as usize].0)
    }

    /// Reads a buffer; waits for the stream.
    fn read(&self, plan: &Plan, buffer: u32, stream: StreamHandle) -> Result<Tensor, CudaError> {
        let shape = self.shape(plan, buffer)?;
        let mut bytes = vec![0; shape.bytes];
        stream.copy_out(&mut bytes, self.addresses[buffer as usize])?;
        gather(&plan.buffers[buffer as usize], shape, &bytes)
    }

    /// Writes a buffer.
    fn write(
        &self,
        plan: &Plan,
        buffer: u32,
        tensor: &Tensor,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let shape = self.shape(plan, buffer)?;
        let address = self.addresses[buffer as usize];
        let found = &plan.buffers[buffer as usize];
        if is_dense(&shape.extents, &shape.strides)
            && shape.extents == tensor.shape()
            && found.dtype == tensor.dtype()
        {
            return Ok(stream.copy_in(address, tensor.bytes())?);
        }
        let mut bytes = vec![0; shape.bytes];
        stream.copy_out(&mut bytes, address)?;
        scatter(found, &shape, tensor, &mut bytes)?;
        Ok(stream.copy_in(address, &bytes)?)
    }

    /// The element of a buffer of one.
    fn scalar(&self, plan: &Plan, buffer: u32, stream: StreamHandle) -> Result<Value, CudaError> {
        let tensor = self.read(plan, buffer, stream)?;
        let name = &plan.buffers[buffer as usize].name;
        match tensor.len() {
            1 => Ok(tensor.value(0)),
            n => {
                Err(malformed(format!("buffer `{name}`"), format!("it decides with {n} elements")))
            }
        }
    }

    /// Gives a symbol the count that a step found.
    fn count(&mut self, plan: &Plan, symbol: Option<&Symbol>, count: i64) -> Result<(), CudaError> {
        let Some(symbol) = symbol else { return Ok(()) };
        let at = plan.symbol_index(symbol);
        let at =
            at.ok_or_else(|| malformed(format!("symbol `{symbol}`"), "it is not in the table"))?;
        // Until found, the table held the bound that memory was planned for.
        let bound = self.planned(at);
        if count > bound {
            let why = format!("{count} were found where {bound} were planned");
            return Err(malformed(format!("symbol `{symbol}`"), why));
        }
        self.table[at] = count;
        Ok(())
    }

    fn host(
        &mut self,
        engine: &CudaEngine,
        step: &HostStep,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let plan = &engine.plan;
        let inputs = step.inputs.iter().map(|b| self.read(plan, *b, stream));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let (outputs, count) = crate::host::run(&step.op, &inputs);
        self.count(plan, step.count.as_ref(), count as i64)?;
        let mut kept = step.outputs.iter().zip(&outputs).filter(|(b, _)| **b != NO_BUFFER);
        kept.try_for_each(|(b, tensor)| self.write(plan, *b, tensor, stream))
    }

    fn repeat(
        &mut self,
        engine: &CudaEngine,
        l: &LoopNode,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let plan = &engine.plan;
        let trip = match &l.trip {
            Trip::Unbounded => i64::MAX,
            Trip::Known(dim) => Values { plan, table: &self.table }.eval(dim, "a loop")?,
            Trip::Read(buffer) => self.scalar(plan, *buffer, stream)?.as_int() as i64,
        };
        let mut round = 0i64;
        while round < trip {
            if let Some(condition) = l.condition
                && !self.scalar(plan, condition, stream)?.is_true()
            {
                break;
            }
            if l.counts_rounds {
                self.count(plan, l.rounds.as_ref(), round)?;
            }
            if let Some(counter) = l.iteration {
                let shape = self.shape(plan, counter)?.extents;
                self.write(plan, counter, &Tensor::from_i64(&shape, &[round]), stream)?;
            }
            self.steps(engine, &l.body, stream)?;
            for &(value, stack) in &l.stacked {
                self.stack(engine, value, stack, round as usize, stream)?;
            }
            round += 1;
        }
        self.count(plan, l.rounds.as_ref(), round)
    }

    /// Copies a round's value to its slice along the first axis of a stack.
    fn stack(
        &self,
        engine: &CudaEngine,
        value: u32,
        stack: u32,
        round: usize,
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let plan = &engine.plan;
        let (source, whole) = (&plan.buffers[value as usize], &plan.buffers[stack as usize]);
        let full =
            || malformed(format!("buffer `{}`", whole.name), "a loop stacks more than it holds");
        let slice = PlanBuffer {
            shape: source.shape.clone(),
            strides: whole.strides.get(1..).ok_or_else(full)?.to_vec(),
            ..whole.clone()
        };
        let width = whole.dtype.bytes().ok_or_else(full)?;
        let strides = self.submission(engine).values.list(&whole.strides, &whole.name)?;
        let first = round * strides.first().ok_or_else(full)? * width;
        // What the first axis holds is planned for the bound of the rounds.
        let room = self.layout.buffers[stack as usize].0.checked_sub(first).ok_or_else(full)?;
        if whole.dtype != source.dtype {
            return Err(full());
        }
        let to = self.addresses[stack as usize] + first as u64;
        self.submission(engine).copy(value, source, (to, room), &slice, stream)
    }
}
