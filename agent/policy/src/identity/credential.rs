//! Where in a request a credential is.

use std::borrow::Cow;

use http::{HeaderName, header::AUTHORIZATION};
use percent_encoding::percent_decode_str;

use super::Rejection;
use crate::{context::RequestContext, error::Refusal};

/// A header, with or without a scheme before the credential (RFC 9110 section 11.4).
#[derive(Clone, Debug)]
pub(super) struct Carrier {
    pub name: HeaderName,
    /// Empty: the whole value is the credential.
    scheme: String,
}

impl Carrier {
    pub(super) fn build(key: &str, name: &str, scheme: &str) -> Result<Self, Refusal> {
        let name = super::header_name(key, name)?;
        let is_token =
            scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
        if !is_token {
            return Err(Refusal::new(
                "scheme",
                format!("`{scheme}` is not a scheme"),
                "write one word such as Bearer, or an empty text for none",
            ));
        }
        Ok(Self { name, scheme: scheme.to_owned() })
    }

    /// As RFC 6750 section 2.1 writes it.
    pub(super) fn is_bearer(&self) -> bool {
        self.name == AUTHORIZATION && self.scheme.eq_ignore_ascii_case("Bearer")
    }

    /// The same header with another scheme, one word.
    pub(super) fn of_scheme(&self, scheme: &str) -> Self {
        Self { name: self.name.clone(), scheme: scheme.to_owned() }
    }

    /// `None`: there is none of this kind. A header that comes twice is refused whatever is in it:
    /// somebody behind us may read the other one.
    pub(super) fn read<'a>(
        &self,
        request: &RequestContext<'a>,
    ) -> Result<Option<&'a [u8]>, Rejection> {
        let mut values = request.headers.get_all(&self.name).iter();
        let Some(value) = values.next() else { return Ok(None) };
        let value = value.as_bytes().trim_ascii();
        let credential = if self.scheme.is_empty() {
            Some(value)
        } else {
            let scheme = value.get(..self.scheme.len());
            let is_ours = scheme.is_some_and(|s| s.eq_ignore_ascii_case(self.scheme.as_bytes()));
            match value.get(self.scheme.len()..) {
                Some(rest @ ([b' ' | b'\t', ..] | [])) if is_ours => Some(rest.trim_ascii()),
                _ => None,
            }
        };
        if values.next().is_some() {
            return Err(Rejection::AMBIGUOUS);
        }
        Ok(credential)
    }
}

/// A parameter of the query. Given twice, it is refused as a header is.
pub(super) fn read_query<'a>(
    query: Option<&'a str>,
    name: &str,
) -> Result<Option<Cow<'a, [u8]>>, Rejection> {
    let pairs = query.unwrap_or_default().split('&').map(|p| p.split_once('=').unwrap_or((p, "")));
    let mut values = pairs.filter(|(key, _)| percent_decode_str(key).eq(name.bytes()));
    let Some((_, value)) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::AMBIGUOUS);
    }
    Ok(Some(percent_decode_str(value).into()))
}
