//! A body being read: transfer decoding, the prefix that is kept, the digest.

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{
    BadFraming,
    chunked::ChunkedReader,
    framing::{Framing, Layout},
};
use crate::{
    content,
    exchange::{Body, Coding, Partial},
    reader::ReaderConfig,
    segment::Loss,
};

/// No more than this is set aside on the word of a Content-Length.
const TRUSTED_CAPACITY: u64 = 64 << 10;

#[derive(Debug)]
enum Reading {
    Length(u64),
    Chunked(Box<ChunkedReader>),
    UntilClose,
    Done,
}

#[derive(Debug)]
pub struct BodyReader {
    reading: Reading,
    kept: Vec<u8>,
    limit: usize,
    length: u64,
    hasher: Option<Sha256>,
    /// Nothing is kept behind a hole: content is a prefix.
    partial: Option<Partial>,
    content: Vec<Coding>,
    transfer: Vec<Coding>,
}

/// A body of this layout, if all of it is in `bytes` and nothing has to be decoded: most are. The
/// body's bytes come first in `bytes`; how many they are is returned too.
pub fn read_whole(layout: &Layout, bytes: &[u8], config: &ReaderConfig) -> Option<(Body, usize)> {
    let Framing::Length(length) = layout.framing else { return None };
    let length = usize::try_from(length).ok().filter(|n| *n <= config.body_limit)?;
    let bytes = bytes.get(..length)?;
    if !layout.content.is_empty() || !layout.transfer.is_empty() {
        return None;
    }
    let digest = config.hash_bodies.then(|| Sha256::digest(bytes).into());
    let body = Body {
        length: length as u64,
        sha256: digest,
        content: Bytes::copy_from_slice(bytes),
        decoded_length: Some(length as u64),
        decoded_sha256: digest,
        ..Body::default()
    };
    Some((body, length))
}

/// How far a body got over a piece of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the piece that belong to the body.
    pub taken: u64,
    pub is_done: bool,
}

impl BodyReader {
    pub fn new(layout: Layout, config: &ReaderConfig) -> Self {
        let (reading, capacity) = match layout.framing {
            Framing::Empty | Framing::Length(0) => (Reading::Done, 0),
            Framing::Length(n) => {
                (Reading::Length(n), n.min(config.body_limit as u64).min(TRUSTED_CAPACITY))
            }
            Framing::Chunked => (Reading::Chunked(Box::default()), 0),
            Framing::UntilClose => (Reading::UntilClose, 0),
        };
        Self {
            hasher: (config.hash_bodies && !matches!(reading, Reading::Done)).then(Sha256::new),
            reading,
            kept: Vec::with_capacity(capacity as usize),
            limit: config.body_limit,
            length: 0,
            partial: None,
            content: layout.content,
            transfer: layout.transfer,
        }
    }

    pub fn is_done(&self) -> bool {
        matches!(self.reading, Reading::Done)
    }

    pub fn ends_with_connection(&self) -> bool {
        matches!(self.reading, Reading::UntilClose)
    }

    pub fn memory(&self) -> usize {
        let chunked = match &self.reading {
            Reading::Chunked(chunked) => size_of::<ChunkedReader>() + chunked.memory(),
            _ => 0,
        };
        self.kept.capacity() + chunked
    }

    pub fn read(
        &mut self,
        data: &[u8],
        trailers: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<Progress, BadFraming> {
        let taken = match &mut self.reading {
            Reading::Length(remaining) => {
                let n = (*remaining).min(data.len() as u64) as usize;
                *remaining -= n as u64;
                let is_done = *remaining == 0;
                self.keep(&data[..n]);
                if is_done {
                    self.reading = Reading::Done;
                }
                n
            }
            Reading::UntilClose => {
                self.keep(data);
                data.len()
            }
            Reading::Chunked(_) => {
                let Reading::Chunked(mut chunked) =
                    std::mem::replace(&mut self.reading, Reading::Done)
                else {
                    return Err(BadFraming);
                };
                let n = chunked.read(data, &mut |bytes| self.keep(bytes))?;
                if chunked.is_done() {
                    *trailers = chunked.trailers()?;
                } else {
                    self.reading = Reading::Chunked(chunked);
                }
                n
            }
            Reading::Done => 0,
        };
        Ok(Progress { taken: taken as u64, is_done: self.is_done() })
    }

    /// Passes over unseen bytes. `None`: where the body ends is not known any more.
    pub fn skip(&mut self, gap: u64, reason: Loss) -> Option<Progress> {
        let taken = match &mut self.reading {
            Reading::Length(remaining) => {
                let n = gap.min(*remaining);
                *remaining -= n;
                if *remaining == 0 {
                    self.reading = Reading::Done;
                }
                n
            }
            Reading::UntilClose => gap,
            Reading::Chunked(chunked) => {
                if !chunked.skip(gap) {
                    self.lose(reason);
                    return None;
                }
                gap
            }
            Reading::Done => 0,
        };
        if taken > 0 {
            self.length += taken;
            self.lose(reason);
        }
        Some(Progress { taken, is_done: self.is_done() })
    }

    fn lose(&mut self, reason: Loss) {
        let why = if reason == Loss::Budget { Partial::Limit } else { Partial::Loss };
        self.partial.get_or_insert(why);
        self.hasher = None;
    }

    /// The connection ended. True where that is how this body ends.
    pub fn close(&mut self, is_clean: bool) -> bool {
        let is_whole = self.is_done() || (self.ends_with_connection() && is_clean);
        if !is_whole {
            self.cut();
        }
        is_whole && self.partial.is_none()
    }

    /// The body is given up where it stands.
    pub fn cut(&mut self) {
        self.partial.get_or_insert(Partial::Cut);
        self.hasher = None;
    }

    pub fn has_gap(&self) -> bool {
        self.partial.is_some()
    }

    /// Decodes what was kept. The flag is true where decoding failed.
    pub fn finish(&mut self, config: &ReaderConfig) -> (Body, bool) {
        // One limit for what is kept of the encoded body.
        let mut partial = self.partial;
        if self.length > self.kept.len() as u64 {
            partial.get_or_insert(Partial::Limit);
        }
        let mut body = Body {
            length: self.length,
            sha256: self.hasher.take().map(|h| h.finalize().into()),
            codings: std::mem::take(&mut self.content),
            partial,
            ..Body::default()
        };
        let is_encoded = !(body.codings.is_empty() && self.transfer.is_empty());
        if self.length == 0 || !is_encoded {
            if partial.is_none() {
                body.decoded_length = Some(self.length);
                body.decoded_sha256 = body.sha256;
            }
            body.content = std::mem::take(&mut self.kept).into();
            return (body, false);
        }
        // RFC 9112 section 7: transfer codings come off first.
        let mut kept = std::mem::take(&mut self.kept);
        if !self.transfer.is_empty() {
            let wide = ReaderConfig { body_limit: config.decode_limit, ..config.clone() };
            let decoded = content::decode(&self.transfer, &kept, partial.is_none(), &wide);
            body.sha256 = decoded.sha256;
            partial = partial.or(decoded.partial);
            kept = decoded.content;
        }
        let decoded = content::decode(&body.codings, &kept, partial.is_none(), config);
        let failed = decoded.partial == Some(Partial::Undecodable);
        body.partial = partial.or(decoded.partial);
        if body.partial.is_none() {
            body.decoded_length = Some(decoded.length);
            body.decoded_sha256 = decoded.sha256;
        } else if partial.is_none() && decoded.partial == Some(Partial::Limit) {
            // Wholly decoded, and longer than what is kept.
            body.decoded_length = decoded.is_whole.then_some(decoded.length);
            body.decoded_sha256 = decoded.sha256;
        }
        body.content = decoded.content.into();
        (body, failed)
    }

    fn keep(&mut self, bytes: &[u8]) {
        self.length += bytes.len() as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        if self.partial.is_none() {
            let room = self.limit.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
    }
}
