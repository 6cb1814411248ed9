//! `cargo xtask bench redirect`: a service steered by eBPF beside the service itself, and beside the
//! classic way: iptables REDIRECT in its network namespace to Envoy, which finds the original
//! destination. One after the other in each round.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::{Agent, AgentOptions, Process, Sandbox, cgroup, command, pause};
use serde_json::{Value, json};

use crate::{
    bench_proxy::envoy_program,
    ebpf, interrupt, provision, setup,
    workspace::{build, target},
    wrk,
};

const PORT: u16 = 8080;
/// Where iptables leads connections to.
const ENVOY_PORT: u16 = 15006;
const WORKLOADS: usize = 100;

pub struct Options {
    pub rounds: u32,
    pub seconds: u32,
    pub profile: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { rounds: 5, seconds: 5, profile: "release".to_owned() }
    }
}

/// Name, connections, one request each.
const CASES: [(&str, u32, bool); 3] = [
    ("64 connections", 64, false),
    ("1 connection", 1, false),
    ("64 at once, a connection each request", 64, true),
];

/// How a service is reached. `Steered` passes untouched, `Decided` goes through the policies.
const WAYS: [&str; 4] = ["direct", "steered", "decided", "envoy"];

pub fn run(options: &Options) -> Result<()> {
    if !sandbox::is_root() {
        bail!("the bench needs root: `sudo -E env \"PATH=$PATH\" cargo xtask bench redirect`");
    }
    if options.rounds == 0 || options.seconds == 0 {
        bail!("--rounds and --seconds are at least 1");
    }
    setup::run()?;
    let tools = [provision::IP, provision::NGINX, provision::WRK, provision::IPTABLES];
    provision::tools(&[&tools[..], &[provision::PYTHON]].concat())?;
    let envoy = envoy_program(&provision::python()?)?;
    ebpf::run()?;
    let binaries = build(&options.profile)?;
    interrupt::catch()?;
    let dir = target().join("bench-redirect");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;

    // A namespace with the same server for each way, so that nothing has to be undone in between.
    let mut services = BTreeMap::new();
    for way in WAYS {
        services.insert(way, start_service(&dir.join(way))?);
    }
    let steering = Steering::start(&binaries, &dir)?;
    steering.add("steered", &services["steered"], None)?;
    steering.add("decided", &services["decided"], Some("open"))?;
    let envoy = start_envoy(&envoy, &services["envoy"], &dir)?;
    for (case, connections, is_new) in CASES {
        let mut results: BTreeMap<&str, Vec<wrk::Run>> = BTreeMap::new();
        for round in 0..options.rounds {
            // Who goes first changes, so that drift of the machine favours nobody.
            for i in 0..WAYS.len() {
                interrupt::check()?;
                let way = WAYS[(i + round as usize) % WAYS.len()];
                let server = services[way].socket(PORT, false);
                let run = match is_new {
                    false => wrk::get(server, "/1k", connections, options.seconds, &[])?,
                    true => wrk::get_anew(server, "/1k", connections, options.seconds)?,
                };
                ensure!(run.errors == 0, "wrk saw {} errors, {way}", run.errors);
                results.entry(way).or_default().push(run);
            }
        }
        report(case, &results);
    }
    steering.check_traffic()?;
    let (_, envoy_memory) = envoy.memory()?;
    println!("\nEnvoy, one service: {} MiB", envoy_memory / 1024);
    drop((services, envoy));
    steering.measure_workloads()
}

fn report(case: &str, results: &BTreeMap<&str, Vec<wrk::Run>>) {
    let of = |way: &str, what: fn(&wrk::Run) -> f64| {
        let mut values: Vec<f64> = results[way].iter().map(what).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    println!("\n{case}");
    println!(
        "{:<10} {:>12} {:>10} {:>10} {:>12} {:>12}",
        "", "requests/s", "p50 ms", "p99 ms", "added p50", "added p99"
    );
    for way in WAYS {
        let (p50, p99) = (of(way, |run| run.p50_ms), of(way, |run| run.p99_ms));
        println!(
            "{way:<10} {:>12.0} {p50:>10.3} {p99:>10.3} {:>12.3} {:>12.3}",
            of(way, |run| run.per_second),
            p50 - of("direct", |run| run.p50_ms),
            p99 - of("direct", |run| run.p99_ms),
        );
    }
    for way in ["steered", "decided"] {
        let added = |what: fn(&wrk::Run) -> f64| {
            (of(way, what) - of("direct", what)) / (of("envoy", what) - of("direct", what))
        };
        println!(
            "{way}: {:.2} of the p50 and {:.2} of the p99 that the classic way adds (goal 0.5), \
             {:.2} x its throughput (goal 1.5)",
            added(|run| run.p50_ms),
            added(|run| run.p99_ms),
            of(way, |run| run.per_second) / of("envoy", |run| run.per_second),
        );
    }
}

/// nginx, one worker, in a namespace of its own.
fn start_service(dir: &Path) -> Result<Sandbox> {
    let files = dir.join("files");
    fs::create_dir_all(&files)?;
    fs::write(files.join("1k"), "x".repeat(1 << 10))?;
    let config = dir.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off; worker_processes 1; pid {pid}; user root; error_log stderr crit;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s;\n\
             open_file_cache max=10;\n\
             server {{ listen {PORT} backlog=4096; root {files}; }} }}\n",
            pid = dir.join("nginx.pid").display(),
            files = files.display(),
        ),
    )?;
    let mut sandbox = Sandbox::create(dir)?;
    let mut nginx = sandbox.command("nginx");
    nginx.args(["-e", "stderr", "-p"]).arg(dir).arg("-c").arg(&config);
    sandbox.serve("nginx", nginx, PORT)?;
    Ok(sandbox)
}

/// The agent, one for all that is steered.
struct Steering {
    agent: Agent,
    socket: PathBuf,
}

impl Steering {
    fn start(binaries: &Path, dir: &Path) -> Result<Self> {
        let config = dir.join("config.yaml");
        // Something to decide, which lets everything pass.
        let policies = "policies: {open: {rate_limit: {route: {requests_per_second: 100000000}}}}";
        fs::write(&config, policies)?;
        let socket = dir.join("redirect.sock");
        let mut options = AgentOptions::ebpf(&dir.join("agent"))
            .flag("--target", "http://127.0.0.1:1")
            .flag("--inline-listen", "127.0.0.1:0")
            .flag("--config", &config)
            .flag("--redirect-socket", &socket);
        options.capture = "Inline".to_owned();
        let agent = Agent::start_from(&options, binaries)?;
        Ok(Self { agent, socket })
    }

    fn ask(&self, request: &Value) -> Result<Value> {
        let mut stream = BufReader::new(UnixStream::connect(&self.socket)?);
        writeln!(stream.get_mut(), "{request}")?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line)?;
        ensure!(answer["ok"] == true, "the agent answered {answer}");
        Ok(answer)
    }

    fn add(&self, name: &str, service: &Sandbox, policies: Option<&str>) -> Result<()> {
        let mut workload = json!({ "name": name, "cgroup": service.cgroup(), "ports": [PORT] });
        if let Some(policies) = policies {
            workload["policies"] = policies.into();
        }
        self.ask(&json!({ "op": "add", "workload": workload })).map(|_| ())
    }

    /// That what was measured is what it is called.
    fn check_traffic(&self) -> Result<()> {
        let answer = self.ask(&json!({ "op": "list" }))?;
        let count = |name: &str, pointer: &str| -> Result<u64> {
            let workloads = answer["workloads"].as_array().context("no workloads")?;
            let workload = workloads.iter().find(|w| w["name"] == name).context("not listed")?;
            workload.pointer(pointer).and_then(Value::as_u64).context("no such count")
        };
        for name in ["steered", "decided"] {
            ensure!(count(name, "/connections/http1")? > 0, "`{name}` was not steered");
        }
        ensure!(count("decided", "/requests/passed")? > 0, "nothing was decided");
        ensure!(count("steered", "/requests/requests")? == 0, "what is steered was decided");
        Ok(())
    }

    /// Memory and time of many workloads.
    fn measure_workloads(mut self) -> Result<()> {
        self.ask(&json!({ "op": "remove_all" }))?;
        let many = Many::create(WORKLOADS)?;
        let root = cgroup::mount_point()?;
        for name in &many.0 {
            let workload = json!({
                "name": name, "cgroup": root.join(name), "ports": [PORT],
                "netns": Path::new("/run/netns").join(name), "policies": "open",
            });
            self.ask(&json!({ "op": "add", "workload": workload }))?;
        }
        let answer = self.ask(&json!({ "op": "list" }))?;
        let workloads = answer["workloads"].as_array().context("no workloads")?;
        let mut took: Vec<u64> =
            workloads.iter().filter_map(|workload| workload["enrol_us"].as_u64()).collect();
        took.sort_unstable();
        ensure!(took.len() == WORKLOADS, "{} workloads are enrolled", took.len());
        // What the load before has left is given back a little later.
        pause(Duration::from_secs(2));
        let (memory, peak) = self.agent.process().memory()?;
        println!(
            "{WORKLOADS} workloads: {:.1} MiB (goal 25), at most {:.1}; enrolled in {:.2} ms, at \
             most {:.2} (goal 5)",
            memory as f64 / 1024.0,
            peak as f64 / 1024.0,
            took[took.len() / 2] as f64 / 1000.0,
            took[took.len() - 1] as f64 / 1000.0,
        );
        Ok(())
    }
}

/// Namespaces and cgroups in number; gone when dropped.
struct Many(Vec<String>);

impl Many {
    fn create(count: usize) -> Result<Self> {
        let mut many = Self(Vec::new());
        let root = cgroup::mount_point()?;
        for n in 0..count {
            let name = format!("stoa-{n}b-{}", std::process::id());
            fs::create_dir(root.join(&name))?;
            many.0.push(name.clone());
            command::ip(&format!("netns add {name}"))?;
            command::ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(many)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        let root = cgroup::mount_point();
        for name in &self.0 {
            let _ = command::ip(&format!("netns delete {name}"));
            if let Ok(root) = &root {
                let _ = fs::remove_dir(root.join(name));
            }
        }
    }
}

/// Envoy in the service's namespace, and the rule that leads connections to it. What it makes itself
/// is not led anywhere: only what comes from outside passes PREROUTING.
fn start_envoy(program: &Path, service: &Sandbox, dir: &Path) -> Result<Process> {
    let config = dir.join("envoy.yaml");
    fs::write(
        &config,
        format!(
            r#"
static_resources:
  listeners:
  - address: {{socket_address: {{address: 0.0.0.0, port_value: {ENVOY_PORT}}}}}
    listener_filters:
    - name: envoy.filters.listener.original_dst
      typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: "/"}}, route: {{cluster: original}}}}]
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: original
    type: ORIGINAL_DST
    lb_policy: CLUSTER_PROVIDED
"#
        ),
    )?;
    let mut envoy = service.command(program);
    envoy.args(["--concurrency", "1", "--log-level", "error", "--disable-hot-restart", "-c"]);
    let process = Process::start(
        "envoy",
        {
            envoy.arg(&config);
            envoy
        },
        dir,
    )?;
    sandbox::wait_for_port(service.socket(ENVOY_PORT, false), Duration::from_secs(20))
        .with_context(|| process.stderr())?;
    let mut rule = service.command("iptables");
    rule.args(["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", &PORT.to_string()]);
    rule.args(["-j", "REDIRECT", "--to-ports", &ENVOY_PORT.to_string()]);
    command::run(&mut rule)?;
    let reply = sandbox::http::get(service.socket(PORT, false), "/1k")?;
    ensure!(reply.header("server") == Some("envoy"), "Envoy is not in between: {reply:?}");
    Ok(process)
}
