//! What was seen how often, of what may be too much to keep: the counts of the k least hashes.
//!
//! What is among the k least of a union is among the k least of every part that has it, so that
//! its count is exact and no order of combination matters (as in [`super::kept`]).

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sketch<const K: usize> {
    /// Sorted by hash.
    counts: Vec<(u64, u32)>,
    /// There were greater ones.
    is_cut: bool,
}

impl<const K: usize> Sketch<K> {
    pub fn add(&mut self, hash: u64, count: u32) {
        if self.counts.len() >= K && self.counts.last().is_some_and(|(last, _)| *last < hash) {
            self.is_cut = true;
            return;
        }
        match self.counts.binary_search_by_key(&hash, |(h, _)| *h) {
            Ok(at) => self.counts[at].1 = self.counts[at].1.saturating_add(count),
            Err(at) => {
                if self.counts.len() >= K {
                    self.counts.pop();
                    self.is_cut = true;
                } else if self.counts.len() == self.counts.capacity() {
                    self.counts.reserve_exact(4);
                }
                self.counts.insert(at, (hash, count));
            }
        }
    }

    pub fn combine(&mut self, other: &Self) {
        other.counts.iter().for_each(|(hash, count)| self.add(*hash, *count));
        self.is_cut |= other.is_cut;
    }

    pub fn iter(&self) -> impl Iterator<Item = (u64, u32)> {
        self.counts.iter().copied()
    }

    /// All that was seen up to this hash is here.
    pub fn known_to(&self) -> u64 {
        if self.is_cut { self.counts.last().map_or(0, |(h, _)| *h) } else { u64::MAX }
    }

    pub fn bytes(&self) -> usize {
        self.counts.capacity() * size_of::<(u64, u32)>()
    }

    /// What is decoded may be in any order.
    pub fn repair(&mut self) {
        let counts = std::mem::take(&mut self.counts);
        counts.into_iter().for_each(|(hash, count)| self.add(hash, count));
    }
}
