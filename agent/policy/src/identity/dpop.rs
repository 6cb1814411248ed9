//! Proofs of possession (RFC 9449): each request is signed with the key that its token names.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderName, Uri};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    Rejection,
    credential::Carrier,
    jwt::{algorithm::Algorithm, key_set},
};
use crate::{clock::Now, context::RequestContext, error::Refusal, units::Span};

pub(super) const SCHEME: &str = "DPoP";
const HEADER: HeaderName = HeaderName::from_static("dpop");
/// An RSA key of 8192 bits and its signature are some 3 KiB.
const LONGEST_PROOF: usize = 8 << 10;

/// ```yaml
/// identity:
///   methods: [{jwt: {...}}]
///   dpop: {required: true, max_age: 5m, clock_skew: 30s}
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct DpopConfig {
    /// Refuse tokens that are bound to no key.
    pub required: bool,
    /// How long ago a proof may have been made.
    pub max_age: Span,
    /// How far the client's clock may be ahead of ours.
    pub clock_skew: Span,
    /// How long a proof is remembered, so that it counts once; never shorter than it is valid.
    pub remember_for: Span,
    /// How many are.
    pub remember: usize,
}

impl Default for DpopConfig {
    fn default() -> Self {
        Self {
            required: false,
            max_age: Span::seconds(300),
            clock_skew: Span::seconds(30),
            remember_for: Span::seconds(600),
            remember: 100_000,
        }
    }
}

#[derive(Debug)]
pub(super) struct Dpop {
    config: DpopConfig,
    carrier: Carrier,
}

/// A token that is bound to a key, and the request that it came with.
#[derive(Clone, Copy)]
pub(super) struct Presented<'a> {
    pub request: &'a RequestContext<'a>,
    pub token: &'a [u8],
    /// The thumbprint of the key that the token names.
    pub bound: &'a [u8; 32],
}

/// `typ`, `alg` and the key, which is the client's own: that it is the token's is checked by its
/// thumbprint.
#[derive(Deserialize)]
struct Header {
    typ: String,
    alg: String,
    jwk: Map<String, Value>,
    crit: Option<Value>,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    htm: String,
    htu: String,
    iat: serde_json::Number,
    ath: String,
}

const fn invalid(reason: &'static str) -> Rejection {
    Rejection::of_proof("dpop_invalid", reason, "invalid_dpop_proof")
}

const MISSING: Rejection =
    Rejection::of_proof("dpop_missing", "The request has no DPoP proof", "invalid_dpop_proof");
const MALFORMED: Rejection = invalid("The DPoP proof is malformed");
const OTHER_KEY: Rejection = Rejection::of_proof(
    "token_bound",
    "The access token is bound to another key than that of the DPoP proof",
    "invalid_token",
);

impl Dpop {
    pub(super) fn build(config: &DpopConfig) -> Result<Self, Refusal> {
        if config.remember == 0 {
            return Err(Refusal::new(
                "dpop.remember",
                "is 0, so a proof could be used again and again",
                "give how many proofs may come while one is valid, such as 100000",
            ));
        }
        let carrier = Carrier::build("dpop", "Authorization", SCHEME)?;
        Ok(Self { config: config.clone(), carrier })
    }

    pub(super) fn is_required(&self) -> bool {
        self.config.required
    }

    /// The token, if the request has one under this scheme (section 7.1).
    pub(super) fn token<'a>(
        &self,
        request: &RequestContext<'a>,
    ) -> Result<Option<&'a [u8]>, Rejection> {
        self.carrier.read(request)
    }

    /// Section 4.3.
    pub(super) fn check(
        &self,
        presented: &Presented<'_>,
        proofs: &Proofs,
        now: Now,
    ) -> Result<(), Rejection> {
        let mut values = presented.request.headers.get_all(HEADER).iter();
        let verdict = match (values.next(), values.next()) {
            (None, _) => Err(MISSING),
            (Some(_), Some(_)) => Err(invalid("The request has several DPoP proofs")),
            (Some(proof), None) => {
                self.check_proof(proof.as_bytes().trim_ascii(), presented, proofs, now)
            }
        };
        let counter = if verdict.is_ok() { &proofs.accepted } else { &proofs.refused };
        counter.fetch_add(1, Relaxed);
        verdict
    }

    fn check_proof(
        &self,
        proof: &[u8],
        presented: &Presented<'_>,
        proofs: &Proofs,
        now: Now,
    ) -> Result<(), Rejection> {
        let Presented { request, token, bound } = *presented;
        if proof.len() > LONGEST_PROOF {
            return Err(invalid("The DPoP proof is too long"));
        }
        let mut parts = proof.split(|byte| *byte == b'.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MALFORMED);
        };
        let signed = proof.get(..header.len() + 1 + claims.len()).ok_or(MALFORMED)?;
        let header: Header = decode_json(header)?;
        let claims: Claims = decode_json(claims)?;
        if !header.typ.eq_ignore_ascii_case("dpop+jwt") {
            return Err(invalid("The DPoP proof is of another type"));
        }
        if header.crit.is_some() {
            return Err(invalid("The DPoP proof demands an extension that is not supported"));
        }
        let algorithm = Algorithm::parse(&header.alg).filter(|a| !a.is_symmetric());
        let algorithm =
            algorithm.ok_or(invalid("The DPoP proof's algorithm is not a supported signature"))?;
        // RFC 7518 section 6: what only a private key or a secret has.
        const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
        if PRIVATE.iter().any(|member| header.jwk.contains_key(*member)) {
            return Err(invalid("The DPoP proof holds a private key"));
        }
        let thumbprint = thumbprint(&header.jwk).ok_or(MALFORMED)?;
        verify_slices_are_equal(&thumbprint, bound).map_err(|_| OTHER_KEY)?;
        let jwk = Value::Object(header.jwk);
        let verifier = key_set::verifier_of(&jwk, algorithm)
            .ok_or(invalid("The DPoP proof's key is not of its algorithm"))?;
        if !verifier.is_valid(signed, &decode(signature)?) {
            return Err(invalid("The DPoP proof's signature is not valid"));
        }
        if claims.htm != request.method.as_str() {
            return Err(invalid("The DPoP proof is for another method"));
        }
        if !is_target(&claims.htu, request) {
            return Err(invalid("The DPoP proof is for another URI"));
        }
        let hash = digest(&SHA256, token);
        let claimed = URL_SAFE_NO_PAD.decode(&claims.ath).map_err(|_| MALFORMED)?;
        verify_slices_are_equal(&claimed, hash.as_ref())
            .map_err(|_| invalid("The DPoP proof is for another access token"))?;
        self.check_age(&claims, now)?;
        let (config, id) = (&self.config, proofs.hash(bound, &claims.jti));
        let valid_for = config.max_age.0 + config.clock_skew.0 + config.clock_skew.0;
        let until = now.after(config.remember_for.0.max(valid_for));
        match !claims.jti.is_empty() && proofs.is_first(id, until, config.remember, now) {
            true => Ok(()),
            false => {
                proofs.replayed.fetch_add(1, Relaxed);
                Err(invalid("The DPoP proof was used before"))
            }
        }
    }

    fn check_age(&self, claims: &Claims, now: Now) -> Result<(), Rejection> {
        let seconds = claims.iat.as_f64().filter(|s| (0.0..1e12).contains(s)).ok_or(MALFORMED)?;
        // Truncation cannot happen: it is below 1e15.
        let made = Now((seconds * 1000.0) as u64);
        if made > now.after(self.config.clock_skew.0) {
            return Err(invalid("The DPoP proof was made in the future"));
        }
        if now > made.after(self.config.max_age.0).after(self.config.clock_skew.0) {
            return Err(invalid("The DPoP proof is too old"));
        }
        Ok(())
    }
}

/// Ends a challenge: which signatures a proof may have (section 7.1).
pub(super) fn with_algorithms(challenge: &str) -> String {
    let names = Algorithm::ASYMMETRIC.map(|algorithm| format!("{algorithm:?}")).join(" ");
    format!("{challenge}, algs=\"{names}\"")
}

fn decode(part: &[u8]) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| MALFORMED)
}

fn decode_json<T: serde::de::DeserializeOwned>(part: &[u8]) -> Result<T, Rejection> {
    serde_json::from_slice(&decode(part)?).map_err(|_| MALFORMED)
}

/// RFC 7638 section 3; RFC 8037 section 2 for `OKP`.
fn thumbprint(jwk: &Map<String, Value>) -> Option<[u8; 32]> {
    let text = |name: &str| jwk.get(name).filter(|value| value.is_string());
    let members: &[&str] = match text("kty")?.as_str()? {
        "EC" => &["crv", "kty", "x", "y"],
        "OKP" => &["crv", "kty", "x"],
        "RSA" => &["e", "kty", "n"],
        _ => return None,
    };
    let members: Option<Vec<String>> =
        members.iter().map(|name| Some(format!("\"{name}\":{}", text(name)?))).collect();
    let canonical = format!("{{{}}}", members?.join(","));
    digest(&SHA256, canonical.as_bytes()).as_ref().try_into().ok()
}

/// Section 4.3: query and fragment do not count, and two spellings of one URI are one (RFC 3986
/// section 6.2). A proof for https also counts where TLS has ended before us.
fn is_target(htu: &str, request: &RequestContext<'_>) -> bool {
    let without_fragment = htu.split('#').next().unwrap_or_default();
    let Ok(uri) = without_fragment.parse::<Uri>() else { return false };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return false };
    let default_port = match scheme {
        "https" => "443",
        "http" if request.scheme == "http" => "80",
        _ => return false,
    };
    let host = |authority: &str| {
        let lower = authority.to_ascii_lowercase();
        let without_port = lower.strip_suffix(default_port).and_then(|rest| rest.strip_suffix(':'));
        without_port.map(str::to_owned).unwrap_or(lower)
    };
    host(authority.as_str()) == host(request.authority)
        && normal_path(uri.path()) == normal_path(request.path)
}

/// Escapes in upper case, and none that need not be. An empty path is `/`.
fn normal_path(path: &str) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut normal = Vec::with_capacity(bytes.len().max(1));
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let Some(decoded) = bytes.get(at..at + 3).and_then(decode_escape) else {
            normal.push(*byte);
            at += 1;
            continue;
        };
        match decoded.is_ascii_alphanumeric() || b"-._~".contains(&decoded) {
            true => normal.push(decoded),
            false => normal.extend(format!("%{decoded:02X}").bytes()),
        }
        at += 3;
    }
    if normal.is_empty() {
        normal.push(b'/');
    }
    normal
}

fn decode_escape(text: &[u8]) -> Option<u8> {
    let [b'%', high, low] = text else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16);
    u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()
}

/// Proofs that were accepted, so that each counts once. Outlives a reload; of this process alone.
pub struct Proofs {
    hasher: RandomState,
    seen: Mutex<Seen>,
    pub accepted: AtomicU64,
    pub refused: AtomicU64,
    /// Among those that were refused.
    pub replayed: AtomicU64,
    /// Forgotten for want of room, while they could still be used.
    pub forgotten: AtomicU64,
}

#[derive(Default)]
struct Seen {
    ids: HashSet<u64>,
    /// The first to end comes first.
    order: VecDeque<(Now, u64)>,
}

impl Default for Proofs {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            seen: Mutex::default(),
            accepted: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
        }
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("proofs")
    }
}

impl Proofs {
    /// Under a secret of this process: nobody can make a proof that has the hash of another's.
    fn hash(&self, key: &[u8; 32], jti: &str) -> u64 {
        self.hasher.hash_one((key, jti))
    }

    /// Asked last, of proofs that are good but for this.
    fn is_first(&self, id: u64, until: Now, most: usize, now: Now) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Seen { ids, order } = &mut *seen;
        while let Some((_, over)) = order.pop_front_if(|(until, _)| *until < now) {
            ids.remove(&over);
        }
        if !ids.insert(id) {
            return false;
        }
        while order.len() >= most
            && let Some((_, oldest)) = order.pop_front()
        {
            ids.remove(&oldest);
            self.forgotten.fetch_add(1, Relaxed);
        }
        order.push_back((until, id));
        true
    }
}

#[cfg(test)]
#[path = "dpop_tests.rs"]
mod tests;
