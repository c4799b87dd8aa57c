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
    #[command(flatten)]
    compiling: Compiling,
}

/// Runs and prints a table of times.
pub(crate) fn run(args: &BenchArgs, output: &Output) -> Result<(), Failure> {
    let (engine, _) = engine_of(&args.model, &args.compiling, output)?;
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
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let deviation =
        (times.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / times.len() as f64).sqrt();
    let at = |q: f64| times[((times.len() - 1) as f64 * q) as usize];
    let report = serde_json::json!({
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
    if output.json {
        output.document("tgc.bench/1", report);
        return Ok(());
    }
    output.result(format_args!(
        "median {:.4} ms  min {:.4}  mean {mean:.4}  p90 {:.4}  p99 {:.4}  max {:.4}  ({} runs; load {load_ms:.1} ms, first run {first_ms:.2} ms)",
        at(0.5), at(0.0), at(0.9), at(0.99), at(1.0), times.len()
    ));
    if deviation / mean > 0.05 {
        output.remark(format_args!(
            "warning: times vary by {:.0} %: the machine is busy or its clock changes",
            100.0 * deviation / mean
        ));
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
