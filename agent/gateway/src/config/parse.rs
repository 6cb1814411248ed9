//! Reads values. Errors say what was given and what would be right; the caller adds where.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use stoa_policy::{connection_filter::parse_entry, counters::OnLoss, sources::Sources};

pub fn parse_number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    match text.parse::<u64>() {
        Ok(number) if (least..=most).contains(&number) => Ok(number),
        _ if most == u64::MAX => Err(format!("`{text}` is not a number of {least} or more")),
        _ => Err(format!("`{text}` is not a number from {least} to {most}")),
    }
}

/// A number a second, `100` or `0.5`, in thousandths.
pub fn parse_rate(text: &str) -> Result<u64, String> {
    let number = text.parse::<f64>().ok().filter(|rate| (0.0..=1e6).contains(rate));
    // Truncation cannot happen: it is at most 1e9.
    match number.map(|rate| (rate, (rate * 1000.0).round() as u64)) {
        Some((rate, thousandths)) if (rate > 0.0) == (thousandths > 0) => Ok(thousandths),
        _ => Err(format!("`{text}` is not a number from 0.001 to 1000000, nor 0")),
    }
}

/// Addresses and networks, also several in one text with commas between.
pub fn parse_networks(texts: &[String]) -> Result<Vec<IpNet>, String> {
    let entries = texts.iter().flat_map(|text| text.split(',')).map(str::trim);
    entries.filter(|entry| !entry.is_empty()).map(parse_entry).collect()
}

/// `16384`, `16k`, `16KiB`, `16 MiB`, `1g`: powers of 1024.
pub fn parse_size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = lower.get(digits.len()..).unwrap_or("").trim();
    let factor = match unit {
        "" | "b" => 1_usize,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => return Err(format!("`{text}` is not a size; write for example 16KiB, 8MiB or 1GiB")),
    };
    let size = digits
        .parse::<usize>()
        .ok()
        .and_then(|n| n.checked_mul(factor))
        .ok_or(format!("`{text}` is not a size; write for example 16KiB, 8MiB or 1GiB"))?;
    match (least..=most).contains(&size) {
        true => Ok(size),
        false => Err(format!("`{text}` is not between {least} and {most} bytes")),
    }
}

pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("`{text}` is neither true nor false")),
    }
}

/// What becomes of requests while something that is to judge them does not answer.
pub fn parse_on_loss(text: &str) -> Result<OnLoss, String> {
    match text.to_lowercase().as_str() {
        "open" => Ok(OnLoss::Open),
        "closed" | "close" => Ok(OnLoss::Closed),
        _ => Err(format!("`{text}` is not a fail mode; valid ones: open, closed")),
    }
}

pub fn parse_path(text: &str) -> Result<PathBuf, String> {
    match text {
        "" => Err("the path is empty".to_owned()),
        _ => Ok(PathBuf::from(text)),
    }
}

pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("`{text}` is not an address with a port, such as 127.0.0.1:9083 or [::1]:9083")
    })
}

/// A tenant is a namespace's name (RFC 1123 label).
pub fn parse_tenant(text: &str) -> Result<String, String> {
    let is_valid = (1..=63).contains(&text.len())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    match is_valid && !text.starts_with('-') && !text.ends_with('-') {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is not a tenant's name: use a-z, 0-9 and `-`")),
    }
}

/// Networks in CIDR notation, or single addresses.
pub fn parse_sources(texts: &[String]) -> Result<Sources, String> {
    let texts = texts.iter().map(|text| text.trim()).collect::<Vec<_>>();
    serde_json::from_value(serde_json::json!(texts)).map_err(|e| e.to_string())
}

pub fn parse_log_level(text: &str) -> Result<String, String> {
    tracing_subscriber::EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|e| format!("`{text}` is not a log level or filter ({e}); valid levels: error, warn, info, debug, trace"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_may_have_a_fraction() {
        for (text, thousandths) in
            [("0", 0), ("100.0", 100_000), ("0.5", 500), ("1e6", 10_u64.pow(9))]
        {
            assert_eq!(parse_rate(text), Ok(thousandths), "{text}");
        }
        for text in ["", "-1", "NaN", "inf", "1000001", "0.0001", "1/s"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("16KiB", 0, usize::MAX), Ok(16 << 10));
        assert_eq!(parse_size("8 m", 0, usize::MAX), Ok(8 << 20));
        assert_eq!(parse_size("77", 0, usize::MAX), Ok(77));
        for text in ["", "k", "1.5M", "9999999999999999999999", "-1", "16 furlongs"] {
            assert!(parse_size(text, 0, usize::MAX).is_err(), "{text}");
        }
    }
}
