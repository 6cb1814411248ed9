//! Connections that a workload makes: led to the agent by the kernel side, one object per workload.
//!
//! Fail mode `closed` pins what leads them: without an agent they are refused, because nobody
//! listens where they are led to.

use std::{
    fs::File,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData, PerCpuArray},
    programs::{CgroupAttachMode, CgroupSockAddr, SockOps, links::FdLink},
};
use stoa_common::redirect::{Address, LOCAL_ADDRESSES, Peer};

use super::{
    error::{RedirectError, with_causes},
    programs::{KernelCounts, Link, address_words, find, refused, take, written},
};

/// Empty where the binary was built without it.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/outbound.bpf.o"));

const CONNECT: [&str; 2] = ["connect4", "connect6"];
const PEERS: [&str; 2] = ["outbound_peer4", "outbound_peer6"];

/// Loaded, and not attached yet.
pub(super) struct Outbound {
    object: Ebpf,
    counts: Arc<KernelCounts>,
}

/// Where connections were going that have come to the agent instead.
pub(super) struct Destinations(Mutex<HashMap<MapData, Peer, Peer>>);

/// Leads new connections to the agent. Dropping it ends that, pinned or not.
pub(super) struct Leading {
    _links: Vec<Link>,
}

/// Tells applications where they are connected to. Dropping it ends that.
pub(super) struct Telling {
    _links: Vec<FdLink>,
}

impl Outbound {
    /// `listeners`: one of each family, in the workload's namespace, whose addresses these are.
    pub(super) fn load(
        listeners: &[TcpListener],
        addresses: &[IpAddr],
    ) -> Result<(Self, Destinations), RedirectError> {
        if OBJECT.is_empty() {
            return Err(RedirectError::NotBuilt);
        }
        let (mut ipv4, mut ipv6) = (0_u16, 0_u16);
        for listener in listeners {
            match listener.local_addr() {
                Ok(SocketAddr::V4(at)) => ipv4 = at.port(),
                Ok(SocketAddr::V6(at)) => ipv6 = at.port(),
                Err(error) => return Err(RedirectError::Listen(error)),
            }
        }
        let mut object = EbpfLoader::new()
            .override_global("LISTENER_IPV4", &ipv4, true)
            .override_global("LISTENER_IPV6", &ipv6, true)
            .load(OBJECT)
            .map_err(|e| RedirectError::Load(with_causes(&e)))?;
        let mut local = HashMap::<_, Address, u32>::try_from(take(&mut object, "LOCAL")?)
            .map_err(|_| RedirectError::ObjectMismatch("LOCAL"))?;
        for address in addresses.iter().take(LOCAL_ADDRESSES as usize) {
            local.insert(&address_words(*address), &1, 0).map_err(written("LOCAL"))?;
        }
        let counts = PerCpuArray::try_from(take(&mut object, "COUNTS")?)
            .map_err(|_| RedirectError::ObjectMismatch("COUNTS"))?;
        let connections = HashMap::try_from(take(&mut object, "CONNECTIONS")?)
            .map_err(|_| RedirectError::ObjectMismatch("CONNECTIONS"))?;
        for name in CONNECT.into_iter().chain(PEERS) {
            find::<CgroupSockAddr>(&mut object, name)?.load().map_err(refused(name))?;
        }
        find::<SockOps>(&mut object, "connecting")?.load().map_err(refused("connecting"))?;
        let counts = Arc::new(KernelCounts::new(counts));
        Ok((Self { object, counts }, Destinations(Mutex::new(connections))))
    }

    pub(super) fn counts(&self) -> Arc<KernelCounts> {
        Arc::clone(&self.counts)
    }

    /// Leads from now on: what listens must be accepting already. `pins`: where what leads is
    /// pinned, if the workload fails closed.
    pub(super) fn attach(
        mut self,
        cgroup: &Path,
        pins: Option<[PathBuf; 2]>,
    ) -> Result<(Leading, Telling), RedirectError> {
        let folder = File::open(cgroup)
            .map_err(|_| RedirectError::NotACgroup { path: cgroup.to_owned() })?;
        let failed = |program: &'static str, error: &dyn std::error::Error| RedirectError::Attach {
            program,
            to: cgroup.to_owned(),
            reason: with_causes(error),
        };
        // A link lets other programs be attached as well, whatever the mode says.
        let mode = CgroupAttachMode::Single;
        let mut telling = Vec::with_capacity(3);
        for name in PEERS {
            let program = find::<CgroupSockAddr>(&mut self.object, name)?;
            let id = program.attach(&folder, mode).map_err(|e| failed(name, &e))?;
            let link = program.take_link(id).map_err(|e| failed(name, &e))?;
            telling.push(link.try_into().map_err(|e| failed(name, &e))?);
        }
        let name = "connecting";
        let program = find::<SockOps>(&mut self.object, name)?;
        let id = program.attach(&folder, mode).map_err(|e| failed(name, &e))?;
        let link = program.take_link(id).map_err(|e| failed(name, &e))?;
        telling.push(link.try_into().map_err(|e| failed(name, &e))?);
        let mut leading = Vec::with_capacity(2);
        for (n, name) in CONNECT.into_iter().enumerate() {
            let program = find::<CgroupSockAddr>(&mut self.object, name)?;
            let id = program.attach(&folder, mode).map_err(|e| failed(name, &e))?;
            let link = program.take_link(id).map_err(|e| failed(name, &e))?;
            let link: FdLink = link.try_into().map_err(|e| failed(name, &e))?;
            leading.push(Link::new(link, pins.as_ref().map(|pins| pins[n].as_path()))?);
        }
        Ok((Leading { _links: leading }, Telling { _links: telling }))
    }
}

impl Destinations {
    /// Where the connection was going whose own end this is. It is told once.
    pub(super) fn take(&self, own: SocketAddr) -> Option<SocketAddr> {
        let key = Peer { address: address_words(own.ip()), port: own.port(), reserved: 0 };
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let to = map.get(&key, 0).ok()?;
        let _ = map.remove(&key);
        Some(SocketAddr::new(address_of(to.address), to.port))
    }
}

fn address_of(words: Address) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut().0.iter_mut().zip(words) {
        *bytes = word.to_ne_bytes();
    }
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were() {
        for text in ["10.1.2.3", "fd00::1:2", "::1"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(address_of(address_words(address)), address);
        }
    }
}
