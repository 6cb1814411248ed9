//! Paths, queries, headers, credentials.

use super::exchange::Build;
use crate::{
    observation::{Credential, Formats, Observation, PathSegment, Personal, Shape},
    redact::{RedactConfig, Redactor},
};

fn redactor() -> Redactor {
    Redactor::new([7; 16], RedactConfig::default())
}

fn observe(build: &Build) -> Observation {
    redactor().observe(&build.make()).expect("a request")
}

fn spell(segment: &PathSegment) -> String {
    let text = segment.token.text.as_ref().map_or("?", |t| t.as_str());
    format!("{text}{}", segment.suffix.as_ref().map_or("", |s| s.as_str()))
}

fn path(target: &str) -> String {
    let seen = observe(&Build::new("GET", target));
    let slash = if seen.has_trailing_slash { "/" } else { "" };
    seen.path.iter().map(|s| format!("/{}", spell(s))).collect::<String>() + slash
}

#[test]
fn takes_paths_apart() {
    assert_eq!(path("/api/v1/orders/42"), "/api/v1/orders/?");
    assert_eq!(path("/orders/"), "/orders/");
    assert_eq!(path("//orders///items"), "/orders/items");
    assert_eq!(path("/a/../orders/./items"), "/orders/items");
    assert_eq!(path("/orders;v=1/items;x"), "/orders/items");
    assert_eq!(path("/orders/report.json"), "/orders/report.json");
    assert_eq!(path("/jobs/42:cancel"), "/jobs/?:cancel");
    assert_eq!(path("http://user:pw@host.example/orders?x=1"), "/orders");
    assert_eq!(path("/line%2Ditems"), "/line-items");
    assert_eq!(path("*"), "");
    assert_eq!(path("/"), "");
    assert_eq!(path("/.well-known/openid-configuration"), "/.well-known/openid-configuration");
}

#[test]
fn tells_shapes_and_formats_of_segments() {
    let shapes = [
        ("42", Shape::Digits(2)),
        ("550e8400-e29b-41d4-a716-446655440000", Shape::Uuid),
        ("507f1f77bcf86cd799439011", Shape::Hex(24)),
        ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Shape::Ulid),
        ("2024-02-03", Shape::Date),
        ("v2", Shape::Version),
        ("orders", Shape::Word),
        ("red-shoes", Shape::Compound),
        ("sku123", Shape::Mixed),
        ("-1.5", Shape::Decimal),
        ("q8Zr2Lk9Xw4Tn7Vb1Yc5", Shape::Opaque(20)),
        ("two%20words", Shape::Other),
    ];
    for (segment, shape) in shapes {
        let seen = observe(&Build::new("GET", format!("/things/{segment}")));
        assert_eq!(seen.path[1].token.shape, shape, "{segment}");
    }
    let seen = observe(&Build::new("GET", "/things/42"));
    assert!(seen.path[1].value.formats.contains(Formats::INTEGER));
    assert_eq!(seen.path[1].value.number.map(|n| n.bits), Some(6));
}

#[test]
fn what_follows_a_collection_of_persons_is_never_text() {
    let mut redactor = redactor();
    for flow in 0..20 {
        let seen = redactor.observe(&Build::new("GET", "/users/kitty99/orders").flow(flow).make());
        let seen = seen.expect("a request");
        assert_eq!(seen.path[1].token.text, None);
        assert_eq!(seen.path[1].token.personal, Some(Personal::Username));
        assert_eq!(seen.path[2].token.text.as_ref().map(|t| t.as_str()), Some("orders"));
    }
    assert_eq!(path("/users/me"), "/users/me");
}

#[test]
fn reads_queries() {
    let seen = observe(&Build::new(
        "GET",
        "/orders?limit=10&status[]=open&filter[name]=x&empty=&flag&api_key=abc",
    ));
    let names: Vec<_> =
        seen.query.iter().map(|(t, _)| t.text.as_ref().map_or("?", |t| t.as_str())).collect();
    assert_eq!(names, ["limit", "status[]", "filter[name]", "empty", "flag"]);
    assert!(seen.query[0].1.formats.contains(Formats::INTEGER));
    assert!(
        matches!(&seen.credentials[..], [Credential::QueryKey(name)] if name.as_str() == "api_key")
    );
}

#[test]
fn keeps_credentials_as_kinds() {
    let jwt = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVm";
    let of =
        |name: &str, value: &str| observe(&Build::new("GET", "/").header(name, value)).credentials;
    assert_eq!(of("Authorization", &format!("Bearer {jwt}")), [Credential::Jwt]);
    assert_eq!(of("authorization", "bearer abcdef"), [Credential::Bearer]);
    assert_eq!(of("Authorization", "Basic dTpw"), [Credential::Basic]);
    assert!(
        matches!(&of("Authorization", "Token abc")[..], [Credential::Scheme(s)] if s.as_str() == "Token")
    );
    assert!(
        matches!(&of("x-api-key", "abc")[..], [Credential::HeaderKey(n)] if n.as_str() == "X-Api-Key")
    );
    assert!(matches!(&of("X-Auth-Token", "abc")[..], [Credential::HeaderKey(_)]));
    assert!(
        matches!(&of("Cookie", "sessionid=abc; theme=dark")[..], [Credential::CookieKey(n)] if n.as_str() == "sessionid")
    );
    assert!(matches!(&of("Cookie", "JSESSIONID=abc")[..], [Credential::CookieKey(_)]));
}

#[test]
fn keeps_application_headers_only() {
    let seen = observe(
        &Build::new("POST", "/orders")
            .header("Host", "localhost:8000")
            .header("User-Agent", "curl/8")
            .header("Accept", "*/*")
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Request-Id", "abc")
            .header("Idempotency-Key", "k-1")
            .header("If-Match", "\"e\"")
            .header("x-tenant", "acme")
            .answer(201, "application/json", "{}")
            .answer_header("Location", "/orders/7")
            .answer_header("ETag", "\"e\"")
            .answer_header("Server", "nginx")
            .answer_header("X-RateLimit-Remaining", "9"),
    );
    let spell = |tokens: &[(crate::observation::Token, crate::observation::Value)]| -> Vec<String> {
        tokens.iter().map(|(t, _)| t.text.as_ref().map_or("?", |t| t.as_str()).to_owned()).collect()
    };
    assert_eq!(spell(&seen.headers), ["Idempotency-Key", "If-Match", "X-Tenant"]);
    assert_eq!(seen.origin.as_ref().map(|t| t.as_str()), Some("http://localhost:8000"));
    let response = seen.response.expect("a response");
    assert_eq!(spell(&response.headers), ["Location", "ETag", "X-Ratelimit-Remaining"]);
}

#[test]
fn a_preflight_is_told_apart() {
    let build = Build::new("OPTIONS", "/orders").header("Origin", "https://a.example");
    assert!(!observe(&build).is_preflight);
    assert!(observe(&build.header("Access-Control-Request-Method", "PUT")).is_preflight);
}

#[test]
fn a_value_from_an_earlier_response_was_produced() {
    let mut redactor = redactor();
    let list = Build::new("GET", "/things").answer(
        200,
        "application/json",
        r#"[{"id": 7, "slug": "red-shoes-x", "count": 3, "title": "big"}]"#,
    );
    let get = |target: &str| Build::new("GET", target);
    let was = |redactor: &mut Redactor, build: &Build| {
        redactor
            .observe(&build.make())
            .expect("a request")
            .path
            .last()
            .expect("a segment")
            .token
            .was_produced
    };
    assert!(!was(&mut redactor, &get("/things/7")));
    assert!(!was(&mut redactor, &list));
    assert!(was(&mut redactor, &get("/things/7")));
    assert!(was(&mut redactor, &get("/things/red-shoes-x")));
    // A count of three says nothing about a thing called 3; a word says nothing either.
    assert!(!was(&mut redactor, &get("/things/3")));
    assert!(!was(&mut redactor, &get("/things/big")));
    let created = Build::new("POST", "/things")
        .answer(201, "application/json", "")
        .answer_header("Location", "/things/abc-9");
    was(&mut redactor, &created);
    assert!(was(&mut redactor, &get("/things/abc-9")));
}
