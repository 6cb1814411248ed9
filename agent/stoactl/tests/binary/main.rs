//! The built `stoactl`, over files that the tests write.

use std::{
    fs,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use stoa_wire::{
    recording::Recorder,
    segment::{Direction, Endpoints, Event, FlowId, Segment},
};

fn stoactl(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stoactl"))
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A connection that sends each of `turns` to and fro, in the order given.
fn record_connection(
    recorder: &mut Recorder<Vec<u8>>,
    number: u32,
    service: u32,
    turns: &[(String, String)],
) {
    let flow = FlowId(u64::from(number));
    let port = |base: u32| u16::try_from(base + number % 1000).unwrap();
    let endpoints = Endpoints {
        client: SocketAddr::from(([10, 0, 0, 9], port(40_000))),
        server: SocketAddr::from(([10, 0, 0, 1], 8000 + u16::try_from(service).unwrap())),
        service,
    };
    let mut at = 1_700_000_000_000_000_000 + u64::from(number) * 1_000_000;
    recorder.record(Event::Open { flow, at, endpoints, from_start: true }).unwrap();
    let mut seqs = [1_u32, 1];
    for (request, response) in turns {
        for (place, direction, data) in
            [(0, Direction::ToServer, request), (1, Direction::ToClient, response)]
        {
            at += 1000;
            let len = u32::try_from(data.len()).unwrap();
            let segment = Segment {
                flow,
                direction,
                at,
                seq: seqs[place],
                ack: Some(seqs[1 - place]),
                syn: false,
                fin: false,
                rst: false,
                len,
                data: data.as_bytes(),
                missing: None,
            };
            recorder.record(Event::Segment(segment)).unwrap();
            seqs[place] += len;
        }
    }
    recorder.record(Event::Close { flow, at }).unwrap();
}

fn turn(path: &str, body: &str) -> (String, String) {
    (
        format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"),
        format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ),
    )
}

/// Two services: `orders` with 30 exchanges, `users` with 20.
fn write_capture(directory: &Path) -> PathBuf {
    let mut recorder = Recorder::new(Vec::new()).unwrap();
    recorder.name_service(0, "orders").unwrap();
    recorder.name_service(1, "users").unwrap();
    for n in 0..10 {
        let turns: Vec<_> =
            (0..3).map(|m| turn(&format!("/orders/{}", n * 3 + m), r#"{"total":1}"#)).collect();
        record_connection(&mut recorder, n, 0, &turns);
        let turns: Vec<_> = (0..2)
            .map(|m| turn(&format!("/users/{}", n * 2 + m), r#"{"email":"planted@example.org"}"#))
            .collect();
        record_connection(&mut recorder, 100 + n, 1, &turns);
    }
    let path = directory.join("capture.pcapng");
    fs::write(&path, recorder.finish().unwrap()).unwrap();
    path
}

#[test]
fn services_in_one_file_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    write_capture(dir.path());
    let output = stoactl(dir.path(), &["infer", "capture.pcapng", "--output", "out"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    for line in [
        "contract: out/orders.openapi.yaml (1 operations from 30 exchanges, 0 lost)",
        "contract: out/users.openapi.yaml (1 operations from 20 exchanges, 0 lost)",
    ] {
        assert!(out.contains(line), "`{line}` not in {out}");
    }
    let orders = fs::read_to_string(dir.path().join("out/orders.openapi.yaml")).unwrap();
    assert!(orders.contains("/orders/{") && !orders.contains("/users"), "{orders}");
    for entry in fs::read_dir(dir.path().join("out")).unwrap() {
        let path = entry.unwrap().path();
        assert!(!fs::read_to_string(&path).unwrap().contains("planted"), "{}", path.display());
    }
}

#[test]
fn the_same_file_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    write_capture(dir.path());
    let arguments = ["infer", "capture.pcapng", "--format", "openapi-json", "--service", "users"];
    let first = stoactl(dir.path(), &arguments);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains("/users/{"));
    assert!(first.stdout == stoactl(dir.path(), &arguments).stdout);
}

#[test]
fn exchanges_are_listed_one_a_line() {
    let dir = tempfile::tempdir().unwrap();
    write_capture(dir.path());
    let output = stoactl(dir.path(), &["exchanges", "capture.pcapng", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines = text(&output.stdout);
    let values: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(values.len(), 50);
    assert!(values.iter().all(|v| v["complete"] == true && v["status"] == 200), "{lines}");
    let of_users = values.iter().filter(|v| v["service"] == "users").count();
    assert_eq!(of_users, 20);
    let plain = text(&stoactl(dir.path(), &["exchanges", "capture.pcapng"]).stdout);
    assert_eq!(plain.lines().filter(|l| l.starts_with("orders  GET /orders/")).count(), 30);
}

#[test]
fn standard_input_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(write_capture(dir.path())).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_stoactl"))
        .args(["exchanges", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).lines().count(), 50);
}

#[test]
fn har_files_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |n: u32| {
        serde_json::json!({
            "startedDateTime": "2026-01-02T03:04:05.678Z",
            "time": 12.5,
            "request": {
                "method": "GET", "url": format!("https://api.example.com/items/{n}"),
                "httpVersion": "HTTP/1.1", "headers": [], "queryString": [], "cookies": [],
                "headersSize": -1, "bodySize": 0
            },
            "response": {
                "status": 200, "statusText": "OK", "httpVersion": "HTTP/1.1", "cookies": [],
                "headers": [{"name": "Content-Type", "value": "application/json"}],
                "content": {"size": 8, "mimeType": "application/json", "text": "{\"n\": 1}"},
                "redirectURL": "", "headersSize": -1, "bodySize": 8
            },
            "cache": {}, "timings": {"send": 1, "wait": 10, "receive": 1}
        })
    };
    let entries: Vec<_> = (0..12).map(entry).collect();
    let har = serde_json::json!({"log": {
        "version": "1.2", "creator": {"name": "test", "version": "1"}, "entries": entries
    }});
    fs::write(dir.path().join("page.har"), har.to_string()).unwrap();
    let output = stoactl(dir.path(), &["infer", "page.har"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let out = text(&output.stdout);
    assert!(
        out.ends_with(
            "contract: contracts/api.example.com.openapi.yaml (1 operations from 12 exchanges, 0 lost)\n"
        ),
        "{out}"
    );
}

#[test]
fn what_cannot_be_done_is_said_and_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    write_capture(dir.path());
    fs::write(dir.path().join("noise"), b"no capture at all").unwrap();
    fs::write(dir.path().join("empty"), b"").unwrap();
    for (arguments, code, part) in [
        (&["infer", "gone.pcap"][..], 1, "cannot open gone.pcap"),
        (&["infer", "noise"], 1, "not a capture file"),
        (&["exchanges", "empty"], 1, "empty"),
        (&["exchanges", "."], 1, "directory"),
        (&["infer", "capture.pcapng", "--service", "nope"], 1, "there are: orders, users"),
        (&["infer", "capture.pcapng", "--service", "../x"], 1, "cannot name a service"),
        (&["infer", "capture.pcapng", "--format", "pdf"], 2, "openapi-yaml"),
        (&["contracts", "list", "--server", "http://127.0.0.1:1"], 1, "Is stoa-gateway running"),
        (&["contracts", "list", "--server", "ftp://x"], 1, "--server http://HOST:PORT"),
    ] {
        let output = stoactl(dir.path(), arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
        assert!(error.contains(part), "{arguments:?}: `{part}` not in {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    write_capture(dir.path());
    let mut child = Command::new(env!("CARGO_BIN_EXE_stoactl"))
        .current_dir(dir.path())
        .args(["exchanges", "capture.pcapng", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
}
