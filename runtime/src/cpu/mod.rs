//! The cpu device: runs a plan's kernel programs natively, without a compiler on the user's machine.

pub mod error;
pub mod index;
pub mod kernels;
pub mod tile;

pub use error::CpuError;
