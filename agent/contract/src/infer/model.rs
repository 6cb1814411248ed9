//! A contract, typed: what the renderers (OpenAPI, UAC, table) work from.

use std::collections::BTreeMap;

use super::schema::ValuesSeen;
use crate::observation::{Method, Personal};

/// What was inferred of one service.
#[derive(Clone, Debug, PartialEq)]
pub struct Contract {
    pub service: String,
    /// Semantic version of the contract document.
    pub version: String,
    /// Base URLs that clients used, most used first.
    pub servers: Vec<String>,
    /// Sorted by template, then method.
    pub operations: Vec<Operation>,
    /// Schemas that occur in more than one place, by component name.
    pub components: BTreeMap<String, Schema>,
    pub security_schemes: BTreeMap<String, SecurityScheme>,
    pub tally: Tally,
    pub provenance: Provenance,
    /// 0 to 1; the mean of the operations' confidence, weighted by the logarithm of their samples.
    pub confidence: f64,
}

/// What the contract was made of, and what it leaves out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Exchanges recorded, whatever became of them.
    pub exchanges: u64,
    pub complete: u64,
    /// Of the exchanges, those that were only counted, for want of time: no sample of anything.
    pub passed_over: u64,
    pub bytes_lost: u64,
    /// Requests of CORS preflights and of methods that OpenAPI does not know: no operation.
    pub preflights: u64,
    /// Unsuccessful exchanges (4xx, 5xx, no response) on paths that match no operation.
    pub unmatched: u64,
    /// Path segments judged static whose text was withheld; they render as a parameter.
    pub withheld: u64,
    /// Path segments whose role few samples could not settle.
    pub undecided: u64,
    /// 0: all structure is kept; each level above halves the kept siblings.
    pub coarseness: u8,
    /// Samples of personal data or secrets by class, masked before they were counted.
    pub personal: BTreeMap<Personal, u64>,
}

/// Where an element comes from. Times are seconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    pub samples: u64,
    /// Samples whose both messages were seen whole.
    pub complete: u64,
    pub bytes_lost: u64,
    pub first_seen: u64,
    pub last_seen: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Operation {
    /// `/users/{userId}`
    pub template: String,
    pub method: Method,
    pub operation_id: String,
    pub tag: Option<String>,
    pub summary: String,
    /// Notes for the reviewer, each a sentence.
    pub notes: Vec<String>,
    pub parameters: Vec<Parameter>,
    pub request_body: Option<RequestBody>,
    pub responses: BTreeMap<u16, Response>,
    pub security: Security,
    pub confidence: f64,
    pub provenance: Provenance,
    /// 0 to 1: the least certain decision of the template.
    pub template_certainty: f64,
    pub latency: Option<Latency>,
}

/// Upper bounds of the quantiles, in microseconds; each at most twice the true value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Latency {
    pub p50_us: u64,
    pub p95_us: u64,
    pub p99_us: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    pub name: String,
    pub place: Place,
    pub is_required: bool,
    pub schema: Schema,
    pub samples: u64,
    /// Why it is there, where that is not plain.
    pub note: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct RequestBody {
    pub is_required: bool,
    pub content: BTreeMap<String, Media>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Response {
    pub samples: u64,
    pub headers: BTreeMap<String, Parameter>,
    /// By media type; empty where no body was seen.
    pub content: BTreeMap<String, Media>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Media {
    /// `None`: nothing is known of its structure.
    pub schema: Option<Schema>,
    pub samples: u64,
    /// Samples of which bytes are missing.
    pub truncated: u64,
}

/// How callers identify themselves to an operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// Names of security schemes that were accepted.
    pub schemes: Vec<String>,
    /// Every call carried all of them; else any one of them is enough.
    pub is_conjunction: bool,
    /// Calls without any of them succeeded too.
    pub is_optional: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecurityScheme {
    Http { scheme: String, bearer_format: Option<String> },
    ApiKey { place: Place, name: String, note: Option<String> },
    MutualTls,
}

/// The types a schema admits; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Types(pub u8);

impl Types {
    pub const NULL: Self = Self(1);
    pub const BOOLEAN: Self = Self(1 << 1);
    pub const INTEGER: Self = Self(1 << 2);
    pub const NUMBER: Self = Self(1 << 3);
    pub const STRING: Self = Self(1 << 4);
    pub const ARRAY: Self = Self(1 << 5);
    pub const OBJECT: Self = Self(1 << 6);

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
    /// JSON Schema names, in a fixed order, `null` last.
    pub fn names(self) -> Vec<&'static str> {
        [
            (Self::OBJECT, "object"),
            (Self::ARRAY, "array"),
            (Self::STRING, "string"),
            (Self::INTEGER, "integer"),
            (Self::NUMBER, "number"),
            (Self::BOOLEAN, "boolean"),
            (Self::NULL, "null"),
        ]
        .into_iter()
        .filter(|(t, _)| self.has(*t))
        .map(|(_, n)| n)
        .collect()
    }
}

/// A JSON Schema, as far as traffic shows one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schema {
    /// Empty: anything.
    pub types: Types,
    pub format: Option<&'static str>,
    /// Sorted; empty: no enumeration.
    pub enumeration: Vec<String>,
    pub items: Option<Box<Schema>>,
    pub properties: BTreeMap<String, Schema>,
    pub required: Vec<String>,
    /// Properties that at least one whole object did not have.
    pub optional: Vec<String>,
    /// Which strings there were, where they are few: those of several places may make an
    /// enumeration together.
    pub(crate) values_seen: Option<Box<ValuesSeen>>,
    /// The object is a map: this is the schema of its values.
    pub values: Option<Box<Schema>>,
    /// A name in `Contract::components`; then everything else is empty but `is_nullable`.
    pub reference: Option<String>,
    /// Beside a reference: `null` was seen too.
    pub is_nullable: bool,
    /// Never negative.
    pub minimum_zero: bool,
    /// Media of the string (`binary` files in multipart).
    pub media_type: Option<String>,
    pub personal: Option<Personal>,
    pub samples: u64,
}
