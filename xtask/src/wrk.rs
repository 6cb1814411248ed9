//! One run of wrk, and what it says.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result};
use sandbox::command;

/// Requests that were answered, and how fast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    pub requests: u64,
    pub per_second: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub errors: u64,
}

/// Saturates `address` for `seconds`: 64 connections, POST with `body`.
pub fn run(address: SocketAddr, seconds: u32, body: &str, dir: &Path) -> Result<Run> {
    let script = dir.join("post.lua");
    fs::write(
        &script,
        format!(
            "wrk.method = \"POST\"\nwrk.body = [==[{body}]==]\n\
             wrk.headers[\"Content-Type\"] = \"application/json\"\n"
        ),
    )?;
    let said = command::run(
        Command::new("wrk")
            .args(["-t1", "-c64", "--latency", &format!("-d{seconds}s"), "-s"])
            .arg(&script)
            .arg(format!("http://{address}/bench")),
    )?;
    parse(&said).with_context(|| format!("wrk said something else:\n{said}"))
}

/// Saturates `address` for `seconds` with GETs of `path`; `headers` are lines of each.
pub fn get(
    address: SocketAddr,
    path: &str,
    connections: u32,
    seconds: u32,
    headers: &[&str],
) -> Result<Run> {
    let mut wrk = Command::new("wrk");
    wrk.args(["-t1", "--latency", &format!("-c{connections}"), &format!("-d{seconds}s")]);
    for header in headers {
        wrk.args(["-H", header]);
    }
    let said = command::run(wrk.arg(format!("http://{address}{path}")))?;
    parse(&said).with_context(|| format!("wrk said something else:\n{said}"))
}

/// The same, with a connection for each request.
pub fn get_anew(address: SocketAddr, path: &str, connections: u32, seconds: u32) -> Result<Run> {
    get(address, path, connections, seconds, &["Connection: close"])
}

fn parse(said: &str) -> Option<Run> {
    let mut run = Run { requests: 0, per_second: 0.0, p50_ms: 0.0, p99_ms: 0.0, errors: 0 };
    for line in said.lines().map(str::trim) {
        if let Some((requests, _)) = line.split_once(" requests in ") {
            run.requests = requests.trim().parse().ok()?;
        } else if let Some(rate) = line.strip_prefix("Requests/sec:") {
            run.per_second = rate.trim().parse().ok()?;
        } else if let Some(time) = line.strip_prefix("50%") {
            run.p50_ms = milliseconds(time.trim())?;
        } else if let Some(time) = line.strip_prefix("99%") {
            run.p99_ms = milliseconds(time.trim())?;
        } else if let Some(errors) = line.strip_prefix("Socket errors:") {
            let numbers = errors.split([' ', ',']).filter_map(|word| word.parse::<u64>().ok());
            run.errors += numbers.sum::<u64>();
        } else if let Some(errors) = line.strip_prefix("Non-2xx or 3xx responses:") {
            run.errors += errors.trim().parse::<u64>().ok()?;
        }
    }
    (run.requests > 0 && run.per_second > 0.0).then_some(run)
}

fn milliseconds(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 0.001)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1.0)
    } else {
        (text.strip_suffix('s')?, 1000.0)
    };
    Some(number.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_read() {
        let said = "  Latency Distribution\n     50%  450.00us\n     99%    1.20ms\n  \
                    300123 requests in 5.00s, 50.1MB read\n  \
                    Socket errors: connect 0, read 2, write 0, timeout 1\n\
                    Requests/sec:  60024.60\nTransfer/sec: 10MB\n";
        let run = parse(said).unwrap();
        assert_eq!((run.requests, run.errors), (300_123, 3));
        assert_eq!((run.per_second, run.p50_ms, run.p99_ms), (60024.60, 0.45, 1.2));
        assert_eq!(parse("unable to connect"), None);
    }
}
