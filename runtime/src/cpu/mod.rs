//! The cpu device: runs a plan's kernel programs natively, without a compiler on the user's machine.
//!
//! [`engine`] and [`instance`] execute plans; [`program`] binds one kernel to symbol values; `anchors` holds one file per anchor;
//! [`tile`] interprets scalar bodies over tiles; [`kernels`] holds the hot loops and all raw pointers. Nothing here
//! knows graphs, rules, files or other devices, and nothing reads the environment or the clock.

mod anchors;
mod binding;
mod boxes;
pub mod engine;
pub mod error;
pub mod exec;
mod host;
pub mod index;
pub mod instance;
pub mod kernels;
pub mod program;
#[cfg(test)]
mod tests;
pub mod tile;

pub use engine::{CpuEngine, Options};
pub use error::CpuError;
pub use instance::CpuInstance;
pub use kernels::Isa;
