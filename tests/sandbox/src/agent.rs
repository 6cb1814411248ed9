//! A running agent and the summary it ends with.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{http, pause, process::Process};

/// How to start the agent. Paths end up in `dir`: `state/`, `output/`, the logs.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    pub capture: String,
    /// `NAME=cgroup:PATH`, `NAME=pid:PID`, `NAME=port:PORT`.
    pub watch: Vec<String>,
    pub more: Vec<String>,
    pub environment: Vec<(String, String)>,
    pub dir: PathBuf,
}

impl AgentOptions {
    pub fn ebpf(dir: &Path) -> Self {
        Self {
            capture: "Ebpf".to_owned(),
            watch: Vec::new(),
            more: Vec::new(),
            environment: Vec::new(),
            dir: dir.to_path_buf(),
        }
    }

    pub fn watch_cgroup(mut self, name: &str, path: &Path) -> Self {
        self.watch.push(format!("{name}=cgroup:{}", path.display()));
        self
    }

    pub fn flag(mut self, name: &str, value: impl AsRef<std::ffi::OsStr>) -> Self {
        self.more.push(name.to_owned());
        self.more.push(value.as_ref().to_string_lossy().into_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// Stopped when dropped, if it still runs.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    api: SocketAddr,
    dir: PathBuf,
}

/// What the agent said at its end.
#[derive(Clone, Debug)]
pub struct Summary {
    pub stdout: String,
    pub stderr: String,
    /// `contract: FILE (N operations from M exchanges, L lost)`
    pub last_line: String,
    pub contract: PathBuf,
    pub operations: u64,
    pub exchanges: u64,
    pub lost: u64,
}

impl Agent {
    /// Starts it and waits until it is ready.
    pub fn start(options: &AgentOptions) -> Result<Self> {
        Self::start_from(options, &crate::binaries()?)
    }

    /// The same, of the `stoa-gateway` in `binaries`.
    pub fn start_from(options: &AgentOptions, binaries: &Path) -> Result<Self> {
        let api = SocketAddr::from(([127, 0, 0, 1], crate::free_port()?));
        let mut command = Command::new(binaries.join("stoa-gateway"));
        // Only what the test says configures it, not the surroundings that the test runs in.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("STOA_") {
                command.env_remove(name);
            }
        }
        command.args(["--mode", "shadow", "--summary", "--host", "127.0.0.1"]);
        command.args(["--capture", &options.capture]);
        for watch in &options.watch {
            command.args(["--watch", watch]);
        }
        fs::create_dir_all(&options.dir)?;
        command.arg("--state-dir").arg(options.dir.join("state"));
        command.arg("--output").arg(options.dir.join("output"));
        command.args(["--port", &api.port().to_string()]).args(&options.more);
        command.envs(options.environment.iter().map(|(name, value)| (name, value)));
        let process = Process::start("agent", command, &options.dir)?;
        let mut agent = Self { process, api, dir: options.dir.clone() };
        agent.wait_until_ready()?;
        Ok(agent)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + crate::patience(Duration::from_secs(20));
        loop {
            if http::get(self.api, "/health/ready").is_ok_and(|reply| reply.status == 200) {
                return Ok(());
            }
            if !self.process.is_running() {
                bail!("the agent ended at once:\n{}{}", self.stdout(), self.stderr());
            }
            if Instant::now() > deadline {
                bail!("the agent is not ready after 20 s:\n{}{}", self.stdout(), self.stderr());
            }
            pause(Duration::from_millis(20));
        }
    }

    pub fn api(&self) -> SocketAddr {
        self.api
    }

    pub fn output(&self) -> PathBuf {
        self.dir.join("output")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    pub fn stdout(&self) -> String {
        self.process.stdout()
    }

    pub fn stderr(&self) -> String {
        self.process.stderr()
    }

    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// A JSON answer of its API.
    pub fn json(&self, path: &str) -> Result<serde_json::Value> {
        let reply = http::get(self.api, path)?;
        if reply.status != 200 {
            bail!("GET {path} answered {}: {}", reply.status, reply.text());
        }
        serde_json::from_slice(&reply.body).with_context(|| format!("GET {path} is not JSON"))
    }

    /// Its metrics: name, labels as text, value.
    pub fn metrics(&self) -> Result<Vec<Metric>> {
        let text = http::get(self.api, "/metrics")?.text();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.filter_map(Metric::parse).collect())
    }

    /// Exchanges of a service that it has only counted.
    pub fn passed_over(&self, service: &str) -> Result<u64> {
        let name = "stoa_shadow_exchanges_passed_over_total";
        Ok(sum(&self.metrics()?, name, "service", service))
    }

    /// Asks it to end, waits for its summary.
    pub fn stop(mut self) -> Result<Summary> {
        self.process.signal("TERM")?;
        let status = self.process.wait(Duration::from_secs(60))?;
        let (stdout, stderr) = (self.stdout(), self.stderr());
        if !status.success() {
            bail!("the agent ended with {status}:\n{stdout}{stderr}");
        }
        Summary::read(stdout, stderr)
    }
}

/// One line of `/metrics`.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
}

impl Metric {
    fn parse(line: &str) -> Option<Self> {
        let (series, value) = line.rsplit_once(' ')?;
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        // Our labels hold no commas or quotes: names of services, classes and reasons.
        let labels = labels
            .trim_end_matches('}')
            .split(',')
            .filter_map(|label| label.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.trim_matches('"').to_owned()))
            .collect();
        Some(Self { name: name.to_owned(), labels, value: value.parse().ok()? })
    }

    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The sum of a metric over all of its labels but this one.
pub fn sum(metrics: &[Metric], name: &str, label: &str, value: &str) -> u64 {
    let of = metrics.iter().filter(|m| m.name == name && m.label(label) == Some(value));
    of.map(|metric| metric.value).sum::<f64>() as u64
}

impl Summary {
    /// Reads the last line: `contract: FILE (N operations from M exchanges, L lost)`.
    pub fn read(stdout: String, stderr: String) -> Result<Self> {
        let last_line = stdout.lines().last().unwrap_or_default().to_owned();
        let parsed = Self::parse_last_line(&last_line).with_context(|| {
            format!("the agent's last line is not a contract line:\n{stdout}{stderr}")
        })?;
        let (contract, operations, exchanges, lost) = parsed;
        Ok(Self { stdout, stderr, last_line, contract, operations, exchanges, lost })
    }

    fn parse_last_line(line: &str) -> Option<(PathBuf, u64, u64, u64)> {
        let (file, counts) = line.strip_prefix("contract: ")?.rsplit_once(" (")?;
        let (operations, rest) = counts.strip_suffix(" lost)")?.split_once(" operations from ")?;
        let (exchanges, lost) = rest.split_once(" exchanges, ")?;
        Some((file.into(), operations.parse().ok()?, exchanges.parse().ok()?, lost.parse().ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_is_read_from_the_last_line() {
        let out =
            "table\ncontract: /a b/x.openapi.yaml (12 operations from 900 exchanges, 3 lost)\n";
        let summary = Summary::read(out.to_owned(), String::new()).unwrap();
        assert_eq!(summary.contract, Path::new("/a b/x.openapi.yaml"));
        assert_eq!((summary.operations, summary.exchanges, summary.lost), (12, 900, 3));
    }

    #[test]
    fn metrics_are_read_with_their_labels() {
        let metric = Metric::parse(r#"lost_total{service="a b",reason="ring-full"} 12"#).unwrap();
        assert_eq!(metric.name, "lost_total");
        assert_eq!((metric.label("reason"), metric.value), (Some("ring-full"), 12.0));
        let metrics = [metric.clone(), metric];
        assert_eq!(sum(&metrics, "lost_total", "service", "a b"), 24);
        assert_eq!(sum(&metrics, "lost_total", "service", "b"), 0);
        assert_eq!(Metric::parse("up 1").unwrap().labels, []);
    }

    #[test]
    fn another_last_line_is_an_error() {
        for line in ["", "contract: x", "contract: x (1 operations from y exchanges, 0 lost)"] {
            assert!(Summary::read(line.to_owned(), String::new()).is_err(), "{line}");
        }
    }
}
