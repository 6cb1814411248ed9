//! The kernel side, loaded and attached.

use std::{
    fs::File,
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, PerCpuArray, SockMap},
    programs::{
        CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, ProgramError, SkLookup,
        links::{FdLink, PinnedLink},
    },
};
use stoa_common::redirect::{
    Address, LOCAL_ADDRESSES, PORT_WORDS, Peer, PeerKey, SocketKey, listener, socket,
};

use super::{
    error::{RedirectError, with_causes},
    namespace::Namespace,
};

/// Empty where the binary was built without them.
static SHARED: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/redirect.bpf.o"));
static STEER: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/steer.bpf.o"));

/// What all workloads share.
pub(super) struct Programs {
    object: Ebpf,
    peers: MapData,
    sockets: Arc<SocketCounts>,
    has_netns_cookie: bool,
    can_count_sockets: bool,
}

/// Sockets that workloads have created and that are left alone.
pub(super) struct SocketCounts {
    map: HashMap<MapData, SocketKey, u64>,
    has_netns_cookie: bool,
}

/// What the kernel side has decided about one workload's new connections.
pub(super) struct KernelCounts(PerCpuArray<MapData, u64>);

/// In a workload's cgroup. Dropping it detaches the programs.
pub(super) struct CgroupLinks {
    _links: Vec<FdLink>,
}

/// In a workload's network namespace. Dropping it detaches the program, pinned or not.
pub(super) struct Steering {
    _link: Link,
    counts: Arc<KernelCounts>,
}

/// A program that is attached. Dropping it detaches the program, pinned or not.
pub(super) enum Link {
    /// Ends with the agent.
    Held { _link: FdLink },
    /// Outlives it, until the file is removed; `None` when it has been.
    Pinned(Option<PinnedLink>),
}

impl Link {
    pub(super) fn new(link: FdLink, pin: Option<&Path>) -> Result<Self, RedirectError> {
        let Some(path) = pin else { return Ok(Self::Held { _link: link }) };
        let pinned = link
            .pin(path)
            .map_err(|e| RedirectError::Pin { path: path.to_owned(), reason: with_causes(&e) })?;
        Ok(Self::Pinned(Some(pinned)))
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if let Self::Pinned(link) = self
            && let Some(link) = link.take()
            && let Err(error) = link.unpin()
        {
            tracing::warn!(%error, "a pinned program could not be removed");
        }
    }
}

impl Programs {
    pub(super) fn load() -> Result<Self, RedirectError> {
        if SHARED.is_empty() || STEER.is_empty() {
            return Err(RedirectError::NotBuilt);
        }
        let has_netns_cookie =
            Namespace::home().and_then(Namespace::cookie).is_ok_and(|cookie| cookie != 0);
        let flag = u8::from(has_netns_cookie);
        let mut object = EbpfLoader::new()
            .override_global("HAS_NETNS_COOKIE", &flag, true)
            .load(SHARED)
            .map_err(|e| RedirectError::Load(with_causes(&e)))?;
        for name in ["peer4", "peer6"] {
            find::<CgroupSockAddr>(&mut object, name)?.load().map_err(refused(name))?;
        }
        let counting = find::<CgroupSock>(&mut object, "sockets")?.load();
        if let Err(error) = &counting {
            tracing::warn!(error = %with_causes(error), "UDP, SCTP and raw sockets are not counted");
        }
        let Map::HashMap(peers) = take(&mut object, "PEERS")? else {
            return Err(RedirectError::ObjectMismatch("PEERS"));
        };
        let map = HashMap::try_from(take(&mut object, "SOCKETS")?)
            .map_err(|_| RedirectError::ObjectMismatch("SOCKETS"))?;
        let sockets = Arc::new(SocketCounts { map, has_netns_cookie });
        let can_count_sockets = counting.is_ok();
        Ok(Self { object, peers, sockets, has_netns_cookie, can_count_sockets })
    }

    /// One line each: what this kernel gives.
    pub(super) fn describe(&self) -> Vec<String> {
        vec![
            "sk_lookup: new connections of enrolled ports come to the agent".to_owned(),
            "cgroup getpeername4/6: applications see the client, not the agent".to_owned(),
            if self.has_netns_cookie {
                "network namespace cookies: equal connections in two namespaces are told apart"
                    .to_owned()
            } else {
                "this kernel lacks SO_NETNS_COOKIE (Linux 5.14): sockets that are left alone are \
                 counted for all workloads together, and one that calls itself over ::1 may see \
                 another's client"
                    .to_owned()
            },
            if self.can_count_sockets {
                "cgroup sock_create: UDP, SCTP and raw sockets are left alone and counted"
                    .to_owned()
            } else {
                "this kernel lacks cgroup sock_create: UDP, SCTP and raw sockets are not counted"
                    .to_owned()
            },
        ]
    }

    /// A handle of one thread's own.
    pub(super) fn peers(&self) -> Result<Peers, RedirectError> {
        let failed = |reason: String| RedirectError::Map { map: "PEERS", reason };
        let fd = self.peers.fd().as_fd().try_clone_to_owned();
        let fd = fd.map_err(|e| failed(e.to_string()))?;
        let map = MapData::from_fd(fd).map_err(|e| failed(with_causes(&e)))?;
        let map = HashMap::try_from(Map::HashMap(map)).map_err(|e| failed(with_causes(&e)))?;
        Ok(Peers { map: Arc::new(Mutex::new(map)) })
    }

    pub(super) fn attach_to_cgroup(&mut self, cgroup: &Path) -> Result<CgroupLinks, RedirectError> {
        let folder = File::open(cgroup)
            .map_err(|_| RedirectError::NotACgroup { path: cgroup.to_owned() })?;
        let failed = |program: &'static str, error: &dyn std::error::Error| RedirectError::Attach {
            program,
            to: cgroup.to_owned(),
            reason: with_causes(error),
        };
        // A link lets other programs be attached as well, whatever the mode says.
        let mode = CgroupAttachMode::Single;
        let mut links = Vec::with_capacity(3);
        for name in ["peer4", "peer6"] {
            let program = find::<CgroupSockAddr>(&mut self.object, name)?;
            let id = program.attach(&folder, mode).map_err(|e| failed(name, &e))?;
            let link = program.take_link(id).map_err(|e| failed(name, &e))?;
            links.push(link.try_into().map_err(|e| failed(name, &e))?);
        }
        if self.can_count_sockets {
            let program = find::<CgroupSock>(&mut self.object, "sockets")?;
            let id = program.attach(&folder, mode).map_err(|e| failed("sockets", &e))?;
            let link = program.take_link(id).map_err(|e| failed("sockets", &e))?;
            links.push(link.try_into().map_err(|e| failed("sockets", &e))?);
        }
        Ok(CgroupLinks { _links: links })
    }

    pub(super) fn sockets(&self) -> Arc<SocketCounts> {
        Arc::clone(&self.sockets)
    }
}

impl SocketCounts {
    /// UDP, SCTP, raw, other, of the workload in this namespace.
    pub(super) fn read(&self, netns: u64) -> [u64; socket::COUNT as usize] {
        let netns = if self.has_netns_cookie { netns } else { 0 };
        let mut counts = [0; socket::COUNT as usize];
        for (kind, count) in (0..).zip(&mut counts) {
            let key = SocketKey { netns, kind, reserved: 0 };
            *count = self.map.get(&key, 0).unwrap_or(0);
        }
        counts
    }
}

impl KernelCounts {
    pub(super) fn new(counts: PerCpuArray<MapData, u64>) -> Self {
        Self(counts)
    }

    pub(super) fn read(&self, what: u32) -> u64 {
        self.0.get(&what, 0).map_or(0, |cpus| cpus.iter().sum())
    }
}

/// How a workload's connections are steered.
pub(super) struct SteeringOptions<'a> {
    pub ports: &'a [u16],
    /// Pinned here, and refuse what cannot be steered.
    pub fail_closed: Option<PathBuf>,
    /// One of each family; all that share its address get connections too.
    pub inbound: &'a [TcpListener],
    pub addresses: &'a [IpAddr],
}

impl Steering {
    /// Steers from now on: what listens must be accepting already.
    pub(super) fn attach(
        namespace: &Namespace,
        shown: &Path,
        options: &SteeringOptions<'_>,
    ) -> Result<Self, RedirectError> {
        let mut ports = [0_u64; PORT_WORDS];
        for port in options.ports {
            ports[usize::from(port >> 6)] |= 1 << (port & 63);
        }
        let closed = u8::from(options.fail_closed.is_some());
        // Its types were left out of the object: without them the kernel keeps nothing per load
        // but the program and its maps.
        let mut object = EbpfLoader::new()
            .override_global("PORTS", &ports, true)
            .override_global("IS_FAIL_CLOSED", &closed, true)
            .load(STEER)
            .map_err(|e| RedirectError::Load(with_causes(&e)))?;
        let mut listeners = SockMap::try_from(take(&mut object, "LISTENERS")?)
            .map_err(|_| RedirectError::ObjectMismatch("LISTENERS"))?;
        for inbound in options.inbound {
            let index = match inbound.local_addr() {
                Ok(SocketAddr::V4(_)) => listener::INBOUND_IPV4,
                _ => listener::INBOUND_IPV6,
            };
            listeners.set(index, inbound, 0).map_err(written("LISTENERS"))?;
        }
        let mut local = HashMap::<_, Address, u32>::try_from(take(&mut object, "LOCAL")?)
            .map_err(|_| RedirectError::ObjectMismatch("LOCAL"))?;
        for address in options.addresses.iter().take(LOCAL_ADDRESSES as usize) {
            local.insert(&address_words(*address), &1, 0).map_err(written("LOCAL"))?;
        }
        let counts = PerCpuArray::try_from(take(&mut object, "COUNTS")?)
            .map_err(|_| RedirectError::ObjectMismatch("COUNTS"))?;
        let failed = |e: ProgramError| RedirectError::Attach {
            program: "steer",
            to: shown.to_owned(),
            reason: with_causes(&e),
        };
        let program = find::<SkLookup>(&mut object, "steer")?;
        program.load().map_err(refused("steer"))?;
        let id = program.attach(namespace).map_err(failed)?;
        let link = FdLink::from(program.take_link(id).map_err(failed)?);
        let link = Link::new(link, options.fail_closed.as_deref())?;
        Ok(Self { _link: link, counts: Arc::new(KernelCounts(counts)) })
    }

    pub(super) fn counts(&self) -> Arc<KernelCounts> {
        Arc::clone(&self.counts)
    }
}

/// Which client each connection to an application belongs to.
#[derive(Clone)]
pub(super) struct Peers {
    /// Of one thread, so never waited for; the lock makes connections `Send`.
    map: Arc<Mutex<HashMap<MapData, PeerKey, Peer>>>,
}

/// As long as this lives, the application is told of the client.
pub(super) struct Introduction {
    peers: Peers,
    key: PeerKey,
}

impl Peers {
    /// `None` where another connection has the same ends.
    pub(super) fn introduce(
        &self,
        netns: u64,
        from: SocketAddr,
        to: SocketAddr,
        client: SocketAddr,
    ) -> Result<Option<Introduction>, RedirectError> {
        /// `BPF_NOEXIST` of uapi/linux/bpf.h.
        const ONLY_NEW: u64 = 1;
        let key = PeerKey {
            netns,
            address: address_words(from.ip()),
            port: from.port(),
            local_port: to.port(),
            reserved: 0,
        };
        let peer = Peer { address: address_words(client.ip()), port: client.port(), reserved: 0 };
        let Ok(mut map) = self.map.lock() else { return Err(RedirectError::Ended) };
        match map.insert(&key, &peer, ONLY_NEW) {
            Ok(()) => Ok(Some(Introduction { peers: self.clone(), key })),
            Err(aya::maps::MapError::SyscallError(e))
                if e.io_error.raw_os_error() == Some(libc::EEXIST) =>
            {
                Ok(None)
            }
            Err(error) => Err(written("PEERS")(error)),
        }
    }
}

impl Drop for Introduction {
    fn drop(&mut self) {
        if let Ok(mut map) = self.peers.map.lock() {
            let _ = map.remove(&self.key);
        }
    }
}

/// In network byte order; IPv4 mapped into IPv6.
pub(super) fn address_words(address: IpAddr) -> Address {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

pub(super) fn take(object: &mut Ebpf, name: &'static str) -> Result<Map, RedirectError> {
    object.take_map(name).ok_or(RedirectError::ObjectMismatch(name))
}

pub(super) fn find<'a, P>(
    object: &'a mut Ebpf,
    name: &'static str,
) -> Result<&'a mut P, RedirectError>
where
    &'a mut P: TryFrom<&'a mut Program>,
{
    object
        .program_mut(name)
        .and_then(|program| program.try_into().ok())
        .ok_or(RedirectError::ObjectMismatch(name))
}

pub(super) fn refused(program: &'static str) -> impl Fn(ProgramError) -> RedirectError {
    move |error| RedirectError::Refused { program, reason: with_causes(&error) }
}

pub(super) fn written(map: &'static str) -> impl Fn(aya::maps::MapError) -> RedirectError {
    move |error| RedirectError::Map { map, reason: with_causes(&error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_as_the_programs_see_them() {
        let words = address_words("10.1.2.3".parse().unwrap());
        assert_eq!(words[..3], [0, 0, 0xffff_u32.to_be()]);
        assert_eq!(words[3].to_ne_bytes(), [10, 1, 2, 3]);
        let words = address_words("fd00::1:2".parse().unwrap());
        assert_eq!(words[0].to_ne_bytes(), [0xfd, 0, 0, 0]);
        assert_eq!(words[3].to_ne_bytes(), [0, 1, 0, 2]);
    }
}
