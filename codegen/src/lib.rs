//! From graph to kernels and plan: cut, layouts, lowering, schedules, CUDA text.

pub mod cuda;
pub mod schedule;
