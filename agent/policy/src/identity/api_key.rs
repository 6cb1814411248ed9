//! API keys: long random texts that we know by their hash only.

use std::{collections::HashMap, fmt, sync::Arc};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};
use serde::{Deserialize, Deserializer, de};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{
    Rejection,
    credential::{Carrier, read_query},
    forward::{Forward, Known},
};
use crate::{
    clock::Now,
    context::RequestContext,
    decision::{AuthenticationMethod, Decision, Identity},
    error::Refusal,
};

/// Keys are stored as the SHA-256 of their text: that is enough for texts nobody can guess, such
/// as 32 random bytes, and too little for words that people choose.
///
/// ```yaml
/// api_key:
///   header: X-API-Key
///   query: api_key
///   keys:
///     - name: nightly-batch
///       sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
///       owner: billing
///       tenant: acme
///       scopes: [orders:read]
///       plan: gold
///       expires: 2027-01-01T00:00:00Z
/// ```
///
/// `printf %s "$KEY" | sha256sum` prints the hash of a key.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ApiKeyConfig {
    #[serde(default = "default_header")]
    pub header: String,
    /// The word before the key in the header; empty: none.
    #[serde(default)]
    pub scheme: String,
    /// A parameter of the query that may bring the key too. Queries end up in logs: a header is
    /// better.
    #[serde(default)]
    pub query: Option<String>,
    /// Leave the key on the request that goes to the upstream.
    #[serde(default)]
    pub forward: bool,
    pub keys: Vec<KeyConfig>,
}

fn default_header() -> String {
    "X-API-Key".to_owned()
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// The application that uses the key: the consumer, in limits and logs.
    pub name: Arc<str>,
    pub sha256: Sha256,
    /// Who answers for it: the identity's subject. The name if nobody is named.
    #[serde(default)]
    pub owner: Option<Arc<str>>,
    #[serde(default)]
    pub email: Option<Arc<str>>,
    #[serde(default)]
    pub tenant: Option<Arc<str>>,
    #[serde(default)]
    pub scopes: Vec<Arc<str>>,
    #[serde(default)]
    pub roles: Vec<Arc<str>>,
    #[serde(default)]
    pub plan: Option<Arc<str>>,
    /// RFC 3339. From then on the key is refused.
    #[serde(default)]
    pub expires: Option<Expiry>,
}

/// 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Sha256([u8; 32]);

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[hash]")
    }
}

impl<'de> Deserialize<'de> for Sha256 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        // The text is not shown: a key may have been pasted in place of its hash.
        super::decode_hex(&text).map(Self).ok_or_else(|| {
            de::Error::custom("a SHA-256 has 64 hexadecimal digits; sha256sum prints it")
        })
    }
}

/// An RFC 3339 time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry(Now);

impl<'de> Deserialize<'de> for Expiry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(|_| {
            de::Error::custom(format!("`{text}` is not a time such as 2027-01-01T00:00:00Z"))
        })?;
        let seconds = u64::try_from(time.unix_timestamp()).unwrap_or(0);
        Ok(Self(Now(seconds.saturating_mul(1000))))
    }
}

#[derive(Debug)]
pub struct ApiKeys {
    carrier: Carrier,
    query: Option<Arc<str>>,
    forward: bool,
    /// By the first eight bytes of the hash; the rest is compared in constant time.
    keys: HashMap<[u8; 8], Vec<Entry>>,
}

#[derive(Debug)]
struct Entry {
    hash: Sha256,
    until: Option<Now>,
    known: Arc<Known>,
}

/// Nobody's key is longer, and hashing is work.
const LONGEST_KEY: usize = 1024;

impl ApiKeys {
    pub(super) fn build(config: &ApiKeyConfig, forward: &Forward) -> Result<Self, Refusal> {
        if config.keys.is_empty() {
            return Err(Refusal::new("keys", "is empty", "list a key, or remove the method"));
        }
        let mut keys: HashMap<[u8; 8], Vec<Entry>> = HashMap::new();
        for (i, key) in config.keys.iter().enumerate() {
            let start: [u8; 8] =
                std::array::from_fn(|at| key.sha256.0.get(at).copied().unwrap_or(0));
            let entries = keys.entry(start).or_default();
            if entries.iter().any(|entry| entry.hash == key.sha256) {
                return Err(Refusal::new(
                    format!("keys[{i}].sha256"),
                    format!("`{}` has the same key as another", key.name),
                    "give each application a key of its own",
                ));
            }
            let known = forward.know(key.identity()).map_err(|_| {
                Refusal::new(
                    format!("keys[{i}]"),
                    "cannot be written in headers",
                    "use printable text",
                )
            })?;
            entries.push(Entry {
                hash: key.sha256,
                until: key.expires.map(|expiry| expiry.0),
                known: Arc::new(known),
            });
        }
        Ok(Self {
            carrier: Carrier::build("header", &config.header, &config.scheme)?,
            query: config.query.as_deref().map(Arc::from),
            forward: config.forward,
            keys,
        })
    }

    pub(super) fn clear(&self, request: &RequestContext<'_>, decision: &mut Decision) {
        if self.forward {
            return;
        }
        // Under a scheme, the header may hold something of another kind.
        if matches!(self.carrier.read(request), Ok(Some(_)) | Err(_)) {
            decision.headers_to_remove.push(self.carrier.name.clone());
        }
        if let Some(name) = &self.query
            && !matches!(read_query(request.query, name), Ok(None))
        {
            decision.query_to_remove.push(Arc::clone(name));
        }
    }

    pub(super) fn identify(
        &self,
        request: &RequestContext<'_>,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        let in_header = self.carrier.read(request)?;
        let in_query = match &self.query {
            Some(name) => read_query(request.query, name)?,
            None => None,
        };
        let key = match (in_header, &in_query) {
            (Some(_), Some(_)) => return Err(Rejection::AMBIGUOUS),
            (Some(key), None) => key,
            (None, Some(key)) => key,
            (None, None) => return Ok(None),
        };
        const UNKNOWN: Rejection =
            Rejection::unauthorized("api_key_unknown", "The API key is not known");
        if key.is_empty() || key.len() > LONGEST_KEY {
            return Err(UNKNOWN);
        }
        let hash = digest::digest(&digest::SHA256, key);
        let hash = hash.as_ref();
        let entries = hash.first_chunk().and_then(|start: &[u8; 8]| self.keys.get(start));
        let entry = entries
            .and_then(|all| all.iter().find(|e| verify_slices_are_equal(&e.hash.0, hash).is_ok()))
            .ok_or(UNKNOWN)?;
        if entry.until.is_some_and(|until| Now::read() >= until) {
            return Err(Rejection::unauthorized("api_key_expired", "The API key expired"));
        }
        Ok(Some(Arc::clone(&entry.known)))
    }
}

impl KeyConfig {
    fn identity(&self) -> Identity {
        Identity {
            subject: self.owner.clone().unwrap_or_else(|| Arc::clone(&self.name)),
            email: self.email.clone(),
            consumer: Some(Arc::clone(&self.name)),
            tenant: self.tenant.clone(),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            plan: self.plan.clone(),
            method: AuthenticationMethod::ApiKey,
            claims: Arc::default(),
        }
    }
}

#[cfg(test)]
#[path = "api_key_tests.rs"]
mod tests;
