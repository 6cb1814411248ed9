//! The receiving half of a connection: what was read and not used yet, and how far the body of
//! the current message is.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use hyper::body::Frame;

use super::{
    chunked::{self, Step},
    length::Length,
};
use crate::proxy::{body::BodyError, stream::Stream};

const SMALL_READ: usize = 8 << 10;
const LARGE_READ: usize = 64 << 10;

#[derive(Debug, Default)]
pub struct Reader {
    pub buffer: BytesMut,
    /// How far `buffer` was searched for the end of a head.
    pub scanned: usize,
    body: BodyState,
    /// What was read last has not been acknowledged by us.
    is_owing: bool,
}

#[derive(Debug, Default)]
enum BodyState {
    #[default]
    Done,
    Exact(u64),
    Chunked(chunked::Decoder),
    UntilClose,
    /// It cannot be read, so nobody knows where the next message begins.
    Failed,
}

impl Reader {
    pub fn with(buffer: BytesMut) -> Self {
        Self { buffer, ..Self::default() }
    }

    pub fn begin_body(&mut self, length: Length) {
        self.body = match length {
            Length::Exact(0) => BodyState::Done,
            Length::Exact(left) => BodyState::Exact(left),
            Length::Unknown => BodyState::Chunked(chunked::Decoder::default()),
            Length::UntilClose => BodyState::UntilClose,
        };
    }

    pub fn is_body_done(&self) -> bool {
        matches!(self.body, BodyState::Done)
    }

    /// What is left of the body, where that is known.
    pub fn remaining(&self) -> Length {
        match &self.body {
            BodyState::Done => Length::NONE,
            BodyState::Exact(left) => Length::Exact(*left),
            BodyState::Chunked(_) | BodyState::Failed => Length::Unknown,
            BodyState::UntilClose => Length::UntilClose,
        }
    }

    /// Reads more into the buffer; 0 bytes: the other side has ended.
    pub fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        if self.buffer.capacity() - self.buffer.len() < SMALL_READ / 2 {
            let expects = match &self.body {
                BodyState::Exact(left) => *left,
                BodyState::Chunked(decoder) => decoder.expects(),
                BodyState::UntilClose => LARGE_READ as u64,
                BodyState::Done | BodyState::Failed => 0,
            };
            let is_large = expects > SMALL_READ as u64;
            self.buffer.reserve(if is_large { LARGE_READ } else { SMALL_READ });
        }
        let read = ready!(stream.poll_fill(cx, &mut self.buffer))?;
        self.is_owing = true;
        Poll::Ready(Ok(read))
    }

    /// Acknowledges what came of a body whose little rest has not come. A sender may keep its last
    /// segment until then (Nagle's algorithm, RFC 9293 section 3.7.4, or a corked socket), and our
    /// kernel, which expects us to answer, would take 40 ms.
    fn acknowledge(&mut self, stream: &Stream) {
        let is_near_end = matches!(self.body, BodyState::Exact(left) if left <= LARGE_READ as u64);
        if is_near_end && std::mem::take(&mut self.is_owing) {
            stream.acknowledge();
        }
    }

    /// The next piece of the body; `None` when it is over.
    pub fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        stream: &mut Stream,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            match self.next_buffered() {
                Ok(Buffered::Frame(frame)) => return Poll::Ready(Some(Ok(frame))),
                Ok(Buffered::End) => return Poll::Ready(None),
                Ok(Buffered::NeedsMore) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            let Poll::Ready(filled) = self.poll_fill(cx, stream) else {
                self.acknowledge(stream);
                return Poll::Pending;
            };
            match filled {
                Ok(0) if matches!(self.body, BodyState::UntilClose) => {
                    self.body = BodyState::Done;
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(BodyError::CutShort))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(BodyError::Io(error)))),
            }
        }
    }

    /// Reads over what is there of the body; true when that was all of it.
    pub fn discard_buffered(&mut self) -> bool {
        loop {
            match self.next_buffered() {
                Ok(Buffered::Frame(_)) => {}
                Ok(Buffered::End) => return true,
                Ok(Buffered::NeedsMore) | Err(_) => return false,
            }
        }
    }

    fn next_buffered(&mut self) -> Result<Buffered, BodyError> {
        match &mut self.body {
            BodyState::Done => Ok(Buffered::End),
            BodyState::Failed => Err(BodyError::CutShort),
            BodyState::Exact(left) => {
                if self.buffer.is_empty() {
                    return Ok(Buffered::NeedsMore);
                }
                let here = usize::try_from(*left).unwrap_or(usize::MAX).min(self.buffer.len());
                *left -= here as u64;
                if *left == 0 {
                    self.body = BodyState::Done;
                }
                Ok(Buffered::Frame(Frame::data(self.buffer.split_to(here).freeze())))
            }
            BodyState::UntilClose => match self.buffer.is_empty() {
                true => Ok(Buffered::NeedsMore),
                false => Ok(Buffered::Frame(Frame::data(self.buffer.split().freeze()))),
            },
            BodyState::Chunked(decoder) => {
                let step = match decoder.step(&mut self.buffer) {
                    Ok(step) => step,
                    Err(error) => {
                        self.body = BodyState::Failed;
                        return Err(error.into());
                    }
                };
                if decoder.is_done() {
                    self.body = BodyState::Done;
                }
                Ok(match step {
                    Step::Data(data) => Buffered::Frame(Frame::data(data)),
                    Step::Trailers(trailers) => trailer_frame(trailers),
                    Step::End => Buffered::End,
                    Step::NeedsMore => Buffered::NeedsMore,
                })
            }
        }
    }
}

fn trailer_frame(trailers: HeaderMap) -> Buffered {
    match trailers.is_empty() {
        true => Buffered::End,
        false => Buffered::Frame(Frame::trailers(trailers)),
    }
}

enum Buffered {
    Frame(Frame<Bytes>),
    End,
    NeedsMore,
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write as _};

    use tokio::net::TcpListener;

    use super::*;

    /// The kernel holds the sender's second segment back until the first is acknowledged, and in an
    /// exchange of requests and answers it acknowledges late.
    #[tokio::test]
    async fn a_sender_that_waits_to_be_acknowledged_does_not_wait_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let near = listener.accept().await.unwrap().0;
        socket2::SockRef::from(&near).set_tcp_quickack(false).unwrap();
        far.write_all(b"most ").unwrap();
        far.write_all(b"and the rest").unwrap();
        near.readable().await.unwrap();
        let mut stream = Stream::Tcp(near);
        let mut reader = Reader::default();
        reader.begin_body(Length::Exact(17));
        let mut next = async |wanted: &str| {
            let piece = poll_fn(|cx| Poll::Ready(reader.poll_body(cx, &mut stream))).await;
            match piece {
                Poll::Ready(Some(Ok(frame))) => assert_eq!(frame.into_data().unwrap(), wanted),
                Poll::Ready(_) => panic!("not {wanted}"),
                Poll::Pending => assert_eq!(wanted, "nothing yet"),
            }
        };
        next("most ").await;
        next("nothing yet").await;
        // It has come already, which the runtime learns when it looks.
        tokio::task::yield_now().await;
        next("and the rest").await;
    }
}
