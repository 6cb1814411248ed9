//! Workloads are steered through the agent, and neither they nor their clients can tell.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{Process, Sandbox, http, pause};
use serde_json::json;
use system_tests::{
    servers::{PORT, Server, python},
    stage,
    steering::{
        Control, Load, Seen, add, count, peer_program, pins, read_to_end, start_agent, stoactl,
        stop_agent,
    },
};

#[test]
fn the_application_sees_the_true_client() -> Result<()> {
    let dir = stage::directory("redirect-client")?;
    let mut sandbox = stage::sandbox(&dir)?;
    let peer = peer_program(&dir)?;
    // Port, families, as whom: an IPv4 server, an IPv6 one, one with mapped addresses, and as Go
    // listens: MPTCP, both families on one socket.
    let servers =
        [(8001, "4", "tcp"), (8002, "6", "tcp"), (8003, "46", "tcp"), (8004, "46", "mptcp")];
    let mut running = Vec::new();
    for (port, family, protocol) in servers {
        let mut server = sandbox.command("setpriv");
        server.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]);
        server.arg(&peer).args([family, protocol, &port.to_string()]);
        running.push(Process::start(&format!("peer-{port}"), server, &dir)?);
    }
    for (port, family) in [(8005, "4"), (8006, "46")] {
        let mut server = sandbox.command(python());
        server.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/peer.py"));
        server.args([family, &port.to_string()]);
        sandbox.serve(&format!("python-{port}"), server, port)?;
    }
    let cases = [
        (8001, false),
        (8002, true),
        (8003, false),
        (8003, true),
        (8004, false),
        (8004, true),
        (8005, false),
        (8006, false),
        (8006, true),
    ];
    for (port, v6) in cases {
        sandbox::wait_for_port(sandbox.socket(port, v6), Duration::from_secs(10))?;
    }
    let _agent = start_agent(&dir, "agent")?;
    add(&dir, "peers", &sandbox, "8001,8002,8003,8004,8005,8006", "open")?;
    for (n, (port, v6)) in cases.into_iter().enumerate() {
        let seen = Seen::ask(sandbox.socket(port, v6)).with_context(|| format!("port {port}"))?;
        seen.check().with_context(|| format!("port {port}, IPv6: {v6}"))?;
        // And the agent was in between, or this would prove nothing.
        ensure!(
            count(&dir, "peers", "/connections/accepted")? == n as u64 + 1,
            "port {port} is not steered"
        );
    }
    Ok(())
}

#[test]
fn enrolled_and_removed_under_load_without_a_failed_request() -> Result<()> {
    let dir = stage::directory("redirect-load")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let agent = start_agent(&dir, "agent")?;
    let load = Load::start(sandbox.socket(PORT, false), "/m/1");
    let mut kept = http::Connection::open(sandbox.socket(PORT, false))?;
    for round in 0..5 {
        load.wait_for(100)?;
        add(&dir, "api", &sandbox, "8080", if round % 2 == 0 { "open" } else { "closed" })?;
        load.wait_for(100)?;
        ensure!(count(&dir, "api", "/connections/http1")? > 0, "nothing came by the agent");
        // Opened before the workload was enrolled.
        ensure!(kept.exchange("GET", "/m/kept", &[("Host", "a")], b"")?.status == 200);
        stoactl(&dir, &["remove", "api"])?;
    }
    load.wait_for(100)?;
    load.finish()?;
    ensure!(pins(&dir).is_empty(), "left pinned: {:?}", pins(&dir));
    stop_agent(agent)?;
    Ok(())
}

#[test]
fn a_killed_agent_fails_as_was_asked_for() -> Result<()> {
    let dir = stage::directory("redirect-kill")?;
    let (mut open, mut closed) = (stage::sandbox(&dir)?, stage::sandbox(&dir)?);
    for sandbox in [&mut open, &mut closed] {
        Server::Python.start(sandbox, &dir)?;
    }
    let get = |sandbox: &Sandbox| http::get(sandbox.socket(PORT, false), "/m/1").map(|r| r.status);
    let mut agent = start_agent(&dir, "first")?;
    add(&dir, "open", &open, "8080", "open")?;
    add(&dir, "closed", &closed, "8080", "closed")?;
    for (name, sandbox) in [("open", &open), ("closed", &closed)] {
        ensure!(get(sandbox)? == 200);
        ensure!(count(&dir, name, "/connections/http1")? == 1, "{name} is not steered");
    }
    agent.process().signal("KILL")?;
    agent.process().wait(Duration::from_secs(5))?;
    ensure!(get(&open)? == 200, "open: the application is not reached");
    let refused = get(&closed);
    ensure!(
        refused.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused),
        "closed: {refused:?}"
    );
    ensure!(!pins(&dir).is_empty(), "nothing is pinned: what refused the connection?");

    // The next agent goes on where the first has stopped.
    let agent = start_agent(&dir, "second")?;
    for (name, sandbox) in [("open", &open), ("closed", &closed)] {
        ensure!(get(sandbox)? == 200);
        ensure!(count(&dir, name, "/connections/http1")? == 1, "{name} is not steered again");
    }
    ensure!(pins(&dir).len() == 2, "more than one run's: {:?}", pins(&dir));
    stop_agent(agent)?;
    ensure!(get(&closed)? == 200, "after a stop in order it is not steered any more");
    ensure!(pins(&dir).is_empty(), "left pinned: {:?}", pins(&dir));
    Ok(())
}

#[test]
fn leftovers_of_a_crash_are_cleaned_up() -> Result<()> {
    let dir = stage::directory("redirect-leftovers")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Python.start(&mut sandbox, &dir)?;
    let mut agent = start_agent(&dir, "first")?;
    add(&dir, "gone", &sandbox, "8080", "closed")?;
    agent.process().signal("KILL")?;
    agent.process().wait(Duration::from_secs(5))?;
    drop(sandbox);
    ensure!(pins(&dir).len() == 2, "{:?}", pins(&dir));
    let agent = start_agent(&dir, "second")?;
    ensure!(pins(&dir).is_empty(), "left pinned: {:?}", pins(&dir));
    ensure!(stoactl(&dir, &["list", "--json"])?.trim() == "[]");
    stop_agent(agent)?;
    Ok(())
}

#[test]
fn an_upgrade_fails_no_request() -> Result<()> {
    let dir = stage::directory("redirect-upgrade")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let mut first = start_agent(&dir, "first")?;
    add(&dir, "api", &sandbox, "8080", "closed")?;
    let load = Load::start(sandbox.socket(PORT, false), "/m/1");
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "-c8", "-d6s"]).arg(format!("http://{}/m/2", sandbox.socket(PORT, false)));
    let mut wrk = Process::start("wrk", wrk, &dir)?;
    load.wait_for(200)?;
    let second = start_agent(&dir, "second")?;
    load.wait_for(200)?;
    ensure!(count(&dir, "api", "/connections/http1")? > 0, "the second agent has no traffic");
    let mut third = start_agent(&dir, "third")?;
    drop(second);
    load.wait_for(200)?;
    ensure!(wrk.wait(Duration::from_secs(30))?.success());
    let answered = load.finish()?;
    let said = wrk.stdout();
    ensure!(said.contains("requests in"), "wrk: {said}");
    ensure!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "wrk: {said}");
    // Its last connection has ended.
    ensure!(first.process().wait(Duration::from_secs(20))?.success(), "the first agent failed");
    ensure!(third.process().is_running());
    ensure!(pins(&dir).len() == 2, "more than one run's: {:?}", pins(&dir));
    println!("{answered} requests beside wrk: {}", said.lines().last().unwrap_or_default());
    Ok(())
}

#[test]
fn what_is_not_http_passes_untouched() -> Result<()> {
    let dir = stage::directory("redirect-opaque")?;
    let sandbox = stage::sandbox(&dir)?;
    let peer = peer_program(&dir)?;
    let mut running = Vec::new();
    for (port, banner) in [(8001, None), (8002, Some("5.7.99-server\n"))] {
        let mut server = sandbox.command(&peer);
        server.args(["4", "tcp", &port.to_string()]).args(banner);
        running.push(Process::start(&format!("peer-{port}"), server, &dir)?);
        sandbox::wait_for_port(sandbox.socket(port, false), Duration::from_secs(10))?;
    }
    let _agent = start_agent(&dir, "agent")?;
    add(&dir, "db", &sandbox, "8001,8002", "open")?;

    // The server speaks first: as MySQL does, and at once.
    let started = Instant::now();
    let mut stream = TcpStream::connect(sandbox.socket(8002, false))?;
    let mut banner = [0; 14];
    stream.read_exact(&mut banner)?;
    ensure!(
        &banner == b"5.7.99-server\n"
            && started.elapsed() < sandbox::patience(Duration::from_secs(1))
    );
    ensure!(count(&dir, "db", "/connections/server_first")? == 1);
    stream.write_all(b"\x01\x02\x03\x04\x0e")?;
    stream.shutdown(Shutdown::Write)?;
    ensure!(read_to_end(&stream)?.ends_with(b"|\x01\x02\x03\x04\x0e"));

    // A client that only sends a word and waits.
    let mut stream = TcpStream::connect(sandbox.socket(8001, false))?;
    stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
    stream.write_all(b"hello")?;
    stream.shutdown(Shutdown::Write)?;
    ensure!(read_to_end(&stream)?.ends_with(b"|hello"));
    ensure!(count(&dir, "db", "/connections/other")? == 2);

    // No HTTP by its first bytes, and HTTP after all: it does not get through.
    let mut stream = TcpStream::connect(sandbox.socket(8001, false))?;
    stream.set_read_timeout(Some(sandbox::patience(Duration::from_secs(10))))?;
    stream.write_all(b"foo")?;
    let mut echoed = [0; 256];
    let passed = stream.read(&mut echoed)?;
    ensure!(echoed[..passed].ends_with(b"|foo"));
    stream.write_all(b" /admin HTTP/1.1\r\n\r\n")?;
    let after = read_to_end(&stream);
    ensure!(after.as_ref().is_err_and(|e| e.to_string().contains("reset")), "{after:?}");
    ensure!(count(&dir, "db", "/connections/late_http")? == 1);
    Ok(())
}

#[test]
fn the_workload_itself_is_not_steered() -> Result<()> {
    let dir = stage::directory("redirect-own")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Python.start(&mut sandbox, &dir)?;
    let _agent = start_agent(&dir, "agent")?;
    add(&dir, "api", &sandbox, "8080", "open")?;
    let script = "import sys, urllib.request as r\nfor host in sys.argv[1:]: r.urlopen(f'http://{host}:8080/m/1').read()";
    let address = sandbox.address(false).to_string();
    let mut own = sandbox.command(python());
    own.args(["-c", script, "127.0.0.1", &address]);
    sandbox::command::run(&mut own)?;
    ensure!(count(&dir, "api", "/connections/accepted")? == 0, "it was steered");
    ensure!(count(&dir, "api", "/kernel/own")? >= 2, "its connections were not seen");
    ensure!(http::get(sandbox.socket(PORT, false), "/m/1")?.status == 200);
    ensure!(count(&dir, "api", "/connections/accepted")? == 1);
    Ok(())
}

/// Namespaces and cgroups in number; gone when dropped.
struct Many(Vec<String>);

impl Many {
    fn create(count: usize) -> Result<Self> {
        let mut many = Self(Vec::new());
        let root = sandbox::cgroup::mount_point()?;
        for n in 0..count {
            let name = format!("stoa-{n}m-{}", std::process::id());
            std::fs::create_dir(root.join(&name))?;
            many.0.push(name);
        }
        many.ip(|name| format!("netns add {name}\n"))?;
        for name in &many.0 {
            sandbox::command::ip(&format!("-n {name} link set lo up"))?;
        }
        Ok(many)
    }

    fn ip(&self, line: impl Fn(&String) -> String) -> Result<()> {
        let batch = std::env::temp_dir().join(format!("stoa-many-{}", std::process::id()));
        std::fs::write(&batch, self.0.iter().map(line).collect::<String>())?;
        sandbox::command::run(Command::new("ip").arg("-batch").arg(&batch))?;
        Ok(std::fs::remove_file(batch)?)
    }
}

impl Drop for Many {
    fn drop(&mut self) {
        let _ = self.ip(|name| format!("netns delete {name}\n"));
        if let Ok(root) = sandbox::cgroup::mount_point() {
            for name in &self.0 {
                let _ = std::fs::remove_dir(root.join(name));
            }
        }
    }
}

#[test]
fn a_thousand_workloads_come_and_go() -> Result<()> {
    const COUNT: usize = 1000;
    let dir = stage::directory("redirect-many")?;
    let many = Many::create(COUNT)?;
    let mut agent = start_agent(&dir, "agent")?;
    let root = sandbox::cgroup::mount_point()?;
    let mut control = Control::open(&dir)?;
    ensure!(control.ask(&json!({ "op": "hello", "source": "test" }))?["ok"] == true);
    let started = Instant::now();
    for name in &many.0 {
        let netns = Path::new("/run/netns").join(name);
        let answer = control.add(name, &root.join(name), &netns, 80)?;
        ensure!(answer["ok"] == true, "{answer}");
    }
    let each = started.elapsed() / COUNT as u32;
    let (memory, _) = agent.process().memory()?;
    println!("{COUNT} workloads: {each:?} each, the agent has {memory} KiB");
    // A snapshot without all but one of them.
    ensure!(control.ask(&json!({ "op": "snapshot_end" }))?["removed"] == 0);
    ensure!(control.ask(&json!({ "op": "keep", "name": many.0[7] }))?["ok"] == true);
    ensure!(control.ask(&json!({ "op": "snapshot_end" }))?["removed"] == COUNT - 1);
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
    // A workload's maps and listeners go when its last connection has.
    while std::fs::read_dir(format!("/proc/{}/fd", agent.process().pid()))?.count() > 200 {
        ensure!(Instant::now() < deadline, "removed workloads still hold files");
        pause(Duration::from_millis(50));
    }
    stop_agent(agent)?;
    Ok(())
}
