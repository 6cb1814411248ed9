//! One line of JSON for each answer. A worker hands lines over without waiting; a thread writes
//! them. What the thread cannot keep up with is dropped and counted.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use serde_json::Value;

use crate::proxy::request::Record;

/// Lines that may wait to be written.
const MOST_WAITING: usize = 4096;
/// A file of this size is renamed to `NAME.1`, and a new one begun.
const ROTATE_AT: u64 = 64 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Destination {
    #[default]
    Off,
    Stdout,
    File(PathBuf),
}

pub struct AccessLog {
    lines: Option<SyncSender<String>>,
    /// One answer in so many is logged, and every answer of 500 and above.
    one_in: u64,
    count: AtomicU64,
    dropped: AtomicU64,
}

impl AccessLog {
    pub fn start(destination: &Destination, one_in: u64) -> io::Result<Self> {
        let lines = match destination {
            Destination::Off => None,
            Destination::Stdout => Some(spawn(Output::Stdout)?),
            Destination::File(path) => Some(spawn(Output::open(path)?)?),
        };
        Ok(Self {
            lines,
            one_in: one_in.max(1),
            count: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    pub fn is_enabled(&self) -> bool {
        self.lines.is_some()
    }

    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    pub fn write(
        &self,
        record: &Record,
        status: StatusCode,
        bytes: u64,
        took: Duration,
        is_whole: bool,
    ) {
        let Some(lines) = &self.lines else { return };
        if self.one_in > 1 && !status.is_server_error() {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            if !count.is_multiple_of(self.one_in) {
                return;
            }
        }
        let line = format_line(record, status, bytes, took, is_whole);
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(line) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Path without query, since queries carry secrets; no header but the request's identifier.
fn format_line(
    record: &Record,
    status: StatusCode,
    bytes: u64,
    took: Duration,
    is_whole: bool,
) -> String {
    use std::fmt::Write as _;
    let mut line = String::with_capacity(320);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let _ = write!(
        line,
        "{{\"time\":{}.{:03},\"method\":\"{}\",\"path\":{},\"status\":{},\"bytes\":{bytes},\
         \"duration_us\":{}",
        now.as_secs(),
        now.subsec_millis(),
        record.method,
        Value::from(record.path.as_str()),
        status.as_u16(),
        took.as_micros(),
    );
    let mut put = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = write!(line, ",\"{name}\":{}", Value::from(value));
        }
    };
    put("route", record.route.as_deref());
    put("tenant", record.tenant.as_deref());
    put("upstream", record.upstream.as_deref());
    put("subject", record.identity.as_deref());
    put("request_id", record.request_id.as_ref().and_then(|id| id.to_str().ok()));
    put("code", record.code);
    put("policy", record.policy);
    if record.retries > 0 {
        let _ = write!(line, ",\"retries\":{}", record.retries);
    }
    if !is_whole {
        line.push_str(",\"cut_off\":true");
    }
    line.push_str("}\n");
    line
}

enum Output {
    Stdout,
    File { path: PathBuf, file: File, size: u64 },
}

impl Output {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let size = file.metadata()?.len();
        Ok(Self::File { path: path.to_owned(), file, size })
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => io::stdout().lock().write_all(lines),
            Self::File { path, file, size } => {
                file.write_all(lines)?;
                *size += lines.len() as u64;
                if *size >= ROTATE_AT {
                    let mut old = path.clone().into_os_string();
                    old.push(".1");
                    std::fs::rename(&*path, old)?;
                    *file = OpenOptions::new().create(true).append(true).open(&*path)?;
                    *size = 0;
                }
                Ok(())
            }
        }
    }
}

fn spawn(mut output: Output) -> io::Result<SyncSender<String>> {
    let (sender, receiver) = sync_channel(MOST_WAITING);
    std::thread::Builder::new()
        .name("access-log".to_owned())
        .spawn(move || write_all(&receiver, &mut output))?;
    Ok(sender)
}

/// Until every sender is gone.
fn write_all(receiver: &Receiver<String>, output: &mut Output) {
    let mut has_failed = false;
    while let Ok(first) = receiver.recv() {
        let mut lines = first;
        while lines.len() < (64 << 10)
            && let Ok(next) = receiver.try_recv()
        {
            lines.push_str(&next);
        }
        let written = output.write(lines.as_bytes());
        if let Err(error) = &written
            && !has_failed
        {
            tracing::error!(%error, "the access log cannot be written");
        }
        has_failed = written.is_err();
    }
}

#[cfg(test)]
mod tests {
    use http::Method;
    use tokio::time::Instant;

    use super::*;

    #[test]
    fn lines_are_json_whatever_a_client_sends() {
        let mut record = Record::new(Instant::now(), &Method::GET);
        record.path = "/a\"b\u{1}".to_owned();
        record.route = Some("orders".into());
        let line = format_line(&record, StatusCode::OK, 7, Duration::from_micros(9), false);
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["path"], "/a\"b\u{1}");
        assert_eq!((&value["route"], &value["cut_off"]), (&"orders".into(), &true.into()));
        assert!(line.ends_with("}\n"));
    }

    #[test]
    fn a_file_gets_every_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.log");
        let log = AccessLog::start(&Destination::File(path.clone()), 1).unwrap();
        let record = Record::new(Instant::now(), &Method::GET);
        for _ in 0..100 {
            log.write(&record, StatusCode::OK, 0, Duration::ZERO, true);
        }
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            if lines == 100 {
                break;
            }
            assert!(std::time::Instant::now() < deadline, "{lines} lines");
            std::thread::yield_now();
        }
        assert_eq!(log.dropped(), 0);
    }
}
