//! Every captured pair is right, and what is not captured is counted.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use sandbox::{Agent, AgentOptions, Sandbox, Summary, http::Connection};
use system_tests::{
    markers::{Ledger, Sent, Traffic, filler, sha256},
    observed::{Verdict, exchanges},
    rate::Accounts,
    servers::{PORT, Server},
    stage,
};

/// An agent that stops examines what it has captured for five seconds at most.
const LONGER_THAN_IT_EXAMINES: Duration = Duration::from_secs(6);

/// All shapes of traffic that a server takes, over IPv4 and IPv6.
fn shapes(server: Server, sandbox: &Sandbox) -> Vec<(&'static str, Traffic)> {
    let v4 = sandbox.socket(PORT, false);
    let mut both = vec![v4];
    if sandbox.has_ipv6() {
        both.push(sandbox.socket(PORT, true));
    }
    let base = Traffic { addresses: both.clone(), ..Traffic::to(server, v4) };
    let small = vec![0, 1, 17, 500, 1460, 4000];
    let large = vec![0, 15_000, 40_000, 262_144, 1024 * 1024];
    vec![
        ("keep-alive", base.clone()),
        (
            "bodies both ways",
            Traffic {
                request_bodies: vec![0, 1, 700, 5000, 15_000],
                response_bodies: small.clone(),
                ..base.clone()
            },
        ),
        ("pipelined", Traffic { pipeline: 8, ..base.clone() }),
        (
            "pipelined with bodies",
            Traffic {
                pipeline: 5,
                request_bodies: vec![0, 900, 3000],
                response_bodies: small.clone(),
                ..base.clone()
            },
        ),
        (
            "chunked",
            Traffic {
                chunked: true,
                request_bodies: vec![10, 4000, 9000],
                response_bodies: small.clone(),
                ..base.clone()
            },
        ),
        ("gzip", Traffic { gzip: true, response_bodies: vec![200, 1000, 3900], ..base.clone() }),
        (
            "gzip and chunked",
            Traffic {
                gzip: true,
                chunked: true,
                request_bodies: vec![0, 2000],
                response_bodies: vec![300, 3000],
                ..base.clone()
            },
        ),
        ("connection per request", Traffic { reconnects: true, ..base.clone() }),
        (
            "64 connections",
            Traffic {
                connections: 64,
                requests_per_connection: 60,
                rate: Some(sandbox::per_patience(2000.0)),
                response_bodies: small,
                ..base.clone()
            },
        ),
        (
            "large bodies",
            Traffic {
                requests_per_connection: 25,
                request_bodies: vec![0, 100_000, 1024 * 1024],
                response_bodies: large,
                ..base
            },
        ),
    ]
}

fn is_complete_for(server: Server) -> Result<()> {
    let dir = stage::directory(&format!("completeness-{}", server.name()))?;
    let mut sandbox = stage::sandbox(&dir)?;
    server.start(&mut sandbox, &dir)?;
    let numbers = AtomicU64::new(1);
    for (name, traffic) in shapes(server, &sandbox) {
        let recording = dir.join(format!("{}.pcapng", name.replace(' ', "-")));
        let options = AgentOptions::ebpf(&dir.join("agent"))
            .watch_cgroup(server.name(), sandbox.cgroup())
            .flag("--record", &recording);
        let agent = Agent::start(&options)?;
        let ledger = traffic.drive(&numbers)?;
        let accounts = Accounts::read(&agent, server.name(), ledger.len())?;
        let summary = agent.stop()?;
        let verdict = Verdict::of(&ledger, &exchanges(&recording)?);
        println!("{} {name}: {verdict:?}; {}", server.name(), summary.last_line);
        ensure!(verdict.wrong.is_empty(), "{} {name}: {:?}", server.name(), verdict.wrong);
        ensure!(accounts.due > 0 && accounts.balance(), "{} {name}: {accounts:?}", server.name());
        ensure!(
            verdict.missing == 0 && verdict.partial == verdict.over_budget,
            "{} {name}: at this low rate nothing may be lost: {verdict:?}, {accounts:?}",
            server.name()
        );
        ensure!(
            verdict.missing as u64 == summary.lost,
            "{} {name}: {} are missing, {} were counted as lost",
            server.name(),
            verdict.missing,
            summary.lost
        );
        // Only bodies beyond the budget may be cut short, and they must be.
        let over_budget = over_budget(&ledger);
        ensure!(
            verdict.over_budget <= over_budget
                && verdict.over_budget + verdict.missing >= over_budget,
            "{} {name}: {} exchanges are over budget, {} were cut short",
            server.name(),
            over_budget,
            verdict.over_budget
        );
        std::fs::remove_file(recording)?;
    }
    stage::assert_contracts_are_valid(&dir.join("agent/output"))
}

/// The default budget of a body: 16 KiB a message and direction.
fn over_budget(ledger: &Ledger) -> usize {
    const BUDGET: u64 = 16 * 1024;
    ledger.values().filter(|s| s.request_length > BUDGET || s.response_length > BUDGET).count()
}

#[test]
fn nginx_is_captured_completely() -> Result<()> {
    is_complete_for(Server::Nginx)
}

#[test]
fn a_python_server_is_captured_completely() -> Result<()> {
    is_complete_for(Server::Python)
}

#[test]
fn a_node_server_is_captured_completely() -> Result<()> {
    is_complete_for(Server::Node)
}

/// Its listener defers: every connection's first request is filtered before its socket exists.
#[test]
fn apache_is_captured_completely() -> Result<()> {
    is_complete_for(Server::Apache)
}

/// Each request begins in the segment that ends the large body before it.
#[test]
fn requests_behind_large_bodies_are_captured() -> Result<()> {
    const TAIL: usize = 300;
    let dir = stage::directory("completeness-shared-segments")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let recording = dir.join("shared.pcapng");
    let options = AgentOptions::ebpf(&dir.join("agent"))
        .watch_cgroup("nginx", sandbox.cgroup())
        .flag("--record", &recording);
    let agent = Agent::start(&options)?;
    let mut connection = Connection::open(sandbox.socket(PORT, false))?;
    let mut ledger = Ledger::new();
    let mut tail = Vec::new();
    for n in 0..40 {
        let (target, body) = (format!("/m/{n}"), filler(&format!("r{n}"), 60_000 + 997 * n));
        // The length comes early or last, however spelt.
        let (early, last) = match n % 4 {
            0 => ("Content-Length", ""),
            1 => ("content-length", ""),
            2 => ("", "Content-Length"),
            _ => ("", "Content-length"),
        };
        let length = |name: &str| match name {
            "" => String::new(),
            name => format!("{name}: {}\r\n", body.len()),
        };
        let (early, last, pad) = (length(early), length(last), "p".repeat(3 * n));
        let head =
            format!("POST {target} HTTP/1.1\r\nHost: t\r\n{early}X-Pad: {pad}\r\n{last}\r\n");
        let request = [head.into_bytes(), body.clone()].concat();
        let (first, rest) = request.split_at(request.len() - TAIL);
        connection.write(&[&tail, first].concat())?;
        if n > 0 {
            ensure!(connection.receive(false)?.status == 200, "{n}");
        }
        tail = rest.to_vec();
        let answer = format!("{target}\n");
        let sent = Sent {
            method: "POST",
            status: 200,
            request_length: body.len() as u64,
            request_sha256: sha256(&body),
            response_length: answer.len() as u64,
            response_sha256: sha256(answer.as_bytes()),
        };
        ledger.insert(target, sent);
    }
    connection.write(&tail)?;
    ensure!(connection.receive(false)?.status == 200, "the last one");
    drop(connection);
    let accounts = Accounts::read(&agent, "nginx", ledger.len())?;
    let summary = agent.stop()?;
    let verdict = Verdict::of(&ledger, &exchanges(&recording)?);
    println!("{verdict:?} {accounts:?}; {}", summary.last_line);
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    ensure!(accounts.due > 0 && accounts.balance(), "due is not captured + lost: {accounts:?}");
    ensure!(verdict.missing == 0 && verdict.partial == verdict.over_budget, "{verdict:?}");
    ensure!(verdict.over_budget > 0, "no tail was skipped, so this shows nothing: {verdict:?}");
    Ok(())
}

/// 10,000 requests a second for ten seconds: what is not captured is counted, and nothing is paired
/// wrongly. As many fewer where the machine is slow. How much is captured says `cargo xtask bench capture`: it depends on the machine.
#[test]
fn ten_thousand_requests_a_second_are_captured_or_counted() -> Result<()> {
    let dir = stage::directory("completeness-rate")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let measured = system_tests::rate::measure(
        sandbox.cgroup(),
        sandbox.socket(PORT, false),
        sandbox::per_patience(10_000.0),
        10,
        &dir.join("agent"),
    )?;
    println!("{measured:?}");
    let verdict = &measured.verdict;
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    ensure!(
        verdict.whole as u64 + measured.lost >= verdict.sent as u64,
        "{} sent, {} whole, but only {} counted as lost",
        verdict.sent,
        verdict.whole,
        measured.lost
    );
    let accounts = measured.accounts;
    ensure!(accounts.due > 0 && accounts.balance(), "due is not captured + lost: {accounts:?}");
    ensure!(measured.exchanges >= verdict.whole as u64, "{} in the contract", measured.exchanges);
    Ok(())
}

/// As fast as 64 connections go: what cannot be read is left out, and all of it is counted.
#[test]
fn a_saturated_server_is_captured_or_counted() -> Result<()> {
    let dir = stage::directory("completeness-saturated")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let recording = dir.join("all.pcapng");
    let options = AgentOptions::ebpf(&dir.join("agent"))
        .watch_cgroup("nginx", sandbox.cgroup())
        .flag("--record", &recording);
    let agent = Agent::start(&options)?;
    let traffic = Traffic {
        connections: 64,
        requests_per_connection: 800,
        response_bodies: vec![0, 1000, 3000],
        ..Traffic::to(Server::Nginx, sandbox.socket(PORT, false))
    };
    let ledger = traffic.drive(&AtomicU64::new(1))?;
    let accounts = Accounts::settled(&agent, "nginx")?;
    let summary = agent.stop()?;
    let verdict = Verdict::of(&ledger, &exchanges(&recording)?);
    println!("{verdict:?} {accounts:?}; {}", summary.last_line);
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    ensure!(accounts.due > 0 && accounts.balance(), "due is not captured + lost: {accounts:?}");
    ensure!(
        verdict.whole as u64 + summary.lost >= verdict.sent as u64,
        "{} sent, {} whole, but only {} counted as lost",
        verdict.sent,
        verdict.whole,
        summary.lost
    );
    std::fs::remove_file(recording)?;
    Ok(())
}

/// An agent that gets no CPU while it stops reads what its ring holds all the same.
#[test]
fn what_was_captured_is_read_to_the_end() -> Result<()> {
    let dir = stage::directory("completeness-end")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let recording = dir.join("end.pcapng");
    let options = AgentOptions::ebpf(&dir.join("agent"))
        .watch_cgroup("nginx", sandbox.cgroup())
        .flag("--record", &recording);
    let mut agent = Agent::start(&options)?;
    let pid = agent.process().pid();
    ensure!(links_of(pid)? > 0, "it holds no link: this test would not see when it lets go");
    // Its programs go on without it.
    agent.process().signal("STOP")?;
    let traffic = Traffic {
        connections: 16,
        // All of it has room in the ring.
        requests_per_connection: 200,
        pipeline: 8,
        request_bodies: vec![0, 0, 300],
        ..Traffic::to(Server::Nginx, sandbox.socket(PORT, false))
    };
    let ledger = traffic.drive(&AtomicU64::new(1))?;
    agent.process().signal("TERM")?;
    agent.process().signal("CONT")?;
    // It lets go of the programs first; then it reads.
    let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
    while links_of(pid)? > 0 {
        ensure!(Instant::now() < deadline, "it does not stop: {}", agent.stderr());
    }
    agent.process().signal("STOP")?;
    sandbox::pause(LONGER_THAN_IT_EXAMINES);
    agent.process().signal("CONT")?;
    let status = agent.process().wait(Duration::from_secs(60))?;
    ensure!(status.success(), "the agent ended with {status}: {}", agent.stderr());
    let summary = Summary::read(agent.stdout(), agent.stderr())?;
    let verdict = Verdict::of(&ledger, &exchanges(&recording)?);
    println!("{verdict:?}; {}", summary.last_line);
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    ensure!(verdict.whole == verdict.sent && summary.lost == 0, "{verdict:?}");
    std::fs::remove_file(recording)?;
    Ok(())
}

/// Programs that a process holds attached: a link's file says so (proc(5), fdinfo).
fn links_of(pid: u32) -> Result<usize> {
    let mut links = 0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let info = std::fs::read_to_string(entry?.path()).unwrap_or_default();
        links += usize::from(info.lines().any(|line| line.starts_with("link_id:")));
    }
    Ok(links)
}

/// The control: without an agent, every server answers every shape of traffic as the client expects.
#[test]
fn servers_answer_marked_traffic() -> Result<()> {
    for server in Server::ALL {
        let dir = stage::directory(&format!("marked-{}", server.name()))?;
        let mut sandbox = stage::sandbox(&dir)?;
        server.start(&mut sandbox, &dir)?;
        let numbers = AtomicU64::new(1);
        for (name, traffic) in shapes(server, &sandbox) {
            let sent = traffic.drive(&numbers)?.len();
            ensure!(
                sent == traffic.connections * traffic.requests_per_connection,
                "{} {name}: {sent}",
                server.name()
            );
        }
    }
    Ok(())
}
