//! TLS that ends here: certificates by the name that the client asks for, client certificates.

use std::sync::Arc;

use rustls::{
    RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};

use super::{TlsError, read_certificates, read_key};
use crate::catalog::{
    document::{CertificateDocument, ClientCertificateMode, ListenerProtocol, ListenerTlsDocument},
    files::Files,
};

pub fn configure(
    document: &ListenerTlsDocument,
    protocol: ListenerProtocol,
    files: &mut Files,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = match &document.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(path, files)? {
                roots.add(certificate)?;
            }
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
            let verifier = match document.client_certificate {
                ClientCertificateMode::Required => verifier,
                ClientCertificateMode::Optional => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut keys = Vec::new();
    for pair in &document.certificates {
        keys.push(NamedKey::read(pair, &provider, files)?);
    }
    if keys.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let mut config = builder.with_cert_resolver(Arc::new(ByName { keys }));
    config.alpn_protocols = match protocol {
        ListenerProtocol::Auto => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        ListenerProtocol::Http1 => vec![b"http/1.1".to_vec()],
        ListenerProtocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

/// A certificate with the names that it is good for.
#[derive(Debug)]
struct NamedKey {
    /// Lower case; `*.example.com` as it is written.
    names: Vec<String>,
    key: Arc<CertifiedKey>,
}

impl NamedKey {
    fn read(
        document: &CertificateDocument,
        provider: &Arc<rustls::crypto::CryptoProvider>,
        files: &mut Files,
    ) -> Result<Self, TlsError> {
        let chain = read_certificates(&document.certificate, files)?;
        let key = read_key(&document.key, files)?;
        let names = chain.first().map(|c| names_of(c)).unwrap_or_default();
        let certified =
            CertifiedKey::from_der(chain, key, provider).map_err(|e| TlsError::Pair {
                certificate: document.certificate.clone(),
                key: document.key.clone(),
                reason: e.to_string(),
            })?;
        Ok(Self { names, key: Arc::new(certified) })
    }

    fn is_for(&self, server: &str) -> bool {
        self.names.iter().any(|name| match name.strip_prefix('*') {
            // RFC 6125 section 6.4.3: the star stands for one label.
            Some(suffix) => {
                server.strip_suffix(suffix).is_some_and(|l| !l.is_empty() && !l.contains('.'))
            }
            None => name == server,
        })
    }
}

fn names_of(certificate: &[u8]) -> Vec<String> {
    use x509_parser::{extensions::GeneralName, prelude::parse_x509_certificate};
    let Ok((_, certificate)) = parse_x509_certificate(certificate) else { return Vec::new() };
    let Ok(Some(alternatives)) = certificate.subject_alternative_name() else { return Vec::new() };
    let names = alternatives.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    names.collect()
}

#[derive(Debug)]
struct ByName {
    /// At least one.
    keys: Vec<NamedKey>,
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|server| {
            let server = server.to_ascii_lowercase();
            self.keys.iter().find(|key| key.is_for(&server))
        });
        named.or(self.keys.first()).map(|named| Arc::clone(&named.key))
    }
}
