//! TLS towards upstreams.

use std::sync::{Arc, OnceLock};

use rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

use super::{TlsError, read_certificates, read_key};
use crate::catalog::{
    document::{UpstreamProtocol, UpstreamTlsDocument},
    files::Files,
    upstreams::UpstreamTls,
};

pub fn configure(
    document: &UpstreamTlsDocument,
    protocol: UpstreamProtocol,
    files: &mut Files,
) -> Result<Arc<ClientConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = match &document.ca {
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in read_certificates(path, files)? {
                roots.add(certificate)?;
            }
            builder.with_root_certificates(roots)
        }
        None => builder.with_root_certificates(system_roots()),
    };
    let mut config = match (&document.certificate, &document.key) {
        (Some(certificate), Some(key)) => {
            let chain = read_certificates(certificate, files)?;
            builder.with_client_auth_cert(chain, read_key(key, files)?)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::HalfPair),
    };
    config.alpn_protocols = match protocol {
        UpstreamProtocol::Http1 => vec![b"http/1.1".to_vec()],
        UpstreamProtocol::Http2 => vec![b"h2".to_vec()],
    };
    Ok(Arc::new(config))
}

/// Those of the machine, read once.
fn system_roots() -> Arc<RootCertStore> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    Arc::clone(ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!(%error, "a certificate of the system could not be read");
        }
        roots.add_parsable_certificates(found.certs);
        Arc::new(roots)
    }))
}

/// Differs where connections must not be shared: another configuration has other certificates.
pub fn identity(tls: Option<&UpstreamTls>) -> usize {
    tls.map_or(0, |tls| Arc::as_ptr(&tls.config).addr())
}
