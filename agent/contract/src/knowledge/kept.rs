//! A map bounded so that the order in which parts are combined cannot matter.
//!
//! It keeps the k entries of the smallest hashes; all others are combined into one overflow.
//! An entry among the k smallest of a union is among the k smallest of every part that has it, so
//! no part ever gave up anything of an entry that the union keeps; and what the union does not
//! keep ends in the overflow, whenever it was evicted. Bottom-k samples are described in
//! Cohen and Kaplan, "Summarizing data using bottom-k sketches" (PODC 2007).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};

use super::depth::Nested;

/// At this level nothing is told apart: every map is its overflow.
pub(crate) const MAX_LEVEL: u8 = 12;

/// How many entries are kept of each kind, and how deep. A pure function of the configured limits
/// and of the coarsening level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub words: usize,
    pub others: usize,
    pub level: u8,
    /// Levels of a schema below this one.
    pub depth: u32,
}

impl Bounds {
    /// Those of the next level of a schema; `None` where it is not kept.
    pub fn deeper(self) -> Option<Self> {
        Some(Self { depth: self.depth.checked_sub(1)?, ..self })
    }

    pub fn of(self, kind: Kind) -> usize {
        match kind {
            // Their number is that of the classes: bounded by nature, but not along a path.
            Kind::Class if self.level >= MAX_LEVEL => 0,
            Kind::Class => usize::MAX,
            Kind::Word => self.words >> self.level.min(31),
            Kind::Other => self.others >> self.level.min(31),
        }
    }
}

/// What is kept in the map.
pub(crate) trait Part: Clone + Default {
    /// Exactly commutative and associative, for equal bounds.
    fn combine(&mut self, other: &Self, bounds: Bounds);
    /// Lets go what coarser bounds do not keep.
    fn coarsen(&mut self, bounds: Bounds);
    /// Bytes of memory, about.
    fn bytes(&self) -> usize;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Kind {
    /// A class of obviously variable values; the hash is its number.
    Class,
    /// A word of the vocabulary of APIs.
    Word,
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Key {
    pub kind: Kind,
    pub hash: u64,
}

/// Of the places of entries: only for speed, neither stored nor compared with the statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version(u32);

/// Two vectors rather than a tree: most maps have few entries, and a tree allocates for eleven.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Stored<T>", bound(deserialize = "T: Deserialize<'de>"))]
pub(crate) struct Kept<T> {
    /// Sorted; each key's part is at the same place of `parts`.
    keys: Vec<Key>,
    parts: Vec<T>,
    overflow: Option<Box<T>>,
    /// Entries of `Kind::Other` are not told apart here: their source found them alike when it
    /// ran out of room. Like a level, it holds for every union that has it.
    pub is_folded: bool,
    version: Version,
}

impl<T: PartialEq> PartialEq for Kept<T> {
    fn eq(&self, other: &Self) -> bool {
        self.keys == other.keys
            && self.parts == other.parts
            && self.overflow == other.overflow
            && self.is_folded == other.is_folded
    }
}

#[derive(Deserialize)]
#[serde(rename = "Kept")]
struct Stored<T> {
    entries: BTreeMap<Key, Nested<T>>,
    overflow: Option<Nested<Box<T>>>,
    is_folded: bool,
}

impl<T> From<Stored<T>> for Kept<T> {
    fn from(stored: Stored<T>) -> Self {
        let (keys, parts) = stored.entries.into_iter().map(|(k, v)| (k, v.0)).unzip();
        let overflow = stored.overflow.map(|o| o.0);
        Self { keys, parts, overflow, is_folded: stored.is_folded, version: Version::default() }
    }
}

impl<T: Serialize> Serialize for Kept<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Entries<'a, T>(&'a Kept<T>);
        impl<T: Serialize> Serialize for Entries<'_, T> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.keys.iter().zip(&self.0.parts))
            }
        }
        let mut stored = serializer.serialize_struct("Kept", 3)?;
        stored.serialize_field("entries", &Entries(self))?;
        stored.serialize_field("overflow", &self.overflow)?;
        stored.serialize_field("is_folded", &self.is_folded)?;
        stored.end()
    }
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            parts: Vec::new(),
            overflow: None,
            is_folded: false,
            version: Version::default(),
        }
    }
}

impl<T: Part> Kept<T> {
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.keys.iter().zip(&self.parts)
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn overflow(&self) -> Option<&T> {
        self.overflow.as_deref()
    }

    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.parts.iter_mut().chain(self.overflow.as_deref_mut())
    }

    /// The place where a sample of this key is to be counted: its own entry, or the overflow.
    /// The same as combining with a map of that one entry. Adds the bytes of what it made to
    /// `grown`.
    pub fn slot(&mut self, key: Key, bounds: Bounds, grown: &mut usize) -> &mut T {
        let mut found = self.keys.binary_search(&key);
        if found.is_err() {
            let limit = self.limit(key.kind, bounds);
            let (first, end) = self.range(key.kind);
            if end - first >= limit {
                let largest = end.checked_sub(1).and_then(|l| self.keys.get(l)).copied();
                if limit == 0 || largest.is_some_and(|l| l < key) {
                    found = Err(usize::MAX);
                } else {
                    let (_, evicted) = self.remove(end - 1);
                    self.spill(&evicted, bounds);
                    found = self.keys.binary_search(&key);
                }
            }
        }
        match found {
            Ok(at) => &mut self.parts[at],
            Err(usize::MAX) => self.overflow.get_or_insert_with(|| {
                let made = T::default();
                *grown += made.bytes();
                Box::new(made)
            }),
            Err(at) => {
                let made = T::default();
                *grown += made.bytes() + ENTRY_BYTES;
                self.insert(at, key, made);
                &mut self.parts[at]
            }
        }
    }

    /// Where an entry is, as long as the version stays the same. `None` for what is in the overflow.
    pub fn place(&self, key: Key) -> Option<u32> {
        self.keys.binary_search(&key).ok().and_then(|at| u32::try_from(at).ok())
    }

    pub fn at(&mut self, place: u32) -> Option<&mut T> {
        self.parts.get_mut(place as usize)
    }

    /// Changes with every entry that comes or goes.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Grows by a quarter: what is kept is kept for long.
    fn insert(&mut self, at: usize, key: Key, part: T) {
        if self.keys.len() == self.keys.capacity() {
            let more = 1 + self.keys.len() / 4;
            self.keys.reserve_exact(more);
            self.parts.reserve_exact(more);
        }
        self.version.0 = self.version.0.wrapping_add(1);
        self.keys.insert(at, key);
        self.parts.insert(at, part);
    }

    fn remove(&mut self, at: usize) -> (Key, T) {
        self.version.0 = self.version.0.wrapping_add(1);
        (self.keys.remove(at), self.parts.remove(at))
    }

    fn limit(&self, kind: Kind, bounds: Bounds) -> usize {
        if self.is_folded && kind == Kind::Other { 0 } else { bounds.of(kind) }
    }

    /// From now on entries of `Kind::Other` are one.
    pub fn fold(&mut self, bounds: Bounds) {
        self.is_folded = true;
        self.trim(bounds);
    }

    /// Where the entries of a kind begin and end.
    fn range(&self, kind: Kind) -> (usize, usize) {
        let first = self.keys.partition_point(|k| k.kind < kind);
        (first, self.keys.partition_point(|k| k.kind <= kind))
    }

    fn spill(&mut self, evicted: &T, bounds: Bounds) {
        self.overflow.get_or_insert_default().combine(evicted, bounds);
    }

    fn trim(&mut self, bounds: Bounds) {
        for kind in [Kind::Other, Kind::Word, Kind::Class] {
            let limit = self.limit(kind, bounds);
            let (first, end) = self.range(kind);
            for at in (first.saturating_add(limit)..end).rev() {
                let (_, evicted) = self.remove(at);
                self.spill(&evicted, bounds);
            }
        }
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.is_folded |= other.is_folded;
        for (key, value) in other.iter() {
            match self.keys.binary_search(key) {
                Ok(at) => self.parts[at].combine(value, bounds),
                Err(at) => {
                    let mut value = value.clone();
                    value.coarsen(bounds);
                    self.insert(at, *key, value);
                }
            }
        }
        if let Some(overflow) = &other.overflow {
            let mut overflow = (**overflow).clone();
            overflow.coarsen(bounds);
            self.spill(&overflow, bounds);
        }
        self.trim(bounds);
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        self.parts_mut().for_each(|p| p.coarsen(bounds));
        self.trim(bounds);
    }

    /// On the heap, beyond its own size.
    pub fn bytes(&self) -> usize {
        let slack = (self.parts.capacity() - self.parts.len()) * size_of::<T>();
        let entries: usize = self.parts.iter().map(|v| v.bytes() + ENTRY_BYTES).sum();
        slack + entries + self.overflow().map_or(0, Part::bytes)
    }
}

const ENTRY_BYTES: usize = size_of::<Key>();
