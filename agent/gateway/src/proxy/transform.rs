//! Changes of JSON bodies: fields renamed, removed and set, or a whole body made from a template.
//! Only what says it is JSON and is not compressed is changed; anything else passes as it is.

use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Map, Value};

use super::{
    body::Body,
    request::{Answer, Request, Unreadable},
    timer::Timer,
};
use crate::{catalog::document::BodyDocument, http::problem::Problem};

const MOST_BYTES: usize = 1 << 20;
/// For an upstream to send a body that is to be changed.
const WITHIN: Duration = Duration::from_secs(30);

/// Why a request's body cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum Unchangeable {
    #[error("{0}")]
    Unreadable(#[from] Unreadable),
    #[error("a body that is to be transformed has at most {0} bytes")]
    TooLong(usize),
    #[error("the body is not JSON")]
    NotJson,
}

impl Unchangeable {
    /// For metrics and for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unreadable(unreadable) => unreadable.code(),
            Self::TooLong(_) | Self::NotJson => "request_untransformable",
        }
    }

    pub fn problem(&self) -> Problem {
        let status = match self {
            Self::Unreadable(unreadable) => return unreadable.problem(),
            Self::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::NotJson => StatusCode::BAD_REQUEST,
        };
        Problem::new(status, self.to_string()).with("code", self.code())
    }
}

/// Changes the request's body; `Err` where it is too long, late or not what it says it is.
pub async fn request(
    request: &mut Request,
    change: &BodyDocument,
    within: Duration,
    timer: &mut Timer,
) -> Result<(), Unchangeable> {
    if !is_plain_json(&request.headers) || request.body.is_empty() {
        return Ok(());
    }
    let most = change.max_bytes.unwrap_or(MOST_BYTES);
    let Some(bytes) = request.read_body(most, within, timer).await? else {
        return Err(Unchangeable::TooLong(most));
    };
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        return Err(Unchangeable::NotJson);
    };
    request.body = Body::full(apply(value, change));
    set_content_type(&mut request.headers, change);
    Ok(())
}

/// The answer with its body changed. One that cannot be is an error of the upstream: passing it
/// unchanged could show what the change was to hide.
pub async fn response(mut answer: Answer, change: &BodyDocument, timer: &mut Timer) -> Answer {
    if !is_plain_json(&answer.headers) || answer.body.is_empty() {
        return answer;
    }
    let most = change.max_bytes.unwrap_or(MOST_BYTES);
    timer.set_after(Some(WITHIN));
    let collected = timer.bound(std::mem::take(&mut answer.body).collect_up_to(most)).await;
    let value = match collected {
        Ok(Ok(Ok(bytes))) => serde_json::from_slice::<Value>(&bytes).ok(),
        _ => None,
    };
    let Some(value) = value else {
        answer.record.code = Some("transform_failed");
        let problem = Problem::new(
            StatusCode::BAD_GATEWAY,
            "the upstream's body cannot be transformed: it is too long, late, or not JSON",
        )
        .with("code", "transform_failed");
        return Answer::of_problem(problem, answer.record);
    };
    answer.body = Body::full(apply(value, change));
    set_content_type(&mut answer.headers, change);
    for validator in [header::ETAG, header::CONTENT_LENGTH, header::ACCEPT_RANGES] {
        answer.headers.remove(validator);
    }
    answer
}

fn is_plain_json(headers: &HeaderMap) -> bool {
    let is_json = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).is_some_and(
        |content_type| {
            let media = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
            media == "application/json" || media.ends_with("+json")
        },
    );
    let is_plain = headers
        .get(header::CONTENT_ENCODING)
        .is_none_or(|coding| coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    is_json && is_plain
}

fn set_content_type(headers: &mut HeaderMap, change: &BodyDocument) {
    if let Some(kind) = &change.content_type
        && let Ok(kind) = HeaderValue::from_str(kind)
    {
        headers.insert(header::CONTENT_TYPE, kind);
    }
}

fn apply(mut value: Value, change: &BodyDocument) -> String {
    if let Some(template) = &change.template {
        return fill(template, &value);
    }
    for (from, to) in &change.rename {
        if let Some(moved) = remove(&mut value, from) {
            set(&mut value, to, moved);
        }
    }
    for path in &change.remove {
        remove(&mut value, path);
    }
    for (path, new) in &change.set {
        set(&mut value, path, new.clone());
    }
    value.to_string()
}

fn step<'a>(value: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    match value {
        Value::Object(fields) => fields.get_mut(name),
        Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, name| match value {
        Value::Object(fields) => fields.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    })
}

fn remove(value: &mut Value, path: &str) -> Option<Value> {
    let (parent, name) = match path.rsplit_once('.') {
        Some((parent, name)) => (parent.split('.').try_fold(value, step)?, name),
        None => (value, path),
    };
    match parent {
        Value::Object(fields) => fields.shift_remove(name),
        Value::Array(items) => {
            let at = name.parse::<usize>().ok()?;
            (at < items.len()).then(|| items.remove(at))
        }
        _ => None,
    }
}

/// Makes the objects on the way that are missing; never changes what is not an object to one.
fn set(value: &mut Value, path: &str, new: Value) {
    let mut names = path.split('.').peekable();
    let mut at = value;
    while let Some(name) = names.next() {
        let is_last = names.peek().is_none();
        at = match at {
            Value::Object(fields) => {
                if is_last {
                    fields.insert(name.to_owned(), new);
                    return;
                }
                fields.entry(name).or_insert_with(|| Value::Object(Map::new()))
            }
            Value::Array(items) => {
                match name.parse::<usize>().ok().and_then(|at| items.get_mut(at)) {
                    Some(item) if is_last => {
                        *item = new;
                        return;
                    }
                    Some(item) => item,
                    None => return,
                }
            }
            _ => return,
        };
    }
}

/// `{{ path }}` becomes the field as JSON; inside a string literal of the template, its text.
fn fill(template: &str, value: &Value) -> String {
    let mut text = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let Some((path, after)) = after.split_once("}}") else { break };
        text.push_str(before);
        let found = find(value, path.trim()).unwrap_or(&Value::Null);
        // An odd number of quotes before it: it stands inside a string.
        let is_quoted = before_is_quoted(&text);
        match found {
            Value::String(string) if is_quoted => {
                let quoted = Value::from(string.as_str()).to_string();
                text.push_str(quoted.trim_start_matches('"').strip_suffix('"').unwrap_or(""));
            }
            other => text.push_str(&other.to_string()),
        }
        rest = after;
    }
    text.push_str(rest);
    text
}

fn before_is_quoted(text: &str) -> bool {
    let mut is_escaped = false;
    let mut is_quoted = false;
    for c in text.chars() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            _ => {}
        }
    }
    is_quoted
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn changed(value: Value, change: Value) -> String {
        let change: BodyDocument = serde_json::from_value(change).unwrap();
        apply(value, &change)
    }

    #[test]
    fn fields_are_renamed_removed_and_set() {
        let text = changed(
            json!({"a": {"b": 1, "c": [1, {"d": 2}]}, "e": "x"}),
            json!({
                "rename": {"a.b": "f.g", "missing": "h"},
                "remove": ["a.c.1.d", "e", "a.z.y"],
                "set": {"a.n.m": true, "a.c.0": "first", "e.e": null, "a.c.7": 1}
            }),
        );
        let expected = json!({
            "a": {"c": ["first", {}], "n": {"m": true}},
            "f": {"g": 1},
            "e": {"e": null}
        });
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);
    }

    #[test]
    fn templates_cannot_be_broken_out_of() {
        let value = json!({"name": "a\"b\\", "n": 7, "list": [1, 2]});
        let template = r#"{"who": "Hi {{name}}!", "raw": {{ name }}, "n": {{n}}, "l": {{list.1}}, "x": {{x}}}"#;
        let text = changed(value, json!({"template": template}));
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"who": "Hi a\"b\\!", "raw": "a\"b\\", "n": 7, "l": 2, "x": null})
        );
    }
}
