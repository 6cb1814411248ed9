//! What a verified client certificate says.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};
use stoa_policy::context::ClientCertificate;
use x509_parser::{extensions::GeneralName, prelude::parse_x509_certificate};

/// `None` where it cannot be read, although its chain was verified.
pub fn describe(der: &[u8]) -> Option<ClientCertificate> {
    let (_, certificate) = parse_x509_certificate(der).ok()?;
    let mut names = Vec::new();
    if let Ok(Some(alternatives)) = certificate.subject_alternative_name() {
        for name in &alternatives.value.general_names {
            match name {
                GeneralName::DNSName(name) | GeneralName::URI(name) => {
                    names.push((*name).to_owned());
                }
                _ => {}
            }
        }
    }
    Some(ClientCertificate {
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: hex(certificate.raw_serial()),
        fingerprint: hex(&Sha256::digest(der)),
        subject_alternative_names: names,
        not_before: certificate.validity().not_before.timestamp(),
        not_after: certificate.validity().not_after.timestamp(),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
