//! A request on its way, and the answer to it, in whichever version of HTTP.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body_util::BodyExt;
use tokio::time::Instant;

use super::{
    body::{Body, BodyError},
    counters::RouteCounters,
    exchange::observing::{Draft, Metered},
    forwarding,
    http1::{
        MOST_HEADERS, MOST_TARGET_BYTES,
        head::{self, RequestHead},
    },
    target::{self, Form, Target, TargetError},
    timer::{Elapsed, Timer},
    tunnel::Tunnel,
};
use crate::{catalog::Paths, http::problem::Problem, telemetry::traces::Active};

/// Checked, with nothing in its headers that concerns one connection only.
pub struct Request {
    pub method: Method,
    pub target: Target,
    /// `Host` or `:authority`, as it was sent.
    pub authority: HeaderValue,
    /// Without port, in lower case.
    pub host: Box<str>,
    pub version: Version,
    pub headers: HeaderMap,
    /// In HTTP/1, the head as it was sent.
    pub text: Option<Bytes>,
    pub body: Body,
    pub expects_continue: bool,
    /// The protocol that the client asks to change to.
    pub upgrade: Option<HeaderValue>,
    pub wants_trailers: bool,
}

pub struct Answer {
    pub status: StatusCode,
    /// Nothing in it concerns one connection only.
    pub headers: HeaderMap,
    pub body: Body,
    /// After 101.
    pub tunnel: Option<Box<Tunnel>>,
    pub record: Record,
}

/// What is counted and logged when the answer has gone.
#[derive(Clone, Debug)]
pub struct Record {
    pub started: Instant,
    pub method: Method,
    pub path: String,
    /// Its name, or that of the workload.
    pub route: Option<Arc<str>>,
    /// Those of the route.
    pub counters: Option<Arc<RouteCounters>>,
    pub tenant: Option<Arc<str>>,
    pub upstream: Option<Arc<str>>,
    pub identity: Option<Arc<str>>,
    pub request_id: Option<HeaderValue>,
    /// Why it was not the upstream that answered.
    pub code: Option<&'static str>,
    pub policy: Option<&'static str>,
    pub retries: u8,
    /// What a snapshot would be made from, where the answer is a failure.
    pub draft: Option<Box<Draft>>,
    /// Where traces are on.
    pub trace: Option<Box<Active>>,
    /// Where requests are metered, and this one is.
    pub metered: Option<Box<Metered>>,
}

impl Record {
    pub fn new(started: Instant, method: &Method) -> Self {
        Self {
            started,
            method: method.clone(),
            path: String::new(),
            route: None,
            counters: None,
            tenant: None,
            upstream: None,
            identity: None,
            request_id: None,
            code: None,
            policy: None,
            retries: 0,
            draft: None,
            trace: None,
            metered: None,
        }
    }

    /// It is counted and logged, and leaves neither span nor snapshot nor event.
    pub fn forget_observers(&mut self) {
        self.draft = None;
        self.trace = None;
        self.metered = None;
    }
}

/// A body that was to be looked at before the request goes on.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("the body did not arrive within {} s", .0.as_secs())]
    Late(Duration),
    #[error("{0}")]
    Broken(BodyError),
}

impl Unreadable {
    /// For metrics and for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Late(_) => "request_body_late",
            Self::Broken(_) => "request_body",
        }
    }

    pub fn problem(&self) -> Problem {
        let status = match self {
            Self::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Broken(BodyError::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Broken(_) => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, self.to_string()).with("code", self.code())
    }
}

impl Request {
    /// Reads the whole body and leaves it in place. `None`: it has more than `most` bytes.
    ///
    /// A client that sends slowly holds what was read of it in memory all the while, so it has
    /// `within` altogether, and not for each piece.
    pub async fn read_body(
        &mut self,
        most: usize,
        within: Duration,
        timer: &mut Timer,
    ) -> Result<Option<Bytes>, Unreadable> {
        if let Body::Full(bytes) = &self.body
            && bytes.len() <= most
        {
            return Ok(Some(bytes.clone()));
        }
        let body = std::mem::replace(&mut self.body, Body::Failed);
        timer.set_after(Some(within));
        let read = timer.bound(body.collect_up_to(most)).await;
        timer.set(None);
        match read {
            Ok(Ok(Ok(bytes))) => {
                self.body = Body::full(bytes.clone());
                Ok(Some(bytes))
            }
            Ok(Ok(Err(longer))) => {
                self.body = longer;
                Ok(None)
            }
            Ok(Err(error)) => Err(Unreadable::Broken(error)),
            Err(Elapsed) => Err(Unreadable::Late(within)),
        }
    }
}

impl Answer {
    pub fn of_problem(problem: Problem, record: Record) -> Self {
        let (parts, body) = problem.into_response().into_parts();
        Self::full(parts.status, parts.headers, body, record)
    }

    pub fn full(
        status: StatusCode,
        headers: HeaderMap,
        body: http_body_util::Full<bytes::Bytes>,
        record: Record,
    ) -> Self {
        // A full body is one frame, at hand.
        let bytes = futures_now(body.collect()).and_then(Result::ok).map(|b| b.to_bytes());
        let body = Body::full(bytes.unwrap_or_default());
        Self { status, headers, body, tunnel: None, record }
    }
}

/// The output of a future that waits for nothing.
fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

impl Request {
    /// From an HTTP/1 head. `Err` is what the client did wrong.
    pub fn from_http1(head: RequestHead, body: Body, paths: Paths) -> Result<Self, TargetError> {
        let mut headers = head.headers;
        let mut hosts = headers.get_all(header::HOST).iter();
        let named = hosts.next().cloned();
        // RFC 9112 section 3.2: exactly one in HTTP/1.1.
        if hosts.next().is_some() || (named.is_none() && head.version == Version::HTTP_11) {
            return Err(TargetError::Host);
        }
        let form = target::form(&head.method, &head.target)?;
        let (authority, path) = match form {
            Form::Path(path) => (named.unwrap_or(HeaderValue::from_static("")), path),
            // Section 3.2.2: the URL's authority counts, whatever `Host` says; but what `Host`
            // says must be valid all the same.
            Form::Url(authority, path) => {
                if let Some(named) = &named {
                    target::host_of(named.as_bytes())?;
                }
                let authority =
                    HeaderValue::from_bytes(authority).map_err(|_| TargetError::Host)?;
                (authority, path)
            }
            Form::Server => (named.unwrap_or(HeaderValue::from_static("")), &b"*"[..]),
        };
        let host = target::host_of(authority.as_bytes())?.into();
        let target = match form {
            Form::Url(_, path) if !path.starts_with(b"/") => {
                Target::parse(&[b"/", path].concat(), paths)?
            }
            Form::Server => Target::server(),
            _ => Target::parse(path, paths)?,
        };
        let is_http11 = head.version == Version::HTTP_11;
        let expects_continue = is_http11
            && headers
                .get(header::EXPECT)
                .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        let upgrade = if is_http11 { forwarding::requested_upgrade(&headers) } else { None };
        let wants_trailers = forwarding::accepts_trailers(&headers);
        strip(&mut headers);
        Ok(Self {
            method: head.method,
            target,
            authority,
            host,
            version: head.version,
            headers,
            text: Some(head.text),
            body,
            expects_continue,
            upgrade,
            wants_trailers,
        })
    }

    /// From an HTTP/2 request, whose form hyper has checked.
    pub fn from_http2(
        parts: http::request::Parts,
        body: Body,
        paths: Paths,
    ) -> Result<Self, TargetError> {
        let mut headers = parts.headers;
        if headers.len() > MOST_HEADERS {
            return Err(TargetError::TooManyFields);
        }
        if headers.values().any(has_blank_end) {
            return Err(TargetError::Blank);
        }
        let mut hosts = headers.get_all(header::HOST).iter();
        let named = hosts.next().cloned();
        if hosts.next().is_some() {
            return Err(TargetError::Host);
        }
        let authority = match (parts.uri.authority(), named) {
            // RFC 9113 section 8.3.1: they must not differ.
            (Some(authority), Some(named))
                if !named.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
            {
                return Err(TargetError::Host);
            }
            (Some(authority), _) => {
                HeaderValue::from_str(authority.as_str()).map_err(|_| TargetError::Host)?
            }
            (None, Some(named)) => named,
            (None, None) => return Err(TargetError::Host),
        };
        let host = target::host_of(authority.as_bytes())?.into();
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        if path.len() > MOST_TARGET_BYTES {
            return Err(TargetError::TooLong);
        }
        let target = match path {
            "*" if parts.method == Method::OPTIONS => Target::server(),
            path => Target::parse(path.as_bytes(), paths)?,
        };
        let wants_trailers = forwarding::accepts_trailers(&headers);
        strip(&mut headers);
        join_cookies(&mut headers);
        Ok(Self {
            method: parts.method,
            target,
            authority,
            host,
            version: Version::HTTP_2,
            headers,
            text: None,
            body,
            expects_continue: false,
            upgrade: None,
            wants_trailers,
        })
    }
}

/// The fields of a head that was read before: those of its request, before anything was changed.
pub fn fields_of(text: &Bytes) -> HeaderMap {
    let head = head::take_request(&mut BytesMut::from(&text[..]), &mut 0);
    let mut headers = head.ok().flatten().map(|head| head.headers).unwrap_or_default();
    strip(&mut headers);
    headers
}

/// What is of this connection only, and what has a place of its own.
fn strip(headers: &mut HeaderMap) {
    forwarding::strip_connection_fields(headers);
    forwarding::strip_misspelt_claims(headers);
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::EXPECT);
}

/// RFC 9113 section 8.2.1: such a field makes a request malformed, and hyper lets it pass.
fn has_blank_end(value: &HeaderValue) -> bool {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    is_blank(value.as_bytes().first()) || is_blank(value.as_bytes().last())
}

/// HTTP/2 may split `Cookie`; HTTP/1 must not see that (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let cookies: Vec<&[u8]> =
        headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if cookies.len() > 1
        && let Ok(joined) = HeaderValue::from_bytes(&cookies.join(&b"; "[..]))
    {
        headers.insert(header::COOKIE, joined);
    }
}
