use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, StatusCode, header::AUTHORIZATION, header::WWW_AUTHENTICATE};
use serde_json::{Value, json};

use super::*;
use crate::{
    context::{ClientCertificate, RequestContext, tests::request},
    decision::Decision,
    identity::{
        Refusal,
        test_issuer::{ISSUER, Issuer, claims},
        tests,
    },
    outside::Outside,
};

fn build_with(methods: Value, outside: &Outside) -> Result<Identities, Refusal> {
    let config = serde_json::from_value(json!({"methods": methods})).unwrap();
    Identities::build(&config, outside)
}

fn build(methods: Value) -> Identities {
    build_with(methods, &Outside::default()).unwrap()
}

fn jwt(issuer: &Issuer) -> Value {
    json!({"jwt": {"issuer": ISSUER, "audience": "orders", "jwks": issuer.jwks()}})
}

fn check(
    identities: &Identities,
    request: &RequestContext<'_>,
) -> (Result<String, &'static str>, Decision) {
    let (verdict, decision) = tests::check(identities, request);
    let who = verdict.map_err(|denial| {
        assert_eq!(denial.status, StatusCode::UNAUTHORIZED);
        denial.code
    });
    let who = who.map(|()| decision.identity.as_ref().unwrap().subject.to_string());
    (who, decision)
}

fn code(identities: &Identities, request: &RequestContext<'_>) -> Result<String, &'static str> {
    check(identities, request).0
}

fn bearing(token: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    headers
}

/// Its fingerprint is 32 times `byte`.
fn certificate(byte: u8) -> ClientCertificate {
    ClientCertificate {
        subject: "CN=batch".to_owned(),
        issuer: "CN=ca".to_owned(),
        serial: String::new(),
        fingerprint: crate::identity::encode_hex(&[byte; 32]),
        subject_alternative_names: Vec::new(),
        not_before: 0,
        not_after: i64::MAX,
    }
}

fn bound_to(issuer: &Issuer, byte: u8) -> String {
    let thumbprint = URL_SAFE_NO_PAD.encode([byte; 32]);
    issuer.token(&claims(json!({"cnf": {"x5t#S256": thumbprint}})))
}

#[test]
fn a_token_bound_to_a_certificate_needs_it_every_time() {
    let issuer = Issuer::new("1");
    let headers = bearing(&bound_to(&issuer, 7));
    let (ours, other) = (certificate(7), certificate(8));
    let expired = ClientCertificate { not_after: 1, ..certificate(7) };
    // Also where another method would take the certificate for itself.
    for methods in [json!([jwt(&issuer)]), json!([jwt(&issuer), {"mtls": {}}])] {
        let has_mtls = methods.as_array().unwrap().len() == 2;
        let identities = build(methods);
        let mut context = request(&headers);
        for _ in 0..2 {
            context.client_certificate = None;
            let (who, decision) = check(&identities, &context);
            assert_eq!(who, Err("token_bound"));
            let (_, challenge) = decision
                .response_headers
                .iter()
                .find(|(name, _)| name == WWW_AUTHENTICATE)
                .expect("a challenge");
            // RFC 8705 section 3.
            assert!(challenge.to_str().unwrap().contains("error=\"invalid_token\""));
            context.client_certificate = Some(&other);
            assert_eq!(code(&identities, &context), Err("token_bound"));
            context.client_certificate = Some(&ours);
            assert_eq!(code(&identities, &context), Ok("alice".to_owned()));
        }
        context.client_certificate = Some(&expired);
        let expected = if has_mtls { Err("certificate_expired") } else { Ok("alice".to_owned()) };
        assert_eq!(code(&identities, &context), expected);
    }
}

#[test]
fn a_listed_proxys_certificate_counts_and_a_strangers_does_not() {
    let issuer = Issuer::new("1");
    let mtls = json!({"mtls": {"from_headers": {"sources": ["10.0.0.0/8"]}}});
    let identities = build(json!([jwt(&issuer), mtls]));
    let ask = |source: &str, fingerprint: &str| {
        let mut headers = bearing(&bound_to(&issuer, 0xab));
        for (name, value) in [
            ("x-ssl-client-verify", "SUCCESS"),
            ("x-ssl-client-s-dn", "CN=batch"),
            ("x-ssl-client-i-dn", "CN=ca"),
            ("x-ssl-client-fingerprint", fingerprint),
        ] {
            headers.insert(name, HeaderValue::from_str(value).unwrap());
        }
        let mut context = request(&headers);
        context.source = source.parse().unwrap();
        code(&identities, &context)
    };
    let base64 = URL_SAFE_NO_PAD.encode([0xab; 32]);
    for good in ["ab".repeat(32), ["AB"; 32].join(":"), base64] {
        assert_eq!(ask("10.0.0.1:1", &good), Ok("alice".to_owned()), "{good}");
        assert_eq!(ask("11.0.0.1:1", &good), Err("token_bound"), "{good}");
    }
    assert_eq!(ask("10.0.0.1:1", &"ac".repeat(32)), Err("token_bound"));
    assert_eq!(ask("10.0.0.1:1", &"ab".repeat(20)), Err("token_bound"), "SHA-1");
}

#[test]
fn where_binding_is_required_a_token_beside_a_certificate_is_bound_to_it() {
    let issuer = Issuer::new("1");
    let outside = Outside::default();
    let methods = json!([jwt(&issuer), {"mtls": {"require_binding": true}}]);
    let identities = build_with(methods, &outside).unwrap();
    let ours = certificate(7);
    let expired = ClientCertificate { not_after: 1, ..certificate(7) };
    let ask = |headers: &HeaderMap, certificate: Option<&ClientCertificate>| {
        let mut context = request(headers);
        context.client_certificate = certificate;
        code(&identities, &context)
    };
    let unbound = bearing(&issuer.token(&claims(json!({}))));
    assert_eq!(ask(&unbound, Some(&ours)), Err("token_unbound"));
    assert_eq!(ask(&unbound, Some(&expired)), Err("certificate_expired"));
    assert_eq!(ask(&unbound, None), Ok("alice".to_owned()), "no certificate, nothing to bind to");
    assert_eq!(ask(&bearing(&bound_to(&issuer, 7)), Some(&ours)), Ok("alice".to_owned()));
    assert_eq!(ask(&bearing(&bound_to(&issuer, 8)), Some(&ours)), Err("token_bound"));
    assert_eq!(ask(&HeaderMap::new(), Some(&ours)), Ok("batch".to_owned()), "and no token");
    let tally = &outside.certificates;
    let counts = [&tally.bound, &tally.mismatched, &tally.unbound].map(|count| count.load(Relaxed));
    assert_eq!(counts, [1, 1, 1]);
}

#[test]
fn listed_paths_need_a_certificate_whatever_else_is_shown() {
    let issuer = Issuer::new("1");
    let mtls = json!({"mtls": {"required_paths": ["/payments/*"], "allowed_issuers": ["CN=ca"]}});
    let identities = build(json!([jwt(&issuer), mtls]));
    let token = bearing(&issuer.token(&claims(json!({}))));
    let (ours, theirs) =
        (certificate(7), ClientCertificate { issuer: "CN=x".to_owned(), ..certificate(7) });
    let ask = |path, certificate| {
        let context = RequestContext { path, client_certificate: certificate, ..request(&token) };
        code(&identities, &context)
    };
    for path in ["/payments", "/payments/1", "/%70ayments/1", "//payments"] {
        assert_eq!(ask(path, None), Err("certificate_missing"), "{path}");
        assert_eq!(ask(path, Some(&theirs)), Err("certificate_issuer"), "{path}");
        assert_eq!(ask(path, Some(&ours)), Ok("alice".to_owned()), "{path}");
    }
    assert_eq!(ask("/orders", None), Ok("alice".to_owned()));
    assert_eq!(ask("/orders", Some(&theirs)), Ok("alice".to_owned()), "it was not asked for");
}

#[test]
fn a_binding_that_would_bind_nothing_is_refused() {
    let issuer = Issuer::new("1");
    let mtls = json!({"mtls": {"require_binding": true}});
    for methods in [json!([mtls]), json!([mtls, jwt(&issuer)])] {
        let refusal = build_with(methods, &Outside::default()).unwrap_err();
        assert_eq!(refusal.key, "methods[0].mtls.require_binding");
    }
}
