//! How the tokens of one issuer are verified, as an operator writes it.

use std::{fmt, sync::Arc, time::Duration};

use serde::Deserialize;
use serde_json::Value;

use super::{
    Algorithm, ClaimsConfig, Jwt, Keys, OneOrMany,
    claims::{Reader, Rules},
    key_set::KeySet,
    key_source::{KeysAt, Schedule},
    memory::Memory,
};
use crate::{
    error::Refusal,
    identity::credential::Carrier,
    outside::Outside,
    units::{Size, Span},
};

/// Keys come from one of `keycloak`, `jwks_url`, `jwks` and `secret`; without any of them, from
/// where the `issuer` says in its `/.well-known/openid-configuration`.
///
/// ```yaml
/// jwt:
///   issuer: https://sso.example.com/realms/acme
///   jwks_url: https://sso.example.com/realms/acme/protocol/openid-connect/certs
///   audience: [orders, billing]
///   leeway: 30s
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct JwtConfig {
    /// A realm of Keycloak: stands for `issuer` and `jwks_url`.
    pub keycloak: Option<KeycloakConfig>,
    /// `iss` must be one of these, letter by letter.
    pub issuer: OneOrMany,
    /// Where the issuer publishes its keys.
    pub jwks_url: Option<String>,
    /// The key set itself, where it is not fetched: `{keys: [...]}`.
    pub jwks: Option<Value>,
    /// Shared with the issuer, at least 32 bytes (HS384 48, HS512 64); for these three only.
    pub secret: Option<Secret>,
    /// `aud` must hold one of these.
    pub audience: OneOrMany,
    /// Accept tokens that were made for other services of the issuer too.
    pub any_audience: bool,
    /// Empty: all of RS, PS, ES and EdDSA; with `secret` HS256.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock and ours may differ.
    pub leeway: Span,
    /// Refuse tokens that were issued longer ago.
    pub max_age: Option<Span>,
    /// Refuse tokens that never expire.
    pub requires_expiry: bool,
    /// The header that brings the token, and the word before it.
    pub header: String,
    pub scheme: String,
    /// Leave the token on the request that goes to the upstream.
    pub forward: bool,
    pub claims: ClaimsConfig,
    pub max_length: Size,
    /// Tokens remembered as verified, about 4 KiB each.
    pub remember: usize,
    /// Fetch the keys again after so long.
    pub refresh: Span,
    /// Fetch at most once in so long, however many tokens name unknown keys.
    pub refresh_at_most: Span,
    /// Keys that could not be fetched again for so long count no more.
    pub keep_stale: Span,
}

impl Default for JwtConfig {
    fn default() -> Self {
        Self {
            keycloak: None,
            issuer: OneOrMany::default(),
            jwks_url: None,
            jwks: None,
            secret: None,
            audience: OneOrMany::default(),
            any_audience: false,
            algorithms: Vec::new(),
            leeway: Span::seconds(30),
            max_age: None,
            requires_expiry: true,
            header: "Authorization".to_owned(),
            scheme: "Bearer".to_owned(),
            forward: true,
            claims: ClaimsConfig::default(),
            max_length: Size(16 << 10),
            remember: 4096,
            refresh: Span::seconds(300),
            refresh_at_most: Span::seconds(5),
            keep_stale: Span::seconds(86_400),
        }
    }
}

/// ```yaml
/// keycloak: {url: https://sso.example.com, realm: acme, internal_url: http://keycloak.sso.svc:8080}
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct KeycloakConfig {
    /// As tokens name it: `{url}/realms/{realm}` is their issuer.
    pub url: String,
    pub realm: String,
    /// Where the keys are fetched, if not at `url`.
    #[serde(default)]
    pub internal_url: Option<String>,
    /// Whose roles in `resource_access` count, beside those of the audiences.
    #[serde(default)]
    pub client: Option<String>,
}

/// Never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Jwt {
    pub(in crate::identity) fn build(
        config: &JwtConfig,
        outside: &Outside,
    ) -> Result<Self, Refusal> {
        check_audience(config)?;
        let algorithms = algorithms(config)?;
        let (issuers, keys) = keys(config, &algorithms, outside)?;
        let mut clients = config.audience.0.clone();
        clients.extend(config.keycloak.as_ref().and_then(|keycloak| keycloak.client.clone()));
        let carrier = Carrier::build("header", &config.header, &config.scheme)?;
        let memory = Arc::new(Memory::new(config.remember.min(1 << 20)).ok_or_else(|| {
            Refusal::new("", "the system gives no random numbers", "look at the kernel's log")
        })?);
        outside.tokens.add(&memory);
        Ok(Self {
            carrier,
            proven: None,
            algorithms,
            rules: Rules {
                issuers,
                audiences: config.audience.0.clone(),
                leeway: config.leeway.0,
                max_age: config.max_age.map(|span| span.0),
                requires_expiry: config.requires_expiry,
            },
            reader: Reader::new(config.claims.clone(), clients),
            keys,
            memory,
            remembered: Arc::clone(&outside.tokens),
            longest_token: config.max_length.0,
            forward_token: config.forward,
        })
    }
}

/// RFC 8725 section 3.9: an issuer that serves several services makes tokens for each.
fn check_audience(config: &JwtConfig) -> Result<(), Refusal> {
    match (config.audience.0.is_empty(), config.any_audience) {
        (true, false) => Err(Refusal::new(
            "audience",
            "is missing, so a token made for any other service would do",
            "write the `aud` of your tokens here, or any_audience: true to accept them all",
        )),
        (false, true) => {
            Err(Refusal::new("any_audience", "contradicts `audience`", "keep one of the two"))
        }
        _ => Ok(()),
    }
}

fn algorithms(config: &JwtConfig) -> Result<Vec<Algorithm>, Refusal> {
    let is_secret = config.secret.is_some();
    if config.algorithms.is_empty() {
        return Ok(match is_secret {
            true => vec![Algorithm::HS256],
            false => Algorithm::ASYMMETRIC.to_vec(),
        });
    }
    match config.algorithms.iter().find(|a| a.is_symmetric() != is_secret) {
        None => Ok(config.algorithms.clone()),
        Some(wrong) if is_secret => Err(Refusal::new(
            "algorithms",
            format!("{wrong:?} takes a public key, and there is a secret"),
            "list HS256, HS384 or HS512 only",
        )),
        Some(wrong) => Err(Refusal::new(
            "algorithms",
            format!("{wrong:?} takes a secret, and the keys are public"),
            "remove it: anybody could sign with a key that is public",
        )),
    }
}

/// The issuers, and where the keys come from.
fn keys(
    config: &JwtConfig,
    algorithms: &[Algorithm],
    outside: &Outside,
) -> Result<(Vec<String>, Keys), Refusal> {
    let mut issuers = config.issuer.0.clone();
    let keys = match (&config.keycloak, &config.jwks_url, &config.jwks, &config.secret) {
        (Some(keycloak), None, None, None) => {
            let (issuer, url) = keycloak.addresses()?;
            issuers.push(issuer);
            check_url("keycloak.url", &url)?;
            remote("keycloak.url", KeysAt::Url(url), config, outside)?
        }
        (None, Some(url), None, None) => {
            check_url("jwks_url", url)?;
            remote("jwks_url", KeysAt::Url(url.clone()), config, outside)?
        }
        (None, None, None, None) if !issuers.is_empty() => {
            let [issuer] = &issuers[..] else {
                return Err(Refusal::new(
                    "issuer",
                    "names several issuers, and each has keys of its own",
                    "write one method for each, or where their common keys are in `jwks_url`",
                ));
            };
            check_url("issuer", issuer)?;
            remote("issuer", KeysAt::Issuer(issuer.clone()), config, outside)?
        }
        (None, None, Some(document), None) => {
            let set = KeySet::parse(document.to_string().as_bytes()).map_err(|error| {
                Refusal::new("jwks", error.to_string(), "copy what the issuer's jwks_uri answers")
            })?;
            Keys::Fixed(Arc::new(set))
        }
        (None, None, None, Some(Secret(secret))) => {
            let least = algorithms.iter().map(|a| a.least_secret()).max().unwrap_or(0);
            if secret.len() < least {
                return Err(Refusal::new(
                    "secret",
                    format!("has only {} bytes", secret.len()),
                    format!("use at least {least} random bytes"),
                ));
            }
            return Ok((
                issuers,
                Keys::Fixed(Arc::new(KeySet::of_secret(algorithms, secret.as_bytes()))),
            ));
        }
        _ => {
            return Err(Refusal::new(
                "",
                "names no source of keys, or several",
                "write one of keycloak, jwks_url, jwks and secret, or the `issuer` alone",
            ));
        }
    };
    if issuers.is_empty() {
        return Err(Refusal::new(
            "issuer",
            "is missing",
            "write the `iss` of your tokens, letter by letter",
        ));
    }
    Ok((issuers, keys))
}

fn remote(key: &str, at: KeysAt, config: &JwtConfig, outside: &Outside) -> Result<Keys, Refusal> {
    let schedule = Schedule {
        refresh: config.refresh.0.max(Duration::from_secs(1)),
        least_interval: config.refresh_at_most.0,
        most_stale: config.keep_stale.0.max(config.refresh.0),
    };
    outside.keys.source(at, schedule).map(Keys::Remote).ok_or_else(|| {
        Refusal::new(key, "keys cannot be fetched here", "give the key set itself under `jwks`")
    })
}

fn check_url(key: &str, url: &str) -> Result<(), Refusal> {
    let parsed = url.parse::<http::Uri>().ok();
    let is_usable = parsed.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    });
    if is_usable {
        return Ok(());
    }
    Err(Refusal::new(
        key,
        format!("`{url}` is not a URL"),
        "write it whole, such as https://sso.example.com",
    ))
}

impl KeycloakConfig {
    /// The issuer and the URL of its keys.
    fn addresses(&self) -> Result<(String, String), Refusal> {
        check_url("keycloak.url", &self.url)?;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~ ".contains(c);
        if self.realm.is_empty() || !self.realm.chars().all(is_plain) {
            return Err(Refusal::new(
                "keycloak.realm",
                format!("`{}` is not a realm", self.realm),
                "write the realm's name as the admin console shows it",
            ));
        }
        let realm = self.realm.replace(' ', "%20");
        let url = self.url.trim_end_matches('/');
        let internal = self.internal_url.as_deref().unwrap_or(url).trim_end_matches('/');
        Ok((
            format!("{url}/realms/{realm}"),
            format!("{internal}/realms/{realm}/protocol/openid-connect/certs"),
        ))
    }
}
