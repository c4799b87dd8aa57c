//! Row reductions of any kind, in chunks: partial results meet in double precision (floats) or exactly (integers).

use tgc_ir::DType;
use tgc_ir::kernel_program::ReduceOp;

use super::scalar::{limits, wrap};
use crate::cpu::kernels::Isa;
use crate::cpu::kernels::lanes::Extent;
use crate::cpu::kernels::reduce::{RowReduce, reduce_rows};
use crate::cpu::kernels::region::kind_of;
use crate::cpu::kernels::slots::{Kind, Slots};

/// The running result of one row.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    real: f64,
    int: i64,
    /// Column of the chosen element, for the index reductions.
    at: i64,
    empty: bool,
}

impl State {
    /// Nothing reduced yet.
    pub(super) fn new(op: ReduceOp, dtype: DType) -> Self {
        let (low, high) = if dtype.is_float() { (0, 0) } else { limits(dtype) };
        let (real, int) = match op {
            ReduceOp::Prod | ReduceOp::All => (1.0, 1),
            ReduceOp::Max => (f64::NEG_INFINITY, low),
            ReduceOp::Min => (f64::INFINITY, high),
            _ => (0.0, 0),
        };
        Self { real, int, at: 0, empty: true }
    }

    fn take_real(&mut self, op: ReduceOp, x: f64, column: i64) {
        let replace = match op {
            ReduceOp::ArgMax => {
                self.empty || (!self.real.is_nan() && (x.is_nan() || x > self.real))
            }
            ReduceOp::ArgMin => {
                self.empty || (!self.real.is_nan() && (x.is_nan() || x < self.real))
            }
            ReduceOp::ArgMaxLast => {
                self.empty || x.is_nan() || (!self.real.is_nan() && x >= self.real)
            }
            ReduceOp::ArgMinLast => {
                self.empty || x.is_nan() || (!self.real.is_nan() && x <= self.real)
            }
            ReduceOp::Max => !self.real.is_nan() && (x.is_nan() || x > self.real),
            ReduceOp::Min => !self.real.is_nan() && (x.is_nan() || x < self.real),
            ReduceOp::Sum => {
                self.real += x;
                false
            }
            ReduceOp::Prod => {
                self.real *= x;
                false
            }
            ReduceOp::All => {
                self.int &= i64::from(x != 0.0);
                false
            }
            ReduceOp::Any => {
                self.int |= i64::from(x != 0.0);
                false
            }
        };
        if replace {
            (self.real, self.at) = (x, column);
        }
        self.empty = false;
    }

    fn take_int(&mut self, op: ReduceOp, x: i64, column: i64, dtype: DType) {
        let order = |x: i64| if dtype == DType::U64 { x ^ i64::MIN } else { x };
        let (a, b) = (order(x), order(self.int));
        let replace = match op {
            ReduceOp::ArgMax => self.empty || a > b,
            ReduceOp::ArgMin => self.empty || a < b,
            ReduceOp::ArgMaxLast => self.empty || a >= b,
            ReduceOp::ArgMinLast => self.empty || a <= b,
            ReduceOp::Max => a > b,
            ReduceOp::Min => a < b,
            ReduceOp::Sum => {
                self.int = wrap(self.int.wrapping_add(x), dtype);
                false
            }
            ReduceOp::Prod => {
                self.int = wrap(self.int.wrapping_mul(x), dtype);
                false
            }
            ReduceOp::All => {
                self.int &= i64::from(x != 0);
                false
            }
            ReduceOp::Any => {
                self.int |= i64::from(x != 0);
                false
            }
        };
        if replace {
            (self.int, self.at) = (x, column);
        }
        self.empty = false;
    }
}

/// Takes a tile's rows into their states; `first` is the column number of the tile's first column.
#[allow(clippy::too_many_arguments, reason = "one reduction step")]
pub(super) fn accumulate(
    isa: Isa,
    slots: &mut Slots,
    op: ReduceOp,
    dtype: DType,
    src: u16,
    e: Extent,
    first: i64,
    states: &mut [State],
) {
    let fast = match op {
        ReduceOp::Sum => Some(RowReduce::Sum),
        ReduceOp::Max => Some(RowReduce::Max),
        ReduceOp::Min => Some(RowReduce::Min),
        _ => None,
    };
    match (kind_of(dtype), fast) {
        (Kind::F32, Some(fast)) => {
            reduce_rows(isa, slots, fast, src, e, |r, x| {
                states[r].take_real(op, f64::from(x), first)
            });
        }
        (Kind::F32, None) => {
            each_row::<f32>(slots, src, e, |r, c, x| {
                states[r].take_real(op, f64::from(x), first + c)
            });
        }
        (Kind::F64, _) => {
            each_row::<f64>(slots, src, e, |r, c, x| states[r].take_real(op, x, first + c))
        }
        (Kind::I64, _) => {
            each_row::<i64>(slots, src, e, |r, c, x| states[r].take_int(op, x, first + c, dtype))
        }
        (Kind::Bool, _) => {
            each_row::<u8>(slots, src, e, |r, c, x| {
                states[r].take_int(op, i64::from(x), first + c, dtype)
            });
        }
    }
}

fn each_row<T: crate::cpu::kernels::slots::Element>(
    slots: &mut Slots,
    src: u16,
    e: Extent,
    mut take: impl FnMut(usize, i64, T),
) {
    let values = slots.view::<T>(src, e.count());
    for (r, row) in values.chunks_exact(e.width.max(1)).enumerate() {
        for (c, &x) in row.iter().enumerate() {
            take(r, c as i64, x);
        }
    }
}

/// Writes the results of `states`, one per row, to `dst`.
pub(super) fn finish(slots: &mut Slots, op: ReduceOp, dtype: DType, dst: u16, states: &[State]) {
    let n = states.len();
    if op.is_arg() {
        let out = slots.slice::<i64>(dst, n);
        out.iter_mut().zip(states).for_each(|(o, s)| *o = s.at);
        return;
    }
    let logical = matches!(op, ReduceOp::All | ReduceOp::Any);
    match kind_of(dtype) {
        Kind::F32 => {
            let out = slots.slice::<f32>(dst, n);
            out.iter_mut()
                .zip(states)
                .for_each(|(o, s)| *o = if logical { s.int as f32 } else { s.real as f32 });
        }
        Kind::F64 => {
            let out = slots.slice::<f64>(dst, n);
            out.iter_mut()
                .zip(states)
                .for_each(|(o, s)| *o = if logical { s.int as f64 } else { s.real });
        }
        Kind::I64 => {
            let out = slots.slice::<i64>(dst, n);
            out.iter_mut().zip(states).for_each(|(o, s)| *o = s.int);
        }
        Kind::Bool => {
            let out = slots.slice::<u8>(dst, n);
            out.iter_mut().zip(states).for_each(|(o, s)| *o = u8::from(s.int != 0));
        }
    }
}
