//! Headers, cookies and credentials of a message.
//!
//! Only headers that an application defines are kept. Those of HTTP itself (RFC 9110), content
//! negotiation, browsers (Sec-*, User-Agent, lists of languages), proxies and CDNs (Forwarded, Via,
//! X-Forwarded-*, CF-*) and tracing are left out: they would be noise in every operation of a
//! contract, and several name a person's device. Conditional headers (RFC 9110 section 13), `Prefer`, `Idempotency-Key`, `Range`
//! and all of `X-*` that is none of these stay.

use stoa_wire::exchange::Message;

use super::{
    Tally,
    admission::{Admission, Meaning, Role},
    alphabet::Profile,
    caller::{self, Caller},
    classify::is_scrambled,
    detect::{self, secret},
    field_name::{self, Field},
    target::cut,
    vocabulary,
};
use crate::observation::{Credential, Personal, Token, Value};

const MAX_HEADERS: usize = 64;
const MAX_COOKIES: usize = 64;
const MAX_NAME: usize = 64;

#[derive(Default)]
pub(super) struct Headers {
    pub kept: Vec<(Token, Value)>,
    pub cookies: Vec<(Token, Value)>,
    pub credentials: Vec<Credential>,
}

pub(super) fn read_request(
    message: &Message,
    admission: &mut Admission,
    tally: &mut Tally,
) -> Headers {
    let mut found = Headers::default();
    let mut buffer = [0u8; MAX_NAME];
    for (name, value) in message.headers() {
        let Some(lower) = lower_case(name, &mut buffer) else { continue };
        match lower {
            "authorization" => read_authorization(value, admission, tally, &mut found.credentials),
            "proxy-authorization" => tally.mask(Personal::Bearer),
            "cookie" => read_cookies(value, admission, tally, &mut found),
            "x-forwarded-client-cert"
            | "x-ssl-client-verify"
            | "x-ssl-client-cert"
            | "x-client-cert"
            | "ssl-client-cert" => {
                tally.mask(Personal::Secret);
                found.credentials.push(Credential::ClientCertificate);
            }
            // A browser lists several languages with weights (RFC 9110 section 12.5.4); a program
            // names the one that it wants answers in.
            "accept-language" if value.contains(&b';') || value.contains(&b',') => {}
            _ if is_of_the_request_path(lower) || found.kept.len() >= MAX_HEADERS => {}
            _ => keep(name, value, admission, tally, &mut found, true),
        }
    }
    found.credentials.sort();
    found.credentials.dedup();
    found
}

pub(super) fn read_response(
    message: &Message,
    admission: &mut Admission,
    tally: &mut Tally,
) -> Vec<(Token, Value)> {
    let mut found = Headers::default();
    let mut buffer = [0u8; MAX_NAME];
    for (name, value) in message.headers() {
        let Some(lower) = lower_case(name, &mut buffer) else { continue };
        match lower {
            "set-cookie" | "set-cookie2" => tally.mask(Personal::Cookie),
            _ if is_of_the_response_path(lower) || found.kept.len() >= MAX_HEADERS => {}
            _ => keep(name, value, admission, tally, &mut found, false),
        }
    }
    found.kept
}

fn lower_case<'a>(name: &str, buffer: &'a mut [u8; MAX_NAME]) -> Option<&'a str> {
    let slot = buffer.get_mut(..name.len())?;
    slot.copy_from_slice(name.as_bytes());
    slot.make_ascii_lowercase();
    std::str::from_utf8(slot).ok()
}

fn keep(
    name: &str,
    value: &[u8],
    admission: &mut Admission,
    tally: &mut Tally,
    found: &mut Headers,
    is_request: bool,
) {
    // Names compare without case (RFC 9110 section 5.1): one spelling for all.
    let mut spelt = [0u8; MAX_NAME];
    let Some(slot) = spelt.get_mut(..name.len()) else { return };
    let mut begins = true;
    for (to, from) in slot.iter_mut().zip(name.bytes()) {
        *to = if begins { from.to_ascii_uppercase() } else { from.to_ascii_lowercase() };
        begins = !from.is_ascii_alphanumeric();
    }
    if slot == b"Etag" {
        // RFC 9110 section 8.8.3.
        slot.copy_from_slice(b"ETag");
    }
    // Some secrets are told by their capitals, so a name that holds one is looked at as it was sent.
    let is_odd = slot != name.as_bytes() && name.bytes().any(|b| b.is_ascii_uppercase());
    let is_telling = is_odd && is_scrambled(name)
        || detect::detect(name.as_bytes(), Profile::of(name.as_bytes())).is_some();
    let spelling = if is_telling { name.as_bytes() } else { &*slot };
    let (token, meaning) = admission.token(Role::Header, spelling, tally);
    let class = meaning.field.personal().filter(|class| field_name::is_credential(*class));
    // Without a salt no value of a header becomes text.
    let shaped = admission.value(value, Meaning { salt: 0, ..meaning }, tally);
    let is_key = meaning.caller == Caller::Id && caller::looks_issued(value);
    if is_request
        && (class.is_some() || is_key || admission.repeats_as_credential(value, meaning, &shaped))
        && let Some(text) = &token.text
        && !text.as_str().to_ascii_lowercase().contains("srf")
        && !text.as_str().eq_ignore_ascii_case("x-signature")
    {
        found.credentials.push(Credential::HeaderKey(text.clone()));
        return;
    }
    found.kept.push((token, shaped));
}

/// RFC 9110 section 11.6.2: a scheme, then what only the scheme understands.
fn read_authorization(
    value: &[u8],
    admission: &mut Admission,
    tally: &mut Tally,
    found: &mut Vec<Credential>,
) {
    let (scheme, rest) = cut(value.trim_ascii(), b' ');
    let rest = rest.trim_ascii();
    let is = |name: &str| scheme.eq_ignore_ascii_case(name.as_bytes());
    if is("bearer") {
        let is_jwt = secret::is_jwt(rest);
        tally.mask(if is_jwt { Personal::Jwt } else { Personal::Bearer });
        found.push(if is_jwt { Credential::Jwt } else { Credential::Bearer });
    } else if is("basic") {
        tally.mask(Personal::Basic);
        found.push(Credential::Basic);
    } else if is("digest") {
        tally.mask(Personal::Secret);
        found.push(Credential::Digest);
    } else if rest.is_empty() {
        // No scheme at all: the header itself is an API key.
        tally.mask(Personal::ApiKey);
        if let (Token { text: Some(text), .. }, _) =
            admission.token(Role::Header, b"Authorization", tally)
        {
            found.push(Credential::HeaderKey(text));
        }
    } else {
        tally.mask(Personal::Secret);
        // Registered ones (IANA, HTTP Authentication Schemes), and those that large services made up.
        const SCHEMES: [&str; 26] = [
            "Token",
            "ApiKey",
            "Api-Key",
            "AWS4-HMAC-SHA256",
            "Negotiate",
            "NTLM",
            "Hawk",
            "DPoP",
            "Key",
            "Concealed",
            "GNAP",
            "HOBA",
            "Mutual",
            "OAuth",
            "PrivateToken",
            "SCRAM-SHA-1",
            "SCRAM-SHA-256",
            "vapid",
            "Signature",
            "HMAC-SHA256",
            "SharedKey",
            "Splunk",
            "SSWS",
            "GenieKey",
            "Bot",
            "Client-ID",
        ];
        let text = match SCHEMES.iter().find(|s| is(s)) {
            Some(known) => Some(crate::observation::Text::admit(known)),
            // A key with a blank in it has no scheme, so that only words are taken for one.
            None if scheme.len() <= MAX_NAME => {
                let (token, _) = admission.token(Role::Header, scheme, tally);
                token.text.filter(|_| token.is_word)
            }
            None => None,
        };
        if let Some(text) = text {
            found.push(Credential::Scheme(text));
        }
    }
}

fn read_cookies(value: &[u8], admission: &mut Admission, tally: &mut Tally, found: &mut Headers) {
    for pair in value.split(|b| *b == b';') {
        let (name, value) = cut(pair.trim_ascii(), b'=');
        if name.is_empty() || name.len() > 128 || found.cookies.len() >= MAX_COOKIES {
            continue;
        }
        let (token, meaning) = admission.token(Role::Cookie, name, tally);
        let meaning = Meaning { field: Field::Personal(Personal::Cookie), salt: 0, ..meaning };
        let value = admission.value(value, meaning, tally);
        if let Some(text) = &token.text
            && is_session_cookie(text.as_str())
        {
            found.credentials.push(Credential::CookieKey(text.clone()));
        }
        found.cookies.push((token, value));
    }
}

/// Cookies that carry a session or a credential, by the names that frameworks give them.
fn is_session_cookie(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let words = vocabulary::split_words(name);
    !lower.contains("csrf")
        && !lower.contains("xsrf")
        && (["sessid", "sessionid", "session", "connect.sid", "access_token", "auth"]
            .iter()
            .any(|n| lower.contains(n))
            || words.iter().any(|w| {
                matches!(w.as_str(), "sid" | "token" | "jwt" | "sess" | "login" | "apikey")
            }))
}

/// Names of cookies and headers that are whole by themselves though no vocabulary has their parts.
pub(super) fn is_well_known(name: &str) -> bool {
    const NAMES: [&str; 50] = [
        "jsessionid",
        "phpsessid",
        "asp.net_sessionid",
        "connect.sid",
        "sessionid",
        "csrftoken",
        "xsrf-token",
        "_xsrf",
        "laravel_session",
        "_session_id",
        "aspxauth",
        ".aspxauth",
        "__session",
        "__host-session",
        "__secure-session",
        "cfid",
        "cftoken",
        "sid",
        "jwt",
        "x-csrf-token",
        "x-csrftoken",
        "x-xsrf-token",
        "x-http-method-override",
        "ocp-apim-subscription-key",
        "ocp-apim-trace",
        "subscription-key",
        "x-api-key",
        "x-apikey",
        "x-auth-token",
        "x-access-token",
        "x-functions-key",
        "x-rapidapi-key",
        "x-goog-api-key",
        "x-app-id",
        "x-app-key",
        "x-user-key",
        "x-auth-key",
        "xi-api-key",
        "dd-api-key",
        "dd-application-key",
        "x-vault-token",
        "x-amz-security-token",
        "x-shopify-access-token",
        "private-token",
        "accept-language",
        "if-match",
        "if-none-match",
        "if-modified-since",
        "if-unmodified-since",
        "if-range",
    ];
    NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
}

fn is_of_anyone(lower: &str) -> bool {
    matches!(
        lower,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "via"
            | "forwarded"
            | "date"
            | "content-length"
            | "content-type"
            | "content-encoding"
            | "content-md5"
            | "cache-control"
            | "pragma"
            | "warning"
            | "traceparent"
            | "tracestate"
            | "baggage"
            | "b3"
            | "uber-trace-id"
            | "x-cloud-trace-context"
            | "x-amzn-trace-id"
            | "x-request-id"
            | "x-correlation-id"
            | "x-datadog-trace-id"
            | "x-datadog-parent-id"
            | "x-datadog-sampling-priority"
            | "x-datadog-origin"
            | "x-datadog-tags"
            | "sentry-trace"
            | "x-real-ip"
            | "x-client-ip"
            | "true-client-ip"
            | "x-original-url"
            | "x-original-uri"
            | "x-scheme"
            | "x-varnish"
            | "x-cache"
            | "x-cache-hits"
            | "x-served-by"
            | "x-timer"
            | "x-stoa-timing"
            | "x-stoa-trace-id"
            | "cdn-loop"
            | "x-envoy-upstream-service-time"
            | "x-requested-with"
            | "content-language"
            | "priority"
    ) || [
        "x-forwarded-",
        "x-b3-",
        "x-envoy-",
        "cf-",
        "x-amz-cf-",
        "fastly-",
        "akamai-",
        "x-akamai-",
        "x-azure-ref",
        "x-ot-span-",
        "sec-",
    ]
    .iter()
    .any(|prefix| lower.starts_with(prefix))
}

fn is_of_the_request_path(lower: &str) -> bool {
    is_of_anyone(lower)
        || matches!(
            lower,
            "host"
                | "user-agent"
                | "accept"
                | "accept-encoding"
                | "accept-charset"
                | "referer"
                | "origin"
                | "dnt"
                | "save-data"
                | "upgrade-insecure-requests"
                | "expect"
                | "max-forwards"
                | "from"
                | "http2-settings"
                | "x-wap-profile"
                | "device-memory"
                | "downlink"
                | "ect"
                | "rtt"
                | "viewport-width"
                | "width"
                | "dpr"
                | "alt-used"
                | "purpose"
                | "access-control-request-method"
                | "access-control-request-headers"
                | "postman-token"
                | "x-chrome-uma-enabled"
                | "x-client-data"
        )
}

fn is_of_the_response_path(lower: &str) -> bool {
    is_of_anyone(lower)
        || matches!(
            lower,
            "server"
                | "vary"
                | "age"
                | "expires"
                | "last-modified"
                | "accept-ranges"
                | "alt-svc"
                | "etag-weak"
                | "strict-transport-security"
                | "content-security-policy"
                | "content-security-policy-report-only"
                | "x-content-type-options"
                | "x-frame-options"
                | "x-xss-protection"
                | "referrer-policy"
                | "permissions-policy"
                | "feature-policy"
                | "cross-origin-opener-policy"
                | "expect-ct"
                | "nel"
                | "cross-origin-embedder-policy"
                | "cross-origin-resource-policy"
                | "report-to"
                | "server-timing"
                | "x-powered-by"
                | "x-aspnet-version"
                | "x-aspnetmvc-version"
                | "x-runtime"
                | "x-download-options"
                | "x-permitted-cross-domain-policies"
                | "x-dns-prefetch-control"
                | "timing-allow-origin"
                | "origin-agent-cluster"
                | "content-disposition"
                | "p3p"
                | "clear-site-data"
                | "x-robots-tag"
                | "x-ua-compatible"
                | "reporting-endpoints"
                | "www-authenticate"
                | "proxy-authenticate"
                | "allow"
        )
        || lower.starts_with("access-control-")
}
