//! Reference of the anchors with structure of their own.

use crate::dtype::DType;
use crate::eval::EvalError;
use crate::eval::array::{Array, Indices};
use crate::eval::body::{index_value, run_all};
use crate::eval::data::{neutral, order_of, step};
use crate::eval::kernel::{KernelMachine, Point, as_axes};
use crate::eval::movement::combine;
use crate::eval::recurrent::{Layer, Read};
use crate::eval::windows::{ConvShape, PoolShape};
use crate::kernel_program::{Attend, Contract, Conv, Operand, Pool, Rnn, Scan, Scatter, Sort};
use crate::scalar::Value;

/// Σ of products of floats, or of integers that wrap.
fn dot(lhs: &[Value], rhs: &[Value], dtype: DType) -> Value {
    let pairs = lhs.iter().zip(rhs);
    if dtype.is_float() {
        Value::Float(pairs.map(|(l, r)| l.as_f64() * r.as_f64()).sum())
    } else {
        let products = pairs.map(|(l, r)| l.as_int().wrapping_mul(r.as_int()));
        Value::Int(products.fold(0, i128::wrapping_add))
    }
}

fn join(parts: &[&[usize]]) -> Vec<i64> {
    parts.iter().flat_map(|p| as_axes(p)).collect()
}

impl KernelMachine<'_> {
    pub(crate) fn contract(&mut self, a: &Contract) -> Result<(), EvalError> {
        let (b, m, n, k) =
            (self.sizes(&a.batch)?, self.sizes(&a.m)?, self.sizes(&a.n)?, self.sizes(&a.k)?);
        let depth: usize = k.iter().product();
        for bi in Indices::new(&b) {
            // Each operand element is one value however many sums read it.
            let lhs = self.operand_values(&a.lhs, &[&m, &k], |mk| {
                join(&[&bi, &mk[..m.len()], &mk[m.len()..]])
            })?;
            let rhs = self.operand_values(&a.rhs, &[&n, &k], |nk| {
                join(&[&bi, &nk[n.len()..], &nk[..n.len()]])
            })?;
            for (row, mi) in Indices::new(&m).enumerate() {
                for (column, ni) in Indices::new(&n).enumerate() {
                    let l = &lhs[row * depth..(row + 1) * depth];
                    let r = &rhs[column * depth..(column + 1) * depth];
                    let acc = crate::eval::body::settle(dot(l, r, a.acc), a.acc, self.mode);
                    self.store_all(
                        &a.epilogue.body,
                        &a.epilogue.stores,
                        &join(&[&bi, &mi, &ni]),
                        &[acc],
                        &[],
                    )?;
                }
            }
        }
        Ok(())
    }

    /// The values of an operand over axes, in row-major order; `place` gives the
    /// anchor's axes of an index.
    fn operand_values(
        &self,
        operand: &Operand,
        extents: &[&[usize]],
        place: impl Fn(&[usize]) -> Vec<i64>,
    ) -> Result<Vec<Value>, EvalError> {
        Indices::new(&extents.concat()).map(|at| self.operand(operand, &place(&at), &[])).collect()
    }

    pub(crate) fn conv(&mut self, a: &Conv) -> Result<(), EvalError> {
        let shape = ConvShape {
            groups: a.groups as usize,
            in_channels: self.size(&a.in_channels)?,
            out_channels: self.size(&a.out_channels)?,
            in_spatial: self.sizes(&a.in_spatial)?,
            kernel: self.sizes(&a.kernel)?,
            stride: a.stride.clone(),
            dilation: a.dilation.clone(),
            pad_low: a.pad_low.iter().map(|d| self.binding.eval(d)).collect::<Result<_, _>>()?,
            transposed: a.transposed,
        };
        let out = self.sizes(&a.out_spatial)?;
        let space: Vec<usize> = [self.size(&a.batch)?, shape.groups * shape.out_channels]
            .into_iter()
            .chain(out)
            .collect();
        let float = a.acc.is_float();
        let channels = shape.groups * shape.in_channels;
        let rows = if shape.transposed {
            [channels, shape.out_channels]
        } else {
            [shape.groups * shape.out_channels, shape.in_channels]
        };
        let input =
            self.operand_array(&a.input, &[&[space[0], channels], &shape.in_spatial], float)?;
        let filter = self.operand_array(&a.filter, &[&rows, &shape.kernel], float)?;
        let sums = shape.sums(space[0], &space[2..], &input, &filter);
        for (index, acc) in Indices::new(&space).zip(sums) {
            let acc = crate::eval::body::settle(acc, a.acc, self.mode);
            self.store_all(&a.epilogue.body, &a.epilogue.stores, &as_axes(&index), &[acc], &[])?;
        }
        Ok(())
    }

    /// An operand over its axes as an array of floats or integers.
    fn operand_array(
        &self,
        operand: &Operand,
        extents: &[&[usize]],
        float: bool,
    ) -> Result<Array, EvalError> {
        let values = self.operand_values(operand, extents, as_axes)?;
        let dtype = if float { DType::F64 } else { DType::I64 };
        Ok(Array::build(dtype, &extents.concat(), |at| values[at]))
    }

    pub(crate) fn pool(&mut self, a: &Pool) -> Result<(), EvalError> {
        let eval = |dims: &[crate::Dim]| {
            dims.iter().map(|d| self.binding.eval(d)).collect::<Result<Vec<i64>, _>>()
        };
        let shape = PoolShape {
            op: a.op,
            divisor: a.divisor,
            in_spatial: self.sizes(&a.in_spatial)?,
            kernel: a.kernel.iter().map(|k| *k as usize).collect(),
            stride: a.stride.clone(),
            dilation: a.dilation.clone(),
            pad_low: eval(&a.pad_low)?,
            pad_high: eval(&a.pad_high)?,
        };
        let (outer, out) = (self.sizes(&a.outer)?, self.sizes(&a.out_spatial)?);
        let dtype = a.input.body.dtype(a.input.value);
        for o in Indices::new(&outer) {
            for y in Indices::new(&out) {
                let (value, cell) = {
                    let this = &*self;
                    let mut input = |coords: &[i64]| {
                        let axes: Vec<i64> =
                            as_axes(&o).into_iter().chain(coords.iter().copied()).collect();
                        this.operand(&a.input, &axes, &[])
                    };
                    shape.window(&y, dtype, &mut input)?
                };
                self.store_all(
                    &a.epilogue.body,
                    &a.epilogue.stores,
                    &join(&[&o, &y]),
                    &[value, cell],
                    &[],
                )?;
            }
        }
        Ok(())
    }

    pub(crate) fn attend(&mut self, a: &Attend) -> Result<(), EvalError> {
        let (b, m, n) = (self.sizes(&a.batch)?, self.sizes(&a.m)?, self.sizes(&a.n)?);
        let (d, e) = (self.sizes(&a.d)?, self.sizes(&a.e)?);
        let [width, depth, keys] = [&e, &d, &n].map(|x| x.iter().product::<usize>());
        for bi in Indices::new(&b) {
            let read = |operand: &Operand, extents: &[&[usize]]| {
                self.operand_values(operand, extents, |at| {
                    as_axes(&bi).into_iter().chain(as_axes(at)).collect()
                })
            };
            let (q, k) = (read(&a.q, &[&m, &d])?, read(&a.k, &[&n, &d])?);
            let v = read(&a.v, &[&n, &e])?;
            for (row, mi) in Indices::new(&m).enumerate() {
                let q = &q[row * depth..(row + 1) * depth];
                let raw =
                    (0..keys).map(|key| dot(q, &k[key * depth..(key + 1) * depth], DType::F64));
                let weights = self.attention_weights(a, &bi, &mi, &n, raw)?;
                for (column, ei) in Indices::new(&e).enumerate() {
                    let values = weights.iter().enumerate();
                    let sum = values.map(|(key, w)| w * v[key * width + column].as_f64()).sum();
                    self.store_all(
                        &a.epilogue.body,
                        &a.epilogue.stores,
                        &join(&[&bi, &mi, &ei]),
                        &[Value::Float(sum)],
                        &[],
                    )?;
                }
            }
        }
        Ok(())
    }

    /// Probabilities of one query, from its raw scores in order of keys.
    fn attention_weights(
        &self,
        a: &Attend,
        bi: &[usize],
        mi: &[usize],
        n: &[usize],
        raw: impl Iterator<Item = Value>,
    ) -> Result<Vec<f64>, EvalError> {
        let mut scores = Vec::new();
        for (ni, raw) in Indices::new(n).zip(raw) {
            scores.push(self.operand(&a.score, &join(&[bi, mi, &ni]), &[raw])?.as_f64());
        }
        let greatest = scores
            .iter()
            .fold(f64::NEG_INFINITY, |x, s| if s.is_nan() { f64::NAN } else { x.max(*s) });
        let exps: Vec<f64> = scores.iter().map(|s| (s - greatest).exp()).collect();
        let total: f64 = exps.iter().sum();
        Indices::new(n)
            .zip(exps)
            .map(|(ni, x)| {
                let slots = [Value::Float(x / total)];
                Ok(self.operand(&a.prob, &join(&[bi, mi, &ni]), &slots)?.as_f64())
            })
            .collect()
    }

    pub(crate) fn scan(&mut self, a: &Scan) -> Result<(), EvalError> {
        let (outer, extent) = (self.sizes(&a.outer)?, self.size(&a.extent)?);
        for o in Indices::new(&outer) {
            let mut acc = neutral(a.op, a.acc);
            for k in 0..extent {
                let i = if a.reverse { extent - 1 - k } else { k };
                let axes = join(&[&o, &[i]]);
                let next = step(a.op, acc, self.operand(&a.input, &axes, &[])?, a.acc);
                let shown = if a.exclusive { acc } else { next };
                acc = next;
                self.store_all(&a.epilogue.body, &a.epilogue.stores, &axes, &[shown], &[])?;
            }
        }
        Ok(())
    }

    pub(crate) fn sort(&mut self, a: &Sort) -> Result<(), EvalError> {
        let (outer, extent, k) = (self.sizes(&a.outer)?, self.size(&a.extent)?, self.size(&a.k)?);
        for o in Indices::new(&outer) {
            let values: Vec<Value> = (0..extent)
                .map(|i| self.operand(&a.input, &join(&[&o, &[i]]), &[]))
                .collect::<Result<_, _>>()?;
            for (rank, i) in
                order_of(extent, a.largest, |i| values[i]).into_iter().take(k).enumerate()
            {
                let slots = [values[i], Value::Int(i as i128)];
                self.store_all(
                    &a.epilogue.body,
                    &a.epilogue.stores,
                    &join(&[&o, &[rank]]),
                    &slots,
                    &[],
                )?;
            }
        }
        Ok(())
    }

    pub(crate) fn scatter(&mut self, a: &Scatter) -> Result<(), EvalError> {
        let buffer = a.store.buffer;
        let target = self.program.buffers[buffer as usize].clone();
        if let Some(init) = &a.init {
            for index in Indices::new(&self.sizes(&target.shape)?) {
                let value = self.operand(init, &as_axes(&index), &[])?;
                let at = self.place(buffer, &as_axes(&index))?;
                self.write(buffer, at, value)?;
            }
        }
        for index in Indices::new(&self.sizes(&a.updates)?) {
            let axes = as_axes(&index);
            let (place, value) = {
                let point = Point { machine: self, axes: &axes, slots: &[], reduced: &[] };
                let values = run_all(&a.body, &point, a.body.insts.len() as u32)?;
                let at: Vec<i64> = a
                    .store
                    .index
                    .iter()
                    .map(|d| index_value(d, &values, &point))
                    .collect::<Result<_, _>>()?;
                // Indices outside the buffer are ignored by definition.
                (self.place(buffer, &at), values[a.store.value as usize])
            };
            if let Ok(at) = place {
                let old = self.data[buffer as usize].elements.get(at).copied().flatten();
                let old = old.unwrap_or(Value::zero(target.dtype));
                self.write(buffer, at, combine(a.op, old, value, target.dtype))?;
            }
        }
        Ok(())
    }

    pub(crate) fn rnn(&mut self, a: &Rnn) -> Result<(), EvalError> {
        let (time, batch, hidden) =
            (self.size(&a.time)?, self.size(&a.batch)?, self.size(&a.hidden)?);
        let states = {
            let this = &*self;
            let read = |o: &Operand| -> Read<'_> {
                let o = o.clone();
                Box::new(move |index| Ok(this.operand(&o, &as_axes(index), &[])?.as_f64()))
            };
            let layer = Layer {
                cell: a.cell,
                reverse: a.reverse,
                time,
                batch,
                hidden,
                x: read(&a.x),
                r: read(&a.r),
                r_bias: a.r_bias.as_ref().map(&read),
                h0: read(&a.h0),
                c0: a.c0.as_ref().map(&read),
                peephole: a.peephole.as_ref().map(&read),
                lengths: a.lengths.as_ref().map(&read),
                activations: a.activations.iter().map(|o| (&o.body, o.value)).collect(),
                input_forget: a.input_forget,
                clip: a.clip,
                mode: this.mode,
            };
            layer.run()?
        };
        if let Some(y) = &a.y {
            for (i, index) in Indices::new(&[time, batch, hidden]).enumerate() {
                self.store_all(
                    &y.body,
                    &y.stores,
                    &as_axes(&index),
                    &[Value::Float(states.y[i])],
                    &[],
                )?;
            }
        }
        for (epilogue, values) in [(&a.h, &states.h), (&a.c, &states.c)] {
            if let Some(epilogue) = epilogue {
                for (i, index) in Indices::new(&[batch, hidden]).enumerate() {
                    let slots = [Value::Float(values[i])];
                    self.store_all(
                        &epilogue.body,
                        &epilogue.stores,
                        &as_axes(&index),
                        &slots,
                        &[],
                    )?;
                }
            }
        }
        Ok(())
    }
}
