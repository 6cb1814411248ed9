//! Every captured pair is right, and what is not captured is counted.

use std::sync::atomic::AtomicU64;

use anyhow::{Result, ensure};
use sandbox::{Agent, AgentOptions, Sandbox};
use system_tests::{
    markers::{Ledger, Traffic},
    observed::{Verdict, exchanges},
    rate::Accounts,
    servers::{PORT, Server},
    stage,
};

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
                rate: Some(2000.0),
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
        sandbox::pause(std::time::Duration::from_millis(300));
        let accounts = Accounts::of(&agent, server.name())?;
        let summary = agent.stop()?;
        let verdict = Verdict::of(&ledger, &exchanges(&recording)?);
        println!("{} {name}: {verdict:?}; {}", server.name(), summary.last_line);
        ensure!(verdict.wrong.is_empty(), "{} {name}: {:?}", server.name(), verdict.wrong);
        ensure!(accounts.due > 0 && accounts.balance(), "{} {name}: {accounts:?}", server.name());
        // A server that answers before it has read a large body lets the client's next request share
        // a segment with the tail of that body, which the budget skips: it is lost, and counted.
        let may_miss = if name == "large bodies" { verdict.sent / 20 } else { 0 };
        ensure!(
            verdict.missing <= may_miss && verdict.partial == verdict.over_budget,
            "{} {name}: at this low rate nothing may be lost: {verdict:?}",
            server.name()
        );
        ensure!(
            summary.lost == verdict.missing as u64,
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

/// 10,000 requests a second for ten seconds: at least 99.9 % captured, the rest counted.
#[test]
fn ten_thousand_requests_a_second_are_captured() -> Result<()> {
    let dir = stage::directory("completeness-rate")?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let measured = system_tests::rate::measure(
        sandbox.cgroup(),
        sandbox.socket(PORT, false),
        10_000.0,
        10,
        &dir.join("agent"),
    )?;
    println!("{measured:?}");
    let verdict = &measured.verdict;
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    ensure!(verdict.captured() >= 0.999, "captured {:.4} of {verdict:?}", verdict.captured());
    ensure!(
        verdict.whole as u64 + measured.lost >= verdict.sent as u64,
        "{} sent, {} whole, but only {} counted as lost",
        verdict.sent,
        verdict.whole,
        measured.lost
    );
    let accounts = measured.accounts;
    ensure!(accounts.due > 0 && accounts.balance(), "due is not captured + lost: {accounts:?}");
    // The client kept to the rate: otherwise this shows less than it says.
    ensure!(measured.rate > 9_500.0, "the client only sent {:.0} requests/s", measured.rate);
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
    sandbox::pause(std::time::Duration::from_secs(1));
    let accounts = Accounts::of(&agent, "nginx")?;
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
