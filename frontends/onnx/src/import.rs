//! From a decoded model to a typed graph: the walk over nodes.
//!
//! Problems do not stop the walk: the results of a node that failed are marked broken, their readers are passed over,
//! and everything found is reported at once.

use std::collections::BTreeMap;
use std::rc::Rc;

use tgc_ir::dim::Dim;
use tgc_ir::graph::{ElementSymbol, Graph};
use tgc_ir::tensor::Tensor;

use crate::attr::Attrs;
use crate::cx::{Cx, Env, Node, OpError, Outputs, Val, domain_key};
use crate::diag::{Code, Diagnostic, ImportErrors, NodeRef};
use crate::known::{Elem, Known};
use crate::load::Model;
use crate::ops::{self, Lower};
use crate::opset;
use crate::proto::{AttributeProto, FunctionProto, GraphProto, NodeProto, OperatorSetIdProto};
use crate::signature;
use crate::tensors;

/// Opset versions of the default domain that are read.
const OPSETS: std::ops::RangeInclusive<i64> = 1..=28;
/// Nesting of function calls and sub-graphs.
const DEPTH_MAX: usize = 64;
/// Integer inputs of at most this many elements may determine shapes.
const ELEMENT_SYMBOLS_MAX: i64 = 8;

/// What the importer may take for granted.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Inputs that have one value for good; they are no inputs of the graph.
    pub fixed_inputs: BTreeMap<String, Tensor>,
}

/// An imported model.
#[derive(Debug)]
pub struct Imported {
    /// The graph; inputs and outputs in the order of the model.
    pub graph: Graph,
    /// Choices that a user should know of, one sentence each.
    pub notes: Vec<String>,
}

/// Imports a model.
///
/// # Errors
/// [`ImportErrors`] with every problem found.
pub fn import(model: &Model) -> Result<Imported, ImportErrors> {
    import_with(model, &Options::default())
}

/// Imports a model with options.
///
/// # Errors
/// [`ImportErrors`] with every problem found.
pub fn import_with(model: &Model, options: &Options) -> Result<Imported, ImportErrors> {
    let _span = tracing::info_span!("import", path = %model.path.display()).entered();
    let mut cx = Cx::new(model);
    let Some(graph) = model.proto.graph.as_ref() else {
        cx.errors.push(Diagnostic::of_model(Code::Signature, "the model holds no graph"));
        return Err(cx.errors);
    };
    cx.graph.name.clone_from(&graph.name);
    cx.env.opsets = Rc::new(cx.opsets(&model.proto.opset_import));
    cx.define_weights(graph);
    cx.define_inputs(graph, options);
    cx.walk(&graph.node);
    cx.current = None;
    cx.define_outputs(graph);
    if !cx.errors.is_empty() {
        return Err(cx.errors);
    }
    let mut pruned = cx.graph.pruned();
    keep_used_symbols(&mut pruned);
    Ok(Imported { graph: pruned, notes: cx.notes })
}

/// Drops element symbols that no live node and no requirement mentions.
fn keep_used_symbols(graph: &mut Graph) {
    let mut used = std::collections::BTreeSet::new();
    for id in graph.ids() {
        for ty in graph.types(id) {
            ty.shape.iter().for_each(|d| d.collect_symbols(&mut used));
        }
        for attr in graph.op(id).attrs() {
            crate::symbols_of::attr(&attr, &mut used);
        }
    }
    for require in graph.facts.requires() {
        require.lhs.collect_symbols(&mut used);
        require.rhs.collect_symbols(&mut used);
    }
    graph.data_symbols.iter().for_each(|(_, bound)| bound.collect_symbols(&mut used));
    graph.element_symbols.retain(|e| used.contains(&e.symbol));
}

impl Cx<'_> {
    /// Operator sets by domain; problems are noted.
    fn opsets(&mut self, imports: &[OperatorSetIdProto]) -> BTreeMap<String, i64> {
        let mut out = BTreeMap::new();
        for import in imports {
            let domain = domain_key(&import.domain);
            if domain.is_empty() && !OPSETS.contains(&import.version) {
                let message = format!("the model uses opset {} of ai.onnx", import.version);
                let help =
                    Some(format!("opsets {} to {} are supported", OPSETS.start(), OPSETS.end()));
                self.errors.push(Diagnostic { help, ..Diagnostic::of_model(Code::Opset, message) });
            }
            out.insert(domain.to_owned(), import.version);
        }
        out
    }

    fn define_weights(&mut self, graph: &GraphProto) {
        for proto in &graph.initializer {
            match self.read(proto) {
                Ok(tensor) => {
                    let val = self.weight(&proto.name, tensor, false);
                    self.define(&proto.name, val);
                }
                Err(error) => {
                    self.tensor_problem(&proto.name, error);
                    self.define(&proto.name, Val::Broken);
                }
            }
        }
        for sparse in &graph.sparse_initializer {
            let name = sparse.values.as_ref().map_or("", |v| v.name.as_str());
            let limit = self.limits.owned_bytes.saturating_sub(self.owned_bytes);
            match tensors::read_sparse(sparse, &mut self.external, limit).map_err(OpError::from) {
                Ok(tensor) => {
                    let val = self.weight(name, tensor, false);
                    self.define(name, val);
                }
                Err(error) => {
                    self.tensor_problem(name, error);
                    self.define(name, Val::Broken);
                }
            }
        }
    }

    fn tensor_problem(&mut self, name: &str, error: OpError) {
        let message = match error {
            OpError::Tensor(m)
            | OpError::Unsupported(m)
            | OpError::Limit(m)
            | OpError::Invalid(m) => m,
            OpError::NotConstant { .. } | OpError::Broken => return,
        };
        self.errors
            .push(Diagnostic::of_model(Code::Tensor, format!("initializer `{name}` {message}")));
    }

    fn define_inputs(&mut self, graph: &GraphProto, options: &Options) {
        let is_weight = |cx: &Self, name: &str| cx.scopes[0].values.contains_key(name);
        let inputs: Vec<_> =
            graph.input.iter().filter(|i| !is_weight(self, &i.name)).cloned().collect();
        self.symbols.declare(&inputs);
        for info in &inputs {
            if let Some(tensor) = options.fixed_inputs.get(&info.name) {
                let val = self.fixed(tensor);
                self.define(&info.name, val);
                continue;
            }
            match signature::input_type(info, &mut self.symbols, &mut self.graph.facts) {
                Ok(ty) => {
                    let id = self.graph.input(&info.name, ty);
                    let val = self.traced_input(id, &info.name).unwrap_or(Val::Node(id));
                    self.define(&info.name, val);
                }
                Err(message) => {
                    self.errors.push(Diagnostic::of_model(Code::Signature, message));
                    self.define(&info.name, Val::Broken);
                }
            }
        }
    }

    /// A value given from outside: as readable as import can make it.
    fn fixed(&mut self, tensor: &Tensor) -> Val {
        match Known::of_tensor(tensor) {
            Some(known) => known.into(),
            None => self.weight("fixed", tensor.clone(), false),
        }
    }

    /// A small integer vector may determine shapes: its elements get symbols beside the data.
    fn traced_input(&mut self, id: tgc_ir::NodeId, name: &str) -> Option<Val> {
        let ty = self.graph.ty(id).clone();
        let shape = ty.const_shape()?;
        let total = shape.iter().try_fold(1i64, |n, d| n.checked_mul(*d))?;
        if !ty.dtype.is_int() || shape.len() > 1 || total > ELEMENT_SYMBOLS_MAX {
            return None;
        }
        let input = self.graph.inputs().iter().position(|i| *i == id)?;
        let mut elems = Vec::new();
        for element in 0..total as usize {
            let symbol = self.symbols.fresh(&format!("{name}_{element}"));
            self.graph.element_symbols.push(ElementSymbol {
                symbol: symbol.clone(),
                input,
                element,
            });
            elems.push(Elem::Int(Dim::from(&symbol)));
        }
        let shape = shape.iter().map(|&d| d as usize).collect();
        Some(Val::Traced(id, Rc::new(Known { dtype: ty.dtype, shape, elems })))
    }

    fn define_outputs(&mut self, graph: &GraphProto) {
        for info in &graph.output {
            if signature::is_not_tensor(info.r#type.as_ref()) {
                let message =
                    format!("output `{}` is not a tensor; only tensors are supported", info.name);
                self.errors.push(Diagnostic::of_model(Code::Signature, message));
                continue;
            }
            match self.lookup(&info.name).map(|v| self.node(&v)) {
                Some(Ok(node)) => self.graph.output(&info.name, node),
                Some(Err(OpError::Broken)) => {}
                Some(Err(_)) => {
                    let message = format!(
                        "output `{}` is a sequence or an optional; only tensors are supported",
                        info.name
                    );
                    self.errors.push(Diagnostic::of_model(Code::Signature, message));
                }
                None => {
                    let message = format!("output `{}` is defined by no node", info.name);
                    self.errors.push(Diagnostic::of_model(Code::UndefinedValue, message));
                }
            }
        }
    }

    /// Imports nodes in order.
    pub(crate) fn walk(&mut self, nodes: &[NodeProto]) {
        for node in nodes {
            let outer = self.current.take();
            self.visit(node);
            self.current = outer;
        }
    }

    /// Imports one node; its results are defined in any case.
    fn visit(&mut self, proto: &NodeProto) {
        let domain = domain_key(&proto.domain).to_owned();
        let version = self.env.opsets.get(&domain).copied().unwrap_or(0);
        let name = if proto.name.is_empty() {
            proto.output.iter().find(|o| !o.is_empty())
        } else {
            Some(&proto.name)
        };
        let name = format!("{}{}", self.env.prefix, name.map_or("", String::as_str));
        self.locate(&name);
        self.current = Some(NodeRef {
            name,
            op_type: proto.op_type.clone(),
            domain: domain.clone(),
            opset: version,
        });
        self.nodes += 1;
        let result = if self.nodes > self.limits.nodes {
            Err(OpError::Limit(format!("is one of more than {} nodes", self.limits.nodes)))
        } else {
            self.dispatch(proto, &domain, version)
        };
        let mut values = match result {
            Ok(values) => values,
            Err(error) => {
                self.report(error, proto);
                Vec::new()
            }
        };
        values.resize(proto.output.len().max(values.len()), Val::Broken);
        for (name, val) in proto.output.iter().zip(values) {
            self.define(name, val);
        }
    }

    fn dispatch(
        &mut self,
        proto: &NodeProto,
        domain: &str,
        version: i64,
    ) -> Result<Outputs, OpError> {
        let attributes = resolve(&proto.attribute, &self.env);
        let key = (domain, proto.op_type.as_str(), proto.overload.as_str());
        if let Some(&function) = self.functions.get(&key) {
            let inputs = self.operands(proto)?;
            return self.call(function, inputs, attributes);
        }
        let node = NodeProto { attribute: attributes, ..proto.clone() };
        let upgraded = opset::upgrade(&node, if domain.is_empty() { version } else { i64::MAX })?;
        let Some(op) = ops::find(domain, &proto.op_type) else {
            return Err(OpError::Unsupported(String::new()));
        };
        if domain.is_empty() && !self.env.opsets.contains_key("") {
            return Err(OpError::invalid(
                "belongs to ai.onnx, of which the model imports no opset",
            ));
        }
        let given = self.operands(proto)?;
        let mut inputs: Vec<Option<Val>> = upgraded
            .inputs
            .iter()
            .map(|i| i.and_then(|i| given.get(i).cloned().flatten()))
            .collect();
        for (position, tensor, like_data) in upgraded.added {
            if inputs.len() <= position {
                inputs.resize(position + 1, None);
            }
            let dtype = if like_data {
                inputs.first().cloned().flatten().map(|v| self.dtype(&v))
            } else {
                None
            };
            let known = Known::of_tensor(&tensor).and_then(|k| match dtype {
                Some(Ok(to)) => k.cast(to, |_| true),
                _ => Some(k),
            });
            inputs[position] = known.map(Val::from);
        }
        let mut attributes = node.attribute;
        attributes.extend(upgraded.implied);
        let node = Node { version, attrs: Attrs(&attributes), inputs, outputs: &proto.output };
        self.lower(op, node)
    }

    fn operands(&mut self, proto: &NodeProto) -> Result<Vec<Option<Val>>, OpError> {
        let mut out = Vec::with_capacity(proto.input.len());
        let mut broken = false;
        for name in &proto.input {
            if name.is_empty() {
                out.push(None);
                continue;
            }
            match self.lookup(name) {
                Some(Val::Broken) => broken = true,
                Some(val) => out.push(Some(val)),
                None => {
                    let message = format!("reads `{name}`, which nothing defines before it");
                    let help =
                        Some("nodes must stand in topological order; a cycle has none".to_owned());
                    let diagnostic = Diagnostic::of_model(Code::UndefinedValue, message);
                    self.errors.push(Diagnostic { node: self.current.clone(), help, ..diagnostic });
                    broken = true;
                }
            }
        }
        if broken { Err(OpError::Broken) } else { Ok(out) }
    }

    /// Lowers a node. Operands that are traced are tried as data and as dims: data wins where the results are data.
    fn lower(&mut self, op: &ops::OnnxOp, mut node: Node) -> Result<Outputs, OpError> {
        let traced = |v: &Option<Val>| matches!(v, Some(Val::Traced(..)));
        if !node.inputs.iter().any(traced) {
            return self.apply(op, &node);
        }
        let given = node.inputs.clone();
        let with = |as_dims: bool| {
            let pick = |v: &Option<Val>| match v {
                Some(Val::Traced(_, known)) if as_dims => Some(Val::Known(known.clone())),
                Some(Val::Traced(id, _)) => Some(Val::Node(*id)),
                other => other.clone(),
            };
            given.iter().map(pick).collect::<Vec<_>>()
        };
        node.inputs = with(false);
        let data = self.apply(op, &node);
        node.inputs = with(true);
        let errors = self.errors.diagnostics.len();
        let facts = self.graph.facts.clone();
        let dims = self.apply(op, &node);
        let all_known =
            matches!(&dims, Ok(values) if values.iter().all(|v| matches!(v, Val::Known(_))));
        match (data, dims) {
            (Ok(data), Ok(dims)) if all_known => {
                Ok(data.into_iter().zip(dims).map(|(d, k)| trace(d, k)).collect())
            }
            (Ok(data), _) => {
                self.errors.diagnostics.truncate(errors);
                self.graph.facts = facts;
                Ok(data)
            }
            (Err(_), Ok(dims)) => {
                self.bound_sizes(&given);
                Ok(dims)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    /// Elements that determine shapes are sizes: binding refuses negative ones.
    fn bound_sizes(&mut self, operands: &[Option<Val>]) {
        for val in operands.iter().flatten() {
            if let Val::Traced(_, known) = val {
                for symbol in known.elems.iter().filter_map(Elem::dim).flat_map(Dim::symbols) {
                    if self.graph.facts.bounds_of(&symbol).is_none() {
                        let bounds = tgc_ir::facts::Bounds { low: 0, high: None, multiple_of: 1 };
                        self.graph.facts.bound(symbol, bounds);
                    }
                }
            }
        }
    }

    fn apply(&mut self, op: &ops::OnnxOp, node: &Node) -> Result<Outputs, OpError> {
        match op.lower {
            Lower::Call(lower) => lower(self, node),
            Lower::Scalar(scalar) => {
                let operands =
                    (0..scalar.arity()).map(|i| node.val(i)).collect::<Result<Vec<_>, _>>()?;
                let operands = self.legacy_broadcast(node, operands)?;
                Ok(vec![self.scalar(scalar, &operands)?])
            }
        }
    }

    /// Before opset 7, binary operators broadcast their second operand from an axis on, and only when told to.
    fn legacy_broadcast(
        &mut self,
        node: &Node,
        mut operands: Vec<Val>,
    ) -> Result<Vec<Val>, OpError> {
        if node.version >= 7 || operands.len() != 2 || !node.attrs.has("axis") {
            return Ok(operands);
        }
        let (a, b) = (self.extents(&operands[0])?, self.extents(&operands[1])?);
        let axis = self.axis(node.attrs.int_or("axis", 0)?, a.len())?;
        let trailing = a.len().saturating_sub(axis + b.len());
        let mut to = b;
        to.extend(std::iter::repeat_n(Dim::ONE, trailing));
        operands[1] = self.reshape_val(&operands[1], &to)?;
        Ok(operands)
    }

    /// Inlines a function call.
    fn call(
        &mut self,
        function: &FunctionProto,
        inputs: Vec<Option<Val>>,
        mut attributes: Vec<AttributeProto>,
    ) -> Result<Outputs, OpError> {
        if self.depth >= DEPTH_MAX {
            return Err(OpError::Limit(format!(
                "nests function calls deeper than {DEPTH_MAX} levels"
            )));
        }
        for default in &function.attribute_proto {
            if !attributes.iter().any(|a| a.name == default.name) {
                attributes.push(default.clone());
            }
        }
        let mut opsets = (*self.env.opsets).clone();
        let own = self.opsets(&function.opset_import);
        opsets.extend(own);
        let prefix = format!("{}/", self.origin());
        let env = Env {
            opsets: Rc::new(opsets),
            attributes: Rc::new(attributes),
            prefix: Rc::from(prefix),
        };
        let outer = std::mem::replace(&mut self.env, env);
        let scope = self.scope;
        self.depth += 1;
        let results = self.scoped(false, |cx| {
            for (name, val) in
                function.input.iter().zip(inputs.into_iter().chain(std::iter::repeat(None)))
            {
                // An operand that is left out is the empty optional inside.
                cx.define(name, val.unwrap_or(Val::Optional(None)));
            }
            cx.walk(&function.node);
            function
                .output
                .iter()
                .map(|name| cx.lookup(name).unwrap_or(Val::Broken))
                .collect::<Vec<_>>()
        });
        self.depth -= 1;
        debug_assert_eq!(scope, self.scope);
        self.env = outer;
        Ok(results)
    }

    /// Imports a sub-graph in a scope of its own that sees the outer one; gives its outputs.
    pub(crate) fn inline(
        &mut self,
        graph: &GraphProto,
        inputs: &[Val],
    ) -> Result<Vec<Val>, OpError> {
        if self.depth >= DEPTH_MAX {
            return Err(OpError::Limit(format!("nests sub-graphs deeper than {DEPTH_MAX} levels")));
        }
        self.depth += 1;
        let origin = self.current.clone();
        let results = self.scoped(true, |cx| {
            cx.define_weights(graph);
            for (info, val) in graph.input.iter().zip(inputs) {
                cx.define(&info.name, val.clone());
            }
            cx.walk(&graph.node);
            graph
                .output
                .iter()
                .map(|o| cx.lookup(&o.name).unwrap_or(Val::Broken))
                .collect::<Vec<_>>()
        });
        self.current = origin;
        self.depth -= 1;
        Ok(results)
    }

    /// Turns a failure into a diagnostic.
    fn report(&mut self, error: OpError, proto: &NodeProto) {
        let operands = || {
            let line = |(i, name): (usize, &String)| {
                self.find(name)
                    .filter(|(_, level)| *level == self.level())
                    .map(|(v, _)| format!("operand {i} `{name}` is {}", self.describe(&v)))
            };
            proto
                .input
                .iter()
                .enumerate()
                .filter(|(_, n)| !n.is_empty())
                .filter_map(line)
                .collect::<Vec<_>>()
        };
        let (code, message, operands, help) = match error {
            OpError::Broken => return,
            OpError::Unsupported(m) if m.is_empty() => {
                let (message, help) = self.unknown(proto);
                (Code::UnknownOperator, message, Vec::new(), help)
            }
            OpError::Unsupported(m) => (Code::Unsupported, m, operands(), None),
            OpError::Invalid(m) => (Code::Invalid, m, operands(), None),
            OpError::Tensor(m) => (Code::Tensor, m, Vec::new(), None),
            OpError::Limit(m) => (Code::Limit, m, Vec::new(), None),
            OpError::NotConstant { index, what } => {
                let name = proto.input.get(index).cloned().unwrap_or_default();
                let message =
                    format!("needs {what} (operand {index}, `{name}`) to be known when compiling");
                let help = "it may depend on the shapes of inputs, not on their contents; make it an initializer, or \
                            fix the input it comes from";
                (Code::NotConstant, message, operands(), Some(help.to_owned()))
            }
        };
        let node = self.current.clone();
        self.errors.push(Diagnostic { code, node, message, operands, help, also: Vec::new() });
    }

    fn unknown(&self, proto: &NodeProto) -> (String, Option<String>) {
        let domain = domain_key(&proto.domain);
        if domain.contains("aten") || proto.op_type == "ATen" {
            let help = "it is a fallback of the PyTorch exporter; export with operator_export_type=ONNX or the dynamo exporter";
            return ("is not an ONNX operator".to_owned(), Some(help.to_owned()));
        }
        let help = ops::similar(domain, &proto.op_type).map_or_else(
            || "`tgc ops` lists what is supported; a model-local function of the same name would be inlined".to_owned(),
            |name| format!("did you mean `{name}`?"),
        );
        ("is not an operator that is supported".to_owned(), Some(help))
    }
}

/// Data and its elements as dims, when the value is a tensor node.
fn trace(data: Val, known: Val) -> Val {
    match (data, known) {
        (Val::Node(id), Val::Known(known)) => Val::Traced(id, known),
        (data, _) => data,
    }
}

/// Attributes of a node with references to those of the enclosing function call replaced.
fn resolve(attributes: &[AttributeProto], env: &Env) -> Vec<AttributeProto> {
    attributes
        .iter()
        .filter_map(|a| {
            if a.ref_attr_name.is_empty() {
                return Some(a.clone());
            }
            let given = env.attributes.iter().find(|g| g.name == a.ref_attr_name)?;
            Some(AttributeProto { name: a.name.clone(), ..given.clone() })
        })
        .collect()
}
