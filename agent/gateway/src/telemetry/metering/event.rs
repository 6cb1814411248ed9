//! A metering event, and as consumers read it: the fields of STOA's `ToolCallEvent`. What is not
//! known here is left out: counts of tokens, tiers and costs are whoever's who knows prices.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderValue, StatusCode};
use serde::Serialize;
use stoa_policy::decision::{Identity, PolicyKind};

use super::node;
use crate::{
    telemetry::{kafka::Message, snapshots::timestamp},
    uuid::Uuid,
};

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered below 400, whoever answered; or let pass, where another gateway asked.
    Success,
    /// Anything else that went wrong, an answer that was cut off too.
    Error,
    /// A limit or a quota was used up.
    RateLimited,
    /// Another policy refused it.
    PolicyDenied,
    /// Nothing is there: no route, or the upstream answered 404.
    NotFound,
}

impl Outcome {
    /// `policy` is the one that refused, by name.
    pub fn of(status: StatusCode, policy: Option<&str>, is_whole: bool) -> Self {
        let is = |kind: PolicyKind| policy == Some(kind.name());
        match status.as_u16() {
            // Policies that could not do their work are no verdict of theirs.
            500.. => Self::Error,
            429 if is(PolicyKind::RateLimit) || is(PolicyKind::Quota) => Self::RateLimited,
            _ if policy.is_some() => Self::PolicyDenied,
            404 => Self::NotFound,
            400.. => Self::Error,
            _ if !is_whole => Self::Error,
            _ => Self::Success,
        }
    }
}

/// Made by a worker, written by Kafka's thread.
#[derive(Clone, Debug)]
pub struct Event {
    pub name: Uuid,
    pub at: SystemTime,
    pub tenant: Arc<str>,
    pub identity: Option<Arc<Identity>>,
    pub shows_email: bool,
    /// The route, or the workload of a steered connection.
    pub tool: Option<Arc<str>>,
    /// It is a call of the workload's own.
    pub is_outbound: bool,
    /// As policies are told it.
    pub action: &'static str,
    pub status: StatusCode,
    pub outcome: Outcome,
    pub latency: Duration,
    /// Until the request was handed on, or answered here.
    pub gateway: Duration,
    /// From then until the upstream's answer began.
    pub backend: Option<Duration>,
    pub request_bytes: Option<u64>,
    pub response_bytes: Option<u64>,
    pub request_id: Option<HeaderValue>,
}

#[derive(Serialize)]
pub(super) struct Document<'a> {
    event_id: String,
    timestamp: String,
    tenant_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_email: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    consumer_id: Option<&'a str>,
    tool_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    direction: Option<&'static str>,
    action: &'static str,
    latency_ms: u64,
    status: Outcome,
    response_status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_size_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_size_bytes: Option<u64>,
    t_gateway_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    t_backend_ms: Option<u64>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    scopes: &'a [Arc<str>],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    roles: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_id: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a str>,
}

impl Event {
    pub(super) fn document(&self) -> Document<'_> {
        let identity = self.identity.as_deref();
        let known = |text: &'_ Arc<str>| !text.is_empty();
        Document {
            event_id: self.name.to_string(),
            timestamp: timestamp(self.at),
            tenant_id: &self.tenant,
            user_id: identity.map(|who| &who.subject).filter(|id| known(id)).map(|id| &**id),
            user_email: identity.filter(|_| self.shows_email).and_then(|who| who.email.as_deref()),
            consumer_id: identity.and_then(|who| who.consumer.as_deref()),
            tool_name: self.tool.as_deref().unwrap_or_default(),
            direction: self.is_outbound.then_some("outbound"),
            action: self.action,
            latency_ms: milliseconds(self.latency),
            status: self.outcome,
            response_status: self.status.as_u16(),
            request_size_bytes: self.request_bytes,
            response_size_bytes: self.response_bytes,
            t_gateway_ms: milliseconds(self.gateway),
            t_backend_ms: self.backend.map(milliseconds),
            scopes: identity.map(|who| who.scopes.as_slice()).unwrap_or_default(),
            roles: identity.map(|who| who.roles.as_slice()).unwrap_or_default(),
            gateway_id: node(),
            request_id: self.request_id.as_ref().and_then(|id| id.to_str().ok()),
        }
    }
}

impl Message for Event {
    fn key(&self) -> &str {
        &self.tenant
    }

    fn timestamp(&self) -> i64 {
        unix_milliseconds(self.at)
    }

    fn write(&self, out: &mut Vec<u8>) {
        // Texts and numbers always are JSON.
        let _ = serde_json::to_writer(out, &self.document());
    }
}

pub(super) fn unix_milliseconds(at: SystemTime) -> i64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
pub(in crate::telemetry) mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{proxy::random::Random, telemetry::metering::Metering};

    pub(in crate::telemetry) fn event() -> Event {
        let identity = Identity {
            subject: "ann".into(),
            email: Some("ann@acme.example".into()),
            consumer: Some("shop".into()),
            scopes: vec!["stoa:read".into()],
            ..Identity::default()
        };
        Event {
            name: Uuid::from_random(0x0123_4567_89ab_4def, 0x8123_4567_89ab_cdef),
            at: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            tenant: "acme".into(),
            identity: Some(Arc::new(identity)),
            shows_email: false,
            tool: Some("orders".into()),
            is_outbound: false,
            action: "Create",
            status: StatusCode::CREATED,
            outcome: Outcome::Success,
            latency: Duration::from_micros(12_999),
            gateway: Duration::from_micros(900),
            backend: Some(Duration::from_millis(11)),
            request_bytes: Some(7),
            response_bytes: Some(0),
            request_id: Some(HeaderValue::from_static("r-1")),
        }
    }

    pub(in crate::telemetry) fn read(message: &impl Message) -> Value {
        let mut text = Vec::new();
        message.write(&mut text);
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn an_event_has_the_fields_of_the_specification() {
        let event = event();
        let mut read = read(&event);
        read.as_object_mut().unwrap().remove("gateway_id");
        assert_eq!(
            read,
            json!({
                "event_id": "01234567-89ab-4def-8123-456789abcdef",
                "timestamp": "2023-11-14T22:13:20.123Z", "tenant_id": "acme", "user_id": "ann",
                "consumer_id": "shop", "tool_name": "orders", "action": "Create",
                "latency_ms": 12, "status": "success", "response_status": 201,
                "request_size_bytes": 7, "response_size_bytes": 0, "t_gateway_ms": 0,
                "t_backend_ms": 11, "scopes": ["stoa:read"], "request_id": "r-1",
            })
        );
        assert_eq!((event.key(), event.timestamp()), ("acme", 1_700_000_000_123));
    }

    #[test]
    fn an_address_is_told_only_where_it_was_chosen() {
        let shown = read(&Event { shows_email: true, ..event() });
        assert_eq!(shown["user_email"], "ann@acme.example");
        assert!(!read(&event()).to_string().contains('@'));
    }

    #[test]
    fn a_workloads_own_call_is_told_apart() {
        let read = read(&Event { is_outbound: true, ..event() });
        assert_eq!(
            (&read["tool_name"], &read["direction"]),
            (&"orders".into(), &"outbound".into())
        );
    }

    #[test]
    fn of_nobody_and_nothing_no_more_is_said() {
        let event = Event {
            identity: None,
            tool: None,
            backend: None,
            request_bytes: None,
            response_bytes: None,
            request_id: None,
            ..event()
        };
        let read = read(&event);
        let names: Vec<_> = read.as_object().unwrap().keys().map(String::as_str).collect();
        for absent in ["user_id", "consumer_id", "scopes", "roles", "t_backend_ms", "request_id"] {
            assert!(!names.contains(&absent), "{absent}");
        }
        // A consumer's schema wants it, and policies are told the same.
        assert_eq!(read["tool_name"], "");
    }

    #[test]
    fn requests_end_as_their_status_and_policy_say() {
        for (status, policy, is_whole, outcome) in [
            (200, None, true, Outcome::Success),
            (304, None, true, Outcome::Success),
            (200, None, false, Outcome::Error),
            (429, Some("rate_limit"), true, Outcome::RateLimited),
            (429, Some("quota"), true, Outcome::RateLimited),
            (503, Some("rate_limit"), true, Outcome::Error),
            (429, None, true, Outcome::Error),
            (401, Some("identity"), true, Outcome::PolicyDenied),
            (403, Some("scopes"), false, Outcome::PolicyDenied),
            (404, Some("contract"), true, Outcome::PolicyDenied),
            (404, None, true, Outcome::NotFound),
            (400, None, true, Outcome::Error),
            (502, None, true, Outcome::Error),
            (503, Some("circuit_breaker"), true, Outcome::Error),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(Outcome::of(status, policy, is_whole), outcome, "{status} {policy:?}");
        }
    }

    #[test]
    fn names_are_uuids_that_do_not_repeat() {
        let (random, metering) = (Random::default(), Metering::new("acme", false, None));
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let name = metering.name(|| random.next()).to_string();
            let parts: Vec<&str> = name.split('-').collect();
            assert_eq!(parts.iter().map(|p| p.len()).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
            assert!(parts[2].starts_with('4') && "89ab".contains(&parts[3][..1]), "{name}");
            assert!(seen.insert(name));
        }
    }
}
