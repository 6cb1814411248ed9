//! Telephone numbers: E.164 with its plus sign, and national ways of grouping.
//!
//! Ten digits in a row are an identifier far more often than a telephone number, so they count
//! only with a leading zero (most of Europe), separators, or a field named so.

use super::number_groups;

pub(in crate::redact) fn contains(bytes: &[u8]) -> bool {
    number_groups(bytes).any(|run| is_phone(run.text))
}

fn is_phone(text: &[u8]) -> bool {
    let digits = text.iter().filter(|b| b.is_ascii_digit()).count();
    if text.first() == Some(&b'+') || text.starts_with(b"(+") {
        let inner = text.iter().skip(2).all(|b| *b != b'+');
        return inner && (8..=15).contains(&digits);
    }
    if text.contains(&b'+') {
        // `12 +33 6 12 34 56 78`: look again from the plus sign.
        return text
            .iter()
            .position(|b| *b == b'+')
            .and_then(|i| text.get(i..))
            .is_some_and(|t| (8..=15).contains(&t.iter().filter(|b| b.is_ascii_digit()).count()));
    }
    let mut groups = [0u8; 8];
    let mut count = 0usize;
    let mut separators = 0;
    let mut was_digit = false;
    for b in text {
        if b.is_ascii_digit() {
            if !was_digit {
                count += 1;
            }
            if let Some(group) = groups.get_mut(count.saturating_sub(1)) {
                *group = group.saturating_add(1);
            }
        } else {
            separators += 1;
        }
        was_digit = b.is_ascii_digit();
    }
    if count > groups.len() {
        return false;
    }
    let first = text.iter().find(|b| b.is_ascii_digit()).copied();
    let has_trunk_zero = first == Some(b'0');
    match (groups.get(..count).unwrap_or_default(), separators) {
        ([10 | 11], 0) => has_trunk_zero && !text.starts_with(b"00"),
        ([12..=16], 0) => text.starts_with(b"00") && text.get(2) != Some(&b'0'),
        // North America, with or without the leading one.
        ([3, 3, 4], _) | ([1, 3, 3, 4], _) => true,
        ([3, 7], _) if text.first() == Some(&b'(') => true,
        // Groups after a trunk zero: France 2-2-2-2-2, United Kingdom 5-6 and 4-3-4, Germany 3-8.
        ([2, 2, 2, 2, 2], _) => has_trunk_zero,
        ([3, 4, 4] | [5, 6] | [5, 3, 3] | [4, 3, 4] | [4, 7] | [3, 7] | [3, 8] | [4, 6], _) => {
            has_trunk_zero
        }
        ([3, 2, 2, 2] | [3, 3, 3], _) => first == Some(b'6') || first == Some(b'7'),
        _ => false,
    }
}
