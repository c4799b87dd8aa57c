//! tgc-simulator: executes PTX without a GPU, checks it, and counts what it does.
//!
//! ```
//! use tgc_simulator::{LaunchOptions, LaunchShape, Memory, Module, Parameters, launch};
//!
//! let text = "
//! .version 7.0
//! .target sm_80
//! .address_size 64
//! .visible .entry twice(.param .u64 data)
//! {
//!   .reg .u64 %rd<4>;
//!   .reg .u32 %r<3>;
//!   ld.param.u64 %rd1, [data];
//!   mov.u32 %r1, %tid.x;
//!   mul.wide.u32 %rd2, %r1, 4;
//!   add.u64 %rd3, %rd1, %rd2;
//!   ld.global.u32 %r2, [%rd3];
//!   shl.b32 %r2, %r2, 1;
//!   st.global.u32 [%rd3], %r2;
//!   ret;
//! }";
//! let module = Module::parse(text)?;
//! let mut memory = Memory::new(1 << 20);
//! let variables = module.place_variables(&mut memory)?;
//! let data = memory.allocate_from(&[7; 128])?;
//! let parameters = Parameters::new().u64(data);
//! let shape = LaunchShape::linear(1, 32, 0);
//! let report =
//!     launch(&module, &variables, "twice", &memory, &shape, parameters.bytes(), &LaunchOptions::default())?;
//! assert!(report.is_clean());
//! let mut out = [0; 4];
//! memory.read(data, &mut out)?;
//! assert_eq!(out, [14; 4]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A text becomes a tree ([`ptx`](self)), the tree instructions over register slots, and those run a warp at a
//! time. Knows nothing of models, graphs or kernel families, and of devices only the rows of `tgc-ir`'s table.
//! Reads no clock, no environment, no file.

#![deny(unsafe_op_in_unsafe_fn)]

mod check;
mod counters;
mod decode;
mod error;
mod exec;
mod memory;
mod module;
mod parameters;
mod ptx;

pub use check::{Finding, FindingKind, Site, SourcePlace};
pub use counters::{Counters, Occupancy, PcCount, Traffic, occupancy};
pub use error::{LaunchError, MemoryError, PtxError};
pub use exec::{Completion, LaunchOptions, LaunchShape, Report, launch};
pub use memory::{
    Interleave, Memory, Swizzle, TENSOR_MAP_BYTES, TensorElement, TensorMap, TensorMapError,
};
pub use module::{KernelInfo, Module, Variables};
pub use parameters::Parameters;
