//! `stoactl workload`: which workloads an agent steers, by its control socket.

use std::{
    io::{BufRead, BufReader, Write},
    net::IpAddr,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Map, Value, json};

use crate::Error;

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Subcommand)]
pub enum WorkloadCommand {
    /// Steer a workload's new connections through the agent from now on. Those that are open stay
    /// as they are, and nothing is restarted.
    Add(AddArguments),
    /// The workloads that are steered, and what became of their connections.
    List {
        /// As the agent tells it, with every counter.
        #[arg(long)]
        json: bool,
    },
    /// Steer a workload no longer: new connections reach the application directly.
    Remove {
        #[arg(required_unless_present = "all")]
        name: Option<String>,
        /// Every workload, whoever enrolled it: nothing stays attached.
        #[arg(long, conflicts_with = "name")]
        all: bool,
    },
}

#[derive(Args)]
pub struct AddArguments {
    /// What to call it: letters, digits, `-`, `_`, `.` and `/`.
    name: String,
    /// The application's cgroup: a folder of the cgroup v2 tree.
    #[arg(long, value_name = "PATH")]
    cgroup: PathBuf,
    /// Its network namespace [default: that of a process in the cgroup].
    #[arg(long, value_name = "PATH")]
    netns: Option<PathBuf>,
    /// The ports that the application listens on.
    #[arg(long, value_name = "PORT", value_delimiter = ',', required = true)]
    ports: Vec<u16>,
    /// What becomes of new connections while no agent runs: `open` lets them through to the
    /// application, `closed` refuses them.
    #[arg(long, value_enum, default_value_t = FailMode::Open)]
    fail_mode: FailMode,
    /// The set of the agent's configuration that its HTTP requests go through [default: the set
    /// `default`; where there is none, everything passes untouched].
    #[arg(long, value_name = "SET", visible_alias = "policy")]
    policies: Option<String>,
    /// Steer the connections that it makes as well.
    #[arg(long)]
    outbound: bool,
    /// The set that HTTP requests of those go through [default: everything passes untouched].
    #[arg(long, value_name = "SET", requires = "outbound")]
    outbound_policies: Option<String>,
    /// Whom it belongs to, for policies [default: the agent's tenant].
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// A health probe that passes without policies, if it comes from a node address:
    /// `8080/healthz`, or `POST:9000/grpc.health.v1.Health/Check`.
    #[arg(long = "probe", value_name = "[METHOD:]PORT/PATH", value_parser = parse_probe)]
    probes: Vec<Probe>,
    /// An address that the node's own probes come from.
    #[arg(long = "node-address", value_name = "IP")]
    node_addresses: Vec<IpAddr>,
}

#[derive(Clone)]
struct Probe {
    method: String,
    port: u16,
    path: String,
}

fn parse_probe(text: &str) -> Result<Probe, String> {
    let wrong = || {
        format!(
            "`{text}` is not a probe; write 8080/healthz or POST:9000/grpc.health.v1.Health/Check"
        )
    };
    let slash = text.find('/').ok_or_else(wrong)?;
    let (before, path) = text.split_at(slash);
    let (method, port) = before.split_once(':').unwrap_or(("GET", before));
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
    if method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return Err(wrong());
    }
    Ok(Probe { method: method.to_owned(), port, path: path.to_owned() })
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailMode {
    Open,
    Closed,
}

pub fn run(socket: &Path, command: WorkloadCommand, out: &mut impl Write) -> Result<(), Error> {
    match command {
        WorkloadCommand::Add(arguments) => {
            ask(socket, &json!({ "op": "add", "workload": workload(arguments)? })).map(|_| ())
        }
        WorkloadCommand::List { json } => {
            let answer = ask(socket, &json!({ "op": "list" }))?;
            let workloads = answer.get("workloads").cloned().unwrap_or_default();
            if json {
                writeln!(out, "{workloads:#}")?;
                return Ok(());
            }
            list(workloads.as_array().map_or(&[], Vec::as_slice), out)
        }
        WorkloadCommand::Remove { name: Some(name), .. } => {
            ask(socket, &json!({ "op": "remove", "name": name })).map(|_| ())
        }
        WorkloadCommand::Remove { name: None, .. } => {
            let answer = ask(socket, &json!({ "op": "remove_all" }))?;
            let removed = answer.get("removed").and_then(Value::as_u64).unwrap_or(0);
            writeln!(out, "removed {removed}")?;
            Ok(())
        }
    }
}

fn workload(arguments: AddArguments) -> Result<Value, Error> {
    let absolute =
        |path: PathBuf| std::path::absolute(&path).map_err(|source| Error::Open { path, source });
    let mut workload = Map::new();
    workload.insert("name".to_owned(), arguments.name.into());
    workload.insert("cgroup".to_owned(), json!(absolute(arguments.cgroup)?));
    if let Some(netns) = arguments.netns {
        workload.insert("netns".to_owned(), json!(absolute(netns)?));
    }
    workload.insert("ports".to_owned(), json!(arguments.ports));
    let fail_mode = if arguments.fail_mode == FailMode::Closed { "closed" } else { "open" };
    workload.insert("fail_mode".to_owned(), fail_mode.into());
    if arguments.outbound {
        workload.insert("outbound".to_owned(), true.into());
    }
    let names = [
        ("policies", arguments.policies),
        ("outbound_policies", arguments.outbound_policies),
        ("tenant", arguments.tenant),
    ];
    for (key, name) in names {
        if let Some(name) = name {
            workload.insert(key.to_owned(), name.into());
        }
    }
    if !arguments.probes.is_empty() {
        let probes = arguments.probes.into_iter().map(
            |Probe { method, port, path }| json!({ "method": method, "port": port, "path": path }),
        );
        workload.insert("probes".to_owned(), probes.collect());
    }
    if !arguments.node_addresses.is_empty() {
        workload.insert("node_addresses".to_owned(), json!(arguments.node_addresses));
    }
    Ok(workload.into())
}

fn list(workloads: &[Value], out: &mut impl Write) -> Result<(), Error> {
    let text = |workload: &Value, key: &str| {
        workload.get(key).and_then(Value::as_str).unwrap_or("?").to_owned()
    };
    let width =
        workloads.iter().map(|w| text(w, "name").len()).max().unwrap_or(0).max("WORKLOAD".len());
    writeln!(
        out,
        "{:width$}  {:6}  {:>6}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:12}  PORTS",
        "WORKLOAD", "FAIL", "OPEN", "CONNECTED", "HTTP", "OTHER", "PASSED", "DENIED", "POLICIES"
    )?;
    for workload in workloads {
        let number = |pointer: String| workload.pointer(&pointer).and_then(Value::as_u64);
        let count = |key: &str| number(format!("/connections/{key}")).unwrap_or(0);
        let requests = |key: &str| number(format!("/requests/{key}")).unwrap_or(0);
        let ports = workload.get("ports").and_then(Value::as_array);
        let ports: Vec<_> = ports.into_iter().flatten().map(Value::to_string).collect();
        writeln!(
            out,
            "{:width$}  {:6}  {:>6}  {:>10}  {:>10}  {:>10}  {:>10}  {:>10}  {:12}  {}",
            text(workload, "name"),
            text(workload, "fail_mode"),
            count("open"),
            count("accepted"),
            count("http1") + count("http2"),
            count("tls") + count("other"),
            requests("passed"),
            requests("denied") + requests("withheld"),
            workload.get("policies").and_then(Value::as_str).unwrap_or("-"),
            ports.join(",")
        )?;
    }
    Ok(())
}

fn ask(socket: &Path, request: &Value) -> Result<Value, Error> {
    let failed = |reason: String| {
        Error::Server(format!(
            "no answer at {}: {reason}. Does stoa-gateway run with --redirect-socket there, and are \
             you root? Another place is named with --socket",
            socket.display()
        ))
    };
    let stream = UnixStream::connect(socket).map_err(|e| failed(e.to_string()))?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(|e| failed(e.to_string()))?;
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    writeln!(stream.get_mut(), "{request}")
        .and_then(|()| stream.read_line(&mut line))
        .map_err(|e| failed(e.to_string()))?;
    let answer: Value = serde_json::from_str(&line).map_err(|e| failed(e.to_string()))?;
    match answer.get("error").and_then(Value::as_str) {
        Some(error) => Err(Error::Server(error.to_owned())),
        None => Ok(answer),
    }
}
