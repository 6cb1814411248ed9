//! An issuer's keys over the network, when the issuer is slow, wrong, changing or gone.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};
use sandbox::pause;
use serde_json::json;
use system_tests::{
    decisions::Sidecar,
    jwks_server::{JwksServer, Key, Manner, key_set},
    stage,
};

/// `more` is of the `jwt` method.
fn start(dir: &Path, server: &JwksServer, more: &str) -> Result<Sidecar> {
    let config = format!(
        "policies:\n  default:\n    identity: {{methods: [{{jwt: {{issuer: 'https://issuer.test', \
         jwks_url: '{}', audience: orders{more}}}}}]}}\n    tenant: {{}}\n",
        server.url()
    );
    Sidecar::start(dir, &config, &[("STOA_DECISION_FORMAT", "JsonBody")])
}

fn status(sidecar: &Sidecar, token: &str) -> Result<u16> {
    let document = json!({"method": "GET", "path": "/orders",
        "headers": {"authorization": format!("Bearer {token}")}});
    Ok(sidecar.ask(&document)?.status)
}

/// Asks until the status is `wanted`.
fn await_status(sidecar: &Sidecar, token: &str, wanted: u16) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let status = status(sidecar, token)?;
        if status == wanted {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "still {status}, and not {wanted}");
        pause(Duration::from_millis(50));
    }
}

#[test]
fn keys_that_change_while_they_are_cached_are_fetched_once() -> Result<()> {
    let dir = stage::directory("jwks-rotation")?;
    let (old, new) = (Key::new("old")?, Key::new("new")?);
    let server = JwksServer::start(Manner::Keys(key_set(&[&old])?))?;
    let sidecar = start(&dir, &server, ", refresh_at_most: 1s")?;
    await_status(&sidecar, &old.token("ann")?, 200)?;
    ensure!(server.asked() == 1, "asked {} times", server.asked());
    // Announced before it signs, as issuers should; then the old one goes.
    server.set(Manner::Keys(key_set(&[&old, &new])?));
    await_status(&sidecar, &new.token("ann")?, 200)?;
    ensure!(server.asked() <= 3, "asked {} times for one new key", server.asked());
    ensure!(status(&sidecar, &old.token("bob")?)? == 200, "the old key is still published");
    server.set(Manner::Keys(key_set(&[&new])?));
    // What makes us fetch is a key that nobody knows, once a second at most.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut n = 0;
    while status(&sidecar, &old.token("carl")?)? != 401 {
        ensure!(Instant::now() < deadline, "a key that is published no more is still believed");
        n += 1;
        let stranger = old.token_named("eve", &format!("unknown-{n}"))?;
        ensure!(status(&sidecar, &stranger)? == 401, "an unknown key is believed");
        pause(Duration::from_millis(100));
    }
    ensure!(status(&sidecar, &new.token("ann")?)? == 200, "the new key is refused");
    sidecar.stop()
}

#[test]
fn a_storm_of_unknown_keys_is_one_fetch() -> Result<()> {
    let dir = stage::directory("jwks-storm")?;
    let (known, stranger) = (Key::new("known")?, Key::new("x")?);
    let server = JwksServer::start(Manner::Keys(key_set(&[&known])?))?;
    let sidecar = start(&dir, &server, ", refresh_at_most: 1s")?;
    await_status(&sidecar, &known.token("ann")?, 200)?;
    pause(Duration::from_millis(1100)); // So that a fetch is allowed again.
    let before = server.asked();
    let begun = Instant::now();
    let (sidecar, stranger) = (&sidecar, &stranger);
    let statuses = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|client| {
                scope.spawn(move || -> Result<Vec<u16>> {
                    (0..50)
                        .map(|n| {
                            let token = stranger.token_named("eve", &format!("{client}-{n}"))?;
                            status(sidecar, &token)
                        })
                        .collect()
                })
            })
            .collect();
        clients
            .into_iter()
            .map(|client| client.join().map_err(|_| anyhow!("a client panicked"))?)
            .collect::<Result<Vec<_>>>()
    })?;
    let allowed = begun.elapsed().as_secs() + 2;
    ensure!(statuses.concat().iter().all(|status| *status == 401), "{statuses:?}");
    let fetches = server.asked() - before;
    ensure!(
        (1..=allowed).contains(&fetches),
        "400 unknown keys within {:?} made {fetches} fetches",
        begun.elapsed()
    );
    ensure!(status(sidecar, &known.token("bob")?)? == 200, "the known key is believed no more");
    Ok(())
}

#[test]
fn a_slow_issuer_keeps_only_those_waiting_who_need_it() -> Result<()> {
    let dir = stage::directory("jwks-slow")?;
    let (old, new) = (Key::new("old")?, Key::new("new")?);
    let server = JwksServer::start(Manner::Keys(key_set(&[&old])?))?;
    let sidecar = start(&dir, &server, ", refresh_at_most: 1s")?;
    await_status(&sidecar, &old.token("ann")?, 200)?;
    pause(Duration::from_millis(1100)); // So that a fetch is allowed again.
    let slow = Duration::from_secs(3);
    server.set(Manner::Slowly(key_set(&[&old, &new])?, slow));
    let token = new.token("ann")?;
    let begun = Instant::now();
    let waited = thread::scope(|scope| -> Result<u16> {
        let waiting = scope.spawn(|| status(&sidecar, &token));
        // Its question is under way when the issuer is asked.
        while server.asked() < 2 && begun.elapsed() < slow {
            pause(Duration::from_millis(5));
        }
        let asked = Instant::now();
        ensure!(status(&sidecar, &old.token("bob")?)? == 200, "a known key is refused");
        ensure!(asked.elapsed() < Duration::from_secs(2), "who has a known key had to wait");
        waiting.join().map_err(|_| anyhow!("a client panicked"))?
    })?;
    ensure!(waited == 200, "who waited for the new key got {waited}");
    ensure!(begun.elapsed() >= slow, "the answer came before the key");
    sidecar.stop()
}

#[test]
fn answers_that_are_no_keys_change_nothing() -> Result<()> {
    let dir = stage::directory("jwks-wrong")?;
    let (known, stranger) = (Key::new("known")?, Key::new("stranger")?);
    let server = JwksServer::start(Manner::Keys(key_set(&[&known])?))?;
    let sidecar = start(&dir, &server, ", refresh_at_most: 100ms, refresh: 1s")?;
    await_status(&sidecar, &known.token("ann")?, 200)?;
    for (name, manner) in [
        ("500", Manner::Status(500)),
        ("404", Manner::Status(404)),
        ("garbage", Manner::Garbage),
        ("huge", Manner::Huge(64 << 20)),
        ("cut short", Manner::CutShort),
        ("empty", Manner::Keys(json!({"keys": []}))),
    ] {
        server.set(manner);
        let before = server.asked();
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut n = 0;
        // Until it was asked, and its answer had the time of a second question to arrive.
        while server.asked() < before + 2 {
            ensure!(Instant::now() < deadline, "{name}: the issuer is not asked again");
            n += 1;
            let status = status(&sidecar, &known.token(&format!("{name}-{n}"))?)?;
            ensure!(status == 200, "{name}: a known key got {status}");
            pause(Duration::from_millis(50));
        }
        let status = status(&sidecar, &stranger.token("eve")?)?;
        ensure!(status == 401, "{name}: an unknown key got {status}");
    }
    // And it heals.
    server.set(Manner::Keys(key_set(&[&known, &stranger])?));
    await_status(&sidecar, &stranger.token("eve")?, 200)?;
    sidecar.stop()
}

#[test]
fn without_any_keys_it_is_not_the_clients_fault() -> Result<()> {
    let dir = stage::directory("jwks-none")?;
    let key = Key::new("1")?;
    let server = JwksServer::start(Manner::Status(503))?;
    let sidecar = start(&dir, &server, ", refresh_at_most: 100ms")?;
    let status = status(&sidecar, &key.token("ann")?)?;
    ensure!(status == 503, "without keys: {status}");
    server.set(Manner::Keys(key_set(&[&key])?));
    await_status(&sidecar, &key.token("ann")?, 200)?;
    sidecar.stop()
}
