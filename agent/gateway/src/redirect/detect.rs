//! What a client speaks, by its first bytes.
//!
//! A policy that a pause between two bytes could get around would be none, so bytes decide, not
//! time: see [`Look::when_out_of_patience`].

/// What is known so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.x, or HTTP/0.9, which the data path refuses.
    Http1,
    /// HTTP/2 with prior knowledge (RFC 9113 section 3.3).
    Http2,
    /// A TLS record: what is inside cannot be seen.
    Tls,
    Other,
}

/// The client's connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest registered method has 17 characters (RFC 3253).
const LONGEST_METHOD: usize = 32;
/// A first line that is longer is decided on what there is of it.
pub const LOOK_BYTES: usize = 8 << 10;

/// Methods of services that are not HTTP servers would have to look like these to be held back.
const METHODS: [&[u8]; 17] = [
    b"GET",
    b"HEAD",
    b"POST",
    b"PUT",
    b"DELETE",
    b"CONNECT",
    b"OPTIONS",
    b"TRACE",
    b"PATCH",
    b"QUERY",
    b"PROPFIND",
    b"PROPPATCH",
    b"MKCOL",
    b"COPY",
    b"MOVE",
    b"LOCK",
    b"UNLOCK",
];

/// The first bytes of a stream, for as long as they may still become HTTP.
#[derive(Debug, Default)]
pub struct Look {
    seen: Vec<u8>,
    decided: Option<Protocol>,
}

impl Look {
    /// Adds what was read. The answer does not depend on how the stream was cut into reads.
    pub fn see(&mut self, bytes: &[u8]) -> Option<Protocol> {
        if self.decided.is_none() {
            if self.seen.is_empty() && bytes.len() <= LOOK_BYTES {
                // Most clients' first read is enough, and nothing of it needs to be kept.
                self.decided = decide(bytes);
                if self.decided.is_some() {
                    return self.decided;
                }
            }
            let room = LOOK_BYTES.saturating_sub(self.seen.len()).min(bytes.len());
            self.seen.extend_from_slice(bytes.get(..room).unwrap_or_default());
            self.decided = match decide(&self.seen) {
                None if self.seen.len() == LOOK_BYTES => Some(self.when_out_of_patience()),
                decided => decided,
            };
            if self.decided.is_some() {
                self.seen = Vec::new();
            }
        }
        self.decided
    }

    /// What to do with a client that has begun and not finished its first line in the time given.
    ///
    /// The beginning of a request of a known method is a slow HTTP client: the data path has limits
    /// of its own for those. Anything else passes, but is looked at further: a stream that turns
    /// out to be a request after all is cut off.
    pub fn when_out_of_patience(&self) -> Protocol {
        let bytes = skip_empty_lines(&self.seen);
        let method = bytes.split(|b| is_space(*b)).next().unwrap_or_default();
        let has_target = method.len() < bytes.len();
        let is_known = |known: &&[u8]| {
            *known == method || (!has_target && !method.is_empty() && known.starts_with(method))
        };
        match METHODS.iter().any(is_known) || (has_target && decide(&self.seen).is_none()) {
            true => Protocol::Http1,
            false => Protocol::Other,
        }
    }
}

/// `None` while more bytes could still decide either way.
fn decide(stream: &[u8]) -> Option<Protocol> {
    if let [0x16, rest @ ..] = stream {
        // A handshake record, then the version's first byte, 3 (RFC 8446 section 5.1).
        return match rest {
            [] => None,
            [3, ..] => Some(Protocol::Tls),
            _ => Some(Protocol::Other),
        };
    }
    if stream.starts_with(PREFACE) {
        return Some(Protocol::Http2);
    }
    if PREFACE.starts_with(stream) {
        return None;
    }
    // RFC 9112 section 2.2: empty lines before a request are ignored.
    let bytes = skip_empty_lines(stream);
    let Some(method_end) = bytes.iter().position(|b| is_space(*b)) else {
        let is_open = bytes.len() <= LONGEST_METHOD && bytes.iter().all(|b| is_token(*b));
        return if is_open { None } else { Some(Protocol::Other) };
    };
    let (method, rest) = bytes.split_at(method_end);
    if method.is_empty() || method.len() > LONGEST_METHOD || !method.iter().all(|b| is_token(*b)) {
        return Some(Protocol::Other);
    }
    let skipped = rest.iter().take_while(|b| is_space(**b)).count();
    let rest = rest.get(skipped..).unwrap_or_default();
    if !may_begin_target(method, rest) {
        return Some(Protocol::Other);
    }
    let Some(line_end) = rest.iter().position(|b| *b == b'\n') else {
        let is_open = rest.iter().all(|b| is_of_line(*b));
        // No control character is part of a request line, but for a carriage return at its end.
        return if is_open { None } else { Some(Protocol::Other) };
    };
    let line = rest.get(..line_end).unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if !line.iter().all(|b| is_of_line(*b)) {
        return Some(Protocol::Other);
    }
    let last = line.rsplit(|b| is_space(*b)).find(|word| !word.is_empty()).unwrap_or_default();
    let has_version =
        last.len() >= 5 && last.get(..5).is_some_and(|v| v.eq_ignore_ascii_case(b"HTTP/"));
    // HTTP/0.9 has a method and a target, nothing else; some servers still answer it.
    let is_ancient = method == b"GET" && !line.iter().any(|b| is_space(*b));
    Some(if has_version || is_ancient { Protocol::Http1 } else { Protocol::Other })
}

/// RFC 9112 section 3.2: origin form, absolute form, authority form, asterisk form.
fn may_begin_target(method: &[u8], target: &[u8]) -> bool {
    let begins = |scheme: &[u8]| {
        let shared = scheme.len().min(target.len());
        target.get(..shared).unwrap_or_default().eq_ignore_ascii_case(&scheme[..shared])
    };
    match target.first() {
        None | Some(b'/' | b'*') => true,
        _ if method == b"CONNECT" => true,
        _ => begins(b"http://") || begins(b"https://"),
    }
}

fn skip_empty_lines(bytes: &[u8]) -> &[u8] {
    let skipped = bytes.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    bytes.get(skipped..).unwrap_or_default()
}

/// Some servers take a tab for a space.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// RFC 9110 section 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_of_line(byte: u8) -> bool {
    (byte >= 0x20 && byte != 0x7f) || byte == b'\t' || byte == b'\r'
}

#[cfg(test)]
mod tests {
    use super::*;

    const HTTP1: [&str; 12] = [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n\r\nPOST /orders HTTP/1.0\n\n",
        "OPTIONS * HTTP/1.1\r\n",
        "GET http://a/b HTTP/1.1\r\n",
        "CONNECT a:443 HTTP/1.1\r\n",
        "FOO-BAR /x HTTP/1.1\r\n",
        "get /x HTTP/1.1\r\n",
        "GET  /two-spaces  HTTP/1.1\r\n",
        "GET\t/tab\tHTTP/1.1\r\n",
        "GET /a b HTTP/1.1\r\n",
        "GET /ancient\r\n",
        // No preface after all, and nothing but HTTP has such a line.
        "PRI * HTTP/2.0\r\n\r\nXX",
    ];

    const OTHER: [&[u8]; 11] = [
        b"PING\r\n",
        b"*1\r\n$4\r\nPING\r\n",
        b"get key\r\n",
        b"hello world",
        b"hello\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"EHLO a.example\r\n",
        b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
        b"GET / RTSP/1.0\r\n",
        b"OPTIONS sip:a@b SIP/2.0\r\n",
        b"\x16\x02\x00",
    ];

    /// However the stream is cut, the answer is the same, and it never changes.
    fn look_at(stream: &[u8]) -> Option<Protocol> {
        let mut byte_by_byte = Look::default();
        let mut answer = None;
        for n in 0..stream.len() {
            let so_far = byte_by_byte.see(&stream[n..=n]);
            assert!(answer.is_none() || so_far == answer, "{stream:?} at {n}");
            answer = so_far;
            let mut in_two = Look::default();
            in_two.see(&stream[..n]);
            let mut at_once = Look::default();
            assert_eq!(in_two.see(&stream[n..]), at_once.see(stream), "{stream:?} cut at {n}");
        }
        answer
    }

    #[test]
    fn requests_are_found_however_they_arrive() {
        for stream in HTTP1 {
            assert_eq!(look_at(stream.as_bytes()), Some(Protocol::Http1), "{stream:?}");
        }
        assert_eq!(look_at(PREFACE), Some(Protocol::Http2));
    }

    #[test]
    fn other_protocols_are_not_held_back() {
        for stream in OTHER {
            assert_eq!(look_at(stream), Some(Protocol::Other), "{stream:?}");
        }
        assert_eq!(look_at(b"\x16\x03\x01\x02\x00"), Some(Protocol::Tls));
    }

    #[test]
    fn every_prefix_of_a_request_waits_or_is_http() {
        for stream in HTTP1 {
            let line =
                stream.trim_start().find('\n').unwrap() + stream.len() - stream.trim_start().len();
            for n in 0..line {
                let mut look = Look::default();
                let answer = look.see(&stream.as_bytes()[..n]);
                assert!(
                    matches!(answer, None | Some(Protocol::Http1)),
                    "{:?}: {answer:?}",
                    &stream[..n]
                );
            }
        }
    }

    #[test]
    fn a_pause_gets_nobody_around_the_policies() {
        let patience = |bytes: &[u8]| {
            let mut look = Look::default();
            assert_eq!(look.see(bytes), None, "{bytes:?}");
            look.when_out_of_patience()
        };
        for begun in ["G", "POS", "GET ", "GET /", "FOO /", "GET /very/lo", "get /x HTT"] {
            assert_eq!(patience(begun.as_bytes()), Protocol::Http1, "{begun:?}");
        }
        for begun in ["hello", "foo", "\r\n", "PR1"] {
            assert_eq!(patience(begun.as_bytes()), Protocol::Other, "{begun:?}");
        }
        // It passes, and is found out later.
        let mut look = Look::default();
        assert_eq!(look.see(b"foo"), None);
        assert_eq!(look.see(b" /admin HTTP/1.1\r\n"), Some(Protocol::Http1));
    }

    #[test]
    fn a_first_line_without_end_is_decided_within_the_bound() {
        let long = [b"GET /".as_slice(), &[b'a'; LOOK_BYTES * 2]].concat();
        let mut look = Look::default();
        assert_eq!(look.see(&long), Some(Protocol::Http1));
        let mut look = Look::default();
        assert_eq!(look.see(&[b'\n'; LOOK_BYTES]), Some(Protocol::Other));
        let mut look = Look::default();
        assert_eq!(look.see(&[b'a'; 40]), Some(Protocol::Other));
    }
}
