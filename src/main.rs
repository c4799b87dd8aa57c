//! The `tgc` command. Results go to stdout, everything else to stderr; exit
//! codes are documented in `--help`.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
