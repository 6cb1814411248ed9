//! What the agent tells of the requests that it serves.

use std::time::Duration;

use http::Uri;
use regex::{Regex, RegexBuilder};

use super::{
    ConfigError, Values,
    kafka::{KafkaTopics, lacks_kafka},
    parse::{parse_bool, parse_number, parse_size},
};
use crate::telemetry::{snapshots::SnapshotSettings, traces::TraceSettings};

/// As for observations: nothing that was seen is kept for 30 days.
const LONGEST_AGE: u64 = 30 * 86_400 - 1;
const LONGEST_BODY: usize = 64 << 10;
const MOST_PATTERNS: usize = 64;
/// Of one pattern's program.
const LARGEST_PATTERN: usize = 1 << 20;

/// `None`: off.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    pub traces: Option<TraceSettings>,
    /// Traces were asked for, and not where they go.
    pub lacks_endpoint: bool,
    pub has_proxy_metrics: bool,
    pub snapshots: Option<SnapshotSettings>,
    pub kafka: Option<KafkaTopics>,
    /// Metering was asked for, and not where it goes.
    pub lacks_kafka: bool,
}

impl TelemetrySettings {
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        Ok(Self {
            traces: read_traces(values)?,
            // Its documented default is true, so only who says so expects them.
            lacks_endpoint: values.given("otel-endpoint").is_none()
                && values.read("otel-enabled", parse_bool)? == Some(true),
            has_proxy_metrics: values.read("proxy-metrics-enabled", parse_bool)?.unwrap_or(true),
            snapshots: read_snapshots(values)?,
            kafka: KafkaTopics::read(values)?,
            lacks_kafka: lacks_kafka(values)?,
        })
    }
}

fn read_traces(values: &Values) -> Result<Option<TraceSettings>, ConfigError> {
    let flag = |key, default| -> Result<bool, ConfigError> {
        Ok(values.read(key, parse_bool)?.unwrap_or(default))
    };
    let endpoint = values.read("otel-endpoint", parse_endpoint)?;
    let sample_rate = values.read("otel-sample-rate", parse_share)?.unwrap_or(1.0);
    let is_detailed = flag("detailed-tracing", false)?;
    let is_of_proxy = flag("proxy-tracing-enabled", true)?;
    let is_on = flag("otel-enabled", true)?;
    Ok(endpoint.filter(|_| is_on).map(|endpoint| TraceSettings {
        endpoint,
        sample_rate,
        is_detailed,
        is_of_proxy,
    }))
}

/// `HOST:PORT` is a URL without TLS.
fn parse_endpoint(text: &str) -> Result<Uri, String> {
    let wrong = || format!("`{text}` is not a collector's URL, such as http://collector:4317");
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| wrong())?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
        return Err(wrong());
    }
    match uri.path() {
        "" | "/" => Ok(uri),
        _ => Err(format!(
            "`{text}` has a path, as OTLP over HTTP does. Spans are sent by gRPC: give the \
             collector's port for that, mostly 4317, without a path"
        )),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

/// All of them are read where snapshots are off, too: what is wrong is said at once.
fn read_snapshots(values: &Values) -> Result<Option<SnapshotSettings>, ConfigError> {
    let most = values.read("snapshot-max-count", |t| parse_number(t, 1, 10_000))?;
    let age = values.read("snapshot-max-age-secs", |t| parse_number(t, 1, LONGEST_AGE))?;
    let body = values.read("snapshot-body-max-bytes", |t| parse_size(t, 0, LONGEST_BODY))?;
    let patterns = values.read_all("snapshot-extra-pii-patterns", parse_pattern)?;
    if patterns.len() > MOST_PATTERNS {
        return Err(ConfigError::Contradiction(format!(
            "STOA_SNAPSHOT_EXTRA_PII_PATTERNS (--snapshot-extra-pii-patterns) has {} patterns, and \
             at most {MOST_PATTERNS} are applied: join some with `|`",
            patterns.len()
        )));
    }
    let is_on = values.read("snapshot-enabled", parse_bool)?.unwrap_or(false);
    Ok(is_on.then(|| SnapshotSettings {
        most: most.and_then(|n| usize::try_from(n).ok()).unwrap_or(100),
        age: Duration::from_secs(age.unwrap_or(3600)),
        body_bytes: body.unwrap_or(4096),
        patterns,
    }))
}

fn parse_pattern(text: &str) -> Result<Regex, String> {
    let hint = "Patterns are those of the regex crate; in a variable a comma parts them, unless \
                they are a JSON list: [\"a{2,4}\", \"b\"]";
    let pattern = RegexBuilder::new(text).size_limit(LARGEST_PATTERN).build();
    let pattern = pattern.map_err(|error| {
        // The last line says what is wrong, those before it where.
        let error = error.to_string();
        let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
        format!("`{text}` is not a regular expression: {reason}. {hint}")
    })?;
    match pattern.is_match("") {
        false => Ok(pattern),
        true => Err(format!("`{text}` matches nothing at all, and so everywhere. {hint}")),
    }
}
