//! From emitted kernels to NVRTC programs: which kernels share a translation unit, and its text.
//!
//! A program costs about 25 ms on top of its kernels, so all small kernels (loops, rows and their like)
//! of an engine share one; a contraction, convolution or attention has its own, so that they compile in
//! parallel.

use super::emit::Emitted;
use super::families::SKELETONS;
use super::nvrtc::Program;

/// Name under which every unit includes the prelude.
pub const PRELUDE_NAME: &str = "prelude.cuh";
/// Text of the prelude.
pub const PRELUDE: &str = include_str!("prelude.cuh");
/// Kernels of one shared unit; more would only serialise compilation.
const SHARED_KERNELS: usize = 24;

/// Which kernels go into which unit: lists of indices, in order.
pub fn group_units(emitted: &[Emitted]) -> Vec<Vec<usize>> {
    let (small, large): (Vec<usize>, Vec<usize>) =
        (0..emitted.len()).partition(|&n| emitted[n].skeletons.is_empty());
    let shared = small.chunks(SHARED_KERNELS).map(<[usize]>::to_vec);
    shared.chain(large.into_iter().map(|n| vec![n])).collect()
}

/// The text of a unit: what it includes, then its kernels.
pub fn unit_text(kernels: &[&Emitted]) -> String {
    let mut text = format!("#include \"{PRELUDE_NAME}\"\n");
    for (name, _) in
        SKELETONS.iter().filter(|(name, _)| kernels.iter().any(|k| k.skeletons.contains(name)))
    {
        text.push_str(&format!("#include \"{name}\"\n"));
    }
    for kernel in kernels {
        text.push('\n');
        text.push_str(&kernel.text);
    }
    text
}

/// The headers that any unit may include: name and text.
pub fn headers() -> Vec<(String, String)> {
    let own = |(name, text): (&str, &str)| (name.to_owned(), text.to_owned());
    std::iter::once((PRELUDE_NAME, PRELUDE)).chain(SKELETONS).map(own).collect()
}

/// The NVRTC program of a unit for one architecture; it carries the headers that its text includes.
pub fn program(name: &str, arch: &str, kernels: &[&Emitted]) -> Program {
    let source = unit_text(kernels);
    let used =
        headers().into_iter().filter(|(name, _)| source.contains(&format!("#include \"{name}\"")));
    let (name, arch) = (name.to_owned(), arch.to_owned());
    Program { name, headers: used.collect(), source, arch, line_info: false }
}
