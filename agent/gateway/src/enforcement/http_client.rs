//! A small HTTP client for what is not traffic: issuers' keys and other services that policies ask.
//! Connections are pooled; every answer is bounded in size and time; redirects are not followed.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::ClientConfig;

#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    #[error("cannot connect: {0}; is the address right, and the service up?")]
    Connect(String),
    #[error("the exchange failed: {0}")]
    Exchange(String),
    #[error("no answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("the answer is longer than {0} bytes")]
    Long(usize),
}

const CONNECT_WITHIN: Duration = Duration::from_secs(3);
const IDLE_CONNECTIONS: usize = 8;
const IDLE_FOR: Duration = Duration::from_secs(60);

/// Cheap to clone. Used on one runtime, where its connections live.
#[derive(Clone, Debug)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl HttpClient {
    pub fn new(tls: ClientConfig) -> Self {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(IDLE_FOR)
            .build(connector);
        Self { client }
    }

    /// The whole answer, whatever its status, of at most `most` bytes.
    pub async fn send(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, HttpClientError> {
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                let reason = causes(&error);
                if error.is_connect() {
                    HttpClientError::Connect(reason)
                } else {
                    HttpClientError::Exchange(reason)
                }
            })?;
            let (head, body) = response.into_parts();
            let body =
                Limited::new(body, most).collect().await.map_err(|error| match error
                    .downcast_ref::<LengthLimitError>(
                ) {
                    Some(_) => HttpClientError::Long(most),
                    None => HttpClientError::Exchange(causes(error.as_ref())),
                })?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(within, exchange)
            .await
            .unwrap_or_else(|_| Err(HttpClientError::Late(within)))
    }

    pub async fn get(
        &self,
        uri: Uri,
        within: Duration,
        most: usize,
    ) -> Result<Response<Bytes>, HttpClientError> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = uri;
        self.send(request, within, most).await
    }
}

/// An error with what lies below it: hyper's own says only where it was met.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut below = error.source();
    while let Some(cause) = below {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        below = cause.source();
    }
    text
}
