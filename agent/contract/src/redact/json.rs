//! A JSON reader that turns text straight into shapes, and copes with bodies that were cut.
//!
//! One pass, linear in the text; nesting, members and items are bounded. Nothing of the text is
//! copied except strings with escapes, and those only while they are looked at.

mod object;

use super::{
    Tally,
    admission::{Admission, Meaning, Role, number},
    alphabet::hex_digit,
    format,
    layout::{Layouts, Place},
    produced::Produced,
};
use crate::observation::{Members, Node, Number};

#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub depth: u32,
    pub members: usize,
    pub items: usize,
}

pub(super) enum Parsed {
    One(Node),
    /// Several values, one a line or behind record separators (RFC 7464).
    Lines(Vec<Node>),
    Malformed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// The text ended inside a value.
    End,
    /// The text is not JSON.
    Bad,
}

pub(super) struct Json<'a, 'b> {
    pub bytes: &'a [u8],
    pub at: usize,
    pub admission: &'b mut Admission,
    pub tally: &'b mut Tally,
    /// Where values that the service hands out are remembered; `None` for requests.
    pub produced: Option<&'b mut Produced>,
    pub layouts: &'b mut Layouts,
    pub limits: Limits,
    /// Which body of which endpoint this is.
    pub path: u64,
    pub stop: Option<Stop>,
}

/// A string between its quotes.
#[derive(Clone, Copy)]
struct Raw {
    start: usize,
    end: usize,
    is_escaped: bool,
}

impl<'a, 'b> Json<'a, 'b> {
    /// Where the text begins.
    pub fn start_of(bytes: &[u8]) -> usize {
        // RFC 8259 section 8.1: a byte order mark may be ignored. `)]}'` guards against inclusion.
        [&b"\xef\xbb\xbf"[..], b")]}',", b")]}'"]
            .iter()
            .find(|prefix| bytes.starts_with(prefix))
            .map_or(0, |prefix| prefix.len())
    }

    /// Reads everything. `is_cut`: the text is a prefix of what was sent.
    pub fn read(mut self, in_person: bool, is_cut: bool, may_be_lines: bool) -> Parsed {
        let path = self.path;
        let place =
            Place { depth: 0, meaning: Meaning::NONE, in_person, keys_name_persons: false, path };
        let mut nodes = Vec::new();
        let mut count = 0usize;
        loop {
            self.skip_blank();
            if self.at >= self.bytes.len() {
                break;
            }
            let start = self.at;
            let mut node = None;
            if count < self.limits.items {
                let mut slot = Node::Null;
                if self.value(&place, &mut slot) {
                    node = Some(slot);
                }
            } else {
                self.skip_value(Meaning::NONE);
            }
            // A number that ends where the text was cut may go on.
            let may_go_on =
                is_cut && self.at >= self.bytes.len() && matches!(node, Some(Node::Number(_)));
            nodes.extend(node.filter(|_| !may_go_on));
            count += 1;
            match self.stop {
                Some(Stop::Bad) => return Parsed::Malformed,
                Some(Stop::End) => break,
                None => {}
            }
            if self.at == start {
                return Parsed::Malformed;
            }
        }
        if (self.stop == Some(Stop::End) && !is_cut) || (count == 0 && !is_cut) {
            return Parsed::Malformed;
        }
        if count > 1 && !may_be_lines && !nodes.iter().all(is_structured) {
            return Parsed::Malformed;
        }
        if count == 1
            && !may_be_lines
            && nodes.len() == 1
            && let Some(node) = nodes.pop()
        {
            return Parsed::One(node);
        }
        Parsed::Lines(nodes)
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_blank(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n' | 0x1e) = self.peek() {
            self.at += 1;
        }
    }

    fn halt(&mut self, stop: Stop) {
        self.stop = Some(if self.at >= self.bytes.len() { Stop::End } else { stop });
    }

    /// Reads one value into `slot`, where it stays: nodes are large, and moving them about costs
    /// more than reading them. False where there was none, and the slot says nothing then.
    fn value(&mut self, place: &Place, slot: &mut Node) -> bool {
        match self.peek() {
            Some(b'"') => return self.string_value(place.meaning, slot),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => {
                return self.number_value(place.meaning, place.depth, slot);
            }
            Some(b'{' | b'[') if place.depth >= self.limits.depth => {
                let is_object = self.peek() == Some(b'{');
                self.skip_value(Meaning::NONE);
                *slot = if is_object {
                    Node::Object { members: Members::own(Vec::new(), Vec::new()), is_closed: false }
                } else {
                    Node::Array { items: Vec::new(), length: 0, is_closed: false }
                };
            }
            Some(b'{') => *slot = self.object(place),
            Some(b'[') => *slot = self.array(place),
            Some(b't') => return self.literal(b"true", Node::Bool, slot),
            Some(b'f') => return self.literal(b"false", Node::Bool, slot),
            Some(b'n') => return self.literal(b"null", Node::Null, slot),
            _ => {
                self.halt(Stop::Bad);
                return false;
            }
        }
        true
    }

    fn literal(&mut self, word: &[u8], node: Node, slot: &mut Node) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.starts_with(word) {
            self.at += word.len();
            *slot = node;
            return true;
        }
        self.stop = Some(if word.starts_with(rest) { Stop::End } else { Stop::Bad });
        false
    }

    fn array(&mut self, place: &Place) -> Node {
        self.at += 1;
        let mut items = Vec::new();
        let mut length = 0u32;
        let mut is_closed = false;
        let inner = place.item();
        while self.stop.is_none() {
            self.skip_blank();
            match self.peek() {
                Some(b']') => {
                    self.at += 1;
                    is_closed = true;
                    break;
                }
                Some(b',') if length > 0 => {
                    self.at += 1;
                    self.skip_blank();
                }
                Some(_) if length == 0 => {}
                _ => {
                    self.halt(Stop::Bad);
                    break;
                }
            }
            if items.len() >= self.limits.items {
                self.skip_value(place.meaning);
                if self.stop.is_none() {
                    length = length.saturating_add(1);
                }
                continue;
            }
            items.resize_with(items.len() + 1, || Node::Null);
            if let Some(slot) = items.last_mut()
                && !self.value(&inner, slot)
            {
                items.pop();
                break;
            }
            length = length.saturating_add(1);
        }
        Node::Array { items, length, is_closed }
    }

    fn string_value(&mut self, meaning: Meaning, slot: &mut Node) -> bool {
        let Some(raw) = self.string() else { return false };
        let unescaped = if raw.is_escaped { self.unescape(raw) } else { Vec::new() };
        let bytes = if raw.is_escaped { &unescaped } else { slice(self.bytes, raw) };
        let is_produced = self.produced.is_some();
        let produced = self.admission.judge(bytes, meaning, self.tally, |judged| {
            let value = &judged.value;
            *slot = Node::String(value.clone());
            let names =
                is_produced && judged.may_name && (value.length >= 3 || meaning.names_a_thing);
            names.then_some(value.hash.0)
        });
        if let Some(hash) = produced {
            self.remember(hash);
        }
        true
    }

    fn number_value(&mut self, meaning: Meaning, depth: u32, slot: &mut Node) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (number, end) = match plain_number(rest) {
            Some(plain) => plain,
            None => match self.odd_number(rest, depth) {
                Some(number) => number,
                None => return false,
            },
        };
        let text = rest.get(..end).unwrap_or_default();
        self.at += end;
        let personal = self.admission.number_class(text, meaning, self.tally);
        // Small integers coincide with counts and flags, so only ids among them say anything.
        let may_name = number.is_integer && (text.len() >= 5 || meaning.names_a_thing);
        let hash = may_name.then(|| self.admission.hash(text));
        if let Some(hash) = hash
            && self.produced.is_some()
        {
            self.remember(hash.0);
        }
        *slot = Node::Number(Number { hash, personal, ..number });
        true
    }

    /// A number that is not written as most are, and its length.
    #[cold]
    fn odd_number(&mut self, rest: &[u8], depth: u32) -> Option<(Number, usize)> {
        let end = rest
            .iter()
            .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
            .unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or_default();
        if !format::is_number(text) {
            // What Python and JavaScript write for numbers that JSON does not have.
            let is_special = matches!(text, b"NaN" | b"Infinity" | b"-Infinity");
            if end < rest.len() && is_special {
                let is_negative = text.first() == Some(&b'-');
                let number =
                    Number { is_integer: false, is_negative, bits: 0, hash: None, personal: None };
                return Some((number, end));
            }
            // Cut in the middle, where nothing more can be said; or a bare word at the end.
            self.stop = Some(if end == rest.len() { Stop::End } else { Stop::Bad });
            self.at += end;
            return None;
        }
        if end == rest.len() && depth > 0 {
            // The brackets around it are open, so the text was cut, perhaps inside the number.
            self.stop = Some(Stop::End);
            self.at += end;
            return None;
        }
        Some((number(text, None), end))
    }

    fn string(&mut self) -> Option<Raw> {
        let start = self.at + 1;
        let mut at = start;
        let mut is_escaped = false;
        loop {
            let rest = self.bytes.get(at..).unwrap_or_default();
            let Some(i) = find_quote(rest) else {
                self.at = self.bytes.len();
                self.stop = Some(Stop::End);
                return None;
            };
            at += i;
            if self.bytes.get(at) == Some(&b'"') {
                self.at = at + 1;
                return Some(Raw { start, end: at, is_escaped });
            }
            is_escaped = true;
            at += 2;
        }
    }

    /// RFC 8259 section 7. Broken escapes stay as they are; lone surrogates become U+FFFD.
    fn unescape(&self, raw: Raw) -> Vec<u8> {
        let mut text = Vec::with_capacity(raw.end - raw.start);
        let mut rest = slice(self.bytes, raw);
        while let Some((&b, tail)) = rest.split_first() {
            rest = tail;
            if b != b'\\' {
                text.push(b);
                continue;
            }
            let Some((&escape, tail)) = rest.split_first() else { break };
            rest = tail;
            match escape {
                b'b' => text.push(8),
                b'f' => text.push(12),
                b'n' => text.push(b'\n'),
                b'r' => text.push(b'\r'),
                b't' => text.push(b'\t'),
                b'u' => {
                    let Some(mut code) = read_hex4(rest) else { continue };
                    rest = rest.get(4..).unwrap_or_default();
                    if (0xd800..0xdc00).contains(&code)
                        && rest.starts_with(b"\\u")
                        && let Some(low) = rest.get(2..).and_then(read_hex4)
                        && (0xdc00..0xe000).contains(&low)
                    {
                        code = 0x1_0000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                        rest = rest.get(6..).unwrap_or_default();
                    }
                    let c = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
                    text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                other => text.push(other),
            }
        }
        text
    }

    /// Passes over one value of any depth without recursion; ids in it are still remembered.
    fn skip_value(&mut self, meaning: Meaning) {
        let mut depth = 0u32;
        let mut meaning = meaning;
        loop {
            self.skip_blank();
            match self.peek() {
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                }
                Some(b'}' | b']') if depth > 0 => {
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                Some(b'"') => {
                    let Some(raw) = self.string() else { return };
                    self.skip_blank();
                    if depth > 0 && self.peek() == Some(b':') {
                        (_, meaning) =
                            self.admission.token(Role::Name, slice(self.bytes, raw), self.tally);
                        continue;
                    }
                    if meaning.names_a_thing && (1..=64).contains(&(raw.end - raw.start)) {
                        let hash = self.admission.hash(slice(self.bytes, raw));
                        self.remember(hash.0);
                    }
                }
                Some(b'-' | b'+' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                    let rest = self.bytes.get(self.at..).unwrap_or_default();
                    let end = rest
                        .iter()
                        .position(|b| {
                            !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
                        })
                        .unwrap_or(rest.len());
                    self.at += end;
                    let text = rest.get(..end).unwrap_or_default();
                    if meaning.names_a_thing && format::is_number(text) {
                        let hash = self.admission.hash(text);
                        self.remember(hash.0);
                    }
                }
                _ => return self.halt(Stop::Bad),
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn remember(&mut self, hash: u64) {
        if let Some(produced) = self.produced.as_deref_mut() {
            produced.insert(hash);
        }
    }
}

/// A number of at most 19 digits before the point, no exponent, and a delimiter behind it: nearly
/// all are. Also its length.
#[inline]
fn plain_number(bytes: &[u8]) -> Option<(Number, usize)> {
    let is_negative = bytes.first() == Some(&b'-');
    let start = usize::from(is_negative);
    let (mut value, mut end) = (0u64, start);
    while let Some(digit) = bytes.get(end).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
        if end - start >= 19 {
            return None;
        }
        value = value * 10 + u64::from(digit);
        end += 1;
    }
    if end == start || (end - start > 1 && bytes.get(start) == Some(&b'0')) {
        return None;
    }
    let mut is_integer = true;
    if bytes.get(end) == Some(&b'.') {
        let places = format::count_digits(bytes.get(end + 1..).unwrap_or_default());
        if places == 0 {
            return None;
        }
        end += 1 + places;
        is_integer = false;
    }
    let bits = (u64::BITS - value.leading_zeros()) as u8;
    matches!(bytes.get(end), Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r'))
        .then_some((Number { is_integer, is_negative, bits, hash: None, personal: None }, end))
}

fn slice(bytes: &[u8], raw: Raw) -> &[u8] {
    bytes.get(raw.start..raw.end).unwrap_or_default()
}

/// Where the first quote or backslash is; eight bytes at a time.
#[inline]
fn find_quote(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    // The high bit of each byte that is zero; bits above the lowest of them may be wrong.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & (ONES << 7);
    let mut at = 0;
    let (words, tail) = bytes.as_chunks::<8>();
    for word in words {
        let word = u64::from_le_bytes(*word);
        let found =
            zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    tail.iter().position(|b| matches!(b, b'"' | b'\\')).map(|i| at + i)
}

fn is_structured(node: &Node) -> bool {
    matches!(node, Node::Object { .. } | Node::Array { .. })
}

fn read_hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |sum, b| Some(sum << 4 | u32::from(hex_digit(*b)?)))
}
