//! Values of the reference: row-major arrays of f64 or exact integers.

use crate::dtype::DType;
use crate::scalar::{Value, round_float, round_to};
use crate::tensor::Tensor;
use crate::types::TensorType;
use crate::{Dim, eval::Mode};

/// Elements of one kind.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Float(Vec<f64>),
    Int(Vec<i128>),
}

/// A row-major array.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    /// Declared element type.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
    pub(crate) data: Data,
}

impl Array {
    /// From a host tensor.
    pub fn from_tensor(tensor: &Tensor) -> Array {
        let count = tensor.len();
        let data = if tensor.dtype().is_float() {
            Data::Float((0..count).map(|i| tensor.value(i).as_f64()).collect())
        } else {
            Data::Int((0..count).map(|i| tensor.value(i).as_int()).collect())
        };
        Array { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), data }
    }

    /// To a host tensor, rounding to the dtype.
    pub fn to_tensor(&self) -> Tensor {
        let values: Vec<Value> = (0..self.len()).map(|i| self.get(i)).collect();
        Tensor::from_values(self.dtype, &self.shape, &values)
    }

    /// Elements from a function of the row-major index.
    pub fn build(dtype: DType, shape: &[usize], mut f: impl FnMut(usize) -> Value) -> Array {
        let count: usize = shape.iter().product();
        let data = if dtype.is_float() {
            Data::Float((0..count).map(|i| f(i).as_f64()).collect())
        } else {
            Data::Int((0..count).map(|i| f(i).as_int()).collect())
        };
        Array { dtype, shape: shape.to_vec(), data }
    }

    /// All elements equal.
    pub fn filled(dtype: DType, shape: &[usize], value: Value) -> Array {
        Array::build(dtype, shape, |_| value)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.data {
            Data::Float(v) => v.len(),
            Data::Int(v) => v.len(),
        }
    }

    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` in row-major order.
    pub fn get(&self, i: usize) -> Value {
        match &self.data {
            Data::Float(v) => Value::Float(v[i]),
            Data::Int(v) => Value::Int(v[i]),
        }
    }

    /// Replaces element `i`.
    pub fn set(&mut self, i: usize, value: Value) {
        match &mut self.data {
            Data::Float(v) => v[i] = value.as_f64(),
            Data::Int(v) => v[i] = value.as_int(),
        }
    }

    /// The type, with extents as numbers.
    pub fn ty(&self) -> TensorType {
        TensorType::new(self.dtype, self.shape.iter().map(|&d| Dim::Const(d as i64)))
    }

    /// Row-major strides.
    pub fn strides(&self) -> Vec<usize> {
        strides(&self.shape)
    }

    /// Keeps elements as the mode says: integers wrap to the dtype, floats
    /// round in [`Mode::Rounded`].
    pub fn settled(mut self, mode: Mode) -> Array {
        let dtype = self.dtype;
        match &mut self.data {
            Data::Float(v) if mode == Mode::Rounded && dtype != DType::F64 => {
                v.iter_mut().for_each(|x| *x = round_float(*x, dtype));
            }
            Data::Float(_) => {}
            Data::Int(v) => {
                v.iter_mut().for_each(|x| *x = round_to(Value::Int(*x), dtype).as_int())
            }
        }
        self
    }
}

/// Row-major strides of extents.
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        out[i - 1] = out[i] * shape[i];
    }
    out
}

/// Row-major index tuples of extents, in order.
pub(crate) struct Indices {
    shape: Vec<usize>,
    next: Option<Vec<usize>>,
}

impl Indices {
    pub(crate) fn new(shape: &[usize]) -> Indices {
        let empty = shape.contains(&0);
        Indices { shape: shape.to_vec(), next: (!empty).then(|| vec![0; shape.len()]) }
    }
}

impl Iterator for Indices {
    type Item = Vec<usize>;
    fn next(&mut self) -> Option<Vec<usize>> {
        let current = self.next.clone()?;
        let mut following = current.clone();
        self.next = None;
        for axis in (0..self.shape.len()).rev() {
            following[axis] += 1;
            if following[axis] < self.shape[axis] {
                self.next = Some(following);
                break;
            }
            following[axis] = 0;
        }
        Some(current)
    }
}
