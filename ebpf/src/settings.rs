//! Constants that the loader sets before the programs are verified: code they switch off is never
//! seen by an older kernel's verifier.

use aya_ebpf::Global;

/// Bytes of body copied per message and direction.
#[unsafe(no_mangle)]
pub static BODY_BUDGET: Global<u32> = Global::new(16 << 10);

/// With so many bytes waiting in the ring, new exchanges are left out whole.
#[unsafe(no_mangle)]
pub static SHED_ABOVE: Global<u64> = Global::new(6 << 20);

/// 1 where `bpf_get_netns_cookie` may be called by both program types (6.15 for `cgroup_skb`).
#[unsafe(no_mangle)]
pub static HAS_NETNS_COOKIE: Global<u8> = Global::new(0);

/// The longest message head that is copied whole.
pub const HEAD_LIMIT: u32 = 64 << 10;
/// What a head is taken to need at most while its end has not been found.
pub const HEAD_GUESS: u32 = 4 << 10;
/// Copied from the start of a message on a connection with pipelining.
pub const PIPELINE_LIMIT: u32 = 256 << 10;
