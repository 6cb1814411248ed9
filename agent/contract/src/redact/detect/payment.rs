//! Payment cards (ISO/IEC 7812, Luhn) and bank accounts (ISO 13616, checksum of ISO 7064).

use super::{group_starts, is_found_in_groups, number_groups};

/// A card number of a known scheme with a valid Luhn digit, plain or grouped.
pub(in crate::redact) fn contains_card(bytes: &[u8]) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit();
    number_groups(bytes).any(|run| {
        // `4111 1111 1111 1111 12/27` and lists of cards: try each start of a group.
        group_starts(run.text, is_digit)
            .take(32)
            .any(|text| is_found_in_groups::<19>(text, is_digit, true, is_card))
    })
}

/// `written`: digits of ASCII.
fn is_card(written: &[u8]) -> bool {
    let mut digits = [0u8; 19];
    let Some(digits) = digits.get_mut(..written.len()).filter(|d| d.len() >= 13) else {
        return false;
    };
    for (digit, b) in digits.iter_mut().zip(written) {
        *digit = b.wrapping_sub(b'0');
    }
    let digits = &*digits;
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
    let is_account = |account: &[u8]| account.len() >= 15 && passes_mod_97(account);
    is_found_in_groups::<34>(bytes, |b| b.is_ascii_alphanumeric(), false, is_account)
}

/// ISO 7064 MOD 97-10, the first four characters moved to the end.
fn passes_mod_97(account: &[u8]) -> bool {
    let Some((head, tail)) = account.split_at_checked(4) else { return false };
    let remainder = tail.iter().chain(head).fold(0u32, |r, b| match b {
        b'0'..=b'9' => (r * 10 + u32::from(b - b'0')) % 97,
        _ => (r * 100 + u32::from(b.to_ascii_uppercase().wrapping_sub(b'A')) + 10) % 97,
    });
    remainder == 1
}
