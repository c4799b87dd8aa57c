//! Running scalar bodies.

use crate::dim::{Dim, DimError, Symbol};
use crate::dtype::DType;
use crate::eval::{EvalError, Mode};
use crate::kernel_program::{Body, InstKind, Load, as_axis, as_value};
use crate::scalar::{Value, round_float, round_to};

/// What a body can ask of its surroundings.
pub(crate) trait Surroundings {
    /// How floats are kept.
    fn mode(&self) -> Mode;
    /// A value that the anchor supplies.
    fn slot(&self, n: u32) -> Value;
    /// The value of an axis or shape symbol.
    fn symbol(&self, symbol: &Symbol) -> Option<i64>;
    /// The element of a buffer.
    fn load(&self, buffer: u32, index: &[i64]) -> Result<Value, EvalError>;
    /// The reduced value of an instruction (rows only).
    fn reduced(&self, inst: u32) -> Value;
}

/// Bodies without axes, loads or reductions.
pub(crate) struct Slots<'a> {
    pub(crate) slots: &'a [Value],
    pub(crate) mode: Mode,
}

impl Surroundings for Slots<'_> {
    fn mode(&self) -> Mode {
        self.mode
    }
    fn slot(&self, n: u32) -> Value {
        self.slots[n as usize]
    }
    fn symbol(&self, _: &Symbol) -> Option<i64> {
        None
    }
    fn load(&self, buffer: u32, _: &[i64]) -> Result<Value, EvalError> {
        Err(EvalError::Index {
            what: "a body without buffers".into(),
            index: i64::from(buffer),
            extent: 0,
        })
    }
    fn reduced(&self, _: u32) -> Value {
        Value::Float(f64::NAN)
    }
}

/// Keeps a value as a dtype and mode say.
pub(crate) fn settle(value: Value, dtype: DType, mode: Mode) -> Value {
    match (value, dtype.is_float()) {
        (Value::Float(x), true) if mode == Mode::Rounded => Value::Float(round_float(x, dtype)),
        (Value::Float(x), true) => Value::Float(x),
        (Value::Int(i), true) => settle(Value::Float(i as f64), dtype, mode),
        (v, false) => round_to(v, dtype),
    }
}

/// The value of one result.
pub(crate) fn run_body(
    body: &Body,
    value: u32,
    env: &dyn Surroundings,
) -> Result<Value, EvalError> {
    Ok(run_all(body, env, value + 1)?[value as usize])
}

/// The values of the first `count` results.
pub(crate) fn run_all(
    body: &Body,
    env: &dyn Surroundings,
    count: u32,
) -> Result<Vec<Value>, EvalError> {
    let mut values: Vec<Value> = Vec::with_capacity(count as usize);
    for (at, inst) in body.insts.iter().take(count as usize).enumerate() {
        let value = match &inst.kind {
            InstKind::Const(c) => c.value(),
            InstKind::Index(dim) => Value::Int(i128::from(index_value(dim, &values, env)?)),
            InstKind::Slot(n) => env.slot(*n),
            InstKind::Load(load) => run_load(load, &values, env, inst.dtype)?,
            InstKind::Scalar(op, args) => {
                let operand = args.last().map_or(inst.dtype, |a| body.insts[*a as usize].dtype);
                let args: Vec<Value> = args.iter().map(|a| values[*a as usize]).collect();
                op.evaluate(&args, operand)
            }
            InstKind::Cast(from) => values[*from as usize],
            InstKind::Bitcast(from) => {
                let operand = body.insts[*from as usize].dtype;
                crate::tensor::reinterpret(values[*from as usize], operand, inst.dtype)
            }
            InstKind::Reduce(..) => env.reduced(at as u32),
        };
        values.push(settle(value, inst.dtype, env.mode()));
    }
    Ok(values)
}

/// An index expression over axes, earlier results and shape symbols.
pub(crate) fn index_value(
    dim: &Dim,
    values: &[Value],
    env: &dyn Surroundings,
) -> Result<i64, DimError> {
    dim.eval(&|s| match as_value(s) {
        Some(n) => values.get(n as usize).map(|v| v.as_int() as i64),
        None => env.symbol(s),
    })
}

fn run_load(
    load: &Load,
    values: &[Value],
    env: &dyn Surroundings,
    dtype: DType,
) -> Result<Value, EvalError> {
    for guard in &load.guards {
        let value = index_value(&guard.value, values, env)?;
        if value < 0 || value >= index_value(&guard.below, values, env)? {
            return Ok(load.otherwise.map_or(Value::zero(dtype), |o| values[o as usize]));
        }
    }
    let index: Vec<i64> =
        load.index.iter().map(|d| index_value(d, values, env)).collect::<Result<_, _>>()?;
    env.load(load.buffer, &index)
}

/// True for symbols that a body's own surroundings must supply.
pub(crate) fn axis_value(symbol: &Symbol, axes: &[i64]) -> Option<i64> {
    as_axis(symbol).and_then(|n| axes.get(n).copied())
}
