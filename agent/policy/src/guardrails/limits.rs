//! How large a request may be.

use http::{HeaderMap, StatusCode, header::CONTENT_LENGTH};
use serde::Deserialize;

use crate::{
    context::{Body, RequestContext},
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
    units::Size,
};

/// What is not given is not limited here; the doors have limits of their own.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct LimitsConfig {
    /// Of names and values together, as RFC 9113 section 6.5.2 counts: 32 bytes more for each.
    pub headers: Option<Size>,
    pub header_count: Option<usize>,
    /// Of path and query.
    pub target: Option<Size>,
    pub body: Option<Size>,
    /// Objects and lists within each other, in JSON bodies.
    pub json_depth: Option<usize>,
}

#[derive(Debug)]
pub struct Limits {
    config: LimitsConfig,
}

/// JSON is read up to this to count its depth, unless `body` says less: nothing longer passes.
const DEPTH_UP_TO: usize = 1 << 20;

impl Limits {
    pub(super) fn build(config: &LimitsConfig) -> Result<Self, Refusal> {
        match config.json_depth {
            Some(0) => Err(Refusal::new("limits.json_depth", "is 0", "use at least 1")),
            _ => Ok(Self { config: config.clone() }),
        }
    }

    pub(super) fn needs_body(&self, headers: &HeaderMap) -> bool {
        self.config.json_depth.is_some() && super::masking::is_json_message(headers)
    }

    pub(super) fn depth_up_to(&self) -> usize {
        self.config.body.map_or(DEPTH_UP_TO, |size| size.0)
    }

    pub(super) fn check(&self, request: &RequestContext<'_>, decision: &mut Decision) -> Verdict {
        let config = &self.config;
        let count = config.header_count;
        if count.is_some_and(|most| request.headers.len() > most) {
            return deny(
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "headers_too_many",
                "The request has too many headers",
            );
        }
        if let Some(most) = config.headers {
            let size = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
                name.as_str().len() + value.len() + 32
            };
            if request.headers.iter().map(size).sum::<usize>() > most.0 {
                return deny(
                    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                    "headers_too_large",
                    "The request's headers are too large",
                );
            }
        }
        let target = request.path.len() + request.query.map_or(0, |query| query.len() + 1);
        if config.target.is_some_and(|most| target > most.0) {
            return deny(
                StatusCode::URI_TOO_LONG,
                "target_too_long",
                "The request's path and query are too long",
            );
        }
        if let Some(most) = config.body {
            // What has no length, or lies about it, the door stops while it streams.
            let limit = u64::try_from(most.0).unwrap_or(u64::MAX);
            decision.obligations.request_body_limit = Some(limit);
            let announced = request.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
            let announced = announced.and_then(|text| text.parse::<u64>().ok());
            let is_longer = match request.body {
                Body::Whole(body) => body.len() > most.0,
                Body::Unread | Body::Longer => false,
            };
            if is_longer || announced.is_some_and(|length| length > limit) {
                return too_large();
            }
        }
        match (config.json_depth, request.body) {
            (Some(most), Body::Whole(body)) if super::masking::is_json_message(request.headers) => {
                if is_deeper(body, most) {
                    return deny(
                        StatusCode::BAD_REQUEST,
                        "json_too_deep",
                        "The request's JSON is nested too deep",
                    );
                }
                Ok(())
            }
            (Some(_), Body::Longer) if self.needs_body(request.headers) => too_large(),
            _ => Ok(()),
        }
    }
}

fn too_large() -> Verdict {
    deny(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The request's body is too large")
}

fn deny(status: StatusCode, code: &'static str, reason: &'static str) -> Verdict {
    Err(Denial { policy: PolicyKind::Guardrails, status, code, reason: reason.into() })
}

/// Counts brackets outside of texts: cheaper than to parse, and never recursive.
fn is_deeper(json: &[u8], most: usize) -> bool {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut is_escaped = false;
    for byte in json {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_text => is_escaped = true,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > most {
                    return true;
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    false
}
