//! The request document of `POST /authz`.
//!
//! ```json
//! {"method": "GET", "path": "/orders?page=2", "headers": {"accept": "text/html"},
//!  "source_ip": "10.0.0.7",
//!  "user": {"id": "ann", "email": "ann@acme.example", "roles": ["viewer"],
//!           "scopes": ["stoa:read"], "claims": {"department": "sales"}},
//!  "tenant_id": "acme",
//!  "context": {"policy_set": "orders", "route": "orders-v1"}}
//! ```
//!
//! `method` and `path` are required. `context` may hold what the gateway likes; `policy_set` and
//! `route` in it are read. Any other member that is not named here is refused, so that a misspelt
//! `tenantid` does not go unnoticed.

use std::{borrow::Cow, fmt, net::IpAddr, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, header};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};
use serde_json::{Map, Value};
use stoa_policy::context::Stated;

use super::question::{
    AskedBody, Malformed, Place, Question, UNKNOWN_SOURCE, method_of, scheme_of, target_of,
};

/// More than any gateway passes on.
pub const MOST_HEADERS: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(default)]
    headers: Headers,
    #[serde(default)]
    source_ip: Option<IpAddr>,
    #[serde(default)]
    user: Option<User>,
    #[serde(default)]
    tenant_id: Option<Arc<str>>,
    #[serde(default)]
    context: Option<Context>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    id: Arc<str>,
    #[serde(default)]
    email: Option<Arc<str>>,
    #[serde(default)]
    roles: Vec<Arc<str>>,
    #[serde(default)]
    scopes: Vec<Arc<str>>,
    #[serde(default)]
    claims: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
struct Context {
    #[serde(default)]
    policy_set: Option<String>,
    #[serde(default)]
    route: Option<String>,
}

/// Reads the document; of one that cannot be read, the error names the member.
pub fn read(body: &[u8]) -> Result<Question, Malformed> {
    let document: Document<'_> = parse(body)?;
    let headers = document.headers.0;
    let authority = headers.get(header::HOST).and_then(|value| value.to_str().ok());
    let scheme = headers.get("x-forwarded-proto").and_then(|value| value.to_str().ok());
    let context = document.context.unwrap_or_default();
    Ok(Question {
        method: method_of("method", &document.method)?,
        scheme: scheme_of(scheme.unwrap_or("http")),
        authority: authority.unwrap_or_default().to_owned(),
        target: target_of("path", &document.path)?,
        source: document.source_ip.map_or(UNKNOWN_SOURCE, |ip| (ip, 0).into()),
        certificate: None,
        stated: stated(document.user, document.tenant_id)?,
        place: Place { policy_set: context.policy_set, route: context.route, tenant: None },
        body: AskedBody::Unknown,
        headers,
    })
}

fn stated(user: Option<User>, tenant: Option<Arc<str>>) -> Result<Option<Stated>, Malformed> {
    let tenant = tenant.filter(|tenant| !tenant.is_empty());
    let Some(user) = user else {
        return Ok(tenant.map(|tenant| Stated { tenant: Some(tenant), ..Stated::default() }));
    };
    if user.id.is_empty() {
        return Err(Malformed::new("user.id", "is empty"));
    }
    Ok(Some(Stated {
        id: Some(user.id),
        email: user.email,
        tenant,
        roles: user.roles,
        scopes: user.scopes,
        claims: Arc::new(user.claims.unwrap_or_default()),
    }))
}

/// Reads JSON. Only of what is malformed, a second reading finds the place.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Malformed> {
    match serde_json::from_slice(body) {
        Ok(read) => Ok(read),
        Err(error) if error.is_syntax() || error.is_eof() => {
            Err(Malformed::new("", format!("the body is not JSON: {error}")))
        }
        Err(_) => {
            let mut reader = serde_json::Deserializer::from_slice(body);
            match serde_path_to_error::deserialize(&mut reader) {
                Ok(read) => Ok(read),
                Err(error) => Err(locate(&error)),
            }
        }
    }
}

/// serde names a member that is unknown, missing or given twice in its message, and of the others
/// `serde_path_to_error` knows the place.
fn locate<E: fmt::Display>(error: &serde_path_to_error::Error<E>) -> Malformed {
    let message = error.inner().to_string();
    let path = match error.path().to_string() {
        path if path == "." => String::new(),
        path => path,
    };
    let named = ["unknown field `", "missing field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start)?.split('`').next());
    let field = match named {
        Some(name) if path.is_empty() || path == name => name.to_owned(),
        Some(name) if path.ends_with(&format!(".{name}")) => path,
        Some(name) => format!("{path}.{name}"),
        None => path,
    };
    // The place in the text says nothing more, and differs between the two ways of reading.
    let reason = message.split(" at line ").next().unwrap_or(&message);
    Malformed::new(field, reason)
}

/// A JSON object of strings, or of lists of strings where a field came more than once.
#[derive(Debug, Default)]
pub(super) struct Headers(pub HeaderMap);

impl<'de> Deserialize<'de> for Headers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Headers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of header fields")
            }

            fn visit_unit<E: de::Error>(self) -> Result<Headers, E> {
                Ok(Headers::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Headers, A::Error> {
                let mut headers =
                    HeaderMap::with_capacity(fields.size_hint().unwrap_or(16).min(64));
                while let Some(name) = fields.next_key::<Cow<'_, str>>()? {
                    let values: Values = fields.next_value()?;
                    let name = HeaderName::from_bytes(name.as_bytes())
                        .map_err(|_| de::Error::custom("is not the name of a header"))?;
                    for value in values.0 {
                        if headers.len() >= MOST_HEADERS {
                            return Err(de::Error::custom(format!(
                                "there are more than {MOST_HEADERS} header fields"
                            )));
                        }
                        headers.append(name.clone(), value);
                    }
                }
                Ok(Headers(headers))
            }
        }

        deserializer.deserialize_any(Fields)
    }
}

struct Values(smallvec::SmallVec<[HeaderValue; 1]>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Values;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                Ok(Values(smallvec::smallvec![value_of(text)?]))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Values, A::Error> {
                let mut values = Values(smallvec::SmallVec::new());
                while let Some(text) = items.next_element::<Cow<'_, str>>()? {
                    if values.0.len() >= MOST_HEADERS {
                        return Err(de::Error::custom("there are too many values"));
                    }
                    values.0.push(value_of(&text)?);
                }
                Ok(values)
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

fn value_of<E: de::Error>(text: &str) -> Result<HeaderValue, E> {
    HeaderValue::from_bytes(text.as_bytes())
        .map_err(|_| E::custom("has a control character in its value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(body: &str) -> (String, String) {
        let error = read(body.as_bytes()).unwrap_err();
        (error.field, error.reason)
    }

    #[test]
    fn the_whole_document_is_read() {
        let question = read(
            br#"{"method":"GET","path":"/orders?page=2",
                 "headers":{"Host":"shop.example","x-a":["1","2"],"X-A":"3"},
                 "source_ip":"10.0.0.7",
                 "user":{"id":"ann","email":"a@b.c","roles":["viewer"],"scopes":["stoa:read"],
                         "claims":{"dept":"sales"}},
                 "tenant_id":"acme","context":{"policy_set":"orders","more":[1]}}"#,
        )
        .unwrap();
        assert_eq!((question.method.as_str(), question.target.as_str()), ("GET", "/orders?page=2"));
        assert_eq!(question.authority, "shop.example");
        let values: Vec<_> = question.headers.get_all("x-a").iter().collect();
        assert_eq!(values, ["1", "2", "3"]);
        assert_eq!(question.source.ip().to_string(), "10.0.0.7");
        let stated = question.stated.unwrap();
        assert_eq!(stated.id.as_deref(), Some("ann"));
        assert_eq!(stated.tenant.as_deref(), Some("acme"));
        assert_eq!(stated.claims["dept"], "sales");
        assert_eq!(question.place.policy_set.as_deref(), Some("orders"));
    }

    #[test]
    fn method_and_path_are_enough() {
        let question = read(br#"{"method":"GET","path":"/"}"#).unwrap();
        assert!(question.stated.is_none());
        assert_eq!(question.source, UNKNOWN_SOURCE);
        let nulls = r#"{"method":"GET","path":"/","headers":null,"user":null,"tenant_id":null,
                        "source_ip":null,"context":null}"#;
        assert!(read(nulls.as_bytes()).unwrap().stated.is_none());
        // A tenant without a user is said, and is no user.
        let question = read(br#"{"method":"GET","path":"/","tenant_id":"a"}"#).unwrap();
        assert_eq!(question.stated.unwrap().id, None);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (body, field) in [
            (r#"{"path":"/"}"#, "method"),
            (r#"{"method":"GET"}"#, "path"),
            (r#"{"method":"G T","path":"/"}"#, "method"),
            (r#"{"method":3,"path":"/"}"#, "method"),
            (r#"{"method":"GET","path":"orders"}"#, "path"),
            (r#"{"method":"GET","path":"/","tenantid":"a"}"#, "tenantid"),
            (r#"{"method":"GET","path":"/","tenant_id":7}"#, "tenant_id"),
            (r#"{"method":"GET","path":"/","path":"/b"}"#, "path"),
            (r#"{"method":"GET","path":"/","source_ip":"here"}"#, "source_ip"),
            (r#"{"method":"GET","path":"/","user":{"email":"a"}}"#, "user.id"),
            (r#"{"method":"GET","path":"/","user":{"id":""}}"#, "user.id"),
            (r#"{"method":"GET","path":"/","user":{"id":"a","role":[]}}"#, "user.role"),
            (r#"{"method":"GET","path":"/","user":{"id":"a","roles":["b",1]}}"#, "user.roles[1]"),
            (r#"{"method":"GET","path":"/","user":{"id":"a","claims":[]}}"#, "user.claims"),
            (r#"{"method":"GET","path":"/","headers":{"a":1}}"#, "headers.a"),
            (r#"{"method":"GET","path":"/","headers":{"a":"b\r\nc: d"}}"#, "headers.a"),
            (r#"{"method":"GET","path":"/","context":{"policy_set":1}}"#, "context.policy_set"),
        ] {
            let (named, reason) = error_of(body);
            assert_eq!(named, field, "{body}: {reason}");
            assert!(!reason.is_empty() && !reason.contains("line 1"), "{reason}");
        }
        assert!(error_of("").1.contains("not JSON"));
        assert!(error_of("{").1.contains("not JSON"));
        assert!(error_of("[]").1.contains("expected struct"));
        let many: Vec<String> = (0..300).map(|n| format!(r#""h{n}":"""#)).collect();
        let body = format!(r#"{{"method":"GET","path":"/","headers":{{{}}}}}"#, many.join(","));
        assert!(error_of(&body).1.contains("more than 256"));
    }
}
