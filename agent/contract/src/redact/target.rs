//! The request target: path segments, query, and the origin where it is part of the target.

use super::{
    Tally,
    admission::{Admission, Meaning, PathPlace, Role, count_characters},
    alphabet::{Profile, decode_percent},
    caller::{self, Caller},
    field_name::Field,
    format,
    produced::Produced,
    verb,
};
use crate::observation::{
    Credential, Formats, Number, PathSegment, Personal, Shape, Text, Token, Value,
};

/// A target taken apart; nothing decoded yet.
pub(super) struct Target<'a> {
    pub scheme: Option<&'a [u8]>,
    pub authority: Option<&'a [u8]>,
    pub has_userinfo: bool,
    pub path: &'a [u8],
    pub query: &'a [u8],
}

/// RFC 9112 section 3.2: origin form, absolute form, authority form, asterisk form.
pub(super) fn split(target: &[u8], is_connect: bool) -> Target<'_> {
    let target = cut(target, b'#').0;
    let mut split =
        Target { scheme: None, authority: None, has_userinfo: false, path: target, query: b"" };
    if is_connect {
        split.authority = Some(target);
        split.path = b"";
    } else if target == b"*" {
        split.path = b"";
    } else if target.first() != Some(&b'/')
        && let Some(at) = target.windows(3).take(12).position(|w| w == b"://")
    {
        split.scheme = target.get(..at);
        let rest = target.get(at + 3..).unwrap_or_default();
        let end = rest.iter().position(|b| matches!(b, b'/' | b'?')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        split.authority = Some(authority);
        split.path = path;
    }
    (split.path, split.query) = cut(split.path, b'?');
    if let Some(authority) = split.authority
        && let Some(at) = authority.iter().rposition(|b| *b == b'@')
    {
        split.has_userinfo = true;
        split.authority = authority.get(at + 1..);
    }
    split
}

/// What is before and after the first `separator`; the second is empty where there is none.
pub(super) fn cut(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match bytes.iter().position(|b| *b == separator) {
        Some(i) => (bytes.get(..i).unwrap_or_default(), bytes.get(i + 1..).unwrap_or_default()),
        None => (bytes, b""),
    }
}

/// What the path says, and whether what it names last is a collection of persons.
pub(super) struct Path {
    pub segments: Vec<PathSegment>,
    pub has_trailing_slash: bool,
    pub is_of_persons: bool,
    /// Equal where the texts of the segments are.
    pub place: u64,
}

const MAX_SEGMENTS: usize = 64;

pub(super) fn read_path(
    path: &[u8],
    admission: &mut Admission,
    produced: &Produced,
    tally: &mut Tally,
    scratch: &mut Vec<u8>,
) -> Path {
    let mut segments: Vec<PathSegment> = Vec::with_capacity(8);
    // For each segment: a collection of persons; a word.
    let mut kinds: Vec<(bool, bool)> = Vec::with_capacity(8);
    let mut has_trailing_slash = false;
    let mut place = PathPlace::ROOT;
    let mut is_below_login = false;
    for raw in path.split(|b| *b == b'/') {
        // RFC 3986 section 3.3: `;` introduces parameters of a segment.
        let stem = cut(raw, b';').0;
        let stem = if stem.contains(&b'%') {
            decode_percent(stem, false, scratch);
            scratch.as_slice()
        } else {
            stem
        };
        has_trailing_slash = stem.is_empty() || stem == b"." || stem == b"..";
        match stem {
            b"" | b"." => continue,
            b".." => {
                segments.pop();
                kinds.pop();
                place = PathPlace::ROOT;
                for segment in &segments {
                    place = place.below(&segment.token);
                }
                continue;
            }
            _ => {}
        }
        if segments.len() >= MAX_SEGMENTS {
            break;
        }
        let (stem, suffix) = split_suffix(stem);
        let follows_persons =
            is_below_login || kinds.last().is_some_and(|(is_collection, _)| *is_collection);
        let role = if follows_persons { Role::PathOfPerson } else { Role::Path };
        let (mut token, meaning) = admission.segment(role, place, stem, tally);
        place = place.below(&token);
        // `/basic-auth/{user}/{passwd}`, `/digest-auth/{qop}/{user}/{passwd}`.
        is_below_login |= token.text.as_ref().is_some_and(|t| t.as_str().ends_with("-auth"));
        // A single word of the vocabulary coincides with values too easily to say anything.
        token.was_produced =
            (!token.is_word || token.shape == Shape::Compound) && produced.contains(token.hash.0);
        kinds.push((meaning.is_person_collection, token.is_word));
        let value = path_value(stem, &token);
        segments.push(PathSegment { token, suffix, value });
    }
    let is_of_persons = kinds
        .iter()
        .rev()
        .find(|(_, is_word)| *is_word)
        .is_some_and(|(is_collection, _)| *is_collection);
    let has_trailing_slash = has_trailing_slash && !segments.is_empty();
    Path { segments, has_trailing_slash, is_of_persons, place: place.key() }
}

fn path_value(stem: &[u8], token: &Token) -> Value {
    let profile = Profile::of(stem);
    let formats = format::formats(stem, profile);
    let number = formats.contains(Formats::NUMBER).then(|| Number {
        is_integer: formats.contains(Formats::INTEGER),
        is_negative: stem.first() == Some(&b'-'),
        bits: format::magnitude_bits(stem),
        hash: None,
        personal: token.personal,
    });
    Value {
        hash: token.hash,
        formats,
        length: u32::try_from(count_characters(stem, profile)).unwrap_or(u32::MAX),
        personal: token.personal,
        text: token.text.clone(),
        number,
    }
}

/// Extensions that choose a representation, name a kind of file or of program.
const EXTENSIONS: [&str; 80] = [
    "json", "xml", "csv", "tsv", "txt", "text", "html", "htm", "xhtml", "pdf", "yaml", "yml", "md",
    "rtf", "rss", "atom", "ics", "vcf", "js", "mjs", "css", "map", "png", "jpg", "jpeg", "gif",
    "webp", "svg", "ico", "avif", "bmp", "tif", "tiff", "mp3", "mp4", "wav", "webm", "zip", "gz",
    "tar", "xls", "xlsx", "doc", "docx", "ppt", "pptx", "odt", "ods", "epub", "parquet", "ndjson",
    "jsonl", "jsonld", "rdf", "ttl", "n3", "nt", "geojson", "topojson", "kml", "kmz", "gml", "gpx",
    "shp", "shpz", "wkt", "wasm", "wsdl", "xsd", "php", "asp", "aspx", "ashx", "asmx", "svc",
    "jsp", "jspx", "do", "action", "cgi",
];

/// `report.json` and `42:cancel`; a stem must remain.
fn split_suffix(stem: &[u8]) -> (&[u8], Option<Text>) {
    if !stem.iter().any(|b| matches!(b, b'.' | b':')) {
        return (stem, None);
    }
    let Ok(text) = std::str::from_utf8(stem) else { return (stem, None) };
    if let Some((before, extension)) = text.rsplit_once('.')
        && !before.is_empty()
        && extension.len() <= 7
        && let lower = extension.to_ascii_lowercase()
        && EXTENSIONS.contains(&lower.as_str())
    {
        return (before.as_bytes(), Some(Text::admit(&format!(".{lower}"))));
    }
    if let Some((before, verb)) = text.rsplit_once(':')
        && !before.is_empty()
        && verb::is_custom_method(verb)
    {
        return (before.as_bytes(), Some(Text::admit(&format!(":{verb}"))));
    }
    (stem, None)
}

/// At most this many pairs of a query or form are read.
const MAX_PAIRS: usize = 256;

/// Name and value of each pair of an urlencoded list. False where pairs were left out.
pub(super) fn read_pairs(
    pairs: &[u8],
    admission: &mut Admission,
    tally: &mut Tally,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&mut Admission, &[u8], Token, Meaning, Value),
) -> bool {
    let mut decoded = Vec::new();
    for (i, pair) in pairs.split(|b| *b == b'&').enumerate() {
        if i >= MAX_PAIRS {
            return false;
        }
        let (name, value) = cut(pair, b'=');
        if name.is_empty() {
            continue;
        }
        let (token, mut meaning) = {
            let name = decode_form(name, scratch);
            admission.token(Role::Name, name, tally)
        };
        if meaning.field == Field::Name {
            meaning.field = Field::Quiet;
        }
        let value = decode_form(value, &mut decoded);
        let shaped = admission.value(value, meaning, tally);
        each(admission, value, token, meaning, shaped);
    }
    true
}

fn decode_form<'a>(bytes: &'a [u8], scratch: &'a mut Vec<u8>) -> &'a [u8] {
    if bytes.iter().any(|b| matches!(b, b'%' | b'+')) {
        decode_percent(bytes, true, scratch);
        scratch
    } else {
        bytes
    }
}

pub(super) struct Query {
    pub parameters: Vec<(Token, Value)>,
    pub credentials: Vec<Credential>,
}

pub(super) fn read_query(
    query: &[u8],
    admission: &mut Admission,
    produced: &Produced,
    tally: &mut Tally,
    scratch: &mut Vec<u8>,
) -> Query {
    let mut found = Query { parameters: Vec::new(), credentials: Vec::new() };
    if query.is_empty() {
        return found;
    }
    read_pairs(query, admission, tally, scratch, |admission, bytes, mut token, meaning, value| {
        // Values of queries that the service handed out: the flag stands on the name's token.
        token.was_produced =
            meaning.salt != 0 && value.text.is_none() && produced.contains(value.hash.0);
        if let Some(name) = &token.text
            && (is_credential_parameter(bytes, meaning)
                || (meaning.caller != Caller::Cursor
                    && admission.repeats_as_credential(bytes, meaning, &value)))
        {
            found.credentials.push(Credential::QueryKey(name.clone()));
        } else {
            found.parameters.push((token, value));
        }
    });
    found
}

/// A parameter that identifies the caller, rather than a page or a signed link.
fn is_credential_parameter(value: &[u8], meaning: Meaning) -> bool {
    match meaning.caller {
        Caller::Key => true,
        Caller::Id => caller::looks_issued(value),
        Caller::KeyByValue => {
            value.len() >= 16 && Shape::Word != super::shape::shape(value, Profile::of(value))
        }
        Caller::Unknown | Caller::Cursor => {
            matches!(meaning.field, Field::Personal(Personal::ApiKey))
        }
    }
}
