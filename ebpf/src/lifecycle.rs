//! Connections beginning and ending.

use aya_ebpf::{
    bindings::{
        BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB,
        BPF_SOCK_OPS_STATE_CB, BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock_ops,
    },
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set},
};
use stoa_common::record::{
    RecordHeader,
    direction::{TO_CLIENT, TO_SERVER},
    kind, reason,
};

use crate::{deferred, flow, ring, telling::tell_lost, watch};

/// `BPF_TCP_CLOSE` of uapi/linux/bpf.h.
const CLOSED: u32 = 7;
const INWARD: usize = TO_SERVER as usize;
const OUTWARD: usize = TO_CLIENT as usize;

#[inline(always)]
pub fn observe(ops: *mut bpf_sock_ops) {
    // SAFETY: fields of the program's context.
    unsafe {
        let op = (*ops).op;
        if op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB {
            begin(ops);
        } else if op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB {
            ignore(ops);
        } else if op == BPF_SOCK_OPS_STATE_CB && (*ops).__bindgen_anon_1.args[1] == CLOSED {
            end(ops);
        }
    }
}

/// A connection that was accepted: its first bytes will be seen, and its end.
#[inline(always)]
unsafe fn begin(ops: *mut bpf_sock_ops) {
    // SAFETY: fields of the program's context; the verifier wants the null check.
    unsafe {
        let watching = watch::current();
        if !watch::may_match(ops, (*ops).local_port, &watching) {
            return;
        }
        let socket = (*ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        let flow = flow::find_or_create(socket);
        if flow.is_null() {
            return;
        }
        let cookie = bpf_get_socket_cookie(ops.cast());
        let (from_client, from_server) = ((*ops).rcv_nxt, (*ops).snd_nxt);
        // The remote port alone is in network byte order (uapi/linux/bpf.h).
        let client_port = u32::from_be((*ops).remote_port) as u16;
        let server_port = (*ops).local_port as u16;
        let first = deferred::slot_of_this_cpu();
        if first.is_null() {
            return;
        }
        match deferred::take(first, client_port, server_port, from_client, from_server) {
            Some((seen, open)) => {
                flow.write(*seen);
                flow::begin_stream::<OUTWARD>(flow, from_server);
                (*flow).is_open_told = 0;
                (*flow).deferred = (*seen).cookie;
                (*flow).cookie = cookie;
                if (*flow).state != flow::IGNORED && (*flow).is_shed == 0 {
                    (*open).header.flow = cookie;
                    (*open).server_seq = from_server;
                    (*flow).is_open_told = u8::from(ring::put_open(open));
                }
            }
            None => {
                (*flow).cookie = cookie;
                flow::begin_streams(flow, from_client, from_server);
            }
        }
        let flags = (*ops).bpf_sock_ops_cb_flags | BPF_SOCK_OPS_STATE_CB_FLAG;
        bpf_sock_ops_cb_flags_set(ops, flags as i32);
    }
}

/// A connection that was opened from here: its other end records it.
#[inline(always)]
unsafe fn ignore(ops: *mut bpf_sock_ops) {
    // SAFETY: fields of the program's context; the verifier wants the null check.
    unsafe {
        if watch::current().levels == 0 {
            // By port only: the connection's own port is not a listening one.
            return;
        }
        let socket = (*ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        let flow = flow::find_or_create(socket);
        if !flow.is_null() {
            (*flow).state = flow::IGNORED;
        }
    }
}

#[inline(always)]
unsafe fn end(ops: *mut bpf_sock_ops) {
    // SAFETY: fields of the program's context; the verifier wants the null checks.
    unsafe {
        let socket = (*ops).__bindgen_anon_2.sk;
        if socket.is_null() {
            return;
        }
        let flow = flow::find(socket);
        if flow.is_null() || (*flow).is_open_told == 0 {
            return;
        }
        let at = bpf_ktime_get_ns();
        let inward = &raw mut (*flow).streams[INWARD];
        if (*inward).lost_from != (*inward).lost_to {
            tell_lost(flow, inward, TO_SERVER.into(), at);
        }
        let outward = &raw mut (*flow).streams[OUTWARD];
        if (*outward).lost_from != (*outward).lost_to {
            tell_lost(flow, outward, TO_CLIENT.into(), at);
        }
        (*flow).is_open_told = 0;
        (*flow).state = flow::IGNORED;
        ring::put_header(&RecordHeader {
            flow: (*flow).cookie,
            at,
            slot: (*flow).slot,
            seq: 0,
            ack: 0,
            len: 0,
            captured: 0,
            kind: kind::CLOSE,
            direction: 0,
            flags: 0,
            reason: reason::NONE,
        });
    }
}
