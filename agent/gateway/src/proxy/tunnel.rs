//! Two streams joined after a change of protocol (WebSocket): bytes pass both ways as they come.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;

use super::{stream::Stream, timer::Timer};

const BUFFER: usize = 16 << 10;

pub struct Tunnel {
    pub upstream: Stream,
    /// What the upstream sent after its 101.
    pub read: BytesMut,
    /// Without a byte in either direction.
    pub idle: Option<Duration>,
}

/// Bytes that passed, from the client and to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    pub up: u64,
    pub down: u64,
}

#[derive(Default)]
struct Direction {
    buffer: BytesMut,
    is_ended: bool,
    is_over: bool,
    passed: u64,
}

impl Direction {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        while !self.is_over {
            if !self.buffer.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.buffer))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.buffer.advance(written);
                self.passed += written as u64;
                continue;
            }
            if self.is_ended {
                // The other direction goes on: a half-closed connection is not closed.
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.is_over = true;
                break;
            }
            ready!(Pin::new(&mut *to).poll_flush(cx))?;
            self.buffer.reserve(BUFFER);
            self.is_ended = ready!(from.poll_fill(cx, &mut self.buffer))? == 0;
        }
        Poll::Ready(Ok(()))
    }
}

/// Until both directions have ended, one fails, or nothing passes for too long.
pub async fn run(mut client: Stream, read: BytesMut, tunnel: Tunnel, timer: &mut Timer) -> Passed {
    let Tunnel { mut upstream, read: answered, idle } = tunnel;
    let mut up = Direction { buffer: read, ..Direction::default() };
    let mut down = Direction { buffer: answered, ..Direction::default() };
    let mut before = 0;
    timer.set_after(idle);
    poll_fn(|cx| {
        let upward = up.poll(cx, &mut client, &mut upstream);
        let downward = down.poll(cx, &mut upstream, &mut client);
        match (upward, downward) {
            (Poll::Ready(Err(_)), _) | (_, Poll::Ready(Err(_))) => return Poll::Ready(()),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => return Poll::Ready(()),
            _ => {}
        }
        if before != up.passed + down.passed {
            before = up.passed + down.passed;
            timer.set_after(idle);
        }
        timer.poll(cx).map(|_| ())
    })
    .await;
    Passed { up: up.passed, down: down.passed }
}
