//! How callers identify themselves.

use std::collections::BTreeMap;

use super::{Place, Security, SecurityScheme, names};
use crate::knowledge::endpoint::{CredentialStats, StoredCredential};

/// A credential carried by fewer than one in this many accepted calls is not what the operation
/// asks for, but a habit of one client.
const MIN_SHARE: u64 = 20;

/// Collects the schemes of a service as its operations name them.
#[derive(Default)]
pub(crate) struct Schemes {
    pub found: BTreeMap<String, SecurityScheme>,
}

impl Schemes {
    /// `carried`: calls that carried one of them before it was known for a credential.
    pub fn security(&mut self, stats: &CredentialStats, success: u64, carried: u64) -> Security {
        let mut security = Security::default();
        let mut carried_by_all = true;
        for (credential, count) in stats.accepted.iter() {
            if count * MIN_SHARE < success {
                continue;
            }
            let name = self.name(credential);
            carried_by_all &= count + carried >= success;
            if !security.schemes.contains(&name) {
                security.schemes.push(name);
            }
        }
        security.schemes.sort();
        security.is_conjunction = security.schemes.len() > 1 && carried_by_all;
        security.is_optional = !security.schemes.is_empty() && stats.anonymous > carried;
        security
    }

    fn name(&mut self, credential: &StoredCredential) -> String {
        let http = |scheme: &str, format: Option<&str>| SecurityScheme::Http {
            scheme: scheme.to_owned(),
            bearer_format: format.map(str::to_owned),
        };
        let key =
            |place, name: &str| SecurityScheme::ApiKey { place, name: name.to_owned(), note: None };
        let (name, scheme) = match credential {
            StoredCredential::Bearer => ("bearerAuth".to_owned(), http("bearer", None)),
            StoredCredential::Jwt => ("bearerAuth".to_owned(), http("bearer", Some("JWT"))),
            StoredCredential::Basic => ("basicAuth".to_owned(), http("basic", None)),
            StoredCredential::Digest => ("digestAuth".to_owned(), http("digest", None)),
            StoredCredential::Scheme(scheme) => (
                format!("{}Authorization", named(scheme.as_str(), "custom")),
                SecurityScheme::ApiKey {
                    place: Place::Header,
                    name: "Authorization".to_owned(),
                    note: Some(format!("The value is `{} <credential>`.", scheme.as_str())),
                },
            ),
            StoredCredential::HeaderKey(name) => (
                format!("{}Header", named(name.as_str(), "key")),
                key(Place::Header, name.as_str()),
            ),
            StoredCredential::QueryKey(name) => {
                (format!("{}Query", named(name.as_str(), "key")), key(Place::Query, name.as_str()))
            }
            StoredCredential::CookieKey(name) => (
                format!("{}Cookie", named(name.as_str(), "key")),
                key(Place::Cookie, name.as_str()),
            ),
            StoredCredential::ClientCertificate => {
                ("mutualTls".to_owned(), SecurityScheme::MutualTls)
            }
        };
        self.found
            .entry(name.clone())
            .and_modify(|known| {
                // Some bearer tokens are JWTs and some are not: the format is not JWT.
                if *known != scheme
                    && let SecurityScheme::Http { bearer_format, .. } = known
                {
                    *bearer_format = None;
                }
            })
            .or_insert(scheme);
        name
    }
}

/// Whether callers identify themselves by a parameter of this name.
pub(crate) fn is_credential(stats: &CredentialStats, place: Place, name: &str) -> bool {
    stats.accepted.iter().any(|(credential, _)| match (credential, place) {
        (StoredCredential::HeaderKey(own), Place::Header) => {
            own.as_str().eq_ignore_ascii_case(name)
        }
        (StoredCredential::QueryKey(own), Place::Query)
        | (StoredCredential::CookieKey(own), Place::Cookie) => own.as_str() == name,
        _ => false,
    })
}

fn named(text: &str, otherwise: &str) -> String {
    let name = names::camel(text);
    if name.is_empty() { otherwise.to_owned() } else { name }
}
