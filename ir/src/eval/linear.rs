//! Reference of contractions and attention.

use std::sync::Arc;

use crate::eval::EvalError;
use crate::eval::array::{Array, Data, Indices};
use crate::eval::body::{Slots, run_body};
use crate::eval::movement::offset;
use crate::eval::node::Machine;
use crate::scalar::Value;
use crate::spec::{AttendSpec, ContractSpec, Group, Label};

/// Stride of each label in an array whose axes are label groups.
fn label_strides(axes: &[Group], extents: &[usize], array_strides: &[usize]) -> Vec<usize> {
    let mut out = vec![0; extents.len()];
    for (group, stride) in axes.iter().zip(array_strides) {
        let mut step = *stride;
        for label in group.iter().rev() {
            out[*label as usize] += step;
            step *= extents[*label as usize];
        }
    }
    out
}

/// Offsets of the elements that some labels span, in row-major order of those labels.
fn offsets(labels: &[Label], extents: &[usize], strides: &[usize]) -> Vec<usize> {
    let mut out = vec![0];
    for label in labels {
        let (extent, stride) = (extents[*label as usize], strides[*label as usize]);
        out = out.iter().flat_map(|at| (0..extent).map(move |i| at + i * stride)).collect();
    }
    out
}

/// An operand laid out as rows over the summed labels, so that a sum of
/// products reads two contiguous rows.
struct Rows {
    data: Data,
    depth: usize,
    /// Rows from one value of a label to the next; 0 for labels that the
    /// operand does not have.
    strides: Vec<usize>,
}

impl Rows {
    /// `strides` are those of the labels in `array`.
    fn pack(array: &Array, strides: &[usize], summed: &[Label], extents: &[usize]) -> Rows {
        let own: Vec<Label> = (0..extents.len() as Label)
            .filter(|l| strides[*l as usize] != 0 && !summed.contains(l))
            .collect();
        let mut rows = vec![0; extents.len()];
        let mut step = 1;
        for label in own.iter().rev() {
            rows[*label as usize] = step;
            step *= extents[*label as usize];
        }
        let inner = offsets(summed, extents, strides);
        let starts = offsets(&own, extents, strides);
        let places = starts.iter().flat_map(|start| inner.iter().map(move |at| start + at));
        let data = match &array.data {
            Data::Float(x) => Data::Float(places.map(|at| x[at]).collect()),
            Data::Int(x) => Data::Int(places.map(|at| x[at]).collect()),
        };
        Rows { data, depth: inner.len(), strides: rows }
    }

    fn range(&self, row: usize) -> std::ops::Range<usize> {
        row * self.depth..(row + 1) * self.depth
    }

    /// Σ of products of a row of each.
    fn dot(&self, row: usize, rhs: &Rows, rhs_row: usize) -> Value {
        match (&self.data, &rhs.data) {
            (Data::Float(x), Data::Float(y)) => {
                Value::Float(dot(&x[self.range(row)], &y[rhs.range(rhs_row)]))
            }
            (Data::Int(x), Data::Int(y)) => {
                let pairs = x[self.range(row)].iter().zip(&y[rhs.range(rhs_row)]);
                Value::Int(pairs.map(|(x, y)| x.wrapping_mul(*y)).fold(0, i128::wrapping_add))
            }
            // The type rule gives both operands one element type.
            _ => Value::Float(f64::NAN),
        }
    }
}

/// Σ x·y in eight interleaved sums: the order of a sum is unspecified, and one
/// chain of additions would take their latency each.
fn dot(x: &[f64], y: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (xs, ys) = (x.chunks_exact(8), y.chunks_exact(8));
    let rest: f64 = xs.remainder().iter().zip(ys.remainder()).map(|(x, y)| x * y).sum();
    for (x, y) in xs.zip(ys) {
        for lane in 0..8 {
            lanes[lane] += x[lane] * y[lane];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

pub(crate) fn contract(
    machine: &Machine<'_>,
    spec: &ContractSpec,
    lhs: &Array,
    rhs: &Array,
) -> Result<Array, EvalError> {
    let extents = machine.sizes("contract", &spec.extents)?;
    let out_labels: Vec<Label> = spec.out.iter().flatten().copied().collect();
    let summed: Vec<Label> =
        (0..extents.len() as Label).filter(|l| !out_labels.contains(l)).collect();
    let pack = |axes: &[Group], array: &Array| {
        Rows::pack(array, &label_strides(axes, &extents, &array.strides()), &summed, &extents)
    };
    let (left, right) = (pack(&spec.lhs, lhs), pack(&spec.rhs, rhs));
    let shape: Vec<usize> =
        spec.out.iter().map(|g| g.iter().map(|l| extents[*l as usize]).product()).collect();
    let left_rows = offsets(&out_labels, &extents, &left.strides);
    let right_rows = offsets(&out_labels, &extents, &right.strides);
    Ok(Array::build(spec.dtype, &shape, |at| left.dot(left_rows[at], &right, right_rows[at])))
}

pub(crate) fn attend(
    machine: &Machine<'_>,
    spec: &AttendSpec,
    x: &[Arc<Array>],
) -> Result<Array, EvalError> {
    let extents = machine.sizes("attend", &spec.extents)?;
    let strides_of = |axes: &[Group], a: &Array| label_strides(axes, &extents, &a.strides());
    let (qs, ks, vs) =
        (strides_of(&spec.q, &x[0]), strides_of(&spec.k, &x[1]), strides_of(&spec.v, &x[2]));
    let extra_strides: Vec<Vec<usize>> =
        spec.extras.iter().zip(&x[3..]).map(|(g, a)| strides_of(g, a)).collect();
    let out_labels: Vec<Label> = spec.out.iter().flatten().copied().collect();
    let out_extents: Vec<usize> = out_labels.iter().map(|l| extents[*l as usize]).collect();
    let key_extents: Vec<usize> = spec.keys.iter().map(|l| extents[*l as usize]).collect();
    let within = |axes: &[Group], l: Label| axes.iter().flatten().any(|x| *x == l);
    let depth: Vec<Label> = (0..extents.len() as Label)
        .filter(|l| {
            within(&spec.q, *l)
                && within(&spec.k, *l)
                && !out_labels.contains(l)
                && !spec.keys.contains(l)
        })
        .collect();
    let queries = Rows::pack(&x[0], &qs, &depth, &extents);
    let keys = Rows::pack(&x[1], &ks, &depth, &extents);
    let shape: Vec<usize> =
        spec.out.iter().map(|g| g.iter().map(|l| extents[*l as usize]).product()).collect();
    let mut out = Array::filled(spec.dtype, &shape, Value::zero(spec.dtype));
    for (at, index) in Indices::new(&out_extents).enumerate() {
        let mut labels = vec![0usize; extents.len()];
        out_labels.iter().zip(&index).for_each(|(l, i)| labels[*l as usize] = *i);
        let mut scores = Vec::new();
        let mut slots_of_keys = Vec::new();
        for key in Indices::new(&key_extents) {
            spec.keys.iter().zip(&key).for_each(|(l, i)| labels[*l as usize] = *i);
            let (query, key) = (offset(&labels, &queries.strides), offset(&labels, &keys.strides));
            let mut slots = vec![queries.dot(query, &keys, key)];
            slots.extend(extra_strides.iter().zip(&x[3..]).map(|(s, a)| a.get(offset(&labels, s))));
            let score = run_body(
                &spec.score,
                spec.score_value,
                &Slots { slots: &slots, mode: machine.mode },
            )?;
            scores.push((score.as_f64(), offset(&labels, &vs)));
            slots_of_keys.push(slots);
        }
        let greatest = scores
            .iter()
            .fold(f64::NEG_INFINITY, |m, (s, _)| if s.is_nan() { f64::NAN } else { m.max(*s) });
        let weights: Vec<f64> = scores.iter().map(|(s, _)| (s - greatest).exp()).collect();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        for (((_, v), w), mut slots) in scores.iter().zip(&weights).zip(slots_of_keys) {
            slots[0] = Value::Float(w / total);
            let p = run_body(
                &spec.prob,
                spec.prob_value,
                &Slots { slots: &slots, mode: machine.mode },
            )?;
            sum += p.as_f64() * x[2].get(*v).as_f64();
        }
        out.set(at, Value::Float(sum));
    }
    Ok(out)
}
