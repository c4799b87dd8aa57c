//! Convenience for building graphs: typed shorthands over [`Graph::add`].

use std::sync::Arc;

use crate::attr::{Attr, ConstTensor};
use crate::composite::CompositeOp;
use crate::dim::Dim;
use crate::dtype::DType;
use crate::graph::{Graph, NodeId};
use crate::infer::Violation;
use crate::kernel_program::{ReduceOp, ScalarConst};
use crate::op::Op;
use crate::scalar::ScalarOp;
use crate::spec::ContractSpec;
use crate::tensor::Tensor;
use crate::view::View;

type Built = Result<NodeId, Violation>;

impl Graph {
    /// A rank-0 literal.
    pub fn splat(&mut self, value: f64, dtype: DType) -> NodeId {
        self.add(Op::splat(value, dtype), &[]).expect("a literal has no operands")
    }

    /// A rank-0 integer literal, exact for 64 bits.
    pub fn splat_int(&mut self, value: i64, dtype: DType) -> NodeId {
        let value = if dtype.is_float() {
            ScalarConst::float(value as f64)
        } else {
            ScalarConst::Int(value)
        };
        self.add(Op::Splat { value, dtype }, &[]).expect("a literal has no operands")
    }

    /// A dense literal; one that is all one value becomes a broadcast splat.
    pub fn constant(&mut self, value: Tensor) -> NodeId {
        if let Some(splat) = value.splat_value() {
            let op = Op::Splat { value: ScalarConst::from_value(splat), dtype: value.dtype() };
            let node = self.add(op, &[]).expect("a literal has no operands");
            let shape: Vec<Dim> = value.shape().iter().map(|&d| Dim::Const(d as i64)).collect();
            return self.expand(node, &shape).expect("rank 0 broadcasts to every shape");
        }
        self.add(Op::Constant { value: ConstTensor(Arc::new(value)) }, &[])
            .expect("a literal has no operands")
    }

    /// A symbolic integer as a rank-0 i64 (a literal when it is a number).
    pub fn dim_value(&mut self, dim: &Dim) -> NodeId {
        match dim.as_const() {
            Some(value) => self.splat_int(value, DType::I64),
            None => {
                self.add(Op::DimValue { value: dim.clone() }, &[]).expect("a dim has no operands")
            }
        }
    }

    /// A scalar op on operands that already fit each other.
    pub fn scalar(&mut self, op: ScalarOp, operands: &[NodeId]) -> Built {
        self.add(Op::Scalar(op), operands)
    }

    /// Conversion.
    pub fn cast(&mut self, x: NodeId, to: DType) -> Built {
        self.add(Op::Cast { to }, &[x])
    }

    /// Re-indexing.
    pub fn view(&mut self, x: NodeId, view: View) -> Built {
        self.add(Op::View { view: Arc::new(view) }, &[x])
    }

    /// Axes in another order.
    pub fn transpose(&mut self, x: NodeId, axes: &[usize]) -> Built {
        let view = View::permute(self.shape(x), axes);
        self.view(x, view)
    }

    /// The same elements under other extents.
    pub fn reshape(&mut self, x: NodeId, to: &[Dim]) -> Built {
        let from = self.shape(x).to_vec();
        if from == to {
            return Ok(x);
        }
        if to.iter().any(|d| d.is(0)) && from.iter().any(|d| d.is(0)) {
            let zero = self.splat(0.0, self.dtype(x));
            return self.expand(zero, to);
        }
        let Some(views) = View::reshape(&from, to, &self.facts) else {
            return Err(Violation::new(
                "view C1",
                format!(
                    "cannot reinterpret {} as {}: element counts are not provably equal",
                    crate::types::DisplayDims(&from),
                    crate::types::DisplayDims(to)
                ),
            ));
        };
        let mut node = x;
        for view in views {
            node = self.view(node, view)?;
        }
        Ok(node)
    }

    /// Broadcast to extents (ranks align at the last axis).
    pub fn expand(&mut self, x: NodeId, to: &[Dim]) -> Built {
        match View::expand(self.shape(x), to) {
            Some(view) => self.view(x, view),
            None => Err(Violation::new("view C2", "broadcasting cannot lower the rank".to_owned())),
        }
    }

    /// The value with leading axes of extent 1 up to `rank` (rank 0 stays).
    pub fn raise_rank(&mut self, x: NodeId, rank: usize) -> Built {
        let shape = self.shape(x).to_vec();
        if shape.is_empty() || shape.len() >= rank {
            return Ok(x);
        }
        let mut to = vec![Dim::ONE; rank - shape.len()];
        to.extend(shape);
        self.expand(x, &to)
    }

    /// Elements `start + step·i`, i < extent, along an axis.
    pub fn slice(&mut self, x: NodeId, axis: usize, start: Dim, step: i64, extent: Dim) -> Built {
        let view = View::slice(self.shape(x), axis, start, step, extent);
        self.view(x, view)
    }

    /// Reduction over axes, which stay with extent 1.
    pub fn reduce(&mut self, op: ReduceOp, x: NodeId, axes: &[usize]) -> Built {
        let mut axes: Vec<i64> = axes.iter().map(|&a| a as i64).collect();
        axes.sort_unstable();
        axes.dedup();
        self.add(Op::Reduce { op, axes }, &[x])
    }

    /// Without axes of extent 1 (ascending).
    pub fn squeeze(&mut self, x: NodeId, axes: &[usize]) -> Built {
        let keep: Vec<usize> = (0..self.shape(x).len()).filter(|a| !axes.contains(a)).collect();
        self.transpose(x, &keep)
    }

    /// Matrix product with batch axes in front; `batch` extents are those of
    /// both operands.
    pub fn matmul(&mut self, lhs: NodeId, rhs: NodeId) -> Built {
        let (l, r) = (self.shape(lhs).to_vec(), self.shape(rhs).to_vec());
        if l.len() < 2 || l.len() != r.len() {
            return Err(Violation::new(
                "contract C1",
                "operands need equal ranks of at least 2".to_owned(),
            ));
        }
        let b = l.len() - 2;
        let spec = ContractSpec::matmul(
            &l[..b],
            l[b].clone(),
            l[b + 1].clone(),
            r[b + 1].clone(),
            self.dtype(lhs),
        );
        self.add(Op::Contract { spec: Arc::new(spec) }, &[lhs, rhs])
    }

    /// A composite op by name.
    pub fn composite(&mut self, name: &str, operands: &[NodeId], attrs: &[Attr]) -> Built {
        match CompositeOp::new(name, attrs) {
            Some(op) => self.add(Op::Composite(op), operands),
            None => Err(Violation::new(
                "composite C1",
                format!("`{name}` with these attributes is no composite"),
            )),
        }
    }

    /// One result of a tuple op.
    pub fn proj(&mut self, tuple: NodeId, index: usize) -> Built {
        self.add(Op::Proj { index: index as i64 }, &[tuple])
    }
}
