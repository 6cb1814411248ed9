//! What the tests of steering share: an agent with a control socket, a server that says who asks,
//! and load that counts what fails.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::{Agent, AgentOptions, Sandbox, command, http, http::Connection};
use serde_json::{Value, json};

use crate::{
    markers::sha256,
    servers::{PORT, python},
};

/// A server in Python that answers with what it was asked, on [`PORT`]; its process.
pub fn serve_seen(sandbox: &mut Sandbox) -> Result<u32> {
    let mut server = sandbox.command(python());
    server.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/servers/seen.py")).arg(PORT.to_string());
    sandbox.serve("seen", server, PORT)
}

/// An agent that steers. It watches nothing: `Inline` needs no traffic.
pub fn start_agent(dir: &Path, name: &str) -> Result<Agent> {
    Agent::start(&options(dir, name))
}

/// The options of [`start_agent`]; agents of one `dir` have one control socket.
pub fn options(dir: &Path, name: &str) -> AgentOptions {
    let mut options = AgentOptions::ebpf(&dir.join(name))
        .flag("--target", "http://127.0.0.1:1")
        .flag("--inline-listen", "127.0.0.1:0")
        .flag("--redirect-socket", socket(dir));
    options.capture = "Inline".to_owned();
    options
}

/// The same, with a configuration file `config.yaml` in `dir`.
pub fn options_with(dir: &Path, name: &str, configuration: &str) -> Result<AgentOptions> {
    let file = dir.join("config.yaml");
    fs::write(&file, configuration)?;
    Ok(options(dir, name).flag("--config", file))
}

/// An agent that steers, with policies.
pub fn start_with(dir: &Path, configuration: &str) -> Result<Agent> {
    Agent::start(&options_with(dir, "agent", configuration)?)
}

/// The key that [`members`] lets in.
pub const KEY: &str = "a key of the tests, long enough";

/// A set of policies that lets in who has the key, and `more` sets.
pub fn members(more: &str) -> String {
    let hash = sha256(KEY.as_bytes());
    format!(
        "policies:\n  members:\n    identity:\n      methods:\n        - api_key: \
         {{keys: [{{name: tests, sha256: {hash}}}]}}\n{more}"
    )
}

/// Tells it to stop, and waits until it has.
pub fn stop_agent(mut agent: Agent) -> Result<()> {
    agent.process().signal("TERM")?;
    let status = agent.process().wait(Duration::from_secs(60))?;
    ensure!(status.success(), "the agent ended with {status}:\n{}", agent.stderr());
    Ok(())
}

pub fn socket(dir: &Path) -> PathBuf {
    dir.join("redirect.sock")
}

/// `stoactl workload ...`
pub fn stoactl(dir: &Path, words: &[&str]) -> Result<String> {
    let mut stoactl = Command::new(sandbox::binaries()?.join("stoactl"));
    stoactl.arg("workload").args(words).arg("--socket").arg(socket(dir));
    command::run(&mut stoactl)
}

pub fn add(dir: &Path, name: &str, place: &Sandbox, ports: &str, fail_mode: &str) -> Result<()> {
    let cgroup = place.cgroup().to_string_lossy();
    stoactl(dir, &["add", name, "--cgroup", &cgroup, "--ports", ports, "--fail-mode", fail_mode])?;
    Ok(())
}

/// Enrols the service on [`PORT`] with more options.
pub fn add_with(dir: &Path, name: &str, place: &Sandbox, more: &[&str]) -> Result<()> {
    let (cgroup, port) = (place.cgroup().to_string_lossy(), PORT.to_string());
    let words = ["add", name, "--cgroup", &cgroup, "--ports", &port];
    stoactl(dir, &[&words[..], more].concat())?;
    Ok(())
}

/// A number of `stoactl workload list --json`, such as `/connections/http1`.
pub fn count(dir: &Path, name: &str, pointer: &str) -> Result<u64> {
    let list: Value = serde_json::from_str(&stoactl(dir, &["list", "--json"])?)?;
    let workloads = list.as_array().context("not a list")?;
    let workload = workloads.iter().find(|w| w["name"] == name).context("it is not listed")?;
    workload.pointer(pointer).and_then(Value::as_u64).context("no such number")
}

/// Who a server says is asking, by `accept` and by `getpeername`; and who really is.
pub struct Seen {
    pub accepted: (IpAddr, u16),
    pub peer: (IpAddr, u16),
    pub client: SocketAddr,
}

impl Seen {
    pub fn ask(server: SocketAddr) -> Result<Self> {
        let patience = sandbox::patience(Duration::from_secs(5));
        let mut stream = TcpStream::connect_timeout(&server, patience)?;
        stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
        stream.write_all(b"who?\n")?;
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line)?;
        let mut parts = line.split('|');
        let mut end = || -> Result<(IpAddr, u16)> {
            let text = parts.next().context("no address")?;
            let (ip, port) = text.split_once(' ').context("no port")?;
            Ok((ip.parse::<IpAddr>()?.to_canonical(), port.parse()?))
        };
        Ok(Self { accepted: end()?, peer: end()?, client: stream.local_addr()? })
    }

    pub fn check(&self) -> Result<()> {
        let client = (self.client.ip().to_canonical(), self.client.port());
        ensure!(self.accepted == client, "accept() told {:?}, not {client:?}", self.accepted);
        ensure!(self.peer == client, "getpeername() told {:?}, not {client:?}", self.peer);
        Ok(())
    }
}

/// Compiles the server of `servers/peer.c`.
pub fn peer_program(dir: &Path) -> Result<PathBuf> {
    let program = dir.join("peer");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/peer.c");
    // Beside the linker that Rust needs anyway.
    command::run(Command::new("cc").args(["-O1", "-Wall", "-o"]).arg(&program).arg(source))?;
    Ok(program)
}

/// Requests without end, over connections that are kept and over new ones.
pub struct Load {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
    answered: Arc<AtomicU64>,
    failures: Arc<Mutex<VecDeque<String>>>,
}

impl Load {
    pub fn start(server: SocketAddr, path: &'static str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let failures = Arc::new(Mutex::new(VecDeque::new()));
        let mut threads = Vec::new();
        for is_kept in [true, false, false] {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            let failures = Arc::clone(&failures);
            threads.push(std::thread::spawn(move || {
                let mut kept = None;
                while !stop.load(Ordering::Relaxed) {
                    let result = match is_kept {
                        true => exchange_kept(&mut kept, server, path),
                        false => http::get(server, path).map(|reply| reply.status),
                    };
                    match result {
                        Ok(200) => _ = answered.fetch_add(1, Ordering::Relaxed),
                        other => {
                            let mut failures = failures.lock().expect("no thread panics with it");
                            failures.push_back(format!("kept: {is_kept}: {other:?}"));
                            failures.truncate(10);
                        }
                    }
                }
            }));
        }
        Self { stop, threads, answered, failures }
    }

    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until `more` requests have been answered from now on.
    pub fn wait_for(&self, more: u64) -> Result<()> {
        let wanted = self.answered() + more;
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(30));
        while self.answered() < wanted {
            if Instant::now() > deadline {
                bail!("the load has stalled at {} of {wanted}", self.answered());
            }
            sandbox::pause(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Ends, and fails if a single request has failed.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().map_err(|_| anyhow::anyhow!("a thread of the load panicked"))?;
        }
        let failures = self.failures.lock().expect("no thread panics with it");
        ensure!(failures.is_empty(), "failed requests: {failures:?}");
        Ok(self.answered.load(Ordering::Relaxed))
    }
}

/// A server may close a connection that is kept when it likes, between two requests: that the next
/// one opens another is no failure.
fn exchange_kept(
    kept: &mut Option<Connection>,
    server: SocketAddr,
    path: &str,
) -> std::io::Result<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(server)?,
    };
    let reply = connection.exchange("GET", path, &[("Host", "test")], b"")?;
    if !reply.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")) {
        *kept = Some(connection);
    }
    Ok(reply.status)
}

/// The control socket, spoken to as a controller does.
pub struct Control(BufReader<UnixStream>);

impl Control {
    pub fn open(dir: &Path) -> Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(socket(dir))?)))
    }

    pub fn ask(&mut self, request: &Value) -> Result<Value> {
        writeln!(self.0.get_mut(), "{request}")?;
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    pub fn add(&mut self, name: &str, cgroup: &Path, netns: &Path, port: u16) -> Result<Value> {
        let workload = json!({ "name": name, "cgroup": cgroup, "netns": netns, "ports": [port] });
        self.ask(&json!({ "op": "add", "workload": workload }))
    }
}

/// What is pinned by agents with this control socket.
pub fn pins(dir: &Path) -> Vec<PathBuf> {
    let name: String = socket(dir)
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    let mut found = Vec::new();
    let root = Path::new("/sys/fs/bpf/stoa-gateway");
    for version in fs::read_dir(root).into_iter().flatten().flatten() {
        let instance = version.path().join(&name);
        for run in fs::read_dir(instance).into_iter().flatten().flatten() {
            found.push(run.path());
            let pins = fs::read_dir(run.path()).into_iter().flatten().flatten();
            found.extend(pins.map(|pin| pin.path()));
        }
    }
    found
}

/// Everything until the other side ends.
pub fn read_to_end(mut stream: &TcpStream) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    Ok(bytes)
}
