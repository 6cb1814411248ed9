//! `io.jwt.decode`, `io.jwt.decode_verify` and `io.jwt.verify_*`, which regorus lacks, with the
//! results of OPA 1.22. Where OPA's builtin fails, the call is undefined.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use regorus::Value;

use super::keys::{Algorithm, Key, read_keys};
use crate::identity::encode_hex;

/// Key sets kept parsed; a policy verifies with few.
const MOST_KEY_SETS: usize = 100;
/// A token within a token within a token: nobody's, beyond this.
const DEEPEST_NESTING: usize = 4;

/// Name, number of arguments.
pub(super) const BUILTINS: [(&str, u8); 15] = [
    ("io.jwt.decode", 1),
    ("io.jwt.decode_verify", 2),
    ("io.jwt.verify_rs256", 2),
    ("io.jwt.verify_rs384", 2),
    ("io.jwt.verify_rs512", 2),
    ("io.jwt.verify_ps256", 2),
    ("io.jwt.verify_ps384", 2),
    ("io.jwt.verify_ps512", 2),
    ("io.jwt.verify_es256", 2),
    ("io.jwt.verify_es384", 2),
    ("io.jwt.verify_es512", 2),
    ("io.jwt.verify_hs256", 2),
    ("io.jwt.verify_hs384", 2),
    ("io.jwt.verify_hs512", 2),
    ("io.jwt.verify_eddsa", 2),
];

/// `None`: undefined.
pub(super) fn call(name: &str, arguments: &[Value], known: &mut KnownKeys) -> Option<Value> {
    match (name.strip_prefix("io.jwt.")?, arguments) {
        ("decode", [token]) => decode(text_of(token)?, 0),
        ("decode_verify", [token, constraints]) => decode_verify(token, constraints, known),
        (verify_name, [token, key]) => {
            let algorithm = match verify_name.strip_prefix("verify_")? {
                "eddsa" => Algorithm::EdDsa,
                other => Algorithm::named(&other.to_ascii_uppercase())?,
            };
            verify(text_of(token)?, text_of(key)?, algorithm, known).map(Value::from)
        }
        _ => None,
    }
}

/// Each engine has its own: none is locked.
#[derive(Clone, Default)]
pub(super) struct KnownKeys(HashMap<Arc<str>, Arc<Vec<Key>>>);

impl KnownKeys {
    fn read(&mut self, text: &str) -> Option<Arc<Vec<Key>>> {
        if let Some(keys) = self.0.get(text) {
            return Some(keys.clone());
        }
        let keys = Arc::new(read_keys(text)?);
        if self.0.len() >= MOST_KEY_SETS {
            self.0.clear();
        }
        self.0.insert(text.into(), keys.clone());
        Some(keys)
    }
}

struct Token<'a> {
    /// Header and payload with the dot between them: what is signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    header: Value,
}

impl<'a> Token<'a> {
    fn split(text: &'a str) -> Option<(&'a str, &'a str, &'a str, &'a str)> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        (!payload.contains('.')).then_some((signed, header, payload, signature))
    }

    fn read(text: &'a str) -> Option<Self> {
        let (signed, header, payload, signature) = Self::split(text)?;
        let header = read_object(&decode_base64(header)?)?;
        // Encrypted: RFC 7516, 9.
        (field(&header, "enc").is_none()).then_some(Self { signed, payload, signature, header })
    }
}

fn decode(text: &str, depth: usize) -> Option<Value> {
    let token = Token::read(text)?;
    let payload = decode_base64(token.payload)?;
    if let Some(content) = field(&token.header, "cty")
        && text_of(&content)? == "JWT"
    {
        let inner = String::from_utf8(payload).ok()?;
        let inner = inner.trim_matches(['"', '\'']);
        return if depth < DEEPEST_NESTING { decode(inner, depth + 1) } else { None };
    }
    let payload = read_object(&payload)?;
    let signature = encode_hex(&decode_base64(token.signature)?);
    Some(Value::from(vec![token.header, payload, Value::from(signature)]))
}

fn verify(token: &str, key: &str, algorithm: Algorithm, known: &mut KnownKeys) -> Option<bool> {
    if let Algorithm::Hs(_) = algorithm {
        // A shared secret: the header has no say.
        let (signed, _, _, signature) = Token::split(token)?;
        let signature = decode_base64(signature)?;
        return Some(Key::secret(key.as_bytes()).verifies(
            algorithm,
            signed.as_bytes(),
            &signature,
        ));
    }
    // Decoding the payload is no part of verifying it.
    let keys = known.read(key)?;
    let token = Token::read(token)?;
    let signature = decode_base64(token.signature)?;
    let header = Header::read(&token.header)?;
    Some(is_signed_by(&keys, &header, |key| {
        key.verifies(algorithm, token.signed.as_bytes(), &signature)
    }))
}

/// By the key that the token names, or else by any whose algorithm is the token's or not said.
fn is_signed_by(keys: &[Key], header: &Header, is_verified: impl Fn(&Key) -> bool) -> bool {
    if !header.kid.is_empty()
        && let Some(key) = keys.iter().find(|key| key.id == header.kid)
    {
        return is_verified(key);
    }
    let may_sign = |key: &&Key| key.algorithm.is_empty() || key.algorithm == header.alg;
    keys.iter().filter(may_sign).any(is_verified)
}

#[derive(Default)]
struct Header {
    alg: String,
    kid: String,
    cty: String,
    /// A parameter is critical that nobody here understands: RFC 7515, 4.1.11.
    is_unknown_critical: bool,
}

impl Header {
    fn read(header: &Value) -> Option<Self> {
        let text = |name: &str| match field(header, name) {
            None => Some(String::new()),
            Some(value) => Some(text_of(&value)?.to_owned()),
        };
        text("typ")?;
        let mut is_unknown_critical = false;
        if let Some(critical) = field(header, "crit") {
            let names: Vec<_> = critical.as_array().ok()?.iter().filter_map(text_of).collect();
            if names.is_empty() {
                return None;
            }
            is_unknown_critical = names.iter().any(|name| {
                !["alg", "kid", "typ", "cty", "crit"].contains(name)
                    && field(header, name).is_some()
            });
        }
        Some(Self { alg: text("alg")?, kid: text("kid")?, cty: text("cty")?, is_unknown_critical })
    }
}

struct Constraints {
    keys: Keys,
    alg: String,
    iss: String,
    aud: String,
    /// Nanoseconds since 1970.
    time: f64,
}

enum Keys {
    Public(Arc<Vec<Key>>),
    Secret(Key),
}

impl Constraints {
    fn read(constraints: &Value, known: &mut KnownKeys) -> Option<Self> {
        let (mut public, mut secret, mut time) = (None, None, None);
        let (mut alg, mut iss, mut aud) = (String::new(), String::new(), String::new());
        for (name, value) in constraints.as_object().ok()?.iter() {
            match text_of(name)? {
                "cert" => public = Some(known.read(text_of(value)?)?),
                "secret" => secret = Some(text_of(value)?).filter(|secret| !secret.is_empty()),
                "alg" => text_of(value)?.clone_into(&mut alg),
                "iss" => text_of(value)?.clone_into(&mut iss),
                "aud" => text_of(value)?.clone_into(&mut aud),
                "time" => time = Some(float_of(value).filter(|time| *time >= 0.0)?),
                _ => return None,
            }
        }
        let keys = match (public, secret) {
            (Some(keys), None) => Keys::Public(keys),
            (None, Some(secret)) => Keys::Secret(Key::secret(secret.as_bytes())),
            _ => return None,
        };
        let now =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
        // A double is as exact as OPA is here.
        Some(Self { keys, alg, iss, aud, time: time.unwrap_or_else(|| now() as f64) })
    }

    fn is_signed(&self, token: &Token<'_>, header: &Header, signature: &[u8]) -> bool {
        let Some(algorithm) = Algorithm::named(&header.alg) else { return false };
        let is_verified = |key: &Key| key.verifies(algorithm, token.signed.as_bytes(), signature);
        match &self.keys {
            Keys::Public(keys) => is_signed_by(keys, header, is_verified),
            Keys::Secret(secret) => is_verified(secret),
        }
    }

    /// `None` where a claim is of a type that it must not be.
    fn are_met_by(&self, payload: &Value) -> Option<bool> {
        if !self.iss.is_empty() {
            match field(payload, "iss") {
                Some(issuer) if text_of(&issuer)? == self.iss => {}
                _ => return Some(false),
            }
        }
        let is_audience = match field(payload, "aud") {
            None => self.aud.is_empty(),
            Some(audience) => match audience.as_array() {
                Ok(several) => several.iter().any(|one| text_of(one) == Some(self.aud.as_str())),
                Err(_) => text_of(&audience) == Some(self.aud.as_str()),
            },
        };
        if !is_audience {
            return Some(false);
        }
        let now = self.time / 1e9;
        if let Some(expiry) = field(payload, "exp")
            && now >= float_of(&expiry)?
        {
            return Some(false);
        }
        if let Some(start) = field(payload, "nbf")
            && now < float_of(&start)?
        {
            return Some(false);
        }
        Some(true)
    }
}

fn decode_verify(token: &Value, constraints: &Value, known: &mut KnownKeys) -> Option<Value> {
    let unverified =
        || Some(Value::from(vec![Value::from(false), Value::new_object(), Value::new_object()]));
    let constraints = Constraints::read(constraints, known)?;
    let mut text = text_of(token)?.to_owned();
    for _ in 0..=DEEPEST_NESTING {
        let token = Token::read(&text)?;
        let header = Header::read(&token.header)?;
        if header.alg.is_empty() || header.is_unknown_critical {
            return unverified();
        }
        if !constraints.alg.is_empty() && constraints.alg != header.alg {
            return unverified();
        }
        let signature = decode_base64(token.signature)?;
        if !constraints.is_signed(&token, &header, &signature) {
            return unverified();
        }
        let payload = decode_base64(token.payload)?;
        if header.cty.eq_ignore_ascii_case("JWT") {
            text = String::from_utf8(payload).ok()?;
            continue;
        }
        let payload = read_object(&payload)?;
        if !constraints.are_met_by(&payload)? {
            return unverified();
        }
        return Some(Value::from(vec![Value::from(true), token.header, payload]));
    }
    None
}

/// As Go's `base64.URLEncoding` reads it, with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurpose = GeneralPurpose::new(
        &alphabet::URL_SAFE,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    LENIENT.decode(text).ok()
}

fn read_object(json: &[u8]) -> Option<Value> {
    let value = Value::from_json_str(&String::from_utf8_lossy(json)).ok()?;
    value.as_object().is_ok().then_some(value)
}

/// regorus gives a double only where it is exact; nanoseconds since 1970 are not.
fn float_of(number: &Value) -> Option<f64> {
    let Value::Number(_) = number else { return None };
    number.as_f64().ok().or_else(|| number.to_string().parse().ok())
}

fn text_of(value: &Value) -> Option<&str> {
    value.as_string().ok().map(|text| &**text)
}

fn field(object: &Value, name: &str) -> Option<Value> {
    object.as_object().ok()?.get(&Value::from(name)).cloned()
}

/// Only for the compiler to see that every algorithm has a name.
#[cfg(test)]
mod tests {
    use super::{super::keys::Hash, *};

    #[test]
    fn every_builtin_has_its_algorithm() {
        for (name, _) in BUILTINS.iter().skip(2) {
            let name = name.trim_start_matches("io.jwt.verify_");
            let algorithm =
                if name == "eddsa" { "EdDSA".to_owned() } else { name.to_ascii_uppercase() };
            assert!(Algorithm::named(&algorithm).is_some(), "{name}");
        }
        assert_eq!(Algorithm::named("HS384"), Some(Algorithm::Hs(Hash::Sha384)));
        assert_eq!(Algorithm::named("none"), None);
        assert_eq!(Algorithm::named("é256"), None);
    }
}
