//! How servers read a stream of requests: one strictly, the others each with the liberties that
//! some server has been seen to take. A proxy is safe in front of all of them when they all find
//! the same requests in what it sends.
//!
//! That GET has no body is not among them: it may have one (RFC 9110 section 9.3.1), and is passed on with it.

/// A request that is all there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub method: String,
    pub target: String,
    /// Of the body, decoded.
    pub body: u64,
    /// Where it ends in the stream.
    pub end: usize,
}

/// What comes after the last whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rest {
    Nothing,
    /// A head that has not ended.
    Head,
    /// A body that has not ended: what is there of it.
    Body(Message),
    /// No request, from here on.
    Garbage(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    pub messages: Vec<Message>,
    pub rest: Rest,
}

/// The liberties that a reader takes.
#[derive(Clone, Copy, Debug)]
pub struct Dialect {
    name: &'static str,
    /// LF alone ends a line.
    ends_lines_at_lf: bool,
    /// CR alone ends a line.
    ends_lines_at_cr: bool,
    /// `Content-Length` wins over `Transfer-Encoding`.
    prefers_length: bool,
    /// Any `Transfer-Encoding` with `chunked` in it is chunked.
    finds_chunked_anywhere: bool,
    /// An unknown `Transfer-Encoding` is none.
    ignores_unknown_codings: bool,
    /// Of several lengths, the last counts.
    takes_last_length: bool,
    /// `+5`, `0x5`, `5 5`, `5abc` are numbers.
    is_lax_with_numbers: bool,
    /// `Name : value`, `Na_me`, and odd bytes around a name are the name.
    is_lax_with_names: bool,
    /// A line that begins with a blank goes on the one before.
    unfolds: bool,
}

const STRICT: Dialect = Dialect {
    name: "strict",
    ends_lines_at_lf: false,
    ends_lines_at_cr: false,
    prefers_length: false,
    finds_chunked_anywhere: false,
    ignores_unknown_codings: false,
    takes_last_length: false,
    is_lax_with_numbers: false,
    is_lax_with_names: false,
    unfolds: false,
};

const LAX: Dialect = Dialect {
    name: "lax in everything",
    ends_lines_at_lf: true,
    ends_lines_at_cr: true,
    prefers_length: false,
    finds_chunked_anywhere: true,
    ignores_unknown_codings: true,
    takes_last_length: true,
    is_lax_with_numbers: true,
    is_lax_with_names: true,
    unfolds: true,
};

/// Each liberty alone, and most of them at once.
const DIALECTS: [Dialect; 13] = [
    STRICT,
    Dialect { name: "LF ends lines", ends_lines_at_lf: true, ..STRICT },
    Dialect { name: "CR ends lines", ends_lines_at_cr: true, ends_lines_at_lf: true, ..STRICT },
    Dialect { name: "prefers Content-Length", prefers_length: true, ..STRICT },
    Dialect { name: "finds chunked anywhere", finds_chunked_anywhere: true, ..STRICT },
    Dialect { name: "ignores unknown codings", ignores_unknown_codings: true, ..STRICT },
    Dialect { name: "the last length counts", takes_last_length: true, ..STRICT },
    Dialect { name: "lax with numbers", is_lax_with_numbers: true, ..STRICT },
    Dialect { name: "lax with names", is_lax_with_names: true, ..STRICT },
    Dialect { name: "unfolds", unfolds: true, ..STRICT },
    LAX,
    Dialect { name: "lax, prefers Content-Length", prefers_length: true, ..LAX },
    Dialect { name: "lax, first length", takes_last_length: false, ..LAX },
];

/// As RFC 9112 has it; what it leaves open is garbage.
pub fn strictly(bytes: &[u8]) -> Reading {
    read(bytes, &STRICT)
}

/// Every dialect finds the same; else the name of one that does not, and what it finds.
pub fn agreed(bytes: &[u8]) -> Result<Reading, String> {
    let strict = strictly(bytes);
    for dialect in &DIALECTS {
        let reading = read(bytes, dialect);
        if reading != strict {
            return Err(format!("{}: {reading:?}; strictly: {strict:?}", dialect.name));
        }
    }
    Ok(strict)
}

fn read(bytes: &[u8], dialect: &Dialect) -> Reading {
    let mut messages = Vec::new();
    let mut at = 0;
    let rest = loop {
        // RFC 9112 section 2.2: an empty line before a request is read over.
        while bytes[at..].starts_with(b"\r\n") {
            at += 2;
        }
        if at == bytes.len() {
            break Rest::Nothing;
        }
        match read_one(bytes, at, dialect) {
            Ok(message) => {
                at = message.end;
                messages.push(message);
            }
            Err(rest) => break rest,
        }
    };
    Reading { messages, rest }
}

enum Framing {
    Length(u64),
    Chunked,
}

fn read_one(bytes: &[u8], begin: usize, dialect: &Dialect) -> Result<Message, Rest> {
    let garbage = Rest::Garbage(begin);
    let mut at = begin;
    let mut lines: Vec<Vec<u8>> = Vec::new();
    loop {
        let Some((line, next)) = line(bytes, at, dialect) else { return Err(Rest::Head) };
        let line = line.ok_or(garbage.clone())?;
        at = next;
        if line.is_empty() {
            break;
        }
        let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
        match lines.last_mut() {
            Some(last) if is_folded && dialect.unfolds => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            _ => lines.push(line.to_vec()),
        }
    }
    let mut lines = lines.iter();
    let first = lines.next().ok_or(garbage.clone())?;
    let words: Vec<&[u8]> = first.split(|b| *b == b' ').collect();
    let [method, target, version] = words[..] else { return Err(garbage) };
    if !version.starts_with(b"HTTP/1.") {
        return Err(garbage);
    }
    let framing = framing(lines, dialect).ok_or(garbage.clone())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut message = Message { method: text(method), target: text(target), body: 0, end: at };
    match framing {
        Framing::Length(length) => {
            let there = (bytes.len() - at) as u64;
            message.body = length.min(there);
            message.end = at + usize::try_from(message.body).unwrap_or(0);
            match length <= there {
                true => Ok(message),
                false => Err(Rest::Body(message)),
            }
        }
        Framing::Chunked => read_chunks(bytes, message, dialect).map_err(|rest| match rest {
            None => garbage,
            Some(partial) => Rest::Body(partial),
        }),
    }
}

/// `Err(None)` where there is no chunk.
fn read_chunks(
    bytes: &[u8],
    mut message: Message,
    dialect: &Dialect,
) -> Result<Message, Option<Message>> {
    loop {
        let Some((line, next)) = line(bytes, message.end, dialect) else {
            return Err(Some(message));
        };
        let line = line.ok_or(None)?;
        let digits = line.split(|b| *b == b';').next().unwrap_or_default();
        let size = number(digits, 16, dialect.is_lax_with_numbers).ok_or(None)?;
        if size == 0 {
            message.end = next;
            return read_trailers(bytes, message, dialect);
        }
        let there = (bytes.len() - next) as u64;
        if size > there {
            message.body += there;
            message.end = bytes.len();
            return Err(Some(message));
        }
        message.body += size;
        message.end = next + usize::try_from(size).unwrap_or(0);
        match &bytes[message.end..] {
            [b'\r', b'\n', ..] => message.end += 2,
            [] | [b'\r'] => return Err(Some(message)),
            [b'\n', ..] if dialect.ends_lines_at_lf => message.end += 1,
            _ if dialect.is_lax_with_numbers => {}
            _ => return Err(None),
        }
    }
}

fn read_trailers(
    bytes: &[u8],
    mut message: Message,
    dialect: &Dialect,
) -> Result<Message, Option<Message>> {
    loop {
        let Some((line, next)) = line(bytes, message.end, dialect) else {
            return Err(Some(message));
        };
        message.end = next;
        if line.ok_or(None)?.is_empty() {
            return Ok(message);
        }
    }
}

/// A line without its end, and where the next one begins; `None` while it has not ended. The line
/// is `None` where it ends in a way that the dialect does not know.
fn line<'a>(bytes: &'a [u8], at: usize, dialect: &Dialect) -> Option<(Option<&'a [u8]>, usize)> {
    let rest = bytes.get(at..)?;
    let is_end = |byte: &u8| *byte == b'\n' || (dialect.ends_lines_at_cr && *byte == b'\r');
    let end = rest.iter().position(is_end)?;
    if rest[end] == b'\r' {
        let after = if rest.get(end + 1) == Some(&b'\n') { 2 } else { 1 };
        return Some((Some(&rest[..end]), at + end + after));
    }
    let line = &rest[..end];
    let line = match line.strip_suffix(b"\r") {
        Some(line) => Some(line),
        None => dialect.ends_lines_at_lf.then_some(line),
    };
    Some((line, at + end + 1))
}

fn framing<'a>(lines: impl Iterator<Item = &'a Vec<u8>>, dialect: &Dialect) -> Option<Framing> {
    let mut length = None;
    let mut is_chunked = None;
    for line in lines {
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            if dialect.is_lax_with_names {
                continue;
            }
            return None;
        };
        let (name, value) = line.split_at(colon);
        let value = value[1..].trim_ascii();
        let name = match dialect.is_lax_with_names {
            true => {
                let is_of_name = |b: &u8| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_';
                let name = name.iter().copied().filter(is_of_name);
                name.map(|b| if b == b'_' { b'-' } else { b }).collect()
            }
            false if name.iter().any(|b| b.is_ascii_whitespace()) => return None,
            false => name.to_vec(),
        };
        if name.eq_ignore_ascii_case(b"content-length") {
            let parsed = number(value, 10, dialect.is_lax_with_numbers)?;
            match length {
                Some(known) if known != parsed && !dialect.is_lax_with_numbers => return None,
                Some(_) if !dialect.takes_last_length => {}
                _ => length = Some(parsed),
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let value = value.to_ascii_lowercase();
            let is_it = match dialect.finds_chunked_anywhere {
                true => value.windows(7).any(|window| window == b"chunked"),
                false => value == b"chunked",
            };
            match (is_it, dialect.ignores_unknown_codings) {
                (false, true) => {}
                (false, false) => return None,
                (true, _) => is_chunked = Some(()),
            }
        }
    }
    match (is_chunked, length) {
        (Some(()), Some(length)) if dialect.prefers_length => Some(Framing::Length(length)),
        (Some(()), _) => Some(Framing::Chunked),
        (None, length) => Some(Framing::Length(length.unwrap_or(0))),
    }
}

/// Digits only; laxly, what `strtoul` makes of it.
fn number(text: &[u8], radix: u32, is_lax: bool) -> Option<u64> {
    let mut text = text;
    if is_lax {
        text = text.trim_ascii_start();
        text = text.strip_prefix(b"+").unwrap_or(text);
        if radix == 16 {
            text = text.strip_prefix(b"0x").unwrap_or(text);
        }
        let digits = text.iter().take_while(|b| char::from(**b).is_digit(radix)).count();
        text = &text[..digits];
    }
    if text.is_empty() || !text.iter().all(|b| char::from(*b).is_digit(radix)) {
        return is_lax.then_some(0);
    }
    u64::from_str_radix(std::str::from_utf8(text).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_requests_are_read_alike_by_all() {
        let text = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
            PUT /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2;x=1\r\nde\r\n0\r\nT: 1\r\n\r\n\
            GET /c HTTP/1.1\r\n\r\nPOST /d HTTP/1.1\r\ncontent-length: 9\r\n\r\nfg";
        let reading = agreed(text).unwrap();
        let bodies: Vec<_> = reading.messages.iter().map(|m| (&*m.target, m.body)).collect();
        assert_eq!(bodies, [("/a", 3), ("/b", 2), ("/c", 0)]);
        assert!(matches!(reading.rest, Rest::Body(message) if message.body == 2));
    }

    #[test]
    fn each_liberty_is_noticed() {
        for (name, text) in [
            ("LF ends lines", "GET / HTTP/1.1\r\nA: b\nContent-Length: 1\r\n\r\nx"),
            ("CR ends lines", "GET / HTTP/1.1\r\nA: b\rContent-Length: 1\r\n\r\nx"),
            (
                "prefers",
                "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ),
            ("anywhere", "POST / HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
            ("last", "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
            ("numbers", "POST / HTTP/1.1\r\nContent-Length: +1\r\n\r\nx"),
            (
                "numbers",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
            ),
            ("names", "POST / HTTP/1.1\r\nContent-Length : 1\r\n\r\nx"),
            ("names", "POST / HTTP/1.1\r\nContent_Length: 1\r\n\r\nx"),
            ("unfolds", "POST / HTTP/1.1\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
        ] {
            assert!(agreed(text.as_bytes()).is_err(), "{name}: {text:?}");
        }
    }
}
