//! How often a token came, and from how many independent exchanges, in bounded memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
};

/// Keys are SipHashes under a secret already.
#[derive(Default)]
pub(super) struct KeyedAlready(u64);

impl Hasher for KeyedAlready {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*b);
        }
    }
    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

type Map<V> = HashMap<u64, V, BuildHasherDefault<KeyedAlready>>;

/// A bounded map in two generations: what is used stays, what is not is forgotten.
pub(super) struct Generations<V> {
    young: Map<V>,
    old: Map<V>,
    capacity: usize,
    turn: u32,
}

impl<V> Generations<V> {
    /// Changes whenever something was forgotten.
    pub fn turn(&self) -> u32 {
        self.turn
    }

    pub fn new(capacity: usize) -> Self {
        Self { young: Map::default(), old: Map::default(), capacity: capacity.max(16), turn: 0 }
    }

    pub fn get(&self, key: u64) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    pub fn get_or_insert_with(&mut self, key: u64, make: impl FnOnce() -> V) -> &mut V {
        if self.young.len() >= self.capacity && !self.young.contains_key(&key) {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
            self.turn = self.turn.wrapping_add(1);
        }
        match self.young.entry(key) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(self.old.remove(&key).unwrap_or_else(make)),
        }
    }
}

/// What tells two exchanges apart.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stamp {
    pub exchange: u32,
    pub flow: u64,
    /// Hash of the request body; zero where there is none.
    pub body: u64,
    /// Hash of the request target.
    pub target: u64,
    /// Seconds since the Unix epoch.
    pub at: u32,
}

/// Where a token was seen first, and how often since. Hashes are cut to 32 bits: where two of them
/// fall together, less becomes text.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    count: u32,
    last: u32,
    first_flow: u64,
    first_body: u32,
    first_target: u32,
    first_at: u32,
    is_independent: bool,
    is_varied: bool,
}

/// A service behind one pooled connection of a proxy shows no second connection, so exchanges of
/// one connection count too where they differ in target or time, but this many times as many.
const SAME_CONNECTION_FACTOR: u32 = 3;

impl Seen {
    /// Whether `note` said yes to this many already.
    pub fn has_reached(&self, needed: u32) -> bool {
        (self.is_independent && self.count >= needed)
            || (self.is_varied && self.count >= needed.saturating_mul(SAME_CONNECTION_FACTOR))
    }

    /// True once the token came in `needed` exchanges, over at least two connections or with two
    /// different request bodies; or in three times as many with different targets or seconds. One
    /// caller who sends the same thing again and again proves nothing.
    pub fn note(&mut self, stamp: Stamp, needed: u32) -> bool {
        let (body, target) = (stamp.body as u32, stamp.target as u32);
        if self.count == 0 {
            (self.first_flow, self.first_body) = (stamp.flow, body);
            (self.first_target, self.first_at) = (target, stamp.at);
        }
        if self.count == 0 || self.last != stamp.exchange {
            self.count = self.count.saturating_add(1);
            self.last = stamp.exchange;
        }
        if self.first_body == 0 {
            self.first_body = body;
        }
        self.is_independent |=
            self.first_flow != stamp.flow || (body != 0 && self.first_body != body);
        // Whole seconds that differ by two are at least one second apart.
        self.is_varied |= self.first_target != target || self.first_at.abs_diff(stamp.at) >= 2;
        self.has_reached(needed)
    }
}
