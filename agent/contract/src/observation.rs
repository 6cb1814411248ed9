//! What may be kept of an exchange: structure, shapes, classes, keyed hashes, lengths.
//!
//! None of these types has a place for a raw value. The one kind of text, [`Text`], can be made
//! only by `redact`, which admits a string when it is structure: a word of the vocabulary of
//! APIs, or a token that recurred across independent exchanges, and of no personal class.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// A string that `redact` admitted as structure.
///
/// It serializes, but has no public `Deserialize`: that would be a second door. Nearly all are short
/// and copied with every key of every body, so they stand in place rather than behind a count that
/// processors have to agree on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Text(SmolStr);

impl Text {
    /// Only `redact` decides what is structure.
    pub(crate) fn admit(text: &str) -> Self {
        Self(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// SipHash-2-4 of a raw token under the installation's secret key. Equal on every node of an
/// installation, so that statistics merge; meaningless outside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TokenHash(pub u64);

/// A token in a place where structure may stand: a path segment, a key, a parameter name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub hash: TokenHash,
    pub shape: Shape,
    pub text: Option<Text>,
    /// Of the vocabulary of APIs (`users`, `line-items`, `healthz`): more likely structure.
    pub is_word: bool,
    /// The same value was seen earlier in a response body or `Location` of this service.
    pub was_produced: bool,
    pub personal: Option<Personal>,
}

/// What a token looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Shape {
    Empty,
    /// `v1`, `v2.1`, `2024-01-01` as an API version after `api` is not told apart: see `Date`.
    Version,
    /// Decimal digits only; the number of digits.
    Digits(u8),
    Uuid,
    /// Hexadecimal, at least 8 digits with a letter and a number in it (object ids, digests).
    Hex(u8),
    Ulid,
    Date,
    DateTime,
    Email,
    Ipv4,
    /// Base64 or random letters and digits, by entropy.
    Opaque(u8),
    /// One word of letters (`orders`, `Settings`).
    Word,
    /// Words joined by `-`, `_`, `.` or camelCase, with no digit.
    Compound,
    /// Letters with digits among them (`order-17`, `sku123`).
    Mixed,
    /// A decimal number with a point, or a signed one.
    Decimal,
    /// Letters beyond ASCII, spaces, punctuation, anything else.
    Other,
}

/// Classes of personal data and secrets. `spec`-independent names, as they are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Personal {
    Email,
    Phone,
    /// Payment card number with a valid Luhn digit.
    Card,
    Ssn,
    Ipv4,
    Ipv6,
    /// IBAN with a valid ISO 7064 checksum.
    Iban,
    /// National identifiers with a checksum (NIR, NINO, Codice Fiscale, ...).
    NationalId,
    MacAddress,
    Coordinates,
    BirthDate,
    /// By the name of its field: names, addresses and the like.
    Name,
    Address,
    Username,
    Jwt,
    Bearer,
    Basic,
    Cookie,
    ApiKey,
    CloudKey,
    PrivateKey,
    Password,
    /// High-entropy token that fits no other class.
    Secret,
    /// Free text in a field that people write into.
    FreeText,
}

impl Personal {
    pub const ALL: [Self; 24] = [
        Self::Email,
        Self::Phone,
        Self::Card,
        Self::Ssn,
        Self::Ipv4,
        Self::Ipv6,
        Self::Iban,
        Self::NationalId,
        Self::MacAddress,
        Self::Coordinates,
        Self::BirthDate,
        Self::Name,
        Self::Address,
        Self::Username,
        Self::Jwt,
        Self::Bearer,
        Self::Basic,
        Self::Cookie,
        Self::ApiKey,
        Self::CloudKey,
        Self::PrivateKey,
        Self::Password,
        Self::Secret,
        Self::FreeText,
    ];
}

/// Formats that every sample of a string may still have; a set of bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Formats(pub u32);

impl Formats {
    pub const DATE_TIME: Self = Self(1);
    pub const DATE: Self = Self(1 << 1);
    pub const TIME: Self = Self(1 << 2);
    pub const EMAIL: Self = Self(1 << 3);
    pub const URI: Self = Self(1 << 4);
    pub const UUID: Self = Self(1 << 5);
    pub const IPV4: Self = Self(1 << 6);
    pub const IPV6: Self = Self(1 << 7);
    pub const HOSTNAME: Self = Self(1 << 8);
    pub const DURATION: Self = Self(1 << 9);
    pub const BYTE: Self = Self(1 << 10);
    pub const JWT: Self = Self(1 << 11);
    /// The string spells an integer, a number or a boolean: query, path, header and form values
    /// are always strings on the wire.
    pub const INTEGER: Self = Self(1 << 12);
    pub const NUMBER: Self = Self(1 << 13);
    pub const BOOLEAN: Self = Self(1 << 14);
    /// A relative reference beginning with `/`.
    pub const PATH: Self = Self(1 << 15);
    pub const ALL: Self = Self((1 << 16) - 1);

    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// A string value, or any value that is written as a string (query, path, header, form).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub hash: TokenHash,
    pub formats: Formats,
    /// In characters.
    pub length: u32,
    pub personal: Option<Personal>,
    /// Only for tokens that may be members of an enumeration and recurred.
    pub text: Option<Text>,
    /// Where `formats` has INTEGER or NUMBER.
    pub number: Option<Number>,
}

/// A number without its value: enough for type, width and sign, not enough to tell a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Number {
    pub is_integer: bool,
    pub is_negative: bool,
    /// Number of bits of the integral part's magnitude; 65 stands for more than 64.
    pub bits: u8,
    /// Keyed hash of its text, of an integer that may name a thing: long, or in a field that does.
    pub hash: Option<TokenHash>,
    pub personal: Option<Personal>,
}

/// The shape of a JSON value. Depth, members and items are bounded by `redact`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Null,
    Bool,
    Number(Number),
    String(Value),
    Array {
        /// The first items, up to `redact`'s bound.
        items: Vec<Node>,
        length: u32,
        /// Its closing bracket was seen.
        is_closed: bool,
    },
    Object {
        members: Members,
        /// Its closing brace was seen, and no member was left out: absence is evidence.
        is_closed: bool,
    },
}

/// The names of an object's members, in their order.
#[derive(Clone)]
pub struct Names(Arc<NamedLayout>);

struct NamedLayout {
    id: u64,
    tokens: Box<[Token]>,
}

impl Names {
    /// Of an object that others will be like: they share the names.
    pub(crate) fn shared(tokens: Vec<Token>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let id = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Arc::new(NamedLayout { id, tokens: tokens.into() }))
    }

    fn own(tokens: Vec<Token>) -> Self {
        Self(Arc::new(NamedLayout { id: 0, tokens: tokens.into() }))
    }

    /// Equal where the names are the very same, in this process; 0 stands for none that are shared.
    pub(crate) fn id(&self) -> u64 {
        self.0.id
    }

    pub fn tokens(&self) -> &[Token] {
        &self.0.tokens
    }
}

/// The members of an object. Objects of a kind have the same names, which they share.
#[derive(Clone)]
pub struct Members {
    names: Names,
    values: Vec<Node>,
}

impl Members {
    /// `values`: as many as there are names.
    pub(crate) fn shared(names: Names, values: Vec<Node>) -> Self {
        Self { names, values }
    }

    pub(crate) fn own(names: Vec<Token>, values: Vec<Node>) -> Self {
        Self { names: Names::own(names), values }
    }

    pub fn len(&self) -> usize {
        self.values.len()
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn names(&self) -> &Names {
        &self.names
    }

    pub fn values(&self) -> &[Node] {
        &self.values
    }

    /// As an object that was cut there.
    #[cfg(test)]
    pub fn truncate(&mut self, count: usize) {
        *self = self.iter().take(count).map(|(t, n)| (t.clone(), n.clone())).collect();
    }

    pub fn iter(&self) -> impl Iterator<Item = (&Token, &Node)> {
        self.names.tokens().iter().zip(&self.values)
    }
}

impl FromIterator<(Token, Node)> for Members {
    fn from_iter<I: IntoIterator<Item = (Token, Node)>>(members: I) -> Self {
        let (names, values) = members.into_iter().unzip();
        Self::own(names, values)
    }
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl Eq for Members {}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// No body bytes at all.
    Empty,
    Json(Node),
    /// One JSON value a line, or a JSON text sequence; the first ones.
    JsonLines(Vec<Node>),
    /// `application/x-www-form-urlencoded`.
    Form {
        fields: Vec<(Token, Value)>,
        is_whole: bool,
    },
    Multipart {
        parts: Vec<Part>,
        is_whole: bool,
    },
    Xml,
    Text,
    EventStream,
    Binary,
    /// Declared as JSON, form or multipart, and not it.
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub name: Token,
    pub is_file: bool,
    pub media_type: Option<Text>,
    /// `None` for files.
    pub value: Option<Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyShape {
    /// Essence only (`application/json`), lower case; `None` where none was declared.
    pub media_type: Option<Text>,
    pub length: u64,
    pub content: Content,
    /// False where bytes of it are missing.
    pub is_whole: bool,
}

/// How a request identified its caller. Never the credential.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Credential {
    Bearer,
    /// A bearer token that is a JWT.
    Jwt,
    Basic,
    Digest,
    /// Another scheme of the `Authorization` header (`Token`, `AWS4-HMAC-SHA256`).
    Scheme(Text),
    HeaderKey(Text),
    QueryKey(Text),
    CookieKey(Text),
    ClientCertificate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
    Trace,
    Connect,
    /// Any other token: counted, not rendered.
    Other,
}

/// A path segment: a stem and an optional literal suffix (`report.json`, `42:cancel`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSegment {
    pub token: Token,
    /// `.json` or `:cancel`, separator included.
    pub suffix: Option<Text>,
    /// Formats of the stem, for the parameter's schema.
    pub value: Value,
}

/// All that is kept of one exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Seconds since the Unix epoch.
    pub at: u64,
    pub latency_us: u32,
    pub method: Method,
    pub path: Vec<PathSegment>,
    pub has_trailing_slash: bool,
    /// Scheme and authority the client asked for, as a base URL, where admitted as structure.
    pub origin: Option<Text>,
    pub query: Vec<(Token, Value)>,
    /// Application headers only: those of HTTP itself, browsers, proxies and tracing are left out.
    pub headers: Vec<(Token, Value)>,
    pub cookies: Vec<(Token, Value)>,
    pub credentials: Vec<Credential>,
    pub request: BodyShape,
    /// `None` where no response was seen.
    pub response: Option<ResponseShape>,
    /// Both messages were seen from first to last byte.
    pub is_complete: bool,
    /// All of the request's head was seen: a header, cookie or credential that is not here was not
    /// sent.
    pub is_request_head_whole: bool,
    pub bytes_lost: u64,
    /// A request of a CORS preflight (RFC: fetch, section 3.2.2).
    pub is_preflight: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseShape {
    pub status: u16,
    /// Application headers, and those that matter to a client (`Location`, `ETag`, `Link`,
    /// `Retry-After`, rate limits).
    pub headers: Vec<(Token, Value)>,
    pub body: BodyShape,
}
