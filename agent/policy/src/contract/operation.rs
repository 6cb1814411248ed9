//! One operation of a contract, compiled, and what breaks it.

use std::{collections::BTreeMap, fmt};

use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use jsonschema::Validator;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::json;
use crate::{
    context::{Body, RequestContext, ResponseContext},
    decision::{Note, PolicyKind},
};

/// Where a contract is broken, and how; without the value, which may be anybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    /// `query parameter limit`, `body/items/0/price`.
    pub place: String,
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { place, what } = self;
        if place.is_empty() { f.write_str(what) } else { write!(f, "{place}: {what}") }
    }
}

impl Problem {
    pub(super) fn into_note(self, code: &'static str) -> Note {
        Note { policy: PolicyKind::Contract, code, detail: self.to_string() }
    }

    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into() }
    }
}

#[derive(Debug, Default)]
pub(super) struct Operation {
    pub parameters: Vec<Parameter>,
    pub body: Option<Content>,
    pub is_body_required: bool,
    /// By status.
    pub responses: BTreeMap<u16, Response>,
    /// By the first digit: `4XX`.
    pub classes: BTreeMap<u16, Response>,
    pub default: Option<Response>,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub place: Place,
    pub name: String,
    pub is_required: bool,
    /// `None`: any value.
    pub schema: Option<Validator>,
    pub is_list: bool,
    /// An object whose members are parameters by themselves: any name may be one.
    pub is_open: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// By its position among the parameters of the template.
    Path(usize),
    Query,
    Header,
    Cookie,
}

#[derive(Debug, Default)]
pub(super) struct Response {
    pub content: Content,
    pub required_headers: Vec<HeaderName>,
}

/// By media range, most specific first. A schema only where it is JSON and has one.
#[derive(Debug, Default)]
pub(super) struct Content(pub Vec<(String, Option<Validator>)>);

impl Operation {
    pub(super) fn reads_body(&self) -> bool {
        self.body.as_ref().is_some_and(|content| content.0.iter().any(|(_, s)| s.is_some()))
    }

    /// `values`: of the template's parameters, in order. The first problem is enough.
    pub(super) fn check_request(
        &self,
        request: &RequestContext<'_>,
        values: &[String],
    ) -> Vec<Problem> {
        let mut problems = Vec::new();
        for parameter in &self.parameters {
            let found = parameter.read(request, values);
            problems.extend(parameter.check(&found));
            if !problems.is_empty() {
                return problems;
            }
        }
        let Some(content) = &self.body else { return problems };
        let media = request.headers.get(header::CONTENT_TYPE);
        let is_absent = match request.body {
            Body::Whole(body) => body.is_empty(),
            Body::Longer => false,
            Body::Unread => media.is_none() && !announces_body(request.headers),
        };
        if is_absent {
            if self.is_body_required {
                problems.push(Problem::new("body", "is missing"));
            }
            return problems;
        }
        problems.extend(content.check("body", request.headers, request.body));
        problems
    }

    pub(super) fn unknown_parameters(&self, query: Option<&str>) -> Vec<Problem> {
        if self.parameters.iter().any(|parameter| parameter.is_open) {
            return Vec::new();
        }
        let names = pairs(query).map(|(name, _)| name);
        // `filter[status]` is a member of the parameter `filter`.
        let is_known = |name: &String| {
            let stem = name.split('[').next().unwrap_or_default();
            self.parameters.iter().any(|p| {
                p.place == Place::Query
                    && (p.name == *name
                        || p.name == stem
                        || p.name.strip_suffix("[]") == Some(stem))
            })
        };
        names
            .filter(|name| !name.is_empty() && !is_known(name))
            .map(|name| Problem::new(format!("query parameter {name}"), "is not in the contract"))
            .collect()
    }

    fn response(&self, status: StatusCode) -> Option<&Response> {
        let code = status.as_u16();
        self.responses
            .get(&code)
            .or_else(|| self.classes.get(&(code / 100)))
            .or(self.default.as_ref())
    }

    pub(super) fn reads_response(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        let Some(response) = self.response(status) else { return false };
        response.content.find(headers).is_some_and(|(_, schema)| schema.is_some())
    }

    pub(super) fn check_response(&self, response: &ResponseContext<'_>) -> Vec<Problem> {
        // A document without any response says nothing about them (a UAC may).
        if self.responses.is_empty() && self.classes.is_empty() && self.default.is_none() {
            return Vec::new();
        }
        let Some(expected) = self.response(response.status) else {
            let what = format!("{} is not in the contract", response.status.as_u16());
            return vec![Problem::new("status", what)];
        };
        for name in &expected.required_headers {
            if !response.headers.contains_key(name) {
                return vec![Problem::new(format!("header {name}"), "is missing")];
            }
        }
        // RFC 9110 section 6.4.1: these have no content whatever their headers say.
        let is_empty = *response.method == Method::HEAD
            || matches!(response.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
            || response.status.is_informational()
            || response.body == Body::Whole(&[])
            || response.body == Body::Unread
                && !response.headers.contains_key(header::CONTENT_TYPE);
        if is_empty || expected.content.0.is_empty() {
            return Vec::new();
        }
        expected.content.check("body", response.headers, response.body)
    }
}

fn announces_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|value| value != "0")
}

impl Content {
    fn find(&self, headers: &HeaderMap) -> Option<&(String, Option<Validator>)> {
        let media = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        let essence = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let matches = |range: &str| match range.strip_suffix('*') {
            Some("*/") => true,
            Some(kind) => essence.starts_with(kind),
            None => essence == range,
        };
        self.0.iter().find(|(range, _)| matches(range))
    }

    fn check(&self, place: &str, headers: &HeaderMap, body: Body<'_>) -> Vec<Problem> {
        let Some((_, schema)) = self.find(headers) else {
            let known: Vec<&str> = self.0.iter().map(|(range, _)| range.as_str()).collect();
            let what = format!("has a media type other than {}", known.join(", "));
            return vec![Problem::new(place, what)];
        };
        let Some(schema) = schema else { return Vec::new() };
        let is_coded = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"));
        let body = match body {
            _ if is_coded => {
                return vec![Problem::new(place, "is compressed and cannot be checked")];
            }
            Body::Longer => return vec![Problem::new(place, "is too long to be checked")],
            Body::Unread => return vec![Problem::new(place, "was not read")],
            Body::Whole(body) => body,
        };
        match json::parse(body) {
            Ok(value) => violation(place, schema, &value).into_iter().collect(),
            Err(wrong) => vec![Problem::new(place, wrong)],
        }
    }
}

fn violation(place: &str, schema: &Validator, value: &Value) -> Option<Problem> {
    // Most are valid, and that is quicker to tell.
    if schema.is_valid(value) {
        return None;
    }
    let error = schema.iter_errors(value).next()?;
    Some(Problem::new(format!("{place}{}", error.instance_path()), error.masked().to_string()))
}

impl Parameter {
    fn read(&self, request: &RequestContext<'_>, values: &[String]) -> Vec<String> {
        match self.place {
            Place::Path(at) => values.get(at).cloned().into_iter().collect(),
            Place::Query => {
                let pairs = pairs(request.query).filter(|(name, _)| *name == self.name);
                pairs.map(|(_, value)| value).collect()
            }
            Place::Header => {
                let values = request.headers.get_all(&self.name).iter();
                values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
            }
            Place::Cookie => {
                let headers = request.headers.get_all(header::COOKIE).iter();
                let texts = headers.filter_map(|value| value.to_str().ok());
                let cookies = texts.flat_map(|text| text.split(';'));
                let pairs = cookies.filter_map(|cookie| cookie.trim().split_once('='));
                let ours = pairs.filter(|(name, _)| *name == self.name);
                ours.map(|(_, value)| value.trim_matches('"').to_owned()).collect()
            }
        }
    }

    fn check(&self, found: &[String]) -> Option<Problem> {
        let place = || {
            let kind = match self.place {
                Place::Path(_) => "path",
                Place::Query => "query",
                Place::Header => "header",
                Place::Cookie => "cookie",
            };
            format!("{kind} parameter {}", self.name)
        };
        let Some(first) = found.first() else {
            return self.is_required.then(|| Problem::new(place(), "is missing"));
        };
        let schema = self.schema.as_ref()?;
        let candidates = if self.is_list {
            // `style: form`, exploded or not (OpenAPI section 4.8.12.2).
            let items: Vec<&str> = match found {
                [one] if one.contains(',') => one.split(',').collect(),
                many => many.iter().map(String::as_str).collect(),
            };
            let texts = || items.iter().map(|item| Value::from(*item)).collect();
            let typed =
                || items.iter().map(|item| typed(item).unwrap_or(Value::from(*item))).collect();
            vec![Value::Array(texts()), Value::Array(typed())]
        } else if found.len() > 1 {
            return Some(Problem::new(place(), "is given more than once"));
        } else {
            // What is sent is text; what it stands for is for the schema to say.
            let text = Value::from(first.as_str());
            typed(first).into_iter().chain([text]).collect()
        };
        if candidates.iter().any(|candidate| schema.is_valid(candidate)) {
            return None;
        }
        let problem = candidates.iter().find_map(|candidate| violation("", schema, candidate))?;
        Some(Problem::new(format!("{}{}", place(), problem.place), problem.what))
    }
}

/// A number or a truth value, as JSON writes it.
fn typed(text: &str) -> Option<Value> {
    let value = serde_json::from_str(text).ok()?;
    matches!(value, Value::Number(_) | Value::Bool(_)).then_some(value)
}

fn pairs(query: Option<&str>) -> impl Iterator<Item = (String, String)> {
    let decode =
        |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(move |pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(move |(name, value)| (decode(name), decode(value)))
}
