//! Chains of rows that one vector loop computes better: found in a body, replaced where they end.
//!
//! A replacement agrees with its expansion to a few units in the last place; the operations that it makes
//! unnecessary are dropped when nothing else reads them.

use tgc_ir::DType;
use tgc_ir::kernel_program::{Body, InstKind};
use tgc_ir::scalar::ScalarOp;

use crate::cpu::kernels::lanes::Unary;

/// The operation and operand that compute instruction `at`, when it ends a known chain.
pub(super) fn find(body: &Body, at: u32) -> Option<(Unary, u32)> {
    if body.dtype(at) != DType::F32 || !matches!(operands(body, at, ScalarOp::Mul), Some([_, _])) {
        return None;
    }
    gelu(body, at)
        .map(|x| (Unary::Gelu, x))
        .or_else(|| silu(body, at).map(|x| (Unary::Silu, x)))
        .or_else(|| hard_swish(body, at).map(|x| (Unary::HardSwish, x)))
}

/// `x * min(max(x / 6 + 0.5, 0), 1)`
fn hard_swish(body: &Body, at: u32) -> Option<u32> {
    let with = |at: u32, op: ScalarOp, c: f64| {
        let [a, b] = operands(body, at, op)?;
        constant(body, b).is_some_and(|found| found as f32 == c as f32).then_some(a)
    };
    let gate = |at: u32| {
        let above = with(at, ScalarOp::Min, 1.0)?;
        let line = with(above, ScalarOp::Max, 0.0)?;
        with(with(line, ScalarOp::Add, 0.5)?, ScalarOp::Mul, 1.0 / 6.0)
    };
    let [a, b] = operands(body, at, ScalarOp::Mul)?;
    if gate(b) == Some(a) {
        Some(a)
    } else if gate(a) == Some(b) {
        Some(b)
    } else {
        None
    }
}

/// `x * sigmoid(x)`
fn silu(body: &Body, at: u32) -> Option<u32> {
    let [a, b] = operands(body, at, ScalarOp::Mul)?;
    let of = |s: u32, x: u32| matches!(&body.insts[s as usize].kind, InstKind::Scalar(ScalarOp::Sigmoid, v) if v[0] == x);
    if of(b, a) {
        Some(a)
    } else if of(a, b) {
        Some(b)
    } else {
        None
    }
}

/// `x * (1 + erf(x / sqrt 2)) * 0.5` with the factors in any order and grouping.
fn gelu(body: &Body, at: u32) -> Option<u32> {
    let mut factors = Vec::new();
    flatten(body, at, None, &mut factors);
    let x = factors.iter().find_map(|&f| erf_argument(body, f))?;
    factors.clear();
    flatten(body, at, Some(x), &mut factors);
    let [a, b, c] = factors.as_slice() else { return None };
    let is = |f: u32, which: usize| match which {
        0 => f == x,
        1 => erf_argument(body, f) == Some(x),
        _ => constant(body, f) == Some(0.5),
    };
    let orders = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
    orders.iter().any(|o| is(*a, o[0]) && is(*b, o[1]) && is(*c, o[2])).then_some(x)
}

/// The factors of a product, at most three, not looking into `leaf`.
fn flatten(body: &Body, at: u32, leaf: Option<u32>, out: &mut Vec<u32>) {
    match operands(body, at, ScalarOp::Mul) {
        Some([a, b]) if Some(at) != leaf && out.len() < 8 => {
            flatten(body, a, leaf, out);
            flatten(body, b, leaf, out);
        }
        _ => out.push(at),
    }
}

/// x, when the instruction is `1 + erf(x / sqrt 2)`.
fn erf_argument(body: &Body, at: u32) -> Option<u32> {
    let [a, b] = operands(body, at, ScalarOp::Add)?;
    let erf = match (constant(body, a), constant(body, b)) {
        (Some(1.0), None) => b,
        (None, Some(1.0)) => a,
        _ => return None,
    };
    let InstKind::Scalar(ScalarOp::Erf, args) = &body.insts[erf as usize].kind else { return None };
    let near = |c: Option<f64>, to: f64| c.is_some_and(|c| (c - to).abs() < 1e-6);
    if let Some([x, c]) = operands(body, args[0], ScalarOp::Mul) {
        if near(constant(body, c), std::f64::consts::FRAC_1_SQRT_2) {
            return Some(x);
        }
        return near(constant(body, x), std::f64::consts::FRAC_1_SQRT_2).then_some(c);
    }
    let [x, c] = operands(body, args[0], ScalarOp::Div)?;
    near(constant(body, c), std::f64::consts::SQRT_2).then_some(x)
}

fn operands(body: &Body, at: u32, op: ScalarOp) -> Option<[u32; 2]> {
    match &body.insts[at as usize].kind {
        InstKind::Scalar(found, args) if *found == op && args.len() == 2 => {
            Some([args[0], args[1]])
        }
        _ => None,
    }
}

fn constant(body: &Body, at: u32) -> Option<f64> {
    match &body.insts[at as usize].kind {
        InstKind::Const(c) => Some(c.as_f64()),
        _ => None,
    }
}
