//! The only door from a raw [`Exchange`] to an [`Observation`].
//!
//! A token (path segment, key, parameter name) becomes text when it is a word of the vocabulary of
//! APIs, or when it recurred in independent exchanges and nothing about it is personal: neither
//! what it looks like, nor where it stands, nor a person's name in it. Below a path with many
//! different strangers no stranger does; a segment with a value's shape does as long as it is the
//! only one of its place. Of values, only identifiers that recur under one field become text, those
//! without words of the vocabulary after more exchanges and where the field has few values, and
//! never under a field whose name speaks of ids, persons, places, credentials or prose. Everything else leaves as shape, format, class, length and a hash
//! under the installation's secret.
//!
//! Nothing here keeps raw bytes from one exchange to the next: recurrence and produced values are
//! counted by hash, in bounded memory.

mod admission;
mod alphabet;
mod body;
mod caller;
mod classify;
mod detect;
mod field_name;
mod format;
mod header;
pub mod inspect;
mod intern;
mod json;
mod keyed_hash;
mod layout;
mod memo;
mod person_field;
mod produced;
mod recurrence;
mod shape;
mod siblings;
mod target;
mod verb;
mod vocabulary;
mod vocabulary_words;

use std::collections::BTreeMap;

use stoa_wire::exchange::{Exchange, Incomplete, Request, Response};

use crate::observation::{BodyShape, Method, Observation, Personal, ResponseShape, Text};
use admission::{Admission, Role};
use json::Limits;
use layout::Layouts;
use produced::Produced;
use recurrence::Stamp;

/// Bounds and thresholds of redaction.
#[derive(Clone, Debug)]
pub struct RedactConfig {
    /// Independent exchanges in which a token must recur before it is kept as text: over two
    /// connections or with two request bodies. Three times as many where only targets or times
    /// differ; more for what looks like a value.
    pub recurrence_threshold: u32,
    /// Deeper values are passed over; at most 128.
    pub max_json_depth: u32,
    /// Members kept of one object.
    pub max_members: u32,
    /// Items kept of one array, and values of one JSON text sequence.
    pub max_items: u32,
    /// Tokens remembered in each of two generations, about 150 bytes each.
    pub max_tokens: u32,
    /// Values of possible enumerations remembered in each of two generations, about 80 bytes each.
    pub max_values: u32,
    /// Values that the service produced and that are remembered, about 4 bytes each.
    pub max_produced: u32,
}

impl Default for RedactConfig {
    fn default() -> Self {
        Self {
            recurrence_threshold: 3,
            max_json_depth: 32,
            max_members: 256,
            max_items: 16,
            max_tokens: 4096,
            max_values: 4096,
            max_produced: 32_768,
        }
    }
}

/// What redaction did so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Values masked, by class.
    pub masked: BTreeMap<Personal, u64>,
    /// Times that a token of no personal class was withheld for want of recurrence.
    pub tokens_withheld: u64,
    /// Bodies that were not what they were declared to be.
    pub bodies_malformed: u64,
}

/// Counters while they are counted: no map on the way of every value.
#[derive(Default)]
struct Tally {
    masked: [u64; 32],
    withheld: u64,
    malformed: u64,
}

impl Tally {
    fn mask(&mut self, class: Personal) {
        if let Some(count) = self.masked.get_mut(class as usize) {
            *count += 1;
        }
    }
}

/// Turns the exchanges of one service into observations. One per service: recurrence and produced
/// values of one service say nothing about another.
pub struct Redactor {
    admission: Admission,
    produced: Produced,
    tally: Tally,
    layouts: Layouts,
    limits: Limits,
    scratch: Vec<u8>,
}

impl Redactor {
    /// `secret` is the installation's: hashes are equal wherever it is.
    pub fn new(secret: [u8; 16], config: RedactConfig) -> Self {
        let size = |n: u32| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            admission: Admission::new(
                secret,
                config.recurrence_threshold,
                size(config.max_tokens),
                size(config.max_values),
            ),
            produced: Produced::new(size(config.max_produced)),
            tally: Tally::default(),
            layouts: Layouts::default(),
            limits: Limits {
                depth: config.max_json_depth.min(128),
                members: size(config.max_members),
                items: size(config.max_items),
            },
            scratch: Vec::with_capacity(256),
        }
    }

    /// `None` when no request head was seen.
    pub fn observe(&mut self, exchange: &Exchange) -> Option<Observation> {
        let request = exchange.request.as_ref()?;
        self.stamp(exchange, request);
        let method = method(request.method());
        let target = target::split(request.target(), method == Method::Connect);
        if target.has_userinfo {
            self.tally.mask(Personal::Password);
        }
        let Self { admission, produced, tally, scratch, .. } = self;
        let path = target::read_path(target.path, admission, produced, tally, scratch);
        let query = target::read_query(target.query, admission, produced, tally, scratch);
        let mut headers = header::read_request(&request.message, admission, tally);
        headers.credentials.extend(query.credentials);
        let origin = self.origin(request, &target);
        // Bodies are alike where method, names in the path and status are.
        let place = path.place ^ (method as u64) << 32;
        let request_body = self.body(&request.message, path.is_of_persons, place, false);
        let response =
            exchange.response.as_ref().map(|r| self.response(r, path.is_of_persons, place));
        Some(Observation {
            at: exchange.started / 1_000_000_000,
            latency_us: u32::try_from(exchange.ended.saturating_sub(exchange.started) / 1000)
                .unwrap_or(u32::MAX),
            method,
            path: path.segments,
            has_trailing_slash: path.has_trailing_slash,
            origin,
            query: query.parameters,
            headers: headers.kept,
            cookies: headers.cookies,
            credentials: headers.credentials,
            request: request_body,
            response,
            is_complete: exchange.is_complete(),
            is_request_head_whole: !exchange.incomplete.contains(&Incomplete::RequestHeadLost),
            bytes_lost: exchange.bytes_lost(),
            // The Fetch standard, section 3.3.2 (CORS-preflight request).
            is_preflight: method == Method::Options
                && request.message.header("origin").is_some()
                && request.message.header("access-control-request-method").is_some(),
        })
    }

    /// What was masked and withheld since the redactor was made.
    pub fn counters(&self) -> Counters {
        Counters {
            masked: Personal::ALL
                .iter()
                .map(|class| (*class, self.tally.masked.get(*class as usize).copied().unwrap_or(0)))
                .filter(|(_, count)| *count > 0)
                .collect(),
            tokens_withheld: self.tally.withheld,
            bodies_malformed: self.tally.malformed,
        }
    }

    fn stamp(&mut self, exchange: &Exchange, request: &Request) {
        let content: &[u8] = &request.message.body.content;
        // A prefix is enough: bodies that differ later count as the same, which errs towards less text.
        let body = match content.get(..256).unwrap_or(content) {
            [] => 0,
            prefix => self.admission.fingerprint(prefix) ^ request.message.body.length | 1,
        };
        self.admission.stamp = Stamp {
            exchange: self.admission.stamp.exchange.wrapping_add(1),
            flow: exchange.flow.0,
            body,
            target: self.admission.fingerprint(request.target()),
            at: u32::try_from(exchange.started / 1_000_000_000).unwrap_or(u32::MAX),
        };
        // What was not found may be anybody's guess, so its segments prove nothing.
        self.admission.is_found = exchange.response.as_ref().is_none_or(|r| r.status != 404);
    }

    fn body(
        &mut self,
        message: &stoa_wire::exchange::Message,
        in_person: bool,
        path: u64,
        is_produced: bool,
    ) -> BodyShape {
        body::read(
            message,
            &mut body::Reading {
                admission: &mut self.admission,
                tally: &mut self.tally,
                produced: is_produced.then_some(&mut self.produced),
                scratch: &mut self.scratch,
                layouts: &mut self.layouts,
                limits: self.limits,
                in_person,
                path,
            },
        )
    }

    fn response(&mut self, response: &Response, in_person: bool, place: u64) -> ResponseShape {
        let is_success = (200..300).contains(&response.status);
        let headers =
            header::read_response(&response.message, &mut self.admission, &mut self.tally);
        if let Some(location) = response.message.header("location") {
            self.remember_location(location);
        }
        let place = place ^ u64::from(response.status) << 40;
        let body = self.body(&response.message, in_person, place, is_success);
        ResponseShape { status: response.status, headers, body }
    }

    /// The segments of a `Location` are values that the service names things with.
    fn remember_location(&mut self, location: &[u8]) {
        let target = target::split(location, false);
        for segment in target.path.split(|b| *b == b'/').filter(|s| (1..=64).contains(&s.len())) {
            alphabet::decode_percent(segment, false, &mut self.scratch);
            let hash = self.admission.hash(&self.scratch);
            self.produced.insert(hash.0);
        }
    }

    /// `http://shop.example:8080`, once the host recurred. Addresses of other machines are
    /// personal; the loopback's are not.
    fn origin(&mut self, request: &Request, target: &target::Target<'_>) -> Option<Text> {
        let authority = match target.authority {
            Some(authority) => authority,
            None => request.message.header("host")?.trim_ascii(),
        };
        let authority = std::str::from_utf8(authority).ok()?;
        let is_host = !authority.is_empty()
            && authority.len() <= 255
            && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b));
        if !is_host {
            return None;
        }
        let scheme = target
            .scheme
            .or_else(|| request.message.header("x-forwarded-proto"))
            .filter(|scheme| scheme.eq_ignore_ascii_case(b"https"))
            .map_or("http", |_| "https");
        let host = authority.rsplit_once(':').map_or(authority, |(host, port)| {
            if port.bytes().all(|b| b.is_ascii_digit()) { host } else { authority }
        });
        // Looked at as it was sent: some secrets are told by their capitals.
        if !matches!(host, "localhost" | "127.0.0.1" | "[::1]") {
            let (token, _) = self.admission.token(Role::Host, host.as_bytes(), &mut self.tally);
            token.text.as_ref()?;
        }
        let mut origin = String::with_capacity(scheme.len() + 3 + authority.len());
        for part in [scheme, "://", authority] {
            origin.push_str(part);
        }
        origin.make_ascii_lowercase();
        Some(Text::admit(&origin))
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "TRACE" => Method::Trace,
        "CONNECT" => Method::Connect,
        _ => Method::Other,
    }
}

#[cfg(test)]
pub(crate) mod tests;
