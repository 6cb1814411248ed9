//! The client's side of an HTTP/1 connection: one request after another, each answered before the
//! next is read. There is one task a connection, and none a request.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode, Version};
use hyper::body::Frame;
use tokio::{io::AsyncWrite, time::Instant};

use super::{
    encode::{self, Encoder, ResponseFraming},
    head::{self, HeadError, RequestHead},
    length::{self, Length},
    reader::Reader,
};
use crate::{
    http::problem::Problem,
    proxy::{
        Worker,
        body::{Body, BodyError},
        connection::Origin,
        forwarding,
        request::{Answer, Request},
        stream::{Outbox, Stream},
        timer::Timer,
        tunnel,
    },
};

/// Between requests.
const IDLE: Duration = Duration::from_secs(75);
/// The same where the client believes to be connected to the server itself, which may be more
/// patient than any gateway.
const IDLE_UNSEEN: Duration = Duration::from_secs(3600);
/// From the first byte of a head to its last.
const HEAD_WITHIN: Duration = Duration::from_secs(15);
/// For a client to read the answer and end, where it is not done sending.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 20;

/// Shared by the loop and the body that is being read; both are in one task.
type Shared = Rc<RefCell<Connection>>;

struct Connection {
    stream: Stream,
    reader: Reader,
    outbox: Outbox,
    /// The client waits for 100 (Continue) before it sends the body.
    owes_continue: bool,
}

/// The body of a request, read from the client as it is asked for.
pub struct ClientBody {
    connection: Shared,
}

impl ClientBody {
    pub fn length(&self) -> Length {
        self.connection.borrow().reader.remaining()
    }

    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let mut connection = self.connection.borrow_mut();
        let Connection { stream, reader, outbox, owes_continue } = &mut *connection;
        if *owes_continue {
            *owes_continue = false;
            encode::put_interim(outbox.text(), StatusCode::CONTINUE, &HeaderMap::new());
        }
        if let Poll::Ready(Err(error)) = outbox.poll_write(cx, stream) {
            return Poll::Ready(Some(Err(BodyError::Io(error))));
        }
        reader.poll_body(cx, stream)
    }
}

enum Next {
    Request(Box<RequestHead>),
    Refused(HeadError),
    TooSlow,
    End,
}

/// Serves until the client ends, the agent stops, or something is wrong.
pub async fn serve(worker: &Rc<Worker>, origin: &Origin, stream: Stream, read: BytesMut) {
    let shared = Rc::new(RefCell::new(Connection {
        stream,
        reader: Reader::with(read),
        outbox: Outbox::default(),
        owes_continue: false,
    }));
    let mut timer = Timer::default();
    let drain = worker.drain_of(origin);
    let mut draining = pin!(drain.draining());
    let between = Between {
        // A client that a closed connection would surprise is told so with the next answer.
        ends_with_drain: !origin.is_unseen(),
        idle: if origin.is_unseen() { IDLE_UNSEEN } else { IDLE },
    };
    loop {
        let next = next_head(&shared, between, &mut timer, draining.as_mut()).await;
        let head = match next {
            Next::Request(head) => *head,
            Next::End => return,
            Next::Refused(error) => {
                worker.counters.refused_heads.add(1);
                return refuse(
                    worker,
                    origin,
                    &shared,
                    error.status(),
                    &error.to_string(),
                    &mut timer,
                )
                .await;
            }
            Next::TooSlow => {
                let detail = "the request did not arrive in time";
                return refuse(
                    worker,
                    origin,
                    &shared,
                    StatusCode::REQUEST_TIMEOUT,
                    detail,
                    &mut timer,
                )
                .await;
            }
        };
        let started = Instant::now();
        let (version, keeps_alive) = (head.version, head.keep_alive);
        let is_head = head.method == Method::HEAD;
        let body = match head.length {
            Length::Exact(0) => Body::Empty,
            length => {
                shared.borrow_mut().reader.begin_body(length);
                Body::Client(ClientBody { connection: Rc::clone(&shared) })
            }
        };
        let view = worker.view();
        let request = match Request::from_http1(head, body, view.catalog.paths) {
            Ok(request) => request,
            Err(error) => {
                worker.counters.refused_heads.add(1);
                let (status, detail) = (error.status(), error.to_string());
                return refuse(worker, origin, &shared, status, &detail, &mut timer).await;
            }
        };
        shared.borrow_mut().owes_continue = request.expects_continue && !request.body.is_empty();
        let mut interim = |cx: &mut Context<'_>, status: StatusCode, headers: &HeaderMap| {
            // RFC 9110 section 15.2: HTTP/1.0 has no interim responses.
            if version == Version::HTTP_11 {
                let mut headers = headers.clone();
                forwarding::strip_connection_fields(&mut headers);
                let mut connection = shared.borrow_mut();
                let Connection { stream, outbox, .. } = &mut *connection;
                encode::put_interim(outbox.text(), status, &headers);
                let _ = outbox.poll_write(cx, stream);
            }
        };
        let mut answer =
            worker.answer(view, origin, request, started, &mut timer, &mut interim).await;
        worker.observe_answer(&mut answer);
        origin.note(&answer.record, answer.status);
        let is_upgrade = answer.tunnel.is_some();
        let keeps_alive =
            keeps_alive && !is_upgrade && is_request_over(&shared) && !drain.is_draining();
        let Answer { status, headers, body, tunnel, record } = answer;
        let framing = ResponseFraming {
            version,
            length: body.length(),
            has_body: !is_head && length::has_body(status, &Method::GET),
            keep_alive: keeps_alive,
            is_upgrade,
        };
        let idle = worker.response_idle(origin);
        let written =
            write(worker, &shared, status, headers, body, framing, idle, &mut timer).await;
        if let Some(tunnel) = tunnel {
            if written.is_whole {
                let Ok(connection) = Rc::try_unwrap(shared) else { return };
                let Connection { stream, reader, .. } = connection.into_inner();
                worker.counters.tunnels.add(1);
                let counters = record.counters.clone();
                let passed =
                    tunnel::run(stream, reader.buffer, *tunnel, counters, &mut timer).await;
                worker.finish(origin, &record, status, passed.down, true);
            }
            return;
        }
        worker.finish(origin, &record, status, written.bytes, written.is_whole);
        match written {
            Written { is_whole: false, .. } => return,
            Written { keeps_alive: true, .. } => {}
            _ => return linger(&shared, &mut timer).await,
        }
    }
}

/// Reads over what is there of the request's body, if nobody else reads it.
fn is_request_over(shared: &Shared) -> bool {
    let is_ours = Rc::strong_count(shared) == 1;
    let mut connection = shared.borrow_mut();
    if connection.reader.is_body_done() {
        connection.owes_continue = false;
        return true;
    }
    // A client that was not told to go on may send its body or not: nobody can know which.
    is_ours && !connection.owes_continue && connection.reader.discard_buffered()
}

/// What may happen between two requests.
#[derive(Clone, Copy)]
struct Between {
    ends_with_drain: bool,
    idle: Duration,
}

async fn next_head(
    shared: &Shared,
    between: Between,
    timer: &mut Timer,
    mut draining: Pin<&mut impl Future<Output = ()>>,
) -> Next {
    let mut is_begun = !shared.borrow().reader.buffer.is_empty();
    let mut is_timed = false;
    poll_fn(|cx| {
        let mut connection = shared.borrow_mut();
        let Connection { stream, reader, .. } = &mut *connection;
        loop {
            if !reader.buffer.is_empty() {
                match head::take_request(&mut reader.buffer, &mut reader.scanned) {
                    Ok(Some(head)) => return Poll::Ready(Next::Request(Box::new(head))),
                    Ok(None) => {}
                    Err(error) => return Poll::Ready(Next::Refused(error)),
                }
            }
            match reader.poll_fill(cx, stream) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::End),
                Poll::Ready(Ok(_)) => {
                    if !is_begun {
                        is_begun = true;
                        is_timed = false;
                    }
                }
                Poll::Pending => break,
            }
        }
        if !is_timed {
            is_timed = true;
            timer.set_after(Some(if is_begun { HEAD_WITHIN } else { between.idle }));
        }
        if !is_begun && between.ends_with_drain && draining.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Next::End);
        }
        match timer.poll(cx) {
            Poll::Ready(_) if is_begun => Poll::Ready(Next::TooSlow),
            Poll::Ready(_) => Poll::Ready(Next::End),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

#[derive(Clone, Copy, Debug)]
struct Written {
    /// Of the body.
    bytes: u64,
    is_whole: bool,
    keeps_alive: bool,
}

#[allow(clippy::too_many_arguments)]
async fn write(
    worker: &Worker,
    shared: &Shared,
    status: StatusCode,
    headers: HeaderMap,
    mut body: Body,
    framing: ResponseFraming,
    idle: Option<Duration>,
    timer: &mut Timer,
) -> Written {
    let (mut encoder, keeps_alive) = {
        let mut connection = shared.borrow_mut();
        let needs_date = encode::needs_date(&headers) && !status.is_informational();
        let date = needs_date.then(|| worker.date());
        let out = connection.outbox.text();
        encode::put_response(out, status, &headers, date.as_ref().map(|d| &d[..]), framing)
    };
    drop(headers);
    if !framing.has_body {
        // Its connection may be fit for use; the length is that of another answer.
        if let Body::Upstream(mut exchange) = body {
            exchange.finish_if_done();
        }
        body = Body::Empty;
        encoder = Encoder::Exact(0);
    }
    let (mut bytes, mut is_over, mut is_timed) = (0, false, false);
    let ended = poll_fn(|cx| {
        loop {
            let mut progressed = false;
            while !is_over && !shared.borrow().outbox.is_full() {
                match body.poll_next(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        progressed = true;
                        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                        let mut connection = shared.borrow_mut();
                        if encoder.push(&mut connection.outbox, frame).is_err() {
                            return Poll::Ready(false);
                        }
                    }
                    Poll::Ready(None) => {
                        is_over = true;
                        let mut connection = shared.borrow_mut();
                        if encoder.finish(&mut connection.outbox).is_err() {
                            return Poll::Ready(false);
                        }
                    }
                    // What was said so far is true; that it ends here must not look like an end.
                    Poll::Ready(Some(Err(_))) => {
                        let mut connection = shared.borrow_mut();
                        let Connection { stream, outbox, .. } = &mut *connection;
                        let _ = outbox.poll_write(cx, stream);
                        return Poll::Ready(false);
                    }
                    Poll::Pending => break,
                }
            }
            let mut connection = shared.borrow_mut();
            let Connection { stream, outbox, .. } = &mut *connection;
            let had_some = !outbox.is_empty();
            match outbox.poll_write(cx, stream) {
                Poll::Ready(Ok(())) if is_over => return Poll::Ready(true),
                Poll::Ready(Ok(())) if had_some || progressed => {
                    is_timed = false;
                    continue;
                }
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(false),
                Poll::Pending => is_timed &= !progressed,
            }
            if !is_timed {
                is_timed = true;
                timer.set_after(idle);
            }
            return timer.poll(cx).map(|_| false);
        }
    })
    .await;
    Written { bytes, is_whole: ended, keeps_alive }
}

/// Answers what cannot be read as a request. What comes after it cannot be read either.
async fn refuse(
    worker: &Worker,
    origin: &Origin,
    shared: &Shared,
    status: StatusCode,
    detail: &str,
    timer: &mut Timer,
) {
    let record = origin.record(Instant::now(), &Method::GET);
    let answer = Answer::of_problem(Problem::new(status, detail), record);
    let framing = ResponseFraming {
        version: Version::HTTP_11,
        length: answer.body.length(),
        has_body: true,
        keep_alive: false,
        is_upgrade: false,
    };
    origin.note(&answer.record, status);
    let (headers, body, idle) = (answer.headers, answer.body, Some(IDLE));
    let written = write(worker, shared, status, headers, body, framing, idle, timer).await;
    worker.finish(origin, &answer.record, status, written.bytes, written.is_whole);
    linger(shared, timer).await;
}

/// Ends our side and lets the client end its own: closing at once would reset the connection, and
/// the client might never see the answer (RFC 9112 section 9.6).
async fn linger(shared: &Shared, timer: &mut Timer) {
    timer.set_after(Some(LINGER));
    let mut left = LINGER_BYTES;
    let mut is_shut = false;
    poll_fn(|cx| {
        let mut connection = shared.borrow_mut();
        let Connection { stream, reader, .. } = &mut *connection;
        if timer.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !is_shut {
            if ready!(Pin::new(&mut *stream).poll_shutdown(cx)).is_err() {
                return Poll::Ready(());
            }
            is_shut = true;
        }
        loop {
            reader.buffer.clear();
            match ready!(poll_discard(reader, cx, stream)) {
                Ok(count) if count > 0 && count < left => left -= count,
                _ => return Poll::Ready(()),
            }
        }
    })
    .await;
}

fn poll_discard(
    reader: &mut Reader,
    cx: &mut Context<'_>,
    stream: &mut Stream,
) -> Poll<io::Result<usize>> {
    reader.poll_fill(cx, stream)
}
