//! One captured frame: link, IP and TCP headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `LINKTYPE_*` numbers of pcap files; see tcpdump.org/linktypes.html.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    pub const NULL: Self = Self(0);
    pub const ETHERNET: Self = Self(1);
    pub const RAW: Self = Self(101);
    pub const LOOP: Self = Self(108);
    pub const LINUX_SLL: Self = Self(113);
    pub const LINUX_SLL2: Self = Self(276);
}

/// Bytes that were captured of something that was `wire` bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    pub seen: &'a [u8],
    pub wire: usize,
}

impl<'a> Cut<'a> {
    /// What follows the first `n` bytes; `None` if not even those were captured.
    fn after(self, n: usize) -> Option<Self> {
        Some(Self { seen: self.seen.get(n..)?, wire: self.wire.max(self.seen.len()) - n })
    }

    /// Only the first `n` bytes are meant; the rest is padding.
    fn limit(self, n: usize) -> Self {
        Self { seen: &self.seen[..self.seen.len().min(n)], wire: n }
    }

    fn u16(&self, at: usize) -> Option<u16> {
        Some(u16::from_be_bytes(self.seen.get(at..at + 2)?.try_into().ok()?))
    }

    fn u32(&self, at: usize) -> Option<u32> {
        Some(u32::from_be_bytes(self.seen.get(at..at + 4)?.try_into().ok()?))
    }
}

/// Why a frame holds no TCP segment that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NotTcp,
    Malformed,
    UnsupportedLink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub id: u32,
    pub protocol: u8,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Datagram<'a> {
    Whole { source: IpAddr, destination: IpAddr, protocol: u8, payload: Cut<'a> },
    Fragment { key: FragmentKey, offset: usize, is_last: bool, payload: Cut<'a> },
}

#[derive(Debug, PartialEq, Eq)]
pub struct TcpPacket<'a> {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub seq: u32,
    pub ack: Option<u32>,
    pub syn: bool,
    pub fin: bool,
    pub rst: bool,
    pub payload: Cut<'a>,
}

const TCP: u8 = 6;

/// The IP datagram in a frame.
pub fn read_frame(link: LinkType, frame: Cut<'_>) -> Result<Datagram<'_>, Refused> {
    let ip = match link.0 {
        // ARP, LLDP and so on are not TCP either; the version nibble of what is left decides.
        0 | 108 => frame.after(4).ok_or(Refused::Malformed)?,
        1 => ether_payload(frame, 12)?,
        12 | 14 | 101 | 228 | 229 => frame,
        113 => ether_payload(frame, 14)?,
        276 => {
            let protocol = frame.u16(0).ok_or(Refused::Malformed)?;
            payload_of(protocol, frame.after(20).ok_or(Refused::Malformed)?)?
        }
        _ => return Err(Refused::UnsupportedLink),
    };
    match ip.seen.first().map(|b| b >> 4) {
        Some(4) => read_ipv4(ip),
        Some(6) => read_ipv6(ip),
        Some(_) => Err(Refused::NotTcp),
        None => Err(Refused::Malformed),
    }
}

/// `at`: where the EtherType stands; the payload follows it.
fn ether_payload(frame: Cut<'_>, at: usize) -> Result<Cut<'_>, Refused> {
    let protocol = frame.u16(at).ok_or(Refused::Malformed)?;
    payload_of(protocol, frame.after(at + 2).ok_or(Refused::Malformed)?)
}

fn payload_of(mut protocol: u16, mut rest: Cut<'_>) -> Result<Cut<'_>, Refused> {
    // IEEE 802.1Q tags, stacked or not (802.1ad, and the older QinQ numbers).
    for _ in 0..4 {
        if !matches!(protocol, 0x8100 | 0x88a8 | 0x9100 | 0x9200) {
            break;
        }
        protocol = rest.u16(2).ok_or(Refused::Malformed)?;
        rest = rest.after(4).ok_or(Refused::Malformed)?;
    }
    if matches!(protocol, 0x0800 | 0x86dd) { Ok(rest) } else { Err(Refused::NotTcp) }
}

fn read_ipv4(ip: Cut<'_>) -> Result<Datagram<'_>, Refused> {
    let header = ip.seen.get(..20).ok_or(Refused::Malformed)?;
    let header_len = usize::from(header[0] & 0x0f) * 4;
    if header_len < 20 {
        return Err(Refused::Malformed);
    }
    // Zero where segmentation was left to the network card: then the frame tells.
    let total = match u16::from_be_bytes([header[2], header[3]]) {
        0 => ip.wire,
        n => usize::from(n),
    };
    if total < header_len {
        return Err(Refused::Malformed);
    }
    let address = |at: usize| -> IpAddr {
        Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into()
    };
    let (source, destination, protocol) = (address(12), address(16), header[9]);
    let payload = ip.limit(total).after(header_len).ok_or(Refused::Malformed)?;
    let flags = u16::from_be_bytes([header[6], header[7]]);
    let (more, offset) = (flags & 0x2000 != 0, usize::from(flags & 0x1fff) * 8);
    if protocol != TCP {
        return Err(Refused::NotTcp);
    }
    if more || offset != 0 {
        let id = u32::from(u16::from_be_bytes([header[4], header[5]]));
        let key = FragmentKey { source, destination, id, protocol };
        return Ok(Datagram::Fragment { key, offset, is_last: !more, payload });
    }
    Ok(Datagram::Whole { source, destination, protocol, payload })
}

fn read_ipv6(ip: Cut<'_>) -> Result<Datagram<'_>, Refused> {
    let header = ip.seen.get(..40).ok_or(Refused::Malformed)?;
    let total = match u16::from_be_bytes([header[4], header[5]]) {
        // A jumbogram (RFC 2675), or segmentation left to the network card.
        0 => ip.wire.max(40),
        n => usize::from(n) + 40,
    };
    let address = |at: usize| -> Result<IpAddr, Refused> {
        let bytes: [u8; 16] =
            header.get(at..at + 16).and_then(|b| b.try_into().ok()).ok_or(Refused::Malformed)?;
        Ok(Ipv6Addr::from(bytes).into())
    };
    let (source, destination) = (address(8)?, address(24)?);
    let mut next = header[6];
    let mut rest = ip.limit(total).after(40).ok_or(Refused::Malformed)?;
    // RFC 8200 section 4: extension headers, of which only the fragment header is of interest.
    for _ in 0..16 {
        let length = match (next, rest.seen) {
            (TCP, _) => {
                return Ok(Datagram::Whole { source, destination, protocol: TCP, payload: rest });
            }
            (0 | 43 | 60 | 135 | 139 | 140, [_, n, ..]) => (usize::from(*n) + 1) * 8,
            (51, [_, n, ..]) => (usize::from(*n) + 2) * 4,
            (44, [inner, _, ..]) => {
                let word = usize::from(rest.u16(2).ok_or(Refused::Malformed)?);
                let id = rest.u32(4).ok_or(Refused::Malformed)?;
                let (offset, more, protocol) = (word & 0xfff8, word & 1 == 1, *inner);
                let payload = rest.after(8).ok_or(Refused::Malformed)?;
                if offset == 0 && !more {
                    // An atomic fragment (RFC 6946).
                    (next, rest) = (protocol, payload);
                    continue;
                }
                let key = FragmentKey { source, destination, id, protocol };
                return Ok(Datagram::Fragment { key, offset, is_last: !more, payload });
            }
            (0 | 43 | 44 | 51 | 60 | 135 | 139 | 140, _) => return Err(Refused::Malformed),
            _ => return Err(Refused::NotTcp),
        };
        next = rest.seen.first().copied().ok_or(Refused::Malformed)?;
        rest = rest.after(length).ok_or(Refused::Malformed)?;
    }
    Err(Refused::Malformed)
}

/// RFC 9293 section 3.1. Options may be cut off: only their length matters.
pub fn read_tcp<'a>(
    source: IpAddr,
    destination: IpAddr,
    segment: Cut<'a>,
) -> Result<TcpPacket<'a>, Refused> {
    let header = segment.seen.get(..14).ok_or(Refused::Malformed)?;
    let header_len = usize::from(header[12] >> 4) * 4;
    if header_len < 20 || segment.wire < header_len {
        return Err(Refused::Malformed);
    }
    let port = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    let word = |at: usize| segment.u32(at).ok_or(Refused::Malformed);
    let flags = header[13];
    Ok(TcpPacket {
        source: SocketAddr::new(source, port(0)),
        destination: SocketAddr::new(destination, port(2)),
        seq: word(4)?,
        ack: if flags & 0x10 != 0 { Some(word(8)?) } else { None },
        syn: flags & 0x02 != 0,
        fin: flags & 0x01 != 0,
        rst: flags & 0x04 != 0,
        payload: Cut {
            seen: segment.seen.get(header_len..).unwrap_or_default(),
            wire: segment.wire - header_len,
        },
    })
}
