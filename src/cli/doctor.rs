//! `tgc doctor`: what of this machine tgc can use, one screen to paste into an
//! issue; and where the environment is read.

use std::path::PathBuf;

use tgc::session::Failure;
use tgc_codegen::cuda::nvrtc::Nvrtc;

use super::Output;

/// Every environment variable that the binary reads.
const VARIABLES: &[(&str, &str)] = &[
    ("TGC_NVRTC", "folder with libnvrtc and its builtins"),
    ("TGC_CACHE", "folder of compiled kernels"),
    ("TGC_PYTHON", "Python with onnxruntime and numpy, for `tgc verify --against onnxruntime`"),
    ("TGC_LOG", "log filter, as of tracing (info, tgc_passes=debug)"),
];

fn variable(name: &str) -> Option<String> {
    debug_assert!(VARIABLES.iter().any(|(n, _)| *n == name), "{name} is not documented");
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// Folders in which NVRTC is looked for, in order.
pub(crate) fn nvrtc_folders() -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = Vec::new();
    out.extend(variable("TGC_NVRTC").map(PathBuf::from));
    let in_package =
        |base: PathBuf| [base.join("nvidia/cu13/lib"), base.join("nvidia/cuda_nvrtc/lib")];
    out.extend(in_package(PathBuf::from("target/nvrtc")));
    if let Ok(exe) = std::env::current_exe()
        && let Some(target) = exe.parent().and_then(|p| p.parent())
    {
        out.extend(in_package(target.join("nvrtc")));
    }
    out
}

/// The folder of compiled kernels.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    variable("TGC_CACHE").map(PathBuf::from).or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let base = base.or_else(|| std::env::home_dir().map(|h| h.join(".cache")));
        base.map(|b| b.join("tgc"))
    })
}

/// Prints the report.
pub(crate) fn run(output: &Output) -> Result<(), Failure> {
    let nvrtc = match Nvrtc::load(&nvrtc_folders()) {
        Ok(nvrtc) => format!("{} at {}", nvrtc.version(), nvrtc.path().display()),
        Err(e) => format!(
            "not found ({e}); `pip install --no-deps --target DIR nvidia-cuda-nvrtc==13.0.88`, then TGC_NVRTC=DIR/nvidia/cu13/lib"
        ),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let isa = format!("{:?}", tgc_runtime::cpu::Isa::best());
    let driver = if tgc_runtime::cuda::is_present() {
        "present"
    } else {
        "not present (libcuda.so.1 does not load)"
    };
    let cache = cache_folder().map_or_else(|| "none".to_owned(), |p| p.display().to_string());
    if output.json {
        let variables: serde_json::Map<String, serde_json::Value> = VARIABLES
            .iter()
            .map(|(n, _)| ((*n).to_owned(), serde_json::json!(variable(n))))
            .collect();
        output.document("tgc.doctor/1", serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"), "nvrtc": nvrtc, "cuda_driver": driver, "cpu_threads": threads,
            "cpu_isa": isa, "cache": cache, "operators": tgc_onnx::operators().count(), "environment": variables,
        }));
        return Ok(());
    }
    output.result(format_args!("tgc          {}", env!("CARGO_PKG_VERSION")));
    output.result(format_args!("cpu          {threads} threads, {isa}"));
    output.result(format_args!("CUDA driver  {driver}"));
    output.result(format_args!("NVRTC        {nvrtc}"));
    output.result(format_args!("cache        {cache}"));
    output.result(format_args!(
        "operators    {} of ONNX (`tgc operators`)",
        tgc_onnx::operators().count()
    ));
    output.result("environment");
    for (name, meaning) in VARIABLES {
        let value = variable(name).unwrap_or_else(|| "not set".to_owned());
        output.result(format_args!("  {name:<10} {value}  ({meaning})"));
    }
    Ok(())
}
