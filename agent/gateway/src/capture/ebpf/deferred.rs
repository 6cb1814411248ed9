//! Segments that came before their connection had a socket (`TCP_DEFER_ACCEPT`, Fast Open), held
//! until it is known which connection they began.
//!
//! The kernel makes the socket of the segment in one go, so the record that claims it follows at
//! once, if it follows at all. One connection a CPU is held, of at most one segment (64 KiB).

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use stoa_common::record::{DEFERRED, DEFERRED_CPU_SHIFT};

use super::unread::Unread;

/// After so long, a claim is not to be expected any more.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Deferred {
    by_cpu: BTreeMap<u64, Held>,
}

struct Held {
    name: u64,
    since: Instant,
    records: Vec<Box<[u8]>>,
}

/// Whether a record's flow is such a connection.
pub(super) fn is_deferred(flow: u64) -> bool {
    flow & DEFERRED != 0
}

fn cpu_of(name: u64) -> u64 {
    (name & !DEFERRED) >> DEFERRED_CPU_SHIFT
}

impl Deferred {
    /// Keeps a record. Its CPU has gone on from the connection before, if that had another name.
    pub(super) fn hold(&mut self, name: u64, record: &[u8], unclaimed: &mut Unread) {
        let cpu = cpu_of(name);
        if self.by_cpu.get(&cpu).is_some_and(|held| held.name != name) {
            self.let_go(cpu, unclaimed);
        }
        let held = self.by_cpu.entry(cpu).or_insert_with(|| Held {
            name,
            since: Instant::now(),
            records: Vec::new(),
        });
        held.records.push(record.into());
    }

    /// The records held under this name, in order.
    pub(super) fn claim(&mut self, name: u64) -> Vec<Box<[u8]>> {
        let cpu = cpu_of(name);
        if self.by_cpu.get(&cpu).is_none_or(|held| held.name != name) {
            return Vec::new();
        }
        self.by_cpu.remove(&cpu).map(|held| held.records).unwrap_or_default()
    }

    /// Lets go of what has waited too long; of everything if `is_last`.
    pub(super) fn expire(&mut self, is_last: bool, unclaimed: &mut Unread) {
        let over: Vec<u64> = self
            .by_cpu
            .iter()
            .filter(|(_, held)| is_last || held.since.elapsed() > PATIENCE)
            .map(|(cpu, _)| *cpu)
            .collect();
        for cpu in over {
            self.let_go(cpu, unclaimed);
        }
    }

    fn let_go(&mut self, cpu: u64, unclaimed: &mut Unread) {
        let Some(held) = self.by_cpu.remove(&cpu) else { return };
        held.records.iter().for_each(|record| unclaimed.add_record(record));
        unclaimed.finish();
    }
}

#[cfg(test)]
mod tests {
    use stoa_common::record::{HEADER_LEN, RecordHeader, kind, reason};

    use super::{super::records, *};

    fn record(name: u64, captured: u32, len: u32) -> Vec<u8> {
        let header = RecordHeader {
            flow: name,
            at: 1,
            slot: 7,
            seq: 100,
            ack: 0,
            len,
            captured,
            kind: kind::SEGMENT,
            direction: 0,
            flags: 0,
            reason: reason::NONE,
        };
        let mut bytes = vec![0; HEADER_LEN + captured as usize];
        records::write(&header, &mut bytes);
        bytes
    }

    fn name(cpu: u64, count: u64) -> u64 {
        DEFERRED | cpu << DEFERRED_CPU_SHIFT | count
    }

    #[test]
    fn a_connection_gets_its_own_records_once() {
        let (mut deferred, mut unclaimed) = (Deferred::default(), Unread::default());
        deferred.hold(name(0, 1), &record(name(0, 1), 10, 10), &mut unclaimed);
        deferred.hold(name(1, 1), &record(name(1, 1), 20, 20), &mut unclaimed);
        deferred.hold(name(1, 1), &record(name(1, 1), 5, 5), &mut unclaimed);
        assert_eq!(deferred.claim(name(1, 1)).len(), 2);
        assert!(deferred.claim(name(1, 1)).is_empty());
        assert!(deferred.claim(name(0, 2)).is_empty(), "another connection's");
        assert_eq!(deferred.claim(name(0, 1)).len(), 1);
        deferred.expire(true, &mut unclaimed);
        assert_eq!(unclaimed.of(7).bytes, 0);
    }

    #[test]
    fn what_nobody_claims_is_counted() {
        let (mut deferred, mut unclaimed) = (Deferred::default(), Unread::default());
        deferred.hold(name(0, 1), &record(name(0, 1), 10, 10), &mut unclaimed);
        // The client sends it again.
        deferred.hold(name(0, 2), &record(name(0, 2), 10, 10), &mut unclaimed);
        assert_eq!((unclaimed.of(7).segments, unclaimed.of(7).bytes), (1, 10));
        deferred.expire(false, &mut unclaimed);
        assert_eq!(unclaimed.of(7).segments, 1, "it may still be claimed");
        // Cut by the budget: lost already as a segment, its bytes not yet.
        deferred.hold(name(3, 1), &record(name(3, 1), 10, 30), &mut unclaimed);
        deferred.expire(true, &mut unclaimed);
        assert_eq!((unclaimed.of(7).segments, unclaimed.of(7).bytes), (2, 30));
    }
}
