//! What is known of services: sufficient statistics that combine in any order, bounded in bytes.
//!
//! [`ServiceKnowledge`] is what one source saw of one service in one time bucket. [`Knowledge`]
//! holds many of them and merges with others of its kind.

pub(crate) mod body;
mod compact;
pub(crate) mod counts;
mod depth;
pub(crate) mod detail;
mod echo;
mod encoding;
pub(crate) mod endpoint;
pub(crate) mod features;
mod fold;
pub(crate) mod kept;
pub(crate) mod paths;
pub(crate) mod schema;
pub(crate) mod sketch;
mod sources;
pub(crate) mod token;
pub(crate) mod value;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use encoding::DecodeError;
pub use sources::{Knowledge, SourceId, Window};

use crate::observation::{Content, Method, Node, Observation, Personal};
use compact::Aliases;
use counts::Counts;
use detail::Details;
use endpoint::Outcome;
use kept::{Bounds, MAX_LEVEL};
use paths::PathNode;
use value::StoredText;

/// Bounds of one service's statistics from one source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Above this many bytes the statistics are made coarser: schemas first, paths last.
    pub bytes: usize,
    /// Siblings told apart under one parent that are words of the vocabulary of APIs.
    pub words: usize,
    /// Siblings told apart under one parent that are not.
    pub others: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 16 << 20, words: 256, others: 96 }
    }
}

/// Failures tell siblings apart only to find the operation they belong to.
const MISSES_SHIFT: u8 = 1;
const MAX_ORIGINS: usize = 16;

/// What one source knows of one service: statistics, never a value.
///
/// `combine` is exactly commutative and associative. It has no public `Deserialize`; stored
/// statistics come back through [`ServiceKnowledge::decode`].
#[derive(Clone, Debug)]
pub struct ServiceKnowledge {
    pub(crate) stats: ServiceStats,
    limits: Limits,
    /// About the bytes of memory; exact after `approximate_bytes`.
    estimate: usize,
    /// Where details are now that were moved. Known to this source only: what it does not know is
    /// counted apart again.
    aliases: Aliases,
}

/// What is known of an exchange that is not examined.
#[derive(Clone, Copy, Debug)]
pub struct PassedOver {
    /// Seconds since the Unix epoch.
    pub at: u64,
    pub is_complete: bool,
    pub bytes_lost: u64,
}

impl PartialEq for ServiceKnowledge {
    fn eq(&self, other: &Self) -> bool {
        self.stats == other.stats
    }
}

/// Aliases remembered at most.
const MAX_ALIASES: usize = 8192;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceStats {
    /// 0: all within `Limits` is told apart; each level above halves the kept siblings.
    pub level: u8,
    pub exchanges: u64,
    pub complete: u64,
    /// Of the exchanges, those that were only counted.
    pub passed_over: u64,
    pub bytes_lost: u64,
    pub preflights: u64,
    pub first_seen: Option<u64>,
    pub last_seen: Option<u64>,
    pub origins: Counts<StoredText>,
    pub personal: BTreeMap<Personal, u64>,
    /// Each level above 0 keeps less of schemas, the deepest parts first.
    pub detail_level: u8,
    /// Of successful exchanges.
    pub paths: PathNode,
    pub details: Details,
    /// Of the others: can never evict anything of `paths` and `details`.
    pub misses: PathNode,
    pub miss_details: Details,
}

impl Default for ServiceKnowledge {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl ServiceKnowledge {
    pub fn new(limits: Limits) -> Self {
        Self { stats: ServiceStats::default(), limits, estimate: 0, aliases: Aliases::new() }
    }

    pub(crate) fn from_stats(stats: ServiceStats, limits: Limits) -> Self {
        let mut own = Self { stats, limits, estimate: 0, aliases: Aliases::new() };
        own.stats.level = own.stats.level.min(MAX_LEVEL);
        own.stats.detail_level = own.stats.detail_level.min(detail::MAX_LEVEL);
        own.coarsen();
        own.estimate = own.approximate_bytes();
        own
    }

    fn bounds(&self, shift: u8) -> Bounds {
        let Limits { words, others, .. } = self.limits;
        let level = self.stats.level;
        Bounds { words: words >> shift, others: others >> shift, level, depth: u32::MAX }
    }

    fn detail_bounds(&self, shift: u8) -> Bounds {
        let Limits { words, others, .. } = self.limits;
        Details::bounds(words >> shift, others >> shift, self.stats.detail_level)
    }

    /// Counts one exchange that nobody had the time to examine.
    pub fn pass_over(&mut self, passed: PassedOver) {
        self.stats.passed_over += 1;
        self.count(passed.at, passed.is_complete, passed.bytes_lost);
    }

    fn count(&mut self, at: u64, is_complete: bool, bytes_lost: u64) {
        let stats = &mut self.stats;
        stats.exchanges += 1;
        stats.complete += u64::from(is_complete);
        stats.bytes_lost += bytes_lost;
        stats.first_seen = Some(stats.first_seen.map_or(at, |first| first.min(at)));
        stats.last_seen = stats.last_seen.max(Some(at));
    }

    /// Counts one observation. Costs as much as the observation is large.
    pub fn record(&mut self, observation: &Observation) {
        let (bounds, misses) = (self.bounds(0), self.bounds(MISSES_SHIFT));
        let (details, miss_details) = (self.detail_bounds(0), self.detail_bounds(MISSES_SHIFT));
        self.count(observation.at, observation.is_complete, observation.bytes_lost);
        let stats = &mut self.stats;
        let mut grown = 0;
        count_personal(observation, &mut stats.personal);
        if observation.is_preflight || matches!(observation.method, Method::Other | Method::Connect)
        {
            stats.preflights += 1;
            return;
        }
        let (outcome, key) = (Outcome::of(observation), detail::key(observation));
        let key = self.aliases.get(&key).copied().unwrap_or(key);
        if outcome == Outcome::Success {
            count_origin(observation, &mut stats.origins);
            stats.paths.add(observation, outcome, key, bounds, &mut grown);
            stats.details.add(key, observation, outcome, details, &mut grown);
        } else {
            stats.misses.add(observation, outcome, key, misses, &mut grown);
            stats.miss_details.add(key, observation, outcome, miss_details, &mut grown);
        }
        self.estimate += grown;
        if self.estimate > self.limits.bytes && self.stats.level < MAX_LEVEL {
            self.fit();
        }
    }

    /// Makes the statistics coarser until they are within their limit: siblings that are many and
    /// alike become one where paths take the most, then schemas lose what is deepest, and only
    /// then fewer siblings are told apart.
    fn fit(&mut self) {
        self.estimate = self.approximate_bytes();
        // Down to three quarters, so that this happens seldom.
        let goal = self.limits.bytes / 4 * 3;
        if self.estimate > goal {
            let bounds = self.detail_bounds(0);
            compact::compact(&mut self.stats, bounds, &mut self.aliases);
            if self.aliases.len() > MAX_ALIASES {
                self.aliases.clear();
            }
            self.estimate = self.approximate_bytes();
        }
        while self.estimate > goal && self.path_bytes() > goal / 2 {
            let bounds = self.bounds(0);
            if !fold::fold_alike(&mut self.stats.paths, bounds) {
                break;
            }
            self.estimate = self.approximate_bytes();
        }
        while self.estimate > goal {
            let has_details = self.estimate - self.path_bytes() > goal / 8;
            if self.stats.detail_level < detail::MAX_LEVEL && has_details {
                self.stats.detail_level += 1;
            } else if self.stats.level < MAX_LEVEL {
                self.stats.level += 1;
            } else {
                break;
            }
            self.coarsen();
            self.estimate = self.approximate_bytes();
        }
    }

    fn path_bytes(&self) -> usize {
        self.stats.paths.bytes() + self.stats.misses.bytes()
    }

    fn coarsen(&mut self) {
        let (bounds, misses) = (self.bounds(0), self.bounds(MISSES_SHIFT));
        self.stats.paths.coarsen(bounds);
        self.stats.misses.coarsen(misses);
        let (details, miss_details) = (self.detail_bounds(0), self.detail_bounds(MISSES_SHIFT));
        self.stats.details.coarsen(details);
        self.stats.miss_details.coarsen(miss_details);
    }

    /// Adds what another source (or time bucket) knows. Exactly commutative and associative, for
    /// equal limits: the coarser level of both holds for the whole, and nothing here makes it
    /// coarser still. Statistics made by `record` stay within `Limits::bytes`; those made of many
    /// by `combine` are as large as the union of what they know, until `shrink` is called.
    pub fn combine(&mut self, other: &Self) {
        let levels = (self.stats.level, self.stats.detail_level);
        self.stats.level = levels.0.max(other.stats.level);
        self.stats.detail_level = levels.1.max(other.stats.detail_level);
        if levels != (self.stats.level, self.stats.detail_level) {
            self.coarsen();
        }
        let (bounds, misses) = (self.bounds(0), self.bounds(MISSES_SHIFT));
        let (details, miss_details) = (self.detail_bounds(0), self.detail_bounds(MISSES_SHIFT));
        let (own, theirs) = (&mut self.stats, &other.stats);
        own.exchanges += theirs.exchanges;
        own.complete += theirs.complete;
        own.passed_over += theirs.passed_over;
        own.bytes_lost += theirs.bytes_lost;
        own.preflights += theirs.preflights;
        own.first_seen = match (own.first_seen, theirs.first_seen) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        own.last_seen = own.last_seen.max(theirs.last_seen);
        own.origins.combine(&theirs.origins);
        own.origins.truncate(MAX_ORIGINS);
        for (class, count) in &theirs.personal {
            *own.personal.entry(*class).or_default() += count;
        }
        own.paths.combine(&theirs.paths, bounds);
        own.misses.combine(&theirs.misses, misses);
        own.details.combine(&theirs.details, details);
        own.miss_details.combine(&theirs.miss_details, miss_details);
        self.estimate += other.estimate;
    }

    /// Makes a union coarser until it is within `Limits::bytes`. Where this was done depends on
    /// what was combined before: for unions that are only read.
    pub fn shrink(&mut self) {
        if self.estimate > self.limits.bytes {
            self.fit();
        }
    }

    /// Bytes of memory these statistics take, within about a quarter.
    pub fn approximate_bytes(&self) -> usize {
        size_of::<Self>()
            + self.path_bytes()
            + self.stats.details.bytes()
            + self.stats.miss_details.bytes()
    }

    /// Exchanges recorded.
    pub fn exchanges(&self) -> u64 {
        self.stats.exchanges
    }

    pub fn bytes_lost(&self) -> u64 {
        self.stats.bytes_lost
    }

    /// Seconds since the Unix epoch of the first and the last exchange.
    pub fn seen(&self) -> Option<(u64, u64)> {
        self.stats.first_seen.zip(self.stats.last_seen)
    }

    /// Samples of personal data and secrets by class; all of them were masked.
    pub fn personal(&self) -> &BTreeMap<Personal, u64> {
        &self.stats.personal
    }
}

fn count_origin(observation: &Observation, origins: &mut Counts<StoredText>) {
    if let Some(origin) = StoredText::of(&observation.origin) {
        origins.add(origin, 1);
        origins.truncate(MAX_ORIGINS);
    }
}

fn count_personal(observation: &Observation, counts: &mut BTreeMap<Personal, u64>) {
    let mut own = [0u32; Personal::ALL.len()];
    let mut count = |class: Option<Personal>| {
        if let Some(count) = class.and_then(|class| own.get_mut(class as usize)) {
            *count += 1;
        }
    };
    observation.path.iter().for_each(|s| count(s.token.personal.or(s.value.personal)));
    let response = observation.response.as_ref();
    let headers = response.map(|r| r.headers.as_slice()).unwrap_or_default();
    for fields in [&observation.query, &observation.headers, &observation.cookies] {
        fields.iter().for_each(|(n, v)| count(n.personal.or(v.personal)));
    }
    headers.iter().for_each(|(n, v)| count(n.personal.or(v.personal)));
    for body in [Some(&observation.request), response.map(|r| &r.body)].into_iter().flatten() {
        match &body.content {
            Content::Json(node) => count_node(node, &mut count),
            Content::JsonLines(nodes) => nodes.iter().for_each(|n| count_node(n, &mut count)),
            Content::Form { fields, .. } => {
                fields.iter().for_each(|(n, v)| count(n.personal.or(v.personal)));
            }
            Content::Multipart { parts, .. } => parts.iter().for_each(|p| {
                count(p.name.personal.or(p.value.as_ref().and_then(|v| v.personal)));
            }),
            _ => {}
        }
    }
    for (class, count) in Personal::ALL.into_iter().zip(own).filter(|(_, count)| *count > 0) {
        *counts.entry(class).or_default() += u64::from(count);
    }
}

fn count_node(node: &Node, count: &mut impl FnMut(Option<Personal>)) {
    match node {
        Node::Null | Node::Bool => {}
        Node::Number(n) => count(n.personal),
        Node::String(v) => count(v.personal),
        Node::Array { items, .. } => items.iter().for_each(|i| count_node(i, count)),
        Node::Object { members, .. } => members.iter().for_each(|(name, value)| {
            count(name.personal);
            count_node(value, count);
        }),
    }
}
