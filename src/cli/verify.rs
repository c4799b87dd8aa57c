//! `tgc verify`: any two ways of computing a model, compared.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use tgc::device::{DEVICES, RunOptions, open};
use tgc::session::{Failure, Kind, Options, Quiet, Session, error_chain};
use tgc::statistics::{Preset, Statistics, statistics};
use tgc::verify::{Finding, baseline, bisect, check_launches};
use tgc::{Outcome, inputs, npy};
use tgc_ir::eval::Mode;
use tgc_ir::{Graph, Tensor};

use super::run::Running;
use super::{Compiling, Output};

/// Arguments of `verify`.
#[derive(Args)]
pub(crate) struct VerifyArgs {
    /// Model (.onnx, .tgir).
    model: PathBuf,
    /// What is judged is --device; this is the judge: `imported` (the model as imported, in f64),
    /// `optimised` (after rewriting, in f64), a device, `onnxruntime` (of the Python on the path), a
    /// .npz of saved outputs, or a folder of ONNX test data.
    #[arg(long, default_value = "imported")]
    against: String,
    /// Decide by a published rule instead of the tolerance that rounding to the declared dtypes
    /// gives: `logits-0.5pct` (largest error at most 0.5 % of the largest logit), `wenet-encoder`
    /// (max abs < 3.5e-2, median rel < 2e-3), `wenet-decoder` (max abs < 4e-1, median rel < 2e-4).
    #[arg(long)]
    preset: Option<PresetName>,
    /// Decide by |got - want| <= atol + rtol * |want|.
    #[arg(long)]
    rtol: Option<f64>,
    /// See --rtol.
    #[arg(long)]
    atol: Option<f64>,
    /// Compare every kernel with its nodes, on the inputs that it meets in this run.
    #[arg(long)]
    layers: bool,
    /// Name the first rewrite, then the first kernel, that changes an answer.
    #[arg(long)]
    bisect: bool,
    #[command(flatten)]
    running: Running,
    #[command(flatten)]
    compiling: Compiling,
}

#[derive(Clone, Copy, ValueEnum)]
enum PresetName {
    #[value(name = "logits-0.5pct")]
    Logits,
    WenetEncoder,
    WenetDecoder,
}

impl PresetName {
    fn preset(self) -> Preset {
        match self {
            PresetName::Logits => Preset::Logits,
            PresetName::WenetEncoder => Preset::WenetEncoder,
            PresetName::WenetDecoder => Preset::WenetDecoder,
        }
    }
}

/// How outputs are judged.
enum Judge {
    Preset(Preset),
    Tolerance {
        rtol: f64,
        atol: f64,
    },
    /// Largest error per output.
    Declared(Vec<f64>),
}

impl Judge {
    fn accepts(&self, output: usize, got: &Tensor, want: &Tensor, s: &Statistics) -> bool {
        let compare = |rtol, atol| {
            tgc::tolerance::compare(got, want, rtol, atol).is_ok_and(|d| d.excess <= 1.0)
        };
        match self {
            Judge::Preset(preset) => preset.accepts(s),
            Judge::Tolerance { rtol, atol } => compare(*rtol, *atol),
            Judge::Declared(limits) => compare(0.0, limits[output]),
        }
    }

    fn describe(&self, output: usize) -> String {
        match self {
            Judge::Preset(preset) => preset.rule().to_owned(),
            Judge::Tolerance { rtol, atol } => format!("rtol {rtol:e} atol {atol:e}"),
            Judge::Declared(limits) => format!("{:.3e}, from the declared dtypes", limits[output]),
        }
    }
}

/// Compares and prints; an error of kind verification when an output differs.
pub(crate) fn run(args: &VerifyArgs, output: &Output) -> Result<(), Failure> {
    if args.model.extension().is_some_and(|e| e == "tgc") {
        let why = "verify compares stages of compiling, so it takes the model, not an engine";
        return Err(Failure::new(Kind::Usage, why));
    }
    let options =
        Options { verify: false, ..args.compiling.for_device(&args.running.device).options()? };
    let outcome =
        Session::new(options.clone()).compile_watched(&args.model, &mut Quiet, &mut Quiet)?;
    let tensors = args.running.tensors(&outcome.engine, output)?;
    let names: Vec<String> =
        inputs::ports(&outcome.imported).into_iter().map(|(name, _)| name).collect();
    let named: Vec<(&str, Tensor)> =
        names.iter().map(String::as_str).zip(tensors.iter().cloned()).collect();
    let side = Sides { args, outcome: &outcome, named: &named };
    let want = side.outputs(&args.against)?;
    let got = side.outputs(&args.running.device)?;
    let judge = side.judge()?;
    let rows = compare_outputs(&outcome.imported, &got, &want, &judge)?;
    let layers =
        if args.layers || args.bisect { Some(check_launches(&outcome, &named)?) } else { None };
    let culprit = if args.bisect { bisect(&options, &outcome.imported, &named)? } else { None };
    report(args, output, &rows, layers.as_deref(), culprit.as_ref());
    let wrong: Vec<&str> = rows.iter().filter(|r| !r.accepted).map(|r| r.name.as_str()).collect();
    let wrong_kernels = layers.iter().flatten().filter(|l| l.differs()).count();
    match (wrong.is_empty(), culprit.is_some() || wrong_kernels > 0) {
        (true, false) => Ok(()),
        (true, true) => Err(Failure::new(
            Kind::Verification,
            "outputs agree, but a rewrite or kernel on the way does not (see above)",
        )),
        (false, _) => Err(Failure::new(
            Kind::Verification,
            format!(
                "{} differs from {} in {}",
                args.running.device,
                args.against,
                wrong.join(", ")
            ),
        )),
    }
}

struct Sides<'a> {
    args: &'a VerifyArgs,
    outcome: &'a Outcome,
    named: &'a [(&'a str, Tensor)],
}

impl Sides<'_> {
    /// Outputs of one side, in the model's order.
    fn outputs(&self, side: &str) -> Result<Vec<Tensor>, Failure> {
        let evaluate = |graph: &Graph| {
            tgc_ir::eval::run(graph, self.named, Mode::Exact)
                .map_err(|e| Failure::new(Kind::Usage, error_chain(&e)))
        };
        let tensors: Vec<Tensor> = self.named.iter().map(|(_, t)| t.clone()).collect();
        match side {
            "imported" => evaluate(&self.outcome.imported),
            "optimised" => evaluate(&self.outcome.optimised),
            "onnxruntime" => onnxruntime(&self.args.model, self.named, &self.output_names()),
            "null" => Err(Failure::new(Kind::Usage, "the null device computes nothing to compare")),
            device if DEVICES.contains(&device) => {
                let options = RunOptions { threads: self.args.running.threads };
                open(&self.outcome.engine, device, options)?.run(&tensors)
            }
            path => self.saved(Path::new(path)),
        }
    }

    fn output_names(&self) -> Vec<String> {
        self.outcome.imported.outputs().iter().map(|o| o.name.to_string()).collect()
    }

    /// Outputs from a .npz or a folder of ONNX test data.
    fn saved(&self, path: &Path) -> Result<Vec<Tensor>, Failure> {
        if path.is_dir() {
            let ports: Vec<_> = self
                .outcome
                .imported
                .outputs()
                .iter()
                .map(|o| (o.name.to_string(), self.outcome.imported.ty(o.node).clone()))
                .collect();
            let named = inputs::read_folder(path, "output", &ports)?;
            return Ok(named.into_iter().map(|(_, tensor)| tensor).collect());
        }
        if !path.is_file() {
            let sides =
                "imported, optimised, onnxruntime, cpu, reference, cuda, simulator, or a file";
            let message = format!("`{}` is neither a side ({sides}) nor a file", path.display());
            return Err(Failure::new(Kind::Usage, message));
        }
        let read = npy::read_npz(path).map_err(|e| {
            Failure::new(Kind::File, format!("cannot read {}: {e}", path.display()))
        })?;
        in_order(read, &self.output_names(), &path.display().to_string())
    }

    fn judge(&self) -> Result<Judge, Failure> {
        let args = self.args;
        if let Some(name) = args.preset {
            return Ok(Judge::Preset(name.preset()));
        }
        if args.rtol.is_some() || args.atol.is_some() {
            let (rtol, atol) = (args.rtol.unwrap_or(0.0), args.atol.unwrap_or(0.0));
            return Ok(Judge::Tolerance { rtol, atol });
        }
        // Another computation in the declared dtypes is as far from the truth.
        let sides =
            if matches!(args.against.as_str(), "imported" | "optimised") { 1.0 } else { 2.0 };
        let (_, limits) = baseline(&self.outcome.imported, self.named)?;
        Ok(Judge::Declared(limits.into_iter().map(|limit| sides * limit).collect()))
    }
}

/// Puts named tensors into the order of the outputs.
fn in_order(
    mut read: Vec<(String, Tensor)>,
    names: &[String],
    what: &str,
) -> Result<Vec<Tensor>, Failure> {
    names
        .iter()
        .map(|name| {
            let at = read.iter().position(|(n, _)| n == name).ok_or_else(|| {
                Failure::new(Kind::Usage, format!("{what} holds no output `{name}`"))
            })?;
            Ok(read.swap_remove(at).1)
        })
        .collect()
}

/// Runs the model in onnxruntime through the Python on the path.
fn onnxruntime(
    model: &Path,
    named: &[(&str, Tensor)],
    outputs: &[String],
) -> Result<Vec<Tensor>, Failure> {
    const SCRIPT: &str = "import sys, numpy, onnxruntime as ort
session = ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])
names = [o.name for o in session.get_outputs()]
results = session.run(names, dict(numpy.load(sys.argv[2])))
numpy.savez(sys.argv[3], **dict(zip(names, results)))
";
    let fail = |why: String| Failure::new(Kind::File, why);
    let folder = tempfile::tempdir().map_err(|e| fail(format!("no temporary folder: {e}")))?;
    let (given, results) = (folder.path().join("in.npz"), folder.path().join("out.npz"));
    let pairs: Vec<(&str, &Tensor)> = named.iter().map(|(n, t)| (*n, t)).collect();
    npy::write_npz(&given, &pairs).map_err(fail)?;
    let python = std::env::var("TGC_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let ran = std::process::Command::new(&python)
        .arg("-c")
        .arg(SCRIPT)
        .args([model, &given, &results])
        .output()
        .map_err(|e| Failure::new(Kind::Device, format!("cannot start {python}: {e}")))?;
    if !ran.status.success() {
        let text = String::from_utf8_lossy(&ran.stderr);
        let last = text.trim_end().lines().last().unwrap_or("it says nothing").to_owned();
        return Err(Failure::new(
            Kind::Device,
            format!(
                "onnxruntime did not run the model: {last}\n  help: TGC_PYTHON names a Python with onnxruntime and numpy"
            ),
        ));
    }
    let read = npy::read_npz(&results).map_err(fail)?;
    in_order(read, outputs, "onnxruntime's result")
}

struct Row {
    name: String,
    statistics: Statistics,
    accepted: bool,
    rule: String,
}

fn compare_outputs(
    graph: &Graph,
    got: &[Tensor],
    want: &[Tensor],
    judge: &Judge,
) -> Result<Vec<Row>, Failure> {
    let pairs = graph.outputs().iter().zip(got.iter().zip(want)).enumerate();
    pairs
        .map(|(i, (output, (got, want)))| {
            let name = output.name.to_string();
            let statistics = statistics(got, want)
                .map_err(|e| Failure::new(Kind::Verification, format!("output `{name}`: {e}")))?;
            let accepted = judge.accepts(i, got, want, &statistics);
            Ok(Row { name, statistics, accepted, rule: judge.describe(i) })
        })
        .collect()
}

fn report(
    args: &VerifyArgs,
    output: &Output,
    rows: &[Row],
    layers: Option<&[tgc::verify::KernelCheck]>,
    culprit: Option<&tgc::verify::Culprit>,
) {
    if output.json {
        output.document("tgc.verify/1", document(args, rows, layers, culprit));
        return;
    }
    for row in rows {
        output.result(describe(row));
    }
    for layer in layers.unwrap_or_default() {
        let nodes = match layer.nodes.as_slice() {
            [] => String::new(),
            [one] => one.clone(),
            [first, .., last] => format!("{first} … {last}"),
        };
        let (mark, text) = match &layer.finding {
            Finding::Agrees(share) => ("ok  ", format!("{:.0} % of the tolerance", 100.0 * share)),
            Finding::Differs(why) => ("FAIL", why.clone()),
            Finding::NotCompared(why) => ("    ", format!("not compared: {why}")),
        };
        output.result(format_args!("{mark}  {:<12}  {nodes}  {text}", layer.kernel));
    }
    match culprit {
        Some(c) => {
            let rules = if c.rules.is_empty() { "no rule".to_owned() } else { c.rules.join(", ") };
            output.result(format_args!(
                "rewrite {} is the first that changes output `{}` (by {:.3e}): {rules}\n  help: `tgc opt MODEL --fuel {}` and `--fuel {}` print the graph before and after",
                c.fuel, c.output, c.max_abs, c.fuel.saturating_sub(1), c.fuel
            ));
        }
        None if args.bisect => output.result("no rewrite changes an answer"),
        None => {}
    }
}

fn describe(row: &Row) -> String {
    let s = &row.statistics;
    let mut text = format!(
        "{}  {}  abs max {:.3e} mean {:.3e} median {:.3e} p99 {:.3e}  rel max {:.3e} mean {:.3e} median {:.3e}  norm {:.3e}  cosine {:.9}  (allowed: {})",
        if row.accepted { "ok  " } else { "FAIL" },
        row.name,
        s.abs.max,
        s.abs.mean,
        s.abs.median,
        s.abs.p99,
        s.rel.max,
        s.rel.mean,
        s.rel.median,
        s.norm_rel,
        s.cosine,
        row.rule,
    );
    if s.mismatched > 0 {
        let first =
            s.first_non_finite.map_or_else(String::new, |i| format!(", first at element {i}"));
        text.push_str(&format!(
            "\n      {} elements are finite on one side only{first}",
            s.mismatched
        ));
    }
    text
}

fn document(
    args: &VerifyArgs,
    rows: &[Row],
    layers: Option<&[tgc::verify::KernelCheck]>,
    culprit: Option<&tgc::verify::Culprit>,
) -> serde_json::Value {
    let outputs: Vec<_> = rows
        .iter()
        .map(|r| {
            serde_json::json!({
                "name": r.name, "accepted": r.accepted, "rule": r.rule, "statistics": r.statistics,
            })
        })
        .collect();
    let layers: Option<Vec<_>> = layers.map(|layers| {
        let one = |l: &tgc::verify::KernelCheck| {
            let (share, why) = match &l.finding {
                Finding::Agrees(share) => (Some(share), None),
                Finding::Differs(why) | Finding::NotCompared(why) => (None, Some(why)),
            };
            serde_json::json!({
                "kernel": l.kernel, "nodes": l.nodes, "differs": l.differs(),
                "share": share, "why": why,
            })
        };
        layers.iter().map(one).collect()
    });
    let culprit = culprit.map(|c| {
        serde_json::json!({ "fuel": c.fuel, "rules": c.rules, "output": c.output, "max_abs": c.max_abs })
    });
    serde_json::json!({
        "side": args.running.device, "against": args.against,
        "outputs": outputs, "layers": layers, "culprit": culprit,
    })
}
