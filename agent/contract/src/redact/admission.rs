//! Decides for each token and value whether it is structure, and remembers the decision.

use super::{
    Tally,
    alphabet::{ANY_LETTER, DASH, DIGIT, DOT, HIGH, Profile, UNDERSCORE},
    caller::Caller,
    classify::{Chance, Known, Likeness, classify, likeness},
    detect,
    field_name::{self, Field},
    format,
    intern::Interned,
    keyed_hash::KeyedHash,
    memo::{self, Judged, Memo, Print},
    recurrence::{Generations, Seen, Stamp},
    siblings::{Need, PlaceKind, Segments, Values},
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

/// Independent exchanges in which a value without words of the vocabulary must recur.
const VALUE_RECURRENCES: u32 = 8;

/// Where in a path a segment stands: below which text, ids left open.
#[derive(Clone, Copy)]
pub(super) struct PathPlace {
    key: u64,
    pub kind: PlaceKind,
}

impl PathPlace {
    pub const ROOT: Self = Self { key: 0x5bd1_e995_9d1b_54a5, kind: PlaceKind::Top };

    pub fn below(self, token: &Token) -> Self {
        let text = token.text.as_ref().map(Text::as_str);
        let own = if text.is_some() { token.hash.0 } else { 1 };
        let is_base = token.shape == Shape::Version
            || matches!(
                text,
                Some("api" | "apis" | "rest" | "rpc" | "service" | "services" | "public")
            );
        let kind = if self.kind == PlaceKind::Top && is_base {
            PlaceKind::Top
        } else if is_value(token) {
            PlaceKind::BelowValue
        } else {
            PlaceKind::Other
        };
        // `own` goes through the product: keys of tokens are xored with this, and `a` below `b` is
        // not `b` below `a`.
        let key = (self.key ^ own).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { key: key ^ key >> 29, kind }
    }

    /// Names the place to what is remembered of bodies.
    pub fn key(self) -> u64 {
        self.key
    }
}

/// Whether a segment looks like the identifier of one thing.
fn is_value(token: &Token) -> bool {
    !token.is_word
        && matches!(
            token.shape,
            Shape::Digits(_)
                | Shape::Uuid
                | Shape::Hex(_)
                | Shape::Ulid
                | Shape::Date
                | Shape::DateTime
                | Shape::Opaque(_)
                | Shape::Mixed
        )
}

/// What a token's name says about what stands under it.
#[derive(Clone, Copy)]
pub(super) struct Meaning {
    pub field: Field,
    pub names_a_thing: bool,
    pub is_person: bool,
    pub is_person_collection: bool,
    pub is_plural: bool,
    pub caller: Caller,
    pub salt: u64,
}

impl Meaning {
    pub const NONE: Self = Self {
        field: Field::Open,
        names_a_thing: false,
        is_person: false,
        is_person_collection: false,
        is_plural: false,
        caller: Caller::Unknown,
        salt: 0,
    };
}

static NOTHING: Token = Token {
    hash: TokenHash(0),
    shape: Shape::Empty,
    text: None,
    is_word: false,
    was_produced: false,
    personal: None,
};

struct KnownValue {
    text: Option<Text>,
    likeness: Likeness,
    seen: Seen,
}

pub(super) struct Admission {
    hasher: KeyedHash,
    interned: Interned<(Token, Meaning)>,
    /// What `find` found last where nothing is interned.
    latest: Option<Token>,
    memo: Memo,
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
        let hasher = KeyedHash::new(secret);
        // A seed that nobody knows, and that shows nothing of the secret.
        let seed = [hasher.hash(b"interned"), hasher.hash(b"factor")];
        Self {
            hasher,
            interned: Interned::new(seed),
            latest: None,
            memo: Memo::default(),
            threshold: threshold.max(1),
            tokens: Generations::new(max_tokens),
            values: Generations::new(max_values),
            segments: Generations::new(max_tokens / 4),
            fields: Generations::new(max_values / 4),
            stamp: Stamp::default(),
            is_found: true,
        }
    }

    /// Tells two messages apart within this process; nothing of it leaves.
    pub fn fingerprint(&self, bytes: &[u8]) -> u64 {
        self.interned.fingerprint(bytes)
    }

    pub fn hash(&self, bytes: &[u8]) -> TokenHash {
        TokenHash(self.hasher.hash(bytes))
    }

    /// The token as it may be kept, and what it means for the value under it.
    pub fn token(&mut self, role: Role, bytes: &[u8], tally: &mut Tally) -> (Token, Meaning) {
        let (token, meaning) = self.find(role, bytes, tally);
        (token.clone(), meaning)
    }

    /// As `token`, without a copy.
    #[inline]
    pub fn find(&mut self, role: Role, bytes: &[u8], tally: &mut Tally) -> (&Token, Meaning) {
        let slot = self.interned.slot(role.salt(), bytes);
        if !self.interned.is_at(slot, role.salt(), self.tokens.turn(), bytes) {
            return self.find_slowly(role, bytes, tally);
        }
        let Some((token, meaning)) = self.interned.at(slot) else {
            return (&NOTHING, Meaning::NONE);
        };
        if let Some(class) = token.personal {
            tally.mask(class);
        }
        (token, *meaning)
    }

    /// Changes whenever tokens were forgotten: what is remembered of them elsewhere is to be looked
    /// up again.
    pub fn turn(&self) -> u32 {
        self.tokens.turn()
    }

    #[inline(never)]
    fn find_slowly(&mut self, role: Role, bytes: &[u8], tally: &mut Tally) -> (&Token, Meaning) {
        let hash = self.hash(bytes);
        let known = self.tokens.get_or_insert_with(hash.0 ^ role.salt(), || classify(role, bytes));
        if let (None, Chance::Recurring(times)) = (&known.text, known.chance) {
            if known.seen.note(self.stamp, self.threshold.saturating_mul(times)) {
                known.text = std::str::from_utf8(bytes).ok().map(Text::admit);
            } else {
                tally.withheld += 1;
            }
        }
        let (token, meaning) = known.show(hash, tally);
        if let Some(text) = &token.text {
            self.interned.keep(role.salt(), self.tokens.turn(), text, (token.clone(), meaning));
        }
        (self.latest.insert(token), meaning)
    }

    /// As `token`, for a segment of a path: its neighbours count too.
    pub fn segment(
        &mut self,
        role: Role,
        place: PathPlace,
        bytes: &[u8],
        tally: &mut Tally,
    ) -> (Token, Meaning) {
        let own = role.salt() ^ place.key;
        if let Some((token, meaning)) = self.interned.get(own, self.tokens.turn(), bytes) {
            return (token.clone(), *meaning);
        }
        let hash = self.hash(bytes);
        let key = hash.0 ^ own;
        let known = self.tokens.get_or_insert_with(key, || classify(role, bytes));
        if known.text.is_some() && known.chance != Chance::Alone {
            let shown = known.show(hash, tally);
            if let Some(text) = &shown.0.text {
                self.interned.keep(own, self.tokens.turn(), text, shown.clone());
            }
            return shown;
        }
        let segments = self.segments.get_or_insert_with(place.key, Segments::default);
        let text = || std::str::from_utf8(bytes).ok().map(Text::admit);
        match known.chance {
            Chance::Recurring(times) => {
                if self.is_found
                    && let Need::Times(needed) = segments.note_stranger(hash.0, place.kind)
                    && known.seen.note(self.stamp, self.threshold * times.max(needed))
                {
                    known.text = text();
                }
            }
            Chance::Command => {
                if self.is_found {
                    segments.note_any(hash.0);
                }
                if self.is_found && known.seen.note(self.stamp, self.threshold) {
                    known.text = text();
                }
            }
            // A date is a version where resources are named, and anywhere else a day.
            Chance::Alone if known.shape == Shape::Date && place.kind != PlaceKind::Top => {
                segments.note_any(hash.0);
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
        known.show(hash, tally)
    }

    /// A value that is written as a string, under a field of this meaning.
    pub fn value(&mut self, bytes: &[u8], meaning: Meaning, tally: &mut Tally) -> Value {
        self.judge(bytes, meaning, tally, |judged| judged.value.clone())
    }

    /// As `value`, without a copy.
    #[inline]
    pub fn judge<R>(
        &mut self,
        bytes: &[u8],
        meaning: Meaning,
        tally: &mut Tally,
        read: impl FnOnce(&Judged) -> R,
    ) -> R {
        let print = Print {
            bytes: self.interned.fingerprint(bytes),
            place: memo::place_of(meaning.field, meaning.salt),
        };
        if let Some(judged) = self.memo.settled(print, self.values.turn()) {
            if let Some(class) = judged.value.personal {
                tally.mask(class);
            }
            return read(judged);
        }
        let judged = self.judge_slowly(print, bytes, meaning, tally);
        let read = read(&judged);
        self.memo.keep(print, self.values.turn(), judged);
        read
    }

    #[inline(never)]
    fn judge_slowly(
        &mut self,
        print: Print,
        bytes: &[u8],
        meaning: Meaning,
        tally: &mut Tally,
    ) -> Judged {
        let mut judged = match self.memo.take(print) {
            Some(judged) => judged,
            None => self.look_over(bytes, meaning),
        };
        if let Some(class) = judged.value.personal {
            tally.mask(class);
        }
        if judged.may_be_member {
            judged.value.text = self.enumerable(bytes, judged.value.hash, meaning);
        }
        judged
    }

    fn look_over(&self, bytes: &[u8], meaning: Meaning) -> Judged {
        let hash = self.hash(bytes);
        let profile = Profile::of(bytes);
        let personal = personal_class(bytes, profile, meaning.field);
        let formats = format::formats(bytes, profile);
        let length = u32::try_from(count_characters(bytes, profile)).unwrap_or(u32::MAX);
        let number = formats.contains(Formats::NUMBER).then(|| number(bytes, personal));
        Judged {
            value: Value { hash, formats, length, personal, text: None, number },
            may_be_member: personal.is_none()
                && meaning.field == Field::Open
                && meaning.salt != 0
                && is_identifier(bytes, profile),
            may_name: (1..=64).contains(&length) && !bytes.contains(&b' '),
        }
    }

    /// The class of a JSON number.
    #[inline]
    pub fn number_class(
        &mut self,
        bytes: &[u8],
        meaning: Meaning,
        tally: &mut Tally,
    ) -> Option<Personal> {
        let personal = match meaning.field.personal() {
            Some(class) => Some(class),
            None if bytes.len() >= 11 => {
                let profile = Profile::of(bytes);
                if profile.digits >= 11 { detect::detect(bytes, profile) } else { None }
            }
            None => None,
        };
        if let Some(class) = personal {
            tally.mask(class);
        }
        personal
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
    fn enumerable(&mut self, bytes: &[u8], hash: TokenHash, meaning: Meaning) -> Option<Text> {
        let key = hash.0 ^ meaning.salt.rotate_left(17);
        // Where nothing more becomes text, what is may stay, and nothing is remembered.
        if self.fields.get(meaning.salt).is_some_and(Values::is_crowded) {
            return self.values.get(key).and_then(|known| known.text.clone());
        }
        let known = self.values.get_or_insert_with(key, || KnownValue {
            text: None,
            likeness: likeness(bytes, Profile::of(bytes)),
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
        // `hash` may be of a value that only has the same fingerprint.
        if is_member && self.hasher.hash(bytes) == hash.0 {
            known.text = std::str::from_utf8(bytes).ok().map(Text::admit);
        }
        known.text.clone()
    }
}

/// As names are written in programs, and short.
fn is_identifier(bytes: &[u8], profile: Profile) -> bool {
    profile.length <= 40
        && bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && profile.is_only(ANY_LETTER | DIGIT | UNDERSCORE | DOT | DASH)
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

/// Of what is written as a number.
pub(super) fn number(bytes: &[u8], personal: Option<Personal>) -> Number {
    Number {
        is_integer: !bytes.iter().any(|b| matches!(b, b'.' | b'e' | b'E')),
        is_negative: bytes.first() == Some(&b'-'),
        bits: format::magnitude_bits(bytes),
        hash: None,
        personal,
    }
}
