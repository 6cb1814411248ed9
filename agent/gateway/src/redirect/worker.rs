//! The threads of the data path: one runtime each, nothing shared but counters.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
    task::{JoinSet, LocalSet},
};

use super::{
    Parts, connection,
    enforcement::Enforcer,
    error::RedirectError,
    namespace::Namespace,
    programs::{Peers, Programs},
    relay::reset,
    workload::{Counts, Direction, Phase, Workload},
};

use crate::{config::proxy::ProxySettings, drain};

const BACKLOG: i32 = 4096;
/// Workloads on their way to a worker.
const QUEUE: usize = 64;
/// How long a client may be silent before the kernel asks whether it is still there. Applications
/// that ask reach only the agent.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// One of each address family, on one address each.
pub(super) type Listeners = Vec<std::net::TcpListener>;

/// A workload's listener, for one worker.
struct Listening {
    workload: Arc<Workload>,
    direction: Direction,
    listener: std::net::TcpListener,
}

pub(super) struct Worker {
    queue: mpsc::Sender<Listening>,
    thread: JoinHandle<()>,
}

pub(super) struct Workers {
    workers: Vec<Worker>,
    /// Workloads are told to leave one by one; the threads as such never are.
    _drain: drain::Trigger,
}

impl Workers {
    pub(super) fn start(
        programs: &Programs,
        parts: &Parts,
        settings: &Arc<ProxySettings>,
        count: usize,
        limit: usize,
    ) -> Result<Self, RedirectError> {
        let (drain, watcher) = drain::channel();
        let permits = Arc::new(Semaphore::new(limit));
        let mut workers = Vec::with_capacity(count);
        for n in 0..count {
            let peers = programs.peers()?;
            let permits = Arc::clone(&permits);
            let (enforcement, metrics) = (parts.enforcement.clone(), Arc::clone(&parts.metrics));
            let (settings, watcher) = (Arc::clone(settings), watcher.clone());
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(RedirectError::Thread)?;
            let (queue, arriving) = mpsc::channel(QUEUE);
            let thread = std::thread::Builder::new()
                .name(format!("redirect-{n}"))
                .spawn(move || {
                    LocalSet::new().block_on(&runtime, async move {
                        let enforcer = Enforcer::new(&enforcement, &settings, &metrics, watcher);
                        run(arriving, peers, enforcer, permits).await;
                    });
                })
                .map_err(RedirectError::Thread)?;
            workers.push(Worker { queue, thread });
        }
        Ok(Self { workers, _drain: drain })
    }

    /// A set of listeners for each worker, one of each address family; the sets share addresses.
    pub(super) fn listen(&self, namespace: &Namespace) -> Result<Vec<Listeners>, RedirectError> {
        namespace
            .enter(|| listen(self.workers.len()))
            .and_then(|sets| sets)
            .map_err(RedirectError::Listen)
    }

    /// Begins to accept.
    pub(super) async fn serve(
        &self,
        workload: &Arc<Workload>,
        direction: Direction,
        sets: &[Listeners],
    ) -> Result<(), RedirectError> {
        for (worker, set) in self.workers.iter().zip(sets) {
            for listener in set {
                let listener = listener.try_clone().map_err(RedirectError::Listen)?;
                let listening = Listening { workload: Arc::clone(workload), direction, listener };
                worker.queue.send(listening).await.map_err(|_| RedirectError::Ended)?;
            }
        }
        Ok(())
    }

    /// Ends the threads: their workloads must have left.
    pub(super) fn join(self) {
        for Worker { queue, thread } in self.workers {
            drop(queue);
            let _ = thread.join();
        }
    }
}

/// Bound to loopback, so that nobody outside the namespace can connect to them directly; the kernel
/// gives them connections to any address of their family.
fn listen(count: usize) -> io::Result<Vec<Listeners>> {
    let mut addresses = vec![
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        SocketAddr::from((Ipv6Addr::LOCALHOST, 0)),
    ];
    let mut sets: Vec<Listeners> = Vec::with_capacity(count);
    for _ in 0..count {
        let mut set = Listeners::new();
        let mut bound = Vec::new();
        for address in &addresses {
            match listen_at(*address) {
                Ok(listener) => {
                    bound.push(listener.local_addr()?);
                    set.push(listener);
                }
                // No IPv6 in this kernel.
                Err(e) if address.is_ipv6() && e.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
                Err(e) => return Err(e),
            }
        }
        addresses = bound;
        sets.push(set);
    }
    Ok(sets)
}

fn listen_at(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // `::1` may be switched off.
        socket.set_freebind_v6(true)?;
    }
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Accepted sockets inherit it.
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

async fn run(
    mut arriving: mpsc::Receiver<Listening>,
    peers: Peers,
    enforcer: Enforcer,
    permits: Arc<Semaphore>,
) {
    let mut accepting = JoinSet::new();
    loop {
        tokio::select! {
            arrived = arriving.recv() => {
                let Some(Listening { workload, direction, listener }) = arrived else { break };
                let phase = workload.phase.subscribe();
                accepting.spawn_local(accept(
                    listener, workload, direction, phase, peers.clone(), enforcer.clone(),
                    Arc::clone(&permits),
                ));
            }
            Some(_) = accepting.join_next() => {}
        }
    }
}

async fn accept(
    listener: std::net::TcpListener,
    workload: Arc<Workload>,
    direction: Direction,
    mut phase: watch::Receiver<Phase>,
    peers: Peers,
    enforcer: Enforcer,
    permits: Arc<Semaphore>,
) {
    // Accepted sockets inherit it. Here, because a predecessor's listener may not have it.
    let with_nodelay = SockRef::from(&listener).set_tcp_nodelay(true);
    let listener = match with_nodelay.and_then(|()| TcpListener::from_std(listener)) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(workload = workload.spec.name, %error, "its listener cannot be used");
            return;
        }
    };
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = phase.wait_for(|phase| *phase != Phase::Serving) => return,
        };
        let (client, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // EMFILE and the like: the listener is still good.
                tracing::warn!(workload = workload.spec.name, %error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else {
            Counts::add(&workload.counts_of(direction).over_limit);
            reset(&client);
            continue;
        };
        let (workload, peers, phase) = (Arc::clone(&workload), peers.clone(), phase.clone());
        let enforcer = enforcer.clone();
        tokio::task::spawn_local(async move {
            connection::serve(client, from, peers, enforcer, workload, direction, phase).await;
            drop(permit);
        });
    }
}
