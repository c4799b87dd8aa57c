//! Compiled units, and the order in which their forms are tried.
//!
//! Knows no plan; the driver is behind a closure.

use bytes::Bytes;

use super::error::{CudaError, DriverFault};

/// No machine code for this GPU (`CUDA_ERROR_NO_BINARY_FOR_GPU`).
const NO_BINARY: u32 = 209;
/// Made by a newer compiler than the driver knows (`CUDA_ERROR_UNSUPPORTED_PTX_VERSION`).
const UNSUPPORTED_VERSION: u32 = 222;

/// A compiled translation unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Module {
    /// For messages: its path in the engine.
    pub name: String,
    /// Machine code; empty when there is none.
    pub cubin: Bytes,
    /// PTX text; empty when there is none.
    pub ptx: Bytes,
}

/// Loads machine code; PTX when there is none or the driver says that it is for another GPU or compiler.
pub(super) fn load<M>(
    module: &Module,
    load: impl Fn(&[u8]) -> Result<M, DriverFault>,
) -> Result<M, CudaError> {
    let unit = || module.name.clone();
    let first = match (module.cubin.is_empty(), module.ptx.is_empty()) {
        (true, true) => return Err(CudaError::NoCode { unit: unit() }),
        (true, false) => &module.ptx,
        (false, _) => &module.cubin,
    };
    let fault = match load(first) {
        Ok(loaded) => return Ok(loaded),
        Err(fault) => Box::new(fault),
    };
    let is_foreign = matches!(fault.code, NO_BINARY | UNSUPPORTED_VERSION);
    if !is_foreign || module.cubin.is_empty() || module.ptx.is_empty() {
        return Err(CudaError::Load { unit: unit(), cubin: fault, ptx: None });
    }
    load(&module.ptx).map_err(|ptx| CudaError::Load {
        unit: unit(),
        cubin: fault,
        ptx: Some(Box::new(ptx)),
    })
}
