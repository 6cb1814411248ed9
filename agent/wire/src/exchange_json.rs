//! One JSON object per exchange, without any content: for `stoactl exchanges --json`.

use serde_json::{Map, Value, json};

use crate::{
    exchange::{Body, Exchange, Message},
    segment::Nanos,
};

/// `service`: the name shown for the service. Times are RFC 3339 in UTC; durations are seconds.
/// Header names keep their case and order; header values and bodies are left out.
pub fn to_json(exchange: &Exchange, service: &str) -> Value {
    let request = exchange.request.as_ref();
    let response = exchange.response.as_ref();
    let lost: Map<String, Value> =
        exchange.lost.iter().map(|(reason, bytes)| (reason.name().into(), json!(bytes))).collect();
    let duration = exchange.ended.saturating_sub(exchange.started) as f64 / 1e9;
    json!({
        "connection": {
            "client": exchange.endpoints.client.to_string(),
            "server": exchange.endpoints.server.to_string(),
            "flow": format!("{:016x}", exchange.flow.0),
        },
        "service": service,
        "started": rfc3339(exchange.started),
        "duration": duration,
        "method": request.map(|r| r.method()),
        "target": request.map(|r| String::from_utf8_lossy(r.target())),
        "status": response.map(|r| r.status),
        "interim": exchange.interim,
        "request_headers": request.map(|r| names(&r.message)),
        "response_headers": response.map(|r| names(&r.message)),
        "request_body": request.map(|r| body(&r.message.body)),
        "response_body": response.map(|r| body(&r.message.body)),
        "complete": exchange.is_complete(),
        "incomplete": exchange.incomplete.iter().map(|r| r.name()).collect::<Vec<_>>(),
        "bytes_lost": exchange.bytes_lost(),
        "lost": lost,
    })
}

fn names(message: &Message) -> Vec<&str> {
    message.headers().map(|(name, _)| name).collect()
}

fn body(body: &Body) -> Value {
    json!({
        "length": body.length,
        "sha256": body.sha256.map(hex),
        "decoded_length": body.decoded_length,
        "decoded_sha256": body.decoded_sha256.map(hex),
        "codings": body.codings.iter().map(|c| c.name()).collect::<Vec<_>>(),
        "partial": body.partial.map(|p| p.name()),
    })
}

fn hex(digest: [u8; 32]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// `2026-11-20T14:15:17.000000001Z`.
pub fn rfc3339(at: Nanos) -> String {
    let (seconds, nanos) = (at / 1_000_000_000, at % 1_000_000_000);
    let (year, month, day) = civil(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar: years are
/// counted from March, so that the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn epoch() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000000000Z");
    }

    #[test]
    fn leap_day() {
        assert_eq!(rfc3339(1_709_164_800_000_000_001), "2024-02-29T00:00:00.000000001Z");
    }

    #[test]
    fn last_second_of_a_century() {
        assert_eq!(rfc3339(4_102_444_799_999_999_999), "2099-12-31T23:59:59.999999999Z");
    }
}
