//! A running gateway, and a client that reads answers by itself.

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

pub struct Gateway {
    child: Child,
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub directory: TempDir,
}

/// Sections of a configuration that forwards everything to one upstream, and more of them.
pub fn to_one(upstream: SocketAddr, more: &str) -> String {
    format!("upstreams: {{u: {{url: 'http://{upstream}'}}}}\nroutes: [{{upstream: u}}]\n{more}")
}

pub fn pause(millis: u64) {
    std::thread::park_timeout(Duration::from_millis(millis));
}

/// Waits until `check` gives something.
pub fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        pause(20);
    }
}

impl Gateway {
    /// `--upstream` and nothing else.
    pub fn before(upstream: SocketAddr, more: &[&str]) -> Self {
        let url = format!("http://{upstream}");
        Self::start("", &[&["--upstream", &url], more].concat())
    }

    /// With sections of a configuration file; `DIR` in it is the gateway's directory.
    pub fn start(sections: &str, more: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self::start_in(directory, sections, more)
    }

    pub fn start_in(directory: TempDir, sections: &str, more: &[&str]) -> Self {
        let file = directory.path().join("config.yaml");
        write(&file, sections, directory.path());
        let log = directory.path().join("log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_stoa-gateway"));
        command
            .env_clear()
            .env("HOME", directory.path())
            .env("STOA_ACCESS_LOG_ENABLED", "false")
            .args(["--mode=proxy", "--host=127.0.0.1", "--port=0", "--admin-port=0"])
            .args(["--workers=1", "--log-format=json"])
            .args(["--log-level=info,stoa_gateway::proxy=debug", "--config"])
            .arg(&file)
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let mut child = command.spawn().unwrap();
        let (address, admin) = eventually("the gateway listens", || {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            assert!(child.try_wait().unwrap().is_none(), "the gateway ended: {text}");
            let lines: Vec<Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let find = |message: &str, key: &str| {
                let line = lines.iter().find(|line| line["message"] == message)?;
                line[key].as_str()?.parse::<SocketAddr>().ok()
            };
            Some((find("listening", "address")?, find("ready", "admin")?))
        });
        Self { child, address, admin, directory }
    }

    pub fn rewrite(&self, sections: &str) {
        write(&self.directory.path().join("config.yaml"), sections, self.directory.path());
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub fn ask(&self, request: &str) -> Answer {
        let mut client = self.connect();
        client.send(request);
        client.answer()
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: example.com\r\n\r\n"))
    }

    pub fn own(&self, path: &str) -> Answer {
        let mut client = Client::connect(self.admin);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        client.answer()
    }

    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill")
            .args([format!("-{signal}"), self.child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    pub fn wait(&mut self) -> std::process::ExitStatus {
        eventually("the gateway ends", || self.child.try_wait().unwrap())
    }

    /// Resident memory in KiB, the highest so far.
    pub fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }
}

fn write(file: &Path, sections: &str, directory: &Path) {
    let text = sections.replace("DIR", directory.to_str().unwrap());
    std::fs::write(file, text).unwrap();
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.directory.path().join("log"));
            println!("--- gateway\n{}", log.unwrap_or_default());
        }
    }
}

pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        self.stream.write_all(text.as_ref()).unwrap();
    }

    /// More bytes; false at the end of the stream.
    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) => false,
            Ok(size) => {
                self.read.extend_from_slice(&piece[..size]);
                true
            }
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("{error}; so far: {:?}", String::from_utf8_lossy(&self.read)),
        }
    }

    pub fn take(&mut self, size: usize) -> Vec<u8> {
        while self.read.len() < size {
            assert!(self.fill(), "the answer ended early");
        }
        self.read.drain(..size).collect()
    }

    fn take_line(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line = self.read.drain(..end + 2).collect::<Vec<u8>>();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.fill(), "the answer ended early");
        }
    }

    pub fn head(&mut self) -> Option<Answer> {
        loop {
            if let Some(end) = self.read.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect::<Vec<u8>>();
                let head = String::from_utf8_lossy(&head).into_owned();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Some(Answer { status, head, body: Vec::new() });
            }
            if !self.fill() {
                assert!(self.read.is_empty(), "half a head: {:?}", self.read);
                return None;
            }
        }
    }

    pub fn answer(&mut self) -> Answer {
        self.answer_to("GET")
    }

    /// A whole answer, interim ones passed over.
    pub fn answer_to(&mut self, method: &str) -> Answer {
        let mut answer = self.head().expect("an answer");
        while answer.status < 200 && answer.status != 101 {
            answer = self.head().expect("an answer");
        }
        if method == "HEAD" || matches!(answer.status, 101 | 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == Some("chunked") {
            loop {
                let size = usize::from_str_radix(&self.take_line(), 16).unwrap();
                if size == 0 {
                    loop {
                        let line = self.take_line();
                        if line.is_empty() {
                            return answer;
                        }
                        answer.head.push_str(&format!("{line}\r\n"));
                    }
                }
                answer.body.extend(self.take(size));
                assert_eq!(self.take(2), b"\r\n");
            }
        }
        match answer.header("content-length").map(|l| l.parse().unwrap()) {
            Some(length) => answer.body = self.take(length),
            None => {
                while self.fill() {}
                answer.body = std::mem::take(&mut self.read);
            }
        }
        answer
    }

    /// Nothing more comes, and the connection is closed.
    pub fn is_closed(&mut self) -> bool {
        self.read.is_empty() && !self.fill() && self.read.is_empty()
    }

    pub fn buffered(&self) -> usize {
        self.read.len()
    }

    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.read)
    }
}
