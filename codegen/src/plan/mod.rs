//! Plan building: order, memory and symbols of a lowered partition.

mod arena;
mod constants;
mod control;
mod in_place;
mod literal;
mod symbols;

use indexmap::IndexMap;
use rustc_hash::FxHashMap;

use tgc_ir::dim::Dim;
use tgc_ir::kernel_program::{Buffer, KernelProgram};
use tgc_ir::partition::Partition;
use tgc_ir::plan::{HostStep, Launch, Place, Plan, PlanBuffer, Port, Step};
use tgc_ir::{DType, Graph, NodeId, Op};

use crate::CodegenError;
use crate::layout::Layout;
use crate::lower::{Lowered, lower};
pub use constants::{Constant, constants};

/// A plan and what its buffers hold.
#[derive(Clone, Debug)]
pub struct Planned {
    /// The plan.
    pub plan: Plan,
    /// Per buffer of the plan the value of the graph that it holds; none for
    /// buffers of nested regions.
    pub values: Vec<Option<NodeId>>,
}

/// Builds the plan of a cut graph.
pub fn build(
    graph: &Graph,
    partition: &Partition,
    layout: &dyn Layout,
    target: &str,
) -> Result<Planned, CodegenError> {
    let mut memory = Memory::default();
    let mut builder = Builder::new(graph, layout, &mut memory, 0);
    let (inputs, outputs) = builder.ports();
    let mut steps = Vec::new();
    builder.regions(partition, &mut steps)?;
    for (output, port) in graph.outputs().iter().zip(&outputs) {
        builder.fill(output.node, port.buffer, &mut steps);
    }
    let symbols = symbols::sources(graph, &steps)?;
    let held = builder.of_node;
    let Memory { mut buffers, kernels } = memory;
    let arena_bytes = arena::assign(&mut buffers, &steps, &graph.facts);
    let mut values = vec![None; buffers.len()];
    held.into_iter().for_each(|(node, buffer)| values[buffer as usize] = Some(node));
    let plan = Plan {
        target: target.to_owned(),
        symbols,
        requires: graph.facts.requires().to_vec(),
        inputs,
        outputs,
        buffers,
        steps,
        arena_bytes,
        kernels: name_kernels(kernels),
    };
    Ok(Planned { plan, values })
}

/// What the plans of a graph and of its regions share.
#[derive(Default)]
struct Memory {
    buffers: Vec<PlanBuffer>,
    kernels: IndexMap<KernelProgram, ()>,
}

/// The steps of one graph: the model's or a region's.
struct Builder<'a, 'm> {
    graph: &'a Graph,
    layout: &'a dyn Layout,
    memory: &'m mut Memory,
    of_node: FxHashMap<NodeId, u32>,
    /// Number of the graph's first constant.
    first_constant: usize,
}

impl<'a, 'm> Builder<'a, 'm> {
    fn new(
        graph: &'a Graph,
        layout: &'a dyn Layout,
        memory: &'m mut Memory,
        first_constant: usize,
    ) -> Builder<'a, 'm> {
        Builder { graph, layout, memory, of_node: FxHashMap::default(), first_constant }
    }

    fn ports(&mut self) -> (Vec<Port>, Vec<Port>) {
        let graph = self.graph;
        let mut inputs = Vec::new();
        for (i, &node) in graph.inputs().iter().enumerate() {
            let Op::Input { name, .. } = graph.op(node) else { continue };
            let buffer = self.add(name, node, Place::Input(i as u32));
            self.of_node.insert(node, buffer);
            let state = crate::state::of_node(graph, node).map(|s| s.state.output as u32);
            inputs.push(self.port(name, node, buffer, state));
        }
        let mut outputs = Vec::new();
        for (i, output) in graph.outputs().iter().enumerate() {
            // The next value of a state lies in the state's own buffer.
            let state = crate::state::of_node(graph, output.node);
            let place = match &state {
                Some(state) if state.state.output == i => Place::Input(state.state.input as u32),
                _ => Place::Output(i as u32),
            };
            // What the caller gets is dense.
            let strides = match state {
                Some(_) => self.layout.strides(output.node),
                None => Buffer::dense_strides(graph.shape(output.node)),
            };
            let buffer = self.add_with(&output.name, output.node, place, strides);
            self.prefer(output.node, buffer);
            outputs.push(self.port(&output.name, output.node, buffer, None));
        }
        (inputs, outputs)
    }

    /// Has a value computed in a buffer, where its layout allows: a value that
    /// is wanted in two places, a leaf or one of other strides is copied.
    fn prefer(&mut self, node: NodeId, buffer: u32) {
        let strides = &self.memory.buffers[buffer as usize].strides;
        if !self.graph.op(node).is_leaf() && *strides == self.layout.strides(node) {
            self.of_node.entry(node).or_insert(buffer);
        }
    }

    fn port(&self, name: &str, node: NodeId, buffer: u32, state: Option<u32>) -> Port {
        let ty = self.graph.ty(node);
        Port { name: name.to_owned(), dtype: ty.dtype, shape: ty.shape.to_vec(), buffer, state }
    }

    fn add(&mut self, name: &str, node: NodeId, place: Place) -> u32 {
        self.add_with(name, node, place, self.layout.strides(node))
    }

    fn add_with(&mut self, name: &str, node: NodeId, place: Place, strides: Vec<Dim>) -> u32 {
        let ty = self.graph.ty(node);
        // What grows has its full capacity from the start.
        let extents = match crate::state::of_node(self.graph, node) {
            Some(state) => state.buffer_shape(self.graph),
            None => crate::layout::capacity_shape(self.graph, node),
        };
        let bytes = bytes_spanned(ty.dtype, &extents, &strides);
        self.memory.buffers.push(PlanBuffer {
            name: name.to_owned(),
            dtype: ty.dtype,
            shape: ty.shape.to_vec(),
            strides,
            bytes,
            place,
        });
        (self.memory.buffers.len() - 1) as u32
    }

    /// The buffer of a value, made at first mention.
    fn buffer(&mut self, node: NodeId) -> u32 {
        if let Some(&known) = self.of_node.get(&node) {
            return known;
        }
        let graph = self.graph;
        let constant = |number: usize| Place::Weight((self.first_constant + number) as u32);
        let (name, place) = match graph.op(node) {
            Op::Weight { index } => {
                (graph.weights()[*index as usize].name.to_string(), constant(*index as usize))
            }
            Op::Constant { .. } => {
                (format!("literal{node}"), constant(constants::literal(graph, node)))
            }
            _ => (self.name(node), Place::Arena { offset: Dim::ZERO }),
        };
        let buffer = self.add(&name, node, place);
        self.of_node.insert(node, buffer);
        buffer
    }

    fn name(&self, node: NodeId) -> String {
        let location = self.graph.locations(node).iter().next_back().map(ToString::to_string);
        location.unwrap_or_else(|| node.to_string())
    }

    /// Steps of every region, in order.
    fn regions(
        &mut self,
        partition: &Partition,
        steps: &mut Vec<Step>,
    ) -> Result<(), CodegenError> {
        for region in &partition.regions {
            if self.control(region, steps)? {
                continue;
            }
            let lowered = lower(self.graph, region, self.layout)?;
            let step = self.step(lowered, provenance(self.graph, &region.nodes));
            steps.push(step);
        }
        Ok(())
    }

    fn step(&mut self, lowered: Lowered, provenance: Vec<String>) -> Step {
        match lowered {
            Lowered::Kernel { program, arguments } => {
                let buffers: Vec<u32> = arguments.into_iter().map(|n| self.buffer(n)).collect();
                self.launch(*program, buffers, provenance)
            }
            Lowered::Host { op, inputs, outputs, count } => {
                let inputs = inputs.into_iter().map(|n| self.buffer(n)).collect();
                let outputs = outputs
                    .into_iter()
                    .map(|n| n.map_or(tgc_ir::plan::NO_BUFFER, |n| self.buffer(n)))
                    .collect();
                Step::Host(HostStep { op, inputs, outputs, count: Some(count) })
            }
        }
    }

    fn launch(
        &mut self,
        mut program: KernelProgram,
        buffers: Vec<u32>,
        provenance: Vec<String>,
    ) -> Step {
        for (argument, &buffer) in program.buffers.iter_mut().zip(&buffers) {
            // A region sees a weight of the model as a parameter.
            let place = &self.memory.buffers[buffer as usize].place;
            argument.constant = matches!(place, Place::Weight(_));
        }
        let (kernel, _) = self.memory.kernels.insert_full(program, ());
        Step::Launch(Launch { kernel: kernel as u32, buffers, variants: Vec::new(), provenance })
    }

    /// The buffer in which a value can be read; a literal is written first.
    fn value(&mut self, node: NodeId, steps: &mut Vec<Step>) -> u32 {
        let is_known = self.of_node.contains_key(&node);
        let buffer = self.buffer(node);
        if !is_known && literal::is_needed(self.graph, node) {
            self.write_literal(node, buffer, steps);
            // Where steps may be skipped, the next reader writes it again.
            self.of_node.remove(&node);
        }
        buffer
    }

    fn write_literal(&mut self, node: NodeId, buffer: u32, steps: &mut Vec<Step>) {
        let strides = self.memory.buffers[buffer as usize].strides.clone();
        let program = literal::kernel(self.graph, node, strides);
        let step = self.launch(program, vec![buffer], Vec::new());
        steps.push(step);
    }

    /// Brings a value to a buffer, unless it is computed there.
    fn fill(&mut self, node: NodeId, to: u32, steps: &mut Vec<Step>) {
        if literal::is_needed(self.graph, node) {
            return self.write_literal(node, to, steps);
        }
        let from = self.buffer(node);
        if from != to {
            steps.push(Step::Copy { from, to });
        }
    }
}

/// Bytes from the first to the last element.
fn bytes_spanned(dtype: DType, extents: &[Dim], strides: &[Dim]) -> Dim {
    let span = extents
        .iter()
        .zip(strides)
        .fold(Dim::ONE, |sum, (d, s)| sum + (d.clone() - Dim::ONE) * s.clone());
    match dtype.bytes() {
        Some(width) => span * Dim::Const(width as i64),
        None => (span + Dim::ONE).floor_div(&Dim::Const(2)),
    }
}

/// Readable unique names: family and number.
fn name_kernels(kernels: IndexMap<KernelProgram, ()>) -> Vec<KernelProgram> {
    let mut counts: FxHashMap<&'static str, u32> = FxHashMap::default();
    kernels
        .into_keys()
        .map(|mut program| {
            let family = program.family();
            let n = counts.entry(family).or_insert(0);
            program.name = format!("{family}_{n}");
            *n += 1;
            program
        })
        .collect()
}

/// The ONNX nodes that a region's members come from, in order.
fn provenance(graph: &Graph, nodes: &[NodeId]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for name in nodes.iter().flat_map(|n| graph.locations(*n)) {
        if !out.iter().any(|o| **o == **name) {
            out.push(name.to_string());
        }
    }
    out
}
