//! Header fields that a gateway must remove, rewrite or add (RFC 9110 section 7.6).

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{
    connection::Origin,
    random::{self, Random},
    request::Request,
};
use crate::telemetry::traces::{
    Active,
    context::{Parent, TRACEPARENT, TRACESTATE},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
pub const X_STOA_TRACE_ID: HeaderName = HeaderName::from_static("x-stoa-trace-id");
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub const X_TENANT_ID: HeaderName = HeaderName::from_static("x-tenant-id");

/// What only a trusted proxy may say: of the client, and of a URL other than the one that the
/// route was chosen by.
const OF_TRUSTED_PROXIES: [HeaderName; 11] = [
    header::FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_HOST,
    X_FORWARDED_PROTO,
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-forwarded-prefix"),
    HeaderName::from_static("x-forwarded-server"),
    HeaderName::from_static("x-forwarded-uri"),
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-original-url"),
    HeaderName::from_static("x-rewrite-url"),
];

/// What servers believe of a gateway: who the client is, where it asks, what was decided.
const CLAIMS: [&str; 8] = [
    "x-forwarded-",
    "x-real-ip",
    "x-original-",
    "x-rewrite-",
    "x-user-",
    "x-tenant-",
    "x-stoa-",
    "x-request-id",
];

/// Removes the claims of a name that `is_meant` holds for.
pub fn strip_claims(headers: &mut HeaderMap, is_meant: impl Fn(&str) -> bool) {
    let is_claim = |name: &str| {
        let name = name.replace('_', "-");
        CLAIMS.iter().any(|claim| name.starts_with(claim))
            || ["content-length", "transfer-encoding", "forwarded"].contains(&name.as_str())
    };
    let claims: Vec<HeaderName> =
        headers.keys().filter(|n| is_meant(n.as_str()) && is_claim(n.as_str())).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

/// CGI and what came after it (WSGI, Rack, PHP) write `-` and `_` alike: `X_User_ID` of a client
/// would be taken for our `X-User-ID`, and `Content_Length` for the message's.
pub fn strip_misspelt_claims(headers: &mut HeaderMap) {
    let has_underscore = |name: &str| name.as_bytes().contains(&b'_');
    if headers.keys().any(|name| has_underscore(name.as_str())) {
        strip_claims(headers, has_underscore);
    }
}

const VIA_11: HeaderValue = HeaderValue::from_static("1.1 stoa-gateway");
const VIA_10: HeaderValue = HeaderValue::from_static("1.0 stoa-gateway");
const VIA_2: HeaderValue = HeaderValue::from_static("2 stoa-gateway");

/// The protocol to change to, where the client asks for it in both fields.
pub fn requested_upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let protocol = headers.get(header::UPGRADE)?;
    let is_option = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    is_option.then(|| protocol.clone())
}

/// Whether none of the protocols is HTTP again, in which requests would go on without being
/// looked at: `h2c`, `HTTP/2.0`, `TLS/1.0` (RFC 2817).
pub fn leads_away_from_http(protocols: &HeaderValue) -> bool {
    protocols.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii).all(|protocol| {
        let name = protocol.split(|b| *b == b'/').next().unwrap_or_default();
        !["", "h2c", "h2", "h3", "http", "https", "tls", "ssl"]
            .iter()
            .any(|http| name.eq_ignore_ascii_case(http.as_bytes()))
    })
}

pub fn accepts_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|b| *b == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Of `Connection`, beside names of fields.
const OPTIONS: [&[u8]; 3] = [b"keep-alive", b"close", b"upgrade"];

/// Removes what concerns one connection only: the known fields, and those that `Connection` names.
pub fn strip_connection_fields(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            // Those that mean something of their own, and are removed below where they are fields.
            .filter(|name| !OPTIONS.iter().any(|option| name.eq_ignore_ascii_case(option)))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| *name != header::HOST && *name != header::CONTENT_LENGTH)
            .collect();
        headers.remove(header::CONNECTION);
        for name in named {
            headers.remove(name);
        }
    }
    let is_of_connection = |name: &HeaderName| {
        *name == header::TRANSFER_ENCODING
            || *name == header::TE
            || *name == header::UPGRADE
            || *name == header::PROXY_AUTHORIZATION
            || *name == header::PROXY_AUTHENTICATE
            || *name == KEEP_ALIVE
            || *name == PROXY_CONNECTION
            || *name == HTTP2_SETTINGS
    };
    if headers.keys().any(is_of_connection) {
        for name in [
            header::TRANSFER_ENCODING,
            header::TE,
            header::UPGRADE,
            header::PROXY_AUTHORIZATION,
            header::PROXY_AUTHENTICATE,
            KEEP_ALIVE,
            PROXY_CONNECTION,
            HTTP2_SETTINGS,
        ] {
            headers.remove(name);
        }
    }
}

/// Says who the client is, and that the request came through here.
pub fn add_forwarding_fields(request: &mut Request, origin: &Origin) {
    let headers = &mut request.headers;
    let is_theirs = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-") || name == "forwarded"
    };
    let has_some = headers.keys().any(is_theirs);
    let (mut client, mut forwarded) = (None, None);
    if has_some && origin.is_trusted {
        client = joined(headers, &X_FORWARDED_FOR, origin.source_text().as_bytes());
        if headers.contains_key(header::FORWARDED) {
            forwarded = joined(headers, &header::FORWARDED, forwarded_element(origin).as_bytes());
        }
    } else if has_some {
        for name in &OF_TRUSTED_PROXIES {
            headers.remove(name);
        }
    }
    headers.insert(X_FORWARDED_FOR, client.unwrap_or_else(|| origin.source_text().clone()));
    if let Some(forwarded) = forwarded {
        headers.insert(header::FORWARDED, forwarded);
    }
    if !(origin.is_trusted && headers.contains_key(X_FORWARDED_PROTO)) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(origin.scheme()));
    }
    if !(origin.is_trusted && headers.contains_key(X_FORWARDED_HOST))
        && !request.authority.is_empty()
    {
        headers.insert(X_FORWARDED_HOST, request.authority.clone());
    }
    add_via(headers, request.version);
}

pub fn add_via(headers: &mut HeaderMap, version: Version) {
    let via = match version {
        Version::HTTP_10 => VIA_10,
        Version::HTTP_2 => VIA_2,
        _ => VIA_11,
    };
    let value = joined(headers, &header::VIA, via.as_bytes()).unwrap_or(via);
    headers.insert(header::VIA, value);
}

/// The field's lines as one list with `last` at its end; `None` where there was no line.
fn joined(headers: &HeaderMap, name: &HeaderName, last: &[u8]) -> Option<HeaderValue> {
    let mut lines: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if lines.is_empty() {
        return None;
    }
    lines.push(last);
    HeaderValue::from_bytes(&lines.join(&b", "[..])).ok()
}

/// RFC 7239.
fn forwarded_element(origin: &Origin) -> String {
    let scheme = origin.scheme();
    match origin.source.ip().to_canonical() {
        std::net::IpAddr::V4(ip) => format!("for={ip};proto={scheme}"),
        std::net::IpAddr::V6(ip) => format!("for=\"[{ip}]\";proto={scheme}"),
    }
}

/// The identifiers of a request: one number under three names, which others keep that come after
/// us. Those of the client are kept where they are well-formed.
#[derive(Clone, Debug)]
pub struct Identifiers {
    pub trace_id: HeaderValue,
    pub request_id: HeaderValue,
}

pub fn add_identifiers(
    headers: &mut HeaderMap,
    random: &Random,
    trace: Option<&Active>,
) -> Identifiers {
    let trace_id = if let Some(trace) = trace {
        add_trace(headers, trace);
        trace.context.trace_id()
    } else if let Some(given) = headers.get(TRACEPARENT).and_then(trace_id_of) {
        given
    } else {
        let text = new_traceparent(random);
        let trace_id = HeaderValue::from_maybe_shared(text.slice(3..35));
        // RFC of W3C Trace Context: a state without a valid parent is not to be used.
        headers.remove(TRACESTATE);
        if let Ok(value) = HeaderValue::from_maybe_shared(text) {
            headers.insert(TRACEPARENT, value);
        }
        trace_id.unwrap_or(HeaderValue::from_static("0"))
    };
    let request_id = match headers.get(X_REQUEST_ID) {
        Some(given) if is_identifier(given.as_bytes()) => given.clone(),
        _ => {
            headers.insert(X_REQUEST_ID, trace_id.clone());
            trace_id.clone()
        }
    };
    headers.insert(X_STOA_TRACE_ID, trace_id.clone());
    Identifiers { trace_id, request_id }
}

/// For the upstream, whose parent is a span of ours.
pub fn add_trace(headers: &mut HeaderMap, trace: &Active) {
    if trace.context.parent.is_none() {
        headers.remove(TRACESTATE);
    }
    headers.insert(TRACEPARENT, trace.context.traceparent(trace.call));
}

/// What a request is called that was not given a name: as its client calls it, or anew.
pub fn name_of(headers: &HeaderMap, random: &Random) -> String {
    match given_name(headers).and_then(|given| given.to_str().ok()) {
        Some(given) => given.to_owned(),
        None => format!("{:016x}{:016x}", random.next(), random.next() | 1),
    }
}

/// What its client calls a request.
pub fn given_name(headers: &HeaderMap) -> Option<&HeaderValue> {
    headers.get(X_REQUEST_ID).filter(|given| is_identifier(given.as_bytes()))
}

fn is_identifier(text: &[u8]) -> bool {
    (1..=128).contains(&text.len())
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"-_.:+/=@".contains(b))
}

fn new_traceparent(random: &Random) -> Bytes {
    let mut text = BytesMut::with_capacity(55);
    let mut digits = [0; 16];
    text.put_slice(b"00-");
    for _ in 0..2 {
        random::put_hex(&mut digits, random.next() | 1);
        text.put_slice(&digits);
    }
    text.put_slice(b"-");
    random::put_hex(&mut digits, random.next() | 1);
    text.put_slice(&digits);
    text.put_slice(b"-01");
    text.freeze()
}

/// The second part of `VERSION-TRACE-PARENT-FLAGS`.
fn trace_id_of(value: &HeaderValue) -> Option<HeaderValue> {
    Parent::read(value)?;
    HeaderValue::from_bytes(value.as_bytes().get(3..35)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_concerns_one_connection_is_removed() {
        let mut map = headers(&[
            ("connection", "close, X-Private"),
            ("connection", "Keep-Alive, host"),
            ("x-private", "1"),
            ("keep-alive", "5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "x"),
            ("upgrade", "h2c"),
            ("host", "x"),
            ("accept", "y"),
        ]);
        strip_connection_fields(&mut map);
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "host"]);
    }

    #[test]
    fn claims_are_removed_in_their_other_spelling() {
        let mut map = headers(&[
            ("x_user_id", "root"),
            ("x-user_id", "root"),
            ("content_length", "5"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x-user-id", "kept: who may say it is decided elsewhere"),
            ("api_key", "kept"),
        ]);
        strip_misspelt_claims(&mut map);
        let mut left: Vec<&str> = map.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["api_key", "x-user-id"]);
    }

    #[test]
    fn an_upgrade_needs_both_fields() {
        let asks = |lines| requested_upgrade(&headers(lines)).is_some();
        assert!(asks(&[("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")]));
        assert!(!asks(&[("upgrade", "websocket")]));
        assert!(!asks(&[("connection", "upgrade")]));
    }

    #[test]
    fn no_upgrade_leads_to_requests_that_nobody_looks_at() {
        let leads = |value| leads_away_from_http(&HeaderValue::from_static(value));
        for away in ["websocket", "SPDY/3.1", "tcp", "websocket, foo/1"] {
            assert!(leads(away), "{away}");
        }
        for http in ["h2c", "H2C, websocket", "HTTP/2.0", "TLS/1.0", "", "websocket,"] {
            assert!(!leads(http), "{http}");
        }
    }

    #[test]
    fn a_valid_trace_is_kept_and_another_replaced() {
        let random = Random::default();
        let trace = "0af7651916cd43dd8448eb211c80319c";
        let parent = format!("00-{trace}-b7ad6b7169203331-01");
        let mut map = headers(&[("traceparent", &parent), ("x-request-id", "mine-1")]);
        let identifiers = add_identifiers(&mut map, &random, None);
        assert_eq!(identifiers.trace_id, trace);
        assert_eq!(
            (&map["traceparent"], &map["x-request-id"]),
            (&HeaderValue::from_str(&parent).unwrap(), &HeaderValue::from_static("mine-1"))
        );
        for given in ["00-0-0-0", "", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
            let mut map = headers(&[("traceparent", given), ("x-request-id", "a b<>")]);
            let identifiers = add_identifiers(&mut map, &random, None);
            assert_eq!(trace_id_of(&map["traceparent"]), Some(identifiers.trace_id.clone()));
            assert_eq!(map["x-request-id"], identifiers.trace_id);
        }
    }
}
