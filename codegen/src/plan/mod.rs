//! Plan building: order, memory and symbols of a lowered partition.

mod arena;
mod symbols;

use indexmap::IndexMap;
use rustc_hash::FxHashMap;

use tgc_ir::dim::Dim;
use tgc_ir::kernel_program::{Buffer, KernelProgram};
use tgc_ir::partition::Partition;
use tgc_ir::plan::{HostStep, Launch, Place, Plan, PlanBuffer, Port, Step};
use tgc_ir::tensor::Tensor;
use tgc_ir::{Graph, NodeId, Op};

use crate::CodegenError;
use crate::lower::{Layout, Lowered, lower};

/// Row-major everywhere.
struct DenseLayout<'a>(&'a Graph);

impl Layout for DenseLayout<'_> {
    fn strides(&self, node: NodeId) -> Vec<Dim> {
        match crate::state::of_node(self.0, node) {
            Some(state) => state.strides(self.0),
            None => Buffer::dense_strides(self.0.shape(node)),
        }
    }
}

/// Builds the plan of a cut graph.
pub fn build(graph: &Graph, partition: &Partition, target: &str) -> Result<Plan, CodegenError> {
    let layout = DenseLayout(graph);
    let mut builder = Builder {
        graph,
        layout: &layout,
        buffers: Vec::new(),
        of_node: FxHashMap::default(),
        kernels: IndexMap::new(),
    };
    let (inputs, outputs) = builder.ports();
    let mut steps = Vec::new();
    for region in &partition.regions {
        let lowered = lower(graph, region, &layout)?;
        steps.push(builder.step(lowered, provenance(graph, &region.nodes)));
    }
    builder.fill_repeated_outputs(&outputs, &mut steps);
    let symbols = symbols::sources(graph, &steps)?;
    let arena_bytes = arena::assign(&mut builder.buffers, &steps, &graph.facts);
    Ok(Plan {
        target: target.to_owned(),
        symbols,
        requires: graph.facts.requires().to_vec(),
        inputs,
        outputs,
        buffers: builder.buffers,
        steps,
        arena_bytes,
        kernels: name_kernels(builder.kernels),
    })
}

/// The contents behind [`Place::Weight`]: the graph's weights, then its dense
/// literals in node order.
pub fn weights(graph: &Graph) -> Vec<Option<Tensor>> {
    let literals = graph.ids().filter_map(|id| match graph.op(id) {
        Op::Constant { value } => Some(Some((*value.0).clone())),
        _ => None,
    });
    graph.weights().iter().map(|w| w.data.clone()).chain(literals).collect()
}

struct Builder<'a> {
    graph: &'a Graph,
    layout: &'a dyn Layout,
    buffers: Vec<PlanBuffer>,
    of_node: FxHashMap<NodeId, u32>,
    kernels: IndexMap<KernelProgram, ()>,
}

impl Builder<'_> {
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
            let place = match crate::state::of_node(graph, output.node) {
                Some(state) if state.state.output == i => Place::Input(state.state.input as u32),
                _ => Place::Output(i as u32),
            };
            let buffer = self.add(&output.name, output.node, place);
            // A value that is an output twice, or a leaf, is copied at the end.
            if !graph.op(output.node).is_leaf() {
                self.of_node.entry(output.node).or_insert(buffer);
            }
            outputs.push(self.port(&output.name, output.node, buffer, None));
        }
        (inputs, outputs)
    }

    fn port(&self, name: &str, node: NodeId, buffer: u32, state: Option<u32>) -> Port {
        let ty = self.graph.ty(node);
        Port { name: name.to_owned(), dtype: ty.dtype, shape: ty.shape.to_vec(), buffer, state }
    }

    fn add(&mut self, name: &str, node: NodeId, place: Place) -> u32 {
        let ty = self.graph.ty(node);
        let strides = self.layout.strides(node);
        // Bytes from the first to the last element.
        let span = ty
            .shape
            .iter()
            .zip(&strides)
            .fold(Dim::ONE, |sum, (d, s)| sum + (d.clone() - Dim::ONE) * s.clone());
        // A state's buffer has its full capacity from the start.
        let span = match crate::state::of_node(self.graph, node) {
            Some(state) => Dim::product(&state.buffer_shape(self.graph)),
            None => span,
        };
        let bytes = match ty.dtype.bytes() {
            Some(width) => span * Dim::Const(width as i64),
            None => (span + Dim::ONE).floor_div(&Dim::Const(2)),
        };
        self.buffers.push(PlanBuffer {
            name: name.to_owned(),
            dtype: ty.dtype,
            shape: ty.shape.to_vec(),
            strides,
            bytes,
            place,
        });
        (self.buffers.len() - 1) as u32
    }

    /// The buffer of a value, made at first mention.
    fn buffer(&mut self, node: NodeId) -> u32 {
        if let Some(&known) = self.of_node.get(&node) {
            return known;
        }
        let graph = self.graph;
        let (name, place) = match graph.op(node) {
            Op::Weight { index } => {
                (graph.weights()[*index as usize].name.to_string(), Place::Weight(*index as u32))
            }
            Op::Constant { .. } => {
                let before = graph
                    .ids()
                    .take(node.index())
                    .filter(|n| matches!(graph.op(*n), Op::Constant { .. }))
                    .count();
                (format!("literal{node}"), Place::Weight((graph.weights().len() + before) as u32))
            }
            _ => {
                let location = graph.locations(node).iter().next_back().map(ToString::to_string);
                (location.unwrap_or_else(|| node.to_string()), Place::Arena { offset: Dim::ZERO })
            }
        };
        let buffer = self.add(&name, node, place);
        self.of_node.insert(node, buffer);
        buffer
    }

    fn step(&mut self, lowered: Lowered, provenance: Vec<String>) -> Step {
        match lowered {
            Lowered::Kernel { program, arguments } => {
                let buffers = arguments.into_iter().map(|n| self.buffer(n)).collect();
                let (kernel, _) = self.kernels.insert_full(*program, ());
                Step::Launch(Launch {
                    kernel: kernel as u32,
                    buffers,
                    variants: Vec::new(),
                    provenance,
                })
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

    /// Outputs that no kernel writes: leaves, and values that are several outputs.
    fn fill_repeated_outputs(&mut self, outputs: &[Port], steps: &mut Vec<Step>) {
        for (output, port) in self.graph.outputs().iter().zip(outputs) {
            let op = self.graph.op(output.node);
            let from = match op {
                Op::Input { .. } | Op::Weight { .. } | Op::Constant { .. } => {
                    self.buffer(output.node)
                }
                _ if op.is_leaf() => {
                    let program = literal_kernel(self.graph, output.node);
                    let (kernel, _) = self.kernels.insert_full(program, ());
                    let buffers = vec![port.buffer];
                    steps.push(Step::Launch(Launch {
                        kernel: kernel as u32,
                        buffers,
                        variants: Vec::new(),
                        provenance: Vec::new(),
                    }));
                    continue;
                }
                _ => self.of_node[&output.node],
            };
            if from != port.buffer {
                steps.push(Step::Copy { from, to: port.buffer });
            }
        }
    }
}

/// A kernel that writes a literal, iota or dim to an output.
fn literal_kernel(graph: &Graph, node: NodeId) -> KernelProgram {
    use tgc_ir::kernel_program::{Access, Anchor, Body, Epilogue, InstKind, Loops, Store, axis};
    let ty = graph.ty(node);
    let mut body = Body::default();
    let value = match graph.op(node) {
        Op::Splat { value, dtype } => {
            let compute = dtype.accumulator();
            let value = body.push(compute, InstKind::Const(*value));
            if compute == *dtype { value } else { body.push(*dtype, InstKind::Cast(value)) }
        }
        Op::DimValue { value } => body.push(ty.dtype, InstKind::Index(value.clone())),
        _ => body.push(ty.dtype, InstKind::Index(axis(0))),
    };
    let shape = ty.shape.to_vec();
    let index = (0..shape.len()).map(axis).collect();
    let strides = Buffer::dense_strides(&shape);
    KernelProgram {
        name: String::new(),
        buffers: vec![Buffer {
            access: Access::Write,
            dtype: ty.dtype,
            shape: shape.clone(),
            strides,
            constant: false,
        }],
        anchor: Anchor::Loops(Loops {
            extents: shape,
            epilogue: Epilogue { body, stores: vec![Store { buffer: 0, index, value }] },
        }),
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
