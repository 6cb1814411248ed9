//! An issuer for tests: Ed25519 keys that are made as needed, and tokens with any header and claims.

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::clock::Now;

pub(crate) const ISSUER: &str = "https://issuer.example";

pub(crate) struct Issuer {
    id: String,
    key: Ed25519KeyPair,
}

impl Issuer {
    pub(crate) fn new(id: &str) -> Self {
        let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self { id: id.to_owned(), key: Ed25519KeyPair::from_pkcs8(document.as_ref()).unwrap() }
    }

    pub(crate) fn jwk(&self) -> Value {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.id, "use": "sig", "x": x})
    }

    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [self.jwk()]})
    }

    pub(crate) fn header(&self) -> Value {
        json!({"alg": "EdDSA", "typ": "JWT", "kid": self.id})
    }

    pub(crate) fn token(&self, claims: &Value) -> String {
        self.sign(&self.header().to_string(), &claims.to_string())
    }

    /// Whatever header and claims are, well-formed or not.
    pub(crate) fn sign(&self, header: &str, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// Valid for an hour, with the members of `more` added or in place of others.
pub(crate) fn claims(more: Value) -> Value {
    let now = Now::read().seconds();
    let mut claims = json!({
        "iss": ISSUER, "aud": "orders", "sub": "alice", "iat": now, "exp": now + 3600,
    });
    let (Value::Object(claims_map), Value::Object(more)) = (&mut claims, more) else {
        panic!("claims are objects");
    };
    for (name, value) in more {
        if value == json!("(none)") {
            claims_map.remove(&name);
        } else {
            claims_map.insert(name, value);
        }
    }
    claims
}
