//! A running agent, and a client for it.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

pub struct Agent {
    child: Child,
    pub api: SocketAddr,
    /// Where clients of the watched service connect.
    pub inline: Option<SocketAddr>,
    pub directory: PathBuf,
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// The binary with a clean environment.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stoa-gateway"));
    command.env_clear().env("HOME", "/nonexistent");
    command
}

pub fn pause(millis: u64) {
    std::thread::park_timeout(Duration::from_millis(millis));
}

/// Waits until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        pause(20);
    }
}

impl Agent {
    /// Starts the agent in Inline capture before `target`, with its state below `directory`.
    pub fn start(directory: &Path, target: SocketAddr, more: &[&str]) -> Self {
        let target = format!("http://{target}");
        let mut arguments = vec![
            "--capture=inline",
            "--target",
            &target,
            "--inline-listen=127.0.0.1:0",
            "--log-format=json",
        ];
        arguments.extend(more);
        Self::start_with(directory, &arguments)
    }

    pub fn start_with(directory: &Path, arguments: &[&str]) -> Self {
        let log = directory.join("log");
        let child = command()
            .current_dir(directory)
            .args(["--host=127.0.0.1", "--port=0", "--state-dir=state", "--output=out"])
            .args(arguments)
            .stdout(File::create(directory.join("stdout")).unwrap())
            .stderr(File::create(&log).unwrap())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let mut agent = Self {
            child,
            api: SocketAddr::from(([127, 0, 0, 1], 0)),
            inline: None,
            directory: directory.to_owned(),
        };
        let ready = eventually("the agent is ready", || {
            let text = std::fs::read_to_string(&log).unwrap();
            if let Some(status) = agent.child.try_wait().unwrap() {
                panic!("the agent ended ({status}): {text}");
            }
            text.contains("\"ready\"").then_some(text)
        });
        for line in ready.lines().filter_map(|l| serde_json::from_str::<Value>(l).ok()) {
            let message = line["message"].as_str().unwrap_or("");
            if message == "ready" {
                agent.api = line["address"].as_str().unwrap().parse().unwrap();
            }
            if let Some(rest) = message.strip_prefix("Inline: clients that connect to ") {
                agent.inline = rest.split(' ').next().unwrap().parse().ok();
            }
        }
        agent
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap()
    }

    pub fn get(&self, path: &str) -> Answer {
        request(self.api, "GET", path, &[], b"")
    }

    pub fn get_as(&self, path: &str, accept: &str) -> Answer {
        request(self.api, "GET", path, &[("Accept", accept)], b"")
    }

    /// Sends `count` requests to the watched service over one connection each.
    pub fn drive(&self, count: usize, path: impl Fn(usize) -> String) {
        for n in 0..count {
            let answer = request(self.inline.unwrap(), "GET", &path(n), &[], b"");
            assert_eq!(answer.status, 200);
        }
    }

    pub fn wait_for_exchanges(&self, count: u64) {
        eventually("the exchanges are recorded", || {
            let captured = self.get("/shadow/status").json()["transactions_captured"].as_u64();
            (captured.unwrap() >= count).then_some(())
        });
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status();
        assert!(sent.unwrap().success());
    }

    /// Stops it as `systemctl stop` or Ctrl-C would.
    pub fn stop(mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        eventually("the agent stops", || self.child.try_wait().unwrap())
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        assert_eq!(self.child.wait().unwrap().signal(), Some(9));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One request on a connection of its own.
pub fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
    stream.write_all(head.as_bytes()).unwrap();
    // The agent may refuse a body before it has all of it.
    let _ = stream.write_all(body);
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}
