//! Where a body ends (RFC 9112 section 6.3). Whatever two readers might understand differently is
//! refused.

use http::{HeaderMap, Method, StatusCode, Version, header};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    Exact(u64),
    /// Chunked on the wire, or not known beforehand.
    Unknown,
    /// Of a response: until the connection ends.
    UntilClose,
}

impl Length {
    pub const NONE: Self = Self::Exact(0);
}

/// Why a message's framing is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LengthError {
    #[error("it has both Transfer-Encoding and Content-Length")]
    Both,
    #[error("its Content-Length is not one number")]
    ContentLength,
    #[error("its Transfer-Encoding is one that is not known here")]
    UnknownCoding,
    #[error("its Transfer-Encoding does not end in chunked, once")]
    NotChunked,
    #[error("HTTP/1.0 has no Transfer-Encoding")]
    Http10,
}

enum Framing {
    None,
    Chunked,
    Exact(u64),
}

fn read(headers: &HeaderMap, version: Version) -> Result<Framing, LengthError> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(LengthError::Both),
        (None, Some(length)) => {
            // Two equal ones could be merged (section 6.3), but no honest sender writes them.
            if lengths.next().is_some() {
                return Err(LengthError::ContentLength);
            }
            parse_content_length(length.as_bytes())
                .map(Framing::Exact)
                .ok_or(LengthError::ContentLength)
        }
        (Some(coding), None) => {
            if version < Version::HTTP_11 {
                return Err(LengthError::Http10);
            }
            if codings.next().is_some() {
                return Err(LengthError::NotChunked);
            }
            let coding = coding.as_bytes();
            if coding.eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunked);
            }
            let last = coding.rsplit(|b| *b == b',').next().unwrap_or_default();
            let count = coding.split(|b| *b == b',').filter(|c| is_chunked(c)).count();
            match is_chunked(last) && count == 1 {
                true => Err(LengthError::UnknownCoding),
                false => Err(LengthError::NotChunked),
            }
        }
    }
}

fn is_chunked(coding: &[u8]) -> bool {
    coding.trim_ascii().eq_ignore_ascii_case(b"chunked")
}

/// Digits only: no sign, no list, no space.
fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 19 {
        return None;
    }
    value.iter().try_fold(0_u64, |sum, byte| {
        byte.is_ascii_digit().then(|| sum * 10 + u64::from(byte - b'0'))
    })
}

pub fn of_request(headers: &HeaderMap, version: Version) -> Result<Length, LengthError> {
    Ok(match read(headers, version)? {
        Framing::None => Length::NONE,
        Framing::Chunked => Length::Unknown,
        Framing::Exact(length) => Length::Exact(length),
    })
}

/// `method` is that of the request that is answered.
pub fn of_response(
    headers: &HeaderMap,
    version: Version,
    status: StatusCode,
    method: &Method,
) -> Result<Length, LengthError> {
    let framing = read(headers, version)?;
    if !has_body(status, method) {
        return Ok(Length::NONE);
    }
    Ok(match framing {
        Framing::None => Length::UntilClose,
        Framing::Chunked => Length::Unknown,
        Framing::Exact(length) => Length::Exact(length),
    })
}

/// Whether an answer of this kind can have a body (section 6.3, 1 and 2).
pub fn has_body(status: StatusCode, method: &Method) -> bool {
    *method != Method::HEAD
        && !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str)], version: Version) -> Result<Length, LengthError> {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name: header::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        of_request(&headers, version)
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        const CL: &str = "content-length";
        const TE: &str = "transfer-encoding";
        for (lines, expected) in [
            (&[][..], Ok(Length::NONE)),
            (&[(CL, "5")], Ok(Length::Exact(5))),
            (&[(CL, "005")], Ok(Length::Exact(5))),
            (&[(TE, "chunked")], Ok(Length::Unknown)),
            (&[(TE, "Chunked")], Ok(Length::Unknown)),
            (&[(CL, "5"), (TE, "chunked")], Err(LengthError::Both)),
            (&[(TE, "chunked"), (CL, "5")], Err(LengthError::Both)),
            (&[(CL, "5"), (CL, "5")], Err(LengthError::ContentLength)),
            (&[(CL, "5"), (CL, "6")], Err(LengthError::ContentLength)),
            (&[(CL, "5, 5")], Err(LengthError::ContentLength)),
            (&[(CL, "+5")], Err(LengthError::ContentLength)),
            (&[(CL, "-0")], Err(LengthError::ContentLength)),
            (&[(CL, "0x5")], Err(LengthError::ContentLength)),
            (&[(CL, "")], Err(LengthError::ContentLength)),
            (&[(CL, "5 ")], Err(LengthError::ContentLength)),
            (&[(CL, "99999999999999999999")], Err(LengthError::ContentLength)),
            (&[(TE, "gzip, chunked")], Err(LengthError::UnknownCoding)),
            (&[(TE, "chunked, gzip")], Err(LengthError::NotChunked)),
            (&[(TE, "chunked, chunked")], Err(LengthError::NotChunked)),
            (&[(TE, "chunked"), (TE, "chunked")], Err(LengthError::NotChunked)),
            (&[(TE, "identity")], Err(LengthError::NotChunked)),
            (&[(TE, "xchunked")], Err(LengthError::NotChunked)),
            (&[(TE, "\"chunked\"")], Err(LengthError::NotChunked)),
            (&[(TE, "")], Err(LengthError::NotChunked)),
        ] {
            assert_eq!(of(lines, Version::HTTP_11), expected, "{lines:?}");
        }
        assert_eq!(of(&[(TE, "chunked")], Version::HTTP_10), Err(LengthError::Http10));
    }
}
