//! The policies that variables and flags ask for. They make the set `default`, for proxy and
//! sidecar alike, where the file has none.

use std::sync::Arc;

use stoa_policy::{
    config::{Policies, PolicySetConfig},
    engine::Engine,
    guardrails::{Action, GuardrailsConfig, PersonalDataConfig},
    identity::{
        IdentityConfig, MethodConfig, OneOrMany,
        jwt::{JwtConfig, KeycloakConfig, Secret},
        mtls::{CertificateHeadersConfig, MtlsConfig, TenantSource},
        trusted::TrustedConfig,
    },
    outside::Outside,
    tenant::TenantConfig,
};

use super::{ConfigError, Values, parse::parse_bool};
use crate::{catalog::BuildEngine, enforcement::documents::ReadDocuments};

/// The set for routes and questions that name none.
const DEFAULT: &str = "default";
const DEFAULT_REALM: &str = "stoa";

#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// `None`: nothing was asked for.
    default_set: Option<PolicySetConfig>,
}

impl PolicySettings {
    /// A decision door has always something to decide: without a user and a tenant it denies.
    pub(super) fn read(values: &Values, is_decision_door: bool) -> Result<Self, ConfigError> {
        let set = PolicySetConfig {
            identity: read_identity(values, is_decision_door)?,
            tenant: is_decision_door.then(TenantConfig::default),
            guardrails: read_guardrails(values)?,
            ..PolicySetConfig::default()
        };
        let is_empty = set == PolicySetConfig::default();
        Ok(Self { default_set: (!is_empty).then_some(set) })
    }

    /// The sets of the file, and the default one where the file has none.
    fn complete(&self, policies: &Policies) -> Policies {
        let mut policies = policies.clone();
        if let Some(set) = &self.default_set {
            policies.entry(DEFAULT.to_owned()).or_insert_with(|| set.clone());
        }
        policies
    }

    pub fn engine_builder(&self, outside: Outside) -> Box<BuildEngine> {
        let settings = self.clone();
        Box::new(move |document, files| {
            let documents = Arc::new(ReadDocuments::new(std::mem::take(files)));
            let outside = Outside { documents: Some(documents.clone()), ..outside.clone() };
            let built = Engine::build(&settings.complete(&document.policies), &outside);
            *files = documents.take();
            built.map_err(|errors| errors.to_string())
        })
    }
}

fn text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("is empty".to_owned()),
        _ => Ok(text.to_owned()),
    }
}

/// Tried in order: what the asking gateway states, a token, a client certificate.
fn read_identity(
    values: &Values,
    is_decision_door: bool,
) -> Result<Option<IdentityConfig>, ConfigError> {
    let mut methods = Vec::new();
    if is_decision_door {
        let trusted = Some(TrustedConfig::default());
        methods.push(MethodConfig { trusted, ..MethodConfig::default() });
    }
    if let Some(jwt) = read_jwt(values)? {
        methods.push(MethodConfig { jwt: Some(jwt), ..MethodConfig::default() });
    }
    if let Some(mtls) = read_mtls(values)? {
        methods.push(MethodConfig { mtls: Some(mtls), ..MethodConfig::default() });
    }
    if methods.is_empty() {
        return Ok(None);
    }
    let identity = serde_json::from_value(serde_json::json!({ "methods": [] }));
    let identity: IdentityConfig =
        identity.map_err(|e| ConfigError::Contradiction(e.to_string()))?;
    Ok(Some(IdentityConfig { methods, ..identity }))
}

fn read_jwt(values: &Values) -> Result<Option<JwtConfig>, ConfigError> {
    let secret = values.read("jwt-secret", text)?;
    let url = values.read("keycloak-url", text)?;
    if secret.is_some() && url.is_some() {
        return Err(ConfigError::Contradiction(
            "STOA_JWT_SECRET and STOA_KEYCLOAK_URL exclude each other: tokens of a shared secret \
             could be made by whoever reads it, in Keycloak's name. Give one of them, or two \
             methods in the file's policies"
                .to_owned(),
        ));
    }
    let client = values.read("keycloak-client-id", text)?;
    let internal_url = values.read("keycloak-internal-url", text)?;
    let realm = values.read("keycloak-realm", text)?;
    let issuer = values.read("jwt-issuer", text)?;
    let mut audience = values.read_all("jwt-audience", text)?;
    let any_audience = audience.iter().any(|name| name == "*");
    audience.retain(|name| name != "*");
    if audience.is_empty() && !any_audience {
        audience.extend(client.clone());
    }
    let keycloak = url.map(|url| KeycloakConfig {
        url,
        realm: realm.unwrap_or_else(|| DEFAULT_REALM.to_owned()),
        internal_url,
        client,
    });
    if keycloak.is_none() && secret.is_none() {
        return Ok(None);
    }
    Ok(Some(JwtConfig {
        issuer: OneOrMany(issuer.into_iter().collect()),
        secret: secret.map(Secret),
        // Nobody has named one: tokens of this issuer for any service of it count.
        any_audience: any_audience || audience.is_empty(),
        audience: OneOrMany(audience),
        keycloak,
        ..JwtConfig::default()
    }))
}

fn read_mtls(values: &Values) -> Result<Option<MtlsConfig>, ConfigError> {
    if !values.read("mtls--enabled", parse_bool)?.unwrap_or(false) {
        return Ok(None);
    }
    let sources = values.read_sources("mtls--trusted-proxies")?;
    let from_headers = match sources.filter(|sources| !sources.is_empty()) {
        None => None,
        Some(sources) => {
            let headers = serde_json::from_value(serde_json::json!({ "sources": [] }));
            let headers: CertificateHeadersConfig =
                headers.map_err(|e| ConfigError::Contradiction(e.to_string()))?;
            let name = |key: &str, default: String| -> Result<String, ConfigError> {
                Ok(values.read(key, text)?.unwrap_or(default))
            };
            Some(CertificateHeadersConfig {
                sources,
                verify: name("mtls--header-verify", headers.verify)?,
                verified: headers.verified,
                subject: name("mtls--header-subject-dn", headers.subject)?,
                issuer: name("mtls--header-issuer-dn", headers.issuer)?,
                serial: name("mtls--header-serial", headers.serial)?,
                fingerprint: name("mtls--header-fingerprint", headers.fingerprint)?,
                certificate: name("mtls--header-cert", headers.certificate)?,
            })
        }
    };
    let is_tenant = values.read("mtls--tenant-from-dn", parse_bool)?.unwrap_or(true);
    Ok(Some(MtlsConfig {
        allowed_issuers: values.read_all("mtls--allowed-issuers", text)?,
        tenant: if is_tenant { TenantSource::O } else { TenantSource::None },
        from_headers,
        ..MtlsConfig::default()
    }))
}

fn read_guardrails(values: &Values) -> Result<Option<GuardrailsConfig>, ConfigError> {
    if !values.read("guardrails-pii-enabled", parse_bool)?.unwrap_or(false) {
        return Ok(None);
    }
    let action = match values.read("guardrails-pii-redact", parse_bool)?.unwrap_or(true) {
        true => Action::Mask,
        false => Action::Block,
    };
    let personal_data =
        PersonalDataConfig { request: action, response: action, ..PersonalDataConfig::default() };
    Ok(Some(GuardrailsConfig { personal_data: Some(personal_data), ..GuardrailsConfig::default() }))
}
