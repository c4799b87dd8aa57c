//! `tgc test`: ONNX test-data folders, compared output by output.

use std::path::{Path, PathBuf};

use clap::Args;

use tgc::device::{RunOptions, open};
use tgc::inputs;
use tgc::session::{Failure, Kind};
use tgc::tolerance::compare;
use tgc_ir::{Tensor, TensorType};
use tgc_runtime::engine::Engine;

use super::{Compiling, Output, compile_with, engine_of};

/// Elements of an integer input that may become a constant.
const FIXED_MAX: usize = 64;

/// Arguments of `test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Case folders with model.onnx and test_data_set_N, or models beside such folders.
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    /// Device: cpu, reference, cuda, simulator.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads of the cpu device and the simulator (0 = all).
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Relative tolerance (default: meta.json's, else 1e-3).
    #[arg(long)]
    rtol: Option<f64>,
    /// Absolute tolerance (default: meta.json's, else 1e-7).
    #[arg(long)]
    atol: Option<f64>,
    #[command(flatten)]
    compiling: Compiling,
}

/// Runs every case; fails when one does.
pub(crate) fn run(args: &TestArgs, output: &Output) -> Result<(), Failure> {
    let mut rows = Vec::new();
    let (mut passed, mut failed) = (0, 0);
    let mut first: Option<Failure> = None;
    for case in &args.cases {
        let name = case.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        match run_case(args, case, output) {
            Ok(Passed { worst, fixed }) => {
                passed += 1;
                rows.push(serde_json::json!({
                    "case": name, "passed": true, "worst": worst, "fixed_inputs": fixed
                }));
                if !output.json {
                    let fixed = match fixed.as_slice() {
                        [] => String::new(),
                        names => format!(", compiled for its values of {}", names.join(", ")),
                    };
                    output.result(format_args!(
                        "ok    {name}  largest error {:.0} % of the tolerance{fixed}",
                        100.0 * worst
                    ));
                }
            }
            Err(failure) => {
                failed += 1;
                rows.push(
                    serde_json::json!({ "case": name, "passed": false, "why": failure.message }),
                );
                if !output.json {
                    output.result(format_args!("FAIL  {name}  {}", failure.message));
                }
                first.get_or_insert(failure);
            }
        }
    }
    if output.json {
        output.document(
            "tgc.test/1",
            serde_json::json!({ "passed": passed, "failed": failed, "cases": rows }),
        );
    } else {
        output.result(format_args!("{passed} passed, {failed} failed"));
    }
    match first {
        None => Ok(()),
        Some(f) => {
            Err(Failure::new(f.kind, format!("{failed} of {} cases failed", passed + failed)))
        }
    }
}

/// A case whose outputs are right.
struct Passed {
    /// Largest error, as part of the tolerance.
    worst: f64,
    /// Inputs that had to be constants.
    fixed: Vec<String>,
}

fn run_case(args: &TestArgs, case: &Path, output: &Output) -> Result<Passed, Failure> {
    let (folder, model) = if case.is_dir() {
        (case.to_owned(), case.join("model.onnx"))
    } else {
        (case.parent().unwrap_or(Path::new(".")).to_owned(), case.to_owned())
    };
    let sets: Vec<PathBuf> = (0..)
        .map(|n| folder.join(format!("test_data_set_{n}")))
        .take_while(|set| set.is_dir())
        .collect();
    if sets.is_empty() {
        return Err(Failure::new(
            Kind::File,
            format!("{} has no test_data_set_0", folder.display()),
        ));
    }
    let limits = tolerance(args, &folder);
    match engine_of(&model, &args.compiling.for_device(&args.device), output) {
        Ok((engine, _)) => {
            let worst = run_sets(args, &engine, &sets, limits)?;
            Ok(Passed { worst, fixed: Vec::new() })
        }
        Err(failure) if needs_constant(&failure) => {
            let mut passed = Passed { worst: 0.0, fixed: Vec::new() };
            for set in &sets {
                let (engine, fixed) = compile_fixed(args, &model, set, &failure, output)?;
                let worst = run_sets(args, &engine, std::slice::from_ref(set), limits)?;
                passed = Passed { worst: passed.worst.max(worst), fixed };
            }
            Ok(passed)
        }
        Err(failure) => Err(failure),
    }
}

/// Whether a model is refused because a value is not known when compiling.
fn needs_constant(failure: &Failure) -> bool {
    failure.message.contains("error[E2109]")
}

/// Compiles for a data set's values of the inputs that must be constants:
/// those that the refusal names; where it names none, or is not content, all
/// small ones of integers.
fn compile_fixed(
    args: &TestArgs,
    model: &Path,
    set: &Path,
    refusal: &Failure,
    output: &Output,
) -> Result<(Engine, Vec<String>), Failure> {
    let given = inputs::read_named(set, "input")?;
    let is_named = |name: &str| refusal.message.contains(&format!("`{name}`"));
    let is_small = |tensor: &Tensor| !tensor.dtype().is_float() && tensor.len() <= FIXED_MAX;
    let mut last = refusal.clone();
    for takes_small in [false, true] {
        let mut options = args.compiling.for_device(&args.device).options()?;
        options.fixed_inputs = given
            .iter()
            .filter(|(name, tensor)| is_named(name) || (takes_small && is_small(tensor)))
            .cloned()
            .collect();
        let fixed: Vec<String> = options.fixed_inputs.keys().cloned().collect();
        if fixed.is_empty() {
            continue;
        }
        match compile_with(model, options, output) {
            Ok(outcome) => return Ok((outcome.engine, fixed)),
            Err(failure) => last = failure,
        }
        if !needs_constant(&last) {
            break;
        }
    }
    Err(last)
}

/// Runs data sets and gives the largest error, as part of the tolerance.
fn run_sets(
    args: &TestArgs,
    engine: &Engine,
    sets: &[PathBuf],
    (rtol, atol): (f64, f64),
) -> Result<f64, Failure> {
    let plan = engine
        .plans
        .values()
        .next()
        .ok_or_else(|| Failure::new(Kind::Model, "the engine holds no plan"))?;
    let ports = |ports: &[tgc_ir::plan::Port]| -> Vec<(String, TensorType)> {
        ports
            .iter()
            .map(|p| (p.name.clone(), TensorType::new(p.dtype, p.shape.iter().cloned())))
            .collect()
    };
    let (input_ports, output_ports) = (ports(&plan.inputs), ports(&plan.outputs));
    let mut instance = open(engine, &args.device, RunOptions { threads: args.threads })?;
    let mut worst = 0.0f64;
    for set in sets {
        let tensors = inputs::arrange(set_inputs(set, &input_ports)?, &input_ports)?;
        let wanted = inputs::read_folder(set, "output", &output_ports)?;
        let got = instance.run(&tensors)?;
        let name = set.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        for ((output, want), got) in wanted.iter().zip(&got) {
            let difference = compare(got, want, rtol, atol).map_err(|e| {
                Failure::new(Kind::Verification, format!("{name}, output `{output}`: {e}"))
            })?;
            if difference.excess > 1.0 {
                return Err(Failure::new(
                    Kind::Verification,
                    format!(
                        "{name}, output `{output}`: largest error {:.3e} ({:.1} times the tolerance rtol {rtol:e} atol {atol:e})",
                        difference.max_abs, difference.excess
                    ),
                ));
            }
            worst = worst.max(difference.excess);
        }
    }
    Ok(worst)
}

/// The tensors of ports: by name where the files know it, else by number.
fn set_inputs(set: &Path, ports: &[(String, TensorType)]) -> Result<Vec<inputs::Named>, Failure> {
    let named = inputs::read_named(set, "input")?;
    if ports.iter().all(|(name, _)| named.iter().any(|(n, _)| n == name)) {
        return Ok(named.into_iter().filter(|(n, _)| ports.iter().any(|(p, _)| p == n)).collect());
    }
    inputs::read_folder(set, "input", ports)
}

fn tolerance(args: &TestArgs, folder: &Path) -> (f64, f64) {
    let meta = std::fs::read_to_string(folder.join("meta.json")).ok();
    let meta: Option<serde_json::Value> = meta.and_then(|t| serde_json::from_str(&t).ok());
    let of = |key: &str| meta.as_ref().and_then(|m| m[key].as_f64());
    (args.rtol.or(of("rtol")).unwrap_or(1e-3), args.atol.or(of("atol")).unwrap_or(1e-7))
}
