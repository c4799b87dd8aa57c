//! `tgc bench`: times of runs on a device.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;

use tgc::device::{RunOptions, open};
use tgc::session::Failure;

use super::run::Running;
use super::{Compiling, Output, engine_of};

/// Arguments of `bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Model (.onnx, .tgir) or engine (.tgc).
    model: PathBuf,
    #[command(flatten)]
    running: Running,
    /// At least this many runs.
    #[arg(long, default_value_t = 10)]
    iterations: usize,
    /// At least this many seconds.
    #[arg(long, default_value_t = 3.0)]
    duration: f64,
    /// Milliseconds of runs that do not count, first.
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// Print the time of each kernel too, the slowest first (cpu device).
    #[arg(long)]
    layers: bool,
    #[command(flatten)]
    compiling: Compiling,
}

/// Runs and prints a table of times.
pub(crate) fn run(args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let (engine, _) =
        engine_of(&args.model, &args.compiling.for_device(&args.running.device), output)?;
    let tensors = args.running.tensors(&engine, output)?;
    let opened = Instant::now();
    let mut instance =
        open(&engine, &args.running.device, RunOptions { threads: args.running.threads })?;
    let first = Instant::now();
    instance.run(&tensors)?;
    let (load_ms, first_ms) = (ms(first - opened), ms(first.elapsed()));
    let warm = Instant::now();
    while warm.elapsed() < Duration::from_millis(args.warm_up) {
        instance.run(&tensors)?;
    }
    let mut times: Vec<f64> = Vec::new();
    let start = Instant::now();
    while times.len() < args.iterations || start.elapsed().as_secs_f64() < args.duration {
        let one = Instant::now();
        instance.run(&tensors)?;
        times.push(ms(one.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    let layers = if args.layers { layers(instance.as_mut(), &tensors, args)? } else { Vec::new() };
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let deviation =
        (times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / times.len() as f64).sqrt();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    let mut report = serde_json::json!({
        "device": args.running.device,
        "runs": times.len(),
        "load_ms": load_ms,
        "first_run_ms": first_ms,
        "median_ms": at(0.5),
        "mean_ms": mean,
        "min_ms": at(0.0),
        "max_ms": at(1.0),
        "p90_ms": at(0.9),
        "p99_ms": at(0.99),
        "variation": deviation / mean,
    });
    if args.layers {
        report["layers"] = layers.iter().map(Layer::json).collect();
    }
    if output.json {
        output.document("tgc.bench/1", report);
        return Ok(());
    }
    output.result(format_args!(
        "median {:.4} ms  min {:.4}  mean {mean:.4}  p90 {:.4}  p99 {:.4}  max {:.4}  ({} runs; load {load_ms:.1} ms, first run {first_ms:.2} ms)",
        at(0.5), at(0.0), at(0.9), at(0.99), at(1.0), times.len()
    ));
    let total: f64 = layers.iter().map(|l| l.median_ms).sum();
    for layer in &layers {
        output.result(format_args!(
            "{:>10.4} ms {:>5.1} %  {:<16} {}",
            layer.median_ms,
            100.0 * layer.median_ms / total,
            layer.kernel,
            layer.value
        ));
    }
    if deviation / mean > 0.05 {
        output.remark(format_args!(
            "warning: times vary by {:.0} %: the machine is busy or its clock changes",
            100.0 * deviation / mean
        ));
    }
    Ok(())
}

/// The time of one launch.
struct Layer {
    kernel: String,
    value: String,
    median_ms: f64,
}

impl Layer {
    fn json(&self) -> serde_json::Value {
        serde_json::json!({ "kernel": self.kernel, "value": self.value, "median_ms": self.median_ms })
    }
}

/// Median time of each launch over as many runs as the report has, slowest first.
fn layers(
    instance: &mut dyn tgc::device::Instance,
    tensors: &[tgc_ir::Tensor],
    args: &BenchArgs,
) -> Result<Vec<Layer>, Failure> {
    let names = instance.launches();
    if names.is_empty() {
        let why = format!(
            "--layers: the {} device does not tell its launches apart",
            args.running.device
        );
        return Err(Failure::new(tgc::session::Kind::Usage, why));
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let start = Instant::now();
    let mut runs = 0;
    while runs < args.iterations || start.elapsed().as_secs_f64() < args.duration {
        let mut last = Instant::now();
        instance.run_watched(tensors, &mut |launch| {
            let now = Instant::now();
            times[launch].push(ms(now - last));
            last = now;
        })?;
        runs += 1;
    }
    let median = |times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times.get(times.len() / 2).copied().unwrap_or(0.0)
    };
    let mut layers: Vec<Layer> = names
        .into_iter()
        .zip(&mut times)
        .map(|((kernel, value), times)| Layer { kernel, value, median_ms: median(times) })
        .collect();
    layers.sort_by(|a, b| b.median_ms.total_cmp(&a.median_ms));
    Ok(layers)
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
