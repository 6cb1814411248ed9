//! A small HTTP client for what is not traffic: issuers' keys and other services that policies ask.
//! Connections are pooled; every answer is bounded in size and time; redirects are not followed.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

#[derive(Debug, thiserror::Error)]
pub enum HttpClientError {
    #[error("cannot read the certificates in {file}: {reason}; give a PEM file of authorities")]
    Authorities { file: String, reason: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
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
    /// Trusts the system's authorities, and those of the PEM file.
    pub fn new(authorities: Option<&Path>) -> Result<Self, HttpClientError> {
        let mut roots = RootCertStore::empty();
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "an authority of the system could not be read");
        }
        roots.add_parsable_certificates(native.certs);
        if let Some(file) = authorities {
            add_authorities(&mut roots, file)?;
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
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
        Ok(Self { client })
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

fn add_authorities(roots: &mut RootCertStore, file: &Path) -> Result<(), HttpClientError> {
    let wrong =
        |reason: String| HttpClientError::Authorities { file: file.display().to_string(), reason };
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| wrong(error.to_string()))?;
    let mut count = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        count += 1;
    }
    if count == 0 {
        return Err(wrong(io::Error::from(io::ErrorKind::NotFound).to_string()));
    }
    Ok(())
}
