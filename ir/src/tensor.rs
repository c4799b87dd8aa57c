//! Host tensors: dtype, extents and densely packed little-endian bytes that
//! may be a slice of a mapped file.

use std::fmt;

use bytes::Bytes;

use crate::dtype::DType;
use crate::scalar::{Value, round_to};

/// A dense row-major tensor on the host.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    bytes: Bytes,
}

/// The parts of a tensor do not fit together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Byte count and type disagree.
    #[error("{dtype}{shape:?} takes {expected} bytes, found {found}")]
    Size {
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Vec<usize>,
        /// Bytes that the type takes.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// The number of elements overflows.
    #[error("{dtype}{shape:?} is too large to address")]
    TooLarge {
        /// Element type.
        dtype: DType,
        /// Extents.
        shape: Vec<usize>,
    },
}

/// Number of elements, `None` on overflow or beyond what a slice can hold.
pub fn element_count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / 16)
}

impl Tensor {
    /// A tensor over given bytes, which must be exactly as many as the type takes.
    pub fn new(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Self, TensorError> {
        let Some(count) = element_count(&shape) else {
            return Err(TensorError::TooLarge { dtype, shape });
        };
        let expected = dtype.storage_bytes(count);
        if bytes.len() != expected {
            return Err(TensorError::Size { dtype, shape, expected, found: bytes.len() });
        }
        Ok(Tensor { dtype, shape, bytes })
    }

    /// A tensor of values in row-major order, each rounded to the dtype.
    ///
    /// # Panics
    /// When the number of values is not the product of the extents.
    pub fn from_values(dtype: DType, shape: &[usize], values: &[Value]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "one value per element");
        let mut bytes = vec![0u8; dtype.storage_bytes(values.len())];
        for (i, &value) in values.iter().enumerate() {
            store(dtype, &mut bytes, i, value);
        }
        Tensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// Zeros.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Self {
        let bytes = vec![0u8; dtype.storage_bytes(shape.iter().product())];
        Tensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// f32 values.
    pub fn from_f32(shape: &[usize], values: &[f32]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "one value per element");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { dtype: DType::F32, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// i64 values.
    pub fn from_i64(shape: &[usize], values: &[i64]) -> Self {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "one value per element");
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        Tensor { dtype: DType::I64, shape: shape.to_vec(), bytes: bytes.into() }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True when there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Element `index` in row-major order.
    pub fn value(&self, index: usize) -> Value {
        load(self.dtype, &self.bytes, index)
    }

    /// All elements in row-major order.
    pub fn values(&self) -> Vec<Value> {
        (0..self.len()).map(|i| self.value(i)).collect()
    }

    /// All elements as f64.
    pub fn to_f64(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.value(i).as_f64()).collect()
    }

    /// All elements as i64, `None` for floats.
    pub fn to_i64(&self) -> Option<Vec<i64>> {
        (!self.dtype.is_float())
            .then(|| (0..self.len()).map(|i| self.value(i).as_int() as i64).collect())
    }

    /// The same bytes under other extents of equal product.
    pub fn reshaped(&self, shape: &[usize]) -> Option<Tensor> {
        (element_count(shape) == Some(self.len())).then(|| Tensor {
            dtype: self.dtype,
            shape: shape.to_vec(),
            bytes: self.bytes.clone(),
        })
    }

    /// The one value that all elements have bit for bit, if so.
    pub fn splat_value(&self) -> Option<Value> {
        let width = self.dtype.bytes()?;
        let first = self.bytes.get(..width)?;
        self.bytes.chunks_exact(width).all(|c| c == first).then(|| self.value(0))
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if self.len() <= 16 { f.debug_list().entries(self.to_f64()).finish() } else { Ok(()) }
    }
}

/// Reads element `index` of densely packed `bytes`.
pub fn load(dtype: DType, bytes: &[u8], index: usize) -> Value {
    fn at<const N: usize>(bytes: &[u8], index: usize) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(&bytes[index * N..index * N + N]);
        out
    }
    match dtype {
        DType::Bool => Value::Int(i128::from(bytes[index] != 0)),
        DType::I4 => {
            let nibble = (bytes[index / 2] >> (4 * (index % 2))) & 15;
            Value::Int(i128::from(((nibble << 4) as i8) >> 4))
        }
        DType::U4 => Value::Int(i128::from((bytes[index / 2] >> (4 * (index % 2))) & 15)),
        DType::I8 => Value::Int(i128::from(bytes[index] as i8)),
        DType::U8 => Value::Int(i128::from(bytes[index])),
        DType::I16 => Value::Int(i128::from(i16::from_le_bytes(at(bytes, index)))),
        DType::U16 => Value::Int(i128::from(u16::from_le_bytes(at(bytes, index)))),
        DType::I32 => Value::Int(i128::from(i32::from_le_bytes(at(bytes, index)))),
        DType::U32 => Value::Int(i128::from(u32::from_le_bytes(at(bytes, index)))),
        DType::I64 => Value::Int(i128::from(i64::from_le_bytes(at(bytes, index)))),
        DType::U64 => Value::Int(i128::from(u64::from_le_bytes(at(bytes, index)))),
        DType::F8E4M3 => Value::Float(decode_f8(bytes[index], 3, 7, false)),
        DType::F8E5M2 => Value::Float(decode_f8(bytes[index], 2, 15, true)),
        DType::F16 => Value::Float(half::f16::from_le_bytes(at(bytes, index)).to_f64()),
        DType::BF16 => Value::Float(half::bf16::from_le_bytes(at(bytes, index)).to_f64()),
        DType::F32 => Value::Float(f64::from(f32::from_le_bytes(at(bytes, index)))),
        DType::F64 => Value::Float(f64::from_le_bytes(at(bytes, index))),
    }
}

/// Writes element `index` of densely packed `bytes`, rounding to the dtype.
pub fn store(dtype: DType, bytes: &mut [u8], index: usize, value: Value) {
    let value = round_to(value, dtype);
    let int = value.as_int();
    let mut put =
        |raw: &[u8]| bytes[index * raw.len()..(index + 1) * raw.len()].copy_from_slice(raw);
    match dtype {
        DType::Bool | DType::U8 => put(&[int as u8]),
        DType::I4 | DType::U4 => {
            let shift = 4 * (index % 2);
            let byte = &mut bytes[index / 2];
            *byte = (*byte & !(15 << shift)) | (((int as u8) & 15) << shift);
        }
        DType::I8 => put(&(int as i8).to_le_bytes()),
        DType::I16 => put(&(int as i16).to_le_bytes()),
        DType::U16 => put(&(int as u16).to_le_bytes()),
        DType::I32 => put(&(int as i32).to_le_bytes()),
        DType::U32 => put(&(int as u32).to_le_bytes()),
        DType::I64 => put(&(int as i64).to_le_bytes()),
        DType::U64 => put(&(int as u64).to_le_bytes()),
        DType::F8E4M3 => put(&[encode_f8(value.as_f64(), 3, 7)]),
        DType::F8E5M2 => put(&[encode_f8(value.as_f64(), 2, 15)]),
        DType::F16 => put(&half::f16::from_f64(value.as_f64()).to_le_bytes()),
        DType::BF16 => put(&half::bf16::from_f64(value.as_f64()).to_le_bytes()),
        DType::F32 => put(&(value.as_f64() as f32).to_le_bytes()),
        DType::F64 => put(&value.as_f64().to_le_bytes()),
    }
}

/// The value whose bits in `to` are those of a value in `from`, of equal width.
pub fn reinterpret(value: Value, from: DType, to: DType) -> Value {
    let mut bytes = [0; 16];
    store(from, &mut bytes, 0, value);
    load(to, &bytes, 0)
}

fn decode_f8(byte: u8, mantissa: u32, bias: i32, has_infinity: bool) -> f64 {
    let sign = if byte & 0x80 != 0 { -1.0 } else { 1.0 };
    let exponent = i32::from((byte & 0x7f) >> mantissa);
    let fraction = f64::from(byte & ((1 << mantissa) - 1));
    let top = (1 << (7 - mantissa)) - 1;
    let scale = 2f64.powi(-(mantissa as i32));
    if has_infinity && exponent == top {
        return if fraction == 0.0 { sign * f64::INFINITY } else { f64::NAN };
    }
    if !has_infinity && byte & 0x7f == 0x7f {
        return f64::NAN;
    }
    if exponent == 0 {
        return sign * fraction * scale * 2f64.powi(1 - bias);
    }
    sign * (1.0 + fraction * scale) * 2f64.powi(exponent - bias)
}

/// Encodes a value that is already rounded to the format.
fn encode_f8(x: f64, mantissa: u32, bias: i32) -> u8 {
    let sign = if x.is_sign_negative() { 0x80 } else { 0 };
    if x.is_nan() {
        return sign | 0x7f;
    }
    if x.is_infinite() {
        return sign | (((1u8 << (7 - mantissa)) - 1) << mantissa);
    }
    if x == 0.0 {
        return sign;
    }
    let exponent = libm::ilogb(x).max(1 - bias);
    let fraction = x.abs() / 2f64.powi(exponent) * f64::from(1u32 << mantissa);
    let biased = if fraction < f64::from(1u32 << mantissa) { 0 } else { exponent + bias };
    sign | ((biased as u8) << mantissa) | ((fraction as u32 & ((1 << mantissa) - 1)) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dtype_stores_and_loads() {
        for &dtype in DType::ALL {
            let values: Vec<Value> = if dtype.is_float() {
                [0.0, 1.0, -2.0, 0.5, 48.0].map(Value::Float).to_vec()
            } else {
                [0, 1, 1, 0, 1].map(Value::Int).to_vec()
            };
            let tensor = Tensor::from_values(dtype, &[5], &values);
            assert_eq!(tensor.values(), values, "{dtype}");
        }
    }

    #[test]
    fn f8_decodes_all_codes_that_encode_back() {
        for byte in 0..=255u8 {
            for dtype in [DType::F8E4M3, DType::F8E5M2] {
                let value = load(dtype, &[byte], 0);
                if value.as_f64().is_nan() {
                    continue;
                }
                let mut out = [0];
                store(dtype, &mut out, 0, value);
                assert_eq!(out[0], byte, "{dtype} {byte:#x} {value:?}");
            }
        }
    }

    #[test]
    fn sizes_are_checked() {
        assert!(Tensor::new(DType::F32, vec![2], Bytes::from_static(&[0; 7])).is_err());
        assert!(Tensor::new(DType::F32, vec![usize::MAX, 2], Bytes::new()).is_err());
    }
}
