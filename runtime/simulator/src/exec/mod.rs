//! Running kernels: a warp is the unit of work, gangs of blocks run on a thread each, threads share memory.

mod access;
mod address;
pub(crate) mod alu;
mod atomic;
mod bits;
mod bulk;
mod checked;
mod collective;
pub(crate) mod convert;
mod copy;
pub(crate) mod float;
mod gang;
mod isa;
pub(crate) mod lanes;
mod launch;
mod matrix;
mod mbarrier;
mod report;
mod special;
mod state;
mod step;
mod sync;
mod tensor;
mod warp;
mod wgmma;

pub use launch::{Completion, LaunchOptions, LaunchShape, Report, launch};
