//! The request's target, read so that route, policy and upstream see one and the same path.
//!
//! * `%41` becomes `A`: what need not be encoded is not (RFC 3986 section 6.2.2.2).
//! * `.` and `..` are resolved, in either spelling; a path that leads above its root is refused.
//! * `//` becomes `/`, unless `paths.keep_double_slashes` says otherwise.
//! * `%2F` and `%5C` are refused, unless `paths.encoded_slashes` says otherwise; `\`, `%00` and
//!   broken escapes always are. So is `..;`, which some servers read as `..`.
//! * The query stays as it is.

use std::{borrow::Cow, net::Ipv6Addr, str, sync::Arc};

use http::{Method, StatusCode};

use super::http1::{MOST_HEADERS, MOST_TARGET_BYTES};
use crate::catalog::{Paths, document::EncodedSlashes, routes::decode_query};

/// A path and a query as the upstream gets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    text: String,
    path: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("the request's target is neither a path nor a URL")]
    Form,
    #[error("the path has an escape that is not two hexadecimal digits")]
    Escape,
    #[error("the path has a character that no path has")]
    Character,
    #[error("the path leads above its root")]
    AboveRoot,
    #[error("the path has an encoded slash (`paths.encoded_slashes` can let it pass)")]
    EncodedSlash,
    #[error("the request names no valid host, once")]
    Host,
    #[error("the request has more than {MOST_HEADERS} fields")]
    TooManyFields,
    #[error("the value of a field begins or ends with a blank")]
    Blank,
    #[error("the request's target is longer than {MOST_TARGET_BYTES} bytes")]
    TooLong,
}

impl TargetError {
    /// For the client that sent such a request.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TooLong => StatusCode::URI_TOO_LONG,
            Self::TooManyFields => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl Target {
    pub fn path(&self) -> &str {
        self.text.get(..self.path).unwrap_or_default()
    }

    pub fn query(&self) -> Option<&str> {
        self.text.get(self.path + 1..)
    }

    /// Path and query.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// `*`: the server itself (OPTIONS).
    pub fn server() -> Self {
        Self { text: "*".to_owned(), path: 1 }
    }

    /// With another path and the same query.
    pub fn with_path(&self, path: &str) -> Self {
        let query = self.text.get(self.path..).unwrap_or_default();
        Self { text: format!("{path}{query}"), path: path.len() }
    }

    /// Without the parameters of these names.
    pub fn without_parameters(&self, names: &[Arc<str>]) -> Self {
        let Some(query) = self.query() else { return self.clone() };
        let kept: Vec<&str> = query
            .split('&')
            .filter(|pair| {
                let key = decode_query(pair.split('=').next().unwrap_or(pair));
                !names.iter().any(|name| **name == *key)
            })
            .collect();
        let mut text = self.path().to_owned();
        if !kept.is_empty() {
            text.push('?');
            text.push_str(&kept.join("&"));
        }
        Self { text, path: self.path }
    }

    pub fn parse(path_and_query: &[u8], paths: Paths) -> Result<Self, TargetError> {
        let split = memchr::memchr(b'?', path_and_query);
        let (path, query) = match split {
            Some(at) => path_and_query.split_at(at),
            None => (path_and_query, &b""[..]),
        };
        if path.first() != Some(&b'/') {
            return Err(TargetError::Form);
        }
        if memchr::memchr(b'#', path_and_query).is_some() {
            return Err(TargetError::Character);
        }
        let mut text = String::with_capacity(path_and_query.len());
        match str::from_utf8(path) {
            Ok(path) if is_normal(path.as_bytes()) => text.push_str(path),
            _ => normalise(path, paths, &mut text)?,
        }
        let path = text.len();
        for byte in query {
            match byte {
                b'!'..=b'~' => text.push(char::from(*byte)),
                other => put_escape(&mut text, *other),
            }
        }
        Ok(Self { text, path })
    }
}

/// Nothing to be done: the common case.
fn is_normal(path: &[u8]) -> bool {
    let mut before = b'x';
    path.iter().all(|byte| {
        let follows_slash = before == b'/';
        before = *byte;
        match byte {
            b'/' | b'.' => !follows_slash,
            b';' => false,
            other => is_path_character(*other),
        }
    })
}

/// `pchar` of RFC 3986 and `/`, without escapes.
fn is_path_character(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/".contains(&byte)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn put_escape(text: &mut String, byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    text.push('%');
    text.push(char::from(DIGITS[usize::from(byte >> 4)]));
    text.push(char::from(DIGITS[usize::from(byte & 15)]));
}

fn normalise(path: &[u8], paths: Paths, text: &mut String) -> Result<(), TargetError> {
    let begin = text.len();
    let mut segments = path.split(|b| *b == b'/').skip(1).peekable();
    let mut segment = String::new();
    while let Some(raw) = segments.next() {
        let is_last = segments.peek().is_none();
        segment.clear();
        decode_segment(raw, paths, &mut segment)?;
        match segment.as_str() {
            "" if !is_last && !paths.keep_double_slashes => continue,
            "." | ".." => {
                if segment == ".." {
                    let kept = text.get(begin..).unwrap_or_default();
                    let parent = kept.rfind('/').ok_or(TargetError::AboveRoot)?;
                    text.truncate(begin + parent);
                }
                // `/a/.` and `/a/b/..` name a folder.
                if is_last {
                    text.push('/');
                }
                continue;
            }
            other => {
                let name = other.split(';').next().unwrap_or_default();
                if name == "." || name == ".." {
                    return Err(TargetError::Character);
                }
                text.push('/');
                text.push_str(other);
            }
        }
    }
    if text.len() == begin {
        text.push('/');
    }
    Ok(())
}

fn decode_segment(raw: &[u8], paths: Paths, segment: &mut String) -> Result<(), TargetError> {
    let mut bytes = raw.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || {
                    bytes
                        .next()
                        .and_then(|b| char::from(*b).to_digit(16))
                        .and_then(|d| u8::try_from(d).ok())
                        .ok_or(TargetError::Escape)
                };
                let decoded = digit()? << 4 | digit()?;
                match decoded {
                    0 => return Err(TargetError::Character),
                    b'/' | b'\\' if paths.encoded_slashes == EncodedSlashes::Reject => {
                        return Err(TargetError::EncodedSlash);
                    }
                    byte if is_unreserved(byte) => segment.push(char::from(byte)),
                    byte => put_escape(segment, byte),
                }
            }
            b'\\' => return Err(TargetError::Character),
            byte if is_path_character(*byte) => segment.push(char::from(*byte)),
            byte => put_escape(segment, *byte),
        }
    }
    Ok(())
}

/// The forms of RFC 9112 section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form<'a> {
    Path(&'a [u8]),
    /// Authority, then path; the path may be empty.
    Url(&'a [u8], &'a [u8]),
    /// `*`, of OPTIONS.
    Server,
}

pub fn form<'a>(method: &Method, target: &'a [u8]) -> Result<Form<'a>, TargetError> {
    if target.first() == Some(&b'/') {
        return Ok(Form::Path(target));
    }
    if target == b"*" && *method == Method::OPTIONS {
        return Ok(Form::Server);
    }
    let rest = strip_prefix_ignoring_case(target, b"http://")
        .or_else(|| strip_prefix_ignoring_case(target, b"https://"))
        .ok_or(TargetError::Form)?;
    let end = rest.iter().position(|b| b"/?#".contains(b)).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.is_empty() {
        true => Err(TargetError::Host),
        false => Ok(Form::Url(authority, path)),
    }
}

fn strip_prefix_ignoring_case<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// The host without port and final dot, in lower case. Refuses what is no `host [":" port]`.
pub fn host_of(authority: &[u8]) -> Result<Cow<'_, str>, TargetError> {
    let text = str::from_utf8(authority).map_err(|_| TargetError::Host)?;
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let end = rest.find(']').ok_or(TargetError::Host)?;
            let address = rest.get(..end).unwrap_or_default();
            address.parse::<Ipv6Addr>().map_err(|_| TargetError::Host)?;
            let (host, port) = text.split_at(end + 2);
            (host, if port.is_empty() { None } else { Some(port) })
        }
        None => match text.find(':') {
            Some(at) => {
                let (host, port) = text.split_at(at);
                (host, Some(port))
            }
            None => (text, None),
        },
    };
    if let Some(port) = port {
        let port = port.strip_prefix(':').ok_or(TargetError::Host)?;
        if port.len() > 5 || !port.bytes().all(|b| b.is_ascii_digit()) {
            return Err(TargetError::Host);
        }
    }
    let is_bracketed = host.starts_with('[');
    let is_character = |b: u8| {
        b.is_ascii_alphanumeric() || b"-._~".contains(&b) || (is_bracketed && b"[]:".contains(&b))
    };
    if !host.bytes().all(is_character) {
        return Err(TargetError::Host);
    }
    let host = host.strip_suffix('.').unwrap_or(host);
    Ok(match host.bytes().any(|b| b.is_ascii_uppercase()) {
        true => Cow::Owned(host.to_ascii_lowercase()),
        false => Cow::Borrowed(host),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_path_becomes_one() {
        for (given, expected) in [
            ("/", "/"),
            ("/a/b?x=%2f../", "/a/b?x=%2f../"),
            ("/%61dmin", "/admin"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/%2e%2E/b", "/b"),
            ("/a/.%2e/b/.", "/b/"),
            ("/a/b/..", "/a/"),
            ("/a/..", "/"),
            ("/./", "/"),
            ("//a///b//", "/a/b/"),
            ("/a//../b", "/b"),
            ("/a%20b%c3%a9", "/a%20b%C3%A9"),
            ("/a|b{c}\"", "/a%7Cb%7Bc%7D%22"),
            ("/%252e%252e/x", "/%252e%252e/x"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/a;v=1/b", "/a;v=1/b"),
            ("/a?", "/a?"),
        ] {
            let target = Target::parse(given.as_bytes(), Paths::default()).unwrap();
            assert_eq!(target.as_str(), expected, "{given}");
            let again = Target::parse(target.as_str().as_bytes(), Paths::default()).unwrap();
            assert_eq!(again, target, "{given}");
        }
    }

    #[test]
    fn what_servers_disagree_on_is_refused() {
        use TargetError::{AboveRoot, Character, EncodedSlash, Escape, Form};
        for (given, expected) in [
            ("/..", AboveRoot),
            ("/a/../../b", AboveRoot),
            ("/%2e%2e/", AboveRoot),
            ("/a%2fb", EncodedSlash),
            ("/a/..%5cb", EncodedSlash),
            ("/a\\b", Character),
            ("/a%00", Character),
            ("/a/..;/b", Character),
            ("/a/%2e%2e;x=1/b", Character),
            ("/a#b", Character),
            ("/a?b#c", Character),
            ("/%zz", Escape),
            ("/%4", Escape),
            ("/%", Escape),
            ("a", Form),
            ("", Form),
        ] {
            assert_eq!(Target::parse(given.as_bytes(), Paths::default()), Err(expected), "{given}");
        }
    }

    #[test]
    fn settings_let_slashes_pass() {
        let paths = Paths { encoded_slashes: EncodedSlashes::Keep, keep_double_slashes: true };
        let target = Target::parse(b"/x//y%2fz/../w//", paths).unwrap();
        assert_eq!(target.as_str(), "/x//w//");
    }

    #[test]
    fn parameters_that_carried_credentials_are_left_out() {
        let target = Target::parse(b"/a?x=1&api%5Fkey=s&y&api_key=t", Paths::default()).unwrap();
        let without = |names: &[&str]| {
            let names: Vec<Arc<str>> = names.iter().map(|n| (*n).into()).collect();
            target.without_parameters(&names).as_str().to_owned()
        };
        assert_eq!(without(&["api_key"]), "/a?x=1&y");
        assert_eq!(without(&["api_key", "x", "y"]), "/a");
    }

    #[test]
    fn a_url_has_an_authority() {
        let get = &Method::GET;
        assert_eq!(form(get, b"/a"), Ok(Form::Path(b"/a")));
        assert_eq!(form(get, b"HTTP://x:1/a?b"), Ok(Form::Url(b"x:1", b"/a?b")));
        assert_eq!(form(get, b"http://x?b"), Ok(Form::Url(b"x", b"?b")));
        assert_eq!(form(&Method::OPTIONS, b"*"), Ok(Form::Server));
        for target in [&b"*"[..], b"a", b"x:443", b"ftp://x/", b"http:///a", b""] {
            assert!(form(get, target).is_err());
        }
    }

    #[test]
    fn a_host_is_a_host() {
        for (given, expected) in [
            ("Example.com:80", "example.com"),
            ("example.com.", "example.com"),
            ("[::1]:8080", "[::1]"),
            ("a_b-c.d", "a_b-c.d"),
            ("x:", "x"),
            ("", ""),
        ] {
            assert_eq!(host_of(given.as_bytes()).unwrap(), expected);
        }
        for given in [
            "a b", "u@x", "x:8a", "x:123456", "x/y", "[::1", "[x]", "[::1]x", "a,b", "::1",
            "x\u{e9}",
        ] {
            assert_eq!(host_of(given.as_bytes()), Err(TargetError::Host), "{given}");
        }
    }
}
