//! Element types: one table from which names, widths and kinds are derived.
//! Knows nothing of any device's or file format's spelling of them.

use std::fmt;
use std::str::FromStr;

/// What the bits of an element mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DTypeKind {
    /// One truth value.
    Bool,
    /// Two's complement.
    Int,
    /// Unsigned binary.
    UInt,
    /// IEEE-like binary floating point.
    Float,
}

macro_rules! dtypes {
    ($($(#[$doc:meta])* $variant:ident $name:literal $bits:literal $kind:ident;)*) => {
        /// An element type.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum DType { $($(#[$doc])* $variant,)* }

        impl DType {
            /// Every element type, in table order.
            pub const ALL: &'static [DType] = &[$(DType::$variant),*];

            /// The name used in text forms.
            pub const fn name(self) -> &'static str {
                match self { $(DType::$variant => $name),* }
            }

            /// Storage width in bits (`bool` is stored in a byte).
            pub const fn bits(self) -> u32 {
                match self { $(DType::$variant => $bits),* }
            }

            /// What the bits mean.
            pub const fn kind(self) -> DTypeKind {
                match self { $(DType::$variant => DTypeKind::$kind),* }
            }
        }
    };
}

dtypes! {
    /// Truth value, one byte, 0 or 1.
    Bool "bool" 8 Bool;
    /// Packed two to a byte, low nibble first.
    I4 "i4" 4 Int;
    /// Packed two to a byte, low nibble first.
    U4 "u4" 4 UInt;
    /// 8-bit signed.
    I8 "i8" 8 Int;
    /// 8-bit unsigned.
    U8 "u8" 8 UInt;
    /// 16-bit signed.
    I16 "i16" 16 Int;
    /// 16-bit unsigned.
    U16 "u16" 16 UInt;
    /// 32-bit signed.
    I32 "i32" 32 Int;
    /// 32-bit unsigned.
    U32 "u32" 32 UInt;
    /// 64-bit signed.
    I64 "i64" 64 Int;
    /// 64-bit unsigned.
    U64 "u64" 64 UInt;
    /// OCP 8-bit float, 4 exponent bits, no infinity.
    F8E4M3 "f8e4m3" 8 Float;
    /// OCP 8-bit float, 5 exponent bits.
    F8E5M2 "f8e5m2" 8 Float;
    /// IEEE binary16.
    F16 "f16" 16 Float;
    /// bfloat16.
    BF16 "bf16" 16 Float;
    /// IEEE binary32.
    F32 "f32" 32 Float;
    /// IEEE binary64.
    F64 "f64" 64 Float;
}

impl DType {
    /// True for the floating-point kinds.
    pub const fn is_float(self) -> bool {
        matches!(self.kind(), DTypeKind::Float)
    }

    /// True for signed and unsigned integers (not for `bool`).
    pub const fn is_int(self) -> bool {
        matches!(self.kind(), DTypeKind::Int | DTypeKind::UInt)
    }

    /// Bytes of one element; `None` for the packed 4-bit types.
    pub const fn bytes(self) -> Option<usize> {
        if self.bits() < 8 { None } else { Some(self.bits() as usize / 8) }
    }

    /// Bytes that `count` densely stored elements take.
    pub const fn storage_bytes(self, count: usize) -> usize {
        (count * self.bits() as usize).div_ceil(8)
    }

    /// The dtype in which sums and statistics of this dtype are kept: f32 for
    /// the narrow floats, itself otherwise.
    pub const fn accumulator(self) -> DType {
        match self {
            DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 => DType::F32,
            other => other,
        }
    }

    /// Explicit mantissa bits of a float type, `None` for other kinds.
    pub const fn mantissa_bits(self) -> Option<u32> {
        match self {
            DType::F8E4M3 => Some(3),
            DType::F8E5M2 => Some(2),
            DType::F16 => Some(10),
            DType::BF16 => Some(7),
            DType::F32 => Some(23),
            DType::F64 => Some(52),
            _ => None,
        }
    }

    /// Distance from 1 to the next larger value of a float type.
    pub fn epsilon(self) -> Option<f64> {
        self.mantissa_bits().map(|bits| 2f64.powi(-(bits as i32)))
    }

    /// Largest finite value (floats) or largest value (integers, bool) as f64.
    pub fn max_value(self) -> f64 {
        match self {
            DType::F8E4M3 => 448.0,
            DType::F8E5M2 => 57344.0,
            DType::F16 => 65504.0,
            DType::BF16 => 3.389_531_389_251_535_5e38,
            DType::F32 => f64::from(f32::MAX),
            DType::F64 => f64::MAX,
            _ => self.int_range().1 as f64,
        }
    }

    /// Inclusive range of an integer or bool type; floats answer (0, 0).
    pub const fn int_range(self) -> (i128, i128) {
        match self.kind() {
            DTypeKind::Bool => (0, 1),
            DTypeKind::Int => (-(1i128 << (self.bits() - 1)), (1i128 << (self.bits() - 1)) - 1),
            DTypeKind::UInt => (0, (1i128 << self.bits()) - 1),
            DTypeKind::Float => (0, 0),
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The text is no dtype name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no element type; known are bool, i4…i64, u4…u64, f8e4m3, f8e5m2, f16, bf16, f32, f64"
)]
pub struct UnknownDType(pub String);

impl FromStr for DType {
    type Err = UnknownDType;
    fn from_str(text: &str) -> Result<Self, UnknownDType> {
        Self::ALL
            .iter()
            .copied()
            .find(|d| d.name() == text)
            .ok_or_else(|| UnknownDType(text.to_owned()))
    }
}

crate::text_serde!(DType);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_are_unique() {
        for &d in DType::ALL {
            assert_eq!(d.name().parse::<DType>(), Ok(d));
        }
        assert!("f31".parse::<DType>().is_err());
    }

    #[test]
    fn storage_of_packed_types_rounds_up() {
        assert_eq!(DType::I4.storage_bytes(3), 2);
        assert_eq!(DType::F32.storage_bytes(3), 12);
        assert_eq!(DType::I8.int_range(), (-128, 127));
    }
}
