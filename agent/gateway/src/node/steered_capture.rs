//! Steering and capture of the same workloads, in one agent.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use http::StatusCode;

use crate::{
    capture::{WatchSpec, ebpf::OwnSockets, watch::NamedWatch},
    redirect::{Capture, Namespace},
    shadow::denials::Denials,
};

/// What steering has to know of a capture by eBPF.
pub(super) struct SteeredCapture {
    own_sockets: OwnSockets,
    /// Where each service is: the most particular place last.
    places: Vec<(Place, Arc<str>)>,
    denials: Arc<Denials>,
}

enum Place {
    Process(u32),
    Cgroup(PathBuf),
}

impl SteeredCapture {
    pub(super) fn new(
        own_sockets: OwnSockets,
        watches: &[NamedWatch],
        cgroup_of: impl Fn(&Path) -> Option<PathBuf>,
        denials: Arc<Denials>,
    ) -> Self {
        let mut places: Vec<(Place, Arc<str>)> = watches
            .iter()
            .filter_map(|watch| {
                let place = match &watch.spec {
                    WatchSpec::Pid(pid) => Place::Process(*pid),
                    WatchSpec::Cgroup(path) => Place::Cgroup(cgroup_of(path)?),
                    // Of the host's namespace, where no workload is.
                    WatchSpec::Port(_) => return None,
                };
                Some((place, watch.name.as_str().into()))
            })
            .collect();
        // As the kernel side decides: ports before cgroups, a deeper cgroup before the one above.
        places.sort_by_key(|(place, _)| match place {
            Place::Cgroup(path) => path.components().count(),
            Place::Process(_) => usize::MAX,
        });
        Self { own_sockets, places, denials }
    }
}

impl Capture for SteeredCapture {
    fn leave_out(&self, listener: &TcpListener) -> Result<(), String> {
        self.own_sockets.leave_out(listener).map_err(|e| e.to_string())
    }

    fn service_at(&self, cgroup: &Path, namespace: &Namespace) -> Option<Arc<str>> {
        let is_here = |place: &Place| match place {
            Place::Cgroup(watched) => cgroup.starts_with(watched),
            Place::Process(pid) => Namespace::open(Path::new(&format!("/proc/{pid}/ns/net")))
                .is_ok_and(|other| other.identity() == namespace.identity()),
        };
        let (_, service) = self.places.iter().rev().find(|(place, _)| is_here(place))?;
        Some(Arc::clone(service))
    }

    fn count_denied(&self, service: &str, policy: &'static str, status: StatusCode) {
        self.denials.count(service, policy, status);
    }
}
