//! What the analysis thread writes down: exchanges of each service, redacted as they come.

use std::collections::BTreeMap;

use stoa_contract::{
    knowledge::{Knowledge, Limits, PassedOver, ServiceKnowledge},
    observation::Personal,
    redact::{RedactConfig, Redactor},
};
use stoa_wire::{
    exchange::{Exchange, Incomplete, Partial},
    segment::Loss,
};

use super::sampling::Sampling;
use crate::store::Entry;

/// Knowledge is kept in pieces of this length, so that windows and retention can leave pieces out.
pub const BUCKET_SECONDS: u64 = 6 * 3600;
/// Above this many bytes of statistics, all of them move to the store and memory starts anew.
const MEMORY_LIMIT: usize = 24 << 20;

/// Numbers of one service since the agent started.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    pub name: String,
    pub exchanges: u64,
    pub complete: u64,
    /// Exchanges of which bytes were lost, but for the bodies that the budget cuts on purpose.
    pub lossy: u64,
    /// Exchanges without a request head: nothing to learn from.
    pub unobserved: u64,
    /// Exchanges of well-known kinds that were only counted, because the analysis was behind.
    pub passed_over: u64,
    pub incomplete: BTreeMap<Incomplete, u64>,
    /// Bytes missing within exchanges, by reason.
    pub lost: BTreeMap<Loss, u64>,
    pub masked: BTreeMap<Personal, u64>,
}

struct Service {
    tally: Tally,
    redactor: Redactor,
}

pub struct Book {
    secret: [u8; 16],
    services: BTreeMap<u32, Service>,
    knowledge: Knowledge,
    sampling: Sampling,
    /// Unique to this run; parts of it are numbered.
    run: String,
    part: u32,
    /// What the store has, by service and bucket: version.
    written: BTreeMap<(String, u64), u64>,
    held_since: BTreeMap<(String, u64), u64>,
    bucket: u64,
    bytes: usize,
}

impl Book {
    pub fn new(secret: [u8; 16], run: String, names: &[String]) -> Self {
        let mut book = Self {
            secret,
            services: BTreeMap::new(),
            knowledge: Knowledge::new(Limits::default()),
            sampling: Sampling::new(),
            run,
            part: 0,
            written: BTreeMap::new(),
            held_since: BTreeMap::new(),
            bucket: 0,
            bytes: 0,
        };
        for (number, name) in (0_u32..).zip(names) {
            book.name_service(number, name);
        }
        book
    }

    pub fn has_service(&self, number: u32) -> bool {
        self.services.contains_key(&number)
    }

    pub fn name_of(&self, number: u32) -> Option<&str> {
        self.services.get(&number).map(|s| s.tally.name.as_str())
    }

    pub fn name_service(&mut self, number: u32, name: &str) {
        let secret = self.secret;
        self.services.entry(number).or_insert_with(|| Service {
            tally: Tally { name: name.to_owned(), ..Tally::default() },
            redactor: Redactor::new(secret, RedactConfig::default()),
        });
    }

    /// While the analysis is behind, not every exchange is examined.
    pub fn set_behind(&mut self, is_behind: bool) {
        self.sampling.set_behind(is_behind);
    }

    /// From now on no exchange is examined.
    pub fn only_count(&mut self) {
        self.sampling.only_count();
    }

    /// The exchange ends here: what is kept of it is an observation.
    pub fn record(&mut self, exchange: &Exchange) {
        let Some(service) = self.services.get_mut(&exchange.endpoints.service) else { return };
        let tally = &mut service.tally;
        tally.exchanges += 1;
        tally.complete += u64::from(exchange.is_complete());
        tally.lossy += u64::from(is_lossy(exchange));
        for reason in &exchange.incomplete {
            *tally.incomplete.entry(*reason).or_default() += 1;
        }
        for (reason, bytes) in &exchange.lost {
            *tally.lost.entry(*reason).or_default() += bytes;
        }
        if !self.sampling.should_examine(exchange) {
            tally.passed_over += 1;
            let passed = PassedOver {
                at: exchange.started / 1_000_000_000,
                is_complete: exchange.is_complete(),
                bytes_lost: exchange.bytes_lost(),
            };
            self.knowledge.pass_over(&tally.name, &self.run, BUCKET_SECONDS, passed);
            return;
        }
        match service.redactor.observe(exchange) {
            Some(observation) => {
                self.knowledge.record(&tally.name, &self.run, BUCKET_SECONDS, &observation);
            }
            None => tally.unobserved += 1,
        }
    }

    pub fn tallies(&self) -> BTreeMap<u32, Tally> {
        let tally_of = |service: &Service| {
            let mut tally = service.tally.clone();
            tally.masked = service.redactor.counters().masked;
            tally
        };
        self.services.iter().map(|(number, service)| (*number, tally_of(service))).collect()
    }

    /// The name under which the store has what this book holds at the moment.
    pub fn part(&self) -> String {
        format!("{}.{}", self.run, self.part)
    }

    /// A copy of what is held of a service, beside what the store has in other parts.
    pub fn copy(&self, service: &str) -> ServiceKnowledge {
        let mut union = ServiceKnowledge::new(Limits::default());
        for (_, _, known) in self.knowledge.sources(service) {
            union.combine(known);
        }
        union.shrink();
        union
    }

    /// What changed since it was last taken for writing. `now`: seconds since the Unix epoch.
    pub fn take_changes(&mut self, now: u64) -> Vec<Entry> {
        let mut entries = Vec::new();
        let part = self.part();
        for service in self.knowledge.services() {
            for (source, version, known) in self.knowledge.sources(service) {
                let key = (service.to_owned(), source.bucket);
                if self.written.get(&key) == Some(&version) {
                    continue;
                }
                let held_since = *self.held_since.entry(key.clone()).or_insert(now);
                self.written.insert(key, version);
                entries.push(Entry {
                    service: service.to_owned(),
                    bucket: source.bucket,
                    part: part.clone(),
                    held_since,
                    encoded: known.encode(),
                });
            }
        }
        entries
    }

    /// The store could not write: everything counts as changed again.
    pub fn forget_written(&mut self) {
        self.written.clear();
    }

    /// Whether it is time to leave what is held to the store: its bucket is over, or it is large.
    pub fn should_start_part(&mut self, now: u64) -> bool {
        let bucket = now - now % BUCKET_SECONDS;
        let is_new = self.bucket != 0 && self.bucket != bucket && !self.knowledge.is_empty();
        if self.bucket == 0 || self.knowledge.is_empty() {
            self.bucket = bucket;
        }
        self.bytes = self.knowledge.approximate_bytes();
        is_new || self.bytes > MEMORY_LIMIT
    }

    /// Everything is in the store: memory starts anew, under a new name.
    pub fn start_part(&mut self, now: u64) {
        self.knowledge = Knowledge::new(Limits::default());
        self.part += 1;
        self.bucket = now - now % BUCKET_SECONDS;
        self.written.clear();
        self.held_since.clear();
    }

    /// Bytes of statistics in memory when it was last asked whether they are too many.
    pub fn memory(&self) -> usize {
        self.bytes
    }
}

/// A body that the budget cut on purpose is no loss, nor is what was not seen of it behind the cut;
/// a message that was skipped with it is.
fn is_lossy(exchange: &Exchange) -> bool {
    use Incomplete::{RequestBodyTruncated, ResponseBodyTruncated};
    let request = exchange.request.iter().map(|request| &request.message);
    let response = exchange.response.iter().map(|response| &response.message);
    let bodies: Vec<_> = request.chain(response).map(|message| message.body.partial).collect();
    let is_cut_only = !bodies.contains(&Some(Partial::Loss))
        && exchange
            .incomplete
            .iter()
            .all(|i| matches!(i, RequestBodyTruncated | ResponseBodyTruncated));
    let is_cut = bodies.contains(&Some(Partial::Limit));
    exchange
        .lost
        .iter()
        .any(|(reason, n)| *n > 0 && !(is_cut_only && (is_cut || *reason == Loss::Budget)))
}

#[cfg(test)]
mod tests {
    use stoa_wire::{
        exchange::{Body, Message, Request},
        segment::{Endpoints, FlowId},
    };

    use super::*;

    fn upload(
        partial: Option<Partial>,
        incomplete: &[Incomplete],
        lost: &[(Loss, u64)],
    ) -> Exchange {
        let address = ([127, 0, 0, 1], 80).into();
        let message = Message {
            head: Vec::new().into(),
            headers: Vec::new(),
            minor: 1,
            trailers: Vec::new(),
            body: Body { partial, ..Body::default() },
        };
        Exchange {
            flow: FlowId(1),
            endpoints: Endpoints { client: address, server: address, service: 0 },
            started: 1,
            ended: 2,
            request: Some(Request { method: 0..0, target: 0..0, message }),
            response: None,
            interim: Vec::new(),
            incomplete: incomplete.to_vec(),
            lost: lost.to_vec(),
        }
    }

    #[test]
    fn only_what_was_to_be_read_is_lost() {
        use Incomplete::{RequestBodyTruncated as Cut, ResponseMissing};
        let budget = (Loss::Budget, 900);
        let unseen = (Loss::Unseen, 100);
        assert!(!is_lossy(&upload(None, &[], &[])));
        assert!(!is_lossy(&upload(Some(Partial::Limit), &[Cut], &[budget])));
        assert!(!is_lossy(&upload(Some(Partial::Limit), &[Cut], &[budget, unseen])), "behind it");
        assert!(is_lossy(&upload(Some(Partial::Loss), &[Cut], &[unseen])));
        assert!(is_lossy(&upload(Some(Partial::Loss), &[Cut], &[unseen, budget])), "before it");
        assert!(is_lossy(&upload(Some(Partial::Limit), &[Cut, ResponseMissing], &[budget])));
        assert!(is_lossy(&upload(None, &[], &[unseen])));
    }
}
