//! HTTP/1.1 (RFC 9112), both sides of it. A message is read strictly and written anew: no byte of
//! a head or of a chunk's framing is passed on as it came, so nobody behind can read a message's
//! end elsewhere than we did.

pub mod chunked;
pub mod client;
pub mod encode;
pub mod head;
pub mod length;
pub mod reader;
pub mod server;

/// The most a head may have, of either side.
pub const MOST_HEAD_BYTES: usize = 64 << 10;
pub const MOST_HEADERS: usize = 128;
pub const MOST_TARGET_BYTES: usize = 32 << 10;
