//! A service to watch.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
};

/// Answers every request with `body` as JSON, on connections that stay open.
pub fn serve_json(body: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve_connection(stream, body));
        }
    });
    address
}

fn serve_connection(stream: TcpStream, body: &str) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut length = 0;
        let mut is_last = false;
        let mut lines = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let lower = line.to_lowercase();
            if let Some(value) = lower.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            is_last |= lower.starts_with("connection: close");
            lines += 1;
            if line == "\r\n" && lines > 1 {
                break;
            }
        }
        let mut request_body = vec![0; length];
        reader.read_exact(&mut request_body).ok()?;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        writer.write_all(answer.as_bytes()).ok()?;
        if is_last {
            return None;
        }
    }
}
