//! Statistics as bytes: a magic number, a version, a checksum, then postcard.

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{Limits, ServiceKnowledge, ServiceStats};

const MAGIC: &[u8; 4] = b"STKN";
/// Of the layout of the statistics. Older layouts are not read: what was learnt is learnt again.
const VERSION: u16 = 5;
const CHECKSUM_BYTES: usize = 8;
const HEADER_BYTES: usize = MAGIC.len() + 2 + CHECKSUM_BYTES;

/// Why stored statistics could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    #[error(
        "stored statistics: not statistics of stoa-gateway; remove the record, it will be learnt again"
    )]
    NotStatistics,
    #[error(
        "stored statistics: layout {found}, this build reads layout {VERSION}; use the version that \
         wrote them, or remove the state directory to learn again"
    )]
    Version { found: u16 },
    #[error(
        "stored statistics: damaged (checksum differs); remove the record, it will be learnt again"
    )]
    Damaged,
    #[error("stored statistics: malformed ({0}); remove the record, it will be learnt again")]
    Malformed(String),
}

pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Serializing into memory fails only where a type's own Serialize does; none here does.
    frame(&postcard::to_stdvec(value).unwrap_or_default())
}

pub(super) fn frame(payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + payload.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend(Sha256::digest(payload).iter().take(CHECKSUM_BYTES));
    bytes.extend_from_slice(payload);
    bytes
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotStatistics)?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(DecodeError::NotStatistics)?;
    let found = u16::from_le_bytes(*version);
    if found != VERSION {
        return Err(DecodeError::Version { found });
    }
    let (checksum, payload) =
        rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(DecodeError::NotStatistics)?;
    if !Sha256::digest(payload).iter().take(CHECKSUM_BYTES).eq(checksum) {
        return Err(DecodeError::Damaged);
    }
    postcard::from_bytes(payload).map_err(|e| DecodeError::Malformed(e.to_string()))
}

impl ServiceKnowledge {
    /// As bytes for a store or a peer; the same statistics give the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        encode(&self.stats)
    }

    /// Reads what `encode` wrote; whatever the bytes, the result is within the structural limits.
    pub fn decode(bytes: &[u8], limits: Limits) -> Result<Self, DecodeError> {
        Ok(Self::from_stats(decode::<ServiceStats>(bytes)?, limits))
    }
}
