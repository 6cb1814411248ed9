//! Tokens in places of structure: which are told apart, and which are one class at once.

use serde::{Deserialize, Serialize};

use super::{
    kept::{Key, Kind},
    value::{StoredText, keep_greater},
};
use crate::observation::{Shape, Text, Token};

/// What is known of the tokens that share a key: one token, or all of a class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TokenStats {
    pub count: u64,
    /// Samples whose value was seen before in a response.
    pub produced: u64,
    pub text: Option<StoredText>,
    pub is_word: bool,
    pub is_personal: bool,
    /// Letters with digits among them, or stranger: not how structure is named.
    pub is_irregular: bool,
    pub is_version: bool,
    /// Of a class that obviously varies.
    pub is_class: bool,
}

impl TokenStats {
    pub fn add(&mut self, token: &Token) {
        self.count += 1;
        self.produced += u64::from(token.was_produced);
        if token.personal.is_none() {
            keep_greater(&mut self.text, token.text.as_ref());
        }
        self.is_word |= token.is_word;
        self.is_personal |= token.personal.is_some();
        self.is_irregular |= matches!(token.shape, Shape::Mixed | Shape::Other | Shape::Decimal);
        self.is_version |= token.shape == Shape::Version;
        self.is_class |= class(token).is_some();
    }

    pub fn combine(&mut self, other: &Self) {
        self.count += other.count;
        self.produced += other.produced;
        keep_greater(&mut self.text, other.text.as_ref().map(|t| &t.0));
        self.is_word |= other.is_word;
        self.is_personal |= other.is_personal;
        self.is_irregular |= other.is_irregular;
        self.is_version |= other.is_version;
        self.is_class |= other.is_class;
    }

    pub fn text(&self) -> Option<&str> {
        self.text.as_ref().map(StoredText::as_str)
    }

    /// On the heap, beyond its own size.
    pub fn bytes(&self) -> usize {
        self.text().map_or(0, |t| t.len() + 16)
    }
}

/// Numbers with a point.
pub(crate) const DECIMAL_CLASS: u64 = 10;

/// The class of a token that obviously varies; `None` for one that may be structure.
pub(crate) fn class(token: &Token) -> Option<u64> {
    if let Some(personal) = token.personal {
        return Some(0x100 + personal as u64);
    }
    Some(match token.shape {
        Shape::Digits(_) => 1,
        Shape::Uuid => 2,
        Shape::Hex(_) => 3,
        Shape::Ulid => 4,
        Shape::Date => 5,
        Shape::DateTime => 6,
        Shape::Email => 7,
        Shape::Ipv4 => 8,
        Shape::Opaque(_) => 9,
        Shape::Decimal => DECIMAL_CLASS,
        Shape::Empty
        | Shape::Version
        | Shape::Word
        | Shape::Compound
        | Shape::Mixed
        | Shape::Other => return None,
    })
}

/// Where the statistics of this token are kept. A suffix makes another token of it.
pub(crate) fn key(token: &Token, suffix: Option<&Text>) -> Key {
    let class = class(token);
    let is_word = class.is_none() && (token.is_word || token.shape == Shape::Version);
    match (class, suffix) {
        (Some(class), None) => Key { kind: Kind::Class, hash: class },
        (Some(class), Some(suffix)) => Key { kind: Kind::Other, hash: mix(class, suffix.as_str()) },
        (None, suffix) => Key {
            kind: if is_word { Kind::Word } else { Kind::Other },
            hash: suffix.map_or(token.hash.0, |s| mix(token.hash.0, s.as_str())),
        },
    }
}

/// Spreads evenly, as keys must: FNV-1a, then the finalizer of SplitMix64.
pub(crate) fn mix(seed: u64, text: &str) -> u64 {
    spread(text.bytes().fold(seed ^ 0xcbf2_9ce4_8422_2325, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3)
    }))
}

/// The finalizer of SplitMix64.
pub(crate) fn spread(mut h: u64) -> u64 {
    h = (h ^ (h >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    h = (h ^ (h >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ (h >> 31)
}
