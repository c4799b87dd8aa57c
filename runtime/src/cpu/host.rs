//! Host steps: results whose size depends on data. Slow and plain; they run on the calling thread.

use tgc_ir::plan::HostOp;
use tgc_ir::scalar::Value;
use tgc_ir::{DType, Tensor};

use super::error::CpuError;
use super::kernels::region::{self, Region};

/// A strided tensor in plan memory.
#[derive(Debug)]
pub(super) struct View {
    pub(super) region: Region,
    pub(super) dtype: DType,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
}

/// Results of a host step and the count that its symbol receives.
#[derive(Debug)]
pub(super) struct Results {
    pub(super) tensors: Vec<Tensor>,
    pub(super) count: i64,
}

impl View {
    /// True when the elements lie densely in row-major order.
    pub(super) fn is_dense(&self) -> bool {
        let mut expected = 1;
        for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
            if extent > 1 && stride != expected {
                return false;
            }
            expected *= extent.max(1);
        }
        true
    }

    /// Element offsets in row-major order.
    fn offsets(&self) -> impl Iterator<Item = i64> + '_ {
        let count = self.shape.iter().product::<i64>().max(0);
        (0..count).map(|mut i| {
            let mut offset = 0;
            for (&extent, &stride) in self.shape.iter().zip(&self.strides).rev() {
                offset += i % extent * stride;
                i /= extent;
            }
            offset
        })
    }

    fn outside(&self) -> CpuError {
        CpuError::Step {
            step: "host".into(),
            why: format!("a tensor {:?} is larger than its buffer", self.shape),
        }
    }

    /// The element of a tensor of one.
    pub(super) fn first(&self) -> Result<Value, CpuError> {
        region::element(self.region, self.dtype, 0).ok_or_else(|| self.outside())
    }

    /// All elements.
    pub(super) fn values(&self) -> Result<Vec<Value>, CpuError> {
        self.offsets()
            .map(|o| region::element(self.region, self.dtype, o).ok_or_else(|| self.outside()))
            .collect()
    }

    /// A dense copy.
    pub(super) fn read(&self) -> Result<Tensor, CpuError> {
        let shape: Vec<usize> = self.shape.iter().map(|&n| n.max(0) as usize).collect();
        Ok(Tensor::from_values(self.dtype, &shape, &self.values()?))
    }

    /// Stores a tensor of equal extents.
    pub(super) fn write(&self, tensor: &Tensor) -> Result<(), CpuError> {
        let offsets: Vec<i64> = self.offsets().collect();
        if offsets.len() != tensor.len() {
            return Err(self.outside());
        }
        for (i, offset) in offsets.into_iter().enumerate() {
            let at = usize::try_from(offset).map_err(|_| self.outside())?;
            region::update(self.region, self.dtype, at, |_| tensor.value(i));
        }
        Ok(())
    }
}

/// Runs a host step.
pub(super) fn run(op: &HostOp, inputs: &[View]) -> Result<Results, CpuError> {
    match op {
        HostOp::NonZero => nonzero(first(inputs)?),
        HostOp::Unique { axis, sorted } => unique(first(inputs)?, *axis, *sorted),
        HostOp::NonMaxSuppression { center_point } => suppress(inputs, *center_point),
    }
}

fn first(inputs: &[View]) -> Result<&View, CpuError> {
    inputs
        .first()
        .ok_or_else(|| CpuError::Step { step: "host".into(), why: "it has no operand".into() })
}

fn nonzero(input: &View) -> Result<Results, CpuError> {
    let rank = input.shape.len();
    let values = input.values()?;
    let hits: Vec<i64> =
        (0..values.len()).filter(|&i| values[i].is_true()).map(|i| i as i64).collect();
    let mut out = vec![0; rank * hits.len()];
    for (c, &hit) in hits.iter().enumerate() {
        let mut rest = hit;
        for axis in (0..rank).rev() {
            out[axis * hits.len() + c] = rest % input.shape[axis];
            rest /= input.shape[axis];
        }
    }
    let count = hits.len();
    Ok(Results { tensors: vec![Tensor::from_i64(&[rank, count], &out)], count: count as i64 })
}

/// Total order of values: NaN last.
fn order(a: Value, b: Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Int(x), Value::Int(y)) => x.cmp(&y),
        _ => {
            let (x, y) = (a.as_f64(), b.as_f64());
            x.partial_cmp(&y).unwrap_or_else(|| x.is_nan().cmp(&y.is_nan()))
        }
    }
}

fn order_all(a: &[Value], b: &[Value]) -> std::cmp::Ordering {
    a.iter()
        .zip(b)
        .map(|(x, y)| order(*x, *y))
        .find(|o| o.is_ne())
        .unwrap_or(std::cmp::Ordering::Equal)
}

fn unique(input: &View, axis: Option<u32>, sorted: bool) -> Result<Results, CpuError> {
    let values = input.values()?;
    let axis = axis.map(|a| a as usize);
    let extent = |i: usize| input.shape[i].max(0) as usize;
    let (outer, count, inner) = match axis {
        None => (1, values.len(), 1),
        Some(a) => (
            (0..a).map(extent).product(),
            extent(a),
            (a + 1..input.shape.len()).map(extent).product(),
        ),
    };
    // One slice per position of the axis.
    let slices: Vec<Vec<Value>> = (0..count)
        .map(|c| {
            (0..outer)
                .flat_map(|o| (0..inner).map(move |i| (o * count + c) * inner + i))
                .map(|at| values[at])
                .collect()
        })
        .collect();
    let mut by_value: Vec<usize> = (0..count).collect();
    by_value.sort_by(|&a, &b| order_all(&slices[a], &slices[b]).then(a.cmp(&b)));
    let mut firsts: Vec<usize> = Vec::new();
    let mut group = vec![0usize; count];
    for (at, &c) in by_value.iter().enumerate() {
        if at == 0 || order_all(&slices[by_value[at - 1]], &slices[c]).is_ne() {
            firsts.push(c);
        }
        group[c] = firsts.len() - 1;
    }
    if !sorted {
        let mut rank: Vec<usize> = (0..firsts.len()).collect();
        rank.sort_by_key(|&g| firsts[g]);
        let mut place = vec![0; rank.len()];
        rank.iter().enumerate().for_each(|(new, &old)| place[old] = new);
        group.iter_mut().for_each(|g| *g = place[*g]);
        firsts.sort_unstable();
    }
    Ok(unique_results(input, axis, &slices, &firsts, &group, [outer, inner]))
}

fn unique_results(
    input: &View,
    axis: Option<usize>,
    slices: &[Vec<Value>],
    firsts: &[usize],
    group: &[usize],
    [outer, inner]: [usize; 2],
) -> Results {
    let n = firsts.len();
    let mut shape: Vec<usize> = input.shape.iter().map(|&e| e.max(0) as usize).collect();
    match axis {
        None => shape = vec![n],
        Some(a) => shape[a] = n,
    }
    let mut chosen = Vec::with_capacity(outer * n * inner);
    for o in 0..outer {
        for &f in firsts {
            chosen.extend_from_slice(&slices[f][o * inner..(o + 1) * inner]);
        }
    }
    let mut counts = vec![0i64; n];
    group.iter().for_each(|&g| counts[g] += 1);
    let list = |v: Vec<i64>| Tensor::from_i64(&[v.len()], &v);
    let tensors = vec![
        Tensor::from_values(input.dtype, &shape, &chosen),
        list(firsts.iter().map(|&f| f as i64).collect()),
        list(group.iter().map(|&g| g as i64).collect()),
        list(counts),
    ];
    Results { tensors, count: n as i64 }
}

/// A box as corners (low y, low x, high y, high x).
fn corners(b: &[f64], center_point: bool) -> [f64; 4] {
    if center_point {
        let (x, y, w, h) = (b[0], b[1], b[2], b[3]);
        return [y - h / 2.0, x - w / 2.0, y + h / 2.0, x + w / 2.0];
    }
    [b[0].min(b[2]), b[1].min(b[3]), b[0].max(b[2]), b[1].max(b[3])]
}

fn overlap(a: &[f64; 4], b: &[f64; 4]) -> f64 {
    let area = |b: &[f64; 4]| (b[2] - b[0]) * (b[3] - b[1]);
    let height = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let width = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let both = height * width;
    let either = area(a) + area(b) - both;
    if area(a) <= 0.0 || area(b) <= 0.0 || either <= 0.0 { 0.0 } else { both / either }
}

/// ONNX NonMaxSuppression-11: boxes, scores, then optional limits.
fn suppress(inputs: &[View], center_point: bool) -> Result<Results, CpuError> {
    let [boxes, scores, limits @ ..] = inputs else {
        return Err(CpuError::Step {
            step: "host".into(),
            why: "suppression needs boxes and scores".into(),
        });
    };
    let limit = |i: usize| limits.get(i).map(View::first).transpose();
    let most = limit(0)?.map_or(0, |v| v.as_int()).max(0) as usize;
    let overlap_limit = limit(1)?.map_or(0.0, Value::as_f64);
    let score_limit = limit(2)?.map(Value::as_f64);
    let to_f64 = |v: &View| {
        Ok::<_, CpuError>(v.values()?.into_iter().map(Value::as_f64).collect::<Vec<f64>>())
    };
    let (points, marks) = (to_f64(boxes)?, to_f64(scores)?);
    let (classes, n) = (scores.shape[1] as usize, scores.shape[2] as usize);
    let mut out = Vec::new();
    for image in 0..scores.shape[0] as usize {
        for class in 0..classes {
            let marks = &marks[(image * classes + class) * n..(image * classes + class + 1) * n];
            let mut order: Vec<usize> =
                (0..n).filter(|&i| score_limit.is_none_or(|limit| marks[i] > limit)).collect();
            order.sort_by(|&a, &b| {
                marks[b].partial_cmp(&marks[a]).unwrap_or(std::cmp::Ordering::Equal).then(a.cmp(&b))
            });
            let mut kept: Vec<(usize, [f64; 4])> = Vec::new();
            for i in order {
                if kept.len() >= most {
                    break;
                }
                let at = (image * n + i) * 4;
                let b = corners(&points[at..at + 4], center_point);
                if kept.iter().all(|(_, k)| overlap(k, &b) <= overlap_limit) {
                    kept.push((i, b));
                }
            }
            out.extend(kept.iter().flat_map(|&(i, _)| [image as i64, class as i64, i as i64]));
        }
    }
    let count = out.len() / 3;
    Ok(Results { tensors: vec![Tensor::from_i64(&[count, 3], &out)], count: count as i64 })
}
