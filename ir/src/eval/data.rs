//! Reference of reductions, orders and ops whose result size depends on data.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::dim::Symbol;
use crate::dtype::DType;
use crate::eval::array::{Array, Indices, strides};
use crate::eval::movement::offset;
use crate::eval::node::Machine;
use crate::kernel_program::ReduceOp;
use crate::op::RandomKind;
use crate::scalar::{ScalarOp, Value};

/// The value that a reduction over nothing gives.
pub(crate) fn neutral(op: ReduceOp, dtype: DType) -> Value {
    let extreme = |sign: f64| {
        if dtype.is_float() {
            Value::Float(f64::INFINITY * sign)
        } else {
            let (low, high) = dtype.int_range();
            Value::Int(if sign < 0.0 { low } else { high })
        }
    };
    match op {
        ReduceOp::Sum => Value::zero(dtype),
        ReduceOp::Prod if dtype.is_float() => Value::Float(1.0),
        ReduceOp::Prod | ReduceOp::All => Value::Int(1),
        ReduceOp::Max => extreme(-1.0),
        ReduceOp::Min => extreme(1.0),
        ReduceOp::Any
        | ReduceOp::ArgMax
        | ReduceOp::ArgMin
        | ReduceOp::ArgMaxLast
        | ReduceOp::ArgMinLast => Value::Int(0),
    }
}

/// One more element into a running reduction (not for `arg` reductions).
pub(crate) fn step(op: ReduceOp, acc: Value, x: Value, dtype: DType) -> Value {
    let scalar = match op {
        ReduceOp::Sum => ScalarOp::Add,
        ReduceOp::Prod => ScalarOp::Mul,
        ReduceOp::Max => ScalarOp::Max,
        ReduceOp::Min => ScalarOp::Min,
        ReduceOp::All => ScalarOp::And,
        ReduceOp::Any => ScalarOp::Or,
        _ => return acc,
    };
    scalar.evaluate(&[acc, x], dtype)
}

/// A running reduction over elements in order.
pub(crate) struct Reducer {
    op: ReduceOp,
    dtype: DType,
    acc: Value,
    best: Option<(Value, usize)>,
    count: usize,
}

impl Reducer {
    pub(crate) fn new(op: ReduceOp, dtype: DType) -> Reducer {
        Reducer { op, dtype, acc: neutral(op, dtype), best: None, count: 0 }
    }

    pub(crate) fn add(&mut self, x: Value) {
        if self.op.is_arg() {
            let better = match &self.best {
                None => true,
                Some((have, _)) => {
                    let order = match self.op {
                        ReduceOp::ArgMin | ReduceOp::ArgMinLast => compare(*have, x),
                        _ => compare(x, *have),
                    };
                    let last = matches!(self.op, ReduceOp::ArgMaxLast | ReduceOp::ArgMinLast);
                    order == Ordering::Greater || (last && order == Ordering::Equal)
                }
            };
            if better {
                self.best = Some((x, self.count));
            }
        } else {
            self.acc = step(self.op, self.acc, x, self.dtype);
        }
        self.count += 1;
    }

    pub(crate) fn result(&self) -> Value {
        if self.op.is_arg() {
            Value::Int(self.best.map_or(0, |(_, i)| i as i128))
        } else {
            self.acc
        }
    }
}

/// Order of values with NaN as largest.
pub(crate) fn compare(a: Value, b: Value) -> Ordering {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => x.cmp(&y),
        _ => {
            let (x, y) = (a.as_f64(), b.as_f64());
            x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
        }
    }
}

pub(crate) fn reduce(op: ReduceOp, axes: &[i64], x: &Array, shape: &[usize]) -> Array {
    let to = strides(shape);
    let mut reducers: Vec<Reducer> =
        (0..shape.iter().product()).map(|_| Reducer::new(op, x.dtype)).collect();
    for (at, mut index) in Indices::new(&x.shape).enumerate() {
        for &axis in axes {
            index[axis as usize] = 0;
        }
        reducers[offset(&index, &to)].add(x.get(at));
    }
    Array::build(op.result(x.dtype), shape, |i| reducers[i].result())
}

pub(crate) fn scan(op: ReduceOp, axis: usize, exclusive: bool, reverse: bool, x: &Array) -> Array {
    let n = x.shape[axis];
    let stride = x.strides()[axis];
    let mut out = x.clone();
    let mut lead = x.shape.clone();
    lead[axis] = 1;
    for index in Indices::new(&lead) {
        let base = offset(&index, &x.strides());
        let mut acc = neutral(op, x.dtype);
        for k in 0..n {
            let at = base + (if reverse { n - 1 - k } else { k }) * stride;
            let next = step(op, acc, x.get(at), x.dtype);
            out.set(at, if exclusive { acc } else { next });
            acc = next;
        }
    }
    out
}

pub(crate) fn topk(axis: usize, largest: bool, x: &Array, shape: &[usize]) -> Vec<Array> {
    let (from, to) = (x.strides(), strides(shape));
    let mut values = Array::filled(x.dtype, shape, Value::zero(x.dtype));
    let mut indices = Array::filled(DType::I64, shape, Value::Int(0));
    let mut lead = x.shape.clone();
    lead[axis] = 1;
    for index in Indices::new(&lead) {
        let base = offset(&index, &from);
        let order = order_of(x.shape[axis], largest, |i| x.get(base + i * from[axis]));
        for (rank, i) in order.into_iter().take(shape[axis]).enumerate() {
            let place = offset(&index, &to) + rank * to[axis];
            values.set(place, x.get(base + i * from[axis]));
            indices.set(place, Value::Int(i as i128));
        }
    }
    vec![values, indices]
}

/// Positions in sorted order, ties by position.
pub(crate) fn order_of(n: usize, largest: bool, value: impl Fn(usize) -> Value) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|a, b| {
        let o = compare(value(*a), value(*b));
        if largest { o.reverse() } else { o }
    });
    order
}

pub(crate) fn nonzero(machine: &mut Machine<'_>, count: &Symbol, x: &Array) -> Array {
    let found: Vec<Vec<usize>> = Indices::new(&x.shape)
        .enumerate()
        .filter(|(i, _)| x.get(*i).is_true())
        .map(|(_, index)| index)
        .collect();
    machine.bind_count(count, found.len());
    let rank = x.shape.len().max(1);
    let n = found.len();
    Array::build(DType::I64, &[rank, n], |i| {
        Value::Int(found[i % n].get(i / n).copied().unwrap_or(0) as i128)
    })
}

pub(crate) fn unique(
    machine: &mut Machine<'_>,
    axis: i64,
    sorted: bool,
    count: &Symbol,
    x: &Array,
) -> Vec<Array> {
    let (outer, n, inner) = match usize::try_from(axis) {
        Ok(a) => (x.shape[..a].iter().product(), x.shape[a], x.shape[a + 1..].iter().product()),
        Err(_) => (1, x.len(), 1),
    };
    let slice = |i: usize| -> Vec<Value> {
        (0..outer)
            .flat_map(|o| (0..inner).map(move |k| (o * n + i) * inner + k))
            .map(|at| x.get(at))
            .collect()
    };
    let slices: Vec<Vec<Value>> = (0..n).map(slice).collect();
    let order = |a: &Vec<Value>, b: &Vec<Value>| {
        a.iter()
            .zip(b)
            .map(|(p, q)| compare(*p, *q))
            .find(|o| *o != Ordering::Equal)
            .unwrap_or(Ordering::Equal)
    };
    let mut first: Vec<usize> = Vec::new();
    for i in 0..n {
        if !first.iter().any(|&f| order(&slices[f], &slices[i]) == Ordering::Equal) {
            first.push(i);
        }
    }
    if sorted {
        first.sort_by(|a, b| order(&slices[*a], &slices[*b]));
    }
    let inverse: Vec<usize> = (0..n)
        .map(|i| {
            first
                .iter()
                .position(|&f| order(&slices[f], &slices[i]) == Ordering::Equal)
                .unwrap_or(0)
        })
        .collect();
    let m = first.len();
    machine.bind_count(count, m);
    let mut shape = if axis < 0 { vec![m] } else { x.shape.clone() };
    if let Ok(a) = usize::try_from(axis) {
        shape[a] = m;
    }
    let values = Array::build(x.dtype, &shape, |at| {
        let (o, j, k) = (at / (m * inner), at / inner % m, at % inner);
        x.get((o * n + first[j]) * inner + k)
    });
    let ints = |v: &[usize]| Array::build(DType::I64, &[v.len()], |i| Value::Int(v[i] as i128));
    let counts: Vec<usize> = (0..m).map(|j| inverse.iter().filter(|&&i| i == j).count()).collect();
    vec![values, ints(&first), ints(&inverse), ints(&counts)]
}

/// ONNX NonMaxSuppression-11.
pub(crate) fn nms(
    machine: &mut Machine<'_>,
    center_point: bool,
    count: &Symbol,
    x: &[Arc<Array>],
) -> Array {
    let (boxes, scores) = (&x[0], &x[1]);
    let limit = x[2].get(0).as_int().max(0) as usize;
    let (overlap, least) = (x[3].get(0).as_f64(), x[4].get(0).as_f64());
    let (batches, n, classes) = (boxes.shape[0], boxes.shape[1], scores.shape[1]);
    let corner = |b: usize, i: usize| {
        let v: Vec<f64> = (0..4).map(|k| boxes.get((b * n + i) * 4 + k).as_f64()).collect();
        if center_point {
            [v[1] - v[3] / 2.0, v[0] - v[2] / 2.0, v[1] + v[3] / 2.0, v[0] + v[2] / 2.0]
        } else {
            [v[0].min(v[2]), v[1].min(v[3]), v[0].max(v[2]), v[1].max(v[3])]
        }
    };
    let mut chosen: Vec<[usize; 3]> = Vec::new();
    for b in 0..batches {
        for c in 0..classes {
            let score = |i: usize| scores.get((b * classes + c) * n + i);
            let mut kept: Vec<usize> = Vec::new();
            for i in order_of(n, true, score) {
                if kept.len() >= limit || score(i).as_f64() <= least {
                    break;
                }
                if kept
                    .iter()
                    .all(|&k| intersection_over_union(corner(b, k), corner(b, i)) <= overlap)
                {
                    kept.push(i);
                }
            }
            chosen.extend(kept.into_iter().map(|i| [b, c, i]));
        }
    }
    machine.bind_count(count, chosen.len());
    Array::build(DType::I64, &[chosen.len(), 3], |i| Value::Int(chosen[i / 3][i % 3] as i128))
}

fn intersection_over_union(a: [f64; 4], b: [f64; 4]) -> f64 {
    let side = |lo: f64, hi: f64| (hi - lo).max(0.0);
    let common = side(a[0].max(b[0]), a[2].min(b[2])) * side(a[1].max(b[1]), a[3].min(b[3]));
    let area = |r: [f64; 4]| side(r[0], r[2]) * side(r[1], r[3]);
    let union = area(a) + area(b) - common;
    if union > 0.0 { common / union } else { 0.0 }
}

/// Mixes a counter (SplitMix64's finaliser; Steele et al., OOPSLA 2014).
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Element `i` of the stream of a key, in [0, 1) with 53 bits.
pub(crate) fn uniform(seed: i64, i: u64) -> f64 {
    (mix(mix(seed as u64) ^ i) >> 11) as f64 / (1u64 << 53) as f64
}

pub(crate) fn random(kind: RandomKind, seed: i64, dtype: DType, shape: &[usize]) -> Array {
    Array::build(dtype, shape, |i| {
        Value::Float(match kind {
            RandomKind::Uniform => uniform(seed, i as u64),
            RandomKind::Normal => {
                let (u, v) = (uniform(seed, 2 * i as u64), uniform(seed, 2 * i as u64 + 1));
                (-2.0 * (1.0 - u).ln()).sqrt() * (std::f64::consts::TAU * v).cos()
            }
        })
    })
}
