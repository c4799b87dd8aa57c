//! Tests of the back end: every family through NVRTC, printed text, determinism.

mod compile;
mod engine;
mod print;
mod programs;
mod structured;
