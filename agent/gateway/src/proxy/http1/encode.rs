//! Writes heads and bodies.

use bytes::{BufMut, Bytes};
use http::{HeaderMap, Method, StatusCode, Version, header};
use hyper::body::Frame;

use super::length::Length;
use crate::proxy::stream::Outbox;

/// How the body that is being written is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoder {
    /// So many bytes are left.
    Exact(u64),
    Chunked,
    UntilClose,
}

/// A body that is not as long as its head said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongLength;

impl Encoder {
    pub fn push(&mut self, outbox: &mut Outbox, frame: Frame<Bytes>) -> Result<(), WrongLength> {
        match frame.into_data() {
            Ok(data) if data.is_empty() => {}
            Ok(data) => match self {
                Self::Exact(left) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(WrongLength)?;
                    outbox.push(data, b"");
                }
                Self::Chunked => {
                    put_number::<16>(outbox.text(), data.len() as u64);
                    outbox.text().put_slice(b"\r\n");
                    outbox.push(data, b"\r\n");
                }
                Self::UntilClose => outbox.push(data, b""),
            },
            Err(frame) => {
                // Trailers exist in the chunked coding only; elsewhere they are dropped, which
                // RFC 9110 section 6.5.1 permits.
                if let (Self::Chunked, Ok(trailers)) = (&self, frame.into_trailers()) {
                    outbox.text().put_slice(b"0\r\n");
                    put_fields(outbox.text(), &trailers);
                    outbox.text().put_slice(b"\r\n");
                    *self = Self::Exact(0);
                }
            }
        }
        Ok(())
    }

    /// After the last frame.
    pub fn finish(&mut self, outbox: &mut Outbox) -> Result<(), WrongLength> {
        match self {
            Self::Chunked => {
                outbox.text().put_slice(b"0\r\n\r\n");
                *self = Self::Exact(0);
                Ok(())
            }
            Self::Exact(0) | Self::UntilClose => Ok(()),
            Self::Exact(_) => Err(WrongLength),
        }
    }
}

/// In base `BASE`, which is at most 16.
fn put_number<const BASE: u64>(out: &mut Vec<u8>, number: u64) {
    // As many as `u64::MAX` has in base 10.
    let mut digits = [0_u8; 20];
    let mut left = number;
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(left % BASE) as usize];
        left /= BASE;
        if left == 0 {
            break;
        }
    }
    out.put_slice(&digits[at..]);
}

fn put_fields(out: &mut Vec<u8>, headers: &HeaderMap) {
    let size: usize = headers.iter().map(|(n, v)| n.as_str().len() + v.len() + 4).sum();
    out.reserve(size);
    for (name, value) in headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        out.put_slice(name);
        out.put_slice(b": ");
        out.put_slice(value);
        out.put_slice(b"\r\n");
    }
}

/// A request's head. `headers` have nothing that is of one connection only, no `Host` and no
/// length: those are written here.
pub fn put_request(
    out: &mut Vec<u8>,
    method: &Method,
    target: &str,
    host: &[u8],
    headers: &HeaderMap,
    length: Length,
    upgrade: Option<&[u8]>,
) -> Encoder {
    out.reserve(512);
    out.put_slice(method.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(target.as_bytes());
    out.put_slice(b" HTTP/1.1\r\nhost: ");
    out.put_slice(host);
    out.put_slice(b"\r\n");
    put_fields(out, headers);
    if let Some(protocol) = upgrade {
        out.put_slice(b"connection: Upgrade\r\nupgrade: ");
        out.put_slice(protocol);
        out.put_slice(b"\r\n");
    }
    let encoder = match length {
        // RFC 9110 section 8.6: a method that expects content says that there is none.
        Length::Exact(0) => {
            if matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
                out.put_slice(b"content-length: 0\r\n");
            }
            Encoder::Exact(0)
        }
        Length::Exact(length) => {
            put_length(out, length);
            Encoder::Exact(length)
        }
        Length::Unknown | Length::UntilClose => {
            out.put_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked
        }
    };
    out.put_slice(b"\r\n");
    encoder
}

fn put_length(out: &mut Vec<u8>, length: u64) {
    out.put_slice(b"content-length: ");
    put_number::<10>(out, length);
    out.put_slice(b"\r\n");
}

/// What a response's head depends on, beside its fields.
#[derive(Clone, Copy, Debug)]
pub struct ResponseFraming {
    /// Of the client.
    pub version: Version,
    pub length: Length,
    pub has_body: bool,
    pub keep_alive: bool,
    /// The connection becomes another protocol's.
    pub is_upgrade: bool,
}

/// A response's head. `headers` have nothing that is of one connection only. Returns how to write
/// the body, and whether the connection can be used again after it.
pub fn put_response(
    out: &mut Vec<u8>,
    status: StatusCode,
    headers: &HeaderMap,
    date: Option<&[u8]>,
    framing: ResponseFraming,
) -> (Encoder, bool) {
    out.reserve(512);
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.put_slice(b"\r\n");
    put_fields(out, headers);
    if let Some(date) = date {
        out.put_slice(b"date: ");
        out.put_slice(date);
        out.put_slice(b"\r\n");
    }
    let is_http11 = framing.version == Version::HTTP_11;
    let mut keep_alive = framing.keep_alive;
    let encoder = match (framing.has_body, framing.length) {
        (false, _) => Encoder::Exact(0),
        (true, Length::Exact(length)) => {
            put_length(out, length);
            Encoder::Exact(length)
        }
        (true, Length::Unknown | Length::UntilClose) if is_http11 => {
            out.put_slice(b"transfer-encoding: chunked\r\n");
            Encoder::Chunked
        }
        (true, _) => {
            keep_alive = false;
            Encoder::UntilClose
        }
    };
    if framing.is_upgrade {
        out.put_slice(b"connection: Upgrade\r\n");
    } else if !keep_alive {
        out.put_slice(b"connection: close\r\n");
    } else if !is_http11 {
        out.put_slice(b"connection: keep-alive\r\n");
    }
    out.put_slice(b"\r\n");
    (encoder, keep_alive)
}

/// A response that is not the last one (1xx).
pub fn put_interim(out: &mut Vec<u8>, status: StatusCode, headers: &HeaderMap) {
    out.put_slice(b"HTTP/1.1 ");
    out.put_slice(status.as_str().as_bytes());
    out.put_slice(b" ");
    out.put_slice(status.canonical_reason().unwrap_or("").as_bytes());
    out.put_slice(b"\r\n");
    put_fields(out, headers);
    out.put_slice(b"\r\n");
}

/// `http::header::DATE` where the answer has none of its own.
pub fn needs_date(headers: &HeaderMap) -> bool {
    !headers.contains_key(header::DATE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_they_are() {
        for number in [0, 9, 10, 255, 4096, u64::MAX] {
            let mut out = Vec::new();
            put_number::<16>(&mut out, number);
            assert_eq!(out, format!("{number:x}").as_bytes());
            out.clear();
            put_number::<10>(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }

    #[test]
    fn a_body_that_is_not_as_long_as_its_head_said_is_an_error() {
        let mut outbox = Outbox::default();
        let frame = || Frame::data(Bytes::from_static(b"four"));
        let mut encoder = Encoder::Exact(5);
        encoder.push(&mut outbox, frame()).unwrap();
        assert_eq!(encoder.finish(&mut outbox), Err(WrongLength));
        assert_eq!(encoder.push(&mut outbox, frame()), Err(WrongLength));
    }

    #[test]
    fn trailers_follow_the_last_chunk() {
        let mut outbox = Outbox::default();
        let mut encoder = Encoder::Chunked;
        encoder.push(&mut outbox, Frame::data(Bytes::from_static(b"four"))).unwrap();
        encoder.push(&mut outbox, Frame::data(Bytes::new())).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        encoder.push(&mut outbox, Frame::trailers(trailers)).unwrap();
        encoder.finish(&mut outbox).unwrap();
        assert_eq!(outbox.text(), b"4\r\nfour\r\n0\r\nx-sum: 1\r\n\r\n");
    }
}
