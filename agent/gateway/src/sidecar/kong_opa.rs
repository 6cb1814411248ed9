//! What Kong's OPA plugin posts (`config.include_*_in_opa_input` add the rest), and the answer it
//! reads:
//!
//! ```json
//! {"input": {"request": {"http": {"host": "shop.example", "port": "8000", "method": "GET",
//!            "scheme": "http", "path": "/orders", "querystring": {"page": "2"}, "headers": {}}},
//!            "client_ip": "10.0.0.7", "service": {}, "route": {}, "consumer": {}}}
//! {"result": {"allow": false, "status": 403, "message": "…", "headers": {}}}
//! ```
//!
//! Kong has authenticated `consumer`, if it sent one: it is the stated user.

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use serde::Deserialize;
use serde_json::{Map, Value};
use stoa_policy::context::Stated;

use super::{
    document::{Headers, parse},
    question::{
        AskedBody, Malformed, Place, Question, UNKNOWN_SOURCE, address_of, method_of, scheme_of,
        target_of,
    },
};

/// Kong adds members with its versions: what is not read here is ignored.
#[derive(Deserialize)]
struct Envelope {
    input: Input,
}

#[derive(Deserialize)]
struct Input {
    request: HttpRequest,
    #[serde(default)]
    client_ip: Option<String>,
    #[serde(default)]
    route: Option<Named>,
    #[serde(default)]
    consumer: Option<Consumer>,
}

#[derive(Deserialize)]
struct HttpRequest {
    http: Http,
}

#[derive(Deserialize)]
struct Http {
    method: String,
    path: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    port: Option<Value>,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    querystring: Value,
    #[serde(default)]
    headers: Headers,
    /// `config.include_body_in_opa_input`.
    #[serde(default)]
    body: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: Option<String>,
}

#[derive(Deserialize)]
struct Consumer {
    #[serde(default)]
    username: Option<Arc<str>>,
    #[serde(default)]
    custom_id: Option<Arc<str>>,
    #[serde(default)]
    id: Option<Arc<str>>,
}

/// `place` is what the path says that the plugin was given.
pub fn read(body: &[u8], place: Place) -> Result<Question, Malformed> {
    let Envelope { input } = parse(body)?;
    let http = input.request.http;
    let in_http = |name: &str| format!("input.request.http.{name}");
    let mut target = target_of(&in_http("path"), &http.path)?;
    append_query(&mut target, &http.querystring)
        .map_err(|reason| Malformed::new(in_http("querystring"), reason))?;
    let headers = http.headers.0;
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let authority = match host {
        Some(host) => host.to_owned(),
        None => match http.port {
            Some(Value::String(port)) => format!("{}:{port}", http.host),
            Some(Value::Number(port)) => format!("{}:{port}", http.host),
            _ => http.host,
        },
    };
    let stated = input.consumer.and_then(|consumer| {
        let id = consumer.username.or(consumer.custom_id).or(consumer.id)?;
        Some(Stated { id: Some(id), ..Stated::default() })
    });
    Ok(Question {
        method: method_of(&in_http("method"), &http.method)?,
        scheme: scheme_of(&http.scheme),
        authority,
        target,
        source: input.client_ip.as_deref().and_then(address_of).unwrap_or(UNKNOWN_SOURCE),
        certificate: None,
        stated,
        place: Place { route: place.route.or(input.route.and_then(|r| r.name)), ..place },
        body: http.body.map_or(AskedBody::Unknown, |body| AskedBody::Whole(Bytes::from(body))),
        headers,
    })
}

/// Kong has decoded the query into an object; a policy sees it encoded again.
fn append_query(target: &mut String, query: &Value) -> Result<(), &'static str> {
    let parameters: &Map<String, Value> = match query {
        Value::Object(parameters) => parameters,
        Value::Null => return Ok(()),
        // What Lua has for an empty object.
        Value::Array(items) if items.is_empty() => return Ok(()),
        _ => return Err("is not an object"),
    };
    if target.contains('?') {
        return Ok(());
    }
    for (name, value) in parameters {
        let values = match value {
            Value::Array(values) => values.as_slice(),
            one => std::slice::from_ref(one),
        };
        for value in values {
            target.push(if target.contains('?') { '&' } else { '?' });
            encode(name, target);
            match value {
                // `?flag`, which Kong shows as `true`.
                Value::Bool(true) => continue,
                Value::String(text) => {
                    target.push('=');
                    encode(text, target);
                }
                Value::Number(number) => {
                    target.push('=');
                    encode(&number.to_string(), target);
                }
                _ => return Err("has a parameter that is neither text nor a list of texts"),
            }
        }
    }
    Ok(())
}

/// RFC 3986 section 2.3: everything but the unreserved characters.
fn encode(text: &str, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                into.push(char::from(byte));
            }
            _ => {
                into.push('%');
                into.push(char::from(HEX[usize::from(byte >> 4)]));
                into.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kong_documents_is_read() {
        let question = read(
            br#"{"input":{"request":{"http":{"host":"example.org","port":"8000","tls":{},
                "method":"GET","scheme":"http","path":"/foo/bar",
                "querystring":{"foo":"b r","flag":true,"n":["1","2"]},
                "headers":{"accept":"*/*","x":["1","2"]},"uri_captures":{}}},
                "client_ip":"127.0.0.1","service":{"host":"httpbin.org"},
                "route":{"name":"orders"},"consumer":{"username":"ann","id":"c-1"}}}"#,
            Place::default(),
        )
        .unwrap();
        assert_eq!(question.target, "/foo/bar?foo=b%20r&flag&n=1&n=2");
        assert_eq!(question.authority, "example.org:8000");
        assert_eq!(question.source.ip().to_string(), "127.0.0.1");
        assert_eq!(question.stated.unwrap().id.as_deref(), Some("ann"));
        assert_eq!(question.place.route.as_deref(), Some("orders"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = |body: &str| read(body.as_bytes(), Place::default()).unwrap_err().field;
        assert_eq!(error("{}"), "input");
        assert_eq!(error(r#"{"input":{}}"#), "input.request");
        assert_eq!(
            error(r#"{"input":{"request":{"http":{"path":"/"}}}}"#),
            "input.request.http.method"
        );
        let body = r#"{"input":{"request":{"http":{"path":"/","method":"GET","querystring":3}}}}"#;
        assert_eq!(error(body), "input.request.http.querystring");
    }
}
