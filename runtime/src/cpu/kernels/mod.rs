//! The hot loops: written once over [`simd::Simd`], instantiated per instruction set, and the only place of the
//! cpu device with raw pointers. Knows shapes and strides; knows no program and no plan.

pub mod buffer;
pub mod dots;
pub mod gemm;
pub(crate) mod isa;
pub mod lanes;
pub mod pool;
pub(crate) mod portable;
pub mod product;
pub mod reduce;
pub mod region;
pub mod simd;
pub mod slots;
pub mod softmax;
pub mod taps;
pub mod transfer;
pub(crate) mod vmath;
pub mod windows;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub use isa::Isa;
