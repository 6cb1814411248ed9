//! Bodies: by media type to a shape.

use stoa_wire::exchange::{Body, Message, Partial};

use super::{
    Tally,
    admission::{Admission, Role},
    alphabet::Profile,
    classify::is_scrambled,
    detect,
    field_name::Field,
    json::{Json, Limits, Parsed},
    layout::Layouts,
    produced::Produced,
    target::{cut, read_pairs},
};
use crate::observation::{BodyShape, Content, Part, Text, Token, Value};

/// What of a media type decides how the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    JsonLines,
    Form,
    Multipart,
    Xml,
    EventStream,
    Text,
    Binary,
    Undeclared,
}

pub(super) struct Reading<'b> {
    pub admission: &'b mut Admission,
    pub tally: &'b mut Tally,
    pub produced: Option<&'b mut Produced>,
    pub scratch: &'b mut Vec<u8>,
    pub layouts: &'b mut Layouts,
    pub limits: Limits,
    pub in_person: bool,
    /// Which body of which endpoint.
    pub path: u64,
}

pub(super) fn read(message: &Message, reading: &mut Reading<'_>) -> BodyShape {
    let body = &message.body;
    let declared = message.header("content-type").unwrap_or_default();
    let mut buffer = [0u8; 100];
    let essence = essence(declared, &mut buffer);
    let content = read_content(body, essence, declared, reading);
    if content == Content::Malformed {
        reading.tally.malformed += 1;
    }
    BodyShape {
        media_type: essence.filter(|_| !is_telling(declared)).and_then(|e| media_type(e, reading)),
        length: body.length,
        content,
        is_whole: body.partial.is_none(),
    }
}

/// Type and subtype in lower case (RFC 9110 section 8.3.1).
fn essence<'a>(declared: &[u8], buffer: &'a mut [u8; 100]) -> Option<&'a str> {
    let essence = cut(declared, b';').0.trim_ascii();
    let slot = buffer.get_mut(..essence.len())?;
    slot.copy_from_slice(essence);
    slot.make_ascii_lowercase();
    let text = std::str::from_utf8(slot).ok()?;
    let (main, sub) = text.split_once('/')?;
    let is_token = |t: &str| {
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&b))
    };
    (is_token(main) && is_token(sub)).then_some(text)
}

/// A secret stands where the media type should; some are told by capitals, which are lost later.
fn is_telling(declared: &[u8]) -> bool {
    let essence = cut(declared, b';').0;
    // In lower case it is looked at where it is admitted.
    essence.iter().any(u8::is_ascii_uppercase)
        && (detect::detect(essence, Profile::of(essence)).is_some()
            || std::str::from_utf8(essence).is_ok_and(is_scrambled))
}

/// Well-known types are structure at once; others when they recur.
fn media_type(essence: &str, reading: &mut Reading<'_>) -> Option<Text> {
    reading.admission.token(Role::MediaType, essence.as_bytes(), reading.tally).0.text
}

pub(super) fn is_well_known(essence: &str) -> bool {
    const TYPES: [&str; 48] = [
        "application/json",
        "application/problem+json",
        "application/hal+json",
        "application/vnd.api+json",
        "application/ld+json",
        "application/merge-patch+json",
        "application/json-patch+json",
        "application/geo+json",
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/json-seq",
        "application/xml",
        "application/problem+xml",
        "application/atom+xml",
        "application/rss+xml",
        "application/soap+xml",
        "application/x-www-form-urlencoded",
        "application/octet-stream",
        "application/pdf",
        "application/zip",
        "application/gzip",
        "application/javascript",
        "application/yaml",
        "application/x-yaml",
        "application/graphql",
        "application/x-protobuf",
        "application/protobuf",
        "application/msgpack",
        "application/cbor",
        "application/grpc",
        "application/wasm",
        "application/vnd.github+json",
        "application/scim+json",
        "multipart/form-data",
        "multipart/mixed",
        "text/plain",
        "text/html",
        "text/css",
        "text/csv",
        "text/xml",
        "text/javascript",
        "text/event-stream",
        "text/markdown",
        "text/yaml",
        "text/json",
        "application/jwt",
        "application/openmetrics-text",
    ];
    const MEDIA: [&str; 4] = ["image/", "audio/", "video/", "font/"];
    const SUBTYPES: [&str; 14] = [
        "png", "jpeg", "gif", "webp", "svg+xml", "x-icon", "avif", "bmp", "mpeg", "mp4", "webm",
        "ogg", "woff", "woff2",
    ];
    TYPES.contains(&essence)
        || MEDIA.iter().any(|m| essence.strip_prefix(m).is_some_and(|sub| SUBTYPES.contains(&sub)))
}

fn kind(essence: Option<&str>) -> Kind {
    let Some(essence) = essence else { return Kind::Undeclared };
    match essence {
        "application/x-ndjson"
        | "application/ndjson"
        | "application/jsonl"
        | "application/json-seq"
        | "application/x-jsonlines"
        | "application/jsonlines"
        | "application/x-json-stream" => Kind::JsonLines,
        "application/x-www-form-urlencoded" => Kind::Form,
        "multipart/form-data" => Kind::Multipart,
        "text/event-stream" => Kind::EventStream,
        "application/json"
        | "text/json"
        | "text/x-json"
        | "application/x-json"
        | "application/csp-report" => Kind::Json,
        "application/xml" | "text/xml" => Kind::Xml,
        "application/javascript"
        | "application/yaml"
        | "application/x-yaml"
        | "application/graphql" => Kind::Text,
        _ if essence.ends_with("+json") || essence.ends_with("/json") => Kind::Json,
        _ if essence.ends_with("+xml") => Kind::Xml,
        _ if essence.starts_with("text/") => Kind::Text,
        _ => Kind::Binary,
    }
}

fn read_content(
    body: &Body,
    essence: Option<&str>,
    declared: &[u8],
    reading: &mut Reading<'_>,
) -> Content {
    let content: &[u8] = &body.content;
    if content.is_empty() || body.partial == Some(Partial::Undecodable) {
        // What was not seen says nothing: `is_whole` is false then.
        return if body.length == 0 || body.partial.is_some() {
            Content::Empty
        } else {
            Content::Binary
        };
    }
    let is_cut = body.partial.is_some();
    match kind(essence) {
        Kind::Json => read_json(content, is_cut, false, reading),
        Kind::JsonLines => read_json(content, is_cut, true, reading),
        Kind::Form => read_form(content, is_cut, reading),
        Kind::Multipart => read_multipart(content, declared, is_cut, reading),
        Kind::Xml => Content::Xml,
        Kind::EventStream => Content::EventStream,
        Kind::Text if essence == Some("text/plain") => {
            sniff(content, is_cut, Content::Text, reading)
        }
        Kind::Text => Content::Text,
        Kind::Undeclared => {
            let is_text = std::str::from_utf8(content.get(..256).unwrap_or(content)).is_ok()
                && !content.iter().take(256).any(|b| *b < 9);
            let otherwise = if is_text { Content::Text } else { Content::Binary };
            sniff(content, is_cut, otherwise, reading)
        }
        Kind::Binary => Content::Binary,
    }
}

/// JSON under a type that does not say so.
fn sniff(content: &[u8], is_cut: bool, otherwise: Content, reading: &mut Reading<'_>) -> Content {
    if !matches!(content.trim_ascii_start().first(), Some(b'{' | b'[')) {
        return otherwise;
    }
    match read_json(content, is_cut, false, reading) {
        Content::Malformed | Content::Empty => otherwise,
        found => found,
    }
}

fn read_json(content: &[u8], is_cut: bool, is_lines: bool, reading: &mut Reading<'_>) -> Content {
    let json = Json {
        bytes: content,
        at: Json::start_of(content),
        admission: reading.admission,
        tally: reading.tally,
        produced: reading.produced.as_deref_mut(),
        layouts: reading.layouts,
        limits: reading.limits,
        path: reading.path,
        stop: None,
    };
    match json.read(reading.in_person, is_cut, is_lines) {
        Parsed::One(node) => Content::Json(node),
        // Cut before anything could be told.
        Parsed::Lines(nodes) if nodes.is_empty() => Content::Empty,
        Parsed::Lines(nodes) => Content::JsonLines(nodes),
        Parsed::Malformed => Content::Malformed,
    }
}

fn read_form(content: &[u8], is_cut: bool, reading: &mut Reading<'_>) -> Content {
    let content = content.trim_ascii_end();
    // Urlencoded text has no blanks or controls; what has is something else.
    if content.iter().any(|b| *b <= b' ') || !content.contains(&b'=') {
        return Content::Malformed;
    }
    // The last pair of a body that was cut may go on.
    let content = if is_cut {
        content.rsplitn(2, |b| *b == b'&').nth(1).unwrap_or_default()
    } else {
        content
    };
    let mut fields: Vec<(Token, Value)> = Vec::new();
    let all = read_pairs(
        content,
        reading.admission,
        reading.tally,
        reading.scratch,
        |_, _, token, _, value| {
            fields.push((token, value));
        },
    );
    Content::Form { fields, is_whole: all && !is_cut }
}

const MAX_PARTS: usize = 64;

/// RFC 7578, with the boundary of RFC 2046 section 5.1.1.
fn read_multipart(
    content: &[u8],
    declared: &[u8],
    is_cut: bool,
    reading: &mut Reading<'_>,
) -> Content {
    let Some(boundary) = parameter(declared, b"boundary").filter(|b| (1..=70).contains(&b.len()))
    else {
        return Content::Malformed;
    };
    let delimiter = [b"--", boundary].concat();
    if !content.starts_with(&delimiter) && find(content, &delimiter).is_none() {
        return if is_cut { Content::Empty } else { Content::Malformed };
    }
    let mut parts = Vec::new();
    let mut is_whole = false;
    let mut rest = content;
    while let Some(at) = find(rest, &delimiter) {
        rest = rest.get(at + delimiter.len()..).unwrap_or_default();
        if rest.starts_with(b"--") {
            is_whole = true;
            break;
        }
        if parts.len() >= MAX_PARTS {
            break;
        }
        let end = find(rest, &delimiter);
        let part = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        parts.extend(read_part(part, end.is_none(), reading));
    }
    Content::Multipart { parts, is_whole: is_whole && !is_cut }
}

fn read_part(part: &[u8], is_cut: bool, reading: &mut Reading<'_>) -> Option<Part> {
    let part = part.strip_prefix(b"\r\n").or(part.strip_prefix(b"\n")).unwrap_or(part);
    let (head, body) = part.split_at_checked(find(part, b"\r\n\r\n")?)?;
    let body = body.get(4..).unwrap_or_default();
    let body = body.strip_suffix(b"\r\n").unwrap_or(body);
    let mut name = None;
    let mut is_file = false;
    let mut media_type = None;
    for line in head.split(|b| *b == b'\n') {
        let (field, value) = cut(line.trim_ascii(), b':');
        if field.eq_ignore_ascii_case(b"content-disposition") {
            name = parameter(value, b"name");
            is_file =
                parameter(value, b"filename").is_some() || parameter(value, b"filename*").is_some();
        } else if field.eq_ignore_ascii_case(b"content-type") {
            media_type = Some(value.trim_ascii());
        }
    }
    let (name, mut meaning) = reading.admission.token(Role::Name, name?, reading.tally);
    if meaning.field == Field::Name {
        meaning.field = Field::Quiet;
    }
    let mut buffer = [0u8; 100];
    let media_type = media_type
        .filter(|declared| !is_telling(declared))
        .and_then(|declared| essence(declared, &mut buffer))
        .and_then(|essence| self::media_type(essence, reading));
    let value =
        (!is_file && !is_cut).then(|| reading.admission.value(body, meaning, reading.tally));
    Some(Part { name, is_file, media_type, value })
}

/// A parameter of a header's value, quoted or not.
fn parameter<'a>(value: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mut rest = cut(value, b';').1;
    while !rest.is_empty() {
        let (key, after) = cut(rest, b'=');
        let after = after.trim_ascii_start();
        let (found, tail) = match after.strip_prefix(b"\"") {
            Some(quoted) => {
                let (text, tail) = cut(quoted, b'"');
                (text, cut(tail, b';').1)
            }
            None => {
                let (text, tail) = cut(after, b';');
                (text.trim_ascii(), tail)
            }
        };
        if key.trim_ascii().eq_ignore_ascii_case(name) {
            return Some(found);
        }
        rest = tail;
    }
    None
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = 0;
    loop {
        at += bytes.get(at..)?.iter().position(|b| *b == first)?;
        if bytes.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
}
