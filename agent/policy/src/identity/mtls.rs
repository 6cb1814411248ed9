//! Client certificates: verified by our own TLS, or by a listed proxy in front of us.

use std::{
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Deserialize;

pub use super::certificate_headers::CertificateHeadersConfig;
use super::{
    Rejection,
    certificate_headers::{CertificateHeaders, Told},
    distinguished_name::DistinguishedName,
    forward::{Forward, Known},
    required_paths::RequiredPaths,
};
use crate::{
    clock::Now,
    context::{ClientCertificate, RequestContext},
    decision::{AuthenticationMethod, Decision, Identity},
    error::Refusal,
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
    /// Paths that need a certificate, whoever else vouches for the request: `/payments` alone, or
    /// `/payments/*` for it and all below it.
    pub required_paths: Vec<String>,
    /// Refuse a token that is bound to no certificate (RFC 8705) where the client shows one. A bound
    /// token needs its certificate always.
    pub require_binding: bool,
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
            required_paths: Vec::new(),
            require_binding: false,
            from_headers: None,
        }
    }
}

const MALFORMED: Rejection =
    Rejection::unauthorized("certificate_malformed", "The client certificate has no usable name");

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

#[derive(Debug)]
pub struct Mtls {
    issuers: Vec<DistinguishedName>,
    subject: Vec<NameSource>,
    tenant: TenantSource,
    scopes: Vec<Arc<str>>,
    roles: Vec<Arc<str>>,
    required_paths: RequiredPaths,
    require_binding: bool,
    headers: Option<CertificateHeaders>,
    tally: Arc<CertificateTally>,
}

/// How requests to sets with `mtls` went, for the admin API. Outlives a reload.
#[derive(Debug, Default)]
pub struct CertificateTally {
    pub validated: AtomicU64,
    pub missing: AtomicU64,
    pub invalid: AtomicU64,
    /// Tokens that were bound to the certificate, to another or to none that was shown, and tokens
    /// that were bound to none where that is required.
    pub bound: AtomicU64,
    pub mismatched: AtomicU64,
    pub unbound: AtomicU64,
}

/// The certificate of a request.
#[derive(Debug)]
pub(super) enum Shown<'a> {
    /// To our own TLS.
    Here(&'a ClientCertificate),
    /// To a listed proxy, which tells of it.
    Before(Box<Told<'a>>),
}

impl Deref for Shown<'_> {
    type Target = ClientCertificate;

    fn deref(&self) -> &ClientCertificate {
        match self {
            Self::Here(certificate) => certificate,
            Self::Before(told) => &told.certificate,
        }
    }
}

impl Shown<'_> {
    /// SHA-256 of its DER, where that is known.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::Here(certificate) => super::decode_hex(&certificate.fingerprint),
            Self::Before(told) => told.digest(),
        }
    }
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
            required_paths: RequiredPaths::build("required_paths", &config.required_paths)?,
            require_binding: config.require_binding,
            headers,
            tally,
        })
    }

    pub fn requires_binding(&self) -> bool {
        self.require_binding
    }

    /// Patterns of paths that need a certificate, as they were written.
    pub fn required_paths(&self) -> impl Iterator<Item = &str> {
        self.required_paths.texts()
    }

    pub(super) fn is_required_for(&self, path: &str) -> bool {
        self.required_paths.contain(path)
    }

    pub(super) fn tally(&self) -> &CertificateTally {
        &self.tally
    }

    /// Whether certificates are believed that a proxy in front has verified.
    pub fn trusts_proxies(&self) -> bool {
        self.headers.is_some()
    }

    pub(super) fn clear(&self, request: &RequestContext<'_>, decision: &mut Decision) {
        if let Some(headers) = &self.headers
            && !headers.are_from(request)
        {
            for name in headers.names() {
                if request.headers.contains_key(name) {
                    decision.headers_to_remove.push(name.clone());
                }
            }
        }
    }

    /// The client's certificate, if it shows one, and that it may be used here and now.
    pub(super) fn look<'a>(
        &self,
        request: &RequestContext<'a>,
    ) -> Result<Option<Shown<'a>>, Rejection> {
        let shown = match (request.client_certificate, &self.headers) {
            (Some(certificate), _) => Ok(Some(Shown::Here(certificate))),
            (None, Some(headers)) => {
                headers.read(request).map(|told| told.map(|told| Shown::Before(Box::new(told))))
            }
            (None, None) => Ok(None),
        };
        let looked = shown.and_then(|shown| match &shown {
            Some(certificate) => self.check(certificate).map(|()| shown),
            None => Ok(None),
        });
        let counter = match &looked {
            Ok(Some(_)) => &self.tally.validated,
            Ok(None) => &self.tally.missing,
            Err(_) => &self.tally.invalid,
        };
        counter.fetch_add(1, Relaxed);
        looked
    }

    fn check(&self, certificate: &ClientCertificate) -> Result<(), Rejection> {
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
        Ok(())
    }

    pub(super) fn identify(
        &self,
        certificate: &ClientCertificate,
        forward: &Forward,
    ) -> Result<Arc<Known>, Rejection> {
        self.identity(certificate).and_then(|identity| forward.know(identity)).map(Arc::new)
    }

    fn identity(&self, certificate: &ClientCertificate) -> Result<Identity, Rejection> {
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

#[cfg(test)]
#[path = "mtls_tests.rs"]
mod tests;
