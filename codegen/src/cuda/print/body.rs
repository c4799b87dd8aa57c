//! Scalar bodies as C++ statements: one named value where it is used more than once or is long, nested
//! expressions elsewhere; only what the asked-for results need is printed.

use std::collections::{BTreeMap, BTreeSet};

use tgc_ir::kernel_program::{Body, InstKind, Load, Store, as_axis, as_value};
use tgc_ir::{DType, Dim, Facts};

use super::index::IndexPrinter;
use super::lines::Lines;
use super::scalar;
use super::scope::{PrintError, Scope};
use super::value_type;

/// Longest expression that is nested into its only use.
const NESTED_LENGTH: usize = 60;

/// Prints bodies of one slot: what its axes and slots are called, and which results exist already.
#[derive(Clone)]
pub struct BodyPrinter<'a> {
    /// Names of the kernel.
    pub scope: &'a Scope<'a>,
    /// Facts about symbols and this slot's axes.
    pub facts: Facts,
    /// C++ expressions of the axes; the axis called `0` is zero everywhere.
    pub axes: Vec<String>,
    /// C++ expressions of the values that the anchor supplies.
    pub slots: Vec<String>,
    /// Results that are available under a name, by instruction.
    pub known: BTreeMap<u32, String>,
    /// Prefix of the names given to values.
    pub prefix: &'static str,
}

impl<'a> BodyPrinter<'a> {
    /// A printer over axes that run over `extents` and are called `axes`.
    pub fn new(
        scope: &'a Scope<'a>,
        extents: &[Dim],
        axes: Vec<String>,
        slots: Vec<String>,
    ) -> Self {
        let facts = scope.facts_with_axes(extents);
        BodyPrinter { scope, facts, axes, slots, known: BTreeMap::new(), prefix: "v" }
    }

    /// Prints what `roots` need and returns the expression of each root.
    ///
    /// # Errors
    /// [`PrintError::Malformed`] when the body refers to something that is not there.
    pub fn print(
        &self,
        body: &Body,
        roots: &[u32],
        out: &mut Lines,
    ) -> Result<BTreeMap<u32, String>, PrintError> {
        let needed = needed_by(body, roots, &|at| self.known.contains_key(&at));
        let uses = count_uses(body, &needed, roots);
        let named = used_in_indices(body, &needed);
        let mut values = self.known.clone();
        for &at in &needed {
            if values.contains_key(&at) {
                continue;
            }
            let inst = body.insts.get(at as usize).ok_or_else(|| self.no_result(at))?;
            let text = self.expression(body, at, &values)?;
            let is_load = matches!(inst.kind, InstKind::Load(_));
            let is_plain =
                matches!(inst.kind, InstKind::Const(_) | InstKind::Slot(_)) || is_name(&text);
            let once = uses.get(&at).copied().unwrap_or(0) <= 1;
            let nests = !is_load
                && !named.contains(&at)
                && (is_plain || (once && text.len() <= NESTED_LENGTH));
            if nests {
                values.insert(at, text);
            } else {
                let name = format!("{}{at}", self.prefix);
                out.line(format!("const {} {name} = {text};", value_type(inst.dtype)));
                values.insert(at, name);
            }
        }
        let of = |at: &u32| {
            values.get(at).cloned().map(|text| (*at, text)).ok_or_else(|| self.no_result(*at))
        };
        roots.iter().map(of).collect()
    }

    /// Prints the stores of an epilogue after what they need.
    ///
    /// # Errors
    /// As [`BodyPrinter::print`].
    pub fn print_stores(
        &self,
        body: &Body,
        stores: &[Store],
        out: &mut Lines,
    ) -> Result<(), PrintError> {
        let (values, sources) = self.print_store_values(body, stores, out)?;
        for (store, source) in stores.iter().zip(sources) {
            let element = self.element(store.buffer, &store.index, &values)?;
            out.line(format!("{element} = {source};"));
        }
        Ok(())
    }

    /// Prints what stores need; returns every known value and, per store, the element to be stored.
    ///
    /// # Errors
    /// As [`BodyPrinter::print`].
    pub fn print_store_values(
        &self,
        body: &Body,
        stores: &[Store],
        out: &mut Lines,
    ) -> Result<(BTreeMap<u32, String>, Vec<String>), PrintError> {
        let mut roots: Vec<u32> = stores.iter().map(|store| uncast(body, store.value)).collect();
        roots.extend(stores.iter().flat_map(|store| index_values(&store.index)));
        let values = self.print(body, &roots, out)?;
        let mut elements = Vec::new();
        for store in stores {
            let source = uncast(body, store.value);
            let buffer = self.scope.program.buffers.get(store.buffer as usize);
            let to = buffer.ok_or_else(|| self.scope.malformed("a store names no buffer"))?.dtype;
            elements.push(scalar::stored(&values[&source], body.dtype(source), to));
        }
        Ok((values, elements))
    }

    /// `buffer[offset]`.
    ///
    /// # Errors
    /// As [`BodyPrinter::print`].
    pub fn element(
        &self,
        buffer: u32,
        index: &[Dim],
        values: &BTreeMap<u32, String>,
    ) -> Result<String, PrintError> {
        let offset = self.offset(buffer, index)?;
        Ok(format!("{}[{}]", self.scope.buffer_name(buffer), self.index(values).print(&offset)?))
    }

    /// The offset of an element, as a dim over axes.
    ///
    /// # Errors
    /// [`PrintError::Malformed`] when the buffer or an axis of it is missing.
    pub fn offset(&self, buffer: u32, index: &[Dim]) -> Result<Dim, PrintError> {
        let known = self.scope.program.buffers.get(buffer as usize);
        let buffer = known.filter(|buffer| buffer.strides.len() == index.len());
        let buffer =
            buffer.ok_or_else(|| self.scope.malformed("an access does not match its buffer"))?;
        let zeroed = buffer.offset(index).substitute(&|symbol| {
            let name = self.axes.get(as_axis(symbol)?)?;
            (name == "0").then_some(Dim::ZERO)
        });
        Ok(self.facts.simplify(&zeroed))
    }

    /// A printer of index expressions under given values.
    pub fn index<'b>(&'b self, values: &'b BTreeMap<u32, String>) -> IndexPrinter<'b> {
        IndexPrinter::new(self.scope, &self.facts, &self.axes, values)
    }

    fn no_result(&self, at: u32) -> PrintError {
        self.scope.malformed(format!("no result {at} in a body"))
    }

    fn expression(
        &self,
        body: &Body,
        at: u32,
        values: &BTreeMap<u32, String>,
    ) -> Result<String, PrintError> {
        let inst = &body.insts[at as usize];
        let value = |at: &u32| values.get(at).cloned().ok_or_else(|| self.no_result(*at));
        Ok(match &inst.kind {
            InstKind::Const(constant) => scalar::literal(*constant, inst.dtype),
            InstKind::Index(dim) => {
                let text = self.index(values).print(dim)?;
                if self.scope.is_wide() && is_name(&text) { text } else { format!("(i64)({text})") }
            }
            InstKind::Slot(slot) => {
                let known = self.slots.get(*slot as usize).cloned();
                known.ok_or_else(|| self.scope.malformed(format!("no slot {slot}")))?
            }
            InstKind::Load(load) => self.load(load, inst.dtype, values)?,
            InstKind::Scalar(op, args) => {
                let texts = args.iter().map(value).collect::<Result<Vec<_>, _>>()?;
                let last =
                    args.last().ok_or_else(|| self.scope.malformed("an op without operands"))?;
                scalar::apply(*op, &texts, body.dtype(*last))
            }
            InstKind::Cast(from) => scalar::convert(&value(from)?, body.dtype(*from), inst.dtype),
            InstKind::Bitcast(from) => {
                let text = scalar::reinterpret(&value(from)?, body.dtype(*from), inst.dtype);
                text.ok_or_else(|| self.scope.malformed("bits of a type without storage"))?
            }
            InstKind::Reduce(..) => return Err(self.scope.malformed("a reduction outside rows")),
        })
    }

    fn load(
        &self,
        load: &Load,
        dtype: DType,
        values: &BTreeMap<u32, String>,
    ) -> Result<String, PrintError> {
        let element = scalar::loaded(&self.element(load.buffer, &load.index, values)?, dtype);
        let conditions = self.guard(load, values)?;
        if conditions.is_empty() {
            return Ok(element);
        }
        let otherwise = match load.otherwise {
            Some(at) => values.get(&at).cloned().ok_or_else(|| self.no_result(at))?,
            None => scalar::literal(tgc_ir::kernel_program::ScalarConst::Int(0), dtype),
        };
        Ok(format!("{} ? {element} : {otherwise}", conditions.join(" && ")))
    }

    /// The conditions of a load that the facts do not already prove.
    ///
    /// # Errors
    /// As [`BodyPrinter::print`].
    pub fn guard(
        &self,
        load: &Load,
        values: &BTreeMap<u32, String>,
    ) -> Result<Vec<String>, PrintError> {
        let mut conditions = Vec::new();
        let index = self.index(values);
        for guard in &load.guards {
            let text = index.print_factor(&guard.value)?;
            if !self.facts.at_most(&Dim::ZERO, &guard.value).is_yes() {
                conditions.push(format!("{text} >= 0"));
            }
            if !self.facts.less(&guard.value, &guard.below).is_yes() {
                conditions.push(format!("{text} < {}", index.print_factor(&guard.below)?));
            }
        }
        Ok(conditions)
    }
}

/// True for text that is one identifier or number.
fn is_name(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

/// A store rounds anyhow, so a narrowing cast of a float in front of it is left to it.
pub fn uncast(body: &Body, value: u32) -> u32 {
    match body.insts.get(value as usize) {
        Some(inst) if matches!(inst.dtype, DType::F16 | DType::BF16) => match inst.kind {
            InstKind::Cast(from) if matches!(body.dtype(from), DType::F32 | DType::F64) => from,
            _ => value,
        },
        _ => value,
    }
}

/// Results that index expressions name.
pub fn index_values(index: &[Dim]) -> Vec<u32> {
    index.iter().flat_map(Dim::symbols).filter_map(|symbol| as_value(&symbol)).collect()
}

/// Earlier results that an instruction reads, directly and in index expressions.
pub fn operands(kind: &InstKind) -> Vec<u32> {
    match kind {
        InstKind::Const(_) | InstKind::Slot(_) => Vec::new(),
        InstKind::Index(dim) => index_values(std::slice::from_ref(dim)),
        InstKind::Load(load) => {
            let mut out = index_values(&load.index);
            for guard in &load.guards {
                out.extend(index_values(&[guard.value.clone(), guard.below.clone()]));
            }
            out.extend(load.otherwise);
            out
        }
        InstKind::Scalar(_, args) => args.to_vec(),
        InstKind::Cast(from) | InstKind::Bitcast(from) | InstKind::Reduce(_, from) => vec![*from],
    }
}

/// Instructions that `roots` need, in order; the search stops at results for which `is_known` holds.
pub fn needed_by(body: &Body, roots: &[u32], is_known: &dyn Fn(u32) -> bool) -> BTreeSet<u32> {
    let mut needed = BTreeSet::new();
    let mut open: Vec<u32> = roots.to_vec();
    while let Some(at) = open.pop() {
        if needed.insert(at)
            && !is_known(at)
            && let Some(inst) = body.insts.get(at as usize)
        {
            open.extend(operands(&inst.kind));
        }
    }
    needed
}

fn count_uses(body: &Body, needed: &BTreeSet<u32>, roots: &[u32]) -> BTreeMap<u32, usize> {
    let mut uses = BTreeMap::new();
    let insts = needed.iter().filter_map(|at| body.insts.get(*at as usize));
    for at in insts.flat_map(|inst| operands(&inst.kind)).chain(roots.iter().copied()) {
        *uses.entry(at).or_insert(0) += 1;
    }
    uses
}

/// Results named by index expressions of needed instructions.
fn used_in_indices(body: &Body, needed: &BTreeSet<u32>) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    for inst in needed.iter().filter_map(|at| body.insts.get(*at as usize)) {
        match &inst.kind {
            InstKind::Index(dim) => out.extend(index_values(std::slice::from_ref(dim))),
            InstKind::Load(load) => {
                out.extend(index_values(&load.index));
                out.extend(
                    load.guards
                        .iter()
                        .flat_map(|g| index_values(&[g.value.clone(), g.below.clone()])),
                );
            }
            _ => {}
        }
    }
    out
}
