//! Reference of kernel programs: buffers, guards, and the anchors that are
//! loops over bodies. The other anchors are in `kernel_anchors`.

use crate::bind::Binding;
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::eval::array::Indices;
use crate::eval::body::{Surroundings, axis_value, index_value, run_all, run_body};
use crate::eval::data::Reducer;
use crate::eval::{EvalError, Mode};
use crate::kernel_program::{
    Access, Anchor, Body, InstKind, KernelProgram, Loops, Operand, Rows, Store, as_axis,
};
use crate::scalar::{Value, round_to};
use crate::tensor::Tensor;

/// The contents of one kernel argument: elements at their strided offsets.
#[derive(Clone, Debug)]
pub struct KernelData {
    /// Element type.
    pub dtype: DType,
    /// Elements by offset; `None` was never written.
    pub elements: Vec<Option<Value>>,
}

impl KernelData {
    /// Elements of a dense tensor.
    pub fn from_tensor(tensor: &Tensor) -> KernelData {
        KernelData {
            dtype: tensor.dtype(),
            elements: tensor.values().into_iter().map(Some).collect(),
        }
    }

    /// Elements that nothing has written yet.
    pub fn unwritten(dtype: DType, count: usize) -> KernelData {
        KernelData { dtype, elements: vec![None; count] }
    }

    /// A dense tensor of extents; `None` when an element was never written.
    pub fn to_tensor(&self, shape: &[usize]) -> Option<Tensor> {
        let values: Option<Vec<Value>> = self.elements.iter().copied().collect();
        Some(Tensor::from_values(self.dtype, shape, &values?))
    }
}

/// Runs a program on its arguments. Floats are computed in f64 and rounded
/// when stored ([`Mode::Exact`]) or after every instruction.
pub fn run_kernel(
    program: &KernelProgram,
    binding: &Binding,
    data: &mut [KernelData],
    mode: Mode,
) -> Result<(), EvalError> {
    let mut machine = KernelMachine { program, binding, data, mode };
    match &program.anchor {
        Anchor::Loops(a) => machine.loops(a),
        Anchor::Rows(a) => machine.rows(a),
        Anchor::Contract(a) => machine.contract(a),
        Anchor::Conv(a) => machine.conv(a),
        Anchor::Pool(a) => machine.pool(a),
        Anchor::Attend(a) => machine.attend(a),
        Anchor::Scan(a) => machine.scan(a),
        Anchor::Sort(a) => machine.sort(a),
        Anchor::Scatter(a) => machine.scatter(a),
        Anchor::Rnn(a) => machine.rnn(a),
    }
}

pub(crate) struct KernelMachine<'a> {
    pub(crate) program: &'a KernelProgram,
    pub(crate) binding: &'a Binding,
    pub(crate) data: &'a mut [KernelData],
    pub(crate) mode: Mode,
}

/// A body at one point.
pub(crate) struct Point<'a> {
    pub(crate) machine: &'a KernelMachine<'a>,
    pub(crate) axes: &'a [i64],
    pub(crate) slots: &'a [Value],
    pub(crate) reduced: &'a [(u32, Value)],
}

impl Surroundings for Point<'_> {
    fn mode(&self) -> Mode {
        self.machine.mode
    }
    fn slot(&self, n: u32) -> Value {
        self.slots[n as usize]
    }
    fn symbol(&self, symbol: &Symbol) -> Option<i64> {
        axis_value(symbol, self.axes).or_else(|| self.machine.binding.value(symbol))
    }
    fn load(&self, buffer: u32, index: &[i64]) -> Result<Value, EvalError> {
        let at = self.machine.place(buffer, index)?;
        let value = self.machine.data[buffer as usize].elements.get(at).copied().flatten();
        let what = || format!("{} buffer {buffer}", self.machine.program.name);
        value.ok_or_else(|| EvalError::Index { what: what(), index: at as i64, extent: 0 })
    }
    fn reduced(&self, inst: u32) -> Value {
        self.reduced.iter().find(|(at, _)| *at == inst).map_or(Value::Float(f64::NAN), |(_, v)| *v)
    }
}

pub(crate) fn as_axes(index: &[usize]) -> Vec<i64> {
    index.iter().map(|i| *i as i64).collect()
}

impl KernelMachine<'_> {
    /// Extents as sizes.
    pub(crate) fn sizes(&self, dims: &[Dim]) -> Result<Vec<usize>, EvalError> {
        dims.iter()
            .map(|d| {
                let extent = self.binding.eval(d)?;
                usize::try_from(extent)
                    .map_err(|_| EvalError::Extent { what: self.program.name.clone(), extent })
            })
            .collect()
    }

    pub(crate) fn size(&self, dim: &Dim) -> Result<usize, EvalError> {
        Ok(self.sizes(std::slice::from_ref(dim))?[0])
    }

    /// The checked offset of an index.
    pub(crate) fn place(&self, buffer: u32, index: &[i64]) -> Result<usize, EvalError> {
        let buffer_type = &self.program.buffers[buffer as usize];
        let what = || format!("{} buffer {buffer}", self.program.name);
        let mut offset = 0;
        for ((i, extent), stride) in index.iter().zip(&buffer_type.shape).zip(&buffer_type.strides)
        {
            let extent = self.binding.eval(extent)?;
            if *i < 0 || *i >= extent {
                return Err(EvalError::Index {
                    what: what(),
                    index: *i,
                    extent: extent.max(0) as usize,
                });
            }
            offset += i * self.binding.eval(stride)?;
        }
        usize::try_from(offset).map_err(|_| EvalError::Index {
            what: what(),
            index: offset,
            extent: 0,
        })
    }

    /// The value of an operand at a point.
    pub(crate) fn operand(
        &self,
        operand: &Operand,
        axes: &[i64],
        slots: &[Value],
    ) -> Result<Value, EvalError> {
        run_body(&operand.body, operand.value, &Point { machine: self, axes, slots, reduced: &[] })
    }

    /// Runs stores at a point.
    pub(crate) fn store_all(
        &mut self,
        body: &Body,
        stores: &[Store],
        axes: &[i64],
        slots: &[Value],
        reduced: &[(u32, Value)],
    ) -> Result<(), EvalError> {
        let mut writes = Vec::new();
        {
            let point = Point { machine: self, axes, slots, reduced };
            let values = run_all(body, &point, body.insts.len() as u32)?;
            for store in stores {
                let index: Vec<i64> = store
                    .index
                    .iter()
                    .map(|d| index_value(d, &values, &point))
                    .collect::<Result<_, _>>()?;
                writes.push((
                    store.buffer,
                    self.place(store.buffer, &index)?,
                    values[store.value as usize],
                ));
            }
        }
        writes.into_iter().try_for_each(|(buffer, at, value)| self.write(buffer, at, value))
    }

    pub(crate) fn write(&mut self, buffer: u32, at: usize, value: Value) -> Result<(), EvalError> {
        let data = &mut self.data[buffer as usize];
        let dtype = data.dtype;
        let what = &self.program.name;
        let extent = data.elements.len();
        let slot = data.elements.get_mut(at);
        let slot =
            slot.ok_or_else(|| EvalError::Index { what: what.clone(), index: at as i64, extent })?;
        debug_assert_ne!(
            self.program.buffers[buffer as usize].access,
            Access::Read,
            "{what} stores to an input"
        );
        *slot = Some(round_to(value, dtype));
        Ok(())
    }

    fn loops(&mut self, a: &Loops) -> Result<(), EvalError> {
        for index in Indices::new(&self.sizes(&a.extents)?) {
            self.store_all(&a.epilogue.body, &a.epilogue.stores, &as_axes(&index), &[], &[])?;
        }
        Ok(())
    }

    fn rows(&mut self, a: &Rows) -> Result<(), EvalError> {
        let (outer, inner) = (self.sizes(&a.outer)?, self.sizes(&a.inner)?);
        let body = &a.epilogue.body;
        let reductions: Vec<u32> = (0..body.insts.len() as u32)
            .filter(|i| matches!(body.insts[*i as usize].kind, InstKind::Reduce(..)))
            .collect();
        for row in Indices::new(&outer) {
            let mut reduced: Vec<(u32, Value)> = Vec::new();
            for &at in &reductions {
                let InstKind::Reduce(op, from) = body.insts[at as usize].kind else { continue };
                let mut reducer = Reducer::new(op, body.dtype(from));
                for element in Indices::new(&inner) {
                    let axes: Vec<i64> =
                        as_axes(&row).into_iter().chain(as_axes(&element)).collect();
                    let point = Point { machine: self, axes: &axes, slots: &[], reduced: &reduced };
                    reducer.add(run_body(body, from, &point)?);
                }
                reduced.push((
                    at,
                    crate::eval::body::settle(reducer.result(), body.dtype(at), self.mode),
                ));
            }
            self.store_row(a, &row, &inner, &reduced)?;
        }
        Ok(())
    }

    fn store_row(
        &mut self,
        a: &Rows,
        row: &[usize],
        inner: &[usize],
        reduced: &[(u32, Value)],
    ) -> Result<(), EvalError> {
        let varying = varying_insts(a);
        let mentions_inner =
            |d: &Dim| d.symbols().iter().filter_map(as_axis).any(|n| n >= a.outer.len());
        let (per_row, per_element): (Vec<Store>, Vec<Store>) = a
            .epilogue
            .stores
            .iter()
            .cloned()
            .partition(|s| !varying[s.value as usize] && !s.index.iter().any(mentions_inner));
        if !per_row.is_empty() {
            // Elements of an empty row cannot be evaluated: only row values are.
            let axes: Vec<i64> = as_axes(row).into_iter().chain(inner.iter().map(|_| 0)).collect();
            let body = row_body(&a.epilogue.body, &varying);
            self.store_all(&body, &per_row, &axes, &[], reduced)?;
        }
        if !per_element.is_empty() {
            for element in Indices::new(inner) {
                let axes: Vec<i64> = as_axes(row).into_iter().chain(as_axes(&element)).collect();
                self.store_all(&a.epilogue.body, &per_element, &axes, &[], reduced)?;
            }
        }
        Ok(())
    }
}

/// Which instructions depend on an inner axis.
fn varying_insts(a: &Rows) -> Vec<bool> {
    let mut varying: Vec<bool> = Vec::new();
    for inst in &a.epilogue.body.insts {
        let dims = |d: &Dim| {
            d.symbols().iter().any(|s| {
                as_axis(s).is_some_and(|n| n >= a.outer.len())
                    || crate::kernel_program::as_value(s).is_some_and(|v| varying[v as usize])
            })
        };
        let is = match &inst.kind {
            InstKind::Const(_) | InstKind::Slot(_) | InstKind::Reduce(..) => false,
            InstKind::Index(dim) => dims(dim),
            InstKind::Load(load) => {
                load.index.iter().any(dims)
                    || load.guards.iter().any(|g| dims(&g.value) || dims(&g.below))
                    || load.otherwise.is_some_and(|o| varying[o as usize])
            }
            InstKind::Scalar(_, args) => args.iter().any(|x| varying[*x as usize]),
            InstKind::Cast(x) | InstKind::Bitcast(x) => varying[*x as usize],
        };
        varying.push(is);
    }
    varying
}

/// The body with element instructions replaced by constants, so that row
/// values can be computed for empty rows too.
fn row_body(body: &Body, varying: &[bool]) -> Body {
    let mut out = body.clone();
    for (inst, varying) in out.insts.iter_mut().zip(varying) {
        if *varying {
            inst.kind = InstKind::Const(crate::kernel_program::ScalarConst::Int(0));
        }
    }
    out
}
