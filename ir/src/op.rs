//! The ops: families with typed attributes, one row each.
//!
//! A row gives the name in text and its attributes; type rules are in
//! [`crate::infer`], meanings in [`crate::eval`]. Attributes convert to and
//! from [`Attr`], which is what the text form prints and what the e-graph has
//! as leaves, so that no second list of ops exists anywhere.

use std::sync::Arc;

use crate::attr::{Attr, AttrField, AttrKind, ConstTensor, Region};
use crate::composite::CompositeOp;
use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::kernel_program::{ReduceOp, ScalarConst, ScatterOp};
use crate::scalar::ScalarOp;
use crate::spec::{AttendSpec, ContractSpec, ConvSpec, PoolSpec, RnnSpec};
use crate::view::View;

/// Name and kind of one attribute.
pub type AttrSpec = (&'static str, AttrKind);

/// Attributes do not fit an op.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpError {
    /// No op of this name.
    #[error("`{0}` is no op; `tgc ops` lists them")]
    Unknown(String),
    /// An attribute is absent or of another kind.
    #[error("`{op}` needs attribute `{name}` of kind {kind:?}")]
    Attr {
        /// Op name.
        op: &'static str,
        /// Attribute name.
        name: &'static str,
        /// Its kind.
        kind: AttrKind,
    },
}

macro_rules! ops {
    ($($(#[$doc:meta])* $variant:ident $name:literal { $($(#[$fdoc:meta])* $field:ident : $type:ty),* $(,)? })*) => {
        /// An operation with its attributes.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Op {
            $($(#[$doc])* $variant { $($(#[$fdoc])* $field: $type),* },)*
            /// A row of the scalar table; operands of equal rank with equal
            /// extents or 1, or rank 0.
            Scalar(ScalarOp),
            /// An op with a body in other ops.
            Composite(CompositeOp),
        }

        /// Names of the structured primitives, in table order.
        pub const PRIMITIVES: &[&str] = &[$($name),*];

        impl Op {
            /// Name in text forms.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Op::$variant { .. } => $name,)*
                    Op::Scalar(op) => op.name(),
                    Op::Composite(op) => op.name(),
                }
            }

            /// Attributes in the order of [`Op::schema`].
            pub fn attrs(&self) -> Vec<Attr> {
                match self {
                    $(Op::$variant { $($field),* } => vec![$($field.to_attr()),*],)*
                    Op::Scalar(_) => Vec::new(),
                    Op::Composite(op) => op.attrs.to_vec(),
                }
            }

            /// Attribute names and kinds of the op of a name.
            pub fn schema(name: &str) -> Option<Vec<AttrSpec>> {
                match name {
                    $($name => Some(vec![$((stringify!($field), <$type as AttrField>::KIND)),*]),)*
                    _ if name.parse::<ScalarOp>().is_ok() => Some(Vec::new()),
                    _ => crate::composite::schema(name),
                }
            }

            /// The op of a name with attributes in schema order.
            pub fn from_attrs(name: &str, attrs: &[Attr]) -> Result<Op, OpError> {
                match name {
                    $($name => {
                        let mut at = attrs.iter();
                        Ok(Op::$variant { $($field: at.next().and_then(<$type as AttrField>::from_attr).ok_or(
                            OpError::Attr { op: $name, name: stringify!($field), kind: <$type as AttrField>::KIND })?),* })
                    })*
                    _ => match name.parse::<ScalarOp>() {
                        Ok(op) => Ok(Op::Scalar(op)),
                        Err(_) => CompositeOp::new(name, attrs).map(Op::Composite)
                            .ok_or_else(|| OpError::Unknown(name.to_owned())),
                    },
                }
            }
        }
    };
}

ops! {
    /// A model input.
    Input "input" {
        /// Its name, unique in the graph.
        name: Arc<str>,
        /// Its type, in text (`f32[B, 768]`).
        ty: crate::types::TensorType,
    }
    /// A trained tensor: row `index` of the graph's weight table.
    Weight "weight" {
        /// Row.
        index: i64,
    }
    /// A small dense literal.
    Constant "constant" {
        /// Its elements.
        value: ConstTensor,
    }
    /// A rank-0 literal.
    Splat "splat" {
        /// Its value.
        value: ScalarConst,
        /// Its element type.
        dtype: DType,
    }
    /// 0, 1, 2, … as i64 [len].
    Iota "iota" {
        /// Length.
        len: Dim,
    }
    /// A symbolic integer as a rank-0 i64.
    DimValue "dim" {
        /// The expression.
        value: Dim,
    }
    /// Conversion: floats round to nearest even, to integers truncate and
    /// saturate (NaN gives 0), integers wrap, to bool compares with zero.
    Cast "cast" {
        /// Element type of the result.
        to: DType,
    }
    /// The same bits under another element type of equal width.
    Bitcast "bitcast" {
        /// Element type of the result.
        to: DType,
    }
    /// Sum of products over labels; see [`ContractSpec`].
    Contract "contract" {
        /// Labels.
        spec: Arc<ContractSpec>,
    }
    /// Convolution: x [n, c, spatial…], w.
    Conv "conv" {
        /// Geometry.
        spec: Arc<ConvSpec>,
    }
    /// Reduction over sliding windows of x [n, c, spatial…]. Max has a second
    /// result: i64 linear index of the chosen cell in the spatial extents.
    Pool "pool" {
        /// Geometry.
        spec: Arc<PoolSpec>,
    }
    /// Reduction over axes, which stay with extent 1. Several axes of an
    /// `argmax` count row-major.
    Reduce "reduce" {
        /// Which.
        op: ReduceOp,
        /// Ascending axes.
        axes: Vec<i64>,
    }
    /// Running reduction along an axis.
    Scan "scan" {
        /// Sum, Prod, Max or Min.
        op: ReduceOp,
        /// Axis.
        axis: i64,
        /// Without the element itself.
        exclusive: bool,
        /// From the end.
        reverse: bool,
    }
    /// The first k in order along an axis: (values, i64 indices); NaN is
    /// largest, ties by lower index.
    TopK "topk" {
        /// Axis.
        axis: i64,
        /// How many.
        k: Dim,
        /// Descending.
        largest: bool,
    }
    /// Re-indexing; see [`View`].
    View "view" {
        /// How.
        view: Arc<View>,
    }
    /// Cells around a tensor: x and a rank-0 value (used by `constant`).
    /// Negative widths crop.
    Pad "pad" {
        /// Where cells come from.
        mode: PadMode,
        /// Before, per axis.
        low: Vec<Dim>,
        /// After, per axis.
        high: Vec<Dim>,
    }
    /// Tensors one after the other along an axis.
    Concat "concat" {
        /// Axis.
        axis: i64,
    }
    /// data[.., indices, ..] along an axis: result data[:axis] + indices +
    /// data[axis+1:]. Indices are i64 in [0, extent).
    Gather "gather" {
        /// Axis.
        axis: i64,
    }
    /// out[i…] = data[i… with axis replaced by indices[i…]].
    GatherElements "gather_elements" {
        /// Axis.
        axis: i64,
    }
    /// Slices of data by index tuples in the last axis of indices (ONNX GatherND).
    GatherNd "gather_nd" {
        /// Shared leading axes.
        batch: i64,
    }
    /// data with elements replaced or combined: data, indices, updates (ONNX
    /// ScatterElements).
    ScatterElements "scatter_elements" {
        /// Axis.
        axis: i64,
        /// How updates meet what is there.
        op: ScatterOp,
    }
    /// data with slices replaced or combined: data, indices, updates (ONNX ScatterND).
    ScatterNd "scatter_nd" {
        /// How updates meet what is there.
        op: ScatterOp,
    }
    /// Indices of true elements as i64 [rank, count].
    NonZero "nonzero" {
        /// Symbol of the count.
        count: Symbol,
    }
    /// Greedy suppression: boxes [b, n, 4], scores [b, c, n], rank-0 i64
    /// greatest count per class, rank-0 f32 overlap and score limits; i64 [count, 3].
    Nms "nms" {
        /// Boxes are centre and size.
        center_point: bool,
        /// Symbol of the count.
        count: Symbol,
    }
    /// Unique elements or slices: (values, first index, inverse, counts).
    Unique "unique" {
        /// Axis; −1 flattens.
        axis: i64,
        /// Ascending instead of first seen.
        sorted: bool,
        /// Symbol of the count.
        count: Symbol,
    }
    /// Reproducible pseudo-random numbers of a counter-based generator; no operands.
    Random "random" {
        /// Distribution.
        kind: RandomKind,
        /// Key.
        seed: i64,
        /// Type of the result.
        ty: crate::types::TensorType,
    }
    /// One of two regions by a rank-0 bool: condition, captures…
    If "if" {
        /// When true; inputs are the captures.
        then: Region,
        /// When false.
        otherwise: Region,
    }
    /// Repetition: rank-0 i64 greatest count, rank-0 bool, carried…, captures…
    /// The body maps (round, carried…, captures…) to (continue, carried…,
    /// stacked…); results: carried…, stacked… [rounds, …]. Extents of carried
    /// parameters may mention `rounds`, inside the body the rounds completed
    /// so far: with 0 they are the operands', with one more the results'.
    Loop "loop" {
        /// The round.
        body: Region,
        /// Number of carried values.
        carried: i64,
        /// Symbol of the number of rounds.
        rounds: Symbol,
    }
    /// A recurrent layer of one direction; see [`RnnSpec`]: (y, h, c).
    Rnn "rnn" {
        /// Which.
        spec: Arc<RnnSpec>,
    }
    /// Attention; see [`AttendSpec`].
    Attend "attend" {
        /// Labels and chains.
        spec: Arc<AttendSpec>,
    }
    /// One result of an op that has several.
    Proj "proj" {
        /// Which.
        index: i64,
    }
}

/// Where padding cells come from (ONNX Pad).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PadMode {
    /// The value operand.
    Constant,
    /// Mirror without repeating the edge.
    Reflect,
    /// The edge.
    Edge,
    /// The other end.
    Wrap,
}

/// Distributions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RandomKind {
    /// [0, 1).
    Uniform,
    /// Mean 0, deviation 1.
    Normal,
}

impl Op {
    /// True for ops without operands that need no computation at run time.
    pub fn is_leaf(&self) -> bool {
        matches!(
            self,
            Op::Input { .. }
                | Op::Weight { .. }
                | Op::Constant { .. }
                | Op::Splat { .. }
                | Op::Iota { .. }
                | Op::DimValue { .. }
        )
    }

    /// The regions of a control op.
    pub fn regions(&self) -> Vec<&Region> {
        match self {
            Op::If { then, otherwise } => vec![then, otherwise],
            Op::Loop { body, .. } => vec![body],
            _ => Vec::new(),
        }
    }

    /// True for pointwise ops: scalar rows and casts.
    pub fn is_pointwise(&self) -> bool {
        matches!(self, Op::Scalar(_) | Op::Cast { .. } | Op::Bitcast { .. })
    }

    /// True when the op yields a tuple that only projections read.
    pub fn is_tuple(&self) -> bool {
        match self {
            Op::TopK { .. }
            | Op::Unique { .. }
            | Op::If { .. }
            | Op::Loop { .. }
            | Op::Rnn { .. } => true,
            Op::Pool { spec } => spec.op == ReduceOp::Max,
            _ => false,
        }
    }

    /// A float or integer literal.
    pub fn splat(value: f64, dtype: DType) -> Op {
        let value = if dtype.is_float() {
            ScalarConst::float(value)
        } else {
            ScalarConst::Int(value as i64)
        };
        Op::Splat { value, dtype }
    }
}

macro_rules! names {
    ($type:ident { $($variant:ident $name:literal),* }) => {
        impl $type {
            /// Name in text forms.
            pub fn name(self) -> &'static str {
                match self { $($type::$variant => $name),* }
            }
            pub(crate) fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some($type::$variant),)* _ => None }
            }
        }
    };
}

names!(PadMode { Constant "constant", Reflect "reflect", Edge "edge", Wrap "wrap" });
names!(RandomKind { Uniform "uniform", Normal "normal" });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_round_trip() {
        let ops = [
            Op::Reduce { op: ReduceOp::Sum, axes: vec![1, 2] },
            Op::Cast { to: DType::F16 },
            Op::splat(0.5, DType::F32),
            Op::Pad { mode: PadMode::Edge, low: vec![Dim::ONE], high: vec![Dim::symbol("S")] },
            Op::Scalar(ScalarOp::Exp),
        ];
        for op in ops {
            assert_eq!(Op::from_attrs(op.name(), &op.attrs()), Ok(op.clone()));
        }
        assert!(Op::from_attrs("reduce", &[]).is_err());
        assert!(Op::from_attrs("no_such_op", &[]).is_err());
    }

    #[test]
    fn names_do_not_collide() {
        let mut names: Vec<&str> = PRIMITIVES.to_vec();
        names.extend(ScalarOp::ALL.iter().map(|o| o.name()));
        names.extend(crate::composite::all().iter().map(|c| c.name));
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
