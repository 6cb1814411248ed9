//! A map bounded so that the order in which parts are combined cannot matter.
//!
//! It keeps the k entries of the smallest hashes; all others are combined into one overflow.
//! An entry among the k smallest of a union is among the k smallest of every part that has it, so
//! no part ever gave up anything of an entry that the union keeps; and what the union does not
//! keep ends in the overflow, whenever it was evicted. Bottom-k samples are described in
//! Cohen and Kaplan, "Summarizing data using bottom-k sketches" (PODC 2007).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::depth::Nested;

/// At this level nothing is told apart: every map is its overflow.
pub(crate) const MAX_LEVEL: u8 = 12;

/// How many entries are kept of each kind. A pure function of the configured limits and of the
/// coarsening level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub words: usize,
    pub others: usize,
    pub level: u8,
}

impl Bounds {
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
pub(crate) trait Part: Clone {
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept<T> {
    pub entries: BTreeMap<Key, Nested<T>>,
    pub overflow: Option<Nested<Box<T>>>,
    /// Entries of `Kind::Other` are not told apart here: their source found them alike when it
    /// ran out of room. Like a level, it holds for every union that has it.
    pub is_folded: bool,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self { entries: BTreeMap::new(), overflow: None, is_folded: false }
    }
}

impl<T: Part> Kept<T> {
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &T)> {
        self.entries.iter().map(|(k, v)| (k, &v.0))
    }

    pub fn overflow(&self) -> Option<&T> {
        self.overflow.as_ref().map(|o| &*o.0)
    }

    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let overflow = self.overflow.as_mut().map(|o| &mut *o.0);
        self.entries.values_mut().map(|v| &mut v.0).chain(overflow)
    }

    pub fn overflow_mut(&mut self) -> Option<&mut T> {
        self.overflow.as_mut().map(|o| &mut *o.0)
    }

    /// The place where a sample of this key is to be counted: its own entry, or the overflow.
    /// The same as combining with a map of that one entry. Adds the bytes of what it made to
    /// `grown`.
    pub fn slot(
        &mut self,
        key: Key,
        bounds: Bounds,
        empty: impl Fn() -> T,
        grown: &mut usize,
    ) -> &mut T {
        if !self.entries.contains_key(&key) {
            let limit = self.limit(key.kind, bounds);
            let count = self.count(key.kind, limit);
            let largest = self.largest(key.kind);
            if limit == 0 || (count >= limit && largest.is_some_and(|l| l < key)) {
                return &mut self
                    .overflow
                    .get_or_insert_with(|| {
                        let made = empty();
                        *grown += made.bytes();
                        Nested(Box::new(made))
                    })
                    .0;
            }
            if count >= limit
                && let Some(largest) = largest
                && let Some(evicted) = self.entries.remove(&largest)
            {
                self.spill(evicted.0, bounds);
            }
        }
        &mut self
            .entries
            .entry(key)
            .or_insert_with(|| {
                let made = empty();
                *grown += made.bytes() + ENTRY_BYTES;
                Nested(made)
            })
            .0
    }

    fn limit(&self, kind: Kind, bounds: Bounds) -> usize {
        if self.is_folded && kind == Kind::Other { 0 } else { bounds.of(kind) }
    }

    /// From now on entries of `Kind::Other` are one.
    pub fn fold(&mut self, bounds: Bounds) {
        self.is_folded = true;
        self.trim(bounds);
    }

    /// The number of entries of a kind, counted no further than `limit`.
    fn count(&self, kind: Kind, limit: usize) -> usize {
        if limit == usize::MAX {
            return 0;
        }
        self.range(kind).take(limit).count()
    }

    fn range(&self, kind: Kind) -> impl DoubleEndedIterator<Item = (&Key, &Nested<T>)> {
        self.entries.range(Key { kind, hash: 0 }..=Key { kind, hash: u64::MAX })
    }

    fn largest(&self, kind: Kind) -> Option<Key> {
        self.range(kind).next_back().map(|(k, _)| *k)
    }

    fn spill(&mut self, evicted: T, bounds: Bounds) {
        match &mut self.overflow {
            Some(overflow) => overflow.0.combine(&evicted, bounds),
            None => self.overflow = Some(Nested(Box::new(evicted))),
        }
    }

    fn trim(&mut self, bounds: Bounds) {
        for kind in [Kind::Class, Kind::Word, Kind::Other] {
            let limit = self.limit(kind, bounds);
            if limit == usize::MAX {
                continue;
            }
            let excess: Vec<Key> = self.range(kind).skip(limit).map(|(k, _)| *k).collect();
            for key in excess {
                if let Some(evicted) = self.entries.remove(&key) {
                    self.spill(evicted.0, bounds);
                }
            }
        }
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.is_folded |= other.is_folded;
        for (key, value) in &other.entries {
            match self.entries.get_mut(key) {
                Some(own) => own.0.combine(&value.0, bounds),
                None => {
                    let mut value = value.clone();
                    value.0.coarsen(bounds);
                    self.entries.insert(*key, value);
                }
            }
        }
        if let Some(overflow) = &other.overflow {
            let mut overflow = (*overflow.0).clone();
            overflow.coarsen(bounds);
            self.spill(overflow, bounds);
        }
        self.trim(bounds);
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        for value in self.entries.values_mut() {
            value.0.coarsen(bounds);
        }
        if let Some(overflow) = self.overflow_mut() {
            overflow.coarsen(bounds);
        }
        self.trim(bounds);
    }

    pub fn bytes(&self) -> usize {
        let entries: usize = self.entries.values().map(|v| v.0.bytes() + ENTRY_BYTES).sum();
        entries + self.overflow().map_or(0, Part::bytes)
    }
}

const ENTRY_BYTES: usize = size_of::<Key>() + 16;
