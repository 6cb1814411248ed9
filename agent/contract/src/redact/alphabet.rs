//! What characters a token is made of, found in one pass, so that most tokens skip most detectors.

pub(super) const DIGIT: u16 = 1;
/// `a-f`, `A-F`
pub(super) const HEX_LETTER: u16 = 1 << 1;
/// `g-z`, `G-Z`
pub(super) const LETTER: u16 = 1 << 2;
pub(super) const UPPER: u16 = 1 << 3;
pub(super) const DOT: u16 = 1 << 4;
pub(super) const DASH: u16 = 1 << 5;
pub(super) const UNDERSCORE: u16 = 1 << 6;
pub(super) const COLON: u16 = 1 << 7;
pub(super) const AT: u16 = 1 << 8;
pub(super) const PERCENT: u16 = 1 << 9;
pub(super) const PLUS: u16 = 1 << 10;
pub(super) const SPACE: u16 = 1 << 11;
pub(super) const SLASH: u16 = 1 << 12;
pub(super) const PUNCTUATION: u16 = 1 << 13;
pub(super) const HIGH: u16 = 1 << 14;
pub(super) const LOWER: u16 = 1 << 15;

pub(super) const ANY_LETTER: u16 = HEX_LETTER | LETTER;

static CLASSES: [u16; 256] = classes();

const fn classes() -> [u16; 256] {
    let mut table = [PUNCTUATION; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = match i as u8 {
            b'0'..=b'9' => DIGIT,
            b'a'..=b'f' => HEX_LETTER | LOWER,
            b'A'..=b'F' => HEX_LETTER | UPPER,
            b'g'..=b'z' => LETTER | LOWER,
            b'G'..=b'Z' => LETTER | UPPER,
            b'.' => DOT,
            b'-' => DASH,
            b'_' => UNDERSCORE,
            b':' => COLON,
            b'@' => AT,
            b'%' => PERCENT,
            b'+' => PLUS,
            b' ' | b'\t' | b'\r' | b'\n' => SPACE,
            b'/' => SLASH,
            0x80..=0xff => HIGH,
            _ => PUNCTUATION,
        };
        i += 1;
    }
    table
}

/// The union of the classes of a token's bytes, and how many are digits.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Profile {
    pub mask: u16,
    pub digits: u32,
    pub length: usize,
}

impl Profile {
    pub fn of(bytes: &[u8]) -> Self {
        let mut mask = 0u16;
        let mut digits = 0u32;
        for &b in bytes {
            let class = CLASSES[b as usize];
            mask |= class;
            digits += u32::from(class & DIGIT);
        }
        Self { mask, digits, length: bytes.len() }
    }

    pub fn has(self, classes: u16) -> bool {
        self.mask & classes != 0
    }

    /// Every byte is of one of these classes.
    pub fn is_only(self, classes: u16) -> bool {
        self.mask & !(classes | UPPER | LOWER) == 0
    }
}

/// Percent-decodes, and turns `+` into a space where `is_form`. Broken escapes stay as they are.
/// True where anything changed.
pub(super) fn decode_percent(from: &[u8], is_form: bool, into: &mut Vec<u8>) -> bool {
    into.clear();
    let mut changed = false;
    let mut rest = from;
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        if b == b'%' {
            if let [h, l, after @ ..] = tail
                && let (Some(h), Some(l)) = (hex_digit(*h), hex_digit(*l))
            {
                into.push(h << 4 | l);
                rest = after;
                changed = true;
                continue;
            }
        } else if b == b'+' && is_form {
            into.push(b' ');
            changed = true;
            continue;
        }
        into.push(b);
    }
    changed
}

pub(super) fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}
