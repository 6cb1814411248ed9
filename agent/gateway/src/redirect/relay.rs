//! Bytes between two sockets, as they come.

use std::{
    cell::{Cell, RefCell},
    io::{self, Read as _},
    time::Duration,
};

use socket2::SockRef;
use tokio::{io::Interest, net::TcpStream};

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
///
/// When it is done, both connections are to be dropped: that ends the side that had the last word.
pub async fn relay(client: &TcpStream, application: &TcpStream, look: Option<Look>) -> End {
    let has_other_ended = Cell::new(false);
    let (to_application, to_client) = (
        pass(client, application, look, &has_other_ended),
        pass(application, client, None, &has_other_ended),
    );
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
async fn pass(
    from: &TcpStream,
    to: &TcpStream,
    mut look: Option<Look>,
    has_other_ended: &Cell<bool>,
) -> Result<(), Broken> {
    loop {
        // Where the end is known to follow, the last bytes wait for it and go in one segment.
        let is_ending = from.ready(Interest::READABLE).await?.is_read_closed();
        // What the other side does not take at once is kept until it does: nothing more is read
        // meanwhile, so the sender feels the receiver's pace.
        let mut rest = Vec::new();
        let read = SCRATCH.with_borrow_mut(|scratch| {
            let read = match try_read(from, scratch) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                other => other?,
            };
            let bytes = scratch.get(..read).unwrap_or_default();
            if bytes.is_empty() {
                return Ok(Some(0));
            }
            if let Some(found) = look.as_mut().and_then(|look| look.see(bytes)) {
                if matches!(found, Protocol::Http1 | Protocol::Http2) {
                    return Err(Broken::LateHttp);
                }
                look = None;
            }
            let flags = if is_ending { libc::MSG_MORE } else { 0 };
            let write = || SockRef::from(to).send_with_flags(bytes, flags);
            let written = match to.try_io(Interest::WRITABLE, write) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => 0,
                other => other?,
            };
            rest.extend_from_slice(bytes.get(written..).unwrap_or_default());
            Ok(Some(read))
        })?;
        write_all(to, &rest).await?;
        if read == Some(0) {
            // What has ended both ways is closed at once, which says the same.
            return match has_other_ended.replace(true) {
                true => Ok(()),
                false => Ok(shut(to)?),
            };
        }
    }
}

/// Like [`TcpStream::try_read`], but a read that leaves room has taken all there was: it is not
/// tried again before more is known to have come (epoll(7), question 9).
fn try_read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut all = None;
    let read = from.try_io(Interest::READABLE, || {
        let read = read_now(from, buffer)?;
        if read > 0 && read < buffer.len() {
            all = Some(read);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(read)
    });
    all.map_or(read, Ok)
}

/// Whether or not anything is known to have come.
fn read_now(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(from)).read(buffer)
}

/// What has come so far, at most so many bytes; `None` if nothing has, empty at the end.
pub fn read_what_came(from: &TcpStream, most: usize) -> io::Result<Option<Vec<u8>>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let most = most.min(scratch.len());
        let scratch = scratch.get_mut(..most).unwrap_or_default();
        // Where nothing is known to have come, only the kernel is asked.
        let read = match try_read(from, scratch) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => read_now(from, scratch),
            read => read,
        };
        match read {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(None),
            read => Ok(Some(scratch.get(..read?).unwrap_or_default().to_vec())),
        }
    })
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
    match SockRef::from(stream).shutdown(std::net::Shutdown::Write) {
        // It is gone already, and has said all it had to.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// Closing a socket with linger 0 sends RST (socket(7)).
pub fn reset(stream: &TcpStream) {
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (far, listener.accept().await.unwrap().0)
    }

    /// Whoever ends first, the other can still say all it has to.
    #[tokio::test]
    async fn what_is_said_after_the_other_has_ended_arrives() {
        let long = vec![b'x'; 3 << 20];
        for client_ends_first in [true, false] {
            let ((mut client, near), (mut application, far)) = (pair().await, pair().await);
            let (first, last) = match client_ends_first {
                true => (&mut client, &mut application),
                false => (&mut application, &mut client),
            };
            let relayed = async {
                let end = relay(&near, &far, None).await;
                drop((near, far));
                end
            };
            let first = async {
                first.write_all(b"all").await.unwrap();
                first.shutdown().await.unwrap();
                let mut heard = Vec::new();
                first.read_to_end(&mut heard).await.unwrap();
                heard
            };
            let last = async {
                let mut heard = Vec::new();
                last.read_to_end(&mut heard).await.unwrap();
                last.write_all(&long).await.unwrap();
                last.shutdown().await.unwrap();
                heard
            };
            let (end, by_first, by_last) = tokio::join!(relayed, first, last);
            assert_eq!((end, by_last.as_slice()), (End::Done, b"all".as_slice()));
            assert!(by_first == long, "{} bytes", by_first.len());
        }
    }

    #[tokio::test]
    async fn what_came_is_read_before_it_is_known_to_have_come() {
        let (mut far, near) = pair().await;
        assert_eq!(read_what_came(&near, 8).unwrap(), None);
        far.write_all(b"0123456789").await.unwrap();
        // Written to loopback is arrived; nothing has told the runtime so.
        assert_eq!(read_what_came(&near, 8).unwrap().unwrap(), b"01234567");
        assert_eq!(read_what_came(&near, 8).unwrap().unwrap(), b"89");
        far.shutdown().await.unwrap();
        assert_eq!(read_what_came(&near, 8).unwrap().unwrap(), b"");
    }
}
