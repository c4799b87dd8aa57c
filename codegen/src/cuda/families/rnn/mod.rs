//! Family `rnn`: a recurrent layer over time, one block a sequence with its state in shared memory.
//!
//! A warp computes the gates of one unit; steps are separated by block barriers.

use std::collections::BTreeMap;

use tgc_ir::Dim;
use tgc_ir::kernel_program::{Cell, Epilogue, Operand, Rnn};

use super::frame;
use crate::cuda::emit::{Emitted, Entry, Request};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::{scalar, value_type};
use crate::schedule::{self, typical};

const THREADS: u32 = 256;
/// Vectors of the state's width in shared memory: state, next state, cell state, reset gate.
const STATE_VECTORS: i64 = 4;

/// Text under way.
struct Writer<'a> {
    scope: &'a Scope<'a>,
    anchor: &'a Rnn,
    sum: &'static str,
    lines: Lines,
}

/// Emits a recurrent layer.
pub(super) fn emit(
    scope: &Scope<'_>,
    request: &Request<'_>,
    anchor: &Rnn,
) -> Result<Emitted, PrintError> {
    let sum = value_type(anchor.acc);
    let mut writer = Writer { scope, anchor, sum, lines: Lines::default() };
    writer.print()?;
    let width = anchor.acc.bytes().unwrap_or(4) as i64;
    let extent = |dim: &Dim| typical(scope.facts(), dim);
    let (steps, hidden) = (extent(&anchor.time), extent(&anchor.hidden));
    let step_flops = 2.0 * anchor.cell.gates() as f64 * hidden * hidden;
    // One multiprocessor works on a sequence; each step costs two barriers and a round trip to the cache.
    let one_sm = request.device.f32_tflops / f64::from(request.device.sms) / 4.0;
    let chain_ns = steps * (step_flops / (one_sm * 1000.0) + 1000.0);
    let entry = Entry {
        guard: Vec::new(),
        name: scope.program.name.clone(),
        grid: [anchor.batch.clone(), Dim::ONE, Dim::ONE],
        block: [THREADS, 1, 1],
        shared_bytes: anchor.hidden.clone() * Dim::Const(STATE_VECTORS * width),
        workspace_bytes: Dim::ZERO,
        configuration: "a sequence is one block, a unit one warp".to_owned(),
        predicted_ns: schedule::memory_bound_ns(request.device, frame::buffer_bytes(scope))
            + chain_ns as u64,
    };
    Ok(Emitted {
        family: "rnn",
        skeletons: Vec::new(),
        text: writer.lines.finish(),
        entries: vec![entry],
    })
}

impl Writer<'_> {
    fn print(&mut self) -> Result<(), PrintError> {
        let (scope, anchor, sum, ty) = (self.scope, self.anchor, self.sum, self.scope.index_type());
        frame::open_entry(&mut self.lines, scope, &scope.program.name.clone(), THREADS, false);
        self.lines.line("extern __shared__ __align__(16) char shared[];");
        let hidden = frame::print_extent(scope, &anchor.hidden)?;
        let time = frame::print_extent(scope, &anchor.time)?;
        self.lines.line(format!("const {ty} hidden = {hidden}, time = {time}, b = blockIdx.x;"));
        self.lines
            .line(format!("{sum} *const state = ({sum} *)shared, *const next = state + hidden;"));
        self.lines
            .line(format!("{sum} *const cell = next + hidden, *const reset = cell + hidden;"));
        self.lines.line("const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;");
        self.initial_state()?;
        self.lines.line("__syncthreads();");
        self.lines.open(format!("for ({ty} step = 0; step < length; step++) {{"));
        let t = if anchor.reverse { "length - 1 - step" } else { "step" };
        self.lines.line(format!("const {ty} t = {t};"));
        if matches!(anchor.cell, Cell::Gru { .. }) {
            self.open_units()?;
            self.dot("dot1", 1, "state[k]")?;
            self.lines.open("if (lane == 0) {");
            self.gate("g1", 1, None)?;
            self.activate("r", 0, "g1", true)?;
            self.lines.line("reset[j] = r;");
            self.lines.close("}");
            self.lines.close("}");
            self.lines.line("__syncthreads();");
        }
        self.open_units()?;
        self.unit()?;
        self.lines.close("}");
        self.lines.line("__syncthreads();");
        self.lines.open(format!("for ({ty} j = threadIdx.x; j < hidden; j += {THREADS}) {{"));
        self.lines.line("state[j] = next[j];");
        self.store(&anchor.y, &["t", "b", "j"], "state[j]")?;
        self.lines.close("}");
        self.lines.line("__syncthreads();");
        self.lines.close("}");
        self.lines.open(format!("for ({ty} j = threadIdx.x; j < hidden; j += {THREADS}) {{"));
        self.store(&anchor.h, &["b", "j"], "state[j]")?;
        self.store(&anchor.c, &["b", "j"], "cell[j]")?;
        self.lines.close("}");
        self.lines.close("}");
        Ok(())
    }

    /// State and cell from their initial values, the length, zeros behind it.
    fn initial_state(&mut self) -> Result<(), PrintError> {
        let (anchor, ty) = (self.anchor, self.scope.index_type());
        self.lines.line(format!("{ty} length = time;"));
        if let Some(lengths) = &anchor.lengths {
            let text = self.operand(lengths, &["b"])?;
            self.lines.line(format!("length = minimum(time, maximum(({ty})0, ({ty})({text})));"));
        }
        self.lines.open(format!("for ({ty} j = threadIdx.x; j < hidden; j += {THREADS}) {{"));
        let h0 = self.operand(&anchor.h0, &["b", "j"])?;
        self.lines.line(format!("state[j] = {h0};"));
        let c0 = match &anchor.c0 {
            Some(c0) => self.operand(c0, &["b", "j"])?,
            None => "0".to_owned(),
        };
        self.lines.line(format!("cell[j] = {c0};"));
        if anchor.y.is_some() && anchor.lengths.is_some() {
            self.lines.open(format!("for ({ty} t = length; t < time; t++) {{"));
            let zero = format!("({})0", self.sum);
            self.store(&anchor.y, &["t", "b", "j"], &zero)?;
            self.lines.close("}");
        }
        self.lines.close("}");
        Ok(())
    }

    /// A loop in which every warp takes units.
    fn open_units(&mut self) -> Result<(), PrintError> {
        let ty = self.scope.index_type();
        self.lines.open(format!("for ({ty} j = warp; j < hidden; j += {}) {{", THREADS / 32));
        Ok(())
    }

    /// Prints what an operand needs at given axes and returns its value.
    fn operand(&mut self, operand: &Operand, axes: &[&str]) -> Result<String, PrintError> {
        let names = axes.iter().map(|&name| name.to_owned()).collect();
        let extents: Vec<Dim> = axes.iter().map(|_| Dim::Const(i64::from(i32::MAX))).collect();
        let mut printer = BodyPrinter::new(self.scope, &extents, names, Vec::new());
        printer.prefix = "v";
        let mut lines = Lines::default();
        let value =
            printer.print(&operand.body, &[operand.value], &mut lines)?.remove(&operand.value);
        let value = format!("({})({})", self.sum, value.unwrap_or_default());
        let statements = lines.finish();
        if statements.is_empty() {
            return Ok(value);
        }
        // Statements of one operand stay in an expression of their own, so that names do not meet.
        let body: Vec<&str> = statements.lines().collect();
        Ok(format!("[&] {{ {} return {value}; }}()", body.join(" ")))
    }

    /// The recurrent product of gate `g` of unit `j` with `vector` into `name`, in every lane.
    fn dot(&mut self, name: &str, g: i64, vector: &str) -> Result<(), PrintError> {
        let (sum, ty) = (self.sum, self.scope.index_type());
        self.lines.line(format!("{sum} {name} = 0;"));
        let row = format!("({g} * hidden + j)");
        let weight = self.operand(&self.anchor.r, &[&row, "k"])?;
        self.lines.open(format!("for ({ty} k = lane; k < hidden; k += 32) {{"));
        self.lines.line(format!("{name} = multiply_add({weight}, {vector}, {name});"));
        self.lines.close("}");
        self.lines.line(format!("{name} = fold_lanes<32>({name}, sum_of());"));
        Ok(())
    }

    /// `name` = projected input of gate `g` + its recurrent product, plus the peephole on `cell`.
    fn gate(
        &mut self,
        name: &str,
        g: i64,
        peephole: Option<(i64, &str)>,
    ) -> Result<(), PrintError> {
        let column = format!("({g} * hidden + j)");
        let x = self.operand(&self.anchor.x, &["t", "b", &column])?;
        let mut text = format!("{x} + dot{g}");
        if let (Some((block, cell)), Some(weights)) = (peephole, &self.anchor.peephole) {
            let weight = self.operand(weights, &[&format!("({block} * hidden + j)")])?;
            text = format!("{text} + {weight} * {cell}");
        }
        self.lines.line(format!("const {} {name} = {text};", self.sum));
        Ok(())
    }

    /// `name` = activation `n` of `argument`, clipped first when the layer clips.
    fn activate(
        &mut self,
        name: &str,
        n: usize,
        argument: &str,
        clips: bool,
    ) -> Result<(), PrintError> {
        let sum = self.sum;
        let activations = &self.anchor.activations;
        let activation =
            activations.get(n).ok_or_else(|| self.scope.malformed(format!("no activation {n}")))?;
        let argument = match self.anchor.clip.filter(|_| clips) {
            Some(limit) => {
                let limit = scalar::literal(limit, self.anchor.acc);
                format!("minimum(maximum({argument}, -({limit})), {limit})")
            }
            None => argument.to_owned(),
        };
        self.lines.line(format!("{sum} {name};"));
        self.lines.open("{");
        self.lines.line(format!("const {sum} x = {argument};"));
        let printer = BodyPrinter::new(self.scope, &[], Vec::new(), vec!["x".to_owned()]);
        let value = printer.print(&activation.body, &[activation.value], &mut self.lines)?;
        self.lines.line(format!("{name} = {};", value[&activation.value]));
        self.lines.close("}");
        Ok(())
    }

    /// The new state of unit `j`.
    fn unit(&mut self) -> Result<(), PrintError> {
        match self.anchor.cell {
            Cell::Plain => {
                self.dot("dot0", 0, "state[k]")?;
                self.lines.open("if (lane == 0) {");
                self.gate("g0", 0, None)?;
                self.activate("h", 0, "g0", true)?;
                self.lines.line("next[j] = h;");
            }
            Cell::Lstm => self.lstm()?,
            Cell::Gru { linear_before_reset } => self.gru(linear_before_reset)?,
        }
        self.lines.close("}");
        Ok(())
    }

    fn lstm(&mut self) -> Result<(), PrintError> {
        for g in 0..4 {
            self.dot(&format!("dot{g}"), g, "state[k]")?;
        }
        self.lines.open("if (lane == 0) {");
        self.gate("gi", 0, Some((0, "cell[j]")))?;
        self.activate("i", 0, "gi", true)?;
        if self.anchor.input_forget {
            self.lines.line(format!("const {} f = 1 - i;", self.sum));
        } else {
            self.gate("gf", 2, Some((2, "cell[j]")))?;
            self.activate("f", 0, "gf", true)?;
        }
        self.gate("gc", 3, None)?;
        self.activate("candidate", 1, "gc", true)?;
        self.lines.line(format!("const {} renewed = f * cell[j] + i * candidate;", self.sum));
        self.gate("go", 1, Some((1, "renewed")))?;
        self.activate("o", 0, "go", true)?;
        self.activate("shown", 2, "renewed", false)?;
        self.lines.line("cell[j] = renewed;");
        self.lines.line("next[j] = o * shown;");
        Ok(())
    }

    fn gru(&mut self, linear_before_reset: bool) -> Result<(), PrintError> {
        self.dot("dot0", 0, "state[k]")?;
        self.dot("dot2", 2, if linear_before_reset { "state[k]" } else { "state[k] * reset[k]" })?;
        self.lines.open("if (lane == 0) {");
        self.gate("gz", 0, None)?;
        self.activate("z", 0, "gz", true)?;
        let x = self.operand(&self.anchor.x, &["t", "b", "(2 * hidden + j)"])?;
        let text = if linear_before_reset {
            let bias = match &self.anchor.r_bias {
                Some(bias) => format!(" + {}", self.operand(bias, &["j"])?),
                None => String::new(),
            };
            format!("{x} + reset[j] * (dot2{bias})")
        } else {
            format!("{x} + dot2")
        };
        self.lines.line(format!("const {} gh = {text};", self.sum));
        self.activate("candidate", 1, "gh", true)?;
        self.lines.line("next[j] = (1 - z) * candidate + z * state[j];");
        Ok(())
    }

    /// An optional epilogue at given axes with its slot.
    fn store(
        &mut self,
        epilogue: &Option<Epilogue>,
        axes: &[&str],
        slot: &str,
    ) -> Result<(), PrintError> {
        let Some(epilogue) = epilogue else { return Ok(()) };
        let names = axes.iter().map(|&name| name.to_owned()).collect();
        let all = BTreeMap::from([
            ("t", &self.anchor.time),
            ("b", &self.anchor.batch),
            ("j", &self.anchor.hidden),
        ]);
        let extents: Vec<Dim> = axes.iter().map(|axis| all[axis].clone()).collect();
        let mut printer = BodyPrinter::new(self.scope, &extents, names, vec![slot.to_owned()]);
        printer.prefix = "e";
        self.lines.open("{");
        printer.print_stores(&epilogue.body, &epilogue.stores, &mut self.lines)?;
        self.lines.close("}");
        Ok(())
    }
}
