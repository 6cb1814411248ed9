//! IP and TCP headers of a packet, read through the one helper that copes with non-linear data.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const TCP: u8 = 6;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const DESTINATION: u8 = 60;

/// What the rest of the program needs of a TCP packet.
pub struct Packet {
    pub seq: u32,
    pub ack: u32,
    /// Where the payload begins, from the IP header.
    pub payload: u32,
    pub len: u32,
    pub source_port: u16,
    pub destination_port: u16,
    pub flags: u8,
    /// 4 or 6.
    pub family: u8,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Tcp {
    source: u16,
    destination: u16,
    seq: u32,
    ack: u32,
    offset: u8,
    flags: u8,
    window: u16,
    checksum: u16,
    urgent: u16,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4 {
    version_length: u8,
    tos: u8,
    total: u16,
    id: u16,
    fragment: u16,
    ttl: u8,
    protocol: u8,
    checksum: u16,
    source: u32,
    destination: u32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6 {
    version: u32,
    length: u16,
    next: u8,
    hops: u8,
    source: [u32; 4],
    destination: [u32; 4],
}

/// The usual case, in one read: no IP options.
#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv4Tcp {
    ip: Ipv4,
    tcp: Tcp,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Ipv6Tcp {
    ip: Ipv6,
    tcp: Tcp,
}

/// `bpf_skb_load_bytes` with 64-bit arguments: bounds that the verifier knows of a 64-bit register
/// do not survive the conversion to 32 bits that the usual binding adds.
///
/// # Safety
/// `len` bytes at `to` are writable, and the verifier can see it.
#[inline(always)]
pub unsafe fn load_bytes(skb: *mut __sk_buff, offset: u64, to: *mut u8, len: u64) -> i64 {
    // SAFETY: helper 26, uapi/linux/bpf.h.
    unsafe {
        let helper: unsafe extern "C" fn(*mut __sk_buff, u64, *mut u8, u64) -> i64 =
            core::mem::transmute(26usize);
        helper(skb, offset, to, len)
    }
}

/// Loads `len` bytes, if that is 1 to `most`.
///
/// The helper refuses lengths that may be zero. Kernels before 6.8 learn nothing of a range from
/// `!= 0` (`reg_set_min_max` of kernel/bpf/verifier.c); from an upper bound on one less they do.
///
/// # Safety
/// `most` bytes at `to` are writable, and the verifier can see it.
#[inline(always)]
pub unsafe fn load_some(
    skb: *mut __sk_buff,
    offset: u32,
    to: *mut u8,
    len: u32,
    most: usize,
) -> bool {
    let but_one = u64::from(forget(len.wrapping_sub(1)));
    // SAFETY: see above; the bounds are checked on the very register that the helper gets.
    but_one < most as u64 && unsafe { load_bytes(skb, offset.into(), to, but_one + 1) } == 0
}

#[inline(always)]
pub fn load<T: Copy>(skb: *mut __sk_buff, offset: u32) -> Option<T> {
    let mut value = MaybeUninit::<T>::uninit();
    // SAFETY: the helper fills the value or fails.
    unsafe {
        if load_bytes(skb, offset.into(), value.as_mut_ptr().cast(), size_of::<T>() as u64) == 0 {
            Some(value.assume_init())
        } else {
            None
        }
    }
}

/// The same value, of which the verifier knows nothing any more: it then follows what comes after
/// once instead of once for each way that led here. It tracks what is spilled to aligned slots and
/// zeros, so the value must not be zero and goes beside the slot's start.
#[inline(always)]
pub fn forget(value: u32) -> u32 {
    let mut slot = [0u32; 2];
    let slot = core::hint::black_box(&mut slot);
    // SAFETY: within the slot.
    unsafe {
        (&raw mut slot[1]).write_volatile(value);
        (&raw const slot[1]).read_volatile()
    }
}

impl Packet {
    /// `None` if it is not an unfragmented TCP segment.
    #[inline(always)]
    pub fn read(skb: *mut __sk_buff) -> Option<Self> {
        // SAFETY: fields of the program's context.
        let (protocol, total) = unsafe { ((*skb).protocol, (*skb).len) };
        let (tcp_at, tcp, family) = if protocol == u32::from(ETH_P_IP.to_be()) {
            let Ipv4Tcp { ip, tcp } = load::<Ipv4Tcp>(skb, 0)?;
            // Bits after the first three: the fragment's offset.
            if ip.protocol != TCP || u16::from_be(ip.fragment) & 0x1fff != 0 {
                return None;
            }
            let at = u32::from(ip.version_length & 0xf) * 4;
            (at, if at == 20 { tcp } else { load::<Tcp>(skb, at)? }, 4)
        } else if protocol == u32::from(ETH_P_IPV6.to_be()) {
            let Ipv6Tcp { ip, tcp } = load::<Ipv6Tcp>(skb, 0)?;
            if ip.next == TCP {
                (40, tcp, 6)
            } else {
                let at = skip_extensions(skb, ip.next)?;
                (at, load::<Tcp>(skb, at)?, 6)
            }
        } else {
            return None;
        };
        let tcp_at = forget(tcp_at);
        let payload = tcp_at + u32::from(tcp.offset >> 4) * 4;
        Some(Self {
            seq: u32::from_be(tcp.seq),
            ack: u32::from_be(tcp.ack),
            payload,
            // The kernel has trimmed link-layer padding by now, and the length field of a jumbo
            // packet is zero: the buffer's length is what counts.
            len: total.saturating_sub(payload),
            source_port: u16::from_be(tcp.source),
            destination_port: u16::from_be(tcp.destination),
            flags: tcp.flags,
            family: forget(family) as u8,
        })
    }
}

/// Offset of the TCP header behind IPv6 extension headers (RFC 8200 section 4; the jumbo payload
/// option of large GSO packets is a hop-by-hop header).
#[inline(always)]
fn skip_extensions(skb: *mut __sk_buff, first: u8) -> Option<u32> {
    let mut next = first;
    let mut at = 40;
    for _ in 0..4 {
        if next != HOP_BY_HOP && next != ROUTING && next != DESTINATION {
            return None;
        }
        let [following, length] = load::<[u8; 2]>(skb, at)?;
        next = following;
        at += (u32::from(length) + 1) * 8;
        if next == TCP {
            return Some(at);
        }
    }
    None
}
