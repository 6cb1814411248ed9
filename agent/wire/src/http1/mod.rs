//! HTTP/1.0 and HTTP/1.1 messages (RFC 9112), one direction at a time.

pub mod body;
pub mod chunked;
pub mod framing;
pub mod head;

/// The message's framing cannot be trusted, so nothing after it can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadFraming;
