//! Callers that somebody in front of us has authenticated: another gateway by its headers, or the
//! caller of a decision door in its document.

use std::sync::Arc;

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use http::HeaderName;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    OneOrMany, Rejection,
    forward::{Forward, Known},
    jwt::{
        ClaimsConfig,
        claims::{Claims, Reader},
    },
};
use crate::{
    context::{RequestContext, Stated},
    decision::{AuthenticationMethod, Decision, Identity},
    error::Refusal,
    sources::Sources,
};

/// Headers are believed from the listed sources only; sent by anybody else they are taken off the
/// request.
///
/// ```yaml
/// trusted:
///   sources: [10.0.0.0/8]
///   info: X-User-Info
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct TrustedConfig {
    pub sources: Sources,
    /// All about the user in one header: a JSON object, or the same in base64. Members are read as
    /// the claims of a token are; the subject may be called `id` too.
    pub info: String,
    /// Or in one header each; lists have commas or blanks between.
    pub subject: String,
    pub email: String,
    pub tenant: String,
    pub scopes: String,
    pub roles: String,
    pub claims: ClaimsConfig,
    /// Believe the caller of a decision door what it says of the user.
    pub stated: bool,
}

impl Default for TrustedConfig {
    fn default() -> Self {
        let names = |names: [&str; 3]| OneOrMany(names.map(str::to_owned).to_vec());
        let claims = ClaimsConfig {
            subject: names(["sub", "id", "user_id"]),
            scopes: names(["scope", "scp", "scopes"]),
            ..ClaimsConfig::default()
        };
        Self {
            sources: Sources::default(),
            info: "X-User-Info".to_owned(),
            subject: "X-User-ID".to_owned(),
            email: "X-User-Email".to_owned(),
            tenant: "X-Tenant-ID".to_owned(),
            scopes: "X-User-Scopes".to_owned(),
            roles: "X-User-Roles".to_owned(),
            claims,
            stated: true,
        }
    }
}

#[derive(Debug)]
pub struct Trusted {
    sources: Sources,
    info: HeaderName,
    subject: HeaderName,
    email: HeaderName,
    tenant: HeaderName,
    scopes: HeaderName,
    roles: HeaderName,
    reader: Reader,
    stated: bool,
}

impl Trusted {
    pub(super) fn build(config: &TrustedConfig) -> Result<Self, Refusal> {
        if config.sources.is_empty() && !config.stated {
            return Err(Refusal::new(
                "sources",
                "is empty, so nobody would ever be believed",
                "list the addresses of the gateways that set the headers, or remove the method",
            ));
        }
        Ok(Self {
            sources: config.sources.clone(),
            info: super::header_name("info", &config.info)?,
            subject: super::header_name("subject", &config.subject)?,
            email: super::header_name("email", &config.email)?,
            tenant: super::header_name("tenant", &config.tenant)?,
            scopes: super::header_name("scopes", &config.scopes)?,
            roles: super::header_name("roles", &config.roles)?,
            reader: Reader::new(config.claims.clone(), Vec::new()),
            stated: config.stated,
        })
    }

    pub(super) fn clear(&self, request: &RequestContext<'_>, decision: &mut Decision) {
        if self.sources.contains(request.source) {
            return;
        }
        let names =
            [&self.info, &self.subject, &self.email, &self.tenant, &self.scopes, &self.roles];
        for name in names {
            if request.headers.contains_key(name) {
                decision.headers_to_remove.push(name.clone());
            }
        }
    }

    pub(super) fn identify(
        &self,
        request: &RequestContext<'_>,
        forward: &Forward,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        let identity = match request.stated.filter(|_| self.stated).and_then(stated_identity) {
            Some(identity) => identity,
            None if !self.sources.contains(request.source) => return Ok(None),
            None => match self.read(request)? {
                Some(identity) => identity,
                None => return Ok(None),
            },
        };
        forward.know(identity).map(|known| Some(Arc::new(known)))
    }

    fn read(&self, request: &RequestContext<'_>) -> Result<Option<Identity>, Rejection> {
        let read = |name: &HeaderName| {
            let value = super::read_single(request.headers, name);
            value.map(|value| value.filter(|text| !text.is_empty()))
        };
        if let Some(info) = read(&self.info)? {
            const MALFORMED: Rejection =
                Rejection::unauthorized("user_info_malformed", "The user information is malformed");
            let claims = parse_info(info).ok_or(MALFORMED)?;
            let mut identity = self.reader.identity(claims).map_err(|_| MALFORMED)?;
            identity.method = AuthenticationMethod::Trusted;
            return Ok(Some(identity));
        }
        let Some(subject) = read(&self.subject)? else { return Ok(None) };
        let list = |text: Option<&str>| {
            let items = text.unwrap_or_default().split([',', ' ']);
            items.filter(|item| !item.is_empty()).map(Arc::from).collect()
        };
        Ok(Some(Identity {
            subject: Arc::from(subject),
            email: read(&self.email)?.map(Arc::from),
            consumer: None,
            tenant: read(&self.tenant)?.map(Arc::from),
            scopes: list(read(&self.scopes)?),
            roles: list(read(&self.roles)?),
            plan: None,
            method: AuthenticationMethod::Trusted,
            claims: Arc::default(),
        }))
    }
}

/// `None`: the user has no id, which is no user.
pub(crate) fn stated_identity(stated: &Stated) -> Option<Identity> {
    Some(Identity {
        subject: stated.id.clone().filter(|id| !id.is_empty())?,
        email: stated.email.clone(),
        consumer: None,
        tenant: stated.tenant.clone(),
        scopes: stated.scopes.clone(),
        roles: stated.roles.clone(),
        plan: None,
        method: AuthenticationMethod::Trusted,
        claims: Arc::clone(&stated.claims),
    })
}

fn parse_info(text: &str) -> Option<Claims> {
    if text.starts_with('{') {
        return serde_json::from_str::<Map<String, Value>>(text).ok();
    }
    // Both alphabets are in use, with padding and without.
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let is_url_safe = text.contains(['-', '_']);
    let alphabet = if is_url_safe { &URL_SAFE } else { &STANDARD };
    let json = GeneralPurpose::new(alphabet, config).decode(text).ok()?;
    serde_json::from_slice(&json).ok()
}

#[cfg(test)]
#[path = "trusted_tests.rs"]
mod tests;
