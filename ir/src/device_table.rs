//! Figures of machines: one row per GPU, and how much of them a target may use.
//!
//! Sources: vendor data sheets; tensor figures cross-checked as
//! SMs × clock × flop/clock/SM. Everything here is a figure, nothing is code.

/// One GPU.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// Short name.
    pub name: &'static str,
    /// Target that its kernels are compiled for.
    pub target: &'static str,
    /// Compute capability, major and minor.
    pub capability: (u32, u32),
    /// Streaming multiprocessors.
    pub sms: u32,
    /// Boost clock in GHz.
    pub clock_ghz: f64,
    /// Shared memory per SM in KiB.
    pub shared_kib_sm: u32,
    /// Shared memory that one block may use, in bytes.
    pub shared_bytes_block: u32,
    /// Threads per SM.
    pub threads_sm: u32,
    /// L2 cache in MiB.
    pub l2_mib: u32,
    /// Memory bandwidth in GB/s.
    pub dram_gb_s: f64,
    /// Dense f16/bf16 with f32 accumulation in TFLOP/s.
    pub f16_tflops: f64,
    /// Dense TF32 in TFLOP/s.
    pub tf32_tflops: f64,
    /// f32 on plain cores in TFLOP/s.
    pub f32_tflops: f64,
    /// f64 on plain cores in TFLOP/s.
    pub f64_tflops: f64,
    /// Share of the f16 peak that `mma.sync` reaches.
    pub mma_sync_share: f64,
}

macro_rules! devices {
    ($($name:literal $target:literal $cc:expr, $sms:literal $ghz:literal $smem:literal $block:literal $threads:literal $l2:literal $dram:literal $f16:literal $tf32:literal $f32:literal $f64:literal $share:literal;)*) => {
        /// Every known GPU.
        pub const DEVICES: &[Device] = &[$(Device {
            name: $name, target: $target, capability: $cc, sms: $sms, clock_ghz: $ghz,
            shared_kib_sm: $smem, shared_bytes_block: $block, threads_sm: $threads, l2_mib: $l2,
            dram_gb_s: $dram, f16_tflops: $f16, tf32_tflops: $tf32, f32_tflops: $f32,
            f64_tflops: $f64, mma_sync_share: $share,
        }),*];
    };
}

// name target capability, SMs GHz KiB/SM bytes/block threads/SM L2 DRAM f16 tf32 f32 f64 share
devices! {
    "a100-sxm" "sm_80" (8, 0), 108 1.41 164 166912 2048 40 2039.0 312.0 156.0 19.5 9.7 1.0;
    "rtx-3090" "sm_86" (8, 6), 82 1.70 100 101376 1536 6 936.0 71.0 35.6 35.6 0.56 1.0;
    "orin-agx" "sm_87" (8, 7), 16 1.30 164 166912 1536 4 204.8 42.6 21.0 5.3 0.08 1.0;
    "l4" "sm_89" (8, 9), 58 2.04 100 101376 1536 48 300.0 121.0 60.0 30.0 0.47 1.0;
    "rtx-4090" "sm_89" (8, 9), 128 2.52 100 101376 1536 72 1008.0 165.0 83.0 82.6 1.29 1.0;
    "h100-sxm" "sm_90a" (9, 0), 132 1.83 228 232448 2048 50 3352.0 989.0 495.0 67.0 34.0 0.63;
    "h200-sxm" "sm_90a" (9, 0), 132 1.83 228 232448 2048 50 4800.0 989.0 495.0 67.0 34.0 0.63;
    "b200" "sm_100a" (10, 0), 148 1.86 228 232448 2048 126 8000.0 2250.0 1125.0 75.0 37.0 0.4;
    "rtx-5090" "sm_120" (12, 0), 170 2.41 100 101376 1536 96 1792.0 210.0 105.0 105.0 1.64 1.0;
}

impl Device {
    /// The row that stands for a target when nothing else is said (the last of
    /// the rows with that target).
    pub fn for_target(target: &str) -> Option<&'static Device> {
        DEVICES.iter().rev().find(|d| d.target == target)
    }

    /// The row of a name.
    pub fn named(name: &str) -> Option<&'static Device> {
        DEVICES.iter().find(|d| d.name == name)
    }
}

/// CUDA targets that kernels can be compiled for, oldest first.
pub fn cuda_targets() -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for device in DEVICES {
        if !out.contains(&device.target) {
            out.push(device.target);
        }
    }
    out
}
