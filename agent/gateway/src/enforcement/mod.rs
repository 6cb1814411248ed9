//! What the policy engine needs from outside, with IO: issuers' keys, documents,
//! counters that nodes share (Redis) or that survive a restart (redb), a real OPA.

pub mod documents;
pub mod http_client;
pub mod jwks;
pub mod opa;
pub mod quota_store;
pub mod redis;

use std::{path::Path, sync::Arc};

use stoa_policy::outside::{KeyRing, Outside};
use tokio::runtime::Handle;

use self::{
    http_client::{HttpClient, HttpClientError},
    jwks::JwksFetcher,
};

/// Made once, and handed to every engine that is built: what was fetched outlives a reload.
///
/// `control` is where waiting is done, off the data path. `authorities`: certificates to trust
/// beside the system's, PEM.
pub fn outside(control: Handle, authorities: Option<&Path>) -> Result<Outside, HttpClientError> {
    let client = HttpClient::new(authorities)?;
    Ok(Outside {
        keys: Arc::new(KeyRing::new(Arc::new(JwksFetcher::new(client, control)))),
        ..Outside::default()
    })
}
