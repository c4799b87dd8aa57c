//! Pointwise operators: arithmetic, comparison, logic, activations.
//!
//! Most are one row of the IR's scalar table; the others are written in rows.

use tgc_ir::attr::Attr;
use tgc_ir::dtype::{DType, DTypeKind};
use tgc_ir::graph::NodeId;
use tgc_ir::kernel_program::ScalarConst;
use tgc_ir::scalar::ScalarOp as S;

use super::{OnnxOp, call, one, scalar};
use crate::cx::{Cx, Node, OpError, Outputs};

/// The operators of this group.
pub(crate) const OPS: &[OnnxOp] = &[
    scalar("Abs", &[1, 6, 13], S::Abs),
    scalar("Acos", &[7, 22], S::Acos),
    scalar("Acosh", &[9, 22], S::Acosh),
    scalar("Add", &[1, 6, 7, 13, 14], S::Add),
    scalar("And", &[1, 7], S::And),
    scalar("Asin", &[7, 22], S::Asin),
    scalar("Asinh", &[9, 22], S::Asinh),
    scalar("Atan", &[7, 22], S::Atan),
    scalar("Atanh", &[9, 22], S::Atanh),
    scalar("BitwiseAnd", &[18], S::And),
    scalar("BitwiseNot", &[18], S::Not),
    scalar("BitwiseOr", &[18], S::Or),
    scalar("BitwiseXor", &[18], S::Xor),
    scalar("Ceil", &[1, 6, 13], S::Ceil),
    scalar("Cos", &[7, 22], S::Cos),
    scalar("Cosh", &[9, 22], S::Cosh),
    scalar("Div", &[1, 6, 7, 13, 14], S::Div),
    scalar("Equal", &[1, 7, 11, 13, 19], S::Eq),
    scalar("Erf", &[9, 13], S::Erf),
    scalar("Exp", &[1, 6, 13], S::Exp),
    scalar("Floor", &[1, 6, 13], S::Floor),
    scalar("IsNaN", &[9, 13, 20], S::IsNan),
    scalar("Less", &[1, 7, 9, 13], S::Lt),
    scalar("LessOrEqual", &[12, 16], S::Le),
    scalar("Log", &[1, 6, 13], S::Log),
    scalar("Mul", &[1, 6, 7, 13, 14], S::Mul),
    scalar("Neg", &[1, 6, 13], S::Neg),
    scalar("Not", &[1], S::Not),
    scalar("Or", &[1, 7], S::Or),
    scalar("Reciprocal", &[1, 6, 13], S::Recip),
    scalar("Round", &[11, 22], S::Round),
    scalar("Sigmoid", &[1, 6, 13], S::Sigmoid),
    scalar("Sign", &[9, 13], S::Sign),
    scalar("Sin", &[7, 22], S::Sin),
    scalar("Sinh", &[9, 22], S::Sinh),
    scalar("Sqrt", &[1, 6, 13], S::Sqrt),
    scalar("Sub", &[1, 6, 7, 13, 14], S::Sub),
    scalar("Tan", &[7, 22], S::Tan),
    scalar("Tanh", &[1, 6, 13], S::Tanh),
    scalar("Where", &[9, 16], S::Select),
    scalar("Xor", &[1, 7], S::Xor),
    call("Greater", &[1, 7, 9, 13], greater),
    call("GreaterOrEqual", &[12, 16], greater_or_equal),
    call("Max", &[1, 6, 8, 12, 13], |cx, n| fold_all(cx, n, S::Max)),
    call("Min", &[1, 6, 8, 12, 13], |cx, n| fold_all(cx, n, S::Min)),
    call("Sum", &[1, 6, 8, 13], |cx, n| fold_all(cx, n, S::Add)),
    call("Mean", &[1, 6, 8, 13], mean),
    call("Mod", &[10, 13, 28], modulo),
    call("Pow", &[1, 7, 12, 13, 15], pow),
    call("BitShift", &[11, 28], bit_shift),
    call("Clip", &[1, 6, 11, 12, 13], clip),
    call("IsInf", &[10, 20], is_inf),
    call("Relu", &[1, 6, 13, 14], |cx, n| named(cx, n, "relu")),
    call("LeakyRelu", &[1, 6, 16], |cx, n| with_alpha(cx, n, "leaky_relu", 0.01)),
    call("PRelu", &[1, 6, 7, 9, 16], prelu),
    call("Elu", &[1, 6, 22], |cx, n| with_alpha(cx, n, "elu", 1.0)),
    call("Celu", &[12, 28], celu),
    call("Selu", &[1, 6, 22], selu),
    call("ThresholdedRelu", &[10, 22], thresholded_relu),
    call("HardSigmoid", &[1, 6, 22], hard_sigmoid),
    call("HardSwish", &[14, 22], |cx, n| named(cx, n, "hard_swish")),
    call("Softplus", &[1, 22], |cx, n| named(cx, n, "softplus")),
    call("Softsign", &[1, 22], softsign),
    call("Mish", &[18, 22], |cx, n| named(cx, n, "mish")),
    call("Swish", &[24], swish),
    call("SwiGLU", &[28], swiglu),
    call("Gelu", &[20], gelu),
    call("Shrink", &[9], shrink),
];

fn greater(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (a, b) = (n.val(0)?, n.val(1)?);
    one(cx.scalar(S::Lt, &[b, a])?)
}

fn greater_or_equal(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (a, b) = (n.val(0)?, n.val(1)?);
    one(cx.scalar(S::Le, &[b, a])?)
}

fn fold_all(cx: &mut Cx, n: &Node, op: S) -> Result<Outputs, OpError> {
    let mut total = n.val(0)?;
    for i in 1..n.inputs.len() {
        total = cx.scalar(op, &[total, n.val(i)?])?;
    }
    one(total)
}

fn mean(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let total = fold_all(cx, n, S::Add)?.remove(0);
    let x = cx.node(&total)?;
    let count = cx.num(x, n.inputs.len() as f64)?;
    one(cx.map(S::Div, &[x, count])?)
}

fn modulo(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let op = if n.attrs.flag("fmod", false)? { S::Rem } else { S::Mod };
    one(cx.scalar(op, &[n.val(0)?, n.val(1)?])?)
}

/// Base and exponent may differ in type; the result has the type of the base.
fn pow(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (base, exponent) = (n.val(0)?, n.val(1)?);
    let (to, from) = (cx.dtype(&base)?, cx.dtype(&exponent)?);
    if to == from {
        return one(cx.scalar(S::Pow, &[base, exponent])?);
    }
    let (b, e) = (cx.node(&base)?, cx.node(&exponent)?);
    if to.is_float() {
        let e = cx.cast(e, to)?;
        return one(cx.map(S::Pow, &[b, e])?);
    }
    // An integer to a fractional power goes through f64 and back.
    let wide = if from.is_float() { DType::F64 } else { DType::I64 };
    let (b, e) = (cx.cast(b, wide)?, cx.cast(e, wide)?);
    let power = cx.map(S::Pow, &[b, e])?;
    one(cx.cast(power, to)?)
}

/// A negative count shifts everything out, as a count of the width does.
fn bit_shift(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let op = match n.attrs.string_or("direction", "")?.as_str() {
        "LEFT" => S::Shl,
        "RIGHT" => S::Shr,
        other => {
            return Err(OpError::invalid(format!(
                "has direction `{other}`; allowed are LEFT and RIGHT"
            )));
        }
    };
    let (x, count) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let dtype = cx.node_dtype(count);
    if dtype.kind() != DTypeKind::Int || op == S::Shl {
        return one(cx.map(op, &[x, count])?);
    }
    let (zero, width) = (cx.num(count, 0.0)?, cx.num(count, f64::from(dtype.bits()))?);
    let negative = cx.map(S::Lt, &[count, zero])?;
    let count = cx.map(S::Select, &[negative, width, count])?;
    one(cx.map(op, &[x, count])?)
}

/// Bounds are optional inputs (opset.rs makes them so for opsets below 11); `min > max` gives `max`.
fn clip(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let mut x = n.val(0)?;
    if let Some(low) = n.opt(1) {
        x = cx.scalar(S::Max, &[x, low])?;
    }
    if let Some(high) = n.opt(2) {
        x = cx.scalar(S::Min, &[x, high])?;
    }
    one(x)
}

fn is_inf(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let (positive, negative) =
        (n.attrs.flag("detect_positive", true)?, n.attrs.flag("detect_negative", true)?);
    if !positive && !negative {
        let never = cx.truth(false)?;
        let shape = cx.shape(x);
        return one(cx.broadcast(never, &shape)?);
    }
    let any = cx.map(S::IsInf, &[x])?;
    if positive && negative {
        return one(any);
    }
    let zero = cx.num(x, 0.0)?;
    let side = if positive { cx.map(S::Lt, &[zero, x])? } else { cx.map(S::Lt, &[x, zero])? };
    one(cx.map(S::And, &[any, side])?)
}

/// `x` where `x >= 0`, else `negative`.
fn where_negative(cx: &mut Cx, x: NodeId, negative: NodeId) -> Result<NodeId, OpError> {
    let zero = cx.num(x, 0.0)?;
    let below = cx.map(S::Lt, &[x, zero])?;
    cx.map(S::Select, &[below, negative, x])
}

fn with_alpha(cx: &mut Cx, n: &Node, name: &str, alpha: f32) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let alpha = Attr::Const(ScalarConst::float(n.attrs.float_or("alpha", alpha)?));
    one(cx.composite(name, &[x], &[alpha])?)
}

/// The slope broadcasts to the data from the right; before opset 7 a slope of rank 1 runs along the channels.
fn prelu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (x, mut slope) = (n.node(cx, 0)?, n.node(cx, 1)?);
    if n.version < 7 && cx.rank(slope) == 1 && cx.rank(x) > 1 {
        let axes: Vec<usize> = (1..cx.rank(x) - 1).collect();
        slope = cx.unsqueeze(slope, &axes)?;
    }
    let scaled = cx.map(S::Mul, &[x, slope])?;
    one(where_negative(cx, x, scaled)?)
}

/// `alpha * (exp(x / scale) - 1)`, exact to the last place near 0 through expm1.
fn exponential_tail(cx: &mut Cx, x: NodeId, alpha: f64, scale: f64) -> Result<NodeId, OpError> {
    let mut inner = x;
    if scale != 1.0 {
        let by = cx.num(x, scale)?;
        inner = cx.map(S::Div, &[x, by])?;
    }
    let tail = cx.map(S::Expm1, &[inner])?;
    let alpha = cx.num(x, alpha)?;
    cx.map(S::Mul, &[tail, alpha])
}

fn celu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let alpha = n.attrs.float_or("alpha", 1.0)?;
    let tail = exponential_tail(cx, x, alpha, alpha)?;
    one(where_negative(cx, x, tail)?)
}

fn selu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let alpha = n.attrs.float_or("alpha", 1.673_263_2)?;
    let gamma = cx.num(x, n.attrs.float_or("gamma", 1.050_701)?)?;
    let tail = exponential_tail(cx, x, alpha, 1.0)?;
    let inner = where_negative(cx, x, tail)?;
    one(cx.map(S::Mul, &[inner, gamma])?)
}

fn thresholded_relu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let (alpha, zero) = (cx.num(x, n.attrs.float_or("alpha", 1.0)?)?, cx.num(x, 0.0)?);
    let above = cx.map(S::Lt, &[alpha, x])?;
    one(cx.map(S::Select, &[above, x, zero])?)
}

fn hard_sigmoid(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let attrs =
        [("alpha", 0.2), ("beta", 0.5)].map(|(name, default)| n.attrs.float_or(name, default));
    let [alpha, beta] = attrs.map(|a| a.map(|a| Attr::Const(ScalarConst::float(a))));
    one(cx.composite("hard_sigmoid", &[x], &[alpha?, beta?])?)
}

fn named(cx: &mut Cx, n: &Node, name: &str) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    one(cx.composite(name, &[x], &[])?)
}

pub(crate) fn softsign_of(cx: &mut Cx, x: NodeId) -> Result<NodeId, OpError> {
    let unit = cx.num(x, 1.0)?;
    let size = cx.map(S::Abs, &[x])?;
    let below = cx.map(S::Add, &[size, unit])?;
    cx.map(S::Div, &[x, below])
}

fn softsign(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    one(softsign_of(cx, x)?)
}

fn swish_of(cx: &mut Cx, x: NodeId, alpha: f64) -> Result<NodeId, OpError> {
    if alpha == 1.0 {
        return cx.composite("silu", &[x], &[]);
    }
    let by = cx.num(x, alpha)?;
    let inner = cx.map(S::Mul, &[x, by])?;
    let gate = cx.map(S::Sigmoid, &[inner])?;
    cx.map(S::Mul, &[x, gate])
}

fn swish(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    one(swish_of(cx, x, n.attrs.float_or("alpha", 1.0)?)?)
}

fn gelu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let name = match n.attrs.string_or("approximate", "none")?.as_str() {
        "none" => "gelu",
        "tanh" => "gelu_tanh",
        other => {
            return Err(OpError::invalid(format!(
                "has approximate `{other}`; allowed are none and tanh"
            )));
        }
    };
    one(cx.composite(name, &[x], &[])?)
}

fn shrink(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let x = n.node(cx, 0)?;
    let (lambd, bias) = (n.attrs.float_or("lambd", 0.5)?, n.attrs.float_or("bias", 0.0)?);
    let (low, high) = (cx.num(x, -lambd)?, cx.num(x, lambd)?);
    let (bias, zero) = (cx.num(x, bias)?, cx.num(x, 0.0)?);
    let (raised, lowered) = (cx.map(S::Add, &[x, bias])?, cx.map(S::Sub, &[x, bias])?);
    let (below, above) = (cx.map(S::Lt, &[x, low])?, cx.map(S::Lt, &[high, x])?);
    let inner = cx.map(S::Select, &[above, lowered, zero])?;
    one(cx.map(S::Select, &[below, raised, inner])?)
}

fn swiglu(cx: &mut Cx, n: &Node) -> Result<Outputs, OpError> {
    let (gate, linear) = (n.node(cx, 0)?, n.node(cx, 1)?);
    let gate = swish_of(cx, gate, n.attrs.float_or("alpha", 1.0)?)?;
    one(cx.map(S::Mul, &[gate, linear])?)
}
