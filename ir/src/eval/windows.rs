//! Reference of convolutions and pooling, for graph ops and kernel anchors.

use crate::dtype::DType;
use crate::eval::EvalError;
use crate::eval::array::{Array, Data, Indices};
use crate::eval::data::Reducer;
use crate::eval::movement::offset;
use crate::eval::node::Machine;
use crate::kernel_program::{PoolDivisor, ReduceOp};
use crate::scalar::Value;
use crate::spec::{ConvSpec, PoolSpec};

/// Extents of a convolution.
pub(crate) struct ConvShape {
    pub(crate) groups: usize,
    /// Input channels per group.
    pub(crate) in_channels: usize,
    /// Output channels per group.
    pub(crate) out_channels: usize,
    pub(crate) in_spatial: Vec<usize>,
    pub(crate) kernel: Vec<usize>,
    pub(crate) stride: Vec<i64>,
    pub(crate) dilation: Vec<i64>,
    pub(crate) pad_low: Vec<i64>,
    pub(crate) transposed: bool,
}

impl ConvShape {
    /// The input coordinate that tap `k` reads for output coordinate `y`.
    fn source(&self, y: &[usize], k: &[usize]) -> Option<Vec<i64>> {
        let mut coords = Vec::with_capacity(y.len());
        for a in 0..y.len() {
            let tap = k[a] as i64 * self.dilation[a];
            let x = if self.transposed {
                let shifted = y[a] as i64 + self.pad_low[a] - tap;
                if shifted.rem_euclid(self.stride[a]) != 0 {
                    return None;
                }
                shifted.div_euclid(self.stride[a])
            } else {
                y[a] as i64 * self.stride[a] + tap - self.pad_low[a]
            };
            if x < 0 || x >= self.in_spatial[a] as i64 {
                return None;
            }
            coords.push(x);
        }
        Some(coords)
    }

    /// For each tap the output places (row-major) that it serves and the input
    /// cell that it reads there; places where it falls into the padding are absent.
    fn taps(&self, out_spatial: &[usize]) -> Vec<Vec<(usize, usize)>> {
        let places: Vec<Vec<usize>> = Indices::new(out_spatial).collect();
        let cell = |y: &[usize], k: &[usize]| {
            let coords = self.source(y, k)?;
            let extents = coords.iter().zip(&self.in_spatial);
            Some(extents.fold(0, |at, (c, extent)| at * extent + *c as usize))
        };
        Indices::new(&self.kernel)
            .map(|k| {
                let served = places.iter().enumerate();
                served.filter_map(|(at, y)| Some((at, cell(y, &k)?))).collect()
            })
            .collect()
    }

    /// acc[n, o, y…] in row-major order, of `input[n, c, x…]` and
    /// `filter[o, c, k…]` (transposed: `filter[c, o, k…]`).
    pub(crate) fn sums(
        &self,
        batch: usize,
        out_spatial: &[usize],
        input: &Array,
        filter: &Array,
    ) -> Vec<Value> {
        let places: usize = out_spatial.iter().product();
        let taps = self.taps(out_spatial);
        match (&input.data, &filter.data) {
            (Data::Float(x), Data::Float(w)) => {
                self.typed_sums(batch, places, &taps, x, w, |sum, x, w| sum + x * w, Value::Float)
            }
            (Data::Int(x), Data::Int(w)) => {
                let add = |sum: i128, x: i128, w: i128| sum.wrapping_add(x.wrapping_mul(w));
                self.typed_sums(batch, places, &taps, x, w, add, Value::Int)
            }
            // The type rule gives both operands one element type.
            _ => vec![Value::Float(f64::NAN); batch * self.groups * self.out_channels * places],
        }
    }

    #[allow(clippy::too_many_arguments, reason = "one loop nest over two number types")]
    fn typed_sums<T: Copy + Default>(
        &self,
        batch: usize,
        places: usize,
        taps: &[Vec<(usize, usize)>],
        input: &[T],
        filter: &[T],
        add: impl Fn(T, T, T) -> T,
        value: impl Fn(T) -> Value,
    ) -> Vec<Value> {
        let cells: usize = self.in_spatial.iter().product();
        let mut out = Vec::with_capacity(batch * self.groups * self.out_channels * places);
        let mut sums = vec![T::default(); self.out_channels * places];
        for image in 0..batch * self.groups {
            let group = image % self.groups;
            sums.fill(T::default());
            for c in 0..self.in_channels {
                let plane = &input[(image * self.in_channels + c) * cells..][..cells];
                for (tap, served) in taps.iter().enumerate() {
                    let row: Vec<T> = served.iter().map(|(_, cell)| plane[*cell]).collect();
                    for o in 0..self.out_channels {
                        let weight = filter[self.filter_row(group, o, c) * taps.len() + tap];
                        let sums = &mut sums[o * places..][..places];
                        if served.len() == places {
                            sums.iter_mut().zip(&row).for_each(|(s, x)| *s = add(*s, *x, weight));
                        } else {
                            let pairs = served.iter().zip(&row);
                            pairs.for_each(|((y, _), x)| sums[*y] = add(sums[*y], *x, weight));
                        }
                    }
                }
            }
            out.extend(sums.iter().map(|sum| value(*sum)));
        }
        out
    }

    /// The row of the filter for an output and an input channel of a group.
    fn filter_row(&self, group: usize, o: usize, c: usize) -> usize {
        if self.transposed {
            (group * self.in_channels + c) * self.out_channels + o
        } else {
            (group * self.out_channels + o) * self.in_channels + c
        }
    }
}

fn element(array: &Array, index: &[i64]) -> Value {
    let index: Vec<usize> = index.iter().map(|i| *i as usize).collect();
    array.get(offset(&index, &array.strides()))
}

pub(crate) fn conv(
    machine: &Machine<'_>,
    spec: &ConvSpec,
    x: &Array,
    w: &Array,
    shape: &[usize],
) -> Result<Array, EvalError> {
    let pad_low: Vec<i64> =
        spec.pad_low.iter().map(|d| machine.binding.eval(d)).collect::<Result<_, _>>()?;
    let groups = spec.groups as usize;
    let geometry = ConvShape {
        groups,
        in_channels: if spec.transposed { w.shape[0] / groups } else { w.shape[1] },
        out_channels: if spec.transposed { w.shape[1] } else { w.shape[0] / groups },
        in_spatial: x.shape[2..].to_vec(),
        kernel: w.shape[2..].to_vec(),
        stride: spec.stride.clone(),
        dilation: spec.dilation.clone(),
        pad_low,
        transposed: spec.transposed,
    };
    debug_assert_eq!(geometry.groups * geometry.out_channels, shape[1]);
    let sums = geometry.sums(shape[0], &shape[2..], x, w);
    Ok(Array::build(x.dtype, shape, |at| sums[at]))
}

/// Extents of a pooling.
pub(crate) struct PoolShape {
    pub(crate) op: ReduceOp,
    pub(crate) divisor: PoolDivisor,
    pub(crate) in_spatial: Vec<usize>,
    pub(crate) kernel: Vec<usize>,
    pub(crate) stride: Vec<i64>,
    pub(crate) dilation: Vec<i64>,
    pub(crate) pad_low: Vec<i64>,
    pub(crate) pad_high: Vec<i64>,
}

impl PoolShape {
    /// The pooled value and the linear index of the chosen cell.
    pub(crate) fn window(
        &self,
        y: &[usize],
        dtype: DType,
        input: &mut dyn FnMut(&[i64]) -> Result<Value, EvalError>,
    ) -> Result<(Value, Value), EvalError> {
        let mut reducer = Reducer::new(self.op, dtype);
        let mut chooser = Reducer::new(ReduceOp::ArgMax, dtype);
        let (mut valid, mut padded) = (0usize, 0usize);
        let mut cells: Vec<i128> = Vec::new();
        for k in Indices::new(&self.kernel) {
            let coords: Vec<i64> = (0..y.len())
                .map(|a| {
                    y[a] as i64 * self.stride[a] + k[a] as i64 * self.dilation[a] - self.pad_low[a]
                })
                .collect();
            let in_padding =
                (0..y.len()).all(|a| coords[a] < self.in_spatial[a] as i64 + self.pad_high[a]);
            padded += usize::from(in_padding);
            if (0..y.len()).any(|a| coords[a] < 0 || coords[a] >= self.in_spatial[a] as i64) {
                continue;
            }
            valid += 1;
            let value = input(&coords)?;
            reducer.add(value);
            chooser.add(value);
            cells.push(
                coords
                    .iter()
                    .zip(&self.in_spatial)
                    .fold(0, |sum, (c, d)| sum * *d as i128 + i128::from(*c)),
            );
        }
        let count = match self.divisor {
            PoolDivisor::One => 1,
            PoolDivisor::ValidCount => valid.max(1),
            PoolDivisor::PaddedCount => padded.max(1),
        };
        let value = match reducer.result() {
            Value::Float(x) => Value::Float(x / count as f64),
            Value::Int(x) => Value::Int(x / count as i128),
        };
        let chosen = cells.get(chooser.result().as_int() as usize).copied().unwrap_or(0);
        Ok((value, Value::Int(chosen)))
    }
}

pub(crate) fn pool(
    machine: &Machine<'_>,
    spec: &PoolSpec,
    x: &Array,
    shape: &[usize],
) -> Result<Vec<Array>, EvalError> {
    let dims = |d: &[crate::Dim]| {
        d.iter().map(|d| machine.binding.eval(d)).collect::<Result<Vec<i64>, _>>()
    };
    let geometry = PoolShape {
        op: spec.op,
        divisor: spec.divisor,
        in_spatial: x.shape[2..].to_vec(),
        kernel: spec.kernel.iter().map(|k| *k as usize).collect(),
        stride: spec.stride.clone(),
        dilation: spec.dilation.clone(),
        pad_low: dims(&spec.pad_low)?,
        pad_high: dims(&spec.pad_high)?,
    };
    let mut values = Array::filled(x.dtype, shape, Value::zero(x.dtype));
    let mut chosen = Array::filled(DType::I64, shape, Value::Int(0));
    for (at, index) in Indices::new(shape).enumerate() {
        let mut input = |coords: &[i64]| {
            let mut full = vec![index[0] as i64, index[1] as i64];
            full.extend_from_slice(coords);
            Ok(element(x, &full))
        };
        let (value, cell) = geometry.window(&index[2..], x.dtype, &mut input)?;
        values.set(at, value);
        chosen.set(at, cell);
    }
    Ok(if spec.op == ReduceOp::Max { vec![values, chosen] } else { vec![values] })
}
