//! What the agent tells of the requests that it serves.

use std::time::Duration;

use regex::{Regex, RegexBuilder};

use super::{
    ConfigError, Values,
    parse::{parse_bool, parse_number, parse_size},
};
use crate::telemetry::snapshots::SnapshotSettings;

/// As for observations: nothing that was seen is kept for 30 days.
const LONGEST_AGE: u64 = 30 * 86_400 - 1;
const LONGEST_BODY: usize = 64 << 10;
const MOST_PATTERNS: usize = 64;
/// Of one pattern's program.
const LARGEST_PATTERN: usize = 1 << 20;

/// `None`: off.
#[derive(Clone, Debug)]
pub struct TelemetrySettings {
    pub snapshots: Option<SnapshotSettings>,
}

impl TelemetrySettings {
    pub(super) fn read(values: &Values) -> Result<Self, ConfigError> {
        Ok(Self { snapshots: read_snapshots(values)? })
    }
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
