//! The threads of the data path. Each worker is one thread with a runtime of its own, sockets of
//! its own (SO_REUSEPORT: the kernel spreads connections) and pools of its own. Workers share
//! nothing that is locked.

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener as StdListener},
    num::NonZeroUsize,
    rc::Rc,
    thread::JoinHandle,
    time::Duration,
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, LocalOptions},
    sync::Semaphore,
};

use crate::drain::Watcher;

const BACKLOG: i32 = 4096;
const MOST_CONNECTIONS: u32 = 1 << 20;
/// After a failed accept, mostly for want of file descriptors.
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// One a core that this process may use.
pub fn default_count() -> NonZeroUsize {
    std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// What one worker is given.
#[derive(Debug)]
pub struct Worker {
    /// From 0.
    pub index: usize,
    pub drain: Watcher,
}

/// The running threads.
#[derive(Debug)]
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Starts `count` threads named `NAME-INDEX`. `run` makes each worker's future on its thread;
    /// the future may hold what is not `Send`, spawns with `tokio::task::spawn_local`, and ends
    /// when its drain is over. Tasks that it leaves behind are dropped.
    pub fn start<F, R>(count: NonZeroUsize, name: &str, drain: &Watcher, run: F) -> io::Result<Self>
    where
        F: Fn(Worker) -> R + Clone + Send + 'static,
        R: Future<Output = ()>,
    {
        let mut threads = Vec::with_capacity(count.get());
        for index in 0..count.get() {
            let (run, drain) = (run.clone(), drain.clone());
            let thread = std::thread::Builder::new().name(format!("{name}-{index}"));
            threads.push(thread.spawn(move || {
                let built = Builder::new_current_thread()
                    .enable_all()
                    .max_blocking_threads(2)
                    .build_local(LocalOptions::default());
                match built {
                    Ok(runtime) => runtime.block_on(run(Worker { index, drain })),
                    Err(error) => tracing::error!(%error, index, "a worker could not start"),
                }
            })?);
        }
        Ok(Self { threads })
    }

    /// A worker ends by itself only when it failed.
    pub fn has_lost_one(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Blocks until every worker has ended.
    pub fn join(self) {
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker panicked");
            }
        }
    }
}

/// Binds `count` sockets to one address, one for each worker. Port 0 takes a free port, the same
/// for all.
pub fn bind_shared(address: SocketAddr, count: NonZeroUsize) -> io::Result<Vec<StdListener>> {
    let first = bind_one(address)?;
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..count.get() {
        listeners.push(bind_one(address)?);
    }
    Ok(listeners)
}

fn bind_one(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv6() {
        // `[::]` also takes IPv4, whatever the sysctl says.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the drain begins and serves each connection in a task of its own, at most
/// `most` at once: beyond that clients wait in the backlog. Returns when the last connection has
/// ended, or when the drain's deadline has passed.
pub async fn accept_until_drained<F, R>(
    listener: StdListener,
    drain: Watcher,
    most: usize,
    serve: F,
) -> io::Result<()>
where
    F: Fn(TcpStream, SocketAddr) -> R,
    R: Future<Output = ()> + 'static,
{
    let draining = drain.clone();
    accept_until(async move { draining.draining().await }, listener, drain, most, serve).await
}

/// The same, for a listener that may be closed earlier.
pub async fn accept_until<F, R>(
    end: impl Future<Output = ()>,
    listener: StdListener,
    drain: Watcher,
    most: usize,
    serve: F,
) -> io::Result<()>
where
    F: Fn(TcpStream, SocketAddr) -> R,
    R: Future<Output = ()> + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let most = u32::try_from(most).unwrap_or(u32::MAX).min(MOST_CONNECTIONS);
    let permits = Rc::new(Semaphore::new(most as usize));
    tokio::pin!(end);
    loop {
        let accepted = async {
            let permit = LocalPermit::acquire(&permits).await;
            (listener.accept().await, permit)
        };
        let (accepted, permit) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut end => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let _ = stream.set_nodelay(true);
                let serving = serve(stream, peer);
                tokio::task::spawn_local(async move {
                    serving.await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
    drop(listener);
    tokio::select! {
        _ = permits.acquire_many(most) => {}
        () = drain.forced() => {}
    }
    Ok(())
}

/// A permit of a semaphore that never leaves its thread.
struct LocalPermit(Rc<Semaphore>);

impl LocalPermit {
    async fn acquire(permits: &Rc<Semaphore>) -> Self {
        if let Ok(permit) = permits.acquire().await {
            permit.forget();
        }
        Self(Rc::clone(permits))
    }
}

impl Drop for LocalPermit {
    fn drop(&mut self) {
        self.0.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read,
        net::{Ipv4Addr, TcpStream as StdStream},
        sync::{Arc, Mutex},
    };

    use tokio::io::AsyncWriteExt;

    use super::*;
    use crate::drain;

    #[test]
    fn workers_share_a_port_and_drain() {
        let two = NonZeroUsize::new(2).unwrap();
        let listeners = bind_shared((Ipv4Addr::LOCALHOST, 0).into(), two).unwrap();
        let address = listeners[0].local_addr().unwrap();
        assert_eq!(listeners[1].local_addr().unwrap(), address);
        let listeners = Arc::new(Mutex::new(listeners));
        let (trigger, watcher) = drain::channel();
        let workers = Workers::start(two, "test", &watcher, move |worker| {
            let listener = listeners.lock().unwrap().pop().unwrap();
            async move {
                let held = worker.drain.clone();
                accept_until_drained(listener, worker.drain, 8, move |mut stream, _| {
                    let held = held.clone();
                    async move {
                        stream.write_all(b"hi").await.unwrap();
                        held.draining().await;
                        stream.write_all(b"bye").await.unwrap();
                    }
                })
                .await
                .unwrap();
            }
        })
        .unwrap();
        drop(watcher);
        let mut clients: Vec<StdStream> = (0..8)
            .map(|_| {
                let mut client = StdStream::connect(address).unwrap();
                client.read_exact(&mut [0; 2]).unwrap();
                client
            })
            .collect();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        assert!(!workers.has_lost_one());
        runtime.block_on(trigger.drain(Duration::from_secs(10)));
        workers.join();
        for client in &mut clients {
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "bye");
        }
    }
}
