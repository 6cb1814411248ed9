//! What is known of the tokens beside each other in one place: the segments below one path, the
//! values of one field. Many strangers side by side are values of a parameter, not structure.

use super::recurrence::{Seen, Stamp};

/// At most this many different strangers below one path may become text.
const MAX_STRANGERS: usize = 16;
/// As above, for the first segment after the base of an interface: there are collections.
const MAX_STRANGERS_AT_TOP: usize = 32;
/// Exchanges in which a segment must be the only one of its place, to be text whatever its shape.
const ALONE: u32 = 8;

/// A bounded set of cut hashes.
#[derive(Default)]
struct Distinct {
    hashes: Vec<u32>,
}

impl Distinct {
    /// False where the set is full and does not hold `hash`.
    fn insert(&mut self, hash: u64, capacity: usize) -> bool {
        let hash = hash as u32;
        let is_held = self.hashes.contains(&hash);
        if !is_held && self.hashes.len() < capacity {
            self.hashes.push(hash);
            return true;
        }
        is_held
    }
}

/// Segments below one path that are no words.
#[derive(Default)]
pub(super) struct Segments {
    strangers: Distinct,
    is_crowded: bool,
    persons: Distinct,
    first: Option<u64>,
    has_several: bool,
    alone: Seen,
}

/// Where segments are siblings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlaceKind {
    /// Only bases of interfaces (`api`, `v1`) stand before them: there are collections.
    Top,
    /// They follow the identifier of one thing: there are its parts, and what is done with it
    /// (`/hives/17/inspections`).
    BelowValue,
    Other,
}

/// How many exchanges a stranger needs below a path, as a multiple of the threshold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Times(u32),
    Never,
}

impl Segments {
    /// A segment named a person.
    pub fn note_person(&mut self, hash: u64) {
        self.persons.insert(hash, 2);
        self.note_any(hash);
    }

    /// A segment that is never text, whatever becomes of its neighbours.
    pub fn note_any(&mut self, hash: u64) {
        self.has_several |= self.first.is_some_and(|first| first != hash);
        self.first.get_or_insert(hash);
    }

    /// A segment that may become text when it recurs.
    pub fn note_stranger(&mut self, hash: u64, place: PlaceKind) -> Need {
        self.note_any(hash);
        let is_at_top = place == PlaceKind::Top;
        let capacity = if is_at_top { MAX_STRANGERS_AT_TOP } else { MAX_STRANGERS };
        self.is_crowded |= !self.strangers.insert(hash, capacity);
        // One name may be a word of the service's trade; two are names.
        if self.is_crowded || (!is_at_top && self.persons.hashes.len() >= 2) {
            return Need::Never;
        }
        let count = u32::try_from(self.strangers.hashes.len()).unwrap_or(u32::MAX);
        Need::Times(match place {
            PlaceKind::Top => 1 + count / 8,
            PlaceKind::BelowValue => 1 + count / 4,
            PlaceKind::Other => count.min(4),
        })
    }

    /// A segment whose shape is a value's (`3`, `1.1`).
    pub fn note_odd(&mut self, hash: u64, stamp: Stamp, threshold: u32) {
        self.note_any(hash);
        if !self.has_several {
            self.alone.note(stamp, ALONE.max(threshold));
        }
    }

    /// True once the segment was the only one here often enough, and until another comes.
    pub fn is_alone(&self, hash: u64, threshold: u32) -> bool {
        self.first == Some(hash)
            && !self.has_several
            && self.alone.has_reached(ALONE.max(threshold))
    }
}

/// At most this many different strangers of one field are counted; a field with more is no
/// enumeration.
const MAX_VALUES: usize = 64;
/// A field with at most `FEW_VALUES` strangers in `MANY_EXCHANGES` exchanges enumerates them.
const FEW_VALUES: usize = 12;
const MANY_EXCHANGES: u32 = 20;

/// Exchanges for each random value of a field after which the field holds a credential.
const REPEATS: u32 = 3;

/// Values of one field that are no words of the vocabulary.
#[derive(Default)]
pub(super) struct Values {
    distinct: Distinct,
    is_crowded: bool,
    exchanges: u32,
    last: u32,
}

impl Values {
    pub fn note(&mut self, hash: u64, stamp: Stamp) {
        if self.exchanges == 0 || self.last != stamp.exchange {
            self.exchanges = self.exchanges.saturating_add(1);
            self.last = stamp.exchange;
        }
        self.is_crowded |= !self.distinct.insert(hash, MAX_VALUES);
    }

    pub fn is_crowded(&self) -> bool {
        self.is_crowded
    }

    /// The same few come again and again, as credentials do and ids of requests do not.
    pub fn repeat(&self) -> bool {
        let distinct = u32::try_from(self.distinct.hashes.len()).unwrap_or(u32::MAX);
        !self.is_crowded && self.exchanges >= distinct.saturating_mul(REPEATS)
    }

    pub fn stay_few(&self) -> bool {
        self.exchanges >= MANY_EXCHANGES && self.distinct.hashes.len() <= FEW_VALUES
    }
}
