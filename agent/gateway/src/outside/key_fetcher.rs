//! Key sets of token issuers, over HTTP and HTTPS.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header, uri::Scheme};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use stoa_policy::outside::{Delivery, KeyFetcher};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
};
use tokio_rustls::TlsConnector;

use crate::{
    catalog::{
        document::{UpstreamProtocol, UpstreamTlsDocument},
        files::Files,
    },
    tls,
};

/// Requests wait for a fetch: whoever publishes keys answers at once or not.
const WITHIN: Duration = Duration::from_secs(5);
/// A hundred keys are some 100 KiB.
const LONGEST: usize = 1 << 20;

pub struct HttpKeyFetcher {
    /// Of a runtime that outlives the workers' requests.
    runtime: Handle,
}

#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("is not a URL such as https://sso.example.com/certs")]
    NotAUrl,
    #[error("cannot be reached: {0}")]
    Unreachable(#[from] std::io::Error),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] tls::TlsError),
    #[error("did not answer as HTTP does: {0}")]
    Http(#[from] hyper::Error),
    #[error("answered {0}; is the address right?")]
    Status(StatusCode),
    #[error("answered more than {LONGEST} bytes, or broke off")]
    Body,
    #[error("did not answer within {WITHIN:?}")]
    Late,
}

impl HttpKeyFetcher {
    pub fn new(runtime: Handle) -> Self {
        Self { runtime }
    }
}

impl fmt::Debug for HttpKeyFetcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HttpKeyFetcher")
    }
}

impl KeyFetcher for HttpKeyFetcher {
    fn start(&self, url: &str, delivery: Delivery) {
        let url = url.to_owned();
        self.runtime.spawn(async move {
            let fetched = tokio::time::timeout(WITHIN, fetch(&url)).await;
            match fetched.unwrap_or(Err(FetchError::Late)) {
                Ok(body) => {
                    tracing::debug!(%url, bytes = body.len(), "keys fetched");
                    delivery.deliver(Ok(&body));
                }
                Err(error) => {
                    tracing::warn!(%url, %error, "keys could not be fetched");
                    delivery.deliver(Err(format!("{url} {error}")));
                }
            }
        });
    }
}

async fn fetch(url: &str) -> Result<Bytes, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::NotAUrl)?;
    let host = uri.host().ok_or(FetchError::NotAUrl)?;
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let is_tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        Some(scheme) if *scheme == Scheme::HTTP => false,
        _ => return Err(FetchError::NotAUrl),
    };
    let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    if !is_tls {
        return get(&uri, stream).await;
    }
    let name = ServerName::try_from(host).map_err(|_| FetchError::NotAUrl)?;
    let connector = TlsConnector::from(configuration().await?);
    get(&uri, connector.connect(name, stream).await?).await
}

/// Made anew for each fetch, of which there are few: what the system trusts may change.
async fn configuration() -> Result<Arc<ClientConfig>, FetchError> {
    let configuring = tokio::task::spawn_blocking(|| {
        let document = UpstreamTlsDocument::default();
        tls::client::configure(&document, UpstreamProtocol::Http1, &mut Files::default())
    });
    let configured = configuring.await.map_err(std::io::Error::other)?;
    Ok(configured?)
}

async fn get<S>(uri: &Uri, stream: S) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let driver = tokio::spawn(connection);
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    // Credentials in a URL are for `Authorization`, not for `Host`.
    let host = authority.rsplit('@').next().unwrap_or_default();
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    let request = Request::get(target)
        .header(header::HOST, host)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("stoa-gateway/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::NotAUrl)?;
    let answered = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), LONGEST).collect().await;
        Ok(body.map_err(|_| FetchError::Body)?.to_bytes())
    }
    .await;
    driver.abort();
    answered
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// Answers one request with `answer`; what was asked.
    async fn exchange(answer: &'static str) -> (Result<Bytes, FetchError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/realms/a/certs?x=1", listener.local_addr().unwrap());
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 4096];
            let length = stream.read(&mut asked).await.unwrap();
            stream.write_all(answer.as_bytes()).await.unwrap();
            asked.truncate(length);
            String::from_utf8(asked).unwrap()
        });
        (fetch(&url).await, server.await.unwrap())
    }

    #[tokio::test]
    async fn the_body_of_a_good_answer_is_had() {
        let (fetched, asked) =
            exchange("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}").await;
        assert_eq!(fetched.unwrap(), "{\"keys\":[]}");
        assert!(
            asked.starts_with("GET /realms/a/certs?x=1 HTTP/1.1\r\nhost: 127.0.0.1:"),
            "{asked}"
        );
    }

    #[tokio::test]
    async fn everything_else_says_what_is_wrong() {
        let error = |fetched: Result<Bytes, FetchError>| fetched.unwrap_err().to_string();
        let (fetched, _) = exchange("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        assert!(error(fetched).contains("404"));
        let (fetched, _) = exchange("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{").await;
        assert!(error(fetched).contains("broke off"));
        let (fetched, _) = exchange("SSH-2.0\r\n").await;
        assert!(error(fetched).contains("as HTTP does"));
        for url in ["", "ftp://a/", "certs", "http:///x"] {
            assert!(error(fetch(url).await).contains("is not a URL"), "{url}");
        }
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        assert!(error(fetch(&format!("http://{closed}/")).await).contains("cannot be reached"));
    }
}
