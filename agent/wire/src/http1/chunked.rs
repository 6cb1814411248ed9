//! Chunked transfer coding (RFC 9112 section 7.1).

use bytes::Bytes;

use super::BadFraming;

const LINE_LIMIT: usize = 4096;
const TRAILER_LIMIT: usize = 64 << 10;

#[derive(Debug)]
enum State {
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    Trailer,
    Done,
}

#[derive(Debug)]
pub struct ChunkedReader {
    state: State,
    /// Of the size line: its value so far. In `Data`: bytes of the chunk to come.
    remaining: u64,
    line: usize,
    digits: usize,
    trailer: Vec<u8>,
}

impl Default for ChunkedReader {
    fn default() -> Self {
        Self { state: State::Size, remaining: 0, line: 0, digits: 0, trailer: Vec::new() }
    }
}

impl ChunkedReader {
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// Reads what belongs to the body; returns how many bytes of `data` that was.
    pub fn read(&mut self, data: &[u8], out: &mut impl FnMut(&[u8])) -> Result<usize, BadFraming> {
        let mut at = 0;
        while let Some(&byte) = data.get(at) {
            match self.state {
                State::Size => {
                    match (byte as char).to_digit(16) {
                        Some(digit) => {
                            // 2^60 bytes are no chunk; and nothing may overflow.
                            if self.remaining >> 56 != 0 {
                                return Err(BadFraming);
                            }
                            self.remaining = self.remaining << 4 | u64::from(digit);
                            self.digits += 1;
                            self.grow_line()?;
                        }
                        None if self.digits == 0 => return Err(BadFraming),
                        None => match byte {
                            b';' | b' ' | b'\t' => self.state = State::Extension,
                            b'\r' => self.state = State::SizeLf,
                            _ => return Err(BadFraming),
                        },
                    }
                    at += 1;
                }
                State::Extension => {
                    match byte {
                        b'\r' => self.state = State::SizeLf,
                        // A bare LF here is read differently by different servers.
                        b'\n' => return Err(BadFraming),
                        _ => self.grow_line()?,
                    }
                    at += 1;
                }
                State::SizeLf => {
                    if byte != b'\n' {
                        return Err(BadFraming);
                    }
                    (self.line, self.digits) = (0, 0);
                    self.state = if self.remaining == 0 { State::Trailer } else { State::Data };
                    at += 1;
                }
                State::Data => {
                    let rest = &data[at..];
                    let n = self.remaining.min(rest.len() as u64) as usize;
                    out(&rest[..n]);
                    self.take(n as u64);
                    at += n;
                }
                State::DataCr | State::DataLf => {
                    let (wanted, next) = match self.state {
                        State::DataCr => (b'\r', State::DataLf),
                        _ => (b'\n', State::Size),
                    };
                    if byte != wanted {
                        return Err(BadFraming);
                    }
                    self.state = next;
                    at += 1;
                }
                State::Trailer => {
                    self.trailer.push(byte);
                    at += 1;
                    if self.trailer.len() > TRAILER_LIMIT {
                        return Err(BadFraming);
                    }
                    if self.trailer == b"\r\n" || self.trailer.ends_with(b"\r\n\r\n") {
                        self.state = State::Done;
                    }
                }
                State::Done => break,
            }
        }
        Ok(at)
    }

    /// Passes over unseen bytes, where they lie wholly inside the data of one chunk.
    pub fn skip(&mut self, gap: u64) -> bool {
        let is_inside = matches!(self.state, State::Data) && gap <= self.remaining;
        if is_inside {
            self.take(gap);
        }
        is_inside
    }

    pub fn memory(&self) -> usize {
        self.trailer.capacity()
    }

    /// The trailer section (RFC 9112 section 7.1.2).
    pub fn trailers(&self) -> Result<Vec<(Bytes, Bytes)>, BadFraming> {
        if self.trailer.len() <= 2 {
            return Ok(Vec::new());
        }
        let mut slots = [httparse::EMPTY_HEADER; 64];
        match httparse::parse_headers(&self.trailer, &mut slots) {
            Ok(httparse::Status::Complete((_, headers))) => Ok(headers
                .iter()
                .map(|h| {
                    (Bytes::copy_from_slice(h.name.as_bytes()), Bytes::copy_from_slice(h.value))
                })
                .collect()),
            _ => Err(BadFraming),
        }
    }

    fn take(&mut self, n: u64) {
        self.remaining -= n;
        if self.remaining == 0 {
            self.state = State::DataCr;
        }
    }

    fn grow_line(&mut self) -> Result<(), BadFraming> {
        self.line += 1;
        if self.line > LINE_LIMIT { Err(BadFraming) } else { Ok(()) }
    }
}
