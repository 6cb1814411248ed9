//! Tokens that were verified, by hash: a signature is checked once, not with every request.

use std::{
    fmt,
    hash::Hasher,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::{ArcSwapOption, Guard};
use aws_lc_rs::rand;
use siphasher::sip128::{Hasher128, SipHasher24};

use super::key_set::Key;
use crate::{clock::Now, identity::forward::Known};

/// Under a key of our own, so that nobody can search for a token with the hash of another's.
pub(super) type TokenHash = u128;

/// What was found when the token was verified.
#[derive(Debug)]
pub(super) struct Verified {
    pub hash: TokenHash,
    pub known: Arc<Known>,
    /// From then on it counts no more.
    pub until: Now,
    /// What it was verified with; withdrawn, it takes the token along.
    pub key: Arc<Key>,
}

impl Verified {
    fn is_over(&self, now: Now) -> bool {
        now >= self.until || self.key.is_retired()
    }
}

/// Slots in sets of four. Reading takes no lock: workers share what any of them verified. A token
/// that finds its set full takes the place of another, which is then verified once more.
pub(crate) struct Memory {
    secret: [u8; 16],
    slots: Box<[ArcSwapOption<Verified>]>,
    /// Which slot of a full set is next to go.
    turn: AtomicUsize,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("slots", &self.slots.len()).finish_non_exhaustive()
    }
}

const WAYS: usize = 4;

impl Memory {
    /// For at most so many tokens, rounded up. `None` when the system gives no random numbers.
    pub(super) fn new(tokens: usize) -> Option<Self> {
        let mut secret = [0; 16];
        rand::fill(&mut secret).ok()?;
        let slots = tokens.max(1).next_power_of_two().max(WAYS);
        let slots = (0..slots).map(|_| ArcSwapOption::empty()).collect();
        Some(Self { secret, slots, turn: AtomicUsize::new(0) })
    }

    pub(super) fn hash(&self, token: &[u8]) -> TokenHash {
        let mut hasher = SipHasher24::new_with_key(&self.secret);
        hasher.write(token);
        hasher.finish128().as_u128()
    }

    fn ways(&self, hash: TokenHash) -> &[ArcSwapOption<Verified>] {
        // Truncation is wanted: any bits will do.
        let start = (hash as usize % (self.slots.len() / WAYS)) * WAYS;
        self.slots.get(start..start + WAYS).unwrap_or_default()
    }

    pub(super) fn find(&self, hash: TokenHash, now: Now) -> Option<Guard<Option<Arc<Verified>>>> {
        self.ways(hash).iter().map(ArcSwapOption::load).find(|slot| {
            slot.as_ref().is_some_and(|found| found.hash == hash && !found.is_over(now))
        })
    }

    fn len(&self, now: Now) -> usize {
        let is_live =
            |slot: &ArcSwapOption<Verified>| slot.load().as_ref().is_some_and(|v| !v.is_over(now));
        self.slots.iter().filter(|slot| is_live(slot)).count()
    }

    fn clear(&self) {
        self.slots.iter().for_each(|slot| slot.store(None));
    }

    pub(super) fn insert(&self, verified: Verified, now: Now) {
        let ways = self.ways(verified.hash);
        let is_free = |slot: &ArcSwapOption<Verified>| {
            slot.load().as_ref().is_none_or(|old| old.hash == verified.hash || old.is_over(now))
        };
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % WAYS;
        if let Some(slot) = ways.iter().find(|slot| is_free(slot)).or_else(|| ways.get(turn)) {
            slot.store(Some(Arc::new(verified)));
        }
    }
}

/// The memories of all issuers that are configured, for the admin API. Outlives a reload.
#[derive(Debug, Default)]
pub struct RememberedTokens {
    memories: Mutex<Vec<Weak<Memory>>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenStats {
    /// Tokens that were not verified again.
    pub hits: u64,
    pub misses: u64,
    /// Those that still count.
    pub entries: usize,
}

impl RememberedTokens {
    pub(super) fn add(&self, memory: &Arc<Memory>) {
        let mut memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.retain(|memory| memory.strong_count() > 0);
        memories.push(Arc::downgrade(memory));
    }

    pub(super) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    fn memories(&self) -> Vec<Arc<Memory>> {
        let memories = self.memories.lock().unwrap_or_else(PoisonError::into_inner);
        memories.iter().filter_map(Weak::upgrade).collect()
    }

    pub fn stats(&self) -> TokenStats {
        let now = Now::read();
        TokenStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            entries: self.memories().iter().map(|memory| memory.len(now)).sum(),
        }
    }

    /// Every token is verified again with its next request.
    pub fn forget(&self) {
        self.memories().iter().for_each(|memory| memory.clear());
    }
}
