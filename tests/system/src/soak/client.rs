//! A client that asks for everything in turn, faults included, and keeps a ledger.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::http::{Connection, Framing, Reply, request};

use super::ledger::Ledger;
use crate::torture::{corpus::StreamCase, http2};

/// Name, and the statuses that may come of it; with `cut`, an end in the middle of the body.
const ASKED: [(&str, &[u16], bool); 20] = [
    ("/u/bytes/0", &[200], false),
    ("/u/bytes/100", &[200], false),
    ("/u/bytes/1024", &[200], false),
    ("/u/bytes/1024", &[200], false),
    ("/u/bytes/65536", &[200], false),
    ("/u/bytes/300000", &[200], false),
    ("/u/chunked/0", &[200], false),
    ("/u/chunked/5000", &[200], false),
    ("/u/longer", &[200], false),
    ("/u/reset", &[502], false),
    ("/u/nothing", &[502], false),
    ("/u/half-head", &[502], false),
    ("/u/garbage", &[502], false),
    ("/u/both-lengths", &[502], false),
    // A reset may overtake what was sent before it.
    ("/u/reset-in-body", &[502], true),
    ("/u/close-in-body", &[], true),
    ("/u/close-in-chunks", &[], true),
    ("/u/stall", &[504], false),
    ("/nowhere", &[404], false),
    ("/u/early", &[200], false),
];

const HOST: (&str, &str) = ("Host", "soak.test");

/// Runs until the deadline; what it does follows from `seed`.
pub fn run(address: SocketAddr, deadline: Instant, seed: u64) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut connection = None;
    while Instant::now() < deadline {
        // xorshift64.
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        match random % 32 {
            n @ 0..20 => {
                let (path, statuses, cut) = ASKED[usize::try_from(n)?];
                // Stalls are rarer than the rest, or clients would do little but wait.
                let is_skipped = path == "/u/stall" && !(random >> 32).is_multiple_of(8);
                if !is_skipped {
                    get(address, &mut connection, path, statuses, cut, &mut ledger);
                }
            }
            20..25 => post(address, &mut connection, random, &mut ledger),
            25 => malformed(address, &mut ledger)?,
            26 => leave_in_the_answer(address, &mut ledger)?,
            27 => leave_in_the_request(address, &mut ledger)?,
            28 | 29 => over_http2(address, &mut ledger)?,
            _ => connection = None,
        }
    }
    Ok(ledger)
}

/// On the connection that is open, or on a new one.
fn exchange(
    address: SocketAddr,
    connection: &mut Option<Connection>,
    bytes: &[u8],
) -> io::Result<Reply> {
    let mut open = match connection.take() {
        Some(open) => open,
        None => Connection::open(address)?,
    };
    open.write(bytes)?;
    let reply = open.receive(false)?;
    if reply.header("connection") != Some("close") {
        *connection = Some(open);
    }
    Ok(reply)
}

fn get(
    address: SocketAddr,
    connection: &mut Option<Connection>,
    path: &str,
    statuses: &[u16],
    cut: bool,
    ledger: &mut Ledger,
) {
    let bytes = request("GET", path, &[HOST], b"", Framing::ContentLength);
    match exchange(address, connection, &bytes) {
        Ok(reply) => {
            if !statuses.contains(&reply.status) {
                ledger.wrong.push(format!("{path} got {}: {}", reply.status, reply.text()));
            }
            let size = path.rsplit('/').next().and_then(|size| size.parse().ok());
            if reply.status == 200 && size.is_some_and(|size: usize| size != reply.body.len()) {
                ledger.wrong.push(format!("{path} got {} bytes", reply.body.len()));
            }
            tally(&reply, ledger);
        }
        Err(_) if cut => {
            ledger.count(200);
            ledger.cut += 1;
        }
        Err(error) => ledger.wrong.push(format!("{path}: {error}")),
    }
}

fn tally(reply: &Reply, ledger: &mut Ledger) {
    ledger.count(reply.status);
    if reply.status >= 400
        && let Ok(problem) = serde_json::from_slice::<serde_json::Value>(&reply.body)
        && let Some(code) = problem["code"].as_str()
    {
        *ledger.codes.entry(code.to_owned()).or_default() += 1;
    }
}

fn post(
    address: SocketAddr,
    connection: &mut Option<Connection>,
    random: u64,
    ledger: &mut Ledger,
) {
    let size = [0, 10, 1000, 40_000, 200_000][usize::try_from(random >> 8).unwrap_or(0) % 5];
    let framing = if random & 64 == 0 { Framing::Chunked } else { Framing::ContentLength };
    let bytes = request("POST", "/u/sink", &[HOST], &vec![b'y'; size], framing);
    match exchange(address, connection, &bytes) {
        Ok(reply) => {
            if reply.status != 200 || reply.text() != size.to_string() {
                ledger.wrong.push(format!("{size} bytes got {}: {}", reply.status, reply.text()));
            }
            tally(&reply, ledger);
        }
        // POST is not repeated on a connection that had died (RFC 9110 section 9.2.2).
        Err(error) => ledger.wrong.push(format!("/u/sink: {error}")),
    }
}

fn malformed(address: SocketAddr, ledger: &mut Ledger) -> Result<()> {
    let mut connection = Connection::open(address)?;
    connection.write(b"GET /u/bytes/1 HTTP/1.1\r\nHost : x\r\n\r\n")?;
    let reply = connection.receive(false)?;
    ensure!(reply.status == 400, "a malformed request got {}", reply.status);
    tally(&reply, ledger);
    Ok(())
}

/// Reads a little of what no socket's buffer holds, and goes.
fn leave_in_the_answer(address: SocketAddr, ledger: &mut Ledger) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let size = 64 << 20;
    stream.write_all(format!("GET /u/bytes/{size} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())?;
    let mut begin = [0; 1000];
    stream.read_exact(&mut begin)?;
    ensure!(begin.starts_with(b"HTTP/1.1 200"), "{}", begin.escape_ascii());
    ledger.count(200);
    ledger.cut += 1;
    Ok(())
}

fn leave_in_the_request(address: SocketAddr, ledger: &mut Ledger) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let head = "POST /u/sink HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    stream.write_all(head.as_bytes())?;
    stream.write_all(&[b'z'; 1000])?;
    ledger.count(400);
    ledger.abandoned += 1;
    Ok(())
}

fn over_http2(address: SocketAddr, ledger: &mut Ledger) -> Result<()> {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let stream = |method: &str, path: &str, data: &[&str]| StreamCase {
        fields: vec![
            field(":method", method),
            field(":scheme", "http"),
            field(":path", path),
            field(":authority", "soak.test"),
        ],
        data: data.iter().map(|data| (*data).to_owned()).collect(),
        trailers: Vec::new(),
    };
    let streams = [
        stream("GET", "/u/bytes/100", &[]),
        stream("POST", "/u/sink", &["hello", "{{x*5000}}"]),
        stream("GET", "/u/garbage", &[]),
    ];
    // Its last stream asks for what no route is for.
    let said = http2::send(address, &streams)?;
    let statuses: Vec<&str> = said.split(' ').filter_map(|word| word.get(..3)).collect();
    if statuses != ["200", "200", "502", "404"] {
        ledger.wrong.push(format!("over HTTP/2: {said}"));
    }
    for status in statuses {
        ledger.count(status.parse()?);
    }
    *ledger.codes.entry("upstream_malformed".to_owned()).or_default() += 1;
    Ok(())
}

/// Bytes that one message may have: up, and then down.
pub fn stream_both_ways(address: SocketAddr, size: u64) -> Result<Ledger> {
    let mut ledger = Ledger::default();
    let piece = vec![b's'; 256 << 10];
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.set_write_timeout(Some(Duration::from_secs(60)))?;
    let head = format!("POST /u/sink HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n");
    stream.write_all(head.as_bytes())?;
    let mut left = size;
    while left > 0 {
        let here = left.min(piece.len() as u64);
        stream.write_all(&piece[..usize::try_from(here)?]).context("the upload broke off")?;
        left -= here;
    }
    let ask = format!("GET /u/bytes/{size} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(ask.as_bytes())?;
    let mut begin = vec![0; 4096];
    let mut text = String::new();
    while text.matches("\r\n\r\n").count() < 2 {
        let count = stream.read(&mut begin)?;
        ensure!(count > 0, "the connection ended: {text}");
        text.push_str(&String::from_utf8_lossy(&begin[..count]));
    }
    ensure!(text.contains(&format!("\r\n\r\n{size}HTTP/1.1 200")), "{text}");
    let seen = text.rsplit("\r\n\r\n").next().unwrap_or_default().len() as u64;
    let rest = io::copy(&mut stream, &mut io::sink()).context("the download broke off")?;
    ensure!(seen + rest == size, "{} bytes came, of {size}", seen + rest);
    ledger.count(200);
    ledger.count(200);
    Ok(ledger)
}
