//! Which GPUs are here, and whether a plan's kernels run on one.
//!
//! Knows nothing of how plans run.

use super::error::{CudaError, DRIVER_MIN};
use super::raw;

/// What `tgc doctor` tells of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its number, for [`super::Options::device`].
    pub ordinal: u32,
    /// Name.
    pub name: String,
    /// Major and minor compute capability.
    pub capability: (u32, u32),
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Highest CUDA version that the driver speaks: 1000 × major + 10 × minor.
    pub driver_version: u32,
}

impl DeviceInfo {
    /// The target whose kernels use all of this GPU that tgc knows how to use, else the newest that it can run.
    #[must_use]
    pub fn best_target(&self) -> &'static str {
        let fitting =
            tgc_ir::device_table::DEVICES.iter().filter(|d| runs_on(d.target, self.capability));
        fitting.max_by_key(|d| d.capability).map_or("compute_80", |d| d.target)
    }
}

/// True when the CUDA driver's library loads.
#[must_use]
pub fn is_present() -> bool {
    raw::is_present()
}

/// Starts the driver; its version.
pub(super) fn start() -> Result<u32, CudaError> {
    if !raw::is_present() {
        return Err(CudaError::NoDriver);
    }
    let found = raw::start()?;
    if found < DRIVER_MIN {
        return Err(CudaError::OldDriver { found, needed: DRIVER_MIN });
    }
    Ok(found)
}

/// A GPU by its number.
pub(super) fn gpu(ordinal: u32) -> Result<raw::Gpu, CudaError> {
    start()?;
    let count = raw::device_count()?;
    if ordinal >= count {
        return Err(CudaError::NoDevice { ordinal, count });
    }
    Ok(raw::Gpu::get(ordinal)?)
}

/// Every GPU that the driver sees.
///
/// # Errors
/// [`CudaError::NoDriver`], [`CudaError::OldDriver`], or what the driver says.
pub fn devices() -> Result<Vec<DeviceInfo>, CudaError> {
    let driver_version = start()?;
    let describe = |ordinal| {
        let gpu = raw::Gpu::get(ordinal)?;
        Ok(DeviceInfo {
            ordinal,
            name: gpu.name()?,
            capability: gpu.capability()?,
            memory_bytes: gpu.memory_bytes()?,
            driver_version,
        })
    };
    (0..raw::device_count()?).map(describe).collect()
}

/// Whether code for a target runs on a GPU, as machine code or, for plain
/// targets, compiled from PTX by the driver.
///
/// `sm_90a` runs on 9.0 alone, `sm_100f` on every 10.x, `sm_80` and
/// `compute_80` on 8.0 and all later ones (PTX ISA, `.target`).
#[must_use]
pub fn runs_on(target: &str, capability: (u32, u32)) -> bool {
    let number = target.strip_prefix("sm_").or_else(|| target.strip_prefix("compute_"));
    let Some(number) = number else { return false };
    let kind = number.trim_start_matches(|c: char| c.is_ascii_digit());
    let Ok(number) = number[..number.len() - kind.len()].parse::<u32>() else { return false };
    let wanted = (number / 10, number % 10);
    match kind {
        "" => capability >= wanted,
        "a" => capability == wanted,
        "f" => capability.0 == wanted.0 && capability.1 >= wanted.1,
        _ => false,
    }
}
