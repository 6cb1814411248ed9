//! `cargo xtask bench capture`: what watching costs a service, and what the agent misses.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sandbox::{Agent, AgentOptions, Process, Sandbox, command, pause};
use serde_json::Value;

use crate::{
    ebpf, interrupt, provision, setup,
    workspace::{build, target},
    wrk,
};

pub struct Options {
    pub pairs: u32,
    pub seconds: u32,
    pub is_long: bool,
    pub profile: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { pairs: 5, seconds: 8, is_long: false, profile: "release".to_owned() }
    }
}

const PORT: u16 = 8080;
/// The constant rate that completeness is measured at.
const RATE: u32 = 10_000;
const LONG_EXCHANGES: u64 = 10_000_000;

/// One run under the agent's eyes.
struct Watched {
    load: wrk::Run,
    /// Agent CPU from before the load to the end of its queue.
    cpu: Duration,
    exchanges: u64,
    /// Of them, those that were only counted.
    passed_over: u64,
    lost: u64,
    /// Highest resident memory, KiB.
    peak: u64,
}

/// One run beside tcpdump.
struct Dumped {
    load: wrk::Run,
    kernel_dropped: u64,
}

struct Bench {
    sandbox: Sandbox,
    binaries: PathBuf,
    dir: PathBuf,
    body: String,
    seconds: u32,
}

pub fn run(options: &Options) -> Result<()> {
    if !sandbox::is_root() {
        bail!("the bench needs root: `sudo -E env \"PATH=$PATH\" cargo xtask bench capture`");
    }
    if options.pairs == 0 || options.seconds == 0 {
        bail!("--pairs and --seconds are at least 1");
    }
    setup::run()?;
    let tools = [provision::IP, provision::NGINX, provision::WRK, provision::TCPDUMP];
    provision::tools(&tools)?;
    ebpf::run()?;
    let binaries = build(&options.profile)?;
    interrupt::catch()?;
    let dir = target().join("bench");
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let mut bench = Bench {
        sandbox: Sandbox::create(&dir)?,
        binaries,
        dir,
        body: String::new(),
        seconds: options.seconds,
    };
    bench.start_nginx()?;
    let report = bench.measure(options)?;
    let at_rate = bench.at_constant_rate()?;
    if options.is_long {
        bench.long()?;
    }
    println!();
    print_machine();
    report.print();
    println!(
        "{RATE} requests/s, marked: {} sent, {} whole, {} over budget, {} partial, {} missing, {} wrong; agent {:.1} us per exchange, {} of them only counted",
        at_rate["sent"],
        at_rate["whole"],
        at_rate["over_budget"],
        at_rate["partial"],
        at_rate["missing"],
        at_rate["wrong"],
        at_rate["us_per_exchange"].as_f64().unwrap_or(0.0),
        at_rate["passed_over"]
    );
    report.print_last_line(&at_rate);
    Ok(())
}

impl Bench {
    fn address(&self) -> SocketAddr {
        self.sandbox.socket(PORT, false)
    }

    fn start_nginx(&mut self) -> Result<()> {
        let files = self.dir.join("nginx");
        // The tests' own configuration: one worker, 1 KB of JSON at /bench.
        let config =
            command::run(Command::new(self.binaries.join("marked-load")).arg("nginx").arg(&files))?;
        let answer = files.join("bench.json");
        self.body = fs::read_to_string(&answer)?;
        let mut nginx = self.sandbox.command("nginx");
        nginx.args(["-e", "stderr", "-p"]).arg(&files).arg("-c").arg(config.trim());
        self.sandbox.serve("nginx", nginx, PORT)?;
        Ok(())
    }

    fn load(&self) -> Result<wrk::Run> {
        interrupt::check()?;
        let run = wrk::run(self.address(), self.seconds, &self.body, &self.dir)?;
        if run.errors > 0 {
            bail!("wrk saw {} errors", run.errors);
        }
        Ok(run)
    }

    fn measure(&self, options: &Options) -> Result<Report> {
        let mut report = Report { alone: Vec::new(), watched: Vec::new(), dumped: Vec::new() };
        println!("warming up");
        self.load()?;
        for pair in 0..options.pairs {
            // Who goes first changes, so that drift of the machine favours nobody.
            if pair % 2 == 0 {
                report.alone.push(self.load()?);
                report.watched.push(self.watched()?);
            } else {
                report.watched.push(self.watched()?);
                report.alone.push(self.load()?);
            }
            report.dumped.push(self.dumped()?);
            if let (Some(alone), Some(watched), Some(dumped)) =
                (report.alone.last(), report.watched.last(), report.dumped.last())
            {
                println!(
                    "pair {}: alone {:.0}/s, agent {:.0}/s ({} of {} exchanges), tcpdump {:.0}/s",
                    pair + 1,
                    alone.per_second,
                    watched.load.per_second,
                    watched.exchanges,
                    watched.load.requests,
                    dumped.load.per_second
                );
            }
        }
        Ok(report)
    }

    fn agent(&self, name: &str) -> Result<Agent> {
        let options =
            AgentOptions::ebpf(&self.dir.join(name)).watch_cgroup("bench", self.sandbox.cgroup());
        Agent::start_from(&options, &self.binaries)
    }

    fn watched(&self) -> Result<Watched> {
        let mut agent = self.agent("agent")?;
        let before = agent.process().cpu_time()?;
        let load = self.load()?;
        wait_until_idle(&mut agent)?;
        let cpu = agent.process().cpu_time()?.saturating_sub(before);
        let (_, peak) = agent.process().memory()?;
        let passed_over = agent.passed_over("bench")?;
        let summary = agent.stop()?;
        fs::remove_dir_all(self.dir.join("agent"))?;
        Ok(Watched {
            load,
            cpu,
            exchanges: summary.exchanges,
            passed_over,
            lost: summary.lost,
            peak,
        })
    }

    fn dumped(&self) -> Result<Dumped> {
        let mut tcpdump = Command::new("tcpdump");
        tcpdump.args(["-n", "-i", &self.sandbox.interface(), "-w", "/dev/null"]);
        let mut process = Process::start("tcpdump", tcpdump, &self.dir)?;
        pause(Duration::from_millis(700));
        let load = self.load()?;
        process.signal("INT")?;
        process.wait(Duration::from_secs(10))?;
        let said = process.stderr();
        let kernel_dropped = said
            .lines()
            .find_map(|line| line.strip_suffix("packets dropped by kernel")?.trim().parse().ok())
            .with_context(|| format!("tcpdump said something else:\n{said}"))?;
        Ok(Dumped { load, kernel_dropped })
    }

    /// Marked traffic at a constant rate: what was captured, and whether it was paired rightly.
    fn at_constant_rate(&self) -> Result<Value> {
        interrupt::check()?;
        let mut command = Command::new(self.binaries.join("marked-load"));
        command.arg("measure").arg(self.sandbox.cgroup()).arg(self.address().to_string());
        command.arg(RATE.to_string()).arg("10").arg(self.dir.join("marked"));
        let said = command::run(command.env("TEST_BINARIES", &self.binaries))?;
        Ok(serde_json::from_str(said.trim())?)
    }

    fn long(&self) -> Result<()> {
        let mut agent = self.agent("long")?;
        let (mut sent, started) = (0, Instant::now());
        println!("{LONG_EXCHANGES} exchanges on one agent:");
        while sent < LONG_EXCHANGES {
            sent += self.load()?.requests;
            let (now, peak) = agent.process().memory()?;
            println!("  {sent:>9} sent, RSS {} MiB, highest {} MiB", now / 1024, peak / 1024);
        }
        let (now, peak) = agent.process().memory()?;
        let summary = agent.stop()?;
        println!(
            "long: {sent} sent in {} s, {} read, {} lost, RSS {} MiB, highest {} MiB",
            started.elapsed().as_secs(),
            summary.exchanges,
            summary.lost,
            now / 1024,
            peak / 1024
        );
        Ok(())
    }
}

/// What the load left in the agent's queue belongs to its cost.
fn wait_until_idle(agent: &mut Agent) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut before = agent.process().cpu_time()?;
    loop {
        pause(Duration::from_millis(500));
        let now = agent.process().cpu_time()?;
        // At rest it wakes to look at its ring: about two ticks in half a second.
        if now.saturating_sub(before) <= Duration::from_millis(50) || Instant::now() > deadline {
            return Ok(());
        }
        before = now;
    }
}

struct Report {
    alone: Vec<wrk::Run>,
    watched: Vec<Watched>,
    dumped: Vec<Dumped>,
}

impl Report {
    fn print(&self) {
        println!("{:<10} {:>12} {:>10} {:>12} {:>12}", "", "requests/s", "p99 ms", "ratio", "lost");
        let alone = median(self.alone.iter().map(|run| run.per_second));
        let row = |name: &str, rate: f64, p99: f64, lost: String| {
            println!("{name:<10} {rate:>12.0} {p99:>10.2} {:>12.3} {lost:>12}", rate / alone);
        };
        row("alone", alone, median(self.alone.iter().map(|run| run.p99_ms)), String::new());
        row(
            "agent",
            median(self.watched.iter().map(|run| run.load.per_second)),
            median(self.watched.iter().map(|run| run.load.p99_ms)),
            self.watched.iter().map(|run| run.lost).sum::<u64>().to_string(),
        );
        row(
            "tcpdump",
            median(self.dumped.iter().map(|run| run.load.per_second)),
            median(self.dumped.iter().map(|run| run.load.p99_ms)),
            format!("{} pkts", self.dumped.iter().map(|run| run.kernel_dropped).sum::<u64>()),
        );
    }

    fn print_last_line(&self, at_rate: &Value) {
        // The median of the pairs' own ratios, so that drift between pairs does not matter.
        let ratio = median(
            self.alone.iter().zip(&self.watched).map(|(a, w)| w.load.per_second / a.per_second),
        );
        let sent: u64 = self.watched.iter().map(|run| run.load.requests).sum();
        let captured: u64 = self.watched.iter().map(|run| run.exchanges).sum();
        let lost: u64 = self.watched.iter().map(|run| run.lost).sum();
        let cost = median(
            self.watched
                .iter()
                .map(|run| run.cpu.as_secs_f64() * 1e6 / run.exchanges.max(1) as f64),
        );
        let peak = self.watched.iter().map(|run| run.peak).max().unwrap_or(0);
        let passed_over: u64 = self.watched.iter().map(|run| run.passed_over).sum();
        println!(
            "saturated, of {captured} captured {passed_over} were only counted and {} examined",
            captured.saturating_sub(passed_over)
        );
        println!(
            "ratio {ratio:.3} (median of {} pairs), captured {:.2} % saturated ({:.2} % with counted losses) and {:.3} % at {RATE}/s, wrong pairs {}, {cost:.1} us per exchange, RSS {} MiB",
            self.alone.len(),
            captured as f64 / sent.max(1) as f64 * 100.0,
            (captured + lost) as f64 / sent.max(1) as f64 * 100.0,
            at_rate["captured_percent"].as_f64().unwrap_or(0.0),
            at_rate["wrong"],
            peak / 1024
        );
    }
}

fn print_machine() {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!(
        "{} x {}, Linux {}",
        cpus.lines().filter(|line| line.starts_with("processor")).count(),
        model.map_or("CPU", |(_, name)| name),
        kernel.trim()
    );
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
    }
}
