//! Start line and header section.

use std::mem::MaybeUninit;

use bytes::Bytes;

use crate::exchange::{Body, Header, Message, Request, Response};

/// Heads with more header lines than this take the slow path.
const USUAL_HEADERS: usize = 64;
const MOST_HEADERS: usize = 2048;

#[derive(Debug)]
pub enum Parsed<T> {
    /// Not all of the head is there yet.
    Partial,
    /// No HTTP/1 head (this includes obsolete line folding, RFC 9112 section 5.2).
    Refused,
    /// The head, and the number of bytes that it took.
    Whole(T, usize),
}

pub fn parse_request(bytes: &[u8]) -> Parsed<Request> {
    let Some((skipped, bytes)) = skip_empty_lines(bytes) else { return Parsed::Partial };
    let mut few = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    match request_with(bytes, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![MaybeUninit::uninit(); MOST_HEADERS];
            finish(request_with(bytes, &mut many), skipped)
        }
        result => finish(result, skipped),
    }
}

pub fn parse_response(bytes: &[u8]) -> Parsed<Response> {
    let mut few = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    match response_with(bytes, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![MaybeUninit::uninit(); MOST_HEADERS];
            finish(response_with(bytes, &mut many), 0)
        }
        result => finish(result, 0),
    }
}

/// True where more bytes could make a head of this prefix; errs towards true.
pub fn may_begin_request(bytes: &[u8]) -> bool {
    let Some((_, bytes)) = skip_empty_lines(bytes) else { return true };
    match bytes.iter().position(|b| *b == b' ') {
        Some(0) => false,
        Some(n) => n <= 32 && bytes[..n].iter().all(|b| is_token(*b)),
        None => bytes.len() <= 32 && bytes.iter().all(|b| is_token(*b)),
    }
}

pub fn may_begin_response(bytes: &[u8]) -> bool {
    let magic = b"HTTP/1.";
    let n = bytes.len().min(magic.len());
    bytes[..n] == magic[..n]
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// RFC 9112 section 2.2: empty lines before a request line are ignored. `None`: nothing else.
fn skip_empty_lines(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let n = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'))?;
    Some((n, &bytes[n..]))
}

type Slots<'h, 'b> = &'h mut [MaybeUninit<httparse::Header<'b>>];
type Outcome<T> = Result<Option<(T, usize)>, httparse::Error>;

fn finish<T>(outcome: Outcome<T>, skipped: usize) -> Parsed<T> {
    match outcome {
        Ok(Some((head, len))) => Parsed::Whole(head, skipped + len),
        Ok(None) => Parsed::Partial,
        Err(_) => Parsed::Refused,
    }
}

fn request_with<'b>(bytes: &'b [u8], slots: Slots<'_, 'b>) -> Outcome<Request> {
    let mut parsed = httparse::Request::new(&mut []);
    let httparse::Status::Complete(len) = parsed.parse_with_uninit_headers(bytes, slots)? else {
        return Ok(None);
    };
    let span = |text: &str| {
        let (start, end) = span(bytes, text.as_bytes());
        start..end
    };
    let request = Request {
        method: span(parsed.method.unwrap_or("")),
        target: span(parsed.path.unwrap_or("")),
        message: message(bytes, len, parsed.headers, parsed.version),
    };
    Ok(Some((request, len)))
}

fn response_with<'b>(bytes: &'b [u8], slots: Slots<'_, 'b>) -> Outcome<Response> {
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        slots,
    )?;
    let httparse::Status::Complete(len) = status else { return Ok(None) };
    let response = Response {
        status: parsed.code.unwrap_or(0),
        message: message(bytes, len, parsed.headers, parsed.version),
    };
    Ok(Some((response, len)))
}

fn message(
    bytes: &[u8],
    len: usize,
    headers: &[httparse::Header<'_>],
    minor: Option<u8>,
) -> Message {
    let headers = headers
        .iter()
        .map(|h| Header { name: span(bytes, h.name.as_bytes()), value: span(bytes, h.value) })
        .collect();
    Message {
        head: Bytes::copy_from_slice(&bytes[..len]),
        headers,
        minor: minor.unwrap_or(1),
        trailers: Vec::new(),
        body: Body::default(),
    }
}

/// Where `part`, which httparse cut out of `whole`, lies in it.
fn span(whole: &[u8], part: &[u8]) -> (u32, u32) {
    let start = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
    // An empty slice need not point into the buffer.
    if part.is_empty() || start > whole.len() {
        return (0, 0);
    }
    (start as u32, (start + part.len()) as u32)
}
