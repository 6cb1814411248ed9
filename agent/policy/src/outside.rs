//! What the policies need from outside the engine, as traits that the gateway implements.

use std::{fmt, sync::Arc};

pub use crate::identity::{
    dpop::Proofs,
    jwt::{
        key_source::{Delivery, KeyRing, KeyState, KeysAt},
        memory::{RememberedTokens, TokenStats},
    },
    mtls::CertificateTally,
};

use crate::{
    circuit_breaker::Breakers, counters::SharedCounters, plan::Plans, quota::QuotaBook,
    rate_limit::LimitTable, rego::RemoteOpa,
};

/// Handed to [`Engine::build`](crate::engine::Engine::build). Made once and kept over reloads, so
/// that what it holds (fetched keys, counters) outlives one configuration.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// The keys of token issuers.
    pub keys: Arc<KeyRing>,
    /// Documents that the configuration refers to.
    pub documents: Option<Arc<dyn Documents>>,
    pub plans: Arc<Plans>,
    /// The counters of this process.
    pub limits: Arc<LimitTable>,
    pub quotas: Arc<QuotaBook>,
    /// Those of several nodes together; `None`: each counts for itself.
    pub shared: Option<Arc<dyn SharedCounters>>,
    pub breakers: Arc<Breakers>,
    pub certificates: Arc<CertificateTally>,
    /// Of all issuers, by hash.
    pub tokens: Arc<RememberedTokens>,
    /// Proofs of possession that were used.
    pub proofs: Arc<Proofs>,
    pub opa: Option<Arc<dyn RemoteOpa>>,
}

/// Fetches key sets over the network.
pub trait KeyFetcher: Send + Sync + fmt::Debug {
    /// Starts to fetch a key set on a runtime that outlives the caller, and returns at once. What
    /// comes back, or why nothing did, goes to `delivery` within a bounded time: requests wait for
    /// it.
    fn start(&self, at: &KeysAt, delivery: Delivery);
}

/// Reads documents while an engine is built.
pub trait Documents: Send + Sync + fmt::Debug {
    /// The text of the file, or why it cannot be read, for the operator.
    fn read_file(&self, path: &str) -> Result<String, String>;
    /// The approved contract of a service, as `OpenAPI` or UAC text.
    fn read_contract(&self, service: &str) -> Result<String, String>;
}
