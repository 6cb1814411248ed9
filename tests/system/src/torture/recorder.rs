//! An upstream that notes every byte it gets, by connection, and answers as it is told.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    corpus::Then,
    reading::{self, Rest},
};

/// What it says to the first request of a case; every other one gets `honest`.
#[derive(Clone, Debug)]
pub struct Script {
    pub answer: Vec<u8>,
    pub then: Then,
    pub is_early: bool,
}

pub const HONEST: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhonest";
/// A connection that begins so is our own.
const MARKER: &[u8] = b"\0accepted?\0";

#[derive(Debug)]
pub struct Recorder {
    pub address: SocketAddr,
    script: Arc<Mutex<Option<Script>>>,
    connections: Receiver<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    stream: TcpStream,
    reader: JoinHandle<Vec<u8>>,
}

impl Recorder {
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let script = Arc::default();
        let (sender, connections) = channel();
        let scripts = Arc::clone(&script);
        // Ends with the test's process.
        thread::spawn(move || accept(&listener, &scripts, &sender));
        Ok(Self { address, script, connections })
    }

    pub fn begin(&self, script: Option<Script>) {
        *self.script.lock().unwrap_or_else(PoisonError::into_inner) = script;
    }

    /// What came since the last call, a connection each. They are closed.
    pub fn end(&self) -> Result<Vec<Vec<u8>>> {
        // Connections are accepted in their order: when ours is, all before it were.
        let mut marker = TcpStream::connect(self.address)?;
        marker.write_all(MARKER)?;
        let mut streams = Vec::new();
        loop {
            let next = self.connections.recv_timeout(Duration::from_secs(20));
            let Recorded { stream, reader } = next.context("the recorder accepts no more")?;
            if stream.peer_addr().ok() == marker.local_addr().ok() {
                break;
            }
            // What has arrived is still read (tcp(7): pending data first, then the end).
            let _ = stream.shutdown(Shutdown::Both);
            streams.push(reader.join().unwrap_or_default());
        }
        // A proxy may connect ahead of need.
        streams.retain(|bytes| !bytes.is_empty());
        Ok(streams)
    }
}

fn accept(listener: &TcpListener, script: &Arc<Mutex<Option<Script>>>, to: &Sender<Recorded>) {
    for stream in listener.incoming().flatten() {
        let Ok(reading) = stream.try_clone() else { continue };
        let script = Arc::clone(script);
        let reader = thread::spawn(move || serve(reading, &script));
        if to.send(Recorded { stream, reader }).is_err() {
            return;
        }
    }
}

fn serve(mut stream: TcpStream, script: &Mutex<Option<Script>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut piece = vec![0; 64 << 10];
    let (mut answered, mut is_closed) = (0, false);
    while let Ok(size) = stream.read(&mut piece) {
        if size == 0 {
            break;
        }
        bytes.extend_from_slice(&piece[..size]);
        if is_closed || bytes.starts_with(MARKER) {
            continue;
        }
        let found = reading::strictly(&bytes);
        let mut due = found.messages.len();
        if matches!(found.rest, Rest::Body(_)) && is_early(script) {
            due += 1;
        }
        while answered < due && !is_closed {
            answered += 1;
            let told = script.lock().unwrap_or_else(PoisonError::into_inner).take();
            let written = match &told {
                Some(script) => stream.write_all(&script.answer),
                None => stream.write_all(HONEST),
            };
            if written.is_err() || told.is_some_and(|script| script.then == Then::Close) {
                let _ = stream.shutdown(Shutdown::Write);
                is_closed = true;
            }
        }
        if matches!(found.rest, Rest::Garbage(_)) && !is_closed {
            let _ = stream.shutdown(Shutdown::Write);
            is_closed = true;
        }
    }
    bytes
}

fn is_early(script: &Mutex<Option<Script>>) -> bool {
    let script = script.lock().unwrap_or_else(PoisonError::into_inner);
    script.as_ref().is_some_and(|script| script.is_early)
}
