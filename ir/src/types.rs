//! The type of a value: element type and symbolic extents.

use std::fmt;
use std::str::FromStr;

use smallvec::SmallVec;

use crate::dim::Dim;
use crate::dtype::DType;

/// Extents, outermost first.
pub type Shape = SmallVec<[Dim; 4]>;

/// dtype × shape.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorType {
    /// Element type.
    pub dtype: DType,
    /// Extents, outermost first; empty for a scalar.
    pub shape: Shape,
}

impl TensorType {
    /// A type of these parts.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = Dim>) -> Self {
        TensorType { dtype, shape: shape.into_iter().collect() }
    }

    /// Rank 0.
    pub fn scalar(dtype: DType) -> Self {
        TensorType { dtype, shape: Shape::new() }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Number of elements.
    pub fn count(&self) -> Dim {
        Dim::product(&self.shape)
    }

    /// The extents as numbers, when all are known.
    pub fn const_shape(&self) -> Option<Vec<i64>> {
        self.shape.iter().map(Dim::as_const).collect()
    }

    /// Stored bytes.
    pub fn bytes(&self) -> Dim {
        match self.dtype.bytes() {
            Some(width) => self.count() * Dim::Const(width as i64),
            None => (self.count() + Dim::ONE).floor_div(&Dim::Const(2)),
        }
    }
}

/// `f32[B, S, 768]`; rank 0 prints as `f32[]`.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.dtype, DisplayDims(&self.shape))
    }
}

impl fmt::Debug for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `[B, S, 768]`.
pub struct DisplayDims<'a>(pub &'a [Dim]);

impl fmt::Display for DisplayDims<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, dim) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

/// The text is no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no tensor type such as f32[B, 768]: {why}")]
pub struct TypeParseError {
    /// What was read.
    pub text: String,
    /// Why it is none.
    pub why: String,
}

/// Splits `[a, b(c, d), e]` contents at commas outside parentheses.
pub fn split_commas(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut out) = (0i32, 0, Vec::new());
    for (i, c) in text.char_indices() {
        match c {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            ',' if depth == 0 => {
                out.push(text[start..i].trim());
                start = i + 1;
            }
            _ => {}
        }
    }
    let last = text[start..].trim();
    if !last.is_empty() || !out.is_empty() {
        out.push(last);
    }
    out
}

impl FromStr for TensorType {
    type Err = TypeParseError;
    fn from_str(text: &str) -> Result<Self, TypeParseError> {
        let fail = |why: String| TypeParseError { text: text.to_owned(), why };
        let text_trim = text.trim();
        let open = text_trim.find('[').ok_or_else(|| fail("no `[`".to_owned()))?;
        let inner = text_trim[open + 1..]
            .strip_suffix(']')
            .ok_or_else(|| fail("no closing `]`".to_owned()))?;
        let dtype = text_trim[..open].parse().map_err(|e| fail(format!("{e}")))?;
        let shape: Result<Shape, _> = split_commas(inner).into_iter().map(str::parse).collect();
        Ok(TensorType { dtype, shape: shape.map_err(|e| fail(format!("{e}")))? })
    }
}

crate::text_serde!(TensorType);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        for text in ["f32[B, S, 768]", "i64[]", "bf16[max(4, S), (B // 2)]"] {
            assert_eq!(text.parse::<TensorType>().expect("type").to_string(), text);
        }
        assert!("f32".parse::<TensorType>().is_err());
        assert!("f32[B,]".parse::<TensorType>().is_err());
    }
}
