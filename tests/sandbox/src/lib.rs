//! A place to run real services and real agents in, gone when it is dropped.
//!
//! * [`Sandbox`]: a network namespace and a cgroup of one service, joined to the host by a veth.
//! * [`Process`]: a program that ends with its guard.
//! * [`Agent`]: a running `stoa-gateway`, and the summary it ends with.
//! * [`http::Connection`]: a client that says exactly which bytes it sends.

#![forbid(unsafe_code)]

pub mod agent;
pub mod cgroup;
pub mod command;
pub mod http;
pub mod process;
pub mod sandbox;
pub mod shopper;

pub use agent::{Agent, AgentOptions, Summary};
pub use process::Process;
pub use sandbox::Sandbox;

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    path::PathBuf,
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

/// Whether this process may create namespaces, cgroups and load eBPF programs.
pub fn is_root() -> bool {
    // The owner of /proc/self is the effective user of this process: proc(5).
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|m| m.uid() == 0)
}

/// The directory that `stoa-gateway`, `stoactl` and the test services were built into.
pub fn binaries() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("TEST_BINARIES") {
        return Ok(dir.into());
    }
    // A test runs as target/PROFILE/deps/NAME-HASH; the binaries are two directories up.
    let own = std::env::current_exe()?;
    for dir in own.ancestors().skip(1).take(2) {
        if dir.join("stoa-gateway").is_file() {
            return Ok(dir.to_path_buf());
        }
    }
    bail!(
        "stoa-gateway is not beside {}: run `cargo xtask test`, or build it and set TEST_BINARIES",
        own.display()
    )
}

/// As long as that, or longer where `TEST_SLOWNESS` says that the machine is slow: an emulated one.
pub fn patience(time: Duration) -> Duration {
    time * slowness()
}

/// So many in a second, or as many fewer as the machine is slow.
pub fn per_patience(rate: f64) -> f64 {
    rate / f64::from(slowness())
}

fn slowness() -> u32 {
    let said = std::env::var("TEST_SLOWNESS").ok().and_then(|text| text.parse().ok());
    said.unwrap_or(1)
}

/// Waits until somebody accepts connections at `address`.
pub fn wait_for_port(address: SocketAddr, patience: Duration) -> Result<()> {
    let deadline = Instant::now() + self::patience(patience);
    while TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err() {
        if Instant::now() > deadline {
            bail!("nothing accepts connections at {address} after {patience:?}");
        }
        pause(Duration::from_millis(20));
    }
    Ok(())
}

/// A TCP port of the host that nobody listens on now. Not one of those that connections are made
/// from (`ip_local_port_range`, from 32768 on): somebody's connection may have it a moment later.
pub fn free_port() -> Result<u16> {
    const FIRST: u16 = 16_384;
    const COUNT: u16 = 16_384;
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    // Programs that run at once begin at different places.
    let begin = (std::process::id().wrapping_mul(977) % u32::from(COUNT)) as u16;
    for _ in 0..COUNT {
        let n = begin.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT;
        if TcpListener::bind(("127.0.0.1", FIRST + n)).is_ok() {
            return Ok(FIRST + n);
        }
    }
    bail!("every port from {FIRST} to {} is taken", FIRST + COUNT - 1)
}

/// Sleeps. Demo, tests and benches are plain threads: there is no runtime to block.
#[allow(clippy::disallowed_methods)]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
