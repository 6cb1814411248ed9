//! The node agent: everything that does IO. The binary is a thin shell around [`run`].
// Only `capture/ebpf` and `redirect`, which talk to the kernel, may say `unsafe`.
#![deny(unsafe_code)]

pub mod admin;
pub mod capture;
pub mod catalog;
pub mod config;
pub mod drain;
pub mod enforcement;
pub mod http;
pub mod node;
pub mod proxy;
pub mod redirect;
pub mod shadow;
pub mod sidecar;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod uuid;
pub mod worker;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use config::ConfigError;

/// Runs the agent until it is told to stop. Exit codes: 0 stopped as asked, 1 it failed, 2 it was
/// configured wrongly.
pub fn run(
    arguments: impl IntoIterator<Item = OsString>,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> ExitCode {
    let variables = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let config = match config::load(arguments, variables) {
        Ok(config) => config,
        Err(ConfigError::Flags(error)) => {
            let code = error.exit_code();
            let _ = error.print();
            return ExitCode::from(u8::try_from(code).unwrap_or(2));
        }
        Err(error) => {
            let _ = writeln!(io::stderr(), "stoa-gateway: {error}");
            return ExitCode::from(2);
        }
    };
    telemetry::start_logs(&config.log_level, &config.log_format);
    match node::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "stoa-gateway: {error}");
            ExitCode::FAILURE
        }
    }
}
