//! Who may use the admin API, and how often.

use std::{
    fmt::Write as _,
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use http::{HeaderMap, StatusCode, header};
use stoa_policy::{
    counter_table::CounterTable,
    counters::network_of,
    gcra::{Answer, Rate},
    moment::Moment,
};

use super::token::AdminToken;
use crate::{http::problem::Problem, telemetry::proxy_metrics};

/// Addresses that are remembered.
const ADDRESSES: usize = 4096;

/// Why nobody is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No token is configured.
    Off,
    Unauthorized,
    /// From this address came too many requests, or too many wrong tokens.
    Limited(Duration),
}

#[derive(Debug)]
pub struct Gate {
    token: Option<AdminToken>,
    requests: Rate,
    failures: Rate,
    /// Of each address: its requests, and its wrong tokens.
    seen: CounterTable<2>,
    admitted: AtomicU64,
    off: AtomicU64,
    unauthorized: AtomicU64,
    limited: AtomicU64,
}

impl Gate {
    pub fn new(token: Option<AdminToken>) -> Self {
        Self {
            token,
            // A control plane that puts everything anew needs many at once.
            requests: Rate::new(1200, 60, 600),
            failures: Rate::new(10, 60, 10),
            seen: CounterTable::new(ADDRESSES),
            admitted: AtomicU64::new(0),
            off: AtomicU64::new(0),
            unauthorized: AtomicU64::new(0),
            limited: AtomicU64::new(0),
        }
    }

    /// Asked before anything of the request is looked at but its head.
    pub fn admit(&self, headers: &HeaderMap, from: IpAddr, now: Moment) -> Result<(), Refusal> {
        let answer = self.ask(headers, from, now.monotonic);
        let counter = match answer {
            Ok(()) => &self.admitted,
            Err(Refusal::Off) => &self.off,
            Err(Refusal::Unauthorized) => &self.unauthorized,
            Err(Refusal::Limited(_)) => &self.limited,
        };
        counter.fetch_add(1, Relaxed);
        answer
    }

    fn ask(&self, headers: &HeaderMap, from: IpAddr, now: u64) -> Result<(), Refusal> {
        let Some(token) = &self.token else { return Err(Refusal::Off) };
        let key = self.seen.key(network_of(from));
        let [requests, failures] = self.seen.find_or_insert(key, |[a, b]| *a.max(b), |_| {});
        if let Answer::Refused { retry_after, .. } = self.requests.take(requests, now) {
            return Err(Refusal::Limited(retry_after));
        }
        // Whoever guesses is not told whether it has guessed right.
        if let Answer::Refused { retry_after, .. } = self.failures.peek(failures, now) {
            return Err(Refusal::Limited(retry_after));
        }
        if bearer(headers).is_some_and(|shown| token.is(shown)) {
            return Ok(());
        }
        let _ = self.failures.take(failures, now);
        Err(Refusal::Unauthorized)
    }

    /// In Prometheus' text format.
    pub fn render(&self, text: &mut String) {
        let name = "stoa_admin_requests_total";
        proxy_metrics::header(
            text,
            name,
            "counter",
            "Requests to the admin API, by who let them in",
        );
        for (outcome, counter) in [
            ("admitted", &self.admitted),
            ("off", &self.off),
            ("unauthorized", &self.unauthorized),
            ("limited", &self.limited),
        ] {
            let _ = writeln!(text, "{name}{{outcome=\"{outcome}\"}} {}", counter.load(Relaxed));
        }
    }
}

/// RFC 6750 section 2.1. Two of them are none: whoever is in front may have looked at the other.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl Refusal {
    pub fn into_response(self) -> crate::http::Answer {
        let (problem, name, value) = match self {
            Self::Off => {
                return Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the admin API is off, since it has no token: set STOA_ADMIN_API_TOKEN, and \
                     send it as `Authorization: Bearer TOKEN`",
                )
                .into_response();
            }
            Self::Unauthorized => (
                Problem::new(
                    StatusCode::UNAUTHORIZED,
                    "the admin API wants its token: `Authorization: Bearer TOKEN`, once",
                ),
                header::WWW_AUTHENTICATE,
                "Bearer realm=\"stoa-gateway admin\"".to_owned(),
            ),
            Self::Limited(wait) => (
                Problem::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many requests, or too many wrong tokens, from this address",
                ),
                header::RETRY_AFTER,
                (wait.as_secs() + 1).to_string(),
            ),
        };
        let mut response = problem.into_response();
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "correct-horse-battery";

    fn gate() -> Gate {
        Gate::new(Some(AdminToken::parse(TOKEN).unwrap()))
    }

    fn ask(gate: &Gate, authorization: &[&str], from: &str) -> Result<(), Refusal> {
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        gate.admit(&headers, from.parse().unwrap(), Moment { monotonic: 1 << 40, unix: 0 })
    }

    #[test]
    fn only_the_token_is_let_in() {
        let good = format!("Bearer {TOKEN}");
        let gate = gate();
        assert_eq!(ask(&gate, &[&good], "192.0.2.1"), Ok(()));
        assert_eq!(ask(&gate, &[&good.replace("Bearer", "bearer")], "192.0.2.1"), Ok(()));
        let basic = good.replace("Bearer", "Basic");
        for wrong in [&[][..], &[TOKEN], &[&basic], &["Bearer "], &["Bearer x"], &[&good, &good]] {
            assert_eq!(ask(&gate, wrong, "192.0.2.1"), Err(Refusal::Unauthorized), "{wrong:?}");
        }
        assert_eq!(ask(&Gate::new(None), &[&good], "192.0.2.1"), Err(Refusal::Off));
    }

    #[test]
    fn who_guesses_is_soon_told_nothing() {
        let (good, gate) = (format!("Bearer {TOKEN}"), gate());
        for _ in 0..10 {
            assert_eq!(ask(&gate, &["Bearer guess"], "2001:db8::1"), Err(Refusal::Unauthorized));
        }
        // The same network, with any token.
        for token in ["Bearer guess", &good] {
            let refused = ask(&gate, &[token], "2001:db8::2");
            assert!(matches!(refused, Err(Refusal::Limited(_))), "{refused:?}");
        }
        assert_eq!(ask(&gate, &[&good], "2001:db8:0:1::1"), Ok(()), "another network");
    }

    #[test]
    fn requests_are_limited_with_the_token_too() {
        let (good, gate) = (format!("Bearer {TOKEN}"), gate());
        let admitted = (0..2000).filter(|_| ask(&gate, &[&good], "192.0.2.1").is_ok()).count();
        assert_eq!(admitted, 600);
        let mut text = String::new();
        gate.render(&mut text);
        assert!(text.contains("stoa_admin_requests_total{outcome=\"admitted\"} 600"), "{text}");
        assert!(text.contains("stoa_admin_requests_total{outcome=\"limited\"} 1400"), "{text}");
    }
}
