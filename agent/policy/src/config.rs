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
    contract::ContractConfig, guardrails::GuardrailsConfig, identity::IdentityConfig,
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
    pub scopes: Option<ScopesConfig>,
    pub guardrails: Option<GuardrailsConfig>,
    pub contract: Option<ContractConfig>,
}
