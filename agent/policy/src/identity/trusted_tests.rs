use base64::engine::general_purpose::{STANDARD as BASE64, URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue};
use serde_json::json;

use super::*;
use crate::context::tests::request;

fn ask(
    source: &str,
    stated: Option<&Stated>,
    pairs: &[(&'static str, &str)],
) -> (Result<Arc<Identity>, &'static str>, usize) {
    let config = serde_json::from_value(json!({"sources": ["10.0.0.0/8"]})).unwrap();
    let trusted = Trusted::build(&config).unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let mut context = request(&headers);
    context.source = source.parse().unwrap();
    context.stated = stated;
    let mut decision = Decision::default();
    trusted.clear(&context, &mut decision);
    let answer = match trusted.identify(&context, &Forward::default()) {
        Ok(Some(known)) => Ok(Arc::clone(&known.identity)),
        Ok(None) => Err("absent"),
        Err(rejection) => Err(rejection.code),
    };
    (answer, decision.headers_to_remove.len())
}

const INSIDE: &str = "10.1.2.3:4";
const OUTSIDE: &str = "11.1.2.3:4";

#[test]
fn one_header_tells_all_in_json_or_base64() {
    let info = r#"{"id":"jürgen","email":"j@acme.example","tenant_id":"acme","roles":["devops"],"scopes":["a","b"]}"#;
    for text in [info.to_owned(), BASE64.encode(info), URL_SAFE_NO_PAD.encode(info)] {
        let identity = ask(INSIDE, None, &[("x-user-info", &text)]).0.unwrap();
        assert_eq!(&*identity.subject, "jürgen");
        assert_eq!(identity.tenant.as_deref(), Some("acme"));
        assert_eq!((identity.roles.len(), identity.scopes.len()), (1, 2));
        assert_eq!(identity.method, AuthenticationMethod::Trusted);
    }
    for bad in ["{", "{}", "e30=", "x", "[1]", "\"alice\"", "alice"] {
        assert_eq!(
            ask(INSIDE, None, &[("x-user-info", bad)]).0.unwrap_err(),
            "user_info_malformed"
        );
    }
}

#[test]
fn or_one_header_each() {
    let pairs = [
        ("x-user-id", "alice"),
        ("x-user-scopes", "a,b c"),
        ("x-user-roles", "devops"),
        ("x-tenant-id", "acme"),
    ];
    let identity = ask(INSIDE, None, &pairs).0.unwrap();
    assert_eq!(&*identity.subject, "alice");
    assert_eq!(identity.scopes.len(), 3);
    assert_eq!(ask(INSIDE, None, &[]).0.unwrap_err(), "absent");
    assert_eq!(ask(INSIDE, None, &[("x-user-id", "")]).0.unwrap_err(), "absent");
    let twice = [("x-user-id", "alice"), ("x-user-id", "root")];
    assert_eq!(ask(INSIDE, None, &twice).0.unwrap_err(), "credentials_ambiguous");
}

#[test]
fn a_stranger_is_believed_nothing() {
    let pairs =
        [("x-user-id", "root"), ("x-user-info", "{\"id\":\"root\"}"), ("x-user-roles", "admin")];
    let (answer, removed) = ask(OUTSIDE, None, &pairs);
    assert_eq!((answer.unwrap_err(), removed), ("absent", 3));
}

#[test]
fn the_caller_of_a_decision_door_is_believed() {
    let stated = Stated { id: Some(Arc::from("u1")), ..Stated::default() };
    let (answer, _) = ask(OUTSIDE, Some(&stated), &[("x-user-id", "root")]);
    assert_eq!(&*answer.unwrap().subject, "u1");
    let nobody = Stated { id: Some(Arc::from("")), ..Stated::default() };
    assert_eq!(ask(OUTSIDE, Some(&nobody), &[]).0.unwrap_err(), "absent");
}

#[test]
fn nobody_to_believe_is_a_mistake() {
    let config = serde_json::from_value(json!({"stated": false})).unwrap();
    assert_eq!(Trusted::build(&config).unwrap_err().key, "sources");
}
