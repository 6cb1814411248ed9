//! The agent's own HTTP API: connections, bounds and time-outs. What is answered is decided by
//! the routes of the mode.

pub mod negotiation;
pub mod problem;

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};

use problem::Problem;

const MAX_CONNECTIONS: usize = 256;
const MAX_BODY: usize = 64 << 10;
const HEAD_WITHIN: Duration = Duration::from_secs(10);
const BODY_WITHIN: Duration = Duration::from_secs(10);
/// A contract is rendered within this time, or the client is told to come back.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
const CONNECTION_WITHIN: Duration = Duration::from_secs(300);

pub type Answer = Response<Full<Bytes>>;

/// An answer that nobody may keep.
pub fn with_type(status: StatusCode, media_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// On one line.
pub fn json_answer(status: StatusCode, value: &serde_json::Value) -> Answer {
    with_type(status, "application/json", format!("{value}\n"))
}

/// A request whose body has been read.
pub struct Call {
    pub head: http::request::Parts,
    pub body: Bytes,
    pub peer: SocketAddr,
}

/// Accepts until `stopping` turns true, then lets what is under way end.
pub async fn serve<R, F>(listener: TcpListener, mut stopping: watch::Receiver<bool>, routes: R)
where
    R: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Beyond the bound, clients wait in the listener's backlog.
        let permit = tokio::select! {
            permit = Arc::clone(&permits).acquire_owned() => permit,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let Ok(permit) = permit else { break };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "API: a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let (routes, stopping) = (routes.clone(), stopping.clone());
        tokio::spawn(async move {
            serve_connection(stream, peer, stopping, routes).await;
            drop(permit);
        });
    }
    drop(listener);
    let all = u32::try_from(MAX_CONNECTIONS).unwrap_or(u32::MAX);
    let _ = tokio::time::timeout(Duration::from_secs(2), permits.acquire_many(all)).await;
}

async fn serve_connection<R, F>(
    stream: TcpStream,
    peer: SocketAddr,
    mut stopping: watch::Receiver<bool>,
    routes: R,
) where
    R: Fn(Call) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let routes = routes.clone();
        async move { Ok::<_, Infallible>(answer(request, peer, routes).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WITHIN)
        .max_buf_size(32 << 10)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = tokio::time::timeout(CONNECTION_WITHIN, connection.as_mut()) => ended.ok(),
        _ = stopping.wait_for(|stopping| *stopping) => None,
    };
    if ended.is_none() {
        // Old enough, or the agent stops: the answer under way is still given.
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(Duration::from_secs(2), connection).await;
    }
}

async fn answer<R, F>(request: Request<Incoming>, peer: SocketAddr, routes: R) -> Answer
where
    R: Fn(Call) -> F,
    F: Future<Output = Answer>,
{
    let (head, body) = request.into_parts();
    let collected = tokio::time::timeout(BODY_WITHIN, Limited::new(body, MAX_BODY).collect()).await;
    let body = match collected {
        Ok(Ok(collected)) => collected.to_bytes(),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            return closing(Problem::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is longer than {MAX_BODY} bytes"),
            ));
        }
        Ok(Err(_)) => {
            return closing(Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"));
        }
        Err(_) => {
            return closing(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {BODY_WITHIN:?}"),
            ));
        }
    };
    tokio::time::timeout(ANSWER_WITHIN, routes(Call { head, body, peer })).await.unwrap_or_else(
        |_| {
            Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "the answer takes too long; try again later",
            )
            .into_response()
        },
    )
}

/// What is left of the request is not read, so the connection cannot be used again.
fn closing(problem: Problem) -> Answer {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
