//! Client certificates: verified by our own TLS, or by a listed proxy in front of us.

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use http::HeaderName;
use serde::Deserialize;

use super::{
    Rejection,
    distinguished_name::DistinguishedName,
    forward::{Forward, Known},
};
use crate::{
    clock::Now,
    context::{ClientCertificate, RequestContext},
    decision::{AuthenticationMethod, Decision, Identity},
    error::Refusal,
    sources::Sources,
};

/// ```yaml
/// mtls:
///   allowed_issuers: ["CN=acme clients,O=acme"]
///   subject: [uri, cn]
///   tenant: o
///   scopes: [orders:read]
///   from_headers: {sources: [10.0.0.0/8]}
/// ```
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct MtlsConfig {
    /// Distinguished names; empty: every issuer that TLS accepts.
    pub allowed_issuers: Vec<String>,
    /// What names the caller: the first that the certificate has.
    pub subject: Vec<NameSource>,
    /// What names the tenant, if anything does.
    pub tenant: TenantSource,
    /// What every certificate may do.
    pub scopes: Vec<Arc<str>>,
    pub roles: Vec<Arc<str>>,
    /// Certificates that a proxy in front of us has verified, as it writes them into headers.
    pub from_headers: Option<CertificateHeadersConfig>,
}

impl Default for MtlsConfig {
    fn default() -> Self {
        Self {
            allowed_issuers: Vec::new(),
            subject: vec![NameSource::Uri, NameSource::Cn, NameSource::Dns, NameSource::Dn],
            tenant: TenantSource::O,
            scopes: Vec::new(),
            roles: Vec::new(),
            from_headers: None,
        }
    }
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum NameSource {
    /// The first alternative name of kind URI, such as a SPIFFE id.
    Uri,
    /// The first alternative name of kind DNS.
    Dns,
    /// The common name.
    Cn,
    /// The whole subject.
    Dn,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum TenantSource {
    None,
    /// The organisation.
    O,
    /// The organisational unit.
    Ou,
}

/// Believed from the listed sources only; sent by anybody else they are taken off the request.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct CertificateHeadersConfig {
    pub sources: Sources,
    #[serde(default = "default_verify")]
    pub verify: String,
    /// What `verify` holds for a certificate that is good: `SUCCESS` (nginx, Apache), `0` (HAProxy).
    #[serde(default = "default_verified")]
    pub verified: Vec<String>,
    #[serde(default = "default_subject")]
    pub subject: String,
    #[serde(default = "default_issuer")]
    pub issuer: String,
    #[serde(default = "default_serial")]
    pub serial: String,
    #[serde(default = "default_fingerprint")]
    pub fingerprint: String,
    #[serde(default = "default_certificate")]
    pub certificate: String,
}

fn default_verify() -> String {
    "X-SSL-Client-Verify".to_owned()
}

fn default_verified() -> Vec<String> {
    vec!["SUCCESS".to_owned(), "0".to_owned()]
}

fn default_subject() -> String {
    "X-SSL-Client-S-DN".to_owned()
}

fn default_issuer() -> String {
    "X-SSL-Client-I-DN".to_owned()
}

fn default_serial() -> String {
    "X-SSL-Client-Serial".to_owned()
}

fn default_fingerprint() -> String {
    "X-SSL-Client-Fingerprint".to_owned()
}

fn default_certificate() -> String {
    "X-SSL-Client-Cert".to_owned()
}

#[derive(Debug)]
pub struct Mtls {
    issuers: Vec<DistinguishedName>,
    subject: Vec<NameSource>,
    tenant: TenantSource,
    scopes: Vec<Arc<str>>,
    roles: Vec<Arc<str>>,
    headers: Option<CertificateHeaders>,
    tally: Arc<CertificateTally>,
}

/// How requests to sets with `mtls` went, for the admin API. Outlives a reload.
#[derive(Debug, Default)]
pub struct CertificateTally {
    pub validated: AtomicU64,
    pub missing: AtomicU64,
    pub invalid: AtomicU64,
}

#[derive(Debug)]
struct CertificateHeaders {
    sources: Sources,
    verified: Vec<String>,
    verify: HeaderName,
    subject: HeaderName,
    issuer: HeaderName,
    serial: HeaderName,
    fingerprint: HeaderName,
    certificate: HeaderName,
}

impl Mtls {
    pub(super) fn build(
        config: &MtlsConfig,
        tally: Arc<CertificateTally>,
    ) -> Result<Self, Refusal> {
        let mut issuers = Vec::new();
        for issuer in &config.allowed_issuers {
            issuers.push(DistinguishedName::parse(issuer).ok_or_else(|| {
                Refusal::new(
                    "allowed_issuers",
                    format!("`{issuer}` is not a distinguished name"),
                    "write it as openssl x509 -nameopt RFC2253 prints it, such as CN=ca,O=acme",
                )
            })?);
        }
        if config.subject.is_empty() {
            return Err(Refusal::new("subject", "is empty", "list uri, dns, cn or dn"));
        }
        let headers = config.from_headers.as_ref().map(CertificateHeaders::build).transpose()?;
        Ok(Self {
            issuers,
            subject: config.subject.clone(),
            tenant: config.tenant,
            scopes: config.scopes.clone(),
            roles: config.roles.clone(),
            headers,
            tally,
        })
    }

    /// Whether certificates are believed that a proxy in front has verified.
    pub fn trusts_proxies(&self) -> bool {
        self.headers.is_some()
    }

    pub(super) fn clear(&self, request: &RequestContext<'_>, decision: &mut Decision) {
        if let Some(headers) = &self.headers
            && !headers.sources.contains(request.source)
        {
            for name in headers.names() {
                if request.headers.contains_key(name) {
                    decision.headers_to_remove.push(name.clone());
                }
            }
        }
    }

    pub(super) fn identify(
        &self,
        request: &RequestContext<'_>,
        forward: &Forward,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        let known = self.know(request, forward);
        let counter = match &known {
            Ok(Some(_)) => &self.tally.validated,
            Ok(None) => &self.tally.missing,
            Err(_) => &self.tally.invalid,
        };
        counter.fetch_add(1, Relaxed);
        known
    }

    fn know(
        &self,
        request: &RequestContext<'_>,
        forward: &Forward,
    ) -> Result<Option<Arc<Known>>, Rejection> {
        let certificate = match (request.client_certificate, &self.headers) {
            (Some(certificate), _) => Cow::Borrowed(certificate),
            (None, Some(headers)) => match headers.read(request)? {
                Some(certificate) => Cow::Owned(certificate),
                None => return Ok(None),
            },
            (None, None) => return Ok(None),
        };
        let identity = self.identity(&certificate)?;
        forward.know(identity).map(|known| Some(Arc::new(known)))
    }

    fn identity(&self, certificate: &ClientCertificate) -> Result<Identity, Rejection> {
        const MALFORMED: Rejection = Rejection::unauthorized(
            "certificate_malformed",
            "The client certificate has no usable name",
        );
        // TLS has checked this when the connection began, which may be long ago.
        let now = i64::try_from(Now::read().seconds()).unwrap_or(i64::MAX);
        if now < certificate.not_before || now > certificate.not_after {
            return Err(Rejection::unauthorized(
                "certificate_expired",
                "The client certificate is not valid now",
            ));
        }
        let issuer = DistinguishedName::parse(&certificate.issuer).ok_or(MALFORMED)?;
        if !self.issuers.is_empty() && !self.issuers.contains(&issuer) {
            return Err(Rejection::unauthorized(
                "certificate_issuer",
                "The client certificate is of another issuer",
            ));
        }
        let name = DistinguishedName::parse(&certificate.subject).ok_or(MALFORMED)?;
        let alternatives = &certificate.subject_alternative_names;
        let subject = self.subject.iter().find_map(|source| match source {
            // A DNS name has no colon, a URI has one.
            NameSource::Uri => alternatives.iter().find(|n| n.contains(':')).map(String::as_str),
            NameSource::Dns => alternatives.iter().find(|n| !n.contains(':')).map(String::as_str),
            NameSource::Cn => name.get("CN"),
            NameSource::Dn => Some(certificate.subject.as_str()),
        });
        let tenant = match self.tenant {
            TenantSource::None => None,
            TenantSource::O => name.get("O"),
            TenantSource::Ou => name.get("OU"),
        };
        let filled = |text: &&str| !text.is_empty();
        let subject = subject.filter(filled).ok_or(MALFORMED)?;
        Ok(Identity {
            subject: Arc::from(subject),
            email: None,
            consumer: name.get("CN").filter(filled).map(Arc::from),
            tenant: tenant.filter(filled).map(Arc::from),
            scopes: self.scopes.clone(),
            roles: self.roles.clone(),
            plan: None,
            method: AuthenticationMethod::Mtls,
            claims: Arc::default(),
        })
    }
}

impl CertificateHeaders {
    fn build(config: &CertificateHeadersConfig) -> Result<Self, Refusal> {
        if config.sources.is_empty() {
            return Err(Refusal::new(
                "from_headers.sources",
                "is empty, so the headers would never be believed",
                "list the addresses of the proxies that set them, or remove `from_headers`",
            ));
        }
        let name = |key: &str, name: &str| super::header_name(&format!("from_headers.{key}"), name);
        Ok(Self {
            sources: config.sources.clone(),
            verified: config.verified.clone(),
            verify: name("verify", &config.verify)?,
            subject: name("subject", &config.subject)?,
            issuer: name("issuer", &config.issuer)?,
            serial: name("serial", &config.serial)?,
            fingerprint: name("fingerprint", &config.fingerprint)?,
            certificate: name("certificate", &config.certificate)?,
        })
    }

    fn names(&self) -> [&HeaderName; 6] {
        [
            &self.verify,
            &self.subject,
            &self.issuer,
            &self.serial,
            &self.fingerprint,
            &self.certificate,
        ]
    }

    /// `None`: not from a listed source, or the client showed the proxy no certificate.
    fn read(&self, request: &RequestContext<'_>) -> Result<Option<ClientCertificate>, Rejection> {
        if !self.sources.contains(request.source) {
            return Ok(None);
        }
        let read = |name: &HeaderName| super::read_single(request.headers, name);
        // nginx writes NONE, HAProxy leaves it out or writes nothing.
        let verify = match read(&self.verify)? {
            None | Some("" | "NONE") => return Ok(None),
            Some(verify) => verify,
        };
        if !self.verified.iter().any(|good| good == verify) {
            return Err(Rejection::unauthorized(
                "certificate_unverified",
                "The client certificate was not verified",
            ));
        }
        let text = |name| read(name).map(|value| value.unwrap_or_default().to_owned());
        let plain = |text: String| text.replace(':', "").to_ascii_lowercase();
        Ok(Some(ClientCertificate {
            subject: text(&self.subject)?,
            issuer: text(&self.issuer)?,
            serial: plain(text(&self.serial)?),
            fingerprint: plain(text(&self.fingerprint)?),
            subject_alternative_names: Vec::new(),
            // The proxy has looked.
            not_before: i64::MIN,
            not_after: i64::MAX,
        }))
    }
}

#[cfg(test)]
#[path = "mtls_tests.rs"]
mod tests;
