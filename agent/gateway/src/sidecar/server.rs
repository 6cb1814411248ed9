//! Connections of the decision doors: HTTP/1.1, and HTTP/2 with prior knowledge, on one port.

use std::{convert::Infallible, net::SocketAddr, rc::Rc, time::Duration};

use http::Request;
use hyper::{body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::net::TcpStream;

use super::doors::Doors;
use crate::drain::Watcher;

/// Of one worker. A gateway keeps a few, and asks again and again on them.
pub const MOST_CONNECTIONS: usize = 1024;
/// Of one worker, over all connections.
pub const MOST_QUESTIONS: usize = 4096;
const HEAD_WITHIN: Duration = Duration::from_secs(30);
const LONGEST_HEAD: usize = 128 << 10;
const MOST_STREAMS: u32 = 1024;
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// A gateway that opened a connection in advance may leave it unused for so long.
const FIRST_BYTE_WITHIN: Duration = Duration::from_secs(300);

/// Runs what a connection spawns on the thread that it belongs to.
#[derive(Clone, Copy, Debug)]
struct OnThisThread;

impl<F: Future + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(async move {
            future.await;
        });
    }
}

/// Serves one connection until it ends, or until the drain lets it end.
pub async fn serve(stream: TcpStream, peer: SocketAddr, doors: Rc<Doors>, drain: Watcher) {
    let readable = tokio::time::timeout(FIRST_BYTE_WITHIN, stream.readable());
    tokio::select! {
        readable = readable => if !matches!(readable, Ok(Ok(()))) { return },
        () = drain.draining() => return,
    }
    let mut builder = auto::Builder::new(OnThisThread);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(LONGEST_HEAD);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(LONGEST_HEAD as u32)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN);
    let service = service_fn(move |request: Request<Incoming>| {
        let answering = Rc::clone(&doors).answer(request, peer);
        async move { Ok::<_, Infallible>(answering.await) }
    });
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return log(ended, peer),
        () = drain.draining() => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection => log(ended, peer),
        () = drain.forced() => {}
    }
}

fn log(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>, peer: SocketAddr) {
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection of a gateway broke");
    }
}
