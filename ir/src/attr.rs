//! Attribute values: the common form of every op's attributes, which the text
//! form prints and the e-graph holds as leaves.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::dim::{Dim, Symbol};
use crate::dtype::DType;
use crate::graph::Graph;
use crate::kernel_program::{ReduceOp, ScalarConst, ScatterOp};
use crate::op::{PadMode, RandomKind};
use crate::spec::{AttendSpec, ContractSpec, ConvSpec, PoolSpec, RnnSpec};
use crate::tensor::Tensor;
use crate::types::{TensorType, split_commas};
use crate::view::View;

/// A small dense literal, compared by content.
#[derive(Clone, Debug)]
pub struct ConstTensor(pub Arc<Tensor>);

impl ConstTensor {
    fn key(&self) -> (DType, &[usize], &[u8]) {
        (self.0.dtype(), self.0.shape(), self.0.bytes())
    }
}

impl PartialEq for ConstTensor {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Eq for ConstTensor {}
impl Hash for ConstTensor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
impl PartialOrd for ConstTensor {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for ConstTensor {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// A nested graph, compared by its text form.
#[derive(Clone, Debug)]
pub struct Region {
    text: Arc<str>,
    graph: Arc<Graph>,
}

impl Region {
    /// A region of this graph; inputs of the graph are its parameters.
    pub fn new(graph: Graph) -> Region {
        Region { text: Arc::from(crate::text::print(&graph)), graph: Arc::new(graph) }
    }

    /// The graph.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }
}

impl PartialEq for Region {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Region {}
impl Hash for Region {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}
impl PartialOrd for Region {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Region {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

/// A type that attributes can have.
pub trait AttrField: Sized {
    /// Its kind.
    const KIND: AttrKind;
    /// To the common form.
    fn to_attr(&self) -> Attr;
    /// From the common form; `None` when of another kind.
    fn from_attr(attr: &Attr) -> Option<Self>;
}

macro_rules! attrs {
    ($($(#[$doc:meta])* $variant:ident($type:ty) $to:expr, $from:expr;)*) => {
        /// The kinds of attribute.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum AttrKind { $($(#[$doc])* $variant),* }

        /// An attribute value.
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Attr { $($(#[$doc])* $variant($type)),* }

        impl Attr {
            /// Its kind.
            pub fn kind(&self) -> AttrKind {
                match self { $(Attr::$variant(_) => AttrKind::$variant),* }
            }

            /// Text that [`Attr::parse`] reads back.
            pub fn to_text(&self) -> String {
                match self { $(Attr::$variant(value) => { let to: fn(&$type) -> String = $to; to(value) }),* }
            }

            /// Reads an attribute of a kind.
            pub fn parse(kind: AttrKind, text: &str) -> Option<Attr> {
                match kind { $(AttrKind::$variant => { let from: fn(&str) -> Option<$type> = $from; from(text).map(Attr::$variant) }),* }
            }
        }

        $(impl AttrField for $type {
            const KIND: AttrKind = AttrKind::$variant;
            fn to_attr(&self) -> Attr { Attr::$variant(self.clone()) }
            fn from_attr(attr: &Attr) -> Option<Self> {
                match attr { Attr::$variant(value) => Some(value.clone()), _ => None }
            }
        })*
    };
}

fn list<T: ToString>(items: &[T]) -> String {
    format!("[{}]", items.iter().map(T::to_string).collect::<Vec<_>>().join(", "))
}

fn unlist<T: std::str::FromStr>(text: &str) -> Option<Vec<T>> {
    let inner = text.strip_prefix('[')?.strip_suffix(']')?;
    split_commas(inner).into_iter().map(|t| t.parse().ok()).collect()
}

fn ron_text<T: serde::Serialize>(value: &T) -> String {
    ron::to_string(value).expect("plain data always has a RON form")
}

attrs! {
    /// An integer.
    Int(i64) i64::to_string, |t| t.parse().ok();
    /// A truth value.
    Bool(bool) bool::to_string, |t| t.parse().ok();
    /// Integers.
    Ints(Vec<i64>) |v| list(v), unlist;
    /// A symbolic integer.
    Dim(Dim) Dim::to_string, |t| t.parse().ok();
    /// Symbolic integers.
    Dims(Vec<Dim>) |v| list(v), unlist;
    /// A symbol's name.
    Symbol(Symbol) Symbol::to_string, |t| Some(Symbol::new(t));
    /// An element type.
    DType(DType) DType::to_string, |t| t.parse().ok();
    /// A tensor type.
    Type(TensorType) TensorType::to_string, |t| t.parse().ok();
    /// A name.
    Name(Arc<str>) |n| n.to_string(), |t| Some(Arc::from(t));
    /// A scalar literal.
    Const(ScalarConst) ScalarConst::to_string, |t| t.parse().ok();
    /// A dense literal.
    Tensor(ConstTensor) tensor_text, parse_tensor;
    /// A reduction.
    Reduce(ReduceOp) |r| r.name().to_owned(), |t| ReduceOp::ALL.iter().copied().find(|r| r.name() == t);
    /// A scatter mode.
    Scatter(ScatterOp) ron_text, |t| ron::from_str(t).ok();
    /// A padding mode.
    Pad(PadMode) |p| p.name().to_owned(), PadMode::from_name;
    /// A distribution.
    Random(RandomKind) |r| r.name().to_owned(), RandomKind::from_name;
    /// A re-indexing.
    View(Arc<View>) |v| v.to_string(), |t| t.parse().ok().map(Arc::new);
    /// A contraction.
    Contract(Arc<ContractSpec>) |v| v.to_string(), |t| t.parse().ok().map(Arc::new);
    /// A convolution.
    Conv(Arc<ConvSpec>) |v| ron_text(&**v), |t| ron::from_str(t).ok().map(Arc::new);
    /// A pooling.
    Pool(Arc<PoolSpec>) |v| ron_text(&**v), |t| ron::from_str(t).ok().map(Arc::new);
    /// An attention.
    Attend(Arc<AttendSpec>) |v| ron_text(&**v), |t| ron::from_str(t).ok().map(Arc::new);
    /// A recurrent layer.
    Rnn(Arc<RnnSpec>) |v| ron_text(&**v), |t| ron::from_str(t).ok().map(Arc::new);
    /// A nested graph.
    Region(Region) |r| r.text.to_string(), |t| crate::text::parse(t).ok().map(Region::new);
}

/// `i64[2]{1, 2}`.
fn tensor_text(value: &ConstTensor) -> String {
    let tensor = &value.0;
    let items: Vec<String> =
        tensor.values().into_iter().map(|v| ScalarConst::from_value(v).to_string()).collect();
    let shape: Vec<String> = tensor.shape().iter().map(usize::to_string).collect();
    format!("{}[{}]{{{}}}", tensor.dtype(), shape.join(", "), items.join(", "))
}

fn parse_tensor(text: &str) -> Option<ConstTensor> {
    let (ty, items) = text.strip_suffix('}')?.split_once('{')?;
    let ty: TensorType = ty.trim().parse().ok()?;
    let shape: Vec<usize> =
        ty.const_shape()?.into_iter().map(|d| usize::try_from(d).ok()).collect::<Option<_>>()?;
    let values: Vec<_> = split_commas(items)
        .into_iter()
        .map(|t| t.parse::<ScalarConst>().ok().map(ScalarConst::value))
        .collect::<Option<_>>()?;
    (crate::tensor::element_count(&shape)? == values.len())
        .then(|| ConstTensor(Arc::new(Tensor::from_values(ty.dtype, &shape, &values))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_round_trip() {
        let t = ConstTensor(Arc::new(Tensor::from_f32(&[2, 2], &[1.0, -0.5, f32::INFINITY, 3e-9])));
        let text = Attr::Tensor(t.clone()).to_text();
        assert_eq!(Attr::parse(AttrKind::Tensor, &text), Some(Attr::Tensor(t)));
        let dims = Attr::Dims(vec!["S + 1".parse().expect("dim"), Dim::Const(3)]);
        assert_eq!(Attr::parse(AttrKind::Dims, &dims.to_text()), Some(dims));
    }
}
