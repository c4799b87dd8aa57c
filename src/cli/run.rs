//! `tgc run`: a model or engine on inputs.

use std::path::PathBuf;

use clap::Args;

use tgc::device::{RunOptions, open};
use tgc::inputs::{self, Style};
use tgc::session::{Failure, Kind};
use tgc_ir::bind::Binding;
use tgc_ir::{Graph, Symbol, Tensor, TensorType};
use tgc_runtime::engine::Engine;

use super::{Compiling, Output, engine_of};

/// Arguments of `run`.
#[derive(Args)]
pub(crate) struct RunArgs {
    /// Model (.onnx, .tgir) or engine (.tgc).
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) running: Running,
    /// Write outputs to this .npz.
    #[arg(long, value_name = "FILE")]
    save_outputs: Option<PathBuf>,
    /// Write the inputs used to this .npz.
    #[arg(long, value_name = "FILE")]
    save_inputs: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) compiling: Compiling,
}

/// Options of everything that runs.
#[derive(Args, Clone)]
pub(crate) struct Running {
    /// Inputs: NAME=FILE (.npy, .pb, .bin), FILE.npz, or a folder of ONNX test data.
    #[arg(long = "inputs", short = 'i', value_name = "SPEC")]
    pub(crate) inputs: Vec<String>,
    /// Seed of random inputs.
    #[arg(long, default_value_t = 0)]
    pub(crate) seed: u64,
    /// Extents for random inputs: x:1x3x224x224,y:8 (also [1,3,224,224]).
    #[arg(long)]
    pub(crate) shapes: Option<String>,
    /// Device: cpu, reference, null, cuda, simulator (executes and checks the kernels of a CUDA target,
    /// sm_80 first, without a GPU; a model needs --target sm_80). Never another one than asked for.
    #[arg(long, default_value = "cpu")]
    pub(crate) device: String,
    /// Threads of the cpu device and the simulator (0 = all).
    #[arg(long, default_value_t = 0)]
    pub(crate) threads: usize,
}

/// Names and types of an engine's inputs.
pub(crate) fn engine_ports(engine: &Engine) -> Vec<(String, TensorType)> {
    let plan = engine.plans.values().next();
    plan.map_or_else(Vec::new, |p| {
        p.inputs
            .iter()
            .map(|i| (i.name.clone(), TensorType::new(i.dtype, i.shape.iter().cloned())))
            .collect()
    })
}

impl Running {
    /// Input tensors in order: given ones, or random.
    pub(crate) fn tensors(&self, engine: &Engine, output: &Output) -> Result<Vec<Tensor>, Failure> {
        let ports = engine_ports(engine);
        if self.inputs.is_empty() {
            output.remark(format_args!("note: no --inputs; random ones with seed {}", self.seed));
            let graph =
                tgc_ir::text::parse(&engine.graph).map_err(|e| Failure::new(Kind::Model, e))?;
            let binding = self.binding(&graph)?;
            return inputs::random(&graph, &binding, self.seed, Style::Usual);
        }
        let mut given = Vec::new();
        for spec in &self.inputs {
            given.extend(inputs::read(spec, &ports)?);
        }
        inputs::arrange(given, &ports)
    }

    /// Symbol values from `--shapes`; the rest small.
    fn binding(&self, graph: &Graph) -> Result<Binding, Failure> {
        let small = tgc::verify::small_binding(graph).ok_or_else(|| {
            Failure::new(
                Kind::Usage,
                "no small sizes satisfy the model's constraints; give --inputs or --shapes",
            )
        })?;
        let Some(text) = &self.shapes else { return Ok(small) };
        let ports = inputs::ports(graph);
        let given = parse_shapes(text)?;
        let mut shapes: Vec<(&str, &TensorType, Vec<usize>)> = Vec::new();
        for (name, ty) in &ports {
            let shape = match given.iter().find(|(n, _)| n == name) {
                Some((_, shape)) => shape.clone(),
                None => continue,
            };
            shapes.push((name, ty, shape));
        }
        if let Some((unknown, _)) = given.iter().find(|(n, _)| ports.iter().all(|(p, _)| p != n)) {
            let hint = tgc::session::closest(unknown, ports.iter().map(|(n, _)| n.as_str()));
            let hint = hint.map_or_else(String::new, |h| format!("; did you mean `{h}`?"));
            return Err(Failure::new(
                Kind::Usage,
                format!("--shapes: the model has no input `{unknown}`{hint}"),
            ));
        }
        let refs: Vec<(&str, &TensorType, &[usize])> =
            shapes.iter().map(|(n, t, s)| (*n, *t, s.as_slice())).collect();
        let bound = Binding::from_inputs(&refs, &graph.facts, Default::default())
            .map_err(|e| Failure::new(Kind::Usage, e))?;
        let mut all: std::collections::BTreeMap<Symbol, i64> = small.0;
        all.extend(bound.0);
        let binding = Binding(all);
        binding.check_facts(&graph.facts).map_err(|e| Failure::new(Kind::Usage, e))?;
        Ok(binding)
    }
}

/// `x:1x3x4,y:[8,16]`.
fn parse_shapes(text: &str) -> Result<Vec<(String, Vec<usize>)>, Failure> {
    let wrong = |part: &str| {
        Failure::new(Kind::Usage, format!("--shapes: `{part}` is not NAME:1x3x224x224"))
    };
    tgc_ir::types::split_commas(text)
        .into_iter()
        .map(|part| {
            let (name, dims) = part.rsplit_once(':').ok_or_else(|| wrong(part))?;
            let dims = dims.trim_start_matches('[').trim_end_matches(']');
            let shape = dims
                .split(['x', ','])
                .filter(|d| !d.is_empty())
                .map(|d| d.trim().parse().map_err(|_| wrong(part)))
                .collect::<Result<Vec<usize>, _>>()?;
            Ok((name.to_owned(), shape))
        })
        .collect()
}

/// Runs and prints statistics of the outputs.
pub(crate) fn run(args: &RunArgs, output: &Output) -> Result<(), Failure> {
    let (engine, _) =
        engine_of(&args.model, &args.compiling.for_device(&args.running.device), output)?;
    let tensors = args.running.tensors(&engine, output)?;
    let mut instance =
        open(&engine, &args.running.device, RunOptions { threads: args.running.threads })?;
    let results = instance.run(&tensors)?;
    let plan = engine
        .plans
        .values()
        .next()
        .ok_or_else(|| Failure::new(Kind::Model, "the engine holds no plan"))?;
    let names: Vec<&str> = plan.outputs.iter().map(|p| p.name.as_str()).collect();
    let save = |path: &PathBuf, pairs: Vec<(&str, &Tensor)>| {
        tgc::npy::write_npz(path, &pairs)
            .map_err(|e| Failure::new(Kind::File, format!("cannot write {}: {e}", path.display())))
    };
    if let Some(path) = &args.save_outputs {
        save(path, names.iter().copied().zip(&results).collect())?;
    }
    if let Some(path) = &args.save_inputs {
        save(path, plan.inputs.iter().map(|p| p.name.as_str()).zip(&tensors).collect())?;
    }
    let rows: Vec<serde_json::Value> =
        names.iter().zip(&results).map(|(n, t)| statistics(n, t)).collect();
    if output.json {
        output.document(
            "tgc.run/1",
            serde_json::json!({ "device": args.running.device, "outputs": rows }),
        );
        return Ok(());
    }
    for row in &rows {
        output.result(format_args!(
            "{}  {}  min {}  max {}  mean {}{}",
            row["name"].as_str().unwrap_or(""),
            row["type"].as_str().unwrap_or(""),
            row["min"],
            row["max"],
            row["mean"],
            if row["non_finite"] == 0 {
                String::new()
            } else {
                format!("  NOT FINITE: {} elements", row["non_finite"])
            },
        ));
    }
    Ok(())
}

fn statistics(name: &str, tensor: &Tensor) -> serde_json::Value {
    let values = tensor.to_f64();
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let round = |x: f64| format!("{x:.6e}").parse::<f64>().unwrap_or(x);
    serde_json::json!({
        "name": name,
        "type": format!("{}{:?}", tensor.dtype(), tensor.shape()),
        "min": round(finite.iter().copied().fold(f64::INFINITY, f64::min)),
        "max": round(finite.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        "mean": round(finite.iter().sum::<f64>() / finite.len().max(1) as f64),
        "non_finite": values.len() - finite.len(),
    })
}
