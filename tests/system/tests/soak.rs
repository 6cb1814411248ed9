//! A minute of `cargo xtask soak`. `SOAK_SECONDS` and `SOAK_STREAM_MB` make it longer.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use sandbox::{Process, pause};
use system_tests::{
    decisions::wait_until,
    soak::{
        client,
        ledger::{Counted, Ledger},
        upstream, watch,
    },
    stage,
};

const CLIENTS: u64 = 16;
/// For connections that clients left to end: `linger` of the proxy, idle timeouts, the sweep.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> Result<u64> {
    match std::env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name} is not a number")),
        Err(_) => Ok(default),
    }
}

fn metrics(admin: SocketAddr) -> Result<Counted> {
    Ok(Counted::read(&sandbox::http::get(admin, "/metrics")?.text()))
}

#[test]
fn nothing_grows_leaks_or_is_lost() -> Result<()> {
    let dir = stage::directory("soak")?;
    let time = Duration::from_secs(number("SOAK_SECONDS", 60)?);
    let stream_bytes = number("SOAK_STREAM_MB", 256)? << 20;
    let upstream = upstream::start()?;
    let free = || Ok::<_, anyhow::Error>(SocketAddr::from(([127, 0, 0, 1], sandbox::free_port()?)));
    let (address, admin) = (free()?, free()?);
    let config = dir.join("config.yaml");
    fs::write(
        &config,
        format!(
            "upstreams: {{u: {{url: 'http://{upstream}', idle_timeout: 3s}}}}\n\
             routes:\n\
             - {{name: stalls, upstream: u, matches: [{{path: {{prefix: /u/stall}}}}], timeouts: \
             {{request: 500ms}}}}\n\
             - {{name: all, upstream: u, matches: [{{path: {{prefix: /u}}}}]}}\n"
        ),
    )?;
    let mut command = Command::new(sandbox::binaries()?.join("stoa-gateway"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STOA_") {
            command.env_remove(name);
        }
    }
    command.args(["--mode=proxy", "--workers=2", "--host=127.0.0.1", "--access-log=off"]);
    command.arg(format!("--port={}", address.port()));
    command.arg(format!("--admin-port={}", admin.port())).arg("--config").arg(config);
    let mut process = Process::start("stoa", command, &dir.join("logs"))?;
    wait_until(&mut process, || {
        sandbox::http::get(admin, "/health/ready").is_ok_and(|reply| reply.status == 200)
            && TcpStream::connect(address).is_ok()
    })?;
    let pid = process.pid();
    wait_until(&mut process, || metrics(admin).is_ok_and(|counted| counted.active == 0))?;
    let files_before = watch::open_files(pid);

    let (stop, deadline) = (AtomicBool::new(false), Instant::now() + time);
    let (seen, samples) = thread::scope(|scope| -> Result<(Ledger, Vec<u64>)> {
        let watcher = scope.spawn(|| watch::memory(pid, &stop));
        let mut clients: Vec<_> = (1..=CLIENTS)
            .map(|seed| scope.spawn(move || client::run(address, deadline, seed)))
            .collect();
        clients.push(scope.spawn(move || client::stream_both_ways(address, stream_bytes)));
        let mut seen = Ledger::default();
        let mut failed = None;
        for client in clients {
            match client.join().map_err(|_| anyhow!("a client panicked"))? {
                Ok(ledger) => seen.add(ledger),
                Err(error) => failed = Some(error),
            }
        }
        stop.store(true, Ordering::Relaxed);
        let samples = watcher.join().map_err(|_| anyhow!("the watcher panicked"))?;
        failed.map_or(Ok((seen, samples)), Err)
    })?;

    // What clients left behind comes to its end.
    let settled = Instant::now() + SETTLES_WITHIN;
    let counted = loop {
        let counted = metrics(admin)?;
        let files = watch::open_files(pid);
        let agreed = counted.agrees_with(&seen);
        if agreed.is_ok() && counted.idle == 0 && files <= files_before {
            break counted;
        }
        if Instant::now() > settled {
            agreed?;
            return Err(anyhow!(
                "{files} files are open, {files_before} were before; {} connections to upstreams \
                 are idle and {} busy",
                counted.idle,
                counted.active
            ));
        }
        pause(Duration::from_millis(200));
    };
    let (now, peak) = process.memory()?;
    println!(
        "{} requests in {time:?}, {} MiB up and down in one message each\n\
         by status class: {:?}; cut off: {}\nnot an upstream's answer: {:?}\n\
         resident: {} KiB after the first quarter, {now} at the end, {peak} at most\n\
         open files: {files_before} before and after",
        seen.total(),
        stream_bytes >> 20,
        counted.classes,
        counted.cut,
        counted.codes,
        samples.get(samples.len() / 4).copied().unwrap_or(0),
    );
    ensure!(
        seen.wrong.is_empty(),
        "{} times: {:#?}",
        seen.wrong.len(),
        &seen.wrong[..seen.wrong.len().min(10)]
    );
    watch::assert_flat(&samples)?;
    ensure!(process.is_running(), "the gateway ended:\n{}", process.stderr());
    Ok(())
}
