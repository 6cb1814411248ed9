//! What of a failed exchange may be kept: personal data and credentials masked, by the detectors
//! that guardrails and contracts use. What cannot be taken apart is left out whole.

use std::{borrow::Cow, sync::LazyLock};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use percent_encoding::percent_decode_str;
use regex::Regex;
use serde_json::{Map, Value};
use stoa_contract::{
    observation::Personal,
    redact::inspect::{class_of_field, class_of_value},
};
use stoa_policy::guardrails::masking::{Masked, Masker};

use super::{Beginning, open_json};

const REDACTED: &str = "[REDACTED]";
const LONGEST_VALUE: usize = 1024;

/// Fields that are a credential, whatever they hold.
const CREDENTIALS: [HeaderName; 5] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::SET_COOKIE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
];

/// Words by which fields are called that hold credentials, or say who somebody is.
const TELLING: [&str; 14] = [
    "auth",
    "cookie",
    "credential",
    "jwt",
    "key",
    "pass",
    "secret",
    "session",
    "signature",
    "token",
    "user",
    "email",
    "client-cert",
    "client-s-dn",
];

/// Identifiers of requests, which detectors take for random secrets.
const IDENTIFIERS: [&str; 4] =
    ["x-request-id", "x-correlation-id", "x-stoa-trace-id", "traceparent"];

/// `password=hunter2`, `"apiKey": "x"`, `Bearer x`: in prose, where no structure tells.
static NAMED_CREDENTIAL: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(
        r#"(?i)((?:[\w-]*(?:passw|pwd|secret|token|api[_-]?key|authorization|session|cookie|credential)[\w-]*["']?\s*[:=]\s*["']?(?:bearer\s+|basic\s+)?)|\b(?:bearer|basic)\s+)([^\s"'&<>,;\[]+)"#,
    )
    .ok()
});

pub struct Mask {
    masker: Masker,
    /// For what a service says of its failure: `message` and `detail` are why anybody looks, and are
    /// masked by looks only. In requests they are what a person wrote.
    of_responses: Masker,
    patterns: Vec<Regex>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    Form,
    Prose,
}

impl Mask {
    pub fn new(patterns: Vec<Regex>) -> Self {
        let masker = |kinds| Masker::new(kinds, REDACTED.to_owned());
        let but_prose = Personal::ALL.into_iter().filter(|kind| *kind != Personal::FreeText);
        Self {
            masker: masker(Personal::ALL.to_vec()),
            of_responses: masker(but_prose.collect()),
            patterns,
        }
    }

    /// By name. A field that comes twice is a list.
    pub fn headers(&self, headers: &HeaderMap, found: &mut bool) -> Value {
        let mut shown = Map::new();
        for name in headers.keys() {
            let mut values: Vec<Value> = headers
                .get_all(name)
                .iter()
                .map(|value| Value::from(self.header(name, value, found)))
                .collect();
            let value = match values.len() {
                1 => values.pop().unwrap_or_default(),
                _ => Value::from(values),
            };
            shown.insert(name.as_str().to_owned(), value);
        }
        Value::Object(shown)
    }

    fn header(&self, name: &HeaderName, value: &HeaderValue, found: &mut bool) -> String {
        if CREDENTIALS.contains(name) {
            return REDACTED.to_owned();
        }
        let Ok(text) = std::str::from_utf8(value.as_bytes()) else { return REDACTED.to_owned() };
        if IDENTIFIERS.contains(&name.as_str()) {
            return self.identifier(text, found);
        }
        let is_telling = TELLING.iter().any(|word| name.as_str().contains(word))
            || class_of_field(name.as_str()).is_some();
        if is_telling && *name != header::USER_AGENT {
            *found = true;
            return REDACTED.to_owned();
        }
        // Of a URL (`Referer`, `Location`): queries carry secrets.
        let text = match text.split_once('?') {
            Some((before, _)) if before.contains('/') => Cow::Owned(format!("{before}?{REDACTED}")),
            _ => Cow::Borrowed(text),
        };
        let cut = text.floor_char_boundary(LONGEST_VALUE);
        let is_cut = cut < text.len();
        self.prose(whole_words(text.get(..cut).unwrap_or_default(), is_cut), found)
    }

    /// The name of a request: kept as it is where it cannot be anything else.
    pub fn identifier(&self, text: &str, found: &mut bool) -> String {
        let is_random = text.len() <= 64
            && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
            && text.bytes().any(|byte| byte.is_ascii_alphabetic());
        if is_random { text.to_owned() } else { self.prose(text, found) }
    }

    pub fn path(&self, path: &str, found: &mut bool) -> String {
        let mut shown = String::with_capacity(path.len());
        for (at, segment) in path.split('/').enumerate() {
            if at > 0 {
                shown.push('/');
            }
            let decoded = percent_decode_str(segment).decode_utf8_lossy();
            match class_of_value(decoded.as_bytes()) {
                Some(_) => {
                    *found = true;
                    shown.push_str(REDACTED);
                }
                None => shown.push_str(segment),
            }
        }
        self.patterns(shown, found)
    }

    /// `None`: there is none, or it cannot be taken apart.
    pub fn request_body(
        &self,
        headers: &HeaderMap,
        body: &Beginning,
        found: &mut bool,
    ) -> Option<String> {
        self.body(&self.masker, headers, body, found)
    }

    pub fn response_body(
        &self,
        headers: &HeaderMap,
        body: &Beginning,
        found: &mut bool,
    ) -> Option<String> {
        self.body(&self.of_responses, headers, body, found)
    }

    fn body(
        &self,
        masker: &Masker,
        headers: &HeaderMap,
        body: &Beginning,
        found: &mut bool,
    ) -> Option<String> {
        if body.bytes.is_empty() || headers.contains_key(header::CONTENT_ENCODING) {
            return None;
        }
        let bytes = body.bytes.as_slice();
        match media_of(headers.get(header::CONTENT_TYPE), bytes)? {
            Media::Json => {
                let whole = open_json::close(bytes)?;
                let masked = structure(masker, "application/json", &whole, found)?;
                let mut json: Value = serde_json::from_str(&masked).ok()?;
                self.texts(&mut json, found);
                Some(self.patterns(json.to_string(), found))
            }
            Media::Form => {
                let whole = whole_pairs(bytes, body.is_cut);
                let masked = structure(masker, "application/x-www-form-urlencoded", whole, found)?;
                let masked = self.credentials(masked, found);
                Some(self.patterns(masked, found))
            }
            Media::Prose => Some(self.prose(whole_words(text_of(bytes)?, body.is_cut), found)),
        }
    }

    /// What is said in the texts of a document: `{"error": "password=hunter2 is wrong"}`. As deep
    /// as the parser went.
    fn texts(&self, json: &mut Value, found: &mut bool) {
        match json {
            Value::String(text) => {
                *text = self.credentials(std::mem::take(text), found);
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.texts(item, found)),
            Value::Object(members) => {
                members.values_mut().for_each(|member| self.texts(member, found));
            }
            _ => {}
        }
    }

    fn prose(&self, text: &str, found: &mut bool) -> String {
        // First, since what it finds goes by its name and not by its looks.
        let text = self.credentials(text.to_owned(), found);
        let text = match self.masker.mask(Some("text/plain"), text.as_bytes()) {
            Masked::Clean => text,
            Masked::Found(masked) => {
                *found = true;
                String::from_utf8(masked).unwrap_or_else(|_| REDACTED.to_owned())
            }
            Masked::Unreadable => REDACTED.to_owned(),
        };
        self.patterns(text, found)
    }

    fn credentials(&self, text: String, found: &mut bool) -> String {
        match NAMED_CREDENTIAL.as_ref() {
            Some(pattern) => replace(pattern, text, "${1}[REDACTED]", found),
            None => REDACTED.to_owned(),
        }
    }

    fn patterns(&self, mut text: String, found: &mut bool) -> String {
        for pattern in &self.patterns {
            text = replace(pattern, text, REDACTED, found);
        }
        text
    }
}

/// By the names of members, and by what values look like.
fn structure(masker: &Masker, media_type: &str, whole: &[u8], found: &mut bool) -> Option<String> {
    match masker.mask(Some(media_type), whole) {
        Masked::Clean => std::str::from_utf8(whole).ok().map(str::to_owned),
        Masked::Found(masked) => {
            *found = true;
            String::from_utf8(masked).ok()
        }
        Masked::Unreadable => None,
    }
}

fn replace(pattern: &Regex, text: String, with: &str, found: &mut bool) -> String {
    let replaced = match pattern.replace_all(&text, with) {
        Cow::Borrowed(_) => None,
        Cow::Owned(replaced) => Some(replaced),
    };
    *found |= replaced.is_some();
    replaced.unwrap_or(text)
}

/// What is called text and begins as JSON does is JSON, or nothing that we know.
fn media_of(content_type: Option<&HeaderValue>, bytes: &[u8]) -> Option<Media> {
    let is_json = matches!(bytes.trim_ascii_start().first(), Some(b'{' | b'['));
    let Some(content_type) = content_type else { return is_json.then_some(Media::Json) };
    let essence = content_type.to_str().ok()?.split(';').next()?.trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/x-www-form-urlencoded" => Some(Media::Form),
        json if json.ends_with("/json") || json.ends_with("+json") => Some(Media::Json),
        "text/plain" | "text/html" if is_json => Some(Media::Json),
        "text/plain" | "text/html" => Some(Media::Prose),
        _ => None,
    }
}

/// A character may have been cut in two.
fn text_of(bytes: &[u8]) -> Option<&str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() => {
            std::str::from_utf8(bytes.get(..error.valid_up_to())?).ok()
        }
        Err(_) => None,
    }
}

/// Without the word that was cut, nor numbers before it: half of a number in groups looks like
/// nothing.
fn whole_words(text: &str, is_cut: bool) -> &str {
    if !is_cut {
        return text;
    }
    let mut text = text.rsplit_once(char::is_whitespace).map_or("", |(before, _)| before);
    while let Some((before, last)) = text.rsplit_once(char::is_whitespace) {
        if !last.is_empty() && !last.contains(|c: char| c.is_ascii_digit()) {
            break;
        }
        text = before;
    }
    text
}

/// Without the pair that was cut.
fn whole_pairs(form: &[u8], is_cut: bool) -> &[u8] {
    match form.iter().rposition(|byte| *byte == b'&') {
        _ if !is_cut => form,
        Some(at) => form.get(..at).unwrap_or_default(),
        None => &[],
    }
}
