//! What a policy may look at.

use std::{net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, StatusCode};

/// The door that a request came through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The reverse proxy.
    Proxy,
    /// A connection of an enrolled workload.
    Redirect,
    /// `/authz` and its kind: another gateway asks, and forwards the request itself.
    Decision,
    /// A tool call.
    Mcp,
}

/// One request, as the client sent it: nothing here has been checked yet.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    pub door: Door,
    pub method: &'a Method,
    /// `http` or `https`.
    pub scheme: &'a str,
    /// `Host` or `:authority`, with its port if one was sent; empty if none was.
    pub authority: &'a str,
    /// Still percent-encoded, without the query.
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    /// The other end of the connection, or what a PROXY header of a listed source said of it.
    pub source: SocketAddr,
    /// Where a redirected connection was going.
    pub destination: Option<SocketAddr>,
    /// Of a client that TLS has verified.
    pub client_certificate: Option<&'a ClientCertificate>,
    /// What the caller of a decision door says of the user, whom it has authenticated itself.
    pub stated: Option<&'a Stated>,
    /// The route that was chosen, by name.
    pub route: Option<&'a str>,
    /// The tenant that the route belongs to.
    pub tenant: Option<&'a str>,
    /// The upstream that the route leads to, by name, if it is known already.
    pub upstream: Option<&'a str>,
    /// Read as far as `Engine::body_need` asks.
    pub body: Body<'a>,
}

/// What the upstream answered.
#[derive(Clone, Copy, Debug)]
pub struct ResponseContext<'a> {
    /// Of the request.
    pub method: &'a Method,
    pub status: StatusCode,
    pub headers: &'a HeaderMap,
    /// Read as far as `Engine::response_body_need` asks.
    pub body: Body<'a>,
}

/// What a door has read of a message's body before it asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Body<'a> {
    /// Nothing: no policy needs it, or there is none.
    #[default]
    Unread,
    Whole(&'a [u8]),
    /// There is more than the policies asked for.
    Longer,
}

/// A client certificate whose chain TLS has verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// RFC 4514, such as `CN=orders,O=acme`.
    pub subject: String,
    pub issuer: String,
    /// Hexadecimal, lower case.
    pub serial: String,
    /// SHA-256 of the certificate's DER, hexadecimal, lower case.
    pub fingerprint: String,
    /// Names of kind DNS and URI (a SPIFFE id is a URI).
    pub subject_alternative_names: Vec<String>,
    /// Seconds since 1970.
    pub not_before: i64,
    pub not_after: i64,
}

/// A user as another gateway states it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    pub id: Option<Arc<str>>,
    pub email: Option<Arc<str>>,
    pub tenant: Option<Arc<str>>,
    pub roles: Vec<Arc<str>>,
    pub scopes: Vec<Arc<str>>,
    /// What else is known of the user, for Rego.
    pub claims: Arc<serde_json::Map<String, serde_json::Value>>,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `GET /` from 192.0.2.1, of nobody.
    pub(crate) fn request(headers: &HeaderMap) -> RequestContext<'_> {
        RequestContext {
            door: Door::Proxy,
            method: &Method::GET,
            scheme: "http",
            authority: "orders.example",
            path: "/",
            query: None,
            headers,
            source: SocketAddr::from(([192, 0, 2, 1], 40_000)),
            destination: None,
            client_certificate: None,
            stated: None,
            route: None,
            tenant: None,
            upstream: None,
            body: Body::Unread,
        }
    }
}
