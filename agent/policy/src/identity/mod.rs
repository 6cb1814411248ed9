//! Who is asking: the first of a set's methods that accepts what the request brings.

pub mod api_key;
mod certificate_headers;
mod credential;
mod distinguished_name;
pub mod dpop;
pub(crate) mod forward;
pub mod jwt;
pub mod mtls;
mod possession;
mod required_paths;
pub mod trusted;

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::WWW_AUTHENTICATE};
use serde::{Deserialize, Deserializer};

use self::{
    api_key::{ApiKeyConfig, ApiKeys},
    dpop::{Dpop, DpopConfig, Proofs},
    forward::{Forward, ForwardConfig, Known},
    jwt::{Jwt, JwtConfig},
    mtls::{Mtls, MtlsConfig, Shown},
    trusted::{Trusted, TrustedConfig},
};
use crate::{
    context::RequestContext,
    decision::{Decision, Denial, PolicyKind, Verdict},
    error::Refusal,
    outside::Outside,
};

/// The methods are tried in order, and the first that accepts settles who is asking. Where none
/// accepts but something was presented, the request is refused, also where identity is optional: a
/// bad token is not the same as none.
///
/// ```yaml
/// identity:
///   methods:
///     - jwt:
///         keycloak: {url: https://sso.example.com, realm: acme}
///         audience: orders
///     - api_key:
///         keys:
///           - {name: nightly-batch, sha256: 5e88…, owner: billing, scopes: [orders:read]}
///   forward_as: {subject: X-User-ID}
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct IdentityConfig {
    pub methods: Vec<MethodConfig>,
    /// Refuse requests that bring nothing.
    #[serde(default = "yes")]
    pub required: bool,
    #[serde(default)]
    pub forward_as: ForwardConfig,
    /// What `WWW-Authenticate` names the place.
    #[serde(default = "default_realm")]
    pub realm: String,
    /// Where clients learn how to get a token (RFC 9728), an absolute URL; in `WWW-Authenticate`.
    #[serde(default)]
    pub resource_metadata: Option<String>,
    /// Check proofs of possession. Without it, a token that is bound to a key is refused.
    #[serde(default)]
    pub dpop: Option<DpopConfig>,
    #[serde(default)]
    pub sender_constraint: SenderConstraintConfig,
}

/// What every token must be bound to. One that is bound is held to it anyway.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct SenderConstraintConfig {
    /// To a key (RFC 9449); proofs are then checked also without `dpop`.
    pub dpop_required: bool,
    /// To a client certificate (RFC 8705).
    pub mtls_required: bool,
}

fn yes() -> bool {
    true
}

fn default_realm() -> String {
    "stoa".to_owned()
}

impl IdentityConfig {
    /// What is asked of proofs, if they are checked.
    fn checked_proofs(&self) -> Option<DpopConfig> {
        let is_required = self.sender_constraint.dpop_required;
        let dpop = self.dpop.clone().or_else(|| is_required.then(DpopConfig::default))?;
        Some(DpopConfig { required: dpop.required || is_required, ..dpop })
    }
}

/// One item of `methods`: exactly one of these.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct MethodConfig {
    pub jwt: Option<JwtConfig>,
    pub api_key: Option<ApiKeyConfig>,
    pub mtls: Option<MtlsConfig>,
    pub trusted: Option<TrustedConfig>,
}

/// One text, or a list of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOrMany(pub Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a text, or a list of texts")]
        enum Either {
            One(String),
            Many(Vec<String>),
        }
        Ok(match Either::deserialize(deserializer)? {
            Either::One(one) => Self(vec![one]),
            Either::Many(many) => Self(many),
        })
    }
}

#[derive(Debug)]
pub struct Identities {
    methods: Vec<Method>,
    required: bool,
    forward: Forward,
    /// For requests that bring nothing: RFC 6750 section 3.1 wants no error code there.
    challenge: HeaderValue,
    challenge_start: String,
    dpop: Option<Dpop>,
    /// RFC 9449 section 7.1, without its error.
    dpop_challenge: HeaderValue,
    dpop_challenge_start: String,
    proofs: Arc<Proofs>,
    must_bind_certificate: bool,
}

#[derive(Debug)]
enum Method {
    Jwt(Box<Jwt>),
    ApiKey(ApiKeys),
    Mtls(Mtls),
    Trusted(Trusted),
}

/// Why a credential that was presented is not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rejection {
    status: StatusCode,
    code: &'static str,
    reason: Cow<'static, str>,
    /// The credential is somebody else's to judge; what another method says of it counts more.
    is_foreign: bool,
    /// The error that a DPoP challenge names (RFC 9449 section 7.1), if one answers this.
    proof_error: Option<&'static str>,
}

/// What a request shows of a certificate, or why that is worth nothing.
type Certificate<'a> = Result<Option<Shown<'a>>, Rejection>;

impl Rejection {
    const CERTIFICATE_MISSING: Self =
        Self::unauthorized("certificate_missing", "A client certificate is needed here");

    const AMBIGUOUS: Self = Self {
        status: StatusCode::BAD_REQUEST,
        code: "credentials_ambiguous",
        reason: Cow::Borrowed("The credentials were sent more than once"),
        is_foreign: false,
        proof_error: None,
    };

    const fn unauthorized(code: &'static str, reason: &'static str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code,
            reason: Cow::Borrowed(reason),
            is_foreign: false,
            proof_error: None,
        }
    }

    const fn of_proof(code: &'static str, reason: &'static str, error: &'static str) -> Self {
        Self {
            status: StatusCode::UNAUTHORIZED,
            code,
            reason: Cow::Borrowed(reason),
            is_foreign: false,
            proof_error: Some(error),
        }
    }
}

impl Identities {
    pub fn build(config: &IdentityConfig, outside: &Outside) -> Result<Self, Refusal> {
        if config.methods.is_empty() {
            return Err(Refusal::new(
                "methods",
                "is empty, so nobody could be identified",
                "list jwt, api_key, mtls or trusted, or remove the section",
            ));
        }
        let forward = Forward::build(&config.forward_as)?;
        check_order(&config.methods)?;
        let dpop = config.checked_proofs().as_ref().map(Dpop::build).transpose()?;
        let mut methods = Vec::new();
        for (i, method) in config.methods.iter().enumerate() {
            let section = format!("methods[{i}]");
            let built = build_method(method, dpop.is_some(), &forward, outside)
                .map_err(|r| r.below(&section))?;
            methods.push(built);
        }
        let has_bearer = methods.iter().any(|m| matches!(m, Method::Jwt(_)));
        let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        let scheme = if has_bearer { "Bearer" } else { "ApiKey" };
        let start = |scheme: &str| {
            let mut start = format!("{scheme} realm=\"{}\"", quoted(&config.realm));
            if let Some(url) = &config.resource_metadata {
                start.push_str(&format!(", resource_metadata=\"{}\"", quoted(url)));
            }
            start
        };
        let value = |text: &str| {
            HeaderValue::try_from(text).map_err(|_| {
                Refusal::new("realm", "cannot be written in a header", "use printable characters")
            })
        };
        let (challenge_start, dpop_challenge_start) = (start(scheme), start(dpop::SCHEME));
        Ok(Self {
            methods,
            required: config.required,
            forward,
            challenge: value(&challenge_start)?,
            dpop_challenge: value(&dpop::with_algorithms(&dpop_challenge_start))?,
            challenge_start,
            dpop,
            dpop_challenge_start,
            proofs: Arc::clone(&outside.proofs),
            must_bind_certificate: config.sender_constraint.mtls_required,
        })
    }

    /// The method that takes client certificates, if there is one.
    pub fn certificates(&self) -> Option<&Mtls> {
        self.methods.iter().find_map(|method| match method {
            Method::Mtls(mtls) => Some(mtls),
            _ => None,
        })
    }

    /// Nobody is let in without one.
    pub fn requires_certificate(&self) -> bool {
        self.required && self.methods.iter().all(|method| matches!(method, Method::Mtls(_)))
    }

    pub async fn check(&self, request: &RequestContext<'_>, decision: &mut Decision) -> Verdict {
        self.forward.clear(request.headers, decision);
        let mut rejection: Option<Rejection> = None;
        for method in &self.methods {
            method.clear(request, decision);
        }
        let certificate = self.look_for_certificate(request);
        if self.certificates().is_some_and(|mtls| mtls.is_required_for(request.path)) {
            let missing = match &certificate {
                Ok(Some(_)) => None,
                Ok(None) => Some(Rejection::CERTIFICATE_MISSING),
                Err(rejection) => Some(rejection.clone()),
            };
            if let Some(rejection) = missing {
                return Err(self.refuse(rejection, request, decision));
            }
        }
        for method in &self.methods {
            match method.identify(request, &certificate, &self.forward, decision).await {
                Ok(Some(known)) => {
                    // Whoever shows a token that is another's is not asked for anything else.
                    if let Err(rejection) = self.check_possession(&known, &certificate, request) {
                        return Err(self.refuse(rejection, request, decision));
                    }
                    known.tell(decision);
                    return Ok(());
                }
                Ok(None) => {}
                Err(new) => {
                    if rejection.as_ref().is_none_or(|old| old.is_foreign) {
                        rejection = Some(new);
                    }
                }
            }
        }
        match rejection {
            Some(rejection) => Err(self.refuse(rejection, request, decision)),
            None if self.required => {
                if !self.dpop.as_ref().is_some_and(Dpop::is_required) {
                    decision.response_headers.push((WWW_AUTHENTICATE, self.challenge.clone()));
                }
                if self.dpop.is_some() {
                    let challenge = self.dpop_challenge.clone();
                    decision.response_headers.push((WWW_AUTHENTICATE, challenge));
                }
                Err(Denial {
                    policy: PolicyKind::Identity,
                    status: StatusCode::UNAUTHORIZED,
                    code: "credentials_missing",
                    reason: "Missing user information".into(),
                })
            }
            None => Ok(()),
        }
    }

    /// Looked at once, whichever method asks.
    fn look_for_certificate<'a>(&self, request: &RequestContext<'a>) -> Certificate<'a> {
        match self.certificates() {
            Some(mtls) => mtls.look(request),
            None => Ok(request.client_certificate.map(Shown::Here)),
        }
    }

    /// RFC 6750 section 3, and RFC 9449 section 7.1 for who came with that scheme or has to.
    #[cold]
    fn refuse(
        &self,
        rejection: Rejection,
        request: &RequestContext<'_>,
        decision: &mut Decision,
    ) -> Denial {
        let error = match rejection.status {
            StatusCode::UNAUTHORIZED => Some("invalid_token"),
            StatusCode::BAD_REQUEST => Some("invalid_request"),
            _ => None,
        };
        if let Some(error) = error {
            let challenge = |start: &str, error: &str| {
                let reason = &rejection.reason;
                format!("{start}, error=\"{error}\", error_description=\"{reason}\"")
            };
            let takes_proof =
                |dpop: &Dpop| dpop.is_required() || matches!(dpop.token(request), Ok(Some(_)));
            let has_proof = self.dpop.as_ref().is_some_and(takes_proof);
            let value = match rejection.proof_error.or(has_proof.then_some(error)) {
                Some(error) => dpop::with_algorithms(&challenge(&self.dpop_challenge_start, error)),
                None => challenge(&self.challenge_start, error),
            };
            let value = HeaderValue::try_from(value).unwrap_or_else(|_| self.challenge.clone());
            decision.response_headers.push((WWW_AUTHENTICATE, value));
        }
        Denial {
            policy: PolicyKind::Identity,
            status: rejection.status,
            code: rejection.code,
            reason: rejection.reason,
        }
    }
}

impl Method {
    /// Takes headers off the request that the upstream must not see, or must not believe.
    fn clear(&self, request: &RequestContext<'_>, decision: &mut Decision) {
        match self {
            // A token goes on, or not, when it is accepted.
            Self::Jwt(_) => {}
            Self::ApiKey(keys) => keys.clear(request, decision),
            Self::Mtls(mtls) => mtls.clear(request, decision),
            Self::Trusted(trusted) => trusted.clear(request, decision),
        }
    }

    /// `None`: the request brings nothing for this method.
    async fn identify(
        &self,
        request: &RequestContext<'_>,
        certificate: &Certificate<'_>,
        forward: &Forward,
        decision: &mut Decision,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        match self {
            Self::Jwt(jwt) => jwt.identify(request, forward, decision).await,
            Self::ApiKey(keys) => keys.identify(request),
            Self::Mtls(mtls) => match certificate {
                Ok(Some(shown)) => mtls.identify(shown, forward).map(Some),
                Ok(None) => Ok(None),
                Err(rejection) => Err(rejection.clone()),
            },
            Self::Trusted(trusted) => trusted.identify(request, forward),
        }
    }
}

/// A certificate that speaks for the request leaves its token unread, and so unbound.
fn check_order(methods: &[MethodConfig]) -> Result<(), Refusal> {
    let binding = |method: &MethodConfig| method.mtls.as_ref().is_some_and(|m| m.require_binding);
    let Some(at) = methods.iter().position(binding) else { return Ok(()) };
    let (before, after) = methods.split_at(at);
    let is_jwt = |method: &MethodConfig| method.jwt.is_some();
    if before.iter().any(is_jwt) && !after.iter().any(is_jwt) {
        return Ok(());
    }
    Err(Refusal::new(
        format!("methods[{at}].mtls.require_binding"),
        "would bind no token: tokens are not looked at before certificates",
        "put `jwt` before `mtls`, or remove `require_binding`",
    ))
}

fn build_method(
    config: &MethodConfig,
    takes_proofs: bool,
    forward: &Forward,
    outside: &Outside,
) -> Result<Method, Refusal> {
    match config {
        MethodConfig { jwt: Some(jwt), api_key: None, mtls: None, trusted: None } => {
            Jwt::build(jwt, outside)
                .map(|jwt| {
                    Method::Jwt(Box::new(if takes_proofs { jwt.with_proofs() } else { jwt }))
                })
                .map_err(|r| r.below("jwt"))
        }
        MethodConfig { jwt: None, api_key: Some(keys), mtls: None, trusted: None } => {
            ApiKeys::build(keys, forward).map(Method::ApiKey).map_err(|r| r.below("api_key"))
        }
        MethodConfig { jwt: None, api_key: None, mtls: Some(mtls), trusted: None } => {
            Mtls::build(mtls, Arc::clone(&outside.certificates))
                .map(Method::Mtls)
                .map_err(|r| r.below("mtls"))
        }
        MethodConfig { jwt: None, api_key: None, mtls: None, trusted: Some(trusted) } => {
            Trusted::build(trusted).map(Method::Trusted).map_err(|r| r.below("trusted"))
        }
        _ => Err(Refusal::new(
            "",
            "names no method, or several",
            "write one of jwt, api_key, mtls and trusted in each item",
        )),
    }
}

fn header_name(key: &str, name: &str) -> Result<HeaderName, Refusal> {
    HeaderName::try_from(name).map_err(|_| {
        Refusal::new(key, format!("`{name}` is not a header's name"), "use letters, digits and `-`")
    })
}

/// A header that must not come twice.
fn read_single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Rejection::AMBIGUOUS);
    }
    let text = std::str::from_utf8(value.as_bytes()).map_err(|_| {
        Rejection::unauthorized("identity_malformed", "An identity header is not text")
    })?;
    Ok(Some(text.trim()))
}

pub(crate) fn encode_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes as 64 hexadecimal digits.
fn decode_hex(text: &str) -> Option<[u8; 32]> {
    let (pairs, []) = text.as_bytes().as_chunks::<2>() else { return None };
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let [high, low] = pair.map(|digit| char::from(digit).to_digit(16));
        *byte = u8::try_from(high? * 16 + low?).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
pub(crate) mod test_issuer;
#[cfg(test)]
mod tests;
