//! Sends one request to one upstream, again where that is allowed.

use std::{rc::Rc, sync::Arc};

use http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme},
};
use stoa_policy::{
    circuit_breaker::{Breaker, Permit},
    moment::Moment,
};
use tokio::time::Instant;

use crate::{
    catalog::routes::{Retries, Timeouts},
    proxy::{
        Worker,
        body::Body,
        connection::Origin,
        error::UpstreamError,
        http1::client::{Exchange, Failed, Interim, Sent, is_idempotent},
        http2,
        pool::{Channel, EndpointPool, Pool},
        request::{Record, Request},
        timer::Timer,
        tunnel::Tunnel,
    },
};

/// One request to one upstream, with what it takes to get an answer.
pub struct Attempts<'a> {
    pub pool: &'a Rc<Pool>,
    pub breaker: Option<&'a Arc<Breaker>>,
    pub origin: &'a Origin,
    pub timeouts: Timeouts,
    pub retries: Option<&'a Retries>,
}

pub struct Answered {
    pub status: StatusCode,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Body,
    /// Of an answer to HEAD, or 304: the length of a body that is not sent.
    pub declared_length: Option<HeaderValue>,
    pub upgrade: Option<HeaderValue>,
    pub tunnel: Option<Box<Tunnel>>,
}

/// Says how an attempt went. What the client did, or an idle connection that had died, says
/// nothing of the upstream.
fn report(permit: Permit, tried: &Result<Answered, Failed>) {
    match tried {
        Ok(answered) if answered.status.is_server_error() => permit.failed(Moment::read()),
        Ok(_) => permit.succeeded(Moment::read()),
        Err(Failed { is_stale: true, .. }) => drop(permit),
        Err(Failed { error: UpstreamError::RequestBody(_), .. }) => drop(permit),
        Err(_) => permit.failed(Moment::read()),
    }
}

impl Attempts<'_> {
    pub async fn send(
        &self,
        worker: &Rc<Worker>,
        mut request: Request,
        record: &mut Record,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Result<Answered, UpstreamError> {
        self.pool.count_request();
        let deadline = self.timeouts.request.map(|within| record.started + within);
        let mut avoid: Option<Rc<EndpointPool>> = None;
        let mut must_be_new = false;
        let mut stale_retries = 0_u8;
        loop {
            let permit = match self.breaker.map(|breaker| breaker.admit(Moment::read())) {
                None => None,
                Some(Ok(permit)) => Some(permit),
                Some(Err(rejected)) => return Err(UpstreamError::CircuitOpen(rejected)),
            };
            let endpoint = self.pool.pick(&worker.random, avoid.as_ref());
            let tried =
                self.try_once(&endpoint, &mut request, must_be_new, deadline, timer, interim).await;
            if let Some(permit) = permit {
                report(permit, &tried);
            }
            let failed = match tried {
                Ok(answered) => {
                    let is_worth_it = self.retries.is_some_and(|retries| {
                        retries.statuses.contains(&answered.status)
                            && record.retries < retries.attempts
                    });
                    if !is_worth_it
                        || !is_idempotent(&request.method)
                        || !matches!(request.body, Body::Empty)
                        || !self.is_in_budget(deadline)
                    {
                        return Ok(answered);
                    }
                    record.retries += 1;
                    worker.counters.retries.add(1);
                    avoid = Some(endpoint);
                    continue;
                }
                Err(failed) => failed,
            };
            let Some(body) = failed.body else { return Err(failed.error) };
            let is_repeatable = is_idempotent(&request.method) && matches!(body, Body::Empty);
            request.body = body;
            // An idle connection that had died is no fault of the request: it goes out again, on a
            // new connection, where repeating it does no harm.
            if failed.is_stale && is_repeatable && stale_retries < 1 {
                stale_retries += 1;
                must_be_new = true;
                worker.counters.retries.add(1);
                continue;
            }
            let may_go_again = failed.error.is_before_request() || is_repeatable;
            let has_attempts =
                self.retries.is_some_and(|retries| record.retries < retries.attempts);
            if !may_go_again || !has_attempts || !self.is_in_budget(deadline) {
                return Err(failed.error);
            }
            record.retries += 1;
            worker.counters.retries.add(1);
            avoid = Some(endpoint);
        }
    }

    fn is_in_budget(&self, deadline: Option<Instant>) -> bool {
        let has_time = deadline.is_none_or(|deadline| Instant::now() < deadline);
        // What the first attempt met says more than that there may be no second one.
        let is_closed = || self.breaker.is_none_or(|breaker| breaker.peek(Moment::read()).is_ok());
        has_time
            && is_closed()
            && self.retries.is_some_and(|r| self.pool.may_retry(r.budget_percent))
    }

    async fn try_once(
        &self,
        endpoint: &Rc<EndpointPool>,
        request: &mut Request,
        must_be_new: bool,
        deadline: Option<Instant>,
        timer: &mut Timer,
        interim: &mut Interim<'_>,
    ) -> Result<Answered, Failed> {
        let body = std::mem::take(&mut request.body);
        let (channel, lease) = match self.pool.channel(endpoint, self.origin, must_be_new).await {
            Ok(connected) => connected,
            Err(error) => return Err(Failed { error, body: Some(body), is_stale: false }),
        };
        let within = match self.timeouts.upstream {
            Some(each) => {
                let each = Instant::now() + each;
                Some(deadline.map_or(each, |deadline| deadline.min(each)))
            }
            None => deadline,
        };
        let after_body = match (self.timeouts.upstream, self.timeouts.request) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let host = match request.authority.is_empty() {
            true => endpoint.authority.as_bytes(),
            false => request.authority.as_bytes(),
        };
        let connection = match channel {
            Channel::Http2(sender) => {
                timer.set(within);
                let sent = timer.bound(send_http2(self.pool, sender, request, host, body)).await;
                drop(lease);
                return match sent {
                    Ok(answered) => answered,
                    Err(_) => {
                        Err(Failed { error: UpstreamError::Timeout, body: None, is_stale: false })
                    }
                };
            }
            Channel::Http1(connection) => connection,
        };
        let mut exchange = Exchange::new(
            connection,
            lease,
            Sent {
                method: &request.method,
                target: request.target.as_str(),
                host,
                headers: &request.headers,
                body,
                upgrade: request.upgrade.as_ref().map(HeaderValue::as_bytes),
                expects_continue: request.expects_continue,
            },
        );
        let head = exchange.response(interim, timer, self.timeouts.idle, within, after_body).await;
        let head = match head {
            Ok(head) => head,
            Err(error) => return Err(exchange.fail(error)),
        };
        let mut headers = head.headers;
        let mut tunnel = None;
        let mut upgrade = None;
        let mut declared_length = None;
        let body = if head.status == StatusCode::SWITCHING_PROTOCOLS {
            upgrade = headers.get(header::UPGRADE).cloned();
            let (upstream, read) = exchange.into_stream();
            let idle = self.timeouts.idle;
            tunnel = Some(Box::new(Tunnel { upstream, read, idle, messages: None }));
            Body::Empty
        } else {
            if request.method == Method::HEAD || head.status == StatusCode::NOT_MODIFIED {
                declared_length = headers.remove(header::CONTENT_LENGTH);
            }
            match exchange.finish_if_done() {
                true => Body::Empty,
                false => Body::Upstream(exchange),
            }
        };
        let version = head.version;
        Ok(Answered {
            status: head.status,
            version,
            headers,
            body,
            declared_length,
            upgrade,
            tunnel,
        })
    }
}

async fn send_http2(
    pool: &Pool,
    mut sender: http2::Sender,
    request: &Request,
    host: &[u8],
    body: Body,
) -> Result<Answered, Failed> {
    let uri = (|| {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if pool.upstream.tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP });
        parts.authority = Some(Authority::try_from(host).ok()?);
        parts.path_and_query = Some(PathAndQuery::try_from(request.target.as_str()).ok()?);
        Uri::from_parts(parts).ok()
    })();
    if let Err(error) = sender.ready().await {
        return Err(Failed {
            error: UpstreamError::Http2(error),
            body: Some(body),
            is_stale: true,
        });
    }
    let mut sent = http::Request::new(body);
    *sent.method_mut() = request.method.clone();
    *sent.uri_mut() = uri.unwrap_or_default();
    *sent.version_mut() = Version::HTTP_2;
    *sent.headers_mut() = request.headers.clone();
    if request.wants_trailers {
        sent.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let response = match sender.try_send_request(sent).await {
        Ok(response) => response,
        Err(mut error) => {
            // Handed back if it was not sent at all.
            let body = error.take_message().map(http::Request::into_body);
            let is_stale = body.is_some();
            let error = UpstreamError::Http2(error.into_error());
            return Err(Failed { error, body, is_stale });
        }
    };
    let (parts, body) = response.into_parts();
    let mut headers = parts.headers;
    let mut declared_length = None;
    if request.method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED {
        declared_length = headers.remove(header::CONTENT_LENGTH);
    }
    let body = match hyper::body::Body::is_end_stream(&body) {
        true => Body::Empty,
        false => Body::Http2(body),
    };
    Ok(Answered {
        status: parts.status,
        version: Version::HTTP_2,
        headers,
        body,
        declared_length,
        upgrade: None,
        tunnel: None,
    })
}
