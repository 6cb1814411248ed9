//! Asked for one exchange in so many, the kernel copies whole ones, and counts the others.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use sandbox::{Sandbox, pause};
use stoa_gateway::capture::{
    CaptureSource, ServiceCounters, WatchSpec,
    ebpf::{EbpfCapture, EbpfConfig},
};
use stoa_wire::recording::Recorder;
use system_tests::{
    markers::Traffic,
    observed::{Verdict, exchanges},
    servers::{PORT, Server},
    stage,
};

/// Drives the traffic while everything that the source hands on is recorded. Nothing may be paired
/// wrongly.
fn record(
    source: &mut EbpfCapture,
    traffic: &Traffic,
    to: &Path,
) -> Result<(Verdict, ServiceCounters)> {
    let mut recorder = Recorder::new(BufWriter::new(File::create(to)?))?;
    recorder.name_service(0, "nginx")?;
    let is_over = AtomicBool::new(false);
    let ledger = std::thread::scope(|scope| {
        let driven = scope.spawn(|| {
            let ledger = traffic.drive(&AtomicU64::new(1));
            is_over.store(true, Ordering::Release);
            ledger
        });
        loop {
            let is_last = is_over.load(Ordering::Acquire);
            let mut written = Ok(());
            let events = source.drain(&mut |event| {
                if written.is_ok() {
                    written = recorder.record(event);
                }
            })?;
            written?;
            if events == 0 && is_last {
                break;
            }
            if events == 0 {
                pause(Duration::from_millis(1));
            }
        }
        driven.join().map_err(|_| anyhow::anyhow!("the client failed"))?
    })?;
    recorder.finish()?;
    let counters = source.counters().pop().context("no service is counted")?;
    let verdict = Verdict::of(&ledger, &exchanges(to)?);
    println!("{verdict:?} {counters:?}");
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    Ok((verdict, counters))
}

/// nginx, and a source that watches it.
fn begin(name: &str, config: &EbpfConfig) -> Result<(PathBuf, Sandbox, EbpfCapture)> {
    let dir = stage::directory(name)?;
    let mut sandbox = stage::sandbox(&dir)?;
    Server::Nginx.start(&mut sandbox, &dir)?;
    let mut source = EbpfCapture::load(config)?;
    source.watch(0, &WatchSpec::Cgroup(sandbox.cgroup().to_owned()))?;
    Ok((dir, sandbox, source))
}

#[test]
fn a_sample_is_of_whole_exchanges_and_the_rest_is_counted() -> Result<()> {
    // Has room for all of it, so that nothing else is left out.
    let config = EbpfConfig { ring_bytes: 64 << 20, ..Default::default() };
    let (dir, sandbox, mut source) = begin("sampling", &config)?;
    source.sample(4);
    let traffic = Traffic {
        connections: 8,
        requests_per_connection: 500,
        request_bodies: vec![0, 700, 5000],
        response_bodies: vec![0, 1000, 15_000],
        ..Traffic::to(Server::Nginx, sandbox.socket(PORT, false))
    };
    let (verdict, counters) = record(&mut source, &traffic, &dir.join("sampled.pcapng"))?;
    ensure!(verdict.partial == 0, "what is copied is whole: {verdict:?}");
    // One in four of 4,000 by chance: 1,000 with a standard deviation of 27.
    ensure!((800..=1200).contains(&verdict.whole), "{verdict:?}");
    ensure!(
        verdict.whole as u64 + counters.shed_exchanges == verdict.sent as u64,
        "{verdict:?}, {} shed",
        counters.shed_exchanges
    );
    let lost: u64 = counters.lost.iter().map(|(_, segments, _)| segments).sum();
    ensure!(counters.due_segments == counters.captured_segments + lost, "{counters:?}");

    source.sample(1);
    let (verdict, _) = record(&mut source, &traffic, &dir.join("all.pcapng"))?;
    ensure!(verdict.whole == verdict.sent, "all again: {verdict:?}");
    Ok(())
}

#[test]
fn a_sample_of_pipelined_requests_is_paired_rightly() -> Result<()> {
    let (dir, sandbox, mut source) = begin("sampling-pipelined", &EbpfConfig::default())?;
    source.sample(3);
    let traffic = Traffic {
        connections: 32,
        requests_per_connection: 100,
        pipeline: 6,
        request_bodies: vec![0, 900],
        response_bodies: vec![0, 1000],
        ..Traffic::to(Server::Nginx, sandbox.socket(PORT, false))
    };
    let (verdict, counters) = record(&mut source, &traffic, &dir.join("sampled.pcapng"))?;
    // Of 32 connections one in three is copied; that none is has a chance of 2 in a million.
    ensure!(verdict.whole > 0, "{verdict:?}");
    ensure!(counters.shed_exchanges > 0, "nothing was left out: {counters:?}");
    Ok(())
}
