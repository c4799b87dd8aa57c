//! Random numbers, values of inputs, and when two results are equal.

use tgc_ir::bind::Binding;
use tgc_ir::dtype::DType;
use tgc_ir::eval::Array;
use tgc_ir::scalar::{Value, round_to};
use tgc_ir::types::TensorType;

/// SplitMix64 (Steele, Lea, Flood 2014).
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`, which is not 0.
    pub(super) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// True once in `n`.
    pub(super) fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Clone>(&mut self, items: &[T]) -> T {
        items[self.below(items.len())].clone()
    }

    /// Uniform in [low, high).
    pub(super) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// Floats that break rules which hold for ordinary ones only.
const SPECIAL: [f64; 7] = [0.0, -0.0, 1.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1e30];

/// The value of an input; `None` when an extent is no size.
pub(super) fn array_for(
    ty: &TensorType,
    binding: &Binding,
    rng: &mut Rng,
    with_special: bool,
) -> Option<Array> {
    let shape = binding.extents(&ty.shape)?;
    let dtype = ty.dtype;
    Some(Array::build(dtype, &shape, |_| {
        let value = match dtype {
            DType::Bool => Value::Int((rng.next() & 1).into()),
            _ if !dtype.is_float() => {
                Value::Int(rng.below(9) as i128 - if dtype.int_range().0 < 0 { 4 } else { 0 })
            }
            _ if with_special && rng.once_in(8) => Value::Float(rng.pick(&SPECIAL)),
            _ => Value::Float(rng.uniform(-3.0, 3.0)),
        };
        round_to(value, dtype)
    }))
}

/// The first element in which results differ. Exact ones agree bit by bit
/// (every NaN alike); real ones within a tolerance of the greatest magnitude,
/// wherever the left is finite.
pub(super) fn first_difference(
    left: &[Value],
    right: &[Value],
    is_exact: bool,
    epsilon: f64,
) -> Option<usize> {
    let scale = left.iter().map(|v| v.as_f64().abs()).filter(|v| v.is_finite()).fold(1.0, f64::max);
    let tolerance = scale * (8.0 * epsilon).max(1e-6);
    left.iter().zip(right).position(|(l, r)| match (l, r) {
        (Value::Float(l), Value::Float(r)) if is_exact => {
            !(l.is_nan() && r.is_nan()) && l.to_bits() != r.to_bits()
        }
        (Value::Float(l), Value::Float(r)) => {
            l.is_finite() && (r.is_nan() || (l - r).abs() > tolerance)
        }
        _ => l != r,
    })
}
