//! One request to an upstream and its response, on one connection. There is no task behind it: it
//! runs in the client's, reads and writes when that is polled, and goes back to the pool only
//! when both messages ended where they should and nothing was left over.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, StatusCode};
use hyper::body::Frame;
use tokio::time::{Instant, Sleep};

use super::{
    encode::{self, Encoder},
    head::{self, ResponseHead},
    length::Length,
    reader::Reader,
};
use crate::proxy::{
    body::{Body, BodyError},
    error::UpstreamError,
    pool::Lease,
    stream::{Outbox, Stream},
    timer::Timer,
};

/// 1xx responses to one request; more is a flood.
const MOST_INTERIM: u8 = 16;
/// An upstream that does not know `Expect` gets the body after this (RFC 9110 section 10.1.1).
const CONTINUE_WITHIN: Duration = Duration::from_secs(1);

/// Takes the responses that come before the final one.
pub type Interim<'a> = dyn FnMut(&mut Context<'_>, StatusCode, &HeaderMap) + 'a;

pub struct Connection {
    pub stream: Stream,
    reader: Reader,
    outbox: Outbox,
    /// Has served a request before.
    is_used: bool,
}

impl Connection {
    pub fn new(stream: Stream) -> Self {
        Self { stream, reader: Reader::default(), outbox: Outbox::default(), is_used: false }
    }

    /// Whether an idle connection can be used. What arrives without a request is either its end or
    /// a message that would be taken for the next answer. No system call unless the socket is known
    /// to be readable.
    pub fn is_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.reader.poll_fill(cx, &mut self.stream).is_pending()
    }
}

/// What is sent.
pub struct Sent<'a> {
    pub method: &'a Method,
    pub target: &'a str,
    pub host: &'a [u8],
    pub headers: &'a HeaderMap,
    pub body: Body,
    /// The protocol that the client asks to change to.
    pub upgrade: Option<&'a [u8]>,
    pub expects_continue: bool,
}

pub struct Exchange {
    connection: Connection,
    lease: Option<Lease>,
    method: Method,
    body: Body,
    encoder: Encoder,
    state: RequestState,
    /// Bytes of the answer have come.
    is_answered: bool,
    wants_upgrade: bool,
    keep_alive: bool,
    interim: u8,
    /// Pieces of the request's body that were sent.
    moved: u64,
    patience: Option<Pin<Box<Sleep>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RequestState {
    /// The body is kept back until the upstream asks for it.
    AwaitingContinue,
    Sending,
    Sent,
    /// The upstream takes no more. It may still answer.
    Refused,
}

/// A failed exchange, with what is needed to try again.
pub struct Failed {
    pub error: UpstreamError,
    /// The request's body, if nothing of it was taken.
    pub body: Option<Body>,
    /// An idle connection turned out to be dead: the upstream gave no byte of an answer.
    pub is_stale: bool,
}

impl Exchange {
    pub fn new(connection: Connection, lease: Lease, sent: Sent<'_>) -> Box<Self> {
        let mut connection = connection;
        let length = sent.body.length();
        let encoder = encode::put_request(
            connection.outbox.text(),
            sent.method,
            sent.target,
            sent.host,
            sent.headers,
            length,
            sent.upgrade,
        );
        let state = match length {
            Length::Exact(0) => RequestState::Sent,
            _ if sent.expects_continue => RequestState::AwaitingContinue,
            _ => RequestState::Sending,
        };
        Box::new(Self {
            connection,
            lease: Some(lease),
            method: sent.method.clone(),
            body: sent.body,
            encoder,
            state,
            is_answered: false,
            wants_upgrade: sent.upgrade.is_some(),
            keep_alive: false,
            interim: 0,
            moved: 0,
            patience: (state == RequestState::AwaitingContinue)
                .then(|| Box::pin(tokio::time::sleep(CONTINUE_WITHIN))),
        })
    }

    /// Sends, and reads the response's head. `idle` is for the time in which the request's body is
    /// being sent, `within` for the time after that.
    pub async fn response(
        &mut self,
        interim: &mut Interim<'_>,
        timer: &mut Timer,
        idle: Option<Duration>,
        within: Option<Instant>,
        after_body: Option<Duration>,
    ) -> Result<ResponseHead, UpstreamError> {
        let was_sent = self.state == RequestState::Sent;
        let mut is_timed = false;
        let mut moved = 0;
        poll_fn(|cx| {
            if let Poll::Ready(answered) = self.poll_response(cx, interim) {
                return Poll::Ready(answered);
            }
            if self.state == RequestState::Sending {
                if !is_timed || moved != self.moved {
                    timer.set_after(idle);
                }
                is_timed = true;
                moved = self.moved;
            } else if !is_timed || moved != u64::MAX {
                is_timed = true;
                moved = u64::MAX;
                match was_sent {
                    true => timer.set(within),
                    false => timer.set_after(after_body),
                }
            }
            timer.poll(cx).map(|_| Err(UpstreamError::Timeout))
        })
        .await
    }

    fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
        interim: &mut Interim<'_>,
    ) -> Poll<Result<ResponseHead, UpstreamError>> {
        loop {
            if let Err(error) = self.pump(cx) {
                return Poll::Ready(Err(UpstreamError::RequestBody(error)));
            }
            let reader = &mut self.connection.reader;
            if !reader.buffer.is_empty() {
                self.is_answered = true;
                let taken =
                    head::take_response(&mut reader.buffer, &mut reader.scanned, &self.method)?;
                if let Some(head) = taken {
                    if let Some(head) = self.accept(cx, head, interim)? {
                        return Poll::Ready(Ok(head));
                    }
                    continue;
                }
            }
            match reader.poll_fill(cx, &mut self.connection.stream) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(UpstreamError::Closed)),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(error)) => return Poll::Ready(Err(UpstreamError::Io(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The final head, or `None` for an interim one.
    fn accept(
        &mut self,
        cx: &mut Context<'_>,
        head: ResponseHead,
        interim: &mut Interim<'_>,
    ) -> Result<Option<ResponseHead>, UpstreamError> {
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            return match self.wants_upgrade {
                true => Ok(Some(head)),
                false => Err(UpstreamError::UnexpectedUpgrade),
            };
        }
        if head.status.is_informational() {
            self.interim += 1;
            if self.interim > MOST_INTERIM {
                return Err(UpstreamError::TooManyInterim);
            }
            if head.status == StatusCode::CONTINUE {
                // The client gets its own when its body is read.
                if self.state == RequestState::AwaitingContinue {
                    self.state = RequestState::Sending;
                }
            } else {
                interim(cx, head.status, &head.headers);
            }
            return Ok(None);
        }
        self.keep_alive = head.keep_alive;
        self.connection.reader.begin_body(head.length);
        if self.state == RequestState::AwaitingContinue {
            // It does not want the body, so the client is not asked for it.
            self.state = RequestState::Refused;
        }
        Ok(Some(head))
    }

    /// Sends what can be sent now. Fails only where the client's body does; an upstream that takes
    /// no more may have answered already.
    fn pump(&mut self, cx: &mut Context<'_>) -> Result<(), BodyError> {
        loop {
            match self.connection.outbox.poll_write(cx, &mut self.connection.stream) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    self.state = RequestState::Refused;
                    self.connection.outbox = Outbox::default();
                    return Ok(());
                }
                Poll::Pending => return Ok(()),
            }
            if self.state == RequestState::AwaitingContinue
                && let Some(patience) = &mut self.patience
                && patience.as_mut().poll(cx).is_ready()
            {
                self.state = RequestState::Sending;
            }
            if self.state != RequestState::Sending {
                return Ok(());
            }
            while self.state == RequestState::Sending && !self.connection.outbox.is_full() {
                match self.body.poll_next(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        self.moved += 1;
                        self.encoder.push(&mut self.connection.outbox, frame)?;
                    }
                    Poll::Ready(None) => {
                        self.encoder.finish(&mut self.connection.outbox)?;
                        self.state = RequestState::Sent;
                    }
                    Poll::Ready(Some(Err(error))) => return Err(error),
                    Poll::Pending if self.connection.outbox.is_empty() => return Ok(()),
                    Poll::Pending => break,
                }
            }
        }
    }

    /// What is left after a failure.
    pub fn fail(mut self: Box<Self>, error: UpstreamError) -> Failed {
        let is_stale = self.connection.is_used
            && !self.is_answered
            && matches!(error, UpstreamError::Closed | UpstreamError::Io(_));
        let is_whole = matches!(self.body, Body::Empty | Body::Full(_))
            || self.state == RequestState::AwaitingContinue;
        Failed { error, body: is_whole.then(|| std::mem::take(&mut self.body)), is_stale }
    }

    /// Of the response's body.
    pub fn length(&self) -> Length {
        self.connection.reader.remaining()
    }

    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.lease.is_none() {
            return Poll::Ready(None);
        }
        if self.state == RequestState::Sending || !self.connection.outbox.is_empty() {
            // The request's body may be long after its answer has begun. When it fails, the
            // answer is still the client's.
            if self.pump(cx).is_err() {
                self.state = RequestState::Refused;
            }
        }
        let polled = self.connection.reader.poll_body(cx, &mut self.connection.stream);
        match &polled {
            Poll::Ready(None) => self.finish(),
            Poll::Ready(Some(Ok(_))) if self.connection.reader.is_body_done() => self.finish(),
            Poll::Ready(Some(Err(_))) => self.lease = None,
            _ => {}
        }
        polled
    }

    /// An answer without a body is over with its head.
    pub fn finish_if_done(&mut self) -> bool {
        let is_done = self.connection.reader.is_body_done();
        if is_done {
            self.finish();
        }
        is_done
    }

    /// Gives the connection back, if it is sure where the next answer begins.
    fn finish(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let is_clean = self.keep_alive
            && self.state == RequestState::Sent
            && self.connection.outbox.is_empty()
            && self.connection.reader.buffer.is_empty();
        if is_clean {
            let stream = Stream::Other(Box::new(tokio::io::empty()));
            let mut connection = std::mem::replace(&mut self.connection, Connection::new(stream));
            connection.is_used = true;
            lease.give_back(connection);
        }
    }

    /// After 101: the stream, and what was read of the other protocol.
    pub fn into_stream(self: Box<Self>) -> (Stream, BytesMut) {
        let Self { connection, .. } = *self;
        (connection.stream, connection.reader.buffer)
    }
}

/// Connects again where that cannot do harm.
pub fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

impl From<io::Error> for UpstreamError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
