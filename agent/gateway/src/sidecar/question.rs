//! One request that another gateway asks about, whatever the format it asked in.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use stoa_policy::{
    context::{Body, ClientCertificate, Door, RequestContext, Stated},
    engine::BodyNeed,
};

/// A client of whom the asking gateway said no address. No listed source contains it but
/// `0.0.0.0/0`.
pub const UNKNOWN_SOURCE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Longer ones are refused: a gateway would not have accepted them.
pub const LONGEST_TARGET: usize = 64 << 10;

/// The request as the asking gateway received it.
#[derive(Debug)]
pub struct Question {
    pub method: Method,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `Host`, with its port if one was sent; empty if none was.
    pub authority: String,
    /// Path and query, still percent-encoded; begins with `/`, or is `*`.
    pub target: String,
    pub headers: HeaderMap,
    pub source: SocketAddr,
    pub certificate: Option<Box<ClientCertificate>>,
    /// What the gateway says of the user, whom it has authenticated itself.
    pub stated: Option<Stated>,
    pub place: Place,
    pub body: AskedBody,
}

/// Where in the gateway's configuration the request was routed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The policy set by name; `None`: `default`.
    pub policy_set: Option<String>,
    /// The tenant that the route belongs to.
    pub tenant: Option<String>,
    pub route: Option<String>,
}

/// What the gateway sent of the request's body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AskedBody {
    /// It does not send bodies: there may be one.
    #[default]
    Unknown,
    Whole(Bytes),
    /// Only its beginning.
    Cut,
}

/// Why a question is not answered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {reason}")]
pub struct Malformed {
    /// Dotted, such as `user.roles[2]`.
    pub field: String,
    pub reason: String,
}

impl Malformed {
    pub fn new(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { field: field.into(), reason: reason.into() }
    }
}

impl Question {
    pub fn context_without_body(&self) -> RequestContext<'_> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.target.as_str(), None),
        };
        RequestContext {
            door: Door::Decision,
            method: &self.method,
            scheme: self.scheme,
            authority: &self.authority,
            path,
            query,
            headers: &self.headers,
            source: self.source,
            destination: None,
            client_certificate: self.certificate.as_deref(),
            stated: self.stated.as_ref(),
            route: self.place.route.as_deref(),
            tenant: self.place.tenant.as_deref().or(self.tenant_alone()),
            upstream: None,
            body: Body::Unread,
        }
    }

    /// A tenant that is stated without a user is the route's: whoever the request's own credentials
    /// name must belong to it.
    fn tenant_alone(&self) -> Option<&str> {
        let stated = self.stated.as_ref().filter(|stated| stated.id.is_none())?;
        stated.tenant.as_deref()
    }

    /// A body that was not sent to us is not the same as none: a policy that must read it is told
    /// that there is more than it may see, and refuses or lets pass as it is configured.
    pub fn body_for(&self, need: BodyNeed) -> Body<'_> {
        let BodyNeed::UpTo(limit) = need else { return Body::Unread };
        match &self.body {
            AskedBody::Whole(bytes) if bytes.len() <= limit => Body::Whole(bytes),
            AskedBody::Whole(_) | AskedBody::Cut => Body::Longer,
            AskedBody::Unknown if self.may_have_body() => Body::Longer,
            AskedBody::Unknown => Body::Unread,
        }
    }

    /// RFC 9112 section 6.3: a request has a body if one of these fields says so. A gateway that
    /// does not pass bodies on may have rewritten them, so the method counts as well.
    fn may_have_body(&self) -> bool {
        let length = self.headers.get(header::CONTENT_LENGTH).map(|value| value.as_bytes());
        self.headers.contains_key(header::TRANSFER_ENCODING)
            || length.is_some_and(|text| text.iter().any(|digit| *digit != b'0'))
            || matches!(self.method, Method::POST | Method::PUT | Method::PATCH)
    }
}

/// `https` or not: what else a gateway says is not a scheme that we know a rule for.
pub fn scheme_of(text: &str) -> &'static str {
    if text.eq_ignore_ascii_case("https") { "https" } else { "http" }
}

/// RFC 9112 section 3.2: origin form, or `*`. Absolute form (`http://host/path`), which a proxy
/// may receive, is cut to its path.
pub fn target_of(field: &str, text: &str) -> Result<String, Malformed> {
    if text.len() > LONGEST_TARGET {
        return Err(Malformed::new(field, format!("is longer than {LONGEST_TARGET} bytes")));
    }
    if text.bytes().any(|byte| byte <= b' ' || byte == 0x7f) {
        return Err(Malformed::new(field, "has a blank or a control character in it"));
    }
    if text.starts_with('/') || text == "*" {
        return Ok(text.to_owned());
    }
    let rest = text.split_once("://").map(|(_, rest)| rest);
    match rest.map(|rest| rest.find('/').and_then(|at| rest.get(at..))) {
        Some(Some(path)) => Ok(path.to_owned()),
        Some(None) => Ok("/".to_owned()),
        None => Err(Malformed::new(field, "does not begin with `/`")),
    }
}

pub fn method_of(field: &str, text: &str) -> Result<Method, Malformed> {
    text.parse().map_err(|_| Malformed::new(field, "is not an HTTP method"))
}

/// `10.0.0.1`, `::1`, or either with a port.
pub fn address_of(text: &str) -> Option<SocketAddr> {
    let text = text.trim();
    text.parse::<IpAddr>()
        .map(|ip| SocketAddr::new(ip, 0))
        .or_else(|_| text.parse::<SocketAddr>())
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn question(method: Method, body: AskedBody) -> Question {
        Question {
            method,
            scheme: "http",
            authority: String::new(),
            target: "/orders?page=2?x".to_owned(),
            headers: HeaderMap::new(),
            source: UNKNOWN_SOURCE,
            certificate: None,
            stated: None,
            place: Place::default(),
            body,
        }
    }

    #[test]
    fn the_query_begins_at_the_first_question_mark() {
        let question = question(Method::GET, AskedBody::Unknown);
        let context = question.context_without_body();
        assert_eq!((context.path, context.query), ("/orders", Some("page=2?x")));
    }

    #[test]
    fn a_body_that_was_not_sent_is_not_an_empty_one() {
        let need = BodyNeed::UpTo(4);
        let body = |method, body| {
            let asked = question(method, body);
            match asked.body_for(need) {
                Body::Unread => "unread",
                Body::Whole(_) => "whole",
                Body::Longer => "longer",
            }
        };
        assert_eq!(body(Method::GET, AskedBody::Unknown), "unread");
        assert_eq!(body(Method::POST, AskedBody::Unknown), "longer");
        assert_eq!(body(Method::POST, AskedBody::Cut), "longer");
        assert_eq!(body(Method::POST, AskedBody::Whole(Bytes::from_static(b"1234"))), "whole");
        assert_eq!(body(Method::POST, AskedBody::Whole(Bytes::from_static(b"12345"))), "longer");
        let mut get = question(Method::GET, AskedBody::Unknown);
        get.headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from_static("00"));
        assert_eq!(get.body_for(need), Body::Unread);
        get.headers.insert(header::CONTENT_LENGTH, http::HeaderValue::from_static("3"));
        assert_eq!(get.body_for(need), Body::Longer);
        assert_eq!(get.body_for(BodyNeed::None), Body::Unread);
    }

    #[test]
    fn targets_begin_with_a_slash() {
        let target = |text| target_of("path", text).map_err(|e| e.reason);
        assert_eq!(target("/a?b#c"), Ok("/a?b#c".to_owned()));
        assert_eq!(target("*"), Ok("*".to_owned()));
        assert_eq!(target("http://h:1/a?b"), Ok("/a?b".to_owned()));
        assert_eq!(target("https://h"), Ok("/".to_owned()));
        for text in ["", "a", "h:443", "/a b", "/a\r\nb", "/a\0"] {
            assert!(target(text).is_err(), "{text:?}");
        }
        assert!(target(&format!("/{}", "a".repeat(LONGEST_TARGET))).is_err());
    }

    #[test]
    fn addresses_come_with_and_without_a_port() {
        assert_eq!(address_of(" 10.0.0.1"), Some(SocketAddr::from(([10, 0, 0, 1], 0))));
        assert_eq!(address_of("[::1]:80").map(|a| a.port()), Some(80));
        assert_eq!(address_of("::1").map(|a| a.is_ipv6()), Some(true));
        assert_eq!(address_of("unknown"), None);
    }
}
