//! The text of a row kernel: passes with reductions, then stores.

use tgc_ir::kernel_program::{Body, InstKind, ReduceOp, Rows};
use tgc_ir::{DType, Dim};

use super::passes::{Passes, Reduction};
use super::{Deal, Team};
use crate::cuda::families::frame;
use crate::cuda::print::body::{BodyPrinter, index_values, needed_by, operands, uncast};
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::{scalar, storage_type, value_type};

/// Printed results by instruction.
type Values = std::collections::BTreeMap<u32, String>;

/// Text under way.
struct Writer<'a, 'b> {
    scope: &'a Scope<'a>,
    anchor: &'b Rows,
    passes: &'b Passes,
    deal: Deal,
    printer: BodyPrinter<'a>,
    lines: Lines,
    held: std::collections::BTreeSet<u32>,
    filled: std::collections::BTreeSet<u32>,
}

/// The whole entry.
pub(super) fn print(
    printer: &BodyPrinter<'_>,
    anchor: &Rows,
    passes: &Passes,
    deal: Deal,
) -> Result<String, PrintError> {
    let body = &anchor.epilogue.body;
    let (element_stores, row_stores) = passes.split_stores(anchor);
    let roots = pass_roots(anchor, passes, &element_stores);
    let held = if deal.held.is_some() { passes.held(body, &roots) } else { Default::default() };
    let mut writer = Writer {
        scope: printer.scope,
        anchor,
        passes,
        deal,
        printer: printer.clone(),
        lines: Lines::default(),
        held,
        filled: Default::default(),
    };
    writer.open()?;
    for reductions in &passes.reductions {
        writer.reduce(reductions)?;
    }
    if !element_stores.is_empty() {
        writer.store_elements(&element_stores)?;
    }
    if !row_stores.is_empty() {
        writer.store_rows(&row_stores)?;
    }
    writer.lines.close("}");
    Ok(writer.lines.finish())
}

/// Results that every pass and the element stores need.
fn pass_roots(anchor: &Rows, passes: &Passes, element_stores: &[usize]) -> Vec<Vec<u32>> {
    let mut roots: Vec<Vec<u32>> = passes
        .reductions
        .iter()
        .map(|pass| pass.iter().map(|reduction| reduction.operand).collect())
        .collect();
    let stores = element_stores.iter().map(|&n| &anchor.epilogue.stores[n]);
    let body = &anchor.epilogue.body;
    roots.push(
        stores
            .flat_map(|store| {
                index_values(&store.index).into_iter().chain([uncast(body, store.value)])
            })
            .collect(),
    );
    roots
}

fn neutral(op: ReduceOp, dtype: DType) -> String {
    let ty = value_type(dtype);
    match op {
        ReduceOp::Sum | ReduceOp::Any if dtype == DType::Bool => "false".to_owned(),
        ReduceOp::All => "true".to_owned(),
        ReduceOp::Any => "false".to_owned(),
        ReduceOp::Sum => format!("({ty})0"),
        ReduceOp::Prod => format!("({ty})1"),
        ReduceOp::Max => format!("lowest<{ty}>()"),
        ReduceOp::Min => format!("highest<{ty}>()"),
        ReduceOp::ArgMax | ReduceOp::ArgMin | ReduceOp::ArgMaxLast | ReduceOp::ArgMinLast => {
            "{0, -1}".to_owned()
        }
    }
}

fn functor(op: ReduceOp) -> &'static str {
    match op {
        ReduceOp::Sum => "sum_of()",
        ReduceOp::Prod => "product_of()",
        ReduceOp::Max => "maximum_of()",
        ReduceOp::Min => "minimum_of()",
        ReduceOp::All => "all_of()",
        ReduceOp::Any => "any_of()",
        ReduceOp::ArgMax => "best_of<true, true>()",
        ReduceOp::ArgMin => "best_of<false, true>()",
        ReduceOp::ArgMaxLast => "best_of<true, false>()",
        ReduceOp::ArgMinLast => "best_of<false, false>()",
    }
}

/// The statement that takes `value` into the accumulator `total`.
fn accumulate(op: ReduceOp, total: &str, value: &str) -> String {
    match op {
        ReduceOp::Sum => format!("{total} += {value};"),
        ReduceOp::Prod => format!("{total} *= {value};"),
        ReduceOp::Max => format!("{total} = maximum({total}, {value});"),
        ReduceOp::Min => format!("{total} = minimum({total}, {value});"),
        ReduceOp::All => format!("{total} = {total} && {value};"),
        ReduceOp::Any => format!("{total} = {total} || {value};"),
        arg => format!("{total} = {}({total}, {{{value}, element}});", functor(arg)),
    }
}

fn accumulator_type(reduction: &Reduction) -> String {
    let ty = value_type(reduction.dtype);
    if reduction.op.is_arg() { format!("ranked<{ty}>") } else { ty.to_owned() }
}

impl Writer<'_, '_> {
    /// Signature, the row of this thread, registers that hold elements.
    fn open(&mut self) -> Result<(), PrintError> {
        let (team, ty) = (self.deal.team, self.scope.index_type());
        let name = self.scope.program.name.clone();
        frame::open_entry(&mut self.lines, self.scope, &name, team.threads(), false);
        match team {
            Team::Block(_) => {
                self.lines.line(format!("const {ty} row = blockIdx.x;"));
                self.lines.line("const int member = threadIdx.x;");
            }
            Team::Warp => {
                self.lines.line(format!(
                    "const {ty} row = blockIdx.x * ({ty}){} + threadIdx.x / 32;",
                    team.rows()
                ));
                self.lines.line("const int member = threadIdx.x % 32;");
            }
            Team::Thread => {
                self.lines.line(format!(
                    "const {ty} row = blockIdx.x * ({ty}){} + threadIdx.x;",
                    team.rows()
                ));
            }
        }
        let rows = frame::print_extent(self.scope, &Dim::product(&self.anchor.outer))?;
        self.lines.line(format!("if (row >= {rows}) return;"));
        let outer = self.anchor.outer.len();
        let axes = self.printer.axes[..outer].to_vec();
        frame::decompose(&mut self.lines, self.scope, "row", &axes, &self.anchor.outer)?;
        if let Some(each) = self.deal.held {
            for &at in &self.held {
                let dtype = self.anchor.epilogue.body.dtype(at);
                self.lines.line(format!(
                    "{} h{at}[{}];",
                    value_type(dtype),
                    each * self.deal.width
                ));
            }
        }
        Ok(())
    }

    /// One pass: every element into the accumulators, then the team's fold.
    fn reduce(&mut self, reductions: &[Reduction]) -> Result<(), PrintError> {
        let roots: Vec<u32> = reductions.iter().map(|reduction| reduction.operand).collect();
        self.row_values(&roots)?;
        for reduction in reductions {
            let (ty, at) = (accumulator_type(reduction), reduction.at);
            let start = neutral(reduction.op, reduction.dtype);
            let equals = if reduction.op.is_arg() { " " } else { " = " };
            self.lines.line(format!("{ty} m{at}{equals}{start};"));
        }
        self.elements(&roots, &[], |lines, values, _| {
            for reduction in reductions {
                let total = format!("m{}", reduction.at);
                lines.line(accumulate(reduction.op, &total, &values[&reduction.operand]));
            }
            Ok(())
        })?;
        for reduction in reductions {
            self.fold(reduction);
        }
        Ok(())
    }

    fn fold(&mut self, reduction: &Reduction) {
        let (at, ty, functor) = (reduction.at, accumulator_type(reduction), functor(reduction.op));
        match self.deal.team {
            Team::Thread => {}
            Team::Warp => self.lines.line(format!("m{at} = fold_lanes<32>(m{at}, {functor});")),
            Team::Block(threads) => {
                self.lines.line(format!("__shared__ {ty} room{at}[{}];", threads / 32));
                self.lines
                    .line(format!("m{at} = fold_block<{threads}>(m{at}, room{at}, {functor});"));
            }
        }
        let name = if reduction.op.is_arg() {
            format!("maximum(m{at}.at, (i64)0)")
        } else {
            format!("m{at}")
        };
        self.printer.known.insert(at, name);
    }

    /// The last pass: every element is computed and stored.
    fn store_elements(&mut self, which: &[usize]) -> Result<(), PrintError> {
        let (scope, width) = (self.scope, self.deal.width);
        let (body, stores) = (&self.anchor.epilogue.body, &self.anchor.epilogue.stores);
        let mut roots: Vec<u32> = which.iter().map(|&n| uncast(body, stores[n].value)).collect();
        roots.extend(which.iter().flat_map(|&n| index_values(&stores[n].index)));
        self.row_values(&roots)?;
        self.elements(&roots, which, |lines, values, printer| {
            for &n in which {
                let (store, source) = (&stores[n], uncast(body, stores[n].value));
                let to = scope.program.buffers[store.buffer as usize].dtype;
                let element = scalar::stored(&values[&source], body.dtype(source), to);
                let place = match width {
                    1 => printer.element(store.buffer, &store.index, values)?,
                    _ => format!("out{n}.at[lane]"),
                };
                lines.line(format!("{place} = {element};"));
            }
            Ok(())
        })
    }

    /// Stores of the row as a whole, by its first member.
    fn store_rows(&mut self, which: &[usize]) -> Result<(), PrintError> {
        let is_shared = self.deal.team != Team::Thread;
        if is_shared {
            self.lines.open("if (member == 0) {");
        }
        let stores: Vec<_> =
            which.iter().map(|&n| self.anchor.epilogue.stores[n].clone()).collect();
        self.printer.print_stores(&self.anchor.epilogue.body, &stores, &mut self.lines)?;
        if is_shared {
            self.lines.close("}");
        }
        Ok(())
    }

    /// Prints results that are the same for the whole row and that `roots` need.
    fn row_values(&mut self, roots: &[u32]) -> Result<(), PrintError> {
        let body = &self.anchor.epilogue.body;
        let known = &self.printer.known;
        let needed = needed_by(body, roots, &|at| known.contains_key(&at));
        let is_row = |at: &u32| !self.passes.varies(*at) && !known.contains_key(at);
        let mut frontier: Vec<u32> = roots.iter().copied().filter(is_row).collect();
        for at in needed.iter().filter(|at| self.passes.varies(**at)) {
            frontier.extend(operands(&body.insts[*at as usize].kind).into_iter().filter(is_row));
        }
        frontier.sort_unstable();
        frontier.dedup();
        let is_constant = |at: &u32| matches!(body.insts[*at as usize].kind, InstKind::Const(_));
        frontier.retain(|at| !is_constant(at));
        let mut printer = self.printer.clone();
        printer.prefix = "t";
        for at in frontier {
            let text = printer.print(body, &[at], &mut self.lines)?.remove(&at).unwrap_or_default();
            let is_name = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.');
            let name = if is_name { text } else { format!("t{at}") };
            if !is_name {
                let printed = printer
                    .print(body, &[at], &mut Lines::default())?
                    .remove(&at)
                    .unwrap_or_default();
                self.lines
                    .line(format!("const {} {name} = {printed};", value_type(body.dtype(at))));
            }
            printer.known.insert(at, name.clone());
            self.printer.known.insert(at, name);
        }
        Ok(())
    }

    /// A loop over this thread's elements that computes `roots` and runs `each` on them; `packed` are
    /// stores whose packs are declared before and written after the lanes of a vector.
    fn elements(
        &mut self,
        roots: &[u32],
        packed: &[usize],
        each: impl Fn(&mut Lines, &Values, &BodyPrinter<'_>) -> Result<(), PrintError>,
    ) -> Result<(), PrintError> {
        let Deal { team, width, held } = self.deal;
        let (ty, lanes) = (self.scope.index_type(), i64::from(team.lanes()));
        let length = Dim::product(&self.anchor.inner);
        let length_text = frame::print_extent(self.scope, &length)?;
        let is_exact =
            length.as_const().is_some_and(|n| held.is_some_and(|each| n == each * lanes * width));
        if let Some(vectors) = held {
            self.lines.line("#pragma unroll");
            self.lines.open(format!("for (int item = 0; item < {vectors}; item++) {{"));
            let times = if width == 1 { String::new() } else { format!(" * {width}") };
            self.lines.line(format!("const {ty} first = (item * {lanes} + member){times};"));
            if !is_exact {
                self.lines.open(format!("if (first < {length_text}) {{"));
            }
        } else {
            let start =
                if team == Team::Thread { "0".to_owned() } else { format!("member * {width}") };
            self.lines.open(format!(
                "for ({ty} first = {start}; first < {length_text}; first += {}) {{",
                lanes * width
            ));
        }
        self.element_body(roots, packed, each)?;
        if held.is_some() && !is_exact {
            self.lines.close("}");
        }
        self.lines.close("}");
        Ok(())
    }

    /// What happens to the vector at `first`.
    fn element_body(
        &mut self,
        roots: &[u32],
        packed: &[usize],
        each: impl Fn(&mut Lines, &Values, &BodyPrinter<'_>) -> Result<(), PrintError>,
    ) -> Result<(), PrintError> {
        let body = &self.anchor.epilogue.body;
        let width = self.deal.width;
        let outer = self.anchor.outer.len();
        let mut printer = self.printer.clone();
        let needed = self.needed(body, roots, &printer);
        let inner_axes = self.printer.axes[outer..].to_vec();
        frame::decompose(&mut self.lines, self.scope, "first", &inner_axes, &self.anchor.inner)?;
        let slot = if width == 1 { "item".to_owned() } else { format!("item * {width} + lane") };
        for &at in self.filled.intersection(&self.held) {
            printer.known.insert(at, format!("h{at}[{slot}]"));
        }
        let places = self.store_places(packed, &printer)?;
        if width > 1 {
            let only = |at: u32| needed.contains(&at) && !printer.known.contains_key(&at);
            let last = printer.axes.len() - 1;
            let packs = frame::load_packs(&mut self.lines, &printer, body, &only, last, width)?;
            printer.known.extend(packs);
            for (n, stored, _) in &places {
                self.lines.line(format!("pack<{stored}, {width}> out{n};"));
            }
            self.lines.line("#pragma unroll");
            self.lines.open(format!("for (int lane = 0; lane < {width}; lane++) {{"));
            if printer.axes[last] != "0" {
                printer.axes[last] = format!("({} + lane)", printer.axes[last]);
            }
        }
        if roots.iter().any(|root| self.is_arg_operand(*root)) {
            self.lines.line(format!(
                "const i64 element = {};",
                if width == 1 { "first" } else { "first + lane" }
            ));
        }
        self.lanes(roots, &needed, printer, &slot, each)?;
        if width > 1 {
            self.lines.close("}");
            for (n, stored, place) in &places {
                let name = self.scope.buffer_name(self.anchor.epilogue.stores[*n].buffer);
                self.lines
                    .line(format!("store_pack<{stored}, {width}>({name} + {place}, out{n});"));
            }
        }
        Ok(())
    }

    /// Computes what registers hold first, then the roots.
    fn lanes(
        &mut self,
        roots: &[u32],
        needed: &std::collections::BTreeSet<u32>,
        mut printer: BodyPrinter<'_>,
        slot: &str,
        each: impl Fn(&mut Lines, &Values, &BodyPrinter<'_>) -> Result<(), PrintError>,
    ) -> Result<(), PrintError> {
        let body = &self.anchor.epilogue.body;
        let fresh: Vec<u32> = self
            .held
            .iter()
            .copied()
            .filter(|at| needed.contains(at) && !self.filled.contains(at))
            .collect();
        for at in fresh {
            let text = printer.print(body, &[at], &mut self.lines)?.remove(&at).unwrap_or_default();
            self.lines.line(format!("h{at}[{slot}] = {text};"));
            printer.known.insert(at, format!("h{at}[{slot}]"));
            self.filled.insert(at);
        }
        let values = printer.print(body, roots, &mut self.lines)?;
        each(&mut self.lines, &values, &printer)
    }

    fn needed(
        &self,
        body: &Body,
        roots: &[u32],
        printer: &BodyPrinter<'_>,
    ) -> std::collections::BTreeSet<u32> {
        let is_known = |at: u32| printer.known.contains_key(&at) || self.filled.contains(&at);
        needed_by(body, roots, &is_known)
    }

    fn is_arg_operand(&self, at: u32) -> bool {
        self.passes
            .reductions
            .iter()
            .flatten()
            .any(|reduction| reduction.op.is_arg() && reduction.operand == at)
    }

    /// Store number, stored type and offset of packed stores.
    fn store_places(
        &self,
        packed: &[usize],
        printer: &BodyPrinter<'_>,
    ) -> Result<Vec<(usize, &'static str, String)>, PrintError> {
        let none = std::collections::BTreeMap::new();
        let place = |&n: &usize| {
            let store = &self.anchor.epilogue.stores[n];
            let offset = printer.offset(store.buffer, &store.index)?;
            let stored = storage_type(self.scope.program.buffers[store.buffer as usize].dtype)
                .unwrap_or("u8");
            Ok((n, stored, printer.index(&none).print(&offset)?))
        };
        if self.deal.width == 1 { Ok(Vec::new()) } else { packed.iter().map(place).collect() }
    }
}
