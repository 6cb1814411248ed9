//! Statistics of one method at one place of the path trie: what may differ between siblings that
//! turn out to be values of one parameter is small here. What is large is shared in
//! [`super::detail`].

use serde::{Deserialize, Serialize};

use super::{
    counts::Counts,
    features,
    kept::{Bounds, Kept, Part},
    sketch::Sketch,
    token::{self, TokenStats},
    value::{StoredText, ValueStats},
};
use crate::observation::{Credential, Observation, Text, Token, Value};

/// Parameters of one place: query, headers or cookies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct FieldSet {
    pub fields: Kept<Field>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Field {
    pub name: TokenStats,
    /// Exchanges that had it.
    pub present: u64,
    /// Exchanges that had it more than once.
    pub repeated: u64,
    pub values: ValueStats,
}

impl Part for Field {
    fn combine(&mut self, other: &Self, _: Bounds) {
        self.name.combine(&other.name);
        self.present += other.present;
        self.repeated += other.repeated;
        self.values.combine(&other.values);
    }
    fn coarsen(&mut self, _: Bounds) {}
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.name.bytes() + self.values.bytes()
    }
}

impl FieldSet {
    pub fn add(&mut self, fields: &[(Token, Value)], bounds: Bounds, grown: &mut usize) {
        for (at, (name, value)) in fields.iter().enumerate() {
            let key = token::key(name, None);
            let field = self.fields.slot(key, bounds, grown);
            field.name.add(name);
            let before =
                fields.get(..at).unwrap_or_default().iter().filter(|(n, _)| n.hash == name.hash);
            match before.count() {
                0 => field.present += 1,
                1 => field.repeated += 1,
                _ => {}
            }
            field.values.add(value);
        }
    }
}

/// [`Credential`] at rest.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum StoredCredential {
    Bearer,
    Jwt,
    Basic,
    Digest,
    Scheme(StoredText),
    HeaderKey(StoredText),
    QueryKey(StoredText),
    CookieKey(StoredText),
    ClientCertificate,
}

impl From<&Credential> for StoredCredential {
    fn from(credential: &Credential) -> Self {
        let stored = |text: &Text| StoredText(text.clone());
        match credential {
            Credential::Bearer => Self::Bearer,
            Credential::Jwt => Self::Jwt,
            Credential::Basic => Self::Basic,
            Credential::Digest => Self::Digest,
            Credential::Scheme(name) => Self::Scheme(stored(name)),
            Credential::HeaderKey(name) => Self::HeaderKey(stored(name)),
            Credential::QueryKey(name) => Self::QueryKey(stored(name)),
            Credential::CookieKey(name) => Self::CookieKey(stored(name)),
            Credential::ClientCertificate => Self::ClientCertificate,
        }
    }
}

/// Schemes told apart per operation: names come from clients.
const MAX_CREDENTIALS: usize = 12;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CredentialStats {
    /// Successful exchanges that carried it.
    pub accepted: Counts<StoredCredential>,
    /// Successful exchanges that carried none.
    pub anonymous: u64,
    /// Answered 401 or 403 without any credential.
    pub refused_anonymous: u64,
    /// Answered 401 or 403 in spite of one.
    pub refused: Counts<StoredCredential>,
}

impl CredentialStats {
    fn add(&mut self, observation: &Observation, outcome: Outcome) {
        let mut credentials: Vec<StoredCredential> =
            observation.credentials.iter().map(StoredCredential::from).collect();
        credentials.sort();
        credentials.dedup();
        if credentials.is_empty() && !observation.is_request_head_whole {
            return;
        }
        let counts = match outcome {
            Outcome::Success if credentials.is_empty() => {
                self.anonymous += 1;
                return;
            }
            Outcome::Refused if credentials.is_empty() => {
                self.refused_anonymous += 1;
                return;
            }
            Outcome::Success => &mut self.accepted,
            Outcome::Refused => &mut self.refused,
            Outcome::Failure => return,
        };
        for credential in credentials {
            counts.add(credential, 1);
        }
        self.trim();
    }

    fn combine(&mut self, other: &Self) {
        self.accepted.combine(&other.accepted);
        self.refused.combine(&other.refused);
        self.anonymous += other.anonymous;
        self.refused_anonymous += other.refused_anonymous;
        self.trim();
    }

    fn trim(&mut self) {
        for counts in [&mut self.accepted, &mut self.refused] {
            counts.truncate(MAX_CREDENTIALS);
        }
    }
}

/// What an exchange says of the operation it called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// 1xx, 2xx or 3xx: it exists, and the request was well formed.
    Success,
    /// 401 or 403.
    Refused,
    /// Anything else, or no response.
    Failure,
}

impl Outcome {
    pub fn of(observation: &Observation) -> Self {
        match observation.response.as_ref().map(|r| r.status) {
            Some(100..=399) => Self::Success,
            Some(401 | 403) => Self::Refused,
            _ => Self::Failure,
        }
    }
}

/// Of the answers that show structure, the key paths kept of one method at one place.
const MAX_ANSWERED: usize = 32;
const MAX_ASKED: usize = 20;
const MAX_MEDIA: usize = 4;
/// Shared details of one place; those of the least keys are kept.
const MAX_DETAILS: usize = 32;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MethodStats {
    pub count: u64,
    pub success: u64,
    pub complete: u64,
    pub bytes_lost: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    pub trailing_slash: u64,
    pub unanswered: u64,
    /// Of successful exchanges only: what a scanner sends is no parameter.
    pub query: FieldSet,
    pub credentials: CredentialStats,
    /// By status; 0 stands for an invalid one.
    pub statuses: Counts<u16>,
    /// Answers of the 2xx kind, and those of them that were JSON.
    pub answers: u64,
    pub json_answers: u64,
    /// Those of the JSON answers that had a key.
    pub keyed_answers: u64,
    /// Successful exchanges whose request was JSON or a form, and had a key.
    pub keyed_requests: u64,
    /// Those of the two that were seen whole, so that an absent key was not sent.
    pub telling_answers: u64,
    pub telling_requests: u64,
    /// Key paths of JSON answers of the 2xx kind, and of requests (see [`features`]).
    pub answered: Sketch<MAX_ANSWERED>,
    pub asked: Sketch<MAX_ASKED>,
    /// Media types of answers of the 2xx kind, hashed.
    pub media: Sketch<MAX_MEDIA>,
    /// Where the details of these exchanges are counted.
    pub details: Counts<u64>,
}

impl Default for MethodStats {
    fn default() -> Self {
        Self {
            count: 0,
            success: 0,
            complete: 0,
            bytes_lost: 0,
            first_seen: u64::MAX,
            last_seen: 0,
            trailing_slash: 0,
            unanswered: 0,
            query: FieldSet::default(),
            credentials: CredentialStats::default(),
            statuses: Counts::default(),
            answers: 0,
            json_answers: 0,
            keyed_answers: 0,
            keyed_requests: 0,
            telling_answers: 0,
            telling_requests: 0,
            answered: Sketch::default(),
            asked: Sketch::default(),
            media: Sketch::default(),
            details: Counts::default(),
        }
    }
}

impl MethodStats {
    pub fn add(
        &mut self,
        observation: &Observation,
        outcome: Outcome,
        detail: u64,
        bounds: Bounds,
        grown: &mut usize,
    ) {
        let is_success = outcome == Outcome::Success;
        self.count += 1;
        self.success += u64::from(is_success);
        self.complete += u64::from(observation.is_complete);
        self.bytes_lost += observation.bytes_lost;
        self.first_seen = self.first_seen.min(observation.at);
        self.last_seen = self.last_seen.max(observation.at);
        self.trailing_slash += u64::from(observation.has_trailing_slash);
        self.credentials.add(observation, outcome);
        self.details.add(detail, 1);
        self.details.truncate(MAX_DETAILS);
        if is_success {
            self.query.add(&observation.query, bounds, grown);
            let content = &observation.request.content;
            let asked = &mut self.asked;
            let has_keys =
                features::collect(content, &mut |f| asked.add(f, 1)).is_some_and(|k| k > 0);
            self.keyed_requests += u64::from(has_keys);
            self.telling_requests += u64::from(has_keys && features::is_telling(content));
        }
        let Some(response) = &observation.response else {
            self.unanswered += 1;
            return;
        };
        self.statuses.add(status_of(response.status), 1);
        if (200..300).contains(&response.status) {
            self.answers += 1;
            let (content, answered) = (&response.body.content, &mut self.answered);
            let keys = features::collect(content, &mut |f| answered.add(f, 1));
            let has_keys = keys.is_some_and(|k| k > 0);
            self.json_answers += u64::from(keys.is_some());
            self.keyed_answers += u64::from(has_keys);
            self.telling_answers += u64::from(has_keys && features::is_telling(content));
            self.media.add(features::media(response.body.media_type.as_ref()), 1);
        }
    }

    pub fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.count += other.count;
        self.success += other.success;
        self.complete += other.complete;
        self.bytes_lost += other.bytes_lost;
        self.first_seen = self.first_seen.min(other.first_seen);
        self.last_seen = self.last_seen.max(other.last_seen);
        self.trailing_slash += other.trailing_slash;
        self.unanswered += other.unanswered;
        self.query.fields.combine(&other.query.fields, bounds);
        self.credentials.combine(&other.credentials);
        self.statuses.combine(&other.statuses);
        self.answers += other.answers;
        self.json_answers += other.json_answers;
        self.keyed_answers += other.keyed_answers;
        self.keyed_requests += other.keyed_requests;
        self.telling_answers += other.telling_answers;
        self.telling_requests += other.telling_requests;
        self.answered.combine(&other.answered);
        self.asked.combine(&other.asked);
        self.media.combine(&other.media);
        self.details.combine(&other.details);
        if bounds.words != usize::MAX {
            self.details.truncate(MAX_DETAILS);
        }
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        self.query.fields.coarsen(bounds);
        self.answered.repair();
        self.asked.repair();
        self.media.repair();
        self.details.truncate(MAX_DETAILS);
    }

    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self.query.fields.bytes()
            + self.credentials.accepted.bytes()
            + self.credentials.refused.bytes()
            + self.statuses.bytes()
            + self.answered.bytes()
            + self.asked.bytes()
            + self.media.bytes()
            + self.details.bytes()
    }
}

/// As it is counted: 0 stands for an invalid one.
pub(crate) fn status_of(status: u16) -> u16 {
    if (100..=599).contains(&status) { status } else { 0 }
}
