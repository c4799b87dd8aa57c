//! Rates of the simulator on one core: `cargo run --release -p tgc-simulator --example throughput [FILE KERNEL BLOCKS THREADS]`.
//!
//! Without arguments, loops written here; with them, a kernel whose parameters are all addresses of zeroed
//! buffers of 64 MiB, which runs as far as that takes it.

use std::time::Instant;

use tgc_simulator::{LaunchOptions, LaunchShape, Memory, Module, Parameters, launch};

/// A loop of a thousand rounds around a body.
fn text(setup: &str, body: &str) -> String {
    format!(
        ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry k(.param .u64 p)\n{{\n\
         .reg .pred %p<4>;\n.reg .b32 %r<32>;\n.reg .f32 %f<32>;\n.reg .b64 %rd<8>;\n\
         .shared .align 128 .b8 room[16384];\n\
         ld.param.u64 %rd1, [p];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\nadd.s64 %rd3, %rd1, %rd2;\n\
         shl.b32 %r2, %r1, 4;\nmov.u32 %r3, room;\nadd.s32 %r2, %r2, %r3;\nmov.u32 %r4, 0;\n\
         cvt.rn.f32.u32 %f1, %r1;\nmov.f32 %f2, %f1;\nmov.f32 %f3, %f1;\nmov.f32 %f4, %f1;\n\
         mov.b32 %r10, 0;\nmov.b32 %r11, 0;\nmov.b32 %r12, 0;\nmov.b32 %r13, 0;\n{setup}\n\
         again:\n{body}\nadd.s32 %r4, %r4, 1;\nsetp.lt.u32 %p1, %r4, 1000;\n@%p1 bra again;\n\
         st.global.f32 [%rd3], %f1;\nret;\n}}"
    )
}

fn measure(
    name: &str,
    text: &str,
    kernel: &str,
    shape: &LaunchShape,
) -> Result<(), Box<dyn std::error::Error>> {
    let module = Module::parse(text)?;
    for checks in [true, false] {
        let mut memory = Memory::new(1 << 32);
        let variables = module.place_variables(&mut memory)?;
        let info = module.kernel(kernel).ok_or("no such kernel")?;
        let mut parameters = Parameters::new();
        for (_, bytes) in &info.parameters {
            parameters = match bytes {
                8 => parameters.u64(memory.allocate_from(&vec![0; 1 << 26])?),
                n => parameters.aligned(&vec![0; *n as usize], 4),
            };
        }
        let options =
            LaunchOptions { checks, threads: 1, step_limit: 1 << 26, ..LaunchOptions::default() };
        let start = Instant::now();
        let report =
            launch(&module, &variables, kernel, &memory, shape, parameters.bytes(), &options)?;
        let seconds = start.elapsed().as_secs_f64();
        let counters = &report.counters;
        println!(
            "{name:24} checks {checks:5}  {:8.1} M warp instructions/s  {:6.2} G multiply-adds/s  {} findings",
            counters.warp_instructions as f64 / seconds / 1e6,
            counters.matrix_multiply_adds as f64 / seconds / 1e9,
            report.findings.len(),
        );
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [file, kernel, blocks, threads] = &arguments[..] {
        let shape = LaunchShape::linear(blocks.parse()?, threads.parse()?, 0);
        return measure(kernel, &std::fs::read_to_string(file)?, kernel, &shape);
    }
    let fma = "fma.rn.f32 %f1, %f1, %f2, %f3;\nadd.s32 %r5, %r4, %r1;\n".repeat(16);
    let memory = "ld.global.f32 %f2, [%rd3];\nadd.f32 %f1, %f1, %f2;\nst.global.f32 [%rd3], %f1;\n"
        .repeat(4);
    let shared = "ld.shared.v4.f32 {%f1, %f2, %f3, %f4}, [%r2];\nst.shared.v4.f32 [%r2], {%f4, %f3, %f2, %f1};\n".repeat(4);
    let fill = "st.shared.v4.f32 [%r2], {%f1, %f1, %f1, %f1};\nbar.sync 0;";
    let product = "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1, %f2, %f3, %f4}, {%r10, %r11, %r12, %r13}, {%r10, %r11}, {%f1, %f2, %f3, %f4};\n".repeat(8);
    let tile = format!(
        "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {{%r10, %r11, %r12, %r13}}, [%r2];\n{product}"
    );
    let shape = LaunchShape::linear(1, 512, 0);
    measure("arithmetic", &text("", &fma), "k", &shape)?;
    measure("global memory", &text("", &memory), "k", &shape)?;
    measure("shared memory", &text(fill, &shared), "k", &shape)?;
    measure("mma.sync", &text("", &product), "k", &shape)?;
    measure("ldmatrix and mma.sync", &text(fill, &tile), "k", &shape)
}
