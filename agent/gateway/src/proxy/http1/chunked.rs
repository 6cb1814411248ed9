//! The chunked coding (RFC 9112 section 7.1), read strictly: lines end in CRLF, sizes are
//! hexadecimal digits. Extensions are read over and not passed on.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;

use super::head;

const MOST_LINE: usize = 4 << 10;
/// Of all extensions of one body: more is an attack (CVE-2023-39326 and its kin).
const MOST_EXTENSIONS: usize = 16 << 10;
const MOST_TRAILERS: usize = 16 << 10;

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    #[error("the size of a chunk is not a hexadecimal number")]
    Size,
    #[error("the size of a chunk is too large")]
    TooLarge,
    #[error("a line of the chunked coding does not end in CRLF")]
    LineEnd,
    #[error("the extensions of the chunks are too long")]
    Extensions,
    #[error("a chunk is longer than its size")]
    Overrun,
    #[error("the trailer section cannot be read")]
    Trailers,
}

#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    extensions: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Size,
    Data(u64),
    DataEnd,
    Trailers,
    Done,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    End,
    NeedsMore,
}

impl Decoder {
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// How much of the body is surely still to come.
    pub fn expects(&self) -> u64 {
        match self.state {
            State::Data(left) => left,
            _ => 0,
        }
    }

    pub fn step(&mut self, buffer: &mut BytesMut) -> Result<Step, ChunkError> {
        loop {
            match self.state {
                State::Size => {
                    let Some(line) = take_line(buffer)? else { return Ok(Step::NeedsMore) };
                    let (size, extension) = parse_size(&line)?;
                    self.extensions += extension;
                    if self.extensions > MOST_EXTENSIONS {
                        return Err(ChunkError::Extensions);
                    }
                    self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                }
                State::Data(left) => {
                    if buffer.is_empty() {
                        return Ok(Step::NeedsMore);
                    }
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                    let left = left - here as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Step::Data(buffer.split_to(here).freeze()));
                }
                State::DataEnd => match buffer.as_ref() {
                    [b'\r', b'\n', ..] => {
                        let _ = buffer.split_to(2);
                        self.state = State::Size;
                    }
                    [] | [b'\r'] => return Ok(Step::NeedsMore),
                    _ => return Err(ChunkError::Overrun),
                },
                State::Trailers => {
                    if buffer.starts_with(b"\r\n") {
                        let _ = buffer.split_to(2);
                        self.state = State::Done;
                        continue;
                    }
                    if matches!(buffer.as_ref(), [] | [b'\r']) {
                        return Ok(Step::NeedsMore);
                    }
                    let Some(end) =
                        head::find_end(buffer, &mut 0).map_err(|_| ChunkError::LineEnd)?
                    else {
                        return match buffer.len() > MOST_TRAILERS {
                            true => Err(ChunkError::Trailers),
                            false => Ok(Step::NeedsMore),
                        };
                    };
                    if end > MOST_TRAILERS {
                        return Err(ChunkError::Trailers);
                    }
                    let text = buffer.split_to(end).freeze();
                    self.state = State::Done;
                    return head::parse_trailers(&text)
                        .map(Step::Trailers)
                        .ok_or(ChunkError::Trailers);
                }
                State::Done => return Ok(Step::End),
            }
        }
    }
}

/// Without its CRLF.
fn take_line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, ChunkError> {
    let Some(end) = memchr::memchr(b'\n', buffer) else {
        return match buffer.len() > MOST_LINE {
            true => Err(ChunkError::Extensions),
            false => Ok(None),
        };
    };
    if end == 0 || buffer.get(end - 1) != Some(&b'\r') {
        return Err(ChunkError::LineEnd);
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end - 1);
    Ok(Some(line))
}

/// The size, and how long the extension after it is.
fn parse_size(line: &[u8]) -> Result<(u64, usize), ChunkError> {
    let digits = line.iter().take_while(|b| b.is_ascii_hexdigit()).count();
    let (number, extension) = line.split_at(digits);
    if digits == 0 {
        return Err(ChunkError::Size);
    }
    if digits > 15 {
        return Err(ChunkError::TooLarge);
    }
    let size = number.iter().fold(0_u64, |sum, digit| {
        sum * 16 + u64::from(char::from(*digit).to_digit(16).unwrap_or(0))
    });
    // Section 7.1.1: bad whitespace may stand before the semicolon, and nothing else.
    let extension = extension.trim_ascii_start();
    let is_text = |b: &u8| *b == b'\t' || (*b >= b' ' && *b != 0x7f);
    match extension.first() {
        None if digits == line.len() => Ok((size, 0)),
        Some(b';') if extension.iter().all(is_text) => Ok((size, line.len() - digits)),
        _ => Err(ChunkError::Size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Body and what is left behind it, given byte by byte or at once.
    fn decode(text: &[u8], piece: usize) -> Result<(Vec<u8>, Option<HeaderMap>), ChunkError> {
        let mut decoder = Decoder::default();
        let mut buffer = BytesMut::new();
        let (mut body, mut trailers) = (Vec::new(), None);
        for piece in text.chunks(piece) {
            buffer.extend_from_slice(piece);
            loop {
                match decoder.step(&mut buffer)? {
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::Trailers(map) => trailers = Some(map),
                    Step::End | Step::NeedsMore => break,
                }
            }
        }
        assert!(decoder.is_done(), "not done");
        assert!(buffer.is_empty(), "{buffer:?} is left");
        Ok((body, trailers))
    }

    #[test]
    fn bodies_are_read_in_any_pieces() {
        let text = b"5\r\nhello\r\nA;x=\"y\"\r\n, chunked.\r\n000\r\nX-Sum: 1\r\n\r\n";
        for piece in [1, 2, 3, 7, 1000] {
            let (body, trailers) = decode(text, piece).unwrap();
            assert_eq!(body, b"hello, chunked.", "{piece}");
            assert_eq!(trailers.unwrap()["x-sum"], "1");
        }
        assert_eq!(decode(b"0\r\n\r\n", 1).unwrap(), (vec![], None));
    }

    #[test]
    fn what_is_not_strict_is_refused() {
        for (text, expected) in [
            (&b"5\nhello\r\n0\r\n\r\n"[..], ChunkError::LineEnd),
            (b"5\r\nhello\n0\r\n\r\n", ChunkError::Overrun),
            (b"5\r\nhellothere\r\n0\r\n\r\n", ChunkError::Overrun),
            (b"0x5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b" 5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"5 \r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"+5\r\nhello\r\n0\r\n\r\n", ChunkError::Size),
            (b"-1\r\n", ChunkError::Size),
            (b"\r\n", ChunkError::Size),
            (b"5\rX\r\nhello\r\n", ChunkError::Size),
            (b"5;a\rb\r\nhello\r\n", ChunkError::Size),
            (b"10000000000000005\r\nhello\r\n", ChunkError::TooLarge),
            (b"0\r\nX-Sum: 1\n\r\n", ChunkError::LineEnd),
            (b"0\r\nbad line\r\n\r\n", ChunkError::Trailers),
            (b"0\r\nA : 1\r\n\r\n", ChunkError::Trailers),
        ] {
            let shown = String::from_utf8_lossy(text);
            assert_eq!(decode(text, 1000).unwrap_err(), expected, "{shown:?}");
            assert_eq!(decode(text, 1).unwrap_err(), expected, "{shown:?}");
        }
    }

    #[test]
    fn extensions_have_a_bound() {
        let mut text = Vec::new();
        for _ in 0..64 {
            text.extend_from_slice(format!("1;{}\r\nx\r\n", "e".repeat(1000)).as_bytes());
        }
        assert_eq!(decode(&text, 1000).unwrap_err(), ChunkError::Extensions);
        assert_eq!(decode(&[b'1'; 5000], 1000).unwrap_err(), ChunkError::Extensions);
    }
}
