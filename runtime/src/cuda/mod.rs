//! The cuda device: plans on an NVIDIA GPU through the driver, which is
//! loaded at run time.
//!
//! A [`CudaEngine`] is immutable and shared: weights uploaded once, code
//! loaded once. A [`CudaInstance`] has one block of device memory (symbol
//! table, staged inputs and outputs, arena, workspace) and runs the plan's
//! steps on one stream at a time; what needs no host between is captured as
//! a graph per symbol binding and replayed as it is.
//!
//! The choice of launches and the host's work between them ([`steps`]) know
//! no driver; [`Machine`] has them run on something else, such as a simulator.
//!
//! Absent here: how kernels are made, and any other device to fall back to.

mod bind;
mod device;
mod engine;
mod error;
mod graphs;
mod instance;
mod launch;
mod layout;
mod machine;
mod module;
mod program;
mod raw;
mod run;
mod state;
mod steps;
#[cfg(test)]
mod tests;
mod transfer;

pub use device::{DeviceInfo, devices, is_present, runs_on};
pub use engine::{CudaEngine, Options};
pub use error::{CudaError, DriverFault};
pub use instance::CudaInstance;
pub use machine::{Machine, MachineInstance, MachineLaunch};
pub use module::Module;
pub use raw::{DevicePtr, StreamHandle};
