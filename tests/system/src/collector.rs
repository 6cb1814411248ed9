//! A collector of spans that is not ours: gRPC and the messages of OTLP as their projects publish
//! them for Python.

use std::{
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use sandbox::{Process, pause};
use serde_json::Value;

use crate::servers::python;

#[derive(Debug)]
pub struct Collector {
    process: Process,
    address: SocketAddr,
}

impl Collector {
    pub fn start(dir: &Path) -> Result<Self> {
        let mut command = Command::new(python());
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/collector.py"));
        let mut process = Process::start("collector", command, &dir.join("logs"))?;
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
        let port = loop {
            if let Some((port, _)) = process.stdout().split_once('\n') {
                break port.parse()?;
            }
            ensure!(process.is_running(), "the collector has ended:\n{}", process.stderr());
            ensure!(Instant::now() < deadline, "the collector says no port");
            pause(Duration::from_millis(20));
        };
        Ok(Self { process, address: SocketAddr::from(([127, 0, 0, 1], port)) })
    }

    /// For `--otel-endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that it has been sent, the first to end first.
    pub fn spans(&self) -> Result<Vec<Value>> {
        let said = self.process.stdout();
        // What is being written has no end yet.
        let (said, _) = said.rsplit_once('\n').unwrap_or_default();
        said.lines().skip(1).map(|line| serde_json::from_str(line).context("no span")).collect()
    }

    /// Waits until it has been sent so many.
    pub fn wait_for(&self, count: usize) -> Result<Vec<Value>> {
        let deadline = Instant::now() + sandbox::patience(Duration::from_secs(20));
        loop {
            let spans = self.spans()?;
            if spans.len() >= count {
                return Ok(spans);
            }
            ensure!(Instant::now() < deadline, "{} spans, not {count}: {spans:#?}", spans.len());
            pause(Duration::from_millis(50));
        }
    }
}
