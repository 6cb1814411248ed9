//! One token in the compact serialization of RFC 7515 section 7.1.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Fault,
    algorithm::Algorithm,
    claims::Claims,
    key_set::{Key, KeySet},
};
use crate::identity::possession::Binding;

/// The members that we act on. Keys and their addresses (`jwk`, `jku`, `x5c`, `x5u`) are never
/// read: a token does not bring its own. A member that comes twice makes the header malformed.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Taken apart, nothing of it verified.
pub(super) struct Token<'a> {
    header: Header,
    pub claims: Claims,
    /// What was signed: header and claims as they came.
    signed: &'a [u8],
    signature: Vec<u8>,
}

impl<'a> Token<'a> {
    pub(super) fn parse(token: &'a [u8]) -> Result<Self, Fault> {
        let mut dots = token.iter().enumerate().filter(|(_, b)| **b == b'.').map(|(at, _)| at);
        let (Some(first), Some(second), None) = (dots.next(), dots.next(), dots.next()) else {
            return Err(Fault::Malformed);
        };
        let (signed, signature) = (token.get(..second), token.get(second + 1..));
        let (header, claims) = (token.get(..first), token.get(first + 1..second));
        let header: Header = decode_json(header)?;
        if header.crit.is_some() {
            return Err(Fault::Critical);
        }
        Ok(Self {
            header,
            claims: decode_json(claims)?,
            signed: signed.ok_or(Fault::Malformed)?,
            signature: decode(signature)?,
        })
    }

    pub(super) fn algorithm(&self) -> Result<Algorithm, Fault> {
        Algorithm::parse(&self.header.alg).ok_or(Fault::Algorithm)
    }

    pub(super) fn key_id(&self) -> Option<&str> {
        self.header.kid.as_deref()
    }

    /// The key of `set` that made the signature.
    pub(super) fn verify(&self, set: &KeySet, algorithm: Algorithm) -> Result<Arc<Key>, Fault> {
        let mut fault = Fault::UnknownKey;
        for (key, verifier) in set.candidates(self.key_id(), algorithm) {
            if verifier.is_valid(self.signed, &self.signature) {
                return Ok(Arc::clone(key));
            }
            fault = Fault::Signature;
        }
        Err(fault)
    }

    /// What it is bound to, if it is: a certificate (RFC 8705 section 3.1), a key (RFC 9449 section
    /// 6.1). Other bindings (RFC 7800 section 3) are to what we see no proof of.
    pub(super) fn binding(&self) -> Result<Binding, Fault> {
        let confirmation = match self.claims.get("cnf") {
            None => return Ok(Binding::default()),
            Some(Value::Object(confirmation)) => confirmation,
            Some(_) => return Err(Fault::Malformed),
        };
        let thumbprint = |name: &str| {
            let Some(value) = confirmation.get(name) else { return Ok(None) };
            let text = value.as_str().ok_or(Fault::Malformed)?;
            let digest = URL_SAFE_NO_PAD.decode(text).map_err(|_| Fault::Malformed)?;
            digest.try_into().map(Some).map_err(|_| Fault::Malformed)
        };
        let binding = Binding { certificate: thumbprint("x5t#S256")?, key: thumbprint("jkt")? };
        let known = usize::from(binding.certificate.is_some()) + usize::from(binding.key.is_some());
        if known == 0 || known < confirmation.len() {
            return Err(Fault::BoundToProof);
        }
        Ok(binding)
    }
}

fn decode(part: Option<&[u8]>) -> Result<Vec<u8>, Fault> {
    URL_SAFE_NO_PAD.decode(part.ok_or(Fault::Malformed)?).map_err(|_| Fault::Malformed)
}

fn decode_json<T: serde::de::DeserializeOwned>(part: Option<&[u8]>) -> Result<T, Fault> {
    serde_json::from_slice(&decode(part)?).map_err(|_| Fault::Malformed)
}
