//! Decides for each token and value whether it is structure, and remembers the decision.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use super::{
    Tally,
    alphabet::{HIGH, Profile},
    detect,
    detect::person_name,
    field_name::{self, Field},
    format,
    recurrence::{Generations, Seen, Stamp},
    shape,
    vocabulary::{self, Membership},
};
use crate::observation::{Formats, Number, Personal, Shape, Text, Token, TokenHash, Value};

/// Where a token stands; each place counts recurrence for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Path,
    /// The path segment after a collection of persons.
    PathOfPerson,
    /// JSON keys, query parameters, form fields.
    Name,
    /// A key of an object that maps persons to something.
    NameOfPerson,
    Header,
    Cookie,
    MediaType,
    Host,
}

impl Role {
    fn salt(self) -> u64 {
        // Any odd constant keeps the places apart; the hash is keyed already.
        (self as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// All that is remembered of a token: never its bytes, unless it was admitted.
pub(super) struct Known {
    pub shape: Shape,
    pub is_word: bool,
    pub personal: Option<Personal>,
    text: Option<Text>,
    may_recur: bool,
    pub field: Field,
    pub names_a_thing: bool,
    pub is_person: bool,
    pub is_person_collection: bool,
    pub is_plural: bool,
    seen: Seen,
}

/// What a token's name says about what stands under it.
#[derive(Clone, Copy)]
pub(super) struct Meaning {
    pub field: Field,
    pub names_a_thing: bool,
    pub is_person: bool,
    pub is_person_collection: bool,
    pub is_plural: bool,
    pub salt: u64,
}

impl Meaning {
    pub const NONE: Self = Self {
        field: Field::Open,
        names_a_thing: false,
        is_person: false,
        is_person_collection: false,
        is_plural: false,
        salt: 0,
    };
}

struct KnownValue {
    text: Option<Text>,
    is_barred: bool,
    seen: Seen,
}

pub(super) struct Admission {
    hasher: SipHasher24,
    threshold: u32,
    tokens: Generations<Known>,
    values: Generations<KnownValue>,
    pub stamp: Stamp,
}

impl Admission {
    pub fn new(secret: [u8; 16], threshold: u32, max_tokens: usize, max_values: usize) -> Self {
        Self {
            hasher: SipHasher24::new_with_key(&secret),
            threshold: threshold.max(1),
            tokens: Generations::new(max_tokens),
            values: Generations::new(max_values),
            stamp: Stamp::default(),
        }
    }

    pub fn hash(&self, bytes: &[u8]) -> TokenHash {
        let mut hasher = self.hasher;
        hasher.write(bytes);
        TokenHash(hasher.finish())
    }

    /// The token as it may be kept, and what it means for the value under it.
    pub fn token(&mut self, role: Role, bytes: &[u8], tally: &mut Tally) -> (Token, Meaning) {
        let hash = self.hash(bytes);
        let known = self.tokens.get_or_insert_with(hash.0 ^ role.salt(), || classify(role, bytes));
        if known.text.is_none() && known.may_recur {
            if known.seen.note(self.stamp, self.threshold) {
                known.text = std::str::from_utf8(bytes).ok().map(Text::admit);
            } else {
                tally.withheld += 1;
            }
        }
        if let Some(class) = known.personal {
            tally.mask(class);
        }
        let token = Token {
            hash,
            shape: known.shape,
            text: known.text.clone(),
            is_word: known.is_word,
            was_produced: false,
            personal: known.personal,
        };
        let meaning = Meaning {
            field: known.field,
            names_a_thing: known.names_a_thing,
            is_person: known.is_person,
            is_person_collection: known.is_person_collection,
            is_plural: known.is_plural,
            salt: hash.0,
        };
        (token, meaning)
    }

    /// A value that is written as a string, under a field of this meaning.
    pub fn value(&mut self, bytes: &[u8], meaning: Meaning, tally: &mut Tally) -> Value {
        let hash = self.hash(bytes);
        let profile = Profile::of(bytes);
        let personal = personal_class(bytes, profile, meaning.field);
        if let Some(class) = personal {
            tally.mask(class);
        }
        let formats = format::formats(bytes, profile);
        let length = count_characters(bytes, profile);
        let number = formats.contains(Formats::NUMBER).then(|| number(bytes, hash, personal));
        let text = if personal.is_none() && meaning.field == Field::Open && meaning.salt != 0 {
            self.enumerable(bytes, profile, hash, meaning)
        } else {
            None
        };
        Value {
            hash,
            formats,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            personal,
            text,
            number,
        }
    }

    /// A JSON number.
    pub fn number(&mut self, bytes: &[u8], meaning: Meaning, tally: &mut Tally) -> Number {
        let hash = self.hash(bytes);
        let profile = Profile::of(bytes);
        let personal = match meaning.field.personal() {
            Some(class) => Some(class),
            None if profile.digits >= 11 => detect::detect(bytes, profile),
            None => None,
        };
        if let Some(class) = personal {
            tally.mask(class);
        }
        number(bytes, hash, personal)
    }

    /// Text of a value that may be a member of an enumeration: an identifier that recurred under
    /// this very field.
    fn enumerable(
        &mut self,
        bytes: &[u8],
        profile: Profile,
        hash: TokenHash,
        meaning: Meaning,
    ) -> Option<Text> {
        let is_identifier = profile.length <= 40
            && bytes.first().is_some_and(u8::is_ascii_alphabetic)
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'));
        if !is_identifier {
            return None;
        }
        let known =
            self.values.get_or_insert_with(hash.0 ^ meaning.salt.rotate_left(17), || KnownValue {
                text: None,
                is_barred: is_barred_value(bytes, profile),
                seen: Seen::default(),
            });
        if known.is_barred {
            return None;
        }
        if known.text.is_none() && known.seen.note(self.stamp, self.threshold) {
            known.text = std::str::from_utf8(bytes).ok().map(Text::admit);
        }
        known.text.clone()
    }
}

/// Characters of UTF-8; bytes where there is nothing beyond ASCII.
pub(super) fn count_characters(bytes: &[u8], profile: Profile) -> usize {
    if profile.has(HIGH) {
        bytes.iter().filter(|b| **b & 0xc0 != 0x80).count()
    } else {
        bytes.len()
    }
}

fn personal_class(bytes: &[u8], profile: Profile, field: Field) -> Option<Personal> {
    match field {
        _ if bytes.is_empty() => None,
        Field::Personal(class) if field_name::is_credential(class) => {
            // A JWT in a field named `token` is still a JWT.
            match detect::detect(bytes, profile) {
                Some(Personal::Jwt) => Some(Personal::Jwt),
                Some(hit @ (Personal::CloudKey | Personal::ApiKey | Personal::PrivateKey)) => {
                    Some(hit)
                }
                _ => Some(class),
            }
        }
        Field::Personal(class) => Some(detect::detect(bytes, profile).unwrap_or(class)),
        Field::Open | Field::Quiet | Field::Name => detect::detect(bytes, profile),
    }
}

fn number(bytes: &[u8], hash: TokenHash, personal: Option<Personal>) -> Number {
    Number {
        is_integer: !bytes.iter().any(|b| matches!(b, b'.' | b'e' | b'E')),
        is_negative: bytes.first() == Some(&b'-'),
        bits: format::magnitude_bits(bytes),
        hash,
        personal,
    }
}

fn is_barred_value(bytes: &[u8], profile: Profile) -> bool {
    let shape = shape::shape(bytes, profile);
    let is_shaped = matches!(shape, Shape::Word | Shape::Compound | Shape::Mixed | Shape::Version);
    let is_numbered = profile.digits > 4;
    !is_shaped || is_numbered || has_person_name(bytes)
}

fn has_person_name(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return true };
    words_name_a_person(text, &vocabulary::split_words(text))
}

fn words_name_a_person(text: &str, words: &[String]) -> bool {
    words.iter().any(|w| person_name::is_name(w.as_bytes()))
        || person_name::is_name(text.to_lowercase().as_bytes())
}

#[cold]
fn classify(role: Role, bytes: &[u8]) -> Known {
    let profile = Profile::of(bytes);
    let shape = shape::shape(bytes, profile);
    let mut known = Known {
        shape,
        is_word: false,
        personal: detect::detect(bytes, profile),
        text: None,
        may_recur: false,
        field: Field::Open,
        names_a_thing: false,
        is_person: false,
        is_person_collection: false,
        is_plural: false,
        seen: Seen::default(),
    };
    // Keys longer than this are data, and would cost more than they tell.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= 128 => text,
        _ => return known,
    };
    let words = vocabulary::split_words(text);
    if words.is_empty() {
        return known;
    }
    if role != Role::Path && role != Role::PathOfPerson {
        known.field = field_name::classify(&words);
        known.names_a_thing = field_name::names_a_thing(&words);
    }
    known.is_person = field_name::is_person(&words);
    known.is_person_collection = vocabulary::is_person_collection(&words);
    // A media type or a cookie of everybody's framework is structure at first sight.
    let is_well_known = match role {
        Role::MediaType => super::body::is_well_known(text),
        Role::Cookie | Role::Header => super::header::is_well_known(text),
        _ => false,
    };
    if is_well_known {
        known.is_word = true;
        known.text = Some(Text::admit(text));
        return known;
    }
    known.is_plural = words.last().is_some_and(|w| w.ends_with('s') || w == "people");
    if known.personal.is_some() {
        return known;
    }
    let is_path = matches!(role, Role::Path | Role::PathOfPerson);
    let membership = vocabulary::membership(text, &words, !is_path);
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.[]$@: ~".contains(&b));
    // Digits, dates, ids and random tokens are never structure.
    let is_structural = matches!(
        shape,
        Shape::Word | Shape::Compound | Shape::Mixed | Shape::Version | Shape::Other
    );
    known.is_word = is_structural
        && is_plain
        && (membership != Membership::Stranger
            || (shape == Shape::Version
                && !matches!(role, Role::PathOfPerson | Role::NameOfPerson)));
    let is_strict = matches!(role, Role::PathOfPerson | Role::NameOfPerson);
    if known.is_word && !(is_strict && membership == Membership::Compound) {
        known.text = Some(Text::admit(text));
        return known;
    }
    if !known.is_word && words_name_a_person(text, &words) {
        known.personal = Some(Personal::Name);
        return known;
    }
    if is_strict && !known.is_word {
        // Numbers and UUIDs are told by their shape; anything else is somebody's name.
        if matches!(shape, Shape::Word | Shape::Compound | Shape::Mixed | Shape::Other) {
            known.personal = Some(Personal::Username);
        }
        return known;
    }
    let longest = words.iter().map(|w| w.chars().count()).max().unwrap_or(0);
    let is_letters = text.chars().all(|c| c.is_alphanumeric() || "-_.[]$@: ~+/".contains(c));
    known.may_recur =
        is_structural && is_letters && profile.digits <= 4 && bytes.len() <= 64 && longest <= 24;
    known
}
