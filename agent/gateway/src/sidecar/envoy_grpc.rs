//! `envoy.service.auth.v3.Authorization/Check`: messages in, messages out.
//!
//! `context_extensions` of the route choose among policies: `policy_set`, `tenant`, `route`. The
//! peer's certificate, or the name that Envoy took from it, is the client certificate of mTLS.

use std::{collections::HashMap, net::SocketAddr};

use bytes::Bytes;
use envoy_types::pb::{
    envoy::{
        config::core::v3::{
            HeaderMap as EnvoyHeaders, HeaderValue as EnvoyHeader, HeaderValueOption, address,
            header_value_option::HeaderAppendAction, socket_address::PortSpecifier,
        },
        service::auth::v3::{
            CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
            attribute_context::{HttpRequest, Peer},
            check_response::HttpResponse,
        },
        r#type::v3::HttpStatus,
    },
    google::{
        protobuf::{ListValue, Struct, Value, value::Kind},
        rpc,
    },
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use stoa_policy::decision::Denial;
use tonic::Code;

use super::{
    answer::{Decided, denial_body, policy_name},
    certificate,
    document::MOST_HEADERS,
    identity_headers::Names,
    question::{
        AskedBody, Malformed, Place, Question, UNKNOWN_SOURCE, method_of, scheme_of, target_of,
    },
};

const PARTIAL_BODY: &str = "x-envoy-auth-partial-body";

pub fn read(request: CheckRequest) -> Result<Question, Malformed> {
    let missing = |field: &str| Malformed::new(field, "is missing");
    let mut attributes = request.attributes.ok_or_else(|| missing("attributes"))?;
    let http = attributes.request.and_then(|request| request.http);
    let http = http.ok_or_else(|| missing("attributes.request.http"))?;
    let source = attributes.source.unwrap_or_default();
    let extensions = &mut attributes.context_extensions;
    let place = Place {
        policy_set: extensions.remove("policy_set"),
        tenant: extensions.remove("tenant"),
        route: extensions.remove("route"),
    };
    of_http(http, &source, place)
}

fn of_http(http: HttpRequest, source: &Peer, place: Place) -> Result<Question, Malformed> {
    let headers = headers_of(http.headers, http.header_map)?;
    // A CONNECT request has no path (RFC 9113 section 8.5).
    let path = if http.path.is_empty() { "/" } else { http.path.as_str() };
    let body = match headers.get(PARTIAL_BODY) {
        Some(value) if value == "false" && !http.raw_body.is_empty() => {
            AskedBody::Whole(Bytes::from(http.raw_body))
        }
        Some(value) if value == "false" => AskedBody::Whole(Bytes::from(http.body)),
        Some(_) => AskedBody::Cut,
        None => AskedBody::Unknown,
    };
    Ok(Question {
        method: method_of("attributes.request.http.method", &http.method)?,
        scheme: scheme_of(&http.scheme),
        authority: http.host,
        target: target_of("attributes.request.http.path", path)?,
        source: address_of(source).unwrap_or(UNKNOWN_SOURCE),
        certificate: certificate::read(&source.certificate, &source.principal)?,
        stated: None,
        place,
        body,
        headers,
    })
}

/// `header_map` is what `encode_raw_headers` sends instead. Pseudo-header fields are in either.
fn headers_of(
    fields: HashMap<String, String>,
    raw: Option<EnvoyHeaders>,
) -> Result<HeaderMap, Malformed> {
    let raw = raw.map(|map| map.headers).unwrap_or_default();
    if fields.len() + raw.len() > MOST_HEADERS {
        let reason = format!("there are more than {MOST_HEADERS} header fields");
        return Err(Malformed::new("attributes.request.http.headers", reason));
    }
    let mut headers = HeaderMap::with_capacity(fields.len() + raw.len());
    let mut add = |name: &str, value: Bytes| -> Result<(), Malformed> {
        if name.starts_with(':') {
            return Ok(());
        }
        let malformed =
            |reason| Malformed::new(format!("attributes.request.http.headers.{name}"), reason);
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| malformed("is not the name of a header"))?;
        let value = HeaderValue::from_maybe_shared(value)
            .map_err(|_| malformed("has a control character in its value"))?;
        headers.append(name, value);
        Ok(())
    };
    for (name, value) in fields {
        add(&name, Bytes::from(value))?;
    }
    for EnvoyHeader { key, value, raw_value } in raw {
        let value = if raw_value.is_empty() { Bytes::from(value) } else { Bytes::from(raw_value) };
        add(&key, value)?;
    }
    Ok(headers)
}

fn address_of(peer: &Peer) -> Option<SocketAddr> {
    let address::Address::SocketAddress(socket) = peer.address.as_ref()?.address.as_ref()? else {
        return None;
    };
    let port = match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => u16::try_from(port).ok()?,
        _ => 0,
    };
    Some(SocketAddr::new(socket.address.parse().ok()?, port))
}

/// Allowed or denied, as Envoy acts on it. The dynamic metadata is there for both, so that access
/// logs and later filters know who asked and what decided.
pub fn write(decided: &Decided, names: &Names) -> CheckResponse {
    let decision = &decided.decision;
    let response_headers = decision.response_headers.iter().map(overwrite);
    let (status, response) = match &decision.denial {
        None => {
            let set = names.to_set(decided);
            let response = OkHttpResponse {
                headers: set.iter().map(overwrite).collect(),
                headers_to_remove: names
                    .to_remove(decided, &set)
                    .map(|name| name.as_str().to_owned())
                    .collect(),
                response_headers_to_add: response_headers.collect(),
                query_parameters_to_remove: decision
                    .query_to_remove
                    .iter()
                    .map(|name| name.to_string())
                    .collect(),
                ..OkHttpResponse::default()
            };
            (status(Code::Ok, String::new()), HttpResponse::OkResponse(response))
        }
        Some(denial) => {
            let json = HeaderValue::from_static("application/json");
            let content_type = overwrite(&(http::header::CONTENT_TYPE, json));
            let response = DeniedHttpResponse {
                status: Some(HttpStatus { code: i32::from(denial.status.as_u16()) }),
                headers: response_headers.chain([content_type]).collect(),
                body: denial_body(denial),
            };
            let status = status(code_of(denial.status), denial.reason.to_string());
            (status, HttpResponse::DeniedResponse(response))
        }
    };
    CheckResponse {
        status: Some(status),
        dynamic_metadata: Some(metadata(decided)),
        http_response: Some(response),
    }
}

fn status(code: Code, message: String) -> rpc::Status {
    rpc::Status { code: i32::from(code), message, details: Vec::new() }
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::TOO_MANY_REQUESTS => Code::ResourceExhausted,
        status if status.is_server_error() => Code::Unavailable,
        _ => Code::PermissionDenied,
    }
}

/// Envoy's default would append to what the client sent, and the upstream would read the client's.
fn overwrite((name, value): &(HeaderName, HeaderValue)) -> HeaderValueOption {
    // One of the two is to be set, not both.
    let (text, raw) = match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => (text.to_owned(), Vec::new()),
        Err(_) => (String::new(), value.as_bytes().to_vec()),
    };
    HeaderValueOption {
        header: Some(EnvoyHeader { key: name.as_str().to_owned(), value: text, raw_value: raw }),
        append_action: i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    }
}

fn metadata(decided: &Decided) -> Struct {
    let decision = &decided.decision;
    let mut fields = HashMap::with_capacity(8);
    let mut add = |name: &str, value: Kind| {
        fields.insert(name.to_owned(), Value { kind: Some(value) });
    };
    add("request_id", text(decided.request_id()));
    add("policies_evaluated", list(decision.ran.iter().map(|ran| policy_name(ran.policy))));
    add("evaluation_time_us", Kind::NumberValue(decision.took.as_secs_f64() * 1e6));
    if let Some(tenant) = &decision.tenant {
        add("tenant", text(tenant));
    }
    if let Some(identity) = &decision.identity {
        let mut who = HashMap::with_capacity(6);
        let mut say = |name: &str, value: Kind| {
            who.insert(name.to_owned(), Value { kind: Some(value) });
        };
        say("subject", text(&identity.subject));
        say("scopes", list(identity.scopes.iter().map(AsRef::as_ref)));
        say("roles", list(identity.roles.iter().map(AsRef::as_ref)));
        for (name, value) in
            [("email", &identity.email), ("consumer", &identity.consumer), ("plan", &identity.plan)]
        {
            if let Some(value) = value {
                say(name, text(value));
            }
        }
        add("identity", Kind::StructValue(Struct { fields: who }));
    }
    if let Some(Denial { policy, code, reason, .. }) = &decision.denial {
        add("denied_by_policy", text(policy_name(*policy)));
        add("denial_code", text(code));
        add("denial_reason", text(reason));
    }
    let obligations = decided.obligations();
    if !obligations.is_empty() {
        add("obligations", list(obligations.iter().copied()));
    }
    Struct { fields }
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

fn list<'a>(items: impl Iterator<Item = &'a str>) -> Kind {
    let values = items.map(|item| Value { kind: Some(text(item)) }).collect();
    Kind::ListValue(ListValue { values })
}

#[cfg(test)]
mod tests;
