//! Real gateways that ask a running sidecar: what the tests of all of them share.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::{Process, http::Connection, http::Reply, pause};
use serde_json::{Value, json};

use crate::{proxy::metric_at, servers::python};

/// Of HS256, 32 bytes.
pub const SECRET: &str = "a secret of the tests, 32 bytes.";
const PATIENCE: Duration = Duration::from_secs(20);

/// A running `stoa-gateway --mode sidecar`.
#[derive(Debug)]
pub struct Sidecar {
    process: Process,
    address: SocketAddr,
}

impl Sidecar {
    /// `config` is its YAML file, `variables` its surroundings.
    pub fn start(dir: &Path, config: &str, variables: &[(&str, &str)]) -> Result<Self> {
        let address = SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?));
        let file = dir.join("sidecar.yaml");
        fs::write(&file, config)?;
        let mut command = Command::new(sandbox::binaries()?.join("stoa-gateway"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STOA_") {
                command.env_remove(name);
            }
        }
        command.args(["--mode", "sidecar", "--log-level", "info,stoa_gateway=debug"]);
        command.args(["--port", &address.port().to_string()]).arg("--config").arg(file);
        command.arg("--state-dir").arg(dir.join("state")).envs(variables.iter().copied());
        let mut process = Process::start("sidecar", command, &dir.join("logs"))?;
        wait_until(&mut process, || {
            sandbox::http::get(address, "/health/ready").is_ok_and(|reply| reply.status == 200)
        })?;
        Ok(Self { process, address })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// One question on a connection of its own.
    pub fn ask(&self, document: &Value) -> Result<Reply> {
        let headers = [("Content-Type", "application/json"), ("Connection", "close")];
        let body = document.to_string();
        let mut connection = Connection::open(self.address)?;
        Ok(connection.exchange("POST", "/authz", &headers, body.as_bytes())?)
    }

    pub fn metric(&self, series: &str) -> Result<f64> {
        metric_at(self.address, series)
    }

    pub fn stop(mut self) -> Result<()> {
        self.process.signal("TERM")?;
        let status = self.process.wait(PATIENCE)?;
        ensure!(status.success(), "the sidecar ended with {status}:\n{}", self.process.stderr());
        Ok(())
    }
}

/// Waits until it is so, as long as `process` runs.
pub fn wait_until(process: &mut Process, mut is_so: impl FnMut() -> bool) -> Result<()> {
    wait_for(process, PATIENCE, &mut is_so)
}

pub fn wait_for(
    process: &mut Process,
    patience: Duration,
    is_so: &mut dyn FnMut() -> bool,
) -> Result<()> {
    let deadline = std::time::Instant::now() + patience;
    while !is_so() {
        if !process.is_running() || std::time::Instant::now() > deadline {
            bail!("it is not ready:\n{}{}", process.stdout(), process.stderr());
        }
        pause(Duration::from_millis(20));
    }
    Ok(())
}

/// A program of the tests' virtual environment, where `cargo xtask test` installs it from PyPI.
pub fn from_pypi(program: &str) -> Result<PathBuf> {
    let place = python().parent().map(|dir| dir.join(program)).unwrap_or_default();
    ensure!(
        place.is_file(),
        "{program} is not beside {}: `cargo xtask test` installs it",
        python().display()
    );
    Ok(place)
}

/// A token of `claims`, an hour long, signed with [`SECRET`].
pub fn token(claims: &Value) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut all = json!({"iss": "tests", "iat": now, "exp": now + 3600});
    if let (Value::Object(all), Value::Object(claims)) = (&mut all, claims) {
        all.extend(claims.clone());
    }
    let key = jsonwebtoken::EncodingKey::from_secret(SECRET.as_bytes());
    Ok(jsonwebtoken::encode(&jsonwebtoken::Header::default(), &all, &key)?)
}

/// Two sets: a reader's, and `admin` for those who may do more.
pub fn policies() -> String {
    let identity = format!(
        "identity: {{methods: [{{trusted: {{}}}}, {{jwt: {{secret: '{SECRET}', issuer: tests, \
         any_audience: true}}}}]}}"
    );
    format!(
        "policies:\n  default:\n    {identity}\n    tenant: {{}}\n    scopes: {{any_of: \
         [stoa:read]}}\n  admin:\n    {identity}\n    tenant: {{}}\n    scopes: {{any_of: \
         [stoa:admin]}}\n"
    )
}

/// The service behind a gateway. It answers each request with what it saw of it.
#[derive(Debug)]
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<AtomicU64>,
}

/// A request as the upstream saw it.
#[derive(Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: BTreeMap<String, String>,
}

impl Upstream {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let upstream = Self { address: listener.local_addr()?, seen: Arc::default() };
        let seen = Arc::clone(&upstream.seen);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                thread::spawn(move || while answer(&stream, &seen).is_ok() {});
            }
        });
        Ok(upstream)
    }

    /// How many requests have come through.
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::SeqCst)
    }
}

fn answer(stream: &TcpStream, seen: &AtomicU64) -> Result<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    ensure!(reader.read_line(&mut line)? > 0, "closed");
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let mut headers: Vec<(String, String)> = Vec::new();
    loop {
        line.clear();
        ensure!(reader.read_line(&mut line)? > 0, "cut off");
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: u64 = length.map_or(Ok(0), |(_, value)| value.parse())?;
    reader.take(length).read_to_end(&mut Vec::new())?;
    seen.fetch_add(1, Ordering::SeqCst);
    let mut map = serde_json::Map::new();
    for (name, value) in headers {
        let text = match map.get(&name).and_then(Value::as_str) {
            Some(earlier) => format!("{earlier} | {value}"),
            None => value,
        };
        map.insert(name, Value::String(text));
    }
    let body = json!({"method": words.first(), "target": words.get(1), "headers": map}).to_string();
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    Ok(())
}

/// What the upstream saw of the request that `reply` answers.
pub fn seen_of(reply: &Reply) -> Result<Seen> {
    let what = || format!("not the upstream's answer: {} {}", reply.status, reply.text());
    ensure!(reply.status == 200, what());
    let body: Value = serde_json::from_slice(&reply.body).with_context(what)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let headers = body["headers"].as_object().with_context(what)?;
    Ok(Seen {
        method: text(&body["method"]),
        target: text(&body["target"]),
        headers: headers.iter().map(|(name, value)| (name.clone(), text(value))).collect(),
    })
}

/// One request through a gateway.
pub fn send(
    gateway: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
) -> Result<Reply> {
    let mut all = headers.to_vec();
    all.push(("Connection", "close"));
    Ok(Connection::open(gateway)?.exchange(method, target, &all, b"")?)
}

/// What every gateway must keep to, however it asks. `unauthorized` and `forbidden` look at what
/// a client is told beside the status.
pub fn assert_enforced(gateway: SocketAddr, upstream: &Upstream) -> Result<()> {
    let before = upstream.seen();
    let reply = send(gateway, "GET", "/orders", &[])?;
    ensure!(reply.status == 401, "nobody got {}: {}", reply.status, reply.text());
    ensure!(
        reply.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")),
        "a 401 without a challenge: {:?}",
        reply.headers
    );
    let forged = [("Authorization", "Bearer a.b.c"), ("X-User-ID", "root")];
    ensure!(send(gateway, "GET", "/orders", &forged)?.status == 401, "a forged token passed");
    let writer = token(&json!({"sub": "bob", "tenant": "acme", "scope": "stoa:write"}))?;
    let bearer = format!("Bearer {writer}");
    let reply = send(gateway, "GET", "/orders", &[("Authorization", &bearer)])?;
    ensure!(reply.status == 403, "a scope was missing, and it got {}", reply.status);
    let homeless = token(&json!({"sub": "eve", "scope": "stoa:read"}))?;
    let bearer = format!("Bearer {homeless}");
    let reply = send(gateway, "GET", "/orders", &[("Authorization", &bearer)])?;
    ensure!(reply.status == 403, "without a tenant it got {}", reply.status);
    // What a client says of itself, and of what it asks for.
    let lies = [
        ("X-User-Info", "{\"sub\":\"root\",\"scopes\":[\"stoa:read\"]}"),
        ("X-User-ID", "root"),
        ("X-Tenant-ID", "acme"),
        ("X-Original-URI", "/public"),
        ("X-Forwarded-Uri", "/public"),
        ("X-Forwarded-Method", "OPTIONS"),
        ("X-Envoy-Original-Path", "/public"),
    ];
    let status = send(gateway, "GET", "/orders", &lies)?.status;
    ensure!(status == 401, "a client that lies about itself got {status}");
    ensure!(upstream.seen() == before, "a denied request reached the upstream");

    let reader = token(&json!({"sub": "ann", "tenant": "acme", "scope": "stoa:read stoa:x"}))?;
    let bearer = format!("Bearer {reader}");
    let headers = [
        ("Authorization", bearer.as_str()),
        ("X-User-ID", "root"),
        ("X-Tenant-ID", "other"),
        ("X-User-Roles", "cpi-admin"),
        ("X-User-Scopes", "stoa:admin"),
        ("X-Request-ID", "request-1"),
    ];
    let seen = seen_of(&send(gateway, "DELETE", "/orders/7?page=2&x=%2F", &headers)?)?;
    ensure!(
        (seen.method.as_str(), seen.target.as_str()) == ("DELETE", "/orders/7?page=2&x=%2F"),
        "another request came through: {seen:?}"
    );
    for (name, value) in
        [("x-user-id", "ann"), ("x-tenant-id", "acme"), ("x-user-scopes", "stoa:read,stoa:x")]
    {
        ensure!(seen.headers.get(name).is_some_and(|seen| seen == value), "{name}: {seen:?}");
    }
    // A query is the client's, and chooses no policies.
    let target = "/orders?policy_set=admin&tenant=other";
    seen_of(&send(gateway, "GET", target, &[("Authorization", &bearer)])?)?;
    let roles = seen.headers.get("x-user-roles").map(String::as_str).unwrap_or_default();
    ensure!(roles.is_empty(), "the client's roles came through: {seen:?}");
    Ok(())
}
