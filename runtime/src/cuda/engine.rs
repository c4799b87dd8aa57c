//! The immutable part of a plan on a GPU: context, weights, code.
//! [`super::instance`] runs it.

use std::sync::Arc;

use tgc_ir::Tensor;
use tgc_ir::plan::{Place, Plan};

use super::bind::Signature;
use super::device::{DeviceInfo, gpu, runs_on, start};
use super::error::{CudaError, malformed};
use super::layout::check_limit;
use super::module::{self, Module};
use super::program::{EntryUse, Program};
use super::raw::{self, Block, Context, Function, StreamHandle};
use super::state::StatePairs;

/// Dynamic shared memory that every kernel may use without asking.
const SHARED_FREE: i64 = 48 << 10;
/// Alignment of weights in their block.
const ALIGN: usize = 256;

/// How an engine runs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Number of the GPU.
    pub device: u32,
    /// Most bytes for the weights and one instance together.
    pub memory_limit: Option<u64>,
    /// Keep states on the device between runs: runs then take and give
    /// everything but states and their next values.
    pub states: bool,
}

/// A plan with its weights and code on a GPU, ready to make instances.
#[derive(Debug)]
pub struct CudaEngine {
    pub(super) plan: Plan,
    pub(super) program: Program,
    pub(super) signature: Signature,
    pub(super) states: StatePairs,
    pub(super) options: Options,
    /// One per entry of the program.
    pub(super) functions: Vec<Function>,
    /// Most dynamic shared memory of a launch, per entry.
    pub(super) shared_max: Vec<u32>,
    /// Per weight, its device address.
    pub(super) weights: Vec<u64>,
    pub(super) weight_bytes: usize,
    info: DeviceInfo,
    /// Hold what functions and addresses point to.
    _modules: Vec<raw::Module>,
    _weights: Block,
    pub(super) context: Arc<Context>,
}

impl CudaEngine {
    /// Takes a plan for a GPU target, its weights in the plan's order and its compiled units;
    /// uploads the weights and loads the code.
    ///
    /// # Errors
    /// [`CudaError`]: no driver, no such GPU, a target that it cannot run, code that does not
    /// load, weights that are missing or too large, a malformed plan.
    pub fn new(
        plan: Plan,
        weights: Vec<Tensor>,
        modules: Vec<Module>,
        options: Options,
    ) -> Result<Arc<CudaEngine>, CudaError> {
        let gpu = gpu(options.device)?;
        let info = DeviceInfo {
            ordinal: options.device,
            name: gpu.name()?,
            capability: gpu.capability()?,
            memory_bytes: gpu.memory_bytes()?,
            driver_version: start()?,
        };
        check_target(&plan.target, &info)?;
        let program = Program::new(&plan)?;
        let states = StatePairs::new(&plan, options.states)?;
        let context = Context::retain(gpu)?;
        context.enter()?;
        let loaded: Vec<raw::Module> = modules
            .iter()
            .map(|unit| module::load(unit, |image| raw::Module::load(&context, image)))
            .collect::<Result<_, _>>()?;
        let functions = program
            .entries
            .iter()
            .map(|entry| find(&loaded, entry))
            .collect::<Result<Vec<_>, _>>()?;
        let most = gpu.shared_bytes()?;
        let allow =
            |(entry, function): (&EntryUse, &Function)| allow_shared(entry, *function, most);
        let shared_max =
            program.entries.iter().zip(&functions).map(allow).collect::<Result<_, _>>()?;
        let (block, addresses) = upload(&context, &plan, &weights, options.memory_limit)?;
        Ok(Arc::new(CudaEngine {
            signature: Signature::new(&plan),
            plan,
            program,
            states,
            options,
            functions,
            shared_max,
            weights: addresses,
            weight_bytes: block.bytes(),
            info,
            _modules: loaded,
            _weights: block,
            context,
        }))
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The GPU.
    #[must_use]
    pub fn device(&self) -> &DeviceInfo {
        &self.info
    }
}

fn check_target(target: &str, info: &DeviceInfo) -> Result<(), CudaError> {
    if runs_on(target, info.capability) {
        return Ok(());
    }
    Err(CudaError::Target {
        target: target.to_owned(),
        gpu: info.name.clone(),
        capability: info.capability,
        wanted: info.best_target().to_owned(),
    })
}

fn find(modules: &[raw::Module], entry: &EntryUse) -> Result<Function, CudaError> {
    for module in modules {
        if let Some(function) = module.function(&entry.name, entry.arguments)? {
            return Ok(function);
        }
    }
    Err(malformed(format!("entry `{}`", entry.name), "no compiled unit has it"))
}

/// Lets an entry use the dynamic shared memory that its launches want; the bytes that they may use.
fn allow_shared(entry: &EntryUse, function: Function, most: u32) -> Result<u32, CudaError> {
    if entry.shared_bytes.is_some_and(|bytes| bytes <= SHARED_FREE) {
        return Ok(SHARED_FREE as u32);
    }
    let left = most.saturating_sub(function.static_shared_bytes()?);
    let wanted = entry.shared_bytes.unwrap_or_else(|| left.into());
    if wanted > left.into() {
        let why = format!("it takes {wanted} bytes of shared memory, the GPU gives a block {left}");
        return Err(CudaError::Launch { kernel: entry.name.clone(), why });
    }
    function.allow_shared(wanted as u32)?;
    Ok(wanted as u32)
}

/// Copies the weights that the plan reads into one block; their addresses.
fn upload(
    context: &Arc<Context>,
    plan: &Plan,
    weights: &[Tensor],
    limit: Option<u64>,
) -> Result<(Block, Vec<u64>), CudaError> {
    let is_read = weights_read(plan, weights)?;
    let mut total = 0usize;
    let mut offsets = Vec::with_capacity(weights.len());
    for (weight, is_read) in weights.iter().zip(&is_read) {
        offsets.push(total);
        total += if *is_read { weight.bytes().len().next_multiple_of(ALIGN) } else { 0 };
    }
    check_limit(total as u64, limit)?;
    let block = allocate(context, "weights", total)?;
    // The default stream: copies from pageable memory are taken in order.
    let stream = StreamHandle::default_stream();
    for ((weight, is_read), offset) in weights.iter().zip(&is_read).zip(&offsets) {
        if *is_read {
            stream.copy_in(block.address() + *offset as u64, weight.bytes())?;
        }
    }
    stream.synchronize()?;
    let addresses = offsets.iter().map(|offset| block.address() + *offset as u64).collect();
    Ok((block, addresses))
}

/// Per weight, whether the plan reads it; those that it reads are checked.
pub(super) fn weights_read(plan: &Plan, weights: &[Tensor]) -> Result<Vec<bool>, CudaError> {
    let mut is_read = vec![false; weights.len()];
    for buffer in &plan.buffers {
        if let Place::Weight(w) = buffer.place {
            let count = || CudaError::Count {
                what: "weights",
                expected: w as usize + 1,
                found: weights.len(),
            };
            *is_read.get_mut(w as usize).ok_or_else(count)? = true;
            check_weight(buffer, &weights[w as usize])?;
        }
    }
    Ok(is_read)
}

/// The number of something is as the plan has it.
pub(super) fn check_count(
    what: &'static str,
    expected: usize,
    found: usize,
) -> Result<(), CudaError> {
    if expected == found { Ok(()) } else { Err(CudaError::Count { what, expected, found }) }
}

/// A weight has the bytes that kernels read of it.
fn check_weight(buffer: &tgc_ir::plan::PlanBuffer, weight: &Tensor) -> Result<(), CudaError> {
    let needed = buffer.bytes.as_const().unwrap_or(0);
    if buffer.dtype != weight.dtype() || (weight.bytes().len() as i64) < needed {
        let why = format!(
            "the plan reads {needed} bytes of {}, the engine holds {} of {}",
            buffer.dtype,
            weight.bytes().len(),
            weight.dtype()
        );
        return Err(malformed(format!("weight `{}`", buffer.name), why));
    }
    Ok(())
}

/// Device memory; says what is free when there is too little.
pub(super) fn allocate(
    context: &Arc<Context>,
    what: &'static str,
    bytes: usize,
) -> Result<Block, CudaError> {
    /// `CUDA_ERROR_OUT_OF_MEMORY`.
    const OUT_OF_MEMORY: u32 = 2;
    Block::new(context, bytes).map_err(|fault| match (fault.code, Context::memory_info()) {
        (OUT_OF_MEMORY, Ok((free, total))) => {
            CudaError::OutOfMemory { what, needed: bytes as u64, free, total }
        }
        _ => fault.into(),
    })
}
