//! The policies' numbers in Prometheus' text format, for every mode that enforces them. Labels are
//! policies and reasons of this build, and upstreams of the configuration: never a tenant or a
//! consumer, of whom there is no end.

use std::{fmt::Write as _, sync::atomic::Ordering::Relaxed};

use stoa_policy::{
    circuit_breaker::State,
    decision::PolicyKind,
    moment::Moment,
    outside::{CertificateTally, Proofs},
};

use super::{
    policy_tally::{PolicyTotals, Said},
    proxy_metrics::{escape, header},
};
use crate::enforcement::Enforcement;

/// Appends to the text format, version 0.0.4.
pub fn render(text: &mut String, totals: &PolicyTotals, enforcement: &Enforcement) {
    decisions(text, totals);
    counters(text, enforcement);
    breakers(text, enforcement);
}

/// What was decided, and how long it took.
pub fn decisions(text: &mut String, totals: &PolicyTotals) {
    let name = "stoa_policy_duration_seconds";
    header(text, name, "summary", "Time in each policy; its count is how often the policy ran");
    for (policy, (runs, nanoseconds)) in PolicyKind::ALL.iter().zip(totals.ran) {
        if runs > 0 {
            let policy = policy.name();
            let seconds = nanoseconds as f64 / 1e9;
            let _ = writeln!(text, "{name}_sum{{policy=\"{policy}\"}} {seconds}");
            let _ = writeln!(text, "{name}_count{{policy=\"{policy}\"}} {runs}");
        }
    }
    for (said, name, help) in [
        (Said::Denial, "stoa_policy_denials_total", "Messages that a policy refused, by reason"),
        (Said::Note, "stoa_policy_notes_total", "What policies saw and let pass, by reason"),
    ] {
        header(text, name, "counter", help);
        for ((_, policy, code), count) in totals.codes.iter().filter(|(key, _)| key.0 == said) {
            let policy = policy.name();
            let _ = writeln!(text, "{name}{{policy=\"{policy}\",code=\"{code}\"}} {count}");
        }
    }
}

fn counters(text: &mut String, enforcement: &Enforcement) {
    let Enforcement { outside, redis, opa, quotas } = enforcement;
    let mut one = |name, kind, help, value: u64| {
        header(text, name, kind, help);
        let _ = writeln!(text, "{name} {value}");
    };
    one(
        "stoa_rate_limit_buckets",
        "gauge",
        "Subjects of rate limits that are counted here",
        outside.limits.used(),
    );
    one(
        "stoa_rate_limit_evicted_total",
        "counter",
        "Subjects of rate limits that were forgotten for want of room",
        outside.limits.evicted(),
    );
    one(
        "stoa_quota_counters",
        "gauge",
        "Subjects of quotas that are counted here",
        outside.quotas.used(),
    );
    one(
        "stoa_quota_evicted_total",
        "counter",
        "Subjects of quotas that were forgotten for want of room",
        outside.quotas.evicted(),
    );
    one(
        "stoa_quota_store_writes_total",
        "counter",
        "Times that quota counts were written to disk",
        quotas.writes(),
    );
    one(
        "stoa_quota_store_failures_total",
        "counter",
        "Times that quota counts could not be written to disk",
        quotas.failures(),
    );
    if let Some(redis) = redis {
        let is_up = u64::from(redis.is_answering());
        one("stoa_redis_up", "gauge", "1 while Redis answers", is_up);
        one("stoa_redis_losses_total", "counter", "Times it stopped answering", redis.losses());
        one(
            "stoa_redis_unanswered_total",
            "counter",
            "Limits and quotas that went by what is configured for its loss",
            redis.unanswered(),
        );
    }
    if let Some(opa) = opa {
        one("stoa_opa_up", "gauge", "0 after a failed question", u64::from(!opa.is_failing()));
        one("stoa_opa_failures_total", "counter", "Questions it did not answer", opa.failures());
    }
    certificates(text, &outside.certificates);
    proofs(text, &outside.proofs);
}

fn certificates(text: &mut String, tally: &CertificateTally) {
    let validations =
        [("success", &tally.validated), ("no_cert", &tally.missing), ("invalid", &tally.invalid)];
    let bindings =
        [("match", &tally.bound), ("mismatch", &tally.mismatched), ("denied", &tally.unbound)];
    for (name, help, results) in [
        (
            "stoa_mtls_validations_total",
            "Requests to policies with client certificates, by what they showed",
            validations,
        ),
        (
            "stoa_mtls_binding_checks_total",
            "Tokens that are, or should be, bound to a client certificate",
            bindings,
        ),
    ] {
        header(text, name, "counter", help);
        for (result, count) in results {
            let _ = writeln!(text, "{name}{{result=\"{result}\"}} {}", count.load(Relaxed));
        }
    }
}

fn proofs(text: &mut String, proofs: &Proofs) {
    let [accepted, refused, replayed, forgotten] =
        [&proofs.accepted, &proofs.refused, &proofs.replayed, &proofs.forgotten]
            .map(|count| count.load(Relaxed));
    let name = "stoa_dpop_validations_total";
    header(text, name, "counter", "Proofs of possession that tokens came with, or should have");
    let invalid = refused.saturating_sub(replayed);
    for (result, count) in [("success", accepted), ("invalid", invalid), ("replayed", replayed)] {
        let _ = writeln!(text, "{name}{{result=\"{result}\"}} {count}");
    }
    let name = "stoa_dpop_forgotten_total";
    header(
        text,
        name,
        "counter",
        "Proofs forgotten for want of room, before they could have ended",
    );
    let _ = writeln!(text, "{name} {forgotten}");
}

fn breakers(text: &mut String, enforcement: &Enforcement) {
    let all = enforcement.outside.breakers.all();
    if all.is_empty() {
        return;
    }
    let name = "stoa_circuit_breaker_state";
    header(text, name, "gauge", "0 closed, 1 open, 2 half open, by upstream");
    for breaker in &all {
        let state = match breaker.state() {
            State::Closed => 0,
            State::Open => 1,
            State::HalfOpen => 2,
        };
        let _ = writeln!(text, "{name}{{upstream=\"{}\"}} {state}", escape(breaker.name()));
    }
    let name = "stoa_circuit_breaker_rejected_total";
    header(text, name, "counter", "Requests that were refused because it was open");
    for breaker in &all {
        let rejected = breaker.stats(Moment::read()).rejected_count;
        let _ = writeln!(text, "{name}{{upstream=\"{}\"}} {rejected}", escape(breaker.name()));
    }
    let name = "stoa_circuit_breaker_trips_total";
    header(text, name, "counter", "Times that it opened, by reason");
    for breaker in &all {
        let upstream = escape(breaker.name());
        for (reason, trips) in breaker.trips() {
            let _ = writeln!(text, "{name}{{upstream=\"{upstream}\",reason=\"{reason}\"}} {trips}");
        }
    }
}
