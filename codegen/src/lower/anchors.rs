//! One function per anchor: its structure, and where its slots are emitted.

use std::sync::Arc;

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::kernel_program::{
    Access, Anchor, Attend, Body, Cell, Contract, Conv, Epilogue, InstKind, Loops, Operand, Pool,
    ReduceOp, Rnn, Rows, Scan, Scatter, ScatterOp, Sort, Store, axis, value_index,
};
use tgc_ir::partition::Region;
use tgc_ir::spec::{AttendSpec, ContractSpec, ConvSpec, Group, Label, PoolSpec, RnnSpec, Role};
use tgc_ir::{Graph, NodeId, Op};

use crate::CodegenError;
use crate::lower::Arguments;
use crate::lower::emit::{Emitter, axes_of, compute_dtype};

pub(crate) struct Lowering<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) region: &'a Region,
    pub(crate) arguments: Arguments<'a>,
}

type Lowered<T> = Result<T, CodegenError>;

impl<'a> Lowering<'a> {
    pub(crate) fn anchor(&mut self) -> Lowered<Anchor> {
        let graph = self.graph;
        let Some(node) = self.region.anchor else { return self.loops().map(Anchor::Loops) };
        match graph.op(node) {
            Op::Reduce { axes, .. } => self.rows(node, axes).map(Anchor::Rows),
            Op::Contract { spec } => self.contract(node, &Arc::clone(spec)),
            Op::Conv { spec } => self.conv(node, spec).map(Anchor::Conv),
            Op::Pool { spec } => self.pool(node, spec).map(Anchor::Pool),
            Op::Attend { spec } => self.attend(node, spec).map(Anchor::Attend),
            Op::Scan { op, axis, exclusive, reverse } => {
                self.scan(node, *op, *axis as usize, *exclusive, *reverse).map(Anchor::Scan)
            }
            Op::TopK { axis, k, largest } => {
                self.sort(node, *axis as usize, k, *largest).map(Anchor::Sort)
            }
            Op::ScatterElements { axis, op } => {
                self.scatter_elements(node, *axis as usize, *op).map(Anchor::Scatter)
            }
            Op::ScatterNd { op } => self.scatter_nd(node, *op).map(Anchor::Scatter),
            Op::Rnn { spec } => self.rnn(node, spec).map(Anchor::Rnn),
            _ => self.loops().map(Anchor::Loops),
        }
    }

    fn emitter(&mut self, extents: &[Dim]) -> Emitter<'a, '_> {
        Emitter::new(self.graph, self.region, &mut self.arguments, extents)
    }

    fn loops(&mut self) -> Lowered<Loops> {
        if let [only] = self.region.outputs.as_slice()
            && let Some(state) = crate::state::of_node(self.graph, *only)
        {
            return self.append(&state);
        }
        let shape = self.graph.shape(self.region.outputs[0]).to_vec();
        let order = self.arguments.order(self.region.outputs[0]);
        let (extents, index) = axes_of(&shape, &order);
        let stores: Vec<_> = self.region.outputs.iter().map(|o| (*o, index.clone())).collect();
        let epilogue = self.emitter(&extents).stores(&stores)?;
        Ok(Loops { extents, epilogue })
    }

    /// Writes what a state gains behind what it holds.
    fn append(&mut self, state: &crate::state::InPlace<'_>) -> Lowered<Loops> {
        let order = self.arguments.order(state.new);
        let (extents, index) = axes_of(self.graph.shape(state.new), &order);
        let mut place = index.clone();
        place[state.axis] =
            place[state.axis].clone() + self.graph.shape(state.past)[state.axis].clone();
        let mut emitter = self.emitter(&extents);
        let value = emitter.emit(state.new, &index)?;
        let mut body = emitter.body;
        let dtype = self.graph.dtype(state.new);
        let value = if body.dtype(value) == dtype {
            value
        } else {
            body.push(dtype, InstKind::Cast(value))
        };
        let buffer = self.arguments.buffer(state.present, Access::Write);
        Ok(Loops {
            extents,
            epilogue: Epilogue { body, stores: vec![Store { buffer, index: place, value }] },
        })
    }

    fn rows(&mut self, node: NodeId, axes: &[i64]) -> Lowered<Rows> {
        let shape = self.graph.shape(self.graph.operands(node)[0]).to_vec();
        let reduced = |a: usize| axes.contains(&(a as i64));
        let mut outer = Vec::new();
        let mut row: Vec<Dim> = vec![Dim::ZERO; shape.len()];
        // Rows in the order of memory.
        let order = self.arguments.order(self.graph.operands(node)[0]);
        for a in order.into_iter().filter(|&a| !reduced(a) && !shape[a].is(1)) {
            row[a] = axis(outer.len());
            outer.push(shape[a].clone());
        }
        let mut inner = Vec::new();
        let mut full = row.clone();
        let mut variables = Vec::new();
        for (a, d) in shape.iter().enumerate().filter(|(a, d)| reduced(*a) && !d.is(1)) {
            full[a] = axis(outer.len() + inner.len());
            variables.push((a, full[a].clone()));
            inner.push(d.clone());
        }
        let extents: Vec<Dim> = outer.iter().chain(&inner).cloned().collect();
        let stores: Vec<_> = self
            .region
            .outputs
            .iter()
            .map(|o| {
                let own = self.graph.shape(*o);
                let at = own
                    .iter()
                    .zip(&full)
                    .map(|(d, i)| if d.is(1) { Dim::ZERO } else { i.clone() })
                    .collect();
                (*o, at)
            })
            .collect();
        let mut emitter = self.emitter(&extents);
        emitter.set_rows(variables);
        let epilogue = emitter.stores(&stores)?;
        Ok(Rows { outer, inner, epilogue })
    }

    /// Stores of the region's outputs over the anchor's own result space, with
    /// the anchor's node supplied as slot 0.
    fn epilogue(
        &mut self,
        node: NodeId,
        extents: &[Dim],
        index: &[Dim],
        slot: DType,
    ) -> Lowered<Epilogue> {
        let stores: Vec<_> = self.region.outputs.iter().map(|o| (*o, index.to_vec())).collect();
        let compute = compute_dtype(self.graph.dtype(node));
        let mut emitter = self.emitter(extents);
        emitter.supply(node, 0, slot);
        debug_assert_eq!(slot, compute, "sums are kept in the compute type of the result");
        emitter.stores(&stores)
    }

    /// As `epilogue`, for an anchor with several results read by projections.
    fn tuple_epilogue(
        &mut self,
        node: NodeId,
        extents: &[Dim],
        index: &[Dim],
    ) -> Lowered<Epilogue> {
        let stores: Vec<_> = self.region.outputs.iter().map(|o| (*o, index.to_vec())).collect();
        let projections = projections(self.graph, self.region, node);
        let dtypes: Vec<DType> =
            self.graph.types(node).iter().map(|t| compute_dtype(t.dtype)).collect();
        let mut emitter = self.emitter(extents);
        for (proj, i) in projections {
            emitter.supply(proj, i as u32, dtypes[i]);
        }
        emitter.stores(&stores)
    }

    fn contract(&mut self, node: NodeId, spec: &ContractSpec) -> Lowered<Anchor> {
        let all: Vec<Label> = (0..spec.extents.len() as Label).collect();
        if all.iter().any(|l| spec.role(*l) == Role::LoneSum) {
            return Err(CodegenError::Unsupported {
                op: format!("contract {spec} (a label that only one operand sums)"),
                location: String::new(),
            });
        }
        let batch = spec.labels_of(Role::Batch, &spec.out);
        let m = spec.labels_of(Role::M, &spec.out);
        let n = spec.labels_of(Role::N, &spec.out);
        let k = spec.labels_of(Role::K, &spec.lhs);
        let operands = self.graph.operands(node).to_vec();
        let lhs = self.labelled_operand(operands[0], spec, &spec.lhs, &[&batch, &m, &k])?;
        let rhs = self.labelled_operand(operands[1], spec, &spec.rhs, &[&batch, &k, &n])?;
        let order: Vec<Label> = [&batch, &m, &n].into_iter().flatten().copied().collect();
        let index = labelled_index(&spec.extents, &spec.out, &order);
        let dims = |labels: &[Label]| {
            labels.iter().map(|l| spec.extents[*l as usize].clone()).collect::<Vec<_>>()
        };
        let acc = spec.dtype.accumulator();
        let epilogue = self.epilogue(node, &dims(&order), &index, acc)?;
        let (batch, m, n, k) = (dims(&batch), dims(&m), dims(&n), dims(&k));
        Ok(Anchor::Contract(Contract { batch, m, n, k, lhs, rhs, acc, epilogue }))
    }

    fn labelled_operand(
        &mut self,
        node: NodeId,
        spec: &ContractSpec,
        axes: &[Group],
        parts: &[&[Label]],
    ) -> Lowered<Operand> {
        let order: Vec<Label> = parts.concat();
        let extents: Vec<Dim> = order.iter().map(|l| spec.extents[*l as usize].clone()).collect();
        let index = labelled_index(&spec.extents, axes, &order);
        self.emitter(&extents).operand(node, &index)
    }

    fn conv(&mut self, node: NodeId, spec: &ConvSpec) -> Lowered<Conv> {
        let operands = self.graph.operands(node).to_vec();
        let x = self.graph.shape(operands[0]).to_vec();
        let w = self.graph.shape(operands[1]).to_vec();
        let out = self.graph.shape(node).to_vec();
        let index = |rank: usize| (0..rank).map(axis).collect::<Vec<Dim>>();
        let input = self.emitter(&x).operand(operands[0], &index(x.len()))?;
        let filter = self.emitter(&w).operand(operands[1], &index(w.len()))?;
        let acc = self.graph.dtype(node).accumulator();
        let epilogue = self.epilogue(node, &out, &index(out.len()), acc)?;
        let groups = Dim::Const(spec.groups);
        let per_group = |d: &Dim| d.exact_div(&groups).unwrap_or_else(|| d.floor_div(&groups));
        Ok(Conv {
            batch: x[0].clone(),
            groups: spec.groups,
            in_channels: if spec.transposed { per_group(&w[0]) } else { w[1].clone() },
            out_channels: if spec.transposed { w[1].clone() } else { per_group(&w[0]) },
            in_spatial: x[2..].to_vec(),
            out_spatial: out[2..].to_vec(),
            kernel: w[2..].to_vec(),
            stride: spec.stride.clone(),
            dilation: spec.dilation.clone(),
            pad_low: spec.pad_low.clone(),
            transposed: spec.transposed,
            input,
            filter,
            acc,
            epilogue,
        })
    }

    fn pool(&mut self, node: NodeId, spec: &PoolSpec) -> Lowered<Pool> {
        let operand = self.graph.operands(node)[0];
        let x = self.graph.shape(operand).to_vec();
        let out = self.graph.shape(node).to_vec();
        let index = |rank: usize| (0..rank).map(axis).collect::<Vec<Dim>>();
        let input = self.emitter(&x).operand(operand, &index(x.len()))?;
        let epilogue = if spec.op == ReduceOp::Max {
            self.tuple_epilogue(node, &out, &index(out.len()))?
        } else {
            self.epilogue(node, &out, &index(out.len()), compute_dtype(self.graph.dtype(node)))?
        };
        Ok(Pool {
            outer: x[..2].to_vec(),
            in_spatial: x[2..].to_vec(),
            out_spatial: out[2..].to_vec(),
            kernel: spec.kernel.clone(),
            stride: spec.stride.clone(),
            dilation: spec.dilation.clone(),
            pad_low: spec.pad_low.clone(),
            pad_high: spec.pad_high.clone(),
            op: spec.op,
            divisor: spec.divisor,
            input,
            epilogue,
        })
    }

    fn attend(&mut self, node: NodeId, spec: &AttendSpec) -> Lowered<Attend> {
        let within = |axes: &[Group], l: Label| axes.iter().flatten().any(|x| *x == l);
        let labels: Vec<Label> = (0..spec.extents.len() as Label).collect();
        let pick = |test: &dyn Fn(Label) -> bool| {
            labels.iter().copied().filter(|l| test(*l)).collect::<Vec<Label>>()
        };
        let out = |l: Label| within(&spec.out, l);
        let n = spec.keys.clone();
        let d = pick(&|l| within(&spec.q, l) && within(&spec.k, l) && !out(l) && !n.contains(&l));
        let e = pick(&|l| {
            out(l)
                && within(&spec.v, l)
                && !within(&spec.q, l)
                && !within(&spec.k, l)
                && !self.in_extras(spec, l)
        });
        let batch =
            pick(&|l| out(l) && !e.contains(&l) && (within(&spec.k, l) || within(&spec.v, l)));
        let m = pick(&|l| out(l) && !e.contains(&l) && !batch.contains(&l));
        let operands = self.graph.operands(node).to_vec();
        let order = |parts: &[&[Label]]| parts.concat();
        let dims = |labels: &[Label]| {
            labels.iter().map(|l| spec.extents[*l as usize].clone()).collect::<Vec<_>>()
        };
        let read = |this: &mut Self, i: usize, axes: &[Group], labels: Vec<Label>| {
            let index = labelled_index(&spec.extents, axes, &labels);
            this.emitter(&dims(&labels)).operand(operands[i], &index)
        };
        let q = read(self, 0, &spec.q, order(&[&batch, &m, &d]))?;
        let k = read(self, 1, &spec.k, order(&[&batch, &n, &d]))?;
        let v = read(self, 2, &spec.v, order(&[&batch, &n, &e]))?;
        let scores = order(&[&batch, &m, &n]);
        let acc = if spec.dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let score =
            self.chain(spec, &scores, &operands[3..], (&spec.score, spec.score_value), acc)?;
        let prob = self.chain(spec, &scores, &operands[3..], (&spec.prob, spec.prob_value), acc)?;
        let result = order(&[&batch, &m, &e]);
        let index = labelled_index(&spec.extents, &spec.out, &result);
        let epilogue = self.epilogue(node, &dims(&result), &index, acc)?;
        let causal = spec.causal.clone();
        let (batch, m, n, d, e) = (dims(&batch), dims(&m), dims(&n), dims(&d), dims(&e));
        Ok(Attend { batch, m, n, d, e, q, k, v, score, prob, acc, causal, epilogue })
    }

    fn in_extras(&self, spec: &AttendSpec, label: Label) -> bool {
        spec.extras.iter().flatten().flatten().any(|l| *l == label)
    }

    /// A score or probability chain over score labels.
    fn chain(
        &mut self,
        spec: &AttendSpec,
        order: &[Label],
        extras: &[NodeId],
        (body, value): (&Body, u32),
        acc: DType,
    ) -> Lowered<Operand> {
        let extents: Vec<Dim> = order.iter().map(|l| spec.extents[*l as usize].clone()).collect();
        let used: Vec<bool> = (0..extras.len())
            .map(|i| body.insts.iter().any(|x| x.kind == InstKind::Slot(i as u32 + 1)))
            .collect();
        let mut emitter = self.emitter(&extents);
        let mut slots = vec![emitter.body.push(acc, InstKind::Slot(0))];
        for (i, extra) in extras.iter().enumerate() {
            let index = labelled_index(&spec.extents, &spec.extras[i], order);
            slots.push(if used[i] { emitter.emit(*extra, &index)? } else { 0 });
        }
        let value = emitter.inline(body, value, &slots);
        Ok(Operand { body: emitter.body, value })
    }

    fn scan(
        &mut self,
        node: NodeId,
        op: ReduceOp,
        at: usize,
        exclusive: bool,
        reverse: bool,
    ) -> Lowered<Scan> {
        let shape = self.graph.shape(node).to_vec();
        let (outer, extent, index) = along(&shape, at);
        let extents: Vec<Dim> = outer.iter().cloned().chain([extent.clone()]).collect();
        let operand = self.graph.operands(node)[0];
        let input = self.emitter(&extents).operand(operand, &index)?;
        let acc = compute_dtype(self.graph.dtype(node));
        let epilogue = self.epilogue(node, &extents, &index, acc)?;
        Ok(Scan { outer, extent, op, exclusive, reverse, input, acc, epilogue })
    }

    fn sort(&mut self, node: NodeId, at: usize, k: &Dim, largest: bool) -> Lowered<Sort> {
        let operand = self.graph.operands(node)[0];
        let (outer, extent, index) = along(self.graph.shape(operand), at);
        let over = |last: &Dim| outer.iter().cloned().chain([last.clone()]).collect::<Vec<Dim>>();
        let input = self.emitter(&over(&extent)).operand(operand, &index)?;
        let epilogue = self.tuple_epilogue(node, &over(k), &index)?;
        Ok(Sort { outer, extent, k: k.clone(), largest, input, epilogue })
    }

    fn initial(&mut self, node: NodeId) -> Lowered<Option<Operand>> {
        let shape = self.graph.shape(node).to_vec();
        let index: Vec<Dim> = (0..shape.len()).map(axis).collect();
        let operand = self.graph.operands(node)[0];
        self.emitter(&shape).operand(operand, &index).map(Some)
    }

    fn scatter_elements(&mut self, node: NodeId, at: usize, op: ScatterOp) -> Lowered<Scatter> {
        let operands = self.graph.operands(node).to_vec();
        let init = self.initial(node)?;
        let updates = self.graph.shape(operands[1]).to_vec();
        let mut index: Vec<Dim> = (0..updates.len()).map(axis).collect();
        let mut emitter = self.emitter(&updates);
        let chosen = emitter.emit(operands[1], &index)?;
        let value = emitter.emit(operands[2], &index)?;
        index[at] = value_index(chosen);
        let body = emitter.body;
        Ok(self.scatter_store(node, updates, init, op, (body, value), index))
    }

    fn scatter_nd(&mut self, node: NodeId, op: ScatterOp) -> Lowered<Scatter> {
        let operands = self.graph.operands(node).to_vec();
        let init = self.initial(node)?;
        let updates = self.graph.shape(operands[2]).to_vec();
        let indices = self.graph.shape(operands[1]).to_vec();
        let lead = indices.len() - 1;
        let depth = indices[lead].as_const().unwrap_or(0);
        let place: Vec<Dim> = (0..updates.len()).map(axis).collect();
        let mut emitter = self.emitter(&updates);
        let mut index = Vec::new();
        for j in 0..depth {
            let tuple: Vec<Dim> = place[..lead].iter().cloned().chain([Dim::Const(j)]).collect();
            index.push(value_index(emitter.emit(operands[1], &tuple)?));
        }
        index.extend_from_slice(&place[lead..]);
        let value = emitter.emit(operands[2], &place)?;
        let body = emitter.body;
        Ok(self.scatter_store(node, updates, init, op, (body, value), index))
    }

    fn scatter_store(
        &mut self,
        node: NodeId,
        updates: Vec<Dim>,
        init: Option<Operand>,
        op: ScatterOp,
        (mut body, value): (Body, u32),
        index: Vec<Dim>,
    ) -> Scatter {
        let dtype = self.graph.dtype(node);
        let value = if body.dtype(value) == dtype {
            value
        } else {
            body.push(dtype, InstKind::Cast(value))
        };
        let buffer = self.arguments.buffer(node, Access::ReadWrite);
        Scatter { updates, init, op, body, store: Store { buffer, index, value } }
    }

    fn rnn(&mut self, node: NodeId, spec: &RnnSpec) -> Lowered<Rnn> {
        let operands = self.graph.operands(node).to_vec();
        let x = self.graph.shape(operands[0]).to_vec();
        let r = self.graph.shape(operands[1]).to_vec();
        let lstm = spec.cell == Cell::Lstm;
        let mut next = 2;
        let mut optional = |this: &mut Self, present: bool| -> Lowered<Option<Operand>> {
            if !present {
                return Ok(None);
            }
            let operand = operands[next];
            next += 1;
            this.whole(operand).map(Some)
        };
        let r_bias = optional(self, spec.r_bias)?;
        let h0 = optional(self, true)?.expect("always present");
        let c0 = optional(self, lstm)?;
        let peephole = optional(self, spec.peephole)?;
        let lengths = optional(self, spec.lengths)?;
        let (x_read, r_read) = (self.whole(operands[0])?, self.whole(operands[1])?);
        let activations = spec
            .activations
            .iter()
            .map(|(body, value)| Operand { body: body.clone(), value: *value })
            .collect();
        let mut results: Vec<Option<Epilogue>> = vec![None, None, None];
        for (proj, i) in projections(self.graph, self.region, node) {
            if self.region.outputs.contains(&proj) {
                let shape = self.graph.shape(proj).to_vec();
                let index: Vec<Dim> = (0..shape.len()).map(axis).collect();
                let dtype = compute_dtype(self.graph.dtype(proj));
                let mut emitter = self.emitter(&shape);
                emitter.supply(proj, 0, dtype);
                results[i] = Some(emitter.stores(&[(proj, index)])?);
            }
        }
        let mut results = results.into_iter();
        let mut take = || results.next().flatten();
        Ok(Rnn {
            cell: spec.cell,
            reverse: spec.reverse,
            time: x[0].clone(),
            batch: x[1].clone(),
            hidden: r[1].clone(),
            x: x_read,
            r: r_read,
            r_bias,
            h0,
            c0,
            peephole,
            lengths,
            activations,
            input_forget: spec.input_forget,
            clip: spec.clip,
            acc: compute_dtype(self.graph.dtype(operands[0])),
            y: take(),
            h: take(),
            c: take(),
        })
    }

    /// Every element of a value, axis by axis.
    fn whole(&mut self, node: NodeId) -> Lowered<Operand> {
        let shape = self.graph.shape(node).to_vec();
        let index: Vec<Dim> = (0..shape.len()).map(axis).collect();
        self.emitter(&shape).operand(node, &index)
    }
}

/// Projections of a tuple in a region, with their positions.
fn projections(graph: &Graph, region: &Region, tuple: NodeId) -> Vec<(NodeId, usize)> {
    region
        .nodes
        .iter()
        .filter_map(|n| match graph.op(*n) {
            Op::Proj { index } if graph.operands(*n)[0] == tuple => Some((*n, *index as usize)),
            _ => None,
        })
        .collect()
}

/// Index of each axis in terms of label variables: the variable of a label is
/// the axis at its position in `order`.
fn labelled_index(extents: &[Dim], axes: &[Group], order: &[Label]) -> Vec<Dim> {
    axes.iter()
        .map(|group| {
            group.iter().fold(Dim::ZERO, |sum, label| {
                let at = order.iter().position(|l| l == label);
                let variable = at.map_or(Dim::ZERO, axis);
                sum * extents[*label as usize].clone() + variable
            })
        })
        .collect()
}

/// The other axes of a shape, the extent of one axis, and an index whose last
/// variable runs along it.
fn along(shape: &[Dim], at: usize) -> (Vec<Dim>, Dim, Vec<Dim>) {
    let outer: Vec<Dim> =
        shape.iter().enumerate().filter(|(a, _)| *a != at).map(|(_, d)| d.clone()).collect();
    let mut next = 0;
    let index = (0..shape.len())
        .map(|a| {
            if a == at {
                return axis(outer.len());
            }
            next += 1;
            axis(next - 1)
        })
        .collect();
    (outer, shape[at].clone(), index)
}
