//! Plans of CUDA targets on a machine other than a GPU behind the driver: the
//! same choice of variants, grids, arguments and offsets, launch by launch.
//! Knows no driver and not what the machine is.

use tgc_ir::Tensor;
use tgc_ir::plan::{Place, Plan, Port, Variant};

use super::bind::{Bound, Signature, check_type};
use super::engine::{check_count, weights_read};
use super::error::CudaError;
use super::launch::{Values, is_dense};
use super::layout::{Layout, Staged};
use super::program::{Program, Work};
use super::steps::{Device, Frame, Steps};

/// What executes kernels and holds memory.
pub trait Machine {
    /// Its errors, and those of the plan.
    type Error: From<CudaError>;

    /// Allocates uninitialised bytes, aligned to 256.
    ///
    /// # Errors
    /// When there is too little memory.
    fn allocate(&mut self, bytes: usize) -> Result<u64, Self::Error>;

    /// Gives an allocation back.
    ///
    /// # Errors
    /// When the address is none of an allocation.
    fn free(&mut self, address: u64) -> Result<(), Self::Error>;

    /// Copies to the host.
    ///
    /// # Errors
    /// When the range lies in no allocation.
    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), Self::Error>;

    /// Copies from the host.
    ///
    /// # Errors
    /// When the range lies in no allocation.
    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), Self::Error>;

    /// Copies between ranges that do not overlap.
    ///
    /// # Errors
    /// When a range lies in no allocation.
    fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), Self::Error>;

    /// Executes a kernel to its end.
    ///
    /// # Errors
    /// When it cannot be launched or does something wrong.
    fn launch(&mut self, launch: &MachineLaunch<'_>) -> Result<(), Self::Error>;

    /// Checks that every byte of an output was written.
    ///
    /// # Errors
    /// When one was not and the machine knows it.
    fn check_written(&self, output: &str, address: u64, bytes: usize) -> Result<(), Self::Error>;
}

/// One launch, with every size known.
#[derive(Clone, Copy, Debug)]
pub struct MachineLaunch<'a> {
    /// Name of the kernel program.
    pub kernel: &'a str,
    /// ONNX nodes and rules behind it.
    pub provenance: &'a [String],
    /// The chosen variant: entry and block.
    pub variant: &'a Variant,
    /// Blocks.
    pub grid: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: usize,
    /// All arguments: the table of symbols, one pointer per buffer, the workspace if there is one.
    pub pointers: &'a [u64],
}

/// A plan of a CUDA target and its weights on a machine.
#[derive(Debug)]
pub struct MachineInstance<M> {
    plan: Plan,
    program: Program,
    signature: Signature,
    bound: Bound,
    /// Per weight; those that the plan does not read have none.
    weights: Vec<u64>,
    machine: M,
}

impl<M: Machine> MachineInstance<M> {
    /// Takes a plan and its weights, in the plan's order; puts the weights into the machine's memory.
    ///
    /// # Errors
    /// When the plan is malformed, weights are missing or memory does not suffice.
    pub fn new(
        plan: Plan,
        weights: &[Tensor],
        mut machine: M,
    ) -> Result<MachineInstance<M>, M::Error> {
        let program = Program::new(&plan)?;
        let is_read = weights_read(&plan, weights)?;
        let mut addresses = Vec::with_capacity(weights.len());
        for (weight, is_read) in weights.iter().zip(is_read) {
            addresses.push(if is_read { filled(&mut machine, weight.bytes())? } else { 0 });
        }
        Ok(MachineInstance {
            signature: Signature::new(&plan),
            plan,
            program,
            bound: Bound::default(),
            weights: addresses,
            machine,
        })
    }

    /// Runs on inputs in the order of the signature; gives the outputs likewise.
    ///
    /// # Errors
    /// When inputs do not fit, memory does not suffice, or the machine refuses or finds a fault.
    pub fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, M::Error> {
        self.bind(inputs)?;
        let mut held = Vec::new();
        let result = self.run_bound(inputs, &mut held);
        held.into_iter().try_for_each(|address| self.machine.free(address)).and(result)
    }

    fn bind(&mut self, inputs: &[Tensor]) -> Result<(), CudaError> {
        let plan = &self.plan;
        check_count("inputs", plan.inputs.len(), inputs.len())?;
        plan.inputs.iter().zip(inputs).try_for_each(|(port, x)| check_type(port, x))?;
        let element = |(_, input, at): &(_, usize, usize)| {
            let missing = || CudaError::Pointer {
                name: plan.inputs[*input].name.clone(),
                why: format!("it has no element {at}"),
            };
            let tensor = &inputs[*input];
            (*at < tensor.len()).then(|| tensor.value(*at).as_int() as i64).ok_or_else(missing)
        };
        let elements =
            self.signature.elements.iter().map(element).collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<&[usize]> = inputs.iter().map(Tensor::shape).collect();
        self.bound.bind(plan, &self.signature, &shapes, &elements)?;
        Ok(())
    }

    /// Allocations of the run go to `held`.
    fn run_bound(
        &mut self,
        inputs: &[Tensor],
        held: &mut Vec<u64>,
    ) -> Result<Vec<Tensor>, M::Error> {
        let plan = &self.plan;
        let table = self.bound.table.clone();
        let staged = Staged {
            inputs: &vec![true; plan.inputs.len()],
            outputs: &vec![true; plan.outputs.len()],
        };
        let layout = Layout::new(&self.program, Values { plan, table: &table }, staged)?;
        let machine = &mut self.machine;
        let mut room = |machine: &mut M, bytes: usize| {
            let address = machine.allocate(bytes)?;
            held.push(address);
            Ok::<u64, M::Error>(address)
        };
        let port_bytes = |port: &Port| layout.buffers.get(port.buffer as usize).map_or(0, |b| b.0);
        let table_address = room(machine, table.len() * 8)?;
        let mut given = Vec::new();
        for (port, tensor) in plan.inputs.iter().zip(inputs) {
            given.push(room(machine, port_bytes(port))?);
            let bytes = &tensor.bytes()[..tensor.bytes().len().min(port_bytes(port))];
            machine.write(given[given.len() - 1], bytes)?;
        }
        let taken = plan.outputs.iter().map(|port| room(machine, port_bytes(port)));
        let taken = taken.collect::<Result<Vec<_>, _>>()?;
        let arena = Values { plan, table: &table }.bytes(&plan.arena_bytes, "the arena")?;
        let arena = room(machine, arena)?;
        let workspace = room(machine, layout.workspace_bytes)?;
        let at = |list: &[u64], i: u32| list.get(i as usize).copied().unwrap_or(0);
        let addresses =
            plan.buffers.iter().zip(&layout.buffers).map(|(b, (_, offset))| match b.place {
                Place::Input(i) => at(&given, i),
                Place::Output(o) => at(&taken, o),
                Place::Weight(w) => at(&self.weights, w),
                Place::Arena { .. } => arena + *offset as u64,
            });
        let device = Run {
            machine,
            plan,
            program: &self.program,
            planned: &self.bound.table,
            table,
            layout: &layout,
            addresses: addresses.collect(),
            table_address,
            workspace,
        };
        let mut steps = Steps { plan, device };
        steps.run(&self.program.steps)?;
        plan.outputs.iter().map(|port| output(&steps, port)).collect()
    }
}

/// A new allocation with contents.
fn filled<M: Machine>(machine: &mut M, bytes: &[u8]) -> Result<u64, M::Error> {
    let address = machine.allocate(bytes.len())?;
    machine.write(address, bytes)?;
    Ok(address)
}

fn output<M: Machine>(steps: &Steps<'_, Run<'_, M>>, port: &Port) -> Result<Tensor, M::Error> {
    let (frame, machine) = (steps.device.frame(), &*steps.device.machine);
    let buffer = &steps.plan.buffers[port.buffer as usize];
    let shape = frame.values.list(&buffer.shape, &buffer.name)?;
    if is_dense(&shape, &frame.values.list(&buffer.strides, &buffer.name)?) {
        let bytes = buffer.dtype.storage_bytes(shape.iter().product());
        machine.check_written(&port.name, frame.addresses[port.buffer as usize], bytes)?;
    }
    steps.read(port.buffer)
}

/// One run.
struct Run<'a, M> {
    machine: &'a mut M,
    plan: &'a Plan,
    program: &'a Program,
    planned: &'a [i64],
    table: Vec<i64>,
    layout: &'a Layout,
    addresses: Vec<u64>,
    table_address: u64,
    workspace: u64,
}

impl<M: Machine> Device for Run<'_, M> {
    type Error = M::Error;

    fn frame(&self) -> Frame<'_> {
        Frame {
            values: Values { plan: self.plan, table: &self.table },
            layout: self.layout,
            addresses: &self.addresses,
            table: self.table_address,
            workspace: self.workspace,
        }
    }

    fn planned(&self, symbol: usize) -> i64 {
        self.planned[symbol]
    }

    fn set_symbol(&mut self, symbol: usize, value: i64) {
        self.table[symbol] = value;
    }

    fn segment(&mut self, at: usize) -> Result<(), M::Error> {
        let table: Vec<u8> = self.table.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.machine.write(self.table_address, &table)?;
        for work in &self.program.segments[at] {
            let site = match work {
                Work::Launch(site) => site,
                Work::Copy { from, to } => {
                    for (from, to, bytes) in self.frame().copies(*from, *to)? {
                        self.machine.copy(to, from, bytes)?;
                    }
                    continue;
                }
            };
            let Some(call) = self.frame().call(site)? else { continue };
            if call.zeroed > 0 {
                self.machine.write(self.workspace, &vec![0; call.zeroed])?;
            }
            self.machine.launch(&MachineLaunch {
                kernel: &site.kernel,
                provenance: &site.provenance,
                variant: call.variant,
                grid: call.grid,
                shared_bytes: call.shared_bytes,
                pointers: &call.pointers,
            })?;
        }
        Ok(())
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), M::Error> {
        self.machine.read(address, into)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), M::Error> {
        self.machine.write(address, bytes)
    }

    fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), M::Error> {
        self.machine.copy(to, from, bytes)
    }
}
