//! Evaluating a graph node by node.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::bind::Binding;
use crate::composite::Apply;
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::eval::array::{Array, strides};
use crate::eval::{EvalError, Mode, control, data, linear, movement, recurrent, windows};
use crate::facts::Facts;
use crate::graph::{Graph, NodeId};
use crate::infer::Violation;
use crate::op::Op;
use crate::scalar::{ScalarOp, Value};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Elements that one array of the reference may have.
const ELEMENTS_MAX: usize = 1 << 28;

/// Results of one node.
pub(crate) type Results = Vec<Arc<Array>>;

/// Evaluates one graph on one set of inputs.
pub struct Evaluator<'a> {
    graph: &'a Graph,
    mode: Mode,
    inputs: BTreeMap<Arc<str>, Arc<Array>>,
    /// Values of symbols; grows as counts become known.
    pub binding: Binding,
    values: Vec<Option<Results>>,
}

/// Checks names and types and binds symbols.
pub(crate) fn bind(graph: &Graph, inputs: &[(&str, Tensor)]) -> Result<Binding, EvalError> {
    let mut declared: Vec<(&str, &TensorType)> = Vec::new();
    for &node in graph.inputs() {
        if let Op::Input { name, ty } = graph.op(node) {
            declared.push((name, ty));
        }
    }
    if let Some((unknown, _)) = inputs.iter().find(|(n, _)| declared.iter().all(|(d, _)| d != n)) {
        return Err(EvalError::UnknownInput((*unknown).to_owned()));
    }
    let mut given = Vec::new();
    for (name, ty) in &declared {
        let found = inputs.iter().find(|(n, _)| n == name);
        let (_, tensor) = found.ok_or_else(|| EvalError::MissingInput((*name).to_owned()))?;
        if tensor.dtype() != ty.dtype {
            let (expected, found) = (ty.dtype, tensor.dtype());
            return Err(EvalError::InputType { name: (*name).to_owned(), expected, found });
        }
        given.push((*name, *ty, tensor));
    }
    let mut preset = BTreeMap::new();
    for element in &graph.element_symbols {
        if let Some((_, _, tensor)) = given.get(element.input)
            && element.element < tensor.len()
        {
            preset.insert(element.symbol.clone(), tensor.value(element.element).as_int() as i64);
        }
    }
    let shapes: Vec<(&str, &TensorType, &[usize])> =
        given.iter().map(|(n, t, x)| (*n, *t, x.shape())).collect();
    Ok(Binding::from_inputs(&shapes, &graph.facts, preset)?)
}

impl<'a> Evaluator<'a> {
    /// Binds inputs.
    pub fn new(graph: &'a Graph, inputs: &[(&str, Tensor)], mode: Mode) -> Result<Self, EvalError> {
        let binding = bind(graph, inputs)?;
        let inputs =
            inputs.iter().map(|(n, t)| (Arc::from(*n), Arc::new(Array::from_tensor(t)))).collect();
        Ok(Evaluator { graph, mode, inputs, binding, values: vec![None; graph.len()] })
    }

    /// For values that depend on no input and no symbol.
    pub fn unbound(graph: &'a Graph, mode: Mode) -> Self {
        Evaluator {
            graph,
            mode,
            inputs: BTreeMap::new(),
            binding: Binding::default(),
            values: vec![None; graph.len()],
        }
    }

    /// For regions: parameters in order, and symbols of the surroundings.
    pub(crate) fn for_region(
        graph: &'a Graph,
        params: &[Arc<Array>],
        binding: &Binding,
        mode: Mode,
    ) -> Self {
        let names = graph.inputs().iter().filter_map(|n| match graph.op(*n) {
            Op::Input { name, .. } => Some(name.clone()),
            _ => None,
        });
        let inputs = names.zip(params.iter().cloned()).collect();
        Evaluator { graph, mode, inputs, binding: binding.clone(), values: vec![None; graph.len()] }
    }

    /// Evaluates every node that an output needs.
    pub fn run(&mut self) -> Result<(), EvalError> {
        let live = self.graph.live();
        for id in self.graph.ids() {
            if live[id.index()] {
                self.evaluate(id)?;
            }
        }
        Ok(())
    }

    /// The value of an evaluated node (the first of a tuple).
    ///
    /// # Panics
    /// When the node was not evaluated.
    pub fn value(&self, node: NodeId) -> &Arc<Array> {
        &self.values[node.index()].as_ref().expect("evaluated before")[0]
    }

    /// Replaces the value of a node (to evaluate a part on given values).
    pub fn set_value(&mut self, node: NodeId, value: Array) {
        self.values[node.index()] = Some(vec![Arc::new(value)]);
    }

    /// Evaluates one node whose operands are evaluated; keeps a value that is
    /// there already.
    pub fn evaluate(&mut self, id: NodeId) -> Result<(), EvalError> {
        if self.values[id.index()].is_some() {
            return Ok(());
        }
        let results = self.results(id)?;
        self.values[id.index()] = Some(results);
        Ok(())
    }

    fn results(&mut self, id: NodeId) -> Result<Results, EvalError> {
        let graph = self.graph;
        let op = graph.op(id);
        if let Op::Proj { index } = op {
            let tuple =
                self.values[graph.operands(id)[0].index()].as_ref().expect("operands come first");
            return Ok(vec![tuple[*index as usize].clone()]);
        }
        let operands: Vec<Arc<Array>> =
            graph.operands(id).iter().map(|o| self.value(*o).clone()).collect();
        match op {
            Op::Input { name, .. } => {
                let value = self
                    .inputs
                    .get(name)
                    .ok_or_else(|| EvalError::MissingInput(name.to_string()))?;
                Ok(vec![value.clone()])
            }
            Op::Weight { index } => {
                let weight = &graph.weights()[*index as usize];
                let data = weight
                    .data
                    .as_ref()
                    .ok_or_else(|| EvalError::NoWeight(weight.name.to_string()))?;
                Ok(vec![Arc::new(Array::from_tensor(data))])
            }
            _ => {
                let types = graph.types(id);
                let mut machine =
                    Machine { mode: self.mode, binding: &mut self.binding, facts: &graph.facts };
                let results = machine.apply_op(op, &operands, types)?;
                Ok(results.into_iter().map(Arc::new).collect())
            }
        }
    }
}

/// Applies ops to arrays.
pub(crate) struct Machine<'a> {
    pub(crate) mode: Mode,
    pub(crate) binding: &'a mut Binding,
    pub(crate) facts: &'a Facts,
}

impl Machine<'_> {
    pub(crate) fn extents(&self, what: &str, dims: &[Dim]) -> Result<Vec<usize>, EvalError> {
        let shape = self.sizes(what, dims)?;
        match crate::tensor::element_count(&shape) {
            Some(count) if count <= ELEMENTS_MAX => Ok(shape),
            _ => Err(EvalError::TooLarge { what: what.to_owned(), limit: ELEMENTS_MAX }),
        }
    }

    /// Extents that need not be those of one array (of labels, say).
    pub(crate) fn sizes(&self, what: &str, dims: &[Dim]) -> Result<Vec<usize>, EvalError> {
        dims.iter()
            .map(|dim| {
                let extent = self.binding.eval(dim)?;
                usize::try_from(extent)
                    .map_err(|_| EvalError::Extent { what: what.to_owned(), extent })
            })
            .collect()
    }

    pub(crate) fn bind_count(&mut self, symbol: &Symbol, count: usize) {
        self.binding.0.insert(symbol.clone(), count as i64);
    }

    fn apply_op(
        &mut self,
        op: &Op,
        x: &[Arc<Array>],
        types: &[TensorType],
    ) -> Result<Vec<Array>, EvalError> {
        let shape = match op {
            Op::NonZero { .. }
            | Op::Nms { .. }
            | Op::Unique { .. }
            | Op::If { .. }
            | Op::Loop { .. } => Vec::new(),
            _ => self.extents(op.name(), &types[0].shape)?,
        };
        let dtype = types.first().map_or(DType::F32, |t| t.dtype);
        let results = match op {
            Op::Input { .. } | Op::Weight { .. } | Op::Proj { .. } => Vec::new(),
            Op::Constant { value } => vec![Array::from_tensor(&value.0)],
            Op::Splat { value, dtype } => vec![Array::filled(*dtype, &[], value.value())],
            Op::Iota { .. } => vec![Array::build(dtype, &shape, |i| Value::Int(i as i128))],
            Op::DimValue { value } => {
                let value = self.binding.eval(value)?;
                vec![Array::filled(dtype, &[], Value::Int(i128::from(value)))]
            }
            Op::Scalar(scalar) => vec![pointwise(*scalar, x, dtype, &shape)],
            Op::Cast { to } => vec![Array::build(*to, &shape, |i| convert(x[0].get(i), *to))],
            Op::Bitcast { to } => {
                let bytes = x[0].to_tensor().bytes().clone();
                let tensor = Tensor::new(*to, x[0].shape.clone(), bytes)
                    .expect("widths are equal by type rule");
                vec![Array::from_tensor(&tensor)]
            }
            Op::Contract { spec } => vec![linear::contract(self, spec, &x[0], &x[1])?],
            Op::Attend { spec } => vec![linear::attend(self, spec, x)?],
            Op::Conv { spec } => vec![windows::conv(self, spec, &x[0], &x[1], &shape)?],
            Op::Pool { spec } => windows::pool(self, spec, &x[0], &shape)?,
            Op::Reduce { op, axes } => vec![data::reduce(*op, axes, &x[0], &shape)],
            Op::Scan { op, axis, exclusive, reverse } => {
                vec![data::scan(*op, *axis as usize, *exclusive, *reverse, &x[0])]
            }
            Op::TopK { axis, largest, .. } => data::topk(*axis as usize, *largest, &x[0], &shape),
            Op::View { view } => vec![movement::view(self, view, &x[0], &shape)?],
            Op::Pad { mode, low, .. } => {
                vec![movement::pad(self, *mode, low, &x[0], &x[1], &shape)?]
            }
            Op::Concat { axis } => vec![movement::concat(*axis as usize, x, dtype, &shape)],
            Op::Gather { axis } => vec![movement::gather(*axis as usize, &x[0], &x[1], &shape)?],
            Op::GatherElements { axis } => {
                vec![movement::gather_elements(*axis as usize, &x[0], &x[1])?]
            }
            Op::GatherNd { batch } => {
                vec![movement::gather_nd(*batch as usize, &x[0], &x[1], &shape)?]
            }
            Op::ScatterElements { axis, op } => {
                vec![movement::scatter_elements(*axis as usize, *op, &x[0], &x[1], &x[2])?]
            }
            Op::ScatterNd { op } => vec![movement::scatter_nd(*op, &x[0], &x[1], &x[2])?],
            Op::NonZero { count } => vec![data::nonzero(self, count, &x[0])],
            Op::Nms { center_point, count } => vec![data::nms(self, *center_point, count, x)],
            Op::Unique { axis, sorted, count } => data::unique(self, *axis, *sorted, count, &x[0]),
            Op::Random { kind, seed, .. } => vec![data::random(*kind, *seed, dtype, &shape)],
            Op::If { then, otherwise } => control::branch(self, then, otherwise, x)?,
            Op::Loop { body, carried, rounds } => {
                control::repeat(self, body, *carried as usize, rounds, x)?
            }
            Op::Rnn { spec } => recurrent::rnn(self, spec, x)?,
            Op::Composite(composite) => {
                return Ok(vec![(*composite.expand(self, x).map_err(EvalError::Type)?).clone()]);
            }
        };
        Ok(results.into_iter().map(|a| a.settled(self.mode)).collect())
    }
}

impl Apply for Machine<'_> {
    type Value = Arc<Array>;

    fn apply(&mut self, op: Op, operands: &[Arc<Array>]) -> Result<Arc<Array>, Violation> {
        let types: Vec<TensorType> = operands.iter().map(|a| a.ty()).collect();
        let refs: Vec<&TensorType> = types.iter().collect();
        let result = crate::infer::infer_types(&op, &refs, self.facts)?;
        let mut results = self
            .apply_op(&op, operands, &result)
            .map_err(|e| Violation::new("composite C6", e.to_string()))?;
        Ok(Arc::new(results.swap_remove(0)))
    }

    fn type_of(&self, value: &Arc<Array>) -> TensorType {
        value.ty()
    }
}

/// Conversion of one element (floats to ints truncate and saturate).
fn convert(value: Value, to: DType) -> Value {
    match (value, to.is_float()) {
        (Value::Int(i), true) => Value::Float(i as f64),
        (v, true) => v,
        (v, false) => crate::scalar::round_to(v, to),
    }
}

fn pointwise(op: ScalarOp, x: &[Arc<Array>], dtype: DType, shape: &[usize]) -> Array {
    let out_strides = strides(shape);
    // Stride of each operand along each output axis: 0 where it broadcasts.
    let steps: Vec<Vec<usize>> = x
        .iter()
        .map(|a| {
            if a.shape.is_empty() {
                return vec![0; shape.len()];
            }
            a.strides().iter().zip(&a.shape).map(|(s, d)| if *d == 1 { 0 } else { *s }).collect()
        })
        .collect();
    let compute = if op == ScalarOp::Select { x[1].dtype } else { x[0].dtype };
    let mut args = vec![Value::Int(0); x.len()];
    Array::build(dtype, shape, |i| {
        for ((arg, a), step) in args.iter_mut().zip(x).zip(&steps) {
            let at: usize = step
                .iter()
                .zip(&out_strides)
                .zip(shape)
                .map(|((s, o), d)| if *s == 0 { 0 } else { (i / o) % d * s })
                .sum();
            *arg = a.get(at);
        }
        op.evaluate(&args, compute)
    })
}
