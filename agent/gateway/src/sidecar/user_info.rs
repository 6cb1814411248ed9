//! The header in which a gateway says who the user is (`STOA_USER_INFO_HEADER`).
//!
//! Gateways write it in three ways: JSON (`{"sub": "ann", "scope": "a b"}`), the same in Base64
//! (Kong's OpenID Connect plugins), or the bare name of the user.

use std::sync::Arc;

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Map, Value};
use stoa_policy::context::Stated;

use super::question::Malformed;

/// A longer user information is nobody's.
const LONGEST: usize = 16 << 10;

/// Where a gateway states the user and the tenant beside the question.
#[derive(Clone, Debug)]
pub struct Stating {
    pub user: HeaderName,
    pub tenant: HeaderName,
    /// Whether the operator has named these fields, and so has the gateway overwrite them.
    pub are_overwritten: bool,
}

impl Stating {
    /// Adds what `headers` say to what the question itself says, which wins.
    pub fn complete(
        &self,
        stated: &mut Option<Stated>,
        headers: &HeaderMap,
    ) -> Result<(), Malformed> {
        let has_user = stated.as_ref().is_some_and(|stated| stated.id.is_some());
        let user = if has_user { None } else { one(headers, &self.user)? };
        if let Some(value) = user
            && let Some(mut user) = read(self.user.as_str(), value)?
        {
            user.tenant = stated.take().and_then(|stated| stated.tenant).or(user.tenant);
            *stated = Some(user);
        }
        let has_tenant = stated.as_ref().is_some_and(|stated| stated.tenant.is_some());
        let tenant = if has_tenant { None } else { one(headers, &self.tenant)? };
        if let Some(value) = tenant {
            let text = value
                .to_str()
                .map(str::trim)
                .map_err(|_| Malformed::new(self.tenant.as_str(), "is not printable ASCII"))?;
            if !text.is_empty() {
                stated.get_or_insert_default().tenant = Some(Arc::from(text));
            }
        }
        Ok(())
    }
}

/// A field that comes twice was the client's once.
fn one<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a HeaderValue>, Malformed> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        None => Ok(first),
        Some(_) => Err(Malformed::new(name.as_str(), "comes more than once")),
    }
}

fn read(field: &str, value: &HeaderValue) -> Result<Option<Stated>, Malformed> {
    let malformed = |reason: &str| Malformed::new(field, reason);
    let text = value.to_str().map_err(|_| malformed("is not printable ASCII"))?.trim();
    if text.len() > LONGEST {
        return Err(malformed("is too long"));
    }
    if text.is_empty() {
        return Ok(None);
    }
    if text.starts_with('{') {
        let claims = serde_json::from_str(text).map_err(|_| malformed("is not a JSON object"))?;
        return of_claims(claims).map(Some).ok_or_else(|| malformed("names no user: no `sub`"));
    }
    match decode(text) {
        Some(claims) => {
            of_claims(claims).map(Some).ok_or_else(|| malformed("names no user: no `sub`"))
        }
        None => Ok(Some(Stated { id: Some(Arc::from(text)), ..Stated::default() })),
    }
}

fn decode(text: &str) -> Option<Map<String, Value>> {
    let bytes = BASE64_STANDARD
        .decode(text)
        .or_else(|_| BASE64_URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')))
        .ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn of_claims(claims: Map<String, Value>) -> Option<Stated> {
    let text = |name: &str| claims.get(name)?.as_str().filter(|t| !t.is_empty()).map(Arc::from);
    let id: Arc<str> =
        ["id", "sub", "preferred_username", "username"].iter().find_map(|name| text(name))?;
    let realm_roles = claims.get("realm_access").and_then(|access| access.get("roles"));
    let roles = claims.get("roles").or(realm_roles).map(list).unwrap_or_default();
    let scopes = claims.get("scopes").or(claims.get("scope")).map(list).unwrap_or_default();
    Some(Stated {
        id: Some(id),
        email: text("email"),
        tenant: text("tenant_id").or_else(|| text("tenant")),
        roles,
        scopes,
        claims: Arc::new(claims),
    })
}

/// A list, or words with blanks between them (RFC 6749 section 3.3).
fn list(value: &Value) -> Vec<Arc<str>> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).map(Arc::from).collect(),
        Value::String(text) => text.split_whitespace().map(Arc::from).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stated(text: &str) -> Result<Option<Stated>, Malformed> {
        read("x-user-info", &HeaderValue::from_str(text).unwrap())
    }

    #[test]
    fn all_three_spellings_name_the_user() {
        let json = r#"{"sub":"ann","email":"a@b.c","scope":"x y","roles":["r"],"tenant":"acme"}"#;
        for text in [json.to_owned(), BASE64_STANDARD.encode(json)] {
            let stated = stated(&text).unwrap().unwrap();
            assert_eq!(stated.id.as_deref(), Some("ann"));
            assert_eq!(stated.tenant.as_deref(), Some("acme"));
            assert_eq!(stated.scopes, [Arc::from("x"), Arc::from("y")]);
            assert_eq!(stated.roles, [Arc::from("r")]);
        }
        assert_eq!(stated("ann").unwrap().unwrap().id.as_deref(), Some("ann"));
        assert_eq!(stated(" ").unwrap(), None);
    }

    #[test]
    fn the_question_itself_wins() {
        let stating = Stating {
            user: HeaderName::from_static("x-user-info"),
            tenant: HeaderName::from_static("x-tenant-id"),
            are_overwritten: false,
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-user-info", HeaderValue::from_static(r#"{"sub":"bob","tenant":"b"}"#));
        headers.insert("x-tenant-id", HeaderValue::from_static("h"));
        let complete = |mut stated: Option<Stated>, headers: &HeaderMap| {
            stating.complete(&mut stated, headers).map(|()| {
                stated
                    .map(|s| (s.id.as_deref().map(str::to_owned), s.tenant.map(|t| t.to_string())))
            })
        };
        let said = |id: Option<&str>, tenant: Option<&str>| {
            Some((id.map(str::to_owned), tenant.map(str::to_owned)))
        };
        let ann = Stated { id: Some(Arc::from("ann")), ..Stated::default() };
        assert_eq!(complete(Some(ann), &headers), Ok(said(Some("ann"), Some("h"))));
        assert_eq!(complete(None, &headers), Ok(said(Some("bob"), Some("b"))));
        let tenant = Stated { tenant: Some(Arc::from("t")), ..Stated::default() };
        assert_eq!(complete(Some(tenant), &headers), Ok(said(Some("bob"), Some("t"))));
        headers.remove("x-user-info");
        assert_eq!(complete(None, &headers), Ok(said(None, Some("h"))));
        headers.append("x-tenant-id", HeaderValue::from_static("i"));
        assert_eq!(complete(None, &headers).unwrap_err().field, "x-tenant-id");
        assert_eq!(complete(None, &HeaderMap::new()), Ok(None));
    }

    #[test]
    fn an_object_without_a_user_is_refused() {
        assert!(stated("{}").is_err());
        assert!(stated(r#"{"sub":""}"#).is_err());
        assert!(stated("{oops").is_err());
        assert!(stated(&BASE64_STANDARD.encode("{\"a\":1}")).is_err());
        assert!(stated(&"a".repeat(20 << 10)).is_err());
    }
}
