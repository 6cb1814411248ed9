//! What can go wrong with an upstream, and what the client is told of it.

use std::io;

use http::StatusCode;
use stoa_policy::circuit_breaker::Rejected;

use super::{
    body::BodyError,
    http1::{encode::WrongLength, head::HeadError},
};

#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    #[error("the upstream cannot be connected to: {0}")]
    Connect(io::Error),
    #[error("the upstream did not accept the connection in time")]
    ConnectTimeout,
    #[error("the upstream's name cannot be resolved: {0}")]
    Resolve(io::Error),
    #[error("TLS with the upstream failed: {0}")]
    Tls(io::Error),
    #[error("the upstream closed the connection before it answered")]
    Closed,
    #[error("the connection to the upstream failed: {0}")]
    Io(io::Error),
    #[error("the upstream's answer is not valid HTTP: {0}")]
    Malformed(#[from] HeadError),
    #[error("the upstream sent too many interim responses")]
    TooManyInterim,
    #[error("the upstream switched protocols without being asked")]
    UnexpectedUpgrade,
    #[error("the upstream did not answer in time")]
    Timeout,
    #[error("the upstream's HTTP/2 connection failed: {0}")]
    Http2(hyper::Error),
    #[error("no backend of the route has a weight above 0")]
    NoBackend,
    #[error("the request's body failed: {0}")]
    RequestBody(BodyError),
    #[error("{0}")]
    CircuitOpen(Rejected),
}

impl UpstreamError {
    pub fn status(&self) -> StatusCode {
        match self {
            Self::ConnectTimeout | Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::Connect(_) | Self::Resolve(_) | Self::NoBackend | Self::CircuitOpen(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::RequestBody(BodyError::TooLong) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RequestBody(_) => StatusCode::BAD_REQUEST,
            _ => StatusCode::BAD_GATEWAY,
        }
    }

    /// For metrics and for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Connect(_) => "upstream_unreachable",
            Self::ConnectTimeout => "upstream_connect_timeout",
            Self::Resolve(_) => "upstream_unresolved",
            Self::Tls(_) => "upstream_tls",
            Self::Closed => "upstream_closed",
            Self::Io(_) => "upstream_reset",
            Self::Malformed(_) => "upstream_malformed",
            Self::TooManyInterim => "upstream_interim_flood",
            Self::UnexpectedUpgrade => "upstream_unexpected_upgrade",
            Self::Timeout => "upstream_timeout",
            Self::Http2(_) => "upstream_http2",
            Self::NoBackend => "no_backend",
            Self::RequestBody(_) => "request_body",
            Self::CircuitOpen(_) => "circuit_open",
        }
    }

    /// For the client: what happened, without addresses or what the operating system said.
    pub fn detail(&self) -> String {
        match self {
            Self::Connect(_) => "the upstream cannot be connected to".to_owned(),
            Self::Resolve(_) => "the upstream's name cannot be resolved".to_owned(),
            Self::Tls(_) => "TLS with the upstream failed".to_owned(),
            Self::Io(_) => "the connection to the upstream failed".to_owned(),
            Self::Http2(_) => "the upstream's HTTP/2 connection failed".to_owned(),
            Self::RequestBody(BodyError::Io(_)) => "the request's body did not arrive".to_owned(),
            other => other.to_string(),
        }
    }

    /// The upstream has certainly not seen the request.
    pub fn is_before_request(&self) -> bool {
        matches!(self, Self::Connect(_) | Self::ConnectTimeout | Self::Resolve(_) | Self::Tls(_))
    }
}

impl From<WrongLength> for BodyError {
    fn from(_: WrongLength) -> Self {
        Self::WrongLength
    }
}
