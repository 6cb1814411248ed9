//! A real OPA by its data API (`--opa-endpoint`): `POST /v1/data/...` over kept connections.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use serde_json::Value;
use stoa_policy::{
    counters::Waiting,
    rego::{OpaUnavailable, RemoteOpa},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time,
};
use tokio_rustls::TlsConnector;

/// Connections kept for the next request.
const MOST_IDLE: usize = 64;
const LONGEST_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
#[error(
    "--opa-endpoint `{0}` is no address of an OPA. Give http://HOST:PORT or https://HOST:PORT, \
     such as http://127.0.0.1:8181"
)]
pub struct OpaEndpointError(String);

/// An OPA somewhere.
pub struct OpaClient {
    /// `HOST:PORT`
    authority: String,
    /// What stands before `/v1/data`.
    prefix: String,
    timeout: Duration,
    /// With the name that its certificate must have.
    tls: Option<(TlsConnector, ServerName<'static>)>,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    is_failing: AtomicBool,
    failures: AtomicU64,
}

#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("it takes no connection: {0}")]
    Connect(#[from] std::io::Error),
    #[error("the exchange failed: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is longer than {LONGEST_ANSWER} bytes, or was cut off")]
    Body,
    #[error("its answer is no JSON object")]
    Malformed,
    #[error("it did not answer in time")]
    Timeout,
}

impl fmt::Debug for OpaClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpaClient").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl OpaClient {
    /// `tls` is for `https`.
    pub fn new(
        endpoint: &str,
        timeout: Duration,
        tls: ClientConfig,
    ) -> Result<Self, OpaEndpointError> {
        // A password is not shown.
        let refused = || {
            let shown = endpoint.rsplit_once('@').map_or(endpoint, |(_, host)| host);
            OpaEndpointError(shown.to_owned())
        };
        let uri: Uri = endpoint.parse().map_err(|_| refused())?;
        let is_tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(refused()),
        };
        // OPA asks for none.
        let has_user = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
        if uri.query().is_some() || has_user {
            return Err(refused());
        }
        let host = uri.host().ok_or_else(refused)?;
        let tls = match is_tls {
            false => None,
            true => {
                let name = host.trim_start_matches('[').trim_end_matches(']').to_owned();
                let name = ServerName::try_from(name).map_err(|_| refused())?;
                Some((TlsConnector::from(Arc::new(tls)), name))
            }
        };
        let default_port = if is_tls { 443 } else { 80 };
        let prefix = uri.path().trim_end_matches('/');
        Ok(Self {
            authority: format!("{host}:{}", uri.port_u16().unwrap_or(default_port)),
            prefix: prefix.strip_suffix("/v1/data").unwrap_or(prefix).to_owned(),
            timeout,
            tls,
            idle: Mutex::default(),
            is_failing: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        })
    }

    /// Questions that were not answered.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Since the last question.
    pub fn is_failing(&self) -> bool {
        self.is_failing.load(Relaxed)
    }

    async fn ask(&self, path: &str, body: Bytes) -> Result<Option<Value>, CallError> {
        // OPA closes a connection that was idle for long, perhaps just now: then a new one.
        while let Some(mut kept) = self.take_idle() {
            if kept.ready().await.is_err() {
                continue;
            }
            match self.exchange(kept, path, body.clone()).await {
                Err(CallError::Exchange(error)) if error.is_canceled() => {}
                answer => return answer,
            }
        }
        let stream = TcpStream::connect(&self.authority).await?;
        stream.set_nodelay(true)?;
        let sender = match &self.tls {
            None => begin(stream).await?,
            Some((connector, name)) => {
                begin(connector.connect(name.clone(), stream).await?).await?
            }
        };
        self.exchange(sender, path, body).await
    }

    async fn exchange(
        &self,
        mut sender: SendRequest<Full<Bytes>>,
        path: &str,
        body: Bytes,
    ) -> Result<Option<Value>, CallError> {
        let request = Request::post(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|_| CallError::Malformed)?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LONGEST_ANSWER).collect().await;
        let body = body.map_err(|_| CallError::Body)?.to_bytes();
        self.put_back(sender);
        if status != StatusCode::OK {
            return Err(CallError::Status(status));
        }
        match serde_json::from_slice(&body) {
            Ok(Value::Object(mut answer)) => Ok(answer.remove("result")),
            _ => Err(CallError::Malformed),
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    fn put_back(&self, sender: SendRequest<Full<Bytes>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < MOST_IDLE {
            idle.push(sender);
        }
    }
}

async fn begin<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors come out at the sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// `data.stoa.authz.allow` -> `/v1/data/stoa/authz/allow`.
fn path_of(prefix: &str, rule: &str) -> String {
    let rule = rule.strip_prefix("data.").unwrap_or(rule);
    format!("{prefix}/v1/data/{}", rule.replace('.', "/"))
}

impl RemoteOpa for OpaClient {
    fn evaluate<'a>(
        &'a self,
        rule: &'a str,
        input: &'a str,
    ) -> Waiting<'a, Result<Option<Value>, OpaUnavailable>> {
        Box::pin(async move {
            let path = path_of(&self.prefix, rule);
            let body = Bytes::from(format!("{{\"input\":{input}}}"));
            let answer = time::timeout(self.timeout, self.ask(&path, body)).await;
            match answer.unwrap_or(Err(CallError::Timeout)) {
                Ok(value) => {
                    if self.is_failing.swap(false, Relaxed) {
                        tracing::info!(opa = self.authority, "OPA answers again");
                    }
                    Ok(value)
                }
                Err(error) => {
                    self.failures.fetch_add(1, Relaxed);
                    if !self.is_failing.swap(true, Relaxed) {
                        tracing::error!(opa = self.authority, %error, "OPA does not decide");
                    }
                    Err(OpaUnavailable)
                }
            }
        })
    }
}
