//! Observations of described APIs, for tests: what `redact` would make of their traffic, by much
//! simpler rules.

use std::{
    collections::BTreeMap,
    hash::{Hash, Hasher},
};

use serde_json::Value as Json;
use siphasher::sip::SipHasher24;

use crate::observation::{
    BodyShape, Content, Credential, Formats, Method, Node, Number, Observation, PathSegment,
    ResponseShape, Shape, Text, Token, TokenHash, Value,
};

pub(crate) const WORDS: &[&str] = &[
    "api",
    "users",
    "orders",
    "items",
    "products",
    "me",
    "search",
    "health",
    "status",
    "login",
    "cancel",
    "id",
    "name",
    "total",
    "error",
    "message",
    "page",
    "limit",
    "sort",
    "state",
    "cart",
    "comments",
    "posts",
    "categories",
    "data",
    "roles",
    "tags",
    "settings",
    "q",
    "created",
    "books",
    "toys",
    "games",
    "music",
    "garden",
    "sports",
    "files",
    "reports",
    "owner",
    "title",
];

/// Makes observations; remembers what recurred, as `redact` does.
#[derive(Default)]
pub(crate) struct Traffic {
    seen: BTreeMap<String, u32>,
    produced: std::collections::BTreeSet<String>,
    at: u64,
}

pub(crate) fn hash(text: &str) -> TokenHash {
    let mut hasher = SipHasher24::new_with_keys(1, 2);
    text.hash(&mut hasher);
    TokenHash(hasher.finish())
}

fn shape(text: &str) -> Shape {
    let len = text.len().min(255) as u8;
    let all = |f: &dyn Fn(char) -> bool| text.chars().all(f);
    let has_digit = text.chars().any(|c| c.is_ascii_digit());
    if text.is_empty() {
        Shape::Empty
    } else if all(&|c| c.is_ascii_digit()) {
        Shape::Digits(len)
    } else if text.len() == 36 && all(&|c| c.is_ascii_hexdigit() || c == '-') {
        Shape::Uuid
    } else if text.len() == 10 && text.matches('-').count() == 2 && has_digit {
        Shape::Date
    } else if text.starts_with('v') && text.len() == 2 && has_digit {
        Shape::Version
    } else if text.len() >= 8 && has_digit && all(&|c| c.is_ascii_hexdigit()) {
        Shape::Hex(len)
    } else if has_digit {
        Shape::Mixed
    } else if all(&|c| c.is_ascii_alphabetic()) {
        Shape::Word
    } else {
        Shape::Compound
    }
}

fn formats(text: &str) -> Formats {
    let mut formats = Formats::default();
    if text.parse::<i64>().is_ok() {
        formats = formats.union(Formats::INTEGER).union(Formats::NUMBER);
    }
    if text == "true" || text == "false" {
        formats = formats.union(Formats::BOOLEAN);
    }
    match shape(text) {
        Shape::Uuid => formats.union(Formats::UUID),
        Shape::Date => formats.union(Formats::DATE),
        _ if text.contains('@') => formats.union(Formats::EMAIL),
        _ => formats,
    }
}

impl Traffic {
    pub fn token(&mut self, text: &str) -> Token {
        let count = self.seen.entry(text.to_owned()).or_default();
        *count += 1;
        let is_word = WORDS.contains(&text);
        let is_admitted = is_word || shape(text) == Shape::Version || *count >= 3;
        let is_admitted = is_admitted && !text.contains('@');
        Token {
            hash: hash(text),
            shape: shape(text),
            text: is_admitted.then(|| Text::admit(text)),
            is_word,
            was_produced: self.produced.contains(text),
            personal: text.contains('@').then_some(crate::observation::Personal::Email),
        }
    }

    pub fn value(&mut self, text: &str) -> Value {
        let token = self.token(text);
        let number = text.parse::<i64>().ok().map(|n| number(n as f64, text));
        Value {
            hash: token.hash,
            formats: formats(text),
            length: text.chars().count() as u32,
            personal: token.personal,
            text: token.text,
            number,
        }
    }

    pub fn node(&mut self, json: &Json) -> Node {
        match json {
            Json::Null => Node::Null,
            Json::Bool(_) => Node::Bool,
            Json::Number(n) => Node::Number(number(n.as_f64().unwrap_or(0.0), &n.to_string())),
            Json::String(text) => Node::String(self.value(text)),
            Json::Array(items) => Node::Array {
                items: items.iter().map(|i| self.node(i)).collect(),
                length: items.len() as u32,
                is_closed: true,
            },
            Json::Object(members) => Node::Object {
                members: members.iter().map(|(k, v)| (self.token(k), self.node(v))).collect(),
                is_closed: true,
            },
        }
    }

    fn body(&mut self, json: Option<&Json>) -> BodyShape {
        match json {
            Some(json) => BodyShape {
                media_type: Some(Text::admit("application/json")),
                length: json.to_string().len() as u64,
                content: Content::Json(self.node(json)),
                is_whole: true,
            },
            None => {
                BodyShape { media_type: None, length: 0, content: Content::Empty, is_whole: true }
            }
        }
    }

    /// An exchange. `target` may have a query; `{}` in it is nothing special.
    pub fn exchange(
        &mut self,
        method: Method,
        target: &str,
        request: Option<&Json>,
        status: u16,
        response: Option<&Json>,
    ) -> Observation {
        self.at += 1;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let has_trailing_slash = path.len() > 1 && path.ends_with('/');
        let segments = path.trim_matches('/').split('/').filter(|s| !s.is_empty());
        let path = segments.map(|s| self.segment(s)).collect();
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(k, v)| (self.token(k), self.value(v)))
            .collect();
        let observation = Observation {
            at: 1_700_000_000 + self.at,
            latency_us: 1_000,
            method,
            path,
            has_trailing_slash,
            origin: Some(Text::admit("http://shop.test")),
            query,
            headers: Vec::new(),
            cookies: Vec::new(),
            credentials: Vec::new(),
            request: self.body(request),
            response: Some(ResponseShape {
                status,
                headers: Vec::new(),
                body: self.body(response),
            }),
            is_complete: true,
            is_request_head_whole: true,
            bytes_lost: 0,
            is_preflight: false,
        };
        if let Some(response) = response {
            self.remember(response);
        }
        observation
    }

    fn remember(&mut self, json: &Json) {
        match json {
            Json::String(text) => {
                self.produced.insert(text.clone());
            }
            Json::Number(n) => {
                self.produced.insert(n.to_string());
            }
            Json::Array(items) => items.iter().for_each(|i| self.remember(i)),
            Json::Object(members) => members.values().for_each(|v| self.remember(v)),
            _ => {}
        }
    }

    fn segment(&mut self, text: &str) -> PathSegment {
        let cut = text.find(['.', ':']).filter(|at| *at > 0).unwrap_or(text.len());
        let (stem, suffix) = text.split_at(cut);
        PathSegment {
            token: self.token(stem),
            suffix: (!suffix.is_empty()).then(|| Text::admit(suffix)),
            value: self.value(stem),
        }
    }
}

fn number(value: f64, text: &str) -> Number {
    Number {
        is_integer: value.fract() == 0.0,
        is_negative: value < 0.0,
        bits: (64 - (value.abs() as u64).leading_zeros()) as u8,
        hash: Some(hash(text)),
        personal: None,
    }
}

pub(crate) fn with_credential(mut observation: Observation, credential: Credential) -> Observation {
    observation.credentials.push(credential);
    observation
}

/// Repeatable noise for tests: xorshift.
pub(crate) struct Noise(pub u64);

impl Noise {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n.max(1)
    }

    /// A made-up name of letters.
    pub fn slug(&mut self) -> String {
        let syllables =
            ["ka", "lo", "mi", "tor", "ben", "sul", "ra", "vex", "dun", "pel", "qui", "nor"];
        let mut word = String::new();
        for _ in 0..2 + self.below(3) {
            word.push_str(syllables[self.below(12) as usize]);
        }
        word
    }
}
