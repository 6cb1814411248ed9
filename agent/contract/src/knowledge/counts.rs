//! Few counts by name: a sorted vector, for a tree of one entry allocates for eleven.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<K, u64>", bound(deserialize = "K: Ord + Deserialize<'de>"))]
#[serde(into = "BTreeMap<K, u64>", bound(serialize = "K: Ord + Clone + Serialize"))]
pub(crate) struct Counts<K>(Vec<(K, u64)>);

impl<K> Default for Counts<K> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K> From<BTreeMap<K, u64>> for Counts<K> {
    fn from(stored: BTreeMap<K, u64>) -> Self {
        Self(stored.into_iter().collect())
    }
}

impl<K: Ord> From<Counts<K>> for BTreeMap<K, u64> {
    fn from(counts: Counts<K>) -> Self {
        counts.0.into_iter().collect()
    }
}

impl<K: Ord> Counts<K> {
    pub fn add(&mut self, key: K, count: u64) {
        match self.0.binary_search_by(|(k, _)| k.cmp(&key)) {
            Ok(at) => self.0[at].1 += count,
            Err(at) => {
                self.0.reserve_exact(1);
                self.0.insert(at, (key, count));
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&K, u64)> {
        self.0.iter().map(|(k, n)| (k, *n))
    }

    pub fn get(&self, key: &K) -> u64 {
        self.0.binary_search_by(|(k, _)| k.cmp(key)).map_or(0, |at| self.0[at].1)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn total(&self) -> u64 {
        self.0.iter().map(|(_, n)| n).sum()
    }

    /// The least keys are kept, which no order of combination changes.
    pub fn truncate(&mut self, limit: usize) {
        self.0.truncate(limit);
    }

    /// Counts of what is one after it are added.
    pub fn rename(&mut self, mut name: impl FnMut(&K) -> K) {
        for (key, count) in std::mem::take(&mut self.0) {
            self.add(name(&key), count);
        }
    }

    pub fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<(K, u64)>()
    }
}

impl<K: Ord + Clone> Counts<K> {
    pub fn combine(&mut self, other: &Self) {
        other.0.iter().for_each(|(k, n)| self.add(k.clone(), *n));
    }
}
