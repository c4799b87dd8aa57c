//! Which reduction belongs to which pass over the row, and what survives from one pass to the next.

use std::collections::{BTreeMap, BTreeSet};

use tgc_ir::kernel_program::{Body, InstKind, ReduceOp, Rows, as_axis};
use tgc_ir::{DType, Dim};

use crate::cuda::print::body::{index_values, needed_by, operands};

/// A reduction of the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reduction {
    /// Its instruction.
    pub(super) at: u32,
    /// What it does.
    pub(super) op: ReduceOp,
    /// The reduced result.
    pub(super) operand: u32,
    /// Dtype of the reduced result.
    pub(super) dtype: DType,
}

/// The passes over a row.
#[derive(Debug, Clone)]
pub(super) struct Passes {
    /// Reductions of each pass; those of one pass do not depend on one another.
    pub(super) reductions: Vec<Vec<Reduction>>,
    /// Results that depend on an inner axis (through axes, not through reductions).
    varying: BTreeSet<u32>,
}

impl Passes {
    pub(super) fn of(anchor: &Rows) -> Passes {
        let body = &anchor.epilogue.body;
        let outer = anchor.outer.len();
        let (mut depth, mut varying) = (BTreeMap::new(), BTreeSet::new());
        let mut reductions: Vec<Vec<Reduction>> = Vec::new();
        for (at, inst) in body.insts.iter().enumerate() {
            let at = at as u32;
            let inputs = operands(&inst.kind);
            let level: usize =
                inputs.iter().filter_map(|input| depth.get(input)).copied().max().unwrap_or(0);
            if let InstKind::Reduce(op, operand) = inst.kind {
                if reductions.len() <= level {
                    reductions.resize(level + 1, Vec::new());
                }
                reductions[level].push(Reduction { at, op, operand, dtype: body.dtype(operand) });
                depth.insert(at, level + 1);
                continue;
            }
            depth.insert(at, level);
            if inputs.iter().any(|input| varying.contains(input))
                || mentions_inner(&inst.kind, outer)
            {
                varying.insert(at);
            }
        }
        Passes { reductions, varying }
    }

    /// True when a result differs between elements of a row.
    pub(super) fn varies(&self, at: u32) -> bool {
        self.varying.contains(&at)
    }

    /// Splits stores into those of every element and those of the row as a whole.
    pub(super) fn split_stores(&self, anchor: &Rows) -> (Vec<usize>, Vec<usize>) {
        let outer = anchor.outer.len();
        let stores = &anchor.epilogue.stores;
        (0..stores.len()).partition(|&n| {
            let named = index_values(&stores[n].index);
            let index_varies = stores[n].index.iter().any(|dim| dim_mentions_inner(dim, outer))
                || named.iter().any(|at| self.varies(*at));
            index_varies || self.varies(stores[n].value)
        })
    }

    /// Results that pass `n` or the stores compute and a later pass reads: what registers must hold.
    ///
    /// `roots[n]` are the varying results that pass n needs; the search of a pass stops at what is held.
    pub(super) fn held(&self, body: &Body, roots: &[Vec<u32>]) -> BTreeSet<u32> {
        let mut computed: BTreeSet<u32> = BTreeSet::new();
        let mut held = BTreeSet::new();
        for pass in roots {
            let stop = |at: u32| {
                (computed.contains(&at) && is_worth_holding(body, at)) || is_reduction(body, at)
            };
            let needed = needed_by(body, pass, &stop);
            let varying: Vec<u32> = needed.into_iter().filter(|at| self.varies(*at)).collect();
            held.extend(
                varying.iter().filter(|at| computed.contains(at) && is_worth_holding(body, **at)),
            );
            computed.extend(varying);
        }
        held
    }
}

fn is_reduction(body: &Body, at: u32) -> bool {
    matches!(body.insts.get(at as usize).map(|inst| &inst.kind), Some(InstKind::Reduce(..)))
}

/// Index expressions are cheaper to compute again.
fn is_worth_holding(body: &Body, at: u32) -> bool {
    !matches!(body.insts[at as usize].kind, InstKind::Index(_))
}

fn dim_mentions_inner(dim: &Dim, outer: usize) -> bool {
    dim.symbols().iter().filter_map(as_axis).any(|axis| axis >= outer)
}

fn mentions_inner(kind: &InstKind, outer: usize) -> bool {
    match kind {
        InstKind::Index(dim) => dim_mentions_inner(dim, outer),
        InstKind::Load(load) => {
            let guards = load.guards.iter().flat_map(|guard| [&guard.value, &guard.below]);
            load.index.iter().chain(guards).any(|dim| dim_mentions_inner(dim, outer))
        }
        _ => false,
    }
}
