use std::{collections::VecDeque, sync::Mutex};

use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
use serde_json::{Value, json};

use super::*;
use crate::{
    context::tests::request,
    decision::{Decision, Verdict},
    identity::{
        Identities,
        test_issuer::{ISSUER, Issuer, claims},
    },
    outside::Outside,
};

/// Holds each fetch until the test answers it.
#[derive(Debug, Default)]
struct Held(Mutex<VecDeque<Delivery>>);

impl KeyFetcher for Held {
    fn start(&self, at: &KeysAt, delivery: Delivery) {
        assert_eq!(at.url(), "https://issuer.example/jwks");
        self.0.lock().unwrap().push_back(delivery);
    }
}

impl Held {
    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn answer(&self, answer: Result<&Value, &str>) {
        let delivery = self.0.lock().unwrap().pop_front().expect("a fetch runs");
        let text = answer.map(Value::to_string).map_err(str::to_owned);
        delivery.deliver(text.as_ref().map(|t| t.as_bytes()).map_err(Clone::clone));
    }
}

struct World {
    held: Arc<Held>,
    ring: Arc<KeyRing>,
    identities: Identities,
}

fn world(more: Value) -> World {
    let held = Arc::new(Held::default());
    let fetcher: Arc<dyn KeyFetcher> = Arc::clone(&held) as _;
    let ring = Arc::new(KeyRing::new(fetcher));
    let identities = identities(&ring, more);
    World { held, ring, identities }
}

fn identities(ring: &Arc<KeyRing>, more: Value) -> Identities {
    let mut jwt = json!({
        "issuer": ISSUER, "audience": "orders", "jwks_url": "https://issuer.example/jwks",
    });
    for (name, value) in more.as_object().unwrap() {
        jwt[name] = value.clone();
    }
    let config = json!({"methods": [{"jwt": jwt}]});
    let outside = Outside { keys: Arc::clone(ring), ..Outside::default() };
    Identities::build(&serde_json::from_value(config).unwrap(), &outside).unwrap()
}

async fn ask(identities: &Identities, token: &str) -> Result<(), (u16, &'static str)> {
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
    let verdict: Verdict = identities.check(&request(&headers), &mut Decision::default()).await;
    verdict.map_err(|denial| (denial.status.as_u16(), denial.code))
}

fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(test);
}

/// Polls `question` to where it waits, then `meanwhile`, then to its end.
async fn while_waiting<T>(question: impl Future<Output = T>, meanwhile: impl FnOnce()) -> T {
    let mut question = std::pin::pin!(question);
    std::future::poll_fn(|cx| {
        assert!(question.as_mut().poll(cx).is_pending(), "does not wait");
        std::task::Poll::Ready(())
    })
    .await;
    meanwhile();
    question.await
}

const AT_ONCE: &str = "0s";

#[test]
fn keys_are_fetched_when_the_set_is_built_and_once_for_all_who_wait() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({}));
        assert_eq!(world.held.count(), 1, "begun before anybody asks");
        let token = issuer.token(&claims(json!({})));
        let questions = async {
            let asked = (0..50).map(|_| ask(&world.identities, &token));
            let mut asked: Vec<_> = asked.map(Box::pin).collect();
            std::future::poll_fn(|cx| {
                for question in &mut asked {
                    assert!(question.as_mut().poll(cx).is_pending());
                }
                std::task::Poll::Ready(())
            })
            .await;
            assert_eq!(world.held.count(), 1);
            world.held.answer(Ok(&issuer.jwks()));
            for question in asked {
                assert_eq!(question.await, Ok(()));
            }
        };
        questions.await;
        assert_eq!(world.ring.states()[0].fetches, 1);
        assert_eq!(ask(&world.identities, &token).await, Ok(()));
        assert_eq!(world.ring.states()[0].fetches, 1);
    });
}

#[test]
fn a_new_key_is_fetched_and_the_old_one_goes_with_its_tokens() {
    run(async {
        let (old, new) = (Issuer::new("1"), Issuer::new("2"));
        let world = world(json!({"refresh_at_most": AT_ONCE}));
        world.held.answer(Ok(&old.jwks()));
        let (by_old, by_new) = (old.token(&claims(json!({}))), new.token(&claims(json!({}))));
        assert_eq!(ask(&world.identities, &by_old).await, Ok(()));
        // Both keys are published while tokens of the old one are about.
        let both = json!({"keys": [old.jwk(), new.jwk()]});
        let answer =
            while_waiting(ask(&world.identities, &by_new), || world.held.answer(Ok(&both))).await;
        assert_eq!(answer, Ok(()));
        assert_eq!(ask(&world.identities, &by_old).await, Ok(()));
        // Then the old one is withdrawn: what it signed is refused, remembered or not.
        let stranger = Issuer::new("3").token(&claims(json!({})));
        let answer =
            while_waiting(ask(&world.identities, &stranger), || world.held.answer(Ok(&new.jwks())));
        assert_eq!(answer.await, Err((401, "token_key_unknown")));
        assert_eq!(ask(&world.identities, &by_new).await, Ok(()));
        let answer =
            while_waiting(ask(&world.identities, &by_old), || world.held.answer(Ok(&new.jwks())));
        assert_eq!(answer.await, Err((401, "token_key_unknown")));
    });
}

#[test]
fn invented_key_ids_do_not_make_us_fetch() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({"refresh_at_most": "1h"}));
        world.held.answer(Ok(&issuer.jwks()));
        for n in 0..100 {
            let mut header = issuer.header();
            header["kid"] = json!(format!("invented-{n}"));
            let token = issuer.sign(&header.to_string(), &claims(json!({})).to_string());
            assert_eq!(ask(&world.identities, &token).await, Err((401, "token_key_unknown")));
        }
        assert_eq!(world.ring.states()[0].fetches, 1);
    });
}

#[test]
fn a_forged_signature_does_not_make_us_fetch_where_the_token_names_its_key() {
    run(async {
        let (ours, forger) = (Issuer::new("1"), Issuer::new("1"));
        let world = world(json!({"refresh_at_most": AT_ONCE}));
        world.held.answer(Ok(&ours.jwks()));
        let forged = forger.token(&claims(json!({})));
        assert_eq!(ask(&world.identities, &forged).await, Err((401, "token_signature_invalid")));
        let foreign = forger.token(&claims(json!({"iss": "https://x.example"})));
        assert_eq!(ask(&world.identities, &foreign).await, Err((401, "token_issuer")));
        assert_eq!(world.held.count(), 0);
        // One without an id may be signed by a key that is new.
        let header = json!({"alg": "EdDSA"}).to_string();
        let unnamed = forger.sign(&header, &claims(json!({})).to_string());
        let both = json!({"keys": [ours.jwk(), forger.jwk()]});
        let answer =
            while_waiting(ask(&world.identities, &unnamed), || world.held.answer(Ok(&both)));
        assert_eq!(answer.await, Ok(()));
    });
}

#[test]
fn without_keys_nobody_gets_in_and_it_is_not_the_clients_fault() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({"refresh_at_most": "1h"}));
        let token = issuer.token(&claims(json!({})));
        let answer = while_waiting(ask(&world.identities, &token), || {
            world.held.answer(Err("connection refused"));
        });
        assert_eq!(answer.await, Err((503, "keys_unavailable")));
        // And nobody waits again until the next attempt is due.
        assert_eq!(ask(&world.identities, &token).await, Err((503, "keys_unavailable")));
        let state = &world.ring.states()[0];
        assert_eq!((state.fetches, state.failures, state.age), (1, 1, None));
        assert_eq!(state.failure.as_deref(), Some("connection refused"));
    });
}

#[test]
fn a_fetch_that_is_dropped_or_answers_rubbish_failed() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({"refresh_at_most": AT_ONCE}));
        let token = issuer.token(&claims(json!({})));
        let failure = || world.ring.states()[0].failure.clone().unwrap_or_default();
        let dropped = while_waiting(ask(&world.identities, &token), || {
            drop(world.held.0.lock().unwrap().pop_front());
        });
        assert_eq!(dropped.await, Err((503, "keys_unavailable")));
        assert_eq!(failure(), "the fetch was given up");
        for (answer, why) in [
            (json!("<html>"), "not a JSON Web Key Set"),
            (json!({"issuer": "x"}), "not a JSON Web Key Set"),
            (json!({"keys": []}), "holds 0 keys"),
            (json!({"keys": [{"kty": "oct", "k": "AA"}, 7]}), "holds 2 keys"),
        ] {
            let asked =
                while_waiting(ask(&world.identities, &token), || world.held.answer(Ok(&answer)));
            assert_eq!(asked.await, Err((503, "keys_unavailable")));
            assert!(failure().contains(why), "{}", failure());
        }
    });
}

#[test]
fn old_keys_are_served_while_a_refresh_runs_or_fails() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({"refresh_at_most": AT_ONCE}));
        world.held.answer(Ok(&issuer.jwks()));
        let Some(source) = world.ring.sources.lock().unwrap().values().find_map(Weak::upgrade)
        else {
            panic!("one source");
        };
        let token = |n: u32| issuer.token(&claims(json!({"jti": n})));
        // As if the time had come.
        source.refresh_at.store(0, Ordering::Relaxed);
        assert_eq!(ask(&world.identities, &token(1)).await, Ok(()));
        assert_eq!(world.held.count(), 1, "refreshed in the background");
        assert_eq!(ask(&world.identities, &token(2)).await, Ok(()));
        assert_eq!(world.held.count(), 1, "once");
        world.held.answer(Err("timed out"));
        assert_eq!(ask(&world.identities, &token(1)).await, Ok(()), "remembered");
        assert_eq!(ask(&world.identities, &token(3)).await, Ok(()), "by the old key");
        assert_eq!(world.ring.states()[0].failures, 1);
        // A token that was seen before makes the refresh happen too.
        assert_eq!(world.held.count(), 1);
        world.held.answer(Err("timed out"));
        // Not for ever, though.
        source.stale_at.store(1, Ordering::Relaxed);
        let seen = token(1);
        let answer = while_waiting(ask(&world.identities, &seen), || {
            world.held.answer(Err("timed out"));
        });
        assert_eq!(answer.await, Err((503, "keys_unavailable")));
        let answer = while_waiting(ask(&world.identities, &seen), || {
            world.held.answer(Ok(&issuer.jwks()));
        });
        assert_eq!(answer.await, Ok(()));
    });
}

#[test]
fn a_reload_and_other_sets_find_the_keys_fetched() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({}));
        world.held.answer(Ok(&issuer.jwks()));
        let reloaded = identities(&world.ring, json!({"leeway": "5s"}));
        drop(world.identities);
        assert_eq!(ask(&reloaded, &issuer.token(&claims(json!({})))).await, Ok(()));
        assert_eq!(world.held.count(), 0);
        drop(reloaded);
        assert!(world.ring.states().is_empty(), "nobody needs them any more");
    });
}

#[test]
fn a_client_that_leaves_keeps_nobody_waiting() {
    run(async {
        let issuer = Issuer::new("1");
        let world = world(json!({}));
        let token = issuer.token(&claims(json!({})));
        {
            let mut first = Box::pin(ask(&world.identities, &token));
            std::future::poll_fn(|cx| {
                assert!(first.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
        }
        let answer = while_waiting(ask(&world.identities, &token), || {
            world.held.answer(Ok(&issuer.jwks()));
        });
        assert_eq!(answer.await, Ok(()));
    });
}

#[test]
fn workers_ask_at_once_and_one_fetch_answers_all() {
    let issuer = Issuer::new("1");
    let world = world(json!({}));
    let token = issuer.token(&claims(json!({})));
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(ask(&world.identities, &token))
                })
            })
            .collect();
        world.held.answer(Ok(&issuer.jwks()));
        for worker in workers {
            assert_eq!(worker.join().unwrap(), Ok(()));
        }
    });
    assert_eq!(world.ring.states()[0].fetches, 1);
}

#[test]
fn an_issuer_is_asked_where_its_keys_are() {
    for (issuer, url) in [
        (
            "https://i.example/realms/a",
            "https://i.example/realms/a/.well-known/openid-configuration",
        ),
        ("https://i.example/", "https://i.example/.well-known/openid-configuration"),
    ] {
        assert_eq!(KeysAt::Issuer(issuer.to_owned()).url(), url);
    }
}
