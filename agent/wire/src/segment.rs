//! What a capture source hands to the reader.

use std::net::SocketAddr;

/// Names one TCP connection for as long as it lives. Opaque: the socket cookie where the kernel
/// captures, a keyed hash of the endpoints where a packet file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId(pub u64);

/// Nanoseconds since the Unix epoch.
pub type Nanos = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: responses.
    ToClient,
}

impl Direction {
    pub fn opposite(self) -> Self {
        match self {
            Self::ToServer => Self::ToClient,
            Self::ToClient => Self::ToServer,
        }
    }
}

/// Why bytes that were on the wire did not reach the reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Loss {
    /// The ring between kernel and agent was full.
    RingFull,
    /// The message was larger than its budget; the rest was skipped on purpose.
    Budget,
    /// The kernel could not read the payload.
    Unreadable,
    /// The node was busy, so whole exchanges were left out on purpose.
    Shed,
    /// A bound on memory made the reader let go of bytes it held.
    Evicted,
    /// The source never showed the bytes (lost packet, snap length, capture began later).
    Unseen,
}

impl Loss {
    pub const ALL: [Self; 6] =
        [Self::RingFull, Self::Budget, Self::Unreadable, Self::Shed, Self::Evicted, Self::Unseen];

    /// As it is shown: `ring-full`.
    pub fn name(self) -> &'static str {
        match self {
            Self::RingFull => "ring-full",
            Self::Budget => "budget",
            Self::Unreadable => "unreadable",
            Self::Shed => "shed",
            Self::Evicted => "evicted",
            Self::Unseen => "unseen",
        }
    }
}

/// One TCP segment of a connection whose two directions are known.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    pub flow: FlowId,
    pub direction: Direction,
    pub at: Nanos,
    /// Sequence number of the first payload byte (of the SYN itself, where `syn` is set).
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    /// Payload bytes that the segment carried on the wire; `data` may be a shorter prefix of it.
    pub len: u32,
    pub data: &'a [u8],
    /// Why `data` is shorter than `len`; `None` where it is not.
    pub missing: Option<Loss>,
}

/// The two ends of a connection, and the service that its listening side belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// Chosen by the capture source; the reader only hands it on.
    pub service: u32,
}

/// What a capture source feeds to the reader, in the order in which it saw it.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// The connection's ends are known. `from_start`: its first bytes will be seen too.
    Open {
        flow: FlowId,
        at: Nanos,
        endpoints: Endpoints,
        from_start: bool,
    },
    Segment(Segment<'a>),
    /// The source knows that it will never deliver these bytes, so nobody need wait for them.
    Lost {
        flow: FlowId,
        direction: Direction,
        at: Nanos,
        seq: u32,
        len: u32,
        reason: Loss,
    },
    /// The connection is over.
    Close {
        flow: FlowId,
        at: Nanos,
    },
}

/// `10.0.0.7-8080`, `ip6-fd00--7-8080`: a service's name that is also a file's.
pub fn name_of_server(server: SocketAddr) -> String {
    match server {
        SocketAddr::V4(server) => format!("{}-{}", server.ip(), server.port()),
        SocketAddr::V6(server) => match server.ip().to_ipv4_mapped() {
            Some(ip) => format!("{ip}-{}", server.port()),
            None => {
                format!("ip6-{}-{}", server.ip().to_string().replace(':', "-"), server.port())
            }
        },
    }
}
