//! Decides for each token and value whether it is structure, and remembers the decision.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher24;

use super::{
    Tally,
    alphabet::{DIGIT, DOT, HIGH, LOWER, Profile},
    detect,
    detect::person_name,
    field_name::{self, Field},
    format,
    recurrence::{Generations, Seen, Stamp},
    shape,
    siblings::{Need, Segments, Values},
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
    chance: Chance,
    pub field: Field,
    pub names_a_thing: bool,
    pub is_person: bool,
    pub is_person_collection: bool,
    pub is_plural: bool,
    seen: Seen,
}

/// What may make a token that is no word into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chance {
    Never,
    /// Recurrence, this many times the threshold.
    Recurring(u32),
    /// Being the only segment of its place: its shape is a value's.
    Alone,
}

/// How many times the threshold is needed for a token that looks more like a value.
const CAUTION: u32 = 3;
/// Independent exchanges in which a value without words of the vocabulary must recur.
const VALUE_RECURRENCES: u32 = 8;

/// Where in a path a segment stands: below which text, ids left open.
#[derive(Clone, Copy)]
pub(super) struct PathPlace {
    key: u64,
    /// Only bases of interfaces (`api`, `v1`) stand before it.
    is_at_top: bool,
}

impl PathPlace {
    pub const ROOT: Self = Self { key: 0x5bd1_e995_9d1b_54a5, is_at_top: true };

    pub fn below(self, token: &Token) -> Self {
        let text = token.text.as_ref().map(Text::as_str);
        let own = if text.is_some() { token.hash.0 } else { 1 };
        let is_base = token.shape == Shape::Version
            || matches!(
                text,
                Some("api" | "apis" | "rest" | "rpc" | "service" | "services" | "public")
            );
        Self {
            key: self.key.rotate_left(23).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ own,
            is_at_top: self.is_at_top && is_base,
        }
    }
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
    likeness: Likeness,
    seen: Seen,
}

/// How much a value looks like a member of an enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Likeness {
    /// Words of the vocabulary only.
    Words,
    /// `EUR`, `IN_TRANSIT`, `pre-flight`: as members are written, with unknown words.
    Member,
    /// Could as well be somebody's name for something; what else the field has must tell.
    Odd,
    Barred,
}

pub(super) struct Admission {
    hasher: SipHasher24,
    threshold: u32,
    tokens: Generations<Known>,
    values: Generations<KnownValue>,
    segments: Generations<Segments>,
    fields: Generations<Values>,
    pub stamp: Stamp,
    /// The exchange proves that its path exists.
    pub is_found: bool,
}

impl Admission {
    pub fn new(secret: [u8; 16], threshold: u32, max_tokens: usize, max_values: usize) -> Self {
        Self {
            hasher: SipHasher24::new_with_key(&secret),
            threshold: threshold.max(1),
            tokens: Generations::new(max_tokens),
            values: Generations::new(max_values),
            segments: Generations::new(max_tokens / 4),
            fields: Generations::new(max_values / 4),
            stamp: Stamp::default(),
            is_found: true,
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
        if let (None, Chance::Recurring(times)) = (&known.text, known.chance) {
            if known.seen.note(self.stamp, self.threshold.saturating_mul(times)) {
                known.text = std::str::from_utf8(bytes).ok().map(Text::admit);
            } else {
                tally.withheld += 1;
            }
        }
        known.show(hash, known.text.clone(), tally)
    }

    /// As `token`, for a segment of a path: its neighbours count too.
    pub fn segment(
        &mut self,
        role: Role,
        place: PathPlace,
        bytes: &[u8],
        tally: &mut Tally,
    ) -> (Token, Meaning) {
        let hash = self.hash(bytes);
        let key = hash.0 ^ role.salt() ^ place.key;
        let known = self.tokens.get_or_insert_with(key, || classify(role, bytes));
        if known.is_word && known.text.is_some() {
            return known.show(hash, known.text.clone(), tally);
        }
        let segments = self.segments.get_or_insert_with(place.key, Segments::default);
        let text = || std::str::from_utf8(bytes).ok().map(Text::admit);
        match known.chance {
            Chance::Recurring(times) => {
                if known.text.is_none()
                    && self.is_found
                    && let Need::Times(needed) = segments.note_stranger(hash.0, place.is_at_top)
                    && known.seen.note(self.stamp, self.threshold * times.max(needed))
                {
                    known.text = text();
                }
            }
            Chance::Alone => {
                if self.is_found {
                    segments.note_odd(hash.0, self.stamp, self.threshold);
                }
                let is_alone = segments.is_alone(hash.0, self.threshold);
                known.text = known.text.take().filter(|_| is_alone);
                if is_alone && known.text.is_none() {
                    known.text = text();
                }
            }
            Chance::Never if !self.is_found => {}
            Chance::Never if known.personal.is_some() => segments.note_person(hash.0),
            Chance::Never => segments.note_any(hash.0),
        }
        if known.text.is_none() && known.chance != Chance::Never {
            tally.withheld += 1;
        }
        known.show(hash, known.text.clone(), tally)
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

    /// A random value that a header or parameter of any name sends again and again.
    pub fn repeats_as_credential(&mut self, bytes: &[u8], name: Meaning, value: &Value) -> bool {
        if bytes.len() < 20 || value.personal != Some(Personal::Secret) {
            return false;
        }
        let field = self.fields.get_or_insert_with(!name.salt, Values::default);
        field.note(value.hash.0, self.stamp);
        field.repeat()
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
                likeness: likeness(bytes, profile),
                seen: Seen::default(),
            });
        if known.text.is_some() {
            return known.text.clone();
        }
        let is_member = if known.likeness == Likeness::Words {
            known.seen.note(self.stamp, self.threshold)
        } else {
            let field = self.fields.get_or_insert_with(meaning.salt, Values::default);
            field.note(hash.0, self.stamp);
            let needed = VALUE_RECURRENCES.max(self.threshold);
            known.likeness != Likeness::Barred
                && !field.is_crowded()
                && known.seen.note(self.stamp, needed)
                && (known.likeness == Likeness::Member || field.stay_few())
        };
        if is_member {
            known.text = std::str::from_utf8(bytes).ok().map(Text::admit);
        }
        known.text.clone()
    }
}

impl Known {
    fn show(&self, hash: TokenHash, text: Option<Text>, tally: &mut Tally) -> (Token, Meaning) {
        if let Some(class) = self.personal {
            tally.mask(class);
        }
        let token = Token {
            hash,
            shape: self.shape,
            text,
            is_word: self.is_word,
            was_produced: false,
            personal: self.personal,
        };
        let meaning = Meaning {
            field: self.field,
            names_a_thing: self.names_a_thing,
            is_person: self.is_person,
            is_person_collection: self.is_person_collection,
            is_plural: self.is_plural,
            salt: hash.0,
        };
        (token, meaning)
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

fn likeness(bytes: &[u8], profile: Profile) -> Likeness {
    let shape = shape::shape(bytes, profile);
    let is_shaped = matches!(shape, Shape::Word | Shape::Compound | Shape::Mixed | Shape::Version);
    let Ok(text) = std::str::from_utf8(bytes) else { return Likeness::Barred };
    if !is_shaped || profile.digits > 4 {
        return Likeness::Barred;
    }
    let words = vocabulary::split_words(text);
    if words_name_a_person(text, &words) {
        return Likeness::Barred;
    }
    if shape == Shape::Version
        || vocabulary::membership(text, &words, true) != Membership::Stranger
    {
        return Likeness::Words;
    }
    if words.iter().any(|w| vocabulary::is_gibberish(w) || w.len() > 20) {
        return Likeness::Barred;
    }
    let has_known = words.iter().any(|w| w.len() >= 2 && vocabulary::is_word(w));
    match (profile.digits, has_known) {
        (0, true) => Likeness::Member,
        (0, false) if !profile.has(LOWER) => Likeness::Member,
        (0, false) | (_, true) => Likeness::Odd,
        // Letters among digits and no word: as likely a short secret.
        (_, false) => Likeness::Barred,
    }
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
        chance: Chance::Never,
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
        Role::Name => {
            let joined = words.concat();
            field_name::is_credential_name(&joined) || field_name::is_caller_id(&joined)
        }
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
            || (shape == Shape::Version && role != Role::NameOfPerson));
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
    let may_recur =
        is_structural && is_letters && profile.digits <= 4 && bytes.len() <= 64 && longest <= 24;
    let is_gibberish = words.iter().any(|w| vocabulary::is_gibberish(w));
    known.chance = match role {
        Role::Path if may_recur && !is_gibberish && profile.is_only(DIGIT | DOT) => Chance::Alone,
        Role::Path if may_recur && !is_gibberish => {
            Chance::Recurring(if profile.digits > 0 { CAUTION } else { 1 })
        }
        Role::Path if may_recur || is_short_number(text, shape) => Chance::Alone,
        Role::Path => Chance::Never,
        _ if may_recur => Chance::Recurring(if is_gibberish { CAUTION } else { 1 }),
        _ => Chance::Never,
    };
    known
}

/// `3`, `1.1`, `2.0.1`, `2015-03-31`: versions without a letter, unless something else.
fn is_short_number(text: &str, shape: Shape) -> bool {
    shape == Shape::Date
        || (text.len() <= 8
            && text.split('.').all(|part| {
                (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
            }))
}
