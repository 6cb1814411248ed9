//! National identifiers of persons, by their checksums where they have one.

use super::{group_starts, is_found_in_groups, number_groups, runs};
use crate::{
    observation::Personal,
    redact::alphabet::{ANY_LETTER, Profile},
};

pub(in crate::redact) fn find(bytes: &[u8], profile: Profile) -> Option<Personal> {
    if profile.digits >= 9 {
        for run in number_groups(bytes) {
            if is_ssn(run.text) {
                return Some(Personal::Ssn);
            }
            let mut digits = [0u8; 16];
            let (count, only_spaced) = collect_digits(run.text, &mut digits);
            let digits = digits.get(..count).unwrap_or_default();
            if only_spaced
                && (is_nir(digits)
                    || is_german_tax_id(digits)
                    || (is_written_as_bsn(run.text) && is_dutch_bsn(digits)))
            {
                return Some(Personal::NationalId);
            }
        }
    }
    // Words of such a text beside each other may make an identifier, so short texts only are read
    // from every word; all lettered identifiers have at most 16 characters and few separators.
    if profile.has(ANY_LETTER) && contains_lettered(bytes) {
        return Some(Personal::NationalId);
    }
    None
}

/// `1112.22.333`. One in eleven numbers of nine digits passes the test, so that bare ones count
/// only in a field named so.
fn is_written_as_bsn(text: &[u8]) -> bool {
    matches!(text, [_, _, _, _, a, _, _, b, _, _, _] if a == b && matches!(a, b'.' | b' ' | b'-'))
}

fn is_dutch_bsn(digits: &[u8]) -> bool {
    // The "11-test": weights 9..2 and -1.
    digits.len() == 9 && {
        let sum: i32 =
            digits.iter().zip([9, 8, 7, 6, 5, 4, 3, 2, -1]).map(|(d, w)| i32::from(*d) * w).sum();
        sum % 11 == 0 && digits.iter().any(|d| *d != 0)
    }
}

fn collect_digits(text: &[u8], into: &mut [u8; 16]) -> (usize, bool) {
    let mut count = 0;
    for b in text {
        if b.is_ascii_digit() {
            let Some(slot) = into.get_mut(count) else { return (0, false) };
            *slot = b - b'0';
            count += 1;
        } else if !matches!(b, b' ' | b'-' | b'.') {
            return (0, false);
        }
    }
    (count, true)
}

/// United States: `AAA-GG-SSSS` (also with blanks). Area 000, 666 and 900-999, group 00 and
/// serial 0000 were never issued; area 9xx is kept, for it is a taxpayer's number (ITIN).
fn is_ssn(text: &[u8]) -> bool {
    let [a, b, c, s1, d, e, s2, f, g, h, i] = text else { return false };
    let all_digits = [a, b, c, d, e, f, g, h, i].iter().all(|x| x.is_ascii_digit());
    let is_separator = s1 == s2 && matches!(s1, b'-' | b' ' | b'.');
    all_digits
        && is_separator
        && ![*b"000", *b"666"].contains(&[*a, *b, *c])
        && [*d, *e] != *b"00"
        && [*f, *g, *h, *i] != *b"0000"
}

/// France, numero de securite sociale: sex, year, month, place, order, key = 97 - n mod 97.
fn is_nir(digits: &[u8]) -> bool {
    let [sex, _, _, m1, m2, ..] = digits else { return false };
    if digits.len() != 15 || !matches!(sex, 1..=4 | 7 | 8) {
        return false;
    }
    let month = m1 * 10 + m2;
    let value = |part: &[u8]| part.iter().fold(0u64, |sum, d| sum * 10 + u64::from(*d));
    let (number, key) = digits.split_at(13);
    (matches!(month, 1..=12 | 20..=42) || month >= 50) && 97 - value(number) % 97 == value(key)
}

/// Germany, Identifikationsnummer: 11 digits, one digit twice or thrice among the first ten,
/// check digit of ISO 7064 MOD 11,10.
fn is_german_tax_id(digits: &[u8]) -> bool {
    if digits.len() != 11 || digits.first() == Some(&0) {
        return false;
    }
    let (number, check) = digits.split_at(10);
    let mut counts = [0u8; 10];
    for d in number {
        if let Some(count) = counts.get_mut(usize::from(*d)) {
            *count += 1;
        }
    }
    let repeated = counts.iter().filter(|c| **c >= 2).count();
    if repeated != 1 || counts.iter().any(|c| *c > 3) {
        return false;
    }
    let product = number.iter().fold(10u32, |product, d| {
        let sum = (u32::from(*d) + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    check.first().is_some_and(|c| (11 - product) % 10 == u32::from(*c))
}

/// Identifiers with letters among the digits.
fn contains_lettered(bytes: &[u8]) -> bool {
    let is_found = |compact: &[u8]| match compact.len() {
        9 => is_nino(compact) || is_dni(compact),
        15 => is_corsican_nir(compact),
        16 => is_codice_fiscale(compact),
        11 => is_henkilotunnus(compact),
        _ => false,
    };
    // Whole words, then words joined over single blanks, dots or dashes (`AB 12 34 56 C`).
    if runs(bytes, |b| b.is_ascii_alphanumeric()).any(|run| is_found(run.text)) {
        return true;
    }
    let is_member = |b: u8| b.is_ascii_alphanumeric();
    group_starts(bytes, is_member)
        .any(|text| is_found_in_groups::<16>(text, is_member, false, is_found))
}

/// United Kingdom, National Insurance number: no checksum, but prefixes that are never used.
fn is_nino(text: &[u8]) -> bool {
    let [a, b, middle @ .., suffix] = text else { return false };
    let (a, b) = (a.to_ascii_uppercase(), b.to_ascii_uppercase());
    middle.len() == 6
        && middle.iter().all(u8::is_ascii_digit)
        && matches!(suffix.to_ascii_uppercase(), b'A'..=b'D')
        && a.is_ascii_uppercase()
        && b.is_ascii_uppercase()
        && !b"DFIQUV".contains(&a)
        && !b"DFIQUVO".contains(&b)
        && ![*b"BG", *b"GB", *b"NK", *b"KN", *b"TN", *b"NT", *b"ZZ"].contains(&[a, b])
}

/// Spain, DNI and NIE: eight digits (the first as X, Y or Z), letter = n mod 23.
fn is_dni(text: &[u8]) -> bool {
    let [first, middle @ .., letter] = text else { return false };
    let lead = match first.to_ascii_uppercase() {
        b'X' => 0,
        b'Y' => 1,
        b'Z' => 2,
        d @ b'0'..=b'9' => u32::from(d - b'0'),
        _ => return false,
    };
    if middle.len() != 7 || !middle.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let number = middle.iter().fold(lead, |sum, d| sum * 10 + u32::from(d - b'0'));
    b"TRWAGMYFPDXBNJZSQVHLCKE".get((number % 23) as usize) == Some(&letter.to_ascii_uppercase())
}

/// Corsica writes its department as 2A or 2B, which count as 19 and 18.
fn is_corsican_nir(text: &[u8]) -> bool {
    let mut digits = [0u8; 15];
    for (i, (b, slot)) in text.iter().zip(digits.iter_mut()).enumerate() {
        *slot = match (i, b.to_ascii_uppercase()) {
            (_, d @ b'0'..=b'9') => d - b'0',
            (6, b'A') => 9,
            (6, b'B') => 8,
            _ => return false,
        };
    }
    if text.get(6).is_some_and(u8::is_ascii_alphabetic) {
        if text.get(5) != Some(&b'2') {
            return false;
        }
        if let Some(department) = digits.get_mut(5) {
            *department = 1;
        }
    }
    is_nir(&digits)
}

/// Italy, codice fiscale: six letters, digits (or their substitutes), check letter.
fn is_codice_fiscale(text: &[u8]) -> bool {
    const ODD: [u8; 26] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24,
        23,
    ];
    let Some((check, body)) = text.split_last() else { return false };
    let mut sum = 0u32;
    for (i, b) in body.iter().enumerate() {
        let b = b.to_ascii_uppercase();
        let must_be_letter = matches!(i, 0..=5 | 8 | 11);
        // Digits may be replaced by letters where two persons would share a code (omocodia).
        let order = match b {
            b'A'..=b'Z' if must_be_letter || b"LMNPQRSTUV".contains(&b) => b - b'A',
            b'0'..=b'9' if !must_be_letter => b - b'0',
            _ => return false,
        };
        sum += u32::from(if i % 2 == 0 {
            ODD.get(usize::from(order)).copied().unwrap_or(0)
        } else {
            order
        });
    }
    check.to_ascii_uppercase().checked_sub(b'A').map(u32::from) == Some(sum % 26)
}

/// Finland, henkilotunnus: `DDMMYYCZZZQ`, check character = n mod 31.
fn is_henkilotunnus(text: &[u8]) -> bool {
    let [d @ .., century, z1, z2, z3, check] = text else { return false };
    if d.len() != 6
        || !d.iter().chain([z1, z2, z3]).all(u8::is_ascii_digit)
        || !matches!(century.to_ascii_uppercase(), b'A'..=b'F' | b'U'..=b'Y')
    {
        return false;
    }
    let number = d.iter().chain([z1, z2, z3]).fold(0u32, |sum, b| sum * 10 + u32::from(b - b'0'));
    b"0123456789ABCDEFHJKLMNPRSTUVWXY".get((number % 31) as usize)
        == Some(&check.to_ascii_uppercase())
}
