//! `cut`: which nodes form one kernel.
//!
//! Nodes are visited in topological order. Ops with structure of their own
//! (anchors) start a region; pointwise ops join the region of an operand when
//! they live on its domain and no cycle arises; what joins none stays
//! *virtual*: it is computed inside every kernel that reads it (views, casts,
//! cheap pointwise chains, padding, gathers) until something needs it in
//! memory. Reductions over the same axes of values of one region share it, so
//! that softmax and the norms are one kernel each.

mod domain;

use std::collections::BTreeSet;

use tgc_ir::partition::{Partition, Region};
use tgc_ir::{Graph, NodeId, Op};

use crate::CodegenError;
pub(crate) use domain::Domain;

/// Scalar operations that a virtual value may repeat per use.
const REPEATED_WORK_MAX: u32 = 6;
/// Scalar operations that may be inlined into one kernel.
const INLINED_WORK_MAX: u32 = 96;
/// Scalar operations per score that masks and biases may cost inside attention.
const INLINED_SCORE_WORK_MAX: u32 = 3;
/// Nodes that one region may hold.
const REGION_NODES_MAX: usize = 160;

/// Where a node's value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// A leaf: input, weight or literal.
    Leaf,
    /// Computed by a region (in memory if others read it).
    Region(usize),
    /// Computed where it is read.
    Virtual,
}

struct Draft {
    domain: Domain,
    anchor: Option<NodeId>,
    nodes: BTreeSet<NodeId>,
    /// Virtual values that it computes for itself; they stay its own even when
    /// a later region puts them in memory.
    inlined: BTreeSet<NodeId>,
    /// Regions whose values this one reads.
    needs: BTreeSet<usize>,
}

struct Cutter<'a> {
    graph: &'a Graph,
    users: Vec<Vec<NodeId>>,
    is_output: Vec<bool>,
    home: Vec<Home>,
    /// Scalar operations to compute a virtual node per element.
    work: Vec<u32>,
    regions: Vec<Draft>,
}

/// Cuts a graph of primitives.
pub fn cut(graph: &Graph) -> Result<Partition, CodegenError> {
    let mut is_output = vec![false; graph.len()];
    graph.outputs().iter().for_each(|o| is_output[o.node.index()] = true);
    let live = graph.live();
    let mut users = graph.users();
    users.iter_mut().for_each(|u| u.retain(|n| live[n.index()]));
    let mut cutter = Cutter {
        graph,
        users,
        is_output,
        home: vec![Home::Leaf; graph.len()],
        work: vec![0; graph.len()],
        regions: Vec::new(),
    };
    for id in graph.ids().filter(|id| live[id.index()]) {
        cutter.place(id)?;
    }
    for output in graph.outputs() {
        cutter.materialise(output.node);
    }
    Ok(cutter.finish())
}

impl Cutter<'_> {
    fn place(&mut self, id: NodeId) -> Result<(), CodegenError> {
        let op = self.graph.op(id);
        match op {
            _ if op.is_leaf() => self.home[id.index()] = Home::Leaf,
            // An append to a state is a kernel of its own: it writes the new part only.
            Op::Concat { .. } if crate::state::of_node(self.graph, id).is_some() => {
                self.settle_operands(id);
                self.start_loops(id, Domain::closed(self.graph.ty(id)));
            }
            Op::Proj { .. } => {
                let region =
                    self.region_of(self.graph.operands(id)[0]).expect("tuples are anchors");
                self.join(id, region);
            }
            Op::Scalar(_) | Op::Cast { .. } | Op::Bitcast { .. } => self.place_pointwise(id),
            Op::View { .. }
            | Op::Pad { .. }
            | Op::Concat { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. } => self.place_virtual(id),
            Op::Reduce { axes, .. } => self.place_reduce(id, axes),
            Op::Contract { .. } | Op::Conv { .. } | Op::Attend { .. } | Op::Rnn { .. } => {
                self.place_products(id)
            }
            Op::Pool { .. } | Op::Scan { .. } | Op::TopK { .. } => {
                self.settle_operands(id);
                self.start(id, Domain::whole(self.graph.ty(id)));
            }
            Op::ScatterElements { .. } | Op::ScatterNd { .. } => {
                self.settle_operands(id);
                self.start(id, Domain::closed(self.graph.ty(id)));
            }
            Op::NonZero { .. }
            | Op::Nms { .. }
            | Op::Unique { .. }
            | Op::If { .. }
            | Op::Loop { .. } => {
                for operand in self.graph.operands(id).to_vec() {
                    self.materialise(operand);
                }
                self.start(id, Domain::closed(self.graph.ty(id)));
            }
            _ => return Err(self.unsupported(id)),
        }
        Ok(())
    }

    fn unsupported(&self, id: NodeId) -> CodegenError {
        let location: Vec<&str> = self.graph.locations(id).iter().map(AsRef::as_ref).collect();
        CodegenError::Unsupported {
            op: self.graph.op(id).name().to_owned(),
            location: location.join(", "),
        }
    }

    fn region_of(&self, id: NodeId) -> Option<usize> {
        match self.home[id.index()] {
            Home::Region(r) => Some(r),
            _ => None,
        }
    }

    /// Views (and casts) of values in memory: an anchor reads them in place.
    fn is_plain_read(&self, id: NodeId) -> bool {
        match (self.home[id.index()], self.graph.op(id)) {
            (Home::Leaf, op) => !matches!(op, Op::Iota { .. } | Op::DimValue { .. }),
            (Home::Region(_), _) => true,
            (Home::Virtual, Op::View { .. } | Op::Cast { .. }) => {
                self.is_plain_read(self.graph.operands(id)[0])
            }
            _ => false,
        }
    }

    fn place_pointwise(&mut self, id: NodeId) {
        let mut candidates: Vec<usize> = Vec::new();
        for &operand in self.graph.operands(id) {
            if let Some(region) = self.region_of(operand)
                && !candidates.contains(&region)
            {
                candidates.push(region);
            }
        }
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        let joined = candidates.into_iter().find(|&region| self.can_join(id, region));
        match joined {
            Some(region) => self.join(id, region),
            None => self.place_virtual(id),
        }
    }

    fn can_join(&self, id: NodeId, region: usize) -> bool {
        let draft = &self.regions[region];
        if draft.nodes.len() >= REGION_NODES_MAX || !draft.domain.holds(self.graph, id) {
            return false;
        }
        let (others, _) = self.needs_of(id);
        others.iter().all(|&other| other == region || !self.depends(other, region))
            && self.work_of(id) <= INLINED_WORK_MAX
    }

    /// Regions whose values computing `id` reads through virtual values, and
    /// these.
    fn needs_of(&self, id: NodeId) -> (BTreeSet<usize>, BTreeSet<NodeId>) {
        let mut out = BTreeSet::new();
        let mut stack: Vec<NodeId> = self.graph.operands(id).to_vec();
        let mut seen: BTreeSet<NodeId> = BTreeSet::new();
        while let Some(node) = stack.pop() {
            match self.home[node.index()] {
                Home::Region(r) => {
                    out.insert(r);
                }
                Home::Virtual if seen.insert(node) => stack.extend(self.graph.operands(node)),
                _ => {}
            }
        }
        (out, seen)
    }

    /// Whether `from` reads, directly or not, what `to` computes.
    fn depends(&self, from: usize, to: usize) -> bool {
        let mut stack = vec![from];
        let mut seen = BTreeSet::new();
        while let Some(region) = stack.pop() {
            if region == to {
                return true;
            }
            if seen.insert(region) {
                stack.extend(&self.regions[region].needs);
            }
        }
        false
    }

    fn work_of(&self, id: NodeId) -> u32 {
        let own = match self.graph.op(id) {
            Op::Scalar(op) if op.has(tgc_ir::scalar::traits::EXPENSIVE) => 12,
            Op::View { .. } | Op::Cast { .. } => 0,
            Op::Concat { .. } => 2 * self.graph.operands(id).len() as u32,
            Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => 3,
            _ => 1,
        };
        let inlined = self.graph.operands(id).iter().map(|o| match self.home[o.index()] {
            Home::Virtual => self.work[o.index()],
            _ => 0,
        });
        inlined.fold(own, u32::saturating_add)
    }

    fn place_virtual(&mut self, id: NodeId) {
        let work = self.work_of(id);
        self.home[id.index()] = Home::Virtual;
        self.work[id.index()] = work;
        let readers = self.users[id.index()].len() + usize::from(self.is_output[id.index()]);
        if work > INLINED_WORK_MAX
            || (readers > 1 && work > REPEATED_WORK_MAX)
            || self.is_output[id.index()]
        {
            self.materialise(id);
        }
    }

    fn place_reduce(&mut self, id: NodeId, axes: &[i64]) {
        let operand = self.graph.operands(id)[0];
        let shape = self.graph.shape(operand);
        let domain = Domain::rows(shape, axes);
        if let Some(region) = self.region_of(operand)
            && self.regions[region].domain == domain
            && self.can_join(id, region)
        {
            return self.join(id, region);
        }
        // A second statistic of the same values shares the pass over them.
        let sibling = self.users[operand.index()]
            .iter()
            .filter_map(|u| self.region_of(*u))
            .find(|&r| self.regions[r].domain == domain && self.can_join(id, r));
        if let Some(region) = sibling {
            return self.join(id, region);
        }
        if self.home[operand.index()] == Home::Virtual
            && self.work[operand.index()] > INLINED_WORK_MAX / 2
        {
            self.materialise(operand);
        }
        self.start(id, domain);
    }

    /// Anchors that read each operand element many times: operands are read in
    /// place, but what only shapes scores may be computed inside.
    fn place_products(&mut self, id: NodeId) {
        let op = self.graph.op(id);
        let is_attend = matches!(op, Op::Attend { .. });
        for (i, operand) in self.graph.operands(id).to_vec().into_iter().enumerate() {
            let cheap = is_attend && i >= 3 && self.work[operand.index()] <= INLINED_SCORE_WORK_MAX;
            if !cheap && !self.is_plain_read(operand) {
                self.materialise(operand);
            }
        }
        let is_rnn = matches!(op, Op::Rnn { .. });
        let ty = self.graph.ty(id);
        self.start(id, if is_rnn { Domain::closed(ty) } else { Domain::whole(ty) });
    }

    /// Virtual operands that are worth computing once before an anchor that
    /// reads elements several times.
    fn settle_operands(&mut self, id: NodeId) {
        for operand in self.graph.operands(id).to_vec() {
            if self.home[operand.index()] == Home::Virtual
                && self.work[operand.index()] > REPEATED_WORK_MAX
            {
                self.materialise(operand);
            }
        }
    }

    fn start(&mut self, id: NodeId, domain: Domain) {
        let region = self.regions.len();
        self.regions.push(Draft {
            domain,
            anchor: Some(id),
            nodes: BTreeSet::new(),
            inlined: BTreeSet::new(),
            needs: BTreeSet::new(),
        });
        self.join(id, region);
    }

    fn join(&mut self, id: NodeId, region: usize) {
        let (mut needs, inlined) = self.needs_of(id);
        needs.remove(&region);
        self.regions[region].needs.extend(needs);
        self.regions[region].inlined.extend(inlined);
        self.regions[region].nodes.insert(id);
        self.home[id.index()] = Home::Region(region);
    }

    /// Gives a virtual value a kernel of its own.
    fn materialise(&mut self, id: NodeId) {
        if self.home[id.index()] != Home::Virtual {
            return;
        }
        self.start_loops(id, Domain::whole(self.graph.ty(id)));
    }

    fn start_loops(&mut self, id: NodeId, domain: Domain) {
        let region = self.regions.len();
        self.regions.push(Draft {
            domain,
            anchor: None,
            nodes: BTreeSet::new(),
            inlined: BTreeSet::new(),
            needs: BTreeSet::new(),
        });
        self.join(id, region);
    }

    fn finish(self) -> Partition {
        let order = topological(&self.regions);
        // A value is stored when another region reads it, through virtual
        // values too, or when it is an output.
        let mut stored: BTreeSet<NodeId> = BTreeSet::new();
        for draft in &self.regions {
            let members = draft.nodes.iter().chain(&draft.inlined);
            stored.extend(members.flat_map(|n| self.graph.operands(*n)).copied().filter(|n| {
                !draft.nodes.contains(n)
                    && !draft.inlined.contains(n)
                    && self.region_of(*n).is_some()
            }));
        }
        stored.extend(self.graph.outputs().iter().map(|o| o.node));
        let regions = order
            .into_iter()
            .map(|r| {
                let draft = &self.regions[r];
                let nodes = draft.nodes.union(&draft.inlined).copied().collect();
                let outputs = draft.nodes.iter().copied().filter(|n| stored.contains(n)).collect();
                Region { anchor: draft.anchor, nodes, outputs }
            })
            .collect();
        Partition { regions, ..Partition::default() }
    }
}

/// Regions in an order in which every one follows those it needs; among the
/// ready ones the one whose first node is earliest.
fn topological(regions: &[Draft]) -> Vec<usize> {
    let mut done = vec![false; regions.len()];
    let mut order = Vec::with_capacity(regions.len());
    let first = |r: usize| regions[r].nodes.iter().next().copied().unwrap_or(NodeId(0));
    let mut waiting: BTreeSet<(NodeId, usize)> =
        (0..regions.len()).map(|r| (first(r), r)).collect();
    while !waiting.is_empty() {
        let ready =
            waiting.iter().find(|(_, r)| regions[*r].needs.iter().all(|n| done[*n])).copied();
        let next = ready.expect("joining never makes a cycle");
        waiting.remove(&next);
        done[next.1] = true;
        order.push(next.1);
    }
    order
}
