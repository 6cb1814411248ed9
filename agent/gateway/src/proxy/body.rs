//! The body of a message, wherever it comes from: one type, so that nothing needs a box per chunk.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

use super::{
    excerpt::Excerpt,
    http1::{chunked::ChunkError, client::Exchange, head, length::Length, server::ClientBody},
};

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection ended before the body did")]
    CutShort,
    #[error("{0}")]
    Io(io::Error),
    #[error("{0}")]
    Chunk(#[from] ChunkError),
    #[error("{0}")]
    Http2(#[from] hyper::Error),
    #[error("the body is longer than it may be")]
    TooLong,
    #[error("the body is not as long as its head said")]
    WrongLength,
}

#[derive(Default)]
pub enum Body {
    #[default]
    Empty,
    Full(Bytes),
    /// Of an HTTP/1 client's request.
    Client(ClientBody),
    /// Of an HTTP/1 upstream's response, with its connection.
    Upstream(Box<Exchange>),
    Http2(Incoming),
    /// It could not be read.
    Failed,
    /// At most so many bytes more.
    Limited(u64, Box<Body>),
    /// What was read ahead, then the rest.
    Resumed(Bytes, Box<Body>),
    /// As it is, its beginning copied as it passes.
    Copied(Excerpt, Box<Body>),
}

impl Body {
    pub fn full(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        if bytes.is_empty() { Self::Empty } else { Self::Full(bytes) }
    }

    /// `Unknown` where only the end will tell.
    pub fn length(&self) -> Length {
        match self {
            Self::Empty => Length::NONE,
            Self::Failed => Length::Unknown,
            Self::Full(bytes) => Length::Exact(bytes.len() as u64),
            Self::Client(body) => body.length(),
            Self::Upstream(exchange) => exchange.length(),
            Self::Http2(incoming) => match HttpBody::size_hint(incoming).exact() {
                Some(length) => Length::Exact(length),
                None if incoming.is_end_stream() => Length::NONE,
                None => Length::Unknown,
            },
            Self::Limited(_, body) | Self::Copied(_, body) => body.length(),
            Self::Resumed(first, rest) => match rest.length() {
                Length::Exact(length) => Length::Exact(length + first.len() as u64),
                other => other,
            },
        }
    }

    pub fn is_empty(&self) -> bool {
        self.length() == Length::NONE
    }

    /// Reads all of it, at most `most` bytes. A longer one is given back as it was.
    pub async fn collect_up_to(mut self, most: usize) -> Result<Result<Bytes, Self>, BodyError> {
        match self {
            Self::Empty => return Ok(Ok(Bytes::new())),
            Self::Full(bytes) if bytes.len() <= most => return Ok(Ok(bytes)),
            Self::Full(_) => return Ok(Err(self)),
            _ => {}
        }
        if matches!(self.length(), Length::Exact(length) if length > most as u64) {
            return Ok(Err(self));
        }
        let mut read = BytesMut::new();
        while let Some(frame) = self.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            read.extend_from_slice(&data);
            if read.len() > most {
                return Ok(Err(Self::Resumed(read.freeze(), Box::new(self))));
            }
        }
        Ok(Ok(read.freeze()))
    }

    pub fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Self::Empty => Poll::Ready(None),
            Self::Failed => Poll::Ready(Some(Err(BodyError::CutShort))),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Self::Client(body) => body.poll_next(cx),
            Self::Upstream(exchange) => exchange.poll_next(cx),
            Self::Http2(incoming) => {
                let mut frame = ready!(Pin::new(incoming).poll_frame(cx));
                if let Some(Ok(frame)) = &mut frame
                    && let Some(trailers) = frame.trailers_mut()
                {
                    head::strip_trailers(trailers);
                }
                Poll::Ready(frame.map(|frame| frame.map_err(BodyError::from)))
            }
            Self::Limited(left, body) => {
                let polled = ready!(body.poll_next(cx));
                if let Some(Ok(frame)) = &polled {
                    let size = frame.data_ref().map_or(0, |data| data.len() as u64);
                    match left.checked_sub(size) {
                        Some(rest) => *left = rest,
                        None => return Poll::Ready(Some(Err(BodyError::TooLong))),
                    }
                }
                Poll::Ready(polled)
            }
            Self::Copied(excerpt, body) => {
                let polled = ready!(body.poll_next(cx));
                match &polled {
                    Some(Ok(frame)) => {
                        frame.data_ref().inspect(|data| excerpt.see(data));
                        if body.is_empty() {
                            excerpt.end();
                        }
                    }
                    Some(Err(_)) => {}
                    None => excerpt.end(),
                }
                Poll::Ready(polled)
            }
            Self::Resumed(first, rest) => {
                let first = std::mem::take(first);
                *self = std::mem::take(rest);
                Poll::Ready(Some(Ok(Frame::data(first))))
            }
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        self.get_mut().poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.length() {
            Length::Exact(length) => SizeHint::with_exact(length),
            _ => SizeHint::default(),
        }
    }
}
