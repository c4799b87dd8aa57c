//! One user of an engine: memory, binding, and what goes in and out.
//! [`super::run`] submits the steps.
//!
//! A run in which no extent changes allocates nothing on the device, binds
//! nothing and replays what is captured.

use std::sync::Arc;

use smallvec::SmallVec;
use tgc_ir::Tensor;
use tgc_ir::plan::{Place, Plan};
use tgc_ir::tensor::load;

use super::bind::{Bound, check_type};
use super::engine::{CudaEngine, allocate, check_count};
use super::error::CudaError;
use super::graphs::Buckets;
use super::launch::Values;
use super::layout::{Layout, Staged, check_limit, grown_bytes};
use super::raw::{Block, DevicePtr, Event, Graph, Pinned, Stream, StreamHandle};
use super::state::Held;
use super::transfer::{Shape, gather};

/// Alignment of pointers that kernels get: their widest access.
const POINTER_ALIGN: u64 = 16;

type Shapes<'a> = SmallVec<[&'a [usize]; 16]>;

/// One user of an engine: device memory, the current binding and its graphs.
#[derive(Debug)]
pub struct CudaInstance {
    bound: Bound,
    pub(super) layout: Layout,
    /// The inputs and outputs of the last run lay in the instance's block.
    is_staged: Option<bool>,
    /// Values of the plan's symbols, counts found while running included.
    pub(super) table: Vec<i64>,
    /// What the device's table holds; empty = unknown.
    pub(super) device_table: Vec<i64>,
    /// Inputs, then outputs.
    ports: Vec<u64>,
    /// Per buffer of the plan.
    pub(super) addresses: Vec<u64>,
    /// Addresses that captured graphs depend on.
    pub(super) key: Vec<u64>,
    pub(super) graphs: Buckets<Graph>,
    held: Vec<Held>,
    /// Mirror of the block's staged part.
    host: Pinned,
    pub(super) block: Block,
    /// The stream of the last run, which may still go on.
    last: Option<StreamHandle>,
    done: Event,
    pub(super) stream: Stream,
    pub(super) engine: Arc<CudaEngine>,
}

impl CudaInstance {
    /// An instance of an engine; its memory is taken when first bound.
    ///
    /// # Errors
    /// When the driver refuses a stream.
    pub fn new(engine: &Arc<CudaEngine>) -> Result<CudaInstance, CudaError> {
        let context = &engine.context;
        context.enter()?;
        let held = |_: &(usize, usize)| {
            let blocks = [Block::new(context, 0)?, Block::new(context, 0)?];
            Ok::<Held, CudaError>(Held { blocks, shape: Vec::new(), is_set: false })
        };
        Ok(CudaInstance {
            bound: Bound::default(),
            layout: Layout::default(),
            is_staged: None,
            table: Vec::new(),
            device_table: Vec::new(),
            ports: Vec::new(),
            addresses: Vec::new(),
            key: Vec::new(),
            graphs: Buckets::new(engine.program.segments.len()),
            held: engine.states.pairs.iter().map(held).collect::<Result<_, _>>()?,
            host: Pinned::new(context, 0)?,
            block: Block::new(context, 0)?,
            last: None,
            done: Event::new(context)?,
            stream: Stream::new(context)?,
            engine: Arc::clone(engine),
        })
    }

    /// The engine.
    #[must_use]
    pub fn engine(&self) -> &Arc<CudaEngine> {
        &self.engine
    }

    /// Bytes of device memory that this instance holds, weights not included.
    #[must_use]
    pub fn device_bytes(&self) -> usize {
        self.block.bytes() + self.held_bytes()
    }

    /// Graphs captured so far, over all bindings.
    #[must_use]
    pub fn captured_graphs(&self) -> usize {
        self.graphs.captured()
    }

    /// Runs on host tensors, in the order of the signature without held states; gives the
    /// outputs likewise.
    ///
    /// # Errors
    /// [`CudaError`] when inputs do not fit, memory does not suffice or the driver refuses.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, CudaError> {
        let engine = Arc::clone(&self.engine);
        engine.context.enter()?;
        let stream = self.stream.handle();
        let result = self.run_staged(&engine, inputs, stream);
        self.settle(stream, result)
    }

    /// Runs on device memory, on the caller's stream, without waiting unless the plan has steps
    /// of the host or symbols that are elements of inputs. Order as for [`CudaInstance::run`].
    ///
    /// # Errors
    /// As [`CudaInstance::run`]; also when memory is too small or not aligned to 16 bytes, and
    /// while the stream is being captured.
    pub fn run_device(
        &mut self,
        inputs: &[DevicePtr<'_>],
        outputs: &[DevicePtr<'_>],
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let engine = Arc::clone(&self.engine);
        engine.context.enter()?;
        if stream.is_capturing()? {
            return Err(CudaError::Capturing);
        }
        let result = self.run_outside(&engine, inputs, outputs, stream);
        self.settle(stream, result)
    }

    /// Extents of the outputs of the last run, held states included.
    ///
    /// # Errors
    /// Before the first run.
    pub fn output_shapes(&self) -> Result<Vec<Vec<usize>>, CudaError> {
        let values = Values { plan: &self.engine.plan, table: &self.table };
        let ports = self.engine.plan.outputs.iter();
        ports.map(|p| values.list(&p.shape, &p.name)).collect()
    }

    /// Sets the held states, in the order of the signature.
    ///
    /// # Errors
    /// When the engine holds none, their number or types differ, or memory does not suffice.
    pub fn set_states(&mut self, states: &[Tensor]) -> Result<(), CudaError> {
        let engine = Arc::clone(&self.engine);
        engine.context.enter()?;
        if states.len() != self.held.len() {
            let (expected, found) = (self.held.len(), states.len());
            return Err(CudaError::Count { what: "states", expected, found });
        }
        self.await_last()?;
        for (n, tensor) in states.iter().enumerate() {
            check_type(&engine.plan.inputs[engine.states.pairs[n].0], tensor)?;
            self.reserve_held(n, 0, tensor.bytes().len())?;
            self.stream.handle().copy_in(self.held[n].blocks[0].address(), tensor.bytes())?;
            self.held[n].shape = tensor.shape().to_vec();
            self.held[n].is_set = true;
        }
        Ok(self.stream.handle().synchronize()?)
    }

    /// Reads the held states.
    ///
    /// # Errors
    /// Before they were set, or when the driver refuses.
    pub fn states(&self) -> Result<Vec<Tensor>, CudaError> {
        self.engine.context.enter()?;
        self.await_last()?;
        let read = |(held, &(input, _)): (&Held, &(usize, usize))| {
            let port = &self.engine.plan.inputs[input];
            if !held.is_set {
                return Err(unset(&port.name));
            }
            let mut bytes = vec![0; port.dtype.storage_bytes(held.shape.iter().product())];
            self.stream.handle().copy_out(&mut bytes, held.blocks[0].address())?;
            let made = Tensor::new(port.dtype, held.shape.clone(), bytes.into());
            made.map_err(|e| CudaError::State(e.to_string()))
        };
        self.held.iter().zip(&self.engine.states.pairs).map(read).collect()
    }

    fn run_staged(
        &mut self,
        engine: &CudaEngine,
        inputs: &[Tensor],
        stream: StreamHandle,
    ) -> Result<Vec<Tensor>, CudaError> {
        let (plan, states) = (&engine.plan, &engine.states);
        let given = || (0..plan.inputs.len()).filter(|i| states.given[*i]);
        check_count("inputs", given().count(), inputs.len())?;
        for (i, tensor) in given().zip(inputs) {
            check_type(&plan.inputs[i], tensor)?;
        }
        let shapes = inputs.iter().map(Tensor::shape);
        let elements = |n: usize, element: usize| {
            let tensor = &inputs[n];
            Ok((element < tensor.len()).then(|| tensor.value(element).as_int() as i64))
        };
        self.bind(engine, shapes, &elements, true)?;
        self.follow(stream)?;
        let (base, [first, middle, end]) = (self.block.address(), self.layout.staged);
        self.reserve_host(engine, end - first)?;
        let host = self.host.as_mut_slice();
        for (i, tensor) in given().zip(inputs) {
            let at = self.layout.inputs[i] - first;
            let room = self.layout.buffers[plan.inputs[i].buffer as usize].0;
            let bytes = &tensor.bytes()[..tensor.bytes().len().min(room)];
            host[at..at + bytes.len()].copy_from_slice(bytes);
            self.ports[i] = base + self.layout.inputs[i] as u64;
        }
        for o in (0..plan.outputs.len()).filter(|o| states.taken[*o]) {
            self.ports[plan.inputs.len() + o] = base + self.layout.outputs[o] as u64;
        }
        stream.copy_in(base + first as u64, &self.host.as_slice()[..middle - first])?;
        self.execute(engine, stream)?;
        stream.copy_out(
            &mut self.host.as_mut_slice()[middle - first..end - first],
            base + middle as u64,
        )?;
        let outputs = (0..plan.outputs.len()).filter(|o| states.taken[*o]);
        outputs.map(|o| self.output(plan, o)).collect()
    }

    fn output(&self, plan: &Plan, o: usize) -> Result<Tensor, CudaError> {
        let buffer = plan.outputs[o].buffer;
        let room = self.layout.buffers[buffer as usize].0;
        let shape = Shape::of(plan, &self.table, buffer, room)?;
        let at = self.layout.outputs[o] - self.layout.staged[0];
        gather(&plan.buffers[buffer as usize], shape, &self.host.as_slice()[at..at + room])
    }

    fn run_outside(
        &mut self,
        engine: &CudaEngine,
        inputs: &[DevicePtr<'_>],
        outputs: &[DevicePtr<'_>],
        stream: StreamHandle,
    ) -> Result<(), CudaError> {
        let (plan, states) = (&engine.plan, &engine.states);
        let given = || (0..plan.inputs.len()).filter(|i| states.given[*i]);
        let taken = || (0..plan.outputs.len()).filter(|o| states.taken[*o]);
        check_count("inputs", given().count(), inputs.len())?;
        check_count("outputs", taken().count(), outputs.len())?;
        let dtypes: SmallVec<[_; 16]> = given().map(|i| plan.inputs[i].dtype).collect();
        let elements = |n: usize, element: usize| {
            let Some(width) = dtypes[n].bytes() else { return Ok(None) };
            if element >= inputs[n].shape().iter().product()
                || (element + 1) * width > inputs[n].bytes()
            {
                return Ok(None);
            }
            let mut bytes = [0u8; 16];
            stream.copy_out(&mut bytes[..width], inputs[n].address() + (element * width) as u64)?;
            Ok(Some(load(dtypes[n], &bytes[..width], 0).as_int() as i64))
        };
        self.bind(engine, inputs.iter().map(DevicePtr::shape), &elements, false)?;
        self.follow(stream)?;
        for (i, pointer) in given().zip(inputs) {
            self.ports[i] = self.outside(&plan.inputs[i], pointer)?;
        }
        for (o, pointer) in taken().zip(outputs) {
            self.ports[plan.inputs.len() + o] = self.outside(&plan.outputs[o], pointer)?;
        }
        self.execute(engine, stream)
    }

    /// A caller's address, when its memory is large enough and aligned.
    fn outside(
        &self,
        port: &tgc_ir::plan::Port,
        pointer: &DevicePtr<'_>,
    ) -> Result<u64, CudaError> {
        let needed = self.layout.buffers[port.buffer as usize].0;
        let refused = |why: String| CudaError::Pointer { name: port.name.clone(), why };
        if pointer.bytes() < needed {
            return Err(refused(format!("it has {} bytes, {needed} are needed", pointer.bytes())));
        }
        if needed > 0 && !pointer.address().is_multiple_of(POINTER_ALIGN) {
            return Err(refused(format!("its address is no multiple of {POINTER_ALIGN}")));
        }
        Ok(pointer.address())
    }

    /// Binds symbols to the extents of given inputs and of held states; makes room.
    fn bind<'a>(
        &mut self,
        engine: &CudaEngine,
        mut given: impl Iterator<Item = &'a [usize]>,
        element: &dyn Fn(usize, usize) -> Result<Option<i64>, CudaError>,
        is_staged: bool,
    ) -> Result<(), CudaError> {
        let (plan, signature, states) = (&engine.plan, &engine.signature, &engine.states);
        let mut elements: SmallVec<[i64; 8]> = SmallVec::new();
        for (symbol, input, at) in &signature.elements {
            let name = &plan.inputs[*input].name;
            if !states.given[*input] {
                let why = format!(
                    "`{symbol}` is an element of the state `{name}`, which the host does not see"
                );
                return Err(CudaError::State(why));
            }
            let n = states.given[..*input].iter().filter(|g| **g).count();
            let missing = || CudaError::Pointer {
                name: name.clone(),
                why: format!("it has no element {at}"),
            };
            elements.push(element(n, *at)?.ok_or_else(missing)?);
        }
        for (held, (input, _)) in self.held.iter().zip(&states.pairs) {
            if !held.is_set {
                return Err(unset(&plan.inputs[*input].name));
            }
        }
        let mut held = self.held.iter().map(|h| h.shape.as_slice());
        let mut pick = |is_given: &bool| if *is_given { given.next() } else { held.next() };
        let shapes: Shapes<'_> = states.given.iter().map(|g| pick(g).unwrap_or(&[])).collect();
        let changed = self.bound.bind(plan, signature, &shapes, &elements)?;
        drop(shapes);
        self.table.clone_from(&self.bound.table);
        if changed || self.is_staged != Some(is_staged) {
            self.is_staged = None;
            self.make_room(engine, is_staged)?;
            self.is_staged = Some(is_staged);
        }
        self.ports.resize(plan.inputs.len() + plan.outputs.len(), 0);
        Ok(())
    }

    fn make_room(&mut self, engine: &CudaEngine, is_staged: bool) -> Result<(), CudaError> {
        let (plan, states) = (&engine.plan, &engine.states);
        let values = Values { plan, table: &self.table };
        let none =
            SmallVec::<[bool; 16]>::from_elem(false, plan.inputs.len().max(plan.outputs.len()));
        let staged = if is_staged {
            Staged { inputs: &states.given, outputs: &states.taken }
        } else {
            Staged { inputs: &none[..plan.inputs.len()], outputs: &none[..plan.outputs.len()] }
        };
        self.layout = Layout::new(&engine.program, values, staged)?;
        let needed = engine.weight_bytes + self.layout.total + self.held_bytes();
        check_limit(needed as u64, engine.options.memory_limit)?;
        let Some(grown) = grown_bytes(self.block.bytes(), self.layout.total) else { return Ok(()) };
        let others = (engine.weight_bytes + self.held_bytes()) as u64;
        let left =
            engine.options.memory_limit.map_or(u64::MAX, |limit| limit.saturating_sub(others));
        let grown = grown.min(usize::try_from(left).unwrap_or(usize::MAX)).max(self.layout.total);
        self.await_last()?;
        self.graphs.clear();
        self.device_table.clear();
        self.block = Block::new(&engine.context, 0)?;
        self.block = allocate(&engine.context, "an instance", grown)?;
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        self.held.iter().flat_map(|h| &h.blocks).map(Block::bytes).sum()
    }

    /// Room for a state's present (0) or next (1) value.
    fn reserve_held(&mut self, n: usize, which: usize, bytes: usize) -> Result<(), CudaError> {
        let engine = Arc::clone(&self.engine);
        let present = self.held[n].blocks[which].bytes();
        let Some(grown) = grown_bytes(present, bytes) else { return Ok(()) };
        let others = engine.weight_bytes + self.device_bytes() - present;
        check_limit((others + grown) as u64, engine.options.memory_limit)?;
        self.await_last()?;
        self.held[n].blocks[which] = Block::new(&engine.context, 0)?;
        self.held[n].blocks[which] = allocate(&engine.context, "a state", grown)?;
        Ok(())
    }

    fn reserve_host(&mut self, engine: &CudaEngine, bytes: usize) -> Result<(), CudaError> {
        if let Some(grown) = grown_bytes(self.host.as_slice().len(), bytes) {
            self.host = Pinned::new(&engine.context, grown)?;
        }
        Ok(())
    }

    /// The value of a symbol that memory was planned for.
    pub(super) fn planned(&self, symbol: usize) -> i64 {
        self.bound.table[symbol]
    }

    /// Runs the steps with ports in place, then moves states on.
    fn execute(&mut self, engine: &CudaEngine, stream: StreamHandle) -> Result<(), CudaError> {
        let plan = &engine.plan;
        for (n, &(input, output)) in engine.states.pairs.iter().enumerate() {
            let bytes = self.layout.buffers[plan.outputs[output].buffer as usize].0;
            self.reserve_held(n, 1, bytes)?;
            self.ports[input] = self.held[n].blocks[0].address();
            self.ports[plan.inputs.len() + output] = self.held[n].blocks[1].address();
        }
        let arena = self.block.address() + self.layout.arena as u64;
        let inputs = plan.inputs.len();
        self.addresses.clear();
        for (buffer, (_, offset)) in plan.buffers.iter().zip(&self.layout.buffers) {
            self.addresses.push(match buffer.place {
                Place::Input(i) => self.ports.get(i as usize).copied().unwrap_or(0),
                Place::Output(o) => self.ports.get(inputs + o as usize).copied().unwrap_or(0),
                Place::Weight(w) => engine.weights[w as usize],
                Place::Arena { .. } => arena + *offset as u64,
            });
        }
        self.key.clone_from(&self.ports);
        self.key.push(arena);
        self.steps(engine, &engine.program.steps, stream)?;
        self.done.record(stream)?;
        self.last = Some(stream);
        for (n, &(_, output)) in engine.states.pairs.iter().enumerate() {
            let port = &plan.outputs[output];
            let shape = Values { plan, table: &self.table }.list(&port.shape, &port.name)?;
            self.held[n].advance(shape);
        }
        Ok(())
    }

    /// Has a stream wait for the last run, when that went to another.
    fn follow(&self, stream: StreamHandle) -> Result<(), CudaError> {
        match self.last {
            Some(last) if last != stream => Ok(stream.wait(&self.done)?),
            _ => Ok(()),
        }
    }

    /// Waits until the last run has finished.
    fn await_last(&self) -> Result<(), CudaError> {
        match self.last {
            Some(_) => Ok(self.done.synchronize()?),
            None => Ok(()),
        }
    }

    /// After an error: waits for what was submitted, and trusts nothing on the device.
    fn settle<T>(
        &mut self,
        stream: StreamHandle,
        result: Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        if result.is_err() {
            // The first error is the one worth reporting.
            drop(stream.synchronize());
            self.device_table.clear();
            self.bound.forget();
        }
        result
    }
}

impl Drop for CudaInstance {
    fn drop(&mut self) {
        if self.engine.context.enter().is_ok() {
            // Memory must not go while kernels use it; an error has no one to go to.
            drop(self.await_last());
        }
    }
}

fn unset(name: &str) -> CudaError {
    CudaError::State(format!("`{name}` has no value yet; set the states before the first run"))
}
