//! A plan's steps with the host between them, on any device that runs
//! segments and has memory that the host reads and writes. Knows no driver.

use smallvec::SmallVec;
use tgc_ir::Tensor;
use tgc_ir::dim::Symbol;
use tgc_ir::plan::{HostStep, NO_BUFFER, Plan, PlanBuffer, Trip, Variant};
use tgc_ir::scalar::Value;

use super::error::{CudaError, malformed};
use super::launch::{Values, is_dense};
use super::layout::Layout;
use super::program::{LaunchSite, LoopNode, Node, has_workspace};
use super::transfer::{Shape, gather, scatter};

/// What lies where under the present values of the symbols.
#[derive(Clone, Copy)]
pub(super) struct Frame<'a> {
    pub(super) values: Values<'a>,
    pub(super) layout: &'a Layout,
    /// Per buffer of the plan.
    pub(super) addresses: &'a [u64],
    /// Address of the table of symbols.
    pub(super) table: u64,
    /// Address of the scratch that kernels find zeroed.
    pub(super) workspace: u64,
}

/// A launch with every size known.
pub(super) struct Call<'s> {
    pub(super) variant: &'s Variant,
    /// Number of the entry.
    pub(super) entry: usize,
    pub(super) grid: [u32; 3],
    pub(super) shared_bytes: usize,
    /// The arguments: the table of symbols, buffers, workspace.
    pub(super) pointers: SmallVec<[u64; 32]>,
    /// Bytes of the workspace to zero before.
    pub(super) zeroed: usize,
}

impl Frame<'_> {
    /// The launch of a site; `None` when there is nothing to do.
    pub(super) fn call<'s>(&self, site: &'s LaunchSite) -> Result<Option<Call<'s>>, CudaError> {
        let (variant, entry) = self.values.select(site)?;
        let Some(grid) = self.values.grid(site, variant)? else { return Ok(None) };
        let shared_bytes = self.values.bytes(&variant.shared_bytes, &site.kernel)?;
        let mut pointers: SmallVec<[u64; 32]> = smallvec::smallvec![self.table];
        pointers.extend(site.buffers.iter().map(|b| self.addresses[*b as usize]));
        let mut zeroed = 0;
        if has_workspace(variant) {
            zeroed = self.values.bytes(&variant.workspace_bytes, &site.kernel)?;
            if zeroed > self.layout.workspace_bytes {
                let what = format!("kernel `{}`", site.kernel);
                let why = "its workspace is larger than at the bound of its symbols";
                return Err(malformed(what, why));
            }
            pointers.push(self.workspace);
        }
        Ok(Some(Call { variant, entry, grid, shared_bytes, pointers, zeroed }))
    }

    /// Runs of bytes that copy a buffer to another: (from, to, bytes), addresses.
    pub(super) fn copies(&self, from: u32, to: u32) -> Result<Vec<(u64, u64, usize)>, CudaError> {
        let target = &self.values.plan.buffers[to as usize];
        let room = (self.addresses[to as usize], self.layout.buffers[to as usize].0);
        self.copies_into(from, target, room)
    }

    /// As [`Frame::copies`], into a part of a buffer.
    fn copies_into(
        &self,
        from: u32,
        target: &PlanBuffer,
        (to, room): (u64, usize),
    ) -> Result<Vec<(u64, u64, usize)>, CudaError> {
        let source = &self.values.plan.buffers[from as usize];
        let start = self.addresses[from as usize];
        let mut copies = self.values.copy_runs(source, target)?;
        copies.retain(|(.., bytes)| *bytes > 0);
        if let Some(end) = copies.iter().map(|(_, at, bytes)| at + bytes).find(|end| *end > room) {
            let (from, to) = (source.name.clone(), target.name.clone());
            let why = format!("it needs {end} bytes where {room} were planned");
            return Err(CudaError::Copy { from, to, why });
        }
        let absolute = |(from, at, bytes)| (start + from as u64, to + at as u64, bytes);
        Ok(copies.into_iter().map(absolute).collect())
    }

    fn shape(&self, buffer: u32) -> Result<Shape, CudaError> {
        let room = self.layout.buffers[buffer as usize].0;
        Shape::of(self.values.plan, self.values.table, buffer, room)
    }
}

/// What runs segments.
pub(super) trait Device {
    type Error: From<CudaError>;

    fn frame(&self) -> Frame<'_>;
    /// The value of a symbol that memory was planned for.
    fn planned(&self, symbol: usize) -> i64;
    fn set_symbol(&mut self, symbol: usize, value: i64);
    /// Runs a segment of the program.
    fn segment(&mut self, at: usize) -> Result<(), Self::Error>;
    /// Reads memory after all work before it.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Self::Error>;
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Self::Error>;
    fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), Self::Error>;
}

/// A plan on a device.
pub(super) struct Steps<'a, D> {
    pub(super) plan: &'a Plan,
    pub(super) device: D,
}

impl<D: Device> Steps<'_, D> {
    pub(super) fn run(&mut self, steps: &[Node]) -> Result<(), D::Error> {
        steps.iter().try_for_each(|step| match step {
            Node::Segment(at) => self.device.segment(*at),
            Node::Host(host) => self.host(host),
            Node::If { predicate, then, otherwise } => {
                let holds = self.scalar(*predicate)?.is_true();
                self.run(if holds { then } else { otherwise })
            }
            Node::Loop(l) => self.repeat(l),
        })
    }

    /// Reads a buffer.
    pub(super) fn read(&self, buffer: u32) -> Result<Tensor, D::Error> {
        let frame = self.device.frame();
        let shape = frame.shape(buffer)?;
        let mut bytes = vec![0; shape.bytes];
        self.device.read(frame.addresses[buffer as usize], &mut bytes)?;
        Ok(gather(&self.plan.buffers[buffer as usize], shape, &bytes)?)
    }

    /// Writes a buffer.
    fn write(&mut self, buffer: u32, tensor: &Tensor) -> Result<(), D::Error> {
        let frame = self.device.frame();
        let shape = frame.shape(buffer)?;
        let address = frame.addresses[buffer as usize];
        let found = &self.plan.buffers[buffer as usize];
        if is_dense(&shape.extents, &shape.strides)
            && shape.extents == tensor.shape()
            && found.dtype == tensor.dtype()
        {
            return self.device.write(address, tensor.bytes());
        }
        let mut bytes = vec![0; shape.bytes];
        self.device.read(address, &mut bytes)?;
        scatter(found, &shape, tensor, &mut bytes)?;
        self.device.write(address, &bytes)
    }

    /// The element of a buffer of one.
    fn scalar(&self, buffer: u32) -> Result<Value, D::Error> {
        let tensor = self.read(buffer)?;
        let name = &self.plan.buffers[buffer as usize].name;
        match tensor.len() {
            1 => Ok(tensor.value(0)),
            n => {
                let why = format!("it decides with {n} elements");
                Err(malformed(format!("buffer `{name}`"), why).into())
            }
        }
    }

    /// Gives a symbol the count that a step found.
    fn count(&mut self, symbol: Option<&Symbol>, count: i64) -> Result<(), D::Error> {
        let Some(symbol) = symbol else { return Ok(()) };
        let at = self.plan.symbol_index(symbol);
        let at =
            at.ok_or_else(|| malformed(format!("symbol `{symbol}`"), "it is not in the table"))?;
        // Until found, the table held the bound that memory was planned for.
        let bound = self.device.planned(at);
        if count > bound {
            let why = format!("{count} were found where {bound} were planned");
            return Err(malformed(format!("symbol `{symbol}`"), why).into());
        }
        self.device.set_symbol(at, count);
        Ok(())
    }

    fn host(&mut self, step: &HostStep) -> Result<(), D::Error> {
        let inputs = step.inputs.iter().map(|b| self.read(*b));
        let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
        let (outputs, count) = crate::host::run(&step.op, &inputs);
        self.count(step.count.as_ref(), count as i64)?;
        let mut kept = step.outputs.iter().zip(&outputs).filter(|(b, _)| **b != NO_BUFFER);
        kept.try_for_each(|(b, tensor)| self.write(*b, tensor))
    }

    fn repeat(&mut self, l: &LoopNode) -> Result<(), D::Error> {
        let trip = match &l.trip {
            Trip::Unbounded => i64::MAX,
            Trip::Known(dim) => self.device.frame().values.eval(dim, "a loop")?,
            Trip::Read(buffer) => self.scalar(*buffer)?.as_int() as i64,
        };
        let mut round = 0i64;
        while round < trip {
            if let Some(condition) = l.condition
                && !self.scalar(condition)?.is_true()
            {
                break;
            }
            if l.counts_rounds {
                self.count(l.rounds.as_ref(), round)?;
            }
            if let Some(counter) = l.iteration {
                let shape = self.device.frame().shape(counter)?.extents;
                self.write(counter, &Tensor::from_i64(&shape, &[round]))?;
            }
            self.run(&l.body)?;
            for &(value, stack) in &l.stacked {
                self.stack(value, stack, round as usize)?;
            }
            round += 1;
        }
        self.count(l.rounds.as_ref(), round)
    }

    /// Copies a round's value to its slice along the first axis of a stack.
    fn stack(&mut self, value: u32, stack: u32, round: usize) -> Result<(), D::Error> {
        let (source, whole) =
            (&self.plan.buffers[value as usize], &self.plan.buffers[stack as usize]);
        let full =
            || malformed(format!("buffer `{}`", whole.name), "a loop stacks more than it holds");
        let slice = PlanBuffer {
            shape: source.shape.clone(),
            strides: whole.strides.get(1..).ok_or_else(full)?.to_vec(),
            ..whole.clone()
        };
        let width = whole.dtype.bytes().ok_or_else(full)?;
        let frame = self.device.frame();
        let strides = frame.values.list(&whole.strides, &whole.name)?;
        let first = round * strides.first().ok_or_else(full)? * width;
        // What the first axis holds is planned for the bound of the rounds.
        let room = frame.layout.buffers[stack as usize].0.checked_sub(first).ok_or_else(full)?;
        if whole.dtype != source.dtype {
            return Err(full().into());
        }
        let to = frame.addresses[stack as usize] + first as u64;
        for (from, to, bytes) in frame.copies_into(value, &slice, (to, room))? {
            self.device.copy(to, from, bytes)?;
        }
        Ok(())
    }
}
