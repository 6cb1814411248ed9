//! Public keys as `io.jwt.*` takes them: a PEM certificate or public key, a JWK, or a JWK set.

use aws_lc_rs::{
    hmac,
    signature::{
        self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use base64::Engine as _;
use serde_json::Value;
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

/// The JSON Web Algorithms of RFC 7518 and RFC 8037 that sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs(Hash),
    Ps(Hash),
    Es(Hash),
    Hs(Hash),
    EdDsa,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha384,
    Sha512,
}

impl Algorithm {
    pub(super) fn named(name: &str) -> Option<Self> {
        if name == "EdDSA" {
            return Some(Self::EdDsa);
        }
        let hash = match name.get(2..)? {
            "256" => Hash::Sha256,
            "384" => Hash::Sha384,
            "512" => Hash::Sha512,
            _ => return None,
        };
        match &name[..2] {
            "RS" => Some(Self::Rs(hash)),
            "PS" => Some(Self::Ps(hash)),
            "ES" => Some(Self::Es(hash)),
            "HS" => Some(Self::Hs(hash)),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Key {
    /// Empty where the key does not say.
    pub algorithm: String,
    pub id: String,
    material: Material,
}

#[derive(Debug)]
enum Material {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The uncompressed point.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
    /// Of a kind that verifies nothing here.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    fn width(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

impl Key {
    pub(super) fn secret(secret: &[u8]) -> Self {
        Self::plain(Material::Secret(secret.to_owned()))
    }

    fn plain(material: Material) -> Self {
        Self { algorithm: String::new(), id: String::new(), material }
    }

    pub(super) fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        match (&self.material, algorithm) {
            (Material::Rsa { modulus, exponent }, Algorithm::Rs(_) | Algorithm::Ps(_)) => {
                RsaPublicKeyComponents { n: modulus, e: exponent }
                    .verify(rsa(algorithm), message, signature)
                    .is_ok()
            }
            (Material::Ec { curve, point }, Algorithm::Es(hash)) => {
                let algorithm: &dyn VerificationAlgorithm = match (curve, hash) {
                    (Curve::P256, Hash::Sha256) => &signature::ECDSA_P256_SHA256_FIXED,
                    (Curve::P384, Hash::Sha384) => &signature::ECDSA_P384_SHA384_FIXED,
                    (Curve::P521, Hash::Sha512) => &signature::ECDSA_P521_SHA512_FIXED,
                    // RFC 7518, 3.4: a curve goes with its hash.
                    _ => return false,
                };
                is_verified(algorithm, point, message, signature)
            }
            (Material::Ed25519(public), Algorithm::EdDsa) => {
                is_verified(&signature::ED25519, public, message, signature)
            }
            (Material::Secret(secret), Algorithm::Hs(hash)) => {
                let algorithm = match hash {
                    Hash::Sha256 => hmac::HMAC_SHA256,
                    Hash::Sha384 => hmac::HMAC_SHA384,
                    Hash::Sha512 => hmac::HMAC_SHA512,
                };
                hmac::verify(&hmac::Key::new(algorithm, secret), message, signature).is_ok()
            }
            _ => false,
        }
    }
}

fn rsa(algorithm: Algorithm) -> &'static RsaParameters {
    match algorithm {
        Algorithm::Ps(Hash::Sha256) => &signature::RSA_PSS_2048_8192_SHA256,
        Algorithm::Ps(Hash::Sha384) => &signature::RSA_PSS_2048_8192_SHA384,
        Algorithm::Ps(Hash::Sha512) => &signature::RSA_PSS_2048_8192_SHA512,
        Algorithm::Rs(Hash::Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::Rs(Hash::Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => &signature::RSA_PKCS1_2048_8192_SHA256,
    }
}

fn is_verified(
    algorithm: &'static dyn VerificationAlgorithm,
    key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
}

/// `None`: neither PEM nor JWK, or malformed.
pub(super) fn read_keys(text: &str) -> Option<Vec<Key>> {
    if text.contains("-----BEGIN ") {
        return Some(vec![Key::plain(read_pem(text)?)]);
    }
    let value: Value = serde_json::from_str(text).ok()?;
    match value.get("keys") {
        // A key of an algorithm that is none of JWS's is passed over; a malformed one spoils all.
        Some(keys) => {
            let read: Option<Vec<Key>> = keys.as_array()?.iter().map(read_jwk).collect();
            Some(read?.into_iter().filter(is_of_known_algorithm).collect())
        }
        None => Some([read_jwk(&value)?].into_iter().filter(is_of_known_algorithm).collect()),
    }
}

fn is_of_known_algorithm(key: &Key) -> bool {
    key.algorithm.is_empty() || Algorithm::named(&key.algorithm).is_some()
}

fn read_pem(text: &str) -> Option<Material> {
    let (rest, pem) = x509_parser::pem::parse_x509_pem(text.as_bytes()).ok()?;
    // One block: which of several keys would count is nothing to guess.
    if !rest.is_empty() {
        return None;
    }
    match pem.label.as_str() {
        "CERTIFICATE" => {
            let (_, certificate) = X509Certificate::from_der(&pem.contents).ok()?;
            read_public_key(certificate.public_key())
        }
        "PUBLIC KEY" => {
            let (_, key) = SubjectPublicKeyInfo::from_der(&pem.contents).ok()?;
            read_public_key(&key)
        }
        _ => None,
    }
}

fn read_public_key(key: &SubjectPublicKeyInfo<'_>) -> Option<Material> {
    // RFC 8410: the bits of the key are the key.
    if key.algorithm.algorithm.to_id_string() == "1.3.101.112" {
        return Some(Material::Ed25519(key.subject_public_key.data.to_vec()));
    }
    match key.parsed().ok()? {
        PublicKey::RSA(rsa) => Some(Material::Rsa {
            modulus: without_zeros(rsa.modulus).to_vec(),
            exponent: without_zeros(rsa.exponent).to_vec(),
        }),
        PublicKey::EC(point) => {
            let parameters = key.algorithm.parameters.as_ref()?;
            let curve = match parameters.as_oid().ok()?.to_id_string().as_str() {
                "1.2.840.10045.3.1.7" => Curve::P256,
                "1.3.132.0.34" => Curve::P384,
                "1.3.132.0.35" => Curve::P521,
                _ => return Some(Material::Other),
            };
            Some(Material::Ec { curve, point: point.data().to_vec() })
        }
        _ => Some(Material::Other),
    }
}

/// A DER integer begins with a zero where its first bit is set.
fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

fn read_jwk(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let bytes = |name: &str| {
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(text(name)?.trim_end_matches('='))
            .ok()
    };
    let material = match text("kty")? {
        "RSA" => Material::Rsa {
            modulus: without_zeros(&bytes("n")?).to_vec(),
            exponent: without_zeros(&bytes("e")?).to_vec(),
        },
        "EC" => {
            let curve = match text("crv")? {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                _ => return None,
            };
            let mut point = vec![4];
            for coordinate in [bytes("x")?, bytes("y")?] {
                let short = without_zeros(&coordinate);
                point.resize(point.len() + curve.width().checked_sub(short.len())?, 0);
                point.extend_from_slice(short);
            }
            Material::Ec { curve, point }
        }
        "OKP" if text("crv")? == "Ed25519" => Material::Ed25519(bytes("x")?),
        "OKP" => Material::Other,
        "oct" => Material::Secret(bytes("k")?),
        _ => return None,
    };
    // A private key is no key to verify with.
    let is_private = jwk.get("d").is_some();
    Some(Key {
        algorithm: text("alg").unwrap_or_default().to_owned(),
        id: text("kid").unwrap_or_default().to_owned(),
        material: if is_private { Material::Other } else { material },
    })
}
