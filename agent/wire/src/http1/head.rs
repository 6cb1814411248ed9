//! Start line and header section.

use std::{mem::MaybeUninit, ops::Range};

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

/// A message's head, still without its body.
#[derive(Debug)]
pub struct Head {
    /// As it was on the wire, start line included.
    pub bytes: Bytes,
    pub fields: Vec<Header>,
    pub minor: u8,
}

#[derive(Debug)]
pub struct RequestHead {
    pub method: Range<u32>,
    pub target: Range<u32>,
    pub head: Head,
}

#[derive(Debug)]
pub struct ResponseHead {
    pub status: u16,
    pub head: Head,
}

impl Head {
    /// Name and value of every field.
    pub fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let span = |(from, to): (u32, u32)| self.bytes.get(from as usize..to as usize);
        self.fields.iter().filter_map(move |field| Some((span(field.name)?, span(field.value)?)))
    }

    #[inline]
    fn with_body(self, body: Body) -> Message {
        let Self { bytes, fields, minor } = self;
        Message { head: bytes, headers: fields, minor, trailers: Vec::new(), body }
    }
}

impl RequestHead {
    pub fn method(&self) -> &[u8] {
        self.head
            .bytes
            .get(self.method.start as usize..self.method.end as usize)
            .unwrap_or_default()
    }

    #[inline]
    pub fn with_body(self, body: Body) -> Request {
        Request { method: self.method, target: self.target, message: self.head.with_body(body) }
    }
}

impl ResponseHead {
    #[inline]
    pub fn with_body(self, body: Body) -> Response {
        Response { status: self.status, message: self.head.with_body(body) }
    }
}

pub fn parse_request(bytes: &[u8]) -> Parsed<RequestHead> {
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

pub fn parse_response(bytes: &[u8]) -> Parsed<ResponseHead> {
    let mut few = [const { MaybeUninit::uninit() }; USUAL_HEADERS];
    match response_with(bytes, &mut few) {
        Err(httparse::Error::TooManyHeaders) => {
            let mut many = vec![MaybeUninit::uninit(); MOST_HEADERS];
            finish(response_with(bytes, &mut many), 0)
        }
        result => finish(result, 0),
    }
}

/// What the beginning of a request head tells once the rest of it is known to be lost: the request
/// line and the header fields that were seen whole. `None` where not even the line was.
pub fn parse_cut_request(bytes: &[u8]) -> Option<RequestHead> {
    let (_, bytes) = skip_empty_lines(bytes)?;
    let Parsed::Whole(mut request, _) = parse_request(&close_cut_head(bytes)?) else { return None };
    drop_end(&mut request.head, 2);
    Some(request)
}

/// The same for a response, of which three digits with something behind them are enough.
pub fn parse_cut_response(bytes: &[u8]) -> Option<ResponseHead> {
    const STATUS_END: usize = "HTTP/1.1 200".len();
    let (closed, added) = match close_cut_head(bytes) {
        Some(closed) => (closed, 2),
        None if matches!(bytes.get(STATUS_END), Some(b' ' | b'\r')) => {
            ([&bytes[..STATUS_END], b"\r\n\r\n"].concat(), 4)
        }
        None => return None,
    };
    let Parsed::Whole(mut response, _) = parse_response(&closed) else { return None };
    drop_end(&mut response.head, added);
    Some(response)
}

/// The whole lines of a head that was cut, and an empty line to close it.
fn close_cut_head(bytes: &[u8]) -> Option<Vec<u8>> {
    let last = bytes.iter().rposition(|b| *b == b'\n')?;
    Some([&bytes[..=last], b"\r\n"].concat())
}

/// What was added was not on the wire.
fn drop_end(head: &mut Head, added: usize) {
    head.bytes.truncate(head.bytes.len().saturating_sub(added));
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

/// True for the beginning of a request line up to the target's first character, which text that
/// merely stands where a request might does not have. Errs towards false.
pub fn seems_request(bytes: &[u8]) -> bool {
    let Some((_, bytes)) = skip_empty_lines(bytes) else { return false };
    let Some(end) = bytes.iter().position(|b| *b == b' ') else { return false };
    let is_method = (3..=32).contains(&end) && bytes[..end].iter().all(u8::is_ascii_uppercase);
    let target = &bytes[end + 1..];
    is_method && (matches!(target.first(), Some(b'/' | b'*')) || target.starts_with(b"http"))
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

fn request_with<'b>(bytes: &'b [u8], slots: Slots<'_, 'b>) -> Outcome<RequestHead> {
    let mut parsed = httparse::Request::new(&mut []);
    let httparse::Status::Complete(len) = parsed.parse_with_uninit_headers(bytes, slots)? else {
        return Ok(None);
    };
    let span = |text: &str| {
        let (start, end) = span(bytes, text.as_bytes());
        start..end
    };
    let request = RequestHead {
        method: span(parsed.method.unwrap_or("")),
        target: span(parsed.path.unwrap_or("")),
        head: copy_head(bytes, len, parsed.headers, parsed.version),
    };
    Ok(Some((request, len)))
}

fn response_with<'b>(bytes: &'b [u8], slots: Slots<'_, 'b>) -> Outcome<ResponseHead> {
    let mut parsed = httparse::Response::new(&mut []);
    let status = httparse::ParserConfig::default().parse_response_with_uninit_headers(
        &mut parsed,
        bytes,
        slots,
    )?;
    let httparse::Status::Complete(len) = status else { return Ok(None) };
    let response = ResponseHead {
        status: parsed.code.unwrap_or(0),
        head: copy_head(bytes, len, parsed.headers, parsed.version),
    };
    Ok(Some((response, len)))
}

fn copy_head(bytes: &[u8], len: usize, fields: &[httparse::Header<'_>], minor: Option<u8>) -> Head {
    let fields = fields
        .iter()
        .map(|h| Header { name: span(bytes, h.name.as_bytes()), value: span(bytes, h.value) })
        .collect();
    Head { bytes: Bytes::copy_from_slice(&bytes[..len]), fields, minor: minor.unwrap_or(1) }
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
