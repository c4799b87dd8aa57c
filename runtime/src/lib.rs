//! Devices of tgc, and the engine file.
//!
//! Absent here: ONNX, rewrite rules, how kernels are made, the environment.

pub mod cpu;
pub mod cuda;
pub mod engine;
pub mod host;
pub mod reference;
