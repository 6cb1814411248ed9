//! A network namespace and a cgroup of one service, joined to the host by a veth pair.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    cgroup::{self, Cgroup},
    command::ip,
    process::Process,
};

/// Slots tell sandboxes that exist at once apart: each has its own addresses and names.
const SLOTS: u8 = 200;

/// Removed with everything in it when dropped.
#[derive(Debug)]
pub struct Sandbox {
    // Fields drop in this order: programs, then their cgroup, then the namespace they were in.
    processes: Vec<Process>,
    cgroup: Cgroup,
    namespace: Namespace,
    slot: u8,
    logs: PathBuf,
}

#[derive(Debug)]
struct Namespace {
    name: String,
}

impl Sandbox {
    /// Creates one. `logs`: where the output of the programs in it goes.
    pub fn create(logs: &Path) -> Result<Self> {
        if !crate::is_root() {
            bail!("network namespaces and cgroups need root: run the same with `sudo -E`");
        }
        remove_leftovers()?;
        let (slot, cgroup) = claim_slot()?;
        let namespace = Namespace { name: format!("stoa-{slot}-{}", std::process::id()) };
        let sandbox =
            Self { processes: Vec::new(), cgroup, namespace, slot, logs: logs.to_path_buf() };
        sandbox.connect().context("cannot set up the network namespace")?;
        Ok(sandbox)
    }

    fn connect(&self) -> Result<()> {
        let (name, slot) = (&self.namespace.name, self.slot);
        let (outer, inner) = (format!("stoa{slot}h"), format!("stoa{slot}n"));
        ip(&format!("netns add {name}"))?;
        ip(&format!("link add {outer} type veth peer name {inner} netns {name}"))?;
        // 198.18.0.0/15 is for benchmarks (RFC 2544 section C.2.2); fd00::/8 is for local use.
        ip(&format!("addr add {}/30 dev {outer}", self.host(false)))?;
        ip(&format!("link set {outer} up"))?;
        let within = |words: &str| ip(&format!("-n {name} {words}"));
        within(&format!("addr add {}/30 dev {inner}", self.address(false)))?;
        within("link set lo up")?;
        within(&format!("link set {inner} up"))?;
        if self.has_ipv6() {
            // nodad: the address is usable at once, without duplicate address detection.
            ip(&format!("addr add {}/64 dev {outer} nodad", self.host(true)))?;
            within(&format!("addr add {}/64 dev {inner} nodad", self.address(true)))?;
        }
        Ok(())
    }

    pub fn has_ipv6(&self) -> bool {
        Path::new("/proc/net/if_inet6").exists()
    }

    /// The host's end of the veth.
    pub fn host(&self, v6: bool) -> IpAddr {
        self.end(v6, 1)
    }

    /// The service's end of the veth: where clients on the host reach it.
    pub fn address(&self, v6: bool) -> IpAddr {
        self.end(v6, 2)
    }

    pub fn socket(&self, port: u16, v6: bool) -> SocketAddr {
        SocketAddr::new(self.address(v6), port)
    }

    fn end(&self, v6: bool, end: u8) -> IpAddr {
        if v6 {
            Ipv6Addr::new(0xfd00, 0x5710, 0xa, u16::from(self.slot), 0, 0, 0, u16::from(end)).into()
        } else {
            Ipv4Addr::new(198, 18, self.slot, end).into()
        }
    }

    /// The host's interface that all of the service's traffic passes.
    pub fn interface(&self) -> String {
        format!("stoa{}h", self.slot)
    }

    pub fn cgroup(&self) -> &Path {
        self.cgroup.path()
    }

    pub fn namespace(&self) -> &str {
        &self.namespace.name
    }

    /// A command that will run in the namespace and the cgroup. Its process id is the program's:
    /// both the shell and `ip netns exec` replace themselves.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("sh");
        command
            .args(["-c", r#"echo 0 > "$1/cgroup.procs" && shift && exec "$@""#, "sh"])
            .arg(self.cgroup())
            .args(["ip", "netns", "exec", &self.namespace.name])
            .arg(program);
        command
    }

    /// Starts a program in here, to end with the sandbox, and waits until it accepts connections.
    pub fn serve(&mut self, name: &str, command: Command, port: u16) -> Result<u32> {
        let mut process = Process::start(name, command, &self.logs)?;
        let pid = process.pid();
        let waited = crate::wait_for_port(self.socket(port, false), Duration::from_secs(15));
        if let Err(error) = waited {
            let state = if process.is_running() { "runs" } else { "has ended" };
            bail!("{name} {state}: {error}\n{}{}", process.stdout(), process.stderr());
        }
        self.processes.push(process);
        Ok(pid)
    }

    /// A program started by [`Sandbox::serve`].
    pub fn process(&mut self, pid: u32) -> Option<&mut Process> {
        self.processes.iter_mut().find(|process| process.pid() == pid)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The veth pair would go with the namespace that one end is in, but the kernel takes its
        // time over that, and the slot's next user would find the name taken.
        let slot = self.name.split('-').nth(1).unwrap_or_default();
        let link = format!("stoa{slot}h");
        if is_interface(&link) {
            let _ = ip(&format!("link delete {link}"));
        }
        if Path::new("/run/netns").join(&self.name).exists() {
            if let Err(error) = ip(&format!("netns delete {}", self.name)) {
                eprintln!("left behind: network namespace {}: {error:#}", self.name);
            }
        }
    }
}

fn claim_slot() -> Result<(u8, Cgroup)> {
    for slot in 1..=SLOTS {
        // mkdir is atomic, so the cgroup doubles as the lock of its slot.
        match Cgroup::create(&format!("stoa-{slot}-{}", std::process::id())) {
            Ok(cgroup) if is_alone(slot) => return Ok((slot, cgroup)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).context("cannot create a cgroup"),
        }
    }
    bail!("{SLOTS} sandboxes exist already: `ip netns list` and `ip netns delete` tidy up")
}

/// Whether no other process holds the slot. Two that claim it at once both see the other and both
/// move on.
fn is_alone(slot: u8) -> bool {
    let prefix = format!("stoa-{slot}-");
    let count = |dir: &Path| {
        fs::read_dir(dir).map_or(0, |entries| {
            entries
                .flatten()
                .filter(|e| e.file_name().to_string_lossy().starts_with(&prefix))
                .count()
        })
    };
    cgroup::mount_point().is_ok_and(|root| count(&root) == 1)
        && count(Path::new("/run/netns")) == 0
        && !is_interface(&format!("stoa{slot}h"))
}

fn is_interface(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Removes sandboxes whose owner was killed before it could tidy up.
pub fn remove_leftovers() -> Result<()> {
    let orphans = |dir: &Path| -> Vec<String> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| {
                let mut parts = name.split('-');
                let ours = parts.next() == Some("stoa") && parts.next().is_some();
                let owner = parts.next().and_then(|pid| pid.parse::<u32>().ok());
                ours && owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists())
            })
            .collect()
    };
    let root = cgroup::mount_point()?;
    for name in orphans(&root) {
        drop(Cgroup::adopt(root.join(name)));
    }
    for name in orphans(Path::new("/run/netns")) {
        drop(Namespace { name });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaves_the_machine_as_it_was() {
        if !crate::is_root() {
            // What can be said without root: that it names the remedy.
            let error = Sandbox::create(Path::new("/nonexistent")).unwrap_err();
            assert!(error.to_string().contains("sudo"), "{error}");
            return;
        }
        let logs = std::env::temp_dir().join(format!("sandbox-{}", std::process::id()));
        let mut sandbox = Sandbox::create(&logs).unwrap();
        let (cgroup, name) = (sandbox.cgroup().to_path_buf(), sandbox.namespace().to_owned());
        let mut command = sandbox.command("sleep");
        command.arg("60");
        let process = Process::start("sleep", command, &logs).unwrap();
        let pid = process.pid();
        sandbox.processes.push(process);
        for _ in 0..100 {
            if sandbox.cgroup.processes() == [pid] {
                break;
            }
            crate::pause(Duration::from_millis(10));
        }
        assert_eq!(sandbox.cgroup.processes(), [pid]);
        drop(sandbox);
        assert!(!cgroup.exists());
        assert!(!Path::new("/run/netns").join(name).exists());
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
        fs::remove_dir_all(logs).unwrap();
    }
}
