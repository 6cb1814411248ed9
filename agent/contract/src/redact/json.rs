//! A JSON reader that turns text straight into shapes, and copes with bodies that were cut.
//!
//! One pass, linear in the text; nesting, members and items are bounded. Nothing of the text is
//! copied except strings with escapes, and those only while they are looked at.

use super::{
    Tally,
    admission::{Admission, Meaning, Role},
    alphabet::hex_digit,
    field_name::Field,
    format,
    produced::Produced,
};
use crate::observation::{Node, Number, Personal, Token};

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
enum Stop {
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
    pub limits: Limits,
    stop: Option<Stop>,
}

/// Room that an object gets with its first member; most have fewer.
const USUAL_MEMBERS: usize = 8;

/// A string between its quotes.
#[derive(Clone, Copy)]
struct Raw {
    start: usize,
    end: usize,
    is_escaped: bool,
}

/// What stands around a value.
#[derive(Clone, Copy)]
struct Place {
    depth: u32,
    meaning: Meaning,
    /// What is described here is a person.
    in_person: bool,
    /// The keys of this object name persons (`{"users": {"kim": ...}}`).
    keys_name_persons: bool,
}

impl<'a, 'b> Json<'a, 'b> {
    pub fn new(
        bytes: &'a [u8],
        admission: &'b mut Admission,
        tally: &'b mut Tally,
        produced: Option<&'b mut Produced>,
        limits: Limits,
    ) -> Self {
        // RFC 8259 section 8.1: a byte order mark may be ignored. `)]}'` guards against inclusion.
        let at = [&b"\xef\xbb\xbf"[..], b")]}',", b")]}'"]
            .iter()
            .find(|prefix| bytes.starts_with(prefix))
            .map_or(0, |prefix| prefix.len());
        Self { bytes, at, admission, tally, produced, limits, stop: None }
    }

    /// Reads everything. `is_cut`: the text is a prefix of what was sent.
    pub fn read(mut self, in_person: bool, is_cut: bool, may_be_lines: bool) -> Parsed {
        let place = Place { depth: 0, meaning: Meaning::NONE, in_person, keys_name_persons: false };
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
                if self.value(place, &mut slot) {
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
    fn value(&mut self, place: Place, slot: &mut Node) -> bool {
        match self.peek() {
            Some(b'"') => return self.string_value(place.meaning, slot),
            Some(b'-' | b'0'..=b'9' | b'N' | b'I') => {
                return self.number_value(place.meaning, place.depth, slot);
            }
            Some(b'{' | b'[') if place.depth >= self.limits.depth => {
                let is_object = self.peek() == Some(b'{');
                self.skip_value(Meaning::NONE);
                *slot = if is_object {
                    Node::Object { members: Vec::new(), is_closed: false }
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

    fn object(&mut self, place: Place) -> Node {
        self.at += 1;
        let mut members: Vec<(Token, Node)> = Vec::new();
        let mut is_closed = false;
        let mut left_out = false;
        let mut in_person = place.in_person;
        let mut unsure_name = None;
        let mut is_first = true;
        while self.stop.is_none() {
            self.skip_blank();
            match self.peek() {
                Some(b'}') => {
                    self.at += 1;
                    is_closed = true;
                    break;
                }
                Some(b',') if !is_first => {
                    self.at += 1;
                    self.skip_blank();
                }
                Some(b'"') if is_first => {}
                _ => {
                    self.halt(Stop::Bad);
                    break;
                }
            }
            is_first = false;
            let Some(raw) = self.key() else { break };
            let role = if place.keys_name_persons { Role::NameOfPerson } else { Role::Name };
            let unescaped = if raw.is_escaped { self.unescape(raw) } else { Vec::new() };
            let bytes = if raw.is_escaped { &unescaped } else { slice(self.bytes, raw) };
            let (token, meaning) = self.admission.find(role, bytes, self.tally);
            if self.at >= self.bytes.len() {
                self.stop = Some(Stop::End);
                break;
            }
            in_person |= meaning.field.personal().is_some_and(|class| {
                matches!(
                    class,
                    Personal::Email | Personal::BirthDate | Personal::Ssn | Personal::Password
                )
            });
            let mut meaning = meaning;
            if meaning.field == Field::Name && in_person {
                meaning.field = Field::Personal(Personal::Name);
            }
            // Of duplicate keys the last one counts, as nearly every parser has it.
            let twin = members.iter().position(|(t, _)| t.hash == token.hash);
            let is_left_out = twin.is_none() && members.len() >= self.limits.members;
            if twin.is_none() && !is_left_out {
                if members.is_empty() {
                    members.reserve(USUAL_MEMBERS);
                }
                // Made in its place, which `push` does not do.
                members.resize_with(members.len() + 1, || (token.clone(), Node::Null));
            }
            if is_left_out {
                left_out = true;
                self.skip_value(meaning);
                continue;
            }
            let inner = Place {
                depth: place.depth + 1,
                meaning,
                in_person: in_person || meaning.is_person,
                keys_name_persons: meaning.is_person_collection
                    && meaning.is_person
                    && meaning.is_plural,
            };
            let index = twin.unwrap_or(members.len().saturating_sub(1));
            if let Some(twin) = twin {
                let mut node = Node::Null;
                if !self.value(inner, &mut node) {
                    break;
                }
                if let Some((_, slot)) = members.get_mut(twin) {
                    *slot = node;
                }
            } else if let Some((_, slot)) = members.last_mut()
                && !self.value(inner, slot)
            {
                members.pop();
                break;
            }
            if meaning.field == Field::Name {
                unsure_name = Some(index);
            }
        }
        if in_person
            && let Some((_, Node::String(name))) = unsure_name.and_then(|i| members.get_mut(i))
            && name.personal.is_none()
        {
            name.personal = Some(Personal::Name);
            self.tally.mask(Personal::Name);
        }
        Node::Object { members, is_closed: is_closed && !left_out }
    }

    /// A member's key and its colon.
    fn key(&mut self) -> Option<Raw> {
        if self.peek() != Some(b'"') {
            self.halt(Stop::Bad);
            return None;
        }
        let raw = self.string()?;
        self.skip_blank();
        if self.peek() != Some(b':') {
            self.halt(Stop::Bad);
            return None;
        }
        self.at += 1;
        self.skip_blank();
        Some(raw)
    }

    fn array(&mut self, place: Place) -> Node {
        self.at += 1;
        let mut items = Vec::new();
        let mut length = 0u32;
        let mut is_closed = false;
        let inner = Place { depth: place.depth + 1, keys_name_persons: false, ..place };
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
                && !self.value(inner, slot)
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
        self.admission.value_into(bytes, meaning, self.tally, slot);
        if let Some(produced) = self.produced.as_deref_mut()
            && let Node::String(value) = slot
            && (1..=64).contains(&value.length)
            && (value.length >= 3 || meaning.names_a_thing)
            && (raw.is_escaped || !bytes.contains(&b' '))
        {
            produced.insert(value.hash.0);
        }
        true
    }

    fn number_value(&mut self, meaning: Meaning, depth: u32, slot: &mut Node) -> bool {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let digits = format::count_digits(rest.get(..20).unwrap_or(rest));
        let is_plain = (1..=19).contains(&digits)
            && (digits == 1 || rest.first() != Some(&b'0'))
            && matches!(rest.get(digits), Some(b',' | b'}' | b']' | b' ' | b'\n' | b'\r'));
        let end = if is_plain {
            digits
        } else {
            rest.iter()
                .position(|b| !(b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.')))
                .unwrap_or(rest.len())
        };
        let text = rest.get(..end).unwrap_or_default();
        self.at += end;
        if !is_plain && !format::is_number(text) {
            if end == rest.len() {
                // Cut in the middle, where nothing more can be said; or a bare word at the end.
                self.stop = Some(Stop::End);
                return false;
            }
            // What Python and JavaScript write for numbers that JSON does not have.
            if matches!(text, b"NaN" | b"Infinity" | b"-Infinity") {
                let hash = self.admission.hash(text);
                let is_negative = text.first() == Some(&b'-');
                *slot = Node::Number(Number {
                    is_integer: false,
                    is_negative,
                    bits: 0,
                    hash,
                    personal: None,
                });
                return true;
            }
            self.stop = Some(Stop::Bad);
            return false;
        }
        if end == rest.len() && depth > 0 {
            // The brackets around it are open, so the text was cut, perhaps inside the number.
            self.stop = Some(Stop::End);
            return false;
        }
        let number = self.admission.number(text, meaning, self.tally);
        if let Some(produced) = self.produced.as_deref_mut()
            && number.is_integer
            // Small integers coincide with counts and flags, so only ids among them say anything.
            && (text.len() >= 5 || meaning.names_a_thing)
        {
            produced.insert(number.hash.0);
        }
        *slot = Node::Number(number);
        true
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
