//! Client certificates that a proxy in front of us has verified, as it writes them into headers.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use http::HeaderName;
use percent_encoding::percent_decode;
use serde::Deserialize;
use time::{
    Date, Month, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339,
};
use x509_parser::{pem::parse_x509_pem, prelude::parse_x509_certificate};

use super::Rejection;
use crate::{
    context::{ClientCertificate, RequestContext},
    error::Refusal,
    sources::Sources,
};

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
    /// SHA-256, in hexadecimal digits or base64url. Another (nginx writes SHA-1) is no use to bound
    /// tokens: for those the proxy must send the certificate itself.
    #[serde(default = "default_fingerprint")]
    pub fingerprint: String,
    /// From when and until when the certificate is valid.
    #[serde(default = "default_not_before")]
    pub not_before: String,
    #[serde(default = "default_not_after")]
    pub not_after: String,
    /// The certificate: PEM, percent-encoded, or DER in base64.
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

fn default_not_before() -> String {
    "X-SSL-Client-NotBefore".to_owned()
}

fn default_not_after() -> String {
    "X-SSL-Client-NotAfter".to_owned()
}

fn default_certificate() -> String {
    "X-SSL-Client-Cert".to_owned()
}

#[derive(Debug)]
pub(super) struct CertificateHeaders {
    sources: Sources,
    verified: Vec<String>,
    verify: HeaderName,
    subject: HeaderName,
    issuer: HeaderName,
    serial: HeaderName,
    fingerprint: HeaderName,
    not_before: HeaderName,
    not_after: HeaderName,
    certificate: HeaderName,
}

const MALFORMED: Rejection = Rejection::unauthorized(
    "certificate_malformed",
    "What the proxy says of the client certificate cannot be read",
);

impl CertificateHeaders {
    pub(super) fn build(config: &CertificateHeadersConfig) -> Result<Self, Refusal> {
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
            not_before: name("not_before", &config.not_before)?,
            not_after: name("not_after", &config.not_after)?,
            certificate: name("certificate", &config.certificate)?,
        })
    }

    pub(super) fn are_from(&self, request: &RequestContext<'_>) -> bool {
        self.sources.contains(request.source)
    }

    pub(super) fn names(&self) -> [&HeaderName; 8] {
        [
            &self.verify,
            &self.subject,
            &self.issuer,
            &self.serial,
            &self.fingerprint,
            &self.not_before,
            &self.not_after,
            &self.certificate,
        ]
    }

    /// `None`: not from a listed source, or the client showed the proxy no certificate.
    pub(super) fn read<'a>(
        &self,
        request: &RequestContext<'a>,
    ) -> Result<Option<Told<'a>>, Rejection> {
        if !self.are_from(request) {
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
        let text = |name| read(name).map(|value| value.unwrap_or_default());
        let date = |name| match text(name)? {
            "" => Ok(None),
            text => parse_date(text).map(Some).ok_or(MALFORMED),
        };
        let fingerprint = text(&self.fingerprint)?;
        let certificate = text(&self.certificate)?;
        let mut validity = (date(&self.not_before)?, date(&self.not_after)?);
        if let ((None, _) | (_, None), false) = (validity, certificate.is_empty()) {
            let (from, until) = validity_of(certificate).ok_or(MALFORMED)?;
            validity = (validity.0.or(Some(from)), validity.1.or(Some(until)));
        }
        Ok(Some(Told {
            certificate: ClientCertificate {
                subject: text(&self.subject)?.to_owned(),
                issuer: text(&self.issuer)?.to_owned(),
                serial: plain(text(&self.serial)?),
                fingerprint: plain(fingerprint),
                subject_alternative_names: Vec::new(),
                // Where it does not say, the proxy has looked.
                not_before: validity.0.unwrap_or(i64::MIN),
                not_after: validity.1.unwrap_or(i64::MAX),
            },
            digest: parse_fingerprint(fingerprint),
            text: certificate,
        }))
    }
}

/// A certificate as a proxy tells of it.
#[derive(Debug)]
pub(super) struct Told<'a> {
    pub certificate: ClientCertificate,
    /// Where the proxy has sent one of SHA-256.
    digest: Option<[u8; 32]>,
    /// The certificate itself, where the proxy has sent it.
    text: &'a str,
}

impl Told<'_> {
    /// SHA-256 of its DER. Made here where the proxy sends another, as nginx does, and so only of
    /// certificates that a token is bound to.
    pub(super) fn digest(&self) -> Option<[u8; 32]> {
        let of_text = || {
            let der = parse_der(self.text).filter(|der| !der.is_empty())?;
            digest(&SHA256, &der).as_ref().try_into().ok()
        };
        self.digest.or_else(of_text)
    }
}

/// What the certificate itself says.
fn validity_of(certificate: &str) -> Option<(i64, i64)> {
    let der = parse_der(certificate)?;
    let (_, parsed) = parse_x509_certificate(&der).ok()?;
    let validity = parsed.validity();
    Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
}

/// nginx: `$ssl_client_escaped_cert`. HAProxy: `%[ssl_c_der,base64]`, with colons around it if it
/// follows RFC 9440.
fn parse_der(text: &str) -> Option<Vec<u8>> {
    if let Ok(der) = STANDARD.decode(text.trim_matches(':')) {
        return Some(der);
    }
    let pem: Vec<u8> = percent_decode(text.as_bytes()).collect();
    parse_x509_pem(&pem).ok().map(|(_, pem)| pem.contents)
}

fn plain(text: &str) -> String {
    text.replace(':', "").to_ascii_lowercase()
}

/// `None`: not of SHA-256.
fn parse_fingerprint(text: &str) -> Option<[u8; 32]> {
    super::decode_hex(&plain(text)).or_else(|| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok())
}

/// Seconds since 1970, of any notation that proxies write: `2026-01-15T00:00:00Z` (F5),
/// `Jan 15 00:00:00 2026 GMT` (OpenSSL, so nginx and Apache), `260115000000Z` (HAProxy).
fn parse_date(text: &str) -> Option<i64> {
    if let Ok(date) = OffsetDateTime::parse(text, &Rfc3339) {
        return Some(date.unix_timestamp());
    }
    let utc =
        |date: Date, time: Time| PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp();
    if let Some(digits) = text.strip_suffix('Z') {
        // RFC 5280 section 4.1.2.5: two digits of the year are of 1950 to 2049.
        let (year, rest) = match digits.len() {
            12 => digits.split_at_checked(2)?,
            14 => digits.split_at_checked(4)?,
            _ => return None,
        };
        let year = match (year.len(), number(year)?) {
            (2, year) if year < 50 => 2000 + i32::from(year),
            (2, year) => 1900 + i32::from(year),
            (_, year) => i32::from(year),
        };
        let two =
            |at: usize| number(rest.get(at..at + 2)?).and_then(|number| u8::try_from(number).ok());
        let date = Date::from_calendar_date(year, Month::try_from(two(0)?).ok()?, two(2)?).ok()?;
        return Some(utc(date, Time::from_hms(two(4)?, two(6)?, two(8)?).ok()?));
    }
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let parts: Vec<&str> = text.split_ascii_whitespace().collect();
    let [month, day, time, year, "GMT"] = parts[..] else { return None };
    let month = MONTHS.iter().position(|name| *name == month)? + 1;
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let day = u8::try_from(number(day)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(year)?), month, day).ok()?;
    let parts: Vec<&str> = time.split(':').collect();
    let [hour, minute, second] = parts[..] else { return None };
    let small = |text: &str| number(text).and_then(|number| u8::try_from(number).ok());
    Some(utc(date, Time::from_hms(small(hour)?, small(minute)?, small(second)?).ok()?))
}

/// Digits alone: `parse` takes a sign too.
fn number(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_read_in_every_notation_that_proxies_write() {
        // date -u -d '2026-01-05 06:07:08' +%s
        for text in [
            "2026-01-05T06:07:08Z",
            "2026-01-05T07:07:08+01:00",
            "Jan  5 06:07:08 2026 GMT",
            "260105060708Z",
            "20260105060708Z",
        ] {
            assert_eq!(parse_date(text), Some(1_767_593_228), "{text}");
        }
        assert_eq!(parse_date("500101000000Z"), Some(-631_152_000));
        assert_eq!(parse_date("99991231235959Z"), Some(253_402_300_799));
        for text in [
            "",
            "Z",
            "2026-01-05",
            "Feb 30 00:00:00 2026 GMT",
            "Jan 5 06:07:08 2026",
            "Jan 5 06:07 2026 GMT",
            "261301000000Z",
            "+60105060708Z",
            "26010506070éZ",
            "1767593228",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }

    #[test]
    fn fingerprints_are_read_in_every_notation_and_only_of_sha_256() {
        let digest = [0xab; 32];
        let hex = "ab".repeat(32);
        let colons = ["AB"; 32].join(":");
        let base64 = URL_SAFE_NO_PAD.encode(digest);
        for text in [&hex, &hex.to_uppercase(), &colons, &base64] {
            assert_eq!(parse_fingerprint(text), Some(digest), "{text}");
        }
        for text in ["", &"ab".repeat(20), &"zz".repeat(32), &base64[1..]] {
            assert_eq!(parse_fingerprint(text), None, "{text}");
        }
    }
}
