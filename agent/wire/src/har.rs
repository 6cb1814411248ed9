//! HAR 1.2 files (HTTP Archive): exchanges as a browser or proxy saved them.

use std::{
    collections::HashMap,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use bytes::Bytes;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::{
    exchange::{Body, Exchange, Incomplete, Partial, Request, Response},
    http1::head::{self, Parsed},
    packet_file::Error,
    reader::ReaderConfig,
    segment::{Endpoints, FlowId, Nanos},
};

/// A HAR file is one JSON document, so it is read as a whole.
const LONGEST_FILE: u64 = 1 << 30;

/// What a HAR file held.
#[derive(Clone, Debug, Default)]
pub struct HarSummary {
    pub entries: u64,
    /// Entries without a usable request.
    pub skipped: u64,
    /// `scheme://host:port` behind each `Endpoints::service` number.
    pub services: Vec<String>,
}

#[derive(Deserialize)]
struct Har {
    log: Log,
}

#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    entries: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    started_date_time: String,
    #[serde(default)]
    time: Option<f64>,
    request: HarRequest,
    #[serde(default)]
    response: Option<HarResponse>,
    #[serde(default, rename = "serverIPAddress")]
    server_ip_address: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarRequest {
    method: String,
    url: String,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    post_data: Option<PostData>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HarResponse {
    #[serde(default)]
    status: i64,
    #[serde(default)]
    status_text: Option<String>,
    #[serde(default)]
    headers: Vec<Pair>,
    #[serde(default)]
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Content {
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    mime_type: Option<String>,
    #[serde(default)]
    size: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PostData {
    #[serde(default)]
    mime_type: Option<String>,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    encoding: Option<String>,
    #[serde(default)]
    params: Vec<Pair>,
}

#[derive(Deserialize)]
struct Pair {
    name: String,
    #[serde(default)]
    value: Option<String>,
}

/// Reads a HAR file. Bodies in it are already content-decoded.
pub fn read_har(
    reader: impl Read,
    config: ReaderConfig,
    sink: &mut dyn FnMut(Exchange),
) -> Result<HarSummary, Error> {
    let mut text = Vec::new();
    reader.take(LONGEST_FILE + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LONGEST_FILE {
        return Err(Error::NotAHar("it is longer than 1 GiB".into()));
    }
    if text.is_empty() {
        return Err(Error::Empty);
    }
    // Some exporters write a byte order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let har: Har = serde_json::from_slice(text).map_err(|e| Error::NotAHar(e.to_string()))?;
    let mut summary = HarSummary::default();
    let mut services = HashMap::new();
    for (index, value) in har.log.entries.into_iter().enumerate() {
        summary.entries += 1;
        let exchange = serde_json::from_value(value).ok().and_then(|entry| {
            read_entry(entry, index as u64, &config, &mut services, &mut summary)
        });
        match exchange {
            Some(exchange) => sink(exchange),
            None => summary.skipped += 1,
        }
    }
    Ok(summary)
}

fn read_entry(
    entry: Entry,
    index: u64,
    config: &ReaderConfig,
    services: &mut HashMap<String, u32>,
    summary: &mut HarSummary,
) -> Option<Exchange> {
    let url = Url::parse(&entry.request.url)?;
    let name = format!("{}://{}:{}", url.scheme, url.host, url.port);
    let service = *services.entry(name.clone()).or_insert_with(|| {
        summary.services.push(name);
        summary.services.len() as u32 - 1
    });
    let ip = entry.server_ip_address.as_deref().unwrap_or(url.host);
    let ip: IpAddr =
        ip.trim_matches(['[', ']']).parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let endpoints = Endpoints {
        client: SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
        server: SocketAddr::new(ip, url.port),
        service,
    };
    let started = parse_rfc3339(&entry.started_date_time).unwrap_or(0);
    let millis = entry.time.filter(|t| t.is_finite() && *t > 0.0).unwrap_or(0.0);
    let request = read_request(&entry.request, &url, config)?;
    let response = entry.response.and_then(|r| read_response(&r, config));
    let mut incomplete = Vec::new();
    if request.message.body.partial.is_some() {
        incomplete.push(Incomplete::RequestBodyTruncated);
    }
    match &response {
        None => incomplete.push(Incomplete::ResponseMissing),
        Some(r) if r.message.body.partial == Some(Partial::Cut) => {
            incomplete.push(Incomplete::ResponseBodyTruncated);
        }
        Some(_) => {}
    }
    Some(Exchange {
        flow: FlowId(index),
        endpoints,
        started,
        ended: started.saturating_add((millis * 1e6) as u64),
        request: Some(request),
        response,
        interim: Vec::new(),
        incomplete,
        lost: Vec::new(),
    })
}

fn read_request(har: &HarRequest, url: &Url<'_>, config: &ReaderConfig) -> Option<Request> {
    let target =
        if url.target.is_empty() { "/".to_owned() } else { url.target.replace(' ', "%20") };
    let target = if target.starts_with('?') { format!("/{target}") } else { target };
    let mut lines = format!("{} {target} HTTP/1.1\r\n", har.method);
    let has_host = har.headers.iter().any(|h| h.name.eq_ignore_ascii_case("host"));
    if !has_host {
        push_line(&mut lines, "Host", url.authority);
    }
    let media = har.post_data.as_ref().and_then(|p| p.mime_type.as_deref());
    push_lines(&mut lines, &har.headers, media);
    let Parsed::Whole(request, _) = head::parse_request(lines.as_bytes()) else { return None };
    let mut request = request.with_body(Body::default());
    if let Some(post) = &har.post_data {
        let bytes = match (&post.text, post.params.is_empty()) {
            (Some(text), _) => decode(text, post.encoding.as_deref())?,
            (None, false) => form(&post.params).into_bytes(),
            (None, true) => Vec::new(),
        };
        request.message.body = body(bytes, config);
    } else {
        request.message.body = body(Vec::new(), config);
    }
    Some(request)
}

/// `None` where the browser had no response (blocked, failed: status 0).
fn read_response(har: &HarResponse, config: &ReaderConfig) -> Option<Response> {
    let status = u16::try_from(har.status).ok().filter(|s| (100..1000).contains(s))?;
    let text = har.status_text.as_deref().unwrap_or("");
    let is_plain = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let mut lines = format!("HTTP/1.1 {status} {}\r\n", if is_plain { text } else { "" });
    let content = har.content.as_ref();
    push_lines(&mut lines, &har.headers, content.and_then(|c| c.mime_type.as_deref()));
    let Parsed::Whole(response, _) = head::parse_response(lines.as_bytes()) else {
        return None;
    };
    let mut response = response.with_body(Body::default());
    let text = content.and_then(|c| c.text.as_deref());
    let bytes = text.map(|t| decode(t, content.and_then(|c| c.encoding.as_deref())));
    response.message.body = match bytes {
        Some(Some(bytes)) => body(bytes, config),
        // A size without the text: the exporter left the body out.
        _ => {
            let size =
                content.and_then(|c| c.size).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            let mut body = body(Vec::new(), config);
            if size > 0 {
                body = Body { length: size, partial: Some(Partial::Cut), ..Body::default() };
            }
            body
        }
    };
    Some(response)
}

fn body(mut bytes: Vec<u8>, config: &ReaderConfig) -> Body {
    let digest = config.hash_bodies.then(|| Sha256::digest(&bytes).into());
    let length = bytes.len() as u64;
    let is_long = bytes.len() > config.body_limit;
    bytes.truncate(config.body_limit);
    Body {
        length,
        // What was sent before content coding is not in the file.
        sha256: digest,
        codings: Vec::new(),
        content: Bytes::from(bytes),
        decoded_length: Some(length),
        decoded_sha256: digest,
        partial: is_long.then_some(Partial::Limit),
    }
}

/// Pseudo headers of HTTP/2 and what describes a transfer that is no more are left out.
fn push_lines(lines: &mut String, headers: &[Pair], media_type: Option<&str>) {
    let mut has_type = false;
    for header in headers {
        let is_transfer = ["content-length", "transfer-encoding", "content-encoding"]
            .iter()
            .any(|name| header.name.eq_ignore_ascii_case(name));
        has_type |= header.name.eq_ignore_ascii_case("content-type");
        if !is_transfer && !header.name.starts_with(':') {
            // Browsers join repeated fields with line feeds.
            for value in header.value.as_deref().unwrap_or("").split('\n') {
                push_line(lines, &header.name, value);
            }
        }
    }
    if let Some(media_type) = media_type.filter(|m| !has_type && !m.is_empty() && *m != "x-unknown")
    {
        push_line(lines, "Content-Type", media_type);
    }
    lines.push_str("\r\n");
}

fn push_line(lines: &mut String, name: &str, value: &str) {
    let is_token = !name.is_empty()
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    let value: String = value.chars().filter(|c| !c.is_control() || *c == '\t').collect();
    if is_token {
        lines.push_str(&format!("{name}: {}\r\n", value.trim()));
    }
}

fn form(params: &[Pair]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|b| match b {
                b' ' => "+".to_owned(),
                b if b.is_ascii_alphanumeric() || b"-._*".contains(&b) => char::from(b).to_string(),
                b => format!("%{b:02X}"),
            })
            .collect()
    };
    let pairs = params
        .iter()
        .map(|p| format!("{}={}", encode(&p.name), encode(p.value.as_deref().unwrap_or(""))));
    pairs.collect::<Vec<_>>().join("&")
}

fn decode(text: &str, encoding: Option<&str>) -> Option<Vec<u8>> {
    match encoding {
        Some(e) if e.eq_ignore_ascii_case("base64") => decode_base64(text),
        _ => Some(text.as_bytes().to_vec()),
    }
}

/// RFC 4648 section 4; white space is passed over.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace()) {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' => break,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push((bits >> count) as u8);
        }
    }
    Some(out)
}

struct Url<'a> {
    scheme: &'a str,
    authority: &'a str,
    host: &'a str,
    port: u16,
    /// Path and query.
    target: &'a str,
}

impl<'a> Url<'a> {
    fn parse(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let default = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => return None,
        };
        let rest = rest.split('#').next()?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at_checked(end)?;
        let authority = authority.rsplit('@').next()?;
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
            _ => (authority, default),
        };
        (!host.is_empty()).then_some(Self { scheme, authority, host, port, target })
    }
}

/// `2026-11-20T14:15:17.123+01:00`.
fn parse_rfc3339(text: &str) -> Option<Nanos> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut nanos = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let n = fraction.bytes().take_while(u8::is_ascii_digit).count();
        let digits = fraction.get(..n.min(9))?;
        nanos = format!("{digits:0<9}").parse::<u64>().ok()?;
        rest = fraction.get(n..)?;
    }
    let offset = match rest.as_bytes() {
        [sign @ (b'+' | b'-'), ..] => {
            let hours: i64 = rest.get(1..3)?.parse().ok()?;
            let minutes: i64 = rest.get(rest.len().checked_sub(2)?..)?.parse().ok()?;
            (hours * 3600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => 0,
    };
    // Days from years counted from March, so that the leap day is the last one.
    let y = if month <= 2 { year - 1 } else { year };
    let shifted = (month + 9) % 12;
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * shifted + 2) / 5 + day - 1;
    let seconds = (days.checked_sub(719_468)? * 86_400 + hour * 3600 + minute * 60 + second) as i64;
    u64::try_from(seconds - offset).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

#[cfg(test)]
#[path = "har_tests.rs"]
mod tests;
