//! `layout`: in which order the axes of each value between regions lie in memory, per target.
//!
//! Convolutions and pooling of some targets read and write fastest where the channels of a cell are neighbours. Their
//! inputs and results then lie channels-last, and so do the values that pointwise code computes from or for them, so
//! that chains agree. What the caller sees (inputs, outputs, states) and weights stay row-major in the order of their
//! axes. Kernel programs carry strides, so no other stage needs to know.

use rustc_hash::FxHashSet;

use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::infer::after_rounds;
use tgc_ir::partition::{Partition, Region};
use tgc_ir::{Graph, NodeId, Op};

/// Where a region's values lie.
pub trait Layout {
    /// Strides of a value, in elements.
    fn strides(&self, node: NodeId) -> Vec<Dim>;
    /// Axes of a value from the slowest to the fastest in memory.
    fn order(&self, node: NodeId) -> Vec<usize>;
}

/// What the kernels of a target like to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preferences {
    /// Windows (convolution, pooling) are fastest where the channels of a cell are neighbours.
    pub windows_channels_last: bool,
}

impl Preferences {
    /// Those of a target.
    pub fn of(target: &str) -> Preferences {
        Preferences { windows_channels_last: target == "cpu" }
    }
}

/// The decision for a cut graph.
pub struct Layouts<'a> {
    graph: &'a Graph,
    channels_last: FxHashSet<NodeId>,
}

impl Layout for Layouts<'_> {
    fn strides(&self, node: NodeId) -> Vec<Dim> {
        if let Some(state) = crate::state::of_node(self.graph, node) {
            return state.strides(self.graph);
        }
        let shape = capacity_shape(self.graph, node);
        let mut strides = vec![Dim::ONE; shape.len()];
        let mut next = Dim::ONE;
        for axis in self.order(node).into_iter().rev() {
            strides[axis] = next.clone();
            next = next * shape[axis].clone();
        }
        strides
    }

    fn order(&self, node: NodeId) -> Vec<usize> {
        let rank = self.graph.shape(node).len();
        if !self.channels_last.contains(&node) {
            return (0..rank).collect();
        }
        [0].into_iter().chain(2..rank).chain([1]).collect()
    }
}

impl<'a> Layouts<'a> {
    /// Every value in the order of its axes.
    pub fn row_major(graph: &'a Graph) -> Layouts<'a> {
        Layouts { graph, channels_last: FxHashSet::default() }
    }
}

/// The extents that memory for a value is laid out for: those of a loop's
/// growing result at the bound of its rounds.
pub(crate) fn capacity_shape(graph: &Graph, node: NodeId) -> Vec<Dim> {
    let shape = graph.shape(node).to_vec();
    let (Op::Proj { index }, [tuple]) = (graph.op(node), graph.operands(node)) else {
        return shape;
    };
    match graph.op(*tuple) {
        Op::Loop { carried, rounds, .. } if index < carried => {
            after_rounds(&shape, rounds, &rounds_max(graph, rounds))
        }
        _ => shape,
    }
}

/// The most rounds of a loop that a symbol counts.
pub(crate) fn rounds_max(graph: &Graph, rounds: &Symbol) -> Dim {
    let found = graph.data_symbols.iter().find(|(symbol, _)| symbol == rounds);
    found.map_or_else(|| Dim::from(rounds), |(_, bound)| bound.clone())
}

/// Decides the layout of every value between regions.
pub fn decide<'a>(
    graph: &'a Graph,
    partition: &Partition,
    preferences: Preferences,
) -> Layouts<'a> {
    let mut decision = Decision::new(graph, partition);
    if preferences.windows_channels_last {
        decision.at_windows();
        decision.towards_producers();
        decision.towards_readers();
    }
    Layouts { graph, channels_last: decision.channels_last }
}

struct Decision<'a> {
    graph: &'a Graph,
    partition: &'a Partition,
    /// Values whose layout is ours to choose.
    free: FxHashSet<NodeId>,
    channels_last: FxHashSet<NodeId>,
}

impl<'a> Decision<'a> {
    fn new(graph: &'a Graph, partition: &'a Partition) -> Self {
        let outputs: FxHashSet<NodeId> = graph.outputs().iter().map(|o| o.node).collect();
        let free = partition
            .regions
            .iter()
            .filter(|region| !fixes_its_results(graph, region))
            .flat_map(|region| &region.outputs)
            .copied()
            .filter(|n| graph.shape(*n).len() >= 3 && !outputs.contains(n))
            .filter(|n| crate::state::of_node(graph, *n).is_none())
            .collect();
        Self { graph, partition, free, channels_last: FxHashSet::default() }
    }

    fn choose(&mut self, node: NodeId) {
        if self.free.contains(&node) {
            self.channels_last.insert(node);
        }
    }

    /// What windows read and write.
    fn at_windows(&mut self) {
        for region in &self.partition.regions {
            let Some(anchor) = region.anchor else { continue };
            if !matches!(self.graph.op(anchor), Op::Conv { .. } | Op::Pool { .. }) {
                continue;
            }
            let rank = self.graph.shape(self.graph.operands(anchor)[0]).len();
            self.choose(self.under_casts(self.graph.operands(anchor)[0]));
            for &output in &region.outputs {
                if self.graph.shape(output).len() == rank {
                    self.choose(output);
                }
            }
        }
    }

    fn under_casts(&self, mut node: NodeId) -> NodeId {
        while !self.free.contains(&node) && matches!(self.graph.op(node), Op::Cast { .. }) {
            node = self.graph.operands(node)[0];
        }
        node
    }

    /// Values that pointwise code reads to compute channels-last ones.
    fn towards_producers(&mut self) {
        for region in self.partition.regions.iter().rev() {
            if is_pointwise(self.graph, region)
                && region.outputs.iter().any(|o| self.channels_last.contains(o))
            {
                for node in self.read_in_order(region) {
                    self.choose(node);
                }
            }
        }
    }

    /// Values that pointwise code computes from channels-last ones.
    fn towards_readers(&mut self) {
        for region in &self.partition.regions {
            if is_pointwise(self.graph, region)
                && self.read_in_order(region).iter().any(|n| self.channels_last.contains(n))
            {
                for &output in &region.outputs {
                    self.choose(output);
                }
            }
        }
    }

    /// Stored values that a region reads axis by axis, through no view.
    fn read_in_order(&self, region: &Region) -> Vec<NodeId> {
        let mut out = Vec::new();
        let mut stack = region.outputs.clone();
        let mut seen: FxHashSet<NodeId> = stack.iter().copied().collect();
        while let Some(node) = stack.pop() {
            let operands = self.graph.operands(node);
            let followed = match self.graph.op(node) {
                Op::View { .. } => &[][..],
                Op::Gather { .. } | Op::GatherElements { .. } | Op::Pad { .. } => &operands[..1],
                _ => operands,
            };
            for &operand in followed {
                let same_rank = self.graph.shape(operand).len() == self.graph.shape(node).len();
                if !same_rank || !seen.insert(operand) {
                    continue;
                }
                if region.nodes.contains(&operand) {
                    stack.push(operand);
                } else if self.free.contains(&operand) {
                    out.push(operand);
                }
            }
        }
        out
    }
}

/// Pointwise code, with row reductions or without.
fn is_pointwise(graph: &Graph, region: &Region) -> bool {
    region.anchor.is_none_or(|anchor| matches!(graph.op(anchor), Op::Reduce { .. }))
}

/// Regions that the host runs, that update memory or that hold other graphs
/// write row-major results.
fn fixes_its_results(graph: &Graph, region: &Region) -> bool {
    region.anchor.is_some_and(|anchor| {
        matches!(
            graph.op(anchor),
            Op::NonZero { .. }
                | Op::Nms { .. }
                | Op::Unique { .. }
                | Op::ScatterElements { .. }
                | Op::ScatterNd { .. }
                | Op::Rnn { .. }
                | Op::If { .. }
                | Op::Loop { .. }
        )
    })
}

#[cfg(test)]
mod tests {
    use tgc_ir::plan::Place;

    /// Two convolutions with a concatenation between.
    const CHAIN: &str = r#"graph "conv_chain" {
  symbol "N" 1..
  weight 0 "v" f32[2, 1, 1, 1] {0.5, -0.25}
  weight 1 "w" f32[1, 4, 1, 1] {0.1, 0.2, 0.3, 0.4}
  %0 = input name=x ty="f32[N, 1, 5, 6]"
  %1 = weight index=0
  %2 = conv %0 %1 spec="(groups:1,stride:[1,1],dilation:[1,1],pad_low:[\"0\",\"0\"],pad_high:[\"0\",\"0\"],transposed:false,output_pad:[0,0])"
  %3 = tanh %2
  %4 = concat %2 %3 axis=1
  %5 = weight index=1
  %6 = conv %4 %5 spec="(groups:1,stride:[1,1],dilation:[1,1],pad_low:[\"0\",\"0\"],pad_high:[\"0\",\"0\"],transposed:false,output_pad:[0,0])"
  output "y" %6
}
"#;

    #[test]
    fn values_between_windows_are_channels_last_where_the_target_profits() {
        let graph = tgc_ir::text::parse(CHAIN).expect("parses");
        for (target, channel) in [("cpu", "1"), ("sm_80", "30")] {
            let plan = crate::compile(&graph, target).expect("compiles").plan;
            assert!(plan.buffers.len() > 4);
            for buffer in plan.buffers.iter().filter(|b| b.shape.len() == 4) {
                let expected = match buffer.place {
                    Place::Arena { .. } => channel,
                    Place::Input(_) | Place::Output(_) => "30",
                    Place::Weight(_) => continue,
                };
                assert_eq!(buffer.strides[1].to_string(), expected, "{} {target}", buffer.name);
            }
        }
    }
}
