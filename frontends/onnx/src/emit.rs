//! What operators emit through: broadcasting, views, reductions and literals over the graph builder, and questions about
//! extents that may end in a requirement.
//!
//! Pointwise operands reach the IR with equal ranks or rank 0; the views that raise ranks are made here.

use std::rc::Rc;
use std::sync::Arc;

use tgc_ir::attr::Attr;
use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::dtype::DType;
use tgc_ir::facts::{Bounds, Relation, Require};
use tgc_ir::graph::NodeId;
use tgc_ir::infer::Violation;
use tgc_ir::kernel_program::ReduceOp;
use tgc_ir::op::{Op, PadMode};
use tgc_ir::scalar::ScalarOp;
use tgc_ir::tensor::Tensor;

use crate::cx::{Cx, OpError, Prover, Val};
use crate::known::{Decide, Elem, Known};
use crate::settle;

type Emitted = Result<NodeId, OpError>;

impl From<Violation> for OpError {
    fn from(violation: Violation) -> Self {
        Self::Invalid(format!("has operands that do not fit: {violation}"))
    }
}

/// Constants of the file with at most this many elements are literals of the graph, larger ones are weights.
const LITERAL_MAX: usize = 16;

impl Cx<'_> {
    /// Answers questions about dims.
    pub(crate) fn prover(&self) -> Prover<'_> {
        Prover(&self.graph)
    }

    /// Adds an op.
    pub(crate) fn emit(&mut self, op: Op, operands: &[NodeId]) -> Emitted {
        Ok(self.graph.add(op, operands)?)
    }

    /// One result of a tuple op.
    pub(crate) fn proj(&mut self, tuple: NodeId, index: usize) -> Emitted {
        Ok(self.graph.proj(tuple, index)?)
    }

    /// A composite of the IR.
    pub(crate) fn composite(&mut self, name: &str, operands: &[NodeId], attrs: &[Attr]) -> Emitted {
        Ok(self.graph.composite(name, operands, attrs)?)
    }

    /// Extents of a node.
    pub(crate) fn shape(&self, x: NodeId) -> Vec<Dim> {
        self.graph.shape(x).to_vec()
    }

    /// Number of axes of a node.
    pub(crate) fn rank(&self, x: NodeId) -> usize {
        self.graph.shape(x).len()
    }

    /// Element type of a node.
    pub(crate) fn node_dtype(&self, x: NodeId) -> DType {
        self.graph.dtype(x)
    }

    /// The value as a node; known elements become literals and dims.
    pub(crate) fn node(&mut self, val: &Val) -> Emitted {
        match val {
            Val::Node(id) | Val::Traced(id, _) => Ok(*id),
            Val::Known(known) => self.materialise(&known.clone()),
            Val::Weight(weight) => {
                let weight = weight.clone();
                if weight.tensor.len() <= 1
                    || (weight.is_literal && weight.tensor.len() <= LITERAL_MAX)
                {
                    return Ok(self.graph.constant(weight.tensor.clone()));
                }
                // Weights belong to the outermost graph; regions capture them.
                let Some(outermost) = self.outer.first_mut() else {
                    return Ok(self.graph.weight(&weight.name, weight.tensor.clone()));
                };
                let id = outermost.graph.weight(&weight.name, weight.tensor.clone());
                Ok(self.capture(id, 0))
            }
            other => self.dtype(other).and(Err(OpError::Broken)),
        }
    }

    fn materialise(&mut self, known: &Known) -> Emitted {
        if let Some(tensor) = known.to_tensor() {
            self.own(tensor.bytes().len())?;
            return Ok(self.graph.constant(tensor));
        }
        let mut parts = Vec::with_capacity(known.elems.len());
        for elem in &known.elems {
            let part = self.element(elem, known.dtype)?;
            parts.push(self.reshape(part, &[Dim::ONE])?);
        }
        let flat = if parts.len() == 1 { parts[0] } else { self.concat(&parts, 0)? };
        let shape: Vec<Dim> = known.shape.iter().map(|&d| Dim::Const(d as i64)).collect();
        self.reshape(flat, &shape)
    }

    fn element(&mut self, elem: &Elem, dtype: DType) -> Emitted {
        match elem {
            Elem::Int(dim) => self.dim(dim, dtype),
            Elem::Real(x) => self.splat(*x, dtype),
            Elem::Ratio(num, den) => {
                let num = self.dim(num, dtype)?;
                let den = self.splat(*den as f64, dtype)?;
                self.map(ScalarOp::Div, &[num, den])
            }
        }
    }

    /// A rank-0 literal.
    pub(crate) fn splat(&mut self, value: f64, dtype: DType) -> Emitted {
        Ok(self.graph.splat(value, dtype))
    }

    /// A rank-0 number of the element type of `like`.
    pub(crate) fn num(&mut self, like: NodeId, value: f64) -> Emitted {
        let dtype = self.node_dtype(like);
        self.splat(value, dtype)
    }

    /// A rank-0 zero (false) of the element type of `like`.
    pub(crate) fn zero(&mut self, like: NodeId) -> Emitted {
        self.num(like, 0.0)
    }

    /// A rank-0 i64.
    pub(crate) fn int(&mut self, value: i64) -> Emitted {
        Ok(self.graph.splat_int(value, DType::I64))
    }

    /// A rank-0 truth value.
    pub(crate) fn truth(&mut self, value: bool) -> Emitted {
        Ok(self.graph.splat_int(i64::from(value), DType::Bool))
    }

    /// A dim as a rank-0 number.
    pub(crate) fn dim(&mut self, dim: &Dim, dtype: DType) -> Emitted {
        if let Some(value) = dim.as_const() {
            return Ok(self.graph.splat_int(value, dtype));
        }
        let value = self.graph.dim_value(dim);
        self.cast(value, dtype)
    }

    /// A dense literal.
    pub(crate) fn constant(&mut self, tensor: Tensor) -> Emitted {
        self.own(tensor.bytes().len())?;
        Ok(self.graph.constant(tensor))
    }

    /// 0, 1, 2, … along one axis.
    pub(crate) fn iota(&mut self, extent: &Dim, dtype: DType) -> Emitted {
        let x = self.emit(Op::Iota { len: extent.clone() }, &[])?;
        self.cast(x, dtype)
    }

    /// Conversion; the same type is no node.
    pub(crate) fn cast(&mut self, x: NodeId, to: DType) -> Emitted {
        Ok(self.graph.cast(x, to)?)
    }

    /// A row of the scalar table with ONNX broadcasting.
    pub(crate) fn map(&mut self, op: ScalarOp, operands: &[NodeId]) -> Emitted {
        let rank = operands.iter().map(|&x| self.rank(x)).max().unwrap_or(0);
        let mut raised = Vec::with_capacity(operands.len());
        for &x in operands {
            raised.push(self.graph.raise_rank(x, rank)?);
        }
        for axis in 0..rank {
            let mut met = Dim::ONE;
            for &x in &raised {
                if self.rank(x) == 0 {
                    continue;
                }
                met = self.broadcast_extent(&met, &self.graph.shape(x)[axis].clone())?;
            }
        }
        self.emit(Op::Scalar(op), &raised)
    }

    /// A row of the scalar table over values; known elements stay known.
    pub(crate) fn scalar(&mut self, op: ScalarOp, operands: &[Val]) -> Result<Val, OpError> {
        if let Some(known) = self.all_known(operands) {
            if op == ScalarOp::Div {
                self.require_sizes(&known[0], &known[1]);
            }
            let refs: Vec<&Known> = known.iter().map(Rc::as_ref).collect();
            if let Some(out) = Known::pointwise(op, &refs, &self.prover()) {
                return Ok(out.into());
            }
        }
        let nodes = operands.iter().map(|v| self.node(v)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.map(op, &nodes)?.into())
    }

    /// ONNX division truncates, exporters mean it to round down: a numerator of unknown sign over a positive number is
    /// required to be a size.
    fn require_sizes(&mut self, numerator: &Known, divisor: &Known) {
        let positive = divisor.to_i64().is_some_and(|d| d.iter().all(|&d| d > 0));
        if !positive || !numerator.dtype.is_int() {
            return;
        }
        for dim in numerator.elems.iter().filter_map(Elem::dim) {
            let signs =
                (self.prover().at_most(&Dim::ZERO, dim), self.prover().at_most(dim, &Dim::ZERO));
            let mentions_input =
                dim.symbols().iter().any(|s| self.graph.facts.bounds_of(s).is_none());
            if signs == (None, None) && !mentions_input {
                let origin = self.origin();
                let require = Require {
                    lhs: Dim::ZERO,
                    relation: Relation::AtMost,
                    rhs: dim.clone(),
                    origin,
                };
                self.graph.facts.require(require);
            }
        }
    }

    /// The same elements under other extents of equal count.
    pub(crate) fn reshape(&mut self, x: NodeId, to: &[Dim]) -> Emitted {
        let from = self.shape(x);
        let (total, wanted) = (Dim::product(&from), Dim::product(to));
        self.require_equal(&total, &wanted)?;
        Ok(self.graph.reshape(x, to)?)
    }

    /// Reshapes a value; known elements stay known.
    pub(crate) fn reshape_val(&mut self, val: &Val, to: &[Dim]) -> Result<Val, OpError> {
        if let (Some(known), Some(shape)) = (self.known(val), self.small_shape(to))
            && let Some(out) = known.reshaped(shape)
        {
            return Ok(out.into());
        }
        let x = self.node(val)?;
        Ok(self.reshape(x, to)?.into())
    }

    /// Axes in another order.
    pub(crate) fn permute(&mut self, x: NodeId, perm: &[usize]) -> Emitted {
        Ok(self.graph.transpose(x, perm)?)
    }

    /// Elements `start + step·i`, i < extent, along an axis.
    pub(crate) fn slice(
        &mut self,
        x: NodeId,
        axis: usize,
        start: Dim,
        step: i64,
        extent: Dim,
    ) -> Emitted {
        Ok(self.graph.slice(x, axis, start, step, extent)?)
    }

    /// Broadcast to extents; ranks align at the last axis.
    pub(crate) fn broadcast(&mut self, x: NodeId, to: &[Dim]) -> Emitted {
        let from = self.shape(x);
        let lead = to
            .len()
            .checked_sub(from.len())
            .ok_or_else(|| OpError::invalid("cannot lower the rank"))?;
        for (have, want) in from.iter().zip(&to[lead..]) {
            if !have.is(1) {
                self.require_equal(have, want)?;
            }
        }
        Ok(self.graph.expand(x, to)?)
    }

    /// Axes of extent 1 at these places of the result.
    pub(crate) fn unsqueeze(&mut self, x: NodeId, axes: &[usize]) -> Emitted {
        let from = self.shape(x);
        let mut rest = from.iter().cloned();
        let to: Vec<Dim> = (0..from.len() + axes.len())
            .map(|a| if axes.contains(&a) { Some(Dim::ONE) } else { rest.next() })
            .collect::<Option<_>>()
            .ok_or_else(|| OpError::invalid("names an axis twice"))?;
        self.reshape(x, &to)
    }

    /// Without these axes, which have extent 1.
    pub(crate) fn squeeze(&mut self, x: NodeId, axes: &[usize]) -> Emitted {
        let from = self.shape(x);
        let to: Vec<Dim> =
            (0..from.len()).filter(|a| !axes.contains(a)).map(|a| from[a].clone()).collect();
        self.reshape(x, &to)
    }

    /// A rank-1 value laid along one axis of `rank` axes.
    pub(crate) fn along(&mut self, x: NodeId, axis: usize, rank: usize) -> Emitted {
        let mut to = vec![Dim::ONE; rank];
        to[axis] = self.shape(x)[0].clone();
        self.reshape(x, &to)
    }

    /// Tensors one after the other.
    pub(crate) fn concat(&mut self, parts: &[NodeId], axis: usize) -> Emitted {
        let first = self.shape(parts[0]);
        for &part in &parts[1..] {
            let shape = self.shape(part);
            if shape.len() != first.len() {
                return Err(OpError::invalid("joins tensors of different rank"));
            }
            for a in (0..first.len()).filter(|&a| a != axis) {
                self.require_equal(&first[a], &shape[a])?;
            }
        }
        self.emit(Op::Concat { axis: axis as i64 }, parts)
    }

    /// Joins values; known elements stay known. A vector without elements joins anything.
    pub(crate) fn concat_vals(&mut self, parts: &[Val], axis: usize) -> Result<Val, OpError> {
        if let Some(known) = self.all_known(parts) {
            let refs: Vec<&Known> = known.iter().map(Rc::as_ref).collect();
            if let Some(out) = Known::concat(&refs, axis) {
                return Ok(out.into());
            }
        }
        let nodes = parts.iter().map(|v| self.node(v)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.concat(&nodes, axis)?.into())
    }

    /// Cells of a rank-0 value around a tensor.
    pub(crate) fn pad(&mut self, x: NodeId, low: &[Dim], high: &[Dim], value: NodeId) -> Emitted {
        if low.iter().chain(high).all(|d| d.is(0)) {
            return Ok(x);
        }
        let op = Op::Pad { mode: PadMode::Constant, low: low.to_vec(), high: high.to_vec() };
        self.emit(op, &[x, value])
    }

    /// Slices at i64 indices in range along an axis.
    pub(crate) fn take(&mut self, x: NodeId, indices: NodeId, axis: usize) -> Emitted {
        self.emit(Op::Gather { axis: axis as i64 }, &[x, indices])
    }

    /// Indices as i64 with negative ones counted from the end of an axis of this extent.
    pub(crate) fn index(&mut self, indices: &Val, extent: &Dim) -> Emitted {
        let known = self.known(indices).and_then(|k| k.to_i64());
        let literal = match indices {
            Val::Weight(w) => w.tensor.to_i64(),
            _ => known,
        };
        let x = self.node(indices)?;
        let x = self.cast(x, DType::I64)?;
        if literal.is_some_and(|all| all.iter().all(|&i| i >= 0)) || self.is_count(x) {
            return Ok(x);
        }
        let (zero, size) = (self.int(0)?, self.dim(extent, DType::I64)?);
        let negative = self.map(ScalarOp::Lt, &[x, zero])?;
        let wrapped = self.map(ScalarOp::Add, &[x, size])?;
        self.map(ScalarOp::Select, &[negative, wrapped, x])
    }

    /// True for values that are built only from iotas, dims and positive literals: they are never negative.
    fn is_count(&self, x: NodeId) -> bool {
        match self.graph.op(x) {
            Op::Iota { .. } | Op::NonZero { .. } => true,
            Op::Reduce { op, .. } => op.is_arg(),
            Op::DimValue { value } => self.prover().at_most(&Dim::ZERO, value) == Some(true),
            Op::Splat { value, .. } => value.as_f64() >= 0.0,
            Op::Proj { index: 1 } => {
                matches!(self.graph.op(self.graph.operands(x)[0]), Op::TopK { .. })
            }
            Op::View { .. }
            | Op::Cast { to: DType::I64 }
            | Op::Scalar(ScalarOp::Add | ScalarOp::Mul) => {
                self.node_dtype(x) == DType::I64
                    && self.graph.operands(x).iter().all(|&o| self.is_count(o))
            }
            _ => false,
        }
    }

    /// Reduction over axes, kept with extent 1 or dropped.
    pub(crate) fn reduce(
        &mut self,
        op: ReduceOp,
        x: NodeId,
        axes: &[usize],
        keep: bool,
    ) -> Emitted {
        let out = self.graph.reduce(op, x, axes)?;
        if keep { Ok(out) } else { self.squeeze(out, axes) }
    }

    /// `x / count`, the second half of a mean.
    pub(crate) fn divide_by(&mut self, x: NodeId, count: &Dim) -> Emitted {
        let dtype = self.node_dtype(x);
        let count = self.dim(count, dtype)?;
        self.map(ScalarOp::Div, &[x, count])
    }

    /// Mean over axes, kept with extent 1.
    pub(crate) fn mean(&mut self, x: NodeId, axes: &[usize]) -> Emitted {
        let shape = self.shape(x);
        let count = Dim::product(axes.iter().map(|&a| &shape[a]));
        let total = self.reduce(ReduceOp::Sum, x, axes, true)?;
        self.divide_by(total, &count)
    }

    /// An axis counted from either end.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, OpError> {
        let from_front = if axis < 0 { axis.checked_add(rank as i64) } else { Some(axis) };
        from_front.and_then(|a| usize::try_from(a).ok()).filter(|&a| a < rank).ok_or_else(|| {
            OpError::invalid(format!("has axis {axis}, which data of rank {rank} does not have"))
        })
    }

    /// Axes counted from either end; each at most once.
    pub(crate) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, OpError> {
        let axes: Vec<usize> =
            axes.iter().map(|&a| self.axis(a, rank)).collect::<Result<_, _>>()?;
        let twice = (0..axes.len()).any(|i| axes[..i].contains(&axes[i]));
        if twice { Err(OpError::invalid("names an axis twice")) } else { Ok(axes) }
    }

    /// A place between axes: 0 to `rank`, or counted from the end.
    pub(crate) fn split_point(&self, axis: i64, rank: usize) -> Result<usize, OpError> {
        if axis == rank as i64 { Ok(rank) } else { self.axis(axis, rank) }
    }

    /// States that two extents are equal: nothing when proved, an error when refuted, else a requirement.
    pub(crate) fn require_equal(&mut self, a: &Dim, b: &Dim) -> Result<(), OpError> {
        self.require(a, Relation::Equal, b)
    }

    /// States `a <= b`.
    pub(crate) fn require_at_most(&mut self, a: &Dim, b: &Dim) -> Result<(), OpError> {
        self.require(a, Relation::AtMost, b)
    }

    fn require(&mut self, a: &Dim, relation: Relation, b: &Dim) -> Result<(), OpError> {
        let proved = match relation {
            Relation::AtMost => self.prover().at_most(a, b),
            _ => self.prover().equal(a, b),
        };
        match proved {
            Some(true) => Ok(()),
            Some(false) => {
                let how =
                    if relation == Relation::AtMost { "is more than" } else { "differs from" };
                Err(OpError::invalid(format!("has extents that do not fit: {a} {how} {b}")))
            }
            None => {
                let origin = self.origin();
                if relation == Relation::Equal {
                    let sides = settle::sides(a, b, &self.graph.facts, &origin).unwrap_or_default();
                    sides.into_iter().for_each(|r| self.graph.facts.require(r));
                    if self.prover().equal(a, b) == Some(true) {
                        return Ok(());
                    }
                }
                self.graph.facts.require(Require {
                    lhs: a.clone(),
                    relation,
                    rhs: b.clone(),
                    origin,
                });
                Ok(())
            }
        }
    }

    /// The extent that two extents broadcast to; where neither is known to be 1 they must be equal.
    pub(crate) fn broadcast_extent(&mut self, a: &Dim, b: &Dim) -> Result<Dim, OpError> {
        if a.is(1) || a == b {
            return Ok(b.clone());
        }
        if b.is(1) {
            return Ok(a.clone());
        }
        self.require_equal(a, b)?;
        Ok(if b.as_const().is_some() { b.clone() } else { a.clone() })
    }

    /// The ONNX broadcast of two shapes.
    pub(crate) fn broadcast_extents(&mut self, a: &[Dim], b: &[Dim]) -> Result<Vec<Dim>, OpError> {
        let rank = a.len().max(b.len());
        let at = |s: &[Dim], i: usize| {
            if i + s.len() < rank { Dim::ONE } else { s[i + s.len() - rank].clone() }
        };
        (0..rank).map(|i| self.broadcast_extent(&at(a, i), &at(b, i))).collect()
    }

    /// The extent that makes `to` (with 1 in its place) hold as many elements as `from`.
    pub(crate) fn remaining_extent(
        &mut self,
        total: &Dim,
        from: &[Dim],
        to: &[Dim],
    ) -> Result<Dim, OpError> {
        let rest = Dim::product(to);
        if rest.is(0) {
            // 0 = 0 · x has no single answer; the extent that keeps the other axes is the only useful one.
            let kept = Dim::product(from.iter().filter(|d| !d.is(0)));
            let others = Dim::product(to.iter().filter(|d| !d.is(0)));
            return kept
                .exact_div(&others)
                .ok_or_else(|| OpError::invalid("cannot infer -1 beside an extent of 0"));
        }
        let canonical = (self.graph.facts.canonical(total), self.graph.facts.canonical(&rest));
        if let Some(extent) = total.exact_div(&rest).or_else(|| canonical.0.exact_div(&canonical.1))
        {
            return Ok(extent);
        }
        let (Some(t), Some(r)) = (total.as_const(), rest.as_const()) else {
            return Ok(self.simplify(&total.floor_div(&rest)));
        };
        Err(OpError::invalid(format!("cannot spread {t} elements over extents with product {r}")))
    }

    /// `dim` by bounds and requirements.
    pub(crate) fn simplify(&self, dim: &Dim) -> Dim {
        self.graph.facts.simplify(dim)
    }

    /// `max(dim, 0)`.
    pub(crate) fn at_least_zero(&self, dim: Dim) -> Dim {
        match self.prover().at_most(&Dim::ZERO, &dim) {
            Some(true) => dim,
            Some(false) => Dim::ZERO,
            None => dim.maximum(&Dim::ZERO),
        }
    }

    /// A bound of a slice, counted from the end when negative, clamped to `[low, high]`; one that `must_fit` is required
    /// to be at most `high` instead.
    pub(crate) fn slice_bound(
        &mut self,
        bound: &Dim,
        size: &Dim,
        [low, high]: [&Dim; 2],
        must_fit: bool,
    ) -> Result<Dim, OpError> {
        // Clamp numbers first: exporters write 2^63 - 1 for "to the end".
        if let Some(value) = bound.as_const() {
            if value >= i64::MAX / 2 {
                return Ok(high.clone());
            }
            if value <= i64::MIN / 2 {
                return Ok(low.clone());
            }
        }
        let bound = match self.prover().at_most(&Dim::ZERO, bound) {
            Some(true) => bound.clone(),
            Some(false) => bound.clone() + size.clone(),
            None => {
                // An exporter that computes a bound means it to be one.
                self.require_at_most(&Dim::ZERO, bound)?;
                bound.clone()
            }
        };
        let bound = match self.prover().at_most(low, &bound) {
            Some(true) => bound,
            Some(false) => return Ok(low.clone()),
            None => bound.maximum(low),
        };
        match self.prover().at_most(&bound, high) {
            Some(true) => Ok(bound),
            Some(false) => Ok(high.clone()),
            None if must_fit || (size.as_const().is_some() && bound.as_const().is_none()) => {
                self.require_at_most(&bound, high)?;
                Ok(bound)
            }
            None => Ok(bound.minimum(high)),
        }
    }

    /// A shape of numbers that is small enough to track elements.
    pub(crate) fn small_shape(&self, shape: &[Dim]) -> Option<Vec<usize>> {
        let shape: Vec<usize> =
            shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect::<Option<_>>()?;
        crate::known::count(&shape).map(|_| shape)
    }

    /// A symbol for a count that only running tells, at most `bound`.
    pub(crate) fn data_symbol(&mut self, stem: &str, bound: &Dim) -> Symbol {
        let symbol = self.symbols.fresh(stem);
        let high = bound.as_const();
        self.graph.facts.bound(symbol.clone(), Bounds { low: 0, high, multiple_of: 1 });
        self.graph.data_symbols.push((symbol.clone(), bound.clone()));
        symbol
    }

    /// Sets where nodes added from now on come from.
    pub(crate) fn locate(&mut self, name: &str) {
        self.graph.set_location(&[Arc::from(name)]);
    }
}
