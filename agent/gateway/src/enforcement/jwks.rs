//! Fetches the key sets of token issuers.

use std::time::Duration;

use http::{StatusCode, Uri};
use stoa_policy::outside::{Delivery, KeyFetcher};
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
    fn start(&self, url: &str, delivery: Delivery) {
        let client = self.client.clone();
        let url = url.to_owned();
        // A runtime that shuts down drops the task and with it the delivery, which then says so.
        self.runtime.spawn(async move {
            let answer = fetch(&client, &url).await;
            match &answer {
                Ok(body) => tracing::debug!(url, bytes = body.len(), "fetched an issuer's keys"),
                Err(reason) => tracing::warn!(url, reason, "an issuer's keys could not be fetched"),
            }
            delivery.deliver(answer.as_deref().map_err(Clone::clone));
        });
    }
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
