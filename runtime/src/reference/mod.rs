//! The reference device: plans run by the evaluation that defines every
//! kernel anchor. Slow, and right by definition; verification compares
//! kernels with graphs through it.

use std::collections::BTreeMap;

use tgc_ir::Symbol;
use tgc_ir::bind::{BindError, Binding};
use tgc_ir::eval::{EvalError, KernelData, Mode, run_kernel};
use tgc_ir::graph::Graph;
use tgc_ir::kernel_program::{Access, Anchor};
use tgc_ir::plan::{
    HostStep, Launch, LoopStep, NO_BUFFER, Place, Plan, PlanBuffer, Source, Step, Trip,
};
use tgc_ir::tensor::Tensor;

use crate::host;

/// Binds the symbols of a plan from its inputs, and checks its constraints.
///
/// # Errors
/// [`BindError`] naming the input, the axis and what is allowed.
pub fn bind_plan(plan: &Plan, inputs: &[Tensor]) -> Result<Binding, BindError> {
    let mut preset: BTreeMap<Symbol, i64> = BTreeMap::new();
    for source in &plan.symbols {
        if let Source::InputElement { input, element } = source.source
            && let Some(tensor) = inputs.get(input as usize)
            && (element as usize) < tensor.len()
        {
            preset.insert(source.symbol.clone(), tensor.value(element as usize).as_int() as i64);
        }
    }
    let types: Vec<tgc_ir::TensorType> = plan
        .inputs
        .iter()
        .map(|p| tgc_ir::TensorType::new(p.dtype, p.shape.iter().cloned()))
        .collect();
    let shapes: Vec<(&str, &tgc_ir::TensorType, &[usize])> = plan
        .inputs
        .iter()
        .zip(&types)
        .zip(inputs)
        .map(|((p, ty), x)| (p.name.as_str(), ty, x.shape()))
        .collect();
    Binding::from_inputs(&shapes, &plan.facts(), preset)
}

/// Runs a plan on the kernel reference; outputs in order.
///
/// # Errors
/// [`EvalError`] when inputs do not bind, a kernel reads outside a buffer or
/// an element that nothing wrote.
pub fn run_plan(
    plan: &Plan,
    weights: &[Option<Tensor>],
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, EvalError> {
    let binding = bind_plan(plan, inputs)?;
    let mut runner = Runner { plan, binding, data: vec![None; plan.buffers.len()] };
    for (i, buffer) in plan.buffers.iter().enumerate() {
        runner.data[i] = match buffer.place {
            Place::Input(n) if plan.inputs[n as usize].buffer != i as u32 => None,
            Place::Input(n) => Some(runner.spread(i as u32, &inputs[n as usize])?),
            Place::Weight(n) => {
                let tensor = weights.get(n as usize).and_then(Option::as_ref);
                Some(KernelData::from_tensor(
                    tensor.ok_or_else(|| EvalError::NoWeight(buffer.name.clone()))?,
                ))
            }
            _ => None,
        };
    }
    runner.steps(&plan.steps)?;
    plan.outputs.iter().map(|port| runner.tensor(port.buffer)).collect()
}

/// Rounds that the reference runs before it gives up.
const ROUNDS_MAX: usize = 1 << 20;

/// Stores a tensor's elements at offsets, making room.
fn store(data: &mut KernelData, offsets: &[usize], tensor: &Tensor) {
    let end = offsets.iter().max().map_or(0, |last| last + 1);
    data.elements.resize(data.elements.len().max(end), None);
    offsets.iter().enumerate().for_each(|(i, at)| data.elements[*at] = Some(tensor.value(i)));
}

/// Runs one launch of a plan on given contents of the buffers that it reads;
/// gives the buffers that it writes.
///
/// # Errors
/// [`EvalError`] as [`run_plan`]; [`EvalError::NoWeight`] names a buffer without
/// contents, one that is updated in place among them.
pub fn run_launch(
    plan: &Plan,
    launch: &Launch,
    binding: &Binding,
    contents: &dyn Fn(u32) -> Option<Tensor>,
) -> Result<Vec<(u32, Tensor)>, EvalError> {
    let mut runner =
        Runner { plan, binding: binding.clone(), data: vec![None; plan.buffers.len()] };
    let kernel = &plan.kernels[launch.kernel as usize];
    // A scatter that fills its result before it updates it reads nothing of before.
    let fills_first = matches!(&kernel.anchor, Anchor::Scatter(scatter) if scatter.init.is_some());
    let mut written = Vec::new();
    for (&buffer, argument) in launch.buffers.iter().zip(&kernel.buffers) {
        if argument.access == Access::Write || (argument.access != Access::Read && fills_first) {
            written.push(buffer);
            continue;
        }
        let tensor = if argument.access == Access::Read { contents(buffer) } else { None };
        let missing = || EvalError::NoWeight(plan.buffers[buffer as usize].name.clone());
        runner.data[buffer as usize] = Some(runner.spread(buffer, &tensor.ok_or_else(missing)?)?);
    }
    runner.steps(&[Step::Launch(launch.clone())])?;
    written.into_iter().map(|buffer| Ok((buffer, runner.tensor(buffer)?))).collect()
}

struct Runner<'a> {
    plan: &'a Plan,
    binding: Binding,
    data: Vec<Option<KernelData>>,
}

impl Runner<'_> {
    fn buffer(&self, index: u32) -> &PlanBuffer {
        &self.plan.buffers[index as usize]
    }

    fn extents(&self, index: u32) -> Result<Vec<usize>, EvalError> {
        let buffer = self.buffer(index);
        let what = || buffer.name.clone();
        self.binding
            .extents(&buffer.shape)
            .ok_or_else(|| EvalError::Extent { what: what(), extent: -1 })
    }

    /// The buffer that holds the contents: an output that continues a state
    /// shares the buffer of its input.
    fn holder(&self, index: u32) -> usize {
        match self.buffer(index).place {
            Place::Input(n) => self.plan.inputs[n as usize].buffer as usize,
            _ => index as usize,
        }
    }

    /// Elements that a buffer spans, padding included.
    fn span(&self, index: u32) -> Result<usize, EvalError> {
        let buffer = self.buffer(index);
        let bytes = usize::try_from(self.binding.eval(&buffer.bytes)?).unwrap_or(0);
        Ok(buffer.dtype.bytes().map_or(bytes * 2, |width| bytes / width))
    }

    /// Offsets of the elements of a tensor by the strides of a buffer, in
    /// row-major order.
    fn offsets(&self, index: u32, shape: &[usize]) -> Result<Vec<usize>, EvalError> {
        let strides: Vec<i64> = self.strides(index)?;
        let count = shape.iter().product::<usize>();
        Ok((0..count)
            .map(|i| {
                let mut rest = i;
                let mut offset = 0;
                for (extent, stride) in shape.iter().zip(&strides).rev() {
                    offset += (rest % extent) as i64 * stride;
                    rest /= extent;
                }
                offset as usize
            })
            .collect())
    }

    fn strides(&self, index: u32) -> Result<Vec<i64>, EvalError> {
        let strides = self.buffer(index).strides.iter();
        Ok(strides.map(|s| self.binding.eval(s)).collect::<Result<_, _>>()?)
    }

    /// A dense tensor at the strides of a buffer.
    fn spread(&self, index: u32, tensor: &Tensor) -> Result<KernelData, EvalError> {
        let mut data = KernelData::unwritten(tensor.dtype(), 0);
        store(&mut data, &self.offsets(index, tensor.shape())?, tensor);
        Ok(data)
    }

    /// Takes the contents of a buffer, made at first mention.
    fn take(&mut self, index: u32) -> Result<KernelData, EvalError> {
        let (held, span) = (self.holder(index), self.span(index)?);
        match self.data[held].take() {
            Some(mut data) => {
                // In a later round it can span more.
                data.elements.resize(data.elements.len().max(span), None);
                Ok(data)
            }
            None => Ok(KernelData::unwritten(self.buffer(index).dtype, span)),
        }
    }

    fn tensor(&self, index: u32) -> Result<Tensor, EvalError> {
        let buffer = self.buffer(index);
        let missing = || EvalError::Index {
            what: format!("{} was not written", buffer.name),
            index: 0,
            extent: 0,
        };
        let shape = self.extents(index)?;
        match &self.data[self.holder(index)] {
            Some(data) => {
                let at = |o: usize| data.elements.get(o).copied().flatten();
                let offsets = self.offsets(index, &shape)?;
                let elements: Option<Vec<_>> = offsets.into_iter().map(at).collect();
                Ok(Tensor::from_values(buffer.dtype, &shape, &elements.ok_or_else(missing)?))
            }
            None if shape.contains(&0) => Ok(Tensor::zeros(buffer.dtype, &shape)),
            None => Err(missing()),
        }
    }

    fn steps(&mut self, steps: &[Step]) -> Result<(), EvalError> {
        steps.iter().try_for_each(|step| self.step(step))
    }

    fn step(&mut self, step: &Step) -> Result<(), EvalError> {
        match step {
            Step::Launch(launch) => self.launch(launch),
            Step::Copy { from, to } => self.copy(*from, *to),
            Step::Host(host) => self.host(host),
            Step::If { predicate, then_steps, else_steps } => {
                let value = self.tensor(*predicate)?.value(0).is_true();
                self.steps(if value { then_steps } else { else_steps })
            }
            Step::Loop(l) => self.repeat(l),
        }
    }

    fn launch(&mut self, launch: &Launch) -> Result<(), EvalError> {
        let kernel = &self.plan.kernels[launch.kernel as usize];
        // A buffer that is read twice, or read and written, is several arguments.
        let mut data: Vec<KernelData> = Vec::new();
        for (i, &buffer) in launch.buffers.iter().enumerate() {
            let held = self.holder(buffer);
            let same = launch.buffers[..i].iter().position(|b| self.holder(*b) == held);
            data.push(match same {
                Some(at) => data[at].clone(),
                None => self.take(buffer)?,
            });
        }
        let result = run_kernel(kernel, &self.binding, &mut data, Mode::Exact);
        let arguments = kernel.buffers.iter().zip(&launch.buffers).zip(data);
        let (read, written): (Vec<_>, Vec<_>) =
            arguments.partition(|((argument, _), _)| argument.access == Access::Read);
        for ((_, &buffer), data) in read.into_iter().chain(written) {
            let held = self.holder(buffer);
            self.data[held] = Some(data);
        }
        result
    }

    fn copy(&mut self, from: u32, to: u32) -> Result<(), EvalError> {
        let tensor = self.tensor(from)?;
        let held = self.holder(to);
        self.data[held] = Some(self.spread(to, &tensor)?);
        Ok(())
    }

    fn repeat(&mut self, l: &LoopStep) -> Result<(), EvalError> {
        let most = match &l.trip {
            Trip::Unbounded => i128::MAX,
            Trip::Known(dim) => i128::from(self.binding.eval(dim)?),
            Trip::Read(buffer) => self.tensor(*buffer)?.value(0).as_int(),
        };
        let mut round = 0usize;
        while (round as i128) < most {
            if let Some(condition) = l.condition
                && !self.tensor(condition)?.value(0).is_true()
            {
                break;
            }
            if round >= ROUNDS_MAX {
                return Err(EvalError::TooLarge { what: "loop".into(), limit: ROUNDS_MAX });
            }
            if let Some(counter) = l.iteration {
                let value = Tensor::from_i64(&[], &[round as i64]);
                self.data[counter as usize] = Some(KernelData::from_tensor(&value));
            }
            self.count(l.rounds.as_ref(), round);
            self.steps(&l.body)?;
            l.carried.iter().try_for_each(|(from, to)| self.copy(*from, *to))?;
            l.stacked.iter().try_for_each(|(value, to)| self.stack(*value, *to, round))?;
            round += 1;
        }
        self.count(l.rounds.as_ref(), round);
        Ok(())
    }

    fn count(&mut self, symbol: Option<&Symbol>, count: usize) {
        if let Some(symbol) = symbol {
            self.binding.0.insert(symbol.clone(), count as i64);
        }
    }

    /// Copies a round's value to its slice along the first axis of a stack.
    fn stack(&mut self, value: u32, to: u32, round: usize) -> Result<(), EvalError> {
        let tensor = self.tensor(value)?;
        let shape: Vec<usize> = [&[1], tensor.shape()].concat();
        let first = self.strides(to)?.first().map_or(0, |s| *s as usize * round);
        let offsets: Vec<usize> =
            self.offsets(to, &shape)?.into_iter().map(|o| o + first).collect();
        let mut data = self.data[to as usize]
            .take()
            .unwrap_or_else(|| KernelData::unwritten(tensor.dtype(), 0));
        store(&mut data, &offsets, &tensor);
        self.data[to as usize] = Some(data);
        Ok(())
    }

    fn host(&mut self, step: &HostStep) -> Result<(), EvalError> {
        let inputs = step.inputs.iter().map(|b| self.tensor(*b)).collect::<Result<Vec<_>, _>>()?;
        let (outputs, count) = host::run(&step.op, &inputs);
        self.count(step.count.as_ref(), count);
        for (&buffer, output) in step.outputs.iter().zip(&outputs) {
            if buffer != NO_BUFFER {
                self.data[buffer as usize] = Some(KernelData::from_tensor(output));
            }
        }
        Ok(())
    }
}

/// Evaluates a graph itself on named inputs.
///
/// # Errors
/// As [`tgc_ir::eval::run`].
pub fn run_graph(graph: &Graph, inputs: &[(&str, Tensor)]) -> Result<Vec<Tensor>, EvalError> {
    tgc_ir::eval::run(graph, inputs, Mode::Exact)
}
