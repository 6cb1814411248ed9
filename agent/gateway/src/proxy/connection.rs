//! One accepted connection: who is at its other end, and which protocol it speaks.

use std::{
    future::poll_fn, io, net::SocketAddr, pin::pin, rc::Rc, sync::Arc, task::Poll, time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode};
use stoa_policy::context::{ClientCertificate, Door};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Worker, http1, http2,
    pool::Pool,
    proxy_protocol,
    request::{Record, Request},
    stream::Stream,
};
use crate::{
    catalog::{Listener, document::ListenerProtocol, routes::Timeouts},
    drain::Watcher,
    tls,
};

/// TLS, and the first bytes of a request, have this long.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Where a connection comes from, and where it goes if no route decides that.
pub struct Origin {
    /// The client: the other end, or what a PROXY header said.
    pub source: SocketAddr,
    pub local: SocketAddr,
    pub is_tls: bool,
    pub certificate: Option<ClientCertificate>,
    /// Where a redirected connection was going.
    pub destination: Option<SocketAddr>,
    pub door: Door,
    /// Its `Forwarded` and `X-Forwarded-*` are believed.
    pub is_trusted: bool,
    pub fixed: Option<Fixed>,
    source_text: HeaderValue,
}

/// The one upstream of a redirected connection.
pub struct Fixed {
    pub pool: Rc<Pool>,
    /// Of the workload.
    pub tenant: Arc<str>,
    /// A policy set by name; each request finds it in the configuration of its time.
    pub policies: Option<Arc<str>>,
    /// For policies, metrics, logs and spans: the workload's name.
    pub route: Arc<str>,
    /// The workload is the client, not the server.
    pub is_outgoing: bool,
    pub timeouts: Timeouts,
    pub overseer: Rc<dyn Overseer>,
    /// Of the workload: it is told to leave while the agent goes on.
    pub drain: Watcher,
}

/// Who a redirected connection belongs to.
pub trait Overseer {
    /// Whether this request passes without policies.
    fn is_exempt(&self, request: &Request) -> bool;

    /// What a request was answered; told when the answer's head is known.
    fn note(&self, record: &Record, status: StatusCode);

    /// How long an answer took that has gone, or was cut off.
    fn count(&self, status: StatusCode, took: Duration);
}

impl Origin {
    pub fn new(source: SocketAddr, local: SocketAddr, door: Door) -> Self {
        let text = source.ip().to_canonical().to_string();
        Self {
            source,
            local,
            is_tls: false,
            certificate: None,
            destination: None,
            door,
            is_trusted: false,
            fixed: None,
            source_text: HeaderValue::from_maybe_shared(Bytes::from(text))
                .unwrap_or(HeaderValue::from_static("unknown")),
        }
    }

    pub fn scheme(&self) -> &'static str {
        if self.is_tls { "https" } else { "http" }
    }

    /// Neither end knows of this gateway: it says nothing of itself, and what its patience would
    /// end goes on.
    pub fn is_unseen(&self) -> bool {
        self.door == Door::Redirect
    }

    /// What is known of a request before it is read.
    pub fn record(&self, started: Instant, method: &Method) -> Record {
        let mut record = Record::new(started, method);
        if let Some(fixed) = &self.fixed {
            record.route = Some(Arc::clone(&fixed.route));
            record.tenant = Some(Arc::clone(&fixed.tenant));
        }
        record
    }

    pub fn note(&self, record: &Record, status: StatusCode) {
        if let Some(fixed) = &self.fixed {
            fixed.overseer.note(record, status);
        }
    }

    /// The client's address as text.
    pub fn source_text(&self) -> &HeaderValue {
        &self.source_text
    }
}

/// Serves a connection of one of the catalog's listeners.
pub async fn serve_accepted(
    worker: Rc<Worker>,
    listener: Arc<Listener>,
    mut tcp: TcpStream,
    peer: SocketAddr,
) {
    let Ok(local) = tcp.local_addr() else { return };
    let (mut source, mut local) = (peer, local);
    if listener.proxy_protocol_from.iter().any(|n| n.contains(peer.ip())) {
        match proxy_protocol::receive(&mut tcp).await {
            Ok(Some(said)) => (source, local) = said,
            Ok(None) => {}
            Err(error) => {
                worker.counters.connections_refused.add(1);
                tracing::debug!(%peer, %error, "connection refused");
                return;
            }
        }
    }
    if let Err(refused) = worker.view().catalog.connections.check(source.ip()) {
        worker.counters.refuse(refused);
        // Reset, so that no state of it stays here (TIME_WAIT), which a flood would make many of.
        let _ = tcp.set_zero_linger();
        tracing::debug!(%peer, %source, reason = refused.name(), "connection refused");
        return;
    }
    let mut origin = Origin::new(source, local, Door::Proxy);
    origin.is_trusted = listener.trusted_proxies.iter().any(|n| n.contains(source.ip()));
    let stream = match &listener.tls {
        None => Stream::Tcp(tcp),
        Some(config) => {
            let acceptor = TlsAcceptor::from(Arc::clone(config));
            match timeout(HANDSHAKE_WITHIN, acceptor.accept(tcp)).await {
                Ok(Ok(stream)) => {
                    let (_, session) = stream.get_ref();
                    origin.certificate = session
                        .peer_certificates()
                        .and_then(|chain| chain.first())
                        .and_then(|leaf| tls::peer::describe(leaf));
                    origin.is_tls = true;
                    let is_http2 = session.alpn_protocol() == Some(b"h2");
                    let stream = Stream::ServerTls(Box::new(stream));
                    if is_http2 {
                        return http2::serve(worker, origin, stream, BytesMut::new()).await;
                    }
                    stream
                }
                Ok(Err(error)) => {
                    worker.counters.tls_failures.add(1);
                    tracing::debug!(%peer, %error, "TLS handshake failed");
                    return;
                }
                Err(_) => {
                    worker.counters.tls_failures.add(1);
                    return;
                }
            }
        }
    };
    serve_stream(worker, origin, stream, BytesMut::new(), listener.protocol).await;
}

/// Serves a connection of any kind. `read` is what was read of it already.
pub async fn serve_stream(
    worker: Rc<Worker>,
    origin: Origin,
    mut stream: Stream,
    mut read: BytesMut,
    protocol: ListenerProtocol,
) {
    let is_http2 = match protocol {
        ListenerProtocol::Http1 => false,
        ListenerProtocol::Http2 => true,
        ListenerProtocol::Auto => {
            match timeout(HANDSHAKE_WITHIN * 6, detect_http2(&worker, &mut stream, &mut read)).await
            {
                Ok(Ok(is_http2)) => is_http2,
                _ => return,
            }
        }
    };
    match is_http2 {
        true => http2::serve(worker, origin, stream, read).await,
        false => http1::server::serve(&worker, &origin, stream, read).await,
    }
}

/// Whether the client speaks HTTP/2 with prior knowledge: decided by the first byte that differs
/// from the preface, so mostly by the very first one.
async fn detect_http2(
    worker: &Worker,
    stream: &mut Stream,
    read: &mut BytesMut,
) -> io::Result<bool> {
    let mut draining = pin!(worker.drain.draining());
    poll_fn(|cx| {
        loop {
            let compared = read.len().min(HTTP2_PREFACE.len());
            if compared > 0 && read.get(..compared) != HTTP2_PREFACE.get(..compared) {
                return Poll::Ready(Ok(false));
            }
            if compared == HTTP2_PREFACE.len() {
                return Poll::Ready(Ok(true));
            }
            if read.capacity() == read.len() {
                read.reserve(8 << 10);
            }
            match stream.poll_fill(cx, read) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if read.is_empty() => {
                    use std::future::Future;
                    return draining
                        .as_mut()
                        .poll(cx)
                        .map(|()| Err(io::ErrorKind::ConnectionAborted.into()));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}
