//! `cargo xtask bench proxy`: proxy mode beside nginx, HAProxy and Envoy, one worker each, in front
//! of the same upstream, one after the other in each round.

mod peers;

use std::{collections::BTreeMap, fs, net::SocketAddr, time::Duration};

use anyhow::{Result, bail};
use sandbox::Process;

pub use self::peers::envoy_program;
use self::peers::{Peers, Policies};
use crate::{
    interrupt, provision, setup,
    workspace::{PROFILE, build, target},
    wrk,
};

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

/// Envoy has no Rego of its own and its limits are another kind: it is asked for a JWT at most.
const SECTIONS: [(&str, Policies); 3] = [
    ("plain", Policies::None),
    ("JWT (RS256, verified once, then remembered by either)", Policies::Jwt),
    ("JWT, rate limit and Rego", Policies::All),
];

struct Proxy {
    name: &'static str,
    policies: Policies,
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
    let envoy = envoy_program(&provision::python()?)?;
    let binaries = build(PROFILE)?;
    interrupt::catch()?;
    let dir = target().join("bench-proxy");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let peers = Peers::start(&binaries, &envoy, &dir)?;
    println!("{} rounds of {} s each, build profile `{PROFILE}`", options.rounds, options.seconds);
    for (section, policies) in SECTIONS {
        let proxies: Vec<&Proxy> =
            peers.proxies.iter().filter(|proxy| proxy.policies == policies).collect();
        for case in CASES {
            measure(options, &peers, section, &proxies, case)?;
        }
    }
    Ok(())
}

/// One case, all proxies, all rounds.
fn measure(
    options: &Options,
    peers: &Peers,
    section: &str,
    proxies: &[&Proxy],
    (case, path, connections): (&str, &str, u32),
) -> Result<()> {
    let mut results: BTreeMap<&str, Vec<Measured>> = BTreeMap::new();
    let mut direct = Vec::new();
    for round in 0..options.rounds as usize {
        interrupt::check()?;
        let load =
            |address| load(address, path, connections, options.seconds, &peers.authorization);
        direct.push(load(peers.upstream)?);
        // Who goes first changes, so that drift of the machine favours nobody.
        for i in 0..proxies.len() {
            let proxy = proxies[(i + round) % proxies.len()];
            let before = proxy.process.cpu_time()?;
            let load = load(proxy.address)?;
            let cpu = proxy.process.cpu_time()?.saturating_sub(before);
            let (_, memory) = proxy.process.memory()?;
            results.entry(proxy.name).or_default().push(Measured { load, cpu, memory });
        }
    }
    println!("\n{section}: {case}\n");
    println!("| | requests/s | p50 ms | p99 ms | CPU us a request | RSS MiB |");
    println!("|---|---|---|---|---|---|");
    println!(
        "| direct | {:.0} | {:.3} | {:.3} | | |",
        median(direct.iter().map(|run| run.per_second)),
        median(direct.iter().map(|run| run.p50_ms)),
        median(direct.iter().map(|run| run.p99_ms)),
    );
    for proxy in proxies {
        let runs = &results[proxy.name];
        println!(
            "| {} | {:.0} | {:.3} | {:.3} | {:.1} | {} |",
            proxy.name,
            median(runs.iter().map(|run| run.load.per_second)),
            median(runs.iter().map(|run| run.load.p50_ms)),
            median(runs.iter().map(|run| run.load.p99_ms)),
            median(runs.iter().map(cpu_per_request)),
            runs.iter().map(|run| run.memory).max().unwrap_or(0) / 1024,
        );
    }
    // Of runs that followed one another, since the machine drifts.
    let ratios: Vec<String> = proxies
        .iter()
        .filter(|proxy| proxy.name != "stoa")
        .map(|proxy| {
            let pairs = results[proxy.name].iter().zip(&results["stoa"]);
            let ratio = median(pairs.map(|(theirs, ours)| {
                cpu_per_request(theirs) / cpu_per_request(ours).max(f64::MIN_POSITIVE)
            }));
            format!("{ratio:.2} x {}", proxy.name)
        })
        .collect();
    if !ratios.is_empty() {
        println!("\nrequests per CPU second: {}", ratios.join(", "));
    }
    Ok(())
}

fn cpu_per_request(run: &Measured) -> f64 {
    run.cpu.as_secs_f64() * 1e6 / run.load.requests.max(1) as f64
}

fn load(
    address: SocketAddr,
    path: &str,
    connections: u32,
    seconds: u32,
    authorization: &str,
) -> Result<wrk::Run> {
    let run = wrk::get(address, path, connections, seconds, &[authorization])?;
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
