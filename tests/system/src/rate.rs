//! Marked traffic at a constant rate, under the agent's eyes.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use anyhow::Result;
use sandbox::{Agent, AgentOptions, agent::sum, pause};

use crate::{
    markers::Traffic,
    observed::{Verdict, exchanges},
    servers::Server,
};

#[derive(Debug)]
pub struct Measured {
    pub verdict: Verdict,
    /// Requests per second that the client managed.
    pub rate: f64,
    /// Exchanges that the agent says it lost.
    pub lost: u64,
    pub exchanges: u64,
    /// Of them, those that were only counted.
    pub passed_over: u64,
    pub cpu: Duration,
    pub accounts: Accounts,
}

/// The capture's own accounting, in segments: `due = captured + lost`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    pub due: u64,
    pub captured: u64,
    pub lost: u64,
    /// Exchanges left out whole.
    pub shed: u64,
}

impl Accounts {
    fn of(agent: &Agent, service: &str) -> Result<Self> {
        let metrics = agent.metrics()?;
        let state = |state: &str| {
            let name = "stoa_capture_segments_total";
            let of_service = metrics.iter().filter(|m| m.label("service") == Some(service));
            let of_state = of_service.filter(|m| m.name == name && m.label("state") == Some(state));
            of_state.map(|metric| metric.value as u64).sum()
        };
        let total = |name: &str| sum(&metrics, name, "service", service);
        Ok(Self {
            due: state("due"),
            captured: state("captured"),
            lost: total("stoa_capture_lost_segments_total"),
            shed: total("stoa_capture_shed_exchanges_total"),
        })
    }

    /// Once nothing is added any more: the agent publishes a few times a second, and later on a
    /// busy machine.
    pub fn settled(agent: &Agent, service: &str) -> Result<Self> {
        let until = Instant::now() + sandbox::patience(Duration::from_secs(20));
        let mut before = Self::default();
        loop {
            pause(Duration::from_millis(600));
            let now = Self::of(agent, service)?;
            if now.due > 0 && now == before || Instant::now() > until {
                return Ok(now);
            }
            before = now;
        }
    }

    /// The same, of an agent that has read all of so many exchanges, or has left some of them out. One
    /// that is told to stop examines what it gets to in a few seconds, and counts the rest; on an
    /// emulated machine that may be much. Should it never get there, the accounts tell.
    pub fn read(agent: &Agent, service: &str, exchanges: usize) -> Result<Self> {
        let until = Instant::now() + sandbox::patience(Duration::from_secs(20));
        loop {
            let metrics = agent.metrics()?;
            let total = |name: &str| sum(&metrics, name, "service", service);
            let told =
                total("stoa_shadow_exchanges_total") + total("stoa_capture_shed_exchanges_total");
            if told >= exchanges as u64 || Instant::now() > until {
                return Self::settled(agent, service);
            }
            pause(Duration::from_millis(100));
        }
    }

    pub fn balance(self) -> bool {
        self.due == self.captured + self.lost
    }
}

/// Drives nginx at `address`, which runs in `cgroup`, with 64 connections and about 1 KB each way.
pub fn measure(
    cgroup: &Path,
    address: SocketAddr,
    rate: f64,
    seconds: usize,
    dir: &Path,
) -> Result<Measured> {
    let recording = dir.join("rate.pcapng");
    let options = AgentOptions::ebpf(dir).watch_cgroup("rate", cgroup).flag("--record", &recording);
    let mut agent = Agent::start(&options)?;
    let traffic = Traffic {
        connections: 64,
        requests_per_connection: (rate * seconds as f64 / 64.0) as usize,
        rate: Some(rate),
        request_bodies: vec![1024],
        response_bodies: vec![1024],
        ..Traffic::to(Server::Nginx, address)
    };
    let before = agent.process().cpu_time()?;
    let started = Instant::now();
    let ledger = traffic.drive(&AtomicU64::new(1))?;
    let rate = ledger.len() as f64 / started.elapsed().as_secs_f64();
    let accounts = Accounts::settled(&agent, "rate")?;
    let cpu = agent.process().cpu_time()?.saturating_sub(before);
    let passed_over = agent.passed_over("rate")?;
    let summary = agent.stop()?;
    let verdict = Verdict::of(&ledger, &exchanges(&recording)?);
    std::fs::remove_file(recording)?;
    Ok(Measured {
        verdict,
        rate,
        lost: summary.lost,
        exchanges: summary.exchanges,
        passed_over,
        cpu,
        accounts,
    })
}
