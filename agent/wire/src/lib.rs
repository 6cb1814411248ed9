//! Sans-IO readers of observed byte streams: TCP segments in, HTTP exchanges out.
//!
//! Nothing here opens a socket, reads a clock or spawns anything: the same bytes give the same
//! exchanges, whether they come from the kernel, a capture file or a fuzzer.
#![forbid(unsafe_code)]

pub mod exchange;
pub mod segment;
