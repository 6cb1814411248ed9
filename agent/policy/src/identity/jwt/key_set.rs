//! Key sets: RFC 7517 documents as keys that are ready to verify with.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::algorithm::{Algorithm, Verifier};

/// More than any issuer publishes; what comes after them is ignored.
const MOST_KEYS: usize = 128;

/// One key, which outlives the document it came in for as long as the next one has it too.
#[derive(Debug)]
pub(super) struct Key {
    id: Option<String>,
    /// One for each algorithm that the key may be used with.
    verifiers: Vec<(Algorithm, Verifier)>,
    /// What it was made of: two keys are the same if this is.
    source: Value,
    is_retired: AtomicBool,
}

impl Key {
    /// Whether the issuer has withdrawn it: what it signed counts no more.
    pub(super) fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    pub(super) fn verifier(&self, algorithm: Algorithm) -> Option<&Verifier> {
        self.verifiers.iter().find(|(a, _)| *a == algorithm).map(|(_, verifier)| verifier)
    }
}

#[derive(Debug, Default)]
pub(super) struct KeySet {
    keys: Vec<Arc<Key>>,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("is not a JSON Web Key Set: {0}")]
    Malformed(serde_json::Error),
    #[error("holds {0} keys, none of which verifies signatures with an algorithm we have")]
    NothingUsable(usize),
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// RFC 7517 section 4, RFC 7518 section 6, RFC 8037 section 2; what else is in a key is ignored,
/// certificates included: the key itself is what the issuer's URL vouches for.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    kid: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Keys that we cannot use are passed over, as section 5 of RFC 7517 asks. An error if that
    /// leaves none: it is likelier a wrong URL than an issuer without keys.
    pub(super) fn parse(document: &[u8]) -> Result<Self, KeySetError> {
        let Document { keys } = serde_json::from_slice(document).map_err(KeySetError::Malformed)?;
        let count = keys.len();
        let keys: Vec<_> = keys.into_iter().take(MOST_KEYS).filter_map(read_key).collect();
        if keys.is_empty() { Err(KeySetError::NothingUsable(count)) } else { Ok(Self { keys }) }
    }

    /// A shared secret, for the algorithms of HMAC only.
    pub(super) fn of_secret(algorithms: &[Algorithm], secret: &[u8]) -> Self {
        let verifiers =
            algorithms.iter().filter_map(|a| Some((*a, Verifier::secret(*a, secret)?))).collect();
        let key =
            Key { id: None, verifiers, source: Value::Null, is_retired: AtomicBool::new(false) };
        Self { keys: vec![Arc::new(key)] }
    }

    /// The keys that a token may have been signed with. One with an id is verified by the key of
    /// that id, or by one without; a token without an id is tried with all that fit.
    pub(super) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = (&'a Arc<Key>, &'a Verifier)> {
        self.keys
            .iter()
            .filter(move |key| match (id, &key.id) {
                (Some(wanted), Some(id)) => wanted == id,
                _ => true,
            })
            .filter_map(move |key| Some((key, key.verifier(algorithm)?)))
    }

    /// Takes the place of `earlier`: keys of both stay what they were, so that tokens verified with
    /// them stay verified; those that are gone are retired.
    pub(super) fn succeed(mut self, earlier: &Self) -> Self {
        for key in &mut self.keys {
            if let Some(known) = earlier.keys.iter().find(|known| known.source == key.source) {
                *key = Arc::clone(known);
            }
        }
        for key in &earlier.keys {
            if !self.keys.iter().any(|kept| Arc::ptr_eq(kept, key)) {
                key.is_retired.store(true, Ordering::Relaxed);
            }
        }
        self
    }
}

fn read_key(source: Value) -> Option<Arc<Key>> {
    let jwk = Jwk::deserialize(&source).ok()?;
    let is_for_signatures = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.key_ops.as_ref().is_none_or(|ops| ops.iter().any(|op| op == "verify"));
    if !is_for_signatures {
        return None;
    }
    // A key that says what it is for is for nothing else (RFC 8725 section 3.1).
    let stated = match jwk.alg.as_deref() {
        None => None,
        Some(name) => Some(Algorithm::parse(name)?),
    };
    let verifiers: Vec<_> = Algorithm::ASYMMETRIC
        .into_iter()
        .filter(|algorithm| stated.is_none_or(|stated| stated == *algorithm))
        .filter_map(|algorithm| Some((algorithm, verifier(&jwk, algorithm)?)))
        .collect();
    if verifiers.is_empty() {
        return None;
    }
    Some(Arc::new(Key { id: jwk.kid, verifiers, source, is_retired: AtomicBool::new(false) }))
}

/// Of a key that is nobody's list's, such as one that comes with what it has signed.
pub(in crate::identity) fn verifier_of(source: &Value, algorithm: Algorithm) -> Option<Verifier> {
    let jwk = Jwk::deserialize(source).ok()?;
    let is_for_it = jwk.purpose.as_deref().is_none_or(|purpose| purpose == "sig")
        && jwk.alg.as_deref().is_none_or(|name| Algorithm::parse(name) == Some(algorithm));
    if is_for_it { verifier(&jwk, algorithm) } else { None }
}

/// `None`: the key is not of the algorithm's kind. `oct`, a secret, is of no kind that a public
/// document may hold.
fn verifier(jwk: &Jwk, algorithm: Algorithm) -> Option<Verifier> {
    let decode = |member: &Option<String>| URL_SAFE_NO_PAD.decode(member.as_deref()?).ok();
    match (jwk.kty.as_str(), jwk.crv.as_deref(), algorithm) {
        ("RSA", _, _) => Verifier::rsa(algorithm, &decode(&jwk.n)?, &decode(&jwk.e)?),
        ("EC", Some("P-256"), Algorithm::ES256)
        | ("EC", Some("P-384"), Algorithm::ES384)
        | ("EC", Some("P-521"), Algorithm::ES512) => {
            Verifier::elliptic(algorithm, &decode(&jwk.x)?, &decode(&jwk.y)?)
        }
        ("OKP", Some("Ed25519"), Algorithm::EdDSA) => Verifier::edwards(&decode(&jwk.x)?),
        _ => None,
    }
}
