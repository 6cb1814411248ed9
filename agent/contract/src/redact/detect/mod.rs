//! Finds personal data and secrets by what a value looks like, also inside longer text.
//!
//! Errs towards a hit: a hit only keeps a value from ever becoming text and names its class.

pub(super) mod coordinates;
pub(super) mod email;
pub(super) mod national_id;
pub(super) mod network;
pub(super) mod payment;
pub(super) mod person_name;
pub(super) mod phone;
pub(super) mod secret;

use super::{
    alphabet::{
        ANY_LETTER, AT, COLON, DASH, DIGIT, DOT, HIGH, PERCENT, PLUS, Profile, decode_percent,
    },
    format,
};
use crate::observation::Personal;

/// The class of the first hit in `bytes`, as they are or percent-decoded (twice nested at most).
pub(super) fn detect(bytes: &[u8], profile: Profile) -> Option<Personal> {
    // No letters-only token shorter than this is anything but a word.
    if profile.length < 3
        || (profile.length < 16 && !profile.has(DIGIT | AT | PERCENT | COLON | HIGH | PLUS))
    {
        return None;
    }
    if let Some(hit) = detect_plain(bytes, profile) {
        return Some(hit);
    }
    if profile.has(PERCENT | PLUS) { detect_encoded(bytes) } else { None }
}

#[cold]
fn detect_encoded(bytes: &[u8]) -> Option<Personal> {
    let mut current = bytes.to_vec();
    let mut decoded = Vec::with_capacity(bytes.len());
    for _ in 0..3 {
        if !decode_percent(&current, true, &mut decoded) {
            return None;
        }
        if let Some(hit) = detect_plain(&decoded, Profile::of(&decoded)) {
            return Some(hit);
        }
        std::mem::swap(&mut current, &mut decoded);
    }
    None
}

fn detect_plain(bytes: &[u8], profile: Profile) -> Option<Personal> {
    if profile.length == 36 && is_uuid(bytes) {
        return None;
    }
    // The commonest value with many digits is no identifier of anybody.
    if profile.length >= 20 && format::is_date_time(bytes) {
        return None;
    }
    if secret::contains_private_key(bytes, profile) {
        return Some(Personal::PrivateKey);
    }
    let is_long = has_long_token(bytes);
    if is_long && let Some(hit) = secret::find_issued(bytes, profile) {
        return Some(hit);
    }
    if profile.has(AT) && email::contains(bytes) {
        return Some(Personal::Email);
    }
    if profile.has(AT) && profile.has(COLON) && has_userinfo(bytes) {
        return Some(Personal::Password);
    }
    if profile.digits >= 4
        && let Some(hit) = detect_numeric(bytes, profile)
    {
        return Some(hit);
    }
    if profile.has(COLON)
        && let Some(hit) = network::find_colon(bytes)
    {
        return Some(hit);
    }
    if profile.has(DASH) && profile.length >= 17 && network::contains_dashed_mac(bytes) {
        return Some(Personal::MacAddress);
    }
    (is_long && secret::contains_random(bytes, profile)).then_some(Personal::Secret)
}

/// Some run of at least 16 characters without a blank or punctuation: it covers a byte whose index
/// is one less than a multiple of eight, and the next such one too.
fn has_long_token(bytes: &[u8]) -> bool {
    let mut before = false;
    bytes.iter().skip(7).step_by(8).any(|b| {
        let is_of_token = !matches!(b, b' ' | b'\n' | b',' | b'"' | b'{' | b'}');
        std::mem::replace(&mut before, is_of_token) && is_of_token
    })
}

/// `scheme://user:password@host` (RFC 3986 section 3.2.1).
fn has_userinfo(bytes: &[u8]) -> bool {
    bytes.windows(3).position(|w| w == b"://").is_some_and(|at| {
        let rest = bytes.get(at + 3..).unwrap_or_default();
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?' | b' ')).unwrap_or(rest.len());
        rest.get(..end).is_some_and(|authority| authority.contains(&b'@'))
    })
}

fn detect_numeric(bytes: &[u8], profile: Profile) -> Option<Personal> {
    if profile.has(DOT) && network::contains_ipv4(bytes) {
        return Some(Personal::Ipv4);
    }
    if profile.length >= 15 && profile.has(ANY_LETTER) && payment::contains_iban(bytes) {
        return Some(Personal::Iban);
    }
    if profile.digits >= 13 && payment::contains_card(bytes) {
        return Some(Personal::Card);
    }
    if profile.digits >= 6
        && let Some(hit) = national_id::find(bytes, profile)
    {
        return Some(hit);
    }
    if profile.digits >= 6 && profile.has(DOT) && coordinates::contains(bytes) {
        return Some(Personal::Coordinates);
    }
    if profile.digits >= 7 && phone::contains(bytes) {
        return Some(Personal::Phone);
    }
    None
}

pub(super) fn is_uuid(bytes: &[u8]) -> bool {
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(i, b)| match i {
            8 | 13 | 18 | 23 => *b == b'-',
            _ => b.is_ascii_hexdigit(),
        })
}

/// Maximal runs of bytes that `member` accepts, with the bytes just before and after each.
pub(super) fn runs<'a>(
    bytes: &'a [u8],
    member: impl Fn(u8) -> bool + 'a,
) -> impl Iterator<Item = Run<'a>> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at + bytes.get(at..)?.iter().position(|b| member(*b))?;
        let tail = bytes.get(start..)?;
        let end = start + tail.iter().position(|b| !member(*b)).unwrap_or(tail.len());
        at = end;
        Some(Run {
            text: bytes.get(start..end)?,
            before: start.checked_sub(1).and_then(|i| bytes.get(i)).copied(),
            after: bytes.get(end).copied(),
        })
    })
}

pub(super) struct Run<'a> {
    pub text: &'a [u8],
    pub before: Option<u8>,
    pub after: Option<u8>,
}

impl Run<'_> {
    /// No letter, digit or underscore touches the run.
    pub fn stands_alone(&self) -> bool {
        let touches = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        !touches(self.before) && !touches(self.after)
    }
}

/// Digits and what people write between groups of them, ends trimmed.
pub(super) fn number_groups(bytes: &[u8]) -> impl Iterator<Item = Run<'_>> {
    runs(bytes, |b| b.is_ascii_digit() || matches!(b, b' ' | b'-' | b'.' | b'(' | b')' | b'+'))
        .filter(|run| {
            // A separator at an end of the run keeps it apart from what is there.
            let touches = |end: Option<&u8>, beyond: Option<u8>| {
                end.is_some_and(u8::is_ascii_digit)
                    && beyond.is_some_and(|b| b.is_ascii_alphanumeric())
            };
            !touches(run.text.first(), run.before) && !touches(run.text.last(), run.after)
        })
        .map(|run| Run { text: trim_separators(run.text), ..run })
}

fn trim_separators(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'-' | b'.' | b')', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'-' | b'.' | b'(' | b'+'] = text {
        text = rest;
    }
    text
}

/// Characters of `member` from the beginning of `text`, groups of them joined over single separators
/// (any number of them where `may_repeat`): true once those up to the end of a group are `found`. At
/// most `N` characters.
pub(super) fn is_found_in_groups<const N: usize>(
    text: &[u8],
    member: impl Fn(u8) -> bool,
    may_repeat: bool,
    found: impl Fn(&[u8]) -> bool,
) -> bool {
    let mut compact = [0u8; N];
    let mut count = 0;
    let mut was_separator = false;
    let mut rest = text.iter().peekable();
    while let Some(b) = rest.next() {
        if member(*b) {
            let Some(slot) = compact.get_mut(count) else { return false };
            *slot = *b;
            count += 1;
            was_separator = false;
            let ends_group = !rest.peek().is_some_and(|b| member(**b));
            if ends_group && compact.get(..count).is_some_and(&found) {
                return true;
            }
        } else if !matches!(b, b' ' | b'-' | b'.') || (was_separator && !may_repeat) {
            return false;
        } else {
            was_separator = true;
        }
    }
    false
}

/// Where groups of `member` begin.
pub(super) fn group_starts<'a>(
    bytes: &'a [u8],
    member: impl Fn(u8) -> bool + 'a,
) -> impl Iterator<Item = &'a [u8]> + 'a {
    (0..bytes.len()).filter_map(move |start| {
        let is_member = |at: usize| bytes.get(at).is_some_and(|b| member(*b));
        let is_start = is_member(start) && (start == 0 || !is_member(start - 1));
        if is_start { bytes.get(start..) } else { None }
    })
}

#[cfg(test)]
pub(super) fn detect_str(text: &str) -> Option<Personal> {
    detect(text.as_bytes(), Profile::of(text.as_bytes()))
}
