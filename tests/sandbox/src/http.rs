//! A client that says exactly which bytes it sends: pipelining and odd framing included.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// How a request body is framed (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    ContentLength,
    Chunked,
}

/// A response; `body` has no chunk framing but keeps its content coding.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection to a server.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, crate::patience(Duration::from_secs(5)))?;
        stream.set_nodelay(true)?;
        let patience = Some(crate::patience(Duration::from_secs(30)));
        stream.set_read_timeout(patience)?;
        stream.set_write_timeout(patience)?;
        Ok(Self { stream: BufReader::with_capacity(64 * 1024, stream) })
    }

    /// One that is open already.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream: BufReader::with_capacity(64 * 1024, stream) }
    }

    /// Sends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends one request and reads its response.
    pub fn exchange(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        self.write(&request(method, target, headers, body, Framing::ContentLength))?;
        self.receive(method == "HEAD")
    }

    /// Reads the next response. Interim responses (1xx) are skipped.
    pub fn receive(&mut self, is_head: bool) -> io::Result<Reply> {
        loop {
            let (status, headers) = self.head()?;
            let mut reply = Reply { status, headers, body: Vec::new() };
            if (100..200).contains(&status) {
                continue;
            }
            if !is_head && status != 204 && status != 304 {
                reply.body = self.body(&reply)?;
            }
            return Ok(reply);
        }
    }

    fn head(&mut self) -> io::Result<(u16, Vec<(String, String)>)> {
        let start = self.line()?;
        let status = start
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok())
            .ok_or_else(|| invalid(&format!("not a status line: {start:?}")))?;
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok((status, headers));
            }
            let (name, value) =
                line.split_once(':').ok_or_else(|| invalid(&format!("not a header: {line:?}")))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
    }

    fn body(&mut self, reply: &Reply) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if reply.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            loop {
                let line = self.line()?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16)
                    .map_err(|_| invalid(&format!("not a chunk size: {line:?}")))?;
                if size == 0 {
                    while !self.line()?.is_empty() {}
                    return Ok(body);
                }
                self.read_exactly(size, &mut body)?;
                self.line()?;
            }
        }
        match reply.header("content-length").map(str::parse::<u64>) {
            Some(Ok(length)) => self.read_exactly(length, &mut body)?,
            Some(Err(_)) => return Err(invalid("not a content length")),
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(body)
    }

    fn read_exactly(&mut self, length: u64, body: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.stream).take(length).read_to_end(body)?;
        if read as u64 != length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        line.truncate(line.trim_end_matches(['\r', '\n']).len());
        Ok(line)
    }
}

/// The bytes of a request. A body is framed whenever there is one, or the method expects one.
pub fn request(
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    framing: Framing,
) -> Vec<u8> {
    let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        bytes.extend_from_slice(b"Host: service.test\r\n");
    }
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    let expects_body = matches!(method, "POST" | "PUT" | "PATCH");
    match framing {
        _ if body.is_empty() && !expects_body => bytes.extend_from_slice(b"\r\n"),
        Framing::ContentLength => {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
        }
        Framing::Chunked => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            // Sizes that do not divide anything, so that chunks and segments end apart.
            for chunk in body.chunks(1499) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
    bytes
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str) -> io::Result<Reply> {
    Connection::open(address)?.exchange("GET", target, &[("Connection", "close")], b"")
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;

    /// Answers one connection with `answer` and returns what a client made of it.
    fn ask(answer: &'static str) -> io::Result<Reply> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let mut stream = BufReader::new(listener.accept().unwrap().0);
            let mut line = String::new();
            while stream.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            stream.get_mut().write_all(answer.as_bytes()).unwrap();
        });
        let reply = get(address, "/");
        server.join().unwrap();
        reply
    }

    #[test]
    fn bodies_are_read_by_their_framing() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n2\r\nde\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(ask(chunked).unwrap().body, b"abcde");
        let length =
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 C\r\ncontent-length: 2\r\n\r\nokrest";
        let reply = ask(length).unwrap();
        assert_eq!((reply.status, reply.body.as_slice()), (201, b"ok".as_slice()));
        assert_eq!(ask("HTTP/1.1 200 OK\r\n\r\nto the end").unwrap().body, b"to the end");
        assert_eq!(ask("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n").unwrap().body, b"");
    }

    #[test]
    fn a_short_body_is_an_error() {
        assert!(ask("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc").is_err());
        assert!(ask("nonsense\r\n\r\n").is_err());
    }

    #[test]
    fn requests_are_framed_as_asked() {
        let bytes = request("POST", "/a", &[("Host", "h")], b"xyz", Framing::Chunked);
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\n\r\n"
        );
        let bytes = request("POST", "/a", &[("Host", "h")], b"", Framing::ContentLength);
        assert!(bytes.ends_with(b"Content-Length: 0\r\n\r\n"));
    }
}
