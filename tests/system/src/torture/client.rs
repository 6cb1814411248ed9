//! A client of HTTP/1.1 that sends a case's bytes and reads whatever comes back.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::Result;

/// Sent after every case: a proxy that has understood the case answers it and closes; one that
/// takes it for part of a body does not.
pub const LAST: &[u8] = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// Without a byte for so long, a proxy waits for more of the request.
const QUIET: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

/// What came back, and whether the proxy ended the connection by itself.
#[derive(Debug)]
pub struct Received {
    pub bytes: Vec<u8>,
    pub is_waiting: bool,
}

pub fn send(address: SocketAddr, bytes: &[u8]) -> Result<Received> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(QUIET))?;
    stream.set_write_timeout(Some(QUIET))?;
    // In one piece, so that what a proxy has sent on when it finds a fault is no matter of chance. One
    // that refuses may close before it has read everything.
    let _ = stream.write_all(&[bytes, LAST].concat());
    let mut received = Received { bytes: Vec::new(), is_waiting: false };
    let deadline = Instant::now() + PATIENCE;
    let mut piece = vec![0; 64 << 10];
    while Instant::now() < deadline {
        match stream.read(&mut piece) {
            Ok(0) => break,
            Ok(size) => received.bytes.extend_from_slice(&piece[..size]),
            Err(error)
                if !received.is_waiting
                    && matches!(
                        error.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                    ) =>
            {
                received.is_waiting = true;
                let _ = stream.shutdown(Shutdown::Both);
            }
            Err(_) => break,
        }
    }
    Ok(received)
}

impl Received {
    /// The answers in one line: `200(honest) 400`. `of_head` says that the first one answers HEAD.
    pub fn describe(&self, of_head: bool) -> String {
        let mut words: Vec<(String, u32)> = Vec::new();
        let mut rest = &self.bytes[..];
        let mut is_head = of_head;
        while !rest.is_empty() {
            let (word, after) = next_answer(rest, is_head);
            is_head &= word.starts_with('1');
            match words.last_mut() {
                Some((last, count)) if *last == word => *count += 1,
                _ => words.push((word, 1)),
            }
            rest = after;
        }
        let mut words: Vec<String> = words
            .into_iter()
            .map(|(word, count)| {
                if count > 3 {
                    format!("{word}x{count}")
                } else {
                    vec![word; count as usize].join(" ")
                }
            })
            .collect();
        if self.is_waiting {
            words.push("waits".to_owned());
        }
        words.join(" ")
    }
}

/// One answer as a word, and what follows it.
fn next_answer(bytes: &[u8], is_head: bool) -> (String, &[u8]) {
    let cut = |bytes: &[u8]| {
        let line = bytes.split(|b| *b == b'\n').next().unwrap_or_default();
        let line = &line[..line.len().min(40)];
        (format!("garbage({})", line.trim_ascii_end().escape_ascii()), &b""[..])
    };
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return cut(bytes);
    };
    let (head, body) = bytes.split_at(end + 4);
    let head = String::from_utf8_lossy(head);
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5));
    let Some(status) = status.filter(|s| s.bytes().all(|b| b.is_ascii_digit())) else {
        return cut(bytes);
    };
    let field = |wanted: &str| {
        head.split("\r\n")
            .filter_map(|line| line.split_once(':'))
            .find(|(name, _)| name.eq_ignore_ascii_case(wanted))
            .map(|(_, value)| value.trim().to_ascii_lowercase())
    };
    let has_none = is_head || status.starts_with('1') || status == "204" || status == "304";
    let (content, is_whole, rest) = if has_none {
        (Vec::new(), true, body)
    } else if field("transfer-encoding").is_some() {
        dechunk(body)
    } else if let Some(length) = field("content-length") {
        let length = length.parse().unwrap_or(usize::MAX);
        let is_whole = length <= body.len();
        let (content, rest) = body.split_at(length.min(body.len()));
        (content.to_vec(), is_whole, rest)
    } else {
        (body.to_vec(), true, &b""[..])
    };
    let mut word = status.to_owned();
    if status.starts_with('2') && !content.is_empty() {
        let shown = &content[..content.len().min(24)];
        word.push_str(&format!("({})", shown.escape_ascii()));
    }
    if !is_whole {
        word.push_str("[cut]");
    }
    (word, rest)
}

fn dechunk(bytes: &[u8]) -> (Vec<u8>, bool, &[u8]) {
    let mut content = Vec::new();
    let mut rest = bytes;
    while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
        let size = std::str::from_utf8(&rest[..end])
            .ok()
            .and_then(|line| usize::from_str_radix(line.split(';').next()?.trim(), 16).ok());
        let Some(size) = size else { break };
        rest = &rest[end + 2..];
        if size == 0 {
            // Trailers end with an empty line.
            while let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
                rest = &rest[end + 2..];
                if end == 0 {
                    return (content, true, rest);
                }
            }
            break;
        }
        if rest.len() < size + 2 {
            content.extend_from_slice(&rest[..size.min(rest.len())]);
            break;
        }
        content.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
    }
    (content, false, &b""[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn described(text: &str, of_head: bool) -> String {
        Received { bytes: text.as_bytes().to_vec(), is_waiting: false }.describe(of_head)
    }

    #[test]
    fn answers_are_told_in_one_line() {
        let text = "HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\
                    Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nHTTP/1.1 404 N\r\n\r\nno";
        assert_eq!(described(text, false), "103 200(ok) 200(abc) 404");
        assert_eq!(
            described("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab", false),
            "200(ab)[cut]"
        );
        assert_eq!(described("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), "200");
        assert_eq!(described("<html>\n", false), "garbage(<html>)");
        assert_eq!(described(&"HTTP/1.1 102 P\r\n\r\n".repeat(5), false), "102x5");
    }
}
