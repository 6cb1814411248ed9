//! The agent's own sockets inside workloads' network namespaces.
//!
//! What comes to a steered port is accepted by the agent, on a socket that has the service's port
//! in the service's namespace. The same exchange reaches the application on a second connection,
//! which is the one to record.

use aya_ebpf::{
    bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, bpf_map_type::BPF_MAP_TYPE_SK_STORAGE, bpf_sock},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};

/// A definition as `aya_ebpf::btf_maps` has them, with one flag more.
#[repr(C)]
struct InheritedStorage {
    r#type: *const [i32; BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const u8,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: the pointers say what the loader is to make, and are never followed.
unsafe impl Sync for InheritedStorage {}

/// The agent marks its listeners; what they accept inherits the mark before its first packet.
#[btf_map]
static OWN_SOCKETS: InheritedStorage = InheritedStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

#[inline(always)]
pub fn is_own(socket: *mut bpf_sock) -> bool {
    let map = (&raw const OWN_SOCKETS).cast_mut().cast();
    // SAFETY: the verifier has checked that `socket` is a full socket.
    !unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) }.is_null()
}
