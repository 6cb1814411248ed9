//! Bytes between two sockets, as they come.

use std::{cell::RefCell, io, time::Duration};

use tokio::net::TcpStream;

use super::detect::{Look, Protocol};

/// Read at once. One buffer serves all connections of a thread: an idle connection holds none.
const CHUNK: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// How a connection that passed through ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides said all they had to.
    Done,
    /// One side broke off, and the other was told so.
    Broken,
    /// It turned out to be HTTP after it had been let through.
    LateHttp,
}

/// Passes bytes both ways until both sides have ended. A half-close is passed on, a reset too.
/// `look`: what the client has sent so far, if it has not been decided.
pub async fn relay(client: &TcpStream, application: &TcpStream, look: Option<Look>) -> End {
    let (to_application, to_client) =
        (pass(client, application, look), pass(application, client, None));
    let ended = tokio::try_join!(to_application, to_client);
    match ended {
        Ok(_) => End::Done,
        Err(broken) => {
            reset(client);
            reset(application);
            match broken {
                Broken::LateHttp => End::LateHttp,
                Broken::Io => End::Broken,
            }
        }
    }
}

enum Broken {
    Io,
    LateHttp,
}

impl From<io::Error> for Broken {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// Copies until the end of the stream, then passes the half-close on.
async fn pass(from: &TcpStream, to: &TcpStream, mut look: Option<Look>) -> Result<(), Broken> {
    loop {
        from.readable().await?;
        // What the other side does not take at once is kept until it does: nothing more is read
        // meanwhile, so the sender feels the receiver's pace.
        let mut rest = Vec::new();
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let read = match from.try_read(scratch) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            };
            let bytes = scratch.get(..read).unwrap_or_default();
            if let Some(found) = look.as_mut().and_then(|look| look.see(bytes)) {
                if matches!(found, Protocol::Http1 | Protocol::Http2) {
                    return Err(Broken::LateHttp);
                }
                look = None;
            }
            let written = match to.try_write(bytes) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                other => other?,
            };
            rest.extend_from_slice(bytes.get(written..).unwrap_or_default());
            Ok(Some(read))
        })?;
        write_all(to, &rest).await?;
        if read == Some(0) {
            return Ok(shut(to)?);
        }
    }
}

/// Writes to a socket that is read from elsewhere at the same time.
pub async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Ends this side of the connection.
pub fn shut(stream: &TcpStream) -> io::Result<()> {
    match socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // It is gone already, and has said all it had to.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// Closing a socket with linger 0 sends RST (socket(7)).
pub fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
