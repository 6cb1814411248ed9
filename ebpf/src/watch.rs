//! Which service a socket belongs to.

use aya_ebpf::{
    bindings::{__sk_buff, bpf_sock_ops},
    helpers::generated::{bpf_get_netns_cookie, bpf_skb_ancestor_cgroup_id},
    macros::map,
    maps::{Array, HashMap},
};
use stoa_common::watch::{CGROUPS, LEVELS, PORTS, PortKey, Watching};

use crate::settings::HAS_NETNS_COOKIE;

#[map]
static WATCHING: Array<Watching> = Array::with_max_entries(1, 0);
/// Cgroup id -> slot.
#[map]
static WATCHED_CGROUPS: HashMap<u64, u32> = HashMap::with_max_entries(CGROUPS, 0);
#[map]
static WATCHED_PORTS: HashMap<PortKey, u32> = HashMap::with_max_entries(PORTS, 0);

#[inline(always)]
pub fn current() -> Watching {
    WATCHING.get(0).copied().unwrap_or_default()
}

#[inline(always)]
fn find_port(netns: u64, port: u32) -> Option<u32> {
    let key = PortKey { netns, port, reserved: 0 };
    // SAFETY: the value is copied at once.
    unsafe { WATCHED_PORTS.get(&key) }.copied()
}

/// 0 where the kernel does not tell.
#[inline(always)]
fn netns_of(context: *mut core::ffi::c_void) -> u64 {
    if HAS_NETNS_COOKIE.load() != 0 {
        // SAFETY: a plain helper call on the program's context.
        unsafe { bpf_get_netns_cookie(context) }
    } else {
        0
    }
}

/// 1 if ports alone are watched, and this is none of them. A global function: the verifier follows
/// what comes after it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn is_port_of_others(skb: *mut __sk_buff, local_port: u32) -> u32 {
    if current().levels != 0 {
        return 0;
    }
    u32::from(find_port(netns_of(skb.cast()), local_port).is_none())
}

/// No service's slot. A number, because the unused half of an `Option` may stay undefined, and the
/// verifier refuses to see even that spilled.
pub const NOBODY: u32 = u32::MAX;

/// The slot of the socket that this packet belongs to. A port is more particular than a cgroup,
/// and a deeper cgroup than the one above.
#[inline(always)]
pub fn find_slot(skb: *mut __sk_buff, local_port: u32, watching: &Watching) -> u32 {
    if watching.ports != 0
        && let Some(slot) = find_port(netns_of(skb.cast()), local_port)
    {
        return slot;
    }
    let mut found = NOBODY;
    for level in 0..LEVELS {
        if level >= watching.levels {
            break;
        }
        // SAFETY: a plain helper call on the program's context.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
        if id == 0 {
            break;
        }
        // SAFETY: the value is copied at once.
        if let Some(slot) = unsafe { WATCHED_CGROUPS.get(&id) } {
            found = *slot;
        }
    }
    found
}

/// Whether a connection that begins may be watched. `sock_ops` programs cannot ask for the
/// socket's cgroup, so with a watched cgroup every one may be.
#[inline(always)]
pub fn may_match(ops: *mut bpf_sock_ops, local_port: u32, watching: &Watching) -> bool {
    if watching.levels != 0 {
        return true;
    }
    find_port(netns_of(ops.cast()), local_port).is_some()
}
