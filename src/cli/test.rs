//! `tgc test`: ONNX test-data folders, compared output by output.

use std::path::{Path, PathBuf};

use clap::Args;

use tgc::device::{RunOptions, open};
use tgc::inputs;
use tgc::session::{Failure, Kind};
use tgc::tolerance::compare;
use tgc_ir::TensorType;

use super::{Compiling, Output, engine_of};

/// Arguments of `test`.
#[derive(Args)]
pub(crate) struct TestArgs {
    /// Case folders with model.onnx and test_data_set_N, or models beside such folders.
    #[arg(required = true)]
    cases: Vec<PathBuf>,
    /// Device.
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Threads of the cpu device (0 = all).
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
            Ok(worst) => {
                passed += 1;
                rows.push(serde_json::json!({ "case": name, "passed": true, "worst": worst }));
                if !output.json {
                    output.result(format_args!(
                        "ok    {name}  largest error {:.0} % of the tolerance",
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

fn run_case(args: &TestArgs, case: &Path, output: &Output) -> Result<f64, Failure> {
    let (folder, model) = if case.is_dir() {
        (case.to_owned(), case.join("model.onnx"))
    } else {
        (case.parent().unwrap_or(Path::new(".")).to_owned(), case.to_owned())
    };
    let (engine, _) = engine_of(&model, &args.compiling, output)?;
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
    let (rtol, atol) = tolerance(args, &folder);
    let mut instance = open(&engine, &args.device, RunOptions { threads: args.threads })?;
    let mut worst = 0.0f64;
    let mut sets = 0;
    while folder.join(format!("test_data_set_{sets}")).is_dir() {
        let set = folder.join(format!("test_data_set_{sets}"));
        let given = inputs::read_folder(&set, "input", &input_ports)?;
        let tensors = inputs::arrange(given, &input_ports)?;
        let wanted = inputs::read_folder(&set, "output", &output_ports)?;
        let got = instance.run(&tensors)?;
        for ((name, want), got) in wanted.iter().zip(&got) {
            let difference = compare(got, want, rtol, atol).map_err(|e| {
                Failure::new(Kind::Verification, format!("set {sets}, output `{name}`: {e}"))
            })?;
            if difference.excess > 1.0 {
                return Err(Failure::new(
                    Kind::Verification,
                    format!(
                        "set {sets}, output `{name}`: largest error {:.3e} ({:.1} times the tolerance rtol {rtol:e} atol {atol:e})",
                        difference.max_abs, difference.excess
                    ),
                ));
            }
            worst = worst.max(difference.excess);
        }
        sets += 1;
    }
    if sets == 0 {
        return Err(Failure::new(
            Kind::File,
            format!("{} has no test_data_set_0", folder.display()),
        ));
    }
    Ok(worst)
}

fn tolerance(args: &TestArgs, folder: &Path) -> (f64, f64) {
    let meta = std::fs::read_to_string(folder.join("meta.json")).ok();
    let meta: Option<serde_json::Value> = meta.and_then(|t| serde_json::from_str(&t).ok());
    let of = |key: &str| meta.as_ref().and_then(|m| m[key].as_f64());
    (args.rtol.or(of("rtol")).unwrap_or(1e-3), args.atol.or(of("atol")).unwrap_or(1e-7))
}
