use std::sync::Arc;

use envoy_types::pb::envoy::{
    config::core::v3::{Address, SocketAddress},
    service::auth::v3::{AttributeContext, attribute_context::Request},
};
use http::Method;
use stoa_policy::decision::{Decision, Identity, PolicyKind};

use super::*;
use crate::config::sidecar::UpstreamType;

fn request() -> CheckRequest {
    let socket = SocketAddress {
        address: "10.0.0.7".to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(4000)),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(socket)) };
    let text = |text: &str| text.to_owned();
    let http = HttpRequest {
        method: text("PUT"),
        path: text("/orders/7?x=1"),
        host: text("shop.example"),
        scheme: text("https"),
        headers: HashMap::from([
            (text(":authority"), text("shop.example")),
            (text("authorization"), text("Bearer t")),
            (text("x-envoy-auth-partial-body"), text("false")),
        ]),
        body: text("{}"),
        ..HttpRequest::default()
    };
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(Peer {
                address: Some(address),
                principal: text("spiffe://acme/orders"),
                ..Peer::default()
            }),
            request: Some(Request { http: Some(http), ..Request::default() }),
            context_extensions: HashMap::from([
                (text("policy_set"), text("orders")),
                (text("tenant"), text("acme")),
                (text("other"), text("x")),
            ]),
            ..AttributeContext::default()
        }),
    }
}

fn http_of(request: &mut CheckRequest) -> &mut HttpRequest {
    request.attributes.as_mut().unwrap().request.as_mut().unwrap().http.as_mut().unwrap()
}

#[test]
fn a_check_is_a_question() {
    let question = read(request()).unwrap();
    assert_eq!((question.method, question.target.as_str()), (Method::PUT, "/orders/7?x=1"));
    assert_eq!((question.scheme, question.authority.as_str()), ("https", "shop.example"));
    assert_eq!(question.source.to_string(), "10.0.0.7:4000");
    assert_eq!(question.headers["authorization"], "Bearer t");
    assert_eq!(question.headers.len(), 2);
    assert_eq!(question.body, AskedBody::Whole(Bytes::from_static(b"{}")));
    let place = Place {
        policy_set: Some("orders".to_owned()),
        tenant: Some("acme".to_owned()),
        route: None,
    };
    assert_eq!(question.place, place);
    assert_eq!(question.certificate.unwrap().subject, "spiffe://acme/orders");
}

#[test]
fn raw_fields_and_bodies_are_bytes() {
    let mut request = request();
    let http = http_of(&mut request);
    http.headers.clear();
    let field = |key: &str, raw: &[u8]| EnvoyHeader {
        key: key.to_owned(),
        raw_value: raw.to_vec(),
        ..EnvoyHeader::default()
    };
    let headers = vec![
        field(":path", b"/orders"),
        field("x-a", b"1\xff"),
        field("x-a", b"2"),
        field("x-envoy-auth-partial-body", b"true"),
    ];
    http.header_map = Some(EnvoyHeaders { headers });
    let question = read(request).unwrap();
    let values: Vec<_> = question.headers.get_all("x-a").iter().map(|v| v.as_bytes()).collect();
    assert_eq!(values, [&b"1\xff"[..], b"2"]);
    assert_eq!(question.body, AskedBody::Cut);
}

#[test]
fn what_is_wrong_is_named() {
    let field = |change: fn(&mut HttpRequest)| {
        let mut request = request();
        change(http_of(&mut request));
        read(request).unwrap_err().field
    };
    assert_eq!(read(CheckRequest::default()).unwrap_err().field, "attributes");
    assert_eq!(field(|http| http.method = "G T".to_owned()), "attributes.request.http.method");
    assert_eq!(field(|http| http.path = "orders".to_owned()), "attributes.request.http.path");
    let bad = |http: &mut HttpRequest| {
        http.headers.insert("x-a".to_owned(), "b\r\nc: d".to_owned());
    };
    assert_eq!(field(bad), "attributes.request.http.headers.x-a");
    // CONNECT has none.
    let mut connect = request();
    http_of(&mut connect).path = String::new();
    assert_eq!(read(connect).unwrap().target, "/");
}

fn decided(denial: Option<Denial>) -> Decided {
    let identity = Identity {
        subject: Arc::from("ann"),
        email: Some(Arc::from("a@b.c")),
        scopes: vec![Arc::from("stoa:read")],
        ..Identity::default()
    };
    let field = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
    let decision = Decision {
        denial,
        identity: Some(Arc::new(identity)),
        tenant: Some(Arc::from("acme")),
        headers_to_remove: smallvec::smallvec![HeaderName::from_static("x-api-key")],
        query_to_remove: smallvec::smallvec![Arc::from("api_key")],
        response_headers: smallvec::smallvec![field("ratelimit", "\"d\";r=1;t=2")],
        ..Decision::default()
    };
    Decided { decision, request_id: HeaderValue::from_static("r-1") }
}

fn names() -> Names {
    Names::of(UpstreamType::Envoy, HeaderName::from_static("x-tenant-id"))
}

fn metadata_text<'a>(response: &'a CheckResponse, name: &str) -> &'a str {
    match response.dynamic_metadata.as_ref().unwrap().fields[name].kind.as_ref() {
        Some(Kind::StringValue(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_allowed_request_is_told_who_it_is() {
    let response = write(&decided(None), &names());
    assert_eq!(response.status.as_ref().unwrap().code, 0);
    assert_eq!(metadata_text(&response, "tenant"), "acme");
    let Some(Kind::StructValue(who)) =
        &response.dynamic_metadata.as_ref().unwrap().fields["identity"].kind
    else {
        panic!("no identity")
    };
    assert_eq!(who.fields["subject"].kind, Some(text("ann")));
    let Some(HttpResponse::OkResponse(ok)) = response.http_response else { panic!("denied") };
    let set: Vec<_> = ok
        .headers
        .iter()
        .map(|option| {
            let overwrite = i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd);
            assert_eq!(option.append_action, overwrite);
            let header = option.header.as_ref().unwrap();
            (header.key.as_str(), header.value.as_str())
        })
        .collect();
    assert!(
        set.contains(&("x-user-id", "ann")) && set.contains(&("x-tenant-id", "acme")),
        "{set:?}"
    );
    assert_eq!(ok.headers_to_remove, ["x-user-roles", "x-api-key"]);
    assert_eq!(ok.query_parameters_to_remove, ["api_key"]);
    assert_eq!(ok.response_headers_to_add[0].header.as_ref().unwrap().key, "ratelimit");
}

#[test]
fn a_denied_request_is_told_why() {
    let denial = Denial {
        policy: PolicyKind::RateLimit,
        status: StatusCode::TOO_MANY_REQUESTS,
        code: "rate_limited",
        reason: "Rate limit exceeded".into(),
    };
    let response = write(&decided(Some(denial)), &names());
    assert_eq!(response.status.as_ref().unwrap().code, i32::from(Code::ResourceExhausted));
    assert_eq!(metadata_text(&response, "denied_by_policy"), "consumer_rate_limit");
    let Some(HttpResponse::DeniedResponse(denied)) = response.http_response else {
        panic!("allowed")
    };
    assert_eq!(denied.status.unwrap().code, 429);
    assert_eq!(denied.body, r#"{"error":"Rate limit exceeded","policy":"consumer_rate_limit"}"#);
    let names: Vec<_> =
        denied.headers.iter().map(|option| option.header.as_ref().unwrap().key.as_str()).collect();
    assert_eq!(names, ["ratelimit", "content-type"]);
}
