//! The store slot of contraction-like kernels: a run of neighbouring columns of one row through the epilogue.

use std::collections::BTreeMap;
use std::ops::Range;

use tgc_ir::kernel_program::Epilogue;
use tgc_ir::{DType, Dim};

use crate::cuda::families::frame::{self, Run};
use crate::cuda::print::body::BodyPrinter;
use crate::cuda::print::lines::Lines;
use crate::cuda::print::scope::{PrintError, Scope};
use crate::cuda::print::{storage_type, value_type};

/// The epilogue with its axes.
pub(in crate::cuda::families) struct StoreText<'a> {
    /// Code and stores; slot 0 is the sum.
    pub epilogue: &'a Epilogue,
    /// Extents of all axes, merged.
    pub extents: Vec<Dim>,
    /// Their names.
    pub axes: Vec<String>,
    /// Axes of groups.
    pub groups: Range<usize>,
    /// Axes of rows.
    pub rows: Range<usize>,
    /// Axes of columns.
    pub columns: Range<usize>,
    /// Type of the sums.
    pub sum: DType,
    /// Columns that the skeleton hands over at once.
    pub run: i64,
}

impl StoreText<'_> {
    /// True when a full run may be loaded and stored as vectors.
    fn is_packed(&self, printer: &BodyPrinter<'_>) -> Result<Option<usize>, PrintError> {
        let Some(axis) = frame::last_live(&self.extents, self.columns.clone()) else {
            return Ok(None);
        };
        if self.run == 1 || !printer.facts.divisible(&self.extents[axis], self.run).is_yes() {
            return Ok(None);
        }
        let widest = |buffer: u32| {
            let bytes =
                printer.scope.program.buffers[buffer as usize].dtype.bytes().unwrap_or(1) as i64;
            (16 / bytes).min(self.run)
        };
        for store in &self.epilogue.stores {
            let offset = printer.offset(store.buffer, &store.index)?;
            let run = frame::run_along(&printer.facts, &offset, axis, widest(store.buffer));
            if run != Run::Packed
                || frame::depends_on_values(&offset)
                || self.bytes(printer, store.buffer) > 32
            {
                return Ok(None);
            }
        }
        Ok(Some(axis))
    }

    fn bytes(&self, printer: &BodyPrinter<'_>, buffer: u32) -> i64 {
        printer.scope.program.buffers[buffer as usize].dtype.bytes().unwrap_or(1) as i64 * self.run
    }

    /// Prints the store function.
    pub(in crate::cuda::families) fn print(
        &self,
        scope: &Scope<'_>,
        lines: &mut Lines,
    ) -> Result<(), PrintError> {
        let printer =
            BodyPrinter::new(scope, &self.extents, self.axes.clone(), vec!["acc[lane]".to_owned()]);
        let sum = value_type(self.sum);
        lines.line(format!(
            "template <int RUN> DEVICE void store(i64 g, i64 m, i64 n, const {sum} (&acc)[RUN], int count) const {{"
        ));
        let mut inner = Lines::at_depth(1);
        for (flat, range) in [("g", &self.groups), ("m", &self.rows)] {
            self.decompose(scope, &mut inner, flat, range)?;
        }
        if let Some(axis) = self.is_packed(&printer)? {
            inner.open(format!("if constexpr (RUN == {}) {{", self.run));
            self.decompose(scope, &mut inner, "n", &self.columns)?;
            self.packed(&printer, axis, &mut inner)?;
            inner.line("return;");
            inner.close("}");
        }
        inner.line("#pragma unroll");
        inner.open("for (int lane = 0; lane < RUN; lane++) {");
        inner.line("if (lane >= count) break;");
        self.decompose(scope, &mut inner, "(n + lane)", &self.columns)?;
        printer.print_stores(&self.epilogue.body, &self.epilogue.stores, &mut inner)?;
        inner.close("}");
        lines.text(&inner.finish());
        lines.line("}");
        Ok(())
    }

    fn decompose(
        &self,
        scope: &Scope<'_>,
        lines: &mut Lines,
        flat: &str,
        range: &Range<usize>,
    ) -> Result<(), PrintError> {
        let flat = if scope.is_wide() { flat.to_owned() } else { format!("(i32){flat}") };
        frame::decompose(
            lines,
            scope,
            &flat,
            &self.axes[range.clone()],
            &self.extents[range.clone()],
        )
    }

    fn packed(
        &self,
        printer: &BodyPrinter<'_>,
        axis: usize,
        lines: &mut Lines,
    ) -> Result<(), PrintError> {
        let (scope, body, run) = (printer.scope, &self.epilogue.body, self.run);
        let mut printer = printer.clone();
        let fits = |at: u32| {
            let load =
                frame::loads(body).find(|(other, _)| *other == at).map(|(_, load)| load.buffer);
            load.is_some_and(|buffer| self.bytes(&printer, buffer) <= 32)
        };
        let known = frame::load_packs(lines, &printer, body, &fits, axis, run)?;
        printer.known.extend(known);
        let stored = |buffer: u32| {
            storage_type(scope.program.buffers[buffer as usize].dtype).unwrap_or("u8")
        };
        let none = BTreeMap::new();
        let mut places = Vec::new();
        for (n, store) in self.epilogue.stores.iter().enumerate() {
            places.push(printer.index(&none).print(&printer.offset(store.buffer, &store.index)?)?);
            lines.line(format!("pack<{}, {run}> out{n};", stored(store.buffer)));
        }
        lines.line("#pragma unroll");
        lines.open(format!("for (int lane = 0; lane < {run}; lane++) {{"));
        printer.axes[axis] = format!("({} + lane)", printer.axes[axis]);
        let (_, elements) = printer.print_store_values(body, &self.epilogue.stores, lines)?;
        for (n, element) in elements.iter().enumerate() {
            lines.line(format!("out{n}.at[lane] = {element};"));
        }
        lines.close("}");
        for (n, store) in self.epilogue.stores.iter().enumerate() {
            let (name, ty) = (scope.buffer_name(store.buffer), stored(store.buffer));
            lines.line(format!("store_pack<{ty}, {run}>({name} + {}, out{n});", places[n]));
        }
        Ok(())
    }
}
