//! Which tokens are words of the vocabulary of APIs, alone or joined: `line-items`, `createdAt`.

use std::{collections::HashSet, sync::OnceLock};

use super::{verb, vocabulary_words::WORDS};

fn words() -> &'static HashSet<&'static str> {
    static SET: OnceLock<HashSet<&'static str>> = OnceLock::new();
    SET.get_or_init(|| WORDS.split_ascii_whitespace().collect())
}

/// One lower-case word, in the singular or a regular plural.
pub(super) fn is_word(word: &str) -> bool {
    let words = words();
    let plural_of = |ending: &str, singular: &str| {
        word.strip_suffix(ending)
            .filter(|stem| stem.len() >= 2)
            .is_some_and(|stem| words.contains(format!("{stem}{singular}").as_str()))
    };
    words.contains(word)
        || verb::is_word(word)
        || (word.len() >= 4 && (plural_of("s", "") || plural_of("es", "") || plural_of("ies", "y")))
}

/// Lower-case words of a token, split at what is not alphanumeric, at camelCase and between
/// letters and digits.
pub(super) fn split_words(token: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut word = String::new();
    let mut previous: Option<char> = None;
    let mut chars = token.chars().peekable();
    while let Some(c) = chars.next() {
        let is_boundary = match previous {
            Some(p) if c.is_alphanumeric() => {
                (p.is_lowercase() && c.is_uppercase())
                    || (p.is_numeric() != c.is_numeric())
                    // The last capital of a run begins the next word: `HTTPServer`.
                    || (p.is_uppercase() && c.is_uppercase()
                        && chars.peek().is_some_and(|n| n.is_lowercase()))
            }
            _ => true,
        };
        if is_boundary && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
            previous = Some(c);
        } else {
            previous = None;
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// How often two letters follow each other in the words of the vocabulary.
fn pairs() -> &'static [[u8; 26]; 26] {
    static PAIRS: OnceLock<[[u8; 26]; 26]> = OnceLock::new();
    PAIRS.get_or_init(|| {
        let mut counts = [[0u8; 26]; 26];
        for word in WORDS.split_ascii_whitespace() {
            for pair in word.as_bytes().windows(2) {
                if let Some(count) = pair_of(pair).and_then(|(a, b)| counts.get_mut(a)?.get_mut(b))
                {
                    *count = count.saturating_add(1);
                }
            }
        }
        counts
    })
}

fn pair_of(pair: &[u8]) -> Option<(usize, usize)> {
    let letter = |b: &u8| b.checked_sub(b'a').map(usize::from);
    if let [a, b] = pair { Some((letter(a)?, letter(b)?)) } else { None }
}

/// Letters that hardly follow each other in words: a random token rather than a word that the
/// vocabulary lacks. `word` is lower case. Too little can be told of short ones.
pub(super) fn is_gibberish(word: &str) -> bool {
    if word.len() < 6 || !word.bytes().all(|b| b.is_ascii_lowercase()) || is_word(word) {
        return false;
    }
    let pairs = pairs();
    let is_rare = |pair: &[u8]| {
        pair_of(pair).and_then(|(a, b)| pairs.get(a)?.get(b)).is_some_and(|count| *count < 3)
    };
    let rare = word.as_bytes().windows(2).filter(|pair| is_rare(pair)).count();
    rare >= 2 && rare * 3 >= word.len() - 1
}

/// How a token relates to the vocabulary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Membership {
    Stranger,
    /// Several words joined.
    Compound,
    Word,
}

/// `may_end_in_digits`: `address1` is a word too. Not so in paths, where `order17` is a value.
pub(super) fn membership(token: &str, words: &[String], may_end_in_digits: bool) -> Membership {
    let lower = token.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase();
    if lower.is_empty() || token.len() > 64 || words.len() > 8 {
        return Membership::Stranger;
    }
    if is_word(&lower) {
        return Membership::Word;
    }
    let mut letters = words;
    if may_end_in_digits
        && let Some((last, rest)) = words.split_last()
        && last.len() <= 2
        && last.bytes().all(|b| b.is_ascii_digit())
        && !rest.is_empty()
    {
        letters = rest;
    }
    let known = |w: &String| w.len() >= 2 && is_word(w);
    // Single letters join (`x-axis`, `eTag`), but do not make a token by themselves.
    let is_known = !letters.is_empty()
        && letters.iter().any(known)
        && letters
            .iter()
            .all(|w| known(w) || matches!(w.as_str(), "a" | "e" | "i" | "x" | "y" | "z"));
    if !is_known {
        Membership::Stranger
    } else if letters.len() == 1 {
        Membership::Word
    } else {
        Membership::Compound
    }
}

/// `v1`, `v2.1`, `v1beta1`, `2.0`-like versions with their letter.
pub(super) fn is_version(token: &str) -> bool {
    let Some(rest) = token.strip_prefix(['v', 'V']) else { return false };
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (major, tail) = rest.split_at(end);
    if !(1..=3).contains(&major.len()) || token.len() > 12 {
        return false;
    }
    match tail.strip_prefix("alpha").or(tail.strip_prefix("beta")).or(tail.strip_prefix("rc")) {
        Some(number) => number.len() <= 2 && number.bytes().all(|b| b.is_ascii_digit()),
        None => {
            tail.is_empty()
                || (tail.starts_with('.')
                    && tail.split('.').skip(1).all(|part| {
                        (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
                    }))
        }
    }
}
