//! Steers a workload's new TCP connections to the agent.
//!
//! One `sk_lookup` program per enrolled workload, attached to its network namespace: these programs
//! cannot ask in which namespace they run, so each has its own constants and maps. It runs once per
//! connection, when no established socket takes the packet, and before the application's listener
//! is looked for. Connections that are open already never come here.
#![no_std]
#![no_main]

mod words;

use aya_ebpf::{
    Global,
    bindings::{
        bpf_sk_lookup,
        sk_action::{SK_DROP, SK_PASS},
    },
    macros::{map, sk_lookup},
    maps::{HashMap, PerCpuArray, SockMap},
    programs::SkLookupContext,
};
use stoa_common::redirect::{
    Address, LOCAL_ADDRESSES, MAPPED, PORT_WORDS, count, is_loopback, is_mapped, listener,
};
use words::read_words;

/// 1: refuse what cannot be steered. 0: let it through to the application.
#[unsafe(no_mangle)]
static IS_FAIL_CLOSED: Global<u8> = Global::new(0);
/// Which ports are steered; the loader writes it before the program is verified.
#[unsafe(no_mangle)]
static PORTS: Global<[u64; PORT_WORDS]> = Global::new([0; PORT_WORDS]);

/// A socket that is closed leaves this map by itself.
#[map]
static LISTENERS: SockMap = SockMap::with_max_entries(listener::COUNT, 0);
/// The namespace's own addresses.
#[map]
static LOCAL: HashMap<Address, u32> = HashMap::with_max_entries(LOCAL_ADDRESSES, 0);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(count::COUNT, 0);

/// `AF_INET` of linux/socket.h.
const IPV4: u32 = 2;
/// `IPPROTO_TCP` of linux/in.h.
const TCP: u32 = 6;
/// `BPF_SK_LOOKUP_F_REPLACE` of uapi/linux/bpf.h: during an upgrade the agents' programs run one
/// after the other, and the younger one has the last word.
const REPLACE: u64 = 1;

#[sk_lookup]
pub fn steer(context: SkLookupContext) -> u32 {
    let lookup = context.lookup;
    // SAFETY: fields of the program's context.
    let (protocol, port) = unsafe { ((*lookup).protocol, (*lookup).local_port) };
    if protocol != TCP {
        count(count::OTHER_PROTOCOL);
        return SK_PASS;
    }
    let (remote, local) = ends(lookup);
    // The agent reaches the application from a loopback address, and so does the workload itself.
    if remote == local || is_loopback(&remote) {
        count(count::OWN);
        return SK_PASS;
    }
    if !is_enrolled(port) {
        return SK_PASS;
    }
    // From one of its addresses to another.
    if is_of_namespace(&remote) {
        count(count::OWN);
        return SK_PASS;
    }
    let wanted = if is_mapped(&local) { listener::INBOUND_IPV4 } else { listener::INBOUND_IPV6 };
    if LISTENERS.redirect_sk_lookup(&context, wanted, REPLACE).is_ok() {
        count(count::STEERED);
        SK_PASS
    } else if IS_FAIL_CLOSED.load() != 0 {
        count(count::REFUSED);
        SK_DROP
    } else {
        count(count::UNSTEERED);
        SK_PASS
    }
}

/// Remote and local address of the packet.
#[inline(always)]
fn ends(lookup: *mut bpf_sk_lookup) -> (Address, Address) {
    // All of it is read before any of it is looked at: where the family decides which is read, the
    // compiler makes one access of both, at an offset that the verifier does not accept. The
    // addresses of the other family read as zero.
    // SAFETY: fields of the program's context.
    let (is_ipv4, remote4, local4, remote6, local6) = unsafe {
        let remote6 = (&raw const (*lookup).remote_ip6).cast::<u32>();
        let local6 = (&raw const (*lookup).local_ip6).cast::<u32>();
        (
            (*lookup).family == IPV4,
            (&raw const (*lookup).remote_ip4).read_volatile(),
            (&raw const (*lookup).local_ip4).read_volatile(),
            read_words(remote6),
            read_words(local6),
        )
    };
    if is_ipv4 { ([0, 0, MAPPED, remote4], [0, 0, MAPPED, local4]) } else { (remote6, local6) }
}

#[inline(always)]
fn is_of_namespace(address: &Address) -> bool {
    // SAFETY: only its presence is looked at.
    unsafe { LOCAL.get(address) }.is_some()
}

#[inline(always)]
fn is_enrolled(port: u32) -> bool {
    let word = (port >> 6) as usize & (PORT_WORDS - 1);
    // SAFETY: the index is in bounds; volatile, so that the compiler does not fold the zeros that
    // the loader replaces.
    let word = unsafe { (&raw const PORTS).cast::<u64>().add(word).read_volatile() };
    word >> (port & 63) & 1 != 0
}

#[inline(always)]
fn count(what: u32) {
    if let Some(counter) = COUNTS.get_ptr_mut(what) {
        // SAFETY: this CPU's own counter; lookups do not interrupt each other.
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
