//! Inline capture of a real server, from start to Ctrl-C.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use crate::agent::Agent;

struct Python(Child);

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `python3 -m http.server`, or the address of nothing where there is no Python.
fn serve_files(directory: &std::path::Path) -> (Python, SocketAddr) {
    let mut child = Command::new("python3")
        .args(["-u", "-m", "http.server", "--bind", "127.0.0.1", "0"])
        .current_dir(directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("python3 is installed");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    // Serving HTTP on 127.0.0.1 port 40123 (http://127.0.0.1:40123/) ...
    let port = line.split("port ").nth(1).and_then(|r| r.split(' ').next()).unwrap();
    (Python(child), SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())))
}

#[test]
fn a_file_server_is_read_and_summarised_at_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join("files");
    std::fs::create_dir(&files).unwrap();
    let page = "x".repeat(200_000);
    std::fs::write(files.join("index.html"), &page).unwrap();
    let (_python, address) = serve_files(&files);
    let agent = Agent::start(dir.path(), address, &["--service=files", "--summary"]);
    for _ in 0..5 {
        let answer = crate::agent::request(agent.inline.unwrap(), "GET", "/", &[], b"");
        assert_eq!(answer.status, 200);
        assert!(answer.body == page, "the body passes unchanged");
    }
    agent.wait_for_exchanges(5);
    let directory = agent.directory.clone();
    assert!(agent.stop("-INT").success());
    let stdout = std::fs::read_to_string(directory.join("stdout")).unwrap();
    let last = stdout.lines().last().unwrap();
    assert_eq!(last, "contract: out/files.openapi.yaml (1 operations from 5 exchanges, 0 lost)");
    assert!(directory.join("out/files.openapi.yaml").is_file());
}

#[test]
fn without_a_summary_little_traffic_makes_no_contract() {
    let dir = tempfile::tempdir().unwrap();
    let agent = Agent::start(dir.path(), crate::server::serve_json("{}"), &[]);
    agent.drive(3, |_| "/ping".to_owned());
    agent.wait_for_exchanges(3);
    let directory = agent.directory.clone();
    assert!(agent.stop("-TERM").success());
    assert!(!directory.join("out").exists());
    assert_eq!(std::fs::read_to_string(directory.join("stdout")).unwrap(), "");
}

#[test]
fn what_was_recorded_is_read_again_from_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let record = dir.path().join("rec.pcapng");
    let target = crate::server::serve_json(r#"{"n": 1}"#);
    let arguments = ["--service=orders", "--record", record.to_str().unwrap()];
    let agent = Agent::start(dir.path(), target, &arguments);
    agent.drive(6, |n| format!("/orders/{n}"));
    agent.wait_for_exchanges(6);
    assert!(agent.stop("-TERM").success());

    let again = tempfile::tempdir().unwrap();
    let watch = format!("--watch=again=port:{}", target.port());
    let arguments = ["--log-format=json", "--summary", &watch, "--pcap", record.to_str().unwrap()];
    let agent = Agent::start_with(again.path(), &arguments);
    agent.wait_for_exchanges(6);
    assert!(agent.stop("-INT").success());
    let stdout = std::fs::read_to_string(again.path().join("stdout")).unwrap();
    assert!(
        stdout.ends_with("out/again.openapi.yaml (1 operations from 6 exchanges, 0 lost)\n"),
        "{stdout}"
    );
}
