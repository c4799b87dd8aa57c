//! What can be wrong before a kernel runs: its text, and what a launch asks for.
//!
//! What a running kernel does wrong is a finding, not an error.

use thiserror::Error;

/// A fault of a PTX text, with the line that shows it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("PTX line {line}: {message}")]
pub struct PtxError {
    /// Line of the PTX text, from 1.
    pub line: u32,
    /// What is wrong with it.
    pub message: String,
}

impl PtxError {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> PtxError {
        PtxError { line, message: message.into() }
    }
}

/// Why memory is not given or not reached by the host.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemoryError {
    /// More than the limit that the memory was made with.
    #[error("an allocation of {bytes} bytes exceeds the limit: {used} of {limit} bytes are in use")]
    Limit {
        /// Asked for.
        bytes: u64,
        /// In use already.
        used: u64,
        /// May be in use.
        limit: u64,
    },
    /// The range lies in no allocation.
    #[error("{bytes} bytes at {address:#x} lie in no allocation")]
    Range {
        /// First byte.
        address: u64,
        /// Length.
        bytes: u64,
    },
}

/// Why a launch cannot begin.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// The module has no such entry.
    #[error("the module has no kernel `{0}`")]
    NoKernel(String),
    /// Grid, block or cluster are outside what the device or the kernel allows.
    #[error("kernel `{kernel}`: {why}")]
    Shape {
        /// Entry.
        kernel: String,
        /// What is wrong.
        why: String,
    },
    /// Parameters are too few or too many.
    #[error("kernel `{kernel}` takes {expected} bytes of parameters, {given} given")]
    Parameters {
        /// Entry.
        kernel: String,
        /// Size of its parameters.
        expected: usize,
        /// Size of what was given.
        given: usize,
    },
    /// Shared or local memory of one worker would exceed the limit.
    #[error("kernel `{kernel}`: {bytes} bytes for one block exceed the limit of {limit}")]
    Memory {
        /// Entry.
        kernel: String,
        /// Needed by one group of blocks.
        bytes: u64,
        /// May be used.
        limit: u64,
    },
    /// The module's variables were not placed in this memory.
    #[error(transparent)]
    Variables(#[from] MemoryError),
}
