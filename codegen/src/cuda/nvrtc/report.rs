//! Reads the assembler's report (`--ptxas-options=-v`) out of a program log.
//!
//! Text in, figures out; knows no library and no kernel program.

use serde::{Deserialize, Serialize};

/// Assembler figures of one kernel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelReport {
    /// Entry name.
    pub name: String,
    /// Registers per thread.
    pub registers: u32,
    /// Spill stores plus spill loads, bytes per thread.
    pub spill_bytes: u32,
    /// Local stack, bytes per thread.
    pub stack_bytes: u32,
    /// Static shared memory, bytes per block.
    pub shared_bytes: u32,
}

/// Drops the lines that hold wall-clock times, so that equal programs have equal logs.
pub(super) fn without_times(log: &str) -> String {
    log.lines()
        .filter(|line| !line.contains("Compile time"))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Kernel figures in the order of the log, and the assembler's performance warnings (C75xx), which reject a
/// candidate.
pub fn parse_log(log: &str) -> (Vec<KernelReport>, Vec<String>) {
    let mut kernels: Vec<KernelReport> = Vec::new();
    let mut warnings = Vec::new();
    for line in log.lines() {
        if let Some(name) = between(line, "Compiling entry function '", "'") {
            kernels.push(KernelReport {
                name: name.to_owned(),
                registers: 0,
                spill_bytes: 0,
                stack_bytes: 0,
                shared_bytes: 0,
            });
        } else if let Some(kernel) = kernels.last_mut() {
            read_figures(line, kernel);
        }
        if line.contains("(C75") {
            warnings.push(line.trim().to_owned());
        }
    }
    (kernels, warnings)
}

fn read_figures(line: &str, kernel: &mut KernelReport) {
    let part = |unit: &str| line.split(',').find_map(|part| number_before(part, unit));
    kernel.stack_bytes = part("bytes stack frame").unwrap_or(kernel.stack_bytes);
    kernel.spill_bytes +=
        part("bytes spill stores").unwrap_or(0) + part("bytes spill loads").unwrap_or(0);
    kernel.registers = part("registers").unwrap_or(kernel.registers);
    kernel.shared_bytes = part("bytes smem").unwrap_or(kernel.shared_bytes);
}

/// The number that stands before `unit`, as in `12 bytes smem`.
fn number_before(part: &str, unit: &str) -> Option<u32> {
    part.trim().strip_suffix(unit)?.trim_end().rsplit(' ').next()?.parse().ok()
}

fn between<'a>(line: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = line.find(before)? + before.len();
    let end = start + line[start..].find(after)?;
    Some(&line[start..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'gemm' for 'sm_90a'
ptxas info    : Function properties for gemm
    16 bytes stack frame, 12 bytes spill stores, 20 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers, 4096 bytes smem
ptxas info    : Compiling entry function 'tail' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 18 registers, used 0 barriers
ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized
";

    #[test]
    fn figures_are_read_per_kernel() {
        let (kernels, warnings) = parse_log(LOG);
        let figures: Vec<_> = kernels
            .iter()
            .map(|k| (k.name.as_str(), k.registers, k.spill_bytes, k.stack_bytes, k.shared_bytes))
            .collect();
        assert_eq!(figures, [("gemm", 255, 32, 16, 4096), ("tail", 18, 0, 0, 0)]);
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].contains("C7510"));
    }

    #[test]
    fn times_are_dropped() {
        assert_eq!(without_times("a\nptxas info : Compile time = 3 ms\nb\n"), "a\nb\n");
    }
}
