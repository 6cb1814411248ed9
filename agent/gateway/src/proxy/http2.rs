//! HTTP/2 by hyper, towards clients and towards upstreams. Its requests go the same way as those
//! of HTTP/1.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Response, StatusCode, header};
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    rt::Executor,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::Instant;

use super::{
    Worker,
    body::{Body, BodyError},
    connection::Origin,
    http1::{MOST_HEAD_BYTES, length},
    request::{Answer, Record, Request},
    stream::{Rewound, Stream},
    timer::Timer,
};
use crate::http::problem::Problem;

/// To an upstream; a clone for each request.
pub type Sender = hyper::client::conn::http2::SendRequest<Body>;

const MOST_STREAMS: u32 = 256;
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;
const PING_EVERY: Duration = Duration::from_secs(30);

/// Futures stay on their thread.
#[derive(Clone, Copy, Debug)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

pub async fn serve(worker: Rc<Worker>, origin: Origin, stream: Stream, read: BytesMut) {
    let origin = Rc::new(origin);
    let drain = worker.drain_of(&origin).clone();
    let service = {
        let worker = Rc::clone(&worker);
        service_fn(move |request| {
            let (worker, origin) = (Rc::clone(&worker), Rc::clone(&origin));
            async move { Ok::<_, Infallible>(answer(worker, origin, request).await) }
        })
    };
    let connection = hyper::server::conn::http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(u32::try_from(MOST_HEAD_BYTES).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(Duration::from_secs(20))
        .serve_connection(TokioIo::new(Rewound::new(read, stream)), service);
    let mut connection = pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        () = drain.draining() => {}
    }
    // GOAWAY; the streams under way go on.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

async fn answer(
    worker: Rc<Worker>,
    origin: Rc<Origin>,
    request: http::Request<Incoming>,
) -> Response<Recorded> {
    let started = Instant::now();
    let (parts, body) = request.into_parts();
    let body = match body.is_end_stream() {
        true => Body::Empty,
        false => Body::Http2(body),
    };
    let view = worker.view();
    let is_head = parts.method == Method::HEAD;
    let method = parts.method.clone();
    let answer = match Request::from_http2(parts, body, view.catalog.paths) {
        Ok(request) => {
            let mut timer = Timer::default();
            // hyper cannot send interim responses in HTTP/2.
            let mut interim = |_: &mut Context<'_>, _: StatusCode, _: &HeaderMap| {};
            let mut answer =
                worker.answer(view, &origin, request, started, &mut timer, &mut interim).await;
            worker.observe_answer(&mut answer);
            origin.note(&answer.record, answer.status);
            answer
        }
        Err(error) => {
            worker.counters.refused_heads.add(1);
            let problem = Problem::new(error.status(), error.to_string());
            Answer::of_problem(problem, origin.record(started, &method))
        }
    };
    let Answer { status, headers, mut body, record, .. } = answer;
    if is_head || !length::has_body(status, &method) {
        if let Body::Upstream(exchange) = &mut body {
            exchange.finish_if_done();
        }
        body = Body::Empty;
    }
    let mut response = Response::new(Recorded {
        body,
        record,
        status,
        bytes: 0,
        is_whole: false,
        idle: worker.response_idle(&origin),
        timer: Timer::default(),
        worker,
        origin,
    });
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    if let length::Length::Exact(length) = response.body().body.length()
        && length > 0
    {
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    }
    response
}

/// A body that is counted when it has gone, or when the client wants no more of it.
struct Recorded {
    body: Body,
    record: Record,
    status: StatusCode,
    bytes: u64,
    is_whole: bool,
    idle: Option<Duration>,
    timer: Timer,
    worker: Rc<Worker>,
    origin: Rc<Origin>,
}

impl HttpBody for Recorded {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let polled = this.body.poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                this.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                this.is_whole = this.body.is_empty();
                this.timer.set(None);
            }
            Poll::Ready(None) => this.is_whole = true,
            Poll::Ready(Some(Err(_))) => {}
            Poll::Pending => {
                if !this.timer.is_set() {
                    this.timer.set_after(this.idle);
                }
                if this.timer.poll(cx).is_ready() {
                    return Poll::Ready(Some(Err(BodyError::CutShort)));
                }
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        HttpBody::size_hint(&self.body)
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        let is_whole = self.is_whole || self.body.is_empty();
        self.worker.finish(&self.origin, &self.record, self.status, self.bytes, is_whole);
    }
}

/// A connection to an upstream, and the task that drives it.
pub async fn connect(stream: Stream) -> Result<Sender, hyper::Error> {
    let (sender, connection) = hyper::client::conn::http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(u32::try_from(MOST_HEAD_BYTES).unwrap_or(u32::MAX))
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(Duration::from_secs(20))
        .handshake(TokioIo::new(Rewound::new(BytesMut::new(), stream)))
        .await?;
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to an HTTP/2 upstream ended");
        }
    });
    Ok(sender)
}
