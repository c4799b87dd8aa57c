//! Project automation: `cargo xtask <command>`.
//!
//! Calls cargo, pip and the built `tgc`; links none of the project's crates, so that it works when they do not compile.

mod bundle;
mod check;
mod demo;
mod docs;
mod setup;
mod shell;
mod tidy;

use std::process::ExitCode;

const USAGE: &str = "cargo xtask <command>

  demo                compile the shipped model, show a kernel, run it on every device present
  test [--all]        format, lints and every test; --all adds every model of the corpus on the cpu device
  tidy                crate edges, module docs, change-cost probes, paths and sizes
  docs [--check]      write (or compare) the tables under docs/reference
  setup               fetch NVRTC and the official ONNX cases into target/
  gpu-bundle [CASE…]  pack binary, engines and data for a machine with a GPU and no Rust
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let rest: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    let result = match (args.first().map(String::as_str), rest.as_slice()) {
        (Some("demo"), []) => demo::demo(),
        (Some("test"), []) => check::run(false),
        (Some("test"), ["--all"]) => check::run(true),
        (Some("tidy"), []) => tidy::run(),
        (Some("docs"), []) => docs::write(),
        (Some("docs"), ["--check"]) => docs::check(),
        (Some("setup"), []) => {
            setup::run().report();
            Ok(())
        }
        (Some("gpu-bundle"), cases) => bundle::run_bundle(cases),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
