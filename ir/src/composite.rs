//! Composite ops: ops with a body in other ops, read from `composites.tgir`.
//!
//! The body is run by [`CompositeOp::expand`] over anything that can apply
//! ops: a graph (unfusing) or types alone (the type rule).

use std::fmt;
use std::sync::OnceLock;

use smallvec::SmallVec;

use crate::attr::{Attr, AttrKind};
use crate::dim::Dim;
use crate::dtype::DType;
use crate::facts::Facts;
use crate::graph::{Graph, NodeId, ResultTypes};
use crate::infer::{Violation, infer_types};
use crate::kernel_program::ScalarConst;
use crate::op::Op;
use crate::types::TensorType;

/// A composite with attribute values.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompositeOp {
    index: u16,
    /// In the order of its schema.
    pub attrs: SmallVec<[Attr; 2]>,
}

/// One entry of the registry.
#[derive(Debug)]
pub struct Composite {
    /// Name in text forms.
    pub name: &'static str,
    /// Operand names.
    pub operands: Vec<&'static str>,
    /// Attribute names and kinds.
    pub attrs: Vec<(&'static str, AttrKind)>,
    /// Comment above the definition: meaning and source.
    pub doc: String,
    body: Vec<(&'static str, Expr)>,
}

/// An expression of a body.
#[derive(Debug, Clone)]
pub enum Expr {
    /// A literal.
    Number(f64),
    /// An operand, an earlier result or a constant attribute.
    Name(&'static str),
    /// An op on operands with attributes.
    Call(&'static str, Vec<Expr>, Vec<(&'static str, AttrExpr)>),
}

/// The value of an attribute in a body.
#[derive(Debug, Clone)]
pub enum AttrExpr {
    /// Text of the attribute's kind, or the name of an attribute of the composite.
    Text(&'static str),
    /// `acc(x)`: the accumulator type of a value.
    Accumulator(&'static str),
    /// `type(x)`: the element type of a value.
    TypeOf(&'static str),
}

/// The registry, in file order.
pub fn all() -> &'static [Composite] {
    static ALL: OnceLock<Vec<Composite>> = OnceLock::new();
    ALL.get_or_init(|| parse_file(include_str!("../composites.tgir")))
}

/// Attribute names and kinds of a composite.
pub fn schema(name: &str) -> Option<Vec<(&'static str, AttrKind)>> {
    all().iter().find(|c| c.name == name).map(|c| c.attrs.clone())
}

/// Something that ops can be applied to.
pub trait Apply {
    /// A value.
    type Value: Clone;
    /// Applies an op.
    fn apply(&mut self, op: Op, operands: &[Self::Value]) -> Result<Self::Value, Violation>;
    /// The type of a value.
    fn type_of(&self, value: &Self::Value) -> TensorType;
}

impl Apply for Graph {
    type Value = NodeId;
    fn apply(&mut self, op: Op, operands: &[NodeId]) -> Result<NodeId, Violation> {
        self.add(op, operands)
    }
    fn type_of(&self, value: &NodeId) -> TensorType {
        self.ty(*value).clone()
    }
}

/// Types instead of values.
struct Types<'a>(&'a Facts);

impl Apply for Types<'_> {
    type Value = TensorType;
    fn apply(&mut self, op: Op, operands: &[TensorType]) -> Result<TensorType, Violation> {
        let operands: Vec<&TensorType> = operands.iter().collect();
        infer_types(&op, &operands, self.0).map(|mut types| types.remove(0))
    }
    fn type_of(&self, value: &TensorType) -> TensorType {
        value.clone()
    }
}

impl CompositeOp {
    /// The composite of a name; `None` when there is none or attributes do not
    /// fit its schema.
    pub fn new(name: &str, attrs: &[Attr]) -> Option<CompositeOp> {
        let index = all().iter().position(|c| c.name == name)?;
        let schema = &all()[index].attrs;
        let fits = schema.len() == attrs.len()
            && schema.iter().zip(attrs).all(|((_, kind), a)| a.kind() == *kind);
        fits.then(|| CompositeOp { index: index as u16, attrs: attrs.iter().cloned().collect() })
    }

    /// Its entry.
    pub fn record(&self) -> &'static Composite {
        &all()[self.index as usize]
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.record().name
    }

    /// The value of a named attribute.
    pub fn attr(&self, name: &str) -> Option<&Attr> {
        self.record().attrs.iter().position(|(n, _)| *n == name).map(|at| &self.attrs[at])
    }

    /// The attribute `axes`, when the op has it.
    pub fn axes(&self) -> Option<&[i64]> {
        match self.attr("axes") {
            Some(Attr::Ints(axes)) => Some(axes),
            _ => None,
        }
    }

    /// Runs the body, one level deep: composites inside stay.
    pub fn expand<A: Apply>(
        &self,
        target: &mut A,
        operands: &[A::Value],
    ) -> Result<A::Value, Violation> {
        let record = self.record();
        if operands.len() != record.operands.len() {
            let message = format!(
                "`{}` takes {} operands, found {}",
                record.name,
                record.operands.len(),
                operands.len()
            );
            return Err(Violation::new("operand C2", message));
        }
        let mut scope: Vec<(&'static str, A::Value)> =
            record.operands.iter().copied().zip(operands.iter().cloned()).collect();
        for (name, expr) in &record.body {
            let value = self.evaluate(expr, target, &scope, None)?;
            scope.push((name, value));
        }
        Ok(scope.pop().map(|(_, v)| v).expect("a body ends in yield"))
    }

    /// The result type by running the body over types.
    pub fn infer(&self, operands: &[&TensorType], facts: &Facts) -> Result<ResultTypes, Violation> {
        let operands: Vec<TensorType> = operands.iter().map(|t| (*t).clone()).collect();
        let ty = self.expand(&mut Types(facts), &operands)?;
        Ok(smallvec::smallvec![ty])
    }

    fn evaluate<A: Apply>(
        &self,
        expr: &Expr,
        target: &mut A,
        scope: &[(&'static str, A::Value)],
        like: Option<DType>,
    ) -> Result<A::Value, Violation> {
        let literal = |value: ScalarConst, target: &mut A| {
            let dtype = like.unwrap_or(DType::F32);
            let value = if dtype.is_float() {
                ScalarConst::float(value.as_f64())
            } else {
                ScalarConst::Int(value.as_f64() as i64)
            };
            target.apply(Op::Splat { value, dtype }, &[])
        };
        match expr {
            Expr::Number(x) => literal(ScalarConst::float(*x), target),
            Expr::Name(name) => match lookup(scope, name) {
                Some(value) => Ok(value.clone()),
                None => match self.attr(name) {
                    Some(Attr::Const(value)) => literal(*value, target),
                    _ => Err(Violation::new(
                        "composite C2",
                        format!("`{name}` is unknown in `{}`", self.name()),
                    )),
                },
            },
            Expr::Call("count", args, attrs) => self.count(args, attrs, target, scope),
            Expr::Call(name, args, attrs) => {
                let mut values: Vec<Option<A::Value>> = Vec::new();
                let mut dtype = None;
                for arg in args {
                    let is_literal = matches!(arg, Expr::Number(_))
                        || matches!(arg, Expr::Name(n) if lookup(scope, n).is_none());
                    let value = if is_literal {
                        None
                    } else {
                        Some(self.evaluate(arg, target, scope, None)?)
                    };
                    if let Some(value) = &value
                        && (dtype.is_none() || dtype == Some(DType::Bool))
                    {
                        dtype = Some(target.type_of(value).dtype);
                    }
                    values.push(value);
                }
                let mut operands = Vec::new();
                for (arg, value) in args.iter().zip(values) {
                    operands.push(match value {
                        Some(value) => value,
                        None => self.evaluate(arg, target, scope, dtype)?,
                    });
                }
                let attrs = self.attributes(name, attrs, target, scope)?;
                let op = Op::from_attrs(name, &attrs)
                    .map_err(|e| Violation::new("composite C3", e.to_string()))?;
                if let (Op::Cast { to }, [x]) = (&op, operands.as_slice())
                    && target.type_of(x).dtype == *to
                {
                    return Ok(x.clone());
                }
                target.apply(op, &operands)
            }
        }
    }

    fn attributes<A: Apply>(
        &self,
        op: &'static str,
        given: &[(&'static str, AttrExpr)],
        target: &A,
        scope: &[(&'static str, A::Value)],
    ) -> Result<Vec<Attr>, Violation> {
        let unknown = |name: &str| {
            Violation::new(
                "composite C4",
                format!("attribute `{name}` of `{op}` in `{}`", self.name()),
            )
        };
        let schema = Op::schema(op).ok_or_else(|| unknown("*"))?;
        let mut attrs = Vec::new();
        for (name, kind) in schema {
            let expr = given
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, e)| e)
                .ok_or_else(|| unknown(name))?;
            let dtype_of = |n: &str| {
                lookup(scope, n).map(|v| target.type_of(v).dtype).ok_or_else(|| unknown(n))
            };
            attrs.push(match expr {
                AttrExpr::Accumulator(n) => Attr::DType(dtype_of(n)?.accumulator()),
                AttrExpr::TypeOf(n) => Attr::DType(dtype_of(n)?),
                AttrExpr::Text(text) => match self.attr(text) {
                    Some(attr) => attr.clone(),
                    None => Attr::parse(kind, text).ok_or_else(|| unknown(name))?,
                },
            });
        }
        Ok(attrs)
    }

    /// The number of elements along axes, as a rank-0 value of the operand's type.
    fn count<A: Apply>(
        &self,
        args: &[Expr],
        attrs: &[(&'static str, AttrExpr)],
        target: &mut A,
        scope: &[(&'static str, A::Value)],
    ) -> Result<A::Value, Violation> {
        let wrong = || Violation::new("composite C5", format!("`count` in `{}`", self.name()));
        let x = self.evaluate(args.first().ok_or_else(wrong)?, target, scope, None)?;
        let axes = match attrs {
            [("axes", AttrExpr::Text(text))] => match self.attr(text) {
                Some(Attr::Ints(axes)) => axes.clone(),
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        let ty = target.type_of(&x);
        let mut count = Dim::ONE;
        for axis in axes {
            let extent = usize::try_from(axis).ok().and_then(|a| ty.shape.get(a));
            count = count
                * extent
                    .ok_or_else(|| Violation::new("axis C1", format!("axis {axis} of {ty}")))?
                    .clone();
        }
        match count.as_const() {
            Some(n) => target.apply(Op::splat(n as f64, ty.dtype), &[]),
            None => {
                let n = target.apply(Op::DimValue { value: count }, &[])?;
                target.apply(Op::Cast { to: ty.dtype }, &[n])
            }
        }
    }
}

fn lookup<'a, V>(scope: &'a [(&'static str, V)], name: &str) -> Option<&'a V> {
    scope.iter().rev().find(|(n, _)| *n == name).map(|(_, v)| v)
}

impl fmt::Debug for CompositeOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.name(), self.attrs)
    }
}

/// Body of a composite for readers that match on it (rule generation).
impl Composite {
    /// Statements: (name, expression); the last is the result.
    pub fn body(&self) -> &[(&'static str, Expr)] {
        &self.body
    }
}

fn parse_file(text: &'static str) -> Vec<Composite> {
    let mut out: Vec<Composite> = Vec::new();
    let mut doc = String::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            doc = format!("{doc} {}", comment.trim()).trim().to_owned();
        } else if line.is_empty() {
            doc.clear();
        } else if let Some(header) = line.strip_prefix("composite ") {
            out.push(parse_header(header, std::mem::take(&mut doc)));
        } else if line != "}" {
            let (name, expr) = match line.strip_prefix("yield ") {
                Some(expr) => ("yield", expr),
                None => line
                    .split_once(" = ")
                    .expect("a statement is `name = expression` or `yield expression`"),
            };
            let current = out.last_mut().expect("statements follow a header");
            current.body.push((name, parse_expr(expr)));
        }
    }
    out
}

fn parse_header(header: &'static str, doc: String) -> Composite {
    let (name, rest) = header.split_once('(').expect("a header is `name(operands) attributes {`");
    let (operands, attrs) = rest.split_once(')').expect("operands end in `)`");
    let attrs = attrs
        .trim()
        .trim_end_matches('{')
        .split_whitespace()
        .map(|a| {
            let (name, kind) = a.split_once(':').expect("an attribute is `name:kind`");
            let kind = match kind {
                "ints" => AttrKind::Ints,
                "const" => AttrKind::Const,
                "int" => AttrKind::Int,
                "bool" => AttrKind::Bool,
                other => panic!("composites.tgir: unknown attribute kind `{other}`"),
            };
            (name, kind)
        })
        .collect();
    Composite {
        name,
        operands: operands.split(',').map(str::trim).collect(),
        attrs,
        doc,
        body: Vec::new(),
    }
}

fn parse_expr(text: &'static str) -> Expr {
    let text = text.trim();
    let Some(open) = text.find('(') else {
        return match text.parse::<f64>() {
            Ok(x) => Expr::Number(x),
            Err(_) => Expr::Name(text),
        };
    };
    let inner = text[open + 1..].strip_suffix(')').expect("a call ends in `)`");
    let (args, attrs) = match crate::text::split_outside(inner, ';').as_slice() {
        [args] => (*args, ""),
        [args, attrs] => (*args, *attrs),
        _ => panic!("composites.tgir: more than one `;` in `{text}`"),
    };
    let args = crate::types::split_commas(args).into_iter().map(parse_expr).collect();
    let attrs = crate::types::split_commas(attrs)
        .into_iter()
        .map(|a| {
            let (name, value) = a.split_once('=').expect("an attribute is `name=value`");
            (name, parse_attr(value))
        })
        .collect();
    Expr::Call(&text[..open], args, attrs)
}

fn parse_attr(text: &'static str) -> AttrExpr {
    let inside = |prefix: &str| text.strip_prefix(prefix).and_then(|t| t.strip_suffix(')'));
    match (inside("acc("), inside("type(")) {
        (Some(name), _) => AttrExpr::Accumulator(name),
        (_, Some(name)) => AttrExpr::TypeOf(name),
        _ => AttrExpr::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_types_and_expands() {
        for entry in all() {
            let attrs: Vec<Attr> = entry
                .attrs
                .iter()
                .map(|(_, kind)| match kind {
                    AttrKind::Ints => Attr::Ints(vec![2]),
                    _ => Attr::Const(ScalarConst::float(0.5)),
                })
                .collect();
            for dtype in [DType::F32, DType::F16] {
                let mut graph = Graph::new("t");
                let shape = [Dim::symbol("B"), Dim::Const(3), Dim::Const(8)];
                let x = graph.input("x", TensorType::new(dtype, shape));
                let p =
                    graph.input("p", TensorType::new(dtype, [Dim::ONE, Dim::ONE, Dim::Const(8)]));
                let operands: Vec<NodeId> =
                    (0..entry.operands.len()).map(|i| if i == 0 { x } else { p }).collect();
                let op = CompositeOp::new(entry.name, &attrs).expect(entry.name);
                let fused = graph.add(Op::Composite(op.clone()), &operands).expect(entry.name);
                let body = op.expand(&mut graph, &operands).expect(entry.name);
                assert_eq!(graph.ty(fused), graph.ty(body), "{}", entry.name);
                assert!(!entry.doc.is_empty(), "{} has no comment", entry.name);
            }
        }
    }
}
