//! The kernel side: sees each TCP segment of watched sockets, decides what is worth copying, and
//! never wakes anyone.
//!
//! `ingress` and `egress` are attached to cgroups and see IP packets of their sockets, up to the
//! size that segmentation offload makes them. `lifecycle` is a `sock_ops` program on the same
//! cgroups and sees connections begin and end. A connection's state lives in the storage of its
//! socket and is freed with it.
//!
//! Written so that kernels from 5.10 on accept it: no helper newer than that runs unless the
//! loader found it and set the constant that guards it.
#![no_std]
#![no_main]
#![allow(
    clippy::not_unsafe_ptr_arg_deref,
    reason = "the kernel calls the programs, with a context that is valid"
)]
#![feature(core_intrinsics)]
#![allow(internal_features, reason = "an atomic addition without compare-and-swap")]

mod copying;
mod deferred;
mod flow;
mod http;
mod lifecycle;
mod own;
mod packet;
mod ring;
mod sampling;
mod segment;
mod settings;
mod tallies;
mod telling;
mod watch;

use aya_ebpf::{
    EbpfContext as _,
    macros::{cgroup_skb, sock_ops},
    programs::{SkBuffContext, SockOpsContext},
};
use stoa_common::record::direction::{TO_CLIENT, TO_SERVER};

/// The verdict that lets a packet pass. These programs only watch.
const PASS: i32 = 1;

#[cgroup_skb(ingress)]
pub fn ingress(context: SkBuffContext) -> i32 {
    segment::observe::<{ TO_SERVER as usize }>(context.as_ptr().cast());
    PASS
}

#[cgroup_skb(egress)]
pub fn egress(context: SkBuffContext) -> i32 {
    segment::observe::<{ TO_CLIENT as usize }>(context.as_ptr().cast());
    PASS
}

#[sock_ops]
pub fn lifecycle(context: SockOpsContext) -> u32 {
    lifecycle::observe(context.ops);
    1
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
