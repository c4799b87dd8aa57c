//! The slot functions of a contraction's operand: where a row and a step of it lie, and its value there.
//!
//! Offsets are split into the part that a row decides and the part that a step decides, so that the
//! skeleton computes each once; what does not split keeps its axes.

use std::collections::BTreeMap;

use tgc_ir::dim::{Monomial, Polynomial};
use tgc_ir::kernel_program::{Guard, InstKind, Load, Operand, as_axis, axis_symbol};
use tgc_ir::{DType, Dim};

use crate::cuda::families::frame;
use crate::cuda::print::body::{BodyPrinter, needed_by};
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::{scalar, value_type};

/// An operand with its axes: groups and rows on one side, summed steps on the other.
pub(in crate::cuda::families) struct OperandText<'a> {
    /// `left` or `right`.
    pub side: &'static str,
    /// The operand.
    pub operand: &'a Operand,
    /// Extents of all axes in the operand's own order, merged.
    pub extents: Vec<Dim>,
    /// Names of those axes.
    pub axes: Vec<String>,
    /// Axes of groups, in the operand's order.
    pub groups: std::ops::Range<usize>,
    /// Axes of rows.
    pub rows: std::ops::Range<usize>,
    /// Summed axes.
    pub steps: std::ops::Range<usize>,
    /// Conditions under which the operand is there; it is zero elsewhere.
    pub inside: Vec<Guard>,
}

/// How the operand's fastest axis lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda::families) struct Walk {
    /// Neighbours along the summed axes are neighbours in memory.
    pub along_steps: bool,
    /// Elements along the fast axis that may be moved at once, proven aligned; one when nothing is proven.
    pub width: i64,
}

/// Offset terms of a row, of a step, and whether they are everything.
struct Split {
    row: Dim,
    step: Dim,
}

fn sum_of(terms: Vec<(Monomial, i64)>, constant: i64) -> Dim {
    if terms.is_empty() {
        return Dim::Const(constant);
    }
    Dim::Expr(std::sync::Arc::new(Polynomial { terms, constant }))
}

impl<'a> OperandText<'a> {
    /// A printer over the operand's axes, spelt as members of row and step.
    fn printer<'s>(&self, scope: &'s Scope<'s>) -> BodyPrinter<'s> {
        let member = |(n, name): (usize, &String)| match name.as_str() {
            "0" => "0".to_owned(),
            name if self.steps.contains(&n) => format!("step.{name}"),
            name => format!("row.{name}"),
        };
        let axes = self.axes.iter().enumerate().map(member).collect();
        BodyPrinter::new(scope, &self.extents, axes, Vec::new())
    }

    /// The narrow float type in which the operand is stored before its last widening, if it is one.
    pub(in crate::cuda::families) fn narrow(&self) -> Option<DType> {
        let body = &self.operand.body;
        let mut at = self.operand.value;
        loop {
            let inst = body.insts.get(at as usize)?;
            match inst.kind {
                _ if matches!(inst.dtype, DType::F16 | DType::BF16) => return Some(inst.dtype),
                InstKind::Cast(from) if inst.dtype == DType::F32 => at = from,
                _ => return None,
            }
        }
    }

    /// How the operand's main load walks, for vectors of at most `wanted` elements.
    pub(in crate::cuda::families) fn walk(
        &self,
        scope: &Scope<'_>,
        wanted: i64,
    ) -> Result<Walk, PrintError> {
        let printer = self.printer(scope);
        let plain = self.operand.plain_load();
        let first = frame::loads(&self.operand.body).map(|(_, load)| load).next();
        let Some(load) = plain.or(first) else { return Ok(Walk { along_steps: true, width: 1 }) };
        let offset = printer.offset(load.buffer, &load.index)?;
        let run = |range: &std::ops::Range<usize>, width: i64| {
            let axis = frame::last_live(&self.extents, range.clone())?;
            let divides = printer.facts.divisible(&self.extents[axis], width).is_yes();
            let packed =
                frame::run_along(&printer.facts, &offset, axis, width) == frame::Run::Packed;
            Some(packed && divides)
        };
        let along_steps = run(&self.steps, 1) == Some(true) || run(&self.rows, 1) != Some(true);
        let fast = if along_steps { &self.steps } else { &self.rows };
        let names_fast = |axis: usize| {
            let symbol = axis_symbol(axis);
            self.inside
                .iter()
                .any(|guard| guard.value.mentions(&symbol) || guard.below.mentions(&symbol))
        };
        let is_free =
            frame::last_live(&self.extents, fast.clone()).is_some_and(|axis| !names_fast(axis));
        let mut width = if plain.is_some() && is_free { wanted } else { 1 };
        while width > 1 && run(fast, width) != Some(true) {
            width /= 2;
        }
        Ok(Walk { along_steps, width })
    }

    /// Splits an offset; `None` when a term needs both sides or a computed value.
    fn split(&self, offset: &Dim) -> Option<Split> {
        if frame::depends_on_values(offset) {
            return None;
        }
        let polynomial = offset.polynomial();
        let (mut row, mut step) = (Vec::new(), Vec::new());
        for (monomial, coefficient) in polynomial.terms {
            let term = sum_of(vec![(monomial.clone(), coefficient)], 0);
            let axes: Vec<usize> = term.symbols().iter().filter_map(as_axis).collect();
            let of_step = axes.iter().any(|axis| self.steps.contains(axis));
            let of_row = axes.iter().any(|axis| !self.steps.contains(axis));
            match (of_row, of_step) {
                (true, true) => return None,
                (false, true) => step.push((monomial, coefficient)),
                _ => row.push((monomial, coefficient)),
            }
        }
        Some(Split { row: sum_of(row, polynomial.constant), step: sum_of(step, 0) })
    }

    /// Prints the row and step types, the functions that make them, the value and, for a plain load, its address.
    pub(in crate::cuda::families) fn print(
        &self,
        scope: &Scope<'_>,
        lines: &mut Lines,
    ) -> Result<(), PrintError> {
        let mut printer = self.printer(scope);
        let body = &self.operand.body;
        let needed = needed_by(body, &[self.operand.value], &|_| false);
        let mut splits: BTreeMap<u32, Split> = BTreeMap::new();
        for (at, load) in
            frame::loads(body).filter(|(at, load)| needed.contains(at) && load.guards.is_empty())
        {
            if let Some(split) = self.split(&printer.offset(load.buffer, &load.index)?) {
                let element =
                    format!("{}[row.at{at} + step.at{at}]", scope.buffer_name(load.buffer));
                printer.known.insert(at, scalar::loaded(&element, body.dtype(at)));
                splits.insert(at, split);
            }
        }
        let keeps_axes = !self.inside.is_empty()
            || needed.iter().any(|at| match &body.insts[*at as usize].kind {
                InstKind::Index(_) => true,
                InstKind::Load(_) => !splits.contains_key(at),
                _ => false,
            });
        self.print_part(scope, lines, true, keeps_axes, &splits)?;
        self.print_part(scope, lines, false, keeps_axes, &splits)?;
        let (side, dtype) = (self.side, body.dtype(self.operand.value));
        let upper = capital(side);
        self.print_inside(lines, &printer)?;
        lines.open(format!(
            "DEVICE {} {side}(const {upper}Row &row, const {upper}Step &step) const {{",
            value_type(dtype)
        ));
        if !self.inside.is_empty() {
            lines.line(format!("if (!{side}_inside(row, step)) return 0;"));
        }
        let value = printer.print(body, &[self.operand.value], lines)?.remove(&self.operand.value);
        lines.line(format!("return {};", value.unwrap_or_default()));
        lines.close("}");
        self.print_address(scope, lines, &splits, &printer)
    }

    /// `…_inside`: whether the operand is there.
    fn print_inside(&self, lines: &mut Lines, printer: &BodyPrinter<'_>) -> Result<(), PrintError> {
        let (side, upper) = (self.side, capital(self.side));
        let guards =
            Load { buffer: 0, index: Vec::new(), guards: self.inside.clone(), otherwise: None };
        let conditions = printer.guard(&guards, &BTreeMap::new())?;
        let text = if conditions.is_empty() { "true".to_owned() } else { conditions.join(" && ") };
        lines.line(format!(
            "DEVICE bool {side}_inside(const {upper}Row &row, const {upper}Step &step) const {{ return {text}; }}"
        ));
        Ok(())
    }

    /// `…_address`, for operands that are one plain load.
    fn print_address(
        &self,
        scope: &Scope<'_>,
        lines: &mut Lines,
        splits: &BTreeMap<u32, Split>,
        printer: &BodyPrinter<'_>,
    ) -> Result<(), PrintError> {
        let Some(load) = self.operand.plain_load() else { return Ok(()) };
        let at =
            frame::loads(&self.operand.body).find(|(_, other)| *other == load).map(|(at, _)| at);
        let buffer = &scope.program.buffers[load.buffer as usize];
        let stored = crate::cuda::print::storage_type(buffer.dtype).unwrap_or("u8");
        let place = match at.filter(|at| splits.contains_key(at)) {
            Some(at) => format!("row.at{at} + step.at{at}"),
            None => {
                printer.index(&BTreeMap::new()).print(&printer.offset(load.buffer, &load.index)?)?
            }
        };
        let upper = capital(self.side);
        lines.line(format!(
            "DEVICE const {stored} *{}_address(const {upper}Row &row, const {upper}Step &step) const {{ return {} + {place}; }}",
            self.side,
            scope.buffer_name(load.buffer)
        ));
        Ok(())
    }

    /// One of the two types with its function.
    fn print_part(
        &self,
        scope: &Scope<'_>,
        lines: &mut Lines,
        is_row: bool,
        keeps_axes: bool,
        splits: &BTreeMap<u32, Split>,
    ) -> Result<(), PrintError> {
        let ty = scope.index_type();
        let of_side = |n: &usize| self.steps.contains(n) != is_row;
        let live: Vec<usize> =
            (0..self.axes.len()).filter(of_side).filter(|&n| self.axes[n] != "0").collect();
        let mut members: Vec<String> = Vec::new();
        if keeps_axes {
            members.extend(live.iter().map(|&n| self.axes[n].clone()));
        }
        members.extend(splits.keys().map(|at| format!("at{at}")));
        let name = format!("{}{}", capital(self.side), if is_row { "Row" } else { "Step" });
        let list = if members.is_empty() {
            String::new()
        } else {
            format!(" {ty} {};", members.join(", "))
        };
        lines.line(format!("struct {name} {{{list} }};"));
        let arguments = if is_row { "i64 g, i64 r".to_owned() } else { "i64 k".to_owned() };
        let function = if is_row { "row" } else { "step" };
        lines.open(format!("DEVICE {name} {}_{function}({arguments}) const {{", self.side));
        let parts: Vec<(&str, &std::ops::Range<usize>)> = if is_row {
            vec![("g", &self.groups), ("r", &self.rows)]
        } else {
            vec![("k", &self.steps)]
        };
        for (flat, range) in parts {
            let flat = if scope.is_wide() { flat.to_owned() } else { format!("(i32){flat}") };
            frame::decompose(
                lines,
                scope,
                &flat,
                &self.axes[range.clone()],
                &self.extents[range.clone()],
            )?;
        }
        let printer = BodyPrinter::new(scope, &self.extents, self.axes.clone(), Vec::new());
        let none = BTreeMap::new();
        let mut values: Vec<String> = if keeps_axes {
            live.iter().map(|&n| self.axes[n].clone()).collect()
        } else {
            Vec::new()
        };
        for split in splits.values() {
            values.push(printer.index(&none).print(if is_row {
                &split.row
            } else {
                &split.step
            })?);
        }
        lines.line(format!("return {{{}}};", values.join(", ")));
        lines.close("}");
        Ok(())
    }

    /// `…_run`: `width` neighbouring values along the fast axis, for the streaming skeletons.
    pub(in crate::cuda::families) fn print_run(
        &self,
        scope: &Scope<'_>,
        lines: &mut Lines,
        walk: Walk,
        sum: DType,
    ) -> Result<(), PrintError> {
        let (side, upper, width) = (self.side, capital(self.side), walk.width);
        let sum = value_type(sum);
        lines.line(format!("static const int {side}_width = {width};"));
        lines.open(format!(
            "DEVICE void {side}_run(const {upper}Row &row, const {upper}Step &step, {sum} (&out)[{width}]) const {{"
        ));
        match self.operand.plain_load().filter(|_| width > 1) {
            Some(load) => {
                let dtype = scope.program.buffers[load.buffer as usize].dtype;
                let stored = crate::cuda::print::storage_type(dtype).unwrap_or("u8");
                lines.line(format!(
                    "const pack<{stored}, {width}> run = load_pack<{stored}, {width}>({side}_address(row, step));"
                ));
                lines.line("#pragma unroll");
                let element = scalar::loaded("run.at[e]", dtype);
                lines.line(format!("for (int e = 0; e < {width}; e++) out[e] = ({sum}){element};"));
            }
            None => lines.line(format!("out[0] = ({sum}){side}(row, step);")),
        }
        lines.close("}");
        Ok(())
    }
}

/// The prefix of a side's types.
fn capital(side: &str) -> &'static str {
    match side {
        "left" => "Left",
        "right" => "Right",
        "query" => "Query",
        "key" => "Key",
        _ => "Value",
    }
}
