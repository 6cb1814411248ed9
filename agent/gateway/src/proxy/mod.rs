//! The HTTP data path: from a connection to a route, through the policies, to an upstream and
//! back. Everything here belongs to one worker and stays on its thread.

pub mod body;
pub mod connection;
pub mod counters;
pub mod error;
pub mod excerpt;
pub mod exchange;
pub mod forwarding;
pub mod http1;
pub mod http2;
pub mod listeners;
pub mod pool;
pub mod proxy_protocol;
pub mod random;
pub mod request;
pub mod stream;
pub mod target;
pub mod timer;
pub mod transform;
pub mod tunnel;
pub mod websocket;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use stoa_policy::context::Door;

use self::{
    connection::Origin,
    counters::{Counters, Registry, RouteCounters},
    pool::Pool,
    random::Random,
    request::Record,
};
use crate::{
    catalog::{
        Catalog,
        live::{CatalogReader, LiveCatalog},
    },
    config::proxy::ProxySettings,
    drain::Watcher,
    telemetry::{Telemetry, access_log::AccessLog},
};

/// How often idle connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(5);

/// Answers for the agent itself, where no route claims the path: `/health`, `/metrics`.
pub type OwnAnswers =
    dyn Fn(&str) -> Option<http::Response<http_body_util::Full<bytes::Bytes>>> + Send + Sync;

/// What every worker is made from.
#[derive(Clone)]
pub struct Shared {
    pub settings: Arc<ProxySettings>,
    pub live: Arc<LiveCatalog>,
    pub registry: Arc<Registry>,
    pub access_log: Arc<AccessLog>,
    pub telemetry: Telemetry,
    pub own_answers: Arc<OwnAnswers>,
    /// Idle connections for each upstream, of this worker.
    pub most_idle: usize,
}

/// One thread of the data path.
pub struct Worker {
    pub shared: Shared,
    pub drain: Watcher,
    pub counters: Arc<Counters>,
    pub random: Random,
    reader: RefCell<CatalogReader>,
    view: RefCell<Rc<View>>,
    date: Cell<(u64, [u8; 29])>,
    mirrors_under_way: Cell<usize>,
}

/// One configuration, as this worker uses it.
pub struct View {
    pub catalog: Arc<Catalog>,
    /// By the upstream's place in the catalog.
    pub pools: Vec<Rc<Pool>>,
    /// By `Route::index`.
    routes: Vec<Arc<RouteCounters>>,
}

impl Worker {
    pub fn new(shared: Shared, drain: Watcher) -> Rc<Self> {
        let reader = CatalogReader::new(Arc::clone(&shared.live));
        let counters = shared.registry.add_worker();
        let view = View::build(reader.catalog(), None, &shared, &counters);
        Rc::new(Self {
            shared,
            drain,
            counters,
            random: Random::default(),
            reader: RefCell::new(reader),
            view: RefCell::new(Rc::new(view)),
            date: Cell::new((0, [b' '; 29])),
            mirrors_under_way: Cell::new(0),
        })
    }

    /// The configuration in force. Costs one load while it does not change.
    pub fn view(&self) -> Rc<View> {
        let mut reader = self.reader.borrow_mut();
        if reader.refresh() {
            let before = Rc::clone(&self.view.borrow());
            let view = View::build(reader.catalog(), Some(&before), &self.shared, &self.counters);
            *self.view.borrow_mut() = Rc::new(view);
        }
        Rc::clone(&self.view.borrow())
    }

    /// `Date` (RFC 9110 section 6.6.1), formatted once a second.
    pub fn date(&self) -> [u8; 29] {
        let now = SystemTime::now();
        let second = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let (known, text) = self.date.get();
        if known == second {
            return text;
        }
        let formatted = httpdate::fmt_http_date(now);
        let text = formatted.as_bytes().try_into().unwrap_or([b' '; 29]);
        self.date.set((second, text));
        text
    }

    /// How long a response may stand still.
    pub fn response_idle(&self, origin: &Origin) -> Option<Duration> {
        match &origin.fixed {
            Some(fixed) => fixed.timeouts.idle,
            None => Some(Duration::from_secs(60)),
        }
    }

    /// Says when a connection is to take nothing new.
    pub fn drain_of<'a>(&'a self, origin: &'a Origin) -> &'a Watcher {
        origin.fixed.as_ref().map_or(&self.drain, |fixed| &fixed.drain)
    }

    /// Counts and logs an answer that has gone, or was cut off.
    pub fn finish(
        &self,
        origin: &Origin,
        record: &Record,
        status: StatusCode,
        bytes: u64,
        is_whole: bool,
    ) {
        let took = record.started.elapsed();
        match (&origin.fixed, &record.counters) {
            (Some(fixed), _) => fixed.overseer.count(status, took),
            (None, Some(route)) => route.count(status, took),
            (None, None) => self.counters.unrouted.count(status, took),
        }
        if !is_whole {
            self.counters.cut_off.add(1);
        }
        self.shared.access_log.write(record, status, bytes, took, is_whole);
        self.tell(record, status, bytes, took, is_whole);
    }

    /// Looks after the pools until it is dropped.
    pub async fn sweep(self: Rc<Self>) {
        let mut every = tokio::time::interval(SWEEP_EVERY);
        loop {
            every.tick().await;
            let view = self.view();
            let (mut idle, mut active) = (0, 0);
            for pool in &view.pools {
                pool.sweep().await;
                let (i, a) = pool.counts();
                idle += i;
                active += a;
            }
            self.counters.idle_connections.set(idle as u64);
            self.counters.busy_connections.set(active as u64);
        }
    }
}

impl View {
    fn build(
        catalog: &Arc<Catalog>,
        before: Option<&Self>,
        shared: &Shared,
        counters: &Counters,
    ) -> Self {
        // Connections outlive a reload that does not concern them.
        let known: HashMap<&str, &Rc<Pool>> = before
            .iter()
            .flat_map(|view| &view.pools)
            .map(|pool| (pool.upstream.fingerprint.as_str(), pool))
            .collect();
        let pools = catalog
            .upstreams
            .iter()
            .map(|upstream| match known.get(upstream.fingerprint.as_str()) {
                Some(pool) => Rc::clone(pool),
                None => Pool::new(Arc::clone(upstream), shared.most_idle, None),
            })
            .collect();
        let routes = catalog.routes.all.iter().map(|route| counters.route(&route.name)).collect();
        Self { catalog: Arc::clone(catalog), pools, routes }
    }
}

/// For connections that no listener of the catalog accepted.
pub fn origin_of_redirected(
    source: SocketAddr,
    local: SocketAddr,
    destination: SocketAddr,
) -> Origin {
    let mut origin = Origin::new(source, local, Door::Redirect);
    origin.destination = Some(destination);
    origin
}
