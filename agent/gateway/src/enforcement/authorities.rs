//! Whose certificates are believed where policies ask others: the system's authorities, and those
//! of `--ca-file`. Read once, when the agent starts.

use std::{io, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    #[error(
        "--ca-file (STOA_CA_FILE): cannot read the certificates in {file}: {reason}; give a PEM \
         file of authorities"
    )]
    File { file: String, reason: String },
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
}

/// Certificates that each can be an authority's.
#[derive(Debug)]
pub struct Authorities {
    certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
}

impl Authorities {
    /// Those of the system, and of a PEM file.
    pub fn load(file: Option<&Path>) -> Result<Self, AuthoritiesError> {
        let native = rustls_native_certs::load_native_certs();
        for error in &native.errors {
            tracing::warn!(%error, "an authority of the system could not be read");
        }
        let mut roots = RootCertStore::empty();
        // A system may have some that no TLS library takes.
        let mut certificates: Vec<_> = native
            .certs
            .into_iter()
            .filter(|certificate| roots.add(certificate.clone()).is_ok())
            .collect();
        if let Some(file) = file {
            let wrong = |reason: String| AuthoritiesError::File {
                file: file.display().to_string(),
                reason,
            };
            let given: Vec<_> = CertificateDer::pem_file_iter(file)
                .and_then(Iterator::collect)
                .map_err(|error| wrong(error.to_string()))?;
            if given.is_empty() {
                return Err(wrong(io::Error::from(io::ErrorKind::NotFound).to_string()));
            }
            for certificate in given {
                roots.add(certificate.clone()).map_err(|error| wrong(error.to_string()))?;
                certificates.push(certificate);
            }
        }
        Ok(Self { certificates, roots: Arc::new(roots) })
    }

    /// For a client that shows no certificate of its own.
    pub fn client_config(&self) -> Result<ClientConfig, AuthoritiesError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        Ok(ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth())
    }

    /// All of them as text (RFC 7468).
    pub fn pem(&self) -> String {
        let mut text = String::new();
        for certificate in &self.certificates {
            text.push_str("-----BEGIN CERTIFICATE-----\n");
            let encoded = STANDARD.encode(certificate);
            let mut rest = encoded.as_str();
            while !rest.is_empty() {
                let (line, more) = rest.split_at(rest.len().min(64));
                text.push_str(line);
                text.push('\n');
                rest = more;
            }
            text.push_str("-----END CERTIFICATE-----\n");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn authorities_that_cannot_be_read_are_named() {
        let empty = tempfile::NamedTempFile::new().unwrap();
        for file in [empty.path(), Path::new("/nowhere/ca.pem")] {
            let error = Authorities::load(Some(file)).unwrap_err().to_string();
            assert!(error.contains(&file.display().to_string()), "{error}");
            assert!(error.contains("STOA_CA_FILE"), "{error}");
        }
    }

    #[test]
    fn the_text_holds_what_was_read() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(made.cert.pem().as_bytes()).unwrap();
        let authorities = Authorities::load(Some(file.path())).unwrap();
        let text = authorities.pem();
        let read: Vec<_> =
            CertificateDer::pem_slice_iter(text.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        assert_eq!(read, authorities.certificates);
        assert_eq!(read.last(), Some(made.cert.der()));
    }
}
