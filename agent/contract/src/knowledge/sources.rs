//! Knowledge from many sources: nodes and time buckets.

use std::collections::{BTreeMap, btree_map::Entry};

use serde::{Deserialize, Serialize};

use super::{
    DecodeError, Limits, PassedOver, ServiceKnowledge, ServiceStats,
    encoding::{decode, encode},
};
use crate::observation::Observation;

/// Who saw it, and when: knowledge of a source is replaced by a newer version of itself, never
/// added to it, so that what is delivered twice counts once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SourceId {
    pub node: String,
    /// Seconds since the Unix epoch at which the time bucket begins.
    pub bucket: u64,
}

/// A half-open span of time, in seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    pub from: u64,
    pub to: u64,
}

impl Window {
    pub const ALL: Self = Self { from: 0, to: u64::MAX };
}

/// What is known of all services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Knowledge {
    limits: Limits,
    services: BTreeMap<String, BTreeMap<SourceId, (u64, ServiceKnowledge)>>,
}

impl Knowledge {
    pub fn new(limits: Limits) -> Self {
        Self { limits, services: BTreeMap::new() }
    }

    /// Counts one observation of a service under a source, whose version increases by one.
    /// `bucket_seconds` is the length of the time buckets.
    pub fn record(
        &mut self,
        service: &str,
        node: &str,
        bucket_seconds: u64,
        observation: &Observation,
    ) {
        self.changing(service, node, bucket_seconds, observation.at).record(observation);
    }

    /// As `record`, of an exchange that is only counted.
    pub fn pass_over(
        &mut self,
        service: &str,
        node: &str,
        bucket_seconds: u64,
        passed: PassedOver,
    ) {
        self.changing(service, node, bucket_seconds, passed.at).pass_over(passed);
    }

    fn changing(
        &mut self,
        service: &str,
        node: &str,
        bucket_seconds: u64,
        at: u64,
    ) -> &mut ServiceKnowledge {
        let source = SourceId { node: node.to_owned(), bucket: at - at % bucket_seconds.max(1) };
        let (version, known) = self
            .services
            .entry(service.to_owned())
            .or_default()
            .entry(source)
            .or_insert_with(|| (0, ServiceKnowledge::new(self.limits)));
        *version += 1;
        known
    }

    /// Takes in what a source knows. The newer version wins; of two that claim the same version,
    /// the greater encoding, so that every order of arrival ends the same.
    pub fn put(&mut self, service: &str, source: SourceId, version: u64, known: ServiceKnowledge) {
        match self.services.entry(service.to_owned()).or_default().entry(source) {
            Entry::Vacant(vacant) => {
                vacant.insert((version, known));
            }
            Entry::Occupied(mut occupied) => {
                let (own_version, own) = occupied.get();
                let is_newer = match version.cmp(own_version) {
                    std::cmp::Ordering::Equal => {
                        known.stats != own.stats && known.encode() > own.encode()
                    }
                    order => order.is_gt(),
                };
                if is_newer {
                    occupied.insert((version, known));
                }
            }
        }
    }

    /// Commutative, associative, and idempotent per source.
    pub fn merge(&mut self, other: &Self) {
        for (service, sources) in &other.services {
            for (source, (version, known)) in sources {
                self.put(service, source.clone(), *version, known.clone());
            }
        }
    }

    pub fn services(&self) -> impl Iterator<Item = &str> {
        self.services.keys().map(String::as_str)
    }

    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The sources of one service, with their versions, oldest node first.
    pub fn sources(
        &self,
        service: &str,
    ) -> impl Iterator<Item = (&SourceId, u64, &ServiceKnowledge)> {
        self.services.get(service).into_iter().flatten().map(|(s, (v, k))| (s, *v, k))
    }

    /// One source's knowledge and its version.
    pub fn source(&self, service: &str, source: &SourceId) -> Option<(u64, &ServiceKnowledge)> {
        self.services.get(service)?.get(source).map(|(v, k)| (*v, k))
    }

    /// Forgets what was last seen before `time` (seconds since the Unix epoch): whole buckets,
    /// by their last exchange. Returns how many sources were forgotten.
    pub fn purge_before(&mut self, time: u64) -> usize {
        let mut purged = 0;
        self.services.retain(|_, sources| {
            sources.retain(|source, (_, known)| {
                let last = known.seen().map_or(source.bucket, |(_, last)| last);
                let is_kept = last >= time;
                purged += usize::from(!is_kept);
                is_kept
            });
            !sources.is_empty()
        });
        purged
    }

    /// Forgets a service.
    pub fn remove(&mut self, service: &str) -> bool {
        self.services.remove(service).is_some()
    }

    /// The union of what the buckets that overlap the window know of a service, within
    /// `Limits::bytes`.
    pub fn within(&self, service: &str, window: Window) -> ServiceKnowledge {
        let mut union = ServiceKnowledge::new(self.limits);
        for (source, (_, known)) in self.services.get(service).into_iter().flatten() {
            let last = known.seen().map_or(source.bucket, |(_, last)| last);
            if source.bucket < window.to && last >= window.from {
                union.combine(known);
                union.shrink();
            }
        }
        union
    }

    /// Bytes of memory, within about a quarter.
    pub fn approximate_bytes(&self) -> usize {
        self.services.values().flat_map(BTreeMap::values).map(|(_, k)| k.approximate_bytes()).sum()
    }

    /// As bytes; the same knowledge gives the same bytes.
    pub fn encode(&self) -> Vec<u8> {
        let services: BTreeMap<&str, BTreeMap<&SourceId, (u64, &ServiceStats)>> = self
            .services
            .iter()
            .map(|(name, sources)| {
                (name.as_str(), sources.iter().map(|(s, (v, k))| (s, (*v, &k.stats))).collect())
            })
            .collect();
        encode(&services)
    }

    /// Reads what `encode` wrote.
    pub fn decode(bytes: &[u8], limits: Limits) -> Result<Self, DecodeError> {
        type Stored = BTreeMap<String, BTreeMap<SourceId, (u64, ServiceStats)>>;
        let services = decode::<Stored>(bytes)?
            .into_iter()
            .map(|(name, sources)| {
                let sources = sources
                    .into_iter()
                    .map(|(s, (v, k))| (s, (v, ServiceKnowledge::from_stats(k, limits))))
                    .collect();
                (name, sources)
            })
            .collect();
        Ok(Self { limits, services })
    }
}
