//! What is listened on. A reload opens listeners and closes them; one whose address stays keeps its
//! sockets. Connections of a listener that is closed go on.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, TcpListener},
    num::NonZeroUsize,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{Worker as ProxyWorker, connection};
use crate::{
    catalog::{Listener, live::Listening},
    drain::Watcher,
    worker::{accept_until, bind_shared},
};

/// The listeners in force; workers follow what is sent here.
#[derive(Debug)]
pub struct Listeners {
    workers: NonZeroUsize,
    open: watch::Sender<Arc<Vec<Arc<Open>>>>,
}

/// What a worker follows.
pub type Followed = watch::Receiver<Arc<Vec<Arc<Open>>>>;

/// One of them, with a socket for each worker.
#[derive(Debug)]
pub struct Open {
    listener: Arc<Listener>,
    /// Its port is not 0.
    bound: SocketAddr,
    /// Taken by the worker of that index.
    sockets: Mutex<Vec<Option<TcpListener>>>,
}

#[derive(Debug, thiserror::Error)]
#[error("listener `{name}` cannot listen on {address}: {source}")]
pub struct ListenError {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub source: io::Error,
}

impl Listeners {
    /// An address in use is said at once, before any worker starts.
    pub fn bind(listeners: &[Arc<Listener>], workers: NonZeroUsize) -> Result<Self, ListenError> {
        let open: Vec<_> = listeners.iter().map(|l| bind(l, workers)).collect::<Result<_, _>>()?;
        open.iter().for_each(|open| open.say("listening"));
        Ok(Self { workers, open: watch::Sender::new(Arc::new(open)) })
    }

    pub fn follow(&self) -> Followed {
        self.open.subscribe()
    }
}

fn bind(listener: &Arc<Listener>, workers: NonZeroUsize) -> Result<Arc<Open>, ListenError> {
    let (name, address) = (&listener.name, listener.address);
    let failed = |source| ListenError { name: Arc::clone(name), address, source };
    let sockets = bind_shared(address, workers).map_err(failed)?;
    let bound = sockets.first().map_or(Ok(address), TcpListener::local_addr).map_err(failed)?;
    let sockets = Mutex::new(sockets.into_iter().map(Some).collect());
    Ok(Arc::new(Open { listener: Arc::clone(listener), bound, sockets }))
}

impl Listening for Listeners {
    fn prepare(&self, listeners: &[Arc<Listener>]) -> Result<Box<dyn FnOnce() + '_>, String> {
        let before = Arc::clone(&self.open.borrow());
        let mut after = Vec::new();
        for listener in listeners {
            let known = before.iter().find(|open| open.listener.address == listener.address);
            after.push(match known {
                Some(open) => Arc::clone(open),
                None => bind(listener, self.workers).map_err(|error| {
                    format!("{error}; give another address, or make room for it")
                })?,
            });
        }
        Ok(Box::new(move || {
            for open in before.iter().filter(|open| !is_among(open, &after)) {
                open.say("no longer listening");
            }
            for open in after.iter().filter(|open| !is_among(open, &before)) {
                open.say("listening");
            }
            self.open.send_replace(Arc::new(after));
        }))
    }
}

impl Open {
    fn say(&self, what: &'static str) {
        tracing::info!(listener = %self.listener.name, address = %self.bound, "{what}");
    }
}

fn is_among(open: &Arc<Open>, all: &[Arc<Open>]) -> bool {
    all.iter().any(|other| Arc::ptr_eq(open, other))
}

/// Accepts on one worker until the drain begins; returns when the last connection has ended, or
/// when the drain's deadline has passed.
pub async fn serve(
    proxy: Rc<ProxyWorker>,
    index: usize,
    drain: Watcher,
    mut followed: Followed,
    most_connections: usize,
) {
    let mut accepting = JoinSet::new();
    // Dropped, it ends the accepting.
    let mut running: HashMap<*const Open, (Arc<Open>, oneshot::Sender<()>)> = HashMap::new();
    loop {
        let wanted = Arc::clone(&followed.borrow_and_update());
        running.retain(|_, (open, _)| is_among(open, &wanted));
        for open in wanted.iter() {
            if running.contains_key(&Arc::as_ptr(open)) {
                continue;
            }
            let mut sockets = open.sockets.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(socket) = sockets.get_mut(index).and_then(Option::take) else { continue };
            drop(sockets);
            let (end, ended) = oneshot::channel::<()>();
            running.insert(Arc::as_ptr(open), (Arc::clone(open), end));
            let listener = Arc::clone(&open.listener);
            let (proxy, drain) = (Rc::clone(&proxy), drain.clone());
            accepting.spawn_local(async move {
                let name = Arc::clone(&listener.name);
                let until = {
                    let drain = drain.clone();
                    async move {
                        tokio::select! {
                            _ = ended => {}
                            () = drain.draining() => {}
                        }
                    }
                };
                let serve_one = |stream, peer| {
                    proxy.counters.connections.add(1);
                    // The listener of the configuration in force: certificates are reloaded.
                    let view = proxy.view();
                    let mut listeners = view.catalog.listeners.iter();
                    let current = listeners.find(|l| l.address == listener.address);
                    let current = Arc::clone(current.unwrap_or(&listener));
                    connection::serve_accepted(Rc::clone(&proxy), current, stream, peer)
                };
                let served = accept_until(until, socket, drain, most_connections, serve_one).await;
                if let Err(error) = served {
                    tracing::error!(%error, listener = %name, "a listener ended");
                }
            });
        }
        tokio::select! {
            changed = followed.changed() => if changed.is_err() { break },
            () = drain.draining() => break,
        }
    }
    // A sender that is gone (the agent stops) leaves what runs to the drain.
    while accepting.join_next().await.is_some() {}
}
