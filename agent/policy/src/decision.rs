//! What the engine answers.

use std::{borrow::Cow, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use smallvec::SmallVec;

use crate::contract::OperationId;

/// The policies, in the order in which they run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyKind {
    Identity,
    Tenant,
    RateLimit,
    Quota,
    Scopes,
    Rego,
    Guardrails,
    Contract,
    CircuitBreaker,
}

impl PolicyKind {
    pub const ALL: [Self; 9] = [
        Self::Identity,
        Self::Tenant,
        Self::RateLimit,
        Self::Quota,
        Self::Scopes,
        Self::Rego,
        Self::Guardrails,
        Self::Contract,
        Self::CircuitBreaker,
    ];

    /// As metrics, logs and `/authz` name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Tenant => "tenant",
            Self::RateLimit => "rate_limit",
            Self::Quota => "quota",
            Self::Scopes => "scopes",
            Self::Rego => "rego",
            Self::Guardrails => "guardrails",
            Self::Contract => "contract",
            Self::CircuitBreaker => "circuit_breaker",
        }
    }
}

/// What one policy says. Both are common: neither is an error of ours.
pub type Verdict = Result<(), Denial>;

/// Allow or deny, what to do with the request, and how that came about.
#[derive(Clone, Debug, Default)]
pub struct Decision {
    /// `None`: allowed.
    pub denial: Option<Denial>,
    /// For the request that goes on to the upstream. Removed first, then set.
    pub headers_to_remove: SmallVec<[HeaderName; 4]>,
    pub headers_to_set: SmallVec<[(HeaderName, HeaderValue); 6]>,
    /// For the response to the client, allowed or denied (`RateLimit`, `Retry-After`).
    pub response_headers: SmallVec<[(HeaderName, HeaderValue); 4]>,
    /// Credentials that came in the query and do not go on to the upstream, by parameter.
    pub query_to_remove: SmallVec<[Arc<str>; 1]>,
    pub obligations: Obligations,
    /// The body that goes on in place of the one that was read, with personal data masked. Its
    /// length differs; digests and signatures of the other no longer hold.
    pub masked_body: Option<Vec<u8>>,
    /// What a policy saw and let pass, for logs and metrics.
    pub notes: SmallVec<[Note; 1]>,
    pub identity: Option<Arc<Identity>>,
    pub tenant: Option<Arc<str>>,
    /// What the contract calls the request; for `Engine::check_response`.
    pub operation: Option<OperationId>,
    pub rate_limit: Option<RateLimitState>,
    /// Which policies ran, in order, and how long each took.
    pub ran: SmallVec<[Ran; 9]>,
    pub took: Duration,
}

impl Decision {
    pub fn is_allowed(&self) -> bool {
        self.denial.is_none()
    }

    pub(crate) fn note(&mut self, policy: PolicyKind, code: &'static str) {
        self.notes.push(Note { policy, code, detail: String::new() });
    }
}

/// What becomes of a response.
#[derive(Clone, Debug, Default)]
pub struct ResponseDecision {
    /// `None`: it goes on. Otherwise this is answered in its place.
    pub denial: Option<Denial>,
    /// The body that goes on in place of the one that was read.
    pub masked_body: Option<Vec<u8>>,
    pub notes: SmallVec<[Note; 1]>,
}

/// Something that would have been refused, or was mended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub policy: PolicyKind,
    /// For programs, as a denial's.
    pub code: &'static str,
    /// For people; empty where the code says it all.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ran {
    pub policy: PolicyKind,
    pub took: Duration,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    pub policy: PolicyKind,
    pub status: StatusCode,
    /// For programs: `token_expired`, `quota_exceeded`.
    pub code: &'static str,
    /// For the client. Never repeats a secret or another client's data.
    pub reason: Cow<'static, str>,
}

/// What the door that asked must still do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Obligations {
    /// Send `Decision::masked_body` in place of the request's.
    pub mask_request: bool,
    /// Ask `Engine::check_response`, which masks personal data.
    pub mask_response: bool,
    /// Ask `Engine::check_response`, which compares with the approved contract.
    pub validate_response: bool,
    /// Stop a request whose body turns out longer, with 413.
    pub request_body_limit: Option<u64>,
}

/// Who is asking, as far as a policy has verified it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Identity {
    /// `sub` of a token, owner of an API key, subject of a certificate.
    pub subject: Arc<str>,
    pub email: Option<Arc<str>>,
    /// The application: `azp` or `client_id` of a token, name of an API key.
    pub consumer: Option<Arc<str>>,
    pub tenant: Option<Arc<str>>,
    pub scopes: Vec<Arc<str>>,
    pub roles: Vec<Arc<str>>,
    /// The plan whose limits apply, if the identity says.
    pub plan: Option<Arc<str>>,
    pub method: AuthenticationMethod,
    /// All claims of a token, for Rego. Empty object for other methods.
    pub claims: Arc<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthenticationMethod {
    #[default]
    Anonymous,
    Jwt,
    ApiKey,
    Mtls,
    /// A header of a listed source, or the `user` of `/authz`.
    Trusted,
}

/// The tightest limit that applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimitState {
    pub limit: u64,
    pub remaining: u64,
    /// Seconds until the window is fresh again.
    pub reset_after: u64,
}
