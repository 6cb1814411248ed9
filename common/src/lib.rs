//! Types that cross the boundary between the kernel side and the agent.
//!
//! Everything here is plain data in C layout without implicit padding: the kernel side writes it,
//! the agent reads it, both are built from this one definition.
#![no_std]

pub mod record;
pub mod redirect;
pub mod tally;
pub mod watch;
