//! Heads of requests and responses. httparse reads the tokens; what it forgives and a reader
//! behind us might not is refused here first.

use std::mem::MaybeUninit;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};

use super::{
    MOST_HEAD_BYTES, MOST_HEADERS, MOST_TARGET_BYTES,
    length::{self, Length, LengthError},
};
use crate::proxy::forwarding;

/// Why a head is refused, and with which status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("a line of the head does not end in CRLF")]
    LineEnd,
    #[error(
        "the head is longer than {MOST_HEAD_BYTES} bytes or has more than {MOST_HEADERS} fields"
    )]
    TooLong,
    #[error("the request's target is longer than {MOST_TARGET_BYTES} bytes")]
    TargetTooLong,
    #[error("the first line is not one of HTTP/1.1")]
    FirstLine,
    #[error("the version of HTTP is not 1.0 or 1.1")]
    Version,
    #[error("a header field cannot be read")]
    Field,
    #[error("{0}")]
    Length(#[from] LengthError),
}

impl HeadError {
    /// For the client that sent such a request.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::Length(LengthError::UnknownCoding) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

#[derive(Debug)]
pub struct RequestHead {
    /// All of it.
    pub text: Bytes,
    pub method: Method,
    /// As it was sent.
    pub target: Bytes,
    pub version: Version,
    pub headers: HeaderMap,
    pub length: Length,
    /// By version and `Connection`.
    pub keep_alive: bool,
}

#[derive(Debug)]
pub struct ResponseHead {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub length: Length,
    pub keep_alive: bool,
}

/// The size of the head, with the empty line at its end, once that has come. `scanned` remembers
/// how far this has looked. A line that ends without CR is refused at once: whoever takes it as an
/// end sees another head than we do.
pub fn find_end(buffer: &[u8], scanned: &mut usize) -> Result<Option<usize>, HeadError> {
    let from = *scanned;
    for at in memchr::memchr_iter(b'\n', buffer.get(from..).unwrap_or_default()) {
        let at = from + at;
        let line = buffer.get(..at).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r") else { return Err(HeadError::LineEnd) };
        if line.ends_with(b"\n") {
            return Ok(Some(at + 1));
        }
    }
    *scanned = buffer.len();
    Ok(None)
}

/// Takes a request's head from the front of `buffer` when all of it is there.
pub fn take_request(
    buffer: &mut BytesMut,
    scanned: &mut usize,
) -> Result<Option<RequestHead>, HeadError> {
    // RFC 9112 section 2.2: an empty line before a request is to be ignored.
    while *scanned == 0 && buffer.starts_with(b"\r\n") {
        let _ = buffer.split_to(2);
    }
    let Some(text) = take_head(buffer, scanned)? else { return Ok(None) };
    let mut fields = [MaybeUninit::uninit(); MOST_HEADERS];
    let mut parsed = httparse::Request::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_request_with_uninit_headers(&mut parsed, &text, &mut fields) {
        Ok(httparse::Status::Complete(size)) if size == text.len() => {}
        Ok(_) => return Err(HeadError::Field),
        Err(httparse::Error::Version) if !names_a_version(&text) => {
            return Err(HeadError::FirstLine);
        }
        Err(error) => return Err(refuse(error)),
    }
    let (Some(method), Some(target)) = (parsed.method, parsed.path) else {
        return Err(HeadError::FirstLine);
    };
    if target.len() > MOST_TARGET_BYTES {
        return Err(HeadError::TargetTooLong);
    }
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| HeadError::FirstLine)?;
    let target = text.slice_ref(target.as_bytes());
    let version = version_of(parsed.version);
    let headers = read_fields(&text, parsed.headers)?;
    let length = length::of_request(&headers, version)?;
    let keep_alive = keeps_alive(&headers, version);
    Ok(Some(RequestHead { text, method, target, version, headers, length, keep_alive }))
}

/// Takes a response's head. `method` is that of its request.
pub fn take_response(
    buffer: &mut BytesMut,
    scanned: &mut usize,
    method: &Method,
) -> Result<Option<ResponseHead>, HeadError> {
    // httparse reads over empty lines, which section 2.2 permits before requests only.
    if matches!(buffer.first(), Some(b'\r' | b'\n')) {
        return Err(HeadError::FirstLine);
    }
    let Some(text) = take_head(buffer, scanned)? else { return Ok(None) };
    let mut fields = [MaybeUninit::uninit(); MOST_HEADERS];
    let mut parsed = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, &text, &mut fields) {
        Ok(httparse::Status::Complete(size)) if size == text.len() => {}
        Ok(_) => return Err(HeadError::Field),
        Err(error) => return Err(refuse(error)),
    }
    let status = parsed
        .code
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| status.as_u16() < 600)
        .ok_or(HeadError::FirstLine)?;
    let version = version_of(parsed.version);
    let headers = read_fields(&text, parsed.headers)?;
    let length = length::of_response(&headers, version, status, method)?;
    let keep_alive = keeps_alive(&headers, version);
    Ok(Some(ResponseHead { status, version, headers, length, keep_alive }))
}

fn take_head(buffer: &mut BytesMut, scanned: &mut usize) -> Result<Option<Bytes>, HeadError> {
    let Some(end) = find_end(buffer, scanned)? else {
        return match buffer.len() > MOST_HEAD_BYTES {
            true => Err(HeadError::TooLong),
            false => Ok(None),
        };
    };
    *scanned = 0;
    match end > MOST_HEAD_BYTES {
        true => Err(HeadError::TooLong),
        false => Ok(Some(buffer.split_to(end).freeze())),
    }
}

fn version_of(minor: Option<u8>) -> Version {
    if minor == Some(0) { Version::HTTP_10 } else { Version::HTTP_11 }
}

/// Whether a request's first line ends in a version, if one that is not ours: `HTTP-version` of
/// section 2.3.
fn names_a_version(text: &[u8]) -> bool {
    let line = text.split(|b| *b == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|b| *b == b' ').collect();
    match words[..] {
        [_, _, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]] => {
            major.is_ascii_digit() && minor.is_ascii_digit()
        }
        _ => false,
    }
}

fn refuse(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLong,
        httparse::Error::Version => HeadError::Version,
        httparse::Error::Token | httparse::Error::Status => HeadError::FirstLine,
        httparse::Error::NewLine => HeadError::LineEnd,
        _ => HeadError::Field,
    }
}

fn read_fields(text: &Bytes, fields: &[httparse::Header<'_>]) -> Result<HeaderMap, HeadError> {
    // Room for what the gateway adds.
    let mut headers = HeaderMap::with_capacity(fields.len() + 8);
    for field in fields {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| HeadError::Field)?;
        let value = match field.value.is_empty() {
            true => HeaderValue::from_static(""),
            false => HeaderValue::from_maybe_shared(text.slice_ref(field.value))
                .map_err(|_| HeadError::Field)?,
        };
        headers.try_append(name, value).map_err(|_| HeadError::TooLong)?;
    }
    Ok(headers)
}

/// Trailer fields up to their empty line. Those that would change how a message is read are left
/// out (RFC 9110 section 6.5.1).
pub fn parse_trailers(text: &Bytes) -> Option<HeaderMap> {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let httparse::Status::Complete((_, fields)) =
        httparse::parse_headers(text, &mut fields).ok()?
    else {
        return None;
    };
    let mut headers = read_fields(text, fields).ok()?;
    strip_trailers(&mut headers);
    Some(headers)
}

/// Leaves out what would change how a message is read, and what only a gateway may say.
pub fn strip_trailers(trailers: &mut HeaderMap) {
    for name in NOT_IN_TRAILERS {
        trailers.remove(name);
    }
    forwarding::strip_claims(trailers, |_| true);
}

const NOT_IN_TRAILERS: [HeaderName; 16] = [
    header::TRANSFER_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_RANGE,
    header::HOST,
    header::CONNECTION,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::CACHE_CONTROL,
    header::EXPECT,
    header::FORWARDED,
];

fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    let mut has_keep_alive = false;
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|b| *b == b',') {
            let option = option.trim_ascii();
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            has_keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    version == Version::HTTP_11 || has_keep_alive
}

#[cfg(test)]
#[path = "head_tests.rs"]
mod tests;
