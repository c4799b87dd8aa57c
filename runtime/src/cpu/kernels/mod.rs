//! The hot loops: written once over [`simd::Simd`], instantiated per instruction set, and the only place of the
//! cpu device with raw pointers. Knows shapes and strides; knows no program, plan or dtype beyond its lanes.

pub(crate) mod isa;
pub(crate) mod portable;
pub(crate) mod simd;
pub(crate) mod vmath;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub use isa::Isa;
