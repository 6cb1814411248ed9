//! Addresses of the network: IPv4, IPv6 (RFC 4291 section 2.2), MAC (IEEE 802).

use std::net::Ipv6Addr;

use super::runs;
use crate::observation::Personal;

/// A dotted quad, also inside text; leading zeros and a port are accepted.
pub(in crate::redact) fn contains_ipv4(bytes: &[u8]) -> bool {
    runs(bytes, |b| b.is_ascii_digit() || b == b'.').any(|run| {
        let text = run.text.strip_suffix(b".").unwrap_or(run.text);
        let text = text.strip_prefix(b".").unwrap_or(text);
        !run.before.is_some_and(|b| b.is_ascii_digit()) && is_quad(text)
    })
}

fn is_quad(text: &[u8]) -> bool {
    let mut octets = 0;
    text.split(|b| *b == b'.').all(|octet| {
        octets += 1;
        matches!(octet.len(), 1..=3)
            && octet.iter().fold(0u32, |sum, b| sum * 10 + u32::from(b.wrapping_sub(b'0'))) <= 255
    }) && octets == 4
}

/// IPv6 or MAC addresses written with colons.
pub(in crate::redact) fn find_colon(bytes: &[u8]) -> Option<Personal> {
    runs(bytes, |b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.')).find_map(|run| {
        let colons = run.text.iter().filter(|b| **b == b':').count();
        if colons < 2 || run.text.len() < 3 {
            return None;
        }
        if is_mac(run.text, b':') {
            return Some(Personal::MacAddress);
        }
        let touches = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        let text = run.text.strip_suffix(b".").unwrap_or(run.text);
        // `::` is an operator in many languages: `a::b` is a path of names as long as it has no digit.
        if !run.text.iter().any(u8::is_ascii_digit) {
            return None;
        }
        let is_address = std::str::from_utf8(text).is_ok_and(|t| t.parse::<Ipv6Addr>().is_ok());
        (is_address && text.len() > 2 && !touches(run.before) && !touches(run.after))
            .then_some(Personal::Ipv6)
    })
}

pub(in crate::redact) fn contains_dashed_mac(bytes: &[u8]) -> bool {
    runs(bytes, |b| b.is_ascii_hexdigit() || b == b'-')
        .any(|run| run.stands_alone() && is_mac(run.text, b'-'))
}

fn is_mac(text: &[u8], separator: u8) -> bool {
    text.len() == 17
        && text
            .iter()
            .enumerate()
            .all(|(i, b)| if i % 3 == 2 { *b == separator } else { b.is_ascii_hexdigit() })
}
