use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};

use super::{
    test_issuer::{Issuer, claims},
    *,
};
use crate::context::{Stated, tests::request};

fn build(config: Value) -> Result<Identities, Refusal> {
    Identities::build(&serde_json::from_value(config).unwrap(), &Outside::default())
}

pub(super) fn check(identities: &Identities, request: &RequestContext<'_>) -> (Verdict, Decision) {
    let mut decision = Decision::default();
    let verdict = {
        let future = pin!(identities.check(request, &mut decision));
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(verdict) => verdict,
            Poll::Pending => panic!("nothing to wait for"),
        }
    };
    (verdict, decision)
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in pairs {
        map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    map
}

fn jwt(issuer: &Issuer) -> Value {
    json!({"jwt": {"issuer": test_issuer::ISSUER, "audience": "orders", "jwks": issuer.jwks()}})
}

const KEY: &str = "k-0123456789abcdef";

/// With the SHA-256 of `KEY` as sha256sum prints it.
fn api_key() -> Value {
    let hash = "6b1ed3249bfeaf163cc86042729f1023caea2e1d2f3594407894563fdf054b42";
    json!({"api_key": {"keys": [{"name": "batch", "sha256": hash, "owner": "billing"}]}})
}

fn challenge(decision: &Decision) -> &str {
    let (_, value) =
        decision.response_headers.iter().find(|(name, _)| name == WWW_AUTHENTICATE).unwrap();
    value.to_str().unwrap()
}

#[test]
fn methods_are_tried_in_order_and_the_first_that_accepts_counts() {
    let issuer = Issuer::new("1");
    let identities = build(json!({"methods": [jwt(&issuer), api_key()]})).unwrap();
    let token = format!("Bearer {}", issuer.token(&claims(json!({}))));
    let who = |pairs: &[(&'static str, &str)]| {
        let (verdict, decision) = check(&identities, &request(&headers(pairs)));
        verdict.map(|()| decision.identity.unwrap().subject.to_string()).map_err(|d| d.code)
    };
    assert_eq!(who(&[("authorization", &token)]), Ok("alice".into()));
    assert_eq!(who(&[("x-api-key", KEY)]), Ok("billing".into()));
    assert_eq!(who(&[("authorization", &token), ("x-api-key", KEY)]), Ok("alice".into()));
    // A method that refuses does not keep the next from accepting.
    assert_eq!(who(&[("authorization", "Bearer x"), ("x-api-key", KEY)]), Ok("billing".into()));
    assert_eq!(who(&[("authorization", "Bearer x"), ("x-api-key", "y")]), Err("token_malformed"));
    assert_eq!(who(&[]), Err("credentials_missing"));
}

#[test]
fn of_several_issuers_the_tokens_own_speaks() {
    let (first, second) = (Issuer::new("1"), Issuer::new("1"));
    let mut other = jwt(&second);
    other["jwt"]["issuer"] = json!("https://other.example");
    let identities = build(json!({"methods": [jwt(&first), other]})).unwrap();
    let code = |token: String| {
        let map = headers(&[("authorization", &format!("Bearer {token}"))]);
        check(&identities, &request(&map)).0.map_err(|denial| denial.code)
    };
    let theirs = |more: Value| {
        let mut claims = claims(more);
        claims["iss"] = json!("https://other.example");
        claims
    };
    assert_eq!(code(second.token(&theirs(json!({})))), Ok(()));
    assert_eq!(code(second.token(&theirs(json!({"exp": 1})))), Err("token_expired"));
    assert_eq!(code(first.token(&claims(json!({"exp": 1})))), Err("token_expired"));
    assert_eq!(
        code(first.token(&claims(json!({"iss": "https://x.example"})))),
        Err("token_issuer")
    );
    // The key of one issuer does not speak for another.
    assert_eq!(code(first.token(&theirs(json!({})))), Err("token_signature_invalid"));
}

#[test]
fn a_bad_credential_is_refused_also_where_none_is_needed() {
    let issuer = Issuer::new("1");
    let identities = build(json!({"methods": [jwt(&issuer)], "required": false})).unwrap();
    let (verdict, decision) = check(&identities, &request(&HeaderMap::new()));
    assert!(verdict.is_ok() && decision.identity.is_none());
    let map = headers(&[("authorization", "Bearer x.y.z")]);
    assert!(check(&identities, &request(&map)).0.is_err());
    // Another scheme is somebody else's.
    let map = headers(&[("authorization", "Basic eDp5")]);
    assert!(check(&identities, &request(&map)).0.is_ok());
}

#[test]
fn challenges_are_those_of_rfc_6750() {
    let issuer = Issuer::new("1");
    let metadata = "https://gateway.example/.well-known/oauth-protected-resource";
    let config =
        json!({"methods": [jwt(&issuer)], "realm": "a \"b\"", "resource_metadata": metadata});
    let identities = build(config).unwrap();
    let start = format!("Bearer realm=\"a \\\"b\\\"\", resource_metadata=\"{metadata}\"");

    let (verdict, decision) = check(&identities, &request(&HeaderMap::new()));
    assert_eq!(verdict.unwrap_err().status, StatusCode::UNAUTHORIZED);
    assert_eq!(challenge(&decision), start);

    let expired = format!("Bearer {}", issuer.token(&claims(json!({"exp": 1}))));
    let (verdict, decision) =
        check(&identities, &request(&headers(&[("authorization", &expired)])));
    assert_eq!(verdict.unwrap_err().status, StatusCode::UNAUTHORIZED);
    assert_eq!(
        challenge(&decision),
        format!("{start}, error=\"invalid_token\", error_description=\"The access token expired\"")
    );

    let twice = [("authorization", "Bearer a"), ("authorization", "Bearer b")];
    let (verdict, decision) = check(&identities, &request(&headers(&twice)));
    assert_eq!(verdict.unwrap_err().status, StatusCode::BAD_REQUEST);
    assert!(challenge(&decision).contains("error=\"invalid_request\""));
}

#[test]
fn the_upstream_is_told_and_the_client_cannot_tell_it() {
    let issuer = Issuer::new("1");
    let names = json!({"subject": "X-User-ID", "scopes": "X-User-Scopes", "tenant": "X-Tenant-ID"});
    let identities = build(json!({"methods": [jwt(&issuer)], "forward_as": names})).unwrap();
    let token = issuer.token(&claims(json!({"scope": "a b", "sub": "jürgen"})));
    let map = headers(&[
        ("authorization", &format!("Bearer {token}")),
        ("x-user-id", "root"),
        ("x_user_id", "root"),
        ("x-tenant_id", "other"),
        ("x-other", "kept"),
    ]);
    let (verdict, decision) = check(&identities, &request(&map));
    assert_eq!(verdict, Ok(()));
    let mut removed: Vec<_> = decision.headers_to_remove.iter().map(HeaderName::as_str).collect();
    removed.sort_unstable();
    assert_eq!(removed, ["x-tenant_id", "x-user-id", "x_user_id"]);
    let set: Vec<_> = decision
        .headers_to_set
        .iter()
        .map(|(name, value)| (name.as_str(), std::str::from_utf8(value.as_bytes()).unwrap()))
        .collect();
    assert_eq!(set, [("x-user-id", "jürgen"), ("x-user-scopes", "a,b")]);
}

#[test]
fn an_identity_that_breaks_a_header_is_refused() {
    let issuer = Issuer::new("1");
    let names = json!({"subject": "X-User-ID", "scopes": "X-Scopes"});
    let identities = build(json!({"methods": [jwt(&issuer)], "forward_as": names})).unwrap();
    let code = |more: Value| {
        let token = format!("Bearer {}", issuer.token(&claims(more)));
        let (verdict, decision) =
            check(&identities, &request(&headers(&[("authorization", &token)])));
        verdict.map(|()| decision.headers_to_set.len()).map_err(|denial| denial.code)
    };
    assert_eq!(code(json!({"sub": "a\r\nX-Admin: 1"})), Err("identity_unwritable"));
    // One scope with a comma is not two scopes.
    assert_eq!(code(json!({"scp": ["a,b"]})), Ok(1));
}

#[test]
fn tokens_and_keys_go_on_or_not_as_configured() {
    let issuer = Issuer::new("1");
    let mut strict = jwt(&issuer);
    strict["jwt"]["forward"] = json!(false);
    let mut in_query = api_key();
    in_query["api_key"]["query"] = json!("key");
    let token = format!("Bearer {}", issuer.token(&claims(json!({}))));
    let removed = |methods: Value, pairs: &[(&'static str, &str)], query: Option<&str>| {
        let identities = build(json!({"methods": methods})).unwrap();
        let map = headers(pairs);
        let mut context = request(&map);
        context.query = query;
        let (verdict, decision) = check(&identities, &context);
        assert_eq!(verdict, Ok(()));
        let names = decision.headers_to_remove.iter().map(|n| n.as_str().to_owned());
        names.chain(decision.query_to_remove.iter().map(|n| format!("?{n}"))).collect::<Vec<_>>()
    };
    let bearer = [("authorization", token.as_str())];
    let both = [("authorization", token.as_str()), ("x-api-key", "any")];
    assert!(removed(json!([jwt(&issuer)]), &bearer, None).is_empty());
    assert_eq!(removed(json!([strict]), &bearer, None), ["authorization"]);
    assert_eq!(removed(json!([api_key()]), &[("x-api-key", KEY)], None), ["x-api-key"]);
    // A key goes no further, whoever was asked first.
    assert_eq!(removed(json!([jwt(&issuer), api_key()]), &both, None), ["x-api-key"]);
    assert_eq!(removed(json!([in_query]), &[], Some(&format!("a=1&key={KEY}"))), ["?key"]);
}

#[test]
fn what_cannot_work_is_refused_by_name() {
    let refusal = |config: Value| build(config).unwrap_err();
    assert_eq!(refusal(json!({"methods": []})).key, "methods");
    assert_eq!(refusal(json!({"methods": [{}]})).key, "methods[0]");
    let issuer = Issuer::new("1");
    let two = json!({"jwt": jwt(&issuer)["jwt"], "trusted": {}});
    assert_eq!(refusal(json!({"methods": [two]})).key, "methods[0]");
    let base = || json!({"issuer": "https://i.example", "audience": "a", "jwks": issuer.jwks()});
    let jwt = |edit: &dyn Fn(&mut Value)| {
        let mut config = base();
        edit(&mut config);
        refusal(json!({"methods": [{"jwt": config}]})).key
    };
    type Edit<'a> = &'a dyn Fn(&mut Value);
    let cases: [(Edit<'_>, &str); 13] = [
        (&|c| *c = json!({"issuer": ["https://i", "https://j"], "audience": "a"}), "issuer"),
        (&|c| *c = json!({"issuer": "i", "audience": "a"}), "issuer"),
        (&|c| c["issuer"] = json!([]), "issuer"),
        (&|c| c["audience"] = json!([]), "audience"),
        (&|c| c["any_audience"] = json!(true), "any_audience"),
        (&|c| c["algorithms"] = json!(["HS256"]), "algorithms"),
        (&|c| c["jwks"] = json!({"keys": []}), "jwks"),
        (&|c| c["jwks_url"] = json!("https://i.example/jwks"), ""),
        (&|c| c["header"] = json!("a b"), "header"),
        (&|c| c["scheme"] = json!("a b"), "scheme"),
        (
            &|c| *c = json!({"issuer": "i", "audience": "a", "jwks_url": "i.example/jwks"}),
            "jwks_url",
        ),
        (&|c| *c = json!({"audience": "a", "secret": "short"}), "secret"),
        (
            &|c| *c = json!({"audience": "a", "keycloak": {"url": "https://k", "realm": "a/b"}}),
            "keycloak.realm",
        ),
    ];
    for (edit, key) in cases {
        let expected = if key.is_empty() {
            "methods[0].jwt".to_owned()
        } else {
            format!("methods[0].jwt.{key}")
        };
        assert_eq!(jwt(edit), expected);
    }
}

#[test]
fn a_set_without_identity_believes_the_decision_doors_caller() {
    let stated = Stated { id: Some(Arc::from("u1")), ..Stated::default() };
    let identity = trusted::stated_identity(&stated).unwrap();
    assert_eq!(&*identity.subject, "u1");
    assert!(trusted::stated_identity(&Stated::default()).is_none());
}
