//! Recurrent layers: RNN, GRU, LSTM, one IR op per direction over projected inputs.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::{Body, Cell, Inst, InstKind, ScalarConst};
use tgc_ir::op::Op;
use tgc_ir::scalar::ScalarOp as S;
use tgc_ir::spec::RnnSpec;

use super::linear::{Labelled, Labels, contract};
use super::{OnnxOp, call, many};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    call("RNN", &[1, 7, 14, 22], |cx, n| layer(cx, n, Cell::Plain)),
    call("LSTM", &[1, 7, 14, 22], |cx, n| layer(cx, n, Cell::Lstm)),
    call("GRU", &[1, 3, 7, 14, 22], |cx, n| {
        let linear_before_reset = n.attrs.flag("linear_before_reset", false)?;
        layer(cx, n, Cell::Gru { linear_before_reset })
    }),
];

/// Writes a gate function in scalar rows.
struct Writer {
    dtype: DType,
    insts: Vec<Inst>,
}

impl Writer {
    fn push(&mut self, dtype: DType, kind: InstKind) -> u32 {
        self.insts.push(Inst { dtype, kind });
        self.insts.len() as u32 - 1
    }
    fn num(&mut self, value: f64) -> u32 {
        self.push(self.dtype, InstKind::Const(ScalarConst::float(value)))
    }
    fn map(&mut self, op: S, operands: &[u32]) -> u32 {
        let dtype = if op == S::Lt { DType::Bool } else { self.dtype };
        self.push(dtype, InstKind::Scalar(op, operands.iter().copied().collect()))
    }
    fn where_negative(&mut self, x: u32, negative: u32) -> u32 {
        let zero = self.num(0.0);
        let below = self.map(S::Lt, &[x, zero]);
        self.map(S::Select, &[below, negative, x])
    }
}

/// A gate function by its ONNX name (RNN-22, attribute `activations`).
fn activation(
    name: &str,
    alpha: Option<f64>,
    beta: Option<f64>,
    dtype: DType,
) -> Result<(Body, u32), OpError> {
    let mut w = Writer { dtype, insts: Vec::new() };
    let x = w.push(dtype, InstKind::Slot(0));
    let (a, b) = (|d: f64| alpha.unwrap_or(d), |d: f64| beta.unwrap_or(d));
    let value = match name.to_ascii_lowercase().as_str() {
        "sigmoid" => w.map(S::Sigmoid, &[x]),
        "tanh" => w.map(S::Tanh, &[x]),
        "relu" => {
            let zero = w.num(0.0);
            w.map(S::Max, &[x, zero])
        }
        "affine" => {
            let (a, b) = (w.num(a(1.0)), w.num(b(0.0)));
            let scaled = w.map(S::Mul, &[x, a]);
            w.map(S::Add, &[scaled, b])
        }
        "leakyrelu" => {
            let a = w.num(a(0.01));
            let scaled = w.map(S::Mul, &[x, a]);
            w.where_negative(x, scaled)
        }
        "thresholdedrelu" => {
            let (a, zero) = (w.num(a(1.0)), w.num(0.0));
            let above = w.map(S::Lt, &[a, x]);
            w.map(S::Select, &[above, x, zero])
        }
        "scaledtanh" => {
            let (a, b) = (w.num(a(1.0)), w.num(b(1.0)));
            let inner = w.map(S::Mul, &[x, b]);
            let inner = w.map(S::Tanh, &[inner]);
            w.map(S::Mul, &[inner, a])
        }
        "hardsigmoid" => {
            let (a, b, zero, unit) = (w.num(a(0.2)), w.num(b(0.5)), w.num(0.0), w.num(1.0));
            let line = w.map(S::Mul, &[x, a]);
            let line = w.map(S::Add, &[line, b]);
            let line = w.map(S::Max, &[line, zero]);
            w.map(S::Min, &[line, unit])
        }
        "elu" => {
            let a = w.num(a(1.0));
            let tail = w.map(S::Expm1, &[x]);
            let tail = w.map(S::Mul, &[tail, a]);
            w.where_negative(x, tail)
        }
        "softsign" => {
            let (size, unit) = (w.map(S::Abs, &[x]), w.num(1.0));
            let below = w.map(S::Add, &[size, unit]);
            w.map(S::Div, &[x, below])
        }
        "softplus" => {
            let e = w.map(S::Exp, &[x]);
            w.map(S::Log1p, &[e])
        }
        other => return Err(OpError::invalid(format!("has activation `{other}`"))),
    };
    Ok((Body { insts: w.insts }, value))
}

fn default_activations(cell: Cell) -> &'static [&'static str] {
    match cell {
        Cell::Plain => &["Tanh"],
        Cell::Lstm => &["Sigmoid", "Tanh", "Tanh"],
        Cell::Gru { .. } => &["Sigmoid", "Tanh"],
    }
}

/// The gate functions of one direction.
fn activations(
    n: &Node,
    cell: Cell,
    direction: usize,
    dtype: DType,
) -> Result<Vec<(Body, u32)>, OpError> {
    let defaults = default_activations(cell);
    let names = n.attrs.strings("activations")?.unwrap_or_default();
    let (alphas, betas) = (n.attrs.floats("activation_alpha")?, n.attrs.floats("activation_beta")?);
    (0..defaults.len())
        .map(|i| {
            let at = direction * defaults.len() + i;
            let name = names.get(at).map_or(defaults[i], String::as_str);
            let param = |list: Option<&[f32]>| list.and_then(|l| l.get(at)).map(|&x| f64::from(x));
            activation(name, param(alphas), param(betas), dtype)
        })
        .collect()
}

/// Row `direction` of a per-direction operand.
fn part(cx: &mut Cx, x: NodeId, direction: usize) -> Result<NodeId, OpError> {
    let x = cx.slice(x, 0, Dim::Const(direction as i64), 1, Dim::ONE)?;
    cx.squeeze(x, &[0])
}

/// Operands of a layer, time first.
struct Operands {
    x: NodeId,
    w: NodeId,
    r: NodeId,
    b: Option<NodeId>,
    lengths: Option<NodeId>,
    h0: Option<NodeId>,
    c0: Option<NodeId>,
    peephole: Option<NodeId>,
}

/// `x · Wᵀ + Wb + Rb`; the recurrent bias of the candidate of a linear-before-reset GRU stays apart.
fn project(
    cx: &mut Cx,
    o: &Operands,
    cell: Cell,
    direction: usize,
) -> Result<(NodeId, Option<NodeId>), OpError> {
    let w = part(cx, o.w, direction)?;
    let mut labels = Labels::default();
    for (node, names) in [(o.x, [0u32, 1, 2].as_slice()), (w, &[3, 2])] {
        for (extent, &label) in cx.shape(node).iter().zip(names) {
            labels.meet(cx, label, extent)?;
        }
    }
    let (x, w) =
        (Labelled { node: o.x, labels: vec![0, 1, 2] }, Labelled { node: w, labels: vec![3, 2] });
    let mut projected = contract(cx, &labels, &x, &w, &[0, 1, 3])?;
    let Some(bias) = o.b else { return Ok((projected, None)) };
    let bias = part(cx, bias, direction)?;
    let width = labels.extent(3);
    let input = cx.slice(bias, 0, Dim::ZERO, 1, width.clone())?;
    let recurrent = cx.slice(bias, 0, width.clone(), 1, width.clone())?;
    projected = cx.map(S::Add, &[projected, input])?;
    if cell != (Cell::Gru { linear_before_reset: true }) {
        return Ok((cx.map(S::Add, &[projected, recurrent])?, None));
    }
    let hidden = width.floor_div(&Dim::Const(3));
    let gates = hidden.clone() * Dim::Const(2);
    let outside = cx.slice(recurrent, 0, Dim::ZERO, 1, gates.clone())?;
    let zero = cx.zero(outside)?;
    let outside = cx.pad(outside, &[Dim::ZERO], std::slice::from_ref(&hidden), zero)?;
    projected = cx.map(S::Add, &[projected, outside])?;
    Ok((projected, Some(cx.slice(recurrent, 0, gates, 1, hidden)?)))
}

fn direction_of(
    cx: &mut Cx,
    n: &Node,
    o: &Operands,
    cell: Cell,
    d: usize,
    reverse: bool,
) -> Result<NodeId, OpError> {
    let (x, r_bias) = project(cx, o, cell, d)?;
    let r = part(cx, o.r, d)?;
    let (batch, hidden) = (cx.shape(x)[1].clone(), cx.shape(r)[1].clone());
    let state = |cx: &mut Cx, s: Option<NodeId>| match s {
        Some(s) => part(cx, s, d),
        None => {
            let zero = cx.zero(x)?;
            cx.broadcast(zero, &[batch.clone(), hidden.clone()])
        }
    };
    let mut operands = vec![x, r];
    operands.extend(r_bias);
    operands.push(state(cx, o.h0)?);
    if cell == Cell::Lstm {
        operands.push(state(cx, o.c0)?);
        if let Some(p) = o.peephole {
            operands.push(part(cx, p, d)?);
        }
    }
    operands.extend(o.lengths);
    let dtype = cx.node_dtype(x);
    let spec = RnnSpec {
        cell,
        reverse,
        r_bias: r_bias.is_some(),
        peephole: cell == Cell::Lstm && o.peephole.is_some(),
        lengths: o.lengths.is_some(),
        activations: activations(n, cell, d, dtype)?,
        input_forget: n.attrs.flag("input_forget", false)?,
        clip: n.attrs.float("clip")?.map(|c| ScalarConst::float(f64::from(c))),
    };
    cx.emit(Op::Rnn { spec: spec.into() }, &operands)
}

/// Joins directions along a new axis.
fn stack(cx: &mut Cx, parts: &[NodeId], axis: usize) -> Result<NodeId, OpError> {
    let wide: Vec<NodeId> =
        parts.iter().map(|&p| cx.unsqueeze(p, &[axis])).collect::<Result<_, _>>()?;
    cx.concat(&wide, axis)
}

fn layer(cx: &mut Cx, n: &Node, cell: Cell) -> Result<Outputs, OpError> {
    let batch_first = n.attrs.flag("layout", false)?;
    let mut x = n.node(cx, 0)?;
    if cx.rank(x) != 3 {
        return Err(OpError::invalid("takes data of rank 3"));
    }
    if batch_first {
        x = cx.permute(x, &[1, 0, 2])?;
    }
    let state = |cx: &mut Cx, i: usize| -> Result<Option<NodeId>, OpError> {
        let s = n.opt_node(cx, i)?;
        s.map(|s| if batch_first { cx.permute(s, &[1, 0, 2]) } else { Ok(s) }).transpose()
    };
    let lengths = n.opt_node(cx, 4)?.map(|l| cx.cast(l, DType::I64)).transpose()?;
    let lstm = cell == Cell::Lstm;
    let o = Operands {
        x,
        w: n.node(cx, 1)?,
        r: n.node(cx, 2)?,
        b: n.opt_node(cx, 3)?,
        lengths,
        h0: state(cx, 5)?,
        c0: if lstm { state(cx, 6)? } else { None },
        peephole: if lstm { n.opt_node(cx, 7)? } else { None },
    };
    let reversed: &[bool] = match n.attrs.string_or("direction", "forward")?.as_str() {
        "forward" => &[false],
        "reverse" => &[true],
        "bidirectional" => &[false, true],
        other => return Err(OpError::invalid(format!("has direction `{other}`"))),
    };
    let mut results: [Vec<NodeId>; 3] = Default::default();
    for (d, &reverse) in reversed.iter().enumerate() {
        let tuple = direction_of(cx, n, &o, cell, d, reverse)?;
        for (i, list) in results.iter_mut().enumerate().take(if lstm { 3 } else { 2 }) {
            list.push(cx.proj(tuple, i)?);
        }
    }
    let mut y = stack(cx, &results[0], 1)?;
    let mut outputs = Vec::new();
    if batch_first {
        y = cx.permute(y, &[2, 0, 1, 3])?;
    }
    outputs.push(y);
    for list in results[1..].iter().filter(|l| !l.is_empty()) {
        outputs.push(stack(cx, list, usize::from(batch_first))?);
    }
    many(&outputs)
}
