use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::*;
use crate::context::tests::request;

const KEY: &str = "4f1c9e0b7a6d48f29a3c5d7e8b1f2a4c";
/// `printf %s 4f1c9e0b7a6d48f29a3c5d7e8b1f2a4c | sha256sum`
const HASH: &str = "8d32661c7e84d9e91da4e7b8a165eb89f1f1c7a703d1613163ef00f4a548fcfe";

fn build(more: Value) -> Result<ApiKeys, Refusal> {
    let mut config = json!({"query": "key", "keys": [{
        "name": "batch", "sha256": HASH, "owner": "billing", "tenant": "acme", "plan": "gold",
        "scopes": ["orders:read"],
    }]});
    for (name, value) in more.as_object().unwrap() {
        config[name] = value.clone();
    }
    ApiKeys::build(&serde_json::from_value(config).unwrap(), &Forward::default())
}

fn ask(keys: &ApiKeys, sent: &[&str], query: Option<&str>) -> Result<Arc<Known>, &'static str> {
    let mut headers = HeaderMap::new();
    for value in sent {
        headers.append("x-api-key", HeaderValue::from_str(value).unwrap());
    }
    let mut context = request(&headers);
    context.query = query;
    match keys.identify(&context) {
        Ok(Some(known)) => Ok(known),
        Ok(None) => Err("absent"),
        Err(rejection) => Err(rejection.code),
    }
}

#[test]
fn a_key_is_known_by_its_hash() {
    let keys = build(json!({})).unwrap();
    let identity = &ask(&keys, &[KEY], None).unwrap().identity;
    assert_eq!((&*identity.subject, identity.consumer.as_deref()), ("billing", Some("batch")));
    assert_eq!(
        (identity.tenant.as_deref(), identity.plan.as_deref()),
        (Some("acme"), Some("gold"))
    );
    assert!(ask(&keys, &[], Some(&format!("a=b&key={KEY}"))).is_ok());
    assert!(ask(&keys, &[], Some(&format!("k%65y=%34{}", &KEY[1..]))).is_ok());
    let upper = KEY.to_uppercase();
    let long = KEY.repeat(40);
    for wrong in [HASH, "", &KEY[1..], &upper, &long] {
        assert_eq!(ask(&keys, &[wrong], None).unwrap_err(), "api_key_unknown", "{wrong}");
    }
    assert_eq!(ask(&keys, &[], None).unwrap_err(), "absent");
    assert_eq!(ask(&keys, &[], Some("a=b&keys=x")).unwrap_err(), "absent");
    assert_eq!(ask(&keys, &[], Some("key")).unwrap_err(), "api_key_unknown");
}

#[test]
fn two_keys_are_none() {
    let keys = build(json!({})).unwrap();
    for (sent, query) in [
        (&[KEY, KEY][..], None),
        (&[KEY, "x"], None),
        (&[KEY], Some("key=x")),
        (&[], Some("key=x&key=y")),
        (&[], Some("key=x&k%65y=y")),
    ] {
        assert_eq!(ask(&keys, sent, query).unwrap_err(), "credentials_ambiguous");
    }
}

#[test]
fn a_key_has_an_end() {
    let with = |expires: &str| {
        build(json!({"keys": [{"name": "batch", "sha256": HASH, "expires": expires}]})).unwrap()
    };
    assert!(ask(&with("2099-01-01T00:00:00Z"), &[KEY], None).is_ok());
    assert_eq!(
        ask(&with("2020-01-01T00:00:00+02:00"), &[KEY], None).unwrap_err(),
        "api_key_expired"
    );
}

#[test]
fn mistakes_are_named_and_secrets_not_shown() {
    let error = |key: Value| {
        serde_json::from_value::<ApiKeyConfig>(json!({"keys": [key]})).unwrap_err().to_string()
    };
    let text = error(json!({"name": "a", "sha256": KEY}));
    assert!(text.contains("64 hexadecimal digits") && !text.contains(KEY), "{text}");
    assert!(
        error(json!({"name": "a", "sha256": HASH, "expires": "tomorrow"})).contains("`tomorrow`")
    );
    assert!(error(json!({"name": "a", "sha256": HASH, "scope": []})).contains("scope"));
    assert_eq!(build(json!({"keys": []})).unwrap_err().key, "keys");
    let twice =
        json!([{"name": "a", "sha256": HASH}, {"name": "b", "sha256": HASH.to_uppercase()}]);
    assert_eq!(build(json!({"keys": twice})).unwrap_err().key, "keys[1].sha256");
}

#[test]
fn a_scheme_parts_keys_from_tokens() {
    let config = json!({
        "header": "Authorization", "scheme": "ApiKey", "keys": [{"name": "a", "sha256": HASH}],
    });
    let keys =
        ApiKeys::build(&serde_json::from_value(config).unwrap(), &Forward::default()).unwrap();
    let ask = |value: String| {
        let mut headers = HeaderMap::new();
        headers.insert("authorization", HeaderValue::from_str(&value).unwrap());
        let mut decision = Decision::default();
        let context = request(&headers);
        keys.clear(&context, &mut decision);
        let found = keys.identify(&context).map(|known| known.is_some());
        (found.map_err(|rejection| rejection.code), decision.headers_to_remove.len())
    };
    assert_eq!(ask(format!("apikey {KEY}")), (Ok(true), 1));
    assert_eq!(ask("Bearer a.b.c".to_owned()), (Ok(false), 0));
}
