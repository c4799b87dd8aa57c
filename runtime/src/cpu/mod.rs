//! The cpu device: runs a plan's kernel programs natively, without a compiler on the user's machine.

pub mod kernels;
