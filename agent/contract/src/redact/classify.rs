//! What a token or value is by its looks and its place, before anything is known of recurrence.

use std::borrow::Cow;

use super::{
    Tally,
    admission::{Meaning, Role},
    alphabet::{DIGIT, DOT, LOWER, Profile},
    caller::{self, Caller},
    detect,
    detect::person_name,
    field_name, person_field,
    recurrence::Seen,
    shape, verb,
    vocabulary::{self, Membership},
};
use crate::observation::{Personal, Shape, Text, Token, TokenHash};

/// All that is remembered of a token: never its bytes, unless it was admitted.
pub(super) struct Known {
    pub shape: Shape,
    pub is_word: bool,
    pub personal: Option<Personal>,
    pub text: Option<Text>,
    pub chance: Chance,
    /// Without a salt, which is the token's hash.
    pub meaning: Meaning,
    pub seen: Seen,
}

/// What may make a token that is no word into text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    Never,
    /// Recurrence, this many times the threshold.
    Recurring(u32),
    /// Recurrence, whatever its neighbours are: programs are called so, things are not.
    Command,
    /// Being the only segment of its place: its shape is a value's.
    Alone,
}

/// Nobody names a thing by so many letters that make no word.
const LONG: usize = 10;
/// How many times the threshold is needed for a token that looks more like a value.
const CAUTION: u32 = 3;
impl Known {
    /// As it leaves.
    pub fn show(&self, hash: TokenHash, tally: &mut Tally) -> (Token, Meaning) {
        if let Some(class) = self.personal {
            tally.mask(class);
        }
        let token = Token {
            hash,
            shape: self.shape,
            text: self.text.clone(),
            is_word: self.is_word,
            was_produced: false,
            personal: self.personal,
        };
        (token, Meaning { salt: hash.0, ..self.meaning })
    }
}

/// How much a value looks like a member of an enumeration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Likeness {
    /// Words of the vocabulary only.
    Words,
    /// `EUR`, `IN_TRANSIT`, `pre-flight`: as members are written, with unknown words.
    Member,
    /// Could as well be somebody's name for something; what else the field has must tell.
    Odd,
    Barred,
}

/// Whether a value is written as members of enumerations are.
pub(super) fn likeness(bytes: &[u8], profile: Profile) -> Likeness {
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
    if shape == Shape::Version || vocabulary::membership(text, &words, true) != Membership::Stranger
    {
        return Likeness::Words;
    }
    if words.iter().any(|w| vocabulary::is_gibberish(w) || w.len() > 20) || looks_secret(text) {
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
    let names_one = |w: &String| {
        let w = without_accents(w);
        person_name::is_name(w.as_bytes())
            || person_name::is_joined_name(w.as_bytes())
            || person_name::is_family_name(&w)
    };
    let whole = text.to_lowercase();
    words.iter().any(names_one)
        || person_name::has_particle(words)
        || person_name::is_name(without_accents(&whole).as_bytes())
}

/// Letters of lower-case Latin as the lists of names have them: `josé`, `müller`, `łukasz`.
fn without_accents(word: &str) -> Cow<'_, str> {
    if word.is_ascii() {
        return Cow::Borrowed(word);
    }
    let plain = |c: char| match c {
        'à'..='å' | 'ā' | 'ă' | 'ą' => 'a',
        'ç' | 'ć' | 'ĉ' | 'ċ' | 'č' => 'c',
        'ď' | 'đ' | 'ð' => 'd',
        'è'..='ë' | 'ē' | 'ĕ' | 'ė' | 'ę' | 'ě' => 'e',
        'ĝ' | 'ğ' | 'ġ' | 'ģ' => 'g',
        'ì'..='ï' | 'ĩ' | 'ī' | 'ĭ' | 'į' | 'ı' => 'i',
        'ł' | 'ĺ' | 'ļ' | 'ľ' => 'l',
        'ñ' | 'ń' | 'ņ' | 'ň' => 'n',
        'ò'..='ö' | 'ø' | 'ō' | 'ŏ' | 'ő' => 'o',
        'ŕ' | 'ŗ' | 'ř' => 'r',
        'ś' | 'ŝ' | 'ş' | 'š' | 'ș' => 's',
        'ţ' | 'ť' | 'ț' => 't',
        'ù'..='ü' | 'ũ' | 'ū' | 'ŭ' | 'ů' | 'ű' | 'ų' => 'u',
        'ý' | 'ÿ' => 'y',
        'ź' | 'ż' | 'ž' => 'z',
        other => other,
    };
    // Accents that stand for themselves (Unicode block of combining marks) fall away.
    word.chars().filter(|c| !('\u{300}'..='\u{36f}').contains(c)).map(plain).collect()
}

/// A short secret by how it is written, however often it comes.
fn looks_secret(text: &str) -> bool {
    is_scrambled(text)
        || text
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|piece| is_hexadecimal(piece) || is_typed_blindly(piece))
}

/// `c0ffee`, `deadbeefcafe`, `4a3f2b1`: digits to the base of sixteen and no word.
fn is_hexadecimal(piece: &str) -> bool {
    piece.len() >= 6
        && piece.bytes().all(|b| b.is_ascii_hexdigit())
        && piece.bytes().any(|b| b.is_ascii_alphabetic())
        && !vocabulary::is_word(&piece.to_ascii_lowercase())
}

/// `qwertyuiop`, `letmein`: passwords that everybody thinks of.
fn is_typed_blindly(piece: &str) -> bool {
    const ROWS: [&str; 3] = ["qwertyuiop", "asdfghjkl", "zxcvbnm"];
    const PHRASES: [&str; 5] = ["letmein", "iloveyou", "trustno", "changeme", "opensesame"];
    if piece.len() < 5 {
        return false;
    }
    let lower = piece.to_ascii_lowercase();
    PHRASES.iter().any(|phrase| lower.contains(phrase))
        || ROWS.iter().any(|row| {
            lower.as_bytes().windows(5).any(|run| row.as_bytes().windows(5).any(|r| r == run))
        })
}

/// Letters, digits and cases in disorder and no word: a short secret rather than a name that
/// somebody gave. `dGhpcw`, `tR5kLm9q`, `qZrLkXwTnV`; words beside it (`file.tR5kLm9q`) do not
/// make it one.
pub(super) fn is_scrambled(text: &str) -> bool {
    let class = |b: u8| match b {
        b'0'..=b'9' => 0u8,
        b'a'..=b'z' => 1,
        b'A'..=b'Z' => 2,
        _ => 3,
    };
    let changes = |piece: &str| {
        piece
            .as_bytes()
            .windows(2)
            .filter(|w| matches!(w, [a, b] if class(*a) != class(*b)))
            .count()
    };
    let has_word = |piece: &str| {
        vocabulary::split_words(piece).iter().any(|w| w.len() >= 3 && vocabulary::is_word(w))
    };
    text.split(|c: char| !c.is_ascii_alphanumeric())
        .any(|piece| piece.len() >= 6 && changes(piece) >= 3 && !has_word(piece))
}

/// What a part of a composed name is: `filter[ABCDE1234F]`, `ABCDE1234F.example.com`.
fn detect_within(text: &str) -> Option<Personal> {
    const SEPARATORS: [char; 7] = ['.', '[', ']', '/', '+', ':', '~'];
    if !text.contains(SEPARATORS) {
        return None;
    }
    let pieces = text.split(SEPARATORS).filter(|piece| piece.len() >= 6).map(str::as_bytes);
    pieces
        .map(|piece| (piece, Profile::of(piece)))
        .find_map(|(p, profile)| detect::detect(p, profile))
}

/// `12 rue de la Paix`: numbers and words with spaces between them, as addresses are written.
fn is_phrase_with_number(text: &str, profile: Profile) -> bool {
    profile.digits > 0 && text.split(' ').filter(|part| !part.is_empty()).count() >= 3
}

/// Words with spaces between them that somebody wrote. Names with spaces are of words that are
/// known, but for one of the trade (`Widget Count`); segments of paths have none.
fn is_prose(text: &str, words: &[String], is_path: bool) -> bool {
    let strangers = words.iter().filter(|w| !vocabulary::is_word(w)).count();
    text.contains(' ') && (is_path || strangers > 1 || strangers == words.len())
}

/// All that a token's bytes and place tell, before anything recurred.
#[cold]
pub(super) fn classify(role: Role, bytes: &[u8]) -> Known {
    let profile = Profile::of(bytes);
    let shape = shape::shape(bytes, profile);
    let mut known = Known {
        shape,
        is_word: false,
        personal: detect::detect(bytes, profile),
        text: None,
        chance: Chance::Never,
        meaning: Meaning::NONE,
        seen: Seen::default(),
    };
    // Keys longer than this are data, and would cost more than they tell.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if bytes.len() <= 128 => text,
        _ => return known,
    };
    let words = vocabulary::split_words(text);
    if words.is_empty() {
        // `/-/healthy`, `/apps/-/services`, `/users/~/keys`: one sign is nobody's secret.
        if matches!((role, text), (Role::Path | Role::PathOfPerson, "-" | "~" | "*" | "_" | "@")) {
            known.is_word = true;
            known.text = Some(Text::admit(text));
        }
        return known;
    }
    if role != Role::Path && role != Role::PathOfPerson {
        known.meaning.field = field_name::classify(&words);
        known.meaning.names_a_thing = field_name::names_a_thing(&words);
        known.meaning.caller = caller::caller(&words);
    }
    known.meaning.is_person = person_field::is_person(&words);
    known.meaning.is_person_collection = person_field::is_person_collection(&words);
    // A media type or a cookie of everybody's framework is structure at first sight.
    let is_well_known = match role {
        Role::MediaType => super::body::is_well_known(text),
        Role::Cookie | Role::Header => super::header::is_well_known(text),
        Role::Name => matches!(known.meaning.caller, Caller::Key | Caller::Id),
        _ => false,
    };
    if is_well_known {
        known.is_word = true;
        known.text = Some(Text::admit(text));
        return known;
    }
    known.meaning.is_plural = words.last().is_some_and(|w| w.ends_with('s') || w == "people");
    known.personal = known.personal.or_else(|| detect_within(text));
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
    // Among persons, words that are joined may be what one of them is called; not so where the
    // first is a verb.
    if known.is_word
        && !(is_strict && membership == Membership::Compound && !verb::is_command(&words))
    {
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
    let may_recur = is_structural
        && is_letters
        && profile.digits <= 4
        && bytes.len() <= 64
        && longest <= 24
        // A verb in front is order enough.
        && (is_command(shape, &words) || !looks_secret(text))
        && !is_prose(text, &words, is_path)
        && !is_phrase_with_number(text, profile)
        // What is written so in a path is a title or somebody's name (`/wiki/Иван_Петров`).
        && (text.is_ascii() || !is_path)
        && !words.iter().any(|w| w.len() >= LONG && vocabulary::is_gibberish(w));
    let is_gibberish = words.iter().any(|w| vocabulary::is_gibberish(w));
    known.chance = match role {
        Role::Path if may_recur && !is_gibberish && profile.is_only(DIGIT | DOT) => Chance::Alone,
        Role::Path if may_recur && !is_gibberish && is_command(shape, &words) => Chance::Command,
        Role::Path if may_recur && !is_gibberish => {
            Chance::Recurring(if profile.digits > 0 { CAUTION } else { 1 })
        }
        Role::Path if may_recur || is_short_number(text, shape) => Chance::Alone,
        Role::Path => Chance::Never,
        _ if may_recur => {
            Chance::Recurring(if is_gibberish || !text.is_ascii() { CAUTION } else { 1 })
        }
        _ => Chance::Never,
    };
    known
}

/// `promoteReplica`, `mark-as-shipped`: a verb and what it is done to.
fn is_command(shape: Shape, words: &[String]) -> bool {
    shape == Shape::Compound && verb::is_command(words)
}

/// `3`, `1.1`, `2.0.1`, `2015-03-31`: versions without a letter, unless something else.
fn is_short_number(text: &str, shape: Shape) -> bool {
    // Interfaces have had dates since about then, and few who are born since are in data yet.
    (shape == Shape::Date && text > "2005")
        || (text.len() <= 8
            && text.split('.').all(|part| {
                (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
            }))
}
