//! The driver: options → stages → engine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use tgc_codegen::cuda::cache::Cache;
use tgc_codegen::cuda::engine::{Built, Source, Target, build, build_sources};
use tgc_codegen::cuda::nvrtc::Nvrtc;
use tgc_codegen::schedule::model::GpuCost;
use tgc_ir::device_table::Device;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::facts::{Bounds, Relation, Require};
use tgc_ir::partition::Partition;
use tgc_ir::plan::Plan;
use tgc_ir::{Graph, NodeId, Tensor};
use tgc_passes::rules::RuleSet;
use tgc_passes::{Context, Observer, PASSES, Pass};
use tgc_runtime::engine::{Engine, Provenance, Verification};

/// What went wrong, as the exit code sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A fault of ours.
    Internal,
    /// Wrong options.
    Usage,
    /// A model or engine that cannot be read or imported.
    Model,
    /// Verification or a budget failed.
    Verification,
    /// A device or driver is missing.
    Device,
    /// Out of memory.
    Memory,
    /// Slower than allowed.
    Regression,
    /// A file could not be read or written.
    File,
}

impl Kind {
    /// The documented exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Internal => 1,
            Kind::Usage => 2,
            Kind::Model => 3,
            Kind::Verification => 4,
            Kind::Device => 5,
            Kind::Memory => 6,
            Kind::Regression => 7,
            Kind::File => 8,
        }
    }
}

/// A failure with the text for the user.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub kind: Kind,
    /// First line names the thing, further lines say why and what to do.
    pub message: String,
}

impl Failure {
    /// A failure of a kind.
    pub fn new(kind: Kind, message: impl std::fmt::Display) -> Failure {
        Failure { kind, message: message.to_string() }
    }
}

/// How to compile.
#[derive(Clone, Debug)]
pub struct Options {
    /// `cpu`, `sm_80`, …
    pub targets: Vec<String>,
    /// Ranges of dims: name, low, high.
    pub dims: Vec<(String, i64, Option<i64>)>,
    /// Compare stages on the reference before writing.
    pub verify: bool,
    /// Seconds that verification may estimate to take.
    pub verify_seconds: f64,
    /// Rewrites allowed.
    pub fuel: Option<u64>,
    /// Passes to run; the default pipeline when absent.
    pub passes: Option<Vec<String>>,
    /// Further rules files: name and text.
    pub rules: Vec<(String, String)>,
    /// Folders that may hold NVRTC.
    pub nvrtc_folders: Vec<PathBuf>,
    /// Compiled kernels name lines of their CUDA text.
    pub line_info: bool,
    /// Do not look for NVRTC.
    pub no_nvrtc: bool,
    /// Folder of compiled kernels.
    pub cache: Option<PathBuf>,
    /// Threads for compiling kernels.
    pub threads: usize,
    /// Pair past… inputs with present… outputs as states updated in place.
    pub auto_state: bool,
    /// Capacities of growing dims: name and greatest extent.
    pub capacities: Vec<(String, i64)>,
    /// Inputs of the model that are constants of the engine.
    pub fixed_inputs: BTreeMap<String, Tensor>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            targets: vec!["cpu".to_owned()],
            dims: Vec::new(),
            verify: true,
            verify_seconds: 10.0,
            fuel: None,
            passes: None,
            rules: Vec::new(),
            nvrtc_folders: Vec::new(),
            line_info: false,
            no_nvrtc: false,
            cache: None,
            threads: 1,
            auto_state: false,
            capacities: Vec::new(),
            fixed_inputs: BTreeMap::new(),
        }
    }
}

/// Everything that compiling gave.
pub struct Outcome {
    /// As imported.
    pub imported: Graph,
    /// After passes.
    pub optimised: Graph,
    /// In primitives, which regions refer to.
    pub primitives: Graph,
    /// Per target how the primitives are cut and what its plan's buffers hold.
    pub cuts: BTreeMap<String, Cut>,
    /// How often each rule fired.
    pub fired: BTreeMap<String, u64>,
    /// Counters of saturation.
    pub saturation: tgc_passes::egraph::Report,
    /// Kernels per CUDA target.
    pub built: BTreeMap<String, Built>,
    /// The engine, ready to write.
    pub engine: Engine,
    /// Sentences for the summary.
    pub notes: Vec<String>,
}

/// Where the kernels of a plan come from.
#[derive(Clone, Debug)]
pub struct Cut {
    /// Nodes of each kernel.
    pub partition: Partition,
    /// Per buffer of the plan the value that it holds.
    pub values: Vec<Option<NodeId>>,
}

/// Watches stages.
pub trait Progress {
    /// A stage starts.
    fn stage(&mut self, _name: &str) {}
}

/// Watches nothing.
pub struct Quiet;
impl Progress for Quiet {}
impl Observer for Quiet {}

/// Runs the stages.
pub struct Session {
    options: Options,
    rules: RuleSet,
}

impl Session {
    /// A session with the built-in rules and those of the options.
    pub fn new(options: Options) -> Session {
        Session { options, rules: RuleSet::builtin() }
    }

    /// The rules in use.
    pub fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Reads and imports a model (`.onnx`, or a graph in text `.tgir`).
    ///
    /// # Errors
    /// [`Failure`] with every problem found.
    pub fn import(&self, path: &Path) -> Result<(Graph, Vec<String>), Failure> {
        let (mut graph, mut notes) = if path.extension().is_some_and(|e| e == "tgir") {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Failure::new(Kind::File, format!("cannot read {}: {e}", path.display()))
            })?;
            let graph = tgc_ir::text::parse(&text).map_err(|e| {
                Failure::new(Kind::Model, format!("{} is no graph: {e}", path.display()))
            })?;
            (graph, Vec::new())
        } else {
            let model =
                tgc_onnx::load(path).map_err(|e| Failure::new(Kind::Model, error_chain(&e)))?;
            let options = tgc_onnx::Options { fixed_inputs: self.options.fixed_inputs.clone() };
            let imported = tgc_onnx::import_with(&model, &options)
                .map_err(|e| Failure::new(Kind::Model, e))?;
            (imported.graph, imported.notes)
        };
        self.narrow_dims(&mut graph)?;
        if self.options.auto_state {
            notes.extend(crate::states::pair(&mut graph, &self.options.capacities));
        }
        Ok((graph, notes))
    }

    fn narrow_dims(&self, graph: &mut Graph) -> Result<(), Failure> {
        for (name, low, high) in &self.options.dims {
            let symbol = Symbol::new(name);
            if graph.facts.bounds_of(&symbol).is_none() {
                let known: Vec<String> =
                    graph.facts.symbols().map(|(s, _)| s.to_string()).collect();
                let hint = closest(name, known.iter().map(String::as_str));
                let hint = hint.map_or_else(
                    || format!("it has {}", known.join(", ")),
                    |c| format!("did you mean `{c}`?"),
                );
                return Err(Failure::new(
                    Kind::Usage,
                    format!("the model has no dim `{name}`; {hint}"),
                ));
            }
            graph.facts.bound(symbol.clone(), Bounds { low: *low, high: *high, multiple_of: 1 });
            if Some(*low) == *high {
                let require = Require {
                    lhs: Dim::from(&symbol),
                    relation: Relation::Equal,
                    rhs: Dim::Const(*low),
                    origin: "--dim".to_owned(),
                };
                graph.facts.require(require);
            }
        }
        Ok(())
    }

    /// Runs the pass pipeline.
    ///
    /// # Errors
    /// [`Failure`] when a pass fails or is unknown.
    pub fn optimise(
        &self,
        graph: &Graph,
        observer: &mut dyn Observer,
    ) -> Result<(Graph, BTreeMap<String, u64>, tgc_passes::egraph::Report), Failure> {
        let internal = |e: tgc_passes::PassError| match e {
            tgc_passes::PassError::Unknown(_) => Failure::new(Kind::Usage, e),
            other => Failure::new(Kind::Internal, other),
        };
        let mut rules = self.rules.clone();
        for (name, text) in &self.options.rules {
            rules.add_text(name, text).map_err(|e| Failure::new(Kind::Usage, e))?;
        }
        let passes: Vec<&Pass> = match &self.options.passes {
            Some(names) => names
                .iter()
                .map(|n| tgc_passes::pass::find(n))
                .collect::<Result<_, _>>()
                .map_err(internal)?,
            None => PASSES.iter().collect(),
        };
        let gpu = self.options.targets.iter().find_map(|t| Device::for_target(t));
        let structural = tgc_passes::cost::Structural;
        let facts = graph.facts.clone();
        let gpu_cost = gpu.map(|device| GpuCost { device, facts: &facts });
        let mut context = match &gpu_cost {
            Some(cost) => Context::new(cost, &rules),
            None => Context::new(&structural, &rules),
        };
        context.fuel = self.options.fuel;
        let graph =
            tgc_passes::run_passes(graph, &passes, &mut context, observer, cfg!(debug_assertions))
                .map_err(internal)?;
        Ok((graph, context.fired, context.saturation))
    }

    /// Compiles a model file.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn compile(&self, path: &Path) -> Result<Outcome, Failure> {
        self.compile_watched(path, &mut Quiet, &mut Quiet)
    }

    /// Compiles a model file, telling of stages and passes.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn compile_watched(
        &self,
        path: &Path,
        progress: &mut dyn Progress,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Failure> {
        progress.stage("import");
        let (imported, notes) = self.import(path)?;
        let model = path.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
        self.compile_imported(imported, notes, &model, progress, observer)
    }

    /// Compiles a graph.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn compile_graph(
        &self,
        graph: Graph,
        progress: &mut dyn Progress,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Failure> {
        let model = graph.name.clone();
        self.compile_imported(graph, Vec::new(), &model, progress, observer)
    }

    fn compile_imported(
        &self,
        imported: Graph,
        notes: Vec<String>,
        model: &str,
        progress: &mut dyn Progress,
        observer: &mut dyn Observer,
    ) -> Result<Outcome, Failure> {
        progress.stage("optimise");
        let (optimised, fired, saturation) = self.optimise(&imported, observer)?;
        let mut outcome = Outcome {
            primitives: Graph::default(),
            cuts: BTreeMap::new(),
            imported,
            optimised,
            fired,
            saturation,
            built: BTreeMap::new(),
            engine: Engine::default(),
            notes,
        };
        outcome.engine.provenance = self.provenance(model);
        outcome.engine.graph = tgc_ir::text::print(&outcome.optimised);
        for target in self.targets_with_portable() {
            progress.stage(&format!("kernels for {target}"));
            self.compile_target(&target, &mut outcome)?;
        }
        if self.options.verify {
            progress.stage("verify");
            crate::verify::verify(&mut outcome, self.options.verify_seconds)?;
        } else {
            let why = "everything: --no-verify was given".to_owned();
            outcome.engine.provenance.verification =
                Verification { checks: Vec::new(), not_reached: vec![why] };
        }
        Ok(outcome)
    }

    /// The targets asked for and, when one is a GPU, the portable form that
    /// later GPUs can run.
    fn targets_with_portable(&self) -> Vec<String> {
        let mut out = self.options.targets.clone();
        let is_portable = |t: &String| t == PORTABLE;
        if out.iter().any(|t| t != "cpu") && !out.iter().any(is_portable) {
            out.push(PORTABLE.to_owned());
        }
        out
    }

    fn provenance(&self, model: &str) -> Provenance {
        let mut options = BTreeMap::new();
        options.insert("targets".to_owned(), self.options.targets.join(","));
        for (name, low, high) in &self.options.dims {
            let high = high.map_or_else(String::new, |h| h.to_string());
            options.insert(format!("dim {name}"), format!("{low}..{high}"));
        }
        for (name, tensor) in &self.options.fixed_inputs {
            options.insert(format!("input {name}"), format!("{tensor:?}"));
        }
        if let Some(fuel) = self.options.fuel {
            options.insert("fuel".to_owned(), fuel.to_string());
        }
        Provenance {
            tgc: env!("CARGO_PKG_VERSION").to_owned(),
            model: model.to_owned(),
            options,
            nvrtc: None,
            verification: Verification::default(),
        }
    }

    fn compile_target(&self, target: &str, outcome: &mut Outcome) -> Result<(), Failure> {
        let compiled = tgc_codegen::compile(&outcome.optimised, target)
            .map_err(|e| Failure::new(Kind::Model, e))?;
        outcome.engine.weights = used_weights(&compiled.graph, outcome)?;
        let mut plan = compiled.plan;
        if target != "cpu" {
            self.compile_cuda(target, &mut plan, outcome)?;
        }
        outcome.primitives = compiled.graph;
        let cut = Cut { partition: compiled.partition, values: compiled.values };
        outcome.cuts.insert(target.to_owned(), cut);
        outcome.engine.plans.insert(target.to_owned(), plan);
        Ok(())
    }

    fn compile_cuda(
        &self,
        target: &str,
        plan: &mut Plan,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let known = || tgc_ir::device_table::cuda_targets().join(", ");
        let figures = if target == PORTABLE { PORTABLE_FIGURES } else { target };
        let device = Device::for_target(figures).ok_or_else(|| {
            Failure::new(Kind::Usage, format!("`{target}` is no target; cpu, {}", known()))
        })?;
        let facts = plan.facts();
        let symbols: Vec<Symbol> = plan.symbols.iter().map(|s| s.symbol.clone()).collect();
        let provenance = kernel_provenance(plan);
        let sources: Vec<Source<'_>> = plan
            .kernels
            .iter()
            .zip(&provenance)
            .map(|(program, provenance)| Source { program, provenance })
            .collect();
        let request = Target {
            facts: &facts,
            symbols: &symbols,
            device,
            arch: target,
            line_info: self.options.line_info,
        };
        let failed = |e: tgc_codegen::cuda::engine::EngineError| {
            Failure::new(Kind::Internal, error_chain(&e))
        };
        let nvrtc = if self.options.no_nvrtc {
            None
        } else {
            Nvrtc::load(&self.options.nvrtc_folders).ok()
        };
        let cache = self.options.cache.as_ref().map(Cache::in_folder);
        let built = match &nvrtc {
            Some(nvrtc) => {
                outcome.engine.provenance.nvrtc = Some(nvrtc.version().to_string());
                build(nvrtc, &sources, &request, self.options.threads, cache.as_ref())
                    .map_err(failed)?
            }
            None => {
                let note = format!(
                    "NVRTC was not found: the engine carries the sources for {target} only; `tgc doctor` says where it is looked for"
                );
                outcome.notes.push(note);
                build_sources(&sources, &request).map_err(failed)?
            }
        };
        plan.change_launches(&mut |launch| {
            launch.variants = built.emitted[launch.kernel as usize].variants();
        });
        let keys: Vec<String> = plan.kernels.iter().map(|k| k.name.clone()).collect();
        let records: Vec<_> =
            built.emitted.iter().zip(&keys).flat_map(|(e, k)| e.records(device, k)).collect();
        let mut file = |name: String, bytes: Vec<u8>| {
            if !bytes.is_empty() {
                outcome.engine.files.insert(format!("{target}/{name}"), Bytes::from(bytes));
            }
        };
        file(
            "predicted.jsonl".into(),
            tgc_codegen::schedule::tuning::write_records(&records).into_bytes(),
        );
        for (i, unit) in built.units.iter().enumerate() {
            file(format!("unit_{i}.cu"), unit.source.clone().into_bytes());
            file(format!("unit_{i}.ptx"), unit.ptx.clone().into_bytes());
            file(format!("unit_{i}.cubin"), unit.cubin.clone());
        }
        outcome.built.insert(target.to_owned(), built);
        Ok(())
    }
}

/// Weights in the order in which plans refer to them. Rows that no plan reads
/// are left empty.
fn used_weights(primitives: &Graph, outcome: &Outcome) -> Result<Vec<Tensor>, Failure> {
    let missing = |name: &str| {
        let model = &outcome.engine.provenance.model;
        let message = format!("the contents of weight `{name}` are not in {model}");
        Failure::new(Kind::Model, message)
    };
    tgc_codegen::plan::constants(primitives)
        .into_iter()
        .map(|constant| match constant.data {
            _ if !constant.is_read => Ok(Tensor::zeros(tgc_ir::DType::U8, &[0])),
            Some(data) => Ok(data),
            None => Err(missing(&constant.name)),
        })
        .collect()
}

/// The model nodes behind each kernel, over all its launches.
fn kernel_provenance(plan: &Plan) -> Vec<Vec<String>> {
    let mut out: Vec<Vec<String>> = vec![Vec::new(); plan.kernels.len()];
    for launch in plan.launches() {
        let list = &mut out[launch.kernel as usize];
        for name in &launch.provenance {
            if !list.contains(name) {
                list.push(name.clone());
            }
        }
    }
    out
}

/// The target that is PTX only, for GPUs that no named target covers.
pub const PORTABLE: &str = "compute_80";
/// Whose figures choose its tiles.
pub(crate) const PORTABLE_FIGURES: &str = "sm_80";

/// An error with its causes, one line each.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        if !out.contains(&text) {
            out.push_str(&format!("\n  because: {text}"));
        }
        source = cause.source();
    }
    out
}

/// The candidate nearest to a word, when it is near.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let best = candidates.into_iter().map(|c| (edit_distance(word, c), c)).min()?;
    (best.0 <= word.chars().count().max(3) / 3 + 1).then_some(best.1)
}

fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substitute = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
