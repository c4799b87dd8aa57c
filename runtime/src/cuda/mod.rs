//! The cuda device: plans on an NVIDIA GPU through the driver, loaded at run
//! time.

/// True when the CUDA driver's library loads.
pub fn is_present() -> bool {
    // SAFETY: asks only whether the library can be opened; cudarc has no
    // preconditions for it.
    unsafe { cudarc::driver::sys::is_culib_present() }
}
