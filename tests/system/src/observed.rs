//! What the agent captured, as `stoactl exchanges FILE --json` lists it, held against what was
//! sent.

use std::{collections::HashSet, path::Path, process::Command};

use anyhow::{Context, Result};
use sandbox::command;
use serde_json::Value;

use crate::markers::{Ledger, Sent};

/// One captured exchange.
#[derive(Clone, Debug)]
pub struct Observed {
    pub method: Option<String>,
    pub target: Option<String>,
    pub status: Option<u64>,
    pub request: Option<ObservedBody>,
    pub response: Option<ObservedBody>,
    pub is_complete: bool,
    pub reasons: Vec<String>,
    pub bytes_lost: u64,
}

#[derive(Clone, Debug)]
pub struct ObservedBody {
    pub length: Option<u64>,
    pub sha256: Option<String>,
}

/// How captured and sent traffic compare.
#[derive(Debug, Default)]
pub struct Verdict {
    pub sent: usize,
    /// Captured from the first to the last byte, and all of it right.
    pub whole: usize,
    /// Captured in part, and said so, with a reason.
    pub partial: usize,
    /// Of those, the ones that only miss what the budget left out on purpose.
    pub over_budget: usize,
    /// Not in the capture at all.
    pub missing: usize,
    /// Paired or read wrongly. Must be none.
    pub wrong: Vec<String>,
}

/// Reads the exchanges of a recording.
pub fn exchanges(recording: &Path) -> Result<Vec<Observed>> {
    let lines = command::run(
        Command::new(sandbox::binaries()?.join("stoactl"))
            .arg("exchanges")
            .arg(recording)
            .arg("--json"),
    )?;
    lines
        .lines()
        .map(|line| {
            let value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
            Ok(Observed::read(&value))
        })
        .collect()
}

impl Observed {
    fn read(value: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let body = |body: &Value| {
            body.is_object().then(|| ObservedBody {
                length: body["decoded_length"].as_u64().or_else(|| body["length"].as_u64()),
                sha256: text(&body["decoded_sha256"]).or_else(|| text(&body["sha256"])),
            })
        };
        Self {
            method: text(&value["method"]),
            target: text(&value["target"]),
            status: value["status"].as_u64(),
            request: body(&value["request_body"]),
            response: body(&value["response_body"]),
            is_complete: value["complete"].as_bool().unwrap_or(false),
            reasons: value["incomplete"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|reason| reason.as_str().map(str::to_owned))
                .collect(),
            bytes_lost: value["bytes_lost"].as_u64().unwrap_or(0),
        }
    }

    /// What of this contradicts what was sent.
    fn contradiction(&self, sent: &Sent) -> Option<String> {
        if self.method.as_deref() != Some(sent.method) {
            return Some(format!("method {:?} for {}", self.method, sent.method));
        }
        if self.status.is_some_and(|status| status != u64::from(sent.status)) {
            return Some(format!("status {:?} for {}", self.status, sent.status));
        }
        let sides = [
            ("request", &self.request, sent.request_length, &sent.request_sha256),
            ("response", &self.response, sent.response_length, &sent.response_sha256),
        ];
        for (side, body, length, sha256) in sides {
            let Some(body) = body else {
                if self.is_complete {
                    return Some(format!("complete without a {side}"));
                }
                continue;
            };
            if body.sha256.as_ref().is_some_and(|seen| seen != sha256) {
                return Some(format!("another {side} body"));
            }
            if self.is_complete && body.sha256.is_none() && length > 0 {
                return Some(format!("complete without a digest of the {side} body"));
            }
            if self.is_complete && body.length != Some(length) {
                return Some(format!("{side} length {:?} for {length}", body.length));
            }
        }
        if !self.is_complete && self.reasons.is_empty() {
            return Some("incomplete without a reason".to_owned());
        }
        None
    }
}

impl Verdict {
    pub fn of(ledger: &Ledger, observed: &[Observed]) -> Self {
        let mut verdict = Self { sent: ledger.len(), ..Self::default() };
        let mut seen = HashSet::new();
        for exchange in observed {
            let Some(target) = &exchange.target else {
                // Only a response was seen; its request is among the missing.
                if exchange.is_complete {
                    verdict.wrong.push("complete without a request".to_owned());
                }
                continue;
            };
            let Some(sent) = ledger.get(target) else {
                verdict.wrong.push(format!("{target} was never sent"));
                continue;
            };
            if !seen.insert(target.as_str()) {
                verdict.wrong.push(format!("{target} was captured twice"));
                continue;
            }
            if let Some(reason) = exchange.contradiction(sent) {
                verdict.wrong.push(format!("{target}: {reason}"));
            } else if exchange.is_complete {
                verdict.whole += 1;
            } else {
                verdict.partial += 1;
                let is_truncated = |reason: &String| reason.ends_with("body-truncated");
                if exchange.reasons.iter().all(is_truncated) {
                    verdict.over_budget += 1;
                }
            }
        }
        verdict.missing = ledger.keys().filter(|target| !seen.contains(target.as_str())).count();
        verdict
    }

    /// Share of what was sent that was captured and rightly read; truncation on purpose counts as
    /// captured.
    pub fn captured(&self) -> f64 {
        (self.whole + self.over_budget) as f64 / self.sent.max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::markers::sha256;

    fn ledger() -> Ledger {
        let sent = |response: &[u8]| Sent {
            method: "GET",
            status: 200,
            request_length: 0,
            request_sha256: sha256(b""),
            response_length: response.len() as u64,
            response_sha256: sha256(response),
        };
        [("/1".to_owned(), sent(b"one")), ("/2".to_owned(), sent(b"two"))].into()
    }

    fn line(target: &str, response: &[u8], complete: bool) -> Observed {
        let body = |bytes: &[u8]| json!({"length": bytes.len(), "sha256": sha256(bytes)});
        let reasons = if complete { json!([]) } else { json!(["response-body-truncated"]) };
        Observed::read(&json!({
            "method": "GET", "target": target, "status": 200, "complete": complete,
            "request_body": body(b""), "response_body": body(response),
            "incomplete": reasons,
        }))
    }

    #[test]
    fn what_was_captured_right_is_whole() {
        let verdict = Verdict::of(&ledger(), &[line("/1", b"one", true), line("/2", b"two", true)]);
        assert!(verdict.wrong.is_empty(), "{verdict:?}");
        assert_eq!((verdict.whole, verdict.missing, verdict.captured()), (2, 0, 1.0));
    }

    #[test]
    fn responses_given_to_the_wrong_request_are_found() {
        let verdict = Verdict::of(&ledger(), &[line("/1", b"two", true), line("/2", b"one", true)]);
        assert_eq!(verdict.wrong.len(), 2);
    }

    #[test]
    fn duplicates_strangers_and_gaps_are_found() {
        let twice = [line("/1", b"one", true), line("/1", b"one", true), line("/3", b"", true)];
        let verdict = Verdict::of(&ledger(), &twice);
        assert_eq!((verdict.wrong.len(), verdict.missing, verdict.whole), (2, 1, 1));
    }
}
