//! Arrays whose elements are known at import, as numbers or as expressions of dims.
//!
//! Shape arithmetic (`Shape → Gather → Mul → Concat → Reshape`) works on these and leaves no node behind. Elements of
//! integer and bool arrays are [`Dim`]s (bool 0 or 1); elements of float arrays are numbers or exact quotients of dims.
//! Every operation answers `None` when it cannot say; the importer then emits nodes instead. Knows no ONNX attribute.

use tgc_ir::dim::Dim;
use tgc_ir::dtype::DType;
use tgc_ir::scalar::{ScalarOp, Value, round_to};
use tgc_ir::tensor::Tensor;

/// Arrays with more elements are not tracked.
pub(crate) const MAX_ELEMENTS: usize = 4096;

/// One element.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Elem {
    /// An integer or truth value.
    Int(Dim),
    /// A float.
    Real(f64),
    /// The real number `num / den`, exact; `den` is a positive number.
    Ratio(Dim, i64),
}

impl Elem {
    /// The integer expression, when the element is one.
    #[must_use]
    pub(crate) fn dim(&self) -> Option<&Dim> {
        match self {
            Self::Int(d) => Some(d),
            _ => None,
        }
    }

    /// The number, when no symbol occurs.
    #[must_use]
    pub(crate) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(d) => d.as_const().map(|c| c as f64),
            Self::Real(x) => Some(*x),
            Self::Ratio(num, den) => num.as_const().map(|c| c as f64 / *den as f64),
        }
    }

    /// The float as an exact quotient, when it is one with a small divisor.
    fn ratio(&self) -> Option<(Dim, i64)> {
        match self {
            Self::Int(d) => Some((d.clone(), 1)),
            Self::Ratio(num, den) => Some((num.clone(), *den)),
            Self::Real(x) => (0..=16).find_map(|bits| {
                let scaled = x * f64::from(1u32 << bits);
                (scaled.fract() == 0.0 && scaled.abs() < 1e15)
                    .then(|| (Dim::Const(scaled as i64), 1i64 << bits))
            }),
        }
    }

    fn from_ratio(num: Dim, den: i64) -> Self {
        match num.as_const() {
            Some(c) => Self::Real(c as f64 / den as f64),
            None => match num.exact_div(&Dim::Const(den)) {
                Some(whole) => Self::Ratio(whole, 1),
                None => Self::Ratio(num, den),
            },
        }
    }
}

/// An array of known elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Known {
    /// Element type of the value it describes.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
    /// Elements; as many as the product of the extents.
    pub elems: Vec<Elem>,
}

impl Known {
    /// A rank-0 integer.
    #[must_use]
    pub(crate) fn scalar(dtype: DType, dim: Dim) -> Self {
        Self { dtype, shape: Vec::new(), elems: vec![Elem::Int(dim)] }
    }

    /// A rank-1 i64 array.
    #[must_use]
    pub(crate) fn dims(dims: &[Dim]) -> Self {
        Self {
            dtype: DType::I64,
            shape: vec![dims.len()],
            elems: dims.iter().cloned().map(Elem::Int).collect(),
        }
    }

    /// The elements of a small tensor; `None` when it is too large to track or its integers leave 64 bits.
    #[must_use]
    pub(crate) fn of_tensor(tensor: &Tensor) -> Option<Self> {
        if tensor.len() > MAX_ELEMENTS {
            return None;
        }
        let elem = |value| match value {
            Value::Int(x) => i64::try_from(x).ok().map(|x| Elem::Int(Dim::Const(x))),
            Value::Float(x) => Some(Elem::Real(x)),
        };
        let elems = tensor.values().into_iter().map(elem).collect::<Option<Vec<_>>>()?;
        Some(Self { dtype: tensor.dtype(), shape: tensor.shape().to_vec(), elems })
    }

    /// The tensor, when no element mentions a symbol.
    #[must_use]
    pub(crate) fn to_tensor(&self) -> Option<Tensor> {
        let value = |e: &Elem| match e {
            Elem::Int(d) => d.as_const().map(|c| Value::Int(i128::from(c))),
            other => other.number().map(Value::Float),
        };
        let values = self.elems.iter().map(value).collect::<Option<Vec<_>>>()?;
        Some(Tensor::from_values(self.dtype, &self.shape, &values))
    }

    /// The integer elements.
    #[must_use]
    pub(crate) fn to_dims(&self) -> Option<Vec<Dim>> {
        self.elems.iter().map(|e| e.dim().cloned()).collect()
    }

    /// The integer elements, when all are numbers.
    #[must_use]
    pub(crate) fn to_i64(&self) -> Option<Vec<i64>> {
        self.elems.iter().map(|e| e.dim().and_then(Dim::as_const)).collect()
    }

    /// The elements as f64, when all are numbers.
    #[must_use]
    pub(crate) fn to_f64(&self) -> Option<Vec<f64>> {
        self.elems.iter().map(Elem::number).collect()
    }

    /// The array of `shape` whose element at row-major position `i` is `self.elems[source(i)]`.
    #[must_use]
    pub(crate) fn pick(
        &self,
        shape: Vec<usize>,
        source: impl Fn(usize) -> Option<usize>,
    ) -> Option<Self> {
        let count = count(&shape)?;
        let elems =
            (0..count).map(|i| self.elems.get(source(i)?).cloned()).collect::<Option<Vec<_>>>()?;
        Some(Self { dtype: self.dtype, shape, elems })
    }

    /// The same elements under other extents of equal product.
    #[must_use]
    pub(crate) fn reshaped(&self, shape: Vec<usize>) -> Option<Self> {
        (count(&shape)? == self.elems.len()).then(|| Self { shape, ..self.clone() })
    }

    /// Repeated to `shape`, which must be the broadcast of this shape and others.
    #[must_use]
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<Self> {
        let lead = shape.len().checked_sub(self.shape.len())?;
        for (axis, &extent) in self.shape.iter().enumerate() {
            if extent != 1 && extent != shape[lead + axis] {
                return None;
            }
        }
        let from = strides(&self.shape);
        self.pick(shape.to_vec(), |i| {
            let at = unravel(i, shape);
            Some(
                (0..self.shape.len())
                    .map(|a| if self.shape[a] == 1 { 0 } else { at[lead + a] * from[a] })
                    .sum(),
            )
        })
    }

    /// Axes permuted: result axis `a` is axis `perm[a]`.
    #[must_use]
    pub(crate) fn transposed(&self, perm: &[usize]) -> Option<Self> {
        let shape: Vec<usize> =
            perm.iter().map(|&a| self.shape.get(a).copied()).collect::<Option<_>>()?;
        let from = strides(&self.shape);
        let to = shape.clone();
        self.pick(shape, |i| {
            Some(unravel(i, &to).iter().zip(perm).map(|(at, &a)| at * from[a]).sum())
        })
    }

    /// Joined along an axis.
    #[must_use]
    pub(crate) fn concat(parts: &[&Self], axis: usize) -> Option<Self> {
        let first = parts.first()?;
        let mut shape = first.shape.clone();
        if axis >= shape.len() {
            return None;
        }
        for part in parts {
            let same = |a: usize| a == axis || part.shape.get(a) == first.shape.get(a);
            if part.shape.len() != shape.len()
                || !(0..shape.len()).all(same)
                || part.dtype != first.dtype
            {
                return None;
            }
        }
        shape[axis] = parts.iter().map(|p| p.shape[axis]).sum();
        count(&shape)?;
        let outer: usize = shape[..axis].iter().product();
        let mut elems = Vec::new();
        for o in 0..outer {
            for part in parts {
                let chunk: usize = part.shape[axis..].iter().product();
                elems.extend_from_slice(&part.elems[o * chunk..(o + 1) * chunk]);
            }
        }
        Some(Self { dtype: first.dtype, shape, elems })
    }

    /// Converted to another element type; symbolic floats become integers towards zero, which needs them non-negative,
    /// and is taken for granted only for `non_negative` numerators.
    #[must_use]
    pub(crate) fn cast(&self, to: DType, non_negative: impl Fn(&Dim) -> bool) -> Option<Self> {
        let elem = |e: &Elem| -> Option<Elem> {
            if let Some(x) = e.number() {
                let exact = match e {
                    Elem::Int(d) => Value::Int(i128::from(d.as_const()?)),
                    _ => Value::Float(x),
                };
                return Some(match round_to(exact, to) {
                    Value::Int(x) => Elem::Int(Dim::Const(i64::try_from(x).ok()?)),
                    Value::Float(x) => Elem::Real(x),
                });
            }
            match (e, to.is_float()) {
                (Elem::Int(d), true) => Some(Elem::Ratio(d.clone(), 1)),
                (Elem::Int(d), false) => match to {
                    DType::I32 | DType::I64 | DType::U32 | DType::U64 => Some(Elem::Int(d.clone())),
                    DType::Bool if non_negative(&(d.clone() - Dim::ONE)) => {
                        Some(Elem::Int(Dim::ONE))
                    }
                    _ => None,
                },
                (Elem::Ratio(..), true) => Some(e.clone()),
                (Elem::Ratio(num, den), false) if matches!(to, DType::I32 | DType::I64) => {
                    non_negative(num).then(|| Elem::Int(num.floor_div(&Dim::Const(*den))))
                }
                _ => None,
            }
        };
        let elems = self.elems.iter().map(elem).collect::<Option<Vec<_>>>()?;
        Some(Self { dtype: to, shape: self.shape.clone(), elems })
    }

    /// Applies a pointwise function of the scalar table to arrays that broadcast; `decide` answers comparisons of
    /// symbolic integers.
    #[must_use]
    pub(crate) fn pointwise(op: ScalarOp, operands: &[&Self], decide: &dyn Decide) -> Option<Self> {
        let shape = operands.iter().try_fold(Vec::new(), |s, k| broadcast_shapes(&s, &k.shape))?;
        let dtypes: Vec<DType> = operands.iter().map(|k| k.dtype).collect();
        let dtype = op.result(&dtypes).ok()?;
        let wide = operands.iter().map(|k| k.broadcast(&shape)).collect::<Option<Vec<_>>>()?;
        let operand = *dtypes.last()?;
        let elem = |i: usize| {
            let args: Vec<&Elem> = wide.iter().map(|k| &k.elems[i]).collect();
            apply(op, &args, operand, dtype, decide)
        };
        let elems = (0..count(&shape)?).map(elem).collect::<Option<Vec<_>>>()?;
        Some(Self { dtype, shape, elems })
    }
}

/// Answers questions about symbolic integers: `Some(answer)` when it holds for every binding.
pub(crate) trait Decide {
    /// Is `a == b`?
    fn equal(&self, a: &Dim, b: &Dim) -> Option<bool>;
    /// Is `a <= b`?
    fn at_most(&self, a: &Dim, b: &Dim) -> Option<bool>;
}

fn apply(
    op: ScalarOp,
    args: &[&Elem],
    operand: DType,
    result: DType,
    decide: &dyn Decide,
) -> Option<Elem> {
    if op == ScalarOp::Select {
        let taken = args[0].dim()?.as_const()?;
        return Some(if taken != 0 { args[1].clone() } else { args[2].clone() });
    }
    if let Some(value) = numbers(args) {
        let value = round_to(op.evaluate(&value, operand), result);
        return Some(match value {
            Value::Int(x) => Elem::Int(Dim::Const(i64::try_from(x).ok()?)),
            Value::Float(x) => Elem::Real(x),
        });
    }
    if operand.is_float() {
        return real(op, args);
    }
    let dims: Vec<&Dim> = args.iter().map(|e| e.dim()).collect::<Option<_>>()?;
    let flag = |b: bool| Dim::Const(i64::from(b));
    let (a, b) = (dims[0], dims.get(1).copied());
    let dim = match (op, b) {
        (ScalarOp::Add, Some(b)) => a.clone() + b.clone(),
        (ScalarOp::Sub, Some(b)) => a.clone() - b.clone(),
        (ScalarOp::Mul, Some(b)) => a.clone() * b.clone(),
        (ScalarOp::Neg, None) => -a.clone(),
        // Truncation and floor agree when neither side is negative.
        (ScalarOp::Div, Some(b)) => {
            let fine = decide.at_most(&Dim::ZERO, a) == Some(true)
                && decide.at_most(&Dim::ONE, b) == Some(true);
            match a.exact_div(b) {
                Some(whole) if decide.at_most(&Dim::ONE, b) == Some(true) => whole,
                _ if fine => a.floor_div(b),
                _ if decide.at_most(a, &Dim::ZERO) == Some(true)
                    && decide.at_most(&Dim::ONE, b) == Some(true) =>
                {
                    -(-a.clone()).floor_div(b)
                }
                _ => return None,
            }
        }
        (ScalarOp::Mod | ScalarOp::Rem, Some(b)) if decide.at_most(&Dim::ONE, b) == Some(true) => {
            if op == ScalarOp::Rem && decide.at_most(&Dim::ZERO, a) != Some(true) {
                return None;
            }
            a.modulo(b)
        }
        (ScalarOp::Min, Some(b)) => match decide.at_most(a, b) {
            Some(true) => a.clone(),
            Some(false) => b.clone(),
            None => a.minimum(b),
        },
        (ScalarOp::Max, Some(b)) => match decide.at_most(a, b) {
            Some(true) => b.clone(),
            Some(false) => a.clone(),
            None => a.maximum(b),
        },
        (ScalarOp::Abs, None) if decide.at_most(&Dim::ZERO, a) == Some(true) => a.clone(),
        (ScalarOp::Eq, Some(b)) => flag(decide.equal(a, b)?),
        (ScalarOp::Le, Some(b)) => flag(decide.at_most(a, b)?),
        (ScalarOp::Lt, Some(b)) => flag(!decide.at_most(b, a)?),
        _ => return None,
    };
    Some(Elem::Int(dim))
}

fn numbers(args: &[&Elem]) -> Option<Vec<Value>> {
    args.iter()
        .map(|e| match e {
            Elem::Int(d) => d.as_const().map(|c| Value::Int(i128::from(c))),
            other => other.number().map(Value::Float),
        })
        .collect()
}

/// Arithmetic of exact quotients.
fn real(op: ScalarOp, args: &[&Elem]) -> Option<Elem> {
    let (an, ad) = args[0].ratio()?;
    let Some(b) = args.get(1) else {
        return match op {
            ScalarOp::Neg => Some(Elem::from_ratio(-an, ad)),
            ScalarOp::Floor => Some(Elem::Ratio(an.floor_div(&Dim::Const(ad)), 1)),
            ScalarOp::Ceil => Some(Elem::Ratio(an.ceil_div(&Dim::Const(ad)), 1)),
            _ => None,
        };
    };
    let (bn, bd) = b.ratio()?;
    let den = ad.checked_mul(bd)?;
    match op {
        ScalarOp::Add => Some(Elem::from_ratio(an * Dim::Const(bd) + bn * Dim::Const(ad), den)),
        ScalarOp::Sub => Some(Elem::from_ratio(an * Dim::Const(bd) - bn * Dim::Const(ad), den)),
        ScalarOp::Mul => Some(Elem::from_ratio(an * bn, den)),
        ScalarOp::Div => {
            // A quotient of two dims stays only where it is a polynomial again.
            let (num, den) = (an * Dim::Const(bd), bn * Dim::Const(ad));
            match (num.exact_div(&den), den.as_const()) {
                (Some(whole), _) => Some(Elem::from_ratio(whole, 1)),
                (None, Some(c)) if c > 0 => Some(Elem::from_ratio(num, c)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The ONNX (numpy) broadcast of two constant shapes.
#[must_use]
pub(crate) fn broadcast_shapes(a: &[usize], b: &[usize]) -> Option<Vec<usize>> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], i: usize| if i + s.len() < rank { 1 } else { s[i + s.len() - rank] };
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (1, y) => Some(y),
            (x, 1) => Some(x),
            _ => None,
        })
        .collect()
}

/// Number of elements; `None` above [`MAX_ELEMENTS`].
#[must_use]
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= MAX_ELEMENTS)
}

/// Row-major strides.
#[must_use]
pub(crate) fn strides(shape: &[usize]) -> Vec<usize> {
    let mut out = vec![1; shape.len()];
    for a in (1..shape.len()).rev() {
        out[a - 1] = out[a] * shape[a];
    }
    out
}

/// The position of row-major index `i`.
#[must_use]
pub(crate) fn unravel(mut i: usize, shape: &[usize]) -> Vec<usize> {
    let mut at = vec![0; shape.len()];
    for a in (0..shape.len()).rev() {
        at[a] = i % shape[a];
        i /= shape[a];
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Positive;
    impl Decide for Positive {
        fn equal(&self, a: &Dim, b: &Dim) -> Option<bool> {
            (a == b).then_some(true).or_else(|| Some(a.as_const()? == b.as_const()?))
        }
        fn at_most(&self, a: &Dim, b: &Dim) -> Option<bool> {
            match (a.as_const(), b.as_const()) {
                (Some(a), Some(b)) => Some(a <= b),
                // symbols of these tests are at least 1
                (Some(a), None) if a <= 1 => Some(true),
                _ => (a == b).then_some(true),
            }
        }
    }

    fn dims(texts: &[&str]) -> Known {
        Known::dims(&texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn arithmetic_broadcasts() {
        let two = Known::scalar(DType::I64, Dim::Const(2));
        let out = Known::pointwise(ScalarOp::Mul, &[&dims(&["B", "S"]), &two], &Positive).unwrap();
        assert_eq!(out, dims(&["2*B", "2*S"]));
        let out = Known::pointwise(ScalarOp::Div, &[&dims(&["S", "7"]), &two], &Positive).unwrap();
        assert_eq!(out, dims(&["S // 2", "3"]));
    }

    #[test]
    fn scale_factors_stay_exact() {
        let half = Known { dtype: DType::F32, shape: vec![], elems: vec![Elem::Real(0.5)] };
        let size = dims(&["H"]).cast(DType::F32, |_| true).unwrap();
        let out = Known::pointwise(ScalarOp::Mul, &[&size, &half], &Positive).unwrap();
        let out = Known::pointwise(ScalarOp::Floor, &[&out], &Positive).unwrap();
        let out = out.cast(DType::I64, |_| true).unwrap();
        assert_eq!(out, dims(&["H // 2"]));
    }

    #[test]
    fn movement_keeps_elements() {
        let a = dims(&["a", "b", "c", "d"]).reshaped(vec![2, 2]).unwrap();
        assert_eq!(a.transposed(&[1, 0]).unwrap().elems, dims(&["a", "c", "b", "d"]).elems);
        let joined = Known::concat(&[&a, &a], 1).unwrap();
        assert_eq!(joined.elems, dims(&["a", "b", "a", "b", "c", "d", "c", "d"]).elems);
        assert!(Known::concat(&[&a], 2).is_none());
    }
}
