//! Predicted times and the choices that follow from them, over the device table.
//!
//! Knows figures of machines and shapes; knows no CUDA text. Every figure is a calculation from
//! [`tgc_ir::device_table`] and the constants here, which a measurement may refit; times rank
//! configurations and are not promises.

pub mod model;
pub mod tiles;
pub mod tuning;

use tgc_ir::device_table::Device;
use tgc_ir::{Dim, Facts};

/// Share of the memory bandwidth that a streaming kernel reaches.
pub const MEMORY_SHARE: f64 = 0.9;
/// Device time between two dependent kernels of a replayed graph, nanoseconds.
pub const LAUNCH_NS: f64 = 1300.0;
/// Extent that stands for a symbol without an upper bound.
const TYPICAL_EXTENT: i64 = 128;

/// The value of a dim when every symbol has its upper bound, or a typical extent when it has none.
pub fn typical(facts: &Facts, dim: &Dim) -> f64 {
    let value = dim.eval(&|symbol| {
        let bounds = facts.bounds_of(symbol);
        let low = bounds.map_or(1, |bounds| bounds.low);
        Some(bounds.and_then(|bounds| bounds.high).unwrap_or(TYPICAL_EXTENT).max(low))
    });
    value.map_or(1.0, |value| value.max(0) as f64)
}

/// Time of a kernel that moves `bytes` through memory and does little else, nanoseconds.
pub fn memory_bound_ns(device: &Device, bytes: f64) -> u64 {
    (bytes / (device.dram_gb_s * MEMORY_SHARE) + LAUNCH_NS).round() as u64
}

/// Time of a kernel limited by memory or by `flops` at a share of `tflops`, nanoseconds.
pub fn roofline_ns(device: &Device, bytes: f64, flops: f64, tflops: f64) -> u64 {
    let memory = bytes / (device.dram_gb_s * MEMORY_SHARE);
    let arithmetic = flops / (tflops * 1000.0);
    (memory.max(arithmetic) + LAUNCH_NS).round() as u64
}
