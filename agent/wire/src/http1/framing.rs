//! Where a message's body ends (RFC 9112 section 6.3).

use super::{BadFraming, head::Head};
use crate::exchange::Coding;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// What the header section says about the body.
#[derive(Debug)]
pub struct Layout {
    pub framing: Framing,
    /// Content codings in the order in which they were applied.
    pub content: Vec<Coding>,
    /// Transfer codings other than chunked, in the order in which they were applied.
    pub transfer: Vec<Coding>,
}

#[derive(Default)]
struct Fields {
    length: Option<u64>,
    has_transfer: bool,
    ends_chunked: bool,
    content: Vec<Coding>,
    transfer: Vec<Coding>,
}

pub fn request_layout(head: &Head) -> Result<Layout, BadFraming> {
    let fields = read_fields(head)?;
    let framing = match (fields.has_transfer, fields.length) {
        // Section 6.3 rule 4: a request's body must end with chunked.
        (true, _) if !fields.ends_chunked => return Err(BadFraming),
        (true, _) => Framing::Chunked,
        (false, Some(0) | None) => Framing::Empty,
        (false, Some(n)) => Framing::Length(n),
    };
    Ok(Layout { framing, content: fields.content, transfer: fields.transfer })
}

/// `has_no_body`: the response answers HEAD, or its status permits none (rules 1 and 2).
pub fn response_layout(head: &Head, has_no_body: bool) -> Result<Layout, BadFraming> {
    if has_no_body {
        let content = read_fields(head).map(|f| f.content).unwrap_or_default();
        return Ok(Layout { framing: Framing::Empty, content, transfer: Vec::new() });
    }
    let fields = read_fields(head)?;
    let framing = match (fields.has_transfer, fields.length) {
        (true, _) if fields.ends_chunked => Framing::Chunked,
        (true, _) | (false, None) => Framing::UntilClose,
        (false, Some(0)) => Framing::Empty,
        (false, Some(n)) => Framing::Length(n),
    };
    Ok(Layout { framing, content: fields.content, transfer: fields.transfer })
}

fn read_fields(head: &Head) -> Result<Fields, BadFraming> {
    let mut fields = Fields::default();
    for (name, value) in head.fields() {
        // Most names differ in length from the three that matter.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let length = parse_length(value)?;
                if fields.length.is_some_and(|known| known != length) {
                    return Err(BadFraming);
                }
                fields.length = Some(length);
            }
            16 if name.eq_ignore_ascii_case(b"content-encoding") => {
                for token in list(value) {
                    if !token.eq_ignore_ascii_case(b"identity") {
                        fields.content.push(coding(token));
                    }
                }
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                fields.has_transfer = true;
                for token in list(value) {
                    // Section 7.1: chunked must not be applied more than once, or be followed.
                    if fields.ends_chunked {
                        return Err(BadFraming);
                    }
                    let name = token.split(|b| *b == b';').next().unwrap_or(token).trim_ascii();
                    if name.eq_ignore_ascii_case(b"chunked") {
                        fields.ends_chunked = true;
                    } else {
                        fields.transfer.push(coding(name));
                    }
                }
            }
            _ => {}
        }
    }
    // Section 6.1: HTTP/1.0 knows no Transfer-Encoding; section 6.3 rule 3: both fields together
    // ought to be handled as an error.
    if fields.has_transfer && (head.minor == 0 || fields.length.is_some()) {
        return Err(BadFraming);
    }
    Ok(fields)
}

fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// RFC 9110 section 8.6: a list of equal decimal numbers stands for that number.
fn parse_length(value: &[u8]) -> Result<u64, BadFraming> {
    let mut known = None;
    for part in value.split(|b| *b == b',').map(<[u8]>::trim_ascii) {
        if part.is_empty() || !part.iter().all(u8::is_ascii_digit) {
            return Err(BadFraming);
        }
        let mut number = 0_u64;
        for digit in part {
            number = number
                .checked_mul(10)
                .and_then(|n| n.checked_add(u64::from(digit - b'0')))
                .ok_or(BadFraming)?;
        }
        if known.is_some_and(|k| k != number) {
            return Err(BadFraming);
        }
        known = Some(number);
    }
    known.ok_or(BadFraming)
}

/// RFC 9110 section 8.4.1; `x-` names are equivalent.
fn coding(name: &[u8]) -> Coding {
    let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
    if is("gzip") || is("x-gzip") {
        Coding::Gzip
    } else if is("deflate") {
        Coding::Deflate
    } else if is("br") {
        Coding::Brotli
    } else if is("zstd") {
        Coding::Zstd
    } else {
        Coding::Unknown
    }
}
