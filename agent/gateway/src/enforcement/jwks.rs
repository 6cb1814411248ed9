//! Fetches the key sets of token issuers.

use std::time::Duration;

use http::{StatusCode, Uri};
use serde::Deserialize;
use stoa_policy::outside::{Delivery, KeyFetcher, KeysAt};
use tokio::runtime::Handle;

use super::http_client::HttpClient;

/// Requests wait for the first fetch.
const WITHIN: Duration = Duration::from_secs(5);
/// An issuer's keys have a few kilobytes.
const MOST_BYTES: usize = 512 << 10;

#[derive(Debug)]
pub struct JwksFetcher {
    client: HttpClient,
    runtime: Handle,
}

impl JwksFetcher {
    /// Fetches on `runtime`, which lives as long as the agent.
    pub fn new(client: HttpClient, runtime: Handle) -> Self {
        Self { client, runtime }
    }
}

impl KeyFetcher for JwksFetcher {
    fn start(&self, at: &KeysAt, delivery: Delivery) {
        let client = self.client.clone();
        let (at, url) = (at.clone(), at.url());
        // A runtime that shuts down drops the task and with it the delivery, which then says so.
        self.runtime.spawn(async move {
            let answer = fetch_keys(&client, &at).await;
            match &answer {
                Ok(body) => tracing::debug!(url, bytes = body.len(), "fetched an issuer's keys"),
                Err(reason) => tracing::warn!(url, reason, "an issuer's keys could not be fetched"),
            }
            delivery.deliver(answer.as_deref().map_err(Clone::clone));
        });
    }
}

/// Where an issuer's keys are, of what it says of itself (OpenID Connect Discovery 1.0, section 3).
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
}

async fn fetch_keys(client: &HttpClient, at: &KeysAt) -> Result<bytes::Bytes, String> {
    let issuer = match at {
        KeysAt::Url(url) => return fetch(client, url).await,
        KeysAt::Issuer(issuer) => issuer,
    };
    let url = at.url();
    let answer = fetch(client, &url).await?;
    let metadata: Metadata = serde_json::from_slice(&answer)
        .map_err(|error| format!("{url} does not say where the keys are: {error}"))?;
    // Section 4.3: letter by letter, or anybody could stand in for the issuer.
    if metadata.issuer != *issuer {
        return Err(format!(
            "{url} is of the issuer `{}`, not of `{issuer}`: write the `iss` of your tokens, \
             letter by letter",
            metadata.issuer.escape_debug()
        ));
    }
    if issuer.starts_with("https://") && !metadata.jwks_uri.starts_with("https://") {
        return Err(format!(
            "{url} names keys that are not behind https, which anybody could forge"
        ));
    }
    fetch(client, &metadata.jwks_uri).await
}

async fn fetch(client: &HttpClient, url: &str) -> Result<bytes::Bytes, String> {
    let uri: Uri = url.parse().map_err(|_| format!("{url} is not a URL"))?;
    let answer = client.get(uri, WITHIN, MOST_BYTES).await.map_err(|error| error.to_string())?;
    match answer.status() {
        StatusCode::OK => Ok(answer.into_body()),
        status if status.is_redirection() => {
            Err(format!("the issuer answered {status}: give the URL that it redirects to"))
        }
        status => Err(format!("the issuer answered {status}")),
    }
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
