use serde_json::json;

use super::*;

fn rules() -> Rules {
    Rules {
        issuers: vec!["https://issuer.example".to_owned()],
        audiences: vec!["orders".to_owned(), "billing".to_owned()],
        leeway: Duration::from_secs(30),
        max_age: None,
        requires_expiry: true,
    }
}

fn claims(value: Value) -> Claims {
    let mut claims = json!({"iss": "https://issuer.example", "aud": "orders", "exp": 2000});
    for (name, value) in value.as_object().unwrap() {
        claims[name] = value.clone();
    }
    let Value::Object(claims) = claims else { panic!() };
    claims
}

fn at(rules: &Rules, value: Value, seconds: u64) -> Result<u64, Fault> {
    rules.check(&claims(value), Now(seconds * 1000)).map(|until| until.0)
}

#[test]
fn expiry_is_exclusive_and_has_leeway() {
    let rules = rules();
    let exp = |exp: Value, now| at(&rules, json!({"exp": exp}), now);
    assert_eq!(exp(json!(2000), 2029), Ok(2_030_000));
    assert_eq!(exp(json!(2000), 2030), Err(Fault::Expired));
    assert_eq!(exp(json!(2000.5), 2030), Ok(2_030_500));
    assert_eq!(exp(json!(2000.5), 2031), Err(Fault::Expired));
    assert_eq!(exp(json!(0), 2000), Err(Fault::Expired));
    assert_eq!(exp(json!(-5), 2000), Err(Fault::Expired));
    assert_eq!(exp(json!(-5e300), 2000), Err(Fault::Expired));
    assert!(exp(json!(u64::MAX), 2000).is_ok());
    assert!(exp(json!(1e300), 2000).is_ok());
    for bad in [json!("2000"), json!(null), json!([2000]), json!(true), json!({})] {
        assert_eq!(exp(bad, 1000), Err(Fault::MalformedDate("exp")));
    }
    let mut none = claims(json!({}));
    none.remove("exp");
    assert_eq!(rules.check(&none, Now(0)), Err(Fault::NoExpiry));
    let lax = Rules { requires_expiry: false, ..rules };
    assert_eq!(lax.check(&none, Now(0)), Ok(Now(u64::MAX)));
}

#[test]
fn not_before_is_inclusive_and_has_leeway() {
    let rules = rules();
    let nbf = |nbf: Value, now| at(&rules, json!({"nbf": nbf}), now).map(|_| ());
    assert_eq!(nbf(json!(1000), 970), Ok(()));
    assert_eq!(nbf(json!(1000), 969), Err(Fault::NotYetValid));
    assert_eq!(nbf(json!(-1), 0), Ok(()));
    assert_eq!(nbf(json!(u64::MAX), 1000), Err(Fault::NotYetValid));
    assert_eq!(nbf(json!("1000"), 1500), Err(Fault::MalformedDate("nbf")));
}

#[test]
fn tokens_from_the_future_and_from_long_ago() {
    let rules = rules();
    let iat = |iat: Value, now| at(&rules, json!({"iat": iat}), now).map(|_| ());
    assert_eq!(iat(json!(1030), 1000), Ok(()));
    assert_eq!(iat(json!(1031), 1000), Err(Fault::IssuedInFuture));
    let aged = Rules { max_age: Some(Duration::from_secs(100)), ..rules };
    let age = |value: Value, now| at(&aged, value, now);
    assert_eq!(age(json!({"iat": 1000}), 1129), Ok(1_130_000));
    assert_eq!(age(json!({"iat": 1000}), 1130), Err(Fault::TooOld));
    assert_eq!(age(json!({"iat": 1950}), 2029), Ok(2_030_000), "the sooner of the two");
    assert_eq!(age(json!({}), 1000), Err(Fault::TooOld), "an age that is not told is none");
}

#[test]
fn the_audience_is_ours_letter_by_letter() {
    let rules = rules();
    let aud = |aud: Value| at(&rules, json!({"aud": aud}), 1000).map(|_| ());
    for good in [json!("orders"), json!(["x", "billing"]), json!(["orders", 7])] {
        assert_eq!(aud(good), Ok(()));
    }
    for bad in [
        json!("Orders"),
        json!("orders "),
        json!("orders,billing"),
        json!(["orders billing"]),
        json!([["orders"]]),
        json!({"orders": true}),
        json!([]),
        json!(""),
        json!(null),
        json!("оrders"), // Cyrillic о
    ] {
        assert_eq!(aud(bad.clone()), Err(Fault::WrongAudience), "{bad}");
    }
    let mut none = claims(json!({}));
    none.remove("aud");
    assert_eq!(rules.check(&none, Now(0)), Err(Fault::WrongAudience));
}

#[test]
fn the_issuer_is_the_same_text() {
    let rules = rules();
    let iss = |iss: Value| at(&rules, json!({"iss": iss}), 1000).map(|_| ());
    assert_eq!(iss(json!("https://issuer.example")), Ok(()));
    for bad in [
        json!("https://issuer.example/"),
        json!("HTTPS://issuer.example"),
        json!("https://issuer.example.evil.example"),
        json!(["https://issuer.example"]),
        json!(null),
        json!(1),
    ] {
        assert_eq!(iss(bad.clone()), Err(Fault::WrongIssuer), "{bad}");
    }
}

fn identity(value: Value) -> Result<Identity, Fault> {
    let Value::Object(claims) = value else { panic!() };
    Reader::new(ClaimsConfig::default(), vec!["orders".to_owned()]).identity(claims)
}

fn texts(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(AsRef::as_ref).collect()
}

#[test]
fn a_token_of_keycloak() {
    let identity = identity(json!({
        "sub": "5f0c", "azp": "shop-frontend", "email": "a@acme.example", "tenant": "acme",
        "scope": "openid  profile orders:read", "preferred_username": "alice",
        "realm_access": {"roles": ["devops", "offline_access"]},
        "resource_access": {
            "orders": {"roles": ["editor", "devops"]},
            "account": {"roles": ["manage-account"]},
        },
    }))
    .unwrap();
    assert_eq!(&*identity.subject, "5f0c");
    assert_eq!(identity.consumer.as_deref(), Some("shop-frontend"));
    assert_eq!(identity.tenant.as_deref(), Some("acme"));
    assert_eq!(texts(&identity.scopes), ["openid", "profile", "orders:read"]);
    // Roles of another client are not ours.
    assert_eq!(texts(&identity.roles), ["devops", "offline_access", "editor"]);
    assert_eq!(identity.claims["preferred_username"], "alice");
}

#[test]
fn scopes_come_as_text_or_list() {
    let scopes = |value: Value| {
        let mut claims = value;
        claims["sub"] = json!("a");
        texts(&identity(claims).unwrap().scopes).join("|")
    };
    assert_eq!(scopes(json!({"scope": "a b"})), "a|b");
    assert_eq!(scopes(json!({"scp": ["a", "b", 3, null, ""]})), "a|b");
    assert_eq!(scopes(json!({"scope": "a", "scp": ["b", "a"]})), "a|b");
    assert_eq!(scopes(json!({"scope": 7})), "");
    assert_eq!(scopes(json!({"scope": {"a": true}})), "");
}

#[test]
fn somebody_must_be_meant() {
    assert_eq!(identity(json!({})).unwrap_err(), Fault::NoSubject);
    assert_eq!(identity(json!({"sub": ""})).unwrap_err(), Fault::NoSubject);
    assert_eq!(identity(json!({"sub": 7})).unwrap_err(), Fault::NoSubject);
    // Machines have no `sub` with some issuers.
    assert_eq!(&*identity(json!({"client_id": "batch"})).unwrap().subject, "batch");
}

#[test]
fn claims_are_found_by_name_before_path() {
    let config = json!({
        "tenant": ["https://acme.example/tenant", "org.name"], "roles": ["a.b.c"],
    });
    let config: ClaimsConfig = serde_json::from_value(config).unwrap();
    let read = |value: Value| {
        let Value::Object(claims) = value else { panic!() };
        Reader::new(config.clone(), Vec::new()).identity(claims).unwrap()
    };
    let url = read(json!({"sub": "a", "https://acme.example/tenant": "t", "org": {"name": "o"}}));
    assert_eq!(url.tenant.as_deref(), Some("t"));
    let path = read(json!({"sub": "a", "org": {"name": "o"}, "a": {"b": {"c": "r"}}}));
    assert_eq!(path.tenant.as_deref(), Some("o"));
    assert_eq!(texts(&path.roles), ["r"]);
    assert_eq!(read(json!({"sub": "a", "org": "o"})).tenant, None);
}
