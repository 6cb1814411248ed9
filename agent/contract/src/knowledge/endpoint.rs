//! Statistics of one method at one place of the path trie.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    kept::{Bounds, Kept, Part},
    schema::{ObjectStats, SchemaStats, grow},
    token::{self, TokenStats},
    value::{StoredText, ValueStats, add_counts},
};
use crate::observation::{BodyShape, Content, Credential, Observation, Text, Token, Value};

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
        self.name.bytes() + self.values.bytes() + 16
    }
}

impl FieldSet {
    fn add(&mut self, fields: &[(Token, Value)], bounds: Bounds, grown: &mut usize) {
        for (at, (name, value)) in fields.iter().enumerate() {
            let key = token::key(name, None);
            let field = self.fields.slot(key, bounds, Field::default, grown);
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

/// Which of the ways of structure a body of one media type takes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MediaStats {
    pub count: u64,
    pub truncated: u64,
    /// Bodies that were JSON, JSON lines, forms, multipart; the rest has no structure.
    pub json: u64,
    pub json_lines: u64,
    pub form: u64,
    pub multipart: u64,
    pub binary: u64,
    pub malformed: u64,
    pub schema: SchemaStats,
    /// Fields of forms and multipart that carry files.
    pub files: BTreeMap<u64, u64>,
}

/// Media types that are told apart, per body.
const MAX_MEDIA: usize = 8;
/// File fields that are told apart, per body.
const MAX_FILES: usize = 32;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct BodyStats {
    pub count: u64,
    pub empty: u64,
    /// By media type; bodies that declared none are under `None`. The least names are kept.
    pub media: BTreeMap<Option<StoredText>, MediaStats>,
}

impl BodyStats {
    fn add(&mut self, body: &BodyShape, bounds: Bounds, grown: &mut usize) {
        self.count += 1;
        if matches!(body.content, Content::Empty) && body.length == 0 {
            self.empty += 1;
            return;
        }
        let media_type = StoredText::of(&body.media_type);
        let media = self.media.entry(media_type).or_insert_with(grow(grown));
        media.add(body, bounds, grown);
        self.trim();
    }

    fn trim(&mut self) {
        while self.media.len() > MAX_MEDIA {
            self.media.pop_last();
        }
    }

    fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.count += other.count;
        self.empty += other.empty;
        for (name, media) in &other.media {
            self.media.entry(name.clone()).or_default().combine(media, bounds);
        }
        self.trim();
    }

    fn coarsen(&mut self, bounds: Bounds) {
        self.media.values_mut().for_each(|m| m.schema.coarsen(bounds));
    }

    fn bytes(&self) -> usize {
        self.media
            .values()
            .map(|m| size_of::<MediaStats>() + 64 + m.schema.bytes() + m.files.len() * 32)
            .sum()
    }
}

impl MediaStats {
    fn add(&mut self, body: &BodyShape, bounds: Bounds, grown: &mut usize) {
        self.count += 1;
        self.truncated += u64::from(!body.is_whole);
        match &body.content {
            Content::Json(node) => {
                self.json += 1;
                self.schema.add(node, bounds, grown);
            }
            Content::JsonLines(nodes) => {
                self.json_lines += 1;
                nodes.iter().for_each(|n| self.schema.add(n, bounds, grown));
            }
            Content::Form { fields, is_whole } => {
                self.form += 1;
                let object = self.form_object(*is_whole, grown);
                for (at, (name, value)) in fields.iter().enumerate() {
                    let is_first = !fields
                        .get(..at)
                        .unwrap_or_default()
                        .iter()
                        .any(|(n, _)| n.hash == name.hash);
                    object.add_member(name, *is_whole && is_first, bounds, grown, |s, g| {
                        s.add_string(value, g);
                    });
                }
            }
            Content::Multipart { parts, is_whole } => {
                self.multipart += 1;
                for part in parts.iter().filter(|p| p.is_file) {
                    *self.files.entry(token::key(&part.name, None).hash).or_default() += 1;
                }
                while self.files.len() > MAX_FILES {
                    self.files.pop_last();
                }
                let object = self.form_object(*is_whole, grown);
                for (at, part) in parts.iter().enumerate() {
                    let is_first = !parts
                        .get(..at)
                        .unwrap_or_default()
                        .iter()
                        .any(|p| p.name.hash == part.name.hash);
                    let is_closed = *is_whole && is_first;
                    object.add_member(&part.name, is_closed, bounds, grown, |s, g| {
                        match &part.value {
                            Some(value) => s.add_string(value, g),
                            None => s.count += 1,
                        }
                    });
                }
            }
            Content::Binary => self.binary += 1,
            Content::Malformed => self.malformed += 1,
            Content::Empty | Content::Xml | Content::Text | Content::EventStream => {}
        }
    }

    fn form_object(&mut self, is_whole: bool, grown: &mut usize) -> &mut ObjectStats {
        self.schema.count += 1;
        let object = self.schema.objects.get_or_insert_with(grow(grown));
        object.count += 1;
        object.closed += u64::from(is_whole);
        object
    }

    fn combine(&mut self, other: &Self, bounds: Bounds) {
        self.count += other.count;
        self.truncated += other.truncated;
        self.json += other.json;
        self.json_lines += other.json_lines;
        self.form += other.form;
        self.multipart += other.multipart;
        self.binary += other.binary;
        self.malformed += other.malformed;
        self.schema.combine(&other.schema, bounds);
        add_counts(&mut self.files, &other.files);
        while self.files.len() > MAX_FILES {
            self.files.pop_last();
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ResponseStats {
    pub count: u64,
    pub headers: FieldSet,
    pub body: BodyStats,
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
    pub accepted: BTreeMap<StoredCredential, u64>,
    /// Successful exchanges that carried none.
    pub anonymous: u64,
    /// Answered 401 or 403 without any credential.
    pub refused_anonymous: u64,
    /// Answered 401 or 403 in spite of one.
    pub refused: BTreeMap<StoredCredential, u64>,
}

impl CredentialStats {
    fn add(&mut self, observation: &Observation, outcome: Outcome) {
        let mut credentials: Vec<StoredCredential> =
            observation.credentials.iter().map(StoredCredential::from).collect();
        credentials.sort();
        credentials.dedup();
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
            *counts.entry(credential).or_default() += 1;
        }
        self.trim();
    }

    fn combine(&mut self, other: &Self) {
        add_counts(&mut self.accepted, &other.accepted);
        add_counts(&mut self.refused, &other.refused);
        self.anonymous += other.anonymous;
        self.refused_anonymous += other.refused_anonymous;
        self.trim();
    }

    fn trim(&mut self) {
        for counts in [&mut self.accepted, &mut self.refused] {
            while counts.len() > MAX_CREDENTIALS {
                counts.pop_last();
            }
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

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MethodStats {
    pub count: u64,
    pub success: u64,
    pub complete: u64,
    pub bytes_lost: u64,
    pub first_seen: u64,
    pub last_seen: u64,
    pub trailing_slash: u64,
    /// Exchanges by the number of bits of their microseconds.
    pub latency: BTreeMap<u8, u64>,
    /// Of successful exchanges only: what a scanner sends is no parameter.
    pub query: FieldSet,
    pub headers: FieldSet,
    pub cookies: FieldSet,
    pub credentials: CredentialStats,
    /// Of successful exchanges only.
    pub request: BodyStats,
    /// By status; 0 stands for an invalid one.
    pub responses: BTreeMap<u16, ResponseStats>,
    pub unanswered: u64,
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
            latency: BTreeMap::new(),
            query: FieldSet::default(),
            headers: FieldSet::default(),
            cookies: FieldSet::default(),
            credentials: CredentialStats::default(),
            request: BodyStats::default(),
            responses: BTreeMap::new(),
            unanswered: 0,
        }
    }
}

impl MethodStats {
    pub fn add(&mut self, observation: &Observation, bounds: Bounds, grown: &mut usize) {
        let outcome = Outcome::of(observation);
        let is_success = outcome == Outcome::Success;
        self.count += 1;
        self.success += u64::from(is_success);
        self.complete += u64::from(observation.is_complete);
        self.bytes_lost += observation.bytes_lost;
        self.first_seen = self.first_seen.min(observation.at);
        self.last_seen = self.last_seen.max(observation.at);
        self.trailing_slash += u64::from(observation.has_trailing_slash);
        self.credentials.add(observation, outcome);
        if is_success {
            self.query.add(&observation.query, bounds, grown);
            self.headers.add(&observation.headers, bounds, grown);
            self.cookies.add(&observation.cookies, bounds, grown);
            self.request.add(&observation.request, bounds, grown);
        }
        match &observation.response {
            Some(response) => {
                let bits = u32::BITS - observation.latency_us.leading_zeros();
                *self.latency.entry(bits as u8).or_default() += 1;
                let status =
                    if (100..=599).contains(&response.status) { response.status } else { 0 };
                let stats = self.responses.entry(status).or_insert_with(grow(grown));
                stats.count += 1;
                stats.headers.add(&response.headers, bounds, grown);
                stats.body.add(&response.body, bounds, grown);
            }
            None => self.unanswered += 1,
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
        add_counts(&mut self.latency, &other.latency);
        self.query.fields.combine(&other.query.fields, bounds);
        self.headers.fields.combine(&other.headers.fields, bounds);
        self.cookies.fields.combine(&other.cookies.fields, bounds);
        self.credentials.combine(&other.credentials);
        self.request.combine(&other.request, bounds);
        for (status, response) in &other.responses {
            let own = self.responses.entry(*status).or_default();
            own.count += response.count;
            own.headers.fields.combine(&response.headers.fields, bounds);
            own.body.combine(&response.body, bounds);
        }
        self.unanswered += other.unanswered;
    }

    pub fn coarsen(&mut self, bounds: Bounds) {
        for set in [&mut self.query, &mut self.headers, &mut self.cookies] {
            set.fields.coarsen(bounds);
        }
        self.request.coarsen(bounds);
        for response in self.responses.values_mut() {
            response.headers.fields.coarsen(bounds);
            response.body.coarsen(bounds);
        }
    }

    pub fn bytes(&self) -> usize {
        let fields =
            self.query.fields.bytes() + self.headers.fields.bytes() + self.cookies.fields.bytes();
        let credentials = (self.credentials.accepted.len() + self.credentials.refused.len()) * 64;
        let responses: usize = self
            .responses
            .values()
            .map(|r| size_of::<ResponseStats>() + r.headers.fields.bytes() + r.body.bytes())
            .sum();
        size_of::<Self>()
            + fields
            + credentials
            + self.request.bytes()
            + responses
            + self.latency.len() * 16
    }
}
