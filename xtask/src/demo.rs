//! `cargo xtask demo`: the main job, start to end, on a service of our own.

use std::{
    fs,
    io::{IsTerminal, Write},
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sandbox::{Agent, AgentOptions, Process, Sandbox, Summary, agent::Metric, pause, shopper};

use crate::{
    demo_summary, ebpf, interrupt, provision, setup,
    workspace::{PROFILE, build, target},
};

/// Visits of customers: about 2,000 requests.
const VISITS: u32 = 140;
const SECONDS: u64 = 7;
const PORT: u16 = 8000;

pub fn run(by_inline: bool) -> Result<()> {
    let has_root = sandbox::is_root() && !by_inline;
    setup::run()?;
    if has_root {
        provision::tools(&[provision::IP])?;
    }
    ebpf::run()?;
    let binaries = build(PROFILE)?;
    let dir = target().join("demo");
    if dir.exists() {
        fs::remove_dir_all(&dir)
            .with_context(|| format!("cannot empty {}: is it another user's?", dir.display()))?;
    }
    fs::create_dir_all(&dir)?;
    interrupt::catch()?;
    let (summary, metrics) = if has_root {
        watch_by_ebpf(&binaries, &dir)?
    } else {
        let why = if by_inline { "Asked for --inline" } else { "Not root" };
        println!(
            "{why}: eBPF needs CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, and a namespace and a\n\
             cgroup need CAP_SYS_ADMIN. `sudo -E env \"PATH=$PATH\" cargo xtask demo` has them all.\n\
             Showing the same by Inline: clients connect to the agent, which passes every byte on.\n"
        );
        watch_inline(&binaries, &dir)?
    };
    demo_summary::print(&summary, &metrics)?;
    println!("{}", summary.last_line);
    Ok(())
}

fn watch_by_ebpf(binaries: &Path, dir: &Path) -> Result<(Summary, Vec<Metric>)> {
    let mut sandbox = Sandbox::create(dir)?;
    let mut service = sandbox.command(binaries.join("demo-service"));
    service.arg(format!("0.0.0.0:{PORT}"));
    sandbox.serve("service", service, PORT)?;
    interrupt::check()?;
    println!(
        "A shop's HTTP service runs in network namespace {} and cgroup {}.",
        sandbox.namespace(),
        sandbox.cgroup().display()
    );
    let options = AgentOptions::ebpf(dir).watch_cgroup("shop", sandbox.cgroup());
    let agent = start_agent(&options, binaries)?;
    println!("The agent watches that cgroup with eBPF. The service knows nothing of it.\n");
    drive(agent, sandbox.socket(PORT, false))
}

fn watch_inline(binaries: &Path, dir: &Path) -> Result<(Summary, Vec<Metric>)> {
    let address = SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?));
    let mut command = Command::new(binaries.join("demo-service"));
    command.arg(address.to_string());
    let _service = Process::start("service", command, dir)?;
    sandbox::wait_for_port(address, Duration::from_secs(10))?;
    let listen = SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?));
    let mut options = AgentOptions::ebpf(dir)
        .flag("--target", format!("http://{address}"))
        .flag("--inline-listen", listen.to_string())
        .flag("--service", "shop");
    options.capture = "Inline".to_owned();
    let agent = start_agent(&options, binaries)?;
    drive(agent, listen)
}

fn start_agent(options: &AgentOptions, binaries: &Path) -> Result<Agent> {
    let agent = Agent::start_from(options, binaries)?;
    interrupt::check()?;
    Ok(agent)
}

fn drive(agent: Agent, address: SocketAddr) -> Result<(Summary, Vec<Metric>)> {
    let is_terminal = std::io::stdout().is_terminal();
    let started = Instant::now();
    let sent = shopper::shop(address, VISITS, Duration::from_secs(SECONDS), |done, sent| {
        if is_terminal {
            let width = 40;
            let full = (done * f64::from(width)) as usize;
            let bar = "#".repeat(full) + &"-".repeat(width as usize - full);
            print!("\r  [{bar}] {sent:>5} requests, {:>2} s", started.elapsed().as_secs());
            let _ = std::io::stdout().flush();
        }
        !interrupt::is_interrupted()
    })
    .context("the demo's client failed")?;
    if is_terminal {
        println!();
    }
    interrupt::check()?;
    println!(
        "  {sent} requests in {:.1} s: front end, customers, carriers, and a scanner.\n",
        started.elapsed().as_secs_f64()
    );
    // What is still on its way through the agent is counted too.
    pause(Duration::from_millis(400));
    let metrics = agent.metrics()?;
    Ok((agent.stop()?, metrics))
}
