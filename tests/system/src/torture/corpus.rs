//! The cases as `tests/torture/*.yaml` has them.
//!
//! In `send` and `answer`, `{{TEXT*COUNT}}` stands for that many copies of a text. Characters up to
//! U+00FF stand for the byte of that number, so that `"\xE9"` is one byte.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

/// Bytes of a client of HTTP/1.1.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestCase {
    pub case: String,
    /// What says how it is to be read.
    pub clause: String,
    pub send: String,
    /// What the client gets, as `Outcome` writes it.
    pub answers: String,
    /// What the upstream gets: method, target and the length of the body.
    #[serde(default)]
    pub upstream: Vec<String>,
    /// Text that must not reach the upstream, in any case of letters.
    #[serde(default)]
    pub never: Vec<String>,
    /// Text that must.
    #[serde(default)]
    pub passes: Vec<String>,
}

/// Bytes of an upstream, in answer to a request of its own.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResponseCase {
    pub case: String,
    pub clause: String,
    /// `GET / HTTP/1.1` if absent.
    pub send: Option<String>,
    pub answer: String,
    #[serde(default)]
    pub then: Then,
    /// Whether it waits for the request's body before it answers.
    #[serde(default)]
    pub is_early: bool,
    pub answers: String,
    /// Text that must not reach the client.
    #[serde(default)]
    pub never: Vec<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Answers what comes next honestly.
    #[default]
    Keep,
    Close,
}

/// Streams of a client of HTTP/2.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http2Case {
    pub case: String,
    pub clause: String,
    pub streams: Vec<StreamCase>,
    pub answers: String,
    #[serde(default)]
    pub upstream: Vec<String>,
    #[serde(default)]
    pub never: Vec<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StreamCase {
    /// Name and value, sent as they are.
    pub fields: Vec<(String, String)>,
    /// Each is a DATA frame; the last one ends the stream.
    #[serde(default)]
    pub data: Vec<String>,
    /// After the data; they end the stream.
    #[serde(default)]
    pub trailers: Vec<(String, String)>,
}

/// Where the cases and `DIFFERENCES.md` are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../torture")
}

pub fn read<T: for<'a> Deserialize<'a>>(file: &str) -> Result<Vec<T>> {
    let path = directory().join(file);
    let text = fs::read_to_string(&path)?;
    let cases: Vec<T> = serde_norway::from_str(&text)
        .with_context(|| format!("{} is not right", path.display()))?;
    ensure!(!cases.is_empty(), "{} has no cases", path.display());
    Ok(cases)
}

/// The bytes that a text of the corpus stands for.
pub fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("{{") {
        let (repeated, after) = after.split_once("}}").context("`{{` without `}}`")?;
        let (what, count) = repeated.rsplit_once('*').context("`{{` without `*COUNT`")?;
        put(&mut bytes, before)?;
        for _ in 0..count.parse::<usize>()? {
            put(&mut bytes, what)?;
        }
        rest = after;
    }
    put(&mut bytes, rest)?;
    Ok(bytes)
}

fn put(bytes: &mut Vec<u8>, text: &str) -> Result<()> {
    for character in text.chars() {
        match u8::try_from(u32::from(character)) {
            Ok(byte) => bytes.push(byte),
            Err(_) => bail!("{character:?} is no byte: write its bytes as \\xNN"),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_stand_for_bytes() {
        assert_eq!(bytes_of("a\r\n\u{e9}").unwrap(), b"a\r\n\xe9");
        assert_eq!(bytes_of("<{{ab*3}}>").unwrap(), b"<ababab>");
        assert!(bytes_of("\u{20ac}").is_err() && bytes_of("{{a").is_err());
    }
}
