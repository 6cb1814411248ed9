//! `stoactl contracts`: a client of the agent's API.

use std::{io::Write, time::Duration};

use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, body::Bytes, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;

use crate::{Error, Format};

const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_ANSWER: usize = 64 << 20;

pub fn list(server: &str, out: &mut impl Write) -> Result<(), Error> {
    let text = get(server, "/shadow/contracts", "application/json")?;
    let answer: Value = serde_json::from_str(&text)
        .map_err(|e| Error::Server(format!("{server} did not answer as stoa-gateway does: {e}")))?;
    let empty = Vec::new();
    let contracts = answer.get("contracts").and_then(Value::as_array).unwrap_or(&empty);
    let width = contracts.iter().filter_map(|c| c.get("service")?.as_str()).map(str::len).max();
    let width = width.unwrap_or(0).max("SERVICE".len());
    writeln!(out, "{:width$}  {:>10}  {:>10}  READY", "SERVICE", "EXCHANGES", "OPERATIONS")?;
    for contract in contracts {
        let text = |key: &str| contract.get(key).and_then(Value::as_str).unwrap_or("?");
        let number = |key: &str| contract.get(key).and_then(Value::as_u64).unwrap_or(0);
        let ready = contract.get("ready").and_then(Value::as_bool).unwrap_or(false);
        writeln!(
            out,
            "{:width$}  {:>10}  {:>10}  {}",
            text("service"),
            number("exchanges"),
            number("operations"),
            if ready { "yes" } else { "not yet" }
        )?;
    }
    Ok(())
}

pub fn show(server: &str, name: &str, format: Format, out: &mut impl Write) -> Result<(), Error> {
    let accept = match format {
        Format::OpenapiYaml => "application/yaml",
        Format::OpenapiJson => "application/vnd.oai.openapi+json",
        Format::Uac => "application/vnd.gostoa.uac+json",
        Format::Summary => "text/plain",
    };
    let name: String = name.bytes().map(escape_segment).collect();
    write!(out, "{}", get(server, &format!("/shadow/contracts/{name}"), accept)?)?;
    Ok(())
}

/// RFC 3986 section 2.3: unreserved characters stay.
fn escape_segment(byte: u8) -> String {
    match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    }
}

fn get(server: &str, path: &str, accept: &str) -> Result<String, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = async {
        tokio::time::timeout(TIMEOUT, request(server, path, accept)).await.unwrap_or_else(|_| {
            Err(Error::Server(format!("{server} did not answer in {TIMEOUT:?}")))
        })
    };
    runtime.block_on(answer)
}

async fn request(server: &str, path: &str, accept: &str) -> Result<String, Error> {
    let bad = |why: &str| {
        Error::Server(format!(
            "`{server}` is not the URL of an agent ({why}); give --server http://HOST:PORT"
        ))
    };
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let url: http::Uri = url.parse().map_err(|_| bad("it cannot be read"))?;
    if url.scheme_str() != Some("http") {
        return Err(bad("only http"));
    }
    let authority = url.authority().ok_or_else(|| bad("it names no host"))?;
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let port = authority.port_u16().unwrap_or(8083);
    let failed = |e: &dyn std::fmt::Display| {
        Error::Server(format!(
            "no answer from {server}: {e}. Is stoa-gateway running there? Another place is named with --server"
        ))
    };
    let stream = tokio::net::TcpStream::connect((host, port)).await.map_err(|e| failed(&e))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| failed(&e))?;
    let driver = tokio::spawn(connection);
    let request = Request::get(path)
        .header(header::HOST, authority.as_str())
        .header(header::ACCEPT, accept)
        .body(Empty::<Bytes>::new())
        .map_err(|e| failed(&e))?;
    let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await
        .map_err(|e| failed(&e))?
        .to_bytes();
    driver.abort();
    let text = String::from_utf8(body.to_vec())
        .map_err(|_| Error::Server(format!("{server} answered with what is not text")))?;
    if status.is_success() {
        return Ok(text);
    }
    // RFC 9457 problem details, where the agent itself answered.
    let problem: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    let part = |key: &str| problem.get(key).and_then(Value::as_str);
    let detail = part("detail").or(part("title")).unwrap_or("no reason given");
    Err(Error::Server(format!("{server} answered {status}: {detail}")))
}
