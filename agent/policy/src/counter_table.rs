//! A bounded table of counters that all workers of the process share.
//!
//! Finding a key and changing its counters takes no lock. Only a key that is not in the table
//! yet takes the lock of its part, so that two workers cannot give it two places.
//!
//! Keys are 64-bit hashes under a secret of this process: nobody can aim at another's counters,
//! and among a million keys two share one with a probability of 1 in 37 million.

use std::{
    hash::{BuildHasher, Hash, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

/// Places that a key may be in. One or two cache lines are read to find it.
const WAYS: usize = 8;
const LOCKS: usize = 64;

#[derive(Debug)]
pub struct CounterTable<const N: usize> {
    slots: Box<[Slot<N>]>,
    /// Number of sets less one, a power of two less one.
    mask: usize,
    inserting: Box<[Mutex<()>]>,
    hasher: RandomState,
    used: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug)]
struct Slot<const N: usize> {
    /// 0: free.
    key: AtomicU64,
    cells: [AtomicU64; N],
}

/// A key's place in the table. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

impl<const N: usize> CounterTable<N> {
    /// Holds up to `capacity` keys, rounded up to a power of two.
    pub fn new(capacity: usize) -> Self {
        let sets = capacity.div_ceil(WAYS).clamp(1, 1 << 28).next_power_of_two();
        let slot = || Slot { key: AtomicU64::new(0), cells: [const { AtomicU64::new(0) }; N] };
        Self {
            slots: (0..sets * WAYS).map(|_| slot()).collect(),
            mask: sets - 1,
            inserting: (0..LOCKS).map(|_| Mutex::new(())).collect(),
            hasher: RandomState::new(),
            used: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        }
    }

    pub fn key(&self, of: impl Hash) -> Key {
        Key(self.hasher.hash_one(of).max(1))
    }

    /// Keys in the table.
    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    /// Keys whose counters were still needed and were forgotten for another's.
    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    pub fn find(&self, key: Key) -> Option<&[AtomicU64; N]> {
        let set = self.set(key);
        set.iter().find(|slot| slot.key.load(Acquire) == key.0).map(|slot| &slot.cells)
    }

    /// The counters of `key`, all 0 if it is new. Where its set is full, the key with the lowest
    /// `worth` goes; what a key with no worth counted says no more than 0 would.
    ///
    /// `forgotten` is told of the one that goes. A thread that found its counters just before may
    /// still count one request there.
    pub fn find_or_insert(
        &self,
        key: Key,
        worth: impl Fn(&[u64; N]) -> u64,
        forgotten: impl FnOnce(Key),
    ) -> &[AtomicU64; N] {
        if let Some(cells) = self.find(key) {
            return cells;
        }
        let lock = &self.inserting[self.index(key) % LOCKS];
        // The lock guards no data of its own, so a panic under it leaves nothing half done.
        let _inserting = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cells) = self.find(key) {
            return cells;
        }
        let set = self.set(key);
        if let Some(free) = set.iter().find(|slot| slot.key.load(Relaxed) == 0) {
            self.used.fetch_add(1, Relaxed);
            free.key.store(key.0, Release);
            return &free.cells;
        }
        let worth_of =
            |slot: &Slot<N>| worth(&slot.cells.each_ref().map(|cell| cell.load(Relaxed)));
        let (slot, least) = set.iter().skip(1).fold((&set[0], worth_of(&set[0])), |least, slot| {
            let worth = worth_of(slot);
            if worth < least.1 { (slot, worth) } else { least }
        });
        if least > 0 {
            self.evicted.fetch_add(1, Relaxed);
        }
        let old = Key(slot.key.swap(0, Relaxed));
        for cell in &slot.cells {
            cell.store(0, Relaxed);
        }
        forgotten(old);
        slot.key.store(key.0, Release);
        &slot.cells
    }

    /// Every key with its counters, each read for itself.
    pub fn iter(&self) -> impl Iterator<Item = (Key, [u64; N])> {
        self.slots.iter().filter_map(|slot| {
            let key = slot.key.load(Acquire);
            (key != 0).then(|| (Key(key), slot.cells.each_ref().map(|cell| cell.load(Relaxed))))
        })
    }

    fn index(&self, key: Key) -> usize {
        // Truncation is wanted: any bits of a hash will do.
        key.0 as usize & self.mask
    }

    fn set(&self, key: Key) -> &[Slot<N>] {
        let first = self.index(key) * WAYS;
        &self.slots[first..first + WAYS]
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, sync::Arc, thread};

    use super::*;

    #[test]
    fn a_key_keeps_its_counters() {
        let table: CounterTable<1> = CounterTable::new(1024);
        for name in 0..100 {
            let cells = table.find_or_insert(table.key(name), |_| 1, |_| panic!("evicted"));
            cells[0].store(name, Relaxed);
        }
        for name in 0..100 {
            assert_eq!(table.find(table.key(name)).unwrap()[0].load(Relaxed), name);
        }
        assert_eq!((table.used(), table.evicted()), (100, 0));
        assert!(table.find(table.key(100)).is_none());
    }

    #[test]
    fn a_full_table_forgets_the_least_worth_and_says_so() {
        let table: CounterTable<1> = CounterTable::new(WAYS);
        let mut forgotten = HashSet::new();
        for name in 1..=WAYS as u64 + 1 {
            let key = table.key(name);
            let cells = table.find_or_insert(
                key,
                |cells| cells[0],
                |key| {
                    forgotten.insert(key);
                },
            );
            cells[0].store(name, Relaxed);
        }
        assert_eq!(forgotten, HashSet::from([table.key(1u64)]));
        assert_eq!((table.used(), table.evicted()), (WAYS as u64, 1));
        let newest = table.find(table.key(WAYS as u64 + 1)).unwrap();
        assert_eq!(newest[0].load(Relaxed), WAYS as u64 + 1);
    }

    #[test]
    fn what_is_worth_nothing_goes_uncounted() {
        let table: CounterTable<1> = CounterTable::new(WAYS);
        for name in 0..100u64 {
            table.find_or_insert(table.key(name), |_| 0, |_| ());
        }
        assert_eq!(table.evicted(), 0);
    }

    #[test]
    fn threads_that_insert_at_once_share_one_place() {
        let table: Arc<CounterTable<1>> = Arc::new(CounterTable::new(65_536));
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let table = table.clone();
                thread::spawn(move || {
                    for name in 0..1000 {
                        let cells = table.find_or_insert(table.key(name), |_| 1, |_| ());
                        cells[0].fetch_add(1, Relaxed);
                    }
                })
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(table.evicted(), 0);
        assert_eq!(table.iter().count(), 1000);
        assert!(table.iter().all(|(_, cells)| cells == [8]));
    }
}
