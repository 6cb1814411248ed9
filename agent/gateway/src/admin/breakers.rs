//! `/admin/circuit-breakers`, one for each upstream; `/admin/circuit-breaker` is all of them.

use http::{Method, StatusCode};
use serde_json::{Value, json};
use stoa_policy::{
    circuit_breaker::{BreakerStats, State},
    moment::Moment,
};

use super::{Served, done, json_answer, not_found, only};
use crate::http::{Answer, problem::Problem};

pub fn answer(served: &Served, method: &Method, segments: &[&str]) -> Result<Answer, Problem> {
    let breakers = served.enforcement.outside.breakers.all();
    let now = Moment::read();
    let stats = || breakers.iter().map(|breaker| breaker.stats(now)).collect::<Vec<_>>();
    match segments {
        ["circuit-breaker", "stats"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            Ok(json_answer(StatusCode::OK, &sum(&stats())))
        }
        ["circuit-breaker", "reset"] => {
            only(method, &Method::POST, "POST")?;
            breakers.iter().for_each(|breaker| breaker.reset(now));
            Ok(done("Circuit breaker reset to closed"))
        }
        ["circuit-breakers"] => {
            only(method, &Method::GET, "GET, HEAD")?;
            Ok(json_answer(StatusCode::OK, &json!(stats())))
        }
        ["circuit-breakers", name, "reset"] => {
            only(method, &Method::POST, "POST")?;
            let breaker = breakers.iter().find(|breaker| breaker.name() == *name);
            let Some(breaker) = breaker else {
                let names: Vec<&str> = breakers.iter().map(|breaker| breaker.name()).collect();
                let reason = "no upstream of that name has a circuit breaker; `names` lists those \
                              that do";
                return Err(not_found(reason.to_owned()).with("names", names));
            };
            breaker.reset(now);
            Ok(done(&format!("Circuit breaker '{name}' reset to closed")))
        }
        _ => Err(not_found(
            "there are circuit-breaker/stats, circuit-breaker/reset, circuit-breakers and \
             circuit-breakers/NAME/reset"
                .to_owned(),
        )),
    }
}

/// As if they were one: as open as the most open of them.
fn sum(all: &[BreakerStats]) -> Value {
    let is_any = |state| all.iter().any(|stats| stats.state == state);
    let state = match (is_any(State::Open), is_any(State::HalfOpen)) {
        (true, _) => State::Open,
        (false, true) => State::HalfOpen,
        (false, false) => State::Closed,
    };
    let total = |of: fn(&BreakerStats) -> u64| all.iter().map(of).sum::<u64>();
    json!({
        "name": "all-upstreams",
        "state": state,
        "success_count": total(|stats| stats.success_count),
        "failure_count": total(|stats| stats.failure_count),
        "failures_in_window": total(|stats| stats.failures_in_window.unwrap_or(0).into()),
        "consecutive_failures": total(|stats| stats.consecutive_failures.unwrap_or(0).into()),
        "open_count": total(|stats| stats.open_count),
        "rejected_count": total(|stats| stats.rejected_count),
    })
}
