//! What is large, once for each template as far as it can be guessed from one path: values and
//! tokens that are no vocabulary word stand for each other, and exchanges part again by the
//! structure of their bodies. A place of the trie says which details are its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    body::BodyStats,
    counts::Counts,
    endpoint::{FieldSet, Outcome, status_of},
    features,
    kept::{Bounds, Kind},
    paths::MAX_SEGMENTS,
    token::{self, mix, spread},
};
use crate::observation::Observation;

/// Details of one service told apart, at level 0.
const MAX_DETAILS: usize = 4096;
/// At this level a detail is hardly more than its media types, and there are sixteen.
pub(crate) const MAX_LEVEL: u8 = 10;
/// Levels of schemas by level of detail; 1 above.
const DEPTHS: [u32; 8] = [64, 12, 8, 6, 4, 3, 2, 1];

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResponseStats {
    pub count: u64,
    pub headers: FieldSet,
    pub body: BodyStats,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Detail {
    /// Successful exchanges.
    pub success: u64,
    /// Exchanges by the number of bits of their microseconds.
    pub latency: Counts<u8>,
    /// Of successful exchanges only.
    pub headers: FieldSet,
    pub cookies: FieldSet,
    pub request: BodyStats,
    /// By status; 0 stands for an invalid one.
    pub responses: BTreeMap<u16, ResponseStats>,
}

impl Detail {
    pub fn add(
        &mut self,
        observation: &Observation,
        outcome: Outcome,
        bounds: Bounds,
        grown: &mut usize,
    ) {
        // Of a head that was cut, what is absent proves nothing.
        if outcome == Outcome::Success && observation.is_request_head_whole {
            self.success += 1;
            self.headers.add(&observation.headers, bounds, grown);
            self.cookies.add(&observation.cookies, bounds, grown);
            self.request.add(&observation.request, bounds, grown);
        }
        if let Some(response) = &observation.response {
            let bits = u32::BITS - observation.latency_us.leading_zeros();
            self.latency.add(bits as u8, 1);
            let status = status_of(response.status);
            let stats = self.responses.entry(status).or_insert_with(|| {
                *grown += size_of::<ResponseStats>() * 11;
                ResponseStats::default()
            });
            stats.count += 1;
            stats.headers.add(&response.headers, bounds, grown);
            stats.body.add(&response.body, bounds, grown);
        }
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.success += other.success;
        self.latency.combine(&other.latency);
        self.headers.fields.combine(&other.headers.fields, bounds);
        self.cookies.fields.combine(&other.cookies.fields, bounds);
        self.request.combine(&other.request, bounds);
        for (status, response) in &other.responses {
            let own = self.responses.entry(*status).or_default();
            own.count += response.count;
            own.headers.fields.combine(&response.headers.fields, bounds);
            own.body.combine(&response.body, bounds);
        }
    }

    fn coarsen(&mut self, bounds: Bounds) {
        for set in [&mut self.headers, &mut self.cookies] {
            set.fields.coarsen(bounds);
        }
        self.request.coarsen(bounds);
        for response in self.responses.values_mut() {
            response.headers.fields.coarsen(bounds);
            response.body.coarsen(bounds);
        }
    }

    fn bytes(&self) -> usize {
        // A tree allocates for eleven.
        let responses = if self.responses.is_empty() { 0 } else { 11 * size_of::<ResponseStats>() };
        let within: usize =
            self.responses.values().map(|r| r.headers.fields.bytes() + r.body.bytes()).sum();
        size_of::<Self>()
            + 16
            + self.latency.bytes()
            + self.headers.fields.bytes()
            + self.cookies.fields.bytes()
            + self.request.bytes()
            + responses
            + within
    }
}

/// The details of the least keys; what is not kept leaves its operation without a schema.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Details {
    kept: BTreeMap<u64, Box<Detail>>,
}

impl Details {
    pub fn bounds(words: usize, others: usize, level: u8) -> Bounds {
        let depth = DEPTHS.get(usize::from(level)).copied().unwrap_or(1);
        // What is wide is cut later than what is deep.
        Bounds { words, others, level: level.saturating_sub(2), depth }
    }

    fn limit(bounds: Bounds) -> usize {
        if bounds.words == usize::MAX { usize::MAX } else { MAX_DETAILS >> bounds.level.min(31) }
    }

    pub fn add(
        &mut self,
        key: u64,
        observation: &Observation,
        outcome: Outcome,
        bounds: Bounds,
        grown: &mut usize,
    ) {
        if !self.kept.contains_key(&key) {
            if self.kept.len() >= Self::limit(bounds)
                && self.kept.last_key_value().is_some_and(|(last, _)| *last < key)
            {
                return;
            }
            *grown += size_of::<Detail>() + 64;
        }
        self.kept.entry(key).or_default().add(observation, outcome, bounds, grown);
        self.trim(bounds);
    }

    fn trim(&mut self, bounds: Bounds) {
        while self.kept.len() > Self::limit(bounds) {
            self.kept.pop_last();
        }
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        for (key, detail) in &other.kept {
            match self.kept.get_mut(key) {
                Some(own) => own.combine(detail, bounds),
                None => {
                    let mut detail = detail.clone();
                    detail.coarsen(bounds);
                    self.kept.insert(*key, detail);
                }
            }
        }
        self.trim(bounds);
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        self.trim(bounds);
        self.kept.values_mut().for_each(|d| d.coarsen(bounds));
    }

    pub fn bytes(&self) -> usize {
        self.kept.values().map(|d| d.bytes()).sum()
    }

    pub fn get(&self, key: u64) -> Option<&Detail> {
        self.kept.get(&key).map(|d| &**d)
    }

    /// The details of a place, together.
    pub fn of(&self, keys: &Counts<u64>, bounds: Bounds) -> Detail {
        let mut union = Detail::default();
        for (key, _) in keys.iter() {
            if let Some(detail) = self.get(*key) {
                union.combine(detail, bounds);
            }
        }
        union
    }

    /// Moves all of one key to another.
    pub fn redirect(&mut self, from: u64, to: u64, bounds: Bounds) {
        if let Some(moved) = self.kept.remove(&from) {
            match self.kept.get_mut(&to) {
                Some(own) => own.combine(&moved, bounds),
                None => {
                    self.kept.insert(to, moved);
                }
            }
        }
    }
}

/// Where the details of an exchange are counted.
pub(crate) fn key(observation: &Observation) -> u64 {
    let mut key = spread(observation.method as u64 + 1);
    for segment in observation.path.iter().take(MAX_SEGMENTS) {
        let token = token::key(&segment.token, None);
        let step = if token.kind == Kind::Word { token.hash } else { 0x2a };
        key = spread(key.rotate_left(7) ^ step);
        if let Some(suffix) = &segment.suffix {
            key = mix(key, suffix.as_str());
        }
    }
    let answer = observation.response.as_ref();
    let answer = answer.map_or(0, |r| features::signature(&r.body.content));
    let is_bodiless = observation.request.length == 0;
    let asked = if is_bodiless { 0 } else { features::signature(&observation.request.content) };
    spread(key ^ answer << 32 ^ asked)
}
