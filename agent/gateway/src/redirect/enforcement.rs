//! HTTP of steered connections, request by request through the policies.
//!
//! Each client's connection has one of its own to the application, made in the client's name. The
//! application gets what the client sent: no field tells of the agent, but for the parent of a
//! trace where traces are on, and what only the patience of a gateway would end goes on.

use std::{
    cell::Cell,
    future::Future,
    io,
    mem::MaybeUninit,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::StatusCode;
use stoa_policy::context::Door;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    connection::connect,
    detect::Protocol,
    dial::{Dialed, Next},
    metrics::Metrics,
    programs::Peers,
    workload::{Counts, Direction, Workload},
};
use crate::{
    catalog::{
        document::{Balance, ListenerProtocol, UpstreamProtocol},
        live::LiveCatalog,
        routes::Timeouts,
        upstreams::{Authority, Endpoint, Host, IDLE_TIMEOUT, Upstream},
    },
    config::proxy::ProxySettings,
    drain::Watcher,
    proxy::{
        self,
        connection::{Fixed, Origin, Overseer, serve_stream},
        pool::{Connect, Pool},
        request::{Record, Request},
        stream::{self, Io, Stream},
    },
    telemetry::{Telemetry, access_log::AccessLog},
};

/// The set of workloads that name none.
const DEFAULT_SET: &str = "default";
/// Longer than a dial may take, which knows best.
const CONNECT_WITHIN: Duration = Duration::from_secs(30);
/// What direct connections are not bound by, steered ones are not either.
const TIMEOUTS: Timeouts = Timeouts { request: None, upstream: None, idle: None };

/// What decides, for all threads.
#[derive(Clone)]
pub struct Enforcement {
    pub live: Arc<LiveCatalog>,
    pub access_log: Arc<AccessLog>,
    pub telemetry: Telemetry,
    /// The set `default` that flags and variables make is for workloads too. That of sidecar mode
    /// is not: it believes what another gateway states of its users.
    pub has_default_of_settings: bool,
}

/// One thread's.
#[derive(Clone)]
pub(super) struct Enforcer {
    worker: Rc<proxy::Worker>,
    has_default_of_settings: bool,
}

/// A connection that turned out to be HTTP.
pub(super) struct Begun<'a> {
    pub client: Rc<TcpStream>,
    pub application: Dialed,
    pub protocol: Protocol,
    /// What was read of it.
    pub first: Vec<u8>,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub workload: &'a Arc<Workload>,
    pub direction: Direction,
    pub peers: &'a Peers,
}

impl Enforcer {
    pub(super) fn new(
        enforcement: &Enforcement,
        settings: &Arc<ProxySettings>,
        metrics: &Metrics,
        drain: Watcher,
    ) -> Self {
        let shared = proxy::Shared {
            settings: Arc::clone(settings),
            live: Arc::clone(&enforcement.live),
            registry: Arc::clone(&metrics.requests),
            access_log: Arc::clone(&enforcement.access_log),
            telemetry: enforcement.telemetry.clone(),
            own_answers: Arc::new(|_| None),
            most_idle: 0,
        };
        Self {
            worker: proxy::Worker::new(shared, drain),
            has_default_of_settings: enforcement.has_default_of_settings,
        }
    }

    /// The policies that a new connection of the workload goes through; `None`: it passes untouched.
    pub(super) fn policies_of(
        &self,
        workload: &Workload,
        direction: Direction,
    ) -> Option<Arc<str>> {
        if direction == Direction::Outbound {
            // The default is about who may call the workload.
            return workload.outbound.as_ref()?.policies.clone();
        }
        if let Some(named) = &workload.policies {
            return Some(Arc::clone(named));
        }
        let view = self.worker.view();
        let has_default = view.catalog.policies.contains_key(DEFAULT_SET)
            || (self.has_default_of_settings && view.catalog.engine.find(DEFAULT_SET).is_some());
        has_default.then(|| DEFAULT_SET.into())
    }

    /// Until one of the ends has ended.
    pub(super) async fn serve(&self, begun: Begun<'_>, policies: Arc<str>) {
        let Begun { client, application, protocol, first, from, to, workload, direction, peers } =
            begun;
        // A workload's own end is on loopback, where it was led to.
        let source = match direction {
            Direction::Inbound => from,
            Direction::Outbound => application.stream.local_addr().unwrap_or(from),
        };
        let (listener, upstream) = match protocol {
            Protocol::Http2 => (ListenerProtocol::Http2, UpstreamProtocol::Http2),
            _ => (ListenerProtocol::Http1, UpstreamProtocol::Http1),
        };
        let dialer = Dialer {
            workload: Arc::clone(workload),
            direction,
            peers: peers.clone(),
            from,
            to,
            first: Cell::new(Some(application)),
        };
        let upstream = Upstream {
            // Never that of a configured one, which may have a circuit breaker.
            name: match direction {
                Direction::Inbound => format!("workload/{}", workload.name).into(),
                Direction::Outbound => format!("destination/{to}").into(),
            },
            endpoints: vec![Endpoint {
                address: Authority { host: Host::Ip(to.ip()), port: to.port() },
                weight: 1,
            }],
            balance: Balance::default(),
            protocol: upstream,
            tls: None,
            send_proxy_protocol: false,
            connect_timeout: CONNECT_WITHIN,
            idle_timeout: IDLE_TIMEOUT,
            fingerprint: String::new(),
        };
        let client_ip = from.ip().to_canonical();
        let oversight = Oversight {
            is_from_node: direction == Direction::Inbound
                && workload.spec.node_addresses.iter().any(|a| a.to_canonical() == client_ip),
            port: to.port(),
            workload: Arc::clone(workload),
            direction,
        };
        let mut origin = Origin::new(source, to, Door::Redirect);
        origin.destination = Some(to);
        origin.fixed = Some(Fixed {
            pool: Pool::new(Arc::new(upstream), 1, Some(Rc::new(dialer))),
            tenant: Arc::clone(&workload.tenant),
            policies: Some(policies),
            route: Arc::clone(&workload.name),
            is_outgoing: direction == Direction::Outbound,
            timeouts: TIMEOUTS,
            overseer: Rc::new(oversight),
            drain: workload.drain.watch(),
        });
        let stream = Stream::Other(Box::new(Client(client)));
        let read = BytesMut::from(first.as_slice());
        serve_stream(Rc::clone(&self.worker), origin, stream, read, listener).await;
    }
}

/// Connects to the application, in the client's name.
struct Dialer {
    workload: Arc<Workload>,
    direction: Direction,
    peers: Peers,
    from: SocketAddr,
    to: SocketAddr,
    /// Made before it was known what the client speaks.
    first: Cell<Option<Dialed>>,
}

impl Connect for Dialer {
    fn connect<'a>(
        &'a self,
        _origin: &'a Origin,
    ) -> Pin<Box<dyn Future<Output = io::Result<Stream>> + 'a>> {
        Box::pin(async move {
            if let Some(first) = self.first.take()
                && !has_ended(&first.stream)
            {
                return Ok(Stream::Other(Box::new(first)));
            }
            let Self { workload, direction, peers, from, to, .. } = self;
            let dialed = connect(workload, *direction, peers, (*from, *to), Next::Soon).await;
            let dialed = dialed.map_err(io::Error::other)?;
            Ok(Stream::Other(Box::new(dialed)))
        })
    }
}

/// Whether the application has closed it, having said nothing.
fn has_ended(stream: &TcpStream) -> bool {
    match socket2::SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]) {
        Ok(read) => read == 0,
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
    }
}

/// What the workload's owner has said, and what is counted.
struct Oversight {
    workload: Arc<Workload>,
    direction: Direction,
    is_from_node: bool,
    port: u16,
}

impl Overseer for Oversight {
    /// Health probes of the node. Everything must fit: the address alone is that of whatever the
    /// node masquerades, and the path alone may be asked for by anyone.
    fn is_exempt(&self, request: &Request) -> bool {
        let is_probe = self.is_from_node
            && self.workload.spec.probes.iter().any(|probe| {
                probe.port == self.port
                    && probe.method == request.method.as_str()
                    && probe.path == request.target.as_str()
            });
        if is_probe {
            Counts::add(&self.workload.counts.exempt);
        }
        is_probe
    }

    fn note(&self, record: &Record, status: StatusCode) {
        let counts = self.workload.counts_of(self.direction);
        // What the policies have let pass has an upstream.
        let has_passed = record.upstream.is_some();
        let denied_by = record.policy.or(match record.code {
            Some(code @ "policies_missing") => Some(code),
            _ => None,
        });
        Counts::add(&counts.requests);
        Counts::add(match (denied_by, has_passed) {
            (Some(_), false) => &counts.denied,
            (Some(_), true) => &counts.withheld,
            (None, false) => &counts.invalid,
            (None, true) if record.code.is_some() => &counts.failed,
            (None, true) => &counts.passed,
        });
        if let (Some(policy), false, Some(observed), Direction::Inbound) =
            (denied_by, has_passed, &self.workload.observed, self.direction)
        {
            observed.capture.count_denied(&observed.service, policy, status);
        }
    }

    fn count(&self, status: StatusCode, took: Duration) {
        self.workload.counts_of(self.direction).answers.count(status, took);
    }
}

/// The client's connection. Whoever serves it keeps a handle, to be able to reset it.
struct Client(Rc<TcpStream>);

impl Io for Client {
    fn acknowledge(&self) {
        stream::acknowledge(&self.0);
    }
}

impl AsyncRead for Client {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            ready!(self.0.poll_read_ready(cx))?;
            match self.0.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other.map(|_| ())),
            }
        }
    }
}

impl Client {
    fn poll_with(
        &self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.0.poll_write_ready(cx))?;
            match write(&self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream| stream.try_write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_with(cx, |stream| stream.try_write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(super::relay::shut(&self.0))
    }
}

impl Io for Dialed {
    fn acknowledge(&self) {
        stream::acknowledge(&self.stream);
    }
}

impl AsyncRead for Dialed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Dialed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
