//! Payment cards (ISO/IEC 7812, Luhn) and bank accounts (ISO 13616, checksum of ISO 7064).

use super::number_groups;

/// A card number of a known scheme with a valid Luhn digit, plain or grouped.
pub(in crate::redact) fn contains_card(bytes: &[u8]) -> bool {
    number_groups(bytes).any(|run| {
        // `4111 1111 1111 1111 12/27` and lists of cards: try each start of a group.
        let text = run.text;
        let starts = (0..text.len()).filter(|i| {
            text.get(*i).is_some_and(u8::is_ascii_digit)
                && (*i == 0 || !text.get(*i - 1).is_some_and(u8::is_ascii_digit))
        });
        starts.take(32).any(|start| begins_with_card(text.get(start..).unwrap_or_default()))
    })
}

fn begins_with_card(text: &[u8]) -> bool {
    let mut digits = [0u8; 19];
    let mut count = 0;
    let mut rest = text.iter().peekable();
    while let Some(b) = rest.next() {
        if b.is_ascii_digit() {
            let Some(slot) = digits.get_mut(count) else { return false };
            *slot = b - b'0';
            count += 1;
            let is_group_end = !rest.peek().is_some_and(|b| b.is_ascii_digit());
            if is_group_end && count >= 13 && digits.get(..count).is_some_and(is_card) {
                return true;
            }
        } else if !matches!(b, b' ' | b'-' | b'.') {
            return false;
        }
    }
    false
}

fn is_card(digits: &[u8]) -> bool {
    let prefix = |n: usize| digits.iter().take(n).fold(0u32, |sum, d| sum * 10 + u32::from(*d));
    let is_scheme = match digits.len() {
        13 => prefix(1) == 4,
        14 => matches!(prefix(2), 36 | 38 | 39) || (300..=305).contains(&prefix(3)),
        15 => matches!(prefix(2), 34 | 37) || matches!(prefix(4), 2131 | 1800),
        16 => {
            prefix(1) == 4
                || (51..=55).contains(&prefix(2))
                || (2221..=2720).contains(&prefix(4))
                || prefix(4) == 6011
                || (644..=659).contains(&prefix(3))
                || (3528..=3589).contains(&prefix(4))
                || prefix(2) == 62
                || matches!(prefix(2), 50 | 56..=58 | 60 | 63 | 67 | 81)
        }
        17..=19 => prefix(1) == 4 || matches!(prefix(2), 50 | 56..=65 | 67),
        _ => false,
    };
    is_scheme && passes_luhn(digits)
}

/// ISO/IEC 7812-1 annex B.
pub(in crate::redact) fn passes_luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(i, d)| {
            let d = u32::from(*d);
            match (i % 2 == 1, d * 2) {
                (true, twice) if twice > 9 => twice - 9,
                (true, twice) => twice,
                (false, _) => d,
            }
        })
        .sum();
    sum.is_multiple_of(10) && digits.iter().any(|d| *d != 0)
}

/// An IBAN with a valid checksum, plain or in groups, in either case.
pub(in crate::redact) fn contains_iban(bytes: &[u8]) -> bool {
    let is_alnum = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    (0..bytes.len().saturating_sub(14)).any(|i| {
        (i == 0 || !is_alnum(bytes.get(i - 1)))
            && matches!(bytes.get(i..i + 4), Some([a, b, c, d])
                if a.is_ascii_alphabetic() && b.is_ascii_alphabetic()
                    && c.is_ascii_digit() && d.is_ascii_digit())
            && begins_with_iban(bytes.get(i..).unwrap_or_default())
    })
}

fn begins_with_iban(bytes: &[u8]) -> bool {
    let mut account = [0u8; 34];
    let mut count = 0;
    let mut was_separator = false;
    for (i, b) in bytes.iter().enumerate() {
        if b.is_ascii_alphanumeric() {
            let Some(slot) = account.get_mut(count) else { return false };
            *slot = b.to_ascii_uppercase();
            count += 1;
            was_separator = false;
            let ends_here = !bytes.get(i + 1).is_some_and(u8::is_ascii_alphanumeric);
            if ends_here && count >= 15 && account.get(..count).is_some_and(passes_mod_97) {
                return true;
            }
        } else if was_separator || !matches!(b, b' ' | b'-' | b'.') {
            return false;
        } else {
            was_separator = true;
        }
    }
    false
}

/// ISO 7064 MOD 97-10, the first four characters moved to the end.
fn passes_mod_97(account: &[u8]) -> bool {
    let Some((head, tail)) = account.split_at_checked(4) else { return false };
    let remainder = tail.iter().chain(head).fold(0u32, |r, b| match b {
        b'0'..=b'9' => (r * 10 + u32::from(b - b'0')) % 97,
        _ => (r * 100 + u32::from(b - b'A') + 10) % 97,
    });
    remainder == 1
}
