//! What is left after `kill -9`.

use crate::{
    agent::{Agent, eventually, pause},
    server::serve_json,
};

#[test]
fn kill_at_any_moment_loses_at_most_the_last_flush() {
    let dir = tempfile::tempdir().unwrap();
    let target = serve_json(r#"{"n": 1}"#);
    let mut least = 0;
    for round in 0..8_u64 {
        let agent = Agent::start(dir.path(), target, &[]);
        let before = agent.get("/shadow/status").json()["transactions_captured"].as_u64().unwrap();
        assert!(before >= least, "round {round}: {before} of at least {least} are left");
        agent.drive(20, |n| format!("/items/{n}"));
        agent.wait_for_exchanges(before + 20);
        if round % 2 == 0 {
            // Long enough for a flush: this round's exchanges must survive.
            eventually("a flush", || {
                let metrics = agent.get("/metrics").body;
                let writes =
                    metrics.lines().find_map(|l| l.strip_prefix("stoa_store_writes_total "));
                (writes.unwrap().parse::<u64>().unwrap() >= 1).then_some(())
            });
            pause(2500);
            least = before + 20;
        } else {
            // In the middle of whatever it is doing.
            pause(round * 137 % 1700);
            least = before;
        }
        agent.kill();
    }
    let agent = Agent::start(dir.path(), target, &[]);
    let left = agent.get("/shadow/status").json()["transactions_captured"].as_u64().unwrap();
    assert!((least..=160).contains(&left), "{left} of {least} to 160 are left");
    let contract = agent.get("/shadow/contracts/api");
    assert!(contract.body.contains("/items/{"), "{}", contract.body);
}

#[test]
fn an_ordinary_stop_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let target = serve_json(r#"{"n": 1}"#);
    for round in 1..=3 {
        let agent = Agent::start(dir.path(), target, &[]);
        agent.drive(7, |n| format!("/items/{n}"));
        assert!(agent.stop("-TERM").success());
        let agent = Agent::start(dir.path(), target, &[]);
        let status = agent.get("/shadow/status").json();
        assert_eq!(status["transactions_captured"], round * 7);
        assert!(agent.stop("-TERM").success());
    }
}
