//! `stoactl`: contracts of a running agent, and the agent's reading applied to files.
#![forbid(unsafe_code)]

mod contracts;
mod exchanges;
mod infer;
mod input;
mod workload;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Parser, Subcommand, ValueEnum};

/// Reads HTTP traffic out of capture files, and contracts out of a running stoa-gateway.
#[derive(Parser)]
#[command(
    name = "stoactl",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 it failed, and stderr says why; 2 wrong usage."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Infer the contract of every service in a pcap, pcapng or HAR file.
    ///
    /// Without --format, each service's OpenAPI (YAML and JSON) and UAC are written to --output,
    /// and a summary is printed. With --format alone, that document is printed instead.
    /// Personal data in the file is masked; nothing of it is in what is written.
    Infer(InferArguments),
    /// List the exchanges that the reader sees in a pcap, pcapng or HAR file, one a line.
    ///
    /// Bodies and header values are not shown, but request targets are, as they were sent.
    Exchanges {
        /// The file; `-` reads standard input.
        file: PathBuf,
        /// One JSON object a line: connection, method, target, status, header names, body lengths
        /// and SHA-256 before and after content decoding, what is missing and why.
        #[arg(long)]
        json: bool,
    },
    /// Contracts that a running stoa-gateway has inferred.
    Contracts {
        /// Where the agent's API is.
        #[arg(long, global = true, env = "STOA_SERVER", default_value = "http://127.0.0.1:8083")]
        server: String,
        #[command(subcommand)]
        command: ContractsCommand,
    },
    /// Workloads whose connections a stoa-gateway on this host steers through its policies.
    Workload {
        /// The agent's control socket, its --redirect-socket.
        #[arg(
            long,
            global = true,
            env = "STOA_REDIRECT_SOCKET",
            default_value = "/run/stoa-gateway/redirect.sock"
        )]
        socket: PathBuf,
        #[command(subcommand)]
        command: workload::WorkloadCommand,
    },
}

#[derive(Subcommand)]
enum ContractsCommand {
    /// The services that the agent watches, and what it knows of each.
    List,
    /// Print the contract of one service.
    Show {
        /// The service's name, as `list` shows it.
        name: String,
        #[arg(long, value_enum, default_value_t = Format::OpenapiYaml)]
        format: Format,
    },
}

#[derive(clap::Args)]
struct InferArguments {
    /// The file; `-` reads standard input.
    file: PathBuf,
    /// Directory to write contracts to [default: contracts].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Only this document: printed, or written where --output is given.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Only this service of those in the file; or, where the file has one, the name to give it.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Tenant that the contracts belong to.
    #[arg(long, default_value = "default")]
    tenant: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    OpenapiYaml,
    OpenapiJson,
    Uac,
    Summary,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot open {}: {source}", .path.display())]
    Open { path: PathBuf, source: io::Error },
    #[error("{}: {source}", .path.display())]
    Read { path: PathBuf, source: stoa_wire::Error },
    #[error("{}: no HTTP exchange in it: {why}", .path.display())]
    NoExchange { path: PathBuf, why: String },
    #[error("there is no service `{name}` in the file; there are: {there}")]
    NoService { name: String, there: String },
    #[error(
        "`{0}` cannot name a service: use 1 to 63 of a-z, 0-9, `-`, `_` and `.`, beginning with a letter or a digit"
    )]
    ServiceName(String),
    #[error("cannot write {}: {source}", .path.display())]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot print: {0}")]
    Print(#[from] io::Error),
    #[error("{0}")]
    Server(String),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut out = io::BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let result = match arguments.command {
        Command::Infer(arguments) => infer::run(&arguments, &mut out),
        Command::Exchanges { file, json } => exchanges::run(&file, json, &mut out),
        Command::Workload { socket, command } => workload::run(&socket, command, &mut out),
        Command::Contracts { server, command } => match command {
            ContractsCommand::List => contracts::list(&server, &mut out),
            ContractsCommand::Show { name, format } => {
                contracts::show(&server, &name, format, &mut out)
            }
        },
    };
    match result.and_then(|()| out.flush().map_err(Error::Print)) {
        Ok(()) => ExitCode::SUCCESS,
        // `stoactl ... | head`: the reader has what it wanted.
        Err(Error::Print(e)) if e.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "stoactl: {error}");
            ExitCode::FAILURE
        }
    }
}
