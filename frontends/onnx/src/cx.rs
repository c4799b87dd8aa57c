//! The import of one model in progress: scopes, the graph under construction, collected problems.
//!
//! Operators see a [`Node`] (current form, operands resolved) and emit through the methods of `emit`.

use std::collections::BTreeMap;
use std::rc::Rc;

use rustc_hash::FxHashMap;
use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::facts::Truth;
use tgc_ir::graph::{Graph, NodeId};
use tgc_ir::tensor::Tensor;

use crate::attr::Attrs;
use crate::diag::{Code, Diagnostic, ImportErrors, NodeRef};
use crate::known::{Decide, Known};
use crate::load::{ExternalFiles, Limits, Model};
use crate::proto::{AttributeProto, FunctionProto, TensorProto};
use crate::region::Outer;
use crate::signature::Symbols;
use crate::tensors;
pub(crate) use crate::value::{OpError, Outputs, Val, Weight};

/// A node in current form with its operands.
pub(crate) struct Node<'a> {
    /// Opset version of the node's domain.
    pub version: i64,
    pub attrs: Attrs<'a>,
    pub inputs: Vec<Option<Val>>,
    /// Names of the results; empty ones are not used.
    pub outputs: &'a [String],
}

impl Node<'_> {
    /// Operand `i`, which must be there.
    pub(crate) fn val(&self, i: usize) -> Result<Val, OpError> {
        self.opt(i).ok_or_else(|| OpError::invalid(format!("lacks operand {i}")))
    }

    /// Operand `i`, if given.
    pub(crate) fn opt(&self, i: usize) -> Option<Val> {
        self.inputs.get(i).cloned().flatten()
    }

    /// Operand `i` as a node of the graph.
    pub(crate) fn node(&self, cx: &mut Cx, i: usize) -> Result<NodeId, OpError> {
        let val = self.val(i)?;
        cx.node(&val)
    }

    /// Operand `i` as a node of the graph, if given.
    pub(crate) fn opt_node(&self, cx: &mut Cx, i: usize) -> Result<Option<NodeId>, OpError> {
        self.opt(i).map(|val| cx.node(&val)).transpose()
    }

    /// True when result `i` is named.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.outputs.get(i).is_some_and(|name| !name.is_empty())
    }
}

/// Names visible to the nodes of one graph or function body.
#[derive(Default)]
pub(crate) struct Scope {
    pub values: FxHashMap<String, Val>,
    /// The enclosing scope of a sub-graph; functions see nothing outside.
    pub parent: Option<usize>,
    /// Number of graphs around the one whose nodes the values are.
    pub level: usize,
}

/// What the nodes of a function body see besides values.
#[derive(Clone, Default)]
pub(crate) struct Env {
    /// Opset versions by domain (empty for `ai.onnx`).
    pub opsets: Rc<BTreeMap<String, i64>>,
    /// Attributes of the function call.
    pub attributes: Rc<Vec<AttributeProto>>,
    /// Prefix of node names within function bodies and unrolled loops.
    pub prefix: Rc<str>,
}

/// The import in progress.
pub(crate) struct Cx<'m> {
    pub graph: Graph,
    /// Graphs that wait while a region is imported, outermost first.
    pub outer: Vec<Outer>,
    pub limits: Limits,
    pub external: ExternalFiles,
    pub functions: BTreeMap<(&'m str, &'m str, &'m str), &'m FunctionProto>,
    pub errors: ImportErrors,
    pub notes: Vec<String>,
    pub scopes: Vec<Scope>,
    pub scope: usize,
    pub env: Env,
    pub symbols: Symbols,
    /// The node being imported, for origins and messages.
    pub current: Option<NodeRef>,
    pub depth: usize,
    pub nodes: usize,
    pub owned_bytes: usize,
}

/// The prover over the facts of a graph.
pub(crate) struct Prover<'a>(pub &'a Graph);

fn answer(truth: Truth) -> Option<bool> {
    match truth {
        Truth::Yes => Some(true),
        Truth::No => Some(false),
        Truth::Unknown => None,
    }
}

impl Decide for Prover<'_> {
    fn equal(&self, a: &Dim, b: &Dim) -> Option<bool> {
        answer(self.0.facts.equal(a, b))
    }
    fn at_most(&self, a: &Dim, b: &Dim) -> Option<bool> {
        answer(self.0.facts.at_most(a, b))
    }
}

impl<'m> Cx<'m> {
    pub(crate) fn new(model: &'m Model) -> Self {
        let functions = model.proto.functions.iter();
        Self {
            graph: Graph::default(),
            outer: Vec::new(),
            limits: model.limits(),
            external: model.external_files(),
            functions: functions
                .map(|f| ((domain_key(&f.domain), f.name.as_str(), f.overload.as_str()), f))
                .collect(),
            errors: ImportErrors::default(),
            notes: Vec::new(),
            scopes: vec![Scope::default()],
            scope: 0,
            env: Env::default(),
            symbols: Symbols::default(),
            current: None,
            depth: 0,
            nodes: 0,
            owned_bytes: 0,
        }
    }

    /// The name of the node being imported, for origins.
    pub(crate) fn origin(&self) -> String {
        self.current.as_ref().map_or_else(|| "model".to_owned(), |n| n.name.clone())
    }

    /// The value of a name, looked up through enclosing sub-graphs, as the current graph can read it.
    pub(crate) fn lookup(&mut self, name: &str) -> Option<Val> {
        let (val, level) = self.find(name)?;
        Some(if level < self.level() { self.bring(val, level) } else { val })
    }

    /// The value of a name and the level of the graph it belongs to.
    pub(crate) fn find(&self, name: &str) -> Option<(Val, usize)> {
        let mut at = Some(self.scope);
        while let Some(index) = at {
            let scope = &self.scopes[index];
            if let Some(val) = scope.values.get(name) {
                return Some((val.clone(), scope.level));
            }
            at = scope.parent;
        }
        None
    }

    /// Defines a name in the current scope; a second definition is a problem of the model.
    pub(crate) fn define(&mut self, name: &str, val: Val) {
        if name.is_empty() {
            return;
        }
        if self.scopes[self.scope].values.insert(name.to_owned(), val).is_some() {
            let message = format!("value `{name}` is defined twice");
            self.errors.push(Diagnostic {
                node: self.current.clone(),
                ..Diagnostic::of_model(Code::DuplicateValue, message)
            });
        }
    }

    /// Runs `body` in a new scope.
    pub(crate) fn scoped<T>(&mut self, sees_outer: bool, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.scope;
        let level = self.level();
        self.scopes.push(Scope { parent: sees_outer.then_some(outer), level, ..Scope::default() });
        self.scope = self.scopes.len() - 1;
        let result = body(self);
        self.scopes.truncate(self.scope);
        self.scope = outer;
        result
    }

    /// Reads a tensor of the model.
    pub(crate) fn read(&mut self, proto: &TensorProto) -> Result<Tensor, OpError> {
        let tensor = tensors::read(proto, &mut self.external)?;
        if proto.raw_data.is_none() && proto.data_location != 1 {
            self.own(tensor.bytes().len())?;
        }
        Ok(tensor)
    }

    /// Charges bytes that are not part of a file.
    pub(crate) fn own(&mut self, bytes: usize) -> Result<(), OpError> {
        self.owned_bytes = self.owned_bytes.saturating_add(bytes);
        if self.owned_bytes > self.limits.owned_bytes {
            return Err(OpError::Limit(format!(
                "needs more than {} bytes of constants",
                self.limits.owned_bytes
            )));
        }
        Ok(())
    }

    /// The value of a tensor that the file holds.
    pub(crate) fn weight(&mut self, name: &str, tensor: Tensor, is_literal: bool) -> Val {
        let limit =
            if tensor.dtype().is_float() { FLOATS_KNOWN_MAX } else { crate::known::MAX_ELEMENTS };
        let known =
            (tensor.len() <= limit).then(|| Known::of_tensor(&tensor)).flatten().map(Rc::new);
        Val::Weight(Rc::new(Weight { name: name.to_owned(), tensor, is_literal, known }))
    }

    /// The elements of a value, when import knows them.
    pub(crate) fn known(&self, val: &Val) -> Option<Rc<Known>> {
        match val {
            Val::Known(known) | Val::Traced(_, known) => Some(known.clone()),
            Val::Weight(weight) => weight.known.clone(),
            _ => None,
        }
    }

    /// The elements of every operand, when import knows them all.
    pub(crate) fn all_known(&self, vals: &[Val]) -> Option<Vec<Rc<Known>>> {
        vals.iter().map(|v| self.known(v)).collect()
    }

    /// Operand `index` as integer dims.
    pub(crate) fn dims(
        &self,
        n: &Node,
        index: usize,
        what: &'static str,
    ) -> Result<Vec<Dim>, OpError> {
        let val = n.val(index)?;
        if matches!(val, Val::Broken) {
            return Err(OpError::Broken);
        }
        self.known(&val).and_then(|k| k.to_dims()).ok_or(OpError::NotConstant { index, what })
    }

    /// Operand `index` as integers.
    pub(crate) fn ints(
        &self,
        n: &Node,
        index: usize,
        what: &'static str,
    ) -> Result<Vec<i64>, OpError> {
        let dims = self.dims(n, index, what)?;
        dims.iter()
            .map(Dim::as_const)
            .collect::<Option<_>>()
            .ok_or(OpError::NotConstant { index, what })
    }

    /// Optional operand `index` as integers.
    pub(crate) fn opt_ints(
        &self,
        n: &Node,
        index: usize,
        what: &'static str,
    ) -> Result<Option<Vec<i64>>, OpError> {
        if n.opt(index).is_some() { self.ints(n, index, what).map(Some) } else { Ok(None) }
    }

    /// Operand `index` as numbers; tensors of any size are read.
    pub(crate) fn floats(
        &self,
        n: &Node,
        index: usize,
        what: &'static str,
    ) -> Result<Vec<f64>, OpError> {
        let val = n.val(index)?;
        match &val {
            Val::Broken => return Err(OpError::Broken),
            Val::Weight(w) => return Ok(w.tensor.to_f64()),
            _ => {}
        }
        self.known(&val).and_then(|k| k.to_f64()).ok_or(OpError::NotConstant { index, what })
    }

    /// Element type of a tensor value.
    pub(crate) fn dtype(&self, val: &Val) -> Result<DType, OpError> {
        match val {
            Val::Node(id) | Val::Traced(id, _) => Ok(self.graph.ty(*id).dtype),
            Val::Known(known) => Ok(known.dtype),
            Val::Weight(weight) => Ok(weight.tensor.dtype()),
            Val::Broken => Err(OpError::Broken),
            Val::Sequence(..) => Err(OpError::invalid("takes a tensor where a sequence is given")),
            Val::Optional(_) => Err(OpError::invalid("takes a tensor where an optional is given")),
        }
    }

    /// Extents of a tensor value.
    pub(crate) fn extents(&self, val: &Val) -> Result<Vec<Dim>, OpError> {
        let numbers = |s: &[usize]| s.iter().map(|&d| Dim::Const(d as i64)).collect();
        match val {
            Val::Node(id) | Val::Traced(id, _) => Ok(self.graph.ty(*id).shape.to_vec()),
            Val::Known(known) => Ok(numbers(&known.shape)),
            Val::Weight(weight) => Ok(numbers(weight.tensor.shape())),
            other => self.dtype(other).map(|_| Vec::new()),
        }
    }

    /// The type of a value, for messages.
    pub(crate) fn describe(&self, val: &Val) -> String {
        match val {
            Val::Sequence(items, dtype) => format!("sequence of {} {dtype} tensors", items.len()),
            Val::Optional(_) => "optional".to_owned(),
            Val::Broken => "a value that could not be imported".to_owned(),
            tensor => match (self.dtype(tensor), self.extents(tensor)) {
                (Ok(dtype), Ok(shape)) => tgc_ir::types::TensorType::new(dtype, shape).to_string(),
                _ => "a value".to_owned(),
            },
        }
    }
}

/// Float tensors with more elements are left to the graph, so that weights keep their names.
const FLOATS_KNOWN_MAX: usize = 8;

/// `ai.onnx` and the empty domain are one.
pub(crate) fn domain_key(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}
