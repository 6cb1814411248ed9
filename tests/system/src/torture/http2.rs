//! A client of HTTP/2 that writes frames itself, so that it can send what no library would: fields
//! are literals without indexing (RFC 7541 section 6.2.2), their bytes as the case has them.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;

use super::corpus::{StreamCase, bytes_of};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const QUIET: Duration = Duration::from_secs(5);
const MOST_FRAME: usize = 16_384;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A stream after all others, to see that the connection still works.
fn last() -> StreamCase {
    let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    StreamCase {
        fields: vec![
            field(":method", "GET"),
            field(":scheme", "http"),
            field(":path", "/last"),
            field(":authority", "x"),
        ],
        data: Vec::new(),
        trailers: Vec::new(),
    }
}

#[derive(Debug, Default)]
struct Streams {
    /// What became of each, in words.
    ended: BTreeMap<u32, String>,
    statuses: BTreeMap<u32, String>,
    bodies: BTreeMap<u32, Vec<u8>>,
    goaway: Option<u32>,
}

/// Sends the streams one after another, each when the one before has ended, and says what became
/// of them: a status, `rst(CODE)`; `goaway(CODE)` where the connection ended.
pub fn send(address: SocketAddr, streams: &[StreamCase]) -> Result<String> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(QUIET))?;
    stream.set_write_timeout(Some(QUIET))?;
    let mut said = PREFACE.to_vec();
    // SETTINGS_HEADER_TABLE_SIZE 0: statuses come as literals or from the static table.
    put_frame(&mut said, SETTINGS, 0, 0, &[0, 1, 0, 0, 0, 0]);
    let _ = stream.write_all(&said);
    let mut seen = Streams::default();
    let mut read = Vec::new();
    let all: Vec<StreamCase> = streams.iter().cloned().chain([last()]).collect();
    let mut words = Vec::new();
    let mut id = 1;
    for case in &all {
        let mut frames = Vec::new();
        put_stream(&mut frames, id, case)?;
        let _ = stream.write_all(&frames);
        let is_open = wait_for(&mut stream, &mut read, &mut seen, id);
        match seen.ended.get(&id) {
            Some(word) => words.push(word.clone()),
            None if is_open => words.push("waits".to_owned()),
            None => {}
        }
        if !is_open {
            words.push(match seen.goaway {
                Some(code) => format!("goaway({code})"),
                None => "closed".to_owned(),
            });
            break;
        }
        id += 2;
    }
    let _ = stream.shutdown(Shutdown::Both);
    Ok(words.join(" "))
}

/// Reads until the stream has ended; false if the connection did.
fn wait_for(stream: &mut TcpStream, read: &mut Vec<u8>, seen: &mut Streams, id: u32) -> bool {
    let deadline = Instant::now() + QUIET;
    let mut piece = vec![0; 64 << 10];
    loop {
        while let Some((kind, flags, of, payload)) = take_frame(read) {
            match kind {
                SETTINGS if flags & 1 == 0 => {
                    let mut answer = Vec::new();
                    put_frame(&mut answer, SETTINGS, 1, 0, &[]);
                    let _ = stream.write_all(&answer);
                }
                PING if flags & 1 == 0 => {
                    let mut answer = Vec::new();
                    put_frame(&mut answer, PING, 1, 0, &payload);
                    let _ = stream.write_all(&answer);
                }
                HEADERS => {
                    if let Some(status) = status_of(&payload).filter(|s| !s.starts_with('1')) {
                        seen.statuses.entry(of).or_insert(status);
                    }
                }
                DATA => seen.bodies.entry(of).or_default().extend_from_slice(&payload),
                RST_STREAM => {
                    let code = u32::from_be_bytes(payload[..4].try_into().unwrap_or_default());
                    let word = match seen.statuses.get(&of) {
                        Some(status) => format!("{status} rst({code})"),
                        None => format!("rst({code})"),
                    };
                    seen.ended.entry(of).or_insert(word);
                }
                GOAWAY => {
                    let code = payload.get(4..8).and_then(|code| code.try_into().ok());
                    seen.goaway = Some(u32::from_be_bytes(code.unwrap_or_default()));
                }
                _ => {}
            }
            if (kind == HEADERS || kind == DATA) && flags & END_STREAM != 0 {
                let status = seen.statuses.get(&of).cloned().unwrap_or_default();
                let body = seen.bodies.get(&of).map(Vec::as_slice).unwrap_or_default();
                let word = match status.starts_with('2') && !body.is_empty() {
                    true => format!("{status}({})", body[..body.len().min(24)].escape_ascii()),
                    false => status,
                };
                seen.ended.entry(of).or_insert(word);
            }
        }
        if seen.ended.contains_key(&id) {
            return true;
        }
        if Instant::now() > deadline {
            return true;
        }
        match stream.read(&mut piece) {
            Ok(0) => return false,
            Ok(size) => read.extend_from_slice(&piece[..size]),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) =>
            {
                return true;
            }
            Err(_) => return false,
        }
    }
}

fn take_frame(read: &mut Vec<u8>) -> Option<(u8, u8, u32, Vec<u8>)> {
    let head: [u8; 9] = read.get(..9)?.try_into().ok()?;
    let size = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let payload = read.get(9..9 + size)?.to_vec();
    read.drain(..9 + size);
    let id = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
    Some((head[3], head[4], id, payload))
}

fn put_stream(out: &mut Vec<u8>, id: u32, case: &StreamCase) -> Result<()> {
    let has_more = !case.data.is_empty() || !case.trailers.is_empty();
    put_fields(out, id, &case.fields, !has_more)?;
    for (i, data) in case.data.iter().enumerate() {
        let is_last = i + 1 == case.data.len() && case.trailers.is_empty();
        put_frame(out, DATA, if is_last { END_STREAM } else { 0 }, id, &bytes_of(data)?);
    }
    if !case.trailers.is_empty() {
        put_fields(out, id, &case.trailers, true)?;
    }
    Ok(())
}

fn put_fields(out: &mut Vec<u8>, id: u32, fields: &[(String, String)], ends: bool) -> Result<()> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        put_string(&mut block, &bytes_of(name)?);
        put_string(&mut block, &bytes_of(value)?);
    }
    let pieces: Vec<&[u8]> = block.chunks(MOST_FRAME).collect();
    for (i, piece) in pieces.iter().enumerate() {
        let mut flags = if i + 1 == pieces.len() { END_HEADERS } else { 0 };
        if i == 0 && ends {
            flags |= END_STREAM;
        }
        put_frame(out, if i == 0 { HEADERS } else { CONTINUATION }, flags, id, piece);
    }
    Ok(())
}

fn put_frame(out: &mut Vec<u8>, kind: u8, flags: u8, id: u32, payload: &[u8]) {
    let size = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes();
    out.extend_from_slice(&size[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(payload);
}

/// Without Huffman coding; the length has a prefix of seven bits (RFC 7541 section 5.1).
fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    let mut left = text.len();
    if left < 127 {
        out.push(u8::try_from(left).unwrap_or(0));
    } else {
        out.push(127);
        left -= 127;
        while left >= 128 {
            out.push(u8::try_from(left % 128).unwrap_or(0) | 128);
            left /= 128;
        }
        out.push(u8::try_from(left).unwrap_or(0));
    }
    out.extend_from_slice(text);
}

/// `:status` is the first field of an answer. Without a dynamic table it is one of the static
/// table's (RFC 7541 appendix A, 8 to 14), or a literal whose name is one of those.
fn status_of(block: &[u8]) -> Option<String> {
    const STATIC: [&str; 7] = ["200", "204", "206", "304", "400", "404", "500"];
    let mut block = block;
    // An update of the table's size may come first.
    while let Some((first, rest)) = block.split_first()
        && first & 0xe0 == 0x20
    {
        block = rest;
    }
    let (first, rest) = block.split_first()?;
    if first & 0x80 != 0 {
        let index = usize::from(first & 0x7f);
        return STATIC.get(index.checked_sub(8)?).map(|status| (*status).to_owned());
    }
    let (length, text) = rest.split_first()?;
    let text = text.get(..usize::from(length & 0x7f))?;
    match length & 0x80 {
        0 => Some(String::from_utf8_lossy(text).into_owned()),
        _ => Some(huffman_digits(text)),
    }
}

/// Three digits in the code of RFC 7541 appendix B: `0` to `2` have five bits, the others six.
fn huffman_digits(text: &[u8]) -> String {
    let bits: Vec<u8> =
        text.iter().flat_map(|byte| (0..8).rev().map(move |i| byte >> i & 1)).collect();
    let mut digits = String::new();
    let mut at = 0;
    while digits.len() < 3 {
        let take = |count: usize| {
            bits.iter().skip(at).take(count).fold(0_u8, |number, bit| number << 1 | bit)
        };
        let (digit, width) = match (take(5), take(6)) {
            (short @ 0..=2, _) => (short, 5),
            (_, long @ 25..=31) => (long - 25 + 3, 6),
            _ => break,
        };
        digits.push(char::from(b'0' + digit));
        at += width;
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_are_read_in_every_form() {
        assert_eq!(status_of(&[0x88]).unwrap(), "200");
        assert_eq!(status_of(&[0x20, 0x8c]).unwrap(), "400");
        assert_eq!(status_of(b"\x08\x03431").unwrap(), "431");
        // RFC 7541 appendix C.6.1: 302.
        assert_eq!(status_of(&[0x48, 0x82, 0x64, 0x02]).unwrap(), "302");
    }

    #[test]
    fn long_strings_have_long_lengths() {
        let mut out = Vec::new();
        put_string(&mut out, &[b'x'; 1337 + 127]);
        // RFC 7541 appendix C.1.2, with another prefix.
        assert_eq!(out[..3], [127, 0xb9, 0x0a]);
    }
}
