//! Shared by integration tests: cases of the model corpus, comparison.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::path::{Path, PathBuf};

use tgc_ir::tensor::Tensor;

/// The corpus beside the repository, when it is there.
pub(crate) fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/models");
    if path.is_dir() {
        return Some(path);
    }
    println!("skipped: the model corpus is not beside the repository");
    None
}

/// One data set: inputs and expected outputs in order.
pub(crate) struct DataSet {
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) outputs: Vec<Tensor>,
}

fn read_all(folder: &Path, stem: &str) -> Vec<Tensor> {
    (0..)
        .map(|i| folder.join(format!("{stem}_{i}.pb")))
        .take_while(|p| p.exists())
        .map(|p| {
            tgc_onnx::read_tensor_pb(std::fs::read(&p).expect("readable").into())
                .expect("a tensor")
                .1
        })
        .collect()
}

/// Every data set of a case.
pub(crate) fn data_sets(case: &Path) -> Vec<DataSet> {
    (0..)
        .map(|k| case.join(format!("test_data_set_{k}")))
        .take_while(|p| p.is_dir())
        .map(|p| DataSet { inputs: read_all(&p, "input"), outputs: read_all(&p, "output") })
        .collect()
}

/// (rtol, atol) of a case.
pub(crate) fn tolerance(case: &Path) -> (f64, f64) {
    let text = std::fs::read_to_string(case.join("meta.json")).expect("meta.json");
    let meta: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    (meta["rtol"].as_f64().expect("rtol"), meta["atol"].as_f64().expect("atol"))
}

/// The largest excess of |got - want| over atol + rtol·|want| as a ratio
/// (≤ 1 passes), or why the tensors cannot be compared.
pub(crate) fn excess(got: &Tensor, want: &Tensor, (rtol, atol): (f64, f64)) -> Result<f64, String> {
    if got.shape() != want.shape() || got.dtype() != want.dtype() {
        return Err(format!(
            "{}{:?} instead of {}{:?}",
            got.dtype(),
            got.shape(),
            want.dtype(),
            want.shape()
        ));
    }
    let mut worst = 0.0f64;
    for i in 0..want.len() {
        let (g, w) = (got.value(i).as_f64(), want.value(i).as_f64());
        if g == w || (g.is_nan() && w.is_nan()) {
            continue;
        }
        let ratio = (g - w).abs() / (atol + rtol * w.abs());
        worst = if ratio.is_nan() { f64::INFINITY } else { worst.max(ratio) };
    }
    Ok(worst)
}

/// Site names of meta.json and the ops that they become.
pub(crate) const SITE_OPS: &[(&str, &str)] = &[
    ("attention", "attend"),
    ("layernorm", "layer_norm"),
    ("rmsnorm", "rms_norm"),
    ("gelu_erf", "gelu"),
    ("gelu_tanh", "gelu_tanh"),
    ("quick_gelu", "quick_gelu"),
    ("silu", "silu"),
];

/// Recognised ops by name.
pub(crate) fn sites(graph: &tgc_ir::Graph) -> std::collections::BTreeMap<&'static str, u64> {
    let mut out = std::collections::BTreeMap::new();
    for id in graph.ids() {
        let op = graph.op(id);
        if matches!(op, tgc_ir::Op::Composite(_) | tgc_ir::Op::Attend { .. }) {
            *out.entry(op.name()).or_insert(0) += 1;
        }
    }
    out
}

/// How many sites of a kind the architecture has.
pub(crate) fn expected_sites(case: &Path, site: &str) -> Option<u64> {
    let text = std::fs::read_to_string(case.join("meta.json")).expect("meta.json");
    let meta: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    meta["expected_sites"][site].as_u64()
}

/// Row `i` of the first axis, as a batch of one.
pub(crate) fn row(tensor: &Tensor, i: usize) -> Tensor {
    let mut shape = tensor.shape().to_vec();
    let rows = std::mem::replace(&mut shape[0], 1);
    let width = tensor.bytes().len() / rows;
    Tensor::new(tensor.dtype(), shape, tensor.bytes().slice(i * width..(i + 1) * width))
        .expect("a row")
}
