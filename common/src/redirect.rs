//! Steering: what the kernel side is told of a workload, and what it is asked.

/// Index into `LISTENERS`, the agent's sockets inside a workload's network namespace. One that is
/// bound to `::1` takes no IPv4, so each family has its own.
pub mod listener {
    pub const INBOUND_IPV4: u32 = 0;
    pub const INBOUND_IPV6: u32 = 1;
    pub const COUNT: u32 = 2;
}

/// Index into `COUNTS`, one set per workload.
pub mod count {
    /// New connections given to the agent.
    pub const STEERED: u32 = 0;
    /// New connections of enrolled ports refused, because no agent listens and the workload fails
    /// closed.
    pub const REFUSED: u32 = 1;
    /// The same, let through to the application, because it fails open.
    pub const UNSTEERED: u32 = 2;
    /// Lookups for connections from the workload to itself.
    pub const OWN: u32 = 3;
    /// Lookups for protocols other than TCP.
    pub const OTHER_PROTOCOL: u32 = 4;
    pub const COUNT: u32 = 5;
}

/// Index into the counts of what a workload connects to.
pub mod outbound {
    /// Led to the agent.
    pub const STEERED: u32 = 0;
    /// Should have been, and could not.
    pub const UNSTEERED: u32 = 1;
    /// To the workload itself.
    pub const OWN: u32 = 2;
    /// Other protocols than TCP.
    pub const OTHER_PROTOCOL: u32 = 3;
    pub const COUNT: u32 = 4;
}

/// Connections of one workload that have begun and that the agent has not accepted.
pub const CONNECTING: u32 = 1 << 13;

/// The ports to steer: one bit each, port 0 is the lowest bit of the first word.
pub const PORT_WORDS: usize = 65536 / 64;

/// Addresses that one network namespace may have.
pub const LOCAL_ADDRESSES: u32 = 64;

/// Connections between agent and applications that can be open at a time.
pub const PEERS: u32 = 1 << 18;

/// Workloads' counts of sockets that are left alone.
pub const SOCKET_COUNTS: u32 = 1 << 14;

/// An IPv6 address in network byte order; an IPv4 one is mapped (RFC 4291 section 2.5.5.2).
pub type Address = [u32; 4];

/// The third word of an IPv4 address that is mapped into IPv6.
pub const MAPPED: u32 = 0xffff_u32.to_be();

#[inline(always)]
pub fn is_mapped(address: &Address) -> bool {
    address[0] == 0 && address[1] == 0 && address[2] == MAPPED
}

/// 127.0.0.0/8 and ::1. The kernel lets neither in from outside.
#[inline(always)]
pub fn is_loopback(address: &Address) -> bool {
    if address[0] != 0 || address[1] != 0 {
        return false;
    }
    if is_mapped(address) {
        return u32::from_be(address[3]) >> 24 == 127;
    }
    address[2] == 0 && address[3] == 1_u32.to_be()
}

/// The agent's end of a connection to an application, as the application's kernel socket sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerKey {
    /// Cookie of the network namespace; 0 where the kernel does not tell the agent.
    pub netns: u64,
    pub address: Address,
    /// In host byte order: the agent's port, and the application's.
    pub port: u16,
    pub local_port: u16,
    pub reserved: u32,
}

/// One end of a connection: the client that the agent speaks for, the server that it stands for.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    pub address: Address,
    /// In host byte order.
    pub port: u16,
    pub reserved: u16,
}

/// Sockets that workloads create and that are left alone.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKey {
    pub netns: u64,
    /// [`socket`]
    pub kind: u32,
    pub reserved: u32,
}

/// [`SocketKey::kind`]
pub mod socket {
    pub const UDP: u32 = 0;
    pub const SCTP: u32 = 1;
    pub const RAW: u32 = 2;
    pub const OTHER: u32 = 3;
    pub const COUNT: u32 = 4;
}

#[cfg(feature = "user")]
// SAFETY: C layout, only integers, no implicit padding.
unsafe impl aya::Pod for PeerKey {}
#[cfg(feature = "user")]
// SAFETY: C layout, only integers, no implicit padding.
unsafe impl aya::Pod for Peer {}
#[cfg(feature = "user")]
// SAFETY: C layout, only integers, no implicit padding.
unsafe impl aya::Pod for SocketKey {}

const _: () = assert!(size_of::<PeerKey>() == 32 && size_of::<Peer>() == 20);
const _: () = assert!(size_of::<SocketKey>() == 16);
