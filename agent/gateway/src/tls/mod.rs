//! TLS of listeners and of upstreams, by rustls with aws-lc-rs. Certificates are read when the
//! configuration is; they are read again when their files change.

pub mod client;
pub mod peer;
pub mod server;

use std::path::{Path, PathBuf};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::catalog::files::Files;

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {}: {source}. Name a PEM file that the agent may read", file.display())]
    Read { file: PathBuf, source: std::io::Error },
    #[error("{} holds no {what} in PEM form (`-----BEGIN ...`)", file.display())]
    Empty { file: PathBuf, what: &'static str },
    #[error("{} is not as it should be: {reason}", file.display())]
    Broken { file: PathBuf, reason: String },
    #[error("the certificate {} does not go with the key {}: {reason}", certificate.display(), key.display())]
    Pair { certificate: PathBuf, key: PathBuf, reason: String },
    #[error("has no certificate; give at least one")]
    NoCertificate,
    #[error("has one of `certificate` and `key`; give both or none")]
    HalfPair,
    #[error("cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("cannot be set up: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn read_certificates(
    path: &Path,
    files: &mut Files,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let bytes = read(path, files)?;
    let certificates = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::Broken { file: path.to_owned(), reason: e.to_string() })?;
    match certificates.is_empty() {
        true => Err(TlsError::Empty { file: path.to_owned(), what: "certificate" }),
        false => Ok(certificates),
    }
}

fn read_key(path: &Path, files: &mut Files) -> Result<PrivateKeyDer<'static>, TlsError> {
    let bytes = read(path, files)?;
    PrivateKeyDer::from_pem_slice(&bytes)
        .map_err(|_| TlsError::Empty { file: path.to_owned(), what: "private key" })
}

fn read(path: &Path, files: &mut Files) -> Result<Vec<u8>, TlsError> {
    files.read(path).map_err(|source| TlsError::Read { file: path.to_owned(), source })
}
