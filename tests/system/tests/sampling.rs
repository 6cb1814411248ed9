//! Asked for one exchange in so many, the kernel copies whole ones, and counts the others.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _},
    net::{TcpListener, TcpStream},
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
    let (ledger, counters) = record_while(source, to, || traffic.drive(&AtomicU64::new(1)))?;
    let verdict = Verdict::of(&ledger, &exchanges(to)?);
    println!("{verdict:?} {counters:?}");
    ensure!(verdict.wrong.is_empty(), "{:?}", verdict.wrong);
    Ok((verdict, counters))
}

fn record_while<T: Send>(
    source: &mut EbpfCapture,
    to: &Path,
    drive: impl FnOnce() -> Result<T> + Send,
) -> Result<(T, ServiceCounters)> {
    let mut recorder = Recorder::new(BufWriter::new(File::create(to)?))?;
    recorder.name_service(0, "service")?;
    let is_over = AtomicBool::new(false);
    let driven = std::thread::scope(|scope| {
        let driven = scope.spawn(|| {
            let driven = drive();
            is_over.store(true, Ordering::Release);
            driven
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
    Ok((driven, counters))
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

/// A client that sends several requests before it hears an answer.
struct Ahead {
    stream: BufReader<TcpStream>,
    asked: usize,
    answered: usize,
}

/// Answers to the n-th request of a connection are so long.
const fn length_of(n: usize) -> usize {
    100 + n
}

impl Ahead {
    fn ask(&mut self, count: usize, body: usize) -> Result<()> {
        let mut text = String::new();
        for _ in 0..count {
            let n = self.asked;
            self.asked += 1;
            text.push_str(&match body {
                0 => format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n"),
                _ => format!(
                    "POST /{n} HTTP/1.1\r\nHost: a\r\nUser-Agent: one that has more to say\r\n\
                     Content-Length: {body}\r\n\r\n{}",
                    "b".repeat(body)
                ),
            });
        }
        Ok(self.stream.get_mut().write_all(text.as_bytes())?)
    }

    fn hear(&mut self) -> Result<()> {
        let expected = length_of(self.answered);
        self.answered += 1;
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            self.stream.read_line(&mut line)?;
        }
        Ok(self.stream.read_exact(&mut vec![0; expected])?)
    }
}

/// The other end of [`Ahead`]: answers one request when it is told to.
struct Lockstep {
    stream: BufReader<TcpStream>,
    answered: usize,
}

impl Lockstep {
    fn answer(&mut self) -> Result<()> {
        let (mut line, mut body) = (String::new(), 0);
        while line != "\r\n" {
            line.clear();
            self.stream.read_line(&mut line)?;
            if let Some(length) = line.strip_prefix("Content-Length: ") {
                body = length.trim().parse()?;
            }
        }
        self.stream.read_exact(&mut vec![0; body])?;
        let length = length_of(self.answered);
        self.answered += 1;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        Ok(self.stream.get_mut().write_all((answer + &"a".repeat(length)).as_bytes())?)
    }
}

/// A client that is always ahead by some requests looks, from the second answer on, like one that
/// waits: its next request comes after a whole answer, and another answer comes after that.
#[test]
fn who_is_ahead_from_one_segment_on_is_not_taken_for_who_waits() -> Result<()> {
    let dir = stage::directory("sampling-ahead")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let mut source = EbpfCapture::load(&EbpfConfig::default())?;
    source.watch(0, &WatchSpec::Port(address.port()))?;
    source.sample(3);
    let to = dir.join("ahead.pcapng");
    let (sent, counters) = record_while(&mut source, &to, || {
        let mut sent = 0;
        for (ahead, body) in [(2, 0), (3, 0), (9, 0), (2, 40), (4, 40), (3, 700)].repeat(20) {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            let mut client = Ahead { stream: BufReader::new(stream), asked: 0, answered: 0 };
            let stream = listener.accept()?.0;
            stream.set_nodelay(true)?;
            let mut server = Lockstep { stream: BufReader::new(stream), answered: 0 };
            // It may wait at first.
            for _ in 0..ahead {
                client.ask(1, body)?;
                server.answer()?;
                client.hear()?;
            }
            client.ask(ahead, body)?;
            for _ in 0..12 {
                server.answer()?;
                client.hear()?;
                client.ask(1, body)?;
            }
            for _ in 0..ahead {
                server.answer()?;
                client.hear()?;
            }
            sent += client.asked;
        }
        Ok(sent)
    })?;
    let observed = exchanges(&to)?;
    let mut whole = 0;
    for exchange in observed {
        let (Some(target), Some(response)) = (&exchange.target, &exchange.response) else {
            continue;
        };
        let n: usize = target.trim_start_matches('/').parse()?;
        ensure!(
            response.length.is_none_or(|length| length == length_of(n) as u64),
            "{target} has the answer to another: {response:?}"
        );
        whole += usize::from(exchange.is_complete);
    }
    println!("{sent} sent, {whole} whole, {counters:?}");
    ensure!(whole > 0 && counters.shed_exchanges > 0, "{whole} whole, {counters:?}");
    Ok(())
}
