//! Any text is read or refused, and what is read runs within its limits: `cargo +nightly fuzz run ptx`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tgc_simulator::{LaunchOptions, LaunchShape, Memory, Module, launch};

fuzz_target!(|text: &str| {
    let Ok(module) = Module::parse(text) else { return };
    let mut memory = Memory::new(1 << 20);
    let Ok(variables) = module.place_variables(&mut memory) else { return };
    let options =
        LaunchOptions { step_limit: 2_000, memory_limit: 1 << 26, threads: 1, ..LaunchOptions::default() };
    for kernel in module.kernels() {
        let parameters = vec![0x70; kernel.parameter_bytes as usize];
        let shape = LaunchShape::linear(1, kernel.max_threads.unwrap_or(64).clamp(1, 64), 0);
        let _ = launch(&module, &variables, &kernel.name, &memory, &shape, &parameters, &options);
    }
});
