//! What the upstream is told of who is asking.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;

use super::{Rejection, possession::Binding};
use crate::{
    decision::{Decision, Identity},
    error::Refusal,
};

/// Headers that carry the identity on to the upstream. What a client sends under these names is
/// taken off, so that the upstream may believe them.
///
/// ```yaml
/// forward_as: {subject: X-User-ID, scopes: X-User-Scopes}
/// ```
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ForwardConfig {
    pub subject: Option<String>,
    pub email: Option<String>,
    pub consumer: Option<String>,
    pub tenant: Option<String>,
    pub plan: Option<String>,
    /// With commas between.
    pub scopes: Option<String>,
    /// With commas between.
    pub roles: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Part {
    Subject,
    Email,
    Consumer,
    Tenant,
    Plan,
    Scopes,
    Roles,
}

/// An identity, with its headers written once.
#[derive(Debug)]
pub(crate) struct Known {
    pub identity: Arc<Identity>,
    /// What must be shown beside the credential.
    pub binding: Binding,
    headers: Box<[(HeaderName, HeaderValue)]>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Forward {
    names: Vec<(Part, HeaderName)>,
}

impl Forward {
    pub(super) fn build(config: &ForwardConfig) -> Result<Self, Refusal> {
        let parts = [
            (Part::Subject, "subject", &config.subject),
            (Part::Email, "email", &config.email),
            (Part::Consumer, "consumer", &config.consumer),
            (Part::Tenant, "tenant", &config.tenant),
            (Part::Plan, "plan", &config.plan),
            (Part::Scopes, "scopes", &config.scopes),
            (Part::Roles, "roles", &config.roles),
        ];
        let mut names: Vec<(Part, HeaderName)> = Vec::new();
        for (part, key, name) in parts {
            let Some(name) = name else { continue };
            let header = super::header_name(&format!("forward_as.{key}"), name)?;
            if names.iter().any(|(_, taken)| *taken == header) {
                return Err(Refusal::new(
                    format!("forward_as.{key}"),
                    format!("`{name}` is given twice"),
                    "give each part a header of its own",
                ));
            }
            names.push((part, header));
        }
        Ok(Self { names })
    }

    /// An identity that cannot be written down is refused: an upstream that trusts the headers must
    /// not take its absence for nobody.
    pub(super) fn know(&self, identity: Identity) -> Result<Known, Rejection> {
        let mut headers = Vec::with_capacity(self.names.len());
        for (part, name) in &self.names {
            let value = match part {
                Part::Subject => Some(identity.subject.to_string()),
                Part::Email => identity.email.as_deref().map(str::to_owned),
                Part::Consumer => identity.consumer.as_deref().map(str::to_owned),
                Part::Tenant => identity.tenant.as_deref().map(str::to_owned),
                Part::Plan => identity.plan.as_deref().map(str::to_owned),
                Part::Scopes => join(&identity.scopes),
                Part::Roles => join(&identity.roles),
            };
            let Some(value) = value else { continue };
            let value = HeaderValue::try_from(value).map_err(|_| {
                Rejection::unauthorized(
                    "identity_unwritable",
                    "The identity holds characters that no header can",
                )
            })?;
            headers.push((name.clone(), value));
        }
        let identity = Arc::new(identity);
        Ok(Known { identity, binding: Binding::default(), headers: headers.into() })
    }

    /// Takes the client's own off the request, `X_User_ID` as well: CGI and its heirs (RFC 3875
    /// section 4.1.18) show both to the application under one name.
    pub(super) fn clear(&self, headers: &HeaderMap, decision: &mut Decision) {
        if self.names.is_empty() {
            return;
        }
        for sent in headers.keys() {
            let is_ours = self.names.iter().any(|(_, name)| is_same_variable(sent, name));
            if is_ours {
                decision.headers_to_remove.push(sent.clone());
            }
        }
    }
}

impl Known {
    pub(super) fn bound_to(self, binding: Binding) -> Self {
        Self { binding, ..self }
    }

    pub(super) fn tell(&self, decision: &mut Decision) {
        decision.identity = Some(Arc::clone(&self.identity));
        decision.headers_to_set.extend(self.headers.iter().cloned());
    }
}

fn is_same_variable(a: &HeaderName, b: &HeaderName) -> bool {
    let (a, b) = (a.as_str().as_bytes(), b.as_str().as_bytes());
    let fold = |byte: &u8| if *byte == b'_' { b'-' } else { *byte };
    a.len() == b.len() && a.iter().map(fold).eq(b.iter().map(fold))
}

/// A comma inside an item would make two of it.
fn join(items: &[Arc<str>]) -> Option<String> {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).filter(|i| !i.contains(',')).collect();
    (!items.is_empty()).then(|| items.join(","))
}
