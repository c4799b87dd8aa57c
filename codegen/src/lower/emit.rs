//! Emitting scalar bodies: the value of a node at an index.

use rustc_hash::FxHashMap;
use smallvec::smallvec;

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::facts::Facts;
use tgc_ir::kernel_program::{
    Access, Body, Epilogue, Guard, InstKind, Load, Operand, ScalarConst, Store, axis, axis_symbol,
    value_index,
};
use tgc_ir::op::PadMode;
use tgc_ir::partition::Region;
use tgc_ir::scalar::ScalarOp;
use tgc_ir::view::View;
use tgc_ir::{Graph, NodeId, Op};

use crate::CodegenError;
use crate::lower::Arguments;

type Emitted = Result<u32, CodegenError>;

/// The dtype in which a body computes values declared as `dtype`.
pub(crate) fn compute_dtype(dtype: DType) -> DType {
    dtype.accumulator()
}

/// Emits one body.
pub(crate) struct Emitter<'a, 'b> {
    graph: &'a Graph,
    region: &'a Region,
    arguments: &'b mut Arguments<'a>,
    facts: Facts,
    pub(crate) body: Body,
    memo: FxHashMap<(NodeId, Vec<Dim>, Vec<Guard>), u32>,
    /// Values that the anchor supplies, at the only index they exist.
    supplied: Vec<(NodeId, u32)>,
    /// Reduced axes and their variables, in a `rows` body.
    rows: Vec<(usize, Dim)>,
    guards: Vec<Guard>,
}

impl<'a, 'b> Emitter<'a, 'b> {
    /// A body over axes of these extents.
    pub(crate) fn new(
        graph: &'a Graph,
        region: &'a Region,
        arguments: &'b mut Arguments<'a>,
        extents: &[Dim],
    ) -> Emitter<'a, 'b> {
        let mut facts = graph.facts.clone();
        for (n, extent) in extents.iter().enumerate() {
            facts.bound_index(axis_symbol(n), extent);
        }
        Emitter {
            graph,
            region,
            arguments,
            facts,
            body: Body::default(),
            memo: FxHashMap::default(),
            supplied: Vec::new(),
            rows: Vec::new(),
            guards: Vec::new(),
        }
    }

    /// States that the anchor supplies a node's value as a slot.
    pub(crate) fn supply(&mut self, node: NodeId, slot: u32, dtype: DType) {
        let value = self.body.push(dtype, InstKind::Slot(slot));
        self.supplied.push((node, value));
    }

    /// States the variables of reduced axes.
    pub(crate) fn set_rows(&mut self, rows: Vec<(usize, Dim)>) {
        self.rows = rows;
    }

    /// The body with the value of a node at an index as operand of an anchor.
    pub(crate) fn operand(mut self, node: NodeId, index: &[Dim]) -> Result<Operand, CodegenError> {
        let value = self.emit(node, index)?;
        Ok(Operand { body: self.body, value })
    }

    /// The body with stores of nodes at indices.
    pub(crate) fn stores(mut self, nodes: &[(NodeId, Vec<Dim>)]) -> Result<Epilogue, CodegenError> {
        let mut stores = Vec::new();
        for (node, index) in nodes {
            let value = self.emit(*node, index)?;
            let value = self.cast(value, self.graph.dtype(*node));
            let buffer = self.arguments.buffer(*node, Access::Write);
            stores.push(Store { buffer, index: index.clone(), value });
        }
        Ok(Epilogue { body: self.body, stores })
    }

    fn cast(&mut self, value: u32, to: DType) -> u32 {
        if self.body.dtype(value) == to { value } else { self.body.push(to, InstKind::Cast(value)) }
    }

    pub(crate) fn constant(&mut self, value: ScalarConst, dtype: DType) -> u32 {
        let value = if dtype.is_float() { ScalarConst::float(value.as_f64()) } else { value };
        self.body.push(dtype, InstKind::Const(value))
    }

    /// The value of a node at an index, in its compute dtype.
    pub(crate) fn emit(&mut self, node: NodeId, index: &[Dim]) -> Emitted {
        if let Some((_, value)) = self.supplied.iter().find(|(n, _)| *n == node) {
            return Ok(*value);
        }
        let index: Vec<Dim> = index.iter().map(|d| self.facts.simplify(d)).collect();
        let key = (node, index, self.guards.clone());
        if let Some(&known) = self.memo.get(&key) {
            return Ok(known);
        }
        let value = self.emit_new(node, &key.1)?;
        self.memo.insert(key, value);
        Ok(value)
    }

    fn emit_new(&mut self, node: NodeId, index: &[Dim]) -> Emitted {
        let graph = self.graph;
        let dtype = graph.dtype(node);
        let compute = compute_dtype(dtype);
        let op = graph.op(node);
        match op {
            Op::Splat { value, .. } => return Ok(self.constant(*value, compute)),
            Op::Iota { .. } => {
                return Ok(self.body.push(DType::I64, InstKind::Index(index[0].clone())));
            }
            Op::DimValue { value } => {
                return Ok(self.body.push(DType::I64, InstKind::Index(value.clone())));
            }
            _ if op.is_leaf() || !self.region.nodes.contains(&node) => {
                return Ok(self.load(node, index));
            }
            _ => {}
        }
        let operands = graph.operands(node);
        match op {
            Op::Scalar(scalar) => {
                let mut args = smallvec![];
                for &operand in operands {
                    let at = self.broadcast_index(operand, index);
                    args.push(self.emit(operand, &at)?);
                }
                Ok(self.body.push(compute, InstKind::Scalar(*scalar, args)))
            }
            Op::Cast { to } => {
                let value = self.emit(operands[0], index)?;
                let narrowed = self.cast(value, *to);
                Ok(self.cast(narrowed, compute))
            }
            Op::Bitcast { to } => {
                let value = self.emit(operands[0], index)?;
                let stored = self.cast(value, graph.dtype(operands[0]));
                let value = self.body.push(*to, InstKind::Bitcast(stored));
                Ok(self.cast(value, compute))
            }
            Op::Reduce { op, .. } => {
                let mut at = index.to_vec();
                for (a, variable) in &self.rows {
                    at[*a] = variable.clone();
                }
                let value = self.emit(operands[0], &at)?;
                let result = op.result(self.body.dtype(value));
                Ok(self.body.push(result, InstKind::Reduce(*op, value)))
            }
            Op::View { view } => self.emit_view(view, operands[0], index),
            Op::Pad { mode, low, .. } => self.emit_pad(*mode, low, operands, index),
            Op::Concat { axis } => self.emit_concat(*axis as usize, operands, index),
            Op::Gather { axis } => {
                let (data, indices) = (operands[0], operands[1]);
                let (axis, rank) = (*axis as usize, graph.shape(indices).len());
                let chosen = self.emit(indices, &index[axis..axis + rank])?;
                let at: Vec<Dim> = index[..axis]
                    .iter()
                    .cloned()
                    .chain([value_index(chosen)])
                    .chain(index[axis + rank..].iter().cloned())
                    .collect();
                self.emit(data, &at)
            }
            Op::GatherElements { axis } => {
                let chosen = self.emit(operands[1], index)?;
                let mut at = index.to_vec();
                at[*axis as usize] = value_index(chosen);
                self.emit(operands[0], &at)
            }
            Op::GatherNd { batch } => {
                let (data, indices) = (operands[0], operands[1]);
                let lead = graph.shape(indices).len() - 1;
                let depth = graph.shape(indices)[lead].as_const().unwrap_or(0);
                let mut at: Vec<Dim> = index[..*batch as usize].to_vec();
                for j in 0..depth {
                    let place: Vec<Dim> =
                        index[..lead].iter().cloned().chain([Dim::Const(j)]).collect();
                    let chosen = self.emit(indices, &place)?;
                    at.push(value_index(chosen));
                }
                at.extend_from_slice(&index[lead..]);
                self.emit(data, &at)
            }
            _ => {
                let location: Vec<&str> = graph.locations(node).iter().map(AsRef::as_ref).collect();
                Err(CodegenError::Unsupported {
                    op: op.name().to_owned(),
                    location: location.join(", "),
                })
            }
        }
    }

    /// A plain load, in the compute dtype.
    fn load(&mut self, node: NodeId, index: &[Dim]) -> u32 {
        let buffer = self.arguments.buffer(node, Access::Read);
        let load =
            Load { buffer, index: index.to_vec(), guards: self.guards.clone(), otherwise: None };
        let dtype = self.graph.dtype(node);
        let value = self.body.push(dtype, InstKind::Load(load));
        self.cast(value, compute_dtype(dtype))
    }

    /// Where a pointwise operand is read: 0 along its extents of 1.
    fn broadcast_index(&self, operand: NodeId, index: &[Dim]) -> Vec<Dim> {
        let shape = self.graph.shape(operand);
        if shape.is_empty() {
            return Vec::new();
        }
        shape.iter().zip(index).map(|(d, i)| if d.is(1) { Dim::ZERO } else { i.clone() }).collect()
    }

    fn emit_view(&mut self, view: &View, operand: NodeId, index: &[Dim]) -> Emitted {
        let at = view.input_index(index);
        self.emit(operand, &at)
    }

    fn emit_pad(
        &mut self,
        mode: PadMode,
        low: &[Dim],
        operands: &[NodeId],
        index: &[Dim],
    ) -> Emitted {
        let shape = self.graph.shape(operands[0]).to_vec();
        let at: Vec<Dim> = index.iter().zip(low).map(|(i, l)| i.clone() - l.clone()).collect();
        if mode != PadMode::Constant {
            let folded: Vec<Dim> =
                at.iter().zip(&shape).map(|(i, d)| fold_index(mode, i, d)).collect();
            return self.emit(operands[0], &folded);
        }
        let fill = self.emit(operands[1], &[])?;
        let guards: Vec<Guard> = at
            .iter()
            .zip(&shape)
            .map(|(i, d)| Guard { value: self.facts.simplify(i), below: d.clone() })
            .filter(|g| !self.always(g))
            .collect();
        self.guarded(guards, fill, |this| this.emit(operands[0], &at))
    }

    fn emit_concat(&mut self, axis: usize, operands: &[NodeId], index: &[Dim]) -> Emitted {
        let mut ends = Vec::new();
        let mut end = Dim::ZERO;
        for &operand in operands {
            end = end + self.graph.shape(operand)[axis].clone();
            ends.push(end.clone());
        }
        // From the last to the first: each takes over below its own end.
        let mut value: Option<u32> = None;
        for (i, &operand) in operands.iter().enumerate().rev() {
            let start = if i == 0 { Dim::ZERO } else { ends[i - 1].clone() };
            let mut at = index.to_vec();
            at[axis] = at[axis].clone() - start;
            let extent = self.graph.shape(operand)[axis].clone();
            let guard = Guard { value: self.facts.simplify(&at[axis]), below: extent };
            value = Some(match value {
                None => self.within(vec![guard], |this| this.emit(operand, &at))?,
                Some(other) => self.guarded(vec![guard], other, |this| this.emit(operand, &at))?,
            });
        }
        Ok(value.expect("a concat has operands"))
    }

    fn always(&self, guard: &Guard) -> bool {
        self.facts.at_most(&Dim::ZERO, &guard.value).is_yes()
            && self.facts.less(&guard.value, &guard.below).is_yes()
    }

    /// Emits with further guards on every load.
    fn within(&mut self, guards: Vec<Guard>, emit: impl FnOnce(&mut Self) -> Emitted) -> Emitted {
        let before = self.guards.len();
        let new: Vec<Guard> = guards.into_iter().filter(|g| !self.always(g)).collect();
        self.guards.extend(new);
        let value = emit(self);
        self.guards.truncate(before);
        value
    }

    /// The emitted value where all guards hold, else `otherwise`.
    fn guarded(
        &mut self,
        guards: Vec<Guard>,
        otherwise: u32,
        emit: impl FnOnce(&mut Self) -> Emitted,
    ) -> Emitted {
        if guards.iter().all(|g| self.always(g)) {
            return emit(self);
        }
        let inside = self.within(guards.clone(), emit)?;
        let mut holds: Option<u32> = None;
        for guard in &guards {
            let value = self.body.push(DType::I64, InstKind::Index(guard.value.clone()));
            let below = self.body.push(DType::I64, InstKind::Index(guard.below.clone()));
            let zero = self.constant(ScalarConst::Int(0), DType::I64);
            let low =
                self.body.push(DType::Bool, InstKind::Scalar(ScalarOp::Le, smallvec![zero, value]));
            let high = self
                .body
                .push(DType::Bool, InstKind::Scalar(ScalarOp::Lt, smallvec![value, below]));
            let both =
                self.body.push(DType::Bool, InstKind::Scalar(ScalarOp::And, smallvec![low, high]));
            holds = Some(match holds {
                None => both,
                Some(h) => {
                    self.body.push(DType::Bool, InstKind::Scalar(ScalarOp::And, smallvec![h, both]))
                }
            });
        }
        let Some(holds) = holds else { return Ok(inside) };
        let dtype = self.body.dtype(inside);
        let otherwise = self.cast(otherwise, dtype);
        Ok(self
            .body
            .push(dtype, InstKind::Scalar(ScalarOp::Select, smallvec![holds, inside, otherwise])))
    }

    /// Copies a body without loads, with its slots given as values.
    pub(crate) fn inline(&mut self, body: &Body, value: u32, slots: &[u32]) -> u32 {
        let mut map: Vec<u32> = Vec::new();
        for inst in &body.insts {
            let at = |i: &u32| map[*i as usize];
            let new = match &inst.kind {
                InstKind::Slot(n) => {
                    let given = slots[*n as usize];
                    self.cast(given, inst.dtype)
                }
                InstKind::Scalar(op, args) => {
                    let args = args.iter().map(at).collect();
                    self.body.push(inst.dtype, InstKind::Scalar(*op, args))
                }
                InstKind::Cast(from) => {
                    let from = at(from);
                    self.cast(from, inst.dtype)
                }
                InstKind::Bitcast(from) => {
                    let from = at(from);
                    self.body.push(inst.dtype, InstKind::Bitcast(from))
                }
                other => self.body.push(inst.dtype, other.clone()),
            };
            map.push(new);
        }
        map[value as usize]
    }
}

/// The cell inside an axis that a padding cell repeats.
fn fold_index(mode: PadMode, index: &Dim, extent: &Dim) -> Dim {
    let last = extent.clone() - Dim::ONE;
    match mode {
        PadMode::Wrap => index.modulo(extent),
        PadMode::Reflect => {
            // |last - ((last - i) mod 2·last)| folds any distance; an extent of 1 repeats its cell.
            let period = (last.clone() * Dim::Const(2)).maximum(&Dim::ONE);
            let r = index.modulo(&period);
            r.minimum(&(period - r.clone())).minimum(&last)
        }
        _ => index.maximum(&Dim::ZERO).minimum(&last),
    }
}

/// Axis variables for extents: extents of 1 have none. Returns the extents
/// that have one, in the given order of axes, and the index over all axes.
pub(crate) fn axes_of(shape: &[Dim], order: &[usize]) -> (Vec<Dim>, Vec<Dim>) {
    let mut extents = Vec::new();
    let mut index = vec![Dim::ZERO; shape.len()];
    for &a in order.iter().filter(|&&a| !shape[a].is(1)) {
        index[a] = axis(extents.len());
        extents.push(shape[a].clone());
    }
    (extents, index)
}
