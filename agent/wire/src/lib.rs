//! Sans-IO readers of observed byte streams: TCP segments in, HTTP exchanges out.
//!
//! Nothing here opens a socket, reads a clock or spawns anything: the same bytes give the same
//! exchanges, whether they come from the kernel, a capture file or a fuzzer.
#![forbid(unsafe_code)]

pub mod assembler;
#[cfg(test)]
mod capture_tests;
mod connection;
pub mod content;
pub mod counters;
pub mod exchange;
pub mod exchange_json;
mod fragments;
pub mod har;
pub mod http1;
pub mod packet;
pub mod packet_file;
mod pairing;
mod pcapng;
mod pending;
pub mod reader;
pub mod recording;
pub mod segment;
pub mod tracker;

pub use counters::Counters;
pub use packet_file::{Error, Summary, read_capture};
pub use reader::{Reader, ReaderConfig};
