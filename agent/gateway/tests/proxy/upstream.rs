//! Upstreams that do exactly what a test says.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

pub struct Upstream {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    /// Every byte that came, connection after connection.
    received: Arc<Mutex<Vec<u8>>>,
}

/// One request as it came.
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn line(&self) -> &str {
        self.head.lines().next().unwrap_or("")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (own, value) = line.split_once(':')?;
            own.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Upstream {
    /// `serve` has a connection to itself until it returns.
    pub fn start(serve: impl Fn(&mut Connection) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let received = Arc::new(Mutex::new(Vec::new()));
        let (serve, count, all) =
            (Arc::new(serve), Arc::clone(&connections), Arc::clone(&received));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let number = count.fetch_add(1, Ordering::SeqCst);
                let (serve, all) = (Arc::clone(&serve), Arc::clone(&all));
                std::thread::spawn(move || {
                    serve(&mut Connection { stream, number, read: Vec::new(), all });
                });
            }
        });
        Self { address, connections, received }
    }

    /// Answers every request with what `answer` makes of it.
    pub fn answering(answer: impl Fn(&Received) -> String + Send + Sync + 'static) -> Self {
        Self::start(move |connection| {
            while let Some(request) = connection.request() {
                connection.send(answer(&request));
            }
        })
    }

    /// Says what it got: the first line, the headers and the body.
    pub fn echo() -> Self {
        Self::answering(|request| {
            let body = format!("{}{}", request.head, String::from_utf8_lossy(&request.body));
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
        })
    }

    pub fn connection_count(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub fn received(&self) -> String {
        String::from_utf8_lossy(&self.received.lock().unwrap()).into_owned()
    }
}

pub struct Connection {
    pub stream: TcpStream,
    pub number: usize,
    read: Vec<u8>,
    all: Arc<Mutex<Vec<u8>>>,
}

impl Connection {
    fn fill(&mut self) -> bool {
        let mut piece = [0; 64 << 10];
        match self.stream.read(&mut piece) {
            Ok(0) | Err(_) => false,
            Ok(size) => {
                self.read.extend_from_slice(&piece[..size]);
                let mut all = self.all.lock().unwrap();
                if all.len() < 1 << 20 {
                    all.extend_from_slice(&piece[..size]);
                }
                true
            }
        }
    }

    /// What there is next; empty at the end.
    pub fn some(&mut self) -> Vec<u8> {
        if self.read.is_empty() {
            self.fill();
        }
        std::mem::take(&mut self.read)
    }

    pub fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.read.len() < size {
            if !self.fill() {
                return None;
            }
        }
        Some(self.read.drain(..size).collect())
    }

    pub fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|w| w == b"\r\n") {
                let line = self.read.drain(..end + 2).collect::<Vec<u8>>();
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.fill() {
                return None;
            }
        }
    }

    pub fn head(&mut self) -> Option<Received> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            head.push_str(&format!("{line}\r\n"));
            if line.is_empty() {
                return Some(Received { head, body: Vec::new() });
            }
        }
    }

    pub fn request(&mut self) -> Option<Received> {
        let mut request = self.head()?;
        if request.header("transfer-encoding").is_some() {
            loop {
                let size = usize::from_str_radix(&self.line()?, 16).ok()?;
                if size == 0 {
                    loop {
                        let line = self.line()?;
                        if line.is_empty() {
                            return Some(request);
                        }
                        request.head.push_str(&format!("trailer {line}\r\n"));
                    }
                }
                request.body.extend(self.take(size)?);
                self.take(2)?;
            }
        }
        let length = request.header("content-length").map_or(0, |l| l.parse().unwrap());
        request.body = self.take(length)?;
        Some(request)
    }

    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(text.as_ref());
    }
}
