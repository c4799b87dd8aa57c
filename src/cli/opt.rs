//! `tgc opt`: passes on a graph in text form, for pass and rule authors.

use std::path::PathBuf;

use clap::Args;

use tgc::Session;
use tgc::inputs::{Style, ports, random};
use tgc::session::{Failure, Kind};
use tgc_ir::eval::{Mode, run as evaluate};
use tgc_ir::{Graph, Tensor};
use tgc_passes::{Observer, Pass};

use super::{Compiling, Output};

/// Arguments of `opt`.
#[derive(Args)]
pub(crate) struct OptArgs {
    /// Graph (.tgir) or model (.onnx).
    model: PathBuf,
    /// Print the graph after every pass.
    #[arg(long)]
    print_after_all: bool,
    /// Print the graph after every pass that changes it.
    #[arg(long)]
    print_changed: bool,
    /// Evaluate after every pass on random inputs and name the first that changes an answer.
    #[arg(long)]
    check_each: bool,
    /// Print how often each rule fired.
    #[arg(long)]
    fired: bool,
    #[command(flatten)]
    compiling: Compiling,
}

struct Watcher<'a> {
    args: &'a OptArgs,
    output: &'a Output,
    started: std::time::Instant,
    found: Option<String>,
}

impl Observer for Watcher<'_> {
    fn before(&mut self, _: &Pass, _: &Graph) {
        self.started = std::time::Instant::now();
    }

    fn after(&mut self, pass: &Pass, before: &Graph, graph: &Graph) {
        let (old, new) = (tgc_ir::text::print(before), tgc_ir::text::print(graph));
        if self.output.verbose > 0 {
            let ms = self.started.elapsed().as_secs_f64() * 1e3;
            self.output.remark(format_args!(
                "pass {}: {} -> {} nodes in {ms:.2} ms",
                pass.name,
                before.len(),
                graph.len()
            ));
        }
        if self.args.print_after_all || (self.args.print_changed && old != new) {
            self.output.remark(format_args!("; after {}\n{new}", pass.name));
        }
        if self.args.check_each && self.found.is_none() {
            self.found = difference(before, graph)
                .map(|why| format!("pass `{}` changes an answer: {why}", pass.name));
        }
    }
}

/// Why two graphs give different outputs on random inputs.
fn difference(before: &Graph, after: &Graph) -> Option<String> {
    let binding = tgc::verify::small_binding(before)?;
    let tensors = random(before, &binding, 1, Style::Usual).ok()?;
    let names: Vec<String> = ports(before).into_iter().map(|(n, _)| n).collect();
    let named: Vec<(&str, Tensor)> = names.iter().map(String::as_str).zip(tensors).collect();
    let wanted = evaluate(before, &named, Mode::Exact).ok()?;
    let got = match evaluate(after, &named, Mode::Exact) {
        Ok(got) => got,
        Err(e) => return Some(e.to_string()),
    };
    wanted.iter().zip(&got).zip(before.outputs()).find_map(|((want, got), output)| {
        match tgc::tolerance::compare(got, want, 1e-5, 1e-6) {
            Ok(d) if d.excess <= 1.0 => None,
            Ok(d) => Some(format!("output `{}` by {:.3e}", output.name, d.max_abs)),
            Err(e) => Some(e),
        }
    })
}

/// Runs passes and prints the graph.
pub(crate) fn run(args: &OptArgs, output: &Output) -> Result<(), Failure> {
    let session = Session::new(args.compiling.options()?);
    let (graph, _) = session.import(&args.model)?;
    let mut watcher = Watcher { args, output, started: std::time::Instant::now(), found: None };
    let (optimised, fired, _) = session.optimise(&graph, &mut watcher)?;
    if let Some(found) = watcher.found {
        return Err(Failure::new(Kind::Verification, found));
    }
    if args.fired {
        fired.iter().for_each(|(rule, count)| output.result(format_args!("{count:>6}  {rule}")));
        return Ok(());
    }
    output.result(tgc_ir::text::print_with_weights(&optimised, 64).trim_end());
    Ok(())
}
