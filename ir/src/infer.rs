//! Type rules: from an op and its operands' types to its result types, or the
//! labelled constraint that is violated. This is also the verifier.

mod control;

use smallvec::smallvec;

use crate::dim::Dim;
use crate::dtype::DType;
use crate::facts::{Facts, Truth};
use crate::graph::{Graph, NodeId, ResultTypes};
use crate::kernel_program::ReduceOp;
use crate::op::Op;
use crate::spec::{AttendSpec, ContractSpec, ConvSpec, Group, PoolSpec, RnnSpec, group_shape};
use crate::types::{DisplayDims, TensorType};

pub use control::after_rounds;

/// A violated type constraint.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{label}]")]
pub struct Violation {
    /// Constraint label, stable (`contract C2`).
    pub label: String,
    /// What is wrong, with the types involved.
    pub message: String,
}

impl Violation {
    /// A violation of a labelled constraint.
    pub fn new(label: &str, message: String) -> Violation {
        Violation { label: label.to_owned(), message }
    }
}

type Inferred = Result<ResultTypes, Violation>;

fn fail<T>(label: &str, message: String) -> Result<T, Violation> {
    Err(Violation::new(label, message))
}

fn one(ty: TensorType) -> Inferred {
    Ok(smallvec![ty])
}

/// Result types of `op` on nodes of `graph`.
pub fn infer(graph: &Graph, op: &Op, operands: &[NodeId]) -> Inferred {
    if let Op::Weight { index } = op {
        return match usize::try_from(*index).ok().and_then(|i| graph.weights().get(i)) {
            Some(weight) => one(weight.ty.clone()),
            None => fail("weight C1", format!("the graph has no weight #{index}")),
        };
    }
    if let Op::Proj { index } = op {
        return match operands {
            [tuple] if graph.op(*tuple).is_tuple() => {
                let types = graph.types(*tuple);
                match usize::try_from(*index).ok().and_then(|i| types.get(i)) {
                    Some(ty) => one(ty.clone()),
                    None => fail("proj C2", format!("result {index} of {} results", types.len())),
                }
            }
            _ => fail("proj C1", "needs one operand with several results".to_owned()),
        };
    }
    if let Some(tuple) = operands.iter().find(|o| graph.op(**o).is_tuple()) {
        return fail("operand C1", format!("{tuple} has several results; read one with `proj`"));
    }
    let types: Vec<&TensorType> = operands.iter().map(|o| graph.ty(*o)).collect();
    infer_types(op, &types, &graph.facts)
}

fn check_count(op: &Op, operands: &[&TensorType], n: usize) -> Result<(), Violation> {
    if operands.len() == n {
        Ok(())
    } else {
        fail("operand C2", format!("`{}` takes {n} operands, found {}", op.name(), operands.len()))
    }
}

/// Result types of `op` on operand types.
pub fn infer_types(op: &Op, operands: &[&TensorType], facts: &Facts) -> Inferred {
    let count = |n: usize| {
        if operands.len() == n {
            Ok(())
        } else {
            fail(
                "operand C2",
                format!("`{}` takes {n} operands, found {}", op.name(), operands.len()),
            )
        }
    };
    match op {
        Op::Input { ty, .. } | Op::Random { ty, .. } => count(0).and_then(|()| one(ty.clone())),
        Op::Constant { value } => {
            count(0)?;
            one(TensorType::new(
                value.0.dtype(),
                value.0.shape().iter().map(|&d| Dim::Const(d as i64)),
            ))
        }
        Op::Splat { dtype, .. } => count(0).and_then(|()| one(TensorType::scalar(*dtype))),
        Op::Iota { len } => count(0).and_then(|()| one(TensorType::new(DType::I64, [len.clone()]))),
        Op::DimValue { .. } => count(0).and_then(|()| one(TensorType::scalar(DType::I64))),
        Op::Scalar(scalar) => {
            let dtypes: Vec<DType> = operands.iter().map(|t| t.dtype).collect();
            let dtype = scalar.result(&dtypes).or_else(|e| fail("scalar C1", e.to_string()))?;
            one(TensorType { dtype, shape: broadcast(operands, facts)? })
        }
        Op::Cast { to } => {
            count(1).and_then(|()| one(TensorType { dtype: *to, shape: operands[0].shape.clone() }))
        }
        Op::Bitcast { to } => {
            count(1)?;
            if to.bits() != operands[0].dtype.bits() {
                return fail(
                    "bitcast C1",
                    format!("{to} and {} have different widths", operands[0].dtype),
                );
            }
            one(TensorType { dtype: *to, shape: operands[0].shape.clone() })
        }
        _ => infer_structured(op, operands, facts),
    }
}

/// Ops with structure of their own.
fn infer_structured(op: &Op, operands: &[&TensorType], facts: &Facts) -> Inferred {
    let count = |n: usize| check_count(op, operands, n);
    match op {
        Op::Contract { spec } => count(2).and_then(|()| contract(spec, operands, facts)),
        Op::Conv { spec } => count(2).and_then(|()| conv(spec, operands, facts)),
        Op::Pool { spec } => count(1).and_then(|()| pool(spec, operands[0])),
        Op::Reduce { op, axes } => count(1).and_then(|()| reduce(*op, axes, operands[0])),
        Op::Scan { axis, .. } => {
            count(1)?;
            check_axis(*axis, operands[0])?;
            one(operands[0].clone())
        }
        Op::TopK { axis, k, .. } => {
            count(1)?;
            let axis = check_axis(*axis, operands[0])?;
            let mut shape = operands[0].shape.clone();
            shape[axis] = k.clone();
            Ok(smallvec![
                TensorType { dtype: operands[0].dtype, shape: shape.clone() },
                TensorType { dtype: DType::I64, shape }
            ])
        }
        Op::View { view } => {
            count(1)?;
            let want = view.input_shape();
            if !same_dims(&want, &operands[0].shape, facts) {
                return fail(
                    "view C3",
                    format!("view of {} applied to {}", DisplayDims(&want), operands[0]),
                );
            }
            one(TensorType::new(operands[0].dtype, view.output_shape()))
        }
        Op::Pad { low, high, .. } => {
            count(2)?;
            let x = operands[0];
            if low.len() != x.rank() || high.len() != x.rank() {
                return fail("pad C1", format!("{} widths for {x}", low.len()));
            }
            if operands[1].rank() != 0 || operands[1].dtype != x.dtype {
                return fail(
                    "pad C2",
                    format!("the value is {}, should be {}[]", operands[1], x.dtype),
                );
            }
            let shape = x
                .shape
                .iter()
                .zip(low.iter().zip(high))
                .map(|(d, (l, h))| d.clone() + l.clone() + h.clone());
            one(TensorType::new(x.dtype, shape))
        }
        Op::Concat { axis } => concat(*axis, operands, facts),
        Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => {
            count(2).and_then(|()| gather(op, operands, facts))
        }
        Op::ScatterElements { axis, .. } => {
            count(3)?;
            check_axis(*axis, operands[0])?;
            scatter(operands)
        }
        Op::ScatterNd { .. } => count(3).and_then(|()| scatter(operands)),
        Op::NonZero { count: symbol } => {
            count(1)?;
            one(TensorType::new(
                DType::I64,
                [Dim::Const(operands[0].rank().max(1) as i64), Dim::from(symbol)],
            ))
        }
        Op::Nms { count: symbol, .. } => {
            count(5)?;
            one(TensorType::new(DType::I64, [Dim::from(symbol), Dim::Const(3)]))
        }
        Op::Unique { axis, count: symbol, .. } => {
            count(1).and_then(|()| unique(*axis, symbol, operands[0]))
        }
        Op::If { then, otherwise } => {
            control::branches(then.graph(), otherwise.graph(), operands, facts)
        }
        Op::Loop { body, carried, rounds } => {
            control::repeated(body.graph(), *carried, rounds, operands, facts)
        }
        Op::Rnn { spec } => rnn(spec, operands),
        Op::Attend { spec } => attend(spec, operands, facts),
        Op::Composite(composite) => composite.infer(operands, facts),
        _ => fail("operand C3", "needs its graph".to_owned()),
    }
}

/// Whether shapes are equal; unknown counts as equal is *not* assumed.
fn same_dims(a: &[Dim], b: &[Dim], facts: &Facts) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| facts.equal(x, y).is_yes())
}

fn check_axis(axis: i64, ty: &TensorType) -> Result<usize, Violation> {
    match usize::try_from(axis) {
        Ok(a) if a < ty.rank() => Ok(a),
        _ => fail("axis C1", format!("axis {axis} of {ty}")),
    }
}

/// Common shape of pointwise operands: equal ranks with equal extents or 1; rank 0 fits all.
pub fn broadcast(
    operands: &[&TensorType],
    facts: &Facts,
) -> Result<crate::types::Shape, Violation> {
    let Some(widest) = operands.iter().max_by_key(|t| t.rank()) else {
        return Ok(crate::types::Shape::new());
    };
    let mut shape = widest.shape.clone();
    for ty in operands.iter().filter(|t| t.rank() > 0) {
        if ty.rank() != shape.len() {
            return fail("scalar C2", format!("operands {} and {ty} differ in rank", operands[0]));
        }
        for (have, new) in shape.iter_mut().zip(&ty.shape) {
            if have.is(1) {
                *have = new.clone();
            } else if !new.is(1) && !facts.equal(have, new).is_yes() {
                return fail(
                    "scalar C3",
                    format!(
                        "extents {have} and {new} are not provably equal in {}",
                        join(operands)
                    ),
                );
            }
        }
    }
    Ok(shape)
}

fn join(types: &[&TensorType]) -> String {
    types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn check_groups(
    what: &str,
    axes: &[Group],
    extents: &[Dim],
    ty: &TensorType,
    facts: &Facts,
) -> Result<(), Violation> {
    if axes.iter().flatten().any(|l| *l as usize >= extents.len()) {
        return fail("label C1", format!("{what} names a label without extent"));
    }
    let want = group_shape(extents, axes);
    if same_dims(&want, &ty.shape, facts) {
        Ok(())
    } else {
        fail("contract C2", format!("{what} should have extents {}, is {ty}", DisplayDims(&want)))
    }
}

fn contract(spec: &ContractSpec, operands: &[&TensorType], facts: &Facts) -> Inferred {
    check_groups("operand 0", &spec.lhs, &spec.extents, operands[0], facts)?;
    check_groups("operand 1", &spec.rhs, &spec.extents, operands[1], facts)?;
    if operands[0].dtype != operands[1].dtype
        && (operands[0].dtype.is_float() || operands[1].dtype.is_float())
    {
        return fail("contract C3", format!("operands {} differ in element type", join(operands)));
    }
    if operands[0].dtype == DType::Bool {
        return fail("contract C5", "operands must be numbers".to_owned());
    }
    let inputs: Vec<u32> = spec.lhs.iter().chain(&spec.rhs).flatten().copied().collect();
    if spec.out.iter().flatten().any(|l| !inputs.contains(l)) {
        return fail("contract C4", "the result has a label that no operand has".to_owned());
    }
    one(TensorType::new(spec.dtype, group_shape(&spec.extents, &spec.out)))
}

/// Output extent of one spatial axis of a convolution.
pub fn conv_extent(spec: &ConvSpec, axis: usize, input: &Dim, kernel: &Dim) -> Dim {
    let dilated = (kernel.clone() - Dim::ONE) * Dim::Const(spec.dilation[axis]) + Dim::ONE;
    let pads = spec.pad_low[axis].clone() + spec.pad_high[axis].clone();
    let stride = Dim::Const(spec.stride[axis]);
    if spec.transposed {
        return (input.clone() - Dim::ONE) * stride + dilated + Dim::Const(spec.output_pad[axis])
            - pads;
    }
    (input.clone() + pads - dilated).floor_div(&stride) + Dim::ONE
}

fn conv(spec: &ConvSpec, operands: &[&TensorType], facts: &Facts) -> Inferred {
    let (x, w) = (operands[0], operands[1]);
    let spatial = x.rank().saturating_sub(2);
    let lens = [
        spec.stride.len(),
        spec.dilation.len(),
        spec.pad_low.len(),
        spec.pad_high.len(),
        spec.output_pad.len(),
    ];
    if x.rank() < 3 || w.rank() != x.rank() || lens.iter().any(|&l| l != spatial) {
        return fail("conv C1", format!("x {x} and w {w} with {} strides", spec.stride.len()));
    }
    if spec.groups < 1 || spec.stride.iter().chain(&spec.dilation).any(|s| *s < 1) {
        return fail("conv C2", "groups, strides and dilations must be positive".to_owned());
    }
    if x.dtype != w.dtype {
        return fail("conv C3", format!("x {x} and w {w} differ in element type"));
    }
    let groups = Dim::Const(spec.groups);
    let channels =
        if spec.transposed { w.shape[0].clone() } else { w.shape[1].clone() * groups.clone() };
    if facts.equal(&x.shape[1], &channels) != Truth::Yes {
        return fail(
            "conv C4",
            format!("x {x} has {} channels, w {w} takes {channels}", x.shape[1]),
        );
    }
    let out = if spec.transposed { w.shape[1].clone() * groups } else { w.shape[0].clone() };
    let mut shape = vec![x.shape[0].clone(), out];
    for axis in 0..spatial {
        shape.push(conv_extent(spec, axis, &x.shape[2 + axis], &w.shape[2 + axis]));
    }
    one(TensorType::new(x.dtype, shape))
}

/// Output extent of one spatial axis of a pooling.
pub fn pool_extent(spec: &PoolSpec, axis: usize, input: &Dim) -> Dim {
    let dilated = Dim::Const((spec.kernel[axis] - 1) * spec.dilation[axis] + 1);
    let room = input.clone() + spec.pad_low[axis].clone() + spec.pad_high[axis].clone() - dilated;
    let stride = Dim::Const(spec.stride[axis]);
    if !spec.ceil {
        return room.floor_div(&stride) + Dim::ONE;
    }
    // A last window that would start in the padding after the input is dropped.
    let all = room.ceil_div(&stride) + Dim::ONE;
    let inside = (input.clone() + spec.pad_low[axis].clone()).ceil_div(&stride);
    all.minimum(&inside)
}

fn pool(spec: &PoolSpec, x: &TensorType) -> Inferred {
    let spatial = spec.kernel.len();
    let lens = [spec.stride.len(), spec.dilation.len(), spec.pad_low.len(), spec.pad_high.len()];
    if x.rank() != spatial + 2 || lens.iter().any(|&l| l != spatial) {
        return fail("pool C1", format!("{x} with a window of rank {spatial}"));
    }
    if spec.stride.iter().chain(&spec.dilation).chain(&spec.kernel).any(|s| *s < 1) {
        return fail("pool C2", "windows, strides and dilations must be positive".to_owned());
    }
    let mut shape = vec![x.shape[0].clone(), x.shape[1].clone()];
    shape.extend((0..spatial).map(|a| pool_extent(spec, a, &x.shape[2 + a])));
    let values = TensorType::new(x.dtype, shape.clone());
    if spec.op == ReduceOp::Max {
        Ok(smallvec![values, TensorType::new(DType::I64, shape)])
    } else {
        one(values)
    }
}

fn reduce(op: ReduceOp, axes: &[i64], x: &TensorType) -> Inferred {
    let mut shape = x.shape.clone();
    for &axis in axes {
        shape[check_axis(axis, x)?] = Dim::ONE;
    }
    let bools = matches!(op, ReduceOp::All | ReduceOp::Any);
    if bools != (x.dtype == DType::Bool) {
        return fail("reduce C1", format!("`{}` of {x}", op.name()));
    }
    one(TensorType { dtype: op.result(x.dtype), shape })
}

fn concat(axis: i64, operands: &[&TensorType], facts: &Facts) -> Inferred {
    let Some(first) = operands.first() else {
        return fail("concat C1", "needs an operand".to_owned());
    };
    let axis = check_axis(axis, first)?;
    let mut total = Dim::ZERO;
    for ty in operands {
        let fits = ty.dtype == first.dtype
            && ty.rank() == first.rank()
            && (0..ty.rank())
                .all(|a| a == axis || facts.equal(&ty.shape[a], &first.shape[a]).is_yes());
        if !fits {
            return fail("concat C2", format!("{first} and {ty} differ beside axis {axis}"));
        }
        total = total + ty.shape[axis].clone();
    }
    let mut shape = first.shape.clone();
    shape[axis] = total;
    one(TensorType { dtype: first.dtype, shape })
}

fn gather(op: &Op, operands: &[&TensorType], facts: &Facts) -> Inferred {
    let (data, indices) = (operands[0], operands[1]);
    if indices.dtype != DType::I64 {
        return fail("gather C1", format!("indices are {indices}, should be i64"));
    }
    match op {
        Op::Gather { axis } => {
            let axis = check_axis(*axis, data)?;
            let shape =
                data.shape[..axis].iter().chain(&indices.shape).chain(&data.shape[axis + 1..]);
            one(TensorType::new(data.dtype, shape.cloned()))
        }
        Op::GatherElements { axis } => {
            check_axis(*axis, data)?;
            if data.rank() != indices.rank() {
                return fail(
                    "gather C2",
                    format!("data {data} and indices {indices} differ in rank"),
                );
            }
            one(TensorType { dtype: data.dtype, shape: indices.shape.clone() })
        }
        Op::GatherNd { batch } => {
            let batch = usize::try_from(*batch).unwrap_or(usize::MAX);
            let depth =
                indices.shape.last().and_then(Dim::as_const).and_then(|d| usize::try_from(d).ok());
            let Some(depth) = depth else {
                return fail("gather C3", format!("index depth of {indices} is not known"));
            };
            if batch >= indices.rank() || batch + depth > data.rank() {
                return fail("gather C4", format!("indices {indices} reach beyond data {data}"));
            }
            if !same_dims(&data.shape[..batch], &indices.shape[..batch], facts) {
                return fail("gather C5", format!("batch extents of {data} and {indices} differ"));
            }
            let lead = &indices.shape[..indices.rank() - 1];
            one(TensorType::new(
                data.dtype,
                lead.iter().chain(&data.shape[batch + depth..]).cloned(),
            ))
        }
        _ => fail("gather C6", "is no gather".to_owned()),
    }
}

fn scatter(operands: &[&TensorType]) -> Inferred {
    if operands[1].dtype != DType::I64 {
        return fail("scatter C1", format!("indices are {}, should be i64", operands[1]));
    }
    if operands[0].dtype != operands[2].dtype {
        return fail(
            "scatter C2",
            format!("data {} and updates {} differ in element type", operands[0], operands[2]),
        );
    }
    one(operands[0].clone())
}

fn unique(axis: i64, symbol: &crate::dim::Symbol, x: &TensorType) -> Inferred {
    let count = Dim::from(symbol);
    let (values, length) = if axis < 0 {
        (TensorType::new(x.dtype, [count.clone()]), x.count())
    } else {
        let axis = check_axis(axis, x)?;
        let mut shape = x.shape.clone();
        let length = std::mem::replace(&mut shape[axis], count.clone());
        (TensorType { dtype: x.dtype, shape }, length)
    };
    let index = |d: &Dim| TensorType::new(DType::I64, [d.clone()]);
    Ok(smallvec![values, index(&count), index(&length), index(&count)])
}

fn rnn(spec: &RnnSpec, operands: &[&TensorType]) -> Inferred {
    let lstm = spec.cell == crate::kernel_program::Cell::Lstm;
    let want = 3
        + usize::from(spec.r_bias)
        + usize::from(lstm)
        + usize::from(spec.peephole)
        + usize::from(spec.lengths);
    if operands.len() != want {
        return fail("rnn C1", format!("takes {want} operands, found {}", operands.len()));
    }
    let (x, r) = (operands[0], operands[1]);
    let gates = Dim::Const(spec.cell.gates());
    if x.rank() != 3
        || r.rank() != 2
        || x.shape[2] != r.shape[0]
        || r.shape[0] != gates * r.shape[1].clone()
    {
        return fail("rnn C2", format!("projected input {x} and recurrent weights {r}"));
    }
    let hidden = r.shape[1].clone();
    let state = TensorType::new(x.dtype, [x.shape[1].clone(), hidden.clone()]);
    let y = TensorType::new(x.dtype, [x.shape[0].clone(), x.shape[1].clone(), hidden]);
    Ok(if lstm { smallvec![y, state.clone(), state] } else { smallvec![y, state] })
}

fn attend(spec: &AttendSpec, operands: &[&TensorType], facts: &Facts) -> Inferred {
    if operands.len() != 3 + spec.extras.len() {
        return fail(
            "attend C1",
            format!("takes {} operands, found {}", 3 + spec.extras.len(), operands.len()),
        );
    }
    let axes = [&spec.q, &spec.k, &spec.v].into_iter().chain(&spec.extras);
    for (i, (groups, ty)) in axes.zip(operands).enumerate() {
        check_groups(&format!("operand {i}"), groups, &spec.extents, ty, facts)?;
    }
    one(TensorType::new(spec.dtype, group_shape(&spec.extents, &spec.out)))
}

/// Checks every node of a graph again; the first violation, with its node.
pub fn verify(graph: &Graph) -> Result<(), (NodeId, Violation)> {
    for id in graph.ids() {
        let operands = graph.operands(id);
        if operands.iter().any(|o| o.0 >= id.0) {
            return Err((
                id,
                Violation::new("graph C1", "an operand does not precede its user".to_owned()),
            ));
        }
        let types = infer(graph, graph.op(id), operands).map_err(|v| (id, v))?;
        if types.as_slice() != graph.types(id) {
            let message = format!("stored type {:?}, inferred {types:?}", graph.types(id));
            return Err((id, Violation::new("graph C2", message)));
        }
        for region in graph.op(id).regions() {
            verify(region.graph()).map_err(|(_, v)| (id, v))?;
        }
    }
    Ok(())
}
