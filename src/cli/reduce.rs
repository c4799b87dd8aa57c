//! `tgc reduce`: a model shrunk to the few lines that still show a fault.

use std::path::{Path, PathBuf};

use clap::Args;

use tgc::device::{RunOptions, open};
use tgc::inputs::{Style, ports, random};
use tgc::session::{Failure, Kind, Options, Quiet};
use tgc::verify::{baseline, check_launches, small_binding};
use tgc::{Outcome, Session};
use tgc_ir::eval::Mode;
use tgc_ir::{Graph, Tensor};
use tgc_runtime::engine::write_beside;

use super::{Compiling, Output};

/// Arguments of `reduce`.
#[derive(Args)]
pub(crate) struct ReduceArgs {
    /// Model (.onnx, .tgir).
    model: PathBuf,
    /// What must stay true: `optimised` (rewriting changes an answer), `kernels` (a kernel differs
    /// from its nodes), `cpu` (the cpu device differs), `error:TEXT` (compiling fails and says
    /// TEXT), or a command in which `{}` stands for the candidate .tgir; exit code 0 means yes.
    #[arg(long = "while", value_name = "CMD|PRESET")]
    property: String,
    /// Where the graph goes (default: the model's name with .reduced.tgir).
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Elements up to which weights are written into the text.
    #[arg(long, default_value_t = 4096)]
    weights: usize,
    #[command(flatten)]
    compiling: Compiling,
}

/// Shrinks and writes.
pub(crate) fn run(args: &ReduceArgs, output: &Output) -> Result<(), Failure> {
    let options = Options { verify: false, ..args.compiling.options()? };
    let session = Session::new(options);
    let (graph, _) = session.import(&args.model)?;
    let property = Property::parse(&args.property)?;
    let folder = tempfile::tempdir()
        .map_err(|e| Failure::new(Kind::File, format!("no temporary folder: {e}")))?;
    let mut failed = None;
    let mut holds = |g: &Graph| match property.holds(&session, g, folder.path(), args.weights) {
        Ok(holds) => holds,
        Err(failure) => {
            failed.get_or_insert(failure);
            false
        }
    };
    if !holds(&graph) {
        let why = format!("`{}` is not true of the model itself", args.property);
        return Err(failed.unwrap_or_else(|| Failure::new(Kind::Usage, why)));
    }
    let (small, tried) = tgc::reduce::reduce(&graph, &mut holds);
    if let Some(failure) = failed {
        return Err(failure);
    }
    let path = args.output.clone().unwrap_or_else(|| args.model.with_extension("reduced.tgir"));
    let text = tgc_ir::text::print_with_weights(&small, args.weights);
    write_beside(&path, text.as_bytes())
        .map_err(|e| Failure::new(Kind::File, format!("cannot write {}: {e}", path.display())))?;
    let ops = small.ids().filter(|n| !small.op(*n).is_leaf()).count();
    if output.json {
        output.document(
            "tgc.reduce/1",
            serde_json::json!({
                "file": path.display().to_string(), "nodes_before": graph.len(),
                "nodes": small.len(), "ops": ops, "candidates": tried,
            }),
        );
    } else {
        output.result(format_args!(
            "{} of {} nodes are left ({ops} ops), {tried} candidates tried: {}",
            small.len(),
            graph.len(),
            path.display()
        ));
    }
    Ok(())
}

/// What must stay true.
enum Property {
    Optimised,
    Kernels,
    Cpu,
    Error(String),
    Command(String),
}

impl Property {
    fn parse(text: &str) -> Result<Property, Failure> {
        Ok(match text {
            "optimised" => Property::Optimised,
            "kernels" => Property::Kernels,
            "cpu" => Property::Cpu,
            _ => match text.strip_prefix("error:") {
                Some(wanted) => Property::Error(wanted.to_owned()),
                None if text.contains("{}") => Property::Command(text.to_owned()),
                None => {
                    let message = format!(
                        "--while {text}: neither optimised, kernels, cpu, error:TEXT nor a command with {{}}"
                    );
                    return Err(Failure::new(Kind::Usage, message));
                }
            },
        })
    }

    fn holds(
        &self,
        session: &Session,
        graph: &Graph,
        folder: &Path,
        weights: usize,
    ) -> Result<bool, Failure> {
        match self {
            Property::Command(command) => {
                let path = folder.join("candidate.tgir");
                let text = tgc_ir::text::print_with_weights(graph, weights);
                let cannot = |what: &str, e: std::io::Error| {
                    Failure::new(Kind::File, format!("cannot {what}: {e}"))
                };
                std::fs::write(&path, text).map_err(|e| cannot("write a candidate", e))?;
                let command = command.replace("{}", &path.display().to_string());
                let shell = std::process::Command::new("sh").args(["-c", &command]).output();
                Ok(shell.map_err(|e| cannot("start sh", e))?.status.success())
            }
            Property::Error(wanted) => {
                let compiled = session.compile_graph(graph.clone(), &mut Quiet, &mut Quiet);
                Ok(compiled.is_err_and(|failure| failure.message.contains(wanted)))
            }
            Property::Optimised | Property::Kernels | Property::Cpu => {
                let Ok(outcome) = session.compile_graph(graph.clone(), &mut Quiet, &mut Quiet)
                else {
                    return Ok(false);
                };
                Ok(self.differs(&outcome).unwrap_or(false))
            }
        }
    }

    /// Whether the stage differs from the imported graph; none when the graph
    /// has no small inputs or does not evaluate on them.
    fn differs(&self, outcome: &Outcome) -> Option<bool> {
        let graph = &outcome.imported;
        let binding = small_binding(graph)?;
        let tensors = random(graph, &binding, 1, Style::Usual).ok()?;
        let names: Vec<String> = ports(graph).into_iter().map(|(name, _)| name).collect();
        let named: Vec<(&str, Tensor)> =
            names.iter().map(String::as_str).zip(tensors.iter().cloned()).collect();
        let (want, limits) = baseline(graph, &named).ok()?;
        let got = match self {
            Property::Optimised => tgc_ir::eval::run(&outcome.optimised, &named, Mode::Exact).ok(),
            Property::Cpu => {
                let mut cpu = open(&outcome.engine, "cpu", RunOptions::default()).ok()?;
                cpu.run(&tensors).ok()
            }
            _ => {
                let checks = check_launches(outcome, &named).ok()?;
                return Some(checks.iter().any(tgc::verify::KernelCheck::differs));
            }
        };
        let Some(got) = got else { return Some(true) };
        Some(got.iter().zip(want.iter().zip(&limits)).any(|(got, (want, limit))| {
            tgc::tolerance::compare(got, want, 0.0, *limit).map_or(true, |d| d.excess > 1.0)
        }))
    }
}
