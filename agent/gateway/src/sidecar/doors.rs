//! Which of the formats a request asks in, and the answer to it.
//!
//! The path alone says which format it is: a gateway's configuration chooses the path, while header
//! fields may be the client's. Below Envoy's prefix, where the client's own path follows, nothing
//! is looked at but that prefix.

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use stoa_policy::sources::Sources;
use tonic::{Status, server::UnaryService};

use super::{
    answer::{self, Decided},
    counters::{Format, Refused},
    decider::{Decider, Overloaded},
    document, envoy_grpc, forwarded, kong_opa,
    own_routes::OwnRoutes,
    question::{Malformed, Question},
    user_info::Stating,
};
use crate::{
    admin::{Admin, LONGEST_BODY},
    config::sidecar::DecisionFormat,
    http::{Answer, problem::Problem},
};

/// A question is a request's head, and of its body what the gateway is configured to send.
pub const LONGEST_QUESTION: usize = 1 << 20;
const READ_WITHIN: Duration = Duration::from_secs(10);
const NGINX: &str = "/authz/nginx";
const FORWARD_AUTH: &str = "/authz/forward";
const KONG: &str = "/authz/kong";
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Of our own, or of tonic.
pub type DoorBody = Either<Full<Bytes>, tonic::body::Body>;

/// What the doors are configured with; the same for all workers.
#[derive(Clone, Debug)]
pub struct DoorSettings {
    /// Who may ask.
    pub trusted: Sources,
    pub format: DecisionFormat,
    /// Begins with a slash and ends without one.
    pub envoy_prefix: String,
    pub stating: Stating,
}

/// One worker's.
pub struct Doors {
    pub decider: Decider,
    pub settings: DoorSettings,
    /// `/health`, `/metrics`: for everyone; `/admin`, for whoever has its token.
    pub own: Arc<OwnRoutes>,
}

#[derive(Clone, Copy)]
enum Door {
    Grpc,
    EnvoyHttp,
    Document,
    Nginx,
    ForwardAuth,
    KongOpa,
}

impl Doors {
    pub async fn answer(
        self: Rc<Self>,
        request: Request<Incoming>,
        peer: std::net::SocketAddr,
    ) -> Response<DoorBody> {
        let Some(door) = self.find(request.uri().path()) else {
            if Admin::owns(request.uri().path()) {
                let (head, body) = request.into_parts();
                let body = self.read_at_most(body, LONGEST_BODY);
                return self.own.admin.answer(&head, body, peer).await.map(Either::Left);
            }
            let own = self.own.answer(request.method(), request.uri().path());
            return own.unwrap_or_else(not_found).map(Either::Left);
        };
        let is_trusted = self.settings.trusted.contains(peer);
        if !is_trusted {
            self.decider.counters.refused(Refused::Untrusted);
        }
        if let Door::Grpc = door {
            return self.check(request, is_trusted).await.map(Either::Right);
        }
        let answered = match is_trusted {
            true => self.decide(door, request).await,
            false => Err(Problem::new(
                StatusCode::FORBIDDEN,
                format!(
                    "questions from {} are not answered: list it in --trusted-callers \
                     (STOA_TRUSTED_CALLERS) if it is a gateway of yours",
                    peer.ip()
                ),
            )),
        };
        answered.unwrap_or_else(Problem::into_response).map(Either::Left)
    }

    fn find(&self, path: &str) -> Option<Door> {
        // First, so that no path of a client can be another door's.
        if path
            .strip_prefix(self.settings.envoy_prefix.as_str())
            .is_some_and(|r| r.starts_with('/'))
        {
            return Some(Door::EnvoyHttp);
        }
        match path {
            CHECK => Some(Door::Grpc),
            "/authz" => Some(Door::Document),
            // Where Kong's plugin looks for OPA's documents.
            _ if path.starts_with("/v1/data/") => Some(Door::KongOpa),
            _ if below(path, NGINX).is_some() => Some(Door::Nginx),
            _ if below(path, FORWARD_AUTH).is_some() => Some(Door::ForwardAuth),
            _ if below(path, KONG).is_some() => Some(Door::KongOpa),
            _ => None,
        }
    }

    async fn decide(&self, door: Door, request: Request<Incoming>) -> Result<Answer, Problem> {
        let names = &self.decider.names;
        let (head, body) = request.into_parts();
        match door {
            Door::Document => {
                only(&head.method, &[Method::POST], "POST")?;
                let body = self.read(body).await?;
                let mut question = self.formed(document::read(&body))?;
                // These are the gateway's own fields, not copies of the client's.
                self.formed(self.settings.stating.complete(&mut question.stated, &head.headers))?;
                let decided = self.put(Format::Document, &question).await?;
                Ok(answer::of_document(&decided, self.settings.format, names))
            }
            Door::KongOpa => {
                only(&head.method, &[Method::POST], "POST")?;
                let place = below(head.uri.path(), KONG).unwrap_or_default();
                let place = self.formed(forwarded::place_of(place))?;
                let body = self.read(body).await?;
                let question = self.formed(kong_opa::read(&body, place))?;
                let decided = self.put(Format::KongOpa, &question).await?;
                Ok(answer::of_kong_opa(&decided, names))
            }
            Door::Nginx | Door::ForwardAuth => {
                only(&head.method, &[Method::GET, Method::HEAD], "GET, HEAD")?;
                let path = head.uri.path();
                let place = below(path, NGINX).or(below(path, FORWARD_AUTH)).unwrap_or_default();
                let place = self.formed(forwarded::place_of(place))?;
                match door {
                    Door::Nginx => {
                        let question = self.forwarded(forwarded::of_nginx(head, place))?;
                        let decided = self.put(Format::Nginx, &question).await?;
                        Ok(answer::of_nginx(&decided, names))
                    }
                    _ => {
                        let question = self.forwarded(forwarded::of_forward_auth(head, place))?;
                        let decided = self.put(Format::ForwardAuth, &question).await?;
                        Ok(answer::of_forwarded(&decided, names))
                    }
                }
            }
            Door::EnvoyHttp | Door::Grpc => {
                let body = self.read(body).await?;
                let prefix = &self.settings.envoy_prefix;
                let question = self.forwarded(forwarded::of_envoy_http(head, body, prefix))?;
                let decided = self.put(Format::EnvoyHttp, &question).await?;
                Ok(answer::of_envoy_http(&decided, names))
            }
        }
    }

    async fn put(&self, format: Format, question: &Question) -> Result<Decided, Problem> {
        self.decider.decide(format, question).await.map_err(|Overloaded| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many questions at once; ask again")
        })
    }

    fn formed<T>(&self, read: Result<T, Malformed>) -> Result<T, Problem> {
        read.map_err(|Malformed { field, reason }| {
            self.decider.counters.refused(Refused::Malformed);
            let is_named = field.is_empty() || reason.contains(&format!("`{field}`"));
            let detail = if is_named { reason } else { format!("`{field}` {reason}") };
            Problem::new(StatusCode::BAD_REQUEST, detail).with("field", field)
        })
    }

    /// Header fields of such a question are the client's where the gateway does not overwrite
    /// them: an identity in them is believed only if the operator has said that it does.
    fn forwarded(&self, read: Result<Question, Malformed>) -> Result<Question, Problem> {
        let mut question = self.formed(read)?;
        let stating = &self.settings.stating;
        if stating.are_overwritten {
            self.formed(stating.complete(&mut question.stated, &question.headers))?;
        }
        Ok(question)
    }

    async fn read(&self, body: Incoming) -> Result<Bytes, Problem> {
        self.read_at_most(body, LONGEST_QUESTION).await
    }

    async fn read_at_most(&self, body: Incoming, most: usize) -> Result<Bytes, Problem> {
        if body.is_end_stream() {
            return Ok(Bytes::new());
        }
        let collecting = Limited::new(body, most).collect();
        match tokio::time::timeout(READ_WITHIN, collecting).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                self.decider.counters.refused(Refused::TooLong);
                Err(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is longer than {most} bytes"),
                ))
            }
            Ok(Err(_)) => {
                self.decider.counters.refused(Refused::Malformed);
                Err(Problem::new(StatusCode::BAD_REQUEST, "the body could not be read"))
            }
            Err(_) => {
                self.decider.counters.refused(Refused::TimedOut);
                Err(Problem::new(
                    StatusCode::REQUEST_TIMEOUT,
                    format!("the body did not arrive within {READ_WITHIN:?}"),
                ))
            }
        }
    }

    async fn check(
        self: Rc<Self>,
        request: Request<Incoming>,
        is_trusted: bool,
    ) -> Response<tonic::body::Body> {
        if !is_trusted {
            let refusal = "this address may not ask: list it in --trusted-callers";
            return Status::permission_denied(refusal).into_http();
        }
        let mut grpc = tonic::server::Grpc::new(tonic_prost::ProstCodec::default())
            .apply_max_message_size_config(Some(LONGEST_QUESTION), None);
        grpc.unary(Check(self), request).await
    }
}

/// The one method of Envoy's service. tonic's generated server would box a `Send` future for each
/// call; on a thread of its own, nothing needs to be `Send`.
struct Check(Rc<Doors>);

impl UnaryService<CheckRequest> for Check {
    type Response = CheckResponse;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<tonic::Response<Self::Response>, Status>>>>;

    fn call(&mut self, request: tonic::Request<CheckRequest>) -> Self::Future {
        let doors = Rc::clone(&self.0);
        Box::pin(async move {
            let decider = &doors.decider;
            let question = envoy_grpc::read(request.into_inner()).map_err(|malformed| {
                decider.counters.refused(Refused::Malformed);
                Status::invalid_argument(malformed.to_string())
            })?;
            let decided = decider
                .decide(Format::EnvoyGrpc, &question)
                .await
                .map_err(|Overloaded| Status::unavailable("too many questions at once"))?;
            Ok(tonic::Response::new(envoy_grpc::write(&decided, &decider.names)))
        })
    }
}

/// What follows `base` in `path`, if it is that or below it.
fn below<'a>(path: &'a str, base: &str) -> Option<&'a str> {
    path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn only(method: &Method, allowed: &[Method], names: &'static str) -> Result<(), Problem> {
    match allowed.contains(method) {
        true => Ok(()),
        false => Err(Problem::method_not_allowed(names)),
    }
}

fn not_found() -> Answer {
    Problem::new(
        StatusCode::NOT_FOUND,
        "there is no such resource; there are /authz, /authz/nginx, /authz/forward, /authz/kong, \
         Envoy's prefix, envoy.service.auth.v3.Authorization, /admin, /health, /health/live, \
         /health/ready and /metrics",
    )
    .into_response()
}
