//! One worker's connections to its upstreams. Nothing here is shared with another thread.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use rustls::pki_types::ServerName;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::TlsConnector;

use super::{
    connection::Origin,
    error::UpstreamError,
    http1::client::Connection,
    http2::{self, Sender},
    proxy_protocol,
    random::Random,
    stream::Stream,
};
use crate::catalog::{
    document::{Balance, UpstreamProtocol},
    upstreams::{Authority, Endpoint, Host, Upstream},
};

/// How long a resolved name is used.
const RESOLVED_FOR: Duration = Duration::from_secs(10);
/// An endpoint that could not be connected to is passed over for so long, where there are others.
const DOWN_FOR: Duration = Duration::from_secs(5);
/// The window in which retries are counted against requests.
const BUDGET_WINDOW: Duration = Duration::from_secs(10);
/// Retries that a nearly unused upstream may have.
const FREE_RETRIES: u32 = 3;

/// Connects in a way of its own (into a pod, say).
pub trait Connect {
    fn connect<'a>(
        &'a self,
        origin: &'a Origin,
    ) -> Pin<Box<dyn Future<Output = io::Result<Stream>> + 'a>>;
}

/// One upstream, as one worker uses it.
pub struct Pool {
    pub upstream: Arc<Upstream>,
    endpoints: Vec<Rc<EndpointPool>>,
    is_weighted: bool,
    cursor: Cell<usize>,
    most_idle: usize,
    connector: Option<Rc<dyn Connect>>,
    budget: Cell<Budget>,
}

pub struct EndpointPool {
    endpoint: Endpoint,
    /// The host as a `Host` header has it.
    pub authority: String,
    /// The last one to be given back is the first to be used again.
    idle: RefCell<Vec<Idle>>,
    most_idle: usize,
    active: Cell<usize>,
    resolved: RefCell<Option<(Instant, Rc<[SocketAddr]>)>>,
    down_until: Cell<Option<Instant>>,
    http2: RefCell<Option<Sender>>,
    server_name: Option<ServerName<'static>>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

#[derive(Clone, Copy)]
struct Budget {
    since: Instant,
    requests: u32,
    retries: u32,
}

/// A request that an endpoint is busy with. Dropping it ends that.
pub struct Lease {
    endpoint: Rc<EndpointPool>,
}

impl Lease {
    fn new(endpoint: Rc<EndpointPool>) -> Self {
        endpoint.active.set(endpoint.active.get() + 1);
        Self { endpoint }
    }

    pub fn give_back(self, connection: Connection) {
        let mut idle = self.endpoint.idle.borrow_mut();
        if idle.len() < self.endpoint.most_idle {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.active.set(self.endpoint.active.get().saturating_sub(1));
    }
}

/// What a request is sent on.
pub enum Channel {
    Http1(Connection),
    Http2(Sender),
}

impl Pool {
    pub fn new(
        upstream: Arc<Upstream>,
        most_idle: usize,
        connector: Option<Rc<dyn Connect>>,
    ) -> Rc<Self> {
        let each = most_idle.div_ceil(upstream.endpoints.len().max(1));
        let endpoints: Vec<_> = upstream
            .endpoints
            .iter()
            .map(|endpoint| {
                let server_name = upstream.tls.as_ref().and_then(|tls| {
                    tls.server_name.clone().or_else(|| match &endpoint.address.host {
                        Host::Ip(ip) => Some(ServerName::IpAddress((*ip).into())),
                        Host::Name(name) => {
                            let name = name.trim_end_matches('.').to_owned();
                            ServerName::try_from(name).ok()
                        }
                    })
                });
                Rc::new(EndpointPool {
                    endpoint: endpoint.clone(),
                    authority: endpoint.address.to_string(),
                    idle: RefCell::default(),
                    most_idle: each,
                    active: Cell::new(0),
                    resolved: RefCell::default(),
                    down_until: Cell::new(None),
                    http2: RefCell::default(),
                    server_name,
                })
            })
            .collect();
        let first = upstream.endpoints.first().map_or(1, |e| e.weight);
        Rc::new(Self {
            is_weighted: upstream.endpoints.iter().any(|e| e.weight != first),
            endpoints,
            cursor: Cell::new(0),
            most_idle,
            connector,
            budget: Cell::new(Budget { since: Instant::now(), requests: 0, retries: 0 }),
            upstream,
        })
    }

    pub fn most_idle(&self) -> usize {
        self.most_idle
    }

    /// An endpoint for the next request, other than `avoid` where there is a choice.
    pub fn pick(&self, random: &Random, avoid: Option<&Rc<EndpointPool>>) -> Rc<EndpointPool> {
        if let [only] = self.endpoints.as_slice() {
            return Rc::clone(only);
        }
        let usable = |endpoint: &&Rc<EndpointPool>| {
            endpoint.is_up() && !avoid.is_some_and(|avoid| Rc::ptr_eq(avoid, endpoint))
        };
        let mut candidates: Vec<&Rc<EndpointPool>> = self.endpoints.iter().filter(usable).collect();
        if candidates.is_empty() {
            candidates = self.endpoints.iter().collect();
        }
        let chosen = match self.upstream.balance {
            Balance::LeastRequest => {
                let load = |e: &Rc<EndpointPool>| {
                    (e.active.get() as u64 + 1) * 1000 / u64::from(e.endpoint.weight)
                };
                let least = candidates.iter().map(|e| load(e)).min().unwrap_or(0);
                candidates.retain(|e| load(e) == least);
                self.next(&candidates)
            }
            Balance::RoundRobin if self.is_weighted => {
                let sum: u64 = candidates.iter().map(|e| u64::from(e.endpoint.weight)).sum();
                let mut at = random.below(sum);
                candidates.iter().copied().find(|e| {
                    let weight = u64::from(e.endpoint.weight);
                    let is_here = at < weight;
                    at = at.saturating_sub(weight);
                    is_here
                })
            }
            Balance::RoundRobin => self.next(&candidates),
        };
        Rc::clone(chosen.unwrap_or(&self.endpoints[0]))
    }

    fn next<'a>(&self, candidates: &[&'a Rc<EndpointPool>]) -> Option<&'a Rc<EndpointPool>> {
        let at = self.cursor.get();
        self.cursor.set(at.wrapping_add(1));
        candidates.get(at % candidates.len().max(1)).copied()
    }

    /// A connection that is there, or a new one. `must_be_new` after an old one turned out to be
    /// dead.
    pub async fn channel(
        &self,
        endpoint: &Rc<EndpointPool>,
        origin: &Origin,
        must_be_new: bool,
    ) -> Result<(Channel, Lease), UpstreamError> {
        let lease = Lease::new(Rc::clone(endpoint));
        if self.upstream.protocol == UpstreamProtocol::Http2 {
            let known = endpoint.http2.borrow().clone();
            if let Some(sender) = known.filter(|s| !must_be_new && !s.is_closed()) {
                return Ok((Channel::Http2(sender), lease));
            }
            let stream = self.connect(endpoint, origin).await?;
            let sender = http2::connect(stream).await.map_err(UpstreamError::Http2)?;
            *endpoint.http2.borrow_mut() = Some(sender.clone());
            return Ok((Channel::Http2(sender), lease));
        }
        if !must_be_new && let Some(connection) = self.take_idle(endpoint).await {
            return Ok((Channel::Http1(connection), lease));
        }
        let stream = self.connect(endpoint, origin).await?;
        Ok((Channel::Http1(Connection::new(stream)), lease))
    }

    async fn take_idle(&self, endpoint: &EndpointPool) -> Option<Connection> {
        if endpoint.idle.borrow().is_empty() {
            return None;
        }
        // A connection that was opened for one client says so to the upstream.
        if self.upstream.send_proxy_protocol {
            return None;
        }
        poll_fn(|cx| {
            let mut idle = endpoint.idle.borrow_mut();
            while let Some(mut last) = idle.pop() {
                if last.since.elapsed() < self.upstream.idle_timeout && last.connection.is_quiet(cx)
                {
                    return Poll::Ready(Some(last.connection));
                }
            }
            Poll::Ready(None)
        })
        .await
    }

    async fn connect(
        &self,
        endpoint: &EndpointPool,
        origin: &Origin,
    ) -> Result<Stream, UpstreamError> {
        let connected = timeout(self.upstream.connect_timeout, async {
            if let Some(connector) = &self.connector {
                return connector.connect(origin).await.map_err(UpstreamError::Connect);
            }
            let mut tcp = connect_tcp(endpoint).await?;
            let _ = tcp.set_nodelay(true);
            if self.upstream.send_proxy_protocol {
                proxy_protocol::send(&mut tcp, origin).await.map_err(UpstreamError::Connect)?;
            }
            match (&self.upstream.tls, &endpoint.server_name) {
                (None, _) => Ok(Stream::Tcp(tcp)),
                (Some(tls), Some(name)) => {
                    let connector = TlsConnector::from(Arc::clone(&tls.config));
                    let stream = connector.connect(name.clone(), tcp).await;
                    Ok(Stream::ClientTls(Box::new(stream.map_err(UpstreamError::Tls)?)))
                }
                (Some(_), None) => {
                    let reason = "the endpoint's host is not a name that a certificate can have";
                    Err(UpstreamError::Tls(io::Error::other(reason)))
                }
            }
        })
        .await;
        let connected = connected.unwrap_or(Err(UpstreamError::ConnectTimeout));
        match &connected {
            Ok(_) => endpoint.down_until.set(None),
            Err(_) => endpoint.down_until.set(Some(Instant::now() + DOWN_FOR)),
        }
        connected
    }

    /// Counts a request, for the retry budget.
    pub fn count_request(&self) {
        let mut budget = self.budget.get();
        budget.requests = budget.requests.saturating_add(1);
        self.budget.set(budget);
    }

    /// Whether one more retry is within `percent` of the requests of the window.
    pub fn may_retry(&self, percent: u8) -> bool {
        let mut budget = self.budget.get();
        if budget.since.elapsed() > BUDGET_WINDOW {
            budget = Budget { since: Instant::now(), requests: budget.requests.min(1), retries: 0 };
        }
        let allowed = u64::from(budget.requests) * u64::from(percent) / 100;
        let is_allowed = u64::from(budget.retries) < allowed.max(FREE_RETRIES.into());
        if is_allowed {
            budget.retries += 1;
        }
        self.budget.set(budget);
        is_allowed
    }

    /// Drops idle connections that are too old or that the other side has ended.
    pub async fn sweep(&self) {
        poll_fn(|cx| {
            for endpoint in &self.endpoints {
                endpoint.idle.borrow_mut().retain_mut(|idle| {
                    idle.since.elapsed() < self.upstream.idle_timeout
                        && idle.connection.is_quiet(cx)
                });
                let mut http2 = endpoint.http2.borrow_mut();
                if http2.as_ref().is_some_and(Sender::is_closed) {
                    *http2 = None;
                }
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Idle and busy connections.
    pub fn counts(&self) -> (usize, usize) {
        self.endpoints.iter().fold((0, 0), |(idle, active), endpoint| {
            (idle + endpoint.idle.borrow().len(), active + endpoint.active.get())
        })
    }
}

impl EndpointPool {
    fn is_up(&self) -> bool {
        self.down_until.get().is_none_or(|until| Instant::now() >= until)
    }

    async fn addresses(&self) -> Result<Rc<[SocketAddr]>, UpstreamError> {
        let Authority { host, port } = &self.endpoint.address;
        let name = match host {
            Host::Ip(ip) => return Ok(Rc::from([SocketAddr::new(*ip, *port)])),
            Host::Name(name) => name,
        };
        let known = self.resolved.borrow().clone();
        if let Some((at, addresses)) = &known
            && at.elapsed() < RESOLVED_FOR
        {
            return Ok(Rc::clone(addresses));
        }
        let found = tokio::net::lookup_host((name.as_ref(), *port)).await;
        match (found.map(|found| found.collect::<Vec<_>>()), known) {
            (Ok(addresses), _) if !addresses.is_empty() => {
                let addresses: Rc<[SocketAddr]> = addresses.into();
                *self.resolved.borrow_mut() = Some((Instant::now(), Rc::clone(&addresses)));
                Ok(addresses)
            }
            // What was true a moment ago is better than nothing.
            (_, Some((_, addresses))) => Ok(addresses),
            (Ok(_), None) => {
                Err(UpstreamError::Resolve(io::Error::other("the name has no address")))
            }
            (Err(error), None) => Err(UpstreamError::Resolve(error)),
        }
    }
}

async fn connect_tcp(endpoint: &EndpointPool) -> Result<TcpStream, UpstreamError> {
    let addresses = endpoint.addresses().await?;
    let mut last = io::Error::other("the name has no address");
    for address in addresses.iter() {
        // One address that swallows packets must not use up the time of the others.
        let until = Instant::now() + Duration::from_secs(2);
        let is_last = Some(address) == addresses.last();
        let attempt = TcpStream::connect(address);
        let connected = match is_last {
            true => attempt.await,
            false => timeout_at(until, attempt)
                .await
                .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())),
        };
        match connected {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(UpstreamError::Connect(last))
}
