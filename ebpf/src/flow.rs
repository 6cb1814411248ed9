//! What is remembered of a connection, in the storage of its socket.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::{BPF_SK_STORAGE_GET_F_CREATE, bpf_sock},
    btf_maps::SkStorage,
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
};
use stoa_common::record::{
    direction::{TO_CLIENT, TO_SERVER},
    reason,
};

use crate::settings::HEAD_GUESS;

#[btf_map]
static FLOWS: SkStorage<Flow> = SkStorage::new();

/// Only the agent's own counters and decisions; no payload.
///
/// Client and server often run on different CPUs, so the order matters: what a client's segment
/// needs fills the first cache line (the kernel begins storage 8 bytes into one), what a server's
/// segment writes is in the second, and neither writes into the other's while nothing is lost.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Flow {
    pub cookie: u64,
    pub slot: u32,
    /// What the segment that began the last request acknowledged.
    pub request_ack: u32,
    pub state: u8,
    pub is_from_start: u8,
    /// The agent has been told of the connection's ends.
    pub is_open_told: u8,
    /// The current exchange is left out whole.
    pub is_shed: u8,
    /// Payload segments that proved nothing, by direction.
    pub unproven: [u8; 2],
    /// The client sends requests before it has the responses: messages then begin in the middle
    /// of segments, so more is copied from each one that begins with a segment.
    pub is_pipelined: u8,
    /// Exchanges of it were left out.
    pub has_shed: u8,
    pub streams: [Stream; 2],
    /// The name under which its first segment was handed on before it had a socket, or 0.
    pub deferred: u64,
    /// Sequence numbers of the first bytes, where `is_from_start`: from the client, from the server.
    pub first: [u32; 2],
    /// [`stoa_common::watch::Watching::generation`] when it was found unwatched.
    pub generation: u32,
    /// Where the current request ends, if it is known and far ahead, or the request is left out;
    /// else 0.
    pub request_end: u32,
}

const _: () = assert!(offset_of!(Flow, streams) + size_of::<Stream>() == 56);

/// One direction. Numbers are TCP sequence numbers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Stream {
    /// Where the current message begins and up to where it is copied.
    pub base: u32,
    pub limit: u32,
    /// The same of the message before, for what arrives late.
    pub previous_base: u32,
    pub previous_limit: u32,
    /// The highest byte seen, plus one.
    pub end: u32,
    /// Bytes lost of which the agent has not been told: from, to.
    pub lost_from: u32,
    pub lost_to: u32,
    pub lost_reason: u8,
    /// `base` and `limit` hold.
    pub is_started: u8,
    /// The end of the current message's head has not been found.
    pub is_head_open: u8,
    /// Why bytes beyond `limit` are not copied.
    pub skip_reason: u8,
}

impl Flow {
    /// What fresh storage holds.
    pub const NOTHING: Self = {
        const STREAM: Stream = Stream {
            base: 0,
            limit: 0,
            previous_base: 0,
            previous_limit: 0,
            end: 0,
            lost_from: 0,
            lost_to: 0,
            lost_reason: 0,
            is_started: 0,
            is_head_open: 0,
            skip_reason: 0,
        };
        Self {
            cookie: 0,
            slot: 0,
            request_ack: 0,
            state: NEW,
            is_from_start: 0,
            is_open_told: 0,
            is_shed: 0,
            unproven: [0; 2],
            is_pipelined: 0,
            has_shed: 0,
            streams: [STREAM; 2],
            deferred: 0,
            first: [0; 2],
            generation: 0,
            request_end: 0,
        }
    };
}

/// A connection that is seen from its first bytes on, which have these numbers.
///
/// # Safety
/// `flow` points into a map.
#[inline(always)]
pub unsafe fn begin_streams(flow: *mut Flow, from_client: u32, from_server: u32) {
    // SAFETY: see above.
    unsafe {
        (*flow).is_from_start = 1;
        begin_stream::<{ TO_SERVER as usize }>(flow, from_client);
        begin_stream::<{ TO_CLIENT as usize }>(flow, from_server);
    }
}

/// The same of one direction.
///
/// # Safety
/// `flow` points into a map.
#[inline(always)]
pub unsafe fn begin_stream<const D: usize>(flow: *mut Flow, first: u32) {
    // SAFETY: see above.
    unsafe {
        (*flow).first[D] = first;
        // What comes before the first message is copied too, while it is short.
        let stream = &raw mut (*flow).streams[D];
        (*stream).base = first;
        (*stream).limit = first.wrapping_add(HEAD_GUESS);
        (*stream).end = first;
        (*stream).is_started = 2;
        (*stream).skip_reason = reason::BUDGET;
    }
}

/// The zero of fresh storage: nothing decided.
pub const NEW: u8 = 0;
/// Watched, and nothing shows yet that it speaks HTTP.
pub const UNPROVEN: u8 = 1;
/// The listening end of an HTTP connection of a watched service.
pub const SERVER: u8 = 2;
/// Not watched, as of `generation`.
pub const UNWATCHED: u8 = 3;
/// The client's end, or not HTTP: never looked at again.
pub const IGNORED: u8 = 4;

/// The flow of this socket, null if it has none.
#[inline(always)]
pub fn find(socket: *mut bpf_sock) -> *mut Flow {
    // SAFETY: the verifier has checked that `socket` is a full socket.
    unsafe { bpf_sk_storage_get(map(), socket.cast(), core::ptr::null_mut(), 0) }.cast()
}

/// The flow of this socket, made if it has none; null if the kernel has no memory for it.
#[inline(always)]
pub fn find_or_create(socket: *mut bpf_sock) -> *mut Flow {
    // SAFETY: the verifier has checked that `socket` is a full socket.
    unsafe {
        bpf_sk_storage_get(
            map(),
            socket.cast(),
            core::ptr::null_mut(),
            BPF_SK_STORAGE_GET_F_CREATE.into(),
        )
    }
    .cast()
}

#[inline(always)]
fn map() -> *mut core::ffi::c_void {
    (&raw const FLOWS).cast_mut().cast()
}

/// `a` is before `b` in sequence space (RFC 9293 section 3.4).
#[inline(always)]
pub fn is_before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}
