//! `stoa-gateway`: see `stoa-gateway --help`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    stoa_gateway::run(std::env::args_os(), std::env::vars_os())
}
