//! Running engines: one way to open any device. `--device` is a demand: what
//! cannot run there is an error, never another device.

mod simulator;

use tgc_ir::Tensor;
use tgc_ir::plan::Plan;
use tgc_runtime::cpu::{CpuEngine, CpuInstance, Options as CpuOptions};
use tgc_runtime::cuda::{self, CudaEngine, CudaError, CudaInstance, Module};
use tgc_runtime::engine::Engine;

use crate::session::{Failure, Kind, error_chain};

/// Names of devices.
pub const DEVICES: &[&str] = &["cpu", "reference", "null", "cuda", "simulator"];

/// A model on a device.
pub trait Instance: Send {
    /// Runs on inputs in order; outputs in order.
    ///
    /// # Errors
    /// [`Failure`] when inputs do not fit or the device fails.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure>;

    /// The device's launches by number: kernel and value written. Empty where a device does not tell them apart.
    fn launches(&self) -> Vec<(String, String)> {
        Vec::new()
    }

    /// As [`Instance::run`], calling `watch` with the number of each launch after it has run.
    ///
    /// # Errors
    /// As [`Instance::run`].
    fn run_watched(
        &mut self,
        inputs: &[Tensor],
        _watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor>, Failure> {
        self.run(inputs)
    }
}

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunOptions {
    /// Threads of the cpu device and of the simulator; 0 = all.
    pub threads: usize,
}

/// Opens an engine on a device.
///
/// # Errors
/// [`Failure`] when the device is unknown or missing, or the engine holds no
/// plan for it.
pub fn open(
    engine: &Engine,
    device: &str,
    options: RunOptions,
) -> Result<Box<dyn Instance>, Failure> {
    match device {
        "cpu" => {
            let plan = plan_for(engine, "cpu")?.clone();
            let options = CpuOptions { threads: options.threads, isa: None };
            let cpu = CpuEngine::new(plan, engine.weights.clone(), options)
                .map_err(|e| Failure::new(Kind::Device, error_chain(&e)))?;
            Ok(Box::new(Cpu(CpuInstance::new(&cpu))))
        }
        "reference" => {
            let plan = engine
                .plans
                .values()
                .next()
                .ok_or_else(|| Failure::new(Kind::Model, "the engine holds no plan"))?;
            let weights = engine.weights.iter().cloned().map(Some).collect();
            Ok(Box::new(Reference { plan: plan.clone(), weights }))
        }
        "null" => {
            let plan = engine
                .plans
                .values()
                .next()
                .ok_or_else(|| Failure::new(Kind::Model, "the engine holds no plan"))?;
            Ok(Box::new(Null { plan: plan.clone() }))
        }
        "cuda" => open_cuda(engine),
        "simulator" => simulator::open(engine, options.threads),
        other => {
            let hint = crate::session::closest(other, DEVICES.iter().copied());
            let hint = hint.map_or_else(String::new, |h| format!("; did you mean `{h}`?"));
            Err(Failure::new(
                Kind::Usage,
                format!("`{other}` is no device; {}{hint}", DEVICES.join(", ")),
            ))
        }
    }
}

fn open_cuda(engine: &Engine) -> Result<Box<dyn Instance>, Failure> {
    let fail = |e: CudaError| Failure::new(Kind::Device, error_chain(&e));
    if !cuda::is_present() {
        return Err(Failure::new(
            Kind::Device,
            "no CUDA driver is here (libcuda.so.1 does not load)\n  help: run on a machine with an NVIDIA driver, or with --device cpu",
        ));
    }
    let gpus = cuda::devices().map_err(fail)?;
    let gpu =
        gpus.first().ok_or_else(|| Failure::new(Kind::Device, "the CUDA driver finds no GPU"))?;
    // A named target before the portable one.
    let mut fitting: Vec<&String> =
        engine.plans.keys().filter(|t| cuda::runs_on(t, gpu.capability)).collect();
    fitting.sort_by_key(|t| **t == crate::session::PORTABLE);
    let target = fitting.first().copied().ok_or_else(|| {
        let found = engine.plans.keys().cloned().collect::<Vec<_>>().join(", ");
        let (major, minor) = gpu.capability;
        Failure::new(
            Kind::Device,
            format!("{} (compute capability {major}.{minor}) runs none of the engine's targets: {found}\n  help: compile with --target {}", gpu.name, gpu.best_target()),
        )
    })?;
    let plan = plan_for(engine, target)?.clone();
    refuse_states(&plan, "cuda")?;
    let opened = CudaEngine::new(
        plan,
        engine.weights.clone(),
        modules_of(engine, target),
        cuda::Options::default(),
    );
    let instance = CudaInstance::new(&opened.map_err(fail)?).map_err(fail)?;
    Ok(Box::new(Cuda(instance)))
}

/// A state's buffer has the strides of its capacity; the CUDA devices stage
/// inputs densely, so its kernels would read beside them.
fn refuse_states(plan: &Plan, device: &str) -> Result<(), Failure> {
    match plan.inputs.iter().find(|port| port.state.is_some()) {
        None => Ok(()),
        Some(port) => Err(Failure::new(
            Kind::Device,
            format!(
                "state `{}` is updated in place, which the {device} device does not do yet\n  help: compile without --state, or run with --device cpu",
                port.name
            ),
        )),
    }
}

/// The compiled units of a target, in order.
fn modules_of(engine: &Engine, target: &str) -> Vec<Module> {
    let file = |name: String| engine.files.get(&name).cloned().unwrap_or_default();
    (0..)
        .take_while(|i| engine.files.contains_key(&format!("{target}/unit_{i}.cu")))
        .map(|i| Module {
            name: format!("{target}/unit_{i}"),
            cubin: file(format!("{target}/unit_{i}.cubin")),
            ptx: file(format!("{target}/unit_{i}.ptx")),
        })
        .collect()
}

struct Cuda(CudaInstance);

impl Instance for Cuda {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        self.0.run(inputs).map_err(|e| Failure::new(Kind::Device, error_chain(&e)))
    }
}

fn plan_for<'a>(engine: &'a Engine, target: &str) -> Result<&'a Plan, Failure> {
    engine.plan(target).map_err(|e| {
        Failure::new(Kind::Device, format!("{e}\n  help: compile with --target {target}"))
    })
}

struct Cpu(CpuInstance);

impl Instance for Cpu {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        self.0.run(inputs).map_err(|e| Failure::new(Kind::Usage, error_chain(&e)))
    }

    fn launches(&self) -> Vec<(String, String)> {
        let names = self.0.engine().launch_names();
        names.into_iter().map(|(kernel, value)| (kernel.to_owned(), value.to_owned())).collect()
    }

    fn run_watched(
        &mut self,
        inputs: &[Tensor],
        watch: &mut dyn FnMut(usize),
    ) -> Result<Vec<Tensor>, Failure> {
        self.0.run_watched(inputs, watch).map_err(|e| Failure::new(Kind::Usage, error_chain(&e)))
    }
}

struct Reference {
    plan: Plan,
    weights: Vec<Option<Tensor>>,
}

impl Instance for Reference {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        tgc_runtime::reference::run_plan(&self.plan, &self.weights, inputs)
            .map_err(|e| Failure::new(Kind::Usage, error_chain(&e)))
    }
}

/// Checks and binds inputs, runs nothing, gives zeros of the right types.
struct Null {
    plan: Plan,
}

impl Instance for Null {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Vec<Tensor>, Failure> {
        let binding = tgc_runtime::reference::bind_plan(&self.plan, inputs)
            .map_err(|e| Failure::new(Kind::Usage, e))?;
        let outputs = self.plan.outputs.iter().map(|port| {
            let shape = binding.extents(&port.shape).unwrap_or_default();
            Tensor::zeros(port.dtype, &shape)
        });
        Ok(outputs.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_refused_on_cuda() {
        let text = "graph \"g\" {\n  symbol P 0..\n  %0 = input name=past ty=\"f32[1, P, 4]\"\n  \
                    %1 = input name=new ty=\"f32[1, 1, 4]\"\n  %2 = concat %0 %1 axis=1\n  \
                    output \"present\" %2\n  state 0 0 axis 1 capacity \"16\"\n}\n";
        let mut graph = tgc_ir::text::parse(text).expect("parses");
        let plan = |g: &tgc_ir::Graph| tgc_codegen::compile(g, "sm_80").expect("compiles").plan;
        let refused = refuse_states(&plan(&graph), "cuda").expect_err("has a state");
        assert!(refused.message.contains("`past`") && refused.kind == Kind::Device);
        graph.states.clear();
        assert!(refuse_states(&plan(&graph), "cuda").is_ok());
    }
}
