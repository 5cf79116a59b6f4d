//! gatepost: parse the command line, run it, exit with its code.

use std::process::ExitCode;

fn main() -> ExitCode {
    gatepost::cli::run(std::env::args_os())
}
