//! Reference of recurrent layers, for the graph op and the kernel anchor.

use std::sync::Arc;

use crate::dtype::DType;
use crate::eval::array::Array;
use crate::eval::body::{Slots, run_body};
use crate::eval::node::Machine;
use crate::eval::{EvalError, Mode};
use crate::kernel_program::{Body, Cell, ScalarConst};
use crate::scalar::Value;
use crate::spec::RnnSpec;

/// Reads element `index` of an operand.
pub(crate) type Read<'a> = Box<dyn Fn(&[usize]) -> Result<f64, EvalError> + 'a>;

/// A recurrent layer over any operands.
pub(crate) struct Layer<'a> {
    pub(crate) cell: Cell,
    pub(crate) reverse: bool,
    pub(crate) time: usize,
    pub(crate) batch: usize,
    pub(crate) hidden: usize,
    pub(crate) x: Read<'a>,
    pub(crate) r: Read<'a>,
    pub(crate) r_bias: Option<Read<'a>>,
    pub(crate) h0: Read<'a>,
    pub(crate) c0: Option<Read<'a>>,
    pub(crate) peephole: Option<Read<'a>>,
    pub(crate) lengths: Option<Read<'a>>,
    pub(crate) activations: Vec<(&'a Body, u32)>,
    pub(crate) input_forget: bool,
    pub(crate) clip: Option<ScalarConst>,
    pub(crate) mode: Mode,
}

/// All states [t, b, hidden], last state and last cell state [b, hidden].
pub(crate) struct States {
    pub(crate) y: Vec<f64>,
    pub(crate) h: Vec<f64>,
    pub(crate) c: Vec<f64>,
}

impl Layer<'_> {
    fn activate(&self, n: usize, x: f64) -> Result<f64, EvalError> {
        let x = match self.clip {
            Some(limit) => x.clamp(-limit.as_f64(), limit.as_f64()),
            None => x,
        };
        self.apply(n, x)
    }

    fn apply(&self, n: usize, x: f64) -> Result<f64, EvalError> {
        let (body, value) = self.activations[n];
        Ok(run_body(body, value, &Slots { slots: &[Value::Float(x)], mode: self.mode })?.as_f64())
    }

    /// Recurrent product for gate `g`, unit `j`.
    fn product(&self, g: usize, j: usize, h: &[f64]) -> Result<f64, EvalError> {
        let mut sum = 0.0;
        for (k, h) in h.iter().enumerate() {
            sum += (self.r)(&[g * self.hidden + j, k])? * h;
        }
        Ok(sum)
    }

    fn gate(&self, at: (usize, usize), g: usize, j: usize, h: &[f64]) -> Result<f64, EvalError> {
        Ok((self.x)(&[at.0, at.1, g * self.hidden + j])? + self.product(g, j, h)?)
    }

    fn peep(&self, g: usize, j: usize, c: f64) -> Result<f64, EvalError> {
        match &self.peephole {
            Some(p) => Ok(p(&[g * self.hidden + j])? * c),
            None => Ok(0.0),
        }
    }

    /// (h', c') of unit `j` at step `at.0`, sequence `at.1`.
    fn unit(
        &self,
        at: (usize, usize),
        j: usize,
        h: &[f64],
        c: &[f64],
        reset: &[f64],
    ) -> Result<(f64, f64), EvalError> {
        match self.cell {
            Cell::Plain => Ok((self.activate(0, self.gate(at, 0, j, h)?)?, 0.0)),
            Cell::Lstm => {
                let i = self.activate(0, self.gate(at, 0, j, h)? + self.peep(0, j, c[j])?)?;
                let f = if self.input_forget {
                    1.0 - i
                } else {
                    self.activate(0, self.gate(at, 2, j, h)? + self.peep(2, j, c[j])?)?
                };
                let g = self.activate(1, self.gate(at, 3, j, h)?)?;
                let next = f * c[j] + i * g;
                let o = self.activate(0, self.gate(at, 1, j, h)? + self.peep(1, j, next)?)?;
                Ok((o * self.apply(2, next)?, next))
            }
            Cell::Gru { linear_before_reset } => {
                let z = self.activate(0, self.gate(at, 0, j, h)?)?;
                let x = (self.x)(&[at.0, at.1, 2 * self.hidden + j])?;
                let candidate = if linear_before_reset {
                    let bias = self.r_bias.as_ref().map_or(Ok(0.0), |b| b(&[j]))?;
                    x + reset[j] * (self.product(2, j, h)? + bias)
                } else {
                    let gated: Vec<f64> = h.iter().zip(reset).map(|(h, r)| h * r).collect();
                    x + self.product(2, j, &gated)?
                };
                let n = self.activate(1, candidate)?;
                Ok(((1.0 - z) * n + z * h[j], 0.0))
            }
        }
    }

    pub(crate) fn run(&self) -> Result<States, EvalError> {
        let (b_count, width) = (self.batch, self.hidden);
        let mut out = States {
            y: vec![0.0; self.time * b_count * width],
            h: vec![0.0; b_count * width],
            c: vec![0.0; b_count * width],
        };
        for b in 0..b_count {
            let read = |from: &Read<'_>| {
                (0..width).map(|j| from(&[b, j])).collect::<Result<Vec<f64>, _>>()
            };
            let mut h = read(&self.h0)?;
            let mut c = match &self.c0 {
                Some(c0) => read(c0)?,
                None => vec![0.0; width],
            };
            let length = match &self.lengths {
                Some(lengths) => (lengths(&[b])? as usize).min(self.time),
                None => self.time,
            };
            for step in 0..length {
                let t = if self.reverse { length - 1 - step } else { step };
                let mut reset = vec![1.0; width];
                if matches!(self.cell, Cell::Gru { .. }) {
                    for (j, r) in reset.iter_mut().enumerate() {
                        *r = self.activate(0, self.gate((t, b), 1, j, &h)?)?;
                    }
                }
                let next: Vec<(f64, f64)> = (0..width)
                    .map(|j| self.unit((t, b), j, &h, &c, &reset))
                    .collect::<Result<_, _>>()?;
                for (j, (hn, cn)) in next.into_iter().enumerate() {
                    h[j] = hn;
                    c[j] = cn;
                    out.y[(t * b_count + b) * width + j] = hn;
                }
            }
            out.h[b * width..(b + 1) * width].copy_from_slice(&h);
            out.c[b * width..(b + 1) * width].copy_from_slice(&c);
        }
        Ok(out)
    }
}

fn reader(array: &Arc<Array>) -> Read<'_> {
    let strides = array.strides();
    Box::new(move |index| Ok(array.get(crate::eval::movement::offset(index, &strides)).as_f64()))
}

pub(crate) fn rnn(
    machine: &Machine<'_>,
    spec: &RnnSpec,
    x: &[Arc<Array>],
) -> Result<Vec<Array>, EvalError> {
    let lstm = spec.cell == Cell::Lstm;
    let mut rest = x[2..].iter();
    let mut next = |present: bool| if present { rest.next().map(reader) } else { None };
    let r_bias = next(spec.r_bias);
    let h0 = next(true).expect("the type rule counts operands");
    let (c0, peephole, lengths) = (next(lstm), next(spec.peephole), next(spec.lengths));
    let (time, batch, hidden) = (x[0].shape[0], x[0].shape[1], x[1].shape[1]);
    let layer = Layer {
        cell: spec.cell,
        reverse: spec.reverse,
        time,
        batch,
        hidden,
        x: reader(&x[0]),
        r: reader(&x[1]),
        r_bias,
        h0,
        c0,
        peephole,
        lengths,
        activations: spec.activations.iter().map(|(b, v)| (b, *v)).collect(),
        input_forget: spec.input_forget,
        clip: spec.clip,
        mode: machine.mode,
    };
    let states = layer.run()?;
    let dtype: DType = x[0].dtype;
    let build = |shape: &[usize], v: &[f64]| Array::build(dtype, shape, |i| Value::Float(v[i]));
    let mut out =
        vec![build(&[time, batch, hidden], &states.y), build(&[batch, hidden], &states.h)];
    if lstm {
        out.push(build(&[batch, hidden], &states.c));
    }
    Ok(out)
}
