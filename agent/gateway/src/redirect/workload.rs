//! One enrolled workload: what was asked for, what it means on this machine, and what happened.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{
    answers::Answers,
    capture::Observed,
    error::RedirectError,
    namespace::{Identity, Namespace},
    outbound::Destinations,
};
use crate::drain;

/// Ports of one workload.
const PORTS: usize = 1024;
/// A pod has three kinds of probes for each of its containers.
const PROBES: usize = 64;

/// A workload as it is asked for: over the control socket and in the state directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    pub name: String,
    /// A folder of the cgroup v2 tree. The application's sockets must be created in it or below.
    pub cgroup: PathBuf,
    /// Without it, that of a process in the cgroup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    pub ports: BTreeSet<u16>,
    #[serde(default)]
    pub fail_mode: FailMode,
    /// The policies that its HTTP requests go through: a set of the configuration, by name. Without
    /// it, those of the set `default`; where there is none, everything passes untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<String>,
    /// Steer the connections that it makes as well.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outbound: bool,
    /// The policies that HTTP requests of those go through. Without it, everything passes
    /// untouched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outbound_policies: Option<String>,
    /// Whom it belongs to; without it, the agent's tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Requests that pass without policies: health probes of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probe>,
    /// Where those come from: the node's own addresses.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub node_addresses: BTreeSet<IpAddr>,
}

/// What becomes of new connections while no agent is there to take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailMode {
    /// They reach the application.
    #[default]
    Open,
    /// They are refused.
    Closed,
}

/// A health check, as a pod's specification has it. For gRPC, its method's path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub port: u16,
    #[serde(default = "get")]
    pub method: String,
    /// With its query, if it has one.
    pub path: String,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(flag: &bool) -> bool {
    !flag
}

fn get() -> String {
    "GET".to_owned()
}

impl WorkloadSpec {
    pub fn check(&self) -> Result<(), RedirectError> {
        let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
        if !(1..=253).contains(&self.name.len()) || !self.name.bytes().all(is_plain) {
            return Err(RedirectError::Name(self.name.clone()));
        }
        if !(1..=PORTS).contains(&self.ports.len()) || self.ports.contains(&0) {
            return Err(RedirectError::Ports { limit: PORTS });
        }
        let names = [&self.policies, &self.outbound_policies, &self.tenant];
        for name in names.into_iter().flatten() {
            if name.is_empty() || name.len() > 253 || name.chars().any(char::is_control) {
                return Err(RedirectError::SetName(name.clone()));
            }
        }
        if self.outbound_policies.is_some() && !self.outbound {
            return Err(RedirectError::NotOutbound);
        }
        if self.probes.len() > PROBES {
            return Err(RedirectError::TooManyProbes { limit: PROBES });
        }
        if !self.probes.is_empty() && self.node_addresses.is_empty() {
            return Err(RedirectError::NobodyProbes);
        }
        Ok(())
    }

    /// What it means on this machine now. `held`: where another agent holds the namespace open.
    pub fn resolve(&self, held: Option<&Path>) -> Result<Place, RedirectError> {
        let not_one = || RedirectError::NotACgroup { path: self.cgroup.clone() };
        let cgroup = fs::canonicalize(&self.cgroup).map_err(|_| not_one())?;
        let system = statfs(&cgroup).map_err(|_| not_one())?;
        if system.filesystem_type() != CGROUP2_SUPER_MAGIC {
            return Err(not_one());
        }
        let cgroup_id = fs::metadata(&cgroup).map_err(|_| not_one())?.ino();
        let netns = match &self.netns {
            Some(path) => path.clone(),
            None => {
                let pid = find_process(&cgroup)
                    .ok_or_else(|| RedirectError::EmptyCgroup { path: cgroup.clone() })?;
                format!("/proc/{pid}/ns/net").into()
            }
        };
        let failed = |source| RedirectError::Namespace { path: netns.clone(), source };
        let namespace = Namespace::open(held.unwrap_or(&netns)).map_err(failed)?;
        let home = Namespace::home().map_err(failed)?;
        // Where init may not be looked at, the agent's own has to do: it runs with hostNetwork.
        let host = Namespace::open(Path::new("/proc/1/ns/net"));
        let is_host = host.is_ok_and(|host| host.identity() == namespace.identity());
        if is_host || home.identity() == namespace.identity() {
            return Err(RedirectError::HostNamespace { path: netns });
        }
        Ok(Place { cgroup, cgroup_id, netns, namespace })
    }
}

/// Any process in the cgroup or below it.
fn find_process(cgroup: &Path) -> Option<u32> {
    /// A pod has two levels, its containers' own trees perhaps a few more.
    const DEPTH: usize = 8;
    let mut folders = vec![(cgroup.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        // A process of another PID namespace is listed as 0.
        if let Some(pid) = list.lines().filter_map(|l| l.parse().ok()).find(|pid| *pid != 0) {
            return Some(pid);
        }
        if depth < DEPTH {
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                below
                    .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
                    .map(|e| (e.path(), depth + 1)),
            );
        }
    }
    None
}

/// Where a workload is.
#[derive(Clone, Debug)]
pub struct Place {
    pub cgroup: PathBuf,
    cgroup_id: u64,
    /// As it was named, for messages.
    pub netns: PathBuf,
    pub namespace: Namespace,
}

impl Place {
    pub fn identity(&self) -> (u64, Identity) {
        (self.cgroup_id, self.namespace.identity())
    }

    /// Whether the agent is in the workload's cgroup, or below it.
    pub fn holds_this_process(&self) -> bool {
        let own = std::process::id().to_string();
        let mut folders = vec![self.cgroup.clone()];
        while let Some(folder) = folders.pop() {
            let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            if list.lines().any(|pid| pid == own) {
                return true;
            }
            let below = fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()),
            );
        }
        false
    }

    /// Whether its cgroup is still there: a workload ends with it.
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.cgroup).is_ok_and(|meta| meta.ino() == self.cgroup_id)
    }
}

/// What a workload's listeners and connections are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    Serving,
    /// No new connections; those that are open go on.
    Leaving,
    /// Those that are open are cut.
    Cut,
}

/// What the threads of the data path share of one workload.
pub struct Workload {
    pub spec: WorkloadSpec,
    pub name: Arc<str>,
    pub tenant: Arc<str>,
    /// [`WorkloadSpec::policies`]
    pub policies: Option<Arc<str>>,
    pub place: Place,
    /// The namespace's cookie; 0 where the kernel does not tell.
    pub netns: u64,
    /// Where its listeners are: nobody has business to connect there directly.
    pub listeners: Vec<SocketAddr>,
    /// Each listener and connection holds a receiver: when the last is gone, the workload is.
    pub phase: watch::Sender<Phase>,
    /// Begins with [`Phase::Leaving`]: HTTP connections end with their next answer.
    pub drain: drain::Trigger,
    pub counts: Counts,
    /// What a capture in this agent calls it.
    pub observed: Option<Observed>,
    pub outbound: Option<Outgoing>,
}

/// The connections that a workload makes.
pub struct Outgoing {
    pub destinations: Destinations,
    /// [`WorkloadSpec::outbound_policies`]
    pub policies: Option<Arc<str>>,
    pub counts: Counts,
}

/// Who has made a connection: somebody to the workload, or the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Workload {
    pub fn counts_of(&self, direction: Direction) -> &Counts {
        match (&self.outbound, direction) {
            (Some(outgoing), Direction::Outbound) => &outgoing.counts,
            _ => &self.counts,
        }
    }

    pub fn directions(&self) -> impl Iterator<Item = (&'static str, &Counts)> {
        let outgoing = self.outbound.iter().map(|outgoing| ("outbound", &outgoing.counts));
        std::iter::once(("inbound", &self.counts)).chain(outgoing)
    }
}

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)+) => {
        /// What became of a workload's connections. Rises only, except `open`.
        #[derive(Debug, Default)]
        pub struct Counts {
            $($(#[$doc])* pub $name: AtomicU64,)+
            /// Of requests that went through policies.
            pub answers: Answers,
        }

        impl Counts {
            /// By name, in order.
            fn read(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name.load(Ordering::Relaxed)),)+]
            }
        }
    };
}

counts! {
    /// Connections that are open now.
    open,
    accepted,
    /// HTTP/1, HTTP/2 with prior knowledge.
    http1,
    http2,
    /// Passed through untouched: TLS, and anything else.
    tls,
    other,
    /// Of `other`: the application spoke first.
    server_first,
    /// Passed through, then cut, because it was HTTP after all.
    late_http,
    /// The application did not accept the agent's connection.
    unreachable,
    /// More at once than the agent may hold.
    over_limit,
    /// Connections to the agent's listener itself, by someone inside the namespace.
    direct,
    /// Ended because one side broke off.
    broken,
    /// Requests that went through policies; the sum of the five below.
    requests,
    /// The application's answer reached the client.
    passed,
    /// Policy has answered, and the application has not seen the request.
    denied,
    /// Policy kept the application's answer back.
    withheld,
    /// No valid HTTP, or something that no gateway passes on.
    invalid,
    /// The application did not answer.
    failed,
    /// Of all of them: probes, which no policy was asked about.
    exempt,
}

/// How many of the counts are of connections; those of requests come after.
const OF_CONNECTIONS: usize = 12;

impl Counts {
    pub fn connections(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.read().into_iter().take(OF_CONNECTIONS)
    }

    pub fn requests(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.read().into_iter().skip(OF_CONNECTIONS)
    }

    pub fn add(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(name: &str, ports: &[u16]) -> WorkloadSpec {
        WorkloadSpec {
            name: name.to_owned(),
            cgroup: "/".into(),
            netns: None,
            ports: ports.iter().copied().collect(),
            fail_mode: FailMode::Open,
            policies: None,
            outbound: false,
            outbound_policies: None,
            tenant: None,
            probes: Vec::new(),
            node_addresses: BTreeSet::new(),
        }
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(spec("shop/cart-1", &[8080]).check().is_ok());
        assert!(matches!(spec("", &[80]).check(), Err(RedirectError::Name(_))));
        assert!(matches!(spec("a b", &[80]).check(), Err(RedirectError::Name(_))));
        assert!(matches!(spec("a", &[]).check(), Err(RedirectError::Ports { .. })));
        assert!(matches!(spec("a", &[0]).check(), Err(RedirectError::Ports { .. })));
        assert!(matches!(spec("a", &[80]).resolve(None), Err(RedirectError::NotACgroup { .. })));
        let probes = vec![Probe { port: 80, method: get(), path: "/healthz".to_owned() }];
        let mut probed = WorkloadSpec { probes, ..spec("a", &[80]) };
        assert!(matches!(probed.check(), Err(RedirectError::NobodyProbes)));
        probed.node_addresses.insert([10, 0, 0, 1].into());
        assert!(probed.check().is_ok());
        let unnamed = WorkloadSpec { policies: Some(String::new()), ..spec("a", &[80]) };
        assert!(matches!(unnamed.check(), Err(RedirectError::SetName(_))));
    }

    #[test]
    fn counts_of_connections_and_of_requests_are_told_apart() {
        let counts = Counts::default();
        assert_eq!(counts.connections().last(), Some(("broken", 0)));
        assert_eq!(counts.requests().next(), Some(("requests", 0)));
    }
}
