//! From ir to readable C++: names, index expressions, scalar bodies.
//!
//! Knows no family and no launch. Everything printed depends on the program and the facts alone.

pub mod body;
pub mod index;
pub mod lines;
pub mod scalar;
pub mod scope;

use tgc_ir::DType;

/// The C++ type in which elements of a dtype are stored; `None` for the packed 4-bit types.
pub fn storage_type(dtype: DType) -> Option<&'static str> {
    Some(match dtype {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::I4 | DType::U4 => return None,
        other => other.name(),
    })
}

/// The C++ type in which a value of a dtype is held: narrow floats are floats that hold a rounded value.
pub fn value_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F16 | DType::BF16 | DType::F8E4M3 | DType::F8E5M2 | DType::F32 => "float",
        DType::F64 => "double",
        DType::I4 => DType::I8.name(),
        DType::U4 => DType::U8.name(),
        other => other.name(),
    }
}
