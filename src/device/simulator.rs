//! The simulator device: the PTX that an engine carries for a CUDA target,
//! executed and checked launch by launch without a GPU. A finding is an error
//! that names the kernel, the thread, the lines and the nodes of the model.
//!
//! Knows no driver; how plans become launches is the cuda device's knowledge.

use tgc_ir::Tensor;
use tgc_ir::device_table::Device;
use tgc_runtime::cuda::{CudaError, Machine, MachineInstance, MachineLaunch};
use tgc_runtime::engine::Engine;
use tgc_simulator::{
    Finding, LaunchError, LaunchOptions, LaunchShape, Memory, MemoryError, Module, Parameters,
    PtxError, Variables, launch,
};

use super::{Instance, plan_for, refuse_states};
use crate::session::{Failure, Kind, PORTABLE, PORTABLE_FIGURES, error_chain};

/// Most bytes of simulated global memory.
const MEMORY_MAX: u64 = 64 << 30;
/// Findings and nodes that a message spells out.
const SHOWN: usize = 4;

/// Opens the first target of an engine that carries PTX: named ones by name, then the portable one, which every engine
/// with a CUDA target has.
pub(super) fn open(engine: &Engine, threads: usize) -> Result<Box<dyn Instance>, Failure> {
    let target = target_of(engine)?;
    let plan = plan_for(engine, target)?.clone();
    refuse_states(&plan, "simulator")?;
    let machine = Simulated::new(engine, target, threads).map_err(failure)?;
    let instance = MachineInstance::new(plan, &engine.weights, machine).map_err(failure)?;
    Ok(Box::new(Simulator(instance)))
}

fn target_of(engine: &Engine) -> Result<&str, Failure> {
    let ptx = |target: &str| format!("{target}/unit_0.ptx");
    let mut cuda: Vec<&str> =
        engine.plans.keys().map(String::as_str).filter(|t| *t != "cpu").collect();
    cuda.sort_by_key(|target| (*target == PORTABLE, *target));
    // A plan without kernels needs no code.
    let has_code = |target: &str| {
        engine.files.contains_key(&ptx(target))
            || engine.plans.get(target).is_some_and(|plan| plan.kernels.is_empty())
    };
    cuda.iter().copied().find(|target| has_code(target)).ok_or_else(|| {
        let why = match cuda.first() {
            None => "the engine has no CUDA target, which the simulator executes\n  help: compile with --target sm_80".to_owned(),
            Some(target) => format!("the engine carries no PTX for {target}: it was compiled without NVRTC\n  help: compile with --target sm_80 where `tgc doctor` finds NVRTC"),
        };
        Failure::new(Kind::Device, why)
    })
}

struct Simulator(MachineInstance<Simulated>);

impl Instance for Simulator {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        self.0.run(inputs).map_err(failure)
    }
}

/// Memory and code of a simulated GPU.
#[derive(Debug)]
struct Simulated {
    memory: Memory,
    units: Vec<Unit>,
    options: LaunchOptions,
}

/// A translation unit of the engine.
#[derive(Debug)]
struct Unit {
    /// Its path in the engine.
    name: String,
    module: Module,
    variables: Variables,
}

/// What goes wrong on the simulator.
#[derive(Debug, thiserror::Error)]
enum SimulatorError {
    #[error(transparent)]
    Plan(#[from] CudaError),
    #[error("{unit} is not executed by the simulator: {source}")]
    Code { unit: String, source: PtxError },
    #[error("{0} is no text")]
    Text(String),
    #[error(transparent)]
    Memory(#[from] MemoryError),
    #[error("kernel `{kernel}` cannot be launched: {source}")]
    Launch { kernel: String, source: LaunchError },
    #[error("kernel `{kernel}`: no unit of the engine has its entry `{entry}`")]
    NoEntry { kernel: String, entry: String },
    #[error("{0}")]
    Findings(String),
    #[error("output `{output}`: nothing has written its byte {offset}")]
    Unwritten { output: String, offset: u64 },
}

fn failure(error: SimulatorError) -> Failure {
    let kind = match &error {
        SimulatorError::Findings(_) | SimulatorError::Unwritten { .. } => Kind::Verification,
        SimulatorError::Memory(MemoryError::Limit { .. }) => Kind::Memory,
        SimulatorError::Plan(
            CudaError::Count { .. } | CudaError::InputType { .. } | CudaError::Bind(_),
        ) => Kind::Usage,
        _ => Kind::Device,
    };
    Failure::new(kind, error_chain(&error))
}

impl Simulated {
    fn new(engine: &Engine, target: &str, threads: usize) -> Result<Simulated, SimulatorError> {
        let mut memory = Memory::new(MEMORY_MAX);
        let mut units = Vec::new();
        let name = |i: usize| format!("{target}/unit_{i}.ptx");
        for (name, text) in (0..).map_while(|i| Some((name(i), engine.files.get(&name(i))?))) {
            let text = std::str::from_utf8(text).map_err(|_| SimulatorError::Text(name.clone()))?;
            let module = Module::parse(text)
                .map_err(|source| SimulatorError::Code { unit: name.clone(), source })?;
            let variables = module.place_variables(&mut memory)?;
            units.push(Unit { name, module, variables });
        }
        let figures = if target == PORTABLE { PORTABLE_FIGURES } else { target };
        let device = Device::for_target(figures);
        Ok(Simulated {
            memory,
            units,
            options: LaunchOptions { device, threads, ..LaunchOptions::default() },
        })
    }
}

impl Machine for Simulated {
    type Error = SimulatorError;

    fn allocate(&mut self, bytes: usize) -> Result<u64, SimulatorError> {
        Ok(self.memory.allocate(bytes as u64)?)
    }

    fn free(&mut self, address: u64) -> Result<(), SimulatorError> {
        Ok(self.memory.free(address)?)
    }

    fn read(&self, address: u64, into: &mut [u8]) -> Result<(), SimulatorError> {
        Ok(self.memory.read(address, into)?)
    }

    fn write(&mut self, address: u64, bytes: &[u8]) -> Result<(), SimulatorError> {
        Ok(self.memory.write(address, bytes)?)
    }

    /// What nothing has written stays so in the copy.
    fn copy(&mut self, to: u64, from: u64, bytes: usize) -> Result<(), SimulatorError> {
        let mut held = vec![0; bytes];
        self.memory.read(from, &mut held)?;
        self.memory.write(to, &held)?;
        let end = from + bytes as u64;
        let mut at = from;
        while let Some(unwritten) = self.memory.first_uninitialised(at, end - at)? {
            self.memory.mark_uninitialised(to + (unwritten - from), 1)?;
            at = unwritten + 1;
        }
        Ok(())
    }

    fn launch(&mut self, call: &MachineLaunch<'_>) -> Result<(), SimulatorError> {
        let (kernel, entry) = (call.kernel.to_owned(), &call.variant.entry);
        let unit = self.units.iter().find(|unit| unit.module.kernel(entry).is_some());
        let Some(unit) = unit else {
            return Err(SimulatorError::NoEntry { kernel, entry: entry.clone() });
        };
        let dynamic_shared = u32::try_from(call.shared_bytes).unwrap_or(u32::MAX);
        let (grid, block) = (call.grid, call.variant.block);
        let shape = LaunchShape { grid, block, cluster: None, dynamic_shared };
        let parameters =
            call.pointers.iter().fold(Parameters::new(), |block, pointer| block.u64(*pointer));
        let report = launch(
            &unit.module,
            &unit.variables,
            entry,
            &self.memory,
            &shape,
            parameters.bytes(),
            &self.options,
        )
        .map_err(|source| SimulatorError::Launch { kernel, source })?;
        if report.is_clean() {
            return Ok(());
        }
        Err(SimulatorError::Findings(describe(&report.findings, unit, call)))
    }

    fn check_written(
        &self,
        output: &str,
        address: u64,
        bytes: usize,
    ) -> Result<(), SimulatorError> {
        match self.memory.first_uninitialised(address, bytes as u64)? {
            None => Ok(()),
            Some(at) => {
                let (output, offset) = (output.to_owned(), at - address);
                Err(SimulatorError::Unwritten { output, offset })
            }
        }
    }
}

/// Findings of a launch, the file that holds their lines, and the nodes behind the kernel.
fn describe(findings: &[Finding], unit: &Unit, call: &MachineLaunch<'_>) -> String {
    let mut lines: Vec<String> = findings.iter().take(SHOWN).map(Finding::to_string).collect();
    if findings.len() > SHOWN {
        lines.push(format!("and {} findings more of this launch", findings.len() - SHOWN));
    }
    let text = unit.name.replace(".ptx", ".cu");
    lines.push(format!(
        "  in kernel program `{}`; PTX lines are of {}, CUDA lines of {text}",
        call.kernel, unit.name
    ));
    let mut nodes = call.provenance.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if call.provenance.len() > SHOWN {
        nodes += &format!(" and {} more", call.provenance.len() - SHOWN);
    }
    if !nodes.is_empty() {
        lines.push(format!("  computes {nodes}"));
    }
    lines.join("\n")
}
