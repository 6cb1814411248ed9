//! Which values the service itself handed out, as keyed hashes in fixed memory.

use super::recurrence::KeyedAlready;
use std::{collections::HashSet, hash::BuildHasherDefault};

type Set = HashSet<u64, BuildHasherDefault<KeyedAlready>>;

/// Two generations of an exact set; the older is forgotten when the younger is full.
pub(super) struct Produced {
    young: Set,
    old: Set,
    capacity: usize,
}

impl Produced {
    pub fn new(capacity: usize) -> Self {
        Self { young: Set::default(), old: Set::default(), capacity: capacity.max(16) }
    }

    pub fn insert(&mut self, hash: u64) {
        if self.young.len() >= self.capacity {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(hash);
    }

    pub fn contains(&self, hash: u64) -> bool {
        self.young.contains(&hash) || self.old.contains(&hash)
    }
}
