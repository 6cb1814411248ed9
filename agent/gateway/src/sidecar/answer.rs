//! Decisions as HTTP answers, in the four formats of `STOA_DECISION_FORMAT` and those that the
//! gateways themselves define.
//!
//! | format | allowed | denied |
//! |---|---|---|
//! | `StatusCode` | 200, empty | 401, 403 or 429, empty |
//! | `JsonBody` | 200, the whole decision | the same with that status |
//! | `EnvoyExtAuthz` | 200, fields `x-ext-authz-<name>` | status, `{"error", "policy"}` |
//! | `KongPlugin` | 200, `{"status": "ok", "headers", "remove_headers"}` | status, `{"status": "denied", "message"}` |
//!
//! Whatever the format, the identity and what the policies say to the client (`RateLimit`,
//! `Retry-After`, `WWW-Authenticate`) are header fields of the answer.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde::{Serialize, Serializer, ser::SerializeMap};
use stoa_policy::decision::{Decision, Denial, PolicyKind};

use super::identity_headers::{Fields, Names};
use crate::{config::sidecar::DecisionFormat, http::Answer};

/// RFC 6750 section 3, where no policy has said more.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer");
/// Of Envoy's HTTP flavour: fields of the client's request that do not go on.
const ENVOY_REMOVES: HeaderName = HeaderName::from_static("x-envoy-auth-headers-to-remove");
/// nginx passes 401 and 403 on and makes 500 of the rest; this is what it was.
const DECIDED_STATUS: HeaderName = HeaderName::from_static("x-stoa-decision-status");

/// A decision, and the request's name.
#[derive(Debug)]
pub struct Decided {
    pub decision: Decision,
    pub request_id: HeaderValue,
}

impl Decided {
    pub fn request_id(&self) -> &str {
        // Only printable ones are taken over (`RequestIds`).
        self.request_id.to_str().unwrap_or_default()
    }

    pub fn status(&self) -> StatusCode {
        self.decision.denial.as_ref().map_or(StatusCode::OK, |denial| denial.status)
    }

    /// What the policies want done that a decision alone cannot do: for the gateway that asks.
    pub fn obligations(&self) -> smallvec::SmallVec<[&'static str; 3]> {
        let obligations = &self.decision.obligations;
        [
            (obligations.mask_request, "mask_request"),
            (obligations.mask_response, "mask_response"),
            (obligations.validate_response, "validate_response"),
        ]
        .into_iter()
        .filter_map(|(is_due, name)| is_due.then_some(name))
        .collect()
    }
}

/// As STOA's decision documents name the policies.
pub fn policy_name(policy: PolicyKind) -> &'static str {
    match policy {
        PolicyKind::RateLimit => "consumer_rate_limit",
        PolicyKind::Scopes => "scope_enforcement",
        other => other.name(),
    }
}

/// `POST /authz`.
pub fn of_document(decided: &Decided, format: DecisionFormat, names: &Names) -> Answer {
    let set = names.to_set(decided);
    let mut answer = match format {
        DecisionFormat::StatusCode => empty(decided.status()),
        DecisionFormat::JsonBody => json(decided.status(), &Whole { decided, set: &set, names }),
        DecisionFormat::EnvoyExtAuthz => match &decided.decision.denial {
            None => empty(StatusCode::OK),
            Some(denial) => with_json(denial.status, denial_body(denial)),
        },
        DecisionFormat::KongPlugin => match &decided.decision.denial {
            None => json(StatusCode::OK, &KongAllowed { decided, set: &set, names }),
            Some(denial) => {
                json(denial.status, &KongDenied { status: "denied", message: &denial.reason })
            }
        },
    };
    let headers = answer.headers_mut();
    if decided.decision.is_allowed() {
        for (name, value) in &set {
            match format {
                DecisionFormat::EnvoyExtAuthz => {
                    if let Ok(name) = HeaderName::try_from(format!("x-ext-authz-{name}")) {
                        headers.append(name, value.clone());
                    }
                }
                _ => {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
    }
    say_to_client(decided, headers);
    answer
}

/// Envoy's HTTP flavour: any 200 allows, and what else comes is the client's answer.
pub fn of_envoy_http(decided: &Decided, names: &Names) -> Answer {
    let mut answer = of_forwarded(decided, names);
    if decided.decision.is_allowed() {
        let set = names.to_set(decided);
        let mut removed = String::new();
        for name in names.to_remove(decided, &set) {
            if !removed.is_empty() {
                removed.push(',');
            }
            removed.push_str(name.as_str());
        }
        if let Ok(value) = HeaderValue::try_from(removed) {
            answer.headers_mut().insert(ENVOY_REMOVES, value);
        }
    }
    answer
}

/// Traefik, Caddy and their kind: 2xx allows, and what else comes is the client's answer.
pub fn of_forwarded(decided: &Decided, names: &Names) -> Answer {
    let mut answer = match &decided.decision.denial {
        None => empty(StatusCode::OK),
        Some(denial) => with_json(denial.status, denial_body(denial)),
    };
    let headers = answer.headers_mut();
    if decided.decision.is_allowed() {
        for (name, value) in names.to_set(decided) {
            headers.append(name, value);
        }
    }
    say_to_client(decided, headers);
    answer
}

/// nginx: only 401 and 403 deny, everything else that is not 2xx is a failure of ours to it.
pub fn of_nginx(decided: &Decided, names: &Names) -> Answer {
    let mut answer = of_forwarded(decided, names);
    let status = answer.status();
    answer.headers_mut().insert(DECIDED_STATUS, HeaderValue::from(status.as_u16()));
    if !status.is_success() && status != StatusCode::UNAUTHORIZED {
        *answer.status_mut() = StatusCode::FORBIDDEN;
    }
    answer
}

/// The answer of the OPA Data API, as Kong's plugin reads it: always 200.
pub fn of_kong_opa(decided: &Decided, names: &Names) -> Answer {
    #[derive(Serialize)]
    struct Outer<'a> {
        result: Inner<'a>,
    }
    #[derive(Serialize)]
    struct Inner<'a> {
        allow: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        status: Option<u16>,
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        headers: FieldMap<'a>,
    }
    let decision = &decided.decision;
    let set = names.to_set(decided);
    let to_client: Fields = decision.response_headers.iter().cloned().collect();
    let result = match &decision.denial {
        // Kong gives these to the upstream; what is for the client it has no place for.
        None => Inner { allow: true, status: None, message: None, headers: FieldMap(&set) },
        Some(denial) => Inner {
            allow: false,
            status: Some(denial.status.as_u16()),
            message: Some(&denial.reason),
            headers: FieldMap(&to_client),
        },
    };
    json(StatusCode::OK, &Outer { result })
}

/// What a client of a denied request is told.
pub fn denial_body(denial: &Denial) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        error: &'a str,
        policy: &'a str,
    }
    let body = Body { error: &denial.reason, policy: policy_name(denial.policy) };
    serde_json::to_string(&body).unwrap_or_default()
}

/// The document of `JsonBody`.
struct Whole<'a> {
    decided: &'a Decided,
    set: &'a Fields,
    names: &'a Names,
}

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let decision = &self.decided.decision;
        let denial = decision.denial.as_ref();
        let nothing = Fields::new();
        let is_allowed = denial.is_none();
        let set = if is_allowed { self.set } else { &nothing };
        let removed: smallvec::SmallVec<[&str; 8]> = match is_allowed {
            true => self.names.to_remove(self.decided, set).map(HeaderName::as_str).collect(),
            false => smallvec::SmallVec::new(),
        };
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("allowed", &is_allowed)?;
        map.serialize_entry("status_code", &self.decided.status().as_u16())?;
        map.serialize_entry("headers_to_add", &FieldMap(set))?;
        map.serialize_entry("headers_to_remove", removed.as_slice())?;
        map.serialize_entry("denial_reason", &denial.map(|denial| &denial.reason))?;
        map.serialize_entry("denial_code", &denial.map(|denial| denial.code))?;
        map.serialize_entry("denied_by_policy", &denial.map(|denial| policy_name(denial.policy)))?;
        let obligations = self.decided.obligations();
        if !obligations.is_empty() {
            map.serialize_entry("obligations", obligations.as_slice())?;
        }
        map.serialize_entry("metadata", &Metadata(self.decided))?;
        map.end()
    }
}

struct Metadata<'a>(&'a Decided);

impl Serialize for Metadata<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct RateLimit {
            current: u64,
            limit: u64,
            /// Seconds since 1970.
            reset_at: u64,
            remaining: u64,
        }
        let decision = &self.0.decision;
        let ran: smallvec::SmallVec<[&str; 9]> =
            decision.ran.iter().map(|ran| policy_name(ran.policy)).collect();
        let took = u64::try_from(decision.took.as_micros()).unwrap_or(u64::MAX);
        let rate_limit = decision.rate_limit.map(|state| RateLimit {
            current: state.limit.saturating_sub(state.remaining),
            limit: state.limit,
            reset_at: now().saturating_add(state.reset_after),
            remaining: state.remaining,
        });
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("request_id", self.0.request_id())?;
        map.serialize_entry("policies_evaluated", ran.as_slice())?;
        map.serialize_entry("evaluation_time_us", &took)?;
        map.serialize_entry("rate_limit", &rate_limit)?;
        map.end()
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

struct KongAllowed<'a> {
    decided: &'a Decided,
    set: &'a Fields,
    names: &'a Names,
}

impl Serialize for KongAllowed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let removed = self.names.to_remove(self.decided, self.set).map(HeaderName::as_str);
        let removed: smallvec::SmallVec<[&str; 8]> = removed.collect();
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("status", "ok")?;
        map.serialize_entry("headers", &FieldMap(self.set))?;
        map.serialize_entry("remove_headers", removed.as_slice())?;
        map.end()
    }
}

#[derive(Serialize)]
struct KongDenied<'a> {
    status: &'a str,
    message: &'a str,
}

/// An object of names and values. A value that is not UTF-8 has no place in JSON and is left out.
struct FieldMap<'a>(&'a Fields);

impl Serialize for FieldMap<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (at, (name, value)) in self.0.iter().enumerate() {
            let later = self.0.get(at + 1..).unwrap_or_default();
            // A name can be a key once: the last wins, as when fields are set one after another.
            if later.iter().any(|(other, _)| other == name) {
                continue;
            }
            if let Ok(text) = std::str::from_utf8(value.as_bytes()) {
                map.serialize_entry(name.as_str(), text)?;
            }
        }
        map.end()
    }
}

/// Fields that the client is to see, whatever was decided.
fn say_to_client(decided: &Decided, headers: &mut HeaderMap) {
    for (name, value) in &decided.decision.response_headers {
        headers.append(name.clone(), value.clone());
    }
    // RFC 9110 section 15.5.2: a 401 has a challenge.
    if decided.status() == StatusCode::UNAUTHORIZED
        && !headers.contains_key(header::WWW_AUTHENTICATE)
    {
        headers.insert(header::WWW_AUTHENTICATE, CHALLENGE);
    }
}

fn empty(status: StatusCode) -> Answer {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

fn json(status: StatusCode, value: &impl Serialize) -> Answer {
    with_json(status, serde_json::to_vec(value).unwrap_or_default())
}

fn with_json(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let value = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

#[cfg(test)]
mod tests;
