//! Test cases in the layout of the ONNX backend tests: reading data sets, running the reference, comparing.

#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::{Path, PathBuf};

use tgc_ir::eval::{self, Mode};
use tgc_ir::tensor::Tensor;
use tgc_onnx::{Imported, Options};

/// Absolute and relative tolerance of one case.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tolerance {
    pub(crate) rtol: f64,
    pub(crate) atol: f64,
}

/// The number after `"key":` in a JSON text.
fn number(text: &str, key: &str) -> Option<f64> {
    let rest = &text[text.find(&format!("\"{key}\":"))? + key.len() + 3..];
    let end = rest.find([',', '}', '\n']).unwrap_or(rest.len());
    rest[..end].trim().parse().ok()
}

pub(crate) fn tolerance(case: &Path, default: Tolerance) -> Tolerance {
    let text = std::fs::read_to_string(case.join("meta.json")).unwrap_or_default();
    Tolerance {
        rtol: number(&text, "rtol").unwrap_or(default.rtol),
        atol: number(&text, "atol").unwrap_or(default.atol),
    }
}

/// Folders `test_data_set_k` of a case, in order.
pub(crate) fn data_sets(case: &Path) -> Vec<PathBuf> {
    (0..).map(|k| case.join(format!("test_data_set_{k}"))).take_while(|p| p.is_dir()).collect()
}

/// Tensors `prefix_i.pb` with the names they carry.
pub(crate) fn read_tensors(set: &Path, prefix: &str) -> Result<Vec<(String, Tensor)>, String> {
    let mut out = Vec::new();
    for i in 0.. {
        let path = set.join(format!("{prefix}_{i}.pb"));
        let Ok(bytes) = std::fs::read(&path) else { break };
        out.push(
            tgc_onnx::read_tensor_pb(bytes.into())
                .map_err(|e| format!("{}: {e}", path.display()))?,
        );
    }
    Ok(out)
}

/// Runs an imported model on one data set and compares.
pub(crate) fn check(
    imported: &Imported,
    set: &Path,
    tolerance: Tolerance,
    options: &Options,
) -> Result<(), String> {
    let inputs = read_tensors(set, "input")?;
    let wanted = read_tensors(set, "output")?;
    let graph = &imported.graph;
    let mut feed: Vec<(&str, Tensor)> = Vec::new();
    for (name, tensor) in inputs.iter().filter(|(n, _)| !options.fixed_inputs.contains_key(n)) {
        let is_it = |i: &&tgc_ir::NodeId| matches!(graph.op(**i), tgc_ir::Op::Input { name: n, .. } if **n == **name);
        if let Some(&input) = graph.inputs().iter().find(is_it) {
            // real-silero-vad declares a scalar and is fed a vector of one element.
            let scalar = if graph.shape(input).is_empty() { tensor.reshaped(&[]) } else { None };
            feed.push((name, scalar.unwrap_or_else(|| tensor.clone())));
        }
    }
    // onnxruntime computes half types in f32 on CPUs, so that results of either precision are right.
    compare(graph, &feed, &wanted, Mode::Rounded, tolerance).or_else(|rounded| {
        let exact = compare(graph, &feed, &wanted, Mode::Exact, tolerance);
        exact.map_err(
            |exact| if exact == rounded { rounded } else { format!("{rounded}; exact: {exact}") },
        )
    })
}

fn compare(
    graph: &tgc_ir::Graph,
    feed: &[(&str, Tensor)],
    wanted: &[(String, Tensor)],
    mode: Mode,
    tolerance: Tolerance,
) -> Result<(), String> {
    let got = eval::run(graph, feed, mode).map_err(|e| format!("evaluation: {e}"))?;
    if got.len() != wanted.len() {
        return Err(format!("{} outputs, expected {}", got.len(), wanted.len()));
    }
    for (i, (name, want)) in wanted.iter().enumerate() {
        same(&got[i], want, tolerance).map_err(|e| format!("output {i} `{name}`: {e}"))?;
    }
    Ok(())
}

fn same(got: &Tensor, want: &Tensor, tolerance: Tolerance) -> Result<(), String> {
    if got.shape() != want.shape() {
        return Err(format!("extents {:?}, expected {:?}", got.shape(), want.shape()));
    }
    if got.dtype() != want.dtype() {
        return Err(format!("element type {}, expected {}", got.dtype(), want.dtype()));
    }
    let mut worst = (0.0f64, 0usize);
    for (i, (g, w)) in got.to_f64().into_iter().zip(want.to_f64()).enumerate() {
        if g == w || (g.is_nan() && w.is_nan()) {
            continue;
        }
        let excess = (g - w).abs() / (tolerance.atol + tolerance.rtol * w.abs());
        if excess.is_nan() || excess > worst.0 {
            worst = (if excess.is_nan() { f64::INFINITY } else { excess }, i);
        }
    }
    if worst.0 <= 1.0 {
        return Ok(());
    }
    let at = worst.1;
    Err(format!("element {at} is {}, expected {}", got.to_f64()[at], want.to_f64()[at]))
}

/// Imports a case and checks every data set. Inputs that must be known when compiling (the model is refused without, or
/// binds them to sizes that do not fit) are fixed to the values of the data set, as a user would.
pub(crate) fn run_case(case: &Path) -> Result<(), String> {
    let model = tgc_onnx::load(&case.join("model.onnx")).map_err(|e| e.to_string())?;
    let tolerance = tolerance(case, Tolerance { rtol: 1e-3, atol: 1e-7 });
    for set in data_sets(case) {
        let name = set.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        run_set(&model, &set, tolerance, &Options::default())
            .or_else(|error| {
                let mut options = Options::default();
                for (name, tensor) in read_tensors(&set, "input")? {
                    if !tensor.dtype().is_float() || tensor.shape().is_empty() || tensor.len() <= 8
                    {
                        options.fixed_inputs.insert(name, tensor);
                    }
                }
                run_set(&model, &set, tolerance, &options).map_err(|_| error)
            })
            .map_err(|e| format!("{name}: {e}"))?;
    }
    Ok(())
}

fn run_set(
    model: &tgc_onnx::Model,
    set: &Path,
    tolerance: Tolerance,
    options: &Options,
) -> Result<(), String> {
    let imported = tgc_onnx::import_with(model, options).map_err(|e| e.to_string())?;
    tgc_ir::infer::verify(&imported.graph).map_err(|(node, v)| format!("verifier: {node}: {v}"))?;
    check(&imported, set, tolerance, options)
}
