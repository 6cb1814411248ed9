//! Gateways that ask with a request of their own, whose header fields are copies of the client's:
//! nginx `auth_request`, Traefik and Caddy forward-auth, Envoy's HTTP flavour of `ext_authz`.
//!
//! Such a gateway passes on whatever the client sent, so a field means something only where the
//! gateway is known to overwrite it. nginx is told which in its configuration (`X-Original-*`);
//! Traefik and Caddy overwrite `X-Forwarded-{Method,Proto,Host,Uri}`. A path that took either kind
//! would let a client of Traefik choose what is decided by sending `X-Original-URI`: hence one path
//! for each.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use super::question::{
    AskedBody, Malformed, Place, Question, UNKNOWN_SOURCE, address_of, method_of, scheme_of,
    target_of,
};

/// The fields in which one kind of gateway describes the client's request.
struct Fields {
    method: HeaderName,
    target: HeaderName,
    host: HeaderName,
    proto: HeaderName,
}

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Of Envoy, where it sends bodies: whether there was more than it may send.
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

const NGINX: Fields = Fields {
    method: HeaderName::from_static("x-original-method"),
    target: HeaderName::from_static("x-original-uri"),
    host: HeaderName::from_static("x-original-host"),
    proto: HeaderName::from_static("x-original-proto"),
};

const FORWARD_AUTH: Fields = Fields {
    method: HeaderName::from_static("x-forwarded-method"),
    target: HeaderName::from_static("x-forwarded-uri"),
    host: HeaderName::from_static("x-forwarded-host"),
    proto: HeaderName::from_static("x-forwarded-proto"),
};

pub fn of_nginx(head: Parts, place: Place) -> Result<Question, Malformed> {
    of_fields(head, place, &NGINX)
}

pub fn of_forward_auth(head: Parts, place: Place) -> Result<Question, Malformed> {
    of_fields(head, place, &FORWARD_AUTH)
}

fn of_fields(head: Parts, place: Place, fields: &Fields) -> Result<Question, Malformed> {
    let mut headers = head.headers;
    let method = take(&mut headers, &fields.method)?;
    let target = take(&mut headers, &fields.target)?;
    let host = take(&mut headers, &fields.host)?;
    let proto = take(&mut headers, &fields.proto)?;
    let method = method_of(fields.method.as_str(), text(&fields.method, method.as_ref())?)?;
    let target = target_of(fields.target.as_str(), text(&fields.target, target.as_ref())?)?;
    // What is left out is the asking request's own: nginx passes the client's `Host` on.
    let authority = match &host {
        Some(value) => text(&fields.host, Some(value))?.to_owned(),
        None => host_of(&headers),
    };
    let source = source_of(&headers);
    Ok(Question {
        method,
        scheme: scheme_of(proto.as_ref().and_then(|value| value.to_str().ok()).unwrap_or("http")),
        authority,
        target,
        source,
        certificate: None,
        stated: None,
        place,
        body: AskedBody::Unknown,
        headers,
    })
}

/// Envoy sends the client's method, and its path behind `prefix`, which ends without a slash.
pub fn of_envoy_http(head: Parts, body: Bytes, prefix: &str) -> Result<Question, Malformed> {
    let mut headers = head.headers;
    let whole = head.uri.path_and_query().map_or("", |target| target.as_str());
    let target = whole.strip_prefix(prefix).unwrap_or(whole);
    let body = match take(&mut headers, &PARTIAL_BODY)? {
        Some(value) if value == "false" => AskedBody::Whole(body),
        Some(_) => AskedBody::Cut,
        None => AskedBody::Unknown,
    };
    let proto = headers.get(X_FORWARDED_PROTO).and_then(|value| value.to_str().ok());
    Ok(Question {
        method: head.method,
        scheme: scheme_of(proto.unwrap_or("http")),
        authority: match head.uri.authority() {
            Some(authority) => authority.as_str().to_owned(),
            None => host_of(&headers),
        },
        target: target_of("path", target)?,
        source: source_of(&headers),
        certificate: None,
        stated: None,
        place: Place::default(),
        body,
        headers,
    })
}

/// A field that comes twice is one that the gateway added to the client's: refused.
fn take(headers: &mut HeaderMap, name: &HeaderName) -> Result<Option<HeaderValue>, Malformed> {
    if headers.get_all(name).iter().nth(1).is_some() {
        return Err(Malformed::new(name.as_str(), "comes more than once"));
    }
    Ok(headers.remove(name))
}

fn text<'a>(name: &HeaderName, value: Option<&'a HeaderValue>) -> Result<&'a str, Malformed> {
    let value = value.ok_or_else(|| Malformed::new(name.as_str(), "is missing"))?;
    value.to_str().map_err(|_| Malformed::new(name.as_str(), "is not printable ASCII"))
}

fn host_of(headers: &HeaderMap) -> String {
    headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}

/// The last entry of the last field is the one that the asking gateway added; those before are
/// what the client claims.
fn source_of(headers: &HeaderMap) -> std::net::SocketAddr {
    headers
        .get_all(X_FORWARDED_FOR)
        .iter()
        .next_back()
        .and_then(|value| value.to_str().ok()?.rsplit(',').next().and_then(address_of))
        .unwrap_or(UNKNOWN_SOURCE)
}

/// `/policy_set=orders/tenant=acme/route=v1`, behind the path of the URL that a gateway was
/// configured with. Not its query: Caddy hands the client's query on where its own has none, and a
/// client would choose the policies that judge it.
pub fn place_of(path: &str) -> Result<Place, Malformed> {
    let mut place = Place::default();
    for segment in path.split('/').filter(|segment| !segment.is_empty()) {
        let (name, value) = segment.split_once('=').unwrap_or((segment, ""));
        let member = match name {
            "policy_set" => &mut place.policy_set,
            "tenant" => &mut place.tenant,
            "route" => &mut place.route,
            _ => {
                let known = "is not known; there are policy_set=, tenant= and route=";
                return Err(Malformed::new(format!("path.{name}"), known));
            }
        };
        if value.is_empty() || value.contains('%') || member.is_some() {
            return Err(Malformed::new(format!("path.{name}"), "is to be one plain name"));
        }
        *member = Some(value.to_owned());
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use http::{Method, Request};

    use super::*;

    fn head(fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = Request::get("/authz/x");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn nginx_says_it_in_x_original() {
        let fields = [
            ("host", "inner"),
            ("x-original-method", "DELETE"),
            ("x-original-uri", "/orders/7?x=1"),
            ("x-original-host", "shop.example"),
            ("x-original-proto", "https"),
            ("x-forwarded-for", "6.6.6.6, 10.0.0.7"),
            ("x-forwarded-uri", "/public"),
            ("authorization", "Bearer t"),
        ];
        let question = of_nginx(head(&fields), Place::default()).unwrap();
        assert_eq!(question.method, Method::DELETE);
        assert_eq!(question.target, "/orders/7?x=1");
        assert_eq!((question.scheme, question.authority.as_str()), ("https", "shop.example"));
        assert_eq!(question.source.ip().to_string(), "10.0.0.7");
        assert!(question.headers.contains_key("authorization"));
        assert!(!question.headers.contains_key("x-original-uri"));
        // The client's, of no meaning here.
        assert!(question.headers.contains_key("x-forwarded-uri"));
    }

    #[test]
    fn traefik_and_caddy_say_it_in_x_forwarded() {
        let fields = [
            ("x-forwarded-method", "GET"),
            ("x-forwarded-uri", "/admin"),
            ("x-forwarded-host", "shop.example"),
            ("x-original-uri", "/public"),
            ("x-original-method", "OPTIONS"),
        ];
        let question = of_forward_auth(head(&fields), Place::default()).unwrap();
        assert_eq!((question.method, question.target.as_str()), (Method::GET, "/admin"));
    }

    #[test]
    fn nothing_is_assumed_of_what_is_not_said() {
        for missing in ["x-original-method", "x-original-uri"] {
            let fields: Vec<_> = [("x-original-method", "GET"), ("x-original-uri", "/")]
                .into_iter()
                .filter(|(name, _)| *name != missing)
                .collect();
            assert_eq!(of_nginx(head(&fields), Place::default()).unwrap_err().field, missing);
        }
    }

    #[test]
    fn a_field_that_the_client_doubled_is_refused() {
        let fields =
            [("x-forwarded-method", "GET"), ("x-forwarded-uri", "/a"), ("x-forwarded-uri", "/b")];
        let error = of_forward_auth(head(&fields), Place::default()).unwrap_err();
        assert_eq!(error.field, "x-forwarded-uri");
    }

    #[test]
    fn envoys_path_is_behind_the_prefix() {
        let request = Request::put("/authz/envoy/authz/nginx?a=b")
            .header("host", "shop.example")
            .header("x-envoy-auth-partial-body", "false")
            .body(())
            .unwrap();
        let body = Bytes::from_static(b"x");
        let question = of_envoy_http(request.into_parts().0, body, "/authz/envoy").unwrap();
        assert_eq!((question.method, question.target.as_str()), (Method::PUT, "/authz/nginx?a=b"));
        assert_eq!(question.body, AskedBody::Whole(Bytes::from_static(b"x")));
        let request = Request::put("/authz/envoy/").header("x-envoy-auth-partial-body", "true");
        let head = request.body(()).unwrap().into_parts().0;
        assert_eq!(of_envoy_http(head, Bytes::new(), "/authz/envoy").unwrap().body, AskedBody::Cut);
    }

    #[test]
    fn the_path_says_which_policies() {
        let place = place_of("/policy_set=orders/tenant=acme").unwrap();
        assert_eq!(place.policy_set.as_deref(), Some("orders"));
        assert_eq!(place.tenant.as_deref(), Some("acme"));
        assert_eq!(place_of("").unwrap(), Place::default());
        for path in ["/policyset=a", "/tenant=", "/tenant=a/tenant=b", "/route=a%20b", "/orders"] {
            assert!(place_of(path).unwrap_err().field.starts_with("path."), "{path}");
        }
    }
}
