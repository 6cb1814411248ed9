//! The document that a policy sees as `input`: STOA's flat form and its guide's nested form in
//! one, so that policies written for either work.
//!
//! ```json
//! {
//!   "user_id": "u1", "user_email": "u1@acme.example", "tenant_id": "acme", "tool_name": "orders",
//!   "action": "Read", "scopes": ["stoa:read"], "roles": ["viewer"],
//!   "token": {"sub": "u1", "iss": "..."},
//!   "request": {"method": "GET", "path": "/orders/7", "query": "a=1", "scheme": "https",
//!               "host": "api.acme.example", "headers": {"accept": "..."},
//!               "tenant_id": "acme", "tool_name": "orders"},
//!   "context": {"client_ip": "192.0.2.7", "user_agent": "curl/8", "door": "proxy",
//!               "route": "orders", "upstream": null, "consumer": "shop",
//!               "authentication": "jwt"}
//! }
//! ```

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use http::{HeaderMap, Method, header::USER_AGENT};
use regorus::Value;

use crate::{
    context::{Door, RequestContext},
    decision::{AuthenticationMethod, Decision, Identity},
};

pub(super) fn document(request: &RequestContext<'_>, decision: &Decision) -> Value {
    let nobody = Identity::default();
    let identity = decision.identity.as_deref().unwrap_or(&nobody);
    let tenant = text_or_null(decision.tenant.as_deref());
    let tool = Value::from(request.route.unwrap_or(""));
    object([
        ("user_id", text(&identity.subject)),
        ("user_email", text_or_null(identity.email.as_deref())),
        ("tenant_id", tenant.clone()),
        ("tool_name", tool.clone()),
        ("action", text(action_of(request.method))),
        ("scopes", list(&identity.scopes)),
        ("roles", list(&identity.roles)),
        ("token", from_json_object(&identity.claims)),
        (
            "request",
            object([
                ("method", text(request.method.as_str())),
                ("path", text(request.path)),
                ("query", text_or_null(request.query)),
                ("scheme", text(request.scheme)),
                ("host", text(request.authority)),
                ("headers", headers(request.headers)),
                ("tenant_id", tenant),
                ("tool_name", tool),
            ]),
        ),
        (
            "context",
            object([
                ("client_ip", text(&request.source.ip().to_canonical().to_string())),
                (
                    "user_agent",
                    text_or_null(request.headers.get(USER_AGENT).and_then(|v| v.to_str().ok())),
                ),
                ("door", text(door(request.door))),
                ("destination", request.destination.map_or(Value::Null, destination)),
                ("route", text_or_null(request.route)),
                ("upstream", text_or_null(request.upstream)),
                ("consumer", text_or_null(identity.consumer.as_deref())),
                ("authentication", text(method(identity.method))),
            ]),
        ),
    ])
}

/// Where a redirected connection was going.
fn destination(address: SocketAddr) -> Value {
    let ip = address.ip().to_canonical().to_string();
    object([("address", text(&ip)), ("port", Value::from(u64::from(address.port())))])
}

/// What plain HTTP wants to do, in the words of STOA's actions.
pub fn action_of(method: &Method) -> &'static str {
    match *method {
        Method::POST => "Create",
        Method::PUT | Method::PATCH => "Update",
        Method::DELETE => "Delete",
        // Safe methods, by RFC 9110, 9.2.1.
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE => "Read",
        _ => "Update",
    }
}

fn door(door: Door) -> &'static str {
    match door {
        Door::Proxy => "proxy",
        Door::Redirect => "redirect",
        Door::Decision => "decision",
        Door::Mcp => "mcp",
    }
}

fn method(method: AuthenticationMethod) -> &'static str {
    match method {
        AuthenticationMethod::Anonymous => "anonymous",
        AuthenticationMethod::Jwt => "jwt",
        AuthenticationMethod::ApiKey => "api_key",
        AuthenticationMethod::Mtls => "mtls",
        AuthenticationMethod::Trusted => "trusted",
    }
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Value {
    let fields: BTreeMap<Value, Value> =
        fields.into_iter().map(|(name, value)| (Value::from(name), value)).collect();
    Value::from(fields)
}

fn text(text: &str) -> Value {
    Value::from(text)
}

fn text_or_null(text: Option<&str>) -> Value {
    text.map_or(Value::Null, Value::from)
}

fn list(texts: &[Arc<str>]) -> Value {
    Value::from(texts.iter().map(|text| Value::from(&**text)).collect::<Vec<_>>())
}

/// Names in lower case; values of one name are joined as RFC 9110, 5.3, lets them be.
fn headers(headers: &HeaderMap) -> Value {
    let mut fields: BTreeMap<Value, Value> = BTreeMap::new();
    for name in headers.keys() {
        let mut joined = String::new();
        for (i, value) in headers.get_all(name).iter().enumerate() {
            joined.push_str(if i == 0 { "" } else { ", " });
            joined.push_str(&String::from_utf8_lossy(value.as_bytes()));
        }
        fields.insert(Value::from(name.as_str()), Value::from(joined));
    }
    Value::from(fields)
}

fn from_json_object(json: &serde_json::Map<String, serde_json::Value>) -> Value {
    let fields: BTreeMap<Value, Value> = json
        .iter()
        .map(|(name, value)| (Value::from(name.as_str()), Value::from(value.clone())))
        .collect();
    Value::from(fields)
}
