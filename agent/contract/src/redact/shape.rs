//! What a token looks like, without what it says.

use super::{
    alphabet::{
        ANY_LETTER, DASH, DIGIT, DOT, HEX_LETTER, HIGH, PERCENT, PLUS, Profile, SLASH, SPACE,
        UNDERSCORE,
    },
    detect::{email, is_uuid, network, secret},
    format, vocabulary,
};
use crate::observation::Shape;

pub(super) fn shape(bytes: &[u8], profile: Profile) -> Shape {
    let length = u8::try_from(profile.length).unwrap_or(u8::MAX);
    if bytes.is_empty() {
        return Shape::Empty;
    }
    if profile.is_only(ANY_LETTER) && profile.length <= 32 {
        return if secret_like(bytes) {
            Shape::Opaque(length)
        } else if has_camel_case(bytes) {
            Shape::Compound
        } else {
            Shape::Word
        };
    }
    if profile.is_only(DIGIT) {
        return Shape::Digits(length);
    }
    if is_uuid(bytes) {
        return Shape::Uuid;
    }
    if profile.is_only(DIGIT | HEX_LETTER)
        && profile.length >= 8
        && profile.has(HEX_LETTER)
        && profile.digits > 0
    {
        return Shape::Hex(length);
    }
    if secret::is_ulid(bytes) {
        return Shape::Ulid;
    }
    if format::is_date(bytes) {
        return Shape::Date;
    }
    if format::is_date_time_like(bytes) {
        return Shape::DateTime;
    }
    if email::contains(bytes) && !profile.has(SPACE) {
        return Shape::Email;
    }
    if profile.is_only(DIGIT | DOT) && network::contains_ipv4(bytes) {
        return Shape::Ipv4;
    }
    if std::str::from_utf8(bytes).is_ok_and(vocabulary::is_version) {
        return Shape::Version;
    }
    if format::is_number(bytes) {
        return Shape::Decimal;
    }
    if profile.has(HIGH | SPACE | PERCENT) {
        return Shape::Other;
    }
    let is_joined = profile.is_only(ANY_LETTER | DIGIT | DASH | DOT | UNDERSCORE);
    if (profile.length >= 16
        && (is_joined || profile.is_only(ANY_LETTER | DIGIT | DASH | UNDERSCORE | PLUS | SLASH))
        && secret::is_random(bytes))
        || secret_like(bytes)
    {
        return Shape::Opaque(length);
    }
    match (is_joined && profile.has(ANY_LETTER), profile.digits) {
        (true, 0) => Shape::Compound,
        (true, _) => Shape::Mixed,
        _ => Shape::Other,
    }
}

fn secret_like(bytes: &[u8]) -> bool {
    bytes.len() >= 16 && bytes.iter().any(u8::is_ascii_alphanumeric) && secret::is_random(bytes)
}

fn has_camel_case(bytes: &[u8]) -> bool {
    bytes
        .windows(2)
        .any(|w| matches!(w, [a, b] if a.is_ascii_lowercase() && b.is_ascii_uppercase()))
}
