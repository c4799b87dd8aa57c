//! Branches and loops as nested steps.
//!
//! A region is cut and lowered like the model itself; its parameters stand for
//! buffers of the graph around it. Both branches leave a result in one buffer.
//! A carried value has one buffer, too: it starts as the operand, a round reads
//! it, and what the round makes of it is copied back. Where it grows, its
//! strides are those of its extents after the last possible round.

use rustc_hash::FxHashMap;

use tgc_ir::dim::{Dim, Symbol};
use tgc_ir::infer::after_rounds;
use tgc_ir::kernel_program::{Buffer, ScalarConst};
use tgc_ir::partition::{Partition, Region};
use tgc_ir::plan::{LoopStep, Place, Step, Trip};
use tgc_ir::{Graph, NodeId, Op};

use super::{Builder, bytes_spanned, constants, in_place};
use crate::CodegenError;
use crate::layout::{Layout, Layouts, rounds_max};

/// Parameters lie where the graph around the region has them.
struct RegionLayout<'a> {
    own: Layouts<'a>,
    parameters: FxHashMap<NodeId, Vec<Dim>>,
}

impl Layout for RegionLayout<'_> {
    fn strides(&self, node: NodeId) -> Vec<Dim> {
        match self.parameters.get(&node) {
            Some(strides) => strides.clone(),
            None => self.own.strides(node),
        }
    }

    fn order(&self, node: NodeId) -> Vec<usize> {
        self.own.order(node)
    }
}

/// The literal truth value of a node.
fn truth(graph: &Graph, node: NodeId) -> Option<bool> {
    graph.splat_value(node).map(|v| v.as_f64() != 0.0)
}

/// Whether a region computes with each of its parameters.
fn read_parameters(region: &Graph) -> Vec<bool> {
    let live = region.live();
    region.inputs().iter().map(|n| live[n.index()]).collect()
}

/// The parts of a loop that its body and the graph around it share.
struct Repeated<'a> {
    node: NodeId,
    body: &'a Graph,
    /// Buffer of each carried value.
    states: Vec<u32>,
    /// Buffer of each stacked result that is read.
    stacks: Vec<Option<u32>>,
    condition: Option<u32>,
    /// What a round makes of each carried value and of the condition.
    carried: Vec<(u32, u32)>,
    stacked: Vec<(u32, u32)>,
}

impl Builder<'_, '_> {
    /// Steps of a region whose anchor has regions; false when it has none.
    pub(super) fn control(
        &mut self,
        region: &Region,
        steps: &mut Vec<Step>,
    ) -> Result<bool, CodegenError> {
        let Some(node) = region.anchor else { return Ok(false) };
        let graph = self.graph;
        let is_result = |n: &&NodeId, i: usize| matches!(graph.op(**n), Op::Proj { index } if *index == i as i64);
        let results: Vec<Option<NodeId>> = (0..graph.types(node).len())
            .map(|i| region.outputs.iter().find(|n| is_result(n, i)).copied())
            .collect();
        match graph.op(node) {
            Op::If { then, otherwise } => {
                let step = self.branch(node, [then.graph(), otherwise.graph()], &results, steps)?;
                steps.push(step);
            }
            Op::Loop { body, carried, rounds } => {
                let step =
                    self.repeat(node, body.graph(), *carried as usize, rounds, &results, steps)?;
                steps.push(Step::Loop(Box::new(step)));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn branch(
        &mut self,
        node: NodeId,
        branches: [&Graph; 2],
        results: &[Option<NodeId>],
        steps: &mut Vec<Step>,
    ) -> Result<Step, CodegenError> {
        let operands = self.graph.operands(node).to_vec();
        let predicate = self.value(operands[0], steps);
        let reads = branches.map(read_parameters);
        let captures: Vec<Option<u32>> = operands[1..]
            .iter()
            .enumerate()
            .map(|(i, &n)| (reads[0][i] || reads[1][i]).then(|| self.value(n, steps)))
            .collect();
        let results: Vec<Option<u32>> = results.iter().map(|r| r.map(|n| self.buffer(n))).collect();
        let [then_steps, else_steps] = [0, 1].map(|which| {
            let region = branches[which];
            let wanted: Vec<(NodeId, u32)> = region
                .outputs()
                .iter()
                .zip(&results)
                .filter_map(|(output, buffer)| Some((output.node, (*buffer)?)))
                .collect();
            self.nested((node, which), region, &captures, |inner, partition, steps| {
                wanted.iter().for_each(|(n, buffer)| inner.prefer(*n, *buffer));
                inner.regions(partition, steps)?;
                wanted.iter().for_each(|(n, buffer)| inner.fill(*n, *buffer, steps));
                Ok(())
            })
        });
        Ok(Step::If { predicate, then_steps: then_steps?, else_steps: else_steps? })
    }

    /// Steps of a region whose parameters lie in given buffers.
    fn nested(
        &mut self,
        (node, which): (NodeId, usize),
        region: &Graph,
        parameters: &[Option<u32>],
        build: impl FnOnce(&mut Builder<'_, '_>, &Partition, &mut Vec<Step>) -> Result<(), CodegenError>,
    ) -> Result<Vec<Step>, CodegenError> {
        let partition = crate::cut::cut(region)?;
        partition.verify(region)?;
        let given = || {
            let pairs = region.inputs().iter().zip(parameters);
            pairs.filter_map(|(n, buffer)| Some((*n, (*buffer)?)))
        };
        let strides = |buffer: u32| self.memory.buffers[buffer as usize].strides.clone();
        let layout = RegionLayout {
            own: Layouts::row_major(region),
            parameters: given().map(|(n, buffer)| (n, strides(buffer))).collect(),
        };
        let first_constant =
            self.first_constant + constants::first_of_region(self.graph, node, which);
        let mut inner = Builder::new(region, &layout, self.memory, first_constant);
        inner.of_node = given().collect();
        let mut steps = Vec::new();
        build(&mut inner, &partition, &mut steps)?;
        Ok(steps)
    }

    fn repeat(
        &mut self,
        node: NodeId,
        body: &Graph,
        carried: usize,
        rounds: &Symbol,
        results: &[Option<NodeId>],
        steps: &mut Vec<Step>,
    ) -> Result<LoopStep, CodegenError> {
        let operands = self.graph.operands(node).to_vec();
        let most = rounds_max(self.graph, rounds);
        let body = &in_place::with_appends(body, carried, rounds, &most);
        let trip = self.trip(operands[0], steps);
        let mut states = Vec::new();
        for (i, result) in results.iter().enumerate().take(carried) {
            let state = match result {
                Some(n) => self.buffer(*n),
                None => self.state(body, body.inputs()[1 + i], rounds, &most),
            };
            self.fill(operands[2 + i], state, steps);
            states.push(state);
        }
        let condition = self.condition(body, operands[1], steps);
        let reads = read_parameters(body);
        let iteration = reads[0].then(|| self.scratch(body, body.inputs()[0], "round"));
        let captures = operands[2 + carried..].iter().zip(&reads[1 + carried..]);
        let captures: Vec<Option<u32>> =
            captures.map(|(n, is_read)| is_read.then(|| self.value(*n, steps))).collect();
        let parameters: Vec<Option<u32>> = std::iter::once(iteration)
            .chain(states.iter().map(|s| Some(*s)))
            .chain(captures)
            .collect();
        let stacks = results[carried..].iter().map(|r| r.map(|n| self.buffer(n))).collect();
        let mut parts = Repeated {
            node,
            body,
            states,
            stacks,
            condition,
            carried: Vec::new(),
            stacked: Vec::new(),
        };
        let counts_rounds = mentions(body.inputs().iter().flat_map(|n| body.shape(*n)), rounds);
        let is_counted = counts_rounds || parts.stacks.iter().any(Option::is_some);
        let body = self.round(&mut parts, &parameters)?;
        Ok(LoopStep {
            trip,
            condition,
            iteration,
            body,
            carried: parts.carried,
            stacked: parts.stacked,
            rounds: is_counted.then(|| rounds.clone()),
            counts_rounds,
        })
    }

    /// The body's steps, and where it leaves its results.
    fn round(
        &mut self,
        parts: &mut Repeated<'_>,
        parameters: &[Option<u32>],
    ) -> Result<Vec<Step>, CodegenError> {
        let (node, body) = (parts.node, parts.body);
        let outputs: Vec<NodeId> = body.outputs().iter().map(|o| o.node).collect();
        let carried = parts.states.len();
        self.nested((node, 0), body, parameters, |inner, partition, steps| {
            for state in crate::state::in_place(body) {
                let buffer = parts.states[state.state.input - 1];
                inner.of_node.insert(state.present, buffer);
            }
            inner.regions(partition, steps)?;
            for (i, &state) in parts.states.iter().enumerate() {
                let value = match outputs[1 + i] {
                    same if same == body.inputs()[1 + i] => state,
                    changed => inner.result(changed, steps),
                };
                parts.carried.push((value, state));
            }
            if let Some(condition) = parts.condition
                && truth(body, outputs[0]).is_none_or(|go| !go)
            {
                let value = inner.result(outputs[0], steps);
                parts.carried.push((value, condition));
            }
            for (&output, stack) in outputs[1 + carried..].iter().zip(&parts.stacks) {
                if let Some(stack) = stack {
                    let value = inner.result(output, steps);
                    parts.stacked.push((value, *stack));
                }
            }
            in_place::merge(inner.memory, steps, [&mut parts.carried, &mut parts.stacked]);
            Ok(())
        })
    }

    /// A buffer with what a round gives; a parameter is copied, since carried
    /// values change before results are taken.
    fn result(&mut self, node: NodeId, steps: &mut Vec<Step>) -> u32 {
        let from = self.value(node, steps);
        if !matches!(self.graph.op(node), Op::Input { .. }) {
            return from;
        }
        let place = Place::Arena { offset: Dim::ZERO };
        let to = self.add_with(&self.name(node), node, place, self.layout.strides(node));
        steps.push(Step::Copy { from, to });
        to
    }

    fn trip(&mut self, node: NodeId, steps: &mut Vec<Step>) -> Trip {
        match self.graph.op(node) {
            Op::DimValue { value } => Trip::Known(value.clone()),
            _ => match self.graph.splat_value(node) {
                Some(ScalarConst::Int(i64::MAX)) => Trip::Unbounded,
                Some(ScalarConst::Int(n)) => Trip::Known(Dim::Const(n)),
                _ => Trip::Read(self.value(node, steps)),
            },
        }
    }

    /// The buffer that is read before every round; none when it always holds.
    fn condition(&mut self, body: &Graph, first: NodeId, steps: &mut Vec<Step>) -> Option<u32> {
        let next = body.outputs()[0].node;
        if truth(body, next) == Some(true) {
            let is_true = truth(self.graph, first) == Some(true);
            return (!is_true).then(|| self.value(first, steps));
        }
        let buffer = self.scratch(body, next, "condition");
        self.fill(first, buffer, steps);
        Some(buffer)
    }

    /// Memory for a carried value whose result nobody reads.
    fn state(&mut self, body: &Graph, parameter: NodeId, rounds: &Symbol, most: &Dim) -> u32 {
        let shape = after_rounds(body.shape(parameter), rounds, most);
        let strides = Buffer::dense_strides(&shape);
        let index = self.scratch(body, parameter, "carried");
        let buffer = &mut self.memory.buffers[index as usize];
        buffer.bytes = bytes_spanned(buffer.dtype, &shape, &strides);
        buffer.strides = strides;
        index
    }

    /// Memory for a value of the type of a region's node.
    fn scratch(&mut self, region: &Graph, node: NodeId, name: &str) -> u32 {
        let layout = Layouts::row_major(region);
        let place = Place::Arena { offset: Dim::ZERO };
        Builder::new(region, &layout, self.memory, 0).add(name, node, place)
    }
}

fn mentions<'a>(mut dims: impl Iterator<Item = &'a Dim>, symbol: &Symbol) -> bool {
    dims.any(|d| d.mentions(symbol))
}
