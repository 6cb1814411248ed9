//! Signature algorithms of RFC 7518 and RFC 8037, and the keys that fit them.

use std::fmt;

use aws_lc_rs::{
    hmac,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
        EcdsaVerificationAlgorithm, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
        RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    },
};
use serde::Deserialize;

/// As the header's `alg` writes it. There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    ES512,
    /// Ed25519; RFC 9864 names it `Ed25519` where `EdDSA` leaves the curve open.
    #[serde(alias = "Ed25519")]
    EdDSA,
}

impl Algorithm {
    pub(in crate::identity) const ASYMMETRIC: [Self; 10] = [
        Self::RS256,
        Self::RS384,
        Self::RS512,
        Self::PS256,
        Self::PS384,
        Self::PS512,
        Self::ES256,
        Self::ES384,
        Self::ES512,
        Self::EdDSA,
    ];

    pub(in crate::identity) fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "HS256" => Self::HS256,
            "HS384" => Self::HS384,
            "HS512" => Self::HS512,
            "RS256" => Self::RS256,
            "RS384" => Self::RS384,
            "RS512" => Self::RS512,
            "PS256" => Self::PS256,
            "PS384" => Self::PS384,
            "PS512" => Self::PS512,
            "ES256" => Self::ES256,
            "ES384" => Self::ES384,
            "ES512" => Self::ES512,
            "EdDSA" | "Ed25519" => Self::EdDSA,
            _ => return None,
        })
    }

    pub(in crate::identity) fn is_symmetric(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }

    /// RFC 7518 section 3.2: a secret at least as long as the hash. 0: takes no secret.
    pub(super) fn least_secret(self) -> usize {
        match self {
            Self::HS256 => 32,
            Self::HS384 => 48,
            Self::HS512 => 64,
            _ => 0,
        }
    }

    /// `None`: not of RSA.
    fn rsa(self) -> Option<&'static RsaParameters> {
        Some(match self {
            Self::RS256 => &RSA_PKCS1_2048_8192_SHA256,
            Self::RS384 => &RSA_PKCS1_2048_8192_SHA384,
            Self::RS512 => &RSA_PKCS1_2048_8192_SHA512,
            Self::PS256 => &RSA_PSS_2048_8192_SHA256,
            Self::PS384 => &RSA_PSS_2048_8192_SHA384,
            Self::PS512 => &RSA_PSS_2048_8192_SHA512,
            _ => return None,
        })
    }
}

/// Verifies signatures of one algorithm: what a key is for is settled when it is loaded, never by
/// the token that names it.
#[derive(Clone)]
pub(in crate::identity) enum Verifier {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public(_) => "public key",
            Self::Secret(_) => "secret",
        })
    }
}

impl Verifier {
    /// `None`: the components are no key of at least 2048 bits, or `algorithm` is not of RSA.
    pub(super) fn rsa(algorithm: Algorithm, n: &[u8], e: &[u8]) -> Option<Self> {
        let parameters = algorithm.rsa()?;
        // RFC 7518 section 6.3.1.1 forbids leading zeros; keys with them are in use all the same.
        let strip = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|b| **b == 0).count();
            bytes.get(zeros..).unwrap_or_default().to_vec()
        };
        let components = RsaPublicKeyComponents { n: strip(n), e: strip(e) };
        if !(256..=1024).contains(&components.n.len()) {
            return None;
        }
        components.to_parsed_public_key(parameters).ok().map(Self::Public)
    }

    /// `None`: not a point of the algorithm's curve.
    pub(super) fn elliptic(algorithm: Algorithm, x: &[u8], y: &[u8]) -> Option<Self> {
        let (verification, size): (&'static EcdsaVerificationAlgorithm, usize) = match algorithm {
            Algorithm::ES256 => (&ECDSA_P256_SHA256_FIXED, 32),
            Algorithm::ES384 => (&ECDSA_P384_SHA384_FIXED, 48),
            Algorithm::ES512 => (&ECDSA_P521_SHA512_FIXED, 66),
            _ => return None,
        };
        // SEC 1 section 2.3.3: uncompressed, each coordinate padded to the field's size.
        let mut point = vec![4];
        for coordinate in [x, y] {
            let padding = size.checked_sub(coordinate.len())?;
            point.extend(std::iter::repeat_n(0, padding));
            point.extend_from_slice(coordinate);
        }
        ParsedPublicKey::new(verification, point).ok().map(Self::Public)
    }

    /// `None`: not a point of Ed25519.
    pub(super) fn edwards(x: &[u8]) -> Option<Self> {
        (x.len() == 32).then(|| ParsedPublicKey::new(&ED25519, x).ok()).flatten().map(Self::Public)
    }

    /// `None`: the algorithm takes no secret.
    pub(super) fn secret(algorithm: Algorithm, secret: &[u8]) -> Option<Self> {
        let digest = match algorithm {
            Algorithm::HS256 => hmac::HMAC_SHA256,
            Algorithm::HS384 => hmac::HMAC_SHA384,
            Algorithm::HS512 => hmac::HMAC_SHA512,
            _ => return None,
        };
        Some(Self::Secret(Box::new(hmac::Key::new(digest, secret))))
    }

    pub(in crate::identity) fn is_valid(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Public(key) => key.verify_sig(message, signature).is_ok(),
            // Compares in constant time.
            Self::Secret(key) => hmac::verify(key, message, signature).is_ok(),
        }
    }
}
