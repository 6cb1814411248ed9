//! Problem details (RFC 9457): what a client is told when it asks for what cannot be had.

use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::Answer;

pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Extension members (RFC 9457 section 3.2).
    members: Map<String, Value>,
    allow: Option<&'static str>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Map::new(), allow: None }
    }

    pub fn with(mut self, member: &str, value: impl Into<Value>) -> Self {
        self.members.insert(member.to_owned(), value.into());
        self
    }

    /// RFC 9110 section 15.5.6: a 405 names the methods that are allowed.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut problem =
            Self::new(StatusCode::METHOD_NOT_ALLOWED, format!("this resource answers {allow}"));
        problem.allow = Some(allow);
        problem
    }

    pub fn into_response(self) -> Answer {
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.members);
        }
        let mut response =
            super::with_type(self.status, "application/problem+json", format!("{body}\n"));
        if let Some(allow) = self.allow {
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}
