//! What the policy engine needs from outside, with IO: issuers' keys, documents,
//! counters that nodes share (Redis) or that survive a restart (redb), a real OPA.

pub mod authorities;
pub mod documents;
pub mod http_client;
pub mod jwks;
pub mod opa;
pub mod quota_store;
pub mod redis;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serde_json::{Value, json};
use stoa_policy::{
    circuit_breaker::State,
    counters::SharedCounters,
    outside::{KeyRing, Outside},
    rego::RemoteOpa,
};
use tokio::runtime::Handle;

use self::{
    authorities::{Authorities, AuthoritiesError},
    http_client::HttpClient,
    jwks::JwksFetcher,
    opa::{OpaClient, OpaEndpointError},
    quota_store::{QuotaKeeper, QuotaStoreError},
    redis::{RedisOptions, RedisUrlError, SharedInRedis},
};

#[derive(Debug, thiserror::Error)]
pub enum EnforcementError {
    #[error("{0}")]
    Authorities(#[from] AuthoritiesError),
    #[error("{0}")]
    Redis(#[from] RedisUrlError),
    #[error("{0}")]
    Opa(#[from] OpaEndpointError),
}

/// What to connect to. `None`: there is none.
#[derive(Clone)]
pub struct EnforcementSettings {
    /// Its URL, which may hold a password.
    pub redis: Option<(String, RedisOptions)>,
    pub opa: Option<OpaSettings>,
    /// PEM, of authorities to believe beside the system's.
    pub ca_file: Option<PathBuf>,
    /// How long quota counts may be in memory only.
    pub write_quotas_every: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaSettings {
    /// `http://HOST:PORT` or `https://HOST:PORT`
    pub endpoint: String,
    /// For one answer.
    pub timeout: Duration,
}

/// Without the password.
impl std::fmt::Debug for EnforcementSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let redis = self.redis.as_ref().map(|(_, options)| options);
        f.debug_struct("EnforcementSettings")
            .field("redis", &redis)
            .field("opa", &self.opa)
            .finish()
    }
}

/// Made once for the agent: what was fetched and counted outlives a reload.
pub struct Enforcement {
    /// Handed to every engine that is built.
    pub outside: Outside,
    pub redis: Option<Arc<SharedInRedis>>,
    pub opa: Option<Arc<OpaClient>>,
    pub quotas: QuotaKeeper,
}

impl Enforcement {
    /// `control` is where waiting is done, off the data path. Neither Redis nor OPA needs to be
    /// there yet.
    pub fn start(
        settings: &EnforcementSettings,
        state_dir: &Path,
        control: &Handle,
    ) -> Result<Arc<Self>, EnforcementError> {
        let authorities = Authorities::load(settings.ca_file.as_deref())?;
        let client = HttpClient::new(authorities.client_config()?);
        let redis = match &settings.redis {
            Some((url, options)) => {
                Some(Arc::new(SharedInRedis::start(url, *options, &authorities, control)?))
            }
            None => None,
        };
        let opa = match &settings.opa {
            Some(OpaSettings { endpoint, timeout }) => {
                let tls = authorities.client_config()?;
                Some(Arc::new(OpaClient::new(endpoint, *timeout, tls)?))
            }
            None => None,
        };
        let outside = Outside {
            keys: Arc::new(KeyRing::new(Arc::new(JwksFetcher::new(client, control.clone())))),
            shared: redis.clone().map(|redis| redis as Arc<dyn SharedCounters>),
            opa: opa.clone().map(|opa| opa as Arc<dyn RemoteOpa>),
            ..Outside::default()
        };
        let quotas =
            QuotaKeeper::new(state_dir, Arc::clone(&outside.quotas), settings.write_quotas_every);
        Ok(Arc::new(Self { outside, redis, opa, quotas }))
    }

    /// For a configuration that has quotas. Those in Redis are Redis' to keep: an agent that shares
    /// them needs no directory of its own.
    pub fn keep_quotas(&self) -> Result<(), QuotaStoreError> {
        match self.redis {
            Some(_) => Ok(()),
            None => self.quotas.start(),
        }
    }

    /// What the policies depend on, and how it is, for `/health/ready`. None of it makes the agent
    /// unready: each has its own way to go on, and without all agents nothing would.
    pub fn components(&self) -> Value {
        let quotas = self.redis.as_ref().map_or_else(|| self.quotas.state(), |_| "shared");
        let mut components = json!({ "quotas": {"state": quotas} });
        if let Some(redis) = &self.redis {
            components["redis"] = json!({
                "state": redis.state(),
                "on_loss": redis.on_loss().name(),
            });
        }
        if let Some(opa) = &self.opa {
            let state = if opa.is_failing() { "failing" } else { "answering" };
            components["opa"] = json!({ "state": state });
        }
        let breakers = self.outside.breakers.all();
        let open: Vec<&str> = breakers
            .iter()
            .filter(|breaker| breaker.state() != State::Closed)
            .map(|breaker| breaker.name())
            .collect();
        components["circuit_breakers"] = json!({ "configured": breakers.len(), "open": open });
        components
    }
}
