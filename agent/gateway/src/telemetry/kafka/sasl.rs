//! How a user proves who it is: PLAIN (RFC 4616) and SCRAM (RFC 5802, RFC 7677).

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest, hmac, pbkdf2, rand};
use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Mechanism, Sasl};

/// RFC 7677 section 4, and Kafka.
const LEAST_ITERATIONS: u32 = 4096;
/// A broker that asks for more keeps the thread busy for seconds.
const MOST_ITERATIONS: u32 = 1_000_000;

pub(super) fn plain(sasl: &Sasl) -> Vec<u8> {
    format!("\0{}\0{}", sasl.username, sasl.password).into_bytes()
}

/// An exchange: `first`, the server's answer, `last`, the server's answer, `verify`.
pub(super) struct Scram<'a> {
    sasl: &'a Sasl,
    nonce: String,
    /// What the server must sign, when the client has signed.
    expected: Option<hmac::Tag>,
}

impl<'a> Scram<'a> {
    pub(super) fn new(sasl: &'a Sasl) -> Result<Self, String> {
        let mut random = [0; 18];
        rand::fill(&mut random).map_err(|_| "there are no random numbers")?;
        Ok(Self { sasl, nonce: STANDARD.encode(random), expected: None })
    }

    fn bare(&self) -> String {
        // RFC 5802 section 5.1: these two have a meaning of their own.
        let name = self.sasl.username.replace('=', "=3D").replace(',', "=2C");
        format!("n={name},r={}", self.nonce)
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.bare()).into_bytes()
    }

    pub(super) fn last(&mut self, answer: &[u8]) -> Result<Vec<u8>, String> {
        let answer = std::str::from_utf8(answer).map_err(|_| "its challenge is no text")?;
        let part = |name: &str| {
            let value = answer.split(',').find_map(|part| part.strip_prefix(name));
            value.ok_or_else(|| format!("its challenge has no `{name}`"))
        };
        let nonce = part("r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("it answers a challenge that is not ours".to_owned());
        }
        let salt = STANDARD.decode(part("s=")?).map_err(|_| "its salt is not base64")?;
        let iterations = part("i=")?.parse::<u32>().ok();
        let iterations = iterations
            .filter(|count| (LEAST_ITERATIONS..=MOST_ITERATIONS).contains(count))
            .and_then(NonZeroU32::new)
            .ok_or("its number of iterations is too small to be safe, or too large")?;
        let algorithms = Algorithms::of(self.sasl.mechanism);
        let mut salted = vec![0; algorithms.digest.output_len()];
        let password = self.sasl.password.as_bytes();
        pbkdf2::derive(algorithms.pbkdf2, iterations, &salt, password, &mut salted);
        let salted = hmac::Key::new(algorithms.hmac, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored = digest::digest(algorithms.digest, client_key.as_ref());
        // `biws` is `n,,`: no channel is bound.
        let unproven = format!("c=biws,r={nonce}");
        let signed = format!("{},{answer},{unproven}", self.bare());
        let stored = hmac::Key::new(algorithms.hmac, stored.as_ref());
        let signature = hmac::sign(&stored, signed.as_bytes());
        let proof: Vec<u8> =
            client_key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        let server_key = hmac::sign(&salted, b"Server Key");
        let server_key = hmac::Key::new(algorithms.hmac, server_key.as_ref());
        self.expected = Some(hmac::sign(&server_key, signed.as_bytes()));
        Ok(format!("{unproven},p={}", STANDARD.encode(proof)).into_bytes())
    }

    /// Whether the server knows the password, too.
    pub(super) fn verify(&self, answer: &[u8]) -> Result<(), String> {
        let wrong = || "it does not know the password itself".to_owned();
        let answer = std::str::from_utf8(answer).map_err(|_| wrong())?;
        let signature = answer.split(',').find_map(|part| part.strip_prefix("v="));
        let signature = signature.and_then(|text| STANDARD.decode(text).ok()).ok_or_else(wrong)?;
        let expected = self.expected.as_ref().ok_or_else(wrong)?;
        verify_slices_are_equal(expected.as_ref(), &signature).map_err(|_| wrong())
    }
}

struct Algorithms {
    digest: &'static digest::Algorithm,
    hmac: hmac::Algorithm,
    pbkdf2: pbkdf2::Algorithm,
}

impl Algorithms {
    fn of(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::ScramSha512 => Self {
                digest: &digest::SHA512,
                hmac: hmac::HMAC_SHA512,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA512,
            },
            Mechanism::ScramSha256 | Mechanism::Plain => Self {
                digest: &digest::SHA256,
                hmac: hmac::HMAC_SHA256,
                pbkdf2: pbkdf2::PBKDF2_HMAC_SHA256,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(mechanism: Mechanism) -> Sasl {
        Sasl { mechanism, username: "user".to_owned(), password: "pencil".to_owned() }
    }

    /// RFC 7677 section 3.
    #[test]
    fn the_exchange_of_the_rfc_is_ours() {
        let sasl = user(Mechanism::ScramSha256);
        let nonce = "rOprNGfwEbeRWgbNEkqO".to_owned();
        let mut scram = Scram { sasl: &sasl, nonce, expected: None };
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                          s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(
            String::from_utf8(scram.last(challenge).unwrap()).unwrap(),
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        assert_eq!(scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), Ok(()));
        assert!(scram.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G0=").is_err());
        assert!(scram.verify(b"e=other-error").is_err());
    }

    #[test]
    fn a_server_that_asks_for_too_little_or_too_much_gets_nothing() {
        let sasl = user(Mechanism::ScramSha512);
        for challenge in [
            "r=other,s=AAAA,i=4096".to_owned(),
            "r={},s=AAAA,i=4096".to_owned(),
            "r={}x,s=AAAA,i=1".to_owned(),
            "r={}x,s=AAAA,i=4294967295".to_owned(),
            "r={}x,s=!,i=4096".to_owned(),
            "r={}x,i=4096".to_owned(),
        ] {
            let mut scram = Scram::new(&sasl).unwrap();
            let challenge = challenge.replace("{}", &scram.nonce);
            assert!(scram.last(challenge.as_bytes()).is_err(), "{challenge}");
        }
    }

    #[test]
    fn a_name_cannot_add_a_field() {
        let sasl = Sasl { username: "a,r=b".to_owned(), ..user(Mechanism::ScramSha256) };
        let scram = Scram { sasl: &sasl, nonce: "x".to_owned(), expected: None };
        assert_eq!(scram.first(), b"n,,n=a=2Cr=3Db,r=x");
    }
}
