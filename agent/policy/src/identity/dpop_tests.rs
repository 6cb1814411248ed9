use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use http::{HeaderMap, HeaderValue, Method, header::AUTHORIZATION, header::WWW_AUTHENTICATE};
use serde_json::json;

use super::*;
use crate::{
    context::tests::request,
    identity::{
        Identities,
        test_issuer::{ISSUER, Issuer, claims},
        tests,
    },
    outside::Outside,
};

/// RFC 9449 figure 12, and the thumbprint of its key from figure 8.
const RFC_PROOF: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6Ik\
    VDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCR\
    nMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JE\
    QSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIj\
    oiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0Z\
    WRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNF\
    c05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71E\
    OptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";
const RFC_TOKEN: &[u8] = b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU";
const RFC_THUMBPRINT: &str = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I";
const RFC_TIME: Now = Now(1_562_262_618_000);

#[test]
fn the_example_of_the_rfc_is_accepted_once_in_its_time() {
    let dpop = Dpop::build(&DpopConfig::default()).unwrap();
    let bound: [u8; 32] = URL_SAFE_NO_PAD.decode(RFC_THUMBPRINT).unwrap().try_into().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(HEADER, HeaderValue::from_static(RFC_PROOF));
    let context = RequestContext {
        scheme: "https",
        authority: "resource.example.org",
        path: "/protectedresource",
        ..request(&headers)
    };
    let check = |context: &RequestContext<'_>, token: &[u8], bound: &[u8; 32], now| {
        let presented = Presented { request: context, token, bound };
        let answer = dpop.check(&presented, &Proofs::default(), now);
        answer.map_err(|rejection| rejection.reason.into_owned())
    };
    assert_eq!(check(&context, RFC_TOKEN, &bound, RFC_TIME), Ok(()));
    let seconds = |more: i64| Now(RFC_TIME.0.saturating_add_signed(more * 1000));
    assert_eq!(check(&context, RFC_TOKEN, &bound, seconds(330)), Ok(()));
    assert_eq!(check(&context, RFC_TOKEN, &bound, seconds(-30)), Ok(()));
    let refused = |context: &RequestContext<'_>, token, bound: &[u8; 32], now, part: &str| {
        let reason = check(context, token, bound, now).unwrap_err();
        assert!(reason.contains(part), "{reason}");
    };
    refused(&context, RFC_TOKEN, &bound, seconds(331), "too old");
    refused(&context, RFC_TOKEN, &bound, seconds(-31), "future");
    refused(&context, b"other", &bound, RFC_TIME, "another access token");
    refused(&context, RFC_TOKEN, &[0; 32], RFC_TIME, "another key");
    let post = RequestContext { method: &Method::POST, ..context };
    refused(&post, RFC_TOKEN, &bound, RFC_TIME, "another method");
    let elsewhere = RequestContext { path: "/protectedresources", ..context };
    refused(&elsewhere, RFC_TOKEN, &bound, RFC_TIME, "another URI");
    let proofs = Proofs::default();
    let presented = Presented { request: &context, token: RFC_TOKEN, bound: &bound };
    let once = || dpop.check(&presented, &proofs, RFC_TIME).is_ok();
    assert_eq!([once(), once()], [true, false]);
    assert_eq!(proofs.replayed.load(Relaxed), 1);
}

#[test]
fn uris_are_compared_as_such() {
    let headers = HeaderMap::new();
    let is_same = |scheme, authority, path, htu: &str| {
        is_target(htu, &RequestContext { scheme, authority, path, ..request(&headers) })
    };
    for htu in [
        "https://api.example/a",
        "https://API.example:443/a",
        "https://api.example/%61",
        "https://api.example/a?x=1#y",
    ] {
        assert!(is_same("https", "api.example", "/a", htu), "{htu}");
        assert!(is_same("http", "api.example", "/a", htu), "TLS ended before us: {htu}");
    }
    assert!(is_same("http", "api.example:80", "/", "http://api.example"));
    assert!(is_same("http", "api.example", "/a%2Fb", "http://api.example/a%2fb"));
    for htu in [
        "http://api.example/a",
        "https://api.example:8443/a",
        "https://other.example/a",
        "https://api.example/A",
        "https://api.example/a/",
        "https://api.example",
        "/a",
        "api.example",
        "wss://api.example/a",
        "",
    ] {
        assert!(!is_same("https", "api.example", "/a", htu), "{htu}");
    }
}

#[test]
fn thumbprints_are_those_of_the_rfcs() {
    let of = |jwk: Value| {
        let Value::Object(jwk) = jwk else { panic!("a key is an object") };
        thumbprint(&jwk).map(|digest| URL_SAFE_NO_PAD.encode(digest))
    };
    // RFC 8037 appendix A.3.
    let edwards = json!({
        "kty": "OKP", "crv": "Ed25519", "kid": "left out",
        "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
    });
    assert_eq!(of(edwards).as_deref(), Some("kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"));
    for jwk in [json!({}), json!({"kty": "oct", "k": "AA"}), json!({"kty": "OKP", "crv": 1})] {
        assert_eq!(of(jwk), None);
    }
}

#[test]
fn what_is_remembered_is_bounded_and_ends() {
    let proofs = Proofs::default();
    let first = |id, now| proofs.is_first(id, Now(now + 10), 3, Now(now));
    assert!(first(1, 0) && first(2, 1) && first(3, 2));
    assert!(!first(1, 3) && !first(3, 3));
    assert!(first(4, 4), "the oldest goes");
    assert_eq!(proofs.forgotten.load(Relaxed), 1);
    assert!(!first(2, 5));
    assert!(first(2, 12), "it is over");
    assert_eq!(proofs.forgotten.load(Relaxed), 1);
}

struct Client(EcdsaKeyPair);

impl Client {
    fn new() -> Self {
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &SystemRandom::new()).unwrap();
        Self(EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref()).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.public_key().as_ref();
        let part = |from, to| URL_SAFE_NO_PAD.encode(&point[from..to]);
        json!({"kty": "EC", "crv": "P-256", "x": part(1, 33), "y": part(33, 65)})
    }

    fn thumbprint(&self) -> String {
        URL_SAFE_NO_PAD.encode(thumbprint(self.jwk().as_object().unwrap()).unwrap())
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn header(&self) -> Value {
        json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk()})
    }

    /// For `GET http://orders.example/`.
    fn claims(&self, token: &str) -> Value {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        json!({
            "jti": format!("proof {}", NUMBER.fetch_add(1, Relaxed)),
            "htm": "GET",
            "htu": "http://orders.example/",
            "iat": Now::read().seconds(),
            "ath": URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes())),
        })
    }

    fn proof(&self, token: &str) -> String {
        self.sign(&self.header(), &self.claims(token))
    }
}

fn build(issuer: &Issuer, more: Value) -> Identities {
    let jwt = json!({"issuer": ISSUER, "audience": "orders", "jwks": issuer.jwks()});
    let mut config = json!({"methods": [{"jwt": jwt}]});
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    Identities::build(&serde_json::from_value(config).unwrap(), &Outside::default()).unwrap()
}

fn ask(
    identities: &Identities,
    scheme: &str,
    token: &str,
    proofs: &[&str],
) -> (Result<(), &'static str>, Vec<String>) {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("{scheme} {token}")).unwrap());
    for proof in proofs {
        headers.append(HEADER, HeaderValue::from_str(proof).unwrap());
    }
    let (verdict, decision) = tests::check(identities, &request(&headers));
    let challenges = decision.response_headers.iter().filter(|(name, _)| name == WWW_AUTHENTICATE);
    let challenges = challenges.map(|(_, value)| value.to_str().unwrap().to_owned()).collect();
    (verdict.map_err(|denial| denial.code), challenges)
}

#[test]
fn a_token_bound_to_a_key_needs_a_proof_with_every_request() {
    let (issuer, client, thief) = (Issuer::new("1"), Client::new(), Client::new());
    let identities = build(&issuer, json!({"dpop": {}}));
    let bound = issuer.token(&claims(json!({"cnf": {"jkt": client.thumbprint()}})));
    let unbound = issuer.token(&claims(json!({})));
    let code =
        |scheme: &str, token: &str, proofs: &[&str]| ask(&identities, scheme, token, proofs).0;
    let proof = client.proof(&bound);
    assert_eq!(code("DPoP", &bound, &[&proof]), Ok(()));
    assert_eq!(code("DPoP", &bound, &[&proof]), Err("dpop_invalid"), "once");
    assert_eq!(code("dpop", &bound, &[&client.proof(&bound)]), Ok(()));
    assert_eq!(code("DPoP", &bound, &[]), Err("dpop_missing"));
    let two = [client.proof(&bound), client.proof(&bound)];
    assert_eq!(code("DPoP", &bound, &[&two[0], &two[1]]), Err("dpop_invalid"));
    assert_eq!(code("DPoP", &bound, &[&thief.proof(&bound)]), Err("token_bound"));
    assert_eq!(code("DPoP", &bound, &[&client.proof("another")]), Err("dpop_invalid"));
    // RFC 9449 section 7.2.
    assert_eq!(code("Bearer", &bound, &[&client.proof(&bound)]), Err("token_bound"));
    assert_eq!(code("Bearer", &unbound, &[]), Ok(()));
    assert_eq!(code("DPoP", &unbound, &[&client.proof(&unbound)]), Err("token_unbound"));
}

#[test]
fn a_proof_that_is_not_as_it_should_be_is_refused() {
    let (issuer, client) = (Issuer::new("1"), Client::new());
    let identities = build(&issuer, json!({"dpop": {}}));
    let token = issuer.token(&claims(json!({"cnf": {"jkt": client.thumbprint()}})));
    let code = |proof: &str| ask(&identities, "DPoP", &token, &[proof]).0;
    type Edit<'a> = &'a dyn Fn(&mut Value, &mut Value);
    let with = |edit: Edit<'_>| {
        let (mut header, mut claims) = (client.header(), client.claims(&token));
        edit(&mut header, &mut claims);
        client.sign(&header, &claims)
    };
    assert_eq!(code(&with(&|_, _| ())), Ok(()));
    let edits: [Edit<'_>; 16] = [
        &|h, _| h["typ"] = json!("JWT"),
        &|h, _| h["alg"] = json!("none"),
        &|h, _| h["alg"] = json!("HS256"),
        &|h, _| h["alg"] = json!("RS256"),
        &|h, _| h["jwk"]["d"] = json!("AA"),
        &|h, _| h["crit"] = json!(["x"]),
        &|h, _| drop(h.as_object_mut().unwrap().remove("jwk")),
        &|_, c| c["htm"] = json!("get"),
        &|_, c| c["htu"] = json!("http://orders.example/x"),
        &|_, c| c["iat"] = json!("now"),
        &|_, c| c["iat"] = json!(-1),
        &|_, c| c["iat"] = json!(1),
        &|_, c| c["jti"] = json!(""),
        &|_, c| drop(c.as_object_mut().unwrap().remove("jti")),
        &|_, c| drop(c.as_object_mut().unwrap().remove("ath")),
        &|_, c| drop(c.as_object_mut().unwrap().remove("iat")),
    ];
    for (i, edit) in edits.into_iter().enumerate() {
        assert_eq!(code(&with(edit)), Err("dpop_invalid"), "{i}");
    }
    let good = client.proof(&token);
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let mut bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
    bytes[7] ^= 1;
    let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(&bytes));
    let zeros = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([0; 64]));
    let long = "x".repeat(LONGEST_PROOF + 1);
    for proof in [&forged, &zeros, &format!("{good}.x"), "x", "..", "", &long, &good[1..]] {
        assert_eq!(code(proof), Err("dpop_invalid"), "{proof}");
    }
    assert_eq!(code(&good), Ok(()), "what failed did not use it up");
}

#[test]
fn challenges_are_those_of_rfc_9449() {
    let (issuer, client) = (Issuer::new("1"), Client::new());
    let bound = issuer.token(&claims(json!({"cnf": {"jkt": client.thumbprint()}})));
    let unbound = issuer.token(&claims(json!({})));
    let either = build(&issuer, json!({"dpop": {}}));
    let (_, challenges) = ask(&either, "Basic", "eDp5", &[]);
    assert_eq!(challenges.len(), 2);
    assert!(challenges[0].starts_with("Bearer realm="), "{challenges:?}");
    assert!(challenges[1].starts_with("DPoP realm="), "{challenges:?}");
    assert!(challenges[1].ends_with("PS512 ES256 ES384 ES512 EdDSA\""), "{challenges:?}");
    let (_, challenges) = ask(&either, "DPoP", &bound, &["x"]);
    let [challenge] = &challenges[..] else { panic!("{challenges:?}") };
    assert!(challenge.starts_with("DPoP realm="), "{challenge}");
    assert!(challenge.contains("error=\"invalid_dpop_proof\""), "{challenge}");
    let (_, challenges) = ask(&either, "Bearer", &bound, &[]);
    assert!(challenges[0].starts_with("DPoP realm=") && challenges[0].contains("invalid_token"));
    for more in
        [json!({"dpop": {"required": true}}), json!({"sender_constraint": {"dpop_required": true}})]
    {
        let required = build(&issuer, more);
        let (verdict, challenges) = ask(&required, "Bearer", &unbound, &[]);
        assert_eq!(verdict, Err("token_unbound"));
        assert!(challenges[0].starts_with("DPoP realm="), "{challenges:?}");
        let (_, challenges) = ask(&required, "Basic", "eDp5", &[]);
        assert_eq!(challenges.len(), 1);
        assert_eq!(ask(&required, "DPoP", &bound, &[&client.proof(&bound)]).0, Ok(()));
    }
}

#[test]
fn without_proofs_checked_a_bound_token_is_worth_nothing() {
    let (issuer, client) = (Issuer::new("1"), Client::new());
    let bound = issuer.token(&claims(json!({"cnf": {"jkt": client.thumbprint()}})));
    let identities = build(&issuer, json!({}));
    assert_eq!(ask(&identities, "Bearer", &bound, &[]).0, Err("token_bound"));
    assert_eq!(
        ask(&identities, "DPoP", &bound, &[&client.proof(&bound)]).0,
        Err("credentials_missing")
    );
    let constrained = build(&issuer, json!({"sender_constraint": {"mtls_required": true}}));
    let unbound = issuer.token(&claims(json!({})));
    assert_eq!(ask(&constrained, "Bearer", &unbound, &[]).0, Err("token_unbound"));
}
