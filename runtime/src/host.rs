//! Work that every device leaves to the host: ops whose result size depends
//! on data. Devices synchronise before it.

use std::cmp::Ordering;

use tgc_ir::plan::HostOp;
use tgc_ir::scalar::Value;
use tgc_ir::tensor::Tensor;

/// Results of a host step and its count.
pub fn run(op: &HostOp, inputs: &[Tensor]) -> (Vec<Tensor>, usize) {
    match op {
        HostOp::NonZero => nonzero(&inputs[0]),
        HostOp::NonMaxSuppression { center_point } => suppress(*center_point, inputs),
        HostOp::Unique { axis, sorted } => unique(axis.map(|a| a as usize), *sorted, &inputs[0]),
    }
}

fn nonzero(x: &Tensor) -> (Vec<Tensor>, usize) {
    let rank = x.shape().len().max(1);
    let found: Vec<usize> = (0..x.len()).filter(|i| x.value(*i).is_true()).collect();
    let count = found.len();
    let mut out = vec![0i64; rank * count];
    for (n, &at) in found.iter().enumerate() {
        let mut rest = at;
        for axis in (0..x.shape().len()).rev() {
            out[axis * count + n] = (rest % x.shape()[axis]) as i64;
            rest /= x.shape()[axis];
        }
    }
    (vec![Tensor::from_i64(&[rank, count], &out)], count)
}

fn order(a: Value, b: Value) -> Ordering {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => x.cmp(&y),
        _ => {
            let (x, y) = (a.as_f64(), b.as_f64());
            x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
        }
    }
}

/// A box by its corners.
struct Corners {
    low: [f64; 2],
    high: [f64; 2],
}

impl Corners {
    fn new(v: [f64; 4], center_point: bool) -> Corners {
        if center_point {
            let half = [v[2] / 2.0, v[3] / 2.0];
            return Corners {
                low: [v[0] - half[0], v[1] - half[1]],
                high: [v[0] + half[0], v[1] + half[1]],
            };
        }
        Corners { low: [v[0].min(v[2]), v[1].min(v[3])], high: [v[0].max(v[2]), v[1].max(v[3])] }
    }

    fn area(&self) -> f64 {
        (0..2).map(|a| (self.high[a] - self.low[a]).max(0.0)).product()
    }

    /// Share of the common area in the united area.
    fn overlap(&self, other: &Corners) -> f64 {
        let side =
            |a: usize| (self.high[a].min(other.high[a]) - self.low[a].max(other.low[a])).max(0.0);
        let common = side(0) * side(1);
        let united = self.area() + other.area() - common;
        if united > 0.0 { common / united } else { 0.0 }
    }
}

/// ONNX NonMaxSuppression-11: boxes [b, n, 4], scores [b, c, n], greatest
/// count, overlap limit, score limit.
fn suppress(center_point: bool, inputs: &[Tensor]) -> (Vec<Tensor>, usize) {
    let (boxes, scores) = (&inputs[0], &inputs[1]);
    let count_max = inputs[2].value(0).as_int().max(0) as usize;
    let (overlap_max, score_min) = (inputs[3].value(0).as_f64(), inputs[4].value(0).as_f64());
    let (batches, n, classes) = (boxes.shape()[0], boxes.shape()[1], scores.shape()[1]);
    let mut out: Vec<i64> = Vec::new();
    for b in 0..batches {
        let corners: Vec<Corners> = (0..n)
            .map(|i| {
                Corners::new(
                    [0, 1, 2, 3].map(|k| boxes.value((b * n + i) * 4 + k).as_f64()),
                    center_point,
                )
            })
            .collect();
        for c in 0..classes {
            let score = |i: usize| scores.value((b * classes + c) * n + i).as_f64();
            let mut ranked: Vec<usize> = (0..n).filter(|i| score(*i) > score_min).collect();
            ranked.sort_by(|x, y| order(Value::Float(score(*y)), Value::Float(score(*x))));
            let mut kept: Vec<usize> = Vec::new();
            for i in ranked {
                if kept.len() < count_max
                    && kept.iter().all(|k| corners[*k].overlap(&corners[i]) <= overlap_max)
                {
                    kept.push(i);
                }
            }
            out.extend(kept.into_iter().flat_map(|i| [b as i64, c as i64, i as i64]));
        }
    }
    let count = out.len() / 3;
    (vec![Tensor::from_i64(&[count, 3], &out)], count)
}

fn unique(axis: Option<usize>, sorted: bool, x: &Tensor) -> (Vec<Tensor>, usize) {
    let shape = x.shape();
    let (outer, n, inner) = match axis {
        Some(a) => (
            shape[..a].iter().product::<usize>(),
            shape[a],
            shape[a + 1..].iter().product::<usize>(),
        ),
        None => (1, x.len(), 1),
    };
    let slice =
        |i: usize| (0..outer).flat_map(move |o| (0..inner).map(move |k| (o * n + i) * inner + k));
    let compare = |a: usize, b: usize| {
        let pairs = slice(a).zip(slice(b)).map(|(p, q)| order(x.value(p), x.value(q)));
        pairs.fold(Ordering::Equal, Ordering::then)
    };
    let mut ranked: Vec<usize> = (0..n).collect();
    ranked.sort_by(|a, b| compare(*a, *b).then(a.cmp(b)));
    // The first of each run of equals stands for it.
    let mut stands: Vec<usize> = vec![0; n];
    let mut chosen: Vec<usize> = Vec::new();
    for (at, &i) in ranked.iter().enumerate() {
        if at > 0 && compare(ranked[at - 1], i) == Ordering::Equal {
            stands[i] = stands[ranked[at - 1]];
        } else {
            stands[i] = i;
            chosen.push(i);
        }
    }
    if !sorted {
        chosen.sort_unstable();
    }
    let count = chosen.len();
    let inverse: Vec<i64> =
        stands.iter().map(|s| chosen.iter().position(|c| c == s).map_or(0, |p| p as i64)).collect();
    let counts: Vec<i64> =
        (0..count as i64).map(|j| inverse.iter().filter(|i| **i == j).count() as i64).collect();
    let mut out_shape = if axis.is_some() { shape.to_vec() } else { vec![count] };
    if let Some(a) = axis {
        out_shape[a] = count;
    }
    let values: Vec<Value> = (0..outer)
        .flat_map(|o| {
            chosen.iter().flat_map(move |c| (0..inner).map(move |k| (o * n + c) * inner + k))
        })
        .map(|at| x.value(at))
        .collect();
    let first: Vec<i64> = chosen.iter().map(|c| *c as i64).collect();
    let index = |v: &[i64]| Tensor::from_i64(&[v.len()], v);
    (
        vec![
            Tensor::from_values(x.dtype(), &out_shape, &values),
            index(&first),
            index(&inverse),
            index(&counts),
        ],
        count,
    )
}
