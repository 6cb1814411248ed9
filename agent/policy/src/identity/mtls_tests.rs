use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::context::tests::request;

fn build(config: Value) -> Mtls {
    Mtls::build(&serde_json::from_value(config).unwrap(), Arc::default()).unwrap()
}

fn identify(mtls: &Mtls, request: &RequestContext<'_>) -> Result<Option<Arc<Known>>, Rejection> {
    match mtls.look(request)? {
        Some(shown) => mtls.identify(&shown, &Forward::default()).map(Some),
        None => Ok(None),
    }
}

fn certificate() -> ClientCertificate {
    ClientCertificate {
        subject: "CN=orders,OU=shop,O=acme".to_owned(),
        issuer: "CN=acme clients,O=acme".to_owned(),
        serial: "01".to_owned(),
        fingerprint: "ab".repeat(32),
        subject_alternative_names: vec![
            "orders.acme.example".to_owned(),
            "spiffe://acme/orders".to_owned(),
        ],
        not_before: 0,
        not_after: i64::MAX,
    }
}

fn ask(
    mtls: &Mtls,
    certificate: Option<&ClientCertificate>,
) -> Result<Arc<Identity>, &'static str> {
    let headers = HeaderMap::new();
    let mut context = request(&headers);
    context.client_certificate = certificate;
    match identify(mtls, &context) {
        Ok(Some(known)) => Ok(Arc::clone(&known.identity)),
        Ok(None) => Err("absent"),
        Err(rejection) => Err(rejection.code),
    }
}

#[test]
fn the_certificate_names_caller_and_tenant() {
    let identity = ask(&build(json!({"scopes": ["a"]})), Some(&certificate())).unwrap();
    assert_eq!(&*identity.subject, "spiffe://acme/orders");
    assert_eq!(identity.consumer.as_deref(), Some("orders"));
    assert_eq!(identity.tenant.as_deref(), Some("acme"));
    assert_eq!(identity.scopes.len(), 1);
    let by = |subject: &str| {
        let mtls = build(json!({"subject": [subject], "tenant": "ou"}));
        let identity = ask(&mtls, Some(&certificate())).unwrap();
        assert_eq!(identity.tenant.as_deref(), Some("shop"));
        identity.subject.to_string()
    };
    assert_eq!(by("dns"), "orders.acme.example");
    assert_eq!(by("cn"), "orders");
    assert_eq!(by("dn"), "CN=orders,OU=shop,O=acme");
    assert_eq!(ask(&build(json!({})), None).unwrap_err(), "absent");
}

#[test]
fn issuers_are_compared_as_names() {
    let with = |issuer: &str| build(json!({"allowed_issuers": [issuer]}));
    for same in ["CN=acme clients,O=acme", "cn=acme clients, o=acme", "/O=acme/CN=acme clients"] {
        assert!(ask(&with(same), Some(&certificate())).is_ok(), "{same}");
    }
    for other in ["CN=acme clients", "O=acme,CN=acme clients", "CN=Acme Clients,O=acme", ""] {
        let code = ask(&with(other), Some(&certificate())).unwrap_err();
        assert_eq!(code, "certificate_issuer", "{other}");
    }
    let config = serde_json::from_value(json!({"allowed_issuers": ["acme"]})).unwrap();
    assert_eq!(Mtls::build(&config, Arc::default()).unwrap_err().key, "allowed_issuers");
}

#[test]
fn a_certificate_ends_also_while_its_connection_lives() {
    let mtls = build(json!({}));
    let now = i64::try_from(Now::read().seconds()).unwrap();
    let ended = ClientCertificate { not_after: now - 10, ..certificate() };
    assert_eq!(ask(&mtls, Some(&ended)).unwrap_err(), "certificate_expired");
    let early = ClientCertificate { not_before: now + 100, ..certificate() };
    assert_eq!(ask(&mtls, Some(&early)).unwrap_err(), "certificate_expired");
    let unnamed = ClientCertificate {
        subject: String::new(),
        subject_alternative_names: Vec::new(),
        ..certificate()
    };
    assert_eq!(ask(&mtls, Some(&unnamed)).unwrap_err(), "certificate_malformed");
}

fn ask_headers(
    source: &str,
    pairs: &[(&'static str, &str)],
) -> (Result<String, &'static str>, usize) {
    let mtls = build(json!({
        "allowed_issuers": ["CN=ca,O=acme"], "from_headers": {"sources": ["10.0.0.0/8"]},
    }));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    let mut context = request(&headers);
    context.source = source.parse().unwrap();
    let mut decision = Decision::default();
    mtls.clear(&context, &mut decision);
    let answer = match identify(&mtls, &context) {
        Ok(Some(known)) => Ok(known.identity.subject.to_string()),
        Ok(None) => Err("absent"),
        Err(rejection) => Err(rejection.code),
    };
    (answer, decision.headers_to_remove.len())
}

const GOOD: [(&str, &str); 3] = [
    ("x-ssl-client-verify", "SUCCESS"),
    ("x-ssl-client-s-dn", "CN=orders,O=acme"),
    ("x-ssl-client-i-dn", "CN=ca,O=acme"),
];

#[test]
fn headers_of_a_listed_proxy_stand_for_the_certificate() {
    assert_eq!(ask_headers("10.1.1.1:1", &GOOD), (Ok("orders".to_owned()), 0));
    let with = |at: usize, value: &'static str| {
        let mut pairs = GOOD;
        pairs[at].1 = value;
        ask_headers("10.1.1.1:1", &pairs).0
    };
    assert_eq!(with(0, "FAILED:expired"), Err("certificate_unverified"));
    assert_eq!(with(0, "success"), Err("certificate_unverified"));
    assert_eq!(with(0, "NONE"), Err("absent"));
    assert_eq!(with(0, ""), Err("absent"));
    assert_eq!(with(1, "orders"), Err("certificate_malformed"));
    assert_eq!(with(1, r"CN=x\,CN=orders"), Ok("x,CN=orders".to_owned()));
    assert_eq!(with(2, "CN=other"), Err("certificate_issuer"));
}

#[test]
fn a_strangers_headers_are_worth_nothing_and_go_no_further() {
    assert_eq!(ask_headers("11.1.1.1:1", &GOOD), (Err("absent"), 3));
    let mut twice = GOOD.to_vec();
    twice.push(("x-ssl-client-s-dn", "CN=root,O=acme"));
    assert_eq!(ask_headers("10.1.1.1:1", &twice).0, Err("credentials_ambiguous"));
    let config = serde_json::from_value(json!({"from_headers": {"sources": []}})).unwrap();
    assert_eq!(Mtls::build(&config, Arc::default()).unwrap_err().key, "from_headers.sources");
}

#[test]
fn what_the_proxy_says_of_the_validity_counts() {
    let ask = |before: &str, after: &str| {
        let dates = [("x-ssl-client-notbefore", before), ("x-ssl-client-notafter", after)];
        ask_headers("10.1.1.1:1", &[&GOOD[..], &dates].concat()).0
    };
    assert_eq!(ask("2026-01-15T00:00:00Z", "Jan 15 00:00:00 2999 GMT"), Ok("orders".to_owned()));
    assert_eq!(ask("", ""), Ok("orders".to_owned()));
    assert_eq!(ask("", "2001-01-15T00:00:00Z"), Err("certificate_expired"));
    assert_eq!(ask("Jan 15 00:00:00 2999 GMT", ""), Err("certificate_expired"));
    assert_eq!(ask("", "never"), Err("certificate_malformed"));
    let stranger = [("x-ssl-client-notafter", "never")];
    assert_eq!(ask_headers("11.1.1.1:1", &stranger), (Err("absent"), 1));
}

/// openssl ca -selfsign -startdate 20200101000000Z -enddate 21000101000000Z
const PEM: &str = include_str!("../../tests/data/client.pem");
/// openssl x509 -noout -fingerprint -sha256
const SHA_256: &str = include_str!("../../tests/data/client.sha256");

#[test]
fn a_certificate_in_a_header_has_the_fingerprint_that_openssl_gives_it() {
    let expected = SHA_256.trim().replace(':', "").to_ascii_lowercase();
    let body: String = PEM.lines().filter(|line| !line.starts_with('-')).collect();
    let escaped: String =
        percent_encoding::utf8_percent_encode(PEM, percent_encoding::NON_ALPHANUMERIC).to_string();
    assert!(STANDARD.decode(&body).is_ok());
    let mtls = build(json!({"from_headers": {"sources": ["10.0.0.0/8"]}}));
    let sha_1 = "ab".repeat(20);
    for value in [escaped, body.clone(), format!(":{body}:")] {
        let mut headers = HeaderMap::new();
        for (name, value) in GOOD {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // nginx's is of SHA-1.
        headers.insert("x-ssl-client-fingerprint", HeaderValue::from_str(&sha_1).unwrap());
        headers.insert("x-ssl-client-cert", HeaderValue::from_str(&value).unwrap());
        let mut context = request(&headers);
        context.source = "10.1.1.1:1".parse().unwrap();
        let shown = mtls.look(&context).unwrap().unwrap();
        assert_eq!(shown.digest(), crate::identity::decode_hex(&expected));
        assert_eq!((shown.not_before, shown.not_after), (1_577_836_800, 4_102_444_800));
    }
    let broken = [&GOOD[..], &[("x-ssl-client-cert", "AAAA")]].concat();
    assert_eq!(ask_headers("10.1.1.1:1", &broken).0, Err("certificate_malformed"));
    // It is looked at for what nothing else says.
    let dates = [
        ("x-ssl-client-notbefore", "2026-01-15T00:00:00Z"),
        ("x-ssl-client-notafter", "2999-01-15T00:00:00Z"),
    ];
    let dated = [&broken[..], &dates].concat();
    assert_eq!(ask_headers("10.1.1.1:1", &dated).0, Ok("orders".to_owned()));
}
