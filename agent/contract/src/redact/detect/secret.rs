//! Credentials by shape: JWTs, keys of known issuers, private keys, and random tokens.

use crate::{
    observation::Personal,
    redact::alphabet::{DASH, DIGIT, Profile, SPACE, UPPER},
};

/// Prefixes by which issuers let their keys be recognised.
const ISSUED: &[(&[u8], Personal)] = &[
    (b"AKIA", Personal::CloudKey),
    (b"ASIA", Personal::CloudKey),
    (b"AROA", Personal::CloudKey),
    (b"AIDA", Personal::CloudKey),
    (b"ABIA", Personal::CloudKey),
    (b"AIza", Personal::CloudKey),
    (b"ya29.", Personal::CloudKey),
    (b"ghp_", Personal::ApiKey),
    (b"gho_", Personal::ApiKey),
    (b"ghu_", Personal::ApiKey),
    (b"ghs_", Personal::ApiKey),
    (b"ghr_", Personal::ApiKey),
    (b"github_pat_", Personal::ApiKey),
    (b"glpat-", Personal::ApiKey),
    (b"xoxb-", Personal::ApiKey),
    (b"xoxp-", Personal::ApiKey),
    (b"xoxa-", Personal::ApiKey),
    (b"xoxr-", Personal::ApiKey),
    (b"xoxs-", Personal::ApiKey),
    (b"xapp-", Personal::ApiKey),
    (b"sk_live_", Personal::ApiKey),
    (b"sk_test_", Personal::ApiKey),
    (b"pk_live_", Personal::ApiKey),
    (b"pk_test_", Personal::ApiKey),
    (b"rk_live_", Personal::ApiKey),
    (b"rk_test_", Personal::ApiKey),
    (b"whsec_", Personal::ApiKey),
    (b"sk-", Personal::ApiKey),
    (b"SG.", Personal::ApiKey),
    (b"npm_", Personal::ApiKey),
    (b"pypi-", Personal::ApiKey),
    (b"dop_v1_", Personal::ApiKey),
    (b"shpat_", Personal::ApiKey),
    (b"hvs.", Personal::ApiKey),
    (b"EAAC", Personal::ApiKey),
    (b"key-", Personal::ApiKey),
];

/// RFC 7468 section 2: the label of a private key in its armour.
pub(in crate::redact) fn contains_private_key(bytes: &[u8], profile: Profile) -> bool {
    profile.length >= 27
        && profile.has(DASH)
        && profile.has(SPACE)
        && contains(bytes, b"PRIVATE KEY-----")
}

/// JWTs, and keys that carry their issuer's prefix.
pub(in crate::redact) fn find_issued(bytes: &[u8], profile: Profile) -> Option<Personal> {
    // An issued key has a digit or a capital somewhere.
    if !profile.has(DIGIT | UPPER) {
        return None;
    }
    let mut was_alphanumeric = false;
    for (start, b) in bytes.iter().enumerate() {
        let is_start = !was_alphanumeric;
        was_alphanumeric = b.is_ascii_alphanumeric();
        // Initials of the prefixes below, and of JWTs.
        if is_start
            && matches!(
                b,
                b'A' | b'y'
                    | b'g'
                    | b'x'
                    | b's'
                    | b'p'
                    | b'r'
                    | b'w'
                    | b'S'
                    | b'n'
                    | b'd'
                    | b'h'
                    | b'E'
                    | b'k'
                    | b'e'
            )
        {
            let rest = bytes.get(start..).unwrap_or_default();
            let end = rest.iter().position(|b| !is_of_token(*b)).unwrap_or(rest.len());
            let token = rest.get(..end).unwrap_or_default();
            if token.len() < 16 {
                continue;
            }
            if is_jwt(token) {
                return Some(Personal::Jwt);
            }
            let issued = ISSUED
                .iter()
                .find(|(prefix, _)| token.strip_prefix(*prefix).is_some_and(is_key_tail));
            if let Some((_, class)) = issued {
                return Some(*class);
            }
        }
    }
    None
}

/// Some token in the text is random.
pub(in crate::redact) fn contains_random(bytes: &[u8], profile: Profile) -> bool {
    profile.has(DIGIT | UPPER)
        && bytes
            .split(|b| !is_of_token(*b) && !matches!(b, b'/' | b'='))
            .filter(|token| token.len() >= 16 && !super::is_uuid(token))
            .any(|token| {
                is_random(token)
                    || token
                        .split(|b| matches!(b, b'=' | b'/'))
                        .filter(|part| part.len() >= 16 && !super::is_uuid(part))
                        .any(is_random)
            })
}

fn is_of_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'+' | b'~')
}

/// What follows an issuer's prefix: at least twelve characters, with digits or mixed case.
fn is_key_tail(tail: &[u8]) -> bool {
    let p = Profile::of(tail);
    tail.len() >= 12 && p.has(DIGIT | UPPER)
}

/// RFC 7519 section 3: three base64url parts, the first an object (`{"` is `eyJ`).
pub(in crate::redact) fn is_jwt(token: &[u8]) -> bool {
    let mut parts = token.split(|b| *b == b'.');
    token.starts_with(b"eyJ")
        && matches!((parts.next(), parts.next(), parts.next()), (Some(h), Some(p), Some(_))
            if h.len() >= 8 && p.len() >= 8)
}

/// Random letters and digits: some piece of at least 16 characters changes class far more often
/// than words joined in any case do, and is not dominated by few characters.
pub(in crate::redact) fn is_random(token: &[u8]) -> bool {
    // 24 hexadecimal digits are a database's object id; 26 of Crockford's base 32 a ULID.
    if (token.len() == 24 && token.iter().all(u8::is_ascii_hexdigit)) || is_ulid(token) {
        return false;
    }
    let padding = token.iter().rev().take_while(|b| **b == b'=').count();
    let token = token.get(..token.len() - padding).unwrap_or_default();
    token
        .split(|b| matches!(b, b'.' | b'~'))
        .filter(|t| t.len() >= 16)
        // Base64url uses `-` and `_`, words are joined by them: try both readings.
        .any(|t| {
            is_random_piece(t, 20)
                || t.split(|b| matches!(b, b'-' | b'_' | b'/' | b'+'))
                    .any(|p| is_random_piece(p, 16))
        })
}

fn is_random_piece(piece: &[u8], least: usize) -> bool {
    if piece.len() < least {
        return false;
    }
    let class = |b: u8| match b {
        b'0'..=b'9' => 0u8,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    };
    let sample = piece.get(..128).unwrap_or(piece);
    // A capital that begins a word of at least three letters is camelCase, not chance.
    let changes = sample
        .windows(2)
        .filter(|w| {
            matches!(w, [a, b] if class(*a) != class(*b) && class(*a) != 3 && class(*b) != 3
            && !(class(*a) == 2 && class(*b) == 1))
        })
        .count();
    if !sample.iter().any(u8::is_ascii_digit) {
        // Words in camelCase change case often too, but hardly ever have capitals side by side.
        let capitals = sample.windows(2).filter(|w| w.iter().all(u8::is_ascii_uppercase)).count();
        return capitals >= 3 && changes >= 3 && entropy(sample) >= 3.5;
    }
    changes * 6 >= sample.len() && entropy(sample) >= 3.0
}

/// Shannon entropy in bits a character.
fn entropy(sample: &[u8]) -> f32 {
    let mut counts = [0u8; 128];
    for b in sample {
        if let Some(count) = counts.get_mut(usize::from(*b & 0x7f)) {
            *count = count.saturating_add(1);
        }
    }
    let total = sample.len() as f32;
    counts.iter().filter(|c| **c > 0).map(|c| f32::from(*c) / total).map(|p| -p * p.log2()).sum()
}

pub(in crate::redact) fn is_ulid(token: &[u8]) -> bool {
    token.len() == 26
        && matches!(token.first(), Some(b'0'..=b'7'))
        && token
            .iter()
            .all(|b| b.is_ascii_digit() || (b.is_ascii_uppercase() && !b"ILOU".contains(b)))
}

fn contains(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|w| w == needle)
}
