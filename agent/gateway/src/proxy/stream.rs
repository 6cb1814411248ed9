//! A byte stream of a connection, plain or TLS, without an allocation for the plain kind.

use std::{
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};

pub trait Io: AsyncRead + AsyncWrite + Unpin {
    /// See [`Stream::acknowledge`]; what is no connection has nothing to do.
    fn acknowledge(&self) {}
}

/// In place of a connection that has been given away.
impl Io for tokio::io::Empty {}

/// Best effort: without it, the kernel does so in its own time.
pub fn acknowledge(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_tcp_quickack(true);
}

pub enum Stream {
    Tcp(TcpStream),
    ServerTls(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    ClientTls(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Other(Box<dyn Io>),
}

macro_rules! each {
    ($self:ident, $stream:ident => $action:expr) => {
        match $self.get_mut() {
            Self::Tcp($stream) => $action,
            Self::ServerTls($stream) => $action,
            Self::ClientTls($stream) => $action,
            Self::Other($stream) => $action,
        }
    };
}

impl Stream {
    /// Reads what there is to the end of `buffer`, at most its spare room. 0 bytes: the end.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        use std::future::Future;
        pin!(self.read_buf(buffer)).poll(cx)
    }

    /// Has the kernel acknowledge what was read, where it has not yet (tcp(7), `TCP_QUICKACK`).
    pub fn acknowledge(&self) {
        let stream = match self {
            Self::Tcp(stream) => stream,
            Self::ServerTls(stream) => stream.get_ref().0,
            Self::ClientTls(stream) => stream.get_ref().0,
            Self::Other(stream) => return stream.acknowledge(),
        };
        acknowledge(stream);
    }

    /// Whether several slices are better handed over as they are than copied together.
    pub fn gathers(&self) -> bool {
        match self {
            Self::Tcp(_) => true,
            Self::ServerTls(_) | Self::ClientTls(_) => false,
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => Pin::new(stream).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::ServerTls(stream) => stream.is_write_vectored(),
            Self::ClientTls(stream) => stream.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => Pin::new(stream).poll_shutdown(cx))
    }
}

/// A stream of which something was read already.
pub struct Rewound {
    read: BytesMut,
    stream: Stream,
}

impl Rewound {
    pub fn new(read: BytesMut, stream: Stream) -> Self {
        Self { read, stream }
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let size = self.read.len().min(buffer.remaining());
        buffer.put_slice(&self.read.split_to(size));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What is to be written next: heads and small bodies copied together, and one large piece that is
/// handed to the kernel as it is.
#[derive(Debug, Default)]
pub struct Outbox {
    small: Vec<u8>,
    /// How much of `small` has gone.
    gone: usize,
    large: Bytes,
    tail: &'static [u8],
}

/// Up to this size, copying costs less than a slice of its own.
const COPIED: usize = 16 << 10;

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.small.is_empty() && self.large.is_empty() && self.tail.is_empty()
    }

    /// No more should be added before something is written.
    pub fn is_full(&self) -> bool {
        !self.large.is_empty() || self.small.len() >= COPIED
    }

    /// To append to. Only while there is no large piece.
    pub fn text(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.large.is_empty());
        &mut self.small
    }

    /// A piece of a body, and what comes after it.
    pub fn push(&mut self, data: Bytes, tail: &'static [u8]) {
        debug_assert!(self.large.is_empty());
        if data.len() <= COPIED {
            self.small.extend_from_slice(&data);
            self.small.extend_from_slice(tail);
        } else {
            self.large = data;
            self.tail = tail;
        }
    }

    /// Writes everything and flushes.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<()>> {
        if self.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.is_empty() {
            let mut stream = Pin::new(&mut *stream);
            let small = self.small.get(self.gone..).unwrap_or_default();
            let written = if self.large.is_empty() {
                debug_assert!(self.tail.is_empty() || small.is_empty());
                let slice = if small.is_empty() { self.tail } else { small };
                std::task::ready!(stream.as_mut().poll_write(cx, slice))?
            } else if stream.gathers() {
                let slices = [small, &self.large, self.tail].map(IoSlice::new);
                std::task::ready!(stream.as_mut().poll_write_vectored(cx, &slices))?
            } else {
                let slice = if small.is_empty() { &self.large[..] } else { small };
                std::task::ready!(stream.as_mut().poll_write(cx, slice))?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.advance(written);
        }
        match stream {
            // Nothing is kept back by a socket.
            Stream::Tcp(_) => Poll::Ready(Ok(())),
            other => Pin::new(other).poll_flush(cx),
        }
    }

    fn advance(&mut self, mut count: usize) {
        let small = count.min(self.small.len() - self.gone);
        self.gone += small;
        if self.gone == self.small.len() {
            // Keeps the memory for the next message.
            self.small.clear();
            self.gone = 0;
        }
        count -= small;
        let large = count.min(self.large.len());
        self.large.advance(large);
        count -= large;
        self.tail = self.tail.get(count..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    /// Takes a few bytes at a time.
    #[derive(Default)]
    struct Narrow {
        taken: std::rc::Rc<std::cell::RefCell<Vec<u8>>>,
    }

    impl Io for Narrow {}

    impl AsyncRead for Narrow {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            _: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            Poll::Pending
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let size = bytes.len().min(7);
            self.taken.borrow_mut().extend_from_slice(&bytes[..size]);
            Poll::Ready(Ok(size))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn pieces_leave_in_order_however_little_is_taken() {
        let narrow = Narrow::default();
        let taken = std::rc::Rc::clone(&narrow.taken);
        let mut stream = Stream::Other(Box::new(narrow));
        let mut outbox = Outbox::default();
        outbox.text().extend_from_slice(b"head ");
        outbox.push(Bytes::from_static(b"small"), b"\r\n");
        assert!(!outbox.is_full());
        outbox.push(Bytes::from(vec![b'x'; COPIED + 1]), b"\r\n");
        assert!(outbox.is_full());
        std::future::poll_fn(|cx| outbox.poll_write(cx, &mut stream)).await.unwrap();
        stream.flush().await.unwrap();
        let expected = format!("head small\r\n{}\r\n", "x".repeat(COPIED + 1));
        assert_eq!(taken.borrow().as_slice(), expected.as_bytes());
        assert!(outbox.is_empty());
    }
}
