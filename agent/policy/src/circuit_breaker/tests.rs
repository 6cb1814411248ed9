use std::{sync::Barrier, thread};

use proptest::{
    prelude::{prop, proptest},
    prop_assert_eq,
};

use super::*;

fn at(milliseconds: u64) -> Moment {
    Moment { monotonic: 1_000_000_000 + milliseconds * 1_000_000, unix: 0 }
}

fn breaker(config: CircuitBreakerConfig) -> Arc<Breaker> {
    Arc::new(Breaker::new("orders", config))
}

fn fail(breaker: &Arc<Breaker>, when: u64) {
    breaker.admit(at(when)).unwrap().failed(at(when));
}

fn succeed(breaker: &Arc<Breaker>, when: u64) {
    breaker.admit(at(when)).unwrap().succeeded(at(when));
}

const SECOND: u64 = 1000;

#[test]
fn five_failures_open_it_and_two_probes_close_it() {
    let breaker = breaker(CircuitBreakerConfig::default());
    for second in 0..4 {
        fail(&breaker, second * SECOND);
        succeed(&breaker, second * SECOND);
    }
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 5 * SECOND);
    assert_eq!(breaker.state(), State::Open);
    let rejected = breaker.admit(at(15 * SECOND)).unwrap_err();
    assert_eq!(rejected.retry_after, Duration::from_secs(20));
    assert!(breaker.peek(at(15 * SECOND)).is_err());

    assert!(breaker.peek(at(35 * SECOND)).is_ok());
    let probe = breaker.admit(at(35 * SECOND)).unwrap();
    assert!(probe.is_probe());
    assert!(breaker.admit(at(35 * SECOND)).is_err(), "one probe at a time");
    probe.succeeded(at(36 * SECOND));
    assert_eq!(breaker.state(), State::HalfOpen);
    succeed(&breaker, 37 * SECOND);
    assert_eq!(breaker.state(), State::Closed);
    // Nothing of what came before counts any more.
    for _ in 0..4 {
        fail(&breaker, 38 * SECOND);
    }
    assert_eq!(breaker.state(), State::Closed);
    let stats = breaker.stats(at(38 * SECOND));
    assert_eq!(
        serde_json::to_value(&stats).unwrap(),
        serde_json::json!({
            "name": "orders", "state": "closed", "success_count": 6, "failure_count": 9,
            "failures_in_window": 4, "open_count": 1, "rejected_count": 3,
            "last_trip": {"reason": "failures_in_window", "failures": 5},
        })
    );
}

#[test]
fn failures_older_than_the_window_are_forgotten() {
    let breaker = breaker(CircuitBreakerConfig::default());
    for second in [0, 0, 0, 0, 61, 61, 61, 61] {
        fail(&breaker, second * SECOND);
    }
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 62 * SECOND);
    assert_eq!(breaker.state(), State::Open);
}

#[test]
fn a_probe_that_fails_opens_it_again_and_says_why() {
    let breaker = breaker(CircuitBreakerConfig { failures: 1, ..Default::default() });
    fail(&breaker, 0);
    fail(&breaker, 30 * SECOND);
    assert_eq!(breaker.state(), State::Open);
    assert!(breaker.admit(at(59 * SECOND)).is_err());
    assert_eq!(breaker.stats(at(0)).last_trip, Some(TripReason::ProbeFailed));
    assert_eq!(breaker.trips()[0], ("failures_in_window", 1));
    assert_eq!(breaker.trips()[3], ("probe_failed", 1));
}

#[test]
fn a_probe_that_is_given_up_makes_room_for_another() {
    let breaker = breaker(CircuitBreakerConfig { failures: 1, ..Default::default() });
    fail(&breaker, 0);
    drop(breaker.admit(at(30 * SECOND)).unwrap());
    assert_eq!(breaker.state(), State::HalfOpen);
    assert!(breaker.admit(at(30 * SECOND)).unwrap().is_probe());
}

#[test]
fn what_was_sent_before_it_tripped_changes_nothing_after() {
    let breaker = breaker(CircuitBreakerConfig {
        failures: 1,
        successes: 1,
        ..CircuitBreakerConfig::default()
    });
    let (early, late) = (breaker.admit(at(0)).unwrap(), breaker.admit(at(0)).unwrap());
    fail(&breaker, 1);
    early.failed(at(29 * SECOND));
    succeed(&breaker, 30 * SECOND + 1);
    assert_eq!(breaker.state(), State::Closed);
    late.failed(at(31 * SECOND));
    assert_eq!(breaker.state(), State::Closed);
}

#[test]
fn in_a_row_means_without_a_success_between() {
    let config = CircuitBreakerConfig {
        strategy: Strategy::Consecutive,
        failures: 3,
        ..CircuitBreakerConfig::default()
    };
    let breaker = breaker(config);
    for outcome in [false, false, true, false, false, true] {
        if outcome { succeed(&breaker, 0) } else { fail(&breaker, 0) }
    }
    assert_eq!(breaker.state(), State::Closed);
    // However long ago.
    for hour in 1..=3 {
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker, hour * 3600 * SECOND);
    }
    let stats = breaker.stats(at(0));
    assert_eq!(stats.last_trip, Some(TripReason::ConsecutiveFailures { failures: 3 }));
    assert_eq!((stats.consecutive_failures, stats.failures_in_window), (Some(0), None));
}

#[test]
fn a_rate_needs_enough_requests_to_be_one() {
    let config = CircuitBreakerConfig {
        strategy: Strategy::Rate,
        rate: 0.25,
        minimum_requests: 20,
        ..CircuitBreakerConfig::default()
    };
    let breaker = breaker(config);
    for _ in 0..15 {
        succeed(&breaker, 0);
    }
    for _ in 0..4 {
        fail(&breaker, 0);
    }
    assert_eq!(breaker.state(), State::Closed);
    fail(&breaker, 0);
    let reason = TripReason::FailureRate { failures: 5, requests: 20 };
    assert_eq!(breaker.stats(at(0)).last_trip, Some(reason));
}

#[test]
fn the_policy_refuses_at_once_while_it_is_open() {
    let breakers = Arc::new(Breakers::default());
    let config = CircuitBreakerConfig { failures: 1, ..CircuitBreakerConfig::default() };
    let policy = CircuitBreaker::build(&config, breakers.clone()).unwrap();
    let headers = http::HeaderMap::new();
    let mut request = crate::context::tests::request(&headers);
    request.upstream = Some("orders");
    let check = |when| {
        let mut decision = Decision::default();
        let verdict = policy.check(&request, &mut decision, at(when));
        (verdict.map_err(|denial| denial.code), decision.response_headers.len())
    };
    assert_eq!(check(0), (Ok(()), 0), "no breaker yet");
    let breaker = breakers.find_or_make("orders", config);
    assert_eq!(check(0), (Ok(()), 0));
    fail(&breaker, 0);
    assert_eq!(check(1), (Err("circuit_open"), 1));
    assert_eq!(check(30 * SECOND), (Ok(()), 0));
    breaker.reset(at(2));
    assert_eq!(check(3), (Ok(()), 0));
    assert!(Arc::ptr_eq(&breaker, &breakers.find_or_make("orders", config)));
    breakers.retain(|_| false);
    assert!(breakers.find("orders").is_none());
}

#[test]
fn what_cannot_be_kept_to_is_refused() {
    let refused = |text: &str| {
        let config: CircuitBreakerConfig = serde_json::from_str(text).unwrap();
        CircuitBreaker::build(&config, Arc::default()).unwrap_err().key
    };
    assert_eq!(refused(r#"{"failures": 0}"#), "failures");
    assert_eq!(refused(r#"{"rate": 0}"#), "rate");
    assert_eq!(refused(r#"{"rate": 1.5}"#), "rate");
    assert_eq!(refused(r#"{"reset": "0s"}"#), "reset");
    assert_eq!(refused(r#"{"probes": 0}"#), "probes");
}

#[test]
fn threads_open_it_once_and_never_probe_more_than_allowed() {
    const THREADS: usize = 8;
    for round in 0..50u64 {
        let config = CircuitBreakerConfig { probes: 2, ..CircuitBreakerConfig::default() };
        let breaker = breaker(config);
        let barrier = Arc::new(Barrier::new(THREADS));
        let threads: Vec<_> = (0..THREADS)
            .map(|_| {
                let (breaker, barrier) = (breaker.clone(), barrier.clone());
                thread::spawn(move || {
                    barrier.wait();
                    for _ in 0..20 {
                        if let Ok(permit) = breaker.admit(at(round)) {
                            permit.failed(at(round));
                        }
                    }
                    barrier.wait();
                    // All probes are held until everybody has tried.
                    let probe = breaker.admit(at(31 * SECOND + round)).ok();
                    barrier.wait();
                    u32::from(probe.is_some_and(|probe| probe.is_probe()))
                })
            })
            .collect();
        let probes: u32 = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(probes, 2);
        assert_eq!(breaker.stats(at(0)).open_count, 1);
    }
}

/// The same breaker, written with no regard to threads or speed.
struct Model {
    config: CircuitBreakerConfig,
    state: State,
    opened: u64,
    failures: Vec<u64>,
    succeeded: u32,
}

impl Model {
    fn admits(&mut self, now: u64) -> bool {
        if self.state == State::Open && now - self.opened >= 30 * SECOND {
            self.state = State::HalfOpen;
            self.succeeded = 0;
        }
        self.state != State::Open
    }

    fn settle(&mut self, is_success: bool, now: u64) {
        match (self.state, is_success) {
            (State::Closed, false) => {
                self.failures.push(now);
                // In steps of five seconds, as the breaker counts.
                let step = |time: u64| (1000 + time) / (5 * SECOND);
                self.failures.retain(|then| step(now) - step(*then) < 12);
                if self.failures.len() >= self.config.failures as usize {
                    (self.state, self.opened) = (State::Open, now);
                }
            }
            (State::HalfOpen, true) => {
                self.succeeded += 1;
                if self.succeeded >= self.config.successes {
                    self.state = State::Closed;
                    self.failures.clear();
                }
            }
            (State::HalfOpen, false) => (self.state, self.opened) = (State::Open, now),
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn it_behaves_as_its_model(
        steps in prop::collection::vec((0u64..20 * SECOND, prop::bool::weighted(0.6)), 1..300),
    ) {
        let config = CircuitBreakerConfig::default();
        let breaker = breaker(config);
        let mut model = Model {
            config, state: State::Closed, opened: 0, failures: Vec::new(), succeeded: 0,
        };
        let mut now = 0;
        for (pause, is_success) in steps {
            now += pause;
            let permit = breaker.admit(at(now));
            prop_assert_eq!(permit.is_ok(), model.admits(now));
            if let Ok(permit) = permit {
                model.settle(is_success, now);
                if is_success { permit.succeeded(at(now)) } else { permit.failed(at(now)) }
            }
            prop_assert_eq!(breaker.state(), model.state);
        }
    }
}
