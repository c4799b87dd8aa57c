//! The e-graph's language: derived from the op table, attributes as leaf
//! children. There is no second list of ops: a head is a name of the table.

use std::fmt;
use std::sync::OnceLock;

use egg::{Id, Language};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use tgc_ir::op::{Op, PRIMITIVES};
use tgc_ir::scalar::ScalarOp;

/// What a node is, without its children.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An op of the table; children are operands, then attributes.
    Op(u16),
    /// An attribute value: an index into the interner.
    Attr(u32),
    /// An op without operands that rules treat as a name.
    Leaf(u32),
}

/// A node of the e-graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// How many children are operands; the rest are attributes.
    pub(crate) operands: u16,
    pub(crate) children: SmallVec<[Id; 4]>,
}

impl Node {
    pub(crate) fn operand_ids(&self) -> &[Id] {
        &self.children[..self.operands as usize]
    }

    pub(crate) fn attr_ids(&self) -> &[Id] {
        &self.children[self.operands as usize..]
    }
}

impl Language for Node {
    type Discriminant = (Kind, u16);

    fn discriminant(&self) -> Self::Discriminant {
        (self.kind, self.operands)
    }

    fn matches(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.operands == other.operands
            && self.children.len() == other.children.len()
    }

    fn children(&self) -> &[Id] {
        &self.children
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.children
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Op(head) => f.write_str(name_of(head)),
            Kind::Attr(n) => write!(f, "attr{n}"),
            Kind::Leaf(n) => write!(f, "leaf{n}"),
        }
    }
}

/// Names of all ops in table order.
fn names() -> &'static (Vec<&'static str>, FxHashMap<&'static str, u16>) {
    static NAMES: OnceLock<(Vec<&'static str>, FxHashMap<&'static str, u16>)> = OnceLock::new();
    NAMES.get_or_init(|| {
        let list: Vec<&'static str> = PRIMITIVES
            .iter()
            .copied()
            .chain(ScalarOp::ALL.iter().map(|o| o.name()))
            .chain(tgc_ir::composite::all().iter().map(|c| c.name))
            .collect();
        let index = list.iter().enumerate().map(|(i, n)| (*n, i as u16)).collect();
        (list, index)
    })
}

/// The head of an op name.
pub(crate) fn head_of(name: &str) -> Option<u16> {
    names().1.get(name).copied()
}

/// The name of a head.
pub(crate) fn name_of(head: u16) -> &'static str {
    names().0[head as usize]
}

/// Whether an op is a nameless leaf in the e-graph: nothing inside it matters
/// to a pattern.
pub(crate) fn is_leaf(op: &Op) -> bool {
    op.is_leaf() || matches!(op, Op::Random { .. })
}
