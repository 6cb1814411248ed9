use std::{
    pin::pin,
    task::{Context, Poll, Waker},
};

use aws_lc_rs::hmac;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    context::tests::request,
    identity::test_issuer::{ISSUER, Issuer, claims},
    outside::Outside,
};

fn build(config: Value) -> Jwt {
    Jwt::build(&serde_json::from_value(config).unwrap(), &Outside::default()).unwrap()
}

fn method(jwks: &Value) -> Jwt {
    build(json!({"issuer": ISSUER, "audience": "orders", "jwks": jwks}))
}

type Answer = Result<Arc<crate::decision::Identity>, &'static str>;

fn ask_with(jwt: &Jwt, context: &RequestContext<'_>) -> Answer {
    let mut decision = Decision::default();
    let forward = Forward::default();
    let future = pin!(jwt.identify(context, &forward, &mut decision));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(Some(known))) => Ok(Arc::clone(&known.identity)),
        Poll::Ready(Ok(None)) => Err("absent"),
        Poll::Ready(Err(rejection)) => Err(rejection.code),
        Poll::Pending => panic!("nothing to wait for"),
    }
}

fn ask(jwt: &Jwt, token: &str) -> Answer {
    let mut headers = HeaderMap::new();
    let value = [b"Bearer ", token.as_bytes()].concat();
    match HeaderValue::from_bytes(&value) {
        Ok(value) => headers.insert(AUTHORIZATION, value),
        Err(_) => return Err("no header"),
    };
    ask_with(jwt, &request(&headers))
}

/// Keys and tokens by PyJWT; `make_tokens.py` tells how.
fn recorded() -> Value {
    serde_json::from_str(include_str!("../../../tests/data/tokens.json")).unwrap()
}

#[test]
fn tokens_of_another_implementation_verify_in_every_algorithm() {
    let recorded = recorded();
    let public = method(&recorded["jwks"]);
    let secret = build(json!({
        "audience": "orders", "secret": recorded["secret"], "algorithms": ["HS256", "HS384", "HS512"],
    }));
    let tokens = recorded["tokens"].as_object().unwrap();
    assert_eq!(tokens.len(), 13);
    for (algorithm, token) in tokens {
        let token = token.as_str().unwrap();
        let (ours, others) =
            if algorithm.starts_with("HS") { (&secret, &public) } else { (&public, &secret) };
        let identity = ask(ours, token).unwrap_or_else(|e| panic!("{algorithm}: {e}"));
        assert_eq!(&*identity.subject, "jürgen");
        assert_eq!(identity.scopes.len(), 2);
        // A public key takes no HMAC, and a secret no signature.
        assert_eq!(ask(others, token), Err("token_algorithm"), "{algorithm}");
    }
}

#[test]
fn a_changed_token_verifies_in_no_algorithm() {
    let recorded = recorded();
    let public = method(&recorded["jwks"]);
    for (algorithm, token) in recorded["tokens"].as_object().unwrap() {
        if algorithm.starts_with("HS") {
            continue;
        }
        let token = token.as_str().unwrap();
        let [header, claims, signature]: [&str; 3] =
            token.split('.').collect::<Vec<_>>().try_into().unwrap();
        let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            bytes[at] ^= 1;
            let forged = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(&bytes));
            assert_eq!(ask(&public, &forged), Err("token_signature_invalid"), "{algorithm}");
            bytes[at] ^= 1;
        }
        for cut in [&bytes[..bytes.len() - 1], &[]] {
            let forged = format!("{header}.{claims}.{}", URL_SAFE_NO_PAD.encode(cut));
            assert_eq!(ask(&public, &forged), Err("token_signature_invalid"), "{algorithm}");
        }
        // r = s = 0, which broken ECDSA takes for anything (CVE-2022-21449).
        let zeros = URL_SAFE_NO_PAD.encode(vec![0; bytes.len()]);
        let forged = format!("{header}.{claims}.{zeros}");
        assert_eq!(ask(&public, &forged), Err("token_signature_invalid"), "{algorithm}");
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        let other = URL_SAFE_NO_PAD.encode(text.replace("orders:write", "orders:admin"));
        let forged = format!("{header}.{other}.{signature}");
        assert_eq!(ask(&public, &forged), Err("token_signature_invalid"), "{algorithm}");
    }
}

#[test]
fn no_algorithm_is_no_algorithm() {
    let recorded = recorded();
    let public = method(&recorded["jwks"]);
    let payload = URL_SAFE_NO_PAD.encode(claims(json!({})).to_string());
    for alg in ["none", "None", "NONE", "nOnE", "", "null", "RS256 ", "rs256", "HS256,RS256"] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "rsa"}).to_string());
        for signature in ["", "AA"] {
            let token = format!("{header}.{payload}.{signature}");
            assert_eq!(ask(&public, &token), Err("token_algorithm"), "{alg}");
        }
    }
    for header in [r#"{"kid":"rsa"}"#, r#"{"alg":null}"#, r#"{"alg":["RS256"]}"#, "[]", "", "{"] {
        let token = format!("{}.{payload}.AA", URL_SAFE_NO_PAD.encode(header));
        assert_eq!(ask(&public, &token), Err("token_malformed"), "{header}");
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let recorded = recorded();
    let public = method(&recorded["jwks"]);
    let payload = URL_SAFE_NO_PAD.encode(claims(json!({})).to_string());
    let key = &recorded["jwks"]["keys"][0];
    let pem = recorded["pem"]["rsa"].as_str().unwrap();
    let der =
        STANDARD.decode(pem.lines().filter(|l| !l.starts_with('-')).collect::<String>()).unwrap();
    let modulus = URL_SAFE_NO_PAD.decode(key["n"].as_str().unwrap()).unwrap();
    let guesses: [&[u8]; 6] = [
        pem.as_bytes(),
        pem.trim().as_bytes(),
        &der,
        &modulus,
        key["n"].as_str().unwrap().as_bytes(),
        b"",
    ];
    for guess in guesses {
        for alg in ["HS256", "HS384", "HS512"] {
            let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": "rsa"}).to_string());
            let signed = format!("{header}.{payload}");
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, guess), signed.as_bytes());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag));
            assert_eq!(ask(&public, &token), Err("token_algorithm"));
        }
    }
    // Nor does a secret in a public document become one.
    let oct = json!({"keys": [{"kty": "oct", "k": "AAAA", "kid": "rsa"}]});
    let config = json!({"issuer": ISSUER, "audience": "a", "jwks": oct});
    let refusal = Jwt::build(&serde_json::from_value(config).unwrap(), &Outside::default());
    assert_eq!(refusal.unwrap_err().key, "jwks");
}

#[test]
fn the_algorithm_is_what_the_key_is_for() {
    let recorded = recorded();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut jwks = json!({"keys": [recorded["jwks"]["keys"][0], Issuer::new("other").jwk()]});
        edit(&mut jwks["keys"][0]);
        method(&jwks)
    };
    let token = |algorithm: &str| recorded["tokens"][algorithm].as_str().unwrap();
    let stated = with(&|key| key["alg"] = json!("RS256"));
    assert!(ask(&stated, token("RS256")).is_ok());
    assert_eq!(ask(&stated, token("RS512")), Err("token_key_unknown"));
    assert_eq!(ask(&stated, token("PS256")), Err("token_key_unknown"));
    for edit in [
        &|key: &mut Value| key["use"] = json!("enc"),
        &|key: &mut Value| key["key_ops"] = json!(["encrypt"]),
        &|key: &mut Value| key["alg"] = json!("RSA-OAEP"),
        &|key: &mut Value| key["kty"] = json!("EC"),
        &|key: &mut Value| key["n"] = json!("AQAB"),
        &|key: &mut Value| key["n"] = json!(1),
    ] as [&dyn Fn(&mut Value); 6]
    {
        assert_eq!(ask(&with(edit), token("RS256")), Err("token_key_unknown"));
    }
    // The header's word alone changes nothing: the same signature under another name.
    let [_, payload, signature]: [&str; 3] =
        token("RS256").split('.').collect::<Vec<_>>().try_into().unwrap();
    let public = method(&recorded["jwks"]);
    for (alg, kid, code) in [
        ("PS256", "rsa", "token_signature_invalid"),
        ("RS384", "rsa", "token_signature_invalid"),
        ("ES256", "rsa", "token_key_unknown"),
        ("EdDSA", "p256", "token_key_unknown"),
    ] {
        let header = URL_SAFE_NO_PAD.encode(json!({"alg": alg, "kid": kid}).to_string());
        assert_eq!(ask(&public, &format!("{header}.{payload}.{signature}")), Err(code));
    }
    let only = build(json!({
        "issuer": ISSUER, "audience": "orders", "jwks": recorded["jwks"], "algorithms": ["ES256"],
    }));
    assert!(ask(&only, token("ES256")).is_ok());
    assert_eq!(ask(&only, token("RS256")), Err("token_algorithm"));
}

#[test]
fn a_token_does_not_bring_its_own_key() {
    let (ours, theirs) = (Issuer::new("k"), Issuer::new("k"));
    let jwt = method(&ours.jwks());
    for extra in [
        json!({"jwk": theirs.jwk()}),
        json!({"jku": "https://evil.example/jwks"}),
        json!({"x5u": "https://evil.example/cert", "x5c": ["AAAA"]}),
    ] {
        let mut header = theirs.header();
        for (name, value) in extra.as_object().unwrap() {
            header[name] = value.clone();
        }
        let token = theirs.sign(&header.to_string(), &claims(json!({})).to_string());
        assert_eq!(ask(&jwt, &token), Err("token_signature_invalid"));
        // On a good token they are ignored.
        let token = ours.sign(&header.to_string(), &claims(json!({})).to_string());
        assert!(ask(&jwt, &token).is_ok());
    }
}

#[test]
fn key_ids_select_and_nothing_else() {
    let (first, second) = (Issuer::new("1"), Issuer::new("2"));
    let jwt = method(&json!({"keys": [first.jwk(), second.jwk()]}));
    let ask_as = |issuer: &Issuer, kid: Value| {
        let mut header = issuer.header();
        header["kid"] = kid;
        if header["kid"].is_null() {
            header.as_object_mut().unwrap().remove("kid");
        }
        ask(&jwt, &issuer.sign(&header.to_string(), &claims(json!({})).to_string()))
    };
    assert!(ask_as(&first, json!("1")).is_ok());
    assert!(ask_as(&second, json!("2")).is_ok());
    assert_eq!(ask_as(&first, json!("2")), Err("token_signature_invalid"));
    assert!(ask_as(&second, json!(null)).is_ok(), "without an id, all are tried");
    for kid in ["", "3", "1\u{0}", "../../dev/null", "1' OR '1'='1", "１", &"1".repeat(8000)] {
        assert_eq!(ask_as(&first, json!(kid)), Err("token_key_unknown"), "{kid:.20}");
    }
    for kid in [json!(1), json!(["1"]), json!({"1": "1"})] {
        assert_eq!(ask_as(&first, kid), Err("token_malformed"));
    }
}

#[test]
fn headers_that_say_too_much_are_refused() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let payload = claims(json!({})).to_string();
    let code = |header: &str| ask(&jwt, &issuer.sign(header, &payload)).map(|_| ());
    assert_eq!(
        code(r#"{"alg":"EdDSA","kid":"1","crit":["exp"],"exp":1}"#),
        Err("token_extension_unknown")
    );
    assert_eq!(code(r#"{"alg":"EdDSA","kid":"1","crit":[]}"#), Err("token_extension_unknown"));
    assert_eq!(code(r#"{"alg":"EdDSA","alg":"none","kid":"1"}"#), Err("token_malformed"));
    assert_eq!(code(r#"{"alg":"EdDSA","kid":"1","typ":"at+jwt","cty":"x"}"#), Ok(()));
}

#[test]
fn tokens_that_are_no_tokens_are_malformed() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let good = issuer.token(&claims(json!({})));
    assert!(ask(&jwt, &good).is_ok());
    let [header, payload, signature]: [&str; 3] =
        good.split('.').collect::<Vec<_>>().try_into().unwrap();
    for token in [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b".into(),
        format!("{good}."),
        format!("{good}.{signature}"),
        format!(".{payload}.{signature}"),
        format!("{header}..{signature}"),
        format!("{header}.{payload}=.{signature}"),
        format!("{header}.{payload}.{signature}=="),
        format!("{header} .{payload}.{signature}"),
        format!("{header}.{payload}.{signature}é"),
        issuer.sign(&issuer.header().to_string(), "[]"),
        issuer.sign(&issuer.header().to_string(), "\"a\""),
        issuer.sign(&issuer.header().to_string(), &"[".repeat(2000)),
        issuer.sign(
            &issuer.header().to_string(),
            &format!("{{\"a\":{}1{}}}", "[".repeat(500), "]".repeat(500)),
        ),
    ] {
        assert_eq!(ask(&jwt, &token), Err("token_malformed"), "{token:.60}");
    }
    // Base64 has several spellings of one signature; only the canonical one is a token.
    let last = signature.chars().last().unwrap();
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let at = alphabet.find(last).unwrap();
    let other = alphabet.chars().nth(at | 1).filter(|c| *c != last).unwrap();
    let token = format!("{}{other}", &good[..good.len() - 1]);
    assert_eq!(ask(&jwt, &token), Err("token_malformed"));
}

#[test]
fn long_tokens_are_refused_before_they_are_read() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let long = issuer.token(&claims(json!({"pad": "x".repeat(16 << 10)})));
    assert_eq!(ask(&jwt, &long), Err("token_too_long"));
    let fits = issuer.token(&claims(json!({"pad": "x".repeat(8 << 10)})));
    assert!(ask(&jwt, &fits).is_ok());
}

#[test]
fn the_bearer_header_is_read_as_rfc_6750_writes_it() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let token = issuer.token(&claims(json!({})));
    let code = |values: &[String]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        ask_with(&jwt, &request(&headers)).map(|_| ())
    };
    for start in ["Bearer ", "bearer ", "BEARER ", "Bearer   ", "Bearer \t", " Bearer "] {
        assert_eq!(code(&[format!("{start}{token}")]), Ok(()), "{start:?}");
    }
    for other in
        [format!("Bearer{token}"), format!("Bearer:{token}"), token.clone(), "Basic eDp5".into()]
    {
        assert_eq!(code(&[other]), Err("absent"));
    }
    assert_eq!(code(&["Bearer".into()]), Err("token_malformed"));
    assert_eq!(code(&["Bearer ".into()]), Err("token_malformed"));
    assert_eq!(code(&[format!("Bearer {token}, Bearer {token}")]), Err("token_malformed"));
    let good = format!("Bearer {token}");
    assert_eq!(code(&[good.clone(), good.clone()]), Err("credentials_ambiguous"));
    assert_eq!(code(&[good.clone(), "Basic eDp5".into()]), Err("credentials_ambiguous"));
    assert_eq!(code(&["Basic eDp5".into(), good]), Err("credentials_ambiguous"));
}

#[test]
fn a_verified_token_is_remembered_until_it_ends_or_its_key_goes() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let token = issuer.token(&claims(json!({})));
    let identity = ask(&jwt, &token).unwrap();
    let again = ask(&jwt, &token).unwrap();
    assert!(Arc::ptr_eq(&identity, &again), "the same identity, not one like it");

    let hash = jwt.memory.hash(token.as_bytes());
    let now = Now::read();
    let until = jwt.memory.find(hash, now).unwrap().as_ref().unwrap().until;
    assert!(jwt.memory.find(hash, until).is_none());
    assert!(jwt.memory.find(hash, Now(until.0 - 1)).is_some());
    assert!(jwt.memory.find(jwt.memory.hash(b"x"), now).is_none());

    let Keys::Fixed(set) = &jwt.keys else { panic!("fixed keys") };
    let next = KeySet::parse(Issuer::new("2").jwks().to_string().as_bytes()).unwrap();
    next.succeed(set);
    assert!(jwt.memory.find(hash, now).is_none(), "its key is gone");
}

#[test]
fn what_is_not_verified_is_not_remembered() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let token = issuer.token(&claims(json!({"exp": 1})));
    assert_eq!(ask(&jwt, &token), Err("token_expired"));
    assert!(jwt.memory.find(jwt.memory.hash(token.as_bytes()), Now(0)).is_none());
}

#[test]
fn the_memory_is_bounded_and_full_still_right() {
    let issuer = Issuer::new("1");
    let jwt = build(json!({
        "issuer": ISSUER, "audience": "orders", "jwks": issuer.jwks(), "remember": 8,
    }));
    let tokens: Vec<_> =
        (0..40).map(|n| issuer.token(&claims(json!({"sub": format!("user-{n}")})))).collect();
    for _ in 0..2 {
        for (n, token) in tokens.iter().enumerate() {
            assert_eq!(&*ask(&jwt, token).unwrap().subject, format!("user-{n}"));
        }
    }
    let is_kept =
        |t: &&String| jwt.memory.find(jwt.memory.hash(t.as_bytes()), Now::read()).is_some();
    let kept = tokens.iter().filter(is_kept).count();
    assert!((1..=8).contains(&kept), "{kept}");
}

#[test]
fn a_binding_that_cannot_be_read_is_not_waived() {
    let issuer = Issuer::new("1");
    let jwt = method(&issuer.jwks());
    let thumbprint = URL_SAFE_NO_PAD.encode([7; 32]);
    let other = json!({"jwe": "x", "x5t#S256": thumbprint});
    for cnf in [json!({"kid": "x"}), other, json!({})] {
        let token = issuer.token(&claims(json!({"cnf": cnf})));
        assert_eq!(ask(&jwt, &token), Err("token_bound"));
    }
    for cnf in [json!(null), json!("x"), json!({"x5t#S256": "x"}), json!({"jkt": 7})] {
        let token = issuer.token(&claims(json!({"cnf": cnf})));
        assert_eq!(ask(&jwt, &token), Err("token_malformed"), "{cnf}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let issuer = Issuer::new("1");
        let jwt = method(&issuer.jwks());
        let text = bytes.iter().map(|b| char::from(b % 95 + 32)).collect::<String>();
        prop_assert!(ask(&jwt, &text).is_err());
    }

    #[test]
    fn no_other_bytes_are_the_token(at in any::<prop::sample::Index>(), with in any::<u8>(), cut in any::<bool>()) {
        let issuer = Issuer::new("1");
        let jwt = method(&issuer.jwks());
        let token = issuer.token(&claims(json!({})));
        // Remembered, too.
        prop_assert!(ask(&jwt, &token).is_ok());
        let mut changed = token.clone().into_bytes();
        let at = at.index(changed.len());
        if cut { changed.truncate(at) } else { changed[at] = with % 95 + 32 }
        let changed = String::from_utf8(changed).unwrap();
        prop_assume!(changed != token && changed.trim() != token);
        prop_assert!(ask(&jwt, &changed).is_err());
    }
}
