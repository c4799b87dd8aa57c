//! tgc, a tensor graph compiler: an ONNX model in, an engine out.
//!
//! This crate is the façade. [`Session`] runs the stages (import, passes, cut,
//! lowering, CUDA, plan, verification) and makes an [`runtime::engine::Engine`];
//! [`device::open`] runs one. The stages themselves are the crates re-exported
//! here.
//!
//! ```no_run
//! let outcome = tgc::Session::new(tgc::Options::default()).compile("model.onnx".as_ref())?;
//! outcome.engine.write("model.tgc".as_ref())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub use tgc_codegen as codegen;
pub use tgc_ir as ir;
pub use tgc_onnx as onnx;
pub use tgc_passes as passes;
pub use tgc_runtime as runtime;

pub mod device;
pub mod inputs;
pub mod npy;
pub mod reduce;
pub mod session;
mod states;
pub mod statistics;
pub mod tolerance;
pub mod verify;

pub use session::{Failure, Kind, Options, Outcome, Session};
