//! Reference of contractions and attention.

use std::sync::Arc;

use crate::eval::EvalError;
use crate::eval::array::{Array, Indices};
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

/// Σ over `summed` of the product of elements at label offsets.
struct Walk<'a> {
    summed: Vec<(usize, usize, usize)>,
    lhs: &'a Array,
    rhs: &'a Array,
}

impl Walk<'_> {
    fn float(&self, depth: usize, l: usize, r: usize) -> f64 {
        let Some(&(n, ls, rs)) = self.summed.get(depth) else {
            return self.lhs.get(l).as_f64() * self.rhs.get(r).as_f64();
        };
        (0..n).map(|i| self.float(depth + 1, l + i * ls, r + i * rs)).sum()
    }

    fn int(&self, depth: usize, l: usize, r: usize) -> i128 {
        let Some(&(n, ls, rs)) = self.summed.get(depth) else {
            return self.lhs.get(l).as_int().wrapping_mul(self.rhs.get(r).as_int());
        };
        (0..n).fold(0i128, |sum, i| sum.wrapping_add(self.int(depth + 1, l + i * ls, r + i * rs)))
    }
}

pub(crate) fn contract(
    machine: &Machine<'_>,
    spec: &ContractSpec,
    lhs: &Array,
    rhs: &Array,
) -> Result<Array, EvalError> {
    let extents = machine.extents("contract", &spec.extents)?;
    let ls = label_strides(&spec.lhs, &extents, &lhs.strides());
    let rs = label_strides(&spec.rhs, &extents, &rhs.strides());
    let out_labels: Vec<Label> = spec.out.iter().flatten().copied().collect();
    let out_extents: Vec<usize> = out_labels.iter().map(|l| extents[*l as usize]).collect();
    let summed = (0..extents.len())
        .filter(|l| !out_labels.contains(&(*l as Label)))
        .map(|l| (extents[l], ls[l], rs[l]))
        .collect();
    let walk = Walk { summed, lhs, rhs };
    let shape: Vec<usize> =
        spec.out.iter().map(|g| g.iter().map(|l| extents[*l as usize]).product()).collect();
    let mut out = Array::filled(spec.dtype, &shape, Value::zero(spec.dtype));
    let float = spec.dtype.is_float();
    for (at, index) in Indices::new(&out_extents).enumerate() {
        let place = |strides: &[usize]| {
            index.iter().zip(&out_labels).map(|(i, l)| i * strides[*l as usize]).sum()
        };
        let (l, r) = (place(&ls), place(&rs));
        out.set(
            at,
            if float { Value::Float(walk.float(0, l, r)) } else { Value::Int(walk.int(0, l, r)) },
        );
    }
    Ok(out)
}

pub(crate) fn attend(
    machine: &Machine<'_>,
    spec: &AttendSpec,
    x: &[Arc<Array>],
) -> Result<Array, EvalError> {
    let extents = machine.extents("attend", &spec.extents)?;
    let strides_of = |axes: &[Group], a: &Array| label_strides(axes, &extents, &a.strides());
    let (qs, ks, vs) =
        (strides_of(&spec.q, &x[0]), strides_of(&spec.k, &x[1]), strides_of(&spec.v, &x[2]));
    let extra_strides: Vec<Vec<usize>> =
        spec.extras.iter().zip(&x[3..]).map(|(g, a)| strides_of(g, a)).collect();
    let out_labels: Vec<Label> = spec.out.iter().flatten().copied().collect();
    let out_extents: Vec<usize> = out_labels.iter().map(|l| extents[*l as usize]).collect();
    let key_extents: Vec<usize> = spec.keys.iter().map(|l| extents[*l as usize]).collect();
    let within = |axes: &[Group], l: Label| axes.iter().flatten().any(|x| *x == l);
    let depth: Vec<(usize, usize, usize)> = (0..extents.len() as Label)
        .filter(|l| {
            within(&spec.q, *l)
                && within(&spec.k, *l)
                && !out_labels.contains(l)
                && !spec.keys.contains(l)
        })
        .map(|l| (extents[l as usize], qs[l as usize], ks[l as usize]))
        .collect();
    let dot = Walk { summed: depth, lhs: &x[0], rhs: &x[1] };
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
            let raw = dot.float(0, offset(&labels, &qs), offset(&labels, &ks));
            let mut slots = vec![Value::Float(raw)];
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
