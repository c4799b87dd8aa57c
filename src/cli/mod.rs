//! The command line: one file per subcommand. Only the binary reads the
//! environment, the clock and prints.

mod bench;
mod compile;
mod doctor;
mod emit;
mod inspect;
mod lists;
mod opt;
mod reduce;
mod run;
mod test;
mod verify;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use tgc::session::{Failure, Kind, Options};
use tgc::{Outcome, Session};
use tgc_runtime::engine::Engine;

/// Tensor graph compiler: ONNX in, generated CUDA and right answers out.
#[derive(Parser)]
#[command(name = "tgc", version, about, after_help = EXIT_CODES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print results as JSON.
    #[arg(long, global = true)]
    json: bool,
    /// Say more (-v stages and passes, -vv rules, -vvv everything).
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Say only results and errors.
    #[arg(short, long, global = true)]
    quiet: bool,
}

const EXIT_CODES: &str = "Exit codes: 0 fine, 1 internal error, 2 usage, 3 model or engine not readable or not importable, \
4 verification or budget failed, 5 device or driver missing, 6 out of memory, 7 regression, \
8 a file could not be read or written, 130 interrupted.\n\nEnvironment: see `tgc doctor`.";

#[derive(Subcommand)]
enum Command {
    /// Compile a model into an engine.
    Compile(compile::CompileArgs),
    /// Run a model or an engine on inputs.
    Run(run::RunArgs),
    /// Run ONNX test-data folders and compare.
    Test(test::TestArgs),
    /// Compare a device with the model as imported, another device or saved outputs.
    Verify(verify::VerifyArgs),
    /// Shrink a model to the few lines that still show a fault.
    Reduce(reduce::ReduceArgs),
    /// Time a model or an engine.
    Bench(bench::BenchArgs),
    /// Show what is in a model or an engine.
    Inspect(inspect::InspectArgs),
    /// Run passes on a graph in text form.
    Opt(opt::OptArgs),
    /// List passes.
    Passes(lists::ListArgs),
    /// List or check rewrite rules.
    Rules(lists::RulesArgs),
    /// List ops of the IR.
    Ops(lists::ListArgs),
    /// List ONNX operators.
    Operators(lists::ListArgs),
    /// List targets and GPUs.
    Targets(lists::ListArgs),
    /// Show what of this machine tgc can use.
    Doctor,
    /// Print a shell completion script.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// How to print.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    pub(crate) verbose: u8,
}

impl Output {
    /// A result line.
    pub(crate) fn result(&self, text: impl std::fmt::Display) {
        use std::io::Write as _;
        // A closed pipe ends the output quietly, as for every filter.
        drop(writeln!(std::io::stdout(), "{text}"));
    }

    /// A remark for people.
    pub(crate) fn remark(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// A JSON document with its schema name.
    pub(crate) fn document(&self, schema: &str, mut value: serde_json::Value) {
        value["schema"] = serde_json::json!(schema);
        self.result(serde_json::to_string_pretty(&value).unwrap_or_default());
    }
}

/// Options of everything that compiles.
#[derive(Args, Clone)]
pub(crate) struct Compiling {
    /// Targets: cpu, sm_80, sm_86, sm_89, sm_90a, sm_100a, sm_120.
    #[arg(long, value_delimiter = ',', default_value = "cpu")]
    pub(crate) target: Vec<String>,
    /// Range of a dim: batch=4, seq=1..512.
    #[arg(long = "dim", value_name = "NAME=RANGE")]
    pub(crate) dims: Vec<String>,
    /// State pairs; `auto` pairs past… with present… by name.
    #[arg(long, value_name = "auto")]
    pub(crate) state: Option<String>,
    /// Greatest extent of a growing dim of a state: past=2048.
    #[arg(long = "capacity", value_name = "NAME=N")]
    pub(crate) capacities: Vec<String>,
    /// Skip verification.
    #[arg(long)]
    pub(crate) no_verify: bool,
    /// Seconds that verification may take.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) verify_seconds: f64,
    /// Number of rewrites allowed (for bisection).
    #[arg(long)]
    pub(crate) fuel: Option<u64>,
    /// Passes to run instead of the default pipeline.
    #[arg(long, value_delimiter = ',')]
    pub(crate) passes: Option<Vec<String>>,
    /// Further rules files.
    #[arg(long = "rules", value_name = "FILE")]
    pub(crate) rules: Vec<PathBuf>,
    /// Folder of compiled kernels (default: TGC_CACHE or the user's cache folder).
    #[arg(long)]
    pub(crate) cache: Option<PathBuf>,
    /// Neither read nor write compiled kernels.
    #[arg(long)]
    pub(crate) no_cache: bool,
    /// Compiled kernels name lines of their CUDA text, for findings of the simulator and for
    /// profilers (on with --device simulator).
    #[arg(long)]
    pub(crate) line_info: bool,
    /// Do not use NVRTC; the engine carries sources.
    #[arg(long)]
    pub(crate) no_nvrtc: bool,
    /// Threads for compiling kernels.
    #[arg(short, long, default_value_t = default_jobs())]
    pub(crate) jobs: usize,
}

fn default_jobs() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

impl Compiling {
    /// Options for running on a device at once.
    pub(crate) fn for_device(&self, device: &str) -> Compiling {
        Compiling { line_info: self.line_info || device == "simulator", ..self.clone() }
    }

    pub(crate) fn options(&self) -> Result<Options, Failure> {
        let mut rules = Vec::new();
        for path in &self.rules {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Failure::new(Kind::File, format!("cannot read {}: {e}", path.display()))
            })?;
            rules.push((path.display().to_string(), text));
        }
        match self.state.as_deref() {
            None | Some("auto") => {}
            Some(other) => {
                return Err(Failure::new(
                    Kind::Usage,
                    format!("--state {other}: only `auto` is supported"),
                ));
            }
        }
        Ok(Options {
            targets: self.target.clone(),
            dims: self.dims.iter().map(|d| parse_range(d)).collect::<Result<_, _>>()?,
            verify: !self.no_verify,
            verify_seconds: self.verify_seconds,
            fuel: self.fuel,
            passes: self.passes.clone(),
            rules,
            nvrtc_folders: doctor::nvrtc_folders(),
            line_info: self.line_info,
            no_nvrtc: self.no_nvrtc,
            cache: if self.no_cache {
                None
            } else {
                self.cache.clone().or_else(doctor::cache_folder)
            },
            threads: self.jobs.max(1),
            auto_state: self.state.is_some(),
            capacities: self
                .capacities
                .iter()
                .map(|c| parse_capacity(c))
                .collect::<Result<_, _>>()?,
            fixed_inputs: std::collections::BTreeMap::new(),
        })
    }
}

/// `name=4`, `name=1..8`, `name=1..`.
fn parse_range(text: &str) -> Result<(String, i64, Option<i64>), Failure> {
    let wrong =
        || Failure::new(Kind::Usage, format!("--dim {text}: write NAME=VALUE or NAME=LOW..HIGH"));
    let (name, range) = text.split_once('=').ok_or_else(wrong)?;
    let number = |t: &str| t.parse::<i64>().map_err(|_| wrong());
    match range.split_once("..") {
        None => {
            let value = number(range)?;
            Ok((name.to_owned(), value, Some(value)))
        }
        Some((low, "")) => Ok((name.to_owned(), number(low)?, None)),
        Some((low, high)) => Ok((name.to_owned(), number(low)?, Some(number(high)?))),
    }
}

/// `name=2048`.
fn parse_capacity(text: &str) -> Result<(String, i64), Failure> {
    let wrong = || Failure::new(Kind::Usage, format!("--capacity {text}: write NAME=N"));
    let (name, value) = text.split_once('=').ok_or_else(wrong)?;
    Ok((name.to_owned(), value.parse().map_err(|_| wrong())?))
}

/// Names stages on stderr when asked to.
struct Stages<'a>(&'a Output);

impl tgc::session::Progress for Stages<'_> {
    fn stage(&mut self, name: &str) {
        if self.0.verbose > 0 {
            self.0.remark(format_args!("stage: {name}"));
        }
    }
}

/// Compiles a model, or loads an engine; by the file's ending.
pub(crate) fn engine_of(
    path: &Path,
    compiling: &Compiling,
    output: &Output,
) -> Result<(Engine, Option<Outcome>), Failure> {
    if path.extension().is_some_and(|e| e == "tgc") {
        let engine = Engine::load(path)
            .map_err(|e| Failure::new(engine_kind(&e), tgc::session::error_chain(&e)))?;
        return Ok((engine, None));
    }
    let outcome = compile_with(path, compiling.options()?, output)?;
    Ok((outcome.engine.clone(), Some(outcome)))
}

/// Compiles a model, telling of stages and notes.
pub(crate) fn compile_with(
    path: &Path,
    options: Options,
    output: &Output,
) -> Result<Outcome, Failure> {
    let session = Session::new(options);
    let outcome = session.compile_watched(path, &mut Stages(output), &mut tgc::session::Quiet)?;
    outcome.notes.iter().for_each(|n| output.remark(format_args!("note: {n}")));
    Ok(outcome)
}

fn engine_kind(error: &tgc_runtime::engine::EngineError) -> Kind {
    match error {
        tgc_runtime::engine::EngineError::Io { .. } => Kind::File,
        tgc_runtime::engine::EngineError::Damaged { .. } => Kind::Model,
        tgc_runtime::engine::EngineError::NoTarget { .. } => Kind::Device,
    }
}

/// Reads the command line and runs it.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    let output = Output { json: cli.json, quiet: cli.quiet, verbose: cli.verbose };
    start_log(cli.verbose);
    let result = match &cli.command {
        Command::Compile(args) => compile::run(args, &output),
        Command::Run(args) => run::run(args, &output),
        Command::Test(args) => test::run(args, &output),
        Command::Verify(args) => verify::run(args, &output),
        Command::Reduce(args) => reduce::run(args, &output),
        Command::Bench(args) => bench::run(args, &output),
        Command::Inspect(args) => inspect::run(args, &output),
        Command::Opt(args) => opt::run(args, &output),
        Command::Passes(args) => lists::passes(args, &output),
        Command::Rules(args) => lists::rules(args, &output),
        Command::Ops(args) => lists::ops(args, &output),
        Command::Operators(args) => lists::operators(args, &output),
        Command::Targets(args) => lists::targets(args, &output),
        Command::Doctor => doctor::run(&output),
        Command::Completions { shell } => {
            clap_complete::generate(*shell, &mut Cli::command(), "tgc", &mut std::io::stdout());
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let text = failure.message.trim_end();
            if text.starts_with("error") {
                eprintln!("{text}")
            } else {
                eprintln!("error: {text}")
            }
            ExitCode::from(failure.kind.exit_code())
        }
    }
}

fn start_log(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    let filter = std::env::var("TGC_LOG").unwrap_or_else(|_| level.to_string());
    let filter = tracing_subscriber::EnvFilter::try_new(filter).unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}
