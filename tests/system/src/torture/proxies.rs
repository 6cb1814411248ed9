//! Proxy mode, Envoy and nginx, each in front of a recorder of its own.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use sandbox::Process;
use serde_json::{Value, json};

use super::{outcome::shortened, recorder::Recorder};
use crate::decisions::{from_pypi, wait_until};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Envoy,
    Nginx,
}

#[derive(Debug)]
pub struct Proxy {
    pub kind: Kind,
    pub process: Process,
    pub address: SocketAddr,
    /// Where HTTP/2 without TLS is spoken.
    pub http2: SocketAddr,
    pub recorder: Recorder,
    dir: PathBuf,
}

impl Proxy {
    pub fn start(kind: Kind, dir: &Path) -> Result<Self> {
        let recorder = Recorder::start()?;
        let free =
            || Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?)));
        let address = free()?;
        let (name, command, http2) = match kind {
            Kind::Ours => ("stoa", stoa(dir, address, recorder.address)?, address),
            Kind::Envoy => ("envoy", envoy(dir, address, recorder.address)?, address),
            Kind::Nginx => {
                let http2 = free()?;
                ("nginx", nginx(dir, address, http2, recorder.address)?, http2)
            }
        };
        let mut process = Process::start(name, command, &dir.join("logs"))?;
        wait_until(&mut process, || {
            TcpStream::connect(address).is_ok() && TcpStream::connect(http2).is_ok()
        })?;
        Ok(Self { kind, process, address, http2, recorder, dir: dir.to_path_buf() })
    }

    /// Of proxy mode: what it says it has sent upstream, `METHOD PATH`, in the order of the answers.
    pub fn counted(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.dir.join("access.log")).unwrap_or_default();
        let mut sent = Vec::new();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).context("the access log is not JSON")?;
            if line["upstream"].is_null() {
                continue;
            }
            let retries = line["retries"].as_u64().unwrap_or(0);
            let (Some(method), Some(path)) = (line["method"].as_str(), line["path"].as_str())
            else {
                bail!("a line without method and path: {line}");
            };
            for _ in 0..=retries {
                sent.push(format!("{method} {}", shortened(path)));
            }
        }
        Ok(sent)
    }
}

fn stoa(dir: &Path, address: SocketAddr, upstream: SocketAddr) -> Result<Command> {
    let mut command = Command::new(sandbox::binaries()?.join("stoa-gateway"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STOA_") {
            command.env_remove(name);
        }
    }
    command.args(["--mode=proxy", "--workers=1", "--host=127.0.0.1", "--admin-port=0"]);
    command.args(["--upstream", &format!("http://{upstream}")]);
    command.arg(format!("--port={}", address.port()));
    command.arg(format!("--access-log={}", dir.join("access.log").display())).current_dir(dir);
    Ok(command)
}

fn socket(address: SocketAddr) -> Value {
    json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}})
}

/// As an edge: it does not believe what clients say of themselves. Otherwise its defaults.
fn envoy(dir: &Path, address: SocketAddr, upstream: SocketAddr) -> Result<Command> {
    const MANAGER: &str = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    const ROUTER: &str = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router";
    let manager = json!({
        "@type": MANAGER, "stat_prefix": "in", "use_remote_address": true,
        // Not its default of a second, which each refused case would wait for.
        "delayed_close_timeout": "0.1s",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}]}]},
        "http_filters": [
            {"name": "envoy.filters.http.router", "typed_config": {"@type": ROUTER}}],
    });
    let config = json!({"static_resources": {
        "listeners": [{"name": "in", "address": socket(address), "filter_chains": [{"filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}],
        "clusters": [{"name": "upstream", "type": "STATIC", "connect_timeout": "2s",
            "load_assignment": {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [
                {"endpoint": {"address": socket(upstream)}}]}]}}],
    }});
    let file = dir.join("envoy.json");
    fs::write(&file, serde_json::to_string_pretty(&config)?)?;
    let mut command = Command::new(from_pypi("envoy")?);
    command.arg("-c").arg(file).args(["--concurrency", "1", "--disable-hot-restart"]);
    command.args(["--log-level", "error"]);
    Ok(command)
}

fn nginx(
    dir: &Path,
    address: SocketAddr,
    http2: SocketAddr,
    upstream: SocketAddr,
) -> Result<Command> {
    let config = dir.join("nginx.conf");
    let at = dir.display();
    fs::write(
        &config,
        format!(
            "daemon off; master_process off; worker_processes 1; pid {at}/nginx.pid;\n\
             error_log stderr crit;\nevents {{ worker_connections 512; }}\n\
             http {{ access_log off;\n\
             client_body_temp_path {at}/body; proxy_temp_path {at}/proxy;\n\
             fastcgi_temp_path {at}/fastcgi; uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
             upstream u {{ server {upstream} max_fails=0; keepalive 8; }}\n\
             server {{ listen {address}; listen {http2} http2;\n\
             location / {{ proxy_pass http://u; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; proxy_set_header Host $host; }} }} }}\n"
        ),
    )?;
    let mut command = Command::new("nginx");
    command.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(config);
    Ok(command)
}
