//! Content codings (RFC 9110 section 8.4.1), bounded in output and in ratio.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};
use sha2::{Digest, Sha256};

use crate::{
    exchange::{Coding, Partial},
    reader::ReaderConfig,
};

/// RFC 9659: the largest window of zstd as a content coding.
const ZSTD_WINDOW: u64 = 8 << 20;
/// The ratio is not looked at before this much came out: short texts may repeat themselves.
const RATIO_FREE: u64 = 2 << 20;
const MOST_CODINGS: usize = 4;

#[derive(Debug)]
pub struct Decoded {
    /// The first bytes, up to `body_limit`.
    pub content: Vec<u8>,
    /// Bytes that came out.
    pub length: u64,
    /// The input was decoded from first to last byte.
    pub is_whole: bool,
    /// Where asked for, and the input was whole.
    pub sha256: Option<[u8; 32]>,
    /// `Limit` where `content` is shorter than what came out.
    pub partial: Option<Partial>,
}

/// Undoes `codings`, the last one first. `is_whole`: `input` is the whole encoded body; where it
/// is not, what its beginning decodes to is still given.
pub fn decode(codings: &[Coding], input: &[u8], is_whole: bool, config: &ReaderConfig) -> Decoded {
    let mut decoded =
        Decoded { content: Vec::new(), length: 0, is_whole: false, sha256: None, partial: None };
    if codings.contains(&Coding::Unknown) || codings.len() > MOST_CODINGS {
        decoded.partial = Some(Partial::Undecodable);
        return decoded;
    }
    let mut hasher = config.hash_bodies.then(Sha256::new);
    let mut source = stack(codings, input, config);
    let mut buffer = [0_u8; 8 << 10];
    loop {
        let n = match source.read(&mut buffer) {
            Ok(0) => {
                decoded.is_whole = is_whole;
                break;
            }
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                decoded.partial = Some(match is_too_much(&error) {
                    Some(partial) => partial,
                    None => Partial::Undecodable,
                });
                break;
            }
        };
        let bytes = &buffer[..n];
        let room = config.body_limit.saturating_sub(decoded.content.len());
        decoded.content.extend_from_slice(&bytes[..n.min(room)]);
        decoded.length += n as u64;
        if let Some(hasher) = &mut hasher {
            hasher.update(bytes);
        }
    }
    if decoded.is_whole {
        decoded.sha256 = hasher.map(|h| h.finalize().into());
        if decoded.length > decoded.content.len() as u64 {
            decoded.partial = Some(Partial::Limit);
        }
    }
    // A prefix ends in the middle of the coding: that is no fault of the coding.
    if !is_whole && decoded.partial == Some(Partial::Undecodable) && decoded.length > 0 {
        decoded.partial = None;
    }
    decoded
}

fn stack<'a>(codings: &[Coding], input: &'a [u8], config: &ReaderConfig) -> Box<dyn BufRead + 'a> {
    let mut source: Box<dyn BufRead + 'a> = Box::new(input);
    for coding in codings.iter().rev() {
        let decoder: Box<dyn Read + 'a> = match coding {
            Coding::Gzip => Box::new(MultiGzDecoder::new(source)),
            Coding::Deflate => inflate(source),
            Coding::Brotli => Box::new(brotli_decompressor::Decompressor::new(source, 4 << 10)),
            Coding::Zstd => Box::new(ZstdFrames {
                source: Some(source),
                frame: None,
                window: ZSTD_WINDOW.max((config.decode_limit as u64).min(128 << 20)),
            }),
            Coding::Unknown => Box::new(io::empty()),
        };
        // Every layer is bounded: what a later one swallows costs as much as what comes out.
        source = Box::new(BufReader::with_capacity(
            4 << 10,
            Bounded {
                inner: decoder,
                produced: 0,
                encoded: input.len() as u64,
                config: config.clone(),
            },
        ));
    }
    source
}

/// "deflate" is the zlib format, but some servers send raw deflate (RFC 9110 section 8.4.1.2).
fn inflate<'a>(mut source: Box<dyn BufRead + 'a>) -> Box<dyn Read + 'a> {
    let is_zlib = match source.fill_buf() {
        Ok([cmf, flg, ..]) => {
            cmf & 0x0f == 8 && u16::from_be_bytes([*cmf, *flg]).is_multiple_of(31)
        }
        _ => true,
    };
    if is_zlib { Box::new(ZlibDecoder::new(source)) } else { Box::new(DeflateDecoder::new(source)) }
}

struct Bounded<'a> {
    inner: Box<dyn Read + 'a>,
    produced: u64,
    encoded: u64,
    config: ReaderConfig,
}

#[derive(Debug, thiserror::Error)]
#[error("content expands too far")]
struct TooMuch(Partial);

fn is_too_much(error: &io::Error) -> Option<Partial> {
    let mut source: Option<&(dyn std::error::Error + 'static)> = error.get_ref().map(|e| e as _);
    while let Some(error) = source {
        if let Some(TooMuch(partial)) = error.downcast_ref() {
            return Some(*partial);
        }
        source = error.source();
    }
    None
}

impl Read for Bounded<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.produced += n as u64;
        let ratio = self.config.decode_ratio as u64;
        let free = RATIO_FREE.min(self.config.decode_limit as u64 / 4);
        if self.produced > free && self.produced > self.encoded.saturating_mul(ratio) {
            return Err(io::Error::other(TooMuch(Partial::Undecodable)));
        }
        if self.produced > self.config.decode_limit as u64 {
            return Err(io::Error::other(TooMuch(Partial::Limit)));
        }
        Ok(n)
    }
}

type Source<'a> = Box<dyn BufRead + 'a>;

/// A zstd body may be several frames, some of them to be skipped (RFC 8878 section 3).
struct ZstdFrames<'a> {
    source: Option<Source<'a>>,
    frame: Option<ruzstd::decoding::StreamingDecoder<Source<'a>, ruzstd::decoding::FrameDecoder>>,
    window: u64,
}

impl Read for ZstdFrames<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let n = frame.read(buffer)?;
                if n > 0 {
                    return Ok(n);
                }
                self.source = self.frame.take().map(|f| f.into_inner());
            }
            let Some(mut source) = self.source.take() else { return Ok(0) };
            if source.fill_buf()?.is_empty() {
                return Ok(0);
            }
            if skip_frame(&mut source)? {
                self.source = Some(source);
                continue;
            }
            let frame =
                ruzstd::decoding::StreamingDecoder::new_with_max_window_size(source, self.window)
                    .map_err(io::Error::other)?;
            self.frame = Some(frame);
        }
    }
}

/// RFC 8878 section 3.1.2: magic 0x184D2A5? and a length.
fn skip_frame(source: &mut Source<'_>) -> io::Result<bool> {
    let is_skippable =
        matches!(source.fill_buf()?, [first, 0x2a, 0x4d, 0x18, ..] if first & 0xf0 == 0x50);
    if is_skippable {
        let mut header = [0_u8; 8];
        source.read_exact(&mut header)?;
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        io::copy(&mut source.by_ref().take(u64::from(length)), &mut io::sink())?;
    }
    Ok(is_skippable)
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
