//! The CUDA back end: kernel programs become CUDA C++ for people to read, and PTX and cubins by NVRTC.
//!
//! [`emit`] chooses a family for a kernel program and returns text, entry and launch geometry; `print`
//! writes scalar bodies and index expressions; `families` are the skeletons; `build` and `cache` drive
//! NVRTC. Nothing here knows the graph, rules or ONNX (names arrive as strings), and nothing here needs
//! a GPU, a driver or a CUDA toolkit.

pub mod assemble;
pub mod build;
pub mod cache;
pub mod emit;
pub mod engine;
pub mod families;
pub mod nvrtc;
pub mod print;

#[cfg(test)]
mod tests;
