//! Addresses of mail (RFC 5321 section 4.1.2), as people write them.

/// `local@domain.tld` anywhere in the text; top-level domain of at least two letters, or quoted
/// local parts and domains beyond ASCII.
pub(in crate::redact) fn contains(bytes: &[u8]) -> bool {
    let mut before = None;
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| *b == b'@') {
        let (local, domain) = rest.split_at(at);
        let domain = domain.get(1..).unwrap_or_default();
        if local.last().or(before).is_some_and(|b| is_local(*b)) && begins_with_domain(domain) {
            return true;
        }
        before = Some(&b'@');
        rest = domain;
    }
    false
}

fn is_local(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b >= 0x80 || b"!#$%&'*+-/=?^_`{|}~.\"".contains(&b)
}

fn begins_with_domain(bytes: &[u8]) -> bool {
    let is_label = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b >= 0x80;
    // RFC 1035 section 2.3.4: a name has at most 255 bytes, so the scan is bounded.
    let bytes = bytes.get(..255).unwrap_or(bytes);
    let end = bytes.iter().position(|b| !is_label(*b) && *b != b'.').unwrap_or(bytes.len());
    let mut labels = bytes.get(..end).unwrap_or_default().split(|b| *b == b'.');
    let Some(first) = labels.next() else { return false };
    !first.is_empty()
        && labels.any(|label| {
            label.len() >= 2
                && label.iter().all(|b| !b.is_ascii_digit())
                && label.first() != Some(&b'-')
        })
}
