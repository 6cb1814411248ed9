//! Finds personal data in a body and writes something else in its place, changing nothing more.

use std::{borrow::Cow, collections::HashMap};

use http::{HeaderMap, header::CONTENT_TYPE};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode, percent_encode};
use serde::de::IgnoredAny;
use stoa_contract::{
    observation::Personal,
    redact::inspect::{class_of_field, class_of_value},
};

#[derive(Debug, PartialEq, Eq)]
pub enum Masked {
    /// Nothing was found.
    Clean,
    /// The body with what was found replaced.
    Found(Vec<u8>),
    /// Not of a type that we take apart.
    Unreadable,
}

#[derive(Debug)]
pub struct Masker {
    kinds: Vec<Personal>,
    replacement: String,
    /// As a JSON text, and in a form.
    in_json: String,
    in_form: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Form,
    Text,
}

/// More words than the longest number that people write in groups has.
const MOST_WORDS: usize = 8;

impl Masker {
    pub fn new(kinds: Vec<Personal>, replacement: String) -> Self {
        Self {
            kinds,
            in_json: serde_json::Value::from(replacement.as_str()).to_string(),
            in_form: percent_encode(replacement.as_bytes(), NON_ALPHANUMERIC).to_string(),
            replacement,
        }
    }

    /// `media`: the content type. Without one the body says itself what it is.
    pub fn mask(&self, media: Option<&str>, body: &[u8]) -> Masked {
        let media = match media.map(read_media) {
            Some(None) => return Masked::Unreadable,
            Some(Some(media)) => media,
            None if matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'"')) => {
                Media::Json
            }
            None => Media::Text,
        };
        let masked = match media {
            // What is called JSON and is none is read as the text that it is.
            Media::Json if serde_json::from_slice::<IgnoredAny>(body).is_ok() => {
                self.mask_json(body)
            }
            Media::Form => self.mask_form(body),
            Media::Json | Media::Text => match std::str::from_utf8(body) {
                Ok(text) => self.mask_lines(text).map(String::into_bytes),
                Err(_) => return Masked::Unreadable,
            },
        };
        masked.map_or(Masked::Clean, Masked::Found)
    }

    fn is_personal(&self, value: &str) -> bool {
        class_of(value).is_some_and(|class| self.kinds.contains(&class))
    }

    /// Only whole numbers identify somebody: the digits of one measurement in ten pass the check of
    /// a card number. Some write whole numbers with a fraction of zeros.
    fn is_personal_number(&self, literal: &[u8]) -> bool {
        let text = std::str::from_utf8(literal).unwrap_or_default();
        let whole = match text.split_once('.') {
            Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole,
            _ => text,
        };
        whole.bytes().all(|byte| byte.is_ascii_digit()) && self.is_personal(whole)
    }

    fn is_personal_field(&self, name: &str) -> bool {
        class_of_field(name).is_some_and(|class| self.kinds.contains(&class))
    }

    /// Goes through the literals of a valid document and copies everything else as it is: numbers
    /// keep their digits, and members their order.
    fn mask_json(&self, json: &[u8]) -> Option<Vec<u8>> {
        let mut out = Output::new(json);
        let mut fields = HashMap::new();
        // Whether the members of each object or list around us belong to a personal field.
        let mut stack = vec![false];
        let mut is_field_personal = false;
        let mut at = 0;
        while let Some(byte) = json.get(at) {
            let end = match byte {
                b'"' => text_end(json, at),
                b'-' | b'0'..=b'9' => number_end(json, at),
                b'{' | b'[' => {
                    stack.push(is_field_personal);
                    at += 1;
                    continue;
                }
                b'}' | b']' => {
                    stack.pop();
                    is_field_personal = stack.last().copied().unwrap_or(false);
                    at += 1;
                    continue;
                }
                b',' => {
                    is_field_personal = stack.last().copied().unwrap_or(false);
                    at += 1;
                    continue;
                }
                _ => {
                    at += 1;
                    continue;
                }
            };
            let literal = json.get(at..end).unwrap_or_default();
            if *byte == b'"' {
                let text: String = serde_json::from_slice(literal).unwrap_or_default();
                let is_name = next_is_colon(json, end);
                if is_name {
                    is_field_personal = stack.last().copied().unwrap_or(false)
                        || *fields.entry(literal).or_insert_with(|| self.is_personal_field(&text));
                }
                if is_field_personal && !is_name && !text.is_empty() {
                    out.replace(at, end, &self.in_json);
                } else if let Some(masked) = self.mask_lines(&text) {
                    out.replace(at, end, &serde_json::Value::from(masked).to_string());
                }
            } else if is_field_personal || self.is_personal_number(literal) {
                // A number stays one, so that whoever reads it still can.
                out.replace(at, end, "0");
            }
            at = end;
        }
        out.finish()
    }

    /// `application/x-www-form-urlencoded`, by the URL standard.
    fn mask_form(&self, form: &[u8]) -> Option<Vec<u8>> {
        let mut out = Output::new(form);
        let mut start = 0;
        for pair in form.split(|byte| *byte == b'&') {
            let end = start + pair.len();
            let equals = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = pair.split_at(equals.unwrap_or(0));
            let decode = |part: &[u8]| {
                let spaced: Vec<u8> =
                    part.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
                percent_decode(&spaced).decode_utf8_lossy().into_owned()
            };
            let value = value.strip_prefix(b"=").unwrap_or(value);
            let text = decode(value);
            let value_start = end - value.len();
            if !text.is_empty() && self.is_personal_field(&decode(name)) {
                out.replace(value_start, end, &self.in_form);
            } else if let Some(masked) = self.mask_lines(&text) {
                let encoded = percent_encode(masked.as_bytes(), NON_ALPHANUMERIC).to_string();
                out.replace(value_start, end, &encoded);
            }
            start = end + 1;
        }
        out.finish()
    }

    /// `None`: nothing was found. A line at a time, so that the cost grows with the text only.
    fn mask_lines(&self, text: &str) -> Option<String> {
        let mut masked = String::new();
        let mut is_changed = false;
        for line in text.split_inclusive('\n').flat_map(pieces) {
            let line = self.mask_line(line);
            is_changed |= matches!(line, Cow::Owned(_));
            masked.push_str(&line);
        }
        is_changed.then_some(masked)
    }

    /// Masks the fewest words that leave nothing to be found.
    fn mask_line<'a>(&self, line: &'a str) -> Cow<'a, str> {
        // A class that is of no interest may hide one that is.
        if class_of(line).is_none() {
            return Cow::Borrowed(line);
        }
        let mut words: Vec<(usize, usize)> = Vec::new();
        for word in line.split(is_separator) {
            if !word.is_empty() {
                let start = word.as_ptr() as usize - line.as_ptr() as usize;
                words.push((start, start + word.len()));
            }
        }
        let text = |first: usize, last: usize| {
            let (start, end) = (words.get(first)?.0, words.get(last)?.1);
            line.get(start..end)
        };
        let is_hit = |first, last| text(first, last).is_some_and(|text| self.is_personal(text));
        // By the first and the last word of each.
        let mut spans: Vec<(usize, usize)> = Vec::new();
        for count in 1..=MOST_WORDS.min(words.len()) {
            for first in 0..=words.len() - count {
                let mut last = first + count - 1;
                // Only numbers are written in several words.
                let is_apart = |at| text(at, at).is_some_and(|word| !word.contains(DIGIT));
                if count > 1 && (is_apart(first) || is_apart(last)) {
                    continue;
                }
                let is_masked = spans.iter().any(|(s, e)| first <= *e && *s <= last);
                if is_masked || !is_hit(first, last) {
                    continue;
                }
                // The start of a number in groups may look like a whole one.
                while text(last + 1, last + 1).is_some_and(is_number) && is_hit(first, last + 1) {
                    last += 1;
                }
                spans.push((first, last));
            }
        }
        if spans.is_empty() && !self.is_personal(line) {
            return Cow::Borrowed(line);
        }
        spans.sort_unstable();
        let mut masked = String::with_capacity(line.len());
        let mut at = 0;
        for (first, last) in spans {
            let bounds = (words.get(first), words.get(last));
            let (Some((start, _)), Some((_, end))) = bounds else { continue };
            masked.push_str(line.get(at..*start).unwrap_or_default());
            masked.push_str(&self.replacement);
            at = *end;
        }
        masked.push_str(line.get(at..).unwrap_or_default());
        // Held together by more than words: nothing of it stays.
        if self.is_personal(&masked) {
            Cow::Owned(self.replacement.clone())
        } else {
            Cow::Owned(masked)
        }
    }
}

/// The source with some spans replaced; nothing is copied before the first.
struct Output<'a> {
    source: &'a [u8],
    written: Vec<u8>,
    copied: usize,
}

impl<'a> Output<'a> {
    fn new(source: &'a [u8]) -> Self {
        Self { source, written: Vec::new(), copied: 0 }
    }

    fn replace(&mut self, start: usize, end: usize, with: &str) {
        self.written.extend_from_slice(self.source.get(self.copied..start).unwrap_or_default());
        self.written.extend_from_slice(with.as_bytes());
        self.copied = end;
    }

    fn finish(mut self) -> Option<Vec<u8>> {
        if self.copied == 0 {
            return None;
        }
        self.written.extend_from_slice(self.source.get(self.copied..).unwrap_or_default());
        Some(self.written)
    }
}

/// The detectors know one blank; tabs and no-break spaces are no hiding-place.
fn class_of(text: &str) -> Option<Personal> {
    if text.chars().any(|c| c.is_whitespace() && c != ' ') {
        let plain: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
        return class_of_value(plain.as_bytes());
    }
    class_of_value(text.as_bytes())
}

const DIGIT: [char; 10] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];

fn is_number(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit() || b"-.()".contains(&byte))
}

/// Blanks and what stands between the words of prose and of records.
fn is_separator(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, ',' | ';' | '"' | '\'' | '<' | '>' | '|' | '=' | '{' | '}' | '[' | ']')
}

/// Long lines in pieces of some kilobytes, parted at blanks.
fn pieces(line: &str) -> impl Iterator<Item = &str> {
    const LONGEST: usize = 2048;
    let mut rest = line;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let cut = if rest.len() <= LONGEST {
            rest.len()
        } else {
            let until = rest.floor_char_boundary(LONGEST);
            rest.get(..until).and_then(|head| head.rfind(' ')).map_or(until, |at| at + 1)
        };
        let (piece, after) = rest.split_at_checked(cut)?;
        rest = after;
        Some(piece)
    })
}

/// One past the closing quote of the text that begins at `start`.
fn text_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    json.len()
}

fn number_end(json: &[u8], start: usize) -> usize {
    let is_of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
    let rest = json.get(start..).unwrap_or_default();
    start + rest.iter().position(|byte| !is_of_number(byte)).unwrap_or(rest.len())
}

fn next_is_colon(json: &[u8], at: usize) -> bool {
    let rest = json.get(at..).unwrap_or_default();
    rest.trim_ascii_start().first() == Some(&b':')
}

fn read_media(content_type: &str) -> Option<Media> {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Some(Media::Form),
        "application/xml" | "application/x-ndjson" | "application/json-seq" => Some(Media::Text),
        json if json.ends_with("/json") || json.ends_with("+json") => Some(Media::Json),
        text if text.starts_with("text/") || text.ends_with("+xml") => Some(Media::Text),
        _ => None,
    }
}

pub(super) fn is_readable(content_type: &str) -> bool {
    read_media(content_type).is_some()
}

pub(super) fn is_json_message(headers: &HeaderMap) -> bool {
    let media = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    media.and_then(read_media) == Some(Media::Json)
}
