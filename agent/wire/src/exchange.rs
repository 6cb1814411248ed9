//! What the reader yields: one HTTP request with its own response, raw.
//!
//! An [`Exchange`] holds personal data. It lives in memory on the node that saw it and nowhere
//! else; `stoa_contract::redact` is the only way from here to anything that is kept.

use std::{fmt, ops::Range};

use bytes::Bytes;

use crate::segment::{Endpoints, FlowId, Loss, Nanos};

/// A request and its own response, as far as they were seen.
pub struct Exchange {
    pub flow: FlowId,
    pub endpoints: Endpoints,
    /// When the request's first byte was seen.
    pub started: Nanos,
    /// When the last byte of either message was seen.
    pub ended: Nanos,
    /// `None` where only a response was seen.
    pub request: Option<Request>,
    /// The final response; `None` where none was seen. Never invented.
    pub response: Option<Response>,
    /// Statuses of the interim (1xx) responses, in order.
    pub interim: Vec<u16>,
    /// Empty where both messages were read from first to last byte.
    pub incomplete: Vec<Incomplete>,
    /// Bytes of this exchange that were on the wire and not seen, by reason.
    pub lost: Vec<(Loss, u64)>,
}

pub struct Request {
    pub method: Range<u32>,
    pub target: Range<u32>,
    pub message: Message,
}

pub struct Response {
    pub status: u16,
    pub message: Message,
}

/// Head and body of one message. Names and values point into `head`.
pub struct Message {
    /// The head as it was on the wire, start line included. Of a head that was cut (`RequestHeadLost`,
    /// `ResponseHeadLost`), the whole lines that were seen: that a field is absent means nothing then.
    pub head: Bytes,
    pub headers: Vec<Header>,
    /// HTTP/1.`minor`
    pub minor: u8,
    pub trailers: Vec<(Bytes, Bytes)>,
    pub body: Body,
}

#[derive(Clone, Copy, Debug)]
pub struct Header {
    pub name: (u32, u32),
    pub value: (u32, u32),
}

/// A message body after transfer decoding (RFC 9112 section 7).
#[derive(Default)]
pub struct Body {
    /// Bytes on the wire without chunk framing; counts skipped bytes where framing tells them.
    pub length: u64,
    /// SHA-256 of the body before content decoding, where asked for and wholly seen.
    pub sha256: Option<[u8; 32]>,
    /// The codings of `Content-Encoding`, outermost last, lower case.
    pub codings: Vec<Coding>,
    /// The body's first bytes after content decoding, up to the reader's limit.
    pub content: Bytes,
    /// Length after content decoding, where the whole body was seen and decoded.
    pub decoded_length: Option<u64>,
    /// SHA-256 after content decoding, where asked for and wholly decoded.
    pub decoded_sha256: Option<[u8; 32]>,
    /// Why `content` is not the whole decoded body; `None` where it is.
    pub partial: Option<Partial>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
    /// A coding that this reader does not know; the content stays encoded and is not shown.
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partial {
    /// Longer than the reader keeps (or than the capture's budget).
    Limit,
    /// Bytes are missing.
    Loss,
    /// The connection ended first.
    Cut,
    /// Content coding is broken, unknown, or expands beyond the permitted ratio.
    Undecodable,
}

/// Why an exchange is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Incomplete {
    /// The capture began in the middle of it.
    JoinedMidStream,
    /// Not all of the head was seen; the request is there if its start line was.
    RequestHeadLost,
    RequestBodyTruncated,
    ResponseMissing,
    /// Not all of the head was seen; the response is there if its status was.
    ResponseHeadLost,
    ResponseBodyTruncated,
    /// The connection ended before the message did.
    ConnectionEnded,
    /// After a gap nothing proves which request this response answers.
    PairingUnprovable,
    /// Conflicting or invalid framing; what follows on the connection was not read.
    BadFraming,
}

impl Incomplete {
    pub const ALL: [Self; 9] = [
        Self::JoinedMidStream,
        Self::RequestHeadLost,
        Self::RequestBodyTruncated,
        Self::ResponseMissing,
        Self::ResponseHeadLost,
        Self::ResponseBodyTruncated,
        Self::ConnectionEnded,
        Self::PairingUnprovable,
        Self::BadFraming,
    ];

    /// As it is shown: `response-missing`.
    pub fn name(self) -> &'static str {
        match self {
            Self::JoinedMidStream => "joined-mid-stream",
            Self::RequestHeadLost => "request-head-lost",
            Self::RequestBodyTruncated => "request-body-truncated",
            Self::ResponseMissing => "response-missing",
            Self::ResponseHeadLost => "response-head-lost",
            Self::ResponseBodyTruncated => "response-body-truncated",
            Self::ConnectionEnded => "connection-ended",
            Self::PairingUnprovable => "pairing-unprovable",
            Self::BadFraming => "bad-framing",
        }
    }
}

impl Partial {
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Loss => "loss",
            Self::Cut => "cut",
            Self::Undecodable => "undecodable",
        }
    }
}

impl Coding {
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
            Self::Unknown => "unknown",
        }
    }
}

impl Message {
    /// Name and value of every header, in wire order. Names keep their case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|h| {
            let name = &self.head[h.name.0 as usize..h.name.1 as usize];
            // httparse lets only token characters through, which are ASCII.
            (
                std::str::from_utf8(name).unwrap_or(""),
                &self.head[h.value.0 as usize..h.value.1 as usize],
            )
        })
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        self.headers
            .iter()
            .find(|h| {
                h.name.1 - h.name.0 == name.len() as u32
                    && self.head[h.name.0 as usize..h.name.1 as usize]
                        .eq_ignore_ascii_case(name.as_bytes())
            })
            .map(|h| &self.head[h.value.0 as usize..h.value.1 as usize])
    }
}

impl Request {
    pub fn method(&self) -> &str {
        std::str::from_utf8(
            &self.message.head[self.method.start as usize..self.method.end as usize],
        )
        .unwrap_or("")
    }

    /// The request target as sent: origin form, absolute form, authority form or `*`.
    pub fn target(&self) -> &[u8] {
        &self.message.head[self.target.start as usize..self.target.end as usize]
    }
}

impl Exchange {
    pub fn is_complete(&self) -> bool {
        self.incomplete.is_empty() && self.request.is_some() && self.response.is_some()
    }

    pub fn bytes_lost(&self) -> u64 {
        self.lost.iter().map(|(_, n)| n).sum()
    }
}

/// Shows no content: exchanges must not reach a log by way of `{:?}`.
impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange")
            .field("flow", &self.flow)
            .field("status", &self.response.as_ref().map(|r| r.status))
            .field("incomplete", &self.incomplete)
            .finish_non_exhaustive()
    }
}
