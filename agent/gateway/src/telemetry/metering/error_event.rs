//! An error snapshot as it goes to Kafka: the metering event of the request, and what went wrong.
//! It has no headers and no bodies; what it has was masked.

use std::{
    fs,
    sync::LazyLock,
    time::{Instant, SystemTime},
};

use serde::Serialize;

use super::event::{Document, Event, unix_milliseconds};
use crate::telemetry::kafka::Message;

/// Written already.
pub struct ErrorEvent {
    key: String,
    at: SystemTime,
    json: Vec<u8>,
}

/// Of a snapshot, masked.
pub struct Shown<'a> {
    pub request_id: &'a str,
    pub user_id: Option<&'a str>,
    pub method: &'a str,
    pub path: &'a str,
    pub category: &'static str,
    /// Of this build; `None`: the answer was the upstream's own.
    pub code: Option<&'static str>,
    pub status: u16,
}

/// What the agent is like when it happens. How many sessions there are is edge-mcp's to say.
#[derive(Serialize)]
struct State {
    uptime_secs: u64,
    /// Subjects of rate limits, where the mode has any.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limit_buckets: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    #[serde(flatten)]
    event: Document<'a>,
    error_type: &'static str,
    error_message: &'a str,
    request_path: &'a str,
    request_method: &'a str,
    gateway_state: State,
}

impl ErrorEvent {
    pub fn new(event: &Event, shown: &Shown<'_>, rate_limit_buckets: Option<u64>) -> Self {
        let message = match shown.code {
            Some(code) => code.to_owned(),
            None => format!("the upstream answered {}", shown.status),
        };
        let mut document = event.document();
        document.request_id = Some(shown.request_id);
        document.user_id = shown.user_id;
        // Where errors are looked at, nobody is billed.
        document.user_email = None;
        let document = ErrorDocument {
            event: document,
            error_type: shown.category,
            error_message: &message,
            request_path: shown.path,
            request_method: shown.method,
            gateway_state: State {
                uptime_secs: START.elapsed().as_secs(),
                rate_limit_buckets,
                memory_rss_bytes: resident(),
            },
        };
        let json = serde_json::to_vec(&document).unwrap_or_default();
        Self { key: event.tenant.to_string(), at: event.at, json }
    }
}

impl Message for ErrorEvent {
    fn key(&self) -> &str {
        &self.key
    }

    fn timestamp(&self) -> i64 {
        unix_milliseconds(self.at)
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.json);
    }
}

/// Read first when snapshots are started.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Uptime counts from here.
pub fn start_clock() {
    LazyLock::force(&START);
}

/// proc_pid_statm(5): its second number is in pages.
fn resident() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = pages.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::metering::event::tests::{event, read};

    #[test]
    fn it_is_the_event_and_what_went_wrong() {
        let shown = Shown {
            request_id: "r-2",
            user_id: None,
            method: "POST",
            path: "/orders/[EMAIL]",
            category: "backend",
            code: None,
            status: 503,
        };
        let event = Event { shows_email: true, ..event() };
        let read = read(&ErrorEvent::new(&event, &shown, Some(3)));
        for (name, value) in [
            ("tenant_id", "acme"),
            ("tool_name", "orders"),
            ("error_type", "backend"),
            ("error_message", "the upstream answered 503"),
            ("request_path", "/orders/[EMAIL]"),
            ("request_method", "POST"),
            ("request_id", "r-2"),
        ] {
            assert_eq!(read[name], value, "{name}");
        }
        assert_eq!(read["gateway_state"]["rate_limit_buckets"], 3);
        assert!(read["gateway_state"]["memory_rss_bytes"].as_u64().unwrap() > 1 << 20);
        assert!(read.get("user_id").is_none() && read.get("user_email").is_none(), "{read}");
    }
}
