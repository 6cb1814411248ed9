//! The policies that variables and flags ask for. They make the set `default`, for proxy and
//! sidecar alike, where the file has none.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stoa_policy::{
    circuit_breaker::CircuitBreakerConfig,
    config::{Policies, PolicySetConfig},
    counters::OnLoss,
    engine::Engine,
    guardrails::{Action, GuardrailsConfig, PersonalDataConfig},
    identity::{
        IdentityConfig, MethodConfig, OneOrMany, SenderConstraintConfig,
        dpop::DpopConfig,
        jwt::{JwtConfig, KeycloakConfig, Secret},
        mtls::{CertificateHeadersConfig, MtlsConfig, TenantSource},
        trusted::TrustedConfig,
    },
    outside::Outside,
    plan::{Plan, Plans, STANDARD_NAME},
    quota::QuotaConfig,
    rate_limit::RateLimitConfig,
    rego::{RegoConfig, RegoEngine, RegoOnLoss},
    tenant::TenantConfig,
    units::Span,
};

use super::{
    ConfigError, ModeName, Values,
    parse::{parse_bool, parse_number, parse_on_loss, parse_path},
};
use crate::{
    catalog::{BuildEngine, document::Document},
    enforcement::{
        Enforcement, EnforcementSettings, OpaSettings, documents::ReadDocuments,
        quota_store::WRITE_EVERY, redis::RedisOptions,
    },
};

/// The set for routes and questions that name none.
const DEFAULT: &str = "default";
const DEFAULT_REALM: &str = "stoa";
/// In a window.
const MOST_REQUESTS: u64 = 1_000_000_000;

#[derive(Clone, Debug)]
pub struct PolicySettings {
    /// `None`: nothing was asked for.
    default_set: Option<PolicySetConfig>,
    /// Whether the set is more than what every agent of the mode has.
    is_asked_for: bool,
    /// Changes of the plan `standard`.
    rate_per_minute: Option<u64>,
    daily_limit: Option<u64>,
    pub enforcement: EnforcementSettings,
}

impl PolicySettings {
    /// A decision door has always something to decide: without a user and a tenant it denies.
    pub(super) fn read(values: &Values, mode: ModeName) -> Result<Self, ConfigError> {
        let is_decision_door = mode == ModeName::Sidecar;
        let base = PolicySetConfig {
            identity: read_identity(&Values::none(), is_decision_door)?,
            tenant: is_decision_door.then(TenantConfig::default),
            ..PolicySetConfig::default()
        };
        let enforcement = read_enforcement(values)?;
        let number = |key| values.read(key, |t| parse_number(t, 0, u64::MAX));
        let is_by_plan = values.read("quota-enforcement-enabled", parse_bool)?.unwrap_or(false);
        let plan = is_by_plan.then(|| STANDARD_NAME.to_owned());
        let set = PolicySetConfig {
            identity: read_identity(values, is_decision_door)?,
            rate_limit: read_rate_limit(values, plan.clone())?,
            quota: plan.map(|plan| QuotaConfig { plan: Some(plan), ..QuotaConfig::default() }),
            rego: read_rego(values, enforcement.opa.as_ref())?,
            guardrails: read_guardrails(values)?,
            // Whoever asks for decisions sends the requests itself.
            circuit_breaker: match mode {
                ModeName::Proxy => read_circuit_breaker(values)?,
                ModeName::Sidecar | ModeName::Shadow => None,
            },
            ..base.clone()
        };
        // OPA is there for the sets of the file too.
        let rego = set.rego.clone().filter(|_| enforcement.opa.is_none());
        Ok(Self {
            is_asked_for: PolicySetConfig { rego, ..set.clone() } != base,
            default_set: (set != PolicySetConfig::default()).then_some(set),
            rate_per_minute: number("quota-default-rate-per-minute")?,
            daily_limit: number("quota-default-daily-limit")?,
            enforcement,
        })
    }

    #[cfg(test)]
    pub(super) fn default_set(&self) -> Option<&PolicySetConfig> {
        self.default_set.as_ref()
    }

    /// The sets of the file, and the default one where the file has none.
    fn complete(&self, document: &Document) -> Result<Policies, String> {
        let mut policies = document.policies.clone();
        if let Some(set) = &self.default_set {
            self.add_default(&mut policies, set);
        }
        document.made.add_sets(&mut policies, DEFAULT)?;
        Ok(policies)
    }

    fn add_default(&self, policies: &mut Policies, set: &PolicySetConfig) {
        if policies.contains_key(DEFAULT) && self.is_asked_for {
            tracing::warn!(
                "policies.default of the file stands in place of the policies that variables, \
                 flags and other keys of the file ask for"
            );
        }
        policies.entry(DEFAULT.to_owned()).or_insert_with(|| set.clone());
    }

    /// The plans of the file, and of the settings, which win.
    pub(super) fn plans(&self, configured: &BTreeMap<String, Plan>) -> Plans {
        let plans = Plans::with(configured);
        let (_, standard) = plans.of(None);
        let changed = Plan {
            requests_per_minute: self.rate_per_minute.unwrap_or(standard.requests_per_minute),
            requests_per_day: self.daily_limit.unwrap_or(standard.requests_per_day),
            ..*standard
        };
        plans.replaced(STANDARD_NAME, changed)
    }

    /// Also starts what the policies of a configuration need and earlier ones did not.
    pub fn engine_builder(&self, enforcement: Arc<Enforcement>) -> Box<BuildEngine> {
        let settings = self.clone();
        Box::new(move |document, files| {
            let policies = settings.complete(document)?;
            if policies.values().any(|set| set.quota.is_some()) {
                enforcement.keep_quotas().map_err(|error| error.to_string())?;
            }
            let documents = ReadDocuments::new(files, &document.contracts)?;
            let documents = Arc::new(documents);
            let outside = Outside {
                documents: Some(documents.clone()),
                plans: Arc::new(settings.plans(&document.plans)),
                ..enforcement.outside.clone()
            };
            let built = Engine::build(&policies, &outside);
            *files = documents.take();
            built.map_err(|errors| errors.to_string())
        })
    }
}

/// What the policies ask, whichever set of them.
fn read_enforcement(values: &Values) -> Result<EnforcementSettings, ConfigError> {
    let milliseconds = |key, default| -> Result<Duration, ConfigError> {
        let given = values.read(key, |t| parse_number(t, 1, 60_000))?;
        Ok(Duration::from_millis(given.unwrap_or(default)))
    };
    let options = RedisOptions {
        timeout: milliseconds("redis-timeout-ms", 20)?,
        on_loss: values.read("redis-fail-mode", parse_on_loss)?.unwrap_or(OnLoss::Open),
    };
    let timeout = milliseconds("opa-timeout-ms", 250)?;
    Ok(EnforcementSettings {
        redis: values.read("redis-url", text)?.map(|url| (url, options)),
        opa: values.read("opa-endpoint", text)?.map(|endpoint| OpaSettings { endpoint, timeout }),
        ca_file: values.read("ca-file", parse_path)?,
        write_quotas_every: values
            .read("quota-sync-interval-secs", |t| parse_number(t, 1, 86_400))?
            .map_or(WRITE_EVERY, Duration::from_secs),
    })
}

fn read_rate_limit(
    values: &Values,
    plan: Option<String>,
) -> Result<Option<RateLimitConfig>, ConfigError> {
    let requests = values.read("rate-limit-default", |t| parse_number(t, 1, MOST_REQUESTS))?;
    let window = values.read("rate-limit-window-seconds", |t| parse_number(t, 1, 86_400))?;
    let config = match (requests, window) {
        (None, None) => RateLimitConfig::default(),
        _ => RateLimitConfig::of_each_tenant(requests.unwrap_or(1000), window.unwrap_or(60)),
    };
    let config = RateLimitConfig { plan, ..config };
    Ok((config != RateLimitConfig::default()).then_some(config))
}

/// Only what somebody asked for: without an identity, STOA's own policy lets nobody pass.
fn read_rego(
    values: &Values,
    opa: Option<&OpaSettings>,
) -> Result<Option<RegoConfig>, ConfigError> {
    let files = values.read_all("policy-path", text)?;
    let query = values.read("policy-query", text)?;
    let on_loss = values.read("opa-fail-mode", parse_on_loss)?;
    let is_given = !files.is_empty() || opa.is_some();
    if !values.read("policy-enabled", parse_bool)?.unwrap_or(is_given) {
        return Ok(None);
    }
    if !files.is_empty() && opa.is_some() {
        return Err(ConfigError::Contradiction(
            "--policy-path (STOA_POLICY_PATH) and --opa-endpoint (STOA_OPA_ENDPOINT) exclude each \
             other: only one of them can decide. Give one of them, or write `policies` in the \
             file, where each set names its engine"
                .to_owned(),
        ));
    }
    let defaults = RegoConfig::default();
    Ok(Some(RegoConfig {
        engine: Some(if opa.is_some() { RegoEngine::Opa } else { RegoEngine::Embedded }),
        files,
        query: query.unwrap_or_else(|| defaults.query.clone()),
        on_loss: on_loss.map_or(defaults.on_loss, RegoOnLoss),
        ..defaults
    }))
}

fn read_circuit_breaker(values: &Values) -> Result<Option<CircuitBreakerConfig>, ConfigError> {
    let number = |key, most| values.read(key, |t| parse_number(t, 1, most));
    let count = |key| -> Result<Option<u32>, ConfigError> {
        Ok(number(key, 1_000_000)?.and_then(|n| u32::try_from(n).ok()))
    };
    let failures = count("cb-failure-threshold")?;
    let successes = count("cb-success-threshold")?;
    let reset = number("cb-reset-timeout-secs", 86_400)?;
    if failures.is_none() && successes.is_none() && reset.is_none() {
        return Ok(None);
    }
    let defaults = CircuitBreakerConfig::default();
    Ok(Some(CircuitBreakerConfig {
        failures: failures.unwrap_or(defaults.failures),
        successes: successes.unwrap_or(defaults.successes),
        reset: reset.map_or(defaults.reset, Span::seconds),
        ..defaults
    }))
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
    let mut is_required = true;
    if let Some(mtls) = read_mtls(values, !methods.is_empty())? {
        is_required = !methods.is_empty() || mtls.required_paths.is_empty();
        methods.push(MethodConfig { mtls: Some(mtls), ..MethodConfig::default() });
    }
    if methods.is_empty() {
        return Ok(None);
    }
    let identity = serde_json::from_value(serde_json::json!({ "methods": [] }));
    let identity: IdentityConfig =
        identity.map_err(|e| ConfigError::Contradiction(e.to_string()))?;
    let sender_constraint = read_sender_constraint(values)?;
    let dpop = read_dpop(values)?;
    Ok(Some(IdentityConfig { methods, required: is_required, dpop, sender_constraint, ..identity }))
}

fn is_on(values: &Values, key: &str) -> Result<bool, ConfigError> {
    Ok(values.read(key, parse_bool)?.unwrap_or(false))
}

fn read_sender_constraint(values: &Values) -> Result<SenderConstraintConfig, ConfigError> {
    if !is_on(values, "sender-constraint--enabled")? {
        return Ok(SenderConstraintConfig::default());
    }
    Ok(SenderConstraintConfig {
        dpop_required: is_on(values, "sender-constraint--dpop-required")?,
        mtls_required: is_on(values, "sender-constraint--mtls-required")?,
    })
}

fn read_dpop(values: &Values) -> Result<Option<DpopConfig>, ConfigError> {
    let is_enabled = is_on(values, "dpop--enabled")?;
    if !is_enabled && !is_on(values, "sender-constraint--enabled")? {
        return Ok(None);
    }
    let defaults = DpopConfig::default();
    let seconds = |key, least, default| -> Result<Span, ConfigError> {
        let given = values.read(key, |t| parse_number(t, least, 86_400))?;
        Ok(given.map_or(default, Span::seconds))
    };
    let most = values.read("dpop--jti-cache-max", |t| parse_number(t, 1, 10_000_000))?;
    Ok(Some(DpopConfig {
        required: is_enabled && is_on(values, "dpop--required")?,
        max_age: seconds("dpop--max-age-secs", 1, defaults.max_age)?,
        clock_skew: seconds("dpop--clock-skew-secs", 0, defaults.clock_skew)?,
        remember_for: seconds("dpop--jti-cache-ttl-secs", 1, defaults.remember_for)?,
        remember: most.and_then(|n| usize::try_from(n).ok()).unwrap_or(defaults.remember),
    }))
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
    // An issuer alone says itself where its keys are.
    if keycloak.is_none() && secret.is_none() && issuer.is_none() {
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

/// `has_tokens`: there is something that could be bound to a certificate.
fn read_mtls(values: &Values, has_tokens: bool) -> Result<Option<MtlsConfig>, ConfigError> {
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
                not_before: name("mtls--header-not-before", headers.not_before)?,
                not_after: name("mtls--header-not-after", headers.not_after)?,
                certificate: name("mtls--header-cert", headers.certificate)?,
            })
        }
    };
    let is_tenant = values.read("mtls--tenant-from-dn", parse_bool)?.unwrap_or(true);
    let binds = values.read("mtls--require-binding", parse_bool)?.unwrap_or(true);
    Ok(Some(MtlsConfig {
        allowed_issuers: values.read_all("mtls--allowed-issuers", text)?,
        tenant: if is_tenant { TenantSource::O } else { TenantSource::None },
        required_paths: values.read_all("mtls--required-routes", text)?,
        require_binding: binds && has_tokens,
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
