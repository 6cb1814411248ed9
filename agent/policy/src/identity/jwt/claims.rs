//! What the claims of a verified token say: whether it may be used here and now, and by whom.

use std::{sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Fault, OneOrMany};
use crate::{
    clock::Now,
    decision::{AuthenticationMethod, Identity},
};

pub(in crate::identity) type Claims = Map<String, Value>;

/// Where an identity's parts are in the claims. Of each list the first claim that is there counts,
/// of `scopes` and `roles` all. A name is a claim's, or a path of names joined by dots
/// (`realm_access.roles`); a claim whose own name has dots is found by the whole name.
///
/// ```yaml
/// claims:
///   tenant: [tenant, "https://example.com/tenant"]
///   roles: [realm_access.roles, groups]
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimsConfig {
    pub subject: OneOrMany,
    pub email: OneOrMany,
    pub consumer: OneOrMany,
    pub tenant: OneOrMany,
    pub plan: OneOrMany,
    /// Texts of scopes with blanks between (RFC 8693 section 4.2), or lists.
    pub scopes: OneOrMany,
    /// Lists of roles, or one role.
    pub roles: OneOrMany,
}

impl Default for ClaimsConfig {
    fn default() -> Self {
        let names = |names: &[&str]| OneOrMany(names.iter().map(|n| (*n).to_owned()).collect());
        Self {
            subject: names(&["sub", "client_id", "azp"]),
            email: names(&["email"]),
            consumer: names(&["azp", "client_id"]),
            tenant: names(&["tenant", "tenant_id"]),
            plan: names(&["plan"]),
            scopes: names(&["scope", "scp"]),
            roles: names(&["realm_access.roles", "roles"]),
        }
    }
}

/// What is asked of every token, apart from its signature.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    /// Empty: any, which only a shared secret allows.
    pub issuers: Vec<String>,
    /// Empty: any.
    pub audiences: Vec<String>,
    pub leeway: Duration,
    pub max_age: Option<Duration>,
    pub requires_expiry: bool,
}

impl Rules {
    /// The time from which the token counts no more; the end of time if it never expires.
    pub(super) fn check(&self, claims: &Claims, now: Now) -> Result<Now, Fault> {
        if !self.issuers.is_empty() {
            let issuer = claims.get("iss").and_then(Value::as_str).ok_or(Fault::WrongIssuer)?;
            if !self.issuers.iter().any(|known| known == issuer) {
                return Err(Fault::WrongIssuer);
            }
        }
        self.check_audience(claims)?;
        let expiry = date(claims, "exp")?;
        let not_before = date(claims, "nbf")?;
        let issued = date(claims, "iat")?;
        let is_ahead = |time: Now| time > now.after(self.leeway);
        if not_before.is_some_and(is_ahead) {
            return Err(Fault::NotYetValid);
        }
        if issued.is_some_and(is_ahead) {
            return Err(Fault::IssuedInFuture);
        }
        let mut until = match expiry {
            Some(expiry) => expiry.after(self.leeway),
            None if self.requires_expiry => return Err(Fault::NoExpiry),
            None => Now(u64::MAX),
        };
        if let Some(max_age) = self.max_age {
            let oldest = issued.ok_or(Fault::TooOld)?.after(max_age).after(self.leeway);
            if now >= oldest {
                return Err(Fault::TooOld);
            }
            until = until.min(oldest);
        }
        // RFC 7519 section 4.1.4: the current time MUST be before it.
        if now < until { Ok(until) } else { Err(Fault::Expired) }
    }

    /// RFC 7519 section 4.1.3: a text, or a list of texts.
    fn check_audience(&self, claims: &Claims) -> Result<(), Fault> {
        if self.audiences.is_empty() {
            return Ok(());
        }
        let is_ours = |value: &Value| {
            value.as_str().is_some_and(|text| self.audiences.iter().any(|ours| ours == text))
        };
        let is_meant = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if is_meant { Ok(()) } else { Err(Fault::WrongAudience) }
    }
}

/// RFC 7519 section 2, NumericDate: seconds, with a fraction or without. `null` is as bad as text:
/// whoever wrote it meant something.
fn date(claims: &Claims, name: &'static str) -> Result<Option<Now>, Fault> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(Now(seconds.saturating_mul(1000))));
    }
    match value.as_f64() {
        // The cast saturates.
        Some(seconds) if seconds >= 0.0 => Ok(Some(Now((seconds * 1000.0) as u64))),
        // Before 1970: over, or long begun.
        Some(_) => Ok(Some(Now(0))),
        None => Err(Fault::MalformedDate(name)),
    }
}

/// Reads identities by a configuration.
#[derive(Debug)]
pub(in crate::identity) struct Reader {
    config: ClaimsConfig,
    /// `resource_access` of these clients gives roles too (Keycloak); of other clients it says
    /// nothing about us.
    clients: Vec<String>,
}

impl Reader {
    pub(in crate::identity) fn new(config: ClaimsConfig, clients: Vec<String>) -> Self {
        Self { config, clients }
    }

    pub(in crate::identity) fn identity(&self, claims: Claims) -> Result<Identity, Fault> {
        let first = |names: &OneOrMany| {
            let mut values = names.0.iter().filter_map(|name| find(&claims, name)?.as_str());
            values.find(|text| !text.is_empty()).map(Arc::from)
        };
        let subject = first(&self.config.subject).ok_or(Fault::NoSubject)?;
        let mut scopes = Vec::new();
        for value in self.config.scopes.0.iter().filter_map(|name| find(&claims, name)) {
            match value {
                Value::String(text) => {
                    text.split_ascii_whitespace().for_each(|scope| add(&mut scopes, scope));
                }
                other => add_all(&mut scopes, other),
            }
        }
        let mut roles = Vec::new();
        for value in self.config.roles.0.iter().filter_map(|name| find(&claims, name)) {
            add_all(&mut roles, value);
        }
        for client in &self.clients {
            let access = claims.get("resource_access").and_then(|all| all.get(client));
            if let Some(value) = access.and_then(|access| access.get("roles")) {
                add_all(&mut roles, value);
            }
        }
        Ok(Identity {
            subject,
            email: first(&self.config.email),
            consumer: first(&self.config.consumer),
            tenant: first(&self.config.tenant),
            scopes,
            roles,
            plan: first(&self.config.plan),
            method: AuthenticationMethod::Jwt,
            claims: Arc::new(claims),
        })
    }
}

fn find<'a>(claims: &'a Claims, name: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    rest.split('.').try_fold(claims.get(first)?, |value, part| value.get(part))
}

fn add_all(list: &mut Vec<Arc<str>>, value: &Value) {
    match value {
        Value::String(text) => add(list, text),
        Value::Array(items) => {
            items.iter().filter_map(Value::as_str).for_each(|item| add(list, item));
        }
        _ => {}
    }
}

fn add(list: &mut Vec<Arc<str>>, item: &str) {
    if !item.is_empty() && !list.iter().any(|known| **known == *item) {
        list.push(Arc::from(item));
    }
}

#[cfg(test)]
#[path = "claims_tests.rs"]
mod tests;
