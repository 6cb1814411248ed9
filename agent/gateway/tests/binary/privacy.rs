//! Personal data that was planted in traffic is nowhere in what the agent leaves or says.

use std::path::Path;

use crate::{
    agent::{Agent, request},
    server::serve_json,
};

const ANSWER: &str = r#"{
    "id": 7,
    "email": "planted.person@example.org",
    "card": "4111111111111111",
    "iban": "GB82WEST12345698765432",
    "phone": "+33612345678",
    "name": "Zebulon Plantagenet",
    "note": "call Zebulon Plantagenet at home",
    "token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJwbGFudGVkIn0.c2lnbmF0dXJlLXBsYW50ZWQ"
}"#;

/// As they would be found, whatever the letters' case.
const PLANTED: &[&str] = &[
    "planted.person",
    "4111111111111111",
    "gb82west12345698765432",
    "33612345678",
    "plantagenet",
    "eyjhbgcioijiuzi1nij9",
    "c2lnbmf0dxjllxbsyw50zwq",
    "hunter2-planted",
    "akiaiosfodnn7planted",
    "session-planted-9f8e7d6c5b4a",
    "bgv0bwvpbjpwbgfudgvk",
    "078-05-1120",
];

fn assert_clean(text: &[u8], place: &str) {
    let lower = text.to_ascii_lowercase();
    for planted in PLANTED {
        let found = lower.windows(planted.len()).any(|w| w == planted.as_bytes());
        assert!(!found, "`{planted}` is in {place}");
    }
}

fn assert_directory_clean(directory: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files += assert_directory_clean(&path);
        } else {
            assert_clean(&std::fs::read(&path).unwrap(), &path.display().to_string());
            files += 1;
        }
    }
    files
}

#[test]
fn planted_values_never_reach_disk_log_api_or_metric() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(
        dir.path(),
        serve_json(ANSWER),
        &["--min-requests-for-uac=5", "--log-level=trace", "--summary"],
    );
    let headers = [
        ("Authorization", "Basic bGV0bWVpbjpwbGFudGVk"),
        ("Cookie", "sid=session-planted-9f8e7d6c5b4a"),
        ("X-Api-Key", "AKIAIOSFODNN7PLANTED"),
        ("Content-Type", "application/x-www-form-urlencoded"),
        ("Referer", "http://x/?email=planted.person@example.org"),
    ];
    // Often enough for recurrence alone to admit anything that is not recognised.
    for _ in 0..25 {
        for path in [
            "/people/planted.person@example.org",
            "/people/planted.person%40example.org/cards/4111111111111111",
            "/search?q=Plantagenet&email=planted.person%40example.org&ssn=078-05-1120",
        ] {
            let body = b"user=planted.person%40example.org&password=hunter2-planted";
            let answer = request(agent.inline.unwrap(), "POST", path, &headers, body);
            assert_eq!(answer.status, 200);
        }
    }
    agent.wait_for_exchanges(75);
    for path in [
        "/shadow/status",
        "/shadow/contracts",
        "/shadow/contracts/api",
        "/shadow/contracts/api?format=json",
        "/shadow/contracts/api?format=uac",
        "/shadow/contracts/api?format=summary",
        "/metrics",
    ] {
        let answer = agent.get(path);
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert_clean(answer.body.as_bytes(), path);
    }
    assert!(agent.get("/shadow/contracts/api").body.contains("email"), "the field is known");
    let directory = agent.directory.clone();
    assert!(agent.stop("-INT").success());
    // Store, key, three contract files, log, stdout.
    assert!(assert_directory_clean(&directory) >= 7);
}
