//! Formats that a written value still may have, and numbers without their value.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::{
    alphabet::{
        ANY_LETTER, AT, COLON, DASH, DIGIT, DOT, HEX_LETTER, HIGH, LOWER, PLUS, Profile, SLASH,
        SPACE, UPPER,
    },
    detect::{email, is_uuid, secret},
};
use crate::observation::Formats;

/// Every format that the value satisfies.
pub(super) fn formats(bytes: &[u8], profile: Profile) -> Formats {
    let none = Formats::default();
    let Some(first) = bytes.first() else { return none };
    if profile.is_only(ANY_LETTER) && profile.length < 16 {
        return match bytes {
            b"true" | b"false" => Formats::BOOLEAN,
            [b'P', ..] if is_duration(bytes) => Formats::DURATION,
            _ => none,
        };
    }
    if profile.has(SPACE | HIGH) && *first != b'/' {
        return none;
    }
    if is_number(bytes) {
        return if profile.is_only(DIGIT | DASH) {
            Formats::INTEGER.union(Formats::NUMBER)
        } else {
            Formats::NUMBER
        };
    }
    let mut found = none;
    let mut add = |is: bool, format: Formats| {
        if is {
            found = found.union(format);
        }
    };
    if profile.digits >= 4 && first.is_ascii_digit() {
        add(is_date(bytes), Formats::DATE);
        add(is_date_time(bytes), Formats::DATE_TIME);
        add(is_time(bytes), Formats::TIME);
        add(profile.is_only(DIGIT | DOT) && parses::<Ipv4Addr>(bytes), Formats::IPV4);
    }
    add(is_uuid(bytes), Formats::UUID);
    add(profile.has(AT) && email::contains(bytes) && !profile.has(SLASH | COLON), Formats::EMAIL);
    if profile.has(COLON) {
        let may_be_ipv6 = profile.length >= 2 && profile.is_only(DIGIT | HEX_LETTER | COLON | DOT);
        add(may_be_ipv6 && parses::<Ipv6Addr>(bytes), Formats::IPV6);
        add(is_uri(bytes), Formats::URI);
    }
    add(*first == b'P' && is_duration(bytes), Formats::DURATION);
    add(*first == b'/' && !profile.has(SPACE), Formats::PATH);
    add(profile.has(DOT) && is_hostname(bytes), Formats::HOSTNAME);
    add(secret::is_jwt(bytes), Formats::JWT);
    add(is_base64(bytes, profile), Formats::BYTE);
    found
}

fn parses<T: std::str::FromStr>(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<T>().is_ok())
}

/// RFC 8259 section 6: no leading zeros, no plus sign, so that `007` stays a string.
pub(super) fn is_number(bytes: &[u8]) -> bool {
    let rest = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let integral = count_digits(rest);
    if integral == 0 || (integral > 1 && rest.first() == Some(&b'0')) {
        return false;
    }
    let mut rest = rest.get(integral..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let places = count_digits(fraction);
        if places == 0 {
            return false;
        }
        rest = fraction.get(places..).unwrap_or_default();
    }
    if let [b'e' | b'E', exponent @ ..] = rest {
        let exponent =
            exponent.strip_prefix(b"+").or(exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let places = count_digits(exponent);
        return places > 0 && places == exponent.len();
    }
    rest.is_empty()
}

pub(super) fn count_digits(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|b| b.is_ascii_digit()).count()
}

/// Bits of the integral part's magnitude; 65 for more than 64.
pub(super) fn magnitude_bits(number: &[u8]) -> u8 {
    let unsigned = number.strip_prefix(b"-").unwrap_or(number);
    if !unsigned.iter().any(|b| matches!(b, b'e' | b'E')) {
        let digits = unsigned.get(..count_digits(unsigned)).unwrap_or_default();
        if digits.len() > 20 {
            return 65;
        }
        if digits.len() <= 19 {
            let value =
                digits.iter().fold(0u64, |sum, d| sum * 10 + u64::from(d.wrapping_sub(b'0')));
            return u8::try_from(64 - value.leading_zeros()).unwrap_or(64);
        }
        let value = digits.iter().fold(0u128, |sum, d| sum * 10 + u128::from(d.wrapping_sub(b'0')));
        return u8::try_from(128 - value.leading_zeros()).unwrap_or(65).min(65);
    }
    let value: f64 =
        std::str::from_utf8(unsigned).ok().and_then(|t| t.parse().ok()).unwrap_or(f64::MAX);
    if value >= 18_446_744_073_709_551_616.0 {
        65
    } else {
        // Truncation is wanted: the integral part only.
        u8::try_from(64 - (value as u64).leading_zeros()).unwrap_or(65)
    }
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.iter().try_fold(0u32, |sum, b| b.is_ascii_digit().then(|| sum * 10 + u32::from(b - b'0')))
}

pub(super) fn is_date(bytes: &[u8]) -> bool {
    let [y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = bytes else { return false };
    [y1, y2, y3, y4].iter().all(|b| b.is_ascii_digit())
        && number(&[*m1, *m2]).is_some_and(|m| (1..=12).contains(&m))
        && number(&[*d1, *d2]).is_some_and(|d| (1..=31).contains(&d))
}

/// A date and a time, zone or not, with `T` or a blank between.
pub(super) fn is_date_time_like(bytes: &[u8]) -> bool {
    let Some((date, [b'T' | b't' | b' ' | b'_', time @ ..])) = bytes.split_at_checked(10) else {
        return false;
    };
    is_date(date) && time.len() >= 5 && time.get(2) == Some(&b':')
}

/// RFC 3339 section 5.6: the offset is part of it.
pub(super) fn is_date_time(bytes: &[u8]) -> bool {
    bytes.split_at_checked(11).is_some_and(|(date, time)| {
        date.get(..10).is_some_and(is_date)
            && matches!(date.last(), Some(b'T' | b't'))
            && is_time(time)
    })
}

fn is_time(bytes: &[u8]) -> bool {
    let [h1, h2, b':', m1, m2, b':', s1, s2, rest @ ..] = bytes else { return false };
    let in_range = number(&[*h1, *h2]).is_some_and(|h| h < 24)
        && number(&[*m1, *m2]).is_some_and(|m| m < 60)
        && number(&[*s1, *s2]).is_some_and(|s| s <= 60);
    let offset = match rest {
        [b'.', fraction @ ..] => {
            let places = count_digits(fraction);
            if places == 0 {
                return false;
            }
            fraction.get(places..).unwrap_or_default()
        }
        _ => rest,
    };
    in_range
        && match offset {
            b"Z" | b"z" => true,
            [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|x| x.is_ascii_digit()),
            _ => false,
        }
}

/// RFC 3986 section 3: a scheme, then an authority; or one of the schemes without.
fn is_uri(bytes: &[u8]) -> bool {
    let Some(colon) = bytes.iter().position(|b| *b == b':') else { return false };
    let (scheme, rest) = bytes.split_at(colon);
    scheme.first().is_some_and(u8::is_ascii_alphabetic)
        && scheme.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
        && ((rest.starts_with(b"://") && rest.len() > 3)
            || (rest.len() > 1
                && [&b"mailto"[..], b"urn", b"tel", b"data", b"did", b"arn"].contains(&scheme)))
}

fn is_hostname(bytes: &[u8]) -> bool {
    const FILES: [&[u8]; 20] = [
        b"json", b"xml", b"html", b"htm", b"txt", b"csv", b"pdf", b"png", b"jpg", b"jpeg", b"gif",
        b"svg", b"zip", b"gz", b"js", b"css", b"yaml", b"yml", b"md", b"webp",
    ];
    let last = bytes.rsplit(|b| *b == b'.').next().unwrap_or_default();
    bytes.len() <= 253
        && last.len() >= 2
        && last.iter().all(u8::is_ascii_alphabetic)
        && !FILES.contains(&last)
        && bytes.split(|b| *b == b'.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
                && label.first() != Some(&b'-')
                && label.last() != Some(&b'-')
        })
}

/// ISO 8601 durations as of RFC 3339 appendix A.
fn is_duration(bytes: &[u8]) -> bool {
    let Some(rest) = bytes.strip_prefix(b"P") else { return false };
    let mut rest = rest;
    let mut units = 0;
    let mut in_time = false;
    while !rest.is_empty() {
        if let [b'T', tail @ ..] = rest
            && !in_time
        {
            in_time = true;
            rest = tail;
            continue;
        }
        let mut digits = count_digits(rest);
        if digits == 0 {
            return false;
        }
        if let Some([b'.', fraction @ ..]) = rest.get(digits..) {
            digits += 1 + count_digits(fraction);
        }
        let unit = rest.get(digits);
        let is_unit = if in_time {
            matches!(unit, Some(b'H' | b'M' | b'S'))
        } else {
            matches!(unit, Some(b'Y' | b'M' | b'W' | b'D'))
        };
        if !is_unit {
            return false;
        }
        units += 1;
        rest = rest.get(digits + 1..).unwrap_or_default();
    }
    units > 0
}

/// Base64 that cannot be a word or a digest: its own punctuation, or all three classes.
fn is_base64(bytes: &[u8], profile: Profile) -> bool {
    let padding = bytes.iter().rev().take_while(|b| **b == b'=').count();
    let body = bytes.get(..bytes.len() - padding).unwrap_or_default();
    profile.length >= 16
        && profile.length.is_multiple_of(4)
        && padding <= 2
        && body.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
        && (padding > 0
            || profile.has(PLUS)
            || (profile.has(UPPER) && profile.has(LOWER) && profile.digits > 0))
}
