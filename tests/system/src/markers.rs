//! Traffic in which every request and every response says which one it is.
//!
//! A request's target holds its number; its body and the response's body are made from that
//! number, so their SHA-256 is known beforehand. A response that was given to another's request
//! cannot go unnoticed.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use sandbox::http::{self, Connection, Framing, Reply};
use sha2::{Digest, Sha256};

use crate::servers::{FILE_SIZES, Server};

/// `"TEXT.TEXT.TEXT..."`, `length` bytes of it.
pub fn filler(text: &str, length: usize) -> Vec<u8> {
    let marker = format!("{text}.");
    marker.bytes().cycle().take(length).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What was sent, and what its own response is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    pub method: &'static str,
    pub status: u16,
    pub request_length: u64,
    pub request_sha256: String,
    /// Length and digest after content decoding.
    pub response_length: u64,
    pub response_sha256: String,
}

/// Everything sent, by target. Targets are unique.
pub type Ledger = HashMap<String, Sent>;

/// A shape of traffic.
#[derive(Clone, Debug)]
pub struct Traffic {
    pub server: Server,
    pub addresses: Vec<SocketAddr>,
    /// Connections at once, each driven by a thread of its own.
    pub connections: usize,
    pub requests_per_connection: usize,
    /// Requests on the way at once on one connection.
    pub pipeline: usize,
    /// Open a connection for every request.
    pub reconnects: bool,
    /// Requests per second over all connections; as fast as it goes without.
    pub rate: Option<f64>,
    pub request_bodies: Vec<usize>,
    pub response_bodies: Vec<usize>,
    pub gzip: bool,
    pub chunked: bool,
}

impl Traffic {
    pub fn to(server: Server, address: SocketAddr) -> Self {
        Self {
            server,
            addresses: vec![address],
            connections: 4,
            requests_per_connection: 100,
            pipeline: 1,
            reconnects: false,
            rate: None,
            request_bodies: vec![0],
            response_bodies: vec![100],
            gzip: false,
            chunked: false,
        }
    }

    /// Sends it all and checks what the client received. `numbers` gives out the markers.
    pub fn drive(&self, numbers: &AtomicU64) -> Result<Ledger> {
        let started = Instant::now();
        let workers: Vec<Result<Ledger>> = thread::scope(|scope| {
            let handles: Vec<_> = (0..self.connections)
                .map(|worker| scope.spawn(move || self.drive_connection(worker, numbers, started)))
                .collect();
            handles
                .into_iter()
                .map(|handle| handle.join().unwrap_or_else(|_| bail!("a client panicked")))
                .collect()
        });
        let mut all = Ledger::new();
        for ledger in workers {
            all.extend(ledger.with_context(|| format!("traffic to {}", self.server.name()))?);
        }
        Ok(all)
    }

    fn drive_connection(
        &self,
        worker: usize,
        numbers: &AtomicU64,
        started: Instant,
    ) -> Result<Ledger> {
        let address = self.addresses[worker % self.addresses.len()];
        let mut ledger = Ledger::new();
        let mut connection = Connection::open(address)?;
        let mut waiting: VecDeque<(String, Sent)> = VecDeque::new();
        let interval = self.rate.map(|rate| self.connections as f64 / rate);
        for round in 0..self.requests_per_connection {
            if let Some(interval) = interval {
                // All connections together keep to the schedule, each a little apart.
                let due = interval * (round as f64 + worker as f64 / self.connections as f64);
                let now = started.elapsed().as_secs_f64();
                if due > now {
                    sandbox::pause(Duration::from_secs_f64(due - now));
                }
            }
            if self.reconnects && round > 0 {
                connection = Connection::open(address)?;
            }
            let (target, sent, bytes) = self.request(numbers.fetch_add(1, Ordering::Relaxed));
            connection.write(&bytes)?;
            waiting.push_back((target, sent));
            if waiting.len() >= self.pipeline {
                // A pipeline is sent whole and then answered whole.
                self.receive_all(&mut connection, &mut waiting, &mut ledger)?;
            }
        }
        self.receive_all(&mut connection, &mut waiting, &mut ledger)?;
        Ok(ledger)
    }

    fn receive_all(
        &self,
        connection: &mut Connection,
        waiting: &mut VecDeque<(String, Sent)>,
        ledger: &mut Ledger,
    ) -> Result<()> {
        while let Some((target, sent)) = waiting.pop_front() {
            let reply =
                connection.receive(false).with_context(|| format!("waiting for {target}"))?;
            check_reply(&target, &sent, &reply)?;
            ledger.insert(target, sent);
        }
        Ok(())
    }

    fn request(&self, number: u64) -> (String, Sent, Vec<u8>) {
        let pick = |sizes: &[usize]| sizes[number as usize % sizes.len()];
        // Another stride than the responses', so that all pairs of sizes come up.
        let request_body = filler(
            &format!("r{number}"),
            self.request_bodies[(number as usize / 7) % self.request_bodies.len()],
        );
        let wanted = pick(&self.response_bodies);
        let id = format!("{number:08}");
        let (target, body) = match self.server {
            Server::Nginx | Server::Apache if wanted > 4000 => {
                let nearest = FILE_SIZES.into_iter().find(|size| *size >= wanted);
                let size = nearest.unwrap_or(FILE_SIZES[FILE_SIZES.len() - 1]);
                (format!("/files/{size}?m={id}"), filler("file", size))
            }
            Server::Nginx | Server::Apache => {
                let folder = if self.gzip { "gzip" } else { "m" };
                let pad = "p".repeat(wanted.saturating_sub(20));
                let target = format!("/{folder}/{id}?p={pad}");
                let body = format!("{target}\n").into_bytes();
                (target, body)
            }
            Server::Python | Server::Node => {
                let mut target = format!("/m/{id}?len={wanted}");
                if self.gzip {
                    target.push_str("&gzip=1");
                }
                if self.chunked {
                    target.push_str("&chunked=1");
                }
                (target, filler(&id, wanted))
            }
        };
        // Files are served to GET alone.
        let is_file = target.starts_with("/files/");
        let method = if request_body.is_empty() || is_file { "GET" } else { "POST" };
        let request_body = if is_file { Vec::new() } else { request_body };
        let mut headers = vec![("X-Marker", id.as_str())];
        if self.gzip {
            headers.push(("Accept-Encoding", "gzip"));
        }
        if self.reconnects {
            headers.push(("Connection", "close"));
        }
        let framing = if self.chunked { Framing::Chunked } else { Framing::ContentLength };
        let bytes = http::request(method, &target, &headers, &request_body, framing);
        let sent = Sent {
            method,
            status: 200,
            request_length: request_body.len() as u64,
            request_sha256: sha256(&request_body),
            response_length: body.len() as u64,
            response_sha256: sha256(&body),
        };
        (target, sent, bytes)
    }
}

fn check_reply(target: &str, sent: &Sent, reply: &Reply) -> Result<()> {
    ensure!(reply.status == sent.status, "{target} was answered {}", reply.status);
    let body = if reply.header("content-encoding") == Some("gzip") {
        let mut decoded = Vec::new();
        std::io::Read::read_to_end(
            &mut flate2::read::GzDecoder::new(reply.body.as_slice()),
            &mut decoded,
        )?;
        decoded
    } else {
        reply.body.clone()
    };
    ensure!(sha256(&body) == sent.response_sha256, "{target} was answered with another body");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_tell_bodies_of_one_length_apart() {
        assert_eq!(filler("ab", 7), b"ab.ab.a");
        assert_eq!(filler("ab", 0), b"");
        assert_ne!(sha256(&filler("1", 100)), sha256(&filler("2", 100)));
        assert_eq!(sha256(b""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn every_request_has_a_target_of_its_own() {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        for server in Server::ALL {
            let mut traffic = Traffic::to(server, address);
            traffic.response_bodies = vec![0, 100, 5000, 40_000];
            let targets: std::collections::HashSet<String> =
                (0..1000).map(|number| traffic.request(number).0).collect();
            assert_eq!(targets.len(), 1000, "{}", server.name());
        }
    }
}
