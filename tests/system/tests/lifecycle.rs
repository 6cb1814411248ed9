//! Capture comes and goes without a trace, and the service never notices.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{Agent, AgentOptions, command, http::Connection, pause};
use system_tests::{
    markers::Traffic,
    rate::Accounts,
    servers::{PORT, Server},
    stage,
};

/// For what happens in a second where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Identifiers of the eBPF programs that a process holds: itself, or by a link (proc(5), fdinfo).
fn programs_of(pid: u32) -> Result<BTreeSet<u32>> {
    let mut programs = BTreeSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        programs.extend(
            info.lines()
                .filter_map(|line| line.strip_prefix("prog_id:")?.trim().parse::<u32>().ok()),
        );
    }
    Ok(programs)
}

fn loaded_programs() -> BTreeSet<u32> {
    aya::programs::loaded_programs().flatten().map(|program| program.id()).collect()
}

/// The kernel frees programs after a grace period.
fn wait_until_unloaded(programs: &BTreeSet<u32>) -> Result<()> {
    let deadline = Instant::now() + sandbox::patience(PATIENCE);
    loop {
        let left: Vec<u32> = loaded_programs().intersection(programs).copied().collect();
        if left.is_empty() {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "eBPF programs {left:?} are still loaded");
        pause(Duration::from_millis(50));
    }
}

/// Goes on with a request now and then, so that there is something to write, until so many
/// exchanges have been seen and two more writes have ended: one may have begun before.
fn wait_until_stored(agent: &Agent, client: &mut Connection, exchanges: u64) -> Result<()> {
    let deadline = Instant::now() + sandbox::patience(PATIENCE);
    let mut enough_at = None;
    loop {
        let metrics = agent.metrics()?;
        let total = |name: &str| -> u64 {
            metrics.iter().filter(|m| m.name == name).map(|metric| metric.value as u64).sum()
        };
        let writes = total("stoa_store_writes_total");
        if enough_at.is_none() && total("stoa_shadow_exchanges_total") >= exchanges {
            enough_at = Some(writes + 2);
        }
        if enough_at.is_some_and(|enough| writes >= enough) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "not stored after {PATIENCE:?}; {writes} writes");
        ensure!(client.exchange("GET", "/m/waiting", &[], b"")?.status == 200);
        pause(Duration::from_millis(100));
    }
}

#[test]
fn detaching_leaves_no_program_behind() -> Result<()> {
    let dir = stage::directory("lifecycle-detach")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let options = AgentOptions::ebpf(&dir.join("agent")).watch_cgroup("api", sandbox.cgroup());
    let mut agent = Agent::start(&options)?;
    let programs = programs_of(agent.process().pid())?;
    ensure!(!programs.is_empty(), "the agent holds no eBPF program: this test would see nothing");
    ensure!(programs.is_subset(&loaded_programs()), "{programs:?} are not all loaded");
    agent.stop()?;
    wait_until_unloaded(&programs)
}

#[test]
fn the_service_outlives_a_killed_agent() -> Result<()> {
    let dir = stage::directory("lifecycle-kill")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let address = sandbox.socket(PORT, false);
    let options = AgentOptions::ebpf(&dir.join("agent")).watch_cgroup("api", sandbox.cgroup());
    let mut agent = Agent::start(&options)?;
    let programs = programs_of(agent.process().pid())?;
    let mut kept = Connection::open(address)?;
    for n in 0..300 {
        ensure!(kept.exchange("GET", &format!("/m/{n}"), &[], b"")?.status == 200);
    }
    wait_until_stored(&agent, &mut kept, 300)?;
    agent.process().signal("KILL")?;
    agent.process().wait(PATIENCE)?;
    ensure!(kept.exchange("GET", "/m/kept", &[], b"")?.status == 200, "the connection broke");
    ensure!(sandbox::http::get(address, "/m/new")?.status == 200, "no new connections");
    wait_until_unloaded(&programs)?;
    drop(agent);

    // What it had flushed is there when it comes back, without new traffic.
    let summary = Agent::start(&options)?.stop()?;
    ensure!(
        summary.exchanges >= 300 && summary.operations >= 1,
        "after kill -9 it only remembers: {}",
        summary.last_line
    );
    stage::assert_contracts_are_valid(&dir.join("agent/output"))
}

/// Watches nginx by `watch` and expects to see all of 400 requests.
fn sees_all(test: &str, watch: impl Fn(&Path, u32) -> String) -> Result<()> {
    let dir = stage::directory(test)?;
    let mut sandbox = stage::sandbox(&dir)?;
    let pid = Server::Nginx.start(&mut sandbox, &dir)?;
    let mut options = AgentOptions::ebpf(&dir.join("agent"));
    options.watch.push(watch(sandbox.cgroup(), pid));
    let agent = Agent::start(&options)?;
    let traffic = Traffic::to(Server::Nginx, sandbox.socket(PORT, false));
    let sent = traffic.drive(&AtomicU64::new(1))?.len();
    Accounts::read(&agent, "api", sent)?;
    let summary = agent.stop()?;
    ensure!(
        summary.exchanges == sent as u64 && summary.lost == 0,
        "{sent} sent, but: {}",
        summary.last_line
    );
    stage::assert_contracts_are_valid(&dir.join("agent/output"))
}

#[test]
fn a_service_is_watched_by_its_cgroup() -> Result<()> {
    sees_all("watch-cgroup", |cgroup, _| format!("api=cgroup:{}", cgroup.display()))
}

#[test]
fn a_service_is_watched_by_its_process() -> Result<()> {
    sees_all("watch-pid", |_, pid| format!("api=pid:{pid}"))
}

#[test]
fn a_service_is_watched_by_its_port() -> Result<()> {
    // A port is one of the host's: this server runs without a namespace of its own.
    let dir = stage::directory("watch-port")?;
    let port = sandbox::free_port()?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/echo.js");
    let mut node = Command::new("node");
    node.arg(script).arg(port.to_string());
    let _server = sandbox::Process::start("node", node, &dir)?;
    let address = ([127, 0, 0, 1], port).into();
    sandbox::wait_for_port(address, Duration::from_secs(10))?;
    let mut options = AgentOptions::ebpf(&dir.join("agent"));
    options.watch.push(format!("api=port:{port}"));
    let agent = Agent::start(&options)?;
    let sent = Traffic::to(Server::Node, address).drive(&AtomicU64::new(1))?.len();
    Accounts::read(&agent, "api", sent)?;
    let summary = agent.stop()?;
    ensure!(summary.exchanges == sent as u64, "{sent} sent, but: {}", summary.last_line);
    stage::assert_contracts_are_valid(&dir.join("agent/output"))
}

/// The end of steering is no second signal, which would end the waiting for what is under way.
#[test]
fn what_steers_and_captures_is_told_to_stop_once() -> Result<()> {
    let dir = stage::directory("lifecycle-both")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    for n in 0..5 {
        let options = AgentOptions::ebpf(&dir.join(format!("agent-{n}")))
            .watch_cgroup("api", sandbox.cgroup())
            .flag("--redirect-socket", dir.join("redirect.sock"));
        let agent = Agent::start(&options)?;
        let traffic = Traffic::to(Server::Nginx, sandbox.socket(PORT, false));
        let sent = traffic.drive(&AtomicU64::new(1))?.len() as u64;
        let summary = agent.stop()?;
        ensure!(!summary.stderr.contains("without waiting"), "{}", summary.stderr);
        ensure!(summary.exchanges == sent, "{sent} sent, but: {}", summary.last_line);
    }
    Ok(())
}

/// Each with what follows from it. The versions are Linux's own; a vendor may have more in an older
/// kernel.
#[test]
fn what_the_kernel_lacks_is_said_at_start() -> Result<()> {
    let dir = stage::directory("kernel-lacks")?;
    let socket = dir.join("redirect.sock");
    let mut options = AgentOptions::ebpf(&dir).flag("--redirect-socket", socket);
    options.watch.push("api=port:80".to_owned());
    let said = Agent::start(&options)?.stop()?.stderr;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    let kernel = (numbers.next().context("no version")?, numbers.next().context("no version")?);
    for (what, since) in [("bpf_get_netns_cookie", (6, 15)), ("SO_NETNS_COOKIE", (5, 14))] {
        let is_said = said.contains(&format!("this kernel lacks {what}"));
        ensure!(is_said == (kernel < since), "{kernel:?}, {what} since {since:?}: {said}");
    }
    Ok(())
}

#[test]
fn without_root_it_says_what_is_missing() -> Result<()> {
    let dir = stage::directory("without-root")?;
    let state = dir.join("state");
    fs::create_dir_all(&state)?;
    let binary = dir.join("stoa-gateway");
    fs::copy(sandbox::binaries()?.join("stoa-gateway"), &binary)?;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755))?;
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(&state, Some(65534), Some(65534))?;
    let mut agent = Command::new("setpriv");
    agent.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
    agent.arg(&binary).args(["--mode", "shadow", "--capture", "Ebpf", "--watch", "api=port:80"]);
    agent.arg("--state-dir").arg(&state).arg("--output").arg(&state);
    agent.args(["--port", &sandbox::free_port()?.to_string()]);
    let output = command::output(&mut agent).context("cannot run setpriv")?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    ensure!(!output.status.success(), "it should have refused: {said}");
    ensure!(said.contains("CAP_BPF") || said.contains("root"), "names nothing missing: {said}");
    ensure!(said.to_lowercase().contains("inline"), "names no alternative: {said}");
    Ok(())
}
