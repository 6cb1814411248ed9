//! A client certificate as Envoy hands it on: PEM, percent-encoded.

use stoa_policy::context::ClientCertificate;
use x509_parser::pem::parse_x509_pem;

use super::question::Malformed;
use crate::tls::peer;

/// `principal` is the name that Envoy took from the certificate: where it sends no certificate
/// (`include_peer_certificate`), that is all there is.
pub fn read(
    certificate: &str,
    principal: &str,
) -> Result<Option<Box<ClientCertificate>>, Malformed> {
    if !certificate.is_empty() {
        let bytes = decode(certificate);
        let malformed = |reason: &str| Malformed::new("attributes.source.certificate", reason);
        let (_, pem) = parse_x509_pem(&bytes).map_err(|_| malformed("is not PEM"))?;
        let described = peer::describe(&pem.contents);
        let described = described.ok_or_else(|| malformed("is not an X.509 certificate"))?;
        return Ok(Some(Box::new(described)));
    }
    if principal.is_empty() {
        return Ok(None);
    }
    Ok(Some(Box::new(ClientCertificate {
        subject: principal.to_owned(),
        // Not said: what demands an issuer or a fingerprint finds none that is right.
        issuer: String::new(),
        serial: String::new(),
        fingerprint: String::new(),
        subject_alternative_names: vec![principal.to_owned()],
        // Envoy has checked it now; it does not say for how long.
        not_before: 0,
        not_after: i64::from(u32::MAX),
    })))
}

/// RFC 3986 section 2.1. `+` stands for itself: it is a letter of Base64.
fn decode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let mut ahead = rest.clone();
        let digits = (byte == b'%').then(|| (hex(ahead.next()), hex(ahead.next())));
        match digits {
            Some((Some(high), Some(low))) => {
                bytes.push(high << 4 | low);
                rest = ahead;
            }
            _ => bytes.push(byte),
        }
    }
    bytes
}

fn hex(digit: Option<u8>) -> Option<u8> {
    let value = char::from(digit?).to_digit(16)?;
    u8::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent_encoded(pem: &str) -> String {
        pem.replace('\n', "%0A").replace(' ', "%20").replace('+', "%2B").replace('=', "%3D")
    }

    #[test]
    fn the_certificate_says_who_it_is() {
        let mut params =
            rcgen::CertificateParams::new(vec!["orders.acme.example".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "orders");
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "acme");
        params
            .subject_alt_names
            .push(rcgen::SanType::URI("spiffe://acme.example/orders".try_into().unwrap()));
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        for text in [pem.clone(), percent_encoded(&pem)] {
            let read = read(&text, "spiffe://other").unwrap().unwrap();
            assert!(read.subject.contains("CN=orders"), "{}", read.subject);
            assert_eq!(
                read.subject_alternative_names,
                ["orders.acme.example", "spiffe://acme.example/orders"]
            );
            assert_eq!(read.fingerprint.len(), 64);
            assert!(read.not_after > read.not_before);
        }
    }

    #[test]
    fn without_a_certificate_the_principal_is_the_name() {
        let read = read("", "spiffe://acme/orders").unwrap().unwrap();
        assert_eq!(read.subject, "spiffe://acme/orders");
        assert_eq!(super::read("", "").unwrap(), None);
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        for text in ["x", "%", "%4", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"]
        {
            let error = read(text, "a").unwrap_err();
            assert_eq!(error.field, "attributes.source.certificate", "{text}");
        }
    }

    #[test]
    fn what_is_not_percent_encoded_stays() {
        assert_eq!(decode("a%2Bb+%zz%4"), b"a+b+%zz%4");
    }
}
