//! Steers the connections that a workload makes.
//!
//! Loaded once per workload. `connect4` and `connect6` lead a new connection to the agent's listener
//! in the workload's namespace and keep where it was going in the socket's storage. `connecting`
//! runs when the connection has its own port, before the first packet, and tells the agent by that
//! port; `outbound_peer4` and `outbound_peer6` tell the application, so that nothing has changed for
//! it.
#![no_std]
#![no_main]

mod words;

use aya_ebpf::{
    Global,
    bindings::{BPF_F_NO_PREALLOC, BPF_SOCK_OPS_TCP_CONNECT_CB, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::{btf_map, cgroup_sock_addr, map, sock_ops},
    maps::{HashMap, LruHashMap, PerCpuArray},
    programs::{SockAddrContext, SockOpsContext},
};
use stoa_common::redirect::{
    Address, CONNECTING, LOCAL_ADDRESSES, MAPPED, Peer, is_loopback, is_mapped, outbound,
};
use words::read_words;

/// Ports of the agent's listeners on 127.0.0.1 and ::1; 0 where there is none.
#[unsafe(no_mangle)]
static LISTENER_IPV4: Global<u16> = Global::new(0);
#[unsafe(no_mangle)]
static LISTENER_IPV6: Global<u16> = Global::new(0);

/// Where a steered socket was going; port 0: nowhere else than it is.
#[btf_map]
static DESTINATIONS: SkStorage<Peer> = SkStorage::new();
/// The same by the connection's own end, until the agent has accepted it.
#[map]
static CONNECTIONS: LruHashMap<Peer, Peer> = LruHashMap::with_max_entries(CONNECTING, 0);
/// The namespace's own addresses.
#[map]
static LOCAL: HashMap<Address, u32> = HashMap::with_max_entries(LOCAL_ADDRESSES, BPF_F_NO_PREALLOC);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(outbound::COUNT, 0);

/// Lets the system call go on; these programs refuse nothing.
const ALLOW: i32 = 1;
/// `IPPROTO_TCP` of linux/in.h.
const TCP: u32 = 6;
/// `AF_INET` of linux/socket.h.
const IPV4: u32 = 2;
const LOCALHOST_IPV4: u32 = 0x7f00_0001_u32.to_be();

#[cgroup_sock_addr(connect4)]
pub fn connect4(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    // SAFETY: fields of the program's context, which these programs may write.
    unsafe {
        let to = [0, 0, MAPPED, (*address).user_ip4];
        let port = lead(&context, to);
        if port != 0 {
            (*address).user_ip4 = LOCALHOST_IPV4;
            (*address).user_port = port.to_be().into();
        }
    }
    ALLOW
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    // SAFETY: fields of the program's context, which these programs may write.
    unsafe {
        let to = read_words((&raw const (*address).user_ip6).cast());
        let port = lead(&context, to);
        if port != 0 {
            let is_ipv4 = is_mapped(&to);
            (*address).user_ip6[0] = 0;
            (*address).user_ip6[1] = 0;
            (*address).user_ip6[2] = if is_ipv4 { MAPPED } else { 0 };
            (*address).user_ip6[3] = if is_ipv4 { LOCALHOST_IPV4 } else { 1_u32.to_be() };
            (*address).user_port = port.to_be().into();
        }
    }
    ALLOW
}

/// The port of the listener that the connection is to be led to, in host byte order; 0: none.
#[inline(always)]
unsafe fn lead(context: &SockAddrContext, to: Address) -> u16 {
    // SAFETY: fields of the program's context.
    let (protocol, port) = unsafe {
        ((*context.sock_addr).protocol, u16::from_be((*context.sock_addr).user_port as u16))
    };
    if protocol != TCP {
        count(outbound::OTHER_PROTOCOL);
        return 0;
    }
    let listener = if is_mapped(&to) { LISTENER_IPV4.load() } else { LISTENER_IPV6.load() };
    // SAFETY: only its presence is looked at.
    let is_own = is_loopback(&to) || is_unspecified(&to) || unsafe { LOCAL.get(&to) }.is_some();
    // A link-local address says nothing without its interface, which this hook does not tell.
    if is_own || listener == 0 || is_link_local(&to) {
        count(if is_own { outbound::OWN } else { outbound::UNSTEERED });
        let before = DESTINATIONS.get_ptr_mut(context);
        if !before.is_null() {
            // An earlier attempt of this socket went elsewhere.
            // SAFETY: points into the socket's storage.
            unsafe { (*before).port = 0 };
        }
        return 0;
    }
    let mut destination = Peer { address: to, port, reserved: 0 };
    let kept = DESTINATIONS.get_or_insert_ptr_mut(context, Some(&mut destination));
    if kept.is_null() {
        count(outbound::UNSTEERED);
        return 0;
    }
    // SAFETY: points into the socket's storage.
    unsafe { kept.write(destination) };
    count(outbound::STEERED);
    listener
}

/// Connecting there leads to this host (connect(2) of Linux).
#[inline(always)]
fn is_unspecified(address: &Address) -> bool {
    address[0] == 0
        && address[1] == 0
        && address[3] == 0
        && (address[2] == 0 || address[2] == MAPPED)
}

/// fe80::/10
#[inline(always)]
fn is_link_local(address: &Address) -> bool {
    u32::from_be(address[0]) >> 22 == 0xfe80_u32 >> 6
}

#[sock_ops]
pub fn connecting(context: SockOpsContext) -> u32 {
    let ops = context.ops;
    // SAFETY: fields of the program's context; the verifier wants the null checks.
    unsafe {
        if (*ops).op != BPF_SOCK_OPS_TCP_CONNECT_CB {
            return 1;
        }
        let socket = (*ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return 1;
        }
        let destination = destination_of(socket);
        if destination.is_null() || (*destination).port == 0 {
            return 1;
        }
        let words = (&raw const (*ops).local_ip6).cast::<u32>();
        let (family, ip4) = ((*ops).family, (&raw const (*ops).local_ip4).read_volatile());
        let ip6 = [
            words.read_volatile(),
            words.add(1).read_volatile(),
            words.add(2).read_volatile(),
            words.add(3).read_volatile(),
        ];
        let address = if family == IPV4 { [0, 0, MAPPED, ip4] } else { ip6 };
        let own = Peer { address, port: (*ops).local_port as u16, reserved: 0 };
        let to = *destination;
        let _ = CONNECTIONS.insert(&own, &to, 0);
    }
    1
}

#[cgroup_sock_addr(getpeername4)]
pub fn outbound_peer4(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    let destination = DESTINATIONS.get_ptr_mut(&context);
    // SAFETY: fields of the program's context, which these programs may write, and a pointer into
    // the socket's storage.
    unsafe {
        if !destination.is_null() && (*destination).port != 0 {
            (*address).user_ip4 = (*destination).address[3];
            (*address).user_port = (*destination).port.to_be().into();
        }
    }
    ALLOW
}

#[cgroup_sock_addr(getpeername6)]
pub fn outbound_peer6(context: SockAddrContext) -> i32 {
    let address = context.sock_addr;
    let destination = DESTINATIONS.get_ptr_mut(&context);
    // SAFETY: as above.
    unsafe {
        if !destination.is_null() && (*destination).port != 0 {
            (*address).user_ip6[0] = (*destination).address[0];
            (*address).user_ip6[1] = (*destination).address[1];
            (*address).user_ip6[2] = (*destination).address[2];
            (*address).user_ip6[3] = (*destination).address[3];
            (*address).user_port = (*destination).port.to_be().into();
        }
    }
    ALLOW
}

#[inline(always)]
fn destination_of(socket: *mut bpf_sock) -> *mut Peer {
    let map = (&raw const DESTINATIONS).cast_mut().cast();
    // SAFETY: the verifier has checked that `socket` is a full socket.
    unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) }.cast()
}

#[inline(always)]
fn count(what: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(what) {
        // SAFETY: this CPU's own counter. Two at once may count as one: these are for orientation.
        unsafe { *counter += 1 };
    }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
