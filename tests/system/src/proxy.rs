//! A running proxy, and the real programs that it enforces policies with.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use sandbox::{
    Process,
    http::{Connection, Reply, get},
    pause,
};
use serde_json::Value;

use crate::decisions::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);

/// A running `stoa-gateway --mode proxy`.
#[derive(Debug)]
pub struct Proxy {
    process: Process,
    pub address: SocketAddr,
    admin: SocketAddr,
}

impl Proxy {
    /// `name` tells several of one test apart; `config` is its YAML file. What it keeps is below
    /// `dir`, whatever its name.
    pub fn start(dir: &Path, name: &str, config: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let file = dir.join(format!("{name}.yaml"));
        fs::write(&file, config)?;
        let mut command = Command::new(sandbox::binaries()?.join("stoa-gateway"));
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with("STOA_") {
                command.env_remove(variable);
            }
        }
        command.args(["--mode=proxy", "--host=127.0.0.1", "--port=0", "--admin-port=0"]);
        command.args(["--log-format=json", "--access-log=off", "--config"]).arg(file);
        command.arg("--state-dir").arg(dir.join("state")).envs(variables.iter().copied());
        let mut process = Process::start(name, command, &dir.join("logs"))?;
        let mut listens = None;
        let log = dir.join("logs").join(format!("{name}.err"));
        wait_until(&mut process, || {
            listens = addresses(&fs::read_to_string(&log).unwrap_or_default());
            listens.is_some()
        })?;
        let (address, admin) = listens.context("it does not listen")?;
        Ok(Self { process, address, admin })
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// As `kill -9` and a crash end it.
    pub fn kill(mut self) -> Result<()> {
        self.process.signal("KILL")?;
        self.process.wait(PATIENCE)?;
        Ok(())
    }

    pub fn stop(mut self) -> Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait(PATIENCE)?;
        ensure!(status.success(), "the proxy ended with {status}:\n{}", self.process.stderr());
        Ok(())
    }

    /// One request on a connection of its own.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        let headers = [headers, &[("Connection", "close")]].concat();
        Ok(Connection::open(self.address)?.exchange(method, target, &headers, b"")?)
    }

    pub fn get(&self, target: &str) -> Result<Reply> {
        self.ask("GET", target, &[])
    }

    /// How many of so many requests pass.
    pub fn count_passed(&self, requests: usize) -> Result<usize> {
        let mut passed = 0;
        for _ in 0..requests {
            passed += usize::from(self.get("/")?.status == 200);
        }
        Ok(passed)
    }

    /// `/health/ready`, by a JSON pointer.
    pub fn health(&self, pointer: &str) -> Result<Value> {
        let health: Value = serde_json::from_slice(&get(self.admin, "/health/ready")?.body)?;
        let found = health.pointer(pointer).cloned();
        found.with_context(|| format!("no {pointer} in {health}"))
    }

    /// Waits until `/health/ready` says so.
    pub fn wait_for_health(&self, pointer: &str, wanted: &str) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while self.health(pointer)? != wanted {
            ensure!(Instant::now() < deadline, "{pointer} is {}", self.health(pointer)?);
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where its `/metrics` are.
    pub fn metrics_address(&self) -> SocketAddr {
        self.admin
    }

    pub fn metric(&self, series: &str) -> Result<f64> {
        metric_at(self.admin, series)
    }
}

/// That keeps nothing, but for where it listens.
fn redis(dir: &Path) -> Command {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).current_dir(dir);
    command
}

fn opa(dir: &Path, address: SocketAddr) -> Result<Command> {
    let program = std::env::var_os("TEST_OPA")
        .context("TEST_OPA is not set: `cargo xtask test` builds OPA and sets it")?;
    let mut command = Command::new(program);
    command.args(["run", "--server", "--disable-telemetry", "--log-level=error"]);
    command.arg("--addr").arg(address.to_string()).arg(dir.join("policy.rego"));
    Ok(command)
}

/// `ca.pem`, and a certificate of it for 127.0.0.1, `server.pem` and `server.key`.
pub fn write_certificates(dir: &Path) -> Result<()> {
    let mut authority = CertificateParams::new(vec![])?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.distinguished_name.push(DnType::CommonName, "authority of the tests");
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let server = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
    let server = server.signed_by(&key, &authority)?;
    fs::write(dir.join("ca.pem"), authority.pem())?;
    fs::write(dir.join("server.pem"), server.pem())?;
    Ok(fs::write(dir.join("server.key"), key.serialize_pem())?)
}

/// The value of a series of `/metrics`, by its text up to the blank.
pub fn metric_at(address: SocketAddr, series: &str) -> Result<f64> {
    let text = get(address, "/metrics")?.text();
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.with_context(|| format!("no {series} in:\n{text}"))?.parse().context("no number")
}

/// Where it listens: the data path's address, and that of its own routes.
fn addresses(log: &str) -> Option<(SocketAddr, SocketAddr)> {
    let lines: Vec<Value> = log.lines().filter_map(|l| serde_json::from_str(l).ok()).collect();
    let find = |message: &str, key: &str| {
        let line = lines.iter().find(|line| line["message"] == message)?;
        line[key].as_str()?.parse().ok()
    };
    Some((find("listening", "address")?, find("ready", "admin")?))
}

/// A program on a port of its own, that can be killed and started again.
#[derive(Debug)]
pub struct Server {
    name: &'static str,
    pub address: SocketAddr,
    process: Option<Process>,
    command: fn(&Path, SocketAddr) -> Result<Command>,
    dir: std::path::PathBuf,
}

impl Server {
    fn start(
        name: &'static str,
        dir: &Path,
        command: fn(&Path, SocketAddr) -> Result<Command>,
    ) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?));
        let mut server = Self { name, address, process: None, command, dir: dir.to_owned() };
        server.start_again()?;
        Ok(server)
    }

    /// That keeps nothing: killed, it has forgotten every count.
    pub fn redis(dir: &Path) -> Result<Self> {
        Self::start("redis", dir, |dir, address| {
            let mut command = redis(dir);
            command.args(["--port", &address.port().to_string()]);
            Ok(command)
        })
    }

    /// The same, over TLS only, with the certificate of [`write_certificates`].
    pub fn redis_over_tls(dir: &Path) -> Result<Self> {
        Self::start("redis", dir, |dir, address| {
            let mut command = redis(dir);
            command.args(["--port", "0"]);
            command.args(["--tls-port", &address.port().to_string(), "--tls-auth-clients", "no"]);
            command.args(["--tls-cert-file", "server.pem", "--tls-key-file", "server.key"]);
            command.args(["--tls-ca-cert-file", "ca.pem", "--requirepass", "hidden"]);
            Ok(command)
        })
    }

    /// With `policy.rego` of its directory, over TLS.
    pub fn opa_over_tls(dir: &Path) -> Result<Self> {
        Self::start("opa", dir, |dir, address| {
            let mut command = opa(dir, address)?;
            command.arg("--tls-cert-file").arg(dir.join("server.pem"));
            command.arg("--tls-private-key-file").arg(dir.join("server.key"));
            Ok(command)
        })
    }

    /// With `policy.rego` of its directory.
    pub fn opa(dir: &Path) -> Result<Self> {
        Self::start("opa", dir, opa)
    }

    /// That answers 200, and 500 to `/broken`.
    pub fn nginx(dir: &Path) -> Result<Self> {
        Self::start("nginx", dir, |dir, address| {
            let config = dir.join("upstream.conf");
            let place = dir.display();
            let text = format!(
                "daemon off; worker_processes 1; user root; pid {place}/upstream.pid;\n\
                 events {{}}\nhttp {{ access_log off; client_body_temp_path {place}/t1;\n\
                 proxy_temp_path {place}/t2; fastcgi_temp_path {place}/t3;\n\
                 uwsgi_temp_path {place}/t4; scgi_temp_path {place}/t5;\n\
                 server {{ listen {address}; location / {{ return 200; }}\n\
                 location /broken {{ return 500; }} }} }}\n"
            );
            fs::write(&config, text)?;
            let mut command = Command::new("nginx");
            command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(config);
            Ok(command)
        })
    }

    pub fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { bail!("{} does not run", self.name) };
        // nginx's worker would outlive its master's SIGKILL.
        process.signal(if self.name == "nginx" { "TERM" } else { "KILL" })?;
        process.wait(PATIENCE)?;
        Ok(())
    }

    pub fn start_again(&mut self) -> Result<()> {
        let command = (self.command)(&self.dir, self.address)?;
        let mut process = Process::start(self.name, command, &self.dir.join("logs"))?;
        let address = self.address;
        wait_until(&mut process, || std::net::TcpStream::connect(address).is_ok())?;
        self.process = Some(process);
        Ok(())
    }
}
