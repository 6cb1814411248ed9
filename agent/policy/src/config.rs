//! The `policies` section of the configuration: named sets of policies, which routes refer to.
//!
//! ```yaml
//! policies:
//!   default:
//!     tenant: {required: true}
//!     scopes: {any_of: [stoa:read, stoa:write]}
//! ```

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    circuit_breaker::CircuitBreakerConfig, contract::ContractConfig, guardrails::GuardrailsConfig,
    identity::IdentityConfig, quota::QuotaConfig, rate_limit::RateLimitConfig, rego::RegoConfig,
    scopes::ScopesConfig, tenant::TenantConfig,
};

/// Sets by name. A route names one; the set `default`, if there is one, is for routes that name
/// none.
pub type Policies = BTreeMap<String, PolicySetConfig>;

/// One set. A policy that is not named does not run.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct PolicySetConfig {
    pub identity: Option<IdentityConfig>,
    pub tenant: Option<TenantConfig>,
    pub rate_limit: Option<RateLimitConfig>,
    pub quota: Option<QuotaConfig>,
    pub scopes: Option<ScopesConfig>,
    pub rego: Option<RegoConfig>,
    pub guardrails: Option<GuardrailsConfig>,
    pub contract: Option<ContractConfig>,
    pub circuit_breaker: Option<CircuitBreakerConfig>,
}
