//! What the agent needs in a workload's cgroup to stand between it and its peers unseen.
//!
//! `peer4` and `peer6` answer the application's `getpeername` and `accept` with the client that the
//! agent speaks for. `sockets` counts what is left alone. Loaded once, for all workloads.
#![no_std]
#![no_main]

mod words;

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::BPF_F_NO_PREALLOC,
    helpers::generated::bpf_get_netns_cookie,
    macros::{cgroup_sock, cgroup_sock_addr, map},
    maps::{HashMap, LruHashMap},
    programs::{SockAddrContext, SockContext},
};
use stoa_common::redirect::{
    Address, MAPPED, PEERS as PEER_LIMIT, Peer, PeerKey, SOCKET_COUNTS, SocketKey, socket,
};
use words::read_words;

/// 1 where the agent can find out a namespace's cookie too (`SO_NETNS_COOKIE`, 5.14).
#[unsafe(no_mangle)]
static HAS_NETNS_COOKIE: Global<u8> = Global::new(0);

/// Written by the agent before it connects, removed when the connection is over.
#[map]
static PEERS: HashMap<PeerKey, Peer> = HashMap::with_max_entries(PEER_LIMIT, BPF_F_NO_PREALLOC);
#[map]
static SOCKETS: LruHashMap<SocketKey, u64> = LruHashMap::with_max_entries(SOCKET_COUNTS, 0);

/// Lets the system call go on; these programs refuse nothing.
const ALLOW: i32 = 1;

// linux/net.h and linux/in.h.
const SOCK_STREAM: u32 = 1;
const SOCK_DGRAM: u32 = 2;
const SOCK_RAW: u32 = 3;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_UDP: u32 = 17;
const IPPROTO_SCTP: u32 = 132;
const IPPROTO_MPTCP: u32 = 262;

#[cgroup_sock_addr(getpeername4)]
pub fn peer4(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    // SAFETY: fields of the program's context, which these programs may write.
    unsafe {
        let told = [0, 0, MAPPED, (*address).user_ip4];
        if let Some(peer) = find_peer(&context, told)
            && peer.address[2] == MAPPED
        {
            (*address).user_ip4 = peer.address[3];
            (*address).user_port = peer.port.to_be().into();
        }
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn peer6(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    // SAFETY: fields of the program's context, which these programs may write.
    unsafe {
        let told = read_words((&raw const (*address).user_ip6).cast());
        if let Some(peer) = find_peer(&context, told) {
            (*address).user_ip6[0] = peer.address[0];
            (*address).user_ip6[1] = peer.address[1];
            (*address).user_ip6[2] = peer.address[2];
            (*address).user_ip6[3] = peer.address[3];
            (*address).user_port = peer.port.to_be().into();
        }
    }
    ALLOW
}

/// The client behind a connection that the agent has made to this socket.
#[inline(always)]
unsafe fn find_peer(context: &SockAddrContext, told: Address) -> Option<Peer> {
    // SAFETY: fields of the program's context; the verifier wants the null check.
    unsafe {
        let socket = (*context.sock_addr).__bindgen_anon_1.sk;
        if socket.is_null() {
            return None;
        }
        let key = PeerKey {
            netns: netns_of(context.as_ptr()),
            address: told,
            port: u16::from_be((*context.sock_addr).user_port as u16),
            local_port: (*socket).src_port as u16,
            reserved: 0,
        };
        PEERS.get(&key).copied()
    }
}

#[inline(always)]
fn netns_of(context: *mut core::ffi::c_void) -> u64 {
    if HAS_NETNS_COOKIE.load() == 0 {
        return 0;
    }
    // SAFETY: a plain helper call on the program's context.
    unsafe { bpf_get_netns_cookie(context) }
}

#[cgroup_sock(sock_create)]
pub fn sockets(context: SockContext) -> i32 {
    // SAFETY: fields of the program's context.
    let (kind, protocol) = unsafe { ((*context.sock).type_, (*context.sock).protocol) };
    let kind = match (kind, protocol) {
        (SOCK_STREAM, IPPROTO_TCP | IPPROTO_MPTCP) => return ALLOW,
        (SOCK_RAW, _) => socket::RAW,
        (_, IPPROTO_SCTP) => socket::SCTP,
        (SOCK_DGRAM, IPPROTO_UDP) => socket::UDP,
        _ => socket::OTHER,
    };
    let key = SocketKey { netns: netns_of(context.as_ptr()), kind, reserved: 0 };
    match SOCKETS.get_ptr_mut(&key) {
        // SAFETY: points into the map. Two at once may count as one: these are for orientation.
        Some(counter) => unsafe { *counter += 1 },
        None => {
            let _ = SOCKETS.insert(&key, &1, 0);
        }
    }
    ALLOW
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
